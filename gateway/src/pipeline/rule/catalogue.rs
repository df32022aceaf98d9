//! What could be watched at all: the models that the box knows, whether a device uses them or not, and what every device
//! and the box itself tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::{PointName, ProfileName};
use crate::pipeline::directory::PointType;

/// Kind of the box itself.
pub(super) const GATEWAY: &str = "gateway";

/// Events that any device may have, whatever its profile says: the drivers tell them.
pub(super) const DEVICE_EVENTS: [&str; 5] =
    ["device.offline", "device.online", "line.open", "line.shorted", "line.restored"];

/// Events of the box itself.
pub(super) const GATEWAY_EVENTS: [&str; 35] = [
    "box.closed",
    "box.cooled",
    "box.flash_worn",
    "box.hot",
    "box.lid_failed",
    "box.lid_restored",
    "box.mains_lost",
    "box.mains_restored",
    "box.memory_restored",
    "box.memory_short",
    "box.modem_failed",
    "box.modem_restored",
    "box.opened",
    "box.signal_low",
    "box.signal_restored",
    "box.undervoltage",
    "box.voltage_restored",
    "bus.offline",
    "bus.online",
    "bus.session_lost",
    "clock.changed",
    "clock.disputed",
    "notifier.failing",
    "notifier.restored",
    "rules.taken_back",
    "store.back",
    "store.full",
    "store.lost",
    "store.reset",
    "store.restored",
    "store.room",
    "uplink.duplicate_identity",
    "uplink.nobody_listens",
    "uplink.offline",
    "uplink.online",
];

/// Those that end another by themselves: the ending one and the one it ends.
pub(super) const STANDARD_ENDS: [(&str, &str); 11] = [
    ("box.closed", "box.opened"),
    ("box.cooled", "box.hot"),
    ("box.lid_restored", "box.lid_failed"),
    ("box.mains_restored", "box.mains_lost"),
    ("box.memory_restored", "box.memory_short"),
    ("box.modem_restored", "box.modem_failed"),
    ("box.signal_restored", "box.signal_low"),
    ("box.voltage_restored", "box.undervoltage"),
    ("bus.online", "bus.offline"),
    ("line.restored", "line.open"),
    ("line.restored", "line.shorted"),
];

/// All known device models, by profile.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub models: BTreeMap<ProfileName, Model>,
}

/// What devices of one profile can tell.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub kind: String,
    pub points: BTreeMap<PointName, PointType>,
    pub events: BTreeSet<String>,
    /// Events that end another: the ending one and the one it ends.
    pub ends: BTreeMap<String, String>,
}

impl Model {
    pub(super) fn tells(&self, event: &str) -> bool {
        self.events.contains(event) || DEVICE_EVENTS.contains(&event)
    }
}

impl Catalogue {
    pub(super) fn events(&self) -> BTreeSet<&str> {
        let models = self.models.values().flat_map(|model| model.events.iter().map(String::as_str));
        models.chain(DEVICE_EVENTS).chain(GATEWAY_EVENTS).collect()
    }

    pub(super) fn kinds(&self) -> BTreeSet<&str> {
        self.models.values().map(|model| model.kind.as_str()).chain([GATEWAY]).collect()
    }

    pub(super) fn points(&self) -> BTreeSet<&str> {
        self.models.values().flat_map(|model| model.points.keys().map(PointName::as_str)).collect()
    }

    /// Whether something says that an event is over: the profile, or a driver.
    pub(super) fn is_ended(&self, profile: &ProfileName, event: &str) -> bool {
        let by_profile =
            self.models.get(profile).is_some_and(|m| m.ends.values().any(|ended| ended == event));
        by_profile || STANDARD_ENDS.iter().any(|(_, ended)| *ended == event)
    }
}
