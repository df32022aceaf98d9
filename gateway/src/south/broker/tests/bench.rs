//! A broker on free ports, a journal that can be made to fail, and a client that speaks MQTT 3.1.1 or 5 by hand, so
//! that it can also say what no library would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::model::ids::BusName;
use crate::model::journal::{Committed, Durability, Journal, JournalError};
use crate::model::record::{Body, Draft};
use crate::model::refusal::Refusal;
use crate::rt::board::Board;
use crate::rt::clock::SystemClock;
use crate::rt::keeper::Evidence;
use crate::rt::metrics::Metrics;
use crate::south::broker::secrets::{Secret, write_secret};
use crate::south::broker::{Bound, Broker, BrokerError, Deps, Setup};
use crate::south::profile::shipped_profiles;

pub(in crate::south) const WORKS: u8 = 0;
pub(in crate::south) const FAILS: u8 = 1;
pub(in crate::south) const HANGS: u8 = 2;
/// Keeps in memory what it is given, and says so.
pub(in crate::south) const VOLATILE: u8 = 3;

/// A journal in memory.
#[derive(Debug, Default)]
pub(in crate::south) struct FakeJournal {
    pub(in crate::south) mode: AtomicU8,
    kept: Mutex<Vec<(Draft, Durability)>>,
    /// What was kept while it said "in memory only": known when it is said again.
    volatile: Mutex<Vec<Draft>>,
}

#[async_trait]
impl Journal for FakeJournal {
    async fn append(&self, drafts: Vec<Draft>, durability: Durability) -> Result<Committed, JournalError> {
        match self.mode.load(Ordering::SeqCst) {
            FAILS => return Err(JournalError::Disk("no space".to_owned())),
            HANGS => std::future::pending().await,
            _ => {}
        }
        let lost = self.mode.load(Ordering::SeqCst) == VOLATILE;
        let mut volatile = self.volatile.lock().unwrap();
        for draft in drafts {
            if volatile.contains(&draft) {
                continue;
            }
            if lost {
                volatile.push(draft.clone());
            }
            self.kept.lock().unwrap().push((draft, durability));
        }
        if lost {
            return Err(JournalError::Volatile);
        }
        Ok(Committed { last_pos: 1, repeated: 0 })
    }
}

impl FakeJournal {
    /// Everything that is stored.
    pub(in crate::south) fn drafts(&self) -> Vec<Draft> {
        self.kept.lock().unwrap().iter().map(|(draft, _)| draft.clone()).collect()
    }

    /// What is stored: names of events with their device, `values` for values. Not the `device.online` of first words,
    /// which comes with nearly everything.
    pub(in crate::south) fn stored(&self) -> Vec<(String, Durability)> {
        let name = |draft: &Draft| match &draft.body {
            Body::Event(event) => format!("{} {}", event.device.id, event.name),
            Body::Telemetry(telemetry) => format!("{} values", telemetry.device.id),
            other => format!("{other:?}"),
        };
        let kept = self.kept.lock().unwrap();
        let named = kept.iter().map(|(draft, durability)| (name(draft), *durability));
        named.filter(|(name, _)| !name.ends_with(" device.online")).collect()
    }

    pub(in crate::south) fn events(&self) -> Vec<String> {
        self.stored().into_iter().map(|(name, _)| name).filter(|name| !name.ends_with(" values")).collect()
    }
}

pub(super) struct Bench {
    pub(super) journal: Arc<FakeJournal>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    pub(super) broker: Arc<Broker>,
    pub(super) bound: Bound,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) directory: tempfile::TempDir,
    cancel: CancellationToken,
    runs: JoinSet<Result<(), BrokerError>>,
}

#[derive(serde::Deserialize)]
struct Part {
    broker: crate::south::broker::config::BrokerConfig,
    clients: BTreeMap<crate::model::ids::ClientName, crate::south::broker::config::ClientConfig>,
    devices: BTreeMap<crate::model::ids::DeviceId, crate::south::device::DeviceConfig>,
}

/// Two clients: `z2m` with a button, a sensor and a contact, and `other` with a button.
pub(super) const COMPOUND: &str = r#"
    [broker]
    listen = "127.0.0.1:0"
    commit_timeout_ms = 500
    [clients.z2m]
    base = "zigbee2mqtt"
    client_id = "z2m-1"
    subscribe = ["zigbee2mqtt/+/set", "zigbee2mqtt/bridge/#"]
    [clients.other]
    [devices.b1]
    profile = "z2m-button-sos"
    client = "z2m"
    address = "一楼/button"
    [devices.t1]
    profile = "json-sensor"
    client = "z2m"
    address = "hall"
    [devices.bridge]
    profile = "z2m-bridge"
    client = "z2m"
    address = "bridge"
    [devices.b2]
    profile = "z2m-button-action"
    client = "other"
    address = "b2"
"#;

pub(super) const BUTTON: &str = "zigbee2mqtt/一楼/button";
pub(super) const PRESS: &[u8] = br#"{"sos":true}"#;

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(COMPOUND).await
    }

    pub(super) async fn with(text: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), text).await
    }

    pub(super) async fn within(directory: tempfile::TempDir, text: &str) -> Self {
        let part: Part = toml::from_str(text).unwrap();
        let mut secrets = BTreeMap::new();
        for name in part.clients.keys() {
            let (plain, secret) = Secret::generate().unwrap();
            write_secret(&directory.path().join(name.as_str()), &secret, false).unwrap();
            secrets.insert(name.as_str().to_owned(), plain);
        }
        let profiles = shipped_profiles().unwrap();
        let setup = Setup {
            bus: BusName::new("lan").unwrap(),
            config: part.broker,
            clients: part.clients,
            devices: part.devices,
            profiles: profiles.into_iter().map(|(name, profile)| (name, Arc::new(profile))).collect(),
            secrets_dir: directory.path().to_owned(),
        };
        let journal = Arc::new(FakeJournal::default());
        let (metrics, board) = (Arc::new(Metrics::new()), Arc::new(Board::new()));
        let deps = Deps {
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            clock: Arc::new(SystemClock::new(Evidence::default())),
            metrics: Arc::clone(&metrics),
            board: Arc::clone(&board),
        };
        let broker = Arc::new(Broker::new(setup, deps).unwrap());
        let mut bench = Self {
            journal,
            metrics,
            board,
            broker,
            bound: Bound { plain: None, tls: None },
            secrets,
            directory,
            cancel: CancellationToken::new(),
            runs: JoinSet::new(),
        };
        bench.start().await;
        bench
    }

    pub(super) async fn start(&mut self) {
        self.cancel = CancellationToken::new();
        let (bound_tx, bound_rx) = tokio::sync::oneshot::channel();
        let (broker, cancel) = (Arc::clone(&self.broker), self.cancel.clone());
        self.runs.spawn(async move { broker.run(cancel, |bound| bound_tx.send(bound).unwrap()).await });
        self.bound = bound_rx.await.unwrap();
    }

    pub(super) async fn stop(&mut self) {
        self.cancel.cancel();
        self.runs.join_next().await.unwrap().unwrap().unwrap();
    }

    pub(super) fn plain(&self) -> SocketAddr {
        self.bound.plain.unwrap()
    }

    /// A client of `name`, logged in by MQTT 3.1.1.
    pub(super) async fn client(&self, name: &str) -> Client<TcpStream> {
        self.client_at(name, 4).await
    }

    pub(super) async fn client_at(&self, name: &str, level: u8) -> Client<TcpStream> {
        let id = if name == "z2m" { "z2m-1" } else { name };
        let mut client = Client::new(TcpStream::connect(self.plain()).await.unwrap(), level);
        let connect =
            Connect { id, user: Some(name), password: Some(&self.secrets[name]), ..Connect::default() };
        assert_eq!(client.connect(connect).await, Some(0), "{name} could not log in");
        client
    }

    pub(super) fn refusals(&self, source: &str, reason: Refusal) -> u64 {
        let counts = self.metrics.refusals();
        let wanted = |labels: &[String]| {
            labels.iter().any(|l| l == source) && labels.iter().any(|l| l == reason.as_str())
        };
        counts.iter().filter(|count| wanted(&count.labels)).map(|count| count.count).sum()
    }

    /// Waits until something is so, at most ten seconds.
    pub(super) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "never happened: {what}; stored {:?}, refused {:?}",
            self.journal.stored(),
            self.metrics.refusals()
        );
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Connect<'a> {
    pub(super) id: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) will: Option<(&'a str, &'a [u8])>,
    pub(super) keep_session: bool,
}

/// An MQTT client by hand.
pub(super) struct Client<S> {
    pub(super) stream: S,
    level: u8,
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(bytes);
}

fn frame(header: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![header];
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(stream: S, level: u8) -> Self {
        Self { stream, level }
    }

    /// The code of the CONNACK; none if the connection was closed instead.
    pub(super) async fn connect(&mut self, connect: Connect<'_>) -> Option<u8> {
        let mut body = b"\x00\x04MQTT".to_vec();
        let flags = [
            (connect.user.is_some(), 0x80),
            (connect.password.is_some(), 0x40),
            (connect.will.is_some(), 0x0c),
            (!connect.keep_session, 0x02),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, bit)| flags | bit);
        body.extend_from_slice(&[self.level, flags, 0, 60]);
        self.properties(&mut body);
        text(&mut body, connect.id.as_bytes());
        if let Some((topic, payload)) = connect.will {
            self.properties(&mut body);
            text(&mut body, topic.as_bytes());
            text(&mut body, payload);
        }
        for word in [connect.user, connect.password].into_iter().flatten() {
            text(&mut body, word.as_bytes());
        }
        self.send(&frame(0x10, &body)).await;
        let (header, body) = self.read().await?;
        assert_eq!(header, 0x20);
        Some(body[1])
    }

    fn properties(&self, body: &mut Vec<u8>) {
        if self.level == 5 {
            body.push(0);
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // A connection that was cut meanwhile is seen by reading.
        self.stream.write_all(bytes).await.unwrap_or_default();
        self.stream.flush().await.unwrap_or_default();
    }

    pub(super) async fn publish(&mut self, topic: &[u8], payload: &[u8], qos: u8) {
        self.publish_with(topic, payload, qos << 1).await;
    }

    pub(super) async fn publish_with(&mut self, topic: &[u8], payload: &[u8], flags: u8) {
        let mut body = Vec::new();
        text(&mut body, topic);
        if flags & 6 != 0 {
            body.extend_from_slice(&[0, 7]);
        }
        self.properties(&mut body);
        body.extend_from_slice(payload);
        self.send(&frame(0x30 | flags, &body)).await;
    }

    /// Publishes at QoS 1; the reason code of the PUBACK, 0 for MQTT 3.1.1, none if the connection was closed.
    pub(super) async fn acked(&mut self, topic: &[u8], payload: &[u8]) -> Option<u8> {
        self.publish(topic, payload, 1).await;
        let (header, body) = self.read().await?;
        if header == 0xe0 {
            return None;
        }
        assert_eq!((header, &body[..2]), (0x40, [0, 7].as_slice()));
        Some(body.get(2).copied().unwrap_or(0))
    }

    /// The return code of the SUBACK.
    pub(super) async fn subscribe(&mut self, filter: &str) -> u8 {
        let mut body = vec![0, 9];
        self.properties(&mut body);
        text(&mut body, filter.as_bytes());
        body.push(1);
        self.send(&frame(0x82, &body)).await;
        let (header, body) = self.read().await.unwrap();
        assert_eq!(header, 0x90);
        *body.last().unwrap()
    }

    pub(super) async fn pings(&mut self) -> bool {
        self.send(&[0xc0, 0]).await;
        self.read().await == Some((0xd0, Vec::new()))
    }

    /// The next packet; none when the connection is closed.
    pub(super) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(Duration::from_secs(20), self.read_packet()).await.expect("the broker says nothing").ok()
    }

    async fn read_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let header = self.stream.read_u8().await?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((header, body))
    }
}
