//! The lanes at work: which there are, what goes to which, and what becomes of one that dies (promise G14).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::{Actor, Homeless, Job, LANE_JOBS_MAX, LAST_SWITCHES, Shared, Told, once, speaking};
use crate::model::action::{Action, Deed, Progress};
use crate::model::ids::{DeviceId, PointName};

/// An action whose lane died so often with it under way is left to the pipeline's deadline: it may be what kills.
const DEATHS_MAX: u32 = 2;

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

impl LaneKey {
    const fn device(&self) -> &DeviceId {
        match self {
            Self::Speaker(device) | Self::Door(device) | Self::Output(device, _) | Self::Messages(device) => {
                device
            }
        }
    }
}

/// What a lane has taken and not ended. It outlives the lane, so that whoever takes over knows of it.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Vec<Taken>>);

#[derive(Debug)]
struct Taken {
    action: Action,
    until: Instant,
    deaths: u32,
}

impl UnderWay {
    fn put(&self, job: &Job) {
        let taken = Taken { action: job.action.clone(), until: job.until, deaths: 0 };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
    }

    pub(super) fn end(&self, action: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|taken| taken.action.id != action);
    }

    /// What a lane that died was at, as a restart of the box finds it: nobody knows how far it came.
    fn inherit(&self) -> VecDeque<Job> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter_mut().for_each(|taken| taken.deaths = taken.deaths.saturating_add(1));
        taken.retain(|taken| taken.deaths <= DEATHS_MAX);
        let jobs = taken.iter().map(|taken| Job {
            action: taken.action.clone(),
            resumed: true,
            until: taken.until,
            reply: None,
        });
        jobs.collect()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// The way to a lane.
#[derive(Debug)]
struct Way {
    jobs_tx: mpsc::Sender<Job>,
    under_way: Arc<UnderWay>,
}

/// The lanes and the ways to them.
pub(super) struct Lanes {
    shared: Arc<Shared>,
    told_tx: mpsc::Sender<Told>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    ways: HashMap<LaneKey, Way>,
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
        if self.ways.get(&key).is_none_or(|way| way.jobs_tx.is_closed()) {
            self.begin(key.clone(), actor);
        }
        let Some(way) = self.ways.get(&key) else { return Ok(()) };
        way.under_way.put(&job);
        way.jobs_tx.try_send(job).map_err(|refused| {
            let (job, why) = match refused {
                TrySendError::Full(job) => {
                    (job, format!("{LANE_JOBS_MAX} orders wait for the device already"))
                }
                TrySendError::Closed(job) => (job, "whoever does it has ended".to_owned()),
            };
            way.under_way.end(&job.action.id);
            Box::new((job, Progress::Failed, why))
        })
    }

    /// Begins a lane. One that takes the place of another goes on with what that was at.
    fn begin(&mut self, key: LaneKey, actor: Actor) {
        let (jobs_tx, jobs_rx) = mpsc::channel(LANE_JOBS_MAX);
        let stop = self.stop.clone();
        let under_way = self.ways.get(&key).map(|way| Arc::clone(&way.under_way)).unwrap_or_default();
        let inherited = under_way.inherit();
        let lane = Lane {
            shared: Arc::clone(&self.shared),
            actor: Arc::new(actor),
            told_tx: self.told_tx.clone(),
            under_way: Arc::clone(&under_way),
            stop: stop.clone(),
        };
        match key {
            LaneKey::Speaker(_) => self.tasks.spawn(async move {
                let run = speaking::run(lane, jobs_rx, inherited);
                stop.run_until_cancelled_owned(run).await.unwrap_or_default();
            }),
            _ => self.tasks.spawn(once::run(lane, jobs_rx, inherited)),
        };
        self.ways.insert(key, Way { jobs_tx, under_way });
    }

    /// Returns when a lane has ended; never, while there is none.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(ended) => {
                tell(ended);
                self.take_over();
            }
            None => std::future::pending().await,
        }
    }

    /// Begins the lanes anew that died in the middle of something.
    fn take_over(&mut self) {
        let died = self.ways.iter().filter(|(_, way)| way.jobs_tx.is_closed() && !way.under_way.is_empty());
        let died: Vec<LaneKey> = died.map(|(key, _)| key.clone()).collect();
        for key in died {
            if let Some(actor) = self.shared.actor(key.device()) {
                self.begin(key, actor);
            }
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

fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "what makes a device act has died, and is begun anew");
    }
}
