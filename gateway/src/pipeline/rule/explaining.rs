//! `unless`: what explains a condition that was seen before, or will be seen.

use super::config::RuleConfig;
use super::engine::{Engine, Turn, Whose};
use super::rules::{Rules, Trigger};
use super::state::{Phase, Seen, key, subject};

impl Engine {
    /// An event explains what other rules have seen or will see.
    pub(super) fn explain(&mut self, rules: &Rules, turn: &Turn<'_>, whose: &Whose<'_>, event: &str) {
        for rule in rules.explained.get(event).into_iter().flatten().filter_map(|index| rules.get(*index)) {
            let Some(unless) = &rule.config.unless else { continue };
            let name = rule.config.name.as_str();
            let same = subject(unless.same, whose.id, whose.place);
            let within_ms = u64::from(unless.within_s).saturating_mul(1_000);
            // Just after the last moment that it explains: deadlines fire before what comes at the same time.
            let due_ms = turn.now.t_ms.saturating_add(within_ms).saturating_add(1);
            let seen = Seen { t_ms: turn.now.t_ms, due_ms };
            self.seen.put(&key(name, whose.test, &same), seen);
            let begin = key(name, whose.test, "");
            let explained: Vec<String> = self
                .standing
                .beginning(&begin)
                .filter(|(_, standing)| match &standing.phase {
                    Phase::Waiting(waiting) => {
                        let until_ms = waiting.explained_until_ms(&rule.config);
                        let in_time = until_ms.is_none_or(|until_ms| turn.now.t_ms < until_ms);
                        let (device, place) = (&waiting.condition.device, &waiting.condition.place);
                        in_time && subject(unless.same, device.id.as_str(), place) == same
                    }
                    _ => false,
                })
                .map(|(key, _)| key.to_owned())
                .collect();
            let by_event = matches!(rule.trigger(), Trigger::Event(_));
            for key in &explained {
                let Some(mut standing) = self.standing.get(key).cloned() else { continue };
                let there = |device: &String| {
                    let entry = self.directory.devices.get(device.as_str());
                    entry.is_some_and(|entry| subject(unless.same, device, &entry.place) == same)
                };
                // What is told again stays explained as long as it holds.
                if !by_event {
                    standing.explained.extend(standing.holding.iter().filter(|id| there(id)).cloned());
                }
                self.calm(key, standing);
            }
        }
    }

    /// Whether it was explained already.
    pub(super) fn explained(&self, config: &RuleConfig, turn: &Turn<'_>, whose: &Whose<'_>) -> bool {
        let Some(unless) = &config.unless else { return false };
        let same = subject(unless.same, whose.id, whose.place);
        let seen = self.seen.get(&key(config.name.as_str(), whose.test, &same));
        seen.is_some_and(|seen| turn.now.t_ms < seen.due_ms)
    }
}
