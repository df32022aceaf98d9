//! How much of the file each class takes: running sums, so that nobody ever has to count a million rows. Kept in memory,
//! noted in the file now and then; a start counts only what came after the last note.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::ids::Seq;
use crate::model::record::{Category, Class, Draft};

use super::budget::ROW_OVERHEAD_BYTES;
use super::heads::PerClass;
use super::row::{int, number};

/// Rows of a class after which its sums are noted again: a start counts at most about so many, some 3 MB.
const NOTE_ROWS: u64 = 8_192;

/// What stands in one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) records: u64,
    /// Texts and [`ROW_OVERHEAD_BYTES`] of each row.
    pub(super) bytes: u64,
}

impl Usage {
    pub(super) fn add(&mut self, bytes: u64) {
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn take(&mut self, records: u64, bytes: u64) {
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The sums of all classes, and up to which number the file knows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) usage: PerClass<Usage>,
    noted: PerClass<Seq>,
}

/// What the rows' texts take, in SQL.
pub(super) const TEXT_BYTES: &str =
    "octet_length(body) + coalesce(octet_length(device), 0) + coalesce(octet_length(category), 0)";

/// What a row counts for, by the bytes of its texts.
pub(super) const fn row_bytes(texts: u64) -> u64 {
    texts.saturating_add(ROW_OVERHEAD_BYTES)
}

/// What a draft with this body counts for.
pub(super) fn draft_bytes(draft: &Draft, json: &str) -> u64 {
    let device = draft.body.device().map_or(0, |device| device.id.as_str().len());
    let category = draft.body.category().map_or(0, |category: Category| category.as_str().len());
    row_bytes(json.len().saturating_add(device).saturating_add(category) as u64)
}

impl Sums {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut sums = Self::default();
        for class in Class::ALL {
            let table = class.as_str();
            let (upto, known) = conn
                .prepare_cached("SELECT upto, records, bytes FROM usage WHERE class = ?1")?
                .query_row([table], |row| {
                    let usage = Usage { records: number(row.get(1)?), bytes: number(row.get(2)?) };
                    Ok((number(row.get(0)?), usage))
                })
                .optional()?
                .unwrap_or_default();
            let sql = format!("SELECT count(*), coalesce(sum({TEXT_BYTES}), 0) FROM {table} WHERE seq > ?1");
            let (records, texts) = conn
                .prepare_cached(&sql)?
                .query_row([int(upto)], |row| Ok((number(row.get(0)?), number(row.get(1)?))))?;
            let bytes = texts.saturating_add(records.saturating_mul(ROW_OVERHEAD_BYTES));
            sums.usage[class] = Usage {
                records: known.records.saturating_add(records),
                bytes: known.bytes.saturating_add(bytes),
            };
            sums.noted[class] = upto;
        }
        Ok(sums)
    }

    /// Notes the classes that have grown much since, within the caller's transaction.
    pub(super) fn note_grown(&mut self, conn: &Connection, last: &PerClass<Seq>) -> rusqlite::Result<()> {
        for class in Class::ALL {
            if last[class].saturating_sub(self.noted[class]) >= NOTE_ROWS {
                self.note(conn, class, last[class])?;
            }
        }
        Ok(())
    }

    /// Notes the sums of a class up to its last number: whoever deletes rows must.
    pub(super) fn note(&mut self, conn: &Connection, class: Class, last: Seq) -> rusqlite::Result<()> {
        let Usage { records, bytes } = self.usage[class];
        conn.prepare_cached("REPLACE INTO usage (class, upto, records, bytes) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![class.as_str(), int(last), int(records), int(bytes)])?;
        self.noted[class] = last;
        Ok(())
    }
}
