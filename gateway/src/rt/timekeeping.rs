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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;

    use super::*;
    use crate::model::clock::ClockSource;
    use crate::model::journal::Committed;
    use crate::model::record::Draft;
    use crate::model::stamp::ClockTrust;
    use crate::rt::timesource::Places;

    /// A journal that refuses at first.
    #[derive(Debug, Default)]
    struct Shaky {
        refusals: Mutex<u32>,
        taken: Mutex<Vec<Draft>>,
    }

    #[async_trait]
    impl Journal for Shaky {
        async fn append(&self, drafts: Vec<Draft>, _how: Durability) -> Result<Committed, JournalError> {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if *refusals > 0 {
                *refusals -= 1;
                return Err(JournalError::Disk("full".to_owned()));
            }
            self.taken.lock().unwrap().extend(drafts);
            Ok(Committed { last_pos: 1, repeated: 0 })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_the_journal_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            timesyncd: dir.path().join("synchronized"),
            chrony_run: dir.path().join("chrony"),
            chrony: SocketAddr::from(([127, 0, 0, 1], 9)),
            rtc: dir.path().join("rtc"),
            vouched: true,
            guest_without_rtc: false,
        };
        let journal = Arc::new(Shaky { refusals: Mutex::new(3), ..Shaky::default() });
        let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
        let mut keeping = Timekeeping {
            clock: SystemClock::new(places.read(reading())),
            sources: Sources::new(places),
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            board: Arc::clone(&board),
            metrics: Arc::clone(&metrics),
        };
        let cancel = CancellationToken::new();
        let run = keeping.run(&cancel);
        assert!(
            tokio::time::timeout(Duration::from_secs(30), run).await.is_err(),
            "it runs until it is stopped"
        );
        let taken = journal.taken.lock().unwrap().clone();
        assert_eq!(taken.len(), 1, "{taken:?}");
        let change = ClockChange::read(&taken[0].at, &taken[0].body).unwrap();
        assert_eq!(
            (change.source, change.at.trust, change.before),
            (ClockSource::Host, ClockTrust::Rtc, None)
        );
        let shown = board.snapshot().clock;
        assert_eq!((shown.trust, shown.source), (Some(ClockTrust::Rtc), ClockSource::Host));
        assert!(shown.changed_mono_ms.is_some());
        let metrics = metrics.render();
        assert!(metrics.contains("gatehouse_clock_trust 1"), "{metrics}");
        assert!(metrics.contains("gatehouse_clock_changes_total{source=\"host\"} 1"), "{metrics}");
    }
}
