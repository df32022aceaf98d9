//! Fixed inputs: the golden messages are made of these, so they never change. New cases get new functions.

use std::collections::BTreeMap;

use super::super::*;
use crate::model::alarm::{Change, ChangeKind, Handling, HandlingResult, Stage};
use crate::model::clock::{ClockChange, ClockSource, Clocks, Reckoning};
use crate::model::cursor::SeqRange;
use crate::model::ids::{BootId, DeviceId, Epoch, GatewayName, PointName, UplinkName};
use crate::model::place::Place;
use crate::model::record::*;
use crate::model::stamp::{ClockTrust, Stamp};
use crate::north::config::{Delivery, Filter, PlaceField};

pub(in crate::north::contract) const EPOCH: Epoch = Epoch(0x9f1c_22d3_7ab0_4e55);
/// Of what is in memory only.
pub(in crate::north::contract) const MEMORY_EPOCH: Epoch = Epoch(0x04d2_8a6b_e19f_7730);
pub(in crate::north::contract) const COMPOUND: &str = "xinghe-yuan";

pub(in crate::north::contract) fn topics() -> Topics {
    Topics::new("gatehouse", &GatewayName::new("box-0001").unwrap())
}

pub(in crate::north::contract) fn uplink() -> UplinkName {
    UplinkName::new("district").unwrap()
}

pub(in crate::north::contract) fn boot() -> BootId {
    BootId("5d0f6a1c9b3e4f7a8c2d1e0f9a8b7c6d".into())
}

/// 2026-11-02T08:15:30.250+08:00 and so many milliseconds later.
pub(in crate::north::contract) fn stamp(later_ms: u64) -> Stamp {
    Stamp {
        boot: boot(),
        mono_ms: 86_400_000 + later_ms,
        wall_ms: 1_793_578_530_250 + i64::try_from(later_ms).unwrap(),
        trust: ClockTrust::Ntp,
    }
}

/// A box without a battery clock, 12 s after its boot in 1970.
pub(in crate::north::contract) fn stamp_1970() -> Stamp {
    Stamp { boot: boot(), mono_ms: 12_000, wall_ms: 12_034, trust: ClockTrust::None }
}

pub(in crate::north::contract) fn place() -> Place {
    Place {
        code: Some("110105003007".to_owned()),
        grid: Some("G3".to_owned()),
        building: Some("7".to_owned()),
        unit: Some("2".to_owned()),
        floor: Some(5),
        household: Some("502".to_owned()),
    }
}

pub(in crate::north::contract) fn device(id: &str, kind: &str) -> DeviceRef {
    DeviceRef {
        id: DeviceId::new(id).unwrap(),
        kind: kind.to_owned(),
        profile: Some(crate::model::ids::ProfileName::new("z2m-sos-button").unwrap()),
        bus: Some(crate::model::ids::BusName::new("lan").unwrap()),
    }
}

pub(in crate::north::contract) fn press() -> Event {
    Event {
        device: device("sos-7-2-502", "button"),
        place: place(),
        category: Category::Emergency,
        name: "button.pressed".to_owned(),
        severity: Some(Severity::Critical),
        params: BTreeMap::from([
            ("action".to_owned(), Value::Text("emergency".into())),
            ("battery".to_owned(), Value::Int(87)),
            ("card".to_owned(), Value::Text("0011223344".into())),
        ]),
        text: Some(Text {
            zh: "紧急按钮被按下".to_owned(), en: "emergency button pressed".to_owned()
        }),
    }
}

pub(in crate::north::contract) fn record(seq: u64, at: Stamp, body: Body) -> Record {
    Record { pos: seq, epoch: EPOCH, class: body.class(), seq, at, test: false, body }
}

pub(in crate::north::contract) fn event(seq: u64, later_ms: u64) -> Record {
    record(seq, stamp(later_ms), Body::Event(Box::new(press())))
}

pub(in crate::north::contract) fn volatile(seq: u64, later_ms: u64) -> Record {
    Record { epoch: MEMORY_EPOCH, ..event(seq, later_ms) }
}

pub(in crate::north::contract) fn volatile_alarm(seq: u64) -> Record {
    let mut alarm = alarm_of(1, AlarmState::Unacknowledged);
    alarm.alarm = "04d28a6be19f7730-event-3".to_owned();
    alarm.volatile = true;
    Record { epoch: MEMORY_EPOCH, ..record(seq, stamp(401), Body::Alarm(Box::new(alarm))) }
}

pub(in crate::north::contract) fn alarm_of(rev: u64, state: AlarmState) -> Alarm {
    let alarm = Alarm::new("9f1c22d37ab04e55-a-17".to_owned(), state, press());
    Alarm { rev, latched: true, ..alarm }
}

pub(in crate::north::contract) fn alarm(seq: u64, rev: u64) -> Record {
    record(seq, stamp(40), Body::Alarm(Box::new(alarm_of(rev, AlarmState::Unacknowledged))))
}

pub(in crate::north::contract) fn gap(seq: u64, class: Class, from: u64, to: u64) -> Record {
    let gap = Gap {
        uplink: None,
        epoch: None,
        class,
        from,
        to,
        count: to - from + 1,
        reason: GapReason::Forgotten,
        detail: "telemetry budget of 512 MiB".to_owned(),
    };
    record(seq, stamp(90), Body::Gap(gap))
}

pub(in crate::north::contract) fn telemetry(seq: u64, later_ms: u64) -> Record {
    let sample = |point: &str, value: Value, unit: Option<&str>| {
        Sample::good(PointName::new(point).unwrap(), value, unit.map(str::to_owned))
    };
    let body = Telemetry {
        device: device("th-lobby-7", "climate"),
        place: Place { household: None, ..place() },
        samples: vec![
            sample("temperature", Value::Float(21.4), Some("Cel")),
            sample("humidity", Value::Int(48), Some("%")),
            sample("occupied", Value::Bool(true), None),
        ],
    };
    record(seq, stamp(later_ms), Body::Telemetry(body))
}

pub(in crate::north::contract) fn state() -> StateData {
    let ranges = vec![SeqRange { from: 1_205, to: 1_290 }, SeqRange { from: 1_300, to: 1_300 }];
    StateData {
        conn: 41,
        rev: 0,
        online: true,
        epoch: EPOCH,
        reason: StateReason::Connected,
        version: "0.1.0".to_owned(),
        started: stamp(0),
        clock: ClockState {
            corrections: vec![BootClock {
                boot: BootId("00112233445566778899aabbccddeeff".into()),
                offset_ms: 1_793_400_000_000,
                trust: ClockTrust::Ntp,
            }],
            nonce: Some("n-7f3a".to_owned()),
        },
        classes: BTreeMap::from([
            (Class::Alarm, ClassState { last: 17, live_from: 18, pending: Vec::new() }),
            (Class::Event, ClassState { last: 1_300, live_from: 1_301, pending: ranges }),
            (Class::Telemetry, ClassState { last: 90_210, live_from: 90_211, pending: Vec::new() }),
        ]),
        delivery: Delivery::Broker,
        commands: vec!["replay".to_owned()],
    }
}

/// NTP has come while the box runs, and the platform may stop telling the time.
pub(in crate::north::contract) fn clock_state() -> StateData {
    let clock = ClockState { nonce: None, ..state().clock };
    StateData { rev: 7, reason: StateReason::Clock, clock, ..state() }
}

pub(in crate::north::contract) fn clock_changed(seq: u64) -> Record {
    let at = stamp(400);
    let change = ClockChange {
        before: Some(Reckoning { offset_ms: 0, trust: ClockTrust::None }),
        source: ClockSource::Timesyncd,
        confirmed: true,
        jumped_ms: crate::model::clock::offset_ms(&at),
        withdrawn: false,
        uplink: None,
        at,
    };
    let draft = change.draft();
    record(seq, draft.at, draft.body)
}

pub(in crate::north::contract) fn snapshot(alarms: usize) -> SnapshotData {
    let alarms = (0..alarms).map(|index| {
        let seq = 17 + index as u64;
        let mut alarm = alarm_of(3, AlarmState::Acknowledged);
        alarm.alarm = format!("9f1c22d37ab04e55-a-{seq}");
        OpenAlarm { seq, test: false, alarm }
    });
    SnapshotData {
        number: 1,
        conn: 41,
        epoch: EPOCH,
        last: BTreeMap::from([(Class::Alarm, 17), (Class::Event, 1_300), (Class::Telemetry, 90_210)]),
        alarms: alarms.collect(),
    }
}

pub(in crate::north::contract) fn result() -> CommandResult {
    CommandResult {
        id: "c-20261102-0001".to_owned(),
        command: "replay".to_owned(),
        epoch: EPOCH,
        outcome: Outcome::Done,
        code: "ok".to_owned(),
        detail: "records 1205 to 1290 follow in the backlog stream".to_owned(),
        data: Some(serde_json::json!({ "class": "event", "records": 86 })),
    }
}

/// A platform that must not know who lives where.
pub(in crate::north::contract) fn pseudonymous() -> View {
    let filter = Filter { hide: vec![PlaceField::Floor], ..Filter::default() };
    View::with_key(&uplink(), &filter, Some(b"a key of thirty-two bytes or so.."))
}

/// Calls `with` with a frame at `now`.
pub(in crate::north::contract) fn framed<T>(
    view: &View,
    now: &Stamp,
    with: impl FnOnce(&Frame<'_>) -> T,
) -> T {
    let topics = topics();
    with(&Frame { topics: &topics, compound: COMPOUND, now, clocks: &Clocks::default(), view })
}

fn change(what: ChangeKind, by_platform: bool) -> Change {
    let told = |text: &str| by_platform.then(|| text.to_owned());
    Change {
        what,
        actor: told("duty-07").unwrap_or_else(|| "rule emergency-button".to_owned()),
        source: told("platform district").unwrap_or_else(|| "rule".to_owned()),
        command: told("c-20261102-0007"),
        reason: told("resident called back"),
    }
}

/// An alarm with a life: its rule, how often it came, what people did.
pub(in crate::north::contract) fn living(rev: u64, change: Change) -> Alarm {
    let raised = press();
    Alarm {
        rev,
        rule: Some(crate::model::ids::RuleName::new("emergency-button").unwrap()),
        latched: true,
        count: 1,
        change: Some(change),
        ..Alarm::new("9f1c22d37ab04e55-2210-emergency-button".to_owned(), AlarmState::Unacknowledged, raised)
    }
}

pub(in crate::north::contract) fn alarm_raised(seq: u64) -> Record {
    let alarm = living(1, change(ChangeKind::Raised, false));
    record(seq, stamp(40), Body::Alarm(Box::new(alarm)))
}

pub(in crate::north::contract) fn alarm_handled(seq: u64) -> Record {
    let handling = Handling {
        stage: Stage::Handled,
        assignee: Some("guard-2".to_owned()),
        result: Some(HandlingResult::False),
        note: Some("pressed by a visitor of 502".to_owned()),
    };
    let state = AlarmState::Acknowledged;
    let alarm = Alarm { state, count: 3, handling, ..living(5, change(ChangeKind::Handled, true)) };
    record(seq, stamp(90_000), Body::Alarm(Box::new(alarm)))
}

/// The same some time later, with when it came first.
pub(in crate::north::contract) fn alarm_acknowledged(seq: u64) -> Record {
    let state = AlarmState::Acknowledged;
    let change = change(ChangeKind::Acknowledged, true);
    let alarm = Alarm { state, arose: Some(stamp(40)), ..living(2, change) };
    record(seq, stamp(60_000), Body::Alarm(Box::new(alarm)))
}

/// Put aside for an hour.
pub(in crate::north::contract) fn alarm_shelved(seq: u64) -> Record {
    let change = change(ChangeKind::Shelved, true);
    let until = Some(stamp(60_000 + 3_600_000));
    let alarm = Alarm {
        state: AlarmState::Shelved,
        arose: Some(stamp(40)),
        shelved_until: until,
        ..living(3, change)
    };
    record(seq, stamp(60_000), Body::Alarm(Box::new(alarm)))
}

/// A bus is down, nobody has acknowledged it, and it comes and goes.
pub(in crate::north::contract) fn alarm_bus(seq: u64) -> Record {
    let mut raised = press();
    raised.device = DeviceRef::gateway(crate::model::ids::BusName::new("field").ok().as_ref());
    raised.place = Place::default();
    raised.category = Category::Device;
    raised.name = "bus.offline".to_owned();
    raised.severity = Some(Severity::Major);
    raised.params = BTreeMap::from([("hidden".to_owned(), Value::Int(2))]);
    raised.text = None;
    let escalated = Change { actor: "rule bus-offline".to_owned(), ..change(ChangeKind::Escalated, false) };
    let alarm = Alarm {
        raised,
        rule: Some(crate::model::ids::RuleName::new("bus-offline").unwrap()),
        latched: false,
        active: true,
        flapping: true,
        severity: Some(Severity::Critical),
        count: 9,
        hides: ["smoke-1", "smoke-2"].map(|id| DeviceId::new(id).unwrap()).to_vec(),
        ..living(8, escalated)
    };
    record(seq, stamp(120_000), Body::Alarm(Box::new(alarm)))
}

/// What is open, as the book of alarms lists it.
pub(in crate::north::contract) fn living_snapshot() -> SnapshotData {
    let open = |record: Record| match record.body {
        Body::Alarm(alarm) => OpenAlarm { seq: record.seq, test: false, alarm: *alarm },
        other => panic!("{other:?}"),
    };
    SnapshotData { number: 2, alarms: vec![open(alarm_handled(22)), open(alarm_bus(23))], ..snapshot(0) }
}
