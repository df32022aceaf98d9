//! Brokers that others run: what their keys mean for each other and for the rest.

use super::*;

/// The good configuration with two external brokers.
fn with(tables: &str) -> Report {
    check_bytes("gatehouse.toml", format!("{GOOD}{tables}").as_bytes())
}

const DEVICE: &str =
    "[devices.ext]\nprofile = \"z2m-button-sos\"\nbus = \"z\"\naddress = \"a\"\nheartbeat_s = 60\n";

fn bus(keys: &str) -> String {
    format!("[buses.z.mqtt]\nbase = \"zigbee2mqtt\"\nurl = \"mqtt://localhost:1885\"\n{keys}\n{DEVICE}")
}

/// The one thing that is told of a bus with these keys.
fn told(keys: &str) -> String {
    let report = with(&bus(keys));
    let [finding] = report.findings() else { panic!("{keys}: {}", report.text()) };
    finding.message.clone()
}

#[test]
fn an_external_broker_stands_beside_the_embedded_one() {
    let report = with(&bus("session_expiry_h = 24"));
    assert!(report.findings().is_empty(), "{}", report.text());
}

#[test]
fn its_keys_are_judged_as_those_of_an_uplink() {
    for (keys, expected) in [
        ("ca_file = \"ca\"", "`ca_file` has no use without TLS"),
        ("password_file = \"p\"", "`password_file` needs `username`"),
        ("session_expiry_h = 0", "`session_expiry_h` is 0, allowed is 1 to 8760"),
        ("receive_max = 5", "unknown key `receive_max`"),
    ] {
        assert_eq!(told(keys), expected);
    }
    let url = bus("").replace("localhost:1885", "me:pw@h");
    assert!(mistakes(&with(&url))[0].contains("user name or password"), "{url}");
    let base = bus("").replace("\"zigbee2mqtt\"", "\"a/#\"");
    assert!(mistakes(&with(&base))[0].contains("is no topic to live under"));
}

#[test]
fn a_password_in_clear_is_warned_of_only_on_the_network() {
    let login = "username = \"u\"\npassword_file = \"p\"";
    let far = bus(login).replace("localhost", "mosquitto.lan");
    let report = with(&far);
    let found: Vec<&str> = report.findings().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(found, ["the password and what \"mosquitto.lan\" says cross the network in clear: no TLS"]);
    assert!(report.clean());
    assert!(with(&bus(login)).findings().is_empty());
    assert!(
        with(&bus("").replace("localhost", "mosquitto.lan")).findings().is_empty(),
        "no password, no warning"
    );
}

#[test]
fn one_client_id_at_one_broker_is_claimed_once() {
    let two = |keys: &str| {
        let other = format!("[buses.y.mqtt]\nbase = \"plain\"\nurl = \"mqtt://localhost:1885\"\n{keys}\n");
        mistakes(&with(&format!("{}{other}", bus(keys))))
    };
    assert_eq!(two(""), [""; 0], "by default each bus has its own");
    let [claimed] = two("client_id = \"gatehouse\"").try_into().unwrap();
    let expected = "MQTT client id \"localhost:1885/gatehouse\" is claimed by both `buses.z.mqtt.client_id` and \
                    `buses.y.mqtt.client_id`";
    assert!(claimed.ends_with(expected), "{claimed}");
}

#[test]
fn who_speaks_at_which_broker() {
    let wrong = bus("").replace("bus = \"z\"", "bus = \"lan\"");
    assert!(mistakes(&with(&wrong))[0].contains("the bus \"lan\" is the embedded broker"));
    let nobody = bus("").replace("bus = \"z\"", "bus = \"zz\"");
    assert!(mistakes(&with(&nobody))[0].contains("there is no bus \"zz\""));
    let client = format!("{}[clients.c]\nbus = \"z\"\n", bus(""));
    assert!(mistakes(&with(&client))[0].contains("there is no broker \"z\""));
}
