//! Reading: bounds, bad rows, backward searches, walks.

use std::collections::BTreeSet;

use crate::model::ids::DeviceId;
use crate::model::record::{Body, Class, Record, Severity, Value};

use super::super::testing::{all, clock, event, open, records, telemetry};
use super::super::{Core, Read, Reader, Selection, StoreError, Walk};

fn number(record: &Record) -> i64 {
    let value = match &record.body {
        Body::Event(event) => event.params.get("n"),
        Body::Telemetry(telemetry) => telemetry.samples.first().and_then(|sample| sample.value.as_ref()),
        _ => None,
    };
    let Some(Value::Int(n)) = value else { panic!("{record:?}") };
    *n
}

fn walk(reader: &Reader, mut walk: Walk) -> Vec<i64> {
    let mut numbers = Vec::new();
    while let Some(read) = walk.next(reader).unwrap() {
        numbers.push(number(&read.into_record().expect("readable")));
    }
    numbers
}

#[test]
fn a_read_keeps_its_bounds_and_gives_at_least_one() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append((1..=20).map(|n| event(&clock, "b1", n, None)).collect()).unwrap();
    let reader = core.reader().unwrap();
    let seqs = |from, to, records_max, bytes_max| -> Vec<u64> {
        let page = reader.read(Class::Event, from, to, records_max, bytes_max).unwrap();
        page.iter().map(Read::seq).collect()
    };
    assert_eq!(seqs(3, 6, 100, 100_000), [3, 4, 5, 6]);
    assert_eq!(seqs(3, 6, 2, 100_000), [3, 4]);
    assert_eq!(seqs(3, 6, 100, 1), [3]);
    let body = serde_json::to_string(&records(&reader, Class::Event)[0].body).unwrap().len();
    assert_eq!(seqs(3, 9, 100, 2 * body), [3, 4]);
    assert_eq!(seqs(19, u64::MAX, 100, 100_000), [19, 20]);
    assert!(seqs(21, 30, 100, 100_000).is_empty());
    assert!(seqs(6, 3, 100, 100_000).is_empty());
    assert_eq!(reader.count(Class::Event, 5, 8).unwrap(), 4);
}

#[test]
fn a_bad_row_does_not_block_those_behind_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append((1..=6).map(|n| event(&clock, "b1", n, None)).collect()).unwrap();
    core.conn()
        .execute_batch(
            "UPDATE event SET body = substr(body, 2) WHERE seq = 2; UPDATE event SET trust = 9 WHERE seq = 3;
             UPDATE event SET boot = 99 WHERE seq = 4;
             UPDATE event SET body = '{\"gap\":' || body || '}' WHERE seq = 5;",
        )
        .unwrap();
    let reader = core.reader().unwrap();
    let readable: Vec<bool> =
        all(&reader, Class::Event).iter().map(|read| matches!(read, Read::Record(_))).collect();
    assert_eq!(readable, [true, false, false, false, false, true]);
    let mut walk = Walk::new(&reader, Selection::default()).unwrap();
    let mut shown = 0;
    while walk.next(&reader).unwrap().is_some() {
        shown += 1;
    }
    assert_eq!(shown, 6, "a walk shows what cannot be read, too");
    assert_eq!(reader.last_before(Class::Event, 6, 1, &mut |_| true).unwrap(), Some(1));
}

#[test]
fn a_broken_page_costs_its_own_rows() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append((1..=300).map(|n| event(&clock, "b1", n, None)).collect()).unwrap();
    drop(core);
    let path = dir.path().join("journal.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = "\"n\":150}".as_bytes();
    let at = bytes.windows(middle.len()).position(|window| window == middle).expect("stored as text");
    let page = at / 4_096 * 4_096;
    bytes[page..page + 100].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let mut seen = BTreeSet::new();
    let (mut from, mut lost) = (1, 0);
    while from <= 300 {
        let page = reader.read(Class::Event, from, 300, 7, usize::MAX).unwrap();
        let Some(last) = page.last().map(Read::seq) else { break };
        lost += page.iter().filter(|read| matches!(read, Read::Unreadable { .. })).count();
        seen.extend(page.iter().map(Read::seq));
        from = last + 1;
    }
    assert_eq!(seen, (1..=300).collect(), "each number is told of");
    assert!((1..60).contains(&lost), "{lost} rows could not be read");
    let mut walk = Walk::new(&reader, Selection::default()).unwrap();
    let mut shown = 0;
    while walk.next(&reader).unwrap().is_some() {
        shown += 1;
    }
    assert_eq!(shown, 300);
}

fn spread(core: &mut Core, clock: &crate::rt::clock::ManualClock) {
    for n in 1..=3_000 {
        let critical = (n == 2_000).then_some(Severity::Critical);
        let device = if n % 500 == 0 { "rare" } else { "common" };
        clock.advance_ms(1_000);
        let draft = if n % 4 == 0 { event(clock, device, n, critical) } else { telemetry(clock, device, n) };
        core.append(vec![draft]).unwrap();
    }
}

#[test]
fn searches_and_walks_agree_with_a_plain_filter() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.conn().execute_batch("PRAGMA synchronous = OFF").unwrap();
    spread(&mut core, &clock);
    let reader = core.reader().unwrap();
    let events = records(&reader, Class::Event);
    // The rare device speaks at 500, 1000 …: the events 125, 250 … 750.
    let rare = &mut |record: &Record| record.body.device().is_some_and(|device| device.id.as_str() == "rare");
    assert_eq!(reader.last_before(Class::Event, 750, 1, rare).unwrap(), Some(625));
    assert_eq!(reader.last_before(Class::Event, 751, 1, rare).unwrap(), Some(750));
    assert_eq!(reader.last_before(Class::Event, 625, 501, rare).unwrap(), None);
    core.conn().execute_batch("DELETE FROM event WHERE seq BETWEEN 130 AND 620").unwrap();
    assert_eq!(reader.last_before(Class::Event, 621, 1, rare).unwrap(), Some(125), "across a hole");
    assert_eq!(reader.last_before(Class::Event, 1, 1, rare).unwrap(), None);

    assert!(!reader.has_pending(Class::Event, 621, 750, Severity::Critical).unwrap());
    core.append(vec![event(&clock, "b1", 3_001, Some(Severity::Major))]).unwrap();
    assert!(reader.has_pending(Class::Event, 700, 751, Severity::Major).unwrap());
    assert!(!reader.has_pending(Class::Event, 700, 751, Severity::Critical).unwrap());

    let all: Vec<i64> = (1..=3_001).filter(|n| n % 4 != 0 || !(520..=2_480).contains(n)).collect();
    assert_eq!(walk(&reader, Walk::new(&reader, Selection::default()).unwrap()), all);
    let devices = vec![DeviceId::new("rare").unwrap()];
    let only = Selection { devices, classes: vec![Class::Event], ..Selection::default() };
    assert_eq!(walk(&reader, Walk::new(&reader, only.clone()).unwrap()), [500, 2_500, 3_000]);
    assert_eq!(walk(&reader, Walk::tail(&reader, only, 2).unwrap()), [2_500, 3_000]);
    let last = walk(&reader, Walk::tail(&reader, Selection::default(), 5).unwrap());
    assert_eq!(last, [2_997, 2_998, 2_999, 3_000, 3_001]);
    let (from, until) = (events[0].at.wall_ms, events[1].at.wall_ms);
    let range = Selection { from_ms: Some(from), until_ms: Some(until), ..Selection::default() };
    assert_eq!(walk(&reader, Walk::new(&reader, range).unwrap()), [4, 5, 6, 7]);
}

#[test]
fn a_walk_goes_on_with_what_is_written_later() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mut core, _) = open(dir.path(), &clock).unwrap();
    core.append(vec![event(&clock, "b1", 1, None)]).unwrap();
    let reader = core.reader().unwrap();
    let mut walk = Walk::tail(&reader, Selection::default(), 0).unwrap();
    assert_eq!(walk.next(&reader).unwrap(), None);
    core.append(vec![telemetry(&clock, "t1", 2), event(&clock, "b1", 3, None)]).unwrap();
    assert_eq!(walk.next(&reader).unwrap(), None, "not before it is told to");
    walk.extend(&reader).unwrap();
    let mut next = || number(&walk.next(&reader).unwrap().unwrap().into_record().unwrap());
    assert_eq!((next(), next()), (2, 3));
}

#[test]
fn a_directory_without_a_journal_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Reader::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "and nothing is made there");
}
