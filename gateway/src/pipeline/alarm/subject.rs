//! What is remembered of a rule and one of its subjects between and beside alarms: which alarm is open, the cooldown, how
//! often the condition came.

use serde::{Deserialize, Serialize};

use super::config::Terms;
use crate::model::ids::RuleName;
use crate::pipeline::Now;
use crate::pipeline::signal::Raise;
use crate::pipeline::table::Row;

/// So long, what was raised after an alarm was closed, and made none, counts on the next.
const REMEMBER_MS: u64 = 24 * 3_600_000;

/// One rule and one of its subjects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Subject {
    /// The alarm that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) open: Option<String>,
    /// Until then the same is no new alarm.
    pub(super) cooldown_until_ms: u64,
    /// Raised since the last alarm was over, without a new one.
    #[serde(default)]
    pub(super) missed: u64,
    /// When a lasting condition came, as far back as flapping is judged; the newest last.
    #[serde(default)]
    pub(super) comings_ms: Vec<u64>,
    /// A lasting condition that came within the cooldown: if it still holds then, it is raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Box<Raise>>,
    /// When nothing of this matters any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forget_at_ms: Option<u64>,
}

impl Row for Subject {
    fn due_ms(&self) -> Option<u64> {
        match (&self.open, &self.waiting) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(self.cooldown_until_ms),
            (None, None) => self.forget_at_ms,
        }
    }
}

/// Key of a subject's row. What is under test has a life of its own.
pub(super) fn key(rule: &RuleName, subject: &str, test: bool) -> String {
    let mark = if test { "test " } else { "" };
    format!("{mark}{rule} {subject}")
}

impl Subject {
    /// Notes that a lasting condition came; whether it comes too often.
    pub(super) fn comes(&mut self, terms: &Terms, now: &Now) -> bool {
        let from_ms = now.t_ms.saturating_sub(terms.flapping_ms);
        self.comings_ms.retain(|at_ms| *at_ms >= from_ms);
        self.comings_ms.push(now.t_ms);
        let old = self.comings_ms.len().saturating_sub(terms.comings_max.saturating_add(1));
        self.comings_ms.drain(..old);
        self.comings_ms.len() > terms.comings_max
    }

    /// Raised within the cooldown of an alarm that is over: it makes none, unless it lasts longer.
    pub(super) fn miss(&mut self, raise: Raise, now: &Now) {
        self.missed = self.missed.saturating_add(1);
        self.forget_at_ms = Some(now.t_ms.saturating_add(REMEMBER_MS).max(self.cooldown_until_ms));
        self.waiting = raise.lasts.then(|| Box::new(raise));
    }

    /// The cooldown is over: what waited for it.
    pub(super) fn wake(&mut self) -> Option<Box<Raise>> {
        let waiting = self.waiting.take()?;
        // It is noted again that it came.
        self.comings_ms.pop();
        self.missed = self.missed.saturating_sub(1);
        Some(waiting)
    }

    /// No alarm is open any more: what is left is needed for the cooldown and for flapping, and then for nothing.
    pub(super) fn rest(&mut self, terms: &Terms, now: &Now) {
        self.open = None;
        let calm_ms = self.comings_ms.last().map_or(0, |last| last.saturating_add(terms.flapping_ms));
        self.forget_at_ms = Some(self.cooldown_until_ms.max(calm_ms).max(now.t_ms));
    }
}
