//! Boxes that should not exist twice: two under one name, and one that was set back to an old copy of its journal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gatehouse_tests::audit::audit;
use gatehouse_tests::device::Device;
use gatehouse_tests::gateway::{Gateway, Plan};
use gatehouse_tests::mosquitto::Mosquitto;
use gatehouse_tests::platform::{Message, Platform};
use gatehouse_tests::site::{LATER, SOON, await_presses, press, pressed};
use gatehouse_tests::turn;
use gatehouse_tests::wait::eventually;

const BUTTON: &str = "button-1";

#[tokio::test(flavor = "multi_thread")]
async fn two_boxes_with_one_identity_are_told() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let plan = Plan::new("gw-twin", &mosquitto.url());
    let first = Gateway::start(plan.clone()).await;
    let mut device = Device::connect_patiently(&first.login()).await;
    press(&mut device, BUTTON, 1).await.unwrap();
    await_presses(&platform, BUTTON, &[1].into(), SOON).await;
    let second = Gateway::start(plan).await;
    let mut other = Device::connect_patiently(&second.login()).await;
    press(&mut other, BUTTON, 2).await.unwrap();

    let told = |message: &Message| {
        let data = &message.json["data"];
        let name = data["name"].as_str().unwrap_or_default();
        (name.contains("identity") || name.contains("duplicate")) && data["severity"] == "critical"
    };
    let event = platform.await_message("an event about the twin", LATER, told).await;
    println!("told as {}", event.json["data"]);
    // Nothing of either is lost, and no id stands for two things.
    await_presses(&platform, BUTTON, &[1, 2].into(), LATER).await;
    let report = platform.look(|messages| audit(messages, "gw-twin"));
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
    let epochs: BTreeSet<&str> = report.arrivals.iter().map(|arrival| arrival.epoch.as_str()).collect();
    assert_eq!(epochs.len(), 2);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Which part of the data folder an old copy brings back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Restored {
    /// The whole folder, as a disk image would.
    Folder,
    /// The journal alone, as somebody who copies one file would.
    Journal,
}

async fn set_back(name: &str, restored: Restored) {
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut gateway = Gateway::prepare(Plan::new(name, &mosquitto.url()));
    let saved = gateway.folder().join("saved");
    for (round, numbers) in [1..=5, 6..=10, 11..=15].into_iter().enumerate() {
        gateway.run().await;
        let mut device = Device::connect_patiently(&gateway.login()).await;
        let wanted: BTreeSet<u64> = (1..=*numbers.end()).collect();
        for n in numbers {
            press(&mut device, BUTTON, n).await.unwrap();
        }
        await_presses(&platform, BUTTON, &wanted, LATER).await;
        if round == 2 {
            break;
        }
        gateway.stop().await;
        if round == 0 {
            copy(&gateway.data_dir(), &saved);
        } else if restored == Restored::Folder {
            std::fs::remove_dir_all(gateway.data_dir()).unwrap();
            copy(&saved, &gateway.data_dir());
        } else {
            for entry in std::fs::read_dir(gateway.data_dir()).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with("journal.db") {
                    std::fs::remove_file(path).unwrap();
                }
            }
            std::fs::copy(saved.join("journal.db"), gateway.data_dir().join("journal.db")).unwrap();
        }
    }
    let told = |message: &Message| message.json["data"]["name"] == "store.restored";
    platform.await_message(&format!("{name}: store.restored"), SOON, told).await;
    let messages = platform.messages();
    let report = audit(&messages, name);
    assert!(report.conflicts.is_empty(), "{restored:?}: an id was used again: {:#?}", report.conflicts);
    assert!(report.malformed.is_empty(), "{:?}", report.malformed);
    let mut epochs: BTreeMap<u64, String> = BTreeMap::new();
    for message in messages.iter().filter(|message| !message.retained) {
        if let Some(n) = pressed(message, BUTTON) {
            epochs.insert(n, message.text("epoch").to_owned());
        }
    }
    assert_eq!(epochs[&1], epochs[&10], "the epoch changed without a reason");
    assert_ne!(epochs[&10], epochs[&11], "{restored:?}: an old copy goes on under the old epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_of_an_old_journal_begins_a_new_epoch() {
    let _turn = turn::shared();
    set_back("gw-copy", Restored::Journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_of_the_whole_folder_begins_a_new_epoch() {
    let _turn = turn::shared();
    set_back("gw-image", Restored::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_journal_is_never_taken_for_the_old_one() {
    let _turn = turn::shared();
    let mosquitto = Mosquitto::start().await;
    let platform = Platform::start(mosquitto.address(), "#").await;
    let mut gateway = Gateway::prepare(Plan::new("gw-flash", &mosquitto.url()));
    for n in [1, 2] {
        gateway.run().await;
        let mut device = Device::connect_patiently(&gateway.login()).await;
        press(&mut device, BUTTON, n).await.unwrap();
        await_presses(&platform, BUTTON, &(1..=n).collect(), SOON).await;
        gateway.stop().await;
        std::fs::remove_dir_all(gateway.data_dir()).unwrap();
    }
    let report = platform.look(|messages| audit(messages, "gw-flash"));
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
    let epochs: BTreeSet<&str> = report.arrivals.iter().map(|arrival| arrival.epoch.as_str()).collect();
    assert_eq!(epochs.len(), 2, "a reflashed box goes on under the old epoch");
    eventually("the state of the new journal", SOON, || {
        platform.look(|all| {
            let state = all.iter().rfind(|message| message.channel() == "state")?;
            epochs.contains(state.text("epoch")).then_some(())
        })
    })
    .await;
}
