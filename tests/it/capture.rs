//! Capture: the writer is never failed, never waits and pays little; tables may change, and may be of any kind.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::{TestDb, server};

async fn database() -> TestDb {
    let db = TestDb::new().await;
    db.run("insert into rowbeat.task_definition (name, executor) values ('noted', 'external')").await;
    db
}

/// What the log says, in order: operation, key, old, new.
async fn log(db: &TestDb) -> Value {
    db.get("select coalesce(jsonb_agg(jsonb_build_array(operation, key, old, new) order by seq), '[]') from rowbeat.change").await
}

async fn route(db: &TestDb) -> i32 {
    db.get("select rowbeat.route_changes()").await
}

async fn tasks(db: &TestDb) -> i64 {
    db.get("select count(*) from rowbeat.task").await
}

#[tokio::test]
async fn hostile_names_generated_columns_and_composite_keys_are_captured_as_they_are() {
    let db = database().await;
    db.run(
        r#"create schema "we""ird; drop";
           create table "we""ird; drop"."T'a; --ble" ("K 1" int, "k""2" text, "select" int generated always as ("K 1" * 2) stored, "jSon" json,
               primary key ("K 1", "k""2"));
           select rowbeat.watch('"we""ird; drop"."T''a; --ble"', 'noted', p_name => 'odd ''name" \', p_columns => '{select}',
               p_condition => 'coalesce(new."select", old."select") > 2', p_exclude => '{jSon}');
           insert into "we""ird; drop"."T'a; --ble" values (1, 'a', default, null), (2, 'b', default, '{"a":1,"a":2}');
           update "we""ird; drop"."T'a; --ble" set "K 1" = 3 where "K 1" = 2;"#,
    )
    .await;
    assert_eq!(
        log(&db).await[3],
        json!(["INSERT", { "K 1": 3, "k\"2": "b" }, null, { "K 1": 3, "k\"2": "b", "select": 6 }])
    );
    route(&db).await;
    let seen: Vec<String> =
        db.get("select array_agg(payload ->> 'operation' order by id) from rowbeat.task").await;
    assert_eq!(seen, ["INSERT", "DELETE", "INSERT"]);
    assert_eq!(
        db.get::<String>("select min(payload ->> 'table') from rowbeat.task").await,
        r#""we""ird; drop"."T'a; --ble""#
    );
}

#[tokio::test]
async fn a_table_may_be_renamed_altered_and_dropped_under_its_watch() {
    let db = database().await;
    db.run(
        "create table public.orders (id bigint primary key, status text, price int, note text);
         select rowbeat.watch('public.orders', 'noted', p_name => 'all');
         select rowbeat.watch('public.orders', 'noted', p_name => 'dear', p_condition => 'new.price > 5');
         select rowbeat.watch('public.orders', 'noted', '{update}', 'status', p_columns => '{status}');
         insert into public.orders values (1, 'a', 10);
         alter table public.orders alter price type text, drop column note, alter id type int;
         alter table public.orders rename to purchases;
         alter table public.purchases rename id to number;
         insert into public.purchases values (2, 'b', '20');
         update public.purchases set status = status || '!';
         delete from public.purchases where number = 1;",
    )
    .await;
    route(&db).await;
    let log = log(&db).await;
    let operations: Vec<&Value> = log.as_array().unwrap().iter().map(|change| &change[0]).collect();
    assert_eq!(
        operations,
        ["INSERT", "INSERT", "UPDATE", "UPDATE", "DELETE"],
        "old and new rows find each other by the key's new name"
    );
    assert_eq!(log[2][1], json!({ "number": 1 }));
    let last: Value = db
        .get("select payload from rowbeat.task where cause ->> 'name' = 'all' order by id desc limit 1")
        .await;
    assert_eq!((&last["table"], &last["key"]), (&json!("public.purchases"), &json!({ "number": 1 })));
    // The retyped column no longer fits the condition: noted, and nobody else minds.
    let error: String = db.get("select last_error from rowbeat.watch where name = 'dear'").await;
    assert!(error.contains("operator does not exist: text > integer"), "{error}");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task where cause ->> 'name' = 'status'").await, 2);
    db.run("alter table public.purchases rename status to state; update public.purchases set state = 'c'")
        .await;
    route(&db).await;
    let error: String = db.get("select last_error from rowbeat.watch where name = 'status'").await;
    assert!(error.contains("column \"status\" of public.orders is gone"), "{error}");
    db.run("insert into public.purchases values (3); drop table public.purchases").await;
    let before = tasks(&db).await;
    route(&db).await;
    assert_eq!(
        tasks(&db).await,
        before + 1,
        "what was committed before the drop is told to who needs no more than the log"
    );
    let statuses: Vec<String> = db.get("select array_agg(status) from rowbeat.watches").await;
    assert!(statuses.iter().all(|status| status == "its table is gone: remove it"), "{statuses:?}");
    db.run("select rowbeat.unwatch(name) from rowbeat.watch").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture").await, 0);
}

#[tokio::test]
async fn partitions_attached_later_are_captured_and_a_watched_table_can_become_one() {
    let db = database().await;
    db.run(
        "create table public.part (id int, day int, primary key (id, day)) partition by range (day);
         create table public.late (extra text, id int not null, day int not null); alter table public.late drop column extra;
         create table public.deep (id int, day int, primary key (id, day)) partition by list (id);
         create table public.deep_1 partition of public.deep default;
         select rowbeat.watch('public.part', 'noted', p_name => 'part'), rowbeat.watch('public.late', 'noted', p_name => 'late'), rowbeat.watch('public.deep', 'noted', p_name => 'deep');
         alter table public.part attach partition public.late for values from (0) to (10);
         alter table public.part attach partition public.deep for values from (10) to (20);
         insert into public.part values (1, 1), (2, 11); insert into public.deep_1 values (3, 12); update public.part set day = 5 where id = 2;
         truncate public.part;",
    )
    .await;
    let roots: Value = db.get("select jsonb_agg(jsonb_build_array(operation, key -> 'id') order by seq) from rowbeat.change where table_name = 'public.part'::regclass and operation <> 'TRUNCATE'").await;
    let distinct: i64 = db.get("select count(distinct (operation, key)) from rowbeat.change where table_name = 'public.part'::regclass").await;
    assert!(distinct >= 5, "{roots}");
    let ill: Vec<String> = db.get("select array_agg(name order by name) from rowbeat.watches where problem and status like '%is a partition%'").await;
    assert_eq!(ill, ["deep", "late"]);
    assert!(db.get::<bool>("select not problem from rowbeat.watches where name = 'part'").await);
}

#[tokio::test]
async fn megabytes_and_what_json_cannot_hold_do_not_fail_the_write() {
    let db = database().await;
    db.run(
        r#"create table public.files (id int primary key, body text, note json);
           select rowbeat.watch('public.files', 'noted', p_name => 'files');
           select rowbeat.watch('public.files', 'noted', p_name => 'names', p_payload => 'length(new.body)');
           alter table public.files alter body set storage external;
           insert into public.files values (1, repeat(md5('x'), 100000));
           update public.files set note = '{"a": 1}';
           insert into public.files values (2, 'x', '{"a": "\u0000"}'), (3, 'y', null);"#,
    )
    .await;
    while route(&db).await > 0 {}
    let lengths: Vec<i32> = db.get("select array_agg(payload::text::int order by id) from rowbeat.task where cause ->> 'name' = 'names'").await;
    assert_eq!(lengths, [3_200_000, 3_200_000], "an untouched large value is there all the same");
    // jsonb has no \u0000: the write goes through, the log says that something is missing, each watch is told.
    assert_eq!(db.get::<i64>("select count(*) from public.files").await, 3);
    let error: String = db.get("select error from rowbeat.change where error is not null").await;
    assert!(error.contains("unsupported Unicode"), "{error}");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.watches where last_error like 'rows could not be captured:%' and failed = 1").await, 2);
}

#[tokio::test]
async fn one_trigger_an_operation_serves_all_watches_and_goes_with_the_last_of_them() {
    let db = database().await;
    let triggers = "select count(*) from rowbeat.capture_trigger";
    db.run("create table public.t (id int primary key);
            select rowbeat.watch('public.t', 'noted', '{delete}', 'one'), rowbeat.watch('public.t', 'noted', '{delete,insert}', 'two'), rowbeat.watch('public.t', 'noted', '{truncate}', 'three')")
        .await;
    assert_eq!(db.get::<i64>(triggers).await, 4, "INSERT, DELETE, UPDATE for changed keys, TRUNCATE");
    db.run("update rowbeat.watch set operations = '{delete}' where name = 'two'; delete from rowbeat.watch where name = 'three'").await;
    assert_eq!(db.get::<i64>(triggers).await, 2);
    // A rolled-back removal leaves everything as it was.
    db.run("begin; delete from rowbeat.watch; rollback; delete from public.t; insert into public.t values (1); delete from public.t").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, 1);
    db.run("delete from rowbeat.watch").await;
    assert_eq!(db.get::<i64>(triggers).await, 0);
}

#[tokio::test]
async fn who_may_not_drop_leaves_inert_triggers_for_prune() {
    let db = database().await;
    let role = format!("operator_{}", db.name);
    db.run(&format!(
        "create role {role}; grant usage, create on schema public to {role}; grant usage on schema rowbeat to {role};
         grant all on all tables in schema rowbeat to {role};
         create table public.t (id int primary key); grant trigger on public.t to {role};
         set role {role}; select rowbeat.watch('public.t', 'noted', '{{insert}}', 'mine'); insert into rowbeat.task_definition (name, executor) values ('x', 'external');
         select rowbeat.unwatch('mine'); reset role; insert into public.t values (1);"
    ))
    .await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 2);
    assert_eq!(log(&db).await, json!([]), "they are inert");
    let pruned = rowbeat(&db, &["watch", "prune"]).ok();
    assert!(pruned.contains("drop trigger rowbeat_capture_insert on public.t;"), "{pruned}");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 0);
    db.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_busy_table_is_not_waited_for_when_a_watch_goes() {
    let db = database().await;
    db.run("create table public.t (id int primary key); select rowbeat.watch('public.t', 'noted', p_name => 'mine')").await;
    let reader = db.session().await;
    reader.batch_execute("begin; select from public.t").await.unwrap();
    db.run("select rowbeat.unwatch('mine'); insert into public.t values (1)").await;
    assert_eq!(log(&db).await, json!([]));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.unneeded_trigger").await, 3);
    reader.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn a_missing_or_disabled_trigger_is_a_problem_until_the_watch_is_written_again() {
    let db = database().await;
    db.run("create table public.t (id int primary key); select rowbeat.watch('public.t', 'noted', p_name => 'mine');
            alter table public.t disable trigger rowbeat_capture_insert; drop trigger rowbeat_capture_delete on public.t")
        .await;
    assert!(
        db.get::<bool>("select problem and status like 'a trigger is missing%' from rowbeat.watches").await
    );
    db.run("update rowbeat.watch set enabled = true; insert into public.t values (1); delete from public.t")
        .await;
    assert!(db.get::<bool>("select not problem from rowbeat.watches").await);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, 2);
}

#[tokio::test]
async fn the_plan_shows_statements_and_locks_and_does_nothing() {
    let db = database().await;
    db.run("create table public.t (id int primary key)").await;
    let plan = rowbeat(
        &db,
        &["watch", "add", "public.t", "--definition", "noted", "--operations", "insert", "--plan"],
    )
    .ok();
    assert!(
        plan.contains(
            "create or replace trigger rowbeat_capture_insert after INSERT on public.t referencing new table"
        ),
        "{plan}"
    );
    assert!(plan.contains("rowbeat_capture_update") && plan.contains("ShareRowExclusive"), "{plan}");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 0);
    let added = rowbeat(
        &db,
        &[
            "watch",
            "add",
            "public.t",
            "--definition",
            "noted",
            "--operations",
            "insert",
            "--condition",
            "new.id > 1",
            "--debounce",
            "5s",
            "--exclude",
            "",
            "--from",
            "2026-01-01 00:00",
            "--zone",
            "Europe/Paris",
            "--name",
            "n",
        ],
    );
    assert_eq!(added.code, Some(1), "there is no column of an empty name: {added:?}");
    rowbeat(
        &db,
        &[
            "watch",
            "add",
            "public.t",
            "--definition",
            "noted",
            "--condition",
            "new.id > 1",
            "--debounce",
            "5s",
            "--from",
            "2026-01-01 00:00",
            "--zone",
            "Europe/Paris",
            "--name",
            "n",
        ],
    )
    .ok();
    let row: Value = db.get("select to_jsonb(w) from rowbeat.watch w").await;
    assert_eq!(
        (&row["debounce"], &row["effective_from"], &row["time_zone"]),
        (&json!("00:00:05"), &json!("2026-01-01T00:00:00"), &json!("Europe/Paris"))
    );
    assert!(rowbeat(&db, &["watch", "list"]).ok().contains("watching"));
}

#[tokio::test]
async fn upserts_merges_and_copies_are_captured_row_by_row() {
    let db = database().await;
    db.run("create table public.t (id int primary key, n int default 0); select rowbeat.watch('public.t', 'noted', p_name => 'mine');
            insert into public.t values (1) on conflict do nothing;
            insert into public.t values (1), (2) on conflict (id) do update set n = t.n + 1;
            merge into public.t using (values (2), (3)) v (id) on v.id = t.id when matched then delete when not matched then insert values (v.id);
            insert into public.t values (3) on conflict do nothing;
            update public.t set n = 1 where false;")
        .await;
    let copied =
        server().psql(&db.name).args(["-c", "\\copy public.t (id) from program 'seq 4 5'"]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let seen: Vec<String> =
        db.get("select array_agg(operation || ' ' || (key ->> 'id') order by seq) from rowbeat.change").await;
    assert_eq!(seen.len(), 7, "{seen:?}");
    for expected in ["INSERT 1", "UPDATE 1", "INSERT 2", "DELETE 2", "INSERT 3", "INSERT 4", "INSERT 5"] {
        assert!(seen.iter().any(|change| change == expected), "{expected} is missing in {seen:?}");
    }
}
