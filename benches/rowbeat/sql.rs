//! Sql: tasks that are database functions, run and recorded in one transaction each, beside as many sessions that just commit: the same
//! function called by a client (the server's own rate for this work), and the function's insert alone.

use std::time::Duration;

use crate::drain::left;
use crate::options::Options;
use crate::pgbench::{self, Length};
use crate::report::{Figure, progress};
use crate::server::{PAYLOAD, Server, has_definition_column, session, settle};
use crate::tally::Tally;

/// Sessions for sql tasks, and tasks at the same time: the daemon's defaults.
const SESSIONS: u32 = 10;
const BATCH: i16 = 100;

const SCHEMA: &str = "create table public.effect (task_id bigint, i bigint, at timestamptz default clock_timestamp());
    create function public.perform(payload jsonb) returns void language plpgsql as $$ begin
        insert into public.effect (task_id, i) values (current_setting('rowbeat.task_id', true)::bigint, (payload ->> 'i')::bigint);
    end $$";
const CALL: &str = "select public.perform('{\"i\": 1}');\n";
const INSERT: &str = "insert into public.effect (task_id, i) values (1, 1);\n";

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let tasks = options.tasks / 10;
    let client = session(&server.database("sql").await).await;
    let batched = has_definition_column(&client, "sql_batch").await;
    let (mut single, mut many) = (Vec::new(), Vec::new());
    let mut alone = [("calls", CALL, Vec::new()), ("inserts", INSERT, Vec::new())];
    for run in 1..=options.runs {
        progress(&format!("sql, run {run}: one a transaction"));
        single.push(drain(server, tasks, None).await);
        for (name, script, rates) in &mut alone {
            progress(&format!("sql, run {run}: {name}"));
            let outcome =
                pgbench::run(server, "sql", script, SESSIONS, Length::Seconds(options.secs(5))).await;
            rates.push(outcome.rate);
        }
        if batched {
            progress(&format!("sql, run {run}: {BATCH} a transaction"));
            many.push(drain(server, tasks, Some(BATCH)).await);
        }
    }
    let [calls, inserts] = alone.map(|(name, _, rates)| (format!("{name} of {SESSIONS} sessions"), rates));
    let beside = |case: String, rates, least| {
        Figure::new(case, "tasks/s", rates).to(&calls.0, &calls.1, least).to(&inserts.0, &inserts.1, None)
    };
    let mut figures = vec![beside(format!("{tasks} tasks, one a transaction"), single, Some(0.6))];
    if batched {
        figures.push(beside(format!("{tasks} tasks, up to {BATCH} a transaction"), many, None));
    }
    figures.extend([calls, inserts].map(|(name, rates)| Figure::new(name, "commits/s", rates)));
    figures
}

/// Tasks per second, from the first effect to the last.
async fn drain(server: &Server, tasks: u64, batch: Option<i16>) -> f64 {
    let client = session(&server.database("sql").await).await;
    client.batch_execute(SCHEMA).await.unwrap();
    let define = "insert into rowbeat.task_definition (name, executor, function, keep) values ('effect', 'sql', 'public.perform', 'none')";
    client.batch_execute(define).await.unwrap();
    if let Some(batch) = batch {
        client.execute("update rowbeat.task_definition set sql_batch = $1", &[&batch]).await.unwrap();
    }
    let fill = format!(
        "insert into rowbeat.task (definition, payload) select 'effect', {PAYLOAD} from generate_series(1, {tasks}) g"
    );
    client.batch_execute(&fill).await.unwrap();
    settle(&client).await;
    let daemon = server.daemon("sql", Tally::new(0).handlers(), "").await;
    // Seldom: to count takes milliseconds of the processors that are measured.
    while left(&client, "effect").await > 0 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    daemon.stop().await;
    let look = "select count(*), count(distinct e.i), extract(epoch from max(e.at) - min(e.at))::float8 from public.effect e";
    let row = client.query_one(look, &[]).await.unwrap();
    let (effects, distinct, seconds): (i64, i64, f64) = (row.get(0), row.get(1), row.get(2));
    let tasks = i64::try_from(tasks).unwrap();
    assert_eq!((effects, distinct), (tasks, tasks), "each task took effect exactly once");
    (tasks - 1) as f64 / seconds
}
