//! Edges: when a value that is told again and again means that something happened. Shared by messages (MQTT) and polled
//! registers (Modbus); pure.

use std::collections::BTreeMap;

use super::{AtStart, EventRule, Trigger};

/// What is remembered of each rule's value, by the rule's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::south) struct Edges(BTreeMap<String, Edge>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    matching: bool,
    /// Monotonic milliseconds of the last event, or of when the state was learnt.
    since_mono_ms: u64,
}

impl Edges {
    /// Whether [`Self::decide`] would find an event, without remembering anything.
    pub(in crate::south) fn would(&self, name: &str, rule: &EventRule, matching: bool, now_ms: u64) -> bool {
        matching && (rule.trigger == Trigger::Pulse || fires(rule, self.0.get(name), now_ms))
    }

    /// Whether a value that matches the rule, or does not, is an event now; remembers it.
    pub(in crate::south) fn decide(
        &mut self,
        name: &str,
        rule: &EventRule,
        matching: bool,
        now_ms: u64,
    ) -> bool {
        match rule.trigger {
            Trigger::Pulse => matching,
            Trigger::Edge => {
                let before = self.0.get(name);
                let happened = matching && fires(rule, before, now_ms);
                let since_mono_ms = match before {
                    Some(before) if !happened && before.matching == matching => before.since_mono_ms,
                    _ => now_ms,
                };
                self.0.insert(name.to_owned(), Edge { matching, since_mono_ms });
                happened
            }
        }
    }
}

/// Whether a value that matches is an event, given what was before.
fn fires(rule: &EventRule, before: Option<&Edge>, now_ms: u64) -> bool {
    match before {
        None => rule.at_start == AtStart::Event,
        Some(before) if !before.matching => true,
        Some(before) => rule.rearm_s.is_some_and(|seconds| {
            now_ms.saturating_sub(before.since_mono_ms) >= u64::from(seconds).saturating_mul(1_000)
        }),
    }
}
