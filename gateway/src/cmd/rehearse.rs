//! `gatehouse rehearse`: what rules would have raised over the box's own past, without acting, beside what was raised.
//! Reads the journal beside a running daemon, in one pass, and holds only the alarms in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::ConfigArg;
use super::journal::{moment, time};
use super::{line, until_unread};
use crate::config;
use crate::model::alarm::{Alarm, ChangeKind};
use crate::model::clock::Clocks;
use crate::model::ids::{DeviceId, RuleName, Seq};
use crate::model::record::{Body, Class, Record};
use crate::model::stamp::Stamp;
use crate::pipeline::Pipeline;
use crate::pipeline::rehearsal::{Rehearsal, is_input};
use crate::rt::board::ForgottenStatus;
use crate::store::{Read, Reader, Selection, StoreError, Walk};

/// How long before `--from` the rules begin to look, so that what they wait for is known at `--from`: the longest window
/// of care.
const WARM_UP_MS: i64 = 48 * 3_600_000;

/// Alarms that are listed one by one; all are counted.
const LISTED_MAX: usize = 10_000;
/// Of them, those that are shown at a terminal.
const SHOWN_MAX: usize = 40;

/// Stretches with missing records that are told; those beyond are joined to the last.
const STRETCHES_MAX: usize = 256;
/// Records between two holes that belong to one stretch: what was thinned is a row of small holes.
const STRETCH_RECORDS: Seq = 512;

/// Run rules over the box's own records, without acting: which alarms there would have been (规则演练).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of the journal, where it is not the configuration's: of a copy, or of a demo.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Files of rules that take the place of those of the same names, or are added; the configuration's own rules if not
    /// given.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// From this time on, as records are stamped: RFC 3339, or a date, which begins at midnight UTC.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<i64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<i64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is rehearsed: milliseconds since 1970, as records are stamped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

/// What a rehearsal came to.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Records that the rules were shown within the range.
    pub events: u64,
    pub telemetry: u64,
    /// Rows that could not be read.
    pub unreadable: u64,
    pub rules: BTreeMap<String, Tally>,
    /// Alarms that would have been raised, in their order; of a great many the first.
    pub raised: Vec<Raised>,
    /// Where records are missing: the rules could not see what was there.
    pub sparse: Vec<Sparse>,
    /// What was forgotten since the journal began.
    pub forgotten: Vec<ForgottenStatus>,
}

/// Alarms of a rule: how many it would have raised, and how many were raised. Tests are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub would: u64,
    pub really: u64,
}

/// An alarm that would have been raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// As well as it is known by now.
    pub time: Option<String>,
    pub rule: String,
    pub alarm: String,
    pub device: DeviceId,
}

/// A stretch of time with missing records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sparse {
    pub class: Class,
    /// None: from the journal's beginning on, or before anything that is kept.
    pub from: Option<String>,
    pub to: Option<String>,
    pub missing: u64,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        bail!("--to is not after --from: nothing lies between");
    }
    let loaded = config::load(&args.config.config)?;
    let rules = line::rules_with(&loaded, &args.rules)?;
    let dir = args.data_dir.clone().unwrap_or_else(|| loaded.settings.gateway.data_dir.clone());
    let reader = Reader::open(&dir)?;
    let (pipeline, _roll) = line::rehearsal(&loaded, rules);
    let outcome = rehearse(&reader, pipeline, Range { from_ms: args.from, to_ms: args.to })?;
    until_unread((|| {
        if args.json {
            serde_json::to_writer_pretty(&mut *out, &outcome)?;
            writeln!(out)?;
            return Ok(());
        }
        Ok(outcome.write(out)?)
    })())
}

/// Shows a pipeline the past, as far as it is kept.
pub fn rehearse(reader: &Reader, pipeline: Pipeline, range: Range) -> Result<Outcome, StoreError> {
    let selection = Selection {
        from_ms: range.from_ms.map(|from_ms| from_ms.saturating_sub(WARM_UP_MS)),
        until_ms: range.to_ms,
        ..Selection::default()
    };
    let (mut rehearsal, clocks) = (Rehearsal::new(pipeline), reader.clocks()?);
    let (mut outcome, mut holes) = (Outcome::default(), Holes::default());
    let mut walk = Walk::new(reader, selection)?;
    let mut counts = Vec::new();
    while let Some(read) = walk.next(reader)? {
        let record = match read {
            Read::Record(record) => record,
            Read::Unreadable { .. } => {
                outcome.unreadable = outcome.unreadable.saturating_add(1);
                continue;
            }
        };
        let within = range.has(&record.at);
        rehearsal.feed(&record, &mut |made| {
            if let Body::Alarm(alarm) = &made.body
                && is_raise(made, alarm)
                && range.has(&made.at)
            {
                counts.push((made.at.clone(), alarm.clone()));
            }
        });
        for (at, alarm) in counts.drain(..) {
            outcome.would(&at, &alarm, &clocks);
        }
        if within {
            outcome.saw(&record);
            holes.saw(&record);
        }
    }
    outcome.sparse = holes.told(reader, range, &clocks)?;
    outcome.forgotten = reader.forgotten()?;
    Ok(outcome)
}

/// Whether this record is where an alarm begins; what is a test calls nobody and is not counted.
fn is_raise(record: &Record, alarm: &Alarm) -> bool {
    let first = match &alarm.change {
        Some(change) => change.what == ChangeKind::Raised,
        None => alarm.rev <= 1,
    };
    first && !record.test
}

fn rule_of(alarm: &Alarm) -> String {
    alarm.rule.as_ref().map_or_else(|| "-".to_owned(), RuleName::to_string)
}

/// A time as well as it is known by now.
fn told(at: &Stamp, clocks: &Clocks) -> Option<String> {
    time(clocks.mend(at).as_ref().unwrap_or(at))
}

impl Range {
    fn has(&self, at: &Stamp) -> bool {
        self.from_ms.is_none_or(|from_ms| at.wall_ms >= from_ms)
            && self.to_ms.is_none_or(|to_ms| at.wall_ms < to_ms)
    }
}

impl Outcome {
    fn would(&mut self, at: &Stamp, alarm: &Alarm, clocks: &Clocks) {
        let rule = rule_of(alarm);
        let tally = self.rules.entry(rule.clone()).or_default();
        tally.would = tally.would.saturating_add(1);
        if self.raised.len() < LISTED_MAX {
            let (time, alarm_id) = (told(at, clocks), alarm.alarm.clone());
            self.raised.push(Raised { time, rule, alarm: alarm_id, device: alarm.raised.device.id.clone() });
        }
    }

    fn saw(&mut self, record: &Record) {
        match &record.body {
            Body::Alarm(alarm) if is_raise(record, alarm) => {
                let tally = self.rules.entry(rule_of(alarm)).or_default();
                tally.really = tally.really.saturating_add(1);
            }
            Body::Telemetry(_) => self.telemetry = self.telemetry.saturating_add(1),
            Body::Event(_) if is_input(record) => self.events = self.events.saturating_add(1),
            Body::Event(_) | Body::Alarm(_) | Body::Gap(_) => {}
        }
    }

    /// For a person at a terminal.
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "shown to the rules 演练记录: {} events, {} telemetry", self.events, self.telemetry)?;
        if self.unreadable > 0 {
            writeln!(out, "  ! {} rows could not be read 无法读取", self.unreadable)?;
        }
        let width = self.rules.keys().map(String::len).max().unwrap_or(0).max(9);
        writeln!(out, "\n{:width$}  {:>10}  {:>10}", "rule 规则", "would 演练", "really 实际")?;
        for (rule, tally) in &self.rules {
            writeln!(out, "{rule:width$}  {:>10}  {:>10}", tally.would, tally.really)?;
        }
        let sum = |of: fn(&Tally) -> u64| self.rules.values().map(of).sum::<u64>();
        let (would, really) = (sum(|tally| tally.would), sum(|tally| tally.really));
        writeln!(out, "{:width$}  {would:>10}  {really:>10}", "all 合计")?;
        if !self.raised.is_empty() {
            writeln!(out, "\nwould have been raised 演练产生的报警")?;
        }
        for raised in self.raised.iter().take(SHOWN_MAX) {
            let time = raised.time.as_deref().unwrap_or("?");
            writeln!(out, "  {time:24}  {:width$}  {}", raised.rule, raised.device)?;
        }
        if would > SHOWN_MAX as u64 {
            writeln!(out, "  … {would} in all; --json lists more")?;
        }
        self.write_sparse(out)
    }

    fn write_sparse(&self, out: &mut dyn Write) -> std::io::Result<()> {
        if !self.sparse.is_empty() {
            writeln!(out, "\nmissing records, where the rules saw less than there was 缺失记录")?;
        }
        for Sparse { class, from, to, missing } in &self.sparse {
            let end = |time: &Option<String>| time.clone().unwrap_or_else(|| "…".to_owned());
            writeln!(out, "  {:9}  {} – {}  {missing}", class.as_str(), end(from), end(to))?;
        }
        for ForgottenStatus { class, cause, records } in &self.forgotten {
            writeln!(out, "  since the journal began 累计: {} {cause}: {records}", class.as_str())?;
        }
        Ok(())
    }
}

/// Numbers that nothing was found at, by class.
#[derive(Debug, Default)]
struct Holes {
    last: BTreeMap<Class, (Seq, Stamp)>,
    first: BTreeMap<Class, (Seq, Stamp)>,
    stretches: Vec<Stretch>,
}

/// Records of a class that have holes between them.
#[derive(Debug, Clone)]
struct Stretch {
    class: Class,
    /// The last record before the first hole, and the first behind the last.
    from: (Seq, Stamp),
    to: (Seq, Stamp),
}

impl Holes {
    fn saw(&mut self, record: &Record) {
        let here = (record.seq, record.at.clone());
        self.first.entry(record.class).or_insert_with(|| here.clone());
        let Some(before) = self.last.insert(record.class, here.clone()) else { return };
        if record.seq <= before.0.saturating_add(1) {
            return;
        }
        let near = |stretch: &&mut Stretch| before.0.saturating_sub(stretch.to.0) <= STRETCH_RECORDS;
        let full = self.stretches.len() >= STRETCHES_MAX;
        let known = self.stretches.iter_mut().rev().find(|stretch| stretch.class == record.class);
        match known.filter(|stretch| full || near(stretch)) {
            Some(stretch) => stretch.to = here,
            None => self.stretches.push(Stretch { class: record.class, from: before, to: here }),
        }
    }

    /// What is really missing: rows that only lie outside the range of time are not.
    fn told(self, reader: &Reader, range: Range, clocks: &Clocks) -> Result<Vec<Sparse>, StoreError> {
        let mut sparse = Vec::new();
        let heads = reader.heads()?;
        for (class, (seq, at)) in &self.first {
            let head = heads.of(*class);
            if *seq == head.first
                && head.first > 1
                && range.from_ms.is_none_or(|from_ms| at.wall_ms > from_ms)
            {
                let missing = head.first.saturating_sub(1);
                sparse.push(Sparse { class: *class, from: None, to: told(at, clocks), missing });
            }
        }
        for Stretch { class, from, to } in self.stretches {
            let span = to.0.saturating_sub(from.0).saturating_sub(1);
            let kept = reader.count(class, from.0.saturating_add(1), to.0.saturating_sub(1))?;
            let missing = span.saturating_sub(kept);
            if missing > 0 {
                let (from, to) = (told(&from.1, clocks), told(&to.1, clocks));
                sparse.push(Sparse { class, from, to, missing });
            }
        }
        Ok(sparse)
    }
}
