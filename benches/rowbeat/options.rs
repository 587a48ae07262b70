//! What to measure, how often and at which size.

use clap::{Parser, ValueEnum};

/// Measures rowbeat on a private Postgres and prints a table, or JSON.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --bench rowbeat --", max_term_width = 110)]
pub struct Options {
    /// What to measure; everything when nothing is named.
    pub measures: Vec<Measure>,
    /// Run each measure so often; the figure is the median.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Tasks of a drain; the others are a share of it (bulk and after a snapshot 1/4, sql 1/10, one by one 1/100).
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub tasks: u64,
    /// Tasks of a large backlog, and of what is in the way.
    #[arg(long, default_value_t = 1_000_000)]
    pub waiting: u64,
    /// Raw transactions of `statement`.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub raw: u64,
    /// Merchants of `statement`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub merchants: u64,
    /// Length of a measure that has one, instead of its own.
    #[arg(long)]
    pub secs: Option<u64>,
    /// Tasks per second of all writers of `live`.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measures, in the order they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// One by one, in one statement, by COPY.
    Enqueue,
    /// Commits beside a busy daemon, with and without the triggers.
    Writers,
    /// From before the commit to the start of the handler.
    Latency,
    /// What a daemon costs that has nothing to do.
    Idle,
    /// A backlog, beside SQL alone.
    Drain,
    /// A large backlog beside a small one.
    Waiting,
    /// A backlog behind tasks that must not run yet.
    Ahead,
    /// A backlog while a transaction stays open.
    Snapshot,
    /// A steady load while a transaction stays open.
    Live,
    /// Tasks that are functions, beside commits.
    Sql,
    /// Writes to a watched table.
    Capture,
    /// From before a change's commit to the start of its task.
    Change,
    /// The bundled plugin statement: a rebuild, its endpoint, its lag.
    Statement,
}

impl Options {
    /// Whether a measure is asked for.
    pub fn wants(&self, measure: Measure) -> bool {
        self.measures.is_empty() || self.measures.contains(&measure)
    }

    /// How long something takes.
    pub fn secs(&self, usually: u64) -> u64 {
        self.secs.unwrap_or(usually).max(1)
    }
}
