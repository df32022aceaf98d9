//! Cases: what may be seen, what fits, what is said when.

use serde_json::Value as Json;

use super::super::status::LAST_REV;
use super::super::*;
use super::fixtures as f;
use crate::model::clock::{ClockChange, ClockSource, Clocks};
use crate::model::cursor::SeqRange;
use crate::model::ids::UplinkName;
use crate::model::limits::{DOWN_PAYLOAD_BYTES_MAX, PLATFORM_PAYLOAD_BYTES_MAX};
use crate::model::record::*;
use crate::model::refusal::Refusal;
use crate::model::stamp::{ClockTrust, Stamp};
use crate::north::config::{Filter, PlaceField};

fn view(filter: &Filter) -> View {
    View::with_key(&f::uplink(), filter, None)
}

fn json(message: &Outgoing) -> Json {
    serde_json::from_slice(&message.payload).unwrap()
}

fn sent(view: &View, record: &Record) -> Json {
    let now = f::stamp(1_000);
    json(&f::framed(view, &now, |frame| record_message(record, record.seq - 1, false, frame)).unwrap())
}

#[test]
fn a_filter_decides_by_class_category_and_building() {
    let (event, alarm, telemetry) = (f::event(1, 0), f::alarm(1, 1), f::telemetry(1, 0));
    let sees = |filter: Filter| {
        let view = view(&filter);
        [view.sees(&event), view.sees(&alarm), view.sees(&telemetry)]
    };
    let some = Filter::default;
    assert_eq!(sees(some()), [true, true, true]);
    assert_eq!(sees(Filter { classes: Some(vec![Class::Alarm]), ..some() }), [false, true, false]);
    // Categories are of events and alarms; values have none.
    assert_eq!(sees(Filter { categories: Some(vec![Category::Fire]), ..some() }), [false, false, true]);
    assert_eq!(sees(Filter { categories: Some(vec![Category::Emergency]), ..some() }), [true, true, true]);
    assert_eq!(sees(Filter { buildings: Some(vec!["7".to_owned()]), ..some() }), [true, true, true]);
    assert_eq!(sees(Filter { buildings: Some(vec!["8".to_owned()]), ..some() }), [false, false, false]);
    let mut placeless = f::event(1, 0);
    if let Body::Event(event) = &mut placeless.body {
        event.place.building = None;
    }
    assert!(!view(&Filter { buildings: Some(vec!["7".to_owned()]), ..some() }).sees(&placeless));
    assert!(view(&some()).sees(&placeless));
}

#[test]
fn gap_records_go_to_whom_they_concern() {
    let alarms_only = view(&Filter { classes: Some(vec![Class::Alarm]), ..Filter::default() });
    assert!(alarms_only.sees(&f::gap(1, Class::Alarm, 2, 3)), "also where events are not seen");
    assert!(!alarms_only.sees(&f::gap(1, Class::Event, 2, 3)));
    assert!(alarms_only.carries(Class::Event), "the numbering of gap records is told");
    let mut other = f::gap(1, Class::Alarm, 2, 3);
    if let Body::Gap(gap) = &mut other.body {
        gap.uplink = Some(crate::model::ids::UplinkName::new("police").unwrap());
    }
    assert!(!alarms_only.sees(&other));
}

#[test]
fn a_household_is_hidden_or_pseudonymous() {
    let plain = sent(&view(&Filter::default()), &f::event(1, 0));
    assert_eq!(plain.pointer("/data/place/household"), Some(&Json::from("502")));
    let hidden =
        sent(&view(&Filter { hide: vec![PlaceField::Household], ..Filter::default() }), &f::event(1, 0));
    assert_eq!(hidden.pointer("/data/place/household"), None);
    assert_eq!(hidden.pointer("/data/place/building"), Some(&Json::from("7")));

    let first = sent(&f::pseudonymous(), &f::event(1, 0));
    let again = sent(&f::pseudonymous(), &f::event(2, 0));
    let household = first.pointer("/data/place/household").and_then(Json::as_str).unwrap();
    assert!(household.starts_with("p-") && household.len() == 34, "{household}");
    assert_eq!(again.pointer("/data/place/household").and_then(Json::as_str), Some(household));
    assert!(!first.to_string().contains("0011223344"), "the card number got out: {first}");

    // The same number in another building is another household, and another key gives another pseudonym.
    let mut elsewhere = f::event(3, 0);
    if let Body::Event(event) = &mut elsewhere.body {
        event.place.building = Some("8".to_owned());
    }
    let elsewhere = sent(&f::pseudonymous(), &elsewhere);
    assert_ne!(elsewhere.pointer("/data/place/household").and_then(Json::as_str), Some(household));
    let other = View::with_key(&f::uplink(), &Filter::default(), Some(b"another key of some bytes"));
    assert_ne!(
        sent(&other, &f::event(1, 0)).pointer("/data/place/household").and_then(Json::as_str),
        Some(household)
    );
    assert!(!format!("{:?}", f::pseudonymous()).contains("thirty"), "the key stays out of logs");
}

#[test]
fn peoples_words_about_an_alarm_stay_with_whom_may_know_the_household() {
    let said = |filter: &Filter, uplink: &str| {
        let view = View::with_key(&UplinkName::new(uplink).unwrap(), filter, None);
        sent(&view, &f::alarm_handled(22))
    };
    let hide = Filter { hide: vec![PlaceField::Household], ..Filter::default() };
    let open = said(&Filter::default(), "street");
    assert_eq!(open.pointer("/data/handling/note"), Some(&Json::from("pressed by a visitor of 502")));
    let other = said(&hide, "street");
    assert_eq!(other["data"]["handling"], serde_json::json!({ "stage": "handled", "result": "false" }));
    let change = serde_json::json!({ "what": "handled", "source": "platform district" });
    assert_eq!(other["data"]["change"], change);
    for word in ["visitor", "guard-2", "duty-07", "called back", "c-20261102-0007"] {
        assert!(!other.to_string().contains(word), "{word}: {other}");
    }
    // Its own order comes back to a platform as it gave it.
    let own = said(&hide, "district");
    assert_eq!(own.pointer("/data/change/reason"), Some(&Json::from("resident called back")));
    assert_eq!(own.pointer("/data/handling/note"), None);
}

#[test]
fn ticks_go_to_nobody() {
    let tick = crate::model::command::tick(&f::stamp(0));
    let record = f::record(9, tick.at, tick.body);
    assert!(!View::open(&f::uplink()).sees(&record));
}

#[test]
fn an_alarm_tells_its_severity_of_now_and_what_it_was() {
    let sent = sent(&View::open(&f::uplink()), &f::alarm_bus(23));
    assert_eq!(sent.pointer("/data/severity"), Some(&Json::from("critical")));
    assert_eq!(sent.pointer("/data/severity_raised"), Some(&Json::from("major")));
    assert_eq!(sent.pointer("/data/hides"), Some(&serde_json::json!(["smoke-1", "smoke-2"])));
}

#[test]
fn a_pseudonym_key_is_read_or_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let load =
        || View::load(&f::uplink(), &Filter { pseudonym_key_file: Some(path.clone()), ..Filter::default() });
    assert!(matches!(load(), Err(ViewError::Unreadable { .. })));
    std::fs::write(&path, "short\n").unwrap();
    assert!(matches!(load(), Err(ViewError::KeyLength { bytes: 5, .. })));
    std::fs::write(&path, vec![b'x'; 5_000]).unwrap();
    assert!(matches!(load(), Err(ViewError::KeyLength { bytes: 5_000, .. })));
    std::fs::write(&path, "a key of thirty-two bytes or so..\n").unwrap();
    assert_eq!(sent(&load().unwrap(), &f::event(1, 0)), {
        let bare =
            View::with_key(&f::uplink(), &Filter::default(), Some(b"a key of thirty-two bytes or so.."));
        sent(&bare, &f::event(1, 0))
    });
}

#[test]
fn time_is_told_only_when_the_clock_is_trusted() {
    let mut record = f::event(1, 0);
    record.at = f::stamp_1970();
    let message = sent(&View::open(&f::uplink()), &record);
    assert_eq!(message.get("time"), None);
    assert_eq!(message["monotonic"], "12000");
    // Of an earlier boot and without a trusted clock nobody knows the age.
    record.at.boot = crate::model::ids::BootId("f".repeat(32).into());
    assert_eq!(sent(&View::open(&f::uplink()), &record).get("age"), None);
    record.at = f::stamp(0);
    assert_eq!(sent(&View::open(&f::uplink()), &record)["time"], "2026-11-02T00:15:30.250Z");
    for wall_ms in [i64::MIN, -1, 253_402_300_800_000, i64::MAX] {
        record.at.wall_ms = wall_ms;
        assert_eq!(sent(&View::open(&f::uplink()), &record).get("time"), None, "{wall_ms}");
    }
}

/// A record is told as it was stamped, whatever is known by now; only its age gets better.
#[test]
fn a_clock_that_was_mended_later_gives_an_age_and_changes_no_stamp() {
    let mut record = f::event(1, 0);
    record.at = f::stamp_1970();
    record.at.boot = crate::model::ids::BootId("f".repeat(32).into());
    let (view, now, topics) = (View::open(&f::uplink()), f::stamp(0), f::topics());
    let say = |clocks: &Clocks| {
        let frame = Frame { topics: &topics, compound: "c", now: &now, clocks, view: &view };
        json(&record_message(&record, 0, true, &frame).unwrap())
    };
    let before = say(&Clocks::default());
    let mut clocks = Clocks::default();
    let happened_ms = now.wall_ms - 3_000;
    let offset_ms = happened_ms - i64::try_from(record.at.mono_ms).unwrap();
    clocks.note(&ClockChange {
        at: Stamp {
            wall_ms: 60_000 + offset_ms,
            mono_ms: 60_000,
            trust: ClockTrust::Platform,
            ..record.at.clone()
        },
        source: ClockSource::Platform,
        confirmed: false,
        before: None,
        jumped_ms: 0,
        withdrawn: false,
        uplink: None,
    });
    let mut after = say(&clocks);
    assert_eq!(after["age"], 3_000);
    after.as_object_mut().unwrap().remove("age");
    assert_eq!(after, before);
}

#[test]
fn an_age_beyond_cloudevents_is_capped() {
    let mut record = f::event(1, 0);
    record.at.mono_ms = 0;
    let mut now = f::stamp(0);
    now.mono_ms = u64::MAX;
    let view = View::open(&f::uplink());
    let message = f::framed(&view, &now, |frame| record_message(&record, 0, true, frame)).unwrap();
    assert_eq!(json(&message)["age"], 2_147_483_647);
}

#[test]
fn what_does_not_fit_is_said_not_cut() {
    let mut record = f::event(1, 0);
    if let Body::Event(event) = &mut record.body {
        event.params.insert("long".to_owned(), Value::Text("x".repeat(17_000).into()));
    }
    let view = View::open(&f::uplink());
    let result = f::framed(&view, &f::stamp(0), |frame| record_message(&record, 0, false, frame));
    assert!(matches!(result, Err(Unsendable::TooLarge { bytes }) if bytes > 17_000), "{result:?}");
    let mut wide = f::telemetry(1, 0);
    if let Body::Telemetry(telemetry) = &mut wide.body {
        telemetry.samples[0].value = Some(Value::Text("x".repeat(17_000).into()));
    }
    let batch = f::framed(&view, &f::stamp(0), |frame| {
        let after = f::telemetry(2, 0);
        let before = telemetry_message(&[&after, &wide], 0, false, frame).unwrap();
        assert_eq!(before.1, 1, "the record before it goes alone");
        (telemetry_message(&[&wide, &after], 0, false, frame), telemetry_message(&[], 0, false, frame))
    });
    assert!(matches!(batch.0, Err(Unsendable::TooLarge { .. })));
    assert_eq!(batch.1.unwrap_err(), Unsendable::NoTelemetry);
}

#[test]
fn a_batch_ends_where_test_epoch_boot_or_trust_change() {
    let view = View::open(&f::uplink());
    let taken = |change: fn(&mut Record)| {
        let mut second = f::telemetry(2, 0);
        change(&mut second);
        let records = [&f::telemetry(1, 0), &second, &f::telemetry(3, 0)];
        f::framed(&view, &f::stamp(0), |frame| telemetry_message(&records, 0, false, frame)).unwrap()
    };
    assert_eq!(taken(|_same| ()).1, 3);
    assert_eq!(taken(|record| record.test = true).1, 1);
    assert_eq!(taken(|record| record.epoch.0 += 1).1, 1);
    assert_eq!(taken(|record| record.at.trust = ClockTrust::Rtc).1, 1);
    assert_eq!(taken(|record| record.at.boot = crate::model::ids::BootId("e".repeat(32).into())).1, 1);
    let mut under_test = f::telemetry(1, 0);
    under_test.test = true;
    let topics: Vec<String> = [false, true]
        .map(|replay| {
            f::framed(&view, &f::stamp(0), |frame| record_message(&under_test, 0, replay, frame))
                .unwrap()
                .topic
        })
        .into();
    assert_eq!(
        topics,
        ["gatehouse/v1/box-0001/up/test/telemetry", "gatehouse/v1/box-0001/up/test/history/telemetry"]
    );
}

#[test]
fn the_last_word_of_a_connection_comes_after_all_its_states() {
    let view = View::open(&f::uplink());
    let say = |state: &StateData| f::framed(&view, &f::stamp(0), |frame| json(&state_message(state, frame)));
    let talkative = StateData { rev: u64::MAX, ..f::state() };
    assert!(say(&talkative)["data"]["rev"].as_u64() < Some(LAST_REV));
    let goodbye = StateData { online: false, reason: StateReason::Shutdown, ..f::state() };
    assert_eq!(say(&goodbye)["data"]["rev"], LAST_REV);
    let will = f::framed(&view, &f::stamp(0), |frame| will_message(&f::state(), frame));
    assert!(will.retain && will.topic.ends_with("/up/state"));
    let will = json(&will);
    assert_eq!(
        (will.get("time"), &will["data"]["online"], &will["data"]["reason"]),
        (None, &false.into(), &"lost".into())
    );
    assert_eq!(will["data"]["conn"], 41);
}

#[test]
fn a_state_tells_a_filtered_platform_its_share() {
    let filter = Filter {
        classes: Some(vec![Class::Alarm]),
        hide: vec![PlaceField::Floor],
        buildings: Some(vec!["7".to_owned(), "8".to_owned()]),
        ..Filter::default()
    };
    let message = f::framed(&view(&filter), &f::stamp(0), |frame| json(&state_message(&f::state(), frame)));
    assert_eq!(
        message["data"]["shared"],
        serde_json::json!({
            "classes": ["alarm"], "buildings": 2, "hidden": ["floor"], "pseudonyms": false
        })
    );
    let classes: Vec<&String> = message["data"]["classes"].as_object().unwrap().keys().collect();
    assert_eq!(classes, ["alarm", "event"], "gap records are numbered as events");
}

#[test]
fn a_state_with_countless_ranges_fits_and_announces_them_all() {
    let view = View::open(&f::uplink());
    let pending: Vec<SeqRange> =
        (0..5_000).map(|index| SeqRange { from: index * 10 + 1, to: index * 10 + 3 }).collect();
    let class = ClassState { last: 60_000, live_from: 60_001, pending: pending.clone() };
    let state = StateData { classes: Class::ALL.map(|name| (name, class.clone())).into(), ..f::state() };
    let message = f::framed(&view, &f::stamp(0), |frame| state_message(&state, frame));
    assert!(message.payload.len() <= PLATFORM_PAYLOAD_BYTES_MAX, "{}", message.payload.len());
    let read: envelope::Unsequenced<wire::State> = serde_json::from_slice(&message.payload).unwrap();
    for progress in read.data.classes.values() {
        let all = pending.iter().all(|range| {
            progress.pending.iter().any(|told| told.from.0 <= range.from && range.to <= told.to.0)
        });
        assert!(all && progress.pending.len() > 1, "a pending range was not announced");
    }
}

#[test]
fn a_snapshot_pages_and_hides() {
    let view_all = View::open(&f::uplink());
    let pages = |snapshot: &SnapshotData, view: &View| {
        f::framed(view, &f::stamp(0), |frame| snapshot_pages(snapshot, frame))
    };
    assert_eq!(pages(&f::snapshot(0), &view_all).len(), 1, "no alarms still give a page");
    let many = pages(&f::snapshot(1_000), &view_all);
    let mut alarms = Vec::new();
    for (message, number) in many.iter().zip(1_u32..) {
        assert!(message.payload.len() <= PLATFORM_PAYLOAD_BYTES_MAX && !message.retain);
        let page: envelope::Unsequenced<wire::Snapshot> = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((page.data.page, page.data.pages as usize), (number, many.len()));
        alarms.extend(page.data.alarms.into_iter().map(|alarm| alarm.sequence.0));
    }
    assert_eq!(alarms, (17..1_017).collect::<Vec<u64>>());

    let mut mixed = f::snapshot(3);
    mixed.alarms[0].test = true;
    mixed.alarms[1].alarm.state = AlarmState::Normal;
    let mixed = pages(&mixed, &view_all);
    let topics: Vec<&str> = mixed.iter().map(|page| page.topic.as_str()).collect();
    assert_eq!(topics, ["gatehouse/v1/box-0001/up/snapshot", "gatehouse/v1/box-0001/up/test/snapshot"]);
    assert_eq!(
        json(&mixed[0])["data"]["alarms"].as_array().unwrap().len(),
        1,
        "a closed alarm is not listed"
    );
    let fire = view(&Filter { categories: Some(vec![Category::Fire]), ..Filter::default() });
    assert_eq!(json(&pages(&f::snapshot(3), &fire)[0])["data"]["alarms"], serde_json::json!([]));
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let view = View::open(&f::uplink());
    let long =
        CommandResult { data: Some("x".repeat(20_000).into()), detail: "d".repeat(90_000), ..f::result() };
    let message = f::framed(&view, &f::stamp(0), |frame| command_result(&long, frame));
    assert!(message.payload.len() <= PLATFORM_PAYLOAD_BYTES_MAX);
    let answer = json(&message);
    assert_eq!((answer["data"].get("data"), &answer["data"]["truncated"]), (None, &true.into()));
}

#[test]
fn two_refusals_of_one_command_are_two_messages() {
    let view = View::open(&f::uplink());
    let id = |code: &str| {
        let refused =
            CommandResult { outcome: Outcome::Rejected, code: code.to_owned(), data: None, ..f::result() };
        json(&f::framed(&view, &f::stamp(0), |frame| command_result(&refused, frame)))["id"].to_string()
    };
    assert_eq!(id("too_often"), id("too_often"), "a repetition");
    assert_ne!(id("too_often"), id("command_not_allowed"), "by another command of the same id");
}

fn command(change: impl FnOnce(&mut Json)) -> Result<Command, (Refusal, String)> {
    let mut message: Json =
        serde_json::from_slice(&std::fs::read(super::golden::directory().join("command.json")).unwrap())
            .unwrap();
    change(&mut message);
    let topics = f::topics();
    parse_down(&topics, &topics.down_command(), message.to_string().as_bytes(), false).map(
        |down| match down {
            Down::Command(command) => command,
            other => panic!("{other:?}"),
        },
    )
}

#[test]
fn a_broken_command_is_refused_by_name() {
    type Break = fn(&mut Json);
    let cases: [(Break, &str); 14] = [
        (|m| drop(m.as_object_mut().unwrap().remove("operator")), "operator"),
        (|m| drop(m.as_object_mut().unwrap().remove("reason")), "reason"),
        (|m| drop(m.as_object_mut().unwrap().remove("issued")), "issued"),
        (|m| m["operator"] = " ".into(), "operator"),
        (|m| m["operator"] = "a\nb".into(), "control"),
        (|m| m["reason"] = "x".repeat(2_000).into(), "reason"),
        (|m| m["id"] = "".into(), "id"),
        (|m| m["id"] = "a b".into(), "id"),
        (|m| m["id"] = "x".repeat(65).into(), "id"),
        (|m| m["command"] = "Open Door".into(), "command"),
        (|m| m["lifetime_s"] = 0.into(), "lifetime_s"),
        (|m| m["lifetime_s"] = (-5).into(), "invalid value"),
        (|m| m["issued"]["bootid"] = "0".repeat(32).into(), "either"),
        (|m| m["args"] = 5.into(), "args"),
    ];
    for (change, named) in cases {
        let refused = command(change).unwrap_err();
        assert!(refused.0 == Refusal::DownMalformed && refused.1.contains(named), "{named}: {refused:?}");
    }
    assert!(command(|m| m["issued"]["time"] = "yesterday".into()).unwrap_err().1.contains("issued.time"));
    assert!(command(|m| m["issued"]["time"] = "2026-11-02T08:00:00".into()).is_err(), "no offset, no moment");
    assert!(command(|m| m["added"] = Json::from(vec![1])).is_ok(), "later releases may add fields");
    let (chief, why) = ("值班长".repeat(42), "因".repeat(1_024));
    assert_eq!(
        command(|m| m["operator"] = chief.clone().into()).unwrap().operator,
        chief,
        "counted as schemas do"
    );
    assert_eq!(command(|m| m["reason"] = why.clone().into()).unwrap().reason, why);
    assert!(command(|m| m["reason"] = format!("{why}因").into()).is_err());
    assert!(command(|m| m["signature"] = serde_json::json!({"alg": "x"})).unwrap().signature.is_some());
}

#[test]
fn what_is_no_message_of_the_contract_is_refused() {
    let topics = f::topics();
    let refusal =
        |topic: &str, payload: &[u8], retained| parse_down(&topics, topic, payload, retained).unwrap_err().0;
    let command = topics.down_command();
    let good = std::fs::read(super::golden::directory().join("command.json")).unwrap();
    assert_eq!(refusal("gatehouse/v1/box-0001/down/later", b"{}", false), Refusal::TopicUnknown);
    assert_eq!(refusal("gatehouse/v1/box-0002/down/command", &good, false), Refusal::TopicUnknown);
    assert_eq!(refusal(&command, &good, true), Refusal::DownRetained);
    assert_eq!(refusal(&command, &vec![b' '; 16 * 1024 + 1], false), Refusal::DownTooLarge);
    assert_eq!(refusal(&command, b"\xff\xfe", false), Refusal::NotUtf8);
    assert_eq!(refusal(&command, b"", false), Refusal::NotJson);
    assert_eq!(refusal(&command, b"[", false), Refusal::NotJson);
    assert_eq!(refusal(&command, b"[]", false), Refusal::DownMalformed);
    assert_eq!(refusal(&command, "[".repeat(33).as_bytes(), false), Refusal::JsonTooDeep);
    let quoted = format!("{{\"id\":\"{}\"}}", "[".repeat(100));
    assert_eq!(
        refusal(&command, quoted.as_bytes(), false),
        Refusal::DownMalformed,
        "brackets in a text are text"
    );
}

#[test]
fn a_refused_command_is_answered_if_it_can_be() {
    let topics = f::topics();
    let answer = |topic: &str, payload: &[u8], retained: bool| {
        let refused = parse_down(&topics, topic, payload, retained).unwrap_err();
        answer_to_refused(&topics, topic, payload, &refused, f::EPOCH)
    };
    let good = std::fs::read(super::golden::directory().join("command.json")).unwrap();
    let retained = answer(&topics.down_command(), &good, true).unwrap();
    assert_eq!((retained.id.as_str(), retained.code.as_str()), ("c-20261102-0001", "down_retained"));
    assert_eq!((retained.command.as_str(), retained.outcome), ("replay", Outcome::Rejected));
    let short = answer(&topics.down_command(), br#"{"id":"a","command":7}"#, false).unwrap();
    assert_eq!((short.id.as_str(), short.command.as_str()), ("a", ""));
    let deep = format!(r#"{{"more":{}{},"id":"b"}}"#, "[".repeat(2_000), "]".repeat(2_000));
    let large = format!(r#"{{"more":"{}","id":"b"}}"#, "x".repeat(DOWN_PAYLOAD_BYTES_MAX));
    let garbled: &[u8] = b"{\"id\":\"b\",\"reason\":\"\xff\"}";
    for (payload, code) in
        [(deep.as_bytes(), "json_too_deep"), (large.as_bytes(), "down_too_large"), (garbled, "not_utf8")]
    {
        let answered = answer(&topics.down_command(), payload, false).expect(code);
        assert_eq!((answered.id.as_str(), answered.code.as_str()), ("b", code));
    }
    let twice = br#"{"id":"c","command":"door.open","issued":{"time":"2026-11-02T08:00:00Z"},"lifetime_s":9,
        "operator":"o","reason":"r","args":{"door":"door-1","door":"door-2"}}"#;
    let answered = answer(&topics.down_command(), twice, false).unwrap();
    assert!(answered.code == "down_malformed" && answered.detail.contains("twice"), "{answered:?}");
    assert_eq!(answer(&topics.down_command(), b"{}", false), None);
    assert_eq!(answer(&topics.down_command(), br#"{"id":"a/b"}"#, false), None);
    assert_eq!(answer(&topics.down_receipt(), br#"{"id":"a"}"#, false), None);
}

#[test]
fn the_age_of_a_command_is_judged_by_the_clock_it_names() {
    use super::super::down::Lease;
    let now = f::stamp(0);
    let issued = |issued: Issued| Command { issued, lifetime_s: 10, ..command(|_same| ()).unwrap() };
    let wall = |ms: i64| issued(Issued::Wall { ms: now.wall_ms - ms });
    assert_eq!(wall(3_000).lease(&now), Lease::Valid { age_ms: 3_000 });
    assert_eq!(wall(10_000).lease(&now), Lease::Valid { age_ms: 10_000 });
    assert_eq!(wall(10_001).lease(&now), Lease::Expired { age_ms: Some(10_001) });
    assert_eq!(wall(-60_000).lease(&now), Lease::Valid { age_ms: 0 });
    assert_eq!(wall(-60_001).lease(&now), Lease::Future { by_ms: 60_001 });
    assert_eq!(
        issued(Issued::Wall { ms: i64::MIN }).lease(&now),
        Lease::Expired { age_ms: Some(u64::MAX / 2 + 1 + now.wall_ms.unsigned_abs()) }
    );
    let mut unset = now.clone();
    unset.trust = ClockTrust::None;
    assert_eq!(wall(3_000).lease(&unset), Lease::Unjudged);
    let own = |boot, mono_ms| issued(Issued::Box { boot, mono_ms });
    assert_eq!(own(f::boot(), now.mono_ms - 500).lease(&unset), Lease::Valid { age_ms: 500 });
    assert_eq!(own(f::boot(), now.mono_ms - 11_000).lease(&unset), Lease::Expired { age_ms: Some(11_000) });
    assert_eq!(
        own(crate::model::ids::BootId("0".repeat(32).into()), 0).lease(&now),
        Lease::Expired { age_ms: None }
    );
}

#[test]
fn the_arguments_of_a_replay_are_checked() {
    let args = |from: Json, to: Json| {
        let args =
            serde_json::json!({ "epoch": f::EPOCH.to_string(), "class": "alarm", "from": from, "to": to });
        super::super::down::ReplayArgs::read(&args)
    };
    assert_eq!(args("0000000000000007".into(), 9.into()).map(|range| (range.from, range.to)), Ok((7, 9)));
    for (from, to) in [
        (Json::from(0), 5.into()),
        (9.into(), 7.into()),
        ("+1".into(), 2.into()),
        (Json::from(1.5), 2.into()),
    ] {
        let refused = args(from, to).unwrap_err();
        assert!(refused.0 == Refusal::DownMalformed && refused.1.contains("args"), "{refused:?}");
    }
}
