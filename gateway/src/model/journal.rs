//! What the south and the writer agree on, without either knowing the other.

use std::fmt::Debug;

use async_trait::async_trait;

use super::ids::{BootId, Pos};
use super::record::{Draft, Record};

/// When an append returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After commit and fsync: whoever waits for it may acknowledge (promise G1).
    Synced,
    /// At once; committed within a second. For values that nobody waits for.
    Relaxed,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The last position written; for a relaxed append the last one known.
    pub last_pos: Pos,
    /// Drafts not stored because their de-duplication key was known.
    pub repeated: usize,
}

/// Why an append failed. Nothing of it is on disk, nothing may be acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Only relaxed appends: the queue is full, the drafts are dropped and counted.
    #[error("the journal's queue is full")]
    Full,
    /// The disk refused; the writer tries to recover, the source may try again.
    #[error("the journal could not be written: {0}")]
    Disk(String),
    /// A draft cannot be stored whatever the disk does; trying again is useless, the source drops and counts it.
    #[error("a record cannot be stored: {0}")]
    Rejected(String),
    /// The disk refuses, and the drafts are kept in memory only: they act and reach the platforms, but a crash loses them.
    /// Whoever waits must not acknowledge, and must say the same again.
    #[error("kept in memory only, do not acknowledge: the journal cannot be written")]
    Volatile,
    /// The writer has ended: the process is going down.
    #[error("the journal is closed")]
    Closed,
}

/// The journal as its sources see it.
#[async_trait]
pub trait Journal: Send + Sync + Debug {
    /// Appends the drafts together: all or none.
    async fn append(&self, drafts: Vec<Draft>, durability: Durability) -> Result<Committed, JournalError>;
}

/// The pipeline as the writer sees it: a pure fold that runs between insert and COMMIT.
///
/// `apply` may be called for records whose COMMIT then fails; `commit` or `rollback` follows and settles it. Its state is
/// stored in the same commit as the records that changed it, as rows by key, so that a restart goes on where the last
/// commit stood, whatever is forgotten or configured meanwhile.
///
/// While the disk cannot be written, records that are kept in memory are applied and committed too: what they raise acts.
/// They are not applied again when they reach the disk; there they have other numbers and the same positions, and what
/// they gave rise to stands behind them as it was. Rows that changed meanwhile are stored with the next commit that
/// succeeds.
pub trait Fold: Send + Debug {
    /// Takes up the rows that the file holds, before the first record. Where the file could not be opened before, it comes
    /// again when it is open at last: what the fold has changed since is newer than the file's.
    fn load(&mut self, _rows: Vec<(String, String)>) {}
    /// Folds one record into the state and returns what it gives rise to (alarm changes), stored in the same commit.
    fn apply(&mut self, record: &Record) -> Vec<Draft>;
    /// A record that was folded while it was in memory only stands on disk now, under this number.
    fn restored(&mut self, _record: &Record) {}
    /// Rows that are not stored as they are now: key and value; no value: the row goes. Asked right before COMMIT.
    fn unsaved(&self) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
    /// The records applied since the last call have happened. `saved`: on disk, together with what [`Fold::unsaved`] told.
    fn commit(&mut self, saved: bool);
    /// The records applied since the last call never happened.
    fn rollback(&mut self);
    /// The next moment at which something falls due by itself, by the monotonic clock of `boot`; none: nothing waits. At
    /// or after it the writer appends a tick, which is a record like any other.
    fn due_ms(&self, _boot: &BootId) -> Option<u64> {
        None
    }
}

/// No rules: records give rise to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFold;

impl Fold for NoFold {
    fn apply(&mut self, _record: &Record) -> Vec<Draft> {
        Vec::new()
    }

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}
}
