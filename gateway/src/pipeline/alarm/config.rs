//! `[gateway.alarms]`: how many alarms may be open, and how long things take. Must not know how alarms live.

use schemars::JsonSchema;
use serde::Deserialize;

/// Most open alarms that can be asked for: a row each, which a restart reads back, some 2 KiB in memory.
const OPEN_MAX: u32 = 20_000;
/// Longest time on the shelf that can be asked for: a month, after which a person must look again.
const SHELVE_S_MAX: u32 = 31 * 86_400;

/// `[gateway.alarms]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmConfig {
    /// Open alarms. Above it the lowest severities go on in one flood alarm that counts them; critical and latched ones never do.
    #[schemars(range(min = 16, max = OPEN_MAX))]
    pub open_max: u32,
    /// While an alarm is raised again and again, it is told again at most so often; each time is counted.
    #[schemars(range(min = 1, max = 3_600))]
    pub again_s: u32,
    /// A condition that comes more often than this within `flapping_s` is flapping: one alarm says so and stays until it is calm.
    #[schemars(range(min = 2, max = 100))]
    pub flapping_count: u32,
    /// The time for `flapping_count`, and how long it must be calm to be over.
    #[schemars(range(min = 1, max = 86_400))]
    pub flapping_s: u32,
    /// So long after the box has booted, a bus or device that is offline raises nothing: it had no chance to speak yet.
    #[schemars(range(min = 0, max = 3_600))]
    pub start_s: u32,
    /// So long after a bus is back, its devices that are offline raise nothing.
    #[schemars(range(min = 0, max = 3_600))]
    pub recover_s: u32,
    /// Longest time that an alarm can be put on the shelf.
    #[schemars(range(min = 1, max = SHELVE_S_MAX))]
    pub shelve_max_s: u32,
    /// A warning or a minor alarm whose condition is over, and which nobody has touched, is over so long after.
    #[schemars(range(min = 60, max = 2_592_000))]
    pub untouched_s: u32,
    /// An alarm of a test or of a device under maintenance is over so long after its condition.
    #[schemars(range(min = 1, max = 86_400))]
    pub test_s: u32,
}

impl Default for AlarmConfig {
    fn default() -> Self {
        Self {
            open_max: 10_000,
            again_s: 60,
            flapping_count: 5,
            flapping_s: 600,
            start_s: 120,
            recover_s: 60,
            shelve_max_s: 86_400,
            untouched_s: 86_400,
            test_s: 600,
        }
    }
}

/// The same in the pipeline's units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) open_max: usize,
    pub(super) again_ms: u64,
    pub(super) comings_max: usize,
    pub(super) flapping_ms: u64,
    pub(super) start_ms: u64,
    pub(super) recover_ms: u64,
    pub(super) shelve_max_s: u64,
    pub(super) untouched_ms: u64,
    pub(super) test_ms: u64,
}

impl From<&AlarmConfig> for Terms {
    fn from(config: &AlarmConfig) -> Self {
        let ms = |s: u32| u64::from(s).saturating_mul(1_000);
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            open_max: count(config.open_max),
            again_ms: ms(config.again_s),
            comings_max: count(config.flapping_count),
            flapping_ms: ms(config.flapping_s),
            start_ms: ms(config.start_s),
            recover_ms: ms(config.recover_s),
            shelve_max_s: u64::from(config.shelve_max_s),
            untouched_ms: ms(config.untouched_s),
            test_ms: ms(config.test_s),
        }
    }
}
