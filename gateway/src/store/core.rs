//! The journal without threads and without a runtime: open, commit, read. The writer's thread drives it in the daemon;
//! the simulation drives it in plain code.
//!
//! Faults that must be survived: a crash at any instruction (all of a commit or nothing, what was answered stays), a
//! write or sync that fails (nothing of the commit happened as far as anyone is told), bytes that rot (set aside at
//! the next start), a copy put back (a new epoch). Not survived: a disk that lies about its sync.

use std::fs;
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::model::cursor::Cursors;
use crate::model::ids::{Epoch, UplinkName};
use crate::model::journal::{Committed, Fold, JournalError};
use crate::model::record::{Class, Draft, Record};
use crate::model::stamp::Stamp;
use crate::rt::clock::SharedClock;

use super::dedup::{Rings, Touched};
use super::error::{StoreError, sql};
use super::heads::Heads;
use super::keeper::Keeper;
use super::op::{Answer, CommandSlot, Op};
use super::open::{self, Ground, How, Opened, Site};
use super::reader::Reader;
use super::row::{self, Read};
use super::schema::{self, Synchronous};
use super::stage::{Stage, State, Tally};
use super::witness::{self, Lock, Witness};

/// Records read at once when the fold catches up.
const CATCH_UP_RECORDS: usize = 256;
const CATCH_UP_BYTES: usize = 1024 * 1024;

/// What a disk must take before it counts as written again: some twenty small commits, so that a nearly full one is not
/// given back and lost at every second record.
const TRIAL_BYTES: usize = 64 * 1024;

/// The journal of one data directory, open for writing.
#[derive(Debug)]
pub struct Core {
    pub(super) conn: Connection,
    pub(super) dir: PathBuf,
    pub(super) path: PathBuf,
    synchronous: Synchronous,
    pub(super) clock: SharedClock,
    fold: Box<dyn Fold>,
    pub(super) state: State,
    rings: Rings,
    witness: Witness,
    tally: Tally,
    pub(super) keeper: Keeper,
    suspected: bool,
    /// The last commit failed, and it is not known yet what it has left.
    pub(super) doubtful: bool,
    /// A disk that refuses every write until it is told otherwise; unlike a hook it survives [`Core::reopen`].
    #[cfg(test)]
    refuses: Arc<AtomicBool>,
    _lock: Lock,
}

/// A directory that is held, and the journal in it.
#[derive(Debug)]
pub(super) struct Entered {
    lock: Lock,
    ground: Ground,
    how: How,
}

/// What a transaction leaves behind once it is on disk.
struct Outcome {
    answers: Vec<Answer>,
    state: State,
    touched: Touched,
    tally: Tally,
}

impl Core {
    /// Opens or begins the journal in `dir`, which is made if need be, and holds the directory until it is dropped.
    pub fn open(
        dir: &Path,
        synchronous: Synchronous,
        clock: SharedClock,
        fold: Box<dyn Fold>,
    ) -> Result<(Self, Opened), StoreError> {
        Self::open_on(dir, synchronous, clock, fold, witness::machine())
    }

    /// The same on a machine of which `machine` is the hash.
    pub(super) fn open_on(
        dir: &Path,
        synchronous: Synchronous,
        clock: SharedClock,
        mut fold: Box<dyn Fold>,
        machine: Option<String>,
    ) -> Result<(Self, Opened), StoreError> {
        let entered = Self::enter((dir, synchronous), &clock, fold.as_mut(), machine)?;
        Ok(Self::of((dir, synchronous), clock, fold, entered))
    }

    /// Takes the directory and opens what is there. The fold is only lent, so that a failure does not cost it.
    pub(super) fn enter(
        (dir, synchronous): (&Path, Synchronous),
        clock: &SharedClock,
        fold: &mut dyn Fold,
        machine: Option<String>,
    ) -> Result<Entered, StoreError> {
        fs::create_dir_all(dir).map_err(|error| StoreError::file("make", dir, error))?;
        let lock = Lock::take(dir)?;
        let site = Site { dir, synchronous, machine, now: clock.now() };
        let (ground, how) = site.open(fold)?;
        Ok(Entered { lock, ground, how })
    }

    pub(super) fn of(
        (dir, synchronous): (&Path, Synchronous),
        clock: SharedClock,
        fold: Box<dyn Fold>,
        Entered { lock, ground, how }: Entered,
    ) -> (Self, Opened) {
        let opened = Opened { epoch: ground.state.heads.epoch, how };
        let core = Self {
            conn: ground.conn,
            path: dir.join(witness::JOURNAL),
            dir: dir.to_owned(),
            synchronous,
            clock,
            fold,
            state: ground.state,
            rings: ground.rings,
            witness: ground.witness,
            tally: Tally::default(),
            keeper: Keeper::idle(),
            suspected: witness::suspicion(dir) > 0,
            doubtful: false,
            #[cfg(test)]
            refuses: Arc::default(),
            _lock: lock,
        };
        (core, opened)
    }

    /// Does all ops in one transaction, in order. On return they are on disk. After an error none of them happened;
    /// or, if it struck COMMIT at its very end, all of them, unanswered, and the fold has seen them.
    ///
    /// An error that [is damage](StoreError::is_damage) is final for this process: the next one looks at the file
    /// closely. After any other, the same core can be used again.
    ///
    /// Where the disk is full the reserve is given up, and the ops are tried once more.
    pub fn commit(&mut self, ops: &[Op]) -> Result<Vec<Answer>, StoreError> {
        let before = self.state.heads;
        match self.attempt(ops) {
            Err(error) if self.keeper.struck(&error, &self.dir) => {
                // What happened after all must not happen twice.
                if self.resync(&mut |_record| false).is_ok() && self.state.heads == before {
                    self.attempt(ops)
                } else {
                    Err(error)
                }
            }
            done => done,
        }
    }

    fn attempt(&mut self, ops: &[Op]) -> Result<Vec<Answer>, StoreError> {
        if self.doubtful {
            self.resync(&mut |_record| false)?;
        }
        let now = self.clock.now();
        match self.transact(ops, &now) {
            Ok(outcome) => {
                self.fold.commit(true);
                self.state = outcome.state;
                self.rings.settle(outcome.touched);
                self.tally = outcome.tally;
                let mut answers = outcome.answers;
                self.testify(&mut answers);
                Ok(answers)
            }
            Err(source) => {
                self.fold.rollback();
                let error = sql("write", &self.path)(source);
                self.doubtful = true;
                if error.is_damage()
                    && let Err(failed) = witness::raise_suspicion(&self.dir)
                {
                    tracing::error!(error = %super::error::in_full(&failed), "the damage could not be noted");
                }
                Err(error)
            }
        }
    }

    fn transact(&mut self, ops: &[Op], now: &Stamp) -> rusqlite::Result<Outcome> {
        self.check_disk()?;
        let tx = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let mut stage = Stage::new(&tx, self.state.clone(), &self.rings, self.fold.as_mut(), now);
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            answers.push(match op.prepare() {
                Ok(bodies) => stage.run(op, &bodies)?,
                Err(why) => Answer::Rejected(why),
            });
        }
        stage.save_fold()?;
        let Stage { mut state, touched, tally, .. } = stage;
        state.sums.note_grown(&tx, &state.heads.last)?;
        tx.commit()?;
        Ok(Outcome { answers, state, touched, tally })
    }

    /// Brings the files beside the journal up to what is now committed.
    fn testify(&mut self, answers: &mut [Answer]) {
        if self.suspected {
            match witness::clear_suspicion(&self.dir) {
                Ok(()) => self.suspected = false,
                Err(error) => tracing::warn!(error = %super::error::in_full(&error), "an old mark stays"),
            }
        }
        let witness = open::witness_of(&self.state);
        if witness == self.witness {
            return;
        }
        match witness.write(&self.dir) {
            Ok(()) => self.witness = witness,
            Err(error) => {
                let why = super::error::in_full(&error);
                tracing::warn!(error = why, "the journal's witness is behind");
                for answer in answers.iter_mut().filter(|answer| matches!(answer, Answer::Conn(_))) {
                    *answer = Answer::Unwitnessed(why.clone());
                }
            }
        }
    }

    /// Opens the file again after a failed commit. What SQLite reported as failed and finds committed after all is
    /// shown to the fold, whose answers to it stand in the file already.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.reopen_beside(&mut |_record| false)
    }

    /// The same beside a memory journal: `kept` says of a record that it was kept there, so that the fold has seen it.
    pub(super) fn reopen_beside(&mut self, kept: &mut dyn FnMut(&Record) -> bool) -> Result<(), StoreError> {
        // The new connection comes first, so that the file is never without one and its WAL is not recovered between.
        (self.conn, _) = schema::open_writer(&self.path, self.synchronous)?;
        self.resync(kept)
    }

    /// Finds out what a failed commit has left.
    pub(super) fn resync(&mut self, kept: &mut dyn FnMut(&Record) -> bool) -> Result<(), StoreError> {
        if !self.conn.is_autocommit() {
            // A BEGIN or ROLLBACK that failed half-way left its transaction open.
            self.conn.execute_batch("ROLLBACK").map_err(sql("write", &self.path))?;
        }
        let (mut state, rings) = open::load(&self.conn, &self.path)?;
        let (found, known) = (state.heads, self.state.heads);
        if found.pos < known.pos || Class::ALL.iter().any(|class| found.last[*class] < known.last[*class]) {
            // Its numbers would be given out again: the next process must take it for the old copy that it is.
            Witness { epoch: Epoch(fastrand::u64(..)), conn: self.witness.conn }.write(&self.dir)?;
            return Err(StoreError::damaged(&self.path, "it lost what was committed"));
        }
        if found.pos > known.pos {
            self.catch_up(&known, &found, kept)?;
        }
        state.opened = self.state.opened;
        self.state = state;
        self.rings = rings;
        self.doubtful = false;
        Ok(())
    }

    /// Writes and syncs [`TRIAL_BYTES`] to the file, and the witness: whether the disk takes writes again, and more than
    /// the next page. What was written stays, so that the next trial needs no room of its own.
    pub(super) fn exercise(&mut self) -> Result<(), StoreError> {
        let trial = || {
            self.check_disk()?;
            self.conn.execute(
                "REPLACE INTO meta (name, value) VALUES ('trial', ?1)",
                [row::hex(&vec![fastrand::u8(..); TRIAL_BYTES / 2])],
            )
        };
        trial().map_err(sql("write", &self.path))?;
        open::witness_of(&self.state).write(&self.dir)
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "tests have a disk that refuses")]
    const fn check_disk(&self) -> rusqlite::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn check_disk(&self) -> rusqlite::Result<()> {
        if !self.refuses.load(Ordering::SeqCst) {
            return Ok(());
        }
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        Err(rusqlite::Error::SqliteFailure(failure, Some("a test's disk".to_owned())))
    }

    /// The switch of a disk that refuses.
    #[cfg(test)]
    pub(super) fn refuses(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refuses)
    }

    fn catch_up(
        &mut self,
        known: &Heads,
        found: &Heads,
        kept: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<(), StoreError> {
        let reader = self.reader()?;
        let mut records: Vec<Record> = Vec::new();
        for class in Class::ALL {
            let mut from = known.last[class].saturating_add(1);
            while from <= found.last[class] {
                let page = reader.read(class, from, found.last[class], CATCH_UP_RECORDS, CATCH_UP_BYTES)?;
                let Some(last) = page.last().map(Read::seq) else { break };
                from = last.saturating_add(1);
                records.extend(page.into_iter().filter_map(Read::into_record));
            }
        }
        records.sort_by_key(|record| record.pos);
        for record in &records {
            if !kept(record) {
                self.fold.apply(record);
            }
        }
        // Their rows stand in the file too, but so may older ones of what memory knows better: the next commit stores
        // all of them again.
        self.fold.commit(false);
        Ok(())
    }

    /// What is stored, as far as it was answered.
    pub const fn heads(&self) -> Heads {
        self.state.heads
    }

    /// The highest connection number ever given out.
    pub(super) fn conn_max(&self) -> u64 {
        self.state.conn_max()
    }

    /// The fold, and what is on disk beside it, while the disk cannot be written.
    pub(super) fn fold_beside(&mut self) -> (&mut dyn Fold, &Rings) {
        (self.fold.as_mut(), &self.rings)
    }

    pub(super) fn fold(&self) -> &dyn Fold {
        self.fold.as_ref()
    }

    /// What the last commit stored and dropped.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection of its own that only reads.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.dir)
    }

    /// For faults and images in tests.
    #[cfg(test)]
    pub(super) const fn conn(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// [`Op::Append`] alone.
    pub fn append(&mut self, drafts: Vec<Draft>) -> Result<Committed, JournalError> {
        self.one(Op::Append { drafts })?.committed()
    }

    /// [`Op::SaveCursors`] alone.
    pub fn save_cursors(&mut self, uplink: &UplinkName, cursors: Cursors) -> Result<(), JournalError> {
        self.one(Op::SaveCursors { uplink: uplink.clone(), cursors })?.done()
    }

    /// [`Op::Settle`] alone.
    pub fn settle(
        &mut self,
        uplink: &UplinkName,
        cursors: Cursors,
        drafts: Vec<Draft>,
    ) -> Result<Committed, JournalError> {
        self.one(Op::Settle { uplink: uplink.clone(), cursors, drafts })?.committed()
    }

    /// [`Op::NextConn`] alone.
    pub fn next_conn(&mut self, uplink: &UplinkName, at_least: u64) -> Result<u64, JournalError> {
        self.one(Op::NextConn { uplink: uplink.clone(), at_least })?.conn()
    }

    /// [`Op::Fork`] alone.
    pub fn fork_epoch(&mut self, reason: &str) -> Result<Epoch, JournalError> {
        self.one(Op::Fork { reason: reason.to_owned() })?.forked()
    }

    /// [`Op::BeginCommand`] alone.
    pub fn begin_command(
        &mut self,
        uplink: &UplinkName,
        id: &str,
        body_hash: [u8; 32],
    ) -> Result<CommandSlot, JournalError> {
        self.one(Op::BeginCommand { uplink: uplink.clone(), id: id.to_owned(), body_hash })?.slot()
    }

    /// [`Op::EndCommand`] alone.
    pub fn end_command(
        &mut self,
        uplink: &UplinkName,
        id: &str,
        outcome: String,
    ) -> Result<(), JournalError> {
        self.one(Op::EndCommand { uplink: uplink.clone(), id: id.to_owned(), outcome })?.done()
    }

    fn one(&mut self, op: Op) -> Result<Answer, JournalError> {
        let answers = self.commit(&[op]).map_err(|error| JournalError::from(&error))?;
        answers.into_iter().next().ok_or(JournalError::Closed)
    }
}
