//! Libraries that are put before the program under test: several may be, each with a lie of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

const NAME: &str = "LD_PRELOAD";

/// Adds a library to those that a command is started with.
pub(crate) fn add(command: &mut Command, library: &Path) {
    let mut all = OsString::from(library);
    if let Some((_, Some(before))) = command.get_envs().find(|(name, _)| *name == NAME) {
        all.push(":");
        all.push(before);
    }
    command.env(NAME, all);
}
