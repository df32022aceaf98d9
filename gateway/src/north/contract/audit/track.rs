//! What is known of one gateway: its epochs, their numberings, its states and snapshots.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use serde_json::Value;

use super::ranges::RangeSet;
use super::report::{ClassReport, FindingKind, GatewayReport};
use super::{IDS_MAX, VALUES_MAX};
use crate::north::contract::envelope::{Sequenced, Unsequenced};
use crate::north::contract::wire;

/// Boots remembered of one gateway: one that comes back is another box.
const BOOTS_MAX: usize = 64;

/// Answers remembered of one gateway.
const ANSWERS_MAX: usize = 1_024;

/// Ranges of missing numbers that a report names.
const HOLES_SHOWN: usize = 100;

pub(super) type Found = Vec<(FindingKind, String)>;

/// A digest of contents, to tell a repetition from a reused id.
pub(super) fn digest(parts: &[Option<&Value>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        part.map(Value::to_string).hash(&mut hasher);
    }
    hasher.finish()
}

/// One record as it came.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub epoch: String,
    pub class: String,
    pub bootid: String,
    pub sequence: u64,
    pub previous: u64,
    pub replay: bool,
    pub age_ms: Option<u64>,
    pub content: u64,
}

impl Arrival {
    pub(super) fn of<D>(record: &Sequenced<D>, class: String, content: u64) -> Self {
        Self {
            epoch: record.epoch.clone(),
            class,
            bootid: record.bootid.clone(),
            sequence: record.sequence.0,
            previous: record.previous.0,
            replay: record.replay,
            age_ms: record.age.map(u64::from),
            content,
        }
    }

    pub(super) fn id(&self) -> String {
        format!("{}-{}-{}", self.epoch, self.class, self.sequence)
    }
}

/// One class of one epoch.
#[derive(Debug, Default)]
struct Numbering {
    /// Numbers that came, and those before them that are nobody's.
    accounted: RangeSet,
    /// Numbers that should come.
    expected: RangeSet,
    /// The lowest number expected of the live stream: what is before it was sent before listening began.
    baseline: Option<u64>,
    explained: RangeSet,
    pending: RangeSet,
    contents: BTreeMap<u64, u64>,
    live_last: u64,
    report: ClassReport,
}

impl Numbering {
    fn expect_from(&mut self, first: u64, upto: u64) {
        let baseline = *self.baseline.get_or_insert(first);
        self.expected.insert(baseline, upto);
    }

    /// Books a record; whether it is new, and whether its content differs from an earlier one of the same number.
    fn record(&mut self, arrival: &Arrival, from_start: bool) -> (bool, bool) {
        let number = arrival.sequence;
        if from_start {
            self.expect_from(1, number);
        } else if !arrival.replay {
            self.expect_from(arrival.previous + 1, number);
        }
        let known = self.contents.get(&number).copied();
        // Below the remembered contents only the ranges tell.
        let forgotten = self.contents.len() >= IDS_MAX
            && self.contents.first_key_value().is_some_and(|(first, _)| number < *first)
            && self.accounted.contains(number);
        self.accounted.insert(arrival.previous + 1, number);
        if known.is_some() || forgotten {
            self.report.duplicates += 1;
            return (false, known.is_some_and(|content| content != arrival.content));
        }
        self.contents.insert(number, arrival.content);
        if self.contents.len() > IDS_MAX {
            self.contents.pop_first();
        }
        self.report.records += 1;
        self.report.last = self.report.last.max(number);
        if arrival.replay {
            self.report.replayed += 1;
        } else {
            self.report.reordered += u64::from(number < self.live_last);
            self.live_last = self.live_last.max(number);
        }
        (true, false)
    }

    /// Notes what a state says. `expected`: everything it announces came after listening began.
    fn announce(&mut self, progress: &wire::Progress, expected: bool, from_start: bool) {
        self.pending = RangeSet::new();
        for range in &progress.pending {
            self.pending.insert(range.from.0, range.to.0);
        }
        if expected {
            let pending = self.pending.clone();
            self.expected.extend(&pending);
        }
        if from_start {
            self.expect_from(1, progress.last.0);
        } else if expected {
            self.expect_from(progress.live_from.0, progress.last.0);
        }
    }

    fn report(&self) -> ClassReport {
        let absent = self.expected.without(&self.accounted).without(&self.explained);
        let holes = absent.without(&self.pending);
        let missing = holes.count();
        ClassReport {
            missing,
            pending: absent.count() - missing,
            holes: holes.iter().take(HOLES_SHOWN).collect(),
            gaps: self.explained.count(),
            ..self.report.clone()
        }
    }
}

/// The pages of a snapshot that came.
#[derive(Debug, Default)]
struct Pages {
    name: String,
    count: u32,
    came: BTreeSet<u32>,
}

/// One gateway.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    numberings: BTreeMap<(String, String), Numbering>,
    /// By epoch, the highest (`conn`, `rev`).
    states: BTreeMap<String, (u64, u64)>,
    newest: Option<(u64, bool)>,
    boots: VecDeque<String>,
    late_wills: u64,
    answers: VecDeque<(String, u64)>,
    /// By `test`.
    snapshots: BTreeMap<bool, Pages>,
    values: BTreeMap<(String, String), (String, u64)>,
    two_boxes: bool,
}

impl Gateway {
    fn numbering(&mut self, epoch: &str, class: &str) -> &mut Numbering {
        self.numberings.entry((epoch.to_owned(), class.to_owned())).or_default()
    }

    /// Something new came from this boot. A boot that was followed by another never comes back: if it does, two boxes
    /// speak under one name. Said once.
    fn spoke(&mut self, bootid: &str) -> Found {
        if self.boots.back().is_some_and(|last| last == bootid) {
            return Vec::new();
        }
        let again = self.boots.iter().any(|boot| boot == bootid);
        self.boots.retain(|boot| boot != bootid);
        self.boots.push_back(bootid.to_owned());
        if self.boots.len() > BOOTS_MAX {
            self.boots.pop_front();
        }
        if !again || self.two_boxes {
            return Vec::new();
        }
        self.two_boxes = true;
        vec![(FindingKind::TwoBoxes, format!("boot {bootid} speaks again after another boot did"))]
    }

    pub(super) fn state(&mut self, state: &Unsequenced<wire::State>, from_start: bool) -> Found {
        let said = (state.data.conn, state.data.rev);
        let first = self.states.is_empty();
        let newer_epoch_spoke = !first && !self.states.contains_key(&state.epoch);
        let highest = self.states.get(&state.epoch).copied();
        if highest.is_some_and(|highest| said < highest) {
            if !state.data.online {
                self.late_wills += 1;
                return Vec::new();
            }
            let highest = highest.unwrap_or_default();
            return vec![(
                FindingKind::ConnBackwards,
                format!("{said:?} after {highest:?} of epoch {}", state.epoch),
            )];
        }
        if highest == Some(said) {
            return Vec::new();
        }
        // The will of a box that was replaced comes with an epoch known already, and says nothing of the new one.
        let replaced = !newer_epoch_spoke
            && !state.data.online
            && self.boots.back().is_some_and(|boot| *boot != state.bootid)
            && self.boots.contains(&state.bootid);
        self.states.insert(state.epoch.clone(), said);
        if replaced {
            self.late_wills += 1;
            return Vec::new();
        }
        self.newest = Some((state.data.conn, state.data.online));
        // What stood on the topic when listening began may be old: its pending ranges excuse, and promise nothing.
        let expected = from_start || !first;
        for (class, progress) in &state.data.classes {
            // Before the first record of a later epoch nobody can say whether its numbers begin anew or go on.
            let another = self.numberings.keys().any(|(epoch, name)| *epoch != state.epoch && name == class);
            let numbering = self.numbering(&state.epoch, class);
            let placed = !another || numbering.report.records > 0;
            numbering.announce(progress, expected && placed, from_start && placed);
            // A forked journal goes on numbering: its ranges reach back into the epoch before, where they excuse only.
            let pending = numbering.pending.clone();
            let earlier = self
                .numberings
                .iter_mut()
                .filter(|((epoch, name), _)| *epoch != state.epoch && name == class);
            for (_, earlier) in earlier {
                earlier.pending = pending.clone();
            }
        }
        if state.data.online { self.spoke(&state.bootid) } else { Vec::new() }
    }

    pub(super) fn record(&mut self, arrival: &Arrival, from_start: bool) -> (bool, Found) {
        let (fresh, differs) = self.numbering(&arrival.epoch, &arrival.class).record(arrival, from_start);
        let mut found = Vec::new();
        if differs {
            found.push((FindingKind::IdReused, arrival.id()));
        }
        if fresh && !arrival.replay {
            found.extend(self.spoke(&arrival.bootid));
        }
        (fresh, found)
    }

    pub(super) fn explained(&mut self, epoch: &str, class: &str, from: u64, to: u64) {
        self.numbering(epoch, class).explained.insert(from, to);
    }

    /// Notes a page; what is wrong with the snapshot before it.
    pub(super) fn snapshot(&mut self, page: &Unsequenced<wire::Snapshot>) -> Option<String> {
        let name = format!("{}-{}", page.epoch, page.data.snapshot);
        let pages = self.snapshots.entry(page.test).or_default();
        let mut wrong = None;
        if pages.name != name {
            let missing = pages.count.saturating_sub(u32::try_from(pages.came.len()).unwrap_or(u32::MAX));
            if missing > 0 {
                wrong = Some(format!("{missing} of {} pages of {} never came", pages.count, pages.name));
            }
            *pages = Pages { name, count: page.data.pages, came: BTreeSet::new() };
        }
        if page.data.pages != pages.count || !(1..=pages.count).contains(&page.data.page) {
            return Some(format!("page {} of {} in {}", page.data.page, page.data.pages, pages.name));
        }
        pages.came.insert(page.data.page);
        wrong
    }

    /// Notes an answer; false if the same id came with another content.
    pub(super) fn answer(&mut self, id: &str, content: u64) -> bool {
        if let Some((_, known)) = self.answers.iter().find(|(known, _)| known == id) {
            return *known == content;
        }
        self.answers.push_back((id.to_owned(), content));
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
        true
    }

    /// Notes a live value; the number of a later one that came before it.
    pub(super) fn value(&mut self, place: (String, String), epoch: &str, sequence: u64) -> Option<u64> {
        if let Some((known, number)) = self.values.get_mut(&place) {
            if known == epoch && *number > sequence {
                return Some(*number);
            }
            *number = sequence;
            if known != epoch {
                epoch.clone_into(known);
            }
        } else if self.values.len() < VALUES_MAX {
            self.values.insert(place, (epoch.to_owned(), sequence));
        }
        None
    }

    pub(super) fn report(&self) -> GatewayReport {
        let mut report = GatewayReport {
            online: self.newest.map(|(_, online)| online),
            conn: self.newest.map(|(conn, _)| conn),
            late_wills: self.late_wills,
            epochs: BTreeMap::new(),
        };
        for ((epoch, class), numbering) in &self.numberings {
            report.epochs.entry(epoch.clone()).or_default().insert(class.clone(), numbering.report());
        }
        report
    }
}
