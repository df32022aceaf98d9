//! Modbus: buses, devices, profiles, and what does not fit between them.

use super::*;

/// `LINE message` of everything found when this is added to [`GOOD`]; lines count from the addition.
fn told(added: &str) -> Vec<String> {
    let report = check_bytes("gatehouse.toml", format!("{GOOD}{added}").as_bytes());
    let lines = GOOD.lines().count();
    let shown = report.findings().iter().map(|finding| {
        let line = finding.place.as_ref().unwrap().line;
        format!("{} {}", line.saturating_sub(lines), finding.message)
    });
    shown.collect()
}

/// A sound field, to put a mistake into. The profile is one without emergencies.
const FIELD: &str = "[buses.field.modbus]\ntcp = \"192.168.1.20:502\"\n\
                     [devices.th]\nprofile = \"modbus-temp-humidity\"\nbus = \"field\"\nunit = 3\n";
const NOTHING: [&str; 0] = [];

fn check_field(from: &str, to: &str, expected: &[&str]) {
    assert!(FIELD.contains(from), "{from:?} is not in the field");
    let found = told(&FIELD.replacen(from, to, 1));
    assert_eq!(found.len(), expected.len(), "{from:?} -> {to:?}: {found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{from:?} -> {to:?}: {found:?} is not {expected:?}");
    }
}

#[test]
fn a_sound_field_is_sound() {
    assert_eq!(told(FIELD), NOTHING);
    assert_eq!(told(&FIELD.replace("tcp =", "rtu_over_tcp =")), NOTHING);
    let serial = "serial = \"/dev/serial/by-id/usb-x\"\nbaud = 19200\nparity = \"even\"";
    assert_eq!(told(&FIELD.replace("tcp = \"192.168.1.20:502\"", serial)), NOTHING);
}

#[test]
fn a_bus_is_one_line() {
    let tcp = "tcp = \"192.168.1.20:502\"";
    check_field(tcp, "timeout_ms = 500", &["1 nothing says where the line is"]);
    check_field(tcp, &format!("{tcp}\nserial = \"/dev/x\""), &["3 `tcp` and `serial` exclude each other"]);
    check_field(tcp, "tcp = \"192.168.1.20\"", &["2 `tcp` is no host and port"]);
    check_field(tcp, "tcp = \"[::1]:502\"", &[]);
    check_field(tcp, "serial = \"COM3\"", &["2 \"COM3\" is no path of a serial port"]);
    check_field(
        tcp,
        "serial = \"/dev/ttyUSB0\"",
        &["2 /dev/ttyUSB0 may be another port after the next start"],
    );
    check_field(tcp, &format!("{tcp}\nbaud = 9600"), &["3 `baud` is for serial lines"]);
    check_field(tcp, &format!("{tcp}\nstop_bits = 3"), &["3 `stop_bits` is 3, allowed is 1 to 2"]);
    check_field(tcp, &format!("{tcp}\nturnround_ms = 3"), &["3 unknown key `turnround_ms`"]);
    let second = format!("{FIELD}[buses.other.modbus]\ntcp = \"192.168.1.20:502\"\n");
    let message = "8 Modbus server 192.168.1.20:502 is claimed by both `buses.field.modbus.tcp` and \
                   `buses.other.modbus.tcp`";
    assert_eq!(told(&second), [message]);
}

#[test]
fn a_device_has_a_unit_on_a_bus_of_its_kind() {
    check_field("unit = 3\n", "", &["3 [devices.th] lacks the key `unit`"]);
    check_field("unit = 3", "unit = 0", &["6 unit 0 is the broadcast: nobody answers it"]);
    check_field("unit = 3", "unit = 250", &[]);
    check_field("unit = 3", "unit = 3\naddress = \"x\"", &["7 `address` is for devices that speak MQTT"]);
    check_field("unit = 3", "unit = 3\noffset = 65534", &["7 with it a point lies beyond address 65535"]);
    check_field("unit = 3", "unit = 3\npoll_ms = 1", &["7 `poll_ms` is 1, allowed is 20 to 86400000"]);
    check_field("bus = \"field\"", "bus = \"lan\"", &["5 the profile speaks Modbus, and the bus does not"]);
    check_field(
        "modbus-temp-humidity",
        "z2m-lock",
        &[
            "3 [devices.th] lacks the key `address`",
            "4 the profile \"z2m-lock\" does not speak Modbus",
            "6 `unit` is for devices that speak Modbus",
        ],
    );
    let serial = FIELD.replace("tcp = \"192.168.1.20:502\"", "serial = \"/dev/s\"").replace("= 3", "= 250");
    assert_eq!(told(&serial), ["6 units above 247 are reserved on a serial line"]);
    let twice =
        format!("{FIELD}[devices.again]\nprofile = \"modbus-temp-humidity\"\nbus = \"field\"\nunit = 3\n");
    let message = "10 address \"unit 3, offset 0, profile modbus-temp-humidity\" on bus field is claimed by both \
                   `devices.th.unit` and `devices.again.unit`";
    assert_eq!(told(&twice), [message]);
    assert_eq!(told(&format!("{twice}offset = 10\n")), NOTHING);
}

#[test]
fn emergencies_without_supervision_and_lines_that_are_too_slow_are_told() {
    let mut field = "[buses.field.modbus]\nserial = \"/dev/s\"\nbaud = 9600\n".to_owned();
    for unit in 1..=30 {
        let name = format!("b{unit:02}");
        writeln!(field, "[devices.{name}]\nprofile = \"modbus-button\"\nbus = \"field\"\nunit = {unit}")
            .unwrap();
    }
    let found = told(&field);
    assert_eq!(found.len(), 2, "{found:?}");
    // 30 units at 100 ms: 8 + 6 bytes of 10 bits at 9600 baud and two silences, 21.8 ms each.
    assert!(
        found[0].starts_with("2 the polls of bus \"field\" fill 654 % of the line at 9600 baud"),
        "{found:?}"
    );
    assert_eq!(
        found[1],
        "5 an emergency input of \"modbus-button\" is not supervised: a cut wire is not noticed (30 devices)"
    );
    let loops = told(&field.replace("modbus-button", "modbus-loop-button"));
    assert!(!loops.iter().any(|message| message.contains("supervised")), "{loops:?}");
    assert_eq!(told(&field.replace("9600", "115200").replace("unit =", "poll_ms = 1000\nunit =")).len(), 1);
}
