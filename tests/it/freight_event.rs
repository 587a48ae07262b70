//! What alerts of freight tell, and whom: once each, in order, whatever happens.

use serde_json::{Value, json};

use crate::freight::{A, B, freight};
use crate::freight_alert::{Heard, alert, events, rate, settled};
use crate::harness::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_delete_s_image_is_the_old_row_and_truncate_is_one_event_without_images() {
    let db = freight().await;
    let _daemon = db.daemon().ready().await;
    db.run(&format!(
        "create table public.thing (id int primary key, name text, organization_id uuid); insert into public.thing values (7, 'x', {A}), (8, 'y', {A});
         grant usage on schema public to rowbeat_{0}_freight; grant trigger on public.thing to rowbeat_{0}_freight",
        db.name
    ))
    .await;
    db.run(&alert(A, "gone", "public.thing", "DELETE", &[])).await;
    db.run("delete from public.thing where id = 7").await;
    assert_eq!(events(&db).await, 1);
    let seen: Value = db.get("select jsonb_build_array(operation, old_row -> 'name', row_key -> 'id', new_row) from freight.alert_event").await;
    assert_eq!(seen, json!(["DELETE", "x", 7, null]));
    db.run("truncate public.thing").await;
    assert_eq!(events(&db).await, 2);
    let seen: Value = db.get("select jsonb_build_array(operation, old_row, row_key, new_row) from freight.alert_event order by id desc limit 1").await;
    assert_eq!(seen, json!(["TRUNCATE", null, null, null]));
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_nothing_is_lost_or_doubled_and_the_order_is_that_of_the_log() {
    let db = freight().await;
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    db.run(&(1..=5).map(|n| rate(A, &format!("R0000{n}"))).collect::<String>()).await;
    let daemon = db.daemon_with("[node]\nconcurrency = 8\n", &[]).ready().await;
    assert_eq!(events(&db).await, 5);
    // In the middle of the work the node dies; the next one goes on in order.
    for n in 10..60 {
        db.run(&rate(A, &format!("R000{n}"))).await;
    }
    daemon.kill9();
    let _daemon = db.daemon_with("[node]\nconcurrency = 8\n", &[]).ready().await;
    db.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()").await;
    let begun = std::time::Instant::now();
    while events(&db).await < 55 {
        assert!(begun.elapsed() < PATIENCE);
    }
    let in_order: bool = db.get("select array_agg(new_row ->> 'rate_number' order by id) = array_agg(new_row ->> 'rate_number' order by new_row ->> 'rate_number') from freight.alert_event").await;
    assert!(in_order);
    assert_eq!(db.get::<i64>("select count(*) from freight.alert_event").await, 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_data_and_a_broken_one_harms_nobody() {
    let db = freight().await;
    let logic = |conditions: Value| {
        format!(
            "'{}'",
            json!({ "name": "n", "description": "d", "conditions": conditions })
                .to_string()
                .replace('\'', "''")
        )
    };
    let one = |operation: &str, value: Value, kind: &str| json!([{ "id": "c1", "column": "comments", "operation": operation, "value": value, "data_type": kind }]);
    for (operation, value, kind) in [
        ("in", json!("x"), "string"),
        ("not_in", json!(5), "number"),
        ("contains", json!(["x"]), "string"),
        ("isnull", json!(true), "boolean"),
        ("like", json!("x"), "string"),
        ("eq", json!(null), "string"),
        ("eq", json!("x"), "text"),
        ("gt", json!("soon"), "date"),
    ] {
        let (code, message) = db
            .refusal(&alert(
                A,
                "x",
                "rate",
                "INSERT",
                &[("conditional_logic", &logic(one(operation, value, kind)))],
            ))
            .await;
        assert!(code == "RP400" && message.starts_with("Condition c1 "), "{operation}: {code} {message}");
    }
    let judge = async |operation: &str, value: Value, kind: &str, row: Value| -> bool {
        db.get_with(
            "select (freight.judge_conditions($1, $2)).holds",
            &[&json!({ "conditions": one(operation, value, kind) }), &json!({ "comments": row })],
        )
        .await
    };
    for (operation, value, kind, row, holds) in [
        ("contains", json!("50%"), "string", json!("50% off"), true),
        ("contains", json!("5_%"), "string", json!("50% off"), false),
        ("icontains", json!("OFF"), "string", json!("50% off"), true),
        ("gt", json!(9), "number", json!(10), true),
        ("gt", json!("9"), "string", json!("10"), false),
        ("eq", json!("'; drop table x; --"), "string", json!("'; drop table x; --"), true),
        ("lte", json!("2023-06-01"), "date", json!("2023-06-01"), true),
        ("in", json!([1, 2]), "number", json!(2.0), true),
        ("not_in", json!(["a"]), "string", json!("b"), true),
        ("isnull", json!(null), "string", json!(null), true),
        ("not_isnull", json!(null), "string", json!(null), false),
        ("eq", json!(true), "boolean", json!(true), true),
        ("gt", json!(1), "number", json!("no number"), false),
    ] {
        assert_eq!(judge(operation, value, kind, row).await, holds, "{operation}");
    }
    let _daemon = db.daemon().ready().await;
    db.run(&format!(
        "create table public.item (id int primary key, organization_id uuid, comments text);
         grant usage on schema public to rowbeat_{0}_freight; grant trigger on public.item to rowbeat_{0}_freight",
        db.name
    )).await;
    db.run(&alert(
        A,
        "urgent",
        "public.item",
        "INSERT",
        &[("conditional_logic", &logic(one("eq", json!("urgent"), "string")))],
    ))
    .await;
    db.run(&alert(A, "all", "public.item", "INSERT", &[])).await;
    db.run(&format!("insert into public.item values (1, {A}, 'urgent'), (2, {A}, 'later')")).await;
    assert_eq!(events(&db).await, 3);
    db.run(&format!("alter table public.item drop column comments; insert into public.item values (3, {A})"))
        .await;
    assert_eq!(events(&db).await, 4);
    let error: String = db.get("select last_error from freight.active_trigger where name = 'urgent'").await;
    assert_eq!(error, "condition c1: the table has no column comments");
    // What was written before the table went is still delivered, and what is wrong with it still said.
    db.run(&format!("update freight.table_change_alert set last_error = null; insert into public.item values (4, {A}); drop table public.item")).await;
    assert_eq!(events(&db).await, 5);
    assert_eq!(
        db.get::<String>("select last_error from freight.table_change_alert where name = 'urgent'").await,
        error
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_by_notification_and_task_with_the_whole_row_or_its_number() {
    let db = freight().await.with_effects().await;
    let ear = Heard::on(&db, &["new_added_rate"]).await;
    let _daemon = db.daemon().ready().await;
    db.run(&alert(A, "one", "rate", "INSERT", &[("task_definition", "'add_effect'")])).await;
    db.run(&alert(A, "two", "rate", "INSERT", &[("task_definition", "'nobody_knows_it'")])).await;
    db.run(&rate(A, "R00001")).await;
    assert_eq!(events(&db).await, 2);
    let mut said = ear.all().await;
    said.sort();
    let ids: Vec<i64> = db.get("select array_agg(id order by id) from freight.alert_event").await;
    assert_eq!(said, ids.iter().map(|id| format!("{{\"event_id\": {id}}}")).collect::<Vec<_>>());
    db.until("exists (select from rowbeat.tasks where definition = 'add_effect' and state = 'completed' and queue = 'table_changes' and max_attempts = 4 and payload ->> 'operation' = 'INSERT')").await;
    assert_eq!(
        db.get::<String>("select last_error from freight.table_change_alert where name = 'two'").await,
        "task definition \"nobody_knows_it\" does not exist"
    );

    db.run("delete from freight.table_change_alert where name = 'two'; update rowbeat.plugin_setting set value = 'true' where name = 'notify_rows'").await;
    db.run(&rate(A, "R00002")).await;
    settled(&db).await;
    let said: Value = serde_json::from_str(&ear.all().await[0]).unwrap();
    assert!(said["rate_number"] == "R00002" && said["organization_id"].is_string() && said["id"].is_string());
    assert!(said.get("created_at").is_none() && said.get("updated_at").is_none());
    db.run(&format!("insert into freight.rate (organization_id, effective_date, expiration_date, comments) values ({A}, '2020-01-01', '2099-01-01', repeat('x', 100000))")).await;
    settled(&db).await;
    let said: Value = serde_json::from_str(&ear.all().await[0]).unwrap();
    assert_eq!(said["truncated"], json!(true));
    assert_eq!(
        db.get::<i32>(
            "select length(new_row ->> 'comments') from freight.alert_event order by id desc limit 1"
        )
        .await,
        100_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_s_message_waits_for_a_broker_and_is_the_envelope_of_the_event() {
    let db = freight().await;
    let _daemon = db.daemon().ready().await;
    db.run(&alert(A, "one", "rate", "UPDATE", &[("sink_topic", "'rates'")])).await;
    db.run(&rate(A, "R00001")).await;
    db.run("update freight.rate set rate_amount = 12").await;
    assert_eq!(events(&db).await, 1);
    let task: Value =
        db.get("select to_jsonb(t) from rowbeat.task t where definition = 'freight.produce_event'").await;
    let payload = &task["payload"];
    assert_eq!((&task["state"], &task["queue"]), (&json!("waiting"), &json!("table_changes")));
    assert_eq!(
        (&payload["topic"], &payload["message"]["op"], &payload["message"]["source"]["table"]),
        (&json!("rates"), &json!("u"), &json!("freight.rate"))
    );
    assert_eq!(
        (&payload["message"]["before"]["rate_amount"], &payload["message"]["after"]["rate_amount"]),
        (&json!(10.0), &json!(12.0))
    );
    assert_eq!(payload["key"]["id"], payload["message"]["after"]["id"]);
    assert!(payload["message"]["ts_ms"].is_i64());
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_several_organizations_on_one_table_do_not_touch_each_other() {
    let db = freight().await;
    let _daemon = db.daemon().ready().await;
    for (organization, name, action) in
        [(A, "one", "INSERT"), (A, "two", "BOTH"), (B, "one", "INSERT"), (B, "two", "DELETE")]
    {
        db.run(&alert(organization, name, "rate", action, &[])).await;
    }
    let told = async || {
        settled(&db).await;
        db.get::<Value>(
            "select coalesce(jsonb_agg(o.name || ' ' || a.name || ' ' || e.operation order by o.name, a.name, e.id), '[]')
             from freight.alert_event e join freight.table_change_alert a on a.id = e.alert_id join freight.organization o on o.id = e.organization_id",
        )
        .await
    };
    db.run(&format!("{}{}", rate(A, "R00001"), rate(B, "R00001"))).await;
    assert_eq!(told().await, json!(["A one INSERT", "A two INSERT", "B one INSERT"]));
    // One goes, one changes, one sleeps: the others hear what they heard.
    db.run(&format!(
        "truncate freight.alert_event; delete from freight.table_change_alert where name = 'one' and organization_id = {A};
         update freight.table_change_alert set is_active = false where name = 'one' and organization_id = {B};
         update freight.table_change_alert set database_action = 'UPDATE' where name = 'two' and organization_id = {A}"
    ))
    .await;
    db.run(&format!(
        "{} update freight.rate set rate_amount = 7; delete from freight.rate where rate_number = 'R00001'",
        rate(A, "R00002")
    ))
    .await;
    assert_eq!(told().await, json!(["A two UPDATE", "A two UPDATE", "B two DELETE"]));
    // Everybody hears of a truncation who hears of deletions.
    db.run(&format!(
        "truncate freight.alert_event; {} truncate freight.rate cascade",
        alert(A, "gone", "rate", "DELETE", &[])
    ))
    .await;
    assert_eq!(told().await, json!(["A gone TRUNCATE", "B two TRUNCATE"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_an_alert_wanted_it_does_not_concern_it() {
    let db = freight().await;
    db.run(&format!(
        "{} {}",
        alert(A, "edited", "rate", "INSERT", &[]),
        alert(A, "other", "rate", "UPDATE", &[])
    ))
    .await;
    db.run(&rate(A, "R00001")).await;
    db.run("update freight.rate set rate_amount = 11").await;
    // Nobody has read the log yet: the insert counts still, the update never did.
    db.run("update freight.table_change_alert set database_action = 'BOTH' where name = 'edited'").await;
    db.run("update freight.rate set rate_amount = 12").await;
    let _daemon = db.daemon().ready().await;
    assert_eq!(events(&db).await, 4);
    let heard: Value = db.get("select jsonb_agg(jsonb_build_array(operation, new_row -> 'rate_amount') order by e.id) from freight.alert_event e join freight.table_change_alert a on a.id = e.alert_id where a.name = 'edited'").await;
    assert_eq!(heard, json!([["INSERT", 10.0], ["UPDATE", 12.0]]));
}
