//! The demo's guard room: a speaker on the local network that really is one as far as the gateway can tell, and a button
//! that is pressed once, while the uplink is cut.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::compound::Account;
use crate::model::ids::ClientName;

/// How long the button waits for its acknowledgement.
const PRESS_WITHIN: Duration = Duration::from_secs(5);

/// A speaker.
#[derive(Debug)]
pub(super) struct Speaker {
    said: Arc<Mutex<Vec<String>>>,
    tasks: JoinSet<()>,
}

fn connect(port: u16, name: &ClientName, secret: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name.as_str(), ("127.0.0.1", port));
    options.set_credentials(name.as_str(), secret.to_owned()).set_keep_alive(10);
    AsyncClient::builder(options).capacity(32).build()
}

impl Speaker {
    /// Logs in, listens for what it is to say, and answers that it has played it.
    pub(super) fn start(port: u16, name: &ClientName, account: &Account) -> anyhow::Result<Self> {
        let topic = account.talkers.first().map(|talker| talker.topic.clone());
        let topic = topic.context("the demo's speaker has no device")?;
        let (client, mut events) = connect(port, name, &account.secret);
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        if let Err(error) = client.subscribe(format!("{topic}/say"), QoS::AtMostOnce).await {
                            tracing::error!(%error, "the demo's speaker could not subscribe");
                        }
                    }
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let Ok(order) = serde_json::from_slice::<Value>(&publish.payload) else { continue };
                        if let Some(text) = order["text"].as_str() {
                            lock(&heard).push(text.to_owned());
                        }
                        let answer = json!({ "id": order["id"], "state": "played" }).to_string();
                        let options = PublishOptions::new(QoS::AtLeastOnce);
                        if let Err(error) =
                            client.publish_tracked(format!("{topic}/said"), answer, options).await
                        {
                            tracing::error!(%error, "the demo's speaker could not answer");
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the demo's speaker lost the gateway and tries again");
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                }
            }
        });
        Ok(Self { said, tasks })
    }

    /// What it has said since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.said))
    }

    pub(super) async fn remove(mut self) {
        self.tasks.shutdown().await;
    }
}

fn lock(said: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Presses the button of this account once, and says it again until the gateway has acknowledged it: on a lost disk it does
/// not.
pub(super) async fn press(port: u16, name: ClientName, account: Account) {
    while let Err(error) = say(port, &name, &account).await {
        tracing::debug!(%error, "the demo's button says it again");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn say(port: u16, name: &ClientName, account: &Account) -> anyhow::Result<()> {
    let talker = account.talkers.first().context("the demo's button has no device")?;
    let (client, mut events) = connect(port, name, &account.secret);
    let options = PublishOptions::new(QoS::AtLeastOnce);
    let payload = json!({ "action": "emergency", "battery": 96 }).to_string();
    client.publish_tracked(&talker.topic, payload, options).await?;
    let acknowledged = async {
        loop {
            if let Event::Incoming(Incoming::PubAck(_)) = events.poll().await? {
                return Ok::<(), anyhow::Error>(());
            }
        }
    };
    timeout(PRESS_WITHIN, acknowledged).await.context("the demo's press was not acknowledged")?
}
