//! From an uplink's configuration to the MQTT client's options: address, credentials, certificates, limits. Reads the
//! files that the configuration names, at each connection, so that a renewed certificate needs no restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Broker, LastWill, MqttOptions, NetworkOptions, QoS, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use crate::model::limits::DOWN_PAYLOAD_BYTES_MAX;
use crate::north::config::UplinkConfig;
use crate::north::contract::Outgoing;
use crate::rt::clock::{BUILD_FLOOR_MS, SharedClock};

use super::LinkError;

/// With it the broker notices a dead gateway, and sends its will, within 15 s.
const KEEP_ALIVE_S: u16 = 10;
/// DNS, TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Packet ids that are kept free beside twice the window: the client must never come to reuse one that is under way. It looks
/// through all of them at each flush, so there are no more than that.
const SPARE_PACKET_IDS: u16 = 128;
/// Largest packet taken from a broker: a message from a platform with its topic and properties.
const INCOMING_BYTES_MAX: u32 = 64 * 1024;
const _: () = assert!(INCOMING_BYTES_MAX as usize >= 2 * DOWN_PAYLOAD_BYTES_MAX);
/// Messages from platforms that the broker may send without our PUBACK.
const INCOMING_AT_ONCE: u16 = 32;

/// Certificates are judged at the wall clock, but never before the software was built: a box whose clock boots in
/// 1970 could connect to nobody.
#[derive(Debug)]
struct CertificateClock(SharedClock);

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ms = self.0.now().wall_ms.max(BUILD_FLOOR_MS);
        let since = Duration::from_millis(u64::try_from(wall_ms).unwrap_or(0));
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// The parts of `scheme://host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

fn address(url: &str) -> Result<Address<'_>, LinkError> {
    let wrong = |what: &str| LinkError::Config(format!("the url {url:?} {what}"));
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

fn read(what: &str, path: &Path) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path)
        .map_err(|error| LinkError::Config(format!("the {what} {} cannot be read: {error}", path.display())))
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let wrong = |why: String| LinkError::Config(format!("the {what} {} {why}", path.display()));
    let pem = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(found)
}

fn roots(config: &UplinkConfig) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    let found = match &config.ca_file {
        Some(path) => certificates("certificate authority", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _ignored) = roots.add_parsable_certificates(found);
    if added == 0 {
        let hint = "install ca-certificates or set `ca_file`";
        return Err(LinkError::Config(format!("no certificate authority is known on this box; {hint}")));
    }
    Ok(roots)
}

fn tls(config: &UplinkConfig, clock: &SharedClock) -> Result<TlsConfiguration, LinkError> {
    let broken = |error: rustls::Error| LinkError::Config(format!("TLS cannot be set up: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(CertificateClock(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .with_root_certificates(roots(config)?);
    let built = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates("client certificate", cert)?;
            let pem = read("client key", key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
                LinkError::Config(format!("the client key {} is no PEM key: {error}", key.display()))
            })?;
            builder.with_client_auth_cert(chain, key).map_err(broken)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(LinkError::Config("`cert_file` and `key_file` belong together".to_owned())),
    };
    Ok(TlsConfiguration::Rustls(Arc::new(built)))
}

fn broker(config: &UplinkConfig, client_id: &str, clock: &SharedClock) -> Result<MqttOptions, LinkError> {
    let Address { scheme, host, port } = address(&config.url)?;
    let wrong = |error: rumqttc::OptionError| LinkError::Config(format!("the url {:?}: {error}", config.url));
    Ok(match scheme {
        "mqtt" => MqttOptions::new(client_id, Broker::tcp(host, port)),
        "mqtts" => {
            let mut options = MqttOptions::new(client_id, Broker::tcp(host, port));
            options.set_transport(Transport::tls_with_config(tls(config, clock)?));
            options
        }
        "ws" => MqttOptions::new(client_id, Broker::websocket(config.url.as_str()).map_err(wrong)?),
        _ => MqttOptions::websocket_with_tls_config(client_id, config.url.as_str(), tls(config, clock)?)
            .map_err(wrong)?,
    })
}

/// The options of one connection. `will` is what the broker says when it loses this connection.
pub(super) fn options(
    config: &UplinkConfig,
    client_id: &str,
    will: Outgoing,
    clock: &SharedClock,
) -> Result<MqttOptions, LinkError> {
    let mut options = broker(config, client_id, clock)?;
    options
        .set_keep_alive(KEEP_ALIVE_S)
        .set_clean_start(true)
        .set_connect_timeout(CONNECT_TIMEOUT)
        .set_max_packet_size(Some(INCOMING_BYTES_MAX))
        .set_receive_maximum(Some(INCOMING_AT_ONCE))
        .set_outgoing_inflight_upper_limit(
            config.pacing.inflight.saturating_mul(2).saturating_add(SPARE_PACKET_IDS),
        )
        .set_max_request_batch(16)
        .set_last_will(LastWill::new(will.topic, will.payload.to_vec(), QoS::AtLeastOnce, will.retain, None));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let password = match &config.password_file {
        Some(path) => {
            let text = String::from_utf8(read("password file", path)?)
                .map_err(|_not_text| LinkError::Config(format!("{} is not text", path.display())))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None => None,
    };
    match (&config.username, password) {
        (Some(name), Some(password)) => {
            options.set_credentials(name.clone(), password);
        }
        (Some(name), None) => {
            options.set_username(name.clone());
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
            assert!(matches!(address(url), Err(LinkError::Config(_))), "{url}");
        }
    }

    #[test]
    fn certificates_are_never_judged_in_1970() {
        let clock = Arc::new(crate::rt::clock::ManualClock::new());
        let judged = CertificateClock(clock.clone());
        let before = judged.current_time().unwrap().as_secs();
        clock.jump_wall_ms(-1_780_272_000_000);
        let after = judged.current_time().unwrap().as_secs();
        assert!(before > after);
        assert_eq!(i64::try_from(after).unwrap() * 1_000, BUILD_FLOOR_MS);
    }
}
