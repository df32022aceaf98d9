//! `gatehouse run`: wiring and shutdown order. Opens the journal, starts the north, then the south; says READY when the
//! listeners are bound; stops in the order of the data: south, north, journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::desk::{Around, desk};
use super::line::{Line, care_of, line};
use super::notify::{spawn_machine, spawn_notifiers};
use super::probation::{self, Probation};
use super::rulebook::{Rulebook, see_out};
use super::{ConfigArg, acting, buses};
use crate::config::{self, Loaded, UplinkTable};
use crate::console::socket::Counter;
use crate::console::status::Reporter;
use crate::console::{http, socket};
use crate::model::clock::Clocks;
use crate::model::command::Perform;
use crate::model::ids::{BusName, UplinkName};
use crate::model::journal::{Durability, Journal as _, JournalError};
use crate::model::roll::Roll;
use crate::north::config::UplinkConfig;
use crate::north::contract::Private;
use crate::north::link::{self, Link};
use crate::pipeline::Pipeline;
use crate::rt::board::Board;
use crate::rt::clock::{self, SharedClock, SystemClock};
use crate::rt::echo::Echo;
use crate::rt::metrics::Metrics;
use crate::rt::supervise::{Stage, Supervisor, Unit, UnitError};
use crate::rt::thread::on_own_thread;
use crate::rt::timekeeping::Timekeeping;
use crate::rt::timesource::{Places, Sources};
use crate::south::acting::{Ears, STOPS_WITHIN};
use crate::store::{self, How, Store, Synchronous};

/// How long each stage may take to end; together under 5 s, so that systemd never has to kill. The executor of actions,
/// which ends first, takes its time from the south's.
const SOUTH_GRACE: Duration = Duration::from_millis(1_500);
const _: () = assert!(STOPS_WITHIN.as_millis() + 300 < SOUTH_GRACE.as_millis());
const NORTH_GRACE: Duration = Duration::from_secs(2);
/// Of it, for what is on its way already; the rest is for the farewell, the DISCONNECT and the last cursors, also when
/// the broker swallows everything.
const NORTH_DRAIN: Duration = Duration::from_millis(800);
const _: () = assert!(NORTH_DRAIN.as_millis() + 1_000 < NORTH_GRACE.as_millis());
const HOUSE_GRACE: Duration = Duration::from_millis(300);
const STORE_GRACE: Duration = Duration::from_secs(1);

/// How long the listeners may take to be bound before READY is said anyway: a bus whose port is taken must not keep the
/// others from being watched; it backs off and shows in `status`.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A probe of the line that takes longer than this does not feed the watchdog.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
/// Probes without systemd's watchdog: often enough to show a stuck journal in `status`.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: &ConfigArg) -> anyhow::Result<()> {
    let (loaded, taken_back) = load(&args.config)?;
    for warning in loaded.warnings.findings() {
        tracing::warn!(hint = warning.hint.as_deref().unwrap_or_default(), "{}", warning.message);
    }
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM could not be listened for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT could not be listened for")?;
    let mut daemon = Daemon::start(&loaded)?;
    if !taken_back.is_empty() {
        daemon.tell_taken_back(&taken_back).await;
    }
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = daemon.serve() => Some(failure),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    daemon.stop().await?;
    tracing::info!("stopped");
    match failure {
        None => {
            if let Some(Err(error)) = Probation::of(&loaded).map(|probation| probation.stopped()) {
                tracing::warn!(%error, "the note about new rules could not be written");
            }
            Ok(())
        }
        Some(failure) => Err(anyhow::anyhow!("the journal's writer has died: {failure}")),
    }
}

/// The configuration, and the rule files that had to be taken back because nothing lived with them.
fn load(config: &Path) -> anyhow::Result<(Loaded, Vec<String>)> {
    let loaded = config::load(config)?;
    let taken_back = match Probation::of(&loaded).map(|probation| probation.started()) {
        Some(Ok(files)) if !files.is_empty() => files,
        Some(Err(error)) => {
            tracing::error!(%error, "whether new rules are on probation could not be read");
            return Ok((loaded, Vec::new()));
        }
        _ => return Ok((loaded, Vec::new())),
    };
    tracing::error!(
        files = taken_back.join(" "),
        "died again and again with new rules: those from before are back"
    );
    Ok((config::load(config)?, taken_back))
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is no socket, and that is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Daemon {
    supervisor: Supervisor,
    store: Store,
    clock: SharedClock,
    board: Arc<Board>,
    listening: Vec<(BusName, oneshot::Receiver<()>)>,
}

/// What every part shares.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    /// The open alarms.
    roll: Arc<Roll>,
    /// What actions wait for.
    pub(super) ears: Arc<Ears>,
}

impl Shared {
    fn reporter(&self, loaded: &Loaded) -> Reporter {
        Reporter {
            gateway: loaded.settings.gateway.name.clone(),
            clock: Arc::clone(&self.clock),
            board: Arc::clone(&self.board),
            metrics: Arc::clone(&self.metrics),
            roll: Arc::clone(&self.roll),
            started_mono_ms: self.clock.mono_ms(),
        }
    }
}

impl Daemon {
    /// Opens the journal and starts every unit. The journal comes first: nothing may be taken that cannot be kept.
    pub fn start(loaded: &Loaded) -> anyhow::Result<Self> {
        let places = Places::usual(loaded.settings.gateway.trust_clock);
        let clock = SystemClock::new(places.read(clock::reading()));
        let metrics = Arc::new(Metrics::new());
        let Line { pipeline, roll, actions_rx, held, next_rules } = line(loaded, &metrics);
        let (board, ears) = (Arc::new(Board::new()), Arc::default());
        let shared = Shared { clock: Arc::new(clock.clone()), metrics, board, roll, ears };
        let store = open_store(loaded, &shared, pipeline)?;
        // A journal that cannot be read keeps nobody from guarding: the box knows less of the time then.
        let clocks = store.reader().and_then(|reader| reader.clocks()).unwrap_or_else(|error| {
            tracing::warn!(%error, "what the journal knows of the clock could not be read");
            Clocks::default()
        });
        clock.recall(clocks);
        let mut supervisor = Supervisor::new(Arc::clone(&shared.board), Arc::clone(&shared.metrics));
        let for_actions = (Arc::new(store.clone()) as _, Arc::clone(&shared.clock), Arc::clone(&shared.ears));
        let acting = acting::acting_of(loaded, for_actions, (actions_rx, held, Arc::clone(&shared.roll)));
        let rules = Arc::new(Rulebook::new(loaded, Arc::clone(&shared.clock), next_rules));
        spawn_probation(&mut supervisor, loaded, &rules);
        let perform: Arc<dyn Perform> = desk(
            loaded,
            Around {
                reporter: shared.reporter(loaded),
                store: store.clone(),
                act: Arc::clone(&acting) as _,
                rules,
            },
        );
        spawn_house(&mut supervisor, loaded, &shared, (&store, &perform));
        spawn_timekeeping(&mut supervisor, &clock, places, &shared, &store);
        spawn_machine(&mut supervisor, loaded, &shared.clock, &store);
        spawn_notifiers(&mut supervisor, loaded, (&shared.clock, &shared.board, &shared.roll), &store);
        for (name, UplinkTable::Mqtt(uplink)) in &loaded.settings.uplinks {
            spawn_uplink(&mut supervisor, (name, uplink), loaded, &shared, (&store, &perform));
        }
        let listening = buses::spawn_all(&mut supervisor, loaded, &shared, (&store, &acting))?;
        acting::spawn(&mut supervisor, &acting);
        Ok(Self { supervisor, store, clock: shared.clock, board: shared.board, listening })
    }

    /// Whoever sent the rules must know that they are not at work.
    async fn tell_taken_back(&self, files: &[String]) {
        let draft = probation::taken_back(&self.clock.now(), files);
        if let Err(error) = self.store.append(vec![draft], Durability::Synced).await {
            tracing::error!(%error, "that rules were taken back could not be stored");
        }
    }

    /// Returns when every listener is bound, or after a while with the missing ones named in the log.
    pub async fn ready(&mut self) {
        let until = Instant::now() + READY_WITHIN;
        for (name, bound) in self.listening.drain(..) {
            if !matches!(timeout_at(until, bound).await, Ok(Ok(()))) {
                tracing::error!(bus = %name, "the bus is not listening yet; the others go on without it");
            }
        }
    }

    /// Says READY when it is so, and returns only if the journal's writer dies: why.
    async fn serve(&mut self) -> String {
        let store = self.store.clone();
        let ready = async {
            self.ready().await;
            notify(&[sd_notify::NotifyState::Ready]);
            std::future::pending().await
        };
        tokio::select! {
            failure = store.failed() => failure,
            never = ready => never,
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn board(&self) -> &Board {
        &self.board
    }

    /// What is switched on for a time is switched back; then the south, so that nothing new comes in; the north drains;
    /// the journal closes last.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let until = Instant::now() + SOUTH_GRACE;
        self.supervisor.stop(Stage::Acting, STOPS_WITHIN).await;
        self.supervisor.stop(Stage::South, until.saturating_duration_since(Instant::now())).await;
        self.supervisor.stop(Stage::North, NORTH_GRACE).await;
        self.supervisor.stop(Stage::House, HOUSE_GRACE).await;
        let closed =
            timeout(STORE_GRACE, self.store.close()).await.context("the journal did not close in time")?;
        closed.context("the journal could not be closed")
    }
}

fn open_store(loaded: &Loaded, shared: &Shared, pipeline: Pipeline) -> anyhow::Result<Store> {
    let dir = &loaded.settings.gateway.data_dir;
    let options = store::Options {
        clock: Arc::clone(&shared.clock),
        metrics: Arc::clone(&shared.metrics),
        board: Arc::clone(&shared.board),
        synchronous: Synchronous::from_env(),
        keeping: Some(store::Keeping {
            storage: loaded.settings.gateway.storage.clone(),
            uplinks: loaded.settings.uplinks.keys().cloned().collect(),
            roll: Arc::clone(&shared.roll),
        }),
    };
    let (store, opened) = Store::open(dir, options, Box::new(pipeline))
        .with_context(|| format!("the journal in {} could not be opened", dir.display()))?;
    match &opened.how {
        How::New | How::Existing => tracing::info!(epoch = %opened.epoch, "the journal is open"),
        How::Reset { set_aside, reason } => {
            let kept = set_aside.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            tracing::error!(epoch = %opened.epoch, reason, kept, "the journal was damaged; a new one is begun");
        }
        How::Lost { reason } => {
            tracing::error!(
                reason,
                "the journal could not be opened; records are kept in memory until it can"
            );
        }
        How::Restored { old, reason } => {
            tracing::error!(epoch = %opened.epoch, %old, reason, "the journal is a copy; its epoch was forked");
        }
    }
    Ok(store)
}

/// Trusts new rules when they have worked for a while.
fn spawn_probation(supervisor: &mut Supervisor, loaded: &Loaded, rules: &Arc<Rulebook>) {
    let Some(probation) = Probation::of(loaded) else { return };
    let rules = Arc::clone(rules);
    supervisor.spawn(Stage::House, "new rules", move |unit| {
        let (probation, puts_rx) = (probation.clone(), rules.puts());
        async move {
            unit.running();
            tokio::select! {
                () = unit.cancel.cancelled() => {}
                () = see_out(&probation, puts_rx) => {}
            }
            Ok(())
        }
    });
}

/// The local socket, the pages on loopback, and the watchdog.
fn spawn_house(
    supervisor: &mut Supervisor,
    loaded: &Loaded,
    shared: &Shared,
    (store, perform): (&Store, &Arc<dyn Perform>),
) {
    let reporter = shared.reporter(loaded);
    let path = loaded.settings.gateway.socket();
    let counter = Counter { reporter: reporter.clone(), perform: Arc::clone(perform) };
    supervisor.spawn(Stage::House, "local socket", move |unit| {
        let (path, counter) = (path.clone(), counter.clone());
        async move {
            unit.running();
            socket::serve(&path, &counter, &unit.cancel).await.map_err(UnitError::from)
        }
    });
    if let Some(address) = loaded.settings.gateway.http {
        supervisor.spawn(Stage::House, "pages", move |unit| {
            let reporter = reporter.clone();
            async move {
                unit.running();
                http::serve(address, reporter, unit.cancel).await.map_err(UnitError::from)
            }
        });
    }
    let store = store.clone();
    supervisor.spawn(Stage::House, "watchdog", move |unit| watchdog(unit, store.clone()));
}

/// Keeps the clock, and records its changes.
fn spawn_timekeeping(
    supervisor: &mut Supervisor,
    clock: &SystemClock,
    places: Places,
    shared: &Shared,
    store: &Store,
) {
    let (clock, shared, store) = (clock.clone(), shared.clone(), store.clone());
    supervisor.spawn(Stage::House, "clock", move |unit| {
        let mut keeping = Timekeeping {
            clock: clock.clone(),
            sources: Sources::new(places.clone()),
            journal: Arc::new(store.clone()),
            board: Arc::clone(&shared.board),
            metrics: Arc::clone(&shared.metrics),
        };
        async move {
            unit.running();
            keeping.run(&unit.cancel).await.map_err(UnitError::from)
        }
    });
}

fn spawn_uplink(
    supervisor: &mut Supervisor,
    (name, config): (&UplinkName, &UplinkConfig),
    loaded: &Loaded,
    shared: &Shared,
    (store, perform): (&Store, &Arc<dyn Perform>),
) {
    let care = care_of(loaded);
    let private = Private { devices: care.private_devices(), away: care.away_events() };
    let link = Arc::new(Link::new(link::Parts {
        uplink: name.clone(),
        gateway: loaded.settings.gateway.name.clone(),
        compound: loaded.settings.gateway.compound.clone(),
        config: config.clone(),
        private: Arc::new(private),
        store: store.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: Arc::clone(&shared.metrics),
        board: Arc::clone(&shared.board),
        roll: Arc::clone(&shared.roll),
        perform: Arc::clone(perform),
        started: shared.clock.now(),
        drain: NORTH_DRAIN,
    }));
    supervisor.spawn(Stage::North, &format!("uplink {name}"), move |unit| {
        let link = Arc::clone(&link);
        async move {
            unit.running();
            // It reads the journal; and a new record or a PUBACK wakes one thread, and not one that wakes another.
            let ended = on_own_thread("uplink", move || async move { link.run(unit.cancel).await }).await;
            ended.map_err(UnitError::from)?.map_err(UnitError::from)
        }
    });
}

/// Feeds systemd's watchdog only while the journal's writer answers within a bound: a stuck line is restarted, a dead
/// uplink is no ill health (promise G14).
async fn watchdog(unit: Unit, store: Store) -> Result<(), UnitError> {
    let every = sd_notify::watchdog_enabled().map_or(PROBE_EVERY, |limit| limit / 3);
    unit.running();
    let (start, mut echo) = (Instant::now(), Echo::default());
    let mut tell = |error: String| {
        if echo.tell(&error, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)).is_some() {
            tracing::error!(error, "the watchdog is not fed");
        }
    };
    loop {
        match timeout(PROBE_WITHIN, store.probe()).await {
            // A disk that refuses is told by the journal itself, which keeps records in memory and tries on; a new process
            // would lose those. One that hangs is another matter: then nothing goes on here.
            Ok(Ok(()) | Err(JournalError::Disk(_))) => notify(&[sd_notify::NotifyState::Watchdog]),
            Ok(Err(error)) => tell(error.to_string()),
            Err(_elapsed) => tell("the journal is stuck".to_owned()),
        }
        tokio::select! {
            () = unit.cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
    }
}
