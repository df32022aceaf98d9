//! Where an uplink stands in the journal: what it still has to send, per class.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Epoch, Seq};
use super::record::Class;

/// Sequence numbers `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqRange {
    pub from: Seq,
    pub to: Seq,
}

/// One class of one uplink.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassCursor {
    /// The first record of the live stream that is not acknowledged yet.
    pub live_next: Seq,
    /// What is left of earlier outages and of asked-for replays, oldest first, disjoint.
    #[serde(default)]
    pub backlog: Vec<SeqRange>,
    /// Records set aside after refusals, to be tried again: sequence number and tries so far.
    #[serde(default)]
    pub aside: BTreeMap<Seq, u32>,
}

/// One uplink: stored with the journal, at most a second behind what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursors {
    pub classes: BTreeMap<Class, ClassCursor>,
}

impl Cursors {
    /// Lowest sequence number of `class` that this uplink may still need.
    pub fn needed_from(&self, class: Class) -> Option<Seq> {
        let cursor = self.classes.get(&class)?;
        let aside = cursor.aside.keys().next().copied();
        let backlog = cursor.backlog.first().map(|range| range.from);
        [aside, backlog, Some(cursor.live_next)].into_iter().flatten().min()
    }
}

/// What the journal holds of each class: first and last stored sequence number (`from > to` when empty), and the
/// epoch that the last one belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub epoch: Epoch,
    pub first: Seq,
    pub last: Seq,
}
