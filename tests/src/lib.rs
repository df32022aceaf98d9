//! The harness of the system tests: real peers for the built binary, each able to misbehave on demand.
//!
//! Everything here speaks to the gateway from outside: through its sockets, its files and its exit code. Peers own
//! what they start and end it when dropped. Nothing waits by sleeping for luck: [`wait::eventually`] polls a condition
//! under a deadline and says what it saw last.

pub mod audit;
pub mod device;
pub mod disk;
pub mod faketime;
pub mod gateway;
pub mod http;
pub mod modbus;
pub mod mosquitto;
pub mod ordering;
pub mod pki;
pub mod platform;
pub mod ports;
mod preload;
pub mod process;
pub mod proxy;
pub mod readme;
pub mod robot;
pub mod scripted;
pub mod seed;
pub mod site;
pub mod strace;
pub mod turn;
pub mod wait;
pub mod wire;
