//! Commands of platforms and of people at the box: done at most once, in time, or not at all (promise G10); each is
//! answered, and each is in the trail.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gatehouse_tests::device::{Device, Login};
use gatehouse_tests::gateway::{Gateway, Plan, Uplink, root};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::ordering::{answers, command, order, topic};
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::readme::commands;
use gatehouse_tests::site::{LATER, SOON, await_state, press};
use gatehouse_tests::wait::eventually;
use gatehouse_tests::{seed, turn};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const BUTTON: &str = "button-1";
const DOOR: &str = "door-3-1";
/// The lock's own account: buttons have another.
const LOCK: &str = "lock";
const LOCK_PASSWORD: &str = "5b1e6f3f9f6a4b0b8a9d5e1c7b2d4e61";

/// A door is not opened again sooner.
const DOOR_PAUSE: Duration = Duration::from_secs(5);

/// The account of a speaker and a lamp.
const FIELD: &str = "field";
const FIELD_PASSWORD: &str = "7c1e6f3f9f6a4b0b8a9d5e1c7b2d4e62";
const LAMP: &str = r#"
kind = "relay"
title = { zh = "测试灯", en = "test lamp" }

[mqtt]
topic = "{base}/{address}"

[outputs.light]
topic = "{base}/{address}/set"
payload = '{"id":{{ id | tojson }},"light":{{ value | tojson }}}'

[outputs.light.ack]
topic = "{base}/{address}/result"
pointer = "/state"
one_of = ["done"]
correlation = "/id"
timeout_ms = 4000
means = "done"
"#;

/// Kills of one run, each with a seed of its own. The property holds for any number; GATEHOUSE_KILLS asks for more.
const KILLS: u32 = 20;

/// From before a command is read until after its door is open.
const KILL_WINDOW: Duration = Duration::from_millis(80);

/// A gateway whose platform may order everything, with a door, a speaker and a lamp.
fn plan(name: &str, mosquitto: &Mosquitto) -> Plan {
    let mut plan = Plan::new(name, "");
    let allow = "[uplinks.street.mqtt.commands]\nallow = [\"replay\", \"snapshot\", \"diagnose\", \"alarm.*\", \
                 \"door.*\", \"speak\", \"speak.*\", \"relay\", \"set\"]\n";
    plan.uplinks = vec![Uplink::new("street", &mosquitto.url()).extra(allow)];
    plan.extra = format!(
        "[clients.{LOCK}]\nsubscribe = [\"{LOCK}/#\"]\n\n[devices.{DOOR}]\nprofile = \"z2m-lock\"\nclient = \"{LOCK}\"\naddress = \"{DOOR}\"\n\
         place = {{ building = \"3\" }}\n\n\
         [devices.horn]\nprofile = \"lan-speaker\"\nclient = \"{FIELD}\"\naddress = \"horn\"\ntags = [\"gate\"]\n\n\
         [devices.lamp]\nprofile = \"test-lamp\"\nclient = \"{FIELD}\"\naddress = \"lamp\"\n\n"
    );
    plan.clients = vec![(FIELD.to_owned(), FIELD_PASSWORD.to_owned())];
    plan.listeners = vec![FIELD.to_owned()];
    plan
}

/// The newest revision of the alarm that a press has raised, as the platform has it.
async fn alarm(platform: &Platform, state: &str) -> Value {
    let wanted = |m: &Message| {
        let data = &m.json["data"];
        m.channel() == "alarm" && data["device"]["id"] == BUTTON && data["state"] == state
    };
    platform.await_message(&format!("an alarm that is {state}"), SOON, wanted).await.json["data"].clone()
}

/// What `gatehouse audit` tells.
fn trail(gateway: &Gateway) -> Vec<Value> {
    let output = gateway.gatehouse(&["audit", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn start(name: &str) -> (Mosquitto, Platform, Gateway, Message) {
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut gateway = Gateway::prepare(plan(name, &mosquitto));
    gateway.write_secret(LOCK, LOCK_PASSWORD);
    std::fs::write(gateway.folder().join("profiles/test-lamp.toml"), LAMP).unwrap();
    gateway.run().await;
    let state = await_state(&platform, name, 1).await;
    (mosquitto, platform, gateway, state)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_platform_may_not_say_is_refused_by_name() {
    let _turn = turn::shared();
    let (_mosquitto, platform, mut gateway, state) = start("gw-refused").await;
    let good = |id: &str| command(&state, id, "alarm.acknowledge", &json!({ "alarm": "nobody's", "rev": 1 }));
    let with = |id: &str, path: &str, value: Value| {
        let mut command = good(id);
        *command.pointer_mut(path).unwrap() = value;
        command
    };
    let table = [
        (good("unknown-alarm"), "rejected", "alarm_unknown"),
        (with("past", "/issued/monotonic", json!("0")), "expired", "command_expired"),
        (with("future", "/issued/monotonic", json!("99999999999999")), "rejected", "command_not_allowed"),
        (with("boot", "/issued/bootid", json!("0".repeat(32))), "expired", "command_expired"),
        (with("type", "/args/rev", json!("1")), "rejected", "down_malformed"),
        (with("more", "/args", json!({ "alarm": "x", "all": true })), "rejected", "down_malformed"),
        (with("name", "/command", json!("door.open_all")), "rejected", "command_unknown"),
        (with("right", "/command", json!("rules.put")), "rejected", "command_not_allowed"),
        (with("nobody", "/operator", json!(" ")), "rejected", "down_malformed"),
        (command(&state, "door", "door.open", &json!({ "door": "nowhere" })), "rejected", "device_unknown"),
        (command(&state, "no-door", "door.open", &json!({ "door": BUTTON })), "rejected", "not_possible"),
    ];
    for (command, outcome, code) in &table {
        let answer = order(&platform, &gateway, command).await;
        assert_eq!(
            (&answer["outcome"], &answer["code"]),
            (&json!(outcome), &json!(code)),
            "{command}: {answer}"
        );
    }
    // The same again gets the first answer; another body under the same id is refused.
    let first = &table[0].0;
    let again = order(&platform, &gateway, first).await;
    assert_eq!(again["code"], "alarm_unknown");
    let mut other = first.clone();
    other["args"]["rev"] = json!(2);
    let other = order(&platform, &gateway, &other).await;
    assert_eq!(other["code"], "command_not_allowed");
    // One that is retained is refused at once, not only where it is found later.
    platform.publish(&topic(&gateway), good("kept-at-once").to_string(), true);
    let at_once = "the answer to a command that is retained while the box is there";
    let answer = eventually(at_once, SOON, || answers(&platform, "kept-at-once").pop()).await;
    assert_eq!(answer["code"], "down_retained");
    // One that was published while the box was away is of unknown age.
    gateway.stop().await;
    platform.publish(&topic(&gateway), good("kept").to_string(), true);
    gateway.run().await;
    eventually("the answer to a retained command", SOON, || answers(&platform, "kept").pop()).await;

    // An entry is stored a moment after its answer is sent.
    let trail = eventually("the last entry", SOON, || {
        let trail = trail(&gateway);
        trail.iter().any(|entry| entry["command"] == "kept").then_some(trail)
    })
    .await;
    for (command, outcome, code) in &table {
        let told = |entry: &&Value| {
            entry["command"] == command["id"] && entry["outcome"] == *outcome && entry["code"] == *code
        };
        assert!(trail.iter().any(|entry| told(&entry)), "{command} is not in the trail: {trail:#?}");
    }
    assert!(trail.iter().any(|entry| entry["repeated"] == true && entry["code"] == "alarm_unknown"));
    assert!(trail.iter().any(|entry| entry["repeated"] == true && entry["code"] == "command_not_allowed"));
    assert!(trail.iter().any(|entry| entry["command"] == "kept" && entry["code"] == "down_retained"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_handled_from_afar_and_at_the_box() {
    let _turn = turn::shared();
    let (_mosquitto, platform, gateway, state) = start("gw-handled").await;
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, BUTTON, 1).await.unwrap();
    let raised = alarm(&platform, "unacknowledged").await;
    let id = raised["alarm"].as_str().unwrap();

    let old = json!({ "alarm": id, "rev": 0 });
    let outdated = order(&platform, &gateway, &command(&state, "c-1", "alarm.acknowledge", &old)).await;
    assert_eq!((&outdated["outcome"], &outdated["code"]), (&json!("rejected"), &json!("outdated")));
    let args = json!({ "alarm": id, "rev": outdated["data"]["rev"] });
    let done = order(&platform, &gateway, &command(&state, "c-2", "alarm.acknowledge", &args)).await;
    assert_eq!((&done["outcome"], &done["code"]), (&json!("done"), &json!("ok")), "{done}");

    // The guard at the box sees the same, and goes on.
    let list = gateway.gatehouse(&["alarm", "list", "--lang", "en"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains(id) && list.contains(BUTTON), "{list}");
    for words in [
        vec!["alarm", "assign", id, "--to", "guard-2", "--reason", "nearest"],
        vec!["alarm", "handle", id, "--result", "false", "--note", "按错", "--reason", "was there"],
        vec!["alarm", "close", id, "--reason", "all is well"],
    ] {
        let output = gateway.gatehouse(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
    }
    let closed = alarm(&platform, "normal").await;
    assert_eq!(closed["alarm"], id);
    assert!(closed["rev"].as_u64() > raised["rev"].as_u64());
    let empty = gateway.gatehouse(&["alarm", "list", "--lang", "zh"]);
    assert_eq!(String::from_utf8(empty.stdout).unwrap(), "没有未结束的报警\n");
    let trail = String::from_utf8(gateway.gatehouse(&["audit"]).stdout).unwrap();
    for part in
        ["platform street", "duty-07", "alarm.acknowledge", "console", "alarm.close", "all is well", id]
    {
        assert!(trail.contains(part), "{part} is not in\n{trail}");
    }
    gateway.await_delivered().await;
    // What was done at the box is no platform's business beyond the alarm itself.
    let private =
        |m: &Message| m.channel() == "event/device" && m.json["data"]["params"]["source"] == "console";
    assert!(platform.look(|all| !all.iter().any(private)));
}

/// A lock that counts how often it was opened, over all connections, and says so.
struct Lock {
    opened: Arc<AtomicUsize>,
    /// Whether it listens now.
    listens: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Lock {
    fn start(gateway: &Gateway) -> Self {
        let login = Login::new(gateway.mqtt, LOCK, LOCK_PASSWORD);
        let (opened, listens) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut task = JoinSet::new();
        task.spawn(serve_lock(login, Arc::clone(&opened), Arc::clone(&listens)));
        Self { opened, listens, _task: task }
    }

    async fn await_listening(&self) {
        eventually("the lock listens", SOON, || self.listens.load(Ordering::SeqCst).then_some(())).await;
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn serve_lock(login: Login, opened: Arc<AtomicUsize>, listens: Arc<AtomicBool>) {
    loop {
        let Ok(mut device) = Device::connect(&login).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if device.subscribe(&format!("{LOCK}/{DOOR}/set")).await.is_err() {
            continue;
        }
        listens.store(true, Ordering::SeqCst);
        let mut seen = 0;
        while !device.ended() {
            for publish in device.received().into_iter().skip(seen) {
                seen += 1;
                if serde_json::from_slice::<Value>(&publish.payload)
                    .is_ok_and(|body| body["state"] == "UNLOCK")
                {
                    opened.fetch_add(1, Ordering::SeqCst);
                    // Whether it can still be heard is what the test is about.
                    device.publish(&format!("{LOCK}/{DOOR}"), br#"{"state":"UNLOCK"}"#).await.ok();
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        listens.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_opens_at_most_once_wherever_the_gateway_dies() {
    let _turn = turn::shared();
    let seed = seed::seed("a_door_opens_at_most_once_wherever_the_gateway_dies");
    let (_mosquitto, platform, mut gateway, mut state) = start("gw-door").await;
    let lock = Lock::start(&gateway);
    let kills = std::env::var("GATEHOUSE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    for kill in 0..kills {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(u64::from(kill)));
        lock.await_listening().await;
        let before = lock.opened();
        let id = format!("door-{kill}");
        let open = command(&state, &id, "door.open", &json!({ "door": DOOR }));
        platform.publish(&topic(&gateway), open.to_string(), false);
        // Each in a part of the window of its own.
        let part = KILL_WINDOW / kills;
        let until = Instant::now() + part * kill + part.mul_f64(rng.f64());
        if rng.bool() {
            eventually("the command is taken", SOON, || answers(&platform, &id).pop()).await;
        }
        tokio::time::sleep_until(until).await;
        gateway.kill();
        gateway.run().await;
        let conn = state.json["data"]["conn"].as_u64().unwrap() + 1;
        state = await_state(&platform, "gw-door", conn).await;
        // The platform asks until it knows.
        let end = Instant::now() + LATER;
        let last = loop {
            platform.publish(&topic(&gateway), open.to_string(), false);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Some(last) = answers(&platform, &id).into_iter().find(|answer| answer["last"] == true) {
                break last;
            }
            assert!(Instant::now() < end, "no last word about {id}: {:?}", answers(&platform, &id));
        };
        let opened = lock.opened() - before;
        let outcome = last["outcome"].as_str().unwrap();
        eprintln!("kill {kill}: opened {opened} times, {last}");
        assert!(opened <= 1, "opened {opened} times: {last}");
        match outcome {
            "done" => assert_eq!(opened, 1, "it was not open: {last}"),
            "rejected" | "expired" | "failed" => assert_eq!(opened, 0, "it was open: {last}"),
            "unknown" => {}
            other => panic!("{other}: {last}"),
        }
        // No answer says anything else.
        let outcomes: Vec<Value> = answers(&platform, &id)
            .into_iter()
            .filter(|answer| answer["last"] == true)
            .map(|answer| answer["outcome"].clone())
            .collect();
        let agree = outcomes.iter().all(|one| *one == outcome || *one == "unknown" || outcome == "unknown");
        assert!(agree, "answers differ: {outcomes:?}");
    }
    // Left alone it opens: what was counted could have been.
    lock.await_listening().await;
    tokio::time::sleep(DOOR_PAUSE).await;
    let before = lock.opened();
    let open = command(&state, "door-at-last", "door.open", &json!({ "door": DOOR }));
    let done = order(&platform, &gateway, &open).await;
    assert_eq!((&done["outcome"], lock.opened() - before), (&json!("done"), 1), "{done}");
}

/// A speaker and a lamp that do what they are told and say so.
struct Field {
    device: Device,
    answered: usize,
}

impl Field {
    async fn connect(gateway: &Gateway) -> Self {
        let login = Login::new(gateway.mqtt, FIELD, FIELD_PASSWORD);
        let mut device = Device::connect_patiently(&login).await;
        for orders in ["horn/say", "lamp/set"] {
            assert_eq!(device.subscribe(&format!("{FIELD}/{orders}")).await, Ok(0));
        }
        Self { device, answered: 0 }
    }

    /// The orders so far: topic and what was ordered.
    fn orders(&self) -> Vec<(String, Value)> {
        let received = self.device.received().into_iter();
        received.map(|order| (order.topic, serde_json::from_slice(&order.payload).unwrap())).collect()
    }

    /// Answers orders until this is done.
    async fn answering<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            for (topic, order) in self.orders().split_off(self.answered) {
                self.answered += 1;
                let (place, state) = match topic.rsplit_once('/').unwrap() {
                    (device, "say") => (format!("{device}/said"), "played"),
                    (device, _set) => (format!("{device}/result"), "done"),
                };
                let answer = json!({ "id": order["id"], "state": state });
                self.device.publish(&place, answer.to_string().as_bytes()).await.unwrap();
            }
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_do_what_a_platform_orders() {
    let _turn = turn::shared();
    let (_mosquitto, platform, gateway, state) = start("gw-orders").await;
    let (lock, mut field) = (Lock::start(&gateway), Field::connect(&gateway).await);
    lock.await_listening().await;
    let relay = json!({ "device": "lamp", "point": "light", "on": true });
    let set = json!({ "device": "lamp", "point": "light", "value": 42 });
    for (name, args, code, topic, ordered) in [
        ("relay", relay, "read_back", "field/lamp/set", json!({ "light": true })),
        ("set", set, "read_back", "field/lamp/set", json!({ "light": 42 })),
        (
            "speak.stop",
            json!({ "tags": ["gate"] }),
            "stop_accepted",
            "field/horn/say",
            json!({ "stop": true }),
        ),
    ] {
        let before = field.orders().len();
        let command = command(&state, name, name, &args);
        let answer = field.answering(order(&platform, &gateway, &command)).await;
        assert_eq!((&answer["outcome"], &answer["code"]), (&json!("done"), &json!(code)), "{name}: {answer}");
        let orders = field.orders().split_off(before);
        let [(place, said)] = &orders[..] else { panic!("{name}: {orders:?}") };
        assert_eq!(place, topic);
        let told = ordered.as_object().unwrap().iter().all(|(key, value)| said[key] == *value);
        assert!(told, "{name}: {said}");
    }
    let reset = command(&state, "reset", "door.reset", &json!({ "door": DOOR }));
    let answer = order(&platform, &gateway, &reset).await;
    assert_eq!((&answer["outcome"], &answer["code"]), (&json!("done"), &json!("release_ended")), "{answer}");
    assert_eq!(lock.opened(), 0, "a reset opened the door");
}

/// The blocks of docs/platform/README.md that show commands.
fn examples() -> Vec<Value> {
    let page = std::fs::read_to_string(root().join("docs/platform/README.md")).unwrap();
    let blocks = page.split("```json command\n").skip(1);
    blocks.map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_pages_commands_work_as_they_stand() {
    let _turn = turn::shared();
    let (mosquitto, platform, gateway, state) = start("box-0001").await;
    let (lock, mut field) = (Lock::start(&gateway), Field::connect(&gateway).await);
    let page = std::fs::read_to_string(root().join("docs/platform/README.md")).unwrap();
    let script: Vec<String> = commands(&page, "Commands").into_iter().map(|typed| typed.command).collect();
    assert!(script.len() >= 3, "the page has lost its commands: {script:?}");
    let script = script.join("\n").replace("1884", &mosquitto.address().port().to_string());
    let output = Command::new("bash").arg("-c").arg(format!("set -eu\n{script}")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("\"outcome\":\"done\""), "{said}\n{output:?}");

    let examples = examples();
    assert!(examples.len() >= 6, "the page has lost its examples");
    let mut button = Device::connect_patiently(&gateway.login()).await;
    press(&mut button, BUTTON, 1).await.unwrap();
    let alarm = alarm(&platform, "unacknowledged").await;
    drop(button);
    lock.await_listening().await;
    for example in examples {
        // What only this box knows takes the place of the page's: its clock, its epoch, its alarm.
        let mut command = example.clone();
        command["issued"] = issued(&state);
        if let Some(id) = command.pointer_mut("/args/alarm") {
            *id = alarm["alarm"].clone();
        }
        if let Some(epoch) = command.pointer_mut("/args/epoch") {
            *epoch = state.json["epoch"].clone();
            (command["args"]["from"], command["args"]["to"]) =
                (json!("0000000000000001"), json!("0000000000000001"));
        }
        let answer = field.answering(order(&platform, &gateway, &command)).await;
        assert_eq!(answer["outcome"], "done", "{command}: {answer}");
        if command["command"] == "speak" {
            assert_eq!(answer["code"], "played");
        }
    }
}

fn issued(state: &Message) -> Value {
    command(state, "x", "x", &json!({}))["issued"].clone()
}
