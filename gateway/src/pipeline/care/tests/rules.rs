//! One thing at a time.

use super::super::life::{Life, Terms};
use super::*;
use crate::pipeline::table::Row as _;

#[test]
fn no_sign_of_life_for_a_day_raises_and_any_sign_ends_it() {
    let mut site = Site::new(household(""));
    site.wait(2 * HOUR);
    site.water(0.02);
    site.wait(25 * HOUR);
    assert_eq!(site.said(), [(26 * 60, "raise care-inactivity b3-302")]);
    site.value("motion", "occupancy", Value::Bool(true));
    assert_eq!(site.told.last().unwrap().1, "clear care-inactivity b3-302");
}

#[test]
fn a_question_comes_before_the_alarm() {
    let mut site = Site::new(household("answer_within_min = 30\nask = [{}]\n"));
    site.wait(24 * HOUR + 20 * MINUTE);
    assert_eq!(site.said(), [(24 * 60, "ask b3-302")]);
    site.value("motion", "occupancy", Value::Bool(true));
    site.wait(24 * HOUR + 31 * MINUTE);
    let (asked, raised) = (48 * 60 + 20, 48 * 60 + 50);
    assert_eq!(site.said()[1..], [(asked, "ask b3-302"), (raised, "raise care-inactivity b3-302")]);
}

#[test]
fn too_little_water_is_no_sign() {
    let mut site = Site::new(household(""));
    site.wait(20 * HOUR);
    site.water(0.004);
    site.wait(5 * HOUR);
    assert_eq!(site.said(), [(24 * 60, "raise care-inactivity b3-302")]);
    site.water(0.006);
    assert_eq!(site.told.last().unwrap().1, "clear care-inactivity b3-302");
}

#[test]
fn a_value_that_stays_true_is_one_sign() {
    let mut site = Site::new(household(""));
    site.mute("motion");
    for _ in 0..25 {
        site.value("motion", "occupancy", Value::Bool(true));
        site.wait(HOUR);
    }
    assert_eq!(site.said(), [(24 * 60, "raise care-inactivity b3-302")]);
}

#[test]
fn a_silent_meter_is_no_silent_person() {
    let mut site = Site::new(household(""));
    site.wait(6 * HOUR);
    site.mute("meter");
    site.wait(40 * HOUR);
    // Three heartbeats of ten minutes, counted from its last word.
    assert_eq!(site.said(), [(6 * 60 + 30, "raise care-sensor-offline meter")]);
    site.unmute("meter");
    site.wait(MINUTE);
    assert_eq!(site.told.last().unwrap().1, "clear care-sensor-offline meter");
    // The six hours before and what follows count, the forty of darkness do not.
    site.wait(18 * HOUR - 2 * MINUTE);
    assert_eq!(site.told.len(), 2);
    site.wait(2 * MINUTE);
    assert_eq!(site.told.last().unwrap().1, "raise care-inactivity b3-302");
}

#[test]
fn a_dead_sensor_that_is_replaced_blinds_nobody() {
    let mut site = Site::new(household(""));
    site.mute("motion");
    site.wait(6 * HOUR);
    assert_eq!(site.said(), [(3 * 60, "raise care-sensor-offline motion")]);
    let mut without = household("");
    without.signals.retain(|sign| sign.device.as_str() != "motion");
    site.reload_household(without);
    site.wait(DAY);
    assert_eq!(site.said()[1..], [(6 * 60 + 10, "clear care-sensor-offline motion")]);
    site.wait(20 * MINUTE);
    assert_eq!(site.told.last().unwrap().1, "raise care-inactivity b3-302");
}

#[test]
fn a_household_that_is_added_to_a_dead_sensor_is_blind() {
    let mut site = Site::new(household(""));
    site.mute("motion");
    site.wait(6 * HOUR);
    site.told.clear();
    let names = ["b3-302", "b3-303"].map(|name| CareName::new(name).unwrap());
    let households = names.into_iter().map(|name| (name, household(""))).collect();
    site.reload(CareConfig { households });
    site.wait(40 * HOUR);
    assert_eq!(site.said(), []);
    site.unmute("motion");
    site.wait(25 * HOUR);
    let raised: Vec<&str> = site.said().into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        raised,
        ["clear care-sensor-offline motion", "raise care-inactivity b3-302", "raise care-inactivity b3-303"]
    );
}

#[test]
fn stale_values_and_offline_are_silence() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.mute("meter");
    site.stale("meter", "volume", Value::Float(200.0));
    site.wait(10 * MINUTE);
    assert_eq!(site.said(), []);
    site.event("meter", "device.offline");
    assert_eq!(site.said(), [(70, "raise care-sensor-offline meter")]);
}

#[test]
fn a_dead_bus_explains_its_sensors() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.bus("bus.offline");
    for id in ["meter", "door", "motion"] {
        site.mute(id);
    }
    site.wait(30 * HOUR);
    assert_eq!(site.said(), []);
    site.bus("bus.online");
    site.unmute("meter");
    site.unmute("motion");
    site.wait(4 * HOUR);
    // The door does not come back.
    assert_eq!(site.said(), [(34 * 60, "raise care-sensor-offline door")]);
}

#[test]
fn a_bus_that_came_back_with_a_restart_hides_nothing_more() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.bus("bus.offline");
    // What was on its way proves nothing.
    site.event("tag", "device.seen");
    for id in ["meter", "door", "motion"] {
        site.mute(id);
    }
    site.wait(2 * HOUR);
    assert_eq!(site.said(), []);
    // The new process finds the bus well, and nobody says so.
    site.restart(MINUTE, false);
    site.unmute("meter");
    site.unmute("door");
    site.wait(4 * HOUR);
    assert_eq!(site.said(), [(6 * 60 + 1, "raise care-sensor-offline motion")]);
}

#[test]
fn who_leaves_by_the_door_is_not_missed_and_is_back_at_any_sign() {
    let mut site = Site::new(household(""));
    site.wait(9 * HOUR);
    site.event("door", "contact.opened");
    site.wait(20 * HOUR);
    assert_eq!(site.said(), []);
    site.event("door", "contact.opened");
    // Back: the same door, and then nothing.
    site.wait(24 * HOUR);
    assert_eq!(site.said(), [(53 * 60, "raise care-inactivity b3-302")]);
}

#[test]
fn time_that_no_sensor_could_see_is_no_sign_of_having_left() {
    let terms = Terms {
        window_ms: DAY,
        answer_ms: None,
        quiet_ms: Some(2 * HOUR),
        presumed_max_ms: DAY,
        said_max_ms: 30 * DAY,
    };
    let mut life = Life::begin(0);
    life.sign(10 * HOUR, true, &terms);
    // The motion sensor was silent already when the door was opened, and comes back five hours later.
    life.blind(9 * HOUR, &terms);
    assert_eq!(life.due_ms(), None);
    life.sighted(15 * HOUR, &terms);
    assert_eq!(life.due_ms(), Some(17 * HOUR));
    // Silent half an hour after the opening: that half hour counts.
    life.sign(20 * HOUR, true, &terms);
    life.blind(20 * HOUR + 30 * MINUTE, &terms);
    life.sighted(26 * HOUR, &terms);
    assert_eq!(life.due_ms(), Some(27 * HOUR + 30 * MINUTE));
}

#[test]
fn a_conclusion_from_the_door_does_not_last() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.event("door", "contact.opened");
    site.wait(26 * HOUR);
    assert_eq!(site.said(), [(25 * 60, "raise care-inactivity b3-302")]);
}

#[test]
fn who_says_that_they_leave_may_pass_the_door() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.event("tag", "home.left");
    site.wait(5 * MINUTE);
    site.event("door", "contact.opened");
    site.wait(7 * DAY);
    assert_eq!(site.said(), []);
    site.water(0.05);
    site.wait(25 * HOUR);
    assert_eq!(site.told.len(), 1);
}

#[test]
fn a_technician_is_no_sign() {
    let mut site = Site::new(household(""));
    site.wait(12 * HOUR);
    site.tested("door", "contact.opened");
    site.wait(12 * HOUR);
    assert_eq!(site.said(), [(24 * 60, "raise care-inactivity b3-302")]);
}

#[test]
fn a_tap_left_open_is_told_after_a_day_and_over_when_it_is_closed() {
    let mut site = Site::new(household(""));
    for _ in 0..(49 * 3) {
        site.wait(10 * MINUTE);
        site.meter += 0.002;
    }
    let raised: Vec<_> = site.said().into_iter().filter(|(_, what)| what.contains("leak")).collect();
    assert_eq!(raised, [(24 * 60, "raise care-leak b3-302")]);
    site.wait(2 * HOUR);
    assert_eq!(site.told.last().unwrap().1, "clear care-leak b3-302");
}

#[test]
fn too_much_water_in_a_day_is_told_at_once() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.water(2.5);
    assert_eq!(site.said(), [(60, "raise care-leak b3-302")]);
    site.value("motion", "occupancy", Value::Bool(true));
    site.wait(12 * HOUR);
    site.event("door", "contact.opened");
    site.wait(11 * HOUR + 30 * MINUTE);
    assert_eq!(site.told.len(), 1);
    site.wait(40 * MINUTE);
    assert_eq!(site.told.get(1).unwrap().1, "clear care-leak b3-302");
}

#[test]
fn a_restless_night_is_told_once() {
    let mut site = Site::new(household(""));
    site.wait(20 * HOUR);
    // Evenings do not count.
    for _ in 0..4 {
        site.event("door", "contact.opened");
        site.wait(MINUTE);
    }
    site.wait(4 * HOUR);
    for _ in 0..5 {
        site.event("door", "contact.opened");
        site.wait(10 * MINUTE);
    }
    assert_eq!(site.said(), [(24 * 60 + 24, "raise care-night b3-302")]);
    // A box that does not know the time does not know the night.
    site.wait(DAY - HOUR);
    site.told.clear();
    site.distrust();
    for _ in 0..5 {
        site.event("door", "contact.opened");
    }
    assert_eq!(site.said(), []);
}

#[test]
fn consent_is_recorded_and_ends_everything_when_taken_back() {
    let mut site = Site::new(household(""));
    site.wait(25 * HOUR);
    let name = |draft: &Draft| match &draft.body {
        Body::Event(event) => event.name.clone(),
        _ => String::new(),
    };
    assert_eq!(site.drafts.iter().map(name).collect::<Vec<_>>(), ["care.consent_given"]);
    assert_eq!(site.told.len(), 1);
    let mut revoked = household("");
    revoked.consent.as_mut().unwrap().revoked = Some("2026-03-02".to_owned());
    site.reload_household(revoked);
    site.wait(10 * DAY);
    assert_eq!(site.told.get(1).unwrap().1, "clear care-inactivity b3-302");
    assert_eq!(site.told.len(), 2);
    assert_eq!(
        site.drafts.iter().map(name).collect::<Vec<_>>(),
        ["care.consent_given", "care.consent_revoked"]
    );
    assert!(site.care.next_due().is_none(), "something of the household is still watched");
}

#[test]
fn consent_that_is_taken_back_leaves_nothing_but_its_record() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    for _ in 0..3 {
        site.event("door", "contact.opened");
    }
    site.water(2.5);
    site.wait(24 * HOUR - 2 * MINUTE);
    site.bus("bus.offline");
    let told = site.told.len();
    let mut revoked = household("");
    revoked.consent.as_mut().unwrap().revoked = Some("2026-03-02".to_owned());
    // The deadline of the household has passed when the next record comes.
    site.pass(10 * MINUTE);
    site.reload_household(revoked);
    site.wait(3 * HOUR);
    assert_eq!(site.rows.keys().collect::<Vec<_>>(), ["care/consent/b3-302"]);
    let ended: Vec<&str> = site.told.iter().skip(told).map(|(_, what)| what.as_str()).collect();
    assert_eq!(ended, ["clear care-leak b3-302"]);
}

#[test]
fn a_leak_rule_that_is_taken_out_ends_its_alarm() {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    site.water(2.5);
    let mut without = household("");
    without.leak = None;
    site.reload_household(without);
    site.wait(30 * MINUTE);
    assert_eq!(site.said(), [(60, "raise care-leak b3-302"), (70, "clear care-leak b3-302")]);
}

#[test]
fn signals_in_another_order_are_no_sign_of_life() {
    let with = |first: bool| {
        let power = "{ device = \"meter\", point = \"volume\", changes_by = 50.0 },";
        let meter = "{ device = \"meter\", point = \"volume\", grows_by = 0.01 },";
        let signals = if first { [power, meter] } else { [meter, power] }.concat();
        let consent = "consent = { date = \"2026-03-01\", by = \"self\" }";
        toml::from_str::<Household>(&format!("{consent}\nsignals = [{signals}]\n")).unwrap()
    };
    let mut site = Site::new(with(false));
    site.wait(HOUR);
    // So much growth shows in the first alone.
    for _ in 0..40 {
        site.water(1.0);
    }
    site.reload_household(with(true));
    site.wait(24 * HOUR - MINUTE);
    assert_eq!(site.said(), []);
    site.wait(2 * MINUTE);
    assert_eq!(site.said(), [(25 * 60, "raise care-inactivity b3-302")]);
}

#[test]
fn what_never_happened_begins_again() {
    let mut site = Site::new(household(""));
    let mut care = Care::new(site.config.clone(), Arc::new(directory()));
    let record = Record {
        pos: 1,
        epoch: Epoch(1),
        class: Class::Event,
        seq: 1,
        at: site.at.clone(),
        test: false,
        body: event_of(device("door"), "contact.opened"),
    };
    let now = Now { t_ms: 0, at: site.at.clone() };
    for _ in 0..2 {
        care.begin(&now, &mut Vec::new(), &mut Out::default());
        care.apply(&now, &record, 480, &mut Vec::new());
        care.rollback();
        let mut rows = Vec::new();
        care.unsaved(&mut rows);
        assert!(rows.iter().all(|(_, value)| value.is_none()), "{rows:?}");
    }
    let mut out = Out::default();
    care.begin(&now, &mut Vec::new(), &mut out);
    care.apply(&now, &record, 480, &mut Vec::new());
    assert_eq!(out.drafts.len(), 1);
    assert!(care.next_due().is_some());
    site.wait(MINUTE);
}

#[test]
fn whose_talk_is_private() {
    let site = Site::new(household(""));
    let private: Vec<String> = site.config.private_devices().iter().map(ToString::to_string).collect();
    assert_eq!(private, ["door", "meter", "motion", "tag"]);
    let away = site.config.away_events();
    assert_eq!(away[&DeviceId::new("tag").unwrap()], BTreeSet::from(["home.left".to_owned()]));
    assert_eq!(away.len(), 1);
}

/// Everything that care has to tell, of somebody with these habits.
fn leaving(volume: f64, openings: usize) -> Vec<Event> {
    let mut site = Site::new(household(""));
    site.wait(HOUR);
    for _ in 0..openings {
        site.event("door", "contact.opened");
    }
    site.wait(HOUR);
    site.value("motion", "occupancy", Value::Bool(true));
    site.water(volume);
    site.wait(26 * HOUR);
    site.mute("motion");
    site.wait(4 * HOUR);
    let mut revoked = household("");
    revoked.consent.as_mut().unwrap().revoked = Some("2026-03-02".to_owned());
    site.reload_household(revoked);
    site.wait(HOUR);
    site.event("door", "device.seen");
    site.leaving
}

#[test]
fn nothing_private_stands_in_what_leaves() {
    let few = leaving(2.5, 3);
    assert_eq!(few, leaving(7.25, 9), "how much was seen shows in what leaves");
    let keys = |event: &Event| event.params.keys().cloned().collect::<Vec<_>>().join(" ");
    let told: BTreeMap<String, String> = few.iter().map(|event| (event.name.clone(), keys(event))).collect();
    let expected = [
        ("care.consent_given", "by care date"),
        ("care.consent_revoked", "by care date revoked"),
        ("care.leak", "care leak"),
        ("care.no_activity", "care contact_id quiet_h sia window_h"),
        ("care.restless_night", "care"),
        ("care.sensor_offline", "silent_min"),
    ];
    assert_eq!(told, expected.map(|(name, keys)| (name.to_owned(), keys.to_owned())).into());
}
