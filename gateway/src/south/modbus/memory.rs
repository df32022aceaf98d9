//! What a device said before, and what its saying something now means: (device, memory, observation) → (drafts, refusals,
//! new memory). Pure: reads no clock, does no I/O.
//!
//! The new memory is returned, not written: whoever commits the drafts takes it over only when the commit succeeded.
//! Promise G11: a value's time is when it was read; what did not change is told again only as a fresh reading; the
//! last values of a device that fails go out once more as stale, with their age.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::point::{Loop, Reading, Said, float};
use crate::model::ids::PointName;
use crate::model::record::{
    Body, Category, Draft, Event, Quality, QualityReason, Sample, Severity, Telemetry, Text, Value,
};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::south::profile::edge::Edges;
use crate::south::profile::{EventRule, Profile, Subject};

/// Whom an observation is about.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) subject: Subject,
    pub(super) profile: Arc<Profile>,
    pub(super) unit: u8,
    pub(super) readings: Vec<Reading>,
}

/// What was seen of a device at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Observation {
    /// It answered: points as `readings` counts them.
    Said { at: Stamp, points: Vec<(usize, Said)> },
    /// It did not, and its values grow old.
    Stale { at: Stamp, reason: QualityReason },
    /// It can be reached no more, for this reason.
    Offline { at: Stamp, reason: &'static str },
}

/// What is remembered of a device between observations. Lost with the process; a rule's `at_start` says what that means.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Memory {
    edges: Edges,
    online: Option<bool>,
    /// By point, as `readings` counts them.
    told: BTreeMap<usize, Told>,
    loops: BTreeMap<usize, Loop>,
}

/// The last thing told of a point.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    value: Option<Value>,
    quality: Quality,
    reason: Option<QualityReason>,
    /// Monotonic milliseconds of the last reading that said so.
    read_ms: u64,
    /// Of the last record.
    record_ms: u64,
}

/// What an observation comes to.
#[derive(Debug, Default)]
pub(super) struct Mapped {
    /// Events first, then the values.
    pub(super) drafts: Vec<Draft>,
    pub(super) refusals: Vec<Refusal>,
    /// To be taken over when the drafts are on disk.
    pub(super) memory: Memory,
}

/// Maps one observation.
pub(super) fn map(device: &Described, memory: &Memory, seen: &Observation) -> Mapped {
    let at = match seen {
        Observation::Said { at, .. } | Observation::Stale { at, .. } | Observation::Offline { at, .. } => at,
    };
    let mapped = Mapped { memory: memory.clone(), ..Mapped::default() };
    let mut mapping = Mapping { device, at, mapped, samples: Vec::new() };
    match seen {
        Observation::Said { points, .. } => mapping.said(points),
        Observation::Stale { reason, .. } => mapping.stale(*reason),
        Observation::Offline { reason, .. } => mapping.offline(reason),
    }
    mapping.finish()
}

struct Mapping<'a> {
    device: &'a Described,
    at: &'a Stamp,
    mapped: Mapped,
    samples: Vec<Sample>,
}

impl Mapping<'_> {
    fn said(&mut self, points: &[(usize, Said)]) {
        // Nothing is online before it has spoken; now it has.
        if self.mapped.memory.online.replace(true) != Some(true) {
            self.event("device.online", Category::Device, None, BTreeMap::new(), None);
        }
        let readings = &self.device.readings;
        let known = points.iter().filter_map(|(index, said)| Some((*index, readings.get(*index)?, said)));
        let known: Vec<_> = known.collect();
        for (index, reading, said) in &known {
            let (value, reason) = match said {
                Said::Value(value) => (Some(value.clone()), None),
                Said::Loop(state) => self.supervised(*index, reading, *state),
                Said::Nothing { quality, reason } => {
                    self.mapped.refusals.push(*reason);
                    (None, Some(*quality))
                }
            };
            self.tell(*index, reading, value, reason);
        }
        // Parameters of events may be other points of the same reading, so values come first.
        for (index, reading, _) in &known {
            let value = self.mapped.memory.told.get(index).and_then(|told| told.value.clone());
            if let Some(value) = value {
                self.rules(&reading.name, &value);
            }
        }
    }

    /// A supervised loop: what its value is, and the events of the loop itself.
    fn supervised(
        &mut self,
        index: usize,
        reading: &Reading,
        state: Loop,
    ) -> (Option<Value>, Option<QualityReason>) {
        let before = self.mapped.memory.loops.insert(index, state);
        let fault = |state| match state {
            Loop::Open => Some(("line.open", "线路断路", "open circuit")),
            Loop::Short => Some(("line.shorted", "线路短路", "short circuit")),
            Loop::Normal | Loop::Active => None,
        };
        let was = before.and_then(fault);
        if before != Some(state) {
            let params = BTreeMap::from([("point".to_owned(), text(reading.name.as_str()))]);
            if let Some((name, zh, en)) = fault(state) {
                let words = Text { zh: zh.to_owned(), en: en.to_owned() };
                self.event(name, Category::Device, Some(Severity::Major), params, Some(words));
            } else if let Some((ended, ..)) = was {
                let mut params = params;
                params.insert("clears".to_owned(), text(ended));
                let words = Text { zh: "线路恢复".to_owned(), en: "circuit restored".to_owned() };
                self.event("line.restored", Category::Device, None, params, Some(words));
            }
        }
        match state {
            Loop::Normal => (Some(Value::Bool(false)), None),
            Loop::Active => (Some(Value::Bool(true)), None),
            Loop::Open => (None, Some(QualityReason::OpenCircuit)),
            Loop::Short => (None, Some(QualityReason::ShortCircuit)),
        }
    }

    /// Tells a reading if it is news, or if nothing was told for long.
    fn tell(&mut self, index: usize, reading: &Reading, value: Option<Value>, reason: Option<QualityReason>) {
        let now_ms = self.at.mono_ms;
        let quality = if reason.is_none() { Quality::Good } else { Quality::Bad };
        let heartbeat_ms = u64::try_from(reading.heartbeat.as_millis()).unwrap_or(u64::MAX);
        if let Some(told) = self.mapped.memory.told.get_mut(&index)
            && told.quality == quality
            && told.reason == reason
            && !differs(told.value.as_ref(), value.as_ref(), reading.deadband)
            && now_ms.saturating_sub(told.record_ms) < heartbeat_ms
        {
            told.read_ms = now_ms;
            return;
        }
        self.samples.push(Sample {
            point: reading.name.clone(),
            value: value.clone(),
            quality,
            reason,
            age_ms: 0,
            unit: reading.unit.clone(),
        });
        let told = Told { value, quality, reason, read_ms: now_ms, record_ms: now_ms };
        self.mapped.memory.told.insert(index, told);
    }

    fn rules(&mut self, point: &PointName, value: &Value) {
        let device = self.device;
        let rules = device.profile.events.iter().filter(|(_, rule)| rule.point.as_ref() == Some(point));
        for (name, rule) in rules {
            let matching =
                rule.wanted().is_some_and(|wanted| wanted.iter().any(|wanted| same(wanted, value)));
            if !self.mapped.memory.edges.decide(name, rule, matching, self.at.mono_ms) {
                continue;
            }
            let params = self.params(rule, point, value);
            self.event(rule.name(name), rule.category, rule.severity, params, rule.text.clone());
        }
    }

    fn params(&self, rule: &EventRule, point: &PointName, value: &Value) -> BTreeMap<String, Value> {
        let mut params = BTreeMap::from([("point".to_owned(), text(point.as_str()))]);
        if rule.equals.is_none() {
            params.insert("value".to_owned(), value.clone());
        }
        for (name, wanted) in &rule.params {
            let index = self.device.readings.iter().position(|reading| reading.name.as_str() == wanted);
            let told = index.and_then(|index| self.mapped.memory.told.get(&index));
            // A value that is not good now says nothing of now.
            let good = told.filter(|told| told.quality == Quality::Good);
            if let Some(value) = good.and_then(|told| told.value.clone()) {
                params.insert(name.clone(), value);
            }
        }
        if let Some(ended) = &rule.clears {
            params.insert("clears".to_owned(), text(ended));
        }
        params
    }

    /// The last values once more, as old as they are.
    fn stale(&mut self, reason: QualityReason) {
        let now_ms = self.at.mono_ms;
        for (index, told) in &mut self.mapped.memory.told {
            if told.quality == Quality::Stale {
                continue;
            }
            let Some(reading) = self.device.readings.get(*index) else { continue };
            told.quality = Quality::Stale;
            told.reason = Some(reason);
            self.samples.push(Sample {
                point: reading.name.clone(),
                value: told.value.clone(),
                quality: Quality::Stale,
                reason: Some(reason),
                age_ms: now_ms.saturating_sub(told.read_ms),
                unit: reading.unit.clone(),
            });
        }
    }

    fn offline(&mut self, reason: &'static str) {
        self.stale(QualityReason::Offline);
        if self.mapped.memory.online.replace(false) == Some(false) {
            return;
        }
        let severity = self.device.profile.modbus.as_ref().and_then(|modbus| modbus.severity);
        let params = BTreeMap::from([
            ("reason".to_owned(), text(reason)),
            ("unit".to_owned(), Value::Int(self.device.unit.into())),
        ]);
        self.event("device.offline", Category::Device, severity, params, None);
    }

    fn event(
        &mut self,
        name: &str,
        category: Category,
        severity: Option<Severity>,
        params: BTreeMap<String, Value>,
        text: Option<Text>,
    ) {
        let subject = &self.device.subject;
        let event = Event {
            device: subject.device.clone(),
            place: subject.place.clone(),
            category,
            name: name.to_owned(),
            severity,
            params,
            text,
        };
        self.push(Body::Event(Box::new(event)));
    }

    fn push(&mut self, body: Body) {
        let test = self.device.subject.test;
        self.mapped.drafts.push(Draft { at: self.at.clone(), test, dedup: None, body });
    }

    fn finish(mut self) -> Mapped {
        let samples = std::mem::take(&mut self.samples);
        if !samples.is_empty() {
            let subject = &self.device.subject;
            let telemetry =
                Telemetry { device: subject.device.clone(), place: subject.place.clone(), samples };
            self.push(Body::Telemetry(telemetry));
        }
        self.mapped
    }
}

impl Memory {
    /// Whether it was reached last; none before it has spoken or failed.
    pub(super) const fn online(&self) -> Option<bool> {
        self.online
    }
}

fn text(words: &str) -> Value {
    Value::Text(words.into())
}

/// Whether a value is the rule's; 1 and 1.0 are the same number.
#[expect(clippy::float_cmp, reason = "a rule names the very value")]
fn same(wanted: &Value, value: &Value) -> bool {
    match (wanted, value) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => float(wanted) == float(value),
        _ => wanted == value,
    }
}

fn differs(before: Option<&Value>, now: Option<&Value>, deadband: f64) -> bool {
    match (before, now) {
        (Some(before @ (Value::Int(_) | Value::Float(_))), Some(now @ (Value::Int(_) | Value::Float(_))))
            if deadband > 0.0 =>
        {
            (float(before) - float(now)).abs() > deadband
        }
        (before, now) => before != now,
    }
}

#[cfg(test)]
#[path = "tests/memory.rs"]
mod tests;
