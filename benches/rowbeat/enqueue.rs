//! Enqueue: tasks one by one, in bulk and by COPY, beside bare inserts into a table of the same columns and indexes.

use std::time::Instant;

use tokio_postgres::Client;

use crate::server::{Server, session};
use crate::{Figure, median};

const SINGLE: u32 = 2_000;
const BULK: u32 = 50_000;

const BARE: &str = "create table public.bare (like rowbeat.task including all);
    alter table public.bare alter queue set default 'default', alter priority set default 100, alter run_at set default now(),
        alter max_attempts set default 5, alter created_at set default now()";

pub async fn measure(server: &Server) -> Vec<Figure> {
    let connector = server.database("enqueue").await;
    let client = session(&connector).await;
    client
        .batch_execute("insert into rowbeat.task_definition (name, executor) values ('noop', 'native')")
        .await
        .unwrap();
    client.batch_execute(BARE).await.unwrap();
    let mut figures = Vec::new();
    for (case, table) in [("one by one", "rowbeat.task"), ("one by one, bare table", "public.bare")] {
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(single(&client, table).await);
        }
        figures.push(Figure {
            measure: "enqueue",
            case: case.to_owned(),
            value: median(rates),
            unit: "tasks/s",
        });
    }
    for (case, table) in
        [("50,000 in one statement", "rowbeat.task"), ("50,000 in one statement, bare table", "public.bare")]
    {
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(bulk(&client, table).await);
        }
        figures.push(Figure {
            measure: "enqueue",
            case: case.to_owned(),
            value: median(rates),
            unit: "tasks/s",
        });
    }
    figures
}

async fn single(client: &Client, table: &str) -> f64 {
    let insert = client
        .prepare(&format!(
            "insert into {table} (definition, payload) values ('noop', jsonb_build_object('i', 1))"
        ))
        .await
        .unwrap();
    let begun = Instant::now();
    for _ in 0..SINGLE {
        client.execute(&insert, &[]).await.unwrap();
    }
    f64::from(SINGLE) / begun.elapsed().as_secs_f64()
}

async fn bulk(client: &Client, table: &str) -> f64 {
    let begun = Instant::now();
    client
        .batch_execute(&format!(
            "insert into {table} (definition, payload) select 'noop', jsonb_build_object('i', g) from generate_series(1, {BULK}) g"
        ))
        .await
        .unwrap();
    f64::from(BULK) / begun.elapsed().as_secs_f64()
}
