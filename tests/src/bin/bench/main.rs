//! `make bench`: the gateway and a mosquitto with a bridge side by side, in one run, in alternating rounds, on this
//! machine's loopback. Prints a table and writes docs/benchmarks.md.
//!
//! Everything runs on the same cores: devices, the line, the platform's broker and the far end. Nothing is pinned. So
//! ratios within a run mean something, milliseconds only beside the harness's own floor, which is measured too.

mod alarms;
mod counters;
mod field;
mod lines;
mod load;
mod measures;
mod report;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use gatehouse_tests::gateway;

use lines::Contender;
use measures::Spans;
use report::Findings;

const USAGE: &str =
    "usage: bench [--quick] [--rounds N] [--only load,trickle,outage,start,modbus,alarms] [--against PROGRAM] [--dry]

--quick     a minute or two instead of ten, and one round
--rounds    rounds of the measures under load, 3 if not given
--only      these parts alone; implies --dry
--against   another gateway program in the place of the mosquitto bridge; implies --dry
--dry       writes no page";

/// Rounds of the alarms: the p99 of 200 presses is the second worst of them, so that one pause of the machine makes it.
const ALARM_ROUNDS: usize = 5;

/// What was asked for.
#[derive(Debug)]
struct Args {
    quick: bool,
    rounds: usize,
    only: Option<Vec<String>>,
    against: Option<PathBuf>,
    dry: bool,
}

impl Args {
    fn read() -> Result<Self, String> {
        let mut args = Self { quick: false, rounds: 0, only: None, against: None, dry: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => args.quick = true,
                "--dry" => args.dry = true,
                "--rounds" => {
                    args.rounds = value()?.parse().map_err(|_bad| "--rounds needs a number".to_owned())?;
                }
                "--only" => args.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--against" => args.against = Some(value()?.into()),
                _ => return Err(format!("{word:?} is unknown\n{USAGE}")),
            }
        }
        if args.rounds == 0 {
            args.rounds = if args.quick { 1 } else { 3 };
        }
        args.dry |= args.only.is_some() || args.against.is_some();
        Ok(args)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == part))
    }

    fn spans(&self) -> Spans {
        let seconds = Duration::from_secs;
        if self.quick {
            Spans {
                slow: seconds(5),
                fast: seconds(2),
                ramp_step: seconds(1),
                trickle: seconds(8),
                outage_events: 100_000,
                peer_outage_events: 20_000,
            }
        } else {
            Spans {
                slow: seconds(10),
                fast: seconds(3),
                ramp_step: seconds(2),
                trickle: seconds(20),
                outage_events: 1_000_000,
                peer_outage_events: 100_000,
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::read().unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        std::process::exit(2);
    });
    let ours = Contender::Gateway(gateway::program());
    let peer = args.against.clone().map_or(Contender::Bridge, Contender::Gateway);
    let spans = args.spans();
    let mut found = Findings::new(args.quick);
    if args.wants("load") {
        eprintln!("bench: the harness alone");
        found.floor = Some(measures::floor(spans.slow).await);
        for round in 0..args.rounds {
            // Whoever comes second finds a warmer machine: they take turns.
            let first_is_ours = round % 2 == 0;
            for is_ours in [first_is_ours, !first_is_ours] {
                let (contender, loads) =
                    if is_ours { (&ours, &mut found.ours) } else { (&peer, &mut found.peer) };
                let load = measures::under_load(contender, spans).await;
                eprintln!("bench: round {} of {}, {}: {load:.2?}", round + 1, args.rounds, name(contender));
                loads.push(load);
            }
        }
    }
    if args.wants("start") {
        for _ in 0..if args.quick { 3 } else { 10 } {
            found.ours_start_ms.push(measures::start_ms(&ours).await);
            found.peer_start_ms.push(measures::start_ms(&peer).await);
        }
        eprintln!("bench: start in ms: {:.0?}, peer {:.0?}", found.ours_start_ms, found.peer_start_ms);
    }
    if args.wants("modbus") {
        found.polls_per_s = Some(field::polls_per_s(100, &[], spans.trickle).await);
        found.polls_beside_silent_per_s =
            Some(field::polls_per_s(1_000, &field::SILENT, spans.trickle).await);
        eprintln!(
            "bench: Modbus polls/s: {:.1?}, {:.1?}",
            found.polls_per_s, found.polls_beside_silent_per_s
        );
    }
    if args.wants("alarms") {
        for number in 0..if args.quick { 1 } else { ALARM_ROUNDS } {
            let round = alarms::round(number).await;
            eprintln!("bench: {round:.2?}");
            found.alarms.push(round);
        }
    }
    if args.wants("trickle") {
        for (contender, written) in [(&ours, &mut found.ours_written), (&peer, &mut found.peer_written)] {
            *written = Some(measures::trickle(contender, spans.trickle).await);
            eprintln!("bench: {}: {written:.1?}", name(contender));
        }
    }
    if args.wants("outage") {
        let peer_events = match peer {
            Contender::Gateway(_) => spans.outage_events,
            Contender::Bridge => spans.peer_outage_events,
        };
        for (contender, events, outage) in [
            (&ours, spans.outage_events, &mut found.ours_outage),
            (&peer, peer_events, &mut found.peer_outage),
        ] {
            *outage = Some(measures::outage(contender, events).await);
            eprintln!("bench: {}: {outage:.2?}", name(contender));
        }
    }
    println!("{}", found.table());
    if !args.dry {
        let path = gateway::root().join("docs/benchmarks.md");
        std::fs::write(&path, found.page()).expect("the page can be written");
        eprintln!("bench: wrote {}", path.display());
    }
}

fn name(contender: &Contender) -> String {
    match contender {
        Contender::Gateway(program) => format!("gateway {}", program.display()),
        Contender::Bridge => "bridge".to_owned(),
    }
}
