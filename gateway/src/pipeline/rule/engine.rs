//! The rules at work: from records to conditions that come and go. What is remembered stands in rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::RuleConfig;
use super::counting::{counted, forget};
use super::expression::{Scene, Whom};
use super::rules::{Rule, Rules, Trigger, Watched};
use super::signals;
use super::state::{Kept, Phase, Seen, Standing, Waiting, key, keys, parts, subject};
use crate::model::ids::{DeviceId, PointName};
use crate::model::place::Place;
use crate::model::record::{Body, DeviceRef, Event, Quality, Record, Value};
use crate::pipeline::directory::{Directory, Entry};
use crate::pipeline::signal::{Clear, Signal};
use crate::pipeline::table::{Rows, Table};
use crate::pipeline::{Now, Part};

/// A deadline that fires later than this was not watched for: the box was off or the daemon was down, and silence
/// meanwhile says nothing. Otherwise the writer's tick comes within a second.
const LATE_MS_MAX: u64 = 60_000;

/// After such a time devices are given so long to be heard again, at most.
const GRACE_MS_MAX: u64 = 3_600_000;

/// What each rule remembers of each of its subjects.
#[derive(Debug)]
pub(in crate::pipeline) struct Engine {
    pub(super) rules: Arc<Rules>,
    pub(super) directory: Arc<Directory>,
    pub(super) standing: Table<Standing>,
    pub(super) seen: Table<Seen>,
    pub(super) kept: Table<Kept>,
    /// Rows of rules and devices that are gone have been looked for, and silence is being watched for.
    settled: bool,
    /// The time of the record at hand: deadlines fire before it, at their own.
    t_ms: u64,
}

/// The circumstances in which a record or a deadline is judged.
pub(super) struct Turn<'a> {
    pub(super) now: &'a Now,
    pub(super) utc_offset_min: i32,
    pub(super) signals: &'a mut Vec<Signal>,
}

/// Whom a record is from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// Its id; of the box itself, with the bus that it speaks of.
    pub(super) id: &'a str,
    pub(super) device: &'a DeviceRef,
    pub(super) place: &'a Place,
    pub(super) entry: Option<&'a Entry>,
    pub(super) test: bool,
}

impl Engine {
    pub(in crate::pipeline) fn new(rules: Arc<Rules>, directory: Arc<Directory>) -> Self {
        Self {
            rules,
            directory,
            standing: Table::new("rule/"),
            seen: Table::new("rule-seen/"),
            kept: Table::new("rule-value/"),
            settled: false,
            t_ms: 0,
        }
    }

    /// Other rules from now on. With the next event or value, what they do not know any more is over.
    pub(in crate::pipeline) fn replace(&mut self, rules: Arc<Rules>) {
        rules.follow(&self.rules);
        self.rules = rules;
        self.settled = false;
    }

    /// The time of a record, before the deadlines up to it fire.
    pub(in crate::pipeline) fn passed(&mut self, t_ms: u64) {
        self.t_ms = t_ms;
    }

    /// Judges an event or values.
    pub(in crate::pipeline) fn apply(
        &mut self,
        now: &Now,
        record: &Record,
        utc_offset_min: i32,
        signals: &mut Vec<Signal>,
    ) {
        let mut turn = Turn { now, utc_offset_min, signals };
        if !self.settled {
            self.settled = self.settle(&mut turn);
        }
        let (Some(device), Some(place)) = (record.body.device(), record.body.place()) else { return };
        let rules = Arc::clone(&self.rules);
        let directory = Arc::clone(&self.directory);
        let named = device.bus.as_ref().filter(|_| device.is_gateway());
        let name = named.map(|bus| format!("{}/{bus}", device.id));
        let id = name.as_deref().unwrap_or(device.id.as_str());
        let entry = directory.devices.get(&device.id);
        let whose = Whose { id, device, place, entry, test: record.test };
        let watched = if device.is_gateway() { Some(&rules.gateway) } else { rules.at(&device.id) };
        match &record.body {
            Body::Event(event) => {
                self.explain(&rules, &turn, &whose, &event.name);
                if let Some(watched) = watched {
                    self.event(&rules, watched, &mut turn, &whose, event);
                }
            }
            Body::Telemetry(telemetry) => {
                if let Some(watched) = watched {
                    self.values(&rules, watched, &mut turn, &whose, telemetry);
                }
            }
            Body::Alarm(_) | Body::Gap(_) => {}
        }
    }

    fn event(
        &mut self,
        rules: &Rules,
        watched: &Watched,
        turn: &mut Turn<'_>,
        whose: &Whose<'_>,
        event: &Event,
    ) {
        for rule in watched.ends.get(&event.name).into_iter().flatten().filter_map(|i| rules.get(*i)) {
            self.end(rule, turn, whose.id, whose.place);
        }
        if let Some(Value::Text(ended)) = event.params.get("clears") {
            let begun = watched.begins.get(ended.as_ref()).into_iter().flatten();
            for rule in begun.filter_map(|(index, _)| rules.get(*index)) {
                self.end(rule, turn, whose.id, whose.place);
            }
        }
        for (index, lasts) in watched.begins.get(&event.name).into_iter().flatten() {
            let Some(rule) = rules.get(*index) else { continue };
            let points = BTreeMap::new();
            let scene = scene(whose, None, None, &points, &event.params);
            if rule.when.as_ref().is_none_or(|when| rules.answer(rule, when, &scene) == Ok(true)) {
                let condition = signals::condition(&rule.config, event.clone());
                self.begin(rule, turn, whose, condition, *lasts);
            }
        }
        self.anything(rules, watched, turn, whose);
    }

    /// Any word of a device is a sign of life to rules that watch for silence alone.
    pub(super) fn anything(
        &mut self,
        rules: &Rules,
        watched: &Watched,
        turn: &mut Turn<'_>,
        whose: &Whose<'_>,
    ) {
        for rule in watched.anything.iter().filter_map(|index| rules.get(*index)) {
            self.heard(rule, turn, whose);
        }
    }

    /// A condition arises at a device.
    pub(super) fn begin(
        &mut self,
        rule: &Rule,
        turn: &mut Turn<'_>,
        whose: &Whose<'_>,
        condition: Event,
        lasts: bool,
    ) {
        let config = &rule.config;
        if config.absent_s.is_some() {
            return self.heard(rule, turn, whose);
        }
        let key = key_of(config, whose);
        let mut standing = self.standing.get(&key).cloned().unwrap_or_default();
        let by_event = matches!(rule.trigger(), Trigger::Event(_));
        if let Some(count) = config.count {
            if !by_event || (config.distinct && lasts) {
                standing.holding.insert(whose.id.to_owned());
            }
            let hits = counted(&mut standing, config, turn.now.t_ms, whose.id);
            self.standing.put(&key, standing);
            if hits >= usize::try_from(count).unwrap_or(usize::MAX) && active(config, turn) {
                let condition = signals::counting(condition, hits);
                turn.signals.push(signals::raise(config, &key, &turn.now.at, condition, false));
            }
            return;
        }
        if self.explained(config, turn, whose) {
            // A value that is told again is no new condition; an event that comes again is.
            if !by_event {
                standing.explained.insert(whose.id.to_owned());
                self.standing.put(&key, standing);
            }
            return;
        }
        if lasts {
            standing.holding.insert(whose.id.to_owned());
            standing.of = Some(rule.watches().to_owned());
        }
        match standing.phase {
            Phase::Waiting(_) => self.standing.put(&key, standing),
            Phase::Raised => {
                self.standing.put(&key, standing);
                // What has to hold or wait first does not count again at once.
                if wait(config).is_none() && active(config, turn) {
                    turn.signals.push(signals::raise(config, &key, &turn.now.at, condition, true));
                }
            }
            _ => match wait(config) {
                Some((wait_ms, firm)) => {
                    let t_ms = turn.now.t_ms;
                    let (due_ms, at) = (t_ms.saturating_add(wait_ms), turn.now.at.clone());
                    let waiting = Waiting { due_ms, at, condition, firm, begun_ms: Some(t_ms) };
                    standing.phase = Phase::Waiting(Box::new(waiting));
                    self.standing.put(&key, standing);
                }
                None => self.arise(rule, turn, &key, standing, condition),
            },
        }
    }

    /// A condition has held or waited as long as it must: it is raised, if the rule looks at this time of the day.
    fn arise(
        &mut self,
        rule: &Rule,
        turn: &mut Turn<'_>,
        key: &str,
        mut standing: Standing,
        condition: Event,
    ) {
        let lasts = !standing.holding.is_empty();
        let (firm_at, begun_ms) = match &standing.phase {
            Phase::Waiting(waiting) => (Some(waiting.at.clone()).filter(|_| waiting.firm), waiting.begun_ms),
            _ => (None, None),
        };
        if !active(&rule.config, turn) {
            let again = rule.config.active.filter(|_| lasts);
            match again.map(|hours| hours.begin_in_ms(&turn.now.at, turn.utc_offset_min)) {
                Some(wait_ms) => {
                    let due_ms = turn.now.t_ms.saturating_add(wait_ms);
                    let at = turn.now.at.clone();
                    let waiting = Waiting { due_ms, at, condition, firm: false, begun_ms };
                    standing.phase = Phase::Waiting(Box::new(waiting));
                    self.standing.put(key, standing);
                }
                None => self.calm(key, standing),
            }
            return;
        }
        let at = firm_at.as_ref().unwrap_or(&turn.now.at);
        // The rule may have been changed meanwhile.
        let condition = signals::condition(&rule.config, condition);
        turn.signals.push(signals::raise(&rule.config, key, at, condition, lasts));
        if lasts {
            standing.phase = Phase::Raised;
            self.standing.put(key, standing);
        } else {
            self.calm(key, standing);
        }
    }

    /// Nothing waits and nothing is raised any more.
    pub(super) fn calm(&mut self, key: &str, mut standing: Standing) {
        if standing.explained.is_empty() {
            return self.standing.remove(key);
        }
        standing.holding.clear();
        standing.phase = Phase::Quiet;
        self.standing.put(key, standing);
    }

    /// A condition is over at a device; also where it arose before the device came under maintenance, or while it was.
    pub(super) fn end(&mut self, rule: &Rule, turn: &mut Turn<'_>, id: &str, place: &Place) {
        for key in keys(rule.config.name.as_str(), &subject(rule.config.per, id, place)) {
            self.release(turn, &key, id);
        }
    }

    pub(super) fn release(&mut self, turn: &mut Turn<'_>, key: &str, id: &str) {
        let Some(mut standing) = self.standing.get(key).cloned() else { return };
        let explained = standing.explained.remove(id);
        if !standing.holding.remove(id) && !explained {
            return;
        }
        let over = match &standing.phase {
            _ if !standing.holding.is_empty() => false,
            Phase::Waiting(waiting) => !waiting.firm,
            Phase::Raised => {
                turn.signals.extend(clear(key, turn.now));
                true
            }
            Phase::Quiet | Phase::Listening { .. } => true,
            Phase::Forgetting { .. } => false,
        };
        if over {
            self.calm(key, standing);
        } else {
            self.standing.put(key, standing);
        }
    }

    /// What a rule watches for silence was heard.
    pub(super) fn heard(&mut self, rule: &Rule, turn: &mut Turn<'_>, whose: &Whose<'_>) {
        let key = key_of(&rule.config, whose);
        let device = whose.device.id.as_str();
        for of in keys(rule.config.name.as_str(), &subject(rule.config.per, whose.id, whose.place)) {
            let Some(standing) = self.standing.get(&of).filter(|of| of.phase == Phase::Raised) else {
                continue;
            };
            // Its own silence, from before it came under maintenance or while it was; others there are listened to anew.
            if of != key && !standing.holding.contains(device) {
                continue;
            }
            turn.signals.extend(clear(&of, turn.now));
            self.standing.remove(&of);
            self.settled &= of == key;
        }
        self.listen(&key, &rule.config, turn.now.t_ms, device);
    }

    pub(super) fn listen(&mut self, key: &str, config: &RuleConfig, from_ms: u64, device: &str) {
        let absent_ms = u64::from(config.absent_s.unwrap_or_default()).saturating_mul(1_000);
        let due_ms = from_ms.saturating_add(absent_ms);
        let phase = Phase::Listening { due_ms, device: device.to_owned() };
        self.standing.put(key, Standing { phase, ..Standing::default() });
    }

    /// The deadline of a row has come.
    pub(in crate::pipeline) fn fire(
        &mut self,
        now: &Now,
        due: &str,
        utc_offset_min: i32,
        signals: &mut Vec<Signal>,
    ) {
        let mut turn = Turn { now, utc_offset_min, signals };
        if let Some(seen) = due.strip_prefix(SEEN) {
            return self.seen.remove(seen);
        }
        let key = due.strip_prefix(STANDING).unwrap_or(due);
        let Some(mut standing) = self.standing.get(key).cloned() else { return };
        let rules = Arc::clone(&self.rules);
        let rule = parts(key).and_then(|(name, ..)| rules.get(*rules.by_name.get(name)?));
        let Some(rule) = rule else { return self.standing.remove(key) };
        match standing.phase.clone() {
            Phase::Quiet | Phase::Raised => {}
            Phase::Forgetting { .. } => {
                forget(&mut standing, &rule.config, now.t_ms);
                if standing.hits.is_empty() && standing.holding.is_empty() {
                    self.standing.remove(key);
                } else {
                    self.standing.put(key, standing);
                }
            }
            Phase::Waiting(waiting) => {
                let until_ms = waiting.explained_until_ms(&rule.config);
                match until_ms.filter(|until_ms| !waiting.firm && *until_ms > now.t_ms) {
                    // It has held as long as it must, and may still be explained.
                    Some(due_ms) => {
                        let waiting = Waiting { due_ms, at: now.at.clone(), firm: true, ..*waiting };
                        standing.phase = Phase::Waiting(Box::new(waiting));
                        self.standing.put(key, standing);
                    }
                    None => self.arise(rule, &mut turn, key, standing, waiting.condition),
                }
            }
            Phase::Listening { due_ms, device } => {
                if self.t_ms > due_ms.saturating_add(LATE_MS_MAX) {
                    let absent_ms = u64::from(rule.config.absent_s.unwrap_or_default()).saturating_mul(1_000);
                    let due_ms = self.t_ms.saturating_add(absent_ms.min(GRACE_MS_MAX));
                    standing.phase = Phase::Listening { due_ms, device };
                    return self.standing.put(key, standing);
                }
                let Some(condition) = self.silence(&rule.config, &device) else {
                    return self.standing.remove(key);
                };
                standing.holding.insert(device);
                self.arise(rule, &mut turn, key, standing, condition);
            }
        }
    }

    fn silence(&self, config: &RuleConfig, device: &str) -> Option<Event> {
        let entry = self.directory.devices.get(device);
        let (device, place) = match entry {
            Some(entry) => {
                let device = DeviceRef {
                    id: DeviceId::new(device).ok()?,
                    kind: entry.kind.clone(),
                    profile: Some(entry.profile.clone()),
                    bus: entry.bus.clone(),
                };
                (device, entry.place.clone())
            }
            None if device == super::catalogue::GATEWAY => (DeviceRef::gateway(None), Place::default()),
            None => return None,
        };
        Some(signals::of_silence(config, &device, &place))
    }
}

/// Which table a deadline is of.
const STANDING: &str = "standing ";
const SEEN: &str = "seen ";

impl Part for Engine {
    fn tables(&self) -> Vec<&dyn Rows> {
        vec![&self.standing, &self.seen, &self.kept]
    }

    fn tables_mut(&mut self) -> Vec<&mut dyn Rows> {
        vec![&mut self.standing, &mut self.seen, &mut self.kept]
    }

    fn reconsider(&mut self) {
        // It may have been settled in what never happened.
        self.settled = false;
    }

    fn next_due(&self) -> Option<(u64, String)> {
        let standing = self.standing.next_due().map(|(due, key)| (due, format!("{STANDING}{key}")));
        let seen = self.seen.next_due().map(|(due, key)| (due, format!("{SEEN}{key}")));
        standing.into_iter().chain(seen).min()
    }
}

pub(super) fn clear(key: &str, now: &Now) -> Option<Signal> {
    let (rule, test, subject) = parts(key)?;
    let rule = crate::model::ids::RuleName::new(rule).ok()?;
    Some(Signal::Clear(Clear { rule, subject: subject.to_owned(), at: now.at.clone(), test }))
}

pub(super) fn key_of(config: &RuleConfig, whose: &Whose<'_>) -> String {
    key(config.name.as_str(), whose.test, &subject(config.per, whose.id, whose.place))
}

/// How long a condition waits at first before it is raised, and whether only for an explanation.
fn wait(config: &RuleConfig) -> Option<(u64, bool)> {
    let within_s = config.unless.as_ref().map(|unless| unless.within_s);
    let wait_s = config.for_s.or(within_s)?;
    Some((u64::from(wait_s).saturating_mul(1_000), config.for_s.is_none()))
}

fn active(config: &RuleConfig, turn: &Turn<'_>) -> bool {
    config.active.is_none_or(|hours| hours.hold(&turn.now.at, turn.utc_offset_min))
}

pub(super) fn scene<'a>(
    whose: &Whose<'a>,
    value: Option<&'a Value>,
    quality: Option<Quality>,
    points: &'a BTreeMap<PointName, Value>,
    params: &'a BTreeMap<String, Value>,
) -> Scene<'a> {
    static NO_TAGS: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    let profile = whose.device.profile.as_ref().map_or("", |profile| profile.as_str());
    let tags = whose.entry.map_or(&NO_TAGS, |entry| &entry.tags);
    let device = Whom { id: whose.device.id.as_str(), kind: &whose.device.kind, profile, tags };
    Scene { value, quality, points, params, device, place: whose.place }
}
