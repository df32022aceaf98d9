//! Counters of what was taken, refused, dropped and delivered, in one registry: `/metrics` and `status` read the same.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::model::record::Class;
use crate::model::refusal::Refusal;
use crate::model::stamp::ClockTrust;

/// All counters. One instance a process, shared by reference counting.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    received: IntCounterVec,
    refused: IntCounterVec,
    dropped: IntCounterVec,
    stored: IntCounterVec,
    published: IntCounterVec,
    delivered: IntCounterVec,
    pending: IntGaugeVec,
    connections: IntCounterVec,
    answers: IntCounterVec,
    restarts: IntCounterVec,
    memory: IntGaugeVec,
    volatile: IntCounterVec,
    clock_trust: IntGaugeVec,
    clock_changes: IntCounterVec,
    forgotten: IntCounterVec,
    store: IntGaugeVec,
    classes: IntGaugeVec,
    polls: IntCounterVec,
    writes: IntCounterVec,
}

/// One counted thing with its labels' values, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    pub labels: Vec<String>,
    pub count: u64,
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help).namespace("gatehouse"), labels)
        .unwrap_or_else(|error| unreachable!("the metric {name} is well formed: {error}"));
    registry
        .register(Box::new(vec.clone()))
        .unwrap_or_else(|error| unreachable!("the metric {name} is registered once: {error}"));
    vec
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let vec = IntGaugeVec::new(Opts::new(name, help).namespace("gatehouse"), labels)
        .unwrap_or_else(|error| unreachable!("the metric {name} is well formed: {error}"));
    registry
        .register(Box::new(vec.clone()))
        .unwrap_or_else(|error| unreachable!("the metric {name} is registered once: {error}"));
    vec
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            received: counter(r, "received_total", "Messages taken from devices", &["bus", "client"]),
            refused: counter(r, "refused_total", "Things from outside not taken", &["source", "reason"]),
            dropped: counter(r, "dropped_total", "Data dropped", &["what", "reason"]),
            stored: counter(r, "stored_total", "Records stored", &["class"]),
            published: counter(r, "published_total", "Publishes to platforms", &["uplink", "class"]),
            delivered: counter(r, "delivered_total", "Records a platform acknowledged", &["uplink", "class"]),
            pending: gauge(r, "pending_records", "Records not acknowledged yet", &["uplink", "class"]),
            connections: counter(r, "uplink_connections_total", "Connections made", &["uplink", "outcome"]),
            answers: counter(
                r,
                "uplink_refusals_total",
                "PUBACKs of platforms that were not plain success, by reason code",
                &["uplink", "code"],
            ),
            volatile: counter(
                r,
                "volatile_delivered_total",
                "Records that a platform acknowledged while they were in memory only",
                &["uplink"],
            ),
            memory: gauge(
                r,
                "journal_memory",
                "Whether the disk cannot be written (lost: 1), and the records kept in memory meanwhile (kept)",
                &["what"],
            ),
            restarts: counter(r, "unit_restarts_total", "Units restarted", &["unit"]),
            clock_trust: gauge(
                r,
                "clock_trust",
                "How far the clock is trusted: 0 none, 1 rtc, 2 platform, 3 ntp",
                &[],
            ),
            clock_changes: counter(r, "clock_changes_total", "Recorded changes of the clock", &["source"]),
            forgotten: counter(
                r,
                "forgotten_total",
                "Records thinned, dropped or expired, by this process",
                &["class", "cause"],
            ),
            store: gauge(
                r,
                "store",
                "The journal: reserve_bytes held, disk_free_bytes, disk_full, written_bytes since the start",
                &["what"],
            ),
            classes: gauge(
                r,
                "store_class",
                "The journal by class: records, bytes and budget_bytes",
                &["class", "what"],
            ),
            polls: counter(r, "modbus_polls_total", "Reads on a Modbus bus", &["bus", "outcome"]),
            writes: counter(r, "modbus_writes_total", "Writes on a Modbus bus", &["bus", "outcome"]),
            registry,
        }
    }

    /// A message of `client` on `bus` was taken.
    pub fn received(&self, bus: &str, client: &str) {
        self.received.with_label_values(&[bus, client]).inc();
    }

    /// Something from `source` (a bus, a client, an uplink) was refused.
    pub fn refused(&self, source: &str, reason: Refusal) {
        self.refused.with_label_values(&[source, reason.as_str()]).inc();
    }

    /// `count` data of kind `what` were dropped.
    pub fn dropped(&self, what: &str, reason: &str, count: u64) {
        self.dropped.with_label_values(&[what, reason]).inc_by(count);
    }

    /// A platform acknowledged `count` records that were in memory only.
    pub fn volatile(&self, uplink: &str, count: u64) {
        self.volatile.with_label_values(&[uplink]).inc_by(count);
    }

    /// Whether the journal's disk is lost, and how many records are in memory only.
    pub fn set_memory(&self, lost: bool, kept: u64) {
        self.memory.with_label_values(&["lost"]).set(i64::from(lost));
        self.memory.with_label_values(&["kept"]).set(i64::try_from(kept).unwrap_or(i64::MAX));
    }

    pub fn stored(&self, class: Class, count: u64) {
        self.stored.with_label_values(&[class.as_str()]).inc_by(count);
    }

    pub fn published(&self, uplink: &str, class: Class, count: u64) {
        self.published.with_label_values(&[uplink, class.as_str()]).inc_by(count);
    }

    pub fn delivered(&self, uplink: &str, class: Class, count: u64) {
        self.delivered.with_label_values(&[uplink, class.as_str()]).inc_by(count);
    }

    pub fn set_pending(&self, uplink: &str, class: Class, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.pending.with_label_values(&[uplink, class.as_str()]).set(count);
    }

    /// A connection attempt of an uplink ended as `outcome`: `connected`, `refused`, `lost`, `failed`.
    pub fn connection(&self, uplink: &str, outcome: &str) {
        self.connections.with_label_values(&[uplink, outcome]).inc();
    }

    /// A platform answered `count` publishes with this reason code instead of success.
    pub fn answered(&self, uplink: &str, code: u8, count: u64) {
        self.answers.with_label_values(&[uplink, &format!("0x{code:02x}")]).inc_by(count);
    }

    pub fn set_clock_trust(&self, trust: ClockTrust) {
        let level = match trust {
            ClockTrust::None => 0,
            ClockTrust::Rtc => 1,
            ClockTrust::Platform => 2,
            ClockTrust::Ntp => 3,
        };
        let none: [&str; 0] = [];
        self.clock_trust.with_label_values(&none).set(level);
    }

    /// The clock has changed, and is now taken from `source`.
    pub fn clock_changed(&self, source: &str) {
        self.clock_changes.with_label_values(&[source]).inc();
    }

    pub fn restarted(&self, unit: &str) {
        self.restarts.with_label_values(&[unit]).inc();
    }

    /// `count` records were forgotten for `cause`.
    pub fn forgotten(&self, class: Class, cause: &str, count: u64) {
        self.forgotten.with_label_values(&[class.as_str(), cause]).inc_by(count);
    }

    /// A figure of the journal as a whole.
    pub fn set_store(&self, what: &str, value: u64) {
        self.store.with_label_values(&[what]).set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A figure of one class in the journal.
    pub fn set_store_class(&self, class: Class, what: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.classes.with_label_values(&[class.as_str(), what]).set(value);
    }

    /// A read on a Modbus bus ended as `outcome`: `answered`, `exception`, `unreachable`, `timeout`, `fault`.
    pub fn polled(&self, bus: &str, outcome: &str) {
        self.polls.with_label_values(&[bus, outcome]).inc();
    }

    /// A write on a Modbus bus ended as `outcome`: `done`, `refused`, `unknown`.
    pub fn wrote(&self, bus: &str, outcome: &str) {
        self.writes.with_label_values(&[bus, outcome]).inc();
    }

    /// All refusals so far: labels are source and reason.
    pub fn refusals(&self) -> Vec<Count> {
        counts(&self.refused)
    }

    /// All drops so far: labels are what and reason.
    pub fn drops(&self) -> Vec<Count> {
        counts(&self.dropped)
    }

    /// Records delivered so far: labels are uplink and class.
    pub fn deliveries(&self) -> Vec<Count> {
        counts(&self.delivered)
    }

    /// The registry in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counts(vec: &IntCounterVec) -> Vec<Count> {
    use prometheus::core::Collector;
    let mut counts: Vec<Count> = vec
        .collect()
        .iter()
        .flat_map(|family| family.get_metric().to_vec())
        .map(|metric| Count {
            labels: metric.get_label().iter().map(|label| label.value().to_owned()).collect(),
            count: whole(metric.get_counter().value()),
        })
        .collect();
    counts.sort_by(|a, b| a.labels.cmp(&b.labels));
    counts
}

/// prometheus hands counters out as floats; ours are whole numbers below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and never negative")]
fn whole(count: f64) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_by_name() {
        let metrics = Metrics::new();
        metrics.refused("z2m", Refusal::NotJson);
        metrics.refused("z2m", Refusal::NotJson);
        metrics.refused("lan", Refusal::WrongPassword);
        let refusals = metrics.refusals();
        assert_eq!(refusals.len(), 2);
        assert!(
            refusals.iter().any(|c| c.labels.contains(&"not_json".to_owned()) && c.count == 2),
            "{refusals:?}"
        );
        assert!(metrics.render().contains("gatehouse_refused_total{reason=\"not_json\",source=\"z2m\"} 2"));
    }
}
