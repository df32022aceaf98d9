//! Orders to devices: speakers, doors, outputs. Each device is looked up, its place and what it can do are judged, and it
//! acts through [`Act`](crate::model::action::Act).

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, json};
use tokio::time::timeout;

use crate::model::action::{Action, Deed, Progress, Report};
use crate::model::command::{Done, End, Order, Verb};
use crate::model::ids::DeviceId;
use crate::model::record::{Category, Draft};
use crate::pipeline::directory::Entry;

use super::{Desk, answers};

/// Speakers of one order: a compound has some five.
const SPEAKERS_MAX: usize = 64;

/// How long a door is released by order, in milliseconds: time to reach for it.
const DOOR_PULSE_MS: u32 = 5_000;

/// Whoever ordered a door stands before it: later than this after the order was taken it is not opened.
const DOOR_WITHIN_MS: u64 = 10_000;

/// Whoever acts gives up by itself some time after `act_within`; so much longer is waited for its word, which is only
/// missing if it has died.
const WORD_WITHIN: Duration = Duration::from_secs(90);

type Refused = Box<Done>;

fn refused<T>(code: &str, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Box::new(answers::rejected(code, detail)))
}

fn action(order: &Order, device: &DeviceId, (n, deed): (usize, &Deed), within_ms: u64) -> Action {
    Action {
        id: format!("{}.{n}", order.id),
        device: device.clone(),
        deed: deed.clone(),
        alarm: None,
        severity: None,
        at: order.at.clone(),
        act_within_ms: within_ms.min(order.lifetime_ms),
        test: false,
    }
}

impl Desk {
    /// A device within the orderer's scope. One outside it does not exist for them.
    fn device(&self, order: &Order, id: &DeviceId) -> Result<&Entry, Refused> {
        let found = self.parts.directory.devices.get(id).filter(|entry| order.scope.covers(&entry.place));
        found.map_or_else(|| refused("device_unknown", format!("there is no device {id} for you")), Ok)
    }

    async fn act(&self, action: Action) -> Report {
        let id = action.id.clone();
        let patience = Duration::from_millis(action.act_within_ms.saturating_add(action.deed.lasts_ms()));
        let patience = patience.saturating_add(WORD_WITHIN);
        match timeout(patience, self.parts.act.act(action)).await {
            Ok(report) => report,
            Err(_elapsed) => {
                let detail = "no word of it came in time".to_owned();
                Report { action: id, progress: Progress::Unknown, attempt: 0, detail }
            }
        }
    }

    async fn act_once(&self, order: &Order, device: &DeviceId, deed: Deed, within_ms: u64) -> Done {
        let action = action(order, device, (1, &deed), within_ms);
        // What is to be switched back is known to the journal before it is switched on: a restart must find it.
        if deed.lasts_ms() > 0
            && let Err(error) = self.enter(self.begun(&action)).await
        {
            let detail = format!("it could not be remembered, so nothing was done: {error}");
            return answers::rejected("store_failed", detail);
        }
        answers::of_report(&deed, &self.act(action).await)
    }

    fn begun(&self, action: &Action) -> Draft {
        let entry = self.parts.directory.devices.get(&action.device);
        let place = entry.map(|entry| entry.place.clone()).unwrap_or_default();
        action.begun_draft(&self.parts.clock.now(), &place, Category::Device)
    }

    pub(super) async fn open_door(&self, order: &Order, door: &DeviceId) -> Done {
        match self.device(order, door) {
            Err(refused) => return *refused,
            Ok(entry) if !entry.abilities.door => {
                return answers::rejected("not_possible", format!("{door} is no door that can be opened"));
            }
            Ok(_) => {}
        }
        let now_ms = self.parts.clock.mono_ms();
        let opened = self.doors.lock().unwrap_or_else(PoisonError::into_inner).open(door, now_ms);
        if let Err(why) = opened {
            return answers::rejected("too_often", why);
        }
        self.act_once(order, door, Deed::Unlock { pulse_ms: Some(DOOR_PULSE_MS) }, DOOR_WITHIN_MS).await
    }

    pub(super) async fn reset_door(&self, order: &Order, door: &DeviceId) -> Done {
        match self.device(order, door) {
            Err(refused) => *refused,
            Ok(entry) if !entry.abilities.door => {
                answers::rejected("not_possible", format!("{door} is no door that can be opened"))
            }
            Ok(_) => self.act_once(order, door, Deed::Lock, order.lifetime_ms).await,
        }
    }

    pub(super) async fn switch(&self, order: &Order) -> Done {
        let (device, point, deed) = match &order.verb {
            Verb::Relay { device, point, on, for_ms } => {
                (device, point, Deed::Relay { point: point.clone(), on: *on, for_ms: *for_ms })
            }
            Verb::Set { device, point, value } => {
                (device, point, Deed::Set { point: point.clone(), value: value.clone() })
            }
            _ => return answers::rejected("not_possible", "this is no order to an output"),
        };
        match self.device(order, device) {
            Err(refused) => *refused,
            Ok(entry) if entry.abilities.door => {
                answers::rejected("not_possible", format!("{device} is a door: order door.open"))
            }
            Ok(entry) if !entry.abilities.outputs.contains(point) => {
                answers::rejected("not_possible", format!("{device} has no output {point} but for a door's"))
            }
            Ok(_) => self.act_once(order, device, deed, order.lifetime_ms).await,
        }
    }

    /// The speakers that an order names, by id or by tag.
    fn speakers(&self, order: &Order, ids: &[DeviceId], tags: &[String]) -> Result<Vec<DeviceId>, Refused> {
        let mut chosen = BTreeSet::new();
        for id in ids {
            if self.device(order, id)?.abilities.speaker.is_none() {
                return refused("not_possible", format!("{id} is no speaker"));
            }
            chosen.insert(id.clone());
        }
        let tagged = self.parts.directory.devices.iter().filter(|(_, entry)| {
            entry.abilities.speaker.is_some()
                && order.scope.covers(&entry.place)
                && tags.iter().any(|tag| entry.tags.contains(tag))
        });
        chosen.extend(tagged.map(|(id, _)| id.clone()));
        if chosen.is_empty() {
            return refused("device_unknown", "there is no such speaker for you");
        }
        if chosen.len() > SPEAKERS_MAX {
            let detail = format!("{} speakers; at most {SPEAKERS_MAX} at once", chosen.len());
            return refused("not_possible", detail);
        }
        Ok(chosen.into_iter().collect())
    }

    /// A speaker that would say only the beginning of so many characters, and how many it says.
    fn too_short_for<'a>(&self, speakers: &'a [DeviceId], chars: usize) -> Option<(&'a DeviceId, usize)> {
        speakers.iter().find_map(|id| {
            let most = self.parts.directory.devices.get(id)?.abilities.speaker?.text_chars_max;
            (chars > most).then_some((id, most))
        })
    }

    pub(super) async fn address_speakers(&self, order: &Order) -> Done {
        let (ids, tags, deed) = match &order.verb {
            Verb::Speak { speakers, tags, text, clip, volume, repeat } => {
                let (text, clip) = (text.clone(), clip.clone());
                (speakers, tags, Deed::Speak { text, clip, volume: *volume, repeat: *repeat, until: None })
            }
            Verb::Hush { speakers, tags } => (speakers, tags, Deed::Hush),
            _ => return answers::rejected("not_possible", "this is no order to a speaker"),
        };
        let chosen = match self.speakers(order, ids, tags) {
            Ok(chosen) => chosen,
            Err(refused) => return *refused,
        };
        if let Verb::Speak { text: Some(text), .. } = &order.verb
            && let Some((id, most)) = self.too_short_for(&chosen, text.chars().count())
        {
            let detail = format!("{id} says at most {most} characters, and would leave out the rest");
            return answers::rejected("not_possible", detail);
        }
        let actions = chosen.iter().zip(1..);
        let acts = actions.map(|(device, n)| self.act(action(order, device, (n, &deed), order.lifetime_ms)));
        let reports = join_all(acts).await;
        together(&deed, &chosen, &reports)
    }
}

/// One answer for several devices: `done` only if each has done it; the weakest success is told.
fn together(deed: &Deed, devices: &[DeviceId], reports: &[Report]) -> Done {
    let each: Vec<Done> = reports.iter().map(|report| answers::of_report(deed, report)).collect();
    let data: Map<_, _> = devices
        .iter()
        .zip(&each)
        .map(|(device, done)| {
            (device.to_string(), json!({ "outcome": answers::word(done.end), "code": done.code }))
        })
        .collect();
    let good = each.iter().filter(|done| done.end == End::Done).count();
    let weakest = reports
        .iter()
        .zip(&each)
        .min_by_key(|(report, done)| (rank(done.end), report.progress == Progress::Confirmed));
    let Some((_, weakest)) = weakest else { return answers::rejected("device_unknown", "no device") };
    let mut answer = weakest.clone();
    if good > 0 && good < each.len() {
        // Some of it has happened: that it failed as a whole would be wrong as well.
        answer = answers::failed("in_part", format!("{good} of {}; {}", each.len(), weakest.detail));
    }
    answer.with(data.into())
}

/// What is worse comes first.
const fn rank(end: End) -> u8 {
    match end {
        End::Unknown => 0,
        End::Failed => 1,
        End::Expired => 2,
        End::Rejected => 3,
        End::Done => 4,
    }
}
