//! Retry delays: exponential with full jitter, so that many clients of one failed thing do not come back together.

use std::time::Duration;

/// Delays between `min` and `max`, doubling with each failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration, rng: fastrand::Rng) -> Self {
        Self { min, max, failures: 0, rng }
    }

    /// The delay after one more failure: at least `min`, at most the doubled bound, uniformly chosen between.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let span = ceiling.saturating_sub(self.min);
        self.min + span.mul_f64(self.rng.f64())
    }

    fn ceiling(&self) -> Duration {
        self.min.saturating_mul(2_u32.saturating_pow(self.failures.saturating_add(1).min(30))).min(self.max)
    }

    /// The next failure starts again at `min`.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_stay_inside_it() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max, fastrand::Rng::with_seed(7));
        let delays: Vec<Duration> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| (min..=max).contains(delay)));
        assert!(delays[0] <= Duration::from_millis(200), "the first delay was {:?}", delays[0]);
        assert!(delays.iter().any(|delay| *delay > Duration::from_secs(4)), "never came near the bound");
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(200));
    }
}
