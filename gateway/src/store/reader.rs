//! Reading the journal, beside the writer and without ever waiting for it or making it wait. Each call is one short
//! read transaction: a long one would keep the WAL from being cut back.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::clock::Clocks;
use crate::model::cursor::Cursors;
use crate::model::ids::{Seq, UplinkName};
use crate::model::record::{Class, Record, Severity};
use crate::rt::board::ForgottenStatus;

use super::error::{StoreError, sql, sql_is_damage};
use super::heads::Heads;
use super::op::CommandSlot;
use super::row::{Epochs, Read, clocks, decode, fold_rows, int, last_ntp_ms, number, rank, select};
use super::schema;
use super::stage::load_heads;
use super::witness::JOURNAL;

/// Records that a backward search reads at once.
const PAGE_RECORDS: u64 = 64;

/// A read-only connection. It belongs to one thread at a time.
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the journal in `dir`, whether or not a daemon has it open.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(JOURNAL);
        if !path.exists() {
            return Err(StoreError::Missing { dir: dir.to_owned() });
        }
        let conn = schema::open_reader(&path)?;
        if schema::version(&conn, &path)? < schema::VERSION {
            return Err(StoreError::Older { path });
        }
        Ok(Self { conn, path })
    }

    /// What is stored, all classes at one moment.
    pub fn heads(&self) -> Result<Heads, StoreError> {
        self.snapshot(|conn| {
            let epoch = Epochs::load(conn)?.current().ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            load_heads(conn, epoch)
        })
    }

    /// What stands at `from..=to` of a class, in order: at most `records_max`, and no more once their bodies reach
    /// `bytes_max` bytes together, but at least one. Numbers without a row are passed over.
    pub fn read(
        &self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Read>, StoreError> {
        self.snapshot(|conn| {
            let epochs = Epochs::load(conn)?;
            let mut page = Page { reads: Vec::new(), records_max, bytes_left: bytes_max };
            let mut from = from;
            while from <= to && !page.is_full() {
                match page.fill(conn, class, (from, to), &epochs) {
                    Ok(()) => break,
                    Err(error) if sql_is_damage(&error) => {
                        // A page of the file is broken: number by number, what can be read is.
                        from = page.last().map_or(from, |seq| seq.saturating_add(1).max(from));
                        if page.is_full() || from > to {
                            break;
                        }
                        page.fill_one(conn, class, from, &epochs)?;
                        from = from.saturating_add(1);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(page.reads)
        })
    }

    /// The highest number in `not_below..below` whose record `wanted` accepts. Rows that cannot be read are passed over.
    pub fn last_before(
        &self,
        class: Class,
        below: Seq,
        not_below: Seq,
        wanted: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<Option<Seq>, StoreError> {
        let mut end = below;
        while end > not_below {
            let start = end.saturating_sub(PAGE_RECORDS).max(not_below);
            let page = self.read(class, start, end.saturating_sub(1), usize::MAX, usize::MAX)?;
            for read in page.into_iter().rev() {
                if let Read::Record(record) = read
                    && wanted(&record)
                {
                    return Ok(Some(record.seq));
                }
            }
            // Whole ranges may be gone: go on below the next row that stands.
            end = self.last_row_below(class, start)?.map_or(0, |seq| seq.saturating_add(1));
        }
        Ok(None)
    }

    /// The highest number below `below` that is stored.
    pub fn last_row_below(&self, class: Class, below: Seq) -> Result<Option<Seq>, StoreError> {
        self.snapshot(|conn| {
            let sql = format!("SELECT max(seq) FROM {} WHERE seq < ?1", class.as_str());
            let seq: Option<i64> = conn.prepare_cached(&sql)?.query_row([int(below)], |row| row.get(0))?;
            Ok(seq.map(number))
        })
    }

    /// The first number of the epoch that `seq` belongs to.
    pub fn epoch_start(&self, class: Class, seq: Seq) -> Result<Seq, StoreError> {
        self.snapshot(|conn| Ok(Epochs::load(conn)?.start(class, seq)))
    }

    /// What the clock records say of each boot, and the last time that was confirmed: by a clock record, or by one of the
    /// last records stamped under NTP.
    pub fn clocks(&self) -> Result<Clocks, StoreError> {
        self.snapshot(|conn| {
            let mut clocks = clocks(conn)?;
            if let Some(wall_ms) = last_ntp_ms(conn)?
                && clocks.confirmed_ms().is_none_or(|known_ms| known_ms < wall_ms)
            {
                clocks.confirm(wall_ms);
            }
            Ok(clocks)
        })
    }

    /// What was forgotten since the file began.
    pub fn forgotten(&self) -> Result<Vec<ForgottenStatus>, StoreError> {
        self.snapshot(super::walk::forgotten)
    }

    /// The state of the pipeline as the last commit left it.
    pub(super) fn fold_rows(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.snapshot(fold_rows)
    }

    /// What is known of a command's id, without taking it for one that has come.
    pub fn command(
        &self,
        uplink: &UplinkName,
        id: &str,
        body_hash: &[u8; 32],
    ) -> Result<CommandSlot, StoreError> {
        self.snapshot(|conn| {
            let known = conn
                .prepare_cached("SELECT body_hash, outcome FROM command WHERE uplink = ?1 AND id = ?2")?
                .query_row([uplink.as_str(), id], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))
                .optional()?;
            Ok(match known {
                None => CommandSlot::New,
                Some((hash, outcome)) if hash == body_hash => CommandSlot::Known { outcome },
                Some(_) => CommandSlot::Conflict,
            })
        })
    }

    /// Ids of an uplink's commands that were begun and have no outcome, in their order.
    pub fn begun_commands(&self, uplink: &UplinkName) -> Result<Vec<String>, StoreError> {
        self.snapshot(|conn| {
            let mut select = conn
                .prepare_cached("SELECT id FROM command WHERE uplink = ?1 AND outcome IS NULL ORDER BY n")?;
            let ids = select.query_map([uplink.as_str()], |row| row.get(0))?;
            ids.collect()
        })
    }

    /// Where an uplink stood when it was last stored; none for a new one.
    pub fn cursors(&self, uplink: &UplinkName) -> Result<Option<Cursors>, StoreError> {
        let json: Option<String> = self.snapshot(|conn| {
            let row = conn
                .prepare_cached("SELECT cursors FROM uplink WHERE name = ?1")?
                .query_row([uplink.as_str()], |row| row.get(0))
                .optional()?;
            Ok(row.flatten())
        })?;
        json.map(|json| {
            serde_json::from_str(&json)
                .map_err(|error| StoreError::damaged(&self.path, format!("cursors of {uplink}: {error}")))
        })
        .transpose()
    }

    /// The last connection number given out to an uplink, 0 if none.
    pub fn last_conn(&self, uplink: &UplinkName) -> Result<u64, StoreError> {
        self.snapshot(|conn| {
            let conn: Option<i64> = conn
                .prepare_cached("SELECT conn FROM uplink WHERE name = ?1")?
                .query_row([uplink.as_str()], |row| row.get(0))
                .optional()?;
            Ok(conn.map_or(0, number))
        })
    }

    /// The highest connection number given out to any uplink, 0 if none.
    pub fn conn_max(&self) -> Result<u64, StoreError> {
        self.snapshot(|conn| {
            let conn: Option<i64> =
                conn.prepare_cached("SELECT max(conn) FROM uplink")?.query_row([], |row| row.get(0))?;
            Ok(conn.map_or(0, number))
        })
    }

    /// Whether `from..=to` of a class holds a record of at least this severity. Reads rows until it finds one.
    pub fn has_pending(
        &self,
        class: Class,
        from: Seq,
        to: Seq,
        severity: Severity,
    ) -> Result<bool, StoreError> {
        self.snapshot(|conn| {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM {} WHERE seq BETWEEN ?1 AND ?2 AND severity >= ?3)",
                class.as_str()
            );
            conn.prepare_cached(&sql)?
                .query_row(params![int(from), int(to), rank(severity)], |row| row.get(0))
        })
    }

    /// How many records stand at `from..=to` of a class.
    pub fn count(&self, class: Class, from: Seq, to: Seq) -> Result<u64, StoreError> {
        self.snapshot(|conn| {
            let sql = format!("SELECT count(*) FROM {} WHERE seq BETWEEN ?1 AND ?2", class.as_str());
            conn.prepare_cached(&sql)?.query_row([int(from), int(to)], |row| Ok(number(row.get(0)?)))
        })
    }

    /// Runs queries that see one state of the file.
    pub(super) fn snapshot<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let run = || {
            // Prepared once: each record of each uplink comes through here, and parsing would cost as much as reading.
            self.conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            let found = query(&self.conn);
            // After a broken page COMMIT would fail, and there is nothing to commit; some errors have rolled back already.
            if !self.conn.is_autocommit() {
                self.conn.prepare_cached("ROLLBACK")?.execute([])?;
            }
            found
        };
        run().map_err(sql("read", &self.path))
    }
}

/// What a read gathers, within its bounds.
struct Page {
    reads: Vec<Read>,
    records_max: usize,
    bytes_left: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.reads.len() >= self.records_max || (self.bytes_left == 0 && !self.reads.is_empty())
    }

    fn last(&self) -> Option<Seq> {
        self.reads.last().map(Read::seq)
    }

    fn push(&mut self, (read, bytes): (Read, usize)) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.reads.push(read);
    }

    fn fill(
        &mut self,
        conn: &Connection,
        class: Class,
        (from, to): (Seq, Seq),
        epochs: &Epochs,
    ) -> rusqlite::Result<()> {
        let sql = format!("{}WHERE r.seq BETWEEN ?1 AND ?2 ORDER BY r.seq", select(class));
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([int(from), int(to)])?;
        while !self.is_full()
            && let Some(row) = rows.next()?
        {
            self.push(decode(class, row, epochs)?);
        }
        Ok(())
    }

    fn fill_one(
        &mut self,
        conn: &Connection,
        class: Class,
        seq: Seq,
        epochs: &Epochs,
    ) -> rusqlite::Result<()> {
        let sql = format!("{}WHERE r.seq = ?1", select(class));
        let mut statement = conn.prepare_cached(&sql)?;
        match statement.query_row([int(seq)], |row| decode(class, row, epochs)).optional() {
            Ok(Some(read)) => self.push(read),
            Ok(None) => {}
            Err(error) if sql_is_damage(&error) => {
                self.push((Read::Unreadable { class, seq, error: error.to_string() }, 0));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
