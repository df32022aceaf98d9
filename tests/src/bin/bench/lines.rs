//! The two lines that are compared, each from devices to a platform's broker: the gateway, and a mosquitto with a
//! bridge. Both get the same load, the same kind of platform and as much room as their settings give.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::gateway::{Gateway, Plan, Uplink};
use gatehouse_tests::mosquitto;
use gatehouse_tests::ports;
use gatehouse_tests::process::Process;
use gatehouse_tests::wait::eventually_ok;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::load::{Account, Fleet};
use crate::sink::Sink;

/// Devices of the compound, as in the comparison of gateways that the bars come from.
pub const DEVICES: usize = 50;
/// Events that one message of the flood makes.
pub const FLOOD_EVENTS: u64 = 32;

/// A pulse that carries everything it says to the platform, so that both lines deliver the same 250 bytes. No rule looks
/// at it: alarms are measured by themselves.
const PROFILE: &str = r#"
kind = "bench"
title = { zh = "压测按钮", en = "bench button" }

[mqtt]
topic = "{base}/{address}"

[events."bench.pressed"]
pointer = "/action"
equals = "emergency"
trigger = "pulse"
category = "emergency"
severity = "critical"
text = { zh = "紧急按钮", en = "emergency button" }
params = { mark = "/mark", text = "/text" }
"#;

/// The pacing of the gateway, opened: reconnection and backlog at once, the backlog just above its bar, so that live events keep
/// their latency.
pub const PACING: &str = "reconnect_max_s = 1\nreconnect_critical_max_s = 1\nbacklog_delay_max_s = 0\n\
                          backlog_per_s = 12000\ninflight = 256\n";

/// Settings of the peer beside its addresses: everything that keeps it from losing messages in an outage.
pub const BRIDGE: &str = "persistence true\nset_tcp_nodelay true\nmax_queued_messages 0\n\
                          max_inflight_messages 1000\n";

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// A gateway: its program.
    Gateway(PathBuf),
    Bridge,
}

/// A mosquitto with a configuration of our own.
#[derive(Debug)]
pub struct Broker {
    pub address: SocketAddr,
    process: Option<Process>,
    folder: TempDir,
}

impl Broker {
    /// Writes the configuration and does not start.
    fn prepare(lines: &str) -> Self {
        let folder = TempDir::new().expect("a folder can be made");
        let address = ports::free();
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        let text = format!(
            "{user}allow_anonymous true\nlog_type error\npersistence_location {}/\nlistener {} 127.0.0.1\n{lines}",
            folder.path().display(),
            address.port()
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).expect("a configuration can be written");
        Self { address, process: None, folder }
    }

    /// A platform's broker: keeps nothing, holds nothing back.
    pub async fn platform() -> Self {
        let mut broker = Self::prepare(
            "persistence false\nset_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n",
        );
        broker.run().await;
        broker
    }

    fn bridge(platform: SocketAddr) -> Self {
        // An address in the configuration of a bridge, and its topics, end what belongs to the listener.
        Self::prepare(&format!(
            "{BRIDGE}connection up\naddress {platform}\ntopic # out 1\ncleansession false\ntry_private true\n\
             notifications false\nrestart_timeout 1\nbridge_protocol_version mqttv311\n"
        ))
    }

    fn spawn(&mut self) {
        let mut command = Command::new(mosquitto::program());
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let log = self.folder.path().join("mosquitto.log");
        self.process = Some(Process::spawn("mosquitto", &mut command, &log));
    }

    pub async fn run(&mut self) {
        self.spawn();
        let address = self.address;
        eventually_ok("mosquitto listens", Duration::from_secs(10), async || {
            TcpStream::connect(address).await
        })
        .await;
    }

    /// SIGTERM, and gone when this returns.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(Duration::from_mins(1)).await;
        }
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("mosquitto runs").id()
    }
}

#[derive(Debug)]
enum Front {
    Gateway(Box<Gateway>, PathBuf),
    Bridge(Broker),
}

/// One line with its platform.
#[derive(Debug)]
pub struct Line {
    pub platform: Broker,
    front: Front,
}

impl Line {
    /// Everything is there and nothing of the line runs, the platform's broker does.
    pub async fn prepare(contender: &Contender) -> Self {
        let platform = Broker::platform().await;
        let front = match contender {
            Contender::Bridge => Front::Bridge(Broker::bridge(platform.address)),
            Contender::Gateway(program) => {
                Front::Gateway(Box::new(gateway(platform.address)), program.clone())
            }
        };
        Self { platform, front }
    }

    /// Runs, and has its connection to the platform.
    pub async fn start(contender: &Contender) -> Self {
        let mut line = Self::prepare(contender).await;
        line.spawn();
        line.await_listening().await;
        line
    }

    pub fn spawn(&mut self) {
        match &mut self.front {
            Front::Gateway(gateway, program) => gateway.spawn(&mut Command::new(&*program)),
            Front::Bridge(broker) => broker.spawn(),
        }
    }

    async fn await_listening(&mut self) {
        let address = self.address();
        eventually_ok("the line listens", Duration::from_secs(20), async || {
            TcpStream::connect(address).await
        })
        .await;
    }

    /// Where devices log in.
    pub fn address(&self) -> SocketAddr {
        match &self.front {
            Front::Gateway(gateway, _) => gateway.mqtt,
            Front::Bridge(broker) => broker.address,
        }
    }

    pub fn pid(&mut self) -> u32 {
        match &mut self.front {
            Front::Gateway(gateway, _) => gateway.process().id(),
            Front::Bridge(broker) => broker.pid(),
        }
    }

    /// A folder on the disk that the line writes to.
    pub fn folder(&self) -> &Path {
        match &self.front {
            Front::Gateway(gateway, _) => gateway.folder(),
            Front::Bridge(broker) => broker.folder.path(),
        }
    }

    pub fn accounts() -> Vec<Account> {
        (0..DEVICES)
            .map(|n| Account {
                client_id: format!("dev{n:02}"),
                user: Some((format!("dev{n:02}"), password(n))),
                topic: format!("dev{n:02}/button"),
            })
            .collect()
    }

    pub async fn fleet(&self) -> Fleet {
        Fleet::connect(self.address(), &Self::accounts()).await
    }

    pub async fn sink(&self) -> Sink {
        Sink::start(self.platform.address).await
    }

    /// Ends the line. It must end well.
    pub async fn stop(&mut self) {
        match &mut self.front {
            Front::Gateway(gateway, _) => gateway.stop().await,
            Front::Bridge(broker) => broker.stop().await,
        }
    }
}

fn password(n: usize) -> String {
    format!("{n:02}f0c6f3f9f6a4b0b8a9d5e1c7b2d4e6")
}

/// A gateway with an account and a button for each device, and for each a message that makes many events at once.
fn gateway(platform: SocketAddr) -> Gateway {
    let mut plan = Plan::new("bench", &format!("mqtt://{platform}"));
    // A million waiting events are kept, not forgotten for space.
    plan.gateway.push_str("[gateway.storage]\nevent_mib = 4096\n");
    plan.buttons.clear();
    plan.sensors.clear();
    plan.uplinks = vec![Uplink { pacing: PACING.to_owned(), ..Uplink::new("street", &plan.uplinks[0].url) }];
    plan.clients = (0..DEVICES).map(|n| (format!("dev{n:02}"), password(n))).collect();
    for n in 0..DEVICES {
        for (id, profile, address) in
            [("button", "bench-button", "button"), ("flood", "bench-flood", "flood")]
        {
            writeln!(
                plan.extra,
                "[devices.{id}-{n:02}]\nprofile = \"{profile}\"\nclient = \"dev{n:02}\"\naddress = \"{address}\"\n\
                 place = {{ building = \"3\", unit = \"2\", floor = 5, household = \"3-2-501\" }}\n"
            )
            .expect("text can be written");
        }
    }
    let gateway = Gateway::prepare(plan);
    let profiles = gateway.folder().join("profiles");
    for (name, text) in [("bench-button", PROFILE.to_owned()), ("bench-flood", flood_profile())] {
        std::fs::write(profiles.join(format!("{name}.toml")), text).expect("a profile can be written");
    }
    gateway
}

/// The same event under many names, all made of one message.
fn flood_profile() -> String {
    let (head, event) = PROFILE.split_once("[events.").expect("the profile has an event");
    let (_, event) = event.split_once("]\n").expect("its table has a name");
    let letters = b'a'..=b'z';
    let names =
        letters.clone().flat_map(|a| letters.clone().map(move |b| format!("{}{}", a as char, b as char)));
    names.zip(0..FLOOD_EVENTS).fold(head.to_owned(), |mut text, (name, _)| {
        write!(text, "[events.\"flood.{name}\"]\n{event}\n").expect("text can be written");
        text
    })
}
