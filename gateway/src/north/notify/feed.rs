//! Alarms out of the journal into the line, and the cursor that says which were told: the number of the first that was
//! not, stored like an uplink's.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::watch;

use super::Parts;
use super::line::{Line, Waiting};
use super::select::wanted;
use super::words;
use crate::model::cursor::{ClassCursor, Cursors};
use crate::model::ids::{NotifierName, Seq, UplinkName};
use crate::model::record::{Body, Class, Record};
use crate::store::{Heads, Read, Reader, Store, Volatile};

/// Records read at once.
const PAGE_RECORDS: usize = 64;
const PAGE_BYTES: usize = 256 * 1024;

/// A notifier that begins tells what is younger than this, not the box's whole past.
const BEGIN_AGE_MS: u64 = 600_000;
const BEGIN_RECORDS_MAX: u64 = 64;

/// Changes that were put into the line out of memory; on disk they have other numbers.
const TOLD_MAX: usize = 256;

/// Its cursor stands in the journal under this and its name; `check` keeps uplinks from names that begin so.
pub const CURSOR_PREFIX: &str = "notifier-";

/// Where a notifier's cursor stands.
pub(super) fn cursor_name(name: &NotifierName) -> Option<UplinkName> {
    UplinkName::new(&format!("{CURSOR_PREFIX}{name}")).ok()
}

/// The journal as a notifier reads it.
#[derive(Debug)]
pub(super) struct Feed {
    cursor: Option<UplinkName>,
    store: Store,
    reader: Option<Reader>,
    heads_rx: watch::Receiver<Heads>,
    volatile: Volatile,
    serial: u64,
    /// The next record to read; none before the cursor was found.
    next: Option<Seq>,
    saved: Option<Seq>,
    /// Alarms and revisions that were put into the line out of memory.
    told: VecDeque<(String, u64)>,
}

impl Feed {
    pub(super) fn new(name: &NotifierName, store: &Store) -> Self {
        Self {
            cursor: cursor_name(name),
            store: store.clone(),
            reader: None,
            heads_rx: store.heads(),
            volatile: store.volatile(),
            serial: 0,
            next: None,
            saved: None,
            told: VecDeque::new(),
        }
    }

    /// Waits until there is something new.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            changed = self.heads_rx.changed() => {
                if changed.is_err() {
                    // The journal is closed: the end is near.
                    std::future::pending::<()>().await;
                }
            }
            () = self.volatile.changed() => {}
        }
    }

    /// Whether the line holds all that waits, as far as it has room.
    pub(super) const fn is_read(&self) -> bool {
        self.reader.is_some() && self.next.is_some()
    }

    /// Puts what is new into the line, as far as it has room.
    pub(super) fn fill(&mut self, parts: &Parts, line: &mut Line) {
        self.take_volatile(parts, line);
        if self.reader.is_none() {
            self.reader = self.store.reader().ok();
        }
        let Some(reader) = &self.reader else { return };
        let mut next = match self.next {
            Some(next) => next,
            None => match begin(reader, self.cursor.as_ref(), *self.heads_rx.borrow(), parts) {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(notifier = %parts.name, error, "the journal cannot be read; it is tried again");
                    self.reader = None;
                    return;
                }
            },
        };
        let last = self.heads_rx.borrow_and_update().of(Class::Alarm).last;
        while next <= last && line.room() > 0 {
            let max = PAGE_RECORDS.min(line.room());
            let page = match reader.read(Class::Alarm, next, last, max, PAGE_BYTES) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(notifier = %parts.name, %error, "the journal cannot be read; it is tried again");
                    self.reader = None;
                    break;
                }
            };
            let Some(end) = page.last().map(Read::seq) else {
                // Nothing of it is stored any more.
                next = last.saturating_add(1);
                break;
            };
            for read in page {
                if let Read::Record(record) = read
                    && !self.came_before(&record, line)
                {
                    offer(parts, &record, Some(record.seq), line);
                }
            }
            next = end.saturating_add(1);
        }
        self.next = Some(next);
    }

    /// Whether this was put into the line out of memory. What of it still waits has a number from now on, which the cursor
    /// does not pass.
    fn came_before(&self, record: &Record, line: &mut Line) -> bool {
        let Some(key) = in_memory(record) else { return false };
        line.number(&key.0, key.1, record.seq) || self.told.contains(&key)
    }

    fn take_volatile(&mut self, parts: &Parts, line: &mut Line) {
        if line.room() == 0 {
            return;
        }
        for (serial, record) in self.volatile.after(Class::Alarm, self.serial, line.room()) {
            self.serial = serial;
            if offer(parts, &record, None, line)
                && let Some(key) = in_memory(&record)
            {
                self.told.push_back(key);
                if self.told.len() > TOLD_MAX {
                    self.told.pop_front();
                }
            }
        }
    }

    /// Stores what is told, if that has changed. What could not be stored is stored the next time; after a crash the
    /// same is told again.
    pub(super) async fn save(&mut self, line: &Line) {
        let Some(next) = line.first_seq().or(self.next) else { return };
        let Some(name) = self.cursor.as_ref().filter(|_| self.saved != Some(next)) else { return };
        let cursor = ClassCursor { live_next: next, ..ClassCursor::default() };
        let cursors = Cursors { classes: BTreeMap::from([(Class::Alarm, cursor)]) };
        if self.store.save_cursors(name, cursors).await.is_ok() {
            self.saved = Some(next);
        }
    }
}

/// Puts a record into the line if people are to hear of it.
fn offer(parts: &Parts, record: &Record, seq: Option<Seq>, line: &mut Line) -> bool {
    let Body::Alarm(alarm) = &record.body else { return false };
    if !wanted(&parts.config, record, alarm) {
        return false;
    }
    let told = words::told(record, alarm, parts.config.language, parts.utc_offset_min);
    line.push(Waiting { seq, told });
    true
}

/// What a change of an alarm is known by, whatever its record's number is.
fn in_memory(record: &Record) -> Option<(String, u64)> {
    match &record.body {
        Body::Alarm(alarm) => Some((alarm.alarm.clone(), alarm.rev)),
        _ => None,
    }
}

/// The first record that was not told.
fn begin(reader: &Reader, name: Option<&UplinkName>, heads: Heads, parts: &Parts) -> Result<Seq, String> {
    let head = heads.of(Class::Alarm);
    let stored = match name {
        Some(name) => reader.cursors(name).map_err(|error| error.to_string())?,
        None => None,
    };
    let cursor = stored.and_then(|cursors| cursors.classes.get(&Class::Alarm).map(|cursor| cursor.live_next));
    // A cursor beyond the journal is of another life of it.
    if let Some(next) = cursor.filter(|next| *next <= head.last.saturating_add(1)) {
        return Ok(next.max(head.first));
    }
    let from = head.first.max(head.last.saturating_sub(BEGIN_RECORDS_MAX).saturating_add(1));
    let recent = reader
        .read(Class::Alarm, from, head.last, usize::MAX, PAGE_BYTES)
        .map_err(|error| error.to_string())?;
    let now = parts.clock.now();
    let young = recent.iter().find_map(|read| match read {
        Read::Record(record) => {
            record.at.age_ms(&now).is_some_and(|age_ms| age_ms <= BEGIN_AGE_MS).then_some(record.seq)
        }
        Read::Unreadable { .. } => None,
    });
    Ok(young.unwrap_or_else(|| head.last.saturating_add(1)))
}
