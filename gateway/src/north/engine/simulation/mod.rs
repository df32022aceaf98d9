//! The seeded simulation of the line: the engine between a journal that crashes and a platform behind a bad network. The
//! journal is a fake for many seeds, and the real `store::Core` on its files for fewer.
//! The invariant: each acknowledged record is delivered, or still stored and pending in the cursors that a restart would
//! find, or covered by a gap record; looked at with each crash and at the end. `GATEHOUSE_SEED=n` runs one seed,
//! `GATEHOUSE_SEEDS=n` the first n.

mod commits;
mod drafts;
mod faults;
mod invariants;
mod journal;
mod platform;
mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::ids::{Seq, UplinkName};
use crate::model::record::{Body, Class};
use crate::model::stamp::Stamp;
use crate::north::config::{Delivery, Pacing};
use crate::rt::clock::{Clock, ManualClock};
use crate::store::{Answer, Op};

use super::stream::Kind;
use super::{Engine, Session, Settings};
use commits::Waiter;
pub(super) use drafts::draft;
use faults::Faults;
use journal::Journal;
pub(super) use journal::SimJournal;
use platform::Platform;
pub(super) use platform::{PlainWording, Said};
use stored::StoredJournal;

const UPLINK: &str = "street";

/// Turns in which records are made and things break. Commits to files cost more than those to maps.
const TURNS: u32 = 600;
const TURNS_STORED: u32 = 400;

/// Something on the wire.
#[derive(Debug)]
enum Wire {
    Publish { token: u64, payload: Bytes, at_ms: u64 },
    Puback { token: u64, code: u8, at_ms: u64 },
}

struct World<J> {
    seed: u64,
    rng: fastrand::Rng,
    clock: Arc<ManualClock>,
    journal: J,
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
    /// What the next commit will hold.
    waiting: Vec<(Op, Waiter)>,
    /// What was answered for.
    acknowledged: BTreeMap<(Class, Seq), Body>,
    spoiled: BTreeSet<(Class, Seq)>,
    wake_at_ms: Option<u64>,
    published_tokens: BTreeSet<u64>,
    made: u64,
    crashes: u32,
    /// Commits that failed, and those of them that happened all the same.
    refused: u32,
    late: u32,
}

fn settings(rng: &mut fastrand::Rng, receipt: bool) -> Settings {
    Settings {
        uplink: uplink(),
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

impl<J: Journal> World<J> {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let receipt = rng.u8(0..3) == 0;
        let hide = if receipt { 0 } else { [0, 2, 3, 7][rng.usize(0..4)] };
        let wording = PlainWording { hide, batch: rng.usize(1..30), large: !receipt };
        let settings = settings(&mut rng, receipt);
        let clock = Arc::new(ManualClock::new());
        let mut journal = J::begin(&clock);
        let engine = engine(&settings, &wording, &mut journal, &mut rng);
        let mut faults = Faults::drawn(&mut rng, receipt);
        faults.crash += J::CRASHES_MORE;
        let platform = Platform { strict: receipt, ..Platform::default() };
        Self {
            seed,
            rng,
            clock,
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
            waiting: Vec::new(),
            acknowledged: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            wake_at_ms: None,
            published_tokens: BTreeSet::new(),
            made: 0,
            crashes: 0,
            refused: 0,
            late: 0,
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
        self.commit_at_times();
        if !self.connected && self.clock.mono_ms() >= self.reconnect_at_ms {
            self.connect();
        }
        self.carry();
        self.give_receipts();
        self.work();
    }

    fn break_something(&mut self) {
        let faults = self.faults;
        if self.chance(faults.broken_reads) {
            self.journal.break_reads(self.rng.u32(1..4));
        }
        if self.chance(faults.forget) {
            let (count, now) = (self.rng.usize(1..40), self.now());
            self.journal.forget(count, &now);
            self.platform.forgotten.clone_from(self.journal.forgotten());
        }
        if J::FORKS_AHEAD && self.chance(faults.fork) {
            self.fork();
        }
        if self.chance(faults.platform_crash) {
            self.platform.crash();
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
        let mut ops: Vec<Op> = self.waiting.drain(..).map(|(op, _nobody_hears)| op).collect();
        if self.rng.bool() {
            // It was about to connect.
            ops.push(Op::NextConn { uplink: uplink(), at_least: 0 });
        }
        let moved = self.chance(self.faults.fork * 50);
        self.journal.crash(&ops, moved, &mut self.rng);
        self.check_nothing_lost();
        self.engine = engine(&self.settings, &self.wording, &mut self.journal, &mut self.rng);
        self.wake_at_ms = None;
        self.published_tokens.clear();
    }

    /// A platform knows this journal further on than it is: a new epoch begins.
    fn fork(&mut self) {
        let op = Op::Fork { reason: "a test".to_owned() };
        let forked = self.journal.commit(&[op], false, &mut self.rng).unwrap();
        assert!(matches!(forked[..], [Answer::Forked(epoch)] if epoch == self.journal.epoch()));
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
        if self.published_tokens.is_empty() && self.chance(self.faults.fork * 20) {
            self.fork();
            return;
        }
        let fault = self.chance(self.faults.broken_commits);
        let op = Op::NextConn { uplink: uplink(), at_least: 0 };
        let Ok(answers) = self.journal.commit(&[op], fault, &mut self.rng) else { return };
        let [Answer::Conn(conn)] = answers[..] else { panic!("{answers:?}, seed {}", self.seed) };
        assert!(conn > self.conn, "connection {conn} after {}, seed {}", self.conn, self.seed);
        self.conn = conn;
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

    fn work(&mut self) {
        let now = self.now();
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
            self.waiting.push((Op::SaveCursors { uplink: uplink(), cursors }, Waiter::Nobody));
        }
        if let Some(settlement) = actions.settle {
            assert!(!self.is_settling(), "two settlements at once, seed {}", self.seed);
            let op = Op::Settle { uplink: uplink(), cursors: settlement.cursors, drafts: settlement.drafts };
            self.waiting.push((op, Waiter::Settlement(settlement.ticket)));
        }
        for draft in actions.events {
            self.waiting.push((Op::Append { drafts: vec![draft] }, Waiter::Device));
        }
        self.wake_at_ms = actions.wake_at_ms;
        if actions.cut.is_some() {
            self.disconnect();
        }
    }

    /// The network heals; the line must come to rest with everything delivered.
    fn heal(&mut self) {
        self.faults = Faults::none();
        self.journal.break_reads(0);
        let start_ms = self.clock.mono_ms();
        loop {
            self.turn(false);
            let now_ms = self.clock.mono_ms();
            let rest =
                self.engine.pending().values().all(|status| status.records == 0 && status.set_aside == 0);
            if rest && !self.is_settling() && self.engine.lost.is_empty() && self.connected {
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
        self.commit();
    }
}

fn uplink() -> UplinkName {
    UplinkName::new(UPLINK).unwrap()
}

fn engine<J: Journal>(
    settings: &Settings,
    wording: &PlainWording,
    journal: &mut J,
    rng: &mut fastrand::Rng,
) -> Engine {
    let heads = journal.heads().unwrap();
    let wording = Box::new(wording.clone());
    Engine::new(settings.clone(), wording, &journal.cursors(), heads, fastrand::Rng::with_seed(rng.u64(..)))
}

fn run<J: Journal>(seed: u64, turns: u32) -> World<J> {
    let mut world = World::<J>::new(seed);
    for turn in 0..turns {
        world.turn(true);
        if turn % 100 == 99 {
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

fn run_all<J: Journal>(seeds: u64, turns: u32) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds: Vec<u64> = match number("GATEHOUSE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("GATEHOUSE_SEEDS").unwrap_or(seeds)).collect(),
    };
    let mut sums = [0; 7];
    for seed in seeds {
        let world = run::<J>(seed, turns);
        let (kept, acknowledged) = (world.platform.kept.len() as u64, world.acknowledged.len() as u64);
        let faults = [world.crashes, world.refused, world.late].map(u64::from);
        // Numbers that no platform ever had: only a gap record tells of them.
        let missed =
            world.journal.forgotten().iter().filter(|number| !world.platform.kept.contains_key(number));
        let missed = missed.count() as u64;
        let counts = [acknowledged, kept, world.platform.duplicates, faults[0], faults[1], faults[2], missed];
        sums = std::array::from_fn(|place| sums[place] + counts[place]);
    }
    let [acknowledged, kept, duplicates, crashes, refused, late, missed] = sums;
    println!(
        "{acknowledged} records acknowledged, {kept} kept by platforms, {duplicates} duplicates, {crashes} crashes, \
         {refused} commits failed, {late} of them at their very end, {missed} records forgotten and never delivered"
    );
    assert!(acknowledged > 0 && kept > 0);
    if number("GATEHOUSE_SEED").is_none() && number("GATEHOUSE_SEEDS").is_none() {
        assert!(crashes > 0 && refused > 0 && late > 0 && missed > 0, "something was not tried");
    }
}

#[test]
fn nothing_is_lost_whatever_happens() {
    run_all::<SimJournal>(60, TURNS);
}

#[test]
fn nothing_is_lost_on_the_real_journal_either() {
    run_all::<StoredJournal>(12, TURNS_STORED);
}
