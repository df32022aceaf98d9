//! Rehearsals: rules over records of the past, without acting. What people and devices did because of the rules of that
//! time is left out; what is asked of devices is taken as done at once.

use super::Pipeline;
use crate::model::action::{Action, Progress, Report};
use crate::model::command::{AlarmOrder, is_tick, tick};
use crate::model::ids::Seq;
use crate::model::journal::Fold;
use crate::model::limits::{FOLD_DEPTH_MAX, FOLD_DRAFTS_MAX};
use crate::model::record::{Body, Draft, Record};

/// Ticks between two records: each fires some dozens of deadlines, so that this is far more than a box can have waiting.
const TICKS_MAX: usize = 512;

/// Events of the gateway that orders of people leave behind.
const OF_COMMANDS: &str = "command.";

/// A pipeline that is shown the past.
#[derive(Debug)]
pub struct Rehearsal {
    pipeline: Pipeline,
    seq: Seq,
}

/// Gets the record of each alarm and each of its changes.
pub type Tell<'a> = dyn FnMut(&Record) + 'a;

/// Whether it came from outside: from a device, or from the box itself as one.
pub fn is_input(record: &Record) -> bool {
    match &record.body {
        Body::Telemetry(_) => true,
        Body::Event(event) if event.device.is_gateway() => {
            let of_commands = event.name.starts_with(OF_COMMANDS) || AlarmOrder::read(record).is_some();
            let of_actions = Action::read(record).is_some() || Report::read(record).is_some();
            !(of_commands || of_actions || is_tick(record))
        }
        Body::Event(_) => true,
        Body::Alarm(_) | Body::Gap(_) => false,
    }
}

impl Rehearsal {
    /// A pipeline that knows nothing yet, and does nothing.
    pub const fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, seq: 0 }
    }

    /// Shows it the next record, in the order of positions; of those that did not come from outside it learns the time.
    pub fn feed(&mut self, record: &Record, tell: &mut Tell<'_>) {
        if is_input(record) {
            self.fold(record, tell);
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

    /// Folds a record and what it gives rise to, within the same bounds as the journal's.
    fn fold(&mut self, record: &Record, tell: &mut Tell<'_>) {
        let mut left = FOLD_DRAFTS_MAX;
        let mut waiting: Vec<(Draft, usize)> = Vec::new();
        self.apply(record, 1, &mut waiting, &mut left);
        while let Some((draft, depth)) = waiting.pop() {
            let made = self.number(draft, record);
            if let Body::Alarm(_) = &made.body {
                tell(&made);
            }
            self.apply(&made, depth.saturating_add(1), &mut waiting, &mut left);
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

/// The report of a device that does what it is asked.
fn done(action: &Action, asked: &Record) -> Draft {
    let detail = "rehearsed".to_owned();
    let report = Report { action: action.id.clone(), progress: Progress::Confirmed, attempt: 1, detail };
    report.draft(&asked.at, action)
}
