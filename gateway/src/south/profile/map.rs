//! The mapping: (profile, state, message) → (drafts, refusals, new state). A pure function: it reads no clock, does
//! no I/O and must not panic on any bytes (property-tested, and fuzzed through [`fuzz_map`]).
//!
//! The new state is returned, not written: whoever commits the drafts takes it over only when the commit succeeded.
//! Otherwise a press whose commit failed would be an old one when the device sends it again.
//!
//! A field that cannot be taken (wrong type, out of range) is refused by itself and the rest of the message stands:
//! a button with a broken battery sensor must still be heard. Null, and a field that is absent, say nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::edge::Edges;
use super::{AtStart, Availability, EventRule, Profile, Trigger, json, number};
use crate::model::ids::{BootId, DeviceId};
use crate::model::limits::RECORD_BODY_BYTES_MAX;
use crate::model::place::Place;
use crate::model::record::{
    Body, Category, DeviceRef, Draft, Event, Quality, QualityReason, Sample, Severity, Telemetry, Text, Value,
};
use crate::model::refusal::Refusal;
use crate::model::stamp::{ClockTrust, Stamp};

/// Texts of one record together: the rest of [`RECORD_BODY_BYTES_MAX`] is for names and numbers.
pub(in crate::south) const TEXTS_BYTES_MAX: usize = RECORD_BODY_BYTES_MAX / 2;

/// Longest de-duplication key taken from a device: a UUID has 36 bytes.
const DEDUP_KEY_BYTES_MAX: usize = 128;

/// Which of a profile's topics a message came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `[mqtt] topic`.
    Message,
    /// `[mqtt.availability] topic`.
    Availability,
    /// The topic of an acknowledgement: for who gave the order, and says nothing else.
    Answer,
}

/// How a message reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is being said now. At our own broker every message is, whatever its RETAIN flag says.
    Live,
    /// An external broker delivered what it had kept: it is state, nothing happens now.
    Kept,
}

/// Whom a message is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    pub device: DeviceRef,
    pub place: Place,
    /// Under maintenance: records are marked.
    pub test: bool,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub channel: Channel,
    pub origin: Origin,
    pub payload: &'a [u8],
    pub at: &'a Stamp,
}

/// What is remembered of a device between messages. Lost with the process; [`AtStart`] says what that means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceState {
    edges: Edges,
}

/// A field that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRefusal {
    pub reason: Refusal,
    /// JSON Pointer to the field; empty for the message as a whole.
    pub pointer: String,
}

/// What became of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapped {
    /// Events first, then the values.
    pub drafts: Vec<Draft>,
    pub refusals: Vec<FieldRefusal>,
    /// Whether the device can be reached, as somebody said by its availability topic.
    pub reachable: Option<bool>,
    /// The state after it; to be taken over when the drafts are on disk.
    pub state: DeviceState,
}

/// Maps one message.
///
/// # Errors
/// The reason why nothing of it could be read.
pub fn map(
    profile: &Profile,
    subject: &Subject,
    state: &DeviceState,
    input: Input<'_>,
) -> Result<Mapped, Refusal> {
    let mut mapping = Mapping { profile, subject, input, mapped: Mapped::default(), dedup: None };
    mapping.mapped.state = state.clone();
    // Zigbee2MQTT clears a retained topic with an empty payload: that says nothing about the device.
    if input.payload.is_empty() {
        return Ok(mapping.mapped);
    }
    let availability = profile.mqtt.as_ref().and_then(|mqtt| mqtt.availability.as_ref());
    match (input.channel, availability) {
        (Channel::Availability, Some(availability)) => mapping.availability(availability)?,
        (Channel::Availability, None) => return Err(Refusal::TopicUnknown),
        (Channel::Message, _) => mapping.message()?,
        (Channel::Answer, _) => {}
    }
    Ok(mapping.mapped)
}

struct Mapping<'a> {
    profile: &'a Profile,
    subject: &'a Subject,
    input: Input<'a>,
    mapped: Mapped,
    dedup: Option<String>,
}

impl Mapping<'_> {
    fn message(&mut self) -> Result<(), Refusal> {
        let document = json::parse(self.input.payload)?;
        for _ in 0..document.not_finite {
            self.refuse(Refusal::NotFinite, "");
        }
        self.read_dedup(&document.value);
        for (name, rule) in &self.profile.events {
            let Some(value) = document.value.pointer(rule.pointer()).filter(|value| !value.is_null()) else {
                continue;
            };
            match matches(rule, value) {
                Ok(matching) => self.decide(name, rule, matching, value, &document.value),
                Err(reason) => self.refuse(reason, rule.pointer()),
            }
        }
        self.values(&document.value);
        Ok(())
    }

    fn read_dedup(&mut self, document: &Json) {
        let Some(pointer) = self.profile.mqtt.as_ref().and_then(|mqtt| mqtt.dedup.as_ref()) else { return };
        let key = match document.pointer(pointer) {
            None | Some(Json::Null) => return,
            Some(Json::String(text)) => text.clone(),
            Some(Json::Number(number)) => number.to_string(),
            Some(_) => return self.refuse(Refusal::WrongType, pointer),
        };
        if key.len() > DEDUP_KEY_BYTES_MAX {
            return self.refuse(Refusal::TextTooLong, pointer);
        }
        self.dedup = Some(key);
    }

    /// Whether the rule's value makes an event now, and what to remember.
    fn decide(&mut self, name: &str, rule: &EventRule, matching: bool, value: &Json, document: &Json) {
        let now_ms = self.input.at.mono_ms;
        // What a broker had kept may be the very press that it delivers next: it must not make that one old.
        if self.input.origin == Origin::Kept
            && rule.at_start == AtStart::Event
            && rule.trigger == Trigger::Edge
            && self.mapped.state.edges.would(name, rule, matching, now_ms)
        {
            return self.refuse(Refusal::RetainedDelivery, rule.pointer());
        }
        let happened = self.mapped.state.edges.decide(name, rule, matching, now_ms);
        if !happened {
            return;
        }
        if self.input.origin == Origin::Kept {
            return self.refuse(Refusal::RetainedDelivery, rule.pointer());
        }
        let mut params = self.params(rule, document);
        if rule.equals.is_none()
            && let Some(Ok(value)) = number::plain(value)
        {
            let key = rule.pointer().rsplit('/').next().unwrap_or("value");
            params.entry(key.to_owned()).or_insert(value);
        }
        if let Some(ended) = &rule.clears {
            params.insert("clears".to_owned(), Value::Text(ended.as_str().into()));
        }
        let key = self.dedup.as_ref().map(|key| format!("{name}:{key}"));
        self.push_event(rule.name(name), rule.category, rule.severity, params, rule.text.clone(), key);
    }

    fn params(&mut self, rule: &EventRule, document: &Json) -> BTreeMap<String, Value> {
        let mut params = BTreeMap::new();
        let mut texts = 0;
        for (name, pointer) in &rule.params {
            match document.pointer(pointer).and_then(number::plain) {
                Some(Ok(value)) if fits(&value, &mut texts) => {
                    params.insert(name.clone(), value);
                }
                Some(Ok(_)) => self.refuse(Refusal::TextTooLong, pointer),
                Some(Err(reason)) => self.refuse(reason, pointer),
                None => {}
            }
        }
        params
    }

    fn values(&mut self, document: &Json) {
        let mut samples = Vec::new();
        let mut texts = 0;
        for (name, point) in &self.profile.points {
            let Some(value) = document.pointer(point.pointer()).filter(|value| !value.is_null()) else {
                continue;
            };
            match number::take(point, value) {
                Ok(value) if fits(&value, &mut texts) => {
                    samples.push(self.sample(Sample::good(name.clone(), value, point.unit.clone())));
                }
                Ok(_) => self.refuse(Refusal::TextTooLong, point.pointer()),
                Err(reason) => self.refuse(reason, point.pointer()),
            }
        }
        if samples.is_empty() {
            return;
        }
        let telemetry =
            Telemetry { device: self.subject.device.clone(), place: self.subject.place.clone(), samples };
        let key = self.dedup.as_ref().map(|key| format!("values:{key}"));
        self.push(Body::Telemetry(telemetry), key);
    }

    /// What a broker had kept is of unknown age: its own time cannot be told, and its quality says so (promise G11).
    fn sample(&self, good: Sample) -> Sample {
        match self.input.origin {
            Origin::Live => good,
            Origin::Kept => Sample { quality: Quality::Uncertain, reason: Some(QualityReason::Kept), ..good },
        }
    }

    fn availability(&mut self, rule: &Availability) -> Result<(), Refusal> {
        let said = match json::parse(self.input.payload) {
            Ok(document) => match document.value.pointer(&rule.pointer) {
                Some(Json::String(text)) => text.clone(),
                Some(_) => return Err(Refusal::WrongType),
                None => document.value.as_str().ok_or(Refusal::WrongType)?.to_owned(),
            },
            // The older form of Zigbee2MQTT, and of most others: the bare word.
            Err(Refusal::NotJson) => String::from_utf8_lossy(self.input.payload).trim().to_owned(),
            Err(reason) => return Err(reason),
        };
        self.mapped.reachable = Some(match said {
            said if said == rule.online => true,
            said if said == rule.offline => false,
            _ => return Err(Refusal::OutOfRange),
        });
        Ok(())
    }

    fn push_event(
        &mut self,
        name: &str,
        category: Category,
        severity: Option<Severity>,
        params: BTreeMap<String, Value>,
        text: Option<Text>,
        dedup: Option<String>,
    ) {
        let event = Event {
            device: self.subject.device.clone(),
            place: self.subject.place.clone(),
            category,
            name: name.to_owned(),
            severity,
            params,
            text,
        };
        self.push(Body::Event(Box::new(event)), dedup);
    }

    fn push(&mut self, body: Body, dedup: Option<String>) {
        self.mapped.drafts.push(Draft { at: self.input.at.clone(), test: self.subject.test, dedup, body });
    }

    fn refuse(&mut self, reason: Refusal, pointer: &str) {
        self.mapped.refusals.push(FieldRefusal { reason, pointer: pointer.to_owned() });
    }
}

/// Whether the value is the rule's; another type than the rule's is a mistake of the device or of the profile.
fn matches(rule: &EventRule, value: &Json) -> Result<bool, Refusal> {
    let Some(wanted) = rule.wanted() else {
        let text = value.as_str().ok_or(Refusal::WrongType)?;
        return Ok(!is_reset(text));
    };
    let mut comparable = false;
    for wanted in wanted {
        let equal = match (wanted, value) {
            (Value::Bool(wanted), Json::Bool(value)) => Some(wanted == value),
            (Value::Text(wanted), Json::String(value)) => Some(wanted.as_ref() == value),
            (Value::Int(wanted), Json::Number(value)) => Some(number::whole(value) == Some(*wanted)),
            (Value::Float(wanted), Json::Number(value)) => Some(value.as_f64() == Some(*wanted)),
            _ => None,
        };
        comparable |= equal.is_some();
        if equal == Some(true) {
            return Ok(true);
        }
    }
    if comparable { Ok(false) } else { Err(Refusal::WrongType) }
}

/// What Zigbee2MQTT and others publish to reset an action: no press.
fn is_reset(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("null")
}

fn fits(value: &Value, texts: &mut usize) -> bool {
    if let Value::Text(text) = value {
        *texts = texts.saturating_add(text.len());
    }
    *texts <= TEXTS_BYTES_MAX
}

/// Entry for fuzzing: the first byte chooses profile, channel and origin, the rest is the payload, taken twice.
pub fn fuzz_map(bytes: &[u8]) {
    static PROFILES: LazyLock<Vec<Profile>> =
        LazyLock::new(|| super::shipped_profiles().map(|p| p.into_values().collect()).unwrap_or_default());
    let Some((choice, payload)) = bytes.split_first() else { return };
    let index = usize::from(choice >> 2) % PROFILES.len().max(1);
    let (Some(profile), Ok(id)) = (PROFILES.get(index), DeviceId::new("fuzz")) else { return };
    let device = DeviceRef { id, kind: profile.kind.clone(), profile: None, bus: None };
    let subject = Subject { device, place: Place::default(), test: false };
    let channel = if choice & 1 == 0 { Channel::Message } else { Channel::Availability };
    let origin = if choice & 2 == 0 { Origin::Live } else { Origin::Kept };
    let mut state = DeviceState::default();
    for mono_ms in [0, u64::MAX] {
        let at = Stamp { boot: BootId("0".into()), mono_ms, wall_ms: 0, trust: ClockTrust::None };
        if let Ok(mapped) = map(profile, &subject, &state, Input { channel, origin, payload, at: &at }) {
            state = mapped.state;
        }
    }
}
