//! A short storm, and the proof that its checker finds what it is for. The long one is `cargo bench --bench chaos`.

#[path = "../chaos/checker.rs"]
mod checker;
#[path = "../chaos/client.rs"]
mod client;
#[path = "../chaos/draft.rs"]
mod draft;
mod faults;
#[path = "../chaos/history.rs"]
mod history;
#[path = "../chaos/killer.rs"]
mod killer;
#[path = "../chaos/record.rs"]
mod record;
#[path = "../chaos/storm.rs"]
mod storm;
#[path = "../chaos/world.rs"]
mod world;

use crate::harness::TestDb;

#[tokio::test]
async fn a_slot_that_is_given_back_after_a_claim_began_is_not_taken_by_it() {
    let db = TestDb::new().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor, function, concurrency) values ('d', 'sql', 'f', 1);
         insert into rowbeat.task (definition) values ('d'), ('d');
         create temporary table claimed as
             select t.id, t.attempt from rowbeat.claim_tasks(1, 10, 10, '{*}', '{}', null) t;",
    )
    .await;
    assert_eq!(db.get::<i64>("select count(*) from claimed").await, 1);
    let began: chrono::DateTime<chrono::Utc> = db.get("select rowbeat.now_()").await;
    db.run("select rowbeat.end_attempt(c.id, c.attempt, 1, 'done') from claimed c").await;
    let slots = "select cardinality(rowbeat.lock_slots('concurrency/d', 1, $1))";
    assert_eq!(db.get_with::<i32>(slots, &[&began]).await, 0);
    let now: chrono::DateTime<chrono::Utc> = db.get("select rowbeat.now_()").await;
    assert_eq!(db.get_with::<i32>(slots, &[&now]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_storm_breaks_no_rule() {
    let seed = fastrand::u64(..1_000_000_000);
    let storm = storm::Storm { seconds: 8, seed, clients: 16, daemons: 2, harsh: false };
    let report = storm.rage().await;
    let broken: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{}\n{}\n{}", report.table, broken.join("\n"), report.logs.join("\n---\n"));
}
