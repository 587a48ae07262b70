//! Drain: how fast one daemon works off a backlog of no-op tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rowbeat::executor::native::Handlers;
use serde_json::Value;

use crate::server::{Server, session};
use crate::{Figure, median};

const TASKS: u64 = 200_000;
const RUNS: usize = 3;

pub async fn measure(server: &Server) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (keep, case) in
        [("none", "200,000 no-op tasks, nothing kept"), ("all", "200,000 no-op tasks, finished rows kept")]
    {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            rates.push(drain(server, keep).await);
        }
        figures.push(Figure {
            measure: "drain",
            case: case.to_owned(),
            value: median(rates),
            unit: "tasks/s",
        });
    }
    figures
}

/// Handler starts per second, first to last; waits until every ending is on record.
async fn drain(server: &Server, keep: &str) -> f64 {
    let connector = server.database("drain").await;
    let client = session(&connector).await;
    client
        .batch_execute(&format!(
            "insert into rowbeat.task_definition (name, executor, keep) values ('noop', 'native', '{keep}');
             insert into rowbeat.task (definition, payload) select 'noop', jsonb_build_object('i', g) from generate_series(1, {TASKS}) g"
        ))
        .await
        .unwrap();
    client.batch_execute("vacuum analyze rowbeat.task").await.unwrap();
    client.batch_execute("checkpoint").await.unwrap();
    let (count, first, last) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let handlers = Handlers::new().with("noop", {
        let (count, first, last) = (Arc::clone(&count), Arc::clone(&first), Arc::clone(&last));
        move |_| {
            let now = u64::try_from(begun.elapsed().as_micros()).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            first.fetch_min(now, Ordering::Relaxed);
            last.fetch_max(now, Ordering::Relaxed);
            async { Ok(Value::Null) }
        }
    });
    let daemon = server.daemon("drain", handlers, "").await;
    while count.load(Ordering::Relaxed) < TASKS {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "only {} tasks in 300 s",
            count.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    loop {
        let left: i64 = client.query_one("select count(*) from rowbeat.task", &[]).await.unwrap().get(0);
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.stop().await;
    let micros = last.load(Ordering::Relaxed) - first.load(Ordering::Relaxed);
    TASKS as f64 / (micros as f64 / 1e6)
}
