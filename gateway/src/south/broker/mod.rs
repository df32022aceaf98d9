//! The embedded LAN broker: devices speak MQTT to it, and get their PUBACK when the journal has synced (promise G1).
//!
//! rmqtt has no shutdown and spawns as it likes, so each run gives it a runtime of its own, which is dropped at the
//! end. Its listener is on a loopback port that nobody knows; the ports that devices see are the door's.
//! Owns accounts, topics, the door and the hooks; must not know SQL, rules or platforms.

mod accounts;
pub mod config;
mod door;
mod frames;
mod hooks;
mod posting;
pub mod retained;
pub mod secrets;
#[cfg(test)]
pub(in crate::south) mod tests;
mod tls;
mod visits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::accounts::Accounts;
use self::config::{BrokerConfig, ClientConfig};
use self::door::Door;
use self::hooks::{Inside, NoSessions};
use self::posting::Posting;
use self::retained::Retained;
use self::visits::Visits;
use super::acting::{Answers, Outgoing};
use super::device::{DeviceConfig, Roster, RosterError, Speaker};
use super::line::Line;
use super::owed::Owed;
use super::profile::Profile;
use super::watch::Watcher;
use crate::model::ids::{BusName, ClientName, DeviceId, ProfileName};
use crate::model::limits::DEVICE_PACKET_BYTES_MAX;
use crate::rt::board::BusStatus;

pub use self::frames::fuzz_frames;
pub use self::tls::TlsError;
pub use super::line::Deps;
pub use super::line::QOS0_WARNING;

/// Messages for one slow subscriber; more are dropped and counted. They are commands, stale after seconds.
const DELIVERIES_MAX: usize = 64;

/// Publishes of one client without an answer: it handles them one after the other anyway.
const INFLIGHT_MAX: NonZeroU16 = NonZeroU16::new(64).unwrap();

/// Most threads of the broker's runtime: the box has two to four cores, and the journal's writer and an uplink need one.
/// On two cores a second one only wakes up to find the work taken (docs/benchmarks.md).
const WORKERS_MAX: usize = 2;

fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.saturating_sub(1).clamp(1, WORKERS_MAX)
}

/// Largest packet that rmqtt reads; the door has cut larger ones before.
#[expect(clippy::cast_possible_truncation, reason = "a constant of 1 MiB")]
const INNER_PACKET_BYTES_MAX: u32 = DEVICE_PACKET_BYTES_MAX as u32 + 64;

/// Longest client id: longer ones belong to nobody.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// What a broker is: from the configuration.
#[derive(Debug, Clone)]
pub struct Setup {
    pub bus: BusName,
    pub config: BrokerConfig,
    /// The accounts of this broker.
    pub clients: BTreeMap<ClientName, ClientConfig>,
    /// All devices; those of other brokers' clients are left out.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
    pub secrets_dir: PathBuf,
}

/// Addresses that a running broker listens on; they differ from the configured ones where a port was 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub plain: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

/// Why a broker could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error("cannot listen on {address} (is another broker running there?)")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("cannot start the broker's threads: {0}")]
    Runtime(std::io::Error),
    #[error("the broker ended by itself: {0}")]
    Ended(String),
}

/// A broker, not running yet. What it remembers of its devices outlives its runs.
#[derive(Debug)]
pub struct Broker {
    setup: Setup,
    deps: Deps,
    roster: Arc<Roster>,
    /// What is not acknowledged yet, though known: it outlives a run like the devices' states.
    owed: Arc<Owed>,
    answers: Arc<Answers>,
    /// The run that there is, for orders to devices.
    current: Arc<Mutex<Weak<Inside>>>,
}

impl Broker {
    /// Resolves devices and profiles; opens nothing.
    ///
    /// # Errors
    /// What `check` would have found.
    pub fn new(setup: Setup, deps: Deps) -> Result<Self, BrokerError> {
        let speaker = |name: &ClientName| Speaker::Client(name.clone());
        let clients = setup.clients.iter();
        let bases = clients.map(|(name, client)| (speaker(name), client.base(name).to_owned())).collect();
        let roster = Roster::new(&setup.bus, &bases, &setup.devices, &setup.profiles, deps.clock.mono_ms())?;
        Ok(Self {
            setup,
            deps,
            roster: Arc::new(roster),
            owed: Arc::default(),
            answers: Arc::default(),
            current: Arc::default(),
        })
    }

    /// One attempt: listens, calls `ready` with the bound addresses, and serves until `cancel`.
    ///
    /// # Errors
    /// It could not start, or rmqtt ended. The ports are free again when this returns.
    pub async fn run(
        &self,
        cancel: CancellationToken,
        ready: impl FnOnce(Bound) + Send,
    ) -> Result<(), BrokerError> {
        self.line().post_devices();
        let plain = match self.setup.config.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let tls = match &self.setup.config.tls {
            Some(tls) => Some((listen(tls.listen).await?, tls::acceptor(tls, &self.deps.clock)?)),
            None => None,
        };
        let bound = Bound {
            plain: plain.as_ref().and_then(|listener| listener.local_addr().ok()),
            tls: tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
        };
        let inside = Arc::new(self.inside()?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&inside);
        let (runtime, inner, mut server) = self.start_inner(&inside).await?;
        let mut doors = self.open_doors(&runtime, &inside, inner, plain, tls);
        self.post(&bound);
        ready(bound);
        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = &mut server => Err(BrokerError::Ended(match ended {
                Ok(error) => error,
                Err(panic) => panic.to_string(),
            })),
            // Doors accept for ever: one that ends has panicked.
            Some(_ended) = doors.join_next() => Err(BrokerError::Ended("its door closed".to_owned())),
        };
        doors.shutdown().await;
        self.deps.board.update(|board| board.buses.remove(&self.setup.bus));
        ended
    }

    /// Watches its devices for silence; runs beside [`Self::run`], also while that one fails.
    pub fn watcher(&self) -> Watcher {
        Watcher::new(self.line(), None)
    }

    /// The ways to the devices of its clients.
    pub fn outgoing(&self) -> Vec<(Speaker, Outgoing)> {
        let clients = self.setup.clients.iter();
        clients
            .map(|(name, client)| {
                let post = Posting {
                    current: Arc::clone(&self.current),
                    client_id: client.client_id(name).to_owned(),
                };
                let outgoing = Outgoing {
                    base: client.base(name).to_owned(),
                    post: Arc::new(post),
                    answers: Arc::clone(&self.answers),
                };
                (Speaker::Client(name.clone()), outgoing)
            })
            .collect()
    }

    fn line(&self) -> Line {
        Line {
            bus: self.setup.bus.clone(),
            roster: Arc::clone(&self.roster),
            deps: self.deps.clone(),
            owed: Arc::clone(&self.owed),
            answers: Arc::clone(&self.answers),
            commit_timeout: Duration::from_millis(self.setup.config.commit_timeout_ms.into()),
        }
    }

    fn inside(&self) -> Result<Inside, BrokerError> {
        let accounts = Accounts::new(self.setup.clients.iter(), &self.setup.secrets_dir);
        Ok(Inside {
            accounts: accounts.map_err(BrokerError::Random)?,
            line: self.line(),
            visits: Arc::new(Visits::default()),
            present: Mutex::new(HashMap::new()),
            context: OnceLock::new(),
        })
    }

    /// Starts rmqtt in its own runtime, and waits until it listens.
    async fn start_inner(
        &self,
        inside: &Arc<Inside>,
    ) -> Result<(OwnRuntime, SocketAddr, JoinHandle<String>), BrokerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers())
            .thread_name(format!("broker-{}", self.setup.bus))
            .enable_all()
            .build()
            .map_err(BrokerError::Runtime)?;
        let runtime = OwnRuntime(Some(runtime));
        let (bound_tx, bound_rx) = tokio::sync::oneshot::channel();
        let config = self.setup.config.clone();
        let inside = Arc::clone(inside);
        let server = runtime.spawn(async move {
            match inner_server(&config, &inside).await {
                Ok((server, address)) => {
                    // Handlers hold it weakly; the run holds it strongly.
                    drop(inside);
                    if bound_tx.send(address).is_err() {
                        return "nobody waits for it".to_owned();
                    }
                    match server.run().await {
                        Ok(()) => "its listener closed".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            }
        });
        match bound_rx.await {
            Ok(address) => Ok((runtime, address, server)),
            Err(_closed) => Err(BrokerError::Ended(server.await.unwrap_or_else(|panic| panic.to_string()))),
        }
    }

    /// Doors work on the broker's own threads: what passes through them mostly stays on one then, and is not handed to
    /// another and back.
    fn open_doors(
        &self,
        runtime: &OwnRuntime,
        inside: &Arc<Inside>,
        inner: SocketAddr,
        plain: Option<TcpListener>,
        tls: Option<(TcpListener, TlsAcceptor)>,
    ) -> JoinSet<()> {
        let door = Arc::new(Door::new(
            self.setup.bus.clone(),
            inner,
            Arc::clone(&inside.visits),
            Arc::clone(&self.deps.metrics),
            self.setup.config.connections_max as usize,
            self.setup.config.logins_per_s.max(1) as usize,
        ));
        let mut doors = JoinSet::new();
        if let Some(listener) = plain {
            runtime.spawn_into(&mut doors, Arc::clone(&door).open(listener, None));
        }
        if let Some((listener, acceptor)) = tls {
            runtime.spawn_into(&mut doors, door.open(listener, Some(acceptor)));
        }
        doors
    }

    /// Shows the bus.
    fn post(&self, bound: &Bound) {
        let at = [bound.plain.map(|a| format!("mqtt://{a}")), bound.tls.map(|a| format!("mqtts://{a}"))];
        let status = BusStatus {
            kind: "broker".to_owned(),
            at: at.into_iter().flatten().collect(),
            clients: BTreeSet::new(),
            trouble: None,
            line: None,
        };
        self.deps.board.update(|board| board.buses.insert(self.setup.bus.clone(), status));
    }
}

/// Tokio sets `SO_REUSEADDR`, without which a restart after kill -9 fails for a minute.
async fn listen(address: SocketAddr) -> Result<TcpListener, BrokerError> {
    TcpListener::bind(address).await.map_err(|source| BrokerError::Bind { address, source })
}

/// rmqtt with everything off that could let somebody past the hooks.
async fn inner_server(
    config: &BrokerConfig,
    inside: &Arc<Inside>,
) -> rmqtt::Result<(MqttServer, SocketAddr)> {
    // Its own idea of a busy system refuses logins by the machine's load: not ours to follow.
    let context = ServerContext::new().busy_check_enable(false).build().await;
    *context.extends.retain_mut().await = Box::new(Retained::new(Arc::clone(&inside.line.deps.metrics)));
    *context.extends.fitter_mgr_mut().await = Box::new(NoSessions);
    let register = context.extends.hook_mgr().register();
    hooks::register(register.as_ref(), inside).await;
    inside.context.get_or_init(|| context.clone());
    let places = config.connections_max as usize;
    let listener = Builder::new()
        .name("inner")
        .laddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .nodelay(true)
        .allow_anonymous(false)
        .max_connections(places)
        .max_handshaking_limit(places)
        .max_packet_size(INNER_PACKET_BYTES_MAX)
        .max_clientid_len(CLIENT_ID_BYTES_MAX)
        .max_inflight(INFLIGHT_MAX)
        .max_mqueue_len(DELIVERIES_MAX)
        .session_expiry_interval(Duration::ZERO)
        .message_expiry_interval(Duration::ZERO)
        .max_topic_aliases(0)
        .bind()?
        .tcp()?;
    let address = listener.local_addr()?;
    Ok((MqttServer::new(context).listener_by_id(listener, 1).build(), address))
}

/// A runtime that may be dropped inside another: whatever rmqtt spawned ends with it.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    /// # Panics
    /// Never: the runtime is only taken at the end.
    fn spawn(&self, work: impl Future<Output = String> + Send + 'static) -> JoinHandle<String> {
        match &self.0 {
            Some(runtime) => runtime.spawn(work),
            None => unreachable!("the runtime is taken only by drop"),
        }
    }

    /// The same for a task of `tasks`.
    fn spawn_into(&self, tasks: &mut JoinSet<()>, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            tasks.spawn_on(work, runtime.handle());
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
