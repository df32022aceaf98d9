//! The ways to devices: a message by a broker, a write on a field bus. Drivers implement them, tests too.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::answers::Answers;
use crate::model::ids::{DeviceId, PointName};
use crate::model::record::Value;
use crate::model::topic::topic_of;
use crate::south::modbus::actuator::{Actuator, WriteError, Written};

/// Why a message was not sent. Nothing of it will arrive later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    #[error("the broker is not connected")]
    NotConnected,
    /// At our own broker: an order to nobody would be lost without a word.
    #[error("the device is not connected, or does not listen to the topic of its orders")]
    NotListening,
    #[error("too many messages wait for the broker")]
    Busy,
}

/// Publishes a message at QoS 0, not retained: an order that is not taken now is never taken.
#[async_trait]
pub trait Post: Send + Sync + Debug {
    /// # Errors
    /// Nothing was sent.
    async fn post(&self, topic: &str, payload: String) -> Result<(), PostError>;
}

/// Writes an output once.
#[async_trait]
pub trait Switch: Send + Sync + Debug {
    /// # Errors
    /// Why it was not done, or may have been.
    async fn switch(
        &self,
        device: &DeviceId,
        point: &PointName,
        value: Value,
        lifetime: Duration,
    ) -> Result<Written, WriteError>;
}

#[async_trait]
impl Switch for Actuator {
    async fn switch(
        &self,
        device: &DeviceId,
        point: &PointName,
        value: Value,
        lifetime: Duration,
    ) -> Result<Written, WriteError> {
        self.write(device, point, value, lifetime, true).await
    }
}

/// The way to the devices of one speaker at a broker.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub(in crate::south) base: String,
    pub(in crate::south) post: Arc<dyn Post>,
    pub(in crate::south) answers: Arc<Answers>,
}

impl Outgoing {
    pub(super) fn topic(&self, template: &str, address: &str) -> String {
        topic_of(template, &self.base, address)
    }
}

/// The way to a device.
#[derive(Debug, Clone)]
pub enum Wire {
    Mqtt(Outgoing),
    Modbus(Arc<dyn Switch>),
}
