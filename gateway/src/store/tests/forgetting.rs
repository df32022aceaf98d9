//! Forgetting: sums, order, thinning, gap records, ages; and all of it against a model with faults and crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tempfile::TempDir;

use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::ids::{BootId, Seq, UplinkName};
use crate::model::record::{Body, Class, Draft, Gap, GapReason, Severity};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::rt::clock::{Clock, ManualClock};

use super::super::age::{Calendar, Looked, Survey};
use super::super::budget::Budgets;
use super::super::forget::PIECE_ROWS;
use super::super::heads::PerClass;
use super::super::testing::{
    Fault, Image, Switches, all, clock, event, keep_little, open_unsynced, records, seed, settle_house,
    telemetry, uplink, usage,
};
use super::super::{Core, Op, Rest};

const PLENTY: u64 = 1 << 40;

fn begin() -> (TempDir, Arc<ManualClock>, Core) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (core, _) = open_unsynced(dir.path(), &clock, "m1").unwrap();
    (dir, clock, core)
}

/// Telemetry of `points` devices, one record a second of each.
fn pour(core: &mut Core, clock: &ManualClock, seconds: u64, points: u64) {
    let mut drafts = Vec::new();
    for n in 0..seconds {
        clock.advance_ms(1_000);
        drafts.extend((0..points).map(|point| telemetry(clock, &format!("t{point}"), n.cast_signed())));
        if drafts.len() >= 500 || n + 1 == seconds {
            core.append(std::mem::take(&mut drafts)).unwrap();
        }
    }
}

fn gaps(core: &Core) -> Vec<(Seq, Gap)> {
    let events = records(&core.reader().unwrap(), Class::Event);
    let gap = |record: crate::model::record::Record| match record.body {
        Body::Gap(gap) => Some((record.seq, gap)),
        _ => None,
    };
    events.into_iter().filter_map(gap).collect()
}

fn of_telemetry(core: &Core) -> Vec<(Seq, Gap)> {
    gaps(core).into_iter().filter(|(_, gap)| gap.class == Class::Telemetry).collect()
}

fn stored(core: &Core, class: Class) -> BTreeSet<Seq> {
    all(&core.reader().unwrap(), class).iter().map(super::super::Read::seq).collect()
}

fn at(class: Class, live_next: Seq) -> Cursors {
    let cursor = ClassCursor { live_next, ..ClassCursor::default() };
    let event = ClassCursor { live_next: 1, ..ClassCursor::default() };
    Cursors { classes: BTreeMap::from([(Class::Event, event), (class, cursor)]) }
}

fn assert_sums(core: &mut Core) {
    let (sums, counted) = usage(core);
    assert_eq!(sums, counted, "the running sums are wrong");
}

#[test]
fn the_sums_are_honest_against_the_file() {
    let (dir, clock, mut core) = begin();
    for n in 0..60 {
        let drafts = (0..200).map(|m| {
            let n = n * 200 + m;
            if n % 3 == 0 {
                event(&clock, &format!("b{}", n % 50), n, None)
            } else {
                telemetry(&clock, "t1", n)
            }
        });
        core.append(drafts.collect()).unwrap();
    }
    let in_file = |core: &mut Core, class: Class| -> u64 {
        core.conn()
            .query_row(
                "SELECT pgsize FROM dbstat WHERE aggregate = TRUE AND name = ?1",
                [class.as_str()],
                |row| row.get::<_, i64>(0),
            )
            .unwrap()
            .cast_unsigned()
    };
    for class in [Class::Event, Class::Telemetry] {
        let (file, sum) = (in_file(&mut core, class), core.used(class));
        println!("{class:?}: {sum} reckoned, {file} in the file");
        assert!(
            sum > file / 100 * 93 && sum < file / 100 * 107,
            "{class:?}: {sum} reckoned, {file} in the file"
        );
    }
    // Thinning leaves pages that are not full; they count.
    keep_little(&mut core, [PLENTY, PLENTY, 700_000], &[(0, 1)], &[]);
    settle_house(&mut core);
    assert_sums(&mut core);
    let before = usage(&mut core).0;
    drop(core);
    let (mut core, _) = open_unsynced(dir.path(), &clock, "m1").unwrap();
    assert_eq!(usage(&mut core).0, before, "a start finds the same sums");
    assert_sums(&mut core);
}

#[test]
fn half_empty_pages_count_as_telemetry() {
    let (_dir, clock, mut core) = begin();
    pour(&mut core, &clock, 4_000, 5);
    let full = core.used(Class::Telemetry);
    keep_little(&mut core, [PLENTY, PLENTY, full / 2], &[(0, 2)], &[]);
    settle_house(&mut core);
    let file = (core.pages().unwrap().0 - core.pages().unwrap().1) * 4_096;
    let used = core.used(Class::Telemetry);
    assert!(used + 200_000 > file && used <= file, "{used} of {file}");
    assert!(used <= full / 2, "the budget holds for pages, not only for rows");
}

#[test]
fn telemetry_goes_down_to_the_low_mark_and_never_takes_from_events() {
    let (_dir, clock, mut core) = begin();
    let events: Vec<Draft> = (0..300).map(|n| event(&clock, "b1", n, None)).collect();
    core.append(events).unwrap();
    let budget = 200_000;
    keep_little(&mut core, [PLENTY, 100_000, budget], &[], &[]);
    for _ in 0..20 {
        pour(&mut core, &clock, 200, 5);
        settle_house(&mut core);
        let used = core.used(Class::Telemetry);
        assert!(used <= budget, "{used} of {budget}");
        assert_sums(&mut core);
    }
    assert!(core.used(Class::Telemetry) > budget / 2, "more was forgotten than had to be");
    assert_eq!(core.records(Class::Event), 300, "events went for telemetry");
    let head = core.heads().of(Class::Telemetry);
    assert_eq!(head.last - head.first + 1, core.records(Class::Telemetry), "the oldest go first");
    assert_eq!(core.heads(), core.reader().unwrap().heads().unwrap());
    let told = core.forgotten().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].records, head.first - 1, "{told:?}");
}

#[test]
fn events_and_alarms_have_budgets_of_their_own() {
    let (_dir, clock, mut core) = begin();
    keep_little(&mut core, [PLENTY, 50_000, PLENTY], &[], &[uplink("city")]);
    for n in 0..40 {
        core.append((0..20).map(|m| event(&clock, "b1", n * 20 + m, Some(Severity::Minor))).collect())
            .unwrap();
        pour(&mut core, &clock, 1, 20);
        settle_house(&mut core);
    }
    assert!(core.used(Class::Event) <= 50_000);
    assert_eq!(core.records(Class::Telemetry), 800);
    // Also the numbers of gap records whose place others took are covered, so that the platform sees no hole.
    let stored = stored(&core, Class::Event);
    let gaps = gaps(&core);
    let covered = |seq: Seq| gaps.iter().any(|(_, gap)| (gap.from..=gap.to).contains(&seq));
    for seq in 1..=core.heads().of(Class::Event).last {
        assert!(stored.contains(&seq) || covered(seq), "event {seq} is a hole: {gaps:?}");
    }
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    let gap = gaps.iter().map(|(_, gap)| gap).find(|gap| gap.from == 1).unwrap();
    assert_eq!((gap.class, gap.reason), (Class::Event, GapReason::Forgotten));
    assert_sums(&mut core);
}

#[test]
fn thinning_leaves_one_value_of_each_point_in_each_interval() {
    let (_dir, clock, mut core) = begin();
    pour(&mut core, &clock, 3_600, 3);
    let full = core.used(Class::Telemetry);
    keep_little(&mut core, [PLENTY, PLENTY, full / 12], &[(0, 10), (0, 60)], &[uplink("city")]);
    settle_house(&mut core);
    let mut kept: BTreeMap<(String, u64), u32> = BTreeMap::new();
    for record in records(&core.reader().unwrap(), Class::Telemetry) {
        let device = record.body.device().unwrap().id.to_string();
        *kept.entry((device, record.at.mono_ms / 60_000)).or_default() += 1;
    }
    let minutes: BTreeSet<u64> = kept.keys().map(|(_, minute)| *minute).collect();
    assert!(minutes.len() >= 60, "whole minutes are gone: {}", minutes.len());
    assert_eq!(kept.len(), minutes.len() * 3, "a point lost a minute");
    assert!(kept.values().all(|count| *count <= 6), "{kept:?}");
    let causes: Vec<String> = core.forgotten().unwrap().into_iter().map(|told| told.cause).collect();
    assert_eq!(causes, ["thinned to one in 10 s", "thinned to one in 60 s"], "nothing had to be dropped");
    let gaps = gaps(&core);
    let (joined, gaps): (Vec<_>, Vec<_>) = gaps.into_iter().partition(|(_, gap)| gap.class == Class::Event);
    assert_eq!((gaps.len(), joined.len()), (2, 1), "one for each step: {gaps:?}");
    let detail = &gaps[0].1.detail;
    assert!(detail.contains("one value a point in 10 s; stamped 2026-06-01T00:00:0"), "{detail}");
    let missing: u64 = gaps.iter().map(|(_, gap)| gap.count).sum();
    assert_eq!(missing + core.records(Class::Telemetry), 3_600 * 3, "the counts do not add up");
    // The step goes on where it stood, also in another process.
    let reckoned = usage(&mut core).0;
    keep_little(&mut core, [PLENTY, PLENTY, full / 12], &[(0, 10), (0, 60)], &[uplink("city")]);
    settle_house(&mut core);
    assert_eq!(usage(&mut core).0, reckoned, "it was thinned again without need");
}

#[test]
fn a_piece_is_small_and_a_flood_is_kept_up_with() {
    let (_dir, clock, mut core) = begin();
    pour(&mut core, &clock, 400, 10);
    keep_little(&mut core, [PLENTY, PLENTY, 100_000], &[(0, 10)], &[]);
    let mut pieces = 0;
    loop {
        let before = core.records(Class::Telemetry);
        let rest = core.housekeep().unwrap();
        let gone = before - core.records(Class::Telemetry);
        assert!(gone <= PIECE_ROWS as u64, "{gone} rows in one transaction");
        pieces += u64::from(gone > 0);
        if matches!(rest, Rest::For { .. }) {
            break;
        }
    }
    assert!(pieces >= 4_000 / PIECE_ROWS as u64 / 2, "{pieces} pieces");
    assert!(core.used(Class::Telemetry) <= 100_000);
}

#[test]
fn what_every_platform_has_leaves_no_gap_and_others_get_theirs() {
    let (_dir, clock, mut core) = begin();
    let (city, street) = (uplink("city"), uplink("street"));
    pour(&mut core, &clock, 1_000, 1);
    core.save_cursors(&city, at(Class::Telemetry, 1_001)).unwrap();
    core.save_cursors(&street, at(Class::Telemetry, 101)).unwrap();
    keep_little(&mut core, [PLENTY, PLENTY, 20_000], &[], &[city.clone(), street.clone()]);
    settle_house(&mut core);
    let gone = core.heads().of(Class::Telemetry).first - 1;
    let found = of_telemetry(&core);
    assert_eq!(found.len(), 1, "{found:?}");
    let gap = &found[0].1;
    assert_eq!(gap.uplink.as_ref(), Some(&street));
    assert_eq!((gap.from, gap.to, gap.count), (101, gone, gone - 100), "exactly what it misses");
    // Once it is delivered, the next one stands by itself.
    let mut cursors = at(Class::Telemetry, gone + 1);
    cursors.classes.get_mut(&Class::Event).unwrap().live_next = found[0].0 + 1;
    core.save_cursors(&street, cursors).unwrap();
    pour(&mut core, &clock, 300, 1);
    core.save_cursors(&city, at(Class::Telemetry, 1_301)).unwrap();
    settle_house(&mut core);
    let found = of_telemetry(&core);
    let of = |name: &UplinkName| found.iter().filter(|(_, gap)| gap.uplink.as_ref() == Some(name)).count();
    assert_eq!((of(&street), of(&city)), (2, 0), "{found:?}");
    assert_eq!(found[1].1.from, gone + 1);
}

#[test]
fn a_gap_record_that_is_not_delivered_is_never_dropped() {
    let (_dir, clock, mut core) = begin();
    let city = uplink("city");
    pour(&mut core, &clock, 500, 1);
    keep_little(&mut core, [PLENTY, 30_000, 10_000], &[], std::slice::from_ref(&city));
    settle_house(&mut core);
    let (seq, owed) = of_telemetry(&core).remove(0);
    for n in 0..40 {
        core.append((0..20).map(|m| event(&clock, "b1", n * 20 + m, None)).collect()).unwrap();
        settle_house(&mut core);
    }
    assert!(core.used(Class::Event) <= 30_000);
    assert!(gaps(&core).contains(&(seq, owed)), "the hole in telemetry is explained no more");
    let mut cursors = at(Class::Telemetry, 501);
    cursors.classes.get_mut(&Class::Event).unwrap().live_next = seq + 1;
    core.save_cursors(&city, cursors).unwrap();
    for n in 0..40 {
        core.append((0..20).map(|m| event(&clock, "b1", n * 20 + m, None)).collect()).unwrap();
        settle_house(&mut core);
    }
    assert!(!gaps(&core).iter().any(|(known, _)| *known == seq), "delivered, it is an event like others");
}

#[test]
fn a_fork_does_not_move_gap_records_of_the_old_epoch() {
    let (dir, clock, mut core) = begin();
    let old = core.heads().epoch();
    pour(&mut core, &clock, 300, 1);
    drop(core);
    let (mut core, _) = open_unsynced(dir.path(), &clock, "m1").unwrap();
    pour(&mut core, &clock, 300, 1);
    keep_little(&mut core, [PLENTY, PLENTY, 1_000], &[], &[uplink("city")]);
    settle_house(&mut core);
    core.fork_epoch("a test").unwrap();
    let found: Vec<Gap> = of_telemetry(&core).into_iter().map(|(_, gap)| gap).collect();
    let before = found.iter().find(|gap| gap.epoch == Some(old)).expect("one of the old epoch");
    assert_eq!((before.from, before.to), (1, 300));
    let after = found.iter().find(|gap| gap.epoch.is_none()).expect("one that went with the fork");
    assert_eq!(after.from, 301);
}

fn stamped(boot: &str, mono_ms: u64, wall_ms: i64, trust: ClockTrust) -> Draft {
    let draft = telemetry(&ManualClock::new(), "t1", 1);
    Draft { at: Stamp { boot: BootId(boot.into()), mono_ms, wall_ms, trust }, ..draft }
}

#[test]
fn age_is_judged_by_clocks_that_can_be_trusted_and_else_by_order() {
    const HOUR: u64 = 3_600_000;
    let (_dir, _clock, mut core) = begin();
    let (none, rtc) = (ClockTrust::None, ClockTrust::Rtc);
    let ms = |hours: i64| hours * 3_600_000;
    core.append(vec![
        stamped("a", 0, 0, none),               // 1: nothing is known, but the next one is old
        stamped("a", HOUR, ms(500_000), rtc),   // 2: 100 h old
        stamped("b", 0, 0, none),               // 3: not known, before an old one
        stamped("b", HOUR, ms(500_050), rtc),   // 4: 50 h old
        stamped("now", HOUR, ms(900_000), rtc), // 5: 29 h old by the monotonic clock, whatever the wall clock said
        stamped("now", 29 * HOUR, ms(1), rtc),  // 6: 1 h old, though its wall clock says decades
        stamped("b", 2 * HOUR, ms(500_001), rtc), // 7: behind a young one: its stamp lies
    ])
    .unwrap();
    let now = Stamp { boot: BootId("now".into()), mono_ms: 30 * HOUR, wall_ms: ms(500_100), trust: rtc };
    let judge = |now: &Stamp, hours: u64| {
        let mut survey = Survey::default();
        assert_eq!(survey.look(&core.conn, Class::Telemetry, hours * HOUR, now).unwrap(), Looked::Done);
        survey.old_to
    };
    assert_eq!(judge(&now, 24), 5);
    assert_eq!(judge(&now, 40), 4);
    assert_eq!(judge(&now, 60), 2);
    assert_eq!(judge(&now, 200), 0);
    let blind = Stamp { trust: none, ..now.clone() };
    assert_eq!(judge(&blind, 24), 5, "what this boot knows tells of what was before it");
    assert_eq!(judge(&blind, 40), 0);
}

#[test]
fn a_wall_clock_that_jumps_a_year_expires_nothing() {
    let (_dir, clock, mut core) = begin();
    let mut before = telemetry(&clock, "t1", 1);
    before.at.boot = BootId("another boot".into());
    core.append(vec![before]).unwrap();
    let mut keep_ms = PerClass::default();
    keep_ms[Class::Telemetry] = Some(30 * 86_400_000);
    core.keep_within(Budgets { keep_ms, ..Budgets::unlimited() }, Vec::new());
    settle_house(&mut core);
    clock.jump_wall_ms(365 * 86_400_000);
    for _ in 0..10 {
        clock.advance_ms(61_000);
        settle_house(&mut core);
    }
    assert_eq!(core.records(Class::Telemetry), 1, "a jump expired it");
    let mut calendar = Calendar::default();
    calendar.look(&clock.now());
    clock.jump_wall_ms(-365 * 86_400_000);
    calendar.look(&clock.now());
    assert_eq!(calendar.judged(&clock.now()).trust, ClockTrust::None);
    let vouched = Stamp { trust: ClockTrust::Ntp, ..clock.now() };
    assert_eq!(calendar.judged(&vouched).trust, ClockTrust::Ntp, "NTP vouches for it");
    // Days go by, and the clock goes on as it is.
    clock.jump_wall_ms(365 * 86_400_000);
    for _ in 0..24 * 60 {
        clock.advance_ms(61_000);
        core.housekeep().unwrap();
    }
    settle_house(&mut core);
    assert_eq!(core.records(Class::Telemetry), 0, "a clock that has gone on for a day is believed again");
    let told = core.forgotten().unwrap();
    assert_eq!(told[0].cause, "expired");
}

/// The platforms of the model: what each has, and the gap records that it has.
#[derive(Debug, Default)]
struct Platform {
    has: BTreeSet<(Class, Seq)>,
    gaps: Vec<Gap>,
    next: BTreeMap<Class, Seq>,
}

impl Platform {
    /// Takes up to `count` records of a class, and what the cursor then says.
    fn take(&mut self, core: &Core, name: &UplinkName, class: Class, count: u64) {
        let from = self.next.get(&class).copied().unwrap_or(1);
        let to = (from + count - 1).min(core.heads().of(class).last);
        for read in core.reader().unwrap().read(class, from, to, usize::MAX, usize::MAX).unwrap() {
            let record = read.into_record().unwrap();
            if let Body::Gap(gap) = record.body
                && gap.uplink.as_ref() == Some(name)
            {
                self.gaps.push(gap);
            }
            self.has.insert((class, record.seq));
        }
        self.next.insert(class, to + 1);
    }

    fn cursors(&self) -> Cursors {
        let cursor = |class: Class| ClassCursor {
            live_next: self.next.get(&class).copied().unwrap_or(1),
            ..ClassCursor::default()
        };
        Cursors { classes: Class::ALL.map(|class| (class, cursor(class))).into() }
    }
}

/// Each acknowledged record is stored, or for each platform delivered or covered by a gap record for it.
fn assert_nothing_lost(
    core: &Core,
    acknowledged: &BTreeSet<(Class, Seq)>,
    platforms: &BTreeMap<UplinkName, Platform>,
) {
    let stored: BTreeMap<Class, BTreeSet<Seq>> = Class::ALL.map(|class| (class, stored(core, class))).into();
    let waiting = gaps(core);
    for (name, platform) in platforms {
        let own: Vec<&Gap> = waiting
            .iter()
            .map(|(_, gap)| gap)
            .filter(|gap| gap.uplink.as_ref() == Some(name))
            .chain(&platform.gaps)
            .collect();
        for (class, seq) in acknowledged.iter().filter(|(class, seq)| !stored[class].contains(seq)) {
            let covered = own.iter().any(|gap| gap.class == *class && (gap.from..=gap.to).contains(seq));
            let delivered = platform.has.contains(&(*class, *seq));
            assert!(delivered || covered, "{class:?} {seq} is lost to {name}: {own:?}");
        }
    }
}

#[test]
fn whatever_fails_what_is_forgotten_was_delivered_or_is_told() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let clock = clock();
    let names = [uplink("city"), uplink("street")];
    let mut dir = tempfile::tempdir().unwrap();
    let mut core = open_unsynced(dir.path(), &clock, "m1").unwrap().0;
    let keep = |core: &mut Core| keep_little(core, [20_000, 40_000, 60_000], &[(0, 5), (1, 20)], &names);
    keep(&mut core);
    let mut platforms: BTreeMap<UplinkName, Platform> =
        names.iter().map(|name| (name.clone(), Platform::default())).collect();
    let mut acknowledged = BTreeSet::new();
    let (mut crash_at, mut crashes, mut faults, mut most_gaps) = (0, 0, 0, 0);
    for round in 0..150_i64 {
        clock.advance_ms(rng.u64(1..30_000));
        let before = core.heads();
        core.append(any_drafts(&mut rng, &clock, round)).unwrap();
        for class in Class::ALL {
            acknowledged
                .extend((before.of(class).last + 1..=core.heads().of(class).last).map(|seq| (class, seq)));
        }
        // One platform is often away, the other seldom.
        for (index, name) in names.iter().enumerate() {
            if rng.usize(..8) >= 2 + 4 * index {
                let platform = platforms.get_mut(name).unwrap();
                for class in Class::ALL {
                    platform.take(&core, name, class, rng.u64(1..80));
                }
                core.save_cursors(name, platform.cursors()).unwrap();
            }
        }
        for _ in 0..rng.usize(..12) {
            if rng.u8(..6) == 0 {
                faults += 1;
                housekeep_with(&mut core, [Fault::Step(rng.i64(0..3_000)), Fault::Commit][rng.usize(..2)]);
            } else {
                core.housekeep().unwrap();
            }
        }
        // Once in a dozen rounds, in any of them.
        if round % 12 == 0 {
            crash_at = round + rng.i64(0..12);
        }
        if round == crash_at {
            crashes += 1;
            let image = Image::take(dir.path());
            drop(core);
            dir = image.lay();
            core = open_unsynced(dir.path(), &clock, "m1").unwrap().0;
            keep(&mut core);
        }
        assert_nothing_lost(&core, &acknowledged, &platforms);
        most_gaps = most_gaps.max(gaps(&core).len());
        if round % 20 == 0 {
            assert_sums(&mut core);
            assert_eq!(core.heads(), core.reader().unwrap().heads().unwrap());
        }
    }
    settle_house(&mut core);
    assert_nothing_lost(&core, &acknowledged, &platforms);
    for (class, budget) in Class::ALL.into_iter().zip([20_000, 40_000, 60_000]) {
        assert!(core.used(class) <= budget, "{class:?}: {}", core.used(class));
    }
    println!("{crashes} crashes, {faults} faults, at most {most_gaps} gap records at once");
    assert!(crashes > 5 && faults > 50);
    assert!(core.forgotten().unwrap().len() >= 4, "{:?}", core.forgotten());
}

fn any_drafts(rng: &mut fastrand::Rng, clock: &ManualClock, round: i64) -> Vec<Draft> {
    let draft = |rng: &mut fastrand::Rng, n: usize| match rng.u8(..8) {
        0 => event(clock, "b1", round, Some(Severity::Minor)),
        1 => alarm_of(event(clock, "b2", round, None), round),
        _ => telemetry(clock, &format!("t{}", n % 4), round),
    };
    (0..rng.usize(1..60)).map(|n| draft(rng, n)).collect()
}

/// Whether it failed or had nothing to do is the same to the model.
fn housekeep_with(core: &mut Core, fault: Fault) {
    let switches = Switches::install(core);
    switches.set(core, fault);
    drop(core.housekeep());
    switches.clear(core);
    core.reopen().unwrap();
}

fn alarm_of(cause: Draft, n: i64) -> Draft {
    let Body::Event(raised) = cause.body else { panic!("an event") };
    let state = crate::model::record::AlarmState::Unacknowledged;
    let alarm = crate::model::record::Alarm::new(format!("a{n}"), state, *raised);
    Draft { body: Body::Alarm(Box::new(alarm)), ..cause }
}

#[test]
fn a_file_of_the_first_version_gets_its_sums() {
    let (dir, clock, mut core) = begin();
    pour(&mut core, &clock, 100, 3);
    let known = usage(&mut core).0;
    core.conn()
        .execute_batch("DROP TABLE usage; DROP TABLE forgotten; DROP TABLE thinned; DROP TABLE gap; DROP TABLE fold; PRAGMA user_version = 1")
        .unwrap();
    drop(core);
    let (mut core, _) = open_unsynced(dir.path(), &clock, "m1").unwrap();
    assert_eq!(usage(&mut core).0, known);
    core.commit(&[Op::Append { drafts: vec![telemetry(&clock, "t1", 1)] }]).unwrap();
}
