//! The pipeline's time: milliseconds that only grow, from the stamps of records alone. All deadlines are in it.
//!
//! Within a boot it follows the monotonic clock; across a restart it grows by the time that the box was off, where both
//! clocks could be trusted, and by nothing where they could not. Wall time that jumps moves no deadline.

use serde::{Deserialize, Serialize};

use crate::model::ids::BootId;
use crate::model::stamp::{ClockTrust, Stamp};

use super::table::Row;

/// A box that was off longer than this was put aside: what waited then is due at once.
const OFF_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Where time stands: the latest record's stamp, and the pipeline's time at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Time {
    pub(super) t_ms: u64,
    pub(super) at: Stamp,
}

impl Row for Time {}

const MINUTES_OF_A_DAY: i64 = 24 * 60;

/// The minute of the site's day, 0 to 1439; none where the clock is not trusted.
pub(super) fn minute_of_day(at: &Stamp, utc_offset_min: i32) -> Option<u16> {
    if at.trust == ClockTrust::None {
        return None;
    }
    let minute = (at.wall_ms.div_euclid(60_000)).saturating_add(i64::from(utc_offset_min));
    u16::try_from(minute.rem_euclid(MINUTES_OF_A_DAY)).ok()
}

impl Time {
    pub(super) fn begin(at: &Stamp) -> Self {
        Self { t_ms: 0, at: at.clone() }
    }

    /// After a record with this stamp. A stamp that is older than the last one moves nothing back.
    pub(super) fn after(&self, at: &Stamp) -> Self {
        if at.boot == self.at.boot {
            let passed = at.mono_ms.saturating_sub(self.at.mono_ms);
            let at = if at.mono_ms >= self.at.mono_ms { at } else { &self.at };
            return Self { t_ms: self.t_ms.saturating_add(passed), at: at.clone() };
        }
        let trusted = self.at.trust > ClockTrust::None && at.trust > ClockTrust::None;
        let off = if trusted { at.wall_ms.saturating_sub(self.at.wall_ms) } else { 0 };
        let off = u64::try_from(off).unwrap_or(0).min(OFF_MS_MAX);
        Self { t_ms: self.t_ms.saturating_add(off), at: at.clone() }
    }

    /// The stamp of a moment that has just passed.
    pub(super) fn stamp_of(&self, t_ms: u64) -> Stamp {
        let ago = self.t_ms.saturating_sub(t_ms).min(self.at.mono_ms);
        let wall = self.at.wall_ms.saturating_sub(i64::try_from(ago).unwrap_or(0));
        Stamp { mono_ms: self.at.mono_ms.saturating_sub(ago), wall_ms: wall, ..self.at.clone() }
    }

    /// When a deadline is reached, by the monotonic clock of `boot`. In another boot than the last record's: at once,
    /// since a first record has to tell how time went on.
    pub(super) fn due_ms(&self, t_ms: u64, boot: &BootId) -> u64 {
        if *boot != self.at.boot {
            return 0;
        }
        self.at.mono_ms.saturating_add(t_ms.saturating_sub(self.t_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(boot: &str, mono_ms: u64, wall_ms: i64, trust: ClockTrust) -> Stamp {
        Stamp { boot: BootId(boot.into()), mono_ms, wall_ms, trust }
    }

    #[test]
    fn time_only_grows_and_a_wall_clock_moves_it_across_a_restart_alone() {
        let year_ms = 365 * 24 * 3_600_000_i64;
        let begin = Time::begin(&stamp("a", 1_000, 0, ClockTrust::None));
        let jumped = begin.after(&stamp("a", 3_000, year_ms, ClockTrust::Ntp));
        assert_eq!(jumped.t_ms, 2_000);
        let back = jumped.after(&stamp("a", 2_500, -year_ms, ClockTrust::Ntp));
        assert_eq!((back.t_ms, back.at.mono_ms), (2_000, 3_000));
        let off = jumped.after(&stamp("b", 50, year_ms + 60_000, ClockTrust::Rtc));
        assert_eq!(off.t_ms, 62_000);
        let unknown = jumped.after(&stamp("b", 50, year_ms + 60_000, ClockTrust::None));
        assert_eq!(unknown.t_ms, 2_000);
        assert_eq!(off.due_ms(62_500, &BootId("b".into())), 550);
        assert_eq!(off.due_ms(62_500, &BootId("c".into())), 0);
        assert_eq!(off.stamp_of(61_990).mono_ms, 40);
    }
}
