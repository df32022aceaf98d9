//! Certificates of a test authority, judged by a clock that is wrong.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::rt::clock::ManualClock;

/// 2026-06-01T00:00:00Z, where a manual clock begins.
const START_MS: i64 = 1_780_272_000_000;
const DAY_MS: i64 = 24 * 3_600_000;

struct Pki {
    roots: Arc<RootCertStore>,
    leaf: CertificateDer<'static>,
}

/// An authority and a certificate, both valid from `from_ms` for a year.
fn pki(from_ms: i64) -> Pki {
    // rcgen's date type comes of its own function, so that its crate need not be named.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let day = |ms: i64| epoch + Duration::from_millis(u64::try_from(ms).unwrap());
    let (from, until) = (day(from_ms), day(from_ms + 365 * DAY_MS));
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (authority.not_before, authority.not_after) = (from, until);
    let root = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let mut params = CertificateParams::new(vec!["platform.example".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (from, until);
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    Pki { roots: Arc::new(roots), leaf: leaf.der().clone() }
}

/// What server and client make of the certificate at the clock's time.
fn judged(pki: &Pki, clock: &Arc<ManualClock>) -> [Result<(), Error>; 2] {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let shared: SharedClock = Arc::clone(clock) as SharedClock;
    let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&pki.roots), Arc::clone(&provider));
    let server = PatientServerVerifier { inner: server.build().unwrap(), clock: Arc::clone(&shared) };
    let client = WebPkiClientVerifier::builder_with_provider(Arc::clone(&pki.roots), provider);
    let client = PatientClientVerifier { inner: client.build().unwrap(), clock: Arc::clone(&shared) };
    let now = CertificateClock(shared).current_time().unwrap();
    let name = ServerName::try_from("platform.example").unwrap();
    [
        server.verify_server_cert(&pki.leaf, &[], &name, &[], now).map(|_verified| ()),
        client.verify_client_cert(&pki.leaf, &[], now).map(|_verified| ()),
    ]
}

#[test]
fn a_box_in_1970_knows_the_certificate_of_today() {
    let clock = Arc::new(ManualClock::new());
    clock.set_trust(ClockTrust::None);
    clock.jump_wall_ms(-START_MS);
    // Valid from a day after the software was built, and long after 1970.
    assert_eq!(judged(&pki(BUILD_MS + DAY_MS), &clock), [Ok(()), Ok(())]);
    assert_eq!(judged(&pki(START_MS), &clock), [Ok(()), Ok(())]);
}

const BUILD_MS: i64 = crate::rt::clock::BUILD_FLOOR_MS;

#[test]
fn an_expired_certificate_is_refused_whatever_the_clock() {
    for (trust, jump_ms) in [(ClockTrust::None, -START_MS), (ClockTrust::Rtc, 0), (ClockTrust::Ntp, 0)] {
        let clock = Arc::new(ManualClock::new());
        clock.set_trust(trust);
        clock.jump_wall_ms(jump_ms);
        for result in judged(&pki(BUILD_MS - 366 * DAY_MS), &clock) {
            assert!(
                matches!(result, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))),
                "{trust:?}: {result:?}"
            );
        }
    }
}

#[test]
fn a_certificate_of_tomorrow_is_refused_by_a_clock_that_is_confirmed() {
    let clock = Arc::new(ManualClock::new());
    let tomorrow = pki(START_MS + DAY_MS);
    for (trust, patient) in [
        (ClockTrust::None, true),
        (ClockTrust::Rtc, true),
        (ClockTrust::Platform, false),
        (ClockTrust::Ntp, false),
    ] {
        clock.set_trust(trust);
        for result in judged(&tomorrow, &clock) {
            assert_eq!(result.is_ok(), patient, "{trust:?}: {result:?}");
        }
    }
}

#[test]
fn nobody_elses_certificate_is_let_in_by_patience() {
    let clock = Arc::new(ManualClock::new());
    clock.set_trust(ClockTrust::None);
    clock.jump_wall_ms(-START_MS);
    let (ours, theirs) = (pki(START_MS), pki(START_MS));
    let mixed = Pki { roots: ours.roots, leaf: theirs.leaf };
    for result in judged(&mixed, &clock) {
        assert!(
            matches!(
                result,
                Err(Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature
                ))
            ),
            "{result:?}"
        );
    }
}
