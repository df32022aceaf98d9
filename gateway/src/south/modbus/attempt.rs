//! One attempt of a bus: opens the line, then asks whose turn it is, again and again. The supervisor makes the next one.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::actuator::{Write, WriteError, Written};
use super::breaker::{OFFLINE_AFTER, STALE_AFTER, brief};
use super::commit::Commits;
use super::field::Turn;
use super::frame::{Framing, Reply, Request};
use super::memory::Observation;
use super::point::{Raw, Reading, Said};
use super::wire::{Fault, Pace, Wire};
use super::{Bus, BusError, State};
use crate::model::record::{QualityReason, Value};
use crate::model::refusal::Refusal;
use crate::rt::supervise::chain;

/// How long what is under way to the journal may take at the end of an attempt.
const DRAIN: Duration = Duration::from_millis(300);

/// Units asked on a line that was down, before it is given up again.
const GREET_UNITS: usize = 3;

/// Failures of different units in a row from which on it may be the line: time-outs are short then.
const SUSPECT_AFTER: u32 = 3;

/// Exchanges begun anew because the line was not in order before.
const FRESH_STARTS_MAX: u32 = 2;

/// After an exception that another try will not mend (1, 2, 3), a read pauses for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// How often the board is told of the line's counts.
const POST_EVERY: Duration = Duration::from_secs(1);
/// How late a reply may be on a line without transaction numbers: radio modems and busy gateways take a second.
const LATE_MAX: Duration = Duration::from_millis(1_500);

/// Exceptions (Modbus Application Protocol V1.1b3, 7).
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;
/// A gateway that has no way to the unit, or gets no answer of it.
const GATEWAY_PATH: u8 = 10;
const GATEWAY_TARGET: u8 = 11;

/// What is counted since the last post.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    polls: u64,
    timeouts: u64,
    faults: u64,
}

/// One attempt.
pub(super) struct Attempt<'a> {
    bus: &'a Bus,
    state: &'a mut State,
    commits: Commits<'a>,
    pace: Pace,
    full: Duration,
    failed_in_row: u32,
    last_answer: Option<Instant>,
    counts: Counts,
    posted: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(bus: &'a Bus, state: &'a mut State) -> Self {
        state.field.begin(Instant::now());
        state.line.begin();
        Self {
            bus,
            state,
            commits: Commits::new(&bus.setup, &bus.deps),
            pace: Pace::new(&bus.setup.config),
            full: Duration::from_millis(bus.setup.config.timeout_ms.into()),
            failed_in_row: 0,
            last_answer: None,
            counts: Counts::default(),
            posted: Instant::now(),
        }
    }

    pub(super) async fn run(
        &mut self,
        cancel: &CancellationToken,
        ready: impl FnOnce() + Send,
    ) -> Result<(), BusError> {
        let opened = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            opened = self.open() => opened,
        };
        let mut wire = opened.map_err(|source| BusError::Open { at: self.at(), source })?;
        if self.state.line.down.is_some() {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                greeted = self.greet(&mut wire) => greeted?,
            }
        }
        self.set_trouble(None);
        ready();
        while !cancel.is_cancelled() {
            let State { field, line, writes_rx } = &mut *self.state;
            self.commits.reap(field, line);
            if let Ok(write) = writes_rx.try_recv() {
                self.write(&mut wire, write).await?;
                continue;
            }
            self.post(false);
            match self.state.field.turn(Instant::now()) {
                Turn::Poll(job) | Turn::Probe(job) => tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(()),
                    polled = self.poll(&mut wire, job) => polled?,
                },
                Turn::Rest(until) => {
                    if let Some(write) = self.rest(cancel, until).await {
                        self.write(&mut wire, write).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Nobody is due: waits for a write, an append, or the next turn.
    async fn rest(&mut self, cancel: &CancellationToken, until: Option<Instant>) -> Option<Write> {
        let State { field, line, writes_rx } = &mut *self.state;
        // A bus without devices still takes writes, to refuse them.
        let until = until.unwrap_or_else(|| Instant::now() + POST_EVERY);
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            Some(write) = writes_rx.recv() => Some(write),
            () = self.commits.wait(field, line) => None,
            () = sleep_until(until) => None,
        }
    }

    /// What is to be told at the end of an attempt, however it ended.
    pub(super) async fn finish(&mut self, ended: &Result<(), BusError>) {
        let State { field, line, .. } = &mut *self.state;
        if let Err(error) = ended {
            self.commits.line_down(field, line, &chain(error));
        }
        self.commits.drain(field, line, DRAIN).await;
        self.post(true);
        let trouble = ended.as_ref().err().map(|error| chain(error));
        self.set_trouble(trouble);
    }

    fn at(&self) -> String {
        self.bus.setup.config.shown()
    }

    async fn open(&mut self) -> io::Result<Wire> {
        Ok(Wire::new(self.bus.opener.open().await?, self.pace))
    }

    /// A line that was down works again when one of a few units answers: those first that were well last.
    async fn greet(&mut self, wire: &mut Wire) -> Result<(), BusError> {
        let field = &self.state.field;
        let mut units: Vec<usize> = (0..field.units.len()).collect();
        fastrand::shuffle(&mut units);
        units.sort_by_key(|unit| field.units.get(*unit).map(|unit| unit.breaker.failures()));
        if units.is_empty() {
            self.line_up();
            return Ok(());
        }
        for unit in units.into_iter().take(GREET_UNITS) {
            let Some(job) = self.state.field.job_of(unit) else { continue };
            self.ask_job(wire, job).await?;
            if self.state.line.down.is_none() {
                return Ok(());
            }
        }
        Err(self.silent())
    }

    fn silent(&self) -> BusError {
        BusError::Silent { at: self.at(), units: self.state.field.units.len() }
    }

    fn line_up(&mut self) {
        let State { field, line, .. } = &mut *self.state;
        if line.down.is_none() {
            return;
        }
        let now = Instant::now();
        field.units.iter_mut().for_each(|unit| unit.breaker.line_returned(now));
        self.commits.line_up(line);
    }

    /// Asks a job and judges whether it is the unit that fails, or the line.
    async fn poll(&mut self, wire: &mut Wire, job: usize) -> Result<(), BusError> {
        self.ask_job(wire, job).await?;
        if self.state.field.silent() { Err(self.silent()) } else { Ok(()) }
    }

    async fn ask_job(&mut self, wire: &mut Wire, job: usize) -> Result<(), BusError> {
        let field = &self.state.field;
        let Some(asked) = field.jobs.get(job) else { return Ok(()) };
        let Some(unit) = field.units.get(asked.unit) else { return Ok(()) };
        let (index, number, request) = (asked.unit, unit.number, asked.block.request());
        let suspect = self.failed_in_row >= SUSPECT_AFTER;
        let slowest = if suspect || unit.breaker.failures() > 0 { field.slowest() } else { None };
        let mut patience = unit.breaker.patience(self.full, slowest);
        if suspect {
            patience = patience.min(brief(self.full, slowest));
        }
        let began = Instant::now();
        let outcome = self.exchange(wire, number, &request, patience).await?;
        let now = Instant::now();
        self.counts.polls += 1;
        let mut pause = Duration::ZERO;
        let told = match outcome {
            Ok(Reply::Exception(GATEWAY_PATH | GATEWAY_TARGET)) => {
                self.refused(number, Refusal::DeviceException);
                self.failed(index, Refusal::NoReply);
                "unreachable"
            }
            Ok(Reply::Exception(code)) => {
                self.refused(number, Refusal::DeviceException);
                self.answered(index, now - began);
                pause = self.exception(job, code);
                "exception"
            }
            Ok(reply) => {
                self.answered(index, now - began);
                self.values(job, &reply);
                "answered"
            }
            Err(reason) => {
                self.failed(index, reason);
                if reason == Refusal::NoReply { "timeout" } else { "fault" }
            }
        };
        self.bus.deps.metrics.polled(self.bus.setup.bus.as_str(), told);
        self.state.field.done(job, now, pause);
        Ok(())
    }

    /// One exchange. After a fault the line is a new one, or in order again.
    async fn exchange(
        &mut self,
        wire: &mut Wire,
        unit: u8,
        request: &Request,
        patience: Duration,
    ) -> Result<Result<Reply, Refusal>, BusError> {
        let mut fresh_starts = 0;
        loop {
            let fault = match wire.ask(unit, request, patience).await {
                Ok(reply) => return Ok(Ok(reply)),
                Err(fault) => fault,
            };
            let port = !wire.pace().connection;
            let (reason, again) = match fault {
                Fault::Line(source) | Fault::Before { source: Some(source), .. } if port => {
                    return Err(BusError::Line { at: self.at(), source });
                }
                Fault::Before { reason, .. } => (reason, fresh_starts < FRESH_STARTS_MAX),
                Fault::Reply(reason) => (reason, false),
                Fault::Line(_) => (Refusal::LineFailed, false),
            };
            self.refused(unit, reason);
            self.mend(wire).await?;
            if !again {
                return Ok(Err(reason));
            }
            fresh_starts += 1;
        }
    }

    /// Nothing of a failed exchange may reach the next one.
    async fn mend(&mut self, wire: &mut Wire) -> Result<(), BusError> {
        let mended = if wire.pace().connection {
            self.open().await.map(|fresh| *wire = fresh)
        } else {
            wire.recover().await
        };
        mended.map_err(|source| BusError::Line { at: self.at(), source })
    }

    fn refused(&mut self, unit: u8, reason: Refusal) {
        match reason {
            Refusal::NoReply => self.counts.timeouts += 1,
            _ => self.counts.faults += 1,
        }
        self.bus.deps.metrics.refused(&format!("{}/{unit}", self.bus.setup.bus), reason);
        tracing::debug!(bus = %self.bus.setup.bus, unit, reason = reason.as_str(), "no reply of use");
    }

    fn answered(&mut self, unit: usize, took: Duration) {
        let now = Instant::now();
        self.failed_in_row = 0;
        self.last_answer = Some(now);
        self.line_up();
        let field = &mut self.state.field;
        let Some(unit) = field.units.get_mut(unit) else { return };
        let failed = unit.breaker.failures() > 0;
        unit.breaker.answered(took);
        unit.failing_since = None;
        unit.told_offline = false;
        if failed {
            let devices = unit.devices.clone();
            self.set_device_trouble(&devices, None);
        }
    }

    fn failed(&mut self, index: usize, reason: Refusal) {
        let now = Instant::now();
        self.failed_in_row = self.failed_in_row.saturating_add(1);
        let several = self.state.field.units.len() > 1;
        // On a line without transaction numbers a late reply looks like the next one: it must have passed by then.
        let late = reason == Refusal::NoReply && self.pace.framing == Framing::Rtu;
        let rest = if late { LATE_MAX } else { Duration::ZERO };
        let Some(unit) = self.state.field.units.get_mut(index) else { return };
        unit.breaker.failed(now, rest);
        let since = *unit.failing_since.get_or_insert(now);
        let (failures, devices, told_offline) =
            (unit.breaker.failures(), unit.devices.clone(), unit.told_offline);
        self.set_device_trouble(&devices, Some(reason));
        if failures == STALE_AFTER {
            let at = self.bus.deps.clock.now();
            for device in devices {
                let seen = Observation::Stale { at: at.clone(), reason: QualityReason::Silent };
                self.commits.observe(&mut self.state.field, device, seen);
            }
        }
        // While nobody answers it may be the line; then the next probe tells.
        let nobody = several && self.last_answer.is_none_or(|answer| answer < since);
        if failures >= OFFLINE_AFTER && !told_offline && !nobody {
            self.offline(index, reason);
        }
    }

    /// The unit is told offline, each of its devices by itself.
    fn offline(&mut self, unit: usize, reason: Refusal) {
        let at = self.bus.deps.clock.now();
        let Some(unit) = self.state.field.units.get_mut(unit) else { return };
        unit.told_offline = true;
        for device in unit.devices.clone() {
            let seen = Observation::Offline { at: at.clone(), reason: reason.as_str() };
            self.commits.observe(&mut self.state.field, device, seen);
        }
    }

    /// The device refuses a read: a merged one may hold what it does not have, and is divided for good.
    fn exception(&mut self, job: usize, code: u8) -> Duration {
        if matches!(code, ILLEGAL_ADDRESS | ILLEGAL_VALUE) && self.state.field.split(job) {
            tracing::info!(bus = %self.bus.setup.bus, code, "a merged read was refused and is divided");
            return Duration::ZERO;
        }
        self.values(job, &Reply::Exception(code));
        if code <= ILLEGAL_VALUE { REFUSED_PAUSE } else { Duration::ZERO }
    }

    fn values(&mut self, job: usize, reply: &Reply) {
        // The time of a value is when its reply was read.
        let at = self.bus.deps.clock.now();
        let said = self.state.field.said(job, reply, &at);
        self.bus.deps.board.update(|board| {
            for device in said.keys().filter_map(|index| self.state.field.devices.get(*index)) {
                let id = &device.described.subject.device.id;
                let entry = board.devices.entry(id.clone()).or_default();
                entry.heard = Some(at.clone());
                entry.messages += 1;
            }
        });
        for (device, points) in said {
            let seen = Observation::Said { at: at.clone(), points };
            self.commits.observe(&mut self.state.field, device, seen);
        }
    }

    async fn write(&mut self, wire: &mut Wire, write: Write) -> Result<(), BusError> {
        if !write.begin(Instant::now()) {
            write.answer(Err(WriteError::TooLate));
            return Ok(());
        }
        let target = self.target(&write);
        let (unit, reading, request) = match target {
            Ok(target) => target,
            Err(error) => {
                write.answer(Err(error));
                return Ok(());
            }
        };
        let outcome = match self.exchange(wire, unit, &request, self.full).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.bus.deps.metrics.wrote(self.bus.setup.bus.as_str(), "unknown");
                write.answer(Err(WriteError::Unknown(Refusal::LineFailed)));
                return Err(error);
            }
        };
        let (told, answer) = match outcome {
            Ok(Reply::Exception(code)) => ("refused", Err(WriteError::Exception(code))),
            Ok(_) => ("done", Ok(Written::Echoed)),
            Err(reason) => ("unknown", Err(WriteError::Unknown(reason))),
        };
        self.bus.deps.metrics.wrote(self.bus.setup.bus.as_str(), told);
        if answer.is_err() || !write.verify {
            write.answer(answer);
            return Ok(());
        }
        let back = self.read_back(wire, unit, &reading).await;
        // The same registers, so that rounding to a register's steps is no difference.
        let same = matches!(&back, Ok(Some(value)) if reading.write(value).as_ref() == Ok(&request));
        write.answer(Ok(if same { Written::Verified } else { Written::Unverified }));
        back.map(|_value| ())
    }

    fn target(&self, write: &Write) -> Result<(u8, Reading, Request), WriteError> {
        let mut devices = self.state.field.devices.iter();
        let device = devices
            .find(|device| device.described.subject.device.id == write.device)
            .ok_or_else(|| WriteError::NoDevice(write.device.clone()))?;
        let mut readings = device.described.readings.iter();
        let reading = readings
            .find(|reading| reading.write && reading.name == write.point)
            .ok_or_else(|| WriteError::NoOutput(write.point.clone()))?;
        let request = reading.write(&write.value).map_err(WriteError::Value)?;
        Ok((device.described.unit, reading.clone(), request))
    }

    async fn read_back(
        &mut self,
        wire: &mut Wire,
        unit: u8,
        reading: &Reading,
    ) -> Result<Option<Value>, BusError> {
        let request = Request::Read { table: reading.table, at: reading.at, count: reading.count };
        let said = match self.exchange(wire, unit, &request, self.full).await? {
            Ok(Reply::Bits(bits)) => reading.decode(Raw::Bits(&bits), None),
            Ok(Reply::Words(words)) => reading.decode(Raw::Words(&words), None),
            Ok(_) | Err(_) => return Ok(None),
        };
        Ok(match said {
            Said::Value(value) => Some(value),
            Said::Loop(_) | Said::Nothing { .. } => None,
        })
    }

    /// Shows the counts, from time to time, and what has failed to be told is told.
    fn post(&mut self, at_once: bool) {
        let now = Instant::now();
        if !at_once && now.duration_since(self.posted) < POST_EVERY {
            return;
        }
        self.posted = now;
        let counts = std::mem::take(&mut self.counts);
        let State { field, line, .. } = &mut *self.state;
        self.commits.catch_up(line);
        let failing = field.units.iter().filter(|unit| unit.breaker.failures() >= OFFLINE_AFTER).count();
        self.bus.deps.board.update(|board| {
            let bus = board.buses.entry(self.bus.setup.bus.clone()).or_default();
            let line = bus.line.get_or_insert_default();
            line.polls += counts.polls;
            line.timeouts += counts.timeouts;
            line.faults += counts.faults;
            line.units_failing = failing;
        });
    }

    fn set_trouble(&self, trouble: Option<String>) {
        self.bus.deps.board.update(|board| {
            let bus = board.buses.entry(self.bus.setup.bus.clone()).or_default();
            bus.trouble = trouble;
        });
    }

    fn set_device_trouble(&self, devices: &[usize], reason: Option<Refusal>) {
        self.bus.deps.board.update(|board| {
            for device in devices.iter().filter_map(|index| self.state.field.devices.get(*index)) {
                let id = device.described.subject.device.id.clone();
                board.devices.entry(id).or_default().trouble =
                    reason.map(|reason| reason.as_str().to_owned());
            }
        });
    }
}
