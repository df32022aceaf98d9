//! Rule files that come by order: checked with the whole configuration, tried on the last day, and put into `rules_dir`. They
//! work from the next start on; a file that does not pass is never left there, and the one before it stays beside it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::line;
use super::rehearse::{Range, rehearse};
use crate::config::{self, Loaded, Report};
use crate::model::command::{RuleBook, RulesPut};
use crate::rt::clock::SharedClock;
use crate::store::Reader;

/// The past that new rules are tried on, in milliseconds: it holds each hour once, and is read in seconds.
const PAST_MS: i64 = 24 * 3_600_000;

/// Rules whose numbers are told; those beyond would not fit an answer.
const TOLD_MAX: usize = 40;

/// The rules of a running gateway.
#[derive(Debug)]
pub(super) struct Rulebook {
    /// The configuration, as it stands on the disk: a person may have changed it since the start.
    pub(super) config: PathBuf,
    pub(super) clock: SharedClock,
    /// One file at a time.
    pub(super) turn: Mutex<()>,
}

#[async_trait]
impl RuleBook for Rulebook {
    async fn put(&self, name: &str, toml: &str) -> Result<RulesPut, String> {
        let _turn = self.turn.lock().await;
        let (config, name, toml) = (self.config.clone(), name.to_owned(), toml.to_owned());
        let now_ms = self.clock.now().wall_ms;
        let work = tokio::task::spawn_blocking(move || put(&config, (&name, &toml), now_ms));
        work.await.map_err(|error| format!("the rules could not be tried: {error}"))?
    }
}

fn put(config: &Path, (name, toml): (&str, &str), now_ms: i64) -> Result<RulesPut, String> {
    let loaded = match config::load(config) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(refused("the configuration has mistakes already", &report)),
    };
    let Some(dir) = loaded.settings.gateway.rules_dir.clone() else {
        return Err("there is no `rules_dir` in [gateway], so that there is no place for them".to_owned());
    };
    let file = format!("{name}.toml");
    let rules = match loaded.rules_with(&[(file.clone(), toml.as_bytes().to_vec())]) {
        Ok(rules) => rules,
        Err(report) => return Ok(refused("", &report)),
    };
    let rehearsal = tried(&loaded, rules, now_ms).unwrap_or_else(|error| json!({ "not_tried": error }));
    let path = dir.join(&file);
    let failed = |error: io::Error| format!("{} could not be written: {error}", path.display());
    let before = match fs::read(&path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    write(&path, toml.as_bytes()).map_err(failed)?;
    // What passes alone may not pass among the others: then everything is as it was.
    if let Err(report) = config::load(config) {
        let back = match &before {
            Some(before) => write(&path, before),
            None => fs::remove_file(&path),
        };
        back.map_err(|error| {
            format!("{} has mistakes and could not be taken back: {error}", path.display())
        })?;
        return Ok(refused("", &report));
    }
    if let Some(before) = before {
        write(&path.with_extension("before"), &before).map_err(failed)?;
    }
    let detail = format!("{file} is in place and works from the next start on");
    Ok(RulesPut::Taken { rehearsal, detail })
}

fn refused(first: &str, report: &Report) -> RulesPut {
    let told = report.findings().iter().map(|finding| finding.message.clone());
    let first = Some(first.to_owned()).filter(|first| !first.is_empty());
    RulesPut::Refused { findings: first.into_iter().chain(told).collect() }
}

/// What the rules would have raised within the last day, beside what was raised.
fn tried(loaded: &Loaded, rules: Arc<crate::pipeline::rule::Rules>, now_ms: i64) -> Result<Value, String> {
    let reader = Reader::open(&loaded.settings.gateway.data_dir).map_err(|error| error.to_string())?;
    let (pipeline, _roll) = line::rehearsal(loaded, rules);
    let range = Range { from_ms: Some(now_ms.saturating_sub(PAST_MS)), to_ms: None };
    let outcome = rehearse(&reader, pipeline, range).map_err(|error| error.to_string())?;
    let told: serde_json::Map<String, Value> = outcome
        .rules
        .iter()
        .take(TOLD_MAX)
        .map(|(rule, tally)| (rule.clone(), json!({ "would": tally.would, "really": tally.really })))
        .collect();
    Ok(json!({
        "hours": PAST_MS / 3_600_000,
        "records": outcome.events.saturating_add(outcome.telemetry),
        "rules": told,
        "rules_in_all": outcome.rules.len(),
        "sparse": outcome.sparse.len(),
    }))
}

/// Whole or not at all, also where the power is cut.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"
[[rule]]
name = "own-button"
title = { zh = "测试", en = "a test" }
on = { event = "button.pressed", kind = "button" }
raise = { category = "emergency", severity = "critical", text = { zh = "求助", en = "help" } }
"#;

    #[test]
    fn a_file_that_does_not_pass_is_never_left_there() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gatehouse.toml");
        let write_config = |more: &str| {
            fs::write(
                &config,
                format!("[gateway]\nname = \"g\"\ncompound = \"c\"\ndata_dir = \"data\"\n{more}"),
            )
            .unwrap();
        };
        write_config("");
        assert!(put(&config, ("own", RULE), 0).unwrap_err().contains("rules_dir"));
        fs::create_dir(folder.path().join("rules")).unwrap();
        write_config("rules_dir = \"rules\"\n");
        let path = folder.path().join("rules/own.toml");
        for bad in ["[[rule]]\n", "nonsense", "[[rule]]\nname = \"x\"\n"] {
            let answer = put(&config, ("own", bad), 0).unwrap();
            assert!(matches!(answer, RulesPut::Refused { .. }), "{bad}: {answer:?}");
            assert!(!path.exists());
        }
        let taken = put(&config, ("own", RULE), 0).unwrap();
        assert!(matches!(taken, RulesPut::Taken { .. }), "{taken:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), RULE);
        let second = put(&config, ("own", &RULE.replace("a test", "another")), 0).unwrap();
        assert!(matches!(second, RulesPut::Taken { .. }), "{second:?}");
        assert_eq!(fs::read_to_string(path.with_extension("before")).unwrap(), RULE);
        assert!(matches!(put(&config, ("own", "nonsense"), 0).unwrap(), RulesPut::Refused { .. }));
        assert!(fs::read_to_string(&path).unwrap().contains("another"));
    }
}
