//! Debounce: a digital input must hold a new state for a while before it counts. Pure; time is passed in.

use super::point::{Loop, Reading, Said};

/// What one point's input did of late. Not part of the memory that commits guard: it is about the wire, not about what
/// was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    stable: Option<Said>,
    /// A new state, and the monotonic milliseconds since when it holds.
    rising: Option<(Said, u64)>,
    state: Option<Loop>,
}

impl Filter {
    /// The loop's state at the last reading, for the hysteresis.
    pub(super) const fn state(&self) -> Option<Loop> {
        self.state
    }

    /// What counts of `said`, read at `now_ms`; none while nothing has held for long enough since the start.
    pub(super) fn pass(&mut self, reading: &Reading, said: Said, now_ms: u64) -> Option<Said> {
        if let Said::Loop(state) = &said {
            self.state = Some(*state);
        }
        if reading.debounce.is_zero() || !reading.digital() || matches!(said, Said::Nothing { .. }) {
            return Some(said);
        }
        if self.stable.as_ref() == Some(&said) {
            self.rising = None;
            return Some(said);
        }
        let since_ms = match &self.rising {
            Some((rising, since_ms)) if *rising == said => *since_ms,
            _ => now_ms,
        };
        if u128::from(now_ms.saturating_sub(since_ms)) >= reading.debounce.as_millis() {
            self.rising = None;
            self.stable = Some(said.clone());
            return Some(said);
        }
        self.rising = Some((said, since_ms));
        self.stable.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Value;
    use crate::south::modbus::point::readings;
    use crate::south::profile::Profile;

    #[test]
    fn a_state_counts_when_it_has_held() {
        let text = "kind = 'x'\ntitle = { zh = 'x', en = 'x' }\n[modbus]\ndebounce_ms = 100\n\
                    [points.p]\ndiscrete = 0";
        let profile: Profile = toml::from_str(text).unwrap();
        let reading = readings(&profile, profile.modbus.as_ref().unwrap(), 0).remove(0);
        let mut filter = Filter::default();
        let mut pass = |now_ms, on| match filter.pass(&reading, Said::Value(Value::Bool(on)), now_ms) {
            Some(Said::Value(Value::Bool(on))) => Some(on),
            _ => None,
        };
        assert_eq!(pass(0, false), None, "at the start nothing has held yet");
        assert_eq!(pass(99, false), None);
        assert_eq!(pass(100, false), Some(false));
        assert_eq!(pass(150, true), Some(false));
        assert_eq!(pass(200, false), Some(false), "it bounced");
        assert_eq!(pass(250, true), Some(false));
        assert_eq!(pass(350, true), Some(true));
    }
}
