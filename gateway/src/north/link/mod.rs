//! The link: puts the engine on an MQTT connection. Owns connecting, publishing, reconnecting, saying goodbye; must
//! not decide what is sent or what counts as delivered.
//!
//! Each connection has a fresh client and a clean session: nothing is left to the MQTT library's own session state,
//! which drops pending publishes when the broker has forgotten the session. What became of a publish is read from the
//! reason code of its own PUBACK. Reads of the journal are short and done on the runtime's thread
//! (`block_in_place`); queues are bounded by the engine's window.

pub(in crate::north) mod adapters;
mod asking;
mod connection;
mod lookback;
mod options;
mod ordering;
mod reconnect;
mod shell;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::command::Perform;
use crate::model::ids::{GatewayName, UplinkName};
use crate::model::journal::JournalError;
use crate::model::record::Class;
use crate::model::roll::Roll;
use crate::model::stamp::Stamp;
use crate::north::commands::Authority;
use crate::north::config::UplinkConfig;
use crate::north::contract::{Private, Topics, View, ViewError};
use crate::north::engine::{Engine, Settings};
use crate::rt::board::{Board, UplinkStatus};
use crate::rt::clock::SharedClock;
use crate::rt::echo::Echo;
use crate::rt::metrics::Metrics;
use crate::rt::mqtt::PeerError;
use crate::store::{Store, StoreError};

use adapters::{ContractWording, StoreSource};
use asking::Asking;
use reconnect::Outage;
use shell::{Came, Shell};

/// Takeovers by another client within [`TAKEOVER_WINDOW_MS`] that mean a second box, not our own old connection.
const TAKEOVERS_MAX: usize = 3;
const TAKEOVER_WINDOW_MS: u64 = 600_000;

/// A platform that could not be reached for so long is told as offline: brokers are restarted within a minute.
const OFFLINE_AFTER_MS: u64 = 60_000;

/// What a link works with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub uplink: UplinkName,
    pub gateway: GatewayName,
    /// The compound (小区), as platforms know it.
    pub compound: String,
    pub config: UplinkConfig,
    /// What is known of households under care.
    pub private: Arc<Private>,
    pub store: Store,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    /// Open alarms.
    pub roll: Arc<Roll>,
    /// Carries out commands.
    pub perform: Arc<dyn Perform>,
    /// When the process started.
    pub started: Stamp,
    /// How long a shutdown may wait for PUBACKs.
    pub drain: Duration,
}

/// Why a link or one of its connections failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A person must mend the configuration or a file that it names; tried again all the same, since the file may
    /// come.
    #[error(transparent)]
    Config(#[from] PeerError),
    #[error("the broker refused the connection ({code}){hint}")]
    Refused { code: String, hint: &'static str, busy: bool },
    #[error("the connection failed: {0}")]
    Lost(String),
    #[error("the broker closed the connection: {text}")]
    Expelled { code: u8, text: String },
    #[error("{0}")]
    Silent(String),
    #[error("another client took over this client id; give each box its own name and `client_id`")]
    TakenOver,
    #[error("the journal is a copy of one that a platform knows further on; a new epoch has begun")]
    Forked,
    #[error("the platform has seen a later connection of this journal; connecting again above it")]
    Outrun,
    #[error("the journal has been opened; connecting again with all of it")]
    Reopened,
    #[error("the filter cannot be used: {0}")]
    View(#[from] ViewError),
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    #[error("the journal: {0}")]
    Store(#[from] StoreError),
}

/// One uplink on MQTT.
#[derive(Debug)]
pub struct Link {
    parts: Parts,
}

impl Link {
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Delivers until `cancel`, then says goodbye. Fails only for what a restart of the unit may mend: the filter's
    /// key, the journal.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), LinkError> {
        let mut shell = self.shell().inspect_err(|error| self.show_down(&error.to_string()))?;
        let mut history = History::new(self.parts.clock.mono_ms());
        let mut rng = fastrand::Rng::new();
        while !cancel.is_cancelled() {
            if shell.is_outdated() {
                shell = self.shell().inspect_err(|error| self.show_down(&error.to_string()))?;
            }
            let ended = connection::run_once(&mut shell, &cancel).await;
            if let Err(LinkError::Expelled { code, .. }) = &ended {
                shell.engine.expelled(*code, &self.parts.clock.now());
            }
            let now_ms = self.parts.clock.mono_ms();
            let came = shell.lost_connection(now_ms);
            let error = match ended {
                Ok(()) => break,
                Err(LinkError::Journal(JournalError::Closed)) => return Err(JournalError::Closed.into()),
                Err(error) => error,
            };
            history.note(&error, came, now_ms);
            self.report(&error, came, &mut shell.echo);
            if history.duplicate {
                shell.tell_duplicate(now_ms);
            }
            if history.down_ms(now_ms) >= OFFLINE_AFTER_MS {
                shell.tell_offline(&error.to_string());
            }
            let outage = Outage { critical: shell.engine.critical_waits(), ..history.outage(now_ms) };
            let delay_ms = match error {
                LinkError::Forked | LinkError::Outrun | LinkError::Reopened => 0,
                _ => reconnect::delay_ms(outage, &self.parts.config.pacing, &mut rng),
            };
            let hasten = outage.busy == 0 && !outage.duplicate;
            shell.idle(Duration::from_millis(delay_ms), hasten, &cancel).await;
        }
        shell.finish().await;
        Ok(())
    }

    fn shell(&self) -> Result<Shell, LinkError> {
        let parts = &self.parts;
        let view = View::load(&parts.uplink, &parts.config.filter)?;
        let view = view.keeping_private(Arc::clone(&parts.private));
        let wording = ContractWording {
            topics: Topics::new(&parts.config.root, &parts.gateway),
            compound: parts.compound.clone(),
            view,
            delivery: parts.config.delivery,
            started: parts.started.clone(),
            commands: Authority::of(&parts.config.commands, &parts.config.filter).names(),
            roll: Arc::clone(&parts.roll),
            clock: Arc::clone(&parts.clock),
            asking: Arc::new(Mutex::new(Asking::new(parts.config.time))),
        };
        let openings = parts.store.openings();
        let source = StoreSource::of(&parts.store);
        // Of a journal that cannot be read no class can be told, and where the uplink stands is not known.
        let read = |class: &Class| source.reader.is_some() && wording.view.carries(*class);
        let settings = Settings {
            uplink: parts.uplink.clone(),
            classes: Class::ALL.into_iter().filter(read).collect(),
            delivery: parts.config.delivery,
            pacing: parts.config.pacing,
        };
        let cursors = source.reader.as_ref().map(|reader| reader.cursors(&parts.uplink)).transpose()?;
        let cursors = cursors.flatten().unwrap_or_default();
        let (words, heads) = (Box::new(wording.clone()), source.heads_now());
        let engine = Engine::new(settings, words, &cursors, heads, fastrand::Rng::new());
        Ok(Shell::new(parts.clone(), engine, (source, openings), wording))
    }

    fn report(&self, error: &LinkError, came: Came, echo: &mut Echo) {
        let uplink = self.parts.uplink.as_str();
        let outcome = match error {
            LinkError::Refused { .. } => "refused",
            _ if came != Came::Never => "lost",
            _ => "failed",
        };
        self.parts.metrics.connection(uplink, outcome);
        if came == Came::Served {
            echo.over();
        }
        if let Some(more) = echo.tell(&error.to_string(), self.parts.clock.mono_ms()) {
            // `more`: how often the same was kept back since it was told last.
            warn!(uplink, outcome, error = %error, more, "not connected to the platform");
        }
        self.show_down(&error.to_string());
        if matches!(error, LinkError::Forked) {
            info!(uplink, "connecting again under the new epoch");
        }
    }

    fn show_down(&self, trouble: &str) {
        let since_mono_ms = self.parts.clock.mono_ms();
        self.parts.board.update(|board| {
            let fresh = || UplinkStatus { since_mono_ms, ..UplinkStatus::default() };
            let status = board.uplinks.entry(self.parts.uplink.clone()).or_insert_with(fresh);
            if status.connected {
                status.since_mono_ms = since_mono_ms;
            }
            status.connected = false;
            status.trouble = Some(trouble.to_owned());
        });
    }
}

/// What the last attempts were like.
#[derive(Debug)]
struct History {
    down_since_ms: u64,
    failures: u32,
    busy: u32,
    takeovers_ms: Vec<u64>,
    duplicate: bool,
}

impl History {
    fn new(now_ms: u64) -> Self {
        Self { down_since_ms: now_ms, failures: 0, busy: 0, takeovers_ms: Vec::new(), duplicate: false }
    }

    fn note(&mut self, error: &LinkError, came: Came, now_ms: u64) {
        if came == Came::Served {
            self.down_since_ms = now_ms;
            self.failures = 0;
        } else {
            // A broker that lets us in and closes at the first record must not be run against twice a second.
            self.failures = self.failures.saturating_add(1);
        }
        let busy = matches!(error, LinkError::Refused { busy: true, .. });
        self.busy = if busy { self.busy.saturating_add(1) } else { 0 };
        if matches!(error, LinkError::TakenOver) {
            self.takeovers_ms.push(now_ms);
        }
        self.takeovers_ms.retain(|at_ms| now_ms.saturating_sub(*at_ms) < TAKEOVER_WINDOW_MS);
        let old = self.takeovers_ms.len().saturating_sub(TAKEOVERS_MAX);
        self.takeovers_ms.drain(..old);
        self.duplicate = matches!(error, LinkError::TakenOver) && self.takeovers_ms.len() >= TAKEOVERS_MAX;
    }

    fn down_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.down_since_ms)
    }

    fn outage(&self, now_ms: u64) -> Outage {
        Outage {
            down_ms: self.down_ms(now_ms),
            failures: self.failures,
            busy: self.busy,
            critical: false,
            duplicate: self.duplicate,
        }
    }
}
