//! What orders wait for: the answer of a device by a message, and the event that shows that something happened. Who gives
//! no order costs one look at a counter.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::model::ids::DeviceId;
use crate::model::journal::{Committed, Durability, Journal, JournalError};
use crate::model::record::{Body, Draft, Value};
use crate::south::profile::acts::Ack;
use crate::south::profile::json;

/// Longest word of a device that is kept.
const DETAIL_CHARS_MAX: usize = 200;
/// Answers that one order may leave untaken: the first that decides is enough.
const UNTAKEN_MAX: usize = 4;

/// What a device said to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) yes: bool,
    pub(super) detail: String,
}

/// Orders at one broker that wait for an answer.
#[derive(Debug, Default)]
pub(in crate::south) struct Answers {
    waiting: Mutex<Vec<Waiting>>,
    count: AtomicUsize,
    next: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    key: u64,
    topic: String,
    ack: Ack,
    /// Either of them in the answer means this order.
    names: [String; 2],
    answers_tx: mpsc::Sender<Answer>,
}

/// One order's wait. Dropped, it waits no more.
#[derive(Debug)]
pub(super) struct Listening {
    answers: Arc<Answers>,
    key: u64,
    answers_rx: mpsc::Receiver<Answer>,
}

impl Listening {
    pub(super) async fn answer(&mut self) -> Answer {
        match self.answers_rx.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut waiting = self.answers.waiting();
        waiting.retain(|one| one.key != self.key);
        self.answers.count.store(waiting.len(), Ordering::Release);
    }
}

impl Answers {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits from now on, so before the order is sent.
    pub(super) fn wait(self: &Arc<Self>, topic: String, ack: &Ack, names: [String; 2]) -> Listening {
        let (answers_tx, answers_rx) = mpsc::channel(UNTAKEN_MAX);
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting();
        waiting.push(Waiting { key, topic, ack: ack.clone(), names, answers_tx });
        self.count.store(waiting.len(), Ordering::Release);
        Listening { answers: Arc::clone(self), key, answers_rx }
    }

    /// A device has said something.
    pub(in crate::south) fn heard(&self, topic: &str, payload: &[u8]) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let waiting = self.waiting();
        let mut concerned = waiting.iter().filter(|one| one.topic == topic).peekable();
        if concerned.peek().is_none() {
            return;
        }
        let Ok(document) = json::parse(payload) else { return };
        for one in concerned {
            if let Some(answer) = judge(&one.ack, &one.names, &document.value)
                && one.answers_tx.try_send(answer).is_err()
            {
                tracing::debug!(topic, "an order was answered more often than it waits for");
            }
        }
    }
}

/// Whether a message answers the order, and how.
fn judge(ack: &Ack, names: &[String; 2], message: &serde_json::Value) -> Option<Answer> {
    if let Some(pointer) = &ack.correlation {
        let named = match message.pointer(pointer)? {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if !names.contains(&named) {
            return None;
        }
    }
    let detail =
        ack.detail.as_ref().and_then(|pointer| message.pointer(pointer)).map_or_else(String::new, |words| {
            match words {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            }
        });
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect();
    let among = |pointer: &str, values: &[Value]| {
        let said = message.pointer(pointer)?;
        values.iter().any(|value| same(value, said)).then(|| said.to_string())
    };
    if let Some(refused) = &ack.refused
        && let Some(said) = among(refused.pointer.as_deref().unwrap_or(&ack.pointer), &refused.one_of)
    {
        let detail = if detail.is_empty() { said } else { format!("{said}: {detail}") };
        return Some(Answer { yes: false, detail });
    }
    among(&ack.pointer, &ack.one_of).map(|_said| Answer { yes: true, detail })
}

fn same(value: &Value, said: &serde_json::Value) -> bool {
    match value {
        Value::Bool(value) => said.as_bool() == Some(*value),
        Value::Int(value) => said.as_i64() == Some(*value),
        Value::Float(value) => said.as_f64() == Some(*value),
        Value::Text(value) => said.as_str() == Some(&**value),
    }
}

/// Events of devices that orders wait for.
#[derive(Debug, Default)]
pub struct Ears {
    waiting: Mutex<Vec<Awaited>>,
    count: AtomicUsize,
    next: AtomicU64,
}

#[derive(Debug)]
struct Awaited {
    key: u64,
    device: DeviceId,
    event: String,
    seen_tx: mpsc::Sender<()>,
}

/// One wait for an event. Dropped, it waits no more.
#[derive(Debug)]
pub(super) struct Watching {
    ears: Arc<Ears>,
    key: u64,
    seen_rx: mpsc::Receiver<()>,
}

impl Watching {
    pub(super) async fn seen(&mut self) {
        if self.seen_rx.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut waiting = self.ears.waiting();
        waiting.retain(|one| one.key != self.key);
        self.ears.count.store(waiting.len(), Ordering::Release);
    }
}

impl Ears {
    fn waiting(&self) -> MutexGuard<'_, Vec<Awaited>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(self: &Arc<Self>, device: &DeviceId, event: &str) -> Watching {
        let (seen_tx, seen_rx) = mpsc::channel(1);
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting();
        waiting.push(Awaited { key, device: device.clone(), event: event.to_owned(), seen_tx });
        self.count.store(waiting.len(), Ordering::Release);
        Watching { ears: Arc::clone(self), key, seen_rx }
    }

    fn hear(&self, drafts: &[Draft]) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let waiting = self.waiting();
        for draft in drafts {
            let Body::Event(event) = &draft.body else { continue };
            for one in waiting.iter().filter(|one| one.device == event.device.id && one.event == event.name) {
                // Full: it was seen already.
                one.seen_tx.try_send(()).unwrap_or_default();
            }
        }
    }
}

/// The journal as drivers get it: what they write is heard on the way.
#[derive(Debug)]
pub struct Overheard {
    journal: Arc<dyn Journal>,
    ears: Arc<Ears>,
}

impl Overheard {
    pub fn new(journal: Arc<dyn Journal>, ears: Arc<Ears>) -> Self {
        Self { journal, ears }
    }
}

#[async_trait]
impl Journal for Overheard {
    async fn append(&self, drafts: Vec<Draft>, durability: Durability) -> Result<Committed, JournalError> {
        self.ears.hear(&drafts);
        self.journal.append(drafts, durability).await
    }
}
