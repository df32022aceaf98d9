//! What `check` finds wrong with `[[rule.do]]`: what does not fit together, no device can do, or nobody may want.

use super::spec::{
    ActionSpec, Message, Near, PULSE_MS_MAX, Quiet, RELAY_S_MAX, Speech, Target, Unlock, minutes,
};
use crate::model::check::Problem;
use crate::model::limits::{DEED_TEXT_CHARS_MAX, TOPIC_BYTES_MAX};
use crate::model::record::{Category, Severity};
use crate::pipeline::directory::{Directory, Entry};

/// Words that begin an evacuation: only the fire panel does that.
const EVACUATION: [&str; 4] = ["疏散", "撤离", "逃生", "evacuat"];

/// Devices that a warning names.
const NAMED_MAX: usize = 8;

/// Kind of devices that speak for a building's fire alarm system.
pub const FIRE_PANEL: &str = "fire_panel";

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
    if quiet.from == quiet.to {
        out.push(Problem::error(&["quiet"], "`from` and `to` are the same: it would never be quiet"));
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
