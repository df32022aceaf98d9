//! How rows are made to agree with the configuration.

use std::collections::BTreeSet;

use super::super::life::{Life, Stage};
use super::super::sensor::{Hearing, Pulse, Recorded, Sensor};
use super::super::words;
use super::{Care, ONE, PULSE_MS, owned};
use crate::pipeline::signal::Signal;
use crate::pipeline::table::{Row, Table};
use crate::pipeline::{Now, Out};

impl Care {
    /// Makes the rows agree with the configuration: who is new begins, who is gone or has taken consent back is forgotten.
    /// Before any deadline of those rows.
    pub(in crate::pipeline) fn begin(&mut self, now: &Now, signals: &mut Vec<Signal>, out: &mut Out) {
        if self.begun {
            return;
        }
        self.begun = true;
        self.record_consents(now, out);
        self.forget(now, signals);
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
        // A sensor was taken out or put in: who was blind may see, and the other way round.
        for name in self.watched.keys().cloned().collect::<Vec<_>>() {
            self.look(now, &name);
        }
        if self.watched.is_empty() {
            self.pulse.remove(ONE);
        } else if self.pulse.get(ONE).is_none() {
            self.pulse.put(ONE, Pulse { due_ms: now.t_ms.saturating_add(PULSE_MS) });
        }
    }

    /// What was remembered of signs, water, nights and buses that nobody asks for any more.
    fn forget(&mut self, now: &Now, signals: &mut Vec<Signal>) {
        let households = || self.watched.iter().map(|(name, watched)| (name, &watched.household));
        let signs = households().flat_map(|(name, of)| of.signals.iter().filter_map(|sign| sign.key(name)));
        let signs: BTreeSet<String> = signs.collect();
        let meters = households().filter_map(|(name, of)| Some(of.leak.as_ref()?.key(name)));
        let meters: BTreeSet<String> = meters.collect();
        let nights = households().filter(|(_, of)| of.night.is_some());
        let nights: BTreeSet<String> = nights.map(|(name, _)| name.to_string()).collect();
        let buses = self.heartbeats.keys().filter_map(|id| self.bus_of(id.as_str()));
        let buses: BTreeSet<String> = buses.map(ToString::to_string).collect();
        unwanted(&mut self.values, &signs);
        unwanted(&mut self.nights, &nights);
        unwanted(&mut self.buses, &buses);
        for (key, flow) in unwanted(&mut self.flows, &meters) {
            let name = key.split_once('/').map_or(&*key, |(name, _meter)| name);
            if flow.leaking {
                signals.push(words::clear(words::LEAK, name, now));
            }
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
}

/// Takes out the rows whose keys are not wanted.
fn unwanted<R: Row>(table: &mut Table<R>, wanted: &BTreeSet<String>) -> Vec<(String, R)> {
    let gone: Vec<(String, R)> = owned(table).into_iter().filter(|(key, _)| !wanted.contains(key)).collect();
    for (key, _) in &gone {
        table.remove(key);
    }
    gone
}
