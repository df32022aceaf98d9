//! What the writer can be asked to do, and what it answers.

use crate::model::cursor::Cursors;
use crate::model::ids::{Epoch, Pos, UplinkName};
use crate::model::journal::{Committed, JournalError};
use crate::model::limits::{COMMIT_RECORDS_MAX, NAME_BYTES_MAX};
use crate::model::record::Draft;

use super::forget::Piece;
use super::row::encode;

/// Longest command id that is remembered: a UUID with a prefix fits several times.
pub const COMMAND_ID_BYTES_MAX: usize = 4 * NAME_BYTES_MAX;

/// Longest outcome that is remembered: it must fit a message to the platform.
pub const OUTCOME_BYTES_MAX: usize = crate::model::limits::RECORD_BODY_BYTES_MAX;

/// A change of the journal. All of one commit happen, or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Appends drafts. Answered by [`Answer::Committed`].
    Append { drafts: Vec<Draft> },
    /// Stores what was kept in memory, with the positions it had there. Answered by [`Answer::Committed`].
    Restore { kept: Vec<(Pos, Draft)> },
    /// Stores where an uplink stands, and appends what it has to say about it (gap records). Answered by
    /// [`Answer::Committed`].
    Settle { uplink: UplinkName, cursors: Cursors, drafts: Vec<Draft> },
    /// Stores where an uplink stands. Answered by [`Answer::Done`].
    SaveCursors { uplink: UplinkName, cursors: Cursors },
    /// Gives out the uplink's next connection number. Answered by [`Answer::Conn`].
    NextConn { uplink: UplinkName, at_least: u64 },
    /// Begins a new epoch, from where this process opened the file. Answered by [`Answer::Forked`].
    Fork { reason: String },
    /// Remembers a command before it is done. Answered by [`Answer::Slot`].
    BeginCommand { uplink: UplinkName, id: String, body_hash: [u8; 32] },
    /// Remembers what became of a command. Answered by [`Answer::Done`].
    EndCommand { uplink: UplinkName, id: String, outcome: String },
    /// Forgets some rows, and appends the gap records that say so. Answered by [`Answer::Done`].
    Forget(Box<Piece>),
}

/// What became of an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Committed(Committed),
    Conn(u64),
    Forked(Epoch),
    Slot(CommandSlot),
    Done,
    /// This one cannot be stored; the others of its commit are.
    Rejected(String),
    /// This one was stored but cannot be vouched for: its witness could not be written.
    Unwitnessed(String),
}

/// What is known of a command id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSlot {
    /// Never seen; now remembered. Whoever gets this may act, once.
    New,
    /// Seen with the same body. No outcome: it is being done, or a crash came between act and record.
    Known { outcome: Option<String> },
    /// Seen with another body.
    Conflict,
}

impl Answer {
    pub(super) fn committed(self) -> Result<Committed, JournalError> {
        if let Self::Committed(committed) = self { Ok(committed) } else { Err(self.unexpected()) }
    }

    pub(super) fn conn(self) -> Result<u64, JournalError> {
        if let Self::Conn(conn) = self { Ok(conn) } else { Err(self.unexpected()) }
    }

    pub(super) fn forked(self) -> Result<Epoch, JournalError> {
        if let Self::Forked(epoch) = self { Ok(epoch) } else { Err(self.unexpected()) }
    }

    pub(super) fn slot(self) -> Result<CommandSlot, JournalError> {
        if let Self::Slot(slot) = self { Ok(slot) } else { Err(self.unexpected()) }
    }

    pub(super) fn done(self) -> Result<(), JournalError> {
        if let Self::Done = self { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(self) -> JournalError {
        match self {
            Self::Rejected(why) => JournalError::Rejected(why),
            Self::Unwitnessed(why) => JournalError::Disk(why),
            other => JournalError::Disk(format!("the writer answered something else: {other:?}")),
        }
    }
}

impl Op {
    /// How much of a commit's bound it uses.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Append { drafts } | Self::Settle { drafts, .. } => drafts.len().max(1),
            Self::Restore { kept } => kept.len().max(1),
            _ => 1,
        }
    }

    /// How many drafts it carries.
    pub(super) fn drafts(&self) -> usize {
        match self {
            Self::Append { drafts } | Self::Settle { drafts, .. } => drafts.len(),
            Self::Restore { kept } => kept.len(),
            _ => 0,
        }
    }

    /// The drafts' bodies as JSON, or why the op as a whole cannot be stored. Decided before anything is written, so
    /// that one bad draft does not cost its neighbours in the commit.
    pub(super) fn prepare(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Append { drafts } | Self::Settle { drafts, .. } => {
                if drafts.len() > COMMIT_RECORDS_MAX {
                    return Err(format!("{} drafts at once, {COMMIT_RECORDS_MAX} are allowed", drafts.len()));
                }
                drafts.iter().map(|draft| encode(&draft.body)).collect()
            }
            Self::Restore { kept } => kept.iter().map(|(_, draft)| encode(&draft.body)).collect(),
            Self::BeginCommand { id, .. } if id.len() > COMMAND_ID_BYTES_MAX => {
                Err(format!("a command id has {} bytes, {COMMAND_ID_BYTES_MAX} are allowed", id.len()))
            }
            Self::EndCommand { outcome, .. } if outcome.len() > OUTCOME_BYTES_MAX => Err(format!(
                "a command's outcome has {} bytes, {OUTCOME_BYTES_MAX} are allowed",
                outcome.len()
            )),
            Self::SaveCursors { .. }
            | Self::NextConn { .. }
            | Self::Fork { .. }
            | Self::BeginCommand { .. }
            | Self::EndCommand { .. }
            | Self::Forget(_) => Ok(Vec::new()),
        }
    }
}
