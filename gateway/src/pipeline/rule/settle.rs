//! What a changed configuration means for what was remembered: done once, with the first record after a start
//! or a change of the rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::catalogue::GATEWAY;
use super::engine::{Engine, Turn, clear};
use super::rules::{Rule, Trigger};
use super::state::{Phase, Standing, key, parts, subject};
use crate::model::place::Place;

/// Conditions that end with one record: each may be a change of an alarm, and all are stored in one commit.
const SIGNALS_MAX: usize = 64;

impl Engine {
    /// Returns whether all is settled; if not, it goes on with the next record.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.leave(turn) {
            return false;
        }
        self.listen_everywhere(turn);
        let rules = Arc::clone(&self.rules);
        let kept = |key: &str| {
            let (device, point) = key.rsplit_once('/')?;
            let watched = if device.starts_with(GATEWAY) {
                &rules.gateway
            } else {
                rules.at(&crate::model::ids::DeviceId::new(device).ok()?)?
            };
            watched.kept.contains(point).then_some(())
        };
        let gone: Vec<String> =
            self.kept.iter().filter(|(key, _)| kept(key).is_none()).map(|(key, _)| key.to_owned()).collect();
        for key in &gone {
            self.kept.remove(key);
        }
        true
    }

    /// Conditions of rules that are gone, and of devices that a rule does not select any more, are over. Returns whether
    /// that was all.
    fn leave(&mut self, turn: &mut Turn<'_>) -> bool {
        let rules = Arc::clone(&self.rules);
        let keys: Vec<String> = self.standing.iter().map(|(key, _)| key.to_owned()).collect();
        for key in keys {
            if turn.signals.len() >= SIGNALS_MAX {
                return false;
            }
            let rule = parts(&key).and_then(|(name, ..)| rules.get(*rules.by_name.get(name)?));
            let Some(standing) = self.standing.get(&key).cloned() else { continue };
            match rule {
                Some(rule) if self.goes_on(rule, &key, &standing) => {
                    let waits = match &standing.phase {
                        Phase::Raised => false,
                        Phase::Waiting(waiting) => !waiting.firm,
                        Phase::Quiet | Phase::Listening { .. } | Phase::Forgetting { .. } => true,
                    };
                    for device in standing.holding.iter().chain(&standing.explained) {
                        if !self.is_of(rule, &key, device, waits) || !self.can_end(rule, device) {
                            self.release(turn, &key, device);
                        }
                    }
                }
                _ => {
                    if standing.phase == Phase::Raised {
                        turn.signals.extend(clear(&key, turn.now));
                    }
                    self.standing.remove(&key);
                }
            }
        }
        true
    }

    /// Whether a rule can go on where a row stands: whether it is a rule that could have come there.
    fn goes_on(&self, rule: &Rule, key: &str, standing: &Standing) -> bool {
        let (counts, listens) = (rule.config.count.is_some(), rule.config.absent_s.is_some());
        if standing.of.as_ref().is_some_and(|of| of != rule.watches()) {
            return false;
        }
        match &standing.phase {
            Phase::Quiet => counts || standing.holding.is_empty(),
            Phase::Forgetting { .. } => counts,
            Phase::Waiting(_) | Phase::Raised => !counts,
            Phase::Listening { device, .. } => listens && self.is_of(rule, key, device, true),
        }
    }

    /// Whether what a rule's event began at a device is ended by another: a rule that does not name it any more leaves
    /// nothing to wait for.
    fn can_end(&self, rule: &Rule, device: &str) -> bool {
        let id = device.split('/').next().unwrap_or(device);
        let watched = match crate::model::ids::DeviceId::new(id) {
            Ok(id) if id.as_str() != GATEWAY => self.rules.at(&id),
            _ => Some(&self.rules.gateway),
        };
        let (Trigger::Event(event), None) = (rule.trigger(), rule.config.absent_s) else { return true };
        let index = self.rules.by_name.get(rule.config.name.as_str());
        let begins = watched.and_then(|watched| watched.begins.get(event)).into_iter().flatten();
        begins.into_iter().any(|(of, lasts)| Some(of) == index && *lasts)
    }

    /// Whether a rule selects a device and counts it to the subject of this key. `waits`: nothing is raised yet, so that the
    /// key must be the one under which the device's words come, with the mark of a test or without: under another, nothing
    /// that the device says would be heard, and what is only a test would become an alarm.
    fn is_of(&self, rule: &Rule, key: &str, device: &str, waits: bool) -> bool {
        let id = device.split('/').next().unwrap_or(device);
        let nowhere = Place::default();
        let (place, test) = match self.directory.devices.get(id) {
            Some(entry) if rule.devices.contains(id) => (&entry.place, entry.maintenance),
            None if id == GATEWAY && rule.watches_gateway() => (&nowhere, false),
            _ => return false,
        };
        let is_of =
            |(_, marked, of)| of == subject(rule.config.per, device, place) && (!waits || marked == test);
        parts(key).is_some_and(is_of)
    }

    /// Rules that watch for silence begin to listen: what was not heard yet had no chance to be silent.
    fn listen_everywhere(&mut self, turn: &Turn<'_>) {
        let rules = Arc::clone(&self.rules);
        let directory = Arc::clone(&self.directory);
        for rule in rules.all.iter().filter(|rule| rule.config.absent_s.is_some()) {
            let (name, per) = (rule.config.name.as_str(), rule.config.per);
            let mut keys = BTreeSet::new();
            for id in &rule.devices {
                let Some(entry) = directory.devices.get(id) else { continue };
                let key = key(name, entry.maintenance, &subject(per, id.as_str(), &entry.place));
                if keys.insert(key.clone()) && self.standing.get(&key).is_none() {
                    self.listen(&key, &rule.config, turn.now.t_ms, id.as_str());
                }
            }
        }
    }
}
