//! What plan and settle functions can ask for beside effects: to be put off, to be cancelled, another executor, another pause.

use rowbeat::executor::Failure;
use rowbeat::executor::native::Handlers;
use serde_json::{Value, json};

use crate::executor::{with_handlers, with_programs};
use crate::harness::TestDb;

/// A definition whose plan and settle functions answer what the payload says, in order of the attempts.
const ANSWERING: &str = "
    create table public.asked (task bigint, by text, attempt int, responses jsonb[], outcome jsonb);
    create function public.plan(task jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
        insert into public.asked values ((task ->> 'id')::bigint, 'plan', (task ->> 'attempt')::int, responses);
        return coalesce(task -> 'payload' -> 'plan' -> ((task ->> 'attempt')::int - 1),
            case when cardinality(responses) < 2 then jsonb_build_object('input', cardinality(responses) + 1) end); end $$;
    create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$ begin
        insert into public.asked values ((task ->> 'id')::bigint, 'settle', (task ->> 'attempt')::int, responses, outcome);
        return task -> 'payload' -> 'settle' -> ((task ->> 'attempt')::int - 1); end $$;
    create function public.plain(payload jsonb) returns jsonb language sql as $$ select '\"ran\"'::jsonb $$;
    insert into rowbeat.task_definition (name, executor, plan_function, settle_function, function, max_attempts, backoff) values
        ('answering', 'native', 'public.plan', 'public.settle', null, 1, '1 min'), ('plain', 'sql', null, 'public.settle', 'public.plain', 1, '1 min');";

#[tokio::test]
async fn a_plan_or_settle_may_snooze_uncounted_or_cancel() {
    let db = TestDb::new().await;
    db.run(ANSWERING).await;
    db.run(
        r#"insert into rowbeat.task (definition, payload) values
             ('answering', '{"plan": [{"snooze": 0.05}, {"snooze": 0}]}'), ('answering', '{"plan": [{"cancel": "it is gone"}]}'),
             ('answering', '{"settle": [{"snooze": 0}, {"snooze": 0.01}]}'), ('answering', '{"settle": [{"cancel": "too late"}]}'),
             ('answering', '{"plan": [{"snooze": "soon"}]}'), ('answering', '{"settle": [{"snooze": -1}]}'),
             ('answering', '{"plan": [{"input": 1, "snooze": 7}]}'), ('answering', '{"fail": true, "settle": [{"snooze": 0}]}'),
             ('plain', '{"settle": [{"snooze": 0}]}'), ('plain', '{"settle": [{"cancel": "no"}]}')"#,
    )
    .await;
    let handlers = Handlers::new().with("answering", |effect| async move {
        if effect.task.payload["fail"] == true && effect.task.attempt == 1 {
            return Err(Failure::retry("stumbled"));
        }
        Ok(effect.spec["input"].clone())
    });
    with_handlers(&db, handlers, "select count(*) = 10 from rowbeat.finished_task").await;
    let ended: Value = db
        .get("select jsonb_object_agg(id, jsonb_build_array(state, attempt, failures, coalesce(error ->> 'message', result #>> '{}'))) from rowbeat.tasks")
        .await;
    assert_eq!(ended["1"], json!(["completed", 3, 0, "2"]), "put off twice by its plan, uncounted");
    assert_eq!(ended["2"], json!(["cancelled", 1, 0, "it is gone"]));
    assert_eq!(ended["3"], json!(["completed", 3, 0, "2"]), "put off twice by its settle");
    assert_eq!(ended["4"], json!(["cancelled", 1, 0, "too late"]));
    assert_eq!(ended["5"], json!(["failed", 1, 1, "snooze is a number of seconds from 0, not \"soon\""]));
    assert_eq!(ended["6"], json!(["failed", 1, 1, "settle: snooze is a number of seconds from 0, not -1"]));
    let endless = json!(["failed", 1, 1, "the plan has more than 16 effects"]);
    assert_eq!(ended["7"], endless, "what has such a key among others is an effect");
    assert_eq!(
        ended["8"],
        json!(["completed", 2, 0, "2"]),
        "a failure that its settle puts off is not counted"
    );
    assert_eq!(ended["9"], json!(["completed", 2, 0, "ran"]), "a sql task, too");
    assert_eq!(ended["10"], json!(["cancelled", 1, 0, "no"]));
    let outcomes: Vec<String> = db.get("select array_agg(outcome || coalesce(': ' || (error ->> 'message'), '') order by task_id, attempt) from rowbeat.attempt where task_id in (1, 3, 8)").await;
    assert_eq!(outcomes, ["snoozed", "snoozed", "snoozed", "snoozed", "snoozed: stumbled"]);
    let asked = |task: i64, by: &'static str| {
        let sql = format!(
            "select array_agg(format('%s:%s', attempt, cardinality(responses)) order by attempt, cardinality(responses)) from public.asked where task = {task} and by = '{by}'"
        );
        let db = &db;
        async move { db.get::<Vec<String>>(&sql).await }
    };
    assert_eq!(asked(1, "plan").await, ["1:0", "2:0", "3:0", "3:1", "3:2"], "what a plan wrote is kept");
    assert_eq!(asked(1, "settle").await, ["3:2"], "a snooze is not settled");
    assert_eq!(asked(2, "settle").await, ["1:0"], "a cancellation is");
    // After a settle that snoozes, the last effect is performed again, and no other.
    assert_eq!(asked(3, "plan").await, ["1:0", "1:1", "1:2", "2:1", "2:2", "3:1", "3:2"]);
}

#[tokio::test]
async fn a_task_that_is_being_cancelled_is_not_put_off() {
    let db = TestDb::new().await;
    db.run(ANSWERING).await;
    db.run(r#"insert into rowbeat.task (definition, payload) values ('answering', '{"settle": [{"snooze": 0}]}')"#).await;
    let handlers = Handlers::new().with("answering", |_| async { std::future::pending().await });
    let cancelled = async {
        db.until("select state = 'running' from rowbeat.task where exists (select from public.asked)").await;
        db.run("select rowbeat.cancel(1)").await;
    };
    let ended = with_handlers(&db, handlers, "select state = 'cancelled' from rowbeat.finished_task");
    tokio::join!(ended, cancelled);
    // Nor one whose effect was performed just before it was told.
    db.run(r#"insert into rowbeat.task (id, definition, payload) values (7, 'answering', '{"settle": [{"snooze": 0}]}')"#).await;
    let node: i64 = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
    db.run(&format!("select * from rowbeat.claim_tasks({node}, 10, 10, '{{*}}', '{{}}', null)")).await;
    assert_eq!(db.get::<String>("select rowbeat.cancel(7)").await, "cancelling");
    let ended = format!("select rowbeat.end_attempt(7, 1, {node}, 'done')");
    assert_eq!(db.get::<String>(&ended).await, "cancelled");
}

#[tokio::test]
async fn a_settle_says_when_a_failure_is_tried_again_also_of_what_was_rejected() {
    let db = TestDb::new().await;
    db.run(
        r#"create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language sql as $$
             select case when outcome ->> 'outcome' <> 'done' then jsonb_build_object('retry_after', task -> 'payload' -> 'after') end $$;
           insert into rowbeat.task_definition (name, executor, settle_function, max_attempts, backoff) values ('again', 'native', 'public.settle', 3, '1 hour');
           insert into rowbeat.task (definition, payload) values ('again', '{"after": 0}'), ('again', '{"after": 0, "reject": true}'), ('again', '{"after": 7200}'), ('again', '{"after": "x"}')"#,
    )
    .await;
    let handlers = Handlers::new().with("again", |effect| async move {
        if effect.task.payload["reject"] == true {
            Err(Failure::reject("no"))
        } else {
            Err(Failure::retry("not yet"))
        }
    });
    let ended = "select (select count(*) = 2 from rowbeat.finished_task) and (select count(*) = 2 from rowbeat.attempt where task_id in (3, 4))";
    with_handlers(&db, handlers, ended).await;
    let failed: Vec<String> = db.get("select array_agg(concat_ws(' ', state, failures, error ->> 'message') order by id) from rowbeat.tasks").await;
    assert_eq!(failed, ["failed 3 not yet", "failed 3 no", "retryable 1 not yet", "retryable 1 not yet"]);
    let pauses: Vec<f64> = db.get("select array_agg(extract(epoch from retry_at - ended_at)::float8 order by task_id) from rowbeat.attempt where task_id in (3, 4)").await;
    assert!((pauses[0] - 7200.0).abs() < 0.001, "{pauses:?}");
    assert!(
        (2800.0..4400.0).contains(&pauses[1]),
        "one that is no number leaves the definition's: {pauses:?}"
    );
    let said: String = db.get("select error ->> 'settle' from rowbeat.attempt where task_id = 4").await;
    assert!(said.contains("double precision"), "{said}");
}

#[tokio::test]
async fn a_plan_may_give_an_effect_to_another_executor() {
    let db = TestDb::new().await;
    db.run(
        r#"create function public.plan(task jsonb, responses jsonb[]) returns jsonb language sql as $$
             select case cardinality(responses) when 0 then task -> 'payload' when 1 then jsonb_build_object('mine', responses[1]) end $$;
           insert into rowbeat.task_definition (name, executor, effect, plan_function, max_attempts) values ('mixed', 'native', '{"base": 1}', 'public.plan', 1);
           insert into rowbeat.task (definition, payload) values
             ('mixed', '{"executor": "exec", "program": "bytes", "template": {"html": "<b>{{ name }}</b>"}, "data": {"name": "<Tom>"}, "output": "base64"}'),
             ('mixed', '{"executor": "exec", "program": "cat", "template": {"text": "{{ executor }}!"}}'),
             ('mixed', '{"executor": "exec", "program": "cat", "template": {"text": "{{ nobody }}"}}'),
             ('mixed', '{"executor": "exec", "program": "flood", "output": "base64"}'),
             ('mixed', '{"executor": "sql"}'), ('mixed', '{"executor": "magic"}'), ('mixed', '{"executor": 7}')"#,
    )
    .await;
    let programs = r#"
[programs.bytes]
path = "/bin/sh"
args = ["-c", "printf '\\000\\377'; cat"]
[programs.cat]
path = "/bin/cat"
[programs.flood]
path = "/bin/sh"
args = ["-c", "head -c 9000000 /dev/zero"]
"#;
    with_programs(
        &db,
        programs,
        Handlers::new().with("mixed", |effect| async move { Ok(effect.spec) }),
        "select count(*) = 7 from rowbeat.finished_task",
    )
    .await;
    let ended: Vec<Value> =
        db.get("select array_agg(coalesce(result, error -> 'message') order by id) from rowbeat.tasks").await;
    // A zero, 0xff and <b>&lt;Tom&gt;</b>.
    assert_eq!(ended[0], json!({ "base": 1, "mine": { "base64": "AP88Yj4mbHQ7VG9tJmd0OzwvYj4=" } }));
    assert_eq!(ended[1], json!({ "base": 1, "mine": "exec!" }), "the payload fills it when there is no data");
    assert_eq!(ended[2], json!("template text, line 1: undefined value, in `{{ nobody }}`"));
    assert_eq!(ended[3], json!("flood: its output has more than 8388608 bytes"));
    assert_eq!(ended[4], json!("a sql task has no effect outside the database"));
    assert_eq!(ended[5], json!("plan: there is no executor magic"));
    assert_eq!(ended[6], json!("plan: 7 is no executor's name"));
}
