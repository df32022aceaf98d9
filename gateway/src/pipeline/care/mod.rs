//! Care for people living alone (独居老人): no sign of life for so long, or water that does not stop. Pure.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::record::Record;

use super::directory::Directory;
use super::signal::Signal;
use super::{Now, Part};

/// `[care]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CareConfig {}

/// The households that are cared for.
#[derive(Debug)]
pub(super) struct Care {
    config: CareConfig,
    directory: Arc<Directory>,
}

impl Care {
    pub(super) fn new(config: CareConfig, directory: Arc<Directory>) -> Self {
        Self { config, directory }
    }

    pub(super) fn apply(&mut self, now: &Now, record: &Record, signals: &mut Vec<Signal>) {}

    /// The deadline of a row has come.
    pub(super) fn fire(&mut self, now: &Now, key: &str, signals: &mut Vec<Signal>) {}
}

impl Part for Care {
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
