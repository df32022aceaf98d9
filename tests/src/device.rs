//! A device: an MQTT client that knows exactly which of its messages were acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::tokio_rustls::rustls::ClientConfig;
use rumqttc::tokio_rustls::rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::wire::{self, Connect, Packet, Publish, Version, Will};

/// How long a device waits for what should come at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a device logs in.
#[derive(Debug, Clone)]
pub struct Login {
    pub address: SocketAddr,
    pub version: Version,
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub will: Option<Will>,
    pub tls: Option<Arc<ClientConfig>>,
}

impl Login {
    /// By user name and password; the client id is the user name.
    pub fn new(address: SocketAddr, name: &str, password: &str) -> Self {
        Self {
            address,
            version: Version::V311,
            client_id: name.to_owned(),
            username: Some(name.to_owned()),
            password: Some(password.to_owned()),
            will: None,
            tls: None,
        }
    }

    #[must_use]
    pub const fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// CONNACK with this code.
    Code(u8),
    /// The connection failed, was closed, or stayed silent.
    Line(String),
}

/// Why there is no PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAck {
    /// The connection ended first.
    Ended,
    /// It is still open.
    Late,
}

/// A PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub code: u8,
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Inbox {
    acks: BTreeMap<u16, Ack>,
    subacks: BTreeMap<u16, Vec<u8>>,
    received: Vec<Publish>,
    pongs: u64,
    ended: bool,
    disconnect_code: Option<u8>,
}

/// A connected device.
#[derive(Debug)]
pub struct Device {
    writer: WriteHalf<Box<dyn StreamDebug>>,
    version: Version,
    inbox: Arc<Mutex<Inbox>>,
    changed: watch::Receiver<u64>,
    next_id: u16,
    local: SocketAddr,
    _tasks: JoinSet<()>,
}

trait StreamDebug: Stream + std::fmt::Debug {}

impl<T: Stream + std::fmt::Debug> StreamDebug for T {}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn line(error: impl ToString) -> Refused {
    Refused::Line(error.to_string())
}

impl Device {
    /// Connects and waits for the CONNACK.
    pub async fn connect(login: &Login) -> Result<Self, Refused> {
        timeout(PATIENCE, Self::connect_once(login)).await.map_err(line)?
    }

    /// Connects, trying again while the gateway is not there yet. A refusal ends it.
    pub async fn connect_patiently(login: &Login) -> Self {
        let what = format!("{} logs in", login.client_id);
        crate::wait::eventually_ok(&what, PATIENCE, async || match Self::connect(login).await {
            Err(Refused::Code(code)) => panic!("{what}: refused with {code:#x}"),
            other => other,
        })
        .await
    }

    async fn connect_once(login: &Login) -> Result<Self, Refused> {
        let tcp = TcpStream::connect(login.address).await.map_err(line)?;
        tcp.set_nodelay(true).map_err(line)?;
        let local = tcp.local_addr().map_err(line)?;
        let stream: Box<dyn StreamDebug> = match &login.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(line)?;
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(line)?)
            }
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut connect = Connect::new(login.version, &login.client_id);
        connect.username.clone_from(&login.username);
        connect.password.clone_from(&login.password);
        connect.will.clone_from(&login.will);
        writer.write_all(&connect.encode()).await.map_err(line)?;
        match wire::read(&mut reader, login.version).await.map_err(line)? {
            Some(Packet::ConnAck { code: 0 }) => {}
            Some(Packet::ConnAck { code }) => return Err(Refused::Code(code)),
            Some(other) => return Err(Refused::Line(format!("{other:?} instead of a CONNACK"))),
            None => return Err(Refused::Line("closed before the CONNACK".to_owned())),
        }
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (changes, changed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(reader, login.version, inbox.clone(), changes));
        Ok(Self { writer, version: login.version, inbox, changed, next_id: 0, local, _tasks: tasks })
    }

    /// The device's end of the connection, as strace shows it.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a publish and returns its packet id (0 at QoS 0).
    pub async fn send(&mut self, topic: &str, payload: &[u8], qos: u8) -> io::Result<u16> {
        let mut id = 0;
        if qos > 0 {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            id = self.next_id;
            self.inbox.lock().unwrap().acks.remove(&id);
        }
        let bytes = Publish::new(topic, payload, qos, id).encode(self.version);
        self.send_raw(&bytes).await?;
        Ok(id)
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Waits for the PUBACK of `id`.
    pub async fn acked(&mut self, id: u16, within: Duration) -> Result<Ack, NoAck> {
        self.find(within, |inbox| inbox.acks.get(&id).copied()).await
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<Ack, NoAck> {
        let Ok(id) = self.send(topic, payload, 1).await else { return Err(NoAck::Ended) };
        self.acked(id, PATIENCE).await
    }

    /// Subscribes and waits for the SUBACK's code.
    pub async fn subscribe(&mut self, filter: &str) -> Result<u8, NoAck> {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let id = self.next_id;
        let bytes = wire::subscribe(self.version, id, filter);
        if self.send_raw(&bytes).await.is_err() {
            return Err(NoAck::Ended);
        }
        let codes = self.find(PATIENCE, |inbox| inbox.subacks.get(&id).cloned()).await?;
        Ok(codes.first().copied().unwrap_or(0))
    }

    /// Sends PINGREQ and waits for the answer.
    pub async fn ping(&mut self) -> Result<(), NoAck> {
        let before = self.inbox.lock().unwrap().pongs;
        if self.send_raw(&wire::pingreq()).await.is_err() {
            return Err(NoAck::Ended);
        }
        self.find(PATIENCE, |inbox| (inbox.pongs > before).then_some(())).await
    }

    /// What was delivered to it.
    pub fn received(&self) -> Vec<Publish> {
        self.inbox.lock().unwrap().received.clone()
    }

    /// Whether the connection is over.
    pub fn ended(&self) -> bool {
        self.inbox.lock().unwrap().ended
    }

    /// Waits until the gateway has closed the connection.
    pub async fn await_end(&mut self, within: Duration) -> bool {
        self.find(within, |inbox| inbox.ended.then_some(())).await != Err(NoAck::Late)
    }

    /// Reason code of a DISCONNECT from the gateway.
    pub fn disconnect_code(&self) -> Option<u8> {
        self.inbox.lock().unwrap().disconnect_code
    }

    async fn find<T>(&mut self, within: Duration, look: impl Fn(&Inbox) -> Option<T>) -> Result<T, NoAck> {
        let end = Instant::now() + within;
        loop {
            {
                let inbox = self.inbox.lock().unwrap();
                if let Some(found) = look(&inbox) {
                    return Ok(found);
                }
                if inbox.ended {
                    return Err(NoAck::Ended);
                }
            }
            // The sender goes away after it has noted the end, so a closed channel means: look again.
            if tokio::time::timeout_at(end, self.changed.changed()).await.is_err() {
                return Err(NoAck::Late);
            }
        }
    }
}

async fn listen(
    mut reader: ReadHalf<Box<dyn StreamDebug>>,
    version: Version,
    inbox: Arc<Mutex<Inbox>>,
    changes: watch::Sender<u64>,
) {
    loop {
        let packet = wire::read(&mut reader, version).await;
        {
            let mut inbox = inbox.lock().unwrap();
            match packet {
                Ok(Some(Packet::PubAck { id, code })) => {
                    inbox.acks.insert(id, Ack { code, at: Instant::now() });
                }
                Ok(Some(Packet::SubAck { id, codes })) => {
                    inbox.subacks.insert(id, codes);
                }
                Ok(Some(Packet::Publish(publish))) => inbox.received.push(publish),
                Ok(Some(Packet::PingResp)) => inbox.pongs += 1,
                Ok(Some(Packet::Disconnect { code })) => inbox.disconnect_code = Some(code),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => inbox.ended = true,
            }
            if inbox.ended {
                drop(inbox);
                changes.send_modify(|count| *count += 1);
                return;
            }
        }
        changes.send_modify(|count| *count += 1);
    }
}
