//! What every part of the running daemon needs: clocks, back-off, supervision, counters, the board that `status`
//! shows. Knows the model, and nothing of devices, SQL or platforms.

pub mod backoff;
pub mod board;
pub mod certificates;
pub mod chrony;
pub mod clock;
pub mod echo;
pub mod https;
pub mod keeper;
pub mod machine;
pub mod metrics;
pub mod mqtt;
#[cfg(test)]
pub(crate) mod packets;
pub mod supervise;
pub mod thread;
pub mod timekeeping;
pub mod timesource;
