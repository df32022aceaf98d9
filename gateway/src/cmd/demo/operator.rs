//! The operator at the demo's platform: takes the alarm that was raised while the uplink was cut, by commands, and sees its
//! life.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// What the operator orders, one after the other, each when the one before is done.
const ORDERS: [(&str, &str); 3] = [
    ("alarm.acknowledge", "seen"),
    ("alarm.handle", "somebody had fallen, an ambulance is there"),
    ("alarm.close", "over"),
];

/// A command that was refused, because the box's disk was lost for example, is given again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// An alarm as the platform saw it: one line for each revision.
#[derive(Debug, Default)]
pub(super) struct Lives {
    alarms: BTreeMap<String, BTreeMap<u64, Value>>,
    /// Commands that have their last answer: whether it is done.
    answers: BTreeMap<String, bool>,
    /// How many orders are done.
    done: usize,
    /// The command that was given last, and when.
    given: Option<(String, Instant)>,
    commands: u32,
}

impl Lives {
    pub(super) fn take_alarm(&mut self, message: &Value) {
        let data = &message["data"];
        if let (Some(alarm), Some(rev)) = (data["alarm"].as_str(), data["rev"].as_u64()) {
            self.alarms.entry(alarm.to_owned()).or_default().insert(rev, message.clone());
        }
    }

    /// Notes the last answer to a command.
    pub(super) fn take_result(&mut self, message: &Value) {
        let data = &message["data"];
        if data["last"].as_bool() == Some(true)
            && let Some(id) = data["command_id"].as_str()
        {
            self.answers.insert(id.to_owned(), data["outcome"] == "done");
        }
    }

    /// The alarm that this device raised, if the platform knows it.
    pub(super) fn alarm_of(&self, device: &str) -> Option<&str> {
        let ours = |revs: &BTreeMap<u64, Value>| {
            revs.values().next().is_some_and(|message| message["data"]["device"]["id"] == device)
        };
        self.alarms.iter().find(|(_, revs)| ours(revs)).map(|(alarm, _)| alarm.as_str())
    }

    /// The next command about an alarm, when the one before is done; none when all is, or not yet.
    pub(super) fn next_order(&mut self, alarm: &str, now: Instant) -> Option<Value> {
        if let Some((id, at)) = &self.given {
            match self.answers.get(id) {
                Some(true) => self.done += 1,
                Some(false) if now.duration_since(*at) >= AGAIN_AFTER => {}
                Some(false) | None => return None,
            }
            self.given = None;
        }
        let (command, reason) = ORDERS.get(self.done)?;
        let last = self.alarms.get(alarm)?.values().next_back()?;
        let args = if *command == "alarm.handle" {
            json!({ "alarm": alarm, "result": "genuine", "note": reason })
        } else {
            json!({ "alarm": alarm })
        };
        self.commands += 1;
        let id = format!("demo-{}", self.commands);
        let order = json!({
            "id": id,
            "command": command,
            // The box's own clock: good also while its wall clock is not trusted.
            "issued": { "bootid": last["bootid"], "monotonic": last["monotonic"] },
            "lifetime_s": 300,
            "operator": "duty-1",
            "reason": reason,
            "args": args,
        });
        self.given = Some((id, now));
        Some(order)
    }

    /// Whether the alarm was acknowledged, handled and closed, as the platform saw it.
    pub(super) fn is_over(&self, alarm: &str) -> bool {
        let last = self.alarms.get(alarm).and_then(|revs| revs.values().next_back());
        last.is_some_and(|message| {
            message["data"]["open"] == false && message["data"]["handling"]["result"] == "genuine"
        })
    }

    /// The life of an alarm, a line for each revision.
    pub(super) fn life(&self, alarm: &str) -> Vec<String> {
        let revs = self.alarms.get(alarm).into_iter().flatten();
        revs.map(|(rev, message)| {
            let data = &message["data"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let mut line = format!(
                "  rev {rev}  {:<24} {:<14} by {:<28}",
                text(&data["state"]),
                text(&data["change"]["what"]),
                text(&data["change"]["actor"])
            );
            if message["replay"] == true {
                line.push_str(" sent late 补传");
            }
            if let Some(result) = data["handling"]["result"].as_str() {
                // Writing to a String cannot fail.
                write!(line, " result {result}").unwrap_or_default();
            }
            line
        })
        .collect()
    }
}
