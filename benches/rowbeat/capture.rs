//! Capture: what a watch costs who writes to its table, beside the same table unwatched, and with a row trigger that notifies.

use std::time::Instant;

use rowbeat::executor::native::Handlers;
use serde_json::Value;
use tokio_postgres::Client;

use crate::options::Options;
use crate::pgbench::{self, Length};
use crate::report::{Figure, progress};
use crate::server::{Server, define_noop, session};

const SESSIONS: [u32; 2] = [1, 32];
const ROWS: u32 = 30_000;
const VALUES: &str = "'new', 19.99, '0123456789abcdef0123456789abcdef'";
const TABLES: [(&str, &str); 3] =
    [("unwatched", "plain"), ("with a row trigger that notifies", "noted"), ("watched", "watched")];

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let seconds = options.secs(5);
    let mut figures = Vec::new();
    for sessions in SESSIONS {
        let mut rates: [Vec<f64>; 4] = Default::default();
        for run in 1..=options.runs {
            let client = prepare(server).await;
            for (case, (name, table)) in TABLES.iter().enumerate() {
                progress(&format!("capture, run {run}: {sessions} sessions, {name}"));
                client.batch_execute("checkpoint").await.unwrap();
                rates[case].push(commit(server, table, sessions, seconds).await);
            }
            progress(&format!("capture, run {run}: {sessions} sessions, routed meanwhile"));
            let noop = Handlers::new().with("noop", |_| async { Ok(Value::Null) });
            let daemon = server.daemon("capture", noop, "").await;
            rates[3].push(commit(server, "watched", sessions, seconds).await);
            daemon.stop().await;
        }
        let [plain, noted, watched, routed] = rates;
        let figure = |name: &str, rates: &[f64]| {
            Figure::new(format!("{sessions}: {name}"), "commits/s", rates.to_vec())
        };
        figures.extend([
            figure(TABLES[0].0, &plain),
            figure(TABLES[1].0, &noted).to("unwatched", &plain, None),
            figure(TABLES[2].0, &watched).to("unwatched", &plain, (sessions > 1).then_some(0.55)).to(
                "with a row trigger that notifies",
                &noted,
                (sessions > 1).then_some(2.0),
            ),
            figure("watched, routed and worked off meanwhile", &routed).to("unwatched", &plain, None),
        ]);
    }
    figures.extend(bulk(server, options).await);
    figures
}

async fn commit(server: &Server, table: &str, sessions: u32, seconds: u64) -> f64 {
    let script = format!("insert into public.{table} (status, price, note) values ({VALUES});\n");
    pgbench::run(server, "capture", &script, sessions, Length::Seconds(seconds)).await.rate
}

/// Rows per second of one statement that inserts, and of one that updates, all of them.
async fn bulk(server: &Server, options: &Options) -> Vec<Figure> {
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    for run in 1..=options.runs.max(3) {
        progress(&format!("capture, run {run}: {ROWS} rows"));
        let client = prepare(server).await;
        // The first statement of a session also reads the catalogue.
        for (rows, kept) in [(1, false), (ROWS, true)] {
            for (case, table) in ["plain", "watched"].iter().enumerate() {
                for (kind, statement) in [
                    format!("insert into public.{table} (status, price, note) select {VALUES} from generate_series(1, {rows})"),
                    format!("update public.{table} set price = price + 1"),
                ]
                .iter()
                .enumerate()
                {
                    client.batch_execute("checkpoint").await.unwrap();
                    let begun = Instant::now();
                    client.batch_execute(statement).await.unwrap();
                    if kept {
                        rates[kind][case].push(f64::from(rows) / begun.elapsed().as_secs_f64());
                    }
                }
            }
        }
    }
    let mut figures = Vec::new();
    for ([plain, watched], kind) in rates.into_iter().zip(["inserted", "updated"]) {
        let least = (kind == "inserted").then_some(1.0 / 3.5);
        figures.push(Figure::new(format!("{ROWS} rows {kind} at once, watched"), "rows/s", watched).to(
            "unwatched",
            &plain,
            least,
        ));
        figures.push(Figure::new(format!("{ROWS} rows {kind} at once, unwatched"), "rows/s", plain));
    }
    figures
}

/// Three tables that are the same but for their triggers.
async fn prepare(server: &Server) -> Client {
    let client = session(&server.database("capture").await).await;
    define_noop(&client, "none").await;
    for (_, table) in TABLES {
        let create = format!(
            "create table public.{table} (id bigint generated always as identity primary key, customer bigint not null default 42, status text not null,
                 price numeric not null, note text, at timestamptz not null default now());
             create index on public.{table} (customer)"
        );
        client.batch_execute(&create).await.unwrap();
    }
    client
        .batch_execute(
            "create trigger noted_trigger after insert or update or delete on public.noted for each row execute function rowbeat.notify_table_change();
             select rowbeat.watch('public.watched', 'noop')",
        )
        .await
        .unwrap();
    // As autovacuum does within a minute.
    client.batch_execute("analyze rowbeat.capture").await.unwrap();
    client
}
