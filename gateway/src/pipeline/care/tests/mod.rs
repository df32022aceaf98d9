//! Care over days and weeks, told by records as the writer brings them.

mod check;
mod line;
mod rules;
mod weeks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::directory::{Abilities, Directory, Entry, PointType};
use super::super::signal::Signal;
use super::super::time::Time;
use super::super::{Now, Out, Part};
use super::{Care, CareConfig, Household};
use crate::model::ids::{BootId, BusName, CareName, DeviceId, Epoch, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, Class, DeviceRef, Draft, Event, Quality, QualityReason, Record, Sample, Telemetry, Value,
};
use crate::model::stamp::{ClockTrust, Stamp};

pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Midnight in China on the first of March 2026.
const MIDNIGHT_MS: i64 = 1_772_294_400_000;

const HOUSEHOLD: &str = r#"
    consent = { date = "2026-03-01", by = "self" }
    window_h = 24
    signals = [
        { device = "meter", point = "volume", grows_by = 0.01 },
        { device = "door", event = "contact.opened", leaves = true },
        { device = "motion", point = "occupancy", equals = true },
    ]
    leak = { device = "meter", point = "volume" }
    night = { from = "23:00", to = "05:00", openings = 3 }
    away = { leave = { device = "tag", event = "home.left" } }
"#;

pub(super) fn household(more: &str) -> Household {
    toml::from_str(&format!("{HOUSEHOLD}{more}")).unwrap()
}

fn entry(kind: &str, heartbeat_s: Option<u32>, points: &[(&str, PointType)], events: &[&str]) -> Entry {
    Entry {
        kind: kind.to_owned(),
        profile: ProfileName::new(kind).unwrap(),
        bus: Some(BusName::new("lan").unwrap()),
        bridge: None,
        place: Place { household: Some("302".to_owned()), ..Place::default() },
        tags: BTreeSet::new(),
        points: points.iter().map(|(name, kind)| (PointName::new(name).unwrap(), *kind)).collect(),
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        heartbeat_s,
        maintenance: false,
        abilities: Abilities::default(),
    }
}

pub(super) fn directory() -> Directory {
    let devices = BTreeMap::from([
        ("meter", entry("meter", Some(600), &[("volume", PointType::Float)], &[])),
        ("door", entry("contact", Some(3_600), &[], &["contact.opened", "contact.closed"])),
        ("motion", entry("motion", Some(3_600), &[("occupancy", PointType::Bool)], &[])),
        ("key", entry("button", None, &[], &["button.pressed"])),
        ("tag", entry("switch", None, &[], &["home.left", "home.returned"])),
    ]);
    let devices = devices.into_iter().map(|(id, entry)| (DeviceId::new(id).unwrap(), entry)).collect();
    Directory { devices }
}

/// What came of it: minutes since the begin, and what.
pub(super) type Told = (u64, String);

/// A box with one household, its pipeline's clock, and what stands in its journal.
pub(super) struct Site {
    pub(super) care: Care,
    config: CareConfig,
    time: Option<Time>,
    at: Stamp,
    /// Milliseconds since the begin, whatever clocks say.
    pub(super) real_ms: u64,
    pub(super) rows: BTreeMap<String, String>,
    pub(super) told: Vec<Told>,
    /// Sensors that speak by themselves, and when next.
    beats: BTreeMap<&'static str, u64>,
    pub(super) meter: f64,
    pub(super) drafts: Vec<Draft>,
    /// What alarms and records tell whoever may see the category.
    pub(super) leaving: Vec<Event>,
    boots: u32,
}

impl Site {
    pub(super) fn new(household: Household) -> Self {
        let households = BTreeMap::from([(CareName::new("b3-302").unwrap(), household)]);
        let config = CareConfig { households };
        let at =
            Stamp { boot: BootId("a".into()), mono_ms: 5_000, wall_ms: MIDNIGHT_MS, trust: ClockTrust::Ntp };
        let care = Care::new(config.clone(), Arc::new(directory()));
        let beats = BTreeMap::from([("meter", 0), ("door", 0), ("motion", 0)]);
        let mut site = Self {
            care,
            config,
            time: None,
            at,
            real_ms: 0,
            rows: BTreeMap::new(),
            told: Vec::new(),
            beats,
            meter: 100.0,
            drafts: Vec::new(),
            leaving: Vec::new(),
            boots: 0,
        };
        site.beat();
        site
    }

    /// As `Pipeline::apply` and a commit.
    fn tell(&mut self, id: &str, body: Option<Body>, test: bool) {
        let time = match &self.time {
            Some(time) => time.after(&self.at),
            None => Time::begin(&self.at),
        };
        if let Some(before) = self.time.replace(time.clone()) {
            self.care.passed(before.t_ms, time.t_ms);
        }
        let mut signals = Vec::new();
        let mut out = Out::default();
        let mut asks = Vec::new();
        let present = Now { t_ms: time.t_ms, at: self.at.clone() };
        self.care.begin(&present, &mut signals, &mut out);
        while let Some((due, key)) = self.care.next_due().filter(|(due, _)| *due <= time.t_ms) {
            let now = Now { t_ms: due.min(time.t_ms), at: time.stamp_of(due) };
            asks.extend(self.care.fire(&now, &key, &mut signals));
        }
        let now = present;
        let body = body.unwrap_or_else(|| event_of(DeviceRef::gateway(None), "pipeline.tick"));
        let record =
            Record { pos: 1, epoch: Epoch(1), class: Class::Event, seq: 1, at: self.at.clone(), test, body };
        self.care.apply(&now, &record, 480, &mut signals);
        let minute = self.real_ms / MINUTE;
        self.told.extend(asks.iter().map(|ask| (minute, format!("ask {}", ask.household))));
        self.told.extend(signals.iter().map(|signal| (minute, words(signal))));
        self.leaving.extend(signals.iter().filter_map(|signal| match signal {
            Signal::Raise(raise) => Some(raise.condition.clone()),
            Signal::Clear(_) => None,
        }));
        self.leaving.extend(out.drafts.iter().filter_map(|draft| match &draft.body {
            Body::Event(event) => Some(event.as_ref().clone()),
            _ => None,
        }));
        self.drafts.extend(out.drafts);
        let mut rows = Vec::new();
        self.care.unsaved(&mut rows);
        for (key, value) in rows {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.care.commit(true);
        assert!(!id.is_empty());
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.real_ms += ms;
        self.at.mono_ms += ms;
        self.at.wall_ms += i64::try_from(ms).unwrap();
    }

    /// When the pipeline wants to be woken, in real time.
    fn due_real_ms(&self) -> Option<u64> {
        let time = self.time.as_ref()?;
        let (due, _) = self.care.next_due()?;
        Some(self.real_ms + due.saturating_sub(time.t_ms))
    }

    /// Time passes; what speaks by itself speaks, and the writer ticks.
    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.real_ms + ms;
        loop {
            let beat = self.beats.values().min().copied();
            let next = [beat, self.due_real_ms()].into_iter().flatten().min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.pass(next.saturating_sub(self.real_ms));
            if beat.is_some_and(|beat| beat <= self.real_ms) {
                self.beat();
            } else {
                self.tell("gateway", None, false);
            }
        }
        self.pass(end - self.real_ms);
    }

    /// Says what is due to be said by sensors without anything new.
    fn beat(&mut self) {
        let due: Vec<&'static str> =
            self.beats.iter().filter(|(_, at)| **at <= self.real_ms).map(|(id, _)| *id).collect();
        for id in due {
            let every = if id == "meter" { 10 * MINUTE } else { HOUR };
            self.beats.insert(id, self.real_ms + every);
            match id {
                "meter" => self.read_meter(),
                "motion" => self.value("motion", "occupancy", Value::Bool(false)),
                _ => self.event("door", "device.seen"),
            }
        }
    }

    pub(super) fn read_meter(&mut self) {
        self.value("meter", "volume", Value::Float(self.meter));
    }

    /// Water is used, and the meter says so.
    pub(super) fn water(&mut self, volume: f64) {
        self.meter += volume;
        self.read_meter();
    }

    pub(super) fn value(&mut self, id: &str, point: &str, value: Value) {
        let sample = Sample::good(PointName::new(point).unwrap(), value, None);
        self.sample(id, sample);
    }

    pub(super) fn stale(&mut self, id: &str, point: &str, value: Value) {
        let mut sample = Sample::good(PointName::new(point).unwrap(), value, None);
        (sample.quality, sample.reason) = (Quality::Stale, Some(QualityReason::Silent));
        self.sample(id, sample);
    }

    fn sample(&mut self, id: &str, sample: Sample) {
        let telemetry = Telemetry { device: device(id), place: Place::default(), samples: vec![sample] };
        self.tell(id, Some(Body::Telemetry(telemetry)), false);
    }

    pub(super) fn event(&mut self, id: &str, name: &str) {
        self.tell(id, Some(event_of(device(id), name)), false);
    }

    pub(super) fn tested(&mut self, id: &str, name: &str) {
        self.tell(id, Some(event_of(device(id), name)), true);
    }

    pub(super) fn bus(&mut self, name: &str) {
        let device = DeviceRef::gateway(Some(&BusName::new("lan").unwrap()));
        self.tell("gateway", Some(event_of(device, name)), false);
    }

    /// A sensor dies, or is mended.
    pub(super) fn mute(&mut self, id: &'static str) {
        self.beats.remove(id);
    }

    pub(super) fn unmute(&mut self, id: &'static str) {
        self.beats.insert(id, self.real_ms);
    }

    /// The process ends and begins again; so long nobody listens. `boot`: the machine too.
    pub(super) fn restart(&mut self, off_ms: u64, boot: bool) {
        self.pass(off_ms);
        if boot {
            self.boots += 1;
            self.at.boot = BootId(self.boots.to_string().into());
            self.at.mono_ms = 3_000;
        }
        for at in self.beats.values_mut() {
            *at = (*at).max(self.real_ms);
        }
        self.reload(self.config.clone());
    }

    /// The same process begins with another configuration.
    pub(super) fn reload(&mut self, config: CareConfig) {
        self.care = Care::new(config.clone(), Arc::new(directory()));
        self.config = config;
        for (key, value) in &self.rows {
            assert!(self.care.load(key, value), "{key} belongs to nobody");
        }
    }

    pub(super) fn reload_household(&mut self, household: Household) {
        let households = BTreeMap::from([(CareName::new("b3-302").unwrap(), household)]);
        self.reload(CareConfig { households });
    }

    pub(super) fn jump_wall(&mut self, by_ms: i64) {
        self.at.wall_ms += by_ms;
    }

    pub(super) fn distrust(&mut self) {
        self.at.trust = ClockTrust::None;
    }

    pub(super) fn said(&self) -> Vec<(u64, &str)> {
        self.told.iter().map(|(minute, what)| (*minute, what.as_str())).collect()
    }
}

fn device(id: &str) -> DeviceRef {
    let profile = Some(ProfileName::new("any").unwrap());
    DeviceRef { id: DeviceId::new(id).unwrap(), kind: "any".to_owned(), profile, bus: None }
}

fn event_of(device: DeviceRef, name: &str) -> Body {
    Body::Event(Box::new(Event {
        device,
        place: Place::default(),
        category: Category::Access,
        name: name.to_owned(),
        severity: None,
        params: BTreeMap::new(),
        text: None,
    }))
}

fn words(signal: &Signal) -> String {
    match signal {
        Signal::Raise(raise) => format!("raise {} {}", raise.rule, raise.subject),
        Signal::Clear(clear) => format!("clear {} {}", clear.rule, clear.subject),
    }
}
