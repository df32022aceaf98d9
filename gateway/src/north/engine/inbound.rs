//! What the engine is told: connections, PUBACKs, receipts, requests for a replay, the end.

use std::collections::{BTreeMap, VecDeque};

use crate::model::cursor::SeqRange;
use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Class, GapReason};
use crate::model::stamp::Stamp;
use crate::north::config::Delivery;
use crate::north::contract::{Outgoing, StateReason};

use super::line::{Aside, AsideState};
use super::pace::{Bucket, delay_ms};
use super::ranges::RangeSet;
use super::stream::{FlightState, Kind, Pause};
use super::verdict::{self, UNSPECIFIED, Verdict, code_text};
use super::{
    ASIDE_MAX, ASIDE_RETRY_MAX_MS, ASIDE_RETRY_MS, CAREFUL_RECORDS, ENDS_CAREFUL, ENDS_REFUSED, Engine, Lost,
    PAUSE_MAX_MS, PAUSE_MS, Phase, Publish, Purpose, REPLAY_RECORDS_MAX, STOOD_LONG_MS, Session, Stage,
    Underway, Up,
};

/// A connection that ended sooner without any PUBACK does not count as the end of an outage.
const SETTLED_MS: u64 = 10_000;
/// The broker refused the state: how long until it is tried again.
const STATE_RETRY_MS: u64 = 30_000;

/// What a replay request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayAnswer {
    /// What will be sent; none when nothing of it is stored.
    pub range: Option<SeqRange>,
    /// How many numbers that are, those that this uplink may not see included.
    pub count: u64,
    /// What was asked for and will not come: not stored any more, or not yet.
    pub missing: Vec<SeqRange>,
}

/// Why a replay is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("this uplink's filter does not admit {}", .0.as_str())]
    NotAdmitted(Class),
    #[error("the range is empty: it ends before it begins")]
    Empty,
    #[error("a replay holds at most {REPLAY_RECORDS_MAX} records; ask for less at once")]
    TooLong,
}

impl Engine {
    /// A connection stands, subscriptions are made, and nothing has been published on it.
    pub fn connected(&mut self, session: Session, now: &Stamp) {
        let now_ms = now.mono_ms;
        let after_ms = match &self.phase {
            Phase::Down { since_ms } => since_ms.map(|since_ms| now_ms.saturating_sub(since_ms)),
            Phase::Up(_) => {
                self.disconnected(now);
                Some(0)
            }
        };
        self.state_refused = None;
        let bucket = Bucket::new(self.settings.pacing.backlog_per_s, now_ms);
        self.phase = Phase::Up(Box::new(Up {
            session,
            since_ms: now_ms,
            after_ms,
            stage: Stage::Fresh,
            control: VecDeque::new(),
            underway: BTreeMap::new(),
            underway_bytes: 0,
            heard_ms: now_ms,
            acknowledged: false,
            bucket,
            credits: BTreeMap::new(),
            state_due: None,
            announced: false,
            rev: 0,
        }));
    }

    /// The connection is gone; what was under way will be sent again.
    pub fn disconnected(&mut self, now: &Stamp) {
        let now_ms = now.mono_ms;
        self.look_for_a_killer(now);
        let Phase::Up(up) = &self.phase else { return };
        let settled = up.acknowledged || now_ms.saturating_sub(up.since_ms) >= SETTLED_MS;
        let down_before = up.after_ms.map(|after_ms| up.since_ms.saturating_sub(after_ms));
        self.phase = Phase::Down { since_ms: if settled { Some(now_ms) } else { down_before } };
        for line in self.lines.values_mut() {
            line.ground(now_ms);
        }
        self.lane.ground();
        self.nobody.clear();
        self.busy.clear();
        self.dirty = true;
        self.save_at_ms = now_ms;
    }

    /// The broker acknowledged the message of `token` with a reason code.
    pub fn puback(&mut self, token: u64, code: u8, now: &Stamp) {
        let now_ms = now.mono_ms;
        let Some(up) = self.up() else { return };
        let Some(underway) = up.underway.remove(&token) else { return };
        up.underway_bytes = up.underway_bytes.saturating_sub(underway.bytes);
        up.heard_ms = now_ms;
        up.acknowledged = true;
        if code != 0 {
            *self.tally.refusals.entry(code).or_default() += 1;
        }
        match underway.purpose {
            Purpose::State => self.state_puback(code, now_ms),
            Purpose::Said | Purpose::Orphan => {}
            Purpose::Records { class, kind } => self.records_puback(class, kind, token, code, &underway, now),
            Purpose::Volatile { class, serial } => self.volatile_puback(class, serial, token, code, now_ms),
            Purpose::Aside { class, seq, gap } => self.aside_puback(class, seq, gap, code, now),
        }
    }

    /// The broker ends the connection with a reason code; [`Engine::disconnected`] follows. Some brokers answer a record
    /// that they refuse in this way: sent again first each time, it would stop the line for ever.
    pub fn expelled(&mut self, code: u8, now: &Stamp) {
        let Some(up) = self.up() else { return };
        if !verdict::blames_a_record(code) {
            return;
        }
        let records: Vec<u64> = up
            .underway
            .iter()
            .filter(|(_, sent)| matches!(sent.purpose, Purpose::Records { .. } | Purpose::Aside { .. }))
            .map(|(token, _)| *token)
            .collect();
        match records.as_slice() {
            [] => return,
            [token] if self.careful > 0 => self.puback(*token, code, now),
            _ => {}
        }
        self.careful = CAREFUL_RECORDS;
    }

    /// A broker, or something on the way to it, may end the connection on one record without a word, each time it comes.
    /// An end before the broker has answered anything tells of the line alone.
    fn look_for_a_killer(&mut self, now: &Stamp) {
        let Self { phase, lines, .. } = self;
        let Phase::Up(up) = phase else { return };
        if !up.acknowledged {
            return;
        }
        let mut records = up.underway.iter().filter_map(|(token, sent)| match sent.purpose {
            Purpose::Records { class, kind } => {
                let flight = lines.get_mut(&class)?.stream(kind).flight(*token)?;
                Some((*token, class, *flight.records.first()?))
            }
            Purpose::Aside { class, seq, .. } => Some((*token, class, seq)),
            Purpose::Volatile { .. } | Purpose::State | Purpose::Said | Purpose::Orphan => None,
        });
        let Some((token, class, seq)) = records.next() else { return };
        let alone = records.next().is_none();
        let before = self.stuck.filter(|(of, number, _)| (*of, *number) == (class, seq));
        let ends = before.map_or(0, |(_, _, ends)| ends).saturating_add(1);
        self.stuck = Some((class, seq, ends));
        if ends >= ENDS_REFUSED && alone {
            self.stuck = None;
            self.puback(token, UNSPECIFIED, now);
        }
        if ends >= ENDS_CAREFUL {
            self.careful = CAREFUL_RECORDS;
        }
    }

    fn state_puback(&mut self, code: u8, now_ms: u64) {
        // Nobody need listen to a retained message.
        let refused = matches!(Verdict::of(code), Verdict::Refused | Verdict::Busy);
        self.state_refused = refused.then(|| code_text(code));
        if refused && let Some(up) = self.up() {
            up.state_due = Some((now_ms + STATE_RETRY_MS, StateReason::Progress));
        }
    }

    fn records_puback(
        &mut self,
        class: Class,
        kind: Kind,
        token: u64,
        code: u8,
        underway: &Underway,
        now: &Stamp,
    ) {
        match Verdict::of(code) {
            Verdict::Taken => self.records_taken(class, kind, token, now.mono_ms),
            Verdict::NobodyListens => {
                self.tell_nobody_listens(now, &underway.topic);
                self.nobody.insert((class, kind), underway.topic.clone());
                self.hold(class, kind, token, now.mono_ms);
            }
            Verdict::Busy => {
                self.busy.insert((class, kind), code_text(code));
                self.hold(class, kind, token, now.mono_ms);
            }
            Verdict::Refused => {
                self.refused = Some(format!("{} ({})", underway.topic, code_text(code)));
                self.records_refused(class, kind, token, code, now.mono_ms);
            }
        }
    }

    fn records_taken(&mut self, class: Class, kind: Kind, token: u64, now_ms: u64) {
        let receipt = self.settings.delivery == Delivery::Receipt;
        self.careful = self.careful.saturating_sub(1);
        let Some(line) = self.lines.get_mut(&class) else { return };
        let stream = line.stream(kind);
        let count = stream.flight(token).map_or(0, |flight| flight.records.len() as u64);
        stream.settle(token, if receipt { FlightState::Acked { at_ms: now_ms } } else { FlightState::Done });
        if !receipt {
            *self.tally.delivered.entry(class).or_default() += count;
        }
        self.dirty = true;
        if stream.pause.is_some_and(|pause| pause.probe == Some(token)) {
            let stood_ms = stream.pause.take().map_or(0, |pause| now_ms.saturating_sub(pause.since_ms));
            if kind == Kind::Live && stood_ms >= STOOD_LONG_MS {
                // What waited so long is not live any more.
                line.fix_head();
                line.backlog_at_ms = now_ms;
                self.republish_state(StateReason::Progress, now_ms);
            }
            self.nobody.remove(&(class, kind));
            self.busy.remove(&(class, kind));
        }
    }

    /// The record stays; its stream waits and then goes on from it, in order.
    fn hold(&mut self, class: Class, kind: Kind, token: u64, now_ms: u64) {
        let Some(line) = self.lines.get_mut(&class) else { return };
        let stream = line.stream(kind);
        let orphans = stream.go_back(token);
        let (since_ms, failures) =
            stream.pause.map_or((now_ms, 0), |pause| (pause.since_ms, pause.failures + 1));
        let until_ms = now_ms + delay_ms(PAUSE_MS, PAUSE_MAX_MS, failures, &mut self.rng);
        stream.pause = Some(Pause { since_ms, until_ms, failures, probe: None });
        self.orphan(&orphans);
    }

    fn records_refused(&mut self, class: Class, kind: Kind, token: u64, code: u8, now_ms: u64) {
        let tries_max = self.settings.pacing.refusal_tries;
        let Some(line) = self.lines.get_mut(&class) else { return };
        let Some(flight) = line.stream(kind).flight(token) else { return };
        let (records, gap) = (flight.records.clone(), flight.gap);
        if line.aside.len() + records.len() > ASIDE_MAX {
            self.busy.insert((class, kind), format!("{}, and too many are set aside", code_text(code)));
            self.hold(class, kind, token, now_ms);
            return;
        }
        let give_up = tries_max <= 1 && !gap;
        for seq in records {
            let wait_ms = delay_ms(ASIDE_RETRY_MS, ASIDE_RETRY_MAX_MS, 0, &mut self.rng);
            let state = if give_up {
                AsideState::Settling
            } else {
                AsideState::Waiting { until_ms: now_ms + wait_ms }
            };
            line.aside.insert(seq, Aside { tries: 1, state });
            if give_up {
                let detail = code_text(code);
                self.lost.push_back(Lost { class, seq, reason: GapReason::Refused, detail });
            }
        }
        let stream = line.stream(kind);
        stream.settle(token, FlightState::Done);
        // The platform takes part again, though not this record.
        if stream.pause.is_some_and(|pause| pause.probe == Some(token)) {
            stream.pause = None;
            self.nobody.remove(&(class, kind));
            self.busy.remove(&(class, kind));
        }
        self.dirty = true;
    }

    /// A gap record that this broker cannot take waits aside for another one; the line goes on while there is room.
    pub(super) fn keep_gap(
        &mut self,
        class: Class,
        kind: Kind,
        (seq, epoch, detail): (Seq, Epoch, String),
        now_ms: u64,
    ) {
        let Some(line) = self.lines.get_mut(&class) else { return };
        let full = line.aside.len() >= ASIDE_MAX;
        let until_ms = now_ms + if full { PAUSE_MAX_MS } else { ASIDE_RETRY_MAX_MS };
        let stream = line.stream(kind);
        if full {
            stream.pause = Some(Pause { since_ms: now_ms, until_ms, failures: 0, probe: None });
            self.busy.insert((class, kind), format!("{detail}, and too many are set aside"));
            return;
        }
        stream.pass_aside(seq, epoch);
        line.aside.insert(seq, Aside { tries: 1, state: AsideState::Waiting { until_ms } });
        self.refused = Some(format!("a gap record: {detail}"));
        self.dirty = true;
    }

    fn aside_puback(&mut self, class: Class, seq: Seq, gap: bool, code: u8, now: &Stamp) {
        let now_ms = now.mono_ms;
        let receipt = self.settings.delivery == Delivery::Receipt;
        let tries_max = self.settings.pacing.refusal_tries;
        let Some(line) = self.lines.get_mut(&class) else { return };
        let Some(aside) = line.aside.get_mut(&seq) else { return };
        self.dirty = true;
        match Verdict::of(code) {
            Verdict::Taken if receipt => aside.state = AsideState::Acked { at_ms: now_ms },
            Verdict::Taken => {
                line.aside.remove(&seq);
                *self.tally.delivered.entry(class).or_default() += 1;
            }
            Verdict::NobodyListens | Verdict::Busy => {
                let wait_ms = delay_ms(ASIDE_RETRY_MS, ASIDE_RETRY_MAX_MS, aside.tries, &mut self.rng);
                aside.state = AsideState::Waiting { until_ms: now_ms + wait_ms };
            }
            // A gap record that is refused is never replaced by another: it would be refused as well.
            Verdict::Refused if aside.tries + 1 >= tries_max && !gap => {
                aside.tries += 1;
                aside.state = AsideState::Settling;
                self.lost.push_back(Lost { class, seq, reason: GapReason::Refused, detail: code_text(code) });
            }
            Verdict::Refused => {
                aside.tries = aside.tries.saturating_add(1);
                let wait_ms = delay_ms(ASIDE_RETRY_MS, ASIDE_RETRY_MAX_MS, aside.tries - 1, &mut self.rng);
                aside.state = AsideState::Waiting { until_ms: now_ms + wait_ms };
            }
        }
    }

    /// These tokens have lost their meaning, but still fill the broker's window until their PUBACK.
    pub(super) fn orphan(&mut self, tokens: &[u64]) {
        let Some(up) = self.up() else { return };
        for token in tokens {
            if let Some(underway) = up.underway.get_mut(token) {
                underway.purpose = Purpose::Orphan;
            }
        }
    }

    /// The platform says that it has stored `class` up to the record `upto` of `kind`. Says nothing of records that
    /// were not sent, or that are another journal's. Without delivery level `receipt` it changes nothing.
    pub fn receipt(&mut self, epoch: Epoch, class: Class, kind: Kind, upto: Seq) {
        if self.settings.delivery != Delivery::Receipt {
            return;
        }
        let Some(line) = self.lines.get_mut(&class) else { return };
        let (count, orphans) = line.stream(kind).receipt(upto, epoch);
        let before = line.aside.len();
        if self.heads.get(&class).is_some_and(|head| head.epoch == epoch) {
            // A record tried again is stored when a later receipt of its class reaches beyond it.
            line.aside
                .retain(|&seq, aside| !(matches!(aside.state, AsideState::Acked { .. }) && seq <= upto));
        }
        let delivered = count as u64 + (before - line.aside.len()) as u64;
        *self.tally.delivered.entry(class).or_default() += delivered;
        self.orphan(&orphans);
        self.dirty = true;
    }

    /// Sends `from..=to` of `class` again, as backlog, as far as it is stored and not still to come.
    pub fn replay(&mut self, class: Class, from: Seq, to: Seq) -> Result<ReplayAnswer, ReplayError> {
        let Some(line) = self.lines.get_mut(&class) else { return Err(ReplayError::NotAdmitted(class)) };
        if from > to || to == 0 {
            return Err(ReplayError::Empty);
        }
        let from = from.max(1);
        let (start, end) = (from.max(line.first), to.min(line.end.saturating_sub(1)));
        let mut missing = RangeSet::of(&[SeqRange { from, to }]);
        if start > end {
            return Ok(ReplayAnswer { range: None, count: 0, missing: missing.as_slice().to_vec() });
        }
        let count = end - start + 1;
        if count > REPLAY_RECORDS_MAX {
            return Err(ReplayError::TooLong);
        }
        missing.remove(start, end);
        let range = SeqRange { from: start, to: end };
        line.add_backlog(&RangeSet::of(&[range]));
        self.dirty = true;
        self.republish_state(StateReason::Progress, 0);
        Ok(ReplayAnswer { range: Some(range), count, missing: missing.as_slice().to_vec() })
    }

    /// The state is to be published again: a late will has overwritten it, or what it announces has changed.
    pub fn republish_state(&mut self, reason: StateReason, now_ms: u64) {
        if let Some(up) = self.up() {
            up.state_due = Some((now_ms, reason));
        }
    }

    /// Nothing new is published from now on; what is under way may still be acknowledged.
    pub fn drain(&mut self) {
        if let Some(up) = self.up() {
            up.stage = Stage::Draining;
        }
    }

    /// Whether every publish was acknowledged.
    pub fn is_drained(&self) -> bool {
        match &self.phase {
            Phase::Up(up) => up.underway.is_empty(),
            Phase::Down { .. } => true,
        }
    }

    /// The last message of a connection that ends on purpose: state offline.
    pub fn farewell(&mut self, now: &Stamp) -> Option<Publish> {
        let standing = self.standing(false, StateReason::Shutdown)?;
        let message = self.wording.state(&standing, now);
        Some(self.publish(message, Purpose::State, now.mono_ms))
    }

    /// Publishes something that is not of the streams, for example a command's result; the caller keeps it small and
    /// rare.
    pub(super) fn publish(&mut self, message: Outgoing, purpose: Purpose, now_ms: u64) -> Publish {
        let token = self.next_token;
        self.next_token += 1;
        let underway =
            Underway { purpose, at_ms: now_ms, bytes: message.payload.len(), topic: message.topic.clone() };
        if let Some(up) = self.up() {
            up.underway_bytes = up.underway_bytes.saturating_add(underway.bytes);
            up.underway.insert(token, underway);
        }
        Publish { token, message }
    }

    /// Records that nobody can send: a gap record will take their place.
    pub(super) fn lose(&mut self, class: Class, seq: Seq, reason: GapReason, detail: String) {
        self.lost.push_back(Lost { class, seq, reason, detail });
    }

    /// Answers and other messages outside the streams; published before the next records.
    pub fn say(&mut self, message: Outgoing) {
        if let Some(up) = self.up() {
            up.control.push_back((message, Purpose::Said));
        }
    }
}
