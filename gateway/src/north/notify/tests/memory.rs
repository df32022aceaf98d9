//! What is told out of memory while the disk is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::feed::Feed;
use super::super::line::{Line, Next, Outcome, RETRY_MAX};
use super::server::{Manner, Server};
use super::whole::{clock, numbered, open, options, parts};
use crate::model::journal::{Durability, Journal as _, JournalError};
use crate::model::record::{Body, Class, Draft};
use crate::store::testing::store_with_switch;

fn line() -> Line {
    Line::new(15, RETRY_MAX, fastrand::Rng::with_seed(7))
}

/// The robot has taken the first `taken` of two alarms when the disk comes back, and then the process ends.
async fn told_after_the_end(taken: usize) -> Vec<String> {
    let server = Server::start(|_| Manner::Take);
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let (store, refuses) = store_with_switch(dir.path(), options(&clock));
    let parts = parts(&store, &clock, &server);
    let (mut feed, mut line_now) = (Feed::new(&parts.name, &store), line());
    feed.fill(&parts, &mut line_now);
    refuses.store(true, Ordering::SeqCst);
    for number in 1..=2 {
        let body = Body::Alarm(Box::new(numbered(number)));
        let draft = Draft { at: clock.now(), test: false, dedup: None, body };
        let kept = store.append(vec![draft], Durability::Synced).await;
        assert!(matches!(kept, Err(JournalError::Volatile)), "{kept:?}");
    }
    feed.fill(&parts, &mut line_now);
    assert_eq!((line_now.len(), line_now.first_seq()), (2, None), "in memory, without numbers");
    let Next::Send(mut batch) = line_now.next(0) else { panic!("nothing is sent") };
    batch.count = taken;
    line_now.settle(batch, Outcome::Taken, 0);
    refuses.store(false, Ordering::SeqCst);
    let mut heads = store.heads();
    // The alarms, and the events that the disk was lost and is back.
    let stored = heads.wait_for(|heads| heads.of(Class::Alarm).last == 2 && heads.of(Class::Event).last == 2);
    tokio::time::timeout(Duration::from_mins(1), stored).await.expect("the disk is back").unwrap();
    feed.fill(&parts, &mut line_now);
    assert_eq!(line_now.len(), 2 - taken, "nothing waits twice");
    feed.save(&line_now).await;
    store.close().await.unwrap();
    drop(feed);
    let store = open(dir.path(), &clock);
    let (mut feed, mut line_then) = (Feed::new(&parts.name, &store), line());
    feed.fill(&parts, &mut line_then);
    let told = match line_then.next(0) {
        Next::Send(batch) => line_then.alarms(batch).into_iter().map(|told| told.id).collect(),
        Next::Wait(_) => Vec::new(),
    };
    store.close().await.unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_out_of_memory_is_told_after_the_end_of_the_process() {
    assert_eq!(told_after_the_end(0).await, ["alarm-1", "alarm-2"]);
    assert_eq!(told_after_the_end(1).await, ["alarm-2"]);
    assert_eq!(told_after_the_end(2).await, [""; 0]);
}
