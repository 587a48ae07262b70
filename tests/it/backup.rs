//! Backups: what is kept, exactly, and what is said when something is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rowbeat::backup::keeper::Keeper;
use rowbeat::db::doorbell::Bell;
use rowbeat::db::sqlstate;
use rowbeat::service::{Loop, Pass};
use serde_json::{Value, json};

use crate::harness::TestDb;

/// Reads what there is, as a daemon would.
pub async fn keep_all(db: &TestDb) {
    let mut keeper = Keeper::new(db.db(), Bell::default(), std::time::Duration::from_secs(1));
    while let Pass::Worked(_) = keeper.run_once().await.unwrap() {}
}

/// A table of accounts under backup, with this baseline.
pub async fn accounts(rows: i64) -> TestDb {
    let db = TestDb::new().await;
    db.run(&format!(
        "create table public.account (id bigint primary key, owner text, balance numeric, at timestamptz not null default now());
         insert into public.account (id, owner, balance) select g, 'o' || g, g from generate_series(1, {rows}) g;
         select rowbeat.enable_backup('public.account');"
    ))
    .await;
    keep_all(&db).await;
    db
}

/// A hash over all rows of a table.
pub async fn hash(db: &TestDb, table: &str) -> String {
    db.get(&format!(
        "select coalesce(md5(string_agg(t.*::text, '|' order by t.*::text)), 'empty') from {table} t"
    ))
    .await
}

/// The status of the only backup.
async fn status(db: &TestDb) -> String {
    db.get("select status from rowbeat.backups").await
}

#[tokio::test]
async fn what_commits_is_kept_in_order_and_what_is_rolled_back_is_not() {
    let db = accounts(2).await;
    let (early, late) = (db.session().await, db.session().await);
    early.batch_execute("begin; insert into public.account values (3, 'early', 3)").await.unwrap();
    late.batch_execute("begin; insert into public.account values (4, 'late', 4); rollback").await.unwrap();
    db.run("update public.account set balance = 20 where id = 2; set rowbeat.actor = 'ann'; delete from public.account where id = 1").await;
    keep_all(&db).await;
    early.batch_execute("commit").await.unwrap();
    keep_all(&db).await;
    let kept: Value = db
        .get("select jsonb_agg(jsonb_build_array(operation, key -> 'id', row -> 'balance', actor) order by transaction, image)
              from rowbeat.backup_history where operation <> 'BASELINE'")
        .await;
    assert_eq!(
        kept,
        json!([["UPDATE", 2, 20, null], ["DELETE", 1, 1, "ann"], ["INSERT", 3, 3, null]]),
        "in the order in which they became visible"
    );
    let deleted: Value =
        db.get("select jsonb_agg(jsonb_build_array(key, deleted_by)) from rowbeat.backup_deleted").await;
    assert_eq!(deleted, json!([[{ "id": 1 }, "ann"]]));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.backup_latest").await, 2);
}

#[tokio::test]
async fn transactions_follow_those_that_they_can_depend_on() {
    let db = accounts(1).await;
    let (first, second) = (db.session().await, db.session().await);
    // The second begins to write before the first, and builds on it afterwards.
    second.batch_execute("begin; insert into public.account values (10, 'second', 1)").await.unwrap();
    first.batch_execute("insert into public.account values (20, 'first', 1)").await.unwrap();
    second.batch_execute("update public.account set balance = 2 where id = 20; commit").await.unwrap();
    keep_all(&db).await;
    let order: Vec<i64> = db
        .get("select array_agg((key ->> 'id')::bigint order by transaction, image) from rowbeat.backup_history where operation <> 'BASELINE'")
        .await;
    assert_eq!(order, [20, 10, 20]);
}

#[tokio::test]
async fn a_transaction_counts_when_all_of_it_was_read() {
    let db = accounts(0).await;
    db.run("insert into public.account (id) select generate_series(1, 25)").await;
    let count = "select count(*) from rowbeat.backup_latest";
    for _ in 0..2 {
        assert!(!db.get::<bool>("select complete from rowbeat.back_up(10)").await);
        assert_eq!(db.get::<i64>(count).await, 0);
    }
    assert!(db.get::<bool>("select complete from rowbeat.back_up(10)").await);
    assert_eq!(db.get::<i64>(count).await, 25);
    assert_eq!(db.get::<i64>("select count(distinct transaction) from rowbeat.backup_history").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_baseline_misses_nothing_that_is_written_meanwhile() {
    let db = TestDb::new().await;
    db.run(
        "create table public.account (id bigint primary key, owner text, balance numeric);
         insert into public.account select g, 'o', g from generate_series(1, 2000) g;",
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for n in 0..3 {
        let (session, stop) = (db.session().await, Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(n);
            while !stop.load(Ordering::Relaxed) {
                let id = rng.i64(1..2500);
                let write = match rng.u32(0..4) {
                    0 => format!("insert into public.account values ({id}, 'new', 0) on conflict do nothing"),
                    1 => format!("delete from public.account where id = {id}"),
                    2 => format!("update public.account set id = id + 5000 where id = {id} and not exists (select from public.account where id = {id} + 5000)"),
                    _ => format!("update public.account set balance = balance + 1 where id between {id} and {id} + 3"),
                };
                // Two that lock rows in different orders, or insert the same, may fail.
                let _ = session.batch_execute(&write).await;
            }
        }));
    }
    db.run("select rowbeat.enable_backup('public.account')").await;
    let keeper = db.session().await;
    while db.get::<Option<i32>>("select rowbeat.continue_baseline('public.account', 100)").await.is_some() {
        keeper.batch_execute("select rowbeat.back_up(50)").await.unwrap();
    }
    // Against running writers, too.
    let sound = "select different + lost + unknown + inexact from rowbeat.verify_backup('public.account')";
    assert_eq!(db.get::<i64>(sound).await, 0);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(db.get::<i64>(sound).await, 0);
    assert!(
        db.get::<bool>("select rows > 1000 and rows = images from rowbeat.verify_backup('public.account')")
            .await
    );
}

#[tokio::test]
async fn images_are_exact_whatever_the_writers_session_is_set_to() {
    let db = TestDb::new().await;
    db.run(
        "create type public.mood as enum ('fine', 'bad'); create type public.pair as (x int, y text);
         create table public.thing (a int, b timestamptz, id bigint generated always as identity, n numeric, raw bytea, t timestamptz default now(),
             list text[], m public.mood, p public.pair, double int generated always as (a * 2) stored, span interval, f float8, j jsonb, d date, u uuid,
             inside int4range, days daterange, x text, r text, l text, c text, i text, primary key (a, b));
         select rowbeat.enable_backup('public.thing');",
    )
    .await;
    let row = |a: i32| {
        format!(
            "insert into public.thing (a, b, n, raw, list, m, p, span, f, j, d, u, inside, days, x) values ({a}, '2026-03-29T01:30:00+01:00', 1.10, '\\xdeadbeef',
                array['a', null, 'b \"c\"'], 'bad', row(1, 'z'), '-1 day -02:03:04.5', 0.1 + {a}::float8 / 3, '{{\"k\": [1, 2.50, null]}}', 'infinity',
                gen_random_uuid(), '[1,5)', '[2026-03-01,2026-04-12)', 'a column with the name of an alias')"
        )
    };
    db.run(&row(1)).await;
    let odd = db.session().await;
    odd.batch_execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set intervalstyle = 'sql_standard'; set extra_float_digits = -5; set bytea_output = 'escape'")
        .await
        .unwrap();
    odd.batch_execute(&row(2)).await.unwrap();
    odd.batch_execute("update public.thing set n = 1.20 where a = 1").await.unwrap();
    let before = hash(&db, "public.thing").await;
    db.run("select rowbeat.catch_up()").await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.backup_latest").await,
        2,
        "a key has one image whatever the zone"
    );
    db.run("truncate public.thing").await;
    let inserted: i64 = db.get("select inserted from rowbeat.restore()").await;
    assert_eq!((inserted, hash(&db, "public.thing").await), (2, before));
    assert_eq!(db.get::<i64>("select inexact from rowbeat.verify_backup('public.thing')").await, 0);
    db.run("update public.thing set f = '-0', j = 'null' where a = 1").await;
    assert_eq!(
        db.get::<i64>("select inexact from rowbeat.verify_backup('public.thing')").await,
        1,
        "what JSON cannot hold is said"
    );
}

#[tokio::test]
async fn columns_that_watches_leave_out_are_in_the_backup() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.login (id int primary key, name text, password text);
         insert into rowbeat.watch (table_name, definition, exclude) values ('public.login', 'add_effect', '{password}');
         select rowbeat.enable_backup('public.login');
         insert into public.login values (1, 'ann', 'secret');",
    )
    .await;
    db.run("select rowbeat.catch_up(); select rowbeat.route_changes()").await;
    assert_eq!(db.get::<String>("select row ->> 'password' from rowbeat.backup_latest").await, "secret");
    assert!(!db.get::<String>("select payload::text from rowbeat.task").await.contains("secret"));
    db.run(
        "select rowbeat.disable_backup('public.login'); insert into public.login values (2, 'bob', 'secret')",
    )
    .await;
    let logged: Value = db.get("select new from rowbeat.change order by seq desc limit 1").await;
    assert_eq!(logged, json!({ "id": 2, "name": "bob" }), "left out again");
}

#[tokio::test]
async fn images_are_not_for_readers_and_the_consumer_for_nobody_else() {
    let db = accounts(1).await;
    db.run("set role rowbeat_reader").await;
    db.run(
        "select * from rowbeat.backups; select * from rowbeat.health; select * from rowbeat.backup_targets",
    )
    .await;
    for sql in [
        "select * from rowbeat.backup_latest",
        "select rowbeat.backup_document()",
        "select rowbeat.catch_up()",
    ] {
        assert_eq!(db.refusal(sql).await.0, "42501", "{sql}");
    }
    db.run("reset role").await;
    for sql in ["select rowbeat.consume('backup')", "select rowbeat.rebase_consumer('backup')"] {
        assert_eq!(db.refusal(sql).await.0, "42501", "{sql}");
    }
    assert_eq!(db.refusal("select rowbeat.create_consumer('backup', '{public.account}')").await.0, "22023");
}

#[tokio::test]
async fn what_cannot_be_backed_up_is_refused_with_the_remedy() {
    let db = TestDb::new().await;
    db.run("create table public.heap (a int); create view public.seen as select 1 as a").await;
    for table in ["public.heap", "public.seen", "rowbeat.task"] {
        let (code, message) = db.refusal(&format!("select rowbeat.enable_backup('{table}')")).await;
        assert_eq!(code, sqlstate::NOT_WATCHABLE.code, "{message}");
    }
}

#[tokio::test]
async fn what_a_backup_misses_stands_in_its_status_until_it_begins_anew() {
    let db = accounts(3).await;
    assert_eq!(status(&db).await, "up to date");
    let again = "select rowbeat.enable_backup('public.account', p_again => true)";
    // The log was emptied before it was read.
    db.run("update public.account set balance = 7; delete from public.account where id = 3; truncate rowbeat.change;
            update rowbeat.change_consumer set lost_at = now() where name = 'backup'; insert into public.account values (9, 'later', 9)").await;
    keep_all(&db).await;
    assert!(status(&db).await.contains("--again"), "{}", status(&db).await);
    assert!(!db.get::<bool>("select ok from rowbeat.health where \"check\" = 'backups'").await);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.backup_latest where key = '{\"id\": 9}'").await,
        1,
        "what came later is kept"
    );
    assert_eq!(db.get::<i64>("select different from rowbeat.verify_backup('public.account')").await, 2);
    db.run(again).await;
    keep_all(&db).await;
    assert_eq!(status(&db).await, "up to date");
    assert_eq!(
        db.get::<i64>("select different + unknown from rowbeat.verify_backup('public.account')").await,
        0
    );
    // A trigger that somebody disabled.
    db.run("alter table public.account disable trigger rowbeat_capture_update").await;
    assert!(status(&db).await.contains("trigger"), "{}", status(&db).await);
    db.run(again).await;
    assert_ne!(status(&db).await, "a trigger is missing or disabled: rowbeat backup enable --again");
    keep_all(&db).await;
    // Other columns.
    db.run("alter table public.account add column extra int, drop column owner").await;
    assert!(status(&db).await.contains("new: extra integer, no more: owner text"), "{}", status(&db).await);
    db.run(again).await;
    keep_all(&db).await;
    assert_eq!(status(&db).await, "up to date");
    // No key.
    db.run("alter table public.account drop constraint account_pkey").await;
    assert!(status(&db).await.contains("no primary key"), "{}", status(&db).await);
    db.run("drop table public.account").await;
    assert!(status(&db).await.contains("gone"), "{}", status(&db).await);
}

#[tokio::test]
async fn an_ended_backup_captures_nothing_and_its_images_stay() {
    let db = accounts(2).await;
    db.run("delete from public.account where id = 1").await;
    db.run("delete from rowbeat.backup").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 0);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.backup_history").await,
        3,
        "what was captured before is kept"
    );
    db.run(
        "insert into public.account values (5, 'nobody', 5); select rowbeat.enable_backup('public.account')",
    )
    .await;
    keep_all(&db).await;
    let images: i64 = db.get("select count(*) from rowbeat.backup_history").await;
    assert_eq!(images, 4, "under the same name they go on, and equal rows get no other image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_takes_the_baseline_and_keeps_what_comes_soon() {
    let db = TestDb::new().await;
    db.run("create table public.account (id int primary key); insert into public.account values (1)").await;
    let daemon = db.daemon_with("[node]\npoll_interval = \"10m\"\n", &[]).ready().await;
    db.run("select rowbeat.enable_backup('public.account')").await;
    db.until("(select count(*) = 1 from rowbeat.backup_latest)").await;
    db.until("(select baselined_at is not null from rowbeat.backup)").await;
    // By the bell: the poll comes too late for a test.
    db.run("insert into public.account values (2)").await;
    db.until("(select count(*) = 2 from rowbeat.backup_latest)").await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
}
