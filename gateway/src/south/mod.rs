//! South: one driver per bus or listener turns device talk into samples and events, and one executor ([`acting`])
//! makes devices act. Must not know SQL, rules or
//! platforms; hands its drafts to [`crate::model::journal::Journal`] and acknowledges a device when that says so.

pub mod acting;
pub mod broker;
pub mod device;
pub mod freshness;
pub mod line;
pub mod modbus;
pub mod mqtt;
mod notice;
mod owed;
pub mod profile;
pub mod topics;
pub mod watch;
