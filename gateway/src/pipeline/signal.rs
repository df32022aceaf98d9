//! What rules, care and supervision tell the book of alarms.

use serde::{Deserialize, Serialize};

use crate::model::ids::{DeviceId, RuleName};
use crate::model::record::{Event, Severity};
use crate::model::stamp::Stamp;

use super::action::spec::ActionSpec;

/// A condition has come, or has gone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signal {
    Raise(Box<Raise>),
    Clear(Clear),
}

/// A condition that calls for an alarm. The book keeps it in a row where it has to wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Raise {
    pub(super) rule: RuleName,
    /// What the rule watches here: a device, a place, a household. A rule has at most one open alarm for each.
    pub(super) subject: String,
    /// When it arose.
    pub(super) at: Stamp,
    /// The alarm's device, place, category, name, severity, parameters and text.
    pub(super) condition: Event,
    /// It lasts until a [`Clear`] comes. Otherwise it happened at once and is over.
    pub(super) lasts: bool,
    /// A person must reset it, also when the condition is over.
    pub(super) latched: bool,
    /// So long after the alarm was raised, the same counts on the open alarm, or raises none if that one is closed.
    pub(super) cooldown_ms: u64,
    pub(super) escalate: Option<Escalation>,
    pub(super) actions: Vec<ActionSpec>,
    /// Later than this after `at`, the alarm stands and nothing is done.
    pub(super) act_within_ms: u64,
    /// Devices that this condition explains: their own silence raises nothing while it lasts.
    pub(super) hides: Vec<DeviceId>,
    pub(super) test: bool,
}

/// What happens when nobody acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Escalation {
    pub(super) after_ms: u64,
    pub(super) to: Severity,
}

/// The condition is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clear {
    pub(super) rule: RuleName,
    pub(super) subject: String,
    pub(super) at: Stamp,
    pub(super) test: bool,
}
