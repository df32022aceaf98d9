//! Who is chosen, and when nobody is.

use super::*;

#[test]
fn devices_are_chosen_by_place_and_ability() {
    let button = |place| alarm(Category::Emergency, Severity::Critical, place);
    for (near, place, expected) in [
        (Near::SameUnit, place("3", "1"), vec!["horn-3-1"]),
        (Near::SameBuilding, place("3", "1"), vec!["horn-3-1", "horn-3-2"]),
        (Near::Compound, Place::default(), vec!["horn-3-1", "horn-3-2", "horn-5-1"]),
        (Near::SameUnit, Place::default(), vec![]),
        (Near::SameHousehold, place("5", "1"), vec!["horn-5-1"]),
    ] {
        let (devices, others) = asks(&mut actions(), &now(1_500), &asked(button(place), speak(near)));
        assert_eq!(devices, expected, "{near:?}");
        assert_eq!(others.is_empty(), !devices.is_empty(), "{others:?}");
    }
}

#[test]
fn fire_opens_the_affected_unit_and_nothing_else() {
    let fire = |place| alarm(Category::Fire, Severity::Critical, place);
    let of = |alarm, spec| asks(&mut actions(), &now(1_500), &asked(alarm, spec));
    assert_eq!(of(fire(place("3", "1")), unlock(Some(Near::SameUnit))).0, ["door-3-1"]);
    assert_eq!(of(fire(Place::default()), unlock(Some(Near::SameUnit))).0, [""; 0]);
    for (alarm, spec) in [
        (fire(place("3", "1")), unlock(None)),
        (fire(place("3", "1")), unlock(Some(Near::Compound))),
        (alarm(Category::Emergency, Severity::Critical, place("3", "1")), unlock(Some(Near::SameUnit))),
    ] {
        let (devices, others) = of(alarm, spec);
        assert!(devices.is_empty() && others.len() == 1, "{devices:?} {others:?}");
    }
}

#[test]
fn what_is_said_names_no_household() {
    let mut out = Out::default();
    let button = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    actions().ask(&now(1_500), &asked(button, speak(Near::SameUnit)), &mut out);
    let action = Action::read(&record(out.drafts.remove(0))).unwrap();
    let Deed::Speak { text, volume, repeat, .. } = &action.deed else { panic!("{action:?}") };
    assert_eq!((text.as_deref(), *volume, *repeat), (Some("3栋紧急求助"), 80, 1));
    assert_eq!((action.id.as_str(), action.severity), ("e-1-rule.1-1", Some(Severity::Critical)));
}

/// What was asked for under another configuration is judged by this one.
#[test]
fn a_message_does_not_open_a_door() {
    let mut directory = directory();
    for (name, own) in [("siren", "s/siren"), ("lock-5-1", "s/front")] {
        let topics = Topics { base: "s".into(), address: name.into(), own: vec![own.into()] };
        directory.devices.get_mut(&id(name)).unwrap().abilities.topics = Some(topics);
    }
    let directory = Arc::new(directory);
    let of = |topic: &str| {
        let spec = ActionSpec {
            publish: Some(Message { topic: topic.into(), payload: "1".into() }),
            on: Target { devices: vec![id("siren")], ..Target::default() },
            ..ActionSpec::default()
        };
        let alarm = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
        asks(&mut Actions::new(Arc::clone(&directory), 480), &now(1_500), &asked(alarm, spec))
    };
    assert_eq!(of("{base}/{address}/on").0, ["siren"]);
    for topic in ["s/front/set", "{base}/group"] {
        assert_eq!(of(topic), (vec![], vec!["action.withheld trespass".to_owned()]), "{topic}");
    }
}

#[test]
fn an_old_alarm_stands_and_nothing_is_done() {
    let button = || alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    let old = |actions: &mut Actions, now: &Now| asks(actions, now, &asked(button(), speak(Near::SameUnit)));
    assert_eq!(old(&mut actions(), &now(31_000)).0, ["horn-3-1"]);
    let (devices, others) = old(&mut actions(), &now(31_001));
    assert_eq!((devices.len(), others), (0, vec![ACTION_EXPIRED.to_owned()]));
    // A deadline that fires late, after the box was off: its own moment is young, and the present is not.
    let mut late = actions();
    late.present(&Time { t_ms: 40_000, at: at(40_000) });
    assert_eq!(old(&mut late, &now(1_000)).1, [ACTION_EXPIRED]);
    // Another boot in which nobody knows the time: words are said, doors stay.
    let strange = |at: Stamp| Stamp { boot: BootId("next".into()), trust: ClockTrust::None, ..at };
    let later = Now { t_ms: 2_000, at: strange(at(500)) };
    let mut actions = actions();
    actions.present(&Time { t_ms: 2_000, at: later.at.clone() });
    assert_eq!(old(&mut actions, &later).0, ["horn-3-1"]);
    let fire =
        asked(alarm(Category::Fire, Severity::Critical, place("3", "1")), unlock(Some(Near::SameUnit)));
    assert_eq!(asks(&mut actions, &later, &fire).1, [ACTION_EXPIRED]);
}

#[test]
fn quiet_hours_silence_all_but_the_critical() {
    let mut spec = speak(Near::SameUnit);
    // It is 8 o'clock.
    spec.quiet = Some(Quiet { from: "22:00".into(), to: "09:00".into() });
    let of = |severity, now: &Now| {
        let alarm = alarm(Category::Vehicle, severity, place("3", "1"));
        asks(&mut actions(), now, &asked(alarm, spec.clone()))
    };
    assert_eq!(of(Severity::Major, &now(1_500)).1, ["action.withheld quiet"]);
    assert_eq!(of(Severity::Critical, &now(1_500)).0.len(), 1);
    let mut unknown = now(1_500);
    unknown.at.trust = ClockTrust::None;
    assert_eq!(of(Severity::Major, &unknown).0.len(), 1, "who does not know the time is not silent");
    let mut day = now(1_500);
    day.at.wall_ms += 3_600_000;
    assert_eq!(of(Severity::Major, &day).0.len(), 1);
}

#[test]
fn who_cannot_say_it_is_told_of() {
    let mut directory = directory();
    let mute = directory.devices.get_mut(&id("horn-3-1")).unwrap();
    mute.abilities.speaker = Some(Speaker { lan: true, confirms_played: true, text_chars_max: 0 });
    let directory = Arc::new(directory);
    let button = || alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    let mut spec = speak(Near::SameUnit);
    let of = |spec: &ActionSpec| {
        let mut actions = Actions::new(Arc::clone(&directory), 480);
        asks(&mut actions, &now(1_500), &asked(button(), spec.clone()))
    };
    assert_eq!(of(&spec), (vec![], vec!["action.withheld cannot_say".to_owned()]));
    let cause =
        Cause { category: Category::Emergency, severity: Severity::Critical, event: None, proof: Proof::One };
    let told = spec.problems(cause, &directory);
    assert!(told.iter().any(|problem| problem.message.contains("horn-3-1")), "{told:?}");
    spec.speak.as_mut().unwrap().clip = Some("sos".into());
    assert_eq!(of(&spec), (vec!["horn-3-1".to_owned()], vec![]));
    assert!(spec.problems(cause, &directory).is_empty());
}

#[test]
fn an_alarm_asks_for_a_bounded_number() {
    let many = (0..3 * ACTIONS_AT_ONCE_MAX)
        .map(|n| (id(&format!("h{n}")), entry("horn", place("3", "1"), speaker(true))));
    let directory = Directory { devices: many.collect() };
    let mut actions = Actions::new(Arc::new(directory), 480);
    let button = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    let (devices, others) = asks(&mut actions, &now(1_500), &asked(button, speak(Near::SameUnit)));
    assert_eq!((devices.len(), others), (ACTIONS_AT_ONCE_MAX, vec!["action.withheld limit".to_owned()]));
}

#[test]
fn a_test_calls_nobody() {
    let button = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    let asked = Asked { test: true, ..asked(button, speak(Near::SameUnit)) };
    assert_eq!(asks(&mut actions(), &now(1_500), &asked), (vec![], vec![]));
}
