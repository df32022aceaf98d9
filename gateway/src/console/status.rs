//! What the daemon says of itself, as data and as text for a terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::reasons;
use crate::model::clock::trust_name;
use crate::model::ids::GatewayName;
use crate::model::roll::Roll;
use crate::model::stamp::{ClockTrust, Stamp};
use crate::rt::board::{Board, BusStatus, DeviceStatus, LineStatus, Snapshot, Standing, UnitState};
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
    /// How many alarms are open.
    #[serde(default)]
    pub alarms: usize,
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
    /// The open alarms.
    pub roll: Arc<Roll>,
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
            alarms: self.roll.len(),
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
        UnitState::BackingOff { error, .. }
            if !name.starts_with("uplink ") && !name.starts_with("notifier ") =>
        {
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

/// Mebibytes with one decimal.
fn mib(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB)
}

/// When a record was stamped, as far as its clock could be trusted.
fn told_time(at: &Stamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.wall_ms).ok();
    match time.filter(|_| at.trust > ClockTrust::None) {
        Some(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => "at a time not known 时间未知".to_owned(),
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
        if self.alarms > 0 {
            writeln!(out, "\nalarms 报警  {} open 未结束", self.alarms)?;
        }
        self.write_clock(out)?;
        self.write_store(out)?;
        self.write_buses(out)?;
        self.write_devices(out)?;
        self.write_uplinks(out)?;
        write_counts(out, "refused 拒绝", &self.refusals)?;
        write_counts(out, "dropped 丢弃", &self.drops)?;
        self.write_meanings(out)
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
        writeln!(out, "  {} KiB", store.bytes / 1_024)?;
        let memory = &store.memory;
        if let Some(since) = memory.lost_since_mono_ms {
            let since = span(self.now.mono_ms.saturating_sub(since));
            writeln!(
                out,
                "    ! DISK LOST 磁盘不可写 for {since}: {} records in memory only, platforms took {}",
                memory.kept, memory.told
            )?;
        } else if memory.losses > 0 {
            let last = span(memory.last_lost_ms.unwrap_or(0));
            writeln!(
                out,
                "    disk lost {} times 磁盘曾失效, the last time for {last}: {} records stored late, platforms took {} before",
                memory.losses, memory.stored, memory.told
            )?;
        }
        for (class, count) in &memory.dropped {
            writeln!(out, "    ! {} dropped {count}: memory was full 内存已满", class.as_str())?;
        }
        for (class, status) in &store.classes {
            let (class, records, used) = (class.as_str(), status.records, mib(status.bytes));
            write!(out, "  {class:9}  {records} records  {used}")?;
            if let Some(budget) = status.budget_bytes {
                write!(out, " of {}", mib(budget))?;
            }
            match status.oldest.as_ref().map(told_time) {
                Some(time) => writeln!(out, "  oldest 最早 {time}")?,
                None => writeln!(out)?,
            }
        }
        for forgotten in &store.forgotten {
            let (class, cause) = (forgotten.class.as_str(), &forgotten.cause);
            writeln!(out, "  forgotten 已遗忘  {class} {cause}  {}", forgotten.records)?;
        }
        if store.reserve.bytes > 0 {
            let held = if store.reserve.held { "held 就绪" } else { "NOT HELD 已释放" };
            writeln!(out, "  reserve 预留空间  {}  {held}", mib(store.reserve.bytes))?;
        }
        match &store.written {
            Some(written) if written.records > 0 && written.bytes > 0 => {
                let each = written.bytes / written.records;
                let all = mib(written.bytes);
                writeln!(out, "  written 写入  {all} since the start, {each} bytes a record")
            }
            _ => Ok(()),
        }
    }

    fn write_buses(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nbuses 总线")?;
        for (name, bus) in &self.board.buses {
            if let Some(line) = &bus.line {
                write_line(out, name.as_str(), bus, line)?;
                continue;
            }
            let clients: Vec<&str> = bus.clients.iter().map(String::as_str).collect();
            let connected = if clients.is_empty() { "nobody".to_owned() } else { clients.join(", ") };
            writeln!(out, "  {name}  {}  {}  connected: {connected}", bus.kind, bus.at.join(", "))?;
            if let Some(trouble) = &bus.trouble {
                writeln!(out, "    ! {trouble}")?;
            }
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
            write!(out, "  {id:ids$}  {kind:kinds$}  {heard:HEARD_COLUMNS$}  {messages} messages")?;
            if let Some(standing) = self.standing(device) {
                write!(out, "  {standing}")?;
            }
            match &device.trouble {
                Some(trouble) => writeln!(out, "  last try 上次失败: {trouble}")?,
                None => writeln!(out)?,
            }
            for warning in &device.warnings {
                writeln!(out, "    ! {warning}")?;
            }
        }
        Ok(())
    }

    /// Where it is more than that the device was heard or not.
    fn standing(&self, device: &DeviceStatus) -> Option<String> {
        let word = match device.standing {
            Standing::Unheard => return None,
            Standing::Fresh => "fresh 正常",
            Standing::Stale => "STALE 数据过期",
            Standing::Offline => "OFFLINE 离线",
        };
        Some(format!("{word} for {}", span(self.now.mono_ms.saturating_sub(device.since_mono_ms))))
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
        self.write_notifiers(out)
    }

    fn write_notifiers(&self, out: &mut String) -> std::fmt::Result {
        if !self.board.notifiers.is_empty() {
            writeln!(out, "\nnotifiers 通知")?;
        }
        for (name, notifier) in &self.board.notifiers {
            write!(out, "  {name}  told {}  waiting {}", notifier.delivered, notifier.waiting)?;
            if notifier.refused > 0 {
                write!(out, "  refused {}", notifier.refused)?;
            }
            writeln!(out)?;
            if let Some(trouble) = &notifier.trouble {
                writeln!(out, "    ! {trouble}")?;
            }
        }
        Ok(())
    }
}

/// A line that is polled.
fn write_line(out: &mut String, name: &str, bus: &BusStatus, line: &LineStatus) -> std::fmt::Result {
    let LineStatus { units, units_failing, polls, timeouts, faults } = line;
    write!(out, "  {name}  {}  {}  {units} units", bus.kind, bus.at.join(", "))?;
    if *units_failing > 0 {
        write!(out, ", {units_failing} do not answer")?;
    }
    writeln!(out, "  {polls} polls, {timeouts} without answer, {faults} faulty")?;
    match &bus.trouble {
        Some(trouble) => writeln!(out, "    ! {trouble}"),
        None => Ok(()),
    }
}

impl Status {
    /// What the reasons above mean, each once.
    fn write_meanings(&self, out: &mut String) -> std::fmt::Result {
        let counts = self.refusals.iter().chain(&self.drops);
        let named: BTreeSet<&str> = counts.flat_map(|count| &count.labels).map(String::as_str).collect();
        let known = named.into_iter().filter_map(|name| Some((name, reasons::meaning(name)?)));
        for (index, (name, (zh, en))) in known.enumerate() {
            if index == 0 {
                writeln!(out, "\nreasons 原因")?;
            }
            writeln!(out, "  {name}\n    {zh}\n    {en}")?;
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
    use crate::rt::board::UplinkStatus;
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
            let bus = BusStatus { kind: "broker".into(), ..BusStatus::default() };
            board.buses.insert(BusName::new("lan").unwrap(), bus);
            let bus = BusStatus { trouble: Some("away".into()), ..BusStatus::default() };
            board.buses.insert(BusName::new("z2m").unwrap(), bus);
            let line = LineStatus { units: 3, units_failing: 1, polls: 70, timeouts: 2, faults: 1 };
            let bus = BusStatus {
                kind: "modbus".into(),
                at: vec!["/dev/x".into()],
                line: Some(line),
                trouble: Some("cannot open /dev/x".into()),
                ..BusStatus::default()
            };
            board.buses.insert(BusName::new("field").unwrap(), bus);
            let since_mono_ms = clock.now().mono_ms - 3_000;
            for (id, kind, heard, standing) in [
                ("sos-1-1-101", "button", Some(clock.now()), Standing::Fresh),
                ("th", "sensor", None, Standing::Unheard),
                ("door", "contact", Some(clock.now()), Standing::Offline),
            ] {
                let kind = kind.to_owned();
                let trouble = (standing == Standing::Offline).then(|| "no_reply".to_owned());
                let device =
                    DeviceStatus { kind, heard, standing, since_mono_ms, trouble, ..DeviceStatus::default() };
                board.devices.insert(DeviceId::new(id).unwrap(), device);
            }
        });
        metrics.refused("z2m", Refusal::NotJson);
        metrics.refused("z2m", Refusal::PayloadTooLarge);
        let gateway = GatewayName::new("g").unwrap();
        let clock = clock as SharedClock;
        let text = Reporter { gateway, clock, board, metrics, roll: Arc::default(), started_mono_ms }
            .status()
            .text();
        for line in [
            "  lan  broker    connected: nobody",
            "clock 时钟  2026-06-01T02:46:45Z  trust rtc  source none",
            "  field  modbus  /dev/x  3 units, 1 do not answer  70 polls, 2 without answer, 1 faulty",
            "    ! cannot open /dev/x",
            "    ! away",
            "  sos-1-1-101  button   heard 0 s ago               0 messages  fresh 正常 for 3 s",
            "  th           sensor   not heard yet               0 messages",
            "  door         contact  heard 0 s ago               0 messages  OFFLINE 离线 for 3 s  last try 上次失败: no_reply",
            "  p  NOT CONNECTED for 5 s, connection 0",
            "  not_json  z2m           1",
            "  payload_too_large  z2m  1",
            "    内容不是 JSON；检查设备的消息格式。",
            "    The payload is not JSON: check the device's format.",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_lost_disk_is_shown_while_it_is_lost_and_afterwards() {
        let (board, metrics) = (Arc::new(Board::new()), Arc::new(Metrics::new()));
        let clock = Arc::new(ManualClock::new());
        let reporter = Reporter {
            gateway: GatewayName::new("g").unwrap(),
            clock: Arc::clone(&clock) as SharedClock,
            board: Arc::clone(&board),
            metrics,
            roll: Arc::default(),
            started_mono_ms: 0,
        };
        board.update(|board| {
            let memory = &mut board.store.memory;
            (memory.lost_since_mono_ms, memory.losses, memory.kept, memory.told) = (Some(1_000), 1, 7, 2);
            board.store.trouble = Some("disk full".to_owned());
        });
        clock.advance_ms(125_000);
        let status = reporter.status();
        assert_eq!(status.ill, ["journal: disk full"]);
        let lost = "DISK LOST 磁盘不可写 for 2 min: 7 records in memory only, platforms took 2";
        assert!(status.text().contains(lost), "{}", status.text());
        board.update(|board| {
            let memory = &mut board.store.memory;
            (memory.lost_since_mono_ms, memory.stored, memory.last_lost_ms) = (None, 7, Some(125_000));
            memory.dropped.insert(crate::model::record::Class::Telemetry, 3);
            board.store.trouble = None;
        });
        let text = reporter.status().text();
        assert!(text.contains("disk lost 1 times") && text.contains("7 records stored late"), "{text}");
        assert!(text.contains("telemetry dropped 3: memory was full"), "{text}");
    }
}
