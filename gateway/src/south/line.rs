//! From a device's message to the journal: whom it is about, what it says, and the commit that its acknowledgement
//! waits for (promise G1). What the embedded broker and external ones have in common; knows nothing of either.
//!
//! What must be survived: a journal that fails or is slow (nothing is acknowledged, the connection is closed, what is
//! remembered of the device stays as it was, so that the repeated press is a press), one that keeps things in memory only
//! (not acknowledged either, but it has happened: see `owed.rs`), hostile topics and payloads
//! (counted by name and acknowledged, so that they are not sent for ever), a fault in the mapping (counted; costs
//! the one message).

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::acting::Answers;
use super::device::{Device, Memory, Roster, Speaker};
use super::owed::{self, Key, Owed};
use super::profile::{Channel, DeviceState, Input, Mapped, Origin, map};
use super::topics::{check_topic, lies_under, matches};
use crate::model::ids::{BusName, DeviceId};
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::limits::{COMMIT_RECORDS_MAX, DEVICE_PAYLOAD_BYTES_MAX, DRAFTS_PER_MESSAGE_MAX};
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
    /// What is not acknowledged yet, though known: it outlives a run like the devices' memories.
    pub(super) owed: Arc<Owed>,
    /// Orders that wait for what a device says.
    pub(super) answers: Arc<Answers>,
    pub(super) commit_timeout: Duration,
}

/// Messages judged and committed together. With the most drafts that each can have they fit one commit.
pub(super) const BATCH_MAX: usize = 16;
const _: () = assert!(BATCH_MAX * DRAFTS_PER_MESSAGE_MAX <= COMMIT_RECORDS_MAX);

/// Where a message goes to.
type Targets<'a> = &'a [(Arc<Device>, Channel)];

/// One message of a batch, on its way.
#[derive(Debug, Default)]
struct Passage {
    /// Where its drafts stand among those of the batch.
    drafts: Range<usize>,
    /// It was said before and is in memory only.
    owed: Option<Key>,
    refusals: Vec<Refusal>,
    /// Refused before anything of it was looked at.
    refused: Option<Refusal>,
}

/// A device's memory while a batch is on its way: what stands, and what will stand when the drafts are on disk.
#[derive(Debug)]
struct Held<'a> {
    memory: MutexGuard<'a, Memory>,
    after: Memory,
    /// How often it spoke in this batch.
    spoke: Option<Spoke>,
}

#[derive(Debug)]
struct Spoke {
    times: u64,
    /// Of the last time.
    qos: u8,
}

impl Held<'_> {
    /// As if nothing of the batch had been looked at.
    fn begin_again(&mut self) {
        self.after = self.memory.clone();
        self.spoke = None;
    }
}

/// The devices of a batch, in the order of their ids, so that two batches cannot wait for each other.
type Devices<'a> = BTreeMap<&'a DeviceId, (&'a Device, Held<'a>)>;

impl Line {
    /// Judges a publish and, if it is taken, commits it. Counts what it refuses.
    pub(super) async fn publish(&self, source: Source<'_>, message: Message<'_>) -> Verdict {
        let verdicts = self.publish_all(source, &[message]).await;
        verdicts.first().copied().unwrap_or(Verdict::Refused(Refusal::InternalFault))
    }

    /// The same with up to [`BATCH_MAX`] messages, in their order, in one commit: a verdict for each.
    pub(super) async fn publish_all(&self, source: Source<'_>, messages: &[Message<'_>]) -> Vec<Verdict> {
        let verdicts = match self.take(source, messages).await {
            Ok(verdicts) => verdicts,
            // One of them would be refused for ever, and all that come with it: each by itself then.
            Err(Fault::Rejected) if messages.len() > 1 => {
                let mut verdicts = Vec::new();
                for message in messages {
                    verdicts.push(match self.take(source, &[*message]).await {
                        Ok(alone) => alone.first().copied().unwrap_or(Verdict::Taken),
                        Err(fault) => fault.verdict(message.qos),
                    });
                }
                verdicts
            }
            Err(fault) => messages.iter().map(|message| fault.verdict(message.qos)).collect(),
        };
        for (message, verdict) in messages.iter().zip(&verdicts) {
            match verdict {
                Verdict::Taken => self.deps.metrics.received(self.bus.as_str(), source.name),
                Verdict::Refused(reason) => {
                    tracing::debug!(
                        client = source.name,
                        topic = message.topic,
                        reason = reason.as_str(),
                        "refused"
                    );
                    self.count(source.name, *reason);
                }
                // The journal itself tells of its disk, once; devices repeat this many times a second.
                Verdict::Withheld(reason @ Refusal::StoreVolatile) => self.count(source.name, *reason),
                Verdict::Withheld(reason) => {
                    tracing::warn!(
                        client = source.name,
                        topic = message.topic,
                        reason = reason.as_str(),
                        "not acknowledged"
                    );
                    self.count(source.name, *reason);
                }
            }
        }
        verdicts
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
    fn route(&self, source: Source<'_>, message: Message<'_>) -> Result<Targets<'_>, Refusal> {
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

    async fn take(&self, source: Source<'_>, messages: &[Message<'_>]) -> Result<Vec<Verdict>, Fault> {
        let routes: Vec<_> = messages.iter().map(|message| self.route(source, *message)).collect();
        for (message, _) in messages.iter().zip(&routes).filter(|(_, route)| route.is_ok()) {
            // What a broker had kept answers an order of long ago.
            if message.origin == Origin::Live {
                self.answers.heard(message.topic, message.payload);
            }
        }
        let mut devices = self.hold(routes.iter().flatten().copied()).await?;
        let at = self.deps.clock.now();
        let (drafts, passages) = self.map_all(source, messages, &routes, &mut devices, &at);
        let reliable = messages.iter().any(|message| message.qos > 0);
        let kept = self.commit(source, drafts, reliable).await?;
        // Only what is owed is needed once more: mapping it again is cheaper than a copy of every message's drafts.
        let said = if kept == Kept::Memory && reliable {
            for (_, held) in devices.values_mut() {
                held.begin_again();
            }
            self.map_all(source, messages, &routes, &mut devices, &at).0
        } else {
            Vec::new()
        };
        self.settle(devices, &at);
        let verdict = |(message, passage): (&Message<'_>, Passage)| match kept {
            Kept::Memory if message.qos > 0 && passage.refused.is_none() => {
                let said = said.get(passage.drafts.clone()).unwrap_or_default();
                self.owe(source, *message, &passage, said, &at);
                passage.refusals.iter().for_each(|reason| self.count(source.name, *reason));
                Verdict::Withheld(Refusal::StoreVolatile)
            }
            Kept::Memory | Kept::Disk => {
                if let Some(key) = &passage.owed {
                    self.owed.settle(key);
                }
                self.judge(source, passage)
            }
        };
        Ok(messages.iter().zip(passages).map(verdict).collect())
    }

    /// What the messages say, in their order.
    fn map_all(
        &self,
        source: Source<'_>,
        messages: &[Message<'_>],
        routes: &[Result<Targets<'_>, Refusal>],
        devices: &mut Devices<'_>,
        at: &Stamp,
    ) -> (Vec<Draft>, Vec<Passage>) {
        let mut drafts = Vec::new();
        let mut passages = Vec::new();
        for (message, route) in messages.iter().zip(routes) {
            let from = drafts.len();
            let mut passage = match (self.said_before(source, *message, at), route) {
                (_, Err(reason)) => Passage { refused: Some(*reason), ..Passage::default() },
                (Some((key, said)), Ok(_)) => {
                    drafts.extend(said);
                    Passage { owed: Some(key), ..Passage::default() }
                }
                (None, Ok(targets)) => pass(devices, targets, *message, at, &mut drafts),
            };
            passage.drafts = from..drafts.len();
            passages.push(passage);
        }
        (drafts, passages)
    }

    /// The drafts of a message that is said again because it is in memory only.
    fn said_before(&self, source: Source<'_>, message: Message<'_>, at: &Stamp) -> Option<(Key, Vec<Draft>)> {
        if message.qos == 0 || self.owed.is_empty() {
            return None;
        }
        let key = owed::key(source.name, message.topic, message.payload);
        self.owed.said_before(&key, at.mono_ms).map(|drafts| (key, drafts))
    }

    /// A message is in memory only: its device will say it again.
    fn owe(&self, source: Source<'_>, message: Message<'_>, passage: &Passage, said: &[Draft], at: &Stamp) {
        if passage.owed.is_none() && !said.is_empty() {
            let key = owed::key(source.name, message.topic, message.payload);
            self.owed.note(key, said.to_vec(), message.payload.len(), at.mono_ms);
        }
    }

    /// Takes the memory of every device that the batch is about.
    async fn hold<'a>(&self, routes: impl Iterator<Item = Targets<'a>>) -> Result<Devices<'a>, Fault> {
        let mut targets: Vec<&Device> = routes.flatten().map(|(device, _)| device.as_ref()).collect();
        targets.sort_unstable_by_key(|device| device.id());
        targets.dedup_by_key(|device| device.id());
        let mut devices = Devices::new();
        for device in targets {
            let Ok(memory) = tokio::time::timeout(self.commit_timeout, device.memory.lock()).await else {
                return Err(Fault::Withheld(Refusal::StoreSlow));
            };
            let after = memory.clone();
            devices.insert(device.id(), (device, Held { memory, after, spoke: None }));
        }
        Ok(devices)
    }

    /// Commits the drafts. Events are always synced; values wait for nobody where no acknowledgement does.
    async fn commit(&self, source: Source<'_>, drafts: Vec<Draft>, reliable: bool) -> Result<Kept, Fault> {
        // What says nothing new may be said again because it is in memory only.
        if drafts.is_empty() && !(reliable && self.owed.doubts()) {
            return Ok(Kept::Disk);
        }
        let events = drafts.iter().any(|draft| !matches!(draft.body, Body::Telemetry(_)));
        let durability = if events || reliable { Durability::Synced } else { Durability::Relaxed };
        let append = self.deps.journal.append(drafts, durability);
        let committed = match tokio::time::timeout(self.commit_timeout, append).await {
            Err(_elapsed) => return Err(Fault::Withheld(Refusal::StoreSlow)),
            Ok(Err(JournalError::Full)) => return Err(Fault::Withheld(Refusal::QueueFull)),
            Ok(Err(JournalError::Rejected(why))) => {
                tracing::error!(client = source.name, why, "a message made a record that cannot be stored");
                return Err(Fault::Rejected);
            }
            // It has happened, is acted upon and told, and only its acknowledgement waits for the disk.
            Ok(Err(JournalError::Volatile)) => {
                self.owed.doubt(true);
                return Ok(Kept::Memory);
            }
            Ok(Err(error)) => {
                tracing::error!(client = source.name, %error, "a message could not be stored");
                return Err(Fault::Withheld(Refusal::StoreFailed));
            }
            Ok(Ok(committed)) => committed,
        };
        if durability == Durability::Synced {
            self.owed.doubt(false);
        }
        for _ in 0..committed.repeated {
            self.count(source.name, Refusal::Repeated);
        }
        Ok(Kept::Disk)
    }

    /// The drafts are on disk: what is remembered of the devices changes, and the board shows it.
    fn settle(&self, devices: Devices<'_>, at: &Stamp) {
        self.deps.board.update(|board| {
            for (device, held) in devices.into_values() {
                let Held { mut memory, after, spoke } = held;
                let entry = board.devices.entry(device.id().clone()).or_default();
                (entry.standing, entry.since_mono_ms) = after.watch.standing();
                *memory = after;
                let Some(Spoke { times, qos }) = spoke else { continue };
                entry.heard = Some(at.clone());
                entry.messages += times;
                if qos == 0 && device.profile.emergency() {
                    entry.warnings.insert(QOS0_WARNING.to_owned());
                } else {
                    entry.warnings.remove(QOS0_WARNING);
                }
            }
        });
    }

    /// A message of which nothing could be read is refused with its first reason; of another, the fields are.
    fn judge(&self, source: Source<'_>, passage: Passage) -> Verdict {
        if let Some(reason) = passage.refused {
            return Verdict::Refused(reason);
        }
        let whole = passage.drafts.is_empty() && passage.owed.is_none() && !passage.refusals.is_empty();
        let mut refusals = passage.refusals.into_iter();
        let first = if whole { refusals.next() } else { None };
        for reason in refusals {
            self.count(source.name, reason);
        }
        first.map_or(Verdict::Taken, Verdict::Refused)
    }
}

/// Where a batch is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Disk,
    /// The disk cannot be written.
    Memory,
}

/// Why a batch was not stored.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Later it may be.
    Withheld(Refusal),
    /// Never.
    Rejected,
}

impl Fault {
    /// Without an acknowledgement there is nothing to withhold: the message is lost, and counted.
    const fn verdict(self, qos: u8) -> Verdict {
        match self {
            Self::Withheld(reason) if qos > 0 => Verdict::Withheld(reason),
            Self::Withheld(reason) => Verdict::Refused(reason),
            Self::Rejected => Verdict::Refused(Refusal::InternalFault),
        }
    }
}

/// Maps one message for each device that it is about, and remembers what it says.
fn pass(
    devices: &mut Devices<'_>,
    targets: Targets<'_>,
    message: Message<'_>,
    at: &Stamp,
    drafts: &mut Vec<Draft>,
) -> Passage {
    let mut passage = Passage::default();
    let Message { payload, origin, qos, .. } = message;
    for (device, channel) in targets {
        let Some((_, held)) = devices.get_mut(device.id()) else { continue };
        let input = Input { channel: *channel, origin, payload, at };
        let mapped = match map_safely(device, &held.after.state, input) {
            Ok(mapped) => mapped,
            Err(reason) => {
                passage.refusals.push(reason);
                continue;
            }
        };
        for refusal in &mapped.refusals {
            tracing::debug!(device = %device.id(), pointer = refusal.pointer, reason = refusal.reason.as_str(), "a field was refused");
        }
        passage.refusals.extend(mapped.refusals.iter().map(|refusal| refusal.reason));
        let (promise, subject) = (&device.promise, &device.subject);
        // Who says whether a device can be reached is not the device, and what was kept is not said now.
        let live = origin == Origin::Live && *channel == Channel::Message;
        if let Some(reachable) = mapped.reachable {
            let (told, change) = held.after.watch.told(promise, subject, at, reachable);
            drafts.extend(told);
            held.after.watch.settle(change);
        } else if live && !payload.is_empty() {
            let (online, change) = held.after.watch.heard(promise, subject, at, &mapped.drafts);
            drafts.extend(online);
            held.after.watch.settle(change);
        }
        drafts.extend(mapped.drafts);
        held.after.state = mapped.state;
        if live {
            held.spoke = Some(Spoke { times: held.spoke.as_ref().map_or(1, |spoke| spoke.times + 1), qos });
        }
    }
    passage
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
