//! Reads the configuration's files into one tree with places.
//!
//! One file, or all `*.toml` of a directory, joined: a gateway, bus, client, device or uplink stands in one file, the
//! lists of them may be spread. Opens nothing but these files. Limits: sizes and number of files.

#![warn(clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::report::Note;
use super::source::Sources;
use super::syntax;
use crate::model::limits::{CONFIG_BYTES_MAX, CONFIG_FILE_BYTES_MAX, CONFIG_FILES_MAX};

/// What was read, with every mistake of syntax.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) sources: Sources,
    pub(super) notes: Vec<Note>,
    pub(super) unreadable: Vec<String>,
    /// Names that syntax mistakes took away.
    pub(super) lost: BTreeSet<String>,
    files: Vec<(usize, String)>,
}

impl Texts {
    /// Takes one file's bytes in; `name` is what messages call it.
    pub(super) fn add(&mut self, name: &str, bytes: Vec<u8>) {
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let text = same_length(error.as_bytes());
                let base = self.sources.add(name, text.clone());
                let note = Note::error(base + at..base + at + 1, "the file is not UTF-8 text from here on");
                self.notes
                    .push(note.hint("save it as UTF-8; editors on Chinese Windows write GBK by default"));
                return self.mend(base, &text);
            }
        };
        let base = self.sources.add(name, text.clone());
        self.mend(base, &text);
    }

    fn mend(&mut self, base: usize, text: &str) {
        let mended = syntax::mend(text, base, &mut self.notes);
        self.lost.extend(mended.lost);
        self.files.push((base, mended.text));
    }

    /// None yet, with offsets that follow those of `other`.
    pub(super) fn following(other: &Self) -> Self {
        Self { sources: other.sources.following(), ..Self::default() }
    }

    /// Reads a file and takes it in; false if it could not be read.
    pub(super) fn read(&mut self, path: &Path) -> bool {
        if self.files.iter().map(|(_, text)| text.len()).sum::<usize>() > CONFIG_BYTES_MAX {
            let path = path.display();
            self.unreadable
                .push(format!("{path} was not read: all files together pass {CONFIG_BYTES_MAX} bytes"));
            return false;
        }
        match bounded(path) {
            Ok(bytes) => self.add(&path.display().to_string(), bytes),
            Err(reason) => {
                self.unreadable.push(format!("cannot read {}: {reason}", path.display()));
                return false;
            }
        }
        true
    }

    /// Each file's tree by itself.
    pub(super) fn trees(&self) -> impl Iterator<Item = (usize, DeTable<'_>)> {
        self.files.iter().map(|(base, text)| (*base, syntax::tree(text, *base)))
    }

    /// All files as one tree. Where two files write the same thing, the first counts and the second is a mistake.
    pub(super) fn joined(&self, notes: &mut Vec<Note>) -> DeTable<'_> {
        self.trees().fold(DeTable::new(), |whole, (_, tree)| join(whole, tree, &[], notes))
    }
}

/// Tables of this depth may be spread over files: the root, and the lists of named parts.
const SPREAD: [&str; 6] = ["buses", "care", "clients", "devices", "notifiers", "uplinks"];

fn join<'i>(mut whole: DeTable<'i>, more: DeTable<'i>, path: &[&str], notes: &mut Vec<Note>) -> DeTable<'i> {
    for (key, value) in more {
        let name = key.get_ref().clone();
        let Some((first_key, first)) = whole.remove_entry(&key) else {
            whole.insert(key, value);
            continue;
        };
        let spread = path.is_empty() && SPREAD.contains(&&*name);
        let joined = match (first.get_ref(), value.get_ref()) {
            (DeValue::Table(a), DeValue::Table(b)) if spread => {
                let table = join(a.clone(), b.clone(), &[&name], notes);
                toml::Spanned::new(first.span(), DeValue::Table(table))
            }
            _ => {
                let full = path.iter().copied().chain([&*name]).collect::<Vec<_>>().join(".");
                let what = match value.get_ref() {
                    DeValue::Table(_) => format!("[{full}] stands in two files"),
                    _ => format!("`{full}` stands in two files"),
                };
                notes.push(Note::error(key.span(), what).also(first_key.span(), "it stands here first"));
                first
            }
        };
        whole.insert(first_key, joined);
    }
    whole
}

/// The `*.toml` files of a directory by name; hidden ones, which editors leave behind, are passed over.
pub(super) fn listing(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("cannot read directory {}: {error}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
        if paths.len() > CONFIG_FILES_MAX {
            return Err(format!("{} holds more than {CONFIG_FILES_MAX} *.toml files", directory.display()));
        }
    }
    paths.sort();
    Ok(paths)
}

/// A regular file's bytes; anything else could block for ever or never end.
fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= CONFIG_FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(format!(
            "it is larger than {CONFIG_FILE_BYTES_MAX} bytes; spread it over several files in a directory"
        ))
    }
}

/// Text of the same length in bytes, with `?` for what is not UTF-8, so that places hold.
fn same_length(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n('?', chunk.invalid().len()));
    }
    out
}
