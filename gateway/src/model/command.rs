//! What a platform or a person at the box may order, whoever carried it here; and orders about alarms as the records by
//! which the pipeline learns of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::action::own;
use super::alarm::HandlingResult;
use super::ids::{DeviceId, PointName, UplinkName};
use super::place::Place;
use super::record::{Category, Draft, Record, Text, Value};
use super::stamp::Stamp;

/// Name of the event that carries an order about an alarm.
pub const ALARM_ORDERED: &str = "alarm.ordered";
/// Name of the event by which the pipeline learns that time has passed while nothing happened. It goes to nobody.
pub const TICK: &str = "pipeline.tick";

/// Who orders, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The operator as the platform names them, or the local user.
    pub operator: String,
    pub source: Origin,
    pub reason: String,
}

/// Where an order comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Platform(UplinkName),
    /// The local socket of the box.
    Console,
}

impl Origin {
    /// As it stands in records.
    pub fn text(&self) -> String {
        match self {
            Self::Platform(name) => format!("platform {name}"),
            Self::Console => "console".to_owned(),
        }
    }
}

/// What to do with an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum AlarmVerb {
    Acknowledge,
    Assign {
        assignee: String,
    },
    Handle {
        result: HandlingResult,
        #[serde(default)]
        note: String,
    },
    Close,
    /// Put aside for a time; it raises nothing meanwhile.
    Shelve {
        for_s: u64,
    },
    Unshelve,
    TakeOutOfService,
    ReturnToService,
}

/// An order about one alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmOrder {
    /// The command's id, unlike any other.
    pub command: String,
    pub alarm: String,
    /// The revision that the orderer has seen; an older one than the alarm's is refused. None: whatever it is now.
    #[serde(default)]
    pub rev: Option<u64>,
    pub verb: AlarmVerb,
    pub actor: Actor,
}

/// What became of an order about an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done; the alarm has this revision now.
    Done { rev: u64 },
    /// It was so already; nothing changed.
    Already { rev: u64 },
    /// No such alarm is open.
    Unknown,
    /// The orderer has an older revision: this is the alarm's.
    Outdated { rev: u64 },
    /// It makes no sense in the alarm's state: why.
    Impossible(String),
}

impl AlarmOrder {
    /// The record by which the pipeline gets it. Its key sees to it that it counts once.
    pub fn draft(&self, at: &Stamp) -> Draft {
        let whole = serde_json::to_string(self).unwrap_or_default();
        let params = BTreeMap::from([
            ("alarm".to_owned(), Value::Text(self.alarm.as_str().into())),
            ("command".to_owned(), Value::Text(self.command.as_str().into())),
            ("source".to_owned(), Value::Text(self.actor.source.text().into())),
            ("order".to_owned(), Value::Text(whole.into())),
        ]);
        let text = Text { zh: "处置报警".to_owned(), en: "an alarm is handled".to_owned() };
        let mut draft = Draft::of_gateway(at, None, (ALARM_ORDERED, None), params, text);
        draft.dedup = Some(format!("order {}", self.command));
        draft
    }

    /// Reads it back from its record.
    pub fn read(record: &Record) -> Option<Self> {
        let event = own(record, ALARM_ORDERED)?;
        let Some(Value::Text(whole)) = event.params.get("order") else { return None };
        serde_json::from_str(whole).ok()
    }
}

/// The record that says that time has passed.
pub fn tick(at: &Stamp) -> Draft {
    let text = Text { zh: "计时".to_owned(), en: "time has passed".to_owned() };
    Draft::of_gateway(at, None, (TICK, None), BTreeMap::new(), text)
}

/// Whether the record is a tick.
pub fn is_tick(record: &Record) -> bool {
    own(record, TICK).is_some()
}

/// What may be ordered beside what the uplink does by itself (replay).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verb")]
pub enum Verb {
    Alarm {
        alarm: String,
        #[serde(default)]
        rev: Option<u64>,
        act: AlarmVerb,
    },
    /// On speakers by id, or by tag.
    Speak {
        speakers: Vec<DeviceId>,
        #[serde(default)]
        tags: Vec<String>,
        text: Option<String>,
        clip: Option<String>,
        volume: u8,
        repeat: u8,
    },
    Hush {
        speakers: Vec<DeviceId>,
        #[serde(default)]
        tags: Vec<String>,
    },
    OpenDoor {
        door: DeviceId,
    },
    /// Take back a release that a fire had held.
    ResetDoor {
        door: DeviceId,
    },
    Relay {
        device: DeviceId,
        point: PointName,
        on: bool,
        for_ms: Option<u32>,
    },
    Set {
        device: DeviceId,
        point: PointName,
        value: Value,
    },
    /// The open alarms.
    Snapshot,
    /// A support bundle without secrets.
    Diagnose,
    /// A rule file on probation; the answer tells what it would have raised.
    PutRules {
        name: String,
        toml: String,
    },
}

impl AlarmVerb {
    /// The command's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Acknowledge => "alarm.acknowledge",
            Self::Assign { .. } => "alarm.assign",
            Self::Handle { .. } => "alarm.handle",
            Self::Close => "alarm.close",
            Self::Shelve { .. } => "alarm.shelve",
            Self::Unshelve => "alarm.unshelve",
            Self::TakeOutOfService => "alarm.out_of_service",
            Self::ReturnToService => "alarm.in_service",
        }
    }
}

impl Verb {
    /// The command's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Alarm { act, .. } => act.name(),
            Self::Speak { .. } => "speak",
            Self::Hush { .. } => "speak.stop",
            Self::OpenDoor { .. } => "door.open",
            Self::ResetDoor { .. } => "door.reset",
            Self::Relay { .. } => "relay",
            Self::Set { .. } => "set",
            Self::Snapshot => "snapshot",
            Self::Diagnose => "diagnose",
            Self::PutRules { .. } => "rules.put",
        }
    }
}

/// What an orderer may touch. What lies outside does not exist for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Buildings; none: everywhere. With a list, what has no building lies outside.
    pub buildings: Option<BTreeSet<String>>,
    /// Categories of alarms; none: all.
    pub categories: Option<BTreeSet<Category>>,
}

impl Scope {
    /// Whether everything lies within.
    pub const fn is_whole(&self) -> bool {
        self.buildings.is_none() && self.categories.is_none()
    }

    /// Whether this place lies within.
    pub fn covers(&self, place: &Place) -> bool {
        let Some(buildings) = &self.buildings else { return true };
        place.building.as_ref().is_some_and(|building| buildings.contains(building))
    }

    /// Whether alarms of this category lie within.
    pub fn admits(&self, category: Category) -> bool {
        self.categories.as_ref().is_none_or(|categories| categories.contains(&category))
    }
}

/// An order that was authorised, judged in time, and remembered: to be carried out once.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Unlike any other of any source: `UPLINK/ID`, or `console/ID`.
    pub id: String,
    pub verb: Verb,
    pub actor: Actor,
    pub scope: Scope,
    pub at: Stamp,
    /// How long it is good for, from `at`.
    pub lifetime_ms: u64,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Done,
    Failed,
    Rejected,
    Expired,
    /// A crash or a lost line fell between act and record.
    Unknown,
}

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub end: End,
    /// `relay_pulsed` and `contact_opened` are different answers: what is known to have happened, or why not.
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Whoever carries out orders.
#[async_trait]
pub trait Perform: Send + Sync + Debug {
    async fn perform(&self, order: Order) -> Done;
}

/// A box without a desk: nothing is carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDesk;

#[async_trait]
impl Perform for NoDesk {
    async fn perform(&self, _order: Order) -> Done {
        let detail = "this box carries out no orders".to_owned();
        Done { end: End::Rejected, code: "not_possible".to_owned(), detail, data: None }
    }
}

/// What became of a rule file that somebody sent.
#[derive(Debug, Clone, PartialEq)]
pub enum RulesPut {
    /// It is in place; what it would have raised in the past, and from when on it works.
    Taken { rehearsal: serde_json::Value, detail: String },
    /// It has mistakes; nothing was changed.
    Refused { findings: Vec<String> },
}

/// Whoever keeps the rules of the box.
#[async_trait]
pub trait RuleBook: Send + Sync + Debug {
    /// Checks a rule file, tries it on the past, and puts it in place.
    async fn put(&self, name: &str, toml: &str) -> Result<RulesPut, String>;
}
