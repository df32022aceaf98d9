//! Loops: what a rule does makes a device tell what the rule, or another that leads back to it, watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::rules::Rules;
use crate::model::check::Problem;
use crate::model::ids::DeviceId;
use crate::pipeline::directory::Directory;

/// Loops that are told: one slip makes many.
const TOLD_MAX: usize = 8;

/// What leads from one rule to the next: the device and what it tells.
type Cause = (DeviceId, String);

/// Each loop once, at one of its rules.
pub(super) fn problems(rules: &Rules, directory: &Directory) -> Vec<(usize, Problem)> {
    let mut edges: BTreeMap<usize, BTreeMap<usize, Cause>> = rules
        .all
        .iter()
        .enumerate()
        .filter(|(_, rule)| !rule.config.actions.is_empty())
        .map(|(index, _)| (index, caused(rules, index, directory)))
        .collect();
    // Rules that cause no acting rule are in no loop; without them others are not either.
    loop {
        let acting: BTreeSet<usize> =
            edges.iter().filter(|(_, next)| !next.is_empty()).map(|(index, _)| *index).collect();
        let before = edges.len();
        edges.retain(|index, _| acting.contains(index));
        for next in edges.values_mut() {
            next.retain(|index, _| acting.contains(index));
        }
        if edges.len() == before && edges.values().all(|next| !next.is_empty()) {
            break;
        }
    }
    let mut told = BTreeSet::new();
    let mut out = Vec::new();
    for index in edges.keys() {
        let Some(path) = way_back(&edges, *index).filter(|_| !told.contains(index)) else { continue };
        told.extend(path.iter().map(|(index, _)| *index));
        out.push((*index, problem(rules, *index, &path)));
        if out.len() == TOLD_MAX {
            break;
        }
    }
    out
}

/// Rules that this one may set off, each with how.
fn caused(rules: &Rules, index: usize, directory: &Directory) -> BTreeMap<usize, Cause> {
    let mut next = BTreeMap::new();
    for action in rules.get(index).into_iter().flat_map(|rule| &rule.config.actions) {
        for (device, event) in action.events_it_may_cause(directory) {
            let begins = rules.at(&device).and_then(|watched| watched.begins.get(&event));
            for (other, _) in begins.into_iter().flatten() {
                next.entry(*other).or_insert_with(|| (device.clone(), event.clone()));
            }
        }
        let Some(relay) = &action.relay else { continue };
        for (device, _) in action.candidates(directory) {
            let looked = rules.at(device).and_then(|watched| watched.points.get(&relay.point));
            for other in looked.into_iter().flatten() {
                next.entry(*other).or_insert_with(|| (device.clone(), relay.point.as_str().to_owned()));
            }
        }
    }
    next
}

/// The shortest way from a rule back to itself: each rule on it, and what it makes happen.
fn way_back(edges: &BTreeMap<usize, BTreeMap<usize, Cause>>, start: usize) -> Option<Vec<(usize, Cause)>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for next in edges.get(&at)?.keys() {
            if *next == start {
                let mut path = vec![at];
                while let Some(before) = path.last().and_then(|last| came_from.get(last)) {
                    path.push(*before);
                }
                path.reverse();
                let ends = path.iter().skip(1).chain([&start]);
                let step = |(from, to): (&usize, &usize)| Some((*from, edges.get(from)?.get(to)?.clone()));
                return path.iter().zip(ends).map(step).collect();
            }
            if !came_from.contains_key(next) {
                came_from.insert(*next, at);
                waiting.push_back(*next);
            }
        }
    }
    None
}

fn problem(rules: &Rules, index: usize, path: &[(usize, Cause)]) -> Problem {
    let name = |index: usize| rules.get(index).map_or("", |rule| rule.config.name.as_str());
    let steps: Vec<String> = path
        .iter()
        .map(|(rule, (device, what))| format!("{:?} acts, and {device} may tell {what:?}", name(*rule)))
        .collect();
    let message = format!("a loop: {}, which sets off {:?} again", steps.join("; "), name(index));
    Problem::error(&["do"], message).hint("choose devices in `on` whose events no rule of the loop watches")
}
