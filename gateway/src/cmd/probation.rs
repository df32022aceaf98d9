//! Rule files on probation. Whatever a file does that nobody foresaw, it does within the gateway's own process; so a note
//! about new files lies beside the journal for their first minute at work. A gateway that dies twice meanwhile finds the
//! note at its next start and puts the files from before back (promise G13).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Loaded;
use crate::model::record::{Draft, Severity, Text, Value};
use crate::model::stamp::Stamp;

/// How long rules must have worked to be trusted.
pub(super) const PROBATION: Duration = Duration::from_mins(1);

/// Starts within probation, after which the rules are not to blame the power for it any more.
const STARTS_MAX: i32 = 2;

/// Where notes and rules lie.
#[derive(Debug, Clone)]
pub(super) struct Probation {
    /// The note, in the data directory.
    note: PathBuf,
    rules_dir: PathBuf,
}

/// The note.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Names of the files, and whether there was one of that name before, which is kept beside it.
    files: BTreeMap<String, bool>,
    /// How often the gateway was started since, less the times that it was stopped in order.
    starts: i32,
}

/// A file that was put into its place.
#[derive(Debug)]
pub(super) struct Placed {
    file: String,
    /// What was there before.
    replaced: Option<Vec<u8>>,
    /// It was not on probation already.
    is_first: bool,
}

impl Probation {
    pub(super) fn new(data_dir: &Path, rules_dir: &Path) -> Self {
        Self { note: data_dir.join("rules.probation"), rules_dir: rules_dir.to_owned() }
    }

    /// None: there is no place for rules of one's own.
    pub(super) fn of(loaded: &Loaded) -> Option<Self> {
        let gateway = &loaded.settings.gateway;
        gateway.rules_dir.as_ref().map(|rules_dir| Self::new(&gateway.data_dir, rules_dir))
    }

    /// Puts a file into its place, on probation. The one before it is kept; while that is on probation itself, the one
    /// before that.
    pub(super) fn put(&self, file: &str, bytes: &[u8]) -> io::Result<Placed> {
        let path = self.rules_dir.join(file);
        let mut note = self.read()?.unwrap_or_default();
        let replaced = match fs::read(&path) {
            Ok(replaced) => Some(replaced),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_first = !note.files.contains_key(file);
        if is_first {
            if let Some(replaced) = &replaced {
                write(&kept(&path), replaced)?;
            }
            note.files.insert(file.to_owned(), replaced.is_some());
        }
        note.starts = 0;
        self.write(&note)?;
        write(&path, bytes)?;
        Ok(Placed { file: file.to_owned(), replaced, is_first })
    }

    /// As if the file had never been put there.
    pub(super) fn undo(&self, placed: &Placed) -> io::Result<()> {
        let path = self.rules_dir.join(&placed.file);
        match &placed.replaced {
            Some(replaced) => write(&path, replaced)?,
            None => remove(&path)?,
        }
        let Some(mut note) = self.read()?.filter(|_| placed.is_first) else { return Ok(()) };
        note.files.remove(&placed.file);
        if note.files.is_empty() { remove(&self.note) } else { self.write(&note) }
    }

    /// Puts everything back that is on probation; the names of the files.
    fn take_back(&self) -> io::Result<Vec<String>> {
        let note = self.read()?.unwrap_or_default();
        for (file, had_before) in &note.files {
            let path = self.rules_dir.join(file);
            if *had_before {
                write(&path, &fs::read(kept(&path))?)?;
            } else {
                remove(&path)?;
            }
        }
        remove(&self.note)?;
        Ok(note.files.into_keys().collect())
    }

    /// A gateway starts. The files that were put back, if it has died too often with them.
    pub(super) fn started(&self) -> io::Result<Vec<String>> {
        let Some(mut note) = self.read()? else { return Ok(Vec::new()) };
        note.starts = note.starts.saturating_add(1);
        if note.starts >= STARTS_MAX {
            return self.take_back();
        }
        self.write(&note)?;
        Ok(Vec::new())
    }

    /// It is stopped in order: that is no death.
    pub(super) fn stopped(&self) -> io::Result<()> {
        let Some(mut note) = self.read()? else { return Ok(()) };
        note.starts = note.starts.saturating_sub(1);
        self.write(&note)
    }

    /// The files are trusted from now on.
    pub(super) fn passed(&self) -> io::Result<()> {
        remove(&self.note)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.note.exists()
    }

    /// A note that cannot be understood says nothing about anything.
    fn read(&self) -> io::Result<Option<Note>> {
        match fs::read(&self.note) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, note: &Note) -> io::Result<()> {
        write(&self.note, &serde_json::to_vec(note)?)
    }
}

/// The event that rules were taken back.
pub(super) fn taken_back(at: &Stamp, files: &[String]) -> Draft {
    let text = Text {
        zh: "新规则文件生效后网关反复重启，已恢复为之前的规则".to_owned(),
        en: "the gateway died again and again with new rule files; those from before are back".to_owned(),
    };
    let params = BTreeMap::from([("files".to_owned(), Value::Text(files.join(" ").into()))]);
    Draft::of_gateway(at, None, ("rules.taken_back", Some(Severity::Major)), params, text)
}

/// Where the file before this one is kept.
fn kept(path: &Path) -> PathBuf {
    path.with_extension("before")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whole or not at all, also where the power is cut.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Probation, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        fs::create_dir(&rules).unwrap();
        let probation = Probation::new(folder.path(), &rules);
        (folder, probation, rules)
    }

    fn files(rules: &Path) -> BTreeMap<String, String> {
        let read = |path: PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        };
        fs::read_dir(rules).unwrap().map(|entry| read(entry.unwrap().path())).collect()
    }

    #[test]
    fn who_dies_twice_gets_the_files_from_before_back() {
        let (_folder, probation, rules) = folder();
        fs::write(rules.join("old.toml"), "one").unwrap();
        assert_eq!(probation.started().unwrap(), [""; 0], "nothing is on probation");
        probation.put("old.toml", b"two").unwrap();
        probation.put("old.toml", b"three").unwrap();
        probation.put("new.toml", b"four").unwrap();
        assert_eq!(probation.started().unwrap(), [""; 0], "once may have been the power");
        assert!(probation.is_pending());
        assert_eq!(files(&rules)["old.toml"], "three");
        assert_eq!(probation.started().unwrap(), ["new.toml", "old.toml"]);
        assert_eq!(files(&rules)["old.toml"], "one", "the last that was trusted");
        assert!(!files(&rules).contains_key("new.toml") && !probation.is_pending());
        assert_eq!(probation.started().unwrap(), [""; 0]);
    }

    #[test]
    fn a_stop_in_order_is_no_death_and_a_minute_at_work_is_trust() {
        let (_folder, probation, rules) = folder();
        probation.put("new.toml", b"one").unwrap();
        for _ in 0..3 {
            probation.stopped().unwrap();
            assert_eq!(probation.started().unwrap(), [""; 0]);
        }
        assert_eq!(probation.started().unwrap(), [""; 0]);
        probation.passed().unwrap();
        assert_eq!(probation.started().unwrap(), [""; 0]);
        let placed = probation.put("new.toml", b"two").unwrap();
        let again = probation.put("new.toml", b"three").unwrap();
        probation.undo(&again).unwrap();
        assert_eq!(files(&rules)["new.toml"], "two");
        assert!(probation.is_pending(), "the second is still on probation");
        probation.undo(&placed).unwrap();
        assert_eq!(files(&rules)["new.toml"], "one");
        assert!(!probation.is_pending());
    }

    #[test]
    fn a_note_that_makes_no_sense_stops_nobody() {
        let (folder, probation, rules) = folder();
        fs::write(folder.path().join("rules.probation"), "{").unwrap();
        assert_eq!(probation.started().unwrap(), [""; 0]);
        probation.put("new.toml", b"one").unwrap();
        assert_eq!(files(&rules)["new.toml"], "one");
    }
}
