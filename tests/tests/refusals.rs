//! A platform's broker that refuses: what is the record's own fault ends as a gap record, what is the broker's state
//! makes the record wait, and neither blocks the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, Uplink};
use gatehouse_tests::platform::Message;
use gatehouse_tests::scripted::{Answer, OK, ScriptedBroker, Seen};
use gatehouse_tests::site::{LATER, SOON, Site, press};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;
use gatehouse_tests::wire::Publish;
use serde_json::Value;
use tokio::time::Instant;

const BUTTON: &str = "button-1";

/// Which press a publish carries.
fn press_of(publish: &Publish) -> Option<u64> {
    let json: Value = serde_json::from_slice(&publish.payload).ok()?;
    json["data"]["params"]["n"].as_u64()
}

fn json_of(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap_or(Value::Null)
}

async fn gateway_at(name: &str, broker: &ScriptedBroker, pacing: &str) -> Gateway {
    let mut plan = Plan::new(name, "");
    plan.uplinks = vec![Uplink::new("street", &broker.url()).pacing(pacing)];
    Gateway::start(plan).await
}

async fn press_all(gateway: &Gateway, numbers: std::ops::RangeInclusive<u64>) {
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in numbers {
        press(&mut device, BUTTON, n).await.unwrap();
    }
}

fn accepted(n: u64) -> impl Fn(&Seen) -> bool {
    move |seen| seen.answer == OK && press_of(&seen.publish) == Some(n)
}

/// How often press `n` was sent.
fn tries(broker: &ScriptedBroker, n: u64) -> usize {
    broker.seen().iter().filter(|seen| press_of(&seen.publish) == Some(n)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_broker_is_tried_again_until_it_takes_the_record() {
    let _turn = turn::shared();
    // Press 3 meets a full quota three times.
    let mut refused = 0;
    let broker = ScriptedBroker::start(move |publish| {
        if press_of(publish) == Some(3) && refused < 3 {
            refused += 1;
            return Answer::Ack(0x97);
        }
        OK
    })
    .await;
    let gateway = gateway_at("gw-busy", &broker, "").await;
    press_all(&gateway, 1..=6).await;
    for n in 1..=6 {
        broker.await_publish(&format!("press {n} taken"), LATER, accepted(n)).await;
    }
    assert_eq!(tries(&broker, 3), 4);
    let gaps = broker.seen().iter().filter(|seen| seen.publish.topic.ends_with("up/ledger")).count();
    assert_eq!(gaps, 0, "a busy broker's record was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_refused_for_its_own_sake_becomes_a_delivered_gap() {
    let _turn = turn::shared();
    let broker = ScriptedBroker::start(|publish| match press_of(publish) {
        Some(3) => Answer::Ack(0x87),
        _ => OK,
    })
    .await;
    let gateway = gateway_at("gw-refused", &broker, "refusal_tries = 3").await;
    press_all(&gateway, 1..=6).await;
    for n in [1, 2, 4, 5, 6] {
        broker.await_publish(&format!("press {n} taken"), SOON, accepted(n)).await;
    }
    let gap = broker
        .await_publish("the gap record", LATER, |seen| {
            seen.answer == OK && seen.publish.topic.ends_with("up/ledger")
        })
        .await;
    assert_eq!(tries(&broker, 3), 3);
    let data = json_of(&gap.publish)["data"].clone();
    assert_eq!((&data["class"], &data["reason"]), (&"event".into(), &"refused".into()), "{data}");
    let refused = broker.seen().into_iter().find(|seen| press_of(&seen.publish) == Some(3)).unwrap();
    let sequence = json_of(&refused.publish)["sequence"].clone();
    assert_eq!((&data["from"], &data["to"]), (&sequence, &sequence), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_nobody_listens_for_is_kept_and_told() {
    let _turn = turn::shared();
    let deaf_until = Instant::now() + Duration::from_secs(4);
    let broker = ScriptedBroker::start(move |publish| {
        let event = publish.topic.contains("/up/event/");
        if event && Instant::now() < deaf_until { Answer::Ack(0x10) } else { OK }
    })
    .await;
    let gateway = gateway_at("gw-nobody", &broker, "").await;
    press_all(&gateway, 1..=3).await;
    broker
        .await_publish("0x10 for a press", SOON, |seen| {
            seen.answer == Answer::Ack(0x10) && press_of(&seen.publish) == Some(1)
        })
        .await;
    for n in 1..=3 {
        broker.await_publish(&format!("press {n} taken"), LATER, accepted(n)).await;
    }
    let told = |seen: &Seen| {
        let name = json_of(&seen.publish)["data"]["name"].as_str().unwrap_or_default().to_owned();
        seen.answer == OK && name.starts_with("uplink.")
    };
    broker.await_publish("an event that says that nobody listened", LATER, told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_an_answer_costs_the_connection_and_is_sent_again() {
    let _turn = turn::shared();
    let mut silent = true;
    let broker = ScriptedBroker::start(move |publish| {
        if press_of(publish) == Some(2) && silent {
            silent = false;
            return Answer::Silence;
        }
        OK
    })
    .await;
    let gateway = gateway_at("gw-silent", &broker, "puback_timeout_s = 1").await;
    press_all(&gateway, 1..=4).await;
    for n in 1..=4 {
        broker.await_publish(&format!("press {n} taken"), LATER, accepted(n)).await;
    }
    let second = broker.seen().into_iter().rfind(|seen| press_of(&seen.publish) == Some(2)).unwrap();
    assert!(second.connection > 1, "sent again on the connection that had swallowed it");
    assert_eq!(json_of(&second.publish)["replay"], true);
}

/// The highest (conn, rev) that says online, and whether anything later says less.
#[derive(Default, Debug)]
struct States(BTreeMap<(u64, u64), bool>);

#[tokio::test(flavor = "multi_thread")]
async fn a_late_will_is_overruled_at_the_broker() {
    let _turn = turn::shared();
    let site = Site::start("gw-will").await;
    let topic = "gatehouse/v1/gw-will/up/state";
    let mut gateway = site.gateway;
    let first = gatehouse_tests::site::await_state(&site.platform, "gw-will", 1).await;
    gateway.kill();
    let offline = |message: &Message| message.topic == topic && message.json["data"]["online"] == false;
    let will = site.platform.await_message("the will", SOON, offline).await;
    assert_eq!(will.json["data"]["conn"], first.json["data"]["conn"], "the will of another connection");

    gateway.run().await;
    let conn = first.json["data"]["conn"].as_u64().unwrap();
    let second = gatehouse_tests::site::await_state(&site.platform, "gw-will", conn + 1).await;
    let before = site.platform.look(<[_]>::len);
    // The same will again, late: a bridge or a cluster delivers it after the new connection's state.
    site.platform.publish(topic, will.payload.clone(), true);
    let mended = |message: &&Message| message.topic == topic && message.json["data"]["online"] == true;
    let state = eventually("the state again", SOON, || {
        site.platform.look(|all| all[before..].iter().find(mended).cloned())
    })
    .await;
    let rank = |message: &Message| {
        let data = &message.json["data"];
        (data["conn"].as_u64().unwrap(), data["rev"].as_u64().unwrap())
    };
    assert!(rank(&state) > rank(&will), "a consumer that keeps the highest would keep the will");
    assert!(rank(&state) > rank(&second), "a consumer that keeps the highest would not take it");
    let late = gatehouse_tests::platform::Platform::start(site.mosquitto.address(), topic).await;
    let retained = late.await_message("the retained state", SOON, |message| message.retained).await;
    assert_eq!(retained.json["data"]["online"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_are_tried_again_with_patience() {
    let _turn = turn::shared();
    let broker = ScriptedBroker::start(|_| OK).await;
    broker.connack(0x97);
    let states = Arc::new(Mutex::new(States::default()));
    let gateway = gateway_at("gw-full", &broker, "").await;
    press_all(&gateway, 1..=2).await;
    eventually("three attempts", LATER, || (broker.connects().len() >= 3).then_some(())).await;
    assert!(broker.seen().is_empty(), "published on a refused connection: {:?}", broker.seen());
    broker.connack(0);
    let seen_states = states.clone();
    broker.answer(move |publish| {
        let json = json_of(publish);
        if publish.topic.ends_with("/up/state") {
            let data = &json["data"];
            let rank = (data["conn"].as_u64().unwrap_or(0), data["rev"].as_u64().unwrap_or(0));
            seen_states.lock().unwrap().0.insert(rank, data["online"] == true);
        }
        OK
    });
    for n in 1..=2 {
        broker.await_publish(&format!("press {n} taken"), LATER, accepted(n)).await;
    }
    let states = states.lock().unwrap();
    assert!(states.0.values().all(|online| *online) && !states.0.is_empty(), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_left_with_each_connection_and_clean_start_is_asked() {
    let _turn = turn::shared();
    let broker = ScriptedBroker::start(|_| OK).await;
    let gateway = gateway_at("gw-connect", &broker, "").await;
    press_all(&gateway, 1..=1).await;
    broker.await_publish("the press", SOON, accepted(1)).await;
    let connect = broker.connects().remove(0);
    assert!(connect.clean);
    let will = connect.will.expect("a will");
    assert_eq!((will.topic.as_str(), will.qos, will.retain), ("gatehouse/v1/gw-connect/up/state", 1, true));
    let state: Value = serde_json::from_slice(&will.payload).unwrap();
    assert_eq!(state["data"]["online"], false);
    let filters = broker.subscriptions();
    assert!(filters.iter().any(|filter| filter.starts_with("gatehouse/v1/gw-connect/down/")), "{filters:?}");
    assert!(
        filters.iter().all(|filter| filter.starts_with("gatehouse/v1/gw-connect/")),
        "the contract gives no right to {filters:?}"
    );
}
