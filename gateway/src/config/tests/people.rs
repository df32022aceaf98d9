//! Households under care, notifiers, and the box itself, through the whole of `check`.

use super::*;

fn with(tables: &str) -> Report {
    check_bytes("gatehouse.toml", format!("{GOOD}{tables}").as_bytes())
}

const CARE: &str = r#"
[devices.door-302]
profile = "z2m-contact"
client = "z2m"
address = "door-302"
heartbeat_s = 3600

[care.b3-302]
consent = { date = "2026-03-01", by = "self" }
window_h = 24
signals = [{ device = "door-302", event = "contact.opened", leaves = true }]
night = { from = "23:00", to = "05:00" }
"#;

#[test]
fn a_household_stands_in_the_configuration() {
    let report = with(CARE);
    assert!(report.findings().is_empty(), "{}", report.text());
}

#[test]
fn mistakes_of_a_household_have_their_places() {
    for (old, new, expected) in [
        ("consent = { date = \"2026-03-01\", by = \"self\" }\n", "", "has no consent"),
        ("2026-03-01", "yesterday", "`date` does not have the form"),
        ("\"door-302\", event", "\"door-303\", event", "there is no device \"door-303\""),
        ("contact.opened", "contact.shut", "no event \"contact.shut\""),
        ("window_h = 24", "window_h = 1", "shorter than twice the 3600 s"),
        ("heartbeat_s = 3600", "heartbeat_s = 86400", "a window of 24 h is shorter than twice the 86400 s"),
        ("23:00", "25:00", "`from` does not have the form"),
    ] {
        assert!(CARE.contains(old), "{old}");
        let report = with(&CARE.replace(old, new));
        let told = report.text();
        assert!(told.contains(expected), "{new}: {told}");
        assert!(!report.clean(), "{new}");
        assert!(told.contains("gatehouse.toml:"), "{told}");
    }
    let revoked = with(&CARE.replace("by = \"self\"", "by = \"self\", revoked = \"2026-04-01\""));
    assert!(revoked.clean() && revoked.text().contains("consent was taken back on 2026-04-01"));
}

#[test]
fn leaving_is_not_said_by_what_platforms_are_told() {
    let key =
        "\n[devices.key-302]\nprofile = \"z2m-button-action\"\nclient = \"z2m\"\naddress = \"key-302\"\n";
    let away = "away = { leave = { device = \"key-302\", event = \"button.pressed\" } }\n";
    let report = with(&format!("{CARE}{away}{key}"));
    let told = report.text();
    for expected in [
        "\"button.pressed\" of key-302 is critical",
        "the rule \"emergency-button\" watches \"button.pressed\" of key-302",
        "the rule \"several-emergencies\" watches",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    let door = "away = { back = { device = \"door-302\", event = \"contact.closed\" } }\n";
    let report = with(&format!("{CARE}{door}"));
    assert!(report.clean(), "{}", report.text());
}

#[test]
fn the_example_of_the_page_about_care_is_sound() {
    let page = std::fs::read_to_string(root().join("docs/care.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let (profiles, tables): (Vec<&str>, Vec<&str>) =
        blocks.partition(|block| block.starts_with("# profiles/"));
    let mut files: Vec<(&str, &str)> =
        profiles.iter().map(|text| (text.lines().next().unwrap().trim_start_matches("# "), *text)).collect();
    assert_eq!(files.len(), 2);
    let profiles_dir = "compound = \"sunny-garden\"\nprofiles_dir = \"profiles\"";
    let settings = GOOD.replace("compound = \"sunny-garden\"", profiles_dir) + &tables.concat();
    files.push(("gatehouse.toml", &settings));
    let (_directory, loaded) = super::files::load_files(&files);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.text()));
    assert_eq!(loaded.settings.care.len(), 1);
}

#[test]
fn notifiers_are_judged() {
    let webhook = |keys: &str| with(&format!("\n[notifiers.guards.webhook]\nkind = \"wecom\"\n{keys}\n"));
    assert!(webhook("url_file = \"f\"").clean());
    for (keys, expected) in [
        ("", "nothing says where to post"),
        ("url = \"https://x\"\nurl_file = \"f\"", "exclude each other"),
        ("url_file = \"f\"\nsecret_file = \"s\"", "does not sign its messages"),
        ("url_file = \"f\"\nper_minute = 0", "`per_minute` is 0"),
        ("url = \"ftp://x\"", "`url`"),
    ] {
        let report = webhook(keys);
        assert!(
            !report.clean() && report.text().contains(expected.trim_matches('`')),
            "{keys}: {}",
            report.text()
        );
    }
    for far in ["robot.example", "localhost.example:80", "127.0.0.1.example"] {
        let plain = webhook(&format!("url = \"http://{far}/?key=1\""));
        let told = ["no TLS", "the robot's key stands"].map(|warning| plain.text().contains(warning));
        assert!(plain.clean() && told == [true, true], "{far}: {}", plain.text());
    }
    for here in ["localhost", "127.0.0.2:8080", "[::1]", "[::1]:8080"] {
        let here = webhook(&format!("url = \"http://{here}/?key=1\""));
        assert!(!here.text().contains("no TLS"), "{}", here.text());
    }
    let own = with("\n[notifiers.x.webhook]\nkind = \"own\"\nurl_file = \"f\"\n");
    assert!(own.text().contains("brings no template along"), "{}", own.text());
    let uplink = with("\n[uplinks.notifier-x.mqtt]\nurl = \"mqtt://127.0.0.1:1999\"\n");
    assert!(uplink.text().contains("names of uplinks do not begin with"), "{}", uplink.text());
}

#[test]
fn thresholds_of_the_box_make_sense() {
    let machine = with("\n[gateway.machine]\nhot_cel = 20.0\nhot_hysteresis_cel = 0.0\n");
    assert!(
        machine.text().contains("`hot_cel` is between") && machine.text().contains("`hot_hysteresis_cel`")
    );
}
