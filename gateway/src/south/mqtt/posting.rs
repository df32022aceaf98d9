//! Orders to devices behind an external broker: by the connection that stands, at QoS 0, or not at all. What its client
//! holds when the connection ends goes with it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rumqttc::{AsyncClient, PublishOptions};

use crate::south::acting::{Post, PostError};

/// The way to the broker.
#[derive(Debug)]
pub(super) struct Posting(pub(super) Arc<Mutex<Option<AsyncClient>>>);

#[async_trait]
impl Post for Posting {
    async fn post(&self, topic: &str, payload: String) -> Result<(), PostError> {
        let client = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let client = client.ok_or(PostError::NotConnected)?;
        client.try_publish(topic, payload, PublishOptions::at_most_once()).map_err(|error| {
            tracing::warn!(topic, %error, "an order could not be sent");
            PostError::Busy
        })
    }
}
