//! The devices as the pipeline needs to know them: what they are, where they are, and what they can do. From the
//! configuration; never changes while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::{BusName, DeviceId, PointName, ProfileName};
use crate::model::place::Place;

/// All devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    pub devices: BTreeMap<DeviceId, Entry>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    pub profile: ProfileName,
    /// What it hangs on: its silence is explained when that is down.
    pub bus: Option<BusName>,
    /// The bridge by which it is heard, if that is one of the devices: its silence is explained when that is silent.
    pub bridge: Option<DeviceId>,
    pub place: Place,
    pub tags: BTreeSet<String>,
    /// Its points and their types, for typed trials of expressions.
    pub points: BTreeMap<PointName, PointType>,
    /// Names of the events that its profile can tell.
    pub events: BTreeSet<String>,
    /// How often it says something at least, seconds; none: its silence means nothing.
    pub heartbeat_s: Option<u32>,
    /// Under maintenance: what it says is a test.
    pub maintenance: bool,
    pub abilities: Abilities,
}

/// Type of a point's value, as expressions see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointType {
    Bool,
    Int,
    Float,
    Text,
}

/// What a device can be asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Abilities {
    pub speaker: Option<Speaker>,
    /// It can be released as a door.
    pub door: bool,
    /// Released, it stays so until it is locked: an output of ours, and not a lock with a will of its own.
    pub holds: bool,
    /// Outputs that can be switched or set.
    pub outputs: BTreeSet<PointName>,
}

/// A speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker {
    /// Reached over the local network: it speaks also while the uplink is down.
    pub lan: bool,
    /// Its acknowledgement says that it has played, not only that the order was accepted.
    pub confirms_played: bool,
    /// Longest text, in characters.
    pub text_chars_max: usize,
}
