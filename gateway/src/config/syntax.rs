//! TOML text into a tree with places, going on after each syntax mistake.
//!
//! Each mistake is noted and the line or table that holds it is blanked out, then the text is read again; so one slip
//! costs one message, and what follows it is still checked. What was blanked is remembered, so that nobody calls it
//! missing. Limits: [`SYNTAX_MISTAKES_MAX`] a file; the toml crate bounds the nesting.

#![warn(clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Note;

/// Syntax mistakes looked for in one file: beyond it the file is something else than TOML.
pub(super) const SYNTAX_MISTAKES_MAX: usize = 50;

/// A value of the configuration with its place.
pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// What is left of one file's text once its syntax mistakes are blanked out.
#[derive(Debug)]
pub(super) struct Mended {
    /// As long as the file's, so that its spans hold.
    pub(super) text: String,
    /// Words of the lines that syntax mistakes took away: what bears such a name may have stood there.
    pub(super) lost: BTreeSet<String>,
}

/// Takes the syntax mistakes out of one text whose first byte has the offset `base`.
pub(super) fn mend(text: &str, base: usize, notes: &mut Vec<Note>) -> Mended {
    let mut text = text.to_owned();
    let mut lost = BTreeSet::new();
    for _ in 0..SYNTAX_MISTAKES_MAX {
        let (_, errors) = DeTable::parse_recoverable(&text);
        let first = errors.iter().min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
        let Some(first) = first else { return Mended { text, lost } };
        let span = first.span().unwrap_or(text.len()..text.len());
        let (note, cut) = mistake(&text, first.message(), &span, errors.len(), &mut lost);
        notes.push(moved(note, base));
        text = blanked(&text, &cut);
    }
    let (_, errors) = DeTable::parse_recoverable(&text);
    if let Some(first) = errors.first() {
        let at = first.span().map_or(0, |span| span.start) + base;
        notes.push(Note::error(at..at + 1, "too many syntax mistakes: the rest was not read"));
        let all = 0..text.len();
        remember(&text, &all, &mut lost);
        text = blanked(&text, &all);
    }
    Mended { text, lost }
}

/// The tree of a mended text.
pub(super) fn tree(text: &str, base: usize) -> DeTable<'_> {
    let (tree, _none) = DeTable::parse_recoverable(text);
    shifted_table(tree.into_inner(), base)
}

/// What to tell of the first syntax mistake, and the bytes to blank so that the rest can be read.
fn mistake(
    text: &str,
    message: &str,
    span: &Range<usize>,
    errors: usize,
    lost: &mut BTreeSet<String>,
) -> (Note, Range<usize>) {
    let here = line_at(text, span.start);
    let line = text.get(here.clone()).unwrap_or("");
    if message == "duplicate key" {
        return duplicate(text, span, &here);
    }
    if message.contains("multi-line")
        && let Some(opener) = open_quotes(text, span.start)
    {
        let cut = line_at(text, opener);
        remember(text, &cut, lost);
        return (Note::error(opener..opener + 3, "a text begun with three quotes is not closed"), cut);
    }
    // A value that was begun on an earlier line and never closed shows itself only here.
    if let Some(earlier) = unclosed_before(text, &here, errors) {
        remember(text, &earlier, lost);
        let begun = text.get(earlier.clone()).unwrap_or("");
        let at = earlier.start + begun.rfind(['[', '{']).unwrap_or(0);
        return (Note::error(at..at + 1, "what is opened here is not closed"), earlier);
    }
    let cut = if line.trim_start().starts_with('[') { section(text, &here) } else { here.clone() };
    // A blank line cannot be blanked again: then everything behind it goes.
    let cut = if text.get(cut.clone()).is_none_or(|cut| cut.trim().is_empty()) {
        here.start..text.len()
    } else {
        cut
    };
    remember(text, &cut, lost);
    (Note::error(span.clone(), readable(message)).maybe_hint(advice(message, line)), cut)
}

/// The same key or table twice in one file: the second goes, with all that is under it.
fn duplicate(text: &str, span: &Range<usize>, here: &Range<usize>) -> (Note, Range<usize>) {
    let line = text.get(here.clone()).unwrap_or("").trim();
    let key = text.get(span.clone()).unwrap_or("");
    let header = line.starts_with('[');
    let (what, cut) = if header {
        (line.split('#').next().unwrap_or(line).trim().to_owned(), section(text, here))
    } else {
        (key.to_owned(), here.clone())
    };
    let note = Note::error(span.clone(), format!("`{what}` stands here a second time")).hint(if header {
        "give it another name, or join both tables"
    } else {
        "remove one of the two"
    });
    let before = text.get(..here.start).unwrap_or("");
    match first_written(before, &what, header) {
        Some(first) => (note.also(first, "it stands here first"), cut),
        None => (note, cut),
    }
}

/// Where a header, or a key of the same table, was first written.
fn first_written(before: &str, what: &str, header: bool) -> Option<Range<usize>> {
    let mut end = before.len();
    let mut first = None;
    for line in before.split_inclusive('\n').rev() {
        let start = end - line.len();
        end = start;
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if header {
            if code.split('#').next().unwrap_or(code).trim() == what {
                first = Some(start + indent..start + indent + what.len());
            }
        } else if code.starts_with('[') {
            break;
        } else if code.strip_prefix(what).is_some_and(|rest| rest.trim_start().starts_with('=')) {
            first = Some(start + indent..start + indent + what.len());
        }
    }
    first
}

/// The line before this one that opened an array or inline table, if the text reads better without it.
fn unclosed_before(text: &str, here: &Range<usize>, errors: usize) -> Option<Range<usize>> {
    let before = text.get(..here.start)?;
    let mut end = before.len();
    for line in before.split_inclusive('\n').rev() {
        let start = end - line.len();
        let code = line.trim();
        let opens = code.split_once('=').is_some_and(|(_, value)| value.trim_start().starts_with(['[', '{']));
        if opens {
            let cut = start..here.start;
            let (_, without) = DeTable::parse_recoverable(&blanked(text, &cut));
            let (_, instead) = DeTable::parse_recoverable(&blanked(text, here));
            return (without.len() < errors && without.len() < instead.len()).then_some(cut);
        }
        if code.starts_with('[') || code.contains('=') {
            return None;
        }
        end = start;
    }
    None
}

/// The last `"""` or `'''` before an offset, where a text that never ends was begun.
fn open_quotes(text: &str, before: usize) -> Option<usize> {
    let text = text.get(..before)?;
    ["\"\"\"", "'''"]
        .iter()
        .filter(|quotes| text.matches(**quotes).count() % 2 == 1)
        .filter_map(|quotes| text.rfind(*quotes))
        .max()
}

/// From a table's header to the next header.
fn section(text: &str, header: &Range<usize>) -> Range<usize> {
    let mut end = header.end;
    for line in text.get(header.end..).unwrap_or("").split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            break;
        }
        end += line.len();
    }
    header.start..end
}

/// The line around an offset, without its end.
fn line_at(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let newline = |byte: &u8| *byte == b'\n';
    let start = bytes.get(..offset).and_then(|head| head.iter().rposition(newline)).map_or(0, |at| at + 1);
    let end = bytes
        .get(offset..)
        .and_then(|tail| tail.iter().position(newline))
        .map_or(bytes.len(), |at| offset + at);
    start..end
}

/// The text with spaces instead of a part; line ends stay, so that offsets and lines do too.
fn blanked(text: &str, cut: &Range<usize>) -> String {
    let head = text.get(..cut.start).unwrap_or("");
    let tail = text.get(cut.end..).unwrap_or("");
    let mut out = String::with_capacity(text.len());
    out.push_str(head);
    out.extend(text.get(cut.clone()).unwrap_or("").bytes().map(|byte| match byte {
        b'\n' => '\n',
        _ => ' ',
    }));
    out.push_str(tail);
    out
}

fn remember(text: &str, cut: &Range<usize>, lost: &mut BTreeSet<String>) {
    let words =
        text.get(cut.clone()).unwrap_or("").split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
    lost.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
}

/// The toml crate's words, with its commonest message said for people who do not know literals.
fn readable(message: &str) -> String {
    match message {
        "string values must be quoted, expected literal string" => "a text must stand in quotes".to_owned(),
        "key with no value, expected `=`" => "a key must be followed by `=` and a value".to_owned(),
        other => other.to_owned(),
    }
}

/// What a person at a Chinese keyboard, or one used to YAML, most likely meant.
fn advice(message: &str, line: &str) -> Option<String> {
    const WIDE: [char; 12] = ['“', '”', '‘', '’', '＝', '：', '，', '。', '［', '］', '｛', '｝'];
    if let Some(wide) = line.chars().find(|character| WIDE.contains(character)) {
        let plain = match wide {
            '“' | '”' => "\"",
            '‘' | '’' => "'",
            '＝' | '：' => "=",
            '，' => ",",
            '。' => ".",
            '［' => "[",
            '］' => "]",
            '｛' => "{",
            _ => "}",
        };
        return Some(format!("`{wide}` is a full-width sign (全角符号): write `{plain}` instead"));
    }
    if message.starts_with("string values must be quoted") {
        let value =
            line.split_once('=').map_or("", |(_, value)| value.split('#').next().unwrap_or(value).trim());
        let plain = !value.is_empty() && !value.contains(['"', '\'', '[', '{', ',']);
        return Some(if plain { format!("write \"{value}\"") } else { "write \"…\"".to_owned() });
    }
    let yaml = line.split_once(':').is_some_and(|(key, _)| !key.contains(['=', '"', '\'', '[']));
    yaml.then(|| "in TOML it is `key = value`".to_owned())
}

fn moved(mut note: Note, base: usize) -> Note {
    let shift = |span: &Range<usize>| span.start + base..span.end + base;
    note.span = shift(&note.span);
    for (span, _) in &mut note.also {
        *span = shift(span);
    }
    note
}

fn shifted_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let place = |span: Range<usize>| span.start + base..span.end + base;
    table
        .into_iter()
        .map(|(key, value)| (Spanned::new(place(key.span()), key.into_inner()), shifted(value, base)))
        .collect()
}

fn shifted(node: Node<'_>, base: usize) -> Node<'_> {
    let span = node.span();
    let value = match node.into_inner() {
        DeValue::Table(table) => DeValue::Table(shifted_table(table, base)),
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| shifted(item, base)).collect()),
        scalar => scalar,
    };
    Spanned::new(span.start + base..span.end + base, value)
}
