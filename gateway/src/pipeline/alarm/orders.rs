//! What people order about one alarm: acknowledge, assign, handle, close, put aside and take back. Must not know who may
//! order what.

use super::config::Terms;
use super::life::{Aside, Condition, Open, Seen};
use crate::model::alarm::{Change, ChangeKind, HandlingResult, Stage};
use crate::model::command::{AlarmOrder, AlarmVerb};
use crate::pipeline::Now;

/// Longest role or number that an alarm is given to; the contract of platforms takes as much.
pub(super) const ASSIGNEE_CHARS_MAX: usize = 128;
/// Longest note: with the rest of an alarm it fits a record.
pub(super) const NOTE_CHARS_MAX: usize = 500;
/// Longest reason, operator and command id that are kept with a change.
const REASON_CHARS_MAX: usize = 200;
const NAME_CHARS_MAX: usize = 64;
/// Longest command: an uplink's name and the id that it gave.
const COMMAND_CHARS_MAX: usize = 2 * NAME_CHARS_MAX + 1;

/// Why an order makes no sense here, for a person.
pub(super) type Impossible = String;

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// Who made the change that an order asks for.
pub(super) fn by_person(order: &AlarmOrder, what: ChangeKind) -> Change {
    let reason = Some(cut(&order.actor.reason, REASON_CHARS_MAX)).filter(|reason| !reason.is_empty());
    Change {
        what,
        actor: cut(&order.actor.operator, NAME_CHARS_MAX),
        source: order.actor.source.text(),
        command: Some(cut(&order.command, COMMAND_CHARS_MAX)),
        reason,
    }
}

impl Open {
    /// Does what a person orders. None: it is so already.
    pub(super) fn obey(
        &mut self,
        verb: &AlarmVerb,
        terms: &Terms,
        now: &Now,
    ) -> Result<Option<ChangeKind>, Impossible> {
        match verb {
            AlarmVerb::Acknowledge => {
                let news = self.seen != Seen::Yes;
                self.seen = Seen::Yes;
                Ok(news.then_some(ChangeKind::Acknowledged))
            }
            AlarmVerb::Assign { assignee } => self.assign(assignee),
            AlarmVerb::Handle { result, note } => self.handle(*result, note),
            AlarmVerb::Close => self.close(),
            AlarmVerb::Shelve { for_s } => self.shelve(*for_s, terms, now),
            AlarmVerb::Unshelve => {
                let news = matches!(self.aside, Aside::Shelved { .. });
                if news {
                    self.put(Aside::No, now);
                }
                Ok(news.then_some(ChangeKind::Unshelved))
            }
            AlarmVerb::TakeOutOfService => {
                let news = self.aside != Aside::OutOfService;
                if news {
                    self.put(Aside::OutOfService, now);
                }
                Ok(news.then_some(ChangeKind::OutOfService))
            }
            AlarmVerb::ReturnToService => {
                let news = self.aside == Aside::OutOfService;
                if news {
                    self.put(Aside::No, now);
                }
                Ok(news.then_some(ChangeKind::InService))
            }
        }
    }

    /// Somebody is sent; that they know of it, they say themselves, by acknowledging.
    fn assign(&mut self, assignee: &str) -> Result<Option<ChangeKind>, Impossible> {
        if assignee.is_empty() || assignee.chars().count() > ASSIGNEE_CHARS_MAX {
            return Err(format!("an assignee has 1 to {ASSIGNEE_CHARS_MAX} characters"));
        }
        let handling = &mut self.alarm.handling;
        let same = handling.stage == Stage::Assigned && handling.assignee.as_deref() == Some(assignee);
        if same {
            return Ok(None);
        }
        handling.stage = Stage::Assigned;
        handling.assignee = Some(assignee.to_owned());
        (handling.result, handling.note) = (None, None);
        Ok(Some(ChangeKind::Assigned))
    }

    /// Somebody was there, so they have seen it.
    fn handle(&mut self, result: HandlingResult, note: &str) -> Result<Option<ChangeKind>, Impossible> {
        if note.chars().count() > NOTE_CHARS_MAX {
            return Err(format!("a note has at most {NOTE_CHARS_MAX} characters"));
        }
        let note = Some(note.to_owned()).filter(|note| !note.is_empty());
        let handling = &mut self.alarm.handling;
        let same =
            handling.stage == Stage::Handled && handling.result == Some(result) && handling.note == note;
        if same && self.seen == Seen::Yes {
            return Ok(None);
        }
        handling.stage = Stage::Handled;
        handling.result = Some(result);
        handling.note = note;
        self.seen = Seen::Yes;
        Ok(Some(ChangeKind::Handled))
    }

    /// The end. What still holds cannot be closed, unless it was taken out of service before: two steps, so that nobody
    /// closes a fire, and what a broken sensor or a deleted rule has left behind can go.
    fn close(&mut self) -> Result<Option<ChangeKind>, Impossible> {
        if self.holds() && self.aside != Aside::OutOfService {
            let flapping = self.condition != Condition::Holds;
            let what =
                if flapping { "the condition still comes and goes" } else { "the condition still holds" };
            return Err(format!("{what}; wait until it is over, or take the alarm out of service first"));
        }
        self.end();
        Ok(Some(ChangeKind::Closed))
    }

    fn shelve(&mut self, for_s: u64, terms: &Terms, now: &Now) -> Result<Option<ChangeKind>, Impossible> {
        if self.aside == Aside::OutOfService {
            return Err("it is out of service; return it to service first".to_owned());
        }
        if for_s == 0 || for_s > terms.shelve_max_s {
            return Err(format!("an alarm can be shelved for 1 to {} s", terms.shelve_max_s));
        }
        self.put(Aside::Shelved { until_ms: now.t_ms.saturating_add(for_s.saturating_mul(1_000)) }, now);
        Ok(Some(ChangeKind::Shelved))
    }
}
