//! All records in the order they were written, filtered: what `gatehouse journal` shows.
//!
//! The walk reads in small windows, each a transaction of its own, and holds at most one window a class in memory.
//! Time is the wall clock's as it was stamped; it may jump within a file, so a range of time is looked for everywhere.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::ids::{DeviceId, Seq};
use crate::model::record::{Class, Record};
use crate::model::stamp::Stamp;
use crate::rt::board::ForgottenStatus;

use super::error::{StoreError, sql_is_damage};
use super::heads::{Heads, PerClass};
use super::reader::Reader;
use super::row::{Epochs, Read, decode, int, number, select};

/// Sequence numbers looked at in one query.
const WINDOW: u64 = 1_024;

/// Which records are wanted. Empty lists mean all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub classes: Vec<Class>,
    pub devices: Vec<DeviceId>,
    /// Milliseconds since 1970 UTC: records stamped at or after it.
    pub from_ms: Option<i64>,
    /// Records stamped before it.
    pub until_ms: Option<i64>,
}

impl Selection {
    fn has_class(&self, class: Class) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }

    fn has(&self, record: &Record) -> bool {
        let device = record.body.device().is_some_and(|device| self.devices.contains(&device.id));
        (self.devices.is_empty() || device)
            && self.from_ms.is_none_or(|from| record.at.wall_ms >= from)
            && self.until_ms.is_none_or(|until| record.at.wall_ms < until)
    }
}

/// A walk through the journal, in the order of positions.
#[derive(Debug)]
pub struct Walk {
    selection: Selection,
    /// First number of each class that is not read yet.
    next: PerClass<Seq>,
    /// Last number of each class at one moment: what came later is not mixed in before its turn.
    last: PerClass<Seq>,
    ready: PerClass<VecDeque<Read>>,
}

impl Walk {
    /// From the first record to the last there is now.
    pub fn new(reader: &Reader, selection: Selection) -> Result<Self, StoreError> {
        let Heads { first, last, .. } = reader.heads()?;
        Ok(Self { selection, next: first, last, ready: PerClass::default() })
    }

    /// Only the last `count` of those that are there now.
    pub fn tail(reader: &Reader, selection: Selection, count: usize) -> Result<Self, StoreError> {
        let mut walk = Self::new(reader, selection)?;
        let mut ends: Vec<(u64, Class, Seq)> = Vec::new();
        for class in Class::ALL {
            ends.extend(walk.ends(reader, class, count)?);
        }
        ends.sort_unstable_by_key(|(pos, ..)| std::cmp::Reverse(*pos));
        ends.truncate(count);
        walk.next = PerClass::from_fn(|class| {
            let kept = ends.iter().filter(|(_, of, _)| *of == class).map(|(.., seq)| *seq).min();
            kept.unwrap_or_else(|| walk.last[class].saturating_add(1))
        });
        Ok(walk)
    }

    /// Position, class and number of the last `count` wanted records of a class.
    fn ends(
        &self,
        reader: &Reader,
        class: Class,
        count: usize,
    ) -> Result<Vec<(u64, Class, Seq)>, StoreError> {
        let mut ends = Vec::new();
        let (first, mut end) = (self.next[class], self.last[class]);
        while self.selection.has_class(class) && ends.len() < count && end >= first && end > 0 {
            let start = end.saturating_sub(WINDOW - 1).max(first);
            let window = self.window(reader, class, start, end)?;
            let records = window.into_iter().filter_map(Read::into_record);
            ends.extend(records.rev().take(count - ends.len()).map(|record| (record.pos, class, record.seq)));
            end = start.saturating_sub(1);
        }
        Ok(ends)
    }

    /// Lets the walk go on to what was written since.
    pub fn extend(&mut self, reader: &Reader) -> Result<(), StoreError> {
        self.last = reader.heads()?.last;
        Ok(())
    }

    /// The next record, or none when all up to the last known are shown.
    pub fn next(&mut self, reader: &Reader) -> Result<Option<Read>, StoreError> {
        let mut best: Option<(u64, Class)> = None;
        for class in Class::ALL {
            if !self.selection.has_class(class) {
                continue;
            }
            while self.ready[class].is_empty() && self.next[class] <= self.last[class] {
                let start = self.next[class];
                let end = start.saturating_add(WINDOW - 1).min(self.last[class]);
                self.ready[class] = self.window(reader, class, start, end)?.into();
                self.next[class] = end.saturating_add(1);
            }
            // A row that cannot be read has no position: it is shown as soon as its turn in the class comes.
            let pos = self.ready[class].front().map(|read| match read {
                Read::Record(record) => record.pos,
                Read::Unreadable { .. } => 0,
            });
            if let Some(pos) = pos
                && best.is_none_or(|(least, _)| pos < least)
            {
                best = Some((pos, class));
            }
        }
        Ok(best.and_then(|(_, class)| self.ready[class].pop_front()))
    }

    fn window(&self, reader: &Reader, class: Class, from: Seq, to: Seq) -> Result<Vec<Read>, StoreError> {
        match self.query(reader, class, from, to) {
            Err(StoreError::Sql { source, .. }) if sql_is_damage(&source) => {
                let all = reader.read(class, from, to, usize::MAX, usize::MAX)?;
                let wanted = |read: &Read| match read {
                    Read::Record(record) => self.selection.has(record),
                    Read::Unreadable { .. } => true,
                };
                Ok(all.into_iter().filter(wanted).collect())
            }
            other => other,
        }
    }

    fn query(&self, reader: &Reader, class: Class, from: Seq, to: Seq) -> Result<Vec<Read>, StoreError> {
        let devices: Vec<&str> = self.selection.devices.iter().map(DeviceId::as_str).collect();
        let devices = (!devices.is_empty()).then(|| serde_json::json!(devices).to_string());
        let sql = format!(
            "{}WHERE r.seq BETWEEN ?1 AND ?2 AND r.wall_ms >= ?3 AND (?4 IS NULL OR r.wall_ms < ?4) \
             AND (?5 IS NULL OR r.device IN (SELECT value FROM json_each(?5))) ORDER BY r.seq",
            select(class)
        );
        reader.snapshot(|conn| {
            let epochs = Epochs::load(conn)?;
            let from_ms = self.selection.from_ms.unwrap_or(i64::MIN);
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement
                .query_map(params![int(from), int(to), from_ms, self.selection.until_ms, devices], |row| {
                    decode(class, row, &epochs)
                })?;
            rows.map(|row| row.map(|(read, _bytes)| read)).collect()
        })
    }
}

/// The stamp of the oldest record of a class, if it can be read.
pub(super) fn oldest(conn: &Connection, class: Class) -> rusqlite::Result<Option<Stamp>> {
    let epochs = Epochs::load(conn)?;
    let sql = format!("{}ORDER BY r.seq LIMIT 1", select(class));
    let mut statement = conn.prepare_cached(&sql)?;
    let read = statement.query_row([], |row| decode(class, row, &epochs)).optional()?;
    Ok(read.and_then(|(read, _bytes)| read.into_record()).map(|record| record.at))
}

/// What was forgotten since the file began.
pub(super) fn forgotten(conn: &Connection) -> rusqlite::Result<Vec<ForgottenStatus>> {
    let mut statement =
        conn.prepare_cached("SELECT class, cause, records FROM forgotten ORDER BY class, cause")?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let class = Class::ALL.into_iter().find(|class| class.as_str() == name);
        let (cause, records) = (row.get(1)?, number(row.get(2)?));
        Ok(class.map(|class| ForgottenStatus { class, cause, records }))
    })?;
    rows.filter_map(Result::transpose).collect()
}
