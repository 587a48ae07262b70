//! Ways to enqueue: unique keys and what they do to a waiting task, many at once, COPY.

use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

use crate::harness::{TestDb, server};

async fn ids(db: &TestDb, sql: &str) -> Vec<i64> {
    db.get(&format!("select array_agg(id) from ({sql}) t (id)")).await
}

#[tokio::test]
async fn a_waiting_task_with_the_key_is_left_alone_or_gets_what_is_named() {
    let db = TestDb::new().await.with_effects().await;
    let enqueue = "select rowbeat.enqueue('add_effect', p_unique_key => 'k'";
    let id: i64 =
        db.get(&format!("{enqueue}, p_payload => '1', p_run_at => now() + interval '1 hour')")).await;
    assert_eq!(db.get::<i64>(&format!("{enqueue}, p_payload => '2')")).await, id);
    let seen = "select jsonb_build_array(payload, priority, run_at > now() + interval '50 minutes') from rowbeat.task";
    assert_eq!(db.get::<Value>(seen).await, json!([1, 100, true]));
    let replaced =
        format!("{enqueue}, p_payload => '3', p_priority => 7, p_replace => '{{payload,priority}}')");
    assert_eq!(db.get::<i64>(&replaced).await, id);
    assert_eq!(db.get::<Value>(seen).await, json!([3, 7, true]));
    assert_eq!(db.get::<i64>(&format!("{enqueue}, p_payload => '4', p_replace => '{{run_at}}')")).await, id);
    assert_eq!(db.get::<Value>(seen).await, json!([3, 7, false]));
    for wrong in [
        "p_replace => '{payload}'",
        "p_unique_for => '1 hour'",
        "p_unique_key => 'k', p_replace => '{color}'",
    ] {
        let (state, message) = db.refusal(&format!("select rowbeat.enqueue('add_effect', {wrong})")).await;
        assert_eq!(state, "22023", "{message}");
    }
}

#[tokio::test]
async fn a_key_that_is_held_for_a_period_outlives_its_task() {
    let db = TestDb::new().await.with_effects().await;
    let enqueue = "select rowbeat.enqueue('add_effect', p_unique_key => 'daily', p_unique_for => '1 day')";
    let id: i64 = db.get(enqueue).await;
    db.run(&format!("select rowbeat.cancel({id})")).await;
    assert_eq!(db.get::<i64>(enqueue).await, id);
    db.run("update rowbeat.unique_hold set held_until = now() - interval '1 s'").await;
    let next: i64 = db.get(enqueue).await;
    assert_ne!(next, id);
    assert_eq!(db.get::<i64>(enqueue).await, next);
    db.run("update rowbeat.unique_hold set held_until = now() - interval '1 s'; select rowbeat.prune()")
        .await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.unique_hold").await, 0);
    assert_eq!(db.get::<i64>(enqueue).await, next, "it is still alive");
}

#[tokio::test]
async fn many_sessions_with_one_key_make_one_task() {
    let db = TestDb::new().await.with_effects().await;
    for parameters in ["p_unique_key => 'k'", "p_unique_key => 'p', p_unique_for => '1 hour'"] {
        let sessions = futures_util::future::join_all((0..12).map(|_| db.session())).await;
        let sql = format!("select rowbeat.enqueue('add_effect', {parameters})");
        let got = futures_util::future::join_all(
            sessions.iter().map(async |session| session.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0)),
        )
        .await;
        assert!(got.iter().all(|id| *id == got[0]), "{got:?}");
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2);
}

#[tokio::test]
async fn many_tasks_are_enqueued_in_one_round_trip_and_their_ids_come_in_order() {
    let db = TestDb::new().await.with_effects().await;
    let many = "select rowbeat.enqueue_many(jsonb_agg(jsonb_build_object('definition', 'add_effect', 'payload', g) order by g))
                from generate_series(1, 500) g";
    let got = ids(&db, many).await;
    let payloads: Vec<i32> =
        db.get_with("select array_agg(payload::text::integer order by n) from unnest($1::bigint[]) with ordinality u (id, n) join rowbeat.task using (id)", &[&got]).await;
    assert_eq!(payloads, (1..=500).collect::<Vec<_>>());
    let keyed = r#"select rowbeat.enqueue_many('[{"definition": "add_effect", "unique_key": "a", "priority": 3},
        {"definition": "add_effect", "serial_key": "s", "queue": "q", "max_attempts": 2, "timeout": "3 s"},
        {"definition": "add_effect", "unique_key": "a", "priority": 9, "replace": ["priority"]}]')"#;
    let got = ids(&db, keyed).await;
    assert_eq!((got.len(), got[0]), (3, got[2]));
    let first: i16 = db.get_with("select priority from rowbeat.task where id = $1", &[&got[0]]).await;
    assert_eq!(first, 9);
    let second: Value = db.get_with("select jsonb_build_array(serial_key, queue, max_attempts, extract(epoch from timeout)::integer) from rowbeat.task where id = $1", &[&got[1]]).await;
    assert_eq!(second, json!(["s", "q", 2, 3]));
    let (state, message) =
        db.refusal(r#"select rowbeat.enqueue_many('[{"definition": "add_effect", "colour": 1}]')"#).await;
    assert_eq!((state.as_str(), message.as_str()), ("22023", "a task has no \"colour\""));
    assert_eq!(db.refusal(r#"select rowbeat.enqueue_many('[{"definition": "typo"}]')"#).await.0, "RB001");
}

#[tokio::test]
async fn tasks_can_be_copied_in() {
    let db = TestDb::new().await.with_effects().await;
    let daemon = db.daemon().ready().await;
    let mut copy = server()
        .psql(&db.name)
        .args(["-c", "copy rowbeat.task (definition, payload) from stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let rows: String = (1..=1000).map(|x| format!("add_effect\t{{\"x\": {x}}}\n")).collect();
    copy.stdin.take().unwrap().write_all(rows.as_bytes()).unwrap();
    assert!(copy.wait().unwrap().success());
    db.until("select count(*) = 1000 and sum(x) = 500500 from public.effect").await;
    daemon.stop().await;
}
