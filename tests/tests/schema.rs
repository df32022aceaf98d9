//! What the gateway really sends is what docs/platform promises: every message of a run with an outage, a restart, a
//! refused record and a command validates against its schema, and AsyncAPI's own parser takes the document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::root;
use gatehouse_tests::platform::Message;
use gatehouse_tests::site::{LATER, SOON, Site, measure, press};
use gatehouse_tests::turn;
use gatehouse_tests::wait::{eventually, eventually_ok};
use jsonschema::Validator;
use serde_json::{Value, json};

const BUTTON: &str = "button-1";

/// The largest message that public brokers all take.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// The schema that describes what comes on a channel (a topic after `up/`).
fn schema_of(channel: &str) -> Option<&'static str> {
    let plain = channel.strip_prefix("test/").unwrap_or(channel);
    Some(match plain {
        "state" => "state",
        "snapshot" => "snapshot",
        "alarm" => "alarm",
        "ledger" => "gap",
        "telemetry" | "history/telemetry" => "telemetry",
        "command/result" => "command-result",
        _ if plain.starts_with("event/") => "event",
        _ => return None,
    })
}

fn validators() -> BTreeMap<String, Validator> {
    let folder = root().join("docs/platform/schemas");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut validators = BTreeMap::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let validator = jsonschema::validator_for(&schema)
            .unwrap_or_else(|error| panic!("{} is no schema: {error}", path.display()));
        validators.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), validator);
    }
    validators
}

fn validate(messages: &[Message]) -> BTreeSet<&'static str> {
    let validators = validators();
    let mut seen = BTreeSet::new();
    for message in messages.iter().filter(|message| message.topic.contains("/up/")) {
        let name =
            schema_of(message.channel()).unwrap_or_else(|| panic!("{} is described nowhere", message.topic));
        let errors: Vec<String> =
            validators[name].iter_errors(&message.json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}\n{:#}", message.topic, message.json);
        assert!(message.payload.len() <= PAYLOAD_BYTES_MAX, "{}: {}", message.topic, message.payload.len());
        seen.insert(name);
    }
    seen
}

/// A command as a platform would send it, issued by the box's own clock as `state` tells it.
fn command(state: &Message, id: &str, name: &str, args: &Value) -> String {
    let issued = json!({ "bootid": state.json["bootid"], "monotonic": state.json["monotonic"] });
    json!({
        "id": id, "command": name, "issued": issued, "lifetime_s": 600,
        "operator": "tester", "reason": "system test", "args": args,
    })
    .to_string()
}

async fn await_result(site: &Site, id: &str) -> Message {
    let wanted = |message: &Message| {
        message.channel() == "command/result" && message.json["data"].to_string().contains(id)
    };
    site.platform.await_message(&format!("the result of {id}"), SOON, wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_real_run_validates() {
    let _turn = turn::shared();
    let mut site = Site::start("gw-schema").await;
    let mut device = site.device().await;
    for n in 1..=5 {
        press(&mut device, BUTTON, n).await.unwrap();
        measure(&mut device, "meter-1", n).await.unwrap();
    }
    let state = site.await_online(1).await;
    site.await_presses(BUTTON, &(1..=5).collect(), SOON).await;

    // An outage, so that there is a backlog.
    site.mosquitto.stop().await;
    for n in 6..=10 {
        press(&mut device, BUTTON, n).await.unwrap();
        measure(&mut device, "meter-1", n).await.unwrap();
    }
    site.mosquitto.run().await;
    site.platform.await_online().await;
    site.await_presses(BUTTON, &(1..=10).collect(), LATER).await;
    eventually("the backlog of values", LATER, || {
        site.platform.look(|all| all.iter().any(|m| m.channel() == "history/telemetry").then_some(()))
    })
    .await;

    // A command that is done, twice; one that nobody knows; one that is no JSON.
    let topic = "gatehouse/v1/gw-schema/down/command";
    let event = site.platform.messages().into_iter().find(|m| m.channel().starts_with("event/")).unwrap();
    let range = json!({
        "epoch": event.text("epoch"), "class": "event",
        "from": event.text("sequence"), "to": event.text("sequence"),
    });
    let before = site.platform.look(|all| all.iter().filter(|m| m.text("id") == event.text("id")).count());
    site.await_online(2).await;
    for _ in 0..2 {
        site.platform.publish(topic, command(&state, "replay-1", "replay", &range), false);
    }
    site.platform.publish(topic, command(&state, "unknown-1", "dance", &json!({})), false);
    site.platform.publish(topic, "{no json", false);
    await_result(&site, "replay-1").await;
    await_result(&site, "unknown-1").await;
    eventually("the record again", SOON, || {
        let count = site.platform.look(|all| all.iter().filter(|m| m.text("id") == event.text("id")).count());
        (count > before).then_some(())
    })
    .await;
    site.platform.publish(topic, "{}", false);
    for reason in ["not_json", "down_malformed"] {
        eventually_ok(&format!("{reason} is counted"), SOON, async || {
            let count = site.gateway.refused(reason).await;
            if count >= 1.0 { Ok(()) } else { Err(count) }
        })
        .await;
    }

    // A restart, so that there is a last word of a connection.
    site.gateway.stop().await;
    site.gateway.run().await;
    let mut device = Device::connect_patiently(&site.gateway.login()).await;
    press(&mut device, BUTTON, 11).await.unwrap();
    site.await_presses(BUTTON, &(1..=11).collect(), LATER).await;

    site.gateway.await_delivered().await;
    let seen = site.platform.look(validate);
    for name in ["state", "snapshot", "event", "telemetry", "command-result"] {
        assert!(seen.contains(name), "the run had no {name}: {seen:?}");
    }
    // A range that was asked for again goes back within its stream: that is no disorder.
    let report = site.audit();
    assert!(
        report.holes.is_empty() && report.conflicts.is_empty(),
        "{:?} {:?}",
        report.holes,
        report.conflicts
    );
    assert!(report.malformed.is_empty(), "{:?}", report.malformed);
}

/// The node that tests/setup.sh fetched where the machine's own is too old.
fn node_program() -> PathBuf {
    let own = root().join("tests/.node/node_modules/.bin/node");
    if own.exists() { own } else { PathBuf::from("node") }
}

/// Runs a node program of this repository and returns what it printed.
fn node(folder: &Path, arguments: &[&str]) -> String {
    let modules = folder.join("node_modules");
    assert!(modules.exists(), "{} is missing: run tests/setup.sh", modules.display());
    let output = Command::new(node_program())
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("node does not run ({error}): tests/setup.sh installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "node {arguments:?} in {}: {out}{err}", folder.display());
    out.into_owned()
}

#[test]
fn the_asyncapi_document_is_valid_by_asyncapis_own_parser() {
    let _turn = turn::shared();
    node(&root().join("tests/asyncapi"), &["check.mjs"]);
}

#[test]
fn the_asyncapi_check_can_fail() {
    let _turn = turn::shared();
    let folder = root().join("tests/asyncapi");
    assert!(folder.join("node_modules").exists(), "run tests/setup.sh");
    let broken = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(broken.path(), "asyncapi: 3.0.0\ninfo:\n  title: x\nchannels: 7\n").unwrap();
    let status =
        Command::new(node_program()).arg("check.mjs").arg(broken.path()).current_dir(&folder).output();
    assert!(!status.expect("node runs").status.success(), "a broken document was taken");
}

#[test]
fn the_zigbee2mqtt_payloads_are_those_of_its_converters() {
    let _turn = turn::shared();
    let folder = root().join("tests/z2m");
    let fresh = node(&folder, &["make-payloads.mjs"]);
    let kept = std::fs::read_to_string(folder.join("payloads.jsonl")).unwrap();
    for (index, (fresh, kept)) in fresh.lines().zip(kept.lines()).enumerate() {
        assert_eq!(fresh, kept, "line {}: tests/z2m/check.sh --write takes what is new", index + 1);
    }
    assert_eq!(fresh.lines().count(), kept.lines().count(), "tests/z2m/check.sh --write takes what is new");
}
