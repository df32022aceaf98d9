//! What the engine says of the uplink: state and snapshot to the platform, events to the journal, trouble and numbers
//! to the board. Also the look-out: critical records that wait, and a link that has died in silence.

use std::collections::BTreeMap;

use crate::model::cursor::Cursors;
use crate::model::record::{Body, Class, Draft, Gap, Record, Severity, Text, Value};
use crate::model::stamp::Stamp;
use crate::north::config::Delivery;
use crate::north::contract::{ClassState, StateReason};
use crate::rt::board::PendingStatus;

use super::line::{AsideState, Line};
use super::sending::last_seen;
use super::source::{Read, Source, SourceError, Standing};
use super::stream::Kind;
use super::{
    Actions, Engine, Lost, NOBODY_EVENT_MS, Phase, Purpose, READ_BYTES, READ_RECORDS, RECEIPT_SILENCE_MAX_MS,
    RECEIPT_SILENCE_MS, SETTLE_MAX, SLOW_PUBACK_FACTOR, STEP_RECORDS_MAX, Settlement, Stage,
};

/// An event of the gateway itself, as the uplink tells it.
pub(in crate::north) fn gateway_event(
    at: &Stamp,
    name: &str,
    severity: Severity,
    params: BTreeMap<String, Value>,
    text: Text,
) -> Draft {
    Draft::of_gateway(at, None, (name, Some(severity)), params, text)
}

pub(super) fn is_critical(record: &Record) -> bool {
    let severity = match &record.body {
        Body::Alarm(alarm) => alarm.severity(),
        Body::Event(event) => event.severity,
        Body::Telemetry(_) | Body::Gap(_) => None,
    };
    severity == Some(Severity::Critical)
}

impl Engine {
    /// Where the uplink stands, as state and snapshot tell it; none without a connection.
    pub(super) fn standing(&mut self, online: bool, reason: StateReason) -> Option<Standing> {
        let up = self.up()?;
        up.rev += 1;
        let (conn, rev, epoch) = (up.session.conn, up.rev, up.session.epoch);
        let state = |line: &Line| {
            let mut pending = line.backlog.left(false);
            for &seq in line.aside.keys() {
                pending.insert(seq, seq);
            }
            ClassState {
                last: line.last_seen,
                live_from: line.live_from,
                pending: pending.as_slice().to_vec(),
            }
        };
        let classes = self.lines.iter().map(|(&class, line)| (class, state(line))).collect();
        let last = self.lines.iter().map(|(&class, line)| (class, line.last_seen)).collect();
        Some(Standing { conn, rev, epoch, online, reason, classes, last })
    }

    /// A new connection: fixes the heads and says where things stand, before anything else is sent. Later: says the
    /// state again where it is due.
    pub(super) fn announce(
        &mut self,
        now: &Stamp,
        source: &mut dyn Source,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        let now_ms = now.mono_ms;
        let Some(up) = self.up() else { return Ok(()) };
        if up.stage == Stage::Draining {
            return Ok(());
        }
        let fresh = up.stage == Stage::Fresh;
        if fresh {
            self.look_for_critical(source, now_ms, actions)?;
            self.fix_heads(now_ms, source)?;
        }
        let empty = self.lines.values().all(|line| line.backlog.is_idle());
        let Some(up) = self.up() else { return Ok(()) };
        let reason = match up.state_due {
            _ if fresh => StateReason::Connected,
            Some((due_ms, reason)) if now_ms >= due_ms => reason,
            _ if up.announced && empty => StateReason::Progress,
            Some((due_ms, _)) => {
                actions.wake(due_ms);
                return Ok(());
            }
            None => return Ok(()),
        };
        up.stage = Stage::Serving;
        up.state_due = None;
        up.announced = !empty;
        let Some(standing) = self.standing(true, reason) else { return Ok(()) };
        let state = self.wording.state(&standing, now);
        let pages = if fresh { self.wording.snapshot(&standing, now) } else { Vec::new() };
        if let Some(up) = self.up() {
            up.control.push_back((state, Purpose::State));
            up.control.extend(pages.into_iter().map(|page| (page, Purpose::Said)));
        }
        Ok(())
    }

    fn fix_heads(&mut self, now_ms: u64, source: &mut dyn Source) -> Result<(), SourceError> {
        let long = match &self.phase {
            Phase::Up(up) => up.after_ms.is_none_or(|after_ms| after_ms >= super::SHORT_OUTAGE_MS),
            Phase::Down { .. } => false,
        };
        let delay_max_ms = u64::from(self.settings.pacing.backlog_delay_max_s) * 1_000;
        for line in self.lines.values_mut() {
            // Alarms first, and danger waits for nobody.
            let waits = long && line.class != Class::Alarm && !line.critical;
            let delay_ms = if waits { self.rng.u64(0..=delay_max_ms) } else { 0 };
            line.last_seen = last_seen(line.class, line.end, line.first, self.wording.as_ref(), source)?;
            line.fix_head();
            line.backlog_at_ms = now_ms + delay_ms;
        }
        self.dirty = true;
        Ok(())
    }

    /// Looks whether something critical is among what waits, a bounded number of records at a time.
    pub(super) fn look_for_critical(
        &mut self,
        source: &mut dyn Source,
        now_ms: u64,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        let mut budget = STEP_RECORDS_MAX;
        for line in self.lines.values_mut().filter(|line| line.class != Class::Telemetry) {
            while !line.critical && line.scanned + 1 < line.end {
                if budget == 0 {
                    actions.wake(now_ms);
                    return Ok(());
                }
                let (from, to) = (line.scanned + 1, line.end - 1);
                let reads = source.read(line.class, from, to, READ_RECORDS, READ_BYTES)?;
                budget = budget.saturating_sub(reads.len().max(1));
                line.scanned = to;
                if let Some(last) = reads.last() {
                    line.scanned = match last {
                        Read::Record(record) => record.seq,
                        Read::Unreadable { seq, .. } => *seq,
                    };
                }
                line.critical = reads.iter().any(|read| match read {
                    Read::Record(record) => is_critical(record) && self.wording.sees(record),
                    Read::Unreadable { .. } => false,
                });
            }
        }
        Ok(())
    }

    /// Whether a critical record is known to wait.
    pub fn critical_waits(&self) -> bool {
        self.lane.critical() || self.lines.values().any(|line| line.critical && line.lowest().is_some())
    }

    /// Missing PUBACKs and receipts.
    pub(super) fn watch(&mut self, now_ms: u64, actions: &mut Actions) {
        let timeout_ms = u64::from(self.settings.pacing.puback_timeout_s) * 1_000;
        let Some(up) = self.up() else { return };
        if let Some(oldest) = up.underway.values().next() {
            let silent_at = oldest.at_ms.max(up.heard_ms) + timeout_ms;
            let stuck_at = oldest.at_ms + timeout_ms * SLOW_PUBACK_FACTOR;
            let cut_at = silent_at.min(stuck_at);
            if now_ms >= cut_at {
                let waited_s = now_ms.saturating_sub(oldest.at_ms) / 1_000;
                actions.cut = Some(format!(
                    "the broker has not acknowledged a message on {} for {waited_s} s: the line is cut or the broker hangs",
                    oldest.topic
                ));
            } else {
                actions.wake(cut_at);
            }
        }
        if self.settings.delivery == Delivery::Receipt {
            self.watch_receipts(now_ms, actions);
        }
    }

    fn watch_receipts(&mut self, now_ms: u64, actions: &mut Actions) {
        let mut orphans = Vec::new();
        for line in self.lines.values_mut() {
            for kind in [Kind::Live, Kind::Backlog] {
                let stream = line.stream(kind);
                let Some(since_ms) = stream.unconfirmed_since_ms() else { continue };
                let silence_ms = RECEIPT_SILENCE_MS.saturating_mul(1 << stream.silences.min(8));
                let due_ms = since_ms + silence_ms.min(RECEIPT_SILENCE_MAX_MS);
                if now_ms >= due_ms {
                    orphans.extend(stream.go_back_all());
                    stream.silences += 1;
                } else {
                    actions.wake(due_ms);
                }
            }
            for aside in line.aside.values_mut() {
                if let AsideState::Acked { at_ms } = aside.state {
                    let due_ms = at_ms + RECEIPT_SILENCE_MS;
                    if now_ms >= due_ms {
                        aside.state = AsideState::Waiting { until_ms: now_ms };
                    } else {
                        actions.wake(due_ms);
                    }
                }
            }
        }
        self.orphan(&orphans);
    }

    /// Gap records for what was given up, one settlement at a time.
    pub(super) fn settle_lost(&mut self, now: &Stamp, actions: &mut Actions) {
        if self.settling.is_some() || self.lost.is_empty() {
            return;
        }
        if now.mono_ms < self.settle_at_ms {
            actions.wake(self.settle_at_ms);
            return;
        }
        let count = self.lost.len().min(SETTLE_MAX);
        let mut gaps: Vec<Gap> = Vec::new();
        for lost in self.lost.iter().take(count) {
            let joins = gaps.last_mut().filter(|gap| {
                gap.class == lost.class
                    && gap.to + 1 == lost.seq
                    && gap.reason == lost.reason
                    && gap.detail == lost.detail
            });
            match joins {
                Some(gap) => {
                    gap.to = lost.seq;
                    gap.count += 1;
                }
                None => gaps.push(self.gap(lost)),
            }
        }
        let ticket = self.next_token;
        self.next_token += 1;
        self.settling = Some((ticket, count));
        let draft = |gap| Draft { at: now.clone(), test: false, dedup: None, body: Body::Gap(gap) };
        // Only what this settlement covers may be passed in the same commit.
        let all = count == self.lost.len();
        let cursors =
            Cursors { classes: self.lines.iter().map(|(&class, line)| (class, line.cursor(all))).collect() };
        actions.settle = Some(Settlement { ticket, drafts: gaps.into_iter().map(draft).collect(), cursors });
    }

    fn gap(&self, lost: &Lost) -> Gap {
        Gap {
            uplink: Some(self.settings.uplink.clone()),
            epoch: None,
            class: lost.class,
            from: lost.seq,
            to: lost.seq,
            count: 1,
            reason: lost.reason,
            detail: lost.detail.clone(),
        }
    }

    /// The gap records of `ticket` are on disk, or could not be written.
    pub fn settled(&mut self, ticket: u64, written: bool, now_ms: u64) {
        let Some((expected, count)) = self.settling else { return };
        if expected != ticket {
            return;
        }
        self.settling = None;
        if !written {
            self.settle_at_ms = now_ms + super::RETRY_MS;
            return;
        }
        for lost in self.lost.drain(..count.min(self.lost.len())) {
            *self.tally.given_up.entry(lost.class).or_default() += 1;
            if let Some(line) = self.lines.get_mut(&lost.class) {
                line.covered(lost.seq);
            }
        }
        self.dirty = true;
    }

    /// 0x10: told as an event once, not once a record.
    pub(super) fn tell_nobody_listens(&mut self, now: &Stamp, topic: &str) {
        let known = !self.nobody.is_empty();
        let recent = self.nobody_told_ms.is_some_and(|told| now.mono_ms < told + NOBODY_EVENT_MS);
        if known || recent {
            return;
        }
        self.nobody_told_ms = Some(now.mono_ms);
        let uplink = self.settings.uplink.as_str();
        let params = BTreeMap::from([
            ("uplink".to_owned(), Value::Text(uplink.into())),
            ("topic".to_owned(), Value::Text(topic.into())),
        ]);
        let text = Text {
            zh: format!("平台 {uplink} 无人订阅，记录保留待发"),
            en: format!("nobody at platform {uplink} has subscribed; records are kept"),
        };
        self.events.push(gateway_event(now, "uplink.nobody_listens", Severity::Major, params, text));
    }

    /// What keeps records from being delivered on a standing connection, in words that say what to do.
    pub fn trouble(&self) -> Option<String> {
        if let Some(trouble) = &self.source_trouble {
            return Some(format!("{trouble}; look at the journal's own trouble"));
        }
        if let Some(code) = &self.state_refused {
            return Some(format!("the broker refuses up/state ({code}); grant this client to write …/up/#"));
        }
        if let Some(topic) = self.nobody.values().next() {
            return Some(format!(
                "nobody has subscribed to {topic}; records are kept until the platform subscribes to …/up/#"
            ));
        }
        if let Some(code) = self.busy.values().next() {
            return Some(format!("the broker is busy ({code}); records wait and are tried again"));
        }
        let aside: usize = self.lines.values().map(|line| line.aside.len()).sum();
        let refused = self.refused.as_deref().filter(|_| aside > 0)?;
        Some(format!(
            "the broker refused {refused}; {aside} records are set aside and tried again; look at the broker's rights and limits"
        ))
    }

    /// What is not delivered, per class.
    pub fn pending(&self) -> BTreeMap<Class, PendingStatus> {
        let status =
            |line: &Line| PendingStatus { records: line.pending(), set_aside: line.aside.len() as u64 };
        self.lines.iter().map(|(&class, line)| (class, status(line))).collect()
    }
}
