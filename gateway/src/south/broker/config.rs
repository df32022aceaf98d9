//! `[buses.NAME.broker]` and `[clients.NAME]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::BusName;

/// The embedded MQTT broker for devices on the local network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Address for MQTT with user name and password, for example "0.0.0.0:1883".
    #[schemars(with = "Option<String>", extend("format" = "ip-and-port"))]
    pub listen: Option<SocketAddr>,
    /// Listener for clients with certificates, on a port of its own.
    pub tls: Option<BrokerTls>,
    /// Connections at once.
    #[serde(default = "default_connections_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub connections_max: u32,
    /// Logins per second that are looked at; more are refused and counted.
    #[serde(default = "default_logins_per_s")]
    #[schemars(range(min = 1, max = 1_000))]
    pub logins_per_s: u32,
    /// How long the journal may take before a device's connection is closed without an acknowledgement.
    #[serde(default = "default_commit_timeout_ms")]
    #[schemars(range(min = 100, max = 30_000))]
    pub commit_timeout_ms: u32,
}

/// The broker's TLS listener. A client certificate is always required; its common name (CN) is the user name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTls {
    /// Address, for example "0.0.0.0:8883".
    #[schemars(with = "String", extend("format" = "ip-and-port"))]
    pub listen: SocketAddr,
    /// The broker's certificate chain, PEM.
    pub cert_file: PathBuf,
    /// The broker's private key, PEM.
    pub key_file: PathBuf,
    /// The authority that signed the clients' certificates, PEM.
    pub client_ca_file: PathBuf,
}

/// An account at the embedded broker. It speaks for the devices that name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The broker it logs in to; needed when there is more than one.
    pub bus: Option<BusName>,
    /// MQTT client id that this account must use; the account's name if not given.
    #[schemars(length(min = 1, max = 128))]
    pub client_id: Option<String>,
    /// Everything it publishes lies under this topic; the account's name if not given. Also `{base}` in profiles.
    #[schemars(length(min = 1, max = 128))]
    pub base: Option<String>,
    /// Topic filters it may subscribe to; none if not given. They must lie under `base`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub subscribe: Vec<String>,
    /// Logs in with a certificate on the TLS port instead of a password: the CN must be the account's name.
    #[serde(default)]
    pub certificate: bool,
}

const fn default_connections_max() -> u32 {
    512
}

const fn default_logins_per_s() -> u32 {
    10
}

const fn default_commit_timeout_ms() -> u32 {
    2_000
}
