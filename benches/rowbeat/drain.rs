//! Drain: how fast one daemon works off a backlog of no-op tasks, beside the same statements without a daemon.

use std::time::Duration;

use tokio_postgres::Client;

use crate::options::Options;
use crate::pgbench;
use crate::report::{Figure, progress};
use crate::server::{Server, define_noop, fill, session, settle};
use crate::tally::Tally;

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (keep, what) in [("none", "nothing kept"), ("all", "finished tasks kept")] {
        let (mut started, mut recorded, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for run in 1..=options.runs {
            progress(&format!("drain, {what}, run {run}: daemon"));
            let client = backlog(server, keep, options.tasks).await;
            let drained = by_daemon(server, &client, options.tasks).await;
            started.push(drained.started);
            recorded.push(drained.recorded);
            progress(&format!("drain, {what}, run {run}: SQL alone"));
            let client = backlog(server, keep, options.tasks).await;
            let rate = pgbench::drain(server, "drain", options.tasks).await;
            // What was changed while it was claimed is missed once: a few may be left.
            let left = left(&client, "noop").await;
            alone.push(rate * (options.tasks - left) as f64 / options.tasks as f64);
        }
        let case = format!("{} tasks, {what}", options.tasks);
        figures.push(Figure::new(format!("{case}: started"), "tasks/s", started).to(
            "SQL alone",
            &alone,
            None,
        ));
        figures.push(Figure::new(format!("{case}: recorded"), "tasks/s", recorded).to(
            "SQL alone",
            &alone,
            None,
        ));
        figures.push(Figure::new(format!("{case}: SQL alone"), "tasks/s", alone));
    }
    figures
}

/// A fresh database `drain` with so many waiting no-op tasks.
pub async fn backlog(server: &Server, keep: &str, tasks: u64) -> Client {
    let client = session(&server.database("drain").await).await;
    define_noop(&client, keep).await;
    fill(&client, "noop", tasks).await;
    settle(&client).await;
    client
}

/// Tasks per second: handler starts, first to last; and from the first start until all endings are on record.
pub struct Drained {
    pub started: f64,
    pub recorded: f64,
}

/// A daemon works off what waits in `drain`.
pub async fn by_daemon(server: &Server, client: &Client, tasks: u64) -> Drained {
    let tally = Tally::new(tasks);
    let daemon = server.daemon("drain", tally.handlers(), "").await;
    tally.reached().await;
    while left(client, "noop").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let drained = Drained { started: tally.rate(), recorded: tally.rate_until_now() };
    daemon.stop().await;
    assert_eq!(tally.count(), tasks, "each task is started once");
    drained
}

/// Tasks of a definition that have not ended.
pub async fn left(client: &Client, definition: &str) -> u64 {
    let count = "select count(*) from rowbeat.task t where t.definition = $1";
    let left: i64 = client.query_one(count, &[&definition]).await.unwrap().get(0);
    u64::try_from(left).unwrap()
}
