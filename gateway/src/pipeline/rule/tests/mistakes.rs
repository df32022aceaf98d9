//! What `check` finds in rules.

use super::*;

/// The first finding of a rule with these lines: its path below the rule and its words.
fn found(lines: &str) -> String {
    found_in(lines, &directory(&[("c1", "door-contact"), ("l1", "door-lock"), ("t1", "climate")]))
}

fn found_in(lines: &str, directory: &Directory) -> String {
    let (_, findings) = compiled(&rule("r", lines), directory);
    let told = |finding: &Finding| {
        let problem = &finding.problem;
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}{hint}", problem.path[2..].join("."), problem.message)
    };
    findings.first().map(told).unwrap_or_default()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mistake_is_told_at_its_place() {
    for (lines, said) in [
        (
            "on = { event = \"contact.opend\" }",
            "on.event: there is no event \"contact.opend\" (did you mean \"contact.opened\"?)",
        ),
        (
            "on = { event = \"contact.opened\", kind = \"contakt\" }",
            "on.kind: there is no kind \"contakt\" (did you mean \"contact\"?)",
        ),
        (
            "on = { event = \"contact.opened\", devices = [\"c9\"] }",
            "on.devices.0: there is no device \"c9\"",
        ),
        (
            "on = { event = \"contact.opened\", tags = [\"dooor\"] }",
            "on.tags.0: there is no device with the tag \"dooor\" (did you mean \"door\"?)",
        ),
        (
            "on = { point = \"temperatur\" }\nwhen = \"value > 1\"",
            "on.point: there is no point \"temperatur\" (did you mean \"temperature\"?)",
        ),
        ("on = { point = \"temperature\" }", "on.point: nothing says which values matter"),
        ("on = { kind = \"contact\" }", "on: nothing says what the rule watches"),
        (
            "on = { point = \"temperature\" }\nwhen = \"value > 'a'\"",
            "when: it does not fit device \"t1\" (profile \"climate\"): ",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"value > 1.5 && value * 2.0 > 3.0\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"points.temprature > 1.5\"",
            "when: it does not fit device \"t1\" (profile \"climate\"): \"temprature\" is not there; did you mean \"temperature\"?",
        ),
        // What is asked only of some values, texts, qualities.
        (
            "on = { point = \"humidity\" }\nwhen = \"value > 1500 && value * 2.0 > 3.0\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { point = \"temperature\" }\nwhen = \"value > 0.5 && value < 0.7 && value * 2 > 1\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { point = \"temperature\" }\nwhen = \"value < -40 && value * 2 < -100\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { point = \"state\" }\nwhen = \"value == 'jammed' && points.humidity > 95 && value > 3\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { point = \"temperature\" }\nwhen = \"quality == 'stale' && value > 'a'\"",
            "when: it does not fit device \"t1\"",
        ),
        (
            "on = { event = \"lock.failed\" }\nwhen = \"params.user > 100 && params.user.startsWith('k')\"",
            "when: it does not fit device \"l1\"",
        ),
        ("on = { point = \"humidity\" }\nwhen = \"value + 1\"", "when: it does not fit device \"t1\""),
        ("on = { point = \"humidity\" }\nwhen = \"valeu > 1\"", "when: `valeu` is not known"),
        ("on = { point = \"humidity\" }\nwhen = \"params.x > 1\"", "when: `params` are of the event"),
        (
            "on = { event = \"lock.failed\" }\nwhen = \"value > 1\"",
            "when: `value` and `quality` are of the point",
        ),
        ("on = { event = \"lock.failed\" }\nfor_s = 5", "for_s: nothing ends \"lock.failed\""),
        ("on = { event = \"lock.failed\" }\ncount = 2", "count: `count` and `within_s` belong together"),
        (
            "on = { event = \"lock.failed\" }\ncount = 2\nwithin_s = 9\nabsent_s = 60",
            "absent_s: `absent_s` and `count` exclude each other",
        ),
        (
            "on = { event = \"lock.failed\" }\ndistinct = true",
            "distinct: `distinct` says what `count` counts",
        ),
        (
            "on = { event = \"lock.failed\" }\nunless = { events = [\"lock.unlokced\"], within_s = 5 }",
            "unless.events.0: there is no event",
        ),
        ("on = { event = \"action.requested\" }", "on.event: \"action.requested\" is the pipeline's own"),
        (
            "on = { event = \"lock.failed\" }\nactive = { from = \"07:00\", to = \"07:00\" }",
            "active: `from` and `to` are the same",
        ),
        (
            "on = { event = \"lock.failed\" }\nescalate = { after_s = 60, to = \"warning\" }",
            "escalate.to: it is minor already",
        ),
        // What is never the same as another: it would be silent for ever.
        (
            "on = { point = \"temperature\" }\nwhen = \"value == '45'\"",
            "when: it does not fit device \"t1\" (profile \"climate\"): it compares a number with a text",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"value in [true, 3]\"",
            "when: it does not fit device \"t1\"",
        ),
        ("on = { point = \"state\" }\nwhen = \"points.state != 1\"", "when: it does not fit device \"t1\""),
        (
            "on = { event = \"lock.failed\" }\nwhen = \"place.building == 3\"",
            "when: it does not fit device \"l1\" (profile \"door-lock\"): it compares a text with a number",
        ),
        (
            "on = { event = \"contact.opened\" }\nwhen = \"device.tags == 'door'\"",
            "when: it does not fit device \"c1\" (profile \"door-contact\"): it compares a list with a text",
        ),
        (
            "on = { event = \"contact.opened\" }\nwhen = \"3 in device.tags\"",
            "when: it does not fit device \"c1\"",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"quality == 'god'\"",
            "when: it does not fit device \"t1\" (profile \"climate\"): there is no quality \"god\"; there is: good",
        ),
        (
            "on = { event = \"contact.opened\" }\nwhen = \"place.bulding == '3'\"",
            "when: it does not fit device \"c1\" (profile \"door-contact\"): \"bulding\" is not there; did you mean \"building\"?",
        ),
        (
            "on = { point = \"state\" }\nwhen = \"value.matches('L.*')\"",
            "when: there is no function `matches`; there is: size, contains",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"humidity > 3\"",
            "when: `humidity` is not known; there is: value, quality, points, params, device, place; a point is `value`, \
             or `points.humidity`",
        ),
        (
            "on = { point = \"humidity\" }\nwhen = \"value > 3 and value < 9\"",
            "when: Syntax error: mismatched input 'and' expecting",
        ),
        (
            "on = { event = \"contact.opened\" }\nper = \"building\"\n\
             unless = { events = [\"lock.unlocked\"], within_s = 5, same = \"unit\" }",
            "per: `per` takes more together than `same` explains",
        ),
        (
            "on = { event = \"contact.opened\" }\nper = \"unit\"\nunless = { events = [\"lock.unlocked\"], within_s = 5 }",
            "per: `per` takes more together than `same` explains: what happened elsewhere would be explained too \
             (leave `per` at device, or name the wider place in `same`)",
        ),
        ("on = { event = \"lock.failed\", kind = \"contact\" }", "on: no device of this box is watched"),
    ] {
        assert!(
            found(lines).contains(said) && found(lines).starts_with(said.split(':').next().unwrap()),
            "{lines}\n{}",
            found(lines)
        );
    }
}

#[test]
fn devices_whose_place_says_too_little_are_named() {
    let on = "on = { event = \"contact.opened\" }";
    for (lines, nowhere, said) in [
        (
            "per = \"unit\"",
            vec!["c1"],
            "per: rule \"r\" takes devices of one place together, and not all is known of: c1 \
             (give them a `place` with building, unit; until then each of them stands for itself)",
        ),
        ("per = \"building\"", vec!["c1", "c2", "c3", "c4"], "is known of: c1, c2, c3 and 1 more"),
        (
            "unless = { events = [\"lock.unlocked\"], within_s = 5, same = \"building\" }",
            vec!["c2"],
            "unless.same: rule \"r\" takes devices of one place together, and not all is known of: c2",
        ),
        ("per = \"unit\"", vec![], ""),
        ("per = \"compound\"", vec!["c1"], ""),
    ] {
        let names = ["c1", "c2", "c3", "c4"].map(|id| (id, "door-contact"));
        let mut directory = directory(&[names.as_slice(), &[("l1", "door-lock")]].concat());
        for (id, entry) in &mut directory.devices {
            if nowhere.contains(&id.as_str()) {
                entry.place = Place::default();
            }
        }
        let told = found_in(&format!("{on}\n{lines}"), &directory);
        assert!(told.contains(said) && said.is_empty() == told.is_empty(), "{lines}: {told}");
    }
}

#[test]
fn what_is_right_is_not_told() {
    for lines in [
        "on = { event = \"contact.opened\" }\nwhen = \"params.user == 5 && place.unit == '1'\"",
        "on = { event = \"lock.failed\" }\nwhen = \"params.user > 100 && params.source.startsWith('key')\"",
        "on = { point = \"humidity\" }\nwhen = \"value * value * value > 8000000\"",
        "on = { point = \"temperature\" }\nwhen = \"value > 30 || points.humidity > 60\"",
        "on = { point = \"state\" }\nwhen = \"value == 'open' && 'door' in device.tags\"",
        "on = { point = \"temperature\" }\nwhen = \"value == 45 || value in [1, 2.5] || points.state in ['a', 'b']\"",
        "on = { point = \"humidity\" }\nwhen = \"quality != 'good' && device.id == 't1' && !('roof' in device.tags)\"",
        "on = { event = \"contact.opened\" }\nwhen = \"device.tags.exists(tag, tag == 'door') && params.user == 3\"",
        "on = { event = \"contact.opened\" }\nper = \"unit\"\nunless = { events = [\"lock.unlocked\"], within_s = 5, same = \"building\" }",
        "on = { event = \"contact.opened\" }\nper = \"device\"\nunless = { events = [\"lock.unlocked\"], within_s = 5, same = \"unit\" }",
        "on = { kind = \"sensor\" }\nabsent_s = 60",
        "on = { event = \"device.offline\" }\nends = \"device.online\"\nfor_s = 5",
    ] {
        assert_eq!(found(lines), "", "{lines}");
    }
}

#[test]
fn a_test_that_fails_says_what_came() {
    let text = |lines: &str| {
        // The tests stand behind [rule.raise].
        let rule = rule("r", "on = { event = \"contact.opened\" }\nfor_s = 60");
        format!("{rule}[[rule.test]]\nname = \"t\"\n{lines}")
    };
    let directory = directory(&[("c1", "door-contact")]);
    let found = |lines: &str| compiled(&text(lines), &directory).1;
    let opened = "steps = [{ at_s = 1, event = \"contact.opened\" }]\n";
    assert!(found(&format!("{opened}raised_s = [61]")).is_empty());
    let late = found(&format!("{opened}raised_s = [60]\ncleared_s = [99]"));
    let told: Vec<&str> = late.iter().map(|finding| finding.problem.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "test \"t\": it is raised at 61 s, and should at 60 s",
            "test \"t\": it ends never, and should at 99 s"
        ]
    );
    assert_eq!(late[0].problem.path, ["rule", "0", "test", "0", "raised_s"]);
    for (lines, path, said) in [
        (
            "steps = [{ at_s = 1, event = \"contact.opend\" }]",
            "steps.0.event",
            "there is no event \"contact.opend\"",
        ),
        (
            "steps = [{ at_s = 1, points = { temprature = 3.5 } }]",
            "steps.0.points.temprature",
            "there is no point \"temprature\"",
        ),
        (
            "devices = { b = { profile = \"door-lock\" } }\nsteps = [{ at_s = 1, event = \"contact.opened\" }]",
            "devices.b",
            "no step is one of the device \"b\"",
        ),
        (
            "devices = { b = { profile = \"door-lock\" } }\nsteps = [{ at_s = 1, event = \"contact.opened\", device = \"b\" }]",
            "",
            "profile \"door-lock\" does not tell \"contact.opened\"",
        ),
        (
            "devices = { t = { profile = \"climate\" } }\nsteps = [{ at_s = 1, points = { humidity = \"3\" }, device = \"t\" }]",
            "",
            "the point \"humidity\" of profile \"climate\" is a number, and the step says a text",
        ),
    ] {
        let slip = found(lines);
        let told = slip.iter().map(|finding| (finding.problem.path[4..].join("."), &finding.problem.message));
        assert!(told.clone().any(|(at, message)| at == path && message.contains(said)), "{lines}: {slip:?}");
    }
    let order =
        found("steps = [{ at_s = 9, event = \"contact.opened\" }, { at_s = 1, event = \"contact.closed\" }]");
    assert_eq!(order[0].problem.path, ["rule", "0", "test", "0", "steps", "1"]);
}

#[test]
fn a_test_goes_on_as_long_as_the_rule_waits() {
    let lines = "on = { event = \"contact.opened\" }\nactive = { from = \"22:00\", to = \"06:00\" }";
    let evening = "[[rule.test]]\nname = \"t\"\nclock = \"21:30\"\n\
                   steps = [{ at_s = 0, event = \"contact.opened\" }]\nraised_s = [1800]\n";
    let (_, findings) = compiled(&(rule("r", lines) + evening), &directory(&[("c1", "door-contact")]));
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn names_stand_once_and_rules_are_bounded() {
    let directory = directory(&[("l1", "door-lock")]);
    let lines = "on = { event = \"lock.failed\" }";
    let (_, findings) = compiled(&(rule("r", lines) + &rule("r", lines)), &directory);
    assert_eq!(findings[0].problem.message, "a rule \"r\" stands in own already");
    let many: String =
        (0..=crate::model::limits::RULES_MAX).map(|number| rule(&format!("r{number}"), lines)).collect();
    let (_, findings) = compiled(&many, &directory);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].problem.message, "with this rule there are more than 1000 rules");
}

#[test]
fn a_loop_is_refused_with_all_rules_of_it_named() {
    let directory = directory(&[("l1", "door-lock"), ("l2", "door-lock"), ("c1", "door-contact")]);
    let opens =
        |on: &str| format!("[[rule.do]]\nunlock = {{ pulse_ms = 3000 }}\non = {{ devices = [\"{on}\"] }}\n");
    let watches = |name: &str, device: &str| {
        rule(name, &format!("on = {{ event = \"lock.unlocked\", devices = [\"{device}\"] }}"))
    };
    let found = |text: String| compiled(&text, &directory).1;
    let straight = found(watches("a", "l1") + &opens("l2"));
    assert!(straight.is_empty(), "{straight:?}");
    let itself = found(watches("a", "l1") + &opens("l1"));
    let message = &itself[0].problem.message;
    assert!(message.contains("\"a\" acts, and l1 may tell"), "{message}");
    let both = found(watches("a", "l1") + &opens("l2") + &watches("b", "l2") + &opens("l1"));
    let message = &both[0].problem.message;
    assert_eq!(both.len(), 1);
    assert!(message.contains("\"a\" acts, and l2") && message.contains("\"b\" acts, and l1"), "{message}");
    assert_eq!(both[0].problem.path, ["rule", "0", "do"]);
}

#[test]
fn actions_must_fit_the_alarm_and_the_devices() {
    let directory = directory(&[("c1", "door-contact"), ("l1", "door-lock")]);
    let lines = "on = { event = \"contact.opened\" }";
    let found = |action: &str| -> Vec<(String, String)> {
        let (_, findings) = compiled(&(rule("r", lines) + action), &directory);
        findings.into_iter().map(|found| (found.problem.path[2..].join("."), found.problem.message)).collect()
    };
    let all = found("[[rule.do]]\nunlock = { hold = true }\non = { devices = [\"l1\"] }\n");
    assert_eq!(all[0], ("do.0.unlock.hold".to_owned(), "only fire holds doors open".to_owned()));
    // And what is no output of ours may lock again.
    assert!(all.len() == 2 && all[1].1.contains("not held open: l1"), "{all:?}");
    let silent = "silent = true\n[[rule.do]]\nspeak = { zh = \"甲\" }\non = { kind = \"lock\" }\n";
    assert_eq!(found(silent)[0], ("do.0".to_owned(), "a silent alarm does not speak".to_owned()));
}
