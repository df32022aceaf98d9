//! The texts of the configuration under one running offset, so that a span alone tells file, line and column.
//!
//! Must not know TOML. Limits: the files' sizes are bounded by who reads them.

use std::ops::Range;

/// Every file that was read, one after the other; a span counts bytes over all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    files: Vec<Source>,
    /// Offset of the first file.
    start: usize,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
    base: usize,
}

/// A place a person can go to. Line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Position {
    pub file: String,
    pub line: usize,
    pub column: usize,
}

/// One source line with the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The whole line without its end.
    pub(super) line: String,
    /// What stands before the marked part.
    pub(super) before: String,
    /// The marked part, at most to the line's end.
    pub(super) marked: String,
}

impl Sources {
    /// Takes a file in and returns the offset of its first byte.
    pub(super) fn add(&mut self, name: impl Into<String>, text: String) -> usize {
        let base = self.end();
        self.files.push(Source { name: name.into(), text, base });
        base
    }

    /// Where the next file begins: one byte lies between files, so that the end of one is not the start of the next.
    fn end(&self) -> usize {
        self.files.last().map_or(self.start, |last| last.base + last.text.len() + 1)
    }

    /// An empty set whose offsets follow these.
    pub(super) fn following(&self) -> Self {
        Self { files: Vec::new(), start: self.end() }
    }

    /// Takes in the files of a set made by [`Self::following`].
    pub(super) fn append(&mut self, more: Self) {
        self.files.extend(more.files);
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Option<Position> {
        let (source, local) = self.locate(span.start)?;
        let before = source.text.get(..local)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..)?.trim_start_matches('\u{feff}').chars().count() + 1;
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Some(Position { file: source.name.clone(), line, column })
    }

    pub(super) fn excerpt(&self, span: &Range<usize>) -> Option<Excerpt> {
        let (source, local) = self.locate(span.start)?;
        let start = source.text.get(..local)?.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = source.text.get(local..)?;
        let end = rest.find('\n').map_or(source.text.len(), |newline| local + newline);
        let line = source.text.get(start..end)?.trim_end_matches('\r');
        let line_end = start + line.len();
        let mut stop = (local + span.len()).min(line_end).max(local);
        while !source.text.is_char_boundary(stop) {
            stop += 1;
        }
        Some(Excerpt {
            line: line.trim_start_matches('\u{feff}').to_owned(),
            before: source.text.get(start..local)?.trim_start_matches('\u{feff}').to_owned(),
            marked: source.text.get(local..stop)?.trim_end_matches('\r').to_owned(),
        })
    }

    /// The file that holds an offset, and the offset within it, moved back to a character's start.
    fn locate(&self, offset: usize) -> Option<(&Source, usize)> {
        let index = self.files.partition_point(|file| file.base <= offset).checked_sub(1)?;
        let source = self.files.get(index)?;
        let mut local = (offset - source.base).min(source.text.len());
        while !source.text.is_char_boundary(local) {
            local -= 1;
        }
        Some((source, local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_tells_file_line_and_column() {
        let mut sources = Sources::default();
        let first = sources.add("a.toml", "x = 1\n名 = 2\n".to_owned());
        let second = sources.add("b.toml", "y = 3\r\nz = 4".to_owned());
        let at = |offset: usize| {
            let place = sources.place(&(offset..offset + 1)).unwrap();
            (place.file, place.line, place.column)
        };
        assert_eq!(at(first), ("a.toml".to_owned(), 1, 1));
        // Six bytes for the first line, three for the character, then a space.
        assert_eq!(at(first + 10), ("a.toml".to_owned(), 2, 3));
        assert_eq!(at(second), ("b.toml".to_owned(), 1, 1));
        assert_eq!(at(second + 11), ("b.toml".to_owned(), 2, 5));
        let excerpt = sources.excerpt(&(second + 4..second + 30)).unwrap();
        assert_eq!((excerpt.line.as_str(), excerpt.marked.as_str()), ("y = 3", "3"));
    }

    #[test]
    fn a_span_inside_a_character_moves_to_its_start() {
        let mut sources = Sources::default();
        sources.add("a.toml", "名".to_owned());
        assert_eq!(sources.place(&(1..2)).unwrap().column, 1);
        assert_eq!(sources.excerpt(&(1..2)).unwrap().marked, "名");
        assert_eq!(sources.place(&(99..100)).unwrap().line, 1);
    }
}
