//! Upgrades lose nothing, removals surprise nobody.

use serde_json::{Value, json};

use crate::cli::{Process, rowbeat};
use crate::harness::{TestDb, server};
use crate::plugin::{Folder, everything, unchanged};

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_applies_what_is_pending_and_keeps_what_the_operator_changed() {
    let db = TestDb::new().await;
    Folder::tally().install(&db).ok();
    db.run(
        "update rowbeat.task_definition set priority = 7, max_attempts = 9 where name = 'tally.count';
         update rowbeat.schedule set enabled = false where name = 'tally.daily';
         update rowbeat.plugin_setting set value = '5' where plugin = 'tally' and name = 'step';
         select rowbeat.enqueue('tally.count', '{\"what\": \"pears\"}')",
    )
    .await;
    let next = Folder::tally()
        .edit("plugin.toml", "version = \"1.0.0\"", "version = \"1.1.0\"")
        .edit("plugin.toml", "max_attempts = 3", "max_attempts = 4")
        .edit("plugin.toml", "spec = \"@daily\"", "spec = \"@hourly\"")
        .put("migrations/V2__note.sql", "alter table tally.counter add column note text;");
    next.install(&db).refused(1, &["installed already, in version 1.0.0", "rowbeat plugin upgrade"]);
    let said = next.run(&db, "upgrade", &["--test"]).ok();
    assert!(
        said.contains("upgraded from 1.0.0 to 1.1.0") && said.contains("migrations/V2__note.sql"),
        "{said}"
    );
    assert!(!said.contains("migrations/V1"), "{said}");
    let row: Value =
        db.get("select to_jsonb(d) from rowbeat.task_definition d where name = 'tally.count'").await;
    assert_eq!((&row["priority"], &row["max_attempts"]), (&json!(7), &json!(4)));
    let row: Value = db.get("select to_jsonb(s) from rowbeat.schedule s where name = 'tally.daily'").await;
    assert_eq!((&row["enabled"], &row["spec"]), (&json!(false), &json!("@hourly")));
    // What was queued before runs with the new function and the operator's setting.
    let _daemon = db.daemon().ready().await;
    db.until("exists (select from tally.counter where what = 'pears' and times = 5)").await;
    Folder::tally().run(&db, "upgrade", &[]).refused(1, &["1.1.0, which is newer than 1.0.0"]);
    next.edit("migrations/V1__counter.sql", "bigint", "integer")
        .run(&db, "upgrade", &[])
        .refused(1, &["V1__counter.sql", "edited since"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upgrade_no_longer_declares_goes_unless_tasks_need_it() {
    let db = TestDb::new().await;
    let with_more = Folder::tally().append(
        "plugin.toml",
        "[[task]]\nname = \"tally.more\"\nexecutor = \"sql\"\nfunction = \"tally.count\"\n",
    );
    with_more.install(&db).ok();
    db.run("select rowbeat.enqueue('tally.more')").await;
    let without = Folder::tally().edit("plugin.toml", "version = \"1.0.0\"", "version = \"1.0.1\"");
    without.run(&db, "upgrade", &[]).refused(1, &["\"tally.more\" still has live tasks"]);
    db.run("select rowbeat.cancel(id) from rowbeat.task").await;
    assert!(without.run(&db, "upgrade", &[]).ok().contains("tally.more"));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task_definition").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_plugin_keeps_its_data_and_a_purged_one_leaves_nothing() {
    let db = TestDb::new().await;
    let before = everything(&db);
    Folder::tally().install(&db).ok();
    db.run("insert into tally.counter values ('plums', 3)").await;
    rowbeat(&db, &["plugin", "remove", "tally", "--dry-run"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task_definition").await, 1);
    let said = rowbeat(&db, &["plugin", "remove", "tally"]).ok();
    assert!(said.contains("data are kept"), "{said}");
    let rows = "select (select count(*) from rowbeat.task_definition) + (select count(*) from rowbeat.schedule) + (select count(*) from rowbeat.plugin_endpoint)";
    assert_eq!(db.get::<i64>(rows).await, 0);
    rowbeat(&db, &["plugin", "remove", "tally"]).refused(1, &["removed already", "--purge"]);
    Folder::tally().install(&db).ok();
    assert_eq!(
        db.get::<i64>("select times from tally.counter where what = 'plums'").await,
        3,
        "it was all there"
    );
    rowbeat(&db, &["plugin", "remove", "tally", "--purge"]).ok();
    rowbeat(&db, &["plugin", "remove", "tally"]).refused(1, &["there is no plugin tally"]);
    unchanged(&db, &before, "purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_tasks_and_other_plugins_are_in_the_way_of_a_removal() {
    let db = TestDb::new().await;
    Folder::tally().append("functions/count.sql", "create or replace function tally.sleep(payload jsonb) returns void language sql as $$ select pg_sleep(600) $$;")
        .append("plugin.toml", "[[task]]\nname = \"tally.sleep\"\nexecutor = \"sql\"\nfunction = \"tally.sleep\"\ntimeout = \"1 hour\"\n")
        .install(&db)
        .ok();
    let other = Folder::bare(
        "format = 1\nname = \"other\"\nversion = \"1.0.0\"\n[requires]\nplugins = { tally = \"1.0\" }\n",
    );
    other.install(&db).ok();
    rowbeat(&db, &["plugin", "remove", "tally"]).refused(1, &["required by other"]);
    rowbeat(&db, &["plugin", "remove", "other", "--purge"]).ok();
    let daemon = db.daemon().ready().await;
    db.run("select rowbeat.enqueue('tally.sleep'), rowbeat.enqueue('tally.count', p_run_at => '2100-01-01')")
        .await;
    db.until("exists (select from rowbeat.tasks where state = 'running')").await;
    rowbeat(&db, &["plugin", "remove", "tally"]).refused(1, &["still has live tasks", "--cancel-tasks"]);
    rowbeat(&db, &["plugin", "remove", "tally", "--cancel-tasks", "--purge"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks where state = 'cancelled'").await, 2);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_made_while_a_removal_cancels_is_cancelled_too() {
    let db = TestDb::new().await;
    Folder::tally().install(&db).ok();
    let migration = db.session().await;
    migration.batch_execute("begin; select pg_advisory_xact_lock(1919907682, 2)").await.unwrap();
    let mut removal =
        Process::start(server().rowbeat(&db.name), &["plugin", "remove", "tally", "--cancel-tasks"]);
    // Nothing lives any more, and it waits to begin.
    db.until(
        "exists (select from pg_catalog.pg_locks where locktype = 'advisory' and objid = 2 and not granted)",
    )
    .await;
    db.run("select rowbeat.enqueue('tally.count')").await;
    migration.batch_execute("commit").await.unwrap();
    assert_eq!(removal.ended().await.code(), Some(0), "{}", removal.said());
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_outlives_its_plugin_is_written_and_starts_nothing_until_the_plugin_is_back() {
    let db = TestDb::new().await;
    let folder = Folder::bare(
        "format = 1\nname = \"late\"\nversion = \"1.0.0\"\n[[task]]\nname = \"late.hear\"\nexecutor = \"external\"\nunique_until = \"start\"\n",
    )
    .put("migrations/V1__note.sql", "create table late.note (id int primary key)")
    .put(
        "functions/note.sql",
        "create or replace function late.follow() returns trigger language plpgsql as $$
         begin
             perform rowbeat.enqueue('late.hear'), rowbeat.enqueue('late.hear', p_unique_key => 'k'),
                 rowbeat.enqueue('late.hear', p_unique_key => 'for', p_unique_for => '1 hour');
             perform rowbeat.enqueue_many('[{\"definition\": \"late.hear\"}, {\"definition\": \"late.hear\", \"unique_key\": \"m\"}]');
             insert into rowbeat.schedule (name, spec, definition) values ('late.daily', '@daily', 'late.hear') on conflict do nothing;
             insert into rowbeat.watch (name, table_name, definition) values ('late.note', 'late.note', 'late.hear') on conflict do nothing;
             return null;
         end $$;
         create or replace trigger follow after insert on late.note for each row execute function late.follow()",
    );
    folder.install(&db).ok();
    let started = "select array[(select count(*) from rowbeat.task), (select count(*) from rowbeat.schedule), (select count(*) from rowbeat.watch)]";
    db.run("insert into late.note values (1)").await;
    assert_eq!(db.get::<Vec<i64>>(started).await, [5, 1, 1]);
    rowbeat(&db, &["plugin", "remove", "late", "--cancel-tasks"]).ok();
    db.run("delete from rowbeat.unique_hold; insert into late.note values (2)").await;
    assert_eq!(db.get::<Vec<i64>>(started).await, [0, 0, 0]);
    assert_eq!(db.get::<i64>("select count(*) from late.note").await, 2);
    // Whoever asks for it himself is told; and so is a trigger that asks for what never was a plugin's.
    assert_eq!(db.refusal("select rowbeat.enqueue('late.hear')").await.0, "RB001");
    assert_eq!(db.refusal("select rowbeat.schedule('mine', '@daily', 'late.hear')").await.0, "23503");
    db.run(
        "create function public.ask() returns trigger language plpgsql as $$ begin perform rowbeat.enqueue('late.other'); return null; end $$;
         create trigger ask after insert on late.note for each row execute function public.ask()",
    )
    .await;
    assert_eq!(db.refusal("insert into late.note values (3)").await.0, "RB001");
    db.run("drop trigger ask on late.note").await;
    folder.install(&db).ok();
    db.run("insert into late.note values (4)").await;
    assert_eq!(db.get::<Vec<i64>>(started).await, [5, 1, 1]);
}
