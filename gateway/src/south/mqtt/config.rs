//! `[buses.NAME.mqtt]`: types, mistakes beyond types, and what it claims for itself alone.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::{BusName, GatewayName};
use crate::rt::mqtt::Peer;
use crate::south::topics::is_base;

/// An MQTT 5 broker on the local network that others run (mosquitto and the like), to which devices or Zigbee2MQTT
/// speak already. Its devices name this bus by `bus`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// `mqtt://host:1883`, `mqtts://host:8883`, `ws://host:80/mqtt` or `wss://host:443/mqtt`.
    #[schemars(regex(pattern = r"^(mqtt|mqtts|ws|wss)://.+"))]
    pub url: String,
    /// What stands for `{base}` in profiles, for example "zigbee2mqtt".
    #[schemars(length(min = 1, max = 128))]
    pub base: String,
    /// MQTT client id; `gatehouse-`, the gateway's name, `-` and the bus's name if not given. The broker keeps the session
    /// under it: a new one begins a new session.
    #[schemars(length(min = 1, max = 128))]
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File with the password, first line.
    pub password_file: Option<PathBuf>,
    /// The broker's certificate authority, PEM; the system's authorities if not given.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Client private key, PEM.
    pub key_file: Option<PathBuf>,
    /// How long the broker is asked to keep the session, and what was published meanwhile, while the gateway is away.
    #[serde(default = "default_session_expiry_h")]
    #[schemars(range(min = 1, max = 8_760))]
    pub session_expiry_h: u32,
    /// How long the journal may take before the connection is closed without an acknowledgement.
    #[serde(default = "default_commit_timeout_ms")]
    #[schemars(range(min = 100, max = 60_000))]
    pub commit_timeout_ms: u32,
}

impl MqttConfig {
    /// The broker and how to log in to it.
    pub fn peer(&self) -> Peer<'_> {
        Peer {
            url: &self.url,
            username: self.username.as_deref(),
            password_file: self.password_file.as_deref(),
            ca_file: self.ca_file.as_deref(),
            cert_file: self.cert_file.as_deref(),
            key_file: self.key_file.as_deref(),
        }
    }

    /// The client id it uses. Stable, since the session hangs on it.
    pub fn client_id(&self, gateway: &GatewayName, bus: &BusName) -> String {
        self.client_id.clone().unwrap_or_else(|| format!("gatehouse-{gateway}-{bus}"))
    }

    /// Mistakes beyond types, but for the keys of [`Self::peer`]; paths start at the root.
    pub fn problems(&self, bus: &BusName) -> Vec<Problem> {
        let base = &self.base;
        if is_base(base) {
            return Vec::new();
        }
        let path = ["buses", bus.as_str(), "mqtt", "base"];
        let problem = Problem::error(&path, format!("{base:?} is no topic to live under"));
        vec![problem.hint("write levels without wildcards, for example \"zigbee2mqtt\"")]
    }

    /// The client id at its broker: two with one id push each other off.
    pub fn claim(&self, gateway: Option<&GatewayName>, bus: &BusName) -> Claim {
        let key = if self.client_id.is_some() { "client_id" } else { "url" };
        let own = self.client_id.clone();
        let id = own.or_else(|| gateway.map(|gateway| self.client_id(gateway, bus)));
        let resource = Resource::ClientId(format!(
            "{}/{}",
            self.peer().authority(),
            id.unwrap_or_else(|| bus.to_string())
        ));
        Claim { path: ["buses", bus.as_str(), "mqtt", key].map(str::to_owned).to_vec(), resource }
    }
}

/// A long holiday with the box switched off.
const fn default_session_expiry_h() -> u32 {
    168
}

/// A batch of messages behind a slow flash card; no device waits for it.
const fn default_commit_timeout_ms() -> u32 {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> MqttConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_base_is_a_topic() {
        let bus = BusName::new("z").unwrap();
        for (base, good) in
            [("zigbee2mqtt", true), ("a/b", true), ("a/#", false), ("/a", true), ("/", false), ("a/", false)]
        {
            let problems = config(&format!("url = 'mqtt://h'\nbase = '{base}'")).problems(&bus);
            assert_eq!(problems.is_empty(), good, "{base}: {problems:?}");
        }
    }

    #[test]
    fn one_client_id_at_one_broker_is_claimed_once() {
        let gateway = GatewayName::new("g").unwrap();
        let claim = |text: &str, bus: &str| {
            let bus = BusName::new(bus).unwrap();
            config(&format!("base = 'z'\n{text}")).claim(Some(&gateway), &bus).resource
        };
        assert_ne!(claim("url = 'mqtt://h'", "a"), claim("url = 'mqtt://h'", "b"));
        let named = "client_id = 'x'\nurl = ";
        assert_eq!(
            claim(&format!("{named}'mqtt://H'"), "a"),
            claim(&format!("{named}'mqtt://h:1883/'"), "b")
        );
        assert_ne!(claim(&format!("{named}'mqtt://h'"), "a"), claim(&format!("{named}'mqtt://h:1884'"), "b"));
        assert_eq!(claim(&format!("{named}'mqtt://h'"), "a").to_string(), "MQTT client id \"h:1883/x\"");
    }
}
