//! What stands beside the journal and outlives it: the lock, the witness, the mark of suspicion.
//!
//! The witness says which epoch and connection number this directory has seen. A journal that knows less than its
//! witness is an old copy that somebody put back. It is written after the commit it speaks of, so it is never ahead
//! of an honest journal.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::ids::Epoch;

use super::error::StoreError;
use super::row::hex;

/// Names in the data directory.
pub(super) const JOURNAL: &str = "journal.db";
const WITNESS: &str = "journal.witness";
const LOCK: &str = "journal.lock";
const SUSPECT: &str = "journal.suspect";

/// The witness file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Witness {
    pub(super) epoch: Epoch,
    /// Highest connection number given out to any uplink.
    pub(super) conn: u64,
}

impl Witness {
    /// None if there is none, or if it says nothing.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(WITNESS);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file("read", &path, error)),
        }
    }

    /// Replaces the file; on disk when it returns.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| StoreError::file("write", &dir.join(WITNESS), error.into()))?;
        replace(dir, WITNESS, &json)
    }
}

fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    };
    write().map_err(|error| StoreError::file("write", &path, error))?;
    sync_dir(dir)
}

/// Puts names in the directory on disk.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::file("sync", dir, error))
}

/// The exclusive lock on a data directory, held as long as this lives and freed by the kernel if the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _held: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| StoreError::file("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let pid = pid.trim();
                let holder = if pid.is_empty() { String::new() } else { format!(" by process {pid}") };
                return Err(StoreError::Locked { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::file("lock", &path, error)),
        }
        // Who holds it, for the error text of whoever comes second.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| StoreError::file("write", &path, error))?;
        Ok(Self { _held: file })
    }
}

/// How often in a row SQLite called the file corrupt while it was written. The process ends then; the next one looks
/// closely before it goes on, and the second time in a row takes no other file's word.
pub(super) fn suspicion(dir: &Path) -> u32 {
    fs::read_to_string(dir.join(SUSPECT)).ok().map_or(0, |text| text.trim().parse().unwrap_or(1))
}

pub(super) fn raise_suspicion(dir: &Path) -> Result<(), StoreError> {
    let times = suspicion(dir).saturating_add(1);
    replace(dir, SUSPECT, format!("{times}\n").as_bytes())
}

pub(super) fn clear_suspicion(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(SUSPECT);
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::file("remove", &path, error)),
    }
}

/// A hash of the machine's id, so that the id itself does not travel with copies; none where there is no stable one.
pub(super) fn machine() -> Option<String> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    // systemd writes "uninitialized" into images that have not booted yet.
    let stable = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    stable.then(|| hex(&Sha256::digest(format!("gatehouse journal {id}"))))
}

/// The files of one journal. The database is moved first: a WAL left alone is noticed at the next start, a database
/// without its WAL is not.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Moves the journal and its WAL away under a dated name that nothing else has; none if there was nothing to move.
pub(super) fn set_aside(dir: &Path, wall_ms: i64) -> Result<Option<PathBuf>, StoreError> {
    let base = dated(wall_ms);
    let target = |name: &str, suffix: &str| dir.join(format!("{name}{suffix}"));
    let mut name = base.clone();
    let mut copies = 1_u32;
    while SUFFIXES.iter().any(|suffix| target(&name, suffix).exists()) {
        copies = copies.saturating_add(1);
        name = format!("{base}-{copies}");
    }
    let mut moved = false;
    for suffix in SUFFIXES {
        let from = target(JOURNAL, suffix);
        match fs::rename(&from, target(&name, suffix)) {
            Ok(()) => moved = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::file("set aside", &from, error)),
        }
    }
    sync_dir(dir)?;
    Ok(moved.then(|| dir.join(name)))
}

/// `journal.damaged-YYYYMMDD-HHMMSS`, in UTC.
fn dated(wall_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("journal.damaged-%Y%m%d-%H%M%S").to_string()
}
