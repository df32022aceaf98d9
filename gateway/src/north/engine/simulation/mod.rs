//! The seeded simulation of the line: the engine between a journal that crashes and a platform behind a bad network.
//! The invariant: each stored record that this platform may see is delivered, or still pending in the cursors that a
//! restart would find, or covered by a gap record. `GATEHOUSE_SEED=n` runs one seed,
//! `GATEHOUSE_SEEDS=n` the first n.

mod invariants;
mod journal;
mod platform;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::model::ids::{DeviceId, UplinkName};
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, Class, DeviceRef, Draft, Event, Quality, Sample, Severity, Telemetry, Value,
};
use crate::model::stamp::Stamp;
use crate::north::config::{Delivery, Pacing};
use crate::rt::clock::{Clock, ManualClock};

use super::stream::Kind;
use super::{Engine, Session, Settings, Settlement};
pub(super) use journal::SimJournal;
use platform::Platform;
pub(super) use platform::{PlainWording, Said};

/// Something on the wire.
#[derive(Debug)]
enum Wire {
    Publish { token: u64, payload: Bytes, at_ms: u64 },
    Puback { token: u64, code: u8, at_ms: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Faults {
    /// Out of 1000 messages each.
    swallowed: u32,
    nobody: u32,
    busy: u32,
    refused: u32,
    /// Out of 1000 turns each.
    cut: u32,
    silent_cut: u32,
    crash: u32,
    unreadable: u32,
    broken_reads: u32,
    forget: u32,
    fork: u32,
    replay: u32,
    platform_crash: u32,
    delay_ms_max: u64,
}

impl Faults {
    fn none() -> Self {
        Self {
            swallowed: 0,
            nobody: 0,
            busy: 0,
            refused: 0,
            cut: 0,
            silent_cut: 0,
            crash: 0,
            unreadable: 0,
            broken_reads: 0,
            forget: 0,
            fork: 0,
            replay: 0,
            platform_crash: 0,
            delay_ms_max: 20,
        }
    }

    fn drawn(rng: &mut fastrand::Rng, receipt: bool) -> Self {
        let mut some = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
        let mut faults = Self {
            swallowed: some(20),
            nobody: some(60),
            busy: some(60),
            refused: some(40),
            cut: some(15),
            silent_cut: some(5),
            crash: some(8),
            unreadable: some(8),
            broken_reads: some(20),
            forget: some(4),
            fork: some(3),
            replay: some(10),
            platform_crash: some(10),
            delay_ms_max: 5,
        };
        faults.delay_ms_max = if rng.bool() { 30 } else { 900 };
        if receipt {
            // A platform that takes nothing behind a hole cannot pass over what is refused or lost for good.
            faults = Self { refused: 0, unreadable: 0, forget: 0, fork: 0, replay: 0, ..faults };
        } else {
            faults.platform_crash = 0;
        }
        faults
    }
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    clock: ManualClock,
    journal: SimJournal,
    platform: Platform,
    wording: PlainWording,
    settings: Settings,
    engine: Engine,
    faults: Faults,
    conn: u64,
    connected: bool,
    /// Nothing passes any more, and nobody says so.
    silent: bool,
    wire: VecDeque<Wire>,
    reconnect_at_ms: u64,
    settlement: Option<(Settlement, u64)>,
    wake_at_ms: Option<u64>,
    published_tokens: BTreeSet<u64>,
    made: u64,
    crashes: u32,
}

fn settings(rng: &mut fastrand::Rng, receipt: bool) -> Settings {
    Settings {
        uplink: UplinkName::new("street").unwrap(),
        classes: Class::ALL.into_iter().collect(),
        delivery: if receipt { Delivery::Receipt } else { Delivery::Broker },
        pacing: Pacing {
            backlog_delay_max_s: rng.u32(0..20),
            backlog_per_s: rng.u32(5..2_000),
            inflight: rng.u16(1..40),
            puback_timeout_s: rng.u32(2..9),
            refusal_tries: rng.u32(1..4),
            ..Pacing::default()
        },
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let receipt = rng.u8(0..3) == 0;
        let hide = if receipt { 0 } else { [0, 2, 3, 7][rng.usize(0..4)] };
        let wording = PlainWording { hide, batch: rng.usize(1..30), large: !receipt };
        let settings = settings(&mut rng, receipt);
        let mut journal = SimJournal::new();
        let engine = engine(&settings, &wording, &mut journal, &mut rng);
        let faults = Faults::drawn(&mut rng, receipt);
        let platform = Platform { strict: receipt, ..Platform::default() };
        Self {
            seed,
            rng,
            clock: ManualClock::new(),
            journal,
            platform,
            wording,
            settings,
            engine,
            faults,
            conn: 0,
            connected: false,
            silent: false,
            wire: VecDeque::new(),
            reconnect_at_ms: 0,
            settlement: None,
            wake_at_ms: None,
            published_tokens: BTreeSet::new(),
            made: 0,
            crashes: 0,
        }
    }

    fn now(&self) -> Stamp {
        self.clock.now()
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.u32(0..1_000) < per_mille
    }

    /// One turn: time passes, something may break, messages arrive, the engine works.
    fn turn(&mut self, making: bool) {
        let idle_ms = self.rng.u64(1..400);
        self.clock.advance_ms(idle_ms);
        if self.rng.u8(0..50) == 0 {
            self.clock.jump_wall_ms(self.rng.i64(-4_000_000_000..4_000_000_000));
        }
        if making {
            self.make_records();
        }
        self.break_something();
        if !self.connected && self.clock.mono_ms() >= self.reconnect_at_ms {
            self.connect();
        }
        self.carry();
        self.give_receipts();
        self.work();
    }

    fn make_records(&mut self) {
        for _ in 0..self.rng.usize(0..4) {
            self.made += 1;
            let class =
                [Class::Event, Class::Telemetry, Class::Telemetry, Class::Alarm][self.rng.usize(0..4)];
            let draft = draft(class, self.made, &self.clock.now());
            let (class, seq) = self.journal.append(draft);
            if self.chance(self.faults.unreadable) {
                self.journal.unreadable.insert((class, seq));
            }
        }
    }

    fn break_something(&mut self) {
        let faults = self.faults;
        if self.chance(faults.broken_reads) {
            self.journal.broken_reads = self.rng.u32(1..4);
        }
        if self.chance(faults.forget) {
            let (count, now) = (self.rng.usize(1..40), self.now());
            self.journal.forget(count, &now);
            self.platform.forgotten.clone_from(&self.journal.forgotten);
        }
        if self.chance(faults.fork) {
            self.journal.fork();
        }
        if self.chance(faults.platform_crash) {
            self.platform.crash();
        }
        if self.rng.u8(0..6) == 0 {
            self.journal.commit();
        }
        if self.chance(faults.replay) {
            let from = self.rng.u64(0..self.made.max(1));
            let class = Class::ALL[self.rng.usize(0..3)];
            if self.engine.replay(class, from, from + 20).is_ok() {
                self.platform.went_back.insert((class, Kind::Backlog));
            }
        }
        if self.chance(faults.silent_cut) {
            self.silent = true;
        }
        if self.connected && self.chance(faults.cut) {
            self.disconnect();
        }
        if self.chance(faults.crash) {
            self.crash();
        }
    }

    /// The process dies: what was not committed is gone, and what a restart finds must still lose nothing.
    fn crash(&mut self) {
        self.crashes += 1;
        self.disconnect();
        self.journal.crash();
        if let Some((settlement, _)) = self.settlement.take()
            && self.rng.bool()
        {
            // The commit had happened, only nobody heard of it.
            self.write(settlement);
        }
        self.check_nothing_lost();
        self.engine = engine(&self.settings, &self.wording, &mut self.journal, &mut self.rng);
        self.wake_at_ms = None;
        self.published_tokens.clear();
    }

    fn disconnect(&mut self) {
        // What is on its way may still reach the broker, or not.
        let arrives = if self.silent { 0 } else { self.rng.usize(0..=self.wire.len()) };
        let mut wire: Vec<Wire> = self.wire.drain(..).collect();
        wire.truncate(arrives);
        for wire in wire {
            if let Wire::Publish { payload, .. } = wire {
                self.platform.take(&payload, self.seed);
            }
        }
        let now_ms = self.clock.mono_ms();
        self.engine.disconnected(now_ms);
        self.connected = false;
        self.reconnect_at_ms = now_ms + self.rng.u64(0..8_000);
    }

    fn connect(&mut self) {
        self.conn += 1;
        self.connected = true;
        self.silent = false;
        self.platform.new_connection();
        let session = Session {
            conn: self.conn,
            epoch: self.journal.epoch(),
            receive_max: self.rng.u16(1..100),
            packet_max: u32::MAX,
        };
        self.engine.connected(session, self.clock.mono_ms());
    }

    /// Messages and acknowledgements whose time has come arrive, in order.
    fn carry(&mut self) {
        let now_ms = self.clock.mono_ms();
        let wire = std::mem::take(&mut self.wire);
        for item in wire {
            if self.silent {
                continue;
            }
            match item {
                Wire::Publish { token, payload, at_ms } if at_ms <= now_ms => {
                    if let Some(code) = self.broker(&payload) {
                        let at_ms = now_ms + self.rng.u64(0..=self.faults.delay_ms_max);
                        self.wire.push_back(Wire::Puback { token, code, at_ms });
                    }
                }
                Wire::Puback { token, code, at_ms } if at_ms <= now_ms => {
                    let now = self.now();
                    self.engine.puback(token, code, &now);
                }
                later => self.wire.push_back(later),
            }
        }
    }

    /// The broker's answer; none when it swallows the PUBACK.
    fn broker(&mut self, payload: &Bytes) -> Option<u8> {
        let said: platform::Said = serde_json::from_slice(payload).unwrap();
        let faults = self.faults;
        if let platform::Said::Records { class, replay, records, .. } = &said {
            let kind = if *replay { Kind::Backlog } else { Kind::Live };
            let waits = [(faults.nobody, 0x10), (faults.busy, 0x97)];
            for (per_mille, code) in waits {
                if self.chance(per_mille) {
                    self.platform.went_back.insert((*class, kind));
                    return Some(code);
                }
            }
            if self.chance(faults.refused) {
                self.platform.refused.extend(records.iter().map(|(seq, _, _)| (*class, *seq)));
                return Some([0x80, 0x83, 0x87, 0x99][self.rng.usize(0..4)]);
            }
        }
        self.platform.take(payload, self.seed);
        (!self.chance(faults.swallowed)).then_some(0)
    }

    fn give_receipts(&mut self) {
        if self.settings.delivery != Delivery::Receipt || !self.connected || self.silent {
            return;
        }
        if self.rng.u8(0..4) > 0 {
            return;
        }
        let lost = self.chance(self.faults.swallowed * 5);
        for (class, kind, upto, epoch) in self.platform.receipts() {
            if !lost {
                self.engine.receipt(epoch, class, kind, upto);
            }
        }
    }

    fn write(&mut self, settlement: Settlement) {
        for draft in settlement.drafts {
            self.journal.append(draft);
        }
        self.journal.stored = settlement.cursors;
        self.journal.relaxed = None;
    }

    fn work(&mut self) {
        let now = self.now();
        if self.settlement.as_ref().is_some_and(|(_, at_ms)| *at_ms <= now.mono_ms)
            && let Some((settlement, _)) = self.settlement.take()
        {
            let (ticket, written) = (settlement.ticket, !self.chance(self.faults.broken_reads * 5));
            if written {
                self.write(settlement);
            }
            self.engine.settled(ticket, written, now.mono_ms);
        }
        let actions = self.engine.step(&now, &mut self.journal);
        for publish in actions.publishes {
            assert!(self.connected, "a publish without a connection, seed {}", self.seed);
            assert!(self.published_tokens.insert(publish.token), "a token twice, seed {}", self.seed);
            let at_ms = now.mono_ms + self.rng.u64(0..=self.faults.delay_ms_max);
            // One TCP stream: nothing overtakes.
            let at_ms = self.wire.iter().fold(at_ms, |at_ms, wire| match wire {
                Wire::Publish { at_ms: before, .. } => at_ms.max(*before),
                Wire::Puback { .. } => at_ms,
            });
            self.wire.push_back(Wire::Publish {
                token: publish.token,
                payload: publish.message.payload,
                at_ms,
            });
        }
        if let Some(cursors) = actions.save {
            self.journal.relaxed = Some(cursors);
        }
        if let Some(settlement) = actions.settle {
            assert!(self.settlement.is_none(), "two settlements at once, seed {}", self.seed);
            self.settlement = Some((settlement, now.mono_ms + self.rng.u64(0..300)));
        }
        for draft in actions.events {
            self.journal.append(draft);
        }
        self.wake_at_ms = actions.wake_at_ms;
        if actions.cut.is_some() {
            self.disconnect();
        }
    }

    /// The network heals; the line must come to rest with everything delivered.
    fn heal(&mut self) {
        self.faults = Faults::none();
        self.journal.broken_reads = 0;
        let start_ms = self.clock.mono_ms();
        loop {
            self.turn(false);
            let now_ms = self.clock.mono_ms();
            let rest =
                self.engine.pending().values().all(|status| status.records == 0 && status.set_aside == 0);
            if rest && self.settlement.is_none() && self.engine.lost.is_empty() && self.connected {
                break;
            }
            let took_s = (now_ms - start_ms) / 1_000;
            assert!(
                took_s < 24 * 3_600,
                "not drained after a day, seed {}: {:?} {:?}",
                self.seed,
                self.engine.pending(),
                self.engine.trouble()
            );
            if let Some(wake_at_ms) = self.wake_at_ms.filter(|_| self.wire.is_empty() && self.connected) {
                self.clock.advance_ms(wake_at_ms.saturating_sub(now_ms));
            }
        }
        self.journal.commit();
    }
}

fn engine(
    settings: &Settings,
    wording: &PlainWording,
    journal: &mut SimJournal,
    rng: &mut fastrand::Rng,
) -> Engine {
    use super::Source;
    let heads = journal.heads().unwrap();
    let wording = Box::new(wording.clone());
    Engine::new(settings.clone(), wording, &journal.stored, heads, fastrand::Rng::with_seed(rng.u64(..)))
}

pub(super) fn draft(class: Class, number: u64, at: &Stamp) -> Draft {
    let device = DeviceRef {
        id: DeviceId::new("button-1").unwrap(),
        kind: "button".to_owned(),
        profile: None,
        bus: None,
    };
    let event = Event {
        device: device.clone(),
        place: Place::default(),
        category: Category::Emergency,
        name: format!("thing.{number}"),
        severity: number.is_multiple_of(50).then_some(Severity::Critical),
        params: BTreeMap::new(),
        text: None,
    };
    let body = match class {
        Class::Event => Body::Event(Box::new(event)),
        Class::Alarm => Body::Alarm(Box::new(crate::model::record::Alarm {
            alarm: format!("a{number}"),
            rev: 1,
            state: crate::model::record::AlarmState::Unacknowledged,
            raised: event,
            latched: false,
            volatile: false,
        })),
        Class::Telemetry => {
            let point = crate::model::ids::PointName::new("p").unwrap();
            let value = Value::Int(i64::try_from(number).unwrap());
            let samples = vec![Sample { point, value, quality: Quality::Good, unit: None }];
            Body::Telemetry(Telemetry { device, place: Place::default(), samples })
        }
    };
    Draft { at: at.clone(), test: number.is_multiple_of(11), dedup: None, body }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for turn in 0..600 {
        world.turn(true);
        if turn % 100 == 99 {
            world.journal.commit();
            world.check_nothing_lost();
        }
    }
    world.crash();
    world.heal();
    world.check_nothing_lost();
    world.check_delivered();
    world.check_chain();
    world
}

#[test]
fn nothing_is_lost_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds: Vec<u64> = match number("GATEHOUSE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("GATEHOUSE_SEEDS").unwrap_or(60)).collect(),
    };
    let (mut kept, mut duplicates, mut crashes) = (0, 0, 0);
    for seed in seeds {
        let world = run(seed);
        kept += world.platform.kept.len();
        duplicates += world.platform.duplicates;
        crashes += world.crashes;
    }
    println!("{kept} records kept by platforms, {duplicates} duplicates, {crashes} crashes");
    assert!(kept > 0);
}
