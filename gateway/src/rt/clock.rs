//! Clocks are passed in, so that tests can move them. Durations come from the monotonic clock only (promise G8); wall time
//! is data, and what [`Keeper`] makes of it.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use rustix::time::{ClockId, clock_gettime};

use crate::model::clock::{ClockChange, ClockSource, Clocks};
use crate::model::ids::{BootId, UplinkName};
use crate::model::stamp::{ClockTrust, Stamp};

use super::keeper::{Evidence, Keeper, Reading, TimeError};

/// 2026-01-01T00:00:00Z: no box with this software can honestly live before it, so an earlier wall clock is unset. To be
/// raised with releases.
pub const BUILD_FLOOR_MS: i64 = 1_767_225_600_000;

/// 2100-01-01T00:00:00Z: nor after it.
pub const CEILING_MS: i64 = 4_102_444_800_000;

/// Where time comes from.
pub trait Clock: Send + Sync + Debug {
    /// The stamp of this moment.
    fn now(&self) -> Stamp;

    /// Milliseconds since boot.
    fn mono_ms(&self) -> u64 {
        self.now().mono_ms
    }

    /// The moment at which certificates are judged, in milliseconds since 1970: the latest of what is known.
    fn judged_ms(&self) -> i64 {
        self.now().wall_ms.max(BUILD_FLOOR_MS)
    }

    /// What is known of each boot's wall time.
    fn clocks(&self) -> Arc<Clocks> {
        Arc::default()
    }

    /// Grows whenever [`Clock::clocks`] has changed.
    fn changes(&self) -> u64 {
        0
    }

    /// Whether a platform's answer would be of use.
    fn wants_time(&self) -> bool {
        false
    }

    /// A platform's answer to a question of ours: `told_ms` since 1970, `round_trip_ms` after the question.
    fn witness(&self, _uplink: &UplinkName, _told_ms: i64, _round_trip_ms: u64) -> Result<(), TimeError> {
        Err(TimeError::Unasked)
    }
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks, judged by a [`Keeper`]. Cheap to clone; all clones are one clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    inner: Arc<Mutex<Inner>>,
    boot: BootId,
}

#[derive(Debug)]
struct Inner {
    keeper: Keeper,
    /// A copy for readers, made anew with each change.
    clocks: Arc<Clocks>,
    changes: u64,
}

fn boot_id() -> BootId {
    // Where there is none (not Linux, or no /proc) a random one stands for this run.
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    if hex.len() != 32 {
        hex = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    }
    BootId(hex.into())
}

/// The machine's clocks at this moment.
#[expect(clippy::disallowed_methods, reason = "the one place where the machine's wall clock is read")]
pub fn reading() -> Reading {
    let boottime = clock_gettime(ClockId::Boottime);
    let mono_ms = boottime.tv_sec.saturating_mul(1_000).saturating_add(boottime.tv_nsec / 1_000_000);
    // Through the standard library and not a system call of our own, so that tests can put libfaketime in between.
    let wall_ms = match std::time::SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Reading { mono_ms: u64::try_from(mono_ms).unwrap_or(0), wall_ms }
}

impl SystemClock {
    /// A clock that knows nothing of the past, with what the machine tells of its clock now.
    pub fn new(evidence: Evidence) -> Self {
        let boot = boot_id();
        let keeper = Keeper::new(boot.clone(), reading(), evidence);
        let inner = Inner { keeper, clocks: Arc::default(), changes: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), boot }
    }

    /// A panic while the lock was held leaves a whole keeper behind.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the journal knows of earlier boots and of this one.
    pub fn recall(&self, clocks: Clocks) {
        let mut inner = self.lock();
        inner.keeper.recall(clocks, reading());
        inner.clocks = Arc::new(inner.keeper.clocks().clone());
        inner.changes += 1;
    }

    /// Looks at the machine's clock anew.
    pub fn look(&self, evidence: Evidence) {
        self.lock().keeper.look(reading(), evidence);
    }

    /// The change that is to be recorded now, if there is one.
    pub fn change(&self) -> Option<ClockChange> {
        let mut inner = self.lock();
        let change = inner.keeper.change(reading())?;
        inner.clocks = Arc::new(inner.keeper.clocks().clone());
        inner.changes += 1;
        Some(change)
    }

    /// What is believed now.
    pub fn source(&self) -> ClockSource {
        self.lock().keeper.source()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        self.lock().keeper.stamp(reading())
    }

    fn mono_ms(&self) -> u64 {
        reading().mono_ms
    }

    fn judged_ms(&self) -> i64 {
        self.lock().keeper.judged_ms(reading())
    }

    fn clocks(&self) -> Arc<Clocks> {
        Arc::clone(&self.lock().clocks)
    }

    fn changes(&self) -> u64 {
        self.lock().changes
    }

    fn wants_time(&self) -> bool {
        self.lock().keeper.wants_time()
    }

    fn witness(&self, uplink: &UplinkName, told_ms: i64, round_trip_ms: u64) -> Result<(), TimeError> {
        let taken = self.lock().keeper.witness(uplink, reading(), told_ms, round_trip_ms);
        tracing::debug!(%uplink, boot = %self.boot, told_ms, round_trip_ms, ?taken, "a platform told the time");
        taken
    }
}

/// A clock that only moves when told.
#[derive(Debug)]
pub struct ManualClock {
    mono_ms: AtomicU64,
    wall_ms: AtomicI64,
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Rest {
    boot: BootId,
    trust: ClockTrust,
    clocks: Arc<Clocks>,
    changes: u64,
}

impl ManualClock {
    /// Starts one second after boot on 2026-06-01.
    pub fn new() -> Self {
        let boot = BootId("0123456789abcdef0123456789abcdef".into());
        let rest = Rest { boot, trust: ClockTrust::Rtc, clocks: Arc::default(), changes: 0 };
        Self {
            mono_ms: AtomicU64::new(1_000),
            wall_ms: AtomicI64::new(1_780_272_000_000),
            rest: Mutex::new(rest),
        }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub fn set_trust(&self, trust: ClockTrust) {
        self.rest().trust = trust;
    }

    /// The machine starts anew: another boot id, a monotonic clock near 0, a wall clock at `wall_ms`.
    pub fn reboot(&self, boot: BootId, wall_ms: i64, trust: ClockTrust) {
        self.mono_ms.store(1_000, Ordering::SeqCst);
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
        let mut rest = self.rest();
        (rest.boot, rest.trust) = (boot, trust);
    }

    pub fn set_clocks(&self, clocks: Clocks) {
        let mut rest = self.rest();
        rest.clocks = Arc::new(clocks);
        rest.changes += 1;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        let rest = self.rest();
        Stamp {
            boot: rest.boot.clone(),
            mono_ms: self.mono_ms.load(Ordering::SeqCst),
            wall_ms: self.wall_ms.load(Ordering::SeqCst),
            trust: rest.trust,
        }
    }

    fn clocks(&self) -> Arc<Clocks> {
        Arc::clone(&self.rest().clocks)
    }

    fn changes(&self) -> u64 {
        self.rest().changes
    }
}
