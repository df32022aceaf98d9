//! The roll of open alarms: what the pipeline has committed, for whoever shows it or answers by it. Written by the
//! pipeline alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::alarm::Alarm;
use super::command::Verdict;
use super::ids::Seq;
use super::record::Value;
use super::stamp::Stamp;

/// Verdicts that are remembered for whoever asks for them.
const VERDICTS_KEPT: usize = 1_024;

/// An open alarm as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Number of the record that holds this revision.
    pub seq: Seq,
    pub test: bool,
    /// When this revision was made.
    pub at: Stamp,
    pub alarm: Alarm,
}

/// The roll.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    open: BTreeMap<String, Listed>,
    verdicts: VecDeque<(String, Verdict)>,
}

impl Roll {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an alarm as it stands now; one that is over leaves the roll.
    pub fn put(&self, listed: Listed) {
        let mut lists = self.lists();
        if listed.alarm.is_open() {
            lists.open.insert(listed.alarm.alarm.clone(), listed);
        } else {
            lists.open.remove(&listed.alarm.alarm);
        }
    }

    /// Notes what became of a command's order.
    pub fn note(&self, command: String, verdict: Verdict) {
        let mut lists = self.lists();
        if lists.verdicts.len() >= VERDICTS_KEPT {
            lists.verdicts.pop_front();
        }
        lists.verdicts.push_back((command, verdict));
    }

    /// What became of a command's order; none: it was not folded, or long ago.
    pub fn verdict(&self, command: &str) -> Option<Verdict> {
        self.lists().verdicts.iter().rev().find(|(id, _)| id == command).map(|(_, verdict)| verdict.clone())
    }

    /// All open alarms, by id.
    pub fn open(&self) -> Vec<Listed> {
        self.lists().open.values().cloned().collect()
    }

    /// Open alarms whose ids come after `after`, so many at most: a page of [`Roll::open`].
    pub fn page(&self, after: &str, most: usize) -> Vec<Listed> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.lists().open.range::<str, _>(behind).take(most).map(|(_, listed)| listed.clone()).collect()
    }

    /// Whether an alarm is open whose condition lasts and was raised by events of this name, with this parameter if given.
    pub fn holds(&self, name: &str, param: Option<(&str, &str)>) -> bool {
        let meant = |listed: &Listed| {
            let raised = &listed.alarm.raised;
            let named =
                param.is_none_or(|(key, text)| raised.params.get(key) == Some(&Value::Text(text.into())));
            listed.alarm.active && raised.name == name && named
        };
        self.lists().open.values().any(meant)
    }

    pub fn get(&self, alarm: &str) -> Option<Listed> {
        self.lists().open.get(alarm).cloned()
    }

    pub fn len(&self) -> usize {
        self.lists().open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
