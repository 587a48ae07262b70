//! Stopping and the service manager.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, TestDb};

async fn slow_db() -> TestDb {
    let db = TestDb::new().await;
    db.run(
        "create function public.nap(payload jsonb) returns jsonb language sql as $$ select to_jsonb(pg_sleep((payload ->> 's')::float8)::text) $$;
         insert into rowbeat.task_definition (name, executor, function) values ('nap', 'sql', 'public.nap');",
    )
    .await;
    db
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_starts_nothing_new() {
    let db = slow_db().await;
    let daemon = db.daemon_with("[node]\nconcurrency = 1", &[]).ready().await;
    db.run(
        "insert into rowbeat.task (definition, payload) values ('nap', '{\"s\": 1}'), ('nap', '{\"s\": 1}')",
    )
    .await;
    db.until("select count(*) = 1 from rowbeat.tasks where state = 'running'").await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    let states: Vec<String> = db.get("select array_agg(state order by state) from rowbeat.tasks").await;
    assert_eq!(states, ["available", "completed"]);
    assert_eq!(db.get::<String>("select state from rowbeat.nodes").await, "stopped");
}

#[tokio::test]
async fn slow_tasks_claimed_ahead_after_short_ones_are_given_back() {
    let db = slow_db().await;
    let _daemon = db.daemon_with("[node]\nconcurrency = 2", &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) select 'nap', '{\"s\": 0}' from generate_series(1, 500)").await;
    db.until("select count(*) = 500 from rowbeat.tasks where state = 'completed'").await;
    db.run("insert into rowbeat.task (definition, payload) select 'nap', '{\"s\": 600}' from generate_series(1, 30)").await;
    db.until(
        "select count(*) filter (where state = 'running') = 2 and count(*) filter (where state = 'available' and failures = 0) = 28
         from rowbeat.tasks where state <> 'completed'",
    )
    .await;
    db.until("select count(*) > 0 from rowbeat.attempt where outcome = 'interrupted'").await;
}

#[tokio::test]
async fn what_outlasts_the_drain_time_is_released_uncounted() {
    let db = slow_db().await;
    let daemon = db.daemon_with("[node]\ndrain_timeout = \"300ms\"", &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('nap', '{\"s\": 600}')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    let begun = Instant::now();
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(db.get::<String>("select state || failures from rowbeat.tasks").await, "available0");
    assert_eq!(db.get::<String>("select outcome from rowbeat.attempt").await, "interrupted");
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let db = slow_db().await;
    let mut daemon = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('nap', '{\"s\": 600}')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    daemon.signal(Signal::SIGINT);
    daemon.says("stopping").await;
    daemon.signal(Signal::SIGINT);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    assert_eq!(db.get::<String>("select state || failures from rowbeat.tasks").await, "available0");
}

#[tokio::test]
async fn the_service_manager_hears_ready_status_watchdog_and_stopping() {
    let db = TestDb::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon =
        db.daemon_with("", &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "500000")]);
    let mut heard = Vec::new();
    let mut hear_until = |wanted: &str, times: usize| {
        let mut buffer = [0; 4096];
        while heard.iter().filter(|line: &&String| line.starts_with(wanted)).count() < times {
            let read = socket.recv(&mut buffer).expect(wanted);
            heard.extend(String::from_utf8_lossy(&buffer[..read]).lines().map(str::to_owned));
        }
        heard.clone()
    };
    let heard = hear_until("READY=1", 1);
    assert!(heard.iter().any(|line| line.starts_with("STATUS=")), "{heard:?}");
    let begun = Instant::now();
    hear_until("WATCHDOG=1", 6);
    assert!(begun.elapsed() < Duration::from_secs(20), "the watchdog is fed too slowly");
    daemon.signal(Signal::SIGTERM);
    hear_until("STOPPING=1", 1);
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn a_stopping_node_gives_back_what_the_database_says_it_has() {
    let db = slow_db().await;
    let daemon = db.daemon().ready().await;
    // As if the answer to a claim had been lost: the database says the node has a task that it knows nothing of.
    db.run(
        "insert into rowbeat.task (definition, payload, run_at) values ('nap', '{}', now() + interval '1 hour');
         update rowbeat.task set state = 'running', attempt = 1, claimed_at = now(), claimed_by = (select max(id) from rowbeat.node)",
    )
    .await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    assert_eq!(db.get::<String>("select state || failures from rowbeat.tasks").await, "available0");
}
