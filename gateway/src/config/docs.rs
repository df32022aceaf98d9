//! docs/configuration.md from the types: each table with its keys, types, defaults and meanings.
//!
//! The head is written by hand here; a test fails when the file in docs/ is stale.
