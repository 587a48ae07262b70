//! The bundled plugin statement: that it installs, what days and weeks mean to it, and what is read.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::endpoint::Site;
use crate::harness::{Daemon, TestDb};
use crate::login::Login;

/// A database with statement.
pub(crate) async fn statement() -> TestDb {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "statement"]).ok();
    db
}

/// The six transactions of the specification's examples.
pub(crate) async fn with_transactions() -> TestDb {
    let db = statement().await;
    db.run(
        "insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 70000, '2024-06-24 08:00Z'), ('m2', 50000, '2024-06-24 09:00Z'),
            ('m1', 56000, '2024-06-25 08:00Z'), ('m1', 1000, '2024-06-24 21:00Z'), ('42', 1000, '2025-01-01 10:30Z'), ('m1', 7, '2025-03-20 23:00Z')",
    )
    .await;
    apply(&db).await;
    db
}

/// What is committed is in the totals: in a transaction of its own, for no transaction reads its own changes in the log.
pub(crate) async fn apply(db: &TestDb) {
    db.run("select statement.apply_changes()").await;
}

/// The points of a chart, `key value` each.
pub(crate) async fn points(db: &TestDb, mode: &str, kind: &str, merchant: Option<&str>) -> Vec<String> {
    let sql = "select coalesce(array_agg(p.key || ' → ' || p.value order by p.n), '{}')
        from rows from (statement.summary_points($1, $2, $3)) with ordinality p (key, value, n)";
    db.get_with(sql, &[&mode, &kind, &merchant]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_installs_once_passes_its_tests_and_goes_away() {
    let db = TestDb::new().await;
    let said = rowbeat(&db, &["plugin", "install", "statement", "--test"]).ok();
    assert!(said.contains("plugin statement 1.0.0 installed"), "{said}");
    assert!(said.contains("added    consumer   statement.transactions"), "{said}");
    rowbeat(&db, &["plugin", "install", "statement"]).ok();
    let list: Value = rowbeat(&db, &["plugin", "list", "--json"]).json();
    assert_eq!(list[0]["isolated"], json!(true));
    rowbeat(&db, &["plugin", "remove", "statement", "--purge"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change_consumer where name <> 'router'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_works_also_where_no_roles_can_be_made() {
    let db = TestDb::empty().await;
    let login = Login::new(&db, "nocreaterole").await;
    assert!(login.install("statement").contains("not isolated"));
    let _daemon = Daemon::start(login.command(), "", &[]).ready().await;
    db.run(&format!(
        "set role {};
         insert into statement.transaction (merchant_id, amount, created_at) values ('m', 5, '2024-06-24 08:00Z');
         select statement.create_notification('1', 't', 'b', '[\"sms\"]');
         reset role",
        login.role
    ))
    .await;
    db.until("(select count(*) = 3 from statement.summary) and (select status = 'sent' from statement.notification)").await;
}

#[tokio::test]
async fn s1_the_sample_of_the_document() {
    let db = statement().await;
    db.run(
        "insert into statement.transaction (merchant_id, amount, created_at) values ('m1', 70000, '2024-06-24 08:00Z'), ('m2', 50000, '2024-06-24 09:00Z'),
            ('m1', 56000, '2024-06-25 08:00Z')",
    )
    .await;
    apply(&db).await;
    assert_eq!(points(&db, "daily", "amount", None).await, ["1403/04/04 → 120000", "1403/04/05 → 56000"]);
}

#[tokio::test]
async fn s2_days_are_those_of_the_zone() {
    let db = with_transactions().await;
    let tehran = ["1403/04/04 → 120000", "1403/04/05 → 57000", "1403/10/12 → 1000", "1404/01/01 → 7"];
    assert_eq!(
        points(&db, "daily", "amount", None).await,
        tehran,
        "nine in the evening of UTC is the next day"
    );
    db.run("select statement.configure('jalali', 'UTC')").await;
    let utc = ["1403/04/04 → 121000", "1403/04/05 → 56000", "1403/10/12 → 1000", "1403/12/30 → 7"];
    assert_eq!(points(&db, "daily", "amount", None).await, utc);
    db.run("select statement.configure('jalali', 'Asia/Tehran')").await;
    assert_eq!(points(&db, "daily", "amount", None).await, tehran);
}

#[tokio::test]
async fn s4_one_merchant_has_points_of_its_own() {
    let db = with_transactions().await;
    db.run("select statement.configure('jalali', 'UTC')").await;
    let keys = ["1403/04/04", "1403/04/05", "1403/12/30"];
    for (kind, values) in [("amount", [71000, 56000, 7]), ("count", [2, 1, 1])] {
        let expected: Vec<String> =
            keys.iter().zip(values).map(|(key, value)| format!("{key} → {value}")).collect();
        assert_eq!(points(&db, "daily", kind, Some("m1")).await, expected);
    }
    assert_eq!(points(&db, "daily", "amount", Some("")).await.len(), 4, "an empty merchant is all of them");
}

#[tokio::test]
async fn s5_s6_weeks_and_months_by_the_source_rule() {
    let db = with_transactions().await;
    db.run("select statement.configure('iso', 'UTC')").await;
    let weeks = ["هفته 26 سال 1403 → 177000", "هفته 1 سال 1403 → 1000", "هفته 12 سال 1403 → 7"];
    assert_eq!(points(&db, "weekly", "amount", None).await, weeks);
    let months = ["خرداد 1403 → 177000", "دی 1403 → 1000", "اسفند 1403 → 7"];
    assert_eq!(points(&db, "monthly", "amount", None).await, months);
}

#[tokio::test]
async fn weeks_and_months_are_those_of_the_readers_calendar() {
    let db = with_transactions().await;
    let weeks = ["هفته 15 سال 1403 → 177000", "هفته 42 سال 1403 → 1000", "هفته 1 سال 1404 → 7"];
    assert_eq!(points(&db, "weekly", "amount", None).await, weeks);
    let months = ["تیر 1403 → 177000", "دی 1403 → 1000", "فروردین 1404 → 7"];
    assert_eq!(points(&db, "monthly", "amount", None).await, months);
    let columns: Vec<String> = db
        .get(
            "select array_agg(distinct concat_ws(' ', s.granularity, s.bucket_start, s.year, s.week, s.month) order by concat_ws(' ', s.granularity, s.bucket_start, s.year, s.week, s.month))
             from statement.summary s where s.merchant_id = '42' or s.total_amount = 7",
        )
        .await;
    let expected = [
        "daily 2025-01-01 1403",
        "daily 2025-03-21 1404",
        "monthly 2024-12-21 1403 10",
        "monthly 2025-03-21 1404 1",
        "weekly 2024-12-28 1403 42",
        "weekly 2025-03-21 1404 1",
    ];
    assert_eq!(columns, expected);
}

#[tokio::test]
async fn different_weeks_are_different_points_even_if_their_keys_read_the_same() {
    let db = statement().await;
    db.run(
        "select statement.configure('iso', 'UTC');
         insert into statement.transaction (amount, created_at) select 1, g from generate_series(timestamptz '2000-01-01 12:00Z', '2060-01-01Z', '7 days') g",
    )
    .await;
    apply(&db).await;
    let (points, starts, keys): (i64, i64, i64) = (
        db.get("select count(*) from statement.summary_points('weekly', 'count')").await,
        db.get("select count(distinct bucket_start) from statement.summary where granularity = 'weekly'")
            .await,
        db.get("select count(distinct key) from statement.summary_points('weekly', 'count')").await,
    );
    assert_eq!(points, starts);
    assert!(keys < points, "some years have two weeks of one name: {keys} of {points}");
    assert_eq!(
        db.get::<i64>("select max(value)::bigint from statement.summary_points('weekly', 'count')").await,
        1
    );
}

#[tokio::test]
async fn transactions_without_merchant_are_one_row_and_part_of_all() {
    let db = statement().await;
    db.run(
        "insert into statement.transaction (merchant_id, amount, created_at) values (null, null, '2024-06-24 08:00Z'), ('', 5, '2024-06-24 08:00Z'),
            ('m', 7, '2024-06-24 08:00Z'), ('m', 100, null)",
    )
    .await;
    apply(&db).await;
    assert_eq!(
        db.get::<i64>("select count(*) from statement.transaction where merchant_id is null").await,
        2
    );
    assert_eq!(points(&db, "daily", "amount", None).await, ["1403/04/04 → 12"]);
    assert_eq!(
        points(&db, "daily", "count", None).await,
        ["1403/04/04 → 3"],
        "a null amount is counted, a null date is not"
    );
    assert_eq!(db.get::<i64>("select count(*) from statement.summary").await, 6);
    // Who loads without triggers leaves empty texts.
    db.run("set session_replication_role = replica").await;
    db.run("insert into statement.transaction (merchant_id, amount, created_at) values ('', 1, '2024-06-24 08:00Z')").await;
    db.run("reset session_replication_role").await;
    db.run("select statement.rebuild_summaries(true)").await;
    assert_eq!(points(&db, "daily", "amount", None).await, ["1403/04/04 → 13"]);
    assert_eq!(db.get::<i64>("select count(*) from statement.summary").await, 6);
    let doubled = "insert into statement.summary (granularity, bucket_start, merchant_id) values ('daily', '2024-06-24', '')";
    assert_eq!(db.refusal(doubled).await.0, "23505", "without merchant is one merchant");
}

#[tokio::test]
async fn what_no_calendar_has_is_refused() {
    let db = statement().await;
    for (sql, code) in [
        ("select statement.configure('lunar', 'UTC')", "RP400"),
        ("select statement.configure('iso', 'Mars/Olympus')", "RP400"),
        ("select statement.configure('iso', null)", "RP400"),
        ("select statement.configure(null, 'UTC')", "RP400"),
        ("select statement.from_jalali(1404, 12, 30)", "RP400"),
        ("select statement.from_jalali(1403, 7, 31)", "RP400"),
        ("select statement.from_jalali(1403, 13, 1)", "RP400"),
        ("select statement.bucket_start('yearly', now())", "RP400"),
        ("select statement.bucket_key(null, '2024-01-01')", "RP400"),
        ("select statement.summary_points('daily', 'sum')", "RP400"),
        ("insert into statement.transaction (created_at) values ('infinity')", "23514"),
    ] {
        assert_eq!(db.refusal(sql).await.0, code, "{sql}");
    }
    assert_eq!(
        db.get::<String>("select calendar || ' ' || zone from statement.calendar").await,
        "jalali Asia/Tehran"
    );
}

/// The status and the text of an answer.
async fn summary(site: &Site, query: &str) -> (u16, String) {
    let answer = site.get(&format!("/api/transactions/summary{query}")).await;
    (answer.status, answer.body.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_s11_the_endpoint_answers_with_points_or_says_what_is_wrong() {
    let db = statement().await;
    db.run(
        "insert into statement.summary (granularity, bucket_start, merchant_id, total_amount, total_count) values ('daily', '2024-06-24', null, 1234, 7),
            ('weekly', '2024-06-22', '42', 5000, 10), ('monthly', '2024-06-21', '42', 9000, 20)",
    )
    .await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/api/transactions/summary?mode=daily&type=amount", 200).await;
    for (query, status, body) in [
        ("?mode=daily&type=amount", 200, "[{\"key\": \"1403/04/04\", \"value\": 1234}]"),
        ("/?mode=daily&type=count", 200, "[{\"key\": \"1403/04/04\", \"value\": 7}]"),
        ("?mode=daily&type=count&merchant_id=", 200, "[{\"key\": \"1403/04/04\", \"value\": 7}]"),
        (
            "?mode=weekly&type=amount&merchant_id=42",
            200,
            "[{\"key\": \"هفته 15 سال 1403\", \"value\": 5000}]",
        ),
        ("?mode=weekly&type=count&merchant_id=42", 200, "[{\"key\": \"هفته 15 سال 1403\", \"value\": 10}]"),
        ("?mode=monthly&type=amount&merchant_id=42", 200, "[{\"key\": \"تیر 1403\", \"value\": 9000}]"),
        ("?mode=monthly&type=count&merchant_id=42", 200, "[{\"key\": \"تیر 1403\", \"value\": 20}]"),
        ("?mode=monthly&type=count&merchant_id=999", 200, "[]"),
        ("?type=amount", 400, "{\"mode\":\"Invalid mode\"}"),
        ("?mode=yearly&type=avg", 400, "{\"mode\":\"Invalid mode\"}"),
        ("?mode=daily&type=avg", 400, "{\"type\":\"Invalid type\"}"),
        ("?mode=daily", 400, "{\"type\":\"Invalid type\"}"),
    ] {
        assert_eq!(summary(&site, query).await, (status, body.to_owned()), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_the_endpoint_answers_while_the_raw_table_is_locked_or_away_and_in_full_however_large_a_sum_is() {
    let db = statement().await;
    db.run(
        "insert into statement.summary (granularity, bucket_start, merchant_id, total_amount, total_count)
         select 'daily', '2024-06-24', m, 90000000000000000000000000000000000001, 9223372036854775807 from unnest('{a,b}'::text[]) m",
    )
    .await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/api/transactions/summary?mode=daily&type=amount", 200).await;
    let full =
        (200, "[{\"key\": \"1403/04/04\", \"value\": 180000000000000000000000000000000000002}]".to_owned());
    db.run("begin; lock table statement.transaction in access exclusive mode").await;
    assert_eq!(summary(&site, "?mode=daily&type=amount").await, full);
    db.run("commit; alter table statement.transaction rename to elsewhere").await;
    assert_eq!(summary(&site, "?mode=daily&type=amount").await, full);
    let counted = (200, "[{\"key\": \"1403/04/04\", \"value\": 18446744073709551614}]".to_owned());
    assert_eq!(summary(&site, "?mode=daily&type=count").await, counted);
}
