//! `[uplinks.NAME.mqtt]`: a platform.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::record::{Category, Class};
use crate::rt::mqtt::Peer;

/// A platform reached by MQTT 5.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// `mqtt://host:1883`, `mqtts://host:8883`, `ws://host:80/mqtt` or `wss://host:443/mqtt`.
    #[schemars(regex(pattern = r"^(mqtt|mqtts|ws|wss)://.+"))]
    pub url: String,
    /// First levels of every topic: `{root}/v1/{gateway}/up/…`.
    #[serde(default = "default_root")]
    #[schemars(regex(pattern = r"^[^+#/\x00]+(/[^+#/\x00]+)*$"), length(max = 128))]
    pub root: String,
    /// MQTT client id; `gatehouse-`, the gateway's name, `-` and the uplink's name if not given.
    #[schemars(length(min = 1, max = 128))]
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File with the password, first line.
    pub password_file: Option<PathBuf>,
    /// The platform's certificate authority, PEM; the system's authorities if not given.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Client private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Whether this platform may tell the time (NTP is often blocked). One platform alone is believed only while the box
    /// does not know the time; see "Time" in docs/platform.
    #[serde(default = "default_time")]
    pub time: bool,
    /// When a record counts as delivered.
    #[serde(default)]
    #[schemars(extend("default" = "broker"))]
    pub delivery: Delivery,
    /// What this platform may see (数据共享清单).
    #[serde(default)]
    pub filter: Filter,
    /// What this platform may order.
    #[serde(default)]
    pub commands: CommandsConfig,
    /// How fast it connects and sends after an outage.
    #[serde(default)]
    pub pacing: Pacing,
}

impl UplinkConfig {
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
}

/// Delivery level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// The broker's PUBACK.
    #[default]
    Broker,
    /// The platform's `down/receipt`, which says up to where it has stored.
    Receipt,
}

/// What a platform may see. Absent lists mean everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Classes of records.
    pub classes: Option<Vec<Class>>,
    /// Categories of events and alarms.
    pub categories: Option<Vec<Category>>,
    /// Buildings; a record without a building is then not sent.
    pub buildings: Option<Vec<String>>,
    /// Fields of `place` that are left out, for example "household".
    #[serde(default)]
    pub hide: Vec<PlaceField>,
    /// File with a secret of 16 bytes or more; households then travel as keyed pseudonyms (假名化).
    pub pseudonym_key_file: Option<PathBuf>,
    /// Whether it may see the everyday talk of sensors in households under care (`[care.NAME]`): their values, and events
    /// that call for nobody. Alarms of care go to every platform that may see their category and place.
    #[serde(default)]
    pub care_signals: bool,
}

/// What a platform may order. What it may not see (`filter`) it may not order either.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandsConfig {
    /// Names of commands; `alarm.*` means all that begin so. Doors, relays, set points, speakers, support bundles and rules
    /// only if they stand here; the last two concern the whole compound, so that a platform with `places`, or whose
    /// filter has buildings or categories or leaves alarms out, cannot have them.
    #[schemars(inner(regex(pattern = r"^[a-z][a-z_]*(\.[a-z_]+|\.\*)?$")))]
    pub allow: Vec<String>,
    /// Where.
    pub places: CommandPlaces,
}

impl Default for CommandsConfig {
    fn default() -> Self {
        let allow = ["replay", "snapshot", "alarm.*"].map(str::to_owned).to_vec();
        Self { allow, places: CommandPlaces::default() }
    }
}

/// Where a platform's orders reach. Absent means everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandPlaces {
    /// Buildings; what has no building is then out of reach.
    pub buildings: Option<Vec<String>>,
}

/// A field of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaceField {
    Code,
    Grid,
    Building,
    Unit,
    Floor,
    Household,
}

/// Pacing: 20 000 boxes come back at once after a regional outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// Longest random delay before a reconnection, once a minute down.
    #[schemars(range(min = 1, max = 3_600))]
    pub reconnect_max_s: u32,
    /// The same while a critical record waits.
    #[schemars(range(min = 1, max = 3_600))]
    pub reconnect_critical_max_s: u32,
    /// Longest random delay before the backlog starts.
    #[schemars(range(min = 0, max = 3_600))]
    pub backlog_delay_max_s: u32,
    /// Backlog records per second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub backlog_per_s: u32,
    /// Publishes without a PUBACK at once, both streams together.
    #[schemars(range(min = 1, max = 1_000))]
    pub inflight: u16,
    /// A PUBACK later than this means that the link is cut.
    #[schemars(range(min = 1, max = 60))]
    pub puback_timeout_s: u32,
    /// Tries of a record that the platform refuses for its own sake.
    #[schemars(range(min = 1, max = 100))]
    pub refusal_tries: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            reconnect_max_s: 120,
            reconnect_critical_max_s: 5,
            backlog_delay_max_s: 60,
            backlog_per_s: 50,
            inflight: 64,
            puback_timeout_s: 8,
            refusal_tries: 5,
        }
    }
}

const fn default_time() -> bool {
    true
}

fn default_root() -> String {
    "gatehouse".to_owned()
}
