//! The one thread that writes. It gathers what waits into one commit, holds what nobody waits for up to
//! [`JOURNAL_HOLD_MS`], and when the disk refuses answers everyone at once and tries again on its own.
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

use super::core::Core;
use super::error::{StoreError, in_full};
use super::heads::Heads;
use super::op::{Answer, Op};

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

/// The disk refuses.
#[derive(Debug)]
struct Trouble {
    error: JournalError,
    retry_at: Instant,
}

/// What waits for the next commit.
#[derive(Debug, Default)]
struct Batch {
    ops: Vec<Op>,
    replies: Vec<Option<Reply>>,
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
    pub(super) core: Core,
    pub(super) messages_rx: mpsc::Receiver<Message>,
    pub(super) heads_tx: watch::Sender<Heads>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    trouble: Option<Trouble>,
    backoff: Backoff,
    echo: Echo,
    batch: Batch,
    sized_mono_ms: Option<u64>,
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
        core: Core,
        messages_rx: mpsc::Receiver<Message>,
        heads_tx: watch::Sender<Heads>,
        (clock, metrics, board): (SharedClock, Arc<Metrics>, Arc<Board>),
    ) -> Self {
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new());
        let mut writer = Self {
            core,
            messages_rx,
            heads_tx,
            clock,
            metrics,
            board,
            trouble: None,
            backoff,
            echo: Echo::default(),
            batch: Batch::default(),
            sized_mono_ms: None,
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
            let open = self.gather().await;
            self.recover()?;
            if self.batch.is_due(Instant::now()) || !open {
                self.commit()?;
            }
            if !open {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do, then takes what is there. False: the writer is to end.
    async fn gather(&mut self) -> bool {
        let retry_at = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        let first = match [self.batch.hold_until(), retry_at].into_iter().flatten().min() {
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
                let state = self.trouble.as_ref().map_or(Ok(()), |trouble| Err(trouble.error.clone()));
                answer(reply, state);
            }
            Message::Close => return false,
        }
        true
    }

    /// When it is time, tries whether the disk takes writes again.
    fn recover(&mut self) -> Result<(), StoreError> {
        if self.trouble.as_ref().is_none_or(|trouble| trouble.retry_at > Instant::now()) {
            return Ok(());
        }
        match self.core.reopen().and_then(|()| self.core.exercise()) {
            Ok(()) => {
                if self.echo.tell("written again", self.clock.mono_ms()).is_some() {
                    tracing::info!("the journal is written again");
                }
                // The back-off goes on until a commit succeeds: a nearly full disk takes one page and not the next.
                self.trouble = None;
                self.show(0);
                Ok(())
            }
            Err(error) => self.suffer(error),
        }
    }

    /// Commits the batch and answers everyone in it.
    fn commit(&mut self) -> Result<(), StoreError> {
        let Batch { ops, replies, .. } = std::mem::take(&mut self.batch);
        if ops.is_empty() {
            return Ok(());
        }
        if let Some(trouble) = &self.trouble {
            let error = trouble.error.clone();
            self.refuse(&ops, replies, &error);
            return Ok(());
        }
        match self.core.commit(&ops) {
            Ok(answers) => {
                if self.backoff.failures() > 0 {
                    self.backoff.reset();
                    self.echo.over();
                }
                self.show(1);
                for ((op, reply), answered) in ops.iter().zip(replies).zip(answers) {
                    match reply {
                        Some(reply) => answer(reply, Ok(answered)),
                        None => self.note_rejected(op, &answered),
                    }
                }
                Ok(())
            }
            Err(error) => {
                let told = JournalError::from(&error);
                self.refuse(&ops, replies, &told);
                self.suffer(error)
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

    /// Waits longer each time, or gives up if the file itself is broken.
    fn suffer(&mut self, error: StoreError) -> Result<(), StoreError> {
        let text = in_full(&error);
        self.board.update(|board| board.store.trouble = Some(text.clone()));
        if error.is_damage() {
            return Err(error);
        }
        let retry_in = self.backoff.next_delay();
        if let Some(more) = self.echo.tell(&text, self.clock.mono_ms()) {
            tracing::error!(error = text, ?retry_in, more, "the journal cannot be written");
        }
        self.trouble =
            Some(Trouble { error: JournalError::from(&error), retry_at: Instant::now() + retry_in });
        Ok(())
    }

    /// Tells what is stored now, after `commits` more commits.
    fn show(&mut self, commits: u64) {
        let heads = self.core.heads();
        if commits > 0 {
            let tally = self.core.tally();
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
        let core = &self.core;
        self.board.update(|board| {
            let store = &mut board.store;
            if store.path.is_empty() {
                store.path = core.path().display().to_string();
            }
            store.epoch = heads.epoch().to_string();
            store.last = Class::ALL.map(|class| (class, heads.of(class).last)).into();
            store.commits = store.commits.saturating_add(commits);
            store.bytes = bytes.unwrap_or(store.bytes);
            store.trouble = None;
        });
        self.heads_tx.send_if_modified(|known| std::mem::replace(known, heads) != heads);
    }

    /// Size of the file and its WAL.
    fn bytes(&self) -> u64 {
        let mut wal = self.core.path().as_os_str().to_owned();
        wal.push("-wal");
        let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |data| data.len());
        size(self.core.path()).saturating_add(size(wal.as_ref()))
    }
}

/// Whoever gave up waiting does not get the answer; what it is about has happened all the same.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the journal's answer any more");
    }
}
