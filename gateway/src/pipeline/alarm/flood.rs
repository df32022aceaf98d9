//! Floods: more open alarms than a person could ever see to. The lowest severities go on in one flood alarm that counts
//! them; critical and latched ones never do. Must not know why alarms are raised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::life::{by_rule, may_fold};
use super::supervision::{Held, Until, rule_name};
use super::{Book, Origin, subject};
use crate::model::alarm::{Alarm, ChangeKind, Stage};
use crate::model::place::Place;
use crate::model::record::{Category, DeviceRef, Event, Severity, Text, Value};
use crate::pipeline::signal::{Clear, Raise};
use crate::pipeline::table::Row;
use crate::pipeline::{Now, Out};

/// The rule of the flood alarm, and its subject.
pub(super) const RULE: &str = "alarm-flood";
const SUBJECT: &str = "gateway";

/// Alarms that go on in the flood alarm for one new one: so that a flood is not looked through for each, and their
/// changes fit what one record may give rise to.
const FOLDED_AT_ONCE: usize = 32;

/// The flood is over when so many of a hundred places are taken, so that it does not come and go with each alarm.
const LOW_WATER_PERCENT: usize = 90;

const KEY: &str = "gateway";

/// A flood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flood {
    /// Up to this rank, new alarms only count.
    level: u8,
}

impl Row for Flood {}

/// How grave an alarm is among those that may be folded; a test is the least.
fn rank(test: bool, severity: Option<Severity>) -> u8 {
    match severity {
        _ if test => 0,
        None | Some(Severity::Warning) => 1,
        Some(Severity::Minor) => 2,
        Some(Severity::Major) => 3,
        Some(Severity::Critical) => 4,
    }
}

impl Book {
    /// Makes room for a new alarm where too many are open. Whether the new one itself only counts.
    pub(super) fn make_room(&mut self, now: &Now, raise: &Raise, origin: Origin, out: &mut Out) -> bool {
        let severity = raise.condition.severity;
        let rank = rank(raise.test, severity);
        let probe = Alarm { latched: raise.latched, ..probe(&raise.condition) };
        let foldable = raise.test || may_fold(&probe);
        let level = self.flood.get(KEY).map(|flood| flood.level);
        if foldable && level.is_some_and(|level| rank <= level) {
            self.await_ebb(raise.clone());
            self.count(now, (rank, 1), origin, out);
            return true;
        }
        if self.open.len() < self.terms.open_max {
            return false;
        }
        let Some((lowest, victims)) = self.victims(foldable.then_some(rank)) else {
            if foldable {
                self.await_ebb(raise.clone());
                self.count(now, (rank, 1), origin, out);
            }
            return foldable;
        };
        let folded = victims.len() as u64;
        for id in victims {
            self.fold(now, &id, out);
        }
        self.count(now, (lowest, folded), origin, out);
        false
    }

    /// Those of the lowest rank below `under`, those that are over first, then the oldest.
    fn victims(&self, under: Option<u8>) -> Option<(u8, Vec<String>)> {
        let candidates = self.open.iter().filter(|(_, open)| {
            let untouched = open.alarm.handling.stage == Stage::Open;
            untouched && open.may_fold()
        });
        let ranked = candidates.map(|(id, open)| {
            let rank = rank(open.test, open.alarm.severity());
            (rank, open.holds(), open.fresh_from_ms, id)
        });
        let mut ranked: Vec<_> =
            ranked.filter(|(rank, ..)| under.is_none_or(|under| *rank < under)).collect();
        let lowest = ranked.iter().map(|(rank, ..)| *rank).min()?;
        ranked.retain(|(rank, ..)| *rank == lowest);
        ranked.sort_unstable();
        let ids = ranked.into_iter().take(FOLDED_AT_ONCE).map(|(.., id)| id.to_owned());
        Some((lowest, ids.collect()))
    }

    /// An alarm goes on in the flood alarm.
    fn fold(&mut self, now: &Now, id: &str, out: &mut Out) {
        let Some(mut open) = self.open.get(id).cloned() else { return };
        if let Some(raise) = open.raise() {
            self.await_ebb(raise);
        }
        open.end();
        open.tell(by_rule(&open.alarm, ChangeKind::Folded), &self.terms, now, out);
        self.settle(now, open);
    }

    /// A condition that still holds when the flood is over gets its alarm then.
    fn await_ebb(&mut self, raise: Raise) {
        if raise.lasts {
            let key = subject::key(&raise.rule, &raise.subject, raise.test);
            self.held.put(&key, Held { raise, until: Until::Ebb });
        }
    }

    /// So many more count on the flood alarm, up to this rank.
    fn count(&mut self, now: &Now, (level, times): (u8, u64), origin: Origin, out: &mut Out) {
        let level = self.flood.get(KEY).map_or(level, |flood| flood.level.max(level));
        self.flood.put(KEY, Flood { level });
        let raise = flood_raise(now, self.terms.open_max);
        let key = subject::key(&raise.rule, SUBJECT, false);
        let mut subject = self.subjects.get(&key).cloned().unwrap_or_default();
        let open = subject.open.as_ref().and_then(|id| self.open.get(id)).cloned();
        match open {
            Some(mut open) => {
                let worth = open.again(&raise, times, false, &self.terms, now);
                self.tell(now, &mut open, worth, out);
                let id = open.alarm.alarm.clone();
                self.open.put(&id, open);
            }
            None => {
                self.raise_new(now, &raise, (times, &mut subject), false, origin, out);
            }
        }
        self.subjects.put(&key, subject);
    }

    /// Whether a flood is over.
    pub(super) fn ebb(&mut self, now: &Now, out: &mut Out) {
        let low = self.terms.open_max.saturating_mul(LOW_WATER_PERCENT) / 100;
        if self.flood.get(KEY).is_none() || self.open.len() > low {
            return;
        }
        self.flood.remove(KEY);
        let waiting = self.held.iter().filter(|(_, held)| held.until == Until::Ebb);
        let freed: Vec<(String, Held)> = waiting
            .map(|(key, held)| (key.to_owned(), Held { until: Until::At(now.t_ms), ..held.clone() }))
            .collect();
        for (key, held) in freed {
            self.held.put(&key, held);
        }
        let (rule, at) = (rule_name(RULE), now.at.clone());
        self.clear(now, &Clear { rule, subject: SUBJECT.to_owned(), at, test: false }, out);
    }
}

fn probe(condition: &Event) -> Alarm {
    Alarm::new(String::new(), crate::model::alarm::AlarmState::Normal, condition.clone())
}

fn flood_raise(now: &Now, open_max: usize) -> Raise {
    let open_max = i64::try_from(open_max).unwrap_or(i64::MAX);
    let condition = Event {
        device: DeviceRef::gateway(None),
        place: Place::default(),
        category: Category::Device,
        name: "alarm.flood".to_owned(),
        severity: Some(Severity::Major),
        params: BTreeMap::from([("open_max".to_owned(), Value::Int(open_max))]),
        text: Some(Text {
            zh: "未了结的报警过多，低级别报警已并入本条计数".to_owned(),
            en: "too many alarms are open; the least severe ones only count here".to_owned(),
        }),
    };
    Raise {
        rule: rule_name(RULE),
        subject: SUBJECT.to_owned(),
        at: now.at.clone(),
        condition,
        lasts: true,
        latched: true,
        cooldown_ms: 0,
        escalate: None,
        actions: Vec::new(),
        act_within_ms: 0,
        hides: Vec::new(),
        test: false,
    }
}
