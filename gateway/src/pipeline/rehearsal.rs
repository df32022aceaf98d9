//! Rehearsals: rules over records of the past, without acting. What is asked of devices is taken as done at once. What
//! people ordered about an alarm they order about the same alarm here; one that was not there in the past is closed for
//! them as soon as its condition and its cooldown are over, so that the next of its kind is counted too.

use std::collections::{BTreeMap, BTreeSet};

use super::{OWN, Pipeline};
use crate::model::action::{Action, Progress, Report};
use crate::model::alarm::Alarm;
use crate::model::command::{Actor, AlarmOrder, AlarmVerb, Origin, is_tick, tick};
use crate::model::ids::{BusName, DeviceId, RuleName, Seq};
use crate::model::journal::Fold;
use crate::model::limits::{FOLD_DEPTH_MAX, FOLD_DRAFTS_MAX};
use crate::model::record::{Body, Draft, Record, Value};

/// Ticks between two records: each fires some dozens of deadlines, so that this is far more than a box can have waiting.
const TICKS_MAX: usize = 512;

/// Events of the gateway that orders of people leave behind.
const OF_COMMANDS: &str = "command.";

/// Parameters by which the box itself says what of it is meant.
const OF_GATEWAY: [&str; 3] = ["bus", "uplink", "notifier"];

/// What makes an alarm of the past and one of the rehearsal the same: rule, device, of the box itself which part, and
/// whether it is a test.
type About = (Option<RuleName>, DeviceId, Option<String>, bool);

/// A pipeline that is shown the past.
#[derive(Debug)]
pub struct Rehearsal {
    pipeline: Pipeline,
    seq: Seq,
    /// The alarms that really were open at this moment, by id.
    real: BTreeMap<String, About>,
    /// The same, without their ids.
    standing: BTreeSet<About>,
    /// The open alarms of the rehearsal.
    ours: BTreeMap<About, String>,
    /// When those that there were not are closed, as far as it is known.
    closings: BTreeSet<(u64, About)>,
}

/// Gets the record of each alarm and each of its changes.
pub type Tell<'a> = dyn FnMut(&Record) + 'a;

/// Whether it came from outside: from a device, or from the box itself as one.
pub fn is_input(record: &Record) -> bool {
    match &record.body {
        Body::Telemetry(_) => true,
        Body::Event(event) if event.device.is_gateway() => {
            let of_commands = event.name.starts_with(OF_COMMANDS) || AlarmOrder::read(record).is_some();
            let of_pipeline = OWN.iter().any(|head| event.name.starts_with(head));
            !(of_commands || of_pipeline || is_tick(record))
        }
        Body::Event(_) => true,
        Body::Alarm(_) | Body::Gap(_) => false,
    }
}

impl Rehearsal {
    /// A pipeline that knows nothing yet, and does nothing.
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            seq: 0,
            real: BTreeMap::new(),
            standing: BTreeSet::new(),
            ours: BTreeMap::new(),
            closings: BTreeSet::new(),
        }
    }

    /// Shows it the next record, in the order of positions; of those that did not come from outside it learns the time.
    pub fn feed(&mut self, record: &Record, tell: &mut Tell<'_>) {
        if is_input(record) {
            // Only now: the alarms that there really were stand right behind what raised them.
            self.close_over(record, tell);
            self.fold(record, tell);
        } else if let Body::Alarm(alarm) = &record.body {
            self.see(record, alarm);
        } else if let Some(order) = AlarmOrder::read(record)
            && let Some(ours) = self.real.get(&order.alarm).and_then(|about| self.ours.get(about)).cloned()
        {
            self.order(&AlarmOrder { alarm: ours, rev: None, ..order }, record, tell);
        }
        for _ in 0..TICKS_MAX {
            let due = self.pipeline.due_ms(&record.at.boot);
            if due.is_none_or(|due_ms| due_ms > record.at.mono_ms) {
                break;
            }
            let tick = self.number(tick(&record.at), record);
            self.fold(&tick, tell);
        }
    }

    /// An alarm that there really was.
    fn see(&mut self, record: &Record, alarm: &Alarm) {
        let about = about(record, alarm);
        if alarm.is_open() {
            self.real.insert(alarm.alarm.clone(), about.clone());
            self.standing.insert(about);
        } else {
            self.real.remove(&alarm.alarm);
            self.standing.remove(&about);
            self.plan_closing(about);
        }
    }

    /// An alarm of the rehearsal.
    fn note(&mut self, made: &Record, alarm: &Alarm) {
        let about = about(made, alarm);
        if alarm.is_open() {
            self.ours.insert(about.clone(), alarm.alarm.clone());
            self.plan_closing(about);
        } else if self.ours.get(&about) == Some(&alarm.alarm) {
            self.ours.remove(&about);
        }
    }

    fn plan_closing(&mut self, about: About) {
        let over = self.ours.get(&about).and_then(|alarm| self.pipeline.book.over_from_ms(alarm));
        if let Some(from_ms) = over.filter(|_| !self.standing.contains(&about)) {
            self.closings.insert((from_ms, about));
        }
    }

    /// Closes what only waits for a person, if nobody was there who could have done it.
    fn close_over(&mut self, record: &Record, tell: &mut Tell<'_>) {
        if self.closings.is_empty() {
            return;
        }
        let t_ms = self.pipeline.time_at(&record.at).t_ms;
        while self.closings.first().is_some_and(|(from_ms, _)| *from_ms <= t_ms) {
            let Some((_, about)) = self.closings.pop_first() else { return };
            let Some(alarm) = self.ours.get(&about).cloned() else { continue };
            if self.pipeline.book.over_from_ms(&alarm).is_none_or(|from_ms| from_ms > t_ms) {
                self.plan_closing(about);
            } else if !self.standing.contains(&about) {
                let (operator, reason) = ("rehearsal".to_owned(), String::new());
                let actor = Actor { operator, source: Origin::Console, reason };
                let command = format!("rehearsal {}", self.seq);
                self.order(
                    &AlarmOrder { command, alarm, rev: None, verb: AlarmVerb::Close, actor },
                    record,
                    tell,
                );
            }
        }
    }

    fn order(&mut self, order: &AlarmOrder, record: &Record, tell: &mut Tell<'_>) {
        let order = self.number(order.draft(&record.at), record);
        self.fold(&order, tell);
    }

    /// Folds a record and what it gives rise to, within the same bounds as the journal's.
    fn fold(&mut self, record: &Record, tell: &mut Tell<'_>) {
        let mut left = FOLD_DRAFTS_MAX;
        let mut waiting: Vec<(Draft, usize)> = Vec::new();
        self.apply(record, 1, &mut waiting, &mut left);
        while let Some((draft, depth)) = waiting.pop() {
            let made = self.number(draft, record);
            self.apply(&made, depth.saturating_add(1), &mut waiting, &mut left);
            if let Body::Alarm(alarm) = &made.body {
                self.note(&made, alarm);
                tell(&made);
            }
        }
        self.pipeline.commit(true);
    }

    fn apply(&mut self, record: &Record, depth: usize, waiting: &mut Vec<(Draft, usize)>, left: &mut usize) {
        let mut drafts = self.pipeline.apply(record);
        drafts.truncate(if depth > FOLD_DEPTH_MAX { 0 } else { *left });
        *left = left.saturating_sub(drafts.len());
        if let Some(action) = Action::read(record) {
            drafts.push(done(&action, record));
        }
        waiting.extend(drafts.into_iter().rev().map(|draft| (draft, depth)));
    }

    /// A record that only this rehearsal knows.
    fn number(&mut self, draft: Draft, cause: &Record) -> Record {
        self.seq = self.seq.saturating_add(1);
        let Draft { at, test, body, .. } = draft;
        let (pos, epoch, class) = (cause.pos, cause.epoch, body.class());
        Record { pos, epoch, class, seq: self.seq, at, test, body }
    }
}

fn about(record: &Record, alarm: &Alarm) -> About {
    let device = &alarm.raised.device;
    let named = OF_GATEWAY.iter().find_map(|name| alarm.raised.params.get(*name));
    let part = match named {
        Some(Value::Text(part)) if device.is_gateway() => Some(part.to_string()),
        _ => device.bus.as_ref().filter(|_| device.is_gateway()).map(BusName::to_string),
    };
    (alarm.rule.clone(), device.id.clone(), part, record.test)
}

/// The report of a device that does what it is asked.
fn done(action: &Action, asked: &Record) -> Draft {
    let detail = "rehearsed".to_owned();
    let report = Report { action: action.id.clone(), progress: Progress::Confirmed, attempt: 1, detail };
    report.draft(&asked.at, action)
}
