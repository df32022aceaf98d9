//! From an authorised publish to the journal: whom it is about, what it says, and the commit that the PUBACK waits for
//! (promise G1). Knows nothing of rmqtt.
//!
//! What must be survived: a journal that fails or is slow (nothing is acknowledged, the connection is closed, what is
//! remembered of the device stays as it was, so that the repeated press is a press), one that keeps things in memory only
//! (not acknowledged either, but it has happened: see `owed.rs`), hostile topics and payloads
//! (counted by name and acknowledged, so that they are not sent for ever), a fault in the mapping (counted; costs
//! the one message).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::accounts::Account;
use super::owed::{self, Key, Owed};
use super::topics::{check_topic, matches};
use crate::model::ids::{BusName, DeviceId};
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::limits::DEVICE_PAYLOAD_BYTES_MAX;
use crate::model::record::{Body, Draft};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::rt::board::Board;
use crate::rt::clock::SharedClock;
use crate::rt::metrics::Metrics;
use crate::south::device::{Device, Roster};
use crate::south::profile::{Channel, DeviceState, Input, Mapped, Origin, map};

/// What stands in `status` for an emergency device that publishes at QoS 0.
pub const QOS0_WARNING: &str =
    "publishes at QoS 0: a press is lost when the network hiccups; set qos: 1 (docs/devices.md)";

/// One publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: u8,
}

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On disk as far as it must be: acknowledge.
    Taken,
    /// Refused for its own sake: acknowledge all the same, with the reason.
    Refused(Refusal),
    /// The journal could not take it: no acknowledgement, close the connection.
    Withheld(Refusal),
}

/// What a message has taught of a device: what was remembered before, and what is to be remembered now.
type Learnt<'a> = (&'a Device, Channel, MutexGuard<'a, DeviceState>, DeviceState);

/// The way from a broker's hook to the journal.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) bus: BusName,
    pub(super) roster: Arc<Roster>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    pub(super) owed: Arc<Owed>,
    pub(super) commit_timeout: Duration,
}

impl Line {
    /// Judges a publish and, if it is taken, commits it. Counts what it refuses.
    pub(super) async fn publish(&self, account: &Account, message: Message<'_>) -> Verdict {
        let verdict = match self.route(account, message) {
            Ok(targets) => self.take(account, message, targets).await,
            Err(reason) => Verdict::Refused(reason),
        };
        match verdict {
            Verdict::Taken => self.metrics.received(self.bus.as_str(), account.name.as_str()),
            Verdict::Refused(reason) => {
                tracing::debug!(client = %account.name, topic = message.topic, reason = reason.as_str(), "refused");
                self.count(account, reason);
            }
            Verdict::Withheld(reason) => {
                tracing::warn!(client = %account.name, topic = message.topic, reason = reason.as_str(), "not acknowledged");
                self.count(account, reason);
            }
        }
        verdict
    }

    pub(super) fn count(&self, account: &Account, reason: Refusal) {
        self.metrics.refused(account.name.as_str(), reason);
    }

    fn count_all(&self, account: &Account, reasons: &[Refusal]) {
        for reason in reasons {
            self.count(account, *reason);
        }
    }

    /// Whom the message is about; nobody if it is one of those that are not needed.
    fn route(&self, account: &Account, message: Message<'_>) -> Result<&[(Arc<Device>, Channel)], Refusal> {
        check_topic(message.topic)?;
        if !account.owns(message.topic) {
            return Err(Refusal::TopicNotOwned);
        }
        let targets = self.roster.route(message.topic);
        let ignored =
            || self.roster.ignored(&account.name).iter().any(|filter| matches(filter, message.topic));
        if targets.is_empty() && !ignored() {
            return Err(Refusal::TopicUnknown);
        }
        // What nobody needs is not looked at, and so may be as large as the broker reads.
        if !targets.is_empty() && message.payload.len() > DEVICE_PAYLOAD_BYTES_MAX {
            return Err(Refusal::PayloadTooLarge);
        }
        Ok(targets)
    }

    async fn take(
        &self,
        account: &Account,
        message: Message<'_>,
        targets: &[(Arc<Device>, Channel)],
    ) -> Verdict {
        let at = self.clock.now();
        let key = || owed::key(&account.name, message.topic, message.payload);
        if message.qos > 0
            && !self.owed.is_empty()
            && let Some(drafts) = self.owed.said_before(&key(), at.mono_ms)
        {
            let verdict = self.say_again(account, drafts, (&key(), message.qos)).await;
            if verdict == Verdict::Taken {
                self.note_heard(targets, &at, message.qos);
            }
            return verdict;
        }
        let mut drafts = Vec::new();
        let mut refusals = Vec::new();
        let mut learnt: Vec<Learnt<'_>> = Vec::new();
        // Always in the order of device ids, so that two messages cannot wait for each other.
        for (device, channel) in targets {
            let Ok(before) = tokio::time::timeout(self.commit_timeout, device.state.lock()).await else {
                return Verdict::Withheld(Refusal::StoreSlow);
            };
            match map_safely(device, *channel, &before, message.payload, &at) {
                Ok(mapped) => {
                    drafts.extend(mapped.drafts);
                    refusals.extend(mapped.refusals.iter().map(|refusal| refusal.reason));
                    for refusal in &mapped.refusals {
                        tracing::debug!(device = %device.id(), pointer = refusal.pointer, reason = refusal.reason.as_str(), "a field was refused");
                    }
                    learnt.push((device, *channel, before, mapped.state));
                }
                Err(reason) => refusals.push(reason),
            }
        }
        let empty = drafts.is_empty();
        let volatile = match self.commit(account, drafts, message.qos).await {
            Ok(()) => false,
            // It has happened, is acted upon and told, and only its acknowledgement waits for the disk.
            Err(Refusal::StoreVolatile) => true,
            Err(reason) if message.qos > 0 => return Verdict::Withheld(reason),
            Err(reason) => return Verdict::Refused(reason),
        };
        if volatile && message.qos > 0 && !empty {
            // Mapped a second time rather than copied each time: it is seldom that anybody asks.
            let mapped = learnt.iter().filter_map(|(device, channel, before, _after)| {
                map_safely(device, *channel, before, message.payload, &at).ok()
            });
            let drafts = mapped.flat_map(|mapped| mapped.drafts).collect();
            self.owed.note(key(), drafts, message.payload.len(), at.mono_ms);
        }
        for (_, _, mut state, after) in learnt {
            *state = after;
        }
        if volatile && message.qos > 0 {
            self.note_heard(targets, &at, message.qos);
            self.count_all(account, &refusals);
            return Verdict::Withheld(Refusal::StoreVolatile);
        }
        // A message of which nothing could be read is refused with its first reason; of another, the fields are.
        if let (true, Some((first, others))) = (empty, refusals.split_first()) {
            self.count_all(account, others);
            return Verdict::Refused(*first);
        }
        self.count_all(account, &refusals);
        self.note_heard(targets, &at, message.qos);
        Verdict::Taken
    }

    /// What is in memory only is said again: it is taken when the journal has it on disk.
    async fn say_again(&self, account: &Account, drafts: Vec<Draft>, (key, qos): (&Key, u8)) -> Verdict {
        match self.commit(account, drafts, qos).await {
            Ok(()) => {
                self.owed.settle(key);
                Verdict::Taken
            }
            Err(reason) => Verdict::Withheld(reason),
        }
    }

    /// Commits the drafts. Events are always synced; values at QoS 0 wait for nobody.
    async fn commit(&self, account: &Account, drafts: Vec<Draft>, qos: u8) -> Result<(), Refusal> {
        // What says nothing new may be said again because it is in memory only.
        if drafts.is_empty() && (qos == 0 || !self.owed.doubts()) {
            return Ok(());
        }
        let events = drafts.iter().any(|draft| !matches!(draft.body, Body::Telemetry(_)));
        let durability = if events || qos > 0 { Durability::Synced } else { Durability::Relaxed };
        let append = self.journal.append(drafts, durability);
        let committed = match tokio::time::timeout(self.commit_timeout, append).await {
            Err(_elapsed) => return Err(Refusal::StoreSlow),
            Ok(Err(JournalError::Full)) => return Err(Refusal::QueueFull),
            Ok(Err(JournalError::Volatile)) => {
                self.owed.doubt(true);
                return Err(Refusal::StoreVolatile);
            }
            Ok(Err(error)) => {
                tracing::error!(client = %account.name, %error, "a message could not be stored");
                return Err(Refusal::StoreFailed);
            }
            Ok(Ok(committed)) => committed,
        };
        if durability == Durability::Synced {
            self.owed.doubt(false);
        }
        for _ in 0..committed.repeated {
            self.count(account, Refusal::Repeated);
        }
        Ok(())
    }

    fn note_heard(&self, targets: &[(Arc<Device>, Channel)], at: &Stamp, qos: u8) {
        self.board.update(|board| {
            for (device, channel) in targets {
                let entry = board.devices.entry(device.id().clone()).or_default();
                // Who says that a device cannot be reached is not the device.
                if *channel != Channel::Message {
                    continue;
                }
                entry.heard = Some(at.clone());
                entry.messages += 1;
                if qos == 0 && device.profile.emergency() {
                    entry.warnings.insert(QOS0_WARNING.to_owned());
                } else {
                    entry.warnings.remove(QOS0_WARNING);
                }
            }
        });
    }
}

/// Maps a message of a device.
fn map_safely(
    device: &Device,
    channel: Channel,
    state: &DeviceState,
    payload: &[u8],
    at: &Stamp,
) -> Result<Mapped, Refusal> {
    let input = Input { channel, origin: Origin::Live, payload, at };
    guarded(device.id(), || map(&device.profile, &device.subject, state, input))
}

/// A panic in the mapping would take the session down, and the device would send the same again for ever.
fn guarded(device: &DeviceId, mapping: impl FnOnce() -> Result<Mapped, Refusal>) -> Result<Mapped, Refusal> {
    catch_unwind(AssertUnwindSafe(mapping)).unwrap_or_else(|_panic| {
        tracing::error!(%device, "a fault in the mapping of a message; please report it");
        Err(Refusal::InternalFault)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_the_mapping_costs_the_message() {
        let device = DeviceId::new("d").unwrap();
        assert_eq!(guarded(&device, || panic!("a fault")), Err(Refusal::InternalFault));
        assert_eq!(guarded(&device, || Err(Refusal::NotJson)), Err(Refusal::NotJson));
    }
}
