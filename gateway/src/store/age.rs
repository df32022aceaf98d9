//! How old records are, for retention and thinning, in a world where clocks lie (promise G8).
//!
//! Within one boot the monotonic clock tells. Across boots the wall clock does, if both stamps can be trusted; where
//! they cannot, the order of the records does: what was stored before a record that is known to be old is old. A record
//! that is known to be young ends the search, whatever stands behind it. A wall clock that has jumped in this process is
//! not believed for [`JUMP_DISTRUST_MS`], unless a platform or NTP vouches for it: a jump of a year must not expire
//! everything.

use rusqlite::{Connection, params};

use crate::model::ids::{BootId, Seq};
use crate::model::record::Class;
use crate::model::stamp::{ClockTrust, Stamp};

use super::row::{int, number};

/// Rows judged in one go: a few milliseconds.
const SURVEY_ROWS: i64 = 2_000;

/// More than an honest clock is corrected by in a running system.
const JUMP_MS: i64 = 10 * 60 * 1_000;
const JUMP_DISTRUST_MS: u64 = 24 * 3_600 * 1_000;

/// Watches the wall clock against the monotonic one.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// Wall time minus monotonic time, when last seen.
    offset_ms: Option<i64>,
    distrusted_until_ms: u64,
}

impl Calendar {
    pub(super) fn look(&mut self, now: &Stamp) {
        let offset = now.wall_ms.saturating_sub(i64::try_from(now.mono_ms).unwrap_or(i64::MAX));
        let jumped = self.offset_ms.is_some_and(|known| known.abs_diff(offset) > JUMP_MS.unsigned_abs());
        if jumped {
            self.distrusted_until_ms = now.mono_ms.saturating_add(JUMP_DISTRUST_MS);
        }
        self.offset_ms = Some(offset);
    }

    /// The stamp by which ages are judged: its wall time counts only where it can be believed.
    pub(super) fn judged(&self, now: &Stamp) -> Stamp {
        let vouched = now.trust >= ClockTrust::Platform;
        let trust =
            if vouched || now.mono_ms >= self.distrusted_until_ms { now.trust } else { ClockTrust::None };
        Stamp { trust, ..now.clone() }
    }
}

/// What is known of the ages in one class, against one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Every record up to here is as old as the limit.
    pub(super) old_to: Seq,
    /// Looked at up to here; behind `old_to` nothing could be told.
    looked_to: Seq,
}

/// What a look has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// There is more to look at.
    Further,
    /// The records end here, or a young one was found.
    Done,
}

impl Survey {
    /// Goes on where it stood.
    pub(super) fn look(
        &mut self,
        conn: &Connection,
        class: Class,
        age_ms: u64,
        judged: &Stamp,
    ) -> rusqlite::Result<Looked> {
        let sql = format!(
            "SELECT r.seq, b.boot, r.mono_ms, r.wall_ms, r.trust > 0 FROM {} r LEFT JOIN boot b ON b.id = r.boot \
             WHERE r.seq > ?1 ORDER BY r.seq LIMIT {SURVEY_ROWS}",
            class.as_str()
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![int(self.looked_to.max(self.old_to))])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            let seq = number(row.get(0)?);
            let boot: Option<String> = row.get(1)?;
            let at = Stamp {
                boot: BootId(boot.unwrap_or_default().into()),
                mono_ms: number(row.get(2)?),
                wall_ms: row.get(3)?,
                trust: if row.get(4)? { ClockTrust::Rtc } else { ClockTrust::None },
            };
            match at.age_ms(judged) {
                Some(age) if age >= age_ms => self.old_to = seq,
                Some(_young) => {
                    // It and what cannot be told before it are looked at again another time.
                    self.looked_to = self.old_to;
                    return Ok(Looked::Done);
                }
                None => {}
            }
            self.looked_to = seq;
        }
        if seen < SURVEY_ROWS {
            self.looked_to = self.old_to;
            return Ok(Looked::Done);
        }
        Ok(Looked::Further)
    }
}
