//! docs/platform/ is what the types say: a stale file fails, and `UPDATE_DOCS=1` writes it anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::super::schema::{Direction, KINDS, Kind};
use super::super::*;
use super::fixtures as f;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/platform")
}

fn assert_current(path: &std::path::Path, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{} is stale: run the tests with UPDATE_DOCS=1", path.display());
}

#[test]
fn the_schemas_are_what_the_types_say() {
    for kind in &KINDS {
        let text = format!("{}\n", serde_json::to_string_pretty(&kind.schema()).unwrap());
        assert_current(&directory().join(format!("schemas/{}.json", kind.name)), &text);
    }
    let files = std::fs::read_dir(directory().join("schemas")).unwrap().count();
    assert_eq!(files, KINDS.len(), "a schema without a message, or the other way round");
}

#[test]
fn the_asyncapi_document_is_what_the_types_say() {
    let head = "# Generated from the types in gateway/src/north/contract; UPDATE_DOCS=1 writes it anew.\n";
    let text = format!("{head}{}", asyncapi::yaml(&asyncapi::document()));
    assert_current(&directory().join("asyncapi.yaml"), &text);
}

/// Closes every object, so that a field that no schema describes is found.
fn closed(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(closed),
        Value::Object(map) => {
            if map.contains_key("properties") && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            map.iter_mut()
                .filter(|(key, _)| *key != "if" && *key != "then")
                .for_each(|(_, value)| closed(value));
        }
        _ => {}
    }
}

/// Of each kind, the published schema and the same with every object closed.
static VALIDATORS: LazyLock<BTreeMap<&str, [Validator; 2]>> = LazyLock::new(|| {
    let build = |schema: &Value| jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let both = |kind: &Kind| {
        let open = kind.schema();
        let mut shut = open.clone();
        closed(&mut shut);
        (kind.name, [build(&open), build(&shut)])
    };
    KINDS.iter().map(both).collect()
});

/// The message fits the published schema, and that schema with every object closed.
pub(super) fn assert_valid(kind: &Kind, message: &Value, whence: &str) {
    let errors = |validator: &Validator| -> Vec<String> {
        validator.iter_errors(message).map(|error| format!("{error} at {}", error.instance_path())).collect()
    };
    let [open, shut] = &VALIDATORS[kind.name];
    assert_eq!(errors(open), Vec::<String>::new(), "{whence} against {}", kind.name);
    // What platforms may add is theirs.
    if kind.direction == Direction::Up {
        assert_eq!(errors(shut), Vec::<String>::new(), "{whence}: a field is not documented");
    }
}

/// Blocks fenced as json with the name of a message behind it, with their line.
fn examples(text: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((line, start)) = lines.next() {
        let Some(name) = start.trim().strip_prefix("```json") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        found.push((line + 1, name.trim().to_owned(), body.join("\n")));
    }
    found
}

#[test]
fn the_examples_for_platforms_are_valid() {
    let path = directory().join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let examples = examples(&text);
    for kind in &KINDS {
        assert!(examples.iter().any(|(_, name, _)| name == kind.name), "README.md shows no {}", kind.name);
    }
    for (line, name, body) in examples {
        let whence = format!("{}:{line}", path.display());
        let kind = Kind::named(&name).unwrap_or_else(|| panic!("{whence}: no message is called {name:?}"));
        let message: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{whence}: {error}"));
        assert_valid(kind, &message, &whence);
        if kind.direction == Direction::Down {
            let topics = f::topics();
            let topic = format!("gatehouse/v1/box-0001/{}", kind.topics[0]);
            let down = parse_down(&topics, &topic, body.as_bytes(), false);
            assert!(down.is_ok(), "{whence}: {down:?}");
        }
    }
}

#[test]
fn a_schema_leaves_room_for_what_comes_later() {
    fn assert_open(schema: &Value, at: &str) {
        match schema {
            Value::Object(map) => {
                let closed = map.get("additionalProperties") == Some(&Value::Bool(false));
                assert!(!closed, "{at} is closed");
                map.iter().for_each(|(key, value)| assert_open(value, &format!("{at}/{key}")));
            }
            Value::Array(items) => items.iter().for_each(|item| assert_open(item, at)),
            _ => {}
        }
    }
    for kind in &KINDS {
        assert_open(&kind.schema(), kind.name);
    }
    let mut event: Value =
        serde_json::from_slice(&std::fs::read(super::golden::directory().join("event.json")).unwrap())
            .unwrap();
    event["data"]["category"] = "flood".into();
    event["data"]["added"] = 1.into();
    let validator = jsonschema::validator_for(&Kind::named("event").unwrap().schema()).unwrap();
    assert!(validator.is_valid(&event));
    let read: envelope::Sequenced<wire::Event> = serde_json::from_value(event.clone()).unwrap();
    assert_eq!(read.data.category, wire::Open::Other("flood".to_owned()));
    event["sequence"] = 5.into();
    assert!(!validator.is_valid(&event), "a number in place of 16 digits must not pass");
}
