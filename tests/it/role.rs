//! The roles of people: what each may do, and what not.

use tokio_postgres::Client;

use crate::harness::TestDb;

/// A session that acts as a role.
async fn acting(db: &TestDb, role: &str) -> Client {
    let session = db.session().await;
    session.batch_execute(&format!("set role {role}")).await.unwrap();
    session
}

async fn may(session: &Client, allowed: &[&str], refused: &[&str]) {
    for sql in allowed {
        if let Err(error) = session.batch_execute(sql).await {
            panic!("{sql}: {}", rowbeat::db::sqlstate::describe(&error));
        }
    }
    for sql in refused {
        let error = session.batch_execute(sql).await.expect_err(sql);
        assert_eq!(
            error.code().map(|code| code.code()),
            Some("42501"),
            "{sql}: {}",
            rowbeat::db::sqlstate::describe(&error)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_every_view_and_nothing_behind_them() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.enqueue('add_effect')").await;
    let views: Vec<String> = db
        .get("select array_agg(c.oid::regclass::text) from pg_class c where relkind = 'v' and relnamespace = 'rowbeat'::regnamespace
              and relname not in ('backup_history', 'backup_latest', 'backup_deleted')")
        .await;
    assert!(views.len() > 8, "{views:?}");
    let reads: Vec<String> = views.iter().map(|view| format!("select * from {view}")).collect();
    let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
    let reader = acting(&db, "rowbeat_reader").await;
    may(
        &reader,
        &reads,
        &[
            "select rowbeat.enqueue('add_effect')",
            "select rowbeat.cancel(1)",
            "select rowbeat.retry(1)",
            "insert into rowbeat.task (definition) values ('add_effect')",
            "select * from rowbeat.task",
            "select * from rowbeat.backup_latest",
            "select * from rowbeat.setting",
            "update rowbeat.task_definition set priority = 1",
            "delete from rowbeat.own_task",
            "select rowbeat.pause('add_effect')",
            "create table rowbeat.x ()",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_enqueues_and_cancels_and_sees_nothing_else() {
    let db = TestDb::new().await.with_effects().await;
    let producer = acting(&db, "rowbeat_producer").await;
    may(
        &producer,
        &[
            "select rowbeat.enqueue('add_effect', '{\"x\": 1}', p_unique_key => 'k')",
            "select rowbeat.enqueue('add_effect', '{\"x\": 2}', p_unique_key => 'k', p_replace => '{payload}')",
            "select rowbeat.enqueue('add_effect', p_unique_key => 'l', p_unique_for => '1 hour')",
            "select rowbeat.enqueue_many('[{\"definition\": \"add_effect\"}]')",
            "insert into rowbeat.task (definition, payload, run_at, serial_key) values ('add_effect', '{}', now(), 's') returning id",
            "select rowbeat.cancel(1)",
        ],
        &[
            "select payload from rowbeat.task",
            "select * from rowbeat.tasks",
            "insert into rowbeat.task (definition, state) values ('add_effect', 'running')",
            "insert into rowbeat.task (definition, cause) values ('add_effect', '{}')",
            "update rowbeat.task set payload = '{}'",
            "delete from rowbeat.task",
            "insert into rowbeat.task_definition (name, executor) values ('x', 'external')",
            "select rowbeat.schedule('s', '@daily', 'add_effect')",
            "select rowbeat.retry(1)",
            "select rowbeat.pause('add_effect')",
            "select rowbeat.grant_roles()",
        ],
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.until("(select count(*) from rowbeat.tasks where state = 'completed') = 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_does_everything_but_ddl() {
    let db = TestDb::new().await.with_effects().await;
    let operator = acting(&db, "rowbeat_operator").await;
    may(
        &operator,
        &[
            "insert into rowbeat.task_definition (name, executor, function, concurrency) values ('more', 'sql', 'public.add_effect', 2)",
            "update rowbeat.task_definition set priority = 5 where name = 'more'",
            "select rowbeat.enqueue('more'), rowbeat.enqueue('more', p_serial_key => 's')",
            "select rowbeat.pause('more'), rowbeat.resume('more'), rowbeat.pause(p_queue => 'default'), rowbeat.resume(p_queue => 'default')",
            "select rowbeat.cancel(1); select rowbeat.retry(1); select rowbeat.run_now(1)",
            "select rowbeat.schedule('s', '@daily', 'more'); select rowbeat.unschedule('s')",
            "insert into rowbeat.channel (name, definition) values ('c', 'more')",
            "insert into rowbeat.feature (name) values ('gold')",
            "select * from rowbeat.explain_task(2)",
            "select rowbeat.status()",
            "delete from rowbeat.task; delete from rowbeat.channel; delete from rowbeat.task_definition where name = 'more'",
        ],
        &[
            "create table rowbeat.x ()",
            "drop table rowbeat.task",
            "alter table rowbeat.task add column x int",
            "truncate rowbeat.task",
            "create or replace function rowbeat.now_() returns timestamptz language sql as 'select now()'",
            "update rowbeat.source_file set checksum = ''",
            "delete from rowbeat.schema_history",
            "update rowbeat.plugin set role_name = null",
            "select rowbeat.purge_plugin('x')",
            "create role x",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cluster_s_roles_serve_every_database_and_nobody_without_them() {
    let (db, other) = (TestDb::new().await, TestDb::new().await);
    for db in [&db, &other] {
        may(&acting(db, "rowbeat_reader").await, &["select * from rowbeat.tasks"], &[]).await;
    }
    db.run(&format!("create role nobody_{}", db.name)).await;
    may(
        &acting(&db, &format!("nobody_{}", db.name)).await,
        &[],
        &["select * from rowbeat.tasks", "select rowbeat.enqueue('x')"],
    )
    .await;
    db.run(&format!("drop role nobody_{}", db.name)).await;
}
