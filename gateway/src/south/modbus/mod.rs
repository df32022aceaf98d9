//! Modbus TCP, RTU, and RTU over TCP: one task per bus polls its devices and writes their outputs.
//!
//! Owns the frames ([`frame`]), the plan of reads ([`plan`]), the exchange on a line ([`wire`]), the breakers of units
//! ([`breaker`]), what readings mean ([`point`], [`filter`], [`memory`]), and outputs ([`actuator`]). Must not know SQL,
//! rules or platforms.
//!
//! What must be survived: units that are dead, late, or answer for others (each costs its bus one time-out, then rare
//! short probes); lines that break frames; a port that vanishes and comes back under another name; a server that takes
//! connections and says nothing; a journal that fails or hangs (the bus goes on; changes wait, in order). One event
//! tells of a line that is down, whatever hangs on it.

pub mod actuator;
mod attempt;
mod breaker;
pub mod check;
mod commit;
pub mod config;
mod field;
mod filter;
mod frame;
mod memory;
mod plan;
mod point;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use self::actuator::{Actuator, Write};
use self::attempt::Attempt;
use self::commit::Line;
use self::config::ModbusConfig;
use self::field::Field;
use self::wire::Dialer;
use super::device::DeviceConfig;
pub use super::line::Deps;
use super::profile::Profile;
use crate::model::ids::{BusName, DeviceId, ProfileName};
use crate::rt::board::{BusStatus, LineStatus};

pub use self::field::FieldError;
pub use self::frame::fuzz_reply;
pub use self::wire::{Open, Port};

/// What a bus is: from the configuration.
#[derive(Debug, Clone)]
pub struct Setup {
    pub bus: BusName,
    pub config: ModbusConfig,
    /// All devices; those of other buses are left out.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
}

/// Why an attempt ended. The next one may follow after a pause.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("cannot open {at}")]
    Open { at: String, source: std::io::Error },
    #[error("{at} failed")]
    Line { at: String, source: std::io::Error },
    #[error("nobody answers on {at}: {units} units are silent")]
    Silent { at: String, units: usize },
}

/// A bus, not running yet. What it remembers of its devices outlives its attempts.
#[derive(Debug)]
pub struct Bus {
    setup: Setup,
    deps: Deps,
    opener: Arc<dyn Open>,
    actuator: Actuator,
    state: Mutex<State>,
}

/// What one attempt after the other works on.
#[derive(Debug)]
struct State {
    field: Field,
    line: Line,
    writes_rx: mpsc::Receiver<Write>,
}

impl Bus {
    /// Resolves devices and profiles, and plans the reads; opens nothing.
    ///
    /// # Errors
    /// What `check` would have found.
    pub fn new(setup: Setup, deps: Deps) -> Result<Self, FieldError> {
        let opener = Arc::new(Dialer(setup.config.clone()));
        Self::with_opener(setup, deps, opener)
    }

    /// The same over another kind of line.
    ///
    /// # Errors
    /// As [`Bus::new`].
    pub fn with_opener(setup: Setup, deps: Deps, opener: Arc<dyn Open>) -> Result<Self, FieldError> {
        let field = Field::new(&setup)?;
        let (actuator, writes_rx) = Actuator::new();
        let state = Mutex::new(State { field, line: Line::default(), writes_rx });
        Ok(Self { setup, deps, opener, actuator, state })
    }

    pub const fn name(&self) -> &BusName {
        &self.setup.bus
    }

    /// The handle to the outputs of its devices.
    pub fn actuator(&self) -> Actuator {
        self.actuator.clone()
    }

    /// One attempt: opens the line, calls `ready` when it works, and polls until `cancel`.
    ///
    /// # Errors
    /// The line could not be opened, failed, or nobody answers on it.
    pub async fn run(&self, cancel: CancellationToken, ready: impl FnOnce() + Send) -> Result<(), BusError> {
        let mut state = self.state.lock().await;
        self.post(&state.field);
        let mut attempt = Attempt::new(self, &mut state);
        let ended = attempt.run(&cancel, ready).await;
        attempt.finish(&ended).await;
        ended
    }

    /// Shows the bus and its devices, as not heard yet.
    fn post(&self, field: &Field) {
        self.deps.board.update(|board| {
            let bus = board.buses.entry(self.setup.bus.clone()).or_insert_with(|| BusStatus {
                kind: "modbus".to_owned(),
                at: vec![self.setup.config.shown()],
                ..BusStatus::default()
            });
            bus.line.get_or_insert_with(LineStatus::default).units = field.units.len();
            for device in &field.devices {
                let subject = &device.described.subject.device;
                let entry = board.devices.entry(subject.id.clone()).or_default();
                entry.kind.clone_from(&subject.kind);
            }
        });
    }
}
