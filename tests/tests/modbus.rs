//! Modbus devices behind the built gateway: pymodbus over TCP, over a serial line, and RTU over TCP; what it says of those
//! that die and come back; what mbpoll sees beside it.

use std::fmt::Write as _;

use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::modbus::{At, Cable, Slave, mbpoll};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::SOON;
use gatehouse_tests::turn;
use gatehouse_tests::wait::{eventually, never};
use serde_json::Value;
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for back-off of a line (up to a minute after long trouble, seconds after a short one) and of a unit.
const BACK: Duration = Duration::from_mins(1);

struct Field {
    _mosquitto: Mosquitto,
    platform: Platform,
    gateway: Gateway,
    /// Last, so that the processes end before it.
    _folder: TempDir,
}

impl Field {
    /// A gateway with a bus `field`, and `count` buttons, one for each unit from 1.
    async fn start(name: &str, bus: &str, count: u8, extra: &str, folder: TempDir) -> Self {
        let mosquitto = Mosquitto::start().await;
        let platform = Platform::start(mosquitto.address(), "#").await;
        let mut plan = Plan::new(name, &mosquitto.url());
        write!(plan.extra, "[buses.field.modbus]\n{bus}\n\n").unwrap();
        for unit in 1..=count {
            write!(
                plan.extra,
                "[devices.m{unit}]\nprofile = \"modbus-button\"\nbus = \"field\"\nunit = {unit}\n\
                 place = {{ building = \"7\", floor = {unit} }}\n\n"
            )
            .unwrap();
        }
        plan.extra.push_str(extra);
        let gateway = Gateway::start(plan).await;
        Self { _mosquitto: mosquitto, platform, gateway, _folder: folder }
    }

    fn events(&self, device: &str, name: &str) -> usize {
        let ours = |message: &&Message| is(message, device, name);
        self.platform.look(|all| all.iter().filter(ours).count())
    }

    async fn await_events(&self, device: &str, name: &str, count: usize, within: Duration) {
        let what = format!("{count} times {name} of {device}");
        eventually(&what, within, || (self.events(device, name) >= count).then_some(())).await;
        assert_eq!(self.events(device, name), count, "{what}");
    }

    /// The last value that the platform has of a point: value, quality.
    fn last(&self, device: &str, point: &str) -> Option<(Value, String)> {
        self.platform.look(|all| {
            // What was read before the uplink stood comes as history.
            let records = all.iter().filter(|message| message.channel().ends_with("telemetry"));
            let records = records.filter_map(|message| message.json["data"]["records"].as_array());
            let ours = records.flatten().filter(|record| record["device"]["id"] == device);
            let mut samples = ours.filter_map(|record| record["samples"].as_array()).flatten();
            let sample = samples.rfind(|sample| sample["point"] == point)?;
            Some((sample["value"].clone(), sample["quality"].as_str()?.to_owned()))
        })
    }
}

fn is(message: &Message, device: &str, name: &str) -> bool {
    let data = &message.json["data"];
    // Alarms tell the same of the event that raised them.
    let event = message.text("class") == "event" && !message.retained;
    event && data["device"]["id"] == device && data["name"] == name
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_a_press_arrives_and_a_dead_server_is_one_message() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let at = At::free_tcp();
    let At::Tcp(port) = at else { unreachable!() };
    let still = [(1, 'd', 0, 0), (2, 'd', 0, 0), (3, 'd', 0, 0), (3, 'i', 1, 215), (3, 'i', 2, 480)];
    let mut slave = Slave::start(folder.path(), at, &still).await;
    let climate =
        "[devices.climate]\nprofile = \"modbus-temp-humidity\"\nbus = \"field\"\nunit = 3\npoll_ms = 200\n";
    let bus = format!("tcp = \"127.0.0.1:{port}\"");
    let field = Field::start("gw-mb-tcp", &bus, 3, climate, folder).await;
    for device in ["m1", "m2", "m3", "climate"] {
        field.await_events(device, "device.online", 1, SOON).await;
    }
    slave.set(&[(2, 'd', 0, 1)]);
    let pressed = field.platform.await_message("the press", SOON, |m| is(m, "m2", "button.pressed")).await;
    assert_eq!(pressed.channel(), "event/emergency");
    assert_eq!(pressed.json["data"]["severity"], "critical");
    assert_eq!(pressed.json["data"]["place"]["building"], "7");
    assert_eq!(pressed.param("point"), "pressed");
    // A second master reads what the platform was told.
    let raw = mbpoll(port, 3, 3, 1, 2);
    eventually("the climate", SOON, || {
        let (celsius, humidity) =
            (field.last("climate", "temperature")?.0, field.last("climate", "humidity")?.0);
        let near = |value: &Value, raw: u16| (value.as_f64().unwrap() - f64::from(raw) / 10.0).abs() < 1e-9;
        (near(&celsius, raw[0]) && near(&humidity, raw[1])).then_some(())
    })
    .await;
    // The server dies: one message for the bus, no device is offline by itself, values are stale.
    slave.kill();
    field.await_events("gateway", "bus.offline", 1, BACK).await;
    eventually("its values are stale", SOON, || {
        let (value, quality) = field.last("m1", "pressed")?;
        (value == false && quality == "stale").then_some(())
    })
    .await;
    let status = field.gateway.status();
    let trouble = status["board"]["buses"]["field"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains(&port.to_string()), "{status:#}");
    never("a device is offline by itself", Duration::from_secs(3), || {
        ["m1", "m2", "m3", "climate"].into_iter().find(|device| field.events(device, "device.offline") > 0)
    })
    .await;
    // It comes back with a button released and pressed again meanwhile.
    slave.set(&still);
    slave.run().await;
    field.await_events("gateway", "bus.online", 1, BACK).await;
    field.await_events("m2", "button.released", 1, SOON).await;
    slave.set(&[(2, 'd', 0, 1)]);
    field.await_events("m2", "button.pressed", 2, SOON).await;
    assert_eq!(field.events("m1", "device.online"), 1, "nobody is online twice");
    assert_eq!(field.events("gateway", "bus.offline"), 1);
    field.gateway.await_delivered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_serial_line_a_dead_unit_costs_itself_and_the_port_comes_back() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let cable = Cable::lay(folder.path()).await;
    let at = At::Serial(cable.far.clone());
    // There is no unit 3.
    let cells = [(1, 'd', 0, 0), (2, 'd', 0, 0)];
    let mut slave = Slave::start(folder.path(), at, &cells).await;
    let path = folder.path().to_owned();
    let bus = format!("serial = {:?}\nbaud = 115200\ntimeout_ms = 300", cable.near);
    let mut field = Field::start("gw-mb-rtu", &bus, 3, "", folder).await;
    field.await_events("m1", "device.online", 1, SOON).await;
    field.await_events("m3", "device.offline", 1, SOON).await;
    slave.set(&[(1, 'd', 0, 1)]);
    field.await_events("m1", "button.pressed", 1, SOON).await;
    let status = field.gateway.status();
    let board = &status["board"];
    assert_eq!(board["devices"]["m3"]["standing"], "offline", "{status:#}");
    assert_eq!(board["devices"]["m3"]["trouble"], "no_reply");
    // The line's counts are shown from time to time.
    eventually("the failing unit is counted", SOON, || {
        (field.gateway.status()["board"]["buses"]["field"]["line"]["units_failing"] == 1).then_some(())
    })
    .await;
    let shown = String::from_utf8(field.gateway.gatehouse(&["status"]).stdout).unwrap();
    assert!(shown.contains("OFFLINE"), "{shown}");
    assert!(field.gateway.refused("no_reply").await >= 3.0);
    // Adapter and slave are pulled, and plugged in again as other ports under the same names.
    let before = std::fs::read_link(&cable.near).unwrap();
    drop(cable);
    slave.kill();
    field.await_events("gateway", "bus.offline", 1, BACK).await;
    // Somebody else has taken the number meanwhile.
    let elsewhere = TempDir::new().unwrap();
    let hold = Cable::lay(elsewhere.path()).await;
    let cable = Cable::lay(&path).await;
    assert_ne!(std::fs::read_link(&cable.near).unwrap(), before, "the port has another name");
    slave.run().await;
    slave.set(&cells);
    field.await_events("gateway", "bus.online", 1, BACK).await;
    field.await_events("m1", "button.released", 1, SOON).await;
    slave.set(&[(2, 'd', 0, 1)]);
    field.await_events("m2", "button.pressed", 1, SOON).await;
    drop(hold);
    field.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rtu_over_tcp_with_inputs_as_devices_of_their_own() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let at = At::free_rtu_over_tcp();
    let At::RtuOverTcp(port) = at else { unreachable!() };
    let slave = Slave::start(folder.path(), at, &[(1, 'd', 0, 0), (9, 'd', 5, 0)]).await;
    let door = "[devices.door]\nprofile = \"modbus-contact\"\nbus = \"field\"\nunit = 9\noffset = 5\n\
                [devices.sos]\nprofile = \"modbus-button\"\nbus = \"field\"\nunit = 9\noffset = 11\n";
    let bus = format!("rtu_over_tcp = \"127.0.0.1:{port}\"");
    let field = Field::start("gw-mb-rot", &bus, 1, door, folder).await;
    for device in ["m1", "door", "sos"] {
        field.await_events(device, "device.online", 1, SOON).await;
    }
    // It has held its first state for as long as its debounce asks: a change from now on is one.
    eventually("the door is open", SOON, || (field.last("door", "open")?.0 == true).then_some(())).await;
    // A reed contact is closed while the door is: 1 is normal.
    slave.set(&[(9, 'd', 5, 1)]);
    field.await_events("door", "contact.closed", 1, SOON).await;
    slave.set(&[(9, 'd', 5, 0), (9, 'd', 11, 1)]);
    field.await_events("door", "contact.opened", 1, SOON).await;
    field.await_events("sos", "button.pressed", 1, SOON).await;
    assert_eq!(field.events("m1", "button.pressed"), 0);
}
