//! The link against a scripted broker and the real journal, in real time: sockets and the paused clock do not mix.

mod broker;
mod lost;
mod open;
mod ordering;
mod time;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Link, LinkError, Parts};
use crate::model::ids::{DeviceId, Epoch, GatewayName, UplinkName};
use crate::model::journal::{Committed, Durability, Journal, JournalError, NoFold};
use crate::model::place::Place;
use crate::model::record::{Body, Category, Class, DeviceRef, Draft, Event};
use crate::north::config::{Pacing, UplinkConfig};
use crate::rt::board::Board;
use crate::rt::clock::{Clock, SystemClock};
use crate::rt::keeper::{Battery, Evidence};
use crate::rt::metrics::Metrics;
use crate::store::{Options, Store, Synchronous};
use broker::{Answer, Broker, Script};

/// The machine's clock, as one that a host keeps.
fn machine_clock() -> SystemClock {
    SystemClock::new(Evidence { battery: Battery::Hosted, ntp: None })
}

struct Bench {
    broker: Broker,
    store: Store,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    uplink: UplinkName,
    cancel: CancellationToken,
    link: JoinSet<Result<(), LinkError>>,
    parts: Parts,
    _dir: tempfile::TempDir,
}

fn config(url: &str, pacing: Pacing) -> UplinkConfig {
    let text = format!("url = {url:?}");
    UplinkConfig { pacing, ..toml::from_str(&text).unwrap() }
}

fn quick() -> Pacing {
    Pacing { backlog_delay_max_s: 0, backlog_per_s: 100_000, puback_timeout_s: 1, ..Pacing::default() }
}

impl Bench {
    async fn start(script: Script, pacing: Pacing, before: usize) -> Self {
        let open = |dir: &Path, options| Store::open(dir, options, Box::new(NoFold)).unwrap().0;
        Self::start_on(|_epoch| script, pacing, before, open).await
    }

    /// The same on a store that `open` makes; the script may depend on its epoch.
    async fn start_on(
        script: impl FnOnce(Epoch) -> Script,
        pacing: Pacing,
        before: usize,
        open: impl FnOnce(&Path, Options) -> Store,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
        let clock = Arc::new(machine_clock());
        let options = Options {
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            board: Arc::clone(&board),
            synchronous: Synchronous::Full,
            keeping: None,
        };
        let store = open(dir.path(), options);
        let epoch = store.heads().borrow().epoch();
        let broker = Broker::start(script(epoch)).await;
        let uplink = UplinkName::new("street").unwrap();
        let parts = Parts {
            uplink: uplink.clone(),
            gateway: GatewayName::new("gate-1").unwrap(),
            compound: "Rose Garden".to_owned(),
            config: config(&broker.url, pacing),
            private: Arc::default(),
            store: store.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            board: Arc::clone(&board),
            roll: Arc::default(),
            perform: Arc::new(crate::model::command::NoDesk),
            started: clock.now(),
            drain: Duration::from_secs(2),
        };
        let cancel = CancellationToken::new();
        let mut bench =
            Self { broker, store, board, metrics, uplink, cancel, link: JoinSet::new(), parts, _dir: dir };
        for number in 0..before {
            bench.press(number).await;
        }
        bench.begin();
        bench
    }

    fn begin(&mut self) {
        let (link, cancel) = (Link::new(self.parts.clone()), self.cancel.clone());
        self.link.spawn(async move { link.run(cancel).await });
    }

    /// The link dies between any two of its steps and starts again from what is stored.
    async fn crash(&mut self) {
        self.link.abort_all();
        while self.link.join_next().await.is_some() {}
        self.begin();
    }

    /// A button is pressed: one event, on disk.
    async fn press(&self, number: usize) {
        self.try_press(number).await.unwrap();
    }

    async fn try_press(&self, number: usize) -> Result<Committed, JournalError> {
        let device = DeviceRef {
            id: DeviceId::new("button-1").unwrap(),
            kind: "button".to_owned(),
            profile: None,
            bus: None,
        };
        let event = Event {
            device,
            place: Place::default(),
            category: Category::Emergency,
            name: format!("button.pressed_{number}"),
            severity: None,
            params: BTreeMap::new(),
            text: None,
        };
        let at = machine_clock().now();
        let draft = Draft { at, test: false, dedup: None, body: Body::Event(Box::new(event)) };
        self.store.append(vec![draft], Durability::Synced).await
    }

    /// Waits until everything is delivered, and says where the cursor then stands.
    async fn settled(&self) -> u64 {
        for _ in 0..2_000 {
            let pending =
                self.board.snapshot().uplinks.get(&self.uplink).map(|status| status.pending.clone());
            let none = pending.is_some_and(|pending| {
                !pending.is_empty() && pending.values().all(|status| status.records + status.set_aside == 0)
            });
            if none {
                let reader = self.store.reader().unwrap();
                let cursors = reader.cursors(&self.uplink).unwrap().unwrap_or_default();
                let last = reader.heads().unwrap().of(Class::Event).last;
                let event = cursors.classes.get(&Class::Event);
                if event.is_some_and(|event| event.live_next == last + 1 && event.backlog.is_empty()) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not settled: {:?}", self.board.snapshot().uplinks);
    }

    fn events(&self) -> Vec<String> {
        let reader = self.store.reader().unwrap();
        let reads = reader.read(Class::Event, 1, u64::MAX >> 1, 1_000, usize::MAX).unwrap();
        let name = |read: crate::store::Read| match read.into_record().unwrap().body {
            Body::Event(event) => event.name,
            Body::Gap(gap) => format!("gap {:?} {}..={}", gap.reason, gap.from, gap.to),
            other => format!("{other:?}"),
        };
        reads.into_iter().map(name).collect()
    }

    async fn event_comes(&self, wanted: &str) {
        for _ in 0..2_000 {
            if self.events().iter().any(|name| name == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted} never came: {:?}", self.events());
    }

    async fn trouble_says(&self, wanted: &str) {
        for _ in 0..1_000 {
            let uplinks = self.board.snapshot().uplinks;
            let trouble = uplinks.get(&self.uplink).and_then(|status| status.trouble.clone());
            if trouble.is_some_and(|trouble| trouble.contains(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted:?} is not told: {:?}", self.board.snapshot().uplinks);
    }

    async fn stop(&mut self) {
        self.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.link.join_next()).await;
        ended.expect("the link ends within its deadline").unwrap().unwrap().unwrap();
    }

    async fn next_event(&mut self) -> broker::Heard {
        self.broker.next_on("up/event/emergency").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_comes_first_then_records_and_a_goodbye() {
    let mut bench = Bench::start(Script::default(), quick(), 3).await;
    let state = bench.broker.next().await;
    assert!(state.topic.ends_with("/up/state") && state.retain, "{state:?}");
    assert_eq!(state.json["data"]["online"], true);
    assert_eq!(state.json["data"]["conn"], 1);
    assert_eq!(state.json["data"]["classes"]["event"]["live_from"], "0000000000000004");
    assert!(bench.broker.next().await.topic.ends_with("/up/snapshot"));
    for sequence in 1..=3_u64 {
        let heard = bench.next_event().await;
        assert_eq!(heard.json["sequence"], format!("{sequence:016}"));
        assert_eq!(heard.json["previous"], format!("{:016}", sequence - 1));
        assert_eq!(heard.json["replay"], true);
    }
    bench.press(4).await;
    assert_eq!(bench.next_event().await.json["replay"], false);
    assert_eq!(bench.settled().await, 4);
    assert_eq!(bench.metrics.deliveries().iter().map(|count| count.count).sum::<u64>(), 4);
    bench.stop().await;
    let goodbye = loop {
        let heard = bench.broker.next_on("/up/state").await;
        if heard.json["data"]["online"] == false {
            break heard;
        }
    };
    assert_eq!(goodbye.json["data"]["reason"], "shutdown");
}

/// What a broker may do to the third record, once, and what must come of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_broker_does_once_everything_arrives_in_order() {
    let late = Answer::Late(Duration::from_millis(700));
    let faults = [
        Answer::Code(0x97),
        Answer::Code(0x10),
        Answer::Swallow,
        late,
        Answer::Close,
        Answer::Disconnect(0x8b),
    ];
    for fault in faults {
        let mut done = false;
        let decide = Box::new(move |heard: &broker::Heard| {
            if !done && heard.json["data"]["name"] == "button.pressed_2" {
                done = true;
                return fault;
            }
            Answer::Code(0)
        });
        let mut bench = Bench::start(Script { decide, ..Script::default() }, quick(), 6).await;
        let mut arrived: Vec<(usize, String)> = Vec::new();
        while !arrived.iter().any(|(_, name)| name == "button.pressed_5") || arrived.len() < 6 {
            let heard = bench.next_event().await;
            arrived.push((heard.connection, heard.json["data"]["name"].as_str().unwrap().to_owned()));
        }
        let last = bench.settled().await;
        assert!(last >= 6, "{fault:?}");
        let rest = bench.broker.rest().into_iter().filter(|heard| heard.topic.ends_with("/emergency"));
        arrived.extend(
            rest.map(|heard| (heard.connection, heard.json["data"]["name"].as_str().unwrap().to_owned())),
        );
        for number in 0..6 {
            let name = format!("button.pressed_{number}");
            assert!(arrived.iter().any(|(_, heard)| *heard == name), "{fault:?}: {name} in {arrived:?}");
        }
        let two_connections = arrived.iter().any(|(connection, _)| *connection == 2);
        let cut = matches!(fault, Answer::Swallow | Answer::Close | Answer::Disconnect(_));
        assert_eq!(two_connections, cut, "{fault:?}: {arrived:?}");
        let told = bench.events().iter().any(|name| name == "uplink.nobody_listens");
        assert_eq!(told, matches!(fault, Answer::Code(0x10)), "{fault:?}");
        bench.stop().await;
    }
}

/// The real journal and the real client under a broker of bad temper, with crashes of the link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_broker_and_crashes_lose_nothing_with_the_real_journal() {
    let seed = std::env::var("GATEHOUSE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut temper = rng.fork();
    let decide = Box::new(move |_: &broker::Heard| match temper.u8(0..120) {
        0 => Answer::Close,
        1 => Answer::Disconnect(0x8b),
        2 => Answer::Swallow,
        3 => Answer::Code(0x97),
        4..10 => Answer::Late(Duration::from_millis(temper.u64(0..100))),
        _ => Answer::Code(0),
    });
    let pacing = Pacing { reconnect_max_s: 1, reconnect_critical_max_s: 1, ..quick() };
    let mut bench = Bench::start(Script { decide, ..Script::default() }, pacing, 0).await;
    let mut seen: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for round in 0..4 {
        for number in 0..40 {
            bench.press(round * 40 + number).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
        bench.crash().await;
    }
    bench.broker.script.lock().unwrap().decide = Box::new(|_| Answer::Code(0));
    let last = bench.settled().await;
    for heard in bench.broker.rest() {
        if heard.topic.contains("/up/event/") {
            let data = heard.json["data"].clone();
            let before = seen.insert(heard.id().to_owned(), data.clone());
            assert!(before.is_none_or(|before| before == data), "one id, two contents, seed {seed}");
        }
    }
    assert_eq!(seen.len() as u64, last, "each record under its own id, seed {seed}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_always_refused_becomes_a_gap_record() {
    let decide = Box::new(|heard: &broker::Heard| {
        let bad = heard.json["data"]["name"] == "button.pressed_1";
        Answer::Code(if bad { 0x99 } else { 0 })
    });
    let pacing = Pacing { refusal_tries: 1, ..quick() };
    let mut bench = Bench::start(Script { decide, ..Script::default() }, pacing, 3).await;
    let gap = bench.broker.next_on("/up/ledger").await;
    assert_eq!(gap.json["data"]["from"], "0000000000000002");
    assert_eq!(gap.json["data"]["reason"], "refused");
    bench.settled().await;
    assert_eq!(bench.events().last().unwrap(), "gap Refused 2..=2");
    assert!(bench.metrics.render().contains("uplink_refusals_total{code=\"0x99\",uplink=\"street\"} 1"));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate_delivers_and_a_strange_authority_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = broker::Authority::new();
    let (cert, key) = authority.issue("gate-1");
    let paths = ["ca.pem", "cert.pem", "key.pem", "other.pem"].map(|name| dir.path().join(name));
    let other = broker::Authority::new().pem();
    for (path, pem) in paths.iter().zip([authority.pem(), cert, key, other]) {
        std::fs::write(path, pem).unwrap();
    }
    let [ca_file, cert_file, key_file, other_file] = paths.map(Some);
    let mut bench = Bench::start(Script::default(), quick(), 2).await;
    bench.stop().await;
    bench.broker = Broker::start_tls(Script::default(), &authority).await;
    bench.cancel = CancellationToken::new();
    bench.parts.config = UplinkConfig { ca_file: other_file, ..config(&bench.broker.url, quick()) };
    bench.begin();
    let named = async {
        loop {
            let trouble = bench.board.snapshot().uplinks[&bench.uplink].trouble.clone();
            if trouble.is_some_and(|trouble| trouble.contains("certificate")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), named).await.expect("the reason is on the board");
    bench.stop().await;
    bench.cancel = CancellationToken::new();
    bench.parts.config = UplinkConfig { ca_file, cert_file, key_file, ..config(&bench.broker.url, quick()) };
    bench.press(3).await;
    bench.begin();
    while bench.next_event().await.json["sequence"] != "0000000000000003" {}
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn being_thrown_out_again_and_again_is_told_as_a_second_box() {
    let decide = Box::new(|_: &broker::Heard| Answer::Disconnect(0x8e));
    let bench = Bench::start(Script { decide, ..Script::default() }, quick(), 1).await;
    bench.event_comes("uplink.duplicate_identity").await;
    let trouble = bench.board.snapshot().uplinks[&bench.uplink].trouble.clone().unwrap();
    assert!(trouble.contains("own name"), "{trouble}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_is_told_and_records_still_leave() {
    let script = Script { suback: [0x87, 0x87], ..Script::default() };
    let mut bench = Bench::start(script, quick(), 2).await;
    bench.next_event().await;
    bench.settled().await;
    let trouble = bench.board.snapshot().uplinks[&bench.uplink].trouble.clone().unwrap();
    assert!(trouble.contains("down/#") && trouble.contains("grant"), "{trouble}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_or_unwilling_broker_is_named_and_tried_again() {
    let script = Script { connack: vec![0x89, 0x87, 0], ..Script::default() };
    let mut bench = Bench::start(script, quick(), 1).await;
    assert_eq!(bench.next_event().await.connection, 3);
    let refused = bench.metrics.render();
    assert!(
        refused.contains("uplink_connections_total{outcome=\"refused\",uplink=\"street\"} 2"),
        "{refused}"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_begins_a_new_epoch() {
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    let first = bench.next_event().await;
    bench.settled().await;
    // The platform has seen this journal further on: a state of its epoch from a connection we never had.
    let state = serde_json::json!({ "epoch": first.json["epoch"], "data": { "conn": 50, "online": false } });
    let topic = "gatehouse/v1/gate-1/up/state".to_owned();
    {
        let mut script = bench.broker.script.lock().unwrap();
        script.retained = vec![(topic, state.to_string())];
        script.decide = Box::new(|heard| if heard.connection == 1 { Answer::Close } else { Answer::Code(0) });
    }
    bench.press(1).await;
    let again = loop {
        let heard = bench.next_event().await;
        if heard.connection > 2 {
            break heard;
        }
    };
    assert_ne!(again.json["epoch"], first.json["epoch"]);
    let epoch = Epoch::try_from(again.json["epoch"].as_str().unwrap().to_owned()).unwrap();
    assert_eq!(bench.store.heads().borrow().epoch(), epoch);
    bench.settled().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_uplink_to_the_same_platform_is_no_copy_of_the_journal() {
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    let first = bench.next_event().await;
    bench.settled().await;
    // Another uplink of this gateway leaves its state behind on the topic that we use as well.
    let other = UplinkName::new("other").unwrap();
    let conn = bench.store.next_conn(&other, 0).await.unwrap() + 1;
    let state = serde_json::json!({ "epoch": first.json["epoch"], "data": { "conn": conn, "online": true } });
    let topic = "gatehouse/v1/gate-1/up/state".to_owned();
    {
        let mut script = bench.broker.script.lock().unwrap();
        script.retained = vec![(topic.clone(), state.to_string())];
        script.decide = Box::new(|heard| if heard.connection == 1 { Answer::Close } else { Answer::Code(0) });
    }
    bench.store.next_conn(&other, 0).await.unwrap();
    bench.press(1).await;
    while bench.next_event().await.json["sequence"] != "0000000000000002" {}
    bench.settled().await;
    assert_eq!(bench.store.heads().borrow().epoch().to_string(), first.json["epoch"].as_str().unwrap());
    // And now as an echo of what it says live.
    bench.store.next_conn(&other, 100).await.unwrap();
    let state = serde_json::json!({ "epoch": first.json["epoch"], "data": { "conn": 100, "online": true } });
    bench.broker.publish(&topic, &state.to_string(), false).await;
    bench.trouble_says("another uplink").await;
    assert!(!bench.events().iter().any(|name| name.starts_with("store.") || name.starts_with("uplink.")));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_forks_again_and_again_forks_once() {
    // Somebody writes ever higher numbers under our own epoch, whichever that is.
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    let first = bench.next_event().await;
    bench.settled().await;
    let topic = "gatehouse/v1/gate-1/up/state";
    let state = serde_json::json!({ "epoch": first.json["epoch"], "data": { "conn": 500, "online": false } });
    bench.broker.publish(topic, &state.to_string(), true).await;
    bench.event_comes("store.restored").await;
    let again = bench.broker.next_on("/up/event/device").await;
    assert_ne!(again.json["epoch"], first.json["epoch"]);
    let state = serde_json::json!({ "epoch": again.json["epoch"], "data": { "conn": 900, "online": true } });
    bench.broker.publish(topic, &state.to_string(), true).await;
    bench.event_comes("uplink.duplicate_identity").await;
    assert_eq!(bench.events().iter().filter(|name| *name == "store.restored").count(), 1);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_by_another_uplink_begins_a_new_connection() {
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    let first = bench.next_event().await;
    bench.settled().await;
    let epoch = bench.store.fork_epoch("another uplink's platform has seen it").await.unwrap();
    loop {
        let state = bench.broker.next_on("/up/state").await;
        if state.connection > first.connection {
            assert_eq!(state.json["epoch"], epoch.to_string());
            break;
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_closes_at_the_first_record_is_not_run_against() {
    let decide = Box::new(
        |heard: &broker::Heard| {
            if heard.topic.contains("/up/event/") { Answer::Close } else { Answer::Code(0) }
        },
    );
    let mut bench = Bench::start(Script { decide, ..Script::default() }, quick(), 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let conn = bench.board.snapshot().uplinks[&bench.uplink].conn;
    assert!((2..=12).contains(&conn), "{conn} connections in ten seconds");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_that_was_never_up_is_down_since_it_began() {
    let before_ms = machine_clock().mono_ms();
    let script = Script { connack: vec![0x87], ..Script::default() };
    let mut bench = Bench::start(script, quick(), 1).await;
    bench.trouble_says("check `username`").await;
    let status = bench.board.snapshot().uplinks[&bench.uplink].clone();
    assert!(!status.connected && status.since_mono_ms >= before_ms, "{status:?}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_will_and_a_second_box_are_told_apart() {
    let mut bench = Bench::start(Script::default(), quick(), 1).await;
    let first = bench.next_event().await;
    bench.settled().await;
    let topic = "gatehouse/v1/gate-1/up/state";
    let late = serde_json::json!({ "epoch": first.json["epoch"], "data": { "conn": 0, "online": false } });
    bench.broker.publish(topic, &late.to_string(), false).await;
    loop {
        let state = bench.broker.next_on("/up/state").await;
        if state.json["data"]["reason"] == "corrected" {
            assert_eq!(state.json["data"]["online"], true);
            break;
        }
    }
    assert!(!bench.events().iter().any(|name| name == "uplink.duplicate_identity"));
    let other = serde_json::json!({ "epoch": "00000000000000aa", "data": { "conn": 3, "online": true } });
    bench.broker.publish(topic, &other.to_string(), false).await;
    bench.event_comes("uplink.duplicate_identity").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_done_once_and_answered_each_time() {
    let mut bench = Bench::start(Script::default(), quick(), 4).await;
    let first = bench.next_event().await;
    bench.settled().await;
    bench.broker.rest();
    let now = machine_clock().now();
    let command = serde_json::json!({
        "id": "r-1", "command": "replay", "lifetime_s": 60, "operator": "platform", "reason": "hole",
        "issued": { "bootid": now.boot.0, "monotonic": now.mono_ms.to_string() },
        "args": { "epoch": first.json["epoch"], "class": "event", "from": "2", "to": "9" },
    })
    .to_string();
    let topic = "gatehouse/v1/gate-1/down/command";
    bench.broker.publish(topic, &command, false).await;
    let (mut results, mut replayed) = (Vec::new(), Vec::new());
    while results.is_empty() || replayed.len() < 3 {
        let heard = bench.broker.next().await;
        if heard.topic.ends_with("/up/command/result") {
            results.push(heard.json["data"].clone());
        } else if heard.topic.ends_with("/up/event/emergency") {
            assert_eq!(heard.json["replay"], true);
            replayed.push(heard.id().to_owned());
        }
    }
    assert_eq!(results[0]["outcome"], "done", "{results:?}");
    let unlike = replayed.iter().zip(2..).find(|(id, seq)| !id.ends_with(&format!("-event-{seq}")));
    assert_eq!(unlike, None, "the same ids again, in order");
    assert_eq!(results[0]["data"]["count"], 3);
    assert_eq!(results[0]["data"]["missing"][0]["from"], 5);
    bench.settled().await;
    bench.broker.publish(topic, &command, false).await;
    let again = bench.broker.next_on("/up/command/result").await;
    assert_eq!(again.json["data"]["outcome"], "done");
    let time = r#"{"nonce":"n-1","time":"2026-11-02T08:15:31.750+08:00"}"#;
    bench.broker.publish("gatehouse/v1/gate-1/down/time", time, false).await;
    bench.broker.publish(topic, &command.replace("r-1", "r-2"), true).await;
    let retained = bench.broker.next_on("/up/command/result").await;
    assert_eq!(retained.json["data"]["outcome"], "rejected");
    assert_eq!(retained.json["data"]["code"], "down_retained");
    let unasked =
        bench.metrics.refusals().into_iter().find(|count| count.labels.contains(&"time_unasked".to_owned()));
    assert_eq!(unasked.map(|count| count.count), Some(1), "a time nobody asked for is counted");
    bench.stop().await;
}
