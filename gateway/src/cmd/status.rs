//! `gatehouse status`: asks the running daemon by its local socket.

use std::path::PathBuf;

use anyhow::bail;

use super::ConfigArg;
use crate::config;
use crate::console::socket::{Answer, Question, ask};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// The daemon's socket, if it is not where the configuration says.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The status as it is to be printed.
pub async fn run(args: Args) -> anyhow::Result<String> {
    let socket = match args.socket {
        Some(socket) => socket,
        None => config::load(&args.config.config)?.settings.gateway.socket(),
    };
    match ask(&socket, &Question::Status).await? {
        Answer::Status(status) if args.json => Ok(serde_json::to_string_pretty(&status)? + "\n"),
        Answer::Status(status) => Ok(status.text()),
        Answer::Error(error) => bail!("the daemon at {} refused: {error}", socket.display()),
        _ => bail!("the daemon at {} answered another question; is it of another version?", socket.display()),
    }
}
