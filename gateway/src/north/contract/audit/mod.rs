//! The audit: reads what a platform receives and says where the contract is broken. Pure: no connection, no clock.
//!
//! A number is missing when it should have come (it lies between records of the live stream, or was announced as
//! pending), did not, is not pending any more, and no gap record explains it. A message bears the number before its
//! own that this platform may see, so that numbers between the two are nobody's and filtered platforms work too.
//!
//! Limits: [`IDS_MAX`] contents a class for telling a duplicate from a reused id, [`FINDINGS_MAX`] findings kept
//! (all are counted), [`VALUES_MAX`] latest values a gateway, [`GATEWAYS_MAX`] gateways.

pub mod ranges;
pub mod report;
mod track;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::envelope::{Sequenced, Unsequenced};
use super::schema::{KINDS, Kind};
use super::topics::{UpKind, UpTopic};
use super::wire::{self, Open};
use crate::model::limits::PLATFORM_PAYLOAD_BYTES_MAX;
pub use ranges::RangeSet;
pub use report::{ClassReport, Finding, FindingKind, GatewayReport, Report};
use track::{Arrival, Gateway, digest};

/// Contents remembered in one class of one epoch; the lowest numbers are forgotten first.
pub const IDS_MAX: usize = 200_000;

/// Findings kept with their text.
pub const FINDINGS_MAX: usize = 1_000;

/// Gateways audited at once; what others say is counted as unknown. Twice the largest known region.
pub const GATEWAYS_MAX: usize = 40_000;

/// Latest values remembered of one gateway: twice its points.
pub const VALUES_MAX: usize = 2 * crate::model::limits::POINTS_MAX;

/// How to audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A record of the live stream older than this is late.
    pub late_ms: u64,
    /// Listening began before the gateways' first record: every number from 1 on is expected, and every announced
    /// pending range.
    pub from_start: bool,
    /// The subscription keeps the publisher's retain flag (MQTT 5 "retain as published"), so that a state without it
    /// is a finding.
    pub retain_as_published: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { late_ms: 30_000, from_start: false, retain_as_published: false }
    }
}

/// Why an auditor cannot be made: the schemas of this program are broken.
#[derive(Debug, thiserror::Error)]
#[error("the schema of {kind} cannot be used: {error}")]
pub struct SchemaError {
    kind: &'static str,
    error: String,
}

/// A platform that does nothing but check.
#[derive(Debug)]
pub struct Auditor {
    options: Options,
    validators: BTreeMap<&'static str, jsonschema::Validator>,
    gateways: BTreeMap<String, Gateway>,
    messages: u64,
    unknown: u64,
    volatile: u64,
    last_at_ms: u64,
    counts: BTreeMap<FindingKind, u64>,
    findings: Vec<Finding>,
}

/// A message on its way through the audit.
struct Seen<'a> {
    topic: &'a UpTopic,
    name: String,
    at_ms: u64,
}

impl Auditor {
    pub fn new(options: Options) -> Result<Self, SchemaError> {
        let mut validators = BTreeMap::new();
        for kind in &KINDS {
            let validator = jsonschema::options()
                .should_validate_formats(true)
                .build(&kind.schema())
                .map_err(|error| SchemaError { kind: kind.name, error: error.to_string() })?;
            validators.insert(kind.name, validator);
        }
        Ok(Self {
            options,
            validators,
            gateways: BTreeMap::new(),
            messages: 0,
            unknown: 0,
            volatile: 0,
            last_at_ms: 0,
            counts: BTreeMap::new(),
            findings: Vec::new(),
        })
    }

    /// Takes one message as it was delivered, `at_ms` milliseconds after listening began.
    pub fn take(&mut self, topic: &str, payload: &[u8], retained: bool, at_ms: u64) {
        self.last_at_ms = self.last_at_ms.max(at_ms);
        let Some(parsed) = UpTopic::parse(topic) else {
            self.messages += 1;
            self.unknown += 1;
            return;
        };
        let name = format!("{}/v1/{}", parsed.root, parsed.gateway);
        let seen = Seen { topic: &parsed, name, at_ms };
        // An empty retained message is how somebody wipes a state; it says nothing.
        if payload.is_empty() && parsed.kind == UpKind::State {
            return;
        }
        self.messages += 1;
        if self.gateways.len() >= GATEWAYS_MAX && !self.gateways.contains_key(&seen.name) {
            self.unknown += 1;
            return;
        }
        self.check_carriage(&seen, payload.len(), retained);
        let Some(kind) = Kind::of(&parsed.kind) else {
            if parsed.kind == UpKind::Unknown {
                self.unknown += 1;
            }
            return;
        };
        match serde_json::from_slice::<Value>(payload) {
            Err(error) => self.find(&seen, FindingKind::Schema, format!("{}: no JSON: {error}", kind.name)),
            Ok(message) => self.take_message(&seen, kind, &message),
        }
    }

    /// What was found so far, holes excepted: those are known at the end.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn find(&mut self, seen: &Seen<'_>, kind: FindingKind, detail: String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, gateway: seen.name.clone(), detail, at_ms: seen.at_ms });
        }
    }

    fn check_carriage(&mut self, seen: &Seen<'_>, bytes: usize, retained: bool) {
        let what = format!("{:?}", seen.topic.kind);
        if bytes > PLATFORM_PAYLOAD_BYTES_MAX && !matches!(seen.topic.kind, UpKind::Evidence(_)) {
            self.find(seen, FindingKind::Oversize, format!("{what} of {bytes} bytes"));
        }
        let state = seen.topic.kind == UpKind::State;
        if retained && !state {
            self.find(seen, FindingKind::RetainFlag, format!("{what} was retained"));
        }
        if !retained && state && self.options.retain_as_published {
            self.find(seen, FindingKind::RetainFlag, "a state was not retained".to_owned());
        }
    }

    fn take_message(&mut self, seen: &Seen<'_>, kind: &'static Kind, message: &Value) {
        let broken: Vec<String> = self.validators.get(kind.name).map_or_else(Vec::new, |validator| {
            let errors = validator.iter_errors(message).take(3);
            errors.map(|error| format!("{} at {:?}", error, error.instance_path().to_string())).collect()
        });
        if !broken.is_empty() {
            self.find(seen, FindingKind::Schema, format!("{}: {}", kind.name, broken.join("; ")));
            return;
        }
        let source = message.get("source").and_then(Value::as_str).unwrap_or_default();
        if source != format!("/gatehouse/{}", seen.topic.gateway) {
            let detail = format!("source {source:?} on a topic of {}", seen.topic.gateway);
            self.find(seen, FindingKind::Contradiction, detail);
        }
        if message.get("test").and_then(Value::as_bool) != Some(seen.topic.test) {
            let detail = format!("`test` of a {} is not what its topic says", kind.name);
            self.find(seen, FindingKind::Contradiction, detail);
        }
        match &seen.topic.kind {
            UpKind::State => self.take_state(seen, message),
            UpKind::Snapshot => self.take_snapshot(seen, message),
            UpKind::CommandResult => self.take_answer(seen, message),
            UpKind::Telemetry | UpKind::HistoryTelemetry => self.take_telemetry(seen, message),
            UpKind::Alarm | UpKind::Event(_) | UpKind::Ledger => self.take_record(seen, message),
            UpKind::Evidence(_) | UpKind::Unknown => {}
        }
    }

    /// Reads what the schema allowed; a difference between schema and type is a finding too.
    fn read<T: DeserializeOwned>(&mut self, seen: &Seen<'_>, message: &Value) -> Option<T> {
        match T::deserialize(message) {
            Ok(read) => Some(read),
            Err(error) => {
                self.find(seen, FindingKind::Schema, error.to_string());
                None
            }
        }
    }

    fn gateway(&mut self, seen: &Seen<'_>) -> &mut Gateway {
        self.gateways.entry(seen.name.clone()).or_default()
    }

    fn take_state(&mut self, seen: &Seen<'_>, message: &Value) {
        let Some(state) = self.read::<Unsequenced<wire::State>>(seen, message) else { return };
        let from_start = self.options.from_start;
        let found = self.gateway(seen).state(&state, from_start);
        for (kind, detail) in found {
            self.find(seen, kind, detail);
        }
    }

    fn take_snapshot(&mut self, seen: &Seen<'_>, message: &Value) {
        let Some(page) = self.read::<Unsequenced<wire::Snapshot>>(seen, message) else { return };
        if let Some(detail) = self.gateway(seen).snapshot(&page) {
            self.find(seen, FindingKind::SnapshotIncomplete, detail);
        }
    }

    fn take_answer(&mut self, seen: &Seen<'_>, message: &Value) {
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let content = digest(&[message.get("data")]);
        if !self.gateway(seen).answer(&id, content) {
            self.find(seen, FindingKind::IdReused, format!("the answer {id}"));
        }
    }

    fn take_record(&mut self, seen: &Seen<'_>, message: &Value) {
        let Some(record) = self.read::<Sequenced<Value>>(seen, message) else { return };
        if let UpKind::Event(category) = &seen.topic.kind {
            let said = record.data.get("category").and_then(Value::as_str);
            if said != Some(category) {
                let detail = format!("{}: category {said:?} on the topic of {category:?}", record.id);
                self.find(seen, FindingKind::Contradiction, detail);
            }
        }
        let class = name_of(&record.class);
        if record.volatile {
            // Outside the numbering: nothing can be missing, and it comes again with its lasting id.
            self.volatile += 1;
            return;
        }
        let expected = format!("{}-{class}-{}", record.epoch, record.sequence.0);
        if record.id != expected {
            self.find(seen, FindingKind::Contradiction, format!("id {} where {expected} was due", record.id));
        }
        let content = digest(&[message.get("data"), message.get("bootid"), message.get("monotonic")]);
        let arrival = Arrival::of(&record, class, content);
        if seen.topic.kind == UpKind::Ledger
            && let Ok(gap) = serde_json::from_value::<wire::Gap>(record.data.clone())
        {
            self.gateway(seen).explained(&gap.epoch, &name_of(&gap.class), gap.from.0, gap.to.0);
        }
        self.arrived(seen, &arrival);
    }

    fn take_telemetry(&mut self, seen: &Seen<'_>, message: &Value) {
        let Some(batch) = self.read::<Sequenced<wire::Telemetry>>(seen, message) else { return };
        if batch.replay != (seen.topic.kind == UpKind::HistoryTelemetry) {
            let detail = format!("{}: `replay` {} on {:?}", batch.id, batch.replay, seen.topic.kind);
            self.find(seen, FindingKind::Contradiction, detail);
        }
        if batch.data.records.last().map(|record| record.sequence) != Some(batch.sequence) {
            let detail = format!("{}: `sequence` is not its last record's", batch.id);
            self.find(seen, FindingKind::Contradiction, detail);
        }
        let mut previous = batch.previous.0;
        let whole = batch.clone();
        for record in &batch.data.records {
            let plain = serde_json::to_value(record).ok();
            let content = digest(&[plain.as_ref(), message.get("bootid")]);
            let mut arrival = Arrival::of(&whole, name_of(&batch.class), content);
            arrival.sequence = record.sequence.0;
            arrival.previous = previous;
            previous = record.sequence.0;
            let fresh = self.arrived(seen, &arrival);
            if fresh && !batch.replay {
                self.take_values(seen, &batch.epoch, record);
            }
        }
    }

    fn take_values(&mut self, seen: &Seen<'_>, epoch: &str, record: &wire::TelemetryRecord) {
        for sample in &record.samples {
            let place = (record.device.id.clone(), sample.point.clone());
            if let Some(later) = self.gateway(seen).value(place, epoch, record.sequence.0) {
                let detail =
                    format!("{} {}: {} came after number {later}", record.device.id, sample.point, record.id);
                self.find(seen, FindingKind::LatestBackwards, detail);
            }
        }
    }

    /// Books one record; whether it was new.
    fn arrived(&mut self, seen: &Seen<'_>, arrival: &Arrival) -> bool {
        if arrival.previous >= arrival.sequence {
            let detail = format!("{}: `previous` {} is not before it", arrival.id(), arrival.previous);
            self.find(seen, FindingKind::Contradiction, detail);
            return false;
        }
        let from_start = self.options.from_start;
        let (fresh, found) = self.gateway(seen).record(arrival, from_start);
        for (kind, detail) in found {
            self.find(seen, kind, detail);
        }
        let late_ms = self.options.late_ms;
        let late = arrival.age_ms.filter(|age| fresh && !arrival.replay && *age > late_ms);
        if let Some(age) = late {
            self.find(
                seen,
                FindingKind::Late,
                format!("{} was {age} ms old in the live stream", arrival.id()),
            );
        }
        fresh
    }

    /// What is known now; holes are worked out here.
    pub fn report(&self) -> Report {
        let mut report = Report {
            messages: self.messages,
            unknown: self.unknown,
            volatile: self.volatile,
            counts: self.counts.clone(),
            findings: self.findings.clone(),
            ..Report::default()
        };
        for (name, gateway) in &self.gateways {
            let shown = gateway.report();
            for (epoch, classes) in &shown.epochs {
                for (class, class_report) in classes {
                    report.records += class_report.records;
                    report.duplicates += class_report.duplicates;
                    report.missing += class_report.missing;
                    report.pending += class_report.pending;
                    report.gaps += class_report.gaps;
                    for (from, to) in &class_report.holes {
                        let detail = format!("{epoch}-{class}-{from} to {to}");
                        let (kind, at_ms) = (FindingKind::Hole, self.last_at_ms);
                        report.findings.push(Finding { kind, gateway: name.clone(), detail, at_ms });
                    }
                    if class_report.missing > 0 {
                        *report.counts.entry(FindingKind::Hole).or_default() += class_report.missing;
                    }
                }
            }
            report.gateways.insert(name.clone(), shown);
        }
        report
    }
}

fn name_of<T: serde::Serialize>(name: &Open<T>) -> String {
    match serde_json::to_value(name) {
        Ok(Value::String(text)) => text,
        Ok(_) | Err(_) => String::new(),
    }
}
