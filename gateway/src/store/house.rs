//! The writer's side of keeping house: when the next piece is done, and what is shown of it. One piece comes between two
//! commits; several where a class is above its budget, so that forgetting keeps up with any flood.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::record::Class;
use crate::model::stamp::Stamp;
use crate::rt::board::{Board, ClassStatus, DiskStatus, ForgottenStatus, ReserveStatus, WrittenStatus};

use super::core::Core;
use super::error::{StoreError, in_full};
use super::keeper::Rest;
use super::lost::Desk;
use super::reserve::{self, Reserve};
use super::walk::oldest;
use super::writer::Writer;

/// Pieces between two commits while a class is above its budget: together they take more rows than a commit brings.
const PIECES_URGENT: usize = 4;
/// The pause between two pieces that are not urgent: appends and readers come first.
const BREATH: Duration = Duration::from_millis(10);
/// Before the first look.
const FIRST: Duration = Duration::from_millis(500);
/// A house at rest is woken so often by commits that bring a class above its budget.
const PRESSED_EVERY: Duration = Duration::from_millis(50);
/// After a piece that failed.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How often the board and the metrics are told, in milliseconds.
const SHOW_MS: u64 = 1_000;

const _: () = assert!(PIECES_URGENT * super::forget::PIECE_ROWS > crate::model::limits::COMMIT_RECORDS_MAX);

/// When the next piece is due, and what was shown.
#[derive(Debug)]
pub(super) struct House {
    next_at: Option<Instant>,
    looked_at: Option<Instant>,
    shown_ms: Option<u64>,
    /// Bytes that were written before this journal was opened, and records stored since.
    written_before: Option<u64>,
    records: u64,
    last_pos: Option<u64>,
    /// The oldest record of each class, by its number.
    oldest: Vec<(Class, u64, Option<Stamp>)>,
    forgotten: Option<Vec<ForgottenStatus>>,
}

impl Default for House {
    /// The first look comes a moment after the start, which is for whoever waits already.
    fn default() -> Self {
        Self {
            next_at: Some(Instant::now() + FIRST),
            looked_at: None,
            shown_ms: None,
            written_before: reserve::written(),
            records: 0,
            last_pos: None,
            oldest: Vec::new(),
            forgotten: None,
        }
    }
}

impl House {
    pub(super) const fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    fn class_status(&mut self, core: &Core, class: Class) -> ClassStatus {
        let head = core.heads().of(class);
        let budget = core.keeper.budgets.bytes[class];
        let known = self.oldest.iter().find(|(of, first, _)| *of == class && *first == head.first);
        let oldest = match known {
            Some((.., stamp)) => stamp.clone(),
            None if head.first > head.last => None,
            None => {
                // What cannot be read is shown as not known.
                let stamp = oldest(&core.conn, class).ok().flatten();
                self.oldest.retain(|(of, ..)| *of != class);
                self.oldest.push((class, head.first, stamp.clone()));
                stamp
            }
        };
        ClassStatus {
            records: core.records(class),
            bytes: core.used(class),
            budget_bytes: (budget < u64::MAX).then_some(budget),
            oldest,
        }
    }

    fn known_forgotten(&mut self, core: &Core, board: &Board) -> Vec<ForgottenStatus> {
        if let Some(known) = &self.forgotten {
            return known.clone();
        }
        // Shown as before, and read again next time.
        let Ok(known) = core.forgotten() else {
            return board.snapshot().store.forgotten;
        };
        self.forgotten = Some(known.clone());
        known
    }

    /// None where nobody counts: on a file system in memory nothing is ever written.
    fn written(&mut self) -> Option<WrittenStatus> {
        let all = reserve::written()?;
        let before = *self.written_before.get_or_insert(all);
        Some(WrittenStatus { bytes: all.saturating_sub(before), records: self.records })
    }
}

impl Writer {
    /// Does what is due of keeping house. Only damage is an error: whatever else fails is tried again later.
    pub(super) fn housekeep(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let due = self.house.next_at.is_none_or(|at| at <= now);
        let pressed =
            || self.house.looked_at.is_none_or(|at| now - at >= PRESSED_EVERY) && self.is_above_budget();
        if !due && !pressed() {
            return Ok(());
        }
        self.house.looked_at = Some(now);
        let Desk::Open(core) = &mut self.desk else {
            self.house.next_at = Some(Instant::now() + AFTER_ERROR);
            return Ok(());
        };
        if self.loss.is_some() {
            self.house.next_at = Some(Instant::now() + AFTER_ERROR);
            return Ok(());
        }
        let mut pause = Duration::ZERO;
        for _ in 0..PIECES_URGENT {
            match core.housekeep() {
                Ok(Rest::Busy { urgent: true }) => {}
                Ok(Rest::Busy { urgent: false }) => {
                    pause = BREATH;
                    break;
                }
                Ok(Rest::For { ms }) => {
                    pause = Duration::from_millis(ms);
                    break;
                }
                Err(error) if error.is_damage() => return Err(error),
                Err(error) => {
                    tracing::warn!(error = in_full(&error), "the journal could not keep house");
                    pause = AFTER_ERROR;
                    break;
                }
            }
        }
        self.house.next_at = Some(Instant::now() + pause);
        self.tell_heads();
        self.show_house();
        Ok(())
    }

    fn is_above_budget(&self) -> bool {
        let Desk::Open(core) = &self.desk else { return false };
        Class::ALL.iter().any(|class| core.used(*class) > core.keeper.budgets.bytes[*class])
    }

    fn show_house(&mut self) {
        // Also when nothing is committed any more: a disk that has room again is well.
        let trouble = self.loss.is_none().then(|| self.house_trouble());
        let Self { desk: Desk::Open(core), house, metrics, board, clock, .. } = self else { return };
        let pos = core.heads().pos();
        let before = house.last_pos.replace(pos).unwrap_or(pos);
        house.records = house.records.saturating_add(pos.saturating_sub(before));
        for ((class, cause), count) in std::mem::take(&mut core.keeper.forgotten) {
            metrics.forgotten(class, &cause.label(), count);
            house.forgotten = None;
        }
        let now_ms = clock.mono_ms();
        if house.shown_ms.is_some_and(|then| now_ms.saturating_sub(then) < SHOW_MS) {
            return;
        }
        house.shown_ms = Some(now_ms);
        let classes = Class::ALL.map(|class| (class, house.class_status(core, class)));
        let forgotten = house.known_forgotten(core, board);
        let reserve = core.keeper.reserve.as_ref();
        let reserve = ReserveStatus {
            bytes: reserve.map_or(0, Reserve::bytes),
            held: reserve.is_some_and(Reserve::is_held),
        };
        let full = core.keeper.is_full();
        let disk = core.keeper.disk;
        let disk = disk.map(|disk| DiskStatus { free_bytes: disk.free, total_bytes: disk.total, full });
        let written = house.written();
        metrics.set_store("reserve_bytes", if reserve.held { reserve.bytes } else { 0 });
        if let Some(disk) = &disk {
            metrics.set_store("disk_free_bytes", disk.free_bytes);
            metrics.set_store("disk_full", u64::from(disk.full));
        }
        if let Some(written) = &written {
            metrics.set_store("written_bytes", written.bytes);
        }
        for (class, status) in &classes {
            metrics.set_store_class(*class, "records", status.records);
            metrics.set_store_class(*class, "bytes", status.bytes);
            if let Some(budget) = status.budget_bytes {
                metrics.set_store_class(*class, "budget_bytes", budget);
            }
        }
        board.update(|board| {
            let store = &mut board.store;
            store.classes = classes.into();
            store.forgotten = forgotten;
            store.reserve = reserve;
            store.disk = disk;
            store.written = written;
            if let Some(trouble) = trouble {
                store.trouble = trouble;
            }
        });
    }

    /// Trouble that does not keep the journal from being written, but that a person should know.
    pub(super) fn house_trouble(&self) -> Option<String> {
        let Desk::Open(core) = &self.desk else { return None };
        let disk = core.keeper.disk.filter(|_| core.keeper.is_full())?;
        Some(format!(
            "the disk is full ({} KiB of {} MiB free); telemetry is being forgotten; look for what else fills it",
            disk.free / 1_024,
            disk.total / 1_024 / 1_024
        ))
    }
}

impl Core {
    /// How many records of a class are stored.
    pub fn records(&self, class: Class) -> u64 {
        self.state.sums.usage[class].records
    }

    /// What was forgotten since the file began.
    pub fn forgotten(&self) -> Result<Vec<ForgottenStatus>, StoreError> {
        super::walk::forgotten(&self.conn).map_err(super::error::sql("read", &self.path))
    }
}
