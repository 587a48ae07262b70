//! rowbeat: one daemon beside your Postgres.
