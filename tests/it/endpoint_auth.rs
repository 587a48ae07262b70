//! Who may ask: tokens, hosts and origins, and the daemon's own paths for operators.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::endpoint::{Site, desk};
use crate::harness::{PATIENCE, TestDb, server};

fn create(db: &TestDb, arguments: &[&str]) -> String {
    let line = [&["token", "create"], arguments].concat();
    let secret = rowbeat(db, &line).ok().trim().to_owned();
    assert!(secret.starts_with("rbt_") && secret.len() == 47, "{secret}");
    format!("Authorization: Bearer {secret}")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_what_they_say_until_they_expire_or_are_revoked() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    assert_eq!(
        site.get("/desk/").await.status,
        200,
        "without any token everybody on the loopback is the operator"
    );
    let refused = rowbeat(&db, &["token", "create", "x", "--endpoint", "GET /nowhere"]);
    refused.refused(1, &["GET /nowhere"]);
    let operator = create(&db, &["alice", "--operator"]);
    let plugin = create(&db, &["till", "--plugin", "desk"]);
    let endpoint = create(&db, &["scale", "--endpoint", "GET /api/desk/export", "--expires", "90d"]);
    let status =
        async |method: &str, path: &str, header: &str| site.ask(method, path, &[header], b"").await.status;
    for path in ["/desk/", "/api/desk/export"] {
        let asked = site.get(path).await;
        assert_eq!(asked.status, 401, "from the first token on: {asked:?}");
        assert_eq!(asked.header("www-authenticate"), ["Bearer realm=\"rowbeat\"", "Basic realm=\"rowbeat\""]);
    }
    let wrong = site.ask("GET", "/desk/", &["Authorization: Bearer rbt_x"], b"").await;
    assert_eq!((wrong.status, wrong.header("www-authenticate")[0].contains("invalid_token")), (401, true));
    assert_eq!(
        status("GET", "/api/desk/notes/latest", "Authorization: Bearer rbt_x").await,
        200,
        "auth is none"
    );
    for (header, own, listed, upload) in
        [(&operator, 200, 200, 200), (&plugin, 403, 200, 200), (&endpoint, 403, 200, 403)]
    {
        assert_eq!(status("GET", "/desk/", header).await, own);
        assert_eq!(status("GET", "/api/desk/export", header).await, listed);
        assert_eq!(status("POST", "/api/desk/upload", header).await, upload);
    }
    let page = site.ask("GET", "/desk/", &[&operator], b"").await;
    assert!(page.body.contains("<p>alice</p>"), "the function hears who it is: {page:?}");
    let basic = format!("Authorization: Basic {}", base64(&format!("me:{}", &operator[22..])));
    assert_eq!(status("GET", "/desk/", &basic).await, 200, "a browser shows it as a password");
    db.until("(select last_used_at from rowbeat.token where name = 'alice') is not null").await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.token where digest = sha256(convert_to('x', 'UTF8'))")
            .await,
        0
    );
    let kept: String = db.get("select string_agg(t::text, ' ') from rowbeat.token t").await;
    assert!(!kept.contains(&operator[26..]), "the secret is kept nowhere");
    db.run("update rowbeat.token set expires_at = now() - interval '1 second' where name = 'scale'").await;
    assert_eq!(status("GET", "/api/desk/export", &endpoint).await, 401);
    rowbeat(&db, &["token", "revoke", "alice"]).ok();
    assert_eq!(status("GET", "/desk/", &operator).await, 401);
    rowbeat(&db, &["token", "revoke", "alice"]).refused(1, &["there is no token alice"]);
    let list = rowbeat(&db, &["token", "list", "--json"]).json();
    let states: Vec<&Value> = list.as_array().unwrap().iter().map(|token| &token["state"]).collect();
    assert_eq!(states, ["revoked", "expired", "valid"], "{list}");
    create(&db, &["alice", "--operator"]);
    rowbeat(&db, &["token", "create", "alice", "--operator"]).refused(1, &["there is a token alice already"]);
    rowbeat(&db, &["token", "create", "bob"]).refused(2, &["--operator"]);
}

/// A few characters of base64: the tests need no crate for it.
fn base64(text: &str) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = letters[(bits >> (18 - 6 * at) & 63) as usize] as char;
            out.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_and_names_of_others_get_nowhere() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "hosts = [\"ops.example.com\"]").await;
    let status =
        async |method: &str, path: &str, headers: &[&str]| site.ask(method, path, headers, b"").await.status;
    let echo = "/api/desk/echo";
    assert_eq!(status("POST", echo, &["Host: rebound.example.net"]).await, 403);
    assert_eq!(status("GET", "/api/desk/notes/latest", &["Host: rebound.example.net"]).await, 403);
    assert_eq!(status("POST", echo, &["Host: ops.example.com"]).await, 200);
    assert_eq!(status("POST", echo, &[&format!("Host: {}", site.address)]).await, 200);
    assert_eq!(status("POST", echo, &["Origin: https://evil.example"]).await, 403);
    assert_eq!(status("POST", echo, &["Origin: null"]).await, 403);
    assert_eq!(status("POST", echo, &["Origin: http://localhost"]).await, 200);
    assert_eq!(status("POST", echo, &["Sec-Fetch-Site: cross-site"]).await, 403);
    assert_eq!(
        status("GET", "/api/desk/notes/latest", &["Origin: https://evil.example"]).await,
        200,
        "it changes nothing"
    );
    assert_eq!(
        status("GET", "/desk/", &["Host: ops.example.com"]).await,
        401,
        "who came by a proxy is not the operator"
    );
    assert_eq!(status("GET", "/desk/", &["X-Forwarded-For: 192.0.2.1"]).await, 401);
    assert_eq!(status("GET", "/status", &["Host: rebound.example.net"]).await, 200, "as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_are_described_as_openapi() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    let document = site.get("/api/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 13, "{document:#}");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in paths {
        assert!(path.starts_with('/'));
        for (method, operation) in item.as_object().unwrap() {
            assert!(["get", "post", "put", "patch", "delete"].contains(&method.as_str()));
            assert!(ids.insert(operation["operationId"].to_string()), "{operation}");
            assert!(operation["responses"]["200"]["description"].is_string());
            for reference in [&operation["responses"]["400"], &operation["responses"]["default"]] {
                let to = reference["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
                assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
            }
            for parameter in operation["parameters"].as_array().unwrap() {
                assert!(["path", "query"].contains(&parameter["in"].as_str().unwrap()));
                assert!(parameter["schema"].is_object() && parameter["required"].is_boolean());
                if parameter["in"] == "path" {
                    assert!(path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap())));
                }
            }
            for security in operation["security"].as_array().unwrap() {
                let scheme = security.as_object().unwrap().keys().next().unwrap();
                assert!(document["components"]["securitySchemes"][scheme].is_object());
            }
        }
    }
    let add = &paths["/api/desk/notes"]["post"]["requestBody"];
    let schema = &add["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["text"]));
    assert_eq!(
        schema["properties"]["stars"],
        json!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": 5 })
    );
    assert_eq!(schema["properties"]["tags"], json!({ "type": "array", "items": { "type": "string" } }));
    assert!(paths["/api/desk/upload"]["post"]["requestBody"]["content"]["multipart/form-data"].is_object());
    let limit = paths["/api/desk/notes/{id}"]["get"]["parameters"].as_array().unwrap().last().unwrap();
    assert_eq!(limit["schema"]["default"], 10);
    let till = create(&db, &["till", "--plugin", "desk"]);
    assert_eq!(site.get("/api/openapi.json").await.status, 401);
    assert_eq!(site.ask("GET", "/api/openapi.json", &[&till], b"").await.status, 200, "any token will do");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_differ_in_the_names_of_parameters_only_are_one_path_of_the_description() {
    let db = TestDb::new().await;
    let endpoint = |method: &str, path: &str, field: &str| {
        format!(
            "[[endpoint]]\nmethod = \"{method}\"\npath = \"{path}\"\nauth = \"token\"\nfunction = \"pair.show\"\n[endpoint.input]\n{field}\n"
        )
    };
    let manifest = [
        "format = 1\nname = \"pair\"\nversion = \"1.0.0\"\n",
        &endpoint("GET", "/a/{x}/b/{y}", "x = { in = \"path\", type = \"integer\" }"),
        &endpoint("POST", "/a/{y}/b/{x}/", "x = { in = \"path\", type = \"date\" }\nz = { in = \"query\" }"),
        &endpoint("PUT", "/a/{one}/b/{two}", "x = { in = \"query\", required = true }"),
        &endpoint("GET", "/a-b", ""),
        &endpoint("GET", "/a_b", ""),
    ];
    let show = "create function pair.show(request jsonb) returns jsonb language sql as $$ select jsonb_build_object('body', request -> 'input') $$;";
    crate::plugin::Folder::bare(&manifest.concat()).put("functions/show.sql", show).install(&db).ok();
    let site = Site::new(&db, "").await;
    site.until("GET", "/a/1/b/2", 200).await;
    let document = site.get("/api/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["/a-b", "/a/{x}/b/{y}", "/a_b"], "{document:#}");
    let parameters = |method: &str| {
        let all = paths["/a/{x}/b/{y}"][method]["parameters"].as_array().unwrap().iter();
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let mut all: Vec<String> =
            all.map(|one| [&one["in"], &one["name"], &one["schema"]["type"]].map(word).join(" ")).collect();
        all.sort();
        all
    };
    assert_eq!(parameters("get"), ["path x integer", "path y string"]);
    assert_eq!(parameters("post"), ["path x string", "path y string", "query z string"]);
    let operation = &paths["/a/{x}/b/{y}"]["post"]["parameters"];
    let date = operation.as_array().unwrap().iter().find(|one| one["schema"]["format"] == "date").unwrap();
    assert_eq!(date["name"], "y", "what it calls x is the second: {operation}");
    assert_eq!(parameters("put"), ["path x string", "path y string", "query x string"]);
    let ids: std::collections::BTreeSet<String> = paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].to_string())
        .collect();
    assert_eq!(ids.len(), 5, "{ids:?}");
    let asked = site.ask("POST", "/a/first/b/2026-02-01?z=q", &[], b"").await;
    assert_eq!(asked.json(), json!({ "x": "2026-02-01", "y": "first", "z": "q" }), "each by its own names");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_a_copy_of_the_database_are_closed_until_it_is_confirmed() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    let paths = [
        ("GET", "/desk/"),
        ("GET", "/api/desk/notes/latest"),
        ("POST", "/api/desk/echo"),
        ("HEAD", "/desk/"),
    ];
    db.run("update rowbeat.setting set value = '{\"oid\": 1, \"system_identifier\": \"1\"}' where name = 'database'").await;
    let closed = async |site: &Site| {
        for (method, path) in paths {
            let answer = site.ask(method, path, &[], b"").await;
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (503, vec!["1"]),
                "{method} {path}: {answer:?}"
            );
            if method != "HEAD" {
                assert_eq!(
                    answer.json(),
                    json!({ "error": "this database is a copy of the one that rowbeat was installed in" })
                );
            }
        }
        assert_eq!((site.get("/live").await.status, site.get("/status").await.status), (200, 200));
        site.until("GET", "/ready", 503).await;
    };
    closed(&site).await;
    drop(site);
    // Also by a daemon that never knew another one.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let daemon = db.daemon_with(&format!("[http]\nlisten = \"{address}\""), &[]);
    daemon.says("copy of the one").await;
    let site = Site { daemon, address };
    site.until("GET", "/live", 200).await;
    // Until it has read which endpoints there are it says that it waits for the database.
    while !site.get("/desk/").await.body.contains("copy") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    closed(&site).await;
    db.run("select rowbeat.confirm_database()").await;
    site.until("GET", "/desk/", 200).await;
    assert_eq!(site.ask("POST", "/api/desk/echo", &[], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_triggers_and_health() {
    let db = TestDb::new().await;
    let site = Site::new(&db, "").await;
    assert_eq!(site.get("/api/active_triggers/").await.json(), json!([]));
    db.run(
        "create table public.t (x int); create function public.f() returns trigger language plpgsql as 'begin return null; end';
         create trigger seen after insert on public.t for each row execute function public.f()",
    )
    .await;
    let triggers = site.get("/api/active_triggers/").await.json();
    let mut columns: Vec<String> = db
        .get("select array_agg(attname::text order by attname::text) from pg_attribute where attrelid = 'information_schema.triggers'::regclass and attnum between 1 and 12")
        .await;
    columns.sort();
    let keys: Vec<&String> = triggers[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, columns.iter().collect::<Vec<_>>());
    assert_eq!(
        (&triggers[0]["trigger_name"], &triggers[0]["event_manipulation"], &triggers[0]["action_timing"]),
        (&json!("seen"), &json!("INSERT"), &json!("AFTER"))
    );
    let begun = Instant::now();
    loop {
        let health = site.get("/api/system_health/").await;
        assert_eq!(health.status, 200);
        let health = health.json();
        let keys: Vec<&String> = health.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["database", "disk_usage", "kafka", "listener", "tasks"]);
        for word in health.as_object().unwrap().values() {
            assert!(["working", "slow", "offline"].contains(&word["status"].as_str().unwrap()), "{health}");
        }
        assert_eq!(health["kafka"]["status"], "offline", "there is none");
        if ["database", "listener", "tasks"].iter().all(|part| health[part]["status"] == "working") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{health}");
    }
    assert_eq!(site.ask("POST", "/api/system_health/", &[], b"").await.header("allow"), ["GET, HEAD"]);
    let till = create(&db, &["till", "--operator"]);
    for path in ["/api/active_triggers/", "/api/system_health/", "/api/plugin_list/"] {
        assert_eq!(site.get(path).await.status, 401, "{path}");
        assert_eq!(site.ask("GET", path, &[&till], b"").await.status, 200, "{path}");
    }
    let away = format!(
        "alter database {0} allow_connections false; select pg_terminate_backend(pid) from pg_stat_activity where datname = '{0}'",
        db.name
    );
    assert!(server().psql("postgres").args(["-c", &away]).status().unwrap().success());
    let begun = Instant::now();
    loop {
        let health = site.get("/api/system_health/").await;
        if health.status == 200 && health.json()["database"]["status"] == "offline" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{health:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_a_folder_are_installed_over_http_where_that_is_switched_on() {
    let db = TestDb::new().await;
    let off = Site::new(&db, "").await;
    assert_eq!(off.get("/api/plugin_list/").await.json(), json!([]));
    assert_eq!(off.ask("POST", "/api/plugin_install/?plugin_name=desk", &[], b"").await.status, 403);
    off.daemon.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("desk.zip");
    desk().run(&db, "pack", &["--to", zip.to_str().unwrap()]).ok();
    std::fs::write(folder.path().join("broken.zip"), "no zip").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
    let on = Site::new(&db, &format!("plugin_dir = {:?}\nroot_page = \"/desk/\"", folder.path())).await;
    let list = on.get("/api/plugin_list/").await.json();
    assert_eq!(list[1]["name"], "desk", "{list}");
    assert_eq!(list.as_array().unwrap().len(), 2);
    let url = list[1]["download_url"].as_str().unwrap();
    assert_eq!(on.ask("HEAD", url, &[], b"").await.header("content-type"), ["application/zip"]);
    let ask = async |method: &str, query: &str| {
        let answer = on.ask(method, &format!("/api/plugin_install/{query}"), &[], b"").await;
        (answer.status, answer.json())
    };
    assert_eq!(ask("POST", "").await, (400, json!({ "detail": "Missing 'plugin_name' query parameter." })));
    for name in ["other", "..%2Fdesk", "notes.txt", "%2Fetc%2Fpasswd"] {
        let answer = ask("POST", &format!("?plugin_name={name}")).await;
        assert_eq!(answer, (404, json!({ "detail": "Plugin not found" })), "{name}");
    }
    assert_eq!(ask("GET", "?plugin_name=desk").await.0, 405);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.plugin").await, 0, "a GET never installs");
    assert_eq!(ask("POST", "?plugin_name=broken").await.0, 400);
    assert_eq!(
        ask("POST", "?plugin_name=desk").await,
        (200, json!({ "detail": "Plugin installed successfully" }))
    );
    on.until("GET", "/desk/", 200).await;
    let root = on.get("/").await;
    assert_eq!((root.status, root.header("location")), (303, vec!["/desk/"]));
    assert_eq!(on.get("/status").await.status, 200);
}
