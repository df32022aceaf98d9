//! The harness itself: its peers do what the other tests rely on, without the gateway.

use std::time::Duration;

use gatehouse_tests::device::{Device, Login, NoAck, Refused};
use gatehouse_tests::mosquitto::{Mosquitto, Options, contract_acl};
use gatehouse_tests::pki::Pki;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::proxy::{Cut, Door, Flow, Proxy};
use gatehouse_tests::scripted::{Answer, ScriptedBroker};
use gatehouse_tests::turn;
use gatehouse_tests::wire::{Publish, Version};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a loopback round trip to have happened if it were to happen.
const QUIET: Duration = Duration::from_millis(300);

fn anonymous(address: std::net::SocketAddr, version: Version) -> Login {
    Login { username: None, password: None, ..Login::new(address, "tester", "") }.version(version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reaches_a_platform_through_mosquitto_in_both_versions() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    for version in [Version::V311, Version::V5] {
        let mut device = Device::connect(&anonymous(mosquitto.address(), version)).await.unwrap();
        let topic = format!("t/{version:?}");
        assert_eq!(device.publish(&topic, b"{\"a\":1}").await.unwrap().code, 0);
        let message = platform.await_message("the publish", SOON, |message| message.topic == topic).await;
        assert_eq!(message.json["a"], 1);
        device.ping().await.unwrap();
        assert_eq!(device.subscribe("down").await, Ok(1));
        platform.publish("down", "x", false);
        gatehouse_tests::wait::eventually("a delivery", SOON, || device.received().first().cloned()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_refuses_by_access_list_and_certificate() {
    let _turn = turn::shared();
    let folder = tempfile::TempDir::new().unwrap();
    let pki = Pki::new(folder.path());
    let server = pki.identity("server");
    let acl = contract_acl("gatehouse", "gw1", "gw1");
    let options = Options {
        tls: Some((&pki, &server)),
        users: vec![("gw1", "secret")],
        acl: Some(acl),
        websocket: true,
        ..Options::default()
    };
    let mosquitto = Mosquitto::start_with(&options).await;
    let mut login = Login::new(mosquitto.address(), "gw1", "secret").version(Version::V5);
    let mut device = Device::connect(&login).await.unwrap();
    assert!(device.publish("gatehouse/v1/gw1/up/state", b"{}").await.unwrap().code < 0x80);
    assert_eq!(device.publish("gatehouse/v1/gw2/up/state", b"{}").await.unwrap().code, 0x87);
    login.password = Some("wrong".to_owned());
    assert_eq!(Device::connect(&login).await.unwrap_err(), Refused::Code(0x87));

    let port: u16 = mosquitto.tls_url().rsplit(':').next().unwrap().parse().unwrap();
    let mut tls = anonymous(([127, 0, 0, 1], port).into(), Version::V5);
    tls.tls = Some(pki.client(Some(&pki.identity("gw1"))));
    let mut device = Device::connect(&tls).await.unwrap();
    assert!(device.publish("gatehouse/v1/gw1/up/state", b"{}").await.unwrap().code < 0x80);
    tls.tls = Some(pki.client(None));
    assert!(matches!(Device::connect(&tls).await, Err(Refused::Line(_))), "no certificate, and let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_comes_back_and_the_platform_with_it() {
    let _turn = turn::shared();
    let mut mosquitto = Mosquitto::start().await;
    let mut platform = Platform::start(mosquitto.address(), "#").await;
    for round in 1..=2 {
        if round == 1 {
            mosquitto.kill();
        } else {
            mosquitto.stop().await;
        }
        mosquitto.run().await;
        let what = "the platform has subscribed again";
        gatehouse_tests::wait::eventually(what, SOON, || (platform.subscribed() > round).then_some(())).await;
        platform.await_online().await;
    }
    let mut device = Device::connect(&anonymous(mosquitto.address(), Version::V5)).await.unwrap();
    device.publish("t", b"1").await.unwrap();
    platform.await_message("a publish after it all", SOON, |message| message.topic == "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_swallows_delays_and_cuts() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let login = anonymous(proxy.address(), Version::V5);
    let mut device = Device::connect(&login).await.unwrap();
    device.publish("t", b"1").await.unwrap();

    proxy.flow(Flow::Pass, Flow::Swallow);
    let id = device.send("t", b"2", 1).await.unwrap();
    assert_eq!(device.acked(id, QUIET).await, Err(NoAck::Late), "the answer was not swallowed");
    proxy.flow(Flow::Pass, Flow::Pass);
    assert!(!device.ended());

    let delay = Duration::from_millis(200);
    proxy.flow(Flow::Delay(delay), Flow::Pass);
    let before = tokio::time::Instant::now();
    let ack = device.publish("t", b"3").await.unwrap();
    assert!(ack.at - before >= delay, "not delayed: {:?}", ack.at - before);
    proxy.flow(Flow::Pass, Flow::Pass);

    for how in [Cut::Rst, Cut::Fin] {
        proxy.cut(how);
        assert!(device.await_end(SOON).await, "{how:?} did not end it");
        device = Device::connect(&login).await.unwrap();
    }
    proxy.door(Door::Shut);
    assert!(matches!(Device::connect(&login).await, Err(Refused::Line(_))));
    proxy.door(Door::Open);
    let mut device = Device::connect(&login).await.unwrap();
    device.publish("t", b"4").await.unwrap();
    assert_eq!(proxy.accepted(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripted_broker_answers_as_told() {
    let _turn = turn::shared();
    let broker = ScriptedBroker::start(|publish| match publish.topic.as_str() {
        "quota" => Answer::Ack(0x97),
        "silence" => Answer::Silence,
        "taken-over" => Answer::Disconnect(0x8e),
        _ => Answer::Ack(0),
    })
    .await;
    let login = anonymous(broker.address(), Version::V5);
    let mut device = Device::connect(&login).await.unwrap();
    assert_eq!(device.publish("fine", b"").await.unwrap().code, 0);
    assert_eq!(device.publish("quota", b"").await.unwrap().code, 0x97);
    let id = device.send("silence", b"", 1).await.unwrap();
    assert_eq!(device.acked(id, QUIET).await, Err(NoAck::Late));
    broker.push(Publish::new("down", "x", 0, 0));
    gatehouse_tests::wait::eventually("a push", SOON, || device.received().first().cloned()).await;
    assert_eq!(device.publish("taken-over", b"").await, Err(NoAck::Ended));
    assert_eq!(device.disconnect_code(), Some(0x8e));
    assert_eq!(broker.seen().len(), 4);
    broker.connack(0x97);
    assert_eq!(Device::connect(&login).await.unwrap_err(), Refused::Code(0x97));
}
