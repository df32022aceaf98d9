//! How fresh a device's values are (promise G11): a silent device's last values become stale, then the device is
//! offline, and nothing is online before it has spoken. Pure: (what is known, now) → drafts, the change, and when to
//! look again. The change is returned, not made: whoever commits the drafts settles it only when they are on disk.
//!
//! Times are monotonic milliseconds. After a start, and after the line to all devices was down, silence counts anew, so
//! that nothing is stale or offline for the gateway's own absence.
//!
//! Limits: the last sample of each point, at most [`super::profile::POINTS_PER_PROFILE_MAX`] a device.

use std::collections::BTreeMap;

use super::profile::{Profile, Subject, TEXTS_BYTES_MAX};
use crate::model::ids::PointName;
use crate::model::record::{
    Body, Category, Draft, Event, Quality, QualityReason, Sample, Severity, Telemetry, Text, Value,
};
use crate::model::stamp::Stamp;
use crate::rt::board::Standing;

/// Values are stale after so many halves of the heartbeat: one late message is no silence.
const STALE_AFTER_HALVES: u64 = 3;

/// The device is offline after so many heartbeats: two lost messages are no death.
const OFFLINE_AFTER: u64 = 3;

const _: () = assert!(STALE_AFTER_HALVES < 2 * OFFLINE_AFTER);

/// Stale values of one record: each bears age and reason, so fewer fit than of good ones.
const SAMPLES_PER_RECORD_MAX: usize = 32;

/// What a device promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    heartbeat_ms: Option<u64>,
    /// Whether its profile has a topic by which others say that it cannot be reached.
    availability: bool,
    /// It says nothing else: then what is said of it counts as its own word.
    availability_alone: bool,
    /// Severity of `device.offline`.
    severity: Option<Severity>,
}

impl Promise {
    /// From the profile, and the device's own key if it has one.
    pub fn new(profile: &Profile, heartbeat_s: Option<u32>) -> Self {
        let availability = profile.mqtt.as_ref().and_then(|mqtt| mqtt.availability.as_ref());
        Self {
            heartbeat_ms: heartbeat_s.or(profile.heartbeat_s).map(|s| u64::from(s) * 1_000),
            availability: availability.is_some(),
            availability_alone: profile.points.is_empty() && profile.events.is_empty(),
            severity: availability.map_or(Some(Severity::Warning), |availability| availability.severity),
        }
    }

    /// Whether the device can ever be told as offline.
    pub const fn watched(&self) -> bool {
        self.heartbeat_ms.is_some() || self.availability
    }

    /// How long it may be silent before its values are stale.
    pub fn stale_after_ms(&self) -> Option<u64> {
        Some(self.heartbeat_ms?.saturating_mul(STALE_AFTER_HALVES) / 2)
    }

    fn offline_after_ms(&self) -> Option<u64> {
        Some(self.heartbeat_ms?.saturating_mul(OFFLINE_AFTER))
    }
}

/// The state of the line that a device hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Nobody on it can be heard: its devices' values grow stale, but that is no fault of theirs.
    Down,
}

/// What is known of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    standing: Standing,
    since_ms: u64,
    /// From when silence counts.
    quiet_since_ms: u64,
    last: BTreeMap<PointName, Last>,
}

#[derive(Debug, Clone, PartialEq)]
struct Last {
    sample: Sample,
    taken_ms: u64,
    /// Told as stale already: once is enough.
    stale: bool,
}

/// What to remember when the drafts are on disk.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "settle it when its drafts are on disk"]
pub struct Change {
    standing: Standing,
    now_ms: u64,
    /// Whether silence counts from now.
    spoke: bool,
    samples: Vec<Sample>,
    values_stale: bool,
}

impl Watch {
    /// Of a device that was not heard yet; `now_ms` is the start.
    pub const fn new(now_ms: u64) -> Self {
        Self { standing: Standing::Unheard, since_ms: now_ms, quiet_since_ms: now_ms, last: BTreeMap::new() }
    }

    /// How it stands, and since when.
    pub const fn standing(&self) -> (Standing, u64) {
        (self.standing, self.since_ms)
    }

    /// The device said something live, of which `drafts` were made. Returns `device.online` if that is news: after
    /// `device.offline`, and at its first word after a start, since it may have been offline before.
    pub fn heard(
        &self,
        promise: &Promise,
        subject: &Subject,
        at: &Stamp,
        drafts: &[Draft],
    ) -> (Option<Draft>, Change) {
        let mut change = Self::change(Standing::Fresh, at);
        change.spoke = true;
        if !promise.watched() {
            return (None, change);
        }
        let telemetry = drafts.iter().filter_map(|draft| match &draft.body {
            Body::Telemetry(telemetry) => Some(&telemetry.samples),
            _ => None,
        });
        change.samples = telemetry.flatten().filter(|s| s.quality == Quality::Good).cloned().collect();
        let online = match self.standing {
            Standing::Unheard => Some("first_word"),
            Standing::Offline => Some("spoke_again"),
            Standing::Fresh | Standing::Stale => None,
        };
        (online.map(|reason| online_event(subject, at, reason)), change)
    }

    /// Somebody said whether the device can be reached. That it can is only news where it was told that it cannot; it
    /// is not online before it spoke itself.
    pub fn told(
        &self,
        promise: &Promise,
        subject: &Subject,
        at: &Stamp,
        reachable: bool,
    ) -> (Vec<Draft>, Change) {
        match (reachable, self.standing) {
            (false, Standing::Offline) => (Vec::new(), Self::change(Standing::Offline, at)),
            (false, _) => self.offline(promise, subject, at, "availability"),
            (true, Standing::Offline) => {
                // Its values stay what they are until it speaks.
                let standing = if promise.availability_alone { Standing::Fresh } else { Standing::Stale };
                let change = Change { spoke: true, ..Self::change(standing, at) };
                (vec![online_event(subject, at, "availability")], change)
            }
            (true, Standing::Unheard) if promise.availability_alone => {
                let change = Change { spoke: true, ..Self::change(Standing::Fresh, at) };
                (vec![online_event(subject, at, "first_word")], change)
            }
            (true, standing) => (Vec::new(), Self::change(standing, at)),
        }
    }

    /// When silence means something next.
    pub fn due_ms(&self, promise: &Promise, line: Line) -> Option<u64> {
        let after_ms = match (self.standing, line) {
            (Standing::Fresh, _) => promise.stale_after_ms(),
            // On a dead line nobody can say whether the device lives.
            (Standing::Unheard | Standing::Stale, Line::Up) => promise.offline_after_ms(),
            (Standing::Unheard | Standing::Stale, Line::Down) | (Standing::Offline, _) => None,
        };
        Some(self.quiet_since_ms.saturating_add(after_ms?))
    }

    /// What the silence until now means, if anything; after it is settled, it may mean more.
    pub fn silence(
        &self,
        promise: &Promise,
        subject: &Subject,
        at: &Stamp,
        line: Line,
    ) -> Option<(Vec<Draft>, Change)> {
        if self.due_ms(promise, line)? > at.mono_ms {
            return None;
        }
        if self.standing != Standing::Fresh {
            let reason = if self.standing == Standing::Unheard { "never_heard" } else { "silent" };
            return Some(self.offline(promise, subject, at, reason));
        }
        let reason = match line {
            Line::Up => QualityReason::Silent,
            Line::Down => QualityReason::LineFailed,
        };
        let change = Change { values_stale: true, ..Self::change(Standing::Stale, at) };
        Some((self.stale(subject, at, reason), change))
    }

    /// The line is back: everybody gets the time to speak.
    pub const fn line_back(&mut self, now_ms: u64) {
        self.quiet_since_ms = now_ms;
    }

    /// The drafts that came with the change are on disk.
    pub fn settle(&mut self, change: Change) {
        if self.standing != change.standing {
            self.standing = change.standing;
            self.since_ms = change.now_ms;
        }
        if change.spoke {
            self.quiet_since_ms = change.now_ms;
        }
        for last in self.last.values_mut() {
            last.stale |= change.values_stale;
        }
        for sample in change.samples {
            let last = Last { taken_ms: change.now_ms.saturating_sub(sample.age_ms), sample, stale: false };
            self.last.insert(last.sample.point.clone(), last);
        }
    }

    fn change(standing: Standing, at: &Stamp) -> Change {
        Change { standing, now_ms: at.mono_ms, spoke: false, samples: Vec::new(), values_stale: false }
    }

    fn offline(
        &self,
        promise: &Promise,
        subject: &Subject,
        at: &Stamp,
        reason: &str,
    ) -> (Vec<Draft>, Change) {
        let text = Text { zh: "设备离线".to_owned(), en: "device offline".to_owned() };
        let silent_ms = at.mono_ms.saturating_sub(self.quiet_since_ms);
        let silent_ms = Value::Int(i64::try_from(silent_ms).unwrap_or(i64::MAX));
        let mut params = BTreeMap::from([("reason".to_owned(), Value::Text(reason.into()))]);
        params.insert("silent_ms".to_owned(), silent_ms);
        let mut drafts = vec![event(subject, at, "device.offline", promise.severity, params, text)];
        drafts.extend(self.stale(subject, at, QualityReason::Offline));
        (drafts, Change { values_stale: true, ..Self::change(Standing::Offline, at) })
    }

    /// The last values that were not told as stale yet, each with its own age: never stamped as new.
    fn stale(&self, subject: &Subject, at: &Stamp, reason: QualityReason) -> Vec<Draft> {
        let mut pages: Vec<Vec<Sample>> = Vec::new();
        let mut texts = 0;
        for last in self.last.values().filter(|last| !last.stale) {
            let text_bytes = match &last.sample.value {
                Some(Value::Text(text)) => text.len(),
                _ => 0,
            };
            let room = |page: &Vec<Sample>| {
                page.len() < SAMPLES_PER_RECORD_MAX && texts + text_bytes <= TEXTS_BYTES_MAX / 2
            };
            if !pages.last().is_some_and(room) {
                pages.push(Vec::new());
                texts = 0;
            }
            texts += text_bytes;
            let age_ms = at.mono_ms.saturating_sub(last.taken_ms);
            let sample =
                Sample { quality: Quality::Stale, reason: Some(reason), age_ms, ..last.sample.clone() };
            if let Some(page) = pages.last_mut() {
                page.push(sample);
            }
        }
        let draft = |samples| {
            let (device, place) = (subject.device.clone(), subject.place.clone());
            let body = Body::Telemetry(Telemetry { device, place, samples });
            Draft { at: at.clone(), test: subject.test, dedup: None, body }
        };
        pages.into_iter().map(draft).collect()
    }
}

fn online_event(subject: &Subject, at: &Stamp, reason: &str) -> Draft {
    let text = Text { zh: "设备在线".to_owned(), en: "device online".to_owned() };
    let params = BTreeMap::from([("reason".to_owned(), Value::Text(reason.into()))]);
    event(subject, at, "device.online", None, params, text)
}

fn event(
    subject: &Subject,
    at: &Stamp,
    name: &str,
    severity: Option<Severity>,
    params: BTreeMap<String, Value>,
    text: Text,
) -> Draft {
    let event = Event {
        device: subject.device.clone(),
        place: subject.place.clone(),
        category: Category::Device,
        name: name.to_owned(),
        severity,
        params,
        text: Some(text),
    };
    Draft { at: at.clone(), test: subject.test, dedup: None, body: Body::Event(Box::new(event)) }
}

#[cfg(test)]
mod tests;
