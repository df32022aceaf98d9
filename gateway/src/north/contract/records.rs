//! Records as messages: alarms, events, gap records one by one, telemetry in batches.

use serde_json::value::RawValue;

use super::envelope::{Label, Link, rfc3339};
use super::wire::{self, Millis, Open, Sequence};
use super::{Frame, Outgoing, Unsendable, outgoing, schema};
use crate::model::ids::Seq;
use crate::model::limits::PLATFORM_PAYLOAD_BYTES_MAX;
use crate::model::record::{Body, Record, Telemetry};
use crate::model::stamp::Stamp;

/// Records in one telemetry message, so that one message cannot carry a platform's whole minute.
pub const BATCH_RECORDS_MAX: usize = 256;

fn label(record: &Record, r#type: &'static str, frame: &Frame<'_>) -> Label {
    Label {
        id: record.id(),
        gateway: frame.topics.gateway.to_string(),
        r#type,
        epoch: record.epoch,
        test: record.test,
    }
}

fn link(record: &Record, previous: Seq, replay: bool) -> Link {
    Link { class: record.class, seq: record.seq, previous, replay, volatile: false }
}

/// An alarm, an event or a gap record as a message. `previous` is the number of the record before it in its class and
/// epoch that this uplink may see (0: none). A telemetry record becomes a batch of one.
pub fn record_message(
    record: &Record,
    previous: Seq,
    replay: bool,
    frame: &Frame<'_>,
) -> Result<Outgoing, Unsendable> {
    if let Body::Telemetry(_) = &record.body {
        return telemetry_message(&[record], previous, replay, frame).map(|(message, _one)| message);
    }
    single(record, link(record, previous, replay), frame)
}

/// An alarm or an event that is in memory only, since the disk cannot be written. Values wait for the disk.
pub fn volatile_message(record: &Record, frame: &Frame<'_>) -> Result<Outgoing, Unsendable> {
    single(record, Link { volatile: true, ..link(record, 0, false) }, frame)
}

fn single(record: &Record, place: Link, frame: &Frame<'_>) -> Result<Outgoing, Unsendable> {
    let test = record.test;
    match &record.body {
        Body::Alarm(alarm) => {
            let message = label(record, schema::ALARM, frame).sequenced(
                &record.at,
                frame,
                place,
                alarm_data(alarm, frame),
            );
            outgoing(frame.topics.alarm(test), false, &message)
        }
        Body::Event(event) => {
            let message = label(record, schema::EVENT, frame).sequenced(
                &record.at,
                frame,
                place,
                event_data(event, frame),
            );
            outgoing(frame.topics.event(test, event.category), false, &message)
        }
        Body::Gap(gap) => {
            let data = wire::Gap {
                compound: frame.compound.to_owned(),
                epoch: gap.epoch.unwrap_or(record.epoch).to_string(),
                class: Open::Known(gap.class),
                from: Sequence(gap.from),
                to: Sequence(gap.to),
                count: gap.count,
                reason: Open::Known(gap.reason),
                detail: gap.detail.clone(),
            };
            let message = label(record, schema::GAP, frame).sequenced(&record.at, frame, place, data);
            outgoing(frame.topics.ledger(test), false, &message)
        }
        Body::Telemetry(_) => Err(Unsendable::NoTelemetry),
    }
}

fn event_data(event: &crate::model::record::Event, frame: &Frame<'_>) -> wire::Event {
    wire::Event {
        compound: frame.compound.to_owned(),
        device: (&event.device).into(),
        place: frame.view.place(&event.place, frame.compound),
        category: Open::Known(event.category),
        name: event.name.clone(),
        severity: event.severity.map(Open::Known),
        params: frame.view.params(&event.params, &event.place, frame.compound),
        text: event.text.as_ref().map(Into::into),
    }
}

fn alarm_data(alarm: &crate::model::record::Alarm, frame: &Frame<'_>) -> wire::Alarm {
    let raised = event_data(&alarm.raised, frame);
    let grown = alarm.severity.filter(|_| alarm.severity != alarm.raised.severity);
    // What no rule has raised has no life beside its state.
    let lives = alarm.count > 0;
    wire::Alarm {
        compound: raised.compound,
        alarm: alarm.alarm.clone(),
        rev: alarm.rev,
        state: Open::Known(alarm.state),
        open: super::status::is_open(alarm.state),
        latched: alarm.latched,
        volatile: alarm.volatile,
        device: raised.device,
        place: raised.place,
        category: raised.category,
        name: raised.name,
        severity: alarm.severity().map(Open::Known),
        params: raised.params,
        text: raised.text,
        severity_raised: grown.and(raised.severity),
        arose: alarm.arose.as_ref().map(moment),
        shelved_until: alarm.shelved_until.as_ref().map(moment),
        rule: alarm.rule.as_ref().map(ToString::to_string),
        active: lives.then_some(alarm.active),
        count: lives.then_some(alarm.count),
        flapping: alarm.flapping,
        handling: frame.view.handling(&alarm.handling),
        change: alarm.change.as_ref().map(|change| frame.view.change(change)),
        hides: alarm.hides.iter().map(ToString::to_string).collect(),
    }
}

fn moment(at: &Stamp) -> wire::Moment {
    wire::Moment {
        time: rfc3339(at),
        bootid: at.boot.to_string(),
        monotonic: Millis(at.mono_ms),
        clocktrust: Open::Known(at.trust),
    }
}

/// A batch whose records are JSON already, so that each is encoded once.
#[derive(serde::Serialize)]
struct Batch<'a> {
    compound: &'a str,
    records: &'a [Box<RawValue>],
}

/// A telemetry message of the first of `records`, as many as fit: all of one epoch, one boot, one clock trust and one
/// `test`. Returns the message and how many were taken (at least one). `records` are those that this uplink may see,
/// in order and without others between them; `previous` is the number before the first.
pub fn telemetry_message(
    records: &[&Record],
    previous: Seq,
    replay: bool,
    frame: &Frame<'_>,
) -> Result<(Outgoing, usize), Unsendable> {
    let first = *records.first().ok_or(Unsendable::NoTelemetry)?;
    // The envelope's length does not depend on which records are in it but by a few digits, allowed for here.
    let empty = encode(first, first, previous, replay, &[], frame)?;
    let mut bytes = empty.payload.len().saturating_add(64);
    let mut entries: Vec<Box<RawValue>> = Vec::new();
    let mut last = first;
    for record in records.iter().take(BATCH_RECORDS_MAX) {
        let alike = record.epoch == first.epoch
            && record.test == first.test
            && record.at.boot == first.at.boot
            && record.at.trust == first.at.trust;
        let Body::Telemetry(telemetry) = &record.body else { break };
        if !alike {
            break;
        }
        let entry = serde_json::value::to_raw_value(&entry(record, telemetry, frame))
            .map_err(|error| Unsendable::NotJson(error.to_string()))?;
        let with = bytes.saturating_add(entry.get().len()).saturating_add(1);
        if with > PLATFORM_PAYLOAD_BYTES_MAX && !entries.is_empty() {
            break;
        }
        bytes = with;
        entries.push(entry);
        last = record;
    }
    if entries.is_empty() {
        return Err(Unsendable::NoTelemetry);
    }
    let message = encode(first, last, previous, replay, &entries, frame)?;
    Ok((message, entries.len()))
}

fn entry(record: &Record, telemetry: &Telemetry, frame: &Frame<'_>) -> wire::TelemetryRecord {
    let samples = telemetry.samples.iter().map(|sample| wire::Sample {
        point: sample.point.to_string(),
        value: sample.value.clone(),
        quality: Open::Known(sample.quality),
        reason: sample.reason.map(Open::Known),
        age_ms: (sample.age_ms > 0).then_some(sample.age_ms),
        unit: sample.unit.clone(),
    });
    wire::TelemetryRecord {
        id: record.id(),
        sequence: Sequence(record.seq),
        time: rfc3339(&record.at),
        monotonic: Millis(record.at.mono_ms),
        device: (&telemetry.device).into(),
        place: frame.view.place(&telemetry.place, frame.compound),
        samples: samples.collect(),
    }
}

/// The message's own id names both ends: the same id always means the same records.
fn encode(
    first: &Record,
    last: &Record,
    previous: Seq,
    replay: bool,
    records: &[Box<RawValue>],
    frame: &Frame<'_>,
) -> Result<Outgoing, Unsendable> {
    let mut label = label(last, schema::TELEMETRY, frame);
    label.id = format!("{}-telemetry-{}-{}", first.epoch, first.seq, last.seq);
    let data = Batch { compound: frame.compound, records };
    let message = label.sequenced(&last.at, frame, link(last, previous, replay), data);
    let topics = frame.topics;
    let topic = if replay { topics.history_telemetry(last.test) } else { topics.telemetry(last.test) };
    outgoing(topic, false, &message)
}
