//! The contact at the lid (机箱防拆): a file in which the kernel or a driver says whether it is open. Told when two looks
//! agree; so is a file that cannot be read, since a contact that is silent guards nothing. The turns are pure.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::read::text;
use super::state::{APART_MS, Flag, LOOKS};
use super::trouble::{LID_FAILED, OPENED};
use crate::model::check::Problem;
use crate::model::record::Draft;
use crate::model::stamp::Stamp;

/// `[gateway.machine.lid]`: the contact at the box's lid.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LidConfig {
    /// File that tells it, such as `/sys/class/gpio/gpio17/value`. It is read each second.
    pub file: PathBuf,
    /// What the file holds while the lid is open.
    #[serde(default = "one")]
    #[schemars(length(min = 1, max = 64))]
    pub open: String,
}

fn one() -> String {
    "1".to_owned()
}

impl LidConfig {
    pub(super) fn problems(&self, path: &[&str]) -> Vec<Problem> {
        let at = |key| [path, &[key]].concat();
        let mut out = Vec::new();
        if !self.file.is_absolute() {
            let problem =
                Problem::error(&at("file"), format!("{:?} is not a whole path", self.file.display()));
            out.push(problem.hint("such as \"/sys/class/gpio/gpio17/value\""));
        }
        if self.open.trim().is_empty() || self.open.len() > 64 {
            out.push(Problem::error(&at("open"), "`open` is 1 to 64 characters that are not blanks"));
        }
        out
    }

    /// Whether the lid is open; None if the file cannot be read, or nothing stands in it.
    pub(super) fn look(&self) -> Option<bool> {
        let text = text(&self.file).filter(|text| !text.is_empty())?;
        Some(text == self.open.trim())
    }
}

/// What has been told of the lid.
#[derive(Debug, Clone, Default)]
pub(super) struct Lid {
    began_ms: Option<u64>,
    open: Flag,
    unreadable: Flag,
}

impl Lid {
    /// What a look has to tell, and the state once that is stored.
    pub(super) fn after(&self, open: Option<bool>, at: &Stamp) -> (Vec<Draft>, Self) {
        let mut lid = self.clone();
        let began_ms = *lid.began_ms.get_or_insert(at.mono_ms);
        let settled = at.mono_ms.saturating_sub(began_ms) >= APART_MS;
        let unreadable = lid.unreadable.look(Some(open.is_none()), LOOKS, settled);
        let told = [
            LID_FAILED.told(unreadable, at, None),
            OPENED.told(lid.open.look(open, LOOKS, settled), at, None),
        ];
        (told.into_iter().flatten().collect(), lid)
    }
}
