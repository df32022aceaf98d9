//! `gatehouse journal`: shows and exports what is recorded, also while the daemon runs. Opens the journal read-only
//! and reads in short steps, so that the daemon notices nothing. Where the journal is stands in the configuration;
//! with `--data-dir` none is needed, as for a journal that was set aside.
//!
//! Time is shown in UTC with its trust beside it: as it was stamped, and where clock records say better, as it follows
//! from boot and monotonic time (marked `~` by `tail`, in columns of its own in an export). Stored stamps never change.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{ConfigArg, until_unread};
use crate::config;
use crate::model::clock::{Clocks, trust_name};
use crate::model::ids::DeviceId;
use crate::model::record::{Body, Class, Quality, Record};
use crate::model::stamp::{ClockTrust, Stamp};
use crate::store::{Read, Reader, Selection, Walk};

/// How often `tail --follow` looks for new records.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Records that `tail` shows at most before it follows: they are held in memory.
const TAIL_RECORDS_MAX: u64 = 100_000;

/// Show or export what is recorded, also while the gateway runs (查看记录).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: SourceArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where the journal is.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Directory of the journal, without looking at any configuration.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the last records, oldest first, and go on with --follow.
    Tail(TailArgs),
    /// Write records to a file or the terminal, in the order they were recorded.
    Export(ExportArgs),
}

/// Which records are wanted.
#[derive(Debug, clap::Args)]
pub struct SelectArgs {
    /// Only this class; may be given several times.
    #[arg(long, value_name = "CLASS", value_enum)]
    pub class: Vec<ClassArg>,
    /// Only this device; may be given several times. The gateway itself is `gateway`.
    #[arg(long, value_name = "ID", value_parser = device)]
    pub device: Vec<DeviceId>,
}

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    /// How many records to begin with.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(..=TAIL_RECORDS_MAX))]
    pub lines: u64,
    /// Wait for new records and show them, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// How records are shown.
    #[arg(long, value_enum, default_value_t = TailFormat::Text)]
    pub format: TailFormat,
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    /// From this time on: RFC 3339, or a date, which begins at midnight UTC.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<i64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,
    /// How records are written.
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub format: ExportFormat,
    /// File to write, which must not exist yet; the terminal if not given.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A class on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassArg {
    Alarm,
    Event,
    Telemetry,
}

impl From<ClassArg> for Class {
    fn from(arg: ClassArg) -> Self {
        match arg {
            ClassArg::Alarm => Self::Alarm,
            ClassArg::Event => Self::Event,
            ClassArg::Telemetry => Self::Telemetry,
        }
    }
}

/// How `tail` shows records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TailFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Jsonl,
}

/// How `export` writes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line.
    Jsonl,
    /// A table with a heading; the whole body stands in the last column as JSON.
    Csv,
}

fn device(text: &str) -> Result<DeviceId, String> {
    DeviceId::new(text).map_err(|error| error.to_string())
}

/// Milliseconds since 1970 UTC.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let midnight = text.parse::<jiff::civil::Date>().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC));
    midnight.map(|time| time.timestamp().as_millisecond()).map_err(|_neither| {
        "write a time like 2026-11-22T08:00:00+08:00, or a date like 2026-11-22".to_owned()
    })
}

/// Runs the subcommand; what it shows goes to `out`. Whoever reads `out` may stop reading at any time.
pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    until_unread(match args.verb {
        Verb::Tail(wanted) => tail(&args.source, &wanted, out),
        Verb::Export(wanted) => export(&args.source, &wanted, out),
    })
}

pub(super) fn open(source: &SourceArgs) -> anyhow::Result<Reader> {
    let dir = match &source.data_dir {
        Some(dir) => dir.clone(),
        None => config::load(&source.config.config)?.settings.gateway.data_dir,
    };
    Ok(Reader::open(&dir)?)
}

fn selection(args: &SelectArgs) -> Selection {
    Selection {
        classes: args.class.iter().copied().map(Class::from).collect(),
        devices: args.device.clone(),
        from_ms: None,
        until_ms: None,
    }
}

fn tail(source: &SourceArgs, args: &TailArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let reader = open(source)?;
    let lines = usize::try_from(args.lines).context("that many lines do not fit into memory")?;
    let mut walk = Walk::tail(&reader, selection(&args.select), lines)?;
    loop {
        let clocks = reader.clocks()?;
        while let Some(read) = walk.next(&reader)? {
            match args.format {
                TailFormat::Text => writeln!(out, "{}", text_line(&read, &clocks))?,
                TailFormat::Jsonl => json_line(out, &read, &clocks)?,
            }
        }
        out.flush()?;
        if !args.follow {
            return Ok(());
        }
        std::thread::park_timeout(FOLLOW_EVERY);
        walk.extend(&reader)?;
    }
}

fn export(source: &SourceArgs, args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if let (Some(from), Some(until)) = (args.from, args.until)
        && from >= until
    {
        bail!("--until is not after --from: nothing lies between");
    }
    let reader = open(source)?;
    let selection = Selection { from_ms: args.from, until_ms: args.until, ..selection(&args.select) };
    let walk = Walk::new(&reader, selection)?;
    match &args.output {
        None => write_all(args.format, walk, &reader, &mut BufWriter::new(out)),
        Some(path) => {
            let mut file = BufWriter::new(create(path)?);
            write_all(args.format, walk, &reader, &mut file)
                .with_context(|| format!("could not write {}", path.display()))?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all().with_context(|| format!("could not write {}", path.display()))
        }
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create_new(path).with_context(|| format!("could not create {}", path.display()))
}

fn write_all(
    format: ExportFormat,
    mut walk: Walk,
    reader: &Reader,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let clocks = reader.clocks()?;
    match format {
        ExportFormat::Jsonl => {
            while let Some(read) = walk.next(reader)? {
                json_line(out, &read, &clocks)?;
            }
        }
        ExportFormat::Csv => {
            let mut table = csv::Writer::from_writer(&mut *out);
            table.write_record(COLUMNS)?;
            while let Some(read) = walk.next(reader)? {
                table.write_record(cells(&read, &clocks)?)?;
            }
            table.flush()?;
        }
    }
    out.flush()?;
    Ok(())
}

/// One record as JSON; its body under the name of its kind, as it is stored.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Record {
        id: String,
        pos: u64,
        class: Class,
        seq: u64,
        time: Option<String>,
        /// Time and trust that follow from later clock records; absent where the stamp knows best.
        #[serde(skip_serializing_if = "Option::is_none")]
        derived: Option<Derived>,
        at: &'a Stamp,
        test: bool,
        body: &'a Body,
    },
    Unreadable {
        class: Class,
        seq: u64,
        unreadable: &'a str,
    },
}

/// Wall time that is known by now and was not when the record was stamped.
#[derive(Debug, Serialize)]
struct Derived {
    time: Option<String>,
    trust: ClockTrust,
}

fn json_line(out: &mut dyn Write, read: &Read, clocks: &Clocks) -> anyhow::Result<()> {
    let line = match read {
        Read::Record(record) => Line::Record {
            id: record.id(),
            pos: record.pos,
            class: record.class,
            seq: record.seq,
            time: time(&record.at),
            derived: clocks.mend(&record.at).map(|at| Derived { time: time(&at), trust: at.trust }),
            at: &record.at,
            test: record.test,
            body: &record.body,
        },
        Read::Unreadable { class, seq, error } => {
            Line::Unreadable { class: *class, seq: *seq, unreadable: error }
        }
    };
    let json = serde_json::to_string(&line)?;
    writeln!(out, "{json}")?;
    Ok(())
}

/// RFC 3339 in UTC; none for a number that is no time.
pub(super) fn time(at: &Stamp) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(at.wall_ms).ok()?;
    Some(format!("{time:.3}"))
}

const COLUMNS: [&str; 17] = [
    "pos",
    "id",
    "class",
    "seq",
    "time",
    "trust",
    "wall_ms",
    "boot",
    "mono_ms",
    "test",
    "category",
    "severity",
    "device",
    "derived_time",
    "derived_trust",
    "name",
    "body",
];

fn cells(read: &Read, clocks: &Clocks) -> anyhow::Result<[String; COLUMNS.len()]> {
    let record = match read {
        Read::Record(record) => record,
        Read::Unreadable { class, seq, error } => {
            let mut cells: [String; COLUMNS.len()] = Default::default();
            let [_, _, class_cell, seq_cell, .., name, body] = &mut cells;
            (*class_cell, *seq_cell) = (class.as_str().to_owned(), seq.to_string());
            (*name, *body) = ("unreadable".to_owned(), error.clone());
            return Ok(cells);
        }
    };
    let Record { pos, class, seq, at, test, body, .. } = record.as_ref();
    let device = body.device().map(|device| device.id.to_string());
    let mended = clocks.mend(at);
    Ok([
        pos.to_string(),
        record.id(),
        class.as_str().to_owned(),
        seq.to_string(),
        time(at).unwrap_or_default(),
        trust_name(at.trust).to_owned(),
        at.wall_ms.to_string(),
        at.boot.to_string(),
        at.mono_ms.to_string(),
        test.to_string(),
        body.category().map(|category| category.as_str().to_owned()).unwrap_or_default(),
        severity(body),
        device.unwrap_or_default(),
        mended.as_ref().and_then(time).unwrap_or_default(),
        mended.map(|at| trust_name(at.trust).to_owned()).unwrap_or_default(),
        name(body),
        serde_json::to_string(body)?,
    ])
}

fn severity(body: &Body) -> String {
    let severity = match body {
        Body::Alarm(alarm) => alarm.raised.severity,
        Body::Event(event) => event.severity,
        Body::Telemetry(_) | Body::Gap(_) => None,
    };
    severity.map(|severity| format!("{severity:?}").to_lowercase()).unwrap_or_default()
}

/// What happened, in a word.
fn name(body: &Body) -> String {
    match body {
        Body::Alarm(alarm) => alarm.raised.name.clone(),
        Body::Event(event) => event.name.clone(),
        Body::Telemetry(telemetry) => {
            let points: Vec<&str> = telemetry.samples.iter().map(|sample| sample.point.as_str()).collect();
            points.join(" ")
        }
        Body::Gap(_) => "gap".to_owned(),
    }
}

/// One line for people: time, class and number, severity, device, what.
///
/// Behind the time: `?` it is not known, `~` it follows from later clock records.
fn text_line(read: &Read, clocks: &Clocks) -> String {
    let record = match read {
        Read::Record(record) => record,
        Read::Unreadable { class, seq, error } => {
            return format!("{:24}  {} {seq}  unreadable: {error}", "?", class.as_str());
        }
    };
    let mended = clocks.mend(&record.at);
    let mark = match (&mended, record.at.trust) {
        (Some(_), _) => '~',
        (None, ClockTrust::None) => '?',
        (None, _) => ' ',
    };
    let time = time(mended.as_ref().unwrap_or(&record.at)).unwrap_or_else(|| "?".to_owned());
    let device = record.body.device().map_or("-", |device| device.id.as_str());
    let test = if record.test { " [test]" } else { "" };
    format!(
        "{time:24}{mark} {:9} {:>8}  {:8}  {device}{test}  {}",
        record.class.as_str(),
        record.seq,
        severity(&record.body),
        detail(&record.body)
    )
}

fn detail(body: &Body) -> String {
    match body {
        Body::Alarm(alarm) => format!("{} rev {} {:?}", alarm.raised.name, alarm.rev, alarm.state),
        Body::Event(event) => {
            let params: Vec<String> =
                event.params.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
            format!("{} {}", event.name, params.join(" ")).trim_end().to_owned()
        }
        Body::Telemetry(telemetry) => {
            let samples = telemetry.samples.iter().map(|sample| {
                let unit = sample.unit.as_deref().unwrap_or_default();
                let value = sample.value.as_ref().map_or_else(|| "-".to_owned(), plain);
                match sample.quality {
                    Quality::Good => format!("{}={value}{unit}", sample.point),
                    quality => format!("{}={value}{unit}({quality:?})", sample.point).to_lowercase(),
                }
            });
            samples.collect::<Vec<_>>().join(" ")
        }
        Body::Gap(gap) => {
            let whom = gap.uplink.as_ref().map_or("all uplinks", |uplink| uplink.as_str());
            format!("gap: {} {}..{} {:?} for {whom}", gap.class.as_str(), gap.from, gap.to, gap.reason)
        }
    }
}

/// A value on one line; control characters of a device's text do not reach the terminal.
fn plain(value: &crate::model::record::Value) -> String {
    use crate::model::record::Value;
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
