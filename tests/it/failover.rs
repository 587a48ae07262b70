//! The database is not there yet, restarts, goes: the daemon waits and goes on by itself. Servers of their own.

use std::process::{Command, Stdio};
use std::time::Duration;

use rowbeat::db::connect::Connector;
use rowbeat::db::embedded::PrivatePostgres;

use crate::embedded::{ask, options, scratch};
use crate::harness::{BINARY, Daemon, PATIENCE, database};

fn url(server: &PrivatePostgres) -> String {
    let at = server.server();
    format!("postgresql:///postgres?host={}&port={}&user=postgres", at.socket_folder.display(), at.port)
}

fn daemon(url: &str) -> Daemon {
    let mut command = Command::new(BINARY);
    command.env("DATABASE_URL", url).stdin(Stdio::null());
    Daemon::start(command, "", &[])
}

async fn until(connector: &Connector, condition: &str) {
    let begun = std::time::Instant::now();
    while ask(connector, &format!("select ({condition})")).await != "t" {
        assert!(begun.elapsed() < PATIENCE, "never came true: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const SETUP: &str = "create table public.effect (x bigint);
    create function public.slow(payload jsonb) returns jsonb language plpgsql as $$ begin
        insert into public.effect values ((payload ->> 'x')::bigint); perform pg_sleep(0.01); return payload; end $$;
    insert into rowbeat.task_definition (name, executor, function, backoff, max_attempts) values ('slow', 'sql', 'public.slow', '100 ms', 20)";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_before_its_database_goes_on_when_it_comes() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let url = url(&server);
    server.stop().await.unwrap();
    let daemon = daemon(&url);
    daemon.says("waiting for the database").await;
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let daemon = daemon.ready().await;
    let connector = Connector::new(&database(&url)).unwrap();
    for sql in SETUP.split_inclusive(";\n") {
        ask(&connector, sql).await;
    }
    ask(&connector, "insert into rowbeat.task (definition, payload) values ('slow', '{\"x\": 1}')").await;
    until(&connector, "select count(*) = 1 from rowbeat.tasks where state = 'completed'").await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_goes_on_through_immediate_restarts_of_its_database() {
    let folder = scratch();
    let mut server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let url = url(&server);
    let connector = Connector::new(&database(&url)).unwrap();
    let daemon = daemon(&url).ready().await;
    for sql in SETUP.split_inclusive(";\n") {
        ask(&connector, sql).await;
    }
    ask(&connector, "insert into rowbeat.task (definition, payload) select 'slow', jsonb_build_object('x', g) from generate_series(1, 1500) g").await;
    for round in 1..=2 {
        until(&connector, &format!("select count(*) > {} from public.effect", round * 100)).await;
        // What `pg_ctl restart -m immediate` does: SIGQUIT, then a start with crash recovery.
        let pid = i32::try_from(server.pid()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT).unwrap();
        while !server.run_once().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    until(&connector, "select count(*) = 1500 from rowbeat.tasks where state = 'completed'").await;
    assert_eq!(
        ask(&connector, "select count(*) || ' ' || count(distinct x) from public.effect").await,
        "1500 1500"
    );
    // Also asleep: the wake-up works again after a restart.
    ask(&connector, "insert into rowbeat.task (definition, payload) values ('slow', '{\"x\": 0}')").await;
    until(&connector, "select count(*) = 1501 from rowbeat.tasks where state = 'completed'").await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_database_is_gone_for_good_still_stops() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let url = url(&server);
    let connector = Connector::new(&database(&url)).unwrap();
    let daemon = daemon(&url).ready().await;
    for sql in SETUP.split_inclusive(";\n") {
        ask(&connector, sql).await;
    }
    ask(&connector, "insert into rowbeat.task (definition, payload) select 'slow', jsonb_build_object('x', g) from generate_series(1, 500) g").await;
    until(&connector, "select count(*) > 10 from public.effect").await;
    server.stop().await.unwrap();
    let begun = std::time::Instant::now();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.says("stopping").await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, log) = daemon.stop().await;
    assert!(status.success() && begun.elapsed() < Duration::from_secs(30), "{:?} {log}", begun.elapsed());
}
