//! The judgement by readings and answers alone.

use super::*;

/// 2026-11-22T06:00:00Z.
const NOW_MS: i64 = 1_795_327_200_000;
const DAY_MS: i64 = 24 * 3_600_000;
const YEAR_MS: i64 = 365 * DAY_MS;

fn name(text: &str) -> UplinkName {
    UplinkName::new(text).unwrap()
}

/// A machine whose clocks the test moves. The true time is `NOW_MS` + monotonic.
struct Machine {
    keeper: Keeper,
    mono_ms: u64,
    /// How far its wall clock is from the truth.
    wrong_ms: i64,
    evidence: Evidence,
}

impl Machine {
    fn new(wrong_ms: i64, battery: Battery) -> Self {
        let evidence = Evidence { battery, ntp: None };
        let reading = Reading { mono_ms: 10_000, wall_ms: NOW_MS + 10_000 + wrong_ms };
        let keeper = Keeper::new(BootId("b".into()), reading, evidence);
        Self { keeper, mono_ms: 10_000, wrong_ms, evidence }
    }

    fn truth_ms(&self) -> i64 {
        wall_ms(self.mono_ms, NOW_MS)
    }

    fn reading(&self) -> Reading {
        Reading { mono_ms: self.mono_ms, wall_ms: self.truth_ms() + self.wrong_ms }
    }

    fn stamp(&self) -> Stamp {
        self.keeper.stamp(self.reading())
    }

    fn look(&mut self) -> Option<ClockChange> {
        self.keeper.look(self.reading(), self.evidence);
        self.keeper.change(self.reading())
    }

    fn pass_ms(&mut self, by_ms: u64) {
        self.mono_ms += by_ms;
    }

    /// NTP sets the clock right and says so.
    fn ntp(&mut self) {
        self.wrong_ms = 0;
        self.evidence.ntp = Some(NtpMark { source: ClockSource::Timesyncd, wall_ms: self.truth_ms() });
    }

    fn told(&mut self, uplink: &str, lie_ms: i64) -> Result<(), TimeError> {
        self.keeper.witness(&name(uplink), self.reading(), self.truth_ms() + lie_ms - 50, 100)
    }

    /// Whether a lie has somebody to contradict it.
    fn somebody_knows(&self) -> bool {
        let own = self.keeper.own_offset_ms(self.reading());
        let own_is_right = own.is_some_and(|own| apart(own, NOW_MS) <= BOX_AGREES_MS);
        own_is_right || self.stamp().trust >= ClockTrust::Platform
    }

    fn check(&self, trust: ClockTrust, source: ClockSource, wrong_ms: i64) {
        let stamp = self.stamp();
        assert_eq!((stamp.trust, self.keeper.source()), (trust, source));
        assert_eq!(stamp.wall_ms - self.truth_ms(), wrong_ms);
    }
}

const UNSET_MS: i64 = -NOW_MS;

#[test]
fn what_the_machine_alone_earns() {
    let right = Battery::Tells { offset_ms: NOW_MS + 900 };
    let table = [
        (UNSET_MS, Battery::Absent, ClockTrust::None, "1970"),
        (UNSET_MS, Battery::Hosted, ClockTrust::None, "1970, whoever keeps it"),
        (0, Battery::Absent, ClockTrust::None, "a sane date is not enough: it may come from a file"),
        (0, Battery::Hosted, ClockTrust::Rtc, "kept by a host"),
        (0, right, ClockTrust::Rtc, "a battery clock agrees"),
        (
            -DAY_MS,
            right,
            ClockTrust::None,
            "the machine went on from a file, its battery clock says otherwise",
        ),
        (-YEAR_MS, Battery::Tells { offset_ms: NOW_MS - YEAR_MS }, ClockTrust::None, "before the build"),
        (200 * YEAR_MS, Battery::Hosted, ClockTrust::None, "absurd"),
    ];
    for (wrong_ms, battery, trust, why) in table {
        assert_eq!(Machine::new(wrong_ms, battery).stamp().trust, trust, "{why}");
    }
}

#[test]
fn a_clock_before_what_was_confirmed_last_is_not_believed() {
    let mut machine = Machine::new(-DAY_MS, Battery::Hosted);
    machine.check(ClockTrust::Rtc, ClockSource::Host, -DAY_MS);
    let mut clocks = Clocks::default();
    clocks.confirm(NOW_MS - 1_000);
    machine.keeper.recall(clocks, machine.reading());
    machine.check(ClockTrust::None, ClockSource::None, -DAY_MS);
    assert_eq!(machine.keeper.judged_ms(machine.reading()), NOW_MS - 1_000, "certificates are judged at it");
}

#[test]
fn ntp_is_believed_while_it_is_fresh_and_then_held() {
    let mut machine = Machine::new(UNSET_MS, Battery::Absent);
    assert_eq!(machine.look().map(|change| change.at.trust), Some(ClockTrust::None), "the boot's first");
    machine.pass_ms(30_000);
    machine.ntp();
    let change = machine.look().unwrap();
    assert_eq!((change.source, change.confirmed), (ClockSource::Timesyncd, true));
    assert_eq!((change.after().offset_ms, change.jumped_ms), (NOW_MS, -UNSET_MS));
    machine.check(ClockTrust::Ntp, ClockSource::Timesyncd, 0);
    assert!(!machine.keeper.wants_time());
    machine.pass_ms(NTP_FRESH_MS + 1);
    let change = machine.look().unwrap();
    assert_eq!((change.source, change.at.trust), (ClockSource::Held, ClockTrust::Rtc));
    machine.check(ClockTrust::Rtc, ClockSource::Held, 0);
}

#[test]
fn a_jump_makes_ntps_old_word_worthless_and_time_goes_on() {
    // An hour ahead its old mark still looks fresh.
    for jump_ms in [YEAR_MS, -YEAR_MS, 3_600_000, -3_600_000] {
        let mut machine = Machine::new(0, Battery::Hosted);
        machine.ntp();
        machine.look();
        machine.pass_ms(500);
        machine.wrong_ms = jump_ms;
        machine.check(ClockTrust::Ntp, ClockSource::Timesyncd, 0);
        machine.pass_ms(500);
        let change = machine.look().unwrap();
        assert_eq!((change.jumped_ms, change.source), (jump_ms, ClockSource::Held));
        machine.check(ClockTrust::Rtc, ClockSource::Held, 0);
        machine.pass_ms(1_000);
        assert_eq!(machine.look(), None, "told once");
        machine.ntp();
        machine.look();
        machine.check(ClockTrust::Ntp, ClockSource::Timesyncd, 0);
    }
}

#[test]
fn a_second_within_ntps_mark_is_no_jump() {
    let mut machine = Machine::new(0, Battery::Hosted);
    machine.ntp();
    machine.look();
    machine.wrong_ms = 1_000;
    assert_eq!(machine.look(), None);
    machine.check(ClockTrust::Ntp, ClockSource::Timesyncd, 1_000);
    machine.wrong_ms = 2_001;
    assert!(machine.look().is_some());
}

#[test]
fn slewing_is_recorded_when_it_has_come_to_a_second() {
    let mut machine = Machine::new(0, Battery::Hosted);
    machine.look();
    let mut told = 0;
    for _second in 0..3_600 {
        machine.pass_ms(1_000);
        machine.wrong_ms += 1;
        told += usize::from(machine.look().is_some());
    }
    assert_eq!(told, 3, "1 000 ppm for an hour");
}

#[test]
fn a_box_that_knows_nothing_believes_one_platform() {
    let mut machine = Machine::new(UNSET_MS, Battery::Absent);
    machine.look();
    assert!(machine.keeper.wants_time());
    assert_eq!(machine.told("a", 0), Ok(()));
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
    let change = machine.look().unwrap();
    assert_eq!((change.uplink, change.confirmed), (Some(name("a")), false));
    // The machine's own clock stays where it is, and may jump.
    machine.pass_ms(5_000);
    machine.wrong_ms = UNSET_MS + YEAR_MS;
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
    assert_eq!(machine.look().unwrap().jumped_ms, YEAR_MS);
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
    // Its word alone neither locks the box out nor becomes a floor.
    assert_eq!(machine.keeper.clocks().confirmed_ms(), None);
    assert_eq!(machine.keeper.judged_ms(machine.reading()), BUILD_FLOOR_MS);
    // Without news it grows old, and is held.
    machine.pass_ms(ANSWER_FRESH_MS + 1);
    machine.look();
    machine.check(ClockTrust::Rtc, ClockSource::Held, 0);
}

#[test]
fn a_platform_that_lies_by_a_day_is_outvoted_by_what_the_box_knows() {
    for lie_ms in [DAY_MS, -DAY_MS] {
        let mut rtc = Machine::new(0, Battery::Hosted);
        rtc.look();
        assert_eq!(rtc.told("liar", lie_ms), Err(TimeError::Disputed { differs_ms: lie_ms }));
        rtc.check(ClockTrust::Rtc, ClockSource::Host, 0);
        assert_eq!(rtc.look(), None, "nothing has changed");
        let mut ntp = Machine::new(0, Battery::Absent);
        ntp.ntp();
        ntp.look();
        assert_eq!(ntp.told("liar", lie_ms), Err(TimeError::Disputed { differs_ms: lie_ms }));
        ntp.check(ClockTrust::Ntp, ClockSource::Timesyncd, 0);
        // And by what NTP said hours before.
        ntp.pass_ms(NTP_FRESH_MS + 1);
        ntp.look();
        assert!(matches!(ntp.told("liar", lie_ms), Err(TimeError::Disputed { .. })));
        ntp.check(ClockTrust::Rtc, ClockSource::Held, 0);
    }
}

#[test]
fn a_refused_answer_does_not_win_when_the_others_fall_silent() {
    let mut machine = Machine::new(0, Battery::Tells { offset_ms: NOW_MS });
    machine.look();
    assert!(machine.told("liar", DAY_MS).is_err());
    // The machine's clock jumps, and nothing stands behind it any more.
    machine.wrong_ms = UNSET_MS;
    machine.look();
    machine.check(ClockTrust::None, ClockSource::None, UNSET_MS);
}

#[test]
fn an_honest_platform_confirms_a_battery_clock() {
    let mut machine = Machine::new(90_000, Battery::Hosted);
    machine.look();
    assert_eq!(machine.told("a", 0), Ok(()));
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
    let change = machine.look().unwrap();
    assert!(change.confirmed, "two witnesses");
    assert_eq!(machine.keeper.clocks().confirmed_ms(), Some(machine.truth_ms()));
    assert_eq!(machine.told("a", -DAY_MS), Err(TimeError::Disputed { differs_ms: -DAY_MS }), "before it");
}

#[test]
fn of_two_platforms_that_disagree_neither_is_believed() {
    let mut machine = Machine::new(UNSET_MS, Battery::Absent);
    machine.look();
    machine.told("a", 0).unwrap();
    machine.look();
    machine.pass_ms(120_000);
    assert_eq!(machine.told("b", DAY_MS), Err(TimeError::Disputed { differs_ms: DAY_MS }));
    assert_eq!(machine.stamp().trust, ClockTrust::None);
    let change = machine.look().unwrap();
    assert!(change.withdrawn, "what was published is taken back");
    assert_eq!(machine.keeper.clocks().of(&BootId("b".into())).unwrap().best.trust, ClockTrust::None);
    // A third one decides.
    assert_eq!(machine.told("c", 1_000), Ok(()));
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
    // And two outvote a battery clock.
    let mut machine = Machine::new(DAY_MS, Battery::Hosted);
    assert!(machine.told("a", 0).is_err());
    machine.check(ClockTrust::Rtc, ClockSource::Host, DAY_MS);
    assert_eq!(machine.told("b", 0), Ok(()));
    machine.check(ClockTrust::Platform, ClockSource::Platform, 0);
}

#[test]
fn absurd_times_are_refused_by_name() {
    let mut machine = Machine::new(UNSET_MS, Battery::Absent);
    for told_ms in [i64::MIN, -1, 0, BUILD_FLOOR_MS - 1, CEILING_MS, i64::MAX] {
        let taken = machine.keeper.witness(&name("a"), machine.reading(), told_ms, u64::MAX);
        assert_eq!(taken, Err(TimeError::Implausible), "{told_ms}");
    }
    machine.check(ClockTrust::None, ClockSource::None, UNSET_MS);
}

#[test]
fn a_process_that_starts_anew_in_the_same_boot_goes_on() {
    let mut machine = Machine::new(UNSET_MS, Battery::Absent);
    machine.look();
    machine.ntp();
    machine.look();
    let clocks = machine.keeper.clocks().clone();
    let mut again = Machine::new(UNSET_MS, Battery::Absent);
    again.pass_ms(60_000);
    again.keeper.recall(clocks.clone(), again.reading());
    again.check(ClockTrust::Rtc, ClockSource::Held, 0);
    let change = again.look().unwrap();
    assert_eq!(change.before.map(|before| before.trust), Some(ClockTrust::Ntp));
    // Nothing to tell where nothing changed.
    let mut calm = Machine::new(0, Battery::Absent);
    calm.ntp();
    calm.keeper.recall(clocks, calm.reading());
    assert_eq!(calm.look(), None);
}

#[test]
fn a_clock_that_jumps_each_second_fills_no_journal() {
    let mut machine = Machine::new(0, Battery::Hosted);
    let (mut told, mut jumped_ms) = (0, 0);
    let hours = 6;
    for second in 0..hours * 3_600 {
        machine.pass_ms(1_000);
        machine.wrong_ms = if second % 2 == 0 { 5_000 } else { 0 };
        if let Some(change) = machine.look() {
            told += 1;
            jumped_ms += change.jumped_ms;
        }
    }
    assert!(told <= RECORDS_AT_ONCE + hours * 60 && told > hours * 20, "{told} records in {hours} hours");
    assert!(jumped_ms.abs() <= 5_000, "no jump is told twice: {jumped_ms}");
}

/// Whatever happens, monotonic time in a stamp is the machine's, trust is earned, and a trusted stamp is not more wrong
/// than its best witness.
#[test]
fn random_lives_of_a_clock_keep_their_promises() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let battery = if rng.bool() { Battery::Absent } else { Battery::Tells { offset_ms: NOW_MS } };
        let mut machine = Machine::new(if rng.bool() { 0 } else { UNSET_MS }, battery);
        let mut clocks = Clocks::default();
        for _turn in 0..200 {
            machine.pass_ms(rng.u64(1..3_000_000));
            match rng.u8(0..8) {
                0 => machine.wrong_ms = rng.i64(-2 * YEAR_MS..2 * YEAR_MS),
                1 => machine.ntp(),
                2 => machine.evidence.ntp = None,
                // A liar is alone, and there is somebody who knows.
                3 if machine.somebody_knows() => {
                    let _refused = machine.told("liar", DAY_MS);
                }
                4 => {
                    let _taken = machine.told(["a", "b"][rng.usize(0..2)], 0);
                }
                _ => {}
            }
            if let Some(change) = machine.look() {
                assert_eq!(change.before, clocks.of(&change.at.boot).map(|known| known.last), "seed {seed}");
                clocks.note(&change);
            }
            let stamp = machine.stamp();
            assert_eq!(stamp.mono_ms, machine.mono_ms);
            if stamp.trust >= ClockTrust::Platform {
                let wrong_ms = (stamp.wall_ms - machine.truth_ms()).abs();
                assert!(wrong_ms <= 2_000, "{wrong_ms} ms wrong at {:?}, seed {seed}", stamp.trust);
            }
        }
        // The board's confirmed time moves with NTP as well; what boots are known as comes from the records alone.
        let mut known = machine.keeper.clocks().clone();
        known.confirm(0);
        clocks.confirm(0);
        assert_eq!(known, clocks, "the records alone tell what is known, seed {seed}");
    }
}
