//! The unit that keeps the clock: looks at it each second, shows what is believed on the board, and has each change
//! recorded. Nothing waits for it: stamps are given with whatever is known.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::clock::{ClockChange, offset_ms};
use crate::model::journal::{Durability, Journal, JournalError};

use super::board::{Board, ClockStatus};
use super::clock::{Clock, SystemClock, reading};
use super::metrics::Metrics;
use super::timesource::Sources;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the unit works with.
#[derive(Debug)]
pub struct Timekeeping {
    pub clock: SystemClock,
    pub sources: Sources,
    pub journal: Arc<dyn Journal>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
}

impl Timekeeping {
    /// Runs until `cancel`. A change that the journal does not take now is told again at the next look.
    pub async fn run(&mut self, cancel: &CancellationToken) -> Result<(), JournalError> {
        let mut untold: Option<ClockChange> = None;
        loop {
            let evidence = self.sources.evidence(reading()).await;
            self.clock.look(evidence);
            if untold.is_none() {
                untold = self.clock.change().inspect(|change| self.note(change));
            }
            self.show();
            if let Some(change) = &untold {
                match self.journal.append(vec![change.draft()], Durability::Synced).await {
                    Ok(_stored) => untold = None,
                    Err(JournalError::Closed) => return Err(JournalError::Closed),
                    Err(error) => tracing::debug!(%error, "a change of the clock waits for the journal"),
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn note(&self, change: &ClockChange) {
        self.metrics.clock_changed(change.source.as_str());
        tracing::info!(
            source = change.source.as_str(),
            trust = ?change.at.trust,
            offset_ms = change.after().offset_ms,
            jumped_ms = change.jumped_ms,
            "the clock has changed"
        );
        self.board.update(|board| board.clock.changed_mono_ms = Some(change.at.mono_ms));
    }

    fn show(&self) {
        let now = self.clock.now();
        self.metrics.set_clock_trust(now.trust);
        let source = self.clock.source();
        self.board.update(|board| {
            let changed_mono_ms = board.clock.changed_mono_ms;
            let offset_ms = offset_ms(&now);
            board.clock = ClockStatus { trust: Some(now.trust), source, offset_ms, changed_mono_ms };
        });
    }
}
