//! Retained messages of our own accounts, in memory, bounded in number and bytes. They serve subscribers; the journal
//! has them already. rmqtt's `retain` feature alone stores nothing: this is its storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rmqtt::retain::RetainStorage;
use rmqtt::types::{Retain, TopicFilter, TopicName};

use crate::rt::metrics::Metrics;
use crate::south::topics::matches;

/// Retained topics: state and availability of each of 300 devices behind one client, several times over.
const RETAINED_MAX: usize = 2_048;

/// Bytes of all retained payloads together.
const RETAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The storage. When it is full a new message is not retained and counted; it is delivered all the same.
pub struct Retained {
    kept: Mutex<Kept>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Kept {
    messages: BTreeMap<String, Retain>,
    bytes: usize,
    most: usize,
}

impl Retained {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { kept: Mutex::new(Kept::default()), metrics }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Retained {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = self.kept();
        out.debug_struct("Retained")
            .field("topics", &kept.messages.len())
            .field("bytes", &kept.bytes)
            .finish()
    }
}

impl Kept {
    /// Whether there was room.
    fn set(&mut self, topic: &str, mut retain: Retain) -> bool {
        if let Some(old) = self.messages.remove(topic) {
            self.bytes = self.bytes.saturating_sub(old.publish.inner.payload.len());
        }
        let size = retain.publish.inner.payload.len();
        if size == 0 {
            return true;
        }
        if self.messages.len() >= RETAINED_MAX || self.bytes.saturating_add(size) > RETAINED_BYTES_MAX {
            return false;
        }
        // A copy: the payload is a slice of the buffer it was read in, which would stay whole for it.
        retain.publish.inner.payload = Bytes::copy_from_slice(&retain.publish.inner.payload);
        self.bytes = self.bytes.saturating_add(size);
        self.messages.insert(topic.to_owned(), retain);
        self.most = self.most.max(self.messages.len());
        true
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    async fn set(&self, topic: &TopicName, retain: Retain, _expiry: Option<Duration>) -> rmqtt::Result<()> {
        if !self.kept().set(topic, retain) {
            self.metrics.dropped("retained", "full", 1);
        }
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let kept = self.kept();
        let fitting = kept.messages.iter().filter(|(topic, _)| matches(filter, topic));
        Ok(fitting.map(|(topic, retain)| (topic.as_str().into(), retain.clone())).collect())
    }

    async fn count(&self) -> isize {
        isize::try_from(self.kept().messages.len()).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::try_from(self.kept().most).unwrap_or(isize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmqtt::types::{CodecPublish, From, Id, Publish, QoS};

    fn retain(topic: &str, size: usize) -> Retain {
        let inner = CodecPublish {
            dup: false,
            retain: true,
            qos: QoS::AtMostOnce,
            topic: topic.into(),
            packet_id: None,
            payload: vec![b'x'; size].into(),
            properties: None,
        };
        let publish = Publish {
            inner: Box::new(inner),
            target_clientid: None,
            delay_interval: None,
            create_time: None,
        };
        let id = Id::new(1, 1, None, None, "c".into(), None);
        Retain { msg_id: None, from: From::from_custom(id), publish }
    }

    #[test]
    fn number_and_bytes_are_bounded_and_given_back() {
        let mut kept = Kept::default();
        for index in 0..RETAINED_MAX {
            assert!(kept.set(&format!("t/{index}"), retain("t", 10)));
        }
        assert!(!kept.set("one/more", retain("t", 1)));
        assert!(kept.set("t/0", retain("t", 20)), "a topic that is there may change");
        assert!(kept.set("t/1", retain("t", 0)), "an empty payload clears");
        assert!(kept.set("one/more", retain("t", 1)));
        let bytes: usize = kept.messages.values().map(|retain| retain.publish.inner.payload.len()).sum();
        assert_eq!(kept.bytes, bytes);
        let mut kept = Kept::default();
        assert!(kept.set("a", retain("a", RETAINED_BYTES_MAX)));
        assert!(!kept.set("b", retain("b", 1)));
        assert!(kept.set("a", retain("a", 1)) && kept.set("b", retain("b", 1)));
    }
}
