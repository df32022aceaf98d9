//! Certificates on a box that may not know the time (promise G8). They are judged at the latest of wall time, build date
//! and last confirmed time. And as long as nobody has confirmed the clock, a certificate that an authority of ours has
//! signed is itself a witness that its day has come: "not valid yet" then says something of the box and not of the
//! certificate. Expired ones are refused all the same.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::model::stamp::ClockTrust;

use super::clock::{Clock, SharedClock};

/// Certificates of one chain whose day may be still to come: a leaf, two intermediates and a root.
const CHAIN_MAX: usize = 4;

fn unix_time(ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// The time at which rustls judges.
#[derive(Debug)]
pub struct CertificateClock(pub SharedClock);

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.judged_ms()))
    }
}

/// Judges at `now`, and, while the clock is not confirmed, at the first moment at which all certificates are valid.
fn patiently<T>(
    clock: &dyn Clock,
    now: UnixTime,
    judge: impl Fn(UnixTime) -> Result<T, Error>,
) -> Result<T, Error> {
    let unsure = clock.now().trust < ClockTrust::Platform;
    let mut at = now;
    for _certificate in 0..CHAIN_MAX {
        match judge(at) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                if unsure && not_before > at =>
            {
                at = not_before;
            }
            judged => return judged,
        }
    }
    judge(at)
}

/// Judges servers.
#[derive(Debug)]
pub struct PatientServerVerifier {
    pub inner: Arc<dyn ServerCertVerifier>,
    pub clock: SharedClock,
}

impl ServerCertVerifier for PatientServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        patiently(self.clock.as_ref(), now, |at| {
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Judges clients.
#[derive(Debug)]
pub struct PatientClientVerifier {
    pub inner: Arc<dyn ClientCertVerifier>,
    pub clock: SharedClock,
}

impl ClientCertVerifier for PatientClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        patiently(self.clock.as_ref(), now, |at| self.inner.verify_client_cert(end_entity, intermediates, at))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
