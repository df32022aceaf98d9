//! The engine by tables, over the simulation's journal and words.

use std::collections::BTreeSet;

use super::simulation::{PlainWording, Said, SimJournal, draft};
use super::*;
use crate::model::record::Body;
use crate::rt::clock::{Clock, ManualClock};

struct Bench {
    clock: ManualClock,
    journal: SimJournal,
    engine: Engine,
}

/// A message as the tests read it.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    token: u64,
    class: Class,
    replay: bool,
    previous: Seq,
    records: Vec<Seq>,
}

impl Bench {
    fn new(stored: &[(Class, u64)], delivery: Delivery, pacing: Pacing) -> Self {
        let clock = ManualClock::new();
        let mut journal = SimJournal::new();
        for (class, count) in stored {
            for number in 0..*count {
                journal.append(draft(*class, number + 1, &clock.now()));
            }
        }
        let settings = Settings {
            uplink: UplinkName::new("street").unwrap(),
            classes: Class::ALL.into_iter().collect(),
            delivery,
            pacing,
        };
        let wording = Box::new(PlainWording { hide: 0, batch: 10, large: false });
        let heads = journal.heads().unwrap();
        let engine = Engine::new(settings, wording, &Cursors::default(), heads, fastrand::Rng::with_seed(3));
        Self { clock, journal, engine }
    }

    fn connect(&mut self) {
        let session = Session { conn: 1, epoch: Epoch(1), receive_max: u16::MAX, packet_max: u32::MAX };
        self.engine.connected(session, &self.clock.now());
    }

    fn append(&mut self, class: Class) -> Seq {
        let number = self.journal.last.get(&class).copied().unwrap_or(0) + 1;
        self.journal.append(draft(class, number, &self.clock.now())).1
    }

    /// One step; state and snapshot are acknowledged at once.
    fn step(&mut self) -> (Vec<Sent>, Actions) {
        let mut actions = self.engine.step(&self.clock.now(), &mut self.journal);
        let mut sent = Vec::new();
        for publish in std::mem::take(&mut actions.publishes) {
            match serde_json::from_slice(&publish.message.payload).unwrap() {
                Said::Records { class, replay, previous, records } => {
                    let records = records.into_iter().map(|(seq, _, _)| seq).collect();
                    sent.push(Sent { token: publish.token, class, replay, previous, records });
                }
                Said::State { .. } | Said::Snapshot => self.ack(publish.token, 0),
            }
        }
        (sent, actions)
    }

    fn ack(&mut self, token: u64, code: u8) {
        self.engine.puback(token, code, &self.clock.now());
    }

    fn live_next(&self, class: Class) -> Seq {
        self.engine.cursors().classes[&class].live_next
    }
}

fn at_once() -> Pacing {
    Pacing { backlog_delay_max_s: 0, backlog_per_s: 1_000_000, ..Pacing::default() }
}

#[test]
fn alarms_leave_before_events_before_telemetry_and_none_starves() {
    let mut bench = Bench::new(&[], Delivery::Broker, Pacing { inflight: 1, ..at_once() });
    bench.connect();
    bench.step();
    for _ in 0..60 {
        for class in Class::ALL {
            bench.append(class);
        }
    }
    let mut order = Vec::new();
    for _ in 0..60 {
        let (sent, _) = bench.step();
        for message in sent {
            order.push(message.class);
            bench.ack(message.token, 0);
        }
    }
    assert!(order.iter().take(8).all(|class| *class == Class::Alarm), "{order:?}");
    let mut seen = BTreeSet::new();
    seen.extend(order.iter().take(20).copied());
    assert_eq!(seen.len(), 3, "each class has its turn early: {order:?}");
}

#[test]
fn live_does_not_wait_for_the_backlog() {
    let pacing = Pacing { backlog_delay_max_s: 60, backlog_per_s: 50, ..Pacing::default() };
    let mut bench = Bench::new(&[(Class::Event, 49), (Class::Alarm, 2)], Delivery::Broker, pacing);
    bench.connect();
    let (sent, _) = bench.step();
    assert!(sent.iter().all(|message| message.class == Class::Alarm), "only alarms go at once: {sent:?}");
    bench.append(Class::Event);
    let (sent, _) = bench.step();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].replay, sent[0].previous, sent[0].records.as_slice()), (false, 49, [50].as_slice()));
    bench.clock.advance_ms(60_000);
    // The PUBACK of the alarms came long ago.
    for token in 1..100 {
        bench.ack(token, 0);
    }
    let (sent, _) = bench.step();
    assert!(sent.iter().any(|message| message.replay && message.class == Class::Event), "{sent:?}");
}

#[test]
fn a_critical_record_ends_the_delay_of_its_class() {
    let pacing = Pacing { backlog_delay_max_s: 3_600, ..Pacing::default() };
    let mut bench = Bench::new(&[(Class::Event, 50)], Delivery::Broker, pacing);
    bench.connect();
    let (sent, _) = bench.step();
    assert!(!sent.is_empty() && sent[0].records == [1], "the 50th is critical, so all go at once: {sent:?}");
}

#[test]
fn busy_holds_the_record_and_goes_on_from_it_in_order() {
    for code in [0x10, 0x97, 0x88, 0x89, 0x93] {
        let mut bench = Bench::new(&[(Class::Event, 4)], Delivery::Broker, at_once());
        bench.connect();
        let (sent, _) = bench.step();
        let tokens: Vec<u64> = sent.iter().map(|message| message.token).collect();
        assert_eq!(tokens.len(), 4);
        bench.ack(tokens[0], 0);
        bench.ack(tokens[1], code);
        bench.ack(tokens[2], 0);
        bench.ack(tokens[3], 0);
        let (sent, actions) = bench.step();
        assert!(sent.is_empty(), "0x{code:02x}: it waits first");
        assert_eq!(actions.events.len(), usize::from(code == 0x10), "0x{code:02x}");
        assert!(bench.engine.trouble().is_some());
        bench.clock.advance_ms(1_000);
        let (sent, _) = bench.step();
        assert_eq!(sent.len(), 1, "0x{code:02x}: one tries");
        assert_eq!((sent[0].records.as_slice(), sent[0].previous), ([2].as_slice(), 1));
        bench.ack(sent[0].token, 0);
        let (sent, _) = bench.step();
        let numbers: Vec<Seq> =
            sent.iter().flat_map(|message| message.records.clone()).filter(|n| *n < 5).collect();
        assert_eq!(numbers, [3, 4], "0x{code:02x}");
        assert_eq!(bench.engine.trouble(), None);
    }
}

#[test]
fn a_refused_record_is_set_aside_tried_and_given_up() {
    let pacing = Pacing { refusal_tries: 2, ..at_once() };
    let mut bench = Bench::new(&[(Class::Event, 2)], Delivery::Broker, pacing);
    bench.connect();
    let (sent, _) = bench.step();
    bench.ack(sent[0].token, 0x87);
    bench.ack(sent[1].token, 0);
    let (_, _) = bench.step();
    let cursor = bench.engine.cursors().classes[&Class::Event].clone();
    assert_eq!((cursor.live_next, cursor.backlog.len(), cursor.aside[&1]), (3, 0, 1), "the line goes on");
    bench.clock.advance_ms(5_000);
    let (sent, _) = bench.step();
    assert_eq!((sent[0].records.as_slice(), sent[0].replay), ([1].as_slice(), true));
    bench.ack(sent[0].token, 0x87);
    let (_, actions) = bench.step();
    let settlement = actions.settle.unwrap();
    assert_eq!(settlement.drafts.len(), 1);
    assert!(settlement.cursors.classes[&Class::Event].aside.is_empty(), "the same commit passes it");
    assert_eq!(bench.engine.cursors().classes[&Class::Event].aside.len(), 1, "but nothing else does before");
    bench.engine.settled(settlement.ticket, true, bench.clock.mono_ms());
    assert!(bench.engine.cursors().classes[&Class::Event].aside.is_empty());
}

#[test]
fn silence_is_a_cut_and_progress_is_not() {
    let mut bench = Bench::new(&[(Class::Event, 3)], Delivery::Broker, at_once());
    bench.connect();
    let (sent, _) = bench.step();
    bench.clock.advance_ms(5_000);
    bench.ack(sent[0].token, 0);
    bench.clock.advance_ms(7_999);
    assert_eq!(bench.step().1.cut, None, "something was heard within the time-out");
    bench.clock.advance_ms(1);
    assert!(bench.step().1.cut.is_some(), "8 s of silence with a message under way");
}

#[test]
fn only_a_receipt_moves_the_cursor_where_receipts_are_asked_for() {
    let mut bench = Bench::new(&[], Delivery::Receipt, at_once());
    bench.connect();
    bench.step();
    for _ in 0..3 {
        bench.append(Class::Event);
    }
    let (sent, _) = bench.step();
    for message in &sent {
        bench.ack(message.token, 0);
    }
    assert_eq!(bench.live_next(Class::Event), 1);
    bench.engine.receipt(Epoch(9), Class::Event, Kind::Live, 2);
    assert_eq!(bench.live_next(Class::Event), 1, "another epoch's");
    bench.engine.receipt(Epoch(1), Class::Event, Kind::Live, 2);
    assert_eq!(bench.live_next(Class::Event), 3);
    bench.clock.advance_ms(60_000);
    let (sent, _) = bench.step();
    assert_eq!(sent.len(), 1, "what no receipt confirmed is sent again");
    assert_eq!(sent[0].records, [3]);
}

#[test]
fn a_replay_is_clamped_to_what_is_stored() {
    let range = |from, to| crate::model::cursor::SeqRange { from, to };
    let table = [
        ((2, 3), Ok((Some(range(2, 3)), 2, vec![]))),
        ((3, 9), Ok((Some(range(3, 4)), 2, vec![range(5, 9)]))),
        ((7, 9), Ok((None, 0, vec![range(7, 9)]))),
        ((3, 2), Err(ReplayError::Empty)),
    ];
    for ((from, to), expected) in table {
        let mut bench = Bench::new(&[(Class::Event, 4)], Delivery::Broker, at_once());
        let answer = bench.engine.replay(Class::Event, from, to);
        let answer = answer.map(|answer| (answer.range, answer.count, answer.missing));
        assert_eq!(answer, expected, "{from}..={to}");
    }
}

#[test]
fn a_packet_too_large_for_this_broker_splits_or_becomes_a_gap() {
    let mut bench = Bench::new(&[(Class::Telemetry, 8)], Delivery::Broker, at_once());
    let session = Session { conn: 1, epoch: Epoch(1), receive_max: 10, packet_max: 700 };
    bench.engine.connected(session, &bench.clock.now());
    let (sent, _) = bench.step();
    let sizes: Vec<usize> = sent.iter().map(|message| message.records.len()).collect();
    assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() == 8, "{sizes:?}");
    let tiny = Session { conn: 2, packet_max: 100, ..session };
    bench.engine.connected(tiny, &bench.clock.now());
    let (sent, actions) = bench.step();
    assert!(sent.is_empty());
    assert_eq!(actions.settle.unwrap().drafts.len(), 1, "eight neighbours, one gap record");
}

#[test]
fn a_gap_record_too_large_for_this_broker_waits_and_begets_no_other() {
    let mut bench = Bench::new(&[(Class::Event, 1)], Delivery::Broker, at_once());
    let tiny = Session { conn: 1, epoch: Epoch(1), receive_max: 10, packet_max: 100 };
    bench.engine.connected(tiny, &bench.clock.now());
    let (_, actions) = bench.step();
    let settlement = actions.settle.unwrap();
    for draft in settlement.drafts {
        bench.journal.append(draft);
    }
    bench.engine.settled(settlement.ticket, true, bench.clock.mono_ms());
    for _ in 0..20 {
        let (sent, actions) = bench.step();
        assert!(sent.is_empty() && actions.settle.is_none(), "a gap record for a gap record");
        bench.clock.advance_ms(1_000);
    }
    let cursor = bench.engine.cursors().classes[&Class::Event].clone();
    assert_eq!((cursor.live_next, cursor.aside.keys().copied().collect::<Vec<_>>()), (3, vec![2]));
    assert!(bench.engine.trouble().is_some());
    bench.connect();
    bench.clock.advance_ms(300_000);
    let (mut sent, _) = bench.step();
    sent.extend(bench.step().0);
    assert!(sent.iter().any(|message| message.records == [2]), "another broker takes it: {sent:?}");
}

#[test]
fn a_record_at_which_the_broker_closes_is_found_and_does_not_stop_the_line() {
    closes_at_a_record(Some(0x95), 40);
}

#[test]
fn so_is_one_at_which_it_closes_without_a_word() {
    closes_at_a_record(None, 80);
}

fn closes_at_a_record(word: Option<u8>, rounds: u32) {
    let pacing = Pacing { refusal_tries: 3, ..at_once() };
    let mut bench = Bench::new(&[(Class::Event, 5), (Class::Telemetry, 5)], Delivery::Broker, pacing);
    let (mut taken, mut given_up) = (BTreeSet::new(), None);
    for _round in 0..rounds {
        bench.connect();
        'connection: for _turn in 0..20 {
            let (sent, actions) = bench.step();
            if let Some(settlement) = actions.settle {
                given_up = Some(settlement.drafts.clone());
                bench.engine.settled(settlement.ticket, true, bench.clock.mono_ms());
            }
            for message in sent {
                if message.class == Class::Event && message.records.contains(&2) {
                    if let Some(code) = word {
                        bench.engine.expelled(code, &bench.clock.now());
                    }
                    break 'connection;
                }
                taken.extend(message.records.iter().map(|seq| (message.class, *seq)));
                bench.ack(message.token, 0);
            }
        }
        bench.engine.disconnected(&bench.clock.now());
        bench.clock.advance_ms(30_000);
    }
    assert_eq!(taken.len(), 9, "all but one: {taken:?}");
    let Some(Body::Gap(gap)) = given_up.as_ref().and_then(|drafts| drafts.first()).map(|draft| &draft.body)
    else {
        panic!("no gap record: {given_up:?}");
    };
    assert_eq!((gap.class, gap.from, gap.to, gap.reason), (Class::Event, 2, 2, GapReason::Refused));
    assert!(gap.detail.starts_with(&verdict::code_text(word.unwrap_or(0x80))), "{}", gap.detail);
    assert_eq!(bench.live_next(Class::Event), 6);
}
