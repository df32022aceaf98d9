//! A disk that fills, turns read-only, breaks or hangs silences nobody (promise G14): what happens meanwhile reaches the
//! platform within seconds, marked `volatile`; nothing of it is acknowledged to a device; and when the disk is back all of
//! it is on it, once, and acknowledged when the device says it again.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::device::{Device, NoAck};
use gatehouse_tests::disk::{Illness, SmallDisk};
use gatehouse_tests::gateway::{Gateway, Plan, program};
use gatehouse_tests::http;
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::proxy::{Cut, Proxy};
use gatehouse_tests::site::{SOON, await_event, await_presses, await_state, press, pressed};
use gatehouse_tests::turn;
use gatehouse_tests::wait::{eventually, eventually_ok};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;

const BUTTON: &str = "button-1";

/// A press during an illness reaches the platform within this: the commit's second try, one publish, a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Size of the disk: the journal needs less than one MiB here.
const DISK_MIB: u32 = 6;

fn is_volatile(message: &Message) -> bool {
    message.json["volatile"] == Value::Bool(true)
}

/// How often the platform was told of a press, in memory only and for good.
fn told(platform: &Platform, n: u64) -> (usize, usize) {
    platform.look(|messages| {
        let of = |volatile: bool| {
            let ours =
                |message: &&Message| pressed(message, BUTTON) == Some(n) && is_volatile(message) == volatile;
            messages.iter().filter(ours).count()
        };
        (of(true), of(false))
    })
}

/// Presses on a connection of its own, as a device that was thrown out does.
async fn press_anew(gateway: &Gateway, n: u64) -> Result<(), NoAck> {
    let mut device = Device::connect_patiently(&gateway.login()).await;
    press(&mut device, BUTTON, n).await.map(|_ack| ())
}

/// A press that is told in time, and acknowledged to nobody, however often it is said.
async fn press_in_vain(gateway: &Gateway, platform: &Platform, n: u64) {
    let start = Instant::now();
    assert_eq!(press_anew(gateway, n).await, Err(NoAck::Ended), "press {n} was acknowledged");
    eventually("the press is told", TOLD_WITHIN, || (told(platform, n).0 > 0).then_some(())).await;
    assert!(start.elapsed() < TOLD_WITHIN, "press {n} was told after {:?}", start.elapsed());
    for _ in 0..2 {
        assert_eq!(press_anew(gateway, n).await, Err(NoAck::Ended), "press {n} was acknowledged");
    }
}

/// The device goes on until it is heard.
async fn press_until_acknowledged(gateway: &Gateway, n: u64) {
    eventually_ok("the press is acknowledged", SOON, async || press_anew(gateway, n).await).await;
}

fn memory(gateway: &Gateway) -> Value {
    gateway.status()["board"]["store"]["memory"].clone()
}

async fn await_disk(gateway: &Gateway) {
    eventually_ok("the journal is well", SOON, async || match http::get(gateway.http, "/healthz").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

struct Ward {
    disk: SmallDisk,
    illness: Illness,
    proxy: Proxy,
    platform: Platform,
    gateway: Gateway,
    _mosquitto: Mosquitto,
}

impl Ward {
    async fn open(name: &str) -> Self {
        let mosquitto = Mosquitto::start().await;
        let platform = Platform::start(mosquitto.address(), "#").await;
        let proxy = Proxy::start(mosquitto.address()).await;
        let mut gateway = Gateway::prepare(Plan::new(name, &proxy.url()));
        let disk = SmallDisk::mount(&gateway.data_dir(), DISK_MIB);
        let illness = Illness::prepare();
        let mut command = Command::new(program());
        illness.infect(&mut command, &gateway.data_dir());
        gateway.spawn(&mut command);
        gateway.await_ready().await;
        Self { disk, illness, proxy, platform, gateway, _mosquitto: mosquitto }
    }

    /// One illness from its beginning to its end; presses `first` to `first + 2`. `losses`: illnesses so far.
    async fn suffer(&self, losses: u64, first: u64) {
        let Self { platform, gateway, .. } = self;
        press_in_vain(gateway, platform, first).await;
        // The uplink can connect without a disk.
        let conns = |messages: &[Message]| {
            messages.iter().filter_map(|message| message.json["data"]["conn"].as_u64()).max()
        };
        let before = platform.look(conns).unwrap_or(0);
        self.proxy.cut(Cut::Rst);
        press_in_vain(gateway, platform, first + 1).await;
        await_state(platform, &gateway.plan.name, before + 1).await;
        press_in_vain(gateway, platform, first + 2).await;
        for n in first..first + 3 {
            // A cut may have come between a publish and its PUBACK; nothing else tells a press twice.
            assert!(
                (1..=2).contains(&told(platform, n).0),
                "press {n} was told {:?} times",
                told(platform, n)
            );
            assert_eq!(told(platform, n).1, 0, "press {n} is on no disk");
        }
        let (code, ill) = http::get(gateway.http, "/healthz").await.unwrap();
        assert!(code == 503 && ill.contains("journal"), "{code} {ill}");
        let memory = memory(gateway);
        assert_eq!(
            (memory["losses"].as_u64(), memory["dropped"].as_object().unwrap().len()),
            (Some(losses), 0)
        );
        assert!(memory["lost_since_mono_ms"].is_u64() && memory["kept"].as_u64() >= Some(3), "{memory}");
    }

    /// The disk is back.
    async fn recover(&self, losses: u64, first: u64) {
        let Self { platform, gateway, .. } = self;
        await_disk(gateway).await;
        await_presses(platform, BUTTON, &(first..first + 3).collect(), SOON).await;
        for n in first..first + 3 {
            press_until_acknowledged(gateway, n).await;
        }
        gateway.await_delivered().await;
        for n in first..first + 3 {
            assert_eq!(told(platform, n).1, 1, "press {n} is stored once");
        }
        let memory = memory(gateway);
        assert!(memory["lost_since_mono_ms"].is_null() && memory["kept"] == 0, "{memory}");
        assert!(memory["stored"].as_u64() >= Some(4 * losses), "{memory}");
        assert!(memory["told"].as_u64() >= Some(4 * losses), "{memory}");
        let text = gateway.gatehouse(&["status"]).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("disk lost {losses} times")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_turns_read_only_and_breaks_silences_nobody() {
    let _turn = turn::shared();
    let mut ward = Ward::open("gw-disk").await;
    let mut acknowledged = 0;
    // Until the last reserve is gone.
    loop {
        acknowledged += 1;
        ward.disk.fill();
        if press_anew(&ward.gateway, acknowledged).await.is_err() {
            break;
        }
        assert!(acknowledged < 100, "a full disk takes everything");
    }
    ward.suffer(1, 1_000).await;
    ward.disk.empty();
    ward.recover(1, 1_000).await;
    press_until_acknowledged(&ward.gateway, acknowledged).await;
    for (losses, word, first) in [(2, "readonly", 2_000), (3, "broken", 3_000), (4, "full", 4_000)] {
        press_anew(&ward.gateway, first - 1).await.unwrap();
        ward.illness.set(word);
        ward.suffer(losses, first).await;
        ward.illness.set("well");
        ward.recover(losses, first).await;
    }
    await_event(&ward.platform, "store.back", SOON).await;
    let told = ward
        .platform
        .look(|all| all.iter().filter(|m| m.json["data"]["name"] == "store.lost" && is_volatile(m)).count());
    assert!(told >= 4, "store.lost was told {told} times");
    let report = ward.platform.look(|messages| gatehouse_tests::audit::audit(messages, "gw-disk"));
    report.assert_clean();
    assert!(report.volatile >= 16, "{} volatile messages", report.volatile);
    ward.gateway.stop().await;
    let numbers: Vec<u64> =
        ward.gateway.journal().iter().filter_map(|record| number(record, BUTTON)).collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), distinct.len(), "a press is stored twice: {numbers:?}");
    for n in (1..=acknowledged).chain([1_999, 2_999, 3_999]).chain([1_000, 2_001, 3_002, 4_000]) {
        assert!(distinct.contains(&n), "press {n} was acknowledged and is not stored: {numbers:?}");
    }
}

/// Which press a record of the journal's export is.
fn number(record: &Value, button: &str) -> Option<u64> {
    let event = &record["body"]["event"];
    (event["device"]["id"] == button).then(|| event["params"]["n"].as_u64())?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_takes_two_seconds_loses_nothing_and_is_no_loss_of_the_disk() {
    let _turn = turn::shared();
    let mut ward = Ward::open("gw-stall").await;
    press_anew(&ward.gateway, 1).await.unwrap();
    ward.illness.set("stall");
    let mut acknowledged = BTreeSet::from([1]);
    for n in 2..5 {
        // The broker waits two seconds as well: either may win.
        if press_anew(&ward.gateway, n).await.is_ok() {
            acknowledged.insert(n);
        }
    }
    ward.illness.set("well");
    for n in 2..6 {
        press_until_acknowledged(&ward.gateway, n).await;
        acknowledged.insert(n);
    }
    await_presses(&ward.platform, BUTTON, &acknowledged, SOON).await;
    assert_eq!(memory(&ward.gateway)["losses"], 0, "slow is not lost");
    ward.gateway.stop().await;
}

/// Waits for the listener alone: such a gateway is not well.
async fn await_listening(gateway: &mut Gateway) {
    let mqtt = gateway.mqtt;
    eventually_ok("the gateway listens", SOON, async || TcpStream::connect(mqtt).await.map(|_bound| ()))
        .await;
    assert!(gateway.process().ended().is_none());
}

/// The disk is read-only when the gateway starts, and comes back. `used`: it holds a journal with a backlog.
async fn start_on_a_read_only_disk(name: &str, used: bool) {
    let mosquitto = Mosquitto::start().await;
    let mut gateway = Gateway::prepare(Plan::new(name, &mosquitto.url()));
    let disk = SmallDisk::mount(&gateway.data_dir(), DISK_MIB);
    let mut expected = BTreeSet::new();
    if used {
        gateway.run().await;
        press_anew(&gateway, 1).await.unwrap();
        expected.insert(1);
        // As a power cut leaves it: with what is not written back yet.
        gateway.kill();
    }
    disk.remount("ro");
    let platform = Platform::start(mosquitto.address(), "#").await;
    gateway.spawn(&mut Command::new(program()));
    await_listening(&mut gateway).await;
    press_in_vain(&gateway, &platform, 7).await;
    let lost = await_event(&platform, "store.lost", SOON).await;
    assert!(is_volatile(&lost) && lost.json["data"]["severity"] == "critical", "{lost:?}");
    let (code, ill) = http::get(gateway.http, "/healthz").await.unwrap();
    assert!(code == 503 && ill.contains("journal"), "{code} {ill}");
    disk.remount("rw");
    press_until_acknowledged(&gateway, 7).await;
    press_until_acknowledged(&gateway, 8).await;
    expected.extend([7, 8]);
    await_presses(&platform, BUTTON, &expected, SOON).await;
    eventually("all is told for good", SOON, || {
        expected.iter().all(|n| told(&platform, *n).1 > 0).then_some(())
    })
    .await;
    await_event(&platform, "store.back", SOON).await;
    platform.look(|messages| gatehouse_tests::audit::audit(messages, name)).assert_clean();
    gateway.stop().await;
    let stored: Vec<u64> = gateway.journal().iter().filter_map(|record| number(record, BUTTON)).collect();
    assert_eq!(stored, expected.into_iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_read_only_disk_with_a_journal_speaks_and_delivers_later() {
    let _turn = turn::shared();
    start_on_a_read_only_disk("gw-ro-used", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_on_a_read_only_disk_speaks() {
    let _turn = turn::shared();
    start_on_a_read_only_disk("gw-ro-new", false).await;
}
