//! Everything that devices and strangers can send wrong, while a well-behaved button goes on pressing (promise G12):
//! each wrong thing gets a counted, named reason, and the button does not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatehouse_tests::device::{Device, Login, NoAck, Refused};
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::http::series;
use gatehouse_tests::site::{LATER, Site, await_presses, press, press_body, topic};
use gatehouse_tests::wait::eventually_ok;
use gatehouse_tests::wire::{Connect, Publish, Version, Will, frame};
use gatehouse_tests::{mosquitto::Mosquitto, platform::Platform, seed, turn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

const BUTTON: &str = "button-1";
const EVIL: &str = "evil";
const EVIL_PASSWORD: &str = "0123456789abcdef0123456789abcdef";

fn plan(name: &str, url: &str) -> Plan {
    let mut plan = Plan::new(name, url);
    let evils = [EVIL, "evil-breaker", "evil-dawdler"];
    plan.clients = evils.map(|name| (name.to_owned(), EVIL_PASSWORD.to_owned())).into();
    plan.extra = format!(
        "[devices.evil-meter]\nprofile = \"test-meter\"\nclient = \"{EVIL}\"\naddress = \"meter\"\n\n"
    );
    plan
}

async fn site(name: &str) -> Site {
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let gateway = Gateway::start(plan(name, &mosquitto.url())).await;
    Site { mosquitto, platform, gateway }
}

fn evil(gateway: &Gateway, version: Version) -> Login {
    Login::new(gateway.mqtt, EVIL, EVIL_PASSWORD).version(version)
}

/// Waits until `reason` was counted `by` more times than `before`, in the metrics and in `status`.
async fn counted(gateway: &Gateway, reason: &str, before: f64, by: f64) {
    let what = format!("{reason} is counted {by} times");
    eventually_ok(&what, Duration::from_secs(10), async || {
        let count = gateway.refused(reason).await - before;
        if count >= by { Ok(()) } else { Err(format!("{count} in {}", gateway.metrics().await)) }
    })
    .await;
    let refusals = gateway.status()["refusals"].clone();
    let named = refusals.as_array().is_some_and(|counts| {
        counts.iter().any(|count| {
            count["labels"].as_array().is_some_and(|labels| labels.contains(&reason.into()))
                && count["count"].as_u64() > Some(0)
        })
    });
    assert!(named, "`status` does not show {reason}: {refusals}");
}

/// A payload that must be refused, and the reason.
fn bad_payloads() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let deep = "[".repeat(100_000).into_bytes();
    let nested = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200)).into_bytes();
    let long = format!(r#"{{"label":"{}"}}"#, "x".repeat(5_000)).into_bytes();
    vec![
        ("malformed JSON", b"{\"level\":".to_vec(), "not_json"),
        ("no UTF-8", b"{\"level\":\"\xff\xfe\"}".to_vec(), "not_utf8"),
        ("100 000 brackets", deep, "json_too_deep"),
        ("200 nested objects", nested, "json_too_deep"),
        ("a text for a number", br#"{"level":"high"}"#.to_vec(), "wrong_type"),
        ("a list for a number", br#"{"level":[1,2]}"#.to_vec(), "wrong_type"),
        ("NaN", br#"{"level":NaN}"#.to_vec(), "not_finite"),
        ("Infinity", br#"{"level":-Infinity}"#.to_vec(), "not_finite"),
        ("a number out of range", br#"{"level":-99999}"#.to_vec(), "out_of_range"),
        ("a long text", long, "text_too_long"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_payloads_are_refused_by_name_and_still_acknowledged() {
    let _turn = turn::shared();
    let site = site("gw-payload").await;
    for version in [Version::V311, Version::V5] {
        let mut device = Device::connect_patiently(&evil(&site.gateway, version)).await;
        for (what, payload, reason) in bad_payloads() {
            let before = site.gateway.refused(reason).await;
            let ack = device.publish("evil/meter", &payload).await;
            assert!(ack.is_ok(), "{version:?}, {what}: not acknowledged, so the device sends it for ever");
            counted(&site.gateway, reason, before, 1.0).await;
        }
        device.publish("evil/meter", br#"{"level":5}"#).await.unwrap();
        assert!(!device.ended());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_beyond_the_limits_are_refused_or_cut() {
    let _turn = turn::shared();
    let site = site("gw-size").await;
    let large = vec![b' '; 300 * 1024];
    for version in [Version::V311, Version::V5] {
        let before = site.gateway.refused("payload_too_large").await;
        let mut device = Device::connect_patiently(&evil(&site.gateway, version)).await;
        let ack = device.publish("evil/meter", &large).await.expect("300 KiB are acknowledged");
        assert_eq!(ack.code >= 0x80, version == Version::V5, "{version:?}: code {:#x}", ack.code);
        counted(&site.gateway, "payload_too_large", before, 1.0).await;
        device.publish("evil/meter", br#"{"level":5}"#).await.unwrap();

        let before = site.gateway.refused("payload_too_large").await;
        let huge = Publish::new("evil/meter", vec![b' '; 2 * 1024 * 1024], 1, 9).encode(version);
        // The gateway may close before everything is written.
        device.send_raw(&huge).await.ok();
        assert!(device.await_end(Duration::from_secs(10)).await, "{version:?}: 2 MiB were read");
        counted(&site.gateway, "payload_too_large", before, 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_topics_are_refused_by_name() {
    let _turn = turn::shared();
    let site = site("gw-topics").await;
    let long = format!("evil/{}", "x".repeat(600));
    let cases = [
        ("evil/+", "topic_malformed"),
        ("evil/#", "topic_malformed"),
        ("evil/a\0b", "topic_malformed"),
        (long.as_str(), "topic_too_long"),
        ("zigbee2mqtt/button-1", "topic_not_owned"),
        ("$SYS/broker", "topic_not_owned"),
        ("evil/nobody/knows", "topic_unknown"),
    ];
    for version in [Version::V311, Version::V5] {
        for (hostile, reason) in cases {
            let before = site.gateway.refused(reason).await;
            let mut device = Device::connect_patiently(&evil(&site.gateway, version)).await;
            // Acknowledged or cut, as long as it is counted; never taken for another device's press.
            match device.publish(hostile, &press_body(666)).await {
                Ok(ack) => assert_eq!(ack.code >= 0x80, version == Version::V5, "{hostile:?}: {ack:?}"),
                Err(NoAck::Ended) => {}
                Err(NoAck::Late) => panic!("{hostile:?}: neither acknowledged nor cut"),
            }
            counted(&site.gateway, reason, before, 1.0).await;
        }
    }
    let stored =
        site.gateway.journal().iter().filter(|record| record.to_string().contains("\"n\":666")).count();
    assert_eq!(stored, 0, "a press on another device's topic was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_thieves_stay_outside() {
    let _turn = turn::shared();
    let site = site("gw-thief").await;
    let mut good = site.device().await;
    let thief = evil(&site.gateway, Version::V311);

    let stolen = Login { client_id: "z2m".to_owned(), ..thief.clone() };
    let unknown = Login::new(site.gateway.mqtt, "nobody", "x");
    let anonymous = Login { username: None, password: None, ..thief.clone() };
    let wrong = Login::new(site.gateway.mqtt, EVIL, "guess");
    let will = Will { topic: topic(BUTTON), payload: press_body(667), qos: 1, retain: false };
    let foreign_will = Login { will: Some(will), ..thief.clone() };
    for (login, reason) in [
        (stolen, "client_id_not_owned"),
        (unknown, "unknown_client"),
        (anonymous, "unknown_client"),
        (wrong, "wrong_password"),
        (foreign_will, "will_topic"),
    ] {
        for version in [Version::V311, Version::V5] {
            let before = site.gateway.refused(reason).await;
            let refused = Device::connect(&login.clone().version(version)).await;
            assert!(refused.is_err(), "{reason}: let in");
            counted(&site.gateway, reason, before, 1.0).await;
        }
    }
    press(&mut good, BUTTON, 1).await.expect("the button whose client id was tried is still there");

    let before = site.gateway.refused("subscription_denied").await;
    for version in [Version::V311, Version::V5] {
        let mut device = Device::connect_patiently(&thief.clone().version(version)).await;
        for filter in ["#", "zigbee2mqtt/#", "$SYS/#", "evil/#"] {
            match device.subscribe(filter).await {
                Ok(code) => assert!(code >= 0x80, "{version:?}: {filter} was granted with {code}"),
                Err(NoAck::Ended) => {
                    device = Device::connect_patiently(&thief.clone().version(version)).await;
                }
                Err(NoAck::Late) => panic!("{filter}: no answer"),
            }
        }
        press(&mut good, BUTTON, 2).await.unwrap();
        assert!(device.received().is_empty(), "something leaked: {:?}", device.received());
    }
    counted(&site.gateway, "subscription_denied", before, 8.0).await;
    await_presses(&site.platform, BUTTON, &[1, 2].into(), LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_at_a_high_rate_are_slowed_and_counted() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let mut plan = plan("gw-guess", &mosquitto.url());
    plan.broker = "logins_per_s = 5\n".to_owned();
    let gateway = Gateway::start(plan).await;
    let mut good = Device::connect_patiently(&gateway.login()).await;
    let login = Login::new(gateway.mqtt, EVIL, "guess");
    let mut guesses = JoinSet::new();
    for _ in 0..60 {
        let login = login.clone();
        guesses.spawn(async move { Device::connect(&login).await.map(|_device| ()) });
    }
    press(&mut good, BUTTON, 1).await.expect("a press during the guessing");
    while let Some(guess) = guesses.join_next().await {
        assert!(guess.unwrap().is_err(), "a guess was right");
    }
    // A client gives up after as long as the gateway lets a login wait: the last may be counted a moment later.
    let outcomes = eventually_ok("every guess is counted", Duration::from_secs(10), async || {
        let metrics = gateway.metrics().await;
        let count = |reason| series(&metrics, "gatehouse_refused_total", &[("reason", reason)]);
        let outcomes =
            ["wrong_password", "login_rate", "too_many_connections", "handshake_timeout"].map(count);
        if outcomes.iter().sum::<f64>() >= 60.0 { Ok(outcomes) } else { Err((outcomes, metrics)) }
    })
    .await;
    println!("wrong_password, login_rate, too_many_connections, handshake_timeout: {outcomes:?}");
    press(&mut good, BUTTON, 2).await.expect("a press after the guessing");
}

/// Presses until told to stop; how long each took.
async fn press_on(mut device: Device, from: u64, stop: Arc<AtomicBool>) -> (u64, Vec<Duration>) {
    let mut n = from;
    let mut took = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let before = Instant::now();
        let ack = press(&mut device, BUTTON, n).await.unwrap_or_else(|error| panic!("press {n}: {error:?}"));
        took.push(ack.at - before);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (n, took)
}

fn percentiles(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!("{name}: {} presses, p50 {:?}, p99 {:?}, max {:?}", took.len(), at(50), at(99), at(100));
}

/// How long everybody misbehaves.
const STORM: Duration = Duration::from_secs(5);

/// Bytes that are no MQTT.
async fn garbage(address: SocketAddr, mut rng: fastrand::Rng) {
    for first in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0x16, 3, 1, 2, 0, 1], vec![0; 64]] {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        stream.write_all(&first).await.ok();
        let random: Vec<u8> = (0..rng.usize(..4_096)).map(|_| rng.u8(..)).collect();
        stream.write_all(&random).await.ok();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.ok();
    }
}

async fn again_until<F: Future<Output = ()>>(until: Instant, mut attack: impl FnMut() -> F) {
    while Instant::now() < until {
        attack().await;
    }
}

/// After a good CONNECT: packets that are cut off, of impossible types and lengths.
async fn broken_packets(login: Login) {
    for bytes in [
        vec![0x00, 0x00],
        vec![0xf0, 0x02, 1, 2],
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f],
        vec![0x32, 0x03, 0xff, 0xff, 0x00],
        vec![0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01],
        frame(0x82, &[0, 0]),
        Connect::new(Version::V311, EVIL).encode(),
    ] {
        let Ok(mut device) = Device::connect(&login).await else { continue };
        device.send_raw(&bytes).await.ok();
        device.await_end(Duration::from_secs(2)).await;
    }
}

/// Connections that say nothing, half a CONNECT, or a byte now and then, held open for the whole test.
async fn half_open(address: SocketAddr) -> Vec<TcpStream> {
    let connect = Connect::new(Version::V311, "half").encode();
    let mut held = Vec::new();
    for index in 0..40 {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        stream.write_all(&connect[..index % connect.len()]).await.ok();
        held.push(stream);
    }
    held
}

/// A client that sends a large message one byte at a time and never reads.
async fn dawdle(login: Login, until: Duration) {
    let Ok(mut device) = Device::connect(&login).await else { return };
    let bytes = Publish::new("evil/meter", vec![b'1'; 10_000], 1, 1).encode(Version::V311);
    let slowly = async {
        for byte in bytes {
            if device.send_raw(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(until, slowly).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_keeps_being_acknowledged_while_everybody_misbehaves() {
    let _turn = turn::alone();
    let site = site("gw-storm").await;
    let address = site.gateway.mqtt;
    let stop = Arc::new(AtomicBool::new(false));
    let mut quiet = JoinSet::new();
    quiet.spawn(press_on(site.device().await, 0, stop.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::SeqCst);
    let (last, took) = quiet.join_next().await.unwrap().unwrap();
    percentiles("quiet", took);

    stop.store(false, Ordering::SeqCst);
    quiet.spawn(press_on(site.device().await, last, stop.clone()));
    let before = site.gateway.metrics().await;
    let held = half_open(address).await;
    let mut attacks = JoinSet::new();
    let until = Instant::now() + STORM;
    let first_seed = seed::seed("hostile");
    for seed in first_seed..first_seed.saturating_add(4) {
        let rng = fastrand::Rng::with_seed(seed);
        attacks.spawn(again_until(until, move || garbage(address, rng.clone())));
    }
    let breaker = Login::new(address, "evil-breaker", EVIL_PASSWORD);
    attacks.spawn(again_until(until, move || broken_packets(breaker.clone())));
    let dawdler = Login::new(address, "evil-dawdler", EVIL_PASSWORD);
    attacks.spawn(again_until(until, move || dawdle(dawdler.clone(), STORM)));
    let (flood, large) = (evil(&site.gateway, Version::V5), vec![b' '; 300 * 1024]);
    attacks.spawn(async move {
        while Instant::now() < until {
            let Ok(mut device) = Device::connect(&flood).await else { continue };
            for (_, payload, _) in bad_payloads() {
                device.send("evil/meter", &payload, 1).await.ok();
            }
            device.send("evil/meter", &large, 1).await.ok();
            device.ping().await.ok();
        }
    });
    while attacks.join_next().await.is_some() {}
    stop.store(true, Ordering::SeqCst);
    let (last, took) = quiet.join_next().await.unwrap().expect("the button was always acknowledged");
    percentiles("under attack", took);
    drop(held);

    let after = site.gateway.metrics().await;
    let grown = |reason| {
        let labels = [("reason", reason)];
        series(&after, "gatehouse_refused_total", &labels)
            - series(&before, "gatehouse_refused_total", &labels)
    };
    assert!(grown("not_mqtt") >= 4.0, "garbage is not counted: {after}");
    assert!(grown("payload_too_large") >= 1.0, "large messages are not counted: {after}");
    await_presses(&site.platform, BUTTON, &(1..=last).collect(), LATER).await;
    site.audit().assert_clean();
    let refused = Device::connect(&Login::new(address, "", "")).await;
    assert!(matches!(refused, Err(Refused::Code(_) | Refused::Line(_))));
}
