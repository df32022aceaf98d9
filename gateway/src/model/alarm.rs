//! Alarms: conditions with a life (ISA-18.2 / IEC 62682), and what people do about them.
//!
//! Each change makes one record with the whole state after it, so that any single message suffices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{DeviceId, RuleName};
use super::record::{Event, Severity};
use super::stamp::Stamp;

/// State of an alarm (ISA-18.2 / IEC 62682).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// Over: neither the condition nor anybody's task is left.
    Normal,
    Unacknowledged,
    Acknowledged,
    /// The condition has ended, and nobody has acknowledged that it was there.
    ReturnedUnacknowledged,
    /// Put aside by a person for a time.
    Shelved,
    /// Put aside by a person until they take it back.
    OutOfService,
}

/// A change in the life of an alarm, with the whole state after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts apart from each other, as they stand in records")]
pub struct Alarm {
    /// Identity of the condition over its whole life.
    pub alarm: String,
    /// Grows with each change; the highest is the truth.
    pub rev: u64,
    pub state: AlarmState,
    /// The condition as it was raised.
    pub raised: Event,
    /// Whether a person must reset it.
    #[serde(default)]
    pub latched: bool,
    /// Marks an alarm that acted while the disk could not be written.
    #[serde(default)]
    pub volatile: bool,
    /// When the condition came first. None: raised by an earlier release, or by nobody's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arose: Option<Stamp>,
    /// When a shelved alarm comes back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_until: Option<Stamp>,
    /// The rule that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// Whether the condition holds now. What happened at once and is over, a press, does not hold.
    #[serde(default)]
    pub active: bool,
    /// Severity now, where it has changed since it was raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How often it was raised, the first time included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u64,
    /// It comes and goes too often to be told each time; until it is calm it counts as holding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    #[serde(default, skip_serializing_if = "Handling::is_none")]
    pub handling: Handling,
    /// What made this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Devices that cannot be heard because of it, and raise nothing of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hides: Vec<DeviceId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Alarm {
    /// An alarm as it is raised by nobody's rule, with a life of nothing but this.
    pub fn new(alarm: String, state: AlarmState, raised: Event) -> Self {
        Self {
            alarm,
            rev: 1,
            state,
            raised,
            latched: false,
            volatile: false,
            arose: None,
            shelved_until: None,
            rule: None,
            active: false,
            severity: None,
            count: 0,
            flapping: false,
            handling: Handling::default(),
            change: None,
            hides: Vec::new(),
        }
    }

    /// Severity now.
    pub fn severity(&self) -> Option<Severity> {
        self.severity.or(self.raised.severity)
    }

    pub const fn is_open(&self) -> bool {
        !matches!(self.state, AlarmState::Normal)
    }
}

/// What people do about an alarm, beside acknowledging it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    #[serde(default)]
    pub stage: Stage,
    /// Who is to see to it: a role or a number, never a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<HandlingResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Handling {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How far handling has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Nobody has taken it.
    #[default]
    Open,
    Assigned,
    /// Somebody was there and said what it was.
    Handled,
    Closed,
}

/// What an alarm turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandlingResult {
    /// It was what it said (属实).
    Genuine,
    /// A false alarm (误报).
    False,
    /// A test or a drill (测试).
    Test,
    /// The same as another alarm (重复).
    Duplicate,
    /// Given to somebody else: the fire brigade, the police, a doctor (转办).
    Transferred,
    /// Nobody and nothing was found (未发现异常).
    Nothing,
}

/// What made a revision: who did what, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub what: ChangeKind,
    /// Who: an operator as a platform names them, or `rule NAME`.
    pub actor: String,
    /// From where: `platform NAME`, `console`, `rule`.
    pub source: String,
    /// The command that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Raised,
    /// Raised again while it was open.
    RaisedAgain,
    /// The condition has ended.
    Returned,
    Acknowledged,
    Assigned,
    Handled,
    Closed,
    Shelved,
    /// Its time on the shelf is over, or somebody took it down.
    Unshelved,
    OutOfService,
    InService,
    /// Nobody has acknowledged it in time: its severity has grown.
    Escalated,
    /// It comes and goes too often to be told each time.
    Flapping,
    /// It has stopped coming and going.
    Calmed,
    /// Too many are open: it went on in the flood alarm.
    Folded,
}
