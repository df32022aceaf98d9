//! Subcommands: one file each.
pub mod client;
