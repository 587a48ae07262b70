//! The one integration binary: one module per noun, so that everything links once.

mod config;
mod connect;
mod embedded;
