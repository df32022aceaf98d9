//! The pipeline: a pure, synchronous fold from records to alarms and actions. Owns rules, the life of alarms,
//! supervision, linkage and care. Must not know I/O, clocks, SQL, threads.
//!
//! It runs in the journal's writer between insert and COMMIT, along the one order of all records. What it knows stands in
//! rows that are stored in the same commit ([`table::Table`]); deadlines at or before a record's time fire first, in the
//! order of (deadline, part, key); time that passes while nothing happens is a record too (a tick). So the same records
//! give the same alarms, whatever the batching and wherever a crash falls (promises G6, G7).
//!
//! What it asks of devices leaves through an [`Outlet`] only after the commit.

pub mod action;
pub mod alarm;
pub mod care;
pub mod directory;
pub mod rehearsal;
pub mod rule;
mod signal;
mod table;
mod time;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::action::{Action, Outlet, Report};
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::command::{AlarmOrder, Verdict};
use crate::model::ids::{BootId, Epoch};
use crate::model::journal::Fold;
use crate::model::limits::FOLD_DRAFTS_MAX;
use crate::model::record::{Body, Draft, Record};
use crate::model::roll::{Listed, Roll};
use crate::model::stamp::Stamp;

use self::action::{Actions, Asked};
pub use self::alarm::Names;
use self::alarm::{AlarmConfig, Book};
use self::care::{Care, CareConfig};
use self::directory::Directory;
use self::rule::{Engine, Rules};
use self::signal::Signal;
use self::table::{Rows, Table};
use self::time::Time;

/// Deadlines that one record may fire; the rest follow with the next record or tick.
const DUES_AT_ONCE_MAX: usize = 64;
/// Drafts after which a record fires no more of them: far enough below what one record may give rise to.
const DUE_DRAFTS_MAX: usize = 64;
const _: () = assert!(DUE_DRAFTS_MAX * 2 < FOLD_DRAFTS_MAX);

/// How the names of the pipeline's own events begin.
const OWN: [&str; 2] = ["action.", "care."];

/// Where time stands, in its table.
const NOW: &str = "now";

/// What the pipeline is made from: all of it configuration.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub rules: Arc<Rules>,
    pub directory: Arc<Directory>,
    /// What else is configured.
    pub names: Names,
    pub alarms: AlarmConfig,
    pub care: CareConfig,
    /// Minutes that the site's wall clock is ahead of UTC, for active hours: 480 in China.
    pub utc_offset_min: i32,
}

/// The moment that something happens in the fold: the pipeline's time, and the stamp that drafts get.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Now {
    pub(in crate::pipeline) t_ms: u64,
    pub(in crate::pipeline) at: Stamp,
}

impl Now {
    /// A time to come, as this clock will tell it.
    pub(in crate::pipeline) fn later(&self, t_ms: u64) -> Stamp {
        self.at.later(t_ms.saturating_sub(self.t_ms))
    }
}

/// Where rules that take the place of those at work wait for the next record.
#[derive(Debug, Default)]
pub struct NextRules(Mutex<Option<Arc<Rules>>>);

impl NextRules {
    /// From the next record on these are at work. What they do not know any more is over, as after a restart.
    pub fn put(&self, rules: Arc<Rules>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
    }

    fn take(&self) -> Option<Arc<Rules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What one record gives rise to.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Out {
    pub(in crate::pipeline) drafts: Vec<Draft>,
}

/// A part of the pipeline: all that it remembers stands in tables.
trait Part {
    fn tables(&self) -> Vec<&dyn Rows>;
    fn tables_mut(&mut self) -> Vec<&mut dyn Rows>;
    /// Its first deadline and the key of the row that it belongs to.
    fn next_due(&self) -> Option<(u64, String)>;

    /// Rows were loaded or taken back: what was concluded from them is to be looked at again.
    fn reconsider(&mut self) {}

    /// Takes up a stored row if it is one of its own.
    fn load(&mut self, key: &str, value: &str) -> bool {
        self.reconsider();
        self.tables_mut().into_iter().any(|table| table.load(key, value))
    }

    fn unsaved(&self, out: &mut Vec<(String, Option<String>)>) {
        self.tables().into_iter().for_each(|table| table.unsaved(out));
    }

    fn commit(&mut self, saved: bool) {
        self.tables_mut().into_iter().for_each(|table| table.commit(saved));
    }

    fn rollback(&mut self) {
        self.tables_mut().into_iter().for_each(Rows::rollback);
        self.reconsider();
    }
}

/// Whether the pipeline has made the record itself. Such a one fires no deadlines: all that one record from outside gives
/// rise to, in whatever depth, must stay within the bounds of a commit.
fn is_own(record: &Record) -> bool {
    match &record.body {
        Body::Alarm(_) => true,
        Body::Event(event) => {
            event.device.is_gateway() && OWN.iter().any(|head| event.name.starts_with(head))
        }
        Body::Telemetry(_) | Body::Gap(_) => false,
    }
}

/// The pipeline.
#[derive(Debug)]
pub struct Pipeline {
    plan: Plan,
    time: Table<Time>,
    rules: Engine,
    next_rules: Arc<NextRules>,
    book: Book,
    actions: Actions,
    care: Care,
    roll: Arc<Roll>,
    outlet: Box<dyn Outlet>,
    /// Since the last commit: for the roll and the outlet.
    listed: Vec<Listed>,
    verdicts: Vec<(String, Verdict)>,
    asked: Vec<Action>,
    /// Actions that a restart found unfinished; handed on with the first commit.
    resumed: Vec<Action>,
}

impl Pipeline {
    pub fn new(plan: Plan, roll: Arc<Roll>, outlet: Box<dyn Outlet>) -> Self {
        Self {
            time: Table::new("time/"),
            rules: Engine::new(Arc::clone(&plan.rules), Arc::clone(&plan.directory)),
            next_rules: Arc::default(),
            book: Book::new(&plan.alarms, Arc::clone(&plan.directory), plan.names.clone()),
            actions: Actions::new(Arc::clone(&plan.directory), plan.utc_offset_min),
            care: Care::new(plan.care.clone(), Arc::clone(&plan.directory)),
            plan,
            roll,
            outlet,
            listed: Vec::new(),
            verdicts: Vec::new(),
            asked: Vec::new(),
            resumed: Vec::new(),
        }
    }

    /// Where to put rules that are to take the place of its own.
    pub fn next_rules(&self) -> Arc<NextRules> {
        Arc::clone(&self.next_rules)
    }

    fn parts(&self) -> [&dyn Part; 4] {
        [&self.rules, &self.care, &self.book, &self.actions]
    }

    fn parts_mut(&mut self) -> [&mut dyn Part; 4] {
        [&mut self.rules, &mut self.care, &mut self.book, &mut self.actions]
    }

    /// The first deadline of all: when, and which part's.
    fn next_due(&self) -> Option<(u64, usize, String)> {
        let dues = self.parts().into_iter().enumerate();
        dues.filter_map(|(part, of)| of.next_due().map(|(due, key)| (due, part, key))).min()
    }

    fn fire(&mut self, now: &Now, (part, key): (usize, &str), origin: (Epoch, u64), out: &mut Out) {
        let mut signals = Vec::new();
        match part {
            0 => self.rules.fire(now, key, self.plan.utc_offset_min, &mut signals),
            1 => {
                let asks = self.care.fire(now, key, &mut signals);
                self.ask(now, asks, origin, out);
            }
            2 => {
                if let Some(asked) = self.book.fire(now, key, &mut signals, out) {
                    self.actions.ask(now, &asked, out);
                }
            }
            _ => self.actions.fire(now, key, &mut signals, out),
        }
        self.signal(now, signals, origin, out);
    }

    /// Fires what is due. More than one record may give rise to waits for the next one, or for the tick that comes at once.
    fn fire_due(&mut self, time: &Time, origin: (Epoch, u64), out: &mut Out) {
        for _ in 0..DUES_AT_ONCE_MAX {
            if out.drafts.len() >= DUE_DRAFTS_MAX {
                break;
            }
            let Some((due, part, key)) = self.next_due().filter(|(due, ..)| *due <= time.t_ms) else { break };
            let now = Now { t_ms: due.min(time.t_ms), at: time.stamp_of(due) };
            self.fire(&now, (part, &key), origin, out);
        }
    }

    /// Where time stands at a moment that follows.
    fn time_at(&self, at: &Stamp) -> Time {
        match self.time.get(NOW) {
            Some(time) => time.after(at),
            None => Time::begin(at),
        }
    }

    /// Questions of care are asked without an alarm: the first stage bothers nobody but the household.
    fn ask(&mut self, now: &Now, asks: Vec<care::Ask>, (epoch, pos): (Epoch, u64), out: &mut Out) {
        for ask in asks {
            let id = format!("{epoch}-{pos}-{}{}", ask.household, crate::model::action::ASKED_BY_CARE);
            let alarm = Alarm::new(id, AlarmState::Normal, ask.condition);
            let (specs, at) = (ask.specs, now.at.clone());
            let asked = Asked { alarm, specs, at, act_within_ms: ask.act_within_ms, test: false };
            self.actions.ask(now, &asked, out);
        }
    }

    /// Signals become changes of alarms, and those ask for actions, until nothing more comes of it.
    fn signal(&mut self, now: &Now, signals: Vec<Signal>, origin: (Epoch, u64), out: &mut Out) {
        for signal in signals {
            if let Some(asked) = self.book.signal(now, signal, origin, out) {
                self.actions.ask(now, &asked, out);
            }
        }
    }
}

impl Pipeline {
    /// An alarm's record has a number, under which the roll shows it.
    fn list(&mut self, record: &Record, alarm: &Alarm) {
        let (seq, test, at) = (record.seq, record.test, record.at.clone());
        let listed = Listed { seq, test, at, alarm: alarm.clone() };
        self.book.stored(&listed);
        self.listed.push(listed);
    }

    /// Time that began here while the file could not be read goes on from the file's, in which its deadlines are. Those
    /// made here meanwhile are due at once then: early is better than never.
    fn join_time(&mut self, ours: Option<&Time>, stored: &str) {
        if let (Some(ours), Ok(stored)) = (ours, serde_json::from_str::<Time>(stored))
            && stored.t_ms > ours.t_ms
        {
            self.time.put(NOW, stored.after(&ours.at));
        }
    }
}

impl Fold for Pipeline {
    fn load(&mut self, rows: Vec<(String, String)>) {
        let known: BTreeSet<String> = self.actions.unfinished().into_iter().map(|action| action.id).collect();
        let ours = self.time.get(NOW).cloned();
        for (key, value) in rows {
            if self.time.load(&key, &value) {
                self.join_time(ours.as_ref(), &value);
                continue;
            }
            if !self.parts_mut().into_iter().any(|part| part.load(&key, &value)) {
                tracing::warn!(key, "a row of the pipeline's state is of an unknown kind");
            }
        }
        for listed in self.book.open() {
            self.roll.put(listed);
        }
        for door in self.actions.held() {
            self.outlet.held(&door);
        }
        let resumed = self.actions.unfinished().into_iter().filter(|action| !known.contains(&action.id));
        self.resumed.extend(resumed);
    }

    fn apply(&mut self, record: &Record) -> Vec<Draft> {
        if let Some(rules) = self.next_rules.take() {
            self.rules.replace(rules);
        }
        let time = self.time_at(&record.at);
        if let Some(before) = self.time.get(NOW) {
            let before_ms = before.t_ms;
            self.care.passed(before_ms, time.t_ms);
        }
        self.time.put(NOW, time.clone());
        self.rules.passed(time.t_ms);
        self.actions.present(&time);
        let mut out = Out::default();
        let origin = (record.epoch, record.pos);
        let now = Now { t_ms: time.t_ms, at: record.at.clone() };
        let mut signals = Vec::new();
        self.book.present(&now);
        // Before any deadline: a household that took its consent back has none any more.
        self.care.begin(&now, &mut signals, &mut out);
        if !is_own(record) {
            self.fire_due(&time, origin, &mut out);
        }
        match &record.body {
            Body::Alarm(alarm) => self.list(record, alarm),
            Body::Event(_) | Body::Telemetry(_) => {
                if let Some(order) = AlarmOrder::read(record) {
                    let verdict = self.book.order(&now, &order, &mut out);
                    self.verdicts.push((order.command, verdict));
                } else if let Some(action) = Action::read(record) {
                    let begun = Action::is_begun(record);
                    self.actions.asked(&now, &action, begun);
                    if !begun {
                        self.asked.push(action);
                    }
                } else if let Some(report) = Report::read(record) {
                    self.actions.reported(&now, &report, &mut signals);
                    if let Some((device, deed)) = Report::done_by(record) {
                        self.actions.done(&now, (&device, deed), record.test, &mut signals);
                    }
                } else {
                    self.book.supervise(&now, record, &mut signals);
                    self.care.apply(&now, record, self.plan.utc_offset_min, &mut signals);
                    self.rules.apply(&now, record, self.plan.utc_offset_min, &mut signals);
                }
            }
            Body::Gap(_) => {}
        }
        self.signal(&now, signals, origin, &mut out);
        out.drafts
    }

    fn restored(&mut self, record: &Record) {
        let Body::Alarm(alarm) = &record.body else { return };
        // An older revision has a newer one behind it.
        if self.roll.get(&alarm.alarm).is_some_and(|listed| listed.alarm.rev == alarm.rev) {
            self.list(record, alarm);
        }
    }

    fn unsaved(&self) -> Vec<(String, Option<String>)> {
        let mut rows = Vec::new();
        for part in self.parts() {
            part.unsaved(&mut rows);
        }
        // Time alone is no news where nothing waits for it; but what is stored is stored with the time that it is of.
        if !rows.is_empty() {
            rows.push(self.time.row(NOW));
        } else if self.next_due().is_some() {
            self.time.unsaved(&mut rows);
        }
        rows
    }

    fn commit(&mut self, saved: bool) {
        self.time.commit(saved);
        for part in self.parts_mut() {
            part.commit(saved);
        }
        for listed in self.listed.drain(..) {
            self.roll.put(listed);
        }
        for (command, verdict) in self.verdicts.drain(..) {
            self.roll.note(command, verdict);
        }
        for action in self.resumed.drain(..) {
            self.outlet.hand(action, true);
        }
        for action in self.asked.drain(..) {
            self.outlet.hand(action, false);
        }
    }

    fn rollback(&mut self) {
        self.time.rollback();
        for part in self.parts_mut() {
            part.rollback();
        }
        self.listed.clear();
        self.verdicts.clear();
        self.asked.clear();
    }

    fn due_ms(&self, boot: &BootId) -> Option<u64> {
        let (due, ..) = self.next_due()?;
        Some(self.time.get(NOW).map_or(0, |time| time.due_ms(due, boot)))
    }
}
