//! From an alarm to what devices are to do about it: which devices, in which order, and what became of it. Pure.
//!
//! An action that was asked for is a row until its end is reported; so a restart finds it. Its deadline sees to it that
//! none is forgotten: what nobody reported by then is reported as unknown here. What ends badly raises the alarm
//! [`FAILED_RULE`] of its device, which ends when the device does something again.
//!
//! Limits: [`ACTIONS_AT_ONCE_MAX`] for one change of an alarm, [`ACTIONS_PENDING_MAX`] under way; beyond them nothing is
//! asked, and a record says so.

pub mod check;
pub mod spec;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::spec::{ActionSpec, Near};
use super::directory::{Directory, Entry};
use super::signal::{Clear, Raise, Signal};
use super::table::{Row, Rows, Table};
use super::time::Time;
use super::{Now, Out, Part};
use crate::model::action::{Action, Deed, Progress, Report, is_id_of_question};
use crate::model::alarm::Alarm;
use crate::model::ids::{DeviceId, RuleName};
use crate::model::limits::{ACTIONS_AT_ONCE_MAX, ACTIONS_PENDING_MAX, REST_PAUSE_MS_MAX};
use crate::model::record::{Category, DeviceRef, Draft, Event, Severity, Text, Value};
use crate::model::stamp::Stamp;

/// Event: the alarm is older than its actions may be, and nothing was done.
pub const ACTION_EXPIRED: &str = "action.expired";
/// Event: something was not asked for; `reason` says why.
pub const ACTION_WITHHELD: &str = "action.withheld";
/// The rule under whose name a device's failure to act is an alarm.
pub const FAILED_RULE: &str = "action-failed";

/// After an action's time the executor has so long to tell how it ended, beside the time that a pulse takes: a write
/// under way waits up to 65 s for its reply.
const REPORT_GRACE_MS: u64 = 75_000;
/// One alarm for a device that fails again and again.
const FAILED_COOLDOWN_MS: u64 = 600_000;

/// What an alarm asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) alarm: Alarm,
    pub(super) specs: Vec<ActionSpec>,
    /// When the condition arose.
    pub(super) at: Stamp,
    pub(super) act_within_ms: u64,
    pub(super) test: bool,
}

/// An action under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    action: Action,
    due_ms: u64,
    /// A person ordered it, and it was begun at once: how it ends is their answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
}

/// A door that fire holds open, until a person resets it. By the door's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hold {
    action: String,
}

impl Row for Hold {}

impl Row for Pending {
    fn due_ms(&self) -> Option<u64> {
        Some(self.due_ms)
    }
}

/// Actions under way.
#[derive(Debug)]
pub(super) struct Actions {
    directory: Arc<Directory>,
    utc_offset_min: i32,
    pending: Table<Pending>,
    holds: Table<Hold>,
    /// Where time stands: a deadline that fires late, after a restart, has its own moment, and actions have this one.
    present: Option<Time>,
}

impl Actions {
    pub(super) fn new(directory: Arc<Directory>, utc_offset_min: i32) -> Self {
        let (pending, holds) = (Table::new("action/"), Table::new("hold/"));
        Self { directory, utc_offset_min, pending, holds, present: None }
    }

    /// Time has come so far.
    pub(super) fn present(&mut self, time: &Time) {
        self.present = Some(time.clone());
    }

    /// How old a moment is, at present. Unknown across a restart in which no clock was trusted.
    fn age_ms(&self, now: &Now, at: &Stamp) -> Option<u64> {
        let Some(present) = &self.present else { return at.age_ms(&now.at) };
        let late = present.t_ms.saturating_sub(now.t_ms);
        at.age_ms(&present.at).map(|age| age.max(late))
    }

    /// Chooses devices and asks them, by records.
    pub(super) fn ask(&self, now: &Now, asked: &Asked, out: &mut Out) {
        // A test calls nobody.
        if asked.test || asked.specs.is_empty() {
            return;
        }
        let age = self.age_ms(now, &asked.at);
        let mut number = 0_usize;
        for (index, spec) in asked.specs.iter().enumerate() {
            let late = match age {
                Some(age) => age > asked.act_within_ms,
                // Words do no harm when they come late; a door does.
                None => spec.speak.is_none(),
            };
            if late {
                out.drafts.push(expired(now, asked, index, age));
                continue;
            }
            if let Some(reason) = self.withheld(now, asked, spec) {
                out.drafts.push(withheld(now, asked, index, reason));
                continue;
            }
            let (mut found, mut speechless) = (false, false);
            for (id, entry) in spec.targets(&self.directory, &asked.alarm.raised.place) {
                found = true;
                if number >= ACTIONS_AT_ONCE_MAX || self.pending.len() + number >= ACTIONS_PENDING_MAX {
                    out.drafts.push(withheld(now, asked, index, "limit"));
                    break;
                }
                // `check` finds it first; but what waits in a row was asked for under another configuration.
                if spec.publish.as_ref().is_some_and(|it| self.directory.trespass(id, &it.topic).is_some()) {
                    out.drafts.push(withheld(now, asked, index, "trespass"));
                    continue;
                }
                let Some(deed) = deed(spec, asked, entry) else {
                    speechless = true;
                    continue;
                };
                number += 1;
                let action = action(asked, (id, deed), number);
                out.drafts.push(action.draft(&now.at, &entry.place, asked.alarm.raised.category));
            }
            if !found {
                out.drafts.push(withheld(now, asked, index, "no_target"));
            }
            if speechless {
                out.drafts.push(withheld(now, asked, index, "cannot_say"));
            }
        }
    }

    /// Why an entry is not carried out for this alarm.
    fn withheld(&self, now: &Now, asked: &Asked, spec: &ActionSpec) -> Option<&'static str> {
        // Fire opens the affected unit, and a unit that nobody knows is none.
        let raised = &asked.alarm.raised;
        if spec.unlock.is_some_and(|unlock| unlock.hold) && raised.category != Category::Fire {
            return Some("not_fire");
        }
        if spec.unlock.is_some()
            && spec.on.devices.is_empty()
            && spec.on.place.is_none_or(|near| near == Near::Compound)
        {
            return Some("no_place");
        }
        let minute = now.at.site_minute(self.utc_offset_min)?;
        let quiet = spec.speak.is_some() && spec.quiet.as_ref().is_some_and(|quiet| quiet.holds(minute));
        (quiet && asked.alarm.severity() < Some(Severity::Critical)).then_some("quiet")
    }

    /// An action's record is stored: it is under way from now on.
    pub(super) fn asked(&mut self, now: &Now, action: &Action, begun: bool) {
        let age = self.age_ms(now, &action.at).unwrap_or(0);
        let left = action.act_within_ms.saturating_sub(age);
        let due_ms = now
            .t_ms
            .saturating_add(left)
            .saturating_add(action.deed.lasts_ms())
            .saturating_add(REPORT_GRACE_MS);
        self.pending.put(&action.id, Pending { action: action.clone(), due_ms, begun });
    }

    /// What became of an attempt. One that was given up raises an alarm.
    pub(super) fn reported(&mut self, now: &Now, report: &Report, signals: &mut Vec<Signal>) {
        let Some(pending) = self.pending.get(&report.action) else { return };
        if !report.progress.is_final() {
            // A door that stays shut in a fire is news at once, not when nobody tries any more.
            let Pending { action, begun, due_ms } = pending.clone();
            if is_hold(&action.deed) || report.leaves_on() {
                signals.extend(self.failed(now, &action, report));
            }
            // So long as somebody tries to switch it back, it is under way.
            if report.leaves_on() {
                let due_ms = due_ms.max(now.t_ms.saturating_add(REST_PAUSE_MS_MAX + REPORT_GRACE_MS));
                self.pending.put(&report.action, Pending { action, due_ms, begun });
            }
            return;
        }
        let Pending { action, begun, .. } = pending.clone();
        self.pending.remove(&report.action);
        self.hold(&action, report.progress);
        match report.progress {
            // [`Self::done`] ends the alarm.
            Progress::Accepted | Progress::Confirmed => {}
            // Whoever ordered it has the answer. What stays switched on is everybody's affair.
            _ if begun && !report.leaves_on() => {}
            Progress::Failed | Progress::Unknown | Progress::Expired => {
                signals.extend(self.failed(now, &action, report));
            }
            Progress::Preempted | Progress::Retrying => {}
        }
    }

    /// A device has done what it was asked, whoever asked: it can again. Reset, a door is held open no more.
    pub(super) fn done(
        &mut self,
        now: &Now,
        (device, deed): (&DeviceId, &str),
        test: bool,
        signals: &mut Vec<Signal>,
    ) {
        if deed == Deed::Lock.as_str() {
            self.holds.remove(device.as_str());
        }
        signals.extend(well(now, device, test));
    }

    /// A door that is held open, or may be, is locked by nobody but a person, whatever restarts.
    fn hold(&mut self, action: &Action, progress: Progress) {
        let may_be = matches!(progress, Progress::Accepted | Progress::Confirmed | Progress::Unknown);
        if may_be && is_hold(&action.deed) {
            self.holds.put(action.device.as_str(), Hold { action: action.id.clone() });
        }
    }

    /// The doors that fire holds open.
    pub(super) fn held(&self) -> Vec<DeviceId> {
        self.holds.iter().filter_map(|(door, _)| DeviceId::new(door).ok()).collect()
    }

    /// The deadline of a row has come: nobody has told how it ended.
    pub(super) fn fire(&mut self, now: &Now, key: &str, signals: &mut Vec<Signal>, out: &mut Out) {
        let Some(action) = self.pending.get(key).map(|pending| pending.action.clone()) else { return };
        self.pending.remove(key);
        let report = Report {
            action: action.id.clone(),
            progress: Progress::Unknown,
            attempt: 1,
            detail: "nobody has told how it ended".to_owned(),
        };
        self.hold(&action, report.progress);
        out.drafts.push(report.draft(&now.at, &action));
        signals.extend(self.failed(now, &action, &report));
    }

    /// Those under way when the state was loaded.
    pub(super) fn unfinished(&self) -> Vec<Action> {
        self.pending.iter().map(|(_, pending)| pending.action.clone()).collect()
    }

    /// The alarm of a device that did not do what it was asked.
    fn failed(&self, now: &Now, action: &Action, report: &Report) -> Option<Signal> {
        let entry = self.directory.devices.get(&action.device);
        let device = DeviceRef {
            id: action.device.clone(),
            kind: entry.map_or_else(|| "device".to_owned(), |entry| entry.kind.clone()),
            profile: entry.map(|entry| entry.profile.clone()),
            bus: entry.and_then(|entry| entry.bus.clone()),
        };
        let text = |text: &str| Value::Text(text.into());
        let mut params = BTreeMap::from([
            ("do".to_owned(), text(action.deed.as_str())),
            ("progress".to_owned(), text(report.progress.as_str())),
            ("detail".to_owned(), text(&report.detail)),
        ]);
        // The alarm goes to platforms; which household was asked does not.
        if !is_id_of_question(&action.id) {
            params.insert("action".to_owned(), text(&action.id));
            params.extend(action.alarm.as_ref().map(|alarm| ("alarm".to_owned(), text(alarm))));
        }
        let grave = action.severity >= Some(Severity::Major);
        let condition = Event {
            device,
            place: entry.map(|entry| entry.place.clone()).unwrap_or_default(),
            category: Category::Device,
            name: "action.failed".to_owned(),
            severity: Some(if grave { Severity::Major } else { Severity::Minor }),
            params,
            text: Some(Text {
                zh: "联动未完成，请检查设备".to_owned(),
                en: format!("{} was not carried out; check the device", action.deed.as_str()),
            }),
        };
        Some(Signal::Raise(Box::new(Raise {
            rule: rule()?,
            subject: action.device.as_str().to_owned(),
            at: now.at.clone(),
            condition,
            lasts: true,
            latched: false,
            cooldown_ms: FAILED_COOLDOWN_MS,
            escalate: None,
            actions: Vec::new(),
            act_within_ms: 0,
            hides: Vec::new(),
            test: action.test,
        })))
    }
}

fn rule() -> Option<RuleName> {
    RuleName::new(FAILED_RULE).ok()
}

/// Fire holds the door open.
const fn is_hold(deed: &Deed) -> bool {
    matches!(deed, Deed::Unlock { pulse_ms: None })
}

/// The device did what it was asked: it can again.
fn well(now: &Now, device: &DeviceId, test: bool) -> Option<Signal> {
    let subject = device.as_str().to_owned();
    Some(Signal::Clear(Clear { rule: rule()?, subject, at: now.at.clone(), test }))
}

/// What one device is to do; nothing if its profile cannot say that.
fn deed(spec: &ActionSpec, asked: &Asked, entry: &Entry) -> Option<Deed> {
    if let Some(speech) = &spec.speak {
        let most = entry.abilities.speaker.map_or(0, |speaker| speaker.text_chars_max);
        // A template that cannot be filled in is said without its holes rather than not at all.
        let place = &asked.alarm.raised.place;
        let said =
            |words: &str| words::render(words, place).unwrap_or_else(|_unfilled| words::without_holes(words));
        let text: Option<String> = speech.words().map(|words| said(words).chars().take(most).collect());
        let text = text.filter(|text| !text.is_empty());
        if text.is_none() && speech.clip.is_none() {
            return None;
        }
        let repeat = speech.repeat.unwrap_or(1).max(1);
        return Some(Deed::Speak {
            text,
            clip: speech.clip.clone(),
            volume: speech.volume().min(100),
            repeat,
            until: speech.until,
        });
    }
    if let Some(unlock) = spec.unlock {
        return Some(Deed::Unlock { pulse_ms: if unlock.hold { None } else { unlock.pulse_ms } });
    }
    if let Some(relay) = &spec.relay {
        let for_ms = relay.for_s.map(|for_s| for_s.saturating_mul(1_000));
        return Some(Deed::Relay { point: relay.point.clone(), on: relay.on, for_ms });
    }
    let message = spec.publish.as_ref()?;
    Some(Deed::Publish { topic: message.topic.clone(), payload: message.payload.clone() })
}

fn action(asked: &Asked, (device, deed): (&DeviceId, Deed), number: usize) -> Action {
    let alarm = &asked.alarm;
    // An alarm asks again when it escalates: its revision tells both apart.
    let id = format!("{}.{}-{number}", alarm.alarm, alarm.rev);
    Action {
        id,
        device: device.clone(),
        deed,
        alarm: Some(alarm.alarm.clone()),
        severity: alarm.severity(),
        at: asked.at.clone(),
        act_within_ms: asked.act_within_ms,
        test: asked.test,
    }
}

fn expired(now: &Now, asked: &Asked, index: usize, age: Option<u64>) -> Draft {
    let text = Text {
        zh: "报警已过时，只记录不联动".to_owned(),
        en: "the alarm is too old to act upon; it stands".to_owned(),
    };
    let age = age.and_then(|age| i64::try_from(age).ok()).map(|age| ("age_ms".to_owned(), Value::Int(age)));
    notice(now, asked, (ACTION_EXPIRED, index), age.into_iter().collect(), text)
}

fn withheld(now: &Now, asked: &Asked, index: usize, reason: &str) -> Draft {
    let text = Text { zh: "联动未执行".to_owned(), en: "an action was not asked for".to_owned() };
    let params = BTreeMap::from([("reason".to_owned(), Value::Text(reason.into()))]);
    notice(now, asked, (ACTION_WITHHELD, index), params, text)
}

fn notice(
    now: &Now,
    asked: &Asked,
    (name, index): (&str, usize),
    mut params: BTreeMap<String, Value>,
    text: Text,
) -> Draft {
    params.insert("alarm".to_owned(), Value::Text(asked.alarm.alarm.as_str().into()));
    params.insert("entry".to_owned(), Value::Int(i64::try_from(index).unwrap_or(0)));
    let mut draft = Draft::of_gateway(&now.at, None, (name, None), params, text);
    draft.test = asked.test;
    draft
}

impl Part for Actions {
    fn tables(&self) -> Vec<&dyn Rows> {
        vec![&self.pending, &self.holds]
    }

    fn tables_mut(&mut self) -> Vec<&mut dyn Rows> {
        vec![&mut self.pending, &mut self.holds]
    }

    fn next_due(&self) -> Option<(u64, String)> {
        self.pending.next_due().map(|(due, key)| (due, key.to_owned()))
    }
}
