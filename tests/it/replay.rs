//! Replays: what a watch could not do at first, and what it did before.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::watch::{ids, payload, route_all, shop};

#[tokio::test]
async fn a_failing_expression_harms_nobody_else_and_its_changes_can_be_replayed() {
    let db = shop().await;
    db.run(
        "select rowbeat.watch('public.orders', 'noted', '{insert}', 'whole');
         select rowbeat.watch('public.orders', 'noted', '{insert}', 'parted', p_condition => '10 / new.price > 1');
         insert into public.orders select g, 'new', g % 10 from generate_series(1, 300) g;
         insert into public.orders values (301, 'new', 2);",
    )
    .await;
    route_all(&db).await;
    assert_eq!(ids(&db, "whole").await, (1..=301).collect::<Vec<i64>>());
    let good: Vec<i64> = (1..=301).filter(|id| *id == 301 || (1..10).contains(&(id % 10))).collect();
    assert_eq!(ids(&db, "parted").await, good, "in the order of writing, without those that raised");
    let status: Value = db.get("select to_jsonb(w) from rowbeat.watches w where name = 'parted'").await;
    assert_eq!((&status["failed"], &status["last_error"]), (&json!(30), &json!("division by zero")));
    assert!(status["last_error_at"].is_string());
    let health: String =
        db.get("select detail from rowbeat.health where \"check\" = 'watches' and not ok").await;
    assert!(health.contains("parted: 30 changes failed: division by zero"), "{health}");
    let in_status: Value = db.get("select rowbeat.status() -> 'watches' -> 0").await;
    assert_eq!(in_status["last_error"], "division by zero");
    // What still fails stays on record, what does not becomes a task.
    let dry = rowbeat(&db, &["change", "replay", "--watch", "parted", "--failed", "--dry-run", "--json"]);
    assert_eq!((&dry.json()["tried"], &dry.json()["failed"]), (&json!(0), &json!(30)));
    let still = rowbeat(&db, &["change", "replay", "--watch", "parted", "--failed", "--json"]);
    assert_eq!((&still.json()["tried"], &still.json()["failed"]), (&json!(30), &json!(30)));
    db.run("update rowbeat.watch set condition = 'new.price = 0' where name = 'parted'").await;
    let mended = rowbeat(&db, &["change", "replay", "--watch", "parted", "--failed", "--json"]);
    assert_eq!((&mended.json()["tried"], &mended.json()["failed"]), (&json!(30), &json!(0)));
    let all: i64 = db
        .get("select count(distinct payload -> 'key') from rowbeat.task where cause ->> 'name' = 'parted'")
        .await;
    assert_eq!(all, 301);
    assert!(
        db.get::<bool>(
            "select status = 'watching' and not problem from rowbeat.watches where name = 'parted'"
        )
        .await
    );
}

#[tokio::test]
async fn a_replay_repeats_a_range_and_a_dry_run_only_counts() {
    let db = shop().await;
    db.run(
        "select rowbeat.watch('public.orders', 'noted', '{insert}', 'first', p_grain => 'transaction');
            insert into public.orders select g, 'new', g from generate_series(1, 1200) g;",
    )
    .await;
    route_all(&db).await;
    db.run("delete from rowbeat.task;
            select rowbeat.watch('public.orders', 'noted', '{insert}', 'second', p_condition => 'new.price % 100 = 0');")
        .await;
    let from = "2020-01-01T00:00:00Z";
    let dry = rowbeat(&db, &["change", "replay", "--watch", "second", "--from", from, "--dry-run", "--json"]);
    assert_eq!(
        dry.json(),
        json!({ "watch": "second", "read": 1200, "made": 12, "failed": 0, "dry_run": true })
    );
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 0);
    let told = rowbeat(&db, &["change", "replay", "--watch", "second", "--from", from]).ok();
    assert!(told.contains("1200 changes read, 12 concerned the watch"), "{told}");
    assert_eq!(ids(&db, "second").await.len(), 12);
    assert!(db.get::<bool>("select bool_and((cause ->> 'replayed')::boolean) from rowbeat.task").await);
    rowbeat(&db, &["change", "replay", "--watch", "first", "--from", from]).ok();
    let whole = payload(&db, "first").await;
    assert_eq!(whole["count"], 1200, "pieces of a replay are still one transaction");
    // What the router has not read yet will become tasks anyway.
    db.run("insert into public.orders values (5000, 'new', 100)").await;
    let none =
        rowbeat(&db, &["change", "replay", "--watch", "second", "--from", from, "--dry-run", "--json"]);
    assert_eq!(none.json()["read"], 1200);
    rowbeat(&db, &["change", "replay", "--watch", "nobody", "--from", from])
        .refused(1, &["there is no watch nobody"]);
}

#[tokio::test]
async fn a_confirmed_copy_begins_with_an_empty_log() {
    let db = shop().await;
    db.run("select rowbeat.watch('public.orders', 'noted', p_name => 'all'); select rowbeat.create_consumer('mirror', '{public.orders}');
            select rowbeat.confirm_database(); insert into public.orders values (1)")
        .await;
    let copy = db.dumped().await;
    assert_eq!(copy.get::<i64>("select count(*) from rowbeat.change").await, 1);
    copy.run("select rowbeat.confirm_database()").await;
    assert_eq!(copy.get::<i64>("select count(*) from rowbeat.change").await, 0);
    assert_eq!(copy.refusal("select * from rowbeat.consume('mirror')").await.0, "RB008");
    copy.run("insert into public.orders values (2)").await;
    route_all(&copy).await;
    assert_eq!(ids(&copy, "all").await, [2]);
    // At home it empties nothing.
    db.run("select rowbeat.confirm_database()").await;
    route_all(&db).await;
    assert_eq!(ids(&db, "all").await, [1]);
}
