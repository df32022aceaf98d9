//! A wall clock that a test moves, for one child process: libfaketime, which leaves the monotonic clocks alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

/// The variant for programs with threads, where Debian puts it.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock. It goes on as fast as the true one, at a distance from it.
#[derive(Debug)]
pub struct FakeClock {
    folder: TempDir,
}

/// Seconds since 1970, truly.
#[expect(clippy::disallowed_methods, reason = "the harness compares the box's time with the machine's")]
pub fn true_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join(LIBRARY))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {LIBRARY} below /usr/lib; tests/setup.sh installs it"))
}

impl FakeClock {
    /// Shows the true time plus `offset_s`.
    pub fn at(offset_s: i64) -> Self {
        let clock = Self { folder: TempDir::new().unwrap() };
        clock.set(offset_s);
        clock
    }

    /// A box without a battery clock: 1970, a minute after its boot.
    pub fn in_1970() -> Self {
        Self::at(60 - true_s())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("faketime")
    }

    /// Jumps to the true time plus `offset_s`.
    pub fn set(&self, offset_s: i64) {
        let fresh: &Path = &self.folder.path().join("new");
        std::fs::write(fresh, format!("{offset_s:+}\n")).unwrap();
        // Whole at any moment: the child reads it with each look at its clock.
        std::fs::rename(fresh, self.file()).unwrap();
    }

    /// Puts the clock into a command that is to be started.
    pub fn put_into(&self, command: &mut Command) {
        crate::preload::add(command, &library());
        command
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}
