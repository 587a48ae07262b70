//! Consumers that plugins declare: they come and go with the plugin, and read for nobody else.

use serde_json::json;

use crate::cli::rowbeat;
use crate::harness::TestDb;
use crate::plugin::{Folder, everything, unchanged};

/// A plugin that follows its own table `entry` and one of the application's.
fn ledger(name: &str) -> Folder {
    Folder::bare(
        &"format = 1\nname = \"NAME\"\nversion = \"1.0.0\"\n[requires]\nread = [\"public.orders\"]\n
          [[consumer]]\nname = \"NAME.changes\"\ntables = [\"NAME.entry\", \"public.orders\"]\n
          [[task]]\nname = \"NAME.read\"\nexecutor = \"sql\"\nfunction = \"NAME.read\"\n
          [[watch]]\nname = \"NAME.entries\"\ntable_name = \"NAME.entry\"\ndefinition = \"NAME.read\"\ngrain = \"statement\"\nunique_key = \"'NAME'\"\n"
            .replace("NAME", name),
    )
    .put("migrations/V1__entry.sql", &"create table NAME.entry (id bigint primary key); create table NAME.seen (operation text, consumer text)".replace("NAME", name))
    .put(
        "functions/read.sql",
        &"create or replace function NAME.read(payload jsonb) returns jsonb language sql as $$
              insert into NAME.seen select c.operation, coalesce(payload ->> 'consumer', 'NAME.changes')
              from rowbeat.consume(coalesce(payload ->> 'consumer', 'NAME.changes')) c;
              select to_jsonb(count(*)) from NAME.seen
          $$;
          create or replace function NAME.begin_anew(payload jsonb) returns jsonb language sql as $$
              select to_jsonb(rowbeat.rebase_consumer(payload ->> 'consumer')::text) $$;"
            .replace("NAME", name),
    )
}

async fn shop() -> TestDb {
    let db = TestDb::new().await;
    db.run("create table public.orders (id bigint primary key); create table public.secrets (id bigint primary key)").await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_comes_with_its_plugin_reads_for_its_functions_and_goes_with_it() {
    let db = shop().await;
    let before = everything(&db);
    let said = ledger("ledger").run(&db, "install", &["--dry-run"]).ok();
    assert!(said.contains("consumer") && said.contains("ledger.changes"), "{said}");
    unchanged(&db, &before, "a dry run");
    ledger("ledger").install(&db).ok();
    let made: String = db
        .get("select role || ' ' || tables::text from rowbeat.consumers where name = 'ledger.changes'")
        .await;
    assert_eq!(made, format!("rowbeat_{}_ledger {{ledger.entry,orders}}", db.name));
    let _daemon = db.daemon().ready().await;
    db.run("insert into ledger.entry values (1), (2)").await;
    db.until("(select count(*) = 2 from ledger.seen)").await;
    // What a newer version does not change stays where it was.
    db.run("select rowbeat.pause(p_definition => 'ledger.read'); delete from ledger.entry where id = 1")
        .await;
    let newer = ledger("ledger").edit("plugin.toml", "1.0.0", "1.1.0");
    assert!(!newer.run(&db, "upgrade", &[]).ok().contains("consumer"));
    db.run("select rowbeat.resume(p_definition => 'ledger.read')").await;
    db.until("(select count(*) = 3 from ledger.seen)").await;
    let fewer = ledger("ledger").edit("plugin.toml", "1.0.0", "1.2.0").edit(
        "plugin.toml",
        ", \"public.orders\"]\n\n",
        "]\n\n",
    );
    assert!(fewer.run(&db, "upgrade", &[]).ok().contains("changed"));
    assert_eq!(
        db.get::<String>("select tables::text from rowbeat.consumers where name = 'ledger.changes'").await,
        "{ledger.entry}"
    );
    rowbeat(&db, &["plugin", "remove", "ledger", "--cancel-tasks"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.consumers").await, 1, "the router is left");
    ledger("ledger").edit("plugin.toml", "1.0.0", "1.2.0").install(&db).ok();
    let none = "format = 1\nname = \"ledger\"\nversion = \"1.3.0\"\n";
    let without = ledger("ledger").put("plugin.toml", none);
    assert!(without.run(&db, "upgrade", &[]).ok().contains("removed"));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.consumers").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_uses_no_other_consumer_not_even_in_the_daemons_session() {
    let db = shop().await;
    ledger("ledger").install(&db).ok();
    ledger("thief").install(&db).ok();
    db.run(
        "select rowbeat.create_consumer('mirror', '{public.orders}'); insert into ledger.entry values (1)",
    )
    .await;
    for consumer in ["ledger.changes", "mirror", "router"] {
        for function in ["read", "begin_anew"] {
            let (code, message) =
                db.refusal(&format!("select thief.{function}('{{\"consumer\": \"{consumer}\"}}')")).await;
            assert_eq!(code, "42501", "{function} {consumer}");
            assert!(
                message
                    .contains(&format!("there is no consumer \"{consumer}\" for rowbeat_{}_thief", db.name)),
                "{message}"
            );
        }
    }
    let _daemon = db.daemon().ready().await;
    db.run("select rowbeat.enqueue('thief.read', '{\"consumer\": \"ledger.changes\"}', p_max_attempts => 1)")
        .await;
    db.until("exists (select from rowbeat.tasks where definition = 'thief.read' and state = 'failed')").await;
    db.until("(select count(*) = 1 from ledger.seen)").await;
    assert_eq!(db.get::<i64>("select count(*) from thief.seen").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_may_not_be_is_told() {
    let db = shop().await;
    ledger("ledger").edit("plugin.toml", "tables = [", "tables = [\"public.secrets\", ").install(&db).refused(
        1,
        &["[[consumer]] \"ledger.changes\" tables: public.secrets is not required: add it to [requires] read"],
    );
    ledger("ledger")
        .edit("plugin.toml", "tables = [\"ledger.entry\", \"public.orders\"]", "role = \"postgres\"")
        .install(&db)
        .refused(
            1,
            &[
                "[[consumer]] \"ledger.changes\" tables: is missing",
                "[[consumer]] \"ledger.changes\" role: there is no such key",
            ],
        );
    ledger("ledger")
        .edit("plugin.toml", "unique_key = \"'ledger'\"", "unique_key = \"new.id\"")
        .install(&db)
        .refused(1, &["[[watch]] \"ledger.entries\" unique_key: is a plain text in single quotes"]);
    ledger("ledger")
        .edit("plugin.toml", "ledger.changes", "router")
        .install(&db)
        .refused(1, &["consumer \"router\" exists already"]);
    ledger("ledger")
        .edit("plugin.toml", "ledger.entry\", ", "ledger.entries\", ")
        .install(&db)
        .refused(1, &["ledger.entries"]);
    for (tables, problem) in [
        ("\"{public.secrets}\"", "a list of tables is needed here"),
        ("[7]", "a list of tables is needed here"),
        ("[\"ledger.public.secrets\"]", "ledger.public.secrets is not required"),
    ] {
        ledger("ledger")
            .edit("plugin.toml", "[\"ledger.entry\", \"public.orders\"]", tables)
            .install(&db)
            .refused(1, &[problem]);
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.plugin").await, 0);
}

#[tokio::test]
async fn a_consumer_that_begins_anew_at_a_snapshot_reads_what_that_does_not_see() {
    let db = shop().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor) values ('nobody', 'external');
         select rowbeat.watch('public.orders', 'nobody'); select rowbeat.create_consumer('mirror', '{public.orders}');
         insert into public.orders values (1)",
    )
    .await;
    let open = db.session().await;
    open.batch_execute("begin; insert into public.orders values (2)").await.unwrap();
    let snapshot: String = db.get("select pg_current_snapshot()::text").await;
    db.run("insert into public.orders values (3)").await;
    open.batch_execute("commit").await.unwrap();
    db.run(&format!("select rowbeat.rebase_consumer('mirror', '{snapshot}')")).await;
    let ids: Vec<i64> = db
        .get("select array_agg((key ->> 'id')::bigint order by change) from rowbeat.consume('mirror')")
        .await;
    assert_eq!(ids, [2, 3]);
    // What the transaction that begins anew has written itself, it has seen; what it writes later is read, whoever ends meanwhile. So it is after reading.
    for (call, seen) in [
        ("rowbeat.rebase_consumer('mirror', pg_current_snapshot())", [5].as_slice()),
        ("count(*) from rowbeat.consume('mirror')", [4, 5].as_slice()),
    ] {
        db.run("delete from public.orders").await;
        db.run("select rowbeat.rebase_consumer('mirror')").await;
        db.run("begin; insert into public.orders values (4)").await;
        open.batch_execute("create table public.passing (); drop table public.passing").await.unwrap();
        db.run(&format!("select {call}; insert into public.orders values (5); commit")).await;
        let ids: Vec<i64> = db.get("select array_agg((key ->> 'id')::bigint order by change) from rowbeat.consume('mirror') where operation = 'INSERT'").await;
        assert_eq!(ids, seen, "{call}");
    }
    let future = "select rowbeat.rebase_consumer('mirror', format('%s:%1$s:', pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000)::pg_snapshot)";
    assert_eq!(db.refusal(future).await.0, "22023");
    assert_eq!(json!(db.get::<i64>("select count(*) from rowbeat.consume('mirror')").await), json!(0));
}
