//! What every part of the running daemon needs: clocks, back-off, supervision, counters, the board that `status`
//! shows. Knows the model, and nothing of devices, SQL or platforms.

pub mod backoff;
pub mod board;
pub mod clock;
pub mod echo;
pub mod metrics;
pub mod supervise;
pub mod thread;
