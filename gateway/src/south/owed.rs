//! Messages that are kept in memory only, since the disk cannot be written: their devices were not acknowledged and will
//! say them again. A repetition is handed to the journal as the very drafts of the first time, which it knows; mapped
//! anew, a press would be told twice, and a state that is known by now would look like nothing and be acknowledged,
//! though no disk has it.
//!
//! Limits: `OWED_MESSAGES_MAX` messages and [`BYTES_MAX`] of payload; full, the oldest is forgotten. Known for
//! `OWED_WINDOW_MS` since it was said last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::model::limits::{OWED_MESSAGES_MAX, OWED_WINDOW_MS};
use crate::model::record::Draft;

/// Payload bytes of all messages together: drafts are smaller than what they were read from.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message's identity: who said what where.
pub(super) type Key = [u8; 32];

pub(super) fn key(client: &str, topic: &str, payload: &[u8]) -> Key {
    let mut hasher = Sha256::new();
    for part in [client.as_bytes(), topic.as_bytes()] {
        // The length before each part keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(payload);
    hasher.finalize().into()
}

#[derive(Debug)]
struct Message {
    drafts: Vec<Draft>,
    bytes: usize,
    said_ms: u64,
}

#[derive(Debug, Default)]
struct Messages {
    by_key: HashMap<Key, Message>,
    bytes: usize,
}

impl Messages {
    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.by_key.remove(key) {
            self.bytes = self.bytes.saturating_sub(gone.bytes);
        }
    }
}

/// What a bus owes an acknowledgement for.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Whether something may be in memory only: a message that seems to say nothing new is not acknowledged then
    /// without asking the journal.
    doubt: AtomicBool,
    messages: Mutex<Messages>,
}

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doubts(&self) -> bool {
        self.doubt.load(Ordering::SeqCst)
    }

    /// What the journal said last: whether it is on disk again, or in memory only.
    pub(super) fn doubt(&self, volatile: bool) {
        self.doubt.store(volatile, Ordering::SeqCst);
    }

    /// The drafts of this message, if it was said before and is owed.
    pub(super) fn said_before(&self, key: &Key, now_ms: u64) -> Option<Vec<Draft>> {
        let mut messages = self.lock();
        let message = messages.by_key.get_mut(key)?;
        if now_ms.saturating_sub(message.said_ms) > OWED_WINDOW_MS {
            messages.remove(key);
            return None;
        }
        message.said_ms = now_ms;
        Some(message.drafts.clone())
    }

    pub(super) fn note(&self, key: Key, drafts: Vec<Draft>, bytes: usize, now_ms: u64) {
        let mut messages = self.lock();
        messages.remove(&key);
        while messages.by_key.len() >= OWED_MESSAGES_MAX || messages.bytes.saturating_add(bytes) > BYTES_MAX {
            let oldest = messages.by_key.iter().min_by_key(|(_, message)| message.said_ms);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            messages.remove(&oldest);
        }
        messages.bytes = messages.bytes.saturating_add(bytes);
        messages.by_key.insert(key, Message { drafts, bytes, said_ms: now_ms });
    }

    /// It is on disk.
    pub(super) fn settle(&self, key: &Key) {
        self.lock().remove(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_known_for_a_while_and_within_bounds() {
        let owed = Owed::default();
        let client = "z2m";
        let key_of = |n: usize| key(client, "a/b", &n.to_be_bytes());
        assert_ne!(key(client, "ab", b"c"), key(client, "a", b"bc"));
        owed.note(key_of(1), Vec::new(), 1, 0);
        assert!(owed.said_before(&key_of(1), OWED_WINDOW_MS).is_some());
        assert!(owed.said_before(&key_of(1), 2 * OWED_WINDOW_MS).is_some(), "each repetition counts anew");
        assert!(owed.said_before(&key_of(1), 3 * OWED_WINDOW_MS + 1).is_none());
        assert!(owed.is_empty());
        for n in 0..=OWED_MESSAGES_MAX {
            owed.note(key_of(n), Vec::new(), 1, n as u64);
        }
        assert!(owed.said_before(&key_of(0), 1).is_none(), "the oldest goes first");
        assert!(owed.said_before(&key_of(1), 1).is_some());
        owed.note(key_of(9_999), Vec::new(), BYTES_MAX, 9_999);
        assert!(owed.said_before(&key_of(2), 1).is_none(), "bytes are bounded too");
        owed.settle(&key_of(9_999));
        assert!(owed.is_empty());
    }
}
