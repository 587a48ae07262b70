//! rowbeat: one daemon beside your Postgres.

pub mod config;
pub mod db;
