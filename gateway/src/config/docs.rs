//! docs/configuration.md from the types: each table with its keys, types, defaults and meanings.
//!
//! The head is written by hand here; a test fails when the file in docs/ is stale.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::Settings;
use super::scalar::NAME_PATTERN;
use crate::south::profile::Profile;

const HEAD: &str = include_str!("head.md");

/// Longest pattern that is shown.
const PATTERN_SHOWN_MAX: usize = 16;

const PROFILES_HEAD: &str = "
## Profiles

A profile describes a device model as data: `NAME.toml`, where NAME is what a device's `profile` says. Gatehouse brings
some along (docs/devices.md lists them); a file in `profiles_dir` adds one, or replaces one of the same name. Below,
the tables are those of a profile's own file.
";

/// The text of docs/configuration.md.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let settings = schemars::schema_for!(Settings).to_value();
    Writer { root: &settings, level: "##", told: BTreeSet::new(), out: &mut out }.sections();
    out.push_str(PROFILES_HEAD);
    let profile = schemars::schema_for!(Profile).to_value();
    Writer { root: &profile, level: "###", told: BTreeSet::new(), out: &mut out }.sections();
    out
}

/// Writes the tables of one schema, each once.
#[derive(Debug)]
struct Writer<'a> {
    root: &'a Value,
    level: &'static str,
    told: BTreeSet<String>,
    out: &'a mut String,
}

/// A table still to be written: its path, its schema, and what it is called in the definitions.
#[derive(Debug)]
struct Section<'a> {
    path: Vec<String>,
    schema: &'a Value,
    /// One of a list of tables.
    listed: bool,
}

impl<'a> Writer<'a> {
    fn sections(&mut self) {
        let mut waiting = vec![Section { path: Vec::new(), schema: self.root, listed: false }];
        while !waiting.is_empty() {
            let section = waiting.remove(0);
            let below = self.section(&section);
            // A table's own tables follow it at once.
            waiting.splice(0..0, below);
        }
    }

    /// Writes one table and returns those below it.
    fn section(&mut self, section: &Section<'a>) -> Vec<Section<'a>> {
        let (schema, definition) = self.resolve(section.schema);
        let below = |key: &str| section.path.iter().cloned().chain([key.to_owned()]).collect::<Vec<_>>();
        if let Some(kinds) = schema.get("oneOf").and_then(Value::as_array) {
            let kinds = kinds.iter().filter_map(|kind| kind.get("properties")?.as_object()?.iter().next());
            return kinds
                .map(|(kind, schema)| Section { path: below(kind), schema, listed: false })
                .collect();
        }
        if let Some(inner) = entry_schema(schema) {
            return vec![Section { path: below(placeholder(&section.path)), schema: inner, listed: false }];
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
        let mut tables = Vec::new();
        let mut rows = Vec::new();
        let required: BTreeSet<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (key, property) in properties {
            let needed = required.contains(&**key);
            if self.is_table(property) {
                tables.push((!needed, Section { path: below(key), schema: property, listed: false }));
            } else if let Some(inner) =
                self.resolve(property).0.get("items").filter(|inner| self.is_table(inner))
            {
                tables.push((!needed, Section { path: below(key), schema: inner, listed: true }));
            }
            if !(section.path.is_empty() && self.is_table(property)) {
                rows.push((!needed, self.row(key, property, needed)));
            }
        }
        // What must be written stands first, then the order of the alphabet.
        rows.sort();
        tables.sort_by_key(|(optional, _)| *optional);
        let first = definition.is_none_or(|name| self.told.insert(name.to_owned()));
        if !rows.is_empty() {
            self.heading(section, schema);
            if !first {
                let at = definition.unwrap_or_default().to_lowercase();
                self.line(&format!("The same keys as [above](#{}).", anchor(&at)));
                return Vec::new();
            }
            if let Some(name) = definition {
                self.line(&format!("<a id=\"{}\"></a>\n", anchor(&name.to_lowercase())));
            }
            self.line("| key | type | default | meaning |\n|---|---|---|---|");
            for (_, row) in &rows {
                self.line(row);
            }
        }
        tables.into_iter().map(|(_, table)| table).collect()
    }

    fn heading(&mut self, section: &Section<'_>, inner: &Value) {
        let Section { path, schema: outer, listed } = section;
        let name = match (path.is_empty(), listed) {
            (true, _) => "(top of the file)".to_owned(),
            (false, true) => format!("[[{}]]", path.join(".")),
            (false, false) => format!("[{}]", path.join(".")),
        };
        let text = outer.get("description").or_else(|| inner.get("description")).and_then(Value::as_str);
        let level = self.level;
        self.line(&format!("\n{level} `{name}`\n\n{}\n", joined(text.unwrap_or(""))));
    }

    fn row(&self, key: &str, property: &Value, required: bool) -> String {
        let (schema, _) = self.resolve(property);
        let meaning =
            property.get("description").or_else(|| schema.get("description")).and_then(Value::as_str);
        let default = match property.get("default").or_else(|| schema.get("default")) {
            _ if required => "**required**".to_owned(),
            Some(Value::Null) | None => "–".to_owned(),
            Some(Value::Object(_)) => "–".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let meaning = format!("{}{}", joined(meaning.unwrap_or("")), Self::word_meanings(schema));
        let cells = [format!("`{key}`"), self.kind(key, property), default, meaning];
        format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
    }

    /// What a value looks like, in words.
    fn kind(&self, key: &str, property: &Value) -> String {
        let (schema, definition) = self.resolve(property);
        let words = self.words(schema);
        if !words.is_empty() {
            return format!("one of {}", words.join(", "));
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match types.iter().find(|name| **name != "null") {
            Some(&"boolean") => "true or false".to_owned(),
            Some(&"integer") => format!("whole number{}", range(schema, "minimum", "maximum", "")),
            Some(&"number") => format!("number{}", range(schema, "minimum", "maximum", "")),
            Some(&"array") => {
                let inner =
                    schema.get("items").map_or_else(|| "value".to_owned(), |items| self.kind(key, items));
                format!("list: {inner}{}", range(schema, "minItems", "maxItems", " entries"))
            }
            Some(&"object") => match (definition, entry_schema(schema)) {
                (Some(name), _) => format!("[table](#{})", anchor(&name.to_lowercase())),
                (None, Some(inner)) => format!("table: any key = {}", self.kind("", inner)),
                (None, None) => "table".to_owned(),
            },
            Some(&"string") => text_kind(key, schema),
            _ if schema.get("anyOf").is_some() || schema.get("oneOf").is_some() => {
                let choices = ["anyOf", "oneOf"].iter().filter_map(|name| schema.get(*name)?.as_array());
                let kinds: Vec<String> = choices.flatten().map(|choice| self.kind(key, choice)).collect();
                kinds.join(" or ")
            }
            _ => "any value".to_owned(),
        }
    }

    /// What each word of an enumeration means, where the types say it.
    fn word_meanings(schema: &Value) -> String {
        let choices = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let told = choices.filter_map(|choice| {
            let word = choice.get("const")?.as_str()?;
            Some(format!(" `{word}`: {}", joined(choice.get("description")?.as_str()?)))
        });
        told.collect()
    }

    fn words(&self, schema: &Value) -> Vec<String> {
        let choices = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let alternatives = choices.map(|choice| self.resolve(choice).0);
        std::iter::once(schema)
            .chain(alternatives)
            .flat_map(|schema| {
                super::scalar::words(schema).map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>()
            })
            .collect()
    }

    fn is_table(&self, property: &Value) -> bool {
        let (schema, _) = self.resolve(property);
        schema.get("type").and_then(Value::as_str) == Some("object")
    }

    /// Follows references and `Option`; also tells the definition's name.
    fn resolve(&self, mut schema: &'a Value) -> (&'a Value, Option<&'a str>) {
        let mut name = None;
        loop {
            let reference = schema.get("$ref").and_then(Value::as_str);
            let only = schema.get("anyOf").and_then(Value::as_array).and_then(|choices| {
                let mut real =
                    choices.iter().filter(|choice| choice.get("type") != Some(&Value::from("null")));
                real.next().filter(|_| real.next().is_none())
            });
            let target = reference.and_then(|reference| self.root.pointer(reference.trim_start_matches('#')));
            match target.or(only) {
                Some(next) => {
                    name = reference.and_then(|reference| reference.rsplit('/').next()).or(name);
                    schema = next;
                }
                None => return (schema, name),
            }
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        if writeln!(self.out, "{text}").is_err() {
            self.out.push('\n');
        }
    }
}

/// The schema of a map's entries.
fn entry_schema(schema: &Value) -> Option<&Value> {
    let named =
        schema.get("patternProperties").and_then(Value::as_object).and_then(|map| map.values().next());
    named.or_else(|| schema.get("additionalProperties").filter(|open| open.is_object()))
}

fn placeholder(path: &[String]) -> &'static str {
    match path.last().map(String::as_str) {
        Some("devices") => "ID",
        _ => "NAME",
    }
}

fn text_kind(key: &str, schema: &Value) -> String {
    if super::scalar::is_address(schema) {
        return "IP address and port".to_owned();
    }
    if key.ends_with("_file") || key.ends_with("_dir") || key == "socket" {
        return "path".to_owned();
    }
    match schema.get("pattern").and_then(Value::as_str) {
        Some(NAME_PATTERN) => "name".to_owned(),
        // Longer patterns are for programs; the meaning says the same in words.
        Some(pattern) if pattern.len() <= PATTERN_SHOWN_MAX => format!("text like `{pattern}`"),
        _ => format!("text{}", range(schema, "minLength", "maxLength", " characters")),
    }
}

fn range(schema: &Value, least: &str, most: &str, unit: &str) -> String {
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
        (Some(least), None) => format!(", {least} and more{unit}"),
        (None, Some(most)) => format!(", up to {most}{unit}"),
        (None, None) => String::new(),
    }
}

fn anchor(name: &str) -> String {
    format!("t-{name}")
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
