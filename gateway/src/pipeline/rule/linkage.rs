//! What rules let devices do, as far as `check` can judge it: each action by itself, and rules that would call each other
//! for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rules;
use super::config::RuleConfig;
use crate::model::check::Problem;
use crate::model::ids::{DeviceId, RuleName};
use crate::pipeline::action::spec::{Cause, warn_cloud_only};
use crate::pipeline::action::{ACTION_EXPIRED, ACTION_WITHHELD};
use crate::pipeline::directory::Directory;

/// What is wrong with the actions of one rule, or a person should know of them. Paths start at the rule.
pub(super) fn problems(config: &RuleConfig, directory: &Directory) -> Vec<Problem> {
    let cause = Cause {
        category: config.raise.category,
        severity: config.raise.severity,
        event: config.on.event.as_deref(),
    };
    let mut out = Vec::new();
    for (index, spec) in config.actions.iter().enumerate() {
        out.extend(spec.problems(cause, directory).into_iter().map(|mut problem| {
            problem.path.splice(0..0, ["do".to_owned(), index.to_string()]);
            problem
        }));
    }
    let this = [(&config.name, config.raise.severity, config.actions.as_slice())];
    out.extend(warn_cloud_only(this, directory).into_iter().map(|(_, message)| {
        let hint = "add a speaker on the local network, or a siren at a relay";
        Problem::warning(&["do"], message).hint(hint)
    }));
    out
}

/// Rules whose actions cause what they watch, over others or at once: each circle is told at its first rule.
pub(super) fn loops(rules: &Rules, directory: &Directory) -> Vec<(RuleName, Problem)> {
    let acting: Vec<&RuleConfig> = rules.configs().filter(|config| !config.actions.is_empty()).collect();
    let calls = calls(rules, directory, &acting);
    let mut out = Vec::new();
    for (first, config) in acting.iter().enumerate() {
        let Some(between) = circle(&calls, first) else { continue };
        let names: Vec<&str> = between
            .iter()
            .filter_map(|index| acting.get(*index))
            .map(|config| config.name.as_str())
            .collect();
        let name = &config.name;
        let message = if names.is_empty() {
            format!("rule {name} acts on what it watches itself: it would call itself for ever")
        } else {
            format!("rules {name} and {} would call each other for ever", names.join(", "))
        };
        let hint = "let one of them act on other devices, or watch another event";
        out.push((name.clone(), Problem::error(&["do"], message).hint(hint)));
    }
    out
}

/// The shortest way from a rule back to it over later ones: those between.
fn circle(calls: &[BTreeSet<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(from) = open.pop_front() {
        for to in calls.get(from)?.iter().copied().filter(|to| *to >= start) {
            if to == start {
                let back = std::iter::successors(Some(from), |at| came_from.get(at).copied());
                let mut between: Vec<usize> = back.take_while(|at| *at != start).collect();
                between.reverse();
                return Some(between);
            }
            if !came_from.contains_key(&to) {
                came_from.insert(to, from);
                open.push_back(to);
            }
        }
    }
    None
}

/// For each of these rules, those that what it does may call.
fn calls(rules: &Rules, directory: &Directory, acting: &[&RuleConfig]) -> Vec<BTreeSet<usize>> {
    let mut by_event: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut by_point: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, config) in acting.iter().enumerate() {
        config.on.event.iter().for_each(|event| by_event.entry(event).or_default().push(index));
        config.on.point.iter().for_each(|point| by_point.entry(point.as_str()).or_default().push(index));
    }
    let watching = |watchers: Option<&Vec<usize>>, device: &DeviceId| -> Vec<usize> {
        let watches = |index: &usize| {
            let watched = acting.get(*index).and_then(|config| rules.watched_by(&config.name));
            watched.is_some_and(|watched| watched.contains(device))
        };
        watchers.into_iter().flatten().copied().filter(watches).collect()
    };
    let called = |config: &&RuleConfig| {
        // What is not done for its own reasons is an event too, of the box.
        let own = [ACTION_EXPIRED, ACTION_WITHHELD].into_iter().filter_map(|event| by_event.get(event));
        let mut called: BTreeSet<usize> = own.flatten().copied().collect();
        for spec in &config.actions {
            for (device, event) in spec.events_it_may_cause(directory) {
                called.extend(watching(by_event.get(event.as_str()), &device));
            }
            if let Some(relay) = &spec.relay {
                let watchers = by_point.get(relay.point.as_str());
                called.extend(spec.candidates(directory).flat_map(|(id, _)| watching(watchers, id)));
            }
        }
        called
    };
    acting.iter().map(called).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found_once_and_by_the_shortest_way() {
        let calls = |edges: &[(usize, usize)]| {
            let mut calls = vec![BTreeSet::new(); 5];
            edges.iter().for_each(|(from, to)| drop(calls[*from].insert(*to)));
            calls
        };
        let found = |edges: &[(usize, usize)]| -> Vec<(usize, Vec<usize>)> {
            let calls = calls(edges);
            (0..5).filter_map(|start| Some((start, circle(&calls, start)?))).collect()
        };
        assert_eq!(found(&[(0, 1), (1, 2), (0, 2)]), []);
        assert_eq!(found(&[(3, 3)]), [(3, vec![])]);
        assert_eq!(found(&[(1, 2), (2, 4), (4, 1), (2, 1)]), [(1, vec![2])]);
        assert_eq!(found(&[(0, 2), (2, 3), (3, 0)]), [(0, vec![2, 3])]);
    }
}
