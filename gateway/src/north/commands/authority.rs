//! What one uplink may order: which commands, and where.

use std::collections::BTreeSet;

use crate::model::check::Problem;
use crate::model::command::Scope;
use crate::model::record::Class;
use crate::north::config::{CommandsConfig, Filter};

use super::Known;

/// The rights of one uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    allowed: Vec<Known>,
    scope: Scope,
}

impl Authority {
    /// From the uplink's configuration. What a platform may not see it may not order either.
    pub fn of(config: &CommandsConfig, filter: &Filter) -> Self {
        let allowed = |known: &Known| config.allow.iter().any(|pattern| known.is_meant(pattern));
        let sees_alarms = filter.classes.as_ref().is_none_or(|classes| classes.contains(&Class::Alarm));
        let categories = filter.categories.as_ref().map(|list| list.iter().copied().collect());
        let scope = Scope {
            buildings: both(config.places.buildings.as_ref(), filter.buildings.as_ref()),
            categories: if sees_alarms { categories } else { Some(BTreeSet::new()) },
        };
        Self { allowed: Known::ALL.into_iter().filter(allowed).collect(), scope }
    }

    pub fn allows(&self, known: Known) -> bool {
        self.allowed.contains(&known)
    }

    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The names of its commands, as `up/state` tells them.
    pub fn names(&self) -> Vec<String> {
        self.allowed.iter().map(|known| known.as_str().to_owned()).collect()
    }
}

fn both(one: Option<&Vec<String>>, other: Option<&Vec<String>>) -> Option<BTreeSet<String>> {
    match (one, other) {
        (None, None) => None,
        (Some(list), None) | (None, Some(list)) => Some(list.iter().cloned().collect()),
        (Some(one), Some(other)) => Some(one.iter().filter(|name| other.contains(name)).cloned().collect()),
    }
}

/// Patterns that mean no command, or one that reaches further than this platform; `table` is the path of
/// `[uplinks.NAME.mqtt.commands]`.
pub fn problems(table: &[&str], config: &CommandsConfig, filter: &Filter) -> Vec<Problem> {
    let is_part = !Authority::of(config, filter).scope().is_whole();
    let judged = |(place, pattern): (usize, &String)| {
        let place = place.to_string();
        let path = [table, &["allow", &place]].concat();
        let meant: Vec<Known> = Known::ALL.into_iter().filter(|known| known.is_meant(pattern)).collect();
        if meant.is_empty() {
            let names: Vec<&str> = Known::ALL.iter().map(|known| known.as_str()).collect();
            let problem = Problem::error(&path, format!("no command is called {pattern:?}"));
            let hint = format!("there is: {}; `alarm.*` means all that begin so", names.join(", "));
            return Some(problem.hint(hint));
        }
        let too_far = meant.into_iter().find(|known| is_part && known.needs_whole())?;
        let message =
            format!("`{}` concerns the whole compound, and this platform has a part of it", too_far.as_str());
        let hint = "leave it out, or take `places` and what the filter leaves out away";
        Some(Problem::error(&path, message).hint(hint))
    };
    config.allow.iter().enumerate().filter_map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::place::Place;
    use crate::model::record::Category;

    fn authority(commands: &str, filter: &str) -> Authority {
        Authority::of(&toml::from_str(commands).unwrap(), &toml::from_str(filter).unwrap())
    }

    #[test]
    fn without_a_word_a_platform_handles_alarms_and_opens_nothing() {
        let usual = authority("", "");
        for known in Known::ALL {
            let name = known.as_str();
            let expected = matches!(known, Known::Replay | Known::Snapshot) || name.starts_with("alarm.");
            assert_eq!(usual.allows(known), expected, "{name}");
        }
        assert_eq!(usual.scope(), &Scope::default());
        assert!(authority("allow = []", "").names().is_empty());
        assert_eq!(authority("allow = [\"door.open\"]", "").names(), ["door.open"]);
    }

    #[test]
    fn what_is_not_seen_is_not_ordered() {
        let place = |building: &str| Place { building: Some(building.to_owned()), ..Place::default() };
        let both = authority("places = { buildings = [\"1\", \"2\"] }", "buildings = [\"2\", \"3\"]");
        assert!(both.scope().covers(&place("2")));
        for outside in [place("1"), place("3"), Place::default()] {
            assert!(!both.scope().covers(&outside), "{outside:?}");
        }
        assert!(!authority("", "categories = [\"fire\"]").scope().admits(Category::Care));
        assert!(!authority("", "classes = [\"event\"]").scope().admits(Category::Fire));
    }

    #[test]
    fn a_pattern_without_a_command_is_a_mistake() {
        let config = toml::from_str("allow = [\"alarm.*\", \"door.open_all\", \"doors.*\"]").unwrap();
        let problems = problems(&["uplinks", "street", "mqtt", "commands"], &config, &Filter::default());
        let places: Vec<_> = problems.iter().filter_map(|problem| problem.path.last().cloned()).collect();
        assert_eq!(places, ["1", "2"]);
    }

    #[test]
    fn who_has_a_part_of_the_compound_makes_no_rules_for_all_of_it() {
        let mistakes = |places: &str, filter: &str| {
            let allow = "allow = [\"alarm.*\", \"rules.*\", \"diagnose\"]";
            let config = toml::from_str(&format!("{allow}\n{places}")).unwrap();
            let problems = problems(&["commands"], &config, &toml::from_str(filter).unwrap());
            problems.iter().filter_map(|problem| problem.path.last().cloned()).collect::<Vec<_>>()
        };
        assert_eq!(mistakes("", ""), [""; 0]);
        assert_eq!(mistakes("", "hide = [\"household\"]\nclasses = [\"alarm\"]"), [""; 0]);
        assert_eq!(mistakes("places = { buildings = [\"3\"] }", ""), ["1", "2"]);
        for filter in ["buildings = [\"3\"]", "categories = [\"fire\"]", "classes = [\"telemetry\"]"] {
            assert_eq!(mistakes("", filter), ["1", "2"], "{filter}");
        }
    }
}
