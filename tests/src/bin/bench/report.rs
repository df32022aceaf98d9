//! The table and the page: each bar with what was measured, the peer's figure in the same run, and whether it holds.

use std::fmt::Write as _;
use std::process::Command;

use gatehouse_tests::{gateway, mosquitto};

use crate::alarms::{self, Round};
use crate::counters;
use crate::field;
use crate::lines::{BRIDGE, DEVICES, PACING};
use crate::load::PAYLOAD_BYTES;
use crate::measures::{FAST, LIVE, Load, Outage, SLOW, Written};

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Findings {
    quick: bool,
    /// Of the machine before the run.
    load_average: String,
    /// Time of the cores so far: what the host took from this machine, and all.
    cores_before: counters::Cores,
    pub floor: Option<(f64, f64)>,
    pub ours: Vec<Load>,
    pub peer: Vec<Load>,
    pub ours_start_ms: Vec<f64>,
    pub peer_start_ms: Vec<f64>,
    pub ours_written: Option<Written>,
    pub peer_written: Option<Written>,
    /// [`field::UNITS`] at 100 ms.
    pub polls_per_s: Option<f64>,
    /// The same units at 1 s, some of them silent.
    pub polls_beside_silent_per_s: Option<f64>,
    pub alarms: Vec<Round>,
    pub ours_outage: Option<Outage>,
    pub peer_outage: Option<Outage>,
}

/// The middle and the ends of several figures.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    least: f64,
    middle: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let middle =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { least, middle, most })
    }

    fn show(self) -> String {
        let middle = figure(self.middle);
        if figure(self.least) == figure(self.most) {
            middle
        } else {
            format!("{middle} ({}–{})", figure(self.least), figure(self.most))
        }
    }
}

/// Three digits that matter.
fn figure(number: f64) -> String {
    let digits = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$}")
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Of the peer's figure in the same round.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Shown for orientation.
    None,
}

struct Row {
    what: String,
    unit: &'static str,
    bar: Bar,
    ours: Option<Spread>,
    peer: Option<Spread>,
    /// Of figures measured in the same round.
    ratio: Option<Spread>,
}

impl Row {
    fn new(what: &str, unit: &'static str, bar: Bar, ours: &[f64], peer: &[f64]) -> Self {
        let pairs = ours.iter().zip(peer).filter(|(_, peer)| **peer > 0.0);
        Self {
            what: what.to_owned(),
            unit,
            bar,
            ours: Spread::of(ours.iter().copied()),
            peer: Spread::of(peer.iter().copied()),
            ratio: Spread::of(pairs.map(|(ours, peer)| ours / peer)),
        }
    }

    fn verdict(&self) -> &'static str {
        let held = match self.bar {
            Bar::AtMost(bar) => self.ours.map(|ours| ours.middle <= bar),
            Bar::AtLeast(bar) => self.ours.map(|ours| ours.middle >= bar),
            Bar::RatioAtMost(bar) => self.ratio.map(|ratio| ratio.middle <= bar),
            Bar::RatioAtLeast(bar) => self.ratio.map(|ratio| ratio.middle >= bar),
            Bar::None => return "",
        };
        match held {
            Some(true) => "held",
            Some(false) => "**missed**",
            None => "not measured",
        }
    }

    fn bar(&self) -> String {
        match self.bar {
            Bar::AtMost(bar) => format!("≤ {bar}"),
            Bar::AtLeast(bar) => format!("≥ {bar}"),
            Bar::RatioAtMost(bar) => format!("≤ {bar} × peer"),
            Bar::RatioAtLeast(bar) => format!("≥ {bar} × peer"),
            Bar::None => "–".to_owned(),
        }
    }

    fn line(&self) -> String {
        let show = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), Spread::show);
        format!(
            "| {}{} | {} | {} | {} | {} | {} |\n",
            self.what,
            if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) },
            self.bar(),
            show(self.ours),
            show(self.peer),
            show(self.ratio),
            self.verdict()
        )
    }
}

impl Findings {
    pub fn new(quick: bool) -> Self {
        Self {
            quick,
            load_average: counters::load_average(),
            cores_before: counters::Cores::now(),
            ..Self::default()
        }
    }

    fn loads(&self, of: impl Fn(&Load) -> f64) -> (Vec<f64>, Vec<f64>) {
        (self.ours.iter().map(&of).collect(), self.peer.iter().map(&of).collect())
    }

    fn load_rows(&self) -> Vec<Row> {
        let row = |what: &str, unit, bar, of: fn(&Load) -> f64| {
            let (ours, peer) = self.loads(of);
            Row::new(what, unit, bar, &ours, &peer)
        };
        vec![
            row("most events without backlog", "1/s", Bar::RatioAtLeast(0.8), |load| load.events_per_s),
            row("latency at 500/s, p50", "ms", Bar::None, |load| load.p50_ms),
            row("latency at 500/s, p99", "ms", Bar::RatioAtMost(1.5), |load| load.p99_ms),
            row("CPU for 10 000 events at 500/s", "s", Bar::AtMost(1.5), |load| load.slow_cpu_s),
            row("CPU for 10 000 events at 16 000/s", "s", Bar::AtMost(0.5), |load| load.fast_cpu_s),
            row("resident memory, idle", "MB", Bar::AtMost(15.0), |load| load.idle_rss_mb),
            row("resident memory after the load", "MB", Bar::None, |load| load.busy_rss_mb),
        ]
    }

    fn outage_rows(&self) -> Vec<Row> {
        let row = |what: &str, unit, bar, of: fn(&Outage) -> f64| {
            let figures = |outage: &Option<Outage>| outage.iter().map(of).collect::<Vec<_>>();
            Row::new(what, unit, bar, &figures(&self.ours_outage), &figures(&self.peer_outage))
        };
        let waiting = |outage: &Option<Outage>| outage.map_or(0, |outage| outage.waiting);
        let memory = format!(
            "resident memory with records waiting ({}; peer {})",
            waiting(&self.ours_outage),
            waiting(&self.peer_outage)
        );
        vec![
            row(&memory, "MB", Bar::AtMost(40.0), |outage| outage.rss_mb),
            row("first record after the platform's return", "s", Bar::AtMost(5.0), |outage| outage.first_s),
            row("backlog drained", "1/s", Bar::AtLeast(10_000.0), |outage| outage.drained_per_s),
            row("latency of 500 live events/s meanwhile, p99", "ms", Bar::AtMost(100.0), |outage| {
                outage.live_p99_ms
            }),
        ]
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = self.load_rows();
        let process = |written: &Option<Written>| written.iter().map(|w| w.process_kib).collect::<Vec<_>>();
        let device =
            |written: &Option<Written>| written.iter().filter_map(|w| w.device_kib).collect::<Vec<_>>();
        rows.push(Row::new(
            "written for an event at 10/s, by the process",
            "KiB",
            Bar::AtMost(16.0),
            &process(&self.ours_written),
            &process(&self.peer_written),
        ));
        rows.push(Row::new(
            "the same at the device, the file system's journal and all else included",
            "KiB",
            Bar::None,
            &device(&self.ours_written),
            &device(&self.peer_written),
        ));
        rows.extend(self.outage_rows());
        rows.push(Row::new(
            "start to first acknowledged event",
            "ms",
            Bar::AtMost(300.0),
            &self.ours_start_ms,
            &self.peer_start_ms,
        ));
        let figures = |polls: Option<f64>| polls.into_iter().collect::<Vec<_>>();
        let polls = |what: &str, bar, polls| Row::new(what, "1/s", Bar::AtLeast(bar), &figures(polls), &[]);
        let units = field::UNITS;
        rows.push(polls(&format!("Modbus TCP polls, {units} units at 100 ms"), 990.0, self.polls_per_s));
        rows.push(polls(
            &format!("the same at 1 s, {} of them silent", field::SILENT.len()),
            95.0,
            self.polls_beside_silent_per_s,
        ));
        rows.extend(self.alarm_rows());
        rows
    }

    fn alarm_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let figures = |of: fn(&Round) -> f64| self.alarms.iter().map(of).collect::<Vec<_>>();
        if let Some(Round { few, many, .. }) = self.alarms.first() {
            let beside = format!("p99, {} points, {}/s beside it", alarms::POINTS, alarms::TRAFFIC);
            let bare = figures(|round| round.bare.puback_p99_ms);
            rows.push(Row::new(
                &format!("press to its PUBACK on the bare line, {beside}"),
                "ms",
                Bar::None,
                &bare,
                &[],
            ));
            rows.push(Row::new(
                &format!("press to the speaker's order beyond that, {} rules", many.rules),
                "ms",
                Bar::AtMost(10.0),
                &figures(|round| round.many.speaker_p99_ms - round.bare.puback_p99_ms),
                &[],
            ));
            rows.push(Row::new(
                &format!(
                    "CPU for 10 000 messages of values, {} rules; peer: {} rules",
                    many.rules, few.rules
                ),
                "s",
                Bar::RatioAtMost(3.0),
                &figures(|round| round.many.traffic_cpu_s),
                &figures(|round| round.few.traffic_cpu_s),
            ));
        }
        if let Some((seconds, outage)) =
            self.ours_outage.as_ref().and_then(|all| Some((all.rehearse_s?, all)))
        {
            let what = format!("rehearsal of {} records", outage.waiting);
            rows.push(Row::new(&what, "s", Bar::AtMost(60.0), &[seconds], &[]));
        }
        rows
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let head = "| measure | bar | gateway | bridge | ratio | |\n|---|---|---|---|---|---|\n".to_owned();
        let measured = self.rows().into_iter().filter(|row| row.ours.is_some());
        measured.fold(head, |text, row| text + &row.line())
    }

    /// docs/benchmarks.md.
    pub fn page(&self) -> String {
        let mut page = String::from(HEAD);
        write!(
            page,
            "\nMachine: {}; load average before the run {}; meanwhile its host took {} % of the cores' time for others (steal). \
             Versions: {}, {}. Rounds: {}{}. ",
            counters::machine(),
            self.load_average,
            figure(self.cores_before.stolen_since() * 100.0),
            gateway_version(),
            mosquitto_version(),
            self.ours.len(),
            if self.quick { ", quick" } else { "" },
        )
        .expect("text can be written");
        if let Some((p50, p99)) = self.floor {
            write!(
                page,
                "The harness alone, one broker between devices and far end: p50 {} ms, p99 {} ms.",
                figure(p50),
                figure(p99)
            )
            .expect("text can be written");
        }
        page.push_str("\n\n");
        page.push_str(&self.table());
        let about = ABOUT
            .replace("{devices}", &DEVICES.to_string())
            .replace("{bytes}", &PAYLOAD_BYTES.to_string())
            .replace("{slow}", &SLOW.to_string())
            .replace("{fast}", &FAST.to_string())
            .replace("{live}", &LIVE.to_string())
            .replace("{bridge}", BRIDGE.trim_end())
            .replace("{pacing}", PACING.trim_end());
        page.push_str(&about);
        page
    }
}

fn gateway_version() -> String {
    first_line(Command::new(gateway::program()).arg("--version"))
}

fn mosquitto_version() -> String {
    first_line(Command::new(mosquitto::program()).arg("-h"))
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

const HEAD: &str = include_str!("head.md");
const ABOUT: &str = include_str!("about.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_held_by_the_middle_of_the_rounds() {
        let row = |bar, ours: &[f64]| Row::new("x", "s", bar, ours, &[2.0, 2.0, 4.0]).verdict();
        assert_eq!(row(Bar::AtMost(2.0), &[1.0, 9.0, 2.0]), "held");
        assert_eq!(row(Bar::AtMost(1.9), &[1.0, 9.0, 2.0]), "**missed**");
        // Within each round: 0.5, 1 and 0.5 of the peer.
        assert_eq!(row(Bar::RatioAtLeast(0.8), &[1.0, 2.0, 2.0]), "**missed**");
        assert_eq!(row(Bar::RatioAtMost(0.5), &[1.0, 2.0, 2.0]), "held");
        assert_eq!(row(Bar::AtLeast(1.0), &[]), "not measured");
    }
}
