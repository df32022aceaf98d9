//! Mistakes of one file, each at its place.

mod external;
mod field;
mod files;
mod people;
mod rules;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::model::check::Weight;

/// A configuration without mistakes or warnings, to put one mistake into.
const GOOD: &str = r#"[gateway]
name = "gate-1"
compound = "sunny-garden"

[buses.lan.broker]
listen = "127.0.0.1:1883"

[clients.z2m]
base = "zigbee2mqtt"

[devices.sos-1]
profile = "z2m-button-sos"
client = "z2m"
address = "sos-1"

[uplinks.platform.mqtt]
url = "mqtt://127.0.0.1:1884"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `line:column message` of each mistake.
fn mistakes(report: &Report) -> Vec<String> {
    let errors = report.findings().iter().filter(|finding| finding.weight == Weight::Error);
    errors
        .map(|finding| {
            let place = finding.place.as_ref().unwrap();
            format!("{}:{} {}", place.line, place.column, finding.message)
        })
        .collect()
}

/// Replaces a text in [`GOOD`], and expects exactly one mistake, and a hint that contains `hint`.
fn check(from: &str, to: &str, expected: &str, hint: &str) {
    assert!(GOOD.contains(from), "{from:?} is not in the good configuration");
    let report = check_bytes("gatehouse.toml", GOOD.replacen(from, to, 1).as_bytes());
    assert_eq!(mistakes(&report), [expected], "{from:?} -> {to:?}\n{}", report.text());
    let told = report.findings().iter().find(|finding| finding.weight == Weight::Error).unwrap();
    let shown = told.hint.clone().unwrap_or_default();
    assert!(shown.contains(hint), "{shown:?} does not contain {hint:?}");
}

#[test]
fn budgets_that_contradict_themselves_are_refused_at_their_place() {
    let with = |lines: &str| format!("compound = \"sunny-garden\"\n\n[gateway.storage]\n{lines}");
    let compound = "compound = \"sunny-garden\"";
    check(compound, &with("event_mb = 3"), "6:1 unknown key `event_mb`", "`event_mib`");
    check(compound, &with("event_mib = 0"), "6:13 `event_mib` is 0, allowed is 1 to 65536", "");
    let steps =
        "thinning = [\n{ older_than_h = 24, keep_every_s = 60 },\n{ older_than_h = 12, keep_every_s = 900 }]";
    check(
        compound,
        &with(steps),
        "8:18 this step begins at 12 h, the one before it at 24 h",
        "order the steps",
    );
    let table = "[[gateway.storage.thinning]]\nolder_than_h = 24\nkeep_every_s = 0";
    check(compound, &with(table), "8:16 `keep_every_s` is 0, allowed is 1 to 86400", "");
    let small = "reserve_mib = 9\nalarm_mib = 1\nevent_mib = 2\ntelemetry_mib = 4";
    let expected = "6:15 the reserve of 9 MiB is larger than the room for all records, 7 MiB";
    check(compound, &with(small), expected, "8 is enough");
}

#[test]
fn an_address_is_judged_also_where_the_name_is_missing() {
    let text = GOOD.replace("name = \"gate-1\"", "http = \"0.0.0.0:1883\"");
    let found = mistakes(&check_bytes("gatehouse.toml", text.as_bytes()));
    for part in ["others can reach", "`gateway.http` and `buses.lan.broker.listen`", "`name`"] {
        assert!(found.iter().any(|told| told.contains(part)), "{part} is not in {found:?}");
    }
}

#[test]
fn the_good_one_is_good() {
    let report = check_bytes("gatehouse.toml", GOOD.as_bytes());
    assert!(report.findings().is_empty(), "{}", report.text());
}

#[test]
fn keys_and_kinds() {
    check("compound", "compund", "3:1 unknown key `compund`", "did you mean `compound`?");
    check("[gateway]", "[gatway]", "1:2 unknown key `gatway`", "did you mean `gateway`?");
    check("[clients.z2m]", "[[clients.z2m]]", "8:1 `z2m` must be a table, not a list", "one bracket");
    check("base = \"zigbee2mqtt\"", "xyzzy = 1", "9:1 unknown key `xyzzy`", "valid here: base, bus");
    check("address = \"sos-1\"\n", "", "11:10 [devices.sos-1] lacks the key `address`", "`{address}`");
    check("lan.broker]", "lan.brokr]", "5:12 unknown kind `brokr`", "did you mean [buses.lan.broker]?");
    check("platform.mqtt]", "platform.kafka]", "16:19 unknown kind `kafka`", "valid kinds: mqtt");
    check(
        "[buses.lan.broker]",
        "[buses.lan]",
        "6:1 [buses.lan] does not name its kind",
        "[buses.lan.broker]",
    );
    check(
        "address = \"sos-1\"",
        "address = \"sos-1\"\n[devices.sos-1.place]\nmaintenance = true",
        "16:1 unknown key `maintenance`",
        "belongs to the table above",
    );
    check("[devices.sos-1]", "[devices.\"SOS 1\"]", "11:10 \"SOS 1\" is not a name", "write \"sos-1\"");
    check("[devices.sos-1]", "[devices.\"按钮\"]", "11:10 \"按钮\" is not a name", "a name is");
}

#[test]
fn numbers_and_addresses() {
    let broker = "listen = \"127.0.0.1:1883\"";
    let with = |line: &str| format!("{broker}\n{line}");
    check(
        broker,
        &with("connections_max = 10001"),
        "7:19 `connections_max` is 10001, allowed is 1 to 10000",
        "the most is 10000",
    );
    check(
        broker,
        &with("connections_max = -1"),
        "7:19 `connections_max` is -1, allowed is 1 to 10000",
        "least is 1",
    );
    check(
        broker,
        &with("connections_max = 99999999999999999999999999999999999999999"),
        "7:19 `connections_max` is too large, allowed is 1 to 10000",
        "",
    );
    check(
        broker,
        &with("connections_max = \"12\""),
        "7:19 `connections_max` must be a whole number, not a text",
        "write 12 without quotes",
    );
    check(
        broker,
        &with("connections_max = 1.5"),
        "7:19 `connections_max` must be a whole number, not a number with a fraction",
        "",
    );
    check(
        broker,
        "listen = \"127.0.0.1\"",
        "6:10 `listen` is not an address: \"127.0.0.1\"",
        "127.0.0.1:1883",
    );
}

#[test]
fn texts() {
    check("\"gate-1\"", "\"\"", "2:8 \"\" is not a name", "a name is");
    check("\"sunny-garden\"", "\"\"", "3:12 `compound` is empty", "");
    check("\"sunny-garden\"", "2024-01-01", "3:12 `compound` must be a text, not a date or time", "");
    check(
        "\"sunny-garden\"",
        "12",
        "3:12 `compound` must be a text, not a whole number",
        "\"12\" with quotes",
    );
    check(
        "address = \"sos-1\"",
        "address = \"sos-1\"\nplace = { floor = 201 }",
        "15:19 `floor` is 201, allowed is -20 to 200",
        "",
    );
    check(
        "address = \"sos-1\"",
        "address = \"sos-1\"\nplace = { code = \"12\" }",
        "15:18 `code` does not have the form it must have: \"12\"",
        "6 to 20 digits",
    );
    check(
        "address = \"sos-1\"",
        "address = \"sos-1\"\nmaintenance = \"true\"",
        "15:15 `maintenance` must be true or false, not a text",
        "write true without quotes",
    );
}

#[test]
fn words_and_lists() {
    let uplink = "url = \"mqtt://127.0.0.1:1884\"";
    let with = |line: &str| format!("{uplink}\n{line}");
    check(
        uplink,
        &with("delivery = \"recipt\""),
        "18:12 unknown value \"recipt\"",
        "did you mean \"receipt\"?",
    );
    check(
        uplink,
        &with("filter = { classes = [\"alarms\"] }"),
        "18:23 unknown value \"alarms\"",
        "\"alarm\"",
    );
    check(
        uplink,
        &with("filter = { classes = \"alarm\" }"),
        "18:22 `classes` must be a list, not a text",
        "write [\"alarm\"]",
    );
    check(
        uplink,
        &with("filter = { hide = [\"houshold\"] }"),
        "18:20 unknown value \"houshold\"",
        "household",
    );
    check(
        uplink,
        &with("root = \"a//b\""),
        "18:8 `root` does not have the form it must have: \"a//b\"",
        "levels",
    );
}

#[test]
fn secrets_stay_out() {
    let uplink = "url = \"mqtt://127.0.0.1:1884\"";
    let what = "a secret must not stand in the configuration";
    check(
        uplink,
        &format!("{uplink}\npassword = \"x\""),
        &format!("18:1 `password`: {what}"),
        "`password_file`",
    );
    check(uplink, &format!("{uplink}\ntoken = \"x\""), &format!("18:1 `token`: {what}"), "`password_file`");
    check(
        "name = \"gate-1\"",
        "name = \"gate-1\"\nnane = 1",
        "3:1 unknown key `nane`",
        "`name` stands here already",
    );
    check("base =", "passwd =", &format!("9:1 `passwd`: {what}"), "remove it");
    check(
        uplink,
        "url = \"mqtt://me:pw@127.0.0.1\"",
        "17:7 `url` holds a user name or password",
        "`password_file`",
    );
}

#[test]
fn references_and_claims() {
    check(
        "client = \"z2m\"",
        "client = \"z2n\"",
        "13:10 there is no client \"z2n\"",
        "did you mean \"z2m\"?",
    );
    check("client = \"z2m\"", "client = \"other\"", "13:10 there is no client \"other\"", "there is: z2m");
    check("z2m-button-sos", "z2m-button", "12:11 there is no profile \"z2m-button\"", "z2m-button-");
    check("base =", "bus = \"wan\"\nbase =", "9:7 there is no broker \"wan\"", "lan");
    check(
        "[clients.z2m]",
        "[buses.b.broker]\nlisten = \"0.0.0.0:1883\"\n[clients.z2m]\nbus = \"lan\"",
        "9:10 TCP 0.0.0.0:1883 is claimed by both `buses.lan.broker.listen` and `buses.b.broker.listen`",
        "",
    );
    check(
        "compound =",
        "http = \"127.0.0.1:1883\"\ncompound =",
        "7:10 TCP 127.0.0.1:1883 is claimed by both `gateway.http` and `buses.lan.broker.listen`",
        "",
    );
    check(
        "compound =",
        "http = \"0.0.0.0:80\"\ncompound =",
        "3:8 `http` listens on 0.0.0.0, which others can reach",
        "127.0.0.1:80",
    );
    check(
        "base =",
        "certificate = true\nbase =",
        "9:15 the broker has no TLS listener for certificates",
        "table `tls`",
    );
    check(
        "[buses.lan.broker]\nlisten = \"127.0.0.1:1883\"\n",
        "",
        "6:10 there is no broker to log in to",
        "[buses.lan.broker]",
    );
    check(
        "[uplinks",
        "[devices.sos-2]\nprofile = \"z2m-button-action\"\nclient = \"z2m\"\naddress = \"sos-1\"\n[uplinks",
        "19:11 address \"sos-1\" on client z2m is claimed by both `devices.sos-1.address` and \
         `devices.sos-2.address`",
        "",
    );
    check(
        "[uplinks",
        "[uplinks.street.mqtt]\nurl = \"mqtt://localhost\"\n[uplinks.city.mqtt]\nurl = \"mqtt://localhost:1883\"\n[uplinks",
        "19:7 topic tree \"gatehouse\" at localhost:1883 is claimed by both `uplinks.street.mqtt.url` and \
         `uplinks.city.mqtt.url`",
        "",
    );
}

#[test]
fn uplinks_have_a_limit() {
    let mut text = GOOD.to_owned();
    for n in 0..8 {
        writeln!(text, "[uplinks.x{n}.mqtt]\nurl = \"mqtt://127.0.0.1:{}\"", 3000 + n).unwrap();
    }
    let report = check_bytes("gatehouse.toml", text.as_bytes());
    assert_eq!(mistakes(&report), ["32:10 9 uplinks, at most 8 are allowed"]);
}

#[test]
fn points_have_a_limit() {
    // The button has three points: 1 667 of them pass 5 000.
    let mut text = GOOD.to_owned();
    for n in 0..1_667 {
        writeln!(text, "[devices.d{n}]\nprofile = \"z2m-button-sos\"\nclient = \"z2m\"\naddress = \"d{n}\"")
            .unwrap();
    }
    let report = check_bytes("gatehouse.toml", text.as_bytes());
    let found = mistakes(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("with this device there are more than 5000 points"), "{found:?}");
}

#[test]
fn syntax() {
    check("\"gate-1\"", "gate-1", "2:8 a text must stand in quotes", "write \"gate-1\"");
    check("name = \"gate-1\"", "name \"gate-1\"", "2:6 a key must be followed by `=` and a value", "");
    check(
        "name = \"gate-1\"",
        "name: \"gate-1\"",
        "2:5 invalid unquoted key, expected letters, numbers, `-`, `_`",
        "`key = value`",
    );
    check(
        "\"gate-1\"",
        "“gate-1”",
        "2:8 a text must stand in quotes",
        "full-width sign (全角符号): write `\"`",
    );
    check("\"gate-1\"", "\"gate-1", "2:15 invalid basic string, expected `\"`", "");
    check("[clients.z2m]", "[clients.z2m", "8:13 unclosed table, expected `]`", "");
    check("base =", "subscribe = [\"zigbee2mqtt/#\"\nbase =", "9:13 what is opened here is not closed", "");
    check("\"sunny-garden\"", "\"\"\"sunny-garden", "3:12 a text begun with three quotes is not closed", "");
    check("base =", "base = \"b\"\nbase =", "10:1 `base` stands here a second time", "remove one");
    check(
        "[uplinks",
        "[devices.sos-1]\nprofile = \"z2m-lock\"\n[uplinks",
        "16:10 `[devices.sos-1]` stands here a second time",
        "another name",
    );
}

#[test]
fn a_second_table_names_the_first() {
    let text = format!("{GOOD}[gateway]\nname = \"x\"\n");
    let report = check_bytes("gatehouse.toml", text.as_bytes());
    assert_eq!(mistakes(&report), ["18:2 `[gateway]` stands here a second time"]);
    assert_eq!(report.findings()[0].also[0].place.as_ref().unwrap().line, 1);
}

#[test]
fn text_that_is_not_utf8_is_told_once() {
    // "小区" in GBK.
    let mut bytes = GOOD.replace("sunny-garden", "NAME").into_bytes();
    let at = bytes.windows(4).position(|window| window == b"NAME").unwrap();
    bytes.splice(at..at + 4, [0xd0, 0xa1, 0xc7, 0xf8]);
    let report = check_bytes("gatehouse.toml", &bytes);
    assert_eq!(mistakes(&report), ["3:14 the file is not UTF-8 text from here on"]);
}

#[test]
fn a_mark_and_dos_line_ends_are_taken() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert!(check_bytes("gatehouse.toml", text.as_bytes()).findings().is_empty());
    let wrong = text.replacen("[gateway]", "[gatway]", 1).replacen("name", "nane", 1);
    assert_eq!(mistakes(&check_bytes("gatehouse.toml", wrong.as_bytes())), ["1:2 unknown key `gatway`"]);
}

/// Acceptance 3 of the line: each of ten mistakes at its line, all at once.
#[test]
fn ten_mistakes_are_ten() {
    let path = root().join("gateway/tests/fixtures/ten-mistakes.toml");
    let report = load(&path).unwrap_err();
    let expected = [
        "3:8 \"Gate 1\" is not a name",
        "8:19 `connections_max` is 0, allowed is 1 to 10000",
        "11:10 TCP 0.0.0.0:1883 is claimed by both `buses.lan.broker.listen` and `buses.second.broker.listen`",
        "15:8 a text must stand in quotes",
        "16:1 unknown key `certficate`",
        "19:11 there is no profile \"z2m-button-soss\"",
        "22:15 `maintenance` must be true or false, not a text",
        "24:10 [devices.sos-2] lacks the key `address`",
        "26:10 there is no client \"z2n\"",
        "30:1 `password`: a secret must not stand in the configuration",
    ];
    assert_eq!(mistakes(&report), expected);
    assert!(!report.text().contains("open sesame"));
}

#[test]
fn topics_of_clients() {
    check(
        "base =",
        "subscribe = [\"#\"]\nbase =",
        "9:13 \"#\" does not lie under \"zigbee2mqtt\"",
        "zigbee2mqtt/#",
    );
    check(
        "[devices.sos-1]",
        "[clients.other]\nbase = \"zigbee2mqtt/x\"\n[devices.sos-1]",
        "9:8 the base \"zigbee2mqtt\" overlaps \"zigbee2mqtt/x\" of client other",
        "",
    );
    check(
        "[devices.sos-1]",
        "[clients.other]\nclient_id = \"z2m\"\n[devices.sos-1]",
        "12:13 MQTT client id \"lan/z2m\" is claimed by both `clients.z2m.client_id` and `clients.other.client_id`",
        "",
    );
    check("\"sos-1\"\n", "\"a/#\"\n", "14:11 '#' cannot stand in a topic, and the address does", "");
}

#[test]
fn a_mistake_in_a_broker_is_not_told_again_by_its_clients() {
    check("listen =", "lisetn =", "6:1 unknown key `lisetn`", "did you mean `listen`?");
    check(
        "listen = \"127.0.0.1:1883\"",
        "listen = 1883",
        "6:10 `listen` must be a text, not a whole number",
        "",
    );
}
