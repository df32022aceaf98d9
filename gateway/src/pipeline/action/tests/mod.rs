//! Who is chosen, what is remembered, and how it ends.

mod checking;
mod choosing;
mod ending;

use super::check::{Cause, Proof, warn_cloud_only};
use super::spec::{Message, Quiet, Relay, Speech, Target, Unlock};
use super::*;
use crate::model::action::outcome;
use crate::model::alarm::AlarmState;
use crate::model::ids::{BootId, Epoch, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{Body, Record};
use crate::model::stamp::ClockTrust;
use crate::pipeline::directory::{Abilities, Speaker, Topics};

const BOOT: &str = "boot";

fn at(mono_ms: u64) -> Stamp {
    // 2026-06-01T08:00 at the site.
    let wall_ms = 1_780_272_000_000 + i64::try_from(mono_ms).unwrap();
    Stamp { boot: BootId(BOOT.into()), mono_ms, wall_ms, trust: ClockTrust::Ntp }
}

fn now(t_ms: u64) -> Now {
    Now { t_ms, at: at(t_ms) }
}

fn place(building: &str, unit: &str) -> Place {
    Place {
        building: Some(building.into()),
        unit: Some(unit.into()),
        household: Some("1203".into()),
        ..Place::default()
    }
}

fn entry(kind: &str, place: Place, abilities: Abilities) -> Entry {
    Entry {
        kind: kind.to_owned(),
        profile: ProfileName::new(kind).unwrap(),
        bus: None,
        bridge: None,
        place,
        tags: [format!("{kind}s")].into(),
        points: BTreeMap::new(),
        events: [format!("{kind}.happened")].into(),
        maintenance: false,
        heartbeat_s: None,
        abilities,
    }
}

fn speaker(lan: bool) -> Abilities {
    Abilities {
        speaker: Some(Speaker { lan, confirms_played: true, text_chars_max: 100 }),
        ..Abilities::default()
    }
}

fn door() -> Abilities {
    let outputs = [PointName::new("do1").unwrap()].into();
    Abilities { door: true, holds: true, outputs, ..Abilities::default() }
}

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn directory() -> Directory {
    let mut devices = BTreeMap::from([
        (id("horn-3-1"), entry("horn", place("3", "1"), speaker(true))),
        (id("horn-3-2"), entry("horn", place("3", "2"), speaker(true))),
        (id("horn-5-1"), entry("horn", place("5", "1"), speaker(false))),
        (id("door-3-1"), entry("door", place("3", "1"), door())),
        (id("door-3-2"), entry("door", place("3", "2"), door())),
        (id("door-gate"), entry("door", Place::default(), door())),
        (id("lock-5-1"), entry("lock", place("5", "1"), Abilities { holds: false, ..door() })),
        (id("siren"), entry("io", Place::default(), Abilities { door: false, holds: false, ..door() })),
        (id("horn-mended"), entry("horn", place("3", "1"), speaker(true))),
    ]);
    devices.get_mut(&id("horn-mended")).unwrap().maintenance = true;
    Directory { devices }
}

fn alarm(category: Category, severity: Severity, place: Place) -> Alarm {
    let raised = Event {
        device: DeviceRef { id: id("button"), kind: "button".into(), profile: None, bus: None },
        place,
        category,
        name: "button.pressed".into(),
        severity: Some(severity),
        params: BTreeMap::new(),
        text: None,
    };
    Alarm::new("e-1-rule".into(), AlarmState::Unacknowledged, raised)
}

fn asked(alarm: Alarm, spec: ActionSpec) -> Asked {
    Asked { alarm, specs: vec![spec], at: at(1_000), act_within_ms: 30_000, test: false }
}

fn actions() -> Actions {
    Actions::new(Arc::new(directory()), 480)
}

fn record(draft: Draft) -> Record {
    let class = draft.body.class();
    Record { pos: 1, epoch: Epoch(1), class, seq: 1, at: draft.at, test: draft.test, body: draft.body }
}

/// Ids of the devices that are asked, and the names of the other events.
fn asks(actions: &mut Actions, now: &Now, asked: &Asked) -> (Vec<String>, Vec<String>) {
    let mut out = Out::default();
    actions.ask(now, asked, &mut out);
    let (mut devices, mut others) = (Vec::new(), Vec::new());
    for draft in out.drafts {
        let record = record(draft);
        if let Some(action) = Action::read(&record) {
            actions.asked(now, &action, false);
            devices.push(action.device.as_str().to_owned());
            continue;
        }
        let Body::Event(event) = record.body else { panic!("no event") };
        others.push(match event.params.get("reason") {
            Some(Value::Text(reason)) => format!("{} {reason}", event.name),
            _ => event.name.clone(),
        });
    }
    (devices, others)
}

fn speak(near: Near) -> ActionSpec {
    ActionSpec {
        speak: Some(Speech { zh: Some("{{ place.building }}栋紧急求助".into()), ..Speech::default() }),
        on: Target { place: Some(near), ..Target::default() },
        ..ActionSpec::default()
    }
}

fn unlock(near: Option<Near>) -> ActionSpec {
    ActionSpec {
        unlock: Some(Unlock { hold: true, pulse_ms: None }),
        on: Target { place: near, kind: Some("door".into()), ..Target::default() },
        ..ActionSpec::default()
    }
}
