//! The households at work: which record is a sign for whom, which sensor is silent, and what falls due.

mod begin;
mod hearing;
mod signs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::ids::{CareName, DeviceId};
use crate::model::record::{Body, Event, Quality, Record};

use super::super::action::spec::ActionSpec;
use super::super::directory::Directory;
use super::super::signal::Signal;
use super::super::table::{Row, Rows, Table};
use super::super::{Now, Part};
use super::config::{self, CareConfig, Household};
use super::flow::Flow;
use super::life::{Life, Step, Terms};
use super::sensor::{Before, Down, Opened, Pulse, Recorded, Sensor};
use super::words;

/// The pulse comes so often; records that come by themselves do not delay it.
const PULSE_MS: u64 = 10 * 60_000;

/// A longer pause than this between two records means that the box was off: the pulse would have made one.
const OFF_MS: u64 = 15 * 60_000;

/// What the gateway says of a device that it cannot hear: no word of its own.
const DEVICE_OFFLINE: &str = "device.offline";

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
    ) {
        if self.watched.is_empty() {
            return;
        }
        match &record.body {
            Body::Event(event) if event.device.is_gateway() => self.bus(now, event),
            Body::Event(event) => {
                if event.name != DEVICE_OFFLINE {
                    self.bus_works(now, &event.device.id);
                }
                self.event(now, (event, record.test), utc_offset_min, signals);
            }
            Body::Telemetry(telemetry) => {
                if telemetry.samples.iter().any(|sample| sample.quality == Quality::Good) {
                    self.bus_works(now, &telemetry.device.id);
                }
                self.telemetry(now, (telemetry, record.test), signals);
            }
            Body::Alarm(_) | Body::Gap(_) => {}
        }
    }

    /// The deadline of a row has come. Rows agree with the configuration: [`Care::begin`] goes before.
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
        let Some((name, watched)) = self.watched.get_key_value(name) else { return Vec::new() };
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
