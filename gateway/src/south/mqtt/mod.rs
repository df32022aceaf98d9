//! An external LAN broker: devices speak to a mosquitto or the like that is there already, and we listen to it. The
//! broker is told that a message has arrived when the journal has synced (promise G1); what it may have lost itself is
//! out of our hands, and told where it shows.
//!
//! MQTT 5 with a session that the broker keeps: what is published at QoS 1 while we are away comes when we are back.
//! Each connection has a fresh client of the MQTT library, since all that matters of a session stands at the broker.
//!
//! What must be survived: a broker that is away (the supervisor tries again), has forgotten the session (an event),
//! refuses topics (told on the board), floods (at most [`WINDOW`] messages are under way), or repeats what it did not
//! see acknowledged (events come at least once); a journal that fails (no acknowledgement, and a new connection, so that
//! the broker repeats). Must not know SQL, rules or platforms.

pub mod config;
mod connection;
mod posting;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::AsyncClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::config::MqttConfig;
use self::posting::Posting;
use self::session::Known;
use super::acting::Outgoing;
use super::device::{DeviceConfig, Roster, RosterError, Speaker};
use super::line::{Deps, Line};
use super::profile::Profile;
use super::watch::{LineNews, Watcher};
use crate::model::ids::{BusName, DeviceId, GatewayName, ProfileName};
use crate::model::limits::DEVICE_PAYLOAD_BYTES_MAX;
use crate::model::refusal::Refusal;
use crate::rt::board::BusStatus;
use crate::rt::mqtt::PeerError;

/// Messages that the broker may send without our acknowledgement (MQTT's receive maximum): enough that one commit
/// gathers many, few enough that an outage's backlog waits at the broker and not here.
pub const WINDOW: u16 = 32;

/// Largest packet that the broker may send. What is larger it drops by itself (MQTT 5, 3.1.2.11.4); between a payload's
/// limit and this it is refused here by name.
pub const PACKET_BYTES_MAX: u32 = 2 * 256 * 1024;
const _: () = assert!(PACKET_BYTES_MAX as usize == 2 * DEVICE_PAYLOAD_BYTES_MAX);

/// Why a connection failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// A person must mend the configuration or a file that it names.
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the broker refuses the login ({code}){hint}")]
    Refused { code: String, hint: &'static str },
    #[error("the connection to the broker failed: {0}")]
    Lost(String),
    #[error("another client has taken over the client id {0:?}; give each its own `client_id`")]
    TakenOver(String),
    #[error("a message was not acknowledged ({}): the broker will send it again", .0.as_str())]
    Withheld(Refusal),
}

/// What an external broker is: from the configuration.
#[derive(Debug, Clone)]
pub struct Setup {
    pub gateway: GatewayName,
    pub bus: BusName,
    pub config: MqttConfig,
    /// All devices; those of other buses are left out.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
    /// Where it is noted that the broker keeps a session for us.
    pub session_file: PathBuf,
}

/// A listener at an external broker, not running yet. What it remembers of its devices outlives its runs.
#[derive(Debug)]
pub struct External {
    config: MqttConfig,
    client_id: String,
    /// As who devices publish here.
    speaker: Speaker,
    line: Line,
    known: Known,
    /// The broker has forgotten the session, and that was not told yet.
    session_lost: AtomicBool,
    news_tx: watch::Sender<LineNews>,
    /// The client of the connection that stands, for orders to devices.
    client: Arc<Mutex<Option<AsyncClient>>>,
}

impl External {
    /// Resolves devices and profiles; opens nothing.
    ///
    /// # Errors
    /// What `check` would have found.
    pub fn new(setup: Setup, deps: Deps) -> Result<Self, MqttError> {
        let Setup { gateway, bus, config, devices, profiles, session_file } = setup;
        let speaker = Speaker::Bus(bus.clone());
        let bases = BTreeMap::from([(speaker.clone(), config.base.clone())]);
        let now_ms = deps.clock.mono_ms();
        let roster = Arc::new(Roster::new(&bus, &bases, &devices, &profiles, now_ms)?);
        let client_id = config.client_id(&gateway, &bus);
        let known = Known::new(session_file, &config.peer().authority(), &client_id);
        let commit_timeout = Duration::from_millis(config.commit_timeout_ms.into());
        let down = LineNews::Down { since_ms: now_ms, reason: "it was never connected".to_owned() };
        let answers = Arc::default();
        let line = Line { bus, roster, deps, owed: Arc::default(), answers, commit_timeout };
        let (news_tx, _) = watch::channel(down);
        let session_lost = AtomicBool::new(false);
        let client = Arc::default();
        Ok(Self { config, client_id, speaker, line, known, session_lost, news_tx, client })
    }

    /// The way to its devices.
    pub fn outgoing(&self) -> (Speaker, Outgoing) {
        let outgoing = Outgoing {
            base: self.config.base.clone(),
            post: Arc::new(Posting(Arc::clone(&self.client))),
            answers: Arc::clone(&self.line.answers),
        };
        (self.speaker.clone(), outgoing)
    }

    /// Orders go to this client from now on, or to nobody.
    fn speak_by(&self, client: Option<AsyncClient>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Watches its devices for silence; runs beside [`Self::run`], also while that one fails.
    pub fn watcher(&self) -> Watcher {
        Watcher::new(self.line.clone(), Some(self.news_tx.subscribe()))
    }

    /// One attempt: connects, calls `ready` when the broker has let us in, and listens until `cancel`.
    ///
    /// # Errors
    /// It could not connect, or the connection ended.
    pub async fn run(&self, cancel: CancellationToken, ready: impl FnOnce() + Send) -> Result<(), MqttError> {
        self.line.post_devices();
        let ended = connection::run_once(self, &cancel, ready).await;
        self.speak_by(None);
        match &ended {
            Ok(()) => {
                self.line.deps.board.update(|board| board.buses.remove(&self.line.bus));
            }
            Err(error) => self.down(&error.to_string()),
        }
        ended
    }

    /// The broker has let us in; `session` says whether it still had our session.
    fn up(&self, session: bool) {
        let lost = !session && self.known.begun();
        if lost {
            self.session_lost.store(true, Ordering::SeqCst);
        }
        let broker = self.config.peer().authority();
        if lost {
            tracing::error!(bus = %self.line.bus, broker, "connected, but the broker has lost our session: messages may be missing");
        } else {
            tracing::info!(bus = %self.line.bus, broker, session, "connected to the external broker");
        }
        self.post(None, true);
        self.news_tx.send_replace(LineNews::Up);
    }

    /// One trouble for all devices of the bus.
    fn down(&self, reason: &str) {
        self.post(Some(format!("none of its devices can be heard: {reason}")), false);
        self.news_tx.send_if_modified(|news| match news {
            // The moment and the reason of the first failure stand.
            LineNews::Down { .. } => false,
            LineNews::Up => {
                let since_ms = self.line.deps.clock.mono_ms();
                *news = LineNews::Down { since_ms, reason: reason.to_owned() };
                true
            }
        });
    }

    fn post(&self, trouble: Option<String>, connected: bool) {
        let clients = if connected { BTreeSet::from([self.client_id.clone()]) } else { BTreeSet::new() };
        let at = vec![self.config.url.clone()];
        let status = BusStatus { kind: "mqtt".to_owned(), at, clients, trouble, line: None };
        self.line.deps.board.update(|board| board.buses.insert(self.line.bus.clone(), status));
    }

    /// Adds a trouble to a bus that works.
    fn warn(&self, trouble: &str) {
        tracing::warn!(bus = %self.line.bus, "{trouble}");
        self.post(Some(trouble.to_owned()), true);
    }
}
