//! A door's or an output's lane: each thing is done once. What was begun before a restart is not done again; what it may
//! have left switched on is switched back, which is never worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::lane::{Lane, Order};
use super::outgoing::Wire;
use super::{Actor, Job};
use crate::model::action::{Action, Deed, Progress, outcome};
use crate::model::ids::PointName;
use crate::model::record::Value;
use crate::south::modbus::actuator::{WriteError, Written};
use crate::south::profile::acts::{DoorProfile, Filling};

/// How long a write may wait for its line, at most; less where the action's time is over before.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Switching back is tried so often: it may be done many times, and must not be left.
const REST_TRIES: u32 = 5;
const REST_PAUSE: Duration = Duration::from_secs(2);

/// What is known of one try, in words.
type Tried = (Progress, String);

struct Once {
    lane: Lane,
    jobs_rx: mpsc::Receiver<Job>,
    /// Held open for fire: a pulse does not lock it.
    held: bool,
}

/// Runs until nobody asks any more.
pub(super) async fn run(lane: Lane, jobs_rx: mpsc::Receiver<Job>) {
    let mut once = Once { lane, jobs_rx, held: false };
    let mut next = None;
    loop {
        let job = match next.take() {
            Some(job) => job,
            None => match once.jobs_rx.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let (job, end, took_over) = once.carry_out(job).await;
        once.lane.finish(job, (end.0, 1), end.1).await;
        next = took_over;
    }
}

/// Whether it was done, or may have been.
const fn possible(progress: Progress) -> bool {
    matches!(progress, Progress::Accepted | Progress::Confirmed | Progress::Unknown)
}

const fn well(progress: Progress) -> bool {
    matches!(progress, Progress::Accepted | Progress::Confirmed)
}

impl Once {
    /// Does one thing to its end. Returns the order that took over from it, too.
    async fn carry_out(&mut self, job: Job) -> (Job, Tried, Option<Job>) {
        // To lock is no worse a second time.
        if job.resumed && job.action.deed != Deed::Lock {
            let end = self.resume(&job.action).await;
            return (job, end, None);
        }
        if Instant::now() >= job.until {
            let why = "its time passed before it could be done".to_owned();
            return (job, (Progress::Expired, why), None);
        }
        let (end, next) = match job.action.deed.clone() {
            Deed::Relay { point, on, for_ms } => self.relay(&job, &point, on, for_ms).await,
            Deed::Set { point, value } => (self.set(&job.action, &point, value, left(&job)).await, None),
            Deed::Unlock { pulse_ms } => self.unlock(&job, pulse_ms).await,
            Deed::Lock => (self.lock(&job.action).await, None),
            Deed::Publish { topic, payload } => (self.publish(&topic, payload).await, None),
            Deed::Speak { .. } | Deed::Hush => ((Progress::Failed, "only a speaker speaks".to_owned()), None),
        };
        (job, end, next)
    }

    /// What was begun before a restart: nobody knows how far it came.
    async fn resume(&self, action: &Action) -> Tried {
        let door = self.lane.actor.profile.door.as_ref();
        let left_on = match &action.deed {
            Deed::Relay { point, on, for_ms: Some(_) } => Some((point.clone(), !on)),
            Deed::Unlock { pulse_ms: Some(_) } => {
                door.and_then(|door| Some((door.output.clone()?, !door.released)))
            }
            _ => None,
        };
        let detail = match left_on {
            None => "begun before a restart: it may have been done, and is not done again".to_owned(),
            Some((point, rest)) => match self.bring_to_rest(action, &point, rest).await {
                Ok(_) => "begun before a restart: it may have been done; the output is at rest".to_owned(),
                Err(why) => {
                    format!("begun before a restart, and the output could not be switched back: {why}")
                }
            },
        };
        (Progress::Unknown, detail)
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

    /// Waits for a pulse's end, or for the order that takes the output over.
    async fn until(&mut self, end: Instant) -> Option<Job> {
        tokio::select! {
            () = sleep_until(end) => None,
            Some(job) = self.jobs_rx.recv() => Some(job),
        }
    }

    async fn relay(
        &mut self,
        job: &Job,
        point: &PointName,
        on: bool,
        for_ms: Option<u32>,
    ) -> (Tried, Option<Job>) {
        let (progress, detail) = self.set(&job.action, point, Value::Bool(on), left(job)).await;
        let Some(for_ms) = for_ms.filter(|_| possible(progress)) else {
            return ((progress, detail), None);
        };
        let end = Instant::now() + Duration::from_millis(for_ms.into());
        if let Some(next) = self.until(end).await {
            return ((Progress::Accepted, outcome::TAKEN_OVER.to_owned()), Some(next));
        }
        let end = match self.bring_to_rest(&job.action, point, !on).await {
            Err(why) => (Progress::Failed, format!("switched, but not back: {why}")),
            Ok(_) if well(progress) => (progress, outcome::RELAY_PULSED.to_owned()),
            Ok(_) => (progress, detail),
        };
        (end, None)
    }

    /// Releases a door: at once, and once. Says whether it was seen open.
    async fn unlock(&mut self, job: &Job, pulse_ms: Option<u32>) -> (Tried, Option<Job>) {
        let actor = Arc::clone(&self.lane.actor);
        let Some(door) = &actor.profile.door else {
            return ((Progress::Failed, "the device is no door".to_owned()), None);
        };
        let mut watching = self.lane.shared.ears.watch(&actor.contact, &door.opened);
        let began = Instant::now();
        let (progress, detail) = self.release(job, &actor, door, pulse_ms).await;
        if !possible(progress) {
            return ((progress, detail), None);
        }
        self.held |= pulse_ms.is_none();
        let mut next = None;
        if let (Some(pulse_ms), Some(output)) = (pulse_ms.filter(|_| !self.held), &door.output) {
            next = self.until(began + Duration::from_millis(pulse_ms.into())).await;
            if next.is_none()
                && let Err(why) = self.bring_to_rest(&job.action, output, !door.released).await
            {
                let why = format!("released, and could not be locked again: {why}");
                return ((Progress::Failed, why), None);
            }
        }
        let patience = Duration::from_millis(door.opened_within_ms.into());
        let until = if next.is_some() { Instant::now() } else { began + patience };
        // A lock that says itself that it is open is believed at once.
        let seen = progress != Progress::Confirmed && timeout_at(until, watching.seen()).await.is_ok();
        let end =
            if seen { (Progress::Confirmed, outcome::CONTACT_OPENED.to_owned()) } else { (progress, detail) };
        (end, next)
    }

    async fn release(&self, job: &Job, actor: &Actor, door: &DoorProfile, pulse_ms: Option<u32>) -> Tried {
        if let Some(output) = &door.output {
            let value = Value::Bool(door.released);
            return match self.set(&job.action, output, value, left(job)).await {
                // That the output is on says nothing of the door.
                (Progress::Confirmed | Progress::Accepted, _) => {
                    (Progress::Accepted, outcome::RELAY_PULSED.to_owned())
                }
                other => other,
            };
        }
        let (Some(topic), Some(payload)) = (&door.topic, &door.unlock) else {
            return (Progress::Failed, "its profile does not say how the door is released".to_owned());
        };
        let filling = Filling { pulse_ms, ..self.lane.shared.filling(actor, &job.action, 1) };
        let order = Order { topic, payload, ack: door.ack.as_ref(), filling, lasts: Duration::ZERO };
        self.lane.order(order).await.end()
    }

    /// Takes back a release.
    async fn lock(&mut self, action: &Action) -> Tried {
        let actor = Arc::clone(&self.lane.actor);
        let Some(door) = &actor.profile.door else {
            return (Progress::Failed, "the device is no door".to_owned());
        };
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
            self.held = false;
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
