//! Rule files that come by order: checked with the whole configuration, tried on the last day, put into `rules_dir` on
//! probation, and at work with the next record. A file that does not pass is never left there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::line;
use super::probation::{PROBATION, Probation};
use super::rehearse::{Range, rehearse};
use crate::config::{self, Loaded, Report};
use crate::model::check::Weight;
use crate::model::command::{RuleBook, RulesPut};
use crate::pipeline::NextRules;
use crate::pipeline::directory::Directory;
use crate::pipeline::rule::Rules;
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
    config: PathBuf,
    clock: SharedClock,
    /// The devices as they are known to the pipeline at work.
    directory: Directory,
    next_rules: Arc<NextRules>,
    /// One file at a time.
    turn: Mutex<()>,
    /// How many files were put to work.
    puts_tx: watch::Sender<u64>,
}

impl Rulebook {
    /// For a pipeline that knows the devices of this configuration.
    pub(super) fn new(loaded: &Loaded, clock: SharedClock, next_rules: Arc<NextRules>) -> Self {
        Self {
            config: loaded.path.clone(),
            clock,
            directory: loaded.settings.directory(&loaded.profiles),
            next_rules,
            turn: Mutex::default(),
            puts_tx: watch::Sender::new(0),
        }
    }

    /// Changes with each file that is put to work.
    pub(super) fn puts(&self) -> watch::Receiver<u64> {
        self.puts_tx.subscribe()
    }
}

#[async_trait]
impl RuleBook for Rulebook {
    async fn put(&self, name: &str, toml: &str) -> Result<RulesPut, String> {
        let _turn = self.turn.lock().await;
        let (config, name, toml) = (self.config.clone(), name.to_owned(), toml.to_owned());
        let now_ms = self.clock.now().wall_ms;
        let work = tokio::task::spawn_blocking(move || put(&config, (&name, &toml), now_ms));
        let put = work.await.map_err(|error| format!("the rules could not be tried: {error}"))??;
        let (loaded, rehearsal) = match put {
            Put::Refused(findings) => return Ok(RulesPut::Refused { findings }),
            Put::Taken { loaded, rehearsal } => (loaded, rehearsal),
        };
        // The pipeline knows the devices of its start.
        let detail = if loaded.settings.directory(&loaded.profiles) == self.directory {
            self.next_rules.put(Arc::clone(&loaded.rules));
            self.puts_tx.send_modify(|puts| *puts = puts.saturating_add(1));
            "in place and at work"
        } else {
            "in place; at work from the next start on, since devices were changed in the configuration"
        };
        Ok(RulesPut::Taken { rehearsal, detail: detail.to_owned() })
    }
}

/// Ends each probation after its time at work, if the process lives to see it; also one that a restart has found.
pub(super) async fn see_out(probation: &Probation, mut puts_rx: watch::Receiver<u64>) {
    let mut is_pending = probation.is_pending();
    loop {
        let changed = puts_rx.changed();
        let still = if is_pending { timeout(PROBATION, changed).await } else { Ok(changed.await) };
        is_pending = match still {
            Ok(Ok(())) => true,
            // Nobody is left who could put any.
            Ok(Err(_closed)) => return,
            Err(_elapsed) => {
                if let Err(error) = probation.passed() {
                    tracing::error!(%error, "the note about new rules could not be removed");
                }
                false
            }
        };
    }
}

/// What became of a file on the disk.
#[derive(Debug)]
enum Put {
    Taken { loaded: Box<Loaded>, rehearsal: Value },
    Refused(Vec<String>),
}

fn put(config: &Path, (name, toml): (&str, &str), now_ms: i64) -> Result<Put, String> {
    let file = format!("{name}.toml");
    let loaded = match config::load(config) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(refused(Some("the configuration has mistakes already"), &file, &report)),
    };
    let Some(probation) = Probation::of(&loaded) else {
        return Err("there is no `rules_dir` in [gateway], so that there is no place for them".to_owned());
    };
    let rules = match loaded.rules_with(&[(file.clone(), toml.as_bytes().to_vec())]) {
        Ok(rules) => rules,
        Err(report) => return Ok(refused(None, &file, &report)),
    };
    let rehearsal = tried(&loaded, rules, now_ms).unwrap_or_else(|error| json!({ "not_tried": error }));
    let placed = probation
        .put(&file, toml.as_bytes())
        .map_err(|error| format!("{file} could not be put into `rules_dir`: {error}"))?;
    // What passes alone may not pass among the others: then everything is as it was.
    match config::load(config) {
        Ok(loaded) => Ok(Put::Taken { loaded: Box::new(loaded), rehearsal }),
        Err(report) => {
            let undone = probation.undo(&placed);
            undone.map_err(|error| format!("{file} has mistakes and could not be taken back: {error}"))?;
            Ok(refused(None, &file, &report))
        }
    }
}

/// The mistakes, those of `file` with their lines. What the box's configuration is warned of is nobody's business here.
fn refused(first: Option<&str>, file: &str, report: &Report) -> Put {
    let mistakes = report.findings().iter().filter(|finding| finding.weight == Weight::Error);
    let told = mistakes.map(|finding| match &finding.place {
        Some(place) if Path::new(&place.file).ends_with(file) => {
            format!("line {}: {}", place.line, finding.message)
        }
        _ => finding.message.clone(),
    });
    Put::Refused(first.map(str::to_owned).into_iter().chain(told).collect())
}

/// What the rules would have raised within the last day, beside what was raised.
fn tried(loaded: &Loaded, rules: Arc<Rules>, now_ms: i64) -> Result<Value, String> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RULE: &str = r#"
[[rule]]
name = "own-button"
title = { zh = "测试", en = "a test" }
on = { event = "button.pressed", kind = "button" }
raise = { category = "emergency", severity = "critical", text = { zh = "求助", en = "help" } }
"#;

    #[tokio::test(start_paused = true)]
    async fn probation_ends_a_minute_after_the_last_file() {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        fs::create_dir(&rules).unwrap();
        let probation = Probation::new(folder.path(), &rules);
        let puts_tx = watch::Sender::new(0);
        let seen = see_out(&probation, puts_tx.subscribe());
        let story = async {
            for _ in 0..3 {
                probation.put("own.toml", b"").unwrap();
                puts_tx.send_modify(|puts| *puts += 1);
                tokio::time::sleep(PROBATION / 2).await;
                assert!(probation.is_pending());
            }
            tokio::time::sleep(PROBATION).await;
            assert!(!probation.is_pending());
            drop(puts_tx);
        };
        tokio::join!(seen, story);
    }

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
        fs::create_dir(folder.path().join("data")).unwrap();
        write_config("rules_dir = \"rules\"\n");
        let path = folder.path().join("rules/own.toml");
        for bad in ["[[rule]]\n", "nonsense", "[[rule]]\nname = \"x\"\n"] {
            let answer = put(&config, ("own", bad), 0).unwrap();
            assert!(matches!(answer, Put::Refused(_)), "{bad}: {answer:?}");
            assert!(!path.exists());
        }
        // Warnings of the configuration are no mistakes of the file.
        let notifier = "[notifiers.n.webhook]\nkind = \"wecom\"\nurl = \"http://robot.example/?key=1\"\n";
        write_config(&format!("rules_dir = \"rules\"\n{notifier}"));
        assert!(config::load(&config).unwrap().warnings.warnings() > 0);
        let Put::Refused(mistakes) = put(&config, ("own", "\nx = 1\n"), 0).unwrap() else { panic!("taken") };
        assert_eq!(mistakes, ["line 2: unknown key `x`"]);
        let shipped = RULE.replace("own-button", "emergency-button");
        let Put::Refused(mistakes) = put(&config, ("own", &shipped), 0).unwrap() else { panic!("taken") };
        assert!(mistakes.len() == 1 && mistakes[0].starts_with("line 3: "), "{mistakes:?}");
        assert!(!path.exists());
        let taken = put(&config, ("own", RULE), 0).unwrap();
        assert!(matches!(taken, Put::Taken { .. }), "{taken:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), RULE);
        let second = put(&config, ("own", &RULE.replace("a test", "another")), 0).unwrap();
        assert!(matches!(second, Put::Taken { .. }), "{second:?}");
        assert!(matches!(put(&config, ("own", "nonsense"), 0).unwrap(), Put::Refused(_)));
        assert!(fs::read_to_string(&path).unwrap().contains("another"));
    }
}
