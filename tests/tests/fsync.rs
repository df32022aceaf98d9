//! Acknowledged means on disk (promise G1). A kill does not show a missing fsync, since the kernel keeps what was
//! written; strace does: the journal's log is written, then synced, and only then the PUBACK leaves.

use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::site::{marker, press};
use gatehouse_tests::strace::{Call, acknowledged_after_sync, parse};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;
use gatehouse_tests::wire::Version;

const PRESSES: u16 = 12;

/// A device's connection in the trace: its port, and its presses with their PUBACK's first bytes.
type Spoken = (u16, Vec<(u64, Vec<u8>)>);

async fn speak(gateway: &Gateway, version: Version, from: u64) -> Spoken {
    let mut device = Device::connect_patiently(&gateway.login().version(version)).await;
    let mut spoken = Vec::new();
    for index in 1..=PRESSES {
        let n = from + u64::from(index);
        assert_eq!(press(&mut device, "button-1", n).await.unwrap().code, 0);
        let [high, low] = index.to_be_bytes();
        // Of version 5 a PUBACK may bear a reason code, so only the head is compared.
        let puback = match version {
            Version::V311 => vec![0x40, 2, high, low],
            Version::V5 => vec![high, low],
        };
        spoken.push((n, puback));
    }
    (device.local().port(), spoken)
}

/// Presses under strace; what it saw, and what the devices said.
async fn traced(env: Option<(&str, &str)>) -> (Vec<Call>, Vec<Spoken>) {
    let mosquitto = Mosquitto::start().await;
    let mut gateway = Gateway::prepare(Plan::new("gw-fsync", &mosquitto.url()));
    let trace = gateway.folder().join("trace");
    gateway.run_traced(&trace, env).await;
    let mut spoken = Vec::new();
    for (version, from) in [(Version::V311, 100), (Version::V5, 200)] {
        spoken.push(speak(&gateway, version, from).await);
    }
    gateway.terminate(Duration::from_secs(30)).await;
    let text = eventually("the end of the trace", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        text.contains("+++ exited with").then_some(text)
    })
    .await;
    (parse(&text), spoken)
}

/// The first press that was acknowledged too early, if any.
fn judge(calls: &[Call], spoken: &[Spoken]) -> Result<(), String> {
    for (port, presses) in spoken {
        for (n, puback) in presses {
            acknowledged_after_sync(calls, marker(*n).as_bytes(), *port, puback)
                .map_err(|error| format!("press {n}: {error}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puback_follows_the_sync_of_its_record() {
    let _turn = turn::shared();
    let (calls, spoken) = traced(None).await;
    judge(&calls, &spoken).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_check_fails_when_commits_are_not_synced() {
    let _turn = turn::shared();
    let (calls, spoken) = traced(Some(("GATEHOUSE_TEST_SYNCHRONOUS", "normal"))).await;
    let error = judge(&calls, &spoken).expect_err("a missing sync is not seen");
    assert!(error.contains("not synced"), "it failed for another reason: {error}");
}
