//! The built gateway as a child process, with a configuration folder of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::device::Login;
use crate::faketime::FakeClock;
use crate::pki::{Identity, Pki};
use crate::ports;
use crate::process::Process;
use crate::strace;
use crate::wait::eventually_ok;

/// How long the gateway may take until it listens; under strace and on a busy machine.
const START: Duration = Duration::from_mins(1);

/// Profiles of the tests: what a message carries beside the press comes through to the platform, so that each one can be
/// found again.
const BUTTON_PROFILE: &str = "test-button";
const BUTTON_PROFILE_TEXT: &str = r#"
kind = "button"
title = { zh = "测试按钮", en = "test button" }

[mqtt]
topic = "{base}/{address}"

[events."button.pressed"]
pointer = "/action"
equals = "emergency"
trigger = "pulse"
category = "emergency"
severity = "critical"
text = { zh = "紧急按钮", en = "emergency button" }
params = { n = "/n", marker = "/marker" }
"#;
const SENSOR_PROFILE: &str = "test-meter";
const SENSOR_PROFILE_TEXT: &str = r#"
kind = "meter"
title = { zh = "测试仪表", en = "test meter" }

[mqtt]
topic = "{base}/{address}"

[points.level]
pointer = "/level"
type = "number"
unit = "m"
min = -1000.0
max = 100000000.0

[points.label]
pointer = "/label"
type = "text"
"#;

/// The account that all devices of a test share unless they ask for their own, its topic and its password.
pub const CLIENT: &str = "z2m";
pub const BASE: &str = "zigbee2mqtt";
pub const PASSWORD: &str = "3f0c6f3f9f6a4b0b8a9d5e1c7b2d4e60";

/// The program under test: beside this test's own program, in the same target folder.
pub fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("GATEHOUSE_BIN") {
        return given.into();
    }
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().map(|folder| folder.join("gatehouse")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no gatehouse beside {}: run `cargo build -p gatehouse`", own.display()))
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs `gatehouse` with these arguments to its end.
pub fn command(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().expect("the gateway's program starts")
}

/// One `[uplinks.NAME.mqtt]`.
#[derive(Debug, Clone)]
pub struct Uplink {
    pub name: String,
    pub url: String,
    /// Further lines of its table.
    pub extra: String,
    /// Lines of its pacing, instead of the quick ones of tests.
    pub pacing: String,
}

impl Uplink {
    /// Reconnects within a second, backlog at once and as fast as it goes.
    pub fn new(name: &str, url: &str) -> Self {
        let pacing = "reconnect_max_s = 1\nreconnect_critical_max_s = 1\nbacklog_delay_max_s = 0\n\
                      backlog_per_s = 100000\n"
            .to_owned();
        Self { name: name.to_owned(), url: url.to_owned(), extra: String::new(), pacing }
    }

    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    #[must_use]
    pub fn pacing(mut self, lines: &str) -> Self {
        self.pacing.push_str(lines);
        self.pacing.push('\n');
        self
    }
}

/// What a gateway is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    pub uplinks: Vec<Uplink>,
    /// Buttons under [`CLIENT`], by address; the device's id is the same.
    pub buttons: Vec<String>,
    /// Plain JSON sensors under [`CLIENT`].
    pub sensors: Vec<String>,
    /// Further accounts, with their passwords.
    pub clients: Vec<(String, String)>,
    /// Those of them that may hear what lies under their own base.
    pub listeners: Vec<String>,
    /// Further lines of `[gateway]`.
    pub gateway: String,
    /// Lines of `[buses.lan.broker]`.
    pub broker: String,
    /// Further tables.
    pub extra: String,
}

impl Plan {
    /// Two buttons, a sensor, one uplink.
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            uplinks: vec![Uplink::new("street", url)],
            buttons: vec!["button-1".to_owned(), "button-2".to_owned()],
            sensors: vec!["meter-1".to_owned()],
            clients: Vec::new(),
            listeners: Vec::new(),
            gateway: String::new(),
            broker: "logins_per_s = 1000\n".to_owned(),
            extra: String::new(),
        }
    }
}

/// A gateway: its folder, its addresses, and its process while it runs.
#[derive(Debug)]
pub struct Gateway {
    pub plan: Plan,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    pub tls: Option<SocketAddr>,
    process: Option<Process>,
    /// Last, so that the process can still show its log when it is dropped.
    folder: TempDir,
}

impl Gateway {
    /// Writes the configuration and does not start.
    pub fn prepare(plan: Plan) -> Self {
        let folder = TempDir::new().unwrap();
        let gateway =
            Self { folder, plan, mqtt: ports::free(), http: ports::free(), tls: None, process: None };
        gateway.write();
        gateway
    }

    /// The same with a port for client certificates.
    pub fn prepare_with_tls(plan: Plan, pki: &Pki, server: &Identity) -> Self {
        let mut gateway = Self::prepare(plan);
        let listen = ports::free();
        gateway.tls = Some(listen);
        writeln!(
            gateway.plan.extra,
            "[buses.lan.broker.tls]\nlisten = \"{listen}\"\ncert_file = {:?}\nkey_file = {:?}\n\
             client_ca_file = {:?}",
            server.cert,
            server.key,
            pki.ca()
        )
        .unwrap();
        gateway.write();
        gateway
    }

    /// Starts and waits until it is ready.
    pub async fn start(plan: Plan) -> Self {
        let mut gateway = Self::prepare(plan);
        gateway.run().await;
        gateway
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("gatehouse.toml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Writes the configuration again, after a change of the plan.
    pub fn write(&self) {
        let secrets = self.folder().join("secrets");
        std::fs::create_dir_all(&secrets).unwrap();
        let own = (CLIENT.to_owned(), PASSWORD.to_owned());
        for (name, password) in self.plan.clients.iter().chain([&own]) {
            self.write_secret(name, password);
        }
        let profiles = self.folder().join("profiles");
        std::fs::create_dir_all(&profiles).unwrap();
        for (name, text) in [(BUTTON_PROFILE, BUTTON_PROFILE_TEXT), (SENSOR_PROFILE, SENSOR_PROFILE_TEXT)] {
            std::fs::write(profiles.join(format!("{name}.toml")), text).unwrap();
        }
        std::fs::write(self.config_file(), self.text()).unwrap();
    }

    /// The secret of an account whose table stands in the plan's further tables.
    pub fn write_secret(&self, name: &str, password: &str) {
        let path = self.folder().join("secrets").join(name);
        std::fs::write(&path, format!("{}\n", secret(password))).unwrap();
        restrict(&path);
    }

    fn text(&self) -> String {
        let plan = &self.plan;
        let mut text = format!(
            "[gateway]\nname = \"{}\"\ncompound = \"test compound\"\ndata_dir = \"data\"\n\
             profiles_dir = \"profiles\"\nhttp = \"{}\"\n{}\n\n\
             [buses.lan.broker]\nlisten = \"{}\"\n{}\n\n[clients.{CLIENT}]\nbase = \"{BASE}\"\n",
            plan.name, self.http, plan.gateway, self.mqtt, plan.broker
        );
        for (name, _) in &plan.clients {
            writeln!(text, "\n[clients.{name}]").unwrap();
            if plan.listeners.contains(name) {
                writeln!(text, "subscribe = [\"{name}/#\"]").unwrap();
            }
        }
        let devices = plan.buttons.iter().map(|id| (id, BUTTON_PROFILE));
        for (id, profile) in devices.chain(plan.sensors.iter().map(|id| (id, SENSOR_PROFILE))) {
            writeln!(
                text,
                "\n[devices.{id}]\nprofile = \"{profile}\"\nclient = \"{CLIENT}\"\naddress = \"{id}\"\n\
                 place = {{ building = \"3\", unit = \"2\", floor = 5, household = \"3-2-501\" }}"
            )
            .unwrap();
        }
        for uplink in &plan.uplinks {
            writeln!(
                text,
                "\n[uplinks.{0}.mqtt]\nurl = \"{1}\"\n{2}\n[uplinks.{0}.mqtt.pacing]\n{3}",
                uplink.name, uplink.url, uplink.extra, uplink.pacing
            )
            .unwrap();
        }
        text.push('\n');
        text.push_str(&plan.extra);
        text
    }

    /// Starts the program, and waits until `/healthz` is content.
    pub async fn run(&mut self) {
        let mut command = Command::new(program());
        self.spawn(&mut command);
        self.await_ready().await;
    }

    /// The same under strace, into `output`, with an environment variable if given.
    pub async fn run_traced(&mut self, output: &Path, env: Option<(&str, &str)>) {
        let mut command = strace::command(&program(), output);
        command.envs(env);
        self.spawn(&mut command);
        self.await_ready().await;
    }

    /// The same with a wall clock that the test moves.
    pub async fn run_faked(&mut self, clock: &FakeClock) {
        let mut command = Command::new(program());
        clock.put_into(&mut command);
        self.spawn(&mut command);
        self.await_ready().await;
    }

    /// Starts the program without waiting for anything.
    pub fn spawn(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "the gateway runs already");
        command.arg("run").arg("--config").arg(self.config_file());
        // Its log belongs into the file that a failing test shows.
        command.env("NO_COLOR", "1").env_remove("JOURNAL_STREAM");
        let name = format!("gateway {}", self.plan.name);
        self.process = Some(Process::spawn(&name, command, &self.folder().join("gateway.log")));
    }

    pub async fn await_ready(&mut self) {
        let (http, mqtt) = (self.http, self.mqtt);
        let process = self.process.as_mut().expect("the gateway was started");
        eventually_ok("the gateway is ready", START, async || {
            if let Some(status) = process.ended() {
                panic!("the gateway ended at once ({status})");
            }
            match crate::http::get(http, "/healthz").await {
                Ok((200, _)) => {}
                other => return Err(format!("{other:?}")),
            }
            TcpStream::connect(mqtt).await.map(|_bound| ()).map_err(|error| error.to_string())
        })
        .await;
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway runs")
    }

    /// What it logged, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("gateway.log")).unwrap_or_default()
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.take().expect("the gateway runs").kill();
    }

    /// SIGTERM; how it ended.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the gateway runs");
        process.signal(Signal::TERM);
        process.wait(within).await
    }

    /// SIGTERM, and it must end well.
    pub async fn stop(&mut self) {
        let status = self.terminate(Duration::from_secs(20)).await;
        assert!(status.success(), "the gateway ended with {status}");
    }

    /// How devices of [`CLIENT`] log in.
    pub fn login(&self) -> Login {
        Login::new(self.mqtt, CLIENT, PASSWORD)
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> String {
        let (code, text) = crate::http::get(self.http, "/metrics").await.expect("the metrics can be read");
        assert_eq!(code, 200);
        text
    }

    /// How often something was refused for this reason, whoever it came from.
    pub async fn refused(&self, reason: &str) -> f64 {
        crate::http::series(&self.metrics().await, "gatehouse_refused_total", &[("reason", reason)])
    }

    /// Waits until the gateway says that every uplink has everything, as two looks at a distance agree: a record that
    /// was just stored is counted a moment later.
    pub async fn await_delivered(&self) {
        let mut calm = 0;
        eventually_ok("everything is delivered", Duration::from_mins(1), async || {
            let metrics = self.metrics().await;
            let pending = crate::http::series(&metrics, "gatehouse_pending_records", &[]);
            calm = if pending < 0.5 { calm + 1 } else { 0 };
            // The board and its gauges are written four times a second.
            if calm > 20 { Ok(()) } else { Err(format!("{pending} records pending")) }
        })
        .await;
    }

    /// The same while it may not be there; none then.
    pub fn try_status(&self) -> Option<Value> {
        let output = self.gatehouse(&["status", "--json"]);
        if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
    }

    /// What `gatehouse status --json` says.
    pub fn status(&self) -> Value {
        let output = self.gatehouse(&["status", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "status failed: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("status is no JSON ({error}): {text}"))
    }

    /// Runs a command of the program on this gateway's configuration.
    pub fn gatehouse(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).arg("--config").arg(self.config_file());
        command.output().expect("the gateway's program starts")
    }

    /// The journal's records as `gatehouse journal export` gives them.
    pub fn journal(&self) -> Vec<Value> {
        let folder = self.data_dir();
        let output = command(&["journal", "export", "--data-dir", folder.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "export failed: {}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A secret's file as `gatehouse client add` writes it: the hash of a generated secret.
fn secret(password: &str) -> String {
    let digest = Sha256::digest(password.as_bytes());
    digest.iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"))
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
