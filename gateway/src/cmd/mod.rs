//! Subcommands: one file each.
