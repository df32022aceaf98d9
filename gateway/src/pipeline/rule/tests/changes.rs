//! What a changed configuration means for what rules remember.

use super::flow::DOORS;
use super::*;

fn maintenance(directory: &mut Directory, id: &str, maintenance: bool) {
    directory.devices.get_mut(id).unwrap().maintenance = maintenance;
}

#[test]
fn silence_of_a_device_under_maintenance_is_a_test() {
    let text = rule("silent", "on = { kind = \"sensor\" }\nabsent_s = 100");
    let mut bench = Bench::new(&text, DOORS);
    bench.value(0, "t1", "temperature", 1.0);
    bench.reconfigure(&text, |directory| maintenance(directory, "t1", true));
    bench.value(50, "t1", "temperature", 1.0);
    bench.value(120, "t1", "temperature", 1.0);
    bench.wait(220_000, 0);
    assert_eq!(bench.told, ["220 +silent/t1 test"]);
    // Its next word ends it, whatever mark it bears.
    bench.reconfigure(&text, |directory| maintenance(directory, "t1", false));
    bench.value(230, "t1", "temperature", 1.0);
    bench.wait(330_000, 0);
    assert_eq!(bench.told[1..], ["230 -silent/t1 test", "330 +silent/t1"]);
}

#[test]
fn silence_of_what_is_not_selected_any_more_is_not_told() {
    let text = rule("silent", "on = { tags = [\"door\"] }\nabsent_s = 100");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.event(0, "c2", "contact.opened");
    bench.reconfigure(&text, |directory| directory.devices.get_mut("c2").unwrap().tags.clear());
    bench.event(50, "c2", "contact.closed");
    bench.wait(1_000_000, 0);
    assert_eq!(bench.told, ["100 +silent/c1"]);
}

#[test]
fn whoever_is_left_of_a_group_is_listened_to_while_another_is_under_maintenance() {
    let text = rule("silent", "on = { tags = [\"door\"] }\nabsent_s = 100\nper = \"building\"");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.wait(100_000, 0);
    bench.reconfigure(&text, |directory| maintenance(directory, "c1", true));
    bench.event(150, "c1", "contact.closed");
    bench.event(160, "l1", "lock.failed");
    bench.wait(270_000, 0);
    let told = ["100 +silent/building 3", "150 -silent/building 3", "250 +silent/building 3 test"];
    assert_eq!(bench.told[..3], told);
    assert_eq!(bench.told[3..], ["260 +silent/building 3"]);
}

#[test]
fn a_device_that_moved_is_listened_to_at_its_new_place() {
    let text = rule("silent", "on = { kind = \"sensor\" }\nabsent_s = 100\nper = \"unit\"");
    let mut bench = Bench::new(&text, DOORS);
    bench.value(0, "t1", "temperature", 1.0);
    bench.reconfigure(&text, |directory| {
        directory.devices.get_mut("t1").unwrap().place.unit = Some("7".into());
    });
    for at_s in [50, 120, 190] {
        bench.value(at_s, "t1", "temperature", 1.0);
    }
    bench.wait(290_000, 0);
    assert_eq!(bench.told, ["290 +silent/unit 3/7"]);
}

#[test]
fn what_arose_before_maintenance_ends_within_it_and_the_other_way_round() {
    let text = rule("open", "on = { event = \"contact.opened\" }")
        + &rule("hot", "on = { point = \"temperature\" }\nwhen = \"value > 60\"\nuntil = \"value < 50\"");
    for before in [false, true] {
        let (was, is) = if before { (" test", "") } else { ("", " test") };
        let mut bench = Bench::new(&text, DOORS);
        bench.reconfigure(&text, |directory| {
            for id in ["c1", "t1"] {
                maintenance(directory, id, before);
            }
        });
        bench.event(0, "c1", "contact.opened");
        bench.value(1, "t1", "temperature", 70.0);
        bench.reconfigure(&text, |directory| {
            for id in ["c1", "t1"] {
                maintenance(directory, id, !before);
            }
        });
        bench.value(2, "t1", "temperature", 55.0);
        bench.event(3, "c1", "contact.closed");
        bench.value(4, "t1", "temperature", 40.0);
        bench.value(5, "t1", "temperature", 61.0);
        let told = [
            format!("0 +open/c1{was}"),
            format!("1 +hot/t1{was}"),
            format!("3 -open/c1{was}"),
            format!("4 -hot/t1{was}"),
            format!("5 +hot/t1{is}"),
        ];
        assert_eq!(bench.told, told);
    }
}

#[test]
fn what_waits_for_a_device_under_maintenance_calls_nobody() {
    let text = rule("held", "on = { event = \"contact.opened\" }\nfor_s = 60");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.reconfigure(&text, |directory| maintenance(directory, "c1", true));
    bench.event(1, "l1", "lock.failed");
    bench.wait(1_000_000, 0);
    assert!(bench.told.is_empty(), "{:?}", bench.told);
}

#[test]
fn what_a_rule_raised_ends_where_it_counts_from_now_on_and_the_other_way_round() {
    let rule_with = |lines: &str| rule("r", &format!("on = {{ event = \"contact.opened\" }}\n{lines}"));
    let (lasts, counts) = (rule_with(""), rule_with("count = 2\nwithin_s = 60"));
    let mut bench = Bench::new(&lasts, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.restart(&counts, DOORS);
    bench.event(10, "c2", "contact.opened");
    bench.event(20, "c1", "contact.closed");
    bench.restart(&lasts, DOORS);
    bench.event(30, "l1", "lock.failed");
    assert_eq!(bench.told, ["0 +r/c1", "10 -r/c1"]);
    assert!(bench.stored().is_empty(), "{:?}", bench.rows);
}

#[test]
fn what_a_rule_does_not_watch_any_more_is_over() {
    let opened = "on = { event = \"contact.opened\" }";
    for (before, after) in [
        (opened, "on = { event = \"device.offline\" }\nends = \"device.online\""),
        (opened, "on = { kind = \"contact\", event = \"contact.closed\" }"),
        (
            "on = { event = \"device.offline\" }\nends = \"device.online\"",
            "on = { event = \"device.offline\" }",
        ),
        (opened, "on = { event = \"contact.closed\" }\nfor_s = 60\nends = \"device.online\""),
    ] {
        let mut bench = Bench::new(&rule("r", before), DOORS);
        bench.event(0, "c1", if before == opened { "contact.opened" } else { "device.offline" });
        bench.restart(&rule("r", after), DOORS);
        bench.event(10, "l1", "lock.failed");
        bench.wait(100_000, 0);
        assert_eq!(bench.told, ["0 +r/c1", "10 -r/c1"], "{before}\n{after}");
    }
    // What it watches still goes on.
    let mut bench = Bench::new(&rule("r", opened), DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.restart(&rule("r", &format!("{opened}\nfor_s = 60")), DOORS);
    bench.event(10, "l1", "lock.failed");
    bench.event(20, "c1", "contact.closed");
    assert_eq!(bench.told, ["0 +r/c1", "20 -r/c1"]);
}

#[test]
fn what_waits_is_raised_as_the_rule_says_by_then() {
    let text = rule("held", "on = { event = \"contact.opened\" }\nfor_s = 60");
    let mut bench = Bench::new(&text, DOORS);
    bench.event(0, "c1", "contact.opened");
    bench.restart(&text.replace("minor", "critical"), DOORS);
    let now = bench.now(60_000);
    let mut signals = Vec::new();
    let (_, due) = bench.engine.next_due().unwrap();
    bench.engine.fire(&now, &due, 0, &mut signals);
    let Signal::Raise(raise) = &signals[0] else { panic!("{signals:?}") };
    assert_eq!(raise.condition.severity, Some(crate::model::record::Severity::Critical));
}
