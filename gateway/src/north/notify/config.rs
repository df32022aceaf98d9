//! `[notifiers.NAME.webhook]`: people who are told without a platform.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::CURSOR_PREFIX;
use super::post::host;
use crate::model::check::Problem;
use crate::model::ids::NotifierName;
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::record::{Category, Severity, Value};

/// What is posted to a robot of a chat group (群机器人), or to any server that takes JSON.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Who is there: its way of writing messages, of signing and of answering.
    pub kind: Kind,
    /// Where to post, `https://…`. Robots have their key in it: then use `url_file`.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: Option<String>,
    /// File with the URL, first line.
    pub url_file: Option<PathBuf>,
    /// File with the secret that messages are signed with, first line. DingTalk (加签) and Feishu (签名校验).
    pub secret_file: Option<PathBuf>,
    /// The server's certificate authority, PEM; the system's authorities if not given.
    pub ca_file: Option<PathBuf>,
    /// File with the message as a template (Jinja); the shipped one of its kind if not given. Needed for `own`.
    pub template_file: Option<PathBuf>,
    /// The language of messages.
    #[serde(default)]
    #[schemars(extend("default" = "zh"))]
    pub language: Language,
    /// Only alarms at least this grave.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// Only these categories; all if not given.
    pub categories: Option<Vec<Category>>,
    /// Only alarms in these buildings; all if not given. An alarm without a building is then not told.
    pub buildings: Option<Vec<String>>,
    /// Which changes of an alarm are told.
    #[serde(default = "default_tell")]
    #[schemars(length(min = 1, max = 8))]
    pub tell: Vec<Tell>,
    /// Whether alarms of tests, drills and devices under maintenance are told too.
    #[serde(default)]
    pub tests: bool,
    /// Messages in any minute. Robots of WeCom and DingTalk take 20 and then close for up to ten minutes; what is more is
    /// put together into one message.
    #[serde(default = "default_per_minute")]
    #[schemars(range(min = 1, max = 600))]
    pub per_minute: u16,
    /// Largest message, in bytes; what is more is put into the next one.
    #[serde(default = "default_bytes_max")]
    #[schemars(range(min = 512, max = 30_000))]
    pub bytes_max: u32,
    /// How the answer says that the message was taken, if not as its kind has it.
    pub answer: Option<Answer>,
}

/// Who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A robot of WeCom (企业微信).
    Wecom,
    /// A robot of DingTalk (钉钉).
    Dingtalk,
    /// A robot of Feishu (飞书).
    Feishu,
    /// Anything else that takes a POST, by `template_file`.
    Own,
}

/// Languages of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
    /// Both.
    Both,
}

/// Changes of an alarm that people may want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// It was raised.
    Raised,
    /// It was raised again while it was open.
    RaisedAgain,
    /// Nobody has acknowledged it in time.
    Escalated,
    /// Somebody has acknowledged it.
    Acknowledged,
    /// Somebody was there.
    Handled,
    /// The condition has ended.
    Returned,
    /// It is over.
    Closed,
}

/// How an answer is read. Without it any status from 200 to 299 is success.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// JSON Pointer to the value that decides, for example `/errcode`.
    #[schemars(length(min = 1, max = 128))]
    pub pointer: String,
    /// The value that means taken, for example `0`.
    pub taken: Value,
    /// Values that mean "too fast".
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub throttled: Vec<Value>,
}

const fn default_severity() -> Severity {
    Severity::Minor
}

fn default_tell() -> Vec<Tell> {
    vec![Tell::Raised, Tell::Escalated]
}

const fn default_per_minute() -> u16 {
    15
}

const fn default_bytes_max() -> u32 {
    // WeCom takes 4 096 bytes of markdown; the JSON around it is small.
    3_800
}

impl Kind {
    /// The shipped template.
    pub(super) const fn template(self) -> Option<&'static str> {
        match self {
            Self::Wecom => Some(include_str!("../../../../config/notifiers/wecom.json.j2")),
            Self::Dingtalk => Some(include_str!("../../../../config/notifiers/dingtalk.json.j2")),
            Self::Feishu => Some(include_str!("../../../../config/notifiers/feishu.json.j2")),
            Self::Own => None,
        }
    }

    /// How its answers are read: the values are those of the robots' public error tables.
    pub(super) fn answer(self) -> Option<Answer> {
        let (pointer, throttled): (_, &[i64]) = match self {
            Self::Wecom => ("/errcode", &[45_009, 45_033]),
            Self::Dingtalk => ("/errcode", &[130_101, 410_100]),
            Self::Feishu => ("/code", &[9_499, 11_232]),
            Self::Own => return None,
        };
        let throttled = throttled.iter().map(|code| Value::Int(*code)).collect();
        Some(Answer { pointer: pointer.to_owned(), taken: Value::Int(0), throttled })
    }
}

impl WebhookConfig {
    /// Mistakes beyond types.
    pub fn problems(&self, name: &NotifierName) -> Vec<Problem> {
        let mut out = Vec::new();
        let table = ["notifiers", name.as_str(), "webhook"];
        let at = |key| ["notifiers", name.as_str(), "webhook", key];
        let room = NAME_BYTES_MAX.saturating_sub(CURSOR_PREFIX.len());
        if name.as_str().len() > room {
            let message = format!("the name of a notifier has at most {room} bytes");
            out.push(Problem::error(&["notifiers", name.as_str()], message).hint("choose a shorter one"));
        }
        match (&self.url, &self.url_file) {
            (None, None) => {
                let problem = Problem::error(&table, "nothing says where to post");
                out.push(problem.hint("write `url_file`, a file with the robot's URL"));
            }
            (Some(_), Some(_)) => {
                let problem = Problem::error(&at("url"), "`url` and `url_file` exclude each other");
                out.push(problem.hint("keep `url_file`"));
            }
            (Some(url), None) => {
                let plain = url.starts_with("http://") && !loopback(url);
                if plain {
                    let problem = Problem::warning(&at("url"), "alarms can be read on the way: no TLS");
                    out.push(problem.hint("use https://"));
                }
                if self.kind != Kind::Own && !loopback(url) {
                    let problem = Problem::warning(&at("url"), "the robot's key stands in the configuration");
                    out.push(problem.hint("put the URL into a file and name it by `url_file`"));
                }
            }
            (None, Some(_)) => {}
        }
        if self.kind == Kind::Own && self.template_file.is_none() {
            let problem = Problem::error(&table, "kind \"own\" brings no template along");
            out.push(problem.hint("write `template_file`; see docs/notifiers.md"));
        }
        if self.secret_file.is_some() && matches!(self.kind, Kind::Wecom | Kind::Own) {
            let problem = Problem::error(&at("secret_file"), "this kind does not sign its messages");
            out.push(problem.hint("leave it out; the key of a WeCom robot stands in its URL"));
        }
        if let Some(answer) = self.answer.as_ref().filter(|answer| !answer.pointer.starts_with('/')) {
            let message = format!("{:?} is no JSON Pointer", answer.pointer);
            out.push(
                Problem::error(&[&table[..], &["answer", "pointer"]].concat(), message)
                    .hint("it begins with /"),
            );
        }
        out
    }
}

fn loopback(url: &str) -> bool {
    let host = host(url);
    // With and without a port; an IPv6 address stands in brackets.
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let is_loopback = |text: &str| text.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    name == "localhost" || host == "[::1]" || is_loopback(name.trim_matches(['[', ']']))
}
