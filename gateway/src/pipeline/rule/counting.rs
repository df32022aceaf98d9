//! `count`: how often it happened within a sliding window, and at how many devices.

use std::collections::BTreeSet;

use super::config::RuleConfig;
use super::state::{Hit, Phase, Standing};

/// Takes a hit in and says how many count now. Where devices are counted, one at which it still holds counts however long
/// ago it began: a detector says once that there is smoke.
pub(super) fn counted(standing: &mut Standing, config: &RuleConfig, t_ms: u64, device: &str) -> usize {
    if config.distinct {
        standing.hits.retain(|hit| hit.device != device);
    }
    standing.hits.push(Hit { t_ms, device: device.to_owned() });
    forget(standing, config, t_ms);
    let most = usize::try_from(config.count.unwrap_or_default()).unwrap_or(usize::MAX);
    let many = standing.hits.len().saturating_sub(most);
    standing.hits.drain(..many);
    if !config.distinct {
        return standing.hits.len();
    }
    let devices: BTreeSet<&String> =
        standing.hits.iter().map(|hit| &hit.device).chain(&standing.holding).collect();
    devices.len()
}

/// Forgets hits that are too old to count.
pub(super) fn forget(standing: &mut Standing, config: &RuleConfig, t_ms: u64) {
    let within_ms = u64::from(config.within_s.unwrap_or_default()).saturating_mul(1_000);
    standing.hits.retain(|hit| hit.t_ms.saturating_add(within_ms) > t_ms);
    let first = standing.hits.first().map(|hit| hit.t_ms.saturating_add(within_ms));
    standing.phase = first.map_or(Phase::Quiet, |due_ms| Phase::Forgetting { due_ms });
}
