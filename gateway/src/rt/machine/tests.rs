//! A made-up /sys and /proc.

use std::fs;
use std::path::Path;

use super::state::State;
use super::*;
use crate::model::ids::BootId;
use crate::model::record::{Body, Draft};
use crate::model::stamp::{ClockTrust, Stamp};

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn roots(root: &Path) -> Roots {
    Roots { sys: root.join("sys"), proc: root.join("proc") }
}

fn pi(root: &Path) {
    put(root, "sys/class/thermal/thermal_zone0/temp", "61234\n");
    put(root, "sys/class/thermal/thermal_zone1/temp", "0\n");
    put(root, "sys/class/thermal/cooling_device0/temp", "99000\n");
    put(root, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n");
    put(root, "sys/class/power_supply/ac/type", "Mains\n");
    put(root, "sys/class/power_supply/ac/online", "1\n");
    put(root, "sys/class/power_supply/ups/type", "Battery\n");
    put(root, "sys/class/power_supply/ups/capacity", "87\n");
    put(root, "sys/class/mmc_host/mmc0/mmc0:0001/life_time", "0x02 0x04\n");
    put(root, "sys/class/mmc_host/mmc0/mmc0:0001/pre_eol_info", "0x01\n");
    put(root, "proc/meminfo", "MemTotal:        1000000 kB\nMemFree: 1 kB\nMemAvailable:     420000 kB\n");
    put(root, "proc/loadavg", "0.52 0.40 0.30 1/234 5678\n");
}

#[test]
fn what_the_kernel_says_is_read() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Reading::take(&roots(root.path())), Reading::default(), "an empty machine says nothing");
    pi(root.path());
    let expected = Reading {
        heat_cel: Some(61.234),
        undervoltage: Some(false),
        mains: Some(true),
        battery_pct: Some(87),
        flash_used_pct: Some(40),
        flash_end: Some(1),
        memory_free_pct: Some(42),
        load_1min: Some(0.52),
    };
    assert_eq!(Reading::take(&roots(root.path())), expected);
    put(root.path(), "sys/devices/platform/soc/soc:firmware/get_throttled", "0x50005\n");
    assert_eq!(Reading::take(&roots(root.path())).undervoltage, Some(true));
}

#[test]
fn what_is_looked_for_is_found_among_many_entries() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..20 {
        put(root.path(), &format!("sys/class/thermal/cooling_device{number}/type"), "Processor\n");
        put(root.path(), &format!("sys/devices/platform/soc/fe{number:02}0000.serial/uevent"), "\n");
        put(root.path(), &format!("sys/class/mmc_host/mmc0/a{number:02}"), "\n");
    }
    pi(root.path());
    let reading = Reading::take(&roots(root.path()));
    assert_eq!((reading.heat_cel, reading.undervoltage), (Some(61.234), Some(false)));
    assert_eq!(reading.flash_used_pct, Some(40));
}

#[test]
fn mains_are_lost_only_where_something_else_gives_power() {
    let root = tempfile::tempdir().unwrap();
    let mains = || Reading::take(&roots(root.path())).mains;
    put(root.path(), "sys/class/power_supply/usb/type", "USB\n");
    put(root.path(), "sys/class/power_supply/usb/online", "0\n");
    put(root.path(), "sys/class/power_supply/mouse/type", "Battery\n");
    put(root.path(), "sys/class/power_supply/mouse/scope", "Device\n");
    put(root.path(), "sys/class/power_supply/bay/type", "Battery\n");
    put(root.path(), "sys/class/power_supply/bay/present", "0\n");
    assert_eq!(mains(), None, "an input that is not used");
    put(root.path(), "sys/class/power_supply/bay/present", "1\n");
    assert_eq!(mains(), Some(false));
    put(root.path(), "sys/class/power_supply/usb/online", "1\n");
    assert_eq!(mains(), Some(true));
}

#[test]
fn nonsense_of_the_kernel_is_no_value() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "sys/class/thermal/thermal_zone0/temp", "-273150000\n");
    put(root.path(), "sys/class/mmc_host/mmc0/mmc0:0001/life_time", "0x00 0xff\n");
    put(root.path(), "sys/class/power_supply/x/type", "Mains\n");
    put(root.path(), "sys/class/power_supply/x/online", "maybe\n");
    put(root.path(), "proc/meminfo", "MemTotal: 0 kB\nMemAvailable: 1 kB\n");
    put(root.path(), "proc/loadavg", "\n");
    put(root.path(), "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n");
    let expected = Reading { undervoltage: Some(true), ..Reading::default() };
    assert_eq!(Reading::take(&roots(root.path())), expected);
}

fn at(mono_ms: u64) -> Stamp {
    Stamp { boot: BootId("a".into()), mono_ms, wall_ms: 0, trust: ClockTrust::None }
}

fn names(drafts: &[Draft]) -> Vec<String> {
    let name = |draft: &Draft| match &draft.body {
        Body::Event(event) => event.name.clone(),
        Body::Telemetry(telemetry) => format!("{} values", telemetry.samples.len()),
        _ => "other".to_owned(),
    };
    drafts.iter().map(name).collect()
}

/// What each look tells, a minute apart, if each is stored.
fn told(looks: &[Reading]) -> Vec<Vec<String>> {
    let (mut state, config) = (State::default(), MachineConfig::default());
    let look = |(minute, look): (u64, &Reading)| {
        let (drafts, next) = state.after(look, &config, &at(minute * 60_000));
        state = next.state;
        names(&drafts)
    };
    (0..).zip(looks).map(look).collect()
}

fn heat(cel: f64) -> Reading {
    Reading { heat_cel: Some(cel), ..Reading::default() }
}

#[test]
fn heat_has_a_hysteresis() {
    let told = told(&[70.0, 79.9, 80.0, 81.0, 76.0, 79.0, 74.9, 79.9].map(heat));
    let (hot, cooled) = (vec!["box.hot", "1 values"], vec!["box.cooled", "1 values"]);
    assert!(told[0].is_empty());
    assert_eq!(told[2], hot);
    assert_eq!(told[6], cooled);
    assert_eq!(told.iter().filter(|drafts| !drafts.is_empty()).count(), 2);
}

#[test]
fn power_is_told_when_two_looks_agree() {
    let mains = |mains| Reading { mains: Some(mains), ..Reading::default() };
    let told = told(&[true, false, true, false, false, false, true, true].map(mains));
    let events: Vec<_> = told.iter().map(|drafts| drafts.first().map_or("", String::as_str)).collect();
    assert_eq!(events, ["", "", "", "", "box.mains_lost", "", "", "box.mains_restored"]);
}

#[test]
fn what_is_well_after_a_start_is_told_once() {
    let look = |mains, heat, free| Reading {
        mains: Some(mains),
        heat_cel: Some(heat),
        memory_free_pct: Some(free),
        undervoltage: Some(false),
        ..Reading::default()
    };
    // The mains flicker at the fifth minute, and heat and memory are between their limits for a while.
    let mut looks = vec![look(true, 78.0, 7); 12];
    looks[4] = look(false, 78.0, 7);
    looks[8..].fill(look(true, 60.0, 50));
    let told = told(&looks);
    let events: Vec<(usize, &str)> = (0..)
        .zip(&told)
        .flat_map(|(minute, names)| names.iter().map(move |name| (minute, name.as_str())))
        .filter(|(_, name)| name.starts_with("box."))
        .collect();
    let expected = [
        (5, "box.voltage_restored"),
        (6, "box.mains_restored"),
        (8, "box.cooled"),
        (8, "box.memory_restored"),
    ];
    assert_eq!(events, expected);
}

#[test]
fn worn_flash_is_told_once() {
    let flash = |used| Reading { flash_used_pct: Some(used), ..Reading::default() };
    let told = told(&[80, 90, 100, 80].map(flash));
    assert_eq!(told[1], ["box.flash_worn", "1 values"]);
    assert!(told[2].is_empty() && told[3].is_empty(), "{told:?}");
    let warned = Reading { flash_end: Some(2), ..Reading::default() };
    assert_eq!(self::told(&[warned])[0][0], "box.flash_worn");
}

#[test]
fn values_are_told_on_change_and_each_hour() {
    let mut looks = vec![heat(50.0); 130];
    looks[30] = heat(54.0);
    let told = told(&looks);
    let minutes: Vec<usize> = (0..looks.len()).filter(|minute| !told[*minute].is_empty()).collect();
    assert_eq!(minutes, [5, 30, 35, 95]);
}

#[test]
fn what_was_not_stored_is_told_again() {
    let (state, config) = (State::default(), MachineConfig::default());
    let (first, _lost) = state.after(&heat(90.0), &config, &at(0));
    let (again, _) = state.after(&heat(90.0), &config, &at(60_000));
    assert_eq!(names(&first), names(&again));
}
