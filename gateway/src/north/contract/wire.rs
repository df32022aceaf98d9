//! What stands in messages, as a platform reads it: the types behind the JSON Schemas. They tolerate unknown fields
//! and unknown members of enumerations, so that they read the messages of later releases.
//!
//! The doc comments become descriptions in the schemas: they speak to a platform's engineer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::alarm::{ChangeKind, HandlingResult, Stage};
use crate::model::record::{
    self, AlarmState, Category, Class, GapReason, Quality, QualityReason, Severity, Value,
};
use crate::model::stamp::ClockTrust;

pub use super::scalars::{Millis, Open, Sequence};

/// Where it is. Fields that the data-sharing list hides are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Place {
    /// Administrative code (行政区划代码), 6 to 20 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{6,20}$"))]
    pub code: Option<String>,
    /// Grid (网格).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<String>,
    /// Building (楼栋).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub building: Option<String>,
    /// Unit, that is staircase (单元).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Floor (楼层); negative below ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<i16>,
    /// Household (户): a number or code, or a pseudonym (`p-` and 32 hexadecimal digits), never a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub household: Option<String>,
}

/// The device it comes from; the gateway itself is the device `gateway` of kind `gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Its name, unique within the gateway.
    pub id: String,
    /// What it is: `button`, `contact`, `smoke` …; open.
    pub kind: String,
    /// The device profile (model) that describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The bus or listener it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
}

impl From<&record::DeviceRef> for Device {
    fn from(device: &record::DeviceRef) -> Self {
        Self {
            id: device.id.to_string(),
            kind: device.kind.clone(),
            profile: device.profile.as_ref().map(ToString::to_string),
            bus: device.bus.as_ref().map(ToString::to_string),
        }
    }
}

/// A text for people. Codes and parameters are what programs read; the text is extra.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// Chinese.
    pub zh: String,
    /// English.
    pub en: String,
}

impl From<&record::Text> for Text {
    fn from(text: &record::Text) -> Self {
        Self { zh: text.zh.clone(), en: text.en.clone() }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The compound (小区).
    pub compound: String,
    pub device: Device,
    pub place: Place,
    /// What it is about; the same as the topic's last level.
    pub category: Open<Category>,
    /// What happened, as `thing.happened`: `button.pressed`; open.
    pub name: String,
    /// Perceived severity (X.733); absent when it calls for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Open<Severity>>,
    /// Parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// The whole state of one alarm. Keep the one with the highest `rev`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "facts apart from each other, as platforms read them")]
pub struct Alarm {
    /// The compound (小区).
    pub compound: String,
    /// The alarm's identity over its whole life.
    pub alarm: String,
    /// Grows with each change; a lower one than you have is old, whatever the order of arrival.
    pub rev: u64,
    /// Where it is in its life (ISA-18.2).
    pub state: Open<AlarmState>,
    /// Whether it is open. Decide by this, so that a state added later is understood.
    pub open: bool,
    /// Whether it stays until a person resets it.
    pub latched: bool,
    /// Whether it acted while the box's disk could not be written.
    pub volatile: bool,
    pub device: Device,
    pub place: Place,
    /// What it is about.
    pub category: Open<Category>,
    /// The condition, as `thing.happened`; open.
    pub name: String,
    /// Perceived severity (X.733), as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Open<Severity>>,
    /// Parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// Severity when it was raised, where it has grown since because nobody acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity_raised: Option<Open<Severity>>,
    /// When the condition came first; absent where an earlier release has raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arose: Option<Moment>,
    /// When a shelved alarm comes back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_until: Option<Moment>,
    /// The rule that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whether the condition holds now. What happened at once and is over, a press, does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// How often the condition came, the first time included. Not every time makes a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Comes and goes too often to be told each time; it counts as holding until it is calm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// What people do about it, beside acknowledging; absent: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handling: Option<Handling>,
    /// What made this `rev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Devices that cannot be heard because of it, and raise nothing of their own; not always all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hides: Vec<String>,
}

/// A moment of the past, told as a message tells its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// Absent where the box's clock was not trusted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<String>,
    /// The box's boot.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub bootid: String,
    /// Milliseconds since that boot.
    pub monotonic: Millis,
    /// How far the clock was trusted.
    pub clocktrust: Open<ClockTrust>,
}

/// What people do about an alarm. Words of people (`assignee`, `note`) are absent where households are hidden from you or
/// travel as pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Handling {
    /// How far it has come.
    pub stage: Open<Stage>,
    /// Who is to see to it: a role or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// What it turned out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Open<HandlingResult>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What made a revision. Where households are hidden from you or travel as pseudonyms, `actor`, `reason` and `command` are
/// there only if you gave the order yourself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What was done or happened.
    pub what: Open<ChangeKind>,
    /// Who: an operator as a platform names them, or `rule NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// From where: `platform NAME` (the uplink's name at the box), `console`, `rule`.
    pub source: String,
    /// The command that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Records that you will not get, and why: what is in the range and has not reached you is no longer a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The compound (小区).
    pub compound: String,
    /// The epoch of the missing records: not always the envelope's.
    #[schemars(regex(pattern = r"^[0-9a-f]{16}$"))]
    pub epoch: String,
    /// The class of the missing records. The gap record itself is numbered as an event.
    pub class: Open<Class>,
    /// First number of the range.
    pub from: Sequence,
    /// Last number of the range.
    pub to: Sequence,
    /// How many records of the range are missing.
    pub count: u64,
    /// Why.
    pub reason: Open<GapReason>,
    /// The refusing reason code or the error, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One or more records of values. All of a message share epoch, boot, clock trust and `test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Telemetry {
    /// The compound (小区).
    pub compound: String,
    /// In the order of their numbers; the envelope's `sequence` is the last one's, its `previous` is the number before
    /// the first one's. Between two of them there is no other record for you.
    #[schemars(length(min = 1))]
    pub records: Vec<TelemetryRecord>,
}

/// Values of one device that were taken at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TelemetryRecord {
    /// `epoch-telemetry-number`: de-duplicate by this, not by the message's `id`.
    pub id: String,
    /// The record's number.
    pub sequence: Sequence,
    /// When the values were taken; absent when the clock was not trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<String>,
    /// The same by the box's own clock: milliseconds since its boot.
    pub monotonic: Millis,
    pub device: Device,
    pub place: Place,
    pub samples: Vec<Sample>,
}

/// One value of one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The value's or input's name.
    pub point: String,
    /// Null where there is no value that could be told: `reason` says why.
    pub value: Option<Value>,
    /// How good it is.
    pub quality: Open<Quality>,
    /// Why it is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Open<QualityReason>>,
    /// How long before the record's time the value was taken, milliseconds; absent: at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Its unit, as UCUM or plain: `Cel`, `%`, `V`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Numbers `from` to `to`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    pub from: Sequence,
    pub to: Sequence,
}

/// What the gateway says of itself and of what it still has to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// The compound (小区).
    pub compound: String,
    /// Number of the connection, growing within an epoch. Ignore a state whose (`conn`, `rev`) is lower than the
    /// highest you have of the same epoch: it is late.
    pub conn: u64,
    /// Number of the state within the connection; the last word of a connection (goodbye or will) has 2147483647.
    pub rev: u64,
    /// Whether the gateway is connected.
    pub online: bool,
    /// Why this state was sent.
    pub reason: Open<super::status::StateReason>,
    /// The contract's version. A minor number higher than you know means added fields.
    pub contract: String,
    /// The software's version.
    pub version: String,
    /// When a record counts as delivered.
    pub delivery: Open<DeliveryLevel>,
    /// When the gateway's process started; absent when the clock was not trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub started: Option<String>,
    /// Seconds since the gateway's process started; absent in the will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_s: Option<u64>,
    pub clock: Clock,
    /// By class, what was sent and what is still to come; absent when the gateway is not online.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Progress>,
    /// Commands that this gateway understands.
    pub commands: Vec<String>,
    /// What you may see.
    pub shared: Shared,
}

/// When a record counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryLevel {
    /// On the broker's PUBACK.
    Broker,
    /// On your `down/receipt`.
    Receipt,
}

/// One class of records as it stands for you.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The highest number below `live_from` that you may see; 0: none.
    pub last: Sequence,
    /// Records from this number on come in the live stream of this connection (`replay` false).
    pub live_from: Sequence,
    /// Still to come in the backlog stream (`replay` true). A number up to `last` that is neither here nor with you,
    /// nor in a gap record, was delivered before: ask for it with the command `replay` if you miss it. After a change
    /// of epoch the ranges excuse numbers of the epoch before as well: a forked journal's numbers go on.
    pub pending: Vec<Range>,
}

/// The box's clock, and how to mend times that you stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// How far the clock can be trusted now.
    pub trust: Open<ClockTrust>,
    /// Wall time of the envelope's boot: milliseconds since 1970 = `monotonic` + this. Absent when not trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_ms: Option<i64>,
    /// The same for boots whose records were stamped with a lower trust. Time of such a record = its `monotonic` +
    /// `offset_ms` of its `bootid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<BootOffset>,
    /// The gateway asks for the time: answer on `down/time` with this nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Wall time of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootOffset {
    pub bootid: String,
    /// Milliseconds since 1970 = `monotonic` + this.
    pub offset_ms: i64,
    /// How far this can be trusted. It mends records whose `clocktrust` is lower.
    pub trust: Open<ClockTrust>,
}

/// What the data-sharing list (数据共享清单) lets you see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shared {
    /// Classes of records; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<Open<Class>>>,
    /// Categories of events and alarms; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<Open<Category>>>,
    /// Number of buildings you see; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buildings: Option<u32>,
    /// Fields of `place` that are left out.
    pub hidden: Vec<String>,
    /// Whether households and cards travel as pseudonyms.
    pub pseudonyms: bool,
}

/// One page of the snapshot that follows each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The compound (小区).
    pub compound: String,
    /// The same on all pages of one snapshot.
    pub snapshot: String,
    /// The connection it belongs to.
    pub conn: u64,
    /// From 1.
    pub page: u32,
    pub pages: u32,
    /// By class, the last number that you may see at the moment of the snapshot; 0: none yet.
    pub last: BTreeMap<String, Sequence>,
    /// Open alarms of this page. An alarm that is on no page of a complete snapshot is closed, unless the last message
    /// you have of it bears a number above `last.alarm`.
    pub alarms: Vec<SnapshotAlarm>,
}

/// An open alarm, in short. Its whole state comes on `up/alarm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotAlarm {
    pub alarm: String,
    pub rev: u64,
    pub state: Open<AlarmState>,
    pub category: Open<Category>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Open<Severity>>,
    /// The device concerned.
    pub device: String,
    /// Number of the alarm record that holds this `rev`.
    pub sequence: Sequence,
    /// The rule that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whether the condition holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// How often the condition came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How far handling has come; absent: nobody has taken it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Open<Stage>>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The compound (小区).
    pub compound: String,
    /// The command's id.
    pub command_id: String,
    /// What was asked; empty when that could not be read.
    pub command: String,
    pub outcome: Open<super::status::Outcome>,
    /// Whether this is the last word on the command. Decide by this, so that an outcome added later is understood.
    pub last: bool,
    /// Reason code; open.
    pub code: String,
    /// The reason, for a person.
    pub detail: String,
    /// What the command gave, by command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// Whether `data` was left out because it did not fit a message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}
