//! What conditions do in time.

use super::*;

pub(super) const DOORS: &[(&str, &str)] = &[
    ("c1", "door-contact"),
    ("c2", "door-contact"),
    ("l1", "door-lock"),
    ("l2", "door-lock"),
    ("t1", "climate"),
];

fn forced() -> String {
    rule(
        "forced",
        "on = { event = \"contact.opened\", tags = [\"door\"] }\n\
         unless = { events = [\"lock.unlocked\"], within_s = 5, same = \"unit\" }",
    )
}

#[test]
fn a_door_is_forced_unless_it_was_unlocked_shortly_before_or_after() {
    let mut bench = Bench::new(&forced(), DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.event(2, "c1", "contact.closed");
    bench.event(10, "l2", "lock.unlocked");
    bench.event(11, "c1", "contact.opened");
    bench.event(20, "c1", "contact.closed");
    bench.event(30, "l1", "lock.unlocked");
    bench.event(35, "c1", "contact.opened");
    bench.event(40, "c1", "contact.closed");
    bench.event(50, "c1", "contact.opened");
    bench.event(54, "l1", "lock.unlocked");
    bench.event(60, "c1", "contact.closed");
    bench.wait(100_000, 0);
    assert_eq!(bench.told, ["5 +forced/c1!", "16 +forced/c1", "20 -forced/c1"]);
    assert!(bench.stored().is_empty(), "{:?}", bench.stored());
}

#[test]
fn a_group_is_in_alarm_while_one_of_it_is() {
    let text = rule("open", "on = { event = \"contact.opened\" }\nper = \"building\"\nfor_s = 60");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.event(30, "c2", "contact.opened");
    bench.event(40, "c1", "contact.closed");
    bench.event(70, "c2", "contact.closed");
    bench.event(80, "c2", "contact.opened");
    bench.event(100, "c2", "contact.closed");
    bench.wait(500_000, 0);
    assert_eq!(bench.told, ["60 +open/building 3", "70 -open/building 3"]);
}

#[test]
fn values_begin_and_end_with_hysteresis_and_only_by_good_ones() {
    let text = rule("hot", "on = { point = \"temperature\" }\nwhen = \"value > 60\"\nuntil = \"value < 50\"");
    let mut bench = Bench::new(&text, DOORS);
    for (at_s, value) in [(0, 59.0), (1, 61.0), (2, 70.0), (3, 55.0), (4, 49.0), (5, 80.0)] {
        bench.value(at_s, "t1", "temperature", value);
    }
    bench.sample(6, "t1", "temperature", Value::Float(1.0), Quality::Stale);
    assert_eq!(bench.told, ["1 +hot/t1", "4 -hot/t1", "5 +hot/t1"]);
}

#[test]
fn a_rule_may_ask_for_the_quality_and_for_other_points() {
    let text = rule("bad", "on = { point = \"temperature\" }\nwhen = \"quality == 'stale'\"")
        + &rule(
            "dew",
            "on = { kind = \"sensor\" }\nwhen = \"points.temperature < 5 && points.humidity > 80\"",
        );
    let mut bench = Bench::new(&text, DOORS);
    bench.value(0, "t1", "temperature", 3.0);
    bench.sample(1, "t1", "humidity", Value::Int(90), Quality::Good);
    bench.sample(2, "t1", "temperature", Value::Float(3.0), Quality::Stale);
    bench.value(3, "t1", "temperature", 9.0);
    assert_eq!(bench.told, ["1 +dew/t1", "2 +bad/t1", "3 -bad/t1", "3 -dew/t1"]);
}

#[test]
fn often_is_so_many_within_a_sliding_window() {
    let text = rule("often", "on = { event = \"lock.failed\" }\ncount = 3\nwithin_s = 60")
        + &rule(
            "many",
            "on = { event = \"lock.failed\" }\ncount = 2\nwithin_s = 60\ndistinct = true\nper = \"building\"",
        );
    let mut bench = Bench::new(&text, DOORS);
    for at_s in [0, 30, 61, 80] {
        bench.event(at_s, "l1", "lock.failed");
    }
    bench.event(100, "l2", "lock.failed");
    bench.wait(1_000_000, 0);
    assert_eq!(bench.told, ["80 +often/l1!", "100 +many/building 3!"]);
    assert!(bench.stored().is_empty());
}

#[test]
fn devices_at_which_it_still_holds_count_however_long_ago_it_began() {
    let lines =
        |lines: &str| format!("{lines}\ncount = 2\nwithin_s = 60\ndistinct = true\nper = \"building\"");
    let text = rule("both", &lines("on = { event = \"contact.opened\" }"))
        + &rule("hot", &lines("on = { point = \"temperature\" }\nwhen = \"value > 60\""));
    let mut bench = Bench::new(&text, &[DOORS, &[("t2", "climate"), ("c3", "door-contact")]].concat());
    bench.event(0, "c1", "contact.opened");
    bench.value(1, "t1", "temperature", 70.0);
    bench.resume();
    bench.event(400, "c2", "contact.opened");
    bench.value(401, "t2", "temperature", 70.0);
    // Over before, and longer ago than the window: it does not count.
    bench.event(500, "c1", "contact.closed");
    bench.event(510, "c2", "contact.closed");
    bench.value(520, "t1", "temperature", 0.0);
    bench.value(521, "t2", "temperature", 0.0);
    bench.event(600, "c3", "contact.opened");
    assert_eq!(bench.told, ["400 +both/building 3!", "401 +hot/building 3!"]);
    bench.event(610, "c3", "contact.closed");
    bench.wait(1_000_000, 0);
    assert!(bench.stored().is_empty(), "{:?}", bench.rows);
}

#[test]
fn devices_of_no_place_do_not_belong_together() {
    let text = forced()
        + &rule(
            "many",
            "on = { event = \"contact.opened\" }\ncount = 2\nwithin_s = 60\ndistinct = true\nper = \"unit\"",
        );
    let mut directory = directory(DOORS);
    directory.devices.values_mut().for_each(|entry| entry.place = Place::default());
    let mut bench = Bench::unchecked(&text, directory);
    bench.event(0, "l1", "lock.unlocked");
    bench.event(1, "c1", "contact.opened");
    bench.event(2, "c2", "contact.opened");
    bench.wait(100_000, 0);
    assert_eq!(bench.told, ["6 +forced/c1", "7 +forced/c2"]);
}

#[test]
fn silence_is_told_once_and_ends_with_a_word() {
    let text = rule("silent", "on = { kind = \"sensor\" }\nabsent_s = 100");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.event(150, "c1", "contact.closed");
    bench.value(170, "t1", "temperature", 1.0);
    bench.wait(300_000, 0);
    assert_eq!(bench.told, ["100 +silent/t1", "170 -silent/t1", "270 +silent/t1"]);
}

#[test]
fn who_was_not_listening_heard_no_silence() {
    let text = rule("silent", "on = { kind = \"sensor\" }\nabsent_s = 100");
    let mut bench = Bench::new(&text, DOORS);
    bench.value(0, "t1", "temperature", 1.0);
    bench.restart(&text, DOORS);
    // The next record comes an hour later: the deadline at 100 s was not watched.
    bench.wait(3_600_000, 3_600_000);
    assert!(bench.told.is_empty(), "{:?}", bench.told);
    bench.wait(3_700_000, 0);
    assert_eq!(bench.told, ["3700 +silent/t1"]);
}

#[test]
fn a_rule_looks_at_its_hours_and_always_without_a_clock() {
    let text =
        rule("night", "on = { event = \"contact.opened\" }\nactive = { from = \"22:00\", to = \"06:00\" }")
            + &rule("try", "on = { event = \"lock.failed\" }\nactive = { from = \"22:00\", to = \"06:00\" }");
    let mut bench = Bench::new(&text, DOORS);
    // 13:00 UTC is 21:00 at the site.
    bench.clock_ms = 13 * 3_600_000;
    bench.event(0, "c1", "contact.opened");
    bench.event(1, "l1", "lock.failed");
    bench.event(1_800, "c2", "contact.opened");
    bench.event(1_900, "c2", "contact.closed");
    bench.event(3_601, "l1", "lock.failed");
    bench.wait(40_000_000, 0);
    bench.event(40_000, "c1", "contact.closed");
    assert_eq!(bench.told, ["3600 +night/c1", "3601 +try/l1!", "40000 -night/c1"]);
    let mut unknown = Bench::new(&text, DOORS);
    unknown.trust = ClockTrust::None;
    unknown.event(0, "l1", "lock.failed");
    assert_eq!(unknown.told, ["0 +try/l1!"]);
}

#[test]
fn a_restart_raises_nothing_again_and_forgets_nothing() {
    let held = rule("held", "on = { event = \"contact.opened\" }\nfor_s = 60");
    let text = forced() + &held;
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "l1", "lock.unlocked");
    bench.event(2, "c1", "contact.opened");
    bench.restart(&text, DOORS);
    bench.event(50, "c2", "contact.opened");
    bench.wait(62_000, 0);
    bench.restart(&text, DOORS);
    bench.wait(100_000, 0);
    assert_eq!(bench.told, ["55 +forced/c2", "62 +held/c1"]);
    // Without the one rule and the other device, what they told is over.
    bench.restart(&held, &DOORS[1..]);
    bench.event(101, "l2", "lock.failed");
    bench.wait(200_000, 0);
    assert_eq!(bench.told[2..], ["101 -forced/c2", "101 -held/c1", "110 +held/c2"]);
}

#[test]
fn what_never_happened_leaves_nothing() {
    let mut bench = Bench::new(&rule("held", "on = { event = \"contact.opened\" }\nfor_s = 60"), DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.engine.rollback();
    bench.wait(100_000, 0);
    assert!(bench.told.is_empty() && bench.stored().is_empty());
}

#[test]
fn a_test_is_apart_from_what_is_real() {
    let mut bench = Bench::new(&rule("open", "on = { event = \"contact.opened\" }"), DOORS);
    let open = bench.event_of("c1", "contact.opened");
    bench.record(0, true, Body::Event(Box::new(open)));
    bench.event(1, "c1", "contact.opened");
    bench.event(2, "c1", "contact.closed");
    assert_eq!(bench.told, ["0 +open/c1 test", "1 +open/c1", "2 -open/c1", "2 -open/c1 test"]);
}

#[test]
fn the_box_itself_is_watched_by_bus() {
    let text =
        rule("bus", "on = { event = \"bus.offline\", kind = \"gateway\" }\nwhen = \"params.bus != 'b'\"");
    let mut bench = Bench::new(&text, DOORS);
    for (at_s, bus, name, clears) in [
        (0, "a", "bus.offline", None),
        (1, "b", "bus.offline", None),
        (2, "c", "bus.offline", None),
        (3, "a", "bus.online", Some("bus.offline")),
    ] {
        let bus = crate::model::ids::BusName::new(bus).unwrap();
        let mut params = BTreeMap::from([("bus".to_owned(), Value::Text(bus.as_str().into()))]);
        params.extend(clears.map(|ended| ("clears".to_owned(), Value::Text(ended.into()))));
        let text = crate::model::record::Text::default();
        let at = bench.now(0).at;
        let draft = crate::model::record::Draft::of_gateway(&at, Some(&bus), (name, None), params, text);
        bench.record(at_s * 1_000, false, draft.body);
    }
    assert_eq!(bench.told, ["0 +bus/gateway/a", "2 +bus/gateway/c", "3 -bus/gateway/a"]);
}

#[derive(Debug, Default)]
struct Counted(std::sync::Mutex<Vec<String>>);

impl Misfits for Counted {
    fn misfit(&self, rule: &crate::model::ids::RuleName) {
        self.0.lock().unwrap().push(rule.as_str().to_owned());
    }
}

#[test]
fn what_a_condition_cannot_answer_is_counted_by_rule() {
    let text = rule("few", "on = { point = \"humidity\" }\nwhen = \"100 / value > 3\"")
        + &rule("wet", "on = { point = \"humidity\" }\nwhen = \"value > 80\"");
    let mut bench = Bench::new(&text, DOORS);
    let counted = Arc::new(Counted::default());
    bench.rules.count_misfits(Arc::clone(&counted) as Arc<dyn Misfits>);
    // Rules that take the place of others are counted as well.
    let (rules, _) = compiled(&text, &directory(DOORS));
    for rules in [Arc::clone(&bench.rules), Arc::new(rules)] {
        bench.engine.replace(rules);
        for value in [0, 1, 90] {
            bench.sample(1, "t1", "humidity", Value::Int(value), Quality::Good);
        }
    }
    assert_eq!(*counted.0.lock().unwrap(), ["few", "few"]);
}

/// Seeded: whatever comes, in whichever order, an alarm that lasts is raised before it is cleared, and never twice cleared;
/// and restarts at any point change nothing.
#[test]
fn restarts_at_any_point_change_nothing() {
    let text = forced()
        + &rule("held", "on = { event = \"contact.opened\" }\nfor_s = 20\nper = \"building\"")
        + &rule(
            "hot",
            "on = { point = \"temperature\" }\nwhen = \"value > 60\"\nuntil = \"value < 50\"\nfor_s = 7",
        )
        + &rule("often", "on = { event = \"lock.failed\" }\ncount = 3\nwithin_s = 30")
        + &rule("silent", "on = { kind = \"sensor\" }\nabsent_s = 40");
    for seed in 0..40_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let steps: Vec<(u64, usize, f64)> = (0..300)
            .map(|at| (at * 3 + random.u64(0..3), random.usize(0..7), f64::from(random.u8(30..90))))
            .collect();
        let mut straight = Bench::new(&text, DOORS);
        let mut restarted = Bench::new(&text, DOORS);
        for (at_s, what, value) in steps {
            if random.u8(0..5) == 0 {
                restarted.resume();
            }
            for bench in [&mut straight, &mut restarted] {
                match what {
                    0 => bench.event(at_s, "c1", "contact.opened"),
                    1 => bench.event(at_s, "c1", "contact.closed"),
                    2 => bench.event(at_s, "c2", "contact.opened"),
                    3 => bench.event(at_s, "c2", "contact.closed"),
                    4 => bench.event(at_s, "l1", "lock.failed"),
                    5 => bench.event(at_s, "l1", "lock.unlocked"),
                    _ => bench.value(at_s, "t1", "temperature", value),
                }
            }
        }
        assert_eq!(straight.told, restarted.told, "seed {seed}");
        assert!(straight.told.len() > 10, "seed {seed}: hardly anything happened");
        let mut open = std::collections::BTreeSet::new();
        for told in &straight.told {
            let (_, what) = told.split_once(' ').unwrap();
            match what.split_at(1) {
                ("-", of) => assert!(open.remove(of), "seed {seed}: {told} was not open"),
                (_, of) if !of.ends_with('!') => {
                    open.insert(of.to_owned());
                }
                _ => {}
            }
        }
    }
}
