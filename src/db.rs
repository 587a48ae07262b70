//! The way to the database: connecting, named statements, the doorbell, migrations, and the private server.

pub mod connect;
pub mod doorbell;
pub mod embedded;
pub mod listener;
pub mod migrate;
pub mod query;
pub mod sqlstate;
pub mod wait;

mod pool;
mod tls;
