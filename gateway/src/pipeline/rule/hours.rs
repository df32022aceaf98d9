//! Hours of the day by the site's wall clock. They decide whether a rule looks, never how long something lasted.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::stamp::{ClockTrust, Stamp};

const DAY_MIN: i64 = 24 * 60;
const MINUTE_MS: i64 = 60_000;

/// A time of the day, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct DayTime {
    /// Minutes since midnight.
    pub minutes: u16,
}

impl TryFrom<String> for DayTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let part = |part: &str, most: u16| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|number: &u16| digits && *number <= most)
        };
        text.split_once(':')
            .and_then(|(hours, minutes)| Some(Self { minutes: part(hours, 23)? * 60 + part(minutes, 59)? }))
            .ok_or_else(|| format!("{text:?} is not a time of the day such as \"22:00\""))
    }
}

impl JsonSchema for DayTime {
    fn schema_name() -> Cow<'static, str> {
        "DayTime".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$" })
    }
}

/// A part of each day; from evening to morning where `from` is later than `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// When it begins, `HH:MM` at the site.
    pub from: DayTime,
    /// When it ends, `HH:MM` at the site.
    pub to: DayTime,
}

impl Hours {
    /// Whether a moment lies within. A clock that nobody vouches for counts as within: rather an alarm too many.
    pub fn hold(&self, at: &Stamp, utc_offset_min: i32) -> bool {
        if at.trust == ClockTrust::None {
            return true;
        }
        let minute = minute_of_day(at, utc_offset_min);
        let (from, to) = (i64::from(self.from.minutes), i64::from(self.to.minutes));
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }

    /// How long after a moment outside they begin, by the clock as it stands then.
    pub fn begin_in_ms(&self, at: &Stamp, utc_offset_min: i32) -> u64 {
        let until = i64::from(self.from.minutes) - minute_of_day(at, utc_offset_min);
        let into_minute = at.wall_ms.rem_euclid(MINUTE_MS);
        let wait = until.rem_euclid(DAY_MIN) * MINUTE_MS - into_minute;
        u64::try_from(wait).unwrap_or(0).max(1)
    }
}

fn minute_of_day(at: &Stamp, utc_offset_min: i32) -> i64 {
    at.wall_ms.div_euclid(MINUTE_MS).saturating_add(i64::from(utc_offset_min)).rem_euclid(DAY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::BootId;

    fn at(minute: i64, trust: ClockTrust) -> Stamp {
        Stamp { boot: BootId("a".into()), mono_ms: 0, wall_ms: minute * MINUTE_MS + 500, trust }
    }

    fn hours(from: &str, to: &str) -> Hours {
        let time = |text: &str| DayTime::try_from(text.to_owned()).unwrap();
        Hours { from: time(from), to: time(to) }
    }

    #[test]
    fn a_night_spans_midnight_at_the_site() {
        let night = hours("22:00", "06:00");
        // UTC 14:00 is 22:00 in China.
        for (minute, within) in [(14 * 60, true), (14 * 60 - 1, false), (21 * 60, true), (22 * 60, false)] {
            assert_eq!(night.hold(&at(minute, ClockTrust::Ntp), 480), within, "minute {minute}");
        }
        assert!(night.hold(&at(22 * 60, ClockTrust::None), 480));
        assert_eq!(night.begin_in_ms(&at(13 * 60, ClockTrust::Ntp), 480), 3_600_000 - 500);
        assert!(hours("08:00", "09:00").hold(&at(8 * 60 + 59, ClockTrust::Rtc), 0));
        assert!(!hours("08:00", "08:00").hold(&at(8 * 60, ClockTrust::Rtc), 0));
    }

    #[test]
    fn a_time_of_the_day_has_two_digits_and_two() {
        for bad in ["24:00", "7:00", "12:60", "12", "+1:00", "12:00:00", ""] {
            assert!(DayTime::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }
}
