//! What the platform receives, as lines for a person and as a count of identities.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, PublishOptions, QoS};
use serde_json::Value;
use tokio::task::JoinSet;

use super::operator::Lives;
use crate::model::ids::GatewayName;

/// Largest packet of a gateway: 16 KiB of payload, and its topic.
const PACKET_BYTES_MAX: u32 = 20 * 1024;

/// What has arrived so far.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Every record id, and how often it came.
    pub(super) ids: BTreeMap<String, u64>,
    pub(super) replayed: u64,
    /// The highest connection number seen in `up/state`, and whether it said online.
    pub(super) state: Option<(u64, bool)>,
    /// The lives of alarms.
    pub(super) lives: Lives,
    lines: Vec<String>,
}

impl Received {
    /// Records that came more than once, counted for each repetition.
    pub(super) fn duplicates(&self) -> u64 {
        self.ids.values().map(|times| times.saturating_sub(1)).sum()
    }

    /// Ids of `stored` that never came.
    pub(super) fn missing<'a>(&self, stored: &'a BTreeSet<String>) -> Vec<&'a String> {
        stored.iter().filter(|id| !self.ids.contains_key(*id)).collect()
    }

    /// Lines not shown yet.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn take(&mut self, topic: &str, payload: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(payload) else {
            self.lines.push(format!("  ? {topic}: {} bytes that are no JSON", payload.len()));
            return;
        };
        let data = &message["data"];
        if topic.ends_with("/up/state") {
            let conn = data["conn"].as_u64().unwrap_or(0);
            let online = data["online"].as_bool().unwrap_or(false);
            if self.state.is_none_or(|(highest, _)| conn >= highest) {
                self.state = Some((conn, online));
                self.lines.push(format!(
                    "  state      connection {conn}, {}",
                    if online { "online" } else { "offline" }
                ));
            }
            return;
        }
        if topic.ends_with("/up/alarm") {
            self.lives.take_alarm(&message);
        } else if topic.ends_with("/up/command/result") {
            self.lives.take_result(&message);
        }
        let replay = message["replay"].as_bool().unwrap_or(false);
        if let Some(records) = data["records"].as_array() {
            for record in records {
                self.count(record["id"].as_str(), replay);
            }
        } else if message["sequence"].is_string() {
            self.count(message["id"].as_str(), replay);
            self.lines.push(line(&message, replay));
        }
    }

    fn count(&mut self, id: Option<&str>, replay: bool) {
        let Some(id) = id else { return };
        *self.ids.entry(id.to_owned()).or_default() += 1;
        self.replayed += u64::from(replay);
    }
}

/// One event for a person: place, what, severity, both languages, age.
fn line(message: &Value, replay: bool) -> String {
    let data = &message["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = if replay { "  backlog    ".to_owned() } else { "  live       ".to_owned() };
    let severity = data["severity"].as_str().unwrap_or("-");
    // Writing to a String cannot fail.
    write!(line, "{:<8} {:<22} {:<20}", severity, text(&data["device"]["id"]), text(&data["name"]))
        .unwrap_or_default();
    if let Some(words) = data["text"].as_object() {
        write!(line, " {} {}", text(&words["zh"]), text(&words["en"])).unwrap_or_default();
    }
    if let Some(age) = message["age"].as_u64() {
        write!(line, "  {age} ms old").unwrap_or_default();
    }
    line
}

/// A subscriber at the platform's broker.
#[derive(Debug)]
pub(super) struct View {
    received: Arc<Mutex<Received>>,
    client: AsyncClient,
    down: String,
    tasks: JoinSet<()>,
}

impl View {
    /// Subscribes to everything that goes up, and returns when the broker has agreed.
    pub(super) async fn open(
        platform: SocketAddr,
        root: &str,
        gateway: &GatewayName,
    ) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new("demo-platform", (platform.ip().to_string(), platform.port()));
        options.set_keep_alive(10).set_max_packet_size(Some(PACKET_BYTES_MAX));
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let filter = format!("{root}/v1/+/up/#");
        client.subscribe(&filter, QoS::AtLeastOnce).await?;
        loop {
            if let Event::Incoming(Incoming::SubAck(_)) = events.poll().await? {
                break;
            }
        }
        let received = Arc::new(Mutex::new(Received::default()));
        let (writer, orderer) = (Arc::clone(&received), client.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        lock(&writer).take(&topic, &publish.payload);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "the demo's platform lost its own broker");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        if let Err(error) = client.subscribe(&filter, QoS::AtLeastOnce).await {
                            tracing::error!(%error, "the demo's platform could not subscribe again");
                        }
                    }
                }
            }
        });
        let down = format!("{root}/v1/{gateway}/down/command");
        Ok(Self { received, client: orderer, down, tasks })
    }

    /// Sends a command down.
    pub(super) async fn order(&self, order: &Value) -> anyhow::Result<()> {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        self.client.publish_tracked(&self.down, order.to_string(), options).await?;
        Ok(())
    }

    pub(super) fn received(&self) -> MutexGuard<'_, Received> {
        lock(&self.received)
    }

    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}
