//! Derivation of wall time from clock records.

use proptest::prelude::*;

use super::*;

fn boot(n: u8) -> BootId {
    BootId(format!("{n:032x}").into())
}

fn stamp(n: u8, mono_ms: u64, offset_ms: i64, trust: ClockTrust) -> Stamp {
    Stamp { boot: boot(n), mono_ms, wall_ms: wall_ms(mono_ms, offset_ms), trust }
}

fn change(at: Stamp, before: Option<Reckoning>) -> ClockChange {
    ClockChange {
        at,
        source: ClockSource::Platform,
        confirmed: false,
        before,
        jumped_ms: 0,
        withdrawn: false,
        uplink: None,
    }
}

const UNSET: Reckoning = Reckoning { offset_ms: 0, trust: ClockTrust::None };

#[test]
fn a_clock_record_reads_back_and_nobody_else_can_write_one() {
    let change = ClockChange {
        source: ClockSource::Timesyncd,
        confirmed: true,
        jumped_ms: -31_536_000_000,
        withdrawn: true,
        uplink: Some(UplinkName::new("street").unwrap()),
        ..change(stamp(1, 5_000, 1_793_000_000_000, ClockTrust::Ntp), Some(UNSET))
    };
    let draft = change.draft();
    assert_eq!(ClockChange::read(&draft.at, &draft.body), Some(change));
    let Body::Event(mut event) = draft.body else { panic!("no event") };
    event.device.bus = Some(crate::model::ids::BusName::new("lan").unwrap());
    assert_eq!(ClockChange::read(&draft.at, &Body::Event(event)), None, "a device's");
}

#[test]
fn the_most_trusted_word_mends_and_only_what_is_worse() {
    let mut clocks = Clocks::default();
    clocks.note(&change(stamp(1, 1_000, 0, ClockTrust::None), None));
    let early = stamp(1, 3_000, 0, ClockTrust::None);
    assert_eq!(clocks.mend(&early), None, "nothing better is known");
    clocks.note(&change(stamp(1, 9_000, 500_000, ClockTrust::Platform), Some(UNSET)));
    let mended = clocks.mend(&early).unwrap();
    assert_eq!((mended.wall_ms, mended.trust, mended.mono_ms), (503_000, ClockTrust::Platform, 3_000));
    let later = stamp(1, 20_000, 700_000, ClockTrust::Ntp);
    assert_eq!(clocks.mend(&later), None, "its own stamp is better");
    // NTP goes away: what it said stays the best.
    let ntp = Reckoning { offset_ms: 600_000, trust: ClockTrust::Ntp };
    clocks.note(&change(stamp(1, 10_000, 600_000, ClockTrust::Ntp), Some(UNSET)));
    clocks.note(&change(stamp(1, 11_000, 600_000, ClockTrust::Rtc), Some(ntp)));
    assert_eq!(clocks.of(&boot(1)).unwrap().best, ntp);
    assert_eq!(clocks.of(&boot(1)).unwrap().last.trust, ClockTrust::Rtc);
    // What was disputed mends nothing any more.
    let withdrawn =
        ClockChange { withdrawn: true, ..change(stamp(1, 12_000, 0, ClockTrust::None), Some(ntp)) };
    clocks.note(&withdrawn);
    assert_eq!(clocks.mend(&early), None);
}

#[test]
fn only_boots_that_can_be_mended_are_published() {
    let mut clocks = Clocks::default();
    clocks.note(&change(stamp(1, 1_000, 7, ClockTrust::Ntp), None));
    clocks.note(&change(stamp(2, 1_000, 0, ClockTrust::None), None));
    clocks.note(&change(stamp(2, 2_000, 9, ClockTrust::Ntp), Some(UNSET)));
    clocks.note(&change(stamp(3, 1_000, 0, ClockTrust::None), None));
    let listed: Vec<_> = clocks.corrections(&boot(4)).map(|known| known.boot.clone()).collect();
    assert_eq!(listed, [boot(2)], "boot 1 was right from its start, boot 3 never");
    assert_eq!(clocks.corrections(&boot(2)).count(), 0, "the present boot stands elsewhere");
}

#[test]
fn an_age_across_boots_is_known_once_both_are() {
    let mut clocks = Clocks::default();
    let old = stamp(1, 10_000, 0, ClockTrust::None);
    let now = stamp(2, 5_000, 1_000_000, ClockTrust::Ntp);
    assert_eq!(clocks.age_ms(&old, &now), None);
    clocks.note(&change(stamp(1, 11_000, 900_000, ClockTrust::Platform), Some(UNSET)));
    assert_eq!(clocks.age_ms(&old, &now), Some(95_000));
    let same = stamp(2, 4_000, 0, ClockTrust::None);
    assert_eq!(clocks.age_ms(&same, &now), Some(1_000), "within a boot the monotonic clock tells");
}

fn trust() -> impl Strategy<Value = ClockTrust> {
    prop_oneof![
        Just(ClockTrust::None),
        Just(ClockTrust::Rtc),
        Just(ClockTrust::Platform),
        Just(ClockTrust::Ntp)
    ]
}

proptest! {
    /// However clocks jump: where trusted records say the truth, every worse stamp of the boot is mended to it, no other
    /// stamp is touched, and memory is bounded.
    #[test]
    fn derived_time_is_the_truth_of_the_best_record(
        truths in proptest::collection::vec(1_700_000_000_000_i64..1_900_000_000_000, 1..80),
        records in proptest::collection::vec((any::<prop::sample::Index>(), 0_u64..1 << 40, trust(), any::<i32>()), 0..200),
        looked in proptest::collection::vec((any::<prop::sample::Index>(), 0_u64..1 << 40, trust(), any::<i32>()), 1..50),
    ) {
        let mut clocks = Clocks::default();
        let mut best: BTreeMap<u8, ClockTrust> = BTreeMap::new();
        let told = |n: usize, mono_ms: u64, trust: ClockTrust, wrong: i32| {
            let offset_ms = if trust >= ClockTrust::Platform { truths[n] } else { i64::from(wrong) };
            stamp(u8::try_from(n).unwrap(), mono_ms, offset_ms, trust)
        };
        for (at, mono_ms, trust, wrong) in &records {
            let n = at.index(truths.len());
            let at = told(n, *mono_ms, *trust, *wrong);
            let before = clocks.of(&at.boot).map(|known| known.last);
            clocks.note(&change(at, before));
            // A boot that was given up begins anew.
            let earlier = before.map_or(*trust, |_known| best[&u8::try_from(n).unwrap()]);
            best.insert(u8::try_from(n).unwrap(), earlier.max(*trust));
        }
        prop_assert!(clocks.boots.len() <= CLOCK_BOOTS_MAX);
        for (at, mono_ms, trust, wrong) in &looked {
            let n = at.index(truths.len());
            let at = told(n, *mono_ms, *trust, *wrong);
            let known = clocks.of(&at.boot).map(|_| best[&u8::try_from(n).unwrap()]);
            match clocks.mend(&at) {
                None => prop_assert!(known.is_none_or(|known| known <= at.trust)),
                Some(mended) => {
                    prop_assert!(known.is_some_and(|known| known > at.trust && known == mended.trust));
                    prop_assert_eq!(&mended.boot, &at.boot);
                    prop_assert_eq!(mended.mono_ms, at.mono_ms);
                    if mended.trust >= ClockTrust::Platform {
                        prop_assert_eq!(mended.wall_ms, wall_ms(at.mono_ms, truths[n]));
                    }
                }
            }
        }
    }
}
