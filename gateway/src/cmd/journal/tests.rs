//! `gatehouse journal` over a journal that a writer has open.

use std::io::{self, Write};
use std::sync::Arc;

use clap::Parser;
use tempfile::TempDir;

use crate::model::record::{Draft, Severity};
use crate::rt::clock::{Clock, ManualClock, SharedClock};
use crate::store::testing::{clock, event, telemetry};
use crate::store::{Core, Synchronous};

use super::{Args, run};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn journal() -> (TempDir, Arc<ManualClock>, Core) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let (mut core, _) =
        Core::open(dir.path(), Synchronous::Full, shared, Box::new(crate::model::journal::NoFold)).unwrap();
    for n in 1..=6 {
        clock.advance_ms(1_000);
        let draft = match n {
            3 => telemetry(&clock, "t1", n),
            5 => event(&clock, "b2", n, Some(Severity::Critical)),
            _ => event(&clock, "b1", n, None),
        };
        core.append(vec![draft]).unwrap();
    }
    (dir, clock, core)
}

fn call(dir: &TempDir, words: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut line = vec!["journal".to_owned()];
    line.extend(words.split_whitespace().map(str::to_owned));
    line.extend(["--data-dir".to_owned(), dir.path().display().to_string()]);
    run(Line::try_parse_from(line)?.args, out)
}

fn text(dir: &TempDir, words: &str) -> String {
    let mut out = Vec::new();
    call(dir, words, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn export_writes_json_lines_in_the_order_of_recording() {
    let (dir, clock, core) = journal();
    let lines: Vec<serde_json::Value> =
        text(&dir, "export").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let positions: Vec<_> = lines.iter().map(|line| line["pos"].as_u64().unwrap()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    assert_eq!(lines[2]["class"], "telemetry");
    assert_eq!(lines[2]["id"], format!("{}-telemetry-1", core.heads().epoch()));
    assert_eq!(lines[2]["time"], "2026-06-01T00:00:03.000Z");
    assert_eq!(lines[2]["at"]["boot"], clock.now().boot.to_string());
    assert_eq!(lines[2]["at"]["mono_ms"], 4_000);
    assert_eq!(lines[2]["body"]["telemetry"]["samples"][0]["value"], 3);
}

#[test]
fn export_selects_by_class_device_and_time() {
    let (dir, _clock, _core) = journal();
    let check = |words: &str, expected: usize| {
        let found = text(&dir, &format!("export {words}")).lines().count();
        assert_eq!(found, expected, "{words}");
    };
    check("--class event", 5);
    check("--class telemetry --class alarm", 1);
    check("--device b2", 1);
    check("--device b1 --device t1", 5);
    check("--from 2026-06-01T00:00:02Z --until 2026-06-01T00:00:05Z", 3);
    check("--from 2026-06-01T08:00:02+08:00 --class event", 4);
    check("--until 2026-06-01", 0);
    check("--from 2026-06-01", 6);
    let wrong = call(&dir, "export --from yesterday", &mut Vec::new()).unwrap_err().to_string();
    assert!(wrong.contains("2026-11-22T08:00:00+08:00"), "{wrong}");
    assert!(call(&dir, "export --from 2026-06-02 --until 2026-06-01", &mut Vec::new()).is_err());
}

#[test]
fn export_writes_csv_to_a_new_file_only() {
    let (dir, _clock, _core) = journal();
    let file = dir.path().join("out.csv");
    let words = format!("export --format csv --output {}", file.display());
    assert_eq!(text(&dir, &words), "");
    let mut table = csv::Reader::from_path(&file).unwrap();
    assert_eq!(table.headers().unwrap().iter().collect::<Vec<_>>(), super::COLUMNS);
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    assert_eq!((&rows[4][11], &rows[4][12], &rows[4][15]), ("critical", "b2", "button.pressed"));
    let body: serde_json::Value = serde_json::from_str(&rows[4][16]).unwrap();
    assert_eq!(body["event"]["params"]["n"], 5);
    let again = format!("{:#}", call(&dir, &words, &mut Vec::new()).unwrap_err());
    assert!(again.contains("could not create"), "{again}");
}

#[test]
fn time_that_is_known_later_is_shown_beside_the_stamp() {
    use crate::model::clock::{ClockChange, ClockSource};
    use crate::model::stamp::ClockTrust;

    let (dir, clock, mut core) = journal();
    clock.set_trust(ClockTrust::None);
    clock.jump_wall_ms(-clock.now().wall_ms);
    core.append(vec![event(&clock, "b1", 7, None)]).unwrap();
    assert!(text(&dir, "tail -n 1").starts_with("1970-01-01T00:00:00.000Z?"));
    clock.jump_wall_ms(1_795_327_200_000);
    clock.set_trust(ClockTrust::Ntp);
    let change = ClockChange {
        at: clock.now(),
        source: ClockSource::Timesyncd,
        confirmed: true,
        before: None,
        jumped_ms: 0,
        withdrawn: false,
        uplink: None,
    };
    core.append(vec![change.draft()]).unwrap();
    let shown = text(&dir, "tail -n 2");
    assert!(shown.starts_with("2026-11-22T06:00:00.000Z~"), "{shown}");
    assert!(shown.lines().last().unwrap().starts_with("2026-11-22T06:00:00.000Z "), "{shown}");
    let lines: Vec<serde_json::Value> =
        text(&dir, "export").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[6]["time"], "1970-01-01T00:00:00.000Z", "the stamp stays");
    let derived = serde_json::json!({ "time": "2026-11-22T06:00:00.000Z", "trust": "ntp" });
    assert_eq!(lines[6]["derived"], derived);
    assert_eq!(lines[7].get("derived"), None);
    let table = text(&dir, "export --format csv");
    let mut table = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!((&rows[6][13], &rows[6][14]), ("2026-11-22T06:00:00.000Z", "ntp"));
    assert_eq!((&rows[7][13], &rows[7][14]), ("", ""));
}

#[test]
fn tail_shows_the_last_records_for_people() {
    let (dir, _clock, _core) = journal();
    let shown = text(&dir, "tail -n 2");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    for part in ["2026-06-01T00:00:05.000Z", "critical", "b2", "button.pressed n=5"] {
        assert!(lines[0].contains(part), "{part} is not in {shown}");
    }
}

/// A terminal that writes a record after each line it gets, and goes away after some.
struct Reader<'a> {
    core: &'a mut Core,
    clock: &'a ManualClock,
    lines: Vec<u8>,
    left: i64,
}

impl Write for Reader<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            self.left -= 1;
            let draft: Draft = event(self.clock, "later", self.left, None);
            self.core.append(vec![draft]).unwrap();
        }
        if self.left < 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn tail_follows_while_the_writer_writes_and_ends_with_its_reader() {
    let (dir, clock, mut core) = journal();
    let mut reader = Reader { core: &mut core, clock: &clock, lines: Vec::new(), left: 4 };
    call(&dir, "tail -n 1 --follow --format jsonl", &mut reader).unwrap();
    let shown = String::from_utf8(reader.lines).unwrap();
    let positions: Vec<u64> = shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["pos"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, [6, 7, 8, 9, 10]);
}

#[test]
fn the_configuration_tells_where_the_journal_is() {
    let (dir, _clock, _core) = journal();
    let config = dir.path().join("gatehouse.toml");
    let text = "[gateway]\nname = \"g\"\ncompound = \"c\"\ndata_dir = \".\"\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    for words in [["--config", config, "tail", "-n", "2"], ["tail", "-n", "2", "--config", config]] {
        let mut out = Vec::new();
        run(Line::try_parse_from([&["journal"], &words[..]].concat()).unwrap().args, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2, "{words:?}");
    }
    let both = ["journal", "tail", "--config", config, "--data-dir", "/x"];
    assert!(Line::try_parse_from(both).unwrap_err().to_string().contains("cannot be used with"));
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "[gateway]\n").unwrap();
    let words = ["journal", "tail", "-c", broken.to_str().unwrap()];
    let refused = run(Line::try_parse_from(words).unwrap().args, &mut Vec::new()).unwrap_err();
    assert!(refused.downcast_ref::<crate::config::Report>().is_some(), "{refused:#}");
}

#[test]
fn a_directory_without_a_journal_is_an_error_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    let error = call(&dir, "tail", &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("data_dir"), "{error}");
}
