//! What fits, or does not, between a bus, its devices and their profiles: mistakes, and what a person should know. Opens
//! nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Setup;
use super::config::{At, ModbusConfig};
use super::field::Field;
use super::wire::Pace;
use crate::model::check::Problem;
use crate::model::ids::{BusName, DeviceId, PointName, ProfileName};
use crate::model::record::{Category, Severity};
use crate::south::device::DeviceConfig;
use crate::south::profile::{EventRule, Point, Profile};

/// Load of a serial line from which on a warning is told: the rest is for answers that take their time, and for repeats.
const LOAD_WARN_PERCENT: u64 = 80;

/// Units on a serial line; above are reserved (Modbus over Serial Line V1.02, 2.2).
const SERIAL_UNIT_MAX: u8 = 247;

/// Everything about one bus and the devices on it. Devices whose profile is not known are left out: that is told
/// elsewhere.
pub fn problems(
    bus: &BusName,
    config: &ModbusConfig,
    devices: &BTreeMap<DeviceId, DeviceConfig>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Vec<Problem> {
    let mut out = Vec::new();
    let ours: BTreeMap<&DeviceId, (&DeviceConfig, &Profile)> = devices
        .iter()
        .filter(|(_, device)| device.bus.as_ref() == Some(bus))
        .filter_map(|(id, device)| Some((id, (device, profiles.get(&device.profile)?))))
        .collect();
    for (id, (device, profile)) in &ours {
        device_problems(&mut out, (bus, config), id, device, profile);
    }
    out.extend(unsupervised(&ours));
    out.extend(load(bus, config, &ours));
    out
}

fn device_problems(
    out: &mut Vec<Problem>,
    (bus, config): (&BusName, &ModbusConfig),
    id: &DeviceId,
    device: &DeviceConfig,
    profile: &Profile,
) {
    let at = |key| ["devices", id.as_str(), key];
    if profile.modbus.is_none() {
        let message =
            format!("the profile \"{}\" does not speak Modbus, and the bus \"{bus}\" does", device.profile);
        out.push(Problem::error(&at("profile"), message).hint("name a profile with a [modbus] table"));
        return;
    }
    if config.serial_addresses() && device.unit.is_some_and(|unit| unit > SERIAL_UNIT_MAX) {
        let problem = Problem::error(&at("unit"), "units above 247 are reserved on a serial line");
        out.push(problem.hint("units are 1 to 247; 248 to 255 exist on Modbus TCP alone"));
    }
    let offset = u32::from(device.offset.unwrap_or(0));
    let beyond = profile.points.values().any(|point| {
        let first = point.coil.or(point.discrete).or(point.input).or(point.holding).unwrap_or(0);
        u32::from(first) + offset + u32::from(point.words()) > 65_536
    });
    if beyond {
        out.push(Problem::error(&at("offset"), "with it a point lies beyond address 65535"));
    }
}

/// Outputs that release a door of another device, since both stand for the same coil or register: the door is opened as
/// a door, or not at all. Each with that door.
pub fn door_outputs(
    devices: &BTreeMap<DeviceId, DeviceConfig>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> BTreeMap<(DeviceId, PointName), DeviceId> {
    let known =
        || devices.iter().filter_map(|(id, device)| Some((id, device, profiles.get(&device.profile)?)));
    let doors: Vec<(&DeviceId, Cell<'_>)> = known()
        .filter_map(|(id, device, profile)| {
            let output = profile.door.as_ref()?.output.as_ref()?;
            Some((id, cell(device, profile.points.get(output)?)?))
        })
        .collect();
    let mut found = BTreeMap::new();
    for (id, device, profile) in known().filter(|(_, _, profile)| profile.door.is_none()) {
        for (name, point) in profile.points.iter().filter(|(_, point)| point.write) {
            let Some(cell) = cell(device, point) else { continue };
            if let Some((door, _)) = doors.iter().find(|(_, of)| of.overlaps(&cell)) {
                found.insert((id.clone(), name.clone()), (*door).clone());
            }
        }
    }
    found
}

/// What a point stands for on a bus.
#[derive(Debug)]
struct Cell<'a> {
    bus: &'a BusName,
    unit: u8,
    coil: bool,
    addresses: Range<u32>,
}

fn cell<'a>(device: &'a DeviceConfig, point: &Point) -> Option<Cell<'a>> {
    let first = u32::from(point.coil.or(point.holding)?) + u32::from(device.offset.unwrap_or(0));
    let addresses = first..first + u32::from(point.words());
    Some(Cell { bus: device.bus.as_ref()?, unit: device.unit?, coil: point.coil.is_some(), addresses })
}

impl Cell<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        (self.bus, self.unit, self.coil) == (other.bus, other.unit, other.coil)
            && self.addresses.start < other.addresses.end
            && other.addresses.start < self.addresses.end
    }
}

/// Emergency inputs whose wire nobody watches: one warning for each profile, at its first device.
fn unsupervised(ours: &BTreeMap<&DeviceId, (&DeviceConfig, &Profile)>) -> Vec<Problem> {
    let mut found: BTreeMap<&ProfileName, (&DeviceId, usize)> = BTreeMap::new();
    for (id, (device, profile)) in ours {
        let plain = profile.events.values().any(|rule| {
            let point = rule.point.as_ref().and_then(|point| profile.points.get(point));
            urgent(rule) && point.is_some_and(crate::south::profile::Point::unsupervised)
        });
        if plain {
            found.entry(&device.profile).or_insert((id, 0)).1 += 1;
        }
    }
    let told = found.into_iter().map(|(profile, (id, count))| {
        let message = format!("an emergency input of \"{profile}\" is not supervised: a cut wire is not noticed ({count} devices)");
        let problem = Problem::warning(&["devices", id.as_str(), "profile"], message);
        problem.hint("use a loop with an end-of-line resistor and a point with `bands` (docs/devices.md)")
    });
    told.collect()
}

fn urgent(rule: &EventRule) -> bool {
    let category = matches!(rule.category, Category::Emergency | Category::Fire | Category::Fall);
    category && rule.severity >= Some(Severity::Major)
}

/// A serial line that has more to say than its speed allows.
fn load(
    bus: &BusName,
    config: &ModbusConfig,
    ours: &BTreeMap<&DeviceId, (&DeviceConfig, &Profile)>,
) -> Option<Problem> {
    let key = match config.at() {
        At::Serial(_) => "serial",
        At::RtuOverTcp(_) => "rtu_over_tcp",
        At::Tcp(_) | At::Nowhere => return None,
    };
    let percent = load_percent(bus, config, ours)?;
    if percent < LOAD_WARN_PERCENT {
        return None;
    }
    let path = ["buses", bus.as_str(), "modbus", key];
    let exceeds = if percent > 100 { "more than it can carry" } else { "with no room for repeats" };
    let message = format!(
        "the polls of bus \"{bus}\" fill {percent} % of the line at {} baud, {exceeds}",
        config.speed()
    );
    let hint = "poll less often (`poll_ms`), raise `baud`, or share the devices between two lines";
    Some(Problem::warning(&path, message).hint(hint))
}

/// Bytes and silences of all polls against the time there is, in percent.
fn load_percent(
    bus: &BusName,
    config: &ModbusConfig,
    ours: &BTreeMap<&DeviceId, (&DeviceConfig, &Profile)>,
) -> Option<u64> {
    let setup = Setup {
        bus: bus.clone(),
        config: config.clone(),
        devices: ours.iter().map(|(id, (device, _))| ((*id).clone(), (*device).clone())).collect(),
        profiles: ours
            .values()
            .map(|(device, profile)| (device.profile.clone(), Arc::new((*profile).clone())))
            .collect(),
    };
    let field = Field::new(&setup).ok()?;
    let pace = Pace::new(config);
    let share = |job: &super::field::Job| {
        pace.span(&job.block.request()).as_micros() * 1_000 / job.interval.as_micros().max(1)
    };
    let permille: u128 = field.jobs.iter().map(share).sum();
    u64::try_from(permille / 10).ok()
}
