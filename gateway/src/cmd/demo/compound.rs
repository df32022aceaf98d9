//! The demo's devices: real MQTT clients that say what such devices say, at QoS 1, and say it again until the gateway has
//! acknowledged it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, MqttOptions, PublishOptions, PublishResult, QoS};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::model::ids::ClientName;

/// The profile of which each message is a press.
const PRESS_EACH: &str = "z2m-button-action";

/// How long a device goes on with what is not acknowledged yet when the demo ends: a disk may just be back.
const LAST_WORD: Duration = Duration::from_secs(10);

/// A device of the demo.
#[derive(Debug, Clone)]
pub(super) struct Talker {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) profile: String,
}

/// An account at the gateway's broker and the devices it speaks for.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) secret: String,
    pub(super) talkers: Vec<Talker>,
}

/// What the devices said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Messages handed to the MQTT client.
    pub(super) sent: AtomicU64,
    /// Messages that the gateway acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Acknowledged messages of buttons of which each message is a press, by device.
    presses: Mutex<BTreeMap<String, u64>>,
}

impl Said {
    fn note(&self, talker: &Talker) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        if talker.profile == PRESS_EACH {
            let mut presses = self.presses.lock().unwrap_or_else(PoisonError::into_inner);
            *presses.entry(talker.id.clone()).or_default() += 1;
        }
    }

    pub(super) fn presses(&self) -> BTreeMap<String, u64> {
        self.presses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts one MQTT client for each account; each speaks for its devices until `cancel`.
pub(super) fn start(
    port: u16,
    accounts: BTreeMap<ClientName, Account>,
    cancel: &CancellationToken,
    seed: u64,
) -> (JoinSet<()>, Arc<Said>) {
    let said = Arc::new(Said::default());
    let mut tasks = JoinSet::new();
    for (index, (name, member)) in accounts.into_iter().enumerate() {
        let rng = fastrand::Rng::with_seed(seed.wrapping_add(index as u64));
        tasks.spawn(speak(port, name, member, cancel.clone(), Arc::clone(&said), rng));
    }
    (tasks, said)
}

async fn speak(
    port: u16,
    name: ClientName,
    Account { secret, talkers }: Account,
    cancel: CancellationToken,
    said: Arc<Said>,
    mut rng: fastrand::Rng,
) {
    let mut options = MqttOptions::new(name.as_str(), ("127.0.0.1", port));
    options.set_credentials(name.as_str(), secret).set_keep_alive(10);
    let (client, mut events) = AsyncClient::builder(options).capacity(32).build();
    let mut polling = JoinSet::new();
    polling.spawn(async move {
        loop {
            if let Err(error) = events.poll().await {
                tracing::debug!(%error, "a demo device lost the gateway and tries again");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    });
    let mut turn = 0_u64;
    while !cancel.is_cancelled() && !talkers.is_empty() {
        // Devices speak at random, about five a second for each account.
        let pause = Duration::from_millis(rng.u64(80..320));
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let talker = &talkers[rng.usize(..talkers.len())];
        let payload = payload(&talker.profile, turn, &mut rng).to_string();
        turn += 1;
        said.sent.fetch_add(1, Ordering::SeqCst);
        let last_word = async {
            cancel.cancelled().await;
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            taken = say(&client, &talker.topic, &payload) => if taken { said.note(talker) },
            // Nobody told it that it is safe, so that it may be lost.
            () = last_word => break,
        }
    }
    polling.shutdown().await;
}

/// Publishes until acknowledged; false when the gateway refused the message.
async fn say(client: &AsyncClient, topic: &str, payload: &str) -> bool {
    loop {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        let Ok(notice) = client.publish_tracked(topic, payload.to_owned(), options).await else {
            return false;
        };
        match notice.wait_async().await {
            Ok(PublishResult::Qos1(ack)) => return (ack.reason as u8) < 0x80,
            Ok(_) => return false,
            Err(error) => tracing::debug!(%error, "a demo device says it again"),
        }
    }
}

/// What a device of this profile says.
fn payload(profile: &str, turn: u64, rng: &mut fastrand::Rng) -> Value {
    let linkquality = rng.u8(60..=255);
    let battery = rng.u8(80..=100);
    let odd = turn % 2 == 1;
    match profile {
        "z2m-button-sos" => {
            json!({"sos": odd, "tamper": false, "battery": battery, "linkquality": linkquality})
        }
        PRESS_EACH => json!({"action": "emergency", "battery": battery, "linkquality": linkquality}),
        "z2m-contact" => json!({"contact": odd, "tamper": false, "battery_low": false, "battery": battery}),
        "z2m-smoke" => json!({"smoke": rng.u8(..) < 8, "tamper": false, "battery": battery}),
        "z2m-water-leak" => json!({"water_leak": rng.u8(..) < 8, "battery_low": false, "battery": battery}),
        "z2m-motion" => json!({"occupancy": odd, "battery": battery, "linkquality": linkquality}),
        "z2m-vibration" => json!({"vibration": odd, "battery": battery, "linkquality": linkquality}),
        "z2m-lock" => {
            json!({"state": if odd { "UNLOCK" } else { "LOCK" }, "action": if odd { "unlock" } else { "lock" }})
        }
        _ => json!({"temperature": 20.0 + f64::from(rng.u8(..50)) / 10.0, "humidity": rng.u8(30..70)}),
    }
}
