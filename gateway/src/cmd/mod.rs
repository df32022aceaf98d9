//! Subcommands: one file each. `main` parses, this dispatches.

pub mod check;
pub mod client;
pub mod demo;
pub mod journal;
mod logging;
pub mod platform_check;
pub mod run;
pub mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Where the configuration stands unless told otherwise.
const CONFIG_PATH: &str = "/etc/gatehouse";

/// The gateway of a residential compound's gate room (智慧安防小区网关).
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM (运行网关).
    Run(ConfigArg),
    /// Check a configuration and report every mistake at once; opens nothing (检查配置).
    Check(check::Args),
    /// Show a small compound at work, with an outage, on this machine alone (演示).
    Demo(demo::Args),
    /// Ask the running gateway how it is (运行状态).
    Status(status::Args),
    /// Read the journal, also while the gateway runs (查看日志).
    #[command(subcommand)]
    Journal(journal::Command),
    /// Add an MQTT client of the embedded broker, or give it a new secret (客户端账号).
    #[command(subcommand)]
    Client(client::Command),
    /// Listen to a broker as a platform would, and report holes, duplicates, schema breaks and late data (平台侧核查).
    PlatformCheck(platform_check::Args),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArg {
    /// Configuration: a TOML file, or a directory whose *.toml files belong together.
    #[arg(long, short, value_name = "PATH", default_value = CONFIG_PATH)]
    pub config: PathBuf,
}
