//! Tests of the contract as a whole: golden messages, generated documents, properties.

mod docs;
pub(super) mod fixtures;
mod golden;
mod messages;
mod private;
mod properties;
