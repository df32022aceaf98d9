//! Starts what tells people, and what watches the box itself.

use std::sync::Arc;

use crate::config::{Loaded, NotifierTable};
use crate::model::roll::Roll;
use crate::north::notify::{self, Notifier};
use crate::rt::board::Board;
use crate::rt::clock::SharedClock;
use crate::rt::machine::{Machine, Roots};
use crate::rt::supervise::{Stage, Supervisor, UnitError};
use crate::rt::thread::on_own_thread;
use crate::store::Store;

/// One unit for each notifier, on a thread of its own: it blocks while a server thinks.
pub(super) fn spawn_notifiers(
    supervisor: &mut Supervisor,
    loaded: &Loaded,
    (clock, board, roll): (&SharedClock, &Arc<Board>, &Arc<Roll>),
    store: &Store,
) {
    let settings = &loaded.settings;
    for (name, NotifierTable::Webhook(config)) in &settings.notifiers {
        let parts = notify::Parts {
            name: name.clone(),
            gateway: settings.gateway.name.clone(),
            compound: settings.gateway.compound.clone(),
            config: config.clone(),
            utc_offset_min: settings.gateway.utc_offset_min,
            store: store.clone(),
            clock: Arc::clone(clock),
            board: Arc::clone(board),
            roll: Arc::clone(roll),
            silence: notify::Silence::default(),
            patience: notify::Patience::default(),
        };
        supervisor.spawn(Stage::North, &format!("notifier {name}"), move |unit| {
            let parts = parts.clone();
            async move {
                unit.running();
                let stop = unit.cancel.clone();
                let told =
                    on_own_thread("notifier", move || async move { Notifier::new(parts).run(stop).await });
                tokio::select! {
                    // A server that hangs must not hold up the end: what it has not taken is told after the next start.
                    () = unit.cancel.cancelled() => Ok(()),
                    ended = told => ended.map_err(UnitError::from)?.map_err(UnitError::from),
                }
            }
        });
    }
}

/// Watches heat, power, flash and memory of the box.
pub(super) fn spawn_machine(
    supervisor: &mut Supervisor,
    loaded: &Loaded,
    clock: &SharedClock,
    store: &Store,
) {
    let machine = Arc::new(Machine {
        config: loaded.settings.gateway.machine.clone(),
        roots: Roots::default(),
        clock: Arc::clone(clock),
        journal: Arc::new(store.clone()),
    });
    supervisor.spawn(Stage::House, "machine", move |unit| {
        let machine = Arc::clone(&machine);
        async move {
            unit.running();
            machine.run(unit.cancel).await;
            Ok(())
        }
    });
}
