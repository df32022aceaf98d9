//! The box itself as a device: what Linux tells anybody of heat, power, flash and memory, and where it has them of its
//! lid and its modem, as values and events of the gateway. Owns the reading and the thresholds; must not know who reads it.
//!
//! A machine that tells nothing of something has no such value. Limits: 16 zones, supplies and cards each; a file of
//! the kernel is read up to 4 KiB.

mod lid;
mod modem;
mod read;
mod state;
#[cfg(test)]
mod tests;
mod trouble;

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
use crate::model::record::Draft;

pub use lid::LidConfig;
pub use modem::{Modem, ModemConfig};
pub use read::Reading;
use state::State;

/// How often the lid is looked at: it may be open for moments only.
const LID_EVERY: Duration = Duration::from_secs(1);

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
    /// The contact at its lid, if it has one: `box.opened`.
    pub lid: Option<LidConfig>,
    /// Its modem, if it has one: `box.modem_failed`, `box.signal_low`.
    pub modem: Option<ModemConfig>,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            every_s: 60,
            hot_cel: 80.0,
            hot_hysteresis_cel: 5.0,
            flash_worn_pct: 90,
            memory_free_pct: 5,
            lid: None,
            modem: None,
        }
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
        out.extend(self.lid.iter().flat_map(|lid| lid.problems(&at("lid"))));
        out.extend(self.modem.iter().flat_map(|modem| modem.problems(&at("modem"))));
        out
    }
}

/// Who tells: others in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    /// ModemManager's command.
    pub mmcli: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: PathBuf::from("/sys"), proc: PathBuf::from("/proc"), mmcli: PathBuf::from("mmcli") }
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
        tokio::join!(self.watch(&cancel), self.watch_lid(&cancel));
    }

    async fn watch(&self, cancel: &CancellationToken) {
        let every = Duration::from_secs(u64::from(self.config.every_s));
        let (mut state, mut untold, mut unasked) = (State::default(), Echo::default(), Echo::default());
        loop {
            let reading = tokio::select! {
                () = cancel.cancelled() => return,
                reading = self.look(&mut unasked) => reading,
            };
            let at = self.clock.now();
            let (drafts, next) = state.after(&reading, &self.config, &at);
            let durability = if next.told_event { Durability::Synced } else { Durability::Relaxed };
            if self.tell(drafts, durability, &mut untold).await {
                state = next.state;
            }
            if ended_within(every, cancel).await {
                return;
            }
        }
    }

    async fn watch_lid(&self, cancel: &CancellationToken) {
        let Some(config) = &self.config.lid else { return };
        let (mut lid, mut untold) = (lid::Lid::default(), Echo::default());
        loop {
            let (drafts, next) = lid.after(config.look(), &self.clock.now());
            if self.tell(drafts, Durability::Synced, &mut untold).await {
                lid = next;
            }
            if ended_within(LID_EVERY, cancel).await {
                return;
            }
        }
    }

    /// One look at everything.
    async fn look(&self, unasked: &mut Echo) -> Reading {
        let mut reading = Reading::take(&self.roots);
        reading.lid_open = self.config.lid.as_ref().and_then(LidConfig::look);
        if let Some(config) = &self.config.modem {
            match modem::look(config, &self.roots).await {
                Ok(modem) => {
                    unasked.over();
                    reading.modem = Some(modem);
                }
                Err(error) => {
                    if unasked.tell(&error.to_string(), self.clock.now().mono_ms).is_some() {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "nothing is known of the modem");
                    }
                }
            }
        }
        reading
    }

    /// Whether it is stored, at least in memory.
    async fn tell(&self, drafts: Vec<Draft>, durability: Durability, untold: &mut Echo) -> bool {
        if drafts.is_empty() {
            return true;
        }
        match self.journal.append(drafts, durability).await {
            Ok(_) | Err(JournalError::Volatile) => {
                untold.over();
                true
            }
            Err(error) => {
                if untold.tell(&error.to_string(), self.clock.now().mono_ms).is_some() {
                    tracing::warn!(%error, "how the box is could not be stored");
                }
                false
            }
        }
    }
}

/// Waits; whether the end came meanwhile.
async fn ended_within(pause: Duration, cancel: &CancellationToken) -> bool {
    tokio::time::timeout(pause, cancel.cancelled()).await.is_ok()
}
