//! What can be wrong with a profile beyond its types. Opens nothing; paths start at the profile's root.

use super::{
    AtStart, EVENTS_PER_PROFILE_MAX, EventRule, MqttProfile, PARAMS_PER_EVENT_MAX, POINTS_PER_PROFILE_MAX,
    Point, PointKind, Profile, Trigger,
};
use crate::model::check::Problem;
use crate::model::record::Value;

/// Longest text for people, bytes of UTF-8 (200 characters of Chinese).
const TEXT_BYTES_MAX: usize = 600;

impl Profile {
    /// Every mistake at once.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        if !is_word(&self.kind) || self.kind.len() > 32 {
            let hint = "a kind is one lower-case word such as \"button\"";
            out.push(Problem::error(&["kind"], format!("{:?} is not a kind", self.kind)).hint(hint));
        }
        text(&mut out, &["title"], &self.title);
        match (&self.mqtt, &self.modbus) {
            (Some(mqtt), None) => self.mqtt_problems(&mut out, mqtt),
            (None, Some(modbus)) => out.extend(super::modbus::problems(self, modbus)),
            (None, None) => {
                let problem = Problem::error(&[], "the profile does not say how the device speaks");
                out.push(problem.hint("add [mqtt] or [modbus]"));
            }
            (Some(_), Some(_)) => {
                let problem = Problem::error(&["modbus"], "a device speaks MQTT or Modbus, not both");
                out.push(problem.hint("write two profiles"));
            }
        }
        if self.points.len() > POINTS_PER_PROFILE_MAX {
            out.push(Problem::error(&["points"], format!("more than {POINTS_PER_PROFILE_MAX} points")));
        }
        if self.events.len() > EVENTS_PER_PROFILE_MAX {
            out.push(Problem::error(&["events"], format!("more than {EVENTS_PER_PROFILE_MAX} events")));
        }
        for (name, rule) in &self.events {
            self.check_event(&mut out, name, rule);
        }
        out.extend(super::acts::problems(self));
        if self.points.is_empty()
            && self.events.is_empty()
            && self.mqtt.as_ref().is_some_and(|mqtt| mqtt.availability.is_none())
            && !self.acts()
        {
            out.push(Problem::error(
                &[],
                "the profile has neither points nor events nor availability nor anything to act with",
            ));
        }
        out
    }

    fn mqtt_problems(&self, out: &mut Vec<Problem>, mqtt: &MqttProfile) {
        topics(out, mqtt);
        for (name, point) in &self.points {
            check_point(out, name.as_str(), point);
        }
        for (name, rule) in &self.events {
            check_message_rule(out, name, rule);
        }
    }

    fn check_event(&self, out: &mut Vec<Problem>, name: &str, rule: &EventRule) {
        let path = ["events", name];
        let at = |key| ["events", name, key];
        let event = rule.name(name);
        if !is_event_name(event) {
            let problem = Problem::error(&path, format!("{event:?} is not the name of an event"));
            out.push(problem.hint("write thing.happened in lower case, for example \"button.pressed\""));
        }
        if rule.params.len() > PARAMS_PER_EVENT_MAX {
            out.push(Problem::error(&at("params"), format!("more than {PARAMS_PER_EVENT_MAX} parameters")));
        }
        match (&rule.equals, &rule.one_of) {
            (Some(_), Some(_)) => {
                out.push(Problem::error(&path, "`equals` and `one_of` exclude each other"));
            }
            (None, None) if rule.trigger == Trigger::Edge => {
                out.push(Problem::error(&path, "an edge needs `equals` or `one_of`"));
            }
            (None, Some(values)) => one_of(out, &at("one_of"), values),
            _ => {}
        }
        if rule.trigger == Trigger::Pulse && rule.rearm_s.is_some() {
            out.push(Problem::error(&at("rearm_s"), "`rearm_s` is for trigger = \"edge\" only"));
        }
        if rule.rearm_s == Some(0) {
            out.push(Problem::error(&at("rearm_s"), "0 seconds would make an event of every repetition"));
        }
        if rule.trigger == Trigger::Pulse && rule.at_start == AtStart::State {
            out.push(Problem::error(&at("at_start"), "`at_start` is for trigger = \"edge\" only"));
        }
        if let Some(ended) = &rule.clears
            && !self.events.iter().any(|(name, rule)| rule.name(name) == ended)
        {
            out.push(Problem::error(&at("clears"), format!("the profile has no event {ended:?}")));
        }
        if let Some(words) = &rule.text {
            text(out, &at("text"), words);
        }
    }
}

fn topics(out: &mut Vec<Problem>, mqtt: &MqttProfile) {
    template(out, &["mqtt", "topic"], &mqtt.topic, false);
    for filter in &mqtt.ignore {
        template(out, &["mqtt", "ignore"], filter, true);
    }
    if let Some(key) = &mqtt.dedup {
        pointer(out, &["mqtt", "dedup"], key);
    }
    let Some(availability) = &mqtt.availability else { return };
    let path = ["mqtt", "availability"];
    template(out, &["mqtt", "availability", "topic"], &availability.topic, false);
    pointer(out, &["mqtt", "availability", "pointer"], &availability.pointer);
    if availability.topic == mqtt.topic {
        out.push(Problem::error(&path, "availability comes by the same topic as the messages"));
    }
    if availability.online == availability.offline {
        out.push(Problem::error(&path, "online and offline are the same text"));
    }
}

/// What an event's rule says of messages.
fn check_message_rule(out: &mut Vec<Problem>, name: &str, rule: &EventRule) {
    if let Some(text) = &rule.pointer {
        pointer(out, &["events", name, "pointer"], text);
    } else {
        let problem = Problem::error(&["events", name], "the event does not say which value decides");
        out.push(problem.hint("add `pointer`, a JSON Pointer such as \"/action\""));
    }
    if rule.point.is_some() {
        let problem = Problem::error(&["events", name, "point"], "`point` is for devices that speak Modbus");
        out.push(problem.hint("write `pointer`, a JSON Pointer"));
    }
    for (param, target) in &rule.params {
        pointer(out, &["events", name, "params", param], target);
    }
}

/// Keys of a point that only registers have.
fn check_modbus_keys(out: &mut Vec<Problem>, name: &str, point: &Point) {
    let written = [
        ("coil", point.coil.is_some()),
        ("discrete", point.discrete.is_some()),
        ("input", point.input.is_some()),
        ("holding", point.holding.is_some()),
        ("bit", point.bit.is_some()),
        ("word_order", point.word_order.is_some()),
        ("offset", point.offset.is_some()),
        ("deadband", point.deadband.is_some()),
        ("heartbeat_s", point.heartbeat_s.is_some()),
        ("contact", point.contact.is_some()),
        ("bands", point.bands.is_some()),
        ("debounce_ms", point.debounce_ms.is_some()),
        ("write", point.write),
    ];
    for (key, _) in written.into_iter().filter(|(_, written)| *written) {
        let message = format!("`{key}` is for devices that speak Modbus");
        out.push(Problem::error(&["points", name, key], message).hint("the profile says [mqtt]"));
    }
}

fn check_point(out: &mut Vec<Problem>, name: &str, point: &Point) {
    let at = |key| ["points", name, key];
    check_modbus_keys(out, name, point);
    if let Some(text) = &point.pointer {
        pointer(out, &at("pointer"), text);
    } else {
        let problem = Problem::error(&["points", name], "the point does not say where its value is");
        out.push(problem.hint("add `pointer`, a JSON Pointer such as \"/battery\""));
    }
    let numeric = matches!(point.kind, Some(PointKind::Number | PointKind::Integer));
    if !numeric && !matches!(point.kind, Some(PointKind::Bool | PointKind::Text)) {
        let problem = Problem::error(&at("type"), "a message's value has one of four types");
        out.push(problem.hint("write type = \"number\", \"integer\", \"bool\" or \"text\""));
    }
    if let Some(scale) = point.scale {
        if point.kind != Some(PointKind::Number) {
            out.push(Problem::error(&at("scale"), "only a point of type number has a scale"));
        } else if !scale.is_normal() {
            out.push(Problem::error(&at("scale"), format!("{scale} is no factor")));
        }
    }
    for (key, bound) in [("min", point.min), ("max", point.max)] {
        if bound.is_some() && !numeric {
            out.push(Problem::error(&at(key), "only numbers have a range"));
        }
        if bound.is_some_and(f64::is_nan) {
            out.push(Problem::error(&at(key), "not a number"));
        }
    }
    if let (Some(min), Some(max)) = (point.min, point.max)
        && min > max
    {
        out.push(Problem::error(&at("min"), format!("min {min} is above max {max}")));
    }
}

/// A topic template: starts under the base, and is a plain topic; a filter may end in wildcards.
pub(super) fn template(out: &mut Vec<Problem>, path: &[&str], topic: &str, filter: bool) {
    if !topic.starts_with("{base}/") {
        let hint = "write \"{base}/{address}\"";
        out.push(Problem::error(path, "a topic lies under the client's base").hint(hint));
    }
    let rest = topic.replace("{base}", "").replace("{address}", "");
    let forbidden = |c: char| matches!(c, '{' | '}' | '\0') || (!filter && matches!(c, '+' | '#'));
    if let Some(character) = rest.chars().find(|c| forbidden(*c)) {
        out.push(Problem::error(path, format!("{character:?} cannot stand in this topic")));
    }
}

pub(super) fn pointer(out: &mut Vec<Problem>, path: &[&str], text: &str) {
    if !text.is_empty() && !text.starts_with('/') {
        let problem = Problem::error(path, format!("{text:?} is not a JSON Pointer"));
        out.push(problem.hint(format!("write \"/{}\"", text.replace('.', "/"))));
    }
}

fn one_of(out: &mut Vec<Problem>, path: &[&str], values: &[Value]) {
    let Some(first) = values.first() else {
        out.push(Problem::error(path, "an empty list never matches"));
        return;
    };
    let kind = std::mem::discriminant(first);
    if values.iter().any(|value| std::mem::discriminant(value) != kind) {
        out.push(Problem::error(path, "the values are of different types"));
    }
}

fn text(out: &mut Vec<Problem>, path: &[&str], words: &crate::model::record::Text) {
    for (language, words) in [("zh", &words.zh), ("en", &words.en)] {
        if words.is_empty() || words.len() > TEXT_BYTES_MAX {
            let path: Vec<&str> = path.iter().copied().chain([language]).collect();
            out.push(Problem::error(&path, format!("1 to {TEXT_BYTES_MAX} bytes, this has {}", words.len())));
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_event_name(text: &str) -> bool {
    text.len() <= 64
        && text.split_once('.').is_some_and(|(thing, happened)| is_word(thing) && is_word(happened))
}
