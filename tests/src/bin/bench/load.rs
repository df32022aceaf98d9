//! The load: devices that publish at QoS 1 on a fixed schedule, whatever becomes of what they sent (open loop).
//!
//! Event `k` of a run is due at `start + k / rate` and belongs to device `k mod devices`. A device has at most
//! [`WINDOW`] publishes without a PUBACK; one that must wait is late, and its lateness counts as the line's latency. Bytes
//! are written by hand, several events in one write where several are due, so that the generator costs little.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatehouse_tests::wire::{self, Connect, Packet, Publish, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Publishes of one device without a PUBACK.
const WINDOW: u64 = 64;
/// Size of an event's payload in bytes, as in the comparison of gateways that the bars come from.
pub const PAYLOAD_BYTES: usize = 250;
/// How long a device may take to log in.
const LOGIN_WITHIN: Duration = Duration::from_secs(20);
/// How long acknowledgements of a run may stay away.
const ACKS_WITHIN: Duration = Duration::from_mins(1);

/// How one device logs in and where it publishes.
#[derive(Debug, Clone)]
pub struct Account {
    pub client_id: String,
    pub user: Option<(String, String)>,
    pub topic: String,
}

#[derive(Debug, Default)]
struct Acks {
    count: AtomicU64,
    changed: Notify,
}

#[derive(Debug)]
struct Device {
    topic: String,
    writer: OwnedWriteHalf,
    acks: Arc<Acks>,
    sent: u64,
}

/// Devices that are logged in.
#[derive(Debug)]
pub struct Fleet {
    devices: Vec<Device>,
    readers: JoinSet<()>,
}

/// A schedule: `rate` events a second from `start` on, for `span`.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub id: u32,
    pub start: Instant,
    pub rate: f64,
    pub count: u64,
}

impl Run {
    pub fn new(id: u32, rate: f64, span: Duration) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole events")]
        let count = (rate * span.as_secs_f64()).round() as u64;
        Self { id, start: Instant::now() + Duration::from_millis(50), rate, count }
    }

    pub fn due(&self, k: u64) -> Instant {
        self.start + Duration::from_secs_f64(k as f64 / self.rate)
    }

    pub fn end(&self) -> Instant {
        self.due(self.count)
    }
}

/// What stands in the payload so that the far end knows the event again.
pub const MARK: &[u8] = b"\"mark\":\"";

/// The payload of event `k`.
pub fn payload(run: u32, k: u64) -> Vec<u8> {
    let mut text = format!("{{\"action\":\"emergency\",\"mark\":\"{run:04}-{k:010}\",\"text\":\"");
    while text.len() < PAYLOAD_BYTES - 2 {
        text.push('x');
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// Logs one device in.
pub async fn login(address: SocketAddr, account: &Account) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connect = Connect::new(Version::V311, &account.client_id);
    connect.keep_alive_s = 600;
    if let Some((name, password)) = &account.user {
        connect.username = Some(name.clone());
        connect.password = Some(password.clone());
    }
    stream.write_all(&connect.encode()).await?;
    match wire::read(&mut stream, Version::V311).await? {
        Some(Packet::ConnAck { code: 0 }) => Ok(stream),
        other => Err(std::io::Error::other(format!("{} was not let in: {other:?}", account.client_id))),
    }
}

impl Fleet {
    pub async fn connect(address: SocketAddr, accounts: &[Account]) -> Self {
        let mut fleet = Self { devices: Vec::new(), readers: JoinSet::new() };
        for account in accounts {
            let stream = timeout(LOGIN_WITHIN, login(address, account))
                .await
                .expect("a login is answered in time")
                .expect("a device may log in");
            let (reader, writer) = stream.into_split();
            let acks = Arc::new(Acks::default());
            fleet.readers.spawn(count_acks(reader, Arc::clone(&acks)));
            fleet.devices.push(Device { topic: account.topic.clone(), writer, acks, sent: 0 });
        }
        fleet
    }

    /// Sends the run's events on schedule; returns when the last one was written.
    pub async fn offer(&mut self, run: Run) {
        let step = self.devices.len() as u64;
        let tasks =
            self.devices.iter_mut().enumerate().map(|(place, device)| device.play(run, place as u64, step));
        futures_join(tasks.collect()).await;
    }

    /// Sends `count` messages to `topic` as fast as acknowledgements allow, the same from every device.
    pub async fn flood(&mut self, count: u64, message: impl Fn(&str) -> (String, Vec<u8>)) {
        let share = count.div_ceil(self.devices.len() as u64);
        let tasks = self.devices.iter_mut().map(|device| {
            let (topic, payload) = message(&device.topic);
            device.pour(share, topic, payload)
        });
        futures_join(tasks.collect()).await;
    }

    /// Waits until everything that was sent is acknowledged.
    pub async fn settle(&self) {
        for device in &self.devices {
            let acked = async {
                while device.acks.count.load(Ordering::Acquire) < device.sent {
                    wait_for_ack(&device.acks, device.sent - 1).await;
                }
            };
            timeout(ACKS_WITHIN, acked).await.expect("every publish is acknowledged");
        }
    }
}

/// Polls all of them on this task: fifty small futures need no tasks of their own.
async fn futures_join<'a>(mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>>) {
    use futures_util::stream::{FuturesUnordered, StreamExt};
    let mut all: FuturesUnordered<_> = tasks.drain(..).collect();
    while all.next().await.is_some() {}
}

/// Waits until more than `below` are acknowledged.
async fn wait_for_ack(acks: &Acks, below: u64) {
    loop {
        let changed = acks.changed.notified();
        if acks.count.load(Ordering::Acquire) > below {
            return;
        }
        changed.await;
    }
}

impl Device {
    fn play(
        &mut self,
        run: Run,
        place: u64,
        step: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut k = place;
            let mut bytes = Vec::new();
            while k < run.count {
                sleep_until(run.due(k)).await;
                let now = Instant::now();
                bytes.clear();
                let mut room = WINDOW - (self.sent - self.acks.count.load(Ordering::Acquire)).min(WINDOW);
                if room == 0 {
                    wait_for_ack(&self.acks, self.sent - WINDOW).await;
                    room = 1;
                }
                while k < run.count && room > 0 && run.due(k) <= now {
                    self.sent += 1;
                    room -= 1;
                    bytes.extend_from_slice(&self.publish(payload(run.id, k)));
                    k += step;
                }
                self.writer.write_all(&bytes).await.expect("the broker takes what a device sends");
            }
        })
    }

    fn pour(
        &mut self,
        count: u64,
        topic: String,
        payload: Vec<u8>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            for _ in 0..count {
                if self.sent >= WINDOW {
                    wait_for_ack(&self.acks, self.sent - WINDOW).await;
                }
                self.sent += 1;
                let publish = Publish::new(&topic, payload.clone(), 1, packet_id(self.sent));
                let bytes = publish.encode(Version::V311);
                self.writer.write_all(&bytes).await.expect("the broker takes what a device sends");
            }
        })
    }

    fn publish(&self, payload: Vec<u8>) -> Vec<u8> {
        Publish::new(&self.topic, payload, 1, packet_id(self.sent)).encode(Version::V311)
    }
}

/// Never 0, and never one that is still under way.
fn packet_id(sent: u64) -> u16 {
    u16::try_from(sent % 60_000).unwrap_or(0) + 1
}

/// PUBACKs are four bytes each and nothing else comes: their number is all that matters.
async fn count_acks(mut reader: OwnedReadHalf, acks: Arc<Acks>) {
    let mut bytes = [0; 4_096];
    let mut rest = 0;
    loop {
        match reader.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                rest += read;
                acks.count.fetch_add((rest / 4) as u64, Ordering::Release);
                rest %= 4;
                acks.changed.notify_waiters();
            }
        }
    }
}
