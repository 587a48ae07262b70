//! Latency: from just before the enqueueing statement to the start of the handler, beside the statement alone (its commit).

use std::time::{Duration, Instant};

use crate::options::Options;
use crate::report::{Figure, percentile, progress};
use crate::server::{Server, define_noop, session};
use crate::tally::{Waits, prepare_insert};

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let length = Duration::from_secs(options.secs(20));
    let mut figures = Vec::new();
    for (case, pause) in [("200 tasks/s", 5), ("alone, 4 tasks/s", 250)] {
        let mut waits: [Vec<f64>; 3] = Default::default();
        let mut commits: [Vec<f64>; 3] = Default::default();
        for run in 1..=options.runs {
            progress(&format!("latency, run {run}: {case}"));
            let (waited, committed) = enqueue(server, Duration::from_millis(pause), length).await;
            for (at, (_, share)) in SHARES.iter().enumerate() {
                waits[at].push(percentile(&waited, *share));
                commits[at].push(percentile(&committed, *share));
            }
        }
        for (((name, _), waits), commits) in SHARES.iter().zip(waits).zip(commits) {
            figures.push(Figure::new(format!("{case}, {name}"), "ms", waits).to(
                "the insert alone",
                &commits,
                None,
            ));
        }
    }
    figures
}

/// How long each task waited, and how long its insert alone took.
async fn enqueue(server: &Server, pause: Duration, length: Duration) -> (Vec<f64>, Vec<f64>) {
    let client = session(&server.database("latency").await).await;
    define_noop(&client, "none").await;
    let waits = Waits::new();
    let daemon = server.daemon("latency", waits.handlers(), "").await;
    let insert = prepare_insert(&client).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut ticks = tokio::time::interval(pause);
    let until = Instant::now() + length;
    let mut commits = Vec::new();
    while Instant::now() < until {
        ticks.tick().await;
        commits.push(waits.enqueue(&client, &insert).await);
    }
    let waited = waits.all(commits.len()).await;
    daemon.stop().await;
    (waited, commits)
}
