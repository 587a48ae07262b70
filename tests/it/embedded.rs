//! The private Postgres: start, crash, recovery.
