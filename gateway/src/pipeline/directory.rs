//! The devices as the pipeline needs to know them: what they are, where they are, and what they can do. From the
//! configuration; never changes while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::{BusName, DeviceId, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::topic::{is_within, topic_of};

/// All devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    pub devices: BTreeMap<DeviceId, Entry>,
}

impl Directory {
    /// Whom a rule's message to `device` may reach or speak for past what rules may: a door, wherever it hangs, since
    /// brokers may be bridged; or a device that would seem to have said it. `template` is the message's topic. Behind
    /// one base doors have further names (Zigbee2MQTT: groups, hardware addresses): there only `{address}` is safe.
    pub fn trespass(&self, device: &DeviceId, template: &str) -> Option<&DeviceId> {
        let Topics { base, address, .. } = self.devices.get(device)?.abilities.topics.as_ref()?;
        let topic = topic_of(template, base, address);
        let meets = |id: &DeviceId, other: &Abilities| {
            let Some(topics) = &other.topics else { return false };
            if other.door {
                let nameless = topics.base == *base && !template.contains("{address}");
                nameless || topics.own.iter().any(|own| is_within(own, &topic))
            } else {
                id != device && topics.own.contains(&topic)
            }
        };
        self.devices.iter().find(|(id, other)| meets(id, &other.abilities)).map(|(id, _)| id)
    }
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
    /// Outputs that can be switched or set; not those that release a door.
    pub outputs: BTreeSet<PointName>,
    /// Its topics, if it speaks MQTT.
    pub topics: Option<Topics>,
}

/// The topics of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// What stands for `{base}`.
    pub base: String,
    /// What stands for `{address}`.
    pub address: String,
    /// Where it is heard; of a door also where it takes its orders, and all below belongs to it too.
    pub own: Vec<String>,
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
