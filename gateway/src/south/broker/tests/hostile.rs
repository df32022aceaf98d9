//! Bad input: counted by name, acknowledged where it must be, and nothing else is touched.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::bench::{BUTTON, Bench, Client, Connect, PRESS};
use crate::model::limits::{DEVICE_PACKET_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::model::refusal::Refusal;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_publish_is_counted_and_acknowledged_and_the_session_lives() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    let long = format!("zigbee2mqtt/{}", "x".repeat(TOPIC_BYTES_MAX));
    let large = vec![b' '; 300 * 1024];
    let deep = "[".repeat(5_000);
    let button = BUTTON.as_bytes();
    for (topic, payload, reason) in [
        (b"other/b2".as_slice(), br#"{"action":"sos"}"#.as_slice(), Refusal::TopicNotOwned),
        (b"zigbee2mqttx/a", b"{}", Refusal::TopicNotOwned),
        (b"zigbee2mqtt/unknown", b"{}", Refusal::TopicUnknown),
        (b"zigbee2mqtt/#", b"{}", Refusal::TopicMalformed),
        (b"zigbee2mqtt/+/a", b"{}", Refusal::TopicMalformed),
        (b"zigbee2mqtt/a\0b", b"{}", Refusal::TopicMalformed),
        (long.as_bytes(), b"{}", Refusal::TopicTooLong),
        (button, b"\xff\xfe", Refusal::NotUtf8),
        (button, b"{\"sos\":tru", Refusal::NotJson),
        (button, deep.as_bytes(), Refusal::JsonTooDeep),
        (button, br#"{"sos":"yes"}"#, Refusal::WrongType),
        (button, br#"{"battery":NaN}"#, Refusal::NotFinite),
        (button, br#"{"battery":400}"#, Refusal::OutOfRange),
        (button, &large, Refusal::PayloadTooLarge),
    ] {
        let before = bench.refusals("z2m", reason);
        assert_eq!(client.acked(topic, payload).await, Some(0), "{reason:?} was not acknowledged");
        assert_eq!(bench.refusals("z2m", reason), before + 1, "{reason:?} was not counted");
    }
    assert!(bench.journal.stored().is_empty());
    assert_eq!(client.acked(button, PRESS).await, Some(0));
    assert_eq!(bench.journal.events(), ["b1 button.pressed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_is_too_large_is_cut_and_counted() {
    let bench = Bench::new().await;
    let mut other = bench.client("other").await;
    let mut client = bench.client("z2m").await;
    client.publish(BUTTON.as_bytes(), &vec![b' '; 2 * DEVICE_PACKET_BYTES_MAX], 1).await;
    assert_eq!(client.read().await, None);
    bench.until("it is counted", |b| b.refusals("lan", Refusal::PayloadTooLarge) == 1).await;
    assert!(other.pings().await);
    // A large message that nobody needs, such as Zigbee2MQTT's list of devices, passes.
    let mut client = bench.client("z2m").await;
    assert_eq!(client.acked(b"zigbee2mqtt/bridge/devices", &vec![b' '; 500_000]).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_are_counted_and_others_do_not_feel_them() {
    let bench = Bench::new().await;
    let mut client = bench.client("z2m").await;
    let mut silent = Vec::new();
    for index in 0..60_u8 {
        let mut stream = Client::new(TcpStream::connect(bench.plain()).await.unwrap(), 4);
        match index % 3 {
            0 => stream.send(b"GET / HTTP/1.1\r\n\r\n").await,
            1 => stream.send(b"\x10\x20\x00\x04MQ").await,
            _ => {}
        }
        silent.push(stream);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let before = Instant::now();
        assert_eq!(client.acked(b"zigbee2mqtt/hall", br#"{"temperature":20}"#).await, Some(0));
        slowest = slowest.max(before.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "an acknowledgement took {slowest:?}");
    // Others still log in while those are there.
    assert!(bench.client("other").await.pings().await);
    bench.until("garbage is counted", |b| b.refusals("lan", Refusal::NotMqtt) == 20).await;
    bench.until("silence is counted", |b| b.refusals("lan", Refusal::HandshakeTimeout) == 40).await;
    for mut stream in silent {
        assert_eq!(stream.read().await, None);
    }
    assert!(client.pings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_after_the_login_costs_the_one_connection() {
    let bench = Bench::new().await;
    let mut other = bench.client("other").await;
    for (count, nonsense) in
        (1..).zip([b"\x00\x00".as_slice(), b"\x10\x00", b"\x20\x02\x00\x00", b"\x30\xff\xff\xff\xff\xff"])
    {
        let mut client = bench.client("z2m").await;
        client.send(nonsense).await;
        assert_eq!(client.read().await, None);
        let counted = |b: &Bench| {
            b.refusals("lan", Refusal::NotMqtt) + b.refusals("lan", Refusal::PayloadTooLarge) == count
        };
        bench.until("it is counted", counted).await;
    }
    // A frame of the right length whose inside is no MQTT: a topic that is not UTF-8.
    let mut client = bench.client("z2m").await;
    client.publish(b"zigbee2mqtt/\xff", b"{}", 1).await;
    assert_eq!(client.read().await, None);
    bench.until("it is counted", |b| b.refusals("z2m", Refusal::NotMqtt) == 1).await;
    assert!(other.pings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_cannot_be_read_or_asks_for_another_version_is_counted() {
    let bench = Bench::new().await;
    for (count, level) in (1..).zip([0x84, 6, 0]) {
        // A bridge goes on with a version that the broker speaks when it is told so.
        let mut stream = Client::new(TcpStream::connect(bench.plain()).await.unwrap(), level);
        assert_eq!(stream.connect(Connect { id: "x", ..Connect::default() }).await, Some(1), "level {level}");
        bench.until("it is counted", |b| b.refusals("lan", Refusal::UnsupportedVersion) == count).await;
    }
    // Flags that nobody may set; a client id that reaches beyond the end.
    for (count, connect) in (1..).zip([
        b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a",
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x09a",
    ]) {
        let mut stream = Client::new(TcpStream::connect(bench.plain()).await.unwrap(), 4);
        stream.send(connect).await;
        assert!(stream.read().await.is_none_or(|(_, body)| body[1] != 0), "it was let in");
        bench.until("it is counted", |b| b.refusals("lan", Refusal::NotMqtt) == count).await;
    }
    // Who leaves before the answer is no mistake.
    let mut hasty = Client::new(TcpStream::connect(bench.plain()).await.unwrap(), 4);
    hasty.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a").await;
    drop(hasty);
    assert!(bench.client("z2m").await.pings().await);
    assert_eq!(bench.refusals("lan", Refusal::NotMqtt), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_beyond_the_places_is_turned_away_and_those_inside_stay() {
    let text = super::bench::COMPOUND.replace("commit_timeout_ms", "connections_max = 8\ncommit_timeout_ms");
    let bench = Bench::with(&text).await;
    let mut client = bench.client("z2m").await;
    let mut crowd = Vec::new();
    for _ in 0..30 {
        crowd.push(TcpStream::connect(bench.plain()).await.unwrap());
    }
    bench.until("it is counted", |b| b.refusals("lan", Refusal::TooManyConnections) >= 20).await;
    assert!(client.pings().await);
    drop(crowd);
}
