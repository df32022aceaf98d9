//! Rules: what to watch, under which condition and for how long, what to raise and what to do. Pure.

mod catalogue;

use std::sync::Arc;

use crate::model::record::Record;

use super::directory::Directory;
use super::signal::Signal;
use super::{Now, Part};

pub use self::catalogue::{Catalogue, Model};

/// The rules of a configuration, compiled.
#[derive(Debug, Default)]
pub struct Rules;

/// The rules at work: what each of them remembers of each of its subjects.
#[derive(Debug)]
pub(super) struct Engine {
    rules: Arc<Rules>,
    directory: Arc<Directory>,
}

impl Engine {
    pub(super) fn new(rules: Arc<Rules>, directory: Arc<Directory>) -> Self {
        Self { rules, directory }
    }

    /// Judges an event or values.
    pub(super) fn apply(
        &mut self,
        now: &Now,
        record: &Record,
        utc_offset_min: i32,
        signals: &mut Vec<Signal>,
    ) {
    }

    /// The deadline of a row has come.
    pub(super) fn fire(&mut self, now: &Now, key: &str, utc_offset_min: i32, signals: &mut Vec<Signal>) {}
}

impl Part for Engine {
    fn load(&mut self, _key: &str, _value: &str) -> bool {
        false
    }

    fn unsaved(&self, _out: &mut Vec<(String, Option<String>)>) {}

    fn commit(&mut self, _saved: bool) {}

    fn rollback(&mut self) {}

    fn next_due(&self) -> Option<(u64, String)> {
        None
    }
}
