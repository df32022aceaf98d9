//! `[[rule.do]]`: what a rule asks devices to do, as it stands in the rule's file.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::directory::{Directory, Entry};
use crate::model::action::Until;
use crate::model::check::Problem;
use crate::model::ids::{DeviceId, PointName};
use crate::model::limits::{DEED_TEXT_CHARS_MAX, TOPIC_BYTES_MAX};
use crate::model::place::Place;
use crate::model::record::{Category, Severity};

/// Loudness where a rule says nothing: clear, and not the most that the speaker can.
const VOLUME_DEFAULT: u8 = 80;
/// Longest pulse of a door: longer is a door held open.
pub const PULSE_MS_MAX: u32 = 60_000;
/// Longest time that an output is switched on by a rule.
pub const RELAY_S_MAX: u32 = 86_400;
/// Words that begin an evacuation: only the fire panel does that.
const EVACUATION: [&str; 4] = ["疏散", "撤离", "逃生", "evacuat"];

/// Devices that a warning names.
const NAMED_MAX: usize = 8;

/// Kind of devices that speak for a building's fire alarm system.
pub const FIRE_PANEL: &str = "fire_panel";

/// One entry of `[[rule.do]]`: exactly one of `speak`, `unlock`, `relay` and `publish`, and on which devices. Also
/// stored in rows, where an alarm that has to wait keeps what it will ask for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    /// Say or play something on speakers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<Speech>,
    /// Release doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<Unlock>,
    /// Switch an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// Publish a message by the device's bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Message>,
    /// On which devices.
    #[serde(default)]
    pub on: Target,
    /// Hours of the site in which nothing is said, unless the alarm is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
}

/// What a speaker says. Templates may use `place.building`, `place.unit` and `place.floor`; nothing else of an alarm is
/// for the public.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// In Chinese: said where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub zh: Option<String>,
    /// In English: said where there is no Chinese.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub en: Option<String>,
    /// A clip that the speaker holds, by its own name; for speakers that cannot say texts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub clip: Option<String>,
    /// 0 to 100 of what the speaker can; 80 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub volume: Option<u8>,
    /// How often; once if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub repeat: Option<u8>,
    /// "acknowledged": what is not said yet is not said any more once somebody has seen to the alarm, or it is over. Each
    /// repeat is then an order of its own, for three minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

impl Speech {
    /// The template that is said.
    pub fn words(&self) -> Option<&str> {
        self.zh.as_deref().or(self.en.as_deref())
    }

    pub fn volume(&self) -> u8 {
        self.volume.unwrap_or(VOLUME_DEFAULT)
    }
}

/// How a door is released: exactly one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unlock {
    /// Until a person resets it: for fire.
    #[serde(default)]
    pub hold: bool,
    /// For so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 60_000))]
    pub pulse_ms: Option<u32>,
}

/// An output that is switched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// The output, as the device's profile names it.
    pub point: PointName,
    /// On, or off.
    #[serde(default = "yes")]
    pub on: bool,
    /// Back after so many seconds; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub for_s: Option<u32>,
}

/// A message to a device's bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The topic; `{base}` and `{address}` stand for those of the device.
    #[schemars(length(min = 1, max = 256))]
    pub topic: String,
    /// As it is; nothing of the alarm can stand in it.
    #[schemars(length(max = 4096))]
    pub payload: String,
}

/// Which devices: those that meet all of what is given, and can do it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// These.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceId>,
    /// With one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Near the place of the alarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Near>,
}

/// How near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Near {
    SameHousehold,
    SameFloor,
    SameUnit,
    SameBuilding,
    SameGrid,
    /// Wherever it is.
    Compound,
}

impl Near {
    /// Whether both are known and the same; two places that nobody described are not near each other.
    pub fn holds(self, alarm: &Place, device: &Place) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        let building = || same(&alarm.building, &device.building);
        let unit = || building() && same(&alarm.unit, &device.unit);
        match self {
            Self::SameHousehold => unit() && same(&alarm.household, &device.household),
            Self::SameFloor => unit() && alarm.floor.is_some() && alarm.floor == device.floor,
            Self::SameUnit => unit(),
            Self::SameBuilding => building(),
            Self::SameGrid => same(&alarm.grid, &device.grid),
            Self::Compound => true,
        }
    }
}

/// Hours of the day, over midnight where `from` is later than `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// For example "22:00".
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// For example "07:00".
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
}

impl Quiet {
    /// Whether a minute of the day lies in it. Hours that cannot be read silence nobody.
    pub fn holds(&self, minute: u16) -> bool {
        let (Some(from), Some(to)) = (minutes(&self.from), minutes(&self.to)) else { return false };
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// Minutes since midnight of "HH:MM".
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| hours * 60 + minutes)
}

const fn yes() -> bool {
    true
}

/// What a rule is, as far as its actions must fit it.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    pub category: Category,
    pub severity: Severity,
    /// The event that it watches, if it watches one.
    pub event: Option<&'a str>,
    pub proof: Proof,
}

/// What stands behind an alarm. Doors are opened for fire, and evacuations begun, by more than one detector's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// One device, or nothing that is about fire.
    #[default]
    One,
    /// Two independent devices at least.
    Two,
    /// The output of a fire panel (火灾报警控制器).
    FirePanel,
}

impl ActionSpec {
    /// Whether the device can do it.
    fn able(&self, entry: &Entry) -> bool {
        let abilities = &entry.abilities;
        if self.unlock.is_some() {
            abilities.door
        } else if let Some(relay) = &self.relay {
            // The way round what opens a door.
            !abilities.door && abilities.outputs.contains(&relay.point)
        } else if self.speak.is_some() {
            abilities.speaker.is_some()
        } else {
            !abilities.door
        }
    }

    fn chosen(&self, id: &DeviceId, entry: &Entry) -> bool {
        let on = &self.on;
        (on.devices.is_empty() || on.devices.contains(id))
            && (on.tags.is_empty() || on.tags.iter().any(|tag| entry.tags.contains(tag)))
            && on.kind.as_ref().is_none_or(|kind| *kind == entry.kind)
    }

    /// The devices that it may ever be about, wherever the alarm is.
    pub fn candidates<'d>(
        &'d self,
        directory: &'d Directory,
    ) -> impl Iterator<Item = (&'d DeviceId, &'d Entry)> {
        directory.devices.iter().filter(|(id, entry)| self.chosen(id, entry) && self.able(entry))
    }

    /// The devices that it is about for an alarm at this place. One under maintenance is left in peace: people work on it.
    pub fn targets<'d>(
        &'d self,
        directory: &'d Directory,
        place: &'d Place,
    ) -> impl Iterator<Item = (&'d DeviceId, &'d Entry)> {
        let near = self.on.place.unwrap_or(Near::Compound);
        self.candidates(directory)
            .filter(move |(_, entry)| !entry.maintenance && near.holds(place, &entry.place))
    }

    /// Events that may come of it, each with the device that would tell it: all that those devices can tell. For loops:
    /// a rule that watches one of them may be its own cause. An output causes none: inputs of the same module are wired
    /// to something else.
    pub fn events_it_may_cause(&self, directory: &Directory) -> BTreeSet<(DeviceId, String)> {
        self.candidates(directory)
            .filter(|_| self.relay.is_none())
            .flat_map(|(id, entry)| entry.events.iter().map(|event| (id.clone(), event.clone())))
            .collect()
    }

    /// What is wrong with it. Paths start at the entry.
    pub fn problems(&self, cause: Cause<'_>, directory: &Directory) -> Vec<Problem> {
        let mut out = Vec::new();
        let given =
            [self.speak.is_some(), self.unlock.is_some(), self.relay.is_some(), self.publish.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            let problem = Problem::error(&[], "an action is exactly one of speak, unlock, relay and publish");
            out.push(problem.hint("write several [[rule.do]] for several actions"));
            return out;
        }
        if cause.event.is_some_and(|event| event.contains("duress")) && self.publish.is_none() {
            let problem =
                Problem::error(&[], "duress is silent on site: whoever threatens must notice nothing");
            out.push(problem.hint("leave the action out; platforms get the alarm"));
        }
        if let Some(speech) = &self.speak {
            speech_problems(&mut out, speech, cause);
        } else if self.quiet.is_some() {
            out.push(Problem::error(&["quiet"], "only what is spoken has quiet hours"));
        }
        self.quiet.iter().for_each(|quiet| quiet_problems(&mut out, quiet));
        self.unlock.iter().for_each(|unlock| self.unlock_problems(&mut out, *unlock, cause));
        if let Some(relay) = &self.relay
            && relay.for_s.is_some_and(|for_s| for_s == 0 || for_s > RELAY_S_MAX)
        {
            out.push(Problem::error(&["relay", "for_s"], format!("1 to {RELAY_S_MAX} seconds")));
        }
        self.publish.iter().for_each(|message| message_problems(&mut out, message));
        self.publish.iter().for_each(|message| self.trespasses(&mut out, message, directory));
        self.target_problems(&mut out, directory);
        out
    }

    fn unlock_problems(&self, out: &mut Vec<Problem>, unlock: Unlock, cause: Cause<'_>) {
        if unlock.hold == unlock.pulse_ms.is_some() {
            let problem = Problem::error(&["unlock"], "a door is held open or released for a time");
            out.push(problem.hint("write unlock = { hold = true } or { pulse_ms = 3000 }"));
        }
        if unlock.pulse_ms.is_some_and(|pulse| !(100..=PULSE_MS_MAX).contains(&pulse)) {
            out.push(Problem::error(&["unlock", "pulse_ms"], format!("100 to {PULSE_MS_MAX} ms")));
        }
        if unlock.hold && cause.category != Category::Fire {
            out.push(Problem::error(&["unlock", "hold"], "only fire holds doors open"));
        }
        if cause.category == Category::Fire && cause.proof == Proof::One {
            let problem =
                Problem::error(&["unlock"], "fire opens doors by the fire panel's word or by two detectors'");
            let hint = format!(
                "select kind = \"{FIRE_PANEL}\", or write count = 2, distinct = true, within_s = 300"
            );
            out.push(problem.hint(hint));
        }
        let near = matches!(self.on.place, Some(Near::SameUnit | Near::SameFloor | Near::SameHousehold));
        if !near && self.on.devices.is_empty() {
            let problem =
                Problem::error(&["on"], "there is no way to open all doors: only those of the affected unit");
            out.push(problem.hint("write on = { place = \"same-unit\" }, or name the devices"));
        }
    }

    /// A message that would open a door past `unlock`, or stand for a device's own word.
    fn trespasses(&self, out: &mut Vec<Problem>, message: &Message, directory: &Directory) {
        let met = self
            .candidates(directory)
            .find_map(|(id, _)| Some((id, directory.trespass(id, &message.topic)?)));
        if let Some((device, owner)) = met {
            let text =
                format!("by way of \"{device}\" the message may be taken for one to or of \"{owner}\"");
            let hint =
                "a rule opens doors by `unlock` alone and speaks for no device: write {base}/{address}/…";
            out.push(Problem::error(&["publish", "topic"], text).hint(hint));
        }
    }

    fn target_problems(&self, out: &mut Vec<Problem>, directory: &Directory) {
        let on = &self.on;
        if *on == Target::default() {
            let problem = Problem::error(&["on"], "nothing says on which devices");
            out.push(problem.hint("write on = { place = \"same-building\" }, or tags, kind or devices"));
            return;
        }
        for id in on.devices.iter().filter(|id| !directory.devices.contains_key(*id)) {
            out.push(Problem::error(&["on", "devices"], format!("there is no device \"{id}\"")));
        }
        for id in &on.devices {
            if let Some(entry) = directory.devices.get(id)
                && !self.able(entry)
            {
                out.push(Problem::error(
                    &["on", "devices"],
                    format!("\"{id}\" cannot do this: {}", self.needs(Some(entry))),
                ));
            }
        }
        if on.devices.is_empty() && self.candidates(directory).next().is_none() {
            let message = format!("no device can do this: {}", self.needs(None));
            out.push(Problem::warning(&["on"], message).hint("the alarm stands, and nothing is done"));
        }
        self.warn_of_the_unable(out, directory);
    }

    /// Devices that can do it in part only.
    fn warn_of_the_unable(&self, out: &mut Vec<Problem>, directory: &Directory) {
        let names = |unable: fn(&Entry) -> bool| {
            let candidates = self.candidates(directory).filter(|(_, entry)| unable(entry));
            candidates.map(|(id, _)| id.as_str()).take(NAMED_MAX).collect::<Vec<_>>().join(", ")
        };
        if self.speak.as_ref().is_some_and(|speech| speech.clip.is_none()) {
            let mute = |entry: &Entry| entry.abilities.speaker.is_some_and(|it| it.text_chars_max == 0);
            let mute = names(mute);
            if !mute.is_empty() {
                let problem =
                    Problem::warning(&["speak"], format!("plays clips only, and says nothing: {mute}"));
                out.push(problem.hint("name a clip beside the words"));
            }
        }
        if self.unlock.is_some_and(|unlock| unlock.hold) {
            let locking = names(|entry| !entry.abilities.holds);
            if !locking.is_empty() {
                let message = format!("locks again when it likes, and is not held open: {locking}");
                let problem = Problem::warning(&["unlock", "hold"], message);
                out.push(
                    problem.hint("hold doors by an output that stays as it is switched ([door] output)"),
                );
            }
        }
    }

    /// What a device must have for it.
    fn needs(&self, entry: Option<&Entry>) -> String {
        if self.unlock.is_none() && self.speak.is_none() && entry.is_some_and(|entry| entry.abilities.door) {
            return "it is a door: write unlock".to_owned();
        }
        match (&self.relay, &self.unlock, &self.speak) {
            (Some(relay), _, _) => {
                format!("its profile needs an output \"{}\" that releases no door", relay.point)
            }
            (_, Some(_), _) => "its profile needs [door]".to_owned(),
            (_, _, Some(_)) => "its profile needs [speaker]".to_owned(),
            _ => "it must exist".to_owned(),
        }
    }
}

fn speech_problems(out: &mut Vec<Problem>, speech: &Speech, cause: Cause<'_>) {
    if speech.words().is_none() && speech.clip.is_none() {
        let problem = Problem::error(&["speak"], "there is nothing to say");
        out.push(problem.hint("write speak = { zh = \"…\" }, or clip"));
    }
    if speech.volume.is_some_and(|volume| volume > 100) {
        out.push(Problem::error(&["speak", "volume"], "0 to 100"));
    }
    if speech.repeat.is_some_and(|repeat| !(1..=20).contains(&repeat)) {
        out.push(Problem::error(&["speak", "repeat"], "1 to 20 times"));
    }
    for (key, words) in [("zh", &speech.zh), ("en", &speech.en)] {
        let Some(words) = words else { continue };
        if words.is_empty() || words.chars().count() > DEED_TEXT_CHARS_MAX {
            out.push(Problem::error(&["speak", key], format!("1 to {DEED_TEXT_CHARS_MAX} characters")));
        }
        if let Err(reason) = super::words::check(words) {
            out.push(Problem::error(&["speak", key], reason));
        }
        let lower = words.to_lowercase();
        if (cause.category, cause.proof) != (Category::Fire, Proof::FirePanel)
            && let Some(word) = EVACUATION.iter().find(|word| lower.contains(**word))
        {
            let message = format!("{word:?} starts an evacuation, and only the fire panel does that");
            let hint = format!("say it in a rule of category fire on devices of kind = \"{FIRE_PANEL}\"");
            out.push(Problem::error(&["speak", key], message).hint(hint));
        } else if speech.until.is_some() && EVACUATION.iter().any(|word| lower.contains(word)) {
            let message = "that somebody has acknowledged the alarm ends no evacuation";
            out.push(Problem::error(&["speak", "until"], message).hint("leave `until` out"));
        }
    }
}

fn quiet_problems(out: &mut Vec<Problem>, quiet: &Quiet) {
    for (key, text) in [("from", &quiet.from), ("to", &quiet.to)] {
        if minutes(text).is_none() {
            let problem = Problem::error(&["quiet", key], format!("{text:?} is no time of day"));
            out.push(problem.hint("write \"22:00\""));
        }
    }
}

fn message_problems(out: &mut Vec<Problem>, message: &Message) {
    let bad = |c: char| matches!(c, '+' | '#') || c.is_control();
    if message.topic.is_empty() || message.topic.len() > TOPIC_BYTES_MAX || message.topic.contains(bad) {
        out.push(Problem::error(&["publish", "topic"], format!("{:?} is no topic", message.topic)));
    }
    if message.payload.len() > 4_096 {
        out.push(Problem::error(&["publish", "payload"], "at most 4096 bytes"));
    }
}

/// What to tell of critical rules whose words only reach cloud speakers: with the uplink down they are silent.
pub fn warn_cloud_only<'a, R: std::fmt::Display + 'a>(
    rules: impl IntoIterator<Item = (R, Severity, &'a [ActionSpec])>,
    directory: &Directory,
) -> Vec<(R, String)> {
    let mut out = Vec::new();
    for (rule, severity, specs) in rules {
        let mut speakers = specs
            .iter()
            .filter(|spec| spec.speak.is_some())
            .flat_map(|spec| spec.candidates(directory))
            .filter_map(|(_, entry)| entry.abilities.speaker)
            .peekable();
        if severity == Severity::Critical && speakers.peek().is_some() && speakers.all(|speaker| !speaker.lan)
        {
            let message = format!(
                "critical rule {rule} speaks on cloud speakers only: it is silent while the uplink is down"
            );
            out.push((rule, message));
        }
    }
    out
}
