//! Watching for silence: asks [`super::freshness`] of each device of a bus when its silence means something, and stores
//! what it means. Owns the waiting; must not know why a device is silent.
//!
//! What must be survived: a journal that fails (nothing is settled, so it is told later), a bus that is down (one event
//! for the bus, none for its devices), a clock that stands still between looks.
//!
//! Limits: one sweep commits at most [`DRAFTS_MAX`] drafts and what one more device adds; the rest follows at once.

use std::time::Duration;

use tokio::sync::{MutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::device::{Device, Memory};
use super::freshness::{Change, Line as LineState};
use super::line::Line;
use super::notice;
use crate::model::ids::DeviceId;
use crate::model::journal::{Durability, JournalError};
use crate::model::record::Draft;
use crate::rt::board::Standing;
use crate::rt::echo::Echo;

/// Drafts of one commit: whoever holds a device's memory keeps its next message waiting.
const DRAFTS_MAX: usize = 128;

/// A bus is told as offline after so long: a broker that is restarted is back before.
const BUS_OFFLINE_AFTER_MS: u64 = 60_000;

/// After a commit that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Longest time between two looks: the machine's suspend does not move the runtime's timers.
const LOOK_AT_LEAST: Duration = Duration::from_mins(5);

/// What a bus of its own says of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineNews {
    Up,
    Down { since_ms: u64, reason: String },
}

/// Watches the devices of one bus.
#[derive(Debug)]
pub struct Watcher {
    line: Line,
    /// None: the devices come to us, and there is no line that could fail.
    news_rx: Option<watch::Receiver<LineNews>>,
}

/// What the sweeps remember between each other.
#[derive(Debug, Default)]
struct Round {
    was_down: bool,
    /// `bus.offline` was told, and `bus.online` is owed.
    told_down: bool,
    echo: Echo,
}

impl Watcher {
    pub(super) const fn new(line: Line, news_rx: Option<watch::Receiver<LineNews>>) -> Self {
        Self { line, news_rx }
    }

    /// Watches until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut news_rx = self.news_rx.clone();
        let mut round = Round::default();
        loop {
            let wait = match self.sweep(&mut round).await {
                Ok(due_ms) => {
                    round.echo.over();
                    let now_ms = self.line.deps.clock.mono_ms();
                    Duration::from_millis(due_ms.saturating_sub(now_ms)).min(LOOK_AT_LEAST)
                }
                Err(error) => {
                    if round.echo.tell(&error, self.line.deps.clock.mono_ms()).is_some() {
                        tracing::error!(bus = %self.line.bus, error, "the silence of devices could not be stored");
                    }
                    RETRY
                }
            };
            let changed = async {
                let heard = match &mut news_rx {
                    Some(news_rx) => news_rx.changed().await.is_ok(),
                    None => false,
                };
                // The bus has ended, or there is nothing to hear of it.
                if !heard {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks at every device once; when to look again, monotonic milliseconds.
    async fn sweep(&self, round: &mut Round) -> Result<u64, String> {
        let (line, line_due_ms) = self.look_at_line(round).await?;
        let mut next_ms = line_due_ms;
        let mut waiting = self.line.roster.devices().iter().filter(|device| device.promise.watched());
        loop {
            let (mut drafts, mut changed) = (Vec::new(), Vec::new());
            while drafts.len() < DRAFTS_MAX
                && let Some(device) = waiting.next()
            {
                // A device that speaks between two looks is due at the earliest so long after that.
                let earliest_ms = device.promise.stale_after_ms();
                let now_ms = self.line.deps.clock.mono_ms();
                next_ms =
                    earliest_ms.map_or(next_ms, |after_ms| next_ms.min(now_ms.saturating_add(after_ms)));
                let memory = device.memory.lock().await;
                let at = self.line.deps.clock.now();
                let silence = memory.watch.silence(&device.promise, &device.subject, &at, line);
                if let Some((told, change)) = silence {
                    drafts.extend(told);
                    changed.push((device.as_ref(), memory, change));
                    // It may mean more: a stale device may be offline as well by now.
                    next_ms = at.mono_ms;
                } else {
                    let due_ms = memory.watch.due_ms(&device.promise, line);
                    next_ms = due_ms.map_or(next_ms, |due_ms| next_ms.min(due_ms));
                }
            }
            if changed.is_empty() {
                return Ok(next_ms);
            }
            self.store(drafts).await?;
            self.settle(changed);
        }
    }

    fn settle(&self, changed: Vec<(&Device, MutexGuard<'_, Memory>, Change)>) {
        let mut shown: Vec<(DeviceId, Standing, u64)> = Vec::new();
        for (device, mut memory, change) in changed {
            memory.watch.settle(change);
            let (standing, since_ms) = memory.watch.standing();
            tracing::warn!(device = %device.id(), ?standing, "a device is silent");
            shown.push((device.id().clone(), standing, since_ms));
        }
        self.line.deps.board.update(|board| {
            for (id, standing, since_mono_ms) in shown {
                let entry = board.devices.entry(id).or_default();
                (entry.standing, entry.since_mono_ms) = (standing, since_mono_ms);
            }
        });
    }

    /// How the line is, and when that means more. Tells when it is down for long, and when it is back.
    async fn look_at_line(&self, round: &mut Round) -> Result<(LineState, u64), String> {
        let Some(news_rx) = &self.news_rx else { return Ok((LineState::Up, u64::MAX)) };
        let news = news_rx.borrow().clone();
        let at = self.line.deps.clock.now();
        match news {
            LineNews::Up => {
                if round.was_down {
                    for device in self.line.roster.devices() {
                        device.memory.lock().await.watch.line_back(at.mono_ms);
                    }
                    round.was_down = false;
                }
                if round.told_down {
                    self.store(vec![notice::online(&at, &self.line.bus)]).await?;
                    round.told_down = false;
                }
                Ok((LineState::Up, u64::MAX))
            }
            LineNews::Down { since_ms, reason } => {
                round.was_down = true;
                let due_ms = since_ms.saturating_add(BUS_OFFLINE_AFTER_MS);
                if round.told_down {
                    return Ok((LineState::Down, u64::MAX));
                }
                if due_ms > at.mono_ms {
                    return Ok((LineState::Down, due_ms));
                }
                self.store(vec![notice::offline(&at, &self.line.bus, &reason)]).await?;
                round.told_down = true;
                Ok((LineState::Down, u64::MAX))
            }
        }
    }

    async fn store(&self, drafts: Vec<Draft>) -> Result<(), String> {
        if drafts.is_empty() {
            return Ok(());
        }
        let append = self.line.deps.journal.append(drafts, Durability::Synced);
        match tokio::time::timeout(self.line.commit_timeout, append).await {
            Err(_elapsed) => Err("the journal is slow".to_owned()),
            // It would be refused for ever, and with it all that is told later.
            Ok(Err(JournalError::Rejected(why))) => {
                tracing::error!(bus = %self.line.bus, why, "the silence of devices made a record that cannot be stored");
                Ok(())
            }
            // In memory only: it is told all the same, and nobody waits for an acknowledgement.
            Ok(Ok(_) | Err(JournalError::Volatile)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
        }
    }
}
