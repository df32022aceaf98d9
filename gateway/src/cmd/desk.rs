//! The desk of a running gateway: what it works with, and what goes into a support bundle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{self, Loaded};
use crate::console::status::Reporter;
use crate::desk::bundle::{Bundle, Source};
use crate::desk::{Desk, Parts};
use crate::model::action::Act;
use crate::model::command::RuleBook;
use crate::store::Store;

/// Troubles that a summary names.
const ILLS_MAX: usize = 8;

/// What is there already when the desk is made.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) reporter: Reporter,
    pub(super) store: Store,
    pub(super) act: Arc<dyn Act>,
    pub(super) rules: Arc<dyn RuleBook>,
}

/// The desk.
pub(super) fn desk(loaded: &Loaded, around: Around) -> Arc<Desk> {
    let directory = loaded.settings.directory(&loaded.profiles);
    let dir = loaded.settings.gateway.data_dir.join("bundles");
    Arc::new(Desk::new(Parts {
        journal: Arc::new(around.store),
        roll: Arc::clone(&around.reporter.roll),
        directory: Arc::new(directory),
        act: around.act,
        rules: around.rules,
        clock: Arc::clone(&around.reporter.clock),
        bundle: bundle(dir, &loaded.path, around.reporter),
    }))
}

/// The status with its counters, what `check` says of the configuration as it is now, and the machine. Nothing of it
/// holds a secret: those lie in files of their own.
fn bundle(dir: PathBuf, config: &Path, reporter: Reporter) -> Bundle {
    let config = config.to_owned();
    let status = reporter.clone();
    let check: Source = Arc::new(move || check(&config));
    let parts: Vec<(&'static str, Source)> = vec![
        ("status", Arc::new(move || serde_json::to_value(status.status()).unwrap_or_default())),
        ("check", Arc::clone(&check)),
        ("machine", Arc::new(machine)),
    ];
    Bundle { dir, parts, summary: Arc::new(move || summary(&reporter, &check())) }
}

fn check(config: &Path) -> Value {
    match config::load(config) {
        Ok(loaded) => loaded.warnings.json(),
        Err(report) => report.json(),
    }
}

fn summary(reporter: &Reporter, check: &Value) -> Value {
    let status = reporter.status();
    let away: Vec<&str> = status
        .board
        .uplinks
        .iter()
        .filter(|(_, uplink)| !uplink.connected)
        .map(|(name, _)| name.as_str())
        .collect();
    json!({
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "ill": status.ill.iter().take(ILLS_MAX).collect::<Vec<_>>(),
        "uplinks_away": away,
        "check_ok": check.get("ok"),
    })
}

/// What Linux says of the machine to everybody.
fn machine() -> Value {
    let line = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    json!({
        "kernel": line("/proc/version"),
        "load": line("/proc/loadavg"),
        "memory": line("/proc/meminfo"),
        "arch": std::env::consts::ARCH,
    })
}
