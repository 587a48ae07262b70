//! `/status/tasks`: what operators see and may do there.

use serde_json::{Value, json};

use crate::endpoint::Site;
use crate::harness::TestDb;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_paused_and_edited_and_results_read_by_operators_only() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create function public.answer(payload jsonb) returns jsonb language sql as $$ select '{\"said\": \"<b>\"}'::jsonb $$;
         insert into rowbeat.task_definition (name, executor, function, keep) values ('answer', 'sql', 'public.answer', 'all');
         insert into rowbeat.schedule (name, definition, spec) values ('nightly', 'answer', '0 3 * * *');
         insert into rowbeat.task (definition) values ('answer')",
    )
    .await;
    let site = Site::new(&db, "").await;
    db.until("select exists (select from rowbeat.finished_task)").await;
    let seen = site.get("/status/tasks?definition=ans").await.json();
    assert_eq!(
        (&seen["schedules"][0]["name"], &seen["tasks"][0]["state"]),
        (&json!("nightly"), &json!("completed"))
    );
    assert_eq!(
        site.get("/status/tasks?definition=a_s").await.json(),
        json!({ "schedules": [], "tasks": [] })
    );
    let page = site.ask("GET", "/status/tasks", &["Accept: text/html"], b"").await.body;
    assert!(page.contains("0 3 * * *") && page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
    assert!(site.ask("GET", "/status", &["Accept: text/html"], b"").await.body.contains("/status/tasks"));

    let post = async |form: &str, header: &str| {
        site.ask("POST", "/status/tasks", &[FORM, header], form.as_bytes()).await
    };
    let paused = post("name=nightly&enabled=false", "X-Test: 1").await;
    assert_eq!((paused.status, paused.header("location")), (303, vec!["/status/tasks"]));
    let edited = post("name=nightly&spec=every+1+hour&time_zone=Europe%2FParis", "X-Test: 1").await;
    assert_eq!(edited.status, 303, "{edited:?}");
    let now: Value = db.get("select jsonb_build_array(enabled, spec, time_zone) from rowbeat.schedule").await;
    assert_eq!(now, json!([false, "every 1 hour", "Europe/Paris"]));
    for (form, header, status) in [
        ("name=nightly&spec=every+now", "X-Test: 1", 400),
        ("name=nightly&time_zone=Mars", "X-Test: 1", 400),
        ("name=nightly&enabled=maybe", "X-Test: 1", 400),
        ("enabled=true", "X-Test: 1", 400),
        ("name=weekly&enabled=true", "X-Test: 1", 404),
        ("name=nightly&enabled=true", "Origin: http://evil.example", 403),
        ("name=nightly&enabled=true", "X-Forwarded-For: 10.0.0.1", 401),
    ] {
        let answer = post(form, header).await;
        assert_eq!(answer.status, status, "{form} {header}: {answer:?}");
    }
    assert_eq!(site.ask("PUT", "/status/tasks/", &[], b"").await.status, 405);
    db.run("insert into rowbeat.token (name, digest, operator, plugins) values ('clerk', sha256('secret'), false, '{desk}')").await;
    let clerk = post("name=nightly&enabled=true", "Authorization: Bearer secret").await;
    assert_eq!(clerk.status, 403, "no operator: {clerk:?}");
    assert!(!db.get::<bool>("select enabled from rowbeat.schedule").await);
}
