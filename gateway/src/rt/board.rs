//! The board: what each part says of itself, for `gatehouse status`, `/healthz` and the console. Writers replace
//! their own entry; readers get a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::model::ids::{BusName, DeviceId, UplinkName};
use crate::model::record::Class;
use crate::model::stamp::Stamp;

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
    /// Names of the clients connected now.
    pub clients: BTreeSet<String>,
    /// Of a bus that is polled.
    #[serde(default)]
    pub line: Option<LineStatus>,
}

/// A line whose devices are asked one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// Why it does not work.
    pub trouble: Option<String>,
    /// Units on it, and how many of them do not answer.
    pub units: usize,
    pub units_failing: usize,
    /// Reads since the start, those without any answer, and those whose answer was none.
    pub polls: u64,
    pub timeouts: u64,
    pub faults: u64,
}

/// A device. Not heard: it is neither online nor offline (promise G11).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub kind: String,
    pub heard: Option<Stamp>,
    pub messages: u64,
    /// Whether it can be reached, as far as its driver asks; none before it has spoken or failed.
    #[serde(default)]
    pub online: Option<bool>,
    /// Why it was not reached last.
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

/// The journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub path: String,
    pub epoch: String,
    /// Last sequence number of each class.
    pub last: BTreeMap<Class, u64>,
    pub commits: u64,
    pub bytes: u64,
    pub trouble: Option<String>,
}

/// A copy of the whole board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub units: BTreeMap<String, UnitState>,
    pub buses: BTreeMap<BusName, BusStatus>,
    pub devices: BTreeMap<DeviceId, DeviceStatus>,
    pub uplinks: BTreeMap<UplinkName, UplinkStatus>,
    pub store: StoreStatus,
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
