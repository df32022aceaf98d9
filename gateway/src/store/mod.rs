//! The journal: the only place with SQL. Owns the file in the data directory, its numbers, its epochs, the cursors of
//! the uplinks and the ids of commands. Must not know protocols.
//!
//! [`Core`] is the journal itself, synchronous and without threads. [`Store`] puts it on a thread of its own and is
//! what the daemon shares; [`Reader`] reads beside it. Limits: `JOURNAL_QUEUE_MAX` ops wait,
//! `COMMIT_RECORDS_MAX` records are in one commit, a body has `RECORD_BODY_BYTES_MAX` bytes, and [`budget`] bounds the whole.

mod age;
pub mod budget;
mod core;
mod dedup;
mod error;
mod forget;
mod heads;
mod house;
mod keeper;
mod lost;
mod memory;
mod notice;
mod op;
mod open;
mod pages;
mod reader;
mod reserve;
mod room;
mod row;
mod schema;
mod sink;
mod stage;
mod thin;
mod tick;
mod usage;
mod walk;
mod wants;
mod witness;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::model::cursor::Cursors;
use crate::model::ids::{Epoch, UplinkName};
use crate::model::journal::{Committed, Durability, Fold, Journal, JournalError};
use crate::model::limits::JOURNAL_QUEUE_MAX;
use crate::model::record::Draft;
use crate::model::roll::Roll;
use crate::rt::board::Board;
use crate::rt::clock::SharedClock;
use crate::rt::metrics::Metrics;

pub use self::core::Core;
pub use self::error::StoreError;
pub use self::forget::{Cause, Piece};
pub use self::heads::Heads;
pub use self::keeper::Rest;
pub use self::memory::Volatile;
pub use self::op::{Answer, COMMAND_ID_BYTES_MAX, CommandSlot, OUTCOME_BYTES_MAX, Op};
pub use self::open::{How, Opened};
pub use self::reader::Reader;
pub use self::row::Read;
pub use self::schema::Synchronous;
pub use self::walk::{Selection, Walk};

use self::lost::{Desk, Shut};
use self::memory::Memory;
use self::writer::{Life, Message, Writer};

/// What a [`Store`] works with.
#[derive(Debug, Clone)]
pub struct Options {
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    /// [`Synchronous::Full`], but for one test.
    pub synchronous: Synchronous,
    /// Budgets; without them nothing is forgotten.
    pub keeping: Option<Keeping>,
}

/// What is kept, and who is told of what is not.
#[derive(Debug, Clone)]
pub struct Keeping {
    pub storage: budget::StorageConfig,
    /// The uplinks that are configured.
    pub uplinks: Vec<UplinkName>,
    /// The open alarms: one of them may say that the disk is full.
    pub roll: Arc<Roll>,
}

/// The journal of the running daemon: a handle that is cheap to clone. The last one dropped ends the writer as
/// [`Store::close`] does, without waiting for it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    messages_tx: mpsc::Sender<Message>,
    heads_rx: watch::Receiver<Heads>,
    openings_rx: watch::Receiver<u64>,
    volatile: Volatile,
    life_rx: watch::Receiver<Life>,
    thread: Mutex<Option<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens or begins the journal in `dir` and starts its writer.
    ///
    /// Fails if another process holds the directory, if a newer version made the file, or if the daemon has no right to
    /// it. Damage is no failure: see [`How::Reset`]. Nor is a disk that refuses: see [`How::Lost`].
    pub fn open(dir: &Path, options: Options, mut fold: Box<dyn Fold>) -> Result<(Self, Opened), StoreError> {
        let (place, clock) = ((dir, options.synchronous), options.clock.clone());
        match Core::enter(place, &clock, fold.as_mut(), witness::machine()) {
            Ok(entered) => {
                let (mut core, opened) = Core::of(place, clock, fold, entered);
                if let Some(keeping) = &options.keeping {
                    core.keep(keeping);
                }
                Ok((Self::start(dir, core, options)?, opened))
            }
            Err(error) if error.is_disk() => {
                let reason = error::in_full(&error);
                let memory = Memory::new(stage::random_epoch().map_err(error::sql("begin", dir))?);
                let shut = Shut::new(place, (clock, fold), options.keeping.clone(), memory.epoch());
                let opened = Opened { epoch: shut.heads.epoch(), how: How::Lost { reason: reason.clone() } };
                let desk = Desk::Shut(Box::new(shut));
                Ok((Self::start_at(dir, (desk, memory), Some(reason), options)?, opened))
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the writer on an open journal.
    fn start(dir: &Path, core: Core, options: Options) -> Result<Self, StoreError> {
        let memory = Memory::new(stage::random_epoch().map_err(error::sql("begin", dir))?);
        Self::start_at(dir, (Desk::Open(Box::new(core)), memory), None, options)
    }

    /// The same; `lost` says why the disk cannot be written.
    fn start_at(
        dir: &Path,
        (desk, memory): (Desk, Memory),
        lost: Option<String>,
        options: Options,
    ) -> Result<Self, StoreError> {
        let Options { clock, metrics, board, .. } = options;
        let (messages_tx, messages_rx) = mpsc::channel(JOURNAL_QUEUE_MAX);
        let (heads_tx, heads_rx) = watch::channel(desk.heads());
        let (openings_tx, openings_rx) = watch::channel(u64::from(lost.is_none()));
        let (life_tx, life_rx) = watch::channel(Life::Running);
        let volatile = memory.reader();
        let told = (heads_tx, openings_tx);
        let mut writer = Writer::new((desk, memory), messages_rx, told, (clock, Arc::clone(&metrics), board));
        if let Some(reason) = lost {
            writer.lose(&reason);
        }
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            std::thread::Builder::new()
                .name("journal".to_owned())
                .spawn(move || writer.run(&runtime, life_tx))
        };
        let thread = start().map_err(|error| StoreError::file("start the writer of", dir, error))?;
        let shared = Shared {
            dir: dir.to_owned(),
            messages_tx,
            heads_rx,
            openings_rx,
            volatile,
            life_rx,
            thread: Mutex::new(Some(thread)),
            metrics,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What is stored, told anew after each commit, before the commit's appends return.
    pub fn heads(&self) -> watch::Receiver<Heads> {
        self.shared.heads_rx.clone()
    }

    /// What is kept in memory while the disk cannot be written.
    pub fn volatile(&self) -> Volatile {
        self.shared.volatile.clone()
    }

    /// How often the file was opened: 0 while the disk has not let it be, and one more after that.
    pub fn openings(&self) -> u64 {
        *self.shared.openings_rx.borrow()
    }

    /// A connection of its own that only reads.
    ///
    /// Not before the writer has opened the file: a reader on a read-only file system would hold the WAL's index as one
    /// that can never be written, for the whole process.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        if self.openings() == 0 {
            return Err(StoreError::NotOpen { dir: self.shared.dir.clone() });
        }
        Reader::open(&self.shared.dir)
    }

    /// Goes to the writer and back: it lives, and the disk took the last write.
    pub async fn probe(&self) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Probe { reply }).await?;
        answer.await.map_err(|_gone| JournalError::Closed)?
    }

    /// Resolves with the reason when the writer has died. The process must end then; closing does not count.
    pub async fn failed(&self) -> String {
        let mut life_rx = self.shared.life_rx.clone();
        loop {
            if let Life::Died(why) = &*life_rx.borrow_and_update() {
                return why.clone();
            }
            if life_rx.changed().await.is_err() {
                // Closed in order: there is no more to tell.
                return std::future::pending().await;
            }
        }
    }

    /// Stores where an uplink stands, within a second. `Full`: not this time; the caller will save again.
    #[expect(
        clippy::unused_async,
        reason = "all calls of the uplink have one shape, and this one may come to wait"
    )]
    pub async fn save_cursors(&self, uplink: &UplinkName, cursors: Cursors) -> Result<(), JournalError> {
        self.try_send(Op::SaveCursors { uplink: uplink.clone(), cursors })
    }

    /// Stores where an uplink stands together with what it has to record about it, synced.
    pub async fn settle(
        &self,
        uplink: &UplinkName,
        cursors: Cursors,
        drafts: Vec<Draft>,
    ) -> Result<Committed, JournalError> {
        self.ask(Op::Settle { uplink: uplink.clone(), cursors, drafts }).await?.committed()
    }

    /// Gives out the uplink's next connection number: above every one before it, of all uplinks, at least `at_least`, on
    /// disk; while that cannot be written, from memory.
    pub async fn next_conn(&self, uplink: &UplinkName, at_least: u64) -> Result<u64, JournalError> {
        self.ask(Op::NextConn { uplink: uplink.clone(), at_least }).await?.conn()
    }

    /// Begins a new epoch for the records since this process opened the file and all later ones. Numbers go on. The
    /// event `store.restored` (critical) is stored with it.
    pub async fn fork_epoch(&self, reason: &str) -> Result<Epoch, JournalError> {
        self.ask(Op::Fork { reason: reason.to_owned() }).await?.forked()
    }

    /// Remembers a command before it is done, synced. Only who gets [`CommandSlot::New`] may act.
    pub async fn begin_command(
        &self,
        uplink: &UplinkName,
        id: &str,
        body_hash: [u8; 32],
    ) -> Result<CommandSlot, JournalError> {
        self.ask(Op::BeginCommand { uplink: uplink.clone(), id: id.to_owned(), body_hash }).await?.slot()
    }

    /// Remembers what became of a command, synced: a repetition gets it again.
    pub async fn end_command(
        &self,
        uplink: &UplinkName,
        id: &str,
        outcome: String,
    ) -> Result<(), JournalError> {
        self.ask(Op::EndCommand { uplink: uplink.clone(), id: id.to_owned(), outcome }).await?.done()
    }

    /// Commits what waits, closes the file and waits for the writer's end. Other handles get
    /// [`JournalError::Closed`] from then on.
    pub async fn close(self) -> Result<(), JournalError> {
        self.send(Message::Close).await?;
        let mut life_rx = self.shared.life_rx.clone();
        let ended = match life_rx.wait_for(|life| *life != Life::Running).await {
            Ok(life) => life.clone(),
            Err(_gone) => Life::Closed,
        };
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The thread has nothing left to do, so this does not block.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            return Err(JournalError::Disk("the writer panicked".to_owned()));
        }
        match ended {
            Life::Died(why) => Err(JournalError::Disk(why)),
            Life::Running | Life::Closed => Ok(()),
        }
    }

    async fn ask(&self, op: Op) -> Result<Answer, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Do { op, reply: Some(reply) }).await?;
        answer.await.map_err(|_gone| JournalError::Closed)?
    }

    async fn send(&self, message: Message) -> Result<(), JournalError> {
        self.shared.messages_tx.send(message).await.map_err(|_gone| JournalError::Closed)
    }

    fn try_send(&self, op: Op) -> Result<(), JournalError> {
        self.shared.messages_tx.try_send(Message::Do { op, reply: None }).map_err(|error| match error {
            TrySendError::Full(_) => JournalError::Full,
            TrySendError::Closed(_) => JournalError::Closed,
        })
    }
}

#[async_trait]
impl Journal for Store {
    async fn append(&self, drafts: Vec<Draft>, durability: Durability) -> Result<Committed, JournalError> {
        match durability {
            Durability::Synced => self.ask(Op::Append { drafts }).await?.committed(),
            Durability::Relaxed => {
                let count = drafts.len() as u64;
                let sent = self.try_send(Op::Append { drafts });
                if matches!(sent, Err(JournalError::Full)) {
                    self.shared.metrics.dropped("records", "queue_full", count);
                }
                sent.map(|()| Committed { last_pos: self.shared.heads_rx.borrow().pos(), repeated: 0 })
            }
        }
    }
}
