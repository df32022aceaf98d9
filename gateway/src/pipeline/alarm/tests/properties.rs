//! Whatever happens, in whatever order: revisions only grow, grave alarms never disappear by themselves, and crashes and
//! batches change nothing.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Raise(Raise),
    Clear(Raise),
    /// Of the so-many-th open alarm.
    Order(usize, AlarmVerb),
    Pass(u64),
}

fn subject(rng: &mut fastrand::Rng) -> Raise {
    let index = rng.usize(..14);
    let mut raise = raise(&format!("r-{}", index % 7), &format!("s-{}", index / 7));
    let severities = [Severity::Warning, Severity::Minor, Severity::Major, Severity::Critical];
    raise.condition.severity = Some(severities[index % 4]);
    raise.latched = index % 5 == 0;
    raise.lasts = index % 3 != 0;
    raise.cooldown_ms = [0, 1_000, COOLDOWN_MS][index % 3];
    raise.escalate =
        (index % 6 == 1).then_some(Escalation { after_ms: 90_000, to: severities[3 - index % 2] });
    raise.test = index == 13;
    raise
}

fn step(rng: &mut fastrand::Rng) -> Step {
    match rng.u8(..10) {
        0..=3 => Step::Raise(subject(rng)),
        4 | 5 => Step::Clear(subject(rng)),
        6 | 7 => {
            let most_ms = [1_000, 100_000, 40 * HOUR_MS][rng.usize(..3)];
            Step::Pass(rng.u64(..most_ms))
        }
        _ => {
            let verb = match rng.u8(..8) {
                0 => AlarmVerb::Acknowledge,
                1 => AlarmVerb::Assign { assignee: format!("guard-{}", rng.u8(..3)) },
                2 => AlarmVerb::Handle { result: HandlingResult::Genuine, note: String::new() },
                3 => AlarmVerb::Close,
                4 => AlarmVerb::Shelve { for_s: rng.u64(..4_000) },
                5 => AlarmVerb::Unshelve,
                6 => AlarmVerb::TakeOutOfService,
                _ => AlarmVerb::ReturnToService,
            };
            Step::Order(rng.usize(..10), verb)
        }
    }
}

fn take(bench: &mut Bench, step: &Step) {
    match step {
        Step::Raise(raise) => bench.raise(raise),
        Step::Clear(raise) => bench.clear(raise),
        Step::Pass(ms) => bench.pass(*ms),
        Step::Order(nth, verb) => {
            let open = bench.open();
            if let Some(alarm) = open.get(nth % open.len().max(1)) {
                bench.order(&alarm.alarm, Some(alarm.rev), verb.clone());
            }
        }
    }
}

fn config() -> AlarmConfig {
    AlarmConfig { open_max: 16, ..AlarmConfig::default() }
}

/// Same configuration, with few enough places that floods happen too.
fn crowded() -> AlarmConfig {
    AlarmConfig { open_max: 6, ..config() }
}

fn plain(config: &AlarmConfig, steps: &[Step]) -> Bench {
    let mut bench = Bench::new(config);
    for step in steps {
        take(&mut bench, step);
    }
    bench
}

#[test]
fn revisions_only_grow_and_the_grave_stay_until_a_person_lets_them_go() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let steps: Vec<Step> = (0..300).map(|_| step(&mut rng)).collect();
        let bench = plain(&crowded(), &steps);
        let mut lives: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        for told in bench.told {
            lives.entry(told.alarm.alarm.clone()).or_default().push(told);
        }
        for life in lives.values() {
            let revs: Vec<u64> = life.iter().map(|told| told.alarm.rev).collect();
            assert_eq!(revs, (1..=revs.len() as u64).collect::<Vec<_>>(), "seed {seed}");
            let normal = life.iter().position(|told| !told.alarm.is_open());
            assert!(normal.is_none_or(|at| at + 1 == life.len()), "seed {seed}: a life after the end");
            let counts = life.windows(2).all(|pair| pair[0].alarm.count <= pair[1].alarm.count);
            assert!(counts, "seed {seed}: presses were forgotten");
            let Some(last) = life.last().filter(|last| !last.alarm.is_open() && !last.test) else { continue };
            let did = |what: ChangeKind| {
                let person = |change: &crate::model::alarm::Change| {
                    change.what == what && change.source.starts_with("platform")
                };
                life.iter().filter_map(|told| told.alarm.change.as_ref()).any(person)
            };
            let closed = did(ChangeKind::Closed);
            assert!(!last.alarm.latched || closed, "seed {seed}: latched and gone: {life:#?}");
            let seen = closed || did(ChangeKind::Acknowledged) || did(ChangeKind::Handled);
            let critical = life.iter().any(|told| told.alarm.severity() == Some(Severity::Critical));
            assert!(!critical || seen, "seed {seed}: critical and gone: {life:#?}");
        }
    }
}

/// The file as the journal keeps it.
type File = BTreeMap<String, String>;

fn save(bench: &mut Bench, file: &mut File) {
    for (key, value) in bench.rows() {
        match value {
            Some(value) => file.insert(key, value),
            None => file.remove(&key),
        };
    }
    bench.book.commit(true);
}

/// What survives a crash: rows and what was told, as far as they were committed.
fn crashed(config: &AlarmConfig, file: &File, kept: &Bench) -> Bench {
    let mut bench = Bench::new(config);
    for (key, value) in file {
        assert!(bench.book.load(key, value), "{key} is nobody's row");
    }
    (bench.t_ms, bench.pos, bench.commands) = (kept.t_ms, kept.pos, kept.commands);
    (bench.told, bench.asked) = (kept.told.clone(), kept.asked.clone());
    bench
}

fn mark(bench: &Bench) -> Bench {
    crashed(&config(), &File::new(), bench)
}

#[test]
fn batches_failed_commits_and_crashes_change_nothing() {
    for (seed, config) in (0..120).map(|seed| (seed, if seed % 2 == 0 { config() } else { crowded() })) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let steps: Vec<Step> = (0..200).map(|_| step(&mut rng)).collect();
        let expected = plain(&config, &steps);
        let (mut file, mut bench) = (File::new(), Bench::new(&config));
        let mut from = 0;
        while from < steps.len() {
            let to = (from + rng.usize(1..9)).min(steps.len());
            let kept = mark(&bench);
            for step in &steps[from..to] {
                take(&mut bench, step);
            }
            match rng.u8(..4) {
                0 => {
                    // The commit fails: none of it happened.
                    bench.book.rollback();
                    bench = Bench { book: bench.book, ..kept };
                }
                1 => bench = crashed(&config, &file, &kept),
                _ => {
                    save(&mut bench, &mut file);
                    from = to;
                }
            }
        }
        assert_eq!(expected.told, bench.told, "seed {seed}");
        let again = crashed(&config, &file, &bench);
        assert_eq!(again.book.open(), expected.book.open(), "seed {seed}: the roll after a restart");
    }
}

/// Deadlines are in the pipeline's time, which a wall clock that jumps does not move: the stamps here jump by a year.
#[test]
fn a_wall_clock_that_jumps_moves_neither_shelf_nor_cooldown() {
    use crate::pipeline::time::Time;
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    for jump_ms in [YEAR_MS, -YEAR_MS] {
        let mut bench = Bench::new(&AlarmConfig::default());
        let gas = raise("gas", "g-1");
        let mut time = Time::begin(&stamp(0));
        bench.raise(&gas);
        bench.obey(AlarmVerb::Shelve { for_s: 600 });
        let mut later = stamp(599_999);
        later.wall_ms += jump_ms;
        later.trust = ClockTrust::Ntp;
        time = time.after(&later);
        bench.pass(time.t_ms);
        assert_eq!(bench.only().unwrap().state, AlarmState::Shelved, "the jump has emptied the shelf");
        later.mono_ms += 1;
        time = time.after(&later);
        bench.pass(time.t_ms - bench.t_ms);
        assert_eq!(bench.only().unwrap().state, AlarmState::Unacknowledged);
        bench.clear(&gas);
        bench.obey(AlarmVerb::Acknowledge);
        bench.raise(&gas);
        assert!(bench.only().is_some(), "ten minutes are more than the cooldown");
    }
}
