//! The engine's two windows to the world: records out of the store, words out of the contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::clock::Clocks;
use crate::model::cursor::Head;
use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Class, GapReason, Record};
use crate::model::roll::Roll;
use crate::model::stamp::Stamp;
use crate::north::config::Delivery;
use crate::north::contract::{
    self, BootClock, ClockState, Frame, OpenAlarm, Outgoing, SnapshotData, StateData, StateReason, Topics,
    View,
};
use crate::north::engine::{Read, Source, SourceError, Standing, Unsendable, Wording};
use crate::rt::clock::SharedClock;
use crate::store::{Heads, Reader, Store, StoreError, Volatile};

use super::asking::Asking;
use super::lookback::{Lookback, Looked};

/// Records that a backward search reads at once.
const PAGE_RECORDS: u64 = 64;
const PAGE_BYTES: usize = 256 * 1024;

/// The journal's reader and the heads that its writer tells. Reads are short, so the caller may block on them.
#[derive(Debug)]
pub(in crate::north) struct StoreSource {
    /// None where the journal could not be opened: only what is in memory is told then.
    pub(in crate::north) reader: Option<Reader>,
    pub(in crate::north) heads_rx: watch::Receiver<Heads>,
    volatile: Option<Volatile>,
    lookback: BTreeMap<Class, Lookback>,
}

impl StoreSource {
    /// Of a journal without a writer's thread.
    #[cfg(test)]
    pub(in crate::north) fn new(reader: Reader, heads_rx: watch::Receiver<Heads>) -> Self {
        Self { reader: Some(reader), heads_rx, volatile: None, lookback: BTreeMap::new() }
    }

    /// The journal of the running daemon, as far as it can be read, and what it keeps in memory.
    pub(super) fn of(store: &Store) -> Self {
        let reader = store.reader();
        if let Err(error) = &reader {
            tracing::warn!(%error, "the journal cannot be read; what is kept in memory is told all the same");
        }
        Self {
            reader: reader.ok(),
            heads_rx: store.heads(),
            volatile: Some(store.volatile()),
            lookback: BTreeMap::new(),
        }
    }

    fn reader(&self) -> Result<&Reader, SourceError> {
        self.reader.as_ref().ok_or_else(|| SourceError("it could not be opened".to_owned()))
    }

    /// The highest connection number on disk.
    pub(super) fn conn_max(&self) -> Result<u64, StoreError> {
        self.reader.as_ref().map_or(Ok(0), Reader::conn_max)
    }

    /// Waits until there are new records on disk or in memory.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let volatile = async {
            match &mut self.volatile {
                Some(volatile) => volatile.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.heads_rx.changed() => changed,
            () = volatile => Ok(()),
        }
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
            let next = self
                .reader()?
                .last_row_below(class, start)
                .map_err(|error| SourceError(error.to_string()))?;
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
            .reader()?
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

    fn volatile(&mut self, class: Class, after: u64, records_max: usize) -> Vec<(u64, Arc<Record>)> {
        self.volatile.as_ref().map_or_else(Vec::new, |volatile| volatile.after(class, after, records_max))
    }

    fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
        self.reader()?.epoch_start(class, seq).map_err(|error| SourceError(error.to_string()))
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
    pub(super) roll: Arc<Roll>,
    pub(super) clock: SharedClock,
    /// Shared with the shell, which hears the answers.
    pub(super) asking: Arc<Mutex<Asking>>,
}

/// A panic while the lock was held leaves a whole question behind.
pub(super) fn lock(asking: &Mutex<Asking>) -> MutexGuard<'_, Asking> {
    asking.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ContractWording {
    pub(super) fn frame<'a>(&'a self, now: &'a Stamp, clocks: &'a Clocks) -> Frame<'a> {
        Frame { topics: &self.topics, compound: &self.compound, now, clocks, view: &self.view }
    }

    fn clock_state(&self, standing: &Standing, now: &Stamp, clocks: &Clocks) -> ClockState {
        let corrections = clocks.corrections(&now.boot).take(contract::CORRECTIONS_MAX).map(|known| {
            BootClock { boot: known.boot.clone(), offset_ms: known.best.offset_ms, trust: known.best.trust }
        });
        let wanted = standing.online && self.clock.wants_time();
        let nonce = if standing.online { lock(&self.asking).nonce(wanted, now.mono_ms) } else { None };
        ClockState { corrections: corrections.collect(), nonce }
    }

    fn state_data(&self, standing: &Standing, now: &Stamp, clocks: &Clocks) -> StateData {
        StateData {
            conn: standing.conn,
            rev: standing.rev,
            online: standing.online,
            epoch: standing.epoch,
            reason: standing.reason,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            clock: self.clock_state(standing, now, clocks),
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
        let clocks = self.clock.clocks();
        contract::will_message(&self.state_data(&standing, now, &clocks), &self.frame(now, &clocks))
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
        let clocks = self.clock.clocks();
        contract::record_message(record, previous, replay, &self.frame(now, &clocks))
            .map_err(|why| unsendable(&why))
    }

    fn volatile(&self, record: &Record, now: &Stamp) -> Result<Outgoing, Unsendable> {
        let clocks = self.clock.clocks();
        contract::volatile_message(record, &self.frame(now, &clocks)).map_err(|why| unsendable(&why))
    }

    fn telemetry(
        &self,
        records: &[&Record],
        previous: Seq,
        replay: bool,
        now: &Stamp,
    ) -> Result<(Outgoing, usize), Unsendable> {
        let clocks = self.clock.clocks();
        contract::telemetry_message(records, previous, replay, &self.frame(now, &clocks))
            .map_err(|why| unsendable(&why))
    }

    fn state(&self, standing: &Standing, now: &Stamp) -> Outgoing {
        let clocks = self.clock.clocks();
        contract::state_message(&self.state_data(standing, now, &clocks), &self.frame(now, &clocks))
    }

    fn snapshot(&self, standing: &Standing, now: &Stamp) -> Vec<Outgoing> {
        let open = self.roll.open().into_iter();
        let snapshot = SnapshotData {
            number: 1,
            conn: standing.conn,
            epoch: standing.epoch,
            last: standing.last.clone(),
            alarms: open
                .map(|listed| OpenAlarm { seq: listed.seq, test: listed.test, alarm: listed.alarm })
                .collect(),
        };
        contract::snapshot_pages(&snapshot, &self.frame(now, &self.clock.clocks()))
    }
}
