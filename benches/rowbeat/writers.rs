//! Writers: commits per second of sessions that each enqueue one task a transaction, beside a daemon that is busy; and how
//! many of these commits had to call NOTIFY, which lets the server commit only one at a time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rowbeat::db::connect::Connector;
use rowbeat::executor::native::Handlers;
use serde_json::Value;
use tokio_postgres::Client;

use crate::drain::left;
use crate::options::Options;
use crate::pgbench::{self, Length};
use crate::report::{Figure, progress};
use crate::server::{Server, define_noop, fill, like_table, listener, session, settle};

const SESSIONS: [u32; 3] = [1, 8, 32];
/// What the daemon is busy with all the time, in every case: tasks of a few milliseconds from a backlog, which ten slots cannot
/// exhaust: at most so many a second.
const BUSY: Duration = Duration::from_millis(2);
const BUSY_RATE: u64 = 5_000;
/// What the row trigger rings by, and does not on the table beside.
const BELL: &str = " and (pg_try_advisory_xact_lock_shared(1919907682, 1) or rowbeat.has_rung('task'))";
/// Where the writers write: places in `CASES`.
const BARE: usize = 0;
const ROW_TRIGGER: usize = 1;
const ENQUEUED: usize = 2;
const WORKED_OFF: usize = 3;
const CASES: [(&str, &str, &str); 4] = [
    ("bare table", "public.bare", "default"),
    ("bare table with the row trigger, without the bell", "public.filled", "default"),
    ("tasks of another node's queue", "rowbeat.task", "elsewhere"),
    ("tasks, worked off as they come", "rowbeat.task", "default"),
];

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let seconds = options.secs(5);
    let mut figures = Vec::new();
    for sessions in SESSIONS {
        let mut commits: [Vec<f64>; 4] = Default::default();
        let mut notified: [Vec<f64>; 4] = Default::default();
        for run in 1..=options.runs {
            let connector = server.database("writers").await;
            let client = session(&connector).await;
            prepare(&client, (seconds + 1) * CASES.len() as u64 * BUSY_RATE).await;
            let daemon = server.daemon("writers", handlers(), "queues = [\"default\"]").await;
            for (case, (name, table, queue)) in CASES.iter().enumerate() {
                progress(&format!("writers, run {run}: {sessions} sessions, {name}"));
                let (rate, bells) = commit(server, &connector, table, queue, sessions, seconds).await;
                commits[case].push(rate);
                notified[case].push(bells);
            }
            assert!(left(&client, "noop").await > 0, "the daemon was busy to the end");
            daemon.stop().await;
        }
        figures.extend(tell(sessions, &commits, &notified));
    }
    figures
}

/// Commits per second, and how many of a hundred notified.
async fn commit(
    server: &Server,
    connector: &Connector,
    table: &str,
    queue: &str,
    sessions: u32,
    seconds: u64,
) -> (f64, f64) {
    let (_listening, heard) = listener(connector).await;
    let script = format!(
        "insert into {table} (definition, payload, queue, priority)
         values ('quick', '{{\"i\": 1, \"s\": \"0123456789abcdef0123456789abcdef\"}}', '{queue}', 50);\n"
    );
    let outcome = pgbench::run(server, "writers", &script, sessions, Length::Seconds(seconds)).await;
    (outcome.rate, 100.0 * heard.load(Ordering::Relaxed) as f64 / outcome.transactions as f64)
}

fn tell(sessions: u32, commits: &[Vec<f64>; 4], notified: &[Vec<f64>; 4]) -> Vec<Figure> {
    let figure = |case: usize| {
        Figure::new(format!("{sessions}: {}", CASES[case].0), "commits/s", commits[case].clone())
    };
    let bells = |case: usize| {
        Figure::new(format!("{sessions}: NOTIFYs, {}", CASES[case].0), "/100", notified[case].clone())
    };
    vec![
        figure(BARE),
        figure(ROW_TRIGGER).to("bare table", &commits[BARE], None),
        figure(ENQUEUED).to("bare table", &commits[BARE], Some(0.6)).to(
            "bare table with the row trigger, without the bell",
            &commits[ROW_TRIGGER],
            Some(0.9),
        ),
        figure(WORKED_OFF).to("bare table", &commits[BARE], None),
        bells(ENQUEUED),
        bells(WORKED_OFF),
    ]
}

/// The tables, and what the daemon is busy with.
async fn prepare(client: &Client, backlog: u64) {
    define_noop(client, "none").await;
    like_table(client, "bare").await;
    like_table(client, "filled").await;
    let quick =
        "insert into rowbeat.task_definition (name, executor, keep) values ('quick', 'native', 'none')";
    client.batch_execute(quick).await.unwrap();
    let whole: String = client
        .query_one("select pg_get_functiondef('rowbeat.fill_task_defaults'::regproc)", &[])
        .await
        .unwrap()
        .get(0);
    let silent = whole.replace(BELL, "").replace("rowbeat.fill_task_defaults()", "public.fill()");
    assert_eq!(silent.len() + BELL.len() + 15, whole.len(), "the trigger rings otherwise by now: {whole}");
    let filled = format!(
        "{silent}; create trigger fill before insert on public.filled for each row execute function public.fill()"
    );
    client.batch_execute(&filled).await.unwrap();
    fill(client, "noop", backlog).await;
    settle(client).await;
}

fn handlers() -> Handlers {
    let busy = |_| async {
        tokio::time::sleep(BUSY).await;
        Ok(Value::Null)
    };
    Handlers::new().with("noop", busy).with("quick", |_| async { Ok(Value::Null) })
}
