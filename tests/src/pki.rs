//! A certificate authority for one test, with its files in one folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// An authority and what it has signed.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// When its certificates begin to be valid, in seconds since 1970; long ago if not given.
    seconds: Option<u64>,
}

fn begin(params: &mut CertificateParams, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    }
}

/// Files of one certificate, PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    /// Makes an authority whose certificate is `ca.pem` in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self::valid_from(folder, None)
    }

    /// The same with an authority and certificates that begin so many seconds after 1970.
    pub fn valid_from(folder: &Path, seconds: Option<u64>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Gatehouse test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        begin(&mut params, seconds);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), cert.pem()).unwrap();
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), seconds }
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate with this common name, good for 127.0.0.1 and localhost, as server and as client.
    pub fn identity(&self, common_name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        begin(&mut params, self.seconds);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            cert: self.folder.join(format!("{common_name}.pem")),
            key: self.folder.join(format!("{common_name}.key")),
        };
        std::fs::write(&identity.cert, cert.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// A client's side of TLS, with or without a certificate of its own.
    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some(identity) => {
                let cert = CertificateDer::from_pem_file(&identity.cert).unwrap();
                let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}
