//! rowbeat: one daemon beside your Postgres.

pub mod schedule;
