//! Policies of definitions and what people do about single tasks: pauses between attempts, what is kept, retry in bulk, waiting.

use rowbeat::task::store::{Claim, Store};
use rowbeat::task::{ClaimedTask, Outcome};
use serde_json::{Value, json};

use crate::harness::TestDb;

async fn claim(db: &TestDb) -> (Store, Vec<ClaimedTask>) {
    let node: i64 = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
    let store = Store::new(db.db());
    let claim = Claim { node, limit: 100, begin: 100, queues: &["*".to_owned()], except: &[], places: None };
    let tasks = store.claim(claim).await.unwrap();
    (store, tasks)
}

fn failed() -> Outcome {
    Outcome::Failed(json!({ "message": "no" }), None)
}

#[tokio::test]
async fn a_list_of_pauses_is_followed_and_its_last_one_repeated() {
    let db = TestDb::new().await.with_effects().await;
    db.run("update rowbeat.task_definition set backoff_list = '{1 minute,1 hour,2 days}'").await;
    for (failures, hours) in [(1, 1.0 / 60.0), (2, 1.0), (3, 48.0), (4, 48.0), (400, 48.0)] {
        let pause: f64 = db.get(&format!("select extract(epoch from rowbeat.retry_delay(d, {failures}))::float8 / 3600 from rowbeat.task_definition d")).await;
        assert!((pause - hours).abs() < 0.001, "{failures}: {pause}");
    }
    assert_eq!(db.refusal("update rowbeat.task_definition set backoff_list = '{}'").await.0, "23514");
}

#[tokio::test]
async fn payload_and_result_of_a_redacted_definition_are_dropped_at_the_end() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "update rowbeat.task_definition set redact = true, settle_function = null;
         insert into rowbeat.task (definition, payload, max_attempts) values ('add_effect', '{\"card\": 1}', 1), ('add_effect', '{\"card\": 2}', 1)",
    )
    .await;
    let (store, tasks) = claim(&db).await;
    store.end_attempt(&tasks[0], &Outcome::Done(json!("secret"))).await.unwrap();
    store.end_attempt(&tasks[1], &failed()).await.unwrap();
    let kept: Vec<Value> = db
        .get("select array_agg(jsonb_build_array(state, payload, result) order by id) from rowbeat.tasks")
        .await;
    assert_eq!(kept, [json!(["completed", {}, null]), json!(["failed", {}, null])]);
    assert_eq!(db.refusal("select rowbeat.retry(2)").await.0, "RB005");
}

#[tokio::test]
async fn failed_tasks_outlive_the_others_and_are_retried_in_bulk() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "update rowbeat.task_definition set keep_days = 1, keep_failed_days = 20;
         insert into rowbeat.task (definition, payload, max_attempts) select 'add_effect', to_jsonb(g), 1 from generate_series(1, 4) g",
    )
    .await;
    let (store, tasks) = claim(&db).await;
    store.end_attempt(&tasks[0], &Outcome::Done(Value::Null)).await.unwrap();
    store.end_attempt(&tasks[1], &failed()).await.unwrap();
    db.run("update rowbeat.task_definition set keep_failed_days = null").await;
    store.end_attempt(&tasks[2], &failed()).await.unwrap();
    store.end_attempt(&tasks[3], &failed()).await.unwrap();
    for (days, left) in [(0, 4), (2, 3), (21, 2), (400, 2)] {
        db.run(&format!(
            "set rowbeat.clock_offset = '{days} days'; select rowbeat.prune(); reset rowbeat.clock_offset"
        ))
        .await;
        assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks").await, left, "after {days} days");
    }
    assert_eq!(db.get::<i64>("select rowbeat.retry_failed('add_effect', 1)").await, 1);
    assert_eq!(db.get::<i64>("select rowbeat.retry_failed()").await, 1);
    let again: Vec<String> =
        db.get("select array_agg(state || failures order by id) from rowbeat.tasks").await;
    assert_eq!(again, ["available0", "available0"]);
}

#[tokio::test]
async fn a_waiting_task_can_be_run_now_and_no_other() {
    let db = TestDb::new().await.with_effects().await;
    db.run("insert into rowbeat.task (definition, run_at) values ('add_effect', now() + interval '1 day')")
        .await;
    assert_eq!(db.get::<String>("select reason from rowbeat.explain_task(1) limit 1").await, "not due");
    let daemon = db.daemon().ready().await;
    db.run("select rowbeat.run_now(1)").await;
    db.until("select state = 'completed' from rowbeat.tasks").await;
    daemon.stop().await;
    assert_eq!(db.refusal("select rowbeat.run_now(1)").await.0, "RB005");
    assert_eq!(db.refusal("select rowbeat.run_now(2)").await.0, "RB004");
    assert_eq!(db.get::<String>("select reason from rowbeat.explain_task(1)").await, "ended");
    assert_eq!(db.refusal("select * from rowbeat.explain_task(2)").await.0, "RB004");
}

#[tokio::test]
async fn the_end_of_a_task_can_be_waited_for() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor, function, keep) values ('unkept', 'sql', 'public.add_effect', 'none');
         insert into rowbeat.task (definition, payload, run_at) values
             ('add_effect', '{\"x\": 3}', now() + interval '0.5 s'), ('add_effect', '{}', now() + interval '1 day'), ('unkept', '{}', now() + interval '0.5 s')",
    )
    .await;
    let daemon = db.daemon().ready().await;
    let wait = async |id: i64, timeout: &str| {
        let session = db.session().await;
        let row = session.query_one(&format!("call rowbeat.wait_for({id}, '{timeout}')"), &[]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, Option<Value>>(1))
    };
    let (ended, unkept, later) =
        futures_util::future::join3(wait(1, "1 minute"), wait(3, "1 minute"), wait(2, "0.3 s")).await;
    assert_eq!(ended, ("completed".to_owned(), Some(json!({ "x": 3 }))));
    assert_eq!(unkept.0, "forgotten");
    assert_eq!(later.0, "scheduled");
    assert_eq!(db.refusal("call rowbeat.wait_for(99, '1 s')").await.0, "RB004");
    assert_eq!(db.refusal("call rowbeat.wait_for(1, null)").await.0, "22023");
    daemon.stop().await;
}

#[tokio::test]
async fn explain_names_a_queue_that_nobody_serves_and_a_definition_that_nobody_can_perform() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor) values ('rusty', 'native');
         insert into rowbeat.task (definition, queue) values ('add_effect', 'nobodys'), ('rusty', 'served')",
    )
    .await;
    let reason = async |id: i64| {
        db.get::<Value>(&format!(
            "select jsonb_agg(detail) from rowbeat.explain_task({id}) where reason = 'no node'"
        ))
        .await
        .to_string()
    };
    assert!(reason(1).await.contains("no daemon is running"));
    let daemon = db.daemon_with("[node]\nqueues = [\"served\"]", &[]).ready().await;
    assert!(reason(1).await.contains("serves queue nobodys"));
    db.until("select lacks = '{rusty}' from rowbeat.nodes where state = 'alive'").await;
    assert!(reason(2).await.contains("has what rusty needs"));
    daemon.stop().await;
}
