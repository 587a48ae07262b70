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
mod backup;
mod backup_crash;
mod backup_target;
mod campaign;
mod campaign_command;
mod campaign_dayparting;
mod campaign_edges;
mod campaign_oracle;
mod campaign_page;
mod campaign_spend;
mod campaign_zone;
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
mod executor_plan;
mod failover;
mod freight;
mod freight_alert;
mod freight_billing;
mod freight_cli;
mod freight_command;
mod freight_event;
mod freight_http;
mod freight_listen;
mod freight_rate;
mod hotspot;
mod hotspot_backup;
mod hotspot_buy;
mod hotspot_checkout;
mod hotspot_deliver;
mod hotspot_edges;
mod hotspot_office;
mod http;
mod http_guard;
mod invoice;
mod invoice_mail;
mod invoice_page;
mod invoice_sale;
#[cfg(feature = "kafka")]
mod kafka;
mod limit;
mod login;
mod migrate;
mod plugin;
mod plugin_address;
mod plugin_consumer;
mod plugin_files;
mod plugin_guard;
mod plugin_upgrade;
mod policy;
mod queries;
mod replay;
mod rescue;
mod restore;
mod role;
mod schedule;
mod schedule_crash;
mod schedule_policy;
mod schedule_spec;
mod secret;
mod shutdown;
mod smtp;
mod snapshot;
mod statement;
mod statement_calendar;
mod statement_notification;
mod statement_sending;
mod statement_summary;
mod status;
mod status_tasks;
mod task;
mod tidy;
mod watch;
mod worker;
