//! Asking a platform for the time: a nonce in `up/state`, its answer on `down/time`. Owns when to ask, which nonce is
//! ours, and how long an answer took; must not decide whether the time is believed.
//!
//! A question is asked with the first state of a connection, and with one of its own later. It is open for
//! [`ANSWER_WITHIN_MS`], and answered once: the state is retained, so an old nonce may be answered by somebody who came
//! later, and such an answer says nothing of the present. When it is over, the state is said again without it.

use std::fmt::Write as _;

use tracing::warn;

use crate::model::record::{Severity, Text, Value};
use crate::model::refusal::Refusal;
use crate::north::contract::{StateReason, TimeAnswer};
use crate::north::engine::gateway_event;
use crate::rt::keeper::TimeError;

use super::adapters;
use super::shell::Shell;

/// A platform whose time is disputed is told as an event at most this often.
const DISPUTE_EVENT_MS: u64 = 3_600_000;

/// An answer later than this is none: half of the round trip is its error.
pub(super) const ANSWER_WITHIN_MS: u64 = 10_000;
/// A good answer holds for so long: a crystal of 100 ppm goes wrong by two seconds.
const ASK_AGAIN_MS: u64 = 6 * 3_600_000;
/// After a question without a good answer: the first pause, and the longest, doubled in between. Two states of about
/// 1 KiB are the price of a question.
const PAUSE_MS: u64 = 300_000;
const PAUSE_MAX_MS: u64 = 6 * 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Nothing is asked before then.
    Until { at_ms: u64 },
    /// The question stands in the state.
    Open { nonce: String, at_ms: u64 },
}

/// One uplink's questions.
#[derive(Debug)]
pub(super) struct Asking {
    /// Whether this platform is asked at all.
    enabled: bool,
    phase: Phase,
    /// Questions without a good answer, in a row.
    in_vain: u32,
}

fn nonce() -> Option<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::from("t-"), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    }))
}

impl Asking {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, phase: Phase::Until { at_ms: 0 }, in_vain: 0 }
    }

    /// A new connection: whoever is there now is asked at once, and what was asked before is void.
    pub(super) fn connected(&mut self) {
        self.phase = Phase::Until { at_ms: 0 };
        self.in_vain = 0;
    }

    /// The nonce that a state said at `now_ms` is to bear; opens a question if one is due and `wanted`.
    pub(super) fn nonce(&mut self, wanted: bool, now_ms: u64) -> Option<String> {
        self.expire(now_ms);
        match &self.phase {
            Phase::Open { nonce, .. } => Some(nonce.clone()),
            Phase::Until { at_ms } if self.enabled && wanted && now_ms >= *at_ms => {
                let nonce = nonce()?;
                self.phase = Phase::Open { nonce: nonce.clone(), at_ms: now_ms };
                Some(nonce)
            }
            Phase::Until { .. } => None,
        }
    }

    /// Whether the state is to be said again: a question is due, or is over without an answer.
    pub(super) fn is_due(&mut self, wanted: bool, now_ms: u64) -> bool {
        if self.expire(now_ms) {
            return true;
        }
        matches!(self.phase, Phase::Until { at_ms } if self.enabled && wanted && now_ms >= at_ms)
    }

    /// When [`Asking::is_due`] may change by time alone.
    pub(super) fn wake_at_ms(&self) -> u64 {
        match &self.phase {
            Phase::Open { at_ms, .. } => at_ms.saturating_add(ANSWER_WITHIN_MS + 1),
            Phase::Until { at_ms } => *at_ms,
        }
    }

    /// Whether a question has just ended without an answer.
    fn expire(&mut self, now_ms: u64) -> bool {
        let Phase::Open { at_ms, .. } = self.phase else { return false };
        let over = now_ms.saturating_sub(at_ms) > ANSWER_WITHIN_MS;
        if over {
            self.close(false, now_ms);
        }
        over
    }

    fn close(&mut self, good: bool, now_ms: u64) {
        let wait_ms = if good {
            self.in_vain = 0;
            ASK_AGAIN_MS
        } else {
            let pause_ms = PAUSE_MS.saturating_mul(1_u64 << self.in_vain.min(16)).min(PAUSE_MAX_MS);
            self.in_vain = self.in_vain.saturating_add(1);
            pause_ms
        };
        self.phase = Phase::Until { at_ms: now_ms.saturating_add(wait_ms) };
    }

    /// An answer: its round trip in milliseconds, if it is to the open question and in time. The question is open no
    /// longer then.
    pub(super) fn answered(&mut self, answer: &str, now_ms: u64) -> Result<u64, Refusal> {
        let Phase::Open { nonce, at_ms } = &self.phase else { return Err(Refusal::TimeUnasked) };
        if nonce != answer {
            return Err(Refusal::TimeUnasked);
        }
        let round_trip_ms = now_ms.saturating_sub(*at_ms);
        if round_trip_ms > ANSWER_WITHIN_MS {
            self.close(false, now_ms);
            return Err(Refusal::TimeLate);
        }
        self.close(true, now_ms);
        Ok(round_trip_ms)
    }

    /// The answer was refused for what it says: the platform is not asked as soon as a good one.
    pub(super) fn disbelieved(&mut self, now_ms: u64) {
        self.close(false, now_ms);
    }
}

impl Shell {
    /// Has the state said again where the clock was mended, or where the time is asked for or no longer. Says when to
    /// look again at the latest.
    pub(super) fn tend_clock(&mut self, now_ms: u64) -> Option<u64> {
        if !self.connected {
            return None;
        }
        let (changes, wanted) = (self.parts.clock.changes(), self.parts.clock.wants_time());
        let (due, asks_at_ms) = {
            let mut asking = adapters::lock(&self.wording.asking);
            (asking.is_due(wanted, now_ms), asking.wake_at_ms())
        };
        if due || changes != self.clock_changes {
            self.clock_changes = changes;
            self.engine.republish_state(StateReason::Clock, now_ms);
        }
        Some(asks_at_ms.max(now_ms + 1))
    }

    /// The platform tells the time.
    pub(super) fn take_time(&mut self, answer: &TimeAnswer) {
        let (uplink, now_ms) = (self.parts.uplink.clone(), self.parts.clock.mono_ms());
        let answered = adapters::lock(&self.wording.asking).answered(&answer.nonce, now_ms);
        let told = answered.and_then(|round_trip_ms| {
            self.parts.clock.witness(&uplink, answer.wall_ms, round_trip_ms).map_err(|error| match error {
                TimeError::Unasked => Refusal::TimeUnasked,
                TimeError::Implausible => Refusal::TimeImplausible,
                TimeError::Disputed { differs_ms } => {
                    self.tell_dispute(differs_ms, now_ms);
                    Refusal::TimeDisputed
                }
            })
        });
        let Err(refusal) = told else {
            // The retained state must not go on asking.
            self.engine.republish_state(StateReason::Clock, now_ms);
            return;
        };
        self.parts.metrics.refused(uplink.as_str(), refusal);
        if matches!(refusal, Refusal::TimeImplausible | Refusal::TimeDisputed) {
            adapters::lock(&self.wording.asking).disbelieved(now_ms);
            self.engine.republish_state(StateReason::Clock, now_ms);
        }
        if let Some(more) = self.echo.tell(refusal.as_str(), now_ms) {
            warn!(%uplink, reason = refusal.as_str(), more, "the platform's time is not taken");
        }
    }

    /// Somebody is wrong about the time, and a person should find out who.
    fn tell_dispute(&mut self, differs_ms: i64, now_ms: u64) {
        if self.dispute_told_ms.is_some_and(|told_ms| now_ms < told_ms + DISPUTE_EVENT_MS) {
            return;
        }
        self.dispute_told_ms = Some(now_ms);
        let uplink = self.parts.uplink.as_str();
        let params = [
            ("uplink".to_owned(), Value::Text(uplink.into())),
            ("differs_ms".to_owned(), Value::Int(differs_ms)),
        ];
        let text = Text {
            zh: format!("平台 {uplink} 的时间与其他来源不一致，未采用"),
            en: format!("the time of platform {uplink} differs from what others say, and was not taken"),
        };
        let draft = gateway_event(&self.now(), "clock.disputed", Severity::Minor, params.into(), text);
        self.tell(draft);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_once_and_in_time() {
        let mut asking = Asking::new(true);
        assert!(asking.is_due(true, 100));
        let nonce = asking.nonce(true, 100).unwrap();
        assert_eq!(
            asking.nonce(true, 150).as_deref(),
            Some(nonce.as_str()),
            "a state between bears the same"
        );
        assert!(!asking.is_due(true, 200));
        assert_eq!(asking.answered("t-0", 300), Err(Refusal::TimeUnasked));
        assert_eq!(asking.answered(&nonce, 350), Ok(250), "a wrong nonce does not spoil the question");
        assert_eq!(asking.answered(&nonce, 360), Err(Refusal::TimeUnasked), "repeated");
        assert_eq!(asking.nonce(true, 400), None);
        assert!(!asking.is_due(true, 350 + ASK_AGAIN_MS - 1));
        assert!(asking.is_due(true, 350 + ASK_AGAIN_MS));
    }

    #[test]
    fn what_nobody_answers_is_taken_back_and_asked_less_and_less() {
        let mut asking = Asking::new(true);
        let (mut now_ms, mut pauses) = (1_000, Vec::new());
        for _question in 0..9 {
            let nonce = asking.nonce(true, now_ms).unwrap();
            now_ms = asking.wake_at_ms();
            assert!(asking.is_due(true, now_ms), "the state is said without it");
            assert_eq!(asking.nonce(true, now_ms), None);
            assert_eq!(asking.answered(&nonce, now_ms), Err(Refusal::TimeUnasked), "an old nonce");
            pauses.push(asking.wake_at_ms() - now_ms);
            now_ms = asking.wake_at_ms();
        }
        assert_eq!(pauses.first(), Some(&PAUSE_MS));
        assert!(pauses.windows(2).all(|pair| pair[1] == (2 * pair[0]).min(PAUSE_MAX_MS)), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&PAUSE_MAX_MS));
        asking.connected();
        assert!(asking.is_due(true, now_ms), "a new connection is asked at once");
    }

    #[test]
    fn a_late_answer_has_a_name_of_its_own() {
        let mut asking = Asking::new(true);
        let nonce = asking.nonce(true, 0).unwrap();
        assert_eq!(asking.answered(&nonce, ANSWER_WITHIN_MS + 1), Err(Refusal::TimeLate));
    }

    #[test]
    fn who_may_not_tell_the_time_is_not_asked() {
        let mut asking = Asking::new(false);
        assert!(!asking.is_due(true, 1 << 40));
        assert_eq!(asking.nonce(true, 1 << 40), None);
        let mut content = Asking::new(true);
        assert!(!content.is_due(false, 1 << 40), "nor anybody by a clock that knows better");
    }
}
