//! How long to wait before the next connection: a pure function, so that twenty thousand boxes behave as one sentence
//! says. Under a minute down: soon. Later: anywhere within the configured bound, so that they do not come together.

use crate::north::config::Pacing;

/// Up to here an outage is the box's own, and reconnecting soon harms nobody.
const SHORT_MS: u64 = 60_000;
/// Bounds of the delay in a short outage; the upper one doubles with each failure.
const SHORT_MIN_MS: u64 = 100;
const SHORT_FIRST_MS: u64 = 1_000;
const SHORT_MAX_MS: u64 = 5_000;
/// A busy broker doubles the bound at most so many times.
const BUSY_DOUBLINGS_MAX: u32 = 4;
/// Two boxes that throw each other out must not do so all the time.
const DUPLICATE_MIN_MS: u64 = 30_000;
const DUPLICATE_MAX_MS: u64 = 300_000;

/// What is known when a connection has failed or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outage {
    /// Since there was a connection; a process that never had one counts from its start.
    pub(super) down_ms: u64,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    /// Of these, the last ones in a row that the broker refused for being busy.
    pub(super) busy: u32,
    /// A critical record waits.
    pub(super) critical: bool,
    /// Another client uses this one's identity.
    pub(super) duplicate: bool,
}

/// Milliseconds until the next attempt.
pub(super) fn delay_ms(outage: Outage, pacing: &Pacing, rng: &mut fastrand::Rng) -> u64 {
    if outage.duplicate {
        return rng.u64(DUPLICATE_MIN_MS..=DUPLICATE_MAX_MS);
    }
    let (min_ms, max_ms) = if outage.down_ms < SHORT_MS {
        let doubled = SHORT_FIRST_MS.saturating_mul(1 << outage.failures.min(10));
        (SHORT_MIN_MS, doubled.min(SHORT_MAX_MS))
    } else {
        let max_s = if outage.critical {
            pacing.reconnect_critical_max_s.min(pacing.reconnect_max_s)
        } else {
            pacing.reconnect_max_s
        };
        (0, u64::from(max_s) * 1_000)
    };
    let bound_ms = max_ms.saturating_mul(1 << outage.busy.min(BUSY_DOUBLINGS_MAX));
    rng.u64(min_ms..=bound_ms.max(min_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_their_bounds_and_use_them() {
        let calm = Outage { down_ms: 0, failures: 0, busy: 0, critical: false, duplicate: false };
        let long = Outage { down_ms: 60_000, failures: 9, ..calm };
        let table = [
            ("just lost", calm, 100, 1_000),
            ("short outage", Outage { failures: 8, down_ms: 59_999, ..calm }, 100, 5_000),
            ("long outage", long, 0, 120_000),
            ("with danger", Outage { critical: true, ..long }, 0, 5_000),
            ("busy broker", Outage { busy: 1, ..long }, 0, 240_000),
            ("very busy broker", Outage { busy: 30, ..long }, 0, 1_920_000),
            ("busy, with danger", Outage { busy: 1, critical: true, ..long }, 0, 10_000),
            ("second box", Outage { duplicate: true, critical: true, ..calm }, 30_000, 300_000),
        ];
        let mut rng = fastrand::Rng::with_seed(5);
        for (name, outage, min, max) in table {
            let delays: Vec<u64> =
                (0..2_000).map(|_| delay_ms(outage, &Pacing::default(), &mut rng)).collect();
            assert!(delays.iter().all(|delay| (min..=max).contains(delay)), "{name}");
            let width = max - min;
            assert!(delays.iter().any(|delay| *delay < min + width / 20), "{name}: never short");
            assert!(delays.iter().any(|delay| *delay > max - width / 20), "{name}: never long");
        }
    }
}
