//! The rules of a configuration, compiled: each with its expressions, and an index by device, so that a record meets only
//! the rules that watch it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::catalogue::{Catalogue, GATEWAY};
use super::config::{On, RuleConfig};
use super::expression::{Expression, Scene, Unanswered};
use crate::model::ids::{DeviceId, PointName, RuleName};
use crate::model::place::Place;
use crate::pipeline::directory::{Directory, Entry};

/// The rules of a configuration.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) all: Vec<Rule>,
    pub(super) by_name: BTreeMap<RuleName, usize>,
    devices: HashMap<DeviceId, Watched>,
    pub(super) gateway: Watched,
    /// Rules that an event explains, wherever it comes from.
    pub(super) explained: HashMap<String, Vec<usize>>,
    /// Who counts what expressions could not answer.
    misfits: OnceLock<Arc<dyn Misfits>>,
}

/// Counts expressions that had no answer, since what they were asked about does not fit them. No part of the fold: whoever
/// folds a record again counts again.
pub trait Misfits: Debug + Send + Sync {
    /// One of this rule.
    fn misfit(&self, rule: &RuleName);
}

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) config: RuleConfig,
    pub(super) when: Option<Expression>,
    pub(super) until: Option<Expression>,
    /// The devices that it selects and that can tell what it watches.
    pub(super) devices: BTreeSet<DeviceId>,
    /// That an expression of it had no answer stands in the log.
    pub(super) warned: AtomicBool,
}

/// What rules watch at one device.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Rules by the event that begins their condition, and whether it lasts.
    pub(super) begins: HashMap<String, Vec<(usize, bool)>>,
    /// Rules by the event that they name as the end.
    pub(super) ends: HashMap<String, Vec<usize>>,
    /// Rules by the points that they look at.
    pub(super) points: HashMap<PointName, Vec<usize>>,
    /// Points whose last value is kept for expressions.
    pub(super) kept: BTreeSet<PointName>,
    /// Rules for which anything that the device says is a sign of life.
    pub(super) anything: Vec<usize>,
}

/// What makes a rule look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger<'a> {
    Event(&'a str),
    Point(&'a PointName),
    /// Whichever of the points that its expression names.
    Points,
    Anything,
}

impl Rule {
    pub(super) fn trigger(&self) -> Trigger<'_> {
        let on = &self.config.on;
        match (&on.event, &on.point) {
            (Some(event), _) => Trigger::Event(event),
            (None, Some(point)) => Trigger::Point(point),
            (None, None) if self.expressions().any(|e| !e.points.is_empty()) => Trigger::Points,
            (None, None) => Trigger::Anything,
        }
    }

    /// What makes it look, in a word.
    pub(super) fn watches(&self) -> &str {
        match self.trigger() {
            Trigger::Event(event) => event,
            Trigger::Point(point) => point.as_str(),
            Trigger::Points => "points",
            Trigger::Anything => "anything",
        }
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.when.iter().chain(&self.until)
    }

    /// Points that it looks at: its own and those that its expressions name.
    fn points(&self) -> BTreeSet<PointName> {
        let named = self.expressions().flat_map(|expression| &expression.points);
        let named = named.filter_map(|name| PointName::new(name).ok());
        named.chain(self.config.on.point.clone()).collect()
    }

    /// Whether a device can tell what it watches.
    fn fits(&self, entry: &Entry) -> bool {
        match self.trigger() {
            Trigger::Event(event) => {
                entry.events.contains(event) || super::catalogue::DEVICE_EVENTS.contains(&event)
            }
            Trigger::Point(point) => entry.points.contains_key(point),
            Trigger::Points => self.points().iter().any(|point| entry.points.contains_key(point)),
            Trigger::Anything => true,
        }
    }

    pub(super) fn watches_gateway(&self) -> bool {
        self.config.on.kind.as_deref() == Some(GATEWAY)
    }
}

/// Whether a device is selected.
pub(super) fn selects(on: &On, id: &DeviceId, entry: &Entry) -> bool {
    let kind = on.kind.as_ref().is_none_or(|kind| *kind == entry.kind);
    let profile = on.profile.as_ref().is_none_or(|profile| *profile == entry.profile);
    let listed = on.devices.is_empty() || on.devices.contains(id);
    kind && profile
        && listed
        && on.tags.iter().all(|tag| entry.tags.contains(tag))
        && lies(&on.place, &entry.place)
}

/// Whether a place is the one that is asked for: what is given must be the same.
fn lies(asked: &Place, place: &Place) -> bool {
    fn same<T: PartialEq>(asked: Option<&T>, here: Option<&T>) -> bool {
        asked.is_none() || asked == here
    }
    same(asked.code.as_ref(), place.code.as_ref())
        && same(asked.grid.as_ref(), place.grid.as_ref())
        && same(asked.building.as_ref(), place.building.as_ref())
        && same(asked.unit.as_ref(), place.unit.as_ref())
        && same(asked.floor.as_ref(), place.floor.as_ref())
        && same(asked.household.as_ref(), place.household.as_ref())
}

impl Rules {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All rules as they were written.
    pub fn configs(&self) -> impl Iterator<Item = &RuleConfig> {
        self.all.iter().map(|rule| &rule.config)
    }

    /// The devices that a rule watches.
    pub fn watched_by(&self, rule: &RuleName) -> Option<&BTreeSet<DeviceId>> {
        self.all.get(*self.by_name.get(rule)?).map(|rule| &rule.devices)
    }

    /// Who counts what expressions cannot answer from now on; the first who is named remains.
    pub fn count_misfits(&self, misfits: Arc<dyn Misfits>) {
        self.misfits.get_or_init(|| misfits);
    }

    /// Rules that take the place of others are counted by the same.
    pub(super) fn follow(&self, before: &Self) {
        if let Some(misfits) = before.misfits.get() {
            self.count_misfits(Arc::clone(misfits));
        }
    }

    /// Whether an expression of a rule holds.
    pub(super) fn answer(
        &self,
        rule: &Rule,
        expression: &Expression,
        scene: &Scene<'_>,
    ) -> Result<bool, Unanswered> {
        let answer = expression.holds(scene);
        if let Err(Unanswered::Misfit(reason) | Unanswered::Beyond(reason)) = &answer {
            let (name, device) = (rule.config.name.as_str(), scene.device.id);
            if !rule.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    rule = name,
                    device,
                    reason,
                    "a condition does not fit what it is asked about"
                );
            }
            if let Some(misfits) = self.misfits.get() {
                misfits.misfit(&rule.config.name);
            }
        }
        answer
    }

    /// The rules that an event of this device begins or ends.
    pub fn watching(&self, device: &DeviceId, event: &str) -> BTreeSet<&RuleName> {
        let Some(watched) = self.devices.get(device) else { return BTreeSet::new() };
        let begins = watched.begins.get(event).into_iter().flatten().map(|(index, _lasts)| index);
        let ends = watched.ends.get(event).into_iter().flatten();
        begins.chain(ends).filter_map(|index| Some(&self.get(*index)?.config.name)).collect()
    }

    pub(super) fn at(&self, device: &DeviceId) -> Option<&Watched> {
        self.devices.get(device)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Rule> {
        self.all.get(index)
    }

    /// Takes a rule in and puts it into the index.
    pub(super) fn add(&mut self, mut rule: Rule, directory: &Directory, catalogue: &Catalogue) {
        let index = self.all.len();
        if rule.watches_gateway() {
            let ended = rule.config.on.event.as_deref().is_some_and(|event| {
                super::catalogue::STANDARD_ENDS.iter().any(|(_, ended)| *ended == event)
            });
            self.gateway.add(&rule, index, ended);
        }
        let selected = directory.devices.iter().filter(|(id, entry)| selects(&rule.config.on, id, entry));
        let fitting: Vec<(&DeviceId, &Entry)> = selected.filter(|(_, entry)| rule.fits(entry)).collect();
        for (id, entry) in &fitting {
            let event = rule.config.on.event.as_deref();
            let ended = event.is_some_and(|event| catalogue.is_ended(&entry.profile, event));
            self.devices.entry((*id).clone()).or_default().add(&rule, index, ended);
        }
        for event in rule.config.unless.iter().flat_map(|unless| &unless.events) {
            self.explained.entry(event.clone()).or_default().push(index);
        }
        rule.devices = fitting.into_iter().map(|(id, _)| id.clone()).collect();
        self.by_name.insert(rule.config.name.clone(), index);
        self.all.push(rule);
    }
}

impl Watched {
    /// `ended`: the device says by itself when the rule's event is over.
    fn add(&mut self, rule: &Rule, index: usize, ended: bool) {
        let ends = rule.config.ends.as_ref();
        match rule.trigger() {
            Trigger::Event(event) => {
                let lasts = ended || ends.is_some();
                self.begins.entry(event.to_owned()).or_default().push((index, lasts));
                if let Some(ends) = ends {
                    self.ends.entry(ends.clone()).or_default().push(index);
                }
            }
            Trigger::Point(_) | Trigger::Points => {
                let points = rule.points();
                if points.len() > 1 || rule.config.on.point.is_none() {
                    self.kept.extend(points.iter().cloned());
                }
                for point in points {
                    self.points.entry(point).or_default().push(index);
                }
            }
            Trigger::Anything => self.anything.push(index),
        }
    }
}
