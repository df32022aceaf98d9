//! Actions: what the pipeline asks devices to do. Each is a record before it is done, and its outcome is one after.
//!
//! An action is about one device. `act_within_ms` counts from when the condition arose: later than that the alarm stands
//! and nothing is done (docs/ARCHITECTURE.md, "Acting safely").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{DeviceId, PointName};
use super::limits::{SPEECH_CHAR_MS_MAX, SPEECH_CLIP_MS_MAX, SPEECH_MS_MAX};
use super::place::Place;
use super::record::{Body, Category, DeviceRef, Draft, Event, Record, Severity, Text, Value};
use super::stamp::Stamp;

/// Name of the event that asks for an action.
pub const ACTION_REQUESTED: &str = "action.requested";
/// Name of the event that tells of an attempt or of the end of an action.
pub const ACTION_REPORTED: &str = "action.reported";

/// Parameter of the event: whoever wrote it has begun it, or will at once; it is to be kept in mind, and not done again.
const BEGUN: &str = "begun";

/// How the ids of questions end that care asks at a household's own speaker: they are no alarms, and stay in the box.
pub const ASKED_BY_CARE: &str = "-care-ask";

/// Whether this is the id of such a question, or of an action that asks it. It names the household.
pub fn is_id_of_question(id: &str) -> bool {
    let alarm = id.rsplit_once('.').map_or(id, |(alarm, _number)| alarm);
    alarm.ends_with(ASKED_BY_CARE)
}

/// Whether an event tells of such a question: that it was asked, what became of it, or why it was not.
pub fn is_question_of_care(event: &Event) -> bool {
    let named = |key: &str| matches!(event.params.get(key), Some(Value::Text(id)) if is_id_of_question(id));
    event.device.is_gateway() && event.name.starts_with("action.") && (named("action") || named("alarm"))
}

/// What is known to have happened, as [`Report::detail`] of one that went well; different answers to a commander.
pub mod outcome {
    /// The order was sent; the device does not answer.
    pub const SENT: &str = "sent";
    /// The device, or its maker's servers, took the order.
    pub const ACCEPTED: &str = "accepted";
    /// It was played, or the lock says that it is open.
    pub const DONE: &str = "done";
    /// The output was switched, and back after its time.
    pub const RELAY_PULSED: &str = "relay_pulsed";
    /// The output was switched and reads back so.
    pub const RELAY_READ_BACK: &str = "relay_read_back";
    /// The contact of the door opened.
    pub const CONTACT_OPENED: &str = "contact_opened";
    /// A later order took the output over before its time was up.
    pub const TAKEN_OVER: &str = "taken_over";
    /// How the details of failures begin that leave an output switched on, or a door open: a person has to go there.
    pub const LEFT_ON: &str = "left_on";
}

/// One thing that one device is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its identity: the alarm's or command's, and a number.
    pub id: String,
    pub device: DeviceId,
    pub deed: Deed,
    /// The alarm that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
    /// Of the alarm: a graver one pre-empts a speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// When the condition arose or the command was taken.
    pub at: Stamp,
    pub act_within_ms: u64,
    /// A test: it calls nobody, and only what is marked as harmless is done.
    #[serde(default)]
    pub test: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Deed {
    /// Say or play something on a speaker.
    Speak {
        /// The text, in the language that the site speaks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// A clip that the speaker holds, by its own name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip: Option<String>,
        /// 0 to 100 of what the speaker can.
        volume: u8,
        /// How often, 1 or more.
        repeat: u8,
        /// What ends the repeats before their number does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Until>,
    },
    /// Stop what a speaker says.
    Hush,
    /// Release a door. Held until a person resets it (fire), or a pulse of so many milliseconds.
    Unlock {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pulse_ms: Option<u32>,
    },
    /// Take back a release that was held.
    Lock,
    /// Switch an output on for so many milliseconds; for ever without.
    Relay {
        point: PointName,
        on: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u32>,
    },
    /// Write a value.
    Set { point: PointName, value: Value },
    /// Publish a message by the device's bus.
    Publish { topic: String, payload: String },
}

/// What ends repeated words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Somebody has seen to the alarm, or it is over.
    Acknowledged,
}

impl Deed {
    /// The name on the wire and in events.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Speak { .. } => "speak",
            Self::Hush => "hush",
            Self::Unlock { .. } => "unlock",
            Self::Lock => "lock",
            Self::Relay { .. } => "relay",
            Self::Set { .. } => "set",
            Self::Publish { .. } => "publish",
        }
    }

    /// How long it takes by itself at most, from when it is begun: words, and an output that is switched back at the end.
    pub fn lasts_ms(&self) -> u64 {
        let lasts = match self {
            Self::Speak { until: Some(_), .. } => return SPEECH_MS_MAX,
            Self::Speak { text, clip, repeat, .. } => {
                let chars = text.as_ref().map_or(0, |text| text.chars().count());
                let text_ms = u64::try_from(chars).unwrap_or(u64::MAX).saturating_mul(SPEECH_CHAR_MS_MAX);
                let clip_ms = if clip.is_some() { SPEECH_CLIP_MS_MAX } else { 0 };
                return text_ms.max(clip_ms).saturating_mul((*repeat).into()).min(SPEECH_MS_MAX);
            }
            Self::Unlock { pulse_ms } => *pulse_ms,
            Self::Relay { for_ms, .. } => *for_ms,
            _ => None,
        };
        lasts.map_or(0, u64::from)
    }
}

/// How an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// The device has taken the order: a relay was pulsed, a cloud has accepted the text.
    Accepted,
    /// The device has confirmed that it happened: it was played, the contact opened.
    Confirmed,
    /// This attempt failed; another follows.
    Retrying,
    /// It failed for good.
    Failed,
    /// Its time passed before it could be done; nothing was done.
    Expired,
    /// A graver one took the speaker.
    Preempted,
    /// A crash or a lost line fell between order and answer: it may have been done.
    Unknown,
}

impl Progress {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Confirmed => "confirmed",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Preempted => "preempted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing more follows.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Retrying)
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub action: String,
    pub progress: Progress,
    /// From 1.
    pub attempt: u32,
    /// The device's word or the error, for a person.
    #[serde(default)]
    pub detail: String,
}

/// Whoever makes devices act.
#[async_trait]
pub trait Act: Send + Sync + Debug {
    /// Does one action to its end, retries included, and journals each attempt. Returns the last report; of an output
    /// that is switched for a time the one that it is switched.
    async fn act(&self, action: Action) -> Report;
}

/// A box without anybody who acts: whatever is asked has failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAct;

#[async_trait]
impl Act for NoAct {
    async fn act(&self, action: Action) -> Report {
        let detail = "this box makes no device act".to_owned();
        Report { action: action.id, progress: Progress::Failed, attempt: 0, detail }
    }
}

/// Takes what the pipeline asks for, once it is committed. Must not wait.
pub trait Outlet: Send + Debug {
    /// `resumed`: it was begun before a restart, and nobody knows how far it came.
    fn hand(&mut self, action: Action, resumed: bool);

    /// Fire held this door open when the state was loaded, and nobody has reset it.
    fn held(&mut self, door: &DeviceId);
}

/// The doors that fire holds open until a person resets them.
#[derive(Debug, Default)]
pub struct Held(Mutex<BTreeSet<DeviceId>>);

impl Held {
    fn doors(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, door: &DeviceId, held: bool) {
        if held {
            self.doors().insert(door.clone());
        } else {
            self.doors().remove(door);
        }
    }

    pub fn has(&self, door: &DeviceId) -> bool {
        self.doors().contains(door)
    }
}

/// Nobody acts: rehearsals, and boxes without actuators.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOutlet;

impl Outlet for NoOutlet {
    fn hand(&mut self, _action: Action, _resumed: bool) {}

    fn held(&mut self, _door: &DeviceId) {}
}

impl Action {
    /// The event that asks for it. The whole action travels as JSON in one parameter, and what people read beside it.
    pub fn draft(&self, at: &Stamp, place: &Place, category: Category) -> Draft {
        let whole = serde_json::to_string(self).unwrap_or_default();
        let mut params = BTreeMap::from([
            ("action".to_owned(), Value::Text(self.id.as_str().into())),
            ("do".to_owned(), Value::Text(self.deed.as_str().into())),
            ("target".to_owned(), Value::Text(self.device.as_str().into())),
            ("order".to_owned(), Value::Text(whole.into())),
        ]);
        if let Some(alarm) = &self.alarm {
            params.insert("alarm".to_owned(), Value::Text(alarm.as_str().into()));
        }
        let text = Text { zh: "执行联动".to_owned(), en: format!("{} requested", self.deed.as_str()) };
        own_event(at, (ACTION_REQUESTED, None), (place.clone(), category), params, text, self.test)
    }

    /// The event that tells of an action that its writer has begun by itself: it is under way, so that a restart finds
    /// it, and nobody else is to do it.
    pub fn begun_draft(&self, at: &Stamp, place: &Place, category: Category) -> Draft {
        let mut draft = self.draft(at, place, category);
        if let Body::Event(event) = &mut draft.body {
            event.params.insert(BEGUN.to_owned(), Value::Bool(true));
        }
        draft
    }

    /// Whether whoever wrote the event has begun the action already.
    pub fn is_begun(record: &Record) -> bool {
        own(record, ACTION_REQUESTED).is_some_and(|event| event.params.get(BEGUN) == Some(&Value::Bool(true)))
    }

    /// Reads it back from its event.
    pub fn read(record: &Record) -> Option<Self> {
        let event = own(record, ACTION_REQUESTED)?;
        let Some(Value::Text(whole)) = event.params.get("order") else { return None };
        serde_json::from_str(whole).ok()
    }
}

impl Report {
    /// The device that has done what it was asked, whoever asked, and the name of the deed.
    pub fn done_by(record: &Record) -> Option<(DeviceId, &str)> {
        let well = Self::read(record)?.progress;
        let event = own(record, ACTION_REPORTED)?;
        let (Some(Value::Text(target)), Some(Value::Text(deed))) =
            (event.params.get("target"), event.params.get("do"))
        else {
            return None;
        };
        let well = matches!(well, Progress::Accepted | Progress::Confirmed);
        well.then(|| Some((DeviceId::new(target).ok()?, &**deed)))?
    }

    /// Whether an output was left switched on, or a door open, that was to be switched back.
    pub fn leaves_on(&self) -> bool {
        self.detail.starts_with(outcome::LEFT_ON)
    }

    /// The event that tells of it.
    pub fn draft(&self, at: &Stamp, action: &Action) -> Draft {
        let params = BTreeMap::from([
            ("action".to_owned(), Value::Text(self.action.as_str().into())),
            ("do".to_owned(), Value::Text(action.deed.as_str().into())),
            ("target".to_owned(), Value::Text(action.device.as_str().into())),
            ("progress".to_owned(), Value::Text(self.progress.as_str().into())),
            ("attempt".to_owned(), Value::Int(i64::from(self.attempt))),
            ("detail".to_owned(), Value::Text(self.detail.as_str().into())),
        ]);
        let severity =
            matches!(self.progress, Progress::Failed | Progress::Unknown).then_some(Severity::Minor);
        let text = Text {
            zh: "联动结果".to_owned(),
            en: format!("{}: {}", action.deed.as_str(), self.progress.as_str()),
        };
        let whereabouts = (Place::default(), Category::Device);
        own_event(at, (ACTION_REPORTED, severity), whereabouts, params, text, action.test)
    }

    /// Reads it back from its event.
    pub fn read(record: &Record) -> Option<Self> {
        let event = own(record, ACTION_REPORTED)?;
        let text = |name: &str| match event.params.get(name) {
            Some(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        let progress = serde_json::from_value(serde_json::Value::String(text("progress")?)).ok()?;
        let attempt = match event.params.get("attempt") {
            Some(Value::Int(attempt)) => u32::try_from(*attempt).ok()?,
            _ => return None,
        };
        Some(Self { action: text("action")?, progress, attempt, detail: text("detail")? })
    }
}

fn own_event(
    at: &Stamp,
    (name, severity): (&str, Option<Severity>),
    (place, category): (Place, Category),
    params: BTreeMap<String, Value>,
    text: Text,
    test: bool,
) -> Draft {
    let event = Event {
        device: DeviceRef::gateway(None),
        place,
        category,
        name: name.to_owned(),
        severity,
        params,
        text: Some(text),
    };
    Draft { at: at.clone(), test, dedup: None, body: Body::Event(Box::new(event)) }
}

/// The event, if it is the gateway's own and has this name. No configured device can speak as the gateway: those have a
/// profile.
pub(super) fn own<'a>(record: &'a Record, name: &str) -> Option<&'a Event> {
    match &record.body {
        Body::Event(event) if event.name == name && event.device.is_gateway() => Some(event),
        _ => None,
    }
}
