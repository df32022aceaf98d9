//! A commit in progress: ops become rows within one transaction, on a copy of the state that takes the old one's
//! place when COMMIT has succeeded.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::clock::ClockChange;
use crate::model::cursor::Cursors;
use crate::model::ids::{BootId, Epoch, Pos, Seq, UplinkName};
use crate::model::journal::{Committed, Fold};
use crate::model::limits::COMMAND_IDS_KEPT;
use crate::model::record::{Class, Draft, Record};
use crate::model::stamp::Stamp;

use super::dedup::{Rings, Touched};
use super::heads::{Heads, PerClass};
use super::notice;
use super::op::{Answer, CommandSlot, Op};
use super::row::{self, Epochs, int, number};
use super::sink::Sink;
use super::usage::{self, Sums};

/// Boot ids kept in memory; others are looked up.
const BOOTS_KEPT: usize = 8;

/// What the writer knows of the file without reading it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) heads: Heads,
    /// Last numbers when this process opened the file: where a fork reaches back to.
    pub(super) opened: PerClass<Seq>,
    /// Connection numbers at or below it were given out in a life of the directory that the file does not know.
    pub(super) conn_floor: u64,
    pub(super) conns: BTreeMap<UplinkName, u64>,
    /// What the rows take.
    pub(super) sums: Sums,
    boots: HashMap<BootId, i64>,
}

impl State {
    /// Reads the state back from the file. `None` where it holds no epoch.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Option<Self>> {
        let Some(epoch) = Epochs::load(conn)?.current() else { return Ok(None) };
        let heads = load_heads(conn, epoch)?;
        let floor: Option<String> = conn
            .query_row("SELECT value FROM meta WHERE name = 'conn_floor'", [], |row| row.get(0))
            .optional()?;
        let mut conns = BTreeMap::new();
        let mut statement = conn.prepare("SELECT name, conn FROM uplink")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if let Ok(name) = UplinkName::new(&name) {
                conns.insert(name, number(row.get(1)?));
            }
        }
        Ok(Some(Self {
            heads,
            opened: heads.last,
            conn_floor: floor.and_then(|text| text.parse().ok()).unwrap_or(0),
            conns,
            sums: Sums::load(conn)?,
            boots: HashMap::new(),
        }))
    }

    /// A file without records; its epoch comes next.
    pub(super) fn begin(conn_floor: u64) -> Self {
        let heads = Heads {
            epoch: Epoch(0),
            pos: 0,
            first: PerClass::from_fn(|_class| 1),
            last: PerClass::default(),
        };
        let (conns, sums, boots) = (BTreeMap::new(), Sums::default(), HashMap::new());
        Self { heads, opened: heads.last, conn_floor, conns, sums, boots }
    }

    /// The highest connection number ever given out.
    pub(super) fn conn_max(&self) -> u64 {
        self.conns.values().copied().max().unwrap_or(0).max(self.conn_floor)
    }
}

/// The heads as the rows say; epochs are the caller's.
pub(super) fn load_heads(conn: &Connection, epoch: Epoch) -> rusqlite::Result<Heads> {
    let mut pos = 0;
    let mut first = PerClass::default();
    let last = PerClass::try_from_fn(|class| {
        let table = class.as_str();
        let sql = format!(
            "SELECT (SELECT min(seq) FROM {table}), coalesce((SELECT max(seq) FROM {table}), 0), \
             coalesce((SELECT pos FROM {table} ORDER BY seq DESC LIMIT 1), 0), \
             coalesce((SELECT seq FROM water WHERE class = ?1), 0), coalesce((SELECT pos FROM water WHERE class = ?1), 0)"
        );
        conn.prepare_cached(&sql)?.query_row([table], |row| {
            let last = number(row.get(1)?).max(number(row.get(3)?));
            pos = pos.max(number(row.get(2)?)).max(number(row.get(4)?));
            first[class] = row.get::<_, Option<i64>>(0)?.map_or(last.saturating_add(1), number);
            Ok::<Seq, rusqlite::Error>(last)
        })
    })?;
    Ok(Heads { epoch, pos, first, last })
}

/// What of a commit is worth counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) stored: PerClass<u64>,
    /// Drafts of the fold beyond its bounds, or that cannot be stored.
    pub(super) fold_dropped: u64,
}

/// The commit.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) conn: &'a Connection,
    fold: &'a mut dyn Fold,
    rings: &'a Rings,
    pub(super) now: &'a Stamp,
    pub(super) state: State,
    pub(super) touched: Touched,
    pub(super) tally: Tally,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        state: State,
        rings: &'a Rings,
        fold: &'a mut dyn Fold,
        now: &'a Stamp,
    ) -> Self {
        Self { conn, fold, rings, now, state, touched: Touched::default(), tally: Tally::default() }
    }

    /// Does one op; `bodies` are its drafts' JSON.
    pub(super) fn run(&mut self, op: &Op, bodies: &[String]) -> rusqlite::Result<Answer> {
        match op {
            Op::Append { drafts } => self.append(drafts, bodies).map(Answer::Committed),
            Op::Restore { kept } => self.restore(kept, bodies).map(Answer::Committed),
            Op::Settle { uplink, cursors, drafts } => {
                self.save_cursors(uplink, cursors)?;
                self.append(drafts, bodies).map(Answer::Committed)
            }
            Op::SaveCursors { uplink, cursors } => {
                self.save_cursors(uplink, cursors)?;
                Ok(Answer::Done)
            }
            Op::NextConn { uplink, at_least } => self.next_conn(uplink, *at_least).map(Answer::Conn),
            Op::Fork { reason } => self.fork(reason).map(Answer::Forked),
            Op::BeginCommand { uplink, id, body_hash } => {
                self.begin_command(uplink, id, body_hash).map(Answer::Slot)
            }
            Op::EndCommand { uplink, id, outcome } => {
                self.conn
                    .prepare_cached("UPDATE command SET outcome = ?3 WHERE uplink = ?1 AND id = ?2")?
                    .execute(params![uplink.as_str(), id, outcome])?;
                Ok(Answer::Done)
            }
            Op::Forget(piece) => {
                self.forget(piece)?;
                Ok(Answer::Done)
            }
        }
    }

    fn append(&mut self, drafts: &[Draft], bodies: &[String]) -> rusqlite::Result<Committed> {
        let mut repeated = 0;
        for (draft, json) in drafts.iter().zip(bodies) {
            if let (Some(key), Some(device)) = (&draft.dedup, draft.body.device())
                && !self.touched.remember(self.rings, self.conn, &device.id, key)?
            {
                repeated += 1;
                continue;
            }
            self.store(draft.clone(), json)?;
        }
        Ok(Committed { last_pos: self.state.heads.pos, repeated })
    }

    /// Stores what was kept in memory while the disk could not be written. The fold has seen it there, so it is not
    /// shown again; positions go on from where it was shown them.
    fn restore(&mut self, kept: &[(Pos, Draft)], bodies: &[String]) -> rusqlite::Result<Committed> {
        let mut repeated = 0;
        for ((pos, draft), json) in kept.iter().zip(bodies) {
            if let (Some(key), Some(device)) = (&draft.dedup, draft.body.device())
                && !self.touched.remember(self.rings, self.conn, &device.id, key)?
            {
                repeated += 1;
                continue;
            }
            self.state.heads.pos = self.state.heads.pos.max(pos.saturating_sub(1));
            let record = self.insert(draft.clone(), json)?;
            self.fold.restored(&record);
        }
        Ok(Committed { last_pos: self.state.heads.pos, repeated })
    }

    /// A clock record also changes what is known of its boot: the records may be forgotten, this is kept.
    fn note_clock(&mut self, draft: &Draft) -> rusqlite::Result<()> {
        let Some(change) = ClockChange::read(&draft.at, &draft.body) else { return Ok(()) };
        let mut clocks = row::clocks(self.conn)?;
        clocks.note(&change);
        let json = serde_json::to_string(&clocks)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.set_meta(row::CLOCKS, &json)
    }

    /// The row of a boot id, made if it is new.
    fn boot(&mut self, boot: &BootId) -> rusqlite::Result<i64> {
        if let Some(id) = self.state.boots.get(boot) {
            return Ok(*id);
        }
        let text = boot.0.as_ref();
        self.conn.prepare_cached("INSERT OR IGNORE INTO boot (boot) VALUES (?1)")?.execute([text])?;
        let id = self
            .conn
            .prepare_cached("SELECT id FROM boot WHERE boot = ?1")?
            .query_row([text], |row| row.get(0))?;
        if self.state.boots.len() >= BOOTS_KEPT {
            self.state.boots.clear();
        }
        self.state.boots.insert(boot.clone(), id);
        Ok(id)
    }

    pub(super) fn save_cursors(&mut self, uplink: &UplinkName, cursors: &Cursors) -> rusqlite::Result<()> {
        let json = serde_json::to_string(cursors)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.conn
            .prepare_cached(
                "INSERT INTO uplink (name, cursors) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET cursors = excluded.cursors",
            )?
            .execute(params![uplink.as_str(), json])?;
        Ok(())
    }

    fn next_conn(&mut self, uplink: &UplinkName, at_least: u64) -> rusqlite::Result<u64> {
        // One count for all uplinks: a number that a broker has seen and the file has not given out to anybody comes
        // from another life of this journal, and not from another uplink to the same broker.
        let conn = self.state.conn_max().saturating_add(1).max(at_least);
        self.conn
            .prepare_cached(
                "INSERT INTO uplink (name, conn) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET conn = excluded.conn",
            )?
            .execute(params![uplink.as_str(), int(conn)])?;
        self.state.conns.insert(uplink.clone(), conn);
        Ok(conn)
    }

    /// Begins a new epoch and tells so by an event, its record at the latest.
    pub(super) fn fork(&mut self, reason: &str) -> rusqlite::Result<Epoch> {
        let old = self.state.heads.epoch;
        let epoch = self.begin_epoch(self.state.opened, reason)?;
        self.tell(notice::restored(self.now, old, reason))?;
        Ok(epoch)
    }

    /// A new epoch for everything after `behind`.
    pub(super) fn begin_epoch(&mut self, behind: PerClass<Seq>, reason: &str) -> rusqlite::Result<Epoch> {
        let epoch = random_epoch()?;
        let from = |class: Class| int(behind[class].saturating_add(1));
        self.conn.execute(
            "INSERT INTO epoch (epoch, alarm_from, event_from, telemetry_from, wall_ms, reason) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                epoch.to_string(),
                from(Class::Alarm),
                from(Class::Event),
                from(Class::Telemetry),
                self.now.wall_ms,
                reason
            ],
        )?;
        self.state.heads.epoch = epoch;
        Ok(epoch)
    }

    /// Stores an event of the journal itself.
    pub(super) fn tell(&mut self, draft: Draft) -> rusqlite::Result<()> {
        let json = row::encode(&draft.body)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.store(draft, &json)
    }

    pub(super) fn set_meta(&mut self, name: &str, value: &str) -> rusqlite::Result<()> {
        self.conn.execute("REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
        Ok(())
    }

    /// Stores the rows of the fold that are not stored as they are now.
    pub(super) fn save_fold(&mut self) -> rusqlite::Result<()> {
        for (key, value) in self.fold.unsaved() {
            match value {
                Some(value) => self
                    .conn
                    .prepare_cached(
                        "INSERT INTO fold (key, value) VALUES (?1, ?2) \
                         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    )?
                    .execute([key, value])?,
                None => self.conn.prepare_cached("DELETE FROM fold WHERE key = ?1")?.execute([key])?,
            };
        }
        Ok(())
    }

    fn begin_command(
        &mut self,
        uplink: &UplinkName,
        id: &str,
        body_hash: &[u8; 32],
    ) -> rusqlite::Result<CommandSlot> {
        let known = self
            .conn
            .prepare_cached("SELECT body_hash, outcome FROM command WHERE uplink = ?1 AND id = ?2")?
            .query_row([uplink.as_str(), id], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))
            .optional()?;
        if let Some((hash, outcome)) = known {
            return Ok(if hash == body_hash {
                CommandSlot::Known { outcome }
            } else {
                CommandSlot::Conflict
            });
        }
        self.conn
            .prepare_cached("INSERT INTO command (uplink, id, body_hash) VALUES (?1, ?2, ?3)")?
            .execute(params![uplink.as_str(), id, body_hash])?;
        self.conn
            .prepare_cached(
                "DELETE FROM command WHERE uplink = ?1 AND n <= \
                 (SELECT n FROM command WHERE uplink = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![uplink.as_str(), int(COMMAND_IDS_KEPT as u64)])?;
        Ok(CommandSlot::New)
    }
}

impl Sink for Stage<'_> {
    type Error = rusqlite::Error;

    fn insert(&mut self, draft: Draft, json: &str) -> rusqlite::Result<Record> {
        let class = draft.body.class();
        let seq = self.state.heads.last[class].saturating_add(1);
        let pos = self.state.heads.pos.saturating_add(1);
        let boot = self.boot(&draft.at.boot)?;
        row::insert(self.conn, (seq, pos, boot), &draft, json)?;
        self.state.heads.last[class] = seq;
        self.state.heads.pos = pos;
        self.state.sums.usage[class].add(usage::draft_bytes(&draft, json));
        self.tally.stored[class] = self.tally.stored[class].saturating_add(1);
        self.note_clock(&draft)?;
        let Draft { at, test, body, .. } = draft;
        Ok(Record { pos, epoch: self.state.heads.epoch, class, seq, at, test, body })
    }

    fn fold(&mut self, record: &Record) -> Vec<Draft> {
        self.fold.apply(record)
    }

    fn drop_folded(&mut self, count: u64) {
        self.tally.fold_dropped = self.tally.fold_dropped.saturating_add(count);
    }
}

pub(super) fn random_epoch() -> rusqlite::Result<Epoch> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    Ok(Epoch(u64::from_le_bytes(bytes)))
}
