//! The benchmark program: `cargo bench --bench rowbeat [-- MEASURE …] [--json]`.
//!
//! It starts a private Postgres (fsync on), runs each measure against a daemon in this process, and prints a table. Machines
//! are shared and noisy: compare only figures of one run, and read them as ratios.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]
#![allow(clippy::disallowed_methods, reason = "no loop of the daemon")]
#![allow(unreachable_pub, reason = "a program has no outside")]

mod drain;
mod enqueue;
mod latency;
mod server;

use serde_json::{Value, json};

/// One figure: what, how much, in which unit, and how it relates to its yardstick.
pub struct Figure {
    /// Name of the measure.
    pub measure: &'static str,
    /// What exactly was measured.
    pub case: String,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.contains(&name);
    let server = server::Server::start().await;
    let mut figures = Vec::new();
    if wants("enqueue") {
        figures.extend(enqueue::measure(&server).await);
    }
    if wants("latency") {
        figures.extend(latency::measure(&server).await);
    }
    if wants("drain") {
        figures.extend(drain::measure(&server).await);
    }
    server.stop().await;
    if json {
        let list: Vec<Value> = figures
            .iter()
            .map(|f| json!({ "measure": f.measure, "case": f.case, "value": f.value, "unit": f.unit }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&list).unwrap());
        return;
    }
    println!("{:<10} {:<44} {:>14}", "measure", "case", "value");
    for figure in &figures {
        println!("{:<10} {:<44} {:>10.2} {}", figure.measure, figure.case, figure.value, figure.unit);
    }
}

/// The value at a share of the sorted values.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
    values[index - 1]
}

/// The middle one of several runs.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}
