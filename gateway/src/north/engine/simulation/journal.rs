//! A journal that loses at a crash exactly what was not committed, and can fail to be read.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cursor::{Cursors, Head};
use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Body, Class, Draft, Gap, GapReason, Record};
use crate::north::engine::source::{Read, Source, SourceError};

#[derive(Debug)]
pub(in crate::north::engine) struct SimJournal {
    pub(in crate::north::engine) records: BTreeMap<Class, BTreeMap<Seq, Record>>,
    pub(in crate::north::engine) last: BTreeMap<Class, Seq>,
    /// Epochs with their first numbers, in order.
    pub(in crate::north::engine) epochs: Vec<(Epoch, BTreeMap<Class, Seq>)>,
    pub(in crate::north::engine) unreadable: BTreeSet<(Class, Seq)>,
    /// What a restart would find.
    pub(in crate::north::engine) stored: Cursors,
    /// Saved, but not committed yet.
    pub(in crate::north::engine) relaxed: Option<Cursors>,
    pub(in crate::north::engine) forgotten: BTreeSet<(Class, Seq)>,
    /// The next reads fail.
    pub(in crate::north::engine) broken_reads: u32,
}

impl SimJournal {
    pub(in crate::north::engine) fn new() -> Self {
        Self {
            records: Class::ALL.iter().map(|&class| (class, BTreeMap::new())).collect(),
            last: BTreeMap::new(),
            epochs: vec![(Epoch(1), BTreeMap::new())],
            unreadable: BTreeSet::new(),
            stored: Cursors::default(),
            relaxed: None,
            forgotten: BTreeSet::new(),
            broken_reads: 0,
        }
    }

    pub(in crate::north::engine) fn epoch(&self) -> Epoch {
        self.epochs.last().unwrap().0
    }

    pub(in crate::north::engine) fn append(&mut self, draft: Draft) -> (Class, Seq) {
        let class = draft.body.class();
        let last = self.last.entry(class).or_default();
        *last += 1;
        let seq = *last;
        let epoch = self.epoch();
        let record = Record { pos: 0, epoch, class, seq, at: draft.at, test: draft.test, body: draft.body };
        self.records.get_mut(&class).unwrap().insert(seq, record);
        (class, seq)
    }

    /// All later records belong to another epoch; numbers go on.
    pub(in crate::north::engine) fn fork(&mut self) {
        let starts = Class::ALL.iter().map(|class| (*class, self.last.get(class).copied().unwrap_or(0) + 1));
        let starts = starts.collect();
        self.epochs.push((Epoch(self.epochs.len() as u64 + 1), starts));
    }

    /// Drops the oldest telemetry and leaves a gap record, as a disk budget does.
    pub(in crate::north::engine) fn forget(&mut self, count: usize, at: &crate::model::stamp::Stamp) {
        let telemetry = self.records.get_mut(&Class::Telemetry).unwrap();
        let gone: Vec<Seq> = telemetry.keys().copied().take(count).collect();
        let (Some(&from), Some(&to)) = (gone.first(), gone.last()) else { return };
        for seq in &gone {
            telemetry.remove(seq);
            self.forgotten.insert((Class::Telemetry, *seq));
        }
        let gap = Gap {
            uplink: None,
            class: Class::Telemetry,
            from,
            to,
            count: gone.len() as u64,
            reason: GapReason::Forgotten,
            detail: String::new(),
        };
        self.append(Draft { at: at.clone(), test: false, dedup: None, body: Body::Gap(gap) });
    }

    pub(in crate::north::engine) fn commit(&mut self) {
        if let Some(cursors) = self.relaxed.take() {
            self.stored = cursors;
        }
    }

    pub(in crate::north::engine) fn crash(&mut self) {
        self.relaxed = None;
        self.broken_reads = 0;
    }

    pub(in crate::north::engine) fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.records[&Class::Event].values().filter_map(|record| match &record.body {
            Body::Gap(gap) => Some(gap),
            _ => None,
        })
    }

    fn check(&mut self) -> Result<(), SourceError> {
        if self.broken_reads > 0 {
            self.broken_reads -= 1;
            return Err(SourceError("disk I/O error".to_owned()));
        }
        Ok(())
    }
}

impl Source for SimJournal {
    fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError> {
        let head = |class: Class| {
            let last = self.last.get(&class).copied().unwrap_or(0);
            let first = self.records[&class].keys().next().copied().unwrap_or(last + 1);
            (class, Head { epoch: self.epoch(), first, last })
        };
        Ok(Class::ALL.iter().map(|&class| head(class)).collect())
    }

    fn read(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        _bytes_max: usize,
    ) -> Result<Vec<Read>, SourceError> {
        self.check()?;
        let found = self.records[&class].range(from..=to).take(records_max).map(|(&seq, record)| {
            if self.unreadable.contains(&(class, seq)) {
                Read::Unreadable { seq, detail: "checksum".to_owned() }
            } else {
                Read::Record(Box::new(record.clone()))
            }
        });
        Ok(found.collect())
    }

    fn last_before(
        &mut self,
        class: Class,
        below: Seq,
        not_below: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<Option<Seq>, SourceError> {
        self.check()?;
        if not_below >= below {
            return Ok(None);
        }
        let unreadable = &self.unreadable;
        let mut range = self.records[&class].range(not_below..below).rev();
        Ok(range
            .find(|(seq, record)| unreadable.contains(&(class, **seq)) || sees(record))
            .map(|(&seq, _)| seq))
    }

    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
        let starts = self.epochs.iter().map(|(_, starts)| starts.get(&class).copied().unwrap_or(1));
        Ok(starts.filter(|start| *start <= seq).max().unwrap_or(1))
    }
}
