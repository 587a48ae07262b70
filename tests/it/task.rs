//! Tasks: enqueued, claimed, performed, retried, cancelled, and what remains of them.

use rowbeat::db::sqlstate;
use rowbeat::task::store::{Claim, Recorded, Store};
use rowbeat::task::{ClaimedTask, Outcome};
use serde_json::{Value, json};

use crate::harness::{TestDb, server};

/// Registers a node by hand: a worker that the test plays itself.
async fn node(db: &TestDb) -> i64 {
    db.get("insert into rowbeat.node (name, version, process_id, started_at, heartbeat_at, lease) values ('test', '0', 1, now(), now(), '1 hour') returning id").await
}

async fn claim(store: &Store, node: i64) -> Vec<ClaimedTask> {
    claim_some(store, node, 100, "*", &[]).await
}

async fn claim_some(store: &Store, node: i64, limit: i32, queue: &str, except: &[&str]) -> Vec<ClaimedTask> {
    let queues = [queue.to_owned()];
    let except: Vec<String> = except.iter().map(|name| (*name).to_owned()).collect();
    let claim = Claim { node, limit, begin: limit, queues: &queues, except: &except, places: None };
    store.claim(claim).await.unwrap()
}

#[tokio::test]
async fn a_row_inserted_by_psql_becomes_a_completed_task() {
    let db = TestDb::new().await.with_effects().await;
    let daemon = db.daemon().ready().await;
    let inserted = server()
        .psql(&db.name)
        .args(["-c", "insert into rowbeat.task (definition, payload) values ('add_effect', '{\"x\": 7}')"])
        .output()
        .unwrap();
    assert!(inserted.status.success(), "{inserted:?}");
    db.until("select count(*) = 1 from rowbeat.tasks where state = 'completed'").await;
    assert_eq!(db.get::<i64>("select x from public.effect").await, 7);
    let result: Value = db.get("select result from rowbeat.tasks").await;
    assert_eq!(result, json!({ "x": 7 }));
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn an_unknown_definition_is_refused_by_name() {
    let db = TestDb::new().await;
    for sql in ["insert into rowbeat.task (definition) values ('typo')", "select rowbeat.enqueue('typo')"] {
        let (code, message) = db.refusal(sql).await;
        assert_eq!(code, sqlstate::UNKNOWN_DEFINITION.code);
        assert!(message.contains("\"typo\""), "{message}");
    }
}

#[tokio::test]
async fn a_raising_function_is_retried_with_its_error_kept_and_then_failed() {
    let db = TestDb::new().await;
    db.run(
        "create table public.tried (at timestamptz default clock_timestamp());
         create function public.fail_always(payload jsonb) returns jsonb language plpgsql as
             $$ begin insert into public.tried default values; raise exception 'no %', payload ->> 'what' using errcode = 'P0042', hint = 'never'; end $$;
         insert into rowbeat.task_definition (name, executor, function, max_attempts, backoff)
             values ('fail_always', 'sql', 'public.fail_always', 3, '50 milliseconds');",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('fail_always', '{\"what\": \"way\"}')")
        .await;
    db.until("select count(*) = 1 from rowbeat.failures").await;
    let (error, failures): (Value, i16) = (
        db.get("select error from rowbeat.tasks where state = 'failed'").await,
        db.get("select failures from rowbeat.tasks where state = 'failed'").await,
    );
    assert_eq!((error["message"].as_str(), error["sqlstate"].as_str()), (Some("no way"), Some("P0042")));
    assert_eq!(error["hint"], "never");
    assert_eq!(failures, 3);
    // The two attempts before the last are on record with their errors, and nothing of what they did remains.
    let kept: i64 = db.get("select count(*) from rowbeat.attempt where outcome = 'failed' and error ->> 'message' = 'no way'").await;
    assert_eq!(kept, 2);
    assert_eq!(db.get::<i64>("select count(*) from public.tried").await, 0);
}

#[tokio::test]
async fn pauses_double_up_to_the_limit_and_vary_within_the_jitter() {
    let db = TestDb::new().await;
    db.run("insert into rowbeat.task_definition (name, executor, function, backoff, backoff_max, backoff_jitter) values ('d', 'sql', 'f', '10 s', '60 s', 0.1)").await;
    for (failures, seconds) in [(1, 10.0), (2, 20.0), (3, 40.0), (4, 60.0), (1000, 60.0)] {
        for _ in 0..20 {
            let pause: f64 = db
                .get_with("select extract(epoch from rowbeat.retry_delay(d, $1))::float8 from rowbeat.task_definition d", &[&failures])
                .await;
            assert!((pause / seconds - 1.0).abs() <= 0.1001, "{failures} failures: {pause} s");
        }
    }
}

#[tokio::test]
async fn a_stale_worker_is_refused_and_changes_nothing() {
    let db = TestDb::new().await.with_effects().await;
    let store = Store::new(db.db());
    let (first, second) = (node(&db).await, node(&db).await);
    db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    let old = claim(&store, first).await.remove(0);
    assert!(claim(&store, second).await.is_empty(), "a claimed task is not claimed again");
    db.run("update rowbeat.node set heartbeat_at = now() - interval '2 hours' where id = 1").await;
    assert_eq!(db.get::<i64>("select rowbeat.rescue_lost()").await, 1);
    db.run("update rowbeat.task set run_at = now()").await;
    let new = claim(&store, second).await.remove(0);
    assert_eq!((new.id, new.attempt), (old.id, old.attempt + 1));
    for outcome in [Outcome::Done(json!(1)), Outcome::Failed(json!({}), None), Outcome::Interrupted] {
        assert_eq!(store.end_attempt(&old, &outcome).await.unwrap(), Recorded::Stale);
    }
    let (code, _) =
        db.refusal(&format!("select rowbeat.perform_sql({}, {}, {first})", old.id, old.attempt)).await;
    assert_eq!(code, sqlstate::STALE_ATTEMPT.code);
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 0);
    assert_eq!(store.end_attempt(&new, &Outcome::Done(json!("yes"))).await.unwrap(), Recorded::Yes);
    assert_eq!(db.get::<Value>("select result from rowbeat.tasks").await, json!("yes"));
}

#[tokio::test]
async fn interrupted_and_snoozed_attempts_do_not_count() {
    let db = TestDb::new().await.with_effects().await;
    let (store, node) = (Store::new(db.db()), node(&db).await);
    db.run("insert into rowbeat.task (definition, max_attempts) values ('add_effect', 1)").await;
    for outcome in [Outcome::Interrupted, Outcome::Snoozed(std::time::Duration::ZERO)] {
        let task = claim(&store, node).await.remove(0);
        store.end_attempt(&task, &outcome).await.unwrap();
        assert_eq!(db.get::<String>("select state from rowbeat.tasks").await, "available");
    }
    let task = claim(&store, node).await.remove(0);
    assert_eq!(task.attempt, 3);
    store.end_attempt(&task, &Outcome::Failed(json!({ "message": "now" }), None)).await.unwrap();
    assert_eq!(db.get::<String>("select state from rowbeat.tasks").await, "failed");
}

#[tokio::test]
async fn claims_go_by_priority_then_time_and_leave_the_future_alone() {
    let db = TestDb::new().await.with_effects().await;
    let (store, node) = (Store::new(db.db()), node(&db).await);
    db.run(
        "insert into rowbeat.task (definition, payload, priority, run_at, queue) values
             ('add_effect', '\"c\"', 100, now() - interval '1 s', 'x'), ('add_effect', '\"b\"', 100, now() - interval '2 s', 'y'),
             ('add_effect', '\"a\"', 1, now(), 'y'), ('add_effect', '\"later\"', 0, now() + interval '1 hour', 'x')",
    )
    .await;
    let first = claim_some(&store, node, 1, "*", &[]).await;
    assert_eq!(first[0].payload, json!("a"), "the better priority first");
    assert!(claim_some(&store, node, 9, "*", &["add_effect"]).await.is_empty());
    assert!(claim_some(&store, node, 9, "z", &[]).await.is_empty());
    let rest: Vec<Value> = claim(&store, node).await.into_iter().map(|task| task.payload).collect();
    assert_eq!(rest, [json!("b"), json!("c")]);
    let due = store.next_due(&["*".to_owned()], &[]).await.unwrap().unwrap();
    assert!((3_500_000..=3_600_000).contains(&due), "{due}");
}

#[tokio::test]
async fn a_claim_stays_hot() {
    let db = TestDb::new().await.with_effects().await;
    let (store, node) = (Store::new(db.db()), node(&db).await);
    db.run("insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 1000)").await;
    while !claim(&store, node).await.is_empty() {}
    db.run("select pg_stat_force_next_flush()").await;
    db.until("select n_tup_upd >= 1000 from pg_stat_user_tables where relid = 'rowbeat.task'::regclass")
        .await;
    let share: f64 = db
        .get("select n_tup_hot_upd::float8 / n_tup_upd from pg_stat_user_tables where relid = 'rowbeat.task'::regclass")
        .await;
    assert!(share > 0.95, "only {share} of the claims were HOT");
}

#[tokio::test]
async fn a_unique_key_is_held_by_one_live_task() {
    let db = TestDb::new().await.with_effects().await;
    let (store, node) = (Store::new(db.db()), node(&db).await);
    let enqueue = "select rowbeat.enqueue('add_effect', p_unique_key => 'k')";
    let first: i64 = db.get(enqueue).await;
    assert_eq!(db.get::<i64>(enqueue).await, first);
    // unique_until = start: what arrives after the claim is a new task.
    claim(&store, node).await;
    let second: i64 = db.get(enqueue).await;
    assert_ne!(second, first);
    db.run("update rowbeat.task_definition set unique_until = 'finish'").await;
    claim(&store, node).await;
    assert_eq!(db.get::<i64>(enqueue).await, second);
}

#[tokio::test]
async fn a_waiting_task_is_cancelled_at_once_and_can_be_retried() {
    let db = TestDb::new().await.with_effects().await;
    let id: i64 =
        db.get("select rowbeat.enqueue('add_effect', '{\"x\": 3}', now() + interval '1 hour')").await;
    assert_eq!(db.get_with::<String>("select rowbeat.cancel($1)", &[&id]).await, "cancelled");
    assert_eq!(
        db.get_with::<String>("select rowbeat.cancel($1)", &[&id]).await,
        "cancelled",
        "safe to repeat"
    );
    assert_eq!(db.get::<String>("select state from rowbeat.tasks").await, "cancelled");
    let _daemon = db.daemon().ready().await;
    assert_eq!(db.get_with::<i64>("select rowbeat.retry($1)", &[&id]).await, id);
    db.until("select state = 'completed' from rowbeat.tasks").await;
    let (code, message) = db.refusal(&format!("select rowbeat.retry({id})")).await;
    assert_eq!((code.as_str(), message), (sqlstate::WRONG_STATE.code, format!("task {id} is completed")));
    for sql in ["select rowbeat.cancel(999)", "select rowbeat.retry(999)"] {
        assert_eq!(db.refusal(sql).await.0, sqlstate::UNKNOWN_TASK.code);
    }
}

#[tokio::test]
async fn a_running_sql_task_is_cancelled_on_the_server() {
    let db = TestDb::new().await;
    db.run(
        "create function public.sleep(payload jsonb) returns jsonb language sql as $$ select to_jsonb(pg_sleep(600)::text) $$;
         insert into rowbeat.task_definition (name, executor, function) values ('sleep', 'sql', 'public.sleep');",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    let id: i64 = db.get("select rowbeat.enqueue('sleep')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    assert_eq!(db.get_with::<String>("select rowbeat.cancel($1)", &[&id]).await, "cancelling");
    db.until("select state = 'cancelled' from rowbeat.tasks").await;
    assert_eq!(db.get::<i64>("select count(*) from pg_stat_activity where query like '%perform_sql%' and state = 'active' and datname = current_database() and pid <> pg_backend_pid()").await, 0);
}

#[tokio::test]
async fn a_sql_task_that_takes_too_long_is_stopped() {
    let db = TestDb::new().await;
    db.run(
        "create function public.sleep(payload jsonb) returns jsonb language sql as $$ select to_jsonb(pg_sleep(600)::text) $$;
         insert into rowbeat.task_definition (name, executor, function, timeout, max_attempts) values ('sleep', 'sql', 'public.sleep', '200 ms', 1);",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition) values ('sleep')").await;
    db.until("select state = 'failed' and outcome = 'timed_out' from rowbeat.tasks").await;
}

#[tokio::test]
async fn a_function_knows_its_task_and_leaves_nothing_in_the_session() {
    let db = TestDb::new().await;
    db.run(
        "create function public.who(payload jsonb) returns jsonb language plpgsql as $$ begin
             perform set_config('rowbeat.leak', coalesce(current_setting('rowbeat.leak', true), '') || 'x', false);
             perform pg_advisory_lock(4711);
             if payload ? 'raise' then raise 'no'; end if;
             return jsonb_build_object('task', current_setting('rowbeat.task_id'), 'leak', current_setting('rowbeat.leak'),
                 'locks', (select count(*) from pg_locks where locktype = 'advisory' and objid = 4711)); end $$;
         insert into rowbeat.task_definition (name, executor, function) values ('who', 'sql', 'public.who');",
    )
    .await;
    let _daemon = db.daemon_with("[node]\nconcurrency = 1", &[]).ready().await;
    for _ in 0..3 {
        let id: i64 = db.get("select rowbeat.enqueue('who')").await;
        db.until(&format!("select state = 'completed' from rowbeat.tasks where id = {id}")).await;
        let result: Value = db.get_with("select result from rowbeat.tasks where id = $1", &[&id]).await;
        assert_eq!(result, json!({ "task": id.to_string(), "leak": "x", "locks": 1 }));
    }
    // Many of them share a session, one after the other, and some fail.
    db.run("update rowbeat.task_definition set max_attempts = 1").await;
    db.run(
        "insert into rowbeat.task (definition, payload)
         select 'who', case when g % 10 = 0 then '{\"raise\": true}' else '{}' end::jsonb from generate_series(1, 100) g",
    )
    .await;
    db.until("not exists (select from rowbeat.task)").await;
    let leaks = "select count(*) from rowbeat.tasks where state = 'completed' and result ->> 'leak' = 'x'";
    assert_eq!(db.get::<i64>(leaks).await, 93);
    db.until("not exists (select from pg_locks where locktype = 'advisory' and objid = 4711)").await;
}

#[tokio::test]
async fn a_definition_with_live_tasks_is_not_removed_and_retention_is_as_it_says() {
    let db = TestDb::new().await.with_effects().await;
    let (store, node) = (Store::new(db.db()), node(&db).await);
    db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    assert_eq!(db.refusal("delete from rowbeat.task_definition").await.0, sqlstate::WRONG_STATE.code);
    for (keep, outcome, kept) in [
        ("none", Outcome::Done(json!(1)), 0),
        ("failures", Outcome::Done(json!(1)), 0),
        ("failures", Outcome::Rejected(json!({ "message": "no" })), 1),
        ("none", Outcome::Rejected(json!({ "message": "no" })), 1),
        ("all", Outcome::Done(json!(1)), 2),
    ] {
        db.run(&format!("update rowbeat.task_definition set keep = '{keep}'")).await;
        let task = claim(&store, node).await.remove(0);
        store.end_attempt(&task, &outcome).await.unwrap();
        assert_eq!(
            db.get::<i64>("select count(*) from rowbeat.finished_task").await,
            kept,
            "{keep} {outcome:?}"
        );
        db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
    }
}

#[tokio::test]
async fn retention_empties_slots_in_time_also_after_sixty_days_away() {
    let db = TestDb::new().await.with_effects().await;
    db.run("create table public.orders (id bigint primary key); select rowbeat.watch('public.orders', 'add_effect')").await;
    // The application writes every day; daemons are there for 37 days, away for 60, and so on.
    for day in 0..230 {
        db.run(&format!("set rowbeat.clock_offset = '{day} days'; insert into public.orders values ({day})"))
            .await;
        if day % 97 >= 37 {
            continue;
        }
        db.run("do $$ begin while rowbeat.route_changes() > 0 loop end loop; end $$; select rowbeat.prune()")
            .await;
        db.run("do $$ begin perform rowbeat.finish_task(t, 'completed', 'done', null, null) from rowbeat.task t; end $$").await;
        let oldest: Option<i32> = db
            .get("select extract(day from rowbeat.now_() - min(finished_at))::int from rowbeat.finished_task")
            .await;
        // A slot that fell due while nobody pruned is emptied when its turn comes again, at most 32 days later.
        let limit = if day < 97 || day % 97 > 32 { 8 } else { 60 + 8 + 32 };
        assert!(oldest.is_none_or(|oldest| oldest <= limit), "day {day}: {oldest:?} days old");
    }
    assert_eq!(db.get::<i64>("select count(*) from public.orders").await, 230, "no write has failed");
    assert_eq!(
        db.get::<i64>("select count(distinct (payload ->> 'change')) from rowbeat.finished_task").await,
        7
    );
    let kept: i64 = db.get("select count(*) from rowbeat.change").await;
    assert!((4..=5).contains(&kept), "{kept} changes kept");
}
