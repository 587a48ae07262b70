//! The doorbell: silent while the daemon is awake, heard when it sleeps, whoever else sleeps or holds it.

use std::time::{Duration, Instant};

use crate::harness::TestDb;

/// Whether a transaction that enqueues now would notify: the lock that `rowbeat.ring` tries.
const SOMEBODY_SLEEPS: &str = "select not pg_try_advisory_xact_lock_shared(1919907682, 1)";

#[tokio::test]
async fn nobody_is_notified_unless_somebody_sleeps() {
    let db = TestDb::new().await.with_effects().await;
    let ear = db.session_that_listens().await;
    db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    assert_eq!(ear.heard().await, 0, "nobody sleeps");
    let sleeper = db.session().await;
    sleeper.batch_execute("select pg_advisory_lock(1919907682, 1)").await.unwrap();
    db.run("insert into rowbeat.task (definition) values ('add_effect'), ('add_effect')").await;
    assert_eq!(ear.heard().await, 1, "once a statement");
    // Somebody who only waits for the lock counts as a sleeper as well.
    sleeper.batch_execute("select pg_advisory_unlock(1919907682, 1)").await.unwrap();
    let holder = db.session().await;
    holder.batch_execute("begin; select pg_advisory_xact_lock_shared(1919907682, 1)").await.unwrap();
    let waiting =
        tokio::spawn(async move { sleeper.batch_execute("select pg_advisory_lock(1919907682, 1)").await });
    db.until("select exists (select from pg_locks where locktype = 'advisory' and not granted)").await;
    db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    assert_eq!(ear.heard().await, 2);
    holder.batch_execute("commit").await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_transaction_rings_once_for_all_its_tasks_and_again_when_a_savepoint_took_that_back() {
    let db = TestDb::new().await.with_effects().await;
    let ear = db.session_that_listens().await;
    let sleeper = db.session().await;
    sleeper.batch_execute("select pg_advisory_lock(1919907682, 1)").await.unwrap();
    let writer = db.session().await;
    let many = "set track_functions = 'pl'; begin;
        insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 1000)";
    writer.batch_execute(many).await.unwrap();
    let calls = "select pg_stat_get_xact_function_calls('rowbeat.ring(text)'::regprocedure)";
    assert_eq!(writer.query_one(calls, &[]).await.unwrap().get::<_, i64>(0), 1);
    let again = "rollback; begin; savepoint s; insert into rowbeat.task (definition) values ('add_effect');
        rollback to s; insert into rowbeat.task (definition) values ('add_effect'); commit";
    writer.batch_execute(again).await.unwrap();
    assert_eq!(ear.heard().await, 1);
}

#[tokio::test]
async fn a_sleeping_daemon_starts_a_task_long_before_its_poll() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon_with("[node]\npoll_interval = \"10m\"", &[]).ready().await;
    for _ in 0..20 {
        db.until(SOMEBODY_SLEEPS).await;
        let id: i64 = db.get("select rowbeat.enqueue('add_effect')").await;
        let begun = Instant::now();
        db.until(&format!("select state = 'completed' from rowbeat.tasks where id = {id}")).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn two_sleeping_daemons_with_different_queues_both_wake() {
    let db = TestDb::new().await.with_effects().await;
    let _a = db.daemon_with("[node]\npoll_interval = \"10m\"\nqueues = [\"a\"]", &[]).ready().await;
    let _b = db.daemon_with("[node]\npoll_interval = \"10m\"\nqueues = [\"b\"]", &[]).ready().await;
    for round in 0..10 {
        for queue in ["a", "b"] {
            db.until(SOMEBODY_SLEEPS).await;
            let begun = Instant::now();
            let id: i64 =
                db.get(&format!("select rowbeat.enqueue('add_effect', p_queue => '{queue}')")).await;
            db.until(&format!("select state = 'completed' from rowbeat.tasks where id = {id}")).await;
            assert!(
                begun.elapsed() < Duration::from_secs(8),
                "round {round}, queue {queue}: {:?}",
                begun.elapsed()
            );
        }
    }
}

#[tokio::test]
async fn one_long_enqueuing_transaction_does_not_mute_the_bell() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon_with("[node]\npoll_interval = \"10m\"", &[]).ready().await;
    let open = db.session().await;
    // Begun while the daemon is awake, so that it holds the lock shared.
    let begun = Instant::now();
    loop {
        open.batch_execute("begin; select rowbeat.enqueue('add_effect')").await.unwrap();
        let shared: bool = db.get("select exists (select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and objid = 1)").await;
        if shared {
            break;
        }
        open.batch_execute("commit").await.unwrap();
        assert!(begun.elapsed() < crate::harness::PATIENCE, "the daemon was never awake");
    }
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        let id: i64 = db.get("select rowbeat.enqueue('add_effect')").await;
        db.until(&format!("select state = 'completed' from rowbeat.tasks where id = {id}")).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
    open.batch_execute("commit").await.unwrap();
    db.until("select bool_and(state = 'completed') from rowbeat.tasks").await;
}

#[tokio::test]
async fn a_cut_listening_session_comes_back() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon_with("[node]\npoll_interval = \"10m\"", &[]).ready().await;
    for victim in ["listener", "guard"] {
        db.until(&format!("select exists (select from pg_stat_activity where application_name like '%{victim}' and datname = current_database())")).await;
        db.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%{victim}' and datname = current_database()")).await;
        let begun = Instant::now();
        let id: i64 = db.get("select rowbeat.enqueue('add_effect')").await;
        db.until(&format!("select state = 'completed' from rowbeat.tasks where id = {id}")).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "without the {victim}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn two_phase_commit_works_with_the_doorbell_off_and_the_poll_finds_the_task() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon_with("[node]\npoll_interval = \"300ms\"", &[]).ready().await;
    db.until(SOMEBODY_SLEEPS).await;
    db.run(&format!(
        "set rowbeat.doorbell = off; begin; insert into rowbeat.task (definition) values ('add_effect'); prepare transaction '{}'",
        db.name
    ))
    .await;
    db.run(&format!("commit prepared '{}'", db.name)).await;
    db.until("select bool_and(state = 'completed') from rowbeat.tasks").await;
}

#[tokio::test]
async fn beside_a_busy_daemon_a_hundred_commits_make_less_than_one_notification() {
    let db = TestDb::new().await.with_effects().await;
    db.run("update rowbeat.task_definition set keep = 'none', sql_batch = 100").await;
    let _daemon = db.daemon().ready().await;
    let ear = db.session_that_listens().await;
    db.run("insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 20000)").await;
    db.until(&format!("not ({})", SOMEBODY_SLEEPS.trim_start_matches("select "))).await;
    let before = ear.heard().await;
    let writers = futures_util::future::join_all((0..32).map(|_| db.session())).await;
    futures_util::future::join_all(writers.iter().map(async |writer| {
        for _ in 0..100 {
            writer.execute("insert into rowbeat.task (definition) values ('add_effect')", &[]).await.unwrap();
        }
    }))
    .await;
    let heard = ear.heard().await - before;
    assert!(heard < 32, "{heard} notifications for 3,200 commits");
}

#[tokio::test]
async fn nobody_rings_when_the_notification_queue_is_filling_up_and_the_poll_finds_the_task() {
    let db = TestDb::new().await.with_effects().await;
    // A queue that is really full takes gigabytes: the server's own function tells of one, in this database only.
    db.run(
        "set allow_system_table_mods = on;
         create or replace function pg_catalog.pg_notification_queue_usage() returns double precision
             language sql parallel restricted as 'select 0.6::double precision'",
    )
    .await;
    let _daemon = db.daemon_with("[node]\npoll_interval = \"300ms\"", &[]).ready().await;
    let ear = db.session_that_listens().await;
    for _ in 0..5 {
        db.until(SOMEBODY_SLEEPS).await;
        db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
        db.until("select bool_and(state = 'completed') from rowbeat.tasks").await;
    }
    assert_eq!(ear.heard().await, 0);
}

#[tokio::test]
async fn an_idle_daemon_hardly_talks_to_the_database() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    db.until("select bool_and(state = 'completed') from rowbeat.tasks").await;
    db.until(SOMEBODY_SLEEPS).await;
    // The server's statistics come late: a window that is counted from the outside, and a generous bound.
    let transactions =
        "select pg_stat_get_db_xact_commit(oid) from pg_database where datname = current_database()";
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before: i64 = db.get(transactions).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after: i64 = db.get(transactions).await;
    assert!(after - before < 50, "{} transactions in five idle seconds", after - before);
}
