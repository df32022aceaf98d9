//! The book of alarms: their life by ISA-18.2, what people do about them, supervision and floods. Pure.
//!
//! A rule has at most one open alarm for each of its subjects. What comes again counts on it; what comes again soon after
//! it was closed is remembered. docs/alarms.md tells people the same.

mod config;
mod flood;
mod life;
mod orders;
mod subject;
mod supervision;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::alarm::{AlarmState, ChangeKind};
use crate::model::command::{AlarmOrder, Verdict};
use crate::model::ids::{Epoch, Pos, RuleName};
use crate::model::record::{Event, Value};
use crate::model::roll::Listed;

use self::config::Terms;
use self::flood::Flood;
use self::life::{Open, Worth, by_rule};
use self::orders::by_person;
use self::subject::Subject;
use self::supervision::{Bus, Held};
use super::action::Asked;
use super::directory::Directory;
use super::signal::{Clear, Raise, Signal};
use super::table::{Row, Rows, Table};
use super::{Now, Out, Part};

pub use self::config::AlarmConfig;

/// What an alarm keeps of its condition, as JSON: with names of hidden devices, a note and a reason it fits a record.
const CONDITION_BYTES_MAX: usize = 4 * 1024;

/// The record that gives a new alarm its id.
type Origin = (Epoch, Pos);

/// All open alarms, and what is remembered of those that were.
#[derive(Debug)]
pub(super) struct Book {
    terms: Terms,
    directory: Arc<Directory>,
    open: Table<Open>,
    subjects: Table<Subject>,
    held: Table<Held>,
    buses: Table<Bus>,
    flood: Table<Flood>,
    /// Ids given for one record: how many by each rule.
    minted: (Pos, BTreeMap<RuleName, u32>),
    /// What was remembered has been held against the configuration.
    begun: bool,
    names: Names,
    /// Where time stands: a deadline that fires late, after a restart, has its own moment.
    present: Option<Now>,
}

/// What the configuration has beside devices, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub buses: BTreeSet<String>,
    pub uplinks: BTreeSet<String>,
    pub notifiers: BTreeSet<String>,
}

impl Book {
    pub(super) fn new(config: &AlarmConfig, directory: Arc<Directory>, names: Names) -> Self {
        Self {
            terms: Terms::from(config),
            directory,
            open: Table::new("alarm/open/"),
            subjects: Table::new("alarm/subject/"),
            held: Table::new("alarm/held/"),
            buses: Table::new("alarm/bus/"),
            flood: Table::new("alarm/flood/"),
            minted: (0, BTreeMap::new()),
            begun: false,
            names,
            present: None,
        }
    }

    /// Time has come so far.
    pub(super) fn present(&mut self, now: &Now) {
        self.present = Some(now.clone());
    }

    /// A condition has come or gone. Returns the actions that are due now. `origin` makes the id of a new alarm.
    pub(super) fn signal(
        &mut self,
        now: &Now,
        signal: Signal,
        origin: Origin,
        out: &mut Out,
    ) -> Option<Asked> {
        let asked = match signal {
            Signal::Raise(raise) => self.raise(now, *raise, origin, out),
            Signal::Clear(clear) => {
                self.clear(now, &clear, out);
                None
            }
        };
        self.ebb(now, out);
        asked
    }

    fn raise(&mut self, now: &Now, mut raise: Raise, origin: Origin, out: &mut Out) -> Option<Asked> {
        self.name_hidden(&mut raise);
        let key = subject::key(&raise.rule, &raise.subject, raise.test);
        if let Some(until) = self.explained(&raise, now) {
            self.held.put(&key, Held { raise, until });
            return None;
        }
        self.held.remove(&key);
        let mut subject = self.subjects.get(&key).cloned().unwrap_or_default();
        let open = subject.open.as_ref().and_then(|id| self.open.get(id)).cloned();
        let comes = open.as_ref().is_none_or(|open| open.condition != life::Condition::Holds);
        let often = raise.lasts && comes && subject.comes(&self.terms, now);
        let asked = match open {
            Some(open) => self.raise_again(now, &raise, (open, &mut subject), often, out),
            None if now.t_ms < subject.cooldown_until_ms => {
                subject.miss(raise, now);
                None
            }
            None if self.make_room(now, &raise, origin, out) => {
                subject.rest(&self.terms, now);
                None
            }
            None => self.raise_new(now, &raise, (1, &mut subject), often, origin, out),
        };
        self.subjects.put(&key, subject);
        asked
    }

    fn raise_new(
        &mut self,
        now: &Now,
        raise: &Raise,
        (times, subject): (u64, &mut Subject),
        often: bool,
        origin: Origin,
        out: &mut Out,
    ) -> Option<Asked> {
        let id = self.mint(origin, &raise.rule);
        let count = times.saturating_add(std::mem::take(&mut subject.missed));
        let mut open = Open::new(id.clone(), raise, count, &self.terms, now);
        fit(&mut open.alarm.raised);
        if often {
            open.flap(&self.terms, now);
        }
        open.tell(by_rule(&open.alarm, ChangeKind::Raised), &self.terms, now, out);
        let asked = open.asks();
        subject.waiting = None;
        subject.open = Some(id.clone());
        subject.cooldown_until_ms = now.t_ms.saturating_add(raise.cooldown_ms);
        self.open.put(&id, open);
        asked
    }

    fn raise_again(
        &mut self,
        now: &Now,
        raise: &Raise,
        (mut open, subject): (Open, &mut Subject),
        often: bool,
        out: &mut Out,
    ) -> Option<Asked> {
        let fresh = open.fresh_from_ms <= now.t_ms;
        let mut worth = open.again(raise, 1, fresh, &self.terms, now);
        if often || open.flapping_until_ms.is_some() {
            worth = open.flap(&self.terms, now);
        }
        if fresh {
            subject.cooldown_until_ms = now.t_ms.saturating_add(raise.cooldown_ms);
            if worth == Worth::AtRate {
                // What is asked of devices for it bears a revision of its own.
                worth = Worth::AtOnce(ChangeKind::RaisedAgain);
            }
        }
        self.tell(now, &mut open, worth, out);
        let asked = if fresh && open.flapping_until_ms.is_none() { open.asks() } else { None };
        let id = open.alarm.alarm.clone();
        self.open.put(&id, open);
        asked
    }

    /// Tells what is worth it, at the rate that it may be told.
    fn tell(&self, now: &Now, open: &mut Open, worth: Worth, out: &mut Out) {
        let what = match worth {
            Worth::Nothing => return,
            Worth::AtOnce(what) => what,
            Worth::AtRate if open.may_tell(&self.terms, now) => ChangeKind::RaisedAgain,
            Worth::AtRate => return,
        };
        open.tell(by_rule(&open.alarm, what), &self.terms, now, out);
    }

    /// The condition is over, under test or not: who tests a device now may have found it in alarm.
    fn clear(&mut self, now: &Now, clear: &Clear, out: &mut Out) {
        for test in [false, true] {
            let key = subject::key(&clear.rule, &clear.subject, test);
            self.held.remove(&key);
            let Some(mut subject) = self.subjects.get(&key).cloned() else { continue };
            if subject.waiting.take().is_some() {
                self.subjects.put(&key, subject.clone());
            }
            let Some(mut open) = subject.open.as_ref().and_then(|id| self.open.get(id)).cloned() else {
                continue;
            };
            let held = open.condition == life::Condition::Holds;
            let worth = open.clear();
            if held && open.flapping_until_ms.is_some() {
                open.flap(&self.terms, now);
            }
            self.tell(now, &mut open, worth, out);
            if held {
                self.release_hidden(now, &open.alarm);
            }
            self.settle(now, open);
        }
    }

    /// Puts an alarm back, or takes it out of the book if it is over.
    fn settle(&mut self, now: &Now, open: Open) {
        let id = open.alarm.alarm.clone();
        if open.alarm.state != AlarmState::Normal {
            self.open.put(&id, open);
            return;
        }
        let key = open.alarm.rule.as_ref().map(|rule| subject::key(rule, &open.subject, open.test));
        self.open.remove(&id);
        if open.condition == life::Condition::Holds {
            self.release_hidden(now, &open.alarm);
        }
        let Some((key, mut subject)) =
            key.and_then(|key| Some((key.clone(), self.subjects.get(&key)?.clone())))
        else {
            return;
        };
        subject.rest(&self.terms, now);
        self.subjects.put(&key, subject);
    }

    /// An order of a person.
    pub(super) fn order(&mut self, now: &Now, order: &AlarmOrder, out: &mut Out) -> Verdict {
        let Some(mut open) = self.open.get(&order.alarm).cloned() else { return Verdict::Unknown };
        let rev = open.alarm.rev;
        // A higher one is another history's: of a journal that was put back to an old copy.
        if order.rev.is_some_and(|seen| seen != rev) {
            return Verdict::Outdated { rev };
        }
        match open.obey(&order.verb, &self.terms, now) {
            Err(why) => Verdict::Impossible(why),
            Ok(None) => Verdict::Already { rev },
            Ok(Some(what)) => {
                open.tell(by_person(order, what), &self.terms, now, out);
                let rev = open.alarm.rev;
                self.settle(now, open);
                self.ebb(now, out);
                Verdict::Done { rev }
            }
        }
    }

    /// An alarm's record has got its number.
    pub(super) fn stored(&mut self, listed: &Listed) {
        let id = &listed.alarm.alarm;
        let Some(open) = self.open.get(id).filter(|open| open.alarm.rev == listed.alarm.rev) else { return };
        let mut open = open.clone();
        open.seq = listed.seq;
        self.open.put(id, open);
    }

    /// The deadline of a row has come. Returns the actions that are due now.
    pub(super) fn fire(
        &mut self,
        now: &Now,
        key: &str,
        signals: &mut Vec<Signal>,
        out: &mut Out,
    ) -> Option<Asked> {
        let (table, key) = key.split_once('/')?;
        match table {
            "open" => return self.fire_open(now, key, out),
            "subject" => {
                let mut subject = self.subjects.get(key)?.clone();
                if let Some(waiting) = subject.wake() {
                    self.subjects.put(key, subject);
                    signals.push(Signal::Raise(waiting));
                } else {
                    self.subjects.remove(key);
                }
            }
            "held" => {
                let raise = self.held.get(key)?.raise.clone();
                self.held.remove(key);
                signals.push(Signal::Raise(Box::new(raise)));
            }
            _bus => self.buses.remove(key),
        }
        None
    }

    fn fire_open(&mut self, now: &Now, id: &str, out: &mut Out) -> Option<Asked> {
        let mut open = self.open.get(id)?.clone();
        let what = open.fire(&self.terms, now);
        if let Some(what) = what {
            open.tell(by_rule(&open.alarm, what), &self.terms, now, out);
        }
        let asked = if what == Some(ChangeKind::Escalated) { open.asks_louder(now) } else { None };
        self.settle(now, open);
        self.ebb(now, out);
        asked
    }

    /// From when on an open alarm is only waiting for a person, and the same would be a new one; none while it holds.
    pub(super) fn over_from_ms(&self, id: &str) -> Option<u64> {
        let open = self.open.get(id).filter(|open| !open.holds())?;
        let key = subject::key(open.alarm.rule.as_ref()?, &open.subject, open.test);
        Some(self.subjects.get(&key).map_or(0, |subject| subject.cooldown_until_ms))
    }

    /// All open alarms, as they were stored last.
    pub(super) fn open(&self) -> Vec<Listed> {
        let stored = self.open.iter().filter(|(_, open)| open.seq > 0);
        let listed = stored.map(|(_, open)| Listed {
            seq: open.seq,
            test: open.test,
            at: open.at.clone(),
            alarm: open.alarm.clone(),
        });
        listed.collect()
    }

    /// The id of a new alarm. A record may raise a rule's alarms for several subjects.
    fn mint(&mut self, (epoch, pos): Origin, rule: &RuleName) -> String {
        if self.minted.0 != pos {
            self.minted = (pos, BTreeMap::new());
        }
        let given = self.minted.1.entry(rule.clone()).or_default();
        *given = given.saturating_add(1);
        match *given {
            1 => format!("{epoch}-{pos}-{rule}"),
            more => format!("{epoch}-{pos}-{rule}.{more}"),
        }
    }
}

/// Leaves out the longest parameters of a condition until the rest fits; `params_cut` says so.
fn fit(condition: &mut Event) {
    let size = |condition: &Event| serde_json::to_vec(condition).map_or(0, |json| json.len());
    while size(condition) > CONDITION_BYTES_MAX {
        let length = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        };
        let longest = condition.params.iter().max_by_key(|(_, value)| length(value));
        let Some(name) = longest.map(|(name, _)| name.clone()) else { return };
        if name == "params_cut" {
            return;
        }
        condition.params.remove(&name);
        condition.params.insert("params_cut".to_owned(), Value::Bool(true));
    }
}

impl Part for Book {
    fn tables(&self) -> Vec<&dyn Rows> {
        vec![&self.open, &self.subjects, &self.held, &self.buses, &self.flood]
    }

    fn tables_mut(&mut self) -> Vec<&mut dyn Rows> {
        vec![&mut self.open, &mut self.subjects, &mut self.held, &mut self.buses, &mut self.flood]
    }

    fn reconsider(&mut self) {
        // The record's place is given to another one.
        self.minted = (0, BTreeMap::new());
        self.begun = false;
    }

    fn next_due(&self) -> Option<(u64, String)> {
        fn first<R: Row>(table: &Table<R>, name: &str) -> Option<(u64, String)> {
            table.next_due().map(|(due_ms, key)| (due_ms, format!("{name}/{key}")))
        }
        let dues = [
            first(&self.open, "open"),
            first(&self.subjects, "subject"),
            first(&self.held, "held"),
            first(&self.buses, "bus"),
        ];
        dues.into_iter().flatten().min()
    }
}
