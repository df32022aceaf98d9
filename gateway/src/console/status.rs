//! What the daemon says of itself, as data and as text for a terminal.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::clock::trust_name;
use crate::model::ids::GatewayName;
use crate::model::stamp::Stamp;
use crate::rt::board::{Board, Snapshot, UnitState};
use crate::rt::clock::SharedClock;
use crate::rt::metrics::{Count, Metrics};

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub gateway: GatewayName,
    pub now: Stamp,
    /// Milliseconds since the daemon started.
    pub uptime_ms: u64,
    /// Why the box is not well; empty when it is. A dead uplink is not ill health.
    pub ill: Vec<String>,
    pub board: Snapshot,
    /// Things from outside that were not taken: source and reason.
    pub refusals: Vec<Count>,
    /// Data that were dropped: what and reason.
    pub drops: Vec<Count>,
    /// Records that platforms acknowledged: uplink and class.
    pub deliveries: Vec<Count>,
}

/// Room for the longest thing said of when a device was heard.
const HEARD_COLUMNS: usize = "heard before the last boot".len();

/// Where the status comes from.
#[derive(Debug, Clone)]
pub struct Reporter {
    pub gateway: GatewayName,
    pub clock: SharedClock,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub started_mono_ms: u64,
}

impl Reporter {
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let board = self.board.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.gateway.clone(),
            uptime_ms: now.mono_ms.saturating_sub(self.started_mono_ms),
            now,
            ill: ills(&board),
            board,
            refusals: self.metrics.refusals(),
            drops: self.metrics.drops(),
            deliveries: self.metrics.deliveries(),
        }
    }
}

fn ills(board: &Snapshot) -> Vec<String> {
    let store = board.store.trouble.iter().map(|trouble| format!("journal: {trouble}"));
    let units = board.units.iter().filter_map(|(name, state)| match state {
        UnitState::BackingOff { error, .. } if !name.starts_with("uplink ") => {
            Some(format!("{name}: {error}"))
        }
        _ => None,
    });
    store.chain(units).collect()
}

fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..172_800 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d", s / 86_400),
    }
}

impl Status {
    /// The status for a person at a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        self.write(&mut out).unwrap_or_default();
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let well = if self.ill.is_empty() { "well 正常" } else { "ILL 异常" };
        writeln!(out, "gatehouse {} — {} — {well}, up {}", self.version, self.gateway, span(self.uptime_ms))?;
        for ill in &self.ill {
            writeln!(out, "  ! {ill}")?;
        }
        self.write_clock(out)?;
        self.write_store(out)?;
        self.write_buses(out)?;
        self.write_devices(out)?;
        self.write_uplinks(out)?;
        write_counts(out, "refused 拒绝", &self.refusals)?;
        write_counts(out, "dropped 丢弃", &self.drops)
    }

    fn write_clock(&self, out: &mut String) -> std::fmt::Result {
        let clock = &self.board.clock;
        let time = jiff::Timestamp::from_millisecond(self.now.wall_ms)
            .map_or_else(|_error| "?".to_owned(), |time| format!("{time:.0}"));
        let trust = clock.trust.unwrap_or(self.now.trust);
        write!(out, "\nclock 时钟  {time}  trust {}  source {}", trust_name(trust), clock.source.as_str())?;
        match clock.changed_mono_ms {
            Some(at_ms) => writeln!(out, "  changed {} ago", span(self.now.mono_ms.saturating_sub(at_ms))),
            None => writeln!(out),
        }
    }

    fn write_store(&self, out: &mut String) -> std::fmt::Result {
        let store = &self.board.store;
        write!(out, "\njournal 记录库  {} epoch {}", store.path, store.epoch)?;
        for (class, last) in &store.last {
            write!(out, "  {} {last}", class.as_str())?;
        }
        writeln!(out, "  {} KiB", store.bytes / 1_024)
    }

    fn write_buses(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nbuses 总线")?;
        for (name, bus) in &self.board.buses {
            let clients: Vec<&str> = bus.clients.iter().map(String::as_str).collect();
            let connected = if clients.is_empty() { "nobody".to_owned() } else { clients.join(", ") };
            writeln!(out, "  {name}  {}  {}  connected: {connected}", bus.kind, bus.at.join(", "))?;
        }
        Ok(())
    }

    fn write_devices(&self, out: &mut String) -> std::fmt::Result {
        let devices = &self.board.devices;
        let heard = devices.values().filter(|device| device.heard.is_some()).count();
        writeln!(out, "\ndevices 设备  {heard} of {} heard", devices.len())?;
        let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
        let ids = width(&mut devices.keys().map(|id| id.as_str().len()));
        let kinds = width(&mut devices.values().map(|device| device.kind.len()));
        for (id, device) in devices {
            let age = device.heard.as_ref().and_then(|heard| heard.age_ms(&self.now));
            let heard = match (&device.heard, age) {
                (None, _) => "not heard yet".to_owned(),
                (Some(_), Some(age)) => format!("heard {} ago", span(age)),
                (Some(_), None) => "heard before the last boot".to_owned(),
            };
            let (id, kind, messages) = (id.as_str(), &device.kind, device.messages);
            writeln!(out, "  {id:ids$}  {kind:kinds$}  {heard:HEARD_COLUMNS$}  {messages} messages")?;
            for warning in &device.warnings {
                writeln!(out, "    ! {warning}")?;
            }
        }
        Ok(())
    }

    fn write_uplinks(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nuplinks 上行平台")?;
        for (name, uplink) in &self.board.uplinks {
            let state = if uplink.connected { "connected" } else { "NOT CONNECTED" };
            // An uplink that never stood has no moment of its own: it is down since the start.
            let since = span(self.now.mono_ms.saturating_sub(uplink.since_mono_ms).min(self.uptime_ms));
            write!(out, "  {name}  {state} for {since}, connection {}", uplink.conn)?;
            for (class, pending) in &uplink.pending {
                write!(out, "  {} waiting {}", class.as_str(), pending.records)?;
                if pending.set_aside > 0 {
                    write!(out, " (set aside {})", pending.set_aside)?;
                }
            }
            writeln!(out)?;
            if let Some(trouble) = &uplink.trouble {
                writeln!(out, "    ! {trouble}")?;
            }
        }
        Ok(())
    }
}

fn write_counts(out: &mut String, title: &str, counts: &[Count]) -> std::fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    let labels: Vec<String> = counts.iter().map(|count| count.labels.join("  ")).collect();
    let width = labels.iter().map(String::len).max().unwrap_or_default();
    for (labels, count) in labels.iter().zip(counts) {
        writeln!(out, "  {labels:width$}  {}", count.count)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{BusName, DeviceId, UplinkName};
    use crate::model::refusal::Refusal;
    use crate::rt::board::{BusStatus, DeviceStatus, UplinkStatus};
    use crate::rt::clock::{Clock, ManualClock};

    #[test]
    fn the_text_stands_in_columns_and_tells_of_no_time_before_the_start() {
        let clock = Arc::new(ManualClock::new());
        clock.advance_ms(10_000_000);
        let started_mono_ms = clock.now().mono_ms;
        clock.advance_ms(5_000);
        let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
        board.update(|board| {
            board.uplinks.insert(UplinkName::new("p").unwrap(), UplinkStatus::default());
            let bus = BusStatus { kind: "broker".into(), at: Vec::new(), clients: [].into() };
            board.buses.insert(BusName::new("lan").unwrap(), bus);
            for (id, kind, heard) in [("sos-1-1-101", "button", Some(clock.now())), ("th", "sensor", None)] {
                let device = DeviceStatus { kind: kind.into(), heard, ..DeviceStatus::default() };
                board.devices.insert(DeviceId::new(id).unwrap(), device);
            }
        });
        metrics.refused("z2m", Refusal::NotJson);
        metrics.refused("z2m", Refusal::PayloadTooLarge);
        let gateway = GatewayName::new("g").unwrap();
        let clock = clock as SharedClock;
        let text = Reporter { gateway, clock, board, metrics, started_mono_ms }.status().text();
        for line in [
            "  lan  broker    connected: nobody",
            "clock 时钟  2026-06-01T02:46:45Z  trust rtc  source none",
            "  sos-1-1-101  button  heard 0 s ago               0 messages",
            "  th           sensor  not heard yet               0 messages",
            "  p  NOT CONNECTED for 5 s, connection 0",
            "  not_json  z2m           1",
            "  payload_too_large  z2m  1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line:?} is not in\n{text}");
        }
    }
}
