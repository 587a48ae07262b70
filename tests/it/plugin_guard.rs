//! What a plugin's functions can reach at run time: their own schema, the tables they declared, and the public functions.

use crate::cli::rowbeat;
use crate::harness::{Daemon, TestDb};
use crate::login::Login;
use crate::plugin::Folder;

/// Functions that try to break out, each a task; what they try is the payload's `sql`.
const BURGLAR: &str =
    "create or replace function tally.try(payload jsonb) returns jsonb language plpgsql as $$
declare v_answer text;
begin
    if payload ->> 'sql' ~ '^(select|with|insert|update|delete)' then
        execute payload ->> 'sql' into v_answer;
    else
        execute payload ->> 'sql';
    end if;
    return to_jsonb(v_answer);
end $$;";

const TASK: &str =
    "[[task]]\nname = \"tally.try\"\nexecutor = \"sql\"\nfunction = \"tally.try\"\nmax_attempts = 1\n";

fn burglar() -> Folder {
    Folder::tally().put("functions/try.sql", BURGLAR).append("plugin.toml", TASK)
}

/// Lets the plugin's task run a statement: what it returned, or why it failed.
async fn attempt(db: &TestDb, sql: &str) -> Result<String, String> {
    let id: i64 = db
        .get_with("select rowbeat.enqueue('tally.try', jsonb_build_object('sql', $1::text))", &[&sql])
        .await;
    db.until(&format!("(select state in ('completed', 'failed') from rowbeat.tasks where id = {id})")).await;
    let row = format!(
        "select coalesce(result #>> '{{}}', ''), state, coalesce(error ->> 'message', '') from rowbeat.tasks where id = {id}"
    );
    let client = db.session().await;
    let row = client.query_one(&row, &[]).await.unwrap();
    if row.get::<_, String>(1) == "completed" { Ok(row.get(0)) } else { Err(row.get(2)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_reaches_nothing_but_its_own() {
    let db = TestDb::new().await;
    burglar().install(&db).ok();
    Folder::bare("format = 1\nname = \"other\"\nversion = \"1\"\n")
        .put("migrations/V1__t.sql", "create table other.t (x int);")
        .install(&db)
        .ok();
    db.run(
        "create table public.secret (x int); create view public.no_view as select 1; insert into rowbeat.setting values ('s', '1') on conflict do nothing;
         select rowbeat.schedule('operators', '@daily', 'tally.count')",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    for (sql, refused) in [
        ("select x from other.t", "permission denied for schema other"),
        ("select x from public.secret", "permission denied for table secret"),
        ("select value from rowbeat.setting", "permission denied for table setting"),
        ("select value from rowbeat.plugin_setting", "permission denied for table plugin_setting"),
        ("select payload from rowbeat.task", "permission denied for table task"),
        (
            "insert into rowbeat.task_definition (name, executor) values ('x', 'external')",
            "permission denied for table task_definition",
        ),
        ("create table public.mine (x int)", "permission denied for schema public"),
        (
            "create function tally.mine() returns int language sql as 'select 1'",
            "permission denied for schema tally",
        ),
        ("create schema mine", "permission denied for database"),
        ("create table rowbeat.mine (x int)", "permission denied for schema rowbeat"),
        ("alter role current_user superuser", "alter"),
        ("create role thief", "permission denied to create role"),
        ("reset role", "within security-definer function"),
        ("set role postgres", "within security-definer function"),
        ("set session authorization postgres", "within security-definer function"),
        ("select set_config('role', 'none', false)", "within security-definer function"),
        ("copy (select 1) to program 'cat'", "COPY to or from an external program"),
        ("select pg_read_file('/etc/passwd')", "permission denied for function"),
        ("select lo_export(1, '/tmp/x')", "permission denied for function"),
        ("select rowbeat.cancel(1)", "permission denied for function cancel"),
        ("select rowbeat.purge_plugin('other')", "permission denied"),
        ("update rowbeat.schedule set spec = '@hourly' where name = 'operators' returning name", ""),
        (
            "insert into rowbeat.schedule (name, spec, definition) values ('theirs', '@daily', 'tally.count')",
            "row-level security",
        ),
        ("select rowbeat.schedule('operators', '@hourly', 'tally.count')", "row-level security"),
        (
            "insert into rowbeat.listening (plugin, name, channel) values ('other', 'x', 'x')",
            "row-level security",
        ),
        (
            "insert into rowbeat.listening (plugin, name, channel) values ('tally', 'x', 'rowbeat')",
            "listening_channel_is_not_ours",
        ),
        (
            "insert into rowbeat.watch (name, table_name, definition) values ('tally.w', 'public.secret', 'tally.count')",
            "permission denied for table secret",
        ),
        (
            "insert into rowbeat.watch (name, table_name, definition, serial_key) values ('tally.w', 'tally.counter', 'tally.count', 'new.what')",
            "a plugin's serial key is a plain quoted text, not new.what",
        ),
        (
            "insert into rowbeat.watch (name, table_name, definition, serial_key) values ('tally.w', 'tally.counter', 'tally.count', $$'a' || rowbeat.purge_plugin('other')::text || 'b'$$)",
            "a plugin's serial key is a plain quoted text",
        ),
        ("select value::text from rowbeat.own_setting where plugin <> 'tally'", ""),
        ("select path from rowbeat.own_file where plugin <> 'tally'", ""),
        ("select content from rowbeat.plugin_file", "permission denied for table plugin_file"),
        ("update rowbeat.plugin set role_name = 'postgres'", "permission denied"),
        ("alter table tally.counter owner to postgres", "must be"),
    ] {
        let done = attempt(&db, sql).await;
        match (&done, refused) {
            (Ok(nothing), "") => assert_eq!(nothing, "", "{sql}"),
            (Err(message), refused) if !refused.is_empty() => {
                assert!(message.contains(refused), "{sql}: {message}")
            }
            _ => panic!("{sql}: {done:?}"),
        }
    }
    assert_eq!(
        db.get::<String>("select spec from rowbeat.schedule where name = 'operators'").await,
        "@daily"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_can_do_what_plugins_are_for() {
    let db = TestDb::new().await;
    db.run("create table public.orders (id bigint primary key); insert into public.orders values (42)").await;
    burglar()
        .edit("plugin.toml", "rowbeat = \"0.1\"", "rowbeat = \"0.1\"\nread = [\"public.orders\"]")
        .append(
            "plugin.toml",
            "[[schedule]]\nname = \"count_all\"\ndefinition = \"tally.count\"\nspec = \"@yearly\"\n",
        )
        .install(&db)
        .ok();
    db.run("insert into rowbeat.task (definition, payload) values ('tally.count', '{\"what\": \"rows\"}')")
        .await;
    let _daemon = db.daemon().ready().await;
    db.until("exists (select from tally.counter where what = 'rows')").await;
    for (sql, answer) in [
        ("select id from public.orders", "42"),
        ("select current_user", &format!("rowbeat_{}_tally", db.name)),
        (
            "select rowbeat.enqueue('tally.count', '{\"what\": \"x\"}', '2100-01-01', p_unique_key => 'x') > 0",
            "true",
        ),
        (
            "select count(*) from rowbeat.own_task where definition = 'tally.count' and state = 'scheduled'",
            "1",
        ),
        (
            "with d as (delete from rowbeat.own_task where definition = 'tally.count' and state = 'scheduled' returning 1) select count(*) from d",
            "1",
        ),
        (
            "select count(*) from rowbeat.own_task where definition = 'tally.count' and state = 'cancelled'",
            "1",
        ),
        ("select rowbeat.schedule('tally.zone', '@daily', 'tally.count')", "tally.zone"),
        ("select rowbeat.unschedule('tally.zone')", "true"),
        (
            "insert into rowbeat.watch (name, table_name, definition) values ('tally.w', 'tally.counter', 'tally.count') returning name",
            "tally.w",
        ),
        ("delete from rowbeat.watch where name = 'tally.w' returning 'gone'", "gone"),
        (
            "insert into rowbeat.watch (name, table_name, definition, serial_key) values ('tally.s', 'tally.counter', 'tally.count', $$'in order'$$) returning name",
            "tally.s",
        ),
        ("delete from rowbeat.watch where name = 'tally.s' returning 'gone'", "gone"),
        ("delete from rowbeat.schedule where name = 'count_all' returning 'gone'", "gone"),
        ("select rowbeat.schedule('count_all', '@yearly', 'tally.count')", "count_all"),
        (
            "select convert_from(content, 'UTF8') from rowbeat.own_file where path = 'templates/show.html'",
            "<p>{{ what }}</p>\n",
        ),
        ("select rowbeat.read_setting('tally', 'step')", "1"),
        (
            "insert into rowbeat.listening (plugin, name, channel) values ('tally', 'x', 'X') returning channel",
            "X",
        ),
        ("delete from rowbeat.listening returning channel", "X"),
        ("select rowbeat.now_() is not null", "true"),
    ] {
        assert_eq!(attempt(&db, sql).await.as_deref(), Ok(answer), "{sql}");
    }
    // What the next version no longer needs it no longer gets.
    burglar().edit("plugin.toml", "version = \"1.0.0\"", "version = \"1.0.1\"").run(&db, "upgrade", &[]).ok();
    assert!(attempt(&db, "select id from public.orders").await.unwrap_err().contains("permission denied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_does_to_its_session_reaches_nobody_else() {
    let db = TestDb::new().await;
    // An operator that the engine uses, in the plugin's own schema: whoever comes upon this one is confused.
    burglar()
        .append(
            "functions/try.sql",
            "create or replace function tally.confuse(text, text) returns boolean language sql as $$ select false $$;
             create operator tally.= (function = tally.confuse, leftarg = text, rightarg = text);",
        )
        .install(&db)
        .ok();
    let _daemon =
        db.daemon_with("[node]\nconcurrency = 1\n[database]\nmax_connections = 1\n", &[]).ready().await;
    attempt(&db, "select set_config('search_path', 'tally, pg_catalog', false)").await.unwrap();
    attempt(&db, "select pg_advisory_lock(1919907682, 2), pg_advisory_lock(7)").await.unwrap();
    attempt(&db, "select set_config('rowbeat.clock_offset', '1 day', false), set_config('statement_timeout', '1', false)").await.unwrap();
    let path = attempt(
        &db,
        "select current_setting('search_path') || current_setting('rowbeat.clock_offset', true)",
    )
    .await
    .unwrap();
    assert_eq!(path, "tally, pg_temp", "every call begins anew");
    assert_eq!(db.get::<i64>("select count(*) from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() where locktype = 'advisory' and (objid = 7 or (classid = 1919907682 and objid = 2))").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_was_altered_to_run_with_other_rights_is_not_called() {
    let db = TestDb::new().await;
    burglar().install(&db).ok();
    let _daemon = db.daemon().ready().await;
    attempt(&db, "alter function tally.try(jsonb) security invoker").await.unwrap();
    let refused = attempt(&db, "select current_user").await.unwrap_err();
    assert!(refused.contains("was altered to run with other rights"), "{refused}");
    let mended = burglar().install(&db).ok();
    assert!(mended.contains("upgraded from 1.0.0 to 1.0.0"), "{mended}");
    assert_eq!(attempt(&db, "select current_user").await.unwrap(), format!("rowbeat_{}_tally", db.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_settle_and_conditions_run_as_the_plugin_too() {
    let db = TestDb::new().await;
    Folder::tally()
        .put(
            "functions/plan.sql",
            "create or replace function tally.plan(task jsonb, responses jsonb[]) returns jsonb language plpgsql as $$
             begin insert into counter values ('plan ' || current_user, 1) on conflict do nothing; perform leave(); return null; end $$;
             create or replace function tally.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$
             begin insert into counter values ('settle ' || current_user, 1) on conflict do nothing; perform leave(); return null; end $$;
             create or replace function tally.leave() returns void language sql as $$
                 select set_config('search_path', 'tally, pg_catalog', false), set_config('statement_timeout', '1', false), pg_advisory_lock(7) $$;
             create or replace function tally.holds() returns boolean language sql as $$ select leave(); select current_user like 'rowbeat%' $$;",
        )
        .append(
            "plugin.toml",
            "[[task]]\nname = \"tally.ask\"\nexecutor = \"http\"\nplan_function = \"tally.plan\"\nsettle_function = \"tally.settle\"\nrequires = [\"tally.gold\"]\n
             [[feature]]\nname = \"tally.gold\"\ncondition = \"tally.holds\"\n",
        )
        .install(&db)
        .ok();
    let daemon = db.daemon().ready().await;
    db.run("select rowbeat.enqueue('tally.ask')").await;
    db.until("exists (select from rowbeat.tasks where state = 'completed')").await;
    let who: Vec<String> = db.get("select array_agg(what order by what) from tally.counter").await;
    let role = format!("rowbeat_{}_tally", db.name);
    assert_eq!(who, [format!("plan {role}"), format!("settle {role}")]);
    db.until("not exists (select from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() where locktype = 'advisory' and objid = 7)").await;
    // A limit of a millisecond in the daemon's own sessions would show.
    db.run("select rowbeat.enqueue('tally.ask') from generate_series(1, 20)").await;
    db.until("(select count(*) from rowbeat.tasks where state = 'completed') = 21").await;
    assert!(!daemon.log().contains("statement timeout"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_create_roles_installs_isolated_and_one_that_may_not_says_so() {
    let db = TestDb::empty().await;
    for (right, isolated) in [("nocreaterole", false), ("createrole", true)] {
        let login = Login::new(&db, right).await;
        let role = &login.role;
        let run = |arguments: &[&str]| crate::cli::finish(login.command(), arguments, "");
        run(&["migrate"]).ok();
        let folder = burglar().append(
            "plugin.toml",
            "[[watch]]\nname = \"tally.w\"\ntable_name = \"tally.counter\"\noperations = [\"DELETE\"]\ndefinition = \"tally.try\"\n",
        );
        let said = run(&["plugin", "install", folder.path().to_str().unwrap(), "--test"]).ok();
        assert_eq!(said.contains("not isolated"), !isolated, "{said}");
        assert_eq!(run(&["plugin", "list", "--json"]).json()[0]["isolated"], isolated);
        assert_eq!(run(&["status", "--json"]).json()["plugins"][0]["isolated"], isolated);
        let daemon = Daemon::start(login.command(), "", &[]).ready().await;
        let user = if isolated { format!("rowbeat_{}_tally", db.name) } else { role.clone() };
        assert_eq!(attempt(&db, "select current_user").await.unwrap(), user);
        drop(daemon);
        // A superuser may do with it what its owner may.
        rowbeat(&db, &["plugin", "remove", "tally", "--purge"]).ok();
        db.run(&format!("drop schema rowbeat cascade; drop owned by {role}; drop role {role}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_of_databases_still_give_every_plugin_a_role_of_its_own() {
    let db = TestDb::new().await;
    let names: Vec<String> = db
        .get("select array[rowbeat.plugin_role_name(repeat('a', 40)), rowbeat.plugin_role_name(repeat('a', 39) || 'b'),
                rowbeat.plugin_role_name('tally'), rowbeat.plugin_role_name(repeat('x', 70) || '1'), rowbeat.plugin_role_name(repeat('x', 70) || '2')]::text[]")
        .await;
    assert_eq!(names[2], format!("rowbeat_{}_tally", db.name));
    assert!(
        names.iter().all(|name| name.len() <= 63) && names[0] != names[1] && names[3] != names[4],
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_who_runs_it_is_refused() {
    let db = TestDb::new().await;
    Folder::tally()
        .append("functions/show.sql", "do $$ begin perform set_config('role', 'none', true); end $$;")
        .install(&db)
        .refused(1, &["functions/show.sql", "changed its role"]);
    Folder::tally()
        .append("functions/show.sql", "do $$ begin commit; end $$;")
        .install(&db)
        .refused(1, &["functions/show.sql: invalid transaction termination"]);
    Folder::tally()
        .append("functions/show.sql", "commit;")
        .install(&db)
        .refused(1, &["functions/show.sql line 5", "\"commit\" is not allowed"]);
    assert!(!db.get::<bool>("select to_regnamespace('tally') is not null").await);
}
