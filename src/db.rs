//! The way to the database: connecting, waiting for it, and the private server.

pub mod connect;
pub mod embedded;
pub mod wait;

mod pool;
mod tls;
