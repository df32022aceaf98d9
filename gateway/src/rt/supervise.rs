//! Supervision: a panic or an error costs one unit, which is built anew after a back-off (promise G14). Who spawns
//! joins: every task of the daemon is spawned here and stopped by stage, each stage with a deadline.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::board::{Board, UnitState};
use super::echo::Echo;
use super::metrics::Metrics;

/// First and longest delay before a failed unit is built anew.
const RESTART_MIN: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_mins(1);

/// How long an aborted unit may take to be gone.
const ABORT_GRACE: Duration = Duration::from_millis(100);

/// A unit that ran this long before it failed starts again at [`RESTART_MIN`].
const SETTLED_AFTER: Duration = Duration::from_mins(1);

/// Why one attempt of a unit ended.
pub type UnitError = Box<dyn std::error::Error + Send + Sync>;

/// The order of stopping: what brings data in first, what carries it out last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Who makes devices act: while the ways to them are still open.
    Acting,
    South,
    North,
    /// Watchdog, local socket, metrics.
    House,
}

/// What one attempt of a unit gets.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Fires when the unit shall end.
    pub cancel: CancellationToken,
    name: Arc<str>,
    board: Arc<Board>,
}

impl Unit {
    /// Says that the attempt has what it needs and does its work.
    pub fn running(&self) {
        self.board.update(|board| board.units.insert(self.name.to_string(), UnitState::Running));
    }
}

/// Spawns, restarts and stops units.
#[derive(Debug)]
pub struct Supervisor {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    stages: BTreeMap<Stage, Staged>,
}

#[derive(Debug, Default)]
struct Staged {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    names: Vec<(String, AbortHandle)>,
}

impl Supervisor {
    pub fn new(board: Arc<Board>, metrics: Arc<Metrics>) -> Self {
        Self { board, metrics, stages: BTreeMap::new() }
    }

    /// Runs `factory` again and again until its stage is stopped: each call is one attempt.
    pub fn spawn<F, Attempt>(&mut self, stage: Stage, name: &str, factory: F)
    where
        F: FnMut(Unit) -> Attempt + Send + 'static,
        Attempt: Future<Output = Result<(), UnitError>> + Send + 'static,
    {
        let staged = self.stages.entry(stage).or_default();
        let unit = Unit { cancel: staged.cancel.clone(), name: name.into(), board: Arc::clone(&self.board) };
        let metrics = Arc::clone(&self.metrics);
        let abort = staged.tasks.spawn(supervise(unit, metrics, factory));
        staged.names.push((name.to_owned(), abort));
    }

    /// Asks all units of a stage to end, waits for `grace`, aborts the rest and returns their names.
    pub async fn stop(&mut self, stage: Stage, grace: Duration) -> Vec<String> {
        let Some(mut staged) = self.stages.remove(&stage) else { return Vec::new() };
        staged.cancel.cancel();
        let deadline = Instant::now() + grace;
        while let Ok(Some(_ended)) = timeout_at(deadline, staged.tasks.join_next()).await {}
        let late: Vec<String> = staged
            .names
            .iter()
            .filter(|(_, handle)| !handle.is_finished())
            .map(|(name, _)| name.clone())
            .collect();
        staged.tasks.abort_all();
        // Who blocks its thread cannot be aborted; it ends with the process.
        let until = Instant::now() + ABORT_GRACE;
        while let Ok(Some(_ended)) = timeout_at(until, staged.tasks.join_next()).await {}
        for name in &late {
            tracing::error!(unit = %name, grace_ms = grace.as_millis(), "unit did not stop in time and was aborted");
        }
        late
    }
}

async fn supervise<F, Attempt>(unit: Unit, metrics: Arc<Metrics>, mut factory: F)
where
    F: FnMut(Unit) -> Attempt,
    Attempt: Future<Output = Result<(), UnitError>>,
{
    let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX, fastrand::Rng::new());
    let mut restarts = 0_u32;
    let (start, mut echo) = (Instant::now(), Echo::default());
    let show = |state: UnitState| {
        unit.board.update(|board| board.units.insert(unit.name.to_string(), state));
    };
    loop {
        show(UnitState::Starting);
        let began = Instant::now();
        // A factory that panics before its first await is caught as well.
        let attempt = AssertUnwindSafe(async { factory(unit.clone()).await }).catch_unwind().await;
        if unit.cancel.is_cancelled() {
            show(UnitState::Stopped);
            return;
        }
        let error = match attempt {
            Ok(Ok(())) => "it ended although nobody asked".to_owned(),
            Ok(Err(error)) => chain(error.as_ref()),
            Err(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
        };
        if began.elapsed() >= SETTLED_AFTER {
            backoff.reset();
            echo.over();
        }
        let delay = backoff.next_delay();
        restarts = restarts.saturating_add(1);
        metrics.restarted(&unit.name);
        let retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let now_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if echo.tell(&error, now_ms).is_some() {
            tracing::error!(unit = %unit.name, %error, restarts, retry_in_ms, "unit failed and will be started again");
        }
        show(UnitState::BackingOff { error, restarts, retry_in_ms });
        tokio::select! {
            () = unit.cancel.cancelled() => {
                show(UnitState::Stopped);
                return;
            }
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// An error with its sources, outermost first.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn supervisor() -> (Supervisor, Arc<Board>) {
        let board = Arc::new(Board::new());
        (Supervisor::new(Arc::clone(&board), Arc::new(Metrics::new())), board)
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_unit_and_is_mended() {
        let (mut supervisor, board) = supervisor();
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        supervisor.spawn(Stage::South, "shaky", move |unit| {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match attempt {
                    0 => panic!("first"),
                    1 => Err("second".into()),
                    _ => {
                        unit.running();
                        unit.cancel.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        supervisor.spawn(Stage::South, "steady", |unit| async move {
            unit.running();
            unit.cancel.cancelled().await;
            Ok(())
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
        let units = board.snapshot().units;
        assert_eq!(units["shaky"], UnitState::Running);
        assert_eq!(units["steady"], UnitState::Running);
        assert!(supervisor.stop(Stage::South, Duration::from_secs(1)).await.is_empty());
        assert_eq!(board.snapshot().units["shaky"], UnitState::Stopped);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_stop_is_named_and_aborted() {
        let (mut supervisor, _board) = supervisor();
        supervisor.spawn(Stage::North, "deaf", |_unit| std::future::pending());
        supervisor.spawn(Stage::North, "polite", |unit| async move {
            unit.cancel.cancelled().await;
            Ok(())
        });
        assert_eq!(supervisor.stop(Stage::North, Duration::from_secs(2)).await, ["deaf"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_is_shown_while_it_backs_off() {
        let (mut supervisor, board) = supervisor();
        supervisor.spawn(Stage::South, "broken", |_unit| async { Err("no such port".into()) });
        tokio::time::sleep(Duration::from_mins(5)).await;
        let UnitState::BackingOff { error, restarts, .. } = board.snapshot().units["broken"].clone() else {
            panic!("not backing off");
        };
        assert_eq!(error, "no such port");
        assert!((5..100).contains(&restarts), "{restarts} restarts in five minutes");
    }
}
