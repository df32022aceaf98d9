//! Alarms over the real binary: what a button raises reaches the platform once, outlives a kill, and stands in the snapshot;
//! timers go on where they were; the past can be rehearsed while the gateway runs (promises G6, G7).

use std::collections::BTreeSet;
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{SOON, await_state, measure, press};
use gatehouse_tests::turn;
use serde_json::Value;

/// Time for something to happen that must not.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// A level that stays high for so long is an alarm.
const HIGH_FOR: Duration = Duration::from_secs(5);
const RULES: &str = r#"
[[rule]]
name = "level-high"
title = { zh = "水位过高", en = "level too high" }
on = { point = "level" }
when = "value > 50.0"
for_s = 5

[rule.raise]
name = "level.high"
category = "device"
severity = "major"
text = { zh = "水位过高", en = "level too high" }
"#;

/// Every press counts, without any cooldown.
const ONE_BUTTON: &str = r#"
[[rule]]
name = "emergency-button"
title = { zh = "紧急按钮", en = "emergency button" }
on = { event = "button.pressed", devices = ["button-1"] }
cooldown_s = 0

[rule.raise]
category = "emergency"
severity = "critical"
text = { zh = "紧急按钮报警", en = "emergency button pressed" }
"#;

async fn begin(name: &str) -> (Mosquitto, Platform, Gateway) {
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new(name, &mosquitto.url());
    plan.gateway.push_str("rules_dir = \"rules\"\n");
    let mut gateway = Gateway::prepare(plan);
    let rules = gateway.folder().join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("own.toml"), RULES).unwrap();
    gateway.run().await;
    (mosquitto, platform, gateway)
}

/// The messages about alarms of a rule, in order.
fn told(platform: &Platform, rule: &str) -> Vec<Message> {
    let ours = |message: &&Message| message.channel() == "alarm" && message.json["data"]["rule"] == rule;
    platform.look(|messages| messages.iter().filter(ours).cloned().collect())
}

async fn await_alarm(platform: &Platform, rule: &str, device: &str) -> Message {
    let what = format!("an alarm of {rule} at {device}");
    let ours = |message: &Message| {
        let data = &message.json["data"];
        message.channel() == "alarm" && data["rule"] == rule && data["device"]["id"] == device
    };
    platform.await_message(&what, SOON, ours).await
}

fn ids(messages: &[Message]) -> BTreeSet<String> {
    messages.iter().map(|message| message.json["data"]["alarm"].as_str().unwrap().to_owned()).collect()
}

/// The open alarms of the last complete snapshot of a connection.
async fn snapshot(platform: &Platform, conn: u64) -> BTreeSet<String> {
    let of = |message: &Message| message.channel() == "snapshot" && message.json["data"]["conn"] == conn;
    platform.await_message("a snapshot", SOON, of).await;
    platform.look(|messages| {
        let pages = messages.iter().filter(|message| of(message));
        let alarms =
            pages.flat_map(|page| page.json["data"]["alarms"].as_array().cloned().unwrap_or_default());
        alarms.map(|alarm| alarm["alarm"].as_str().unwrap().to_owned()).collect()
    })
}

fn rehearse(gateway: &Gateway, words: &[&str]) -> Value {
    let output = gateway.gatehouse(&[&["rehearse", "--json"], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_outlives_a_kill_and_is_raised_once() {
    let _turn = turn::shared();
    let (_mosquitto, platform, mut gateway) = begin("gw-alarms").await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, "button-1", 1).await.unwrap();
    let first = await_alarm(&platform, "emergency-button", "button-1").await;
    let alarm = first.json["data"]["alarm"].as_str().unwrap().to_owned();
    assert_eq!(first.json["data"]["open"], true);
    assert_eq!(first.json["data"]["severity"], "critical");
    gateway.kill();
    gateway.run().await;
    let conn = await_state(&platform, "gw-alarms", 2).await.json["data"]["conn"].as_u64().unwrap();
    let open = snapshot(&platform, conn).await;
    assert!(open.contains(&alarm), "{open:?}");
    assert_eq!(gateway.status()["alarms"], open.len());
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, "button-2", 2).await.unwrap();
    await_alarm(&platform, "emergency-button", "button-2").await;
    tokio::time::sleep(A_WHILE).await;
    let told = told(&platform, "emergency-button");
    assert_eq!(ids(&told).len(), 2, "{told:?}");
    let mut revs: Vec<(String, u64)> = Vec::new();
    for message in &told {
        let data = &message.json["data"];
        revs.push((data["alarm"].as_str().unwrap().to_owned(), data["rev"].as_u64().unwrap()));
    }
    assert!(revs.iter().filter(|(id, _)| *id == alarm).all(|(_, rev)| *rev == 1), "raised again: {revs:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_goes_on_after_a_kill_and_fires_once_by_itself() {
    let _turn = turn::shared();
    let (_mosquitto, platform, mut gateway) = begin("gw-timer").await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    measure(&mut device, "meter-1", 90).await.unwrap();
    let since = tokio::time::Instant::now();
    // A value may wait a second for its commit; this press is on disk with it.
    press(&mut device, "button-1", 1).await.unwrap();
    tokio::time::sleep(HIGH_FOR / 4).await;
    gateway.kill();
    assert!(told(&platform, "level-high").is_empty(), "too early");
    gateway.run().await;
    await_alarm(&platform, "level-high", "meter-1").await;
    let took = since.elapsed();
    assert!(took >= HIGH_FOR, "after {took:?}");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(ids(&told(&platform, "level-high")).len(), 1);
    let ticks =
        gateway.journal().iter().filter(|line| line["body"]["event"]["name"] == "pipeline.tick").count();
    assert!(ticks > 0, "nothing else was there to tell the time");
    let shown = platform
        .look(|messages| messages.iter().any(|message| message.json["data"]["name"] == "pipeline.tick"));
    assert!(!shown, "ticks are nobody's business");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_rehearsed_while_the_gateway_runs() {
    let _turn = turn::shared();
    let (_mosquitto, platform, mut gateway) = begin("gw-rehearse").await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in 1..=4 {
        press(&mut device, "button-1", n).await.unwrap();
    }
    press(&mut device, "button-2", 5).await.unwrap();
    await_alarm(&platform, "emergency-button", "button-2").await;
    let before = gateway.journal().len();
    let as_it_was = rehearse(&gateway, &[]);
    let of = |outcome: &Value, rule: &str| {
        let tally = &outcome["rules"][rule];
        (tally["would"].as_u64().unwrap_or(0), tally["really"].as_u64().unwrap_or(0))
    };
    assert_eq!(of(&as_it_was, "emergency-button"), (2, 2), "{as_it_was}");
    let ids_of = |outcome: &Value| -> BTreeSet<String> {
        let raised = outcome["raised"].as_array().unwrap().iter();
        raised.map(|raised| raised["alarm"].as_str().unwrap().to_owned()).collect()
    };
    assert!(ids_of(&as_it_was).is_superset(&ids(&told(&platform, "emergency-button"))), "the same alarms");
    let file = gateway.folder().join("one.toml");
    std::fs::write(&file, ONE_BUTTON).unwrap();
    let changed = rehearse(&gateway, &["--rules", file.to_str().unwrap()]);
    assert_eq!(
        of(&changed, "emergency-button"),
        (1, 2),
        "one button, whose presses count on its open alarm: {changed}"
    );
    let text = gateway.gatehouse(&["rehearse", "--rules", file.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("emergency-button ")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["emergency-button", "1", "2"], "{text}");
    assert!(gateway.journal().len() <= before + 2, "nothing was recorded by it");
    gateway.stop().await;
}
