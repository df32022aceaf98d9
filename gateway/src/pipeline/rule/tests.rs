//! The rules at work, over a small compound.

mod changes;
mod explaining;
mod flow;
mod mistakes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::ids::{BootId, DeviceId, Epoch, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, Class, DeviceRef, Event, Quality, Record, Sample, Telemetry, Value,
};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::pipeline::directory::{Abilities, Directory, Entry, PointType};
use crate::pipeline::signal::Signal;
use crate::pipeline::{Now, Part};

fn profile(name: &str) -> ProfileName {
    ProfileName::new(name).unwrap()
}

fn catalogue() -> Catalogue {
    let contact = Model {
        kind: "contact".into(),
        events: ["contact.opened", "contact.closed"].map(str::to_owned).into(),
        ends: BTreeMap::from([("contact.closed".into(), "contact.opened".into())]),
        ..Model::default()
    };
    let lock = Model {
        kind: "lock".into(),
        events: ["lock.unlocked", "lock.failed"].map(str::to_owned).into(),
        ..Model::default()
    };
    let point = |name: &str, kind| (PointName::new(name).unwrap(), kind);
    let sensor = Model {
        kind: "sensor".into(),
        points: BTreeMap::from([
            point("temperature", PointType::Float),
            point("humidity", PointType::Int),
            point("state", PointType::Text),
        ]),
        ..Model::default()
    };
    let models = [("door-contact", contact), ("door-lock", lock), ("climate", sensor)];
    Catalogue { models: models.into_iter().map(|(name, model)| (profile(name), model)).collect() }
}

/// Devices by id and profile; `c1` and `l1` are at unit 1, and so on. Contacts bear the tag `door`.
fn directory(devices: &[(&str, &str)]) -> Directory {
    let catalogue = catalogue();
    let entry = |id: &str, of: &str| {
        let model = catalogue.models[of].clone();
        let unit = id.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
        Entry {
            kind: model.kind.clone(),
            profile: profile(of),
            bus: None,
            bridge: None,
            place: Place { building: Some("3".into()), unit: Some(unit), ..Place::default() },
            tags: if of == "door-contact" { ["door".to_owned()].into() } else { [].into() },
            points: model.points,
            events: model.events,
            heartbeat_s: None,
            maintenance: false,
            abilities: Abilities { door: of == "door-lock", ..Abilities::default() },
        }
    };
    let devices = devices.iter().map(|(id, of)| (DeviceId::new(id).unwrap(), entry(id, of)));
    Directory { devices: devices.collect() }
}

fn compiled(text: &str, directory: &Directory) -> (Rules, Vec<Finding>) {
    let rules = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let source = Source { file: "own".into(), shipped: false, rules };
    Rules::compile(&[source], &[], directory, &catalogue())
}

/// A rule with the lines that matter and the rest of what a rule needs.
fn rule(name: &str, lines: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\ntitle = {{ zh = \"甲\", en = \"a\" }}\n{lines}\n[rule.raise]\nname = \"a.b\"\n\
         category = \"access\"\nseverity = \"minor\"\ntext = {{ zh = \"甲\", en = \"a\" }}\n"
    )
}

/// The engine with its devices, and what came of it: `+rule/subject` or `-rule/subject`, with the second.
struct Bench {
    engine: engine::Engine,
    directory: Directory,
    told: Vec<String>,
    rules: Arc<Rules>,
    rows: BTreeMap<String, String>,
    /// The wall clock at the pipeline's time 0, milliseconds.
    clock_ms: i64,
    trust: ClockTrust,
}

impl Bench {
    fn new(text: &str, devices: &[(&str, &str)]) -> Self {
        Self::of(text, directory(devices))
    }

    fn of(text: &str, directory: Directory) -> Self {
        let (_, findings) = compiled(text, &directory);
        assert!(findings.is_empty(), "{findings:#?}");
        Self::unchecked(text, directory)
    }

    /// Whatever `check` warns of.
    fn unchecked(text: &str, directory: Directory) -> Self {
        let (rules, _) = compiled(text, &directory);
        let rules = Arc::new(rules);
        let engine = engine::Engine::new(Arc::clone(&rules), Arc::new(directory.clone()));
        let (told, rows) = (Vec::new(), BTreeMap::new());
        Self { engine, directory, told, rules, rows, clock_ms: 0, trust: ClockTrust::Ntp }
    }

    fn now(&self, t_ms: u64) -> Now {
        let wall_ms = self.clock_ms + i64::try_from(t_ms).unwrap();
        let at = Stamp { boot: BootId("b".into()), mono_ms: t_ms, wall_ms, trust: self.trust };
        Now { t_ms, at }
    }

    fn note(&mut self, t_ms: u64, signals: Vec<Signal>) {
        for signal in signals {
            let at = Duration::from_millis(t_ms).as_secs_f64();
            self.told.push(match signal {
                Signal::Raise(raise) => {
                    let test = if raise.test { " test" } else { "" };
                    let moment = if raise.lasts { "" } else { "!" };
                    format!("{at} +{}/{}{moment}{test}", raise.rule, raise.subject)
                }
                Signal::Clear(clear) => {
                    let test = if clear.test { " test" } else { "" };
                    format!("{at} -{}/{}{test}", clear.rule, clear.subject)
                }
            });
        }
    }

    /// Lets time pass to `t_ms`; `heard_ms` is the time of the record that ends the wait.
    fn wait(&mut self, t_ms: u64, heard_ms: u64) {
        while let Some((due_ms, key)) = self.engine.next_due().filter(|(due, _)| *due <= t_ms) {
            let mut signals = Vec::new();
            self.engine.passed(heard_ms.max(due_ms));
            self.engine.fire(&self.now(due_ms), &key, 480, &mut signals);
            self.note(due_ms, signals);
        }
    }

    fn record(&mut self, t_ms: u64, test: bool, body: Body) {
        let now = self.now(t_ms);
        let at = now.at.clone();
        let record = Record { pos: 1, epoch: Epoch(1), class: Class::Event, seq: 1, at, test, body };
        let mut signals = Vec::new();
        self.engine.passed(t_ms);
        self.engine.apply(&now, &record, 480, &mut signals);
        self.note(t_ms, signals);
    }

    fn device(&self, id: &str) -> (DeviceRef, Place) {
        let id = DeviceId::new(id).unwrap();
        let entry = &self.directory.devices[&id];
        let profile = Some(entry.profile.clone());
        (DeviceRef { id, kind: entry.kind.clone(), profile, bus: None }, entry.place.clone())
    }

    fn under_maintenance(&self, id: &str) -> bool {
        self.directory.devices[&DeviceId::new(id).unwrap()].maintenance
    }

    fn event_of(&self, device: &str, name: &str) -> Event {
        let (device, place) = self.device(device);
        let clears = catalogue().models[device.profile.as_ref().unwrap()].ends.get(name).cloned();
        let params = clears.map(|ended| ("clears".to_owned(), Value::Text(ended.as_str().into())));
        let (name, params) = (name.to_owned(), params.into_iter().collect());
        Event { device, place, category: Category::Access, name, severity: None, params, text: None }
    }

    /// An event at second `at_s`, after the deadlines before it.
    fn event(&mut self, at_s: u64, device: &str, name: &str) {
        self.wait(at_s * 1_000, 0);
        let event = self.event_of(device, name);
        self.record(at_s * 1_000, self.under_maintenance(device), Body::Event(Box::new(event)));
    }

    fn sample(&mut self, at_s: u64, device: &str, point: &str, value: Value, quality: Quality) {
        self.wait(at_s * 1_000, 0);
        let (device, place) = self.device(device);
        let sample = Sample::good(PointName::new(point).unwrap(), value, None);
        let samples = vec![Sample { quality, ..sample }];
        let test = self.under_maintenance(device.id.as_str());
        self.record(at_s * 1_000, test, Body::Telemetry(Telemetry { device, place, samples }));
    }

    fn value(&mut self, at_s: u64, device: &str, point: &str, value: f64) {
        self.sample(at_s, device, point, Value::Float(value), Quality::Good);
    }

    /// What is stored, as the journal would hold it.
    fn stored(&mut self) -> &BTreeMap<String, String> {
        let mut changed = Vec::new();
        self.engine.unsaved(&mut changed);
        for (key, value) in changed {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.engine.commit(true);
        &self.rows
    }

    /// A restart with the same rules and devices.
    fn resume(&mut self) {
        self.stored();
        self.engine = engine::Engine::new(Arc::clone(&self.rules), Arc::new(self.directory.clone()));
        for (key, value) in &self.rows {
            assert!(self.engine.load(key, value), "{key}");
        }
    }

    /// A restart with others.
    fn restart(&mut self, text: &str, devices: &[(&str, &str)]) {
        self.restart_in(text, directory(devices));
    }

    fn restart_in(&mut self, text: &str, directory: Directory) {
        self.stored();
        let (told, rows) = (std::mem::take(&mut self.told), std::mem::take(&mut self.rows));
        *self = Self { told, rows, clock_ms: self.clock_ms, ..Self::of(text, directory) };
        self.resume();
    }

    /// A restart after a change of the devices' configuration.
    fn reconfigure(&mut self, text: &str, change: impl Fn(&mut Directory)) {
        let mut directory = self.directory.clone();
        change(&mut directory);
        self.restart_in(text, directory);
    }
}

/// Ten devices of a thousand rules, and of ten: what each record costs. Printed, not held: `make bench` holds it.
#[test]
fn a_thousand_rules_are_not_looked_through_for_each_record() {
    let mut model = Model { kind: "button".into(), ..Model::default() };
    model.events.insert("button.pressed".into());
    model.points.insert(PointName::new("battery").unwrap(), PointType::Float);
    let catalogue = Catalogue { models: BTreeMap::from([(profile("b"), model.clone())]) };
    let entry = |number: usize| Entry {
        kind: "button".into(),
        profile: profile("b"),
        bus: None,
        bridge: None,
        place: Place {
            building: Some((number / 10).to_string()),
            unit: Some((number % 10).to_string()),
            ..Place::default()
        },
        tags: [].into(),
        points: model.points.clone(),
        events: model.events.clone(),
        heartbeat_s: None,
        maintenance: false,
        abilities: Abilities::default(),
    };
    let devices = (0..1_000).map(|number| (DeviceId::new(&format!("d{number}")).unwrap(), entry(number)));
    let directory = Directory { devices: devices.collect() };
    for count in [10, 1_000] {
        let rules = toml::from_str(&many::many(count)).unwrap();
        let source = Source { file: "many".into(), shipped: false, rules };
        let begun = tokio::time::Instant::now();
        let (rules, findings) = Rules::compile(&[source], &[], &directory, &catalogue);
        let compiled_ms = begun.elapsed().as_millis();
        assert!(findings.is_empty(), "{findings:?}");
        let touched = |device: &str| {
            let watched = rules.at(&DeviceId::new(device).unwrap());
            watched.map_or(0, |watched| watched.begins.len() + watched.points.len())
        };
        assert_eq!((touched("d4"), touched("d7")), (1, 1), "{count} rules");
        let mut bench = Bench {
            engine: engine::Engine::new(Arc::new(rules), Arc::new(directory.clone())),
            directory: directory.clone(),
            told: Vec::new(),
            rules: Arc::default(),
            rows: BTreeMap::new(),
            clock_ms: 0,
            trust: ClockTrust::Ntp,
        };
        let begun = tokio::time::Instant::now();
        for at_s in 0..10_000_u64 {
            let device = format!("d{}", at_s % 10);
            if at_s % 2 == 0 {
                let (device, place) = bench.device(&device);
                let (name, params) = ("button.pressed".to_owned(), BTreeMap::new());
                let category = Category::Emergency;
                let event = Event { device, place, category, name, severity: None, params, text: None };
                bench.record(at_s * 1_000, false, Body::Event(Box::new(event)));
            } else {
                bench.value(at_s, &device, "battery", 50.0);
            }
        }
        let each_us = begun.elapsed().as_secs_f64() * 100.0;
        eprintln!("{count} rules: compiled in {compiled_ms} ms, {each_us:.1} µs a record (this build)");
    }
}
