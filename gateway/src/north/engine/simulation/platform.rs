//! A broker and the platform behind it, as honest as a real one: it stores by id, notices holes by `previous`, and can
//! be asked for a broken mood.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Class, Record};
use crate::model::stamp::Stamp;
use crate::north::contract::Outgoing;
use crate::north::engine::source::{Standing, Unsendable, Wording};
use crate::north::engine::stream::Kind;

/// Numbers that the sim's wording finds too large to say: every 97th event.
pub(in crate::north::engine) fn too_large(record: &Record) -> bool {
    record.class == Class::Event
        && record.seq.is_multiple_of(97)
        && !matches!(record.body, crate::model::record::Body::Gap(_))
}

/// A message of the sim's own contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::north::engine) enum Said {
    State { conn: u64, online: bool, pending: Vec<(Class, u64, u64)>, live: Vec<(Class, Seq)> },
    Snapshot,
    Records { class: Class, replay: bool, previous: Seq, records: Vec<(Seq, u64, String)> },
}

/// Says records plainly and hides some of them.
#[derive(Debug, Clone)]
pub(in crate::north::engine) struct PlainWording {
    /// Every `hide`-th record is not for this platform; 0 hides nothing.
    pub(in crate::north::engine) hide: u64,
    pub(in crate::north::engine) batch: usize,
    /// Some records do not fit a message.
    pub(in crate::north::engine) large: bool,
}

impl PlainWording {
    /// Whether a record of this number, if it is no gap record, is not for this platform.
    pub(in crate::north::engine) const fn hides(&self, seq: Seq) -> bool {
        self.hide != 0 && seq.is_multiple_of(self.hide)
    }

    fn message(topic: &str, said: &Said) -> Outgoing {
        let payload = Bytes::from(serde_json::to_vec(said).unwrap());
        Outgoing { topic: topic.to_owned(), payload, retain: matches!(said, Said::State { .. }) }
    }

    fn entry(record: &Record) -> (Seq, u64, String) {
        (record.seq, record.epoch.0, serde_json::to_string(&record.body).unwrap())
    }
}

impl Wording for PlainWording {
    fn sees(&self, record: &Record) -> bool {
        matches!(record.body, crate::model::record::Body::Gap(_)) || !self.hides(record.seq)
    }

    fn record(
        &self,
        record: &Record,
        previous: Seq,
        replay: bool,
        _now: &Stamp,
    ) -> Result<Outgoing, Unsendable> {
        if self.large && too_large(record) {
            return Err(Unsendable {
                reason: crate::model::record::GapReason::TooLarge,
                detail: "too large".to_owned(),
            });
        }
        let records = vec![Self::entry(record)];
        Ok(Self::message(
            record.class.as_str(),
            &Said::Records { class: record.class, replay, previous, records },
        ))
    }

    fn volatile(&self, record: &Record, now: &Stamp) -> Result<Outgoing, Unsendable> {
        self.record(record, 0, false, now)
    }

    fn telemetry(
        &self,
        records: &[&Record],
        previous: Seq,
        replay: bool,
        _now: &Stamp,
    ) -> Result<(Outgoing, usize), Unsendable> {
        let count = records.len().min(self.batch);
        let records = records[..count].iter().map(|record| Self::entry(record)).collect();
        Ok((
            Self::message("telemetry", &Said::Records { class: Class::Telemetry, replay, previous, records }),
            count,
        ))
    }

    fn state(&self, standing: &Standing, _now: &Stamp) -> Outgoing {
        let pending = standing.classes.iter().flat_map(|(class, state)| {
            state.pending.iter().map(|range| (*class, range.from, range.to)).collect::<Vec<_>>()
        });
        let pending = pending.collect();
        let live = standing.classes.iter().map(|(class, state)| (*class, state.live_from)).collect();
        Self::message("state", &Said::State { conn: standing.conn, online: standing.online, pending, live })
    }

    fn snapshot(&self, _standing: &Standing, _now: &Stamp) -> Vec<Outgoing> {
        vec![Self::message("snapshot", &Said::Snapshot); 2]
    }
}

/// One record as the platform keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::north::engine) struct Kept {
    pub(in crate::north::engine) epoch: u64,
    pub(in crate::north::engine) body: String,
    pub(in crate::north::engine) previous: Seq,
}

#[derive(Debug, Default)]
pub(in crate::north::engine) struct Platform {
    pub(in crate::north::engine) kept: BTreeMap<(Class, Seq), Kept>,
    /// Kept since the last receipt: a crash of the platform loses it.
    pub(in crate::north::engine) unsure: Vec<(Class, Kind, Seq)>,
    /// What a receipt has confirmed: no crash loses it.
    pub(in crate::north::engine) sure: BTreeSet<(Class, Seq)>,
    /// The last number of each stream on this connection.
    pub(in crate::north::engine) last: BTreeMap<(Class, Kind), Seq>,
    /// What may be behind: streams told to wait, and records refused.
    pub(in crate::north::engine) went_back: BTreeSet<(Class, Kind)>,
    pub(in crate::north::engine) refused: BTreeSet<(Class, Seq)>,
    pub(in crate::north::engine) duplicates: u64,
    pub(in crate::north::engine) state_online: Option<(u64, bool)>,
    /// Records delivered live that an earlier state announced as backlog, for the check of announcements.
    pub(in crate::north::engine) announced: BTreeMap<Class, BTreeSet<Seq>>,
    /// Where the live streams began, as the last state said.
    pub(in crate::north::engine) live_from: BTreeMap<Class, Seq>,
    /// With receipts: takes nothing whose predecessor it does not have.
    pub(in crate::north::engine) strict: bool,
    pub(in crate::north::engine) forgotten: BTreeSet<(Class, Seq)>,
}

impl Platform {
    pub(in crate::north::engine) fn new_connection(&mut self) {
        self.last.clear();
        self.went_back.clear();
        self.announced.clear();
    }

    /// Loses what no receipt has confirmed.
    pub(in crate::north::engine) fn crash(&mut self) {
        for (class, _kind, seq) in self.unsure.drain(..) {
            if !self.sure.contains(&(class, seq)) {
                self.kept.remove(&(class, seq));
            }
        }
    }

    /// The receipts the platform can honestly give.
    pub(in crate::north::engine) fn receipts(&mut self) -> Vec<(Class, Kind, Seq, Epoch)> {
        let mut upto = BTreeMap::new();
        for (class, kind, seq) in std::mem::take(&mut self.unsure) {
            // "Stored up to": without a hole, from where the stream began.
            let from = if kind == Kind::Live { self.live_from.get(&class).copied().unwrap_or(1) } else { 1 };
            if (from..=seq).all(|number| self.kept.contains_key(&(class, number))) {
                upto.insert((class, kind), seq);
            }
            self.sure.insert((class, seq));
        }
        let kept = &self.kept;
        upto.into_iter()
            .map(|((class, kind), seq)| (class, kind, seq, Epoch(kept[&(class, seq)].epoch)))
            .collect()
    }

    pub(in crate::north::engine) fn take(&mut self, payload: &[u8], seed: u64) {
        match serde_json::from_slice(payload).unwrap() {
            Said::State { conn, online, pending, live } => {
                self.live_from = live.into_iter().collect();
                self.state_online = Some((conn, online));
                for (class, from, to) in pending {
                    self.announced.entry(class).or_default().extend(from..=to);
                }
            }
            Said::Snapshot => {}
            Said::Records { class, replay, previous, records } => {
                let kind = if replay { Kind::Backlog } else { Kind::Live };
                assert!(self.state_online.is_some(), "records before any state, seed {seed}");
                self.take_records(class, kind, previous, &records, seed);
            }
        }
    }

    fn take_records(
        &mut self,
        class: Class,
        kind: Kind,
        mut previous: Seq,
        records: &[(Seq, u64, String)],
        seed: u64,
    ) {
        for (seq, epoch, body) in records {
            // Without receipts for long, a stream is sent again from the first unconfirmed record.
            let exempt = self.strict
                || self.refused.contains(&(class, *seq))
                || self.went_back.contains(&(class, kind));
            if !exempt {
                let last = self.last.get(&(class, kind)).copied().unwrap_or(0);
                assert!(last < *seq, "{class:?} {kind:?} went from {last} back to {seq}, seed {seed}");
                self.last.insert((class, kind), *seq);
            }
            let known = previous == 0
                || self.kept.contains_key(&(class, previous))
                || self.forgotten.contains(&(class, previous));
            if self.strict && kind == Kind::Live && !known && !self.is_announced(class, previous) {
                // A hole that was not announced: the platform will not confirm beyond it.
                return;
            }
            if self.strict && kind == Kind::Backlog && !known {
                return;
            }
            let kept = Kept { epoch: *epoch, body: body.clone(), previous };
            match self.kept.get(&(class, *seq)) {
                Some(before) => {
                    self.duplicates += 1;
                    assert_eq!(
                        (before.epoch, &before.body),
                        (*epoch, body),
                        "one id, two contents, seed {seed}"
                    );
                }
                None => {
                    self.kept.insert((class, *seq), kept);
                }
            }
            self.unsure.push((class, kind, *seq));
            previous = *seq;
        }
    }

    fn is_announced(&self, class: Class, seq: Seq) -> bool {
        self.announced.get(&class).is_some_and(|pending| pending.contains(&seq))
    }
}
