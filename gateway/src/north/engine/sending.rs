//! Which record is sent next: alarms before events before telemetry, live before backlog, in turns so that nothing
//! starves, within the broker's window and the backlog's pace. And how a record becomes a message, or a gap.

use std::collections::BTreeSet;

use crate::model::ids::{Epoch, Seq};
use crate::model::record::{Body, Class, GapReason, Record};
use crate::model::stamp::Stamp;
use crate::north::config::Delivery;
use crate::north::contract::Outgoing;

use super::line::{AsideState, Line};
use super::source::{Read, Source, SourceError, Unsendable, Wording};
use super::stream::{Chain, FlightState, Kind, Stream};
use super::{
    ASIDE_RETRY_MAX_MS, Actions, Engine, INFLIGHT_BYTES_MAX, Lost, Phase, Purpose, READ_BYTES, READ_RECORDS,
    STEP_RECORDS_MAX, Stage, UNCONFIRMED_MAX, Up,
};

/// Who comes first, and how many messages each may send before the others had their turn.
const TURNS: [(Class, Kind, u32); 6] = [
    (Class::Alarm, Kind::Live, 8),
    (Class::Event, Kind::Live, 4),
    (Class::Alarm, Kind::Backlog, 4),
    (Class::Telemetry, Kind::Live, 2),
    (Class::Event, Kind::Backlog, 2),
    (Class::Telemetry, Kind::Backlog, 1),
];

/// Bytes of a publish besides topic and payload: fixed header 5, topic length 2, packet id 2, property length 1.
const PACKET_OVERHEAD_BYTES: usize = 10;

/// Records set aside that are read and tried in one step.
const ASIDE_PER_STEP: usize = 16;

/// What became of the front of a stream.
enum Composed {
    Message {
        message: Outgoing,
        records: Vec<Seq>,
        epoch: Epoch,
        gap: bool,
        to: Seq,
    },
    /// Records that cannot be sent at all.
    Lost {
        seq: Seq,
        reason: GapReason,
        detail: String,
    },
    /// A gap record that this broker cannot take.
    GapTooLarge {
        seq: Seq,
        epoch: Epoch,
        detail: String,
    },
    /// Records that are not for this uplink, or not stored any more, were passed.
    Passed,
    /// Nothing is left to send.
    Nothing,
}

/// The window as it stands.
pub(super) struct Room {
    slots: usize,
    used: usize,
    bytes: usize,
    packet_max: usize,
}

impl Room {
    pub(super) fn of(up: &Up, inflight: u16) -> Self {
        let slots = usize::from(inflight.min(up.session.receive_max).max(1));
        let packet_max = usize::try_from(up.session.packet_max).unwrap_or(usize::MAX);
        Self { slots, used: up.underway.len(), bytes: up.underway_bytes, packet_max }
    }

    pub(super) const fn packet_max(&self) -> usize {
        self.packet_max
    }

    pub(super) fn is_free(&self) -> bool {
        self.used < self.slots && self.bytes < INFLIGHT_BYTES_MAX
    }

    /// Alarms and live events may use the whole window; the rest leaves an eighth of it.
    fn is_free_for(&self, class: Class, kind: Kind) -> bool {
        let urgent = class == Class::Alarm || (class == Class::Event && kind == Kind::Live);
        let kept = if urgent { 0 } else { self.slots / 8 };
        self.is_free() && self.used < (self.slots - kept).max(1)
    }
}

impl Engine {
    pub(super) fn send(
        &mut self,
        now: &Stamp,
        source: &mut dyn Source,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        let now_ms = now.mono_ms;
        self.send_control(now_ms, actions);
        if self.up().is_none_or(|up| up.stage != Stage::Serving || !up.control.is_empty()) {
            return Ok(());
        }
        self.send_aside(now, source, actions)?;
        let mut budget = STEP_RECORDS_MAX;
        let mut exhausted = BTreeSet::new();
        while let Some((class, kind)) = self.next_turn(now_ms, &exhausted, actions) {
            if budget == 0 {
                actions.wake(now_ms);
                return Ok(());
            }
            budget -= 1;
            match self.compose(class, kind, now, source)? {
                Composed::Nothing => {
                    exhausted.insert((class, kind));
                }
                Composed::Passed => self.dirty = true,
                Composed::Lost { seq, reason, detail } => self.lose(class, seq, reason, detail),
                Composed::GapTooLarge { seq, epoch, detail } => {
                    self.keep_gap(class, kind, (seq, epoch, detail), now_ms);
                }
                Composed::Message { message, records, epoch, gap, to } => {
                    let count = records.len();
                    let publish = self.publish(message, Purpose::Records { class, kind }, now_ms);
                    self.depart(class, kind, publish.token, (to, records, epoch, gap), now_ms);
                    *self.tally.published.entry(class).or_default() += count as u64;
                    actions.publishes.push(publish);
                }
            }
        }
        Ok(())
    }

    pub(super) fn send_control(&mut self, now_ms: u64, actions: &mut Actions) {
        let inflight = self.window();
        while let Some(up) = self.up() {
            if up.stage == Stage::Draining || !Room::of(up, inflight).is_free() {
                return;
            }
            let packet_max = Room::of(up, inflight).packet_max;
            let Some((message, purpose)) = up.control.pop_front() else { return };
            if packet_bytes(&message) > packet_max {
                self.state_refused = Some(format!("the broker takes packets up to {packet_max} bytes only"));
                continue;
            }
            let publish = self.publish(message, purpose, now_ms);
            actions.publishes.push(publish);
        }
    }

    /// The stream whose turn it is, if any may send now.
    fn next_turn(
        &mut self,
        now_ms: u64,
        exhausted: &BTreeSet<(Class, Kind)>,
        actions: &mut Actions,
    ) -> Option<(Class, Kind)> {
        let receipt = self.settings.delivery == Delivery::Receipt;
        let inflight = self.window();
        let Phase::Up(up) = &mut self.phase else { return None };
        let room = Room::of(up, inflight);
        let mut ready = Vec::new();
        for (class, kind, turns) in TURNS {
            let Some(line) = self.lines.get(&class) else { continue };
            if exhausted.contains(&(class, kind)) || !room.is_free_for(class, kind) {
                continue;
            }
            match may_send(line, kind, up, receipt, &room, now_ms) {
                May::Now => ready.push((class, kind, turns)),
                May::At(at_ms) => actions.wake(at_ms),
                May::Later => {}
            }
        }
        for refilled in [false, true] {
            for &(class, kind, turns) in &ready {
                let credit = up.credits.entry((class, kind)).or_insert(turns);
                if refilled {
                    *credit = turns;
                }
                if *credit > 0 {
                    *credit -= 1;
                    return Some((class, kind));
                }
            }
            // All who could send had their turn: the next round begins.
        }
        None
    }

    fn compose(
        &mut self,
        class: Class,
        kind: Kind,
        now: &Stamp,
        source: &mut dyn Source,
    ) -> Result<Composed, SourceError> {
        let Phase::Up(up) = &self.phase else { return Ok(Composed::Nothing) };
        let packet_max = usize::try_from(up.session.packet_max).unwrap_or(usize::MAX);
        let Some(line) = self.lines.get_mut(&class) else { return Ok(Composed::Nothing) };
        let first = line.first;
        let wording = self.wording.as_ref();
        let stream = line.stream(kind);
        let Some(range) = stream.unsent.first() else { return Ok(Composed::Nothing) };
        if stream.ahead.is_empty() {
            let reads = source.read(class, range.from, range.to, READ_RECORDS, READ_BYTES)?;
            stream.ahead.extend(reads);
            if stream.ahead.is_empty() {
                // Nothing of it is stored any more.
                stream.take(range.to, Vec::new(), None, FlightState::Done);
                return Ok(Composed::Passed);
            }
        }
        if let Some(Read::Unreadable { seq, detail }) = stream.ahead.front() {
            let (seq, detail) = (*seq, detail.clone());
            stream.ahead.pop_front();
            give_up(stream, seq);
            return Ok(Composed::Lost { seq, reason: GapReason::Unreadable, detail });
        }
        if pass_unseen(stream, wording) {
            return Ok(Composed::Passed);
        }
        let Some(Read::Record(front)) = stream.ahead.front() else { return Ok(Composed::Passed) };
        let (seq, epoch, gap) = (front.seq, front.epoch, matches!(front.body, Body::Gap(_)));
        let chain = stream.unsent.first().and_then(|range| stream.chain_at(range.from));
        let previous = previous_of(chain, first, front, wording, source)?;
        let voice = Voice { wording, replay: kind == Kind::Backlog, packet_max, now };
        let mut batch = batch_of(stream, wording, front);
        if self.careful > 0 {
            batch.truncate(1);
        }
        match voice.say(&batch, previous) {
            Ok((message, count)) => {
                let records: Vec<Seq> = batch.iter().take(count).map(|record| record.seq).collect();
                let to = records.last().copied().unwrap_or(seq);
                Ok(Composed::Message { message, records, epoch, gap, to })
            }
            // Another gap record in its place could not be said either, nor the next one, without end.
            Err(unsendable) if gap => Ok(Composed::GapTooLarge { seq, epoch, detail: unsendable.detail }),
            Err(unsendable) => {
                stream.ahead.pop_front();
                give_up(stream, seq);
                let Unsendable { reason, detail } = unsendable;
                Ok(Composed::Lost { seq, reason, detail })
            }
        }
    }

    /// The message is on its way: its records leave the stream.
    fn depart(
        &mut self,
        class: Class,
        kind: Kind,
        token: u64,
        (to, records, epoch, gap): (Seq, Vec<Seq>, Epoch, bool),
        now_ms: u64,
    ) {
        let count = records.len();
        let Some(line) = self.lines.get_mut(&class) else { return };
        let stream = line.stream(kind);
        while stream.ahead.front().is_some_and(|read| number(read) <= to) {
            stream.ahead.pop_front();
        }
        stream.take(to, records, Some(epoch), FlightState::Sent(token));
        stream.chain = Some(Chain { seq: to, epoch: Some(epoch), until: to });
        if gap {
            stream.mark_gap();
        }
        if let Some(pause) = &mut stream.pause {
            pause.probe = Some(token);
        }
        if kind == Kind::Backlog
            && let Some(up) = self.up()
        {
            up.bucket.take(count, now_ms);
        }
    }

    /// Records set aside whose time has come.
    fn send_aside(
        &mut self,
        now: &Stamp,
        source: &mut dyn Source,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        let now_ms = now.mono_ms;
        let mut due = Vec::new();
        for line in self.lines.values() {
            for (&seq, aside) in &line.aside {
                if let AsideState::Waiting { until_ms } = aside.state {
                    if until_ms > now_ms {
                        actions.wake(until_ms);
                    } else {
                        due.push((line.class, seq));
                    }
                }
            }
        }
        for (class, seq) in due.into_iter().take(ASIDE_PER_STEP) {
            let inflight = self.window();
            if self.up().is_none_or(|up| !Room::of(up, inflight).is_free_for(class, Kind::Backlog)) {
                return Ok(());
            }
            self.try_aside(class, seq, now, source, actions)?;
        }
        Ok(())
    }

    fn try_aside(
        &mut self,
        class: Class,
        seq: Seq,
        now: &Stamp,
        source: &mut dyn Source,
        actions: &mut Actions,
    ) -> Result<(), SourceError> {
        let Phase::Up(up) = &self.phase else { return Ok(()) };
        let packet_max = usize::try_from(up.session.packet_max).unwrap_or(usize::MAX);
        let Some(line) = self.lines.get_mut(&class) else { return Ok(()) };
        let wording = self.wording.as_ref();
        let read = source.read(class, seq, seq, 1, READ_BYTES)?.into_iter().next();
        let lost = match read {
            None => {
                // Not stored any more: whoever dropped it has left a gap record.
                line.aside.remove(&seq);
                self.dirty = true;
                return Ok(());
            }
            Some(Read::Unreadable { detail, .. }) => (GapReason::Unreadable, detail),
            Some(Read::Record(record)) => {
                let previous = previous_of(None, line.first, &record, wording, source)?;
                match (Voice { wording, replay: true, packet_max, now }).say(&[&record], previous) {
                    Ok((message, _one)) => {
                        let gap = matches!(record.body, Body::Gap(_));
                        let publish = self.publish(message, Purpose::Aside { class, seq, gap }, now.mono_ms);
                        self.set_aside_state(class, seq, AsideState::Sent(publish.token));
                        actions.publishes.push(publish);
                        return Ok(());
                    }
                    Err(_) if matches!(record.body, Body::Gap(_)) => {
                        let until_ms = now.mono_ms + ASIDE_RETRY_MAX_MS;
                        self.set_aside_state(class, seq, AsideState::Waiting { until_ms });
                        return Ok(());
                    }
                    Err(unsendable) => (unsendable.reason, unsendable.detail),
                }
            }
        };
        self.set_aside_state(class, seq, AsideState::Settling);
        self.lost.push_back(Lost { class, seq, reason: lost.0, detail: lost.1 });
        Ok(())
    }

    fn set_aside_state(&mut self, class: Class, seq: Seq, state: AsideState) {
        if let Some(aside) = self.lines.get_mut(&class).and_then(|line| line.aside.get_mut(&seq)) {
            aside.state = state;
        }
    }
}

/// When a stream may send.
enum May {
    Now,
    At(u64),
    /// Something else must happen first: a PUBACK, a receipt, a new record.
    Later,
}

fn may_send(line: &Line, kind: Kind, up: &mut Up, receipt: bool, room: &Room, now_ms: u64) -> May {
    let stream = match kind {
        Kind::Live => &line.live,
        Kind::Backlog => &line.backlog,
    };
    if stream.unsent.is_empty() || (receipt && stream.unconfirmed() >= UNCONFIRMED_MAX) {
        return May::Later;
    }
    if let Some(pause) = &stream.pause {
        if stream.in_flight() > 0 {
            return May::Later;
        }
        if now_ms < pause.until_ms {
            return May::At(pause.until_ms);
        }
    }
    if kind == Kind::Backlog {
        if now_ms < line.backlog_at_ms {
            return May::At(line.backlog_at_ms);
        }
        if stream.in_flight() >= (room.slots / 2).max(1) {
            return May::Later;
        }
        if !up.bucket.ready(now_ms) {
            return May::At(up.bucket.ready_at_ms());
        }
    }
    May::Now
}

/// Puts records into messages that this broker takes.
struct Voice<'a> {
    wording: &'a dyn Wording,
    replay: bool,
    packet_max: usize,
    now: &'a Stamp,
}

impl Voice<'_> {
    /// The message, and how many of `records` it holds: at least the first.
    fn say(&self, records: &[&Record], previous: Seq) -> Result<(Outgoing, usize), Unsendable> {
        let mut records = records;
        loop {
            let Some(first) = records.first() else {
                let detail = "nothing to say".to_owned();
                return Err(Unsendable { reason: GapReason::Unreadable, detail });
            };
            let (message, count) = if first.class == Class::Telemetry {
                self.wording.telemetry(records, previous, self.replay, self.now)?
            } else {
                (self.wording.record(first, previous, self.replay, self.now)?, 1)
            };
            let bytes = packet_bytes(&message);
            if bytes <= self.packet_max {
                return Ok((message, count.max(1)));
            }
            if count <= 1 {
                let detail = format!("{bytes} bytes, the broker takes {}", self.packet_max);
                return Err(Unsendable { reason: GapReason::TooLarge, detail });
            }
            records = records.get(..count / 2).unwrap_or_default();
        }
    }
}

pub(super) fn packet_bytes(message: &Outgoing) -> usize {
    message.topic.len() + message.payload.len() + PACKET_OVERHEAD_BYTES
}

fn number(read: &Read) -> Seq {
    match read {
        Read::Record(record) => record.seq,
        Read::Unreadable { seq, .. } => *seq,
    }
}

fn give_up(stream: &mut Stream, seq: Seq) {
    stream.take(seq, Vec::new(), None, FlightState::Settling);
    // Whether this uplink could have seen it is not known; a hole that a gap record explains is the honest answer.
    stream.chain = Some(Chain { seq, epoch: None, until: seq });
}

/// Passes records at the front that this uplink may not see. Says whether there were any.
fn pass_unseen(stream: &mut Stream, wording: &dyn Wording) -> bool {
    let mut last = None;
    while let Some(Read::Record(record)) = stream.ahead.front() {
        if wording.sees(record) {
            break;
        }
        last = Some(record.seq);
        stream.ahead.pop_front();
    }
    if let Some(last) = last {
        stream.take(last, Vec::new(), None, FlightState::Done);
    }
    last.is_some()
}

/// The records at the front that may go into one message: telemetry of one epoch and one kind of topic.
fn batch_of<'a>(stream: &'a Stream, wording: &dyn Wording, front: &'a Record) -> Vec<&'a Record> {
    if front.class != Class::Telemetry {
        return vec![front];
    }
    let mut batch = Vec::new();
    for read in &stream.ahead {
        match read {
            Read::Record(record) if !wording.sees(record) => {}
            Read::Record(record) if record.epoch == front.epoch && record.test == front.test => {
                batch.push(record.as_ref());
            }
            Read::Record(_) | Read::Unreadable { .. } => break,
        }
    }
    batch
}

/// The number of the record before `record` that this uplink may see; 0 for the first of its epoch.
fn previous_of(
    chain: Option<Chain>,
    first: Seq,
    record: &Record,
    wording: &dyn Wording,
    source: &mut dyn Source,
) -> Result<Seq, SourceError> {
    if let Some(chain) = chain
        && chain.epoch == Some(record.epoch)
    {
        return Ok(chain.seq);
    }
    if let Some(chain) = chain
        && chain.epoch.is_none()
        && chain.seq >= source.epoch_start(record.class, record.seq)?
    {
        return Ok(chain.seq);
    }
    last_seen(record.class, record.seq, first, wording, source)
}

/// The last number of the epoch of `below`, before it, that this uplink may see; 0 if there is none.
pub(super) fn last_seen(
    class: Class,
    below: Seq,
    first: Seq,
    wording: &dyn Wording,
    source: &mut dyn Source,
) -> Result<Seq, SourceError> {
    let start = source.epoch_start(class, below)?;
    let before = source.last_before(class, below, start, &|record| wording.sees(record))?;
    // What is forgotten leaves a hole on purpose: 0 would say that nothing ever was before.
    Ok(before.unwrap_or(if first > start { first.min(below) - 1 } else { 0 }))
}
