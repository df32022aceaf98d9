//! The writer's side of time: when a deadline of the fold falls due and nothing else comes, a tick does. Deadlines are by
//! the monotonic clock of this boot; what they are for, the fold alone knows.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::command::tick;
use crate::model::journal::Fold;
use crate::rt::clock::Clock;

use super::lost::Desk;
use super::op::Op;
use super::writer::Writer;

/// Ticks in a row that may leave the same deadline first: a record fires some dozens, so this clears a thousand times
/// more than a box can have waiting at once.
const STUCK_AFTER: u32 = 512;
/// The pause between ticks that change nothing.
const STUCK_PAUSE_MS: u64 = 1_000;

/// When the next tick is due.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    due_ms: Option<u64>,
    /// Ticks since it has changed.
    tries: u32,
    /// Not before, though it is due.
    not_before_ms: u64,
}

impl Ticks {
    /// Asks the fold anew, after each commit.
    pub(super) fn look(&mut self, fold: &dyn Fold, clock: &dyn Clock) {
        let due_ms = fold.due_ms(&clock.now().boot);
        if due_ms != self.due_ms {
            *self = Self { due_ms, ..Self::default() };
        }
    }

    /// How long until a tick is due; none while nothing waits.
    fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        self.due_ms.map(|due_ms| due_ms.max(self.not_before_ms).saturating_sub(now_ms))
    }

    pub(super) fn next_at(&self, now_ms: u64) -> Option<Instant> {
        self.wait_ms(now_ms).and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
    }

    /// Whether a tick is due now; it is counted then.
    fn take(&mut self, now_ms: u64) -> bool {
        if self.wait_ms(now_ms) != Some(0) {
            return false;
        }
        self.tries = self.tries.saturating_add(1);
        if self.tries == STUCK_AFTER {
            tracing::error!(
                "a deadline stays due whatever happens: it is a mistake in the pipeline; ticks are slowed down"
            );
        }
        if self.tries >= STUCK_AFTER {
            self.not_before_ms = now_ms.saturating_add(STUCK_PAUSE_MS);
        }
        true
    }
}

impl Desk {
    fn fold(&self) -> &dyn Fold {
        match self {
            Self::Open(core) => core.fold(),
            Self::Shut(shut) => shut.fold.as_ref(),
        }
    }
}

impl Writer {
    pub(super) fn look_at_deadlines(&mut self) {
        self.ticks.look(self.desk.fold(), self.clock.as_ref());
    }

    /// A tick, if a deadline has come and no record of the batch tells the time by itself.
    pub(super) fn due_tick(&mut self) -> Option<Op> {
        self.ticks.take(self.clock.mono_ms()).then(|| Op::Append { drafts: vec![tick(&self.clock.now())] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::BootId;
    use crate::model::record::{Draft, Record};
    use crate::rt::clock::ManualClock;

    #[derive(Debug)]
    struct Due(Option<u64>);

    impl Fold for Due {
        fn apply(&mut self, _record: &Record) -> Vec<Draft> {
            Vec::new()
        }

        fn commit(&mut self, _saved: bool) {}

        fn rollback(&mut self) {}

        fn due_ms(&self, _boot: &BootId) -> Option<u64> {
            self.0
        }
    }

    fn ticks(due_ms: Option<u64>, clock: &ManualClock) -> Ticks {
        let mut ticks = Ticks::default();
        ticks.look(&Due(due_ms), clock);
        ticks
    }

    #[test]
    fn a_tick_comes_when_it_is_due_and_not_before() {
        let clock = super::super::testing::clock();
        let now_ms = clock.mono_ms();
        assert_eq!(ticks(None, &clock).wait_ms(now_ms), None);
        assert!(!ticks(None, &clock).take(now_ms) && !ticks(Some(now_ms + 1), &clock).take(now_ms));
        assert!(ticks(Some(now_ms), &clock).take(now_ms) && ticks(Some(0), &clock).take(now_ms));
        assert_eq!(ticks(Some(now_ms + 70), &clock).wait_ms(now_ms), Some(70));
    }

    #[test]
    fn a_deadline_that_never_goes_away_does_not_keep_the_writer_busy() {
        let clock = super::super::testing::clock();
        let now_ms = clock.mono_ms();
        let mut ticks = ticks(Some(0), &clock);
        let at_once = (0..10 * STUCK_AFTER).filter(|_| ticks.take(now_ms)).count();
        assert_eq!(at_once, STUCK_AFTER as usize);
        assert!(!ticks.take(now_ms + STUCK_PAUSE_MS - 1) && ticks.take(now_ms + STUCK_PAUSE_MS));
        ticks.look(&Due(Some(1)), clock.as_ref());
        assert!(ticks.take(now_ms), "another deadline is another matter");
    }
}
