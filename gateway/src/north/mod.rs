//! North: one uplink per platform, each with its own cursors over the journal. Must not know devices.

pub mod commands;
pub mod config;
pub mod contract;
pub mod engine;
pub mod link;
pub mod notify;
