//! What cannot be right about a rule, whatever devices there are.

use super::config::{Per, RuleConfig};
use super::rules::{Rule, Rules, Trigger};
use super::state::needs;
use crate::model::action::{ACTION_REPORTED, ACTION_REQUESTED};
use crate::model::check::Problem;
use crate::model::command::{ALARM_ORDERED, TICK};

/// Events that are the pipeline's own: rules never see them.
const UNHEARD: [&str; 4] = [ACTION_REQUESTED, ACTION_REPORTED, ALARM_ORDERED, TICK];

/// Longest text of an alarm, bytes of UTF-8 (200 characters of Chinese).
const TEXT_BYTES_MAX: usize = 600;

pub(super) fn problems(rule: &Rule) -> Vec<Problem> {
    let mut out = Vec::new();
    let config = &rule.config;
    trigger(&mut out, rule);
    time(&mut out, config);
    alarm(&mut out, rule);
    out
}

fn trigger(out: &mut Vec<Problem>, rule: &Rule) {
    let config = &rule.config;
    let on = &config.on;
    if on.event.is_some() && on.point.is_some() {
        let problem = Problem::error(&["on", "point"], "a rule watches an event or a point, not both");
        out.push(problem.hint("a point can be asked for in `when`: points.NAME"));
    }
    for (path, event) in [(["on", "event"].as_slice(), &on.event), (&["ends"], &config.ends)] {
        let Some(event) = event else { continue };
        if UNHEARD.contains(&event.as_str()) {
            out.push(Problem::error(path, format!("{event:?} is the pipeline's own: rules never see it")));
        } else if !is_event_name(event) {
            let problem = Problem::error(path, format!("{event:?} is not the name of an event"));
            out.push(problem.hint("write thing.happened in lower case, for example \"button.pressed\""));
        }
    }
    let idle = rule.trigger() == Trigger::Anything && config.absent_s.is_none();
    if idle && config.when.is_none() {
        let problem = Problem::error(&["on"], "nothing says what the rule watches");
        out.push(problem.hint("write on = { event = \"…\" } or on = { point = \"…\" }"));
    } else if idle && rule.when.is_some() {
        out.push(Problem::error(&["when"], "it names no point, and `on` names neither event nor point"));
    }
    if on.point.is_some() && config.when.is_none() && config.absent_s.is_none() {
        let problem = Problem::error(&["on", "point"], "nothing says which values matter");
        out.push(problem.hint("write `when`, for example when = \"value > 60\""));
    }
    let by_event = on.event.is_some();
    for (key, expression) in [("when", &rule.when), ("until", &rule.until)] {
        let Some(expression) = expression else { continue };
        if on.point.is_none() && (expression.names("value") || expression.names("quality")) {
            out.push(Problem::error(&[key], "`value` and `quality` are of the point that `on` names"));
        }
        if !by_event && expression.names("params") {
            out.push(Problem::error(&[key], "`params` are of the event that `on` names"));
        }
        if by_event && expression.names("points") {
            let problem = Problem::error(&[key], "a rule on an event does not look at points");
            out.push(problem.hint("`params` are what the event brings along"));
        }
    }
    if config.until.is_some() && (by_event || config.when.is_none() || config.absent_s.is_some()) {
        let problem = Problem::error(&["until"], "`until` ends what `when` began with values");
        out.push(problem.hint("an event is ended by an event: `ends`"));
    }
    if config.ends.is_some() && !by_event {
        out.push(Problem::error(&["ends"], "values end by `when` or `until`, only an event by `ends`"));
    }
}

fn time(out: &mut Vec<Problem>, config: &RuleConfig) {
    if config.count.is_some() != config.within_s.is_some() {
        let key = if config.count.is_some() { "count" } else { "within_s" };
        out.push(Problem::error(&[key], "`count` and `within_s` belong together"));
    }
    if config.distinct && config.count.is_none() {
        out.push(Problem::error(&["distinct"], "`distinct` says what `count` counts"));
    }
    let ways = [
        ("count", config.count.is_some()),
        ("absent_s", config.absent_s.is_some()),
        ("for_s", config.for_s.is_some()),
    ];
    let mut written = ways.into_iter().filter(|(_, written)| *written).map(|(key, _)| key);
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        out.push(Problem::error(&[second], format!("`{second}` and `{first}` exclude each other")));
    }
    if config.unless.is_some() && (config.count.is_some() || config.absent_s.is_some()) {
        out.push(Problem::error(&["unless"], "`unless` goes with a single event or value"));
    }
    // An explanation takes away all that waits together, and so must be one of all of it.
    if let Some(unless) = config.unless.as_ref().filter(|unless| !covers(unless.same, config.per)) {
        let message =
            "`per` takes more together than `same` explains: what happened elsewhere would be explained too";
        let hint =
            format!("leave `per` at {:?}, or name the wider place in `same`", unless.same).to_lowercase();
        out.push(Problem::error(&["per"], message).hint(hint));
    }
    if config.active.is_some_and(|hours| hours.from == hours.to) {
        out.push(Problem::error(&["active"], "`from` and `to` are the same: it would never look"));
    }
}

fn alarm(out: &mut Vec<Problem>, rule: &Rule) {
    let config = &rule.config;
    let raise = &config.raise;
    match &raise.name {
        Some(name) if !is_event_name(name) => {
            let problem = Problem::error(&["raise", "name"], format!("{name:?} is not the name of an alarm"));
            out.push(problem.hint("write thing.happened in lower case, for example \"door.forced\""));
        }
        None if config.on.event.is_none() => {
            let problem = Problem::error(&["raise"], "the alarm has no name");
            out.push(problem.hint("add name = \"thing.happened\", for example \"temperature.high\""));
        }
        _ => {}
    }
    for (path, text) in [(["title"].as_slice(), &config.title), (&["raise", "text"], &raise.text)] {
        for (language, words) in [("zh", &text.zh), ("en", &text.en)] {
            if words.is_empty() || words.len() > TEXT_BYTES_MAX {
                let path: Vec<&str> = path.iter().copied().chain([language]).collect();
                out.push(Problem::error(
                    &path,
                    format!("1 to {TEXT_BYTES_MAX} bytes, this has {}", words.len()),
                ));
            }
        }
    }
    if let Some(escalate) = config.escalate.filter(|escalate| escalate.to <= raise.severity) {
        let message = format!("it is {:?} already: it cannot grow to {:?}", raise.severity, escalate.to);
        out.push(Problem::error(&["escalate", "to"], message.to_lowercase()));
    }
}

/// `for_s` of something that is over at once.
pub(super) fn lasting(rule: &Rule, rules: &Rules, index: usize) -> Option<Problem> {
    let (Some(_), Trigger::Event(event)) = (rule.config.for_s, rule.trigger()) else { return None };
    let of_devices = rule.devices.iter().filter_map(|device| rules.at(device));
    let of_gateway = rule.watches_gateway().then_some(&rules.gateway);
    let mut begins = of_devices.chain(of_gateway).filter_map(|watched| watched.begins.get(event)).flatten();
    let momentary = begins.any(|(of, lasts)| *of == index && !lasts);
    momentary.then(|| {
        let problem = Problem::error(&["for_s"], format!("nothing ends {event:?}: it cannot hold so long"));
        problem.hint("name the event that ends it: ends = \"…\"")
    })
}

/// Whether all that `per` takes together lies in one place of the kind `same`.
fn covers(same: Per, per: Per) -> bool {
    let parts = |of| needs(of).iter();
    match same {
        Per::Compound => true,
        Per::Device => per == Per::Device,
        _ => {
            per == Per::Device || (per != Per::Compound && parts(same).all(|part| needs(per).contains(part)))
        }
    }
}

pub(super) fn is_event_name(text: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.len() <= 64 && text.split_once('.').is_some_and(|(thing, happened)| word(thing) && word(happened))
}
