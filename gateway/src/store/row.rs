//! Records as rows, and back. Numbers are 63 bits wide in SQLite; ours never come near.

use std::fmt::Write;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::clock::Clocks;
use crate::model::ids::{BootId, Epoch, Pos, Seq};
use crate::model::limits::RECORD_BODY_BYTES_MAX;
use crate::model::record::{Alarm, Body, Category, Class, Draft, Record, Severity, Value};
use crate::model::stamp::{ClockTrust, Stamp};

use super::heads::PerClass;

/// A sequence number, position or count as SQLite stores it.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// And back; a negative number only stands in a damaged file, and is read as "none".
pub(super) fn number(int: i64) -> u64 {
    u64::try_from(int).unwrap_or(0)
}

/// The severity as it stands in the column: comparable.
pub(super) const fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Warning => 1,
        Severity::Minor => 2,
        Severity::Major => 3,
        Severity::Critical => 4,
    }
}

const fn trust_code(trust: ClockTrust) -> i64 {
    match trust {
        ClockTrust::None => 0,
        ClockTrust::Rtc => 1,
        ClockTrust::Platform => 2,
        ClockTrust::Ntp => 3,
    }
}

const fn trust_of(code: i64) -> Option<ClockTrust> {
    match code {
        0 => Some(ClockTrust::None),
        1 => Some(ClockTrust::Rtc),
        2 => Some(ClockTrust::Platform),
        3 => Some(ClockTrust::Ntp),
        _ => None,
    }
}

fn severity(body: &Body) -> Option<Severity> {
    match body {
        Body::Alarm(alarm) => alarm.raised.severity,
        Body::Event(event) => event.severity,
        Body::Telemetry(_) | Body::Gap(_) => None,
    }
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(float) => float.is_finite(),
        Value::Bool(_) | Value::Int(_) | Value::Text(_) => true,
    }
}

/// The body as JSON, or why it cannot be stored.
pub(super) fn encode(body: &Body) -> Result<String, String> {
    let finite = match body {
        Body::Alarm(alarm) => {
            let Alarm { raised, .. } = alarm.as_ref();
            raised.params.values().all(is_finite)
        }
        Body::Event(event) => event.params.values().all(is_finite),
        Body::Telemetry(telemetry) => {
            telemetry.samples.iter().all(|sample| sample.value.as_ref().is_none_or(is_finite))
        }
        Body::Gap(_) => true,
    };
    if !finite {
        return Err("a number is not finite".to_owned());
    }
    let json = serde_json::to_string(body).map_err(|error| error.to_string())?;
    if json.len() > RECORD_BODY_BYTES_MAX {
        return Err(format!("its body has {} bytes, {RECORD_BODY_BYTES_MAX} are allowed", json.len()));
    }
    Ok(json)
}

/// Writes one record; `boot` is the row of its boot id.
pub(super) fn insert(
    conn: &Connection,
    (seq, pos, boot): (Seq, Pos, i64),
    draft: &Draft,
    json: &str,
) -> rusqlite::Result<()> {
    let class = draft.body.class().as_str();
    let mut statement = conn.prepare_cached(&format!(
        "INSERT INTO {class} (seq, pos, boot, mono_ms, wall_ms, trust, test, category, severity, device, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?;
    // By place: looking names up costs more than binding.
    statement.execute(params![
        int(seq),
        int(pos),
        boot,
        int(draft.at.mono_ms),
        draft.at.wall_ms,
        trust_code(draft.at.trust),
        i64::from(draft.test),
        draft.body.category().map(Category::as_str),
        severity(&draft.body).map(rank),
        draft.body.device().map(|device| device.id.as_str()),
        json,
    ])?;
    Ok(())
}

/// What stands at a sequence number.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// A record.
    Record(Box<Record>),
    /// A row whose bytes cannot be read back: it must not block those behind it.
    Unreadable {
        class: Class,
        seq: Seq,
        /// What is wrong with it, for a person.
        error: String,
    },
}

impl Read {
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Record(record) => record.seq,
            Self::Unreadable { seq, .. } => *seq,
        }
    }

    pub fn into_record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(*record),
            Self::Unreadable { .. } => None,
        }
    }
}

/// The columns that [`decode`] wants, of table `r` joined with `b`.
pub(super) fn select(class: Class) -> String {
    let class = class.as_str();
    format!(
        "SELECT r.seq, r.pos, b.boot, r.mono_ms, r.wall_ms, r.trust, r.test, r.body \
         FROM {class} r LEFT JOIN boot b ON b.id = r.boot "
    )
}

/// A row of [`select`] as a record, with the bytes of its body.
pub(super) fn decode(class: Class, row: &Row<'_>, epochs: &Epochs) -> rusqlite::Result<(Read, usize)> {
    let seq = number(row.get(0)?);
    Ok(match columns(class, seq, row, epochs) {
        Ok((record, bytes)) => (Read::Record(Box::new(record)), bytes),
        Err(error) => (Read::Unreadable { class, seq, error }, 0),
    })
}

fn columns(class: Class, seq: Seq, row: &Row<'_>, epochs: &Epochs) -> Result<(Record, usize), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let boot: Option<String> = row.get(2).map_err(text)?;
    let boot = boot.ok_or("its boot id is unknown")?;
    let trust: i64 = row.get(5).map_err(text)?;
    let at = Stamp {
        boot: BootId(boot.into()),
        mono_ms: number(row.get(3).map_err(text)?),
        wall_ms: row.get(4).map_err(text)?,
        trust: trust_of(trust).ok_or_else(|| format!("its clock trust is {trust}"))?,
    };
    let json: String = row.get(7).map_err(text)?;
    let body: Body = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    if body.class() != class {
        return Err(format!("its body is of class {}", body.class().as_str()));
    }
    let pos = number(row.get(1).map_err(text)?);
    let test = row.get::<_, i64>(6).map_err(text)? != 0;
    let epoch = epochs.of(class, seq).ok_or("it belongs to no epoch")?;
    Ok((Record { pos, epoch, class, seq, at, test, body }, json.len()))
}

/// The row of `meta` with what clock records say of each boot.
pub(super) const CLOCKS: &str = "clocks";

/// What clock records say of each boot. What cannot be read is as good as nothing: the next record makes it anew.
pub(super) fn clocks(conn: &Connection) -> rusqlite::Result<Clocks> {
    let json: Option<String> = conn
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([CLOCKS], |row| row.get(0))
        .optional()?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default())
}

/// The state of the pipeline: its rows by key.
pub(super) fn fold_rows(conn: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = conn.prepare("SELECT key, value FROM fold ORDER BY key")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The latest wall time among the last records of each class that NTP vouched for.
pub(super) fn last_ntp_ms(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let mut latest = None;
    for class in Class::ALL {
        let sql = format!("SELECT wall_ms, trust FROM {} ORDER BY seq DESC LIMIT 1", class.as_str());
        let last: Option<(i64, i64)> =
            conn.prepare_cached(&sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let wall_ms =
            last.filter(|(_, trust)| *trust == trust_code(ClockTrust::Ntp)).map(|(wall_ms, _)| wall_ms);
        latest = latest.max(wall_ms);
    }
    Ok(latest)
}

/// The epochs of the file, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Epochs(Vec<(Epoch, PerClass<Seq>)>);

impl Epochs {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut statement = conn
            .prepare_cached("SELECT epoch, alarm_from, event_from, telemetry_from FROM epoch ORDER BY n")?;
        let rows = statement.query_map([], |row| {
            let text: String = row.get(0)?;
            let epoch = Epoch::try_from(text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
            })?;
            let (alarm, event, telemetry) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let from = PerClass::from_fn(|class| match class {
                Class::Alarm => number(alarm),
                Class::Event => number(event),
                Class::Telemetry => number(telemetry),
            });
            Ok((epoch, from))
        })?;
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    /// The epoch of the next record.
    pub(super) fn current(&self) -> Option<Epoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    pub(super) fn contains(&self, epoch: Epoch) -> bool {
        self.0.iter().any(|(known, _)| *known == epoch)
    }

    /// A fork reaches back to where the process opened the file, so the last row that reaches `seq` wins.
    pub(super) fn of(&self, class: Class, seq: Seq) -> Option<Epoch> {
        self.entry(class, seq).map(|(epoch, _)| *epoch)
    }

    /// The first number of the epoch that `seq` belongs to; 1 if there is none.
    pub(super) fn start(&self, class: Class, seq: Seq) -> Seq {
        self.entry(class, seq).map_or(1, |(_, from)| from[class])
    }

    fn entry(&self, class: Class, seq: Seq) -> Option<&(Epoch, PerClass<Seq>)> {
        self.0.iter().rev().find(|(_, from)| from[class] <= seq)
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
