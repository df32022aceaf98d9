//! An external broker against a scripted one: what is asked for, what is acknowledged and when, and what a broker can do
//! wrong. Real brokers stand in the system tests.

mod broker;

use std::sync::atomic::Ordering as Order;
use std::time::Duration;

use self::broker::{Broker, Delivery, Heard, Script};
use super::*;
use crate::model::record::{Body, Quality, QualityReason};
use crate::rt::board::{Board, Standing};
use crate::rt::clock::SystemClock;
use crate::rt::metrics::Metrics;
use crate::south::broker::tests::bench::{FAILS, FakeJournal, WORKS};
use crate::south::profile::shipped_profiles;

const DEVICES: &str = r#"
    [b1]
    profile = "z2m-button-sos"
    bus = "z"
    address = "一楼/button"
    [a1]
    profile = "z2m-button-action"
    bus = "z"
    address = "action"
    [t1]
    profile = "json-sensor"
    bus = "z"
    address = "hall"
    [elsewhere]
    profile = "json-sensor"
    bus = "other"
    address = "hall"
"#;
const BUTTON: &str = "zigbee2mqtt/一楼/button";
const ACTION: &str = "zigbee2mqtt/action";
const PRESS: &[u8] = br#"{"action":"emergency"}"#;
const WITHIN: Duration = Duration::from_secs(20);

struct Bench {
    broker: Broker,
    external: Arc<External>,
    journal: Arc<FakeJournal>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    cancel: CancellationToken,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(script).await;
        let (journal, metrics) = (Arc::new(FakeJournal::default()), Arc::new(Metrics::new()));
        let board = Arc::new(Board::new());
        let deps = Deps {
            journal: journal.clone(),
            clock: Arc::new(SystemClock::new(crate::rt::keeper::Evidence::default())),
            metrics: metrics.clone(),
            board: board.clone(),
        };
        let text = format!("url = '{}'\nbase = 'zigbee2mqtt'\ncommit_timeout_ms = 1000", broker.url);
        let setup = Setup {
            gateway: GatewayName::new("g").unwrap(),
            bus: BusName::new("z").unwrap(),
            config: toml::from_str(&text).unwrap(),
            devices: toml::from_str(DEVICES).unwrap(),
            profiles: shipped_profiles().unwrap().into_iter().map(|(name, p)| (name, Arc::new(p))).collect(),
            session_file: folder.path().join("sessions/z"),
        };
        let external = Arc::new(External::new(setup, deps).unwrap());
        Self { broker, external, journal, metrics, board, cancel: CancellationToken::new(), folder }
    }

    /// One attempt in the background.
    fn run(&self) -> tokio::task::JoinHandle<Result<(), MqttError>> {
        let (external, cancel) = (self.external.clone(), self.cancel.clone());
        #[expect(clippy::disallowed_methods, reason = "a test joins what it spawns")]
        tokio::spawn(async move { external.run(cancel, || {}).await })
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + WITHIN;
        while !holds(self) {
            assert!(tokio::time::Instant::now() < end, "not in time: {what}; {:?}", self.journal.stored());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn refused(&self, reason: Refusal) -> u64 {
        let counts = self.metrics.refusals();
        counts.iter().filter(|c| c.labels.contains(&reason.as_str().to_owned())).map(|c| c.count).sum()
    }

    /// Names of the stored events, without `device.online`.
    fn events(&self) -> Vec<String> {
        self.journal.events()
    }

    fn trouble(&self) -> Option<String> {
        self.board.snapshot().buses.get(&BusName::new("z").unwrap()).and_then(|bus| bus.trouble.clone())
    }
}

fn live(id: u16, topic: &str, payload: &[u8]) -> Delivery {
    Delivery { id, topic: topic.into(), payload: payload.to_vec(), ..Delivery::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_its_session_and_exactly_its_topics() {
    let mut bench = Bench::new(Script::default()).await;
    let running = bench.run();
    let Heard::Connect { client_id, clean_start, session_expiry_s, receive_max } = bench.broker.next().await
    else {
        panic!("no CONNECT")
    };
    assert_eq!((client_id.as_str(), clean_start), ("gatehouse-g-z", false));
    assert_eq!((session_expiry_s, receive_max), (Some(168 * 3_600), Some(WINDOW)));
    let Heard::Subscribe { topics } = bench.broker.next().await else { panic!("no SUBSCRIBE") };
    let names: Vec<&str> = topics.iter().map(|(topic, _)| topic.as_str()).collect();
    let expected = [
        ACTION,
        "zigbee2mqtt/action/availability",
        "zigbee2mqtt/hall",
        BUTTON,
        "zigbee2mqtt/一楼/button/availability",
    ];
    assert_eq!(names, expected);
    // QoS 1; retained messages only with a new subscription.
    assert!(topics.iter().all(|(_, options)| *options == 0x11), "{topics:x?}");
    bench.until("the bus is on the board", |b| b.board.snapshot().buses.len() == 1).await;
    bench.cancel.cancel();
    assert!(running.await.unwrap().is_ok());
    bench.broker.await_heard(|heard| matches!(heard, Heard::Disconnect)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_stored_before_it_is_acknowledged_and_acks_keep_the_order() {
    let bench = Bench::new(Script::default()).await;
    bench.run();
    for id in 1..=20 {
        let (topic, payload) =
            if id % 3 == 0 { ("zigbee2mqtt/hall", br#"{"humidity":4}"#.as_slice()) } else { (ACTION, PRESS) };
        bench.broker.send(live(id, topic, payload)).await;
    }
    bench.until("all are acknowledged", |b| b.broker.acked().len() == 20).await;
    assert_eq!(bench.broker.acked(), (1..=20).collect::<Vec<_>>());
    assert_eq!(bench.events().len(), 14);
    assert_eq!(bench.journal.stored().len() - 14, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_withholds_the_ack_and_the_connection() {
    let bench = Bench::new(Script { session: vec![false, true], ..Script::default() }).await;
    bench.journal.mode.store(FAILS, Order::SeqCst);
    let running = bench.run();
    bench.broker.send(live(7, BUTTON, br#"{"sos":true}"#)).await;
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(MqttError::Withheld(Refusal::StoreFailed))), "{ended:?}");
    assert!(bench.broker.acked().is_empty());
    assert!(bench.trouble().unwrap().contains("store_failed"));
    // The broker sends it again, and it is a press as before.
    bench.journal.mode.store(WORKS, Order::SeqCst);
    bench.run();
    bench.until("it is back", |b| b.broker.subscribed() == 2).await;
    bench.broker.send(Delivery { dup: true, ..live(7, BUTTON, br#"{"sos":true}"#) }).await;
    bench.until("it is acknowledged", |b| b.broker.acked() == [7]).await;
    assert_eq!(bench.events(), ["b1 button.pressed"]);
    assert_eq!(bench.trouble(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_had_kept_is_state_of_unknown_age() {
    let bench = Bench::new(Script::default()).await;
    bench.run();
    let kept = |id, topic, payload| Delivery { retain: true, ..live(id, topic, payload) };
    bench.broker.send(kept(1, BUTTON, br#"{"sos":true,"battery":40}"#)).await;
    bench.broker.send(kept(2, ACTION, PRESS)).await;
    bench.broker.send(kept(3, "zigbee2mqtt/hall", br#"{"temperature":19}"#)).await;
    bench.until("all are acknowledged", |b| b.broker.acked() == [1, 2, 3]).await;
    assert_eq!(bench.events(), [""; 0]);
    assert_eq!(bench.refused(Refusal::RetainedDelivery), 2);
    let drafts = bench.journal.drafts();
    let samples: Vec<_> = drafts
        .iter()
        .filter_map(|draft| match &draft.body {
            Body::Telemetry(telemetry) => Some(&telemetry.samples),
            _ => None,
        })
        .flatten()
        .map(|sample| (sample.point.as_str(), sample.quality, sample.reason))
        .collect();
    let uncertain = |point| (point, Quality::Uncertain, Some(QualityReason::Kept));
    assert_eq!(samples, [uncertain("battery"), uncertain("temperature")]);
    let devices = bench.board.snapshot().devices;
    assert!(devices.values().all(|d| d.standing == Standing::Unheard && d.heard.is_none()), "{devices:?}");
    // The press that the broker had queued follows what it had kept, and is a press.
    bench.broker.send(live(4, BUTTON, br#"{"sos":true}"#)).await;
    bench.until("the press is acknowledged", |b| b.broker.acked().len() == 4).await;
    assert_eq!(bench.events(), ["b1 button.pressed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_unknown_messages_are_counted_and_acknowledged() {
    let mut bench = Bench::new(Script::default()).await;
    bench.run();
    let large = vec![b' '; DEVICE_PAYLOAD_BYTES_MAX + 1];
    let cases: [(&str, &[u8], Refusal); 5] = [
        (BUTTON, b"\xff\xfe", Refusal::NotUtf8),
        (BUTTON, b"{\"sos\":tr", Refusal::NotJson),
        (BUTTON, &large, Refusal::PayloadTooLarge),
        (BUTTON, &[b'['; 40], Refusal::JsonTooDeep),
        ("zigbee2mqtt/gone", PRESS, Refusal::TopicUnknown),
    ];
    for (id, (topic, payload, _)) in (1..).zip(cases) {
        bench.broker.send(live(id, topic, payload)).await;
    }
    bench.until("all are acknowledged", |b| b.broker.acked() == [1, 2, 3, 4, 5]).await;
    for (_, _, reason) in cases {
        assert_eq!(bench.refused(reason), 1, "{reason:?}");
    }
    assert_eq!(bench.journal.stored(), []);
    // The session still knew a topic that nobody needs any more.
    let unsubscribed = bench.broker.await_heard(|heard| matches!(heard, Heard::Unsubscribe { .. })).await;
    assert_eq!(unsubscribed, Heard::Unsubscribe { topic: "zigbee2mqtt/gone".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_broker_forgot_is_told_once_also_after_a_restart() {
    let bench = Bench::new(Script { session: vec![false, true, false], ..Script::default() }).await;
    for round in 0..3 {
        let running = bench.run();
        bench.until("it is subscribed", |b| b.broker.subscribed() == round + 1).await;
        bench.until("the session is noted", |b| b.external.known.begun()).await;
        bench.broker.send(live(1, ACTION, PRESS)).await;
        bench.until("the press is acknowledged", |b| b.broker.acked().len() == round + 1).await;
        bench.broker.cut().await;
        assert!(matches!(running.await.unwrap(), Err(MqttError::Lost(_))));
    }
    let expected =
        ["a1 button.pressed", "a1 button.pressed", "gateway bus.session_lost", "a1 button.pressed"];
    assert_eq!(bench.events(), expected);
    // Another process, which knows of the session only by the file.
    let file = bench.folder.path().join("sessions/z");
    let known = Known::new(file, &bench.external.config.peer().authority(), "gatehouse-g-z");
    assert!(known.begun());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_and_topics_are_told_on_the_board() {
    let bench = Bench::new(Script { connack: vec![0x86, 0], suback: 0x87, ..Script::default() }).await;
    let ended = bench.run().await.unwrap();
    assert!(matches!(ended, Err(MqttError::Refused { .. })), "{ended:?}");
    assert!(bench.trouble().unwrap().contains("password_file"), "{:?}", bench.trouble());
    bench.run();
    bench.until("the refusal is told", |b| b.trouble().is_some_and(|t| t.contains("5 subscriptions"))).await;
    assert_eq!(bench.refused(Refusal::SubscriptionDenied), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_of_the_same_name_is_named() {
    let bench = Bench::new(Script::default()).await;
    let running = bench.run();
    bench.until("it is connected", |b| b.board.snapshot().buses.len() == 1).await;
    bench.broker.send_raw(vec![0xe0, 2, 0x8e, 0]).await;
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(MqttError::TakenOver(_))), "{ended:?}");
    assert!(bench.trouble().unwrap().contains("gatehouse-g-z"));
}
