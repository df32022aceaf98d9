//! What the log has been told already: a trouble that lasts is told when it begins or changes, and then from time to
//! time, not at every attempt.

/// A trouble that stays the same is told again after this long.
const AGAIN_MS: u64 = 300_000;
/// Troubles that take turns are told at most this often, each.
const APART_MS: u64 = 10_000;
/// Texts remembered: troubles that take turns are few.
const TEXTS_MAX: usize = 4;

/// The last troubles of one part.
#[derive(Debug, Default)]
pub struct Echo {
    told: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    text: String,
    at_ms: u64,
    kept_back: u64,
}

impl Echo {
    /// Whether `text` is to be told at `now_ms` (monotonic); if so, how often it was kept back since the last time.
    pub fn tell(&mut self, text: &str, now_ms: u64) -> Option<u64> {
        if let Some(place) = self.told.iter().position(|told| told.text == text) {
            let told = self.told.get_mut(place)?;
            if now_ms.saturating_sub(told.at_ms) < AGAIN_MS {
                told.kept_back = told.kept_back.saturating_add(1);
                return None;
            }
            let kept_back = std::mem::take(&mut told.kept_back);
            told.at_ms = now_ms;
            return Some(kept_back);
        }
        if self.told.len() >= TEXTS_MAX {
            // A text that is new each time (with a number in it) must not become a flood either.
            let oldest = self.told.iter().enumerate().min_by_key(|(_, told)| told.at_ms);
            let (place, at_ms) = oldest.map(|(place, told)| (place, told.at_ms))?;
            if now_ms.saturating_sub(at_ms) < APART_MS * TEXTS_MAX as u64 {
                return None;
            }
            self.told.remove(place);
        }
        self.told.push(Told { text: text.to_owned(), at_ms: now_ms, kept_back: 0 });
        Some(0)
    }

    /// The trouble is over: the next one is told at once.
    pub fn over(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_when_it_changes_and_every_few_minutes() {
        let mut echo = Echo::default();
        assert_eq!(echo.tell("refused", 0), Some(0));
        for now_ms in (500..AGAIN_MS).step_by(500) {
            assert_eq!(echo.tell("refused", now_ms), None);
        }
        assert_eq!(echo.tell("no route", 1_000), Some(0), "another trouble");
        assert_eq!(echo.tell("refused", AGAIN_MS), Some(599));
        echo.over();
        assert_eq!(echo.tell("refused", AGAIN_MS + 1), Some(0));
    }

    #[test]
    fn texts_that_are_new_each_time_are_no_flood() {
        let mut echo = Echo::default();
        let told = (0..3_600_000).step_by(500).filter(|ms| echo.tell(&format!("at {ms}"), *ms).is_some());
        assert!(told.count() <= 400, "in an hour of two a second");
    }
}
