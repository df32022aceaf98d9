//! More alarms than the book has room for.

use super::*;

fn graded(subject: usize, severity: Severity) -> Raise {
    let mut raise = raise("r", &format!("s-{subject}"));
    raise.condition.severity = Some(severity);
    raise
}

fn flood(bench: &Bench) -> Option<Alarm> {
    bench.open().into_iter().find(|alarm| alarm.raised.name == "alarm.flood")
}

/// Whose alarm it is, by the number in the device's name.
fn number(alarm: &Alarm) -> Option<usize> {
    alarm.raised.device.id.as_str().strip_prefix("s-")?.parse().ok()
}

fn severities(bench: &Bench, severity: Severity) -> usize {
    let of = |alarm: &&Alarm| alarm.severity() == Some(severity) && alarm.raised.name != "alarm.flood";
    bench.open().iter().filter(of).count()
}

#[test]
fn ten_thousand_open_alarms_fold_from_below_and_the_grave_ones_stay() {
    let mut bench = Bench::new(&AlarmConfig::default());
    for subject in 0..10_000 {
        let severity = if subject % 2 == 0 { Severity::Warning } else { Severity::Minor };
        bench.raise(&graded(subject, severity));
    }
    assert_eq!(flood(&bench), None);
    for subject in 10_000..12_000 {
        bench.raise(&graded(subject, Severity::Warning));
    }
    assert_eq!((bench.open().len(), severities(&bench, Severity::Warning)), (10_001, 5_000));
    let told = bench.told.len();
    for subject in 12_000..15_000 {
        bench.raise(&graded(subject, Severity::Critical));
        bench.pass(20);
    }
    assert_eq!(severities(&bench, Severity::Critical), 3_000);
    let most = bench.told.iter().skip(told).fold(BTreeMap::<u64, usize>::new(), |mut of, told| {
        *of.entry(told.t_ms).or_default() += 1;
        of
    });
    assert!(*most.values().max().unwrap() <= 40, "one raise made too many records");
    bench.pass(60_000);
    let folded = bench.changes().iter().filter(|change| **change == ChangeKind::Folded).count() as u64;
    assert_eq!(flood(&bench).unwrap().count, 2_000 + folded, "some alarm is neither open nor counted");
    assert_eq!(bench.open().len() as u64 + 2_000 + folded, 15_001);
    assert_eq!(severities(&bench, Severity::Minor), 5_000, "the lowest first");
    assert!(bench.open().len() <= 10_001);
}

#[test]
fn what_a_limit_may_not_close_stays_open_beyond_it() {
    let config = AlarmConfig { open_max: 16, ..AlarmConfig::default() };
    let mut bench = Bench::new(&config);
    for subject in 0..100 {
        let raise = match subject % 2 {
            0 => graded(subject, Severity::Critical),
            _ => Raise { latched: true, ..graded(subject, Severity::Warning) },
        };
        bench.raise(&raise);
    }
    assert_eq!(bench.open().len(), 100);
    assert_eq!(flood(&bench), None);
    bench.raise(&graded(100, Severity::Major));
    assert_eq!((bench.open().len(), flood(&bench).unwrap().count), (101, 1));
}

#[test]
fn what_a_flood_has_folded_and_still_holds_is_raised_when_there_is_room() {
    let config = AlarmConfig { open_max: 20, ..AlarmConfig::default() };
    let mut bench = Bench::new(&config);
    for subject in 0..30 {
        bench.raise(&graded(subject, if subject < 10 { Severity::Minor } else { Severity::Major }));
    }
    let open = |bench: &Bench| -> Vec<usize> { bench.open().iter().filter_map(number).collect() };
    let folded: Vec<usize> = (0..30).filter(|subject| !open(&bench).contains(subject)).collect();
    assert!(folded.len() >= 10 && folded.contains(&0), "{folded:?}");
    // One of them is over meanwhile; then there is room.
    bench.clear(&graded(0, Severity::Minor));
    for subject in open(&bench).into_iter().take(15) {
        bench.clear(&graded(subject, Severity::Major));
        let id = bench.open().into_iter().find(|alarm| number(alarm) == Some(subject)).unwrap().alarm;
        bench.order(&id, None, AlarmVerb::Acknowledge);
    }
    bench.pass(COOLDOWN_MS + 1);
    let back: Vec<usize> = open(&bench).into_iter().filter(|subject| folded.contains(subject)).collect();
    assert_eq!(back.len(), folded.len() - 1, "{back:?} of {folded:?}");
    assert!(!back.contains(&0));
}

#[test]
fn a_flood_is_over_when_there_is_room_and_a_person_closes_it() {
    let config = AlarmConfig { open_max: 20, ..AlarmConfig::default() };
    let mut bench = Bench::new(&config);
    for subject in 0..30 {
        bench.raise(&graded(subject, Severity::Major));
    }
    let id = flood(&bench).unwrap().alarm;
    assert!(matches!(bench.order(&id, None, AlarmVerb::Close), Verdict::Impossible(_)));
    for subject in 0..3 {
        bench.clear(&graded(subject, Severity::Major));
        let id =
            bench.open().into_iter().find(|alarm| alarm.raised.device.id.as_str() == format!("s-{subject}"));
        bench.order(&id.unwrap().alarm, None, AlarmVerb::Acknowledge);
    }
    let over = flood(&bench).unwrap();
    assert_eq!((over.state, over.active), (AlarmState::ReturnedUnacknowledged, false));
    bench.raise(&graded(50, Severity::Major));
    assert_eq!(bench.open().len(), 19, "after the flood alarms are alarms again");
    assert!(matches!(bench.order(&id, None, AlarmVerb::Close), Verdict::Done { .. }));
    assert_eq!(flood(&bench), None);
}

#[test]
fn tests_and_what_is_over_fold_first_and_what_somebody_handles_stays() {
    let config = AlarmConfig { open_max: 16, ..AlarmConfig::default() };
    let mut bench = Bench::new(&config);
    for subject in 0..16 {
        bench.raise(&graded(subject, Severity::Minor));
    }
    let id = |bench: &Bench, subject: &str| {
        let of = |alarm: &Alarm| alarm.raised.device.id.as_str() == subject;
        bench.open().into_iter().find(of).map(|alarm| alarm.alarm)
    };
    bench.clear(&graded(3, Severity::Minor));
    let assigned = id(&bench, "s-0").unwrap();
    bench.order(&assigned, None, AlarmVerb::Assign { assignee: "guard-1".to_owned() });
    bench.raise(&graded(99, Severity::Critical));
    assert!(id(&bench, "s-0").is_some() && id(&bench, "s-99").is_some());
    let first = bench
        .told
        .iter()
        .find(|told| told.alarm.change.as_ref().is_some_and(|change| change.what == ChangeKind::Folded));
    assert_eq!(first.unwrap().alarm.raised.device.id.as_str(), "s-3");
}
