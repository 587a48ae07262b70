//! Migrations: installed, never upgraded unasked, safe when two run at once.

use std::process::Output;

use rowbeat::db::migrate::{self, MigrateError};
use serde_json::Value;

use crate::harness::{TestDb, server};
use crate::login::Login;

fn rowbeat(db: &TestDb, arguments: &[&str]) -> Output {
    server().rowbeat(&db.name).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_install_the_schema_once() {
    let db = TestDb::empty().await;
    let plan = migrate::plan(&db.connector).await.unwrap();
    assert!(!plan.installed && plan.current == 0 && plan.steps.len() > 10);
    let mut running = Vec::new();
    for _ in 0..4 {
        let connector = db.connector.clone();
        running.push(tokio::spawn(
            async move { migrate::migrate(&connector).await.map(|plan| plan.steps.len()) },
        ));
    }
    let mut worked = 0;
    for migration in running {
        worked += usize::from(migration.await.unwrap().unwrap() > 0);
    }
    assert_eq!(worked, 1, "one did it, the others found it done");
    assert!(migrate::plan(&db.connector).await.unwrap().steps.is_empty());
    migrate::install_or_check(&db.connector).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn start_installs_into_an_empty_database() {
    let db = TestDb::empty().await;
    let daemon = db.daemon().ready().await;
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    assert!(migrate::plan(&db.connector).await.unwrap().steps.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn start_refuses_an_older_schema_and_migrate_mends_it() {
    let db = TestDb::new().await;
    db.run(
        "update rowbeat.source_file set checksum = 'old' where name = 'sql/functions/10_task.sql';
         create or replace function rowbeat.cancel(p_task_id bigint) returns text language sql as $$ select 'old' $$;",
    )
    .await;
    let mut daemon = db.daemon();
    assert_eq!(daemon.ended().await.code(), Some(78));
    daemon.says("rowbeat migrate").await;
    assert_eq!(db.get::<String>("select rowbeat.cancel(1)").await, "old", "start changes nothing");
    let planned = rowbeat(&db, &["migrate", "--plan", "--json"]);
    let plan: Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!(plan["steps"][0]["file"], "sql/functions/10_task.sql");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 1);
    assert_eq!(db.get::<String>("select rowbeat.cancel(1)").await, "old", "a plan changes nothing");
    let migrated = rowbeat(&db, &["migrate"]);
    assert!(migrated.status.success(), "{}", stderr(&migrated));
    assert_eq!(db.refusal("select rowbeat.cancel(1)").await.0, "RB004");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let db = TestDb::new().await;
    db.run("insert into rowbeat.schema_history (version, name, applied_on, checksum) values (999, 'future', '', '0')").await;
    assert!(matches!(migrate::migrate(&db.connector).await, Err(MigrateError::Newer { found: 999, .. })));
    let migrated = rowbeat(&db, &["migrate"]);
    assert_eq!(migrated.status.code(), Some(78));
    assert!(stderr(&migrated).contains("999"), "{}", stderr(&migrated));
    let mut daemon = db.daemon();
    assert_eq!(daemon.ended().await.code(), Some(78));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_migration_is_refused() {
    let db = TestDb::new().await;
    db.run("update rowbeat.schema_history set checksum = '1' where version = 2; update rowbeat.source_file set checksum = 'old'").await;
    let migrated = rowbeat(&db, &["migrate"]);
    assert!(!migrated.status.success());
    assert!(stderr(&migrated).contains("V2"), "{}", stderr(&migrated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_table_is_waited_for() {
    let db = TestDb::new().await;
    db.run("update rowbeat.source_file set checksum = 'old' where name = 'triggers/task.sql'").await;
    let reader = db.session().await;
    reader.batch_execute("begin; lock table rowbeat.task in row exclusive mode").await.unwrap();
    let connector = db.connector.clone();
    let migration = tokio::spawn(async move { migrate::migrate(&connector).await });
    db.until(
        "select exists (select from pg_locks where not granted and relation = 'rowbeat.task'::regclass)",
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!migration.is_finished(), "it tries again after a lock timeout");
    reader.batch_execute("commit").await.unwrap();
    migration.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_no_superuser_installs_and_runs_everything() {
    let db = TestDb::empty().await;
    let login = Login::new(&db, "nocreaterole").await;
    let role = &login.role;
    db.run(&format!("create schema shop authorization {role}")).await;
    let daemon = crate::harness::Daemon::start(login.command(), "", &[]).ready().await;
    db.run(&format!(
        "set role {role};
         create table shop.orders (id bigint primary key);
         create function shop.see(payload jsonb) returns jsonb language sql as $$ select payload -> 'key' $$;
         insert into rowbeat.task_definition (name, executor, function) values ('see', 'sql', 'shop.see');
         insert into rowbeat.watch (table_name, definition) values ('shop.orders', 'see');
         insert into rowbeat.channel (name, definition) values ('shop', 'see');
         select rowbeat.schedule('s', 'every 1 second', 'see');
         insert into rowbeat.task (definition) values ('see');
         insert into shop.orders values (1);"
    ))
    .await;
    daemon.says("listening to channel").await;
    db.run("select pg_notify('shop', 'x')").await;
    db.until("select count(distinct coalesce(cause ->> 'kind', 'insert')) = 4 from rowbeat.tasks where state = 'completed'").await;
    let (status, log) = daemon.stop().await;
    assert!(status.success() && !log.contains("WARN"), "{log}");
    db.run(&format!(
        "reset role; reassign owned by {role} to postgres; drop owned by {role}; drop role {role}"
    ))
    .await;
}
