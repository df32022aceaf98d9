//! A scripted `MQTT` 5 broker for one client: says what a test wants, hears what the gateway does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::rt::packets::{packet, read_packet};

/// By connection; the last one is repeated.
pub(super) struct Script {
    pub(super) connack: Vec<u8>,
    /// Whether the broker still has the session.
    pub(super) session: Vec<bool>,
    /// The code for every topic.
    pub(super) suback: u8,
}

impl Default for Script {
    fn default() -> Self {
        Self { connack: vec![0], session: vec![false], suback: 1 }
    }
}

/// A message to the gateway at QoS 1.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) id: u16,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    pub(super) dup: bool,
}

/// What the gateway said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Connect { client_id: String, clean_start: bool, session_expiry_s: Option<u32>, receive_max: Option<u16> },
    Subscribe { topics: Vec<(String, u8)> },
    Unsubscribe { topic: String },
    Disconnect,
}

enum Order {
    Bytes(Vec<u8>),
    Cut,
}

pub(super) struct Broker {
    pub(super) url: String,
    heard_rx: mpsc::Receiver<Heard>,
    orders_tx: mpsc::Sender<Order>,
    acked: Arc<Mutex<Vec<u16>>>,
    subscribed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Broker {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let (heard_tx, heard_rx) = mpsc::channel(1_000);
        let (orders_tx, mut orders_rx) = mpsc::channel(100);
        let acked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&acked);
        let subscribed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&subscribed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = Serving {
                    script: &script,
                    connection,
                    heard_tx: &heard_tx,
                    acked: &shared,
                    count: &count,
                };
                if let Err(error) = serving.serve(stream, &mut orders_rx).await {
                    println!("connection {connection} broke: {error}");
                }
            }
        });
        Self { url, heard_rx, orders_tx, acked, subscribed, _tasks: tasks }
    }

    pub(super) async fn next(&mut self) -> Heard {
        tokio::time::timeout(Duration::from_secs(20), self.heard_rx.recv())
            .await
            .expect("nothing came")
            .unwrap()
    }

    pub(super) async fn await_heard(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            let heard = self.next().await;
            if wanted(&heard) {
                return heard;
            }
        }
    }

    /// Packet ids in the order of their PUBACKs.
    pub(super) fn acked(&self) -> Vec<u16> {
        self.acked.lock().unwrap().clone()
    }

    /// On how many connections the gateway has subscribed.
    pub(super) fn subscribed(&self) -> usize {
        self.subscribed.load(Ordering::SeqCst)
    }

    /// Sent when the gateway has subscribed.
    pub(super) async fn send(&self, delivery: Delivery) {
        let Delivery { id, topic, payload, retain, dup } = delivery;
        let head = 0x32 | u8::from(retain) | (u8::from(dup) << 3);
        let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
        let body = [&length, topic.as_bytes(), &id.to_be_bytes(), &[0], &payload].concat();
        self.send_raw(packet(head, &body)).await;
    }

    pub(super) async fn send_raw(&self, bytes: Vec<u8>) {
        self.orders_tx.send(Order::Bytes(bytes)).await.unwrap();
    }

    pub(super) async fn cut(&self) {
        self.orders_tx.send(Order::Cut).await.unwrap();
    }
}

struct Serving<'a> {
    script: &'a Script,
    connection: usize,
    heard_tx: &'a mpsc::Sender<Heard>,
    acked: &'a Mutex<Vec<u16>>,
    count: &'a AtomicUsize,
}

impl Serving<'_> {
    async fn serve(
        &self,
        stream: tokio::net::TcpStream,
        orders_rx: &mut mpsc::Receiver<Order>,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = stream.into_split();
        let (packets_tx, mut packets_rx) = mpsc::channel(1_000);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(packet) = read_packet(&mut reader).await {
                packets_tx.send(packet).await.unwrap();
            }
        });
        let mut subscribed = false;
        loop {
            let (first, body) = tokio::select! {
                packet = packets_rx.recv() => match packet {
                    Some(packet) => packet,
                    None => return Ok(()),
                },
                order = orders_rx.recv(), if subscribed => match order {
                    Some(Order::Bytes(bytes)) => {
                        writer.write_all(&bytes).await?;
                        continue;
                    }
                    Some(Order::Cut) | None => return Ok(()),
                },
            };
            let reply = match first >> 4 {
                1 => self.connect(&body),
                4 => {
                    assert!(body.len() == 2 || body[2] == 0, "a PUBACK with a reason: {body:?}");
                    self.acked.lock().unwrap().push(u16::from_be_bytes([body[0], body[1]]));
                    Vec::new()
                }
                8 => {
                    subscribed = true;
                    self.count.fetch_add(1, Ordering::SeqCst);
                    self.subscribe(&body)
                }
                10 => {
                    let topic = String::from_utf8(body[5..].to_vec()).unwrap();
                    self.heard_tx.try_send(Heard::Unsubscribe { topic }).unwrap();
                    packet(0xb0, &[body[0], body[1], 0, 0])
                }
                12 => vec![0xd0, 0],
                14 => {
                    self.heard_tx.try_send(Heard::Disconnect).unwrap();
                    return Ok(());
                }
                _ => Vec::new(),
            };
            writer.write_all(&reply).await?;
        }
    }

    fn connect(&self, body: &[u8]) -> Vec<u8> {
        let at = |list: &[u8]| *list.get(self.connection).or(list.last()).unwrap();
        let session = *self.script.session.get(self.connection).or(self.script.session.last()).unwrap();
        // Name, level, flags, keep-alive, then properties.
        let clean_start = body[7] & 2 != 0;
        let (mut rest, after) = body[11..].split_at(usize::from(body[10]));
        let (mut session_expiry_s, mut receive_max) = (None, None);
        while let Some((id, value)) = rest.split_first() {
            let bytes = match id {
                0x11 => {
                    session_expiry_s = Some(u32::from_be_bytes(value[..4].try_into().unwrap()));
                    4
                }
                0x21 => {
                    receive_max = Some(u16::from_be_bytes(value[..2].try_into().unwrap()));
                    2
                }
                0x27 => 4,
                0x22 => 2,
                0x17 | 0x19 => 1,
                other => panic!("property {other:#x}"),
            };
            rest = &value[bytes..];
        }
        let id_length = usize::from(u16::from_be_bytes([after[0], after[1]]));
        let client_id = String::from_utf8(after[2..2 + id_length].to_vec()).unwrap();
        let heard = Heard::Connect { client_id, clean_start, session_expiry_s, receive_max };
        self.heard_tx.try_send(heard).unwrap();
        let code = at(&self.script.connack);
        packet(0x20, &[u8::from(session && code == 0), code, 0])
    }

    fn subscribe(&self, body: &[u8]) -> Vec<u8> {
        let mut rest = &body[3..];
        let mut topics = Vec::new();
        while let Some((length, after)) = rest.split_at_checked(2) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            topics.push((String::from_utf8(after[..length].to_vec()).unwrap(), after[length]));
            rest = &after[length + 1..];
        }
        let codes = vec![self.script.suback; topics.len()];
        self.heard_tx.try_send(Heard::Subscribe { topics }).unwrap();
        packet(0x90, &[&[body[0], body[1], 0], codes.as_slice()].concat())
    }
}
