//! What care says: its signals, its records, and their texts. No illness and no name stands in them, and nothing of what
//! was seen: they leave the box.

use std::collections::BTreeMap;

use crate::model::ids::{CareName, DeviceId, RuleName};
use crate::model::place::Place;
use crate::model::record::{Body, Category, DeviceRef, Draft, Event, Severity, Text, Value};

use super::super::Now;
use super::super::directory::Directory;
use super::super::signal::{Clear, Escalation, Raise, Signal};
use super::config::Household;
use super::flow::Excess;
use super::sensor::Recorded;

pub(super) const INACTIVITY: &str = "care-inactivity";
pub(super) const LEAK: &str = "care-leak";
pub(super) const SENSOR_OFFLINE: &str = "care-sensor-offline";
pub(super) const NIGHT: &str = "care-night";

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// What is done with an alarm of care may come later than with one of a button, but not the next day.
const ACT_WITHIN_MS: u64 = HOUR_MS;

/// The same night is told once.
const NIGHT_COOLDOWN_MS: u64 = 12 * HOUR_MS;

type Known<'a> = (&'a CareName, &'a Directory);

fn rule(name: &str) -> RuleName {
    RuleName::new(name).unwrap_or_else(|error| unreachable!("{name:?} is a name: {error}"))
}

fn place(household: &Household, directory: &Directory) -> Place {
    let first = household.signals.first().and_then(|sign| directory.devices.get(&sign.device));
    household.place.clone().or_else(|| first.map(|entry| entry.place.clone())).unwrap_or_default()
}

fn whole(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn event(
    household: &Household,
    (name, directory): Known<'_>,
    (event, severity): (&str, Option<Severity>),
    params: Vec<(&str, Value)>,
    text: Text,
) -> Event {
    let mut params: BTreeMap<String, Value> =
        params.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    params.insert("care".to_owned(), Value::Text(name.as_str().into()));
    Event {
        device: DeviceRef::gateway(None),
        place: place(household, directory),
        category: Category::Care,
        name: event.to_owned(),
        severity,
        params,
        text: Some(text),
    }
}

/// No sign for so long.
pub(super) fn inactivity(household: &Household, known: Known<'_>, quiet_ms: u64) -> Event {
    let hours = quiet_ms / HOUR_MS;
    let params = vec![
        ("window_h", Value::Int(i64::from(household.window_h))),
        ("quiet_h", whole(hours)),
        ("contact_id", Value::Text(household.codes.contact_id.as_str().into())),
        ("sia", Value::Text(household.codes.sia.as_str().into())),
    ];
    let text = Text {
        zh: format!("关爱住户已 {hours} 小时没有活动迹象，请上门查看"),
        en: format!("no sign of activity for {hours} hours in a household under care; please look in"),
    };
    event(household, known, ("care.no_activity", Some(household.severity)), params, text)
}

pub(super) fn raise_inactivity(now: &Now, household: &Household, known: Known<'_>, quiet_ms: u64) -> Signal {
    let escalate = household.escalate_min.map(|minutes| Escalation {
        after_ms: u64::from(minutes).saturating_mul(MINUTE_MS),
        to: Severity::Critical,
    });
    let condition = inactivity(household, known, quiet_ms);
    let mut raise = raise(now, (INACTIVITY, known.0.as_str()), condition);
    raise.escalate = escalate;
    raise.actions.clone_from(&household.actions);
    Signal::Raise(Box::new(raise))
}

pub(super) fn leak(now: &Now, household: &Household, known: Known<'_>, excess: Excess) -> Signal {
    let (kind, text) = match excess {
        Excess::EveryHalfHour => (
            "every_half_hour",
            Text {
                zh: "关爱住户 24 小时用水不断，可能漏水或忘关水".to_owned(),
                en: "water has flowed in every half hour of a day in a household under care".to_owned(),
            },
        ),
        Excess::Day => (
            "day_volume",
            Text {
                zh: "关爱住户 24 小时用水过多，可能漏水".to_owned(),
                en: "too much water in 24 hours in a household under care".to_owned(),
            },
        ),
    };
    let params = vec![("leak", Value::Text(kind.into()))];
    let condition = event(household, known, ("care.leak", Some(Severity::Minor)), params, text);
    Signal::Raise(Box::new(raise(now, (LEAK, known.0.as_str()), condition)))
}

pub(super) fn night(now: &Now, household: &Household, known: Known<'_>) -> Signal {
    let text = Text {
        zh: "关爱住户夜间多次开门，请关注".to_owned(),
        en: "the door of a household under care was opened again and again at night".to_owned(),
    };
    let named = ("care.restless_night", Some(Severity::Minor));
    let condition = event(household, known, named, Vec::new(), text);
    let mut raise = raise(now, (NIGHT, known.0.as_str()), condition);
    (raise.lasts, raise.cooldown_ms) = (false, NIGHT_COOLDOWN_MS);
    Signal::Raise(Box::new(raise))
}

/// A sensor of a household is silent: nobody knows whether all is well.
pub(super) fn sensor_offline(now: &Now, id: &DeviceId, directory: &Directory, silent_ms: u64) -> Signal {
    let entry = directory.devices.get(id);
    let device = DeviceRef {
        id: id.clone(),
        kind: entry.map(|entry| entry.kind.clone()).unwrap_or_default(),
        profile: entry.map(|entry| entry.profile.clone()),
        bus: entry.and_then(|entry| entry.bus.clone()),
    };
    let condition = Event {
        device,
        place: entry.map(|entry| entry.place.clone()).unwrap_or_default(),
        category: Category::Care,
        name: "care.sensor_offline".to_owned(),
        severity: Some(Severity::Minor),
        params: BTreeMap::from([("silent_min".to_owned(), whole(silent_ms / MINUTE_MS))]),
        text: Some(Text {
            zh: "关爱住户的传感器离线，无法判断是否有活动".to_owned(),
            en: "a sensor of a household under care is silent; nobody can tell whether all is well"
                .to_owned(),
        }),
    };
    Signal::Raise(Box::new(raise(now, (SENSOR_OFFLINE, id.as_str()), condition)))
}

fn raise(now: &Now, (name, subject): (&str, &str), condition: Event) -> Raise {
    Raise {
        rule: rule(name),
        subject: subject.to_owned(),
        at: now.at.clone(),
        condition,
        lasts: true,
        latched: false,
        cooldown_ms: 0,
        escalate: None,
        actions: Vec::new(),
        act_within_ms: ACT_WITHIN_MS,
        hides: Vec::new(),
        test: false,
    }
}

pub(super) fn clear(name: &str, subject: &str, now: &Now) -> Signal {
    Signal::Clear(Clear { rule: rule(name), subject: subject.to_owned(), at: now.at.clone(), test: false })
}

/// Consent was given, changed or taken back.
pub(super) fn consent(now: &Now, household: &Household, known: Known<'_>, stated: &Recorded) -> Draft {
    let text = |text: &str| Value::Text(text.into());
    let mut params = vec![("date", text(&stated.date)), ("by", text(&stated.by))];
    let (name, words) = match &stated.revoked {
        None => {
            let (zh, en) = ("住户同意关爱服务", "consent to care is on record");
            ("care.consent_given", Text { zh: zh.to_owned(), en: en.to_owned() })
        }
        Some(date) => {
            params.push(("revoked", text(date)));
            let (zh, en) = ("住户撤回同意，已停止关爱服务", "consent to care was taken back; it has ended");
            ("care.consent_revoked", Text { zh: zh.to_owned(), en: en.to_owned() })
        }
    };
    let event = event(household, known, (name, None), params, words);
    Draft { at: now.at.clone(), test: false, dedup: None, body: Body::Event(Box::new(event)) }
}
