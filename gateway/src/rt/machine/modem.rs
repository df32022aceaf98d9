//! The modem (4G/5G) and its SIM card, as ModemManager tells anybody through its command `mmcli`: which modems there
//! are, how the first one is, and the kernel's count of bytes. Limits: 10 s for an answer.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::process::Command;

use super::Roots;
use super::read::number;
use crate::model::check::Problem;

/// How long `mmcli` may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest name of a network interface (linux/if.h, `IFNAMSIZ` without its end).
const INTERFACE_BYTES_MAX: usize = 15;

/// `[gateway.machine.modem]`: the box has a modem that ModemManager looks after.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModemConfig {
    /// The network interface of its connection, such as `wwan0`: what it received and sent is told in bytes.
    pub interface: Option<String>,
    /// The signal is low below this, percent: `box.signal_low`.
    #[schemars(range(max = 90))]
    pub signal_low_pct: u8,
}

impl Default for ModemConfig {
    fn default() -> Self {
        Self { interface: None, signal_low_pct: 20 }
    }
}

impl ModemConfig {
    pub(super) fn problems(&self, path: &[&str]) -> Vec<Problem> {
        let named = self.interface.as_deref().filter(|name| {
            name.is_empty() || name.len() > INTERFACE_BYTES_MAX || name.contains(['/', ' ']) || *name == ".."
        });
        let problem = |name| {
            let at = [path, &["interface"]].concat();
            Problem::error(&at, format!("{name:?} is no network interface")).hint("`ip link` shows the names")
        };
        named.map(problem).into_iter().collect()
    }
}

/// One look at the modem.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modem {
    /// Quality of the signal, percent; None where ModemManager holds an old one.
    pub signal_pct: Option<u8>,
    /// Why it cannot be used, in ModemManager's words (`sim-missing`, `sim-pin`), or `modem-missing`.
    pub fault: Option<String>,
    /// Since the interface came up.
    pub received_bytes: Option<u64>,
    pub sent_bytes: Option<u64>,
}

/// Why nothing is known of the modem.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("`mmcli` could not be started: is ModemManager installed (apt install modemmanager)?")]
    Start(#[source] std::io::Error),
    #[error("`mmcli` gave no answer within {} s: is ModemManager running?", ANSWER.as_secs())]
    Silent,
    #[error("`mmcli` failed: {0}")]
    Failed(String),
    #[error("what `mmcli` answered was not understood")]
    NotUnderstood(#[source] serde_json::Error),
}

/// The answer to `mmcli -L -J`.
#[derive(Deserialize)]
struct List {
    #[serde(rename = "modem-list")]
    paths: Vec<String>,
}

/// The parts of the answer to `mmcli -m PATH -J` that matter. All of its values are texts; `--` is none.
#[derive(Deserialize)]
struct Answer {
    modem: AboutModem,
}

#[derive(Deserialize)]
struct AboutModem {
    generic: Generic,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Generic {
    state: String,
    state_failed_reason: String,
    unlock_required: String,
    signal_quality: SignalQuality,
}

#[derive(Deserialize)]
struct SignalQuality {
    value: String,
    recent: String,
}

/// Asks ModemManager, and counts the bytes.
pub(super) async fn look(config: &ModemConfig, roots: &Roots) -> Result<Modem, AskError> {
    let list: List = ask(&roots.mmcli, &["-L", "-J"]).await?;
    let mut modem = match list.paths.first() {
        None => Modem { fault: Some("modem-missing".to_owned()), ..Modem::default() },
        Some(path) => ask::<Answer>(&roots.mmcli, &["-m", path, "-J"]).await?.modem.generic.into(),
    };
    if let Some(interface) = &config.interface {
        let statistics = roots.sys.join("class/net").join(interface).join("statistics");
        modem.received_bytes = number(&statistics.join("rx_bytes"));
        modem.sent_bytes = number(&statistics.join("tx_bytes"));
    }
    Ok(modem)
}

impl From<Generic> for Modem {
    fn from(generic: Generic) -> Self {
        let fault = match generic.state.as_str() {
            "failed" => Some(generic.state_failed_reason),
            "locked" => Some(generic.unlock_required),
            _ => None,
        };
        let signal = generic.signal_quality;
        let percent = signal.value.parse().ok().filter(|percent| *percent <= 100);
        Self { signal_pct: percent.filter(|_| signal.recent == "yes"), fault, ..Self::default() }
    }
}

async fn ask<T: serde::de::DeserializeOwned>(mmcli: &Path, arguments: &[&str]) -> Result<T, AskError> {
    let mut command = Command::new(mmcli);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER, command.output())
        .await
        .map_err(|_elapsed| AskError::Silent)?
        .map_err(AskError::Start)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(AskError::Failed(said.lines().next().unwrap_or("it did not say why").to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(AskError::NotUnderstood)
}
