//! Whether a sensor is heard, what its values were, and how often a door was opened in a night: small rows. Pure.

use serde::{Deserialize, Serialize};

use super::super::table::Row;
use crate::model::stamp::Stamp;

/// A sensor is silent after so many heartbeats: two lost messages are no death (as in `south::freshness`).
const SILENT_AFTER: u64 = 3;

/// And at the earliest after this, so that a restart of the box or of a broker is no silence.
const SILENT_AT_LEAST_MS: u64 = 30 * 60_000;

/// When a sensor was heard is noted once in so long: each note is a row in a commit.
const NOTED_EVERY_MS: u64 = 60_000;

const _: () = assert!(2 * NOTED_EVERY_MS < SILENT_AT_LEAST_MS);

/// A sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sensor {
    pub(super) heard_ms: u64,
    limit_ms: u64,
    pub(super) hearing: Hearing,
    due_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hearing {
    Heard,
    /// Silent, and the alarm of its bus says why.
    Hidden,
    /// Silent, and told.
    Told,
}

impl Row for Sensor {
    fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

impl Sensor {
    pub(super) fn begin(t_ms: u64, heartbeat_ms: u64) -> Self {
        let limit_ms = heartbeat_ms.saturating_mul(SILENT_AFTER).max(SILENT_AT_LEAST_MS);
        let due_ms = Some(t_ms.saturating_add(limit_ms));
        Self { heard_ms: t_ms, limit_ms, hearing: Hearing::Heard, due_ms }
    }

    /// Its heartbeat as it is configured now.
    pub(super) fn promise(&mut self, heartbeat_ms: u64) {
        self.limit_ms = heartbeat_ms.saturating_mul(SILENT_AFTER).max(SILENT_AT_LEAST_MS);
        if self.hearing == Hearing::Heard {
            self.due_ms = Some(self.heard_ms.saturating_add(self.limit_ms));
        }
    }

    /// It was heard. Returns how it stood before, if that changes anything.
    pub(super) fn heard(&mut self, t_ms: u64) -> Option<Hearing> {
        let before = self.hearing;
        if before == Hearing::Heard && t_ms < self.heard_ms.saturating_add(NOTED_EVERY_MS) {
            return None;
        }
        self.hearing = Hearing::Heard;
        self.heard_ms = t_ms;
        self.due_ms = Some(t_ms.saturating_add(self.limit_ms));
        (before != Hearing::Heard).then_some(before)
    }

    /// It is silent. Returns whether that is to be told.
    pub(super) fn silent(&mut self, hidden: bool) -> bool {
        self.due_ms = None;
        let tell = !hidden && self.hearing != Hearing::Told;
        if self.hearing != Hearing::Told {
            self.hearing = if hidden { Hearing::Hidden } else { Hearing::Told };
        }
        tell
    }

    /// Its bus is back: it gets the time to speak.
    pub(super) fn bus_back(&mut self, t_ms: u64) {
        if self.hearing != Hearing::Told {
            self.due_ms = Some(t_ms.saturating_add(self.limit_ms));
        }
    }

    /// The box was off for so long.
    pub(super) fn shift(&mut self, by_ms: u64) {
        self.heard_ms = self.heard_ms.saturating_add(by_ms);
        self.due_ms = self.due_ms.map(|due_ms| due_ms.saturating_add(by_ms));
    }
}

/// What a value was when it was a sign the last time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) number: Option<f64>,
    pub(super) held: Option<bool>,
}

impl Row for Before {}

impl Before {
    /// A meter's reading: whether it has grown by so much.
    pub(super) fn grown(&mut self, reading: f64, by: f64) -> bool {
        match self.number {
            // Rounded, so that ten readings of 0.001 more are 0.01 more.
            Some(before) if reading >= before => {
                let grown = reading - before >= by - 1e-9;
                if grown {
                    self.number = Some(reading);
                }
                grown
            }
            // The first, or a meter that was changed.
            _ => {
                self.number = Some(reading);
                false
            }
        }
    }

    /// A value: whether it differs by so much.
    pub(super) fn changed(&mut self, value: f64, by: f64) -> bool {
        let changed = self.number.is_some_and(|before| (value - before).abs() >= by);
        if changed || self.number.is_none() {
            self.number = Some(value);
        }
        changed
    }

    /// A value that is or is not what counts: whether it has become it.
    pub(super) fn became(&mut self, holds: bool) -> bool {
        let became = holds && self.held == Some(false);
        self.held = Some(holds);
        became
    }
}

/// Openings of the door in one night.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) since_ms: u64,
    pub(super) count: u16,
    pub(super) told: bool,
}

impl Row for Opened {}

/// A bus that is down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Down {
    pub(super) since: Stamp,
}

impl Row for Down {}

/// The consent that was recorded last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) date: String,
    pub(super) by: String,
    pub(super) revoked: Option<String>,
}

impl Row for Recorded {}

/// The pulse: a deadline that comes again and again, so that a longer pause between records shows that the box was off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pulse {
    pub(super) due_ms: u64,
}

impl Row for Pulse {
    fn due_ms(&self) -> Option<u64> {
        Some(self.due_ms)
    }
}
