//! The pipeline of a configuration: what the daemon, the demo and rehearsals fold records by.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::config::Loaded;
use crate::model::action::{Action, Held, NoOutlet, Outlet};
use crate::model::ids::{DeviceId, RuleName};
use crate::model::refusal::Refusal;
use crate::model::roll::Roll;
use crate::pipeline::care::CareConfig;
use crate::pipeline::rule::{Misfits, Rules};
use crate::pipeline::{Names, NextRules, Pipeline, Plan};
use crate::rt::metrics::Metrics;

/// Actions that wait for their executor. It takes them off at once and queues them by device, so that only a flood of
/// alarms or an executor that has died fills it. Full: the action is not done and counted; its deadline in the pipeline
/// then gives it up as failed.
const ACTIONS_WAITING_MAX: usize = 1_024;

/// What the pipeline has asked for: an action, and whether it was begun before a restart.
pub type ActionsRx = mpsc::Receiver<(Action, bool)>;

/// The pipeline at work, and what others share with it.
#[derive(Debug)]
pub struct Line {
    pub pipeline: Pipeline,
    pub roll: Arc<Roll>,
    pub actions_rx: ActionsRx,
    /// The doors that fire holds open.
    pub held: Arc<Held>,
    /// Where other rules are put, to take the place of those at work.
    pub next_rules: Arc<NextRules>,
}

/// The pipeline of a running gateway.
pub fn line(loaded: &Loaded, metrics: &Arc<Metrics>) -> Line {
    let roll = Arc::new(Roll::default());
    let (actions_tx, actions_rx) = mpsc::channel(ACTIONS_WAITING_MAX);
    let held = Arc::<Held>::default();
    let outlet = Box::new(Queue { actions_tx, held: Arc::clone(&held), metrics: Arc::clone(metrics) });
    let rules = rules(loaded);
    rules.count_misfits(Arc::new(Unanswered { metrics: Arc::clone(metrics) }));
    let pipeline = Pipeline::new(plan(loaded, rules), Arc::clone(&roll), outlet);
    let next_rules = pipeline.next_rules();
    Line { pipeline, roll, actions_rx, held, next_rules }
}

/// A pipeline with these rules that does nothing, and the roll of what it raises.
pub fn rehearsal(loaded: &Loaded, rules: Arc<Rules>) -> (Pipeline, Arc<Roll>) {
    let roll = Arc::new(Roll::default());
    (Pipeline::new(plan(loaded, rules), Arc::clone(&roll), Box::new(NoOutlet)), roll)
}

/// The rules that the configuration has.
pub fn rules(loaded: &Loaded) -> Arc<Rules> {
    Arc::clone(&loaded.rules)
}

/// The same, with files whose rules replace those of the same names or are added.
///
/// # Errors
/// A file that cannot be read, or rules that hold mistakes: all of them.
pub fn rules_with(loaded: &Loaded, files: &[PathBuf]) -> anyhow::Result<Arc<Rules>> {
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.display().to_string(), bytes))
    };
    let files: Vec<(String, Vec<u8>)> = files.iter().map(read).collect::<anyhow::Result<_>>()?;
    Ok(loaded.rules_with(&files)?)
}

/// The households under care.
pub fn care_of(loaded: &Loaded) -> CareConfig {
    CareConfig { households: loaded.settings.care.clone() }
}

fn plan(loaded: &Loaded, rules: Arc<Rules>) -> Plan {
    let directory = loaded.settings.directory(&loaded.profiles);
    let alarms = loaded.settings.gateway.alarms.clone();
    let care = care_of(loaded);
    let utc_offset_min = loaded.settings.gateway.utc_offset_min;
    let settings = &loaded.settings;
    let names = Names {
        buses: settings.buses.keys().map(ToString::to_string).collect(),
        uplinks: settings.uplinks.keys().map(ToString::to_string).collect(),
        notifiers: settings.notifiers.keys().map(ToString::to_string).collect(),
    };
    Plan { rules, directory: Arc::new(directory), names, alarms, care, utc_offset_min }
}

/// The way from the journal's writer to the executor of actions.
#[derive(Debug)]
struct Queue {
    actions_tx: mpsc::Sender<(Action, bool)>,
    held: Arc<Held>,
    metrics: Arc<Metrics>,
}

impl Outlet for Queue {
    fn hand(&mut self, action: Action, resumed: bool) {
        let (action, why) = match self.actions_tx.try_send((action, resumed)) {
            Ok(()) => return,
            Err(TrySendError::Full((action, _))) => (action, "actions_waiting"),
            Err(TrySendError::Closed((action, _))) => (action, "executor_gone"),
        };
        tracing::error!(action = action.id, device = %action.device, why, "an action is not done");
        self.metrics.dropped("actions", why, 1);
    }

    fn held(&mut self, door: &DeviceId) {
        self.held.put(door, true);
    }
}

/// Counts what conditions of rules could not answer.
#[derive(Debug)]
struct Unanswered {
    metrics: Arc<Metrics>,
}

impl Misfits for Unanswered {
    fn misfit(&self, rule: &RuleName) {
        self.metrics.refused(&format!("rule {rule}"), Refusal::ExpressionMisfit);
    }
}

#[cfg(test)]
mod tests;
