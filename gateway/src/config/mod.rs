//! The configuration: reads files, collects every mistake with its place, assembles what the parts need.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::{BusName, ClientName, DeviceId, GatewayName, UplinkName};
use crate::model::place::Place;
use crate::north::config::UplinkConfig;
use crate::south::broker::config::{BrokerConfig, ClientConfig};
use crate::south::device::DeviceConfig;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The box itself.
    pub gateway: GatewayConfig,
    /// Buses and listeners towards devices.
    #[serde(default)]
    pub buses: BTreeMap<BusName, BusConfig>,
    /// Accounts at the embedded broker.
    #[serde(default)]
    pub clients: BTreeMap<ClientName, ClientConfig>,
    /// Devices.
    #[serde(default)]
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    /// Platforms.
    #[serde(default)]
    pub uplinks: BTreeMap<UplinkName, UplinkTable>,
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Name of this box, one per box: the third level of every topic.
    pub name: GatewayName,
    /// The compound (小区), as platforms know it: a code or a short name.
    #[schemars(length(min = 1, max = 64))]
    pub compound: String,
    /// Where the box is.
    #[serde(default)]
    pub place: Place,
    /// Directory of the journal. A relative path starts at the configuration file.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Local socket for `gatehouse status`; gatehouse.sock in `data_dir` if not given.
    pub socket: Option<PathBuf>,
    /// Directory of secrets: one file per client of the broker. A relative path starts at the configuration file.
    #[serde(default = "default_secrets_dir")]
    pub secrets_dir: PathBuf,
    /// Directory of further profiles. A relative path starts at the configuration file.
    pub profiles_dir: Option<PathBuf>,
    /// Address of `/metrics` and `/healthz`, loopback only; none if not given.
    #[schemars(with = "Option<String>")]
    pub http: Option<SocketAddr>,
}

/// `[buses.NAME.KIND]`: exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusConfig {
    /// The embedded MQTT broker.
    Broker(BrokerConfig),
}

/// `[uplinks.NAME.KIND]`: exactly one kind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UplinkTable {
    /// A platform reached by MQTT 5.
    Mqtt(UplinkConfig),
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/gatehouse")
}

fn default_secrets_dir() -> PathBuf {
    PathBuf::from("secrets")
}
