//! For how long nobody could be told, and what of that was said. It outlives the attempts of a notifier, so that one which
//! cannot even begin is missed as well. Pure: the time comes in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A notifier that cannot tell anybody for so long is itself an event.
pub(super) const SILENT_AFTER_MS: u64 = 600_000;

/// What the attempts of one notifier share.
#[derive(Debug, Clone, Default)]
pub struct Silence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    since_ms: Option<u64>,
    said: Said,
}

/// Whether it stands in the journal that the notifier fails.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// An earlier process may have said so.
    #[default]
    Perhaps,
    Yes,
    No,
}

impl Silence {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody can be told, since `since_ms` at the latest. Whether that has lasted too long and is to be said now.
    pub(super) fn lasts(&self, since_ms: u64, now_ms: u64) -> bool {
        let mut state = self.state();
        let since_ms = *state.since_ms.get_or_insert(since_ms);
        let due = state.said != Said::Yes && now_ms.saturating_sub(since_ms) >= SILENT_AFTER_MS;
        if due {
            state.said = Said::Yes;
        }
        due
    }

    /// Everybody can be told, or nobody needs to be. Whether that is to be said: `stands` tells what an earlier process left
    /// behind.
    pub(super) fn is_over(&self, stands: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        state.since_ms = None;
        match std::mem::replace(&mut state.said, Said::No) {
            Said::Yes => true,
            Said::Perhaps => stands(),
            Said::No => false,
        }
    }

    /// What was to be said could not be recorded: then the next word decides.
    pub(super) fn unsaid(&self) {
        self.state().said = Said::Perhaps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_are_said_once_however_many_attempts_they_have_seen() {
        let silence = Silence::default();
        assert!(!silence.lasts(0, 0));
        // Another attempt knows only of itself.
        let next = silence.clone();
        assert!(!next.lasts(400_000, SILENT_AFTER_MS - 1));
        assert!(next.lasts(500_000, SILENT_AFTER_MS));
        assert!(!silence.lasts(0, SILENT_AFTER_MS * 2), "said already");
        assert!(silence.is_over(|| false) && !silence.is_over(|| true), "it ends once");
        assert!(!silence.lasts(700_000, 800_000), "it counts from the new trouble");
    }

    #[test]
    fn what_an_earlier_process_said_ends_too() {
        assert!(Silence::default().is_over(|| true));
        assert!(!Silence::default().is_over(|| false));
        let silence = Silence::default();
        assert!(silence.is_over(|| true));
        silence.unsaid();
        assert!(silence.is_over(|| true), "nobody has heard of it");
    }
}
