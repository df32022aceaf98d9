//! The box itself as a device: what Linux tells anybody of heat, power, flash and memory, as values and events of the
//! gateway. Owns the reading and the thresholds; must not know who reads it.
//!
//! A machine that tells nothing of something has no such value. Limits: 16 zones, supplies and cards each; a file of
//! the kernel is read up to 4 KiB.

mod read;
mod state;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::clock::SharedClock;
use super::echo::Echo;
use crate::model::check::Problem;
use crate::model::journal::{Durability, Journal, JournalError};

pub use read::Reading;
use state::State;

/// `[gateway.machine]`: what is told of the box itself, and when it is too much.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MachineConfig {
    /// How often it looks, seconds.
    #[schemars(range(min = 5, max = 3_600))]
    pub every_s: u32,
    /// The processor is too hot from here on, °C: `box.hot`. A Raspberry Pi throttles at 80 to 85.
    pub hot_cel: f64,
    /// So much cooler, and it is well again.
    pub hot_hysteresis_cel: f64,
    /// Flash is worn from here on, in percent of its life: `box.flash_worn`.
    #[schemars(range(min = 10, max = 100))]
    pub flash_worn_pct: u8,
    /// Memory is short below this, in percent of all: `box.memory_short`.
    #[schemars(range(max = 50))]
    pub memory_free_pct: u8,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self { every_s: 60, hot_cel: 80.0, hot_hysteresis_cel: 5.0, flash_worn_pct: 90, memory_free_pct: 5 }
    }
}

impl MachineConfig {
    /// Mistakes beyond types.
    pub fn problems(&self, path: &[&str]) -> Vec<Problem> {
        let mut out = Vec::new();
        let at = |key| [path, &[key]].concat();
        if !(30.0..=120.0).contains(&self.hot_cel) {
            out.push(Problem::error(&at("hot_cel"), "`hot_cel` is between 30 and 120").hint("80 is usual"));
        }
        if !(0.5..=30.0).contains(&self.hot_hysteresis_cel) {
            let problem =
                Problem::error(&at("hot_hysteresis_cel"), "`hot_hysteresis_cel` is between 0.5 and 30");
            out.push(problem.hint("5 is usual"));
        }
        out
    }
}

/// Where the kernel tells: other roots in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: PathBuf::from("/sys"), proc: PathBuf::from("/proc") }
    }
}

/// Watches the box.
#[derive(Debug)]
pub struct Machine {
    pub config: MachineConfig,
    pub roots: Roots,
    pub clock: SharedClock,
    pub journal: Arc<dyn Journal>,
}

impl Machine {
    /// Watches until `cancel`. What could not be stored is told again at the next look.
    pub async fn run(&self, cancel: CancellationToken) {
        let (mut state, mut echo) = (State::default(), Echo::default());
        loop {
            let reading = Reading::take(&self.roots);
            let at = self.clock.now();
            let (drafts, next) = state.after(&reading, &self.config, &at);
            let told = if drafts.is_empty() {
                Ok(())
            } else {
                let durability = if next.told_event { Durability::Synced } else { Durability::Relaxed };
                self.journal.append(drafts, durability).await.map(|_committed| ())
            };
            match told {
                Ok(()) | Err(JournalError::Volatile) => {
                    state = next.state;
                    echo.over();
                }
                Err(error) => {
                    if echo.tell(&error.to_string(), at.mono_ms).is_some() {
                        tracing::warn!(%error, "how the box is could not be stored");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(u64::from(self.config.every_s))) => {}
            }
        }
    }
}
