//! How often doors may be opened by order. There is no way to open all of them.

use std::collections::VecDeque;

use crate::model::ids::DeviceId;

/// The same door again, at the earliest: a lock's pulse is over, and somebody has gone through.
const DOOR_PAUSE_MS: u64 = 5_000;

/// Doors opened by order within a minute, on this box, whoever orders. A guard who lets visitors in needs some six.
const DOORS_PER_MINUTE_MAX: usize = 12;

const MINUTE_MS: u64 = 60_000;

/// The doors opened within the last minute.
#[derive(Debug, Default)]
pub(super) struct Doors {
    opened: VecDeque<(u64, DeviceId)>,
}

impl Doors {
    /// Takes note that `door` is opened at this moment, or says why it may not be.
    pub(super) fn open(&mut self, door: &DeviceId, now_ms: u64) -> Result<(), String> {
        self.opened.retain(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < MINUTE_MS);
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        if self.opened.iter().any(|(at_ms, opened)| opened == door && since(*at_ms) < DOOR_PAUSE_MS) {
            return Err(format!("this door was opened less than {} s ago", DOOR_PAUSE_MS / 1_000));
        }
        if self.opened.len() >= DOORS_PER_MINUTE_MAX {
            return Err(format!("{DOORS_PER_MINUTE_MAX} doors were opened by order within a minute"));
        }
        self.opened.push_back((now_ms, door.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_and_all_doors_have_their_pace() {
        let door = |n: usize| DeviceId::new(&format!("door-{n}")).unwrap();
        let mut doors = Doors::default();
        assert!(doors.open(&door(0), 1_000).is_ok());
        assert!(doors.open(&door(0), 1_000 + DOOR_PAUSE_MS - 1).is_err());
        for n in 1..DOORS_PER_MINUTE_MAX {
            assert!(doors.open(&door(n), 2_000).is_ok(), "door {n}");
        }
        assert!(doors.open(&door(99), 3_000).is_err());
        // What was refused does not count.
        assert!(doors.open(&door(99), 1_000 + MINUTE_MS).is_ok());
        assert!(doors.open(&door(98), 1_000 + MINUTE_MS).is_err());
    }
}
