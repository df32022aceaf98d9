//! Golden messages: what release 1 said, byte by byte. Never edit one; a later release adds a directory of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::super::topics::{UpKind, UpTopic};
use super::super::*;
use super::fixtures as f;
use crate::model::ids::UplinkName;
use crate::model::record::Class;
use crate::north::config::Filter;

pub(super) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn produced() -> BTreeMap<&'static str, Outgoing> {
    let all = View::open(&f::uplink());
    let hidden = f::pseudonymous();
    let now = f::stamp(1_500);
    f::framed(&all, &now, |frame| {
        let mut under_test = f::event(1_303, 200);
        under_test.test = true;
        let mut unset = f::event(2, 0);
        unset.at = f::stamp_1970();
        let (batch, taken) = telemetry_message(
            &[&f::telemetry(90_211, 0), &f::telemetry(90_212, 1_000)],
            90_210,
            false,
            frame,
        )
        .unwrap();
        assert_eq!(taken, 2);
        let (history, _) = telemetry_message(&[&f::telemetry(80_000, 0)], 79_990, true, frame).unwrap();
        let pseudonym =
            f::framed(&hidden, &now, |frame| record_message(&f::event(1_304, 300), 1_302, false, frame));
        // Another platform's people are not named to it, nor quoted.
        let other = View::with_key(&UplinkName::new("street").unwrap(), &Filter::default(), Some(&[7; 32]));
        let unnamed =
            f::framed(&other, &now, |frame| record_message(&f::alarm_handled(22), 19, false, frame));
        let send = |record, previous, replay| record_message(record, previous, replay, frame).unwrap();
        BTreeMap::from([
            ("state", state_message(&f::state(), frame)),
            ("state-will", will_message(&f::state(), frame)),
            ("snapshot", snapshot_pages(&f::snapshot(1), frame).remove(0)),
            ("alarm", send(&f::alarm(18, 1), 17, false)),
            ("event", send(&f::event(1_301, 0), 1_300, false)),
            ("event-backlog", send(&f::event(1_205, 0), 1_201, true)),
            ("event-test", send(&under_test, 1_302, false)),
            ("event-clock-unset", send(&unset, 1, true)),
            ("event-pseudonym", pseudonym.unwrap()),
            ("event-volatile", volatile_message(&f::volatile(3, 400), frame).unwrap()),
            ("alarm-volatile", volatile_message(&f::volatile_alarm(2), frame).unwrap()),
            ("gap", send(&f::gap(1_302, Class::Telemetry, 100, 199), 1_301, false)),
            ("telemetry", batch),
            ("telemetry-history", history),
            ("command-result", command_result(&f::result(), frame)),
            ("event-clock-changed", send(&f::clock_changed(1_305), 1_304, false)),
            ("state-clock", state_message(&f::clock_state(), frame)),
            ("alarm-raised", send(&f::alarm_raised(19), 18, false)),
            ("alarm-handled", send(&f::alarm_handled(22), 19, false)),
            ("alarm-acknowledged", send(&f::alarm_acknowledged(20), 19, false)),
            ("alarm-shelved", send(&f::alarm_shelved(21), 20, false)),
            ("alarm-bus", send(&f::alarm_bus(23), 22, false)),
            ("alarm-handled-unnamed", unnamed.unwrap()),
            ("snapshot-lives", snapshot_pages(&f::living_snapshot(), frame).remove(0)),
        ])
    })
}

/// File, topic below the gateway, retain: as golden as the messages.
const TOPICS: [(&str, &str, bool); 24] = [
    ("state", "up/state", true),
    ("state-will", "up/state", true),
    ("snapshot", "up/snapshot", false),
    ("alarm", "up/alarm", false),
    ("event", "up/event/emergency", false),
    ("event-backlog", "up/event/emergency", false),
    ("event-test", "up/test/event/emergency", false),
    ("event-clock-unset", "up/event/emergency", false),
    ("event-pseudonym", "up/event/emergency", false),
    ("event-volatile", "up/event/emergency", false),
    ("alarm-volatile", "up/alarm", false),
    ("gap", "up/ledger", false),
    ("telemetry", "up/telemetry", false),
    ("telemetry-history", "up/history/telemetry", false),
    ("command-result", "up/command/result", false),
    ("event-clock-changed", "up/event/device", false),
    ("state-clock", "up/state", true),
    ("alarm-raised", "up/alarm", false),
    ("alarm-handled", "up/alarm", false),
    ("alarm-acknowledged", "up/alarm", false),
    ("alarm-shelved", "up/alarm", false),
    ("alarm-bus", "up/alarm", false),
    ("alarm-handled-unnamed", "up/alarm", false),
    ("snapshot-lives", "up/snapshot", false),
];

#[test]
fn what_release_1_said_is_still_said_byte_for_byte() {
    let produced = produced();
    assert_eq!(produced.len(), TOPICS.len());
    for (name, topic, retain) in TOPICS {
        let message = &produced[name];
        assert_eq!(message.topic, format!("gatehouse/v1/box-0001/{topic}"), "{name}");
        assert_eq!(message.retain, retain, "{name}");
        let path = directory().join(format!("{name}.json"));
        // Only a message that is new may be written; an old one stands.
        if std::env::var_os("NEW_GOLDEN").is_some() && !path.exists() {
            std::fs::create_dir_all(directory()).unwrap();
            std::fs::write(&path, &message.payload).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (golden, today) = (String::from_utf8(golden).unwrap(), String::from_utf8_lossy(&message.payload));
        assert_eq!(golden, today, "{name}: platforms rely on what release 1 said");
    }
}

/// A consumer of today reads every golden message: up and down, old and new.
#[test]
fn every_golden_message_fits_its_schema() {
    let mut seen = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        let message: Value = serde_json::from_slice(&text).unwrap();
        let kind = match message.get("type").and_then(Value::as_str) {
            Some(r#type) => schema::KINDS.iter().find(|kind| kind.r#type == Some(r#type)),
            None => schema::Kind::named(path.file_stem().unwrap().to_str().unwrap()),
        };
        let kind = kind.unwrap_or_else(|| panic!("{} is of no known kind", path.display()));
        super::docs::assert_valid(kind, &message, &path.display().to_string());
        seen += 1;
    }
    assert_eq!(seen, TOPICS.len() + 3);
}

#[test]
fn a_consumer_reads_the_golden_messages_back() {
    for (name, message) in produced() {
        let topic = UpTopic::parse(&message.topic).unwrap();
        let text = message.payload.as_ref();
        let epoch = match topic.kind {
            UpKind::State => {
                serde_json::from_slice::<envelope::Unsequenced<wire::State>>(text).unwrap().epoch
            }
            UpKind::Snapshot => {
                serde_json::from_slice::<envelope::Unsequenced<wire::Snapshot>>(text).unwrap().epoch
            }
            UpKind::CommandResult => {
                serde_json::from_slice::<envelope::Unsequenced<wire::Answer>>(text).unwrap().epoch
            }
            UpKind::Alarm => serde_json::from_slice::<envelope::Sequenced<wire::Alarm>>(text).unwrap().epoch,
            UpKind::Event(_) => {
                serde_json::from_slice::<envelope::Sequenced<wire::Event>>(text).unwrap().epoch
            }
            UpKind::Ledger => serde_json::from_slice::<envelope::Sequenced<wire::Gap>>(text).unwrap().epoch,
            UpKind::Telemetry | UpKind::HistoryTelemetry => {
                serde_json::from_slice::<envelope::Sequenced<wire::Telemetry>>(text).unwrap().epoch
            }
            UpKind::Evidence(_) | UpKind::Unknown => panic!("{name}: {topic:?}"),
        };
        let expected = if name.ends_with("-volatile") { f::MEMORY_EPOCH } else { f::EPOCH };
        assert_eq!(epoch, expected.to_string(), "{name}");
    }
}

#[test]
fn what_platforms_said_to_release_1_is_still_understood() {
    let topics = f::topics();
    let read = |name: &str| std::fs::read(directory().join(format!("{name}.json"))).unwrap();
    let command = parse_down(&topics, &topics.down_command(), &read("command"), false).unwrap();
    let Down::Command(command) = command else { panic!("{command:?}") };
    assert_eq!((command.id.as_str(), command.command.as_str()), ("c-20261102-0001", "replay"));
    assert_eq!(command.issued, Issued::Wall { ms: 1_793_578_600_000 });
    assert_eq!((command.lifetime_s, command.operator.as_str()), (3_600, "duty-07"));
    let args = down::ReplayArgs::read(&command.args).unwrap();
    assert_eq!((args.epoch, args.class, args.from, args.to), (f::EPOCH, Class::Event, 1_205, 1_290));
    let receipt = parse_down(&topics, &topics.down_receipt(), &read("receipt"), false).unwrap();
    let expected = Receipt { epoch: f::EPOCH, class: Class::Event, stream: Stream::Live, upto: 1_301 };
    assert_eq!(receipt, Down::Receipt(expected));
    let time = parse_down(&topics, &topics.down_time(), &read("time"), false).unwrap();
    assert_eq!(time, Down::Time(TimeAnswer { nonce: "n-7f3a".to_owned(), wall_ms: 1_793_578_531_750 }));
}
