//! What `check` refuses.

use super::*;
use crate::model::action::Until;

#[test]
fn mistakes_are_told_before_anything_acts() {
    let cause = Cause {
        category: Category::Emergency,
        severity: Severity::Critical,
        event: Some("button.pressed"),
        proof: Proof::One,
    };
    let smoke = Cause { category: Category::Fire, ..cause };
    let two = Cause { proof: Proof::Two, ..smoke };
    let fire = Cause { proof: Proof::FirePanel, ..smoke };
    let duress = Cause { event: Some("keypad.duress"), ..cause };
    let said = |words: &str| ActionSpec {
        speak: Some(Speech { zh: Some(words.into()), ..Speech::default() }),
        ..speak(Near::SameUnit)
    };
    let until = |words: &str| {
        let mut spec = said(words);
        spec.speak.as_mut().unwrap().until = Some(Until::Acknowledged);
        spec
    };
    let relay = |device: &str, point: &str| ActionSpec {
        relay: Some(Relay { point: PointName::new(point).unwrap(), on: true, for_s: Some(5) }),
        on: Target { devices: vec![id(device)], ..Target::default() },
        ..ActionSpec::default()
    };
    let locks = ActionSpec {
        on: Target { kind: Some("lock".into()), place: Some(Near::SameUnit), ..Target::default() },
        ..unlock(None)
    };
    let elsewhere =
        ActionSpec { on: Target { devices: vec![id("nobody")], ..Target::default() }, ..said("a") };
    let publish = |device: &str, topic: &str| ActionSpec {
        publish: Some(Message { topic: topic.into(), payload: "1".into() }),
        on: Target { devices: vec![id(device)], ..Target::default() },
        ..ActionSpec::default()
    };
    for (cause, spec, needle) in [
        (cause, speak(Near::SameUnit), ""),
        (cause, ActionSpec::default(), "exactly one"),
        (cause, ActionSpec { unlock: Some(Unlock::default()), ..said("a") }, "exactly one"),
        (cause, said("{{ place.household }}"), "not said in public"),
        (cause, said("请大家疏散"), "only the fire panel"),
        (two, said("请大家疏散"), "only the fire panel"),
        (fire, said("请大家疏散"), ""),
        (fire, until("请大家疏散"), "ends no evacuation"),
        (fire, until("请保安查看"), ""),
        (duress, said("有人被胁迫"), "silent on site"),
        (cause, said(""), "characters"),
        (fire, unlock(Some(Near::SameUnit)), ""),
        (two, unlock(Some(Near::SameUnit)), ""),
        (smoke, unlock(Some(Near::SameUnit)), "by two detectors"),
        (cause, unlock(Some(Near::SameUnit)), "only fire holds"),
        (fire, unlock(Some(Near::SameBuilding)), "all doors"),
        (fire, unlock(None), "all doors"),
        (fire, locks, "not held open: lock-5-1"),
        (cause, relay("siren", "do1"), ""),
        (cause, relay("siren", "do9"), "an output \"do9\""),
        (cause, relay("door-3-1", "do1"), "it is a door: write unlock"),
        (cause, elsewhere, "no device \"nobody\""),
        (cause, ActionSpec { on: Target::default(), ..said("a") }, "which devices"),
        (cause, publish("siren", "a/set"), ""),
        (cause, publish("siren", "a/#"), "no topic"),
        (cause, publish("door-3-1", "a/set"), "it is a door: write unlock"),
    ] {
        let problems = spec.problems(cause, &directory());
        let told: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        let fits =
            if needle.is_empty() { told.is_empty() } else { told.iter().any(|text| text.contains(needle)) };
        assert!(fits, "{needle:?}: {told:?}");
    }
}

#[test]
fn quiet_hours_are_times_of_the_day_and_some_time_long() {
    let cause =
        Cause { category: Category::Device, severity: Severity::Minor, event: None, proof: Proof::One };
    for (from, to, told) in [
        ("22:00", "07:00", None),
        ("22:00", "25:00", Some("\"25:00\" is no time of day")),
        ("22:00", "22:00", Some("`from` and `to` are the same: it would never be quiet")),
    ] {
        let quiet = Some(Quiet { from: from.into(), to: to.into() });
        let problems = ActionSpec { quiet, ..speak(Near::SameUnit) }.problems(cause, &directory());
        assert_eq!(problems.first().map(|problem| problem.message.as_str()), told, "{from} to {to}");
    }
}

#[test]
fn cloud_only_critical_rules_and_possible_loops_are_known() {
    let directory = directory();
    let on = |device: &str| {
        let on = Target { devices: vec![id(device)], ..Target::default() };
        vec![ActionSpec { on, ..speak(Near::Compound) }]
    };
    let (cloud, lan) = (on("horn-5-1"), on("horn-3-1"));
    let rules = [
        ("cloud", Severity::Critical, cloud.as_slice()),
        ("minor", Severity::Minor, cloud.as_slice()),
        ("lan", Severity::Critical, lan.as_slice()),
    ];
    let warned = warn_cloud_only(rules, &directory);
    assert_eq!(warned.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), ["cloud"]);
    let events = lan[0].events_it_may_cause(&directory);
    assert_eq!(events.into_iter().collect::<Vec<_>>(), [(id("horn-3-1"), "horn.happened".to_owned())]);
}
