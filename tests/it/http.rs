//! The http executor, by a real daemon against real servers on the loopback: what is sent, what answers mean, tokens, plans.
//! Where requests may lead is in `http_guard`.

use std::path::{Path, PathBuf};

use ring::hmac;
use serde_json::{Value, json};

use crate::harness::TestDb;
use crate::web::{Web, answer};

/// A folder of secrets.
pub struct Secrets(tempfile::TempDir);

impl Secrets {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub fn key(name: &str, path: &Path) -> String {
    format!("{name} = \"{}\"\n", path.display())
}

/// Definitions of http, by their effects; three attempts with short pauses.
pub async fn define(db: &TestDb, effects: &[(&str, Value)]) {
    for (name, effect) in effects {
        let sql = "insert into rowbeat.task_definition (name, executor, effect, max_attempts, backoff) values ($1, 'http', $2, 3, '10 ms') returning name";
        db.get_with::<String>(sql, &[name, effect]).await;
    }
}

/// One task of each definition; waits until they have ended or failed once.
pub async fn run_all(db: &TestDb) {
    db.run("insert into rowbeat.task (definition) select name from rowbeat.task_definition order by name")
        .await;
    db.until("not exists (select from rowbeat.tasks where finished_at is null and failures = 0)").await;
}

pub async fn error(db: &TestDb, definition: &str) -> Value {
    db.get_with("select error from rowbeat.tasks where definition = $1", &[&definition]).await
}

#[tokio::test]
async fn a_request_carries_what_effect_and_connection_say() {
    let db = TestDb::new().await;
    let web = Web::start(|_, _| {
        answer(201, &[("content-type", "application/json"), ("set-cookie", "a=b")], "{\"id\": 9}")
    })
    .await;
    let secrets = Secrets::new();
    let config = web.connection(
        "shop",
        &[
            "auth = \"basic\"\nusername = \"me\"\nheaders = { X-Env = \"test\" }\n",
            &key("password_file", &secrets.file("password", "hunter2\n")),
            &format!("header_files = {{ X-Key = \"{}\" }}\n", secrets.file("key", "hunter3").display()),
            &key("signature_secret_file", &secrets.file("hmac", "hunter4")),
        ]
        .concat(),
    );
    define(&db, &[("order", json!({ "connection": "shop", "path": "/v1/orders", "query": { "dry": true }, "headers": { "X-Own": "1" }, "body": { "a": [1, "ü"] } }))]).await;
    let daemon = db.daemon_with(&config, &[]).ready().await;
    let id: i64 = db.get("select rowbeat.enqueue('order')").await;
    db.until("select state = 'completed' from rowbeat.tasks").await;
    let result: Value = db.get("select result from rowbeat.tasks").await;
    assert_eq!((&result["status"], &result["body"]), (&json!(201), &json!({ "id": 9 })));
    assert_eq!(result["headers"]["content-type"], "application/json");
    assert_eq!(result["headers"]["set-cookie"], Value::Null, "cookies are secrets");

    let seen = &web.seen()[0];
    assert_eq!(seen.line, "POST /v1/orders?dry=true");
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), json!({ "a": [1, "ü"] }));
    assert_eq!(seen.header("idempotency-key"), format!("rowbeat-{id}-1"));
    assert_eq!([seen.header("rowbeat-task"), seen.header("rowbeat-attempt")], [&id.to_string(), "1"]);
    assert_eq!([seen.header("x-env"), seen.header("x-key"), seen.header("x-own")], ["test", "hunter3", "1"]);
    assert_eq!(seen.header("authorization"), "Basic bWU6aHVudGVyMg==");
    let signature = seen.header("rowbeat-signature");
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let signed = [time.as_bytes(), b".", &seen.body[..]].concat();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, b"hunter4"), &signed, &bytes).unwrap();
    assert!(!daemon.log().contains("hunter"), "no secret is logged");
}

#[tokio::test]
async fn what_is_secret_of_an_exchange_is_not_kept() {
    let db = TestDb::new().await;
    let web = Web::start(|seen, count| match (seen.line.as_str(), count) {
        ("PUT /users", 1) => answer(503, &[], "no: hunter2"),
        _ => answer(200, &[("location", "/users/hunter2")], &String::from_utf8_lossy(&seen.body)),
    })
    .await;
    db.run(
        r#"create table public.step (effect jsonb, response jsonb);
         create function public.plan(task jsonb, responses jsonb[]) returns jsonb language plpgsql as $$
         begin
             insert into public.step select s.effect, s.response from rowbeat.step s where s.task_id = (task ->> 'id')::bigint and s.step = cardinality(responses);
             return case cardinality(responses)
                 when 0 then '{"method": "PUT", "path": "/users", "body": {"password": "hunter2"}, "secret": ["request", "response"]}'::jsonb
                 when 1 then '{"path": "/found", "body": 7, "query": {"password": "hunter2"}, "secret": ["request"]}' end;
         end $$;
         insert into rowbeat.task_definition (name, executor, effect, plan_function, max_attempts, backoff) values ('make', 'http', '{"connection": "shop"}', 'public.plan', 3, '10 ms')"#,
    )
    .await;
    define(&db, &[("wrong", json!({ "connection": "shop", "secret": true }))]).await;
    let daemon = db.daemon_with(&web.connection("shop", ""), &[]).ready().await;
    run_all(&db).await;
    db.until("(select state = 'completed' from rowbeat.tasks where definition = 'make')").await;
    assert!(error(&db, "wrong").await["message"].as_str().unwrap().contains("effect of http"));
    let kept: Value =
        db.get("select jsonb_agg(jsonb_build_array(effect, response - 'headers')) from public.step").await;
    assert_eq!(
        kept,
        json!([
            [{ "connection": "shop", "secret": ["request", "response"] }, { "status": 200, "body": null }],
            [{ "connection": "shop", "secret": ["request"] }, { "status": 200, "body": 7 }]
        ])
    );
    let error: Value = db.get("select error from rowbeat.attempt where outcome = 'failed' and task_id in (select id from rowbeat.tasks where definition = 'make')").await;
    assert_eq!((&error["status"], &error["body"]), (&json!(503), &json!("")));
    assert!(!daemon.log().contains("hunter"));
    assert!(
        web.seen().iter().any(|seen| seen.line == "POST /found?password=hunter2"),
        "it is sent all the same"
    );
}

#[tokio::test]
async fn the_status_decides_and_a_pause_that_is_asked_for_is_kept() {
    let db = TestDb::new().await;
    let web = Web::start(|seen, count| match (seen.line.as_str(), count) {
        ("GET /busy", 1) => answer(503, &[], "not now"),
        ("GET /busy", _) => answer(200, &[], ""),
        ("GET /later", _) => answer(429, &[("retry-after", "3600")], ""),
        ("GET /gone" | "GET /fine", _) => answer(404, &[], "no such thing"),
        ("GET /long", _) => answer(200, &[], &"x".repeat(2000)),
        other => panic!("{other:?}"),
    })
    .await;
    let get = |path: &str| json!({ "connection": "shop", "path": path });
    let fine = json!({ "connection": "shop", "path": "/fine", "ok": [404] });
    define(
        &db,
        &[
            ("busy", get("/busy")),
            ("later", get("/later")),
            ("gone", get("/gone")),
            ("fine", fine),
            ("long", get("/long")),
        ],
    )
    .await;
    let _daemon = db.daemon_with(&web.connection("shop", "max_response_bytes = 1000"), &[]).ready().await;
    run_all(&db).await;
    db.until("select state = 'completed' from rowbeat.tasks where definition = 'busy'").await;
    assert_eq!(
        db.get::<String>("select error ->> 'body' from rowbeat.attempt a where error ->> 'status' = '503'")
            .await,
        "not now"
    );
    assert!(db.get::<bool>("select state = 'retryable' and run_at > now() + interval '59 min' from rowbeat.tasks where definition = 'later'").await);
    let gone = error(&db, "gone").await;
    assert_eq!((&gone["status"], &gone["body"]), (&json!(404), &json!("no such thing")));
    assert_eq!(gone["message"], format!("GET http://{}/gone: 404 Not Found", web.address));
    assert_eq!(
        db.get::<String>("select outcome from rowbeat.tasks where definition = 'gone'").await,
        "rejected"
    );
    assert_eq!(
        db.get::<String>("select result ->> 'body' from rowbeat.tasks where definition = 'fine'").await,
        "no such thing"
    );
    assert!(error(&db, "long").await["message"].as_str().unwrap().contains("longer than 1000 bytes"));
    assert_eq!(
        db.get::<String>("select outcome from rowbeat.tasks where definition = 'long'").await,
        "rejected"
    );
}

#[tokio::test]
async fn a_token_is_fetched_kept_and_renewed_once_when_it_is_refused() {
    let db = TestDb::new().await;
    let web = Web::start(|seen, count| match seen.line.as_str() {
        "POST /token" => {
            answer(200, &[], &format!("{{\"access_token\": \"t{count}\", \"expires_in\": 3600}}"))
        }
        "POST /broken" => answer(401, &[], "{\"error\": \"invalid_client\", \"echo\": \"hunter2\"}"),
        _ if seen.header("authorization") == "Bearer t1" && count > 2 => answer(401, &[], ""),
        "GET /never" => answer(401, &[], ""),
        _ => answer(200, &[], ""),
    })
    .await;
    let secrets = Secrets::new();
    let oauth2 = |path: &str, more: &str| {
        let secret = key("client_secret_file", &secrets.file("secret", "hunter2"));
        format!(
            "auth = \"oauth2\"\ntoken_url = \"http://{}{path}\"\nclient_id = \"me\"\n{secret}{more}",
            web.address
        )
    };
    let more = "scope = \"pay\"\ntoken_params = { audience = \"x\" }\ntoken_headers = { X-Env = \"test\" }\n";
    let config = web.connection("momo", &oauth2("/token", more))
        + &web.connection("body", &oauth2("/token", "client_auth = \"body\"\n"))
        + &web.connection("broken", &oauth2("/broken", ""));
    define(&db, &[("pay", json!({ "connection": "momo", "path": "/pay" }))]).await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    for expected in 1..=4 {
        db.run("insert into rowbeat.task (definition) values ('pay')").await;
        db.until(&format!("select count(*) = {expected} from rowbeat.tasks where state = 'completed'")).await;
    }
    // The third request was refused and repeated with a new token, in the same attempt.
    let lines = web.lines();
    assert_eq!(
        lines,
        ["POST /token", "GET /pay", "GET /pay", "GET /pay", "POST /token", "GET /pay", "GET /pay"]
    );
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.attempt").await, 0);
    let token = &web.seen()[0];
    assert_eq!(token.body, "grant_type=client_credentials&scope=pay&audience=x");
    assert_eq!([token.header("authorization"), token.header("x-env")], ["Basic bWU6aHVudGVyMg==", "test"]);

    define(
        &db,
        &[
            ("a_body", json!({ "connection": "body", "path": "/pay" })),
            ("broken", json!({ "connection": "broken" })),
            ("never", json!({ "connection": "momo", "path": "/never" })),
        ],
    )
    .await;
    db.run("insert into rowbeat.task (definition) values ('a_body'), ('broken'), ('never')").await;
    db.until("select count(*) = 3 from rowbeat.tasks where finished_at is not null and definition <> 'pay'")
        .await;
    assert!(
        web.seen()
            .iter()
            .any(|seen| seen.body == "grant_type=client_credentials&client_id=me&client_secret=hunter2")
    );
    let broken = error(&db, "broken").await.to_string();
    assert!(
        broken.contains("no token from POST")
            && broken.contains("invalid_client")
            && !broken.contains("hunter2"),
        "{broken}"
    );
    assert_eq!(
        db.get::<String>("select outcome from rowbeat.tasks where definition = 'broken'").await,
        "failed",
        "retried, not rejected"
    );
    assert_eq!(
        web.lines().iter().filter(|line| *line == "GET /never").count(),
        2,
        "renewed once, not for ever"
    );
}

#[tokio::test]
async fn a_plan_asks_twice_and_settle_sees_both_answers() {
    let db = TestDb::new().await;
    let web = Web::start(|seen, _| match seen.line.as_str() {
        "GET /holder/active" => answer(200, &[("content-type", "application/json")], "{\"result\": true}"),
        "POST /pay" => answer(409, &[], "accepted before"),
        other => panic!("{other}"),
    })
    .await;
    db.run(
        "create function public.plan(task jsonb, responses jsonb[]) returns jsonb language sql as $$ select case cardinality(responses)
            when 0 then '{\"path\": \"/holder/active\"}'::jsonb
            when 1 then jsonb_build_object('path', '/pay', 'method', 'POST', 'ok', jsonb_build_array(202, 409), 'headers', jsonb_build_object('X-Reference-Id', task -> 'payload' ->> 'reference')) end $$;
         create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language sql as $$
            select jsonb_build_object('outcome', outcome -> 'outcome', 'active', responses[1] -> 'body' -> 'result', 'pay', responses[2] -> 'status') $$;
         insert into rowbeat.task_definition (name, executor, effect, plan_function, settle_function) values ('pay', 'http', '{\"connection\": \"momo\"}', 'public.plan', 'public.settle');",
    )
    .await;
    let _daemon = db.daemon_with(&web.connection("momo", ""), &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('pay', '{\"reference\": \"r-1\"}')").await;
    db.until("select state = 'completed' from rowbeat.tasks").await;
    assert_eq!(
        db.get::<Value>("select result from rowbeat.tasks").await,
        json!({ "outcome": "done", "active": true, "pay": 409 })
    );
    let seen = web.seen();
    assert_eq!(seen[1].header("x-reference-id"), "r-1");
    assert!(
        seen[0].header("idempotency-key").ends_with("-1")
            && seen[1].header("idempotency-key").ends_with("-2")
    );
}
