//! Subcommands: one file each. `main` parses, this dispatches.

mod acting;
pub mod alarm;
pub mod audit;
mod buses;
pub mod check;
pub mod client;
pub mod demo;
pub mod desk;
pub mod journal;
pub mod line;
mod logging;
mod notify;
pub mod platform_check;
mod probation;
pub mod rehearse;
mod rulebook;
pub mod run;
pub mod status;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Where the configuration stands unless told otherwise.
const CONFIG_PATH: &str = "/etc/gatehouse";

/// `EX_CONFIG` of sysexits.h: the unit does not start the daemon again until a person has mended the configuration.
const CONFIG_REFUSED: u8 = 78;

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
    Check(check::CheckArgs),
    /// Show a small compound at work, with an outage, on this machine alone (演示).
    Demo(demo::Args),
    /// Ask the running gateway how it is (运行状态).
    Status(status::Args),
    Journal(journal::Args),
    Alarm(alarm::Args),
    Audit(audit::Args),
    /// Add an MQTT client of the embedded broker, or give it a new secret (客户端账号).
    Client {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: client::ClientArgs,
    },
    PlatformCheck(platform_check::Args),
    Rehearse(rehearse::Args),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArg {
    /// Configuration: a TOML file, or a directory whose *.toml files belong together.
    #[arg(long, short, global = true, value_name = "PATH", default_value = CONFIG_PATH)]
    pub config: PathBuf,
}

/// Exit codes: 0 done; 1 the command found or met something wrong and has said what; 78 the configuration was refused.
pub fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Check(args) => match check::check(&args, &mut io::stdout().lock()) {
            Ok(code) => ExitCode::from(code),
            Err(error) => finish(until_unread(Err(error.into()))),
        },
        Command::Journal(args) => finish(journal::run(args, &mut io::stdout().lock())),
        Command::Alarm(args) => finish(block_on(1, alarm::run(args)).and_then(|text| print(&text))),
        Command::Audit(args) => finish(audit::run(&args, &mut io::stdout().lock())),
        Command::Client { config, args } => finish(client(&config, &args)),
        Command::Rehearse(args) => finish(rehearse::run(&args, &mut io::stdout().lock())),
        Command::Run(config) => {
            logging::init(logging::SERVICE);
            // Broker, uplinks and the journal have threads of their own: what is left is a house that mostly sleeps.
            finish(block_on(1, run::run(&config)))
        }
        Command::Demo(args) => {
            logging::init(logging::DEMO);
            finish(block_on(2, demo::run(args)))
        }
        Command::Status(args) => finish(block_on(1, status::run(args)).and_then(|text| print(&text))),
        Command::PlatformCheck(args) => block_on(2, async { Ok(platform_check::run(args).await) })
            .unwrap_or_else(|error| finish(Err(error))),
    }
}

fn client(config: &ConfigArg, args: &client::ClientArgs) -> anyhow::Result<()> {
    let loaded = crate::config::load(&config.config)?;
    let (input, out, notes) = (&mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr().lock());
    args.run(&loaded.settings, &mut client::Streams { input, out, notes })
}

fn print(text: &str) -> anyhow::Result<()> {
    until_unread(io::stdout().lock().write_all(text.as_bytes()).map_err(anyhow::Error::from))
}

/// Whoever reads what a command writes may stop at any time, as `head` does: that is no failure.
fn until_unread(result: anyhow::Result<()>) -> anyhow::Result<()> {
    let unread = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        kind.or(json) == Some(io::ErrorKind::BrokenPipe)
    };
    match result {
        Err(error) if error.chain().any(unread) => Ok(()),
        other => other,
    }
}

/// `30s`, `10m`, `2h`, or plain seconds: how long a command goes on.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let seconds =
        digits.parse().ok().zip(factor).and_then(|(number, factor)| u64::checked_mul(number, factor));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is no time; write 30s, 10m or 2h"))
}

/// Runs a future on a runtime of its own with so many threads, which ends with it.
fn block_on<T>(workers: usize, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            let refused = error.downcast_ref::<crate::config::Report>().is_some();
            if refused { ExitCode::from(CONFIG_REFUSED) } else { ExitCode::FAILURE }
        }
    }
}

/// The error with its causes, for a person. A configuration report is printed as it is.
#[expect(clippy::print_stderr, reason = "the one place where a command's failure is told")]
fn say(error: &anyhow::Error) {
    if let Some(report) = error.downcast_ref::<crate::config::Report>() {
        eprint!("{report}");
        return;
    }
    eprintln!("gatehouse: {error:#}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_explains_itself() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.contains('（') || about.contains('('), "{}: {about:?}", command.get_name());
        }
        for words in [
            "run -c x",
            "check x",
            "check -c x",
            "status -c x",
            "client -c x add z",
            "journal -c x tail",
            "alarm -c x list",
            "alarm ack e-5 -c x --reason r",
            "audit -c x --json",
        ] {
            let words = std::iter::once("gatehouse").chain(words.split(' '));
            assert!(Cli::try_parse_from(words.clone()).is_ok(), "{:?}", words.collect::<Vec<_>>());
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(span("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(span("5"), Ok(Duration::from_secs(5)));
        for bad in ["", "s", "-1s", "1d", "1.5h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let gone = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("could not write");
        assert!(until_unread(Err(gone)).is_ok());
        assert!(until_unread(Err(io::Error::from(io::ErrorKind::StorageFull).into())).is_err());
        let gone = serde_json::Error::io(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(until_unread(Err(gone.into())).is_ok());
    }
}
