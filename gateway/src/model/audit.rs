//! The audit trail: every command, also the refused and the repeated ones, as records that are kept as events are. Who,
//! from where, what, when, and what became of it.
//!
//! Only the platform that gave a command may see these records: reasons, notes and texts are nobody else's business.

use std::collections::BTreeMap;

use super::action::own;
use super::command::{ALARM_ORDERED, Actor, Origin};
use super::ids::UplinkName;
use super::limits::TEXT_VALUE_BYTES_MAX;
use super::record::{Draft, Event, Record, Text, Value};
use super::stamp::Stamp;

/// Name of the event that a command is being carried out.
pub const COMMAND_ORDERED: &str = "command.ordered";
/// Name of the event that tells what became of a command.
pub const COMMAND_ENDED: &str = "command.ended";

/// Most that is kept of a command's arguments.
const ARGS_BYTES_MAX: usize = 512;

/// What the trail says of a command from its beginning on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id, as its orderer gave it.
    pub command: String,
    /// What was asked.
    pub verb: String,
    pub actor: Actor,
    /// Its arguments as JSON.
    pub args: String,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// The outcome on the wire: `done`, `rejected` …
    pub outcome: String,
    pub code: String,
    pub detail: String,
    /// It came again, and got the first answer.
    pub repeated: bool,
    /// Commands like it that were not told, since they came too fast.
    pub untold: u64,
}

fn text(text: &str, bytes_max: usize) -> Value {
    if text.len() <= bytes_max {
        return Value::Text(text.into());
    }
    let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at + 3 <= bytes_max).last().unwrap_or(0);
    Value::Text(format!("{}…", text.get(..cut).unwrap_or_default()).into())
}

impl Entry {
    fn params(&self) -> BTreeMap<String, Value> {
        [
            ("command", text(&self.command, TEXT_VALUE_BYTES_MAX)),
            ("verb", text(&self.verb, TEXT_VALUE_BYTES_MAX)),
            ("operator", text(&self.actor.operator, TEXT_VALUE_BYTES_MAX)),
            ("source", text(&self.actor.source.text(), TEXT_VALUE_BYTES_MAX)),
            ("reason", text(&self.actor.reason, TEXT_VALUE_BYTES_MAX)),
            ("args", text(&self.args, ARGS_BYTES_MAX)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// It is being carried out.
    pub fn ordered(&self, at: &Stamp) -> Draft {
        let words = Text {
            zh: format!("执行命令 {}", self.verb),
            en: format!("command {} is carried out", self.verb),
        };
        Draft::of_gateway(at, None, (COMMAND_ORDERED, None), self.params(), words)
    }

    /// What became of it; also of one that was never carried out.
    pub fn ended(&self, at: &Stamp, ended: &Ended) -> Draft {
        let mut params = self.params();
        params.extend([
            ("outcome".to_owned(), Value::Text(ended.outcome.as_str().into())),
            ("code".to_owned(), Value::Text(ended.code.as_str().into())),
            ("detail".to_owned(), text(&ended.detail, TEXT_VALUE_BYTES_MAX)),
        ]);
        if ended.repeated {
            params.insert("repeated".to_owned(), Value::Bool(true));
        }
        if ended.untold > 0 {
            params.insert("untold".to_owned(), Value::Int(i64::try_from(ended.untold).unwrap_or(i64::MAX)));
        }
        let words = Text {
            zh: format!("命令 {} 的结果：{}", self.verb, ended.outcome),
            en: format!("command {}: {}", self.verb, ended.outcome),
        };
        Draft::of_gateway(at, None, (COMMAND_ENDED, None), params, words)
    }
}

/// The event, if it belongs to the trail.
pub fn entry(record: &Record) -> Option<&Event> {
    own(record, COMMAND_ORDERED).or_else(|| own(record, COMMAND_ENDED))
}

/// Whether an event of the gateway itself is about a command and so for nobody but whoever gave it.
pub fn is_private(event: &Event) -> bool {
    event.device.is_gateway()
        && [COMMAND_ORDERED, COMMAND_ENDED, ALARM_ORDERED].contains(&event.name.as_str())
}

/// Whether such an event is about a command of this platform.
pub fn is_of(event: &Event, uplink: &UplinkName) -> bool {
    let of = Origin::Platform(uplink.clone()).text();
    matches!(event.params.get("source"), Some(Value::Text(source)) if **source == *of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::BootId;
    use crate::model::record::Body;
    use crate::model::stamp::ClockTrust;

    #[test]
    fn the_trail_says_who_what_and_how_it_ended() {
        let at = Stamp { boot: BootId("b".into()), mono_ms: 1, wall_ms: 2, trust: ClockTrust::Ntp };
        let street = UplinkName::new("street").unwrap();
        let actor = Actor {
            operator: "duty-07".to_owned(),
            source: Origin::Platform(street.clone()),
            reason: "a fire drill".to_owned(),
        };
        let entry = Entry {
            command: "c-1".to_owned(),
            verb: "speak".to_owned(),
            actor,
            args: format!("{{\"text\":\"{}\"}}", "请注意".repeat(300)),
        };
        let ended =
            Ended { outcome: "rejected".to_owned(), code: "not_possible".to_owned(), ..Ended::default() };
        for draft in [entry.ordered(&at), entry.ended(&at, &ended)] {
            let Body::Event(event) = draft.body else { panic!("no event") };
            assert!(is_private(&event) && is_of(&event, &street));
            assert!(!is_of(&event, &UplinkName::new("stree").unwrap()));
            assert_eq!(event.params["operator"], Value::Text("duty-07".into()));
            let Value::Text(args) = &event.params["args"] else { panic!("no text") };
            assert!(args.ends_with('…') && args.len() <= ARGS_BYTES_MAX, "{}", args.len());
        }
    }
}
