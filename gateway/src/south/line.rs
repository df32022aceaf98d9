//! From a device's message to the journal: whom it is about, what it says, and the commit that its acknowledgement
//! waits for (promise G1). What the embedded broker and external ones have in common; knows nothing of either.
//!
//! What must be survived: a journal that fails or is slow (nothing is acknowledged, the connection is closed, what is
//! remembered of the device stays as it was, so that the repeated press is a press), hostile topics and payloads
//! (counted by name and acknowledged, so that they are not sent for ever), a fault in the mapping (counted; costs
//! the one message).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::device::{Device, Memory, Roster, Speaker};
use super::freshness::Change;
use super::profile::{Channel, DeviceState, Input, Mapped, Origin, map};
use super::topics::{check_topic, lies_under, matches};
use crate::model::ids::{BusName, DeviceId};
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::limits::DEVICE_PAYLOAD_BYTES_MAX;
use crate::model::record::{Body, Draft};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::rt::board::Board;
use crate::rt::clock::SharedClock;
use crate::rt::metrics::Metrics;

/// What stands in `status` for an emergency device that publishes at QoS 0.
pub const QOS0_WARNING: &str =
    "publishes at QoS 0: a press is lost when the network hiccups; set qos: 1 (docs/devices.md)";

/// What a driver works with.
#[derive(Debug, Clone)]
pub struct Deps {
    pub journal: Arc<dyn Journal>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
}

/// Who publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// What its refusals are counted under.
    pub(super) name: &'a str,
    pub(super) speaker: &'a Speaker,
    /// It may only publish under this topic; none where somebody else has seen to that.
    pub(super) base: Option<&'a str>,
}

/// One publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: u8,
    pub(super) origin: Origin,
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

/// The way from a broker to the journal.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) bus: BusName,
    pub(super) roster: Arc<Roster>,
    pub(super) deps: Deps,
    pub(super) commit_timeout: Duration,
}

/// What one device's part of a message comes to.
struct Heard<'a> {
    memory: MutexGuard<'a, Memory>,
    state: DeviceState,
    changes: Vec<Change>,
}

/// All drafts of a message, and what to remember when they are on disk.
#[derive(Default)]
struct Taken<'a> {
    drafts: Vec<Draft>,
    refusals: Vec<Refusal>,
    heard: Vec<Heard<'a>>,
}

impl Line {
    /// Judges a publish and, if it is taken, commits it. Counts what it refuses.
    pub(super) async fn publish(&self, source: Source<'_>, message: Message<'_>) -> Verdict {
        let verdict = match self.route(source, message) {
            Ok(targets) => self.take(source, message, targets).await,
            Err(reason) => Verdict::Refused(reason),
        };
        match verdict {
            Verdict::Taken => self.deps.metrics.received(self.bus.as_str(), source.name),
            Verdict::Refused(reason) => {
                tracing::debug!(
                    client = source.name,
                    topic = message.topic,
                    reason = reason.as_str(),
                    "refused"
                );
                self.count(source.name, reason);
            }
            Verdict::Withheld(reason) => {
                tracing::warn!(
                    client = source.name,
                    topic = message.topic,
                    reason = reason.as_str(),
                    "not acknowledged"
                );
                self.count(source.name, reason);
            }
        }
        verdict
    }

    pub(super) fn count(&self, source: &str, reason: Refusal) {
        self.deps.metrics.refused(source, reason);
    }

    /// Shows every device as not heard yet, also where its bus does not work.
    pub(super) fn post_devices(&self) {
        self.deps.board.update(|board| {
            for device in self.roster.devices() {
                let entry = board.devices.entry(device.id().clone()).or_default();
                entry.kind.clone_from(&device.profile.kind);
            }
        });
    }

    /// Whom the message is about; nobody if it is one of those that are not needed.
    fn route(&self, source: Source<'_>, message: Message<'_>) -> Result<&[(Arc<Device>, Channel)], Refusal> {
        check_topic(message.topic)?;
        if source.base.is_some_and(|base| !lies_under(base, message.topic)) {
            return Err(Refusal::TopicNotOwned);
        }
        let targets = self.roster.route(message.topic);
        let ignored =
            || self.roster.ignored(source.speaker).iter().any(|filter| matches(filter, message.topic));
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
        source: Source<'_>,
        message: Message<'_>,
        targets: &[(Arc<Device>, Channel)],
    ) -> Verdict {
        let at = self.deps.clock.now();
        let mut taken = Taken::default();
        // Always in the order of device ids, so that two messages cannot wait for each other.
        for (device, channel) in targets {
            let Ok(memory) = tokio::time::timeout(self.commit_timeout, device.memory.lock()).await else {
                return Verdict::Withheld(Refusal::StoreSlow);
            };
            let Message { payload, origin, .. } = message;
            match map_safely(device, &memory.state, Input { channel: *channel, origin, payload, at: &at }) {
                Ok(mapped) => taken.add(device, message, (memory, mapped), &at),
                Err(reason) => taken.refusals.push(reason),
            }
        }
        let empty = taken.drafts.is_empty();
        if let Err(verdict) = self.commit(source, taken.drafts, message.qos).await {
            return verdict;
        }
        for heard in taken.heard {
            let mut memory = heard.memory;
            memory.state = heard.state;
            heard.changes.into_iter().for_each(|change| memory.watch.settle(change));
        }
        // A message of which nothing could be read is refused with its first reason; of another, the fields are.
        if let (true, Some((first, others))) = (empty, taken.refusals.split_first()) {
            for reason in others {
                self.count(source.name, *reason);
            }
            return Verdict::Refused(*first);
        }
        for reason in taken.refusals {
            self.count(source.name, reason);
        }
        self.note_heard(targets, &at, message).await;
        Verdict::Taken
    }

    /// Commits the drafts. Events are always synced; values at QoS 0 wait for nobody.
    async fn commit(&self, source: Source<'_>, drafts: Vec<Draft>, qos: u8) -> Result<(), Verdict> {
        if drafts.is_empty() {
            return Ok(());
        }
        // Without an acknowledgement there is nothing to withhold: the message is lost, and counted.
        let failed = |reason| if qos > 0 { Verdict::Withheld(reason) } else { Verdict::Refused(reason) };
        let events = drafts.iter().any(|draft| !matches!(draft.body, Body::Telemetry(_)));
        let durability = if events || qos > 0 { Durability::Synced } else { Durability::Relaxed };
        let append = self.deps.journal.append(drafts, durability);
        let committed = match tokio::time::timeout(self.commit_timeout, append).await {
            Err(_elapsed) => return Err(failed(Refusal::StoreSlow)),
            Ok(Err(JournalError::Full)) => return Err(failed(Refusal::QueueFull)),
            // It would be refused for ever, and everything behind it would wait.
            Ok(Err(JournalError::Rejected(why))) => {
                tracing::error!(client = source.name, why, "a message made a record that cannot be stored");
                return Err(Verdict::Refused(Refusal::InternalFault));
            }
            Ok(Err(error)) => {
                tracing::error!(client = source.name, %error, "a message could not be stored");
                return Err(failed(Refusal::StoreFailed));
            }
            Ok(Ok(committed)) => committed,
        };
        for _ in 0..committed.repeated {
            self.count(source.name, Refusal::Repeated);
        }
        Ok(())
    }

    async fn note_heard(&self, targets: &[(Arc<Device>, Channel)], at: &Stamp, message: Message<'_>) {
        for (device, channel) in targets {
            let (standing, since_mono_ms) = device.memory.lock().await.watch.standing();
            self.deps.board.update(|board| {
                let entry = board.devices.entry(device.id().clone()).or_default();
                (entry.standing, entry.since_mono_ms) = (standing, since_mono_ms);
                // Who says that a device cannot be reached is not the device, and what was kept is not said now.
                if *channel != Channel::Message || message.origin == Origin::Kept {
                    return;
                }
                entry.heard = Some(at.clone());
                entry.messages += 1;
                if message.qos == 0 && device.profile.emergency() {
                    entry.warnings.insert(QOS0_WARNING.to_owned());
                } else {
                    entry.warnings.remove(QOS0_WARNING);
                }
            });
        }
    }
}

impl<'a> Taken<'a> {
    fn add(
        &mut self,
        device: &Device,
        message: Message<'_>,
        (memory, mapped): (MutexGuard<'a, Memory>, Mapped),
        at: &Stamp,
    ) {
        let mut changes = Vec::new();
        let Mapped { drafts, refusals, reachable, state } = mapped;
        for refusal in &refusals {
            tracing::debug!(device = %device.id(), pointer = refusal.pointer, reason = refusal.reason.as_str(), "a field was refused");
        }
        self.refusals.extend(refusals.iter().map(|refusal| refusal.reason));
        let (promise, subject) = (&device.promise, &device.subject);
        if let Some(reachable) = reachable {
            let (told, change) = memory.watch.told(promise, subject, at, reachable);
            self.drafts.extend(told);
            changes.push(change);
        } else if message.origin == Origin::Live && !message.payload.is_empty() {
            let (online, change) = memory.watch.heard(promise, subject, at, &drafts);
            self.drafts.extend(online);
            changes.push(change);
        }
        self.drafts.extend(drafts);
        self.heard.push(Heard { memory, state, changes });
    }
}

/// Maps a message of a device.
fn map_safely(device: &Device, state: &DeviceState, input: Input<'_>) -> Result<Mapped, Refusal> {
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
