//! What waits to be told, and when the next message may go. Pure: time and outcomes come in, messages come out.
//!
//! What must hold: an alarm leaves the line when its message was taken, or when it alone is refused while others are
//! taken (the fault is then its own, and that is recorded). All that waits goes into the next message as far as it has
//! room: so a storm of alarms is few messages, and a single one goes at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::words::Told;
use crate::model::ids::Seq;
use crate::rt::backoff::Backoff;

/// Alarms that wait in memory; more stay in the journal until there is room.
pub(super) const WAITING_MAX: usize = 256;

/// Alarms of one message: people do not read more.
pub(super) const FOLD_MAX: usize = 20;

/// After a failure. People wait for this, so that the longest pause is short; one post a minute harms no server.
const RETRY_MIN: Duration = Duration::from_millis(500);
pub(super) const RETRY_MAX: Duration = Duration::from_mins(1);

/// Where a robot says "too fast" and not until when: they close for a minute, and DingTalk for ten.
const THROTTLED_MS: u64 = 60_000;
/// Whatever a server asks for, it is asked again after so long.
const THROTTLED_MS_MAX: u64 = 30 * 60_000;

/// While alarms are refused, so many of them are tried in turn: is it one of them, or all?
const SUSPECTS_MAX: usize = 4;

const MINUTE_MS: u64 = 60_000;

/// An alarm that waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    /// Its record; none where it is in memory only.
    pub(super) seq: Option<Seq>,
    pub(super) told: Told,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// Too fast; until when, if it was said.
    Throttled {
        after_ms: Option<u64>,
        reason: String,
    },
    /// Not reached, or not well: the same again later.
    Failed {
        reason: String,
    },
    /// It was reached, and does not want this.
    Refused {
        reason: String,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Post these.
    Send(Batch),
    /// Wait so long, or for something new.
    Wait(Option<u64>),
}

/// Alarms of one message: so many, from that place of the line on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) from: usize,
    pub(super) count: usize,
}

/// How messages are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Of all that waits.
    Folded,
    /// Of this one alone: something is refused, and it may be one alarm or all.
    Probing(usize),
    /// Of the first alone: another was just taken, so what is refused now is refused for its own sake. So many are left to
    /// be tried.
    Confirming(usize),
}

/// The line.
#[derive(Debug)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
    per_minute: usize,
    /// When messages went, in the last minute.
    sent_ms: VecDeque<u64>,
    not_before_ms: u64,
    backoff: Backoff,
    mode: Mode,
    pub(super) trouble: Option<String>,
    pub(super) troubled_since_ms: Option<u64>,
    pub(super) delivered: u64,
    pub(super) refused: u64,
}

impl Line {
    pub(super) fn new(per_minute: u16, retry_max: Duration, rng: fastrand::Rng) -> Self {
        Self {
            waiting: VecDeque::new(),
            per_minute: usize::from(per_minute.max(1)),
            sent_ms: VecDeque::new(),
            not_before_ms: 0,
            backoff: Backoff::new(RETRY_MIN.min(retry_max), retry_max, rng),
            mode: Mode::Folded,
            trouble: None,
            troubled_since_ms: None,
            delivered: 0,
            refused: 0,
        }
    }

    pub(super) fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.waiting.len())
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Gives an alarm that came out of memory the number that its record has on disk; false where none such waits.
    pub(super) fn number(&mut self, id: &str, rev: u64, seq: Seq) -> bool {
        let unnumbered = |waiting: &&mut Waiting| {
            waiting.seq.is_none() && waiting.told.rev == rev && waiting.told.id == id
        };
        let found = self.waiting.iter_mut().find(unnumbered);
        found.map(|waiting| waiting.seq = Some(seq)).is_some()
    }

    /// The lowest number that is not told yet.
    pub(super) fn first_seq(&self) -> Option<Seq> {
        self.waiting.iter().filter_map(|waiting| waiting.seq).min()
    }

    /// The alarms of a batch.
    pub(super) fn alarms(&self, batch: Batch) -> Vec<Told> {
        self.waiting.iter().skip(batch.from).take(batch.count).map(|waiting| waiting.told.clone()).collect()
    }

    pub(super) fn next(&mut self, now_ms: u64) -> Next {
        if self.waiting.is_empty() {
            return Next::Wait(None);
        }
        while self.sent_ms.front().is_some_and(|sent| sent.saturating_add(MINUTE_MS) <= now_ms) {
            self.sent_ms.pop_front();
        }
        let paced_ms = match self.sent_ms.front() {
            Some(first) if self.sent_ms.len() >= self.per_minute => first.saturating_add(MINUTE_MS),
            _ => 0,
        };
        let due_ms = self.not_before_ms.max(paced_ms);
        if due_ms > now_ms {
            return Next::Wait(Some(due_ms.saturating_sub(now_ms)));
        }
        Next::Send(match self.mode {
            Mode::Probing(place) => Batch { from: place.min(self.waiting.len().saturating_sub(1)), count: 1 },
            Mode::Confirming(_left) => Batch { from: 0, count: 1 },
            Mode::Folded => Batch { from: 0, count: self.waiting.len().min(FOLD_MAX) },
        })
    }

    /// What became of a batch. Returns an alarm that is refused for its own sake, and why.
    pub(super) fn settle(
        &mut self,
        batch: Batch,
        outcome: Outcome,
        now_ms: u64,
    ) -> Option<(Waiting, String)> {
        self.sent_ms.push_back(now_ms);
        match outcome {
            Outcome::Taken => self.taken(batch),
            Outcome::Throttled { after_ms, reason } => {
                let after_ms = after_ms.unwrap_or(THROTTLED_MS).min(THROTTLED_MS_MAX);
                self.wait(now_ms, after_ms.max(1_000), reason);
            }
            Outcome::Failed { reason } => {
                let delay_ms = self.delay_ms();
                self.wait(now_ms, delay_ms, reason);
            }
            Outcome::Refused { reason } => return self.refused_by(reason, now_ms),
        }
        None
    }

    fn taken(&mut self, batch: Batch) {
        let count = batch.count.min(self.waiting.len().saturating_sub(batch.from));
        self.waiting.drain(batch.from..batch.from.saturating_add(count));
        self.delivered = self.delivered.saturating_add(count as u64);
        self.mode = match self.mode {
            Mode::Probing(_) if batch.from > 0 => Mode::Confirming(batch.from),
            Mode::Confirming(left) if left > 1 => Mode::Confirming(left.saturating_sub(1)),
            Mode::Probing(_) | Mode::Confirming(_) | Mode::Folded => Mode::Folded,
        };
        (self.trouble, self.troubled_since_ms) = (None, None);
        self.backoff.reset();
    }

    fn refused_by(&mut self, reason: String, now_ms: u64) -> Option<(Waiting, String)> {
        if let Mode::Confirming(left) = self.mode {
            self.mode = if left > 1 { Mode::Confirming(left.saturating_sub(1)) } else { Mode::Folded };
            self.refused = self.refused.saturating_add(1);
            return self.waiting.pop_front().map(|guilty| (guilty, reason));
        }
        // The first alone, then the next ones in turn.
        let suspects = self.waiting.len().clamp(1, SUSPECTS_MAX);
        self.mode = match self.mode {
            Mode::Probing(place) => Mode::Probing(place.saturating_add(1) % suspects),
            Mode::Folded | Mode::Confirming(_) => Mode::Probing(0),
        };
        let delay_ms = self.delay_ms();
        self.wait(now_ms, delay_ms, reason);
        None
    }

    fn delay_ms(&mut self) -> u64 {
        u64::try_from(self.backoff.next_delay().as_millis()).unwrap_or(u64::MAX)
    }

    fn wait(&mut self, now_ms: u64, delay_ms: u64, reason: String) {
        self.not_before_ms = now_ms.saturating_add(delay_ms);
        self.trouble = Some(reason);
        self.troubled_since_ms.get_or_insert(now_ms);
    }
}
