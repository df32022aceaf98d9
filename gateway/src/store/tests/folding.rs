//! The fold's rows in the file, and its deadlines: what it knows is what the file holds, whatever fails; the same records
//! give the same records, whatever the batching and wherever a crash falls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use crate::model::command::{is_tick, tick};
use crate::model::ids::BootId;
use crate::model::journal::{Durability, Fold, Journal, JournalError};
use crate::model::record::{Body, Category, Class, DeviceRef, Draft, Event, Record, Severity, Value};
use crate::rt::board::Board;
use crate::rt::clock::{Clock, ManualClock, SharedClock};
use crate::rt::metrics::Metrics;

use super::super::row::fold_rows;
use super::super::testing::{
    Fault, Image, Switches, alarm, clock, event, open_with, records, seed, telemetry, torn,
};
use super::super::{Core, How, Op, Options, Reader, Store, Synchronous};

/// How long a device may be silent.
const SILENT_MS: u64 = 3_000;
/// Far longer than anything here takes, also on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

type Rows = BTreeMap<String, String>;

/// A fold that counts what each device says, and tells when one has been silent: rows, timers, and records of its own.
#[derive(Debug, Default)]
struct Watch {
    rows: Rows,
    before: BTreeMap<String, Option<String>>,
    unsaved: BTreeSet<String>,
    shown: Arc<Mutex<Rows>>,
}

impl Watch {
    fn set(&mut self, key: String, value: Option<u64>) {
        let value = value.map(|value| value.to_string());
        let old = match &value {
            Some(value) => self.rows.insert(key.clone(), value.clone()),
            None => self.rows.remove(&key),
        };
        self.before.entry(key.clone()).or_insert(old);
        self.unsaved.insert(key);
    }

    fn number(&self, key: &str) -> u64 {
        self.rows.get(key).map_or(0, |value| value.parse().unwrap())
    }

    fn due(&self) -> Option<(u64, String)> {
        let dues = self.rows.iter().filter(|(key, _)| key.starts_with("due/"));
        dues.map(|(key, value)| (value.parse().unwrap(), key.clone())).min()
    }

    fn show(&self) {
        *self.shown.lock().unwrap() = self.rows.clone();
    }
}

impl Fold for Watch {
    fn load(&mut self, rows: Vec<(String, String)>) {
        for (key, value) in rows {
            if !self.unsaved.contains(&key) {
                self.rows.insert(key, value);
            }
        }
        self.show();
    }

    fn apply(&mut self, record: &Record) -> Vec<Draft> {
        let mut drafts = Vec::new();
        while let Some((due, key)) = self.due().filter(|(due, _)| *due <= record.at.mono_ms) {
            self.set(key.clone(), None);
            drafts.push(silent(record, due, &key));
        }
        if let Body::Event(event) = &record.body
            && !event.device.is_gateway()
        {
            let id = event.device.id.to_string();
            self.set(format!("n/{id}"), Some(self.number(&format!("n/{id}")) + 1));
            self.set(format!("due/{id}"), Some(record.at.mono_ms + SILENT_MS));
            if event.severity == Some(Severity::Critical) {
                drafts.extend(alarm(record));
            }
        }
        drafts
    }

    fn unsaved(&self) -> Vec<(String, Option<String>)> {
        self.unsaved.iter().map(|key| (key.clone(), self.rows.get(key).cloned())).collect()
    }

    fn commit(&mut self, saved: bool) {
        self.before.clear();
        if saved {
            self.unsaved.clear();
        }
        self.show();
    }

    fn rollback(&mut self) {
        for (key, old) in std::mem::take(&mut self.before) {
            match old {
                Some(old) => self.rows.insert(key, old),
                None => self.rows.remove(&key),
            };
        }
    }

    fn due_ms(&self, _boot: &BootId) -> Option<u64> {
        self.due().map(|(due, _)| due)
    }
}

/// What the fold says of a silent device: the gateway's own event, and grave, so that an alarm follows from it.
fn silent(record: &Record, due: u64, key: &str) -> Draft {
    let params = BTreeMap::from([
        ("due".to_owned(), Value::Int(due.cast_signed())),
        ("of".to_owned(), Value::Text(key.into())),
    ]);
    let event = Event {
        device: DeviceRef::gateway(None),
        place: crate::model::place::Place::default(),
        category: Category::Device,
        name: "device.silent".to_owned(),
        severity: Some(Severity::Minor),
        params,
        text: None,
    };
    Draft { at: record.at.clone(), test: false, dedup: None, body: Body::Event(Box::new(event)) }
}

fn watch() -> (Box<dyn Fold>, Arc<Mutex<Rows>>) {
    let watch = Watch::default();
    let shown = Arc::clone(&watch.shown);
    (Box::new(watch), shown)
}

fn begin(clock: &Arc<ManualClock>) -> (TempDir, Core, Arc<Mutex<Rows>>) {
    let dir = tempfile::tempdir().unwrap();
    let (fold, shown) = watch();
    let (core, _) = open_with(dir.path(), clock, "m1", fold).unwrap();
    (dir, core, shown)
}

fn stored(core: &mut Core) -> Rows {
    fold_rows(core.conn()).unwrap().into_iter().collect()
}

fn known(shown: &Mutex<Rows>) -> Rows {
    shown.lock().unwrap().clone()
}

fn press(clock: &ManualClock, id: &str) -> Draft {
    event(clock, id, 1, Some(Severity::Critical))
}

#[test]
fn rows_outlive_a_restart_and_a_fork_and_end_with_their_file() {
    let clock = clock();
    let (dir, mut core, shown) = begin(&clock);
    core.append(vec![press(&clock, "b1"), press(&clock, "b2"), press(&clock, "b1")]).unwrap();
    clock.advance_ms(SILENT_MS);
    core.append(vec![press(&clock, "b2")]).unwrap();
    let rows = known(&shown);
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["due/b2", "n/b1", "n/b2"]);
    assert_eq!(stored(&mut core), rows);
    drop(core);
    let (fold, shown) = watch();
    let (core, opened) = open_with(dir.path(), &clock, "another machine", fold).unwrap();
    assert!(matches!(opened.how, How::Restored { .. }), "{opened:?}");
    assert_eq!(known(&shown), rows);
    drop(core);
    std::fs::write(dir.path().join("journal.db"), "ruined".repeat(2_000)).unwrap();
    let (fold, shown) = watch();
    let (mut core, _) = open_with(dir.path(), &clock, "another machine", fold).unwrap();
    assert!(known(&shown).is_empty() && stored(&mut core).is_empty());
}

#[test]
fn whatever_fails_the_file_holds_what_the_fold_knows() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let clock = clock();
    let (dir, mut core, mut shown) = begin(&clock);
    let mut switches = Switches::install(&mut core);
    let (mut failed, mut late) = (0, 0);
    for round in 0..400 {
        clock.advance_ms(rng.u64(1..2_500));
        if rng.u8(..20) == 0 {
            drop(core);
            let (fold, fresh) = watch();
            (core, shown) = (open_with(dir.path(), &clock, "m1", fold).unwrap().0, fresh);
            switches = Switches::install(&mut core);
        }
        let before = core.heads().pos();
        let drafts = (0..rng.usize(1..5)).map(|_| press(&clock, &format!("b{}", rng.u8(..4)))).collect();
        match rng.u8(..3) {
            0 => switches.set(&mut core, Fault::Step(rng.i64(0..1_200))),
            1 => switches.set(&mut core, Fault::Commit),
            _ => {}
        }
        let done = core.append(drafts);
        switches.clear(&mut core);
        if done.is_err() {
            failed += 1;
            core.commit(&[]).unwrap();
            late += usize::from(core.heads().pos() > before);
        }
        assert_eq!(stored(&mut core), known(&shown), "round {round}: {done:?}");
    }
    assert!(failed > 100, "only {failed} commits failed");
    println!("{failed} failed, {late} of them only seemed to");
}

/// A commit that reported failure and stands in the file all the same.
#[test]
fn a_commit_that_only_seemed_to_fail_is_known_with_its_rows() {
    let clock = clock();
    let (_dir, mut core, shown) = begin(&clock);
    core.append(vec![press(&clock, "b1")]).unwrap();
    let switches = Switches::install(&mut core);
    for steps in 0.. {
        let before = core.heads().pos();
        switches.set(&mut core, Fault::Step(steps));
        let done = core.append(vec![press(&clock, "b2")]);
        switches.clear(&mut core);
        core.reopen().unwrap();
        if core.heads().pos() > before {
            core.commit(&[]).unwrap();
            assert_eq!((stored(&mut core), known(&shown).len()), (known(&shown), 4), "{done:?}");
            assert_eq!(known(&shown)["n/b2"], "1");
            return;
        }
        assert_eq!(known(&shown).len(), 2, "at step {steps}");
        // The hooks go with the connection.
        let _ = Switches::install(&mut core);
    }
}

/// A journal on a disk with a switch.
struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    store: Store,
    refuses: Arc<AtomicBool>,
    shown: Arc<Mutex<Rows>>,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    Options {
        clock: Arc::clone(clock) as SharedClock,
        metrics: Arc::new(Metrics::new()),
        board: Arc::new(Board::new()),
        synchronous: Synchronous::Full,
        keeping: None,
    }
}

impl House {
    fn new() -> Self {
        let clock = clock();
        let (dir, core, shown) = begin(&clock);
        let refuses = core.refuses();
        let store = Store::start(dir.path(), core, options(&clock)).unwrap();
        Self { dir, clock, store, refuses, shown }
    }

    async fn press(&self, id: &str) -> Result<(), JournalError> {
        self.store.append(vec![press(&self.clock, id)], Durability::Synced).await.map(|_| ())
    }

    async fn healthy(&self) {
        let healthy = async {
            while self.store.probe().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, healthy).await.expect("the disk is found to be back");
    }

    fn stored(&self) -> Rows {
        self.store.reader().unwrap().fold_rows().unwrap().into_iter().collect()
    }

    fn ticks(&self) -> usize {
        records(&self.store.reader().unwrap(), Class::Event).iter().filter(|record| is_tick(record)).count()
    }

    /// Wakes the writer until this is so.
    async fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let waiting = async {
            while !so() {
                drop(self.store.probe().await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting).await.unwrap_or_else(|_elapsed| panic!("never: {what}"));
    }
}

#[tokio::test]
async fn rows_changed_on_a_lost_disk_are_stored_when_it_is_back() {
    let house = House::new();
    house.press("b1").await.unwrap();
    house.refuses.store(true, Ordering::SeqCst);
    for id in ["b2", "b1", "b3"] {
        assert!(matches!(house.press(id).await, Err(JournalError::Volatile)));
        house.clock.advance_ms(1_100);
    }
    // b1 spoke twice; b2 has been silent for too long.
    house.until("a tick in memory", || !known(&house.shown).contains_key("due/b2")).await;
    let rows = known(&house.shown);
    assert_eq!((rows["n/b1"].as_str(), rows["n/b3"].as_str()), ("2", "1"));
    assert_eq!(house.stored().len(), 2, "the disk knows the first press alone");
    house.refuses.store(false, Ordering::SeqCst);
    house.healthy().await;
    assert_eq!(house.stored(), known(&house.shown));
    assert!(house.ticks() > 0, "the tick is on record too");
    house.store.close().await.unwrap();
}

#[test]
fn a_start_on_a_dead_disk_goes_on_from_what_could_be_read_and_loses_nothing_of_either() {
    let clock = clock();
    let (dir, mut core, _) = begin(&clock);
    core.append(vec![press(&clock, "b1"), press(&clock, "b1"), press(&clock, "b2")]).unwrap();
    drop(core);
    for readable in [true, false] {
        let mut watch = Watch::default();
        if readable {
            watch.load(Reader::open(dir.path()).unwrap().fold_rows().unwrap());
        }
        // In memory: one press, which nobody stored.
        let draft = press(&clock, "b1");
        let Draft { at, test, body, .. } = draft;
        let epoch = crate::model::ids::Epoch(1);
        watch.apply(&Record { pos: 9, epoch, class: Class::Event, seq: 9, at, test, body });
        watch.commit(false);
        let (copy, shown) = (Image::take(dir.path()).lay(), Arc::clone(&watch.shown));
        let (mut core, _) = open_with(copy.path(), &clock, "m1", Box::new(watch)).unwrap();
        let said = if readable { "3" } else { "1" };
        assert_eq!(known(&shown)["n/b1"], said, "memory's is the newer one");
        assert_eq!(known(&shown)["n/b2"], "1", "and the file's is not lost");
        core.append(vec![telemetry(&clock, "t1", 1)]).unwrap();
        assert_eq!(stored(&mut core), known(&shown));
    }
}

#[tokio::test]
async fn a_tick_comes_at_a_deadline_and_only_then() {
    let house = House::new();
    house.press("b1").await.unwrap();
    house.clock.advance_ms(SILENT_MS - 1);
    drop(house.store.probe().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(house.ticks(), 0);
    house.clock.advance_ms(1);
    house.until("a tick", || house.ticks() == 1).await;
    assert!(!known(&house.shown).contains_key("due/b1"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(house.ticks(), 1, "once");
    // A record that comes anyway tells the time by itself.
    house.press("b1").await.unwrap();
    house.clock.advance_ms(SILENT_MS);
    house.press("b2").await.unwrap();
    assert_eq!((house.ticks(), known(&house.shown).contains_key("due/b1")), (1, false));
    let House { store, dir, .. } = house;
    store.close().await.unwrap();
    drop(dir);
}

/// Deadlines in the past are a fold's mistake, and must not make the writer spin.
#[derive(Debug)]
struct Stuck;

impl Fold for Stuck {
    fn apply(&mut self, _record: &Record) -> Vec<Draft> {
        Vec::new()
    }

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}

    fn due_ms(&self, _boot: &BootId) -> Option<u64> {
        Some(0)
    }
}

#[tokio::test]
async fn a_deadline_that_stays_does_not_fill_the_disk() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (core, _) = open_with(dir.path(), &clock, "m1", Box::new(Stuck)).unwrap();
    let store = Store::start(dir.path(), core, options(&clock)).unwrap();
    let pos = |store: &Store| store.heads().borrow().pos();
    let settled = async {
        let mut seen = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            match pos(&store) {
                now if now > 0 && now == seen => return now,
                now => seen = now,
            }
        }
    };
    let ticks = timeout(LONG, settled).await.expect("the writer comes to rest");
    assert!(ticks < 1_000, "{ticks} ticks");
    store.append(vec![event(&clock, "b1", 1, None)], Durability::Synced).await.unwrap();
    store.close().await.unwrap();
}

/// One thing that comes from outside, and the time since the one before.
#[derive(Debug, Clone)]
struct Step {
    after_ms: u64,
    what: u8,
}

/// The drafts of a script, stamped.
fn script(rng: &mut fastrand::Rng, clock: &ManualClock, steps: usize) -> Vec<Draft> {
    let step = |rng: &mut fastrand::Rng| Step { after_ms: rng.u64(..1_500), what: rng.u8(..12) };
    let steps: Vec<Step> = (0..steps).map(|_| step(rng)).collect();
    let draft = |(n, step): (usize, &Step)| {
        clock.advance_ms(step.after_ms);
        let id = format!("b{}", step.what % 4);
        match step.what {
            0 | 1 => tick(&clock.now()),
            2..=4 => telemetry(clock, &id, n.try_into().unwrap()),
            what => event(clock, &id, n.try_into().unwrap(), (what > 8).then_some(Severity::Critical)),
        }
    };
    steps.iter().enumerate().map(draft).collect()
}

/// Everything that stands in the journal, in its order, without the epoch, which is random.
fn story(core: &Core) -> Vec<String> {
    let reader = core.reader().unwrap();
    let all = Class::ALL.into_iter().flat_map(|class| records(&reader, class));
    let mut all: Vec<(u64, String)> = all
        .map(|record| {
            let text = format!("{:?} {} {:?} {:?}", record.class, record.seq, record.at, record.body);
            (record.pos, text.replace(&record.epoch.to_string(), "EPOCH"))
        })
        .collect();
    all.sort();
    all.into_iter().map(|(pos, text)| format!("{pos} {text}")).collect()
}

/// How many drafts of the script stand in the journal: those that the fold did not make.
fn taken(core: &Core) -> usize {
    let reader = core.reader().unwrap();
    let all = Class::ALL.into_iter().flat_map(|class| records(&reader, class));
    let own = |body: &Body| match body {
        Body::Alarm(_) => true,
        Body::Event(event) => event.name == "device.silent",
        _ => false,
    };
    all.filter(|record| !own(&record.body)).count()
}

#[test]
fn the_same_records_give_the_same_records_whatever_the_batching_and_wherever_a_crash_falls() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let clock = clock();
    let script = script(&mut rng, &clock, 160);
    let (_dir, mut core, _) = begin(&clock);
    for draft in &script {
        core.append(vec![draft.clone()]).unwrap();
    }
    let told = story(&core);
    assert!(told.iter().filter(|line| line.contains("device.silent")).count() > 10, "{}", told.len());
    let mut crashes = 0;
    for _ in 0..6 {
        let (mut dir, mut core, mut shown) = begin(&clock);
        let mut next = 0;
        while next < script.len() {
            let until = (next + rng.usize(1..20)).min(script.len());
            let before = Image::take(dir.path());
            let ops: Vec<Op> = script[next..until]
                .chunks(rng.usize(1..6))
                .map(|drafts| Op::Append { drafts: drafts.to_vec() })
                .collect();
            core.commit(&ops).unwrap();
            next = until;
            if rng.u8(..4) == 0 {
                // Power fails: the disk took some of the WAL's last bytes. What was not answered is said again.
                let after = Image::take(dir.path());
                let cut = if rng.bool() { rng.usize(..=after.wal.len()) } else { after.wal.len() };
                let wal = torn(&after.wal, &before.wal, cut);
                drop(core);
                dir = Image { db: before.db, wal, witness: after.witness }.lay();
                let (fold, fresh) = watch();
                (core, shown) = (open_with(dir.path(), &clock, "m1", fold).unwrap().0, fresh);
                next = taken(&core);
                crashes += 1;
            }
            assert_eq!(stored(&mut core), known(&shown));
        }
        assert_eq!(story(&core), told);
    }
    assert!(crashes > 5, "only {crashes} crashes");
}
