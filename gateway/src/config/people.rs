//! What must fit between households under care, whoever is told of alarms, and the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::assemble::Parts;
use super::{NotifierTable, directory};
use crate::model::check::Problem;
use crate::model::ids::{DeviceId, ProfileName};
use crate::model::record::Severity;
use crate::north::notify::CURSOR_PREFIX;
use crate::pipeline::care;
use crate::pipeline::rule::Rules;
use crate::south::profile::Profile;

/// How grave a profile's event is at most.
fn severity(profile: &Profile, event: &str) -> Option<Severity> {
    let rules = profile.events.iter().filter(|(rule, made)| made.name(rule) == event);
    rules.filter_map(|(_, made)| made.severity).max()
}

/// What sound households, notifiers and the box itself find wrong. `devices` are the names of all devices, also of those
/// with a mistake, which is told elsewhere.
pub(super) fn problems(
    (parts, partial): (&Parts, &Parts),
    devices: &BTreeSet<&str>,
    profiles: &BTreeMap<ProfileName, Profile>,
    rules: &Rules,
) -> Vec<Problem> {
    let known = directory::directory(&partial.devices, &partial.clients, &partial.buses, profiles);
    let exists = |id: &DeviceId| devices.contains(id.as_str());
    let severity =
        |id: &DeviceId, event: &str| severity(profiles.get(&known.devices.get(id)?.profile)?, event);
    let around = care::Around { directory: &known, exists: &exists, severity: &severity, rules };
    let mut out = Vec::new();
    for (name, household) in &parts.care {
        out.extend(care::problems(name, household, around));
    }
    for (name, NotifierTable::Webhook(webhook)) in &parts.notifiers {
        out.extend(webhook.problems(name));
    }
    for name in partial.uplinks.keys().filter(|name| name.as_str().starts_with(CURSOR_PREFIX)) {
        let message =
            format!("names of uplinks do not begin with {CURSOR_PREFIX:?}: notifiers keep their place so");
        out.push(Problem::error(&["uplinks", name.as_str()], message).hint("choose another name"));
    }
    let machine = parts.gateway.iter().map(|gateway| &gateway.machine);
    out.extend(machine.flat_map(|machine| machine.problems(&["gateway", "machine"])));
    out
}
