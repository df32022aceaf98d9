//! What a record of a household's device shows: life, water, an opened door.

use super::super::config::{Leak, Said, Sign};
use super::super::sensor::{Before, Opened};
use super::super::words;
use super::{Care, DEVICE_OFFLINE};
use crate::model::ids::{CareName, DeviceId};
use crate::model::record::{Event, Quality, Sample, Telemetry, Value};
use crate::pipeline::Now;
use crate::pipeline::signal::Signal;
use crate::pipeline::time::minute_of_day;

/// Openings of the door that belong to one night.
const NIGHT_MS: u64 = 12 * 3_600_000;

impl Care {
    pub(super) fn event(
        &mut self,
        now: &Now,
        (event, test): (&Event, bool),
        offset_min: i32,
        signals: &mut Vec<Signal>,
    ) {
        let id = &event.device.id;
        let Some(names) = self.by_device.get(id).cloned() else { return };
        if event.name == DEVICE_OFFLINE {
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

    pub(super) fn telemetry(
        &mut self,
        now: &Now,
        (telemetry, test): (&Telemetry, bool),
        signals: &mut Vec<Signal>,
    ) {
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
            for sign in &watched.household.signals {
                let sample = good.iter().find(|(sample, _)| sign.reads(id, sample));
                let Some((_, value)) = sample else { continue };
                let Some(key) = sign.key(&name) else { continue };
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
        let key = leak.key(name);
        let mut flow = self.flows.get(&key).cloned().unwrap_or_default();
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
        self.flows.put(&key, flow);
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
            signals.push(words::night(now, &watched.household, (name, &self.directory)));
        }
        self.nights.put(name.as_str(), opened);
    }
}

impl Leak {
    /// The key of the row in which its meter's flow is kept: another meter begins anew.
    pub(super) fn key(&self, name: &CareName) -> String {
        format!("{name}/{}/{}", self.device, self.point)
    }
}

impl Sign {
    /// The key of the row in which its last value is kept, whatever else the section holds; none: an event has no value.
    pub(super) fn key(&self, name: &CareName) -> Option<String> {
        let way = match (&self.equals, self.grows_by, self.changes_by) {
            (Some(wanted), ..) => format!("equals {}", serde_json::to_string(wanted).ok()?),
            (None, Some(by), _) => format!("grows_by {by}"),
            (None, None, Some(by)) => format!("changes_by {by}"),
            (None, None, None) => return None,
        };
        Some(format!("{name}/{}/{}/{way}", self.device, self.point.as_ref()?))
    }

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

#[expect(clippy::cast_precision_loss, reason = "no meter counts beyond 52 bits")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(whole) => Some(*whole as f64),
        Value::Float(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) => None,
    }
}
