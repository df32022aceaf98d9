//! Values of the wire that JSON has no types for: enumerations that later releases add to, and numbers of 64 bits, which
//! JavaScript would round.
//!
//! The doc comments become descriptions in the schemas: they speak to a platform's engineer.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A member of an open enumeration: one that this release knows, or one that a later release added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Open<T> {
    Known(T),
    Other(String),
}

impl<T: JsonSchema> JsonSchema for Open<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Open{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let known = names(&T::json_schema(generator));
        json_schema!({
            "type": "string",
            "anyOf": [
                { "enum": known },
                { "pattern": "^[a-z][a-z0-9_.]{0,63}$", "description": "open: later releases may add members" },
            ],
        })
    }
}

/// The members of an enumeration, wherever the derive put them.
fn names(schema: &Schema) -> Vec<serde_json::Value> {
    let array = |value: &serde_json::Value, key: &str| value.get(key).and_then(|v| v.as_array()).cloned();
    let schema = schema.as_value();
    let mut names = array(schema, "enum").unwrap_or_default();
    for one in array(schema, "oneOf").unwrap_or_default() {
        names.extend(array(&one, "enum").unwrap_or_default());
        names.extend(one.get("const").cloned());
    }
    names
}

/// A record's number within its class and epoch: 16 decimal digits, so that text order is number order and JavaScript
/// keeps every digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016}", self.0)
    }
}

impl Serialize for Sequence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Decimal digits only: `u64::from_str` would also take a sign.
fn digits<E: serde::de::Error>(text: &str) -> Result<u64, E> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| E::custom(format!("{text:?} is no decimal number of 64 bits")))
}

/// A number as text, or as a JSON number where a platform's language makes texts of numbers awkward.
#[derive(Deserialize)]
#[serde(untagged)]
enum Digits<'a> {
    Number(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Digits::deserialize(deserializer) {
        Ok(Digits::Number(number)) => Ok(number),
        Ok(Digits::Text(text)) => digits(&text),
        Err(_neither) => Err(D::Error::custom("expected decimal digits as text, or a whole number")),
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer).map(Self)
    }
}

impl JsonSchema for Sequence {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Sequence".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{16,20}$" })
    }
}

/// Milliseconds since the box booted, as decimal text: CloudEvents' integers have 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer).map(Self)
    }
}

impl JsonSchema for Millis {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Millis".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,20}$" })
    }
}
