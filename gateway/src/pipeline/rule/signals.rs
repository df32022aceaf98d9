//! What a rule tells the book of alarms.

use std::collections::BTreeMap;

use super::config::RuleConfig;
use super::state::parts;
use crate::model::ids::PointName;
use crate::model::place::Place;
use crate::model::record::{Category, DeviceRef, Event, Value};
use crate::model::stamp::Stamp;
use crate::pipeline::signal::{Escalation, Raise, Signal};

/// Nothing is done about what is older than this: a speaker that speaks of a press of half an hour ago misleads.
const ACT_WITHIN_S: u32 = 30;

/// For fire: leaving a building takes minutes.
const ACT_WITHIN_FIRE_S: u32 = 600;

/// The alarm that an event makes.
pub(super) fn condition(config: &RuleConfig, mut event: Event) -> Event {
    event.params.remove("clears");
    dressed(config, event)
}

/// The alarm that values make. `seen`: the rule's own point and its value; else the points that it names tell.
pub(super) fn of_values(
    config: &RuleConfig,
    device: &DeviceRef,
    place: &Place,
    seen: Option<(&PointName, Option<&Value>)>,
    points: &BTreeMap<PointName, Value>,
) -> Event {
    let mut params = BTreeMap::new();
    match seen {
        Some((point, value)) => {
            params.insert("point".to_owned(), Value::Text(point.as_str().into()));
            params.extend(value.map(|value| ("value".to_owned(), value.clone())));
        }
        None => {
            params.extend(points.iter().map(|(point, value)| (point.as_str().to_owned(), value.clone())));
        }
    }
    bare(config, device, place, params)
}

/// The alarm that silence makes.
pub(super) fn of_silence(config: &RuleConfig, device: &DeviceRef, place: &Place) -> Event {
    let absent_s = i64::from(config.absent_s.unwrap_or_default());
    let params = BTreeMap::from([("absent_s".to_owned(), Value::Int(absent_s))]);
    bare(config, device, place, params)
}

/// With how often it happened.
pub(super) fn counting(mut condition: Event, hits: usize) -> Event {
    let hits = i64::try_from(hits).unwrap_or(i64::MAX);
    condition.params.insert("hits".to_owned(), Value::Int(hits));
    condition
}

fn bare(config: &RuleConfig, device: &DeviceRef, place: &Place, params: BTreeMap<String, Value>) -> Event {
    let event = Event {
        device: device.clone(),
        place: place.clone(),
        category: config.raise.category,
        name: config.name.as_str().to_owned(),
        severity: None,
        params,
        text: None,
    };
    dressed(config, event)
}

fn dressed(config: &RuleConfig, event: Event) -> Event {
    let raise = &config.raise;
    Event {
        category: raise.category,
        name: raise.name.clone().unwrap_or(event.name),
        severity: Some(raise.severity),
        text: Some(raise.text.clone()),
        ..event
    }
}

/// The signal for a rule's row.
pub(super) fn raise(config: &RuleConfig, key: &str, at: &Stamp, condition: Event, lasts: bool) -> Signal {
    let (_, test, subject) = parts(key).unwrap_or((config.name.as_str(), false, key));
    let usual_s = if config.raise.category == Category::Fire { ACT_WITHIN_FIRE_S } else { ACT_WITHIN_S };
    let ms = |seconds: u32| u64::from(seconds).saturating_mul(1_000);
    let escalate =
        config.escalate.map(|escalate| Escalation { after_ms: ms(escalate.after_s), to: escalate.to });
    Signal::Raise(Box::new(Raise {
        rule: config.name.clone(),
        subject: subject.to_owned(),
        at: at.clone(),
        condition,
        lasts,
        latched: config.raise.latched,
        cooldown_ms: ms(config.cooldown_s),
        escalate,
        actions: config.actions.clone(),
        act_within_ms: ms(config.act_within_s.unwrap_or(usual_s)),
        hides: Vec::new(),
        test,
    }))
}
