//! Opening the file: settings of a connection, making a new schema, migrating an old one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::{StoreError, sql};

/// "GtHs": marks the file as ours.
pub(super) const APPLICATION_ID: i64 = 0x4774_4873;

/// What a new file is made from.
const SCHEMA: &str = include_str!("schema.sql");

/// How many migrations there are.
const STEPS: u8 = 3;

/// Step `n` leads from version `n` to `n + 1`.
const MIGRATIONS: [&str; STEPS as usize] = [
    include_str!("migrations/0001_begin.sql"),
    include_str!("migrations/0002_forget.sql"),
    include_str!("migrations/0003_fold.sql"),
];

/// The version of [`SCHEMA`].
pub(super) const VERSION: i64 = STEPS as i64;

/// Size of a page: one sector of flash, and what a single record's commit writes.
pub(super) const PAGE_BYTES: u64 = 4_096;

/// Longest wait for a lock of the file. Readers never hold one; only the recovery after a crash does, for moments.
const BUSY: Duration = Duration::from_secs(5);

/// The WAL is cut back to this after a checkpoint, if a slow reader made it grow.
const WAL_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// The WAL goes into the file after so many pages: SQLite's own 1 000 are reached every two seconds at 500 records a second,
/// and everyone waits meanwhile. Within [`WAL_KEPT_BYTES`].
pub(super) const CHECKPOINT_PAGES: u64 = 3_000;
const _: () = assert!(CHECKPOINT_PAGES * (PAGE_BYTES + 64) < WAL_KEPT_BYTES);

/// Files up to this size are read through at each start (a second or two on flash); a larger one only when SQLite has
/// called it corrupt before.
pub(super) const CHECKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Whether COMMIT waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// `synchronous=FULL`: each commit is synced before it counts. The only right setting.
    #[default]
    Full,
    /// `synchronous=NORMAL`: a power cut may take acknowledged records. It exists so that the test which looks for
    /// the sync between write and PUBACK can be seen to fail.
    Normal,
}

impl Synchronous {
    /// `Full`, unless the variable `GATEHOUSE_TEST_SYNCHRONOUS` says `normal`. For that one test; nobody else sets it.
    pub fn from_env() -> Self {
        match std::env::var("GATEHOUSE_TEST_SYNCHRONOUS") {
            Ok(value) if value == "normal" => {
                tracing::warn!("GATEHOUSE_TEST_SYNCHRONOUS=normal: what is acknowledged may not be on disk");
                Self::Normal
            }
            _ => Self::Full,
        }
    }

    const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// What stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// No table: it was just made, or its making was interrupted.
    Empty,
    /// A journal of this version or an older one.
    Journal { version: i64 },
}

/// The writer's connection, and what it found. Creates the file if need be, and no table. A file that is not ours is
/// refused before a byte of it is changed.
pub(super) fn open_writer(
    path: &Path,
    synchronous: Synchronous,
) -> Result<(Connection, Content), StoreError> {
    let connect = || {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        conn.set_prepared_statement_cache_capacity(64);
        Ok(conn)
    };
    let conn = connect().map_err(sql("open", path))?;
    let content = identify(&conn, path)?;
    let settle = || {
        if pragma(&conn, "page_count")? == 0 {
            // Both are fixed by the first page, which the change to WAL makes.
            conn.execute_batch(&format!(
                "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL;"
            ))?;
        }
        conn.execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {};
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA cell_size_check = ON;",
            synchronous.pragma()
        ))
    };
    settle().map_err(sql("open", path))?;
    Ok((conn, content))
}

/// A connection that only reads, also while the writer writes, also from another process.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY)?;
        conn.execute_batch("PRAGMA query_only = ON; PRAGMA cell_size_check = ON;")?;
        conn.set_prepared_statement_cache_capacity(64);
        Ok(conn)
    };
    open().map_err(sql("open", path))
}

/// The version in the file, refused if it is newer than ours.
pub(super) fn version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found = pragma(conn, "user_version").map_err(sql("read the version of", path))?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(found)
}

fn identify(conn: &Connection, path: &Path) -> Result<Content, StoreError> {
    let found = version(conn, path)?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sql("read", path))?;
    if tables == 0 && found == 0 {
        return Ok(Content::Empty);
    }
    let id = pragma(conn, "application_id").map_err(sql("read", path))?;
    if id != APPLICATION_ID || found == 0 {
        return Err(StoreError::damaged(path, "it is some other SQLite file"));
    }
    Ok(Content::Journal { version: found })
}

/// Runs the migrations from version `from` on.
pub(super) fn step_up(conn: &Connection, from: i64) -> rusqlite::Result<()> {
    for (to, step) in (1..).zip(MIGRATIONS).filter(|(to, _)| *to > from) {
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        tx.execute_batch(step)?;
        mark(&tx, to)?;
        tx.commit()?;
    }
    Ok(())
}

/// Makes the tables, within the caller's transaction.
pub(super) fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(SCHEMA)?;
    mark(conn, VERSION)
}

fn mark(conn: &Connection, version: i64) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"))
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Reads through the file's structure.
pub(super) fn quick_check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql("check", path))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::damaged(path, verdict)) }
}
