//! Names that a rule uses, held against what there is.

use std::collections::BTreeSet;

use super::catalogue::Catalogue;
use super::config::RuleConfig;
use crate::model::check::Problem;
use crate::model::ids::{DeviceId, PointName, ProfileName};
use crate::pipeline::directory::Directory;

/// Similarity (Jaro-Winkler) from which a name is proposed.
const ALIKE_MIN: f64 = 0.8;

/// What there is.
#[derive(Debug)]
pub(super) struct Names<'a> {
    events: BTreeSet<&'a str>,
    kinds: BTreeSet<&'a str>,
    points: BTreeSet<&'a str>,
    profiles: BTreeSet<&'a str>,
    devices: BTreeSet<&'a str>,
    tags: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn new(catalogue: &'a Catalogue, directory: &'a Directory) -> Self {
        Self {
            events: catalogue.events(),
            kinds: catalogue.kinds(),
            points: catalogue.points(),
            profiles: catalogue.models.keys().map(ProfileName::as_str).collect(),
            devices: directory.devices.keys().map(DeviceId::as_str).collect(),
            tags: directory.devices.values().flat_map(|e| e.tags.iter().map(String::as_str)).collect(),
        }
    }

    pub(super) fn problems(&self, config: &RuleConfig) -> Vec<Problem> {
        let on = &config.on;
        let mut out = Vec::new();
        let mut known = |path: &[&str], what: &str, name: Option<&str>, there: &BTreeSet<&str>| {
            let Some(name) = name.filter(|name| !there.contains(name)) else { return };
            let problem = Problem::error(path, format!("there is no {what} {name:?}"));
            out.push(match nearest(name, there.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem,
            });
        };
        known(&["on", "event"], "event", on.event.as_deref(), &self.events);
        known(&["on", "kind"], "kind", on.kind.as_deref(), &self.kinds);
        known(&["on", "point"], "point", on.point.as_ref().map(PointName::as_str), &self.points);
        known(&["on", "profile"], "profile", on.profile.as_ref().map(ProfileName::as_str), &self.profiles);
        known(&["ends"], "event", config.ends.as_deref(), &self.events);
        for (index, device) in on.devices.iter().enumerate() {
            known(&["on", "devices", &index.to_string()], "device", Some(device.as_str()), &self.devices);
        }
        for (index, tag) in on.tags.iter().enumerate() {
            known(&["on", "tags", &index.to_string()], "device with the tag", Some(tag), &self.tags);
        }
        for (index, event) in config.unless.iter().flat_map(|unless| unless.events.iter().enumerate()) {
            known(&["unless", "events", &index.to_string()], "event", Some(event), &self.events);
        }
        for (trial, steps) in
            config.test.iter().enumerate().map(|(index, trial)| (index.to_string(), &trial.steps))
        {
            for (number, step) in steps.iter().enumerate().map(|(index, step)| (index.to_string(), step)) {
                let path = ["test", &trial, "steps", &number];
                known(&[path.as_slice(), &["event"]].concat(), "event", step.event.as_deref(), &self.events);
                for point in step.points.keys().map(PointName::as_str) {
                    known(
                        &[path.as_slice(), &["points", point]].concat(),
                        "point",
                        Some(point),
                        &self.points,
                    );
                }
            }
        }
        out
    }
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(name: &str, there: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    there
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}
