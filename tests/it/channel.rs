//! Channels to tasks, and the classic notifying trigger.

use serde_json::{Value, json};

use crate::harness::{TestDb, server};

#[tokio::test]
async fn the_classic_trigger_and_a_channel_row_complete_a_task() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.table_change_alert (id int primary key, name text);
         insert into rowbeat.channel (name, definition) values ('table_change_alert_updated', 'add_effect');",
    )
    .await;
    let added = server()
        .rowbeat(&db.name)
        .args(["watch", "add", "public.table_change_alert", "--notify"])
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let trigger: Value = db
        .get(
            "select jsonb_object_agg(event_manipulation, jsonb_build_array(trigger_name, action_orientation, action_timing, action_statement))
             from information_schema.triggers where event_object_table = 'table_change_alert'",
        )
        .await;
    for event in ["INSERT", "UPDATE", "DELETE"] {
        assert_eq!(
            trigger[event],
            json!([
                "table_change_alert_trigger",
                "ROW",
                "AFTER",
                "EXECUTE FUNCTION rowbeat.notify_table_change()"
            ])
        );
    }
    let daemon = db.daemon().ready().await;
    daemon.says("listening to channel").await;
    let inserted = server()
        .psql(&db.name)
        .args(["-c", "insert into public.table_change_alert values (1, 'a')"])
        .output()
        .unwrap();
    assert!(inserted.status.success(), "{inserted:?}");
    db.until("select count(*) = 1 from rowbeat.tasks where state = 'completed'").await;
    let payload: Value = db.get("select payload from rowbeat.tasks").await;
    assert_eq!(payload["channel"], "table_change_alert_updated");
    assert_eq!(payload["payload"], "table_change_alert INSERT");
}

#[tokio::test]
async fn a_channel_added_while_the_daemon_runs_is_heard_by_one_of_two_nodes() {
    let db = TestDb::new().await.with_effects().await;
    let first = db.daemon().ready().await;
    let second = db.daemon().ready().await;
    db.run("insert into rowbeat.channel (name, definition) values ('Mixed \"Case\"', 'add_effect')").await;
    let begun = std::time::Instant::now();
    while !first.log().contains("listening to channel") && !second.log().contains("listening to channel") {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "nobody listens");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for x in 0..20 {
        db.run(&format!("select pg_notify('Mixed \"Case\"', '{x}')")).await;
    }
    db.until("select count(*) >= 20 from rowbeat.tasks where state = 'completed'").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks").await, 20, "each notification once");
    // The one on duty dies: the other takes over.
    let (on_duty, other) =
        if first.log().contains("listening to channel") { (first, second) } else { (second, first) };
    on_duty.kill9();
    other.says("listening to channel").await;
    db.run("select pg_notify('Mixed \"Case\"', '20')").await;
    db.until("select count(*) = 21 from rowbeat.tasks where state = 'completed'").await;
}
