//! `[care.NAME]`: a household of somebody who lives alone and wants to be looked after.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::{CareName, DeviceId, PointName};
use crate::model::place::Place;
use crate::model::record::{Severity, Value};

use super::super::action::spec::ActionSpec;

/// Signs of life of one household: a flat has a handful of sensors.
pub const SIGNALS_MAX: usize = 16;

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// All households, `[care]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CareConfig {
    pub households: BTreeMap<CareName, Household>,
}

/// One household. Nothing is watched without consent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Household {
    /// Who agreed to this, and when. Without it the section is refused.
    pub consent: Option<Consent>,
    /// Where the household is; the place of the first signal's device if not given.
    pub place: Option<Place>,
    /// What shows that somebody is well: `[[care.NAME.signals]]`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub signals: Vec<Sign>,
    /// So long without any sign means that something may be wrong. Usual are 12, 24 and 48.
    #[serde(default = "default_window_h")]
    #[schemars(range(min = 1, max = 168))]
    pub window_h: u32,
    /// Water that does not stop.
    pub leak: Option<Leak>,
    /// Restless nights.
    pub night: Option<Night>,
    /// When nobody is at home, silence means nothing.
    #[serde(default)]
    pub away: Away,
    /// First stage: what is done to ask whether all is well, at the household's own speaker. Without it the alarm is raised
    /// at once.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub ask: Vec<ActionSpec>,
    /// Second stage: no sign for so long after the question, and the alarm is raised.
    #[serde(default = "default_answer_within_min")]
    #[schemars(range(min = 1, max = 720))]
    pub answer_within_min: u32,
    /// What is done with the alarm.
    #[serde(default, rename = "do")]
    #[schemars(length(max = 8))]
    pub actions: Vec<ActionSpec>,
    /// Severity of the alarm.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// Critical when nobody has acknowledged it for so long; never if not given.
    #[schemars(range(min = 1, max = 1_440))]
    pub escalate_min: Option<u32>,
    /// Codes that the alarm bears for platforms.
    #[serde(default)]
    pub codes: Codes,
}

/// Consent (知情同意): kept, and revocable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The day it was given, `2026-03-01`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub date: String,
    /// Who gave it: `self`, `guardian`, or the number of a paper. Never a name.
    #[schemars(length(min = 1, max = 64))]
    pub by: String,
    /// The day it was taken back: from then on nothing is watched.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub revoked: Option<String>,
}

/// One thing that shows life: an event, or a value that reaches something, grows or changes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The sensor. It needs a heartbeat, so that its silence can be told from nobody being there.
    pub device: DeviceId,
    /// An event of it, for example `contact.opened`.
    pub event: Option<String>,
    /// A value of it.
    pub point: Option<PointName>,
    /// The value becomes this, for example `true`.
    pub equals: Option<Value>,
    /// A meter: its reading has grown by so much since the last sign, for example 0.01 (m³).
    pub grows_by: Option<f64>,
    /// The value differs by so much from what it was at the last sign, for example 50 (W).
    pub changes_by: Option<f64>,
    /// It is the door of the flat: who opens it may be leaving.
    #[serde(default)]
    pub leaves: bool,
}

/// Water that does not stop: flow in every half hour of a day, or too much in a day.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leak {
    /// The meter.
    pub device: DeviceId,
    /// Its reading, in m³.
    pub point: PointName,
    /// More than this in 24 hours is too much, m³.
    #[serde(default = "default_day_max")]
    pub day_max: f64,
    /// Whether flow in each of 48 half hours counts; the meter must then report twice an hour.
    #[serde(default = "default_true")]
    pub every_half_hour: bool,
}

/// The door opened again and again at night, in the site's time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Night {
    /// Begin, `23:00`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// End, `05:00`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
    /// So many openings in one night are too many.
    #[serde(default = "default_openings")]
    #[schemars(range(min = 1, max = 50))]
    pub openings: u16,
}

/// Being away, and back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Away {
    /// Nothing for so long after the door was opened (`leaves`) is taken as having left. 0: never.
    #[schemars(range(max = 1_440))]
    pub quiet_min: u32,
    /// Being away is believed for so long where it was only concluded from the door.
    #[schemars(range(min = 1, max = 720))]
    pub presumed_max_h: u32,
    /// An event by which somebody says that they are leaving: a key, a tag, a button.
    pub leave: Option<Said>,
    /// An event by which somebody says that they are back; any sign of life says it too.
    pub back: Option<Said>,
    /// Being away is believed for so long where it was said.
    #[schemars(range(min = 1, max = 90))]
    pub said_max_d: u32,
}

/// An event of a device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The device.
    pub device: DeviceId,
    /// Its event.
    pub event: String,
}

/// Codes of upstream systems: parameters of the alarm.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Codes {
    /// Contact ID (SIA DC-05); 641 is "senior watch trouble".
    pub contact_id: String,
    /// SIA DC-03; NA is "no activity".
    pub sia: String,
}

impl Default for Away {
    fn default() -> Self {
        Self { quiet_min: 120, presumed_max_h: 24, leave: None, back: None, said_max_d: 30 }
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self { contact_id: "641".to_owned(), sia: "NA".to_owned() }
    }
}

const fn default_window_h() -> u32 {
    24
}

const fn default_answer_within_min() -> u32 {
    30
}

const fn default_severity() -> Severity {
    Severity::Major
}

const fn default_day_max() -> f64 {
    2.0
}

const fn default_openings() -> u16 {
    3
}

const fn default_true() -> bool {
    true
}

impl Household {
    /// Whether somebody agreed, and still does.
    pub fn agreed(&self) -> bool {
        self.consent.as_ref().is_some_and(|consent| consent.revoked.is_none())
    }

    pub(super) fn window_ms(&self) -> u64 {
        u64::from(self.window_h).saturating_mul(HOUR_MS)
    }

    pub(super) fn answer_ms(&self) -> Option<u64> {
        (!self.ask.is_empty()).then(|| u64::from(self.answer_within_min).saturating_mul(MINUTE_MS))
    }

    /// The sensors whose silence matters: those of signs, and the meter of the leak rule.
    pub fn sensors(&self) -> BTreeSet<&DeviceId> {
        self.signals
            .iter()
            .map(|sign| &sign.device)
            .chain(self.leak.iter().map(|leak| &leak.device))
            .collect()
    }

    /// Every device that tells of the life in this household.
    pub fn devices(&self) -> BTreeSet<&DeviceId> {
        let said = [&self.away.leave, &self.away.back].into_iter().flatten().map(|said| &said.device);
        self.sensors().into_iter().chain(said).collect()
    }
}

impl Away {
    pub(super) fn quiet_ms(&self) -> Option<u64> {
        (self.quiet_min > 0).then(|| u64::from(self.quiet_min).saturating_mul(MINUTE_MS))
    }

    pub(super) fn presumed_max_ms(&self) -> u64 {
        u64::from(self.presumed_max_h).saturating_mul(HOUR_MS)
    }

    pub(super) fn said_max_ms(&self) -> u64 {
        u64::from(self.said_max_d).saturating_mul(24 * HOUR_MS)
    }
}

/// Minutes of the day, `HH:MM`.
pub(super) fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| hours.saturating_mul(60).saturating_add(minutes))
}

impl CareConfig {
    /// Devices whose everyday talk stays in the box, whether or not consent still stands: their values, and their events
    /// that call for nobody.
    pub fn private_devices(&self) -> BTreeSet<DeviceId> {
        self.households.values().flat_map(Household::devices).cloned().collect()
    }

    /// Events by which somebody says that they are leaving or back: nobody else is told.
    pub fn away_events(&self) -> BTreeMap<DeviceId, BTreeSet<String>> {
        let mut events: BTreeMap<DeviceId, BTreeSet<String>> = BTreeMap::new();
        for away in self.households.values().map(|household| &household.away) {
            for said in [&away.leave, &away.back].into_iter().flatten() {
                events.entry(said.device.clone()).or_default().insert(said.event.clone());
            }
        }
        events
    }
}
