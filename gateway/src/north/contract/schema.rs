//! JSON Schemas (draft-07, which AsyncAPI reads too) of every message, made from the types.
//!
//! Schemas say what must be there, and leave room for what later releases add: no closed objects, no closed
//! enumerations.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::envelope::{Sequenced, Unsequenced};
use super::topics::UpKind;
use super::{down, orders, wire};

/// CloudEvents `type` of each message.
pub const STATE: &str = "gatehouse.state.v1";
pub const SNAPSHOT: &str = "gatehouse.snapshot.v1";
pub const ALARM: &str = "gatehouse.alarm.v1";
pub const EVENT: &str = "gatehouse.event.v1";
pub const GAP: &str = "gatehouse.gap.v1";
pub const TELEMETRY: &str = "gatehouse.telemetry.v1";
pub const COMMAND_RESULT: &str = "gatehouse.command.result.v1";

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the gateway.
    Up,
    /// From the platform.
    Down,
}

/// A message of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Name of its schema and golden files.
    pub name: &'static str,
    pub direction: Direction,
    /// CloudEvents `type`; none downwards.
    pub r#type: Option<&'static str>,
    pub title: &'static str,
    /// Topics below `{root}/v1/{gateway}/`.
    pub topics: &'static [&'static str],
    pub retained: bool,
    /// Whether it bears `sequence` and `previous`.
    pub sequenced: bool,
    generate: fn() -> Value,
}

fn generated<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

const fn up(
    name: &'static str,
    r#type: &'static str,
    title: &'static str,
    topics: &'static [&'static str],
    generate: fn() -> Value,
) -> Kind {
    let direction = Direction::Up;
    Kind { name, direction, r#type: Some(r#type), title, topics, retained: false, sequenced: true, generate }
}

const fn down(
    name: &'static str,
    title: &'static str,
    topics: &'static [&'static str],
    generate: fn() -> Value,
) -> Kind {
    let direction = Direction::Down;
    Kind { name, direction, r#type: None, title, topics, retained: false, sequenced: false, generate }
}

/// All messages.
pub const KINDS: [Kind; 10] = [
    Kind {
        retained: true,
        sequenced: false,
        ..up(
            "state",
            STATE,
            "State of the gateway (网关状态)",
            &["up/state"],
            generated::<Unsequenced<wire::State>>,
        )
    },
    Kind {
        sequenced: false,
        ..up(
            "snapshot",
            SNAPSHOT,
            "A page of the snapshot (快照)",
            &["up/snapshot", "up/test/snapshot"],
            generated::<Unsequenced<wire::Snapshot>>,
        )
    },
    up(
        "alarm",
        ALARM,
        "An alarm (告警)",
        &["up/alarm", "up/test/alarm"],
        generated::<Sequenced<wire::Alarm>>,
    ),
    up(
        "event",
        EVENT,
        "An event (事件)",
        &["up/event/{category}", "up/test/event/{category}"],
        generated::<Sequenced<wire::Event>>,
    ),
    up(
        "gap",
        GAP,
        "A gap record (缺口记录)",
        &["up/ledger", "up/test/ledger"],
        generated::<Sequenced<wire::Gap>>,
    ),
    up(
        "telemetry",
        TELEMETRY,
        "Values (遥测)",
        &["up/telemetry", "up/history/telemetry", "up/test/telemetry", "up/test/history/telemetry"],
        generated::<Sequenced<wire::Telemetry>>,
    ),
    Kind {
        sequenced: false,
        ..up(
            "command-result",
            COMMAND_RESULT,
            "An answer to a command (命令结果)",
            &["up/command/result"],
            generated::<Unsequenced<wire::Answer>>,
        )
    },
    down("command", "A command (命令)", &["down/command"], generated::<down::CommandMessage>),
    down("receipt", "A receipt (回执)", &["down/receipt"], generated::<down::ReceiptMessage>),
    down("time", "The time (授时)", &["down/time"], generated::<down::TimeMessage>),
];

impl Kind {
    /// The kind that a topic carries; none for evidence and for what later versions add.
    pub fn of(topic: &UpKind) -> Option<&'static Self> {
        let name = match topic {
            UpKind::State => "state",
            UpKind::Snapshot => "snapshot",
            UpKind::Alarm => "alarm",
            UpKind::Event(_) => "event",
            UpKind::Telemetry | UpKind::HistoryTelemetry => "telemetry",
            UpKind::Ledger => "gap",
            UpKind::CommandResult => "command-result",
            UpKind::Evidence(_) | UpKind::Unknown => return None,
        };
        Self::named(name)
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The JSON Schema of the message.
    pub fn schema(&self) -> Value {
        let mut schema = (self.generate)();
        tidy(&mut schema);
        if let (Some(r#type), Some(property)) = (self.r#type, schema.pointer_mut("/properties/type")) {
            *property = json!({ "const": r#type, "description": "What `data` is." });
        }
        if let Some(Value::Object(version)) = schema.pointer_mut("/properties/specversion") {
            version.insert("const".to_owned(), json!("1.0"));
        }
        let mut named = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": self.title,
        });
        if let (Value::Object(named), Value::Object(schema)) = (&mut named, schema) {
            named.extend(schema.into_iter().filter(|(key, _)| key != "$schema" && key != "title"));
        }
        if self.name == "command" {
            arguments(&mut named);
        }
        named
    }
}

/// Commands that take the same arguments, and their type.
type Arguments = (&'static [&'static str], fn() -> Value);

const ARGUMENTS: [Arguments; 13] = [
    (&["replay"], generated::<down::ReplayMessage>),
    (
        &["alarm.acknowledge", "alarm.close", "alarm.unshelve", "alarm.out_of_service", "alarm.in_service"],
        generated::<orders::AlarmArgs>,
    ),
    (&["alarm.assign"], generated::<orders::AssignArgs>),
    (&["alarm.handle"], generated::<orders::HandleArgs>),
    (&["alarm.shelve"], generated::<orders::ShelveArgs>),
    (&["speak"], generated::<orders::SpeakArgs>),
    (&["speak.stop"], generated::<orders::HushArgs>),
    (&["door.open", "door.reset"], generated::<orders::DoorArgs>),
    (&["relay"], generated::<orders::RelayArgs>),
    (&["set"], generated::<orders::SetArgs>),
    (&["snapshot"], generated::<orders::SnapshotArgs>),
    (&["diagnose"], generated::<orders::DiagnoseArgs>),
    (&["rules.put"], generated::<orders::RulesArgs>),
];

/// Arguments depend on the command.
fn arguments(schema: &mut Value) {
    let cases = ARGUMENTS.map(|(commands, generate)| {
        let mut args = generate();
        tidy(&mut args);
        let mut then = json!({});
        if let Value::Object(args) = &mut args {
            args.remove("title");
            // A box refuses what it does not know; a later one knows more.
            args.remove("additionalProperties");
            if args.contains_key("required") {
                then = json!({ "required": ["args"] });
            }
        }
        if let Value::Object(then) = &mut then {
            then.insert("properties".to_owned(), json!({ "args": args }));
        }
        json!({ "if": { "properties": { "command": { "enum": commands } } }, "then": then })
    });
    if let Value::Object(schema) = schema {
        schema.insert("allOf".to_owned(), cases.to_vec().into());
    }
}

/// Takes out what only Rust needs: number formats of its own, and null for what may be absent (it is never sent).
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            let rusty = map.get("format").and_then(Value::as_str).is_some_and(|format| format != "date-time");
            if rusty {
                map.remove("format");
            }
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|one| *one != json!({ "type": "null" }));
                if let [only] = choices.as_mut_slice() {
                    let only = only.take();
                    map.remove("anyOf");
                    if let Value::Object(only) = only {
                        for (key, value) in only {
                            map.entry(key).or_insert(value);
                        }
                    }
                }
            }
            map.values_mut().for_each(tidy);
        }
        _ => {}
    }
}
