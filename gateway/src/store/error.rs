//! What can go wrong with the journal, and which of it is damage: damage is set aside, everything else is tried again
//! or told to a person.

use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use crate::model::journal::JournalError;

/// Why the journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error("the data directory {} is in use{holder}; stop the other gatehouse or set another data_dir", dir.display())]
    Locked { dir: PathBuf, holder: String },
    /// A later version made the file.
    #[error(
        "the journal {} has schema {found}, this gatehouse knows up to {known}; install the version that wrote it \
         or a newer one, or move the file away",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// Only the gateway itself brings it up to date.
    #[error("the journal {} has an older schema; start the gateway once to bring it up to date", path.display())]
    Older { path: PathBuf },
    /// There is no journal to read.
    #[error("no journal in {}; give the data_dir of a gateway that has run", dir.display())]
    Missing { dir: PathBuf },
    /// The disk has not let it be opened yet.
    #[error("the journal in {} is not open yet: its disk cannot be written", dir.display())]
    NotOpen { dir: PathBuf },
    /// A file beside the journal.
    #[error("could not {verb} {}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    /// SQLite refused.
    #[error("could not {verb} the journal {}", path.display())]
    Sql { verb: &'static str, path: PathBuf, source: rusqlite::Error },
    /// The file is not what a journal is.
    #[error("the journal {} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    /// The witness beside the journal: without it a restored copy cannot be told from the original.
    #[error("the witness of the journal in {} could not be written: {why}", dir.display())]
    Unwitnessed { dir: PathBuf, why: String },
    /// Something asked for cannot be stored, whatever the disk does.
    #[error("a record cannot be stored: {0}")]
    Rejected(String),
}

impl StoreError {
    pub(super) fn file(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { verb, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// Whether the file itself is broken, so that trying again cannot help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sql { source, .. } => sql_is_damage(source),
            _ => false,
        }
    }
}

impl StoreError {
    /// Whether the disk is to blame: it may come back by itself, and nobody may be silenced meanwhile.
    pub fn is_disk(&self) -> bool {
        match self {
            Self::File { source, .. } => io_is_disk(source),
            Self::Sql { path, source, .. } => {
                let refused = matches!(
                    source.sqlite_error_code(),
                    Some(
                        ErrorCode::DiskFull
                            | ErrorCode::SystemIoFailure
                            | ErrorCode::ReadOnly
                            | ErrorCode::CannotOpen
                    )
                );
                // SQLite says the same of a file that belongs to somebody else.
                let forbidden = || {
                    let opened = OpenOptions::new().write(true).open(path);
                    opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
                };
                refused && !self.is_damage() && !forbidden()
            }
            _ => false,
        }
    }
}

/// What the system says of a disk that is full, read-only, failing or gone. Missing rights and a missing directory are
/// an installer's mistake instead, and stay errors.
fn io_is_disk(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const DISK: [Errno; 11] = [
        Errno::IO,
        Errno::NXIO,
        Errno::NODEV,
        Errno::NOSPC,
        Errno::ROFS,
        Errno::DQUOT,
        Errno::UCLEAN,
        Errno::STALE,
        Errno::REMOTEIO,
        Errno::NOMEDIUM,
        Errno::MEDIUMTYPE,
    ];
    error.raw_os_error().is_some_and(|code| DISK.iter().any(|errno| errno.raw_os_error() == code))
}

/// Turns SQLite's error into ours, with the verb and the path.
pub(super) fn sql(verb: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sql { verb, path: path.to_owned(), source }
}

/// Corruption, also where the file system or the device reports it.
pub(super) fn sql_is_damage(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        || matches!(failure.extended_code, ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA)
}

/// An error and its causes in one line.
pub(super) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl From<&StoreError> for JournalError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Rejected(why) => Self::Rejected(why.clone()),
            other => Self::Disk(in_full(other)),
        }
    }
}
