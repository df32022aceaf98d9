//! What a commit does when nothing fails.

use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::ids::BootId;
use crate::model::journal::{Fold, JournalError};
use crate::model::limits::{
    COMMAND_IDS_KEPT, COMMIT_RECORDS_MAX, DEDUP_KEYS_PER_DEVICE, FOLD_DRAFTS_MAX, RECORD_BODY_BYTES_MAX,
};
use crate::model::record::{Body, Class, Draft, Gap, GapReason, Record, Severity, Value};

use super::super::testing::{Alarms, clock, event, keyed, open, open_with, records, telemetry, uplink};
use super::super::{Answer, CommandSlot, Op};

#[test]
fn what_is_appended_reads_back_with_numbers_without_gaps() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    let mut drafts = Vec::new();
    for n in 0..50 {
        clock.advance_ms(7);
        drafts.push(if n % 3 == 0 { telemetry(&clock, "t1", n) } else { event(&clock, "b1", n, None) });
    }
    drafts[4].test = true;
    drafts[5].at.boot = BootId("f".repeat(32).into());
    drafts[6].at.wall_ms = -5;
    let committed = core.append(drafts.clone()).unwrap();
    assert_eq!(committed.last_pos, 50);
    let reader = core.reader().unwrap();
    let mut found: Vec<Record> = Class::ALL.iter().flat_map(|class| records(&reader, *class)).collect();
    found.sort_by_key(|record| record.pos);
    let mut last = std::collections::BTreeMap::new();
    for ((record, draft), pos) in found.iter().zip(&drafts).zip(1..) {
        assert_eq!((record.pos, record.epoch), (pos, opened.epoch));
        assert_eq!((&record.at, record.test, &record.body), (&draft.at, draft.test, &draft.body));
        let seq = last.entry(record.class).or_insert(0);
        *seq += 1;
        assert_eq!(record.seq, *seq);
    }
    assert_eq!(found.len(), drafts.len());
    assert_eq!(core.heads(), reader.heads().unwrap());
}

#[test]
fn numbers_go_on_after_every_row_is_forgotten() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    for n in 0..5 {
        core.append(vec![telemetry(&clock, "t1", n), event(&clock, "b1", n, None)]).unwrap();
    }
    core.conn().execute_batch("DELETE FROM telemetry; DELETE FROM event;").unwrap();
    drop(core);
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let head = core.heads().of(Class::Telemetry);
    assert_eq!((head.first, head.last), (6, 5), "an empty class begins after its last number");
    assert_eq!(core.append(vec![telemetry(&clock, "t1", 9)]).unwrap().last_pos, 11);
    assert_eq!(core.heads().of(Class::Telemetry).last, 6);
}

#[test]
fn a_bad_draft_costs_its_own_append_only() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let mut large = event(&clock, "b1", 0, None);
    let mut endless = large.clone();
    if let Body::Event(event) = &mut large.body {
        event.params.insert("x".to_owned(), Value::Text("y".repeat(RECORD_BODY_BYTES_MAX).into()));
    }
    if let Body::Event(event) = &mut endless.body {
        event.params.insert("x".to_owned(), Value::Float(f64::NAN));
    }
    let many = vec![event(&clock, "b1", 1, None); COMMIT_RECORDS_MAX + 1];
    let ops = [
        Op::Append { drafts: vec![event(&clock, "b1", 1, None)] },
        Op::Append { drafts: vec![event(&clock, "b1", 2, None), large] },
        Op::Append { drafts: vec![endless] },
        Op::Append { drafts: many },
        Op::Append { drafts: vec![event(&clock, "b1", 3, None)] },
    ];
    let answers = core.commit(&ops).unwrap();
    let rejected: Vec<bool> = answers.iter().map(|answer| matches!(answer, Answer::Rejected(_))).collect();
    assert_eq!(rejected, [false, true, true, true, false]);
    assert_eq!(core.heads().of(Class::Event).last, 2);
}

#[test]
fn a_repeated_key_is_stored_once_also_across_a_restart() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let twice = core.append(vec![keyed(&clock, "b1", "k0"), keyed(&clock, "b1", "k0")]).unwrap();
    assert_eq!((twice.repeated, twice.last_pos), (1, 1));
    assert_eq!(core.append(vec![keyed(&clock, "b2", "k0")]).unwrap().repeated, 0, "keys are a device's own");
    for n in 1..DEDUP_KEYS_PER_DEVICE {
        assert_eq!(core.append(vec![keyed(&clock, "b1", &format!("k{n}"))]).unwrap().repeated, 0);
    }
    drop(core);
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    assert_eq!(core.append(vec![keyed(&clock, "b1", "k0")]).unwrap().repeated, 1, "the oldest of the ring");
    assert_eq!(core.append(vec![keyed(&clock, "b1", "new")]).unwrap().repeated, 0);
    assert_eq!(core.append(vec![keyed(&clock, "b1", "k0")]).unwrap().repeated, 0, "it fell out of the ring");
    let rows: i64 = core.conn().query_row("SELECT count(*) FROM dedup", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1 + i64::try_from(DEDUP_KEYS_PER_DEVICE).unwrap());
}

#[test]
fn the_fold_sees_every_record_in_order_and_its_drafts_follow_their_cause() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let fold = Alarms::default();
    let (mut core, _) = open_with(dir.path(), &clock, "m1", Box::new(fold.clone())).unwrap();
    let critical = Some(Severity::Critical);
    let drafts =
        vec![event(&clock, "b1", 1, critical), telemetry(&clock, "t1", 2), event(&clock, "b1", 3, critical)];
    assert_eq!(core.append(drafts).unwrap().last_pos, 5);
    let reader = core.reader().unwrap();
    let positions = |class| records(&reader, class).iter().map(|record| record.pos).collect::<Vec<_>>();
    assert_eq!(positions(Class::Event), [1, 4]);
    assert_eq!(positions(Class::Alarm), [2, 5]);
    assert_eq!(positions(Class::Telemetry), [3]);
    assert_eq!(fold.seen.lock().unwrap().committed, [1, 2, 3, 4, 5]);
}

/// A rule that answers each record with two more, for ever.
#[derive(Debug)]
struct Runaway;

impl Fold for Runaway {
    fn apply(&mut self, record: &Record) -> Vec<Draft> {
        let again = Draft { at: record.at.clone(), test: false, dedup: None, body: record.body.clone() };
        vec![again; 8]
    }

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}
}

#[test]
fn a_runaway_rule_is_cut_and_counted() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open_with(dir.path(), &clock, "m1", Box::new(Runaway)).unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    let stored = core.heads().of(Class::Event).last;
    assert_eq!(stored, 1 + FOLD_DRAFTS_MAX as u64);
    assert!(core.tally().fold_dropped > 0);
}

#[test]
fn cursors_and_gap_records_settle_together() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let (city, mut cursors) = (uplink("city"), Cursors::default());
    cursors.classes.insert(Class::Event, ClassCursor { live_next: 7, ..ClassCursor::default() });
    let gap = Gap {
        uplink: Some(city.clone()),
        epoch: None,
        class: Class::Event,
        from: 6,
        to: 6,
        count: 1,
        reason: GapReason::Refused,
        detail: "0x99".to_owned(),
    };
    let draft =
        Draft { at: event(&clock, "b1", 0, None).at, test: false, dedup: None, body: Body::Gap(gap.clone()) };
    core.settle(&city, cursors.clone(), vec![draft]).unwrap();
    let reader = core.reader().unwrap();
    assert_eq!(reader.cursors(&city).unwrap(), Some(cursors.clone()));
    assert_eq!(reader.cursors(&uplink("other")).unwrap(), None);
    assert_eq!(records(&reader, Class::Event)[0].body, Body::Gap(gap));
    cursors.classes.get_mut(&Class::Event).unwrap().live_next = 9;
    core.save_cursors(&city, cursors.clone()).unwrap();
    assert_eq!(core.next_conn(&city, 0).unwrap(), 1);
    assert_eq!(reader.cursors(&city).unwrap(), Some(cursors), "a connection number leaves the cursors alone");
}

#[test]
fn connection_numbers_only_grow() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (a, b) = (uplink("a"), uplink("b"));
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    assert_eq!(core.next_conn(&a, 0).unwrap(), 1);
    assert_eq!(core.next_conn(&a, 10).unwrap(), 10);
    assert_eq!(core.next_conn(&a, 3).unwrap(), 11);
    assert_eq!(core.next_conn(&b, 0).unwrap(), 12, "one count for all: no two connections share a number");
    drop(core);
    let (mut core, opened) = open(dir.path(), &clock).unwrap();
    assert_eq!(opened.how, super::super::How::Existing);
    assert_eq!(core.next_conn(&a, 0).unwrap(), 13);
    let reader = core.reader().unwrap();
    assert_eq!((reader.last_conn(&b).unwrap(), reader.last_conn(&a).unwrap()), (12, 13));
    assert_eq!(reader.conn_max().unwrap(), 13);
}

#[test]
fn a_command_is_new_once_and_then_known_by_its_body() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let (city, other) = (uplink("city"), uplink("other"));
    assert_eq!(core.begin_command(&city, "c1", [1; 32]).unwrap(), CommandSlot::New);
    drop(core);
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    let unknown = CommandSlot::Known { outcome: None };
    assert_eq!(
        core.begin_command(&city, "c1", [1; 32]).unwrap(),
        unknown,
        "a crash came between act and record"
    );
    core.end_command(&city, "c1", "{\"ok\":true}".to_owned()).unwrap();
    let known = CommandSlot::Known { outcome: Some("{\"ok\":true}".to_owned()) };
    assert_eq!(core.begin_command(&city, "c1", [1; 32]).unwrap(), known);
    assert_eq!(core.begin_command(&city, "c1", [2; 32]).unwrap(), CommandSlot::Conflict);
    assert_eq!(
        core.begin_command(&other, "c1", [2; 32]).unwrap(),
        CommandSlot::New,
        "ids are an uplink's own"
    );
    for n in 0..COMMAND_IDS_KEPT {
        assert_eq!(core.begin_command(&city, &format!("n{n}"), [0; 32]).unwrap(), CommandSlot::New);
    }
    assert_eq!(core.begin_command(&city, "n0", [0; 32]).unwrap(), unknown, "the oldest that is kept");
    assert_eq!(core.begin_command(&city, "c1", [1; 32]).unwrap(), CommandSlot::New, "forgotten");
    assert_eq!(
        core.begin_command(&other, "c1", [2; 32]).unwrap(),
        unknown,
        "another uplink's are not touched"
    );
    let long = "i".repeat(super::super::COMMAND_ID_BYTES_MAX + 1);
    assert!(matches!(core.begin_command(&city, &long, [0; 32]), Err(JournalError::Rejected(_))));
}

#[test]
fn a_fork_takes_what_this_process_wrote_into_the_new_epoch() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, before) = open(dir.path(), &clock).unwrap();
    core.append(vec![event(&clock, "b1", 1, None), event(&clock, "b1", 2, None)]).unwrap();
    drop(core);
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append(vec![event(&clock, "b1", 3, None), telemetry(&clock, "t1", 4)]).unwrap();
    let epoch = core.fork_epoch("the platform has seen connection 9").unwrap();
    core.append(vec![event(&clock, "b1", 5, None)]).unwrap();
    assert_ne!(epoch, before.epoch);
    let reader = core.reader().unwrap();
    let found: Vec<_> =
        records(&reader, Class::Event).iter().map(|record| (record.seq, record.epoch)).collect();
    // The fourth is the event that tells of the fork.
    let expected = [(1, before.epoch), (2, before.epoch), (3, epoch), (4, epoch), (5, epoch)];
    assert_eq!(found, expected);
    assert_eq!(records(&reader, Class::Telemetry)[0].epoch, epoch);
    assert_eq!(reader.epoch_start(Class::Event, 5).unwrap(), 3);
    assert_eq!(reader.epoch_start(Class::Event, 2).unwrap(), 1);
    assert_eq!(core.heads().of(Class::Event).epoch, epoch);
    drop(core);
    let (core, opened) = open(dir.path(), &clock).unwrap();
    assert_eq!((opened.epoch, opened.how), (epoch, super::super::How::Existing));
    drop(core);
}

#[test]
fn a_single_commit_writes_about_one_page() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.conn().execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    let wal = || std::fs::metadata(dir.path().join("journal.db-wal")).unwrap().len();
    core.append(vec![event(&clock, "b1", 0, None)]).unwrap();
    let mut single = Vec::new();
    for n in 0..200 {
        let before = wal();
        core.append(vec![event(&clock, "b1", n, None)]).unwrap();
        single.push(wal() - before);
    }
    let frame = 4_096 + 24;
    let total: u64 = single.iter().sum();
    let one = single.iter().filter(|bytes| **bytes == frame).count();
    println!("200 single commits: {} bytes of WAL each on average, {one} wrote one page", total / 200);
    assert!(one > 150, "only {one} of 200 commits wrote a single page: {single:?}");
    assert!(total / 200 < 2 * frame, "{total} bytes for 200 commits");
    let before = wal();
    core.append(vec![keyed(&clock, "b1", "k1")]).unwrap();
    println!("a commit with a de-duplication key: {} bytes", wal() - before);
    let before = wal();
    core.append((0..100).map(|n| telemetry(&clock, "t1", n)).collect()).unwrap();
    println!("a commit of 100 telemetry records: {} bytes", wal() - before);
}
