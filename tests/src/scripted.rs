//! A platform's broker that answers as a test tells it: with refusals, with silence, with DISCONNECT. MQTT 5 only.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::wait::eventually;
use crate::wire::{self, Connect, Packet, Publish, Version};

/// What a publish is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// PUBACK with this reason code.
    Ack(u8),
    /// No PUBACK, ever.
    Silence,
    /// DISCONNECT with this reason code, then the end.
    Disconnect(u8),
}

/// Success.
pub const OK: Answer = Answer::Ack(0);

/// A publish and what it got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which connection it came on, from 1.
    pub connection: u64,
    pub at: Instant,
    pub publish: Publish,
    pub answer: Answer,
}

type Script = Box<dyn FnMut(&Publish) -> Answer + Send>;

/// What is shared with the connections' tasks.
struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connects: Mutex<Vec<Connect>>,
    subscriptions: Mutex<Vec<String>>,
    connack: Mutex<u8>,
    pushes: broadcast::Sender<Publish>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The broker. Ends with its connections when dropped.
#[derive(Debug)]
pub struct ScriptedBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl ScriptedBroker {
    /// Starts with a script that is asked for each publish, in order of arrival.
    pub async fn start(script: impl FnMut(&Publish) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(crate::ports::free()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pushes, _) = broadcast::channel(64);
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            connects: Mutex::default(),
            subscriptions: Mutex::default(),
            connack: Mutex::new(0),
            pushes,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script.
    pub fn answer(&self, script: impl FnMut(&Publish) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// The reason code of coming CONNACKs.
    pub fn connack(&self, code: u8) {
        *self.shared.connack.lock().unwrap() = code;
    }

    /// All publishes so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// All connections so far.
    pub fn connects(&self) -> Vec<Connect> {
        self.shared.connects.lock().unwrap().clone()
    }

    /// All filters subscribed to so far.
    pub fn subscriptions(&self) -> Vec<String> {
        self.shared.subscriptions.lock().unwrap().clone()
    }

    /// Waits for a publish that `wanted` takes.
    pub async fn await_publish(&self, what: &str, within: Duration, wanted: impl Fn(&Seen) -> bool) -> Seen {
        eventually(what, within, || self.seen().into_iter().find(&wanted)).await
    }

    /// Sends a publish to every connected client, at QoS 0 or 1, whatever they subscribed to.
    pub fn push(&self, publish: Publish) {
        self.shared.pushes.send(publish).expect("a client is connected");
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        number += 1;
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, shared.clone(), number));
    }
}

async fn read_all(mut reader: OwnedReadHalf, packets: mpsc::Sender<Packet>) {
    while let Ok(Some(packet)) = wire::read(&mut reader, Version::V5).await {
        if packets.send(packet).await.is_err() {
            return;
        }
    }
}

/// One connection. Reading is a task of its own, since a read must not be cancelled in the middle of a packet.
async fn serve(stream: TcpStream, shared: Arc<Shared>, connection: u64) {
    stream.set_nodelay(true).ok();
    let (reader, mut writer) = stream.into_split();
    let (packets_tx, mut packets_rx) = mpsc::channel(1_024);
    let mut tasks = JoinSet::new();
    tasks.spawn(read_all(reader, packets_tx));
    let mut pushes = shared.pushes.subscribe();
    loop {
        tokio::select! {
            packet = packets_rx.recv() => {
                let Some(packet) = packet else { return };
                if !reply(&mut writer, &shared, connection, packet).await {
                    return;
                }
            }
            Ok(publish) = pushes.recv() => {
                if writer.write_all(&publish.encode(Version::V5)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Answers one packet; false ends the connection.
async fn reply(writer: &mut OwnedWriteHalf, shared: &Shared, connection: u64, packet: Packet) -> bool {
    let bytes = match packet {
        Packet::Connect(connect) => {
            shared.connects.lock().unwrap().push(connect);
            let code = *shared.connack.lock().unwrap();
            let sent = writer.write_all(&wire::connack(Version::V5, code)).await;
            return sent.is_ok() && code < 0x80;
        }
        Packet::Publish(publish) => {
            let answer = (shared.script.lock().unwrap())(&publish);
            let (qos, id) = (publish.qos, publish.id);
            shared.seen.lock().unwrap().push(Seen { connection, at: Instant::now(), publish, answer });
            match answer {
                Answer::Ack(code) if qos > 0 => wire::puback(Version::V5, id, code),
                Answer::Ack(_) | Answer::Silence => return true,
                Answer::Disconnect(code) => {
                    writer.write_all(&wire::disconnect(Version::V5, code)).await.ok();
                    return false;
                }
            }
        }
        Packet::Subscribe { id, filters } => {
            let bytes = wire::suback(Version::V5, id, filters.len());
            shared.subscriptions.lock().unwrap().extend(filters);
            bytes
        }
        Packet::Unsubscribe { id, count } => wire::unsuback(Version::V5, id, count),
        Packet::PingReq => wire::pingresp(),
        Packet::Disconnect { .. } => return false,
        _ => return true,
    };
    writer.write_all(&bytes).await.is_ok()
}
