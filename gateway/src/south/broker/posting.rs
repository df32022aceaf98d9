//! Orders to the clients of the embedded broker: to the client itself, at QoS 0, if it is there and listens; else to nobody,
//! so that none is ever delivered late.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use rmqtt::types::{CodecPublish, From, Id, Publish, QoS};

use super::hooks::Inside;
use crate::south::acting::{Post, PostError};

/// The way to one client.
#[derive(Debug)]
pub(super) struct Posting {
    pub(super) current: Arc<Mutex<Weak<Inside>>>,
    pub(super) client_id: String,
}

#[async_trait]
impl Post for Posting {
    async fn post(&self, topic: &str, payload: String) -> Result<(), PostError> {
        let inside = self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let inside = inside.ok_or(PostError::NotConnected)?;
        let context = inside.context.get().ok_or(PostError::NotConnected)?;
        let id = Id::new(context.node.id(), 0, None, None, "gatehouse".into(), None);
        let publish = CodecPublish {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: topic.into(),
            packet_id: None,
            payload: payload.into_bytes().into(),
            properties: None,
        };
        let publish = Publish::from(publish);
        let router = context.extends.router().await;
        let mut matching = router.matches(id.clone(), &publish.topic).await.map_err(|error| {
            tracing::warn!(topic, %error, "the broker does not find who listens");
            PostError::NotListening
        })?;
        let mut relations = matching.remove(&context.node.id()).unwrap_or_default();
        // Others may listen in; the order is for this one, and once also where its filters overlap.
        relations.retain(|(_, client, ..)| **client == *self.client_id);
        relations.truncate(1);
        if relations.is_empty() {
            return Err(PostError::NotListening);
        }
        let shared = context.extends.shared().await;
        match shared.forwards_to(From::from_system(id), &publish, relations, None).await {
            Ok(_) => Ok(()),
            Err(_undelivered) => Err(PostError::NotListening),
        }
    }
}
