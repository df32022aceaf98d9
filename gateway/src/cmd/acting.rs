//! The executor of actions, and the ways to devices.

use std::sync::Arc;

use super::line::ActionsRx;
use crate::config::Loaded;
use crate::model::action::Held;
use crate::model::journal::Journal;
use crate::model::roll::Roll;
use crate::rt::clock::SharedClock;
use crate::rt::supervise::{Stage, Supervisor};
use crate::south::acting::{Acting, Ears, Parts, Wire};
use crate::south::broker::Broker;
use crate::south::device::Speaker;
use crate::south::modbus;
use crate::south::mqtt::External;

/// The executor, without a way to any device yet.
pub(super) fn acting_of(
    loaded: &Loaded,
    (journal, clock, ears): (Arc<dyn Journal>, SharedClock, Arc<Ears>),
    (actions_rx, held, roll): (ActionsRx, Arc<Held>, Arc<Roll>),
) -> Arc<Acting> {
    let parts = Parts {
        devices: loaded.settings.devices.clone(),
        profiles: super::buses::profiles_of(loaded),
        ears,
        held,
        roll,
        journal,
        clock,
    };
    Arc::new(Acting::new(parts, actions_rx))
}

/// It ends before the south, whose ways to devices it needs: what is switched on for a time is switched back. What else
/// is under way then is found by the next start.
pub(super) fn spawn(supervisor: &mut Supervisor, acting: &Arc<Acting>) {
    let acting = Arc::clone(acting);
    supervisor.spawn(Stage::Acting, "actions", move |unit| {
        let acting = Arc::clone(&acting);
        async move {
            unit.running();
            acting.run(&unit.cancel).await;
            Ok(())
        }
    });
}

pub(super) fn by_broker(acting: &Acting, broker: &Broker) {
    for (speaker, outgoing) in broker.outgoing() {
        acting.connect(speaker, Wire::Mqtt(outgoing));
    }
}

pub(super) fn by_external(acting: &Acting, external: &External) {
    let (speaker, outgoing) = external.outgoing();
    acting.connect(speaker, Wire::Mqtt(outgoing));
}

pub(super) fn by_modbus(acting: &Acting, bus: &modbus::Bus) {
    acting.connect(Speaker::Bus(bus.name().clone()), Wire::Modbus(Arc::new(bus.actuator())));
}
