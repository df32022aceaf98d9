//! The one thread that writes. It gathers what waits into one commit, holds what nobody waits for up to
//! [`JOURNAL_HOLD_MS`]. What it does when the disk refuses stands in `lost.rs`.
//!
//! It ends by being closed, by a file that SQLite calls corrupt, or by a panic; the last two cost the process, since
//! only a start can look at the file closely and set it aside.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::model::journal::JournalError;
use crate::model::limits::{COMMIT_RECORDS_MAX, JOURNAL_HOLD_MS};
use crate::model::record::Class;
use crate::rt::backoff::Backoff;
use crate::rt::board::Board;
use crate::rt::clock::SharedClock;
use crate::rt::echo::Echo;
use crate::rt::metrics::Metrics;

use super::error::{StoreError, in_full};
use super::heads::Heads;
use super::house::House;
use super::lost::{Desk, Loss, Unwritten};
use super::memory::Memory;
use super::op::{Answer, Op};
use super::tick::Ticks;

/// First and longest wait between attempts on a disk that refuses.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often the file's size is looked up for the board, in milliseconds.
const SIZE_EVERY_MS: u64 = 1_000;

pub(super) type Reply = oneshot::Sender<Result<Answer, JournalError>>;

/// What the writer is sent.
#[derive(Debug)]
pub(super) enum Message {
    /// Without a reply it is relaxed: held for company.
    Do { op: Op, reply: Option<Reply> },
    /// Whether the writer lives and the disk takes writes.
    Probe { reply: oneshot::Sender<Result<(), JournalError>> },
    /// Commit what is held and end.
    Close,
}

/// Whether the writer lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It was closed.
    Closed,
    /// It ended by itself: why.
    Died(String),
}

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) replies: Vec<Option<Reply>>,
    weight: usize,
    /// When the first of it came.
    since: Option<Instant>,
    /// Somebody waits for it.
    urgent: bool,
}

impl Batch {
    fn push(&mut self, op: Op, reply: Option<Reply>) {
        self.urgent |= reply.is_some();
        self.since.get_or_insert_with(Instant::now);
        if reply.is_none() && self.supersede(&op) {
            return;
        }
        self.weight = self.weight.saturating_add(op.weight());
        self.ops.push(op);
        self.replies.push(reply);
    }

    /// A tick has waited long enough: it goes now, with what is held.
    fn push_tick(&mut self, tick: Op) {
        self.push(tick, None);
        self.urgent = true;
    }

    /// Puts newer cursors in the place of older ones that still wait, unless a settlement stands between.
    fn supersede(&mut self, op: &Op) -> bool {
        let Op::SaveCursors { uplink: of, .. } = op else { return false };
        let older = self.ops.iter_mut().rev().find(
            |op| matches!(op, Op::SaveCursors { uplink, .. } | Op::Settle { uplink, .. } if uplink == of),
        );
        match older {
            Some(older @ Op::SaveCursors { .. }) => {
                *older = op.clone();
                true
            }
            _ => false,
        }
    }

    fn is_full(&self) -> bool {
        self.weight >= COMMIT_RECORDS_MAX
    }

    fn is_due(&self, now: Instant) -> bool {
        self.urgent || self.is_full() || self.hold_until().is_some_and(|until| until <= now)
    }

    fn hold_until(&self) -> Option<Instant> {
        self.since.map(|since| since + Duration::from_millis(JOURNAL_HOLD_MS))
    }
}

/// What the writer works with.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) desk: Desk,
    pub(super) memory: Memory,
    /// The disk cannot be written.
    pub(super) loss: Option<Loss>,
    pub(super) losses: u64,
    /// When the disk came back last.
    pub(super) steady_from: Option<Instant>,
    /// The file was opened after the start, which is still to be told.
    pub(super) opened_late: bool,
    pub(super) openings_tx: watch::Sender<u64>,
    pub(super) messages_rx: mpsc::Receiver<Message>,
    pub(super) heads_tx: watch::Sender<Heads>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    pub(super) backoff: Backoff,
    pub(super) echo: Echo,
    batch: Batch,
    sized_mono_ms: Option<u64>,
    pub(super) house: House,
    pub(super) ticks: Ticks,
}

/// Tells that the writer has ended, also when it panics.
#[derive(Debug)]
struct Deathbed {
    life_tx: watch::Sender<Life>,
    life: Life,
}

impl Drop for Deathbed {
    fn drop(&mut self) {
        self.life_tx.send_replace(self.life.clone());
    }
}

impl Writer {
    pub(super) fn new(
        (desk, memory): (Desk, Memory),
        messages_rx: mpsc::Receiver<Message>,
        (heads_tx, openings_tx): (watch::Sender<Heads>, watch::Sender<u64>),
        (clock, metrics, board): (SharedClock, Arc<Metrics>, Arc<Board>),
    ) -> Self {
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new());
        let mut writer = Self {
            desk,
            memory,
            loss: None,
            losses: 0,
            steady_from: None,
            opened_late: false,
            openings_tx,
            messages_rx,
            heads_tx,
            clock,
            metrics,
            board,
            backoff,
            echo: Echo::default(),
            batch: Batch::default(),
            sized_mono_ms: None,
            house: House::default(),
            ticks: Ticks::default(),
        };
        writer.show(0);
        writer
    }

    /// The thread's whole life. `runtime` serves only to wait with a time limit.
    pub(super) fn run(mut self, runtime: &tokio::runtime::Runtime, life_tx: watch::Sender<Life>) {
        let mut deathbed = Deathbed { life_tx, life: Life::Died("the writer panicked".to_owned()) };
        let ended = runtime.block_on(self.work());
        // The file is closed and unlocked before anyone is told.
        drop(self);
        deathbed.life = match ended {
            Ok(()) => Life::Closed,
            Err(error) => {
                let why = in_full(&error);
                tracing::error!(error = why, "the journal cannot go on in this process");
                Life::Died(why)
            }
        };
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        loop {
            self.look_at_deadlines();
            let open = self.gather().await;
            self.recover(false)?;
            if open
                && !self.batch.is_due(Instant::now())
                && let Some(tick) = self.due_tick()
            {
                self.batch.push_tick(tick);
            }
            if self.batch.is_due(Instant::now()) || !open {
                self.commit()?;
            }
            if !open {
                self.recover(true)?;
                self.lament();
                return Ok(());
            }
            self.housekeep()?;
        }
    }

    /// Waits until there is something to do, then takes what is there. False: the writer is to end.
    async fn gather(&mut self) -> bool {
        let retry_at = self.loss.as_ref().map(|loss| loss.retry_at);
        let tick_at = self.ticks.next_at(self.clock.mono_ms());
        let waits = [self.batch.hold_until(), retry_at, self.house.next_at(), tick_at];
        let first = match waits.into_iter().flatten().min() {
            Some(until) => match timeout_at(until, self.messages_rx.recv()).await {
                Ok(first) => first,
                Err(_elapsed) => return true,
            },
            None => self.messages_rx.recv().await,
        };
        let Some(first) = first else { return false };
        if !self.take(first) {
            return false;
        }
        while !self.batch.is_full()
            && let Ok(message) = self.messages_rx.try_recv()
        {
            if !self.take(message) {
                return false;
            }
        }
        true
    }

    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Do { op, reply } => self.batch.push(op, reply),
            Message::Probe { reply } => {
                let state = self.loss.as_ref().map_or(Ok(()), |loss| Err(loss.error.clone()));
                answer(reply, state);
            }
            Message::Close => return false,
        }
        true
    }

    /// Commits the batch and answers everyone in it.
    fn commit(&mut self) -> Result<(), StoreError> {
        let (mut ops, replies) = std::mem::take(&mut self.batch).into_parts();
        if ops.is_empty() {
            return Ok(());
        }
        if self.loss.is_some() {
            self.keep(ops, replies);
            return Ok(());
        }
        let stripped = self.memory.strip(&mut ops, self.clock.mono_ms());
        match self.write(&ops) {
            Ok(answers) => {
                self.show(1);
                self.tell(&ops, replies, answers, &stripped);
                Ok(())
            }
            Err(Unwritten::Failed(error)) if error.is_damage() => {
                self.refuse(&ops, replies, &JournalError::from(&error));
                self.board.update(|board| board.store.trouble = Some(in_full(&error)));
                Err(error)
            }
            Err(Unwritten::Unanswered(error)) => {
                tracing::error!(error = in_full(&error), "a commit is on disk, and nobody could be told so");
                self.refuse(&ops, replies, &JournalError::from(&error));
                self.show(1);
                Ok(())
            }
            Err(Unwritten::Failed(error)) => {
                self.lose(&in_full(&error));
                self.keep(ops, replies);
                Ok(())
            }
        }
    }

    /// Tells everyone what became of a commit. `stripped`: drafts of each op that were on disk before it.
    fn tell(&mut self, ops: &[Op], replies: Vec<Option<Reply>>, answers: Vec<Answer>, stripped: &[usize]) {
        for (place, ((op, reply), mut answered)) in ops.iter().zip(replies).zip(answers).enumerate() {
            if let (Answer::Committed(committed), Some(before)) = (&mut answered, stripped.get(place)) {
                committed.repeated = committed.repeated.saturating_add(*before);
            }
            if let (Answer::Unwitnessed(why), Op::NextConn { uplink, at_least }) = (&answered, op) {
                // The file takes a page and the directory no file: a disk on its way out must not hold an uplink up.
                if self.loss.is_none() {
                    self.lose(why);
                }
                answered = Answer::Conn(self.conn_in_memory(uplink, *at_least));
            }
            match reply {
                Some(reply) => answer(reply, Ok(answered)),
                None => self.note_rejected(op, &answered),
            }
        }
    }

    fn note_rejected(&self, op: &Op, answered: &Answer) {
        if let Answer::Rejected(why) = answered {
            tracing::error!(why, "a record that nobody waits for cannot be stored");
            self.metrics.dropped("records", "rejected", op.drafts() as u64);
        }
    }

    /// Nothing of the batch happened.
    fn refuse(&self, ops: &[Op], replies: Vec<Option<Reply>>, error: &JournalError) {
        for (op, reply) in ops.iter().zip(replies) {
            match reply {
                Some(reply) => answer(reply, Err(error.clone())),
                None => self.metrics.dropped("records", "store_failed", op.drafts() as u64),
            }
        }
    }

    /// Tells what is stored now, after `commits` more commits.
    pub(super) fn show(&mut self, commits: u64) {
        let heads = self.desk.heads();
        if commits > 0
            && let Desk::Open(core) = &self.desk
        {
            let tally = core.tally();
            for class in Class::ALL {
                if tally.stored[class] > 0 {
                    self.metrics.stored(class, tally.stored[class]);
                }
            }
            if tally.fold_dropped > 0 {
                self.metrics.dropped("fold_drafts", "bounds", tally.fold_dropped);
            }
        }
        let now_ms = self.clock.mono_ms();
        let stale = self.sized_mono_ms.is_none_or(|then| now_ms.saturating_sub(then) >= SIZE_EVERY_MS);
        let bytes = stale.then(|| self.bytes());
        if stale {
            self.sized_mono_ms = Some(now_ms);
        }
        let (path, lost) = (self.desk.path(), self.loss.is_some());
        let trouble = self.house_trouble();
        self.board.update(|board| {
            let store = &mut board.store;
            if store.path.is_empty() {
                store.path = path.display().to_string();
            }
            store.epoch = heads.epoch().to_string();
            store.last = Class::ALL.map(|class| (class, heads.of(class).last)).into();
            store.commits = store.commits.saturating_add(commits);
            store.bytes = bytes.unwrap_or(store.bytes);
            if !lost {
                store.trouble = trouble;
            }
        });
        self.tell_heads();
    }

    /// What is stored now, for whoever waits for it.
    pub(super) fn tell_heads(&self) {
        let heads = self.desk.heads();
        self.heads_tx.send_if_modified(|known| std::mem::replace(known, heads) != heads);
    }

    /// Size of the file and its WAL.
    fn bytes(&self) -> u64 {
        let path = self.desk.path();
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |data| data.len());
        size(&path).saturating_add(size(wal.as_ref()))
    }
}

/// Whoever gave up waiting does not get the answer; what it is about has happened all the same.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the journal's answer any more");
    }
}
