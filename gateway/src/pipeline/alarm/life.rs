//! The life of one alarm by ISA-18.2 / IEC 62682: its row, and what each input does to it (the whole table stands in
//! docs/alarms.md). Must not know other alarms, limits on how many there are, or records other than its own.
//!
//! The state is never set: it follows from the condition, from what people did, and from where the alarm was put.

use serde::{Deserialize, Serialize};

use super::config::Terms;
use crate::model::alarm::{Alarm, AlarmState, Change, ChangeKind, Stage};
use crate::model::ids::Seq;
use crate::model::record::{Body, Draft, Severity};
use crate::model::stamp::Stamp;
use crate::pipeline::action::Asked;
use crate::pipeline::action::spec::ActionSpec;
use crate::pipeline::signal::{Escalation, Raise};
use crate::pipeline::table::Row;
use crate::pipeline::{Now, Out};

/// How the condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    Holds,
    /// It happened at once, as a press does: there is nothing that could end.
    Happened,
    Ended,
}

/// Where a person has put the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aside {
    No,
    Shelved { until_ms: u64 },
    OutOfService,
}

/// Whether somebody has seen it. What nobody has seen grows worse, where its rule says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seen {
    Not { escalate_at_ms: Option<u64> },
    Yes,
}

/// What a change is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    Nothing,
    /// Within the rate of what is told again.
    AtRate,
    AtOnce(ChangeKind),
}

/// An open alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    /// As it was told last.
    pub(super) alarm: Alarm,
    /// When that was, and the record that holds it; 0: not stored yet.
    pub(super) at: Stamp,
    pub(super) seq: Seq,
    pub(super) test: bool,
    pub(super) subject: String,
    pub(super) condition: Condition,
    pub(super) seen: Seen,
    pub(super) aside: Aside,
    /// How often it was raised until now, told or not.
    pub(super) count: u64,
    /// When it was told last that it was raised again, and when it is due to be told again.
    told_ms: u64,
    tell_at_ms: Option<u64>,
    /// Comes and goes too often, until then.
    pub(super) flapping_until_ms: Option<u64>,
    /// Over by itself then.
    over_at_ms: Option<u64>,
    /// From then on, that it comes again is as good as a new one.
    pub(super) fresh_from_ms: u64,
    escalation: Option<Escalation>,
    /// What it asks for, and since when that is good.
    actions: Vec<ActionSpec>,
    act_within_ms: u64,
    pub(super) arose: Stamp,
}

impl Row for Open {
    fn due_ms(&self) -> Option<u64> {
        let shelf = match self.aside {
            Aside::Shelved { until_ms } => Some(until_ms),
            Aside::No | Aside::OutOfService => None,
        };
        let escalate = match self.seen {
            Seen::Not { escalate_at_ms } => escalate_at_ms,
            Seen::Yes => None,
        };
        [shelf, escalate, self.tell_at_ms, self.flapping_until_ms, self.over_at_ms]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Who made a change.
pub(super) fn by_rule(alarm: &Alarm, what: ChangeKind) -> Change {
    let actor = alarm.rule.as_ref().map_or_else(|| "gateway".to_owned(), |rule| format!("rule {rule}"));
    Change { what, actor, source: "rule".to_owned(), command: None, reason: None }
}

impl Open {
    /// A new alarm, not told yet.
    pub(super) fn new(id: String, raise: &Raise, count: u64, terms: &Terms, now: &Now) -> Self {
        let mut alarm = Alarm::new(id, AlarmState::Unacknowledged, raise.condition.clone());
        alarm.rev = 0;
        alarm.latched = raise.latched;
        alarm.arose = Some(raise.at.clone());
        alarm.rule = Some(raise.rule.clone());
        alarm.hides.clone_from(&raise.hides);
        let mut open = Self {
            alarm,
            at: now.at.clone(),
            seq: 0,
            test: raise.test,
            subject: raise.subject.clone(),
            condition: if raise.lasts { Condition::Holds } else { Condition::Happened },
            seen: Seen::Yes,
            aside: Aside::No,
            count,
            told_ms: now.t_ms,
            tell_at_ms: None,
            flapping_until_ms: None,
            over_at_ms: None,
            fresh_from_ms: fresh_from_ms(raise, terms, now),
            // A test calls nobody, and nobody has to hurry.
            escalation: raise.escalate.filter(|_| !raise.test),
            actions: raise.actions.clone(),
            act_within_ms: raise.act_within_ms,
            arose: raise.at.clone(),
        };
        open.unsee(now);
        open
    }

    /// Whether the condition counts as holding: one that comes and goes too often does, until it is calm.
    pub(super) fn holds(&self) -> bool {
        self.condition == Condition::Holds || self.flapping_until_ms.is_some()
    }

    /// The state, from all that is known.
    pub(super) fn state(&self) -> AlarmState {
        match self.aside {
            Aside::Shelved { .. } => return AlarmState::Shelved,
            Aside::OutOfService => return AlarmState::OutOfService,
            Aside::No => {}
        }
        let seen = self.seen == Seen::Yes;
        if self.holds() {
            return if seen { AlarmState::Acknowledged } else { AlarmState::Unacknowledged };
        }
        match (seen, self.condition) {
            (true, _) if self.needs_person() => AlarmState::Acknowledged,
            (true, _) => AlarmState::Normal,
            (false, Condition::Happened) => AlarmState::Unacknowledged,
            (false, Condition::Holds | Condition::Ended) => AlarmState::ReturnedUnacknowledged,
        }
    }

    /// Whether somebody still has to close it, though the condition is over and was seen.
    fn needs_person(&self) -> bool {
        match self.alarm.handling.stage {
            Stage::Open => self.alarm.latched,
            Stage::Assigned | Stage::Handled => true,
            Stage::Closed => false,
        }
    }

    /// Whether a limit may take it away.
    pub(super) fn may_fold(&self) -> bool {
        self.test || may_fold(&self.alarm)
    }

    /// The condition has come again. `fresh`: so long after the last time that it is as good as a new one.
    pub(super) fn again(
        &mut self,
        raise: &Raise,
        times: u64,
        fresh: bool,
        terms: &Terms,
        now: &Now,
    ) -> Worth {
        self.count = self.count.saturating_add(times);
        let before = self.condition;
        self.condition = match (raise.lasts, before) {
            (true, _) | (false, Condition::Holds) => Condition::Holds,
            (false, Condition::Happened | Condition::Ended) => Condition::Happened,
        };
        if fresh {
            self.arose = raise.at.clone();
            self.fresh_from_ms = fresh_from_ms(raise, terms, now);
            self.actions.clone_from(&raise.actions);
            self.act_within_ms = raise.act_within_ms;
            if self.seen == Seen::Yes {
                self.unsee(now);
                self.reopen();
            }
        }
        self.worth(ChangeKind::RaisedAgain)
    }

    /// The condition is over.
    pub(super) fn clear(&mut self) -> Worth {
        if self.condition != Condition::Holds {
            return Worth::Nothing;
        }
        self.condition = Condition::Ended;
        match self.worth(ChangeKind::Returned) {
            Worth::AtRate => Worth::Nothing,
            worth => worth,
        }
    }

    /// What was told is at once wrong, or only counts less; aside, nothing is told until it is back.
    fn worth(&self, kind: ChangeKind) -> Worth {
        if self.aside != Aside::No {
            return Worth::Nothing;
        }
        let changed = self.state() != self.alarm.state || self.holds() != self.alarm.active;
        if changed { Worth::AtOnce(kind) } else { Worth::AtRate }
    }

    /// Nobody has seen it as it is now.
    fn unsee(&mut self, now: &Now) {
        let escalation = self.escalation.filter(|_| self.aside == Aside::No);
        let at_ms = escalation.map(|escalation| now.t_ms.saturating_add(escalation.after_ms));
        self.seen = Seen::Not { escalate_at_ms: at_ms };
    }

    /// It happened again after somebody was there: what they found is history, who sees to it stays.
    fn reopen(&mut self) {
        let handling = &mut self.alarm.handling;
        handling.stage = if handling.assignee.is_some() { Stage::Assigned } else { Stage::Open };
        (handling.result, handling.note) = (None, None);
    }

    /// Comes and goes too often from now on, or still.
    pub(super) fn flap(&mut self, terms: &Terms, now: &Now) -> Worth {
        let began = self.flapping_until_ms.is_none();
        self.flapping_until_ms = Some(now.t_ms.saturating_add(terms.flapping_ms));
        match (began, self.aside) {
            (true, Aside::No) => Worth::AtOnce(ChangeKind::Flapping),
            (false, Aside::No) => Worth::AtRate,
            (_, Aside::Shelved { .. } | Aside::OutOfService) => Worth::Nothing,
        }
    }

    /// Puts it aside, or takes it back. While it is aside nothing escalates; back, time begins anew.
    pub(super) fn put(&mut self, aside: Aside, now: &Now) {
        self.aside = aside;
        self.alarm.shelved_until = match aside {
            Aside::Shelved { until_ms } => Some(now.later(until_ms)),
            Aside::No | Aside::OutOfService => None,
        };
        if self.seen != Seen::Yes {
            self.unsee(now);
        }
    }

    /// What raised it, as if it were raised now: for a condition that outlives its alarm.
    pub(super) fn raise(&self) -> Option<Raise> {
        Some(Raise {
            rule: self.alarm.rule.clone()?,
            subject: self.subject.clone(),
            at: self.arose.clone(),
            condition: self.alarm.raised.clone(),
            lasts: self.condition == Condition::Holds,
            latched: self.alarm.latched,
            cooldown_ms: 0,
            escalate: self.escalation,
            actions: self.actions.clone(),
            act_within_ms: self.act_within_ms,
            hides: self.alarm.hides.clone(),
            test: self.test,
        })
    }

    /// Nothing of it is left for anybody.
    pub(super) fn end(&mut self) {
        self.alarm.handling.stage = Stage::Closed;
        self.alarm.shelved_until = None;
        (self.seen, self.aside, self.condition) = (Seen::Yes, Aside::No, Condition::Ended);
        (self.flapping_until_ms, self.over_at_ms) = (None, None);
    }

    /// The first deadline that has come: what is to be told, and whether actions may be asked for again.
    pub(super) fn fire(&mut self, terms: &Terms, now: &Now) -> Option<ChangeKind> {
        let past = |at_ms: u64| at_ms <= now.t_ms;
        if let Aside::Shelved { until_ms } = self.aside
            && past(until_ms)
        {
            self.put(Aside::No, now);
            return Some(ChangeKind::Unshelved);
        }
        if let (Seen::Not { escalate_at_ms: Some(at_ms) }, Some(escalation)) = (self.seen, self.escalation)
            && past(at_ms)
        {
            self.seen = Seen::Not { escalate_at_ms: None };
            self.escalation = None;
            if self.alarm.severity() >= Some(escalation.to) {
                return None;
            }
            self.alarm.severity = Some(escalation.to);
            return Some(ChangeKind::Escalated);
        }
        if self.flapping_until_ms.is_some_and(past) {
            self.flapping_until_ms = None;
            return (self.aside == Aside::No).then_some(ChangeKind::Calmed);
        }
        if self.over_at_ms.is_some_and(past) {
            self.end();
            return Some(ChangeKind::Closed);
        }
        if self.tell_at_ms.is_some_and(past) {
            (self.told_ms, self.tell_at_ms) = (now.t_ms, None);
            let news = self.aside == Aside::No && self.count > self.alarm.count;
            return news.then_some(ChangeKind::RaisedAgain);
        }
        // Its deadlines stand in another order now.
        self.plan(terms, now);
        None
    }

    /// Whether that it was raised again may be told now; else it is told later.
    pub(super) fn may_tell(&mut self, terms: &Terms, now: &Now) -> bool {
        let from_ms = self.told_ms.saturating_add(terms.again_ms);
        if from_ms <= now.t_ms || self.alarm.count <= 1 {
            self.told_ms = now.t_ms;
            self.tell_at_ms = None;
            return true;
        }
        self.tell_at_ms = self.tell_at_ms.or(Some(from_ms));
        false
    }

    /// When it is over by itself: a test soon, and what is of little weight and was touched by nobody.
    fn plan(&mut self, terms: &Terms, now: &Now) {
        let small = self.alarm.severity() <= Some(Severity::Minor) && !self.alarm.latched;
        let untouched = self.seen != Seen::Yes && self.alarm.handling.stage == Stage::Open;
        let after_ms = if self.holds() || self.aside != Aside::No {
            None
        } else if self.test {
            Some(terms.test_ms)
        } else {
            (small && untouched).then_some(terms.untouched_ms)
        };
        self.over_at_ms = after_ms.map(|ms| now.t_ms.saturating_add(ms));
    }

    /// Tells what it is now.
    pub(super) fn tell(&mut self, change: Change, terms: &Terms, now: &Now, out: &mut Out) {
        self.plan(terms, now);
        self.tell_at_ms = None;
        let state = self.state();
        let alarm = &mut self.alarm;
        alarm.rev = alarm.rev.saturating_add(1);
        alarm.state = state;
        alarm.count = self.count;
        alarm.change = Some(change);
        alarm.flapping = self.flapping_until_ms.is_some();
        self.alarm.active = self.holds();
        self.at = now.at.clone();
        let body = Body::Alarm(Box::new(self.alarm.clone()));
        out.drafts.push(Draft { at: now.at.clone(), test: self.test, dedup: None, body });
    }

    /// The same when it has grown worse, from now on: but no door is released again for it.
    pub(super) fn asks_louder(&self, now: &Now) -> Option<Asked> {
        let mut asked = self.asks()?;
        asked.specs.retain(|spec| spec.unlock.is_none());
        asked.at = now.at.clone();
        (!asked.specs.is_empty()).then_some(asked)
    }

    /// What it asks devices to do, unless it asks for nothing or has been put aside.
    pub(super) fn asks(&self) -> Option<Asked> {
        let silent = self.test || self.actions.is_empty() || self.aside != Aside::No;
        (!silent).then(|| Asked {
            alarm: self.alarm.clone(),
            specs: self.actions.clone(),
            at: self.arose.clone(),
            act_within_ms: self.act_within_ms,
            test: self.test,
        })
    }
}

/// Whether a limit may take such an alarm away.
pub(super) fn may_fold(alarm: &Alarm) -> bool {
    !alarm.latched && alarm.severity() < Some(Severity::Critical)
}

/// What has no cooldown is not new with each press either.
fn fresh_from_ms(raise: &Raise, terms: &Terms, now: &Now) -> u64 {
    now.t_ms.saturating_add(raise.cooldown_ms.max(terms.again_ms))
}
