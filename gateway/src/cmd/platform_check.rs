//! `gatehouse platform-check`: listens to a broker as a platform would, and reports what breaks the contract. Reads
//! only; publishes nothing. The checks themselves are `north::contract::audit`.
//!
//! Exit code: 0 nothing to report, 1 findings, 2 could not listen, or heard nothing at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::{
    AsyncClient, Broker, Event, EventLoop, IncomingPacketSizeLimit, MqttOptions, Packet, QoS,
    RetainForwardRule, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::time::Instant;

use crate::model::ids::GatewayName;
use crate::north::contract::audit::{Auditor, Options, Report};

/// Nothing to report.
pub const CLEAN: u8 = 0;
/// Something breaks the contract.
pub const FINDINGS: u8 = 1;
/// The broker could not be listened to, or nothing came.
pub const DEAF: u8 = 2;

/// Largest message taken at all: pictures on `up/evidence` may be large, and an oversize message is to be seen.
const PACKET_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// How long the first connection and its subscription may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Pause before a lost connection is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Listen to a broker as a platform would, and report holes, duplicates, schema breaks and late data (平台侧核查).
///
/// Exit code: 0 nothing to report, 1 findings, 2 could not listen or heard nothing.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The broker: `mqtt://host:1883`, `mqtts://host:8883`, `ws://host:80/mqtt` or `wss://host:443/mqtt`.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub url: String,
    /// First levels of every topic.
    #[arg(long, value_name = "TOPIC", default_value = "gatehouse")]
    pub root: String,
    /// Only this gateway; all of the root if not given.
    #[arg(long, value_name = "NAME", value_parser = gateway_name)]
    pub gateway: Option<GatewayName>,
    /// User name.
    #[arg(long)]
    pub username: Option<String>,
    /// File with the password, first line.
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// Certificate authority of the broker, PEM; the system's authorities if not given.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub cert: Option<PathBuf>,
    /// Client private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// How long to listen, as 30s, 10m or 2h; until Ctrl-C if not given.
    #[arg(long = "for", value_name = "TIME", value_parser = super::span)]
    pub span: Option<Duration>,
    /// Age in seconds from which a live record is late.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub late_s: u32,
    /// Listening begins before the gateway's first record: every number from 1 on is expected.
    #[arg(long)]
    pub from_start: bool,
    /// Report as JSON.
    #[arg(long)]
    pub json: bool,
}

fn gateway_name(text: &str) -> Result<GatewayName, String> {
    GatewayName::new(text).map_err(|error| error.to_string())
}

/// A broker's address taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    websocket: bool,
    host: String,
    port: u16,
}

impl Address {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url:?} has no scheme"))?;
        let (tls, websocket, usual) = match scheme {
            "mqtt" => (false, false, 1_883),
            "mqtts" => (true, false, 8_883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            other => bail!("{other:?} is no scheme; write mqtt, mqtts, ws or wss"),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            bail!("give user and password by --username and --password-file, not in the URL");
        }
        // An IPv6 address stands in brackets, so that its colons are not taken for the port's.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().with_context(|| format!("{port:?} is no port"))?)
            }
            _ => (authority, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            bail!("{url:?} names no host");
        }
        Ok(Self { tls, websocket, host, port })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn tls(args: &Args) -> anyhow::Result<TlsConfiguration> {
    // Somebody may have installed it before; one is as good as the other.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let Some(ca) = &args.ca else {
        return TlsConfiguration::try_default_rustls()
            .context("the system's certificate authorities cannot be read");
    };
    let client_auth = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
        _ => None,
    };
    Ok(TlsConfiguration::Simple { ca: read(ca)?, alpn: None, client_auth })
}

fn options(args: &Args) -> anyhow::Result<MqttOptions> {
    let address = Address::parse(&args.url)?;
    let id = format!("platform-check-{:08x}", fastrand::u32(..));
    let mut options = match (address.websocket, address.tls) {
        (true, true) => MqttOptions::websocket_with_tls_config(id, args.url.clone(), tls(args)?)
            .with_context(|| format!("{} is no WebSocket address", args.url))?,
        (true, false) => {
            let broker = Broker::websocket(args.url.clone());
            MqttOptions::new(id, broker.with_context(|| format!("{} is no WebSocket address", args.url))?)
        }
        (false, tls_wanted) => {
            let mut options = MqttOptions::new(id, Broker::tcp(address.host, address.port));
            if tls_wanted {
                options.set_transport(Transport::tls_with_config(tls(args)?));
            }
            options
        }
    };
    options.set_keep_alive(20);
    options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(PACKET_BYTES_MAX));
    if let Some(username) = &args.username {
        match &args.password_file {
            None => options.set_username(username.clone()),
            Some(path) => {
                let text = String::from_utf8(read(path)?).context("the password is not UTF-8")?;
                let password = text.lines().next().unwrap_or_default().to_owned();
                options.set_credentials(username.clone(), password)
            }
        };
    }
    Ok(options)
}

/// What the listening came to.
#[derive(Debug, serde::Serialize)]
struct Outcome {
    /// How often the connection to the broker was lost; what came meanwhile was not heard.
    interruptions: u32,
    #[serde(flatten)]
    report: Report,
}

/// Listens, reports on standard output, and returns the exit code. Findings show on standard error as they happen.
pub async fn run(args: Args) -> ExitCode {
    match listen(&args).await.and_then(|outcome| show(&args, &outcome)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(&format!("platform-check: {error:#}"));
            ExitCode::from(DEAF)
        }
    }
}

fn show(args: &Args, outcome: &Outcome) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(outcome)?)?;
    } else if outcome.report.messages > 0 {
        write!(out, "{}", outcome.report)?;
    }
    if outcome.interruptions > 0 {
        let lost = outcome.interruptions;
        tell(&format!("the broker was lost {lost} times: numbers missed meanwhile may be this check's own"));
    }
    if outcome.report.messages == 0 {
        let filter = filter(args);
        tell(&format!(
            "nothing was heard on {filter}: is the root right, and may this account read it? 未收到任何消息"
        ));
        return Ok(DEAF);
    }
    Ok(if outcome.report.is_clean() { CLEAN } else { FINDINGS })
}

/// A line for the person at the terminal. With standard error closed there is nobody to tell.
fn tell(line: &str) {
    if writeln!(io::stderr(), "{line}").is_err() {
        tracing::debug!(line, "standard error is closed");
    }
}

fn filter(args: &Args) -> String {
    let gateway = args.gateway.as_ref().map_or("+", GatewayName::as_str);
    format!("{}/v1/{gateway}/up/#", args.root)
}

/// The connection and what was heard on it.
struct Ear {
    client: AsyncClient,
    events: EventLoop,
    filter: String,
    auditor: Auditor,
    began: Instant,
    subscribed: bool,
    told: usize,
}

async fn listen(args: &Args) -> anyhow::Result<Outcome> {
    let audit = Options {
        late_ms: u64::from(args.late_s) * 1_000,
        from_start: args.from_start,
        retain_as_published: true,
    };
    let (client, events) = AsyncClient::builder(options(args)?).capacity(16).try_build()?;
    let (auditor, filter) = (Auditor::new(audit)?, filter(args));
    let mut ear = Ear { client, events, filter, auditor, began: Instant::now(), subscribed: false, told: 0 };
    let attempt = tokio::time::timeout(CONNECT_WITHIN, ear.subscribe()).await;
    attempt
        .map_err(|_elapsed| anyhow::anyhow!("no answer within {} s", CONNECT_WITHIN.as_secs()))
        .and_then(|subscribed| subscribed)
        .with_context(|| format!("cannot listen to {}", args.url))?;
    if !args.json {
        tell(&format!("listening to {} on {}; Ctrl-C ends 正在监听", ear.filter, args.url));
    }
    ear.began = Instant::now();
    let ends = args.span.map(|span| ear.began + span);
    let mut interruptions = 0_u32;
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    loop {
        let until = async {
            match ends {
                Some(ends) => tokio::time::sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until => break,
            signal = &mut stopped => {
                signal.context("Ctrl-C cannot be waited for")?;
                break;
            }
            heard = ear.hear() => {
                if let Err(error) = heard {
                    interruptions += 1;
                    ear.subscribed = false;
                    tell(&format!("the broker was lost: {error:#}; trying again"));
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
        if !args.json {
            ear.tell_new();
        }
    }
    Ok(Outcome { interruptions, report: ear.auditor.report() })
}

impl Ear {
    /// Hears until the subscription is granted.
    async fn subscribe(&mut self) -> anyhow::Result<()> {
        while !self.subscribed {
            self.hear().await?;
        }
        Ok(())
    }

    /// Takes one event of the connection. Subscribes after each new connection: the session is clean.
    async fn hear(&mut self) -> anyhow::Result<()> {
        match self.events.poll().await? {
            Event::Incoming(Packet::ConnAck(_)) => {
                let mut wanted = SubscribeFilter::new(self.filter.clone(), QoS::AtLeastOnce);
                wanted.preserve_retain = true;
                wanted.retain_forward_rule = RetainForwardRule::OnEverySubscribe;
                self.client.subscribe_many([wanted]).await?;
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                let refused =
                    answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some(code) = refused {
                    bail!("the broker does not let this account read {}: {code:?}", self.filter);
                }
                self.subscribed = true;
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let topic = String::from_utf8_lossy(&publish.topic);
                self.auditor.take(&topic, &publish.payload, publish.retain, at_ms);
            }
            Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_) => {}
        }
        Ok(())
    }

    fn tell_new(&mut self) {
        let findings = self.auditor.findings();
        for finding in findings.iter().skip(self.told) {
            tell(&finding.to_string());
        }
        self.told = findings.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("mqtt://broker", (false, false, "broker", 1_883)),
            ("mqtts://broker.example:8884", (true, false, "broker.example", 8_884)),
            ("mqtt://[::1]:1884", (false, false, "::1", 1_884)),
            ("mqtt://[fe80::1]", (false, false, "fe80::1", 1_883)),
            ("ws://broker:8080/mqtt", (false, true, "broker", 8_080)),
            ("wss://broker/mqtt", (true, true, "broker", 443)),
        ];
        for (url, (tls, websocket, host, port)) in cases {
            let expected = Address { tls, websocket, host: host.to_owned(), port };
            assert_eq!(Address::parse(url).unwrap(), expected, "{url}");
        }
        for bad in
            ["broker:1883", "http://broker", "mqtt://", "mqtt://user:word@broker", "mqtt://broker:99999"]
        {
            assert!(Address::parse(bad).is_err(), "{bad} was taken");
        }
    }
}
