//! What the machine tells of its own clock: a battery clock under /sys/class/rtc, systemd-timesyncd's mark, chrony's
//! tracking. Read only. The kernel's own `adjtimex` is not asked: the unit's system call filter has no such call, and
//! opening it would let the daemon set the clock where capabilities are not dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::model::clock::ClockSource;

use super::chrony;
use super::keeper::{Battery, Evidence, NtpMark, Reading};

/// systemd-timesyncd touches it at each synchronisation (systemd-timesyncd.service(8)).
const TIMESYNCD_MARK: &str = "/run/systemd/timesync/synchronized";
/// Where there is a chrony, there is this directory.
const CHRONY_RUN: &str = "/run/chrony";
/// Its command port, on loopback by default (chrony.conf(5), `cmdport`).
const CHRONY_PORT: u16 = 323;
const RTC_CLASS: &str = "/sys/class/rtc";

/// Chrony is asked this often.
const CHRONY_EVERY: Duration = Duration::from_secs(30);
/// It answers at once, or not at all.
const CHRONY_WITHIN: Duration = Duration::from_millis(500);
/// The battery clock is read this often: it may hang on a slow bus, and moves slowly.
const BATTERY_EVERY: Duration = Duration::from_mins(1);

/// Where the machine tells of its clock.
#[derive(Debug, Clone)]
pub struct Places {
    pub timesyncd: PathBuf,
    pub chrony_run: PathBuf,
    pub chrony: SocketAddr,
    pub rtc: PathBuf,
    /// Somebody outside keeps the machine's clock (`trust_clock`).
    pub vouched: bool,
    /// Each machine of this kind has a battery clock, so one without is a guest whose host keeps the time.
    pub guest_without_rtc: bool,
}

impl Places {
    /// The usual ones. A machine with an x86 processor and no battery clock is a container or a small virtual machine.
    pub fn usual(vouched: bool) -> Self {
        Self {
            timesyncd: TIMESYNCD_MARK.into(),
            chrony_run: CHRONY_RUN.into(),
            chrony: SocketAddr::from(([127, 0, 0, 1], CHRONY_PORT)),
            rtc: RTC_CLASS.into(),
            vouched,
            guest_without_rtc: cfg!(any(target_arch = "x86_64", target_arch = "x86")),
        }
    }

    /// What files alone tell.
    pub fn read(&self, reading: Reading) -> Evidence {
        Evidence { battery: self.battery(reading), ntp: self.timesyncd() }
    }

    /// When timesyncd last synchronised the clock, by that clock.
    fn timesyncd(&self) -> Option<NtpMark> {
        let touched = std::fs::metadata(&self.timesyncd).and_then(|data| data.modified()).ok()?;
        let since = touched.duration_since(UNIX_EPOCH).ok()?;
        let wall_ms = i64::try_from(since.as_millis()).ok()?;
        Some(NtpMark { source: ClockSource::Timesyncd, wall_ms })
    }

    fn battery(&self, reading: Reading) -> Battery {
        if self.vouched {
            return Battery::Hosted;
        }
        let found = rtcs(&self.rtc);
        if found.is_empty() {
            return if self.guest_without_rtc { Battery::Hosted } else { Battery::Absent };
        }
        let tells = found.iter().find_map(|rtc| {
            let seconds: i64 = std::fs::read_to_string(rtc.join("since_epoch")).ok()?.trim().parse().ok()?;
            // Half a second: it tells whole ones.
            let offset_ms =
                seconds.checked_mul(1_000)?.checked_add(500)?.checked_sub_unsigned(reading.mono_ms)?;
            Some(Battery::Tells { offset_ms })
        });
        tells.unwrap_or(Battery::Absent)
    }
}

/// The battery clocks, the one first from which the kernel has set the wall clock.
fn rtcs(class: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let is_second =
        |rtc: &PathBuf| std::fs::read_to_string(rtc.join("hctosys")).map_or(true, |text| text.trim() != "1");
    found.sort_by_key(|rtc| (is_second(rtc), rtc.clone()));
    found
}

/// The places with what needs not be asked each second.
#[derive(Debug)]
pub struct Sources {
    places: Places,
    battery: Option<(Instant, Battery)>,
    chrony: Option<(Instant, Option<NtpMark>)>,
    sequence: u32,
}

impl Sources {
    pub fn new(places: Places) -> Self {
        Self { places, battery: None, chrony: None, sequence: fastrand::u32(..) }
    }

    /// What the machine tells now. Never waits longer than half a second.
    pub async fn evidence(&mut self, reading: Reading) -> Evidence {
        let now = Instant::now();
        let battery = match self.battery {
            Some((at, battery)) if now.duration_since(at) < BATTERY_EVERY => battery,
            _ => self.places.battery(reading),
        };
        if self.battery.is_none_or(|(at, _)| now.duration_since(at) >= BATTERY_EVERY) {
            self.battery = Some((now, battery));
        }
        let ntp = match self.places.timesyncd() {
            Some(mark) => Some(mark),
            None => self.ask_chrony(now).await,
        };
        Evidence { battery, ntp }
    }

    async fn ask_chrony(&mut self, now: Instant) -> Option<NtpMark> {
        if let Some((at, mark)) = self.chrony
            && now.duration_since(at) < CHRONY_EVERY
        {
            return mark;
        }
        let mark = if self.places.chrony_run.exists() { self.chrony_mark().await } else { None };
        self.chrony = Some((now, mark));
        mark
    }

    async fn chrony_mark(&mut self) -> Option<NtpMark> {
        self.sequence = self.sequence.wrapping_add(1);
        let asked = timeout(CHRONY_WITHIN, exchange(self.places.chrony, self.sequence)).await;
        match asked {
            Ok(Ok(told)) => told.map(|wall_ms| NtpMark { source: ClockSource::Chrony, wall_ms }),
            Ok(Err(error)) => {
                tracing::debug!(%error, "chrony does not say how it stands");
                None
            }
            Err(_late) => None,
        }
    }
}

async fn exchange(
    chrony: SocketAddr,
    sequence: u32,
) -> Result<Option<i64>, Box<dyn std::error::Error + Send + Sync>> {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    socket.connect(chrony).await?;
    socket.send(&chrony::request(sequence)).await?;
    // One more, so that a longer packet is seen as such.
    let mut packet = [0; chrony::PACKET_BYTES + 1];
    let length = socket.recv(&mut packet).await?;
    Ok(chrony::reply(packet.get(..length).unwrap_or_default(), sequence)?)
}

#[cfg(test)]
mod tests;
