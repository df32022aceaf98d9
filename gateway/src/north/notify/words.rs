//! From alarms to a message's text: what a template sees, and the templates themselves.
//!
//! Limits: a template may make [`MESSAGE_BYTES_MAX`] bytes.

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::config::Language;
use crate::model::alarm::{Alarm, ChangeKind};
use crate::model::place::Place;
use crate::model::record::{Record, Severity, Text, Value};
use crate::model::stamp::{ClockTrust, Stamp};

/// Whatever a template does, more than this is not sent.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const MAIN: &str = "message";

/// Why there is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("the template is wrong: {0}")]
    Template(String),
    #[error("the template made {0} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    #[error("the template made no JSON: {0}")]
    NotJson(String),
}

/// An alarm as templates see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) rev: u64,
    pub(super) test: bool,
    pub(super) state: String,
    pub(super) severity: String,
    pub(super) severity_text: String,
    pub(super) change: String,
    pub(super) change_text: String,
    pub(super) category: String,
    pub(super) name: String,
    pub(super) text: String,
    pub(super) device: String,
    pub(super) place: Place,
    pub(super) place_text: String,
    /// Of the site; none where the box did not know it.
    pub(super) time: Option<String>,
    pub(super) count: u64,
    pub(super) params: BTreeMap<String, Value>,
}

/// What a message is made of, beside alarms.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Frame {
    pub(super) gateway: String,
    pub(super) compound: String,
    pub(super) timestamp: String,
    pub(super) sign: Option<String>,
    /// Alarms that wait for the next message.
    pub(super) more: usize,
    pub(super) words: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    alarms: &'a [Told],
    #[serde(flatten)]
    frame: &'a Frame,
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template(Environment<'static>);

impl Template {
    pub(super) fn new(text: &str) -> Result<Self, WordsError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment
            .add_template_owned(MAIN, text.to_owned())
            .map_err(|error| WordsError::Template(in_full(&error)))?;
        Ok(Self(environment))
    }

    /// The message about these alarms.
    pub(super) fn render(&self, alarms: &[Told], frame: &Frame) -> Result<String, WordsError> {
        let template = self.0.get_template(MAIN).map_err(|error| WordsError::Template(in_full(&error)))?;
        let text = template
            .render(Serde(Whole { alarms, frame }))
            .map_err(|error| WordsError::Template(in_full(&error)))?;
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(WordsError::TooLarge(text.len()));
        }
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|error| WordsError::NotJson(error.to_string()))?;
        Ok(text)
    }
}

fn in_full(error: &minijinja::Error) -> String {
    error.to_string()
}

/// In the language of the message.
pub(super) fn say(language: Language, zh: &str, en: &str) -> String {
    match language {
        Language::Zh => zh.to_owned(),
        Language::En => en.to_owned(),
        Language::Both => format!("{zh} {en}"),
    }
}

/// The words that templates use.
pub(super) fn words(language: Language) -> BTreeMap<&'static str, String> {
    let pairs = [
        ("alarm", "报警", "Alarm"),
        ("many", "报警条数：", "Alarms:"),
        ("place", "位置：", "Place:"),
        ("time", "时间：", "Time:"),
        ("unknown", "时间未知", "at a time not known"),
    ];
    pairs.into_iter().map(|(key, zh, en)| (key, say(language, zh, en))).collect()
}

/// An alarm's record as people read it. `offset_min`: how far the site's clock is ahead of UTC.
pub(super) fn told(record: &Record, alarm: &Alarm, language: Language, offset_min: i32) -> Told {
    let severity = alarm.severity();
    let change = alarm.change.as_ref().map_or(ChangeKind::Raised, |change| change.what);
    let (change, zh, en) = change_words(change);
    let text = alarm
        .raised
        .text
        .clone()
        .unwrap_or_else(|| Text { zh: alarm.raised.name.clone(), en: alarm.raised.name.clone() });
    Told {
        id: alarm.alarm.clone(),
        rev: alarm.rev,
        test: record.test,
        state: word_of(&alarm.state),
        severity: severity.as_ref().map(word_of).unwrap_or_default(),
        severity_text: severity.map(|severity| severity_words(severity, language)).unwrap_or_default(),
        change: change.to_owned(),
        change_text: if record.test {
            format!("{} {}", say(language, "测试", "TEST"), say(language, zh, en))
        } else {
            say(language, zh, en)
        },
        category: alarm.raised.category.as_str().to_owned(),
        name: alarm.raised.name.clone(),
        text: match language {
            Language::Zh => text.zh,
            Language::En => text.en,
            Language::Both => format!("{} {}", text.zh, text.en),
        },
        device: alarm.raised.device.id.to_string(),
        place: alarm.raised.place.clone(),
        place_text: place_words(&alarm.raised.place, language),
        time: local_time(&record.at, offset_min),
        count: alarm.count.max(1),
        params: alarm.raised.params.clone(),
    }
}

/// The word that stands for a value of an enumeration on the wire.
fn word_of<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn severity_words(severity: Severity, language: Language) -> String {
    let (zh, en) = severity.words();
    say(language, zh, &en.to_uppercase())
}

const fn change_words(change: ChangeKind) -> (&'static str, &'static str, &'static str) {
    match change {
        ChangeKind::Raised => ("raised", "发生", "raised"),
        ChangeKind::RaisedAgain => ("raised_again", "再次发生", "raised again"),
        ChangeKind::Returned => ("returned", "已恢复", "returned"),
        ChangeKind::Acknowledged => ("acknowledged", "已确认", "acknowledged"),
        ChangeKind::Assigned => ("assigned", "已派单", "assigned"),
        ChangeKind::Handled => ("handled", "已处置", "handled"),
        ChangeKind::Closed => ("closed", "已关闭", "closed"),
        ChangeKind::Shelved => ("shelved", "已搁置", "shelved"),
        ChangeKind::Unshelved => ("unshelved", "取消搁置", "unshelved"),
        ChangeKind::OutOfService => ("out_of_service", "已停用", "out of service"),
        ChangeKind::InService => ("in_service", "恢复使用", "in service"),
        ChangeKind::Escalated => ("escalated", "无人确认，已升级", "nobody acknowledged it; escalated"),
        ChangeKind::Flapping => ("flapping", "反复出现", "comes and goes"),
        ChangeKind::Calmed => ("calmed", "已平稳", "calm again"),
        ChangeKind::Folded => ("folded", "并入汇总报警", "folded into one"),
    }
}

fn place_words(place: &Place, language: Language) -> String {
    let floor = place.floor.map(|floor| floor.to_string());
    let parts = [
        (&place.building, "栋", "building "),
        (&place.unit, "单元", "unit "),
        (&floor, "层", "floor "),
        (&place.household, "户", "household "),
    ];
    let known = parts.into_iter().filter_map(|(text, zh, en)| Some((text.as_deref()?, zh, en)));
    let word = |(text, zh, en): (&str, &str, &str)| match language {
        Language::En => format!("{en}{text}"),
        // `3栋` may be what the place says already.
        Language::Zh | Language::Both if text.ends_with(zh) => text.to_owned(),
        Language::Zh | Language::Both => format!("{text}{zh}"),
    };
    let separator = if language == Language::En { ", " } else { "" };
    known.map(word).collect::<Vec<_>>().join(separator)
}

fn local_time(at: &Stamp, offset_min: i32) -> Option<String> {
    if at.trust == ClockTrust::None {
        return None;
    }
    let local_ms = at.wall_ms.saturating_add(i64::from(offset_min).saturating_mul(60_000));
    let time = jiff::Timestamp::from_millisecond(local_ms).ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
