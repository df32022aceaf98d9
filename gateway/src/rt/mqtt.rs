//! From the keys that name an MQTT broker to a client's options: address, credentials, certificates. What uplinks and
//! LAN brokers have in common; must not know what is said. Reads the files that the configuration names, at each
//! connection, so that a renewed certificate needs no restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Broker, MqttOptions, NetworkOptions, TlsConfiguration, Transport};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::certificates::{CertificateClock, PatientServerVerifier};
use super::clock::SharedClock;

/// With it a broker notices a dead gateway within 15 s.
const KEEP_ALIVE_S: u16 = 10;
/// DNS, TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A broker and how to log in to it, as the configuration says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peer<'a> {
    /// `mqtt://`, `mqtts://`, `ws://` or `wss://`, host, port, and a path for the last two.
    pub url: &'a str,
    pub username: Option<&'a str>,
    /// File with the password, first line.
    pub password_file: Option<&'a Path>,
    /// The broker's authority, PEM; the system's authorities if none.
    pub ca_file: Option<&'a Path>,
    /// Client certificate chain and its key, PEM.
    pub cert_file: Option<&'a Path>,
    pub key_file: Option<&'a Path>,
}

impl Peer<'_> {
    /// Host and port in one way of writing, to compare: `host:1883`. A URL that is none stands as it is.
    pub fn authority(&self) -> String {
        match address(self.url) {
            Ok(Address { host, port, .. }) => format!("{}:{port}", host.to_ascii_lowercase()),
            Err(_) => self.url.to_owned(),
        }
    }

    /// Host of the broker; empty where the URL names none.
    pub fn host(&self) -> &str {
        address(self.url).map_or("", |address| address.host)
    }
}

/// A person must mend the configuration or a file that it names; the file may also come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PeerError(pub String);

/// The parts of `scheme://host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

fn address(url: &str) -> Result<Address<'_>, PeerError> {
    let wrong = |what: &str| PeerError(format!("the url {url:?} {what}"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    let default = match scheme {
        "mqtt" => 1_883,
        "mqtts" => 8_883,
        "ws" => 80,
        "wss" => 443,
        _ => return Err(wrong("is none of mqtt://, mqtts://, ws://, wss://")),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong("holds credentials; use `username` and `password_file`"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, tail) = v6.split_once(']').ok_or_else(|| wrong("has an unclosed '['"))?;
            (host, tail.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    let port = match port {
        None => default,
        Some(text) => text.parse().map_err(|_not_a_port| wrong("has a port that is no number"))?,
    };
    Ok(Address { scheme, host, port })
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, PeerError> {
    std::fs::read(path)
        .map_err(|error| PeerError(format!("the {what} {} cannot be read: {error}", path.display())))
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PeerError> {
    let wrong = |why: String| PeerError(format!("the {what} {} {why}", path.display()));
    let pem = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(found)
}

fn roots(peer: &Peer<'_>) -> Result<RootCertStore, PeerError> {
    let mut roots = RootCertStore::empty();
    let found = match peer.ca_file {
        Some(path) => certificates("certificate authority", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _ignored) = roots.add_parsable_certificates(found);
    if added == 0 {
        let hint = "install ca-certificates or set `ca_file`";
        return Err(PeerError(format!("no certificate authority is known on this box; {hint}")));
    }
    Ok(roots)
}

fn tls(peer: &Peer<'_>, clock: &SharedClock) -> Result<TlsConfiguration, PeerError> {
    Ok(TlsConfiguration::Rustls(client_config(peer, clock)?))
}

/// TLS as every client of this house speaks it.
pub(super) fn client_config(peer: &Peer<'_>, clock: &SharedClock) -> Result<Arc<ClientConfig>, PeerError> {
    let broken = |error: rustls::Error| PeerError(format!("TLS cannot be set up: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(peer)?), Arc::clone(&provider))
        .build()
        .map_err(|error| PeerError(format!("the certificate authorities cannot be used: {error}")))?;
    let judge = PatientServerVerifier { inner: judge, clock: clock.clone() };
    // "Dangerous" is any verifier of one's own; this one is rustls' with a look at the calendar.
    let builder = ClientConfig::builder_with_details(provider, Arc::new(CertificateClock(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let built = match (peer.cert_file, peer.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates("client certificate", cert)?;
            let pem = read("client key", key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
                PeerError(format!("the client key {} is no PEM key: {error}", key.display()))
            })?;
            builder.with_client_auth_cert(chain, key).map_err(broken)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(PeerError("`cert_file` and `key_file` belong together".to_owned())),
    };
    Ok(Arc::new(built))
}

fn broker(peer: &Peer<'_>, client_id: &str, clock: &SharedClock) -> Result<MqttOptions, PeerError> {
    let Address { scheme, host, port } = address(peer.url)?;
    let wrong = |error: rumqttc::OptionError| PeerError(format!("the url {:?}: {error}", peer.url));
    Ok(match scheme {
        "mqtt" => MqttOptions::new(client_id, Broker::tcp(host, port)),
        "mqtts" => {
            let mut options = MqttOptions::new(client_id, Broker::tcp(host, port));
            options.set_transport(Transport::tls_with_config(tls(peer, clock)?));
            options
        }
        "ws" => MqttOptions::new(client_id, Broker::websocket(peer.url).map_err(wrong)?),
        _ => MqttOptions::websocket_with_tls_config(client_id, peer.url, tls(peer, clock)?).map_err(wrong)?,
    })
}

/// The options of one connection, with address, transport and credentials set.
///
/// # Errors
/// The address is none, or a file cannot be used.
pub fn options(peer: &Peer<'_>, client_id: &str, clock: &SharedClock) -> Result<MqttOptions, PeerError> {
    let mut options = broker(peer, client_id, clock)?;
    options.set_keep_alive(KEEP_ALIVE_S).set_connect_timeout(CONNECT_TIMEOUT);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let password = match peer.password_file {
        Some(path) => {
            let text = String::from_utf8(read("password file", path)?)
                .map_err(|_not_text| PeerError(format!("{} is not text", path.display())))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None => None,
    };
    match (peer.username, password) {
        (Some(name), Some(password)) => {
            options.set_credentials(name, password);
        }
        (Some(name), None) => {
            options.set_username(name);
        }
        (None, Some(password)) => {
            options.set_password(password);
        }
        (None, None) => {}
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let table = [
            ("mqtt://broker", "mqtt", "broker", 1_883),
            ("mqtts://broker.example:8884", "mqtts", "broker.example", 8_884),
            ("ws://10.0.0.1/mqtt", "ws", "10.0.0.1", 80),
            ("wss://h:9443/a/b", "wss", "h", 9_443),
            ("mqtt://[::1]:1884", "mqtt", "::1", 1_884),
            ("mqtts://[fe80::1]", "mqtts", "fe80::1", 8_883),
        ];
        for (url, scheme, host, port) in table {
            assert_eq!(address(url).unwrap(), Address { scheme, host, port }, "{url}");
        }
        for url in ["broker:1883", "http://x", "mqtt://", "mqtt://u:p@h", "mqtt://h:many", "mqtt://[::1"] {
            assert!(address(url).is_err(), "{url}");
        }
    }
}
