//! `[buses.NAME.broker]` and `[clients.NAME]`: types, mistakes beyond types, and what they claim for themselves alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::{BusName, ClientName};
use crate::south::topics::{is_base, is_filter, lies_under};

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
    /// Wrong logins per second and source address that are answered; more wait in line, and beyond that are refused
    /// and counted.
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

impl BrokerConfig {
    /// Mistakes beyond types; paths start at the root.
    pub fn problems(&self, bus: &BusName) -> Vec<Problem> {
        let mut out = Vec::new();
        let path = ["buses", bus.as_str(), "broker"];
        if self.listen.is_none() && self.tls.is_none() {
            let hint = "add listen = \"0.0.0.0:1883\", or a table `tls`";
            out.push(Problem::error(&path, "the broker listens nowhere").hint(hint));
        }
        out
    }

    /// The ports it opens.
    pub fn claims(&self, bus: &BusName) -> Vec<Claim> {
        let path = |keys: &[&str]| {
            ["buses", bus.as_str(), "broker"].iter().chain(keys).map(|key| (*key).to_owned()).collect()
        };
        let plain = self.listen.map(|address| (path(&["listen"]), address));
        let tls = self.tls.as_ref().map(|tls| (path(&["tls", "listen"]), tls.listen));
        let claim = |(path, address)| Claim { path, resource: Resource::Tcp(address) };
        plain.into_iter().chain(tls).map(claim).collect()
    }
}

impl ClientConfig {
    /// The client id it must use.
    pub fn client_id<'a>(&'a self, name: &'a ClientName) -> &'a str {
        self.client_id.as_deref().unwrap_or(name.as_str())
    }

    /// The topic it lives under.
    pub fn base<'a>(&'a self, name: &'a ClientName) -> &'a str {
        self.base.as_deref().unwrap_or(name.as_str())
    }

    /// The broker it logs in to: the one it names, or the only one.
    pub fn bus<'a>(&'a self, brokers: &BTreeMap<BusName, &'a BrokerConfig>) -> Option<BusName> {
        match (&self.bus, brokers.len()) {
            (Some(bus), _) => Some(bus.clone()),
            (None, 1) => brokers.keys().next().cloned(),
            (None, _) => None,
        }
    }
}

/// Mistakes of all clients, alone and together, given all brokers; paths start at the root.
pub fn client_problems(
    clients: &BTreeMap<ClientName, ClientConfig>,
    brokers: &BTreeMap<BusName, &BrokerConfig>,
) -> Vec<Problem> {
    let mut out = Vec::new();
    for (name, client) in clients {
        one_client(&mut out, name, client, brokers);
    }
    let names: Vec<_> = clients.iter().collect();
    for (index, (name, client)) in names.iter().enumerate() {
        for (other_name, other) in names.iter().take(index) {
            if client.bus(brokers) == other.bus(brokers) {
                overlaps(&mut out, (name, client), (other_name, other));
            }
        }
    }
    out
}

fn one_client(
    out: &mut Vec<Problem>,
    name: &ClientName,
    client: &ClientConfig,
    brokers: &BTreeMap<BusName, &BrokerConfig>,
) {
    let at = |key| ["clients", name.as_str(), key];
    let base = client.base(name);
    if !is_base(base) {
        let problem = Problem::error(&at("base"), format!("{base:?} is no topic to live under"));
        out.push(problem.hint("write levels without wildcards, for example \"zigbee2mqtt\""));
    }
    for filter in &client.subscribe {
        if !is_filter(filter) {
            let problem = Problem::error(&at("subscribe"), format!("{filter:?} is no topic filter"));
            out.push(problem.hint("`+` and `#` fill a whole level, `#` only the last"));
        } else if !lies_under(base, filter) {
            let problem = Problem::error(&at("subscribe"), format!("{filter:?} does not lie under {base:?}"));
            out.push(problem.hint(format!("write {:?}", format!("{base}/#"))));
        }
    }
    let broker = match client.bus(brokers) {
        None if brokers.is_empty() => {
            let hint = "add a table [buses.lan.broker]";
            out.push(
                Problem::error(&["clients", name.as_str()], "there is no broker to log in to").hint(hint),
            );
            None
        }
        None => {
            let known: Vec<_> = brokers.keys().map(BusName::as_str).collect();
            let problem = Problem::error(&["clients", name.as_str()], "there are several brokers: say which");
            out.push(problem.hint(format!("add bus = one of {}", known.join(", "))));
            None
        }
        Some(bus) if !brokers.contains_key(&bus) => {
            out.push(Problem::error(&at("bus"), format!("there is no broker {bus:?}")));
            None
        }
        Some(bus) => brokers.get(&bus),
    };
    let Some(broker) = broker else { return };
    if client.certificate && broker.tls.is_none() {
        let problem = Problem::error(&at("certificate"), "the broker has no TLS listener for certificates");
        out.push(problem.hint("add a table `tls` to the broker"));
    }
    if !client.certificate && broker.listen.is_none() {
        let problem = Problem::error(&["clients", name.as_str()], "the broker has no listener for passwords");
        out.push(problem.hint("add `listen` to the broker, or certificate = true here"));
    }
}

fn overlaps(
    out: &mut Vec<Problem>,
    (name, client): (&ClientName, &ClientConfig),
    (other_name, other): (&ClientName, &ClientConfig),
) {
    let (base, other_base) = (client.base(name), other.base(other_name));
    if base == other_base || lies_under(base, other_base) || lies_under(other_base, base) {
        let message = format!("the base {base:?} overlaps {other_base:?} of client {other_name}");
        out.push(Problem::error(&["clients", name.as_str(), "base"], message));
    }
    if client.client_id(name) == other.client_id(other_name) {
        let message = format!("client {other_name} has the client id {:?} too", client.client_id(name));
        let problem = Problem::error(&["clients", name.as_str(), "client_id"], message);
        out.push(problem.hint("each client of a broker needs its own"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(clients: &str, broker: &str) -> Vec<String> {
        let broker: BrokerConfig = toml::from_str(broker).unwrap();
        let clients: BTreeMap<ClientName, ClientConfig> = toml::from_str(clients).unwrap();
        let lan = BusName::new("lan").unwrap();
        let mut out = broker.problems(&lan);
        out.extend(client_problems(&clients, &BTreeMap::from([(lan, &broker)])));
        out.iter().map(|problem| problem.path.join(".")).collect()
    }

    #[test]
    fn mistakes_are_found_at_their_keys() {
        const PLAIN: &str = r#"listen = "0.0.0.0:1883""#;
        let none: [&str; 0] = [];
        assert_eq!(problems("[z2m]\nsubscribe = ['z2m/#']\n[other]", PLAIN), none);
        assert_eq!(problems("[z2m]", ""), ["buses.lan.broker", "clients.z2m"]);
        for (clients, expected) in [
            ("[a]\nbase = 'x'\n[b]\nbase = 'x/y'", "clients.b.base"),
            ("[a]\nbase = 'x/y'\n[b]\nbase = 'x'", "clients.b.base"),
            ("[a]\nclient_id = 'b'\n[b]", "clients.b.client_id"),
            ("[a]\nsubscribe = ['#']", "clients.a.subscribe"),
            ("[a]\nsubscribe = ['a/b#']", "clients.a.subscribe"),
            ("[a]\ncertificate = true", "clients.a.certificate"),
            ("[a]\nbus = 'wan'", "clients.a.bus"),
            ("[a]\nbase = 'x/+'", "clients.a.base"),
            ("[a]\nbase = '$x'", "clients.a.base"),
        ] {
            assert_eq!(problems(clients, PLAIN), [expected], "{clients}");
        }
        assert_eq!(problems("[a]\nbase = 'x'\n[b]\nbase = 'xy'", PLAIN), none);
        let slash = "[a]\nbase = '/sys/pk'\nsubscribe = ['/sys/pk/+/thing/service/#']\n[b]\nbase = 'sys/pk'";
        assert_eq!(problems(slash, PLAIN), none);
    }

    #[test]
    fn two_ports_are_claimed() {
        let text = r#"
            listen = "0.0.0.0:1883"
            tls = { listen = "0.0.0.0:8883", cert_file = "c", key_file = "k", client_ca_file = "a" }
        "#;
        let broker: BrokerConfig = toml::from_str(text).unwrap();
        let claims = broker.claims(&BusName::new("lan").unwrap());
        let paths: Vec<_> = claims.iter().map(|claim| claim.path.join(".")).collect();
        assert_eq!(paths, ["buses.lan.broker.listen", "buses.lan.broker.tls.listen"]);
    }
}
