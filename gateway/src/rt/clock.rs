//! Clocks are passed in, so that tests can move them. Durations come from the monotonic clock only (promise G8).

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::model::ids::BootId;
use crate::model::stamp::{ClockTrust, Stamp};

/// 2026-01-01T00:00:00Z: no box with this software can honestly live before it, so an earlier wall clock is unset.
pub const BUILD_FLOOR_MS: i64 = 1_767_225_600_000;

/// Where time comes from.
pub trait Clock: Send + Sync + Debug {
    /// The stamp of this moment.
    fn now(&self) -> Stamp;

    /// Milliseconds since boot.
    fn mono_ms(&self) -> u64 {
        self.now().mono_ms
    }
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// Reads the kernel's boot id; where there is none (not Linux, or no /proc) a random one stands for this run.
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        if hex.len() != 32 {
            hex = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        }
        Self { boot: BootId(hex.into()) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(id: ClockId) -> i64 {
    let time = clock_gettime(id);
    time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let wall_ms = millis(ClockId::Realtime);
        let trust = if wall_ms < BUILD_FLOOR_MS { ClockTrust::None } else { ClockTrust::Rtc };
        Stamp {
            boot: self.boot.clone(),
            mono_ms: u64::try_from(millis(ClockId::Boottime)).unwrap_or(0),
            wall_ms,
            trust,
        }
    }
}

/// A clock that only moves when told.
#[derive(Debug)]
pub struct ManualClock {
    boot: BootId,
    mono_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl ManualClock {
    /// Starts one second after boot on 2026-06-01.
    pub fn new() -> Self {
        Self {
            boot: BootId("0123456789abcdef0123456789abcdef".into()),
            mono_ms: AtomicU64::new(1_000),
            wall_ms: AtomicI64::new(1_780_272_000_000),
        }
    }

    /// Both clocks go on.
    pub fn advance_ms(&self, by_ms: u64) {
        self.mono_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(i64::try_from(by_ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Only the wall clock jumps.
    pub fn jump_wall_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        Stamp {
            boot: self.boot.clone(),
            mono_ms: self.mono_ms.load(Ordering::SeqCst),
            wall_ms: self.wall_ms.load(Ordering::SeqCst),
            trust: ClockTrust::Rtc,
        }
    }
}
