//! How fast and in which turn the streams send: a token bucket for the backlog, credits for fairness, growing pauses.
//! Pure arithmetic on monotonic milliseconds.

/// A token bucket in records. It may run into debt, so that a batch larger than the bucket still leaves, and is paid
/// for by a longer wait.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    per_s: u32,
    /// Thousandths of a record.
    milli: i64,
    at_ms: u64,
}

impl Bucket {
    /// Starts with one second's worth.
    pub(super) fn new(per_s: u32, now_ms: u64) -> Self {
        let per_s = per_s.max(1);
        Self { per_s, milli: i64::from(per_s) * 1_000, at_ms: now_ms }
    }

    fn refill(&mut self, now_ms: u64) {
        let passed_ms = i64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(i64::MAX);
        let per_s = i64::from(self.per_s);
        self.milli = self.milli.saturating_add(passed_ms.saturating_mul(per_s)).min(per_s * 1_000);
        self.at_ms = self.at_ms.max(now_ms);
    }

    pub(super) fn ready(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.milli >= 1_000
    }

    pub(super) fn take(&mut self, records: usize, now_ms: u64) {
        self.refill(now_ms);
        let cost = i64::try_from(records).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.milli = self.milli.saturating_sub(cost);
    }

    /// When the bucket is ready again.
    pub(super) fn ready_at_ms(&self) -> u64 {
        let missing = u64::try_from(1_000 - self.milli).unwrap_or(0);
        self.at_ms.saturating_add(missing.div_ceil(u64::from(self.per_s)))
    }
}

/// Delay of the `failures`-th try in a row: doubling from `base_ms` to `max_ms`, the upper half random.
pub(super) fn delay_ms(base_ms: u64, max_ms: u64, failures: u32, rng: &mut fastrand::Rng) -> u64 {
    let doubled = base_ms.saturating_mul(1_u64 << failures.min(20)).min(max_ms);
    doubled / 2 + rng.u64(0..=doubled / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_gives_its_rate_and_collects_its_debts() {
        let mut bucket = Bucket::new(50, 0);
        let mut sent = 0_u64;
        for now_ms in 0..10_000 {
            while bucket.ready(now_ms) {
                bucket.take(30, now_ms);
                sent += 30;
            }
        }
        assert!((530..=580).contains(&sent), "50 a second for 10 s and a second's start, was {sent}");
        assert!(!bucket.ready(10_000) || bucket.ready_at_ms() <= 10_000);
        let ready_at = bucket.ready_at_ms();
        assert!(bucket.ready(ready_at), "ready when it said");
    }

    #[test]
    fn delays_double_to_their_bound() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (failures, range) in [(0, 500..=1_000), (3, 4_000..=8_000), (40, 15_000..=30_000)] {
            let delay = delay_ms(1_000, 30_000, failures, &mut rng);
            assert!(range.contains(&delay), "{failures} failures: {delay}");
        }
    }
}
