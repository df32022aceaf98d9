//! Disks that fail: a small file system in memory that can be filled and made read-only, and a shim that makes a
//! directory ill for one process (tests/disk/sick_disk.c says how).
//!
//! Mounting needs root, or sudo that asks for nothing, as tests/setup.sh does.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

/// Written at once when a disk is filled.
const BLOCK_BYTES: usize = 4_096;

fn as_root(program: &str) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?} failed; this test needs root or sudo -n: {said}");
}

/// A file system of a few MiB in memory, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `mib` MiB over the directory, which is made.
    pub fn mount(path: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={mib}m,mode=0777");
        run(as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        Self { path: path.to_owned() }
    }

    fn filling(&self) -> PathBuf {
        self.path.join("filling")
    }

    /// Writes until nothing fits any more; goes on where an earlier call ended.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filling()).unwrap();
        while file.write_all(&[7; BLOCK_BYTES]).is_ok() {}
    }

    /// Frees what was filled.
    pub fn empty(&self) {
        std::fs::remove_file(self.filling()).unwrap();
    }

    /// Nobody may have a file on it open for writing.
    pub fn remount(&self, options: &str) {
        run(as_root("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since a process that a failing test left behind may still have files open.
        run(as_root("umount").arg("-l").arg(&self.path));
    }
}

/// The shim and its control file.
#[derive(Debug)]
pub struct Illness {
    library: PathBuf,
    control: PathBuf,
    _folder: TempDir,
}

impl Illness {
    /// Compiles the shim.
    pub fn prepare() -> Self {
        let folder = TempDir::new().unwrap();
        let library = folder.path().join("sick_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("disk/sick_disk.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).arg("-ldl"));
        let control = folder.path().join("control");
        let illness = Self { library, control, _folder: folder };
        illness.set("well");
        illness
    }

    /// Makes `dir` subject to the illness in what `command` starts.
    pub fn infect(&self, command: &mut Command, dir: &Path) {
        crate::preload::add(command, &self.library);
        command.env("SICK_CONTROL", &self.control).env("SICK_DIR", dir);
    }

    /// `well`, `full`, `readonly`, `broken` or `stall`, from now on.
    pub fn set(&self, word: &str) {
        let fresh = self.control.with_extension("new");
        File::create(&fresh).unwrap().write_all(word.as_bytes()).unwrap();
        std::fs::rename(&fresh, &self.control).unwrap();
    }
}
