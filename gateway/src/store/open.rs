//! How a journal comes to be open: the lock, damage set aside, a restored copy recognised, a new file begun.
//!
//! What must be survived here, at any step: a crash. So a new file holds its schema, its epoch and the event that
//! explains it in one transaction, and the witness is left alone until that is on disk.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use crate::model::ids::Epoch;
use crate::model::journal::Fold;
use crate::model::stamp::Stamp;

use super::dedup::Rings;
use super::error::{StoreError, in_full, sql};
use super::notice;
use super::row::{self, Epochs};
use super::schema::{self, CHECKED_BYTES_MAX, Content, Synchronous};
use super::stage::{Stage, State};
use super::witness::{self, JOURNAL, Witness};

/// Times in a row that SQLite may call a file corrupt which looks whole when it is read through.
const SUSPICIONS_MAX: u32 = 2;

/// What was found in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The current epoch.
    pub epoch: Epoch,
    pub how: How,
}

/// How the journal came to be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// There was none.
    New,
    /// It goes on.
    Existing,
    /// It was damaged or missing; a new one was begun, and `store.reset` is its first record.
    Reset { set_aside: Option<PathBuf>, reason: String },
    /// The disk could not be written or read: records are kept in memory, and it is tried again. The epoch is that of
    /// the memory journal, if not even that could be read.
    Lost { reason: String },
    /// It is an old copy or comes from another machine; the epoch was forked, and `store.restored` says so.
    Restored { old: Epoch, reason: String },
}

/// An open file and what was read of it.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) conn: Connection,
    pub(super) state: State,
    pub(super) rings: Rings,
    pub(super) witness: Witness,
}

/// Where and how to open.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) dir: &'a Path,
    pub(super) synchronous: Synchronous,
    /// Hash of the machine's id.
    pub(super) machine: Option<String>,
    pub(super) now: Stamp,
}

impl Site<'_> {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    /// Opens what is there, or sets it aside and begins anew. The caller holds the lock.
    pub(super) fn open(&self, fold: &mut dyn Fold) -> Result<(Ground, How), StoreError> {
        let witness = Witness::read(self.dir)?;
        let suspicions = witness::suspicion(self.dir);
        if !self.path().exists() {
            // A WAL without its database, or a witness without a journal: one was here.
            let set_aside = witness::set_aside(self.dir, self.now.wall_ms)?;
            let lost = set_aside.is_some() || witness.is_some();
            let reset = lost.then(|| ("the journal file was missing".to_owned(), set_aside));
            return self.begin(fold, witness, reset);
        }
        let error = if suspicions >= SUSPICIONS_MAX {
            StoreError::damaged(&self.path(), "it cannot be written, though it looks whole")
        } else {
            match self.open_existing(fold, witness, suspicions > 0) {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {
                    let reset = witness.map(|_| ("the journal file was empty".to_owned(), None));
                    return self.begin(fold, witness, reset);
                }
                Err(error) if error.is_damage() => error,
                Err(error) => return Err(error),
            }
        };
        let reason = in_full(&error);
        let set_aside = witness::set_aside(self.dir, self.now.wall_ms)?;
        tracing::error!(reason, set_aside = ?set_aside, "the journal is set aside and a new one begun");
        let opened = self.begin(fold, witness, Some((reason, set_aside)))?;
        witness::clear_suspicion(self.dir)?;
        Ok(opened)
    }

    /// `None`: there are no tables.
    fn open_existing(
        &self,
        fold: &mut dyn Fold,
        witness: Option<Witness>,
        suspected: bool,
    ) -> Result<Option<(Ground, How)>, StoreError> {
        let path = self.path();
        let (conn, content) = schema::open_writer(&path, self.synchronous)?;
        let Content::Journal { version } = content else { return Ok(None) };
        schema::step_up(&conn, version).map_err(sql("migrate", &path))?;
        let bytes =
            std::fs::metadata(&path).map_err(|error| StoreError::file("look at", &path, error))?.len();
        if suspected || bytes <= CHECKED_BYTES_MAX {
            schema::quick_check(&conn, &path)?;
        }
        let (state, rings) = load(&conn, &path)?;
        let (reason, known_machine) = self.doubt(&conn, &state, witness).map_err(read_error(&path))?;
        let old = state.heads.epoch;
        let floor = state.conn_floor.max(witness.map_or(0, |witness| witness.conn));
        fold.load(row::fold_rows(&conn).map_err(read_error(&path))?);
        let mut ground = Ground { witness: witness_of(&state), conn, state, rings };
        if reason.is_some() || (self.machine.is_some() && known_machine.is_none()) {
            self.amend(&mut ground, fold, reason.as_deref(), floor).map_err(sql("write", &path))?;
        }
        if witness != Some(ground.witness) {
            ground.witness.write(self.dir)?;
        }
        let how = reason.map_or(How::Existing, |reason| How::Restored { old, reason });
        Ok(Some((ground, how)))
    }

    /// Why the file may be a copy, if so; and the machine it was written on.
    fn doubt(
        &self,
        conn: &Connection,
        state: &State,
        witness: Option<Witness>,
    ) -> rusqlite::Result<(Option<String>, Option<String>)> {
        let known: Option<String> = conn
            .query_row("SELECT value FROM meta WHERE name = 'machine'", [], |row| row.get(0))
            .optional()?;
        let moved = matches!((&known, &self.machine), (Some(known), Some(here)) if known != here);
        let used = state.heads.pos > 0 || state.conn_max() > 0;
        let reason = match witness {
            _ if moved => Some("it was written on another machine".to_owned()),
            None if used => Some("its witness file is missing".to_owned()),
            None => None,
            // An older epoch of this file is no doubt: a crash may come between a fork and its witness.
            Some(witness) if !Epochs::load(conn)?.contains(witness.epoch) => {
                Some(format!("this directory has seen the epoch {}, which it does not know", witness.epoch))
            }
            Some(witness) if witness.conn > state.conn_max() => Some(format!(
                "this directory has seen connection {}, it knows up to {}",
                witness.conn,
                state.conn_max()
            )),
            Some(_) => None,
        };
        Ok((reason, known))
    }

    /// Forks the epoch of a copy, and notes the machine.
    fn amend(
        &self,
        ground: &mut Ground,
        fold: &mut dyn Fold,
        reason: Option<&str>,
        floor: u64,
    ) -> rusqlite::Result<()> {
        let tx = Transaction::new_unchecked(&ground.conn, TransactionBehavior::Immediate)?;
        let mut stage = Stage::new(&tx, ground.state.clone(), &ground.rings, &mut *fold, &self.now);
        let amended = (|| {
            if let Some(reason) = reason {
                stage.state.conn_floor = floor;
                stage.set_meta("conn_floor", &floor.to_string())?;
                stage.fork(reason)?;
            }
            if let Some(machine) = &self.machine {
                stage.set_meta("machine", machine)?;
            }
            stage.save_fold()
        })();
        let state = stage.state;
        match amended.and_then(|()| tx.commit()) {
            Ok(()) => fold.commit(true),
            Err(error) => {
                fold.rollback();
                return Err(error);
            }
        }
        ground.state = state;
        ground.witness = witness_of(&ground.state);
        Ok(())
    }

    /// Makes a new journal. Connection numbers go on where the witness saw them, so that a platform does not take
    /// the new ones for old.
    fn begin(
        &self,
        fold: &mut dyn Fold,
        witness: Option<Witness>,
        reset: Option<(String, Option<PathBuf>)>,
    ) -> Result<(Ground, How), StoreError> {
        let path = self.path();
        let (conn, _empty) = schema::open_writer(&path, self.synchronous)?;
        let floor = witness.map_or(0, |witness| witness.conn);
        let state = self.create(&conn, fold, floor, reset.as_ref()).map_err(sql("begin", &path))?;
        witness::sync_dir(self.dir)?;
        let ground = Ground { witness: witness_of(&state), conn, state, rings: Rings::default() };
        ground.witness.write(self.dir)?;
        let how = reset.map_or(How::New, |(reason, set_aside)| How::Reset { set_aside, reason });
        Ok((ground, how))
    }

    fn create(
        &self,
        conn: &Connection,
        fold: &mut dyn Fold,
        floor: u64,
        reset: Option<&(String, Option<PathBuf>)>,
    ) -> rusqlite::Result<State> {
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        schema::create(&tx)?;
        let rings = Rings::default();
        let mut stage = Stage::new(&tx, State::begin(floor), &rings, &mut *fold, &self.now);
        let created = (|| {
            let why = reset.map_or("a new journal", |(reason, _)| reason);
            stage.begin_epoch(stage.state.heads.last, why)?;
            stage.set_meta("conn_floor", &floor.to_string())?;
            if let Some(machine) = &self.machine {
                stage.set_meta("machine", machine)?;
            }
            if let Some((reason, set_aside)) = reset {
                stage.tell(notice::reset(&self.now, reason, set_aside.as_deref()))?;
            }
            stage.save_fold()
        })();
        let state = stage.state;
        match created.and_then(|()| tx.commit()) {
            Ok(()) => fold.commit(true),
            Err(error) => {
                fold.rollback();
                return Err(error);
            }
        }
        Ok(state)
    }
}

pub(super) fn witness_of(state: &State) -> Witness {
    Witness { epoch: state.heads.epoch, conn: state.conn_max() }
}

/// Reads what the writer must know.
pub(super) fn load(conn: &Connection, path: &Path) -> Result<(State, Rings), StoreError> {
    let state = State::load(conn).map_err(read_error(path))?;
    let state = state.ok_or_else(|| StoreError::damaged(path, "it has no epoch"))?;
    let rings = Rings::load(conn).map_err(read_error(path))?;
    Ok((state, rings))
}

/// A query that this code makes on its own schema can only fail because of the disk, of memory, or of damage.
fn read_error(path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| {
        let passing = error.sqlite_error_code().is_some_and(|code| {
            matches!(
                code,
                ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::DiskFull
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::PermissionDenied
                    | ErrorCode::ReadOnly
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OperationInterrupted
            )
        });
        if passing && !super::error::sql_is_damage(&error) {
            sql("read", path)(error)
        } else {
            StoreError::damaged(path, error.to_string())
        }
    }
}
