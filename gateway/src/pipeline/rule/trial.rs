//! `[[rule.test]]`: plays what a test says to the rule, on made-up devices, and holds what comes of it against what must.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalogue::{Catalogue, Model, STANDARD_ENDS};
use super::config::{RuleConfig, Step, Trial, TrialDevice};
use super::engine::Engine;
use super::rules::{Rules, Trigger};
use super::sides::word;
use super::state::needs;
use crate::model::check::Problem;
use crate::model::command::TICK;
use crate::model::ids::{BootId, DeviceId, Epoch, PointName, ProfileName};
use crate::model::place::Place;
use crate::model::record::{Body, Category, Class, DeviceRef, Event, Record, Sample, Telemetry, Value};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::pipeline::directory::{Abilities, Directory, Entry, PointType};
use crate::pipeline::signal::Signal;
use crate::pipeline::{Now, Part};

/// The made-up device.
const IT: &str = "it";

/// Deadlines that one test may fire: a rule that fires more has lost its way.
const DUES_MAX: usize = 10_000;

/// Tests that do not come out as they say, and those that say nothing that could be played.
pub(super) fn problems(config: &RuleConfig, catalogue: &Catalogue) -> Vec<Problem> {
    let mut out = Vec::new();
    for (index, trial) in config.test.iter().enumerate() {
        let index = index.to_string();
        let before = out.len();
        shape(&mut out, trial, &index);
        if out.len() > before {
            continue;
        }
        match Play::new(config, trial, catalogue).map(|play| play.run(trial)) {
            Ok((raised, cleared)) => {
                out.extend(compared(&["test", &index, "raised_s"], &trial.name, &raised, &trial.raised_s));
                out.extend(compared(&["test", &index, "cleared_s"], &trial.name, &cleared, &trial.cleared_s));
            }
            Err(reason) => out.push(Problem::error(&["test", &index], reason)),
        }
    }
    out
}

fn shape(out: &mut Vec<Problem>, trial: &Trial, index: &str) {
    let speaks = |name: &DeviceId| trial.steps.iter().any(|step| step_of(step) == name.as_str());
    for name in trial.devices.keys().filter(|name| !speaks(name)) {
        let path = ["test", index, "devices", name.as_str()];
        out.push(Problem::error(&path, format!("no step is one of the device \"{name}\"")));
    }
    let mut before = 0.0;
    for (number, step) in trial.steps.iter().enumerate() {
        let path = ["test", index, "steps", &number.to_string()];
        if step.at_s < before || !step.at_s.is_finite() {
            out.push(Problem::error(&path, "steps stand in the order of `at_s`"));
        }
        before = step.at_s;
        if step.event.is_some() != step.points.is_empty() {
            out.push(Problem::error(&path, "a step is an `event` or some `points`"));
        }
    }
}

/// The device that a step is of.
fn step_of(step: &Step) -> &str {
    step.device.as_ref().map_or(IT, |id| id.as_str())
}

fn compared(path: &[&str], name: &str, came: &[u64], said: &[f64]) -> Option<Problem> {
    let said: Vec<u64> = said.iter().map(|seconds| ms(*seconds)).collect();
    if came == said {
        return None;
    }
    let word = if path.last() == Some(&"cleared_s") { "ends" } else { "is raised" };
    let message = format!("test {name:?}: it {word} {}, and should {}", told(came), told(&said));
    Some(Problem::error(path, message))
}

#[expect(clippy::cast_precision_loss, reason = "a test lasts weeks at most")]
fn told(times: &[u64]) -> String {
    if times.is_empty() {
        return "never".to_owned();
    }
    let times: Vec<String> = times.iter().map(|ms| format!("{}", *ms as f64 / 1_000.0)).collect();
    format!("at {} s", times.join(", "))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "floats saturate, and weeks fit")]
fn ms(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}

/// One test being played.
#[derive(Debug)]
struct Play {
    engine: Engine,
    directory: Arc<Directory>,
    config: RuleConfig,
    catalogue: Catalogue,
    /// The site's wall clock at the beginning, milliseconds of the day.
    clock_ms: i64,
    on_gateway: bool,
    raised: Vec<u64>,
    cleared: Vec<u64>,
}

impl Play {
    fn new(config: &RuleConfig, trial: &Trial, catalogue: &Catalogue) -> Result<Self, String> {
        let mut config = config.clone();
        // A test is about made-up devices.
        config.on.devices.clear();
        let rule = super::compile::compiled(&config, &mut Vec::new());
        let on_gateway = rule.watches_gateway();
        let names = trial.steps.iter().map(step_of);
        let names: BTreeSet<&str> = names.chain([IT]).collect();
        let mut directory = Directory::default();
        for name in names {
            let id = DeviceId::new(name).map_err(|error| error.to_string())?;
            let facts = trial.devices.get(&id).cloned().unwrap_or_default();
            let steps = trial.steps.iter().filter(|step| step_of(step) == name);
            let entry = entry(&config, &rule.trigger(), &facts, steps, catalogue)?;
            directory.devices.insert(id, entry);
        }
        let begin = trial.clock.or(config.active.map(|hours| hours.from));
        let directory = Arc::new(directory);
        let mut rules = Rules::default();
        rules.add(rule, &directory, catalogue);
        Ok(Self {
            engine: Engine::new(Arc::new(rules), Arc::clone(&directory)),
            directory,
            config,
            catalogue: catalogue.clone(),
            clock_ms: begin.map_or(0, |time| i64::from(time.minutes) * 60_000),
            on_gateway,
            raised: Vec::new(),
            cleared: Vec::new(),
        })
    }

    fn run(mut self, trial: &Trial) -> (Vec<u64>, Vec<u64>) {
        let tick = Event {
            device: DeviceRef::gateway(None),
            place: Place::default(),
            category: Category::Device,
            name: TICK.to_owned(),
            severity: None,
            params: BTreeMap::new(),
            text: None,
        };
        self.record(0, Body::Event(Box::new(tick)));
        for step in &trial.steps {
            let at_ms = ms(step.at_s);
            self.wait(at_ms);
            if let Some(body) = self.body(step) {
                self.record(at_ms, body);
            }
        }
        self.wait(u64::MAX);
        (self.raised, self.cleared)
    }

    fn now(&self, t_ms: u64) -> Now {
        let wall_ms = self.clock_ms.saturating_add(i64::try_from(t_ms).unwrap_or(i64::MAX));
        let at = Stamp { boot: BootId("test".into()), mono_ms: t_ms, wall_ms, trust: ClockTrust::Ntp };
        Now { t_ms, at }
    }

    /// Lets time pass: deadlines fire.
    fn wait(&mut self, until_ms: u64) {
        for _ in 0..DUES_MAX {
            let Some((due_ms, key)) = self.engine.next_due().filter(|(due, _)| *due <= until_ms) else {
                return;
            };
            let mut signals = Vec::new();
            self.engine.passed(due_ms);
            self.engine.fire(&self.now(due_ms), &key, 0, &mut signals);
            self.note(due_ms, signals);
        }
    }

    fn record(&mut self, t_ms: u64, body: Body) {
        let now = self.now(t_ms);
        let at = now.at.clone();
        let class = Class::Event;
        let record = Record { pos: 1, epoch: Epoch(1), class, seq: 1, at, test: false, body };
        let mut signals = Vec::new();
        self.engine.passed(t_ms);
        self.engine.apply(&now, &record, 0, &mut signals);
        self.note(t_ms, signals);
    }

    fn note(&mut self, t_ms: u64, signals: Vec<Signal>) {
        for signal in signals {
            match signal {
                Signal::Raise(_) => self.raised.push(t_ms),
                Signal::Clear(_) => self.cleared.push(t_ms),
            }
        }
    }

    fn body(&self, step: &Step) -> Option<Body> {
        let id = match &step.device {
            Some(id) => id.clone(),
            None => DeviceId::new(IT).ok()?,
        };
        let entry = self.directory.devices.get(&id)?;
        let device = if self.on_gateway && step.device.is_none() {
            DeviceRef::gateway(None)
        } else {
            DeviceRef { id, kind: entry.kind.clone(), profile: Some(entry.profile.clone()), bus: None }
        };
        let place = entry.place.clone();
        let Some(name) = &step.event else {
            let samples = step.points.iter();
            let samples = samples.map(|(point, value)| Sample::good(point.clone(), value.clone(), None));
            return Some(Body::Telemetry(Telemetry { device, place, samples: samples.collect() }));
        };
        let mut params = step.params.clone();
        if let Some(event) =
            self.config.on.event.as_ref().filter(|event| self.ends(&entry.profile, name, event))
        {
            params.insert("clears".to_owned(), Value::Text(event.as_str().into()));
        }
        let (category, name) = (self.config.raise.category, name.clone());
        Some(Body::Event(Box::new(Event {
            device,
            place,
            category,
            name,
            severity: None,
            params,
            text: None,
        })))
    }

    /// Whether a device of this profile says with one event that another is over.
    fn ends(&self, profile: &ProfileName, ending: &str, event: &str) -> bool {
        let by_profile = self.catalogue.models.get(profile).and_then(|model| model.ends.get(ending));
        by_profile.is_some_and(|ended| ended == event) || STANDARD_ENDS.contains(&(ending, event))
    }
}

fn entry<'a>(
    config: &RuleConfig,
    trigger: &Trigger<'_>,
    facts: &TrialDevice,
    steps: impl Iterator<Item = &'a Step> + Clone,
    catalogue: &Catalogue,
) -> Result<Entry, String> {
    let (profile, model) = match facts.profile.as_ref().or(config.on.profile.as_ref()) {
        Some(profile) => {
            let model = catalogue.models.get(profile);
            (
                profile.clone(),
                model.ok_or_else(|| format!("there is no profile {:?}", profile.as_str()))?.clone(),
            )
        }
        None => {
            if let Some((profile, model)) = fitting(config, trigger, steps.clone(), catalogue) {
                (profile.clone(), model.clone())
            } else {
                let kind = config.on.kind.clone().unwrap_or_else(|| "device".to_owned());
                let profile = ProfileName::new("trial").map_err(|error| error.to_string())?;
                (profile, Model { kind, ..Model::default() })
            }
        }
    };
    if facts.profile.is_some()
        && let Some(event) =
            steps.clone().filter_map(|step| step.event.as_ref()).find(|event| !model.tells(event))
    {
        return Err(format!("profile {:?} does not tell {event:?}", profile.as_str()));
    }
    let Model { kind, mut points, mut events, .. } = model;
    for (point, value) in steps.clone().flat_map(|step| &step.points) {
        let told = word(*points.entry(point.clone()).or_insert_with(|| type_of(value)));
        if told != word(type_of(value)) {
            let (point, profile, said) = (point.as_str(), profile.as_str(), word(type_of(value)));
            return Err(format!(
                "the point {point:?} of profile {profile:?} is {told}, and the step says {said}"
            ));
        }
    }
    events.extend(steps.filter_map(|step| step.event.clone()));
    events.extend(config.on.event.clone());
    Ok(Entry {
        kind,
        profile,
        bus: None,
        bridge: None,
        place: facts.place.clone().unwrap_or_else(|| somewhere(config)),
        tags: facts.tags.clone().unwrap_or_else(|| config.on.tags.clone()).into_iter().collect(),
        points,
        events,
        heartbeat_s: None,
        maintenance: false,
        abilities: Abilities::default(),
    })
}

/// The place that a rule selects, with made-up parts where it takes devices of one place together.
fn somewhere(config: &RuleConfig) -> Place {
    let mut place = config.on.place.clone();
    let same = config.unless.as_ref().map(|unless| unless.same);
    for part in [Some(config.per), same].into_iter().flatten().flat_map(needs) {
        let made_up = || Some(IT.to_owned());
        match *part {
            "building" => place.building = place.building.or_else(made_up),
            "unit" => place.unit = place.unit.or_else(made_up),
            "floor" => place.floor = place.floor.or(Some(1)),
            _ => place.household = place.household.or_else(made_up),
        }
    }
    place
}

/// A model that the rule could watch and that can tell all that happens.
fn fitting<'c, 'a>(
    config: &RuleConfig,
    trigger: &Trigger<'_>,
    steps: impl Iterator<Item = &'a Step> + Clone,
    catalogue: &'c Catalogue,
) -> Option<(&'c ProfileName, &'c Model)> {
    let wanted: BTreeSet<&PointName> = steps.clone().flat_map(|step| step.points.keys()).collect();
    let happens: BTreeSet<&str> = steps.filter_map(|step| step.event.as_deref()).collect();
    let fits = |(_, model): &(&ProfileName, &Model)| {
        let kind = config.on.kind.as_ref().is_none_or(|kind| *kind == model.kind);
        let told = match trigger {
            Trigger::Event(event) => model.tells(event),
            Trigger::Point(point) => model.points.contains_key(*point),
            Trigger::Points | Trigger::Anything => true,
        };
        kind && told
    };
    let whole = |(_, model): &(&ProfileName, &Model)| {
        wanted.iter().all(|point| model.points.contains_key(*point))
            && happens.iter().all(|event| model.tells(event))
    };
    let mut all = catalogue.models.iter().filter(fits);
    let first = all.clone().next();
    all.find(whole).or(first)
}

fn type_of(value: &Value) -> PointType {
    match value {
        Value::Bool(_) => PointType::Bool,
        Value::Int(_) => PointType::Int,
        Value::Float(_) => PointType::Float,
        Value::Text(_) => PointType::Text,
    }
}
