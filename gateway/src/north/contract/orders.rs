//! Arguments of commands, as they stand in `args`. What a command does not know it refuses, since a platform that asks
//! for more than is done would be told that it was done; the schemas stay open all the same.
//!
//! The doc comments become descriptions in the schemas: they speak to a platform's engineer.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::down::{Refused, malformed, plain};
use crate::model::alarm::HandlingResult;
use crate::model::command::{AlarmVerb, Verb};
use crate::model::ids::{DeviceId, PointName};
use crate::model::record;

/// Longest name of an alarm, in characters like all that follow: an epoch, a position and a rule.
const ALARM_CHARS_MAX: usize = 160;
/// Longest assignee, tag, name of a clip and text value.
const NAME_CHARS_MAX: usize = 128;
/// Longest note of a handled alarm and longest text to speak. Speakers may take less.
const TEXT_CHARS_MAX: usize = 500;
/// Speakers and tags of one command.
const SPEAKERS_MAX: usize = 64;
const TAGS_MAX: usize = 16;
/// Longest time on the shelf: a week. What is to rest longer is taken out of service.
const SHELVE_S_MAX: u64 = 7 * 24 * 3_600;
const SHELVE_S_MIN: u64 = 60;
/// Longest time that an output is switched on for.
const RELAY_MS_MAX: u32 = 24 * 3_600 * 1_000;
/// Repetitions of a text.
const REPEAT_MAX: u8 = 10;
const VOLUME_MAX: u8 = 100;
const VOLUME: u8 = 80;
/// Longest name of a rule file, without its ending.
const FILE_BYTES_MAX: usize = 64;
/// Alarms on one page of a snapshot.
pub const PAGE_MAX: u32 = 50;

/// `args` of `alarm.acknowledge`, `alarm.close`, `alarm.unshelve`, `alarm.out_of_service` and `alarm.in_service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmArgs {
    /// The alarm's identity, as `up/alarm` tells it.
    #[schemars(length(min = 1, max = 160))]
    pub alarm: String,
    /// The revision that your operator has seen: if the alarm has changed since, nothing is done. Without it the command
    /// is about the alarm as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
}

/// `args` of `alarm.assign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignArgs {
    /// The alarm's identity.
    #[schemars(length(min = 1, max = 160))]
    pub alarm: String,
    /// The revision that your operator has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// Who is to see to it: a role or a number, never a person's name.
    #[schemars(length(min = 1, max = 128))]
    pub assignee: String,
}

/// `args` of `alarm.handle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandleArgs {
    /// The alarm's identity.
    #[schemars(length(min = 1, max = 160))]
    pub alarm: String,
    /// The revision that your operator has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// What it turned out to be.
    pub result: HandlingResult,
    /// For people, without personal data.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub note: String,
}

/// `args` of `alarm.shelve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShelveArgs {
    /// The alarm's identity.
    #[schemars(length(min = 1, max = 160))]
    pub alarm: String,
    /// The revision that your operator has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// For how long, in seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub for_s: u64,
}

/// `args` of `speak`: `text` or `clip`, on `speakers` or on those with one of `tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeakArgs {
    /// Speakers by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub speakers: Vec<DeviceId>,
    /// Speakers that bear one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
    /// What to say. It names no household, person or illness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub text: Option<String>,
    /// A clip that the speaker holds, by its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub clip: Option<String>,
    /// 0 to 100; 80 if not given.
    #[serde(default = "volume")]
    #[schemars(range(max = 100))]
    pub volume: u8,
    /// How often; once if not given.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 10))]
    pub repeat: u8,
}

/// `args` of `speak.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HushArgs {
    /// Speakers by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub speakers: Vec<DeviceId>,
    /// Speakers that bear one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
}

/// `args` of `door.open` and `door.reset`. One door; there is no way to open all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoorArgs {
    /// The door's id.
    pub door: DeviceId,
}

/// `args` of `relay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayArgs {
    /// The device's id.
    pub device: DeviceId,
    /// The output.
    pub point: PointName,
    /// On or off.
    pub on: bool,
    /// For how long, in milliseconds; for good if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub for_ms: Option<u32>,
}

/// `args` of `set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetArgs {
    /// The device's id.
    pub device: DeviceId,
    /// The set point.
    pub point: PointName,
    /// Its new value.
    pub value: record::Value,
}

/// `args` of `snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotArgs {
    /// `next` of the answer before; from the first one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 160))]
    pub after: Option<String>,
    /// Alarms at most, 50 if not given.
    #[serde(default = "page")]
    #[schemars(range(min = 1, max = 50))]
    pub max: u32,
}

/// `args` of `diagnose`: none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiagnoseArgs {}

/// `args` of `rules.put`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesArgs {
    /// Name of the rule file, without its ending.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]{0,63}$"))]
    pub name: String,
    /// Its whole text, as docs/rules.md has it.
    #[schemars(length(min = 1))]
    pub toml: String,
}

const fn volume() -> u8 {
    VOLUME
}

const fn once() -> u8 {
    1
}

const fn page() -> u32 {
    PAGE_MAX
}

fn read<T: for<'de> Deserialize<'de>>(args: &Value) -> Result<T, Refused> {
    T::deserialize(args).map_err(|error| malformed(format!("`args`: {error}")))
}

fn alarm_verb(alarm: String, rev: Option<u64>, act: AlarmVerb) -> Result<Verb, Refused> {
    plain("args.alarm", &alarm, ALARM_CHARS_MAX)?;
    Ok(Verb::Alarm { alarm, rev, act })
}

/// An order about an alarm that says no more than which alarm.
pub fn alarm(args: &Value, act: AlarmVerb) -> Result<Verb, Refused> {
    let AlarmArgs { alarm, rev } = read(args)?;
    alarm_verb(alarm, rev, act)
}

pub fn assign(args: &Value) -> Result<Verb, Refused> {
    let AssignArgs { alarm, rev, assignee } = read(args)?;
    plain("args.assignee", &assignee, NAME_CHARS_MAX)?;
    alarm_verb(alarm, rev, AlarmVerb::Assign { assignee })
}

pub fn handle(args: &Value) -> Result<Verb, Refused> {
    let HandleArgs { alarm, rev, result, note } = read(args)?;
    if !note.is_empty() {
        plain("args.note", &note, TEXT_CHARS_MAX)?;
    }
    alarm_verb(alarm, rev, AlarmVerb::Handle { result, note })
}

pub fn shelve(args: &Value) -> Result<Verb, Refused> {
    let ShelveArgs { alarm, rev, for_s } = read(args)?;
    if !(SHELVE_S_MIN..=SHELVE_S_MAX).contains(&for_s) {
        return Err(malformed(format!("`args.for_s` is {SHELVE_S_MIN} to {SHELVE_S_MAX}")));
    }
    alarm_verb(alarm, rev, AlarmVerb::Shelve { for_s })
}

fn on_speakers(speakers: &[DeviceId], tags: &[String]) -> Result<(), Refused> {
    if speakers.is_empty() && tags.is_empty() {
        return Err(malformed("name speakers by `args.speakers` or `args.tags`"));
    }
    if speakers.len() > SPEAKERS_MAX || tags.len() > TAGS_MAX {
        return Err(malformed(format!("at most {SPEAKERS_MAX} speakers and {TAGS_MAX} tags at once")));
    }
    tags.iter().try_for_each(|tag| plain("args.tags", tag, NAME_CHARS_MAX))
}

pub fn speak(args: &Value) -> Result<Verb, Refused> {
    let SpeakArgs { speakers, tags, text, clip, volume, repeat } = read(args)?;
    on_speakers(&speakers, &tags)?;
    if text.is_some() == clip.is_some() {
        return Err(malformed("give either `args.text` or `args.clip`"));
    }
    text.iter().try_for_each(|text| plain("args.text", text, TEXT_CHARS_MAX))?;
    clip.iter().try_for_each(|clip| plain("args.clip", clip, NAME_CHARS_MAX))?;
    if volume > VOLUME_MAX || !(1..=REPEAT_MAX).contains(&repeat) {
        return Err(malformed(format!(
            "`args.volume` is 0 to {VOLUME_MAX}, `args.repeat` 1 to {REPEAT_MAX}"
        )));
    }
    Ok(Verb::Speak { speakers, tags, text, clip, volume, repeat })
}

pub fn hush(args: &Value) -> Result<Verb, Refused> {
    let HushArgs { speakers, tags } = read(args)?;
    on_speakers(&speakers, &tags)?;
    Ok(Verb::Hush { speakers, tags })
}

pub fn open_door(args: &Value) -> Result<Verb, Refused> {
    let DoorArgs { door } = read(args)?;
    Ok(Verb::OpenDoor { door })
}

pub fn reset_door(args: &Value) -> Result<Verb, Refused> {
    let DoorArgs { door } = read(args)?;
    Ok(Verb::ResetDoor { door })
}

pub fn relay(args: &Value) -> Result<Verb, Refused> {
    let RelayArgs { device, point, on, for_ms } = read(args)?;
    if for_ms.is_some_and(|for_ms| !(1..=RELAY_MS_MAX).contains(&for_ms)) {
        return Err(malformed(format!("`args.for_ms` is 1 to {RELAY_MS_MAX}")));
    }
    Ok(Verb::Relay { device, point, on, for_ms })
}

pub fn set(args: &Value) -> Result<Verb, Refused> {
    let SetArgs { device, point, value } = read(args)?;
    if let record::Value::Text(text) = &value {
        plain("args.value", text, NAME_CHARS_MAX)?;
    }
    Ok(Verb::Set { device, point, value })
}

pub fn snapshot(args: &Value) -> Result<SnapshotArgs, Refused> {
    let args: SnapshotArgs = read(args)?;
    if !(1..=PAGE_MAX).contains(&args.max) {
        return Err(malformed(format!("`args.max` is 1 to {PAGE_MAX}")));
    }
    args.after.iter().try_for_each(|after| plain("args.after", after, ALARM_CHARS_MAX))?;
    Ok(args)
}

pub fn diagnose(args: &Value) -> Result<Verb, Refused> {
    let DiagnoseArgs {} = read(args)?;
    Ok(Verb::Diagnose)
}

pub fn put_rules(args: &Value) -> Result<Verb, Refused> {
    let RulesArgs { name, toml } = read(args)?;
    let fits = |(at, byte): (usize, u8)| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || (at > 0 && matches!(byte, b'_' | b'-'))
    };
    if name.is_empty() || name.len() > FILE_BYTES_MAX || !name.bytes().enumerate().all(fits) {
        return Err(malformed(
            "`args.name` is made of a-z, 0-9, '_' and '-' and begins with a letter or digit",
        ));
    }
    if toml.trim().is_empty() {
        return Err(malformed("`args.toml` is empty"));
    }
    Ok(Verb::PutRules { name, toml })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::refusal::Refusal;

    type Reader = fn(&Value) -> Result<Verb, Refused>;

    #[test]
    fn arguments_are_read_strictly() {
        let ack: Reader = |args| alarm(args, AlarmVerb::Acknowledge);
        let good: [(Reader, Value); 11] = [
            (ack, json!({ "alarm": "e-1-r" })),
            (ack, json!({ "alarm": "e-1-r", "rev": 3 })),
            (assign, json!({ "alarm": "e-1-r", "assignee": "duty-3" })),
            (assign, json!({ "alarm": "e-1-r", "assignee": "值".repeat(NAME_CHARS_MAX) })),
            (
                handle,
                json!({ "alarm": "e-1-r", "result": "false", "note": "老鼠".repeat(TEXT_CHARS_MAX / 2) }),
            ),
            (shelve, json!({ "alarm": "e-1-r", "for_s": 3600 })),
            (speak, json!({ "tags": ["gate"], "text": "请注意" })),
            (hush, json!({ "speakers": ["horn-1"] })),
            (open_door, json!({ "door": "door-1" })),
            (relay, json!({ "device": "io-1", "point": "do-1", "on": true, "for_ms": 500 })),
            (set, json!({ "device": "io-1", "point": "level", "value": 2.5 })),
        ];
        for (reader, args) in good {
            assert!(reader(&args).is_ok(), "{args}: {:?}", reader(&args));
        }
        let bad: [(Reader, Value); 17] = [
            (ack, json!({})),
            (ack, json!({ "alarm": "" })),
            (ack, json!({ "alarm": 5 })),
            (ack, json!({ "alarm": "e-1-r", "rev": "3" })),
            (ack, json!({ "alarm": "e-1-r", "rev": -1 })),
            (ack, json!({ "alarm": "e-1-r", "all": true })),
            (handle, json!({ "alarm": "e-1-r", "result": "whatever" })),
            (handle, json!({ "alarm": "e-1-r", "result": "false", "note": "x".repeat(TEXT_CHARS_MAX + 1) })),
            (shelve, json!({ "alarm": "e-1-r", "for_s": 604_801 })),
            (speak, json!({ "text": "no speaker" })),
            (speak, json!({ "tags": ["gate"] })),
            (speak, json!({ "tags": ["gate"], "text": "a", "clip": "b" })),
            (speak, json!({ "tags": ["gate"], "text": "a", "volume": 101 })),
            (open_door, json!({ "door": "*" })),
            (open_door, json!({ "door": ["door-1", "door-2"] })),
            (relay, json!({ "device": "io-1", "point": "do-1", "on": 1 })),
            (set, json!({ "device": "io-1", "point": "level", "value": null })),
        ];
        for (reader, args) in bad {
            let refused = reader(&args).expect_err(&args.to_string());
            assert_eq!(refused.0, Refusal::DownMalformed, "{args}");
            assert!(refused.1.contains("args"), "{args}: {}", refused.1);
        }
        for name in ["../etc", "A", "", "-x", "a.b"] {
            assert!(put_rules(&json!({ "name": name, "toml": "x = 1" })).is_err(), "{name}");
        }
    }
}
