//! Records that are in memory only, while the box's disk cannot be written (promise G14): alarms and events, each sent as
//! soon as there is a connection, outside the streams and their numbering, and again until its own PUBACK. They leave
//! memory for the journal when the disk is back; what is not delivered by then follows from there.
//!
//! Limits: as many as the memory journal holds. Telemetry waits for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::record::{Class, Record};
use crate::model::stamp::Stamp;

use super::pace::delay_ms;
use super::sending::{Room, packet_bytes};
use super::source::Source;
use super::standing::is_critical;
use super::verdict::{Verdict, code_text};
use super::{
    ASIDE_RETRY_MAX_MS, ASIDE_RETRY_MS, Actions, Engine, PAUSE_MAX_MS, PAUSE_MS, Phase, Purpose, Stage,
};

/// The classes that are sent, in their order.
const CLASSES: [Class; 2] = [Class::Alarm, Class::Event];
/// Records read at once.
const READ_RECORDS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until_ms: u64 },
    Sent(u64),
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    tries: u32,
    state: State,
}

/// What of the memory journal this uplink has still to deliver.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Up to which serial number each class was read.
    read: BTreeMap<Class, u64>,
    entries: BTreeMap<(Class, u64), Entry>,
}

impl Lane {
    /// Takes up what is new in memory, and drops what has left it. A disk that was never lost costs two empty reads.
    fn refresh(&mut self, source: &mut dyn Source, sees: &dyn Fn(&Record) -> bool) {
        for class in CLASSES {
            if self.entries.keys().any(|(of, _)| *of == class) {
                let oldest = source.volatile(class, 0, 1).first().map_or(u64::MAX, |(serial, _)| *serial);
                self.entries.retain(|(of, serial), _| *of != class || *serial >= oldest);
            }
            let read = self.read.entry(class).or_default();
            loop {
                let page = source.volatile(class, *read, READ_RECORDS);
                let Some((last, _)) = page.last() else { break };
                *read = *last;
                for (serial, record) in page.into_iter().filter(|(_, record)| sees(record)) {
                    let entry = Entry { record, tries: 0, state: State::Waiting { until_ms: 0 } };
                    self.entries.insert((class, serial), entry);
                }
            }
        }
    }

    /// The connection is gone: all that was under way is to be sent again.
    pub(super) fn ground(&mut self) {
        for entry in self.entries.values_mut() {
            entry.state = State::Waiting { until_ms: 0 };
        }
    }

    /// Whether something critical waits.
    pub(super) fn critical(&self) -> bool {
        self.entries.values().any(|entry| is_critical(&entry.record))
    }

    /// The first record that may be sent now; else when the next one may.
    fn next(&self, now_ms: u64) -> Result<(Class, u64), Option<u64>> {
        let mut at_ms: Option<u64> = None;
        for (key, entry) in &self.entries {
            match entry.state {
                State::Waiting { until_ms } if until_ms <= now_ms => return Ok(*key),
                State::Waiting { until_ms } => {
                    at_ms = Some(at_ms.map_or(until_ms, |known| known.min(until_ms)));
                }
                State::Sent(_) => {}
            }
        }
        Err(at_ms)
    }
}

impl Engine {
    /// Sends what is in memory only, before anything else but the state. Needs no journal that can be read.
    pub(super) fn send_volatile(&mut self, now: &Stamp, source: &mut dyn Source, actions: &mut Actions) {
        let wording = self.wording.as_ref();
        self.lane.refresh(source, &|record| wording.sees(record));
        if self.up().is_none_or(|up| up.stage == Stage::Draining) {
            return;
        }
        self.send_control(now.mono_ms, actions);
        loop {
            let inflight = self.window();
            let Phase::Up(up) = &self.phase else { return };
            let room = Room::of(up, inflight);
            if !room.is_free() {
                return;
            }
            let key = match self.lane.next(now.mono_ms) {
                Ok(key) => key,
                Err(Some(at_ms)) => return actions.wake(at_ms),
                Err(None) => return,
            };
            let Some(record) = self.lane.entries.get(&key).map(|entry| Arc::clone(&entry.record)) else {
                return;
            };
            match self.wording.volatile(&record, now) {
                Ok(message) if packet_bytes(&message) <= room.packet_max() => {
                    let (class, serial) = key;
                    let publish = self.publish(message, Purpose::Volatile { class, serial }, now.mono_ms);
                    if let Some(entry) = self.lane.entries.get_mut(&key) {
                        entry.state = State::Sent(publish.token);
                    }
                    actions.publishes.push(publish);
                }
                Ok(_) | Err(_) => {
                    // The journal's own way of saying so is a gap record, once the record is there.
                    self.tally.volatile_unsaid += 1;
                    self.lane.entries.remove(&key);
                }
            }
        }
    }

    pub(super) fn volatile_puback(&mut self, class: Class, serial: u64, token: u64, code: u8, now_ms: u64) {
        let Some(entry) = self.lane.entries.get_mut(&(class, serial)) else { return };
        if entry.state != State::Sent(token) {
            return;
        }
        let (base_ms, max_ms) = match Verdict::of(code) {
            Verdict::Taken => {
                self.lane.entries.remove(&(class, serial));
                self.tally.volatile += 1;
                return;
            }
            Verdict::NobodyListens | Verdict::Busy => (PAUSE_MS, PAUSE_MAX_MS),
            Verdict::Refused => (ASIDE_RETRY_MS, ASIDE_RETRY_MAX_MS),
        };
        if Verdict::of(code) == Verdict::Refused {
            self.refused = Some(format!("a volatile record ({})", code_text(code)));
        }
        entry.tries = entry.tries.saturating_add(1);
        let until_ms = now_ms + delay_ms(base_ms, max_ms, entry.tries - 1, &mut self.rng);
        entry.state = State::Waiting { until_ms };
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{PlainWording, Said, SimJournal, draft};
    use super::super::*;
    use super::*;
    use crate::model::cursor::Head;
    use crate::model::ids::Seq;
    use crate::north::engine::{Read, SourceError};
    use crate::rt::clock::{Clock, ManualClock};

    /// A journal whose disk is lost.
    struct Lost {
        journal: SimJournal,
        memory: Vec<(u64, Arc<Record>)>,
        unreadable: bool,
    }

    impl Source for Lost {
        fn heads(&mut self) -> Result<BTreeMap<Class, Head>, SourceError> {
            if self.unreadable { Err(SourceError("gone".to_owned())) } else { self.journal.heads() }
        }

        fn read(
            &mut self,
            class: Class,
            from: Seq,
            to: Seq,
            records_max: usize,
            bytes_max: usize,
        ) -> Result<Vec<Read>, SourceError> {
            self.journal.read(class, from, to, records_max, bytes_max)
        }

        fn last_before(
            &mut self,
            class: Class,
            below: Seq,
            not_below: Seq,
            sees: &dyn Fn(&Record) -> bool,
        ) -> Result<Option<Seq>, SourceError> {
            self.journal.last_before(class, below, not_below, sees)
        }

        fn volatile(&mut self, class: Class, after: u64, records_max: usize) -> Vec<(u64, Arc<Record>)> {
            let kept = self.memory.iter().filter(|(serial, record)| record.class == class && *serial > after);
            kept.take(records_max).cloned().collect()
        }

        fn epoch_start(&mut self, class: Class, seq: Seq) -> Result<Seq, SourceError> {
            self.journal.epoch_start(class, seq)
        }
    }

    /// What was sent: token, class, whether as backlog, number.
    type Sent = Vec<(u64, Class, bool, Seq)>;

    struct Bench {
        clock: ManualClock,
        source: Lost,
        engine: Engine,
    }

    impl Bench {
        fn new(hide: u64) -> Self {
            let clock = ManualClock::new();
            let mut journal = SimJournal::new();
            for number in 1..=2 {
                journal.append(draft(Class::Event, number, &clock.now()));
            }
            let settings = Settings {
                uplink: UplinkName::new("street").unwrap(),
                classes: Class::ALL.into_iter().collect(),
                delivery: Delivery::Broker,
                pacing: Pacing { backlog_delay_max_s: 0, backlog_per_s: 1_000_000, ..Pacing::default() },
            };
            let wording = Box::new(PlainWording { hide, batch: 10, large: false });
            let heads = journal.heads().unwrap();
            let rng = fastrand::Rng::with_seed(3);
            let engine = Engine::new(settings, wording, &Cursors::default(), heads, rng);
            Self { clock, source: Lost { journal, memory: Vec::new(), unreadable: false }, engine }
        }

        fn keep(&mut self, class: Class, serial: u64) {
            let Draft { at, test, body, .. } = draft(class, serial, &self.clock.now());
            let record = Record { pos: serial, epoch: Epoch(77), class, seq: serial, at, test, body };
            self.source.memory.push((serial, Arc::new(record)));
        }

        fn connect(&mut self) {
            self.engine.disconnected(&self.clock.now());
            let session = Session { conn: 1, epoch: Epoch(1), receive_max: u16::MAX, packet_max: u32::MAX };
            self.engine.connected(session, &self.clock.now());
        }

        fn step(&mut self) -> Sent {
            let actions = self.engine.step(&self.clock.now(), &mut self.source);
            let mut sent = Sent::new();
            for publish in actions.publishes {
                match serde_json::from_slice(&publish.message.payload).unwrap() {
                    Said::Records { class, replay, previous, records } => {
                        assert!(replay || previous == 0, "nothing follows from a volatile record's number");
                        sent.push((publish.token, class, replay, records[0].0));
                    }
                    Said::State { .. } | Said::Snapshot => self.ack(publish.token, 0),
                }
            }
            sent
        }

        fn ack(&mut self, token: u64, code: u8) {
            self.engine.puback(token, code, &self.clock.now());
        }
    }

    fn volatile(sent: &Sent) -> Vec<(Class, Seq)> {
        sent.iter().filter(|(_, _, replay, _)| !replay).map(|(_, class, _, seq)| (*class, *seq)).collect()
    }

    #[test]
    fn what_is_in_memory_only_is_sent_at_once_and_until_its_own_puback() {
        let mut bench = Bench::new(0);
        for (class, serial) in
            [(Class::Event, 1), (Class::Event, 2), (Class::Alarm, 3), (Class::Telemetry, 4)]
        {
            bench.keep(class, serial);
        }
        bench.connect();
        // Also where the journal cannot be read at all.
        bench.source.unreadable = true;
        let sent = bench.step();
        let all = [(Class::Alarm, 3), (Class::Event, 1), (Class::Event, 2)];
        assert_eq!(volatile(&sent), all, "alarms first; values wait for the disk");
        bench.ack(sent[0].0, 0);
        bench.ack(sent[1].0, 0x97);
        assert_eq!(volatile(&bench.step()), [], "busy means later, under way means not again");
        assert_eq!(bench.engine.take_tally().volatile, 1);
        bench.source.unreadable = false;
        bench.connect();
        let sent = bench.step();
        assert_eq!(volatile(&sent), all[1..], "what was not taken comes again on the next connection");
        bench.ack(sent[0].0, 0);
        // The other one stands on disk by now: its own streams have it, and a late PUBACK means nothing.
        bench.source.memory.clear();
        bench.step();
        bench.ack(sent[1].0, 0);
        bench.connect();
        assert_eq!(volatile(&bench.step()), []);
        assert_eq!(bench.engine.take_tally().volatile, 1);
    }

    #[test]
    fn a_filter_hides_what_is_in_memory_too_and_danger_hastens_the_connection() {
        let mut bench = Bench::new(2);
        bench.keep(Class::Event, 2);
        bench.step();
        assert!(!bench.engine.critical_waits());
        bench.connect();
        assert_eq!(volatile(&bench.step()), []);
        bench.keep(Class::Event, 3);
        let sent = bench.step();
        assert_eq!(volatile(&sent), [(Class::Event, 3)]);
        // Refused for its own sake: tried again, seldom, and in nobody's way.
        bench.ack(sent[0].0, 0x99);
        bench.keep(Class::Event, 5);
        assert_eq!(volatile(&bench.step()), [(Class::Event, 5)]);
        bench.clock.advance_ms(ASIDE_RETRY_MS);
        assert_eq!(volatile(&bench.step()), [(Class::Event, 3)]);
    }
}
