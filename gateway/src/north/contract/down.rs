//! What a platform may say: commands, receipts, the time. Bytes from outside: bounded in size and depth, unknown
//! fields tolerated (v1 only adds), missing and wrong ones refused with a reason that names them.
//!
//! Nothing here decides whether a command is known, allowed or in time; [`Command::lease`] says what its age is.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::{CommandResult, Outcome};
use super::topics::Topics;
use super::wire::{Millis, Sequence};
use crate::model::ids::{BootId, Epoch, Seq};
use crate::model::json::too_deep;
use crate::model::limits::{DOWN_PAYLOAD_BYTES_MAX, JSON_DEPTH_MAX};
use crate::model::record::Class;
use crate::model::refusal::Refusal;
use crate::model::stamp::{ClockTrust, Stamp};

/// Longest id of a command, in bytes: it is kept and repeated in the answer.
pub const COMMAND_ID_BYTES_MAX: usize = 64;

/// Longest operator and longest reason, in characters, as schemas count.
pub const OPERATOR_CHARS_MAX: usize = 128;
pub const REASON_CHARS_MAX: usize = 1_024;

/// Longest lifetime of a command: a week covers a replay ordered before a holiday; nothing that acts lives as long.
pub const LIFETIME_S_MAX: u32 = 7 * 24 * 3_600;

/// A clock of the platform may be ahead of the box's by this much before its command counts as from the future.
pub const SKEW_MS_MAX: u64 = 60_000;

/// Longest nonce, in characters.
pub const NONCE_CHARS_MAX: usize = 64;

/// Why a message was not taken: the counted reason, and a text that names what is wrong.
pub type Refused = (Refusal, String);

/// A message from a platform.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    Command(Command),
    Receipt(Receipt),
    Time(TimeAnswer),
}

/// When a command was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    /// By the platform's wall clock: milliseconds since 1970.
    Wall { ms: i64 },
    /// By the box's own clock, as its messages told it.
    Box { boot: BootId, mono_ms: u64 },
}

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub id: String,
    pub command: String,
    pub issued: Issued,
    pub lifetime_s: u32,
    pub operator: String,
    pub reason: String,
    /// An object; empty if none was given.
    pub args: Value,
    /// Reserved.
    pub signature: Option<Value>,
}

/// How old a command is, judged once, at receipt (promise G10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Within its lifetime.
    Valid { age_ms: u64 },
    /// Past it, or issued in another boot of the box (age not known then).
    Expired { age_ms: Option<u64> },
    /// Issued later than now by more than [`SKEW_MS_MAX`].
    Future { by_ms: u64 },
    /// The box's clock is not trusted, so that nobody can say.
    Unjudged,
}

impl Command {
    /// The command's age at `now` against its lifetime.
    pub fn lease(&self, now: &Stamp) -> Lease {
        let age_ms = match &self.issued {
            Issued::Box { boot, .. } if *boot != now.boot => return Lease::Expired { age_ms: None },
            Issued::Box { mono_ms, .. } => i128::from(now.mono_ms).saturating_sub(i128::from(*mono_ms)),
            Issued::Wall { .. } if now.trust == ClockTrust::None => return Lease::Unjudged,
            Issued::Wall { ms } => i128::from(now.wall_ms).saturating_sub(i128::from(*ms)),
        };
        if age_ms < 0 {
            let by_ms = u64::try_from(age_ms.unsigned_abs()).unwrap_or(u64::MAX);
            return if by_ms > SKEW_MS_MAX { Lease::Future { by_ms } } else { Lease::Valid { age_ms: 0 } };
        }
        let age_ms = u64::try_from(age_ms).unwrap_or(u64::MAX);
        if age_ms > u64::from(self.lifetime_s).saturating_mul(1_000) {
            Lease::Expired { age_ms: Some(age_ms) }
        } else {
            Lease::Valid { age_ms }
        }
    }
}

/// Which stream a receipt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// `replay` false.
    Live,
    /// `replay` true.
    Backlog,
}

/// Up to where the platform has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub epoch: Epoch,
    pub class: Class,
    pub stream: Stream,
    pub upto: Seq,
}

/// The time, in answer to a nonce of `up/state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeAnswer {
    pub nonce: String,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

/// The arguments of the command `replay`: send these records again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayArgs {
    pub epoch: Epoch,
    pub class: Class,
    pub from: Seq,
    pub to: Seq,
}

/// Envelope of `down/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandMessage {
    /// Chosen by the platform, unique for this gateway: a repeated one is answered and not done again.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,64}$"))]
    pub id: String,
    /// What to do, one of `commands` in `up/state`.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_.]{0,63}$"))]
    pub command: String,
    /// When it was issued.
    pub issued: IssuedMessage,
    /// Seconds after which it must not be done any more.
    #[schemars(range(min = 1, max = 604_800))]
    pub lifetime_s: u32,
    /// Who orders it: an account or a person's number at the platform. Kept in the audit.
    #[schemars(length(min = 1, max = 128))]
    pub operator: String,
    /// Why. Kept in the audit.
    #[schemars(length(min = 1, max = 1_024))]
    pub reason: String,
    /// Arguments of the command.
    #[serde(default, deserialize_with = "each_once", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub args: Option<Map<String, Value>>,
    /// Reserved for a signature over the command; not checked by v1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Value>,
}

/// Arguments, each once: of two of one name, one would be done and the other be thought to be.
fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    struct Args;

    impl<'de> Visitor<'de> for Args {
        type Value = Option<Map<String, Value>>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("`args` to be an object")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Self::Value, A::Error> {
            let mut args = Map::new();
            while let Some((name, value)) = given.next_entry::<String, Value>()? {
                if args.contains_key(&name) {
                    return Err(A::Error::custom(format!("`args` holds {name:?} twice")));
                }
                args.insert(name, value);
            }
            Ok(Some(args))
        }
    }

    deserializer.deserialize_any(Args)
}

/// When a command was issued: by the platform's clock (`time`), or by the box's own (`bootid` and `monotonic` as
/// the box's messages tell them), which also works while the box's clock is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuedMessage {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<String>,
    /// The box's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub bootid: Option<String>,
    /// Milliseconds since that boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic: Option<Millis>,
}

/// Message on `down/receipt`: everything of this class and stream up to here is stored for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptMessage {
    /// The epoch of the records.
    #[schemars(regex(pattern = r"^[0-9a-f]{16}$"))]
    pub epoch: String,
    pub class: Class,
    pub stream: Stream,
    /// The highest number up to which everything that came in this stream is stored.
    pub upto: Sequence,
}

/// Message on `down/time`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeMessage {
    /// The nonce of `clock` in `up/state`.
    #[schemars(length(min = 1, max = 64))]
    pub nonce: String,
    /// The platform's time at the moment of the answer, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
}

/// `args` of the command `replay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayMessage {
    /// The epoch of the records.
    #[schemars(regex(pattern = r"^[0-9a-f]{16}$"))]
    pub epoch: String,
    pub class: Class,
    /// First number.
    pub from: Sequence,
    /// Last number.
    pub to: Sequence,
}

pub(super) fn malformed(text: impl Into<String>) -> Refused {
    (Refusal::DownMalformed, text.into())
}

/// Reads a message from a platform. `retained` is the flag of its delivery: what was retained is old, and refused.
pub fn parse_down(topics: &Topics, topic: &str, payload: &[u8], retained: bool) -> Result<Down, Refused> {
    let kinds: [(String, Parser); 3] = [
        (topics.down_command(), |text| parse_command(text).map(Down::Command)),
        (topics.down_receipt(), |text| parse_receipt(text).map(Down::Receipt)),
        (topics.down_time(), |text| parse_time(text).map(Down::Time)),
    ];
    let Some((_, parse)) = kinds.iter().find(|(known, _)| known == topic) else {
        return Err((Refusal::TopicUnknown, "down/command, down/receipt and down/time are known".to_owned()));
    };
    let text = bounded(payload)?;
    if retained {
        let why = "the message was retained and so of unknown age; publish it without the retain flag";
        return Err((Refusal::DownRetained, why.to_owned()));
    }
    parse(text)
}

type Parser = fn(&str) -> Result<Down, Refused>;

/// The payload as text within the limits of size and depth.
fn bounded(payload: &[u8]) -> Result<&str, Refused> {
    if payload.len() > DOWN_PAYLOAD_BYTES_MAX {
        let text = format!("{} bytes; at most {DOWN_PAYLOAD_BYTES_MAX} are taken", payload.len());
        return Err((Refusal::DownTooLarge, text));
    }
    let text = std::str::from_utf8(payload)
        .map_err(|error| (Refusal::NotUtf8, format!("the payload is not UTF-8: {error}")))?;
    if too_deep(text.as_bytes()) {
        return Err((Refusal::JsonTooDeep, format!("nested deeper than {JSON_DEPTH_MAX} levels")));
    }
    Ok(text)
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refused> {
    serde_json::from_str(text).map_err(|error| {
        let reason = if error.is_data() { Refusal::DownMalformed } else { Refusal::NotJson };
        (reason, error.to_string())
    })
}

/// A text for people and logs: not empty, bounded, without control characters.
pub(super) fn plain(name: &str, text: &str, chars_max: usize) -> Result<(), Refused> {
    if text.trim().is_empty() || text.chars().count() > chars_max {
        return Err(malformed(format!("`{name}` is blank or has more than {chars_max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(malformed(format!("`{name}` holds a control character")));
    }
    Ok(())
}

fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    !text.is_empty() && text.len() <= COMMAND_ID_BYTES_MAX && text.bytes().all(plain)
}

fn is_command_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
    text.len() <= COMMAND_ID_BYTES_MAX
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && text.bytes().all(plain)
}

fn parse_command(text: &str) -> Result<Command, Refused> {
    let message: CommandMessage = json(text)?;
    if !is_id(&message.id) {
        return Err(malformed("`id` is 1 to 64 letters, digits, '.', '_', ':' or '-'"));
    }
    if !is_command_name(&message.command) {
        return Err(malformed(
            "`command` is a name of 1 to 64 of a-z, 0-9, '_' and '.', beginning with a letter",
        ));
    }
    if !(1..=LIFETIME_S_MAX).contains(&message.lifetime_s) {
        return Err(malformed(format!("`lifetime_s` is 1 to {LIFETIME_S_MAX}")));
    }
    plain("operator", &message.operator, OPERATOR_CHARS_MAX)?;
    plain("reason", &message.reason, REASON_CHARS_MAX)?;
    Ok(Command {
        id: message.id,
        command: message.command,
        issued: issued(&message.issued)?,
        lifetime_s: message.lifetime_s,
        operator: message.operator,
        reason: message.reason,
        args: Value::Object(message.args.unwrap_or_default()),
        signature: message.signature,
    })
}

fn issued(message: &IssuedMessage) -> Result<Issued, Refused> {
    match (&message.time, &message.bootid, message.monotonic) {
        (None, Some(boot), Some(mono)) => {
            let plain =
                boot.len() == 32 && boot.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !plain {
                return Err(malformed("`issued.bootid` is 32 lower-case hexadecimal digits"));
            }
            Ok(Issued::Box { boot: BootId(boot.as_str().into()), mono_ms: mono.0 })
        }
        (Some(time), None, None) => Ok(Issued::Wall { ms: wall_ms("issued.time", time)? }),
        _ => Err(malformed("`issued` holds either `time`, or `bootid` and `monotonic`")),
    }
}

fn wall_ms(name: &str, text: &str) -> Result<i64, Refused> {
    let time: Timestamp = text
        .parse()
        .map_err(|error| malformed(format!("`{name}` is no RFC 3339 time with an offset: {error}")))?;
    Ok(time.as_millisecond())
}

fn epoch(name: &str, text: String) -> Result<Epoch, Refused> {
    Epoch::try_from(text).map_err(|error| malformed(format!("`{name}`: {error}")))
}

fn parse_receipt(text: &str) -> Result<Receipt, Refused> {
    let message: ReceiptMessage = json(text)?;
    Ok(Receipt {
        epoch: epoch("epoch", message.epoch)?,
        class: message.class,
        stream: message.stream,
        upto: message.upto.0,
    })
}

fn parse_time(text: &str) -> Result<TimeAnswer, Refused> {
    let message: TimeMessage = json(text)?;
    plain("nonce", &message.nonce, NONCE_CHARS_MAX)?;
    Ok(TimeAnswer { wall_ms: wall_ms("time", &message.time)?, nonce: message.nonce })
}

impl ReplayArgs {
    /// Reads the arguments of a command `replay`.
    pub fn read(args: &Value) -> Result<Self, Refused> {
        let message =
            ReplayMessage::deserialize(args).map_err(|error| malformed(format!("`args`: {error}")))?;
        if message.from.0 == 0 || message.from > message.to {
            return Err(malformed("`args.from` is 1 or more and not above `args.to`"));
        }
        Ok(Self {
            epoch: epoch("args.epoch", message.epoch)?,
            class: message.class,
            from: message.from.0,
            to: message.to.0,
        })
    }
}

/// The answer to a command that was refused before it was read: none when it bears no id to answer to, or is no
/// command. A refused command is answered too, so that nobody waits for it.
pub fn answer_to_refused(
    topics: &Topics,
    topic: &str,
    payload: &[u8],
    refused: &Refused,
    epoch: Epoch,
) -> Option<CommandResult> {
    /// The two fields that an answer needs; the rest may be of any kind.
    #[derive(Deserialize)]
    struct Named {
        id: String,
        #[serde(default)]
        command: Value,
    }
    if topic != topics.down_command() {
        return None;
    }
    // Also what is too large, too deep or not UTF-8 elsewhere may bear an id: the rest is passed over and not kept.
    let named: Named = serde_json::from_slice(payload).ok()?;
    let command = named.command.as_str().filter(|name| is_command_name(name)).unwrap_or_default().to_owned();
    is_id(&named.id).then(|| CommandResult {
        id: named.id,
        command,
        epoch,
        outcome: Outcome::Rejected,
        code: refused.0.as_str().to_owned(),
        detail: refused.1.clone(),
        data: None,
    })
}

/// For the fuzzer: any bytes on any of the topics end as a message or a refusal, and what was taken keeps its promises.
pub fn fuzz(bytes: &[u8]) {
    let Ok(gateway) = crate::model::ids::GatewayName::new("fuzz") else { return };
    let topics = Topics::new("fuzz", &gateway);
    let epoch = Epoch(1);
    for topic in [topics.down_command(), topics.down_receipt(), topics.down_time()] {
        match parse_down(&topics, &topic, bytes, false) {
            Ok(Down::Command(command)) => {
                assert!(is_id(&command.id) && command.args.is_object(), "{command:?}");
                let replay = ReplayArgs::read(&command.args);
                assert!(replay.is_err() || replay.is_ok_and(|range| range.from <= range.to));
                crate::north::commands::fuzz(&command);
            }
            Ok(Down::Receipt(_) | Down::Time(_)) => {}
            Err(refused) => {
                assert!(!refused.1.is_empty(), "a refusal explains itself");
                let answer = answer_to_refused(&topics, &topic, bytes, &refused, epoch);
                assert!(answer.is_none_or(|answer| is_id(&answer.id)));
            }
        }
    }
}
