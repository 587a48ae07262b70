//! Ahead: whether tasks that must not run yet are in the way of those behind them.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::options::Options;
use crate::report::{Figure, progress};
use crate::server::{PAYLOAD, Server, define_noop, fill, has_definition_column, session, settle};
use crate::tally::Tally;

/// What is ahead of the tasks that are drained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Nothing,
    /// Half of them in the same lane, half in one that comes first.
    Future,
    /// Half of them enqueued before the pause.
    Paused,
    /// One of them runs all the time, as many as its definition allows.
    Limited,
}

impl Obstacle {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Future => "future tasks",
            Self::Paused => "tasks of a paused definition",
            Self::Limited => "tasks of a definition at its limit",
        }
    }

    /// Whether this schema has what it is about.
    async fn exists(self, client: &Client) -> bool {
        match self {
            Self::Nothing | Self::Future => true,
            Self::Paused => has_definition_column(client, "paused_at").await,
            Self::Limited => has_definition_column(client, "concurrency").await,
        }
    }

    async fn lay(self, client: &Client, tasks: u64) {
        let define = "insert into rowbeat.task_definition (name, executor) values ('held', 'native')";
        client.batch_execute(define).await.unwrap();
        match self {
            Self::Nothing => {}
            Self::Future => {
                let insert = format!(
                    "insert into rowbeat.task (definition, payload, run_at, priority)
                     select 'held', {PAYLOAD}, now() + interval '1 day', 50 + 50 * (g % 2) from generate_series(1, {tasks}) g"
                );
                client.batch_execute(&insert).await.unwrap();
            }
            Self::Paused => {
                fill(client, "held", tasks / 2).await;
                let pause = "update rowbeat.task_definition set paused_at = now() where name = 'held'";
                client.batch_execute(pause).await.unwrap();
                fill(client, "held", tasks - tasks / 2).await;
            }
            Self::Limited => {
                let limit = "update rowbeat.task_definition set concurrency = 1 where name = 'held'";
                client.batch_execute(limit).await.unwrap();
                fill(client, "held", tasks).await;
            }
        }
    }
}

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let mut taken = Vec::new();
    let client = session(&server.database("drain").await).await;
    for obstacle in [Obstacle::Nothing, Obstacle::Future, Obstacle::Paused, Obstacle::Limited] {
        if obstacle.exists(&client).await {
            taken.push((obstacle, Vec::new()));
        }
    }
    for run in 1..=options.runs {
        for (obstacle, rates) in &mut taken {
            progress(&format!("ahead, run {run}: {}", obstacle.name()));
            rates.push(drain(server, *obstacle, options).await);
        }
    }
    let free = taken[0].1.clone();
    let mut figures = Vec::new();
    for (obstacle, rates) in taken {
        figures.push(if obstacle == Obstacle::Nothing {
            Figure::new(format!("{} tasks, nothing ahead", options.tasks), "tasks/s", rates)
        } else {
            let case = format!("{} {}", options.waiting, obstacle.name());
            Figure::new(case, "tasks/s", rates).to("nothing ahead", &free, Some(0.95))
        });
    }
    figures
}

async fn drain(server: &Server, obstacle: Obstacle, options: &Options) -> f64 {
    let client = session(&server.database("drain").await).await;
    define_noop(&client, "none").await;
    obstacle.lay(&client, options.waiting).await;
    fill(&client, "noop", options.tasks).await;
    settle(&client).await;
    let tally = Tally::new(options.tasks);
    let gate = Arc::new(Semaphore::new(0));
    let handlers = tally.handlers().with("held", {
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                // Closed when the drain is over.
                let _ = gate.acquire().await;
                Ok(Value::Null)
            }
        }
    });
    let daemon = server.daemon("drain", handlers, "").await;
    tally.reached().await;
    daemon.no_more();
    gate.close();
    daemon.stop().await;
    tally.rate()
}
