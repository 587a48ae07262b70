//! Watches: what concerns them, how it becomes tasks, what happens when they cannot, and tables that change under them.

use rowbeat::change::router::Router;
use rowbeat::db::doorbell::Bell;
use rowbeat::service::{Loop, Pass};
use serde_json::{Value, json};

use crate::harness::TestDb;

pub(crate) async fn route_all(db: &TestDb) {
    let poll = std::time::Duration::from_secs(1);
    let mut router = Router::new(db.db(), Bell::default(), poll);
    while let Pass::Worked(_) = router.run_once().await.unwrap() {}
}

/// A table and a definition `noted` whose tasks nobody performs.
pub(crate) async fn shop() -> TestDb {
    let db = TestDb::new().await;
    db.run(
        "create table public.orders (id bigint primary key, status text, price numeric, secret text, extra json);
         insert into rowbeat.task_definition (name, executor) values ('noted', 'external');",
    )
    .await;
    db
}

/// The ids in the keys of a watch's tasks, in order of the tasks.
pub(crate) async fn ids(db: &TestDb, watch: &str) -> Vec<i64> {
    let ids = "select coalesce(array_agg((payload -> 'key' ->> 'id')::bigint order by id), '{}') from rowbeat.task where cause ->> 'name' = $1";
    db.get_with(ids, &[&watch]).await
}

pub(crate) async fn payload(db: &TestDb, watch: &str) -> Value {
    db.get_with(
        "select payload from rowbeat.task where cause ->> 'name' = $1 order by id desc limit 1",
        &[&watch],
    )
    .await
}

#[tokio::test]
async fn columns_conditions_and_payloads_decide_what_becomes_a_task() {
    let db = shop().await;
    db.run(
        "select rowbeat.watch('public.orders', 'noted', '{update}', 'dear', p_columns => '{price,extra}');
         select rowbeat.watch('public.orders', 'noted', p_name => 'paid', p_condition => $$new.status = 'paid' and old.status is distinct from new.status -- by anybody$$,
             p_payload => $$jsonb_build_object('id', new.id, 'was', old.status, 'op', change.operation)$$, p_serial_key => $$'order ' || new.id$$);
         insert into public.orders values (1, 'new', 1, 's', '{\"a\": 1}'), (2, 'paid', 1, 's', null);
         update public.orders set status = 'paid', secret = 't';
         update public.orders set price = price + id - 1;
         update public.orders set extra = '{ \"a\" : 1 }' where id = 1;
         update public.orders set extra = '{\"a\": 2}' where id = 1;",
    )
    .await;
    route_all(&db).await;
    assert_eq!(ids(&db, "dear").await, [2, 1]);
    let made: Value = db.get("select jsonb_agg(jsonb_build_array(payload, serial_key) order by id) from rowbeat.task where cause ->> 'name' = 'paid'").await;
    assert_eq!(
        made,
        json!([
            [{ "id": 2, "was": null, "op": "INSERT" }, "order 2"],
            [{ "id": 1, "was": "new", "op": "UPDATE" }, "order 1"]
        ])
    );
}

#[tokio::test]
async fn what_can_be_known_to_be_wrong_is_refused_at_once() {
    let db = shop().await;
    db.run(
        "create table public.part (id int primary key) partition by range (id); create table public.part_1 partition of public.part default;
         create table public.bare (x int);
         create temporary table tempo (id int primary key);
         insert into rowbeat.task_definition (name, executor, unique_until) values ('to_the_end', 'external', 'finish');",
    )
    .await;
    for (arguments, code, says) in [
        (
            "'public.orders', 'noted', p_condition => 'new.nothing = 1'",
            "42703",
            "watch \"noted_on_public.orders\" cannot be used: column new.nothing does not exist",
        ),
        ("'public.orders', 'noted', p_condition => 'new.id +'", "42601", "syntax error"),
        ("'public.orders', 'noted', p_condition => 'new.id'", "42804", "must be type boolean"),
        ("'public.orders', 'noted', p_payload => 'old.no'", "42703", "old.no does not exist"),
        ("'public.orders', 'noted', p_unique_key => 'now(1)'", "42883", "now(integer) does not exist"),
        ("'public.orders', 'noted', p_columns => '{prise}'", "42703", "has no column \"prise\""),
        (
            "'public.orders', 'noted', p_exclude => '{id}'",
            "22023",
            "the key of public.orders cannot be left out",
        ),
        ("'public.orders', 'noted', p_grain => 'day'", "23514", "watch_grain_known"),
        (
            "'public.orders', 'noted', p_grain => 'transaction', p_debounce => '1 s'",
            "23514",
            "watch_unique_for_rows",
        ),
        ("'public.orders', 'noted', p_time_zone => 'Mars/Base'", "22023", "Mars/Base"),
        ("'public.orders', 'to_the_end', p_debounce => '1 s'", "22023", "would be lost"),
        ("'public.part', 'noted', p_grain => 'statement'", "22023", "cannot be told apart"),
        ("'public.bare', 'noted', p_grain => 'statement'", "22023", "cannot be told apart"),
        ("'public.part_1', 'noted'", "RB006", "it is a partition"),
        ("'tempo', 'noted'", "RB006", "cannot be watched"),
    ] {
        let (state, message) = db.refusal(&format!("select rowbeat.watch({arguments})")).await;
        assert_eq!(state, code, "{arguments}: {message}");
        assert!(message.contains(says), "{arguments}: {message}");
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 0);
}

#[tokio::test]
async fn an_expression_that_takes_too_long_suspends_its_watch_alone() {
    let db = shop().await;
    db.run(
        "select rowbeat.watch('public.orders', 'noted', '{insert}', 'a_slow', p_condition => 'pg_catalog.pg_sleep(60) is not null');
         select rowbeat.watch('public.orders', 'noted', '{insert}', 'quick');
         insert into public.orders values (1), (2);",
    )
    .await;
    db.run("set statement_timeout = '4s'").await;
    db.run("select rowbeat.route_changes()").await;
    db.run("reset statement_timeout").await;
    assert_eq!(ids(&db, "quick").await, [1, 2]);
    assert!(db.get::<bool>("select suspended_at is not null from rowbeat.watch where name = 'a_slow'").await);
    // From now on it costs nothing, and nothing is forgotten.
    db.run("insert into public.orders values (3)").await;
    route_all(&db).await;
    assert_eq!(ids(&db, "quick").await, [1, 2, 3]);
    assert_eq!(db.get::<i64>("select failed from rowbeat.watches where name = 'a_slow'").await, 3);
    db.run("update rowbeat.watch set condition = 'new.id > 1' where name = 'a_slow'; select rowbeat.retry_failures('a_slow', 100, false)").await;
    assert_eq!(ids(&db, "a_slow").await, [2, 3]);
    assert!(
        db.get::<bool>(
            "select suspended_at is null and last_error is null from rowbeat.watch where name = 'a_slow'"
        )
        .await
    );
}

#[tokio::test]
async fn changes_of_a_key_within_the_window_become_one_task_with_the_last_image() {
    let db = shop().await;
    db.run("select rowbeat.watch('public.orders', 'noted', p_name => 'calm', p_debounce => '1 hour');
            insert into public.orders values (1, 'a'), (2, 'a'); update public.orders set status = 'b' where id = 1;")
        .await;
    route_all(&db).await;
    let first: chrono::DateTime<chrono::Utc> =
        db.get("select run_at from rowbeat.task where payload -> 'key' ->> 'id' = '1'").await;
    db.run("update public.orders set status = 'c' where id = 1").await;
    route_all(&db).await;
    let seen = "select jsonb_agg(jsonb_build_array(payload -> 'key' -> 'id', payload -> 'new' -> 'status') order by payload -> 'key') from rowbeat.task";
    assert_eq!(db.get::<Value>(seen).await, json!([[1, "c"], [2, "a"]]));
    let still: chrono::DateTime<chrono::Utc> =
        db.get("select run_at from rowbeat.task where payload -> 'key' ->> 'id' = '1'").await;
    assert_eq!(first, still, "the window begins with the first change, so that a busy row has its turn, too");
    // What comes after the claim is a new task.
    db.run(
        "select rowbeat.run_now(id) from rowbeat.task; select rowbeat.claim('test', 10);
            update public.orders set status = 'd' where id = 1;",
    )
    .await;
    route_all(&db).await;
    let seen = "select jsonb_agg(jsonb_build_array(state, payload -> 'new' -> 'status') order by id) from rowbeat.task where payload -> 'key' ->> 'id' = '1'";
    assert_eq!(db.get::<Value>(seen).await, json!([["running", "c"], ["waiting", "d"]]));
}

#[tokio::test]
async fn a_unique_key_that_somebody_is_enqueuing_stalls_nobody_and_is_tried_again() {
    let db = shop().await;
    db.run("select rowbeat.watch('public.orders', 'noted', '{insert}', 'keyed', p_unique_key => $$'k' || new.id$$);
            select rowbeat.watch('public.orders', 'noted', '{insert}', 'other');")
        .await;
    let open = db.session().await;
    open.batch_execute("begin; select rowbeat.enqueue('noted', '{}', p_unique_key => 'k1')").await.unwrap();
    db.run("insert into public.orders values (1), (2)").await;
    db.run("select rowbeat.route_changes()").await;
    assert_eq!(ids(&db, "other").await, [1, 2]);
    assert_eq!(ids(&db, "keyed").await, [2]);
    open.batch_execute("rollback").await.unwrap();
    route_all(&db).await;
    assert_eq!(ids(&db, "keyed").await, [2, 1]);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.watch_failure").await, 0);
}

#[tokio::test]
async fn groups_with_a_unique_key_are_one_task_until_it_is_claimed() {
    let db = shop().await;
    for bad in ["p_unique_key => 'new.id'", "p_debounce => '1 second'", "p_unique_key => '''a'' || ''b'''"] {
        let watch = format!("select rowbeat.watch('public.orders', 'noted', p_grain => 'statement', {bad})");
        assert_eq!(db.refusal(&watch).await.0, "23514", "{bad}");
    }
    db.run("select rowbeat.watch('public.orders', 'noted', p_name => 'burst', p_grain => 'statement', p_unique_key => '''one''', p_debounce => '1 hour')").await;
    let insert = |id: i64| format!("insert into public.orders values ({id});");
    for id in 1..=5 {
        db.run(&insert(id)).await;
    }
    route_all(&db).await;
    db.run(&(insert(6) + &insert(7))).await;
    route_all(&db).await;
    let burst = payload(&db, "burst").await;
    assert_eq!(
        (&burst["count"], &burst["changes"][0]["key"]),
        (&json!(1), &json!({ "id": 7 })),
        "the last statement counts"
    );
    assert!(
        db.get::<bool>(
            "select unique_key = 'one' and run_at > now() + interval '59 minutes' from rowbeat.task"
        )
        .await
    );
    // Somebody who enqueues with that key, and does not commit, holds up this task and no other.
    db.run("delete from rowbeat.task; select rowbeat.watch('public.orders', 'noted', p_name => 'each')")
        .await;
    let other = db.session().await;
    other.batch_execute("begin; select rowbeat.enqueue('noted', p_unique_key => 'one')").await.unwrap();
    db.run(&insert(8)).await;
    route_all(&db).await;
    assert_eq!(payload(&db, "each").await["key"], json!({ "id": 8 }));
    other.batch_execute("rollback").await.unwrap();
    route_all(&db).await;
    assert_eq!(payload(&db, "burst").await["changes"][0]["key"], json!({ "id": 8 }));
    // A definition that holds its keys until the end would swallow what changes while a task runs.
    db.run("delete from rowbeat.task; update rowbeat.task_definition set unique_until = 'finish' where name = 'noted'").await;
    db.run(&(insert(9) + &insert(10))).await;
    route_all(&db).await;
    assert_eq!(
        db.get::<i64>(
            "select count(*) from rowbeat.task where cause ->> 'name' = 'burst' and unique_key is null"
        )
        .await,
        2
    );
}

#[tokio::test]
async fn statements_and_transactions_are_one_task_each_whatever_their_size() {
    let db = shop().await;
    db.run(
        "select rowbeat.watch('public.orders', 'noted', p_name => 'by_statement', p_grain => 'statement');
         select rowbeat.watch('public.orders', 'noted', p_name => 'by_transaction', p_grain => 'transaction', p_condition => 'coalesce(new.id, old.id) <> 7', p_payload => 'new.id');
         begin;
         insert into public.orders select g, 'new' from generate_series(1, 5) g;
         savepoint s; insert into public.orders values (100); rollback to s;
         insert into public.orders values (6), (7);
         delete from public.orders where id = 5;
         commit;",
    )
    .await;
    route_all(&db).await;
    let statements: Value = db.get("select jsonb_agg(jsonb_build_array(payload -> 'count', payload -> 'operations') order by id) from rowbeat.task where cause ->> 'name' = 'by_statement'").await;
    assert_eq!(statements, json!([[5, { "INSERT": 5 }], [2, { "INSERT": 2 }], [1, { "DELETE": 1 }]]));
    let whole = payload(&db, "by_transaction").await;
    assert_eq!((&whole["count"], &whole["truncated"]), (&json!(7), &json!(false)));
    assert_eq!(whole["changes"], json!([1, 2, 3, 4, 5, 6, null]));
    db.run("delete from rowbeat.task; insert into public.orders select g, repeat('x', 50) from generate_series(1001, 101000) g").await;
    route_all(&db).await;
    for (watch, count) in [("by_statement", 100_000), ("by_transaction", 100_000)] {
        let large = payload(&db, watch).await;
        assert_eq!((&large["count"], &large["truncated"]), (&json!(count), &json!(true)), "{watch}");
        assert_eq!(large["changes"].as_array().unwrap().len(), 100);
        assert!(large["last_change"].as_i64().unwrap() - large["first_change"].as_i64().unwrap() == 99_999);
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2);
}

#[tokio::test]
async fn what_is_left_out_is_not_in_the_tasks_and_not_in_the_log_when_nobody_wants_it() {
    let db = shop().await;
    db.run("select rowbeat.watch('public.orders', 'noted', p_name => 'discreet', p_exclude => '{secret}', p_condition => 'new.secret is null');
            insert into public.orders (id, secret) values (1, 'hidden');")
        .await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change where new ? 'secret'").await, 0);
    db.run("select rowbeat.watch('public.orders', 'noted', p_name => 'nosy'); insert into public.orders (id, secret) values (2, 'shown')").await;
    route_all(&db).await;
    assert_eq!(
        ids(&db, "discreet").await,
        [1, 2],
        "its condition does not see the column, whoever else does"
    );
    assert!(!payload(&db, "discreet").await.to_string().contains("shown"));
    assert_eq!(payload(&db, "nosy").await["new"]["secret"], "shown");
    db.run("update rowbeat.watch set enabled = false where name = 'nosy'; insert into public.orders (id, secret) values (3, 'x')").await;
    route_all(&db).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change where new ? 'secret'").await, 1);
    // A renamed column is not let out under its new name: the change is kept without images, and said to be.
    db.run("alter table public.orders rename secret to password; insert into public.orders (id, password) values (4, 'leak')").await;
    route_all(&db).await;
    assert!(
        !db.get::<String>("select coalesce(string_agg(c::text, ''), '') from rowbeat.change c where seq > 3")
            .await
            .contains("leak")
    );
    assert_eq!(db.get::<i64>("select failed from rowbeat.watches where name = 'discreet'").await, 1);
    db.run("update rowbeat.watch set exclude = '{password}', condition = null where name = 'discreet'; insert into public.orders (id, password) values (5, 'leak')").await;
    route_all(&db).await;
    assert_eq!(ids(&db, "discreet").await, [1, 2, 3, 5]);
}

#[tokio::test]
async fn a_watch_is_effective_within_its_local_times() {
    let db = shop().await;
    db.run("set rowbeat.clock_offset = '0';
            select rowbeat.watch('public.orders', 'noted', '{insert}', 'later', p_time_zone => 'Pacific/Kiritimati',
                p_effective_from => (now() at time zone 'Pacific/Kiritimati')::timestamp + interval '1 hour',
                p_effective_until => (now() at time zone 'Pacific/Kiritimati')::timestamp + interval '3 hours');
            insert into public.orders values (1); set rowbeat.clock_offset = '2 hours'; insert into public.orders values (2);
            set rowbeat.clock_offset = '4 hours'; insert into public.orders values (3); reset rowbeat.clock_offset;")
        .await;
    assert!(db.get::<bool>("select status like 'from %' and not problem from rowbeat.watches").await);
    route_all(&db).await;
    assert_eq!(ids(&db, "later").await, [2]);
}

#[tokio::test]
async fn an_update_that_changes_a_key_reaches_watches_of_insert_or_delete_alone() {
    let db = shop().await;
    db.run(
        "create table public.loose (id int); create table public.part (id int primary key) partition by range (id);
         create table public.part_a partition of public.part for values from (0) to (10); create table public.part_b partition of public.part default;
         select rowbeat.watch(t::regclass, 'noted', array[o], o || ' ' || t) from unnest('{public.orders,public.part,public.loose}'::text[]) t, unnest('{insert,update,delete}'::text[]) o;
         insert into public.orders values (1), (2); insert into public.part values (1), (2); insert into public.loose values (1);",
    )
    .await;
    route_all(&db).await;
    db.run(
        "delete from rowbeat.task;
         update public.orders set id = 3 where id = 1; update public.orders set status = 'x' where id = 2;
         update public.part set id = 3 where id = 1; update public.part set id = 20 where id = 2; update public.part set id = 3 where id = 3;
         update public.loose set id = 9;",
    )
    .await;
    route_all(&db).await;
    for (watch, expected) in [
        ("insert public.orders", vec![3]),
        ("delete public.orders", vec![1]),
        ("update public.orders", vec![2]),
        ("insert public.part", vec![3, 20]),
        ("delete public.part", vec![1, 2]),
        ("update public.part", vec![3]),
        ("insert public.loose", vec![]),
    ] {
        assert_eq!(ids(&db, watch).await, expected, "{watch}");
    }
    assert_eq!(
        payload(&db, "update public.loose").await["new"],
        json!({ "id": 9 }),
        "without a key there is none to change"
    );
    // A watch of INSERT alone pays for this with a trigger that logs nothing else.
    db.run("delete from rowbeat.watch where name not like 'insert %'; update public.orders set status = 'y'")
        .await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change where new ->> 'status' = 'y'").await, 0);
}

#[tokio::test]
async fn changes_with_an_origin_are_skipped_unless_the_watch_asks_for_them() {
    let db = shop().await;
    let role = format!("stranger_{}", db.name);
    db.run(&format!(
        "select rowbeat.watch('public.orders', 'noted', p_name => 'usual');
         select rowbeat.watch('public.orders', 'noted', p_name => 'asking', p_origins => '{{restore}}');
         set rowbeat.origin = 'restore'; insert into public.orders values (1); set rowbeat.origin = 'import'; insert into public.orders values (2);
         create role {role} login; grant insert on public.orders to {role};
         set session authorization {role}; set rowbeat.origin = 'restore'; insert into public.orders values (3); reset session authorization; reset rowbeat.origin;"
    ))
    .await;
    route_all(&db).await;
    assert_eq!(ids(&db, "usual").await, [3], "a stranger's setting means nothing");
    assert_eq!(ids(&db, "asking").await, [1, 3]);
    db.run(&format!("drop owned by {role}; drop role {role}")).await;
}
