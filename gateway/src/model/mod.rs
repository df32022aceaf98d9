//! What flows through Gatehouse. No I/O, no clocks, no knowledge of any protocol.

pub mod action;
pub mod alarm;
pub mod audit;
pub mod check;
pub mod clock;
pub mod command;
pub mod cursor;
pub mod ids;
pub mod journal;
pub mod json;
pub mod limits;
pub mod place;
pub mod record;
pub mod refusal;
pub mod roll;
pub mod stamp;
pub mod topic;
