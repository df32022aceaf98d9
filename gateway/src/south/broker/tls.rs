//! TLS of the broker's second listener: a client certificate is always required, and its common name is the account.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmqtt::net::TlsCertExtractor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::config::BrokerTls;
use crate::rt::certificates::{CertificateClock, PatientClientVerifier};
use crate::rt::clock::SharedClock;

/// What is wrong with the files of a TLS listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {path}: {reason}")]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error("certificate and key do not make a TLS server: {0}")]
    Server(rustls::Error),
    #[error("the authority of the clients cannot be used: {0}")]
    Authority(String),
}

/// Reads the files and makes the acceptor.
///
/// # Errors
/// Which file cannot be used, and why.
pub(super) fn acceptor(config: &BrokerTls, clock: &SharedClock) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates("the certificate", &config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| TlsError::File {
        what: "the private key",
        path: config.key_file.clone(),
        reason: error.to_string(),
    })?;
    let mut roots = RootCertStore::empty();
    for root in certificates("the clients' authority", &config.client_ca_file)? {
        roots.add(root).map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))?;
    let clients = Arc::new(PatientClientVerifier { inner: clients, clock: Arc::clone(clock) });
    let judge = Arc::new(CertificateClock(Arc::clone(clock)));
    let server = ServerConfig::builder_with_details(provider, judge)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Server)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(TlsError::Server)?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// The common name of the client's certificate.
pub(super) fn common_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    stream.extract_cert_info()?.common_name
}
