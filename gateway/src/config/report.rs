//! What is wrong with a configuration, told to a person or a program.
//!
//! Owns the rendering: places, source lines, carets, hints. Must not know what is checked. A secret that somebody
//! wrote into the configuration is masked in what it prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

use super::source::{Excerpt, Position, Sources};
use crate::model::check::Weight;

/// Findings that are told: a file of another kind would fill the screen. Beyond it they are counted; mistakes go
/// before warnings.
pub const FINDINGS_MAX: usize = 1_000;

/// Columns of a source line that are printed around what is meant.
const EXCERPT_COLUMNS_MAX: usize = 140;

/// One mistake or warning, still by byte offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) weight: Weight,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) span: Range<usize>,
    /// Other places that belong to it, each with what it is.
    pub(super) also: Vec<(Range<usize>, String)>,
}

impl Note {
    pub(super) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { weight: Weight::Error, message: message.into(), hint: None, span, also: Vec::new() }
    }

    pub(super) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(span, message) }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint: hint.or(self.hint), ..self }
    }

    pub(super) fn also(mut self, span: Range<usize>, what: impl Into<String>) -> Self {
        self.also.push((span, what.into()));
        self
    }
}

/// One mistake or warning with its place.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// `error` or `warning`.
    #[serde(serialize_with = "weight_word")]
    pub weight: Weight,
    #[serde(flatten)]
    pub place: Option<Position>,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Other places that belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Also>,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// Another place that belongs to a finding.
#[derive(Debug, Clone, Serialize)]
pub struct Also {
    pub message: String,
    #[serde(flatten)]
    pub place: Option<Position>,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// Everything that was found, in the order of files and lines.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Finding>,
    mistakes: usize,
    warnings: usize,
    /// What could not be read at all.
    unreadable: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.text())
    }
}

impl std::error::Error for Report {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it serialises by reference")]
fn weight_word<S: serde::Serializer>(weight: &Weight, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(word(*weight))
}

const fn word(weight: Weight) -> &'static str {
    match weight {
        Weight::Error => "error",
        Weight::Warning => "warning",
    }
}

impl Report {
    pub(super) fn new(mut notes: Vec<Note>, sources: &Sources, unreadable: Vec<String>) -> Self {
        notes.sort_by(|a, b| (a.span.start, a.weight, &a.message).cmp(&(b.span.start, b.weight, &b.message)));
        notes.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let mistakes = notes.iter().filter(|note| note.weight == Weight::Error).count();
        let warnings = notes.len() - mistakes;
        if notes.len() > FINDINGS_MAX {
            // Stable, so that each weight keeps its order.
            notes.sort_by_key(|note| note.weight);
            notes.truncate(FINDINGS_MAX);
            notes.sort_by_key(|note| note.span.start);
        }
        let findings = notes
            .into_iter()
            .map(|note| Finding {
                weight: note.weight,
                place: sources.place(&note.span),
                message: note.message,
                hint: note.hint,
                also: note
                    .also
                    .into_iter()
                    .map(|(span, message)| Also {
                        message,
                        place: sources.place(&span),
                        excerpt: sources.excerpt(&span),
                    })
                    .collect(),
                excerpt: sources.excerpt(&note.span),
            })
            .collect();
        Self { findings, mistakes, warnings, unreadable }
    }

    /// At most [`FINDINGS_MAX`] of them.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Mistakes that stop the gateway.
    pub fn mistakes(&self) -> usize {
        self.mistakes
    }

    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether something could not be read at all, so that nothing can be said of it.
    pub fn unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Whether a gateway may start with this.
    pub fn clean(&self) -> bool {
        self.mistakes() == 0 && !self.unreadable()
    }

    /// For a terminal: what, where, the line, and what to write instead; a sum at the end.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for text in &self.unreadable {
            line(&mut out, format_args!("error: {text}\n"));
        }
        for finding in &self.findings {
            line(&mut out, format_args!("{}: {}", word(finding.weight), printable(&finding.message)));
            snippet(&mut out, finding.place.as_ref(), finding.excerpt.as_ref());
            for also in &finding.also {
                line(&mut out, format_args!("note: {}", printable(&also.message)));
                snippet(&mut out, also.place.as_ref(), also.excerpt.as_ref());
            }
            if let Some(hint) = &finding.hint {
                line(&mut out, format_args!("hint: {}", printable(hint)));
            }
            out.push('\n');
        }
        if !self.findings.is_empty() {
            line(&mut out, format_args!("{}", self.sum()));
        }
        out
    }

    fn sum(&self) -> String {
        let files: BTreeSet<&str> = self
            .findings
            .iter()
            .filter_map(|finding| finding.place.as_ref())
            .map(|place| &*place.file)
            .collect();
        let count = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            more => format!("{more} {what}s"),
        };
        let (mistakes, warnings) = (count(self.mistakes(), "mistake"), count(self.warnings(), "warning"));
        let sum = format!("{mistakes}, {warnings} in {}", count(files.len(), "file"));
        match (self.mistakes + self.warnings).saturating_sub(self.findings.len()) {
            0 => sum,
            more => format!("{sum}; {more} of them are not shown"),
        }
    }

    /// For a program.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "ok": self.clean(),
            "mistakes": self.mistakes(),
            "warnings": self.warnings(),
            "unreadable": self.unreadable,
            "findings": self.findings,
        })
    }
}

/// Writing to a `String` cannot fail; the result is looked at all the same.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    if writeln!(out, "{text}").is_err() {
        out.push_str("(not printable)\n");
    }
}

fn snippet(out: &mut String, place: Option<&Position>, excerpt: Option<&Excerpt>) {
    let Some(place) = place else { return };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    line(out, format_args!("{margin}--> {}:{}:{}", printable(&place.file), place.line, place.column));
    let Some(excerpt) = excerpt else { return };
    if excerpt.line.trim().is_empty() {
        return;
    }
    let (text, secret_from) = masked(&excerpt.line);
    let before = if secret_from.is_some_and(|from| excerpt.before.len() > from) {
        secret_from.and_then(|from| excerpt.before.get(..from)).unwrap_or("").to_owned()
    } else {
        excerpt.before.clone()
    };
    let (text, before) = windowed(&printable(&text), &printable(&before));
    let room = columns(&text).saturating_sub(columns(&before)).max(1);
    let carets = columns(&printable(&excerpt.marked)).clamp(1, room);
    line(out, format_args!("{margin} |"));
    line(out, format_args!("{number} | {text}"));
    line(out, format_args!("{margin} | {}{}", " ".repeat(columns(&before)), "^".repeat(carets)));
}

/// Cuts a long line so that what is meant stays in sight.
fn windowed(text: &str, before: &str) -> (String, String) {
    if columns(text) <= EXCERPT_COLUMNS_MAX {
        return (text.to_owned(), before.to_owned());
    }
    let skip = before.chars().count().saturating_sub(EXCERPT_COLUMNS_MAX / 4);
    let cut = |part: &str, most: usize| part.chars().skip(skip).take(most).collect::<String>();
    let lead = if skip > 0 { "…" } else { "" };
    let shown = cut(text, EXCERPT_COLUMNS_MAX / 2);
    (format!("{lead}{shown}…"), format!("{lead}{}", cut(before, EXCERPT_COLUMNS_MAX / 2)))
}

/// Tabs become spaces; control characters cannot steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '\t' => out.push_str("    "),
            // Right-to-left marks reorder what a person reads.
            control if control.is_control() => out.push('\u{fffd}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
        out
    })
}

/// Columns a text takes on a terminal: Chinese, Japanese and Korean characters and most pictographs take two.
/// The ranges are those that Unicode's East Asian Width (UAX 11) calls W or F, rounded to whole blocks.
fn columns(text: &str) -> usize {
    text.chars()
        .map(|character| match u32::from(character) {
            0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0x303e
            | 0x3041..=0xa4cf
            | 0xa960..=0xa97f
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff01..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1f64f
            | 0x1f900..=0x1f9ff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

/// Words in a key that mean its value is secret.
const SECRET_WORDS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "token", "psk", "private_key"];

/// Whether a key of this name would hold a secret itself (and not the name of a file).
pub(super) fn secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let file = key.ends_with("_file") || key.ends_with("_dir");
    !file && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// The line with secrets taken out, and the byte where the first of them began.
fn masked(text: &str) -> (String, Option<usize>) {
    for (index, _sign) in text.match_indices(['=', ':']) {
        let head = text.get(..index).unwrap_or("");
        let key = head.trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap_or("");
        if secret_key(key) {
            let from = index + 1;
            return (format!("{} ***", text.get(..from).unwrap_or("")), Some(from));
        }
    }
    let hidden = without_credentials(text);
    let from = (hidden != text).then(|| text.find("://").map_or(0, |at| at + 3));
    (hidden, from)
}

/// Takes `user:password@` out of a URL.
pub(super) fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find(['/', '"', '\'']).unwrap_or(rest.len());
    match rest.get(..authority_end).and_then(|authority| authority.rfind('@')) {
        Some(at) => format!("{scheme}://***{}", rest.get(at..).unwrap_or("")),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, marked: &str, note: impl Fn(Range<usize>) -> Note) -> String {
        let mut sources = Sources::default();
        sources.add("gatehouse.toml", text.to_owned());
        let start = text.find(marked).unwrap();
        Report::new(vec![note(start..start + marked.len())], &sources, Vec::new()).text()
    }

    #[test]
    fn a_finding_reads_like_the_compilers() {
        let text = rendered("[gateway]\nnane = \"g\"\n", "nane", |span| {
            Note::error(span, "unknown key `nane`").hint("did you mean `name`?")
        });
        let expected = "error: unknown key `nane`\n --> gatehouse.toml:2:1\n  |\n2 | nane = \"g\"\n  | ^^^^\n\
                        hint: did you mean `name`?\n\n1 mistake, no warnings in 1 file\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_warnings_do_not_hide_a_mistake() {
        let mut sources = Sources::default();
        sources.add("a", "x".repeat(2_000));
        let mut notes: Vec<Note> = (0..1_500).map(|at| Note::warning(at..at + 1, "w")).collect();
        notes.push(Note::error(1_900..1_901, "e"));
        let report = Report::new(notes, &sources, Vec::new());
        assert!(!report.clean());
        assert_eq!((report.mistakes(), report.warnings(), report.findings().len()), (1, 1_500, FINDINGS_MAX));
        assert_eq!(report.findings().last().unwrap().message, "e");
        assert!(report.text().ends_with("1 mistake, 1500 warnings in 1 file; 501 of them are not shown\n"));
    }

    #[test]
    fn carets_stand_under_wide_characters() {
        let text = rendered("\"楼栋\" = \"东区\"", "\"东区\"", |span| Note::error(span, "no"));
        assert!(text.contains("1 | \"楼栋\" = \"东区\"\n  |          ^^^^^^\n"), "{text}");
    }

    #[test]
    fn a_secret_is_not_printed_again() {
        for (line, marked) in [
            ("password = \"hunter2\"", "password"),
            ("mqtt = { password = \"hunter2\", rot = 1 }", "rot"),
            ("url = \"mqtt://me:hunter2@host\"", "\"mqtt"),
            ("'client-secret' = 'hunter2'", "'hunter2'"),
        ] {
            let text = rendered(line, marked, |span| Note::error(span, "no"));
            assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
        }
        assert!(!secret_key("password_file"));
    }

    #[test]
    fn a_terminal_is_not_steered() {
        let text = rendered("x = \"\u{1b}[2J\u{202e}\"", "x", |span| Note::error(span, "bad \u{7}"));
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }

    #[test]
    fn a_long_line_is_cut_around_what_is_meant() {
        let long = format!("{}here{}", "长".repeat(5_000), "x".repeat(5_000));
        let text = rendered(&long, "here", |span| Note::error(span, "no"));
        let lines: Vec<&str> = text.lines().collect();
        let column = columns(lines[4].split('^').next().unwrap());
        let shown: usize = columns(lines[3].split("here").next().unwrap());
        assert_eq!(column, shown);
        assert!(columns(lines[3]) < 200);
    }
}
