//! Does what is asked of devices: speakers, doors, outputs. Owns the queues, attempts and their reports. Must not know why
//! something is asked, rules, or platforms.
//!
//! What must be survived: a device that never answers (retried until its time is over if it may be done twice, given up
//! once if not), one that says no, a broker that is away, a graver alarm in the middle of a lighter one's words, a full
//! queue, and the process's death between order and answer: what was begun before is never done again unless that is no
//! worse than once (words, and what fire holds open); other doors and outputs are only ever brought back to rest. A lane
//! that dies is begun anew, and goes on likewise.
//!
//! One *lane* per speaker, door and output carries out one thing at a time; each is a task. Reports go through one
//! channel to the journal, in their order.

mod answers;
mod lane;
mod lanes;
mod once;
mod outgoing;
mod speaking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(in crate::south) use self::answers::Answers;
pub use self::answers::{Ears, Overheard};
pub use self::outgoing::{Outgoing, Post, PostError, Switch, Wire};

use self::lanes::Lanes;
use super::device::{DeviceConfig, Speaker};
use super::profile::Profile;
use super::profile::acts::Filling;
use crate::model::action::{Act, Action, Deed, Held, Progress, Report};
use crate::model::alarm::AlarmState;
use crate::model::ids::{DeviceId, ProfileName};
use crate::model::journal::{Durability, Journal};
use crate::model::roll::Roll;
use crate::rt::clock::SharedClock;

/// Jobs that wait to be shared out. Full: who asks waits.
const JOBS_MAX: usize = 64;
/// Jobs that wait for one speaker, door or output. Full: the least grave is given up.
const LANE_JOBS_MAX: usize = 32;
/// Reports that wait for the journal. Full: lanes wait, and their devices with them.
const REPORTS_MAX: usize = 256;
/// Reports written in one commit.
const REPORTS_AT_ONCE: usize = 32;
/// How long the lanes may take at the end to switch back what they have switched on for a time.
const LAST_SWITCHES: Duration = Duration::from_millis(600);
/// How long the last reports may take to be written after that.
const LAST_REPORTS: Duration = Duration::from_millis(300);
/// Together: whoever stops the executor waits so long, and keeps the ways to devices open meanwhile.
pub const STOPS_WITHIN: Duration = Duration::from_secs(1);
const _: () = assert!(LAST_SWITCHES.as_millis() + LAST_REPORTS.as_millis() < STOPS_WITHIN.as_millis());
/// After its time an action has so long to tell how it ended before whoever waits is told that nobody knows.
const REPLY_GRACE: Duration = Duration::from_secs(75);

/// What an executor is made of.
#[derive(Debug)]
pub struct Parts {
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
    pub ears: Arc<Ears>,
    /// The doors that fire holds open, also since before a restart.
    pub held: Arc<Held>,
    /// Where it stands that somebody has seen to an alarm.
    pub roll: Arc<Roll>,
    pub journal: Arc<dyn Journal>,
    pub clock: SharedClock,
}

/// A device that can be made to act.
#[derive(Debug)]
struct Actor {
    id: DeviceId,
    profile: Arc<Profile>,
    wire: Wire,
    address: String,
    /// Whose contact shows it open.
    contact: DeviceId,
}

/// One action on its way.
#[derive(Debug)]
struct Job {
    action: Action,
    resumed: bool,
    /// Until then it may be begun.
    until: Instant,
    reply: Option<oneshot::Sender<Report>>,
}

/// A report on its way to the journal, and to who waits for it.
type Told = (Report, Action, Option<oneshot::Sender<Report>>);

/// What lanes share.
#[derive(Debug)]
struct Shared {
    devices: BTreeMap<DeviceId, DeviceConfig>,
    profiles: BTreeMap<ProfileName, Arc<Profile>>,
    /// The ways to devices, by who speaks for them.
    wires: RwLock<BTreeMap<Speaker, Wire>>,
    ears: Arc<Ears>,
    held: Arc<Held>,
    roll: Arc<Roll>,
    journal: Arc<dyn Journal>,
    clock: SharedClock,
    orders: AtomicU32,
}

/// What commands ask, and what the pipeline asks.
type Inbox = (mpsc::Receiver<Job>, mpsc::Receiver<(Action, bool)>);

/// Why a job has no lane: how it ended, and why.
type Homeless = Box<(Job, Progress, String)>;

/// The executor. Cheap to share; [`Acting::run`] does the work.
#[derive(Debug)]
pub struct Acting {
    shared: Arc<Shared>,
    jobs_tx: mpsc::Sender<Job>,
    inbox: Mutex<Inbox>,
}

impl Acting {
    /// `asked_rx`: what the pipeline asks for, and whether it was begun before a restart.
    pub fn new(parts: Parts, asked_rx: mpsc::Receiver<(Action, bool)>) -> Self {
        let Parts { devices, profiles, ears, held, roll, journal, clock } = parts;
        let (wires, orders) = (RwLock::default(), AtomicU32::new(0));
        let shared = Shared { devices, profiles, wires, ears, held, roll, journal, clock, orders };
        let (jobs_tx, jobs_rx) = mpsc::channel(JOBS_MAX);
        Self { shared: Arc::new(shared), jobs_tx, inbox: Mutex::new((jobs_rx, asked_rx)) }
    }

    /// From now on this is the way to the devices of `speaker`.
    pub fn connect(&self, speaker: Speaker, wire: Wire) {
        self.shared.wires.write().unwrap_or_else(PoisonError::into_inner).insert(speaker, wire);
    }

    /// Shares out what is asked, until `cancel`. What is switched on for a time is switched back then; all else that is
    /// under way is left: its record says that it was begun.
    pub async fn run(&self, cancel: &CancellationToken) {
        let mut inbox = self.inbox.lock().await;
        let (jobs_rx, asked_rx) = &mut *inbox;
        let (told_tx, told_rx) = mpsc::channel(REPORTS_MAX);
        let mut teller = JoinSet::new();
        teller.spawn(tell(Arc::clone(&self.shared), told_rx));
        let mut lanes = Lanes::new(Arc::clone(&self.shared), told_tx.clone(), cancel.clone());
        loop {
            let job = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = lanes.ended() => continue,
                Some((action, resumed)) = asked_rx.recv() => self.shared.job(action, resumed, None),
                Some(job) = jobs_rx.recv() => job,
            };
            if let Err(homeless) = lanes.share_out(job) {
                let (job, progress, why) = *homeless;
                finish(&told_tx, job, (progress, 1), why).await;
            }
        }
        lanes.stop().await;
        drop(told_tx);
        if tokio::time::timeout(LAST_REPORTS, teller.join_next()).await.is_err() {
            tracing::warn!("reports were left untold; a restart finds what was under way");
        }
    }
}

#[async_trait]
impl Act for Acting {
    async fn act(&self, action: Action) -> Report {
        let unknown = |detail: &str| Report {
            action: action.id.clone(),
            progress: Progress::Unknown,
            attempt: 1,
            detail: detail.to_owned(),
        };
        let (reply_tx, reply_rx) = oneshot::channel();
        let job = self.shared.job(action.clone(), false, Some(reply_tx));
        let lasts = Duration::from_millis(action.deed.lasts_ms());
        let until = job.until + lasts + REPLY_GRACE;
        if self.jobs_tx.try_send(job).is_err() {
            let detail = "too many orders wait already".to_owned();
            let report = Report { progress: Progress::Failed, detail, ..unknown("") };
            let told = report.draft(&self.shared.clock.now(), &action);
            if let Err(error) = self.shared.journal.append(vec![told], Durability::Synced).await {
                tracing::warn!(%error, "that an order was not taken could not be stored");
            }
            return report;
        }
        match tokio::time::timeout_at(until, reply_rx).await {
            Ok(Ok(report)) => report,
            Ok(Err(_dropped)) => unknown("whoever did it has ended before it was told how it ended"),
            Err(_elapsed) => unknown("nobody has told how it ended"),
        }
    }
}

impl Shared {
    /// The device with the way to it, if both are known.
    fn actor(&self, id: &DeviceId) -> Option<Actor> {
        let config = self.devices.get(id)?;
        let profile = Arc::clone(self.profiles.get(&config.profile)?);
        let wires = self.wires.read().unwrap_or_else(PoisonError::into_inner);
        Some(Actor {
            id: id.clone(),
            profile,
            wire: wires.get(&config.speaker()?)?.clone(),
            address: config.address.clone().unwrap_or_default(),
            contact: config.contact.clone().unwrap_or_else(|| id.clone()),
        })
    }

    /// An action with the moment until which it may be begun.
    fn job(&self, action: Action, resumed: bool, reply: Option<oneshot::Sender<Report>>) -> Job {
        let now = self.clock.now();
        // Of another boot while no clock was trusted: words are still worth saying, all else is past.
        let left = match action.at.age_ms(&now) {
            Some(age) => action.act_within_ms.saturating_sub(age),
            None if matches!(action.deed, Deed::Speak { .. }) => action.act_within_ms,
            None => 0,
        };
        Job { action, resumed, until: Instant::now() + Duration::from_millis(left), reply }
    }

    /// Whether nobody has seen to the alarm of an action yet. Unknown where it is not on the roll: over, or none.
    fn unseen(&self, action: &Action) -> Option<bool> {
        let state = self.roll.get(action.alarm.as_ref()?)?.alarm.state;
        Some(matches!(state, AlarmState::Unacknowledged | AlarmState::ReturnedUnacknowledged))
    }

    /// Counts orders, from 1.
    fn number(&self) -> u32 {
        self.orders.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// What stands in an order's payload beside its own.
    fn filling(&self, actor: &Actor, action: &Action, attempt: u32) -> Filling {
        Filling {
            id: format!("{}-{attempt}", action.id),
            number: self.number(),
            now_s: self.clock.now().unix_s(),
            address: actor.address.clone(),
            ..Filling::default()
        }
    }
}

/// Ends a job.
async fn finish(
    told_tx: &mpsc::Sender<Told>,
    job: Job,
    (progress, attempt): (Progress, u32),
    detail: impl Into<String>,
) {
    let report = Report { action: job.action.id.clone(), progress, attempt, detail: detail.into() };
    if told_tx.send((report, job.action, job.reply)).await.is_err() {
        tracing::debug!("the reports' writer has ended");
    }
}

/// Writes reports, several in one commit, and answers whoever waits.
async fn tell(shared: Arc<Shared>, mut told_rx: mpsc::Receiver<Told>) {
    let mut told = Vec::new();
    while told_rx.recv_many(&mut told, REPORTS_AT_ONCE).await > 0 {
        let at = shared.clock.now();
        for (report, action, _) in &told {
            let done = matches!(report.progress, Progress::Accepted | Progress::Confirmed);
            let (device, progress) = (&action.device, report.progress.as_str());
            let Report { attempt, detail, .. } = report;
            if done {
                tracing::info!(%device, deed = action.deed.as_str(), progress, attempt, detail, "acted");
            } else {
                tracing::warn!(%device, deed = action.deed.as_str(), progress, attempt, detail, "not acted");
            }
        }
        let drafts = told.iter().map(|(report, action, _)| report.draft(&at, action)).collect();
        if let Err(error) = shared.journal.append(drafts, Durability::Synced).await {
            // In memory only it is told all the same; otherwise the pipeline's deadline finds that nobody told it.
            tracing::warn!(%error, reports = told.len(), "what became of actions could not be stored");
        }
        for (report, _, reply) in told.drain(..) {
            if let Some(reply) = reply
                && reply.send(report).is_err()
            {
                tracing::debug!("nobody waits for the end of an action any more");
            }
        }
    }
}
