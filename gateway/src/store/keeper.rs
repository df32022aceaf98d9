//! Keeping house: decides what is to be forgotten next, and does one small piece at a time between commits.
//!
//! The order (promise G4): what is past its retention; then telemetry above its budget, thinned step by step and only
//! then dropped, oldest first; then events above theirs; alarms last. The budgets are apart, so that telemetry never
//! displaces an event. Only where the disk itself is full does telemetry go below its budget, down to a floor.
//! Freed pages are used again by the next records; the file is made smaller only where much of it is free, or where the
//! disk is full, since moving pages wears the flash.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::ids::{Seq, UplinkName};
use crate::model::record::{Class, Draft};
use crate::model::stamp::Stamp;

use super::Keeping;
use super::age::{Calendar, Looked, Survey};
use super::budget::{Budgets, ThinningStep};
use super::core::Core;
use super::error::{StoreError, sql};
use super::forget::{Borders, Cause, Choice, PIECE_ROWS, Piece, candidates, piece};
use super::heads::PerClass;
use super::notice;
use super::op::Op;
use super::reserve::{Disk, Reserve};
use super::room::{News, Room};
use super::row::number;
use super::schema::PAGE_BYTES;
use super::thin::Thinning;
use super::wants::Wants;

/// How often the disk is looked at.
const LOOK_MS: u64 = 1_000;
/// How often ages are judged anew, and work that found nothing is tried again.
const AGAIN_MS: u64 = 60_000;
/// How often the pages of the small tables are counted.
const OTHERS_MS: u64 = 3_600_000;
/// On a full disk, pieces forgotten before their room is given back.
pub(super) const PIECES_BEFORE_RELIEF: u32 = 8;
/// Thinning leaves pages that are a third full at worst: SQLite merges emptier ones.
const SPARSE_MAX: u64 = 3;
/// The roots of all tables, and what the small ones hold.
const SMALL_TABLES_BYTES: u64 = 24 * PAGE_BYTES;

/// When to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is more to do. `urgent`: a class is above its budget, or the disk is full.
    Busy { urgent: bool },
    /// Nothing to do for so many milliseconds.
    For { ms: u64 },
}

/// What was forgotten since the last look, by class and cause.
pub(super) type Forgotten = BTreeMap<(Class, Cause), u64>;

/// The state of the house. Nothing of it must outlive the process; that the disk is full is known from the open alarms.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Somebody gave it budgets.
    pub(super) active: bool,
    pub(super) budgets: Budgets,
    uplinks: Vec<UplinkName>,
    pub(super) reserve: Option<Reserve>,
    pub(super) disk: Option<Disk>,
    pub(super) room: Room,
    pub(super) news: Option<News>,
    pub(super) forgotten: Forgotten,
    calendar: Calendar,
    /// Above its budget, and not yet down at the low mark.
    draining: PerClass<bool>,
    /// What could be dropped lies behind it.
    resume: PerClass<Seq>,
    /// Nothing was found to forget: not before.
    pub(super) again_at_ms: PerClass<u64>,
    expiry: PerClass<Survey>,
    expiry_at_ms: PerClass<u64>,
    steps: Vec<Step>,
    pub(super) looked_at_ms: Option<u64>,
    pub(super) others: Option<(u64, u64)>,
    pub(super) sparse: bool,
    pub(super) unrelieved: u32,
}

/// One step of thinning.
#[derive(Debug)]
struct Step {
    rule: ThinningStep,
    survey: Survey,
    surveyed_at_ms: Option<u64>,
    /// Thinned up to here; none: not read from the file yet.
    upto: Option<Seq>,
    thinning: Thinning,
}

/// What looking for work has come to.
enum Found {
    Piece(Box<Piece>),
    /// Looked at some rows, and there are more.
    Further,
    Nothing,
}

impl Keeper {
    /// Forgets nothing.
    pub(super) fn idle() -> Self {
        Self { active: false, ..Self::new(Budgets::unlimited(), Vec::new(), None) }
    }

    fn new(budgets: Budgets, uplinks: Vec<UplinkName>, reserve: Option<Reserve>) -> Self {
        let step = |rule: &ThinningStep| Step {
            rule: *rule,
            survey: Survey::default(),
            surveyed_at_ms: None,
            upto: None,
            thinning: Thinning::default(),
        };
        Self {
            active: true,
            steps: budgets.thinning.iter().map(step).collect(),
            budgets,
            uplinks,
            reserve,
            disk: None,
            room: Room::Enough,
            news: None,
            forgotten: Forgotten::new(),
            calendar: Calendar::default(),
            draining: PerClass::default(),
            resume: PerClass::default(),
            again_at_ms: PerClass::default(),
            expiry: PerClass::default(),
            expiry_at_ms: PerClass::default(),
            looked_at_ms: None,
            others: None,
            sparse: false,
            unrelieved: 0,
        }
    }
}

impl Core {
    /// Gives the journal its budgets, and the uplinks that are to be told what they miss. Without it nothing is
    /// forgotten. A disk that was full when the journal was last open is so until it has room.
    pub fn keep(&mut self, keeping: &Keeping) {
        self.keep_within(Budgets::new(&keeping.storage), keeping.uplinks.clone());
        if keeping.roll.holds(notice::FULL, None) {
            self.keeper.room = Room::Full { struck: false };
        }
    }

    pub(super) fn keep_within(&mut self, budgets: Budgets, uplinks: Vec<UplinkName>) {
        let reserve_max = Disk::of(&self.dir).map_or(u64::MAX, |disk| disk.reserve_max());
        let reserve = match Reserve::new(&self.dir, budgets.reserve_bytes.min(reserve_max)) {
            Ok(reserve) => Some(reserve),
            Err(error) => {
                tracing::warn!(%error, "the reserve file cannot be used");
                None
            }
        };
        self.keeper = Keeper::new(budgets, uplinks, reserve);
        if let Some(disk) = Disk::of(&self.dir)
            && self.keeper.budgets.total() > disk.total
        {
            let (budgets, disk) = (self.keeper.budgets.total(), disk.total);
            tracing::warn!(budgets, disk, "the budgets of [gateway.storage] are larger than the disk");
        }
    }

    /// Does at most one small piece of what is to be done. An error leaves the journal as after a failed commit.
    pub fn housekeep(&mut self) -> Result<Rest, StoreError> {
        if !self.keeper.active {
            return Ok(Rest::For { ms: LOOK_MS });
        }
        if self.doubtful {
            self.resync(&mut |_record| false)?;
        }
        let now = self.clock.now();
        self.keeper.calendar.look(&now);
        let due = |at: Option<u64>, every: u64| at.is_none_or(|at| now.mono_ms.saturating_sub(at) >= every);
        if due(self.keeper.looked_at_ms, LOOK_MS) {
            self.keeper.look_at_disk(&self.dir, &now);
        }
        if let Some(draft) = self.news(&now) {
            self.commit(&[Op::Append { drafts: vec![draft] }])?;
            self.keeper.news = None;
            return Ok(Rest::Busy { urgent: false });
        }
        if self.keeper.is_full() && self.keeper.unrelieved >= PIECES_BEFORE_RELIEF {
            self.relieve()?;
        }
        if due(self.keeper.others.map(|(_, at)| at), OTHERS_MS) {
            self.count_others(now.mono_ms).map_err(sql("read", &self.path))?;
        }
        for class in [Class::Telemetry, Class::Event, Class::Alarm] {
            let found = self.look_for_work(class, &now).map_err(sql("read", &self.path))?;
            match found {
                Found::Piece(piece) => return self.forget(piece),
                Found::Further => return Ok(Rest::Busy { urgent: self.is_pressed() }),
                Found::Nothing => {}
            }
        }
        if self.shrink().map_err(sql("shrink", &self.path))? {
            if self.keeper.is_full() {
                self.keeper.look_at_disk(&self.dir, &now);
            }
            return Ok(Rest::Busy { urgent: false });
        }
        Ok(Rest::For { ms: LOOK_MS })
    }

    fn news(&self, now: &Stamp) -> Option<Draft> {
        let keeper = &self.keeper;
        let disk = keeper.disk.unwrap_or(Disk { free: 0, total: 0 });
        Some(match keeper.news? {
            News::Full { struck } => notice::full(now, struck, disk.free, disk.total),
            News::Room => notice::room(now, disk.free, disk.total),
        })
    }

    /// Whether forgetting must keep up with what comes in.
    fn is_pressed(&self) -> bool {
        self.keeper.is_full()
            || Class::ALL.iter().any(|class| self.used(*class) > self.keeper.budgets.bytes[*class])
    }

    fn forget(&mut self, piece: Box<Piece>) -> Result<Rest, StoreError> {
        let (class, cause, records) = (piece.class, piece.cause, piece.records);
        let done = self.commit(&[Op::Forget(piece)]);
        if let Err(error) = done {
            for step in &mut self.keeper.steps {
                step.thinning = Thinning::default();
                step.upto = None;
            }
            return Err(error);
        }
        let known = self.keeper.forgotten.entry((class, cause)).or_default();
        *known = known.saturating_add(records);
        self.keeper.sparse |= matches!(cause, Cause::Thinned { .. });
        if self.keeper.is_full() {
            self.keeper.unrelieved = self.keeper.unrelieved.saturating_add(1);
        }
        Ok(Rest::Busy { urgent: self.is_pressed() })
    }

    /// Gives what is free back to a full disk, and looks again.
    fn relieve(&mut self) -> Result<(), StoreError> {
        self.keeper.unrelieved = 0;
        while self.shrink().map_err(sql("shrink", &self.path))? {}
        self.cut_wal().map_err(sql("shrink", &self.path))?;
        let now = self.clock.now();
        self.keeper.look_at_disk(&self.dir, &now);
        Ok(())
    }

    fn look_for_work(&mut self, class: Class, now: &Stamp) -> rusqlite::Result<Found> {
        match self.expired(class, now)? {
            Found::Nothing => {}
            found => return Ok(found),
        }
        let Some(spare) = self.too_much(class) else { return Ok(Found::Nothing) };
        if now.mono_ms < self.keeper.again_at_ms[class] {
            return Ok(Found::Nothing);
        }
        if class == Class::Telemetry {
            match self.thin(spare, now)? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        let found = self.oldest(class, Cause::Dropped, Seq::MAX, spare)?;
        if matches!(found, Found::Nothing) {
            self.keeper.again_at_ms[class] = now.mono_ms.saturating_add(AGAIN_MS);
        }
        Ok(found)
    }

    /// What is past its retention.
    fn expired(&mut self, class: Class, now: &Stamp) -> rusqlite::Result<Found> {
        let Some(keep_ms) = self.keeper.budgets.keep_ms[class] else { return Ok(Found::Nothing) };
        if now.mono_ms >= self.keeper.expiry_at_ms[class] {
            let judged = self.keeper.calendar.judged(now);
            match self.keeper.expiry[class].look(&self.conn, class, keep_ms, &judged)? {
                Looked::Further => return Ok(Found::Further),
                Looked::Done => {
                    self.keeper.expiry_at_ms[class] = now.mono_ms.saturating_add(AGAIN_MS);
                    self.keeper.resume[class] = 0;
                }
            }
        }
        let upto = self.keeper.expiry[class].old_to;
        if upto < self.state.heads.first[class] {
            return Ok(Found::Nothing);
        }
        self.oldest(class, Cause::Expired, upto, u64::MAX)
    }

    /// How many bytes of a class are to go, if any.
    fn too_much(&mut self, class: Class) -> Option<u64> {
        let used = self.used(class);
        let keeper = &mut self.keeper;
        let low = keeper.budgets.low(class);
        if used > keeper.budgets.bytes[class] {
            if !keeper.draining[class] {
                keeper.resume[class] = 0;
            }
            keeper.draining[class] = true;
        } else if used <= low {
            keeper.draining[class] = false;
        }
        let mark = if class == Class::Telemetry && keeper.is_full() {
            keeper.budgets.floor().min(low)
        } else if keeper.draining[class] {
            low
        } else {
            return None;
        };
        let spare = used.saturating_sub(mark);
        (spare > 0).then_some(spare)
    }

    /// What a class takes. Telemetry that was thinned leaves pages half empty: there the file has the last word.
    pub(super) fn used(&self, class: Class) -> u64 {
        let of = |class: Class| self.state.sums.usage[class].bytes;
        let rows = of(class);
        if class != Class::Telemetry || !self.keeper.sparse {
            return rows;
        }
        let Ok((pages, free)) = self.pages() else { return rows };
        let others = self.keeper.others.map_or(0, |(bytes, _)| bytes).saturating_add(SMALL_TABLES_BYTES);
        let beside = of(Class::Alarm).saturating_add(of(Class::Event)).saturating_add(others);
        let file = pages.saturating_sub(free).saturating_mul(PAGE_BYTES);
        file.saturating_sub(beside).clamp(rows, rows.saturating_mul(SPARSE_MAX))
    }

    /// The next rows that a step of thinning takes.
    fn thin(&mut self, spare: u64, now: &Stamp) -> rusqlite::Result<Found> {
        for index in 0..self.keeper.steps.len() {
            match self.thin_by(index, spare, now)? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    fn thin_by(&mut self, index: usize, spare: u64, now: &Stamp) -> rusqlite::Result<Found> {
        let judged = self.keeper.calendar.judged(now);
        let last = self.state.heads.last[Class::Telemetry];
        let Some(at) = self.keeper.steps.get_mut(index) else { return Ok(Found::Nothing) };
        let upto = match at.upto {
            Some(upto) => upto,
            None => *at.upto.insert(thinned_to(&self.conn, at.rule)?),
        };
        if at.rule.older_than_h == 0 {
            at.survey.old_to = last;
        } else if at.surveyed_at_ms.is_none_or(|then| now.mono_ms.saturating_sub(then) >= AGAIN_MS) {
            let age_ms = u64::from(at.rule.older_than_h).saturating_mul(3_600_000);
            match at.survey.look(&self.conn, Class::Telemetry, age_ms, &judged)? {
                Looked::Further => return Ok(Found::Further),
                Looked::Done => at.surveyed_at_ms = Some(now.mono_ms),
            }
        }
        let (from, to) = (upto.saturating_add(1), at.survey.old_to);
        if from > to {
            return Ok(Found::Nothing);
        }
        let rows = candidates(&self.conn, Class::Telemetry, (from, to), true)?;
        let (wants, borders) =
            (Wants::load(&self.conn, &self.keeper.uplinks)?, Borders::load(&self.conn, self.state.opened)?);
        let mut choice = Choice::default();
        let mut done = if rows.len() < PIECE_ROWS { to } else { upto };
        let mut epoch = None;
        for row in &rows {
            let here = borders.epoch(Class::Telemetry, row.seq);
            if *epoch.get_or_insert(here) != here || choice.bytes() >= spare {
                done = row.seq.saturating_sub(1);
                break;
            }
            if at.thinning.keeps(row, at.rule.keep_every_s) {
                choice.stays();
            } else {
                choice.goes(row);
            }
            done = done.max(row.seq);
        }
        at.upto = Some(done);
        if choice.is_empty() {
            return Ok(Found::Further);
        }
        let cause = Cause::Thinned { keep_every_s: at.rule.keep_every_s };
        let work = (Class::Telemetry, cause);
        let piece = piece(&self.conn, work, choice, Some((at.rule, done)), (&wants, &borders))?;
        Ok(Found::Piece(Box::new(piece)))
    }

    /// The oldest rows up to a number, until so many bytes are free. Gap records that somebody still has to get stay.
    fn oldest(&mut self, class: Class, cause: Cause, upto: Seq, spare: u64) -> rusqlite::Result<Found> {
        let from = self.keeper.resume[class].max(self.state.heads.first[class]);
        let to = upto.min(self.state.heads.last[class]);
        if from > to {
            return Ok(Found::Nothing);
        }
        let rows = candidates(&self.conn, class, (from, to), false)?;
        let (wants, borders) =
            (Wants::load(&self.conn, &self.keeper.uplinks)?, Borders::load(&self.conn, self.state.opened)?);
        let mut choice = Choice::default();
        let mut epoch = None;
        let mut next = from;
        for row in &rows {
            let here = borders.epoch(class, row.seq);
            if *epoch.get_or_insert(here) != here || choice.bytes() >= spare {
                break;
            }
            if row.is_owed(&wants) {
                choice.stays();
            } else {
                choice.goes(row);
            }
            next = row.seq.saturating_add(1);
        }
        if choice.is_empty() {
            self.keeper.resume[class] = next;
            return Ok(if rows.is_empty() { Found::Nothing } else { Found::Further });
        }
        let piece = piece(&self.conn, (class, cause), choice, None, (&wants, &borders))?;
        Ok(Found::Piece(Box::new(piece)))
    }
}

/// Up to where a step has come, as the file knows it.
fn thinned_to(conn: &Connection, step: ThinningStep) -> rusqlite::Result<Seq> {
    let upto: Option<i64> = conn
        .prepare_cached("SELECT upto FROM thinned WHERE older_than_h = ?1 AND keep_every_s = ?2")?
        .query_row(params![step.older_than_h, step.keep_every_s], |row| row.get(0))
        .optional()?;
    Ok(upto.map_or(0, number))
}
