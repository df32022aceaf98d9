//! Who may log in as which, by password, generated secret and certificate, and under a flood of guesses.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bench::{BUTTON, Bench, COMPOUND, Client, Connect, PRESS};
use crate::model::refusal::Refusal;
use crate::south::broker::inner_server;
use crate::south::broker::secrets::{Secret, write_secret};

async fn try_login(bench: &Bench, connect: Connect<'_>) -> Option<u8> {
    Client::new(TcpStream::connect(bench.plain()).await.unwrap(), 4).connect(connect).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_name_secret_and_its_own_client_id_and_evicts_nobody() {
    let bench = Bench::new().await;
    let mut rightful = bench.client("z2m").await;
    let right = bench.secrets["other"].as_str();
    for (user, password, id, reason, source) in [
        (Some("other"), Some(right), "z2m-1", Refusal::ClientIdNotOwned, "other"),
        (Some("other"), Some(right), "", Refusal::ClientIdNotOwned, "other"),
        (Some("z2m"), Some("guess"), "z2m-1", Refusal::WrongPassword, "z2m"),
        (Some("z2m"), None, "z2m-1", Refusal::WrongPassword, "z2m"),
        (Some("admin"), Some("admin"), "z2m-1", Refusal::UnknownClient, "lan"),
        (None, None, "z2m-1", Refusal::UnknownClient, "lan"),
    ] {
        let before = bench.refusals(source, reason);
        let code = try_login(&bench, Connect { id, user, password, ..Connect::default() }).await;
        assert!(code.is_some_and(|code| code != 0), "{user:?} {password:?} {id:?}: {code:?}");
        assert_eq!(bench.refusals(source, reason), before + 1, "{user:?} {password:?} {id:?}");
    }
    assert!(rightful.pings().await, "the rightful client was evicted");
    // Its own second login takes over.
    let mut second = bench.client("z2m").await;
    assert_eq!(rightful.read().await, None);
    assert_eq!(second.acked(BUTTON.as_bytes(), PRESS).await, Some(0));
    bench
        .until("it stays on the board", |b| {
            b.board.snapshot().buses.values().all(|bus| bus.clients.contains("z2m") && bus.clients.len() == 1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_exchanged_without_a_restart_and_passwords_may_be_chosen() {
    let bench = Bench::new().await;
    let path = bench.directory.path().join("z2m");
    let login = |password| Connect { id: "z2m-1", user: Some("z2m"), password, ..Connect::default() };
    write_secret(&path, &Secret::of_password("correct horse battery").unwrap(), true).unwrap();
    assert_ne!(try_login(&bench, login(Some(&bench.secrets["z2m"]))).await, Some(0));
    // Twice: the second is answered from memory.
    for _ in 0..2 {
        assert_eq!(try_login(&bench, login(Some("correct horse battery"))).await, Some(0));
    }
    write_secret(&path, &Secret::of_password("another password").unwrap(), true).unwrap();
    assert_ne!(try_login(&bench, login(Some("correct horse battery"))).await, Some(0));
    assert_eq!(try_login(&bench, login(Some("another password"))).await, Some(0));
    std::fs::remove_file(&path).unwrap();
    assert_ne!(try_login(&bench, login(Some("another password"))).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_does_not_keep_the_right_client_out() {
    let bench = Arc::new(Bench::new().await);
    let path = bench.directory.path().join("z2m");
    write_secret(&path, &Secret::of_password("correct horse battery").unwrap(), true).unwrap();
    let mut flood = JoinSet::new();
    for _ in 0..20 {
        let bench = Arc::clone(&bench);
        flood.spawn(async move {
            loop {
                let guess =
                    Connect { id: "z2m-1", user: Some("z2m"), password: Some("guess"), ..Connect::default() };
                try_login(&bench, guess).await;
            }
        });
    }
    bench.until("the flood runs", |b| b.refusals("z2m", Refusal::WrongPassword) >= 10).await;
    let before = Instant::now();
    // From the same address, one with a generated secret and one with the very password that is guessed at.
    assert!(bench.client("other").await.pings().await);
    let right = Connect {
        id: "z2m-1",
        user: Some("z2m"),
        password: Some("correct horse battery"),
        ..Connect::default()
    };
    assert_eq!(try_login(&bench, right).await, Some(0));
    let waited = before.elapsed();
    assert!(waited < Duration::from_secs(10), "the right clients waited {waited:?}");
    let guesses = bench.refusals("z2m", Refusal::WrongPassword);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let in_two_seconds = bench.refusals("z2m", Refusal::WrongPassword) - guesses;
    assert!(in_two_seconds <= 40, "{in_two_seconds} guesses were answered in two seconds");
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_inner_port_gets_nothing_there() {
    let bench = Bench::new().await;
    let inside = Arc::new(bench.broker.inside().unwrap());
    let (server, address) = inner_server(&bench.broker.setup.config, &inside).await.unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move { server.run().await.unwrap() });
    let right = Connect {
        id: "z2m-1",
        user: Some("z2m"),
        password: Some(&bench.secrets["z2m"]),
        ..Connect::default()
    };
    let mut stranger = Client::new(TcpStream::connect(address).await.unwrap(), 4);
    assert_eq!(stranger.connect(right).await, Some(5));
    assert_eq!(bench.refusals("lan", Refusal::UnknownClient), 1);
}

struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key, PEM.
    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    async fn connect(
        &self,
        bench: &Bench,
        identity: Option<(String, String)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let stream = TcpStream::connect(bench.bound.tls.unwrap()).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_the_account_and_is_required_on_its_port() {
    let pki = Pki::new();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = pki.issue("broker", ExtendedKeyUsagePurpose::ServerAuth);
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tls = format!(
        "tls = {{ listen = '127.0.0.1:0', cert_file = '{}', key_file = '{}', client_ca_file = '{}' }}\ncommit_timeout_ms",
        file("cert.pem", &cert),
        file("key.pem", &key),
        file("ca.pem", &pki.authority.pem()),
    );
    let text = COMPOUND
        .replace("commit_timeout_ms", &tls)
        .replace("[clients.other]", "[clients.other]\ncertificate = true");
    let bench = Bench::within(directory, &text).await;
    let identity = |name| Some(pki.issue(name, ExtendedKeyUsagePurpose::ClientAuth));

    let mut client = Client::new(pki.connect(&bench, identity("other")).await.unwrap(), 4);
    // What the client says its name is does not count.
    let login = Connect { id: "other", user: Some("z2m"), ..Connect::default() };
    assert_eq!(client.connect(login).await, Some(0));
    assert_eq!(client.acked(b"other/b2", br#"{"action":"emergency"}"#).await, Some(0));
    assert_eq!(bench.journal.events(), ["b2 button.pressed"]);

    let secret = bench.secrets["z2m"].as_str();
    let password = Connect { id: "z2m-1", user: Some("z2m"), password: Some(secret), ..Connect::default() };
    for (name, reason, source) in
        [("z2m", Refusal::WrongPassword, "z2m"), ("nobody", Refusal::UnknownClient, "lan")]
    {
        let mut client = Client::new(pki.connect(&bench, identity(name)).await.unwrap(), 4);
        assert_ne!(client.connect(password).await, Some(0), "a certificate of {name} was taken for z2m");
        assert_eq!(bench.refusals(source, reason), 1);
    }
    // A certificate's account has no password on the plain port.
    let other = Connect {
        id: "other",
        user: Some("other"),
        password: Some(&bench.secrets["other"]),
        ..Connect::default()
    };
    assert_ne!(try_login(&bench, other).await, Some(0));

    for stranger in [None, Some(Pki::new().issue("other", ExtendedKeyUsagePurpose::ClientAuth))] {
        let before = bench.refusals("lan", Refusal::HandshakeFailed);
        if let Ok(stream) = pki.connect(&bench, stranger).await {
            assert_eq!(Client::new(stream, 4).connect(login).await, None);
        }
        bench.until("it is counted", |b| b.refusals("lan", Refusal::HandshakeFailed) == before + 1).await;
    }
}
