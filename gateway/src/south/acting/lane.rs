//! What lanes have in common: their jobs, and one order by MQTT with its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::lanes::UnderWay;
use super::outgoing::{Outgoing, PostError, Wire};
use super::{Actor, Job, Shared, Told, finish};
use crate::model::action::{Action, Progress, Report, outcome};
use crate::south::profile::acts::{Ack, Filling, fill};

/// One speaker, door or output.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) actor: Arc<Actor>,
    pub(super) told_tx: mpsc::Sender<Told>,
    pub(super) under_way: Arc<UnderWay>,
    /// The box stops: nothing is begun any more.
    pub(super) stop: CancellationToken,
}

/// What is known of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has happened, or the device has promised it.
    Done { happened: bool, detail: String },
    /// The device was not reached, or said no: nothing happened.
    Failed(String),
    /// It was sent, and no answer came: it may have happened.
    Unanswered,
}

/// One order by MQTT.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a str,
    pub(super) ack: Option<&'a Ack>,
    pub(super) filling: Filling,
    /// How much longer than its time-out the answer may take: what is said has to be said first.
    pub(super) lasts: Duration,
}

impl Lane {
    pub(super) async fn finish(&self, job: Job, end: (Progress, u32), detail: impl Into<String>) {
        self.under_way.end(&job.action.id);
        finish(&self.told_tx, job, end, detail).await;
    }

    /// Tells of an attempt that another follows.
    pub(super) async fn retrying(&self, action: &Action, attempt: u32, detail: &str) {
        let progress = Progress::Retrying;
        let report = Report { action: action.id.clone(), progress, attempt, detail: detail.to_owned() };
        if self.told_tx.send((report, action.clone(), None)).await.is_err() {
            tracing::debug!("the reports' writer has ended");
        }
    }

    pub(super) fn outgoing(&self) -> Result<&Outgoing, Outcome> {
        match &self.actor.wire {
            Wire::Mqtt(outgoing) => Ok(outgoing),
            Wire::Modbus(_) => Err(Outcome::Failed("the device does not speak MQTT".to_owned())),
        }
    }

    /// Sends one order, once, and waits for its answer.
    pub(super) async fn order(&self, order: Order<'_>) -> Outcome {
        let outgoing = match self.outgoing() {
            Ok(outgoing) => outgoing,
            Err(failed) => return failed,
        };
        let payload = match fill(order.payload, &order.filling) {
            Ok(payload) => payload,
            Err(reason) => return Outcome::Failed(reason),
        };
        let topic = outgoing.topic(order.topic, &self.actor.address);
        let mut listening = order.ack.map(|ack| {
            let said = self.actor.profile.mqtt.as_ref().map_or("", |mqtt| mqtt.topic.as_str());
            let answers = outgoing.topic(ack.topic.as_deref().unwrap_or(said), &self.actor.address);
            let names = [order.filling.id.clone(), order.filling.number.to_string()];
            (ack, outgoing.answers.wait(answers, ack, names))
        });
        if let Err(error @ (PostError::NotConnected | PostError::NotListening | PostError::Busy)) =
            outgoing.post.post(&topic, payload).await
        {
            return Outcome::Failed(error.to_string());
        }
        let Some((ack, listening)) = &mut listening else {
            return Outcome::Done { happened: false, detail: outcome::SENT.to_owned() };
        };
        let until = Instant::now() + Duration::from_millis(ack.timeout_ms.into()) + order.lasts;
        match timeout_at(until, listening.answer()).await {
            Err(_elapsed) => Outcome::Unanswered,
            Ok(answer) if !answer.yes => Outcome::Failed(format!("the device refused: {}", answer.detail)),
            Ok(_yes) => {
                let happened = ack.means.happened();
                let detail = if happened { outcome::DONE } else { outcome::ACCEPTED };
                Outcome::Done { happened, detail: detail.to_owned() }
            }
        }
    }
}

impl Outcome {
    /// How it ends for what must not be done twice.
    pub(super) fn end(self) -> (Progress, String) {
        match self {
            Self::Done { happened: true, detail } => (Progress::Confirmed, detail),
            Self::Done { happened: false, detail } => (Progress::Accepted, detail),
            Self::Failed(why) => (Progress::Failed, why),
            Self::Unanswered => (Progress::Unknown, "no answer came; it may have been done".to_owned()),
        }
    }
}
