//! Arguments and exit code: 0 done, 1 a finding or failure that the command reports, 2 wrong usage or nothing to work on,
//! 78 the configuration was refused.

use std::process::ExitCode;

use clap::Parser;
use gatehouse::cmd::{self, Cli};

fn main() -> ExitCode {
    cmd::dispatch(Cli::parse())
}
