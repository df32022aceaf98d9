//! When something happened: as the box's clocks said it, and how far they can be trusted (promise G8).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::BootId;

/// How far the wall clock can be trusted. Ordered: later is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClockTrust {
    /// Nothing is known: a box without a battery clock boots in 1970.
    None,
    /// The clock is plausible and somebody keeps it (a battery clock, a host), but nobody confirmed it.
    Rtc,
    /// A platform told the time.
    Platform,
    /// Synchronised by NTP.
    Ntp,
}

/// The stamp of a record. Never changed after it was stored; wall time is derived from boot and monotonic time when
/// the clock turns out to have been wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    pub boot: BootId,
    /// Milliseconds since boot, counting suspend (`CLOCK_BOOTTIME`).
    pub mono_ms: u64,
    /// Milliseconds since 1970 UTC, as the box knew it then, right or wrong: the machine's wall clock, or what a platform
    /// told.
    pub wall_ms: i64,
    pub trust: ClockTrust,
}

impl Stamp {
    /// How old this stamp is at `now`, in milliseconds: by the monotonic clock within one boot, across boots by
    /// wall clocks if both can be trusted, else unknown.
    pub fn age_ms(&self, now: &Self) -> Option<u64> {
        if self.boot == now.boot {
            return Some(now.mono_ms.saturating_sub(self.mono_ms));
        }
        let trusted = self.trust > ClockTrust::None && now.trust > ClockTrust::None;
        trusted.then(|| u64::try_from(now.wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0))
    }

    /// So much later, as the same clock will tell it.
    #[must_use]
    pub fn later(&self, by_ms: u64) -> Self {
        Self {
            mono_ms: self.mono_ms.saturating_add(by_ms),
            wall_ms: self.wall_ms.saturating_add_unsigned(by_ms),
            ..self.clone()
        }
    }

    /// Seconds since 1970, right or wrong.
    pub const fn unix_s(&self) -> i64 {
        self.wall_ms.div_euclid(1_000)
    }

    /// The minute of the day at the site, 0 to 1439; none while nobody knows the time.
    pub fn site_minute(&self, utc_offset_min: i32) -> Option<u16> {
        if self.trust == ClockTrust::None {
            return None;
        }
        let minute = (self.wall_ms.div_euclid(60_000) + i64::from(utc_offset_min)).rem_euclid(24 * 60);
        u16::try_from(minute).ok()
    }
}
