//! Water that does not stop, from the readings of a meter. Pure.
//!
//! A half hour in which the meter was not read says nothing, and so is none with flow: the rule needs 48 that are known.

use serde::{Deserialize, Serialize};

use super::super::table::Row;
use super::config::Leak;

const SLOT_MS: u64 = 30 * 60_000;
/// Half hours of a day.
pub(super) const SLOTS: u16 = 48;

/// Less than this is the rounding of a meter that counts litres.
const FLOW_MIN: f64 = 0.000_5;

/// What is remembered of a meter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flow {
    reading: Option<f64>,
    /// Number of the present half hour.
    slot: u64,
    flowed: bool,
    /// Half hours with flow before the present one, without one missing.
    streak: u16,
    /// What flowed in each of the last 48 half hours in which something did.
    volumes: Vec<(u64, f64)>,
    /// An alarm stands.
    pub(super) leaking: bool,
}

impl Row for Flow {}

/// Why it is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    EveryHalfHour,
    Day,
}

impl Flow {
    /// A reading: what is too much now, if anything.
    pub(super) fn read(&mut self, t_ms: u64, reading: f64, leak: &Leak) -> Option<Excess> {
        let slot = t_ms / SLOT_MS;
        if slot > self.slot {
            self.streak = if self.flowed { self.streak.saturating_add(1).min(SLOTS) } else { 0 };
            if slot != self.slot.saturating_add(1) {
                self.streak = 0;
            }
            (self.slot, self.flowed) = (slot, false);
            self.volumes.retain(|(old, _)| old.saturating_add(u64::from(SLOTS)) > slot);
        }
        // A meter that was changed or reset begins anew.
        let flowed = self.reading.map_or(0.0, |before| (reading - before).max(0.0));
        self.reading = Some(reading);
        if flowed >= FLOW_MIN {
            self.flowed = true;
            match self.volumes.last_mut() {
                Some((last, volume)) if *last == slot => *volume += flowed,
                _ => self.volumes.push((slot, flowed)),
            }
        }
        let volume: f64 = self.volumes.iter().map(|(_, volume)| volume).sum();
        if volume > leak.day_max {
            return Some(Excess::Day);
        }
        (leak.every_half_hour && self.streak >= SLOTS).then_some(Excess::EveryHalfHour)
    }
}
