//! The benchmark program: `cargo bench --bench rowbeat [-- MEASURE …] [--runs N] [--json]`.
//!
//! It starts a private Postgres (fsync on), takes each measure against a daemon, and prints a table. Machines are shared
//! and noisy: compare only figures of one run, and read them as ratios. What they mean is in `benches/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]
#![allow(clippy::disallowed_methods, reason = "no loop of the daemon")]
#![allow(missing_docs, unreachable_pub, reason = "a program has no outside")]

mod ahead;
mod capture;
mod change;
mod drain;
mod enqueue;
mod idle;
mod latency;
mod live;
mod options;
mod pgbench;
mod report;
mod server;
mod snapshot;
mod sql;
mod statement;
mod tally;
mod waiting;
mod writers;

use clap::{Parser, ValueEnum};

use options::{Measure, Options};

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let server = server::Server::start().await;
    let mut figures = Vec::new();
    for measure in Measure::value_variants().iter().filter(|measure| options.wants(**measure)) {
        let taken = match measure {
            Measure::Enqueue => enqueue::measure(&server, &options).await,
            Measure::Writers => writers::measure(&server, &options).await,
            Measure::Latency => latency::measure(&server, &options).await,
            Measure::Idle => idle::measure(&server, &options).await,
            Measure::Drain => drain::measure(&server, &options).await,
            Measure::Waiting => waiting::measure(&server, &options).await,
            Measure::Ahead => ahead::measure(&server, &options).await,
            Measure::Snapshot => snapshot::measure(&server, &options).await,
            Measure::Live => live::measure(&server, &options).await,
            Measure::Sql => sql::measure(&server, &options).await,
            Measure::Capture => capture::measure(&server, &options).await,
            Measure::Change => change::measure(&server, &options).await,
            Measure::Statement => statement::measure(&server, &options).await,
        };
        let name = measure.to_possible_value().unwrap().get_name().to_owned();
        figures.extend(taken.into_iter().map(|figure| (name.clone(), figure)));
    }
    let version = server.version().await;
    server.stop().await;
    report::progress("");
    if options.json {
        report::print_json(&options, &version, &figures);
    } else {
        report::print_table(&figures);
    }
}
