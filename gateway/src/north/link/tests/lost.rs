//! The link while the journal's disk refuses.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::testing::store_with_switch;

async fn start(script: impl FnOnce(Epoch) -> Script) -> (Bench, Arc<AtomicBool>) {
    let mut refuses = None;
    let bench = Bench::start_on(script, quick(), 0, |dir, options| {
        let (store, switch) = store_with_switch(dir, options);
        refuses = Some(switch);
        store
    })
    .await;
    (bench, refuses.unwrap())
}

async fn press_in_memory(bench: &Bench, number: usize) {
    let answer = bench.try_press(number).await;
    assert!(matches!(answer, Err(JournalError::Volatile)), "{answer:?}");
}

async fn heard(bench: &mut Bench, name: &str) -> broker::Heard {
    loop {
        let heard = bench.broker.next_on("up/event/emergency").await;
        if heard.json["data"]["name"] == name {
            return heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presses_reach_the_platform_without_a_disk_and_again_with_one() {
    let decide = Box::new(|heard: &broker::Heard| {
        // The first connection ends at the second press.
        let cut = heard.connection == 1 && heard.json["data"]["name"] == "button.pressed_2";
        if cut { Answer::Close } else { Answer::Code(0) }
    });
    let (mut bench, refuses) = start(|_epoch| Script { decide, ..Script::default() }).await;
    let epoch = bench.store.heads().borrow().epoch().to_string();
    refuses.store(true, Ordering::SeqCst);
    press_in_memory(&bench, 1).await;
    let first = heard(&mut bench, "button.pressed_1").await;
    assert_eq!(first.json["volatile"], true);
    assert_eq!(first.json["previous"], "0000000000000000");
    assert_ne!(first.json["epoch"], epoch.as_str(), "another numbering");
    press_in_memory(&bench, 2).await;
    heard(&mut bench, "button.pressed_2").await;
    let again = heard(&mut bench, "button.pressed_2").await;
    assert_eq!(
        (again.connection, again.json["volatile"].as_bool()),
        (2, Some(true)),
        "sent until its PUBACK"
    );
    refuses.store(false, Ordering::SeqCst);
    for number in 1..=2 {
        let durable = heard(&mut bench, &format!("button.pressed_{number}")).await;
        assert_eq!(durable.json["epoch"], epoch.as_str());
        assert!(durable.json["volatile"].is_null() && durable.json["replay"] == false);
    }
    bench.event_comes("store.back").await;
    bench.settled().await;
    assert_eq!(bench.store.reader().unwrap().conn_max().unwrap(), 2, "numbers given in memory are kept");
    assert!(bench.board.snapshot().store.memory.told >= 3, "two presses, and that the disk was lost");
    bench.stop().await;
}

/// A journal that may be an old copy cannot fork without a disk, and must not fall silent for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_state_at_the_platform_does_not_silence_a_box_without_a_disk() {
    let retained = |epoch: Epoch| {
        let state =
            serde_json::json!({ "epoch": epoch.to_string(), "data": { "conn": 40, "online": false } });
        vec![("gatehouse/v1/gate-1/up/state".to_owned(), state.to_string())]
    };
    let (mut bench, refuses) = {
        let mut refuses = None;
        let bench = Bench::start_on(
            |epoch| Script { retained: retained(epoch), ..Script::default() },
            quick(),
            0,
            |dir, options| {
                let (store, switch) = store_with_switch(dir, options);
                switch.store(true, Ordering::SeqCst);
                refuses = Some(switch);
                store
            },
        )
        .await;
        (bench, refuses.unwrap())
    };
    press_in_memory(&bench, 1).await;
    let before = bench.store.heads().borrow().epoch();
    let told = heard(&mut bench, "button.pressed_1").await;
    assert_eq!(told.json["volatile"], true);
    refuses.store(false, Ordering::SeqCst);
    bench.event_comes("store.restored").await;
    bench.event_comes("store.back").await;
    // Of the fork the uplinks hear with the heads.
    let mut heads = bench.store.heads();
    let forked = heads.wait_for(|heads| heads.epoch() != before);
    tokio::time::timeout(Duration::from_secs(10), forked).await.expect("the fork is made up for").unwrap();
    assert!(bench.store.reader().unwrap().conn_max().unwrap() > 40);
    bench.stop().await;
}
