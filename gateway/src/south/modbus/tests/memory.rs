//! What readings mean over time: change, heartbeat, staleness, edges, supervised loops.

use super::*;
use crate::model::ids::{BootId, DeviceId};
use crate::model::place::Place;
use crate::model::record::DeviceRef;
use crate::model::stamp::ClockTrust;
use crate::south::modbus::point::readings;
use crate::south::profile::shipped_profiles;

/// A device whose observations are all committed.
struct Bench {
    described: Described,
    memory: Memory,
    now_ms: u64,
}

impl Bench {
    fn new(profile: Profile) -> Self {
        let id = DeviceId::new("dev").unwrap();
        let device = DeviceRef { id, kind: profile.kind.clone(), profile: None, bus: None };
        let readings = readings(&profile, profile.modbus.as_ref().unwrap(), 0);
        let subject = Subject { device, place: Place::default(), test: false };
        let described = Described { subject, profile: Arc::new(profile), unit: 1, readings };
        Self { described, memory: Memory::default(), now_ms: 1_000 }
    }

    fn shipped(name: &str) -> Self {
        Self::new(shipped_profiles().unwrap().remove(name).unwrap())
    }

    fn at(&self) -> Stamp {
        Stamp { boot: BootId("b".into()), mono_ms: self.now_ms, wall_ms: 0, trust: ClockTrust::None }
    }

    fn see(&mut self, seen: &Observation) -> Vec<Body> {
        let mapped = map(&self.described, &self.memory, seen);
        self.memory = mapped.memory;
        mapped.drafts.into_iter().map(|draft| draft.body).collect()
    }

    fn say(&mut self, said: Said) -> Vec<Body> {
        self.see(&Observation::Said { at: self.at(), points: vec![(0, said)] })
    }

    fn on(&mut self, on: bool) -> Vec<Body> {
        self.say(Said::Value(Value::Bool(on)))
    }
}

/// Events by name, values as `point=value quality age`.
fn told(bodies: &[Body]) -> Vec<String> {
    let mut out = Vec::new();
    for body in bodies {
        match body {
            Body::Event(event) => out.push(event.name.clone()),
            Body::Telemetry(telemetry) => out.extend(telemetry.samples.iter().map(|sample| {
                let value = sample.value.as_ref().map_or("-".to_owned(), |value| match value {
                    Value::Bool(on) => on.to_string(),
                    value => float(value).to_string(),
                });
                let reason = sample.reason.map_or(String::new(), |reason| format!(" {reason:?}"));
                format!("{}={value} {:?}{reason} {}", sample.point, sample.quality, sample.age_ms)
            })),
            other => panic!("{other:?}"),
        }
    }
    out
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_press_is_an_event_when_it_begins() {
    let mut button = Bench::shipped("modbus-button");
    assert_eq!(told(&button.on(false)), ["device.online", "pressed=false Good 0"]);
    assert_eq!(told(&button.on(false)), NOTHING);
    let pressed = button.on(true);
    assert_eq!(told(&pressed), ["button.pressed", "pressed=true Good 0"]);
    let Body::Event(event) = &pressed[0] else { panic!("{pressed:?}") };
    assert_eq!((event.category, event.severity), (Category::Emergency, Some(Severity::Critical)));
    assert_eq!(event.params["point"], Value::Text("pressed".into()));
    assert_eq!(told(&button.on(true)), NOTHING, "it is held");
    assert_eq!(told(&button.on(false)), ["button.released", "pressed=false Good 0"]);
    // A button that is held at the start was pressed, rather than not.
    let mut held = Bench::shipped("modbus-button");
    assert_eq!(told(&held.on(true)), ["device.online", "button.pressed", "pressed=true Good 0"]);
}

#[test]
fn a_commit_that_failed_leaves_the_press_new() {
    let mut button = Bench::shipped("modbus-button");
    button.on(false);
    let seen = Observation::Said { at: button.at(), points: vec![(0, Said::Value(Value::Bool(true)))] };
    for _ in 0..2 {
        let mapped = map(&button.described, &button.memory, &seen);
        assert_eq!(mapped.drafts.len(), 2, "the memory was changed before the commit");
    }
}

#[test]
fn a_value_is_told_on_change_beyond_its_deadband_and_after_the_heartbeat() {
    let mut sensor = Bench::shipped("modbus-temp-humidity");
    let place = sensor.described.readings.iter().position(|r| r.name.as_str() == "temperature").unwrap();
    let mut say = |advance_ms: u64, celsius: f64| {
        sensor.now_ms += advance_ms;
        let points = vec![(place, Said::Value(Value::Float(celsius)))];
        let bodies = sensor.see(&Observation::Said { at: sensor.at(), points });
        told(&bodies).into_iter().filter(|line| line != "device.online").collect::<Vec<_>>()
    };
    assert_eq!(say(0, 21.5), ["temperature=21.5 Good 0"]);
    assert_eq!(say(10_000, 21.7), NOTHING, "within the deadband");
    assert_eq!(say(10_000, 21.8), ["temperature=21.8 Good 0"]);
    assert_eq!(say(899_999, 21.8), NOTHING);
    assert_eq!(say(1, 21.9), ["temperature=21.9 Good 0"], "a fresh reading after the heartbeat");
}

#[test]
fn a_silent_devices_values_go_out_once_as_old_as_they_are() {
    let mut button = Bench::shipped("modbus-button");
    button.on(false);
    button.now_ms += 4_000;
    assert_eq!(told(&button.on(false)), NOTHING, "the same, read again");
    button.now_ms += 1_500;
    let stale = Observation::Stale { at: button.at(), reason: QualityReason::Silent };
    assert_eq!(told(&button.see(&stale)), ["pressed=false Stale Silent 1500"], "since it was read last");
    assert_eq!(told(&button.see(&stale)), NOTHING, "once");
    let offline = Observation::Offline { at: button.at(), reason: "no_reply" };
    let bodies = button.see(&offline);
    assert_eq!(told(&bodies), ["device.offline"]);
    let Body::Event(event) = &bodies[0] else { panic!("{bodies:?}") };
    assert_eq!(event.params["reason"], Value::Text("no_reply".into()));
    assert_eq!(event.severity, Some(Severity::Major));
    assert_eq!(told(&button.see(&offline)), NOTHING);
    assert_eq!(told(&button.on(false)), ["device.online", "pressed=false Good 0"]);
}

#[test]
fn nothing_is_online_before_it_spoke_and_a_device_that_never_did_is_offline() {
    let mut button = Bench::shipped("modbus-button");
    assert_eq!(button.memory.online(), None);
    let offline = Observation::Offline { at: button.at(), reason: "no_reply" };
    assert_eq!(told(&button.see(&offline)), ["device.offline"], "and there are no values to be stale");
    assert_eq!(button.memory.online(), Some(false));
}

#[test]
fn a_supervised_loop_tells_a_cut_wire_and_keeps_the_press_apart() {
    let mut button = Bench::shipped("modbus-loop-button");
    assert_eq!(told(&button.say(Said::Loop(Loop::Normal))), ["device.online", "pressed=false Good 0"]);
    let cut = button.say(Said::Loop(Loop::Open));
    assert_eq!(told(&cut), ["line.open", "pressed=- Bad OpenCircuit 0"]);
    let Body::Event(event) = &cut[0] else { panic!("{cut:?}") };
    assert_eq!((event.category, event.severity), (Category::Device, Some(Severity::Major)));
    assert_eq!(told(&button.say(Said::Loop(Loop::Open))), NOTHING);
    let pressed = button.say(Said::Loop(Loop::Active));
    assert_eq!(told(&pressed), ["line.restored", "button.pressed", "pressed=true Good 0"]);
    assert_eq!(told(&button.say(Said::Loop(Loop::Short))), ["line.shorted", "pressed=- Bad ShortCircuit 0"]);
    assert_eq!(told(&button.say(Said::Loop(Loop::Open))), ["line.open", "pressed=- Bad OpenCircuit 0"]);
}

#[test]
fn what_is_no_value_is_bad_with_its_reason_and_counted() {
    let mut sensor = Bench::shipped("modbus-temp-humidity");
    sensor.say(Said::Value(Value::Float(40.0)));
    let seen = Said::Nothing { quality: QualityReason::OutOfRange, reason: Refusal::OutOfRange };
    let observation = Observation::Said { at: sensor.at(), points: vec![(0, seen.clone())] };
    let mapped = map(&sensor.described, &sensor.memory, &observation);
    assert_eq!(mapped.refusals, [Refusal::OutOfRange]);
    let bodies = sensor.say(seen.clone());
    assert_eq!(told(&bodies), ["humidity=- Bad OutOfRange 0"]);
    assert_eq!(told(&sensor.say(seen)), NOTHING);
}
