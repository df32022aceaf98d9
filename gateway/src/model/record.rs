//! What flows: drafts come from the south, records stand in the journal, the north sends them.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

pub use super::alarm::{Alarm, AlarmState};
use super::ids::{BusName, DeviceId, Epoch, PointName, Pos, ProfileName, Seq, UplinkName};
use super::place::Place;
use super::stamp::Stamp;

/// The class of a record: each has a gapless sequence, a budget and its own streams to each uplink.
/// In order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A change in the life of an alarm.
    Alarm,
    /// Something happened. Gap records are events too.
    Event,
    /// Values.
    Telemetry,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Alarm, Self::Event, Self::Telemetry];

    /// The class as it stands in record ids, file columns and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Event => "event",
            Self::Telemetry => "telemetry",
        }
    }
}

/// What an event is about. Platforms must take unknown categories (enumerations are open).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    Access,
    Emergency,
    Fall,
    Intrusion,
    Fire,
    Vehicle,
    Care,
    Device,
}

impl Category {
    pub const ALL: [Self; 8] = [
        Self::Access,
        Self::Emergency,
        Self::Fall,
        Self::Intrusion,
        Self::Fire,
        Self::Vehicle,
        Self::Care,
        Self::Device,
    ];

    /// The category as it stands in topics and columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Emergency => "emergency",
            Self::Fall => "fall",
            Self::Intrusion => "intrusion",
            Self::Fire => "fire",
            Self::Vehicle => "vehicle",
            Self::Care => "care",
            Self::Device => "device",
        }
    }
}

/// Perceived severity (ITU-T X.733). An event that calls for nothing has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Minor,
    Major,
    Critical,
}

impl Severity {
    /// As people read it: Chinese and English.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Critical => ("紧急", "critical"),
            Self::Major => ("重要", "major"),
            Self::Minor => ("次要", "minor"),
            Self::Warning => ("提示", "warning"),
        }
    }
}

/// A value of a point. Numbers are finite.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
}

/// By hand, since each record is read back once for each uplink: the derived way tries one variant after the other and
/// words an error for each that does not fit.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("true, false, a number or a text")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "beyond 63 bits a number is a float, as in JSON")]
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }
}

/// How good a value is (promise G11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    Good,
    Uncertain,
    Stale,
    Bad,
}

/// Why a value is less than good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QualityReason {
    /// Nothing was heard for longer than the device promises.
    Silent,
    /// The device can be reached no more.
    Offline,
    /// The line to the device failed.
    LineFailed,
    /// The device answered that it cannot say.
    DeviceFailed,
    /// Outside what makes sense for the point.
    OutOfRange,
    /// No number: NaN or infinite.
    NotFinite,
    /// The loop of a supervised input is open: a cut wire.
    OpenCircuit,
    /// The loop of a supervised input is short-circuited.
    ShortCircuit,
    /// An external broker had kept it: it may be old.
    Kept,
}

/// A text for people, in both languages. Codes and parameters travel beside it; it is extra.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Chinese.
    #[schemars(length(min = 1, max = 200))]
    pub zh: String,
    /// English.
    #[schemars(length(min = 1, max = 200))]
    pub en: String,
}

/// The device a record comes from. The gateway itself is the device `gateway` of kind `gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRef {
    pub id: DeviceId,
    /// What it is: `button`, `contact`, `smoke` … as its profile says.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusName>,
}

impl DeviceRef {
    /// The gateway itself, on whose behalf a bus or a part of the house speaks. No configured device is like it: those
    /// have a profile.
    pub fn gateway(bus: Option<&BusName>) -> Self {
        let id =
            DeviceId::new("gateway").unwrap_or_else(|error| unreachable!("`gateway` is a name: {error}"));
        Self { id, kind: "gateway".to_owned(), profile: None, bus: bus.cloned() }
    }

    /// Whether it is the gateway itself.
    pub fn is_gateway(&self) -> bool {
        self.kind == "gateway" && self.profile.is_none()
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub device: DeviceRef,
    pub place: Place,
    pub category: Category,
    /// What happened, as `thing.happened` in lower case: `button.pressed`, `store.reset`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// One value of one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub point: PointName,
    /// None: there is no value that could be told, and `reason` says why.
    pub value: Option<Value>,
    pub quality: Quality,
    /// Why the quality is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<QualityReason>,
    /// How long before the record's time the value was taken, milliseconds: a repeated value keeps its own time
    /// (promise G11).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(age_ms: &u64) -> bool {
    *age_ms == 0
}

impl Sample {
    /// A good value, taken at the record's time.
    pub const fn good(point: PointName, value: Value, unit: Option<String>) -> Self {
        Self { point, value: Some(value), quality: Quality::Good, reason: None, age_ms: 0, unit }
    }
}

/// Values of one device, told at the record's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    pub device: DeviceRef,
    pub place: Place,
    pub samples: Vec<Sample>,
}

/// Why records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The platform refused the record for its own sake, again and again.
    Refused,
    /// The record does not fit a message.
    TooLarge,
    /// The stored bytes could not be read back.
    Unreadable,
    /// Thinned or dropped for space.
    Forgotten,
    /// Older than the retention time.
    Expired,
}

/// Records that an uplink will not get, and why: itself a record, and delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The uplink concerned; none when the records are gone for every uplink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkName>,
    /// The epoch of the missing records; none: that of the gap record itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    pub class: Class,
    pub from: Seq,
    pub to: Seq,
    /// How many records of the range are missing.
    pub count: u64,
    pub reason: GapReason,
    /// The platform's reason code or the error, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    Alarm(Box<Alarm>),
    Event(Box<Event>),
    Telemetry(Telemetry),
    Gap(Gap),
}

impl Body {
    /// The class is decided by the body; gap records are events.
    pub const fn class(&self) -> Class {
        match self {
            Self::Alarm(_) => Class::Alarm,
            Self::Event(_) | Self::Gap(_) => Class::Event,
            Self::Telemetry(_) => Class::Telemetry,
        }
    }

    /// The category, where the body has one. Gap records go to every uplink that may see what is missing.
    pub fn category(&self) -> Option<Category> {
        match self {
            Self::Alarm(alarm) => Some(alarm.raised.category),
            Self::Event(event) => Some(event.category),
            Self::Telemetry(_) | Self::Gap(_) => None,
        }
    }

    pub fn device(&self) -> Option<&DeviceRef> {
        match self {
            Self::Alarm(alarm) => Some(&alarm.raised.device),
            Self::Event(event) => Some(&event.device),
            Self::Telemetry(telemetry) => Some(&telemetry.device),
            Self::Gap(_) => None,
        }
    }

    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Alarm(alarm) => Some(&alarm.raised.place),
            Self::Event(event) => Some(&event.place),
            Self::Telemetry(telemetry) => Some(&telemetry.place),
            Self::Gap(_) => None,
        }
    }
}

/// A record before the journal has numbered it.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub at: Stamp,
    /// Under walk test, drill or maintenance: goes to `up/test/…` only, and calls nobody.
    pub test: bool,
    /// A key that the device sends to mark a repeated message: the second with the same key is not stored.
    pub dedup: Option<String>,
    pub body: Body,
}

impl Draft {
    /// What the gateway tells of itself, or of one of its buses.
    pub fn of_gateway(
        at: &Stamp,
        bus: Option<&BusName>,
        (name, severity): (&str, Option<Severity>),
        params: BTreeMap<String, Value>,
        text: Text,
    ) -> Self {
        let event = Event {
            device: DeviceRef::gateway(bus),
            place: Place::default(),
            category: Category::Device,
            name: name.to_owned(),
            severity,
            params,
            text: Some(text),
        };
        Self { at: at.clone(), test: false, dedup: None, body: Body::Event(Box::new(event)) }
    }
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub pos: Pos,
    pub epoch: Epoch,
    pub class: Class,
    pub seq: Seq,
    pub at: Stamp,
    pub test: bool,
    pub body: Body,
}

impl Record {
    /// The identity that no other record of any box ever has: `epoch-class-seq`.
    pub fn id(&self) -> String {
        format!("{}-{}-{}", self.epoch, self.class.as_str(), self.seq)
    }
}
