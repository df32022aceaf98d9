//! What tests of the journal need: drafts of each kind, a journal in a directory of its own, faults of a commit, images
//! as a crash leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::model::ids::{DeviceId, Epoch, Pos, Seq, UplinkName};
use crate::model::journal::{Fold, NoFold};
use crate::model::record::{
    Alarm, AlarmState, Body, Category, Class, DeviceRef, Draft, Event, Record, Sample, Severity, Telemetry,
    Value,
};
use crate::rt::clock::{Clock, ManualClock, SharedClock};

use super::budget::{Budgets, ROW_OVERHEAD_BYTES, ThinningStep};
use super::heads::PerClass;
use super::row::Epochs;
use super::usage::TEXT_BYTES;
use super::{Core, Opened, Options, Read, Reader, Rest, Store, StoreError, Synchronous};

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new())
}

pub(crate) fn uplink(name: &str) -> UplinkName {
    UplinkName::new(name).unwrap()
}

pub(crate) fn device(id: &str) -> DeviceRef {
    DeviceRef { id: DeviceId::new(id).unwrap(), kind: "button".to_owned(), profile: None, bus: None }
}

/// An event of `device` that carries `n`.
pub(crate) fn event(clock: &ManualClock, id: &str, n: i64, severity: Option<Severity>) -> Draft {
    let event = Event {
        device: device(id),
        place: crate::model::place::Place::default(),
        category: Category::Emergency,
        name: "button.pressed".to_owned(),
        severity,
        params: BTreeMap::from([("n".to_owned(), Value::Int(n))]),
        text: None,
    };
    Draft { at: clock.now(), test: false, dedup: None, body: Body::Event(Box::new(event)) }
}

/// The same with a key by which repetitions are known.
pub(crate) fn keyed(clock: &ManualClock, id: &str, key: &str) -> Draft {
    Draft { dedup: Some(key.to_owned()), ..event(clock, id, 0, None) }
}

pub(crate) fn telemetry(clock: &ManualClock, id: &str, n: i64) -> Draft {
    let point = crate::model::ids::PointName::new("temperature").unwrap();
    let sample = Sample::good(point, Value::Int(n), Some("°C".to_owned()));
    let telemetry =
        Telemetry { device: device(id), place: crate::model::place::Place::default(), samples: vec![sample] };
    Draft { at: clock.now(), test: false, dedup: None, body: Body::Telemetry(telemetry) }
}

/// The alarm that an event raises.
pub(crate) fn alarm(cause: &Record) -> Option<Draft> {
    let Body::Event(raised) = &cause.body else { return None };
    let alarm = Alarm::new(cause.id(), AlarmState::Unacknowledged, raised.as_ref().clone());
    Some(Draft { at: cause.at.clone(), test: false, dedup: None, body: Body::Alarm(Box::new(alarm)) })
}

/// A fold that raises an alarm for each critical event, and remembers what it was shown.
#[derive(Debug, Default, Clone)]
pub(crate) struct Alarms {
    pub(crate) seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) committed: Vec<Pos>,
    pub(crate) pending: Vec<Pos>,
    pub(crate) rolled_back: usize,
}

pub(crate) fn raises(body: &Body) -> bool {
    matches!(body, Body::Event(event) if event.severity == Some(Severity::Critical))
}

impl Fold for Alarms {
    fn apply(&mut self, record: &Record) -> Vec<Draft> {
        self.seen.lock().unwrap().pending.push(record.pos);
        if raises(&record.body) { alarm(record).into_iter().collect() } else { Vec::new() }
    }

    fn commit(&mut self, _saved: bool) {
        let mut seen = self.seen.lock().unwrap();
        let pending = std::mem::take(&mut seen.pending);
        seen.committed.extend(pending);
    }

    fn rollback(&mut self) {
        let mut seen = self.seen.lock().unwrap();
        seen.pending.clear();
        seen.rolled_back += 1;
    }
}

/// Opens the journal in `dir` on the machine `m1`, without rules.
pub(crate) fn open(dir: &Path, clock: &Arc<ManualClock>) -> Result<(Core, Opened), StoreError> {
    open_on(dir, clock, "m1")
}

pub(crate) fn open_on(
    dir: &Path,
    clock: &Arc<ManualClock>,
    machine: &str,
) -> Result<(Core, Opened), StoreError> {
    open_with(dir, clock, machine, Box::new(NoFold))
}

pub(crate) fn open_with(
    dir: &Path,
    clock: &Arc<ManualClock>,
    machine: &str,
    fold: Box<dyn Fold>,
) -> Result<(Core, Opened), StoreError> {
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    Core::open_on(dir, Synchronous::Full, clock, fold, Some(machine.to_owned()))
}

/// The same without rules and without syncs, for tests that look at what was written and never at what a disk kept.
pub(crate) fn open_unsynced(
    dir: &Path,
    clock: &Arc<ManualClock>,
    machine: &str,
) -> Result<(Core, Opened), StoreError> {
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    Core::open_on(dir, Synchronous::Normal, clock, Box::new(NoFold), Some(machine.to_owned()))
}

/// A running journal on a disk that refuses every write while the switch is on.
pub(crate) fn store_with_switch(dir: &Path, options: Options) -> (Store, Arc<AtomicBool>) {
    let fold = Box::new(NoFold);
    let (core, _opened) = Core::open(dir, options.synchronous, options.clock.clone(), fold).unwrap();
    let refuses = core.refuses();
    (Store::start(dir, core, options).unwrap(), refuses)
}

/// Makes the WAL be written back after so many pages, so that little work meets that too.
pub(crate) fn checkpoint_after(core: &mut Core, pages: u32) {
    core.conn().execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}")).unwrap();
}

/// Makes the bytes of a record unreadable, as rot does.
pub(crate) fn spoil(core: &mut Core, class: Class, seq: Seq) {
    let sql = format!("UPDATE {} SET body = '{{' WHERE seq = ?1", class.as_str());
    assert_eq!(core.conn().execute(&sql, [seq.cast_signed()]).unwrap(), 1, "no {class:?} {seq}");
}

/// Small budgets in bytes, alarms, events, telemetry, and how telemetry is thinned.
pub(crate) fn keep_little(core: &mut Core, bytes: [u64; 3], thinning: &[(u32, u32)], uplinks: &[UplinkName]) {
    let step = |&(older_than_h, keep_every_s)| ThinningStep { older_than_h, keep_every_s };
    let budgets = Budgets {
        bytes: PerClass::from_fn(|class| match class {
            Class::Alarm => bytes[0],
            Class::Event => bytes[1],
            Class::Telemetry => bytes[2],
        }),
        thinning: thinning.iter().map(step).collect(),
        ..Budgets::unlimited()
    };
    core.keep_within(budgets, uplinks.to_vec());
}

/// Keeps house until nothing is left to do; how many pieces that took.
pub(crate) fn settle_house(core: &mut Core) -> usize {
    for pieces in 0.. {
        if matches!(core.housekeep().unwrap(), Rest::For { .. }) {
            return pieces;
        }
        assert!(pieces < 1_000_000, "the house is never in order");
    }
    unreachable!("counted to the end of numbers")
}

/// What the sums say, and what is counted row by row.
pub(crate) fn usage(core: &mut Core) -> ([u64; 3], [u64; 3]) {
    let counted = Class::ALL.map(|class| {
        let sql =
            format!("SELECT coalesce(sum({TEXT_BYTES} + {ROW_OVERHEAD_BYTES}), 0) FROM {}", class.as_str());
        core.conn().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    });
    (Class::ALL.map(|class| core.state.sums.usage[class].bytes), counted)
}

/// Deletes the oldest rows of a class behind the journal's back.
pub(crate) fn delete_below(core: &mut Core, class: Class, below: Seq) {
    let sql = format!("DELETE FROM {} WHERE seq < ?1", class.as_str());
    core.conn().execute(&sql, [below.cast_signed()]).unwrap();
    // The head's first number is read anew with the file.
    core.reopen().unwrap();
}

/// The epoch that a number belongs to, whatever stands there.
pub(crate) fn epoch_of(core: &mut Core, class: Class, seq: Seq) -> Epoch {
    Epochs::load(core.conn()).unwrap().of(class, seq).expect("an epoch for each number")
}

/// What is made to fail in the next commit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A statement, or COMMIT itself, is interrupted after this many steps of SQLite's machine.
    Step(i64),
    /// COMMIT is refused at its last moment.
    Commit,
    /// The file cannot grow.
    Full,
}

/// The faults' switches on one connection.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    steps_left: Arc<AtomicI64>,
    refuse: Arc<AtomicBool>,
}

impl Switches {
    pub(crate) fn install(core: &mut Core) -> Self {
        let switches = Self { steps_left: Arc::new(AtomicI64::new(i64::MAX)), ..Self::default() };
        let (left, refuse) = (Arc::clone(&switches.steps_left), Arc::clone(&switches.refuse));
        let interrupt = move || left.fetch_sub(1, Ordering::SeqCst) <= 0;
        core.conn().progress_handler(1, Some(interrupt)).unwrap();
        core.conn().commit_hook(Some(move || refuse.load(Ordering::SeqCst))).unwrap();
        switches
    }

    pub(crate) fn set(&self, core: &mut Core, fault: Fault) {
        match fault {
            Fault::Step(steps) => self.steps_left.store(steps, Ordering::SeqCst),
            Fault::Commit => self.refuse.store(true, Ordering::SeqCst),
            Fault::Full => core.conn().execute_batch("PRAGMA max_page_count = 1").unwrap(),
        }
    }

    pub(crate) fn clear(&self, core: &mut Core) {
        self.steps_left.store(i64::MAX, Ordering::SeqCst);
        self.refuse.store(false, Ordering::SeqCst);
        core.conn().execute_batch("PRAGMA max_page_count = 1000000").unwrap();
    }
}

/// Everything that stands in a class.
pub(crate) fn all(reader: &Reader, class: Class) -> Vec<Read> {
    reader.read(class, 0, u64::MAX, usize::MAX, usize::MAX).unwrap()
}

pub(crate) fn records(reader: &Reader, class: Class) -> Vec<Record> {
    all(reader, class).into_iter().map(|read| read.into_record().expect("readable")).collect()
}

/// The files as they stand on disk at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) db: Vec<u8>,
    pub(crate) wal: Vec<u8>,
    pub(crate) witness: Vec<u8>,
}

impl Image {
    pub(crate) fn take(dir: &Path) -> Self {
        let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        Self { db: read("journal.db"), wal: read("journal.db-wal"), witness: read("journal.witness") }
    }

    /// Lays the image into a directory of its own. The index of the WAL (-shm) does not survive a crash.
    pub(crate) fn lay(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal.db"), &self.db).unwrap();
        fs::write(dir.path().join("journal.db-wal"), &self.wal).unwrap();
        fs::write(dir.path().join("journal.witness"), &self.witness).unwrap();
        dir
    }
}

/// What a disk holds that took the first `cut` bytes of a file's new state.
pub(crate) fn torn(new: &[u8], old: &[u8], cut: usize) -> Vec<u8> {
    let mut bytes = new.get(..cut).unwrap_or(new).to_vec();
    if let Some(rest) = old.get(cut..) {
        bytes.extend_from_slice(rest);
    }
    bytes
}

/// The seed of a test: from the variable `GATEHOUSE_SEED`, or a new one, printed for the failure's sake.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("GATEHOUSE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("GATEHOUSE_SEED={seed}");
    seed
}
