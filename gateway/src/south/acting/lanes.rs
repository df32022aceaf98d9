//! The lanes at work: which there are, what goes to which, and what becomes of one that dies (promise G14).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::{Actor, Homeless, Job, LANE_JOBS_MAX, LAST_SWITCHES, Shared, Told, once, speaking};
use crate::model::action::{Action, Deed, Progress};
use crate::model::ids::{DeviceId, PointName};

/// What one lane is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LaneKey {
    Speaker(DeviceId),
    Door(DeviceId),
    Output(DeviceId, PointName),
    Messages(DeviceId),
}

fn lane_of(action: &Action) -> LaneKey {
    let device = action.device.clone();
    match &action.deed {
        Deed::Speak { .. } | Deed::Hush => LaneKey::Speaker(device),
        Deed::Unlock { .. } | Deed::Lock => LaneKey::Door(device),
        Deed::Relay { point, .. } | Deed::Set { point, .. } => LaneKey::Output(device, point.clone()),
        Deed::Publish { .. } => LaneKey::Messages(device),
    }
}

/// The lanes and the ways to them.
pub(super) struct Lanes {
    shared: Arc<Shared>,
    told_tx: mpsc::Sender<Told>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    ways: HashMap<LaneKey, mpsc::Sender<Job>>,
}

impl Lanes {
    pub(super) fn new(shared: Arc<Shared>, told_tx: mpsc::Sender<Told>, stop: CancellationToken) -> Self {
        Self { shared, told_tx, stop, tasks: JoinSet::new(), ways: HashMap::new() }
    }

    /// Gives a job to its lane, or says why not. A lane that has died is begun anew.
    pub(super) fn share_out(&mut self, job: Job) -> Result<(), Homeless> {
        let Some(actor) = self.shared.actor(&job.action.device) else {
            let why = format!("there is no way to the device {}", job.action.device);
            return Err(Box::new((job, Progress::Failed, why)));
        };
        let key = lane_of(&job.action);
        let way = match self.ways.get(&key).filter(|way| !way.is_closed()) {
            Some(way) => way.clone(),
            None => self.begin(key, actor),
        };
        way.try_send(job).map_err(|refused| {
            let (job, why) = match refused {
                TrySendError::Full(job) => {
                    (job, format!("{LANE_JOBS_MAX} orders wait for the device already"))
                }
                TrySendError::Closed(job) => (job, "whoever does it has ended".to_owned()),
            };
            Box::new((job, Progress::Failed, why))
        })
    }

    fn begin(&mut self, key: LaneKey, actor: Actor) -> mpsc::Sender<Job> {
        let (way, jobs_rx) = mpsc::channel(LANE_JOBS_MAX);
        let stop = self.stop.clone();
        let lane = Lane {
            shared: Arc::clone(&self.shared),
            actor: Arc::new(actor),
            told_tx: self.told_tx.clone(),
            stop: stop.clone(),
        };
        match key {
            LaneKey::Speaker(_) => self.tasks.spawn(async move {
                stop.run_until_cancelled_owned(speaking::run(lane, jobs_rx)).await.unwrap_or_default();
            }),
            _ => self.tasks.spawn(once::run(lane, jobs_rx)),
        };
        self.ways.insert(key, way.clone());
        way
    }

    /// Returns when a lane has ended; never, while there is none.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(ended) => tell(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits until nothing is left switched on, so long as it may take.
    pub(super) async fn stop(mut self) {
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                tell(ended);
            }
        };
        if timeout(LAST_SWITCHES, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// A lane that died has told nobody how its action ended: the pipeline's deadline does.
fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "what makes a device act has died; the next order begins it anew");
    }
}
