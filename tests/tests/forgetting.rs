//! A small card and a platform that is away: telemetry is thinned and dropped, events never; what is missing is told
//! exactly, and `status` says so. And what an event costs the flash.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::audit::audit;
use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, program};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::process::Process;
use gatehouse_tests::proxy::{Cut, Door, Proxy};
use gatehouse_tests::site::{LATER, Site, await_event, await_presses, await_state, measure, press};
use gatehouse_tests::wait::{eventually, eventually_ok};
use gatehouse_tests::{http, turn};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, interval};

const BUTTON: &str = "button-1";

/// Values sent while the platform is away: some 3 MB of records for a budget of 1 MiB.
const VALUES: u64 = 9_000;

/// `gatehouse platform-check` beside the platform, from the first message on.
fn platform_check(url: &str, output: &Path) -> Process {
    let mut command = Command::new(program());
    command.args(["platform-check", "--url", url, "--from-start", "--late-s", "600"]);
    Process::spawn("platform-check", &mut command, output)
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("a number: {value}"))
}

/// The numbers of the telemetry that came.
fn received(messages: &[Message]) -> BTreeSet<u64> {
    let batches = messages.iter().filter(|message| message.channel().ends_with("telemetry"));
    let records =
        batches.flat_map(|batch| batch.json["data"]["records"].as_array().cloned().unwrap_or_default());
    records.map(|record| number(&record["sequence"])).collect()
}

/// The gap records of telemetry.
fn gaps(messages: &[Message]) -> Vec<Value> {
    let ledger = messages.iter().filter(|message| message.channel() == "ledger");
    let data = ledger.map(|message| message.json["data"].clone());
    data.filter(|data| data["class"] == "telemetry").collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story from beginning to end")]
async fn a_platform_that_was_away_gets_every_event_and_is_told_what_is_missing() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut check = platform_check(&mosquitto.url(), &folder.path().join("check"));
    eventually("platform-check listens", LATER, || check.output().contains("listening to").then_some(()))
        .await;
    let mut plan = Plan::new("gw-small", &proxy.url());
    plan.extra = "[gateway.storage]\ntelemetry_mib = 1\nevent_mib = 4\nreserve_mib = 4\n\
                  thinning = [{ older_than_h = 0, keep_every_s = 1 }]\n"
        .to_owned();
    let mut gateway = Gateway::start(plan).await;
    await_state(&platform, "gw-small", 1).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    await_presses(&platform, BUTTON, &[1].into(), LATER).await;

    proxy.door(Door::Shut);
    proxy.cut(Cut::Rst);
    let topic = gatehouse_tests::site::topic("meter-1");
    let mut presses = BTreeSet::from([1]);
    for n in 1..=VALUES {
        let body = format!("{{\"level\":{n},\"label\":\"{}\"}}", "x".repeat(100));
        if n % 100 == 0 {
            // The press waits for all values before it: one connection is handled in order.
            device.publish(&topic, body.as_bytes()).await.unwrap();
            let press_number = 1 + n / 100;
            press(&mut device, BUTTON, press_number).await.unwrap();
            presses.insert(press_number);
        } else {
            device.send(&topic, body.as_bytes(), 0).await.unwrap();
        }
    }
    let mut seen = (0, Instant::now());
    let status = eventually("forgetting is done", LATER, || {
        let store = gateway.status()["board"]["store"].clone();
        let telemetry = &store["classes"]["telemetry"];
        let within = telemetry["bytes"].as_u64()? <= telemetry["budget_bytes"].as_u64()?;
        // The figures of a class are shown once a second: they must be those of the end, and stay. What is forgotten
        // while it is being sent would come and be told all the same.
        let gone: u64 = store["forgotten"].as_array()?.iter().map(|told| number(&told["records"])).sum();
        let last = store["last"]["telemetry"].as_u64()?;
        let fresh = last >= VALUES && telemetry["records"].as_u64()? + gone == last;
        if seen.0 != gone {
            seen = (gone, Instant::now());
        }
        let rests = seen.1.elapsed() > Duration::from_millis(2_500);
        (within && rests && fresh && !store["forgotten"].as_array()?.is_empty()).then_some(store)
    })
    .await;
    assert_eq!(status["classes"]["telemetry"]["budget_bytes"], 1_048_576);
    assert_eq!(status["reserve"]["held"], true, "{status}");
    // A crash between two pieces changes nothing.
    gateway.kill();
    gateway.run().await;
    proxy.door(Door::Open);
    await_presses(&platform, BUTTON, &presses, LATER).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    measure(&mut device, "meter-1", 7).await.unwrap();
    gateway.await_delivered().await;

    let messages = platform.messages();
    audit(&messages, "gw-small").assert_clean();
    check.signal(Signal::INT);
    let verdict = check.wait(LATER).await;
    assert!(verdict.success(), "platform-check found something: {}", check.output());
    let (came, gaps) = (received(&messages), gaps(&messages));
    let last = *came.last().unwrap();
    assert!(last >= VALUES, "only {last} values were stored");
    let covered =
        |seq: u64| gaps.iter().any(|gap| (number(&gap["from"])..=number(&gap["to"])).contains(&seq));
    let missing: Vec<u64> = (1..=last).filter(|seq| !came.contains(seq)).collect();
    assert!(missing.len() > 1_000, "hardly anything was forgotten: {}", missing.len());
    assert!(missing.iter().all(|seq| covered(*seq)), "a value is missing and not told");
    let told: u64 = gaps.iter().map(|gap| number(&gap["count"])).sum();
    assert_eq!(told, missing.len() as u64, "the counts are not those of what is missing: {gaps:?}");
    assert!(gaps.len() <= 8, "a flood of {} gap records", gaps.len());
    assert!(gaps.iter().all(|gap| gap["reason"] == "forgotten"), "{gaps:?}");
    let status = gateway.status();
    let forgotten = status["board"]["store"]["forgotten"].as_array().unwrap().clone();
    let sum: u64 = forgotten.iter().map(|told| number(&told["records"])).sum();
    assert_eq!(sum, missing.len() as u64, "{forgotten:?}");
    let text = String::from_utf8(gateway.gatehouse(&["status"]).stdout).unwrap();
    for part in ["1.0 MiB", "forgotten 已遗忘", "reserve 预留空间  4.0 MiB"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    println!("{} of {last} values forgotten, told by {} gap records", missing.len(), gaps.len());
}

const DISK_BYTES: u64 = 40 * 1024 * 1024;

/// The gateway's program with its data on a small disk of its own, in a mount namespace that needs no root where the
/// kernel lets users have one.
fn on_small_disk(gateway: &Gateway) -> Command {
    std::fs::create_dir(gateway.data_dir()).unwrap();
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && exec \"$@\"");
    command.args(["-rm", "sh", "-c", &script]).arg(gateway.data_dir()).arg(program());
    command
}

/// Writes until nothing more fits, a page at last.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [1024 * 1024, 4096] {
        while file.write_all(&vec![7; piece]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_somebody_else_fills_costs_no_event() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-full", &mosquitto.url());
    plan.extra = "[gateway.storage]\ntelemetry_mib = 8\nreserve_mib = 8\n".to_owned();
    let mut gateway = Gateway::prepare(plan);
    let mut command = on_small_disk(&gateway);
    gateway.spawn(&mut command);
    gateway.await_ready().await;
    await_state(&platform, "gw-full", 1).await;
    let (address, pid) = (gateway.http, gateway.process().id());
    let figure = async |what: &str| {
        http::series(&gateway_metrics(address).await, "gatehouse_store", &[("what", what)])
    };
    eventually_ok("the reserve is held", LATER, async || match figure("reserve_bytes").await {
        held if held > 8e6 => Ok(()),
        held => Err(format!("{held} bytes")),
    })
    .await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    let mut presses = BTreeSet::new();
    let mut next = 1..;
    let mut speak = async |count: usize| {
        for n in next.by_ref().take(count) {
            press(&mut device, BUTTON, n).await.expect("an event is acknowledged on a full disk");
            measure(&mut device, "meter-1", n).await.expect("a value too");
            presses.insert(n);
        }
        presses.clone()
    };
    speak(200).await;
    // Into the gateway's own view of the disk.
    let inside = Path::new("/proc").join(pid.to_string()).join("root");
    let data = inside.join(gateway.data_dir().strip_prefix("/").unwrap());
    fill(&data.join("somebody-elses"));
    let all = speak(600).await;
    assert!(figure("disk_full").await > 0.5, "the disk was never full");
    assert!(figure("reserve_bytes").await < 0.5, "the reserve was not needed");
    std::fs::remove_file(data.join("somebody-elses")).unwrap();
    await_event(&platform, "store.room", LATER).await;
    await_presses(&platform, BUTTON, &all, LATER).await;
    await_event(&platform, "store.full", LATER).await;
    gateway.await_delivered().await;
    assert!(figure("reserve_bytes").await > 8e6, "the reserve is not made again");
    audit(&platform.messages(), "gw-full").assert_clean();
}

async fn gateway_metrics(address: SocketAddr) -> String {
    http::get(address, "/metrics").await.expect("the metrics can be read").1
}

/// The bar: flash bytes an event at ten events a second.
const WRITTEN_BYTES_MAX: u64 = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_costs_few_bytes_of_flash() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new("gw-flash", &mosquitto.url());
    // One that raises an alarm each tenth of a second writes that alarm's state too; no button is pressed so.
    plan.gateway = "rules_disabled = [\"emergency-button\", \"several-emergencies\"]".to_owned();
    let site = Site { gateway: Gateway::start(plan).await, mosquitto, platform };
    let mut device = site.device().await;
    site.await_online(1).await;
    let written = || {
        let written = site.gateway.status()["board"]["store"]["written"].clone();
        assert!(written.is_object(), "nobody counts what is written: {written}");
        (number(&written["bytes"]), number(&written["records"]))
    };
    press(&mut device, BUTTON, 1).await.unwrap();
    let settled = Instant::now() + Duration::from_secs(2);
    tokio::time::sleep_until(settled).await;
    let before = written();
    let mut ticks = interval(Duration::from_millis(100));
    for n in 2..=202 {
        ticks.tick().await;
        press(&mut device, BUTTON, n).await.unwrap();
    }
    let after = eventually("the figures", LATER, || {
        let now = written();
        (now.1 >= before.1 + 200).then_some(now)
    })
    .await;
    let (bytes, records) = (after.0 - before.0, after.1 - before.1);
    println!("{} bytes written an event: {bytes} for {records} records at 10 events/s", bytes / records);
    assert!(bytes > 0, "the data directory lies on no real disk, nothing is measured");
    assert!(bytes / records <= WRITTEN_BYTES_MAX, "{} bytes an event", bytes / records);
}
