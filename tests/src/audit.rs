//! What a careful platform checks over everything it got from one gateway: identities, order within each stream, and
//! the chain of previous numbers. Written from docs/platform alone, apart from the gateway's own types, so that a
//! mistake there cannot hide itself here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::platform::Message;

/// One record as it arrived once.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub id: String,
    pub class: String,
    pub epoch: String,
    pub seq: u64,
    /// The number before it; `None` within a telemetry message, where the message's order tells.
    pub previous: Option<u64>,
    pub replay: bool,
    /// Connection it came on, by the `state` messages before it.
    pub conn: u64,
    pub topic: String,
    pub content: Value,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub arrivals: Vec<Arrival>,
    /// Records that arrived more than once with the same content: allowed, counted.
    pub duplicates: u64,
    /// Messages about records that the gateway had in memory only.
    pub volatile: u64,
    /// One id with two contents: never allowed.
    pub conflicts: Vec<String>,
    /// A stream that went back.
    pub disorder: Vec<String>,
    /// Numbers that a later record names as previous, never received and covered by no gap record.
    pub holes: Vec<String>,
    /// Messages that do not look as promised.
    pub malformed: Vec<String>,
}

impl Report {
    /// Distinct records.
    pub fn ids(&self) -> BTreeSet<&str> {
        self.arrivals.iter().map(|arrival| arrival.id.as_str()).collect()
    }

    /// Panics unless nothing but duplicates was found.
    pub fn assert_clean(&self) {
        assert!(self.malformed.is_empty(), "malformed: {:#?}", self.malformed);
        assert!(self.conflicts.is_empty(), "one id, two contents: {:#?}", self.conflicts);
        assert!(self.disorder.is_empty(), "out of order: {:#?}", self.disorder);
        assert!(self.holes.is_empty(), "holes: {:#?}", self.holes);
    }
}

/// Whether a channel (the topic after `up/`) carries records.
fn bears_records(channel: &str) -> bool {
    let channel = channel.strip_prefix("test/").unwrap_or(channel);
    matches!(channel, "alarm" | "ledger" | "telemetry" | "history/telemetry") || channel.starts_with("event/")
}

fn digits(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    (text.len() == 16).then(|| text.parse().ok())?
}

/// Splits `epoch-class-seq`.
fn split_id(id: &str) -> Option<(&str, &str, u64)> {
    let (epoch, rest) = id.split_once('-')?;
    let (class, seq) = rest.rsplit_once('-')?;
    let seq = seq.parse().ok()?;
    (epoch.len() == 16).then_some((epoch, class, seq))
}

/// The envelope and the data, without what belongs to the sending only.
fn content(message: &Message) -> Value {
    let mut json = message.json.clone();
    if let Some(fields) = json.as_object_mut() {
        for sending in ["replay", "age", "previous"] {
            fields.remove(sending);
        }
    }
    json
}

fn single(message: &Message, conn: u64) -> Result<Arrival, String> {
    let id = message.text("id").to_owned();
    let (epoch, class, seq) = split_id(&id).ok_or_else(|| format!("id {id:?} on {}", message.topic))?;
    if digits(&message.json["sequence"]) != Some(seq) || message.json["epoch"] != epoch {
        return Err(format!("id {id} does not fit its sequence and epoch: {}", message.json));
    }
    let previous = digits(&message.json["previous"])
        .filter(|previous| *previous < seq)
        .ok_or_else(|| format!("previous of {id}: {}", message.json["previous"]))?;
    Ok(Arrival {
        id: id.clone(),
        class: class.to_owned(),
        epoch: epoch.to_owned(),
        seq,
        previous: Some(previous),
        replay: message.replay(),
        conn,
        topic: message.topic.clone(),
        content: content(message),
    })
}

fn batch(message: &Message, conn: u64) -> Result<Vec<Arrival>, String> {
    let records = message.json["data"]["records"]
        .as_array()
        .filter(|records| !records.is_empty())
        .ok_or_else(|| format!("telemetry without records: {}", message.json))?;
    let mut arrivals = Vec::new();
    for (index, entry) in records.iter().enumerate() {
        let id = entry["id"].as_str().unwrap_or_default();
        let (epoch, class, seq) = split_id(id).ok_or_else(|| format!("id of an entry: {entry}"))?;
        if digits(&entry["sequence"]) != Some(seq) {
            return Err(format!("entry {id} does not fit its sequence: {entry}"));
        }
        arrivals.push(Arrival {
            id: id.to_owned(),
            class: class.to_owned(),
            epoch: epoch.to_owned(),
            seq,
            previous: if index == 0 { digits(&message.json["previous"]) } else { None },
            replay: message.replay(),
            conn,
            topic: message.topic.clone(),
            content: entry.clone(),
        });
    }
    if digits(&message.json["sequence"]) != arrivals.last().map(|arrival| arrival.seq) {
        return Err(format!("a batch's sequence is not its last record's: {}", message.json));
    }
    Ok(arrivals)
}

/// Ranges that gap records cover, by class.
type Gaps = BTreeMap<String, Vec<(u64, u64)>>;

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn note_gap(gaps: &mut Gaps, message: &Message) {
    let data = &message.json["data"];
    if let (Some(class), Some(from), Some(to)) =
        (data["class"].as_str(), number(&data["from"]), number(&data["to"]))
    {
        gaps.entry(class.to_owned()).or_default().push((from, to));
    }
}

/// Checks everything that `messages` hold of the gateway `gateway`. Retained deliveries are state, not arrivals.
pub fn audit(messages: &[Message], gateway: &str) -> Report {
    let mut report = Report::default();
    let mut gaps = Gaps::new();
    let mut conn = 0;
    let own = format!("/v1/{gateway}/up/");
    for message in messages.iter().filter(|message| message.topic.contains(&own) && !message.retained) {
        if message.json["specversion"] != "1.0" || message.text("source") != format!("/gatehouse/{gateway}") {
            report.malformed.push(format!("{}: {}", message.topic, message.json));
            continue;
        }
        if message.channel() == "state" {
            conn = number(&message.json["data"]["conn"]).unwrap_or(conn);
        }
        if !bears_records(message.channel()) {
            continue;
        }
        if message.json["volatile"] == Value::Bool(true) {
            // Outside the numbering: only its identity can be wrong.
            match single(message, conn) {
                Ok(arrival) if arrival.previous == Some(0) && !arrival.replay => report.volatile += 1,
                Ok(arrival) => report.malformed.push(format!("volatile {}: {}", arrival.id, message.json)),
                Err(malformed) => report.malformed.push(malformed),
            }
            continue;
        }
        if message.channel().ends_with("ledger") {
            note_gap(&mut gaps, message);
        }
        let arrivals = if message.channel().ends_with("telemetry") {
            batch(message, conn)
        } else {
            single(message, conn).map(|arrival| vec![arrival])
        };
        match arrivals {
            Ok(arrivals) => report.arrivals.extend(arrivals),
            Err(text) => report.malformed.push(text),
        }
    }
    check_identities(&mut report);
    check_order(&mut report);
    check_chain(&mut report, &gaps);
    report
}

fn check_identities(report: &mut Report) {
    let mut first: BTreeMap<&str, &Value> = BTreeMap::new();
    for arrival in &report.arrivals {
        match first.get(arrival.id.as_str()) {
            None => {
                first.insert(&arrival.id, &arrival.content);
            }
            Some(known) if **known == arrival.content => report.duplicates += 1,
            Some(known) => {
                report.conflicts.push(format!("{}: {known} and {}", arrival.id, arrival.content));
            }
        }
    }
}

/// Within one connection each stream of each class only goes up.
fn check_order(report: &mut Report) {
    let mut last: BTreeMap<(u64, &str, &str, bool), u64> = BTreeMap::new();
    for arrival in &report.arrivals {
        let stream = (arrival.conn, arrival.epoch.as_str(), arrival.class.as_str(), arrival.replay);
        let before = last.insert(stream, arrival.seq);
        if before.is_some_and(|before| before >= arrival.seq) {
            report.disorder.push(format!("{stream:?}: {} after {before:?}", arrival.seq));
        }
    }
}

/// Every record that another names as the one before it must have come, or be covered by a gap record.
fn check_chain(report: &mut Report, gaps: &Gaps) {
    let mut held: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    for arrival in &report.arrivals {
        held.insert((&arrival.epoch, &arrival.class, arrival.seq));
    }
    let mut holes = BTreeSet::new();
    for arrival in &report.arrivals {
        let Some(previous) = arrival.previous.filter(|previous| *previous > 0) else { continue };
        let covered = gaps
            .get(&arrival.class)
            .is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&previous)));
        if !covered && !held.contains(&(arrival.epoch.as_str(), arrival.class.as_str(), previous)) {
            holes.insert(format!("{} {previous} before {}", arrival.class, arrival.id));
        }
    }
    report.holes = holes.into_iter().collect();
}

/// Holds that the topic of live values never shows an older record after a newer one (promise G3).
pub fn latest_value_never_goes_back(report: &Report) {
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for arrival in report.arrivals.iter().filter(|arrival| arrival.topic.ends_with("/up/telemetry")) {
        let newest = latest.entry(&arrival.epoch).or_default();
        assert!(arrival.seq >= *newest, "up/telemetry went back from {newest} to {}", arrival.id);
        *newest = arrival.seq;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    fn message(channel: &str, json: Value) -> Message {
        let payload = json.to_string().into_bytes();
        let topic = format!("gatehouse/v1/gw/up/{channel}");
        Message { at: Instant::now(), topic, retained: false, payload, json }
    }

    fn state(conn: u64) -> Message {
        message(
            "state",
            json!({ "specversion": "1.0", "source": "/gatehouse/gw", "id": "s", "data": { "conn": conn } }),
        )
    }

    fn event(seq: u64, previous: u64, replay: bool, word: &str) -> Message {
        let epoch = "00000000000000aa";
        message(
            "event/emergency",
            json!({
                "specversion": "1.0", "source": "/gatehouse/gw", "id": format!("{epoch}-event-{seq}"),
                "epoch": epoch, "sequence": format!("{seq:016}"), "previous": format!("{previous:016}"),
                "replay": replay, "data": { "name": word },
            }),
        )
    }

    #[test]
    fn a_good_run_is_clean() {
        let all = [
            state(1),
            event(1, 0, false, "a"),
            event(2, 1, false, "b"),
            state(2),
            event(4, 3, false, "d"),
            event(2, 1, true, "b"),
            event(3, 2, true, "c"),
        ];
        let report = audit(&all, "gw");
        report.assert_clean();
        assert_eq!((report.duplicates, report.ids().len()), (1, 4));
    }

    #[test]
    fn each_fault_is_seen() {
        let hole = audit(&[state(1), event(1, 0, false, "a"), event(3, 2, false, "c")], "gw");
        assert_eq!(hole.holes.len(), 1);
        let back = audit(&[state(1), event(2, 1, false, "b"), event(1, 0, false, "a")], "gw");
        assert_eq!(back.disorder.len(), 1);
        let two = audit(&[state(1), event(1, 0, false, "a"), state(2), event(1, 0, true, "b")], "gw");
        assert_eq!(two.conflicts.len(), 1);
        let mut wrong = event(1, 0, false, "a");
        wrong.json["sequence"] = json!("0000000000000002");
        assert_eq!(audit(&[wrong], "gw").malformed.len(), 1);
    }

    #[test]
    fn a_gap_record_covers_its_range() {
        let mut gap = event(4, 3, false, "gap");
        gap.topic = "gatehouse/v1/gw/up/ledger".to_owned();
        gap.json["data"] = json!({ "class": "event", "from": 2, "to": 2, "count": 1, "reason": "refused" });
        let all = [state(1), event(1, 0, false, "a"), event(3, 2, false, "c"), gap];
        audit(&all, "gw").assert_clean();
    }
}
