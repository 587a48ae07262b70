//! Enqueue: tasks one by one, in bulk and by COPY, beside the same into a table of the same columns and indexes.

use std::io::Cursor;
use std::pin::pin;
use std::time::Instant;

use futures_util::SinkExt;
use tokio_postgres::Client;

use crate::options::Options;
use crate::report::{Figure, progress};
use crate::server::{PAYLOAD, Server, define_noop, like_table, session};

/// How tasks are enqueued.
#[derive(Clone, Copy)]
enum Way {
    Single,
    Bulk,
    Copy,
}

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let client = session(&server.database("enqueue").await).await;
    define_noop(&client, "all").await;
    like_table(&client, "bare").await;
    let mut figures = Vec::new();
    let ways = [
        (Way::Single, "one by one", options.tasks / 100),
        (Way::Bulk, "in one statement", options.tasks / 4),
        (Way::Copy, "by COPY", options.tasks / 4),
    ];
    for (way, name, tasks) in ways {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for run in 1..=options.runs {
            for (table, rates) in [("rowbeat.task", &mut ours), ("public.bare", &mut bare)] {
                progress(&format!("enqueue, run {run}: {name}, {table}"));
                client.batch_execute(&format!("truncate {table}; checkpoint")).await.unwrap();
                rates.push(enqueue(&client, table, way, tasks).await);
            }
        }
        figures.push(Figure::new(format!("{tasks} {name}"), "tasks/s", ours).to("bare table", &bare, None));
        figures.push(Figure::new(format!("{tasks} {name}, bare table"), "rows/s", bare));
    }
    figures
}

/// Tasks per second.
async fn enqueue(client: &Client, table: &str, way: Way, tasks: u64) -> f64 {
    let begun = Instant::now();
    match way {
        Way::Single => single(client, table, tasks).await,
        Way::Bulk => {
            let insert = format!(
                "insert into {table} (definition, payload) select 'noop', {PAYLOAD} from generate_series(1, {tasks}) g"
            );
            client.batch_execute(&insert).await.unwrap();
        }
        Way::Copy => copy(client, table, tasks).await,
    }
    tasks as f64 / begun.elapsed().as_secs_f64()
}

async fn single(client: &Client, table: &str, tasks: u64) {
    let insert = format!(
        "insert into {table} (definition, payload) select 'noop', {PAYLOAD} from (select $1::bigint) i (g)"
    );
    let insert = client.prepare(&insert).await.unwrap();
    for i in 0..tasks {
        client.execute(&insert, &[&i64::try_from(i).unwrap()]).await.unwrap();
    }
}

async fn copy(client: &Client, table: &str, tasks: u64) {
    let statement = format!("copy {table} (definition, payload) from stdin");
    let mut sink = pin!(client.copy_in::<_, Cursor<String>>(&statement).await.unwrap());
    for from in (0..tasks).step_by(1_000) {
        let lines = (from..tasks.min(from + 1_000)).map(|i| {
            format!("noop\t{{\"i\": {i}, \"t\": 0, \"s\": \"0123456789abcdef0123456789abcdef\"}}\n")
        });
        sink.send(Cursor::new(lines.collect())).await.unwrap();
    }
    sink.finish().await.unwrap();
}
