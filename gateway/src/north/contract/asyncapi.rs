//! docs/platform/asyncapi.yaml, made from the catalogue of messages.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::CONTRACT;
use super::schema::{Direction, KINDS, Kind};

const DESCRIPTION: &str = "What a Gatehouse box says to a platform, and what a platform may say to it. \
Version 1 only adds: no field is removed, renamed or given another type, and enumerations are open. \
README.md beside this file explains it.";

/// What each level of a topic means, beside the fixed ones.
const PARAMETERS: [(&str, &str); 3] = [
    ("root", "First levels of every topic, as agreed with the platform; may itself hold several levels."),
    ("gateway", "The box's name, one per box."),
    ("category", "access, emergency, fall, intrusion, fire, vehicle, care, device; open."),
];

/// The AsyncAPI 3.0 document.
pub fn document() -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for kind in &KINDS {
        messages.insert(kind.name.to_owned(), message(kind));
        for topic in kind.topics {
            let name = camel(topic);
            channels.insert(name.clone(), channel(kind, topic));
            operations.insert(format!("{}{}", verb(kind), capital(&name)), operation(kind, &name));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Gatehouse platform contract",
            "version": CONTRACT,
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}

/// The document is written from the box's side: it sends what goes up.
const fn verb(kind: &Kind) -> &'static str {
    match kind.direction {
        Direction::Up => "send",
        Direction::Down => "receive",
    }
}

fn message(kind: &Kind) -> Value {
    let mut message = json!({
        "name": kind.name,
        "title": kind.title,
        "contentType": "application/json",
        "payload": { "$ref": format!("./schemas/{}.json", kind.name) },
    });
    if let (Some(r#type), Value::Object(message)) = (kind.r#type, &mut message) {
        message.insert(
            "summary".to_owned(),
            json!(format!("CloudEvents 1.0, structured mode, type {}", r#type)),
        );
    }
    message
}

fn channel(kind: &Kind, topic: &str) -> Value {
    let address = format!("{{root}}/v1/{{gateway}}/{topic}");
    let mut parameters = Map::new();
    for (name, description) in PARAMETERS {
        if address.contains(&format!("{{{name}}}")) {
            parameters.insert(name.to_owned(), json!({ "description": description }));
        }
    }
    let mut messages = Map::new();
    messages.insert(kind.name.to_owned(), json!({ "$ref": format!("#/components/messages/{}", kind.name) }));
    json!({
        "address": address,
        "title": kind.title,
        "parameters": parameters,
        "messages": messages,
    })
}

fn operation(kind: &Kind, channel: &str) -> Value {
    json!({
        "action": verb(kind),
        "channel": { "$ref": format!("#/channels/{channel}") },
        "messages": [{ "$ref": format!("#/channels/{channel}/messages/{}", kind.name) }],
        "bindings": { "mqtt": { "qos": 1, "retain": kind.retained, "bindingVersion": "0.2.0" } },
    })
}

/// `up/event/{category}` as `upEventCategory`.
fn camel(topic: &str) -> String {
    let words = topic.split('/').map(|level| level.trim_matches(['{', '}']));
    words.enumerate().map(|(index, word)| if index == 0 { word.to_owned() } else { capital(word) }).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// JSON as block-style YAML: keys plain where they are, texts in double quotes, which YAML reads as JSON does.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) if !map.is_empty() => None,
        Value::Array(items) if !items.is_empty() => None,
        other => Some(other.to_string()),
    }
}

fn key(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if plain && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, value)| (format!("{}:", key(name)), value)).collect(),
        Value::Array(items) => items.iter().map(|item| ("-".to_owned(), item)).collect(),
        _ => Vec::new(),
    };
    for (lead, value) in entries {
        // Writing into a String cannot fail.
        let written = match scalar(value) {
            Some(text) => writeln!(out, "{pad}{lead} {text}"),
            None => writeln!(out, "{pad}{lead}"),
        };
        debug_assert!(written.is_ok());
        if scalar(value).is_none() {
            block(value, indent + 1, out);
        }
    }
}
