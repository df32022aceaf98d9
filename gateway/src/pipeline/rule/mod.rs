//! Rules: what to watch, under which condition and for how long, what to raise and what to do. Pure.
//!
//! [`Rules::compile`] checks and indexes what files say ([`config`]); [`Engine`] holds records against it. Must not know
//! alarms: it tells signals, and the book makes alarms of them. docs/rules.md teaches writing rules.
//!
//! Limits: [`crate::model::limits::RULES_MAX`] rules; an expression is bounded in length, nesting and loops, so that what
//! it costs is bounded too.

mod bounds;
mod catalogue;
mod compile;
pub mod config;
mod counting;
mod engine;
mod explaining;
mod expression;
pub mod hours;
mod loops;
pub mod many;
mod names;
mod rules;
mod samples;
mod settle;
mod shape;
mod shipped;
mod sides;
mod signals;
mod slips;
mod state;
#[cfg(test)]
mod tests;
mod trial;
mod values;

pub use self::catalogue::{Catalogue, Model};
pub use self::compile::{Finding, Source};
pub(super) use self::engine::Engine;
pub use self::rules::{Misfits, Rules};
pub use self::shipped::shipped;
