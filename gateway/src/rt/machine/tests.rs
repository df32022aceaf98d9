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
    Roots { sys: root.join("sys"), proc: root.join("proc"), mmcli: root.join("mmcli") }
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
        ..Reading::default()
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

/// The machine of which `mmcli` tells that (gateway/tests/fixtures/mmcli).
fn heard(root: &Path, how: &str) -> Roots {
    let mmcli = root.join(how);
    let player = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mmcli/play.sh");
    std::os::unix::fs::symlink(player, &mmcli).unwrap();
    Roots { mmcli, ..roots(root) }
}

#[tokio::test]
async fn a_modem_is_told_as_modemmanager_sees_it() {
    let root = tempfile::tempdir().unwrap();
    let config = ModemConfig { interface: Some("wwan0".into()), ..ModemConfig::default() };
    put(root.path(), "sys/class/net/wwan0/statistics/rx_bytes", "5000000000\n");
    put(root.path(), "sys/class/net/wwan0/statistics/tx_bytes", "70\n");
    let counted = Modem { received_bytes: Some(5_000_000_000), sent_bytes: Some(70), ..Modem::default() };
    let fault = |reason: &str| Modem { fault: Some(reason.into()), ..counted.clone() };
    for (how, expected) in [
        ("connected", Modem { signal_pct: Some(70), ..counted.clone() }),
        ("failed", fault("sim-missing")),
        ("locked", fault("sim-pin")),
        ("none", fault("modem-missing")),
    ] {
        assert_eq!(modem::look(&config, &heard(root.path(), how)).await.unwrap(), expected, "{how}");
    }
}

#[tokio::test]
async fn a_modem_of_which_nothing_is_known_says_why() {
    let root = tempfile::tempdir().unwrap();
    let config = ModemConfig::default();
    for (roots, why) in [
        (
            roots(root.path()),
            "`mmcli` could not be started: is ModemManager installed (apt install modemmanager)?",
        ),
        (
            heard(root.path(), "unheard"),
            "`mmcli` failed: error: couldn't find the ModemManager process in the bus",
        ),
        (heard(root.path(), "nonsense"), "what `mmcli` answered was not understood"),
    ] {
        assert_eq!(modem::look(&config, &roots).await.unwrap_err().to_string(), why);
    }
}

#[test]
fn the_lid_is_what_its_file_says() {
    let root = tempfile::tempdir().unwrap();
    let lid = LidConfig { file: root.path().join("lid"), open: "1".into() };
    assert_eq!(lid.look(), None);
    for (text, open) in [("1\n", Some(true)), ("0\n", Some(false)), ("\n", None), ("10", Some(false))] {
        put(root.path(), "lid", text);
        assert_eq!(lid.look(), open, "{text:?}");
    }
}

/// What each look at the lid tells, a second apart.
fn lid_told(looks: &[Option<bool>]) -> Vec<(usize, String)> {
    let mut lid = lid::Lid::default();
    let mut out = Vec::new();
    for (second, look) in looks.iter().enumerate() {
        let (drafts, next) = lid.after(*look, &at(second as u64 * 1_000));
        lid = next;
        out.extend(names(&drafts).into_iter().map(|name| (second, name)));
    }
    out
}

#[test]
fn a_lid_is_told_when_two_looks_agree() {
    let (open, shut) = (Some(true), Some(false));
    let told = lid_told(&[shut, open, shut, open, open, None, open, shut, shut]);
    assert_eq!(told, [(4, "box.opened".to_owned()), (8, "box.closed".to_owned())]);
    let mut looks = vec![shut; 310];
    looks[5] = None;
    looks[6] = None;
    // Well after five minutes: ends what an earlier process told, if it did.
    let told = lid_told(&looks);
    let expected = [(6, "box.lid_failed"), (8, "box.lid_restored"), (300, "box.closed")];
    assert_eq!(told, expected.map(|(second, name)| (second, name.to_owned())));
}

/// What each look at the modem tells of it, a minute apart.
fn modem_told(modems: &[Modem]) -> Vec<(usize, String)> {
    let config = MachineConfig { modem: Some(ModemConfig::default()), ..MachineConfig::default() };
    let mut state = State::default();
    let mut out = Vec::new();
    for (minute, modem) in modems.iter().enumerate() {
        let look = Reading { modem: Some(modem.clone()), ..Reading::default() };
        let (drafts, next) = state.after(&look, &config, &at(minute as u64 * 60_000));
        state = next.state;
        let events = names(&drafts).into_iter().filter(|name| name.starts_with("box."));
        out.extend(events.map(|name| (minute, name)));
    }
    out
}

#[test]
fn a_weak_signal_and_a_lost_card_are_told() {
    let signal = |percent| Modem { signal_pct: Some(percent), ..Modem::default() };
    let lost = Modem { fault: Some("sim-missing".into()), ..Modem::default() };
    let looks = [70, 19, 25, 19, 19, 25, 29, 30, 30].map(signal);
    let expected = [
        (4, "box.signal_low".to_owned()),
        (5, "box.modem_restored".to_owned()),
        (8, "box.signal_restored".to_owned()),
    ];
    assert_eq!(modem_told(&looks), expected);
    let looks = [signal(70), lost.clone(), signal(70), lost.clone(), lost, signal(70), signal(70)];
    let told = modem_told(&looks);
    assert_eq!(told[0], (4, "box.modem_failed".to_owned()));
    assert!(told.contains(&(6, "box.modem_restored".to_owned())), "{told:?}");
}

#[test]
fn values_of_lid_and_modem_stand_beside_the_others() {
    let modem = Modem {
        signal_pct: Some(70),
        received_bytes: Some(5_000_000_000),
        sent_bytes: None,
        ..Modem::default()
    };
    let look = Reading { lid_open: Some(false), modem: Some(modem), ..Reading::default() };
    let (mut state, config) = (State::default(), MachineConfig::default());
    state = state.after(&look, &config, &at(0)).1.state;
    let (drafts, _) = state.after(&look, &config, &at(300_000));
    let Some(Body::Telemetry(values)) = drafts.last().map(|draft| &draft.body) else { panic!("{drafts:?}") };
    let shown: Vec<String> = values
        .samples
        .iter()
        .map(|sample| format!("{} {:?} {:?}", sample.point, sample.value, sample.unit))
        .collect();
    let expected = [
        "lid_open Some(Bool(false)) None",
        "signal Some(Int(70)) Some(\"%\")",
        "modem_received Some(Int(5000000000)) Some(\"By\")",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_lid_and_an_interface_must_be_possible() {
    let config: MachineConfig =
        toml::from_str("lid = { file = \"gpio\", open = \" \" }\nmodem = { interface = \"../eth0\" }")
            .unwrap();
    let places: Vec<String> = config.problems(&["machine"]).iter().map(|p| p.path.join(".")).collect();
    assert_eq!(places, ["machine.lid.file", "machine.lid.open", "machine.modem.interface"]);
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
