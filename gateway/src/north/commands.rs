//! `down/command`: what a platform may ask for. Decides whether a command is taken, once and in time (promise G10), and
//! does it. Knows no MQTT: commands come parsed, answers leave as data.
//!
//! A command runs in three steps, so that it is done at most once: [`judge`] it, remember it in the journal, then
//! [`perform`] it and remember the outcome. A crash between the last two ends as `unknown`.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::model::ids::Epoch;
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::north::contract::down::{Lease, ReplayArgs};
use crate::north::contract::{Command, CommandResult, Outcome};
use crate::north::engine::{Engine, Read, ReplayError, Source};
use crate::store::CommandSlot;

/// Commands of one uplink that are under way at once. More are answered, not done.
pub const COMMANDS_AT_ONCE: usize = 16;

/// The commands this gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Send a range of records again.
    Replay,
}

impl Known {
    pub const ALL: [Self; 1] = [Self::Replay];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Whether it may be done though nobody can say how old it is. What acts on the world may not.
    const fn harmless_when_late(self) -> bool {
        match self {
            Self::Replay => true,
        }
    }
}

/// The names of all commands, as `up/state` tells them.
pub fn names() -> Vec<String> {
    Known::ALL.iter().map(|known| known.as_str().to_owned()).collect()
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

/// Whether the command may be done: it is known, and its age, judged at this moment only, is within its lifetime.
pub fn judge(command: &Command, epoch: Epoch, now: &Stamp) -> Result<Known, Refused> {
    let refuse = |refusal: Refusal, outcome, detail: String| {
        (refusal, Box::new(answer(command, epoch, outcome, refusal.as_str(), detail)))
    };
    let Some(known) = Known::of(&command.command) else {
        let detail = format!("this version knows {}", names().join(", "));
        return Err(refuse(Refusal::CommandUnknown, Outcome::Rejected, detail));
    };
    match command.lease(now) {
        Lease::Valid { .. } => Ok(known),
        Lease::Unjudged if known.harmless_when_late() => Ok(known),
        Lease::Unjudged => {
            let detail = "the box does not know the time; issue it by the box's boot and uptime".to_owned();
            Err(refuse(Refusal::CommandNotAllowed, Outcome::Rejected, detail))
        }
        Lease::Future { by_ms } => {
            let detail = format!("issued {by_ms} ms from now; the platform's clock and the box's differ");
            Err(refuse(Refusal::CommandNotAllowed, Outcome::Rejected, detail))
        }
        Lease::Expired { age_ms } => {
            let age = age_ms.map_or_else(|| "another boot".to_owned(), |age_ms| format!("{age_ms} ms"));
            let detail = format!("age: {age}, lifetime: {} s", command.lifetime_s);
            Err(refuse(Refusal::CommandExpired, Outcome::Expired, detail))
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
    let data = result.data.clone().unwrap_or_default();
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

/// Does a command that was judged and remembered.
pub fn perform(
    known: Known,
    command: &Command,
    epoch: Epoch,
    engine: &mut Engine,
    source: &mut dyn Source,
) -> CommandResult {
    match known {
        Known::Replay => replay(command, epoch, engine, source),
    }
}

fn replay(command: &Command, epoch: Epoch, engine: &mut Engine, source: &mut dyn Source) -> CommandResult {
    let refused = |code: &str, detail: String| answer(command, epoch, Outcome::Rejected, code, detail);
    let args = match ReplayArgs::read(&command.args) {
        Ok(args) => args,
        Err((refusal, detail)) => return refused(refusal.as_str(), detail),
    };
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
mod tests {
    use super::*;
    use crate::north::contract::Issued;
    use crate::rt::clock::{Clock, ManualClock};

    const EPOCH: Epoch = Epoch(1);

    fn command(name: &str, issued: Issued) -> Command {
        Command {
            id: "c1".to_owned(),
            command: name.to_owned(),
            issued,
            lifetime_s: 60,
            operator: "li".to_owned(),
            reason: "hole".to_owned(),
            args: json!({}),
            signature: None,
        }
    }

    #[test]
    fn a_command_is_taken_in_time_or_answered() {
        let now = ManualClock::new().now();
        let wall = |by_ms: i64| Issued::Wall { ms: now.wall_ms + by_ms };
        let boxed =
            |boot: &str, mono_ms| Issued::Box { boot: crate::model::ids::BootId(boot.into()), mono_ms };
        let table = [
            ("replay", wall(-1_000), None),
            ("replay", boxed(&now.boot.0, now.mono_ms), None),
            ("replay", wall(-61_000), Some(Outcome::Expired)),
            ("replay", boxed("another", 5), Some(Outcome::Expired)),
            ("replay", wall(3_600_000), Some(Outcome::Rejected)),
            ("door.open_all", wall(0), Some(Outcome::Rejected)),
        ];
        for (name, issued, refused) in table {
            let text = format!("{name} {issued:?}");
            let judged = judge(&command(name, issued), EPOCH, &now);
            assert_eq!(judged.err().map(|(_, answer)| answer.outcome), refused, "{text}");
        }
    }

    #[test]
    fn a_repeated_command_gets_the_first_answer() {
        let command = command("replay", Issued::Wall { ms: 0 });
        let mut first = answer(&command, EPOCH, Outcome::Done, "ok", "3 records follow");
        first.data = Some(json!({ "count": 3 }));
        let slot = CommandSlot::Known { outcome: Some(outcome_text(&first)) };
        assert_eq!(remembered(&command, EPOCH, &slot), Some(first));
        let unknown = remembered(&command, EPOCH, &CommandSlot::Known { outcome: None }).unwrap();
        assert_eq!(unknown.outcome, Outcome::Unknown);
        let conflict = remembered(&command, EPOCH, &CommandSlot::Conflict).unwrap();
        assert_eq!(conflict.outcome, Outcome::Rejected);
        assert_eq!(remembered(&command, EPOCH, &CommandSlot::New), None);
    }
}
