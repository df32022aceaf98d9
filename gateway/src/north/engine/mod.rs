//! The uplink's engine: decides what is sent when, and what counts as delivered (promises G2 and G3). A synchronous
//! state machine: it is told of connections, PUBACKs, receipts and time, reads records through [`Source`], and
//! answers with [`Actions`]. No I/O, no clock, no MQTT.
//!
//! What must be survived, each a fault of the seeded simulation: a connection that ends anywhere, PUBACKs that are
//! late, lost, out of order or refusals, a platform that does not listen, a process that dies between any two steps,
//! a wall clock that jumps, a journal that cannot be read for a while, records that cannot be read or said at all, a
//! cursor that is older or newer than the journal.
//!
//! The caller feeds inputs, then calls [`Engine::step`] and carries out what it returns: publishes in their order,
//! cursors at leisure, settlements on disk before [`Engine::settled`]. It calls again at `wake_at_ms` at the latest.

mod inbound;
mod line;
mod pace;
mod ranges;
mod sending;
mod source;
mod standing;
mod stream;
mod verdict;
mod volatile;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::cursor::{Cursors, Head};
use crate::model::ids::{Epoch, Seq, UplinkName};
use crate::model::record::{Class, Draft, GapReason};
use crate::model::stamp::Stamp;
use crate::north::config::{Delivery, Pacing};
use crate::north::contract::{Outgoing, StateReason};

use line::Line;
use pace::Bucket;
use volatile::Lane;

pub use inbound::{ReplayAnswer, ReplayError};
pub use source::{Read, Source, SourceError, Standing, Unsendable, Wording};
pub use stream::Kind;

pub(in crate::north) use standing::gateway_event;

/// Payload bytes without a PUBACK at once: what a slow mobile line carries within the PUBACK time-out.
const INFLIGHT_BYTES_MAX: usize = 256 * 1024;
/// Records of one stream that wait for the platform's receipt. Full: the stream waits for receipts.
const UNCONFIRMED_MAX: usize = 1_024;
/// A receipt that stays away longer than this has been lost, or the records have: they are sent again.
const RECEIPT_SILENCE_MS: u64 = 60_000;
/// The longest such silence after repeated ones.
const RECEIPT_SILENCE_MAX_MS: u64 = 600_000;
/// Records of one class set aside. Full: the stream waits until some are delivered or given up.
const ASIDE_MAX: usize = 256;
/// First delay before a refused record is tried again; it doubles.
const ASIDE_RETRY_MS: u64 = 5_000;
const ASIDE_RETRY_MAX_MS: u64 = 300_000;
/// First pause of a stream after "busy" or "nobody listens"; it doubles.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 30_000;
/// A stream that stood longer than this fixes its head anew: what waited is backlog, not live.
const STOOD_LONG_MS: u64 = 60_000;
/// After less than this the box was not part of a regional outage, and its backlog need not wait.
const SHORT_OUTAGE_MS: u64 = 60_000;
/// Records read at once: small, so that a step stays short.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 64 * 1024;
/// Records looked at in one step before the caller gets its turn.
const STEP_RECORDS_MAX: usize = 1_024;
/// The journal refused a read, or a settlement failed: how long to wait.
const RETRY_MS: u64 = 1_000;
/// Cursors are handed out at most this often.
const SAVE_MS: u64 = 250;
/// "Nobody listens" is told as an event at most this often.
const NOBODY_EVENT_MS: u64 = 3_600_000;
/// Records of one replay request, of one class.
const REPLAY_RECORDS_MAX: u64 = 100_000;
/// A silence of all PUBACKs for `puback_timeout_s` means a cut; a single one may be this many times slower.
const SLOW_PUBACK_FACTOR: u64 = 3;
/// After the broker has closed a connection because of a record: so many records are sent one by one, until it is
/// known which it was.
const CAREFUL_RECORDS: u32 = 32;
/// Connections that ended one after the other on the same record, though the broker answered on each: then records
/// are sent one by one.
const ENDS_CAREFUL: u32 = 3;
/// So many, the record alone under way at the last: it counts as refused. Every try of it may cost a connection.
const ENDS_REFUSED: u32 = 5;
/// Gap records written in one settlement.
const SETTLE_MAX: usize = 64;

const _: () = assert!(STEP_RECORDS_MAX >= READ_RECORDS);

/// What an uplink is configured to do.
#[derive(Debug, Clone)]
pub struct Settings {
    pub uplink: UplinkName,
    /// The classes that the filter admits; the others are not touched.
    pub classes: BTreeSet<Class>,
    pub delivery: Delivery,
    pub pacing: Pacing,
}

/// A connection as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Grows with each connection.
    pub conn: u64,
    pub epoch: Epoch,
    /// Publishes that the broker takes at once.
    pub receive_max: u16,
    /// Largest packet that the broker takes, in bytes.
    pub packet_max: u32,
}

/// A message to publish at `QoS` 1; its PUBACK is reported under the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub token: u64,
    pub message: Outgoing,
}

/// Gap records and the cursors that may pass them: one commit, on disk before [`Engine::settled`] is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub ticket: u64,
    pub drafts: Vec<Draft>,
    pub cursors: Cursors,
}

/// What is to be done now.
#[derive(Debug, Default)]
pub struct Actions {
    pub publishes: Vec<Publish>,
    /// To be stored at leisure; a crash before that sends some records again.
    pub save: Option<Cursors>,
    pub settle: Option<Settlement>,
    /// Events to append to the journal.
    pub events: Vec<Draft>,
    /// The link is dead though nobody said so: cut it, for this reason.
    pub cut: Option<String>,
    /// When to call again at the latest, on the monotonic clock.
    pub wake_at_ms: Option<u64>,
}

impl Actions {
    fn wake(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |known| known.min(at_ms)));
    }
}

/// Counts since the last call of [`Engine::take_tally`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub published: BTreeMap<Class, u64>,
    pub delivered: BTreeMap<Class, u64>,
    /// Records given up: a gap record has taken their place.
    pub given_up: BTreeMap<Class, u64>,
    /// Records delivered that were in memory only.
    pub volatile: u64,
    /// Records in memory only that cannot be said to this broker.
    pub volatile_unsaid: u64,
    /// PUBACKs by reason code, success left out.
    pub refusals: BTreeMap<u8, u64>,
}

/// What a published message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    State,
    /// A snapshot's page, an answer.
    Said,
    Records {
        class: Class,
        kind: Kind,
    },
    Aside {
        class: Class,
        seq: Seq,
        gap: bool,
    },
    /// A record that is in memory only.
    Volatile {
        class: Class,
        serial: u64,
    },
    /// Its meaning was lost when its stream went back; only its place in the window counts.
    Orphan,
}

#[derive(Debug, Clone)]
struct Underway {
    purpose: Purpose,
    at_ms: u64,
    bytes: usize,
    topic: String,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The heads are not fixed and announced yet.
    Fresh,
    Serving,
    /// Nothing new is published any more.
    Draining,
}

/// A live connection.
#[derive(Debug)]
struct Up {
    session: Session,
    since_ms: u64,
    /// How long there was no connection before this one, if this process saw it.
    after_ms: Option<u64>,
    stage: Stage,
    /// State and snapshot pages not published yet.
    control: VecDeque<(Outgoing, Purpose)>,
    underway: BTreeMap<u64, Underway>,
    /// Payload bytes of all of `underway`.
    underway_bytes: usize,
    /// When anything was acknowledged last.
    heard_ms: u64,
    acknowledged: bool,
    bucket: Bucket,
    credits: BTreeMap<(Class, Kind), u32>,
    /// The state is to be published again then.
    state_due: Option<(u64, StateReason)>,
    /// The last published state announced a pending range.
    announced: bool,
    /// The number of the last state on this connection.
    rev: u64,
}

#[derive(Debug)]
enum Phase {
    /// Since when, if this process saw it.
    Down {
        since_ms: Option<u64>,
    },
    Up(Box<Up>),
}

/// A record whose gap record is not on disk yet.
#[derive(Debug, Clone)]
struct Lost {
    class: Class,
    seq: Seq,
    reason: GapReason,
    detail: String,
}

/// One uplink's engine.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    wording: Box<dyn Wording>,
    lines: BTreeMap<Class, Line>,
    heads: BTreeMap<Class, Head>,
    lane: Lane,
    phase: Phase,
    next_token: u64,
    lost: VecDeque<Lost>,
    /// A settlement under way: its ticket and how many of `lost` it covers.
    settling: Option<(u64, usize)>,
    settle_at_ms: u64,
    dirty: bool,
    save_at_ms: u64,
    events: Vec<Draft>,
    tally: Tally,
    /// Topics that nobody listened to, by stream.
    nobody: BTreeMap<(Class, Kind), String>,
    nobody_told_ms: Option<u64>,
    /// The last words of a broker that is busy, by stream.
    busy: BTreeMap<(Class, Kind), String>,
    /// The last refusal of a record for its own sake.
    refused: Option<String>,
    /// Records still to be sent one by one.
    careful: u32,
    /// The oldest record that the last connection left unanswered, and how many connections in a row did.
    stuck: Option<(Class, Seq, u32)>,
    state_refused: Option<String>,
    source_trouble: Option<String>,
    rng: fastrand::Rng,
}

impl Engine {
    /// Takes up where `cursors` stand; `heads` are the journal's at this moment.
    pub fn new(
        settings: Settings,
        wording: Box<dyn Wording>,
        cursors: &Cursors,
        heads: BTreeMap<Class, Head>,
        rng: fastrand::Rng,
    ) -> Self {
        let line = |class: Class| Line::new(class, cursors.classes.get(&class), heads.get(&class).copied());
        let lines = settings.classes.iter().map(|&class| (class, line(class))).collect();
        Self {
            settings,
            wording,
            lines,
            heads,
            lane: Lane::default(),
            phase: Phase::Down { since_ms: None },
            next_token: 1,
            lost: VecDeque::new(),
            settling: None,
            settle_at_ms: 0,
            dirty: true,
            save_at_ms: 0,
            events: Vec::new(),
            tally: Tally::default(),
            nobody: BTreeMap::new(),
            nobody_told_ms: None,
            busy: BTreeMap::new(),
            refused: None,
            careful: 0,
            stuck: None,
            state_refused: None,
            source_trouble: None,
            rng,
        }
    }

    /// Works on whatever can be done at `now`.
    pub fn step(&mut self, now: &Stamp, source: &mut dyn Source) -> Actions {
        let mut actions = Actions::default();
        let now_ms = now.mono_ms;
        let advanced = self.advance(now, source, &mut actions);
        // Also where the journal cannot be read: what is in memory is all there is to tell then.
        self.send_volatile(now, source, &mut actions);
        let sent = advanced.and_then(|()| match self.phase {
            Phase::Down { .. } => Ok(()),
            Phase::Up(_) => self.send(now, source, &mut actions),
        });
        match sent {
            Ok(()) => self.source_trouble = None,
            Err(error) => {
                self.source_trouble = Some(error.to_string());
                actions.wake(now_ms + RETRY_MS);
            }
        }
        self.settle_lost(now, &mut actions);
        if self.dirty {
            if now_ms >= self.save_at_ms {
                self.dirty = false;
                self.save_at_ms = now_ms + SAVE_MS;
                actions.save = Some(self.cursors());
            } else {
                actions.wake(self.save_at_ms);
            }
        }
        actions.events.append(&mut self.events);
        actions
    }

    fn advance(
        &mut self,
        now: &Stamp,
        source: &mut dyn Source,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        self.heads = source.heads()?;
        for (class, line) in &mut self.lines {
            if let Some(head) = self.heads.get(class) {
                line.extend(*head);
            }
        }
        match self.phase {
            Phase::Down { .. } => self.look_for_critical(source, now.mono_ms, actions),
            Phase::Up(_) => {
                self.announce(now, source, actions)?;
                self.watch(now.mono_ms, actions);
                Ok(())
            }
        }
    }

    /// The cursors as they may be stored now.
    pub fn cursors(&self) -> Cursors {
        Cursors { classes: self.lines.iter().map(|(&class, line)| (class, line.cursor(false))).collect() }
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The last cursors could not be handed over.
    pub fn save_again(&mut self) {
        self.dirty = true;
    }

    /// Publishes without a PUBACK at once, as far as it is ours to say.
    fn window(&self) -> u16 {
        if self.careful > 0 { 1 } else { self.settings.pacing.inflight }
    }

    fn up(&mut self) -> Option<&mut Up> {
        match &mut self.phase {
            Phase::Up(up) => Some(up),
            Phase::Down { .. } => None,
        }
    }
}
