//! A mosquitto that is there already, with the gateway as one of its clients, and another one as the platform: what it
//! has handed over is on disk before it is acknowledged (promise G1), what was published while the gateway was away
//! comes when it is back, and what it had kept is never a press.

use std::collections::BTreeSet;
use std::time::Duration;

use gatehouse_tests::device::{Device, Login};
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::{Mosquitto, Options};
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{LATER, SOON, await_event, await_presses, marker, press_body, presses};
use gatehouse_tests::strace::{acknowledged_after_sync, parse};
use gatehouse_tests::wait::{eventually, eventually_ok, never};
use gatehouse_tests::wire::{Publish, Version};
use gatehouse_tests::{seed, turn};
use serde_json::json;

const BUTTON: &str = "ext-button";
const METER: &str = "ext-meter";

/// A local broker, the platform's broker, the platform, and a gateway that does not run yet.
struct Field {
    local: Mosquitto,
    _mosquitto: Mosquitto,
    platform: Platform,
    gateway: Gateway,
}

impl Field {
    async fn prepare(name: &str, persistent: bool) -> Self {
        // As it comes: without a limit of its own mosquitto does not keep to the client's either.
        let options = Options { inflight: Some(20), persistent, ..Options::default() };
        let local = Mosquitto::start_with(&options).await;
        let mosquitto = Mosquitto::start().await;
        let platform = Platform::start(mosquitto.address(), "#").await;
        let mut plan = Plan::new(name, &mosquitto.url());
        plan.extra = format!(
            "[buses.z2m.mqtt]\nurl = \"{}\"\nbase = \"z2m\"\n\n\
             [devices.{BUTTON}]\nprofile = \"test-button\"\nbus = \"z2m\"\naddress = \"{BUTTON}\"\n\n\
             [devices.{METER}]\nprofile = \"test-meter\"\nbus = \"z2m\"\naddress = \"{METER}\"\nheartbeat_s = 2\n",
            local.url()
        );
        Self { local, _mosquitto: mosquitto, platform, gateway: Gateway::prepare(plan) }
    }

    async fn start(name: &str) -> Self {
        let mut field = Self::prepare(name, false).await;
        field.gateway.run().await;
        field.await_heard().await;
        field
    }

    /// Waits until the gateway listens at the local broker.
    async fn await_heard(&self) {
        eventually("the gateway is subscribed", SOON, || {
            let status = self.gateway.status();
            let bus = &status["board"]["buses"]["z2m"];
            // The session is noted when the broker has granted every subscription.
            let noted = self.gateway.data_dir().join("sessions/z2m").exists();
            (noted && bus["clients"][0].is_string() && bus["trouble"].is_null()).then_some(())
        })
        .await;
    }

    async fn device(&self) -> Device {
        Device::connect_patiently(&Login::new(self.local.address(), "field-device", "")).await
    }

    fn pressed(&self) -> Vec<u64> {
        self.platform.look(|messages| presses(messages, BUTTON))
    }

    fn assert_clean(&self) {
        let name = &self.gateway.plan.name;
        self.platform.look(|messages| gatehouse_tests::audit::audit(messages, name)).assert_clean();
    }
}

async fn press(device: &mut Device, n: u64) {
    device.publish(&format!("z2m/{BUTTON}"), &press_body(n)).await.unwrap();
}

async fn retain(device: &mut Device, name: &str, payload: &[u8]) {
    let mut publish = Publish::new(&format!("z2m/{name}"), payload, 1, 60_000);
    publish.retain = true;
    device.send_raw(&publish.encode(Version::V311)).await.unwrap();
    device.acked(60_000, SOON).await.unwrap();
}

/// The samples of a device as they came, oldest first.
fn samples(platform: &Platform, device: &str) -> Vec<serde_json::Value> {
    platform.look(|messages| {
        let telemetry = messages.iter().filter(|message| message.channel().ends_with("telemetry"));
        let records =
            telemetry.flat_map(|m| m.json["data"]["records"].as_array().cloned().unwrap_or_default());
        let ours = records.filter(|record| record["device"]["id"] == device);
        ours.flat_map(|record| record["samples"].as_array().cloned().unwrap_or_default()).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_arrives_and_what_the_broker_had_kept_is_none() {
    let _turn = turn::shared();
    let mut field = Field::prepare("gw-ext", false).await;
    let mut device = field.device().await;
    retain(&mut device, BUTTON, &press_body(99)).await;
    retain(&mut device, METER, br#"{"level":7}"#).await;
    field.gateway.run().await;
    field.await_heard().await;
    let kept = eventually("the kept value", SOON, || samples(&field.platform, METER).first().cloned()).await;
    assert_eq!((&kept["quality"], &kept["reason"]), (&"uncertain".into(), &"kept".into()), "{kept}");
    assert_eq!(field.gateway.status()["board"]["devices"][METER]["standing"], "unheard");
    for n in 1..=50 {
        press(&mut device, n).await;
    }
    await_presses(&field.platform, BUTTON, &(1..=50).collect(), SOON).await;
    assert_eq!(field.pressed(), (1..=50).collect::<Vec<_>>(), "in order, once, and not what was kept");
    assert!(field.gateway.refused("retained_delivery").await >= 1.0);
    field.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_between_delivery_and_commit_loses_nothing() {
    let _turn = turn::shared();
    let mut rng = seed::rng("external kill");
    let mut field = Field::start("gw-ext-kill").await;
    let mut device = field.device().await;
    let mut n = 0;
    for _ in 0..8 {
        let until = tokio::time::Instant::now() + Duration::from_millis(rng.u64(50..400));
        while tokio::time::Instant::now() < until {
            // The local broker takes a press, also while nobody listens.
            n += 1;
            press(&mut device, n).await;
        }
        field.gateway.kill();
        for _ in 0..rng.u64(0..20) {
            n += 1;
            press(&mut device, n).await;
        }
        field.gateway.run().await;
        if rng.bool() {
            field.await_heard().await;
        }
    }
    await_presses(&field.platform, BUTTON, &(1..=n).collect(), LATER).await;
    field.gateway.await_delivered().await;
    // Whatever came twice came twice from the broker: new presses are in order all the same.
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = field.pressed().into_iter().filter(|n| seen.insert(*n)).collect();
    let journal: Vec<u64> =
        field.gateway.journal().iter().filter_map(|r| r["body"]["event"]["params"]["n"].as_u64()).collect();
    println!("{n} presses, {} records of them, {} journalled", field.pressed().len(), journal.len());
    assert_eq!(first.len() as u64, n);
    assert!(!field.gateway.log().contains("lost our session"), "the session did not live on");
    field.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_gateway_and_broker_and_a_lost_one_is_told() {
    let _turn = turn::shared();
    let mut field = Field::prepare("gw-ext-session", true).await;
    field.gateway.run().await;
    field.await_heard().await;
    // Pressed while the gateway is down, and the broker is restarted before it is back.
    field.gateway.stop().await;
    let mut device = field.device().await;
    for n in 1..=5 {
        press(&mut device, n).await;
    }
    drop(device);
    field.local.stop().await;
    field.local.run().await;
    field.gateway.run().await;
    await_presses(&field.platform, BUTTON, &(1..=5).collect(), SOON).await;
    assert_eq!(field.pressed(), [1, 2, 3, 4, 5]);
    let lost = |message: &Message| message.json["data"]["name"] == "bus.session_lost";
    assert!(field.platform.look(|all| !all.iter().any(lost)));

    // Restarted under a running gateway: one trouble while it is away, and it comes back by itself.
    field.local.stop().await;
    eventually("the bus is in trouble", SOON, || {
        field.gateway.status()["board"]["buses"]["z2m"]["trouble"].as_str().map(str::to_owned)
    })
    .await;
    field.local.run().await;
    field.await_heard().await;
    let mut device = field.device().await;
    press(&mut device, 6).await;
    await_presses(&field.platform, BUTTON, &(1..=6).collect(), SOON).await;
    assert!(field.platform.look(|all| !all.iter().any(lost)), "the session was resumed");

    // Killed: what was not saved is gone, the session with it, and the gateway knows, although it was down meanwhile.
    field.gateway.stop().await;
    field.local.kill();
    field.local.forget();
    field.local.run().await;
    field.gateway.run().await;
    let event = await_event(&field.platform, "bus.session_lost", SOON).await;
    assert_eq!(event.json["data"]["params"]["bus"], "z2m");
    assert_eq!(event.json["data"]["severity"], "major");
    field.await_heard().await;
    let mut device = field.device().await;
    press(&mut device, 7).await;
    await_presses(&field.platform, BUTTON, &(1..=7).collect(), SOON).await;
    field.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_device_is_stale_then_offline_and_back_when_it_speaks() {
    let _turn = turn::shared();
    let field = Field::start("gw-ext-silent").await;
    let mut device = field.device().await;
    let level = |n: u64| json!({ "level": n }).to_string().into_bytes();
    device.publish(&format!("z2m/{METER}"), &level(5)).await.unwrap();
    let online = await_event(&field.platform, "device.online", SOON).await;
    assert_eq!(online.json["data"]["device"]["id"], METER);
    let told = eventually("the value is stale", SOON, || {
        let stale = |sample: &serde_json::Value| sample["quality"] == "stale";
        samples(&field.platform, METER).into_iter().find(stale)
    })
    .await;
    assert_eq!((&told["reason"], &told["value"].as_f64()), (&"silent".into(), &Some(5.0)), "{told}");
    let age_ms = told["age_ms"].as_u64().unwrap_or_else(|| panic!("no age: {told}"));
    assert!((3_000..8_000).contains(&age_ms), "{age_ms} ms after the last word, heartbeat 2 s");
    let offline = await_event(&field.platform, "device.offline", SOON).await;
    assert_eq!(offline.json["data"]["params"]["reason"], "silent");
    assert_eq!(field.gateway.status()["board"]["devices"][METER]["standing"], "offline");
    assert!(field.gateway.status()["board"]["devices"][BUTTON]["standing"] == "unheard");
    device.publish(&format!("z2m/{METER}"), &level(6)).await.unwrap();
    eventually("it is back", SOON, || {
        let online = |m: &&Message| m.json["data"]["name"] == "device.online";
        field.platform.look(|all| (all.iter().filter(online).count() == 2).then_some(()))
    })
    .await;
    assert_eq!(field.gateway.status()["board"]["devices"][METER]["standing"], "fresh");
    field.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_puback_follows_the_sync_of_the_record() {
    const PRESSES: u16 = 10;
    let _turn = turn::shared();
    let mut field = Field::prepare("gw-ext-fsync", false).await;
    let trace = field.gateway.folder().join("trace");
    field.gateway.run_traced(&trace, None).await;
    field.await_heard().await;
    let mut device = field.device().await;
    for n in 1..=u64::from(PRESSES) {
        press(&mut device, n).await;
        await_presses(&field.platform, BUTTON, &BTreeSet::from([n]), SOON).await;
    }
    field.gateway.terminate(Duration::from_secs(30)).await;
    let text = eventually("the end of the trace", SOON, || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        text.contains("+++ exited with").then_some(text)
    })
    .await;
    let (calls, port) = (parse(&text), field.local.address().port());
    for id in 1..=PRESSES {
        // mosquitto numbers what it sends from 1.
        let [high, low] = id.to_be_bytes();
        let judged =
            acknowledged_after_sync(&calls, marker(id.into()).as_bytes(), port, &[0x40, 2, high, low]);
        judged.unwrap_or_else(|error| panic!("press {id}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_of_others_is_counted_and_the_next_press_comes_through() {
    let _turn = turn::shared();
    let field = Field::start("gw-ext-junk").await;
    let mut device = field.device().await;
    let large = vec![b'x'; 300 * 1024];
    let cases: [(&[u8], &str); 4] = [
        (b"\xff\xff", "not_utf8"),
        (b"{", "not_json"),
        (&large, "payload_too_large"),
        (&[b'['; 99], "json_too_deep"),
    ];
    for (payload, _) in cases {
        device.publish(&format!("z2m/{BUTTON}"), payload).await.unwrap();
    }
    // Not ours, and not subscribed to: it never comes.
    device.publish("z2m/stranger", &press_body(1)).await.unwrap();
    // Larger than the gateway lets the broker send: the broker drops it, and goes on.
    device.publish(&format!("z2m/{BUTTON}"), &vec![b'y'; 600 * 1024]).await.unwrap();
    press(&mut device, 2).await;
    await_presses(&field.platform, BUTTON, &BTreeSet::from([2]), SOON).await;
    for (_, reason) in cases {
        eventually_ok(reason, SOON, async || match field.gateway.refused(reason).await {
            count if (0.5..1.5).contains(&count) => Ok(()),
            count => Err(count),
        })
        .await;
    }
    assert!(field.gateway.refused("topic_unknown").await < 0.5);
    never("a press of nobody's", Duration::from_millis(300), || {
        field.pressed().into_iter().find(|n| *n != 2)
    })
    .await;
    field.assert_clean();
}
