//! `[gateway.storage]`: how much room each class has, how long it is kept, how telemetry is thinned before it is
//! dropped. Owns the configuration type, its bounds, and what a row counts for. Must not know the file.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::check::Problem;
use crate::model::record::Class;

use super::heads::PerClass;

const MIB: u64 = 1024 * 1024;

/// Largest budget of a class: above it `count(*)` and a check of the file take hours on an SD card.
pub const BUDGET_MIB_MAX: u32 = 64 * 1024;
/// Longest retention: a hundred years.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// Largest reserve: more than a checkpoint and a round of deletions ever need.
pub const RESERVE_MIB_MAX: u32 = 1024;
/// Smallest reserve: the WAL grows to 4 MiB before it is written back, and so much must fit at once.
pub const RESERVE_MIB_MIN: u32 = 4;
/// Steps of thinning.
pub const THINNING_STEPS_MAX: usize = 8;
/// Longest interval of a step: a day.
pub const KEEP_EVERY_S_MAX: u32 = 86_400;

/// Defaults for an SD card of 8 to 32 GB that also holds the system: together under 1 GiB. At some 350 bytes a record
/// that is 190 000 alarm changes, 750 000 events and 1 500 000 telemetry records.
const ALARM_MIB: u32 = 64;
const EVENT_MIB: u32 = 256;
const TELEMETRY_MIB: u32 = 512;
const RESERVE_MIB: u32 = 8;
const THINNING: [ThinningStep; 2] = [
    ThinningStep { older_than_h: 24, keep_every_s: 60 },
    ThinningStep { older_than_h: 7 * 24, keep_every_s: 900 },
];

/// A class above its budget is brought down to this share of it, so that forgetting comes in bursts with pauses.
const LOW_WATER_PERCENT: u64 = 90;
/// How little telemetry may be left where somebody else fills the disk, as a share of its budget and in bytes.
const FLOOR_PERCENT: u64 = 5;
const FLOOR_BYTES_MAX: u64 = 8 * MIB;

/// What a row takes beyond its texts: cell header, numbers, its share of page headers and of what stays free in a page.
/// Measured: a test compares the sums with the file.
pub(super) const ROW_OVERHEAD_BYTES: u64 = 36;

/// `[gateway.storage]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Room for changes of alarms, in MiB. Above it the oldest are dropped.
    #[schemars(range(min = 1, max = BUDGET_MIB_MAX))]
    pub alarm_mib: u32,
    /// Room for events, in MiB. Above it the oldest are dropped. Telemetry never takes it.
    #[schemars(range(min = 1, max = BUDGET_MIB_MAX))]
    pub event_mib: u32,
    /// Room for telemetry, in MiB. Above it telemetry is thinned by the steps of `thinning`, then dropped, oldest first.
    #[schemars(range(min = 1, max = BUDGET_MIB_MAX))]
    pub telemetry_mib: u32,
    /// Changes of alarms older than this are dropped, also where there is room; kept as long as there is room if not given.
    #[schemars(range(min = 1, max = RETENTION_DAYS_MAX))]
    pub alarm_days: Option<u32>,
    /// The same for events.
    #[schemars(range(min = 1, max = RETENTION_DAYS_MAX))]
    pub event_days: Option<u32>,
    /// The same for telemetry.
    #[schemars(range(min = 1, max = RETENTION_DAYS_MAX))]
    pub telemetry_days: Option<u32>,
    /// How telemetry is thinned when its room runs out, gentlest step first; an empty list drops without thinning. Without the key: one a minute after a day, one in 15 minutes after a week.
    #[schemars(length(max = THINNING_STEPS_MAX))]
    pub thinning: Vec<ThinningStep>,
    /// Size of the reserve file in MiB, given up first when the disk is full; 0 means none.
    #[schemars(range(min = 0, max = RESERVE_MIB_MAX))]
    pub reserve_mib: u32,
}

/// One step: `{ older_than_h = 24, keep_every_s = 60 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThinningStep {
    /// The step touches values at least this many hours old; 0 touches all.
    #[schemars(range(min = 0, max = 876_000))]
    pub older_than_h: u32,
    /// One value of each point stays for each interval of so many seconds.
    #[schemars(range(min = 1, max = KEEP_EVERY_S_MAX))]
    pub keep_every_s: u32,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            alarm_mib: ALARM_MIB,
            event_mib: EVENT_MIB,
            telemetry_mib: TELEMETRY_MIB,
            alarm_days: None,
            event_days: None,
            telemetry_days: None,
            thinning: THINNING.to_vec(),
            reserve_mib: RESERVE_MIB,
        }
    }
}

impl StorageConfig {
    fn days(&self, class: Class) -> Option<u32> {
        match class {
            Class::Alarm => self.alarm_days,
            Class::Event => self.event_days,
            Class::Telemetry => self.telemetry_days,
        }
    }

    /// What contradicts itself; `at` is the path of the table.
    pub fn problems(&self, at: &[&str]) -> Vec<Problem> {
        let error = |key: &[&str], message: String| Problem::error(&[at, key].concat(), message);
        let mut problems = Vec::new();
        for (index, pair) in self.thinning.windows(2).enumerate() {
            let place = (index + 1).to_string();
            let [before, after] = pair else { continue };
            if after.older_than_h <= before.older_than_h {
                let message = format!(
                    "this step begins at {} h, the one before it at {} h",
                    after.older_than_h, before.older_than_h
                );
                let problem = error(&["thinning", &place, "older_than_h"], message);
                problems.push(problem.hint("order the steps by age, each older than the one before"));
            }
            if after.keep_every_s <= before.keep_every_s {
                let message = format!(
                    "this step keeps a value every {} s, the one before it every {} s",
                    after.keep_every_s, before.keep_every_s
                );
                let problem = error(&["thinning", &place, "keep_every_s"], message);
                problems.push(problem.hint("older values are kept more sparsely: give a longer interval"));
            }
        }
        if let Some(days) = self.telemetry_days {
            let late = |step: &ThinningStep| u64::from(step.older_than_h) >= u64::from(days) * 24;
            for (index, step) in self.thinning.iter().enumerate().filter(|(_, step)| late(step)) {
                let message = format!(
                    "this step begins at {} h, but telemetry is dropped after {days} days",
                    step.older_than_h
                );
                problems.push(error(&["thinning", &index.to_string(), "older_than_h"], message));
            }
        }
        let room: u64 = [self.alarm_mib, self.event_mib, self.telemetry_mib].into_iter().map(u64::from).sum();
        if u64::from(self.reserve_mib) > room {
            let message = format!(
                "the reserve of {} MiB is larger than the room for all records, {room} MiB",
                self.reserve_mib
            );
            problems.push(error(&["reserve_mib"], message).hint("8 is enough for nearly everyone"));
        } else if self.reserve_mib > 0 && self.reserve_mib < RESERVE_MIB_MIN {
            let message = format!("a reserve of {} MiB does not hold a checkpoint", self.reserve_mib);
            let hint = format!("write {RESERVE_MIB_MIN} or more, or 0 for none");
            problems.push(error(&["reserve_mib"], message).hint(hint));
        }
        if self.reserve_mib == 0 {
            let path = [at, &["reserve_mib"]].concat();
            let problem = Problem::warning(&path, "there is no reserve: a full disk stops the journal");
            problems.push(problem.hint("write 8 or more"));
        }
        problems
    }
}

/// The configuration in the store's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budgets {
    pub(super) bytes: PerClass<u64>,
    pub(super) keep_ms: PerClass<Option<u64>>,
    pub(super) thinning: Vec<ThinningStep>,
    pub(super) reserve_bytes: u64,
}

impl Budgets {
    pub(super) fn new(config: &StorageConfig) -> Self {
        Self {
            bytes: PerClass::from_fn(|class| {
                MIB * u64::from(match class {
                    Class::Alarm => config.alarm_mib,
                    Class::Event => config.event_mib,
                    Class::Telemetry => config.telemetry_mib,
                })
            }),
            keep_ms: PerClass::from_fn(|class| config.days(class).map(|days| u64::from(days) * 86_400_000)),
            thinning: config.thinning.clone(),
            reserve_bytes: MIB * u64::from(config.reserve_mib),
        }
    }

    /// Nothing is ever forgotten, and there is no reserve: a journal that nobody gave budgets.
    pub(super) fn unlimited() -> Self {
        Self {
            bytes: PerClass::from_fn(|_class| u64::MAX),
            keep_ms: PerClass::default(),
            thinning: Vec::new(),
            reserve_bytes: 0,
        }
    }

    /// Where forgetting stops again.
    pub(super) fn low(&self, class: Class) -> u64 {
        self.bytes[class] / 100 * LOW_WATER_PERCENT
    }

    /// What is left of telemetry however full the disk is.
    pub(super) fn floor(&self) -> u64 {
        (self.bytes[Class::Telemetry] / 100 * FLOOR_PERCENT).min(FLOOR_BYTES_MAX)
    }

    /// Everything together, for whoever compares it with the disk.
    pub(super) fn total(&self) -> u64 {
        Class::ALL.iter().fold(self.reserve_bytes, |sum, class| sum.saturating_add(self.bytes[*class]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::Weight;

    fn errors(change: impl FnOnce(&mut StorageConfig)) -> Vec<String> {
        let mut config = StorageConfig::default();
        change(&mut config);
        let problems = config.problems(&["gateway", "storage"]);
        let errors = problems.iter().filter(|problem| problem.weight == Weight::Error);
        errors.map(|problem| problem.path.join(".")).collect()
    }

    fn step(older_than_h: u32, keep_every_s: u32) -> ThinningStep {
        ThinningStep { older_than_h, keep_every_s }
    }

    #[test]
    fn contradictions_are_found_at_their_place() {
        assert_eq!(errors(|_| {}), [""; 0]);
        assert_eq!(errors(|config| config.reserve_mib = 0), [""; 0], "no reserve is a warning");
        let steps = |steps: &[ThinningStep]| errors(|config| config.thinning = steps.to_vec());
        assert_eq!(steps(&[step(24, 60), step(24, 900)]), ["gateway.storage.thinning.1.older_than_h"]);
        assert_eq!(steps(&[step(0, 60), step(24, 60)]), ["gateway.storage.thinning.1.keep_every_s"]);
        assert_eq!(
            errors(|config| config.telemetry_days = Some(7)),
            ["gateway.storage.thinning.1.older_than_h"],
            "a step that is never reached"
        );
        let small = |config: &mut StorageConfig| {
            (config.alarm_mib, config.event_mib, config.telemetry_mib) = (1, 2, 4);
        };
        assert_eq!(errors(small), ["gateway.storage.reserve_mib"]);
        assert_eq!(errors(|config| config.reserve_mib = 3), ["gateway.storage.reserve_mib"]);
    }

    #[test]
    fn the_floor_and_the_low_water_mark_lie_below_the_budget() {
        let budgets = Budgets::new(&StorageConfig::default());
        for class in Class::ALL {
            assert!(budgets.low(class) < budgets.bytes[class]);
        }
        assert!(budgets.floor() < budgets.low(Class::Telemetry));
        assert!(budgets.total() < 1024 * MIB);
    }
}
