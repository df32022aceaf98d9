//! Care for people living alone (独居老人): no sign of life for so long, water that does not stop, restless nights. Pure.
//!
//! What must hold: silence of a sensor is never taken for silence of a person; nor is time in which the box was off. Nobody
//! is watched without consent. What is seen stays in the box: only alarms leave (`north`'s view sees to it).
//!
//! `life` is one household's state, `flow` its water, `sensor` what is remembered of devices.

mod check;
mod config;
mod flow;
mod life;
mod sensor;
#[cfg(test)]
mod tests;
mod watch;
mod words;

pub use check::{Around, problems};
pub use config::{Away, CareConfig, Codes, Consent, Household, Leak, Night, SIGNALS_MAX, Said, Sign};
pub(super) use watch::{Ask, Care};
