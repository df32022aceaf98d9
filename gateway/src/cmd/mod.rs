//! Subcommands: one file each.

pub mod journal;
pub mod platform_check;
