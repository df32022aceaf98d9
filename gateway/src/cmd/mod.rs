//! Subcommands: one file each. `main` parses, this dispatches.

pub mod check;
pub mod client;
pub mod demo;
pub mod journal;
mod logging;
pub mod platform_check;
pub mod run;
pub mod status;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Check a configuration and report every mistake at once; opens nothing (检查配置).
    Check(check::CheckArgs),
    /// Show a small compound at work, with an outage, on this machine alone (演示).
    Demo(demo::Args),
    /// Ask the running gateway how it is (运行状态).
    Status(status::Args),
    /// Read the journal, also while the gateway runs (查看日志).
    Journal(journal::Args),
    /// Add an MQTT client of the embedded broker, or give it a new secret (客户端账号).
    Client {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: client::ClientArgs,
    },
    /// Listen to a broker as a platform would, and report holes, duplicates, schema breaks and late data (平台侧核查).
    PlatformCheck(platform_check::Args),
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
            Err(error) => finish(Err(error.into())),
        },
        Command::Journal(args) => finish(journal::run(args, &mut io::stdout().lock())),
        Command::Client { config, args } => finish(client(&config, &args)),
        Command::Run(config) => {
            logging::init(logging::SERVICE);
            finish(block_on(run::run(&config)))
        }
        Command::Demo(args) => {
            logging::init(logging::DEMO);
            finish(block_on(demo::run(args)))
        }
        Command::Status(args) => finish(block_on(status::run(args))),
        Command::PlatformCheck(args) => {
            block_on(async { Ok(platform_check::run(args).await) }).unwrap_or_else(|error| finish(Err(error)))
        }
    }
}

fn client(config: &ConfigArg, args: &client::ClientArgs) -> anyhow::Result<()> {
    let loaded = crate::config::load(&config.config)?;
    let (input, out, notes) = (&mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr().lock());
    args.run(&loaded.settings.gateway.secrets_dir, &mut client::Streams { input, out, notes })
}

/// Runs a future on a runtime of its own, which ends with it.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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
