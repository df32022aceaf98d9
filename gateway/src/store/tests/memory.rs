//! The memory journal: what is kept while the disk refuses, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::ffi;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::ids::Epoch;
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::limits::{MEMORY_BYTES_MAX, MEMORY_RECORDS_MAX};
use crate::model::record::{Body, Class, Draft, Record, Severity, Value};
use crate::rt::board::Board;
use crate::rt::clock::ManualClock;
use crate::rt::metrics::Metrics;

use super::super::memory::{Handed, Memory};
use super::super::testing::{Alarms, clock, event, keyed, open_with, records, telemetry, uplink};
use super::super::{CommandSlot, Op, Options, Reader, Store, StoreError, Synchronous};

/// Far longer than anything here takes, also on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

/// A journal on a disk with a switch.
struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    fold: Alarms,
    store: Store,
    refuses: Arc<AtomicBool>,
}

impl House {
    fn new() -> Self {
        let (dir, clock, fold) = (tempfile::tempdir().unwrap(), clock(), Alarms::default());
        let (core, _) = open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
        let refuses = core.refuses();
        let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
        let options = options(&clock, &board, &metrics);
        let store = Store::start(dir.path(), core, options).unwrap();
        Self { dir, clock, board, metrics, fold, store, refuses }
    }

    fn lose(&self) {
        self.refuses.store(true, Ordering::SeqCst);
    }

    async fn give_back(&self) {
        self.refuses.store(false, Ordering::SeqCst);
        self.await_health().await;
    }

    async fn await_health(&self) {
        let healthy = async {
            while self.store.probe().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, healthy).await.expect("the disk is found to be back");
    }

    fn press(&self, n: i64) -> Vec<Draft> {
        vec![event(&self.clock, "b1", n, Some(Severity::Critical))]
    }

    async fn append(&self, drafts: Vec<Draft>) -> Result<usize, JournalError> {
        self.store.append(drafts, Durability::Synced).await.map(|committed| committed.repeated)
    }

    async fn volatile(&self, drafts: Vec<Draft>) {
        let answer = self.append(drafts).await;
        assert!(matches!(answer, Err(JournalError::Volatile)), "{answer:?}");
    }

    fn kept(&self, class: Class) -> Vec<Arc<Record>> {
        self.store.volatile().after(class, 0, usize::MAX).into_iter().map(|(_, record)| record).collect()
    }

    fn stored(&self, class: Class) -> Vec<Record> {
        records(&self.store.reader().unwrap(), class)
    }

    fn dropped(&self, reason: &str) -> u64 {
        let drops = self.metrics.drops();
        drops
            .iter()
            .filter(|drop| drop.labels.iter().any(|label| label == reason))
            .map(|drop| drop.count)
            .sum()
    }
}

fn options(clock: &Arc<ManualClock>, board: &Arc<Board>, metrics: &Arc<Metrics>) -> Options {
    Options {
        clock: Arc::clone(clock) as _,
        metrics: Arc::clone(metrics),
        board: Arc::clone(board),
        synchronous: Synchronous::Full,
        keeping: None,
    }
}

/// What an event is: its number, or its name where it has none.
fn said(body: &Body) -> String {
    let Body::Event(event) = body else { return "an alarm".to_owned() };
    match event.params.get("n") {
        Some(Value::Int(n)) => n.to_string(),
        _ => event.name.clone(),
    }
}

fn names<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<String> {
    records.into_iter().map(|record| said(&record.body)).collect()
}

#[tokio::test]
async fn what_comes_while_the_disk_refuses_acts_is_told_and_is_stored_when_it_is_back() {
    let house = House::new();
    assert_eq!(house.append(house.press(1)).await.unwrap(), 0);
    house.lose();
    for n in 2..=3 {
        house.clock.advance_ms(1);
        house.volatile(house.press(n)).await;
    }
    house.store.append(vec![telemetry(&house.clock, "t1", 7)], Durability::Relaxed).await.unwrap();
    // What nobody waits for is taken along.
    house.volatile(Vec::new()).await;
    let kept = house.kept(Class::Event);
    assert_eq!(names(kept.iter().map(AsRef::as_ref)), ["store.lost", "2", "3"]);
    let durable = house.store.heads().borrow().epoch();
    assert!(kept.iter().all(|record| record.epoch != durable), "its ids are nobody else's");
    assert_eq!(kept.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
    // The rules have seen them, and what they made of them is marked.
    let alarms = house.kept(Class::Alarm);
    assert_eq!(alarms.len(), 3, "store.lost is critical too");
    let marked = |record: &Record| matches!(&record.body, Body::Alarm(alarm) if alarm.volatile);
    assert!(alarms.iter().all(|record| marked(record)));
    assert_eq!(house.stored(Class::Event).len(), 1, "and nothing of it is on disk");
    assert!(house.store.probe().await.is_err());
    let memory = house.board.snapshot().store.memory;
    assert!(memory.lost_since_mono_ms.is_some() && memory.losses == 1 && memory.kept >= 6, "{memory:?}");
    house.clock.advance_ms(5_000);
    house.give_back().await;
    let stored = house.stored(Class::Event);
    assert_eq!(names(&stored), ["1", "store.lost", "2", "3", "store.back"], "in order");
    assert_eq!(stored[2].at, kept[1].at, "stamps stay");
    assert!(stored.iter().all(|record| record.epoch == durable));
    assert_eq!(house.stored(Class::Alarm).len(), 4, "with what the rules made of them, once");
    assert!(house.stored(Class::Alarm)[1..].iter().all(marked));
    assert_eq!(house.stored(Class::Telemetry).len(), 1);
    assert!(house.kept(Class::Event).is_empty());
    let Body::Event(back) = &stored[4].body else { panic!("{stored:?}") };
    assert_eq!(back.params["stored"], Value::Int(7));
    let memory = house.board.snapshot().store.memory;
    assert_eq!((memory.lost_since_mono_ms, memory.kept, memory.stored), (None, 0, 7));
    assert_eq!(house.board.snapshot().store.trouble, None);
    // The fold saw each record once, in one order.
    let seen = house.fold.seen.lock().unwrap();
    assert!(seen.committed.is_sorted_by(|a, b| a < b), "{:?}", seen.committed);
    assert_eq!(seen.committed.len(), 10);
}

#[tokio::test]
async fn a_repetition_is_told_once_and_acknowledged_when_it_is_on_disk() {
    let house = House::new();
    let key = vec![keyed(&house.clock, "d1", "k1")];
    assert_eq!(house.append(key.clone()).await.unwrap(), 0);
    house.lose();
    let press = house.press(1);
    for _ in 0..4 {
        house.volatile(press.clone()).await;
    }
    assert_eq!(names(house.kept(Class::Event).iter().map(AsRef::as_ref)), ["store.lost", "1"]);
    assert_eq!(house.dropped("repeated_in_memory"), 3);
    // What was on disk before is acknowledged also now; an empty message asks how things stand.
    assert_eq!(house.append(key).await.unwrap(), 1);
    house.volatile(Vec::new()).await;
    house.give_back().await;
    assert_eq!(house.append(press.clone()).await.unwrap(), 1, "acknowledged without being stored again");
    assert_eq!(house.stored(Class::Event).iter().filter(|record| said(&record.body) == "1").count(), 1);
    house.clock.advance_ms(1);
    assert_eq!(house.append(house.press(1)).await.unwrap(), 0, "the same words later are another press");
}

#[tokio::test]
async fn memory_is_bounded_and_values_give_way_to_events() {
    let house = House::new();
    house.lose();
    house.volatile(vec![event(&house.clock, "b1", 1, None)]).await;
    let value = |n| telemetry(&house.clock, "t1", n);
    for page in 0..5 {
        house.volatile((0..1_000).map(|n| value(page * 1_000 + n)).collect()).await;
    }
    let values = house.kept(Class::Telemetry);
    // One event, `store.lost` and its alarm stay.
    assert_eq!(values.len(), MEMORY_RECORDS_MAX - 3);
    assert_eq!(values[0].seq, 5_000 - values.len() as u64 + 1, "the oldest went first");
    house.volatile((0..900).map(|n| event(&house.clock, "b2", n, None)).collect()).await;
    assert_eq!(house.kept(Class::Event).len(), 902);
    for page in 0..5_i64 {
        let press = |n| event(&house.clock, "b3", page * 1_000 + n, None);
        house.volatile((0..1_000).map(press).collect()).await;
    }
    assert_eq!(house.kept(Class::Telemetry).len(), 0);
    assert_eq!((house.kept(Class::Event).len(), house.kept(Class::Alarm).len()), (MEMORY_RECORDS_MAX - 1, 1));
    let large = |n| {
        let mut large = event(&house.clock, "b4", n, None);
        if let Body::Event(event) = &mut large.body {
            event.params.insert("x".to_owned(), Value::Text("x".repeat(10_000).into()));
        }
        large
    };
    house.volatile((0..900).map(large).collect()).await;
    let left = house.kept(Class::Event);
    assert!(left.len() * 10_000 < MEMORY_BYTES_MAX, "{} records", left.len());
    let lost: u64 = house.board.snapshot().store.memory.dropped.values().sum();
    assert_eq!(lost, house.dropped("memory_full"));
    assert_eq!(lost + left.len() as u64 + 1, 5_000 + 5_900 + 900 + 3);
    house.give_back().await;
    let stored = house.stored(Class::Event);
    let Body::Event(back) = &stored.last().unwrap().body else { panic!("{stored:?}") };
    assert_eq!(back.params["dropped"], Value::Int(lost.cast_signed()), "and is told");
    assert_eq!(back.severity, Some(Severity::Major));
}

#[tokio::test]
async fn uplinks_go_on_and_nothing_is_promised() {
    let house = House::new();
    let (city, street) = (uplink("city"), uplink("street"));
    let first = house.store.next_conn(&city, 0).await.unwrap();
    assert_eq!(house.store.begin_command(&city, "before", [1; 32]).await.unwrap(), CommandSlot::New);
    house.lose();
    house.volatile(house.press(1)).await;
    assert_eq!(house.store.next_conn(&street, 0).await.unwrap(), first + 1);
    assert_eq!(house.store.next_conn(&city, first + 9).await.unwrap(), first + 9);
    let mut cursors = Cursors::default();
    cursors.classes.insert(Class::Event, ClassCursor { live_next: 42, ..ClassCursor::default() });
    house.store.save_cursors(&city, cursors.clone()).await.unwrap();
    let refused = house.store.begin_command(&city, "c", [1; 32]).await;
    assert!(matches!(refused, Err(JournalError::Disk(_))), "{refused:?}");
    let refused = house.store.settle(&city, cursors.clone(), house.press(9)).await;
    assert!(matches!(refused, Err(JournalError::Disk(_))), "{refused:?}");
    let outcome = house.store.end_command(&city, "before", "done".to_owned()).await;
    assert!(matches!(outcome, Err(JournalError::Volatile)), "{outcome:?}");
    let before = house.store.heads().borrow().epoch();
    let fork = house.store.fork_epoch("a copy").await;
    assert!(matches!(fork, Err(JournalError::Volatile)), "{fork:?}");
    house.give_back().await;
    let reader = house.store.reader().unwrap();
    assert_eq!(reader.last_conn(&city).unwrap(), first + 9);
    assert_eq!(reader.last_conn(&street).unwrap(), first + 1);
    assert_eq!(reader.cursors(&city).unwrap(), Some(cursors));
    let known = CommandSlot::Known { outcome: Some("done".to_owned()) };
    assert_eq!(house.store.begin_command(&city, "before", [1; 32]).await.unwrap(), known);
    assert_ne!(house.store.heads().borrow().epoch(), before, "the fork was made up for");
    assert!(house.store.next_conn(&city, 0).await.unwrap() > first + 9);
}

#[tokio::test]
async fn one_failure_that_passes_costs_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let (mut core, _) = open_with(dir.path(), &clock, "m1", Box::new(Alarms::default())).unwrap();
    // The hook goes with the connection, which the second try opens anew.
    core.conn().commit_hook(Some(|| true)).unwrap();
    let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
    let store = Store::start(dir.path(), core, options(&clock, &board, &metrics)).unwrap();
    let press = vec![event(&clock, "b1", 1, None)];
    assert_eq!(store.append(press, Durability::Synced).await.unwrap().last_pos, 1);
    assert_eq!(board.snapshot().store.memory.losses, 0);
    assert_eq!(records(&store.reader().unwrap(), Class::Event).len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_lost_again_and_again_loses_nothing_that_was_acknowledged() {
    let house = House::new();
    let (mut acknowledged, mut rng) = (Vec::new(), fastrand::Rng::with_seed(11));
    let mut pending: Vec<Vec<Draft>> = Vec::new();
    for n in 0..120 {
        house.refuses.store(rng.u8(..4) < 2, Ordering::SeqCst);
        house.clock.advance_ms(1);
        pending.push(house.press(n));
        let mut left = Vec::new();
        for press in pending.drain(..) {
            match house.append(press.clone()).await {
                Ok(_) => acknowledged.push(said(&press[0].body)),
                Err(JournalError::Volatile) => left.push(press),
                Err(error) => panic!("{error}"),
            }
        }
        pending = left;
        if n % 16 == 15 {
            house.give_back().await;
        }
    }
    house.give_back().await;
    for press in &pending {
        house.append(press.clone()).await.unwrap();
    }
    let stored = house.stored(Class::Event);
    let mut presses: Vec<String> =
        names(&stored).into_iter().filter(|name| !name.starts_with("store.")).collect();
    assert!(acknowledged.iter().all(|press| presses.contains(press)));
    let all = presses.len();
    presses.sort();
    presses.dedup();
    assert_eq!((all, presses.len()), (120, 120), "none is missing, none stands twice");
    assert!(house.board.snapshot().store.memory.losses > 3);
    let seen = house.fold.seen.lock().unwrap();
    assert!(seen.committed.is_sorted_by(|a, b| a < b), "the rules saw one order");
}

/// A name that no directory can take: a journal's file stands where the directory should be.
#[tokio::test]
async fn a_mistake_of_the_installer_stays_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
    let opened = Store::open(&file, options(&clock(), &board, &metrics), Box::new(Alarms::default()));
    assert!(matches!(opened, Err(StoreError::File { .. })), "{opened:?}");
}

#[test]
fn what_is_the_disks_fault_is_known_by_its_code() {
    let file = |code| StoreError::file("write", "/x".as_ref(), std::io::Error::from_raw_os_error(code));
    // ENOSPC, EROFS, EIO, EDQUOT against EACCES, ENOENT, ENOTDIR, EEXIST.
    assert!([28, 30, 5, 122].into_iter().all(|code| file(code).is_disk()));
    assert!([13, 2, 20, 17].into_iter().all(|code| !file(code).is_disk()));
    let sql = |code| {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        super::super::error::sql("write", "/nowhere".as_ref())(failure).is_disk()
    };
    assert!([ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_READONLY].into_iter().all(sql));
    assert!(
        ![ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_DATA]
            .into_iter()
            .any(sql)
    );
}

#[tokio::test]
async fn closing_on_a_lost_disk_tries_it_a_last_time() {
    let house = House::new();
    house.lose();
    house.volatile(house.press(1)).await;
    house.refuses.store(false, Ordering::SeqCst);
    let House { dir, store, .. } = house;
    store.close().await.unwrap();
    let stored = records(&Reader::open(dir.path()).unwrap(), Class::Event);
    assert!(names(&stored).contains(&"1".to_owned()), "{stored:?}");
}

#[tokio::test]
async fn a_witness_that_cannot_be_written_loses_the_disk_and_no_uplink() {
    let house = House::new();
    let street = uplink("street");
    let first = house.store.next_conn(&street, 0).await.unwrap();
    // The file takes pages, and the directory no file.
    let in_the_way = house.dir.path().join("journal.witness.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let second = house.store.next_conn(&street, 0).await.unwrap();
    assert!(second > first);
    house.volatile(house.press(1)).await;
    std::fs::remove_dir(&in_the_way).unwrap();
    house.await_health().await;
    assert!(house.stored(Class::Event).iter().any(|record| said(&record.body) == "1"));
    assert!(house.store.reader().unwrap().conn_max().unwrap() >= second);
}

#[test]
fn what_a_failed_commit_has_left_on_disk_is_not_kept_beside_it() {
    let (clock, fold) = (clock(), Alarms::default());
    let mut memory = Memory::new(Epoch(7));
    memory.begin(40, 0);
    let drafts = vec![event(&clock, "b1", 1, None), event(&clock, "b1", 2, None)];
    let bodies: Vec<String> =
        drafts.iter().map(|draft| super::super::row::encode(&draft.body).unwrap()).collect();
    let append = |memory: &mut Memory, fold: &mut Alarms| {
        memory.append((drafts.clone(), &bodies), fold, true, &|_draft| false)
    };
    let mut seen = fold.clone();
    assert_eq!(append(&mut memory, &mut seen), Handed { fresh: 2, repeated: 0, durable: 0 });
    let on_disk = |n: usize| {
        let Draft { at, test, body, .. } = drafts[n].clone();
        Record { pos: 1, epoch: Epoch(1), class: Class::Event, seq: 1, at, test, body }
    };
    assert!(memory.found(&on_disk(1), 0), "the fold has seen it");
    assert!(!memory.found(&on_disk(1), 0), "once");
    assert_eq!(memory.len(), 1);
    let [Op::Restore { kept }] = &memory.first_ops(10)[..] else { panic!("one op") };
    assert_eq!((kept.len(), kept[0].0, said(&kept[0].1.body)), (1, 41, "1".to_owned()), "positions go on");
    assert_eq!(append(&mut memory, &mut seen), Handed { fresh: 0, repeated: 1, durable: 1 });
}
