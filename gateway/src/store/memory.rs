//! The memory journal (promise G14): what happens while the disk cannot be written. The writer keeps records here, the
//! uplinks read them through [`Volatile`], and the writer puts them on disk when it is back.
//!
//! It has an epoch of its own for the life of the process, and numbers of its own, so that its records' ids can never be
//! taken for those of the file. Positions go on from the file's, so that the fold sees one order. Bounds:
//! `MEMORY_RECORDS_MAX` and `MEMORY_BYTES_MAX`; the oldest telemetry goes first, then the oldest events, then alarms.
//! A crash loses all of it, which is why nothing here is ever acknowledged.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::model::cursor::Cursors;
use crate::model::ids::{Epoch, Pos, Seq, UplinkName};
use crate::model::journal::Fold;
use crate::model::limits::{MEMORY_BYTES_MAX, MEMORY_RECORDS_MAX};
use crate::model::record::{Body, Class, Draft, Record};
use crate::model::stamp::Stamp;

use super::heads::PerClass;
use super::op::Op;
use super::sink::Sink;

/// What a record costs beside its body, in bytes.
const RECORD_BYTES: usize = 256;
/// Outcomes of commands that wait for the disk: uplinks have 16 commands under way at once.
const OUTCOMES_MAX: usize = 256;
/// How long a draft that was put on disk late is known, in milliseconds: devices say again within minutes what was not
/// acknowledged.
const RESTORED_KNOWN_MS: u64 = 600_000;
/// In which order classes give way.
const GIVES_WAY: [Class; 3] = [Class::Telemetry, Class::Event, Class::Alarm];

/// A draft's identity: its stamp and its body. A source that says it again hands over the very same draft.
type Mark = [u8; 16];

fn mark(at: &Stamp, json: &str) -> Mark {
    let mut hasher = Sha256::new();
    hasher.update(at.boot.0.as_bytes());
    hasher.update(at.mono_ms.to_be_bytes());
    hasher.update(at.wall_ms.to_be_bytes());
    hasher.update(json.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut short = Mark::default();
    short.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&Mark::default()));
    short
}

/// A record in memory. Its serial number orders all records of the process's life, and is never given twice.
#[derive(Debug)]
struct Kept {
    serial: u64,
    record: Arc<Record>,
    dedup: Option<String>,
    mark: Mark,
    bytes: usize,
}

/// What the writer and the uplinks share.
#[derive(Debug, Default)]
struct Shelf {
    kept: PerClass<VecDeque<Kept>>,
    bytes: usize,
}

impl Shelf {
    fn len(&self) -> usize {
        Class::ALL.iter().map(|class| self.kept[*class].len()).sum()
    }

    /// The class whose first record is the oldest of all.
    fn oldest(&self) -> Option<Class> {
        let first = |class: &Class| self.kept[*class].front().map(|kept| (kept.serial, *class));
        Class::ALL.iter().filter_map(first).min().map(|(_, class)| class)
    }

    fn pop(&mut self, class: Class) -> Option<Kept> {
        let kept = self.kept[class].pop_front()?;
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        Some(kept)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Whole entries are put in and taken out under the lock, so it stays usable.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory journal as an uplink reads it.
#[derive(Debug, Clone)]
pub struct Volatile {
    shelf: Arc<Mutex<Shelf>>,
    turn_rx: watch::Receiver<u64>,
}

impl Volatile {
    /// Records of a class behind `serial` with their serial numbers, oldest first, at most `records_max`.
    pub fn after(&self, class: Class, serial: u64, records_max: usize) -> Vec<(u64, Arc<Record>)> {
        let shelf = lock(&self.shelf);
        let kept = &shelf.kept[class];
        let from = kept.partition_point(|kept| kept.serial <= serial);
        kept.range(from..).take(records_max).map(|kept| (kept.serial, Arc::clone(&kept.record))).collect()
    }

    /// Resolves when something was kept or put on disk since the last call. Pending for ever once the writer has ended.
    pub async fn changed(&mut self) {
        if self.turn_rx.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Drafts that were kept in memory and stand on disk by now.
#[derive(Debug, Default)]
struct Restored {
    marks: HashSet<Mark>,
    order: VecDeque<Mark>,
    until_ms: u64,
}

impl Restored {
    fn add(&mut self, mark: Mark) {
        if self.order.len() >= MEMORY_RECORDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
        self.order.push_back(mark);
        self.marks.insert(mark);
    }
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Memory {
    shelf: Arc<Mutex<Shelf>>,
    turn_tx: watch::Sender<u64>,
    epoch: Epoch,
    last: PerClass<Seq>,
    pos: Pos,
    serial: u64,
    marks: HashSet<Mark>,
    restored: Restored,
    conn_max: u64,
    conns: BTreeMap<UplinkName, u64>,
    cursors: BTreeMap<UplinkName, Cursors>,
    outcomes: VecDeque<Op>,
    fork: Option<String>,
    /// Records dropped for want of room, since the process began.
    pub(super) dropped: PerClass<u64>,
    /// Drafts of the fold that were dropped since the last look.
    pub(super) fold_dropped: u64,
}

/// What became of drafts that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handed {
    /// Kept now for the first time.
    pub(super) fresh: usize,
    /// Kept before.
    pub(super) repeated: usize,
    /// On disk already.
    pub(super) durable: usize,
}

impl Memory {
    /// An empty one with a random `epoch`.
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            shelf: Arc::default(),
            turn_tx: watch::Sender::new(0),
            epoch,
            last: PerClass::default(),
            pos: 0,
            serial: 0,
            marks: HashSet::new(),
            restored: Restored::default(),
            conn_max: 0,
            conns: BTreeMap::new(),
            cursors: BTreeMap::new(),
            outcomes: VecDeque::new(),
            fork: None,
            dropped: PerClass::default(),
            fold_dropped: 0,
        }
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn reader(&self) -> Volatile {
        Volatile { shelf: Arc::clone(&self.shelf), turn_rx: self.turn_tx.subscribe() }
    }

    /// The disk is lost: positions and connection numbers go on from the file's.
    pub(super) fn begin(&mut self, pos: Pos, conn_max: u64) {
        self.pos = self.pos.max(pos);
        self.conn_max = self.conn_max.max(conn_max);
    }

    /// Keeps the drafts that are new, and shows them to the fold. `bodies` are their JSON; `on_disk` knows which of them
    /// the file holds. `said_again`: whoever waits for them repeats them, so that the same draft is the same message.
    pub(super) fn append(
        &mut self,
        (drafts, bodies): (Vec<Draft>, &[String]),
        fold: &mut dyn Fold,
        said_again: bool,
        on_disk: &dyn Fn(&Draft) -> bool,
    ) -> Handed {
        let mut handed = Handed { fresh: 0, repeated: 0, durable: 0 };
        for (draft, json) in drafts.into_iter().zip(bodies) {
            let known = said_again.then(|| mark(&draft.at, json));
            if known.is_some_and(|mark| self.restored.marks.contains(&mark)) || on_disk(&draft) {
                handed.durable += 1;
            } else if known.is_some_and(|mark| self.marks.contains(&mark)) {
                handed.repeated += 1;
            } else {
                handed.fresh += 1;
                let mut keeping = Keeping { memory: self, fold: &mut *fold };
                match keeping.store(draft, json) {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
        }
        // The state of the rules goes on with what has happened, whether or not a crash will forget it.
        fold.commit(false);
        if handed.fresh > 0 {
            self.turn();
        }
        handed
    }

    fn turn(&self) {
        self.turn_tx.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    fn keep(&mut self, mut draft: Draft, json: &str) -> Record {
        if let Body::Alarm(alarm) = &mut draft.body {
            alarm.volatile = true;
        }
        let class = draft.body.class();
        self.last[class] = self.last[class].saturating_add(1);
        self.pos = self.pos.saturating_add(1);
        self.serial = self.serial.saturating_add(1);
        let Draft { at, test, dedup, body } = draft;
        let mark = mark(&at, json);
        let (pos, seq, epoch) = (self.pos, self.last[class], self.epoch);
        let record = Record { pos, epoch, class, seq, at, test, body };
        let kept = Kept {
            serial: self.serial,
            record: Arc::new(record.clone()),
            dedup,
            mark,
            bytes: json.len().saturating_add(RECORD_BYTES),
        };
        self.marks.insert(mark);
        let mut shelf = lock(&self.shelf);
        shelf.bytes = shelf.bytes.saturating_add(kept.bytes);
        shelf.kept[class].push_back(kept);
        while shelf.len() > MEMORY_RECORDS_MAX || shelf.bytes > MEMORY_BYTES_MAX {
            let Some(gone) = GIVES_WAY.into_iter().find_map(|class| shelf.pop(class)) else { break };
            self.marks.remove(&gone.mark);
            let class = gone.record.class;
            self.dropped[class] = self.dropped[class].saturating_add(1);
        }
        record
    }

    /// Records in memory.
    pub(super) fn len(&self) -> usize {
        lock(&self.shelf).len()
    }

    pub(super) fn next_conn(&mut self, uplink: &UplinkName, at_least: u64) -> u64 {
        self.conn_max = self.conn_max.saturating_add(1).max(at_least);
        self.conns.insert(uplink.clone(), self.conn_max);
        self.conn_max
    }

    pub(super) fn save_cursors(&mut self, uplink: UplinkName, cursors: Cursors) {
        self.cursors.insert(uplink, cursors);
    }

    /// An outcome that the disk shall know. More than there is room for are forgotten: those commands end as `unknown`.
    pub(super) fn end_command(&mut self, outcome: Op) {
        if self.outcomes.len() < OUTCOMES_MAX {
            self.outcomes.push_back(outcome);
        }
    }

    /// The epoch is to be forked as soon as the disk is back.
    pub(super) fn fork(&mut self, reason: String) {
        self.fork.get_or_insert(reason);
    }

    /// What the next commit on the disk that is back shall hold: a fork first, then the oldest `records_max` records.
    pub(super) fn first_ops(&self, records_max: usize) -> Vec<Op> {
        let fork = self.fork.iter().map(|reason| Op::Fork { reason: reason.clone() });
        let kept = self.oldest(records_max);
        let restore = (!kept.is_empty()).then_some(Op::Restore { kept });
        fork.chain(restore).collect()
    }

    fn oldest(&self, records_max: usize) -> Vec<(Pos, Draft)> {
        let shelf = lock(&self.shelf);
        let mut all: Vec<&Kept> =
            Class::ALL.iter().flat_map(|class| shelf.kept[*class].iter().take(records_max)).collect();
        all.sort_unstable_by_key(|kept| kept.serial);
        all.truncate(records_max);
        let draft = |kept: &&Kept| {
            let Record { pos, at, test, body, .. } = kept.record.as_ref().clone();
            (pos, Draft { at, test, dedup: kept.dedup.clone(), body })
        };
        all.iter().map(draft).collect()
    }

    /// The ops of [`first_ops`](Self::first_ops) are on disk; how many records that were.
    pub(super) fn committed(&mut self, ops: &[Op], now_ms: u64) -> usize {
        let mut count = 0;
        for op in ops {
            match op {
                Op::Fork { .. } => self.fork = None,
                Op::Restore { kept } => count += kept.len(),
                _ => {}
            }
        }
        let mut shelf = lock(&self.shelf);
        for _ in 0..count {
            let Some(kept) = shelf.oldest().and_then(|class| shelf.pop(class)) else { break };
            self.marks.remove(&kept.mark);
            self.restored.add(kept.mark);
        }
        drop(shelf);
        self.restored.until_ms = now_ms.saturating_add(RESTORED_KNOWN_MS);
        self.turn();
        count
    }

    /// A record that a failed commit has left on disk after all: whether it was kept here, and so seen by the fold. It
    /// is not kept any longer then.
    pub(super) fn found(&mut self, record: &Record, now_ms: u64) -> bool {
        let Ok(json) = super::row::encode(&record.body) else { return false };
        let mark = mark(&record.at, &json);
        if !self.marks.remove(&mark) {
            return false;
        }
        let mut shelf = lock(&self.shelf);
        if let Some(place) = shelf.kept[record.class].iter().position(|kept| kept.mark == mark)
            && let Some(kept) = shelf.kept[record.class].remove(place)
        {
            shelf.bytes = shelf.bytes.saturating_sub(kept.bytes);
        }
        drop(shelf);
        self.restored.add(mark);
        self.restored.until_ms = now_ms.saturating_add(RESTORED_KNOWN_MS);
        true
    }

    /// What else the disk shall know, after the last record. Connection numbers in the order they were given out.
    pub(super) fn last_ops(&self) -> Vec<Op> {
        let mut conns: Vec<_> = self.conns.iter().collect();
        conns.sort_unstable_by_key(|(_, conn)| **conn);
        let conns =
            conns.into_iter().map(|(uplink, conn)| Op::NextConn { uplink: uplink.clone(), at_least: *conn });
        let cursors = self
            .cursors
            .iter()
            .map(|(uplink, cursors)| Op::SaveCursors { uplink: uplink.clone(), cursors: cursors.clone() });
        conns.chain(cursors).chain(self.outcomes.iter().cloned()).collect()
    }

    /// All is on disk.
    pub(super) fn end(&mut self) {
        self.conns.clear();
        self.cursors.clear();
        self.outcomes.clear();
        self.marks.clear();
    }

    /// Takes out of appends what was put on disk already, when its source says it again; how many drafts of each op.
    /// Costs nothing when nothing was.
    pub(super) fn strip(&mut self, ops: &mut [Op], now_ms: u64) -> Vec<usize> {
        if self.restored.order.is_empty() {
            return Vec::new();
        }
        if now_ms >= self.restored.until_ms {
            self.restored = Restored::default();
            return Vec::new();
        }
        let stripped = |op: &mut Op| {
            let Op::Append { drafts } = op else { return 0 };
            let before = drafts.len();
            drafts.retain(|draft| {
                let json = super::row::encode(&draft.body);
                !json.is_ok_and(|json| self.restored.marks.contains(&mark(&draft.at, &json)))
            });
            before.saturating_sub(drafts.len())
        };
        ops.iter_mut().map(stripped).collect()
    }
}

/// Records on their way into memory, and the fold that sees them.
struct Keeping<'a> {
    memory: &'a mut Memory,
    fold: &'a mut dyn Fold,
}

impl Sink for Keeping<'_> {
    type Error = Infallible;

    fn insert(&mut self, draft: Draft, json: &str) -> Result<Record, Infallible> {
        Ok(self.memory.keep(draft, json))
    }

    fn fold(&mut self, record: &Record) -> Vec<Draft> {
        self.fold.apply(record)
    }

    fn drop_folded(&mut self, count: u64) {
        self.memory.fold_dropped = self.memory.fold_dropped.saturating_add(count);
    }
}
