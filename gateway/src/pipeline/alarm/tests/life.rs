//! One alarm: raised, seen, handled, put aside, raised again.

use super::*;

fn bench() -> Bench {
    Bench::new(&AlarmConfig::default())
}

fn handle(result: HandlingResult) -> AlarmVerb {
    AlarmVerb::Handle { result, note: "nobody there".to_owned() }
}

#[test]
fn a_latched_alarm_needs_a_person_to_the_end() {
    let mut bench = bench();
    let press = Raise { lasts: false, latched: true, ..raise("button", "sos-1") };
    bench.raise(&press);
    let id = bench.only().unwrap().alarm;
    assert_eq!(id, format!("{EPOCH}-1-button"));
    assert_eq!(bench.order(&id, Some(1), AlarmVerb::Acknowledge), Verdict::Done { rev: 2 });
    assert_eq!(bench.only().unwrap().state, AlarmState::Acknowledged);
    bench.pass(100 * 24 * HOUR_MS);
    assert_eq!(bench.only().unwrap().rev, 2, "acknowledging alone ends nothing");
    assert_eq!(bench.order(&id, Some(1), handle(HandlingResult::False)), Verdict::Outdated { rev: 2 });
    assert_eq!(bench.order(&id, Some(2), handle(HandlingResult::False)), Verdict::Done { rev: 3 });
    assert_eq!(bench.order(&id, Some(3), AlarmVerb::Close), Verdict::Done { rev: 4 });
    assert_eq!(bench.only(), None);
    assert_eq!(bench.order(&id, None, AlarmVerb::Close), Verdict::Unknown);
    let last = &bench.told.last().unwrap().alarm;
    assert_eq!((last.state, last.handling.stage), (AlarmState::Normal, Stage::Closed));
    assert_eq!(last.handling.result, Some(HandlingResult::False));
    assert_eq!(last.arose, bench.told[0].alarm.arose, "the last message alone says since when");
    assert!(last.arose.is_some());
    let change = last.change.as_ref().unwrap();
    assert_eq!((change.actor.as_str(), change.source.as_str()), ("duty-07", "platform district"));
}

#[test]
fn a_fire_cannot_be_closed_while_it_burns_but_a_broken_sensor_can() {
    let mut bench = bench();
    bench.raise(&raise("smoke", "s-1"));
    let Verdict::Impossible(why) = bench.obey(AlarmVerb::Close) else { panic!("closed") };
    assert!(why.contains("still holds"), "{why}");
    assert!(matches!(bench.obey(AlarmVerb::TakeOutOfService), Verdict::Done { .. }));
    assert!(matches!(bench.obey(AlarmVerb::Close), Verdict::Done { .. }));
    assert_eq!(bench.only(), None);
}

#[test]
fn a_stuck_button_makes_few_records_and_every_press_counts() {
    let mut bench = bench();
    let press = Raise { lasts: false, latched: true, ..raise("button", "sos-1") };
    for _ in 0..600 {
        bench.raise(&press);
        bench.pass(500);
    }
    bench.pass(60_000);
    let told = bench.told.len();
    assert!((6..=8).contains(&told), "{told} records of five minutes");
    assert_eq!(bench.only().unwrap().count, 600, "a press was not told in the end");
    assert_eq!(bench.changes()[1], ChangeKind::RaisedAgain, "the second press is told at once");
    assert_eq!(bench.told[1].t_ms, 500);
}

#[test]
fn what_comes_after_the_cooldown_is_new_to_whoever_had_seen_it() {
    let mut bench = bench();
    let press = Raise { lasts: false, latched: true, ..raise("button", "sos-1") };
    bench.raise(&press);
    bench.obey(handle(HandlingResult::Nothing));
    bench.pass(10_000);
    bench.raise(&press);
    assert_eq!(bench.only().unwrap().state, AlarmState::Acknowledged, "within the cooldown it only counts");
    bench.pass(COOLDOWN_MS);
    bench.raise(&press);
    let alarm = bench.only().unwrap();
    assert_eq!((alarm.state, alarm.count), (AlarmState::Unacknowledged, 3));
    assert_eq!((alarm.handling.stage, alarm.handling.result), (Stage::Open, None));
}

#[test]
fn what_comes_soon_after_it_was_closed_is_remembered() {
    let mut bench = bench();
    let press = Raise { lasts: false, ..raise("button", "sos-1") };
    bench.raise(&press);
    bench.obey(AlarmVerb::Acknowledge);
    bench.raise(&press);
    bench.raise(&press);
    assert_eq!(bench.only(), None, "within the cooldown a closed alarm raises none");
    bench.pass(COOLDOWN_MS);
    bench.raise(&press);
    assert_eq!(bench.only().map(|alarm| alarm.count), Some(3), "what was kept quiet counts on the next");
    bench.obey(AlarmVerb::Acknowledge);
    bench.raise(&press);
    bench.pass(25 * HOUR_MS);
    bench.raise(&press);
    assert_eq!(bench.only().map(|alarm| alarm.count), Some(1), "what was long ago counts no more");
}

#[test]
fn what_lasts_beyond_the_cooldown_is_raised_after_all() {
    let mut bench = bench();
    let smoke = raise("smoke", "s-1");
    bench.raise(&smoke);
    bench.obey(AlarmVerb::Acknowledge);
    bench.clear(&smoke);
    assert_eq!(bench.only(), None);
    bench.pass(1_000);
    bench.raise(&smoke);
    assert_eq!(bench.only(), None);
    bench.pass(COOLDOWN_MS);
    assert_eq!(bench.only().map(|alarm| alarm.active), Some(true), "smoke was hidden for ever");
    let mut calm = Bench::new(&AlarmConfig::default());
    calm.raise(&smoke);
    calm.obey(AlarmVerb::Acknowledge);
    calm.clear(&smoke);
    calm.raise(&smoke);
    calm.clear(&smoke);
    calm.pass(25 * HOUR_MS);
    assert_eq!(calm.told.len(), 3, "it was over by then");
    assert_eq!(calm.book.subjects.len(), 0, "nothing is remembered for ever");
}

#[test]
fn the_shelf_gives_back_what_still_holds_and_forgets_what_was_seen() {
    let mut bench = bench();
    let gas = raise("gas", "g-1");
    bench.raise(&gas);
    bench.obey(AlarmVerb::Acknowledge);
    bench.obey(AlarmVerb::Shelve { for_s: 600 });
    let told = bench.told.len();
    let shelved = bench.only().unwrap();
    let back_ms = shelved.shelved_until.as_ref().unwrap().mono_ms;
    bench.clear(&gas);
    bench.pass(COOLDOWN_MS);
    bench.raise(&gas);
    assert_eq!(bench.told.len(), told, "something was told from the shelf");
    bench.pass(599_999 - COOLDOWN_MS);
    assert_eq!(bench.only().unwrap().state, AlarmState::Shelved);
    bench.pass(1);
    let alarm = bench.only().unwrap();
    assert_eq!((alarm.state, alarm.active, alarm.count), (AlarmState::Unacknowledged, true, 2));
    assert_eq!((alarm.shelved_until.clone(), bench.now().at.mono_ms), (None, back_ms));
    for bad in [0, 86_401, u64::MAX] {
        assert!(matches!(bench.obey(AlarmVerb::Shelve { for_s: bad }), Verdict::Impossible(_)), "{bad}");
    }
}

#[test]
fn what_nobody_acknowledges_grows_worse_once_and_what_is_shelved_does_not() {
    let escalate = Some(Escalation { after_ms: 60_000, to: Severity::Critical });
    let gas = Raise { escalate, ..raise("gas", "g-1") };
    let mut bench = bench();
    bench.raise(&gas);
    bench.pass(59_999);
    assert_eq!(bench.told.len(), 1);
    bench.pass(HOUR_MS);
    let alarm = bench.only().unwrap();
    assert_eq!((alarm.severity(), alarm.rev), (Some(Severity::Critical), 2));
    assert_eq!(alarm.raised.severity, Some(Severity::Minor), "what was raised stays what it was");
    let mut seen = Bench::new(&AlarmConfig::default());
    seen.raise(&gas);
    seen.obey(AlarmVerb::Acknowledge);
    seen.pass(HOUR_MS);
    assert_eq!(seen.told.len(), 2);
    let mut shelved = Bench::new(&AlarmConfig::default());
    shelved.raise(&gas);
    shelved.obey(AlarmVerb::Shelve { for_s: 3_600 });
    shelved.pass(HOUR_MS + 59_999);
    assert_eq!(shelved.only().unwrap().severity, None);
    shelved.pass(1);
    assert_eq!(shelved.only().unwrap().severity, Some(Severity::Critical));
    let mut test = Bench::new(&AlarmConfig::default());
    test.raise(&Raise { test: true, ..gas });
    test.pass(HOUR_MS);
    assert_eq!(test.told.len(), 1, "a test escalates");
}

#[test]
fn flapping_is_one_alarm_until_it_is_calm() {
    let mut bench = bench();
    let door = raise("held-open", "d-1");
    for _ in 0..100 {
        bench.raise(&door);
        bench.pass(2_000);
        bench.clear(&door);
        bench.pass(2_000);
    }
    let alarm = bench.only().unwrap();
    assert!(alarm.flapping && alarm.active, "{alarm:?}");
    assert!(bench.told.len() < 25, "{} records", bench.told.len());
    let Verdict::Impossible(why) = bench.obey(AlarmVerb::Close) else { panic!("closed") };
    assert!(why.contains("comes and goes"), "{why}");
    bench.obey(AlarmVerb::Acknowledge);
    bench.pass(597_000);
    assert!(bench.only().unwrap().flapping);
    bench.pass(2_000);
    assert_eq!(bench.only(), None, "calm, seen and over");
    let last = bench.told.last().unwrap();
    assert_eq!(last.alarm.change.as_ref().unwrap().what, ChangeKind::Calmed);
    assert_eq!(last.alarm.count, 100);
}

#[test]
fn small_alarms_that_nobody_touches_end_and_great_ones_do_not() {
    for (severity, latched, stays) in [
        (Severity::Warning, false, false),
        (Severity::Minor, false, false),
        (Severity::Minor, true, true),
        (Severity::Major, false, true),
        (Severity::Critical, false, true),
    ] {
        let mut bench = bench();
        let mut raise = Raise { latched, ..raise("r", "s") };
        raise.condition.severity = Some(severity);
        bench.raise(&raise);
        bench.pass(48 * HOUR_MS);
        assert!(bench.only().is_some(), "it holds");
        bench.clear(&raise);
        bench.pass(48 * HOUR_MS);
        assert_eq!(bench.only().is_some(), stays, "{severity:?} {latched}");
    }
}

#[test]
fn a_test_is_marked_calls_nobody_and_ends_by_itself() {
    let mut bench = bench();
    let press = Raise { test: true, lasts: false, latched: true, ..raise("button", "sos-1") };
    bench.raise(&press);
    bench.raise(&Raise { test: false, ..press });
    assert_eq!(bench.told.iter().map(|told| told.test).collect::<Vec<_>>(), [true, false]);
    assert_eq!(bench.open().len(), 2, "a test hides a real press");
    bench.pass(HOUR_MS);
    assert_eq!(bench.book.open().iter().map(|listed| listed.test).collect::<Vec<_>>(), [false]);
    assert!(bench.told.last().unwrap().test);
}

#[test]
fn one_record_may_raise_a_rule_for_several_subjects() {
    let mut bench = bench();
    bench.pos = 7;
    for subject in ["a", "b", "c"] {
        bench.signal_of_record(Signal::Raise(Box::new(raise("r", subject))));
    }
    let ids: Vec<String> = bench.told.iter().map(|told| told.alarm.alarm.clone()).collect();
    assert_eq!(ids, [format!("{EPOCH}-7-r"), format!("{EPOCH}-7-r.2"), format!("{EPOCH}-7-r.3")]);
}

#[test]
fn a_condition_that_is_too_long_for_an_alarm_loses_its_longest_parameters() {
    let mut bench = bench();
    let mut long = raise("r", "s");
    for index in 0..9 {
        let text = "x".repeat(900 + index);
        long.condition.params.insert(format!("p{index}"), Value::Text(text.into()));
    }
    bench.raise(&long);
    let raised = bench.only().unwrap().raised;
    assert!(serde_json::to_vec(&raised).unwrap().len() <= CONDITION_BYTES_MAX);
    assert_eq!(raised.params.get("params_cut"), Some(&Value::Bool(true)));
    assert!(raised.params.contains_key("p0") && !raised.params.contains_key("p8"));
    let note = "注".repeat(500);
    let handled = bench.obey(AlarmVerb::Handle { result: HandlingResult::Genuine, note: note.clone() });
    assert!(matches!(handled, Verdict::Done { .. }));
    let whole = serde_json::to_vec(&Body::Alarm(Box::new(bench.only().unwrap()))).unwrap();
    assert!(whole.len() <= crate::model::limits::RECORD_BODY_BYTES_MAX, "{}", whole.len());
    let more = AlarmVerb::Handle { result: HandlingResult::Genuine, note: note + "注" };
    assert!(matches!(bench.obey(more), Verdict::Impossible(_)));
}
