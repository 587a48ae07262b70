//! The one integration binary: one module per noun, so that everything links once. A database per test, cloned from a
//! template; real daemon processes; waiting on events or with a deadline.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::print_stderr, reason = "a failed test shows the daemon's log")]
#![allow(clippy::disallowed_methods, reason = "tests are no loops of the daemon")]

mod harness;
mod postbox;
mod web;

mod app;
mod capture;
mod change;
mod change_storm;
mod channel;
mod chaos;
mod cli;
mod cli_private;
mod cli_table;
mod config;
mod connect;
mod connections;
mod crash;
mod docs;
mod doorbell;
mod doorbell_model;
mod embedded;
mod endpoint;
mod endpoint_auth;
mod enqueue;
mod executor;
mod failover;
mod freight;
mod freight_alert;
mod freight_billing;
mod freight_command;
mod freight_event;
mod freight_rate;
mod hotspot;
mod hotspot_backup;
mod hotspot_buy;
mod hotspot_deliver;
mod hotspot_office;
mod http;
mod http_guard;
#[cfg(feature = "kafka")]
mod kafka;
mod limit;
mod migrate;
mod plugin;
mod plugin_files;
mod plugin_guard;
mod plugin_upgrade;
mod policy;
mod queries;
mod replay;
mod rescue;
mod role;
mod schedule;
mod schedule_crash;
mod schedule_policy;
mod schedule_spec;
mod shutdown;
mod smtp;
mod snapshot;
mod status;
mod task;
mod tidy;
mod watch;
mod worker;
