//! Statement's totals: kept from the change log, rebuilt while everything goes on, and each transaction counted exactly once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::TestDb;
use crate::statement::{apply, points, statement, with_transactions};

/// Sums and counts by granularity, `granularity amount count rows` each.
async fn totals(db: &TestDb) -> Vec<String> {
    db.get(
        "select coalesce(array_agg(s.line order by s.line), '{}') from (
            select concat_ws(' ', granularity, sum(total_amount), sum(total_count), count(*)) as line from statement.summary group by granularity) s",
    )
    .await
}

/// Whether the totals are exactly what the raw rows say.
async fn right(db: &TestDb) -> bool {
    db.get(
        "with daily as (
            select (t.created_at at time zone c.zone)::date as day, t.merchant_id, coalesce(sum(t.amount), 0) as amount, count(*) as count
            from statement.transaction t cross join statement.calendar c where t.created_at is not null group by 1, 2
        ), expected as (
            select b.granularity, b.bucket_start, d.merchant_id, sum(d.amount) as amount, sum(d.count) as count
            from daily d join statement.buckets((select calendar from statement.calendar), array(select distinct day from daily)) b on b.day = d.day group by 1, 2, 3
        ), found as (
            select s.granularity, s.bucket_start, s.merchant_id, s.total_amount, s.total_count from statement.summary s
        )
        select not exists ((table expected except table found) union all (table found except table expected))",
    )
    .await
}

#[tokio::test]
async fn s7_s8_a_truncating_rebuild_leaves_what_the_raw_rows_say_and_nothing_else() {
    let db = statement().await;
    db.run("insert into statement.transaction (merchant_id, amount, created_at) select '42', a, '2025-01-01 10:30Z' from unnest('{1000,2000}'::bigint[]) a").await;
    let three = ["daily 3000 2 1", "monthly 3000 2 1", "weekly 3000 2 1"];
    let rebuild =
        async |more: &[&str]| rowbeat(&db, &[&["app", "statement", "rebuild_summaries"], more].concat()).ok();
    let said =
        "Existing summary records removed.\nCreating 3 summary documents...\nSummary rebuild complete.\n";
    assert_eq!(rebuild(&["--truncate"]).await, said);
    assert_eq!(totals(&db).await, three);
    db.run("insert into statement.summary (granularity, bucket_start, merchant_id, total_amount, total_count) values ('daily', '2020-01-01', null, 999, 9)").await;
    assert_eq!(rebuild(&[]).await, "Creating 3 summary documents...\nSummary rebuild complete.\n");
    assert_eq!(
        totals(&db).await,
        ["daily 3999 11 2", "monthly 3000 2 1", "weekly 3000 2 1"],
        "without raw rows a bucket stays"
    );
    db.run("update statement.summary set total_amount = 1, total_count = 50, year = 7").await;
    assert_eq!(rowbeat(&db, &["rebuild-summaries", "--truncate"]).ok(), said);
    assert_eq!(totals(&db).await, three);
    assert_eq!(db.get::<i64>("select count(*) from statement.summary where year = 1403").await, 3);
    apply(&db).await;
    assert_eq!(totals(&db).await, three, "what was rebuilt is not added once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_can_be_a_task_and_a_configuration_a_command() {
    let db = with_transactions().await;
    db.run("update statement.summary set total_amount = 5").await;
    let said = rowbeat(&db, &["app", "statement", "rebuild-summaries", "--truncate", "--async"]).ok();
    assert!(said.starts_with("Rebuild task queued with ID: "), "{said}");
    let _daemon = db.daemon().ready().await;
    db.until("exists (select from rowbeat.tasks where definition = 'statement.rebuild_summaries' and state = 'completed')").await;
    assert!(right(&db).await);
    let said = rowbeat(&db, &["app", "statement", "configure", "--calendar", "iso", "--zone", "UTC"]).ok();
    assert_eq!(
        said,
        "Calendar iso, time zone UTC.\nCreating 13 summary documents...\nSummary rebuild complete.\n"
    );
    assert_eq!(db.get::<String>("select calendar || zone from statement.calendar").await, "isoUTC");
    assert!(right(&db).await);
    rowbeat(&db, &["app", "statement", "configure", "--calendar", "lunar", "--zone", "UTC"])
        .refused(1, &["There is no calendar lunar"]);
    rowbeat(&db, &["app", "statement", "configure", "--calendar", "iso"]).refused(2, &["zone"]);
}

#[tokio::test]
async fn s20_totals_follow_amount_merchant_date_and_the_end_of_a_transaction() {
    let db = statement().await;
    db.run("insert into statement.transaction (id, merchant_id, amount, created_at) values (1, 'a', 100, '2024-06-24 08:00Z')").await;
    apply(&db).await;
    assert_eq!(totals(&db).await, ["daily 100 1 1", "monthly 100 1 1", "weekly 100 1 1"]);
    for change in [
        "amount = 250",
        "merchant_id = 'b'",
        "created_at = '2023-01-05 08:00Z'",
        "created_at = null",
        "created_at = '2024-06-26 23:00Z'",
        "amount = null",
        "merchant_id = ''",
        "amount = 9, merchant_id = 'c', created_at = '2024-06-25 08:00Z'",
        "id = 7",
    ] {
        db.run(&format!("update statement.transaction set {change}")).await;
        apply(&db).await;
        assert!(right(&db).await, "{change}: {:?}", totals(&db).await);
    }
    db.run("delete from statement.transaction").await;
    apply(&db).await;
    assert_eq!(totals(&db).await, Vec::<String>::new(), "no row is left");
    db.run("insert into statement.transaction (amount, created_at) values (1, now()); delete from statement.transaction").await;
    apply(&db).await;
    assert_eq!(totals(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn truncating_the_raw_table_archives_it() {
    let db = with_transactions().await;
    let before = totals(&db).await;
    db.run("truncate statement.transaction; insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 1, '2024-06-24 08:00Z')").await;
    apply(&db).await;
    assert_eq!(points(&db, "daily", "amount", Some("m1")).await[0], "1403/04/04 → 70001");
    assert_eq!(totals(&db).await.len(), before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_in_the_totals_within_seconds_and_a_burst_is_one_task() {
    let db = statement().await;
    db.run("update rowbeat.task_definition set keep = 'all' where name = 'statement.apply_changes'").await;
    db.run(
        &"insert into statement.transaction (merchant_id, amount, created_at) values ('m', 1, now());"
            .repeat(300),
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.until("(select sum(total_count) = 900 from statement.summary)").await;
    db.until("not exists (select from rowbeat.task where definition = 'statement.apply_changes')").await;
    let tasks: i64 =
        db.get("select count(*) from rowbeat.tasks where definition = 'statement.apply_changes'").await;
    assert!(tasks < 20, "{tasks} tasks for 300 statements");
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('m', 1, now())")
        .await;
    db.until("(select sum(total_count) = 903 from statement.summary)").await;
    assert!(right(&db).await);
}

#[tokio::test]
async fn a_writer_waits_for_no_total_and_a_reader_for_no_writer() {
    let db = with_transactions().await;
    let other = db.session().await;
    other
        .batch_execute(
            "begin; select statement.rebuild_summaries(true); lock table statement.summary in exclusive mode",
        )
        .await
        .unwrap();
    db.run("set lock_timeout = '100ms'; insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 5, '2024-06-24 08:00Z')").await;
    assert_eq!(
        points(&db, "daily", "amount", None).await.len(),
        4,
        "the old points are there until the commit"
    );
    db.run("reset lock_timeout; set statement_timeout = '500ms'").await;
    for sql in ["select statement.apply_changes()", "select statement.rebuild_summaries()"] {
        assert_eq!(db.refusal(sql).await.0, "57014", "who changes totals waits");
    }
    other.batch_execute("commit").await.unwrap();
    db.run("reset statement_timeout").await;
    apply(&db).await;
    assert!(right(&db).await);
}

/// Eight sessions insert so many rows together, one a transaction.
async fn storm(db: &TestDb, inserts: u32) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let client = db.session().await;
        writers.spawn(async move {
            for row in 0..inserts / 8 {
                let sql = format!(
                    "insert into statement.transaction (merchant_id, amount, created_at) values ('w{writer}', {row}, now() - interval '{row} hours')"
                );
                client.batch_execute(&sql).await.unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_what_is_committed_during_a_rebuild_is_neither_missed_nor_counted_twice() {
    let db = statement().await;
    db.run("insert into statement.transaction (merchant_id, amount, created_at) select 'm' || g % 7, g, now() - g * interval '1 minute' from generate_series(1, 20000) g").await;
    let count = "select jsonb_object_agg(granularity, n) from (select granularity, sum(total_count) n from statement.summary group by 1) s";
    db.run("select statement.rebuild_summaries()").await;
    assert_eq!(db.get::<Value>(count).await, json!({ "daily": 20000, "weekly": 20000, "monthly": 20000 }));
    let (rebuilder, applier) = (db.session().await, db.session().await);
    let rebuilds = tokio::spawn(async move {
        for truncate in [true, false, true, false, true] {
            rebuilder
                .batch_execute(&format!("select statement.rebuild_summaries({truncate})"))
                .await
                .unwrap();
        }
    });
    let applies = tokio::spawn(async move {
        for _ in 0..10 {
            applier.batch_execute("select statement.apply_changes()").await.unwrap();
        }
    });
    storm(&db, 1000).await;
    rebuilds.await.unwrap();
    applies.await.unwrap();
    apply(&db).await;
    assert_eq!(db.get::<Value>(count).await, json!({ "daily": 21000, "weekly": 21000, "monthly": 21000 }));
    assert!(right(&db).await);
    db.run("select statement.rebuild_summaries(); select statement.rebuild_summaries(true)").await;
    assert!(right(&db).await, "any number of rebuilds makes the same totals");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_rebuild_never_see_less_or_more() {
    let db = with_transactions().await;
    let rebuilder = db.session().await;
    let rebuilds = tokio::spawn(async move {
        for _ in 0..20 {
            rebuilder.batch_execute("select statement.rebuild_summaries(true)").await.unwrap();
        }
    });
    let mut looks = 0;
    while !rebuilds.is_finished() || looks == 0 {
        let sum: Vec<String> = totals(&db).await;
        assert_eq!(sum, ["daily 178007 6 5", "monthly 178007 6 4", "weekly 178007 6 4"]);
        looks += 1;
    }
    rebuilds.await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_was_open_during_a_rebuild_counts_when_it_commits() {
    let db = statement().await;
    let (early, rebuilder) = (db.session().await, db.session().await);
    let insert = "insert into statement.transaction (merchant_id, amount, created_at) values ('m', 1, '2024-06-24 08:00Z')";
    early.batch_execute(&format!("begin; {insert}")).await.unwrap();
    db.run(insert).await;
    rebuilder.batch_execute("begin; select statement.rebuild_summaries()").await.unwrap();
    db.run(insert).await;
    rebuilder.batch_execute("commit").await.unwrap();
    assert_eq!(totals(&db).await[0], "daily 1 1 1", "its snapshot counts");
    apply(&db).await;
    assert_eq!(totals(&db).await[0], "daily 2 2 1");
    early.batch_execute("commit").await.unwrap();
    apply(&db).await;
    assert!(right(&db).await);
    let repeatable = db.session().await;
    repeatable.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    db.run(insert).await;
    repeatable.batch_execute("select statement.rebuild_summaries(true); commit").await.unwrap();
    assert_eq!(totals(&db).await[0], "daily 3 3 1", "an old snapshot has the old rows");
    apply(&db).await;
    assert!(right(&db).await, "and the log the newer ones");
}

#[tokio::test]
async fn transactions_beside_a_rebuild_in_the_very_same_database_transaction_count_once() {
    let db = statement().await;
    let insert = "insert into statement.transaction (merchant_id, amount, created_at) select 'm', g, '2024-06-24 08:00Z' from generate_series(1, 3) g";
    db.run(&format!("{insert}; select statement.rebuild_summaries(true); {insert}")).await;
    assert_eq!(totals(&db).await[0], "daily 6 3 1");
    apply(&db).await;
    assert_eq!(totals(&db).await[0], "daily 12 6 1");
    let other = db.session().await;
    db.run(&format!("begin; select statement.configure('iso', 'UTC'); {insert}")).await;
    other.batch_execute("create table public.passing ()").await.unwrap();
    db.run("select statement.configure('jalali', 'UTC'); delete from statement.transaction where amount = 3; commit").await;
    apply(&db).await;
    assert!(right(&db).await, "{:?}", totals(&db).await);
}

#[tokio::test]
async fn a_rebuild_that_fails_changes_nothing() {
    let db = with_transactions().await;
    let before = totals(&db).await;
    db.run("begin; update statement.transaction set amount = amount * 2; select statement.rebuild_summaries(true); rollback").await;
    assert_eq!(totals(&db).await, before);
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 5, '2024-06-24 08:00Z')").await;
    apply(&db).await;
    assert!(right(&db).await, "the position is where it was");
}

#[tokio::test]
async fn a_log_that_was_emptied_too_early_is_told_and_a_rebuild_repairs_it() {
    let db = with_transactions().await;
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 5, '2024-06-24 08:00Z')").await;
    db.run("insert into rowbeat.setting (name, value) values ('change_hold_days', '1'); set rowbeat.clock_offset = '10 days'; select rowbeat.prune(); reset rowbeat.clock_offset").await;
    let (code, message) = db.refusal("select statement.apply_changes()").await;
    assert_eq!(code, "RB008");
    assert!(message.contains("the summaries are incomplete"), "{message}");
    assert_eq!(totals(&db).await[0], "daily 178007 6 5");
    rowbeat(&db, &["app", "statement", "rebuild-summaries"]).ok();
    apply(&db).await;
    assert!(right(&db).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_plugin_was_removed_is_made_up_for() {
    let db = with_transactions().await;
    rowbeat(&db, &["plugin", "remove", "statement"]).ok();
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 5, '2024-06-24 08:00Z'); delete from statement.transaction where merchant_id = 'm2'").await;
    rowbeat(&db, &["plugin", "install", "statement"]).ok();
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 6, '2024-06-24 08:00Z')").await;
    let _daemon = db.daemon().ready().await;
    db.until("not (select rebuild_due from statement.calendar)").await;
    apply(&db).await;
    assert_eq!(points(&db, "daily", "amount", Some("m1")).await[0], "1403/04/04 → 70011");
    tokio::time::timeout(
        Duration::from_secs(30),
        db.until("not exists (select from rowbeat.task where definition = 'statement.apply_changes')"),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn operators_do_what_is_for_people_and_others_do_not() {
    let db = statement().await;
    db.run(
        "set role rowbeat_operator;
         insert into statement.transaction (merchant_id, amount, created_at) values ('m', 5, '2024-06-24 08:00Z');
         select statement.apply_changes(); select statement.rebuild_summaries(); select statement.configure('iso', 'UTC');
         select statement.create_notification('1', 't', 'b', '[\"sms\"]'); select statement.resend(1); select statement.to_jalali('2024-01-01')",
    )
    .await;
    assert_eq!(db.refusal("update statement.calendar set zone = 'UTC'").await.0, "42501");
    assert_eq!(db.refusal("update statement.summary set total_count = 1").await.0, "42501");
    db.run("reset role").await;
    let stranger = format!("stranger_{}", db.name);
    db.run(&format!(
        "create role {stranger}; grant usage on schema rowbeat, statement to {stranger}; set role {stranger}"
    ))
    .await;
    for sql in [
        "select statement.apply_changes()",
        "select rowbeat.consume('statement.transactions')",
        "select rowbeat.rebase_consumer('statement.transactions')",
    ] {
        assert_eq!(db.refusal(sql).await.0, "42501", "{sql}");
    }
    // A payment service needs nothing but its insert.
    db.run(&format!("reset role; grant insert on statement.transaction to {stranger}; set role {stranger}"))
        .await;
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('', 5, '2024-06-24 08:00Z')").await;
    assert_eq!(db.refusal("select * from statement.summary").await.0, "42501");
    db.run("reset role").await;
    apply(&db).await;
    assert_eq!(points(&db, "daily", "count", None).await, ["1403/04/04 → 2"]);
    db.run(&format!("reset role; drop owned by {stranger}; drop role {stranger}")).await;
}
