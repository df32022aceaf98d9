//! What the kernel's files say now.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Modem, Roots};

/// Entries of one folder that are looked at.
const ENTRIES_MAX: usize = 16;

/// Longest file that makes sense.
const FILE_BYTES_MAX: u64 = 4_096;

/// Bit 0 of a Raspberry Pi's `get_throttled`: under-voltage now (raspberrypi.com, vcgencmd).
const UNDERVOLTAGE_NOW: u32 = 1;

/// One look at the box. None: this machine does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The hottest zone of processor or board, °C.
    pub heat_cel: Option<f64>,
    pub undervoltage: Option<bool>,
    /// Whether mains power is there.
    pub mains: Option<bool>,
    /// Charge of the battery or UPS, percent.
    pub battery_pct: Option<u8>,
    /// Used life of the flash, percent, in steps of ten (JEDEC eMMC 5.1, `EXT_CSD` 268 and 269).
    pub flash_used_pct: Option<u8>,
    /// The flash's own word that its spare blocks run out: 1 normal, 2 warning, 3 urgent (`EXT_CSD` 267).
    pub flash_end: Option<u8>,
    pub memory_free_pct: Option<u8>,
    pub load_1min: Option<f64>,
    pub lid_open: Option<bool>,
    pub modem: Option<Modem>,
}

impl Reading {
    /// Looks at the files that every machine may have.
    pub fn take(roots: &Roots) -> Self {
        let supplies = supplies(&roots.sys);
        let (flash_used_pct, flash_end) = flash(&roots.sys);
        Self {
            heat_cel: heat(&roots.sys),
            undervoltage: undervoltage(&roots.sys),
            mains: supplies.0,
            battery_pct: supplies.1,
            flash_used_pct,
            flash_end,
            memory_free_pct: memory(&roots.proc),
            load_1min: text(&roots.proc.join("loadavg"))
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
            lid_open: None,
            modem: None,
        }
    }
}

/// What a file of the kernel holds, without the blanks around it.
pub(super) fn text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

pub(super) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// Entries of a folder whose names begin so, in the order of their names.
fn entries(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let paths = found.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| named(path, beginning)).collect();
    paths.sort();
    paths.truncate(ENTRIES_MAX);
    paths
}

fn heat(sys: &Path) -> Option<f64> {
    let zones = entries(&sys.join("class/thermal"), "thermal_zone");
    let milli = zones.iter().filter_map(|zone| number::<i32>(&zone.join("temp")));
    // A sensor that is not there says 0 or nonsense.
    let sound = milli.filter(|milli| (-40_000..=150_000).contains(milli) && *milli != 0);
    sound.max().map(|milli| f64::from(milli) / 1_000.0)
}

fn named(path: &Path, beginning: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(beginning))
}

fn undervoltage(sys: &Path) -> Option<bool> {
    for soc in entries(&sys.join("devices/platform/soc"), "soc:") {
        // Hexadecimal, with or without 0x.
        let throttled = text(&soc.join("get_throttled"))
            .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        if let Some(bits) = throttled {
            return Some(bits & UNDERVOLTAGE_NOW != 0);
        }
    }
    let monitors = entries(&sys.join("class/hwmon"), "hwmon");
    monitors.iter().find_map(|monitor| number::<u8>(&monitor.join("in0_lcrit_alarm"))).map(|alarm| alarm != 0)
}

fn supplies(sys: &Path) -> (Option<bool>, Option<u8>) {
    let (mut mains, mut battery, mut stored) = (None, None, false);
    for supply in entries(&sys.join("class/power_supply"), "") {
        // The battery of a mouse or a headset.
        if text(&supply.join("scope")).as_deref() == Some("Device") {
            continue;
        }
        let kind = text(&supply.join("type"));
        match kind.as_deref() {
            Some("Mains" | "USB" | "UPS") => {
                stored |= kind.as_deref() == Some("UPS");
                let online = number::<u8>(&supply.join("online")).map(|online| online != 0);
                // Power from any input is power.
                mains = match (mains, online) {
                    (Some(before), Some(online)) => Some(before || online),
                    (known, online) => known.or(online),
                };
            }
            Some("Battery") if number::<u8>(&supply.join("present")) != Some(0) => {
                stored = true;
                let charge = number::<u8>(&supply.join("capacity")).map(|percent| percent.min(100));
                battery = battery.or(charge);
            }
            _ => {}
        }
    }
    // A box that runs has power: without a store of it an input that is not online is merely not used.
    (mains.filter(|mains| *mains || stored), battery)
}

fn flash(sys: &Path) -> (Option<u8>, Option<u8>) {
    let (mut used, mut end) = (None, None);
    for host in entries(&sys.join("class/mmc_host"), "mmc") {
        for card in entries(&host, "mmc") {
            let steps = text(&card.join("life_time"))
                .into_iter()
                .flat_map(|line| line.split_whitespace().filter_map(hexadecimal).collect::<Vec<u8>>());
            // 1 is 0 to 10 %, 10 is 90 to 100 %, 11 is beyond; 0 is not told.
            let worst = steps.filter(|step| (1..=11).contains(step)).max();
            used = used.max(worst.map(|step| step.saturating_mul(10).min(100)));
            let told = text(&card.join("pre_eol_info")).as_deref().and_then(hexadecimal);
            end = end.max(told.filter(|level| (1..=3).contains(level)));
        }
    }
    (used, end)
}

fn hexadecimal(text: &str) -> Option<u8> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

fn memory(proc: &Path) -> Option<u8> {
    let info = text(&proc.join("meminfo"))?;
    let kib = |name: &str| -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let percent = kib("MemAvailable")?.saturating_mul(100).checked_div(kib("MemTotal")?)?;
    u8::try_from(percent.min(100)).ok()
}
