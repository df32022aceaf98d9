//! From an alarm to what devices are to do about it: which devices, in which order, and what became of it. Pure.

pub mod spec;

use std::sync::Arc;

use crate::model::action::{Action, Report};
use crate::model::alarm::Alarm;
use crate::model::stamp::Stamp;

use self::spec::ActionSpec;
use super::directory::Directory;
use super::signal::Signal;
use super::{Now, Out, Part};

/// What an alarm asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) alarm: Alarm,
    pub(super) specs: Vec<ActionSpec>,
    /// When the condition arose.
    pub(super) at: Stamp,
    pub(super) act_within_ms: u64,
    pub(super) test: bool,
}

/// Actions under way.
#[derive(Debug)]
pub(super) struct Actions {
    directory: Arc<Directory>,
}

impl Actions {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// Chooses devices and asks them, by records.
    pub(super) fn ask(&mut self, now: &Now, asked: Asked, out: &mut Out) {}

    /// An action's record is stored: it is under way from now on.
    pub(super) fn asked(&mut self, now: &Now, action: &Action) {}

    /// What became of an attempt. One that was given up raises an alarm.
    pub(super) fn reported(&mut self, now: &Now, report: &Report, signals: &mut Vec<Signal>) {}

    /// The deadline of a row has come.
    pub(super) fn fire(&mut self, now: &Now, key: &str, signals: &mut Vec<Signal>, out: &mut Out) {}

    /// Those under way when the state was loaded.
    pub(super) fn unfinished(&self) -> Vec<Action> {
        Vec::new()
    }
}

impl Part for Actions {
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
