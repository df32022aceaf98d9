//! `down/command`: what a platform may ask for. Decides whether a command is taken, once and in time (promise G10), and
//! does it. Knows no MQTT: commands come parsed, answers leave as data.
//!
//! A command runs in three steps, so that it is done at most once: [`judge`] it, remember it in the journal, then do it and
//! remember the outcome. A crash between the last two ends as `unknown`.

pub mod authority;
mod known;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::model::audit::{Ended, Entry};
use crate::model::command::{Actor, AlarmVerb, Done, End, Origin, Verb};
use crate::model::ids::{Epoch, UplinkName};
use crate::model::record::Body;
use crate::model::refusal::Refusal;
use crate::model::roll::{Listed, Roll};
use crate::model::stamp::Stamp;
use crate::north::contract::down::{Lease, ReplayArgs};
use crate::north::contract::orders::{self, SnapshotArgs};
use crate::north::contract::status::alarm_in_short;
use crate::north::contract::{Command, CommandResult, OpenAlarm, Outcome, View};
use crate::north::engine::{Engine, Read, ReplayError, Source};
use crate::store::CommandSlot;
pub use authority::Authority;
pub use known::Known;

/// Commands of one uplink that are under way at once. More are answered, not done.
pub const COMMANDS_AT_ONCE: usize = 16;

/// Most data of an answer that is remembered with it. A repetition of a longer one gets the answer without.
const DATA_BYTES_MAX: usize = 4 * 1024;

/// Alarms of one answer, in bytes: with its envelope it must fit a message.
const PAGE_BYTES_MAX: usize = 12 * 1024;

/// What a command that may be done asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Send records again: the engine's own.
    Replay(ReplayArgs),
    /// The open alarms that this platform may see.
    Snapshot(SnapshotArgs),
    /// What the desk carries out.
    Order(Verb),
}

/// A command that may be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub known: Known,
    pub task: Task,
    /// What is left of its life.
    pub lifetime_ms: u64,
}

/// An answer of this epoch.
fn answer(
    command: &Command,
    epoch: Epoch,
    outcome: Outcome,
    code: &str,
    detail: impl Into<String>,
) -> CommandResult {
    CommandResult {
        id: command.id.clone(),
        command: command.command.clone(),
        epoch,
        outcome,
        code: code.to_owned(),
        detail: detail.into(),
        data: None,
    }
}

/// A refusal and its answer.
pub type Refused = (Refusal, Box<CommandResult>);

/// Whether the command may be done: it is known and allowed, its age, judged at this moment only, is within its lifetime,
/// and its arguments make sense.
pub fn judge(command: &Command, epoch: Epoch, now: &Stamp, authority: &Authority) -> Result<Judged, Refused> {
    let refuse = |refusal: Refusal, outcome, detail: String| {
        (refusal, Box::new(answer(command, epoch, outcome, refusal.as_str(), detail)))
    };
    let Some(known) = Known::of(&command.command) else {
        let detail = format!("you may give {}", authority.names().join(", "));
        return Err(refuse(Refusal::CommandUnknown, Outcome::Rejected, detail));
    };
    if !authority.allows(known) {
        let detail = format!("not for you; you may give {}", authority.names().join(", "));
        return Err(refuse(Refusal::CommandNotAllowed, Outcome::Rejected, detail));
    }
    let most_s = known.lifetime_s_max().unwrap_or(u32::MAX);
    let command = &Command { lifetime_s: command.lifetime_s.min(most_s), ..command.clone() };
    let lifetime_ms = u64::from(command.lifetime_s).saturating_mul(1_000);
    let lifetime_ms = match command.lease(now) {
        Lease::Valid { age_ms } => lifetime_ms.saturating_sub(age_ms),
        Lease::Unjudged if known.harmless_when_late() => lifetime_ms,
        Lease::Unjudged => {
            let detail = "the box does not know the time; issue it by the box's boot and uptime".to_owned();
            return Err(refuse(Refusal::CommandNotAllowed, Outcome::Rejected, detail));
        }
        Lease::Future { by_ms } => {
            let detail = format!("issued {by_ms} ms from now; the platform's clock and the box's differ");
            return Err(refuse(Refusal::CommandNotAllowed, Outcome::Rejected, detail));
        }
        Lease::Expired { age_ms } => {
            let age = age_ms.map_or_else(|| "another boot".to_owned(), |age_ms| format!("{age_ms} ms"));
            let detail = format!("age: {age}, lifetime: {} s", command.lifetime_s);
            return Err(refuse(Refusal::CommandExpired, Outcome::Expired, detail));
        }
    };
    let task =
        task(known, &command.args).map_err(|(refusal, detail)| refuse(refusal, Outcome::Rejected, detail))?;
    Ok(Judged { known, task, lifetime_ms })
}

fn task(known: Known, args: &Value) -> Result<Task, (Refusal, String)> {
    let alarm = |act| orders::alarm(args, act);
    let verb = match known {
        Known::Replay => return ReplayArgs::read(args).map(Task::Replay),
        Known::Snapshot => return orders::snapshot(args).map(Task::Snapshot),
        Known::Acknowledge => alarm(AlarmVerb::Acknowledge),
        Known::Assign => orders::assign(args),
        Known::Handle => orders::handle(args),
        Known::Close => alarm(AlarmVerb::Close),
        Known::Shelve => orders::shelve(args),
        Known::Unshelve => alarm(AlarmVerb::Unshelve),
        Known::OutOfService => alarm(AlarmVerb::TakeOutOfService),
        Known::InService => alarm(AlarmVerb::ReturnToService),
        Known::Speak => orders::speak(args),
        Known::Hush => orders::hush(args),
        Known::OpenDoor => orders::open_door(args),
        Known::ResetDoor => orders::reset_door(args),
        Known::Relay => orders::relay(args),
        Known::Set => orders::set(args),
        Known::Diagnose => orders::diagnose(args),
        Known::PutRules => orders::put_rules(args),
    };
    verb.map(Task::Order)
}

/// For the fuzzer: any arguments of any command end as a task or a refusal that explains itself.
pub fn fuzz(command: &Command) {
    for known in Known::ALL {
        match task(known, &command.args) {
            Ok(Task::Order(verb)) => assert_eq!(verb.name(), known.as_str(), "a command means another one"),
            Ok(Task::Replay(_) | Task::Snapshot(_)) => {}
            Err((_, detail)) => assert!(!detail.is_empty(), "a refusal explains itself"),
        }
    }
}

/// What of a command must not differ when its id comes again.
pub fn body_hash(command: &Command) -> [u8; 32] {
    let issued = format!("{:?}", command.issued);
    let body = json!([command.command, command.args, command.lifetime_s, issued, command.operator]);
    Sha256::digest(body.to_string().as_bytes()).into()
}

/// The answer that the journal's memory gives without doing anything; none when the command is new.
pub fn remembered(command: &Command, epoch: Epoch, slot: &CommandSlot) -> Option<CommandResult> {
    match slot {
        CommandSlot::New => None,
        CommandSlot::Known { outcome: Some(text) } => {
            Some(recall(command, epoch, text).unwrap_or_else(|| {
                answer(command, epoch, Outcome::Unknown, "unknown", "its outcome cannot be read")
            }))
        }
        CommandSlot::Known { outcome: None } => {
            let detail = "begun before, and not known to be done; it is not tried again";
            Some(answer(command, epoch, Outcome::Unknown, "unknown", detail))
        }
        CommandSlot::Conflict => {
            let detail = "another command had this id; give each its own";
            Some(answer(command, epoch, Outcome::Rejected, Refusal::CommandNotAllowed.as_str(), detail))
        }
    }
}

/// The answer while the journal cannot remember commands, or too many are under way: nothing was done.
pub fn not_now(command: &Command, epoch: Epoch, refusal: Refusal) -> CommandResult {
    answer(command, epoch, Outcome::Rejected, refusal.as_str(), not_now_detail(refusal))
}

fn not_now_detail(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::StoreFailed => {
            "the journal cannot be written, so the command could be done twice; nothing was done"
        }
        _ => "nothing was done; try again later",
    }
}

/// An outcome as the journal keeps it.
pub fn outcome_text(result: &CommandResult) -> String {
    let data =
        result.data.clone().filter(|data| data.to_string().len() <= DATA_BYTES_MAX).unwrap_or_default();
    json!({ "outcome": result.outcome, "code": result.code, "detail": result.detail, "data": data })
        .to_string()
}

fn recall(command: &Command, epoch: Epoch, text: &str) -> Option<CommandResult> {
    let kept: serde_json::Value = serde_json::from_str(text).ok()?;
    let outcome = serde_json::from_value(kept.get("outcome")?.clone()).ok()?;
    let detail = kept.get("detail")?.as_str()?;
    let mut result = answer(command, epoch, outcome, kept.get("code")?.as_str()?, detail);
    result.data = kept.get("data").filter(|data| !data.is_null()).cloned();
    Some(result)
}

/// The answer that the desk's makes.
pub fn desk_answer(command: &Command, epoch: Epoch, done: Done) -> CommandResult {
    let outcome = match done.end {
        End::Done => Outcome::Done,
        End::Failed => Outcome::Failed,
        End::Rejected => Outcome::Rejected,
        End::Expired => Outcome::Expired,
        End::Unknown => Outcome::Unknown,
    };
    let mut result = answer(command, epoch, outcome, &done.code, done.detail);
    result.data = done.data;
    result
}

/// The answer to a command that is taken and not done yet.
pub fn accepted(command: &Command, epoch: Epoch) -> CommandResult {
    answer(command, epoch, Outcome::Accepted, "ok", "another answer follows")
}

/// The answer about a command that was begun before this process, and never ended.
pub fn left_behind(id: &str, epoch: Epoch) -> CommandResult {
    CommandResult {
        id: id.to_owned(),
        command: String::new(),
        epoch,
        outcome: Outcome::Unknown,
        code: "unknown".to_owned(),
        detail: "begun before a restart, and not known to be done; it is not tried again".to_owned(),
        data: None,
    }
}

/// What the audit trail says of a command.
pub fn entry(command: &Command, uplink: &UplinkName) -> Entry {
    Entry {
        command: command.id.clone(),
        verb: command.command.clone(),
        actor: Actor {
            operator: command.operator.clone(),
            source: Origin::Platform(uplink.clone()),
            reason: command.reason.clone(),
        },
        args: command.args.to_string(),
    }
}

/// The same of what could not be read further than its id.
pub fn entry_of_unread(result: &CommandResult, uplink: &UplinkName) -> Entry {
    let unread = || "?".to_owned();
    Entry {
        command: result.id.clone(),
        verb: if result.command.is_empty() { unread() } else { result.command.clone() },
        actor: Actor { operator: unread(), source: Origin::Platform(uplink.clone()), reason: unread() },
        args: String::new(),
    }
}

/// How the audit trail says that it ended.
pub fn ended(result: &CommandResult, repeated: bool) -> Ended {
    Ended {
        outcome: result.outcome.as_str().to_owned(),
        code: result.code.clone(),
        detail: result.detail.clone(),
        repeated,
        untold: 0,
    }
}

/// The open alarms that this platform may see, a page of them.
pub fn snapshot(
    command: &Command,
    epoch: Epoch,
    args: &SnapshotArgs,
    roll: &Roll,
    view: &View,
) -> CommandResult {
    let after = args.after.as_deref().unwrap_or_default();
    let seen: Vec<Listed> = roll
        .open()
        .into_iter()
        .filter(|listed| view.sees_body(&Body::Alarm(Box::new(listed.alarm.clone()))))
        .collect();
    let (mut alarms, mut bytes, mut next) = (Vec::new(), 0_usize, None);
    for listed in seen.iter().filter(|listed| listed.alarm.alarm.as_str() > after) {
        let open = OpenAlarm { seq: listed.seq, test: listed.test, alarm: listed.alarm.clone() };
        let mut short = serde_json::to_value(alarm_in_short(&open)).unwrap_or_default();
        if let (true, Value::Object(short)) = (listed.test, &mut short) {
            short.insert("test".to_owned(), true.into());
        }
        bytes = bytes.saturating_add(short.to_string().len());
        if !alarms.is_empty() && (alarms.len() >= args.max as usize || bytes > PAGE_BYTES_MAX) {
            break;
        }
        next = Some(listed.alarm.alarm.clone());
        alarms.push(short);
    }
    let more = seen.last().is_some_and(|last| next.as_ref().is_some_and(|next| last.alarm.alarm > *next));
    let detail = format!("{} of {} open alarms", alarms.len(), seen.len());
    let mut result = answer(command, epoch, Outcome::Done, "ok", detail);
    result.data = Some(json!({ "open": seen.len(), "alarms": alarms, "next": next.filter(|_| more) }));
    result
}

/// Sends records again: the first step of it, the engine does the rest.
pub fn replay(
    command: &Command,
    args: ReplayArgs,
    epoch: Epoch,
    engine: &mut Engine,
    source: &mut dyn Source,
) -> CommandResult {
    let refused = |code: &str, detail: String| answer(command, epoch, Outcome::Rejected, code, detail);
    // Numbers mean something only within their journal.
    match source.read(args.class, args.from, args.to, 1, 0) {
        Err(error) => return answer(command, epoch, Outcome::Failed, "store_failed", error.to_string()),
        Ok(reads) => {
            if let Some(Read::Record(first)) = reads.first()
                && first.epoch != args.epoch
            {
                let detail = format!("these numbers belong to epoch {} here", first.epoch);
                return refused(Refusal::OutOfRange.as_str(), detail);
            }
        }
    }
    match engine.replay(args.class, args.from, args.to) {
        Ok(replay) => {
            let range =
                |range: &crate::model::cursor::SeqRange| json!({ "from": range.from, "to": range.to });
            let missing: Vec<_> = replay.missing.iter().map(range).collect();
            let detail = format!("{} records follow", replay.count);
            let mut result = answer(command, epoch, Outcome::Done, "ok", detail);
            result.data = Some(
                json!({ "range": replay.range.as_ref().map(range), "count": replay.count, "missing": missing }),
            );
            result
        }
        Err(error @ ReplayError::NotAdmitted(_)) => {
            refused(Refusal::CommandNotAllowed.as_str(), error.to_string())
        }
        Err(error) => refused(Refusal::OutOfRange.as_str(), error.to_string()),
    }
}

#[cfg(test)]
mod tests;
