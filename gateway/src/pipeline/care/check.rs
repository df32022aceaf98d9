//! What is wrong with a household's section, given what its devices can tell.

use std::fmt;

use crate::model::check::Problem;
use crate::model::ids::{CareName, DeviceId, PointName};
use crate::model::record::{Category, Severity};

use super::super::action::check::{Cause, Proof};
use super::super::action::spec::ActionSpec;
use super::super::directory::{Directory, Entry};
use super::super::rule::Rules;
use super::config::{Household, Leak, Said, Sign};

/// The half hours of the leak rule need a reading each.
const LEAK_HEARTBEAT_S_MAX: u32 = 1_800;

/// What a section is judged by.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub directory: &'a Directory,
    /// Whether there is a device of this name. One that is not in the directory all the same is judged elsewhere.
    pub exists: &'a dyn Fn(&DeviceId) -> bool,
    /// How grave an event of a device is, by its profile.
    pub severity: &'a dyn Fn(&DeviceId, &str) -> Option<Severity>,
    /// The rules that are at work.
    pub rules: &'a Rules,
}

impl fmt::Debug for Around<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Around").field("directory", self.directory).finish_non_exhaustive()
    }
}

/// Mistakes beyond types; paths start at `care.NAME`.
pub fn problems(name: &CareName, household: &Household, around: Around<'_>) -> Vec<Problem> {
    let mut judge = Judge { name: name.as_str(), around, out: Vec::new() };
    judge.consent(household);
    if household.signals.is_empty() {
        let hint =
            "add [[care.NAME.signals]] with `device` and `event` or `point`".replace("NAME", judge.name);
        judge.error(&["signals"], "no signal shows that somebody is well".to_owned(), &hint);
    }
    for (number, sign) in household.signals.iter().enumerate() {
        judge.sign(&number.to_string(), sign, household.window_h);
    }
    if let Some(leak) = &household.leak {
        judge.leak(leak);
    }
    if household.night.is_some() && !household.signals.iter().any(|sign| sign.leaves && sign.event.is_some())
    {
        let hint = "write `leaves = true` at the signal of the flat's door";
        judge.error(&["night"], "nothing says which door is opened at night".to_owned(), hint);
    }
    let said = [("leave", &household.away.leave), ("back", &household.away.back)];
    for (key, said) in said {
        if let Some(said) = said {
            judge.said(key, said);
        }
    }
    judge.actions(household);
    judge.out
}

struct Judge<'a> {
    name: &'a str,
    around: Around<'a>,
    out: Vec<Problem>,
}

impl<'a> Judge<'a> {
    fn path<'p>(&'p self, below: &[&'p str]) -> Vec<&'p str> {
        [&["care", self.name], below].concat()
    }

    fn error(&mut self, below: &[&str], message: String, hint: &str) {
        let problem = Problem::error(&self.path(below), message).hint(hint);
        self.out.push(problem);
    }

    fn consent(&mut self, household: &Household) {
        match &household.consent {
            None => {
                let message = format!("[care.{}] has no consent: nobody is watched without", self.name);
                self.error(&[], message, "write consent = { date = \"2026-03-01\", by = \"self\" }");
            }
            Some(consent) => {
                if let Some(date) = &consent.revoked {
                    let message = format!("consent was taken back on {date}: nothing is watched here");
                    let problem = Problem::warning(&self.path(&["consent"]), message);
                    self.out
                        .push(problem.hint("take the section out when its record is not needed any more"));
                }
            }
        }
    }

    /// The device, where it is known.
    fn known(&mut self, below: &[&str], device: &DeviceId) -> Option<&'a Entry> {
        let entry = self.around.directory.devices.get(device);
        if entry.is_none() && !(self.around.exists)(device) {
            let message = format!("there is no device \"{device}\"");
            self.error(&[below, &["device"]].concat(), message, "add it under [devices.NAME]");
        }
        entry
    }

    fn actions(&mut self, household: &Household) {
        let cause =
            Cause { category: Category::Care, severity: household.severity, event: None, proof: Proof::One };
        for (key, specs) in [("ask", &household.ask), ("do", &household.actions)] {
            for (number, spec) in specs.iter().enumerate() {
                let number = number.to_string();
                for problem in spec.problems(cause, self.around.directory) {
                    let path = ["care", self.name, key, &number].map(str::to_owned);
                    let path = path.into_iter().chain(problem.path.iter().cloned()).collect();
                    self.out.push(Problem { path, ..problem });
                }
                if key == "ask" {
                    self.question(&number, spec, household);
                }
            }
        }
    }

    fn question(&mut self, number: &str, spec: &ActionSpec, household: &Household) {
        if spec.speak.is_none() && spec.publish.is_none() {
            let message = "a question is spoken or published".to_owned();
            self.error(&["ask", number], message, "write `speak` or `publish`; the rest belongs under `do`");
        }
        if spec.speak.as_ref().is_some_and(|speech| speech.until.is_some()) {
            let message = "a question comes before the alarm that somebody could acknowledge".to_owned();
            self.error(&["ask", number, "speak", "until"], message, "leave `until` out");
        }
        let sensors = household.sensors();
        let echo = spec.candidates(self.around.directory).map(|(id, _)| id).find(|id| sensors.contains(id));
        if let Some(id) = echo {
            let message = format!("{id} would answer the question by itself: it is also a signal");
            self.error(&["ask", number, "on"], message, "ask by another device than those of `signals`");
        }
    }

    fn sign(&mut self, number: &str, sign: &Sign, window_h: u32) {
        let at = |key| ["signals", number, key];
        let Some(facts) = self.known(&["signals", number], &sign.device) else { return };
        match (&sign.event, &sign.point) {
            (Some(event), None) => {
                if !facts.events.contains(event) {
                    self.unknown(&at("event"), "event", event, facts.events.iter().map(String::as_str));
                }
            }
            (None, Some(point)) => {
                if !facts.points.contains_key(point) {
                    self.unknown(
                        &at("point"),
                        "point",
                        point.as_str(),
                        facts.points.keys().map(PointName::as_str),
                    );
                }
            }
            _ => {
                let message = "a signal is either an `event` or a `point`".to_owned();
                self.error(&["signals", number], message, "write one of both");
            }
        }
        let ways = [sign.equals.is_some(), sign.grows_by.is_some(), sign.changes_by.is_some()];
        let ways = ways.into_iter().filter(|given| *given).count();
        if sign.point.is_some() && ways != 1 {
            let message = "nothing says when this value is a sign, or too much does".to_owned();
            self.error(&["signals", number], message, "write one of `equals`, `grows_by`, `changes_by`");
        }
        if sign.event.is_some() && ways != 0 {
            let message = "`equals`, `grows_by` and `changes_by` are for a `point`".to_owned();
            self.error(&["signals", number], message, "leave them out: an event is a sign by itself");
        }
        for (key, by) in [("grows_by", sign.grows_by), ("changes_by", sign.changes_by)] {
            if by.is_some_and(|by| !by.is_finite() || by <= 0.0) {
                self.error(
                    &at(key),
                    format!("`{key}` must be more than 0"),
                    "0.01 m³ of water, 50 W of power",
                );
            }
        }
        self.heartbeat(&at("device"), sign, facts, window_h);
    }

    fn heartbeat(&mut self, path: &[&str], sign: &Sign, facts: &Entry, window_h: u32) {
        let device = &sign.device;
        let Some(heartbeat_s) = facts.heartbeat_s else {
            let message = format!("{device} has no heartbeat: its silence could not be told from a person's");
            let hint = format!("write `heartbeat_s` at [devices.{device}]");
            self.error(path, message, &hint);
            return;
        };
        if u64::from(window_h) * 3_600 < 2 * u64::from(heartbeat_s) {
            let message = format!(
                "a window of {window_h} h is shorter than twice the {heartbeat_s} s within which {device} speaks"
            );
            let problem = Problem::error(&self.path(&["window_h"]), message);
            self.out.push(problem.hint("choose a longer window, or a sensor that reports more often"));
        }
    }

    fn unknown<'n>(&mut self, path: &[&str], what: &str, name: &str, known: impl Iterator<Item = &'n str>) {
        let known: Vec<&str> = known.collect();
        let hint = format!("there is: {}", known.join(", "));
        self.error(path, format!("the device has no {what} \"{name}\""), &hint);
    }

    fn leak(&mut self, leak: &Leak) {
        let Some(facts) = self.known(&["leak"], &leak.device) else { return };
        if !facts.points.contains_key(&leak.point) {
            let known = facts.points.keys().map(PointName::as_str);
            self.unknown(&["leak", "point"], "point", leak.point.as_str(), known);
        }
        if !leak.day_max.is_finite() || leak.day_max <= 0.0 {
            self.error(&["leak", "day_max"], "`day_max` must be more than 0".to_owned(), "2 m³ is usual");
        }
        if leak.every_half_hour && facts.heartbeat_s.is_none_or(|every_s| every_s > LEAK_HEARTBEAT_S_MAX) {
            let message = format!("{} does not report in every half hour", leak.device);
            let hint = "write `every_half_hour = false`, or a `heartbeat_s` of at most 1800 at the meter";
            self.error(&["leak", "device"], message, hint);
        }
    }

    fn said(&mut self, key: &str, said: &Said) {
        let Some(facts) = self.known(&["away", key], &said.device) else { return };
        if !facts.events.contains(&said.event) {
            let known = facts.events.iter().map(String::as_str);
            self.unknown(&["away", key, "event"], "event", &said.event, known);
        }
        self.betrays(&["away", key, "event"], said);
    }

    /// That nobody is at home is told to nobody: a grave event, or an alarm that it raises, would tell platforms.
    fn betrays(&mut self, path: &[&str], Said { device, event }: &Said) {
        let hint =
            "take an event without a severity that no rule watches; docs/care.md shows a profile for it";
        if let Some(severity) = (self.around.severity)(device, event) {
            let message = format!(
                "\"{event}\" of {device} is {}, so that platforms are told of it, and that nobody is at home",
                format!("{severity:?}").to_lowercase()
            );
            self.error(path, message, hint);
        }
        for rule in self.around.rules.watching(device, event) {
            let message = format!(
                "the rule \"{rule}\" watches \"{event}\" of {device}: its alarms would tell that nobody is at home"
            );
            self.error(path, message, hint);
        }
    }
}
