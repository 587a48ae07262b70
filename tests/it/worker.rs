//! Foreign workers: any program that claims, prolongs and ends tasks of external definitions by SQL alone.

use serde_json::{Value, json};
use tokio_postgres::GenericClient;

use crate::harness::TestDb;

/// A definition `resize` whose tasks a program outside performs, retried at once.
async fn external() -> TestDb {
    let db = TestDb::new().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor, max_attempts, backoff, backoff_jitter)
             values ('resize', 'external', 3, '1 microsecond', 0)",
    )
    .await;
    db
}

/// What a claim got: (id, attempt), in its order.
async fn claim(db: &TestDb, arguments: &str) -> Vec<(i64, i32)> {
    claimed(&db.session().await, arguments).await
}

async fn claimed(session: &impl GenericClient, arguments: &str) -> Vec<(i64, i32)> {
    let sql = format!("select id, attempt from rowbeat.claim({arguments})");
    let rows = session.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn ids(db: &TestDb, arguments: &str) -> Vec<i64> {
    claim(db, arguments).await.into_iter().map(|(id, _)| id).collect()
}

/// The state of the task with id 1.
async fn state(db: &TestDb) -> String {
    db.get("select state from rowbeat.tasks where id = 1").await
}

/// The SQLSTATE and hint with which a statement is refused.
async fn refused(db: &TestDb, sql: &str) -> (String, String) {
    let error = db.session().await.batch_execute(sql).await.expect_err(sql);
    let refusal = error.as_db_error().unwrap();
    (refusal.code().code().to_owned(), refusal.hint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_claim_tells_all_about_the_task_and_complete_keeps_its_result() {
    let db = external().await;
    db.run(
        "update rowbeat.task_definition set timeout = '2 minutes';
         select rowbeat.enqueue('resize', '{\"image\": 7}'), rowbeat.enqueue('resize', p_timeout => '9 seconds');",
    )
    .await;
    let got: Value = db
        .get(
            "select jsonb_agg(to_jsonb(c) - 'lease_until' || jsonb_build_object('lease',
                 c.lease_until between now() + interval '29 seconds' and now() + interval '40 seconds'))
              from rowbeat.claim('w', 2, p_lease => '30 seconds') c",
        )
        .await;
    let task = |id: i64, payload: Value, timeout: &str| json!({ "id": id, "attempt": 1, "definition": "resize", "payload": payload, "cause": null, "timeout": timeout, "lease": true });
    assert_eq!(
        got,
        json!([task(1, json!({ "image": 7 }), "00:02:00"), task(2, json!({}), "00:00:09")]),
        "the definition's timeout, or the task's own"
    );
    let worker: Value =
        db.get("select jsonb_build_array(name, state, running, queues) from rowbeat.nodes").await;
    assert_eq!(worker, json!(["w", "worker", 2, ["*"]]), "people see who has them");
    let why: String =
        db.get("select reason || ': ' || split_part(detail, ' since', 1) from rowbeat.explain_task(1)").await;
    assert_eq!(why, "running: attempt 1 on w");
    assert_eq!(db.get::<String>("select rowbeat.complete(1, 1, '{\"width\": 99}')").await, "completed");
    let ended: Value =
        db.get("select jsonb_build_array(state, outcome, result) from rowbeat.tasks where id = 1").await;
    assert_eq!(ended, json!(["completed", "done", { "width": 99 }]));
}

#[tokio::test]
async fn a_claim_keeps_to_its_definitions_queues_and_number() {
    let db = external().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor) values ('other', 'external');
         insert into rowbeat.task (definition, queue) values ('resize', 'a'), ('other', 'a'), ('resize', 'b'), ('resize', 'b'), ('other', 'c');
         insert into rowbeat.task (definition, run_at) values ('resize', now() + interval '1 hour');",
    )
    .await;
    assert!(ids(&db, "'w', 9, '{nothing}'").await.is_empty());
    assert!(ids(&db, "'w', 9, p_queues => '{}'").await.is_empty());
    assert_eq!(ids(&db, "'w', 9, '{other}', '{a,b}'").await, [2]);
    assert_eq!(
        ids(&db, "'w', p_definitions => '{resize}', p_queues => '{b}'").await,
        [3],
        "one, if not said"
    );
    assert_eq!(ids(&db, "'w', 9").await, [1, 4, 5], "all that are due and not claimed");
    assert!(ids(&db, "'w', 9").await.is_empty());
}

#[tokio::test]
async fn a_claim_goes_by_priority_then_time() {
    let db = external().await;
    db.run(
        "insert into rowbeat.task (definition, priority, run_at) values ('resize', 100, now() - interval '1 s'),
             ('resize', 100, now() - interval '2 s'), ('resize', 1, now()), ('resize', 0, now() + interval '1 hour')",
    )
    .await;
    assert_eq!(ids(&db, "'w', 2").await, [3, 2]);
    assert_eq!(ids(&db, "'w', 2").await, [1]);
}

#[tokio::test]
async fn limits_pauses_and_serial_keys_hold_for_workers_too() {
    let db = external().await;
    db.run(
        "update rowbeat.task_definition set concurrency = 2;
         insert into rowbeat.task (definition) select 'resize' from generate_series(1, 3);
         select rowbeat.pause('resize');",
    )
    .await;
    assert!(ids(&db, "'w', 9").await.is_empty());
    db.run("select rowbeat.resume('resize'), rowbeat.pause(p_queue => 'default')").await;
    assert!(ids(&db, "'w', 9").await.is_empty());
    db.run("select rowbeat.resume(p_queue => 'default')").await;
    assert_eq!(ids(&db, "'w', 9").await, [1, 2], "two at a time");
    assert!(ids(&db, "'w', 9").await.is_empty());
    db.run("select rowbeat.complete(1, 1)").await;
    assert_eq!(ids(&db, "'w', 9").await, [3], "an ending frees a slot");
    db.run("select rowbeat.complete(2, 1), rowbeat.complete(3, 1)").await;

    db.run("insert into rowbeat.task (definition, serial_key) values ('resize', 'k'), ('resize', 'k'), ('resize', 'l');
            select rowbeat.admit_serial()").await;
    assert_eq!(ids(&db, "'w', 9").await, [4, 6]);
    db.run("select rowbeat.fail(4, 1)").await;
    assert_eq!(ids(&db, "'w', 9").await, [4], "a retry keeps its turn");
    db.run("select rowbeat.complete(4, 2)").await;
    assert_eq!(ids(&db, "'w', 9").await, [5]);
}

#[tokio::test]
async fn a_heartbeat_prolongs_the_claim_and_tells_of_cancellation() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize')").await;
    assert_eq!(claim(&db, "'w', p_lease => '20 milliseconds'").await, [(1, 1)]);
    assert!(!db.get::<bool>("select rowbeat.heartbeat(1, 1, '1 hour')").await);
    assert!(db.get::<bool>("select lease_until > now() + interval '59 minutes' from rowbeat.task").await);
    assert_eq!(db.get::<i64>("select rowbeat.rescue_lost()").await, 0);
    assert_eq!(db.get::<String>("select rowbeat.cancel(1)").await, "cancelling");
    assert!(db.get::<bool>("select rowbeat.heartbeat(1, 1)").await);
    assert_eq!(
        db.get::<String>("select rowbeat.fail(1, 1, '{\"message\": \"stopped\"}')").await,
        "cancelled"
    );
    assert_eq!(state(&db).await, "cancelled");
}

#[tokio::test]
async fn a_cancelled_task_that_was_done_first_is_completed_and_one_whose_worker_died_is_cancelled() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize'), rowbeat.enqueue('resize')").await;
    assert_eq!(ids(&db, "'w', 2, p_lease => '1 microsecond'").await, [1, 2]);
    db.run("select rowbeat.cancel(1), rowbeat.cancel(2)").await;
    assert_eq!(db.get::<String>("select rowbeat.complete(1, 1)").await, "completed");
    assert_eq!(db.get::<i64>("select rowbeat.rescue_lost()").await, 1);
    assert_eq!(db.get::<String>("select state from rowbeat.tasks where id = 2").await, "cancelled");
}

#[tokio::test]
async fn a_failed_task_is_retried_as_its_definition_or_the_worker_says_until_its_attempts_are_used_up() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize')").await;
    claim(&db, "'w'").await;
    assert_eq!(db.get::<String>("select rowbeat.fail(1, 1, '{\"message\": \"once\"}')").await, "waiting");
    assert_eq!(claim(&db, "'w'").await, [(1, 2)]);
    assert_eq!(
        db.get::<String>("select rowbeat.fail(1, 2, '{\"message\": \"twice\"}', '1 hour')").await,
        "waiting"
    );
    assert_eq!(claim(&db, "'w'").await, []);
    assert_eq!(state(&db).await, "retryable");
    assert!(db.get::<bool>("select run_at > now() + interval '59 minutes' from rowbeat.task").await);
    db.run("select rowbeat.run_now(1)").await;
    assert_eq!(claim(&db, "'w'").await, [(1, 3)]);
    assert_eq!(
        db.get::<String>("select rowbeat.fail(1, 3, '{\"message\": \"thrice\"}')").await,
        "failed",
        "three attempts"
    );
    let errors: Vec<String> = db
        .get("select array_agg(message) from (select error ->> 'message' as message from rowbeat.attempt order by attempt) a")
        .await;
    assert_eq!(errors, ["once", "twice"]);
    assert_eq!(db.get::<String>("select message from rowbeat.failures").await, "thrice");
}

#[tokio::test]
async fn a_task_failed_for_good_is_not_retried_and_a_snoozed_one_is_not_counted() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize'), rowbeat.enqueue('resize', p_max_attempts => 1)").await;
    claim(&db, "'w', 2").await;
    assert_eq!(db.get::<String>("select rowbeat.fail(1, 1, p_for_good => true)").await, "failed");
    assert_eq!(
        db.get::<String>("select outcome from rowbeat.tasks where id = 1").await,
        "rejected",
        "although it had attempts left"
    );
    assert_eq!(db.get::<String>("select rowbeat.snooze(2, 1, '0')").await, "waiting");
    assert_eq!(claim(&db, "'w'").await, [(2, 2)]);
    assert_eq!(db.get::<String>("select rowbeat.snooze(2, 2, '1 hour')").await, "waiting");
    let task: Value = db
        .get("select jsonb_build_array(state, failures, run_at > now() + interval '59 minutes') from rowbeat.tasks where id = 2")
        .await;
    assert_eq!(task, json!(["scheduled", 0, true]));
}

/// Every way to write under a claim, refused as stale.
async fn stale(db: &TestDb, id: i64, attempt: i32) {
    for call in [
        "heartbeat(@)",
        "complete(@)",
        "complete(@, '1')",
        "fail(@)",
        "fail(@, p_for_good => true)",
        "snooze(@, '0')",
    ] {
        let sql = format!("select rowbeat.{}", call.replace('@', &format!("{id}, {attempt}")));
        assert_eq!(refused(db, &sql).await.0, "RB003", "{sql}");
    }
}

#[tokio::test]
async fn who_lost_the_claim_is_refused_and_changes_nothing() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize')").await;
    stale(&db, 1, 0).await;
    claim(&db, "'slow', p_lease => '1 microsecond'").await;
    stale(&db, 1, 2).await;
    assert_eq!(db.get::<i64>("select rowbeat.rescue_lost()").await, 1);
    stale(&db, 1, 1).await;
    assert_eq!(claim(&db, "'quick'").await, [(1, 2)]);
    stale(&db, 1, 1).await;
    assert_eq!(db.get::<String>("select rowbeat.complete(1, 2)").await, "completed");
    stale(&db, 1, 2).await;
    stale(&db, 99, 1).await;
    assert_eq!(state(&db).await, "completed");
}

#[tokio::test]
async fn a_daemons_task_is_none_of_a_foreign_workers() {
    let db = external().await.with_effects().await;
    db.run(
        "insert into rowbeat.node (name, version, process_id, started_at, heartbeat_at, lease) values ('n', '0', 1, now(), now(), '1 hour');
         select rowbeat.enqueue('add_effect');",
    )
    .await;
    assert_eq!(claim(&db, "'w', 9").await, []);
    db.run("select count(*) from rowbeat.claim_tasks(1, 9, 9, '{*}', '{}', null)").await;
    stale(&db, 1, 1).await;
    assert_eq!(state(&db).await, "running");
}

#[tokio::test]
async fn a_worker_that_dies_again_and_again_uses_up_the_attempts_and_its_task_stays_claimable() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize', p_max_attempts => 4)").await;
    for attempt in 1..=4 {
        assert_eq!(claim(&db, "'w', p_lease => '1 microsecond'").await, [(1, attempt)]);
        assert_eq!(db.get::<i64>("select rowbeat.rescue_lost()").await, 1);
    }
    let ended: Value =
        db.get("select jsonb_build_array(state, outcome, failures, error) from rowbeat.tasks").await;
    assert_eq!((&ended[0], &ended[1], &ended[2]), (&json!("failed"), &json!("lost"), &json!(4)));
    assert!(ended[3]["message"].as_str().unwrap().contains("let the lease run out"), "{ended}");
}

#[tokio::test]
async fn a_daemon_gives_back_what_a_dead_worker_held_and_never_claims_it_itself() {
    let db = external().await;
    let _daemon = db.daemon().ready().await;
    db.run("select rowbeat.enqueue('resize'), rowbeat.enqueue('resize')").await;
    assert_eq!(ids(&db, "'dead', p_lease => '1 microsecond'").await, [1]);
    db.until("select count(*) = 1 from rowbeat.attempt where outcome = 'lost'").await;
    // The second one has waited all the while, under a daemon that had nothing else to do.
    let waiting: Vec<i64> =
        db.get("select array_agg(id order by id) from rowbeat.tasks where state <> 'running'").await;
    assert_eq!(waiting, [1, 2]);
    assert_eq!(claim(&db, "'alive', 2").await, [(2, 1), (1, 2)], "the retry is due a little later");
    let why: Vec<String> = db.get("select array_agg(reason) from rowbeat.explain_task(1)").await;
    assert_eq!(why, ["running"]);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_gives_claim_effect_and_ending_back() {
    let db = external().await;
    db.run("create table public.effect (x bigint); update rowbeat.task_definition set concurrency = 1; select rowbeat.enqueue('resize')").await;
    let mut session = db.session().await;
    let transaction = session.transaction().await.unwrap();
    assert_eq!(claimed(&transaction, "'w'").await, [(1, 1)]);
    assert_eq!(claim(&db, "'other'").await, [], "others do not wait for it");
    transaction.rollback().await.unwrap();
    assert_eq!(claim(&db, "'w'").await, [(1, 1)], "as if it had never been claimed");
    for (end, left) in [("rollback", 0), ("commit", 1)] {
        db.run(&format!("begin; insert into public.effect values (1); select rowbeat.complete(1, 1); {end}"))
            .await;
        assert_eq!(db.get::<i64>("select count(*) from public.effect").await, left, "after {end}");
        let ended = db.get::<i64>("select count(*) from rowbeat.finished_task").await;
        assert_eq!(ended, left, "the effect and its record go together");
    }
}

#[tokio::test]
async fn a_settle_function_hears_of_what_workers_say_and_its_refusal_shows_in_the_answer() {
    let db = external().await;
    db.run(
        "create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
             if outcome -> 'result' = '0' then raise exception 'nothing'; end if;
             return jsonb_build_object(outcome ->> 'outcome', outcome -> 'result'); end $$;
         update rowbeat.task_definition set settle_function = 'public.settle';
         select rowbeat.enqueue('resize');",
    )
    .await;
    claim(&db, "'w'").await;
    assert_eq!(db.get::<String>("select rowbeat.complete(1, 1, '0')").await, "waiting", "so roll back");
    claim(&db, "'w'").await;
    assert_eq!(db.get::<String>("select rowbeat.complete(1, 2, '5')").await, "completed");
    assert_eq!(db.get::<Value>("select result from rowbeat.tasks").await, json!({ "done": 5 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_claimers_ever_get_the_same_task() {
    const TASKS: usize = 300;
    let db = external().await;
    db.run(&format!("insert into rowbeat.task (definition, serial_key) select 'resize', case when g % 3 = 0 then 'k' || g % 7 end from generate_series(1, {TASKS}) g; select rowbeat.admit_serial()")).await;
    let mut claimers = Vec::new();
    for worker in 0..6 {
        let session = db.session().await;
        // Three names for six sessions: also two of one name never get the same.
        let name = format!("w{}", worker / 2);
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let got = claimed(&session, &format!("'{name}', 3")).await;
                for (id, attempt) in &got {
                    session.query_one("select rowbeat.complete($1, $2)", &[id, attempt]).await.unwrap();
                }
                mine.extend(got);
                let left = session.query_one("select count(*) from rowbeat.task", &[]).await.unwrap();
                if left.get::<_, i64>(0) == 0 {
                    return mine;
                }
            }
        }));
    }
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    all.sort_unstable();
    let each: Vec<(i64, i32)> = (1..).take(TASKS).map(|id| (id, 1)).collect();
    assert_eq!(all, each, "every task, once");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.node where kind = 'worker'").await, 3);
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused_with_a_hint() {
    let db = external().await;
    db.run("select rowbeat.enqueue('resize')").await;
    for call in [
        "claim('')",
        "claim(null)",
        "claim('w', 0)",
        "claim('w', null)",
        "claim('w', p_lease => '0')",
        "claim('w', p_lease => '-1 second')",
        "claim('w', p_lease => null)",
        "claim('w', p_queues => null)",
    ] {
        let (code, hint) = refused(&db, &format!("select rowbeat.{call}")).await;
        assert!(code == "22023" && hint.contains("rowbeat.claim("), "{call}: {code} {hint}");
    }
    claim(&db, "'w'").await;
    for call in
        ["heartbeat(1, 1, '0')", "heartbeat(1, 1, null)", "snooze(1, 1, null)", "snooze(1, 1, '-1 s')"]
    {
        let (code, hint) = refused(&db, &format!("select rowbeat.{call}")).await;
        let function = call.split('(').next().unwrap();
        assert!(code == "22023" && hint.contains(&format!("rowbeat.{function}(")), "{call}: {code} {hint}");
    }
    assert_eq!(state(&db).await, "running", "and the claim is still held");
}

#[tokio::test]
async fn nothing_is_claimed_in_a_copy_of_the_database_before_somebody_confirms() {
    let db = external().await;
    db.run("insert into rowbeat.setting (name, value) values ('database', '{\"oid\": 1}'); select rowbeat.enqueue('resize')").await;
    assert_eq!(refused(&db, "select rowbeat.claim('w')").await.0, "RB007");
    db.run("select rowbeat.confirm_database()").await;
    assert_eq!(ids(&db, "'w'").await, [1]);
}
