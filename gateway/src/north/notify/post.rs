//! One attempt to post one message, and what the answer means. Blocks; for a thread of its own.
//!
//! Addresses of robots hold their keys: no error names more of them than the host, also where an answer repeats them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::fmt::rfc2822;
use ureq::Agent;
use ureq::http::{HeaderMap, Response, StatusCode};

use super::config::{Answer, Kind, WebhookConfig};
use super::line::Outcome;
use super::sign;
use crate::model::record::Value;
use crate::rt::clock::SharedClock;
use crate::rt::https;

/// From first to last; a robot answers within a second.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest file with a URL or a secret.
const SECRET_BYTES_MAX: u64 = 4_096;

/// How much of an answer is told.
const SHOWN_CHARS_MAX: usize = 200;

/// Shorter parts of an address are words, not keys.
const KEY_BYTES_MIN: usize = 6;

/// A person must mend the configuration or a file that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PostError(pub String);

/// Whom to post to.
pub(super) struct Post {
    agent: Agent,
    url: String,
    secret: Option<String>,
    kind: Kind,
    answer: Option<Answer>,
}

impl std::fmt::Debug for Post {
    /// Keys stay out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Post")
            .field("host", &host(&self.url))
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The host of a URL, all of it that may be told.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// The parts of a URL that may be keys: the end of its path, and what stands in its query.
fn keys(url: &str) -> impl Iterator<Item = &str> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let end = path.split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('/')?.1));
    let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    end.into_iter().chain(values).filter(|part| part.len() >= KEY_BYTES_MIN)
}

/// For how long the server wants to be left alone: seconds, or a date by its own clock (RFC 9110, 10.2.3).
fn retry_after_ms(headers: &HeaderMap, wall_ms: i64) -> Option<u64> {
    let header = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let asked = header("retry-after")?;
    if let Ok(seconds) = asked.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let moment_ms = |text| Some(rfc2822::parse(text).ok()?.timestamp().as_millisecond());
    let now_ms = header("date").and_then(moment_ms).unwrap_or(wall_ms);
    u64::try_from(moment_ms(asked)?.saturating_sub(now_ms).max(0)).ok()
}

/// The first line of a small file.
pub(super) fn first_line(what: &str, path: &Path) -> Result<String, PostError> {
    let wrong = |why: String| PostError(format!("the {what} {} {why}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if bytes > SECRET_BYTES_MAX {
        return Err(wrong(format!("has {bytes} bytes; one line was expected")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(wrong("is empty".to_owned()));
    }
    Ok(line.to_owned())
}

impl Post {
    /// Reads the files that the configuration names.
    pub(super) fn new(
        config: &WebhookConfig,
        clock: &SharedClock,
        timeout: Duration,
    ) -> Result<Self, PostError> {
        let url = match (&config.url, &config.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(path)) => first_line("url file", path)?,
            (None, None) => return Err(PostError("there is no url; write `url_file`".to_owned())),
        };
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(PostError("the url begins with neither https:// nor http://".to_owned()));
        }
        let secret: Option<String> =
            config.secret_file.as_ref().map(|path: &PathBuf| first_line("secret file", path)).transpose()?;
        let agent = https::agent(&url, config.ca_file.as_deref(), clock, timeout)
            .map_err(|error| PostError(error.to_string()))?;
        let answer = config.answer.clone().or_else(|| config.kind.answer());
        Ok(Self { agent, url, secret, kind: config.kind, answer })
    }

    /// What a message says of its own time, where its kind signs the message itself.
    pub(super) fn signature(&self, wall_ms: i64) -> (String, Option<String>) {
        match (&self.secret, self.kind) {
            (Some(secret), Kind::Feishu) => {
                let (timestamp, sign) = sign::feishu(secret, wall_ms);
                (timestamp, Some(sign))
            }
            _ => (wall_ms.div_euclid(1_000).to_string(), None),
        }
    }

    /// Posts, and waits for the answer.
    pub(super) fn send(&self, message: &str, wall_ms: i64) -> Outcome {
        let url = match (&self.secret, self.kind) {
            (Some(secret), Kind::Dingtalk) => sign::dingtalk(&self.url, secret, wall_ms),
            _ => self.url.clone(),
        };
        let sent = self.agent.post(&url).content_type("application/json; charset=utf-8").send(message);
        match sent {
            Ok(response) => self.judge(response, wall_ms),
            Err(error) => Outcome::Failed { reason: self.words(&error) },
        }
    }

    /// What an answer says, as far as people may read it.
    fn shown(&self, text: &str) -> String {
        let plain: String = text.chars().filter(|character| !character.is_control()).collect();
        let secrets = keys(&self.url).chain(self.secret.as_deref());
        let hidden = secrets.fold(plain, |text, secret| text.replace(secret, "***"));
        hidden.chars().take(SHOWN_CHARS_MAX).collect()
    }

    fn words(&self, error: &ureq::Error) -> String {
        let host = host(&self.url);
        match error {
            ureq::Error::Timeout(_) => format!("{host} did not answer in time"),
            ureq::Error::HostNotFound => format!("the name {host} could not be resolved"),
            ureq::Error::BadUri(_) => "the url is none".to_owned(),
            ureq::Error::Io(error) => format!("{host} could not be reached: {error}"),
            error => format!("posting to {host} failed: {error}"),
        }
    }

    fn judge(&self, mut response: Response<ureq::Body>, wall_ms: i64) -> Outcome {
        let status = response.status();
        let after_ms = retry_after_ms(response.headers(), wall_ms);
        let host = host(&self.url);
        if status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && after_ms.is_some())
        {
            return Outcome::Throttled { after_ms, reason: format!("{host} answers {status}") };
        }
        let text = match response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string() {
            Ok(text) => text,
            Err(error) => return Outcome::Failed { reason: self.words(&error) },
        };
        if !status.is_success() {
            let reason = format!("{host} answers {status}: {}", self.shown(&text));
            // What sends elsewhere stands on the way, such as a captive portal: it has not looked at the alarm.
            let elsewhere = status.is_redirection() || status == StatusCode::REQUEST_TIMEOUT;
            return if elsewhere || status.is_server_error() {
                Outcome::Failed { reason }
            } else {
                Outcome::Refused { reason }
            };
        }
        let Some(answer) = &self.answer else { return Outcome::Taken };
        let value = serde_json::from_str::<serde_json::Value>(&text).ok();
        let value = value.as_ref().and_then(|value| value.pointer(&answer.pointer));
        let value = value.and_then(|value| serde_json::from_value::<Value>(value.clone()).ok());
        match value {
            Some(value) if value == answer.taken => Outcome::Taken,
            Some(value) if answer.throttled.contains(&value) => Outcome::Throttled {
                after_ms,
                reason: format!("{host} says too fast: {}", self.shown(&text)),
            },
            Some(_) => Outcome::Refused { reason: format!("{host} refuses: {}", self.shown(&text)) },
            // A login page of a captive portal, for example: nobody has taken anything.
            None => {
                Outcome::Failed { reason: format!("{host} answers something else: {}", self.shown(&text)) }
            }
        }
    }
}
