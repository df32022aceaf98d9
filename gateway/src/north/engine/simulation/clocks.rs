//! The machine's clocks in the simulation: a wall clock that jumps, boots in 1970, NTP that comes and goes, platforms that
//! tell the time; judged by the keeper of the daemon. Its records go the way of all records, and what is derived from
//! those that arrived must be the truth.

use super::journal::{Contents, Journal};
use super::{World, uplink};
use crate::model::clock::{ClockChange, ClockSource, Clocks, wall_ms};
use crate::model::ids::BootId;
use crate::model::record::Class;
use crate::model::stamp::ClockTrust;
use crate::rt::clock::{Clock, ManualClock};
use crate::rt::keeper::{Battery, Evidence, JUMP_MS, Keeper, NtpMark, Reading};
use crate::store::Op;

use super::commits::Waiter;

/// How far a derived time may be from the truth: a jump that is too small to be one, and half a round trip.
const WRONG_MS_MAX: u64 = 2 * JUMP_MS;

/// How far wall clocks jump: seven weeks either way.
const JUMPS_MS: i64 = 4_000_000_000;

#[derive(Debug)]
pub(super) struct Machine {
    keeper: Keeper,
    evidence: Evidence,
    /// Milliseconds since 1970, truly.
    true_ms: i64,
    /// How far the machine's wall clock is from it.
    wrong_ms: i64,
    boots: u64,
}

fn boot(number: u64) -> BootId {
    BootId(format!("{number:032x}").into())
}

impl Machine {
    /// A box that is switched on.
    pub(super) fn new(clock: &ManualClock) -> Self {
        let now = clock.now();
        let evidence = Evidence { battery: Battery::Absent, ntp: None };
        let reading = Reading { mono_ms: now.mono_ms, wall_ms: now.wall_ms };
        let keeper = Keeper::new(now.boot, reading, evidence);
        Self { keeper, evidence, true_ms: now.wall_ms, wrong_ms: 0, boots: 0 }
    }

    fn reading(&self, mono_ms: u64) -> Reading {
        Reading { mono_ms, wall_ms: self.true_ms + self.wrong_ms }
    }
}

/// What a restart finds of the clocks.
pub(super) fn known(contents: &Contents) -> Clocks {
    let mut clocks = Clocks::default();
    let records = contents[&Class::Event].values().filter_map(|row| row.record.as_deref());
    for change in records.filter_map(|record| ClockChange::read(&record.at, &record.body)) {
        clocks.note(&change);
    }
    clocks
}

impl<J: Journal> World<J> {
    /// Time passes for everybody.
    pub(super) fn pass_ms(&mut self, by_ms: u64) {
        self.clock.advance_ms(by_ms);
        self.machine.true_ms += i64::try_from(by_ms).unwrap();
        self.show_time();
    }

    fn show_time(&self) {
        let now = self.clock.now();
        let stamp = self.machine.keeper.stamp(self.machine.reading(now.mono_ms));
        self.clock.jump_wall_ms(stamp.wall_ms - now.wall_ms);
        self.clock.set_trust(stamp.trust);
    }

    /// Something happens to the clock, perhaps, and it is looked at.
    pub(super) fn tend_clock(&mut self) {
        let mono_ms = self.clock.mono_ms();
        match self.rng.u8(0..150) {
            0..=2 => self.machine.wrong_ms = self.rng.i64(-JUMPS_MS..JUMPS_MS),
            3 => {
                self.machine.wrong_ms = 0;
                let mark = NtpMark { source: ClockSource::Chrony, wall_ms: self.machine.true_ms };
                self.machine.evidence.ntp = Some(mark);
            }
            4 => self.machine.evidence.ntp = None,
            5 => {
                let reading = self.machine.reading(mono_ms);
                let round_trip_ms = self.rng.u64(0..JUMP_MS);
                let told_ms = self.machine.true_ms - i64::try_from(self.rng.u64(0..=round_trip_ms)).unwrap();
                self.machine.keeper.witness(&uplink(), reading, told_ms, round_trip_ms).unwrap();
            }
            _ => {}
        }
        let reading = self.machine.reading(mono_ms);
        self.machine.keeper.look(reading, self.machine.evidence);
        if let Some(change) = self.machine.keeper.change(reading) {
            self.clock_records += 1;
            self.waiting.push((Op::Append { drafts: vec![change.draft()] }, Waiter::Device));
        }
        self.show_time();
    }

    /// A process starts; with `reboot` the whole machine, often in 1970.
    pub(super) fn start_clock(&mut self, reboot: bool) {
        let known = known(&self.journal.contents());
        if reboot {
            self.machine.boots += 1;
            let wrong_ms =
                [0, -self.machine.true_ms, self.rng.i64(-JUMPS_MS..JUMPS_MS)][self.rng.usize(0..3)];
            self.machine.wrong_ms = wrong_ms;
            self.machine.evidence.ntp = None;
            let wall_ms = self.machine.true_ms + wrong_ms;
            self.clock.reboot(boot(self.machine.boots), wall_ms, ClockTrust::None);
        }
        let now = self.clock.now();
        let reading = self.machine.reading(now.mono_ms);
        self.truths.insert(now.boot.clone(), self.machine.true_ms - i64::try_from(now.mono_ms).unwrap());
        self.machine.keeper = Keeper::new(now.boot, reading, self.machine.evidence);
        self.machine.keeper.recall(known, reading);
        self.show_time();
    }

    /// Where the journal's own records say better than a stamp, they say the truth.
    pub(super) fn check_derived_time(&mut self) {
        let contents = self.journal.contents();
        let known = known(&contents);
        let records = contents.values().flat_map(|rows| rows.values());
        for record in records.filter_map(|row| row.record.as_deref()) {
            let Some(mended) = known.mend(&record.at) else { continue };
            self.mended += 1;
            let truth_ms = wall_ms(record.at.mono_ms, self.truths[&record.at.boot]);
            let wrong_ms = mended.wall_ms.abs_diff(truth_ms);
            assert!(
                wrong_ms <= WRONG_MS_MAX,
                "{} is derived {wrong_ms} ms wrong, {:?}, seed {}",
                record.id(),
                known.of(&record.at.boot),
                self.seed
            );
        }
    }
}
