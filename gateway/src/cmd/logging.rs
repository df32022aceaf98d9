//! Logs: for a person on a terminal, journald under systemd, JSON lines otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise. The broker's library tells of every refused login at INFO; ours are
/// counted.
pub(super) const SERVICE: &str = "info,rmqtt=error,rmqtt_net=error,rumqttc=error";
/// For the demo, whose view must not drown.
pub(super) const DEMO: &str = "error,rmqtt=off,rmqtt_net=off";

/// Sets the process's log up. A second call (in tests) changes nothing.
pub(super) fn init(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    // systemd sets JOURNAL_STREAM for services whose output goes to the journal.
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_set| tracing_journald::layer().ok());
    let result = if let Some(journald) = journald {
        registry.with(journald).try_init()
    } else if std::io::stderr().is_terminal() {
        registry
            .with(tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr))
            .try_init()
    } else {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
    };
    if let Err(error) = result {
        tracing::debug!(%error, "logging was set up before");
    }
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "{panic}");
    }));
}
