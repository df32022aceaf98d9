//! From observations to the journal, without holding up the line: an append is under way while polling goes on, at most
//! one for each device, in order. What is remembered of a device changes only with a commit.
//!
//! A journal that fails leaves the observation where it is: the next poll tries it again. One that hangs holds up the
//! device's own news alone, of which [`super::field::WAITING_MAX`] wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::field::{Device, Field};
use super::memory::{Mapped, Memory, Observation, map};
use super::{Deps, Setup};
use crate::model::ids::DeviceId;
use crate::model::journal::{Committed, Durability, JournalError};
use crate::model::record::Body;
use crate::model::refusal::Refusal;
use crate::rt::board::Standing;
use crate::south::notice;

/// A line that is back sooner was never down for anybody: servers are restarted, cables re-plugged.
const LINE_GRACE: Duration = Duration::from_secs(2);

/// Whether the line works, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) down: Option<Down>,
    /// `bus.offline` is on disk, and `bus.online` not yet.
    told: bool,
    telling: bool,
}

/// A line that does not work.
#[derive(Debug)]
pub(super) struct Down {
    since: Instant,
    why: String,
}

/// What an append came to.
enum Done {
    Device { device: usize, memory: Memory, refusals: Vec<Refusal>, result: Result<Committed, JournalError> },
    Line { down: bool, result: Result<Committed, JournalError> },
}

/// What to do after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It counts as happened.
    Kept,
    /// Nothing was stored: the same again, later.
    Again,
    /// It can never be stored.
    Lost,
}

fn outcome(result: &Result<Committed, JournalError>) -> Outcome {
    match result {
        // In memory only: it has happened, is told, and will be on disk when that can be written.
        Ok(_) | Err(JournalError::Volatile) => Outcome::Kept,
        Err(JournalError::Rejected(_)) => Outcome::Lost,
        // Values that find the queue full are told again as soon as there is room.
        Err(JournalError::Full | JournalError::Disk(_) | JournalError::Closed) => Outcome::Again,
    }
}

/// The appends under way.
pub(super) struct Commits<'a> {
    setup: &'a Setup,
    deps: &'a Deps,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl<'a> Commits<'a> {
    pub(super) fn new(setup: &'a Setup, deps: &'a Deps) -> Self {
        Self { setup, deps, under_way: FuturesUnordered::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Takes an observation of a device and begins to store what it means.
    pub(super) fn observe(&mut self, field: &mut Field, index: usize, seen: Observation) {
        let Some(device) = field.devices.get_mut(index) else { return };
        if device.observe(seen) {
            self.deps.metrics.dropped("observations", Refusal::StoreSlow.as_str(), 1);
        }
        self.pump(index, device);
    }

    fn pump(&mut self, index: usize, device: &mut Device) {
        while !device.committing {
            let Some(seen) = device.waiting.front() else { return };
            let mapped = self.map_safely(device, seen);
            let Mapped { drafts, refusals, memory } = mapped;
            if drafts.is_empty() {
                self.count(device, &refusals);
                device.memory = memory;
                device.waiting.pop_front();
                continue;
            }
            let events = drafts.iter().any(|draft| !matches!(draft.body, Body::Telemetry(_)));
            let durability = if events { Durability::Synced } else { Durability::Relaxed };
            let journal = Arc::clone(&self.deps.journal);
            device.committing = true;
            self.under_way.push(Box::pin(async move {
                let result = journal.append(drafts, durability).await;
                Done::Device { device: index, memory, refusals, result }
            }));
        }
    }

    /// A panic in the mapping costs the one observation.
    fn map_safely(&self, device: &Device, seen: &Observation) -> Mapped {
        let mapped = catch_unwind(AssertUnwindSafe(|| map(&device.described, &device.memory, seen)));
        mapped.unwrap_or_else(|_panic| {
            tracing::error!(device = %id(device), "a fault in the mapping of a reading; please report it");
            self.deps.metrics.refused(id(device).as_str(), Refusal::InternalFault);
            Mapped { memory: device.memory.clone(), ..Mapped::default() }
        })
    }

    fn count(&self, device: &Device, refusals: &[Refusal]) {
        for reason in refusals {
            self.deps.metrics.refused(id(device).as_str(), *reason);
        }
    }

    /// Takes over what is done by now.
    pub(super) fn reap(&mut self, field: &mut Field, line: &mut Line) {
        while let Some(Some(done)) = self.under_way.next().now_or_never() {
            self.settle(field, line, done);
        }
    }

    /// Waits for the next append to be done; for ever if there is none.
    pub(super) async fn wait(&mut self, field: &mut Field, line: &mut Line) {
        match self.under_way.next().await {
            Some(done) => self.settle(field, line, done),
            None => std::future::pending().await,
        }
    }

    /// Gives what is under way some time.
    pub(super) async fn drain(&mut self, field: &mut Field, line: &mut Line, within: Duration) {
        let until = Instant::now() + within;
        while !self.is_empty() {
            if timeout_at(until, self.wait(field, line)).await.is_err() {
                tracing::warn!(bus = %self.setup.bus, "the journal is slow; readings are told again later");
                return;
            }
        }
    }

    fn settle(&mut self, field: &mut Field, line: &mut Line, done: Done) {
        match done {
            Done::Line { down, result } => {
                line.telling = false;
                match outcome(&result) {
                    Outcome::Kept | Outcome::Lost => line.told = down,
                    Outcome::Again => {}
                }
                self.warn(&result);
            }
            Done::Device { device: index, memory, refusals, result } => {
                self.warn(&result);
                let Some(device) = field.devices.get_mut(index) else { return };
                device.committing = false;
                match outcome(&result) {
                    Outcome::Again => return,
                    Outcome::Lost => self.deps.metrics.dropped("observations", "rejected", 1),
                    Outcome::Kept => {}
                }
                self.count(device, &refusals);
                device.memory = memory;
                device.waiting.pop_front();
                self.show(device);
                self.pump(index, device);
            }
        }
    }

    fn warn(&self, result: &Result<Committed, JournalError>) {
        match result {
            Ok(_) | Err(JournalError::Full | JournalError::Closed) => {}
            // The journal itself tells of its disk, once.
            Err(error @ (JournalError::Disk(_) | JournalError::Volatile)) => {
                tracing::debug!(bus = %self.setup.bus, %error, "not stored yet");
            }
            Err(error) => tracing::error!(bus = %self.setup.bus, %error, "a reading cannot be stored"),
        }
    }

    fn show(&self, device: &Device) {
        let standing = match device.memory.online() {
            None => Standing::Unheard,
            Some(true) => Standing::Fresh,
            Some(false) => Standing::Offline,
        };
        let now_ms = self.deps.clock.mono_ms();
        self.deps.board.update(|board| {
            let entry = board.devices.entry(id(device).clone()).or_default();
            if entry.standing != standing {
                (entry.standing, entry.since_mono_ms) = (standing, now_ms);
            }
        });
    }

    /// The line does not work. After a while it is told, once.
    pub(super) fn line_down(&mut self, field: &mut Field, line: &mut Line, why: &str) {
        let now = Instant::now();
        let down = line.down.get_or_insert_with(|| Down { since: now, why: why.to_owned() });
        why.clone_into(&mut down.why);
        if now.duration_since(down.since) < LINE_GRACE || line.told {
            return;
        }
        let at = self.deps.clock.now();
        let reason = crate::model::record::QualityReason::LineFailed;
        for index in 0..field.devices.len() {
            self.observe(field, index, Observation::Stale { at: at.clone(), reason });
        }
        self.tell(line, true);
    }

    /// The line works again; tells it if it was told that it did not.
    pub(super) fn line_up(&mut self, line: &mut Line) {
        if line.down.take().is_some() {
            tracing::info!(bus = %self.setup.bus, "the line works again");
        }
        self.catch_up(line);
    }

    /// Tells what could not be told before.
    pub(super) fn catch_up(&mut self, line: &mut Line) {
        if line.told && line.down.is_none() {
            self.tell(line, false);
        }
    }

    /// One event for the whole line: thirty devices behind it make no thirty.
    fn tell(&mut self, line: &mut Line, down: bool) {
        if line.telling {
            return;
        }
        line.telling = true;
        let why = line.down.as_ref().map_or("", |down| down.why.as_str());
        let (at, bus) = (self.deps.clock.now(), &self.setup.bus);
        let draft = if down { notice::offline(&at, bus, why) } else { notice::online(&at, bus) };
        let journal = Arc::clone(&self.deps.journal);
        self.under_way.push(Box::pin(async move {
            let result = journal.append(vec![draft], Durability::Synced).await;
            Done::Line { down, result }
        }));
    }
}

impl Line {
    /// A new attempt begins: nothing of an earlier one is under way any more.
    pub(super) const fn begin(&mut self) {
        self.telling = false;
    }
}

fn id(device: &Device) -> &DeviceId {
    &device.described.subject.device.id
}
