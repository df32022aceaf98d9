//! Alarms and actions: from a press to the order for a speaker, what rules cost, and how fast a day is rehearsed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatehouse_tests::gateway::{Gateway, Plan, program};
use gatehouse_tests::wire::{self, Packet, Publish, Version};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::counters::cpu_s;
use crate::load::{self, Account};

/// Devices with many points, and the accounts that speak for them: with the buttons the most that a gateway takes.
const METERS: usize = 88;
const POINTS_EACH: usize = 50;
const SPEAKERS_OF_METERS: usize = 44;
/// What a button tells beside its presses: battery, voltage, quality of its link.
const POINTS_OF_BUTTON: usize = 3;
/// Points of all devices together.
pub const POINTS: usize = METERS * POINTS_EACH + BUTTONS * POINTS_OF_BUTTON;
/// Other traffic meanwhile, messages a second.
pub const TRAFFIC: f64 = 500.0;
/// Buttons, each with a speaker in its unit; each is pressed once.
const BUTTONS: usize = 200;
const PRESS_EVERY: Duration = Duration::from_millis(50);
/// Traffic alone, for the CPU of rules.
const CALM: Duration = Duration::from_secs(6);
const PASSWORD: &str = "7d0f6c6fa1f84c0d9b6a5e1c7b2d4e60";
/// How long the last order for a speaker may take.
const LATE: Duration = Duration::from_secs(10);

/// What was measured with so many rules: none (the bare line), or at least those that are shipped, ten about meters, and
/// the one for help.
#[derive(Debug, Clone, Copy)]
pub struct Alarms {
    pub rules: usize,
    pub puback_p99_ms: f64,
    /// Infinite where nothing is said.
    pub speaker_p99_ms: f64,
    /// CPU for 10 000 messages of traffic.
    pub traffic_cpu_s: f64,
}

/// The configuration: meters, buttons, speakers, and `rules` rules about the meters' points.
fn plan(rules: usize) -> Gateway {
    let mut plan = Plan::new("bench-alarms", "mqtt://127.0.0.1:9");
    plan.gateway.push_str("rules_dir = \"rules\"\n");
    plan.buttons.clear();
    plan.sensors.clear();
    plan.clients =
        (0..SPEAKERS_OF_METERS).map(meter_client).map(|name| (name, PASSWORD.to_owned())).collect();
    plan.clients.push(("help".to_owned(), PASSWORD.to_owned()));
    // A table of its own: it may subscribe.
    write!(plan.extra, "[clients.voice]\nsubscribe = [\"voice/#\"]\n\n").expect("text can be written");
    for n in 0..METERS {
        device(
            &mut plan.extra,
            &format!("meter-{n:03}"),
            "bench-meter",
            &meter_client(n % SPEAKERS_OF_METERS),
            n,
        );
    }
    for n in 0..BUTTONS {
        device(&mut plan.extra, &format!("help-{n:03}"), "z2m-button-action", "help", n);
        device(&mut plan.extra, &format!("voice-{n:03}"), "lan-speaker", "voice", n);
    }
    plan.clients.push(("voice".to_owned(), PASSWORD.to_owned()));
    let gateway = Gateway::prepare(plan);
    // The harness writes a plain table for each account: the speaker's stands in `extra`.
    let file = gateway.config_file();
    let text = std::fs::read_to_string(&file).expect("the configuration can be read");
    std::fs::write(&file, text.replacen("\n[clients.voice]\n\n", "\n\n", 1)).expect("it can be written");
    let folder = gateway.folder();
    std::fs::write(folder.join("profiles/bench-meter.toml"), meter_profile())
        .expect("a profile can be written");
    std::fs::create_dir_all(folder.join("rules")).expect("a folder can be made");
    let (help, meters) =
        if rules == 0 { (String::new(), String::new()) } else { (HELP.to_owned(), meter_rules(rules)) };
    std::fs::write(folder.join("rules/emergency.toml"), help).expect("a rule can be written");
    std::fs::write(folder.join("rules/meters.toml"), meters).expect("rules can be written");
    gateway
}

fn device(text: &mut String, id: &str, profile: &str, client: &str, n: usize) {
    write!(
        text,
        "[devices.{id}]\nprofile = \"{profile}\"\nclient = \"{client}\"\naddress = \"{id}\"\n\
         place = {{ building = \"3\", unit = \"{n}\", floor = 5 }}\n\n"
    )
    .expect("text can be written");
}

fn meter_client(n: usize) -> String {
    format!("meters-{n:02}")
}

fn meter_profile() -> String {
    let head = "kind = \"meter\"\ntitle = { zh = \"压测仪表\", en = \"bench meter\" }\n\n\
                [mqtt]\ntopic = \"{base}/{address}\"\n";
    (0..POINTS_EACH).fold(head.to_owned(), |mut text, point| {
        write!(text, "\n[points.p{point:02}]\npointer = \"/p{point:02}\"\ntype = \"number\"\n")
            .expect("text can be written");
        text
    })
}

/// In the place of the shipped rules for buttons.
const HELP: &str = r#"
[[rule]]
name = "bench-help"
title = { zh = "求助", en = "help" }
on = { event = "button.pressed" }

[rule.raise]
category = "emergency"
severity = "critical"
text = { zh = "求助", en = "help" }
latched = true

[[rule.do]]
speak = { zh = "请立即前往{{ place.building }}号楼" }
on = { place = "same-unit" }
"#;

/// Rules that stand in other files: the shipped ones, but for the file that [`HELP`] replaces, and that one.
fn other_rules() -> usize {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/rules");
    let files = std::fs::read_dir(folder).expect("the shipped rules lie there");
    let count = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("a rule file can be read");
        text.lines().filter(|line| *line == "[[rule]]").count()
    };
    let paths = files.map(|entry| entry.expect("an entry can be read").path());
    paths.filter(|path| !path.ends_with("emergency.toml")).map(|path| count(&path)).sum::<usize>() + 1
}

/// Each about one point of one meter, in turn; so many that there are `rules` in all, but ten at least.
fn meter_rules(rules: usize) -> String {
    (0..rules.saturating_sub(other_rules()).max(10)).fold(String::new(), |mut text, n| {
        write!(
            text,
            "[[rule]]\nname = \"limit-{n:04}\"\ntitle = {{ zh = \"超限\", en = \"limit\" }}\n\
             on = {{ point = \"p{:02}\", devices = [\"meter-{:03}\"] }}\nwhen = \"value > 1000.0 + {n}.0\"\nfor_s = 5\n\n\
             [rule.raise]\nname = \"meter.limit\"\ncategory = \"device\"\nseverity = \"minor\"\n\
             text = {{ zh = \"超限\", en = \"limit\" }}\n\n",
            n / METERS % POINTS_EACH,
            n % METERS,
        )
        .expect("text can be written");
        text
    })
}

fn account(name: &str) -> Account {
    Account {
        client_id: name.to_owned(),
        user: Some((name.to_owned(), PASSWORD.to_owned())),
        topic: String::new(),
    }
}

/// Values of all meters in turn, at [`TRAFFIC`] messages a second, until the end.
async fn traffic(address: SocketAddr, first: usize, end: Instant) {
    let name = meter_client(first);
    let stream = load::login(address, &account(&name)).await.expect("a meter may log in");
    let (mut reader, mut writer) = stream.into_split();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while let Ok(Some(_)) = wire::read(&mut reader, Version::V311).await {} });
    let every = Duration::from_secs_f64(SPEAKERS_OF_METERS as f64 / TRAFFIC);
    let mut due = Instant::now() + every.mul_f64(first as f64 / SPEAKERS_OF_METERS as f64);
    for n in 0_u32.. {
        sleep_until(due).await;
        due += every;
        if due > end {
            return;
        }
        let meter = first + if n.is_multiple_of(2) { 0 } else { SPEAKERS_OF_METERS };
        // Ten values, none of which any rule minds.
        let values: Vec<String> =
            (0..10).map(|point| format!("\"p{point:02}\":{}", n % 900 + point)).collect();
        let topic = format!("{name}/meter-{meter:03}");
        let payload = format!("{{{}}}", values.join(","));
        let id = u16::try_from(n % 60_000).expect("below") + 1;
        let bytes = Publish::new(&topic, payload, 1, id).encode(Version::V311);
        writer.write_all(&bytes).await.expect("the gateway takes values");
    }
}

type Times = Arc<Mutex<BTreeMap<usize, Instant>>>;

fn note(times: &Times, n: usize) {
    times.lock().expect("nobody panicked").entry(n).or_insert_with(Instant::now);
}

/// The speakers: note when each got its order, and answer that they have played it.
async fn listen(address: SocketAddr, spoken: Times) -> JoinSet<()> {
    let stream = load::login(address, &account("voice")).await.expect("the speakers may log in");
    let (mut reader, mut writer) = stream.into_split();
    writer
        .write_all(&wire::subscribe(Version::V311, 1, "voice/#"))
        .await
        .expect("a subscription can be sent");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok(Some(packet)) = wire::read(&mut reader, Version::V311).await {
            let Packet::Publish(order) = packet else { continue };
            let Some(device) = order.topic.strip_prefix("voice/").and_then(|rest| rest.strip_suffix("/say"))
            else {
                continue;
            };
            let Some(n) = device.strip_prefix("voice-").and_then(|n| n.parse().ok()) else { continue };
            note(&spoken, n);
            played(&mut writer, device, &order.payload).await;
        }
    });
    tasks
}

async fn played(writer: &mut OwnedWriteHalf, device: &str, order: &[u8]) {
    let order: serde_json::Value = serde_json::from_slice(order).expect("an order is JSON");
    let answer = serde_json::json!({ "id": order["id"], "state": "played" }).to_string();
    let publish = Publish::new(&format!("voice/{device}/said"), answer, 0, 0);
    writer.write_all(&publish.encode(Version::V311)).await.expect("the gateway takes the answer");
}

/// Presses every button once; when each was pressed, and when its PUBACK came.
async fn press_all(address: SocketAddr) -> (BTreeMap<usize, Instant>, BTreeMap<usize, Instant>) {
    let stream = load::login(address, &account("help")).await.expect("the buttons may log in");
    let (mut reader, mut writer) = stream.into_split();
    let acknowledged = Times::default();
    let noted = Arc::clone(&acknowledged);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok(Some(packet)) = wire::read(&mut reader, Version::V311).await {
            if let Packet::PubAck { id, .. } = packet {
                note(&noted, usize::from(id) - 1);
            }
        }
    });
    let mut pressed = BTreeMap::new();
    for n in 0..BUTTONS {
        let id = u16::try_from(n + 1).expect("a few hundred");
        let publish = Publish::new(&format!("help/help-{n:03}"), "{\"action\":\"emergency\"}", 1, id);
        pressed.insert(n, Instant::now());
        writer.write_all(&publish.encode(Version::V311)).await.expect("the gateway takes a press");
        sleep(PRESS_EVERY).await;
    }
    sleep(Duration::from_secs(1)).await;
    let acknowledged = acknowledged.lock().expect("nobody panicked").clone();
    (pressed, acknowledged)
}

fn p99_ms(from: &BTreeMap<usize, Instant>, to: &BTreeMap<usize, Instant>) -> f64 {
    let mut all: Vec<f64> = from
        .iter()
        .map(|(n, began)| to.get(n).map_or(f64::INFINITY, |at| (*at - *began).as_secs_f64() * 1_000.0))
        .collect();
    all.sort_by(f64::total_cmp);
    all[all.len() * 99 / 100]
}

/// Presses, with so many rules configured and the traffic running.
async fn alarms(rules: usize) -> Alarms {
    let mut gateway = plan(rules);
    gateway.run().await;
    let address = gateway.mqtt;
    let spoken = Times::default();
    let _listening = listen(address, Arc::clone(&spoken)).await;
    let end = Instant::now() + CALM + PRESS_EVERY * u32::try_from(BUTTONS).expect("some") + LATE;
    let mut meters = JoinSet::new();
    for first in 0..SPEAKERS_OF_METERS {
        meters.spawn(traffic(address, first, end));
    }
    sleep(Duration::from_secs(1)).await;
    let pid = gateway.process().id();
    let (before_s, began) = (cpu_s(pid), Instant::now());
    sleep(CALM).await;
    let messages = began.elapsed().as_secs_f64() * TRAFFIC;
    let traffic_cpu_s = (cpu_s(pid) - before_s) / messages * 10_000.0;
    let (pressed, acknowledged) = press_all(address).await;
    let all = async {
        while rules > 0 && spoken.lock().expect("nobody panicked").len() < BUTTONS {
            sleep(Duration::from_millis(20)).await;
        }
    };
    // Those that never came count as infinitely late.
    timeout(LATE, all).await.ok();
    let spoken = spoken.lock().expect("nobody panicked").clone();
    meters.shutdown().await;
    gateway.stop().await;
    Alarms {
        rules,
        puback_p99_ms: p99_ms(&pressed, &acknowledged),
        speaker_p99_ms: p99_ms(&pressed, &spoken),
        traffic_cpu_s,
    }
}

/// The same load with no rules, with few and with many, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub bare: Alarms,
    pub few: Alarms,
    pub many: Alarms,
}

/// With how many rules each part of a round is measured; the order turns with the rounds, so that none is always first.
const RULES: [usize; 3] = [0, 10, 1_000];

/// The round of that number, from 0.
pub async fn round(number: usize) -> Round {
    let mut found = [None; RULES.len()];
    for step in 0..RULES.len() {
        let which = (number + step) % RULES.len();
        found[which] = Some(alarms(RULES[which]).await);
    }
    let [bare, few, many] = found.map(|alarms| alarms.expect("each was measured"));
    Round { bare, few, many }
}

/// Seconds of `gatehouse rehearse` over the journal of `folder`.
pub fn rehearse_s(config: &Path) -> f64 {
    let began = Instant::now();
    let status = Command::new(program())
        .args(["rehearse", "--json", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .status()
        .expect("the gateway's program starts");
    assert!(status.success(), "rehearse ended with {status}");
    began.elapsed().as_secs_f64()
}
