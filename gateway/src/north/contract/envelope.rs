//! The CloudEvents 1.0 envelope: once for records, which are numbered, and once for what is not.
//!
//! No field is ever null; what is not known is absent. Integers of CloudEvents have 32 bits, so larger ones are texts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Frame;
use super::wire::{Millis, Open, Sequence};
use crate::model::ids::Epoch;
use crate::model::record::Class;
use crate::model::stamp::{ClockTrust, Stamp};

/// CloudEvents' version.
pub const SPECVERSION: &str = "1.0";

/// Content type of `data`.
pub const CONTENT_TYPE: &str = "application/json";

/// CloudEvents' largest integer: an older age is told as this.
pub const AGE_MS_MAX: u64 = 2_147_483_647;

/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can write.
const RFC3339_MS_MAX: i64 = 253_402_300_799_999;

/// A record: a message with a place in its class's numbering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sequenced<D> {
    /// CloudEvents' version, `1.0`.
    pub specversion: String,
    /// `epoch-class-number`: no other record of any box ever has it. De-duplicate by it (telemetry: by the records'
    /// own ids).
    pub id: String,
    /// `/gatehouse/{gateway}`.
    pub source: String,
    /// What `data` is.
    pub r#type: String,
    /// When it happened; absent when the box's clock was not trusted (see `bootid`, `monotonic` and `clock` in
    /// `up/state`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<String>,
    /// `application/json`.
    pub datacontenttype: String,
    /// The random number of the journal that holds the record: another one means another journal, and numbers that
    /// begin anew or go on in another box.
    #[schemars(regex(pattern = r"^[0-9a-f]{16}$"))]
    pub epoch: String,
    /// The box's boot: 32 hexadecimal digits, new at each boot.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub bootid: String,
    /// When it happened by the box's own clock: milliseconds since `bootid`'s boot.
    pub monotonic: Millis,
    /// How far the wall clock could be trusted when it happened.
    pub clocktrust: Open<ClockTrust>,
    /// Milliseconds from happening to sending, at most 2147483647; absent when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub age: Option<u32>,
    /// The numbering that `sequence` and `previous` belong to.
    pub class: Open<Class>,
    /// The record's number in its class and epoch; of a telemetry message the last record's.
    pub sequence: Sequence,
    /// The number of the record before it in this class and epoch that you may see, whichever stream carries it; 0:
    /// this is the first. If you do not have that one, see `pending` in `up/state`, gap records, and the command
    /// `replay`.
    pub previous: Sequence,
    /// Whether it comes in the backlog stream: old news, paced, in an order of its own.
    pub replay: bool,
    /// True for a record that the box could keep in memory only, since its disk cannot be written; absent otherwise. It is
    /// outside the numbering: its `epoch` and `sequence` are the memory's own, `previous` is 0, and nothing follows from
    /// a hole. When the disk is back the same record comes again with its lasting id; `bootid`, `monotonic`, the device
    /// and the name are the same in both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
    /// Whether the device was under walk test, drill or maintenance: call nobody. Such messages come below `up/test/`.
    pub test: bool,
    pub data: D,
}

/// A message outside the numbering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unsequenced<D> {
    /// CloudEvents' version, `1.0`.
    pub specversion: String,
    /// Unique for this source.
    pub id: String,
    /// `/gatehouse/{gateway}`.
    pub source: String,
    /// What `data` is.
    pub r#type: String,
    /// When it was made; absent when the box's clock is not trusted, and in the will.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<String>,
    /// `application/json`.
    pub datacontenttype: String,
    /// The random number of the journal in use.
    #[schemars(regex(pattern = r"^[0-9a-f]{16}$"))]
    pub epoch: String,
    /// The box's boot: 32 hexadecimal digits, new at each boot.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub bootid: String,
    /// When it was made by the box's own clock: milliseconds since boot.
    pub monotonic: Millis,
    /// How far the wall clock can be trusted.
    pub clocktrust: Open<ClockTrust>,
    /// Whether it belongs to the test branch.
    pub test: bool,
    pub data: D,
}

/// The moment as RFC 3339 with milliseconds in UTC, if its clock could be trusted and the moment can be written.
pub fn rfc3339(at: &Stamp) -> Option<String> {
    let plausible = at.trust > ClockTrust::None && (0..=RFC3339_MS_MAX).contains(&at.wall_ms);
    if !plausible {
        return None;
    }
    jiff::Timestamp::from_millisecond(at.wall_ms).ok().map(|time| format!("{time:.3}"))
}

/// What to call a message.
pub(super) struct Label {
    pub id: String,
    pub gateway: String,
    pub r#type: &'static str,
    pub epoch: Epoch,
    pub test: bool,
}

impl Label {
    fn source(&self) -> String {
        format!("/gatehouse/{}", self.gateway)
    }

    /// An envelope without a number, made at `at`.
    pub(super) fn unsequenced<D>(self, at: &Stamp, data: D) -> Unsequenced<D> {
        Unsequenced {
            specversion: SPECVERSION.to_owned(),
            source: self.source(),
            id: self.id,
            r#type: self.r#type.to_owned(),
            time: rfc3339(at),
            datacontenttype: CONTENT_TYPE.to_owned(),
            epoch: self.epoch.to_string(),
            bootid: at.boot.to_string(),
            monotonic: Millis(at.mono_ms),
            clocktrust: Open::Known(at.trust),
            test: self.test,
            data,
        }
    }

    /// A record's envelope.
    pub(super) fn sequenced<D>(self, at: &Stamp, frame: &Frame<'_>, place: Link, data: D) -> Sequenced<D> {
        let age = frame.clocks.age_ms(at, frame.now).and_then(|age| u32::try_from(age.min(AGE_MS_MAX)).ok());
        Sequenced {
            specversion: SPECVERSION.to_owned(),
            source: self.source(),
            id: self.id,
            r#type: self.r#type.to_owned(),
            time: rfc3339(at),
            datacontenttype: CONTENT_TYPE.to_owned(),
            epoch: self.epoch.to_string(),
            bootid: at.boot.to_string(),
            monotonic: Millis(at.mono_ms),
            clocktrust: Open::Known(at.trust),
            age,
            class: Open::Known(place.class),
            sequence: Sequence(place.seq),
            previous: Sequence(place.previous),
            replay: place.replay,
            volatile: place.volatile,
            test: self.test,
            data,
        }
    }
}

/// A record's place in the numbering and the stream that carries it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub class: Class,
    pub seq: u64,
    pub previous: u64,
    pub replay: bool,
    pub volatile: bool,
}
