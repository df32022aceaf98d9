//! Keeping house on the writer's thread: between commits, shown on the board and in the metrics, told to readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::alarm::{Alarm, AlarmState};
use crate::model::journal::{Durability, Journal, NoFold};
use crate::model::record::{Body, Class};
use crate::model::roll::{Listed, Roll};
use crate::rt::board::Board;
use crate::rt::clock::Clock as _;
use crate::rt::metrics::Metrics;

use super::super::budget::StorageConfig;
use super::super::notice;
use super::super::testing::{all, clock, event, open, settle_house, telemetry, uplink};
use super::super::{Keeping, Options, Store, Synchronous};
use super::full_disk::names;

const LONG: Duration = Duration::from_mins(1);
const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn a_flood_is_kept_within_its_budget_while_events_are_answered() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (metrics, board) = (Arc::new(Metrics::new()), Arc::new(Board::new()));
    let storage =
        StorageConfig { telemetry_mib: 1, reserve_mib: 4, thinning: Vec::new(), ..StorageConfig::default() };
    let options = Options {
        clock: Arc::clone(&clock) as _,
        metrics: Arc::clone(&metrics),
        board: Arc::clone(&board),
        synchronous: Synchronous::Normal,
        keeping: Some(Keeping { storage, uplinks: vec![uplink("city")], roll: Arc::default() }),
    };
    let (store, _) = Store::open(dir.path(), options, Box::new(NoFold)).unwrap();
    while board.snapshot().store.classes.is_empty() {
        // The first look comes a moment after the start.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut most = 0;
    for n in 0..40_i64 {
        let drafts = (0..1_000).map(|m| telemetry(&clock, "t1", n * 1_000 + m)).collect();
        // Synced, so that it is known when it stands.
        store.append(drafts, Durability::Synced).await.unwrap();
        store.append(vec![event(&clock, "b1", n, None)], Durability::Synced).await.unwrap();
        clock.advance_ms(1_100);
        let telemetry = board.snapshot().store.classes.get(&Class::Telemetry).cloned().unwrap_or_default();
        most = most.max(telemetry.bytes);
    }
    let end = Instant::now() + LONG;
    // The board is told once a second: at rest it says the same again and again.
    let mut calm = 0;
    let status = loop {
        clock.advance_ms(1_100);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = board.snapshot().store;
        let telemetry = &status.classes[&Class::Telemetry];
        let gone: u64 = status.forgotten.iter().map(|told| told.records).sum();
        let first = store.heads().borrow().of(Class::Telemetry).first;
        calm = if telemetry.bytes <= MIB && gone > 0 && gone == first - 1 { calm + 1 } else { 0 };
        if calm > 20 {
            break status;
        }
        assert!(Instant::now() < end, "still {telemetry:?}");
    };
    // A house at rest looks once a second: a second of the flood comes before it notices.
    assert!(most < 4 * MIB, "the budget of 1 MiB was left far behind: {most}");
    let telemetry = &status.classes[&Class::Telemetry];
    assert_eq!(telemetry.budget_bytes, Some(MIB));
    assert!(telemetry.oldest.is_some());
    assert!(status.reserve.held && status.reserve.bytes == 4 * MIB);
    assert_eq!(status.disk.as_ref().map(|disk| disk.full), Some(false));
    let head = store.heads().borrow().of(Class::Telemetry);
    assert_eq!(head.first, head.last + 1 - telemetry.records, "readers know where telemetry begins");
    assert_eq!(status.forgotten[0].records, head.first - 1);
    let text = metrics.render();
    let counted =
        format!("gatehouse_forgotten_total{{cause=\"dropped\",class=\"telemetry\"}} {}", head.first - 1);
    assert!(text.contains(&counted), "{counted} is not in\n{text}");
    assert!(text.contains("gatehouse_store_class{class=\"telemetry\",what=\"budget_bytes\"} 1048576"));
    let events = all(&store.reader().unwrap(), Class::Event);
    // One gap record for telemetry, one for those whose place it took.
    assert_eq!(events.len(), 40 + 2, "a platform that is away finds a flood of gap records");
    store.close().await.unwrap();
}

#[test]
fn that_the_disk_has_room_again_is_said_also_after_a_restart_and_once() {
    for (stands, expected) in [(false, &[][..]), (true, &["store.room".to_owned()][..])] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
        let (mut core, _) = open(dir.path(), &clock).unwrap();
        let roll = Arc::new(Roll::default());
        if stands {
            let Body::Event(full) = notice::full(&clock.now(), true, 0, 1).body else { panic!("no event") };
            let mut alarm = Alarm::new("a-1".to_owned(), AlarmState::Unacknowledged, *full);
            alarm.active = true;
            roll.put(Listed { seq: 1, test: false, at: clock.now(), alarm });
        }
        let storage = StorageConfig { reserve_mib: 0, ..StorageConfig::default() };
        core.keep(&Keeping { storage, uplinks: Vec::new(), roll });
        for _look in 0..3 {
            clock.advance_ms(2_000);
            settle_house(&mut core);
        }
        assert_eq!(names(&core), expected);
    }
}
