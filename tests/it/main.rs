//! The one integration binary: one module per noun, so that everything links once.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

mod config;
mod connect;
mod embedded;
