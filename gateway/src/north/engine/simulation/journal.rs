//! The journal as the simulation asks it, and a fake one: cheap enough for many seeds, and as treacherous as the real
//! one. It loses at a crash exactly what was not committed, can fail to be read, and fails commits that happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use crate::model::cursor::{Cursors, Head};
use crate::model::ids::{Epoch, Seq};
use crate::model::journal::Committed;
use crate::model::record::{Body, Class, Draft, Gap, GapReason, Record};
use crate::model::stamp::Stamp;
use crate::north::engine::source::{Read, Source, SourceError};
use crate::rt::clock::ManualClock;
use crate::store::{Answer, Op};

/// What stands at a number.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) epoch: Epoch,
    /// None: its bytes cannot be read back.
    pub(super) record: Option<Box<Record>>,
}

pub(super) type Contents = BTreeMap<Class, BTreeMap<Seq, Row>>;

/// A journal that can be made to fail and to die.
pub(super) trait Journal: Source + Sized + Debug {
    /// Whether a fork may come at any time and begins with the next record. If not, it reaches back to the last
    /// restart and comes before anything was sent since.
    const FORKS_AHEAD: bool;

    /// More crashes than the seed draws, out of 1000 turns.
    const CRASHES_MORE: u32;

    fn begin(clock: &Arc<ManualClock>) -> Self;

    /// All ops in one commit. With `fault` it may fail: then nobody may be told that any of it happened, though it
    /// may have.
    fn commit(
        &mut self,
        ops: &[Op],
        fault: bool,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<Answer>, SourceError>;

    /// The process dies while it commits `ops`, and a new one starts; `moved`: with a copy, so that a new epoch begins.
    fn crash(&mut self, ops: &[Op], moved: bool, rng: &mut fastrand::Rng);

    /// What a restart would find.
    fn cursors(&mut self) -> Cursors;

    fn contents(&mut self) -> Contents;

    fn epoch(&self) -> Epoch;

    /// Makes a record unreadable.
    fn spoil(&mut self, class: Class, seq: Seq);

    /// Forgets, as a disk budget does: at most `count` records or small pieces, covered by gap records where the platform
    /// does not have them.
    fn forget(&mut self, count: usize, at: &Stamp);

    /// All that was ever dropped.
    fn forgotten(&self) -> &BTreeSet<(Class, Seq)>;

    /// The next reads fail.
    fn break_reads(&mut self, count: u32);
}

/// The draft of the gap record for forgotten telemetry.
fn forgotten_gap(numbers: &[Seq], at: &Stamp) -> Option<Draft> {
    let (&from, &to) = (numbers.first()?, numbers.last()?);
    let gap = Gap {
        uplink: None,
        epoch: None,
        class: Class::Telemetry,
        from,
        to,
        count: numbers.len() as u64,
        reason: GapReason::Forgotten,
        detail: String::new(),
    };
    Some(Draft { at: at.clone(), test: false, dedup: None, body: Body::Gap(gap) })
}

#[derive(Debug)]
pub(in crate::north::engine) struct SimJournal {
    pub(in crate::north::engine) records: BTreeMap<Class, BTreeMap<Seq, Record>>,
    pub(in crate::north::engine) last: BTreeMap<Class, Seq>,
    /// Epochs with their first numbers, in order.
    epochs: Vec<(Epoch, BTreeMap<Class, Seq>)>,
    unreadable: BTreeSet<(Class, Seq)>,
    stored: Cursors,
    conn: u64,
    forgotten: BTreeSet<(Class, Seq)>,
    broken_reads: u32,
}

impl SimJournal {
    pub(in crate::north::engine) fn new() -> Self {
        Self {
            records: Class::ALL.iter().map(|&class| (class, BTreeMap::new())).collect(),
            last: BTreeMap::new(),
            epochs: vec![(Epoch(1), BTreeMap::new())],
            unreadable: BTreeSet::new(),
            stored: Cursors::default(),
            conn: 0,
            forgotten: BTreeSet::new(),
            broken_reads: 0,
        }
    }

    pub(in crate::north::engine) fn append(&mut self, draft: Draft) -> (Class, Seq) {
        let class = draft.body.class();
        let last = self.last.entry(class).or_default();
        *last += 1;
        let seq = *last;
        let epoch = self.epoch();
        let record = Record { pos: 0, epoch, class, seq, at: draft.at, test: draft.test, body: draft.body };
        self.records.get_mut(&class).unwrap().insert(seq, record);
        (class, seq)
    }

    /// All later records belong to another epoch; numbers go on.
    fn fork(&mut self) -> Epoch {
        let starts = Class::ALL.iter().map(|class| (*class, self.last.get(class).copied().unwrap_or(0) + 1));
        let starts = starts.collect();
        let epoch = Epoch(self.epochs.len() as u64 + 1);
        self.epochs.push((epoch, starts));
        epoch
    }

    fn run(&mut self, op: &Op) -> Answer {
        let drafts = match op {
            Op::Append { drafts } => drafts,
            Op::Settle { cursors, drafts, .. } => {
                self.stored = cursors.clone();
                drafts
            }
            Op::SaveCursors { cursors, .. } => {
                self.stored = cursors.clone();
                return Answer::Done;
            }
            Op::NextConn { .. } => {
                self.conn += 1;
                return Answer::Conn(self.conn);
            }
            Op::Fork { .. } => return Answer::Forked(self.fork()),
            Op::Restore { .. } => panic!("this disk is never lost"),
            Op::BeginCommand { .. } | Op::EndCommand { .. } | Op::Forget(_) => {
                panic!("an uplink's engine does not ask for it")
            }
        };
        for draft in drafts {
            self.append(draft.clone());
        }
        Answer::Committed(Committed { last_pos: 0, repeated: 0 })
    }

    fn check(&mut self) -> Result<(), SourceError> {
        if self.broken_reads > 0 {
            self.broken_reads -= 1;
            return Err(SourceError("disk I/O error".to_owned()));
        }
        Ok(())
    }
}

impl Journal for SimJournal {
    const FORKS_AHEAD: bool = true;
    const CRASHES_MORE: u32 = 0;

    fn begin(_clock: &Arc<ManualClock>) -> Self {
        Self::new()
    }

    fn commit(
        &mut self,
        ops: &[Op],
        fault: bool,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<Answer>, SourceError> {
        if fault && rng.bool() {
            return Err(SourceError("disk full".to_owned()));
        }
        let answers = ops.iter().map(|op| self.run(op)).collect();
        if fault { Err(SourceError("failed at its very end".to_owned())) } else { Ok(answers) }
    }

    fn crash(&mut self, ops: &[Op], moved: bool, rng: &mut fastrand::Rng) {
        self.broken_reads = 0;
        if rng.bool() {
            // The commit had happened, only nobody heard of it.
            for op in ops {
                self.run(op);
            }
        }
        if moved {
            self.fork();
        }
    }

    fn cursors(&mut self) -> Cursors {
        self.stored.clone()
    }

    fn contents(&mut self) -> Contents {
        let row = |class: Class, seq: Seq, record: &Record| {
            let readable = !self.unreadable.contains(&(class, seq));
            Row { epoch: record.epoch, record: readable.then(|| Box::new(record.clone())) }
        };
        let rows = self.records.iter().map(|(&class, records)| {
            (class, records.iter().map(|(&seq, record)| (seq, row(class, seq, record))).collect())
        });
        rows.collect()
    }

    fn epoch(&self) -> Epoch {
        self.epochs.last().unwrap().0
    }

    fn spoil(&mut self, class: Class, seq: Seq) {
        self.unreadable.insert((class, seq));
    }

    fn forget(&mut self, count: usize, at: &Stamp) {
        let telemetry = self.records.get_mut(&Class::Telemetry).unwrap();
        let gone: Vec<Seq> = telemetry.keys().copied().take(count).collect();
        for seq in &gone {
            telemetry.remove(seq);
            self.forgotten.insert((Class::Telemetry, *seq));
        }
        if let Some(gap) = forgotten_gap(&gone, at) {
            self.append(gap);
        }
    }

    fn forgotten(&self) -> &BTreeSet<(Class, Seq)> {
        &self.forgotten
    }

    fn break_reads(&mut self, count: u32) {
        self.broken_reads = count;
    }
}

impl Source for SimJournal {
    fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError> {
        let head = |class: Class| {
            let last = self.last.get(&class).copied().unwrap_or(0);
            let first = self.records[&class].keys().next().copied().unwrap_or(last + 1);
            (class, Head { epoch: self.epoch(), first, last })
        };
        Ok(Class::ALL.iter().map(|&class| head(class)).collect())
    }

    fn read(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        _bytes_max: usize,
    ) -> Result<Vec<Read>, SourceError> {
        self.check()?;
        let found = self.records[&class].range(from..=to).take(records_max).map(|(&seq, record)| {
            if self.unreadable.contains(&(class, seq)) {
                Read::Unreadable { seq, detail: "checksum".to_owned() }
            } else {
                Read::Record(Box::new(record.clone()))
            }
        });
        Ok(found.collect())
    }

    fn last_before(
        &mut self,
        class: Class,
        below: Seq,
        not_below: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<Option<Seq>, SourceError> {
        self.check()?;
        if not_below >= below {
            return Ok(None);
        }
        let unreadable = &self.unreadable;
        let mut range = self.records[&class].range(not_below..below).rev();
        Ok(range
            .find(|(seq, record)| unreadable.contains(&(class, **seq)) || sees(record))
            .map(|(&seq, _)| seq))
    }

    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
        let starts = self.epochs.iter().map(|(_, starts)| starts.get(&class).copied().unwrap_or(1));
        Ok(starts.filter(|start| *start <= seq).max().unwrap_or(1))
    }
}
