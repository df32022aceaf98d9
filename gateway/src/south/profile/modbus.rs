//! How a device speaks Modbus, as its profile says it: the `[modbus]` table, the Modbus keys of points, and what can be
//! wrong with them. Addresses are those of the protocol data unit: they start at 0 (a manual's 40001 is `holding = 0`,
//! its 30001 `input = 0`, its 10001 `discrete = 0`, its 00001 `coil = 0`).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EventRule, Point, PointKind, Profile, Trigger};
use crate::model::check::Problem;
use crate::model::record::Severity;

/// Registers of one read (Modbus Application Protocol V1.1b3, 6.3 and 6.4).
pub const READ_REGISTERS_MAX: u16 = 125;

/// Bits of one read (the same, 6.1 and 6.2).
pub const READ_BITS_MAX: u16 = 2_000;

/// Shortest poll: a button needs 5 Hz, and nothing on a line is faster than 50 Hz.
pub const POLL_MS_MIN: u32 = 20;

/// Longest poll: a day.
pub const POLL_MS_MAX: u32 = 86_400_000;

/// Longest debounce: beyond it a press is lost.
const DEBOUNCE_MS_MAX: u32 = 60_000;

/// How a device speaks Modbus.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModbusProfile {
    /// How often it is read, unless the device says otherwise; the bus's `poll_ms` if not given. A press shorter than
    /// this is not seen: 100 for buttons.
    #[schemars(range(min = 20, max = 86_400_000))]
    pub poll_ms: Option<u32>,
    /// A value that does not change is told again after so long.
    #[serde(default = "default_heartbeat_s")]
    #[schemars(range(min = 1, max = 86_400))]
    pub heartbeat_s: u32,
    /// Order of the bytes of values that take more than one register; A is the highest.
    #[serde(default)]
    #[schemars(extend("default" = "ABCD"))]
    pub word_order: WordOrder,
    /// A digital input must hold a new state so long before it counts.
    #[serde(default)]
    #[schemars(range(max = 60_000))]
    pub debounce_ms: u32,
    /// Registers of one read, for devices that cannot give 125 at once.
    #[serde(default = "default_max_registers")]
    #[schemars(range(min = 1, max = 125))]
    pub max_registers: u16,
    /// Bits of one read, for devices that cannot give 2000 at once.
    #[serde(default = "default_max_bits")]
    #[schemars(range(min = 1, max = 2_000))]
    pub max_bits: u16,
    /// Severity of `device.offline`.
    pub severity: Option<Severity>,
}

/// Order of the bytes of a value in its registers; A is the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum WordOrder {
    /// High word first, high byte first: as the standard has it.
    #[default]
    #[serde(rename = "ABCD")]
    Abcd,
    /// Low word first, high byte first.
    #[serde(rename = "CDAB")]
    Cdab,
    /// High word first, low byte first.
    #[serde(rename = "BADC")]
    Badc,
    /// Low word first, low byte first.
    #[serde(rename = "DCBA")]
    Dcba,
}

/// How a contact is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Contact {
    /// Normally open: closed is active.
    No,
    /// Normally closed: open is active, and so is a cut wire.
    Nc,
}

/// A loop with an end-of-line resistor, measured: which values mean what, as `[lowest, highest]` after scale and offset.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bands {
    /// The resistor alone.
    pub normal: [f64; 2],
    /// The contact has moved.
    pub active: [f64; 2],
    /// A cut wire.
    pub open: Option<[f64; 2]>,
    /// A short circuit.
    pub short: Option<[f64; 2]>,
    /// How far beyond its band a value may go before the state changes.
    #[serde(default)]
    pub hysteresis: f64,
}

impl Bands {
    /// The bands that are given, with their keys.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, [f64; 2])> {
        let given = [
            ("normal", Some(self.normal)),
            ("active", Some(self.active)),
            ("open", self.open),
            ("short", self.short),
        ];
        given.into_iter().filter_map(|(key, band)| Some((key, band?)))
    }
}

impl Point {
    /// How many of the keys that say where the value is are written.
    fn places(&self) -> [(&'static str, Option<u16>); 4] {
        [("coil", self.coil), ("discrete", self.discrete), ("input", self.input), ("holding", self.holding)]
    }

    /// Whether it is one bit: of a coil, a discrete input, or a register.
    pub fn is_flag(&self) -> bool {
        let table = self.coil.is_some() || self.discrete.is_some();
        table || self.bit.is_some() || self.kind == Some(PointKind::Bool)
    }

    /// Whether it is a wire whose cut nobody would see.
    pub fn unsupervised(&self) -> bool {
        self.bands.is_none() && self.is_flag()
    }
}

/// Mistakes of a profile that speaks Modbus.
pub(super) fn problems(profile: &Profile, modbus: &ModbusProfile) -> Vec<Problem> {
    let mut out = Vec::new();
    if let Some(poll_ms) = modbus.poll_ms
        && !(POLL_MS_MIN..=POLL_MS_MAX).contains(&poll_ms)
    {
        let message = format!("{poll_ms} ms, allowed is {POLL_MS_MIN} to {POLL_MS_MAX}");
        out.push(Problem::error(&["modbus", "poll_ms"], message));
    }
    if modbus.heartbeat_s == 0 {
        out.push(Problem::error(&["modbus", "heartbeat_s"], "0 seconds would tell every poll"));
    }
    for (key, value, most) in [
        ("max_registers", modbus.max_registers, READ_REGISTERS_MAX),
        ("max_bits", modbus.max_bits, READ_BITS_MAX),
    ] {
        if !(1..=most).contains(&value) {
            out.push(Problem::error(&["modbus", key], format!("{value}, allowed is 1 to {most}")));
        }
    }
    if profile.points.is_empty() {
        out.push(Problem::error(&["modbus"], "there is no point to read").hint("add [points.NAME]"));
    }
    for (name, point) in &profile.points {
        check_point(&mut out, name.as_str(), point);
    }
    let widest = profile.points.values().map(Point::words).max().unwrap_or(1);
    if widest > modbus.max_registers {
        let message = format!("a point takes {widest} registers, and no value is divided between reads");
        out.push(Problem::error(&["modbus", "max_registers"], message));
    }
    for (name, rule) in &profile.events {
        check_rule(&mut out, profile, name, rule);
    }
    out
}

fn check_point(out: &mut Vec<Problem>, name: &str, point: &Point) {
    let path = ["points", name];
    let at = |key| ["points", name, key];
    let places: Vec<&str> =
        point.places().into_iter().filter_map(|(key, place)| place.map(|_| key)).collect();
    if point.pointer.is_some() {
        out.push(Problem::error(&at("pointer"), "`pointer` is for devices that speak MQTT"));
    }
    if places.len() != 1 {
        let problem = Problem::error(&path, "a point has one place in the device");
        out.push(problem.hint("write one of `coil`, `discrete`, `input`, `holding` with its address from 0"));
        return;
    }
    let bits = point.coil.is_some() || point.discrete.is_some();
    if bits && point.bit.is_some() {
        out.push(Problem::error(&at("bit"), "a coil or discrete input is one bit already"));
    }
    if point.bit.is_some_and(|bit| bit > 15) {
        out.push(Problem::error(&at("bit"), "a register has bits 0 to 15"));
    }
    let flag = point.is_flag();
    match point.kind {
        Some(PointKind::Text | PointKind::Number | PointKind::Integer) => {
            let problem = Problem::error(&at("type"), "registers have no such type");
            out.push(problem.hint("write bool, u16, i16, u32, i32, u64, i64, f32 or f64"));
        }
        Some(kind) if kind != PointKind::Bool && flag => {
            out.push(Problem::error(&at("type"), "one bit is of type bool"));
        }
        _ => {}
    }
    flag_keys(out, name, point, flag);
    let registers = point.words();
    let first = point.places().into_iter().find_map(|(_, place)| place).unwrap_or(0);
    if usize::from(first) + usize::from(registers) > 65_536 {
        out.push(Problem::error(&path, "the value would reach beyond address 65535"));
    }
    if point.word_order.is_some() && registers < 2 {
        // One register still has two bytes: BADC and DCBA mean something, the others do not.
        let swapped = matches!(point.word_order, Some(WordOrder::Badc | WordOrder::Dcba));
        if flag || !swapped {
            out.push(Problem::error(&at("word_order"), "the value takes one register"));
        }
    }
    if point.write && (point.discrete.is_some() || point.input.is_some()) {
        out.push(Problem::error(&at("write"), "only coils and holding registers can be written"));
    }
    if point.write && (point.bit.is_some() || point.bands.is_some()) {
        let hint = "write the whole register, or a coil";
        out.push(Problem::error(&at("write"), "a bit of a register cannot be written alone").hint(hint));
    }
    if let Some(bands) = &point.bands {
        check_bands(out, name, bands);
    }
}

/// Keys that only numbers have, and those that only digital inputs have.
fn flag_keys(out: &mut Vec<Problem>, name: &str, point: &Point, flag: bool) {
    let at = |key| ["points", name, key];
    let numeric = [
        ("scale", point.scale.is_some()),
        ("offset", point.offset.is_some()),
        ("min", point.min.is_some()),
        ("max", point.max.is_some()),
        ("deadband", point.deadband.is_some()),
        ("bands", point.bands.is_some()),
    ];
    for (key, _) in numeric.into_iter().filter(|(_, written)| *written && flag) {
        out.push(Problem::error(&at(key), format!("`{key}` is for numbers, and this is one bit")));
    }
    if point.contact.is_some() && !flag {
        let problem = Problem::error(&at("contact"), "`contact` is for one bit");
        out.push(problem.hint("write `bands` for a loop that is measured"));
    }
    if point.debounce_ms.is_some() && !flag && point.bands.is_none() {
        out.push(Problem::error(&at("debounce_ms"), "`debounce_ms` is for digital inputs"));
    }
    if point.debounce_ms.is_some_and(|ms| ms > DEBOUNCE_MS_MAX) {
        out.push(Problem::error(&at("debounce_ms"), format!("at most {DEBOUNCE_MS_MAX} ms")));
    }
    if point.heartbeat_s == Some(0) {
        out.push(Problem::error(&at("heartbeat_s"), "0 seconds would tell every poll"));
    }
    if point.scale.is_some_and(|scale| !scale.is_normal()) {
        out.push(Problem::error(&at("scale"), "no factor"));
    }
    for (key, value) in [("offset", point.offset), ("min", point.min), ("max", point.max)] {
        if value.is_some_and(|value| !value.is_finite()) {
            out.push(Problem::error(&at(key), "not a number"));
        }
    }
    if point.deadband.is_some_and(|deadband| !deadband.is_finite() || deadband < 0.0) {
        out.push(Problem::error(&at("deadband"), "a deadband is 0 or more"));
    }
    if let (Some(min), Some(max)) = (point.min, point.max)
        && min > max
    {
        out.push(Problem::error(&at("min"), format!("min {min} is above max {max}")));
    }
}

fn check_bands(out: &mut Vec<Problem>, name: &str, bands: &Bands) {
    let path = ["points", name, "bands"];
    if bands.open.is_none() && bands.short.is_none() {
        let problem = Problem::error(&path, "a supervised loop tells a cut wire or a short circuit");
        out.push(problem.hint("add `open` or `short`, as [lowest, highest]"));
    }
    if !bands.hysteresis.is_finite() || bands.hysteresis < 0.0 {
        out.push(Problem::error(&path, "hysteresis is 0 or more"));
    }
    let all: Vec<(&str, [f64; 2])> = bands.all().collect();
    for (index, (key, [low, high])) in all.iter().enumerate() {
        if !low.is_finite() || !high.is_finite() || low > high {
            let path = ["points", name, "bands", *key];
            out.push(Problem::error(&path, "a band is [lowest, highest]"));
        }
        for (other, [other_low, other_high]) in all.iter().skip(index + 1) {
            if low <= other_high && other_low <= high {
                out.push(Problem::error(&path, format!("`{key}` and `{other}` overlap")));
            }
        }
    }
}

fn check_rule(out: &mut Vec<Problem>, profile: &Profile, name: &str, rule: &EventRule) {
    let path = ["events", name];
    let at = |key| ["events", name, key];
    if rule.pointer.is_some() {
        out.push(
            Problem::error(&at("pointer"), "`pointer` is for devices that speak MQTT").hint("write `point`"),
        );
    }
    match &rule.point {
        None => {
            out.push(Problem::error(&path, "the event does not say which point decides").hint("add `point`"));
        }
        Some(point) if !profile.points.contains_key(point) => {
            out.push(Problem::error(&at("point"), format!("the profile has no point {point:?}")));
        }
        Some(_) => {}
    }
    if rule.trigger == Trigger::Pulse {
        let problem =
            Problem::error(&at("trigger"), "a point is read again and again: each poll would be an event");
        out.push(problem.hint("write trigger = \"edge\""));
    }
    for (param, point) in &rule.params {
        if !profile.points.keys().any(|known| known.as_str() == point) {
            let path = ["events", name, "params", param];
            out.push(Problem::error(&path, format!("the profile has no point {point:?}")));
        }
    }
}

const fn default_heartbeat_s() -> u32 {
    300
}

const fn default_max_registers() -> u16 {
    READ_REGISTERS_MAX
}

const fn default_max_bits() -> u16 {
    READ_BITS_MAX
}
