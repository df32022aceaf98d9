//! What a device can be made to do, as data: `[speaker]`, `[door]` and `[outputs.NAME]` of a profile. Topics are made of
//! `{base}` and `{address}`, payloads are minijinja templates. Must not know brokers or who asks.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Profile;
use crate::model::check::Problem;
use crate::model::ids::PointName;
use crate::model::record::Value;

/// Longest message to a speaker or door: a text of 200 characters in JSON, several times over.
pub const ORDER_BYTES_MAX: usize = 8 * 1024;
/// Longest a device may take to acknowledge.
const ACK_MS_MAX: u32 = 60_000;
/// Steps that a template may take.
const FUEL: u64 = 20_000;

/// `[speaker]`: how it is made to speak.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeakerProfile {
    /// `lan`: it speaks also while the uplink is down. `cloud`: its maker's servers stand between.
    pub reach: Reach,
    /// Where its orders go, for example `{base}/{address}/set`.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// The order: a template over `text`, `clip`, `volume`, `repeat`, `id`, `number` (counts orders), `now_s` (seconds
    /// since 1970) and `address`. `{{ text | tojson }}` writes a JSON string.
    #[schemars(length(min = 1, max = 4096))]
    pub payload: String,
    /// How it is made to stop.
    pub stop: Option<Stop>,
    /// How it answers; without it, an order that was sent counts as accepted.
    pub ack: Option<Ack>,
    /// What 0 and 100 mean to the device.
    #[serde(default)]
    pub volume: VolumeRange,
    /// Longest text, in characters; 0: it cannot say texts, only clips.
    #[serde(default = "default_text_chars")]
    #[schemars(range(max = 4096))]
    pub text_chars_max: u16,
    /// It repeats by itself (`repeat` stands in the payload). Otherwise the text is repeated for it.
    #[serde(default)]
    pub repeats: bool,
    /// How long one character takes, about: a speaker that does not tell when it has played is taken to be busy so long.
    #[serde(default = "default_ms_per_char")]
    #[schemars(range(max = 2000))]
    pub ms_per_char: u16,
    /// The same for one clip.
    #[serde(default = "default_ms_per_clip")]
    #[schemars(range(max = 60_000))]
    pub ms_per_clip: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    Lan,
    Cloud,
}

/// The order that ends what is being said.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The topic of orders if not given.
    #[schemars(length(min = 1, max = 256))]
    pub topic: Option<String>,
    /// A template like that of orders.
    #[schemars(length(min = 1, max = 4096))]
    pub payload: String,
}

/// What 0 and 100 mean to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeRange {
    pub min: u16,
    pub max: u16,
}

impl Default for VolumeRange {
    fn default() -> Self {
        Self { min: 0, max: 100 }
    }
}

impl VolumeRange {
    /// The device's number for 0 to 100.
    pub fn of(self, percent: u8) -> u16 {
        let (min, max) = (u32::from(self.min), u32::from(self.max));
        let span = max.saturating_sub(min).saturating_mul(u32::from(percent.min(100)));
        u16::try_from(min.saturating_add(span.saturating_add(50) / 100)).unwrap_or(self.max)
    }
}

/// How a device answers an order.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// Where the answer comes; the device's messages if not given.
    #[schemars(length(min = 1, max = 256))]
    pub topic: Option<String>,
    /// JSON Pointer to the value that decides.
    pub pointer: String,
    /// It is done when the value is one of these.
    #[schemars(length(min = 1, max = 16))]
    pub one_of: Vec<Value>,
    /// What says that it is not done. All else is no answer.
    pub refused: Option<Refused>,
    /// JSON Pointer to `id` or `number` of the order; an answer with another one belongs to another order.
    pub correlation: Option<String>,
    /// JSON Pointer to words for a person.
    pub detail: Option<String>,
    /// How long it may take, milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// What the answer means.
    pub means: Means,
}

/// Values that say no.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The deciding value of the acknowledgement if not given.
    pub pointer: Option<String>,
    #[schemars(length(min = 1, max = 16))]
    pub one_of: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// The order was taken.
    Accepted,
    /// The text was played.
    Played,
    /// It has been done: the lock is open.
    Done,
}

impl Means {
    /// Whether it has happened, and not only been promised.
    pub const fn happened(self) -> bool {
        matches!(self, Self::Played | Self::Done)
    }
}

/// `[door]`: how it is released. By MQTT: `topic`, `unlock` and `lock`. By Modbus: `output`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoorProfile {
    /// Where its orders go. MQTT.
    #[schemars(length(min = 1, max = 256))]
    pub topic: Option<String>,
    /// The order that releases it: a template over `id`, `number`, `now_s`, `pulse_ms` (absent
    /// where it is held open) and `address`. How long it stays open is the device's own affair. MQTT.
    #[schemars(length(min = 1, max = 4096))]
    pub unlock: Option<String>,
    /// The order that locks it again; without it the door does so by itself. MQTT.
    #[schemars(length(min = 1, max = 4096))]
    pub lock: Option<String>,
    /// How it answers. MQTT.
    pub ack: Option<Ack>,
    /// The point that releases it. Modbus.
    pub output: Option<PointName>,
    /// The output's value that releases it: `false` for a magnet that holds while it has power. Modbus.
    #[serde(default = "yes")]
    pub released: bool,
    /// The event that shows it open: of the device itself, or of the one that `contact` of the device names.
    #[serde(default = "default_opened")]
    pub opened: String,
    /// How long after the release that event is waited for, milliseconds.
    #[serde(default = "default_opened_within")]
    #[schemars(range(max = 60_000))]
    pub opened_within_ms: u32,
}

/// `[outputs.NAME]`: what can be switched or set by MQTT. (An output of a Modbus device is a point with `write`.)
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputProfile {
    /// Where its orders go.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// The order: a template over `value`, `on` (whether `value` is true), `id`, `number`, `now_s` and `address`.
    #[schemars(length(min = 1, max = 4096))]
    pub payload: String,
    /// How it answers.
    pub ack: Option<Ack>,
}

/// What stands in an order.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Filling {
    pub id: String,
    pub number: u32,
    pub now_s: i64,
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulse_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
}

/// What may stand in a payload: [`Filling`]'s own, and what loops are made with.
const KNOWN: [&str; 12] = [
    "address", "clip", "id", "now_s", "number", "on", "pulse_ms", "range", "repeat", "text", "value",
    "volume",
];

/// A name in a payload that means nothing, if there is one.
fn unknown_name(template: &str) -> Option<String> {
    let environment = Environment::new();
    let named = environment.template_from_str(template).ok()?.undeclared_variables(false);
    named.into_iter().filter(|name| !KNOWN.contains(&name.as_str())).min()
}

/// Fills in a payload.
///
/// # Errors
/// The template's mistake in words, or an order that is too long.
pub fn fill(template: &str, filling: &Filling) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    // Payloads are written out as they stand; what needs quotes says `tojson`.
    environment.set_auto_escape_callback(|_name| minijinja::AutoEscape::None);
    let order = environment
        .render_str(template, minijinja::value::Serde(filling))
        .map_err(|error| format!("the payload cannot be filled in: {error}"))?;
    if order.len() > ORDER_BYTES_MAX {
        return Err(format!("the payload has {} bytes, more than {ORDER_BYTES_MAX}", order.len()));
    }
    Ok(order)
}

impl Profile {
    /// Names of what can be switched or set.
    pub fn outputs(&self) -> impl Iterator<Item = &PointName> {
        let points = self.points.iter().filter(|(_, point)| point.write).map(|(name, _)| name);
        points.chain(self.outputs.keys())
    }

    /// Whether it can be made to do something.
    pub fn acts(&self) -> bool {
        self.speaker.is_some() || self.door.is_some() || self.outputs().next().is_some()
    }

    /// Topics by which answers come, beside the device's messages.
    pub fn answer_topics(&self) -> impl Iterator<Item = &str> {
        let speaker = self.speaker.iter().filter_map(|speaker| speaker.ack.as_ref());
        let door = self.door.iter().filter_map(|door| door.ack.as_ref());
        let outputs = self.outputs.values().filter_map(|output| output.ack.as_ref());
        speaker.chain(door).chain(outputs).filter_map(|ack| ack.topic.as_deref())
    }
}

/// What is wrong with what a profile can do. Paths start at the profile's root.
pub(super) fn problems(profile: &Profile) -> Vec<Problem> {
    let mut out = Vec::new();
    let mqtt = profile.mqtt.is_some();
    if let Some(speaker) = &profile.speaker {
        if !mqtt {
            out.push(Problem::error(&["speaker"], "a speaker is spoken to by MQTT: add [mqtt]"));
        }
        speaker_problems(&mut out, speaker);
    }
    if let Some(door) = &profile.door {
        door_problems(&mut out, profile, door);
    }
    for (name, output) in &profile.outputs {
        let at = |key| ["outputs", name.as_str(), key];
        if !mqtt {
            let problem =
                Problem::error(&["outputs", name.as_str()], "outputs are for devices that speak MQTT");
            out.push(problem.hint("write `write = true` at the point"));
        }
        if profile.points.contains_key(name) {
            let message = format!("there is a point {name:?} too: give the output another name");
            out.push(Problem::error(&["outputs", name.as_str()], message));
        }
        super::check::template(&mut out, &at("topic"), &output.topic, false);
        payload(
            &mut out,
            &at("payload"),
            &output.payload,
            &Filling { value: Some(Value::Bool(true)), on: Some(true), ..sample() },
        );
        output.ack.iter().for_each(|ack| ack_problems(&mut out, &at("ack"), ack));
    }
    out
}

fn speaker_problems(out: &mut Vec<Problem>, speaker: &SpeakerProfile) {
    super::check::template(out, &["speaker", "topic"], &speaker.topic, false);
    let filling = Filling {
        text: Some("三栋\"紧急\"".to_owned()),
        clip: Some("001".to_owned()),
        volume: Some(speaker.volume.of(50)),
        repeat: Some(2),
        ..sample()
    };
    payload(out, &["speaker", "payload"], &speaker.payload, &filling);
    if let Some(stop) = &speaker.stop {
        payload(out, &["speaker", "stop", "payload"], &stop.payload, &filling);
        if let Some(topic) = &stop.topic {
            super::check::template(out, &["speaker", "stop", "topic"], topic, false);
        }
    }
    if speaker.volume.min > speaker.volume.max {
        out.push(Problem::error(&["speaker", "volume"], "min is above max"));
    }
    speaker.ack.iter().for_each(|ack| ack_problems(out, &["speaker", "ack"], ack));
}

fn door_problems(out: &mut Vec<Problem>, profile: &Profile, door: &DoorProfile) {
    match (&door.output, &door.topic, &door.unlock) {
        (Some(output), None, None) if profile.modbus.is_some() => {
            if !profile.points.get(output).is_some_and(|point| point.write) {
                let problem =
                    Problem::error(&["door", "output"], format!("{output:?} is no output of the profile"));
                out.push(problem.hint("name a point with `write = true`"));
            }
            if door.lock.is_some() || door.ack.is_some() {
                out.push(Problem::error(&["door"], "`lock` and `ack` are for doors that speak MQTT"));
            }
        }
        (None, Some(topic), Some(unlock)) if profile.mqtt.is_some() => {
            super::check::template(out, &["door", "topic"], topic, false);
            let filling = Filling { pulse_ms: Some(3_000), ..sample() };
            payload(out, &["door", "unlock"], unlock, &filling);
            door.lock.iter().for_each(|lock| payload(out, &["door", "lock"], lock, &filling));
            door.ack.iter().for_each(|ack| ack_problems(out, &["door", "ack"], ack));
        }
        _ => {
            let problem = Problem::error(&["door"], "it does not say how the door is released");
            out.push(problem.hint("MQTT: `topic` and `unlock`; Modbus: `output`"));
        }
    }
}

fn ack_problems(out: &mut Vec<Problem>, path: &[&str], ack: &Ack) {
    let at = |key| [path, &[key]].concat();
    if let Some(topic) = &ack.topic {
        super::check::template(out, &at("topic"), topic, false);
    }
    super::check::pointer(out, &at("pointer"), &ack.pointer);
    let refused = ack.refused.as_ref();
    let others = [
        ("correlation", ack.correlation.as_ref()),
        ("detail", ack.detail.as_ref()),
        ("refused", refused.and_then(|refused| refused.pointer.as_ref())),
    ];
    for (key, pointer) in others {
        if let Some(pointer) = pointer {
            super::check::pointer(out, &at(key), pointer);
        }
    }
    if ack.one_of.is_empty() || refused.is_some_and(|refused| refused.one_of.is_empty()) {
        out.push(Problem::error(path, "an empty list never matches"));
    }
    if !(100..=ACK_MS_MAX).contains(&ack.timeout_ms) {
        out.push(Problem::error(&at("timeout_ms"), format!("100 to {ACK_MS_MAX} ms")));
    }
}

fn payload(out: &mut Vec<Problem>, path: &[&str], template: &str, filling: &Filling) {
    if let Some(name) = unknown_name(template) {
        let problem = Problem::error(path, format!("`{name}` means nothing in a payload"));
        out.push(problem.hint(format!("there is: {}", KNOWN.join(", "))));
    }
    if let Err(reason) = fill(template, filling) {
        out.push(Problem::error(path, reason).hint("docs/devices.md names what may stand in it"));
    }
}

fn sample() -> Filling {
    Filling {
        id: "e-1-r.1.1-1".to_owned(),
        number: 1,
        now_s: 1_780_272_000,
        address: "a".to_owned(),
        ..Filling::default()
    }
}

/// `[outputs.NAME]` of a profile.
pub(super) type Outputs = BTreeMap<PointName, OutputProfile>;

const fn yes() -> bool {
    true
}

const fn default_text_chars() -> u16 {
    200
}

const fn default_ms_per_char() -> u16 {
    250
}

const fn default_ms_per_clip() -> u16 {
    5_000
}

fn default_opened() -> String {
    "contact.opened".to_owned()
}

const fn default_opened_within() -> u32 {
    5_000
}
