//! The judgement of the box's time (promise G8): which of the machine's clock, NTP and the platforms is believed, and how
//! far. Pure: it is told readings and answers, and reads no clock. It never sets the machine's clock: what a platform
//! tells is an offset from the monotonic clock, kept here.
//!
//! - `ntp`: timesyncd or chrony have synchronised the machine's clock lately, and since it jumped last.
//! - `platform`: the answer of a platform, if more than half of all witnesses agree with it. Witnesses are the
//!   platforms, each with its last answer, and the box itself as far as it knows the time. So one platform alone is
//!   believed by a box that knows nothing, one against a battery clock is not, and of two that disagree neither.
//! - `rtc`: what was confirmed earlier in this boot, carried on by the monotonic clock; or the machine's clock, if a
//!   battery clock agrees with it (or a host keeps it) and it is not before what was confirmed last. A date that merely
//!   looks sane is not believed: boxes without a battery clock start at the date of some file.
//! - `none`: everything else.
//!
//! What must be survived: a wall clock that jumps either way between two looks, NTP that goes away, platforms that
//! lie, answers that are late, a process that starts anew in the same boot.

use std::collections::BTreeMap;

use crate::model::clock::{ClockChange, ClockSource, Clocks, Reckoning, wall_ms};
use crate::model::ids::{BootId, UplinkName};
use crate::model::limits::UPLINKS_MAX;
use crate::model::stamp::{ClockTrust, Stamp};

use super::clock::{BUILD_FLOOR_MS, CEILING_MS};

/// The machine's clocks moved apart by more than this between two looks, or since the last record: a change that is
/// recorded. Slewing (500 ppm) stays below it for half an hour.
pub const JUMP_MS: u64 = 1_000;

/// NTP counts as fresh for so long after its last word: four of timesyncd's longest polls (2 048 s), in which a crystal
/// of 100 ppm goes wrong by less than a second.
pub const NTP_FRESH_MS: u64 = 4 * 2_048_000;

/// A platform and the box agree within this: battery clocks are set by hand, and drift by minutes in a year.
pub const BOX_AGREES_MS: u64 = 600_000;

/// Two platforms agree within this and their own errors.
pub const PLATFORMS_AGREE_MS: u64 = 60_000;

/// A platform's answer counts for so long: some seconds of drift.
pub const ANSWER_FRESH_MS: u64 = 24 * 3_600_000;

/// Battery clock and machine's clock agree within this, and 200 ppm of the uptime.
const BATTERY_AGREES_MS: u64 = 60_000;
const BATTERY_DRIFT_DIVISOR: u64 = 5_000;

/// Clock records: so many at once, then one in [`RECORD_EVERY_MS`]. A clock that jumps each second must not fill the
/// journal; the record that comes then holds all jumps since the last one.
const RECORDS_AT_ONCE: u64 = 8;
const RECORD_EVERY_MS: u64 = 60_000;

/// What the machine's clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub mono_ms: u64,
    pub wall_ms: i64,
}

impl Reading {
    const fn offset_ms(self) -> i64 {
        self.wall_ms.saturating_sub_unsigned(self.mono_ms)
    }
}

/// What stands behind the machine's wall clock when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Battery {
    /// Nothing.
    #[default]
    Absent,
    /// A host that keeps the time.
    Hosted,
    /// A battery clock: its wall time less monotonic time.
    Tells { offset_ms: i64 },
}

/// NTP's last word, by the machine's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NtpMark {
    pub source: ClockSource,
    pub wall_ms: i64,
}

/// What the machine tells of its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    pub battery: Battery,
    pub ntp: Option<NtpMark>,
}

/// Why a platform's time is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("the clock takes no answers")]
    Unasked,
    #[error("the answer is no time that this software can live in")]
    Implausible,
    #[error("it differs by {differs_ms} ms from what others say")]
    Disputed { differs_ms: i64 },
}

/// A platform's last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    offset_ms: i64,
    /// Half of the round trip.
    error_ms: u64,
    at_ms: u64,
    /// It was refused. It counts as a vote, but must not win later only because those who knew better fell silent.
    disputed: bool,
}

/// Witnesses for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Votes {
    /// Platforms that agree, the one that gave it included.
    platforms: usize,
    /// 1 if the box itself agrees.
    own: usize,
    /// All witnesses there are.
    all: usize,
}

impl Votes {
    const fn is_majority(self) -> bool {
        2 * (self.platforms + self.own) > self.all
    }
}

/// What is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Basis {
    /// The machine's clock, with what stands behind it.
    Machine { source: ClockSource },
    /// An offset of our own.
    Kept { offset_ms: i64, source: ClockSource, uplink: Option<UplinkName>, confirmed: bool },
}

impl Basis {
    const fn source(&self) -> ClockSource {
        match self {
            Self::Machine { source } | Self::Kept { source, .. } => *source,
        }
    }

    const fn trust(&self) -> ClockTrust {
        match self.source() {
            ClockSource::None => ClockTrust::None,
            ClockSource::Battery | ClockSource::Host | ClockSource::Held => ClockTrust::Rtc,
            ClockSource::Platform => ClockTrust::Platform,
            ClockSource::Timesyncd | ClockSource::Chrony => ClockTrust::Ntp,
        }
    }
}

/// What was right earlier in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    offset_ms: i64,
    /// Whether it may speak as a witness: not if one platform alone told it.
    witness: bool,
}

/// The judge.
#[derive(Debug)]
pub struct Keeper {
    boot: BootId,
    clocks: Clocks,
    evidence: Evidence,
    /// The machine's offset at the last look.
    seen_ms: i64,
    /// NTP's word that stood when the clock jumped last: it is about the time before.
    outdated: Option<NtpMark>,
    held: Option<Held>,
    told: BTreeMap<UplinkName, Told>,
    basis: Basis,
    /// Jumps since the last record.
    jumped_ms: i64,
    withdrawn: bool,
    /// Credit for records, in milliseconds, and when it was counted.
    credit_ms: u64,
    credited_ms: u64,
}

fn apart(a_ms: i64, b_ms: i64) -> u64 {
    a_ms.abs_diff(b_ms)
}

impl Keeper {
    /// A keeper that knows nothing of the past.
    pub fn new(boot: BootId, reading: Reading, evidence: Evidence) -> Self {
        let mut keeper = Self {
            boot,
            clocks: Clocks::default(),
            evidence,
            seen_ms: reading.offset_ms(),
            outdated: None,
            held: None,
            told: BTreeMap::new(),
            basis: Basis::Machine { source: ClockSource::None },
            jumped_ms: 0,
            withdrawn: false,
            credit_ms: RECORDS_AT_ONCE * RECORD_EVERY_MS,
            credited_ms: reading.mono_ms,
        };
        keeper.judge(reading);
        keeper
    }

    /// What the journal knows of this boot and earlier ones.
    pub fn recall(&mut self, clocks: Clocks, reading: Reading) {
        if let Some(known) = clocks.of(&self.boot)
            && known.best.trust >= ClockTrust::Platform
        {
            let witness = known.best.trust == ClockTrust::Ntp;
            self.held = Some(Held { offset_ms: known.best.offset_ms, witness });
        }
        self.clocks = clocks;
        self.judge(reading);
    }

    pub const fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    pub const fn source(&self) -> ClockSource {
        self.basis.source()
    }

    /// The stamp of a moment. Where the machine's clock was believed and has jumped since the last look, time goes on
    /// as before until it is judged.
    pub fn stamp(&self, reading: Reading) -> Stamp {
        let trust = self.basis.trust();
        let wall = match &self.basis {
            Basis::Kept { offset_ms, .. } => wall_ms(reading.mono_ms, *offset_ms),
            Basis::Machine { .. }
                if trust > ClockTrust::None && apart(reading.offset_ms(), self.seen_ms) > JUMP_MS =>
            {
                wall_ms(reading.mono_ms, self.seen_ms)
            }
            Basis::Machine { .. } => reading.wall_ms,
        };
        Stamp { boot: self.boot.clone(), mono_ms: reading.mono_ms, wall_ms: wall, trust }
    }

    /// The time at which certificates are judged, in milliseconds since 1970: the latest of the machine's wall time, the
    /// build date and what was confirmed. One platform's word is not in it: it could lock the box out everywhere.
    pub fn judged_ms(&self, reading: Reading) -> i64 {
        let confirmed = match &self.basis {
            Basis::Kept { offset_ms, confirmed: true, .. } => wall_ms(reading.mono_ms, *offset_ms),
            _ => BUILD_FLOOR_MS,
        };
        let known = self.clocks.confirmed_ms().unwrap_or(BUILD_FLOOR_MS);
        reading.wall_ms.max(BUILD_FLOOR_MS).max(known).max(confirmed)
    }

    /// Whether a platform's answer would be of use.
    pub fn wants_time(&self) -> bool {
        self.basis.trust() < ClockTrust::Ntp
    }

    /// Looks at the machine's clock. To be called about once a second.
    pub fn look(&mut self, reading: Reading, evidence: Evidence) {
        let offset_ms = reading.offset_ms();
        if apart(offset_ms, self.seen_ms) > JUMP_MS {
            self.jumped_ms = self.jumped_ms.saturating_add(offset_ms.saturating_sub(self.seen_ms));
            self.outdated = self.evidence.ntp;
        }
        self.seen_ms = offset_ms;
        self.evidence = evidence;
        self.judge(reading);
    }

    /// A platform's answer that came `round_trip_ms` after the question, saying `told_ms` since 1970.
    pub fn witness(
        &mut self,
        uplink: &UplinkName,
        reading: Reading,
        told_ms: i64,
        round_trip_ms: u64,
    ) -> Result<(), TimeError> {
        if !(BUILD_FLOOR_MS..CEILING_MS).contains(&told_ms) {
            return Err(TimeError::Implausible);
        }
        let error_ms = round_trip_ms / 2;
        let now_ms = told_ms.saturating_add_unsigned(error_ms);
        if let Some(confirmed_ms) = self.clocks.confirmed_ms()
            && now_ms.saturating_add_unsigned(BOX_AGREES_MS) < confirmed_ms
        {
            return Err(TimeError::Disputed { differs_ms: now_ms.saturating_sub(confirmed_ms) });
        }
        let offset_ms = now_ms.saturating_sub_unsigned(reading.mono_ms);
        if self.basis.trust() == ClockTrust::Ntp {
            let differs_ms = offset_ms.saturating_sub(self.seen_ms);
            let disputed = differs_ms.unsigned_abs() > BOX_AGREES_MS;
            return if disputed { Err(TimeError::Disputed { differs_ms }) } else { Ok(()) };
        }
        if self.told.len() >= UPLINKS_MAX && !self.told.contains_key(uplink) {
            return Err(TimeError::Unasked);
        }
        let told = Told { offset_ms, error_ms, at_ms: reading.mono_ms, disputed: false };
        self.told.insert(uplink.clone(), told);
        let before = self.stamp(reading);
        let was_platform = self.basis.trust() == ClockTrust::Platform;
        self.judge(reading);
        if self.votes(&told, self.own_offset_ms(reading)).is_majority() {
            return Ok(());
        }
        if let Some(told) = self.told.get_mut(uplink) {
            told.disputed = true;
        }
        self.withdrawn |= was_platform && self.basis.trust() < ClockTrust::Platform;
        Err(TimeError::Disputed { differs_ms: now_ms.saturating_sub(before.wall_ms) })
    }

    /// What the box itself knows of the time without any platform.
    fn own_offset_ms(&self, reading: Reading) -> Option<i64> {
        self.held
            .filter(|held| held.witness)
            .map(|held| held.offset_ms)
            .or_else(|| self.kept_by(reading).map(|_source| self.seen_ms))
    }

    /// What keeps the machine's clock right, if anything does.
    fn kept_by(&self, reading: Reading) -> Option<ClockSource> {
        let confirmed_ms = self.clocks.confirmed_ms().unwrap_or(BUILD_FLOOR_MS);
        let floor_ms = BUILD_FLOOR_MS.max(confirmed_ms.saturating_sub_unsigned(BOX_AGREES_MS));
        if reading.wall_ms < floor_ms || reading.wall_ms >= CEILING_MS {
            return None;
        }
        match self.evidence.battery {
            Battery::Absent => None,
            Battery::Hosted => Some(ClockSource::Host),
            Battery::Tells { offset_ms } => {
                let room_ms = BATTERY_AGREES_MS.saturating_add(reading.mono_ms / BATTERY_DRIFT_DIVISOR);
                (apart(offset_ms, self.seen_ms) <= room_ms).then_some(ClockSource::Battery)
            }
        }
    }

    fn ntp(&self, reading: Reading) -> Option<ClockSource> {
        let mark = self.evidence.ntp.filter(|mark| self.outdated != Some(*mark))?;
        let age_ms = reading.wall_ms.saturating_sub(mark.wall_ms);
        let fresh = age_ms >= -i64::try_from(JUMP_MS).unwrap_or(0) && age_ms.unsigned_abs() <= NTP_FRESH_MS;
        (fresh && reading.wall_ms >= BUILD_FLOOR_MS).then_some(mark.source)
    }

    /// Who agrees with an answer; `own` is what the box itself knows.
    fn votes(&self, candidate: &Told, own: Option<i64>) -> Votes {
        let alike = |other: &Told| {
            let room_ms =
                PLATFORMS_AGREE_MS.saturating_add(candidate.error_ms).saturating_add(other.error_ms);
            apart(candidate.offset_ms, other.offset_ms) <= room_ms
        };
        let platforms = self.told.values().filter(|other| alike(other)).count();
        let own_agrees = own.is_some_and(|own| apart(own, candidate.offset_ms) <= BOX_AGREES_MS);
        Votes { platforms, own: usize::from(own_agrees), all: self.told.len() + usize::from(own.is_some()) }
    }

    /// The answer that more than half of the witnesses agree with, the most exact one.
    fn platform(&self, reading: Reading) -> Option<Basis> {
        let own = self.own_offset_ms(reading);
        let believed = self.told.iter().filter_map(|(uplink, told)| {
            let votes = self.votes(told, own);
            let stands = votes.is_majority() && (!told.disputed || votes.platforms > 1);
            stands.then_some((uplink, told, votes.platforms + votes.own > 1))
        });
        let (uplink, told, confirmed) = believed.min_by_key(|(_, told, _)| told.error_ms)?;
        Some(Basis::Kept {
            offset_ms: told.offset_ms,
            source: ClockSource::Platform,
            uplink: Some(uplink.clone()),
            confirmed,
        })
    }

    fn judge(&mut self, reading: Reading) {
        self.told.retain(|_, told| reading.mono_ms.saturating_sub(told.at_ms) <= ANSWER_FRESH_MS);
        if let Some(source) = self.ntp(reading) {
            self.held = Some(Held { offset_ms: self.seen_ms, witness: true });
            self.clocks.confirm(reading.wall_ms);
            self.basis = Basis::Machine { source };
            return;
        }
        if let Some(platform) = self.platform(reading) {
            self.basis = platform;
            return;
        }
        if let Basis::Kept { offset_ms, source: ClockSource::Platform, confirmed, .. } = self.basis
            && self.told.is_empty()
        {
            // It was not refuted, it is only old.
            self.held = Some(Held { offset_ms, witness: confirmed });
        }
        self.basis = match (self.held, self.kept_by(reading)) {
            (Some(held), _) if held.witness || self.told.is_empty() => Basis::Kept {
                offset_ms: held.offset_ms,
                source: ClockSource::Held,
                uplink: None,
                confirmed: false,
            },
            (_, Some(source)) => Basis::Machine { source },
            (_, None) => Basis::Machine { source: ClockSource::None },
        };
    }

    /// The change that is to be recorded now, if there is one: what holds differs from what the journal was told last
    /// of this boot. It counts as told: the caller stores it, however long that takes.
    pub fn change(&mut self, reading: Reading) -> Option<ClockChange> {
        let passed_ms = reading.mono_ms.saturating_sub(self.credited_ms);
        self.credited_ms = reading.mono_ms;
        let most_ms = RECORDS_AT_ONCE * RECORD_EVERY_MS;
        self.credit_ms = self.credit_ms.saturating_add(passed_ms).min(most_ms);
        let at = self.stamp(reading);
        let before = self.clocks.of(&self.boot).map(|known| known.last);
        let after = Reckoning { offset_ms: crate::model::clock::offset_ms(&at), trust: at.trust };
        let changed = before.is_none_or(|before| {
            before.trust != after.trust || apart(before.offset_ms, after.offset_ms) > JUMP_MS
        });
        if (!changed && self.jumped_ms == 0) || self.credit_ms < RECORD_EVERY_MS {
            return None;
        }
        self.credit_ms = self.credit_ms.saturating_sub(RECORD_EVERY_MS);
        let (uplink, confirmed) = match &self.basis {
            Basis::Kept { uplink, confirmed, .. } => (uplink.clone(), *confirmed),
            Basis::Machine { .. } => (None, at.trust == ClockTrust::Ntp),
        };
        let change = ClockChange {
            at,
            source: self.basis.source(),
            confirmed,
            before,
            jumped_ms: std::mem::take(&mut self.jumped_ms),
            withdrawn: std::mem::take(&mut self.withdrawn),
            uplink,
        };
        self.clocks.note(&change);
        Some(change)
    }
}

#[cfg(test)]
mod tests;
