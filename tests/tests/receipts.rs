//! Delivery by receipt: what the platform's broker has acknowledged is not delivered before the platform says that it has
//! stored it (promise G2). A platform that loses its storage gets again what it had not confirmed, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan, Uplink};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{LATER, SOON, await_presses, await_state, press, presses};
use gatehouse_tests::turn;
use gatehouse_tests::wait::{eventually, never};
use serde_json::json;

const BUTTON: &str = "button-1";

/// The message of press `n`, the last if it came more than once.
fn message_of(platform: &Platform, n: u64) -> Message {
    let ours = |message: &&Message| gatehouse_tests::site::pressed(message, BUTTON) == Some(n);
    platform.look(|messages| messages.iter().rfind(ours).cloned()).expect("the press has come")
}

/// Says that everything of the press's class and stream is stored up to it.
fn confirm(platform: &Platform, gateway: &str, message: &Message) {
    let stream = if message.replay() { "backlog" } else { "live" };
    let receipt = json!({
        "epoch": message.text("epoch"),
        "class": message.text("class"),
        "stream": stream,
        "upto": message.text("sequence"),
    });
    platform.publish(&format!("gatehouse/v1/{gateway}/down/receipt"), receipt.to_string(), false);
}

fn pending_events(gateway: &Gateway) -> u64 {
    gateway.status()["board"]["uplinks"]["street"]["pending"]["event"]["records"].as_u64().unwrap_or(0)
}

async fn await_pending(gateway: &Gateway, wanted: impl Fn(u64) -> bool, what: &str) {
    eventually(what, SOON, || wanted(pending_events(gateway)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_lost_its_storage_gets_again_what_it_had_not_confirmed() {
    const NAME: &str = "gw-receipt";
    let _turn = turn::shared();
    let mut mosquitto = Mosquitto::start().await;
    let mut platform = Platform::start(mosquitto.address(), "#").await;
    let mut plan = Plan::new(NAME, "");
    plan.uplinks = vec![
        Uplink::new("street", &mosquitto.url())
            .extra("delivery = \"receipt\"\nfilter = { categories = [\"emergency\"] }"),
    ];
    let gateway = Gateway::start(plan).await;
    await_state(&platform, NAME, 1).await;
    let mut device = Device::connect_patiently(&gateway.login()).await;
    for n in 1..=20 {
        press(&mut device, BUTTON, n).await.unwrap();
    }
    await_presses(&platform, BUTTON, &(1..=20).collect(), SOON).await;
    // The broker has acknowledged everything, the platform nothing.
    await_pending(&gateway, |pending| pending == 20, "all wait for a receipt").await;
    never("delivered without a receipt", Duration::from_secs(2), || {
        let pending = pending_events(&gateway);
        (pending != 20).then_some(pending)
    })
    .await;
    confirm(&platform, NAME, &message_of(&platform, 10));
    await_pending(&gateway, |pending| pending == 10, "ten are delivered").await;

    // The platform goes down with its broker, and what it had not confirmed is gone.
    let heard = platform.look(<[_]>::len);
    mosquitto.stop().await;
    mosquitto.run().await;
    platform.await_online().await;
    let again = |platform: &Platform| -> Vec<u64> { platform.look(|all| presses(&all[heard..], BUTTON)) };
    eventually("what was not confirmed comes again", LATER, || {
        let held: BTreeSet<u64> = again(&platform).into_iter().collect();
        (11..=20).all(|n| held.contains(&n)).then_some(())
    })
    .await;
    assert_eq!(again(&platform), (11..=20).collect::<Vec<_>>(), "in order, and nothing that was confirmed");
    let last = message_of(&platform, 20);
    assert!(last.replay(), "it comes as backlog: {}", last.json);
    confirm(&platform, NAME, &last);
    await_pending(&gateway, |pending| pending == 0, "all is delivered").await;
    // What a receipt has delivered stays so over another connection.
    let heard = platform.look(<[_]>::len);
    mosquitto.stop().await;
    mosquitto.run().await;
    platform.await_online().await;
    await_state(&platform, NAME, 3).await;
    press(&mut device, BUTTON, 21).await.unwrap();
    await_presses(&platform, BUTTON, &BTreeSet::from([21]), SOON).await;
    assert_eq!(platform.look(|all| presses(&all[heard..], BUTTON)), [21]);
}
