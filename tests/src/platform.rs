//! A platform: subscribes to everything a gateway says, and keeps it in order of arrival.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::wait::eventually;
use crate::wire::{self, Connect, Packet, Publish, Version};

/// Between two attempts to reach the broker. Shorter than the gateway's shortest back-off, so that the platform
/// listens again before the gateway sends.
const RETRY: Duration = Duration::from_millis(10);

/// How often it pings.
const PING: Duration = Duration::from_secs(5);

/// A message as it arrived.
#[derive(Debug, Clone)]
pub struct Message {
    pub at: Instant,
    pub topic: String,
    /// Delivered because it was retained, not because it was just published.
    pub retained: bool,
    pub payload: Vec<u8>,
    /// The payload as JSON; null if it is none.
    pub json: Value,
}

impl Message {
    /// The topic's part after `up/`.
    pub fn channel(&self) -> &str {
        self.topic.split_once("/up/").map_or("", |(_, channel)| channel)
    }

    /// An attribute or `""`.
    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    /// Sent as part of the backlog.
    pub fn replay(&self) -> bool {
        self.json["replay"] == Value::Bool(true)
    }

    /// The `sequence` attribute as a number.
    pub fn sequence(&self) -> Option<u64> {
        self.json["sequence"].as_str()?.parse().ok()
    }

    /// A parameter of an event.
    pub fn param(&self, name: &str) -> &Value {
        &self.json["data"]["params"][name]
    }
}

#[derive(Debug, Default)]
struct Inbox {
    messages: Vec<Message>,
    subscribed: u64,
}

/// A connected platform. It comes back by itself when its broker does.
#[derive(Debug)]
pub struct Platform {
    inbox: Arc<Mutex<Inbox>>,
    online: watch::Receiver<bool>,
    outgoing: broadcast::Sender<Publish>,
    _tasks: JoinSet<()>,
}

impl Platform {
    /// Subscribes to `filter` at the broker; ready when this returns.
    pub async fn start(broker: SocketAddr, filter: &str) -> Self {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (online_tx, online) = watch::channel(false);
        let (outgoing, outgoing_rx) = broadcast::channel(256);
        let mut tasks = JoinSet::new();
        tasks.spawn(live(broker, filter.to_owned(), inbox.clone(), online_tx, outgoing_rx));
        let mut platform = Self { inbox, online, outgoing, _tasks: tasks };
        platform.await_online().await;
        platform
    }

    /// Waits until it is subscribed.
    pub async fn await_online(&mut self) {
        let online = self.online.wait_for(|online| *online);
        tokio::time::timeout(Duration::from_secs(20), online)
            .await
            .expect("the platform subscribes")
            .unwrap();
    }

    /// Everything so far.
    pub fn messages(&self) -> Vec<Message> {
        self.inbox.lock().unwrap().messages.clone()
    }

    /// Looks at everything so far without copying it.
    pub fn look<T>(&self, look: impl FnOnce(&[Message]) -> T) -> T {
        look(&self.inbox.lock().unwrap().messages)
    }

    /// How often it has subscribed.
    pub fn subscribed(&self) -> u64 {
        self.inbox.lock().unwrap().subscribed
    }

    /// Waits for a message.
    pub async fn await_message(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Message {
        eventually(what, within, || self.look(|all| all.iter().find(|message| wanted(message)).cloned()))
            .await
    }

    /// Publishes at QoS 1, without waiting.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let mut publish = Publish::new(topic, payload, 1, fastrand::u16(1..));
        publish.retain = retain;
        self.outgoing.send(publish).expect("the platform runs");
    }
}

async fn live(
    broker: SocketAddr,
    filter: String,
    inbox: Arc<Mutex<Inbox>>,
    online: watch::Sender<bool>,
    mut outgoing: broadcast::Receiver<Publish>,
) {
    let name = format!("platform-{:08x}", fastrand::u32(..));
    loop {
        // Whatever ends a session, the next attempt follows.
        session(broker, &name, &filter, &inbox, &online, &mut outgoing).await.ok();
        online.send_replace(false);
        tokio::time::sleep(RETRY).await;
    }
}

async fn read_all(mut reader: OwnedReadHalf, packets: mpsc::Sender<Packet>) {
    while let Ok(Some(packet)) = wire::read(&mut reader, Version::V5).await {
        if packets.send(packet).await.is_err() {
            return;
        }
    }
}

async fn session(
    broker: SocketAddr,
    name: &str,
    filter: &str,
    inbox: &Mutex<Inbox>,
    online: &watch::Sender<bool>,
    outgoing: &mut broadcast::Receiver<Publish>,
) -> std::io::Result<()> {
    let stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    writer.write_all(&Connect::new(Version::V5, name).encode()).await?;
    writer.write_all(&wire::subscribe(Version::V5, 1, filter)).await?;
    let (packets_tx, mut packets_rx) = mpsc::channel(1_024);
    let mut tasks = JoinSet::new();
    tasks.spawn(read_all(reader, packets_tx));
    let mut pings = tokio::time::interval(PING);
    loop {
        tokio::select! {
            packet = packets_rx.recv() => match packet {
                None => return Ok(()),
                Some(Packet::SubAck { .. }) => {
                    inbox.lock().unwrap().subscribed += 1;
                    online.send_replace(true);
                }
                Some(Packet::Publish(publish)) => {
                    let acknowledge = (publish.qos > 0).then(|| wire::puback(Version::V5, publish.id, 0));
                    inbox.lock().unwrap().messages.push(message(publish));
                    if let Some(bytes) = acknowledge {
                        writer.write_all(&bytes).await?;
                    }
                }
                Some(_) => {}
            },
            Ok(publish) = outgoing.recv() => writer.write_all(&publish.encode(Version::V5)).await?,
            _ = pings.tick() => writer.write_all(&wire::pingreq()).await?,
        }
    }
}

fn message(publish: Publish) -> Message {
    let json = serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
    Message {
        at: Instant::now(),
        topic: publish.topic,
        retained: publish.retain,
        payload: publish.payload,
        json,
    }
}
