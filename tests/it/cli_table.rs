//! `rowbeat task`, `schedule` and `watch` against a database.

use serde_json::{Value, json};

use crate::cli::{bare, finish, rowbeat};
use crate::harness::{TestDb, server};

const DEFINITION_HINT: &str = "insert into rowbeat.task_definition (name, executor, function)";

#[tokio::test]
async fn a_task_is_enqueued_with_json_from_the_argument_or_standard_input() {
    let db = TestDb::new().await.with_effects().await;
    assert_eq!(rowbeat(&db, &["task", "enqueue", "add_effect", r#"{"x": 1}"#]).ok(), "task 1\n");
    let piped = finish(
        server().rowbeat(&db.name),
        &["task", "enqueue", "add_effect", "-", "--priority", "-5", "--unique-key", "k", "--json"],
        "{\"x\": 2}\n",
    );
    let id = piped.json()["id"].as_i64().unwrap();
    let task: Value = db.get_with("select to_jsonb(t) from rowbeat.tasks t where id = $1", &[&id]).await;
    assert_eq!((&task["payload"], &task["priority"]), (&json!({ "x": 2 }), &json!(-5)));
    let again = rowbeat(&db, &["task", "enqueue", "add_effect", "{}", "--unique-key", "k", "--json"]);
    assert_eq!(again.json()["id"], id, "the key is held");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks").await, 2);
}

#[tokio::test]
async fn bad_json_and_unknown_definitions_are_refused_and_nothing_is_written() {
    let db = TestDb::new().await.with_effects().await;
    rowbeat(&db, &["task", "enqueue", "add_effect", "{x: 1}"])
        .refused(2, &["the payload is no JSON", "'{\"x\": 1}'"]);
    finish(server().rowbeat(&db.name), &["task", "enqueue", "add_effect", "-"], "").refused(2, &["no JSON"]);
    let unknown = "task definition \"add efect)\" does not exist";
    for arguments in [
        &["task", "enqueue", "add efect)"][..],
        &["schedule", "add", "s", "@daily", "add efect)"],
        &["watch", "add", "public.effect", "--definition", "add efect)"],
    ] {
        rowbeat(&db, arguments).refused(1, &[unknown, DEFINITION_HINT]);
    }
    let rows = "select (select count(*) from rowbeat.tasks) + (select count(*) from rowbeat.schedule) + (select count(*) from rowbeat.watch)";
    assert_eq!(db.get::<i64>(rows).await, 0);
}

#[tokio::test]
async fn waiting_for_a_task_shows_it_and_tells_success_from_failure() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon().ready().await;
    let done = rowbeat(&db, &["task", "enqueue", "add_effect", r#"{"x": 1}"#, "--wait", "--json"]);
    assert_eq!((done.code, &done.json()["state"]), (Some(0), &json!("completed")));
    assert_eq!(done.json()["result"], json!({ "x": 1 }));
    let failed =
        rowbeat(&db, &["task", "enqueue", "add_effect", r#"{"x": "y"}"#, "--max-attempts", "1", "--wait"]);
    failed.refused(1, &["is failed"]);
    assert!(failed.out.contains("invalid input syntax"), "{failed:?}");
}

#[tokio::test]
async fn tasks_are_listed_by_state_and_definition() {
    let db = TestDb::new().await.with_effects().await;
    assert_eq!(rowbeat(&db, &["task", "list", "--json"]).json(), json!([]));
    db.run(
        "insert into rowbeat.task_definition (name, executor, function) values ('other', 'sql', 'public.add_effect');
         insert into rowbeat.task (definition, run_at) values ('add_effect', null), ('other', '2100-01-31 10:00:00.123+00');
         select rowbeat.cancel(rowbeat.enqueue('add_effect'));",
    )
    .await;
    let ids = |arguments: &[&str]| -> Vec<i64> {
        let mut all = vec!["task", "list", "--json"];
        all.extend(arguments);
        rowbeat(&db, &all)
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["id"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(ids(&[]), [3, 2, 1], "the latest first");
    assert_eq!(ids(&["--limit", "1"]), [3]);
    assert_eq!(ids(&["--state", "available"]), [1]);
    assert_eq!(ids(&["--state", "scheduled"]), [2]);
    assert_eq!(ids(&["--state", "cancelled", "--definition", "add_effect"]), [3]);
    assert_eq!(ids(&["--definition", "nobody"]), [0; 0]);
    let text = rowbeat(&db, &["task", "list", "--definition", "other"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "ID  DEFINITION  STATE      QUEUE    FAILURES  CAUSE   RUN AT                ERROR",
            "2   other       scheduled  default  0/5       insert  2100-01-31T10:00:00Z"
        ]
    );
}

#[tokio::test]
async fn a_task_is_shown_cancelled_and_retried() {
    let db = TestDb::new().await.with_effects().await;
    rowbeat(&db, &["task", "enqueue", "add_effect", r#"{"x": 1}"#]).ok();
    assert_eq!(rowbeat(&db, &["task", "show", "1", "--json"]).json()["state"], "available");
    assert!(rowbeat(&db, &["task", "show", "1"]).ok().contains("definition    add_effect"));
    assert_eq!(rowbeat(&db, &["task", "cancel", "1"]).ok(), "task 1: cancelled\n");
    assert_eq!(
        rowbeat(&db, &["task", "cancel", "1", "--json"]).json(),
        json!({ "id": 1, "state": "cancelled" })
    );
    assert_eq!(rowbeat(&db, &["task", "retry", "1"]).ok(), "task 1 is due now\n");
    assert_eq!(db.get::<String>("select state from rowbeat.tasks where id = 1").await, "available");
    for command in ["show", "cancel", "retry"] {
        rowbeat(&db, &["task", command, "99"]).refused(1, &["task 99 does not exist", "keep_days"]);
    }
}

#[tokio::test]
async fn a_task_is_shown_with_its_earlier_attempts_and_steps() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon().ready().await;
    rowbeat(&db, &["task", "enqueue", "add_effect", r#"{"x": "y"}"#]).ok();
    db.until("exists (select from rowbeat.attempt)").await;
    db.run("insert into rowbeat.step (task_id, step, effect, response) values (1, 1, '{\"call\": \"a\"}', '{\"answer\": \"b\"}')").await;
    let text = rowbeat(&db, &["task", "show", "1"]).ok();
    for says in
        ["ATTEMPT  OUTCOME ", "\n1        failed ", "STEP  EFFECT", "{\"call\":\"a\"}", "{\"answer\":\"b\"}"]
    {
        assert!(text.contains(says), "{says}: {text}");
    }
    let task = rowbeat(&db, &["task", "show", "1", "--json"]).json();
    assert_eq!(task["attempts"][0]["attempt"], 1);
    assert_eq!(task["steps"][0]["step"], 1);
}

#[tokio::test]
async fn a_schedule_is_added_with_its_next_fires_listed_and_removed() {
    let db = TestDb::new().await.with_effects().await;
    assert_eq!(rowbeat(&db, &["schedule", "list", "--json"]).json(), json!([]));
    let add = ["schedule", "add", "nightly", "0 3 * * *", "add_effect", "--zone", "Europe/Paris"];
    let text = rowbeat(&db, &add).ok();
    let payload = "select payload from rowbeat.schedule";
    assert_eq!(db.get::<Value>(payload).await, json!({}));
    assert!(text.starts_with("schedule nightly; next fires:\nUTC "), "{text}");
    assert_eq!(text.matches(" 03:00:00 CE").count(), 5, "{text}");
    let mut changed = add.to_vec();
    changed.extend(["--start", "2060-06-01T00:00:00Z", "--payload", r#"{"x": 3}"#, "--json"]);
    let next = rowbeat(&db, &changed).json();
    assert_eq!(
        next["next"][0],
        json!({ "utc": "2060-06-01T01:00:00Z", "local": "2060-06-01 03:00:00 CEST", "note": null })
    );
    assert_eq!(db.get::<Value>(payload).await, json!({ "x": 3 }));
    let listed = rowbeat(&db, &["schedule", "list", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "the same name is the same schedule");
    assert_eq!((&listed[0]["name"], &listed[0]["time_zone"]), (&json!("nightly"), &json!("Europe/Paris")));
    assert!(rowbeat(&db, &["schedule", "list"]).ok().contains("nightly  add_effect  0 3 * * *"));
    rowbeat(&db, &["schedule", "remove", "nihgtly"])
        .refused(1, &["there is no schedule nihgtly", "schedule list"]);
    assert!(rowbeat(&db, &["schedule", "remove", "nightly"]).ok().starts_with("removed nightly"));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.schedule").await, 0);
}

#[tokio::test]
async fn every_choice_of_a_schedule_has_an_option() {
    let db = TestDb::new().await.with_effects().await;
    db.run("insert into rowbeat.calendar (name) values ('feasts')").await;
    let add = [
        "schedule",
        "add",
        "s",
        "every 1 hour",
        "add_effect",
        "--start",
        "2060-06-01T00:00:00Z",
        "--end",
        "2060-06-01T02:00:00Z",
        "--disabled",
        "--requires",
        "one,two",
        "--catch-up",
        "all",
        "--catch-up-window",
        "2 hours",
        "--overlap",
        "queue",
        "--jitter",
        "5 min",
        "--calendar",
        "feasts",
        "--queue",
        "slow",
        "--priority",
        "-3",
        "--json",
    ];
    let next = rowbeat(&db, &add).json();
    let times: Vec<&Value> = next["next"].as_array().unwrap().iter().map(|fire| &fire["utc"]).collect();
    assert_eq!(times, ["2060-06-01T00:00:00Z", "2060-06-01T01:00:00Z"], "the start is one, the end is none");
    let row: Value = db.get("select to_jsonb(s) from rowbeat.schedule s").await;
    for (column, value) in [
        ("enabled", json!(false)),
        ("one_shot", json!(false)),
        ("requires", json!(["one", "two"])),
        ("catch_up", json!("all")),
        ("catch_up_window", json!("02:00:00")),
        ("overlap", json!("queue")),
        ("jitter", json!("00:05:00")),
        ("calendar", json!("feasts")),
        ("queue", json!("slow")),
        ("priority", json!(-3)),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    let once = rowbeat(&db, &["schedule", "add", "s", "@daily", "add_effect", "--one-shot", "--json"]).json();
    assert_eq!(once["next"].as_array().unwrap().len(), 1);
    assert!(db.get::<bool>("select one_shot and enabled and overlap = 'allow' from rowbeat.schedule").await);
    let wrong = ["schedule", "add", "s", "@daily", "add_effect", "--jitter", "soon"];
    rowbeat(&db, &wrong).refused(1, &["soon"]);
    rowbeat(&db, &["schedule", "add", "s", "@daily", "add_effect", "--overlap", "maybe"])
        .refused(2, &["replace"]);
}

#[tokio::test]
async fn explain_tells_the_next_fires_what_is_in_the_way_and_the_latest_ones() {
    let db = TestDb::new().await.with_effects().await;
    rowbeat(&db, &["schedule", "explain", "nightly"])
        .refused(1, &["there is no schedule nightly", "schedule list"]);
    db.run(
        "select rowbeat.schedule('nightly', '0 3 * * *', 'add_effect', p_time_zone => 'Europe/Paris', p_requires => '{premium}');
         select rowbeat.pause('add_effect');
         insert into rowbeat.fire (schedule, nominal_at, decision, reason, fired_at)
             values ('nightly', '2026-10-25 02:00Z', 'skipped', 'a feast', now())",
    )
    .await;
    let reasons = |explained: &Value| -> Vec<String> {
        explained["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["reason"].as_str().unwrap().to_owned())
            .collect()
    };
    let explained = rowbeat(&db, &["schedule", "explain", "nightly", "--json"]).json();
    assert_eq!(
        reasons(&explained),
        ["being planned", "no daemon", "missing feature", "tasks: paused", "tasks: no node"]
    );
    assert_eq!((&explained["next"], &explained["fires"][0]["reason"]), (&json!([]), &json!("a feast")));
    let _daemon = db.daemon().ready().await;
    db.until("(select next_fire_at is not null from rowbeat.schedule)").await;
    let explained = rowbeat(&db, &["schedule", "explain", "nightly", "--json"]).json();
    assert_eq!(reasons(&explained), ["next fire", "missing feature", "tasks: paused"]);
    assert_eq!(explained["next"].as_array().unwrap().len(), 5);
    assert_eq!(explained["schedule"]["status"], "planned");
    let text = rowbeat(&db, &["schedule", "explain", "nightly"]).ok();
    for says in
        ["03:00:00 in Europe/Paris", "feature premium is not known", "next fires\nUTC", "skipped", "a feast"]
    {
        assert!(text.contains(says), "{says}: {text}");
    }
    db.run("update rowbeat.schedule set spec = 'at 2020-01-01 09:00', end_at = null").await;
    db.until("(select status = 'no more fires' from rowbeat.upcoming)").await;
    let explained = rowbeat(&db, &["schedule", "explain", "nightly", "--json"]).json();
    assert_eq!(explained["reasons"][0]["detail"], "its time is over");
    assert!(rowbeat(&db, &["status"]).ok().contains("zone data: schedules planned by 20"));
}

#[tokio::test]
async fn a_bad_spec_or_zone_is_refused_with_a_hint_and_nothing_is_written() {
    let db = TestDb::new().await.with_effects().await;
    for (spec, zone, says) in [
        ("0 3 * *", "UTC", &["has 4", "`0 9 * * mon-fri`"][..]),
        ("61 3 * * *", "UTC", &["`61` is out of range 0-59"]),
        ("0 0 31 2 *", "UTC", &["never occurs", "the month has"]),
        ("0 3 * * *", "Europe/Pariss", &["did you mean `Europe/Paris`?"]),
    ] {
        rowbeat(&db, &["schedule", "add", "s", spec, "add_effect", "--zone", zone]).refused(1, says);
        finish(bare(), &["schedule", "preview", spec, "--zone", zone], "").refused(1, says);
    }
    rowbeat(&db, &["schedule", "add", "s", "@daily", "add_effect", "--payload", "{x}"])
        .refused(2, &["--payload"]);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.schedule").await, 0);
}

fn preview(spec: &str, zone: &str, after: &str, more: &[&str]) -> Value {
    let mut arguments = vec!["schedule", "preview", spec, "--zone", zone, "--after", after, "--json"];
    arguments.extend(more);
    finish(bare(), &arguments, "").json()
}

#[test]
fn a_preview_needs_no_database() {
    let fires = preview("*/15 9-17 * * 1-5", "Europe/Paris", "2026-10-24T22:00:00Z", &["--count", "10"]);
    let expected: Vec<Value> = (0..10)
        .map(|n| {
            let (hour, minute) = (n / 4, n % 4 * 15);
            json!({
                "utc": format!("2026-10-26T{:02}:{minute:02}:00Z", 8 + hour),
                "local": format!("2026-10-26 {:02}:{minute:02}:00 CET", 9 + hour),
                "note": null
            })
        })
        .collect();
    assert_eq!(fires, Value::from(expected));
    assert_eq!(preview("at 2020-01-01 09:00", "UTC", "2026-01-01T00:00:00Z", &[]), json!([]));
    let over = ["schedule", "preview", "at 2020-01-01 09:00", "--after", "2026-01-01T00:00:00Z"];
    assert_eq!(finish(bare(), &over, "").ok(), "no more fires\n");
}

#[test]
fn a_preview_notes_the_changes_of_the_clock() {
    let twice = preview("30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", &["--count", "2"]);
    assert_eq!(twice[0]["utc"], "2026-10-25T00:30:00Z");
    assert!(twice[0]["note"].as_str().unwrap().contains("comes twice"), "{twice}");
    assert_eq!(twice[1]["note"], Value::Null);
    let never = preview("30 2 * * *", "Europe/Paris", "2026-03-28T12:00:00Z", &["--count", "1"]);
    assert_eq!(never[0]["utc"], "2026-03-29T01:00:00Z");
    assert!(never[0]["note"].as_str().unwrap().contains("does not exist"), "{never}");
}

const TRIGGERS: &str =
    "select count(*) from pg_trigger where tgrelid = 'public.effect'::regclass and not tgisinternal";

#[tokio::test]
async fn a_watch_is_planned_added_listed_removed_and_pruned() {
    let db = TestDb::new().await.with_effects().await;
    let add =
        ["watch", "add", "public.effect", "--definition", "add_effect", "--operations", "Insert,update"];
    let planned = rowbeat(&db, &[&add[..], &["--plan"]].concat()).ok();
    assert!(
        planned.contains("rowbeat_capture_insert") && planned.contains("lock: ShareRowExclusive"),
        "{planned}"
    );
    assert!(!planned.contains("rowbeat_capture_delete"), "{planned}");
    assert_eq!(db.get::<i64>(TRIGGERS).await, 0, "a plan changes nothing");
    assert_eq!(rowbeat(&db, &["watch", "list", "--json"]).json(), json!([]));

    let added = rowbeat(&db, &add).ok();
    assert_eq!(
        added,
        "watch add_effect_on_public.effect: changes of public.effect become add_effect tasks\n"
    );
    assert_eq!(db.get::<i64>(TRIGGERS).await, 2);
    let listed = rowbeat(&db, &["watch", "list", "--json"]).json();
    assert_eq!(listed[0]["operations"], json!(["INSERT", "UPDATE"]));
    assert!(rowbeat(&db, &["watch", "list"]).ok().contains("INSERT, UPDATE"));
    assert_eq!(rowbeat(&db, &["watch", "prune"]).ok(), "nothing to do\n");

    let name = "add_effect_on_public.effect";
    rowbeat(&db, &["watch", "remove", "nobody"]).refused(1, &["there is no watch nobody", "watch list"]);
    // A table that somebody reads keeps its triggers.
    let reader = db.session().await;
    reader.batch_execute("begin; select from public.effect").await.unwrap();
    assert_eq!(rowbeat(&db, &["watch", "remove", name, "--json"]).json(), json!({ "removed": name }));
    reader.batch_execute("rollback").await.unwrap();
    assert!(
        rowbeat(&db, &["watch", "prune", "--plan"])
            .ok()
            .ends_with("-- not done (--plan); lock: AccessExclusive (readers wait too), for a moment\n")
    );
    assert_eq!(db.get::<i64>(TRIGGERS).await, 2);
    let pruned = rowbeat(&db, &["watch", "prune", "--json"]).json();
    assert_eq!((&pruned["done"], pruned["statements"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(db.get::<i64>(TRIGGERS).await, 0);
    rowbeat(&db, &["watch", "add", "public.nowhere", "--definition", "add_effect"])
        .refused(1, &["\"public.nowhere\" does not exist"]);
}

#[tokio::test]
async fn watch_add_notify_installs_the_classic_trigger() {
    let db = TestDb::new().await;
    db.run("create table public.table_change_alert (id int)").await;
    let add = ["watch", "add", "public.table_change_alert", "--notify"];
    let planned = rowbeat(&db, &[&add[..], &["--plan", "--json"]].concat()).json();
    assert_eq!(planned["done"], false);
    let exists = "select count(*) from pg_trigger where tgname = 'table_change_alert_trigger'";
    assert_eq!(db.get::<i64>(exists).await, 0);
    assert!(rowbeat(&db, &add).ok().contains("-- done; lock: ShareRowExclusive"));
    assert_eq!(db.get::<i64>(exists).await, 1);
}
