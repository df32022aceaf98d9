//! What people and their tools ask the running daemon: the local socket behind `gatehouse status`, and `/metrics` and
//! `/healthz` on loopback. Reads the board and the counters. Must not know drivers.

pub mod http;
pub mod reasons;
pub mod socket;
pub mod status;
