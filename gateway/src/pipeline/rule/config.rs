//! Rules as they stand in files: `[[rule]]`. docs/rules.md teaches them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::hours::Hours;
use crate::model::ids::{DeviceId, PointName, ProfileName, RuleName};
use crate::model::place::Place;
use crate::model::record::{Category, Severity, Text, Value};
use crate::pipeline::action::spec::ActionSpec;

/// A file of rules.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Rules.
    #[serde(default)]
    pub rule: Vec<RuleConfig>,
}

/// One rule: what to watch, under which condition and for how long, what to raise and what to do.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, one of its kind in all files.
    pub name: RuleName,
    /// What it is for, for people.
    pub title: Text,
    /// What it watches.
    pub on: On,
    /// An expression (CEL): the rule looks only while it holds. Over `value`, `quality`, `points.NAME`, `params.NAME`,
    /// `device.id`, `.kind`, `.profile`, `.tags`, and `place.building`, `.unit` and so on.
    #[schemars(length(min = 1, max = 1000))]
    pub when: Option<String>,
    /// An expression that ends what `when` began; without it, the condition ends when `when` holds no more.
    #[schemars(length(min = 1, max = 1000))]
    pub until: Option<String>,
    /// The event that ends the condition, where the device's profile does not say so itself (`clears`).
    #[schemars(length(min = 3, max = 64))]
    pub ends: Option<String>,
    /// It must hold for so long.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub for_s: Option<u32>,
    /// It must happen so often within `within_s`.
    #[schemars(range(min = 2, max = 100))]
    pub count: Option<u32>,
    /// The window of `count`.
    #[schemars(range(min = 1, max = 86_400))]
    pub within_s: Option<u32>,
    /// `count` counts devices: several at once, not one several times.
    #[serde(default)]
    pub distinct: bool,
    /// What an alarm of this rule is about: each device, or all those of a place together.
    #[serde(default)]
    #[schemars(extend("default" = "device"))]
    pub per: Per,
    /// Nothing of what it watches for so long.
    #[schemars(range(min = 10, max = 2_678_400))]
    pub absent_s: Option<u32>,
    /// It looks only at this time of the day.
    pub active: Option<Hours>,
    /// It is explained by something else shortly before or after it.
    pub unless: Option<Unless>,
    /// So long after an alarm was raised, the same counts on it and makes no new one.
    #[serde(default = "default_cooldown_s")]
    #[schemars(range(max = 86_400))]
    pub cooldown_s: u32,
    /// The alarm.
    pub raise: RaiseConfig,
    /// What happens when nobody acknowledges.
    pub escalate: Option<Escalate>,
    /// Later than this nothing is done any more; the alarm stands all the same. 30 if not given, 600 for fire.
    #[schemars(range(min = 1, max = 3_600))]
    pub act_within_s: Option<u32>,
    /// What devices are to do.
    #[serde(default, rename = "do")]
    #[schemars(length(max = 8))]
    pub actions: Vec<ActionSpec>,
    /// Cases that `gatehouse check` runs.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub test: Vec<Trial>,
}

/// `on`: an event or a point, and which devices. What is not given selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// An event by name.
    #[schemars(length(min = 3, max = 64))]
    pub event: Option<String>,
    /// A point by name.
    pub point: Option<PointName>,
    /// Devices of this kind; `gateway` is the box itself.
    #[schemars(length(min = 1, max = 32))]
    pub kind: Option<String>,
    /// Devices of this profile.
    pub profile: Option<ProfileName>,
    /// These devices.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub devices: Vec<DeviceId>,
    /// Devices that bear all these tags.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
    /// Devices at this place: what is given must be the same.
    #[serde(default)]
    pub place: Place,
}

/// What belongs together. A device of which the place does not say enough stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Each device by itself.
    #[default]
    Device,
    /// The devices of one household.
    Household,
    /// The devices of one floor of a unit.
    Floor,
    /// The devices of one unit.
    Unit,
    /// The devices of one building.
    Building,
    /// All devices.
    Compound,
}

/// `unless`: one of these events, before or after.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unless {
    /// Events by name.
    #[schemars(length(min = 1, max = 8))]
    pub events: Vec<String>,
    /// So long before it or after it. The alarm waits so long.
    #[schemars(range(min = 1, max = 300))]
    pub within_s: u32,
    /// Where: at the same device, or anywhere at the same place.
    #[serde(default)]
    #[schemars(extend("default" = "device"))]
    pub same: Per,
}

/// `[rule.raise]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaiseConfig {
    /// Name of the alarm, `thing.happened`; the event's if not given.
    #[schemars(length(min = 3, max = 64))]
    pub name: Option<String>,
    /// What it is about.
    pub category: Category,
    /// How grave it is.
    pub severity: Severity,
    /// For people.
    pub text: Text,
    /// A person must reset it, also when the condition is over.
    #[serde(default)]
    pub latched: bool,
    /// Nothing on site may betray it (duress): no speech.
    #[serde(default)]
    pub silent: bool,
}

/// `[rule.escalate]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Escalate {
    /// Nobody has acknowledged it so long.
    #[schemars(range(min = 10, max = 86_400))]
    pub after_s: u32,
    /// Its severity from then on.
    pub to: Severity,
}

/// `[[rule.test]]`: what happens, and when the alarm must come and go.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// What it shows.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Devices by the names that the steps use, where the made-up one that fits the rule (`it`) does not do.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub devices: BTreeMap<DeviceId, TrialDevice>,
    /// The time of the day when it begins, `HH:MM`; if not given, the beginning of `active`.
    pub clock: Option<super::hours::DayTime>,
    /// What happens, in order.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<Step>,
    /// Seconds at which the alarm is raised, each time.
    #[serde(default)]
    pub raised_s: Vec<f64>,
    /// Seconds at which the condition ends, each time.
    #[serde(default)]
    pub cleared_s: Vec<f64>,
}

/// A device of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrialDevice {
    /// Its profile; if not given, one that fits the rule.
    pub profile: Option<ProfileName>,
    /// Its place; if not given, the one that the rule selects, the same for all devices.
    pub place: Option<Place>,
    /// Its tags; if not given, those that the rule selects.
    pub tags: Option<Vec<String>>,
}

/// One thing that happens in a test.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds from the beginning.
    #[schemars(range(min = 0.0, max = 5_356_800.0))]
    pub at_s: f64,
    /// The device: `it` if not given. A name that is not in `devices` is another one like `it`.
    pub device: Option<DeviceId>,
    /// An event happens.
    #[schemars(length(min = 3, max = 64))]
    pub event: Option<String>,
    /// Parameters of the event.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Points tell values.
    #[serde(default)]
    pub points: BTreeMap<PointName, Value>,
}

const fn default_cooldown_s() -> u32 {
    60
}
