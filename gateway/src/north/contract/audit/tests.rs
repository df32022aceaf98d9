//! The audit must find each broken promise, and must not cry wolf.

use super::super::tests::fixtures as f;
use super::super::*;
use super::*;
use crate::model::cursor::SeqRange;
use crate::model::ids::{BootId, Epoch};
use crate::model::record::{Class, Record};

/// A platform that hears what it is given.
struct Platform {
    auditor: Auditor,
    view: View,
    now_ms: u64,
}

impl Platform {
    fn new(from_start: bool) -> Self {
        let options = Options { from_start, retain_as_published: true, ..Options::default() };
        Self { auditor: Auditor::new(options).unwrap(), view: View::open(&f::uplink()), now_ms: 1_000 }
    }

    fn hear(&mut self, message: &Outgoing) {
        self.auditor.take(&message.topic, &message.payload, message.retain, self.now_ms);
    }

    fn record(&mut self, record: &Record, previous: u64, replay: bool) {
        let now = f::stamp(self.now_ms);
        let message = f::framed(&self.view, &now, |frame| record_message(record, previous, replay, frame));
        self.hear(&message.unwrap());
    }

    fn event(&mut self, seq: u64, previous: u64) {
        self.record(&f::event(seq, 900), previous, false);
    }

    fn state(&mut self, state: &StateData) {
        let message = f::framed(&self.view, &f::stamp(self.now_ms), |frame| state_message(state, frame));
        self.hear(&message);
    }

    fn will(&mut self, state: &StateData) {
        let message = f::framed(&self.view, &f::stamp(self.now_ms), |frame| will_message(state, frame));
        self.hear(&message);
    }

    fn found(&self) -> Vec<FindingKind> {
        self.auditor.report().counts.into_keys().collect()
    }
}

fn connected(conn: u64, last: u64, pending: &[(u64, u64)]) -> StateData {
    let pending = pending.iter().map(|&(from, to)| SeqRange { from, to }).collect();
    let classes = [(Class::Event, ClassState { last, live_from: last + 1, pending })];
    StateData { conn, classes: classes.into(), ..f::state() }
}

fn of_box(mut record: Record, boot: &str, epoch: Epoch) -> Record {
    record.at.boot = BootId(boot.into());
    record.epoch = epoch;
    record
}

#[test]
fn a_whole_run_gives_nothing_to_report() {
    let mut platform = Platform::new(true);
    platform.state(&connected(1, 0, &[]));
    (1..=50).for_each(|seq| platform.event(seq, seq - 1));
    let report = platform.auditor.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.messages, report.records, report.duplicates, report.missing), (51, 50, 0, 0));
}

#[test]
fn a_hole_is_found_until_it_is_filled() {
    let mut platform = Platform::new(true);
    for seq in [1, 2, 5, 6] {
        platform.event(seq, seq - 1);
    }
    let report = platform.auditor.report();
    assert_eq!((report.missing, report.count(FindingKind::Hole)), (2, 2));
    let key = f::EPOCH.to_string();
    assert_eq!(report.gateways["gatehouse/v1/box-0001"].epochs[&key]["event"].holes, [(3, 4)]);
    platform.record(&f::event(3, 0), 2, true);
    platform.record(&f::event(4, 0), 3, true);
    assert!(platform.found().is_empty());
}

#[test]
fn a_pending_range_is_no_hole_until_it_is_withdrawn() {
    let mut platform = Platform::new(true);
    (1..=3).for_each(|seq| platform.event(seq, seq - 1));
    platform.state(&connected(2, 8, &[(4, 8)]));
    platform.event(9, 8);
    let report = platform.auditor.report();
    assert_eq!((report.missing, report.pending), (0, 5), "{report}");
    (4..=7).for_each(|seq| platform.record(&f::event(seq, 0), seq - 1, true));
    platform.state(&StateData { rev: 1, ..connected(2, 8, &[]) });
    assert_eq!(platform.auditor.report().missing, 1, "8 was announced, withdrawn, and never came");
}

#[test]
fn what_a_state_claims_to_have_delivered_is_missed() {
    let mut platform = Platform::new(true);
    (1..=3).for_each(|seq| platform.event(seq, seq - 1));
    // Nothing live follows: only the state tells that 4 to 6 exist.
    platform.state(&connected(2, 6, &[]));
    assert_eq!(platform.auditor.report().missing, 3);
}

#[test]
fn a_gap_record_explains() {
    let mut platform = Platform::new(true);
    platform.event(1, 0);
    platform.event(6, 5);
    assert_eq!(platform.auditor.report().missing, 4);
    platform.record(&f::gap(7, Class::Event, 2, 5), 6, false);
    let report = platform.auditor.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.gaps, 4);
}

#[test]
fn a_filtered_platform_sees_holes_and_only_holes() {
    let mut platform = Platform::new(true);
    for (seq, previous) in [(4, 0), (9, 4), (30, 9)] {
        platform.event(seq, previous);
    }
    assert!(platform.found().is_empty());
    // 41 says that 35 is mine, and 35 never came. What lies between 35 and 41 is nobody's.
    platform.event(41, 35);
    let report = platform.auditor.report();
    assert_eq!(report.missing, 5, "31 to 35 cannot be told apart until 35 comes: {report}");
    platform.record(&f::event(35, 0), 30, true);
    assert!(platform.found().is_empty());
}

#[test]
fn a_duplicate_is_counted_and_a_reused_id_is_found() {
    let mut platform = Platform::new(true);
    platform.event(1, 0);
    platform.now_ms += 500;
    platform.event(1, 0);
    platform.record(&f::event(1, 900), 0, true);
    let report = platform.auditor.report();
    assert!(report.is_clean(), "age and stream of a repetition may differ: {report}");
    assert_eq!((report.records, report.duplicates), (1, 2));
    platform.record(&f::event(1, 901), 0, false);
    assert_eq!(platform.found(), [FindingKind::IdReused]);
}

#[test]
fn who_joins_late_does_not_cry_wolf() {
    let mut platform = Platform::new(false);
    // What stood on the topic is of yesterday: half of it was sent before we listened.
    platform.state(&connected(7, 1_000, &[(500, 800)]));
    platform.event(1_200, 1_199);
    platform.record(&f::event(650, 0), 649, true);
    platform.state(&StateData { rev: 9, ..connected(7, 1_000, &[]) });
    let report = platform.auditor.report();
    assert!(report.is_clean(), "{report}");
    platform.event(1_205, 1_204);
    assert_eq!(platform.auditor.report().missing, 4);
}

#[test]
fn late_data_in_the_live_stream_is_found() {
    let mut platform = Platform::new(true);
    platform.now_ms = 100_000;
    platform.record(&f::event(1, 0), 0, true);
    assert!(platform.found().is_empty(), "the backlog may be old");
    platform.record(&f::event(2, 0), 1, false);
    assert_eq!(platform.found(), [FindingKind::Late]);
}

#[test]
fn the_latest_value_may_not_go_backwards_but_may_be_repeated() {
    let mut platform = Platform::new(true);
    for (seq, previous) in [(1, 0), (2, 1), (3, 2), (2, 1)] {
        platform.record(&f::telemetry(seq, 0), previous, false);
    }
    platform.record(&f::telemetry(6, 0), 5, false);
    platform.record(&f::telemetry(5, 0), 4, true);
    platform.record(&f::telemetry(4, 0), 3, true);
    assert!(platform.found().is_empty(), "{}", platform.auditor.report());
    platform.record(&f::telemetry(9, 0), 7, false);
    platform.record(&f::telemetry(7, 0), 6, false);
    assert!(platform.found().contains(&FindingKind::LatestBackwards));
}

#[test]
fn a_late_will_is_ignored_and_a_late_online_is_found() {
    let mut platform = Platform::new(true);
    platform.state(&connected(4, 0, &[]));
    platform.state(&connected(5, 0, &[]));
    platform.will(&connected(4, 0, &[]));
    let report = platform.auditor.report();
    assert!(report.is_clean(), "{report}");
    let gateway = &report.gateways["gatehouse/v1/box-0001"];
    assert_eq!((gateway.online, gateway.conn, gateway.late_wills), (Some(true), Some(5), 1));
    platform.will(&connected(5, 0, &[]));
    assert_eq!(platform.auditor.report().gateways["gatehouse/v1/box-0001"].online, Some(false));
    platform.state(&connected(3, 0, &[]));
    assert_eq!(platform.found(), [FindingKind::ConnBackwards]);
}

#[test]
fn a_swapped_box_is_no_second_box() {
    let (old, new) = ("1".repeat(32), "2".repeat(32));
    let mut platform = Platform::new(true);
    let at = |boot: &str, epoch: u64, conn: u64| {
        let mut state = connected(conn, 0, &[]);
        state.epoch = Epoch(epoch);
        state.started.boot = BootId(boot.into());
        state
    };
    let say = |platform: &mut Platform, state: &StateData, last_word: bool| {
        let mut now = f::stamp(platform.now_ms);
        now.boot = state.started.boot.clone();
        let make = if last_word { will_message } else { state_message };
        let message = f::framed(&platform.view, &now, |frame| make(state, frame));
        platform.hear(&message);
    };
    say(&mut platform, &at(&old, 1, 57), false);
    platform.record(&of_box(f::event(1, 0), &old, Epoch(1)), 0, false);
    say(&mut platform, &at(&new, 2, 1), false);
    // The old box's will comes after its successor.
    say(&mut platform, &at(&old, 1, 57), true);
    platform.record(&of_box(f::event(1, 0), &new, Epoch(2)), 0, false);
    let report = platform.auditor.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.gateways["gatehouse/v1/box-0001"].online, Some(true));
    // But if it speaks again, there are two.
    platform.record(&of_box(f::event(2, 0), &old, Epoch(1)), 1, false);
    assert_eq!(platform.found(), [FindingKind::TwoBoxes]);
}

#[test]
fn a_forked_epoch_begins_in_the_middle_without_a_hole() {
    let mut platform = Platform::new(true);
    (1..=3).for_each(|seq| platform.event(seq, seq - 1));
    let mut forked = f::event(4, 0);
    forked.epoch = Epoch(77);
    platform.record(&forked, 0, false);
    assert!(platform.found().is_empty());
}

#[test]
fn what_a_forked_journal_still_owes_is_no_hole() {
    let mut platform = Platform::new(true);
    (1..=3).for_each(|seq| platform.event(seq, seq - 1));
    platform.event(6, 5);
    assert_eq!(platform.auditor.report().missing, 2);
    let forked = StateData { epoch: Epoch(77), ..connected(9, 6, &[(4, 5)]) };
    platform.state(&forked);
    let report = platform.auditor.report();
    assert_eq!((report.missing, report.count(FindingKind::Hole)), (0, 0), "{report}");
    // Its next state withdraws them.
    platform.state(&StateData { rev: 1, epoch: Epoch(77), ..connected(9, 6, &[]) });
    assert_eq!(platform.found(), [FindingKind::Hole]);
}

#[test]
fn carriage_is_checked() {
    let mut platform = Platform::new(true);
    let good =
        f::framed(&platform.view, &f::stamp(0), |frame| record_message(&f::event(1, 0), 0, false, frame))
            .unwrap();
    platform.auditor.take(&good.topic, &good.payload, true, 0);
    assert_eq!(platform.found(), [FindingKind::RetainFlag]);

    let mut platform = Platform::new(true);
    let state = f::framed(&platform.view, &f::stamp(0), |frame| state_message(&connected(1, 0, &[]), frame));
    platform.auditor.take(&state.topic, &state.payload, false, 0);
    assert_eq!(platform.found(), [FindingKind::RetainFlag]);
    // Somebody wipes it.
    platform.auditor.take(&state.topic, b"", true, 0);
    assert_eq!(platform.auditor.report().messages, 1);

    let mut platform = Platform::new(true);
    let padded = [&good.payload[..], &[b' '; 16 * 1024]].concat();
    platform.auditor.take(&good.topic, &padded, false, 0);
    assert_eq!(platform.found(), [FindingKind::Oversize]);
}

#[test]
fn what_breaks_the_schema_or_contradicts_itself_is_found() {
    let view = View::open(&f::uplink());
    let good =
        f::framed(&view, &f::stamp(0), |frame| record_message(&f::event(1, 0), 0, false, frame)).unwrap();
    let text = String::from_utf8(good.payload.to_vec()).unwrap();
    let cases = [
        (text.replace("\"sequence\":\"0000000000000001\"", "\"sequence\":1"), FindingKind::Schema),
        (text.replace("\"specversion\":\"1.0\",", ""), FindingKind::Schema),
        (text.replace("gatehouse.event.v1", "gatehouse.alarm.v1"), FindingKind::Schema),
        (text.replace("\"time\":\"2026-11-02T", "\"time\":\"2026-11-02 at "), FindingKind::Schema),
        ("no json".to_owned(), FindingKind::Schema),
        (text.replace("/gatehouse/box-0001", "/gatehouse/box-0002"), FindingKind::Contradiction),
        (text.replace("\"test\":false", "\"test\":true"), FindingKind::Contradiction),
        (text.replace("\"emergency\",\"name\"", "\"fire\",\"name\""), FindingKind::Contradiction),
        (text.replace("-event-1\"", "-event-2\""), FindingKind::Contradiction),
        (
            text.replace("\"previous\":\"0000000000000000\"", "\"previous\":\"0000000000000001\""),
            FindingKind::Contradiction,
        ),
    ];
    for (bad, kind) in cases {
        assert_ne!(bad, text, "the case changes nothing");
        let mut platform = Platform::new(true);
        platform.auditor.take(&good.topic, bad.as_bytes(), false, 0);
        assert_eq!(platform.found(), [kind], "{bad}");
    }
    let mut platform = Platform::new(true);
    platform.auditor.take("gatehouse/v1/box-0001/up/added/later", b"\xff", false, 0);
    let added = text.replace("\"test\":false", "\"test\":false,\"added\":{\"x\":1}");
    platform.auditor.take(&good.topic, added.as_bytes(), false, 0);
    let report = platform.auditor.report();
    assert!(report.is_clean(), "what later releases add is no finding: {report}");
    assert_eq!(report.unknown, 1);
}

#[test]
fn a_snapshot_without_all_its_pages_is_found() {
    let mut platform = Platform::new(true);
    let pages = |number: u32| {
        let snapshot = SnapshotData { number, ..f::snapshot(200) };
        f::framed(&View::open(&f::uplink()), &f::stamp(0), |frame| snapshot_pages(&snapshot, frame))
    };
    assert!(pages(1).len() > 2);
    for page in pages(1) {
        platform.hear(&page);
    }
    pages(2).iter().skip(1).for_each(|page| platform.hear(page));
    assert!(platform.found().is_empty());
    for page in pages(3) {
        platform.hear(&page);
    }
    assert_eq!(platform.found(), [FindingKind::SnapshotIncomplete]);
}

#[test]
fn findings_are_bounded_and_all_counted() {
    let mut platform = Platform::new(true);
    for _ in 0..(FINDINGS_MAX + 50) {
        platform.auditor.take("gatehouse/v1/box-0001/up/alarm", b"{}", false, 0);
    }
    let report = platform.auditor.report();
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.count(FindingKind::Schema), FINDINGS_MAX as u64 + 50);
}

#[test]
fn what_was_in_memory_only_is_counted_and_leaves_no_hole() {
    let mut platform = Platform::new(true);
    platform.state(&connected(1, 0, &[]));
    platform.event(1, 0);
    for seq in [3, 7] {
        let now = f::stamp(platform.now_ms);
        let message =
            f::framed(&platform.view, &now, |frame| volatile_message(&f::volatile(seq, 900), frame));
        platform.hear(&message.unwrap());
    }
    platform.event(2, 1);
    assert_eq!(platform.found(), []);
    let report = platform.auditor.report();
    assert_eq!((report.volatile, report.records, report.missing), (2, 2, 0));
    assert!(report.to_string().contains("volatile records"));
}
