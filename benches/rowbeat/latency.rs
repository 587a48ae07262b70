//! Latency: from just before the enqueueing statement to the start of the handler, at a steady rate and on an idle daemon.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rowbeat::executor::native::Handlers;
use serde_json::{Value, json};

use crate::server::{Server, session};
use crate::{Figure, percentile};

pub async fn measure(server: &Server) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (case, pause, seconds) in
        [("200 tasks/s", Duration::from_millis(5), 20), ("idle, 4 tasks/s", Duration::from_millis(250), 20)]
    {
        let mut waits = run(server, pause, Duration::from_secs(seconds)).await;
        for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            let value = percentile(&mut waits, share);
            figures.push(Figure { measure: "latency", case: format!("{case}, {name}"), value, unit: "ms" });
        }
    }
    figures
}

async fn run(server: &Server, pause: Duration, length: Duration) -> Vec<f64> {
    let connector = server.database("latency").await;
    let client = session(&connector).await;
    client
        .batch_execute(
            "insert into rowbeat.task_definition (name, executor, keep) values ('noop', 'native', 'none')",
        )
        .await
        .unwrap();
    let begun = Instant::now();
    let waits = Arc::new(Mutex::new(Vec::new()));
    let handlers = Handlers::new().with("noop", {
        let waits = Arc::clone(&waits);
        move |effect| {
            let sent = effect.task.payload["t"].as_f64().unwrap();
            waits.lock().unwrap().push(begun.elapsed().as_secs_f64() * 1000.0 - sent);
            async { Ok(Value::Null) }
        }
    });
    let daemon = server.daemon("latency", handlers, "").await;
    let insert =
        client.prepare("insert into rowbeat.task (definition, payload) values ('noop', $1)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut ticks = tokio::time::interval(pause);
    let until = Instant::now() + length;
    let mut sent = 0;
    while Instant::now() < until {
        ticks.tick().await;
        client.execute(&insert, &[&json!({ "t": begun.elapsed().as_secs_f64() * 1000.0 })]).await.unwrap();
        sent += 1;
    }
    while waits.lock().unwrap().len() < sent {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.stop().await;
    std::mem::take(&mut waits.lock().unwrap())
}
