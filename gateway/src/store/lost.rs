//! What the writer does while the disk cannot be written: it keeps records in memory, answers that nothing of it may be
//! acknowledged, tries the disk again, and when it is back puts all of it on disk before anything new.
//!
//! A disk that is slow is not lost: a write that hangs holds the writer, devices are not acknowledged meanwhile, and the
//! watchdog decides after its own time. Only a write that fails, and fails again at once, loses the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ids::{Epoch, UplinkName};
use crate::model::journal::{Committed, Fold, JournalError, NoFold};
use crate::model::limits::COMMIT_RECORDS_MAX;
use crate::model::record::{Class, Draft};
use crate::rt::board::MemoryStatus;
use crate::rt::clock::SharedClock;

use super::Keeping;
use super::core::Core;
use super::error::{StoreError, in_full};
use super::heads::Heads;
use super::memory::Handed;
use super::notice;
use super::op::{Answer, Op};
use super::open::Opened;
use super::reader::Reader;
use super::row;
use super::schema::Synchronous;
use super::witness::{self, JOURNAL, Witness};
use super::writer::{Batch, Reply, Writer, answer};

/// Records put on disk in one commit when it is back: small, so that a nearly full disk takes some.
const RESTORE_RECORDS: usize = 256;
const _: () = assert!(RESTORE_RECORDS <= COMMIT_RECORDS_MAX);

/// A disk that was lost again sooner than this is tried again as seldom as before, so that it does not go to and fro.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// The file, or what is needed to open it.
#[derive(Debug)]
pub(super) enum Desk {
    Open(Box<Core>),
    Shut(Box<Shut>),
}

/// A journal that could not be opened yet.
#[derive(Debug)]
pub(super) struct Shut {
    pub(super) dir: PathBuf,
    pub(super) synchronous: Synchronous,
    pub(super) clock: SharedClock,
    pub(super) fold: Box<dyn Fold>,
    keeping: Option<Keeping>,
    /// What could be read of it without writing, or an empty journal.
    pub(super) heads: Heads,
    pub(super) conn_max: u64,
}

impl Shut {
    /// Looks once at what can be read of a journal that cannot be opened, and lets go of it: a connection kept open would
    /// be in the way of the writer's. `epoch` stands for that of one that cannot be read.
    pub(super) fn new(
        (dir, synchronous): (&Path, Synchronous),
        (clock, mut fold): (SharedClock, Box<dyn Fold>),
        keeping: Option<Keeping>,
        epoch: Epoch,
    ) -> Self {
        let reader = Reader::open(dir);
        match reader.as_ref().map(Reader::fold_rows) {
            Ok(Ok(rows)) => fold.load(rows),
            // They are taken up when the file is open at last.
            Ok(Err(error)) => {
                tracing::warn!(error = in_full(&error), "the state of the rules cannot be read");
            }
            Err(_unreadable) => {}
        }
        let read = reader.and_then(|reader| Ok((reader.heads()?, reader.conn_max()?)));
        let witnessed = Witness::read(dir).ok().flatten().map_or(0, |witness| witness.conn);
        let (heads, conn_max) = read.unwrap_or_else(|_unreadable| (Heads::unknown(epoch), 0));
        Self {
            dir: dir.to_owned(),
            synchronous,
            clock,
            fold,
            keeping,
            heads,
            conn_max: conn_max.max(witnessed),
        }
    }

    fn open(&mut self) -> Result<(Core, Opened), StoreError> {
        let place = (self.dir.as_path(), self.synchronous);
        let entered = Core::enter(place, &self.clock, self.fold.as_mut(), witness::machine())?;
        let fold = std::mem::replace(&mut self.fold, Box::new(NoFold));
        let (mut core, opened) = Core::of(place, Arc::clone(&self.clock), fold, entered);
        if let Some(keeping) = &self.keeping {
            core.keep(keeping);
        }
        Ok((core, opened))
    }
}

impl Desk {
    pub(super) fn heads(&self) -> Heads {
        match self {
            Self::Open(core) => core.heads(),
            Self::Shut(shut) => shut.heads,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Open(core) => core.path().to_owned(),
            Self::Shut(shut) => shut.dir.join(JOURNAL),
        }
    }

    fn conn_max(&self) -> u64 {
        match self {
            Self::Open(core) => core.conn_max(),
            Self::Shut(shut) => shut.conn_max,
        }
    }
}

/// The disk cannot be written.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) error: JournalError,
    pub(super) retry_at: Instant,
    since_mono_ms: u64,
    /// Put on disk already, of what this loss kept in memory.
    stored: u64,
    dropped_before: u64,
}

/// Why a commit did not happen.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// It stands on disk after all, but what became of it cannot be said.
    Unanswered(StoreError),
    Failed(StoreError),
}

impl Writer {
    /// Commits, and if the disk refuses tries once more at once on the file opened anew: what passes costs nobody
    /// anything.
    pub(super) fn write(&mut self, ops: &[Op]) -> Result<Vec<Answer>, Unwritten> {
        let Desk::Open(core) = &mut self.desk else {
            return Err(Unwritten::Failed(StoreError::NotOpen { dir: self.desk.path() }));
        };
        let before = core.heads().pos();
        let first = match core.commit(ops) {
            Ok(answers) => return Ok(answers),
            Err(error) if error.is_damage() => return Err(Unwritten::Failed(error)),
            Err(error) => error,
        };
        core.reopen().map_err(Unwritten::Failed)?;
        if core.heads().pos() != before {
            return Err(Unwritten::Unanswered(first));
        }
        tracing::warn!(error = in_full(&first), "a commit failed and is tried once more");
        core.commit(ops).map_err(Unwritten::Failed)
    }

    /// From now on records are kept in memory.
    pub(super) fn lose(&mut self, text: &str) {
        let now = self.clock.now();
        if self.backoff.failures() > 0 && self.steady_from.is_none_or(|from| from.elapsed() >= STEADY_AFTER) {
            self.backoff.reset();
        }
        let retry_in = self.backoff.next_delay();
        self.memory.begin(self.desk.heads().pos(), self.desk.conn_max());
        self.losses = self.losses.saturating_add(1);
        self.loss = Some(Loss {
            error: JournalError::Disk(text.to_owned()),
            retry_at: Instant::now() + retry_in,
            since_mono_ms: now.mono_ms,
            stored: 0,
            dropped_before: self.dropped(),
        });
        if let Some(more) = self.echo.tell(text, now.mono_ms) {
            tracing::error!(
                error = text,
                ?retry_in,
                more,
                "the journal cannot be written: records are kept in memory"
            );
        }
        self.hand((vec![notice::lost(&now, text)], false), |_draft| {});
        self.board.update(|board| board.store.trouble = Some(text.to_owned()));
        self.show_memory();
    }

    fn dropped(&self) -> u64 {
        Class::ALL.iter().map(|class| self.memory.dropped[*class]).sum()
    }

    /// Puts drafts into memory; `refused` gets those that no journal can hold.
    fn hand(&mut self, (drafts, said_again): (Vec<Draft>, bool), mut refused: impl FnMut(&str)) -> Handed {
        let mut storable = Vec::with_capacity(drafts.len());
        let mut bodies = Vec::with_capacity(drafts.len());
        for draft in drafts {
            match row::encode(&draft.body) {
                Ok(json) => {
                    storable.push(draft);
                    bodies.push(json);
                }
                Err(why) => refused(&why),
            }
        }
        let dropped = Class::ALL.map(|class| self.memory.dropped[class]);
        let memory = &mut self.memory;
        let handed = match &mut self.desk {
            Desk::Open(core) => {
                let (fold, rings) = core.fold_beside();
                let on_disk = |draft: &Draft| match (&draft.dedup, draft.body.device()) {
                    (Some(key), Some(device)) => rings.knows(&device.id, key),
                    _ => false,
                };
                memory.append((storable, &bodies), fold, said_again, &on_disk)
            }
            Desk::Shut(shut) => {
                memory.append((storable, &bodies), shut.fold.as_mut(), said_again, &|_draft| false)
            }
        };
        for (class, before) in Class::ALL.into_iter().zip(dropped) {
            let more = self.memory.dropped[class].saturating_sub(before);
            if more > 0 {
                self.metrics.dropped(class.as_str(), "memory_full", more);
            }
        }
        let folded = std::mem::take(&mut self.memory.fold_dropped);
        if folded > 0 {
            self.metrics.dropped("fold_drafts", "bounds", folded);
        }
        handed
    }

    /// What a batch comes to while the disk is lost.
    pub(super) fn keep(&mut self, ops: Vec<Op>, replies: Vec<Option<Reply>>) {
        let mut answers = Vec::with_capacity(replies.len());
        for (op, reply) in ops.into_iter().zip(replies) {
            let kept = self.keep_one(op, reply.is_some());
            answers.extend(reply.map(|reply| (reply, kept)));
        }
        self.show_memory();
        for (reply, kept) in answers {
            answer(reply, kept);
        }
    }

    fn keep_one(&mut self, op: Op, awaited: bool) -> Result<Answer, JournalError> {
        let refused = self.loss.as_ref().map_or(JournalError::Closed, |loss| loss.error.clone());
        match op {
            Op::Append { drafts } => self.keep_drafts(drafts, awaited),
            Op::NextConn { uplink, at_least } => Ok(Answer::Conn(self.conn_in_memory(&uplink, at_least))),
            Op::SaveCursors { uplink, cursors } => {
                self.memory.save_cursors(uplink, cursors);
                Ok(Answer::Done)
            }
            Op::Fork { reason } => {
                self.memory.fork(reason);
                Err(JournalError::Volatile)
            }
            // What was begun on disk has happened; its outcome follows when it can.
            outcome @ Op::EndCommand { .. } => {
                self.memory.end_command(outcome);
                Err(JournalError::Volatile)
            }
            // A gap record must be on disk before the cursor passes what it stands for, and a command's id before it is
            // done.
            Op::Settle { .. } | Op::BeginCommand { .. } | Op::Restore { .. } | Op::Forget(_) => Err(refused),
        }
    }

    fn keep_drafts(&mut self, drafts: Vec<Draft>, awaited: bool) -> Result<Answer, JournalError> {
        let count = drafts.len();
        let mut rejected = None;
        let handed = self.hand((drafts, awaited), |why| rejected = Some(why.to_owned()));
        if handed.repeated > 0 {
            self.metrics.dropped("records", "repeated_in_memory", handed.repeated as u64);
        }
        if let Some(why) = rejected {
            if !awaited {
                self.metrics.dropped("records", "rejected", 1);
            }
            return Ok(Answer::Rejected(why));
        }
        if count > 0 && handed.durable == count {
            return Ok(Answer::Committed(Committed {
                last_pos: self.desk.heads().pos(),
                repeated: handed.durable,
            }));
        }
        Err(JournalError::Volatile)
    }

    /// A connection number that the disk does not know yet.
    pub(super) fn conn_in_memory(&mut self, uplink: &UplinkName, at_least: u64) -> u64 {
        self.memory.next_conn(uplink, at_least)
    }

    /// When it is time, or `at_once`, tries whether the disk takes writes again.
    pub(super) fn recover(&mut self, at_once: bool) -> Result<(), StoreError> {
        let Some(loss) = &self.loss else { return Ok(()) };
        if !at_once && loss.retry_at > Instant::now() {
            return Ok(());
        }
        match self.try_disk() {
            Ok(()) => {
                self.come_back();
                Ok(())
            }
            Err(error) if error.is_damage() => {
                self.board.update(|board| board.store.trouble = Some(in_full(&error)));
                Err(error)
            }
            Err(error) => {
                let (text, retry_in) = (in_full(&error), self.backoff.next_delay());
                if let Some(more) = self.echo.tell(&text, self.clock.mono_ms()) {
                    tracing::error!(error = text, ?retry_in, more, "the journal still cannot be written");
                }
                if let Some(loss) = &mut self.loss {
                    loss.error = JournalError::Disk(text.clone());
                    loss.retry_at = Instant::now() + retry_in;
                }
                self.board.update(|board| board.store.trouble = Some(text));
                self.show_memory();
                Ok(())
            }
        }
    }

    /// Opens the file, tries it, and puts on it what was kept.
    fn try_disk(&mut self) -> Result<(), StoreError> {
        let now_ms = self.clock.mono_ms();
        if let Desk::Shut(shut) = &mut self.desk {
            let (core, opened) = shut.open()?;
            tracing::warn!(epoch = %opened.epoch, how = ?opened.how, "the journal is open at last");
            self.memory.begin(core.heads().pos(), core.conn_max());
            self.desk = Desk::Open(Box::new(core));
            self.opened_late = true;
        } else if let Desk::Open(core) = &mut self.desk {
            let memory = &mut self.memory;
            core.reopen_beside(&mut |record| memory.found(record, now_ms))?;
        }
        let Desk::Open(core) = &mut self.desk else { return Ok(()) };
        core.exercise()?;
        loop {
            let ops = self.memory.first_ops(RESTORE_RECORDS);
            if ops.is_empty() {
                break;
            }
            core.commit(&ops)?;
            let stored = self.memory.committed(&ops, now_ms) as u64;
            if let Some(loss) = &mut self.loss {
                loss.stored = loss.stored.saturating_add(stored);
            }
        }
        let mut ops = self.memory.last_ops();
        if let Some(loss) = &self.loss {
            let now = self.clock.now();
            let lost_ms = now.mono_ms.saturating_sub(loss.since_mono_ms);
            let dropped = self.dropped().saturating_sub(loss.dropped_before);
            ops.push(Op::Append { drafts: vec![notice::back(&now, lost_ms, loss.stored, dropped)] });
        }
        let Desk::Open(core) = &mut self.desk else { return Ok(()) };
        let answers = core.commit(&ops)?;
        if let Some(why) = answers.iter().find_map(|answered| match answered {
            Answer::Unwitnessed(why) => Some(why.clone()),
            _ => None,
        }) {
            return Err(StoreError::Unwitnessed { dir: core.dir().to_owned(), why });
        }
        Ok(())
    }

    fn come_back(&mut self) {
        self.memory.end();
        let now_ms = self.clock.mono_ms();
        let dropped = self.dropped();
        if let Some(loss) = self.loss.take() {
            let lost_ms = now_ms.saturating_sub(loss.since_mono_ms);
            let dropped = dropped.saturating_sub(loss.dropped_before);
            tracing::warn!(lost_ms, stored = loss.stored, dropped, "the journal is written again");
            self.board.update(|board| {
                let memory = &mut board.store.memory;
                memory.stored = memory.stored.saturating_add(loss.stored);
                memory.last_lost_ms = Some(lost_ms);
            });
        }
        self.echo.over();
        self.steady_from = Some(Instant::now());
        if std::mem::take(&mut self.opened_late) {
            // Before the heads, which wake the uplinks.
            self.openings_tx.send_modify(|openings| *openings = openings.saturating_add(1));
        }
        self.show(1);
        self.show_memory();
    }

    /// The process ends, and the disk is not back.
    pub(super) fn lament(&self) {
        let records = self.memory.len();
        if self.loss.is_some() && records > 0 {
            tracing::error!(records, "records that were kept in memory only end with the process");
        }
    }

    fn show_memory(&self) {
        let (kept, losses) = (self.memory.len() as u64, self.losses);
        let lost_since_mono_ms = self.loss.as_ref().map(|loss| loss.since_mono_ms);
        let dropped = Class::ALL.map(|class| (class, self.memory.dropped[class]));
        self.metrics.set_memory(lost_since_mono_ms.is_some(), kept);
        self.board.update(|board| {
            let MemoryStatus { stored, told, last_lost_ms, .. } = std::mem::take(&mut board.store.memory);
            board.store.memory = MemoryStatus {
                lost_since_mono_ms,
                losses,
                kept,
                dropped: dropped.into_iter().filter(|(_, count)| *count > 0).collect(),
                stored,
                told,
                last_lost_ms,
            };
        });
    }
}

impl Batch {
    /// Its ops and who waits for them.
    pub(super) fn into_parts(self) -> (Vec<Op>, Vec<Option<Reply>>) {
        (self.ops, self.replies)
    }
}
