//! Under an old snapshot dead rows stay: the cursor keeps a claim from walking over them.

use std::time::Duration;

use rowbeat::task::cursor::Places;
use rowbeat::task::store::{Claim, Store};
use serde_json::Value;

use crate::harness::TestDb;

/// The pages that a claim with these places looks at, in a session that has done it before.
async fn pages(db: &TestDb, lanes: &str) -> i64 {
    let claim = format!("select * from rowbeat.claim_tasks(1, 10, 10, '{{*}}', '{{}}', {lanes})");
    let plan: Value = db.get(&format!("explain (analyze, buffers, format json) {claim}")).await;
    plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
        + plan[0]["Plan"]["Shared Read Blocks"].as_i64().unwrap()
}

#[tokio::test]
async fn a_claim_from_the_last_place_does_not_walk_over_what_an_old_snapshot_keeps() {
    let db = TestDb::new().await.with_effects().await;
    db.run("update rowbeat.task_definition set keep = 'none'").await;
    let holder = db.session().await;
    holder
        .batch_execute("begin isolation level repeatable read; select count(*) from rowbeat.task")
        .await
        .unwrap();
    db.run("insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 20000)").await;
    let node: i64 = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
    let (store, queues) = (Store::new(db.db()), ["*".to_owned()]);
    let mut places = Places::default();
    loop {
        let known = (!places.ids.is_empty()).then_some((&places, Duration::ZERO));
        let claim = Claim { node, limit: 1000, begin: 0, queues: &queues, except: &[], places: known };
        let tasks = store.claim(claim).await.unwrap();
        let Some(last) = tasks.iter().max_by_key(|task| (task.run_at, task.id)) else { break };
        places = Places {
            queues: vec![last.queue.clone()],
            priorities: vec![last.priority],
            definitions: vec![last.definition.clone()],
            run_at: vec![last.run_at],
            ids: vec![last.id],
        };
        let ids: Vec<i64> = tasks.iter().map(|task| task.id).collect();
        let ended: i64 = db
            .get_with(
                "select count(*) from rowbeat.complete_tasks($1::bigint[], array_fill(1, array[cardinality($1::bigint[])]),
                     array_fill($2::bigint, array[cardinality($1::bigint[])]), array_fill(null::jsonb, array[cardinality($1::bigint[])]))",
                &[&ids, &node],
            )
            .await;
        assert_eq!(ended, i64::try_from(ids.len()).unwrap());
    }
    db.run("insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 40)").await;
    let place: String = db.get("select min(run_at - interval '1 microsecond')::text from rowbeat.task").await;
    let last =
        format!("array[row('default', 100::smallint, 'add_effect', '{place}', 0, null)::rowbeat.lane]");
    pages(&db, &last).await;
    let from_the_last_place = pages(&db, &last).await;
    let from_the_head = pages(&db, "null").await;
    assert!(from_the_last_place < 400, "{from_the_last_place} pages");
    assert!(from_the_head > 3 * from_the_last_place, "{from_the_head} pages, or there is nothing to show");
    holder.batch_execute("commit").await.unwrap();
}

/// The definition and its first task may come in one transaction, and that between a claim's beginning and its look.
#[tokio::test]
async fn a_claim_that_began_before_the_definition_was_there_tells_all_of_the_task() {
    let db = TestDb::new().await;
    let node: i64 = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
    let claim = rowbeat::db::query::text("task.claim")
        .replace("claim_tasks($1, $2, $3,", "claim_tasks($1, (select $2::integer from pg_sleep(1)), $3,");
    assert!(claim.contains("pg_sleep"), "{claim}");
    let session = db.session().await;
    let claimed = async {
        let none: Option<Vec<String>> = None;
        let (times, ids): (Option<Vec<chrono::DateTime<chrono::Utc>>>, Option<Vec<i64>>) = (None, None);
        let places: Option<Vec<i16>> = None;
        let (everything, nothing) = (vec!["*".to_owned()], Vec::<String>::new());
        session
            .query(
                &claim,
                &[&node, &10, &10, &everything, &nothing, &none, &places, &none, &times, &ids, &0_i64],
            )
            .await
            .unwrap()
    };
    let enqueue = async {
        db.until("exists (select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database())").await;
        db.run(
            "insert into rowbeat.task_definition (name, executor, function) values ('late', 'sql', 'public.late');
             insert into rowbeat.task (definition) values ('late');",
        )
        .await;
    };
    let (claimed, ()) = tokio::join!(claimed, enqueue);
    assert_eq!(claimed.len(), 1, "a claimed task that nobody is told of would run for ever");
    assert_eq!(claimed[0].get::<_, &str>("executor"), "sql");
}
