//! A device speaks, the platform hears: over each way in and each way out.

use std::process::Command;

use gatehouse_tests::device::{Device, Login, Refused};
use gatehouse_tests::gateway::{CLIENT, Gateway, PASSWORD, Plan, Uplink};
use gatehouse_tests::mosquitto::{Mosquitto, Options, contract_acl};
use gatehouse_tests::pki::Pki;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::site::{SOON, Site, await_event, await_state, measure, press, pressed, topic};
use gatehouse_tests::turn;
use gatehouse_tests::wire::Version;
use tempfile::TempDir;

const BUTTON: &str = "button-1";

#[tokio::test(flavor = "multi_thread")]
async fn a_press_reaches_the_platform_with_place_and_severity() {
    let _turn = turn::shared();
    let site = Site::start("gw-line").await;
    site.await_online(1).await;
    for (n, version) in [(1, Version::V311), (2, Version::V5)] {
        let mut device = Device::connect_patiently(&site.gateway.login().version(version)).await;
        assert_eq!(press(&mut device, BUTTON, n).await.unwrap().code, 0);
        let wanted = |message: &gatehouse_tests::platform::Message| pressed(message, BUTTON) == Some(n);
        let message = site.platform.await_message("the press", SOON, wanted).await;
        assert_eq!(message.topic, "gatehouse/v1/gw-line/up/event/emergency");
        assert!(!message.retained);
        let (json, data) = (&message.json, &message.json["data"]);
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["source"], "/gatehouse/gw-line");
        assert_eq!(json["replay"], false);
        assert_eq!(json["test"], false);
        assert!(json["time"].as_str().unwrap().ends_with('Z'), "{json}");
        assert_eq!((&data["severity"], &data["category"]), (&"critical".into(), &"emergency".into()));
        assert_eq!((&data["place"]["building"], &data["place"]["floor"]), (&"3".into(), &5.into()));
        assert_eq!(data["text"]["zh"], "紧急按钮");
    }
    site.audit().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_comes_later_finds_the_state_and_the_snapshot_came_first() {
    let _turn = turn::shared();
    let site = Site::start("gw-state").await;
    let mut device = site.device().await;
    site.await_online(1).await;
    measure(&mut device, "meter-1", 7).await.unwrap();
    let value = site.platform.await_message("the value", SOON, |m| m.channel() == "telemetry").await;
    assert_eq!(value.json["data"]["records"][0]["samples"][0]["value"].as_f64(), Some(7.0));
    let late = Platform::start(site.mosquitto.address(), "gatehouse/v1/gw-state/up/state").await;
    let state = late.await_message("the retained state", SOON, |message| message.retained).await;
    assert_eq!(state.json["data"]["online"], true);
    assert!(state.json["data"]["conn"].as_u64() >= Some(1));
    let channels: Vec<String> =
        site.platform.look(|all| all.iter().map(|m| m.channel().to_owned()).collect());
    let snapshot = channels.iter().position(|channel| channel == "snapshot").expect("a snapshot");
    let first = channels.iter().position(|channel| channel == "telemetry" || channel.starts_with("event"));
    assert!(snapshot < first.unwrap(), "records before the snapshot: {channels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_presses_a_shipped_zigbee2mqtt_button() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-real", &mosquitto.url());
    for (id, profile) in [("by-action", "z2m-button-action"), ("by-sos", "z2m-button-sos")] {
        plan.extra.push_str(&format!(
            "[devices.{id}]\nprofile = \"{profile}\"\nclient = \"{CLIENT}\"\naddress = \"{id}\"\n\n"
        ));
    }
    let gateway = Gateway::start(plan).await;
    for (id, body) in [("by-action", r#"{"action":"emergency"}"#), ("by-sos", r#"{"sos":true}"#)] {
        let port = gateway.mqtt.port().to_string();
        let status = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", "311", "-q", "1", "-i", CLIENT, "-u", CLIENT])
            .args(["-P", PASSWORD, "-t", &topic(id), "-m", body])
            .status()
            .expect("mosquitto_pub runs; tests/setup.sh installs it");
        assert!(status.success());
        let wanted = |message: &gatehouse_tests::platform::Message| {
            message.json["data"]["device"]["id"] == id && message.channel() == "event/emergency"
        };
        platform.await_message(&format!("the press of {id}"), SOON, wanted).await;
    }
}

/// A mosquitto that lets a gateway do what the contract says and no more.
async fn guarded(pki: &Pki, gateway: &str) -> Mosquitto {
    let server = pki.identity("server");
    let acl = contract_acl("gatehouse", gateway, gateway);
    let users = vec![(gateway, "uplink password")];
    let (websocket, tls, acl) = (true, Some((pki, &server)), Some(acl));
    let options = Options { websocket, tls, users, acl, ..Options::default() };
    Mosquitto::start_with(&options).await
}

async fn one_press_arrives(gateway: &Gateway, platform: &Platform) {
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    platform.await_message("the press", SOON, |message| pressed(message, BUTTON) == Some(1)).await;
    await_state(platform, &gateway.plan.name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn north_by_tls_with_a_client_certificate_and_the_contracts_rights() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let pki = Pki::new(folder.path());
    let mosquitto = guarded(&pki, "gw-tls").await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let own = pki.identity("gw-tls");
    let mut plan = Plan::new("gw-tls", "");
    plan.uplinks = vec![Uplink::new("street", &mosquitto.tls_url()).extra(&format!(
        "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}",
        pki.ca(),
        own.cert,
        own.key
    ))];
    let gateway = Gateway::start(plan).await;
    one_press_arrives(&gateway, &platform).await;
    assert!(!mosquitto.log().contains("Denied"), "the contract's rights do not suffice: {}", mosquitto.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn north_by_password_and_by_websocket() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let pki = Pki::new(folder.path());
    let mosquitto = guarded(&pki, "gw-two").await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    std::fs::write(folder.path().join("password"), "uplink password\n").unwrap();
    let login = format!("username = \"gw-two\"\npassword_file = {:?}", folder.path().join("password"));
    for url in [mosquitto.url(), mosquitto.websocket_url()] {
        let before = platform.look(<[_]>::len);
        let mut plan = Plan::new("gw-two", "");
        plan.uplinks = vec![Uplink::new("street", &url).extra(&login)];
        let mut gateway = Gateway::start(plan).await;
        let mut device = Device::connect_patiently(&gateway.login()).await;
        press(&mut device, BUTTON, 1).await.unwrap();
        gatehouse_tests::wait::eventually(&format!("the press by {url}"), SOON, || {
            platform.look(|all| all[before..].iter().any(|m| pressed(m, BUTTON) == Some(1)).then_some(()))
        })
        .await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn south_by_tls_with_a_client_certificate() {
    let _turn = turn::shared();
    let folder = TempDir::new().unwrap();
    let pki = Pki::new(folder.path());
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-south", &mosquitto.url());
    plan.extra = "[clients.meterbox]\ncertificate = true\n\n[devices.boxed]\nprofile = \"test-button\"\n\
                  client = \"meterbox\"\naddress = \"boxed\"\n\n"
        .to_owned();
    let mut gateway = Gateway::prepare_with_tls(plan, &pki, &pki.identity("server"));
    gateway.run().await;
    let mut login = Login::new(gateway.tls.unwrap(), "meterbox", "");
    (login.username, login.password) = (None, None);
    login.tls = Some(pki.client(Some(&pki.identity("meterbox"))));
    let mut device = Device::connect_patiently(&login).await;
    let body = br#"{"action":"emergency","n":1}"#;
    assert_eq!(device.publish("meterbox/boxed", body).await.unwrap().code, 0);
    let boxed = await_event(&platform, "button.pressed", SOON).await;
    assert_eq!(boxed.json["data"]["device"]["id"], "boxed");

    login.tls = Some(pki.client(Some(&pki.identity("stranger"))));
    assert!(Device::connect(&login).await.is_err(), "a certificate of nobody's was let in");
    login.tls = Some(pki.client(None));
    assert!(matches!(Device::connect(&login).await, Err(Refused::Line(_))), "no certificate, and let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uplinks_at_one_broker_do_not_throw_each_other_out() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-two-roots", "");
    plan.uplinks = vec![
        Uplink::new("street", &mosquitto.url()),
        Uplink::new("city", &mosquitto.url()).extra("root = \"city\""),
    ];
    let gateway = Gateway::start(plan).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in 1..=5 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    for root in ["gatehouse/", "city/"] {
        let ours = |message: &gatehouse_tests::platform::Message| {
            message.topic.starts_with(root) && pressed(message, BUTTON) == Some(5)
        };
        platform.await_message(&format!("the last press below {root}"), SOON, ours).await;
    }
    gateway.await_delivered().await;
    let uplinks = gateway.status()["board"]["uplinks"].clone();
    for name in ["street", "city"] {
        let uplink = &uplinks[name];
        assert!(uplink["connected"] == true && uplink["conn"].as_u64() <= Some(2), "{name}: {uplinks}");
    }
}
