//! Executors: programs, Rust handlers, and the plan → perform → settle protocol.

use std::time::Duration;

use rowbeat::config::{Config, Environment};
use rowbeat::daemon::Daemon;
use rowbeat::executor::Failure;
use rowbeat::executor::native::Handlers;
use rowbeat::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::harness::{TestDb, server};

const PROGRAMS: &str = r#"
[programs.echo]
path = "/bin/sh"
args = ["-c", "read line; echo \"{\\\"got\\\": $line, \\\"task\\\": $ROWBEAT_TASK_ID, \\\"key\\\": \\\"$ROWBEAT_IDEMPOTENCY_KEY\\\", \\\"args\\\": \\\"$*\\\", \\\"home\\\": \\\"$HOME\\\"}\"", "sh"]

[programs.fail]
path = "/bin/sh"
args = ["-c", "echo partial; echo so wrong >&2; exit 3"]

[programs.hang]
path = "/bin/sh"
args = ["-c", "sleep 600 & echo $! > \"$PIDFILE\"; wait"]
env = { PIDFILE = "@PIDFILE@" }

[programs.noise]
path = "/bin/sh"
args = ["-c", "head -c 3000000 /dev/zero | tr '\\0' x"]

[programs.nul]
path = "/bin/echo"
args = ['"a\u0000b"']
"#;

#[tokio::test]
async fn a_program_gets_json_and_its_output_is_the_result() {
    let db = TestDb::new().await;
    db.run(r#"insert into rowbeat.task_definition (name, executor, effect) values ('echo', 'exec', '{"program": "echo", "args": ["one", "$(two)"]}')"#).await;
    let _daemon = db.daemon_with(PROGRAMS, &[("SECRET", "leaks")]).ready().await;
    let id: i64 = db.get("select rowbeat.enqueue('echo', '{\"a\": 1}')").await;
    db.until("select state = 'completed' from rowbeat.tasks").await;
    let result: Value = db.get("select result from rowbeat.tasks").await;
    let key = format!("rowbeat-{id}-1");
    assert_eq!(
        result,
        json!({ "got": { "a": 1 }, "task": id, "key": key, "args": "one $(two)", "home": "" })
    );
}

#[tokio::test]
async fn failures_of_programs_are_kept_and_only_allowed_programs_run() {
    let db = TestDb::new().await;
    db.run(
        r#"insert into rowbeat.task_definition (name, executor, effect, max_attempts) values
             ('fail', 'exec', '{"program": "fail"}', 1), ('noise', 'exec', '{"program": "noise"}', 1), ('nul', 'exec', '{"program": "nul"}', 1),
             ('other', 'exec', '{"program": "not-allowed"}', 1);
           insert into rowbeat.task (definition) values ('fail'), ('noise'), ('nul'), ('other');"#,
    )
    .await;
    let daemon = db.daemon_with(PROGRAMS, &[]).ready().await;
    db.until("select count(*) = 3 from rowbeat.tasks where finished_at is not null").await;
    let error: Value = db.get("select error from rowbeat.tasks where definition = 'fail'").await;
    assert_eq!(error["stderr"], "so wrong");
    assert!(error["message"].as_str().unwrap().contains("exit status: 3"), "{error}");
    let kept: i32 =
        db.get("select length(result #>> '{}') from rowbeat.tasks where definition = 'noise'").await;
    assert_eq!(kept, 1024 * 1024);
    // A result that jsonb cannot hold is a failure that says so, not a stuck task.
    let error: Value = db.get("select error from rowbeat.tasks where definition = 'nul'").await;
    assert!(error["message"].as_str().unwrap().contains("could not be recorded"), "{error}");
    // A node without the program leaves the task to others, unharmed.
    assert_eq!(
        db.get::<String>("select state || attempt from rowbeat.tasks where definition = 'other'").await,
        "available0"
    );
    daemon.says("leaves them to others").await;
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let db = TestDb::new().await;
    let folder = tempfile::tempdir().unwrap();
    let pidfile = folder.path().join("pid");
    db.run(r#"insert into rowbeat.task_definition (name, executor, effect, timeout, max_attempts) values ('hang', 'exec', '{"program": "hang"}', '700 ms', 1)"#).await;
    let _daemon =
        db.daemon_with(&PROGRAMS.replace("@PIDFILE@", pidfile.to_str().unwrap()), &[]).ready().await;
    db.run("insert into rowbeat.task (definition) values ('hang')").await;
    db.until("select outcome = 'timed_out' from rowbeat.tasks").await;
    let pid: i32 = std::fs::read_to_string(pidfile).unwrap().trim().parse().unwrap();
    let begun = std::time::Instant::now();
    let gone = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while !gone(pid) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the program's child {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs an embedding program's daemon until the condition holds.
pub(crate) async fn with_handlers(db: &TestDb, handlers: Handlers, condition: &str) {
    with_programs(db, "", handlers, condition).await;
}

/// The same with programs.
pub(crate) async fn with_programs(db: &TestDb, programs: &str, handlers: Handlers, condition: &str) {
    let url = server().url(&db.name);
    let environment = Environment::from_variables([("DATABASE_URL", url.as_str()), ("USER", "postgres")]);
    let config = Config::from_text(
        &format!("{programs}\n[http]\nlisten = \"off\""),
        std::path::Path::new("test.toml"),
        &environment,
    )
    .unwrap();
    let shutdown = Shutdown::new();
    let daemon = Daemon::new(config).with_handlers(handlers).run(shutdown.clone());
    let watched = async {
        db.until(condition).await;
        shutdown.drain.cancel();
    };
    let (ended, ()) = tokio::join!(daemon, watched);
    ended.unwrap();
}

#[tokio::test]
async fn rust_handlers_perform_native_tasks_and_panics_are_contained() {
    let db = TestDb::new().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor, max_attempts, timeout, backoff) values ('double', 'native', 3, '1 min', '50 ms'), ('panic', 'native', 1, '1 min', '1 s'),
             ('slow', 'native', 1, '100 ms', '1 s'), ('no', 'native', 3, '1 min', '1 s'), ('later', 'native', 1, '1 min', '1 s'), ('stranger', 'native', 1, '1 min', '1 s');
         insert into rowbeat.task (definition, payload) values ('double', '21'), ('panic', '0'), ('slow', '0'), ('no', '0'), ('later', '0'), ('stranger', '0');",
    )
    .await;
    let handlers = Handlers::new()
        .with("double", |effect| async move {
            if effect.task.attempt == 1 {
                return Err(Failure::retry("once more"));
            }
            Ok(json!(effect.task.payload.as_i64().unwrap() * 2))
        })
        .with("panic", |effect| async move {
            assert!(effect.step > 1, "so {}", "sad");
            Ok(Value::Null)
        })
        .with("slow", |_| async {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(Value::Null)
        })
        .with("no", |_| async { Err(Failure::reject("never")) })
        .with("later", |effect| async move {
            if effect.task.attempt < 3 {
                return Err(Failure::Snooze(Duration::from_millis(20)));
            }
            Ok(json!("at last"))
        });
    with_handlers(&db, handlers, "select count(*) = 5 from rowbeat.finished_task").await;
    let ended: Value = db
        .get("select jsonb_object_agg(definition, jsonb_build_array(state, outcome, coalesce(result, error -> 'message'), failures)) from rowbeat.tasks")
        .await;
    assert_eq!(ended["double"], json!(["completed", "done", 42, 1]));
    assert_eq!(ended["panic"], json!(["failed", "failed", "panicked: so sad", 1]));
    assert_eq!(ended["slow"], json!(["failed", "timed_out", "took longer than 100 ms", 1]));
    assert_eq!(ended["no"], json!(["failed", "rejected", "never", 1]));
    assert_eq!(ended["later"], json!(["completed", "done", "at last", 0]));
    assert_eq!(ended["stranger"], json!(["available", null, null, 0]));
}

const PLANNED: &str = "
    create table public.settled (task bigint, outcome jsonb, responses jsonb[]);
    create function public.plan(task jsonb, responses jsonb[]) returns jsonb language sql as $$
        select case when cardinality(responses) < (task -> 'payload' ->> 'steps')::int
            then jsonb_build_object('input', cardinality(responses) + 1) end $$;
    create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
        insert into public.settled values ((task ->> 'id')::bigint, outcome, responses);
        if task -> 'payload' ->> 'raise' = outcome ->> 'outcome' and (task ->> 'attempt')::int = 1 then raise exception 'not yet'; end if;
        return case when outcome ->> 'outcome' = 'done' then jsonb_build_object('sum', (select sum((r)::int) from unnest(responses) r)) end; end $$;
    insert into rowbeat.task_definition (name, executor, plan_function, settle_function, effect, backoff, max_attempts)
        values ('planned', 'native', 'public.plan', 'public.settle', '{\"base\": true}', '20 ms', 3);";

#[tokio::test]
async fn plan_perform_settle_runs_each_step_once_and_a_retry_resumes() {
    let db = TestDb::new().await;
    db.run(PLANNED).await;
    db.run("insert into rowbeat.task (definition, payload) values ('planned', '{\"steps\": 3}'), ('planned', '{\"steps\": 2, \"raise\": \"done\"}'), ('planned', '{\"steps\": 17}')").await;
    let performed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = performed.clone();
    let handlers = Handlers::new().with("planned", move |effect| {
        let performed = kept.clone();
        async move {
            assert_eq!(effect.spec["base"], true, "the plan is laid over the definition's effect");
            performed.lock().unwrap().push((effect.task.id, effect.step, effect.task.attempt));
            if (effect.task.id, effect.step, effect.task.attempt) == (1, 2, 1) {
                return Err(Failure::retry("second step stumbles"));
            }
            Ok(effect.spec["input"].clone())
        }
    });
    with_handlers(&db, handlers, "select count(*) = 3 from rowbeat.finished_task").await;
    let mut performed = performed.lock().unwrap().clone();
    performed.sort_unstable();
    let of = |id: i64| {
        performed
            .iter()
            .filter(|(task, ..)| *task == id)
            .map(|(_, step, attempt)| (*step, *attempt))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(1), [(1, 1), (2, 1), (2, 2), (3, 2)], "the first step is not performed again");
    assert_eq!(of(2), [(1, 1), (2, 1)], "a settle that raises does not repeat effects");
    let ended: Value = db.get("select jsonb_object_agg(id, jsonb_build_array(state, outcome, result, attempt)) from rowbeat.tasks").await;
    assert_eq!(ended["1"], json!(["completed", "done", { "sum": 6 }, 2]));
    assert_eq!(ended["2"], json!(["completed", "done", { "sum": 3 }, 2]));
    assert_eq!(ended["3"], json!(["failed", "rejected", null, 1]), "more than 16 effects");
    let settled: Vec<String> = db.get("select array_agg(outcome ->> 'outcome' || cardinality(responses) order by outcome ->> 'outcome', cardinality(responses)) from public.settled where task = 1").await;
    assert_eq!(settled, ["done3", "failed1"], "settle runs for every ended attempt");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.step").await, 0, "steps go with the task");
    let error: String = db.get("select error ->> 'message' from rowbeat.attempt where task_id = 2").await;
    assert_eq!(error, "settle: not yet");
}

#[tokio::test]
async fn a_sql_task_whose_settle_raises_has_done_nothing_and_is_retried() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
             if outcome ->> 'outcome' = 'done' and (task ->> 'attempt')::int = 1 then raise exception 'not yet'; end if; return null; end $$;
         update rowbeat.task_definition set settle_function = 'public.settle', backoff = '20 ms';",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.run("select rowbeat.enqueue('add_effect')").await;
    db.until("select state = 'completed' and attempt = 2 from rowbeat.tasks").await;
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 1, "exactly once");
    let error: String = db.get("select error ->> 'message' from rowbeat.attempt").await;
    assert_eq!(error, "settle: not yet");
}

#[tokio::test]
async fn settle_hears_of_lost_and_cancelled_attempts_too() {
    let db = TestDb::new().await;
    db.run(PLANNED).await;
    db.run(
        "insert into rowbeat.node (name, version, process_id, started_at, heartbeat_at, lease) values ('gone', '0', 1, now(), now() - interval '1 hour', '15 s');
         insert into rowbeat.task (definition, payload) values ('planned', '{\"steps\": 1}'), ('planned', '{\"steps\": 1, \"raise\": \"cancelled\"}');
         update rowbeat.task set state = 'running', attempt = 1, claimed_by = 1, claimed_at = now();
         update rowbeat.task set cancel_requested_at = now() where id = 2;
         select rowbeat.rescue_lost();",
    )
    .await;
    let settled: Vec<String> =
        db.get("select array_agg(task || (outcome ->> 'outcome') order by task) from public.settled").await;
    assert_eq!(settled, ["1lost"], "the second raised: its own writes are gone");
    assert_eq!(
        db.get::<String>("select state from rowbeat.tasks where id = 2").await,
        "cancelled",
        "and still the attempt ends"
    );
    let error: Value = db.get("select error from rowbeat.tasks where id = 2").await;
    assert_eq!(error["settle"], "not yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sql_task_whose_row_changes_while_it_runs_takes_effect_once() {
    let db = TestDb::new().await;
    db.run(
        "create table public.effect (task_id bigint);
         create function public.linger(payload jsonb) returns integer language plpgsql as $$ begin
             insert into public.effect values (current_setting('rowbeat.task_id')::bigint); perform pg_sleep(1); return 7; end $$;
         insert into rowbeat.task_definition (name, executor, function, keep) values
             ('kept', 'sql', 'public.linger', 'all'), ('forgotten', 'sql', 'public.linger', 'none');
         insert into rowbeat.task (definition) values ('kept'), ('forgotten')",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    let calls = "(select count(*) = 2 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')";
    db.until(calls).await;
    db.run("update rowbeat.task set priority = 3").await;
    assert!(db.get(&format!("select {calls}")).await, "both still ran");
    db.until("not exists (select from rowbeat.task)").await;
    let effects: Value =
        db.get("select jsonb_build_array(count(*), count(distinct task_id)) from public.effect").await;
    assert_eq!(effects, json!([2, 2]));
    let kept: Value =
        db.get("select jsonb_build_array(result, priority, outcome) from rowbeat.finished_task").await;
    assert_eq!(kept, json!([7, 3, "done"]));
}
