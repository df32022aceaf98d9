//! Who is chosen, what is remembered, and how it ends.

use super::spec::{Cause, Message, Proof, Quiet, Relay, Speech, Target, Unlock, warn_cloud_only};
use super::*;
use crate::model::action::outcome;
use crate::model::alarm::AlarmState;
use crate::model::ids::{BootId, Epoch, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{Body, Record};
use crate::model::stamp::ClockTrust;
use crate::pipeline::directory::{Abilities, Speaker};

const BOOT: &str = "boot";

fn at(mono_ms: u64) -> Stamp {
    // 2026-06-01T08:00 at the site.
    let wall_ms = 1_780_272_000_000 + i64::try_from(mono_ms).unwrap();
    Stamp { boot: BootId(BOOT.into()), mono_ms, wall_ms, trust: ClockTrust::Ntp }
}

fn now(t_ms: u64) -> Now {
    Now { t_ms, at: at(t_ms) }
}

fn place(building: &str, unit: &str) -> Place {
    Place {
        building: Some(building.into()),
        unit: Some(unit.into()),
        household: Some("1203".into()),
        ..Place::default()
    }
}

fn entry(kind: &str, place: Place, abilities: Abilities) -> Entry {
    Entry {
        kind: kind.to_owned(),
        profile: ProfileName::new(kind).unwrap(),
        bus: None,
        bridge: None,
        place,
        tags: [format!("{kind}s")].into(),
        points: BTreeMap::new(),
        events: [format!("{kind}.happened")].into(),
        maintenance: false,
        heartbeat_s: None,
        abilities,
    }
}

fn speaker(lan: bool) -> Abilities {
    Abilities {
        speaker: Some(Speaker { lan, confirms_played: true, text_chars_max: 100 }),
        ..Abilities::default()
    }
}

fn door() -> Abilities {
    let outputs = [PointName::new("do1").unwrap()].into();
    Abilities { door: true, holds: true, outputs, ..Abilities::default() }
}

fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn directory() -> Directory {
    let mut devices = BTreeMap::from([
        (id("horn-3-1"), entry("horn", place("3", "1"), speaker(true))),
        (id("horn-3-2"), entry("horn", place("3", "2"), speaker(true))),
        (id("horn-5-1"), entry("horn", place("5", "1"), speaker(false))),
        (id("door-3-1"), entry("door", place("3", "1"), door())),
        (id("door-3-2"), entry("door", place("3", "2"), door())),
        (id("door-gate"), entry("door", Place::default(), door())),
        (id("lock-5-1"), entry("lock", place("5", "1"), Abilities { holds: false, ..door() })),
        (id("siren"), entry("io", Place::default(), Abilities { door: false, holds: false, ..door() })),
        (id("horn-mended"), entry("horn", place("3", "1"), speaker(true))),
    ]);
    devices.get_mut(&id("horn-mended")).unwrap().maintenance = true;
    Directory { devices }
}

fn alarm(category: Category, severity: Severity, place: Place) -> Alarm {
    let raised = Event {
        device: DeviceRef { id: id("button"), kind: "button".into(), profile: None, bus: None },
        place,
        category,
        name: "button.pressed".into(),
        severity: Some(severity),
        params: BTreeMap::new(),
        text: None,
    };
    Alarm::new("e-1-rule".into(), AlarmState::Unacknowledged, raised)
}

fn asked(alarm: Alarm, spec: ActionSpec) -> Asked {
    Asked { alarm, specs: vec![spec], at: at(1_000), act_within_ms: 30_000, test: false }
}

fn actions() -> Actions {
    Actions::new(Arc::new(directory()), 480)
}

fn record(draft: Draft) -> Record {
    let class = draft.body.class();
    Record { pos: 1, epoch: Epoch(1), class, seq: 1, at: draft.at, test: draft.test, body: draft.body }
}

/// Ids of the devices that are asked, and the names of the other events.
fn asks(actions: &mut Actions, now: &Now, asked: &Asked) -> (Vec<String>, Vec<String>) {
    let mut out = Out::default();
    actions.ask(now, asked, &mut out);
    let (mut devices, mut others) = (Vec::new(), Vec::new());
    for draft in out.drafts {
        let record = record(draft);
        if let Some(action) = Action::read(&record) {
            actions.asked(now, &action, false);
            devices.push(action.device.as_str().to_owned());
            continue;
        }
        let Body::Event(event) = record.body else { panic!("no event") };
        others.push(match event.params.get("reason") {
            Some(Value::Text(reason)) => format!("{} {reason}", event.name),
            _ => event.name.clone(),
        });
    }
    (devices, others)
}

fn speak(near: Near) -> ActionSpec {
    ActionSpec {
        speak: Some(Speech { zh: Some("{{ place.building }}栋紧急求助".into()), ..Speech::default() }),
        on: Target { place: Some(near), ..Target::default() },
        ..ActionSpec::default()
    }
}

fn unlock(near: Option<Near>) -> ActionSpec {
    ActionSpec {
        unlock: Some(Unlock { hold: true, pulse_ms: None }),
        on: Target { place: near, kind: Some("door".into()), ..Target::default() },
        ..ActionSpec::default()
    }
}

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
fn what_failed_is_an_alarm_until_the_device_acts_again() {
    let mut actions = actions();
    let button = || alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    asks(&mut actions, &now(1_500), &asked(button(), speak(Near::SameUnit)));
    let report =
        |progress| Report { action: "e-1-rule.1-1".into(), progress, attempt: 1, detail: "x".into() };
    let mut signals = Vec::new();
    actions.reported(&now(2_000), &report(Progress::Retrying), &mut signals);
    assert!(signals.is_empty() && actions.unfinished().len() == 1);
    actions.reported(&now(2_000), &report(Progress::Failed), &mut signals);
    let [Signal::Raise(raise)] = signals.as_slice() else { panic!("{signals:?}") };
    assert_eq!((raise.rule.as_str(), raise.subject.as_str()), (FAILED_RULE, "horn-3-1"));
    assert_eq!(raise.condition.severity, Some(Severity::Major));
    assert!(raise.actions.is_empty(), "a failed action asks for none");
    actions.reported(&now(2_000), &report(Progress::Failed), &mut signals);
    assert_eq!((signals.len(), actions.unfinished().len()), (1, 0), "once");
    asks(&mut actions, &now(3_000), &asked(button(), speak(Near::SameUnit)));
    actions.reported(&now(4_000), &report(Progress::Confirmed), &mut signals);
    actions.done(&now(4_000), (&id("horn-3-1"), "speak"), false, &mut signals);
    assert!(matches!(&signals[1], Signal::Clear(clear) if clear.subject == "horn-3-1"));
}

/// Keeps what it is handed.
#[derive(Debug, Clone, Default)]
struct Taken(Arc<std::sync::Mutex<Vec<(String, bool)>>>);

impl crate::model::action::Outlet for Taken {
    fn hand(&mut self, action: Action, resumed: bool) {
        self.0.lock().unwrap().push((action.id, resumed));
    }

    fn held(&mut self, door: &DeviceId) {
        self.0.lock().unwrap().push((door.to_string(), true));
    }
}

/// A door that a person opens for a moment.
fn persons_pulse() -> Action {
    Action {
        id: "street/c-1.1".into(),
        device: id("door-3-1"),
        deed: Deed::Unlock { pulse_ms: Some(5_000) },
        alarm: None,
        severity: None,
        at: at(1_000),
        act_within_ms: 10_000,
        test: false,
    }
}

#[test]
fn what_a_person_began_is_done_once_and_found_by_a_restart() {
    use crate::model::journal::Fold;
    use crate::pipeline::{Pipeline, Plan};
    let pipeline = |taken: &Taken| {
        let plan = Plan { directory: Arc::new(directory()), ..Plan::default() };
        Pipeline::new(plan, Arc::default(), Box::new(taken.clone()))
    };
    let action = persons_pulse();
    let (first, next) = (Taken::default(), Taken::default());
    let mut before = pipeline(&first);
    before.apply(&record(action.begun_draft(&at(1_000), &Place::default(), Category::Device)));
    let rows = before.unsaved().into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
    before.commit(true);
    assert!(first.0.lock().unwrap().is_empty(), "whoever began it does it");
    let mut after = pipeline(&next);
    after.load(rows);
    after.commit(true);
    assert_eq!(*next.0.lock().unwrap(), [("street/c-1.1".to_owned(), true)]);
}

#[test]
fn a_restart_knows_what_fire_holds_until_a_person_resets_it() {
    use crate::model::journal::Fold;
    use crate::pipeline::{Pipeline, Plan};
    let pipeline = |taken: &Taken| {
        let plan = Plan { directory: Arc::new(directory()), ..Plan::default() };
        Pipeline::new(plan, Arc::default(), Box::new(taken.clone()))
    };
    let order = |id_: &str, deed| Action {
        id: id_.into(),
        device: id("door-3-1"),
        deed,
        alarm: None,
        severity: None,
        at: at(1_000),
        act_within_ms: 600_000,
        test: false,
    };
    let told = |action: &Action, progress| {
        let report = Report { action: action.id.clone(), progress, attempt: 1, detail: String::new() };
        record(report.draft(&at(2_000), action))
    };
    let rows = |pipeline: &Pipeline, stored: &mut BTreeMap<String, String>| {
        for (key, row) in pipeline.unsaved() {
            match row {
                Some(row) => stored.insert(key, row),
                None => stored.remove(&key),
            };
        }
    };
    let mut stored = BTreeMap::new();
    for (progress, locked, held) in [
        (Progress::Failed, None, false),
        (Progress::Unknown, None, true),
        (Progress::Accepted, None, true),
        (Progress::Accepted, Some(Progress::Failed), true),
        (Progress::Accepted, Some(Progress::Confirmed), false),
    ] {
        let (first, next) = (Taken::default(), Taken::default());
        let (hold, lock) = (order("a-1", Deed::Unlock { pulse_ms: None }), order("c-1.1", Deed::Lock));
        let mut before = pipeline(&first);
        before.apply(&record(hold.draft(&at(1_000), &Place::default(), Category::Fire)));
        before.apply(&told(&hold, progress));
        if let Some(progress) = locked {
            // Ordered by a person: no row of it.
            before.apply(&told(&lock, progress));
        }
        stored.clear();
        rows(&before, &mut stored);
        let mut after = pipeline(&next);
        after.load(stored.clone().into_iter().collect());
        let held_then = next.0.lock().unwrap().contains(&("door-3-1".to_owned(), true));
        assert_eq!(held_then, held, "{progress:?} {locked:?}");
    }
}

#[test]
fn a_door_that_stays_shut_in_a_fire_is_an_alarm_at_once() {
    let mut actions = actions();
    let fire = alarm(Category::Fire, Severity::Critical, place("3", "1"));
    asks(&mut actions, &now(1_500), &asked(fire, unlock(Some(Near::SameUnit))));
    let report = Report {
        action: "e-1-rule.1-1".into(),
        progress: Progress::Retrying,
        attempt: 1,
        detail: "x".into(),
    };
    let mut signals = Vec::new();
    actions.reported(&now(2_000), &report, &mut signals);
    assert!(matches!(&signals[..], [Signal::Raise(raise)] if raise.subject == "door-3-1"), "{signals:?}");
    assert_eq!(actions.unfinished().len(), 1, "it is still tried");
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
fn a_persons_order_that_fails_is_their_affair_unless_it_leaves_something_on() {
    for (detail, alarms) in [("the device said no".to_owned(), 0), (format!("{}: x", outcome::LEFT_ON), 1)] {
        let mut actions = actions();
        let action = persons_pulse();
        actions.asked(&now(1_500), &action, true);
        let report = Report { action: action.id, progress: Progress::Failed, attempt: 1, detail };
        let mut signals = Vec::new();
        actions.reported(&now(2_000), &report, &mut signals);
        assert_eq!((signals.len(), actions.unfinished().len()), (alarms, 0), "{report:?}");
    }
}

#[test]
fn what_nobody_reports_is_unknown_after_its_time_also_over_a_restart() {
    let mut first = actions();
    let button = alarm(Category::Emergency, Severity::Critical, place("3", "1"));
    asks(&mut first, &now(1_500), &asked(button, speak(Near::SameUnit)));
    let mut rows = Vec::new();
    first.unsaved(&mut rows);
    let mut actions = actions();
    for (key, value) in rows {
        assert!(actions.load(&key, &value.unwrap()));
    }
    assert_eq!(actions.unfinished().len(), 1);
    let (due, key) = actions.next_due().unwrap();
    assert_eq!(due, 1_000 + 30_000 + REPORT_GRACE_MS);
    let (mut signals, mut out) = (Vec::new(), Out::default());
    actions.fire(&now(due), &key, &mut signals, &mut out);
    let report = Report::read(&record(out.drafts.remove(0))).unwrap();
    assert_eq!((report.progress, signals.len(), actions.next_due()), (Progress::Unknown, 1, None));
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
