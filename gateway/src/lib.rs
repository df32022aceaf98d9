//! Gatehouse: the daemon of the box in a residential compound's gate room.
//!
//! Data flows one way: south, journal, pipeline, north. docs/ARCHITECTURE.md is the map.

pub mod cmd;
pub mod config;
pub mod console;
pub mod desk;
pub mod model;
pub mod north;
pub mod pipeline;
pub mod rt;
pub mod south;
pub mod store;
