//! rowbeat: one daemon beside your Postgres. A row inserted, a table changed or a schedule come due becomes a task that
//! runs durably, is retried, and can be inspected with psql.
//!
//! The binary is a thin wrapper around this library. Programs that bring Rust handlers of their own (`native` tasks) embed
//! it: see [`daemon::Daemon`] and [`executor::native::Handlers`].
//!
//! Floors, top to bottom; imports go strictly down: `cli`, `daemon` · `plugin`, `status` · the loops (`change::router`, `backup::keeper`,
//! `schedule::scheduler`, `task::dispatcher`, …) · `task::attempt`, `executor` · the nouns and pure rules · `config`, `db`,
//! `service`, `shutdown`, `telemetry`.

pub mod backup;
pub mod change;
pub mod channel;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod db;
pub mod executor;
pub mod plugin;
pub mod schedule;
pub mod service;
pub mod shutdown;
pub mod status;
pub mod task;
pub mod telemetry;
