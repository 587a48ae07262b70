//! Change: from just before a statement that changes a watched table (so its commit is in it) to the start of the task's handler.

use std::time::{Duration, Instant};

use crate::options::Options;
use crate::report::{Figure, percentile, progress};
use crate::server::{Server, define_noop, session};
use crate::tally::Waits;

const SHARES: [(&str, f64, f64); 3] = [("p50", 0.5, 10.0), ("p95", 0.95, 50.0), ("p99", 0.99, 50.0)];

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let length = Duration::from_secs(options.secs(20));
    let mut figures = Vec::new();
    for (case, pause) in [("200 changes/s", 5), ("alone, 4 changes/s", 250)] {
        let mut waits: [Vec<f64>; 3] = Default::default();
        let mut commits: [Vec<f64>; 3] = Default::default();
        for run in 1..=options.runs {
            progress(&format!("change, run {run}: {case}"));
            let (waited, committed) = change(server, Duration::from_millis(pause), length).await;
            for (at, (_, share, _)) in SHARES.iter().enumerate() {
                waits[at].push(percentile(&waited, *share));
                commits[at].push(percentile(&committed, *share));
            }
        }
        for (((name, _, limit), waits), commits) in SHARES.iter().zip(waits).zip(commits) {
            let figure = Figure::new(format!("{case}, {name}"), "ms", waits);
            figures.push(figure.at_most(*limit).to("the change alone", &commits, None));
        }
    }
    figures
}

/// How long each task waited since its change, and how long the change alone took.
async fn change(server: &Server, pause: Duration, length: Duration) -> (Vec<f64>, Vec<f64>) {
    let client = session(&server.database("change").await).await;
    define_noop(&client, "none").await;
    client
        .batch_execute(
            "create table public.orders (id bigint generated always as identity primary key, document jsonb not null);
             select rowbeat.watch('public.orders', 'noop', p_payload => 'new.document', p_condition => 'new.id > 0')",
        )
        .await
        .unwrap();
    let waits = Waits::new();
    let daemon = server.daemon("change", waits.handlers(), "").await;
    let insert = client.prepare("insert into public.orders (document) values ($1)").await.unwrap();
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
