//! What the gateway makes devices do: a button to a speaker without the uplink, speakers and doors that fail, and a
//! process that dies in between.

use std::path::Path;
use std::time::Duration;

use gatehouse_tests::device::{Device, Login};
use gatehouse_tests::gateway::{CLIENT, Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{SOON, await_state, press};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;
use gatehouse_tests::wire::Publish;
use serde_json::{Value, json};

const HORNS: &str = "horns";
const SECRET: &str = "horns-secret-of-the-test";
/// Nobody listens there.
const NOWHERE: &str = "mqtt://127.0.0.1:1";

const DEVICES: &str = r#"
[devices.horn]
profile = "lan-speaker"
client = "horns"
address = "h1"
place = { building = "3", unit = "2" }

[devices.front]
profile = "stubborn-lock"
client = "horns"
address = "front"
place = { building = "3", unit = "2" }

[devices.back]
profile = "stubborn-lock"
client = "horns"
address = "back"
place = { building = "4", unit = "1" }
"#;

const LOCK: &str = r#"
kind = "lock"
title = { zh = "测试门锁", en = "test lock" }

[mqtt]
topic = "{base}/{address}"

[door]
topic = "{base}/{address}/set"
unlock = '{"id":{{ id | tojson }},"state":"UNLOCK"}'

[door.ack]
topic = "{base}/{address}/result"
pointer = "/state"
one_of = ["UNLOCK"]
refused = { one_of = ["JAMMED"] }
correlation = "/id"
timeout_ms = 4000
means = "done"
"#;

const RULES: &str = r#"
[[rule]]
name = "test-button"
title = { zh = "测试按钮", en = "test button" }
on = { event = "button.pressed", devices = ["button-1"] }
cooldown_s = 1
act_within_s = 8

[rule.raise]
category = "emergency"
severity = "critical"
text = { zh = "紧急按钮", en = "emergency button" }

[[rule.do]]
speak = { zh = "{{ place.building }}栋{{ place.unit }}单元紧急求助", volume = 90, repeat = 2 }
on = { place = "same-unit" }

[[rule]]
name = "test-fire"
title = { zh = "测试火警", en = "test fire" }
on = { event = "button.pressed", devices = ["button-2", "button-3"] }
count = 2
within_s = 60
distinct = true
per = "unit"
cooldown_s = 1

[rule.raise]
category = "fire"
severity = "critical"
text = { zh = "火警", en = "fire" }

[[rule.do]]
unlock = { hold = true }
on = { place = "same-unit", kind = "lock" }

[[rule]]
name = "test-exit"
title = { zh = "测试出门按钮", en = "test exit button" }
on = { event = "button.pressed", devices = ["button-4"] }
cooldown_s = 1

[rule.raise]
category = "access"
severity = "minor"
text = { zh = "出门按钮", en = "exit button" }

[[rule.do]]
unlock = { pulse_ms = 3000 }
on = { devices = ["back"] }
"#;

fn plan(name: &str, url: &str) -> Plan {
    let mut plan = Plan::new(name, url);
    plan.buttons.extend(["button-3".to_owned(), "button-4".to_owned()]);
    plan.clients = vec![(HORNS.to_owned(), SECRET.to_owned())];
    plan.listeners = vec![HORNS.to_owned()];
    plan.extra.push_str(DEVICES);
    plan.gateway.push_str("rules_dir = \"rules\"\n");
    plan.uplinks[0] = plan.uplinks[0].clone().extra("commands = { allow = [\"door.open\", \"speak\"] }");
    plan
}

async fn start(plan: Plan) -> Gateway {
    let mut gateway = Gateway::prepare(plan);
    put(&gateway.folder().join("profiles"), "stubborn-lock.toml", LOCK);
    put(&gateway.folder().join("rules"), "test.toml", RULES);
    gateway.run().await;
    gateway
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

/// The speakers and doors, all behind one account.
async fn horns(gateway: &Gateway) -> Device {
    let mut device = Device::connect_patiently(&Login::new(gateway.mqtt, HORNS, SECRET)).await;
    assert_eq!(device.subscribe("horns/#").await, Ok(0));
    device
}

fn orders(device: &Device, topic: &str) -> Vec<(Publish, Value)> {
    let received = device.received().into_iter().filter(|publish| publish.topic == topic);
    received.map(|publish| (publish.clone(), serde_json::from_slice(&publish.payload).unwrap())).collect()
}

async fn await_order(device: &Device, topic: &str, n: usize) -> Value {
    eventually(&format!("order {n} on {topic}"), SOON, || {
        let (publish, order) = orders(device, topic).into_iter().nth(n.checked_sub(1)?)?;
        assert!(publish.qos == 0 && !publish.retain, "{publish:?}");
        Some(order)
    })
    .await
}

/// Every report so far: device, progress and detail.
fn reports(gateway: &Gateway) -> Vec<(String, String, String)> {
    let all = gateway.journal();
    let events = all.iter().filter(|record| record.to_string().contains("action.reported"));
    let mut out = Vec::new();
    for event in events {
        let params = find(event, "params").expect("an event has parameters");
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        out.push((text("target"), text("progress"), text("detail")));
    }
    out
}

/// The first value under this key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key))),
        Value::Array(items) => items.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

async fn await_report(gateway: &Gateway, device: &str, progress: &str) -> String {
    eventually(&format!("{device} {progress}"), SOON, || {
        let mut reports = reports(gateway).into_iter();
        reports.find(|(target, told, _)| target == device && told == progress).map(|(_, _, detail)| detail)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_speaks_while_the_uplink_is_cut() {
    let _turn = turn::shared();
    let gateway = start(plan("gw-speak", NOWHERE)).await;
    let mut horns = horns(&gateway).await;
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, "button-1", 1).await.unwrap();
    let order = await_order(&horns, "horns/h1/say", 1).await;
    assert_eq!(
        order["text"], "3栋2单元紧急求助",
        "{CLIENT} stands in unit 2 of building 3; no household is said"
    );
    assert_eq!((&order["volume"], &order["repeat"]), (&json!(90), &json!(2)));
    let said = json!({ "id": order["id"], "state": "played" }).to_string();
    horns.publish("horns/h1/said", said.as_bytes()).await.unwrap();
    await_report(&gateway, "horn", "confirmed").await;
    assert_eq!(orders(&horns, "horns/h1/say").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speaker_that_never_answers_is_given_up_with_an_alarm() {
    let _turn = turn::shared();
    let gateway = start(plan("gw-mute", NOWHERE)).await;
    let horns = horns(&gateway).await;
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, "button-1", 1).await.unwrap();
    await_order(&horns, "horns/h1/say", 1).await;
    let detail = await_report(&gateway, "horn", "failed").await;
    assert!(detail.contains("given up"), "{detail}");
    eventually("the alarm of the speaker", SOON, || {
        let all = gateway.journal();
        let text = all.iter().map(ToString::to_string);
        text.into_iter()
            .any(|text| text.contains("action.failed") && text.contains("\"alarm\""))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fire_opens_the_affected_unit_and_no_other() {
    let _turn = turn::shared();
    let gateway = start(plan("gw-fire", NOWHERE)).await;
    let mut doors = horns(&gateway).await;
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, "button-2", 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(orders(&doors, "horns/front/set").len(), 0, "one detector opens nothing");
    press(&mut button, "button-3", 2).await.unwrap();
    let order = await_order(&doors, "horns/front/set", 1).await;
    let open = json!({ "id": order["id"], "state": "UNLOCK" }).to_string();
    doors.publish("horns/front/result", open.as_bytes()).await.unwrap();
    await_report(&gateway, "front", "confirmed").await;
    assert_eq!(orders(&doors, "horns/back/set").len(), 0, "another building stays shut");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_order_and_answer_only_what_fire_holds_is_opened_again() {
    let _turn = turn::shared();
    let mut gateway = start(plan("gw-kill", NOWHERE)).await;
    let first = horns(&gateway).await;
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, "button-4", 1).await.unwrap();
    await_order(&first, "horns/back/set", 1).await;
    press(&mut button, "button-2", 2).await.unwrap();
    press(&mut button, "button-3", 3).await.unwrap();
    await_order(&first, "horns/front/set", 1).await;
    gateway.kill();
    gateway.run().await;
    let mut second = horns(&gateway).await;
    let detail = await_report(&gateway, "back", "unknown").await;
    assert!(detail.contains("not done again"), "{detail}");
    let order = await_order(&second, "horns/front/set", 1).await;
    let open = json!({ "id": order["id"], "state": "UNLOCK" }).to_string();
    second.publish("horns/front/result", open.as_bytes()).await.unwrap();
    await_report(&gateway, "front", "confirmed").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(orders(&second, "horns/back/set").is_empty(), "a restart opened the door again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_answers_no_has_failed_and_is_not_asked_again() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let gateway = start(plan("gw-door", &mosquitto.url())).await;
    let mut doors = horns(&gateway).await;
    let state = await_state(&platform, "gw-door", 1).await;
    for (n, answer, outcome) in [(1, "JAMMED", "failed"), (2, "UNLOCK", "done"), (3, "", "unknown")] {
        let door = if n == 2 { "back" } else { "front" };
        let issued = json!({ "bootid": state.json["bootid"], "monotonic": state.json["monotonic"] });
        let order = json!({
            "id": format!("open-{n}"), "command": "door.open", "issued": issued, "lifetime_s": 600,
            "operator": "tester", "reason": "system test", "args": { "door": door },
        });
        let before = orders(&doors, &format!("horns/{door}/set")).len();
        // The same door again at the earliest some seconds later.
        if n == 3 {
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
        platform.publish("gatehouse/v1/gw-door/down/command", order.to_string(), false);
        let asked = await_order(&doors, &format!("horns/{door}/set"), before + 1).await;
        if !answer.is_empty() {
            let said = json!({ "id": asked["id"], "state": answer }).to_string();
            doors.publish(&format!("horns/{door}/result"), said.as_bytes()).await.unwrap();
        }
        let wanted = |message: &Message| {
            message.channel() == "command/result"
                && message.json["data"]["command_id"] == format!("open-{n}")
                && message.json["data"]["outcome"] == outcome
        };
        platform.await_message(&format!("open-{n} {outcome}"), SOON, wanted).await;
        assert_eq!(orders(&doors, &format!("horns/{door}/set")).len(), before + 1);
    }
}
