//! Idle: what a daemon costs that has nothing to do, as a process of its own and with its defaults.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_postgres::Client;

use crate::options::Options;
use crate::report::{Figure, progress};
use crate::server::Server;

/// Until it has looked at everything once and fallen asleep.
const SETTLE: Duration = Duration::from_secs(20);
/// Ticks of a processor in a second, as Linux tells them.
const TICKS: f64 = 100.0;

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let length = Duration::from_secs(options.secs(30));
    // The server's own cleaning up after an installation counts as transactions of the database, too.
    autovacuum(server, false).await;
    let (mut transactions, mut processor, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=options.runs {
        progress(&format!("idle, run {run}"));
        server.database("idle").await;
        let mut daemon = start(server);
        let process = daemon.id().unwrap();
        tokio::time::sleep(SETTLE).await;
        // A session of another database, so that nothing of this is counted.
        let admin = server.admin().await;
        let (before, ticks) = (ended_transactions(&admin).await, ticks(process));
        tokio::time::sleep(length).await;
        let seconds = length.as_secs_f64();
        transactions.push((ended_transactions(&admin).await - before) / seconds);
        processor.push((self::ticks(process) - ticks) / TICKS * 10.0 / seconds);
        memory.push(resident_megabytes(process));
        kill(Pid::from_raw(i32::try_from(process).unwrap()), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().await.unwrap().success(), "the daemon ends well");
    }
    autovacuum(server, true).await;
    vec![
        Figure::new("transactions", "/s", transactions),
        Figure::new("processor time of the daemon", "s/10 s", processor),
        Figure::new("memory of the daemon", "MB", memory),
    ]
}

async fn autovacuum(server: &Server, on: bool) {
    let admin = server.admin().await;
    admin.execute(&format!("alter system set autovacuum = {on}"), &[]).await.unwrap();
    admin.execute("select pg_catalog.pg_reload_conf()", &[]).await.unwrap();
}

fn start(server: &Server) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rowbeat"))
        .args(["start", "--http", "off", "--config"])
        .arg(server.file("idle.toml", ""))
        .env_clear()
        .envs([("DATABASE_URL", server.url("idle").as_str()), ("HOME", "/")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ended_transactions(admin: &Client) -> f64 {
    let sum = "select (s.xact_commit + s.xact_rollback)::float8 from pg_catalog.pg_stat_database s where s.datname = 'idle'";
    admin.query_one(sum, &[]).await.unwrap().get(0)
}

/// Processor time so far, user and system; not a number where there is no /proc.
fn ticks(process: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return f64::NAN };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

fn resident_megabytes(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}
