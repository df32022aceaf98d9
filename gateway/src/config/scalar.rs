//! Single values against their schema: type, bounds, words. Must not know tables.

#![warn(clippy::indexing_slicing)]

use serde_json::Value;
use toml::de::{DeInteger, DeValue};

use super::report::Note;
use super::syntax::Node;

/// The pattern of `model::ids` names, to speak of it in words.
pub(super) const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";

/// What a value is, for a person.
pub(super) fn kind(node: &Node<'_>) -> &'static str {
    match node.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What the schema expects instead, if the type is wrong.
pub(super) fn wrong_type(node: &Node<'_>, schema: &Value) -> Option<String> {
    let types = types(schema);
    if types.is_empty() {
        return None;
    }
    let fits = types.iter().any(|name| {
        matches!(
            (node.get_ref(), *name),
            (DeValue::String(_), "string")
                | (DeValue::Integer(_), "integer" | "number")
                | (DeValue::Float(_), "number")
                | (DeValue::Boolean(_), "boolean")
                | (DeValue::Array(_), "array")
                | (DeValue::Table(_), "object")
        )
    });
    if fits {
        return None;
    }
    let expected: Vec<&str> = types
        .iter()
        .filter_map(|name| match *name {
            "string" => Some("a text"),
            "integer" => Some("a whole number"),
            "number" => Some("a number"),
            "boolean" => Some("true or false"),
            "array" => Some("a list"),
            "object" => Some("a table"),
            _ => None,
        })
        .collect();
    Some(expected.join(" or "))
}

/// How the same value is written in the right type, if that is plain.
pub(super) fn type_hint(node: &Node<'_>, schema: &Value) -> Option<String> {
    let types = types(schema);
    let has = |name: &str| types.contains(&name);
    match node.get_ref() {
        DeValue::String(text) if has("boolean") && matches!(&**text, "true" | "false") => {
            Some(format!("write {text} without quotes"))
        }
        DeValue::String(text) if has("boolean") && matches!(&**text, "yes" | "on") => {
            Some("write true".to_owned())
        }
        DeValue::String(text) if has("boolean") && matches!(&**text, "no" | "off") => {
            Some("write false".to_owned())
        }
        DeValue::String(text) if has("integer") && text.trim().parse::<i64>().is_ok() => {
            Some(format!("write {} without quotes", text.trim()))
        }
        DeValue::String(text) if has("number") && text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            Some(format!("write {} without quotes", text.trim()))
        }
        DeValue::Integer(number) if has("string") => Some(format!("write \"{number}\" with quotes")),
        DeValue::Float(number) if has("string") => Some(format!("write \"{}\" with quotes", number.as_str())),
        DeValue::Boolean(value) if has("string") => Some(format!("write \"{value}\" with quotes")),
        DeValue::String(text) if has("array") => Some(format!("write [{text:?}]")),
        DeValue::Integer(number) if has("array") => Some(format!("write [{number}]")),
        DeValue::Float(number) if has("array") => Some(format!("write [{}]", number.as_str())),
        DeValue::Table(_) if has("array") => {
            Some("a list of tables has two brackets around its header, [[…]]".to_owned())
        }
        DeValue::Array(_) if has("object") => {
            Some("a single table has one bracket around its header, […]".to_owned())
        }
        DeValue::String(_) if has("object") => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let keys: Vec<String> =
                required.filter_map(Value::as_str).map(|key| format!("{key} = …")).collect();
            (!keys.is_empty()).then(|| format!("write {{ {} }}", keys.join(", ")))
        }
        _ => None,
    }
}

/// The words a schema allows: `enum` or `const`.
pub(super) fn words(schema: &Value) -> impl Iterator<Item = &str> {
    let several = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    several.chain(schema.get("const")).filter_map(Value::as_str)
}

/// Bounds of a number, also those that its width sets.
pub(super) fn number(node: &Node<'_>, schema: &Value, path: &[String]) -> Option<Note> {
    let key = path.last().map_or("", String::as_str);
    let value: f64 = match node.get_ref() {
        DeValue::Integer(number) if !types(schema).contains(&"number") => {
            return whole(number, schema).map(|(message, hint)| {
                Note::error(node.span(), format!("`{key}` is {message}")).maybe_hint(hint)
            });
        }
        DeValue::Integer(number) => number.to_string().parse().ok()?,
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok()?,
        _ => return None,
    };
    if !value.is_finite() {
        return Some(Note::error(node.span(), format!("`{key}` must be a finite number")));
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (least, most) = (bound("minimum"), bound("maximum"));
    let outside = least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most);
    let range = || allowed(least.map(|n| n.to_string()), most.map(|n| n.to_string()));
    outside.then(|| Note::error(node.span(), format!("`{key}` is {value}, allowed is {}", range())))
}

fn whole(number: &DeInteger<'_>, schema: &Value) -> Option<(String, Option<String>)> {
    let (width_least, width_most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64" | "uint") => (0, i128::from(i64::MAX)),
        Some("int8") => (i128::from(i8::MIN), i128::from(i8::MAX)),
        Some("int16") => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let bound = |name: &str, width: i128| {
        let stated = schema.get(name)?;
        let stated = stated.as_i64().map(i128::from).or_else(|| stated.as_u64().map(i128::from))?;
        Some(if name == "minimum" { stated.max(width) } else { stated.min(width) })
    };
    let least = bound("minimum", width_least).unwrap_or(width_least);
    let most = bound("maximum", width_most).unwrap_or(width_most);
    let range = allowed(Some(least.to_string()), Some(most.to_string()));
    // What does not even fit 128 bits is out of every range.
    let Ok(value) = i128::from_str_radix(number.as_str(), number.radix()) else {
        return Some((format!("too large, allowed is {range}"), None));
    };
    let hint = match value {
        small if small < least => format!("the least is {least}"),
        large if large > most => format!("the most is {most}"),
        _ => return None,
    };
    Some((format!("{value}, allowed is {range}"), Some(hint)))
}

fn allowed(least: Option<String>, most: Option<String>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} and more"),
        (None, Some(most)) => format!("up to {most}"),
        (None, None) => "any number".to_owned(),
    }
}

/// What a text of a known `format` must look like, if it does not. Formats are the house's own words in the types'
/// schemas; serde would find the same mistake, but only the first of each part.
pub(super) fn wrong_format(text: &str, schema: &Value) -> Option<&'static str> {
    match schema.get("format").and_then(Value::as_str)? {
        ADDRESS_FORMAT if text.parse::<std::net::SocketAddr>().is_err() => {
            Some("an IP address and a port, like \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::1]:1883\"")
        }
        _ => None,
    }
}

/// `format` of a socket address in the types' schemas.
const ADDRESS_FORMAT: &str = "ip-and-port";

/// Whether a schema is that of a socket address.
pub(super) fn is_address(schema: &Value) -> bool {
    schema.get("format").and_then(Value::as_str) == Some(ADDRESS_FORMAT)
}
