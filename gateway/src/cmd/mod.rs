//! Subcommands: one file each.

pub mod journal;
