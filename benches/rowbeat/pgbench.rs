//! The server alone: pgbench runs a script on a database, without any daemon.

use rowbeat::db::query;
use tokio::process::Command;

use crate::server::Server;

/// How many tasks a busy daemon claims and completes at once.
pub const BATCH: u64 = 500;

/// The arguments of `task.claim` in order, as pgbench writes them: node, how many (`BATCH`), queues, definitions
/// it cannot perform.
const CLAIM: &[&str] = &[
    "0::bigint",
    "500::integer",
    "500::integer",
    "'{*}'",
    "'{}'",
    "null",
    "null",
    "null",
    "null",
    "null",
    "0",
];
/// The arguments of `task.complete`: ids, attempts, nodes, results.
const COMPLETE: &[&str] =
    &[":ids", ":attempts", "array_fill(0::bigint, array[cardinality(:ids::bigint[])])", "'{}'"];

/// How much a script is run.
pub enum Length {
    Seconds(u64),
    /// Times for each client.
    Times(u64),
}

/// What pgbench says.
pub struct Outcome {
    /// Per second, connecting not included.
    pub rate: f64,
    pub transactions: u64,
}

/// Runs a script with so many clients.
pub async fn run(server: &Server, database: &str, script: &str, clients: u32, length: Length) -> Outcome {
    let bindir: String = server
        .admin()
        .await
        .query_one("select setting from pg_catalog.pg_config() where name = 'BINDIR'", &[])
        .await
        .unwrap()
        .get(0);
    let (socket, port) = server.socket();
    let (flag, amount) = match length {
        Length::Seconds(seconds) => ("-T", seconds),
        Length::Times(times) => ("-t", times),
    };
    let mut command = Command::new(format!("{bindir}/pgbench"));
    command.arg("-h").arg(socket).args(["-p", &port.to_string(), "-U", "postgres", "-n", "-M", "prepared"]);
    command.args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string(), flag, &amount.to_string()]);
    command.arg("-f").arg(server.file("script.sql", script)).arg(database).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("{bindir}/pgbench: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench: {complaint}");
    let number = |before: &str| -> f64 {
        let rest =
            text.split(before).nth(1).unwrap_or_else(|| panic!("pgbench did not say {before}: {text}"));
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    };
    Outcome { rate: number("tps = "), transactions: number("actually processed: ") as u64 }
}

/// Works off what waits by the daemon's own two statements on two sessions; tasks per second.
pub async fn drain(server: &Server, database: &str, tasks: u64) -> f64 {
    let script = format!(
        "with claimed as ({}) select coalesce(array_agg(id), '{{}}') as ids, coalesce(array_agg(attempt), '{{}}') as attempts \
         from claimed \\gset\n{};\n",
        statement("task.claim", CLAIM),
        statement("task.complete", COMPLETE)
    );
    let outcome = run(server, database, &script, 2, Length::Times(tasks.div_ceil(2 * BATCH))).await;
    outcome.rate * tasks as f64 / outcome.transactions as f64
}

/// A named statement with arguments in it, in one line and without its comments.
fn statement(name: &str, arguments: &[&str]) -> String {
    let lines = query::text(name).lines().filter(|line| !line.trim_start().starts_with("--"));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    for (number, argument) in arguments.iter().enumerate().rev() {
        text = text.replace(&format!("${}", number + 1), argument);
    }
    assert!(!text.contains('$'), "{name} has other arguments by now than pgbench.rs knows:\n{text}");
    text
}
