//! The file system under the journal: how much room it has, and the reserve file that is given up first when it has
//! none. Must not know SQL.
//!
//! On a full disk SQLite can neither delete nor write its WAL back, so room must come from elsewhere: the reserve is
//! really allocated, and removing it needs none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

const RESERVE: &str = "journal.reserve";

/// Below this much room the disk counts as full: a fiftieth of it, but no more than a burst of commits needs.
const LOW_SHARE: u64 = 50;
const LOW_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The WAL grows to this before it is written back: room that is not there to stay.
const WAL_BYTES: u64 = super::schema::CHECKPOINT_PAGES * super::schema::PAGE_BYTES;
/// On a small disk the WAL and the reserve count for no more than a share of it.
const WAL_SHARE: u64 = 8;
const RESERVE_SHARE: u64 = 4;

/// Zeros written at once where the file system cannot allocate otherwise.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) free: u64,
    pub(super) total: u64,
}

impl Disk {
    /// None where the file system does not say.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let stat = statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Self { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    /// Below it the disk is full.
    pub(super) fn low(&self) -> u64 {
        (self.total / LOW_SHARE).min(LOW_BYTES_MAX)
    }

    pub(super) fn is_low(&self) -> bool {
        self.free < self.low()
    }

    /// Whether there is room again: twice the low mark, the WAL, and what else is to be allocated. So a full disk is not
    /// called full and empty by turns.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let wal = WAL_BYTES.min(self.total / WAL_SHARE);
        self.free >= self.low().saturating_mul(2).saturating_add(wal).saturating_add(bytes)
    }

    /// The largest reserve that makes sense here.
    pub(super) const fn reserve_max(&self) -> u64 {
        self.total / RESERVE_SHARE
    }
}

/// The reserve file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// A reserve of no bytes is none; one that is there with another size is made anew.
    pub(super) fn new(dir: &Path, bytes: u64) -> io::Result<Self> {
        let path = dir.join(RESERVE);
        let mut reserve = Self { path, bytes, held: false };
        match fs::metadata(&reserve.path) {
            // Blocks tell what is really allocated: 512 bytes each, whatever the file system's own.
            Ok(data) if bytes > 0 && data.len() == bytes && data.blocks().saturating_mul(512) >= bytes => {
                reserve.held = true;
            }
            Ok(_) => reserve.remove()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(reserve)
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Whether it is to be made.
    pub(super) const fn is_missing(&self) -> bool {
        self.bytes > 0 && !self.held
    }

    /// Allocates it. Leaves nothing behind where the disk has no room for it.
    pub(super) fn make(&mut self) -> io::Result<()> {
        if !self.is_missing() {
            return Ok(());
        }
        match self.allocate() {
            Ok(()) => {
                self.held = true;
                Ok(())
            }
            Err(error) => {
                self.remove()?;
                Err(error)
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file, self.bytes)?,
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    /// Gives the room back to the file system; whether there was any to give.
    pub(super) fn release(&mut self) -> io::Result<bool> {
        if !self.held {
            return Ok(false);
        }
        self.remove()?;
        self.held = false;
        Ok(true)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all(ZEROS.get(..part).unwrap_or(&ZEROS))?;
        left = left.saturating_sub(part as u64);
    }
    Ok(())
}

/// Bytes that this process has caused to be written to its disks since it started, as the kernel counts pages that it
/// made dirty (`write_bytes` in /proc/self/io). The file system's own journal is not in it. None where nobody counts.
pub(super) fn written() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 300_000;

    fn allocated(dir: &Path) -> u64 {
        fs::metadata(dir.join(RESERVE)).map_or(0, |data| data.blocks() * 512)
    }

    #[test]
    fn the_reserve_is_really_allocated_and_really_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), SIZE).unwrap();
        assert!(reserve.is_missing());
        reserve.make().unwrap();
        assert!(reserve.is_held() && allocated(dir.path()) >= SIZE);
        let again = Reserve::new(dir.path(), SIZE).unwrap();
        assert!(again.is_held(), "it outlives the process");
        assert!(reserve.release().unwrap());
        assert!(!reserve.release().unwrap(), "it was given up already");
        assert!(reserve.is_missing() && allocated(dir.path()) == 0);
    }

    #[test]
    fn a_reserve_of_another_size_or_with_a_hole_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        Reserve::new(dir.path(), SIZE).unwrap().make().unwrap();
        assert!(Reserve::new(dir.path(), 2 * SIZE).unwrap().is_missing());
        File::create(dir.path().join(RESERVE)).unwrap().set_len(SIZE).unwrap();
        assert!(Reserve::new(dir.path(), SIZE).unwrap().is_missing(), "a hole gives no room back");
        Reserve::new(dir.path(), SIZE).unwrap().make().unwrap();
        assert!(!Reserve::new(dir.path(), 0).unwrap().is_missing(), "none is wanted");
        assert_eq!(allocated(dir.path()), 0);
    }

    #[test]
    fn zeros_fill_where_nothing_else_allocates() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("f")).unwrap();
        fill(&mut file, SIZE).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
    }

    #[test]
    fn the_low_mark_suits_small_and_large_disks() {
        let disk = |free, total| Disk { free, total };
        assert_eq!(disk(0, 8_000_000_000).low(), LOW_BYTES_MAX);
        assert_eq!(disk(0, 4_000_000).low(), 80_000);
        assert!(disk(79_999, 4_000_000).is_low() && !disk(80_000, 4_000_000).is_low());
        for (total, wal) in [(40_000_000, 5_000_000), (400_000_000, WAL_BYTES)] {
            let room = 2 * disk(0, total).low() + wal + 50_000;
            assert!(!disk(room - 1, total).has_room_for(50_000) && disk(room, total).has_room_for(50_000));
        }
    }

    #[test]
    fn what_the_kernel_counts_can_be_read() {
        assert!(written().is_some(), "/proc/self/io");
    }
}
