//! The engine's two windows to the world: records out of the store, words out of the contract.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::model::cursor::Head;
use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Class, GapReason, Record};
use crate::model::stamp::Stamp;
use crate::north::config::Delivery;
use crate::north::contract::{
    self, ClockState, Frame, Outgoing, SnapshotData, StateData, StateReason, Topics, View,
};
use crate::north::engine::{Read, Source, SourceError, Standing, Unsendable, Wording};
use crate::store::{Heads, Reader};

use super::lookback::{Lookback, Looked};

/// Records that a backward search reads at once.
const PAGE_RECORDS: u64 = 64;
const PAGE_BYTES: usize = 256 * 1024;

/// The journal's reader and the heads that its writer tells. Reads are short, so the caller may block on them.
#[derive(Debug)]
pub(in crate::north) struct StoreSource {
    pub(in crate::north) reader: Reader,
    pub(in crate::north) heads_rx: watch::Receiver<Heads>,
    lookback: BTreeMap<Class, Lookback>,
}

impl StoreSource {
    pub(in crate::north) fn new(reader: Reader, heads_rx: watch::Receiver<Heads>) -> Self {
        Self { reader, heads_rx, lookback: BTreeMap::new() }
    }

    /// The highest number in `from..=to` that `sees` accepts or that cannot be read; and from where on that is known:
    /// where nothing of it is stored, thinning may have emptied far more.
    fn highest(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<(Option<Seq>, Seq), SourceError> {
        let (start, mut from, mut found, mut empty) = (from, from, None, true);
        while from <= to {
            // The bytes may cut a page short: then there is more.
            let page = self.read(class, from, to, usize::MAX, PAGE_BYTES)?;
            let Some(last) = page.last() else { break };
            empty = false;
            from = number(last) + 1;
            let seen = |read: &&Read| match read {
                Read::Record(record) => sees(record),
                Read::Unreadable { .. } => true,
            };
            found = page.iter().rev().find(seen).map(number).or(found);
        }
        if empty {
            let next =
                self.reader.last_row_below(class, start).map_err(|error| SourceError(error.to_string()))?;
            return Ok((None, next.map_or(0, |seq| seq + 1)));
        }
        Ok((found, start))
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.heads_rx.borrow().epoch()
    }

    pub(super) fn heads_now(&self) -> BTreeMap<Class, Head> {
        let heads = *self.heads_rx.borrow();
        Class::ALL.iter().map(|&class| (class, heads.of(class))).collect()
    }
}

impl Source for StoreSource {
    fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError> {
        Ok(self.heads_now())
    }

    fn read(
        &mut self,
        class: Class,
        from: Seq,
        to: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Read>, SourceError> {
        let reads = self
            .reader
            .read(class, from, to, records_max, bytes_max)
            .map_err(|error| SourceError(error.to_string()))?;
        Ok(reads
            .into_iter()
            .map(|read| match read {
                crate::store::Read::Record(record) => Read::Record(record),
                crate::store::Read::Unreadable { seq, error, .. } => Read::Unreadable { seq, detail: error },
            })
            .collect())
    }

    fn last_before(
        &mut self,
        class: Class,
        below: Seq,
        not_below: Seq,
        sees: &dyn Fn(&Record) -> bool,
    ) -> Result<Option<Seq>, SourceError> {
        let floor = not_below.max(self.heads_rx.borrow().of(class).first);
        let mut lookback = self.lookback.remove(&class).unwrap_or_default();
        let looked =
            lookback.look(below, floor, PAGE_RECORDS, |from, to| self.highest(class, from, to, sees));
        self.lookback.insert(class, lookback);
        match looked? {
            Looked::Found(seq) => Ok(Some(seq)),
            Looked::Nothing => Ok(None),
            Looked::NotYet => {
                let what =
                    "still looking for the last record that this platform may see; the filter hides many";
                Err(SourceError(what.to_owned()))
            }
        }
    }

    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
        self.reader.epoch_start(class, seq).map_err(|error| SourceError(error.to_string()))
    }
}

fn number(read: &Read) -> Seq {
    match read {
        Read::Record(record) => record.seq,
        Read::Unreadable { seq, .. } => *seq,
    }
}

/// The contract's words for one uplink.
#[derive(Debug, Clone)]
pub(super) struct ContractWording {
    pub(super) topics: Topics,
    pub(super) compound: String,
    pub(super) view: View,
    pub(super) delivery: Delivery,
    pub(super) started: Stamp,
    pub(super) commands: Vec<String>,
}

impl ContractWording {
    pub(super) fn frame<'a>(&'a self, now: &'a Stamp) -> Frame<'a> {
        Frame { topics: &self.topics, compound: &self.compound, now, view: &self.view }
    }

    fn state_data(&self, standing: &Standing) -> StateData {
        StateData {
            conn: standing.conn,
            rev: standing.rev,
            online: standing.online,
            epoch: standing.epoch,
            reason: standing.reason,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            clock: ClockState::default(),
            classes: standing.classes.clone(),
            delivery: self.delivery,
            commands: self.commands.clone(),
        }
    }

    /// What the broker is to say when it loses connection `conn`.
    pub(super) fn will(&self, conn: u64, epoch: Epoch, now: &Stamp) -> Outgoing {
        let standing = Standing {
            conn,
            rev: 0,
            epoch,
            online: false,
            reason: StateReason::Lost,
            classes: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        contract::will_message(&self.state_data(&standing), &self.frame(now))
    }
}

fn unsendable(why: &contract::Unsendable) -> Unsendable {
    let reason = match why {
        contract::Unsendable::TooLarge { .. } => GapReason::TooLarge,
        contract::Unsendable::NotJson(_) | contract::Unsendable::NoTelemetry => GapReason::Unreadable,
    };
    Unsendable { reason, detail: why.to_string() }
}

impl Wording for ContractWording {
    fn sees(&self, record: &Record) -> bool {
        self.view.sees(record)
    }

    fn record(
        &self,
        record: &Record,
        previous: Seq,
        replay: bool,
        now: &Stamp,
    ) -> Result<Outgoing, Unsendable> {
        contract::record_message(record, previous, replay, &self.frame(now)).map_err(|why| unsendable(&why))
    }

    fn telemetry(
        &self,
        records: &[&Record],
        previous: Seq,
        replay: bool,
        now: &Stamp,
    ) -> Result<(Outgoing, usize), Unsendable> {
        contract::telemetry_message(records, previous, replay, &self.frame(now))
            .map_err(|why| unsendable(&why))
    }

    fn state(&self, standing: &Standing, now: &Stamp) -> Outgoing {
        contract::state_message(&self.state_data(standing), &self.frame(now))
    }

    fn snapshot(&self, standing: &Standing, now: &Stamp) -> Vec<Outgoing> {
        let snapshot = SnapshotData {
            number: 1,
            conn: standing.conn,
            epoch: standing.epoch,
            last: standing.last.clone(),
            // Nothing raises alarms yet, so none is open.
            alarms: Vec::new(),
        };
        contract::snapshot_pages(&snapshot, &self.frame(now))
    }
}
