//! Rules in the configuration: shipped ones, own ones, and those that are switched off.

use super::super::*;
use super::{GOOD, mistakes, root};
use crate::model::check::Weight;

/// A device of every shipped profile that speaks MQTT.
fn everything() -> String {
    let profiles = crate::south::profile::shipped_profiles().unwrap();
    let mqtt = profiles.iter().filter(|(_, profile)| profile.mqtt.is_some());
    let devices = mqtt.map(|(name, _)| {
        format!("[devices.{name}]\nprofile = \"{name}\"\nclient = \"z2m\"\naddress = \"x-{name}\"\ntags = [\"door\"]\n\
             place = {{ building = \"3\", unit = \"1\" }}\n")
    });
    format!("{GOOD}{}", devices.collect::<String>())
}

#[test]
fn the_shipped_rules_are_sound_and_their_tests_pass() {
    let report = check_bytes("gatehouse.toml", everything().as_bytes());
    assert_eq!(report.text(), "", "{}", report.text());
}

#[test]
fn devices_of_no_place_that_shipped_rules_take_together_are_named() {
    let text = everything().replace("place = { building = \"3\", unit = \"1\" }\n", "");
    let report = check_bytes("gatehouse.toml", text.as_bytes());
    assert!(mistakes(&report).is_empty(), "{}", report.text());
    let text = report.text();
    assert!(text.contains("rule \"smoke-confirmed\" takes devices of one place together"), "{text}");
    assert!(text.contains("place` with building, unit"), "{text}");
}

#[test]
fn shipped_rules_carry_tests_and_watch_known_events() {
    let mut names = std::collections::BTreeSet::new();
    for (file, text) in crate::pipeline::rule::shipped() {
        let rules: crate::pipeline::rule::config::RuleFile = toml::from_str(text).unwrap();
        for rule in &rules.rule {
            assert!(!rule.test.is_empty(), "{file}: {} carries no test", rule.name);
            assert!(names.insert(rule.name.clone()), "{} stands twice", rule.name);
            assert!(!rule.raise.text.zh.contains([',', ';', ':']), "{}: half-width punctuation", rule.name);
        }
    }
    for name in ["emergency-button", "tamper", "door-forced", "door-held-open", "smoke", "gas", "water-leak"]
    {
        assert!(names.iter().any(|known| known.as_str() == name), "{name} is not shipped");
    }
    // The same files as somebody's own, where every name must be known.
    let files: Vec<(String, String)> = crate::pipeline::rule::shipped()
        .iter()
        .map(|(file, text)| (format!("rules/{file}.toml"), (*text).to_owned()))
        .collect();
    let tagged = everything()
        .replace("compound =", "rules_dir = \"rules\"\ncompound =")
        .replace("tags = [\"door\"]", "tags = [\"door\", \"watched\", \"guard-rail\"]");
    let mut all = vec![("a.toml".to_owned(), tagged)];
    all.extend(files);
    let all: Vec<(&str, &str)> = all.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (_directory, loaded) = super::files::load_files(&all);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.text()));
    assert!(loaded.warnings.findings().iter().all(|finding| !finding.message.starts_with("there is no")));
}

const OWN: &str = r#"[[rule]]
name = "mine"
title = { zh = "甲", en = "mine" }
on = { event = "button.pressed", devices = ["sos-1"] }

[rule.raise]
category = "emergency"
severity = "critical"
text = { zh = "甲", en = "mine" }

[[rule.test]]
name = "a press"
steps = [{ at_s = 0, event = "button.pressed" }]
raised_s = [0]
"#;

fn with_own(own: &str, more: &str) -> (tempfile::TempDir, Result<Loaded, Report>) {
    let main = GOOD.replace("compound =", &format!("rules_dir = \"rules\"\n{more}\ncompound ="));
    super::files::load_files(&[("a.toml", &main), ("rules/fire.toml", own)])
}

#[test]
fn an_own_file_adds_rules_and_replaces_the_shipped_one_of_its_name() {
    let (_directory, loaded) = with_own(OWN, "rules_disabled = [\"tamper\"]");
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.text()));
    let names: Vec<&str> = loaded.rules.configs().map(|rule| rule.name.as_str()).collect();
    assert!(names.contains(&"mine") && names.contains(&"emergency-button"), "{names:?}");
    assert!(!names.contains(&"smoke") && !names.contains(&"tamper"), "{names:?}");
}

#[test]
fn mistakes_in_rules_have_their_places() {
    let places = |own: &str, more: &str| mistakes(&with_own(own, more).1.unwrap_err());
    let wrong = OWN.replace("button.pressed\", dev", "button.presed\", dev").replace("severity", "serverity");
    assert_eq!(places(&wrong, ""), ["8:1 unknown key `serverity`"]);
    let wrong = OWN.replace("button.pressed\", dev", "button.presed\", dev");
    assert_eq!(places(&wrong, "")[0], "4:16 there is no event \"button.presed\"");
    let wrong = OWN.replace("raised_s = [0]", "raised_s = [1]");
    assert_eq!(places(&wrong, ""), ["14:12 test \"a press\": it is raised at 0 s, and should at 1 s"]);
    let wrong = OWN.replace("\n[rule.raise]", "when = \"params.x >\"\n[rule.raise]");
    assert!(places(&wrong, "")[0].starts_with("5:8 "), "{:?}", places(&wrong, ""));
    // One slip costs one message.
    let wrong = OWN.replace("button.pressed\", dev", "button.pressed\"， dev");
    let found = places(&wrong, "");
    assert!(found.len() == 1 && found[0].starts_with("4:32 missing comma"), "{found:?}");
    let wrong = OWN.replace("event = \"button.pressed\" }", "points = { battery = nan } }");
    assert_eq!(places(&wrong, ""), ["13:43 `battery` must be a finite number"]);
    for (right, slip, said) in [
        ("[[rule]]", "[rule]", "two brackets"),
        ("raised_s = [0]", "raised_s = 0", "write [0]"),
        ("title = { zh = \"甲\", en = \"mine\" }", "title = \"甲\"", "write { zh = …, en = … }"),
        ("\n[rule.raise]", "when = \"value ＞ 3\"\n\n[rule.raise]", "write `>` instead"),
    ] {
        let report = with_own(&OWN.replacen(right, slip, 1), "").1.unwrap_err().text();
        assert!(report.contains(said), "{slip}: {report}");
    }
    assert_eq!(
        places(OWN, "rules_disabled = [\"tampr\"]"),
        ["4:19 there is no rule \"tampr\" to switch off"]
    );
}

#[test]
fn further_files_replace_rules_by_name() {
    let (_directory, loaded) = with_own(OWN, "");
    let loaded = loaded.unwrap();
    let before = loaded.rules.len();
    let changed = OWN.replace("severity = \"critical\"", "severity = \"major\"");
    let rules = loaded.rules_with(&[("fire.toml".to_owned(), changed.into_bytes())]).unwrap();
    assert_eq!(rules.len(), before);
    let mine = rules.configs().find(|rule| rule.name.as_str() == "mine").unwrap();
    assert_eq!(mine.raise.severity, crate::model::record::Severity::Major);
    let twice = ["x.toml", "y.toml"].map(|name| (name.to_owned(), OWN.as_bytes().to_vec()));
    let report = loaded.rules_with(&twice).unwrap_err().text();
    assert!(report.contains("a rule \"mine\" stands in x.toml (file 1) already"), "{report}");
    let wrong = OWN.replace("raised_s = [0]", "raised_s = []");
    let report = loaded.rules_with(&[("x.toml".to_owned(), wrong.into_bytes())]).unwrap_err();
    let told = report.findings().iter().find(|finding| finding.weight == Weight::Error).unwrap();
    assert_eq!(told.place.as_ref().map(|place| (place.file.as_str(), place.line)), Some(("x.toml", 14)));
}

#[test]
fn what_rules_let_devices_do_is_judged() {
    let told = |action: &str| {
        let report = with_own(&format!("{OWN}\n[[rule.do]]\n{action}\n"), "").1;
        match report {
            Ok(loaded) => loaded.warnings.text(),
            Err(report) => report.text(),
        }
    };
    for (action, needle) in [
        ("speak = { zh = \"{{ place.household }}\" }\non = { place = \"same-unit\" }", "not said in public"),
        ("speak = { zh = \"来人\" }\non = { place = \"same-unit\" }", "no device can do this"),
        ("unlock = { hold = true }\non = { place = \"compound\" }", "no way to open all doors"),
        ("unlock = { hold = true }\non = { place = \"same-unit\" }", "only fire holds doors open"),
        ("publish = { topic = \"{base}/x\", payload = \"1\" }\non = { devices = [\"sos-1\"] }", "a loop:"),
    ] {
        assert!(told(action).contains(needle), "{needle:?}: {}", told(action));
    }
}

#[test]
fn no_message_of_a_rule_reaches_a_door_or_speaks_for_a_device() {
    let others = "[clients.horns]\n[devices.horn]\nprofile = \"lan-speaker\"\nclient = \"horns\"\naddress = \"h\"\n\
                  [devices.lamp]\nprofile = \"lan-speaker\"\nclient = \"z2m\"\naddress = \"lamp\"\n\
                  [devices.front]\nprofile = \"z2m-lock\"\nclient = \"z2m\"\naddress = \"front\"\n";
    let told = |device: &str, topic: &str| {
        let action = format!(
            "[[rule.do]]\npublish = {{ topic = \"{topic}\", payload = \"1\" }}\non = {{ devices = [\"{device}\"] }}"
        );
        let main = format!("{}{others}", GOOD.replace("compound =", "rules_dir = \"rules\"\ncompound ="));
        let own = OWN.replace("\n[[rule.test]]", &format!("\n{action}\n[[rule.test]]"));
        let (_directory, loaded) = super::files::load_files(&[("a.toml", &main), ("rules/fire.toml", &own)]);
        loaded.err().map_or_else(String::new, |report| mistakes(&report).join("; "))
    };
    for (device, topic, owner) in [
        ("lamp", "{base}/{address}/set", None),
        ("horn", "{base}/group/set", None),
        ("lamp", "{base}/front/set", Some("front")),
        ("lamp", "{base}/front/set/state", Some("front")),
        ("lamp", "zigbee2mqtt/front/right/set", Some("front")),
        // Brokers may be bridged.
        ("horn", "zigbee2mqtt/front/set", Some("front")),
        // A group, or the door under its hardware address.
        ("lamp", "{base}/0x00158d0001a2b3c4/set", Some("front")),
        ("lamp", "{base}/sos-1", Some("front")),
        ("horn", "zigbee2mqtt/sos-1", Some("sos-1")),
    ] {
        let found = told(device, topic);
        let expected = owner.map_or_else(String::new, |owner| {
            format!("by way of \"{device}\" the message may be taken for one to or of \"{owner}\"")
        });
        assert!(
            if owner.is_some() { found.ends_with(&expected) } else { found.is_empty() },
            "{topic}: {found}"
        );
    }
}

/// The TOML of a page, block by block.
fn blocks(page: &str) -> Vec<String> {
    let mut rest = page.split("```");
    let mut blocks = Vec::new();
    // Text and blocks take turns.
    while let (Some(_), Some(block)) = (rest.next(), rest.next()) {
        blocks.extend(block.strip_prefix("toml\n").map(str::to_owned));
    }
    blocks
}

#[test]
fn the_examples_of_the_page_about_rules_are_sound() {
    let page = std::fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let (head, others) = GOOD.split_at(GOOD.find("[buses").unwrap());
    let usual = format!("{head}rules_dir = \"rules\"\n");
    let fire = crate::pipeline::rule::shipped().iter().find(|(file, _)| *file == "fire").unwrap().1;
    let mut seen = [0; 3];
    for block in blocks(&page) {
        // Beside the configuration: a file of rules, or lines of a rule that are said to belong into one.
        let (which, head, file, text) = if block.starts_with("[gateway]") {
            (0, block.as_str(), "rules/none.toml", String::new())
        } else if block.starts_with("[[rule]]") {
            (1, usual.as_str(), "rules/own.toml", block.clone())
        } else if block.starts_with("[[rule.do]]") {
            let (others, confirmed) = fire.split_once("name = \"smoke-confirmed\"").unwrap();
            let added = confirmed.replacen("[[rule.test]]", &format!("{block}\n[[rule.test]]"), 1);
            let text = format!("{others}name = \"smoke-confirmed\"{added}");
            (2, usual.as_str(), "rules/fire.toml", text)
        } else {
            panic!("nothing tries this example:\n{block}");
        };
        seen[which] += 1;
        let devices = everything().replace(GOOD, "");
        let main = format!("{head}\n{others}{devices}");
        let (_directory, loaded) = super::files::load_files(&[("a.toml", &main), (file, &text)]);
        let loaded = loaded.unwrap_or_else(|report| panic!("{block}\n{}", report.text()));
        let warnings = loaded.warnings.text();
        // Among all devices is a lock that locks again by itself: whoever holds doors open is told so.
        let in_rules = loaded.warnings.findings().iter().filter(|finding| {
            let placed = finding.place.as_ref().is_some_and(|place| place.file.contains("rules/"));
            placed && !finding.message.contains("is not held open")
        });
        assert_eq!(in_rules.count(), 0, "{block}\n{warnings}");
        let own: crate::pipeline::rule::config::RuleFile = toml::from_str(&text).unwrap();
        for rule in &own.rule {
            let watched = loaded.rules.watched_by(&rule.name).map_or(0, std::collections::BTreeSet::len);
            assert!(watched > 0, "{:?} watches nothing", rule.name);
            assert!(!rule.test.is_empty(), "{:?} has no test", rule.name);
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
