//! The book of alarms: their life by ISA-18.2, what people do about them, supervision and floods. Pure.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::command::{AlarmOrder, Verdict};
use crate::model::ids::Epoch;
use crate::model::record::Record;
use crate::model::roll::Listed;

use super::action::Asked;
use super::signal::Signal;
use super::{Now, Out, Part};

/// `[gateway.alarms]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmConfig {}

/// All open alarms, and what is remembered of those that were.
#[derive(Debug)]
pub(super) struct Book {
    config: AlarmConfig,
}

impl Book {
    pub(super) fn new(config: AlarmConfig) -> Self {
        Self { config }
    }

    /// A condition has come or gone. Returns the actions that are due now. `origin` makes the id of a new alarm.
    pub(super) fn signal(
        &mut self,
        now: &Now,
        signal: Signal,
        origin: (Epoch, u64),
        out: &mut Out,
    ) -> Vec<Asked> {
        Vec::new()
    }

    /// An order of a person.
    pub(super) fn order(&mut self, now: &Now, order: &AlarmOrder, out: &mut Out) -> Verdict {
        Verdict::Unknown
    }

    /// An alarm's record has got its number.
    pub(super) fn stored(&mut self, listed: &Listed) {}

    /// What records say about the health of devices, buses and uplinks.
    pub(super) fn supervise(&mut self, now: &Now, record: &Record, signals: &mut Vec<Signal>, out: &mut Out) {
    }

    /// The deadline of a row has come.
    pub(super) fn fire(&mut self, now: &Now, key: &str, signals: &mut Vec<Signal>, out: &mut Out) {}

    /// All open alarms, as they were stored last.
    pub(super) fn open(&self) -> Vec<Listed> {
        Vec::new()
    }
}

impl Part for Book {
    fn load(&mut self, _key: &str, _value: &str) -> bool {
        false
    }

    fn unsaved(&self, _out: &mut Vec<(String, Option<String>)>) {}

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}

    fn next_due(&self) -> Option<(u64, String)> {
        None
    }
}
