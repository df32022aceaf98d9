//! Topics of the contract: `{root}/v1/{gateway}/up/…` and `{root}/v1/{gateway}/down/…`.
//!
//! What devices under walk test, drill or maintenance say goes below `up/test/…` only, so that a platform that knows
//! nothing of tests dispatches nobody.

use crate::model::ids::GatewayName;
use crate::model::record::Category;

/// The topics of one gateway at one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// First levels, without wildcards and without a slash at either end.
    pub root: String,
    pub gateway: GatewayName,
}

impl Topics {
    pub fn new(root: &str, gateway: &GatewayName) -> Self {
        Self { root: root.to_owned(), gateway: gateway.clone() }
    }

    fn up(&self, test: bool, rest: &str) -> String {
        let branch = if test { "up/test" } else { "up" };
        format!("{}/v1/{}/{branch}/{rest}", self.root, self.gateway)
    }

    fn down(&self, rest: &str) -> String {
        format!("{}/v1/{}/down/{rest}", self.root, self.gateway)
    }

    /// Retained, also the will's topic.
    pub fn state(&self) -> String {
        self.up(false, "state")
    }

    pub fn snapshot(&self, test: bool) -> String {
        self.up(test, "snapshot")
    }

    pub fn alarm(&self, test: bool) -> String {
        self.up(test, "alarm")
    }

    pub fn event(&self, test: bool, category: Category) -> String {
        self.up(test, &format!("event/{}", category.as_str()))
    }

    pub fn telemetry(&self, test: bool) -> String {
        self.up(test, "telemetry")
    }

    /// Values of the backlog, apart, so that a simple consumer's latest value never goes backwards.
    pub fn history_telemetry(&self, test: bool) -> String {
        self.up(test, "history/telemetry")
    }

    /// Gap records.
    pub fn ledger(&self, test: bool) -> String {
        self.up(test, "ledger")
    }

    pub fn command_result(&self) -> String {
        self.up(false, "command/result")
    }

    /// A picture or clip.
    pub fn evidence(&self, test: bool, id: &str) -> String {
        self.up(test, &format!("evidence/{id}"))
    }

    pub fn down_command(&self) -> String {
        self.down("command")
    }

    pub fn down_receipt(&self) -> String {
        self.down("receipt")
    }

    pub fn down_time(&self) -> String {
        self.down("time")
    }

    /// What the gateway subscribes to.
    pub fn down_filter(&self) -> String {
        self.down("#")
    }

    /// What a platform subscribes to for this gateway.
    pub fn up_filter(&self) -> String {
        self.up(false, "#")
    }
}

/// What an upward topic carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpKind {
    State,
    Snapshot,
    Alarm,
    /// The category as the topic has it.
    Event(String),
    Telemetry,
    HistoryTelemetry,
    Ledger,
    CommandResult,
    Evidence(String),
    /// Something that later versions added: ignored by those who do not know it.
    Unknown,
}

/// An upward topic taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpTopic {
    pub root: String,
    pub gateway: String,
    /// Whether it stands below `up/test/`.
    pub test: bool,
    pub kind: UpKind,
}

impl UpTopic {
    /// Takes an upward topic of this contract apart; none for any other topic.
    pub fn parse(topic: &str) -> Option<Self> {
        // The root may itself hold a level `v1`: the last occurrence that fits is the version.
        let (at, _) = topic.rmatch_indices("/v1/").find(|(at, _)| {
            let rest = topic.get(at.saturating_add(4)..).unwrap_or_default();
            rest.split('/').nth(1) == Some("up")
        })?;
        let root = topic.get(..at)?;
        let rest = topic.get(at.checked_add(4)?..)?;
        let (gateway, rest) = rest.split_once("/up/")?;
        if root.is_empty() || GatewayName::new(gateway).is_err() {
            return None;
        }
        let (test, rest) = rest.strip_prefix("test/").map_or((false, rest), |below| (true, below));
        let levels: Vec<&str> = rest.split('/').collect();
        let kind = match (levels.as_slice(), test) {
            (["state"], false) => UpKind::State,
            (["command", "result"], false) => UpKind::CommandResult,
            (["snapshot"], _) => UpKind::Snapshot,
            (["alarm"], _) => UpKind::Alarm,
            (["event", category], _) => UpKind::Event((*category).to_owned()),
            (["telemetry"], _) => UpKind::Telemetry,
            (["history", "telemetry"], _) => UpKind::HistoryTelemetry,
            (["ledger"], _) => UpKind::Ledger,
            (["evidence", id], _) => UpKind::Evidence((*id).to_owned()),
            _ => UpKind::Unknown,
        };
        Some(Self { root: root.to_owned(), gateway: gateway.to_owned(), test, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back_as_written() {
        let topics = Topics::new("city/district/v1/x", &GatewayName::new("box-1").unwrap());
        let cases = [
            (topics.state(), false, UpKind::State),
            (topics.snapshot(true), true, UpKind::Snapshot),
            (topics.alarm(false), false, UpKind::Alarm),
            (topics.event(true, Category::Fire), true, UpKind::Event("fire".to_owned())),
            (topics.telemetry(false), false, UpKind::Telemetry),
            (topics.history_telemetry(true), true, UpKind::HistoryTelemetry),
            (topics.ledger(false), false, UpKind::Ledger),
            (topics.command_result(), false, UpKind::CommandResult),
            (topics.evidence(false, "e1"), false, UpKind::Evidence("e1".to_owned())),
        ];
        for (topic, test, kind) in cases {
            let parsed = UpTopic::parse(&topic).unwrap();
            assert_eq!((parsed.test, &parsed.kind), (test, &kind), "{topic}");
            assert_eq!((parsed.root.as_str(), parsed.gateway.as_str()), ("city/district/v1/x", "box-1"));
        }
    }

    #[test]
    fn what_is_no_upward_topic_is_none() {
        for topic in
            ["", "a/v1/g/down/command", "a/v2/g/up/state", "/v1/g/up/state", "a/v1/G!/up/state", "v1"]
        {
            assert_eq!(UpTopic::parse(topic), None, "{topic:?}");
        }
        assert_eq!(UpTopic::parse("a/v1/g/up/later/thing").unwrap().kind, UpKind::Unknown);
    }
}
