//! The broker against real clients in real time: each of rmqtt's traps, and what must be survived.

pub(in crate::south) mod bench;
mod hostile;
mod logins;
mod orders;

use std::sync::atomic::Ordering;

use rumqttc::PublishOptions;
use rumqttc::mqttbytes::QoS;

use self::bench::{BUTTON, Bench, Connect, FAILS, HANGS, PRESS, VOLATILE, WORKS};
use super::*;
use crate::model::journal::Durability;
use crate::model::refusal::Refusal;

const NOTHING: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_stored_before_it_is_acknowledged() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    assert_eq!(bench.journal.stored(), [("b1 button.pressed".to_owned(), Durability::Synced)]);
    let board = bench.board.snapshot();
    let status = &board.devices[&DeviceId::new("b1").unwrap()];
    assert_eq!((status.kind.as_str(), status.messages, status.warnings.len()), ("button", 1, 0));
    assert!(status.heard.is_some());
    assert_eq!(board.devices[&DeviceId::new("t1").unwrap()].heard, None);
    let bus = &board.buses[&BusName::new("lan").unwrap()];
    assert_eq!(bus.at, [format!("mqtt://{}", bench.plain())]);
    assert_eq!(bus.clients.iter().collect::<Vec<_>>(), ["z2m"]);
    drop(client);
    bench
        .until("it leaves the board", |b| b.board.snapshot().buses.values().all(|bus| bus.clients.is_empty()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_qos_0_a_press_is_synced_values_are_not_and_the_press_is_warned_of() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    client.publish(b"zigbee2mqtt/hall", br#"{"temperature":21.5}"#, 0).await;
    client.publish(BUTTON.as_bytes(), PRESS, 0).await;
    assert_eq!(client.acked(b"zigbee2mqtt/hall", br#"{"temperature":22}"#).await, Some(0));
    let expected = [
        ("t1 values".to_owned(), Durability::Relaxed),
        ("b1 button.pressed".to_owned(), Durability::Synced),
        ("t1 values".to_owned(), Durability::Synced),
    ];
    assert_eq!(bench.journal.stored(), expected);
    let devices = bench.board.snapshot().devices;
    assert!(devices[&DeviceId::new("b1").unwrap()].warnings.contains(QOS0_WARNING));
    assert!(devices[&DeviceId::new("t1").unwrap()].warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_retain_flag_does_not_make_a_press_old() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    client.publish_with(BUTTON.as_bytes(), PRESS, 0x03).await;
    assert_eq!(client.read().await, Some((0x40, vec![0, 7])));
    assert_eq!(bench.journal.events(), ["b1 button.pressed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_or_slow_journal_withholds_the_acknowledgement_and_closes() {
    let bench = Bench::new().await;
    for (mode, reason) in [(FAILS, Refusal::StoreFailed), (HANGS, Refusal::StoreSlow)] {
        for level in [4, 5] {
            bench.journal.mode.store(mode, Ordering::SeqCst);
            let mut client = bench.client_at("z2m", level).await;
            assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, None, "{reason:?} was acknowledged");
            bench.until("it is counted", |b| b.refusals("z2m", reason) == u64::from(level - 3)).await;
        }
    }
    assert_eq!(bench.journal.events(), NOTHING);
    // The press that comes again is a press: nothing was remembered of those that were not stored.
    bench.journal.mode.store(WORKS, Ordering::SeqCst);
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    assert_eq!(bench.journal.events(), ["b1 button.pressed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_memory_only_has_happened_once_and_is_acknowledged_when_it_is_on_disk() {
    let bench = Bench::new().await;
    bench.journal.mode.store(VOLATILE, Ordering::SeqCst);
    for times in 1..=3 {
        let mut client = bench.client("z2m").await;
        assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, None, "it is on no disk");
        bench.until("it is counted", |b| b.refusals("z2m", Refusal::StoreVolatile) == times).await;
    }
    assert_eq!(bench.journal.events(), ["b1 button.pressed"], "said again, it is the same press");
    // Of this one every message is a press, but for one that is owed.
    for _ in 0..3 {
        let mut client = bench.client("other").await;
        assert_eq!(client.acked(b"other/b2", br#"{"action":"emergency"}"#).await, None);
    }
    assert_eq!(bench.journal.events(), ["b1 button.pressed", "b2 button.pressed"]);
    // The button's state is known by now; the same state with another battery is no press, and must not be
    // acknowledged before the press itself is on disk.
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), br#"{"sos":true,"x":1}"#).await, None);
    bench.journal.mode.store(WORKS, Ordering::SeqCst);
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    assert_eq!(bench.journal.events().len(), 2, "it was on disk already");
    assert_eq!(client.acked(BUTTON.as_bytes(), br#"{"sos":false}"#).await, Some(0));
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    assert_eq!(bench.journal.events().len(), 3, "a press after a release is another press");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_the_journal_does_not_hold_up_others() {
    let bench = Bench::new().await;
    let (mut slow, mut other) = (bench.client("z2m").await, bench.client("other").await);
    bench.journal.mode.store(HANGS, Ordering::SeqCst);
    slow.publish(BUTTON.as_bytes(), PRESS, 1).await;
    assert!(other.pings().await);
    assert_eq!(slow.read().await, None);
    // It logs in again while its old session may still be waiting.
    bench.journal.mode.store(WORKS, Ordering::SeqCst);
    assert!(bench.client("z2m").await.pings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_denied_unless_configured_and_granted_at_qos_0() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    for filter in ["#", "zigbee2mqtt/#", "other/#", "$SYS/#", "zigbee2mqtt/+/+"] {
        assert_eq!(client.subscribe(filter).await, 0x80, "{filter} was granted");
    }
    assert_eq!(bench.refusals("z2m", Refusal::SubscriptionDenied), 5);
    assert_eq!(client.subscribe("zigbee2mqtt/bridge/#").await, 0);
    assert_eq!(bench.client("other").await.subscribe("other/#").await, 0x80);
    client.publish(b"zigbee2mqtt/bridge/info", b"{}", 0).await;
    let (header, body) = client.read().await.unwrap();
    assert_eq!((header, body.ends_with(b"{}")), (0x30, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_kept_and_sessions_are_not() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    client.publish_with(b"zigbee2mqtt/bridge/state", br#"{"state":"online"}"#, 0x03).await;
    assert_eq!(client.read().await, Some((0x40, vec![0, 7])));
    assert_eq!(client.subscribe("zigbee2mqtt/bridge/#").await, 0);
    let (header, _) = client.read().await.unwrap();
    assert_eq!(header, 0x31, "a retained message at QoS 0");
    drop(client);

    let secret = &bench.secrets["z2m"];
    let connect = Connect {
        id: "z2m-1",
        user: Some("z2m"),
        password: Some(secret),
        keep_session: true,
        ..Connect::default()
    };
    for _ in 0..2 {
        let mut client = bench::Client::new(tokio::net::TcpStream::connect(bench.plain()).await.unwrap(), 4);
        assert_eq!(client.connect(connect).await, Some(0));
        client.publish(b"zigbee2mqtt/bridge/info", b"{}", 0).await;
        assert!(client.pings().await, "the subscription of an earlier session was still there");
        assert_eq!(client.subscribe("zigbee2mqtt/bridge/#").await, 0);
        assert!(client.read().await.is_some());
        client.send(&[0xe0, 0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_judged_at_the_login_and_stored_when_it_fires() {
    let bench = Bench::new().await;
    let secret = &bench.secrets["z2m"];
    let login = Connect { id: "z2m-1", user: Some("z2m"), password: Some(secret), ..Connect::default() };
    for topic in ["other/b2", "zigbee2mqtt/#", "zigbee2mqtt", "bridge/state"] {
        let mut client = bench::Client::new(tokio::net::TcpStream::connect(bench.plain()).await.unwrap(), 4);
        let code = client.connect(Connect { will: Some((topic, b"{}")), ..login }).await;
        assert_eq!(code, Some(5), "a will to {topic} was taken");
    }
    assert_eq!(bench.refusals("z2m", Refusal::WillTopic), 4);
    let mut client = bench::Client::new(tokio::net::TcpStream::connect(bench.plain()).await.unwrap(), 4);
    let will = Some(("zigbee2mqtt/bridge/state", br#"{"state":"offline"}"#.as_slice()));
    assert_eq!(client.connect(Connect { will, ..login }).await, Some(0));
    assert_eq!(bench.journal.events(), NOTHING);
    drop(client);
    bench.until("the will is stored", |b| b.journal.events() == ["bridge device.offline"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_mqtt_5_is_told_the_reason() {
    let bench = Bench::new().await;
    let address = bench.plain();
    let mut options = rumqttc::MqttOptions::new("z2m-1", (address.ip().to_string(), address.port()));
    options.set_credentials("z2m", bench.secrets["z2m"].clone());
    let (client, mut events) = rumqttc::AsyncClient::builder(options).capacity(10).build();
    let mut polling = JoinSet::new();
    polling.spawn(async move { while events.poll().await.is_ok() {} });
    for (topic, payload, code) in [
        (BUTTON, PRESS, "Success"),
        ("other/b2", b"{}".as_slice(), "NotAuthorized"),
        ("zigbee2mqtt/unknown", b"{}", "NotAuthorized"),
        (BUTTON, b"\xff", "PayloadFormatInvalid"),
        (BUTTON, b"{", "PayloadFormatInvalid"),
        ("zigbee2mqtt/a\u{7}", b"{}", "TopicNameInvalid"),
    ] {
        let tracked = client
            .publish_tracked(topic, payload.to_vec(), PublishOptions::new(QoS::AtLeastOnce))
            .await
            .unwrap();
        let answer = format!("{:?}", tracked.wait_async().await);
        assert!(answer.contains(code), "{topic}: {answer}");
    }
    let tracked = client
        .publish_tracked(BUTTON, vec![b' '; 300 * 1024], PublishOptions::new(QoS::AtLeastOnce))
        .await
        .unwrap();
    let answer = format!("{:?}", tracked.wait_async().await);
    assert!(answer.contains("QuotaExceeded"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stops_and_starts_again_on_the_same_port() {
    let mut bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    let port = bench.plain().port();
    bench.stop().await;
    assert_eq!(client.read().await, None);
    assert!(bench.board.snapshot().buses.is_empty());
    let text = bench::COMPOUND.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let mut again = Bench::with(&text).await;
    assert_eq!(again.plain().port(), port);
    // Where the port is taken, the error says which.
    let cancel = CancellationToken::new();
    let error = anyhow::Error::from(again.broker.run(cancel, |_bound| {}).await.unwrap_err());
    let told = format!("{error:#}");
    assert!(told.contains(&format!("127.0.0.1:{port}")), "{told}");
    assert_eq!(told.matches("in use").count(), 1, "the reason stands there once: {told}");
    // Its devices are shown all the same.
    assert!(again.board.snapshot().devices.contains_key("b1"));
    let mut client = again.client("z2m").await;
    assert_eq!(client.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    drop(client);
    again.stop().await;
    again.start().await;
    // What is remembered of devices outlives the run: the same value is no new press.
    assert_eq!(again.client("z2m").await.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    assert_eq!(again.journal.events(), ["b1 button.pressed"]);
}
