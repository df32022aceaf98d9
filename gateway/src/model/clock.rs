//! What is known of each boot's wall time (promise G8). A `clock` record says how a boot's wall time follows from its
//! monotonic time; from these records alone follow the derived time of every other record and the corrections that
//! platforms get. Stored stamps never change.
//!
//! Pure: no clock is read here. Limit: [`CLOCK_BOOTS_MAX`] boots are remembered, the newest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{BootId, UplinkName};
use super::limits::CLOCK_BOOTS_MAX;
use super::record::{Body, DeviceRef, Draft, Severity, Text, Value};
use super::stamp::{ClockTrust, Stamp};

/// Name of the event that is a clock record.
pub const CLOCK_CHANGED: &str = "clock.changed";

/// What the box's time is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockSource {
    /// From nothing: the machine's wall clock is not believed.
    #[default]
    None,
    /// The machine's wall clock, which a battery clock confirms.
    Battery,
    /// The machine's wall clock, which somebody outside keeps: a container's or a virtual machine's host.
    Host,
    /// What was right earlier in this boot, carried on by the monotonic clock.
    Held,
    /// The answer of a platform.
    Platform,
    /// The machine's wall clock, synchronised by systemd-timesyncd.
    Timesyncd,
    /// The machine's wall clock, synchronised by chrony.
    Chrony,
}

impl ClockSource {
    /// The name in records, in `status` and in the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Battery => "battery",
            Self::Host => "host",
            Self::Held => "held",
            Self::Platform => "platform",
            Self::Timesyncd => "timesyncd",
            Self::Chrony => "chrony",
        }
    }
}

/// How a boot's wall time followed from its monotonic time, and how far that was trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reckoning {
    /// Milliseconds since 1970 = monotonic milliseconds + this.
    pub offset_ms: i64,
    pub trust: ClockTrust,
}

/// One boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootClock {
    pub boot: BootId,
    /// The most trusted reckoning, the latest of those: what mends the boot's records.
    pub best: Reckoning,
    /// What the boot's last clock record says.
    pub last: Reckoning,
    /// The lowest trust that a record of this boot may bear.
    pub lowest: ClockTrust,
}

/// A change of the clock, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockChange {
    /// When it was noticed, as the clock stands after it: boot, monotonic time, wall time, trust.
    pub at: Stamp,
    pub source: ClockSource,
    /// Whether more than one witness vouches for it: NTP, or a platform and somebody else.
    pub confirmed: bool,
    /// What held before; none for the first of a boot.
    pub before: Option<Reckoning>,
    /// How far the machine's wall clock jumped beside the monotonic clock, in milliseconds.
    pub jumped_ms: i64,
    /// What the boot's earlier records say of its time turned out to be disputed.
    pub withdrawn: bool,
    /// Who told the time.
    pub uplink: Option<UplinkName>,
}

impl ClockChange {
    /// What holds after it.
    pub fn after(&self) -> Reckoning {
        Reckoning { offset_ms: offset_ms(&self.at), trust: self.at.trust }
    }

    /// The record of it.
    pub fn draft(&self) -> Draft {
        let after = self.after();
        let mut params = BTreeMap::from([
            ("boot".to_owned(), text(self.at.boot.0.as_ref())),
            ("offset_ms".to_owned(), Value::Int(after.offset_ms)),
            ("trust".to_owned(), text(trust_name(after.trust))),
            ("source".to_owned(), text(self.source.as_str())),
            ("confirmed".to_owned(), Value::Bool(self.confirmed)),
        ]);
        if let Some(before) = self.before {
            params.insert("before_offset_ms".to_owned(), Value::Int(before.offset_ms));
            params.insert("before_trust".to_owned(), text(trust_name(before.trust)));
        }
        if self.jumped_ms != 0 {
            params.insert("jumped_ms".to_owned(), Value::Int(self.jumped_ms));
        }
        if self.withdrawn {
            params.insert("withdrawn".to_owned(), Value::Bool(true));
        }
        if let Some(uplink) = &self.uplink {
            params.insert("uplink".to_owned(), text(uplink.as_str()));
        }
        let worse = self.before.is_some_and(|before| before.trust > after.trust);
        let severity = (worse || self.jumped_ms != 0).then_some(Severity::Warning);
        let text = Text {
            zh: format!("时钟：来源 {}，可信度 {}", self.source.as_str(), trust_name(after.trust)),
            en: format!("clock: source {}, trust {}", self.source.as_str(), trust_name(after.trust)),
        };
        Draft::of_gateway(&self.at, None, (CLOCK_CHANGED, severity), params, text)
    }

    /// Reads a clock record back; none for any other record.
    pub fn read(at: &Stamp, body: &Body) -> Option<Self> {
        let Body::Event(event) = body else { return None };
        if event.name != CLOCK_CHANGED || event.device != DeviceRef::gateway(None) {
            return None;
        }
        let flag = |name: &str| matches!(event.params.get(name), Some(Value::Bool(true)));
        let number = |name: &str| match event.params.get(name) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        };
        let word = |name: &str| match event.params.get(name) {
            Some(Value::Text(word)) => Some(word.as_ref()),
            _ => None,
        };
        let before = match (number("before_offset_ms"), word("before_trust").and_then(trust_of)) {
            (Some(offset_ms), Some(trust)) => Some(Reckoning { offset_ms, trust }),
            _ => None,
        };
        let source = word("source").map(|name| serde_json::Value::String(name.to_owned()));
        Some(Self {
            at: at.clone(),
            source: source.and_then(|name| serde_json::from_value(name).ok()).unwrap_or_default(),
            confirmed: flag("confirmed"),
            before,
            jumped_ms: number("jumped_ms").unwrap_or(0),
            withdrawn: flag("withdrawn"),
            uplink: word("uplink").and_then(|name| UplinkName::new(name).ok()),
        })
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// The name of a trust level, as in messages.
pub const fn trust_name(trust: ClockTrust) -> &'static str {
    match trust {
        ClockTrust::None => "none",
        ClockTrust::Rtc => "rtc",
        ClockTrust::Platform => "platform",
        ClockTrust::Ntp => "ntp",
    }
}

fn trust_of(name: &str) -> Option<ClockTrust> {
    [ClockTrust::None, ClockTrust::Rtc, ClockTrust::Platform, ClockTrust::Ntp]
        .into_iter()
        .find(|trust| trust_name(*trust) == name)
}

/// Wall time beside monotonic time of a stamp.
pub fn offset_ms(at: &Stamp) -> i64 {
    at.wall_ms.saturating_sub(i64::try_from(at.mono_ms).unwrap_or(i64::MAX))
}

/// Wall time of `mono_ms` by an offset.
pub fn wall_ms(mono_ms: u64, offset_ms: i64) -> i64 {
    i64::try_from(mono_ms).unwrap_or(i64::MAX).saturating_add(offset_ms)
}

/// What is known of all boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Newest first.
    boots: Vec<BootClock>,
    /// The last wall time, in milliseconds since 1970, that more than one witness vouched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_ms: Option<i64>,
}

impl Clocks {
    /// Takes a clock record in, in the order of recording.
    pub fn note(&mut self, change: &ClockChange) {
        let (boot, after) = (&change.at.boot, change.after());
        let lowest = change.before.map_or(after.trust, |before| before.trust.min(after.trust));
        if let Some(known) = self.boots.iter_mut().find(|known| known.boot == *boot) {
            known.lowest = known.lowest.min(lowest);
            known.last = after;
            if change.withdrawn || after.trust >= known.best.trust {
                known.best = after;
            }
        } else {
            self.boots.insert(0, BootClock { boot: boot.clone(), best: after, last: after, lowest });
            self.boots.truncate(CLOCK_BOOTS_MAX);
        }
        if change.confirmed {
            self.confirm(change.at.wall_ms);
        }
    }

    /// A wall time that more than one witness vouches for. The latest word counts, also if it is an earlier time: what
    /// was wrong must not hold for ever.
    pub fn confirm(&mut self, wall_ms: i64) {
        self.confirmed_ms = Some(wall_ms);
    }

    pub const fn confirmed_ms(&self) -> Option<i64> {
        self.confirmed_ms
    }

    pub fn of(&self, boot: &BootId) -> Option<&BootClock> {
        self.boots.iter().find(|known| known.boot == *boot)
    }

    /// The boots but `present` whose records can be mended, newest first.
    pub fn corrections<'a>(&'a self, present: &'a BootId) -> impl Iterator<Item = &'a BootClock> {
        self.boots.iter().filter(move |known| known.boot != *present && known.best.trust > known.lowest)
    }

    /// The stamp as it would have been, had the box known then what it knows now; none where nothing better is known.
    /// For showing and for reckoning ages: stored stamps never change.
    pub fn mend(&self, at: &Stamp) -> Option<Stamp> {
        let best = self.of(&at.boot)?.best;
        (best.trust > at.trust).then(|| Stamp {
            wall_ms: wall_ms(at.mono_ms, best.offset_ms),
            trust: best.trust,
            ..at.clone()
        })
    }

    /// How old a record is, in milliseconds, with all that is known of its boot.
    pub fn age_ms(&self, at: &Stamp, now: &Stamp) -> Option<u64> {
        self.mend(at).map_or_else(|| at.age_ms(now), |mended| mended.age_ms(now))
    }
}

#[cfg(test)]
mod tests;
