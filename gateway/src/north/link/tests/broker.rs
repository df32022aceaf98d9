//! A scripted `MQTT` 5 broker for one client: hand-made packets, so that it can do what real brokers do rarely. Just
//! enough of the protocol for the link.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::tokio_rustls::TlsAcceptor;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::rt::packets::{packet, read_packet};

/// What the broker does with a publish.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Code(u8),
    Swallow,
    Late(Duration),
    /// The connection ends without a word.
    Close,
    /// DISCONNECT with this code.
    Disconnect(u8),
}

/// A publish of the gateway.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) connection: usize,
    pub(super) topic: String,
    pub(super) retain: bool,
    pub(super) json: serde_json::Value,
}

impl Heard {
    pub(super) fn id(&self) -> &str {
        self.json["id"].as_str().unwrap()
    }
}

type Decide = Box<dyn FnMut(&Heard) -> Answer + Send>;

pub(super) struct Script {
    /// By connection; the last one is repeated.
    pub(super) connack: Vec<u8>,
    /// For `down/#` and for the own state.
    pub(super) suback: [u8; 2],
    /// Sent after the SUBACK, retained.
    pub(super) retained: Vec<(String, String)>,
    pub(super) decide: Decide,
}

impl Default for Script {
    fn default() -> Self {
        Self { connack: vec![0], suback: [1, 1], retained: Vec::new(), decide: Box::new(|_| Answer::Code(0)) }
    }
}

pub(super) struct Broker {
    pub(super) url: String,
    heard_rx: mpsc::Receiver<Heard>,
    send_tx: mpsc::Sender<Vec<u8>>,
    pub(super) script: Arc<Mutex<Script>>,
    _tasks: JoinSet<()>,
}

impl Broker {
    pub(super) async fn start(script: Script) -> Self {
        Self::start_on(script, None).await
    }

    /// The same over TLS; only clients with a certificate of `authority` get in.
    pub(super) async fn start_tls(script: Script, authority: &Authority) -> Self {
        Self::start_on(script, Some(authority.acceptor())).await
    }

    async fn start_on(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match tls {
            None => format!("mqtt://127.0.0.1:{port}"),
            Some(_) => format!("mqtts://localhost:{port}"),
        };
        let (heard_tx, heard_rx) = mpsc::channel(10_000);
        let (send_tx, mut send_rx) = mpsc::channel(100);
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connection = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connection += 1;
                // A client that goes away in the middle is what these tests are about.
                let served = match &tls {
                    None => serve(stream, connection, &shared, &heard_tx, &mut send_rx).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve(stream, connection, &shared, &heard_tx, &mut send_rx).await,
                        Err(error) => Err(error),
                    },
                };
                if let Err(error) = served {
                    println!("connection {connection} broke: {error}");
                }
            }
        });
        Self { url, heard_rx, send_tx, script, _tasks: tasks }
    }

    /// The next publish of the gateway.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::time::timeout(Duration::from_secs(20), self.heard_rx.recv())
            .await
            .expect("nothing came")
            .unwrap()
    }

    /// The next publish below a topic's end.
    pub(super) async fn next_on(&mut self, end: &str) -> Heard {
        loop {
            let heard = self.next().await;
            if heard.topic.ends_with(end) {
                return heard;
            }
        }
    }

    /// What came and was not looked at yet.
    pub(super) fn rest(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard_rx.try_recv().ok()).collect()
    }

    pub(super) async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        self.send_tx.send(publish(topic, payload, retain)).await.unwrap();
    }
}

/// At `QoS` 0: what comes to the gateway is not what is tested here.
fn publish(topic: &str, payload: &str, retain: bool) -> Vec<u8> {
    let topic_length = u16::try_from(topic.len()).unwrap().to_be_bytes();
    let body = [&topic_length, topic.as_bytes(), &[0], payload.as_bytes()].concat();
    packet(0x30 | u8::from(retain), &body)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    connection: usize,
    script: &Mutex<Script>,
    heard_tx: &mpsc::Sender<Heard>,
    send_rx: &mut mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let (packets_tx, mut packets_rx) = mpsc::channel(1_000);
    let reading = async move {
        let mut reader = std::pin::pin!(reader);
        while let Ok(packet) = read_packet(&mut reader).await {
            if packets_tx.send(packet).await.is_err() {
                return;
            }
        }
    };
    let acting = async {
        let mut late: JoinSet<Vec<u8>> = JoinSet::new();
        loop {
            let (first, body) = tokio::select! {
                packet = packets_rx.recv() => match packet {
                    Some(packet) => packet,
                    None => return Ok(()),
                },
                Some(bytes) = send_rx.recv() => {
                    writer.write_all(&bytes).await?;
                    continue;
                }
                Some(bytes) = late.join_next() => {
                    writer.write_all(&bytes.unwrap()).await?;
                    continue;
                }
            };
            let (reply, goes_on) = match first >> 4 {
                1 => connack(script, connection),
                3 => {
                    let (heard, id) = parse_publish(first, &body, connection);
                    let answer = (script.lock().unwrap().decide)(&heard);
                    heard_tx.try_send(heard).unwrap();
                    answer_publish(answer, id, &mut late)
                }
                8 => (suback(script, &body), true),
                12 => (vec![0xd0, 0], true),
                _ => (Vec::new(), true),
            };
            writer.write_all(&reply).await?;
            if !goes_on {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = acting => result,
        () = async { reading.await; std::future::pending::<()>().await } => Ok(()),
    }
}

/// The reply, and whether the connection goes on.
fn connack(script: &Mutex<Script>, connection: usize) -> (Vec<u8>, bool) {
    let script = script.lock().unwrap();
    let code = *script.connack.get(connection - 1).or(script.connack.last()).unwrap();
    (packet(0x20, &[0, code, 0]), code == 0)
}

fn suback(script: &Mutex<Script>, body: &[u8]) -> Vec<u8> {
    let script = script.lock().unwrap();
    let mut reply = packet(0x90, &[body[0], body[1], 0, script.suback[0], script.suback[1]]);
    for (topic, payload) in &script.retained {
        reply.extend(publish(topic, payload, true));
    }
    reply
}

fn answer_publish(answer: Answer, id: [u8; 2], late: &mut JoinSet<Vec<u8>>) -> (Vec<u8>, bool) {
    let puback = |code: u8| packet(0x40, &[id[0], id[1], code, 0]);
    match answer {
        Answer::Code(code) => (puback(code), true),
        Answer::Swallow => (Vec::new(), true),
        Answer::Late(delay) => {
            let bytes = puback(0);
            late.spawn(async move {
                tokio::time::sleep(delay).await;
                bytes
            });
            (Vec::new(), true)
        }
        Answer::Close => (Vec::new(), false),
        Answer::Disconnect(code) => (packet(0xe0, &[code, 0]), false),
    }
}

fn parse_publish(first: u8, body: &[u8], connection: usize) -> (Heard, [u8; 2]) {
    assert_eq!(first & 0x06, 0x02, "every publish is at QoS 1");
    let topic_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..2 + topic_length].to_vec()).unwrap();
    let id = [body[2 + topic_length], body[3 + topic_length]];
    assert_eq!(body[4 + topic_length], 0, "the contract needs no properties");
    let json = serde_json::from_slice(&body[5 + topic_length..]).unwrap();
    (Heard { connection, topic, retain: first & 1 == 1, json }, id)
}

/// A certificate authority for tests.
pub(super) struct Authority {
    cert: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { cert, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(super) fn pem(&self) -> String {
        self.cert.pem()
    }

    /// Certificate and key, PEM.
    pub(super) fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.cert.der().clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
