//! What rules remember: rows by rule and subject.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::config::{Per, RuleConfig};
use crate::model::place::Place;
use crate::model::record::{Event, Quality, Value};
use crate::model::stamp::Stamp;
use crate::pipeline::table::Row;

/// Where one rule stands with one subject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Devices for which the condition holds now, unexplained.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) holding: BTreeSet<String>,
    /// Devices whose values fulfil it still, though something else has explained it: it begins again only after its end.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) explained: BTreeSet<String>,
    /// For `count`: when it happened, and where. The latest last, not more than must come together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) hits: Vec<Hit>,
    pub(super) phase: Phase,
    /// What began it: where the rule watches something else now, nothing would end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
}

/// Once that it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hit {
    pub(super) t_ms: u64,
    pub(super) device: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    #[default]
    Quiet,
    /// It is raised at `due_ms` if nothing ends or explains it before.
    Waiting(Box<Waiting>),
    Raised,
    /// For `absent`: silence is told at `due_ms`.
    Listening {
        due_ms: u64,
        device: String,
    },
    /// Hits are forgotten at `due_ms`.
    Forgetting {
        due_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) due_ms: u64,
    /// When it arose.
    pub(super) at: Stamp,
    pub(super) condition: Event,
    /// It waits for an explanation only: that it ends meanwhile takes nothing back.
    #[serde(default)]
    pub(super) firm: bool,
    /// When it arose, in the pipeline's time: from then on counts the time in which it can still be explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) begun_ms: Option<u64>,
}

impl Waiting {
    /// Until when it can still be explained, if by anything.
    pub(super) fn explained_until_ms(&self, config: &RuleConfig) -> Option<u64> {
        let within_ms = u64::from(config.unless.as_ref()?.within_s).saturating_mul(1_000);
        Some(self.begun_ms?.saturating_add(within_ms))
    }
}

impl Row for Standing {
    fn due_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Quiet | Phase::Raised => None,
            Phase::Waiting(waiting) => Some(waiting.due_ms),
            Phase::Listening { due_ms, .. } | Phase::Forgetting { due_ms } => Some(*due_ms),
        }
    }
}

/// When something was last seen that explains a rule's condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) t_ms: u64,
    /// When it explains nothing any more.
    pub(super) due_ms: u64,
}

impl Row for Seen {
    fn due_ms(&self) -> Option<u64> {
        Some(self.due_ms)
    }
}

/// The last value of a point that expressions of other points need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) value: Value,
    pub(super) quality: Quality,
}

impl Row for Kept {}

/// The key of a rule's row. What is under test has rows of its own.
pub(super) fn key(rule: &str, test: bool, subject: &str) -> String {
    let mark = if test { "!" } else { "" };
    format!("{rule}{mark}/{subject}")
}

/// Both keys of a rule's subject: of what is real, and of what is under test.
pub(super) fn keys(rule: &str, subject: &str) -> [String; 2] {
    [false, true].map(|test| key(rule, test, subject))
}

/// Rule, test and subject of a key.
pub(super) fn parts(key: &str) -> Option<(&str, bool, &str)> {
    let (rule, subject) = key.split_once('/')?;
    Some(match rule.strip_suffix('!') {
        Some(rule) => (rule, true, subject),
        None => (rule, false, subject),
    })
}

/// What an alarm is about: a device, or a place. A device of which nobody said where it is is near no other: it is a
/// subject of its own.
pub(super) fn subject(per: Per, device: &str, place: &Place) -> String {
    let word = match per {
        Per::Device => return device.to_owned(),
        Per::Household => "household",
        Per::Floor => "floor",
        Per::Unit => "unit",
        Per::Building => "building",
        Per::Compound => return "compound".to_owned(),
    };
    let parts: Option<Vec<String>> = needs(per).iter().map(|part| part_of(place, part)).collect();
    parts.map_or_else(|| device.to_owned(), |parts| format!("{word} {}", parts.join("/")))
}

/// The parts of a place that must be known for devices to belong together.
pub(super) const fn needs(per: Per) -> &'static [&'static str] {
    match per {
        Per::Device | Per::Compound => &[],
        Per::Building => &["building"],
        Per::Unit => &["building", "unit"],
        Per::Floor => &["building", "unit", "floor"],
        Per::Household => &["building", "unit", "household"],
    }
}

/// A part of a place, if it is known.
pub(super) fn part_of(place: &Place, part: &str) -> Option<String> {
    match part {
        "building" => place.building.clone(),
        "unit" => place.unit.clone(),
        "floor" => place.floor.map(|floor| floor.to_string()),
        "household" => place.household.clone(),
        _ => None,
    }
}
