//! The platform contract, v1: topics, messages, and what may be read from a platform. Pure: no I/O but the reading of
//! the pseudonym key, no clock, no connection.
//!
//! v1 is only added to: no field is ever removed, renamed or given another type; enumerations are open. What platforms
//! rely on is written in docs/platform/, which is generated from the types here, and fixed byte by byte in
//! gateway/tests/golden/v1/.
//!
//! Limits: a message never exceeds [`PLATFORM_PAYLOAD_BYTES_MAX`]; a message from a platform
//! never [`DOWN_PAYLOAD_BYTES_MAX`](crate::model::limits::DOWN_PAYLOAD_BYTES_MAX).

pub mod asyncapi;
pub mod audit;
pub mod down;
pub mod envelope;
pub mod orders;
pub mod records;
mod scalars;
pub mod schema;
pub mod status;
pub mod topics;
pub mod view;
pub mod wire;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::Serialize;

use crate::model::clock::Clocks;
use crate::model::limits::PLATFORM_PAYLOAD_BYTES_MAX;
use crate::model::stamp::Stamp;

pub use down::{Command, Down, Issued, Receipt, Stream, TimeAnswer, answer_to_refused, parse_down};
pub use records::{record_message, telemetry_message, volatile_message};
pub use status::{
    BootClock, CORRECTIONS_MAX, ClassState, ClockState, CommandResult, OpenAlarm, Outcome, SnapshotData,
    StateData, StateReason, command_result, snapshot_pages, state_message, will_message,
};
pub use topics::Topics;
pub use view::{Private, View, ViewError};

/// The contract's version as `up/state` tells it: the major number stands in the topics, the minor one grows when
/// fields or messages are added.
pub const CONTRACT: &str = "1.0";

/// A message for a platform, ready to be published with QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
}

/// What every message needs beside its subject.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub topics: &'a Topics,
    /// The compound (小区), as platforms know it.
    pub compound: &'a str,
    /// The moment of sending.
    pub now: &'a Stamp,
    /// What is known of each boot's wall time: for ages. Stamps are told as they were made.
    pub clocks: &'a Clocks,
    /// What this uplink may see.
    pub view: &'a View,
}

/// Why a record cannot be sent as it is. It is replaced by a gap record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("the message would have {bytes} bytes; at most {PLATFORM_PAYLOAD_BYTES_MAX} go to a platform")]
    TooLarge { bytes: usize },
    #[error("the record cannot be written as JSON: {0}")]
    NotJson(String),
    /// No record was given, or the first one holds no values.
    #[error("there is no telemetry in this batch")]
    NoTelemetry,
}

/// Encodes a message and holds the limit.
fn outgoing<M: Serialize>(topic: String, retain: bool, message: &M) -> Result<Outgoing, Unsendable> {
    let payload = serde_json::to_vec(message).map_err(|error| Unsendable::NotJson(error.to_string()))?;
    if payload.len() > PLATFORM_PAYLOAD_BYTES_MAX {
        return Err(Unsendable::TooLarge { bytes: payload.len() });
    }
    Ok(Outgoing { topic, payload: payload.into(), retain })
}
