//! Whether the disk has room: watched once a second, and learnt from commits that fail. Holds the reserve while it has.

use rusqlite::ErrorCode;

use crate::model::stamp::Stamp;

use super::error::StoreError;
use super::heads::PerClass;
use super::keeper::{Keeper, PIECES_BEFORE_RELIEF};
use super::reserve::{Disk, Reserve};

/// Whether the disk has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// Since a commit failed for it (`struck`), or since little was left.
    Full {
        struck: bool,
    },
}

/// What the journal has to say of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Full { struck: bool },
    Room,
}

impl Keeper {
    pub(super) fn is_full(&self) -> bool {
        self.room != Room::Enough
    }

    /// Gives up the reserve, if the error says that the disk is full; whether that made room.
    pub(super) fn struck(&mut self, error: &StoreError, dir: &std::path::Path) -> bool {
        let StoreError::Sql { source, .. } = error else { return false };
        if !self.active {
            return false;
        }
        let full = match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            // Where the index of the WAL or a journal of the file system cannot grow, the disk is full by another name.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
                Disk::of(dir).is_some_and(|disk| disk.is_low())
            }
            _ => false,
        };
        if !full {
            return false;
        }
        if self.room != (Room::Full { struck: true }) {
            self.room = Room::Full { struck: true };
            self.news = Some(News::Full { struck: true });
        }
        self.again_at_ms = PerClass::default();
        self.unrelieved = PIECES_BEFORE_RELIEF;
        let Some(reserve) = &mut self.reserve else { return false };
        match reserve.release() {
            Ok(true) => {
                tracing::error!(bytes = reserve.bytes(), "the disk is full; the reserve is given up");
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::error!(%error, "the disk is full, and the reserve could not be given up");
                false
            }
        }
    }

    /// Looks whether the disk has room, and makes the reserve where it has.
    pub(super) fn look_at_disk(&mut self, dir: &std::path::Path, now: &Stamp) {
        self.looked_at_ms = Some(now.mono_ms);
        self.disk = Disk::of(dir);
        let Some(disk) = self.disk else { return };
        let wanted = self.reserve.as_ref().filter(|reserve| reserve.is_missing()).map_or(0, Reserve::bytes);
        match self.room {
            Room::Enough if disk.is_low() => {
                self.room = Room::Full { struck: false };
                self.news = Some(News::Full { struck: false });
            }
            Room::Full { .. } if disk.has_room_for(wanted) => {
                // An entry that was not told yet needs no end.
                self.news = if self.news.take().is_some() { None } else { Some(News::Room) };
                self.room = Room::Enough;
            }
            Room::Enough | Room::Full { .. } => {}
        }
        if self.room == Room::Enough
            && wanted > 0
            && disk.has_room_for(wanted)
            && let Some(reserve) = &mut self.reserve
        {
            match reserve.make() {
                Ok(()) => tracing::info!(bytes = reserve.bytes(), "the reserve is held"),
                Err(error) => tracing::warn!(%error, "the reserve could not be made"),
            }
        }
    }
}
