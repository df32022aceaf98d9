//! How rows are made to agree with the configuration.

use super::super::life::{Life, Stage};
use super::super::sensor::{Hearing, Pulse, Recorded, Sensor};
use super::super::words;
use super::{Care, ONE, PULSE_MS, owned};
use crate::pipeline::signal::Signal;
use crate::pipeline::{Now, Out};

impl Care {
    /// Makes the rows agree with the configuration: who is new begins, who is gone or has taken consent back is forgotten.
    pub(super) fn begin(&mut self, now: &Now, signals: &mut Vec<Signal>, out: &mut Out) {
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
