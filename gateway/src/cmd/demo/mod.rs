//! `gatehouse demo`: a platform's broker, a compound of real MQTT clients, a Modbus module, a speaker and the gateway in one
//! process; an outage in the middle, in which a button is pressed and the speaker speaks; an operator who takes that alarm
//! when the line is back; and the sum at the end.

mod compound;
mod field;
mod guard;
mod operator;
mod platform;
mod proxy;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::compound::{Account, Said, Talker};
use self::field::Module;
use self::guard::Speaker;
use self::platform::PlatformBroker;
use self::proxy::Cable;
use self::view::{Received, View};
use super::run::Daemon;
use crate::config::{self, BusConfig, Loaded, UplinkTable};
use crate::model::command::is_tick;
use crate::model::ids::ClientName;
use crate::model::record::{Body, Class};
use crate::rt::board::MemoryStatus;
use crate::south::broker::secrets::{Secret, write_secret};
use crate::store::Read;

/// The demo's compound, as any configuration.
const CONFIG: &str = include_str!("../../../../config/examples/demo/gatehouse.toml");
const RULES: &str = include_str!("../../../../config/examples/demo/rules/emergency.toml");

/// The button that is pressed once, its account, and that of the speaker.
const CLINIC_BUTTON: &str = "sos-clinic";
const CLINIC: &str = "clinic";
const GUARD_ROOM: &str = "guard-room";
/// When it is pressed: the uplink is cut since [`CUT_AFTER`].
const PRESS_AFTER: Duration = Duration::from_secs(10);

/// When the uplink is cut, and for how long.
const CUT_AFTER: Duration = Duration::from_secs(8);
const CUT_FOR: Duration = Duration::from_secs(6);
/// How long the rest may take to arrive after the devices have fallen silent.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Records read from the journal at once.
const PAGE_RECORDS: usize = 1_000;
const SHOW_EVERY: Duration = Duration::from_millis(250);
const SUM_EVERY: Duration = Duration::from_secs(2);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End by itself after this time, for example 30s; until Ctrl-C if not given.
    #[arg(long = "for", value_name = "TIME", value_parser = super::span)]
    runs_for: Option<Duration>,
    /// Where the journal stands, for example on a small disk that you fill meanwhile; must hold no journal yet. In a
    /// folder of its own, removed at the end, if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What happened, at the end.
#[derive(Debug, Default)]
struct Sum {
    sent: u64,
    acknowledged: u64,
    stored: u64,
    delivered: u64,
    duplicated: u64,
    lost: u64,
    /// Presses that a device was told are safe, and are in no journal.
    forgotten: u64,
    memory: MemoryStatus,
    /// Presses at the Modbus module, and those of them that were recorded.
    pressed: u64,
    pressed_recorded: u64,
    /// The alarm of the clinic's button; none where the demo ended before.
    help: Option<Help>,
}

/// What became of the call for help while the uplink was cut.
#[derive(Debug, Default)]
struct Help {
    /// The speaker spoke before the line was back.
    spoken_in_time: bool,
    /// The platform saw the alarm acknowledged, handled and closed.
    over: bool,
    life: Vec<String>,
}

/// Runs the demo; an error if anything was lost.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub async fn run(args: Args) -> anyhow::Result<()> {
    let folder = Folder::make()?;
    if let Some(dir) = &args.data_dir
        && dir.join("journal.db").exists()
    {
        bail!("{} holds a journal already; give the demo a directory of its own", dir.display());
    }
    let sum = scene(&folder.path, args.data_dir, args.runs_for).await?;
    println!();
    println!("messages sent by devices 设备发送      {:>8}", sum.sent);
    println!("acknowledged to devices 已应答         {:>8}", sum.acknowledged);
    println!("presses at the Modbus module 总线按钮  {:>8}", sum.pressed);
    println!("of them recorded 其中已记录            {:>8}", sum.pressed_recorded);
    println!("records on disk 已落盘                 {:>8}", sum.stored);
    println!("delivered to the platform 已送达       {:>8}", sum.delivered);
    println!("delivered again, same id 重复送达      {:>8}", sum.duplicated);
    println!("lost 丢失                              {:>8}", sum.lost);
    println!("acknowledged and not on disk 应答后丢失 {:>7}", sum.forgotten);
    if let Some(help) = &sum.help {
        println!("the call for help from the clinic, as the platform saw it 诊所求助的全过程:");
        for line in &help.life {
            println!("{line}");
        }
    }
    let memory = &sum.memory;
    if memory.losses > 0 {
        let dropped: u64 = memory.dropped.values().sum();
        println!("disk lost 磁盘失效, times              {:>8}", memory.losses);
        println!("  stored when it was back 补存         {:>8}", memory.stored);
        println!("  told from memory 内存直报            {:>8}", memory.told);
        println!("  dropped, memory full 内存满丢弃      {dropped:>8}");
    }
    if memory.lost_since_mono_ms.is_some() {
        bail!("the journal's disk is still lost: {} records end with this demo's memory", memory.kept);
    }
    if sum.lost > 0 || sum.forgotten > 0 || sum.stored == 0 {
        bail!("{} of {} records and {} acknowledged presses were lost", sum.lost, sum.stored, sum.forgotten);
    }
    if sum.pressed != sum.pressed_recorded {
        bail!("{} presses at the Modbus module, {} recorded", sum.pressed, sum.pressed_recorded);
    }
    if let Some(help) = sum.help.filter(|help| !help.spoken_in_time || !help.over) {
        bail!(
            "the call for help: spoken while the uplink was cut: {}; acknowledged, handled and closed: {}",
            help.spoken_in_time,
            help.over
        );
    }
    Ok(())
}

/// A folder for this run alone, removed at its end.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("gatehouse-demo-{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("the demo's folder {} could not be made", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the demo's folder stays behind");
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
async fn scene(folder: &Path, data_dir: Option<PathBuf>, runs_for: Option<Duration>) -> anyhow::Result<Sum> {
    let platform = PlatformBroker::start().await?;
    let cable = Cable::lay(platform.address).await.context("the demo's uplink could not be laid")?;
    let mut module = Module::start().await.context("the demo's Modbus module could not be started")?;
    let Prepared { mut loaded, mut accounts, port } = prepare(folder, &cable, &module)?;
    if let Some(dir) = data_dir {
        loaded.settings.gateway.data_dir = dir;
    }
    let root = loaded.settings.uplinks.values().map(|UplinkTable::Mqtt(uplink)| uplink.root.clone()).next();
    let gateway = loaded.settings.gateway.name.clone();
    let view = View::open(platform.address, &root.unwrap_or_default(), &gateway).await?;
    println!(
        "compound 小区: {} devices, {} accounts; gateway on 127.0.0.1:{port}; platform on {}",
        loaded.settings.devices.len(),
        accounts.len(),
        platform.address
    );
    let mut daemon = Daemon::start(&loaded)?;
    daemon.ready().await;
    let mut take = |name: &str| {
        let name = ClientName::new(name)?;
        let account = accounts.remove(&name).with_context(|| format!("the demo has no account {name}"))?;
        Ok::<_, anyhow::Error>((name, account))
    };
    let ((clinic, clinic_account), (guard, guard_account)) = (take(CLINIC)?, take(GUARD_ROOM)?);
    let speaker = Speaker::start(port, &guard, &guard_account)?;
    let mut scenario = Scenario {
        press: Some((port, clinic, clinic_account)),
        pressing: JoinSet::new(),
        speaker,
        help: None,
    };
    let hush = CancellationToken::new();
    let (mut devices, said) = compound::start(port, accounts, &hush, fastrand::u64(..));
    module.animate(&hush, fastrand::u64(..));

    watch(&view, &cable, &daemon, &mut scenario, runs_for).await?;
    cable.mend();
    hush.cancel();
    while devices.join_next().await.is_some() {}
    module.settle().await;
    drain(&view, &daemon, &cable, &mut scenario).await?;

    let stored = stored(&daemon)?;
    let memory = daemon.board().snapshot().store.memory;
    let mut sum = sum_up(&said, &stored, &view.received(), memory);
    sum.pressed = module.presses();
    sum.pressed_recorded = stored.presses.get(field::BUTTON).copied().unwrap_or_default();
    sum.help = scenario.help.take();
    if let Some(help) = &mut sum.help {
        let received = view.received();
        let alarm = received.lives.alarm_of(CLINIC_BUTTON).map(str::to_owned).unwrap_or_default();
        (help.life, help.over) = (received.lives.life(&alarm), received.lives.is_over(&alarm));
    }
    daemon.stop().await?;
    scenario.pressing.shutdown().await;
    scenario.speaker.remove().await;
    module.remove().await;
    view.close().await;
    cable.remove().await;
    Ok(sum)
}

fn sum_up(said: &Said, stored: &Stored, received: &Received, memory: MemoryStatus) -> Sum {
    let held = |device: &String| stored.presses.get(device).copied().unwrap_or(0);
    let missing = |(device, acknowledged): (&String, &u64)| acknowledged.saturating_sub(held(device));
    Sum {
        sent: said.sent.load(Ordering::SeqCst),
        acknowledged: said.acknowledged.load(Ordering::SeqCst),
        stored: stored.ids.len() as u64,
        delivered: received.ids.keys().filter(|id| stored.ids.contains(*id)).count() as u64,
        duplicated: received.duplicates(),
        lost: received.missing(&stored.ids).len() as u64,
        forgotten: said.presses().iter().map(missing).sum(),
        memory,
        ..Sum::default()
    }
}

/// A configuration with this run's ports, and who logs in to it.
#[derive(Debug)]
struct Prepared {
    loaded: Loaded,
    accounts: BTreeMap<ClientName, Account>,
    port: u16,
}

/// Writes configuration and secrets, and puts this run's ports in.
fn prepare(folder: &Path, cable: &Cable, module: &Module) -> anyhow::Result<Prepared> {
    let secrets = folder.join("secrets");
    fs::create_dir(&secrets)?;
    fs::create_dir(folder.join("rules"))?;
    fs::write(folder.join("gatehouse.toml"), CONFIG)?;
    fs::write(folder.join("rules/emergency.toml"), RULES)?;
    // Names of the accounts are needed to make their secrets, which `load` wants to see.
    let table: toml::Table = CONFIG.parse().context("the demo's configuration is no TOML")?;
    let names =
        table.get("clients").and_then(toml::Value::as_table).map(|t| t.keys().cloned().collect::<Vec<_>>());
    let mut keys = BTreeMap::new();
    for name in names.unwrap_or_default() {
        let (text, secret) = Secret::generate()?;
        write_secret(&secrets.join(&name), &secret, false)?;
        keys.insert(ClientName::new(&name)?, text);
    }
    let mut loaded = config::load(folder)?;
    let port = free_port()?;
    for bus in loaded.settings.buses.values_mut() {
        match bus {
            BusConfig::Broker(broker) => broker.listen = Some(([127, 0, 0, 1], port).into()),
            BusConfig::Modbus(modbus) => modbus.tcp = Some(module.address.to_string()),
            BusConfig::Mqtt(_) => {}
        }
    }
    for UplinkTable::Mqtt(uplink) in loaded.settings.uplinks.values_mut() {
        uplink.url = format!("mqtt://{}", cable.address);
    }
    loaded.settings.gateway.data_dir = folder.join("data");
    loaded.settings.gateway.socket = Some(folder.join("gatehouse.sock"));
    loaded.settings.gateway.http = None;
    let accounts = accounts(&loaded, keys);
    Ok(Prepared { loaded, accounts, port })
}

fn accounts(loaded: &Loaded, keys: BTreeMap<ClientName, String>) -> BTreeMap<ClientName, Account> {
    let mut accounts = BTreeMap::new();
    for (name, secret) in keys {
        let base = loaded.settings.clients.get(&name).and_then(|client| client.base.clone());
        let base = base.unwrap_or_else(|| name.to_string());
        let devices =
            loaded.settings.devices.iter().filter(|(_, device)| device.client.as_ref() == Some(&name));
        let talkers = devices.filter_map(|(id, device)| {
            let template = loaded.profiles.get(&device.profile)?.mqtt.as_ref()?.topic.clone();
            let topic = template.replace("{base}", &base).replace("{address}", device.address.as_ref()?);
            Some(Talker { id: id.to_string(), topic, profile: device.profile.to_string() })
        });
        let account = Account { secret, talkers: talkers.collect() };
        accounts.insert(name, account);
    }
    accounts
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The call for help: a button that is pressed while the uplink is cut, the speaker that speaks then, and the operator
/// who takes the alarm afterwards.
#[derive(Debug)]
struct Scenario {
    /// The broker's port and the button's account, until it was pressed.
    press: Option<(u16, ClientName, Account)>,
    pressing: JoinSet<()>,
    speaker: Speaker,
    help: Option<Help>,
}

impl Scenario {
    #[expect(clippy::print_stdout, reason = "the command's output")]
    async fn go_on(&mut self, age: Duration, cable: &Cable, view: &View) -> anyhow::Result<()> {
        if age >= PRESS_AFTER
            && let Some((port, name, account)) = self.press.take()
        {
            self.pressing.spawn(guard::press(port, name, account));
            println!("== the clinic's button is pressed 诊所按下紧急按钮 ==");
            self.help = Some(Help::default());
        }
        for text in self.speaker.take() {
            println!("  speaker 音箱  “{text}”, uplink {}", if cable.is_whole() { "up" } else { "DOWN" });
            if let Some(help) = &mut self.help {
                help.spoken_in_time |= !cable.is_whole();
            }
        }
        if cable.is_whole() && self.help.is_some() {
            let order = {
                let lives = &mut view.received().lives;
                let alarm = lives.alarm_of(CLINIC_BUTTON).map(str::to_owned);
                alarm.and_then(|alarm| lives.next_order(&alarm, Instant::now()))
            };
            if let Some(order) = order {
                println!("  operator 值班员  {}", order["command"].as_str().unwrap_or_default());
                view.order(&order).await?;
            }
        }
        Ok(())
    }
}

/// Shows what arrives, cuts and mends, until the time is over or Ctrl-C.
#[expect(clippy::print_stdout, reason = "the command's output")]
async fn watch(
    view: &View,
    cable: &Cable,
    daemon: &Daemon,
    scenario: &mut Scenario,
    runs_for: Option<Duration>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut next_sum, mut was_cut) = (began + SUM_EVERY, false);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            pressed = &mut interrupt => return pressed.context("Ctrl-C could not be listened for"),
            () = tokio::time::sleep(SHOW_EVERY) => {}
        }
        show(view);
        let age = began.elapsed();
        if !was_cut && age >= CUT_AFTER {
            cable.cut();
            was_cut = true;
            println!("== the uplink is cut 上行中断 ==");
        }
        if !cable.is_whole() && age >= CUT_AFTER + CUT_FOR {
            cable.mend();
            println!("== the uplink is restored 上行恢复 ==");
        }
        scenario.go_on(age, cable, view).await?;
        if Instant::now() >= next_sum {
            next_sum += SUM_EVERY;
            println!("-- {} s: {}", age.as_secs(), progress(view, daemon));
        }
        if runs_for.is_some_and(|limit| age >= limit) {
            return Ok(());
        }
    }
}

fn progress(view: &View, daemon: &Daemon) -> String {
    let board = daemon.board().snapshot();
    let waiting: u64 = board
        .uplinks
        .values()
        .flat_map(|uplink| uplink.pending.values())
        .map(|pending| pending.records)
        .sum();
    let connected = board.uplinks.values().all(|uplink| uplink.connected);
    let received = view.received();
    format!(
        "delivered 已送达 {}, of them backlog 其中补传 {}, waiting 待送 {waiting}, uplink {}",
        received.ids.len(),
        received.replayed,
        if connected { "up" } else { "DOWN" }
    )
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn show(view: &View) {
    for line in view.received().take_lines() {
        println!("{line}");
    }
}

/// Waits until everything stored has arrived, and the operator is done.
async fn drain(view: &View, daemon: &Daemon, cable: &Cable, scenario: &mut Scenario) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN_MAX;
    while Instant::now() < deadline {
        show(view);
        scenario.go_on(Duration::ZERO, cable, view).await?;
        let busy = scenario.help.is_some() && {
            let received = view.received();
            !received.lives.alarm_of(CLINIC_BUTTON).is_some_and(|alarm| received.lives.is_over(alarm))
        };
        if !busy
            && let Ok(stored) = stored(daemon)
            && view.received().missing(&stored.ids).is_empty()
        {
            return Ok(());
        }
        tokio::time::sleep(SHOW_EVERY).await;
    }
    Ok(())
}

/// What stands in the journal: the id of every record, and how many presses of each button.
#[derive(Debug, Default)]
struct Stored {
    ids: BTreeSet<String>,
    presses: BTreeMap<String, u64>,
}

fn stored(daemon: &Daemon) -> anyhow::Result<Stored> {
    let reader = daemon.store().reader()?;
    let mut stored = Stored::default();
    for class in Class::ALL {
        let head = reader.heads()?.of(class);
        let mut next = head.first;
        while next <= head.last {
            let page = reader.read(class, next, head.last, PAGE_RECORDS, usize::MAX)?;
            let Some(last) = page.last() else { break };
            next = last.seq() + 1;
            for record in page.into_iter().filter_map(Read::into_record) {
                if let Body::Event(event) = &record.body
                    && event.name == "button.pressed"
                {
                    *stored.presses.entry(event.device.id.to_string()).or_default() += 1;
                }
                // Ticks of the pipeline go to nobody.
                if !is_tick(&record) {
                    stored.ids.insert(record.id());
                }
            }
        }
    }
    Ok(stored)
}
