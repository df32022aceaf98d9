//! The households at work: which record is a sign for whom, which sensor is silent, and what falls due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::ids::{BusName, CareName, DeviceId};
use crate::model::record::{Body, Event, Quality, Record, Sample, Telemetry, Value};

use super::super::action::spec::ActionSpec;
use super::super::directory::Directory;
use super::super::signal::Signal;
use super::super::table::{Row, Rows, Table};
use super::super::time::minute_of_day;
use super::super::{Now, Out, Part};
use super::config::{self, CareConfig, Household, Said, Sign};
use super::flow::Flow;
use super::life::{Life, Stage, Step, Terms};
use super::sensor::{Before, Down, Hearing, Opened, Pulse, Recorded, Sensor};
use super::words;

/// The pulse comes so often; records that come by themselves do not delay it.
const PULSE_MS: u64 = 10 * 60_000;

/// A longer pause than this between two records means that the box was off: the pulse would have made one.
const OFF_MS: u64 = 15 * 60_000;

/// Openings of the door that belong to one night.
const NIGHT_MS: u64 = 12 * 3_600_000;

/// The key of rows that there is one of.
const ONE: &str = "one";

const _: () = assert!(PULSE_MS < OFF_MS);

/// A question to a household.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pipeline) struct Ask {
    pub(in crate::pipeline) household: CareName,
    pub(in crate::pipeline) condition: Event,
    pub(in crate::pipeline) specs: Vec<ActionSpec>,
    pub(in crate::pipeline) act_within_ms: u64,
}

/// A household that agreed.
#[derive(Debug)]
struct Watched {
    household: Household,
    terms: Terms,
    night: Option<(u16, u16, u16)>,
}

/// The households that are cared for.
#[derive(Debug)]
pub(in crate::pipeline) struct Care {
    config: CareConfig,
    directory: Arc<Directory>,
    watched: BTreeMap<CareName, Watched>,
    /// Which households a device tells of.
    by_device: BTreeMap<DeviceId, BTreeSet<CareName>>,
    /// Sensors whose silence matters, and their heartbeats.
    heartbeats: BTreeMap<DeviceId, u64>,
    /// Rows agree with the configuration.
    begun: bool,
    lives: Table<Life>,
    sensors: Table<Sensor>,
    values: Table<Before>,
    flows: Table<Flow>,
    nights: Table<Opened>,
    buses: Table<Down>,
    consents: Table<Recorded>,
    pulse: Table<Pulse>,
}

impl Care {
    pub(in crate::pipeline) fn new(config: CareConfig, directory: Arc<Directory>) -> Self {
        let mut care = Self {
            directory,
            watched: BTreeMap::new(),
            by_device: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            begun: false,
            lives: Table::new("care/life/"),
            sensors: Table::new("care/sensor/"),
            values: Table::new("care/value/"),
            flows: Table::new("care/flow/"),
            nights: Table::new("care/night/"),
            buses: Table::new("care/bus/"),
            consents: Table::new("care/consent/"),
            pulse: Table::new("care/pulse/"),
            config,
        };
        let agreed = care.config.households.iter().filter(|(_, household)| household.agreed());
        for (name, household) in agreed {
            for device in household.devices() {
                care.by_device.entry(device.clone()).or_default().insert(name.clone());
            }
            for device in household.sensors() {
                let entry = care.directory.devices.get(device);
                let heartbeat_s = entry.and_then(|entry| entry.heartbeat_s).unwrap_or(0);
                care.heartbeats.insert(device.clone(), u64::from(heartbeat_s).saturating_mul(1_000));
            }
            let night = household.night.as_ref().and_then(|night| {
                let (from, to) = (config::minute_of_day(&night.from)?, config::minute_of_day(&night.to)?);
                Some((from, to, night.openings))
            });
            let watched = Watched { household: household.clone(), terms: terms(household), night };
            care.watched.insert(name.clone(), watched);
        }
        care
    }

    /// Time goes on from one record to the next. A long pause means that the box was off, and its deadlines wait so long.
    pub(in crate::pipeline) fn passed(&mut self, before_ms: u64, t_ms: u64) {
        let by_ms = t_ms.saturating_sub(before_ms);
        if by_ms <= OFF_MS || self.watched.is_empty() {
            return;
        }
        let lives: Vec<(String, Life)> = owned(&self.lives);
        for (name, mut life) in lives {
            if let Some(watched) = self.watched.get(name.as_str()) {
                life.shift(by_ms, &watched.terms);
                self.lives.put(&name, life);
            }
        }
        for (id, mut sensor) in owned(&self.sensors) {
            sensor.shift(by_ms);
            self.sensors.put(&id, sensor);
        }
    }

    pub(in crate::pipeline) fn apply(
        &mut self,
        now: &Now,
        record: &Record,
        utc_offset_min: i32,
        signals: &mut Vec<Signal>,
        out: &mut Out,
    ) {
        if !self.begun {
            self.begin(now, signals, out);
            self.begun = true;
        }
        if self.watched.is_empty() {
            return;
        }
        match &record.body {
            Body::Event(event) if event.device.is_gateway() => self.bus(now, event),
            Body::Event(event) => self.event(now, (event, record.test), utc_offset_min, signals),
            Body::Telemetry(telemetry) => self.telemetry(now, (telemetry, record.test), signals),
            Body::Alarm(_) | Body::Gap(_) => {}
        }
    }

    /// The deadline of a row has come.
    pub(in crate::pipeline) fn fire(&mut self, now: &Now, key: &str, signals: &mut Vec<Signal>) -> Vec<Ask> {
        match key.split_once('/') {
            Some(("life", name)) => self.fire_life(now, name, signals),
            Some(("sensor", id)) => {
                self.silent(now, id, signals);
                Vec::new()
            }
            _ => {
                self.pulse.put(ONE, Pulse { due_ms: now.t_ms.saturating_add(PULSE_MS) });
                Vec::new()
            }
        }
    }

    /// Makes the rows agree with the configuration: who is new begins, who is gone or has taken consent back is forgotten.
    fn begin(&mut self, now: &Now, signals: &mut Vec<Signal>, out: &mut Out) {
        self.record_consents(now, out);
        for (name, life) in owned(&self.lives) {
            if let Some(watched) = self.watched.get(name.as_str()) {
                let mut settled = life;
                settled.settle(&watched.terms);
                self.lives.put(&name, settled);
                continue;
            }
            if life.stage == Stage::Raised {
                signals.push(words::clear(words::INACTIVITY, &name, now));
            }
            self.lives.remove(&name);
            if self.flows.get(&name).is_some_and(|flow| flow.leaking) {
                signals.push(words::clear(words::LEAK, &name, now));
            }
            self.flows.remove(&name);
            self.nights.remove(&name);
        }
        for (id, sensor) in owned(&self.sensors) {
            if self.heartbeats.contains_key(id.as_str()) {
                continue;
            }
            if sensor.hearing == Hearing::Told {
                signals.push(words::clear(words::SENSOR_OFFLINE, &id, now));
            }
            self.sensors.remove(&id);
        }
        for (id, heartbeat_ms) in &self.heartbeats {
            let mut sensor = match self.sensors.get(id.as_str()) {
                Some(known) => known.clone(),
                None => Sensor::begin(now.t_ms, *heartbeat_ms),
            };
            sensor.promise(*heartbeat_ms);
            self.sensors.put(id.as_str(), sensor);
        }
        for (name, watched) in &self.watched {
            if self.lives.get(name.as_str()).is_none() {
                let mut life = Life::begin(now.t_ms);
                life.settle(&watched.terms);
                self.lives.put(name.as_str(), life);
            }
        }
        if self.watched.is_empty() {
            self.pulse.remove(ONE);
        } else if self.pulse.get(ONE).is_none() {
            self.pulse.put(ONE, Pulse { due_ms: now.t_ms.saturating_add(PULSE_MS) });
        }
    }

    /// Consent that was given or taken back since the last start is a record.
    fn record_consents(&mut self, now: &Now, out: &mut Out) {
        for (name, household) in &self.config.households {
            let Some(consent) = &household.consent else { continue };
            let (date, by, revoked) = (consent.date.clone(), consent.by.clone(), consent.revoked.clone());
            let stated = Recorded { date, by, revoked };
            if self.consents.get(name.as_str()) != Some(&stated) {
                out.drafts.push(words::consent(now, household, (name, &self.directory), &stated));
                self.consents.put(name.as_str(), stated);
            }
        }
    }

    fn bus(&mut self, now: &Now, event: &Event) {
        let Some(bus) = &event.device.bus else { return };
        match event.name.as_str() {
            "bus.offline" => self.buses.put(bus.as_str(), Down {}),
            "bus.online" => {
                self.buses.remove(bus.as_str());
                for (id, mut sensor) in owned(&self.sensors) {
                    if self.bus_of(&id).is_some_and(|on| on == bus) {
                        sensor.bus_back(now.t_ms);
                        self.sensors.put(&id, sensor);
                    }
                }
            }
            _ => {}
        }
    }

    fn bus_of(&self, device: &str) -> Option<&BusName> {
        self.directory.devices.get(device)?.bus.as_ref()
    }

    fn event(
        &mut self,
        now: &Now,
        (event, test): (&Event, bool),
        offset_min: i32,
        signals: &mut Vec<Signal>,
    ) {
        let id = &event.device.id;
        let Some(names) = self.by_device.get(id).cloned() else { return };
        if event.name == "device.offline" {
            self.silent(now, id.as_str(), signals);
            return;
        }
        self.heard(now, id, signals);
        if test {
            return;
        }
        for name in names {
            let Some(watched) = self.watched.get(&name) else { continue };
            let says = |said: &Option<Said>| {
                said.as_ref().is_some_and(|said| said.device == *id && said.event == event.name)
            };
            let away = &watched.household.away;
            let (leave, back) = (says(&away.leave), says(&away.back));
            let signs = watched.household.signals.iter();
            let shown = signs.filter(|sign| sign.device == *id && sign.event.as_deref() == Some(&event.name));
            let leaves: Vec<bool> = shown.map(|sign| sign.leaves).collect();
            if leave {
                self.live(now, &name, signals, |life, terms| life.leave(now.t_ms, terms));
            } else if back {
                self.live(now, &name, signals, |life, terms| life.back(now.t_ms, terms));
            } else if let Some(leaves) = leaves.first().copied() {
                self.live(now, &name, signals, |life, terms| life.sign(now.t_ms, leaves, terms));
            }
            if leaves.contains(&true) {
                self.opened_at_night(now, &name, offset_min, signals);
            }
        }
    }

    fn telemetry(&mut self, now: &Now, (telemetry, test): (&Telemetry, bool), signals: &mut Vec<Signal>) {
        let id = &telemetry.device.id;
        let Some(names) = self.by_device.get(id).cloned() else { return };
        let good: Vec<(&Sample, &Value)> = telemetry
            .samples
            .iter()
            .filter(|sample| sample.quality == Quality::Good)
            .filter_map(|sample| Some((sample, sample.value.as_ref()?)))
            .collect();
        if good.is_empty() {
            return;
        }
        self.heard(now, id, signals);
        if test {
            return;
        }
        for name in names {
            let Some(watched) = self.watched.get(&name) else { continue };
            let mut shown = None;
            for (number, sign) in watched.household.signals.iter().enumerate() {
                let sample = good.iter().find(|(sample, _)| sign.reads(id, sample));
                let Some((_, value)) = sample else { continue };
                let key = format!("{name}/{number}");
                let mut before = self.values.get(&key).cloned().unwrap_or_default();
                if sign.shows(&mut before, value) {
                    shown = Some(shown.unwrap_or(false) || sign.leaves);
                }
                self.values.put(&key, before);
            }
            if let Some(leaves) = shown {
                self.live(now, &name, signals, |life, terms| life.sign(now.t_ms, leaves, terms));
            }
            self.water(now, &name, (id, &good), signals);
        }
    }

    fn water(
        &mut self,
        now: &Now,
        name: &CareName,
        (id, good): (&DeviceId, &[(&Sample, &Value)]),
        signals: &mut Vec<Signal>,
    ) {
        let Some(watched) = self.watched.get(name) else { return };
        let Some(leak) = watched.household.leak.as_ref().filter(|leak| leak.device == *id) else { return };
        let reading = good.iter().find(|(sample, _)| sample.point == leak.point);
        let Some(reading) = reading.and_then(|(_, value)| number(value)) else { return };
        let mut flow = self.flows.get(name.as_str()).cloned().unwrap_or_default();
        match flow.read(now.t_ms, reading, leak) {
            Some(excess) if !flow.leaking => {
                flow.leaking = true;
                signals.push(words::leak(now, &watched.household, (name, &self.directory), excess));
            }
            None if flow.leaking => {
                flow.leaking = false;
                signals.push(words::clear(words::LEAK, name.as_str(), now));
            }
            _ => {}
        }
        self.flows.put(name.as_str(), flow);
    }

    fn opened_at_night(&mut self, now: &Now, name: &CareName, offset_min: i32, signals: &mut Vec<Signal>) {
        let Some(watched) = self.watched.get(name) else { return };
        let Some((from, to, openings)) = watched.night else { return };
        // A box that does not know the time does not know the night.
        let Some(minute) = minute_of_day(&now.at, offset_min) else { return };
        let night = if from <= to { from <= minute && minute < to } else { minute >= from || minute < to };
        if !night {
            self.nights.remove(name.as_str());
            return;
        }
        let known = self.nights.get(name.as_str()).cloned();
        let same = known.filter(|opened| now.t_ms < opened.since_ms.saturating_add(NIGHT_MS));
        let mut opened = same.unwrap_or(Opened { since_ms: now.t_ms, count: 0, told: false });
        opened.count = opened.count.saturating_add(1);
        if opened.count >= openings && !opened.told {
            opened.told = true;
            signals.push(words::night(now, &watched.household, (name, &self.directory), opened.count));
        }
        self.nights.put(name.as_str(), opened);
    }

    /// Changes a household's state, and tells if its alarm is over.
    fn live(
        &mut self,
        now: &Now,
        name: &CareName,
        signals: &mut Vec<Signal>,
        change: impl FnOnce(&mut Life, &Terms) -> Step,
    ) {
        let Some(watched) = self.watched.get(name) else { return };
        let Some(mut life) = self.lives.get(name.as_str()).cloned() else { return };
        if change(&mut life, &watched.terms) == Step::Clear {
            signals.push(words::clear(words::INACTIVITY, name.as_str(), now));
        }
        self.lives.put(name.as_str(), life);
    }

    fn fire_life(&mut self, now: &Now, name: &str, signals: &mut Vec<Signal>) -> Vec<Ask> {
        let Some(mut life) = self.lives.get(name).cloned() else { return Vec::new() };
        let Some((name, watched)) = self.watched.get_key_value(name) else {
            self.lives.remove(name);
            return Vec::new();
        };
        let quiet_ms = now.t_ms.saturating_sub(life.quiet_since_ms);
        let step = life.fire(now.t_ms, &watched.terms);
        self.lives.put(name.as_str(), life);
        let (household, known) = (&watched.household, (name, &*self.directory));
        match step {
            Step::Ask => vec![Ask {
                household: name.clone(),
                condition: words::inactivity(household, known, quiet_ms),
                specs: household.ask.clone(),
                act_within_ms: watched.terms.answer_ms.unwrap_or(0),
            }],
            Step::Raise => {
                signals.push(words::raise_inactivity(now, household, known, quiet_ms));
                Vec::new()
            }
            Step::None | Step::Clear => Vec::new(),
        }
    }

    fn heard(&mut self, now: &Now, id: &DeviceId, signals: &mut Vec<Signal>) {
        let Some(mut sensor) = self.sensors.get(id.as_str()).cloned() else { return };
        let before = sensor.heard(now.t_ms);
        self.sensors.put(id.as_str(), sensor);
        let Some(before) = before else { return };
        if before == Hearing::Told {
            signals.push(words::clear(words::SENSOR_OFFLINE, id.as_str(), now));
        }
        for name in self.by_device.get(id).cloned().unwrap_or_default() {
            let Some(watched) = self.watched.get(&name) else { continue };
            let deaf = |id: &&DeviceId| {
                self.sensors.get(id.as_str()).is_some_and(|sensor| sensor.hearing != Hearing::Heard)
            };
            if !watched.household.sensors().iter().any(deaf) {
                self.live(now, &name, signals, |life, terms| {
                    life.sighted(now.t_ms, terms);
                    Step::None
                });
            }
        }
    }

    fn silent(&mut self, now: &Now, id: &str, signals: &mut Vec<Signal>) {
        let Some(mut sensor) = self.sensors.get(id).cloned() else { return };
        let hidden = self.bus_of(id).is_some_and(|bus| self.buses.get(bus.as_str()).is_some());
        let tell = sensor.silent(hidden);
        let heard_ms = sensor.heard_ms;
        self.sensors.put(id, sensor);
        let Some((id, names)) = self.by_device.get_key_value(id) else { return };
        if tell {
            signals.push(words::sensor_offline(now, id, &self.directory, now.t_ms.saturating_sub(heard_ms)));
        }
        for name in names.clone() {
            self.live(now, &name, signals, |life, terms| {
                life.blind(heard_ms, terms);
                Step::None
            });
        }
    }
}

impl Sign {
    fn reads(&self, device: &DeviceId, sample: &Sample) -> bool {
        self.device == *device && self.point.as_ref() == Some(&sample.point)
    }

    /// Whether a value is a sign, given what was before.
    fn shows(&self, before: &mut Before, value: &Value) -> bool {
        match (&self.equals, self.grows_by, self.changes_by, number(value)) {
            (Some(wanted), ..) => before.became(value == wanted),
            (None, Some(by), _, Some(reading)) => before.grown(reading, by),
            (None, None, Some(by), Some(value)) => before.changed(value, by),
            _ => false,
        }
    }
}

fn terms(household: &Household) -> Terms {
    let leaves = household.signals.iter().any(|sign| sign.leaves);
    Terms {
        window_ms: household.window_ms(),
        answer_ms: household.answer_ms(),
        quiet_ms: household.away.quiet_ms().filter(|_| leaves),
        presumed_max_ms: household.away.presumed_max_ms(),
        said_max_ms: household.away.said_max_ms(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no meter counts beyond 52 bits")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(whole) => Some(*whole as f64),
        Value::Float(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) => None,
    }
}

fn owned<R: Row>(table: &Table<R>) -> Vec<(String, R)> {
    table.iter().map(|(key, row)| (key.to_owned(), row.clone())).collect()
}

impl Part for Care {
    fn tables(&self) -> Vec<&dyn Rows> {
        vec![
            &self.lives,
            &self.sensors,
            &self.values,
            &self.flows,
            &self.nights,
            &self.buses,
            &self.consents,
            &self.pulse,
        ]
    }

    fn tables_mut(&mut self) -> Vec<&mut dyn Rows> {
        vec![
            &mut self.lives,
            &mut self.sensors,
            &mut self.values,
            &mut self.flows,
            &mut self.nights,
            &mut self.buses,
            &mut self.consents,
            &mut self.pulse,
        ]
    }

    fn reconsider(&mut self) {
        // What never happened may have been the beginning.
        self.begun = false;
    }

    fn next_due(&self) -> Option<(u64, String)> {
        let life = self.lives.next_due().map(|(due_ms, name)| (due_ms, format!("life/{name}")));
        let sensor = self.sensors.next_due().map(|(due_ms, id)| (due_ms, format!("sensor/{id}")));
        let pulse = self.pulse.next_due().map(|(due_ms, _)| (due_ms, "pulse".to_owned()));
        [life, sensor, pulse].into_iter().flatten().min()
    }
}
