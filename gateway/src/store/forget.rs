//! A piece of forgetting: which rows go, how it is booked, and the gap records that say so, all in one transaction.
//!
//! A gap record is written for each uplink that still needed some of the rows, and for nobody else: what every platform
//! has acknowledged leaves no hole. While the last gap record of the same uplink and cause is not delivered, the next
//! one takes its place and covers both, so that a platform that is away for a month finds one, and not a flood of them
//! that would crowd out events. The number of the one replaced is itself covered by a gap record of the class event, which
//! grows in the same way. Gap records that are not delivered are never dropped.
//!
//! Limits: [`PIECE_ROWS`] rows are looked at in a piece.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::cursor::SeqRange;
use crate::model::ids::{Epoch, Seq, UplinkName};
use crate::model::record::{Body, Class, Draft, Gap, GapReason};

use super::budget::ThinningStep;
use super::heads::PerClass;
use super::row::{Epochs, int, number};
use super::stage::Stage;
use super::usage::{TEXT_BYTES, row_bytes};
use super::wants::Wants;

/// Rows looked at, and at most deleted, in one transaction: a few milliseconds, so that appends do not wait longer.
pub(super) const PIECE_ROWS: usize = 500;

/// Why rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// One value a point is kept for each interval.
    Thinned { keep_every_s: u32 },
    /// The oldest, for room.
    Dropped,
    /// Older than the retention time.
    Expired,
    /// A gap record whose place a later one has taken: nothing is missing by it.
    Joined,
}

impl Cause {
    /// As it stands in the file, in metrics and in gap records.
    pub fn label(self) -> String {
        match self {
            Self::Thinned { keep_every_s } => format!("thinned to one in {keep_every_s} s"),
            Self::Dropped => "dropped".to_owned(),
            Self::Expired => "expired".to_owned(),
            Self::Joined => "joined".to_owned(),
        }
    }

    const fn reason(self) -> GapReason {
        match self {
            Self::Thinned { .. } | Self::Dropped | Self::Joined => GapReason::Forgotten,
            Self::Expired => GapReason::Expired,
        }
    }

    fn detail(self, oldest_ms: Option<i64>, newest_ms: Option<i64>) -> String {
        let what = match self {
            Self::Thinned { keep_every_s } => format!("thinned to one value a point in {keep_every_s} s"),
            Self::Dropped => "dropped for room, oldest first".to_owned(),
            Self::Expired => "older than the retention time".to_owned(),
            Self::Joined => return "gap records whose place later ones have taken".to_owned(),
        };
        let time = |ms: Option<i64>| ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match (time(oldest_ms), time(newest_ms)) {
            (Some(oldest), Some(newest)) => format!("{what}; stamped {oldest} to {newest}"),
            _ => format!("{what}; when is not known"),
        }
    }
}

/// What one uplink misses by a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    uplink: UplinkName,
    class: Class,
    cause: Cause,
    /// None: the epoch of the gap record itself.
    epoch: Option<Epoch>,
    from: Seq,
    to: Seq,
    count: u64,
    oldest_ms: Option<i64>,
    newest_ms: Option<i64>,
    /// The gap record that this one takes the place of.
    replaces: Option<Seq>,
}

/// Rows that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub class: Class,
    pub cause: Cause,
    /// Every row within goes.
    runs: Vec<SeqRange>,
    pub records: u64,
    pub bytes: u64,
    /// Up to where this step of thinning is done.
    thinned: Option<(ThinningStep, Seq)>,
    missing: Vec<Missing>,
}

/// A row as forgetting sees it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) seq: Seq,
    pub(super) bytes: u64,
    pub(super) boot: i64,
    pub(super) mono_ms: u64,
    /// Where the clock could be trusted.
    wall_ms: Option<i64>,
    /// None where it was not asked for, or cannot be read.
    pub(super) body: Option<Body>,
    gap: bool,
}

/// The rows of a class from `from` to `to`, at most [`PIECE_ROWS`]. With `bodies` every body is read, without only
/// those of gap records.
pub(super) fn candidates(
    conn: &Connection,
    class: Class,
    (from, to): (Seq, Seq),
    bodies: bool,
) -> rusqlite::Result<Vec<Candidate>> {
    let events = class == Class::Event;
    // Of events, only gap records have no category.
    let gap = if events { "category IS NULL" } else { "0" };
    let body = if bodies { "body".to_owned() } else { format!("CASE WHEN {gap} THEN body END") };
    let sql = format!(
        "SELECT seq, {TEXT_BYTES}, boot, mono_ms, wall_ms, trust, {body}, {gap} FROM {} \
         WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT {PIECE_ROWS}",
        class.as_str()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([int(from), int(to)], |row| {
        let json: Option<String> = row.get(6)?;
        let trusted = row.get::<_, i64>(5)? > 0;
        Ok(Candidate {
            seq: number(row.get(0)?),
            bytes: row_bytes(number(row.get(1)?)),
            boot: row.get(2)?,
            mono_ms: number(row.get(3)?),
            wall_ms: if trusted { Some(row.get(4)?) } else { None },
            body: json.and_then(|json| serde_json::from_str(&json).ok()),
            gap: row.get(7)?,
        })
    })?;
    rows.collect()
}

impl Candidate {
    /// Whether it is a gap record that somebody still has to get.
    pub(super) fn is_owed(&self, wants: &Wants) -> bool {
        self.gap
            && match &self.body {
                Some(Body::Gap(Gap { uplink: Some(uplink), .. })) => {
                    wants.needs(uplink, Class::Event, self.seq)
                }
                _ => wants.anyone_needs(Class::Event, self.seq),
            }
    }
}

/// What goes of the rows that were looked at, in order.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    rows: Vec<&'a Candidate>,
    bytes: u64,
    /// Where a row that stays lies behind the last one that goes.
    runs: Vec<SeqRange>,
    broken: bool,
}

impl<'a> Choice<'a> {
    pub(super) fn goes(&mut self, row: &'a Candidate) {
        match self.runs.last_mut().filter(|_| !self.broken) {
            Some(run) => run.to = row.seq,
            None => self.runs.push(SeqRange { from: row.seq, to: row.seq }),
        }
        self.broken = false;
        self.bytes = self.bytes.saturating_add(row.bytes);
        self.rows.push(row);
    }

    pub(super) const fn stays(&mut self) {
        self.broken = true;
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Where the numbers of a class change their epoch: rows of one piece never lie on both sides.
#[derive(Debug)]
pub(super) struct Borders {
    epochs: Epochs,
    opened: PerClass<Seq>,
}

impl Borders {
    pub(super) fn load(conn: &Connection, opened: PerClass<Seq>) -> rusqlite::Result<Self> {
        Ok(Self { epochs: Epochs::load(conn)?, opened })
    }

    /// What a gap record says of the epoch. Records since this process opened the file share the fate of the gap record
    /// itself, which a fork takes along; the others keep their epoch for good.
    pub(super) fn epoch(&self, class: Class, seq: Seq) -> Option<Epoch> {
        if seq > self.opened[class] { None } else { self.epochs.of(class, seq) }
    }
}

/// Makes the piece of what was chosen.
pub(super) fn piece(
    conn: &Connection,
    (class, cause): (Class, Cause),
    choice: Choice<'_>,
    thinned: Option<(ThinningStep, Seq)>,
    (wants, borders): (&Wants, &Borders),
) -> rusqlite::Result<Piece> {
    let mut missing = Vec::new();
    for uplink in wants.uplinks() {
        // A gap record that goes was delivered, and is nothing to others.
        let needed: Vec<&Candidate> = choice
            .rows
            .iter()
            .copied()
            .filter(|row| !row.gap && wants.needs(uplink, class, row.seq))
            .collect();
        let (Some(first), Some(last)) = (needed.first(), needed.last()) else { continue };
        let stamps = || needed.iter().filter_map(|row| row.wall_ms);
        let here = Missing {
            uplink: uplink.clone(),
            class,
            cause,
            epoch: borders.epoch(class, first.seq),
            from: first.seq,
            to: last.seq,
            count: needed.len() as u64,
            oldest_ms: stamps().min(),
            newest_ms: stamps().max(),
            replaces: None,
        };
        let here = joined(conn, here, wants)?;
        let replaced = here.replaces;
        missing.push(here);
        if let Some(seq) = replaced {
            missing.push(joined_cover(conn, uplink, seq, (wants, borders))?);
        }
    }
    let (records, bytes) = (choice.rows.len() as u64, choice.bytes);
    Ok(Piece { class, cause, runs: choice.runs, records, bytes, thinned, missing })
}

/// What covers the number of a gap record that is replaced, and of the last one that did so.
fn joined_cover(
    conn: &Connection,
    uplink: &UplinkName,
    seq: Seq,
    (wants, borders): (&Wants, &Borders),
) -> rusqlite::Result<Missing> {
    let here = Missing {
        uplink: uplink.clone(),
        class: Class::Event,
        cause: Cause::Joined,
        epoch: borders.epoch(Class::Event, seq),
        from: seq,
        to: seq,
        count: 1,
        oldest_ms: None,
        newest_ms: None,
        replaces: None,
    };
    let both = joined(conn, here.clone(), wants)?;
    Ok(match both.replaces {
        Some(own) if borders.epoch(Class::Event, own) == here.epoch => {
            Missing { to: both.to.max(own), count: both.count.saturating_add(1), ..both }
        }
        _ => here,
    })
}

/// Together with the last gap record of the same kind, if that is not delivered yet.
fn joined(conn: &Connection, here: Missing, wants: &Wants) -> rusqlite::Result<Missing> {
    let known = conn
        .prepare_cached(
            "SELECT event.seq, event.body, gap.oldest_ms, gap.newest_ms FROM gap JOIN event ON event.seq = gap.seq \
             WHERE gap.uplink = ?1 AND gap.class = ?2 AND gap.cause = ?3",
        )?
        .query_row(params![here.uplink.as_str(), here.class.as_str(), here.cause.label()], |row| {
            let seq = number(row.get(0)?);
            Ok((seq, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?))
        })
        .optional()?;
    let Some((seq, json, oldest_ms, newest_ms)) = known else { return Ok(here) };
    let Ok(Body::Gap(gap)) = serde_json::from_str(&json) else { return Ok(here) };
    if gap.epoch != here.epoch || !wants.needs(&here.uplink, Class::Event, seq) {
        return Ok(here);
    }
    Ok(Missing {
        from: here.from.min(gap.from),
        to: here.to.max(gap.to),
        count: here.count.saturating_add(gap.count),
        oldest_ms: [here.oldest_ms, oldest_ms].into_iter().flatten().min(),
        newest_ms: here.newest_ms.max(newest_ms),
        replaces: Some(seq),
        ..here
    })
}

impl Stage<'_> {
    /// Deletes, books, and tells.
    pub(super) fn forget(&mut self, piece: &Piece) -> rusqlite::Result<()> {
        let class = piece.class;
        let table = class.as_str();
        {
            let mut delete =
                self.conn.prepare_cached(&format!("DELETE FROM {table} WHERE seq BETWEEN ?1 AND ?2"))?;
            for run in &piece.runs {
                delete.execute([int(run.from), int(run.to)])?;
            }
        }
        self.state.sums.usage[class].take(piece.records, piece.bytes);
        self.conn
            .prepare_cached(
                "INSERT INTO forgotten (class, cause, records, bytes) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (class, cause) DO UPDATE SET records = records + excluded.records, \
                 bytes = bytes + excluded.bytes",
            )?
            .execute(params![table, piece.cause.label(), int(piece.records), int(piece.bytes)])?;
        if let Some((step, upto)) = piece.thinned {
            self.conn
                .prepare_cached(
                    "REPLACE INTO thinned (older_than_h, keep_every_s, upto) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![step.older_than_h, step.keep_every_s, int(upto)])?;
        }
        for missing in &piece.missing {
            self.tell_gap(missing)?;
        }
        let mut changed = vec![class];
        if !piece.missing.is_empty() && class != Class::Event {
            changed.push(Class::Event);
        }
        for class in changed {
            let last = self.state.heads.last[class];
            self.state.sums.note(self.conn, class, last)?;
            let sql = format!("SELECT min(seq) FROM {}", class.as_str());
            let first: Option<i64> = self.conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            self.state.heads.first[class] = first.map_or(last.saturating_add(1), number);
        }
        Ok(())
    }

    fn tell_gap(&mut self, missing: &Missing) -> rusqlite::Result<()> {
        let Missing { uplink, class, cause, epoch, from, to, count, oldest_ms, newest_ms, replaces } =
            missing;
        if let Some(seq) = replaces {
            let texts: Option<i64> = self
                .conn
                .prepare_cached(&format!("DELETE FROM event WHERE seq = ?1 RETURNING {TEXT_BYTES}"))?
                .query_row([int(*seq)], |row| row.get(0))
                .optional()?;
            if let Some(texts) = texts {
                self.state.sums.usage[Class::Event].take(1, row_bytes(number(texts)));
            }
        }
        let gap = Gap {
            uplink: Some(uplink.clone()),
            epoch: *epoch,
            class: *class,
            from: *from,
            to: *to,
            count: *count,
            reason: cause.reason(),
            detail: cause.detail(*oldest_ms, *newest_ms),
        };
        // The next number is this record's: what the fold makes of it comes behind.
        let seq = self.state.heads.last[Class::Event].saturating_add(1);
        self.tell(Draft { at: self.now.clone(), test: false, dedup: None, body: Body::Gap(gap) })?;
        self.conn
            .prepare_cached(
                "REPLACE INTO gap (uplink, class, cause, seq, oldest_ms, newest_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                uplink.as_str(),
                class.as_str(),
                cause.label(),
                int(seq),
                oldest_ms,
                newest_ms
            ])?;
        Ok(())
    }
}
