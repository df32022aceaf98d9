//! Supervision: what the gateway's own events say of buses, uplinks, notifiers and the journal becomes alarms, and the silence of
//! devices that something else explains raises nothing of its own. Must not know devices' drivers or platforms.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Book;
use super::life::Condition;
use crate::model::alarm::Alarm;
use crate::model::ids::{DeviceId, RuleName};
use crate::model::record::{Body, DeviceRef, Event, Quality, Record, Value};
use crate::model::stamp::Stamp;
use crate::pipeline::Now;
use crate::pipeline::directory::{Directory, Entry};
use crate::pipeline::signal::{Clear, Raise, Signal};
use crate::pipeline::table::Row;

/// A device that cannot be heard. A rule that watches for silence raises conditions of this name.
pub(super) const DEVICE_OFFLINE: &str = "device.offline";
/// A bus on which nobody can be heard.
const BUS_OFFLINE: &str = "bus.offline";
const BUS_RULE: &str = "bus-offline";
const UPLINK_RULE: &str = "uplink-offline";
const NOTIFIER_RULE: &str = "notifier-failing";

/// Names of hidden devices in one alarm: with all else they fit a record. The parameter `hidden` counts all of them.
const HIDES_MAX: usize = 48;

/// So long, what the gateway tells again of its own trouble counts on the first.
const COOLDOWN_MS: u64 = 3_600_000;

/// How long a raise waits that something else explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Until {
    /// What explains it is over.
    Over,
    /// There is room again for alarms of its severity.
    Ebb,
    At(u64),
}

/// A raise that waits, since something else explains it for now, or since there is a flood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) raise: Raise,
    pub(super) until: Until,
}

impl Row for Held {
    fn due_ms(&self) -> Option<u64> {
        match self.until {
            Until::Over | Until::Ebb => None,
            Until::At(at_ms) => Some(at_ms),
        }
    }
}

/// A bus that is down, or was until shortly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bus {
    Down { since: Stamp },
    Back { until_ms: u64 },
}

impl Row for Bus {
    fn due_ms(&self) -> Option<u64> {
        match self {
            Self::Down { .. } => None,
            Self::Back { until_ms } => Some(*until_ms),
        }
    }
}

/// What an event of the gateway says about a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It lasts until another event ends it.
    Begins,
    Ends,
    Happened,
    /// The same, and a person must look.
    Grave,
}

/// The gateway's own events that begin or end a trouble: rule, parameter that names the subject, and what it says. Those
/// of the box itself (heat, power, flash) have rules that are shipped.
fn trouble(name: &str) -> Option<(&'static str, Option<&'static str>, Trouble)> {
    let row = match name {
        BUS_OFFLINE => (BUS_RULE, Some("bus"), Trouble::Begins),
        "bus.online" => (BUS_RULE, Some("bus"), Trouble::Ends),
        "bus.session_lost" => ("bus-session-lost", Some("bus"), Trouble::Happened),
        "uplink.offline" => (UPLINK_RULE, Some("uplink"), Trouble::Begins),
        "uplink.online" => (UPLINK_RULE, Some("uplink"), Trouble::Ends),
        "uplink.nobody_listens" => ("uplink-nobody-listens", Some("uplink"), Trouble::Happened),
        "uplink.duplicate_identity" => ("uplink-duplicate-identity", Some("uplink"), Trouble::Grave),
        "notifier.failing" => (NOTIFIER_RULE, Some("notifier"), Trouble::Begins),
        "notifier.restored" => (NOTIFIER_RULE, Some("notifier"), Trouble::Ends),
        "store.lost" => ("store-lost", None, Trouble::Begins),
        "store.back" => ("store-lost", None, Trouble::Ends),
        "store.full" => ("store-full", None, Trouble::Begins),
        "store.room" => ("store-full", None, Trouble::Ends),
        "store.reset" => ("store-reset", None, Trouble::Grave),
        "store.restored" => ("store-restored", None, Trouble::Grave),
        "rules.taken_back" => ("rules-taken-back", None, Trouble::Happened),
        "clock.disputed" => ("clock-disputed", Some("uplink"), Trouble::Happened),
        _ => return None,
    };
    Some(row)
}

/// A name that stands in this code.
pub(super) fn rule_name(name: &str) -> RuleName {
    RuleName::new(name).unwrap_or_else(|error| unreachable!("{name:?} is a name: {error}"))
}

impl Book {
    /// What records say about the health of devices, buses, uplinks and the journal.
    pub(in crate::pipeline) fn supervise(&mut self, now: &Now, record: &Record, signals: &mut Vec<Signal>) {
        if !self.begun {
            self.begun = true;
            self.forget_the_removed(now, signals);
        }
        match &record.body {
            Body::Event(event) if event.device.is_gateway() => self.judge(now, event, record.test, signals),
            body => {
                let Some(device) = body.device().filter(|_| is_word(body)) else { return };
                self.hear(now, device, signals);
            }
        }
    }

    fn judge(&mut self, now: &Now, event: &Event, test: bool, signals: &mut Vec<Signal>) {
        let Some((rule, param, what)) = trouble(&event.name) else { return };
        let subject = match param.and_then(|name| event.params.get(name)) {
            Some(Value::Text(subject)) => subject.to_string(),
            _ => "gateway".to_owned(),
        };
        let rule = rule_name(rule);
        if rule.as_str() == BUS_RULE {
            self.note_bus(now, &subject, what == Trouble::Begins);
        }
        if what == Trouble::Ends {
            signals.push(Signal::Clear(Clear { rule, subject, at: now.at.clone(), test }));
            return;
        }
        let mut condition = event.clone();
        let mut hides = Vec::new();
        if rule.as_str() == BUS_RULE {
            hides = self.behind(&subject, &mut condition.params);
        }
        signals.push(Signal::Raise(Box::new(Raise {
            rule,
            subject,
            at: now.at.clone(),
            condition,
            lasts: what == Trouble::Begins,
            latched: what == Trouble::Grave,
            cooldown_ms: if what == Trouble::Begins { 0 } else { COOLDOWN_MS },
            escalate: None,
            actions: Vec::new(),
            act_within_ms: 0,
            hides,
            test,
        })));
    }

    /// Buses, uplinks and notifiers that are configured no more: nobody will ever say that they are well again.
    fn forget_the_removed(&mut self, now: &Now, signals: &mut Vec<Signal>) {
        let is_removed = |rule: &RuleName, subject: &str| match rule.as_str() {
            BUS_RULE => !self.names.buses.contains(subject),
            UPLINK_RULE => !self.names.uplinks.contains(subject),
            NOTIFIER_RULE => !self.names.notifiers.contains(subject),
            _ => false,
        };
        for (_, open) in self.open.iter().filter(|(_, open)| open.condition == Condition::Holds) {
            if let Some(rule) = open.alarm.rule.clone().filter(|rule| is_removed(rule, &open.subject)) {
                let (subject, at) = (open.subject.clone(), now.at.clone());
                signals.push(Signal::Clear(Clear { rule, subject, at, test: open.test }));
            }
        }
        let buses = self.buses.iter().map(|(name, _)| name.to_owned());
        let removed: Vec<String> = buses.filter(|name| !self.names.buses.contains(name)).collect();
        for name in &removed {
            self.note_bus(now, name, false);
        }
    }

    fn note_bus(&mut self, now: &Now, bus: &str, down: bool) {
        if down {
            self.buses.put(bus, Bus::Down { since: now.at.clone() });
            return;
        }
        if matches!(self.buses.get(bus), Some(Bus::Down { .. })) {
            let until_ms = now.t_ms.saturating_add(self.terms.recover_ms);
            self.buses.put(bus, Bus::Back { until_ms });
            self.release(now, |device| device.bus.as_ref().is_some_and(|name| name.as_str() == bus));
        }
    }

    /// A device speaks: the bus that it hangs on works, whether or not that was told. After a restart nobody tells.
    fn hear(&mut self, now: &Now, device: &DeviceRef, signals: &mut Vec<Signal>) {
        let Some(bus) = &device.bus else { return };
        let Some(Bus::Down { since }) = self.buses.get(bus.as_str()) else { return };
        // What was on its way before the bus went down proves nothing.
        if since.boot == now.at.boot && since.mono_ms >= now.at.mono_ms {
            return;
        }
        self.note_bus(now, bus.as_str(), false);
        let (rule, subject, at) = (rule_name(BUS_RULE), bus.to_string(), now.at.clone());
        signals.push(Signal::Clear(Clear { rule, subject, at, test: false }));
    }

    /// The devices on a bus, as many as fit; how many there are goes to the parameters.
    fn behind(&self, bus: &str, params: &mut BTreeMap<String, Value>) -> Vec<DeviceId> {
        let on = |entry: &Entry| entry.bus.as_ref().is_some_and(|name| name.as_str() == bus);
        self.named(on, params)
    }

    /// The devices of which this holds, in the same way.
    fn named(&self, which: impl Fn(&Entry) -> bool, params: &mut BTreeMap<String, Value>) -> Vec<DeviceId> {
        let those = self.directory.devices.iter().filter(|(_, entry)| which(entry));
        let mut names: Vec<DeviceId> = those.map(|(id, _)| id.clone()).collect();
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        params.insert("hidden".to_owned(), Value::Int(count));
        names.truncate(HIDES_MAX);
        names
    }

    /// A bridge that is silent hides the devices that are heard by it.
    pub(super) fn name_hidden(&self, raise: &mut Raise) {
        let bridge = raise.condition.device.id.clone();
        let by_it = |entry: &Entry| entry.bridge.as_ref() == Some(&bridge);
        if raise.condition.name == DEVICE_OFFLINE && self.directory.devices.values().any(by_it) {
            raise.hides = self.named(by_it, &mut raise.condition.params);
        }
    }

    /// Whether something else explains this condition for now, and until when.
    pub(super) fn explained(&self, raise: &Raise, now: &Now) -> Option<Until> {
        let device = &raise.condition.device;
        let offline = raise.condition.name == DEVICE_OFFLINE;
        if !offline && raise.rule.as_str() != BUS_RULE {
            return None;
        }
        if offline {
            match device.bus.as_ref().and_then(|bus| self.buses.get(bus.as_str())) {
                Some(Bus::Down { .. }) => return Some(Until::Over),
                Some(Bus::Back { until_ms }) if *until_ms > now.t_ms => return Some(Until::At(*until_ms)),
                Some(Bus::Back { .. }) | None => {}
            }
            let hidden = |open: &super::Open| {
                open.condition == Condition::Holds && hides(&self.directory, &open.alarm, &device.id)
            };
            if self.open.iter().any(|(_, open)| hidden(open)) {
                return Some(Until::Over);
            }
        }
        // The box has only just booted, and so may have what it listens to.
        // A deadline from before the boot is no proof of how long ago that was: the present is.
        let present = self.present.as_ref().unwrap_or(now);
        let left_ms = self.terms.start_ms.checked_sub(present.at.mono_ms).filter(|left_ms| *left_ms > 0)?;
        Some(Until::At(present.t_ms.saturating_add(left_ms)))
    }

    /// What this alarm hid is over.
    pub(super) fn release_hidden(&mut self, now: &Now, alarm: &Alarm) {
        let directory = Arc::clone(&self.directory);
        self.release(now, |device| hides(&directory, alarm, &device.id));
    }

    /// What hid these devices is over: those that are still silent get their own alarms after a grace.
    pub(super) fn release(&mut self, now: &Now, which: impl Fn(&DeviceRef) -> bool) {
        let waiting = self.held.iter().filter(|(_, held)| held.until == Until::Over);
        let freed: Vec<(String, Held)> = waiting
            .filter(|(_, held)| which(&held.raise.condition.device))
            .map(|(key, held)| (key.to_owned(), held.clone()))
            .collect();
        let until = Until::At(now.t_ms.saturating_add(self.terms.recover_ms));
        for (key, held) in freed {
            self.held.put(&key, Held { until, ..held });
        }
    }
}

/// Whether this alarm explains the silence of a device: it names it, or names the bridge by which it is heard. An alarm has no
/// room for the names of all.
fn hides(directory: &Directory, alarm: &Alarm, device: &DeviceId) -> bool {
    let bridge = directory.devices.get(device).and_then(|entry| entry.bridge.as_ref());
    let by_bridge = alarm.raised.name == DEVICE_OFFLINE && bridge == Some(&alarm.raised.device.id);
    by_bridge || alarm.hides.contains(device)
}

/// Whether a device itself has said this, now.
fn is_word(body: &Body) -> bool {
    match body {
        Body::Event(event) => event.name != DEVICE_OFFLINE,
        Body::Telemetry(telemetry) => telemetry.samples.iter().any(|sample| sample.quality == Quality::Good),
        Body::Alarm(_) | Body::Gap(_) => false,
    }
}
