//! What becomes of the tasks of dead nodes, of tasks that nodes die with, and of a database that was copied.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::TestDb;

/// A sql definition whose function sleeps for the payload's seconds.
const SLEEPER: &str = "create function public.sleeper(payload jsonb) returns void language sql as
        $$ select pg_sleep(payload::text::float) $$;
    insert into rowbeat.task_definition (name, executor, function) values ('sleeper', 'sql', 'public.sleeper')";

#[tokio::test]
async fn a_killed_nodes_task_runs_again_within_fifteen_seconds() {
    let db = TestDb::new().await;
    db.run(SLEEPER).await;
    let first = db.daemon_with("[node]\nname = \"a\"", &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('sleeper', '60')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    let _second = db.daemon_with("[node]\nname = \"b\"", &[]).ready().await;
    first.kill9();
    let killed = Instant::now();
    db.until("select attempt = 2 and state = 'running' from rowbeat.tasks").await;
    assert!(killed.elapsed() < Duration::from_secs(16), "{:?}", killed.elapsed());
    assert_eq!(db.get::<String>("select outcome from rowbeat.attempt").await, "lost");
}

#[tokio::test]
async fn a_restarted_node_takes_its_tasks_over_at_once() {
    let db = TestDb::new().await;
    db.run(SLEEPER).await;
    let daemon = db.daemon_with("[node]\nname = \"same\"", &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('sleeper', '60')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    daemon.kill9();
    let killed = Instant::now();
    let _again = db.daemon_with("[node]\nname = \"same\"", &[]).ready().await;
    db.until("select attempt = 2 and state = 'running' from rowbeat.tasks").await;
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    // A second process of the same name beside a living one takes nothing over.
    let _other = db.daemon_with("[node]\nname = \"same\"", &[]).ready().await;
    db.until("select count(*) = 2 from rowbeat.nodes where state = 'alive'").await;
    assert_eq!(db.get::<i32>("select attempt from rowbeat.tasks").await, 2);
}

#[tokio::test]
async fn a_node_that_was_stopped_beyond_its_lease_is_refused_when_it_wakes() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create function public.slow_effect(payload jsonb) returns void language sql as
             $$ insert into public.effect (x) values (1); select pg_sleep(6) $$;
         insert into rowbeat.task_definition (name, executor, function) values ('slow', 'sql', 'public.slow_effect')",
    )
    .await;
    let first = db.daemon_with("[node]\nname = \"a\"", &[]).ready().await;
    db.run("insert into rowbeat.task (definition) values ('slow')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    let second = db.daemon_with("[node]\nname = \"b\"", &[]).ready().await;
    first.signal(Signal::SIGSTOP);
    db.until("select count(*) = 1 from rowbeat.node where lost_at is not null").await;
    first.signal(Signal::SIGCONT);
    db.until("select state = 'completed' from rowbeat.tasks").await;
    first.says("gave this node up").await;
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 1);
    for daemon in [first, second] {
        let (status, log) = daemon.stop().await;
        assert!(status.success(), "{log}");
    }
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 1);
}

#[tokio::test]
async fn a_task_that_nodes_die_with_runs_alone_and_is_then_set_apart() {
    let db = TestDb::new().await.with_effects().await;
    db.run("insert into rowbeat.task (definition, max_attempts, payload) values ('add_effect', 9, '{\"x\": 1}'), ('add_effect', 1, '{\"x\": 2}')").await;
    let die = async |begin: i32| {
        let node: i64 = db.get("select rowbeat.register_node('n', '0', 1, '11 s', null, '{*}')").await;
        db.run(&format!("select rowbeat.claim_tasks({node}, 10, {begin}, '{{*}}', '{{}}', null)")).await;
        let alone = db
            .get::<i64>(&format!("select count(*) from rowbeat.claim_isolated({node}, '{{*}}', '{{}}')"))
            .await;
        db.run(&format!("update rowbeat.node set heartbeat_at = heartbeat_at - interval '1 minute' where id = {node}; select rowbeat.rescue_lost(); update rowbeat.task set run_at = now()")).await;
        alone
    };
    // Claimed ahead and perhaps not begun: not counted, though its only attempt was lost.
    assert_eq!(die(1).await, 0);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task where failures = 1").await, 1);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2);
    assert_eq!(die(0).await, 0);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task where parked = 'isolated'").await, 2);
    assert_eq!(die(10).await, 1, "one at a time");
    db.run("update rowbeat.task set max_attempts = 9").await;
    let parked: Vec<String> =
        db.get("select array_agg(coalesce(parked, state) order by id) from rowbeat.tasks").await;
    assert_eq!(parked, ["quarantined", "isolated"]);
    assert_eq!(db.get::<String>("select reason from rowbeat.explain_task(1) limit 1").await, "quarantined");
    // A node that survives it trusts it again; the other one needs somebody's word.
    let daemon = db.daemon().ready().await;
    db.until("select state = 'completed' from rowbeat.tasks where id = 2").await;
    daemon.says("it runs alone").await;
    db.run("select rowbeat.run_now(1)").await;
    db.until("select state = 'completed' from rowbeat.tasks where id = 1").await;
    assert_eq!(db.get::<i64>("select sum(x)::bigint from public.effect").await, 3);
}

#[tokio::test]
async fn a_copied_database_is_quiet_until_somebody_confirms_it() {
    let db = TestDb::new().await.with_effects().await;
    let daemon = db.daemon().ready().await;
    daemon.stop().await;
    db.run(
        "insert into rowbeat.task (definition) values ('add_effect');
            select rowbeat.schedule('each', 'every 1 second', 'add_effect')",
    )
    .await;
    let copy = db.dumped().await;
    let daemon = copy.daemon();
    daemon.says("rowbeat.confirm_database()").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(copy.get::<i64>("select count(*) from public.effect").await, 0);
    assert_eq!(copy.get::<i64>("select count(*) from rowbeat.fire").await, 0);
    copy.run("select rowbeat.confirm_database()").await;
    copy.until("select count(*) >= 2 from public.effect").await;
    daemon.stop().await;
}
