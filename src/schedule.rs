//! Schedules: when a row of `schedule` fires.
//!
//! [`recurrence`] turns a spec, a time zone and an anchor into fire times, [`crontab`] reads the crontab form of a
//! spec. Everything here is pure: no clock, no database. The decision to fire lies elsewhere and goes by the
//! stored next fire, never by matching "now" against a pattern.
//!
//! The way of a crontab line: `crontab` splits it into fields, `field` reads one field into a set, `days` knows
//! which dates match, `calendar` enumerates wall-clock times, `clock` turns those into instants across clock
//! changes. `interval` and `moment` are the two other forms, `refusal` and `advice` what a wrong spec gets. `backlog` decides what
//! becomes of the times that have come, `scheduler` is the loop around all of it.
//!
//! Invariant: fire times are strictly increasing instants, and asking from any instant gives the same answers as
//! walking along.

mod advice;
mod backlog;
mod calendar;
mod clock;
pub mod crontab;
mod days;
mod field;
mod interval;
mod moment;
pub mod recurrence;
mod refusal;
pub mod scheduler;

pub use field::Field;
pub use refusal::{Problem, SpecError};

#[cfg(test)]
mod cases;
#[cfg(test)]
mod model;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refusal_cases;
