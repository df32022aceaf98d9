//! Carries out what the engine asks for beside publishing: cursors, settlements, events, the board, the counters. Also
//! while there is no connection.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::model::ids::Epoch;
use crate::model::journal::{Durability, Journal, JournalError};
use crate::model::record::{Draft, Severity, Text, Value};
use crate::model::refusal::Refusal;
use crate::model::stamp::Stamp;
use crate::north::commands::Authority;
use crate::north::contract::CommandResult;
use crate::north::engine::{Actions, Engine, gateway_event};
use crate::rt::board::UplinkStatus;
use crate::rt::echo::Echo;
use crate::store::CommandSlot;

use super::Parts;
use super::adapters::{self, ContractWording, StoreSource};
use super::ordering::{Commands, Taken};

/// Events of the uplink that wait for the journal at once. More are dropped and counted.
const EVENTS_AT_ONCE: usize = 8;
/// The board is written at most this often.
const BOARD_MS: u64 = 250;
/// "A second box" is told as an event at most this often.
const DUPLICATE_EVENT_MS: u64 = 3_600_000;
/// Foreign states in the place of ours that mean a second box.
const FOREIGN_STATES_MAX: u32 = 2;
/// The event that a platform cannot be reached for long.
const UPLINK_OFFLINE: &str = "uplink.offline";
/// Longest reason that is stored.
const REASON_CHARS_MAX: usize = 500;
/// A connection that lasted so long has served, whatever was delivered on it.
const SETTLED_MS: u64 = 10_000;
/// The longest the shell sleeps: heads that moved without a word are noticed then.
const SLEEP_MS_MAX: u64 = 5_000;

/// Something that was asked of the journal is done.
#[derive(Debug)]
pub(super) enum Done {
    Settled {
        ticket: u64,
        written: bool,
    },
    Told,
    Begun {
        taken: Box<Taken>,
        slot: Result<CommandSlot, JournalError>,
    },
    Ended {
        result: Box<CommandResult>,
    },
    /// Entries of the audit trail are stored, or lost.
    Entered,
}

/// The connection that stands, or stood last.
#[derive(Debug, Clone, Copy)]
struct UpSince {
    at_ms: u64,
    delivered: bool,
    /// That it works again needs no more telling.
    greeted: bool,
}

/// What a connection attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The broker never let us in.
    Never,
    /// It ended soon, and nothing was delivered on it.
    Briefly,
    /// It served.
    Served,
}

/// The engine with its surroundings.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) parts: Parts,
    pub(super) engine: Engine,
    pub(super) source: StoreSource,
    pub(super) wording: ContractWording,
    pub(super) conn: u64,
    /// The next connection's number is at least this: the platform has seen the one before it.
    pub(super) conn_floor: u64,
    /// How often the journal had been opened when its reader was.
    openings: u64,
    /// Trouble of this connection that the engine does not know of.
    pub(super) trouble: Option<String>,
    pub(super) connected: bool,
    /// The epoch when this process took the uplink up.
    pub(super) first_epoch: Epoch,
    /// What the log knows already.
    pub(super) echo: Echo,
    /// That the platform cannot be reached has been told.
    offline_told: bool,
    up: Option<UpSince>,
    pub(super) wake_at: Instant,
    pub(super) side: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) events: usize,
    pub(super) commands: Commands,
    board_at_ms: u64,
    duplicate_told_ms: Option<u64>,
    /// The epoch of the last connection that published its state.
    pub(super) spoke_as: Option<Epoch>,
    /// How often another epoch's state stood where ours had been.
    foreign_met: u32,
    /// The changes of the clock that the last state knew.
    pub(super) clock_changes: u64,
    pub(super) dispute_told_ms: Option<u64>,
}

impl Shell {
    pub(super) fn new(
        parts: Parts,
        engine: Engine,
        (source, openings): (StoreSource, u64),
        wording: ContractWording,
    ) -> Self {
        let first_epoch = source.epoch();
        let authority = Authority::of(&parts.config.commands, &parts.config.filter);
        let mut shell = Self {
            parts,
            engine,
            source,
            wording,
            conn: 0,
            conn_floor: 0,
            openings,
            trouble: None,
            connected: false,
            first_epoch,
            echo: Echo::default(),
            offline_told: false,
            up: None,
            wake_at: Instant::now(),
            side: FuturesUnordered::new(),
            events: 0,
            commands: Commands::new(authority),
            board_at_ms: 0,
            duplicate_told_ms: None,
            spoke_as: None,
            foreign_met: 0,
            clock_changes: 0,
            dispute_told_ms: None,
        };
        shell.settle_left_behind();
        shell
    }

    /// Whether the journal was opened since: the engine knows nothing of what stands in it.
    pub(super) fn is_outdated(&self) -> bool {
        self.parts.store.openings() != self.openings
    }

    pub(super) fn now(&self) -> Stamp {
        self.parts.clock.now()
    }

    /// One step of the engine. What concerns the journal is set going here; publishes and a cut are the caller's.
    pub(super) async fn step(&mut self) -> Actions {
        let now = self.now();
        let asks_at_ms = self.tend_clock(now.mono_ms);
        // Reads the journal: the uplink has its thread to itself.
        let mut actions = self.engine.step(&now, &mut self.source);
        // Where nothing could be read, nothing is known that could be saved.
        let cursors = actions.save.take().filter(|_| self.source.reader.is_some());
        if let Some(cursors) = cursors
            && let Err(error) = self.parts.store.save_cursors(&self.parts.uplink, cursors).await
        {
            warn!(uplink = %self.parts.uplink, error = %error, "cursors were not saved; they will be again");
            self.engine.save_again();
        }
        if let Some(settlement) = actions.settle.take() {
            let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
            let ticket = settlement.ticket;
            self.side.push(
                async move {
                    let written = store.settle(&uplink, settlement.cursors, settlement.drafts).await;
                    if let Err(error) = &written {
                        warn!(%uplink, error = %error, "gap records were not stored; they will be tried again");
                    }
                    Done::Settled { ticket, written: written.is_ok() }
                }
                .boxed(),
            );
        }
        for draft in std::mem::take(&mut actions.events) {
            self.tell(draft);
        }
        let wake_at_ms = actions.wake_at_ms.into_iter().chain(asks_at_ms).min();
        let wait_ms = wake_at_ms.map_or(SLEEP_MS_MAX, |at_ms| at_ms.saturating_sub(now.mono_ms));
        self.wake_at = Instant::now() + Duration::from_millis(wait_ms.min(SLEEP_MS_MAX));
        self.show(now.mono_ms, false);
        self.greet();
        actions
    }

    /// An event of the uplink for the journal.
    pub(super) fn tell(&mut self, draft: Draft) {
        if self.events >= EVENTS_AT_ONCE {
            self.parts.metrics.dropped("uplink_event", Refusal::QueueFull.as_str(), 1);
            error!(uplink = %self.parts.uplink, "an event of the uplink was dropped: the journal does not take any");
            return;
        }
        self.events += 1;
        let (store, uplink) = (self.parts.store.clone(), self.parts.uplink.clone());
        self.side.push(
            async move {
                let told = store.append(vec![draft], Durability::Synced).await;
                if let Err(error) = told
                    && !matches!(error, JournalError::Volatile)
                {
                    error!(%uplink, error = %error, "an event of the uplink was not stored");
                }
                Done::Told
            }
            .boxed(),
        );
    }

    /// The retained state is another journal's. Once it may be an old one that the broker has restored; where ours
    /// was replaced again, another box speaks, also if the broker does not say why it cuts us off.
    pub(super) fn meet_foreign(&mut self, epoch: Epoch) {
        if self.spoke_as != Some(epoch) {
            return;
        }
        self.foreign_met = self.foreign_met.saturating_add(1);
        if self.foreign_met >= FOREIGN_STATES_MAX {
            self.tell_duplicate(self.now().mono_ms);
        }
    }

    /// Somebody else uses this gateway's name or client id.
    pub(super) fn tell_duplicate(&mut self, now_ms: u64) {
        if self.duplicate_told_ms.is_some_and(|told_ms| now_ms < told_ms + DUPLICATE_EVENT_MS) {
            return;
        }
        self.duplicate_told_ms = Some(now_ms);
        let uplink = self.parts.uplink.as_str();
        let params = [("uplink".to_owned(), Value::Text(uplink.into()))].into();
        let text = Text {
            zh: format!("平台 {uplink} 上有另一台设备使用本机身份"),
            en: format!("another box uses this one's identity at platform {uplink}"),
        };
        let draft = gateway_event(&self.now(), "uplink.duplicate_identity", Severity::Critical, params, text);
        self.tell(draft);
    }

    /// The platform cannot be reached for long: one event, which becomes an alarm.
    pub(super) fn tell_offline(&mut self, reason: &str) {
        if std::mem::replace(&mut self.offline_told, true) {
            return;
        }
        let uplink = self.parts.uplink.as_str();
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let params = BTreeMap::from([
            ("uplink".to_owned(), Value::Text(uplink.into())),
            ("reason".to_owned(), Value::Text(reason.into())),
        ]);
        let text = Text {
            zh: format!("平台 {uplink} 长时间无法连接，记录保留待发"),
            en: format!("platform {uplink} cannot be reached; records are kept"),
        };
        self.tell(gateway_event(&self.now(), UPLINK_OFFLINE, Severity::Major, params, text));
    }

    /// Once something is delivered, that it could not be reached is over: also if another process told so.
    fn greet(&mut self) {
        let Some(up) = self.up.as_mut().filter(|up| up.delivered && !up.greeted) else { return };
        up.greeted = true;
        let uplink = self.parts.uplink.as_str();
        let stands = self.parts.roll.holds(UPLINK_OFFLINE, Some(("uplink", uplink)));
        if !std::mem::take(&mut self.offline_told) && !stands {
            return;
        }
        let text = Text {
            zh: format!("平台 {uplink} 恢复连接"),
            en: format!("platform {uplink} can be reached again"),
        };
        let params = BTreeMap::from([
            ("uplink".to_owned(), Value::Text(uplink.into())),
            ("clears".to_owned(), Value::Text(UPLINK_OFFLINE.into())),
        ]);
        self.tell(Draft::of_gateway(&self.now(), None, ("uplink.online", None), params, text));
    }

    /// Waits for the journal: something asked of it is done, or there are new records (none).
    pub(super) async fn news(&mut self) -> Result<Option<Done>, JournalError> {
        tokio::select! {
            Some(done) = self.side.next() => Ok(Some(done)),
            changed = self.source.changed() => match changed {
                Ok(()) => Ok(None),
                Err(_closed) => Err(JournalError::Closed),
            },
        }
    }

    pub(super) fn take_done(&mut self, done: Done) {
        match done {
            Done::Settled { ticket, written } => {
                self.engine.settled(ticket, written, self.parts.clock.mono_ms());
            }
            Done::Told => self.events = self.events.saturating_sub(1),
            Done::Begun { taken, slot } => self.command_begun(taken, slot),
            Done::Ended { result } => self.command_ended(&result),
            Done::Entered => self.trail_stored(),
        }
    }

    /// Writes board and counters.
    pub(super) fn show(&mut self, now_ms: u64, at_once: bool) {
        let uplink = self.parts.uplink.as_str();
        let metrics = &self.parts.metrics;
        let tally = self.engine.take_tally();
        for (class, count) in tally.published {
            metrics.published(uplink, class, count);
        }
        if let Some(up) = &mut self.up {
            up.delivered |= tally.volatile > 0 || tally.delivered.values().any(|count| *count > 0);
        }
        if tally.volatile > 0 {
            metrics.volatile(uplink, tally.volatile);
            let told = tally.volatile;
            self.parts.board.update(|board| board.store.memory.told += told);
        }
        if tally.volatile_unsaid > 0 {
            metrics.dropped("volatile_records", "unsendable", tally.volatile_unsaid);
        }
        for (class, count) in tally.delivered {
            metrics.delivered(uplink, class, count);
        }
        for (class, count) in tally.given_up {
            metrics.dropped(class.as_str(), "given_up_for_uplink", count);
            error!(uplink, class = class.as_str(), count, "records were given up; gap records say why");
        }
        for (code, count) in tally.refusals {
            metrics.answered(uplink, code, count);
        }
        if !at_once && now_ms < self.board_at_ms {
            return;
        }
        self.board_at_ms = now_ms + BOARD_MS;
        let pending = self.engine.pending();
        for (class, status) in &pending {
            metrics.set_pending(uplink, *class, status.records + status.set_aside);
        }
        let trouble = self.engine.trouble().or_else(|| self.trouble.clone());
        let (connected, conn) = (self.connected, self.conn);
        self.parts.board.update(|board| {
            let fresh = || UplinkStatus { since_mono_ms: now_ms, ..UplinkStatus::default() };
            let status = board.uplinks.entry(self.parts.uplink.clone()).or_insert_with(fresh);
            status.pending = pending;
            status.conn = conn;
            if connected {
                if !status.connected {
                    status.since_mono_ms = now_ms;
                }
                status.connected = true;
                status.trouble = trouble;
            }
        });
    }

    /// A connection stands.
    pub(super) fn begin_connection(&mut self, now_ms: u64) {
        // The first state will tell and ask.
        self.clock_changes = self.parts.clock.changes();
        adapters::lock(&self.wording.asking).connected();
        self.connected = true;
        self.up = Some(UpSince { at_ms: now_ms, delivered: false, greeted: false });
    }

    /// The connection is over, or never was. Says what it came to.
    pub(super) fn lost_connection(&mut self, now_ms: u64) -> Came {
        self.engine.disconnected(&self.parts.clock.now());
        self.connected = false;
        self.trouble = None;
        match self.up.take() {
            None => Came::Never,
            Some(up) if up.delivered || now_ms.saturating_sub(up.at_ms) >= SETTLED_MS => Came::Served,
            Some(_) => Came::Briefly,
        }
    }

    /// Somebody speaks under this gateway's name who is none of its uplinks.
    pub(super) fn suspect_duplicate(&mut self) {
        self.trouble = Some(
            "another box speaks under this gateway's name at the platform; give each box its own name"
                .to_owned(),
        );
        self.tell_duplicate(self.parts.clock.mono_ms());
    }

    /// Waits without a connection: cursors and gap records are stored, critical records looked for. With `hasten` it ends
    /// early when one appears.
    pub(super) async fn idle(&mut self, delay: Duration, hasten: bool, cancel: &CancellationToken) {
        let until = Instant::now() + delay;
        let critical_max_s = u64::from(self.parts.config.pacing.reconnect_critical_max_s);
        let mut until_critical = None;
        loop {
            self.step().await;
            if hasten && self.engine.critical_waits() && until_critical.is_none() {
                let most_ms = critical_max_s * 1_000;
                until_critical = Some(Instant::now() + Duration::from_millis(fastrand::u64(0..=most_ms)));
            }
            let end = until_critical.map_or(until, |critical| critical.min(until));
            if Instant::now() >= end {
                return;
            }
            let wake_at = self.wake_at.min(end).max(Instant::now() + Duration::from_millis(1));
            tokio::select! {
                () = cancel.cancelled() => return,
                news = self.news() => match news {
                    Ok(Some(done)) => self.take_done(done),
                    Ok(None) => {}
                    Err(_closed) => return,
                },
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// The last cursors, so that little is sent twice after a restart.
    pub(super) async fn finish(&mut self) {
        let cursors = self.engine.cursors();
        if self.source.reader.is_some()
            && let Err(error) = self.parts.store.save_cursors(&self.parts.uplink, cursors).await
        {
            warn!(uplink = %self.parts.uplink, error = %error, "the last cursors were not saved; some records will be sent twice");
        }
        let now_ms = self.parts.clock.mono_ms();
        self.show(now_ms, true);
        self.parts.board.update(|board| {
            if let Some(status) = board.uplinks.get_mut(&self.parts.uplink) {
                status.connected = false;
                status.trouble = None;
            }
        });
    }
}
