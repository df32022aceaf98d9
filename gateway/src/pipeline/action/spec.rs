//! `[[rule.do]]`: what a rule asks devices to do, as it stands in the rule's file.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::directory::{Directory, Entry};
use crate::model::action::Until;
use crate::model::ids::{DeviceId, PointName};
use crate::model::place::Place;

/// Loudness where a rule says nothing: clear, and not the most that the speaker can.
const VOLUME_DEFAULT: u8 = 80;
/// Longest pulse of a door: longer is a door held open.
pub const PULSE_MS_MAX: u32 = 60_000;
/// Longest time that an output is switched on by a rule.
pub const RELAY_S_MAX: u32 = 86_400;

/// One entry of `[[rule.do]]`: exactly one of `speak`, `unlock`, `relay` and `publish`, and on which devices. Also
/// stored in rows, where an alarm that has to wait keeps what it will ask for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    /// Say or play something on speakers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<Speech>,
    /// Release doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<Unlock>,
    /// Switch an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// Publish a message by the device's bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Message>,
    /// On which devices.
    #[serde(default)]
    pub on: Target,
    /// Hours of the site in which nothing is said, unless the alarm is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
}

/// What a speaker says. Templates may use `place.building`, `place.unit` and `place.floor`; nothing else of an alarm is
/// for the public.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// In Chinese: said where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub zh: Option<String>,
    /// In English: said where there is no Chinese.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub en: Option<String>,
    /// A clip that the speaker holds, by its own name; for speakers that cannot say texts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub clip: Option<String>,
    /// 0 to 100 of what the speaker can; 80 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub volume: Option<u8>,
    /// How often; once if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub repeat: Option<u8>,
    /// "acknowledged": what is not said yet is not said any more once somebody has seen to the alarm, or it is over. Each
    /// repeat is then an order of its own, for three minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

impl Speech {
    /// The template that is said.
    pub fn words(&self) -> Option<&str> {
        self.zh.as_deref().or(self.en.as_deref())
    }

    pub fn volume(&self) -> u8 {
        self.volume.unwrap_or(VOLUME_DEFAULT)
    }
}

/// How a door is released: exactly one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unlock {
    /// Until a person resets it: for fire.
    #[serde(default)]
    pub hold: bool,
    /// For so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 60_000))]
    pub pulse_ms: Option<u32>,
}

/// An output that is switched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// The output, as the device's profile names it.
    pub point: PointName,
    /// On, or off.
    #[serde(default = "yes")]
    pub on: bool,
    /// Back after so many seconds; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub for_s: Option<u32>,
}

/// A message to a device's bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The topic; `{base}` and `{address}` stand for those of the device.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// As it is; nothing of the alarm can stand in it.
    #[schemars(length(max = 4096))]
    pub payload: String,
}

/// Which devices: those that meet all of what is given, and can do it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// These.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceId>,
    /// With one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Near the place of the alarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Near>,
}

/// How near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Near {
    SameHousehold,
    SameFloor,
    SameUnit,
    SameBuilding,
    SameGrid,
    /// Wherever it is.
    Compound,
}

impl Near {
    /// Whether both are known and the same; two places that nobody described are not near each other.
    pub fn holds(self, alarm: &Place, device: &Place) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        let building = || same(&alarm.building, &device.building);
        let unit = || building() && same(&alarm.unit, &device.unit);
        match self {
            Self::SameHousehold => unit() && same(&alarm.household, &device.household),
            Self::SameFloor => unit() && alarm.floor.is_some() && alarm.floor == device.floor,
            Self::SameUnit => unit(),
            Self::SameBuilding => building(),
            Self::SameGrid => same(&alarm.grid, &device.grid),
            Self::Compound => true,
        }
    }
}

/// Hours of the day, over midnight where `from` is later than `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// For example "22:00".
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// For example "07:00".
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
}

impl Quiet {
    /// Whether a minute of the day lies in it. Hours that cannot be read silence nobody.
    pub fn holds(&self, minute: u16) -> bool {
        let (Some(from), Some(to)) = (minutes(&self.from), minutes(&self.to)) else { return false };
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// Minutes since midnight of "HH:MM".
pub(super) fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| hours * 60 + minutes)
}

const fn yes() -> bool {
    true
}

impl ActionSpec {
    /// Whether the device can do it.
    pub(super) fn able(&self, entry: &Entry) -> bool {
        let abilities = &entry.abilities;
        if self.unlock.is_some() {
            abilities.door
        } else if let Some(relay) = &self.relay {
            // The way round what opens a door.
            !abilities.door && abilities.outputs.contains(&relay.point)
        } else if self.speak.is_some() {
            abilities.speaker.is_some()
        } else {
            !abilities.door
        }
    }

    fn chosen(&self, id: &DeviceId, entry: &Entry) -> bool {
        let on = &self.on;
        (on.devices.is_empty() || on.devices.contains(id))
            && (on.tags.is_empty() || on.tags.iter().any(|tag| entry.tags.contains(tag)))
            && on.kind.as_ref().is_none_or(|kind| *kind == entry.kind)
    }

    /// The devices that it may ever be about, wherever the alarm is.
    pub fn candidates<'d>(
        &'d self,
        directory: &'d Directory,
    ) -> impl Iterator<Item = (&'d DeviceId, &'d Entry)> {
        directory.devices.iter().filter(|(id, entry)| self.chosen(id, entry) && self.able(entry))
    }

    /// The devices that it is about for an alarm at this place. One under maintenance is left in peace: people work on it.
    pub fn targets<'d>(
        &'d self,
        directory: &'d Directory,
        place: &'d Place,
    ) -> impl Iterator<Item = (&'d DeviceId, &'d Entry)> {
        let near = self.on.place.unwrap_or(Near::Compound);
        self.candidates(directory)
            .filter(move |(_, entry)| !entry.maintenance && near.holds(place, &entry.place))
    }

    /// Events that may come of it, each with the device that would tell it: all that those devices can tell. For loops:
    /// a rule that watches one of them may be its own cause. An output causes none: inputs of the same module are wired
    /// to something else.
    pub fn events_it_may_cause(&self, directory: &Directory) -> BTreeSet<(DeviceId, String)> {
        self.candidates(directory)
            .filter(|_| self.relay.is_none())
            .flat_map(|(id, entry)| entry.events.iter().map(|event| (id.clone(), event.clone())))
            .collect()
    }
}
