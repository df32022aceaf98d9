//! The circuit breaker of one unit (promise G9): a unit that fails costs its bus one time-out and is then asked rarely,
//! alone, briefly, when nobody else is due. Pure; time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::rt::backoff::Backoff;

/// First and longest pause between two probes of a unit that does not answer.
const PROBE_MIN: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(30);

/// Failures in a row after which a unit's values are stale: one lost frame is ordinary on RS-485.
pub(super) const STALE_AFTER: u32 = 2;

/// Failures in a row after which it is offline.
pub(super) const OFFLINE_AFTER: u32 = 3;

/// Shortest time-out of a probe.
const PROBE_WAIT_MIN: Duration = Duration::from_millis(50);

/// How much longer than the slowest answer so far a probe waits.
const PROBE_WAIT_FACTOR: u32 = 3;

/// Every so many probes one gets the full time-out: the unit may have become slow.
const PROBE_FULL_EVERY: u32 = 8;

/// The state of one unit.
#[derive(Debug)]
pub(super) struct Breaker {
    backoff: Backoff,
    failures: u32,
    /// When it may be asked again; none while it is well.
    probe_at: Option<Instant>,
    /// Slowest answer of late.
    slowest: Option<Duration>,
}

impl Breaker {
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self { backoff: Backoff::new(PROBE_MIN, PROBE_MAX, rng), failures: 0, probe_at: None, slowest: None }
    }

    /// Failures in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// When a probe is due; none for a unit that is well, and is asked by the plan.
    pub(super) const fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&mut self, took: Duration) {
        self.failures = 0;
        self.probe_at = None;
        self.backoff.reset();
        // Rises at once, falls slowly.
        let faded = self.slowest.map(|slowest| slowest * 15 / 16);
        self.slowest = Some(faded.map_or(took, |faded| faded.max(took)));
    }

    /// It did not, and is left alone for `rest` at least.
    pub(super) fn failed(&mut self, now: Instant, rest: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + self.backoff.next_delay().max(rest));
    }

    /// Its line is back: it is asked soon, and what it failed while the line was down does not count.
    pub(super) fn line_returned(&mut self, now: Instant) {
        if self.failures > 0 {
            self.failures = 1;
            self.backoff.reset();
            self.probe_at = Some(now);
        }
    }

    /// Slowest answer of late.
    pub(super) const fn slowest(&self) -> Option<Duration> {
        self.slowest
    }

    /// How long to wait for its answer now, at most `full`. `others` is the slowest answer on the bus, for a unit that
    /// never answered.
    pub(super) fn patience(&self, full: Duration, others: Option<Duration>) -> Duration {
        if self.failures == 0 || self.failures.is_multiple_of(PROBE_FULL_EVERY) {
            return full;
        }
        brief(full, self.slowest.or(others))
    }
}

/// A short time-out, given the slowest answer so far.
pub(super) fn brief(full: Duration, slowest: Option<Duration>) -> Duration {
    let short = slowest.map_or(full / 4, |slowest| slowest * PROBE_WAIT_FACTOR);
    short.max(PROBE_WAIT_MIN).min(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dead_unit_is_asked_rarely_and_briefly() {
        let mut breaker = Breaker::new(fastrand::Rng::with_seed(3));
        let full = Duration::from_secs(1);
        let start = Instant::now();
        let (mut now, mut spent, mut probes) = (start, Duration::ZERO, 0);
        while now < start + Duration::from_mins(10) {
            let wait = breaker.patience(full, None);
            spent += wait;
            now += wait;
            breaker.failed(now, Duration::ZERO);
            probes += 1;
            now = breaker.probe_at().unwrap();
        }
        assert!((20..120).contains(&probes), "{probes} probes in ten minutes");
        assert!(spent < Duration::from_secs(40), "{spent:?} of ten minutes were spent on a dead unit");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_makes_it_well_and_a_slow_unit_gets_its_time() {
        let mut breaker = Breaker::new(fastrand::Rng::with_seed(3));
        let full = Duration::from_secs(1);
        breaker.answered(Duration::from_millis(250));
        breaker.failed(Instant::now(), Duration::ZERO);
        assert_eq!(breaker.patience(full, None), Duration::from_millis(750));
        breaker.answered(Duration::from_millis(20));
        assert_eq!((breaker.failures(), breaker.probe_at()), (0, None));
        assert_eq!(breaker.patience(full, None), full);
        for _ in 0..8 {
            breaker.failed(Instant::now(), Duration::ZERO);
        }
        assert_eq!(breaker.patience(full, None), full, "now and then it gets all of it");
    }
}
