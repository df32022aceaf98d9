//! Where drafts become records, on the disk or in memory: one draft, and right behind it what the fold makes of it, and
//! of that, within bounds.

use crate::model::limits::{FOLD_DEPTH_MAX, FOLD_DRAFTS_MAX};
use crate::model::record::{Draft, Record};

use super::row;

/// Something that numbers drafts.
pub(super) trait Sink {
    type Error;

    /// Numbers and keeps a draft; `json` is its body.
    fn insert(&mut self, draft: Draft, json: &str) -> Result<Record, Self::Error>;

    /// What the fold makes of a record.
    fn fold(&mut self, record: &Record) -> Vec<Draft>;

    /// So many drafts of the fold were dropped.
    fn drop_folded(&mut self, count: u64);

    /// Keeps a draft and all that it gives rise to.
    fn store(&mut self, draft: Draft, json: &str) -> Result<(), Self::Error> {
        let mut room = FOLD_DRAFTS_MAX;
        let record = self.insert(draft, json)?;
        // What is still to be stored, next last, with its depth.
        let mut waiting: Vec<(Draft, usize)> = Vec::new();
        self.spread(&record, 1, &mut waiting, &mut room);
        while let Some((draft, depth)) = waiting.pop() {
            match row::encode(&draft.body) {
                Ok(json) => {
                    let record = self.insert(draft, &json)?;
                    self.spread(&record, depth.saturating_add(1), &mut waiting, &mut room);
                }
                Err(error) => {
                    tracing::error!(%error, "what the rules made of a record cannot be stored");
                    self.drop_folded(1);
                }
            }
        }
        Ok(())
    }

    fn spread(&mut self, record: &Record, depth: usize, waiting: &mut Vec<(Draft, usize)>, room: &mut usize) {
        let mut drafts = self.fold(record);
        let taken = if depth > FOLD_DEPTH_MAX { 0 } else { drafts.len().min(*room) };
        let dropped = drafts.len().saturating_sub(taken);
        if dropped > 0 {
            tracing::error!(record = %record.id(), depth, dropped, "the rules make too much of one record");
            self.drop_folded(dropped as u64);
            drafts.truncate(taken);
        }
        *room = room.saturating_sub(taken);
        waiting.extend(drafts.into_iter().rev().map(|draft| (draft, depth)));
    }
}
