//! The writer's thread: group commit, what is held, a full queue, a disk that refuses, a death.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::journal::{Durability, Fold, Journal, JournalError, NoFold};
use crate::model::limits::JOURNAL_QUEUE_MAX;
use crate::model::record::{Class, Draft, Record};
use crate::rt::board::Board;
use crate::rt::clock::ManualClock;
use crate::rt::metrics::Metrics;

use super::super::testing::{clock, event, records, telemetry, uplink};
use super::super::{CommandSlot, How, Options, Store, Synchronous};

/// Far longer than anything here takes, also on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
}

impl House {
    fn new() -> Self {
        let (metrics, board) = (Arc::new(Metrics::new()), Arc::new(Board::new()));
        Self { dir: tempfile::tempdir().unwrap(), clock: clock(), metrics, board }
    }

    fn options(&self) -> Options {
        Options {
            clock: Arc::clone(&self.clock) as _,
            metrics: Arc::clone(&self.metrics),
            board: Arc::clone(&self.board),
            synchronous: Synchronous::Full,
            keeping: None,
        }
    }

    fn open(&self, fold: Box<dyn Fold>) -> Store {
        Store::open(self.dir.path(), self.options(), fold).unwrap().0
    }

    fn event(&self, n: i64) -> Vec<Draft> {
        vec![event(&self.clock, "b1", n, None)]
    }

    fn dropped(&self, reason: &str) -> u64 {
        let drops = self.metrics.drops();
        drops.iter().find(|drop| drop.labels.iter().any(|label| label == reason)).map_or(0, |drop| drop.count)
    }
}

#[tokio::test]
async fn concurrent_appends_share_commits_and_all_are_on_disk() {
    let house = House::new();
    let store = house.open(Box::new(NoFold));
    let appends = (0..300).map(|n| store.append(house.event(n), Durability::Synced));
    let mut positions: Vec<u64> =
        join_all(appends).await.into_iter().map(|committed| committed.unwrap().last_pos).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=300).collect::<Vec<_>>());
    assert_eq!(store.heads().borrow().of(Class::Event).last, 300);
    let status = house.board.snapshot().store;
    assert!(status.commits < 150, "{} commits for 300 appends", status.commits);
    assert_eq!((status.last[&Class::Event], status.trouble), (300, None));
    assert!(status.bytes > 0 && status.path.ends_with("journal.db"));
    assert_eq!(status.epoch, store.heads().borrow().epoch().to_string());
    assert_eq!(records(&store.reader().unwrap(), Class::Event).len(), 300);
    assert!(house.metrics.render().contains("gatehouse_stored_total{class=\"event\"} 300"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_nobody_waits_for_is_held_but_not_for_long() {
    let house = House::new();
    let store = house.open(Box::new(NoFold));
    let mut heads = store.heads();
    let draft = || vec![telemetry(&house.clock, "t1", 1)];
    for _ in 0..20 {
        store.append(draft(), Durability::Relaxed).await.unwrap();
    }
    timeout(LONG, heads.changed()).await.unwrap().unwrap();
    assert_eq!(heads.borrow_and_update().of(Class::Telemetry).last, 20);
    assert_eq!(house.board.snapshot().store.commits, 1, "they were committed together");
    store.append(draft(), Durability::Relaxed).await.unwrap();
    store.append(house.event(1), Durability::Synced).await.unwrap();
    assert_eq!(heads.borrow().of(Class::Telemetry).last, 21, "it goes with the next synced one");
    assert_eq!(house.board.snapshot().store.commits, 2);
    store.append(draft(), Durability::Relaxed).await.unwrap();
    store.close().await.unwrap();
    let (core, _) = open_again(&house);
    assert_eq!(core.heads().of(Class::Telemetry).last, 22, "closing commits what is held");
}

fn open_again(house: &House) -> (super::super::Core, super::super::Opened) {
    let fold: Box<dyn Fold> = Box::new(NoFold);
    super::super::Core::open(house.dir.path(), Synchronous::Full, Arc::clone(&house.clock) as _, fold)
        .unwrap()
}

#[tokio::test]
async fn the_uplinks_calls_reach_the_file() {
    let house = House::new();
    let store = house.open(Box::new(NoFold));
    let city = uplink("city");
    let at = |live_next| {
        let mut cursors = Cursors::default();
        cursors.classes.insert(Class::Event, ClassCursor { live_next, ..ClassCursor::default() });
        cursors
    };
    for live_next in 1..50 {
        store.save_cursors(&city, at(live_next)).await.unwrap();
    }
    assert_eq!(store.next_conn(&city, 5).await.unwrap(), 5);
    let reader = store.reader().unwrap();
    assert_eq!(reader.cursors(&city).unwrap(), Some(at(49)), "the last of those that waited");
    store.save_cursors(&city, at(60)).await.unwrap();
    store.settle(&city, at(61), house.event(1)).await.unwrap();
    assert_eq!(reader.cursors(&city).unwrap(), Some(at(61)), "a later one is not overtaken");
    assert_eq!(store.begin_command(&city, "c", [1; 32]).await.unwrap(), CommandSlot::New);
    store.end_command(&city, "c", "done".to_owned()).await.unwrap();
    let known = CommandSlot::Known { outcome: Some("done".to_owned()) };
    assert_eq!(store.begin_command(&city, "c", [1; 32]).await.unwrap(), known);
    let epoch = store.fork_epoch("a test").await.unwrap();
    assert_eq!(store.heads().borrow().epoch(), epoch);
    assert_eq!(records(&reader, Class::Event)[0].epoch, epoch);
    store.probe().await.unwrap();
    store.close().await.unwrap();
    let (_core, opened) = open_again(&house);
    assert_eq!((opened.epoch, opened.how), (epoch, How::Existing));
}

/// A fold that waits at its gate for each record, so that the queue behind it fills.
#[derive(Debug)]
struct Gate(Mutex<mpsc::Receiver<()>>);

impl Fold for Gate {
    fn apply(&mut self, _record: &Record) -> Vec<Draft> {
        // A dropped sender leaves the gate open.
        self.0.lock().unwrap().recv().ok();
        Vec::new()
    }

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}
}

#[tokio::test]
async fn a_full_queue_drops_what_is_relaxed_and_lets_what_is_synced_wait() {
    let house = House::new();
    let (gate, closed) = mpsc::channel();
    let store = house.open(Box::new(Gate(Mutex::new(closed))));
    let handle = store.clone();
    let first = handle.append(house.event(0), Durability::Synced);
    tokio::pin!(first);
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let mut taken = 0;
    let refused = loop {
        match store.append(house.event(1), Durability::Relaxed).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full), "{refused}");
    // The writer may have taken one batch out of the queue before it came to the gate.
    assert!((JOURNAL_QUEUE_MAX - 1..2 * JOURNAL_QUEUE_MAX).contains(&taken), "{taken}");
    assert_eq!(house.dropped("queue_full"), 1);
    let full = store.save_cursors(&uplink("city"), Cursors::default()).await;
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    let waits = handle.append(house.event(2), Durability::Synced);
    tokio::pin!(waits);
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    drop(gate);
    timeout(LONG, first).await.unwrap().unwrap();
    let last = timeout(LONG, waits).await.unwrap().unwrap();
    assert_eq!(last.last_pos, taken as u64 + 2, "nothing that was taken is missing");
    store.close().await.unwrap();
}

/// A fold with a mistake in it.
#[derive(Debug)]
struct Faulty;

impl Fold for Faulty {
    fn apply(&mut self, _record: &Record) -> Vec<Draft> {
        panic!("a mistake in a rule")
    }

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}
}

#[tokio::test]
async fn a_panic_of_the_writer_is_told_and_stores_nothing() {
    let house = House::new();
    let store = house.open(Box::new(Faulty));
    let healthy = timeout(Duration::from_millis(20), store.failed()).await;
    assert!(healthy.is_err(), "it has not failed yet");
    let answer = store.append(house.event(1), Durability::Synced).await;
    assert!(matches!(answer, Err(JournalError::Closed)), "{answer:?}");
    let why = timeout(LONG, store.failed()).await.unwrap();
    assert!(why.contains("panicked"), "{why}");
    assert!(matches!(store.probe().await, Err(JournalError::Closed)));
    assert!(store.close().await.is_err());
    let (core, opened) = open_again(&house);
    assert_eq!((core.heads().pos(), opened.how), (0, How::Existing));
}

#[tokio::test]
async fn a_closed_journal_says_so_and_frees_its_directory() {
    let house = House::new();
    let store = house.open(Box::new(NoFold));
    let other = store.clone();
    store.close().await.unwrap();
    let answer = other.append(house.event(1), Durability::Synced).await;
    assert!(matches!(answer, Err(JournalError::Closed)), "{answer:?}");
    let failed = timeout(Duration::from_millis(20), other.failed()).await;
    assert!(failed.is_err(), "closing is no failure");
    open_again(&house);
}
