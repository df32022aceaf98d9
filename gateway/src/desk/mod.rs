//! Carries out what platforms and people at the box order: alarms, speakers, doors, outputs, rules, a support bundle.
//! Owns the audit trail of what it carries out, and the limits on doors. Must not know protocols or drivers.
//!
//! Whoever brings an order has authorised it, judged its age and remembered it: here it is done once. Orders about alarms
//! go to the pipeline as records; devices act through [`Act`].

mod alarms;
mod answers;
pub mod bundle;
mod devices;
mod doors;
mod rules;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::model::action::Act;
use crate::model::audit::{Ended, Entry};
use crate::model::command::{Done, Order, Perform, RuleBook, Verb};
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::record::Draft;
use crate::model::refusal::Refusal;
use crate::model::roll::Roll;
use crate::pipeline::directory::Directory;
use crate::rt::clock::SharedClock;

use self::bundle::Bundle;
use self::doors::Doors;

/// What the desk works with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub journal: Arc<dyn Journal>,
    pub roll: Arc<Roll>,
    pub directory: Arc<Directory>,
    pub act: Arc<dyn Act>,
    pub rules: Arc<dyn RuleBook>,
    pub bundle: Bundle,
    pub clock: SharedClock,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    parts: Parts,
    doors: Mutex<Doors>,
}

impl Desk {
    pub fn new(parts: Parts) -> Self {
        Self { parts, doors: Mutex::new(Doors::default()) }
    }

    async fn carry_out(&self, order: &Order) -> Done {
        match &order.verb {
            Verb::Alarm { alarm, rev, act } => self.order_alarm(order, alarm, *rev, act).await,
            Verb::Speak { .. } | Verb::Hush { .. } => self.address_speakers(order).await,
            Verb::OpenDoor { door } => self.open_door(order, door).await,
            Verb::ResetDoor { door } => self.reset_door(order, door).await,
            Verb::Relay { .. } | Verb::Set { .. } => self.switch(order).await,
            Verb::Snapshot => self.list_alarms(order),
            // A rule and a bundle know no bounds within the compound.
            Verb::Diagnose | Verb::PutRules { .. } if !order.scope.is_whole() => {
                let detail = "it concerns the whole compound, and your orders reach a part of it";
                answers::rejected(Refusal::CommandNotAllowed.as_str(), detail)
            }
            Verb::Diagnose => self.diagnose(),
            Verb::PutRules { name, toml } => self.put_rules(name, toml).await,
        }
    }

    fn diagnose(&self) -> Done {
        match self.parts.bundle.write(&self.parts.clock.now()) {
            Ok(written) => answers::done("ok", format!("{} bytes on the box", written.bytes))
                .with(serde_json::to_value(&written).unwrap_or_default()),
            Err(error) => answers::failed("bundle_failed", error.to_string()),
        }
    }

    /// Puts an entry of the trail on disk, or at least into the memory that stands in for it.
    async fn enter(&self, draft: Draft) -> Result<(), JournalError> {
        match self.parts.journal.append(vec![draft], Durability::Synced).await {
            Ok(_) | Err(JournalError::Volatile) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the trail says of an order. The text of a rule file is long: its length stands for it.
fn entry(order: &Order) -> Entry {
    let args = match &order.verb {
        Verb::PutRules { name, toml } => serde_json::json!({ "name": name, "bytes": toml.len() }),
        verb => serde_json::to_value(verb).unwrap_or_default(),
    };
    let id = order.id.split_once('/').map_or(order.id.as_str(), |(_, id)| id);
    Entry {
        command: id.to_owned(),
        verb: order.verb.name().to_owned(),
        actor: order.actor.clone(),
        args: args.to_string(),
    }
}

#[async_trait]
impl Perform for Desk {
    async fn perform(&self, order: Order) -> Done {
        let entry = entry(&order);
        if order.actor.operator.trim().is_empty() || order.actor.reason.trim().is_empty() {
            return answers::rejected("not_possible", "say who orders it, and why");
        }
        if let Err(error) = self.enter(entry.ordered(&order.at)).await {
            let detail = format!("the audit trail cannot be written, so nothing was done: {error}");
            return answers::rejected("store_failed", detail);
        }
        let done = self.carry_out(&order).await;
        let ended = Ended {
            outcome: answers::word(done.end).to_owned(),
            code: done.code.clone(),
            detail: done.detail.clone(),
            ..Ended::default()
        };
        if let Err(error) = self.enter(entry.ended(&self.parts.clock.now(), &ended)).await {
            tracing::error!(id = order.id, error = %error, "what became of an order is missing in the audit trail");
        }
        done
    }
}
