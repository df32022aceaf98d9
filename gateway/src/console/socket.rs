//! The local socket: one JSON line asks, one JSON line answers. Its rights are the file's: owner and group. Who asks is
//! known by the kernel's word.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::model::command::{Actor, Done, Order, Origin, Perform, Scope, Verb};
use crate::model::roll::Listed;

use super::status::{Reporter, Status};

/// Longest question: a rule file as a platform may send it.
const QUESTION_BYTES_MAX: u64 = 20 * 1024;
/// How long a question and its answer may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// How long an order may take: a speaker has to finish what it says.
const ORDER_MAX: Duration = Duration::from_mins(2);
/// How long an order from here is good for.
const ORDER_LIFETIME_MS: u64 = 60_000;
/// Alarms of one answer.
const PAGE_MAX: usize = 200;
/// Longest name and longest reason that a person may give, in characters.
const OPERATOR_CHARS_MAX: usize = 128;
const REASON_CHARS_MAX: usize = 1_024;
/// Questions answered at once.
const EXCHANGES_MAX: usize = 16;

/// A question to the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Question {
    Status,
    /// Open alarms whose ids come after this one, a page of them.
    Alarms {
        #[serde(default)]
        after: String,
    },
    /// To be carried out at once.
    Order {
        order: Verb,
        /// Who orders, if that is not whom the kernel names: the guard at a shared account.
        #[serde(default)]
        operator: Option<String>,
        reason: String,
    },
}

impl Question {
    const fn patience(&self) -> Duration {
        match self {
            Self::Status | Self::Alarms { .. } => EXCHANGE_MAX,
            Self::Order { .. } => ORDER_MAX,
        }
    }
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    /// Fewer than asked for: there are no more.
    Alarms {
        alarms: Vec<Listed>,
        more: bool,
    },
    Done(Done),
    Error(String),
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no running gatehouse answers at {path} (is the service started?)")]
    Connect { path: PathBuf, source: io::Error },
    #[error("this user may not ask the daemon at {path}; ask as root or as a member of the daemon's group")]
    Denied { path: PathBuf },
    #[error("the daemon at {path} did not answer within {s} s")]
    Silent { path: PathBuf, s: u64 },
    #[error("the talk with the daemon at {path} broke off")]
    Broken { path: PathBuf, source: io::Error },
    #[error("the daemon at {path} answered something else: {answer}")]
    Strange { path: PathBuf, answer: String },
}

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Counter {
    pub reporter: Reporter,
    pub perform: Arc<dyn Perform>,
}

/// Tells orders of one moment apart.
static ORDERS: AtomicU64 = AtomicU64::new(0);

impl Counter {
    async fn answer(&self, question: Question, uid: u32) -> Answer {
        match question {
            Question::Status => Answer::Status(Box::new(self.reporter.status())),
            Question::Alarms { after } => {
                let mut alarms = self.reporter.roll.page(&after, PAGE_MAX.saturating_add(1));
                let more = alarms.len() > PAGE_MAX;
                alarms.truncate(PAGE_MAX);
                Answer::Alarms { alarms, more }
            }
            Question::Order { order, operator, reason } => {
                let at = self.reporter.clock.now();
                let user = user(uid);
                let operator = match operator {
                    Some(operator) => format!("{operator} ({user})"),
                    None => user,
                };
                let is_long = |text: &str, chars_max| text.chars().count() > chars_max;
                if is_long(&operator, OPERATOR_CHARS_MAX) || is_long(&reason, REASON_CHARS_MAX) {
                    return Answer::Error("the operator or the reason is too long".to_owned());
                }
                let boot: String = at.boot.0.chars().take(8).collect();
                let n = ORDERS.fetch_add(1, Ordering::Relaxed);
                let order = Order {
                    id: format!("console/{boot}-{}-{n}", at.mono_ms),
                    verb: order,
                    actor: Actor { operator, source: Origin::Console, reason },
                    scope: Scope::default(),
                    at,
                    lifetime_ms: ORDER_LIFETIME_MS,
                };
                Answer::Done(self.perform.perform(order).await)
            }
        }
    }
}

/// The name of a local user, by the machine's own list.
fn user(uid: u32) -> String {
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

/// Serves until cancelled. A stale socket file of a dead daemon is replaced: the journal's lock has already shown that
/// no other daemon lives in this data directory.
pub async fn serve(path: &Path, counter: &Counter, cancel: &CancellationToken) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept(), if exchanges.len() < EXCHANGES_MAX => {
                let (stream, _peer) = accepted?;
                let counter = counter.clone();
                exchanges.spawn(async move {
                    if let Err(error) = exchange(stream, &counter).await {
                        tracing::debug!(%error, "a local question broke off");
                    }
                });
            }
            Some(_ended) = exchanges.join_next(), if !exchanges.is_empty() => {}
        }
    }
    exchanges.shutdown().await;
    std::fs::remove_file(path)
}

async fn exchange(stream: UnixStream, counter: &Counter) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    timeout(EXCHANGE_MAX, BufReader::new(reader.take(QUESTION_BYTES_MAX)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Question>(&line) {
        // An order that was begun is carried to its end, also if whoever gave it has gone.
        Ok(question) => counter.answer(question, uid).await,
        Err(error) => Answer::Error(format!("the question was not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(EXCHANGE_MAX, async {
        writer.write_all(&text).await?;
        writer.shutdown().await
    })
    .await?
}

/// Asks the daemon behind `path`.
pub async fn ask(path: &Path, question: &Question) -> Result<Answer, AskError> {
    let at = || path.to_owned();
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Denied { path: at() },
        _ => AskError::Connect { path: at(), source },
    })?;
    let talk = async {
        let (reader, mut writer) = stream.into_split();
        let mut text = serde_json::to_vec(question)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await?;
        Ok(answer)
    };
    let patience = question.patience();
    let answer = match timeout(patience, talk).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => return Err(AskError::Broken { path: at(), source }),
        Err(_elapsed) => return Err(AskError::Silent { path: at(), s: patience.as_secs() }),
    };
    serde_json::from_str(&answer)
        .map_err(|error| AskError::Strange { path: at(), answer: format!("{error} in {answer:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::command::NoDesk;
    use crate::model::ids::GatewayName;
    use crate::rt::board::Board;
    use crate::rt::clock::ManualClock;
    use crate::rt::metrics::Metrics;

    #[tokio::test]
    async fn a_question_is_answered_and_rubbish_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        std::fs::write(&path, "left behind").unwrap();
        let reporter = Reporter {
            gateway: GatewayName::new("gate-1").unwrap(),
            clock: Arc::new(ManualClock::new()),
            board: Arc::new(Board::new()),
            metrics: Arc::new(Metrics::new()),
            roll: Arc::default(),
            started_mono_ms: 0,
        };
        let counter = Counter { reporter, perform: Arc::new(NoDesk) };
        let cancel = CancellationToken::new();
        let client = async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::task::yield_now().await;
            }
            let Answer::Status(status) = ask(&path, &Question::Status).await.unwrap() else {
                panic!("no status")
            };
            assert_eq!(status.gateway.as_str(), "gate-1");
            assert!(status.text().contains("gate-1"));

            let nothing = ask(&path, &Question::Alarms { after: String::new() }).await.unwrap();
            assert_eq!(nothing, Answer::Alarms { alarms: Vec::new(), more: false });
            let order = Question::Order {
                order: Verb::Snapshot,
                operator: Some("三号岗值班保安".repeat(10)),
                reason: "a look".to_owned(),
            };
            let Answer::Done(done) = ask(&path, &order).await.unwrap() else {
                panic!("no word of the order")
            };
            assert_eq!(done.code, "not_possible");

            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"{\"ask\":\"open all doors\"}\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("not understood"), "{answer}");
            cancel.cancel();
        };
        let (served, ()) = tokio::join!(serve(&path, &counter, &cancel), client);
        served.unwrap();
        assert!(!path.exists(), "the socket file stays behind");
        assert!(matches!(ask(&path, &Question::Status).await, Err(AskError::Connect { .. })));
    }
}
