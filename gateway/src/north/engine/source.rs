//! What the engine needs from outside, without I/O of its own: records to read, and words to say them in.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::model::cursor::Head;
use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Class, GapReason, Record};
use crate::model::stamp::Stamp;
use crate::north::contract::{ClassState, Outgoing, StateReason};

/// One stored record, or the number of one whose bytes cannot be read back.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    Record(Box<Record>),
    Unreadable { seq: Seq, detail: String },
}

impl Read {
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Record(record) => record.seq,
            Self::Unreadable { seq, .. } => *seq,
        }
    }
}

/// Why the journal could not be read. The engine waits and tries again; nothing is passed over.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal could not be read: {0}")]
pub struct SourceError(pub String);

/// The journal as an uplink reads it. Numbers that are neither returned as a record nor as unreadable are not stored
/// any more; whoever dropped them has left a gap record.
pub trait Source {
    /// First and last stored number of each class.
    fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError>;

    /// Records `from..=to` in order, at most `records_max` and about `bytes_max`, but at least one if there is any.
    fn read(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Read>, SourceError>;

    /// The highest number in `not_below..below` whose record satisfies `sees` or cannot be read.
    fn last_before(
        &mut self,
        class: Class,
        below: Seq,
        not_below: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<Option<Seq>, SourceError>;

    /// Records of a class that are in memory only, behind the serial number `after`, oldest first, with their serial
    /// numbers. None where the disk is well.
    fn volatile(&mut self, _class: Class, _after: u64, _records_max: usize) -> Vec<(u64, Arc<Record>)> {
        Vec::new()
    }

    /// The first number of the epoch that the record `seq` belongs to.
    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError>;
}

/// Why a record cannot be said at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsendable {
    pub reason: GapReason,
    pub detail: String,
}

/// What state and snapshot tell of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub conn: u64,
    /// Grows with each state of a connection.
    pub rev: u64,
    pub epoch: Epoch,
    pub online: bool,
    pub reason: StateReason,
    pub classes: BTreeMap<Class, ClassState>,
    /// By class, the last number that this uplink may see.
    pub last: BTreeMap<Class, Seq>,
}

/// The contract as the engine uses it: what may be seen, and how it is said.
pub trait Wording: Send + Debug {
    fn sees(&self, record: &Record) -> bool;

    fn record(
        &self,
        record: &Record,
        previous: Seq,
        replay: bool,
        now: &Stamp,
    ) -> Result<Outgoing, Unsendable>;

    /// A record that is in memory only.
    fn volatile(&self, record: &Record, now: &Stamp) -> Result<Outgoing, Unsendable>;

    /// As many of `records` as fit one message, from the first; says how many.
    fn telemetry(
        &self,
        records: &[&Record],
        previous: Seq,
        replay: bool,
        now: &Stamp,
    ) -> Result<(Outgoing, usize), Unsendable>;

    fn state(&self, standing: &Standing, now: &Stamp) -> Outgoing;

    fn snapshot(&self, standing: &Standing, now: &Stamp) -> Vec<Outgoing>;
}
