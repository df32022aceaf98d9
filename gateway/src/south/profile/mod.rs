//! Profiles: a device model described as data, config/profiles/NAME.toml. Owns the types, their checks, and the pure
//! mapping from messages to drafts ([`map`]). Must not know the broker, files, or the journal.
//!
//! Limits: a message yields at most [`crate::model::limits::DRAFTS_PER_MESSAGE_MAX`] drafts, a profile has at most
//! [`POINTS_PER_PROFILE_MAX`] points and [`EVENTS_PER_PROFILE_MAX`] events.

pub mod acts;
mod check;
pub(in crate::south) mod edge;
pub(in crate::south) mod json;
mod map;
pub mod modbus;
mod number;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::{PointName, ProfileName};
use crate::model::limits::DRAFTS_PER_MESSAGE_MAX;
use crate::model::record::{Category, Severity, Text, Value};

pub(in crate::south) use map::TEXTS_BYTES_MAX;
use modbus::{Bands, Contact, ModbusProfile, WordOrder};

pub use map::{Channel, DeviceState, FieldRefusal, Input, Mapped, Origin, Subject, fuzz_map, map};

/// Points of one profile: all of them travel in one record.
pub const POINTS_PER_PROFILE_MAX: usize = 64;

/// Events of one profile.
pub const EVENTS_PER_PROFILE_MAX: usize = 32;

/// Parameters of one event.
pub const PARAMS_PER_EVENT_MAX: usize = 16;

// Each event and the values make one draft each, and availability one more.
const _: () = assert!(EVENTS_PER_PROFILE_MAX + 2 <= DRAFTS_PER_MESSAGE_MAX);

/// A device model.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is: `button`, `contact`, `smoke` … in lower case.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]{0,31}$"))]
    pub kind: String,
    /// Its name for people.
    pub title: Text,
    /// How often such a device says something at least, seconds. One that is silent for half as long again has stale
    /// values; three times as long, and it is offline. Not watched if not given here nor at the device.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub heartbeat_s: Option<u32>,
    /// How it speaks MQTT.
    pub mqtt: Option<MqttProfile>,
    /// How it speaks Modbus; a device speaks one of both.
    pub modbus: Option<ModbusProfile>,
    /// Its values.
    #[serde(default)]
    pub points: BTreeMap<PointName, Point>,
    /// What can happen: `[events.NAME]`, where NAME names the rule; it is the event's name too unless `event` says
    /// otherwise.
    #[serde(default)]
    pub events: BTreeMap<String, EventRule>,
    /// How it is made to speak.
    pub speaker: Option<acts::SpeakerProfile>,
    /// How it is released, if it is a door.
    pub door: Option<acts::DoorProfile>,
    /// What can be switched or set by MQTT.
    #[serde(default)]
    pub outputs: acts::Outputs,
}

/// The topics of a device. `{base}` stands for the client's base, `{address}` for the device's address.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttProfile {
    /// Where its messages arrive, for example `{base}/{address}`.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// JSON Pointer to a number or text that is the same in a repeated message and new in each new one. A message
    /// with a known key is acknowledged and not stored again.
    pub dedup: Option<String>,
    /// Topic filters of what the device also publishes and nobody needs: acknowledged, not stored, not counted as
    /// refused.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ignore: Vec<String>,
    /// Where somebody says whether the device can be reached.
    pub availability: Option<Availability>,
}

/// Messages about whether the device can be reached: `device.offline` when it cannot, and its values are stale;
/// `device.online` when it can again.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// The topic, for example `{base}/{address}/availability`.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// JSON Pointer to the text; a payload that is not JSON is taken as the text itself.
    #[serde(default = "default_availability_pointer")]
    pub pointer: String,
    /// The text that means reachable.
    #[serde(default = "default_online")]
    pub online: String,
    /// The text that means not reachable.
    #[serde(default = "default_offline")]
    pub offline: String,
    /// Severity of `device.offline`.
    pub severity: Option<Severity>,
}

/// One value of a device. `pointer` says where it is in an MQTT message; `coil`, `discrete`, `input` or `holding` where
/// it is in a Modbus device.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// JSON Pointer (RFC 6901) to the value, for example `/battery`. MQTT.
    pub pointer: Option<String>,
    /// Coil, address from 0. Modbus.
    pub coil: Option<u16>,
    /// Discrete input, address from 0. Modbus.
    pub discrete: Option<u16>,
    /// Input register, address from 0. Modbus.
    pub input: Option<u16>,
    /// Holding register, address from 0. Modbus.
    pub holding: Option<u16>,
    /// Bit of the register, 0 is the lowest. Modbus.
    #[schemars(range(max = 15))]
    pub bit: Option<u8>,
    /// Its type; a value of another type is refused and counted. Registers are `u16` if not given.
    #[serde(rename = "type")]
    pub kind: Option<PointKind>,
    /// Order of the bytes in the registers, if not the profile's. Modbus.
    pub word_order: Option<WordOrder>,
    /// Factor from the device's number to the unit, for numbers only.
    pub scale: Option<f64>,
    /// Added after scaling. Modbus.
    pub offset: Option<f64>,
    /// Unit, as in UCUM where it has one: `Cel`, `%`, `V`, `lx`.
    #[schemars(length(min = 1, max = 16))]
    pub unit: Option<String>,
    /// Smallest value that makes sense, after scaling; less is refused and counted.
    pub min: Option<f64>,
    /// Largest value that makes sense, after scaling; more is refused and counted.
    pub max: Option<f64>,
    /// A change of at most this is not told. Modbus.
    pub deadband: Option<f64>,
    /// Told again after so long without a change, if not as the profile says. Modbus.
    #[schemars(range(min = 1, max = 86_400))]
    pub heartbeat_s: Option<u32>,
    /// A digital input's wiring: `"no"`: 1 is active (true); `"nc"`: 0 is. Modbus.
    pub contact: Option<Contact>,
    /// A loop with an end-of-line resistor: what the number means. The value is then whether it is active. Modbus.
    pub bands: Option<Bands>,
    /// The input must hold a new state so long, if not as the profile says. Modbus.
    #[schemars(range(max = 60_000))]
    pub debounce_ms: Option<u32>,
    /// It can be written: an output. Modbus.
    #[serde(default)]
    pub write: bool,
}

/// Type of a point's value. MQTT: number, integer, bool, text. Modbus: bool and those with their width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PointKind {
    /// Any finite number.
    Number,
    /// A whole number.
    Integer,
    /// true or false; of a register: whether it is not 0.
    Bool,
    /// Text of at most 1024 bytes.
    Text,
    /// One register, 0 to 65535.
    U16,
    /// One register, with sign.
    I16,
    /// Two registers.
    U32,
    /// Two registers, with sign.
    I32,
    /// Four registers, up to 2^63 - 1.
    U64,
    /// Four registers, with sign.
    I64,
    /// Two registers, IEEE 754.
    F32,
    /// Four registers, IEEE 754.
    F64,
}

impl Point {
    /// The JSON Pointer; the whole message if there is none (`check` refuses that).
    pub fn pointer(&self) -> &str {
        self.pointer.as_deref().unwrap_or_default()
    }

    /// Registers that the value takes; 1 for a bit.
    pub const fn words(&self) -> u16 {
        match self.kind {
            Some(PointKind::U32 | PointKind::I32 | PointKind::F32) => 2,
            Some(PointKind::U64 | PointKind::I64 | PointKind::F64) => 4,
            _ => 1,
        }
    }
}

/// When a message means that something happened.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// The event's name if it is not the rule's: several rules may make the same event.
    pub event: Option<String>,
    /// JSON Pointer to the value that decides. MQTT.
    pub pointer: Option<String>,
    /// The point that decides. Modbus.
    pub point: Option<PointName>,
    /// It happens when the value is this.
    pub equals: Option<Value>,
    /// It happens when the value is one of these. With neither `equals` nor `one_of`, any text that is no reset value
    /// counts, for `pulse` only.
    pub one_of: Option<Vec<Value>>,
    /// `pulse`: every live message with the value is one event. `edge`: the change to the value is.
    pub trigger: Trigger,
    /// For `edge`: so many seconds after the last event the same value counts again without a change in between.
    #[schemars(range(min = 1, max = 86_400))]
    pub rearm_s: Option<u32>,
    /// For `edge`: what the first message after a start of the gateway means.
    #[serde(default)]
    #[schemars(extend("default" = "event"))]
    pub at_start: AtStart,
    /// The event that this one ends.
    pub clears: Option<String>,
    /// What it is about.
    pub category: Category,
    /// How grave it is; an event that calls for nothing has none.
    pub severity: Option<Severity>,
    /// For people.
    pub text: Option<Text>,
    /// Values of the same message that travel with the event: name and JSON Pointer; for Modbus, name and point.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

/// How a value becomes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Each live message is one event.
    Pulse,
    /// The change to the value is one event.
    Edge,
}

/// What the first message after a start means, when nobody knows what was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AtStart {
    /// It is an event: rather one too many than one lost. For emergencies.
    #[default]
    Event,
    /// It is the state that was before: no event. For doors, and for what ends something.
    State,
}

impl Profile {
    /// Whether one of its events is an emergency that somebody waits for: QoS 0 is then worth a warning.
    pub fn emergency(&self) -> bool {
        self.events.values().any(|rule| {
            matches!(rule.category, Category::Emergency | Category::Fire | Category::Fall)
                && rule.severity >= Some(Severity::Major)
        })
    }
}

impl EventRule {
    /// The event's name, given the rule's.
    pub fn name<'a>(&'a self, rule: &'a str) -> &'a str {
        self.event.as_deref().unwrap_or(rule)
    }

    /// The JSON Pointer; the whole message if there is none (`check` refuses that).
    pub fn pointer(&self) -> &str {
        self.pointer.as_deref().unwrap_or_default()
    }

    /// The values that it happens at; nothing where any text counts.
    pub fn wanted(&self) -> Option<&[Value]> {
        self.equals.as_ref().map(std::slice::from_ref).or(self.one_of.as_deref())
    }
}

/// The profiles that come with Gatehouse: name and TOML text. A file of the same name in `profiles_dir` overrides one.
pub const fn shipped() -> &'static [(&'static str, &'static str)] {
    SHIPPED
}

/// The shipped profiles, parsed. That they parse is a test, so an error here is a fault of the build.
pub fn shipped_profiles() -> Result<BTreeMap<ProfileName, Profile>, toml::de::Error> {
    let mut profiles = BTreeMap::new();
    for (name, text) in SHIPPED {
        let name = ProfileName::new(name).map_err(serde::de::Error::custom)?;
        profiles.insert(name, toml::from_str(text)?);
    }
    Ok(profiles)
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../config/profiles/", $name, ".toml")))),*]
    };
}

const SHIPPED: &[(&str, &str)] = shipped![
    "aliyun-speaker",
    "json-sensor",
    "lan-speaker",
    "modbus-button",
    "modbus-contact",
    "modbus-di16",
    "modbus-door",
    "modbus-duress",
    "modbus-exit-button",
    "modbus-fire-contact",
    "modbus-gas",
    "modbus-impact",
    "modbus-loop-button",
    "modbus-smoke-panel",
    "modbus-temp-humidity",
    "mqlinks-speaker",
    "pub6-broadcast",
    "showdoc-tts",
    "waveshare-io8",
    "z2m-bridge",
    "z2m-button-action",
    "z2m-button-sos",
    "z2m-carbon-monoxide",
    "z2m-contact",
    "z2m-gas",
    "z2m-lock",
    "z2m-motion",
    "z2m-smoke",
    "z2m-vibration",
    "z2m-water-leak",
];

fn default_availability_pointer() -> String {
    "/state".to_owned()
}

fn default_online() -> String {
    "online".to_owned()
}

fn default_offline() -> String {
    "offline".to_owned()
}
