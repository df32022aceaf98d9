//! The line goes dead without a word: no FIN, no RST, bytes just vanish. Missing PUBACKs tell within ten seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::Platform;
use gatehouse_tests::proxy::{Cut, Flow, Proxy};
use gatehouse_tests::site::{LATER, SOON, await_presses, await_state, press};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;
use tokio::time::Instant;

const BUTTON: &str = "button-1";

/// Promised in the design: a silent cut is noticed within so long.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

async fn cut_silently(name: &str, up: Flow, down: Flow) {
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let gateway = Gateway::start(Plan::new(name, &proxy.url())).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    await_state(&platform, name, 1).await;
    for n in 1..=10 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    await_presses(&platform, BUTTON, &(1..=10).collect(), SOON).await;
    let before = proxy.accepted();

    proxy.flow(up, down);
    let cut_at = Instant::now();
    for n in 11..=30 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    let what = format!("{name}: a new connection after the silent cut");
    let patience = NOTICED_WITHIN + Duration::from_secs(5);
    eventually(&what, patience, || (proxy.accepted() > before).then_some(())).await;
    let noticed = cut_at.elapsed();
    assert!(noticed <= NOTICED_WITHIN, "{name}: noticed after {noticed:?}");
    println!("{name}: noticed after {noticed:?}");

    // The new attempt meets the same dead line; it comes back for the next one.
    proxy.flow(Flow::Pass, Flow::Pass);
    proxy.cut(Cut::Rst);
    for n in 31..=40 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    let all: BTreeSet<u64> = (1..=40).collect();
    await_presses(&platform, BUTTON, &all, LATER).await;
    let report = platform.look(|messages| gatehouse_tests::audit::audit(messages, name));
    report.assert_clean();
    if up == Flow::Pass {
        assert!(report.duplicates > 0, "{name}: what was not acknowledged was not sent again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_cut_is_noticed_and_nothing_is_lost() {
    let _turn = turn::alone();
    tokio::join!(
        cut_silently("gw-dead", Flow::Swallow, Flow::Swallow),
        cut_silently("gw-deaf", Flow::Pass, Flow::Swallow),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_not_taken_for_a_dead_one() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let proxy = Proxy::start(mosquitto.address()).await;
    let gateway = Gateway::start(Plan::new("gw-slow", &proxy.url())).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    await_state(&platform, "gw-slow", 1).await;
    // A mobile link at its worst: half a second each way.
    proxy.flow(Flow::Delay(Duration::from_millis(500)), Flow::Delay(Duration::from_millis(500)));
    for n in 1..=20 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    await_presses(&platform, BUTTON, &(1..=20).collect(), LATER).await;
    assert_eq!(proxy.accepted(), 1, "a slow line was given up");
    platform.look(|messages| gatehouse_tests::audit::audit(messages, "gw-slow")).assert_clean();
}
