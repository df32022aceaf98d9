//! The notifier on a real journal, against a server that behaves badly, with ends at any moment: every alarm is told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Notifier, Parts, Patience, Silence};
use super::messages::alarm;
use super::server::{Manner, Server};
use crate::model::alarm::Alarm;
use crate::model::ids::{GatewayName, NotifierName};
use crate::model::journal::{Durability, Journal as _, NoFold};
use crate::model::record::{Body, Class, Draft, Value};
use crate::model::roll::{Listed, Roll};
use crate::rt::board::Board;
use crate::rt::clock::{ManualClock, SharedClock};
use crate::rt::metrics::Metrics;
use crate::store::{Options, Reader, Store, Synchronous};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) fn clock() -> SharedClock {
    Arc::new(crate::rt::clock::SystemClock::new(
        crate::rt::timesource::Places::usual(true).read(crate::rt::clock::reading()),
    ))
}

pub(super) fn options(clock: &SharedClock) -> Options {
    Options {
        clock: Arc::clone(clock),
        metrics: Arc::new(Metrics::new()),
        board: Arc::new(Board::new()),
        synchronous: Synchronous::Full,
        keeping: None,
    }
}

pub(super) fn open(dir: &Path, clock: &SharedClock) -> Store {
    Store::open(dir, options(clock), Box::new(NoFold)).unwrap().0
}

pub(super) fn parts(store: &Store, clock: &SharedClock, server: &Server) -> Parts {
    Parts {
        name: NotifierName::new("guards").unwrap(),
        gateway: GatewayName::new("gate-1").unwrap(),
        compound: "c".to_owned(),
        // A template that names each alarm, so that the test can count.
        config: server.config("per_minute = 600\n"),
        utc_offset_min: 480,
        store: store.clone(),
        clock: Arc::clone(clock),
        board: Arc::new(Board::new()),
        roll: Arc::default(),
        silence: Silence::default(),
        patience: Patience { timeout: Duration::from_millis(200), retry_max: Duration::from_millis(300) },
    }
}

pub(super) fn numbered(number: u64) -> Alarm {
    let mut alarm = alarm(number);
    if let Some(text) = &mut alarm.raised.text {
        text.zh = format!("#{number}#");
    }
    alarm
}

async fn raise(store: &Store, clock: &SharedClock, number: u64) {
    let body = Body::Alarm(Box::new(numbered(number)));
    let draft = Draft { at: clock.now(), test: false, dedup: None, body };
    store.append(vec![draft], Durability::Synced).await.unwrap();
}

/// Numbers of the alarms in what was taken.
fn told(server: &Server) -> Vec<u64> {
    let taken = server.taken.lock().unwrap();
    let parts = taken.iter().flat_map(|text| text.split('#').map(str::to_owned).collect::<Vec<_>>());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_the_server_does_and_whenever_the_process_ends() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut manners = fastrand::Rng::with_seed(seed ^ 1);
    let server = Server::start(move |number| match manners.u8(0..10) {
        _ if number > 60 => Manner::Take,
        0 => Manner::Hang,
        1 => Manner::CloseMidway,
        2 => Manner::Status(500),
        3 => Manner::CloseAtOnce,
        4 => Manner::Portal,
        _ => Manner::Take,
    });
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let mut number = 0;
    for _life in 0..6 {
        let store = open(dir.path(), &clock);
        let notifier = Notifier::new(parts(&store, &clock, &server));
        let mut running = JoinSet::new();
        running.spawn(async move { notifier.run(CancellationToken::new()).await });
        for _ in 0..rng.u8(1..5) {
            number += 1;
            raise(&store, &clock, number).await;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..150))).await;
        }
        running.abort_all();
        assert!(running.join_next().await.unwrap().unwrap_err().is_cancelled());
        store.close().await.unwrap();
    }
    let store = open(dir.path(), &clock);
    let parts = parts(&store, &clock, &server);
    let board = Arc::clone(&parts.board);
    let notifier = Notifier::new(parts);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut running = JoinSet::new();
    running.spawn(async move { notifier.run(stop).await });
    let all: BTreeSet<u64> = (1..=number).collect();
    let patience = tokio::time::Instant::now() + Duration::from_mins(2);
    while told(&server).into_iter().collect::<BTreeSet<_>>() != all {
        assert!(tokio::time::Instant::now() < patience, "seed {seed}: told {:?} of {number}", told(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let status = board.snapshot().notifiers[&NotifierName::new("guards").unwrap()].clone();
    assert_eq!((status.waiting, status.refused), (0, 0), "{status:?}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_not_told_again_and_the_past_is_left_alone() {
    let server = Server::start(|_| Manner::Take);
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    for life in 1..=3 {
        let store = open(dir.path(), &clock);
        let notifier = Notifier::new(parts(&store, &clock, &server));
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let mut running = JoinSet::new();
        running.spawn(async move { notifier.run(stop).await });
        raise(&store, &clock, life).await;
        while told(&server).len() < usize::try_from(life).unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
        store.close().await.unwrap();
    }
    assert_eq!(told(&server), [1, 2, 3]);
    let reader = Reader::open(dir.path()).unwrap();
    assert!(reader.read(Class::Event, 1, 99, 99, 1 << 20).unwrap().is_empty(), "something was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_is_refused_alone_is_recorded_and_the_others_are_told() {
    // The server refuses what contains #2#; it sees that only after it has read it, so its manner follows the body.
    let server = Server::start({
        let mut posts = 0;
        move |_| {
            posts += 1;
            // 1,2,3 together; 1 alone is refused too, as is 2; 3 is taken; then 1 is taken and 2 is not.
            match posts {
                1..=3 | 6 => Manner::Errcode(40_058),
                _ => Manner::Take,
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let store = open(dir.path(), &clock);
    for number in 1..=3 {
        raise(&store, &clock, number).await;
    }
    let notifier = Notifier::new(parts(&store, &clock, &server));
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut running = JoinSet::new();
    running.spawn(async move { notifier.run(stop).await });
    let reader = Reader::open(dir.path()).unwrap();
    let patience = tokio::time::Instant::now() + Duration::from_mins(1);
    let event = loop {
        if let Some(crate::store::Read::Record(record)) =
            reader.read(Class::Event, 1, 9, 9, 1 << 20).unwrap().into_iter().next()
            && let Body::Event(event) = record.body
        {
            break event;
        }
        assert!(tokio::time::Instant::now() < patience, "told {:?}", told(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(event.name, "notifier.refused");
    assert_eq!(event.params["alarm"], Value::Text("alarm-2".into()));
    assert_eq!(told(&server), [3, 1]);
    assert!(server.asked.lock().unwrap().iter().all(|path| path == "/robot?key=secret"));
    cancel.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    store.close().await.unwrap();
}

/// Names of events; which notifier it is stands in the words of each, since there may be several.
fn events(store: &Store) -> Vec<String> {
    let reads = store.reader().unwrap().read(Class::Event, 1, 99, 99, 1 << 20).unwrap();
    let name = |read| match read {
        crate::store::Read::Record(record) => match record.body {
            Body::Event(event) => {
                let words = event.text.unwrap();
                assert!(words.zh.contains("guards") && words.en.contains("guards"), "{words:?}");
                Some(event.name)
            }
            _ => None,
        },
        crate::store::Read::Unreadable { .. } => None,
    };
    reads.into_iter().filter_map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_begin_is_missed_until_it_can_also_across_a_restart() {
    let server = Server::start(|_| Manner::Take);
    let dir = tempfile::tempdir().unwrap();
    let manual = Arc::new(ManualClock::new());
    let clock: SharedClock = Arc::clone(&manual) as _;
    let store = open(dir.path(), &clock);
    let mut parts = parts(&store, &clock, &server);
    let (url, file) = (parts.config.url.take().unwrap(), dir.path().join("url"));
    parts.config.url_file = Some(file.clone());
    for (after_ms, expected) in [(0, 0), (599_999, 0), (1, 1), (600_000, 1)] {
        manual.advance_ms(after_ms);
        // Each attempt is a notifier of its own.
        let attempt = Notifier::new(parts.clone()).run(CancellationToken::new()).await;
        assert!(attempt.is_err(), "without its file");
        assert_eq!(events(&store).len(), expected, "{after_ms} ms later");
    }
    std::fs::write(&file, url).unwrap();
    // As after a restart: only the roll knows.
    let mut failing = alarm(1);
    failing.active = true;
    failing.raised.name = "notifier.failing".to_owned();
    failing.raised.params.insert("notifier".to_owned(), Value::Text("guards".into()));
    let roll = Arc::new(Roll::default());
    roll.put(Listed { seq: 1, test: false, at: clock.now(), alarm: failing });
    parts.silence = Silence::default();
    parts.roll = roll;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut running = JoinSet::new();
    running.spawn(async move { Notifier::new(parts).run(stop).await });
    let patience = tokio::time::Instant::now() + Duration::from_mins(1);
    while events(&store) != ["notifier.failing", "notifier.restored"] {
        assert!(tokio::time::Instant::now() < patience, "{:?}", events(&store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cancel.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    store.close().await.unwrap();
}
