//! The buses of a configuration: each is made, connected with the executor of actions, and spawned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::sync::oneshot;

use super::acting;
use super::run::Shared;
use crate::config::{BusConfig, Loaded};
use crate::model::ids::{BusName, ProfileName};
use crate::rt::supervise::{Stage, Supervisor, UnitError};
use crate::south::acting::{Acting, Overheard};
use crate::south::broker::config::{BrokerConfig, ClientConfig};
use crate::south::broker::{self, Broker};
use crate::south::line::Deps;
use crate::south::modbus::{self, config::ModbusConfig};
use crate::south::mqtt::config::MqttConfig;
use crate::south::mqtt::{self, External};
use crate::south::profile::Profile;
use crate::south::watch::Watcher;
use crate::store::Store;

/// Spawns every bus; returns those whose ports are to be bound before READY.
pub(super) fn spawn_all(
    supervisor: &mut Supervisor,
    loaded: &Loaded,
    shared: &Shared,
    (store, acting): (&Store, &Acting),
) -> anyhow::Result<Vec<(BusName, oneshot::Receiver<()>)>> {
    let mut listening = Vec::new();
    for (name, bus) in &loaded.settings.buses {
        match bus {
            BusConfig::Broker(broker) => {
                let broker = broker_of(name, broker, loaded, shared, store)?;
                acting::by_broker(acting, &broker);
                spawn_watcher(supervisor, name, broker.watcher());
                listening.push((name.clone(), spawn_broker(supervisor, name, broker)));
            }
            BusConfig::Mqtt(mqtt) => {
                let external = external_of(name, mqtt, loaded, shared, store)?;
                acting::by_external(acting, &external);
                spawn_watcher(supervisor, name, external.watcher());
                spawn_external(supervisor, name, external);
            }
            BusConfig::Modbus(config) => {
                let bus = modbus_of(name, config, loaded, shared, store)?;
                acting::by_modbus(acting, &bus);
                spawn_modbus(supervisor, name, bus);
            }
        }
    }
    Ok(listening)
}

/// The broker of a bus with the clients that log in to it: those that name it, or all that name none.
fn broker_of(
    bus: &BusName,
    config: &BrokerConfig,
    loaded: &Loaded,
    shared: &Shared,
    store: &Store,
) -> anyhow::Result<Broker> {
    let settings = &loaded.settings;
    let ours = |client: &ClientConfig| client.bus.as_ref().is_none_or(|named| named == bus);
    let clients = settings.clients.iter().filter(|(_, client)| ours(client));
    let setup = broker::Setup {
        bus: bus.clone(),
        config: config.clone(),
        clients: clients.map(|(name, client)| (name.clone(), client.clone())).collect(),
        devices: settings.devices.clone(),
        profiles: profiles_of(loaded),
        secrets_dir: settings.gateway.secrets_dir.clone(),
    };
    Broker::new(setup, deps_of(shared, store))
        .with_context(|| format!("the broker [buses.{bus}] could not be set up"))
}

pub(super) fn profiles_of(loaded: &Loaded) -> BTreeMap<ProfileName, Arc<Profile>> {
    loaded.profiles.iter().map(|(name, profile)| (name.clone(), Arc::new(profile.clone()))).collect()
}

fn deps_of(shared: &Shared, store: &Store) -> Deps {
    let journal = Overheard::new(Arc::new(store.clone()), Arc::clone(&shared.ears));
    Deps {
        journal: Arc::new(journal),
        clock: Arc::clone(&shared.clock),
        metrics: Arc::clone(&shared.metrics),
        board: Arc::clone(&shared.board),
    }
}

/// The listener at a broker that others run.
fn external_of(
    bus: &BusName,
    config: &MqttConfig,
    loaded: &Loaded,
    shared: &Shared,
    store: &Store,
) -> anyhow::Result<External> {
    let gateway = &loaded.settings.gateway;
    let setup = mqtt::Setup {
        gateway: gateway.name.clone(),
        bus: bus.clone(),
        config: config.clone(),
        devices: loaded.settings.devices.clone(),
        profiles: profiles_of(loaded),
        session_file: gateway.data_dir.join("sessions").join(bus.as_str()),
    };
    External::new(setup, deps_of(shared, store)).with_context(|| format!("[buses.{bus}] could not be set up"))
}

/// Nobody waits for it: a broker that others run may be away while ours must serve.
fn spawn_external(supervisor: &mut Supervisor, name: &BusName, external: External) {
    let external = Arc::new(external);
    supervisor.spawn(Stage::South, &format!("bus {name}"), move |unit| {
        let external = Arc::clone(&external);
        async move {
            let ready = || unit.running();
            external.run(unit.cancel.clone(), ready).await.map_err(UnitError::from)
        }
    });
}

/// Beside its bus, since silence also counts while that one fails.
fn spawn_watcher(supervisor: &mut Supervisor, name: &BusName, watcher: Watcher) {
    let watcher = Arc::new(watcher);
    supervisor.spawn(Stage::South, &format!("watch of bus {name}"), move |unit| {
        let watcher = Arc::clone(&watcher);
        async move {
            unit.running();
            watcher.run(unit.cancel).await;
            Ok(())
        }
    });
}

fn modbus_of(
    name: &BusName,
    config: &ModbusConfig,
    loaded: &Loaded,
    shared: &Shared,
    store: &Store,
) -> anyhow::Result<modbus::Bus> {
    let setup = modbus::Setup {
        bus: name.clone(),
        config: config.clone(),
        devices: loaded.settings.devices.clone(),
        profiles: profiles_of(loaded),
    };
    modbus::Bus::new(setup, deps_of(shared, store))
        .with_context(|| format!("the bus [buses.{name}] could not be set up"))
}

/// A field bus whose line is down keeps nobody waiting: it is no listener, and READY does not depend on it.
fn spawn_modbus(supervisor: &mut Supervisor, name: &BusName, bus: modbus::Bus) {
    let bus = Arc::new(bus);
    supervisor.spawn(Stage::South, &format!("bus {name}"), move |unit| {
        let bus = Arc::clone(&bus);
        async move { bus.run(unit.cancel.clone(), || unit.running()).await.map_err(UnitError::from) }
    });
}

/// The receiver fires when the broker's ports are bound for the first time.
fn spawn_broker(supervisor: &mut Supervisor, name: &BusName, broker: Broker) -> oneshot::Receiver<()> {
    let (bound_tx, bound_rx) = oneshot::channel();
    let first = Arc::new(Mutex::new(Some(bound_tx)));
    let broker = Arc::new(broker);
    supervisor.spawn(Stage::South, &format!("bus {name}"), move |unit| {
        let (broker, first) = (Arc::clone(&broker), Arc::clone(&first));
        async move {
            let ready = |bound: broker::Bound| {
                for (address, tls) in [(bound.plain, false), (bound.tls, true)] {
                    if let Some(address) = address {
                        tracing::info!(%address, tls, "the broker listens");
                    }
                }
                let waiting = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                if waiting.is_some_and(|waiting| waiting.send(()).is_err()) {
                    tracing::debug!("nobody waits for the broker any more");
                }
                unit.running();
            };
            broker.run(unit.cancel.clone(), ready).await.map_err(UnitError::from)
        }
    });
    bound_rx
}
