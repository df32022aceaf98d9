//! The line: what waits, what is folded, and what each outcome means.

use super::super::line::*;
use super::super::words::Told;
use super::messages::told;

fn line(per_minute: u16, count: u64) -> Line {
    let mut line = Line::new(per_minute, RETRY_MAX, fastrand::Rng::with_seed(7));
    (1..=count).for_each(|seq| push(&mut line, seq));
    line
}

fn push(line: &mut Line, seq: u64) {
    let told = Told { id: format!("a{seq}"), ..told() };
    line.push(Waiting { seq: Some(seq), told });
}

fn send(line: &mut Line, now_ms: u64) -> Batch {
    match line.next(now_ms) {
        Next::Send(batch) => batch,
        Next::Wait(ms) => panic!("it waits {ms:?} ms"),
    }
}

fn ids(line: &Line, batch: Batch) -> Vec<String> {
    line.alarms(batch).into_iter().map(|told| told.id).collect()
}

fn refused() -> Outcome {
    Outcome::Refused { reason: "no".to_owned() }
}

#[test]
fn a_storm_is_folded_and_one_alarm_goes_at_once() {
    let mut line = line(15, 45);
    for expected in [20, 20, 5] {
        let batch = send(&mut line, 0);
        assert_eq!(batch.count, expected);
        line.settle(batch, Outcome::Taken, 0);
    }
    assert_eq!((line.delivered, line.first_seq(), line.next(0)), (45, None, Next::Wait(None)));
    push(&mut line, 46);
    assert_eq!(send(&mut line, 1).count, 1);
}

#[test]
fn no_minute_sees_more_messages_than_allowed() {
    let mut line = line(3, 0);
    let mut sent: Vec<u64> = Vec::new();
    let mut now_ms = 0;
    for seq in 1..400 {
        push(&mut line, seq);
        now_ms += 700;
        if let Next::Send(batch) = line.next(now_ms) {
            sent.push(now_ms);
            line.settle(batch, Outcome::Taken, now_ms);
        }
    }
    assert!(sent.windows(4).all(|of| of[3] - of[0] >= 60_000), "{sent:?}");
    assert!(sent.len() >= 12, "{sent:?}");
}

#[test]
fn failures_back_off_and_lose_nothing() {
    let mut line = line(600, 3);
    let mut now_ms = 0;
    let mut waited = Vec::new();
    for _ in 0..12 {
        let batch = send(&mut line, now_ms);
        line.settle(batch, Outcome::Failed { reason: "down".to_owned() }, now_ms);
        let Next::Wait(Some(ms)) = line.next(now_ms) else { panic!("no back-off") };
        waited.push(ms);
        now_ms += ms;
    }
    assert!(waited.iter().all(|ms| (500..=60_000).contains(ms)), "{waited:?}");
    assert!(waited[9..].iter().sum::<u64>() > 15_000, "{waited:?}");
    assert_eq!((line.len(), line.first_seq(), line.trouble.as_deref()), (3, Some(1), Some("down")));
    let batch = send(&mut line, now_ms);
    line.settle(batch, Outcome::Taken, now_ms);
    assert_eq!((line.len(), line.trouble.as_deref()), (0, None));
}

#[test]
fn a_throttle_is_honoured_within_reason() {
    for (after_ms, expected) in
        [(Some(7_000), 7_000), (None, 60_000), (Some(u64::MAX), 1_800_000), (Some(0), 1_000)]
    {
        let mut line = line(15, 1);
        let batch = send(&mut line, 5);
        line.settle(batch, Outcome::Throttled { after_ms, reason: "slow".to_owned() }, 5);
        assert_eq!(line.next(5), Next::Wait(Some(expected)), "{after_ms:?}");
    }
}

#[test]
fn one_poisoned_alarm_keeps_nobody_waiting_and_is_named() {
    let mut line = line(600, 5);
    let (mut now_ms, mut taken, mut guilty) = (0, Vec::new(), Vec::new());
    while line.len() > 0 {
        let Next::Send(batch) = line.next(now_ms) else {
            now_ms += 1_000;
            assert!(now_ms < 3_600_000, "it waits for ever");
            continue;
        };
        let ids = ids(&line, batch);
        let bad = ids.iter().any(|id| id == "a2");
        let outcome = if bad { refused() } else { Outcome::Taken };
        if !bad {
            taken.extend(ids);
        }
        guilty.extend(line.settle(batch, outcome, now_ms).map(|(waiting, _)| waiting.told.id));
    }
    taken.sort();
    assert_eq!(
        (taken, guilty),
        (["a1", "a3", "a4", "a5"].map(str::to_owned).to_vec(), vec!["a2".to_owned()])
    );
    assert_eq!((line.delivered, line.refused), (4, 1));
}

#[test]
fn a_wrong_key_loses_nothing() {
    let mut line = line(600, 30);
    let (mut now_ms, mut told) = (0, Vec::new());
    for turn in 0..10_000 {
        let Next::Send(batch) = line.next(now_ms) else {
            now_ms += 1_000;
            continue;
        };
        // A person mends the key at some time.
        let outcome = if turn < 4_000 { refused() } else { Outcome::Taken };
        if outcome == Outcome::Taken {
            told.extend(ids(&line, batch));
        }
        assert_eq!(line.settle(batch, outcome, now_ms), None);
        if line.len() == 0 {
            break;
        }
    }
    told.sort();
    told.dedup();
    assert_eq!((told.len(), line.len(), line.refused), (30, 0, 0));
}
