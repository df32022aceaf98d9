//! Orders about alarms: a record for the pipeline, and its verdict.

use serde_json::{Value, json};

use crate::model::command::{AlarmOrder, AlarmVerb, Done, End, Order, Scope, Verdict};
use crate::model::journal::{Durability, JournalError};
use crate::model::roll::Listed;

use super::{Desk, answers};

/// Alarms in one answer.
const LISTED_MAX: usize = 50;

fn admits(scope: &Scope, listed: &Listed) -> bool {
    let raised = &listed.alarm.raised;
    scope.covers(&raised.place) && scope.admits(raised.category)
}

impl Desk {
    pub(super) async fn order_alarm(
        &self,
        order: &Order,
        alarm: &str,
        rev: Option<u64>,
        verb: &AlarmVerb,
    ) -> Done {
        let unknown = || answers::rejected("alarm_unknown", "no alarm of this name is open");
        let listed = self.parts.roll.get(alarm);
        if !listed.as_ref().map_or(order.scope.is_whole(), |listed| admits(&order.scope, listed)) {
            return unknown();
        }
        let order = AlarmOrder {
            command: order.id.clone(),
            alarm: alarm.to_owned(),
            rev,
            verb: verb.clone(),
            actor: order.actor.clone(),
        };
        let draft = order.draft(&self.parts.clock.now());
        let appended = self.parts.journal.append(vec![draft], Durability::Synced).await;
        let kept = match appended {
            Ok(_) => "",
            Err(JournalError::Volatile) => "; the disk cannot be written, so a power cut would undo it",
            Err(error @ (JournalError::Closed | JournalError::Disk(_))) => {
                // The commit may have gone through though its answer was lost.
                return answers::answer(End::Unknown, "unknown", error.to_string());
            }
            Err(error) => return answers::rejected("store_failed", error.to_string()),
        };
        let now = |rev: u64| json!({ "alarm": alarm, "rev": rev });
        match self.parts.roll.verdict(&order.command) {
            Some(Verdict::Done { rev }) => {
                answers::done("ok", format!("revision {rev}{kept}")).with(now(rev))
            }
            Some(Verdict::Already { rev }) => answers::done("already", "it was so already").with(now(rev)),
            Some(Verdict::Unknown) => unknown(),
            Some(Verdict::Outdated { rev }) => {
                let detail = format!("the alarm has revision {rev} by now; look at it again");
                answers::rejected("outdated", detail).with(now(rev))
            }
            Some(Verdict::Impossible(why)) => answers::rejected("not_possible", why),
            None => answers::answer(End::Unknown, "unknown", "the pipeline gave no verdict"),
        }
    }

    /// The first open alarms within the orderer's scope.
    pub(super) fn list_alarms(&self, order: &Order) -> Done {
        let open = self.parts.roll.open();
        let mut within: Vec<&Listed> = open.iter().filter(|listed| admits(&order.scope, listed)).collect();
        within.sort_by_key(|listed| std::cmp::Reverse(listed.alarm.severity()));
        let alarms: Vec<Value> = within.iter().take(LISTED_MAX).map(|listed| short(listed)).collect();
        let detail = format!("{} of {} open alarms", alarms.len(), within.len());
        answers::done("ok", detail).with(json!({ "open": within.len(), "alarms": alarms }))
    }
}

fn short(listed: &Listed) -> Value {
    let alarm = &listed.alarm;
    json!({
        "alarm": alarm.alarm,
        "rev": alarm.rev,
        "state": alarm.state,
        "name": alarm.raised.name,
        "severity": alarm.severity(),
        "device": alarm.raised.device.id,
        "test": listed.test,
    })
}
