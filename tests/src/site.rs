//! A gateway with a mosquitto and a platform behind it, and what most tests do with them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::audit::{Report, audit};
use crate::device::{Ack, Device, NoAck};
use crate::gateway::{BASE, Gateway, Plan};
use crate::mosquitto::Mosquitto;
use crate::platform::{Message, Platform};
use crate::wait::eventually;

/// How long a record may take to reach a platform that can be reached, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// How long it may take until everything is delivered after outages.
pub const LATER: Duration = Duration::from_mins(1);

/// The three of them.
#[derive(Debug)]
pub struct Site {
    pub mosquitto: Mosquitto,
    pub platform: Platform,
    pub gateway: Gateway,
}

impl Site {
    /// Starts all three; the gateway is called `name`.
    pub async fn start(name: &str) -> Self {
        let mosquitto = Mosquitto::start().await;
        let platform = Platform::start(mosquitto.address(), "#").await;
        let gateway = Gateway::start(Plan::new(name, &mosquitto.url())).await;
        Self { mosquitto, platform, gateway }
    }

    /// Logs the shared account in.
    pub async fn device(&self) -> Device {
        Device::connect_patiently(&self.gateway.login()).await
    }

    /// Waits until the platform has these presses of `button`.
    pub async fn await_presses(&self, button: &str, wanted: &BTreeSet<u64>, within: Duration) {
        await_presses(&self.platform, button, wanted, within).await;
    }

    /// Waits until the gateway says that it is connected to the platform, for the `conn`th time or more.
    pub async fn await_online(&self, conn: u64) -> Message {
        await_state(&self.platform, &self.gateway.plan.name, conn).await
    }

    pub fn audit(&self) -> Report {
        self.platform.look(|messages| audit(messages, &self.gateway.plan.name))
    }
}

/// Waits until the platform has these presses of `button`.
pub async fn await_presses(platform: &Platform, button: &str, wanted: &BTreeSet<u64>, within: Duration) {
    let end = tokio::time::Instant::now() + within;
    loop {
        let missing: Vec<u64> = platform.look(|messages| {
            let held: BTreeSet<u64> = presses(messages, button).into_iter().collect();
            wanted.difference(&held).copied().collect()
        });
        if missing.is_empty() {
            return;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{} of {} presses of {button} lost: {missing:?}",
            missing.len(),
            wanted.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for a state "online" with this connection number or a higher one.
pub async fn await_state(platform: &Platform, gateway: &str, conn: u64) -> Message {
    let topic = format!("gatehouse/v1/{gateway}/up/state");
    let what = format!("{gateway} is online with conn {conn} or more");
    eventually(&what, SOON, || {
        platform.look(|messages| {
            let online = |message: &&Message| {
                message.topic == topic
                    && message.json["data"]["online"] == true
                    && message.json["data"]["conn"].as_u64() >= Some(conn)
            };
            messages.iter().find(online).cloned()
        })
    })
    .await
}

/// The body of the `n`th press. `marker` is looked for on the disk.
pub fn press_body(n: u64) -> Vec<u8> {
    json!({ "action": "emergency", "n": n, "marker": marker(n), "battery": 97 }).to_string().into_bytes()
}

/// A text that stands nowhere else.
pub fn marker(n: u64) -> String {
    format!("marker-{n:08}-end")
}

pub fn topic(device: &str) -> String {
    format!("{BASE}/{device}")
}

/// Presses and waits for the PUBACK.
pub async fn press(device: &mut Device, button: &str, n: u64) -> Result<Ack, NoAck> {
    device.publish(&topic(button), &press_body(n)).await
}

/// Sends a value and waits for the PUBACK.
pub async fn measure(device: &mut Device, sensor: &str, level: u64) -> Result<Ack, NoAck> {
    device.publish(&topic(sensor), json!({ "level": level }).to_string().as_bytes()).await
}

/// Whether a message is the event of a press of `button`; which one. The alarm that it raises tells its parameters too.
pub fn pressed(message: &Message, button: &str) -> Option<u64> {
    let data = &message.json["data"];
    let ours = message.text("class") == "event"
        && data["name"] == "button.pressed"
        && data["device"]["id"] == button
        && !message.retained;
    ours.then(|| message.param("n").as_u64())?
}

/// The numbers of all presses of `button`, in order of arrival, repeated ones too.
pub fn presses(messages: &[Message], button: &str) -> Vec<u64> {
    messages.iter().filter_map(|message| pressed(message, button)).collect()
}

/// Waits for an event by its name.
pub async fn await_event(platform: &Platform, name: &str, within: Duration) -> Message {
    let what = format!("the event {name}");
    platform.await_message(&what, within, |message| message.json["data"]["name"] == name).await
}
