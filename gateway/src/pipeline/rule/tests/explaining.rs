//! `unless`.

use super::flow::DOORS;
use super::*;

/// Opened, by the value of a point, and not unlocked shortly before or after.
fn forced(lines: &str) -> String {
    forced_in("unit", lines)
}

fn forced_in(same: &str, lines: &str) -> String {
    let unless = format!("unless = {{ events = [\"lock.unlocked\"], within_s = 5, same = \"{same}\" }}");
    rule("forced", &format!("on = {{ point = \"temperature\" }}\nwhen = \"value > 1\"\n{unless}\n{lines}"))
}

#[test]
fn a_value_that_is_told_again_stays_explained_until_it_is_over() {
    let mut bench = Bench::new(&forced(""), DOORS);
    // Before it, and after it.
    for (unlocked_s, opened_s, told_s) in [(10, 11, 30), (102, 100, 130)] {
        let mut steps = [(unlocked_s, None), (opened_s, Some(2.0)), (told_s, Some(2.0))];
        steps.sort_by_key(|(at_s, _)| *at_s);
        for (at_s, value) in steps {
            match value {
                Some(value) => bench.value(at_s, "t1", "temperature", value),
                None => bench.event(at_s, "l1", "lock.unlocked"),
            }
        }
        bench.resume();
        bench.value(told_s + 20, "t1", "temperature", 3.0);
        bench.value(told_s + 30, "t1", "temperature", 0.0);
    }
    assert!(bench.told.is_empty(), "{:?}", bench.told);
    bench.value(200, "t1", "temperature", 2.0);
    bench.wait(300_000, 0);
    assert_eq!(bench.told, ["205 +forced/t1"]);
    bench.value(301, "t1", "temperature", 0.0);
    assert!(bench.stored().is_empty(), "{:?}", bench.rows);
}

#[test]
fn what_is_explained_keeps_no_alarm_of_its_group_open() {
    let mut bench =
        Bench::new(&forced_in("building", "per = \"building\""), &[DOORS, &[("t2", "climate")]].concat());
    bench.event(0, "l1", "lock.unlocked");
    bench.value(1, "t1", "temperature", 2.0);
    bench.value(10, "t2", "temperature", 2.0);
    bench.value(20, "t2", "temperature", 0.0);
    bench.value(30, "t1", "temperature", 2.0);
    bench.wait(100_000, 0);
    assert_eq!(bench.told, ["15 +forced/building 3", "20 -forced/building 3"]);
}

#[test]
fn what_must_hold_and_may_be_explained_waits_for_both() {
    let opened = |for_s: u32| {
        rule(
            "forced",
            &format!(
                "on = {{ event = \"contact.opened\" }}\nfor_s = {for_s}\n\
                 unless = {{ events = [\"lock.unlocked\"], within_s = 5, same = \"unit\" }}"
            ),
        )
    };
    // How long the door was open, when it was unlocked, and what comes of it.
    for (for_s, open_s, unlocked_s, told) in [
        (1, 4, 900, &["5 +forced/c1!"][..]),
        (1, 20, 900, &["5 +forced/c1", "20 -forced/c1"]),
        (2, 1, 900, &[]),
        (1, 4, 3, &[]),
        (1, 20, 4, &[]),
        (10, 20, 900, &["10 +forced/c1", "20 -forced/c1"]),
        (10, 20, 4, &[]),
        // That somebody was let in long after it opened does not explain why.
        (10, 20, 8, &["10 +forced/c1", "20 -forced/c1"]),
    ] {
        let mut bench = Bench::new(&opened(for_s), DOORS);
        let mut steps = [
            (0, "c1", "contact.opened"),
            (open_s, "c1", "contact.closed"),
            (unlocked_s, "l1", "lock.unlocked"),
        ];
        steps.sort_unstable();
        for (at_s, device, event) in steps {
            bench.event(at_s, device, event);
            bench.resume();
        }
        bench.wait(1_000_000, 0);
        assert_eq!(bench.told, told, "for {for_s} s, open {open_s} s, unlocked at {unlocked_s} s");
        assert!(bench.stored().is_empty(), "{:?}", bench.rows);
    }
}
