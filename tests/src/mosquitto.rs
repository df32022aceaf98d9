//! Mosquitto as the platform's broker, or as one on the local network: a real one, on free ports. Nothing is kept over a
//! restart unless a test asks for it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::pki::{Identity, Pki};
use crate::ports;
use crate::process::Process;
use crate::wait::eventually_ok;

/// Debian puts it where an ordinary user's PATH does not look.
const PROGRAMS: [&str; 3] =
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];

/// How long it may take to start or end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker that can be killed and started again under the same address.
#[derive(Debug)]
pub struct Mosquitto {
    process: Option<Process>,
    plain: SocketAddr,
    websocket: Option<SocketAddr>,
    websocket_tls: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    /// Last, so that the process can still show its log when it is dropped.
    folder: TempDir,
}

/// What it offers.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// A listener for MQTT in WebSocket.
    pub websocket: bool,
    /// The same over TLS, by this certificate; clients need none.
    pub websocket_tls: Option<&'a Identity>,
    /// Messages that it sends without an acknowledgement; no limit if not given, see the configuration below.
    pub inflight: Option<u16>,
    /// Sessions and their queues outlive the process, as far as it ended well.
    pub persistent: bool,
    /// A listener that asks for a client certificate, whose common name becomes the user name.
    pub tls: Option<(&'a Pki, &'a Identity)>,
    /// Users with passwords; the others stay anonymous.
    pub users: Vec<(&'a str, &'a str)>,
    /// Lines of the access list. Without any, everything is allowed.
    pub acl: Option<String>,
}

/// The rights of one gateway, as docs/platform states them; anonymous listeners may read everything.
pub fn contract_acl(root: &str, gateway: &str, user: &str) -> String {
    format!(
        "topic readwrite #\n\nuser {user}\ntopic write {root}/v1/{gateway}/up/#\n\
         topic read {root}/v1/{gateway}/down/#\ntopic read {root}/v1/{gateway}/up/state\n"
    )
}

/// Where mosquitto is.
pub fn program() -> PathBuf {
    let found = PROGRAMS.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from("mosquitto"))
}

impl Mosquitto {
    /// One plain listener.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    pub async fn start_with(options: &Options<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let plain = ports::free();
        let websocket = options.websocket.then(ports::free);
        let websocket_tls = options.websocket_tls.map(|_| ports::free());
        let tls = options.tls.map(|_| ports::free());
        let mut broker = Self { folder, process: None, plain, websocket, websocket_tls, tls };
        std::fs::write(broker.folder.path().join("mosquitto.conf"), broker.config(options)).unwrap();
        broker.run().await;
        broker
    }

    /// Address of the plain listener.
    pub const fn address(&self) -> SocketAddr {
        self.plain
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.plain)
    }

    pub fn websocket_url(&self) -> String {
        format!("ws://{}/mqtt", self.websocket.expect("asked for a WebSocket listener"))
    }

    /// Address of the WebSocket listener.
    pub fn websocket(&self) -> SocketAddr {
        self.websocket.expect("asked for a WebSocket listener")
    }

    /// By name, since certificates name hosts.
    pub fn websocket_tls_url(&self) -> String {
        let address = self.websocket_tls.expect("asked for a WebSocket listener with TLS");
        format!("wss://localhost:{}/mqtt", address.port())
    }

    /// By name, since certificates name hosts.
    pub fn tls_url(&self) -> String {
        format!("mqtts://localhost:{}", self.tls.expect("asked for a TLS listener").port())
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], and waits until it takes connections.
    pub async fn run(&mut self) {
        assert!(self.process.is_none(), "mosquitto runs already");
        let mut command = Command::new(program());
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let mut process =
            Process::spawn("mosquitto", &mut command, &self.folder.path().join("mosquitto.log"));
        let addresses: Vec<SocketAddr> =
            [Some(self.plain), self.websocket, self.websocket_tls, self.tls].into_iter().flatten().collect();
        eventually_ok("mosquitto listens", PATIENCE, async || {
            if let Some(status) = process.ended() {
                panic!("mosquitto ended at once ({status}): {}", process.output());
            }
            for address in &addresses {
                TcpStream::connect(address).await?;
            }
            Ok::<_, std::io::Error>(())
        })
        .await;
        self.process = Some(process);
    }

    /// SIGTERM, and gone when this returns.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("mosquitto runs");
        process.signal(Signal::TERM);
        process.wait(PATIENCE).await;
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.take().expect("mosquitto runs").kill();
    }

    /// Takes away what it had saved, while it does not run.
    pub fn forget(&mut self) {
        assert!(self.process.is_none(), "mosquitto runs");
        std::fs::remove_file(self.folder.path().join("mosquitto.db")).expect("mosquitto has saved something");
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("mosquitto.log")).unwrap_or_default()
    }

    fn config(&self, options: &Options<'_>) -> String {
        let mut text = common(self.folder.path(), options);
        writeln!(text, "listener {} 127.0.0.1", self.plain.port()).unwrap();
        if let Some(address) = self.websocket {
            writeln!(text, "listener {} 127.0.0.1\nprotocol websockets", address.port()).unwrap();
        }
        if let (Some(address), Some(identity)) = (self.websocket_tls, options.websocket_tls) {
            let (cert, key) = (identity.cert.display(), identity.key.display());
            writeln!(
                text,
                "listener {} 127.0.0.1\nprotocol websockets\ncertfile {cert}\nkeyfile {key}",
                address.port()
            )
            .unwrap();
        }
        if let (Some(address), Some((pki, identity))) = (self.tls, options.tls) {
            let (ca, cert, key) = (pki.ca(), identity.cert.display(), identity.key.display());
            writeln!(
                text,
                "listener {} 127.0.0.1\ncafile {}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n\
                 use_identity_as_username true",
                address.port(),
                ca.display()
            )
            .unwrap();
        }
        text
    }
}

/// What holds for all listeners.
fn common(folder: &Path, options: &Options<'_>) -> String {
    // Without limits a message goes to its readers before its PUBACK goes to its sender: what the gateway counts as
    // delivered has then left this process too, and killing it loses nothing that a test counts.
    let mut text = String::from(
        "allow_anonymous true\nset_tcp_nodelay true\nlog_type all\n\
         max_queued_messages 0\n",
    );
    writeln!(text, "max_inflight_messages {}", options.inflight.unwrap_or(0)).unwrap();
    if options.persistent {
        writeln!(text, "persistence true\npersistence_location {}/", folder.display()).unwrap();
    } else {
        text.push_str("persistence false\n");
    }
    if rustix::process::getuid().is_root() {
        text.push_str("user root\n");
    }
    if !options.users.is_empty() {
        let path = folder.join("passwords");
        std::fs::write(&path, "").unwrap();
        for (user, password) in &options.users {
            let mut command = Command::new("mosquitto_passwd");
            let status = command.arg("-b").arg(&path).args([user, password]).status();
            assert!(status.expect("mosquitto_passwd runs").success(), "mosquitto_passwd failed");
        }
        writeln!(text, "password_file {}", path.display()).unwrap();
    }
    if let Some(acl) = &options.acl {
        let path = folder.join("acl");
        std::fs::write(&path, acl).unwrap();
        writeln!(text, "acl_file {}", path.display()).unwrap();
    }
    text
}
