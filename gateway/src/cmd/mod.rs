//! Subcommands: one file each.

<<<<<<< HEAD
pub mod journal;
=======
pub mod platform_check;
>>>>>>> contract
