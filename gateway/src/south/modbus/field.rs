//! The devices of one bus, their units, and whose turn it is. Built once and kept over the bus's attempts, and with it
//! what is remembered of each device. No I/O; time is passed in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Setup;
use super::breaker::Breaker;
use super::filter::Filter;
use super::frame::Reply;
use super::memory::{Described, Memory, Observation};
use super::plan::{Block, Limits, Want, plan};
use super::point::{Raw, Said, readings};
use crate::model::ids::{DeviceId, ProfileName};
use crate::model::record::{DeviceRef, QualityReason};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::south::device::DeviceConfig;
use crate::south::profile::{Profile, Subject};

/// Observations of one device that wait for the journal: changes alone, some seconds of a stuck disk. Full: the oldest
/// is dropped and counted.
pub(super) const WAITING_MAX: usize = 64;

/// Reads begin spread over at most this.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// A probe that waits longer than this for a moment when nobody else is due goes ahead: on a line that is always busy
/// a unit must come back too.
const PROBE_LATE: Duration = Duration::from_secs(10);

/// Why a field cannot be made; `check` finds these first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("device {device} names profile {profile}, which does not exist")]
    Profile { device: DeviceId, profile: ProfileName },
    #[error("device {device} has the profile {profile}, which does not speak Modbus")]
    Speech { device: DeviceId, profile: ProfileName },
    #[error("device {device} has no unit")]
    Unit { device: DeviceId },
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) described: Described,
    pub(super) memory: Memory,
    pub(super) filters: Vec<Filter>,
    /// Observations not on disk yet; the first may be under way.
    pub(super) waiting: VecDeque<Observation>,
    pub(super) committing: bool,
}

/// What answers on the wire: one or several devices.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) number: u8,
    pub(super) breaker: Breaker,
    pub(super) devices: Vec<usize>,
    /// When it failed first, of the failures in a row.
    pub(super) failing_since: Option<Instant>,
    /// It was told offline since it failed first.
    pub(super) told_offline: bool,
}

/// One read, again and again.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) unit: usize,
    pub(super) block: Block,
    pub(super) interval: Duration,
    pub(super) due: Instant,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// This job is due.
    Poll(usize),
    /// This job asks a unit that failed.
    Probe(usize),
    /// Nobody's until then.
    Rest(Option<Instant>),
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) devices: Vec<Device>,
    pub(super) units: Vec<Unit>,
    pub(super) jobs: Vec<Job>,
}

impl Field {
    /// The devices of `setup.bus`; those of other buses are left out.
    ///
    /// # Errors
    /// What `check` would have found.
    pub(super) fn new(setup: &Setup) -> Result<Self, FieldError> {
        let mut field = Self::default();
        let mut wants: BTreeMap<(u8, u32), (Vec<Want>, Limits)> = BTreeMap::new();
        let ours = setup.devices.iter().filter(|(_, config)| config.bus.as_ref() == Some(&setup.bus));
        for (id, config) in ours {
            let profile = setup
                .profiles
                .get(&config.profile)
                .ok_or_else(|| FieldError::Profile { device: id.clone(), profile: config.profile.clone() })?;
            let modbus = profile
                .modbus
                .as_ref()
                .ok_or_else(|| FieldError::Speech { device: id.clone(), profile: config.profile.clone() })?;
            let number = config.unit.ok_or_else(|| FieldError::Unit { device: id.clone() })?;
            let described = describe(setup, id, config, profile, number);
            let poll_ms = config.poll_ms.or(modbus.poll_ms).unwrap_or(setup.config.poll_ms);
            let index = field.devices.len();
            let (list, limits) = wants.entry((number, poll_ms)).or_insert((Vec::new(), Limits::PROTOCOL));
            *limits = limits.and(Limits { registers: modbus.max_registers, bits: modbus.max_bits });
            list.extend(described.readings.iter().enumerate().map(|(point, reading)| Want {
                table: reading.table,
                at: reading.at,
                count: reading.count,
                device: index,
                point,
            }));
            let unit = field.unit(number);
            if let Some(unit) = field.units.get_mut(unit) {
                unit.devices.push(index);
            }
            let filters = vec![Filter::default(); described.readings.len()];
            field.devices.push(Device {
                described,
                memory: Memory::default(),
                filters,
                waiting: VecDeque::new(),
                committing: false,
            });
        }
        let now = Instant::now();
        for ((number, poll_ms), (wants, limits)) in wants {
            let unit = field.unit(number);
            let interval = Duration::from_millis(poll_ms.max(1).into());
            let jobs = plan(wants, limits).into_iter();
            field.jobs.extend(jobs.map(|block| Job { unit, block, interval, due: now }));
        }
        Ok(field)
    }

    /// The place of a unit in the list, where it is put if it is new.
    fn unit(&mut self, number: u8) -> usize {
        if let Some(at) = self.units.iter().position(|unit| unit.number == number) {
            return at;
        }
        self.units.push(Unit {
            number,
            breaker: Breaker::new(fastrand::Rng::new()),
            devices: Vec::new(),
            failing_since: None,
            told_offline: false,
        });
        self.units.len() - 1
    }

    /// A new attempt begins: what is due is spread, and nothing of an earlier attempt is under way any more.
    pub(super) fn begin(&mut self, now: Instant) {
        let count = u32::try_from(self.jobs.len()).unwrap_or(u32::MAX).max(1);
        for (index, job) in (0_u32..).zip(&mut self.jobs) {
            job.due = now + job.interval.min(SPREAD_MAX) / count * index;
        }
        for device in &mut self.devices {
            device.committing = false;
        }
    }

    /// Whose turn it is: of units that are well the one that waits longest, then probes.
    pub(super) fn turn(&self, now: Instant) -> Turn {
        let well = |job: &Job| self.units.get(job.unit).is_some_and(|unit| unit.breaker.probe_at().is_none());
        let live = self.jobs.iter().enumerate().filter(|(_, job)| well(job)).min_by_key(|(_, job)| job.due);
        let probe = self.probe();
        if let Some((index, probe_at)) = probe
            && probe_at + PROBE_LATE <= now
        {
            return Turn::Probe(index);
        }
        match (live, probe) {
            (Some((index, job)), _) if job.due <= now => Turn::Poll(index),
            (_, Some((index, probe_at))) if probe_at <= now => Turn::Probe(index),
            (live, probe) => {
                let moments = live.map(|(_, job)| job.due).into_iter().chain(probe.map(|(_, at)| at));
                Turn::Rest(moments.min())
            }
        }
    }

    /// The next probe: the first job of the unit that is due first.
    fn probe(&self) -> Option<(usize, Instant)> {
        let failing = self.units.iter().enumerate();
        let (unit, at) = failing
            .filter_map(|(index, unit)| Some((index, unit.breaker.probe_at()?)))
            .min_by_key(|(_, at)| *at)?;
        Some((self.job_of(unit)?, at))
    }

    /// The job to probe a unit with: its shortest read.
    pub(super) fn job_of(&self, unit: usize) -> Option<usize> {
        let jobs = self.jobs.iter().enumerate().filter(|(_, job)| job.unit == unit);
        jobs.min_by_key(|(_, job)| job.block.count).map(|(index, _)| index)
    }

    /// The job was done: when it is due again. Lost time is not made up for.
    pub(super) fn done(&mut self, job: usize, now: Instant, pause: Duration) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.due += job.interval;
            if job.due + job.interval < now {
                job.due = now;
            }
            job.due = job.due.max(now + pause);
        }
    }

    /// Divides a job's read in two for good; false where it cannot be divided.
    pub(super) fn split(&mut self, index: usize) -> bool {
        let Some(job) = self.jobs.get_mut(index) else { return false };
        let Some((head, tail)) = job.block.split() else { return false };
        job.block = head;
        let tail = Job { unit: job.unit, block: tail, interval: job.interval, due: job.due };
        self.jobs.push(tail);
        true
    }

    /// What a reply to a job says, by device: points as its readings count them.
    pub(super) fn said(
        &mut self,
        job: usize,
        reply: &Reply,
        at: &Stamp,
    ) -> BTreeMap<usize, Vec<(usize, Said)>> {
        let mut said: BTreeMap<usize, Vec<(usize, Said)>> = BTreeMap::new();
        let Some(job) = self.jobs.get(job) else { return said };
        for want in &job.block.wants {
            let Some(device) = self.devices.get_mut(want.device) else { continue };
            let reading = device.described.readings.get(want.point);
            let (Some(reading), Some(filter)) = (reading, device.filters.get_mut(want.point)) else {
                continue;
            };
            let from = usize::from(want.at.saturating_sub(job.block.at));
            let span = from..from + usize::from(want.count);
            let raw = match reply {
                Reply::Bits(bits) => bits.get(span).map(Raw::Bits),
                Reply::Words(words) => words.get(span).map(Raw::Words),
                Reply::Written | Reply::Exception(_) => None,
            };
            let failed =
                Said::Nothing { quality: QualityReason::DeviceFailed, reason: Refusal::DeviceException };
            let now = raw.map_or(failed, |raw| reading.decode(raw, filter.state()));
            let points = said.entry(want.device).or_default();
            points.extend(filter.pass(reading, now, at.mono_ms).map(|said| (want.point, said)));
        }
        said
    }

    /// Whether nobody has answered for so long that it is rather the line than the units.
    pub(super) fn silent(&self) -> bool {
        self.units.len() > 1
            && self.units.iter().all(|unit| unit.breaker.failures() >= super::breaker::STALE_AFTER)
    }

    /// Slowest answer of late.
    pub(super) fn slowest(&self) -> Option<Duration> {
        self.units.iter().filter_map(|unit| unit.breaker.slowest()).max()
    }
}

impl Device {
    /// Keeps an observation until it is on disk. While others wait, what says the same again is not kept. True if an
    /// older one had to go.
    pub(super) fn observe(&mut self, seen: Observation) -> bool {
        if let Observation::Said { points, .. } = &seen
            && self.waiting.iter().rev().find_map(|waiting| same_points(waiting, points)).unwrap_or(false)
        {
            return false;
        }
        let full = self.waiting.len() >= WAITING_MAX;
        if full {
            // The first may be under way; it must stay the first.
            self.waiting.remove(usize::from(self.committing));
        }
        self.waiting.push_back(seen);
        full
    }
}

/// Whether an earlier observation of the same points said the same; none where it is about other points.
fn same_points(earlier: &Observation, points: &[(usize, Said)]) -> Option<bool> {
    match earlier {
        Observation::Said { points: before, .. } => {
            let same_places = before.iter().map(|(at, _)| at).eq(points.iter().map(|(at, _)| at));
            same_places.then(|| before == points)
        }
        Observation::Stale { .. } | Observation::Offline { .. } => Some(false),
    }
}

fn describe(
    setup: &Setup,
    id: &DeviceId,
    config: &DeviceConfig,
    profile: &Arc<Profile>,
    unit: u8,
) -> Described {
    let device = DeviceRef {
        id: id.clone(),
        kind: profile.kind.clone(),
        profile: Some(config.profile.clone()),
        bus: Some(setup.bus.clone()),
    };
    let offset = config.offset.unwrap_or(0);
    let readings = profile.modbus.as_ref().map(|modbus| readings(profile, modbus, offset));
    Described {
        subject: Subject { device, place: config.place.clone(), test: config.maintenance },
        profile: Arc::clone(profile),
        unit,
        readings: readings.unwrap_or_default(),
    }
}

const _: () = assert!(WAITING_MAX > 2);
