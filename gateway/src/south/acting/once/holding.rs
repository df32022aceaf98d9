//! Fire holds a door open: the one release that is tried again, until its time is over or a person resets the door.
//! Held twice is no worse than held once; a door that stays shut in a fire is.

use std::time::Duration;

use tokio::time::Instant;

use super::{Job, Once, Running, possible, well};
use crate::model::action::{Deed, Progress};
use crate::rt::backoff::Backoff;

/// Pauses between attempts.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(8);

/// A hold that has not come about yet.
pub(super) struct Holding {
    job: Job,
    attempts: u32,
    /// When it is tried again.
    pub(super) next: Instant,
    backoff: Backoff,
    /// Why the last attempt that was told of failed: the same is not told again.
    told: String,
}

impl Holding {
    pub(super) fn new(job: Job) -> Self {
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new());
        Self { job, attempts: 0, next: Instant::now(), backoff, told: String::new() }
    }
}

/// Whether it is what [`Holding`] is for.
pub(super) const fn is_hold(deed: &Deed) -> bool {
    matches!(deed, Deed::Unlock { pulse_ms: None })
}

impl Once {
    /// Fire asks that the door be held open.
    pub(super) async fn begin_hold(&mut self, job: Job) {
        if let Some(Holding { job, attempts, .. }) = self.holding.take() {
            self.lane.finish(job, (Progress::Preempted, attempts), "it was asked for anew").await;
        }
        if job.resumed {
            // It may be held already: nothing locks it but a person.
            self.keep(true);
        }
        if Instant::now() < job.until {
            return self.hold(Holding::new(job)).await;
        }
        let end = if job.resumed {
            (Progress::Unknown, "begun before a restart: it may be held open, and its time is over")
        } else {
            (Progress::Expired, "its time passed before it could be done")
        };
        self.end(job, (end.0, end.1.to_owned())).await;
    }

    /// One attempt.
    pub(super) async fn hold(&mut self, mut holding: Holding) {
        holding.attempts = holding.attempts.saturating_add(1);
        let attempt = holding.attempts;
        let released = self.release(&holding.job, None, attempt).await;
        if possible(released.tried.0) {
            self.keep(true);
            self.take_over().await;
        }
        if well(released.tried.0) {
            let (job, until) = (holding.job, released.until());
            let (tried, watch) = (released.tried, released.watch);
            self.running = Some(Running { job, attempt, tried, back: None, tries: 0, until, watch });
            return;
        }
        let (progress, why) = released.tried;
        let next = Instant::now() + holding.backoff.next_delay();
        if next >= holding.job.until {
            let progress = if possible(progress) { progress } else { Progress::Failed };
            return self.lane.finish(holding.job, (progress, attempt), format!("given up: {why}")).await;
        }
        if holding.told != why {
            self.lane.retrying(&holding.job.action, attempt, &why).await;
            holding.told = why;
        }
        self.holding = Some(Holding { next, ..holding });
    }

    /// A person resets the door: nobody holds it any more.
    pub(super) async fn end_holds(&mut self) {
        const RESET: &str = "somebody reset the door";
        if let Some(Holding { job, attempts, .. }) = self.holding.take() {
            self.lane.finish(job, (Progress::Preempted, attempts), RESET).await;
        }
        let (holds, others) = self.waiting.drain(..).partition(|job| is_hold(&job.action.deed));
        self.waiting = others;
        let holds: std::collections::VecDeque<Job> = holds;
        for job in holds {
            self.lane.finish(job, (Progress::Preempted, 1), RESET).await;
        }
    }

    /// Remembers whether fire holds the door; a restart does not change it.
    pub(super) fn keep(&self, held: bool) {
        self.lane.shared.held.put(&self.lane.actor.id, held);
    }

    pub(super) fn held(&self) -> bool {
        self.lane.shared.held.has(&self.lane.actor.id)
    }
}
