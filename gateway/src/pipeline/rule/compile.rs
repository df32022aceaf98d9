//! From files of rules to [`Rules`]: every mistake at once, each with its path in its file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use super::catalogue::Catalogue;
use super::config::{RuleConfig, RuleFile};
use super::expression::Expression;
use super::names::Names;
use super::rules::{Rule, Rules};
use super::state::{needs, part_of};
use super::{loops, samples, shape, slips, trial};
use crate::model::check::{Problem, Weight};
use crate::model::ids::{DeviceId, RuleName};
use crate::model::limits::RULES_MAX;
use crate::pipeline::action::check::{Cause, FIRE_PANEL, Proof, warn_cloud_only};
use crate::pipeline::directory::Directory;

/// Devices that a warning names; the others are counted.
const NAMED_MAX: usize = 3;

/// A file of rules.
#[derive(Debug, Clone)]
pub struct Source {
    pub file: String,
    /// It came with Gatehouse: what it watches need not be there.
    pub shipped: bool,
    pub rules: RuleFile,
}

/// What is wrong in a file, or should be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    /// Its path begins at the file's root: `rule`, the rule's number from 0, and so on.
    pub problem: Problem,
}

impl Rules {
    /// Checks and compiles. Rules that hold a mistake are left out of what is returned; whoever wants to run with it must
    /// look at the findings first.
    pub fn compile(
        sources: &[Source],
        disabled: &[RuleName],
        directory: &Directory,
        catalogue: &Catalogue,
    ) -> (Self, Vec<Finding>) {
        let mut rules = Self::default();
        let mut findings = Vec::new();
        let names = Names::new(catalogue, directory);
        let mut first: BTreeMap<&RuleName, &str> = BTreeMap::new();
        // Where the rules that were taken stand.
        let mut places: Vec<(&str, usize, bool)> = Vec::new();
        for source in sources {
            for (index, config) in source.rules.rule.iter().enumerate() {
                let mut problems = Vec::new();
                if let Some(file) = first.insert(&config.name, &source.file) {
                    let message = format!("a rule {:?} stands in {file} already", config.name);
                    let hint =
                        "give it another name; to replace a shipped rule, name the file like the shipped one";
                    problems.push(Problem::error(&["name"], message).hint(hint));
                }
                if first.len() == RULES_MAX + 1 {
                    let message = format!("with this rule there are more than {RULES_MAX} rules");
                    problems.push(Problem::error(&["name"], message));
                }
                let rule = compiled(config, &mut problems);
                if !source.shipped {
                    problems.extend(names.problems(config));
                }
                if !disabled.contains(&config.name) && sound(&problems) {
                    places.push((&source.file, index, source.shipped));
                    problems.extend(taken(&mut rules, rule, source.shipped, directory, catalogue));
                }
                if sound(&problems) {
                    problems.extend(trial::problems(config, catalogue));
                }
                findings.extend(problems.into_iter().map(|problem| placed(&source.file, index, problem)));
            }
        }
        for (index, problem) in loops::problems(&rules, directory).into_iter().chain(mute(&rules, directory))
        {
            if let Some((file, place, _)) = places.get(index) {
                findings.push(placed(file, *place, problem));
            }
        }
        findings.extend(unknown_switches(disabled, &first));
        (rules, findings)
    }
}

/// Takes a rule in, and says what can only be seen beside the devices.
fn taken(
    rules: &mut Rules,
    rule: Rule,
    shipped: bool,
    directory: &Directory,
    catalogue: &Catalogue,
) -> Vec<Problem> {
    let index = rules.all.len();
    rules.add(rule, directory, catalogue);
    let Some(rule) = rules.get(index) else { return Vec::new() };
    let mut problems: Vec<Problem> = selection(rule, shipped).into_iter().collect();
    problems.extend(nowhere(rule, directory));
    problems.extend(samples::problems(rule, directory));
    problems.extend(shape::lasting(rule, rules, index));
    // Devices that shipped rules act on may come later.
    if !shipped {
        problems.extend(actions(rule, directory));
    }
    problems
}

/// Devices that a rule takes together by place, and of which nobody said where they are: each stands for itself.
fn nowhere(rule: &Rule, directory: &Directory) -> Vec<Problem> {
    let per = (["per"].as_slice(), rule.config.per);
    let same = rule.config.unless.as_ref().map(|unless| (["unless", "same"].as_slice(), unless.same));
    let mut out = Vec::new();
    for (path, per) in [Some(per), same].into_iter().flatten() {
        let needs = needs(per);
        let lacks = |id: &&DeviceId| {
            let place = directory.devices.get(*id).map(|entry| &entry.place);
            place.is_some_and(|place| needs.iter().any(|part| part_of(place, part).is_none()))
        };
        let lost: Vec<&str> = rule.devices.iter().filter(lacks).map(DeviceId::as_str).collect();
        let Some(named) = lost.get(..lost.len().min(NAMED_MAX)).filter(|named| !named.is_empty()) else {
            continue;
        };
        let more = match lost.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let name = rule.config.name.as_str();
        let (named, needs) = (named.join(", "), needs.join(", "));
        let message = format!(
            "rule {name:?} takes devices of one place together, and not all is known of: {named}{more}"
        );
        let hint = format!("give them a `place` with {needs}; until then each of them stands for itself");
        out.push(Problem::warning(path, message).hint(hint));
    }
    out
}

fn actions(rule: &Rule, directory: &Directory) -> Vec<Problem> {
    let config = &rule.config;
    let raise = &config.raise;
    let event = config.on.event.as_deref();
    let proof = proof(rule, directory);
    let cause = Cause { category: raise.category, severity: raise.severity, event, proof };
    let mut out = Vec::new();
    for (index, action) in config.actions.iter().enumerate() {
        let index = index.to_string();
        if raise.silent && action.speak.is_some() {
            let problem = Problem::error(&["do", &index], "a silent alarm does not speak");
            out.push(problem.hint("leave the action out; platforms get the alarm"));
        }
        for mut problem in action.problems(cause, directory) {
            problem.path.splice(0..0, ["do".to_owned(), index.clone()]);
            out.push(problem);
        }
    }
    out
}

/// Who says that it is so.
fn proof(rule: &Rule, directory: &Directory) -> Proof {
    let config = &rule.config;
    let is_panel = |id| directory.devices.get(id).is_some_and(|entry| entry.kind == FIRE_PANEL);
    if config.on.kind.as_deref() == Some(FIRE_PANEL)
        || (!rule.devices.is_empty() && rule.devices.iter().all(is_panel))
    {
        Proof::FirePanel
    } else if config.distinct && config.count.is_some() {
        Proof::Two
    } else {
        Proof::One
    }
}

/// Critical rules whose words only reach cloud speakers.
fn mute(rules: &Rules, directory: &Directory) -> Vec<(usize, Problem)> {
    let all = rules.all.iter().map(|rule| {
        let config = &rule.config;
        (config.name.clone(), config.raise.severity, config.actions.as_slice())
    });
    let warned = warn_cloud_only(all, directory);
    let told = |(name, message): (RuleName, String)| {
        let hint = "add a speaker that the box reaches by itself (reach = \"lan\")";
        Some((*rules.by_name.get(&name)?, Problem::warning(&["do"], message).hint(hint)))
    };
    warned.into_iter().filter_map(told).collect()
}

fn sound(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.weight == Weight::Warning)
}

/// A rule with its expressions; one that cannot be read is noted.
pub(super) fn compiled(config: &RuleConfig, problems: &mut Vec<Problem>) -> Rule {
    let mut parsed = |key: &str, source: &Option<String>| {
        let source = source.as_ref()?;
        match Expression::parse(source) {
            Ok(expression) => Some(expression),
            Err(reason) => {
                let problem = Problem::error(&[key], reason);
                problems.push(match slips::hint(source) {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
                None
            }
        }
    };
    let when = parsed("when", &config.when);
    let until = parsed("until", &config.until);
    let (config, devices, warned) = (config.clone(), BTreeSet::new(), AtomicBool::new(false));
    let rule = Rule { config, when, until, devices, warned };
    problems.extend(shape::problems(&rule));
    rule
}

/// A rule that watches nothing may be a slip; one that came along simply has nothing to do here.
fn selection(rule: &Rule, shipped: bool) -> Option<Problem> {
    let idle = rule.devices.is_empty() && !rule.watches_gateway() && !shipped;
    idle.then(|| {
        let problem = Problem::warning(&["on"], "no device of this box is watched by this rule");
        problem.hint("a device must fit all that `on` says, and its profile must tell the event or the point")
    })
}

fn placed(file: &str, index: usize, mut problem: Problem) -> Finding {
    problem.path.splice(0..0, ["rule".to_owned(), index.to_string()]);
    Finding { file: file.to_owned(), problem }
}

fn unknown_switches<'a>(
    disabled: &'a [RuleName],
    known: &'a BTreeMap<&RuleName, &str>,
) -> impl Iterator<Item = Finding> + 'a {
    disabled.iter().enumerate().filter(|(_, name)| !known.contains_key(name)).map(|(index, name)| {
        let path = ["gateway", "rules_disabled", &index.to_string()];
        let problem = Problem::error(&path, format!("there is no rule {name:?} to switch off"));
        let names = known.keys().map(|name| name.as_str());
        let problem = match super::names::nearest(name.as_str(), names) {
            Some(near) => problem.hint(format!("did you mean {near:?}?")),
            None => problem,
        };
        Finding { file: String::new(), problem }
    })
}
