//! Where the http executor's requests may lead: redirects, private addresses, authorities; all on the loopback.

use serde_json::json;

use crate::harness::TestDb;
use crate::http::{Secrets, define, error, key, run_all};
use crate::web::{Web, answer};

#[tokio::test]
async fn redirects_are_followed_as_allowed_and_never_take_credentials_elsewhere() {
    let db = TestDb::new().await;
    let other = Web::start(|_, _| answer(200, &[], "other")).await;
    let elsewhere = format!("http://{}/landed", other.address);
    let inside = elsewhere.replace("127.0.0.1", "localhost");
    let web = Web::start(move |seen, _| match seen.line.as_str() {
        "GET /here" | "POST /see" => {
            answer(if seen.line == "POST /see" { 303 } else { 302 }, &[("location", "/end?x=1")], "")
        }
        "GET /away" | "POST /away" => answer(307, &[("location", &elsewhere)], ""),
        "GET /inside" => answer(302, &[("location", &inside)], ""),
        "POST /lost" => answer(301, &[("location", "/end")], ""),
        "GET /loop" => answer(302, &[("location", "/loop")], ""),
        line if line.ends_with("/end?x=1") => answer(200, &[], "end"),
        other => panic!("{other}"),
    })
    .await;
    let secrets = Secrets::new();
    let token = "auth = \"bearer\"\nheaders = { X-Env = \"test\" }\n".to_owned()
        + &key("token_file", &secrets.file("token", "hunter2"));
    let config = web.connection("shop", &format!("redirects = 2\n{token}")) + &web.connection("none", &token);
    let get = |path: &str| json!({ "connection": "shop", "path": path, "headers": { "X-Own": "1" } });
    let post = |path: &str| json!({ "connection": "shop", "path": path, "body": 1 });
    define(
        &db,
        &[
            ("away", get("/away")),
            ("away_with_body", post("/away")),
            ("here", get("/here")),
            ("inside", get("/inside")),
            ("loop", get("/loop")),
            ("lost", post("/lost")),
            ("none", json!({ "connection": "none", "path": "/here" })),
            ("see", post("/see")),
        ],
    )
    .await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    run_all(&db).await;
    let body = "select result ->> 'body' from rowbeat.tasks where definition = ";
    for (definition, expected) in [("here", "end"), ("see", "end"), ("away", "other")] {
        assert_eq!(db.get::<String>(&format!("{body}'{definition}'")).await, expected);
    }
    let landed = other.seen();
    assert_eq!(landed.len(), 1, "no body went there, nor to a private name");
    for name in ["authorization", "x-env", "x-own", "idempotency-key", "rowbeat-task"] {
        assert_eq!(landed[0].header(name), "", "{name} went to another origin");
    }
    let followed = web.seen().into_iter().filter(|seen| seen.line == "GET /end?x=1");
    assert!(
        followed.clone().count() == 2
            && followed.clone().all(|seen| seen.header("authorization") == "Bearer hunter2")
    );
    for (definition, problem) in [
        ("none", "302 Found"),
        ("loop", "302 Found"),
        ("lost", "would turn POST into GET"),
        ("away_with_body", "take the body to another origin"),
        ("inside", "localhost has the address"),
    ] {
        let error = error(&db, definition).await;
        assert!(error["message"].as_str().unwrap().contains(problem), "{definition}: {error}");
    }
}

#[tokio::test]
async fn private_addresses_slow_servers_and_missing_connections_are_said_plainly() {
    let db = TestDb::new().await;
    // Takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = format!(
        "[connections.guarded]\ntype = \"http\"\nbase_url = \"http://localhost:{port}\"\n
         [connections.slow]\ntype = \"http\"\nbase_url = \"http://127.0.0.1:{port}\"\nallow_private_addresses = true\ntimeout = \"200ms\"\n"
    );
    define(
        &db,
        &[
            ("guarded", json!({ "connection": "guarded" })),
            ("slow", json!({ "connection": "slow" })),
            ("foreign", json!({ "connection": "elsewhere" })),
        ],
    )
    .await;
    db.run(
        "create function public.plan(task jsonb, responses jsonb[]) returns jsonb language sql as $$ select '{\"connection\": \"elsewhere\"}'::jsonb $$;
         insert into rowbeat.task_definition (name, executor, plan_function, max_attempts, backoff) values ('planned', 'http', 'public.plan', 3, '1 h');
         insert into rowbeat.task_definition (name, executor) values ('abroad', 'external');",
    )
    .await;
    let daemon = db.daemon_with(&config, &[]).ready().await;
    db.run("insert into rowbeat.task (definition) select name from rowbeat.task_definition").await;
    db.until("select count(*) = 3 from rowbeat.tasks where failures > 0 and definition in ('guarded', 'slow', 'planned')").await;
    for (definition, problem) in [
        ("guarded", "allow_private_addresses"),
        ("slow", "no reply within 200 ms"),
        ("planned", "this node has no http connection elsewhere"),
    ] {
        let error = error(&db, definition).await;
        assert!(error["message"].as_str().unwrap().contains(problem), "{definition}: {error}");
    }
    let untouched: Vec<String> = db.get("select array_agg(definition order by definition) from rowbeat.tasks where state || attempt = 'available0'").await;
    assert_eq!(untouched, ["abroad", "foreign"], "others may perform them");
    daemon.says("leaves them to others").await;
    let (state, constraint) =
        db.refusal("insert into rowbeat.task_definition (name, executor) values ('nowhere', 'smtp')").await;
    assert!(state == "23514" && constraint.contains("task_definition_connection_named"), "{constraint}");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_named_and_not_otherwise() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let db = TestDb::new().await;
    let tls = crate::postbox::Identity::for_host("localhost");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.acceptor();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust it goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    let secrets = Secrets::new();
    let connection = |name: &str| {
        format!(
            "[connections.{name}]\ntype = \"http\"\nbase_url = \"https://localhost:{port}\"\nallow_private_addresses = true\n"
        )
    };
    let config =
        connection("known") + &key("ca_file", &secrets.file("ca.pem", &tls.pem)) + &connection("unknown");
    define(
        &db,
        &[("known", json!({ "connection": "known" })), ("unknown", json!({ "connection": "unknown" }))],
    )
    .await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    run_all(&db).await;
    assert_eq!(
        db.get::<String>("select result ->> 'body' from rowbeat.tasks where definition = 'known'").await,
        "hi"
    );
    let error = error(&db, "unknown").await;
    assert!(error["message"].as_str().unwrap().contains("certificate"), "{error}");
}
