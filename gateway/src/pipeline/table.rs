//! Rows of state by key, which can be taken back until they are committed, and which know what falls due next.
//!
//! Every change goes through [`Table::put`] and [`Table::remove`]; so undo, the list of what is not stored yet and the
//! order of deadlines cannot disagree with the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row of state.
pub(super) trait Row: Clone + PartialEq + Debug + Serialize + DeserializeOwned {
    /// When it falls due by itself, in the pipeline's time ([`super::time::Time`]).
    fn due_ms(&self) -> Option<u64> {
        None
    }
}

/// A table, whatever its rows are.
pub(super) trait Rows {
    /// Takes up a stored row, if it is one of these. A row that cannot be read any more is dropped: its rule or device
    /// begins anew. One that was changed here since is newer than the stored one.
    fn load(&mut self, key: &str, value: &str) -> bool;
    /// Rows that are not stored as they are; no value where the row is gone.
    fn unsaved(&self, out: &mut Vec<(String, Option<String>)>);
    /// What was changed has happened; `saved`: and is stored.
    fn commit(&mut self, saved: bool);
    /// What was changed since the last commit never happened.
    fn rollback(&mut self);
}

/// Rows of one kind, under keys that begin with a prefix of their own in the journal.
#[derive(Debug)]
pub(super) struct Table<R> {
    prefix: &'static str,
    rows: BTreeMap<String, R>,
    dues: BTreeSet<(u64, String)>,
    /// What stood before the first change since the last commit.
    before: BTreeMap<String, Option<R>>,
    unsaved: BTreeSet<String>,
}

impl<R: Row> Table<R> {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            rows: BTreeMap::new(),
            dues: BTreeSet::new(),
            before: BTreeMap::new(),
            unsaved: BTreeSet::new(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&R> {
        self.rows.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &R)> {
        self.rows.iter().map(|(key, row)| (key.as_str(), row))
    }

    /// Rows whose keys begin with this.
    pub(super) fn beginning<'a>(&'a self, with: &'a str) -> impl Iterator<Item = (&'a str, &'a R)> {
        let from = self.rows.range::<str, _>((std::ops::Bound::Included(with), std::ops::Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(with)).map(|(key, row)| (key.as_str(), row))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn put(&mut self, key: &str, row: R) {
        self.set(key, Some(row));
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.set(key, None);
    }

    fn set(&mut self, key: &str, row: Option<R>) {
        if self.rows.get(key) == row.as_ref() {
            return;
        }
        let old = self.place(key, row);
        if !self.before.contains_key(key) {
            self.before.insert(key.to_owned(), old);
        }
        self.unsaved.insert(key.to_owned());
    }

    fn place(&mut self, key: &str, row: Option<R>) -> Option<R> {
        let due = row.as_ref().and_then(R::due_ms);
        let old = match row {
            Some(row) => self.rows.insert(key.to_owned(), row),
            None => self.rows.remove(key),
        };
        if let Some(due) = old.as_ref().and_then(R::due_ms) {
            self.dues.remove(&(due, key.to_owned()));
        }
        self.dues.extend(due.map(|due| (due, key.to_owned())));
        old
    }

    /// What falls due first.
    pub(super) fn next_due(&self) -> Option<(u64, &str)> {
        self.dues.first().map(|(due, key)| (*due, key.as_str()))
    }

    /// A row as it is, stored or not; no value where it is gone.
    pub(super) fn row(&self, key: &str) -> (String, Option<String>) {
        let value = self.rows.get(key).and_then(|row| serde_json::to_string(row).ok());
        (format!("{}{key}", self.prefix), value)
    }
}

impl<R: Row> Rows for Table<R> {
    fn load(&mut self, key: &str, value: &str) -> bool {
        let Some(key) = key.strip_prefix(self.prefix) else { return false };
        if self.unsaved.contains(key) {
            return true;
        }
        match serde_json::from_str::<R>(value) {
            Ok(row) => {
                self.dues.extend(row.due_ms().map(|due| (due, key.to_owned())));
                self.rows.insert(key.to_owned(), row);
            }
            Err(_unreadable) => {
                self.unsaved.insert(key.to_owned());
            }
        }
        true
    }

    fn unsaved(&self, out: &mut Vec<(String, Option<String>)>) {
        out.extend(self.unsaved.iter().map(|key| self.row(key)));
    }

    fn commit(&mut self, saved: bool) {
        self.before.clear();
        if saved {
            self.unsaved.clear();
        }
    }

    fn rollback(&mut self) {
        for (key, row) in std::mem::take(&mut self.before) {
            self.place(&key, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Timer(Option<u64>);

    impl Row for Timer {
        fn due_ms(&self) -> Option<u64> {
            self.0
        }
    }

    fn unsaved(table: &Table<Timer>) -> Vec<(String, Option<String>)> {
        let mut out = Vec::new();
        table.unsaved(&mut out);
        out
    }

    #[test]
    fn what_never_happened_leaves_nothing() {
        let mut table = Table::new("t/");
        assert!(table.load("t/a", "5") && !table.load("u/a", "5"));
        table.put("a", Timer(Some(3)));
        table.put("b", Timer(Some(1)));
        table.remove("a");
        assert_eq!(table.next_due(), Some((1, "b")));
        table.rollback();
        assert_eq!((table.next_due(), table.len()), (Some((5, "a")), 1));
    }

    #[test]
    fn a_late_row_gives_way_to_what_happened_meanwhile() {
        let mut table = Table::new("t/");
        table.load("t/a", "5");
        table.put("b", Timer(Some(3)));
        table.remove("a");
        table.commit(false);
        for (key, value) in [("t/a", "5"), ("t/b", "4"), ("t/c", "6")] {
            assert!(table.load(key, value));
        }
        assert_eq!((table.get("a"), table.next_due(), table.len()), (None, Some((3, "b")), 2));
        assert_eq!(unsaved(&table), [("t/a".to_owned(), None), ("t/b".to_owned(), Some("3".to_owned()))]);
    }

    #[test]
    fn what_happened_in_memory_is_stored_later() {
        let mut table = Table::new("t/");
        table.put("a", Timer(None));
        table.commit(false);
        table.put("b", Timer(None));
        table.rollback();
        // Both: that `b` is as it was can be stored again without harm.
        assert_eq!(unsaved(&table), [("t/a".to_owned(), Some("null".to_owned())), ("t/b".to_owned(), None)]);
        table.commit(true);
        assert!(unsaved(&table).is_empty());
    }
}
