//! Tests of the contract as a whole: golden messages, generated documents, properties.

mod docs;
mod fixtures;
mod golden;
mod messages;
mod properties;
