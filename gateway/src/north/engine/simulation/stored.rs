//! The real journal under the simulation: `store::Core` on SQLite in a directory of its own, read through the uplink's
//! own `StoreSource`, whose heads move only when a commit has answered.
//!
//! A crash is an image of the files, taken between or within commits and opened as the next process would. What is
//! written is simulated, not what a disk keeps: so nothing here waits for syncs (`synchronous=NORMAL`), which no image
//! would show and which would cost most of the time. The test under strace holds the syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::watch;

use crate::model::cursor::{Cursors, Head};
use crate::model::ids::{Epoch, Seq, UplinkName};
use crate::model::record::{Class, Record};
use crate::model::stamp::Stamp;
use crate::north::engine::source::{Read, Source, SourceError};
use crate::north::link::adapters::StoreSource;
use crate::rt::clock::ManualClock;
use crate::store::testing::{
    Fault, Image, Switches, all, checkpoint_after, epoch_of, keep_little, open_unsynced, spoil, torn,
};
use crate::store::{Answer, Core, Heads, How, Op, StoreError};

use super::UPLINK;
use super::journal::{Contents, Journal, Row};

/// Pages of the WAL after which it is written back: small, so that crashes fall around that too.
const CHECKPOINT_PAGES: u32 = 24;

/// Budgets of alarms, events and telemetry in bytes: so small that each is met many times.
const BUDGETS: [u64; 3] = [12_000, 16_000, 16_000];
const THINNING: [(u32, u32); 2] = [(0, 2), (0, 20)];

/// Steps of SQLite's machine within which an interrupted commit of the simulation's size ends.
const STEPS_MAX: i64 = 2_000;

/// The process's side of the journal: gone with it.
#[derive(Debug)]
struct Process {
    core: Core,
    source: StoreSource,
    heads_tx: watch::Sender<Heads>,
}

#[derive(Debug)]
pub(super) struct StoredJournal {
    clock: Arc<ManualClock>,
    /// None only while a process dies and the next one starts.
    process: Option<Process>,
    dir: TempDir,
    /// How often the directory came to another machine.
    machine: u32,
    forgotten: BTreeSet<(Class, Seq)>,
    broken_reads: u32,
}

impl StoredJournal {
    fn open(&mut self, expected: impl FnOnce(&How) -> bool) {
        let machine = format!("m{}", self.machine);
        let (mut core, opened) = open_unsynced(self.dir.path(), &self.clock, &machine).unwrap();
        assert!(expected(&opened.how), "the journal was opened as {:?}", opened.how);
        checkpoint_after(&mut core, CHECKPOINT_PAGES);
        keep_little(&mut core, BUDGETS, &THINNING, &[UplinkName::new(UPLINK).unwrap()]);
        let (heads_tx, heads_rx) = watch::channel(core.heads());
        let source = StoreSource::new(core.reader().unwrap(), heads_rx);
        self.process = Some(Process { core, source, heads_tx });
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a process but while it restarts")
    }

    fn tell(&mut self) {
        let process = self.process();
        process.heads_tx.send_replace(process.core.heads());
    }

    /// All that is stored.
    fn numbers(&mut self) -> BTreeSet<(Class, Seq)> {
        let rows = self.contents();
        rows.iter().flat_map(|(class, rows)| rows.keys().map(|seq| (*class, *seq))).collect()
    }

    fn check(&mut self) -> Result<&mut StoreSource, SourceError> {
        if self.broken_reads > 0 {
            self.broken_reads -= 1;
            return Err(SourceError("disk I/O error".to_owned()));
        }
        Ok(&mut self.process().source)
    }

    /// The files after a crash within the commit of `ops`.
    fn image(&mut self, ops: &[Op], rng: &mut fastrand::Rng) -> Image {
        let before = Image::take(self.dir.path());
        self.process().core.commit(ops).unwrap();
        let after = Image::take(self.dir.path());
        match rng.u8(0..3) {
            0 => before,
            // Everything was on disk, the witness perhaps not yet.
            1 => Image { witness: if rng.bool() { before.witness } else { after.witness }, ..after },
            _ => {
                let cut = rng.usize(..=after.wal.len());
                Image { wal: torn(&after.wal, &before.wal, cut), ..before }
            }
        }
    }
}

fn commit_with(core: &mut Core, fault: Fault, ops: &[Op]) -> Result<Option<Vec<Answer>>, StoreError> {
    let switches = Switches::install(core);
    switches.set(core, fault);
    let done = core.commit(ops);
    switches.clear(core);
    done.map(Some)
}

impl Journal for StoredJournal {
    const FORKS_AHEAD: bool = false;
    /// What is real about this journal shows when it is opened again.
    const CRASHES_MORE: u32 = 10;

    fn begin(clock: &Arc<ManualClock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Self {
            clock: Arc::clone(clock),
            process: None,
            dir,
            machine: 0,
            forgotten: BTreeSet::new(),
            broken_reads: 0,
        };
        journal.open(|how| *how == How::New);
        journal
    }

    fn commit(
        &mut self,
        ops: &[Op],
        fault: bool,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<Answer>, SourceError> {
        let core = &mut self.process().core;
        let done = if fault {
            let done = match rng.u8(0..5) {
                0 => commit_with(core, Fault::Commit, ops),
                1 => commit_with(core, Fault::Full, ops),
                2 | 3 => commit_with(core, Fault::Step(rng.i64(0..STEPS_MAX)), ops),
                // A failure behind COMMIT's last write, as SQLite reports it: everything stands, nobody is answered.
                _ => core.commit(ops).map(|_unheard| None),
            };
            // As the writer does, and so that the next commit has no switches.
            core.reopen().unwrap();
            checkpoint_after(core, CHECKPOINT_PAGES);
            match done {
                Ok(Some(answers)) => Ok(answers),
                Ok(None) => Err(SourceError("failed at its very end".to_owned())),
                Err(error) => {
                    assert!(!error.is_damage(), "a passing fault was taken for damage: {error}");
                    Err(SourceError(error.to_string()))
                }
            }
        } else {
            Ok(core.commit(ops).unwrap())
        };
        self.tell();
        done
    }

    fn crash(&mut self, ops: &[Op], moved: bool, rng: &mut fastrand::Rng) {
        self.broken_reads = 0;
        self.machine += u32::from(moved);
        if rng.u8(0..4) == 0 {
            // A process that ends by a panic: SQLite closes the file, nothing else is in order.
            self.process = None;
        } else {
            // A kill or a power cut: the files as they stand.
            let image = self.image(ops, rng);
            self.process = None;
            self.dir = image.lay();
        }
        self.open(|how| if moved { matches!(how, How::Restored { .. }) } else { *how == How::Existing });
    }

    fn cursors(&mut self) -> Cursors {
        let uplink = UplinkName::new(UPLINK).unwrap();
        self.process().source.reader.as_ref().unwrap().cursors(&uplink).unwrap().unwrap_or_default()
    }

    fn contents(&mut self) -> Contents {
        let Process { core, source, .. } = self.process();
        let mut contents = Contents::new();
        for class in Class::ALL {
            let rows = contents.entry(class).or_default();
            for read in all(source.reader.as_ref().unwrap(), class) {
                let seq = read.seq();
                let row = match read.into_record() {
                    Some(record) => Row { epoch: record.epoch, record: Some(Box::new(record)) },
                    None => Row { epoch: epoch_of(core, class, seq), record: None },
                };
                rows.insert(seq, row);
            }
        }
        contents
    }

    fn epoch(&self) -> Epoch {
        self.process.as_ref().expect("a process but while it restarts").core.heads().epoch()
    }

    fn spoil(&mut self, class: Class, seq: Seq) {
        spoil(&mut self.process().core, class, seq);
    }

    fn forget(&mut self, count: usize, _at: &Stamp) {
        let before = self.numbers();
        for _ in 0..count {
            self.process().core.housekeep().unwrap();
        }
        let after = self.numbers();
        self.forgotten.extend(before.difference(&after));
        self.tell();
    }

    fn forgotten(&self) -> &BTreeSet<(Class, Seq)> {
        &self.forgotten
    }

    fn break_reads(&mut self, count: u32) {
        self.broken_reads = count;
    }
}

impl Source for StoredJournal {
    fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError> {
        self.process().source.heads()
    }

    fn read(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Read>, SourceError> {
        self.check()?.read(class, from, to, records_max, bytes_max)
    }

    fn last_before(
        &mut self,
        class: Class,
        below: Seq,
        not_below: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<Option<Seq>, SourceError> {
        self.check()?.last_before(class, below, not_below, sees)
    }

    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
        self.process().source.epoch_start(class, seq)
    }
}
