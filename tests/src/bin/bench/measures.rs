//! What is measured, each on lines of its own: figures under load, the ramp, bytes written, an outage, the start.

use std::time::Duration;

use gatehouse_tests::wire::{self, Packet, Publish, Version};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::counters::{cpu_s, device_written_bytes, rss_mb, written_bytes};
use crate::lines::{Contender, FLOOD_EVENTS, Line};
use crate::load::{self, Fleet, Run};
use crate::sink::{Seen, Sink};

/// Calm before the resident memory of an idle line is read.
const IDLE: Duration = Duration::from_secs(3);
/// The rates of the ramp, events a second; the last two steps halve the distance to the first that failed.
const RAMP: [f64; 12] = [
    4_000.0, 8_000.0, 12_000.0, 16_000.0, 20_000.0, 24_000.0, 28_000.0, 32_000.0, 36_000.0, 40_000.0,
    48_000.0, 56_000.0,
];
const HALVINGS: usize = 2;
/// After the last event of a step was due, this much may pass until nearly all have come.
const GRACE: Duration = Duration::from_millis(250);
/// The share of a step's events that may be under way after [`GRACE`]; more is a backlog.
const UNDERWAY_SHARE: f64 = 0.01;
/// Everything that was sent must come within this after a step.
const CATCH_UP: Duration = Duration::from_mins(1);

/// How long each part takes.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    pub slow: Duration,
    pub fast: Duration,
    pub ramp_step: Duration,
    pub trickle: Duration,
    pub outage_events: u64,
    pub peer_outage_events: u64,
}

/// One line under load.
#[derive(Debug, Clone, Default)]
pub struct Load {
    pub idle_rss_mb: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub slow_cpu_s: f64,
    pub fast_cpu_s: f64,
    pub busy_rss_mb: f64,
    pub events_per_s: f64,
}

/// Rates of the two measures of CPU.
pub const SLOW: f64 = 500.0;
pub const FAST: f64 = 16_000.0;
const PER_EVENTS: f64 = 10_000.0;

/// A fleet in front of a line, a sink behind it, and numbers for runs.
struct Rig {
    line: Line,
    fleet: Fleet,
    sink: Sink,
    next: u32,
}

impl Rig {
    async fn new(line: Line) -> Self {
        let sink = line.sink().await;
        let fleet = line.fleet().await;
        Self { line, fleet, sink, next: 1 }
    }

    /// One run; what came of it after `grace`, and the CPU seconds that the line used until then.
    async fn run(&mut self, rate: f64, span: Duration, grace: Duration) -> (Run, u64, f64) {
        let run = Run::new(self.next, rate, span);
        self.next += 1;
        self.sink.expect(run);
        let before_s = cpu_s(self.line.pid());
        self.fleet.offer(run).await;
        sleep_until(run.end() + grace).await;
        let came = self.sink.received(run.id);
        (run, came, cpu_s(self.line.pid()) - before_s)
    }

    /// Waits for the rest of a run.
    async fn rest(&mut self, run: Run) -> Seen {
        let end = Instant::now() + CATCH_UP;
        while self.sink.received(run.id) < run.count && Instant::now() < end {
            sleep(Duration::from_millis(10)).await;
        }
        self.fleet.settle().await;
        let seen = self.sink.take(run.id);
        assert_eq!(seen.count, run.count, "events were lost at {} a second", run.rate);
        seen
    }

    async fn whole(&mut self, rate: f64, span: Duration) -> (Seen, f64) {
        let (run, _, cpu) = self.run(rate, span, GRACE).await;
        (self.rest(run).await, cpu / run.count as f64 * PER_EVENTS)
    }

    /// The highest rate that leaves no backlog. A step that fails is tried once more.
    async fn ramp(&mut self, span: Duration) -> f64 {
        let (mut held, mut failed) = (0.0, None);
        for rate in RAMP {
            if self.holds(rate, span).await {
                held = rate;
            } else {
                failed = Some(rate);
                break;
            }
        }
        let Some(mut failed) = failed else { return held };
        for _ in 0..HALVINGS {
            let rate = f64::midpoint(held, failed);
            if self.holds(rate, span).await {
                held = rate;
            } else {
                failed = rate;
            }
        }
        held
    }

    async fn holds(&mut self, rate: f64, span: Duration) -> bool {
        for _ in 0..2 {
            let (run, came, _) = self.run(rate, span, GRACE).await;
            self.rest(run).await;
            if (run.count - came) as f64 <= run.count as f64 * UNDERWAY_SHARE {
                return true;
            }
        }
        false
    }
}

/// Memory, latency, CPU and the ramp of one line.
pub async fn under_load(contender: &Contender, spans: Spans) -> Load {
    let mut line = Line::start(contender).await;
    sleep(IDLE).await;
    let idle_rss_mb = rss_mb(line.pid());
    let mut rig = Rig::new(line).await;
    // Caches, connections and the first checkpoint are not what is measured.
    rig.whole(SLOW, Duration::from_secs(1)).await;
    let (slow, slow_cpu_s) = rig.whole(SLOW, spans.slow).await;
    let (_, fast_cpu_s) = rig.whole(FAST, spans.fast).await;
    let busy_rss_mb = rss_mb(rig.line.pid());
    let events_per_s = rig.ramp(spans.ramp_step).await;
    rig.line.stop().await;
    Load {
        idle_rss_mb,
        p50_ms: slow.quantile(0.5),
        p99_ms: slow.quantile(0.99),
        slow_cpu_s,
        fast_cpu_s,
        busy_rss_mb,
        events_per_s,
    }
}

/// The harness alone: devices and sink at one broker, nothing between them.
pub async fn floor(span: Duration) -> (f64, f64) {
    let broker = crate::lines::Broker::platform().await;
    let sink = Sink::start(broker.address).await;
    let mut fleet = Fleet::connect(broker.address, &Line::accounts()).await;
    let run = Run::new(1, SLOW, span);
    sink.expect(run);
    fleet.offer(run).await;
    fleet.settle().await;
    sleep(GRACE).await;
    let seen = sink.take(run.id);
    (seen.quantile(0.5), seen.quantile(0.99))
}

/// Bytes written for one event.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// By the process, as the kernel counts dirtied pages.
    pub process_kib: f64,
    /// To the whole device by everyone, less what was written in a calm stretch of the same length before; none where
    /// that stretch was not calm.
    pub device_kib: Option<f64>,
}

/// Ten events a second, as a compound on a usual day has.
pub async fn trickle(contender: &Contender, span: Duration) -> Written {
    const RATE: f64 = 10.0;
    let line = Line::start(contender).await;
    let mut rig = Rig::new(line).await;
    // The journal's log reaches its full length, as it has after some hours.
    rig.whole(2_000.0, Duration::from_secs(2)).await;
    sleep(Duration::from_secs(1)).await;
    let folder = rig.line.folder().to_owned();
    let device = || device_written_bytes(&folder);
    let calm_before = device();
    sleep(span).await;
    let calm = device().zip(calm_before).map(|(after, before)| after - before);
    let (pid, busy_before) = (rig.line.pid(), device());
    let before = written_bytes(pid);
    let (seen, _) = rig.whole(RATE, span).await;
    // Cursors are stored up to a second later.
    sleep(Duration::from_millis(1_500)).await;
    let process = written_bytes(pid) - before;
    let busy = device().zip(busy_before).map(|(after, before)| after - before);
    rig.line.stop().await;
    let kib = |bytes: f64| bytes / 1_024.0 / seen.count as f64;
    // Where others write as well, the difference says nothing.
    let alone = busy.zip(calm).filter(|(busy, calm)| *calm <= busy / 4.0);
    Written { process_kib: kib(process), device_kib: alone.map(|(busy, calm)| kib(busy - calm)) }
}

/// The platform goes away, records pile up, it comes back.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub waiting: u64,
    pub rss_mb: f64,
    pub first_s: f64,
    pub drained_per_s: f64,
    pub live_p99_ms: f64,
    /// Seconds of a rehearsal over all these records.
    pub rehearse_s: Option<f64>,
}

/// Live events a second while the backlog is drained.
pub const LIVE: f64 = 500.0;

pub async fn outage(contender: &Contender, events: u64) -> Outage {
    const BACKLOG: u32 = 9_000;
    let mut line = Line::start(contender).await;
    let mut fleet = line.fleet().await;
    sleep(Duration::from_secs(1)).await;
    line.platform.stop().await;
    let waiting = match contender {
        // One message makes many events, so that a million of them are there within a minute.
        Contender::Gateway(_) => {
            let messages = events.div_ceil(FLOOD_EVENTS);
            fleet
                .flood(messages, |topic| (topic.replace("button", "flood"), load::payload(BACKLOG, 0)))
                .await;
            messages.div_ceil(crate::lines::DEVICES as u64) * crate::lines::DEVICES as u64 * FLOOD_EVENTS
        }
        Contender::Bridge => {
            fleet.flood(events, |topic| (topic.to_owned(), load::payload(BACKLOG, 0))).await;
            events.div_ceil(crate::lines::DEVICES as u64) * crate::lines::DEVICES as u64
        }
    };
    fleet.settle().await;
    sleep(Duration::from_secs(2)).await;
    let rss_mb = rss_mb(line.pid());
    line.platform.run().await;
    let returned = Instant::now();
    let sink = line.sink().await;
    sink.count(BACKLOG);
    // Live load for as long as the backlog lasts, in stretches.
    let (mut live, mut next) = (Vec::new(), 1);
    while sink.received(BACKLOG) < waiting && returned.elapsed() < CATCH_UP * 3 {
        let run = Run::new(next, LIVE, Duration::from_secs(1));
        next += 1;
        sink.expect(run);
        // What is sent before the line is connected again is backlog itself.
        if sink.received(BACKLOG) > 0 {
            live.push(run);
        }
        fleet.offer(run).await;
    }
    sleep(Duration::from_secs(1)).await;
    let mut latencies_ms: Vec<f64> = live.iter().flat_map(|run| sink.take(run.id).latencies_ms).collect();
    latencies_ms.sort_by(f64::total_cmp);
    let backlog = sink.take(BACKLOG);
    assert!(backlog.count >= waiting, "{} of {waiting} came back", backlog.count);
    line.stop().await;
    let rehearse_s = match contender {
        Contender::Gateway(_) => Some(crate::alarms::rehearse_s(&line.folder().join("gatehouse.toml"))),
        Contender::Bridge => None,
    };
    let (first, last) = backlog.first.zip(backlog.last).expect("something came");
    let live = Seen { latencies_ms, ..backlog };
    Outage {
        waiting,
        rss_mb,
        first_s: (first - returned).as_secs_f64(),
        drained_per_s: waiting as f64 / (last - first).as_secs_f64().max(1e-9),
        live_p99_ms: live.quantile(0.99),
        rehearse_s,
    }
}

/// Milliseconds from starting the program to its first PUBACK.
pub async fn start_ms(contender: &Contender) -> f64 {
    let mut line = Line::prepare(contender).await;
    let account = Line::accounts().swap_remove(0);
    let began = Instant::now();
    line.spawn();
    let acknowledged = async {
        let mut stream = loop {
            match load::login(line.address(), &account).await {
                Ok(stream) => break stream,
                Err(_not_yet) => sleep(Duration::from_millis(2)).await,
            }
        };
        let publish = Publish::new(&account.topic, load::payload(1, 0), 1, 1);
        stream.write_all(&publish.encode(Version::V311)).await.expect("the line takes a publish");
        match wire::read(&mut stream, Version::V311).await {
            Ok(Some(Packet::PubAck { .. })) => began.elapsed(),
            other => panic!("no PUBACK but {other:?}"),
        }
    };
    let took = timeout(Duration::from_secs(20), acknowledged).await.expect("the line starts");
    line.stop().await;
    took.as_secs_f64() * 1_000.0
}
