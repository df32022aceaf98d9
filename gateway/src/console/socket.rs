//! The local socket: one JSON line asks, one JSON line answers. Its rights are the file's: owner and group.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::status::{Reporter, Status};

/// Longest question.
const QUESTION_BYTES_MAX: u64 = 4 * 1024;
/// How long a question and its answer may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// Questions answered at once.
const EXCHANGES_MAX: usize = 16;

/// A question to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Question {
    Status,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    Error(String),
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no running gatehouse answers at {path} (is the service started?)")]
    Connect { path: PathBuf, source: io::Error },
    #[error("this user may not ask the daemon at {path}; ask as root or as a member of the daemon's group")]
    Denied { path: PathBuf },
    #[error("the daemon at {path} did not answer within {} s", EXCHANGE_MAX.as_secs())]
    Silent { path: PathBuf },
    #[error("the talk with the daemon at {path} broke off")]
    Broken { path: PathBuf, source: io::Error },
    #[error("the daemon at {path} answered something else: {answer}")]
    Strange { path: PathBuf, answer: String },
}

/// Serves until cancelled. A stale socket file of a dead daemon is replaced: the journal's lock has already shown that
/// no other daemon lives in this data directory.
pub async fn serve(path: &Path, reporter: &Reporter, cancel: &CancellationToken) -> io::Result<()> {
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
                let reporter = reporter.clone();
                exchanges.spawn(async move {
                    match timeout(EXCHANGE_MAX, exchange(stream, &reporter)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a local question broke off"),
                        Err(_elapsed) => tracing::debug!("a local question took too long"),
                    }
                });
            }
            Some(_ended) = exchanges.join_next(), if !exchanges.is_empty() => {}
        }
    }
    exchanges.shutdown().await;
    std::fs::remove_file(path)
}

async fn exchange(stream: UnixStream, reporter: &Reporter) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(QUESTION_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Question::Status) => Answer::Status(Box::new(reporter.status())),
        Err(error) => Answer::Error(format!("the question was not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
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
    let answer = match timeout(EXCHANGE_MAX, talk).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => return Err(AskError::Broken { path: at(), source }),
        Err(_elapsed) => return Err(AskError::Silent { path: at() }),
    };
    serde_json::from_str(&answer)
        .map_err(|error| AskError::Strange { path: at(), answer: format!("{error} in {answer:?}") })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
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

            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"{\"ask\":\"open all doors\"}\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("not understood"), "{answer}");
            cancel.cancel();
        };
        let (served, ()) = tokio::join!(serve(&path, &reporter, &cancel), client);
        served.unwrap();
        assert!(!path.exists(), "the socket file stays behind");
        assert!(matches!(ask(&path, &Question::Status).await, Err(AskError::Connect { .. })));
    }
}
