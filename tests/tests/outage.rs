//! The platform goes away and comes back: nothing acknowledged is lost, and what is new goes first.

use std::collections::BTreeSet;
use std::time::Duration;

use gatehouse_tests::audit::latest_value_never_goes_back;
use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, Uplink};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{LATER, SOON, Site, await_state, measure, press, pressed};
use gatehouse_tests::{seed, turn};

const BUTTON: &str = "button-1";
const OTHER: &str = "button-2";

/// Presses both buttons and sends a value, for each number.
async fn speak(device: &mut Device, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        press(device, BUTTON, n).await.unwrap();
        press(device, OTHER, n).await.unwrap();
        measure(device, "meter-1", n).await.unwrap();
    }
}

fn newest_value(messages: &[Message]) -> Option<f64> {
    let mut values = messages.iter().filter(|message| message.channel() == "telemetry").flat_map(|message| {
        let records = message.json["data"]["records"].as_array().cloned().unwrap_or_default();
        records.into_iter().filter_map(|record| record["samples"][0]["value"].as_f64())
    });
    values.by_ref().last()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_live_comes_first_and_nothing_is_lost() {
    let _turn = turn::shared();
    let mut mosquitto = Mosquitto::start().await;
    let mut platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-outage", "");
    // Slow enough that the backlog of 400 events still runs while live records arrive.
    let uplink = Uplink::new("street", &mosquitto.url());
    let pacing = uplink.pacing.replace("backlog_per_s = 100000", "backlog_per_s = 100");
    plan.uplinks = vec![Uplink { pacing, ..uplink }];
    let gateway = Gateway::start(plan).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    await_state(&platform, "gw-outage", 1).await;

    speak(&mut device, 1..=20).await;
    let all = (1..=20).collect();
    gatehouse_tests::site::await_presses(&platform, OTHER, &all, SOON).await;

    mosquitto.stop().await;
    speak(&mut device, 21..=220).await;
    mosquitto.run().await;
    platform.await_online().await;
    let state = await_state(&platform, "gw-outage", 2).await;
    let pending = &state.json["data"]["classes"]["event"]["pending"];
    assert!(pending.as_array().is_some_and(|ranges| !ranges.is_empty()), "nothing announced: {}", state.json);

    speak(&mut device, 221..=225).await;
    let all: BTreeSet<u64> = (1..=225).collect();
    for button in [BUTTON, OTHER] {
        gatehouse_tests::site::await_presses(&platform, button, &all, LATER).await;
    }
    gateway.await_delivered().await;
    let messages = platform.messages();
    let last_of_backlog =
        messages.iter().rposition(|m| pressed(m, BUTTON).is_some_and(|n| n <= 220)).unwrap();
    let live = messages.iter().position(|m| pressed(m, BUTTON) == Some(225)).unwrap();
    assert!(live < last_of_backlog, "the backlog held the live stream up");
    for message in messages.iter().filter(|message| !message.retained) {
        match pressed(message, BUTTON) {
            Some(n @ 25..=220) => {
                assert!(message.replay(), "press {n} of the outage does not say so: {}", message.json);
                assert!(message.json["age"].as_u64().is_some(), "no age: {}", message.json);
            }
            Some(n @ 221..) => assert!(!message.replay(), "live press {n} came as replay"),
            _ => {}
        }
    }
    let report = gatehouse_tests::audit::audit(&messages, "gw-outage");
    report.assert_clean();
    latest_value_never_goes_back(&report);
    assert_eq!(newest_value(&messages), Some(225.0));
    assert!(
        messages.iter().any(|m| m.channel() == "history/telemetry"),
        "the backlog of values went elsewhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_killed_again_and_again_loses_nothing() {
    let _turn = turn::shared();
    let mut rng = seed::rng("outage");
    let mut site = Site::start("gw-flap").await;
    let mut device = site.device().await;
    site.await_online(1).await;
    let mut next = 1;
    for _ in 0..5 {
        let count = rng.u64(20..60);
        speak(&mut device, next..=next + count).await;
        next += count + 1;
        site.mosquitto.kill();
        if rng.bool() {
            speak(&mut device, next..=next + 10).await;
            next += 11;
        }
        site.mosquitto.run().await;
        site.platform.await_online().await;
    }
    let all: BTreeSet<u64> = (1..next).collect();
    site.await_presses(BUTTON, &all, LATER).await;
    site.await_presses(OTHER, &all, LATER).await;
    site.gateway.await_delivered().await;
    let report = site.audit();
    report.assert_clean();
    latest_value_never_goes_back(&report);
    println!("{} records, {} duplicates", report.ids().len(), report.duplicates);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_do_not_wait_for_each_other() {
    let _turn = turn::shared();
    let near = Mosquitto::start().await;
    let mut far = Mosquitto::start().await;
    let platform = Platform::start(near.address(), "#").await;
    let mut other = Platform::start(far.address(), "#").await;
    far.stop().await;
    let mut plan = Plan::new("gw-both", "");
    plan.uplinks = vec![
        Uplink::new("street", &near.url()),
        Uplink::new("district", &far.url())
            .extra("filter = { categories = [\"emergency\"], classes = [\"event\"] }"),
    ];
    let gateway = Gateway::start(plan).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    await_state(&platform, "gw-both", 1).await;
    speak(&mut device, 1..=20).await;
    let all: BTreeSet<u64> = (1..=20).collect();
    gatehouse_tests::site::await_presses(&platform, BUTTON, &all, SOON).await;
    far.run().await;
    other.await_online().await;
    gatehouse_tests::site::await_presses(&other, OTHER, &all, LATER).await;
    gateway.await_delivered().await;
    for one in [&platform, &other] {
        one.look(|messages| gatehouse_tests::audit::audit(messages, "gw-both")).assert_clean();
    }
    let telemetry = other.look(|all| all.iter().filter(|m| m.channel().contains("telemetry")).count());
    assert_eq!(telemetry, 0, "the filter lets values through");
    let within = Duration::from_secs(5);
    gatehouse_tests::wait::eventually("the near platform's values", within, || {
        platform.look(|all| (newest_value(all) == Some(20.0)).then_some(()))
    })
    .await;
}
