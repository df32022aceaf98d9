//! The board: what each part says of itself, for `gatehouse status`, `/healthz` and the console. Writers replace
//! their own entry; readers get a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::model::clock::ClockSource;
use crate::model::ids::{BusName, DeviceId, NotifierName, UplinkName};
use crate::model::record::Class;
use crate::model::stamp::{ClockTrust, Stamp};

/// State of a supervised unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum UnitState {
    Starting,
    Running,
    BackingOff { error: String, restarts: u32, retry_in_ms: u64 },
    Stopped,
}

/// A bus or listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusStatus {
    /// The kind, as in `[buses.NAME.KIND]`.
    pub kind: String,
    /// Addresses it listens on or the line it holds.
    pub at: Vec<String>,
    /// Names of the clients connected now; for an external broker, our own client id while we are.
    pub clients: BTreeSet<String>,
    /// Why none of its devices can be heard, or some cannot, and what to do: one trouble for all of them.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Of a bus that is polled.
    #[serde(default)]
    pub line: Option<LineStatus>,
}

/// A line whose devices are asked one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// Units on it, and how many of them do not answer.
    pub units: usize,
    pub units_failing: usize,
    /// Reads since the start, those without any answer, and those whose answer was none.
    pub polls: u64,
    pub timeouts: u64,
    pub faults: u64,
}

/// How a device stands (promise G11).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not heard since the start: neither online nor offline.
    #[default]
    Unheard,
    /// Heard as often as it promises; for one that promises nothing, heard.
    Fresh,
    /// Silent for longer than it promises: its values are old.
    Stale,
    /// Silent for much longer, or said to be out of reach.
    Offline,
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub kind: String,
    pub heard: Option<Stamp>,
    pub messages: u64,
    pub standing: Standing,
    /// Monotonic milliseconds of the last change of `standing`.
    pub since_mono_ms: u64,
    /// Why it was not reached at the last try.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What a person should mend: QoS 0 on an emergency device, for example.
    pub warnings: BTreeSet<String>,
}

/// What an uplink still has to deliver of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingStatus {
    pub records: u64,
    pub set_aside: u64,
}

/// An uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    pub connected: bool,
    /// Grows with each connection.
    pub conn: u64,
    /// Monotonic milliseconds of the last change between connected and not.
    pub since_mono_ms: u64,
    /// Why it is not connected, or why records wait, and what to do.
    pub trouble: Option<String>,
    pub pending: BTreeMap<Class, PendingStatus>,
}

/// Somebody who is told of alarms without a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifierStatus {
    /// Alarms that were not told yet.
    pub waiting: u64,
    /// Alarms told since the start.
    pub delivered: u64,
    /// Alarms that were refused for their own sake since the start.
    pub refused: u64,
    /// Why alarms wait, and what to do.
    pub trouble: Option<String>,
}

/// The memory journal: what stands in for a disk that cannot be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Monotonic milliseconds since when the disk cannot be written; none while it can.
    pub lost_since_mono_ms: Option<u64>,
    /// How often it was lost since the start.
    pub losses: u64,
    /// Records in memory only, now.
    pub kept: u64,
    /// Records dropped since there was no room in memory, since the start.
    pub dropped: BTreeMap<Class, u64>,
    /// Records put on disk late, since the start.
    pub stored: u64,
    /// Times that a platform acknowledged a record which was in memory only.
    pub told: u64,
    /// How long the disk was lost the last time, in milliseconds.
    pub last_lost_ms: Option<u64>,
}

/// The journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub path: String,
    pub epoch: String,
    /// Last sequence number of each class.
    pub last: BTreeMap<Class, u64>,
    pub commits: u64,
    pub bytes: u64,
    #[serde(default)]
    pub memory: MemoryStatus,
    pub trouble: Option<String>,
    #[serde(default)]
    pub classes: BTreeMap<Class, ClassStatus>,
    /// What was forgotten since the file began.
    #[serde(default)]
    pub forgotten: Vec<ForgottenStatus>,
    #[serde(default)]
    pub reserve: ReserveStatus,
    /// Of the file system that holds the journal; none where it does not say.
    #[serde(default)]
    pub disk: Option<DiskStatus>,
    /// None where nobody counts.
    #[serde(default)]
    pub written: Option<WrittenStatus>,
}

/// One class in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStatus {
    pub records: u64,
    /// What they take of the file.
    pub bytes: u64,
    /// What they may take; none without a bound.
    pub budget_bytes: Option<u64>,
    /// The stamp of the oldest one.
    pub oldest: Option<Stamp>,
}

/// Records that are not kept any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenStatus {
    pub class: Class,
    /// `thinned to one in N s`, `dropped`, `expired`.
    pub cause: String,
    pub records: u64,
}

/// The reserve file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveStatus {
    /// 0: none is wanted.
    pub bytes: u64,
    /// False: it was given up, or there is no room for it.
    pub held: bool,
}

/// A file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// Telemetry is forgotten below its budget, to make room.
    pub full: bool,
}

/// Flash wear since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenStatus {
    /// Bytes that the kernel counted for this process (`write_bytes` in /proc/self/io): the file system's own journal is
    /// not in it.
    pub bytes: u64,
    /// Records stored in that time.
    pub records: u64,
}

/// The clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How far wall time is trusted; none before the first look.
    pub trust: Option<ClockTrust>,
    /// What it is taken from.
    pub source: ClockSource,
    /// Milliseconds since 1970 = monotonic milliseconds + this.
    pub offset_ms: i64,
    /// Monotonic milliseconds of the last recorded change, if this process saw one.
    pub changed_mono_ms: Option<u64>,
}

/// A copy of the whole board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub units: BTreeMap<String, UnitState>,
    pub buses: BTreeMap<BusName, BusStatus>,
    pub devices: BTreeMap<DeviceId, DeviceStatus>,
    pub uplinks: BTreeMap<UplinkName, UplinkStatus>,
    #[serde(default)]
    pub notifiers: BTreeMap<NotifierName, NotifierStatus>,
    pub store: StoreStatus,
    #[serde(default)]
    pub clock: ClockStatus,
}

/// The board itself.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Snapshot>,
}

impl Board {
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes entries in place; the closure must be short.
    pub fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.lock())
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// A panic while the lock was held leaves whole entries behind, so the board stays readable.
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
