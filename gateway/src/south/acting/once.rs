//! A door's or an output's lane: each thing is done once, but what fire holds open ([`holding`]). What was begun before a
//! restart is not done again; what it may have left switched on is switched back, which is never worse; so it is when the
//! box stops.

mod holding;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use self::holding::{Holding, is_hold};
use super::answers::Watching;
use super::lane::{Lane, Order};
use super::outgoing::Wire;
use super::{Job, LANE_JOBS_MAX};
use crate::model::action::{Action, Deed, Progress, Report, outcome};
use crate::model::ids::PointName;
use crate::model::limits::REST_PAUSE_MS_MAX;
use crate::model::record::Value;
use crate::south::modbus::actuator::{WriteError, Written};
use crate::south::profile::acts::{DoorProfile, Filling};

/// How long a write may wait for its line, at most; less where the action's time is over before.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Switching back may be done many times, and must not be left: after so many tries it is told, and tried all the same with
/// growing pauses, until it has come about.
const REST_TRIES: u32 = 5;
const REST_PAUSE: Duration = Duration::from_secs(2);
const REST_PAUSE_MAX: Duration = Duration::from_millis(REST_PAUSE_MS_MAX);

/// What is known of one try, in words.
type Tried = (Progress, String);

struct Once {
    lane: Lane,
    jobs_rx: mpsc::Receiver<Job>,
    /// Orders that came while a lock had not answered yet, or were under way when a forerunner died.
    waiting: VecDeque<Job>,
    /// What was begun and is not over.
    running: Option<Running>,
    /// What fire asks for and has not come about.
    holding: Option<Holding>,
}

/// An output that is switched for a time, or a door whose contact may yet open. It is over when its time is, or when a
/// later order has come about; one that came to nothing takes nothing over.
struct Running {
    job: Job,
    attempt: u32,
    /// What is known of the order.
    tried: Tried,
    /// What is to be switched back, and to what.
    back: Option<(PointName, bool)>,
    /// Attempts to switch back that failed.
    tries: u32,
    /// When something is next to be done.
    until: Instant,
    watch: Option<Watch>,
}

/// What came of an order to a door.
struct Released {
    tried: Tried,
    began: Instant,
    watch: Option<Watch>,
}

impl Released {
    /// How long its contact is watched.
    fn until(&self) -> Instant {
        self.watch.as_ref().map_or(self.began, |watch| watch.until)
    }
}

/// A door's contact that may yet show it open.
struct Watch {
    watching: Watching,
    until: Instant,
}

/// What a lane does next.
enum Next {
    Job(Box<Job>),
    /// The time of what runs is over.
    Over,
    /// The door was seen open.
    Seen,
    /// Fire's hold is to be tried again.
    Again,
    /// The box stops, or nobody asks any more.
    Stop,
}

/// Runs until the box stops or nobody asks any more; then nothing is left switched on. `waiting`: what the lane's forerunner
/// was at when it died.
pub(super) async fn run(lane: Lane, jobs_rx: mpsc::Receiver<Job>, waiting: VecDeque<Job>) {
    let mut once = Once { lane, jobs_rx, waiting, running: None, holding: None };
    loop {
        match once.next().await {
            Next::Job(job) => once.carry_out(*job).await,
            Next::Over => once.over().await,
            Next::Seen => once.seen().await,
            Next::Again => {
                if let Some(holding) = once.holding.take() {
                    once.hold(holding).await;
                }
            }
            Next::Stop => break,
        }
    }
    once.stop().await;
}

/// Whether it was done, or may have been.
const fn possible(progress: Progress) -> bool {
    matches!(progress, Progress::Accepted | Progress::Confirmed | Progress::Unknown)
}

const fn well(progress: Progress) -> bool {
    matches!(progress, Progress::Accepted | Progress::Confirmed)
}

async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn opened(watch: Option<&mut Watch>) {
    match watch {
        Some(watch) => watch.watching.seen().await,
        None => std::future::pending().await,
    }
}

impl Once {
    async fn next(&mut self) -> Next {
        if !self.lane.stop.is_cancelled()
            && let Some(job) = self.waiting.pop_front()
        {
            return Next::Job(Box::new(job));
        }
        let again = self.holding.as_ref().map(|holding| holding.next);
        let until = self.running.as_ref().map(|running| running.until);
        let watch = self.running.as_mut().and_then(|running| running.watch.as_mut());
        tokio::select! {
            biased;
            () = self.lane.stop.cancelled() => Next::Stop,
            () = passed(until) => Next::Over,
            () = opened(watch) => Next::Seen,
            job = self.jobs_rx.recv() => job.map_or(Next::Stop, |job| Next::Job(Box::new(job))),
            () = passed(again) => Next::Again,
        }
    }

    async fn end(&self, job: Job, tried: Tried) {
        self.lane.finish(job, (tried.0, 1), tried.1).await;
    }

    /// Does one thing. What takes time goes on running.
    async fn carry_out(&mut self, job: Job) {
        if is_hold(&job.action.deed) {
            return self.begin_hold(job).await;
        }
        // To lock is no worse a second time.
        if job.resumed && job.action.deed != Deed::Lock {
            return self.resume(job).await;
        }
        if Instant::now() >= job.until {
            let why = "its time passed before it could be done".to_owned();
            return self.end(job, (Progress::Expired, why)).await;
        }
        let end = match job.action.deed.clone() {
            Deed::Relay { point, on, for_ms } => return self.relay(job, &point, on, for_ms).await,
            Deed::Unlock { pulse_ms } => return self.pulse(job, pulse_ms.unwrap_or_default()).await,
            Deed::Set { point, value } => {
                let end = self.set(&job.action, &point, value, left(&job)).await;
                if possible(end.0) {
                    self.take_over().await;
                }
                end
            }
            Deed::Lock => self.lock(&job.action).await,
            Deed::Publish { topic, payload } => self.publish(&topic, payload).await,
            Deed::Speak { .. } | Deed::Hush => (Progress::Failed, "only a speaker speaks".to_owned()),
        };
        self.end(job, end).await;
    }

    /// A later order has come about, or may have: what ran is over.
    async fn take_over(&mut self) {
        let Some(Running { job, attempt, tried, back, .. }) = self.running.take() else { return };
        let relay = back.is_some() && matches!(job.action.deed, Deed::Relay { .. });
        let end = if relay { (Progress::Accepted, outcome::TAKEN_OVER.to_owned()) } else { tried };
        self.lane.finish(job, (end.0, attempt), end.1).await;
    }

    /// The time of what runs is over: it is switched back, several times if it must be.
    async fn over(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if let Some((point, rest)) = running.back.take() {
            let tried = self.set(&running.job.action, &point, Value::Bool(rest), WRITE_WITHIN).await;
            if !well(tried.0) {
                running.back = Some((point, rest));
                running.until = Instant::now() + self.left_on(&mut running, &tried.1).await;
                self.running = Some(running);
                return;
            }
            if matches!(running.job.action.deed, Deed::Relay { .. }) && well(running.tried.0) {
                outcome::RELAY_PULSED.clone_into(&mut running.tried.1);
            }
        }
        // Its contact may yet open.
        let watched = running.watch.as_ref().map(|watch| watch.until);
        if let Some(until) = watched.filter(|until| Instant::now() < *until) {
            self.running = Some(Running { until, ..running });
            return;
        }
        let Running { job, attempt, tried, .. } = running;
        self.lane.finish(job, (tried.0, attempt), tried.1).await;
    }

    /// It was not switched back: how long until it is tried again. Who waits for it, and the journal, are told in time.
    async fn left_on(&self, running: &mut Running, why: &str) -> Duration {
        running.tries = running.tries.saturating_add(1);
        let Some(told) = running.tries.checked_sub(REST_TRIES) else { return REST_PAUSE };
        let detail = format!("{}: switched, and not back yet: {why}", outcome::LEFT_ON);
        self.lane.retrying(&running.job.action, running.attempt, &detail).await;
        if let Some(reply) = running.job.reply.take() {
            let action = running.job.action.id.clone();
            if reply
                .send(Report { action, progress: Progress::Failed, attempt: running.attempt, detail })
                .is_err()
            {
                tracing::debug!("nobody waits to hear that an output is left on any more");
            }
        }
        REST_PAUSE.saturating_mul(2 << told.min(8)).min(REST_PAUSE_MAX)
    }

    /// The door was seen open.
    async fn seen(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.watch = None;
        running.tried = (Progress::Confirmed, outcome::CONTACT_OPENED.to_owned());
        if running.back.is_none() {
            self.over().await;
        }
    }

    /// Nothing is left switched on. What cannot be switched back now is under way still: the next start finds it.
    async fn stop(&mut self) {
        let Some(Running { job, attempt, mut tried, back, .. }) = self.running.take() else { return };
        if let Some((point, rest)) = back {
            let back = self.set(&job.action, &point, Value::Bool(rest), WRITE_WITHIN).await;
            if !well(back.0) {
                let (device, why) = (&job.action.device, back.1);
                tracing::error!(%device, output = %point, why, "left switched on; the next start switches it back");
                return;
            }
            "the box stopped: switched back before its time".clone_into(&mut tried.1);
        }
        self.lane.finish(job, (tried.0, attempt), tried.1).await;
    }

    /// What was begun before a restart: nobody knows how far it came. What it may have left on is switched back, as at the
    /// end of its time.
    async fn resume(&mut self, job: Job) {
        let door = self.lane.actor.profile.door.as_ref();
        let left_on = match &job.action.deed {
            Deed::Relay { point, on, for_ms: Some(_) } => Some((point.clone(), !on)),
            // What fire holds open is at rest when it is open.
            Deed::Unlock { pulse_ms: Some(_) } if !self.held() => {
                door.and_then(|door| Some((door.output.clone()?, !door.released)))
            }
            _ => None,
        };
        // What runs already is switched back by itself.
        let left_on = left_on.filter(|_| self.running.as_ref().is_none_or(|running| running.back.is_none()));
        if left_on.is_none() {
            let detail = "begun before a restart: it may have been done, and is not done again";
            return self.end(job, (Progress::Unknown, detail.to_owned())).await;
        }
        self.take_over().await;
        let detail = "begun before a restart: it may have been done; the output is at rest";
        let tried = (Progress::Unknown, detail.to_owned());
        let until = Instant::now();
        self.running = Some(Running { job, attempt: 1, tried, back: left_on, tries: 0, until, watch: None });
        self.over().await;
    }

    /// Switches or sets an output, once.
    async fn set(&self, action: &Action, point: &PointName, value: Value, within: Duration) -> Tried {
        let actor = &self.lane.actor;
        if let Wire::Modbus(switch) = &actor.wire {
            return written(switch.switch(&actor.id, point, value, within).await);
        }
        let Some(output) = actor.profile.outputs.get(point) else {
            return (Progress::Failed, format!("the device has no output {point}"));
        };
        let filling = Filling {
            on: Some(value == Value::Bool(true)),
            value: Some(value),
            ..self.lane.shared.filling(actor, action, 1)
        };
        let (topic, payload, ack) = (&output.topic, &output.payload, output.ack.as_ref());
        self.lane.order(Order { topic, payload, ack, filling, lasts: Duration::ZERO }).await.end()
    }

    /// Switches back, several times if it must be.
    async fn bring_to_rest(&self, action: &Action, point: &PointName, rest: bool) -> Result<Tried, String> {
        let mut tries = 0_u32;
        loop {
            tries = tries.saturating_add(1);
            let tried = self.set(action, point, Value::Bool(rest), WRITE_WITHIN).await;
            if well(tried.0) {
                return Ok(tried);
            }
            if tries >= REST_TRIES {
                return Err(tried.1);
            }
            sleep(REST_PAUSE).await;
        }
    }

    async fn relay(&mut self, mut job: Job, point: &PointName, on: bool, for_ms: Option<u32>) {
        let tried = self.set(&job.action, point, Value::Bool(on), left(&job)).await;
        if !possible(tried.0) {
            return self.end(job, tried).await;
        }
        // Nobody knows whether it is switched back already: then it is, when its time is over.
        let rests = self.running.as_ref().is_some_and(|it| it.back == Some((point.clone(), on)));
        if well(tried.0) || !rests {
            self.take_over().await;
        }
        let Some(for_ms) = for_ms.filter(|_| self.running.is_none()) else {
            return self.end(job, tried).await;
        };
        let until = Instant::now() + Duration::from_millis(for_ms.into());
        let back = Some((point.clone(), !on));
        // Who ordered it is not kept waiting for hours: how it ends stands in the journal.
        if let Some(reply) = job.reply.take() {
            let (action, (progress, detail)) = (job.action.id.clone(), tried.clone());
            if reply.send(Report { action, progress, attempt: 1, detail }).is_err() {
                tracing::debug!("nobody waits to hear that an output is switched any more");
            }
        }
        self.running = Some(Running { job, attempt: 1, tried, back, tries: 0, until, watch: None });
    }

    /// Releases a door for a time: at once, and once. Then it is seen whether it opens.
    async fn pulse(&mut self, job: Job, pulse_ms: u32) {
        let released = self.release(&job, Some(pulse_ms), 1).await;
        if !possible(released.tried.0) {
            return self.end(job, released.tried).await;
        }
        self.take_over().await;
        let door = self.lane.actor.profile.door.as_ref();
        let back = door.and_then(|door| Some((door.output.clone()?, !door.released)));
        let back = back.filter(|_| !self.held());
        let until = match &back {
            Some(_) => released.began + Duration::from_millis(pulse_ms.into()),
            None => released.until(),
        };
        let Released { tried, watch, .. } = released;
        self.running = Some(Running { job, attempt: 1, tried, back, tries: 0, until, watch });
    }

    /// Gives the order to release a door, once.
    async fn release(&mut self, job: &Job, pulse_ms: Option<u32>, attempt: u32) -> Released {
        let (actor, began) = (Arc::clone(&self.lane.actor), Instant::now());
        let Some(door) = &actor.profile.door else {
            let tried = (Progress::Failed, "the device is no door".to_owned());
            return Released { tried, began, watch: None };
        };
        let watching = self.lane.shared.ears.watch(&actor.contact, &door.opened);
        let tried = match &door.output {
            None => self.release_by_message(job, door, pulse_ms, attempt).await,
            Some(output) => {
                match self.set(&job.action, output, Value::Bool(door.released), left(job)).await {
                    // That the output is on says nothing of the door.
                    (Progress::Confirmed | Progress::Accepted, _) => {
                        (Progress::Accepted, outcome::RELAY_PULSED.to_owned())
                    }
                    other => other,
                }
            }
        };
        // A lock that says itself that it is open is believed at once.
        let until = began + Duration::from_millis(door.opened_within_ms.into());
        let watch = (tried.0 != Progress::Confirmed).then_some(Watch { watching, until });
        Released { tried, began, watch }
    }

    /// Sends a door's order and waits for its answer. A person's reset does not wait behind it, nor fire behind a pulse.
    async fn release_by_message(
        &mut self,
        job: &Job,
        door: &DoorProfile,
        pulse_ms: Option<u32>,
        attempt: u32,
    ) -> Tried {
        let (Some(topic), Some(payload)) = (&door.topic, &door.unlock) else {
            return (Progress::Failed, "its profile does not say how the door is released".to_owned());
        };
        let Self { lane, jobs_rx, waiting, .. } = self;
        let filling = Filling { pulse_ms, ..lane.shared.filling(&lane.actor, &job.action, attempt) };
        let order = Order { topic, payload, ack: door.ack.as_ref(), filling, lasts: Duration::ZERO };
        let mut answered = std::pin::pin!(lane.order(order));
        loop {
            tokio::select! {
                biased;
                outcome = &mut answered => return outcome.end(),
                () = lane.stop.cancelled() => {
                    return (Progress::Unknown, "the box stopped before an answer came".to_owned());
                }
                Some(next) = jobs_rx.recv(), if waiting.len() < LANE_JOBS_MAX => {
                    let deed = &next.action.deed;
                    if *deed == Deed::Lock || is_hold(deed) && pulse_ms.is_some() {
                        waiting.push_front(next);
                        return (Progress::Unknown, "another order came before the answer".to_owned());
                    }
                    waiting.push_back(next);
                }
            }
        }
    }

    /// Takes back a release.
    async fn lock(&mut self, action: &Action) -> Tried {
        let actor = Arc::clone(&self.lane.actor);
        let Some(door) = &actor.profile.door else {
            return (Progress::Failed, "the device is no door".to_owned());
        };
        self.end_holds().await;
        let tried = match (&door.output, &door.topic, &door.lock) {
            (Some(output), ..) => match self.bring_to_rest(action, output, !door.released).await {
                Ok(tried) => tried,
                Err(why) => (Progress::Failed, why),
            },
            (None, Some(topic), Some(payload)) => {
                let filling = self.lane.shared.filling(&actor, action, 1);
                self.lane
                    .order(Order { topic, payload, ack: None, filling, lasts: Duration::ZERO })
                    .await
                    .end()
            }
            _ => (Progress::Failed, "the door locks by itself: it takes no order to".to_owned()),
        };
        if well(tried.0) {
            self.keep(false);
            self.take_over().await;
        }
        tried
    }

    /// A message as a rule wrote it.
    async fn publish(&self, topic: &str, payload: String) -> Tried {
        let outgoing = match self.lane.outgoing() {
            Ok(outgoing) => outgoing,
            Err(failed) => return failed.end(),
        };
        let topic = outgoing.topic(topic, &self.lane.actor.address);
        match outgoing.post.post(&topic, payload).await {
            Ok(()) => (Progress::Accepted, outcome::SENT.to_owned()),
            Err(error) => (Progress::Failed, error.to_string()),
        }
    }
}

/// How long a write may wait.
fn left(job: &Job) -> Duration {
    job.until.saturating_duration_since(Instant::now()).min(WRITE_WITHIN)
}

/// What became of a write on a field bus.
fn written(wrote: Result<Written, WriteError>) -> Tried {
    match wrote {
        Ok(Written::Verified) => (Progress::Confirmed, outcome::RELAY_READ_BACK.to_owned()),
        Ok(Written::Echoed) => (Progress::Accepted, outcome::ACCEPTED.to_owned()),
        Ok(Written::Unverified) => {
            (Progress::Unknown, "the device took it, and does not read back so".to_owned())
        }
        Err(error @ WriteError::TooLate) => (Progress::Expired, error.to_string()),
        Err(error @ WriteError::Unknown(_)) => (Progress::Unknown, error.to_string()),
        Err(error) => (Progress::Failed, error.to_string()),
    }
}
