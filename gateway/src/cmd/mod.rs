//! Subcommands: one file each.

pub mod platform_check;
