//! A bus on a simulated line: slaves that are late, wrong, silent and merge frames, by a seed; a journal that fails or
//! hangs on demand; clocks that follow tokio's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::model::ids::BootId;
use crate::model::journal::{Committed, Durability, Journal, JournalError};
use crate::model::record::{Body, Draft, Value};
use crate::model::refusal::Refusal;
use crate::model::stamp::{ClockTrust, Stamp};
use crate::rt::board::Board;
use crate::rt::clock::Clock;
use crate::rt::metrics::Metrics;
use crate::south::profile::shipped_profiles;

/// How a slave behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mood {
    #[default]
    Well,
    Silent,
    /// Answers after so many milliseconds.
    Late(u64),
    /// Breaks the CRC, or the length on TCP.
    Broken,
    /// Breaks off in the middle.
    Short,
    /// Says everything twice.
    Twice,
    /// Answers as if it were unit 200.
    Stranger,
    /// Answers with this exception.
    Exception(u8),
    /// Gives one value more than asked.
    Generous,
    /// Any of all that, by the seed.
    Mad,
}

/// What stands behind the line.
#[derive(Debug)]
pub(super) struct Sim {
    pub(super) moods: BTreeMap<u8, Mood>,
    /// Bits and registers by (unit, function of reading, address).
    pub(super) values: BTreeMap<(u8, u8, u16), u16>,
    /// Reads that reach this address or beyond are refused with exception 2.
    pub(super) ends_at: Option<u16>,
    /// Requests by unit.
    pub(super) asked: BTreeMap<u8, Vec<(u8, u16, u16)>>,
    /// The line cannot be opened.
    pub(super) down: bool,
    pub(super) opened: u64,
    pub(super) rng: fastrand::Rng,
    answer_ms: u64,
}

impl Sim {
    pub(super) fn set(&mut self, unit: u8, function: u8, at: u16, value: u16) {
        self.values.insert((unit, function, at), value);
    }

    fn mood(&mut self, unit: u8) -> Mood {
        match self.moods.get(&unit).copied().unwrap_or_default() {
            Mood::Mad => match self.rng.u8(..10) {
                0 => Mood::Silent,
                1 => Mood::Late(self.rng.u64(50..900)),
                2 => Mood::Broken,
                3 => Mood::Short,
                4 => Mood::Twice,
                5 => Mood::Stranger,
                6 => Mood::Exception(self.rng.u8(1..12)),
                7 => Mood::Generous,
                _ => Mood::Well,
            },
            mood => mood,
        }
    }

    /// The data unit of the reply.
    fn reply(&mut self, unit: u8, data: &[u8], mood: Mood) -> Vec<u8> {
        let function = data[0];
        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        let (at, second) = (word(1), word(3));
        self.asked.entry(unit).or_default().push((function, at, second));
        if let Mood::Exception(code) = mood {
            return vec![function | 0x80, code];
        }
        if function <= 4 && self.ends_at.is_some_and(|end| at + second > end) {
            return vec![function | 0x80, 2];
        }
        let extra = u16::from(mood == Mood::Generous) * 8;
        let value = |sim: &Self, n: u16| sim.values.get(&(unit, function, at + n)).copied().unwrap_or(0);
        match function {
            1 | 2 => {
                let mut bytes = vec![0_u8; usize::from(second + extra).div_ceil(8)];
                for n in 0..second {
                    bytes[usize::from(n / 8)] |= u8::from(value(self, n) != 0) << (n % 8);
                }
                [vec![function, u8::try_from(bytes.len()).unwrap()], bytes].concat()
            }
            3 | 4 => {
                let words = (0..second + extra / 8).flat_map(|n| value(self, n).to_be_bytes());
                let bytes: Vec<u8> = words.collect();
                [vec![function, u8::try_from(bytes.len()).unwrap()], bytes].concat()
            }
            5 => {
                self.set(unit, 1, at, u16::from(second == 0xff00));
                data.to_vec()
            }
            6 => {
                self.set(unit, 3, at, second);
                data.to_vec()
            }
            _ => {
                for n in 0..second {
                    self.set(unit, 3, at + n, word(6 + 2 * usize::from(n)));
                }
                data[..5].to_vec()
            }
        }
    }
}

fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}

async fn serve(sim: Arc<Mutex<Sim>>, mut line: DuplexStream, tcp: bool) -> io::Result<()> {
    loop {
        let mut header = vec![0; if tcp { 7 } else { 1 }];
        line.read_exact(&mut header).await?;
        let unit = *header.last().unwrap();
        let mut data = vec![0; 5];
        line.read_exact(&mut data).await?;
        if matches!(data[0], 15 | 16) {
            let count = line.read_u8().await?;
            let mut rest = vec![0; usize::from(count)];
            line.read_exact(&mut rest).await?;
            data.push(count);
            data.extend(rest);
        }
        if !tcp {
            let mut sum = [0; 2];
            line.read_exact(&mut sum).await?;
            assert_eq!(sum, crc(&[header.clone(), data.clone()].concat()), "the master sent a broken frame");
        }
        let (frame, mood, wait_ms) = {
            let mut sim = sim.lock().unwrap();
            let mood = sim.mood(unit);
            let reply = sim.reply(unit, &data, mood);
            let from = if mood == Mood::Stranger { 200 } else { unit };
            let mut frame = if tcp {
                let length = u16::try_from(reply.len() + 1).unwrap().to_be_bytes();
                [header[..4].to_vec(), length.to_vec(), vec![from], reply].concat()
            } else {
                let body = [vec![from], reply].concat();
                [body.clone(), crc(&body).to_vec()].concat()
            };
            match mood {
                Mood::Broken if tcp => frame[3] ^= 1,
                Mood::Broken => *frame.last_mut().unwrap() ^= 1,
                Mood::Short => frame.truncate(frame.len() - 2),
                Mood::Twice => frame = [frame.clone(), frame].concat(),
                _ => {}
            }
            (frame, mood, sim.answer_ms)
        };
        let wait_ms = if let Mood::Late(late_ms) = mood { late_ms } else { wait_ms };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        if mood != Mood::Silent {
            line.write_all(&frame).await?;
        }
    }
}

#[derive(Debug)]
struct SimOpener {
    sim: Arc<Mutex<Sim>>,
    tcp: bool,
    tasks: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Open for SimOpener {
    async fn open(&self) -> io::Result<Box<dyn Port>> {
        let mut sim = self.sim.lock().unwrap();
        if sim.down {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "refused"));
        }
        sim.opened += 1;
        let (near, far) = tokio::io::duplex(4_096);
        let (sim, tcp) = (Arc::clone(&self.sim), self.tcp);
        self.tasks.lock().unwrap().spawn(async move {
            // The other side ends it.
            serve(sim, far, tcp).await.ok();
        });
        Ok(Box::new(near))
    }
}

/// A clock that goes with tokio's.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Stamp {
        let mono_ms = 1_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Stamp { boot: BootId("b".into()), mono_ms, wall_ms: 0, trust: ClockTrust::None }
    }
}

pub(super) const WORKS: u8 = 0;
pub(super) const FAILS: u8 = 1;
pub(super) const HANGS: u8 = 2;

/// A journal in memory.
#[derive(Debug, Default)]
pub(super) struct FakeJournal {
    pub(super) mode: AtomicU8,
    stored: Mutex<Vec<(Draft, Durability)>>,
    pos: AtomicU64,
}

#[async_trait]
impl Journal for FakeJournal {
    async fn append(&self, drafts: Vec<Draft>, durability: Durability) -> Result<Committed, JournalError> {
        if self.mode.load(Ordering::SeqCst) == FAILS {
            return Err(JournalError::Disk("full".to_owned()));
        }
        while self.mode.load(Ordering::SeqCst) == HANGS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.stored.lock().unwrap().extend(drafts.into_iter().map(|draft| (draft, durability)));
        Ok(Committed { last_pos: self.pos.fetch_add(1, Ordering::SeqCst), repeated: 0 })
    }
}

/// A running bus.
pub(super) struct Bench {
    pub(super) sim: Arc<Mutex<Sim>>,
    pub(super) bus: Arc<Bus>,
    pub(super) journal: Arc<FakeJournal>,
    pub(super) deps: Deps,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Bench {
    /// `devices` is TOML of `[ID]` tables; the line answers after `answer_ms`.
    pub(super) fn start(
        config: &str,
        devices: &str,
        seed: u64,
        answer_ms: u64,
        prepare: impl FnOnce(&mut Sim),
    ) -> Self {
        let config: ModbusConfig = toml::from_str(config).unwrap();
        let mut sim = Sim {
            moods: BTreeMap::new(),
            values: BTreeMap::new(),
            ends_at: None,
            asked: BTreeMap::new(),
            down: false,
            opened: 0,
            rng: fastrand::Rng::with_seed(seed),
            answer_ms,
        };
        prepare(&mut sim);
        let sim = Arc::new(Mutex::new(sim));
        let journal = Arc::new(FakeJournal::default());
        let deps = Deps {
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            clock: Arc::new(TokioClock(Instant::now())),
            metrics: Arc::new(Metrics::new()),
            board: Arc::new(Board::new()),
        };
        let opener =
            SimOpener { sim: Arc::clone(&sim), tcp: config.tcp.is_some(), tasks: Mutex::new(JoinSet::new()) };
        let setup = Setup {
            bus: BusName::new("field").unwrap(),
            config,
            devices: toml::from_str(devices).unwrap(),
            profiles: shipped_profiles().unwrap().into_iter().map(|(name, p)| (name, Arc::new(p))).collect(),
        };
        let bus = Arc::new(Bus::with_opener(setup, deps.clone(), Arc::new(opener)).unwrap());
        let cancel = CancellationToken::new();
        let (running, stop) = (Arc::clone(&bus), cancel.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // As the supervisor does: one attempt after the other, with a pause.
            while !stop.is_cancelled() {
                running.run(stop.clone(), || {}).await.ok();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Self { sim, bus, journal, deps, cancel, tasks }
    }

    pub(super) fn sim(&self) -> MutexGuard<'_, Sim> {
        self.sim.lock().unwrap()
    }

    /// Events so far: device and name.
    pub(super) fn events(&self) -> Vec<String> {
        let stored = self.journal.stored.lock().unwrap();
        let names = stored.iter().filter_map(|(draft, durability)| match &draft.body {
            Body::Event(event) => {
                assert_eq!(*durability, Durability::Synced, "{event:?}");
                Some(format!("{} {}", event.device.id, event.name))
            }
            _ => None,
        });
        names.collect()
    }

    /// Events with this name.
    pub(super) fn count(&self, name: &str) -> usize {
        self.events().iter().filter(|event| event.ends_with(name)).count()
    }

    /// The last sample of each point: `device.point` and its value, quality.
    pub(super) fn last(&self) -> BTreeMap<String, (Option<Value>, crate::model::record::Quality)> {
        let stored = self.journal.stored.lock().unwrap();
        let mut last = BTreeMap::new();
        for (draft, _) in stored.iter() {
            if let Body::Telemetry(telemetry) = &draft.body {
                for sample in &telemetry.samples {
                    let key = format!("{}.{}", telemetry.device.id, sample.point);
                    last.insert(key, (sample.value.clone(), sample.quality));
                }
            }
        }
        last
    }

    /// All values ever told of a point.
    pub(super) fn history(&self, device: &str) -> Vec<Value> {
        let stored = self.journal.stored.lock().unwrap();
        let bodies = stored.iter().filter_map(|(draft, _)| match &draft.body {
            Body::Telemetry(telemetry) if telemetry.device.id.as_str() == device => Some(telemetry),
            _ => None,
        });
        bodies.flat_map(|t| t.samples.iter().filter_map(|s| s.value.clone())).collect()
    }

    pub(super) fn refused(&self, source: &str, reason: Refusal) -> u64 {
        let counts = self.deps.metrics.refusals();
        let wanted: BTreeSet<&str> = [source, reason.as_str()].into();
        let labels = |count: &&crate::rt::metrics::Count| {
            count.labels.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted
        };
        counts.iter().find(labels).map_or(0, |count| count.count)
    }

    /// Reads of a unit so far.
    pub(super) fn asked(&self, unit: u8) -> usize {
        self.sim().asked.get(&unit).map_or(0, Vec::len)
    }

    pub(super) async fn stop(mut self) {
        self.cancel.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

pub(super) async fn seconds(count: f64) {
    tokio::time::sleep(Duration::from_secs_f64(count)).await;
}

/// `count` buttons, one a unit from 1, at input 0.
pub(super) fn buttons(count: u8, poll_ms: u32) -> String {
    let table = |unit| {
        format!("[b{unit}]\nprofile = 'modbus-button'\nbus = 'field'\nunit = {unit}\npoll_ms = {poll_ms}\n")
    };
    (1..=count).map(table).collect()
}
