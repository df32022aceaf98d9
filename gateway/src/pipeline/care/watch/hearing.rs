//! Which sensor is heard, which is silent, and which bus says why.

use super::super::sensor::{Down, Hearing};
use super::super::words;
use super::{Care, owned};
use crate::model::ids::{BusName, CareName, DeviceId};
use crate::model::record::Event;
use crate::pipeline::Now;
use crate::pipeline::signal::Signal;

impl Care {
    pub(super) fn bus(&mut self, now: &Now, event: &Event) {
        let Some(bus) = &event.device.bus else { return };
        match event.name.as_str() {
            "bus.offline" => self.buses.put(bus.as_str(), Down { since: now.at.clone() }),
            "bus.online" => self.bus_back(now, bus),
            _ => {}
        }
    }

    /// A device speaks, whoever's it is: the bus that it hangs on works, whether or not that was told. After a restart nobody
    /// tells.
    pub(super) fn bus_works(&mut self, now: &Now, device: &DeviceId) {
        if self.buses.len() == 0 {
            return;
        }
        let Some(bus) = self.bus_of(device.as_str()).cloned() else { return };
        let Some(Down { since }) = self.buses.get(bus.as_str()) else { return };
        // What was on its way before the bus went down proves nothing.
        if since.boot != now.at.boot || since.mono_ms < now.at.mono_ms {
            self.bus_back(now, &bus);
        }
    }

    fn bus_back(&mut self, now: &Now, bus: &BusName) {
        self.buses.remove(bus.as_str());
        for (id, mut sensor) in owned(&self.sensors) {
            if self.bus_of(&id).is_some_and(|on| on == bus) {
                sensor.bus_back(now.t_ms);
                self.sensors.put(&id, sensor);
            }
        }
    }

    pub(super) fn bus_of(&self, device: &str) -> Option<&BusName> {
        self.directory.devices.get(device)?.bus.as_ref()
    }

    pub(super) fn heard(&mut self, now: &Now, id: &DeviceId, signals: &mut Vec<Signal>) {
        let Some(mut sensor) = self.sensors.get(id.as_str()).cloned() else { return };
        let before = sensor.heard(now.t_ms);
        self.sensors.put(id.as_str(), sensor);
        let Some(before) = before else { return };
        if before == Hearing::Told {
            signals.push(words::clear(words::SENSOR_OFFLINE, id.as_str(), now));
        }
        for name in self.by_device.get(id).cloned().unwrap_or_default() {
            self.look(now, &name);
        }
    }

    pub(super) fn silent(&mut self, now: &Now, id: &str, signals: &mut Vec<Signal>) {
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
            self.look(now, &name);
        }
    }

    /// Whether a household is blind follows from its sensors as they are now.
    pub(super) fn look(&mut self, now: &Now, name: &CareName) {
        let Some(watched) = self.watched.get(name) else { return };
        let Some(mut life) = self.lives.get(name.as_str()).cloned() else { return };
        let sensors = watched.household.sensors();
        let sensors = sensors.into_iter().filter_map(|id| self.sensors.get(id.as_str()));
        let deaf = sensors.filter(|sensor| sensor.hearing != Hearing::Heard);
        match deaf.map(|sensor| sensor.heard_ms).min() {
            Some(since_ms) => life.blind(since_ms, &watched.terms),
            None => life.sighted(now.t_ms, &watched.terms),
        }
        self.lives.put(name.as_str(), life);
    }
}
