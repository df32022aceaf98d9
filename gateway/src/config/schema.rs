//! Walks a tree of values along a JSON Schema and notes every mistake at its place.
//!
//! Own code, and not a general validator, because the messages are the product: it speaks of keys, tables and kinds,
//! and proposes the nearest valid name. It knows the part of JSON Schema that schemars makes of the house's types:
//! type, properties, required, additionalProperties, patternProperties, enum, const, pattern, bounds, lengths, $ref,
//! anyOf with null, and oneOf for enumerations. A keyword it does not know is left to serde, which reads the value
//! afterwards. Must not know what the keys mean.

#![warn(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::report::{Note, printable, secret_key, without_credentials};
use super::scalar;
use super::syntax::Node;

/// Similarity (Jaro-Winkler) from which a name is proposed instead of another.
const ALIKE_MIN: f64 = 0.8;

/// Deepest `$ref` chain and nesting followed.
const DEPTH_MAX: usize = 64;

/// What the walk carries along.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) schema: &'a Value,
    /// Names that syntax mistakes took away: nobody calls them missing.
    pub(super) lost: &'a BTreeSet<String>,
    pub(super) notes: Vec<Note>,
    /// Paths of what is wrong, as deep as can be told: without them the rest of a part may still be read.
    pub(super) bad: BTreeSet<Vec<String>>,
    patterns: BTreeMap<String, Option<regex::Regex>>,
    /// Tables above the current one: their path and schema.
    above: Vec<&'a Value>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(schema: &'a Value, lost: &'a BTreeSet<String>) -> Self {
        Self {
            schema,
            lost,
            notes: Vec::new(),
            bad: BTreeSet::new(),
            patterns: BTreeMap::new(),
            above: Vec::new(),
        }
    }

    /// Checks a whole document. `span` is where it begins.
    pub(super) fn document(&mut self, root: &DeTable<'_>, span: Range<usize>) {
        let schema = self.schema;
        self.table(root, &span, schema, &mut Vec::new());
    }

    /// Whether anything is wrong, told or lost with a syntax mistake.
    pub(super) fn found(&self) -> bool {
        !self.notes.is_empty() || !self.bad.is_empty()
    }

    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..DEPTH_MAX {
            let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
            if let Some(next) = target.and_then(|pointer| self.schema.pointer(pointer)) {
                schema = next;
                continue;
            }
            // `Option<T>`: null cannot be written in TOML.
            let choices = schema.get("anyOf").and_then(Value::as_array);
            let mut real = choices.into_iter().flatten().filter(|choice| !is_null(choice));
            match (real.next(), real.next()) {
                (Some(only), None) => schema = only,
                _ => return schema,
            }
        }
        schema
    }

    pub(super) fn value(&mut self, node: &Node<'_>, schema: &'a Value, path: &mut Vec<String>) {
        if path.len() > DEPTH_MAX {
            self.notes.push(Note::error(node.span(), "tables are nested too deep"));
            return;
        }
        let schema = self.resolve(schema);
        for several in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(several).and_then(Value::as_array) {
                self.choice(node, choices, path);
                return;
            }
        }
        if let Some(expected) = scalar::wrong_type(node, schema) {
            let key = path.last().map_or("", String::as_str);
            let note =
                Note::error(node.span(), format!("`{key}` must be {expected}, not {}", scalar::kind(node)));
            self.notes.push(note.maybe_hint(scalar::type_hint(node, schema)));
            return;
        }
        match node.get_ref() {
            DeValue::Table(table) => self.table(table, &node.span(), schema, path),
            DeValue::Array(items) => {
                self.length(node, schema, items.len(), ["minItems", "maxItems"], "entries", path);
                if let Some(schema) = schema.get("items") {
                    items.iter().for_each(|item| self.value(item, schema, path));
                }
            }
            DeValue::String(text) => self.text(node, text, schema, path),
            _ => self.notes.extend(scalar::number(node, schema, path)),
        }
    }

    fn table(&mut self, table: &DeTable<'_>, span: &Range<usize>, schema: &'a Value, path: &mut Vec<String>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let open = schema.get("additionalProperties");
        self.above.push(schema);
        let mut meant = BTreeSet::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            path.push(name.to_owned());
            let found = (self.notes.len(), self.bad.len());
            if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
                self.value(value, schema, path);
            } else if let Some((pattern, schema)) = patterns.and_then(|patterns| patterns.iter().next()) {
                if !self.matches(pattern, name) {
                    self.notes.push(bad_name(key.span(), name));
                }
                self.value(value, schema, path);
            } else if let Some(schema) = open.filter(|open| open.is_object()) {
                self.value(value, schema, path);
            } else if open.is_some_and(|open| open == &Value::Bool(false)) {
                let (note, suggestion) = self.unknown_key(key.span(), name, table, schema);
                self.notes.push(note);
                meant.extend(suggestion);
            }
            if self.notes.len() > found.0 && self.bad.len() == found.1 {
                self.bad.insert(path.clone());
            }
            path.pop();
        }
        self.above.pop();
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if table.contains_key(name) {
                continue;
            }
            self.bad.insert(path.clone());
            if !self.lost.contains(name) && !meant.contains(name) {
                self.notes.push(self.missing(name, span, schema, path));
            }
        }
    }

    fn missing(&self, name: &str, span: &Range<usize>, schema: &'a Value, path: &[String]) -> Note {
        let property = schema.get("properties").and_then(|properties| properties.get(name));
        let table = property.is_some_and(|property| {
            let property = self.resolve(property);
            property.get("type").and_then(Value::as_str) == Some("object")
        });
        let what = if table {
            let inner = [path, &[name.to_owned()]].concat().join(".");
            format!("the table [{inner}] is missing")
        } else {
            let table = if path.is_empty() { "the file".to_owned() } else { format!("[{}]", path.join(".")) };
            format!("{table} lacks the key `{name}`")
        };
        let meaning = property.and_then(|property| property.get("description")).and_then(Value::as_str);
        Note::error(span.clone(), what)
            .maybe_hint(meaning.map(|text| format!("`{name}`: {}", first_line(text))))
    }

    /// The note for a key that nobody knows, and the key that was probably meant.
    fn unknown_key(
        &self,
        span: Range<usize>,
        name: &str,
        table: &DeTable<'_>,
        schema: &'a Value,
    ) -> (Note, Option<String>) {
        let known: Vec<&str> = keys(schema).collect();
        if secret_key(name) {
            let file = known.iter().find(|key| **key == format!("{name}_file")).copied();
            let file = file.or_else(|| known.iter().find(|key| **key == "password_file").copied());
            let hint = match file {
                Some(key) => format!(
                    "write it into a file that only gatehouse may read, and name that file with `{key}`"
                ),
                None => "remove it: secrets lie in files that only gatehouse may read".to_owned(),
            };
            let message = format!("`{}`: a secret must not stand in the configuration", printable(name));
            return (Note::error(span, message).hint(hint), file.map(str::to_owned));
        }
        let note = Note::error(span, format!("unknown key `{}`", printable(name)));
        let free = known.iter().copied().filter(|key| !table.contains_key(*key));
        if let Some(near) = nearest(name, free) {
            return (note.hint(format!("did you mean `{near}`?")), Some(near.to_owned()));
        }
        if let Some(near) = nearest(name, known.iter().copied()) {
            return (note.hint(format!("`{near}` stands here already; valid here: {}", listed(known))), None);
        }
        let higher = self.above.iter().rev().skip(1).any(|above| keys(above).any(|key| key == name));
        let hint = if higher {
            format!("`{name}` belongs to the table above: write it before the header of this one")
        } else {
            format!("valid here: {}", listed(known))
        };
        (note.hint(hint), None)
    }

    /// An enumeration: words, or tables whose only key is the kind.
    fn choice(&mut self, node: &Node<'_>, choices: &'a [Value], path: &mut Vec<String>) {
        let choices: Vec<&'a Value> = choices.iter().map(|choice| self.resolve(choice)).collect();
        let words: Vec<&str> = choices.iter().flat_map(|choice| scalar::words(choice)).collect();
        let kinds: BTreeMap<&str, &'a Value> = choices.iter().filter_map(|choice| kind_of(choice)).collect();
        if words.is_empty() && kinds.len() < choices.len() {
            return self.any_of(node, &choices, path);
        }
        match node.get_ref() {
            DeValue::String(text) if !words.is_empty() => {
                if !words.contains(&&**text) {
                    self.notes.push(unknown_word(node.span(), text, &words));
                }
            }
            DeValue::Table(table) if !kinds.is_empty() => self.kind_table(table, &node.span(), &kinds, path),
            _ => {
                let key = path.last().map_or("", String::as_str);
                let expected = if kinds.is_empty() {
                    format!("one of {}", quoted(&words))
                } else {
                    "a table named after its kind".to_owned()
                };
                let message = format!("`{key}` must be {expected}, not {}", scalar::kind(node));
                self.notes.push(Note::error(node.span(), message));
            }
        }
    }

    /// `[buses.NAME.KIND]`: exactly one key, and it is a kind.
    fn kind_table(
        &mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        kinds: &BTreeMap<&'a str, &'a Value>,
        path: &mut Vec<String>,
    ) {
        let at = path.join(".");
        let forms: Vec<String> = kinds.keys().map(|kind| format!("[{at}.{kind}]")).collect();
        let mut named: Vec<(&str, Range<usize>)> = Vec::new();
        let mut strange = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if let Some((kind, schema)) = kinds.get_key_value(name) {
                named.push((kind, key.span()));
                path.push(name.to_owned());
                self.value(value, schema, path);
                path.pop();
            } else {
                strange.push((name, key.span(), matches!(value.get_ref(), DeValue::Table(_))));
            }
        }
        if let [first, second, ..] = named.as_slice() {
            let message = format!("[{at}] has two kinds, `{}` and `{}`", first.0, second.0);
            self.notes.push(
                Note::error(second.1.clone(), message).also(first.1.clone(), "the other kind stands here"),
            );
        }
        let mut told = !named.is_empty();
        for (name, span, table) in strange {
            if table {
                let near = nearest(name, kinds.keys().copied());
                let hint = near.map_or_else(
                    || format!("valid kinds: {}", listed(kinds.keys().copied())),
                    |near| format!("did you mean [{at}.{near}]?"),
                );
                self.notes.push(Note::error(span, format!("unknown kind `{}`", printable(name))).hint(hint));
            } else if told {
                continue;
            } else {
                let message = format!("[{at}] does not name its kind");
                self.notes.push(Note::error(span, message).hint(format!("write {}", listed(&forms))));
            }
            told = true;
        }
        if !told && !kinds.keys().any(|kind| self.lost.contains(*kind)) {
            let message = format!("[{at}] does not name its kind");
            self.notes.push(Note::error(span.clone(), message).hint(format!("write {}", listed(&forms))));
        }
    }

    /// Alternatives: the one with the fewest mistakes speaks, first among those of the value's type.
    fn any_of(&mut self, node: &Node<'_>, choices: &[&'a Value], path: &mut Vec<String>) {
        let begun = self.notes.len();
        let mut told: Vec<(bool, Vec<Note>)> = Vec::new();
        for choice in choices {
            self.value(node, choice, path);
            told.push((scalar::wrong_type(node, choice).is_some(), self.notes.split_off(begun)));
        }
        let best = told.into_iter().min_by_key(|(other, found)| (found.len(), *other));
        self.notes.extend(best.map(|(_, found)| found).unwrap_or_default());
    }

    fn text(&mut self, node: &Node<'_>, text: &str, schema: &'a Value, path: &[String]) {
        let words: Vec<&str> = scalar::words(schema).collect();
        if !words.is_empty() {
            if !words.contains(&text) {
                self.notes.push(unknown_word(node.span(), text, &words));
            }
            return;
        }
        self.length(node, schema, text.chars().count(), ["minLength", "maxLength"], "characters", path);
        if let Some(expected) = scalar::wrong_format(text, schema) {
            let key = path.last().map_or("", String::as_str);
            let message = format!("`{key}` is not an address: {:?}", printable(text));
            self.notes.push(Note::error(node.span(), message).hint(format!("it must be {expected}")));
            return;
        }
        let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else { return };
        if self.matches(pattern, text) {
            return;
        }
        if pattern == scalar::NAME_PATTERN {
            self.notes.push(bad_name(node.span(), text));
            return;
        }
        let key = path.last().map_or("", String::as_str);
        let shown = printable(&without_credentials(text));
        let meaning =
            schema.get("description").and_then(Value::as_str).map(|text| first_line(text).to_owned());
        let note =
            Note::error(node.span(), format!("`{key}` does not have the form it must have: {shown:?}"));
        self.notes.push(note.hint(meaning.unwrap_or_else(|| format!("it must match {pattern}"))));
    }

    fn length(
        &mut self,
        node: &Node<'_>,
        schema: &Value,
        length: usize,
        [least, most]: [&str; 2],
        unit: &str,
        path: &[String],
    ) {
        let bound =
            |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let key = path.last().map_or("", String::as_str);
        if length == 0 && bound(least).is_some_and(|least| least > 0) {
            self.notes.push(Note::error(node.span(), format!("`{key}` is empty")));
        } else if let Some(least) = bound(least).filter(|least| length < *least) {
            let message = format!("`{key}` has {length} {unit}, at least {least} are needed");
            self.notes.push(Note::error(node.span(), message));
        } else if let Some(most) = bound(most).filter(|most| length > *most) {
            let message = format!("`{key}` has {length} {unit}, at most {most} are allowed");
            self.notes.push(Note::error(node.span(), message));
        }
    }

    /// A pattern that does not compile matches everything: serde and the parts' own checks still follow.
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let known =
            self.patterns.entry(pattern.to_owned()).or_insert_with(|| regex::Regex::new(pattern).ok());
        known.as_ref().is_none_or(|known| known.is_match(text))
    }
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// The kind and the inner schema of a table with one required key.
fn kind_of(schema: &Value) -> Option<(&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object)?;
    let mut entries = properties.iter();
    match (entries.next(), entries.next()) {
        (Some((kind, inner)), None) => Some((kind.as_str(), inner)),
        _ => None,
    }
}

fn keys(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str())
}

fn unknown_word(span: Range<usize>, text: &str, words: &[&str]) -> Note {
    let hint = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? valid: {}", quoted(words)),
        None => format!("valid: {}", quoted(words)),
    };
    Note::error(span, format!("unknown value {:?}", printable(text))).hint(hint)
}

fn bad_name(span: Range<usize>, text: &str) -> Note {
    let plain: String = text
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9' | '_' | '-') => plain,
            _ => '-',
        })
        .collect();
    let plain = plain.trim_matches(['-', '_']);
    let note = Note::error(span, format!("{:?} is not a name", printable(text)));
    let rule = "a name is 1 to 64 of a-z, 0-9, `_` and `-`, and starts with a letter or a digit";
    if plain.is_empty() || plain.len() > crate::model::limits::NAME_BYTES_MAX {
        note.hint(rule)
    } else {
        note.hint(format!("write {plain:?}; {rule}"))
    }
}

/// The name most like the one written, if any is alike.
pub(super) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let written = written.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&written, &name.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Names for a person; a long list is cut.
pub(super) fn listed<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN_MAX: usize = 24;
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 if names.is_empty() => "none".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn quoted(words: &[&str]) -> String {
    listed(words.iter().map(|word| format!("{word:?}")))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}
