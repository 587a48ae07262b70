//! Changes: watched tables, the log, and the router.

use rowbeat::change::router::Router;
use rowbeat::db::doorbell::Bell;
use rowbeat::db::sqlstate;
use rowbeat::service::{Loop, Pass};
use serde_json::{Value, json};

use crate::harness::TestDb;

fn router(db: &TestDb) -> Router {
    Router::new(db.db(), Bell::default(), std::time::Duration::from_secs(1))
}

async fn route_all(router: &mut Router) {
    while let Pass::Worked(_) = router.run_once().await.unwrap() {}
}

async fn watched() -> TestDb {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.orders (id bigint primary key, status text, price numeric);
         insert into rowbeat.watch (table_name, definition) values ('public.orders', 'add_effect');",
    )
    .await;
    db
}

#[tokio::test]
async fn an_update_of_a_watched_table_becomes_a_completed_task() {
    let db = TestDb::new().await;
    db.run(
        "create table public.orders (id bigint primary key, status text);
         insert into public.orders values (1, 'new');
         create table public.seen (change jsonb);
         create function public.see(payload jsonb) returns jsonb language sql as $$ insert into public.seen values (payload) returning '\"seen\"'::jsonb $$;
         insert into rowbeat.task_definition (name, executor, function) values ('see', 'sql', 'public.see');
         select rowbeat.watch('public.orders', 'see', '{update}');",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.run("set rowbeat.actor = 'ann'; update public.orders set status = 'paid' where id = 1; delete from public.orders").await;
    db.until("select count(*) = 1 from rowbeat.tasks where state = 'completed'").await;
    let seen: Value = db.get("select change from public.seen").await;
    assert_eq!(seen["operation"], "UPDATE");
    assert_eq!((&seen["table"], &seen["key"]), (&json!("public.orders"), &json!({ "id": 1 })));
    assert_eq!((&seen["old"]["status"], &seen["new"]["status"]), (&json!("new"), &json!("paid")));
    assert_eq!((&seen["actor"], &seen["session_user"]), (&json!("ann"), &json!("postgres")));
    let cause: Value = db.get("select cause from rowbeat.tasks").await;
    assert_eq!((&cause["kind"], &cause["name"]), (&json!("watch"), &json!("see_on_public.orders")));
}

#[tokio::test]
async fn every_committed_change_is_routed_once_and_none_of_a_rolled_back_one() {
    let db = watched().await;
    let mut router = router(&db);
    let open = db.session().await;
    open.batch_execute("begin; insert into public.orders values (1000)").await.unwrap();
    for id in 0..20 {
        db.run(&format!("insert into public.orders values ({id})")).await;
        db.run(&format!("begin; savepoint s; insert into public.orders values ({id} + 100); rollback to s; insert into public.orders values ({id} + 200); commit")).await;
        db.run(&format!("begin; insert into public.orders values ({id} + 300); rollback")).await;
        route_all(&mut router).await;
    }
    // The long writer stalls nobody, and its change comes when it commits.
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 40);
    open.batch_execute("commit").await.unwrap();
    route_all(&mut router).await;
    let keys: Vec<i64> =
        db.get("select array_agg((payload -> 'key' ->> 'id')::bigint order by (payload -> 'key' ->> 'id')::bigint) from rowbeat.task").await;
    let mut expected: Vec<i64> = (0..20).chain(200..220).chain([1000]).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_large_difference_is_read_in_pieces_without_loss() {
    let db = watched().await;
    let mut router = router(&db);
    db.run("insert into public.orders select g from generate_series(1, 2500) g").await;
    assert!(matches!(router.run_once().await.unwrap(), Pass::Worked(_)));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 1000);
    db.run("update public.orders set status = 'x' where id <= 10").await;
    route_all(&mut router).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2510);
    assert_eq!(db.get::<i64>("select count(distinct payload ->> 'change') from rowbeat.task").await, 2510);
}

#[tokio::test]
async fn two_routers_take_turns() {
    let db = watched().await;
    let session = db.session().await;
    db.run("insert into public.orders values (1)").await;
    session.batch_execute("begin; select rowbeat.route_changes()").await.unwrap();
    assert_eq!(
        db.get::<i32>("select rowbeat.route_changes()").await,
        0,
        "the other one has the reader's row"
    );
    session.batch_execute("commit").await.unwrap();
    assert_eq!(db.get::<i32>("select rowbeat.route_changes()").await, 0);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 1);
}

#[tokio::test]
async fn the_writer_needs_no_rights_and_cannot_be_failed() {
    let db = watched().await;
    let role = format!("writer_{}", db.name);
    db.run(&format!(
        "create role {role}; grant usage on schema public to {role}; grant all on public.orders to {role}; grant {role} to postgres"
    ))
    .await;
    db.run(&format!("set role {role}; insert into public.orders values (1); reset role")).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, 1);
    // Even with the log broken the write goes through.
    db.run("alter table rowbeat.change add constraint broken check (seq < 0) not valid").await;
    db.run(&format!("set role {role}; insert into public.orders values (2); reset role")).await;
    assert_eq!(db.get::<i64>("select count(*) from public.orders").await, 2);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, 1);
    db.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn partitioned_and_keyless_tables_and_truncate_are_captured() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.part (id int, day date) partition by range (day);
         create table public.part_a partition of public.part for values from ('2026-01-01') to ('2027-01-01');
         create table public.\"Odd Name\" (\"A b\" int);
         insert into rowbeat.watch (table_name, definition, operations) values
             ('public.part', 'add_effect', '{insert,update,delete}'), ('public.\"Odd Name\"', 'add_effect', '{insert,truncate}');
         insert into public.part values (1, '2026-05-05'); insert into public.part_a values (2, '2026-05-06');
         create table public.part_b partition of public.part for values from ('2027-01-01') to ('2028-01-01');
         insert into public.part values (3, '2027-05-05');
         insert into public.\"Odd Name\" values (1); update public.\"Odd Name\" set \"A b\" = 2; truncate public.\"Odd Name\";",
    )
    .await;
    let seen: Vec<String> = db
        .get("select array_agg(table_name::text || ' ' || operation order by seq) from rowbeat.change")
        .await;
    let odd = "\"Odd Name\"";
    assert_eq!(
        seen,
        ["part INSERT", "part INSERT", "part INSERT", &format!("{odd} INSERT"), &format!("{odd} TRUNCATE")]
    );
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    let db = watched().await;
    db.run("insert into public.orders values (1); update public.orders set id = 2").await;
    let seen: Vec<String> = db.get("select array_agg(operation || ' ' || (key ->> 'id') order by operation, seq) from rowbeat.change where seq > 1").await;
    assert_eq!(seen, ["DELETE 1", "INSERT 2"]);
}

#[tokio::test]
async fn only_tables_can_be_watched() {
    let db = TestDb::new().await.with_effects().await;
    db.run("create view public.v as select 1 as x").await;
    for table in ["public.v", "rowbeat.task"] {
        let (code, message) = db.refusal(&format!("select rowbeat.watch('{table}', 'add_effect')")).await;
        assert_eq!(code, sqlstate::NOT_WATCHABLE.code);
        assert!(message.contains("cannot be watched"), "{message}");
    }
    assert_eq!(db.refusal("select rowbeat.watch('public.nowhere', 'add_effect')").await.0, "42P01");
}

#[tokio::test]
async fn a_disabled_watch_leaves_inert_triggers() {
    let db = watched().await;
    db.run("update rowbeat.watch set enabled = false; insert into public.orders values (1)").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, 0);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 3);
    assert!(db.get::<bool>("select rowbeat.unwatch('add_effect_on_public.orders')").await);
    assert!(!db.get::<bool>("select rowbeat.unwatch('add_effect_on_public.orders')").await);
}

#[tokio::test]
async fn a_consumer_reads_its_tables_once_with_the_callers_transaction() {
    let db = watched().await;
    let role = format!("reader_{}", db.name);
    db.run(&format!(
        "create role {role} login; grant usage on schema rowbeat to {role};
         create table public.other (id int primary key); select rowbeat.watch('public.other', 'add_effect');
         select rowbeat.create_consumer('mirror', '{{public.orders}}', '{role}');"
    ))
    .await;
    db.run("insert into public.orders select g from generate_series(1, 5) g; insert into public.other values (1)").await;
    let consume = "select coalesce(array_agg((key ->> 'id')::bigint order by change), '{}') from rowbeat.consume('mirror', 2)";
    db.run(&format!("set session authorization {role}")).await;
    assert_eq!(db.refusal("select * from rowbeat.change").await.0, "42501");
    assert_eq!(db.refusal("select * from rowbeat.consume('router')").await.0, "42501");
    db.run("begin").await;
    assert_eq!(db.get::<Vec<i64>>(consume).await, [1, 2]);
    db.run("rollback").await;
    assert_eq!(db.get::<Vec<i64>>(consume).await, [1, 2], "what is rolled back comes again");
    assert_eq!(db.get::<Vec<i64>>(consume).await, [3, 4]);
    assert_eq!(db.get::<Vec<i64>>(consume).await, [5]);
    assert_eq!(db.get::<Vec<i64>>(consume).await, Vec::<i64>::new());
    db.run("reset session authorization").await;
    db.run("insert into public.orders values (6)").await;
    db.run(&format!("set session authorization {role}; select rowbeat.rebase_consumer('mirror')")).await;
    assert_eq!(db.get::<Vec<i64>>(consume).await, Vec::<i64>::new());
    db.run(&format!("reset session authorization; select rowbeat.drop_consumer('mirror'); drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_consumer_that_is_too_slow_loses_its_place_and_is_told_so() {
    let db = watched().await;
    let mut router = router(&db);
    db.run("select rowbeat.create_consumer('slow', '{public.orders}')").await;
    db.run("insert into public.orders values (1)").await;
    route_all(&mut router).await;
    let prune = async |after: &str| {
        db.run(&format!("set rowbeat.clock_offset = '{after}'")).await;
        db.run("select rowbeat.prune()").await;
        db.run("reset rowbeat.clock_offset").await;
        db.get::<i64>("select count(*) from rowbeat.change").await
    };
    assert_eq!(prune("13 days").await, 1, "a slow consumer holds the log back");
    assert!(!db.get::<bool>("select lost_at is not null from rowbeat.consumers where name = 'slow'").await);
    db.run("set rowbeat.clock_offset = '13 days'").await;
    let behind = "select (rowbeat.status() #>> '{consumers,1,behind_seconds}')::float8 / 86400";
    assert!((13.0..13.1).contains(&db.get::<f64>(behind).await), "the metrics tell by how much it is late");
    db.run("reset rowbeat.clock_offset").await;
    db.run("insert into rowbeat.setting (name, value) values ('change_hold_days', '10')").await;
    assert_eq!(prune("13 days").await, 0, "but not for ever");
    let (code, message) = db.refusal("select * from rowbeat.consume('slow')").await;
    assert_eq!(code, sqlstate::LOST_PLACE.code);
    assert!(message.contains("consumer \"slow\" lost its place"), "{message}");
    let health: String =
        db.get("select detail from rowbeat.health where \"check\" = 'change log' and not ok").await;
    assert!(health.contains("consumer slow lost its place"), "{health}");
    db.run("select rowbeat.rebase_consumer('slow')").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.consume('slow')").await, 0);
    // Two megabytes in one change, which do not compress; the newest two days are never too large.
    db.run(
        "insert into public.orders select 2, string_agg(md5(g::text), '') from generate_series(1, 65536) g;
         insert into rowbeat.setting (name, value) values ('change_hold_mib', '5')",
    )
    .await;
    route_all(&mut router).await;
    assert_eq!(prune("2 days").await, 1);
    db.run("update rowbeat.setting set value = '1' where name = 'change_hold_mib'").await;
    assert_eq!(prune("1 day").await, 1);
    assert_eq!(prune("2 days").await, 0, "nor may it take more room than that");
    assert_eq!(db.refusal("select * from rowbeat.consume('slow')").await.0, sqlstate::LOST_PLACE.code);
    db.run("select rowbeat.rebase_consumer('slow')").await;
    assert!(db.get::<bool>("select ok from rowbeat.health where \"check\" = 'change log'").await);
}

#[tokio::test]
async fn what_every_consumer_has_read_is_kept_for_replays_and_then_forgotten() {
    let db = watched().await;
    db.run("insert into public.orders values (1)").await;
    route_all(&mut router(&db)).await;
    for (after, left) in [("2 days", 1_i64), ("4 days", 0)] {
        db.run(&format!("set rowbeat.clock_offset = '{after}'; select rowbeat.prune()")).await;
        assert_eq!(db.get::<i64>("select count(*) from rowbeat.change").await, left, "{after}");
    }
}

#[tokio::test]
async fn the_cost_of_a_look_does_not_grow_with_the_log_while_a_writer_is_open() {
    let db = watched().await;
    let open = db.session().await;
    open.batch_execute("begin; insert into public.orders values (-1)").await.unwrap();
    db.run("insert into public.orders select g from generate_series(1, 50000) g").await;
    let mut router = router(&db);
    route_all(&mut router).await;
    db.run("analyze rowbeat.change").await;
    let mut buffers = Vec::new();
    for id in 100_000..100_012 {
        db.run(&format!("insert into public.orders values ({id})")).await;
        let before = touched(&db).await;
        db.run("select rowbeat.route_changes()").await;
        buffers.push(touched(&db).await - before);
    }
    buffers.sort_unstable();
    assert!(buffers[6] < 1000, "blocks of the log that a look touches: {buffers:?}");
    open.batch_execute("commit").await.unwrap();
    route_all(&mut router).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 50_013);
}

/// How many blocks of the log were looked at so far.
async fn touched(db: &TestDb) -> i64 {
    db.run("select pg_stat_force_next_flush()").await;
    db.get("select sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint from pg_statio_user_tables where relname like 'change\\___'").await
}

/// What a look skips as too old must not be what a long transaction wrote before others' changes moved the position on.
#[tokio::test]
async fn what_was_written_days_ago_in_a_transaction_that_ends_now_is_routed() {
    let db = watched().await;
    let (writer, clock) = (db.session().await, db.session().await);
    let days_ago = "set rowbeat.clock_offset = '-5 days'";
    db.run(
        "update rowbeat.watch set created_at = now() - interval '7 days';
         update rowbeat.change_consumer set since = now() - interval '6 days', read_at = now() - interval '6 days'",
    )
    .await;
    writer.batch_execute(&format!("{days_ago}; begin; insert into public.orders values (1)")).await.unwrap();
    for (number, offset) in [(2, "-5 days"), (3, "-5 days"), (4, "0"), (5, "0")] {
        let steps = [
            format!("set rowbeat.clock_offset = '{offset}'"),
            format!("insert into public.orders values ({number})"),
            "select rowbeat.route_changes()".to_owned(),
        ];
        for step in steps {
            clock.batch_execute(&step).await.unwrap();
        }
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 4);
    writer.batch_execute("commit").await.unwrap();
    clock.batch_execute("select rowbeat.route_changes()").await.unwrap();
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where payload #>> '{key,id}' = '1'").await,
        1
    );
}
