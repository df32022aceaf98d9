//! Commands at the link: what comes again gets its first answer, what is new is judged, remembered, carried out beside the
//! engine, remembered again and answered. Owns which are under way, their pace, and the audit trail of what never reached
//! the desk. Must not know what commands do.

use std::collections::{BTreeMap, VecDeque};

use futures_util::FutureExt;
use tracing::{error, warn};

use crate::model::audit::{Ended, Entry};
use crate::model::command::{Actor, Order, Origin, Verb};
use crate::model::ids::Epoch;
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::limits::COMMANDS_PER_MINUTE_MAX;
use crate::model::record::Draft;
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::north::commands::{self, Authority, COMMANDS_AT_ONCE, Judged, Task};
use crate::north::contract::{Command, CommandResult, command_result};
use crate::store::CommandSlot;

use super::shell::{Done, Shell};

/// Refused and repeated commands of one uplink that are told in the audit trail, a minute. More are counted in the next
/// that is told: a platform in a loop must not push events out of the journal.
const TOLD_PER_MINUTE_MAX: u32 = 30;

const MINUTE_MS: u64 = 60_000;

/// So many within a minute.
#[derive(Debug)]
struct Pace {
    most: usize,
    taken_ms: VecDeque<u64>,
}

impl Pace {
    fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), taken_ms: VecDeque::new() }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        while self.taken_ms.front().is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) >= MINUTE_MS) {
            self.taken_ms.pop_front();
        }
        let free = self.taken_ms.len() < self.most;
        if free {
            self.taken_ms.push_back(now_ms);
        }
        free
    }
}

/// A command that was taken: what it is, what it asks for, and when it came.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) command: Command,
    judged: Judged,
    at: Stamp,
}

/// The commands of one uplink.
#[derive(Debug)]
pub(super) struct Commands {
    authority: Authority,
    /// By id, the hash of the body.
    under_way: BTreeMap<String, [u8; 32]>,
    pace: Pace,
    told: Pace,
    untold: u64,
    /// Entries of the trail that wait until those before them are stored.
    trail: Vec<Draft>,
    storing: bool,
    /// Answers about what an earlier process had begun; they wait for a connection.
    late: Vec<CommandResult>,
}

impl Commands {
    pub(super) fn new(authority: Authority) -> Self {
        Self {
            authority,
            under_way: BTreeMap::new(),
            pace: Pace::new(COMMANDS_PER_MINUTE_MAX),
            told: Pace::new(TOLD_PER_MINUTE_MAX),
            untold: 0,
            trail: Vec::new(),
            storing: false,
            late: Vec::new(),
        }
    }
}

impl Shell {
    /// Whether something is being done that will be answered.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.under_way.is_empty()
    }

    /// A command from the platform.
    pub(super) fn take_command(&mut self, command: Command) {
        let (now, epoch) = (self.now(), self.source.epoch());
        let hash = commands::body_hash(&command);
        // First of all: what was done must not be called expired or refused when it is asked for again.
        if let Some(result) = self.recall(&command, &hash, epoch) {
            self.answer_again(&command, &result);
            return;
        }
        let judged = match commands::judge(&command, epoch, &now, &self.commands.authority) {
            Ok(judged) => judged,
            Err((refusal, result)) => return self.refuse_command(&command, refusal, &result),
        };
        let full = self.commands.under_way.len() >= COMMANDS_AT_ONCE;
        if full || !self.commands.pace.take(now.mono_ms) {
            let result = commands::not_now(&command, epoch, Refusal::QueueFull);
            return self.refuse_command(&command, Refusal::QueueFull, &result);
        }
        if let Task::Snapshot(args) = &judged.task {
            // It only reads, so that there is nothing to remember.
            let result = commands::snapshot(&command, epoch, args, &self.parts.roll, &self.wording.view);
            return self.close_command(&command, &result);
        }
        self.commands.under_way.insert(command.id.clone(), hash);
        let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
        let taken = Box::new(Taken { command, judged, at: now });
        self.side.push(
            async move {
                let slot = store.begin_command(&uplink, &taken.command.id, hash).await;
                Done::Begun { taken, slot }
            }
            .boxed(),
        );
    }

    /// The answer to a command whose id was there before; none: it is new, or nobody can say.
    fn recall(&mut self, command: &Command, hash: &[u8; 32], epoch: Epoch) -> Option<CommandResult> {
        if let Some(known) = self.commands.under_way.get(&command.id) {
            return if known == hash {
                Some(commands::accepted(command, epoch))
            } else {
                commands::remembered(command, epoch, &CommandSlot::Conflict)
            };
        }
        let slot = self.source.reader.as_ref()?.command(&self.parts.uplink, &command.id, hash);
        match slot {
            Ok(slot) => commands::remembered(command, epoch, &slot),
            Err(error) => {
                warn!(uplink = %self.parts.uplink, id = command.id, %error, "whether a command came before is not known");
                None
            }
        }
    }

    fn answer_again(&mut self, command: &Command, result: &CommandResult) {
        self.parts.metrics.refused(self.parts.uplink.as_str(), Refusal::Repeated);
        let ended = commands::ended(result, true);
        self.tell_some(&commands::entry(command, &self.parts.uplink), ended);
        self.answer(result);
    }

    fn refuse_command(&mut self, command: &Command, refusal: Refusal, result: &CommandResult) {
        self.parts.metrics.refused(self.parts.uplink.as_str(), refusal);
        self.tell_some(&commands::entry(command, &self.parts.uplink), commands::ended(result, false));
        self.answer(result);
    }

    /// A message that was no command, but bears the id of one.
    pub(super) fn refuse_unread(&mut self, result: &CommandResult) {
        let entry = commands::entry_of_unread(result, &self.parts.uplink);
        self.tell_some(&entry, commands::ended(result, false));
        self.answer(result);
    }

    /// Answers what was done here, and enters it into the trail.
    fn close_command(&mut self, command: &Command, result: &CommandResult) {
        let entry = commands::entry(command, &self.parts.uplink);
        let draft = entry.ended(&self.now(), &commands::ended(result, false));
        self.enter(draft);
        self.answer(result);
    }

    /// Enters a refused or repeated command, unless there were too many of late.
    fn tell_some(&mut self, entry: &Entry, mut ended: Ended) {
        let now = self.now();
        if !self.commands.told.take(now.mono_ms) {
            self.commands.untold = self.commands.untold.saturating_add(1);
            return;
        }
        ended.untold = std::mem::take(&mut self.commands.untold);
        self.enter(entry.ended(&now, &ended));
    }

    /// Entries go into the journal together, after those before them. Bounded by the pace of commands.
    fn enter(&mut self, draft: Draft) {
        self.commands.trail.push(draft);
        self.store_trail();
    }

    fn store_trail(&mut self) {
        if self.commands.storing || self.commands.trail.is_empty() {
            return;
        }
        self.commands.storing = true;
        let drafts = std::mem::take(&mut self.commands.trail);
        let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
        self.side.push(
            async move {
                let count = drafts.len();
                match store.append(drafts, Durability::Synced).await {
                    Ok(_) | Err(JournalError::Volatile) => {}
                    Err(error) => error!(%uplink, count, %error, "entries of the audit trail are lost"),
                }
                Done::Entered
            }
            .boxed(),
        );
    }

    pub(super) fn trail_stored(&mut self) {
        self.commands.storing = false;
        self.store_trail();
    }

    /// Sends an answer, if there is a connection to send it on; a platform repeats a command until it has one.
    pub(super) fn answer(&mut self, result: &CommandResult) {
        let now = self.now();
        let clocks = self.parts.clock.clocks();
        let message = command_result(result, &self.wording.frame(&now, &clocks));
        self.engine.say(message);
    }

    pub(super) fn command_begun(&mut self, taken: Box<Taken>, slot: Result<CommandSlot, JournalError>) {
        let epoch = self.source.epoch();
        let command = &taken.command;
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                warn!(uplink = %self.parts.uplink, id = command.id, %error, "a command was not taken");
                self.commands.under_way.remove(&command.id);
                let result = commands::not_now(command, epoch, Refusal::StoreFailed);
                return self.refuse_command(command, Refusal::StoreFailed, &result);
            }
        };
        if let Some(result) = commands::remembered(command, epoch, &slot) {
            self.commands.under_way.remove(&command.id);
            return self.answer_again(command, &result);
        }
        match taken.judged.task.clone() {
            Task::Order(verb) => self.order(taken, verb, epoch),
            Task::Replay(args) => {
                let (engine, source) = (&mut self.engine, &mut self.source);
                let result = commands::replay(command, args, epoch, engine, source);
                let entry = commands::entry(command, &self.parts.uplink);
                let draft = entry.ended(&self.now(), &commands::ended(&result, false));
                self.enter(draft);
                self.end_command(result);
            }
            Task::Snapshot(args) => {
                let result = commands::snapshot(command, epoch, &args, &self.parts.roll, &self.wording.view);
                self.end_command(result);
            }
        }
    }

    /// Hands an order to the desk, which keeps the trail of it.
    fn order(&mut self, taken: Box<Taken>, verb: Verb, epoch: Epoch) {
        let Taken { command, judged, at } = *taken;
        let uplink = self.parts.uplink.clone();
        if judged.known.takes_long() {
            self.answer(&commands::accepted(&command, epoch));
        }
        let order = Order {
            id: format!("{uplink}/{}", command.id),
            verb,
            actor: Actor {
                operator: command.operator.clone(),
                source: Origin::Platform(uplink.clone()),
                reason: command.reason.clone(),
            },
            scope: self.commands.authority.scope().clone(),
            at,
            lifetime_ms: judged.lifetime_ms,
        };
        let (perform, store) = (self.parts.perform.clone(), self.parts.store.clone());
        self.side.push(
            async move {
                let done = perform.perform(order).await;
                let result = Box::new(commands::desk_answer(&command, epoch, done));
                remember(&store, &uplink, &result).await;
                Done::Ended { result }
            }
            .boxed(),
        );
    }

    fn end_command(&mut self, result: CommandResult) {
        let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
        self.side.push(
            async move {
                remember(&store, &uplink, &result).await;
                Done::Ended { result: Box::new(result) }
            }
            .boxed(),
        );
    }

    pub(super) fn command_ended(&mut self, result: &CommandResult) {
        self.commands.under_way.remove(&result.id);
        self.answer(result);
    }

    /// What an earlier process has begun and never ended is settled: nobody knows, and it is not tried again.
    pub(super) fn settle_left_behind(&mut self) {
        let Some(reader) = &self.source.reader else { return };
        let begun = reader.begun_commands(&self.parts.uplink).unwrap_or_else(|error| {
            warn!(uplink = %self.parts.uplink, %error, "commands that a restart interrupted were not found");
            Vec::new()
        });
        let epoch = self.source.epoch();
        for id in begun {
            let result = commands::left_behind(&id, epoch);
            let entry = commands::entry_of_unread(&result, &self.parts.uplink);
            let draft = entry.ended(&self.now(), &commands::ended(&result, false));
            self.enter(draft);
            self.commands.late.push(result.clone());
            let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
            self.side.push(
                async move {
                    remember(&store, &uplink, &result).await;
                    Done::Told
                }
                .boxed(),
            );
            self.events = self.events.saturating_add(1);
        }
    }

    /// Tells the platform what became of those, now that it can be told.
    pub(super) fn answer_late(&mut self) {
        for result in std::mem::take(&mut self.commands.late) {
            self.answer(&result);
        }
    }
}

async fn remember(
    store: &crate::store::Store,
    uplink: &crate::model::ids::UplinkName,
    result: &CommandResult,
) {
    let text = commands::outcome_text(result);
    // In memory only: it follows when the disk is back.
    match store.end_command(uplink, &result.id, text).await {
        Ok(()) | Err(JournalError::Volatile) => {}
        Err(error) => warn!(%uplink, id = result.id, %error, "a command's outcome was not stored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_over_any_minute() {
        let mut pace = Pace::new(3);
        let taken: Vec<bool> = [0, 1, 2, 3, 59_999, 60_000, 60_000].map(|at_ms| pace.take(at_ms)).into();
        assert_eq!(taken, [true, true, true, false, false, true, false]);
    }
}
