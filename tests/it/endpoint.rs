//! Endpoints of plugins: what goes in, what comes out, and what is refused, by a real daemon over loopback HTTP.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Daemon, PATIENCE, TestDb};
use crate::plugin::Folder;

const MANIFEST: &str = include_str!("../fixtures/desk/plugin.toml");

/// A plugin with an endpoint of every kind.
pub(crate) fn desk() -> Folder {
    Folder::bare(MANIFEST)
        .put("functions/desk.sql", include_str!("../fixtures/desk/functions/desk.sql"))
        .put("migrations/V1__note.sql", include_str!("../fixtures/desk/migrations/V1__note.sql"))
        .put("templates/list.html", include_str!("../fixtures/desk/templates/list.html"))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// All values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().filter(named).map(|line| line.split_once(':').unwrap().1.trim()).collect()
    }
}

/// A request to whoever listens at an address.
pub(crate) async fn ask(address: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        head.push_str("Host: localhost\r\n");
    }
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    head.push_str("\r\n");
    // Whoever refuses a long body does not read it.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let body = bytes.split_off(end.unwrap_or_else(|| panic!("{method} {path}: {bytes:?}")) + 4);
    let head = String::from_utf8(bytes).unwrap().trim_end().to_owned();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
        bytes: body,
    }
}

/// A daemon that serves, and how to ask it.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) address: String,
}

impl Site {
    pub(crate) async fn new(db: &TestDb, http: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let daemon = db.daemon_with(&format!("[http]\nlisten = \"{address}\"\n{http}"), &[]).ready().await;
        Self { daemon, address }
    }

    /// The same with the plugin, once the daemon knows it.
    pub(crate) async fn with_desk(db: &TestDb, http: &str) -> Self {
        desk().install(db).ok();
        let site = Self::new(db, http).await;
        site.until("GET", "/api/desk/echo", 405).await;
        site
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        ask(&self.address, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &["Content-Type: application/json"], body.to_string().as_bytes()).await
    }

    /// Waits until this is answered so.
    pub(crate) async fn until(&self, method: &str, path: &str, status: u16) {
        let begun = Instant::now();
        loop {
            let answer = self.ask(method, path, &[], b"").await;
            if answer.status == status {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never {status}: {answer:?}\n{}", self.daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_its_function_with_typed_input_and_comes_back_as_json() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    let made = site
        .post("/api/desk/notes", &json!({ "text": "milk", "tags": ["a", "b"], "stars": 3, "more": 1 }))
        .await;
    assert_eq!((made.status, made.json()), (201, json!({ "id": 1 })));
    assert_eq!(made.header("content-type"), ["application/json"]);
    let shown = site.get("/api/desk/notes/1?note=x%20y&from=2026-02-01&flag=on&many=1&many=2&note=z").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["text"], "milk");
    assert_eq!(
        shown["request"],
        json!({ "method": "GET", "path": "/api/desk/notes/1", "actor": "operator", "cookies": {},
                "input": { "id": 1, "note": "z", "from": "2026-02-01", "flag": true, "many": [1, 2], "limit": 10 } })
    );
    assert_eq!(
        site.get("/api/desk/notes/latest").await.json(),
        json!("the latest"),
        "a literal part counts more"
    );
    assert_eq!(
        site.get("/api/desk/notes/latest/").await.status,
        200,
        "a slash at the end makes no difference"
    );
    let head = site.ask("HEAD", "/api/desk/notes/1", &[], b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let cookies = site.ask("GET", "/api/desk/notes/1", &["Cookie: theme=dark; session=secret"], b"").await;
    assert_eq!(cookies.json()["request"]["cookies"], json!({ "theme": "dark" }), "only what it names");
    for body in [json!([1]), json!("x"), json!({ "a": 1 })] {
        assert_eq!(site.post("/api/desk/echo", &body).await.json(), json!({ "*": body }));
    }
    assert_eq!(site.ask("POST", "/api/desk/echo", &[], b"").await.json(), json!({ "*": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faulty_fields_are_told_at_once_and_nothing_is_called() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    let refused = site.post("/api/desk/notes", &json!({ "text": "", "tags": "a", "stars": 9 })).await;
    assert_eq!(refused.status, 400);
    let errors = refused.json();
    let names: Vec<&String> = errors["errors"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["stars", "tags", "text"], "{refused:?}");
    assert_eq!(site.post("/api/desk/notes", &json!({})).await.json()["errors"]["text"], "is required");
    let path = site.get("/api/desk/notes/seven?from=yesterday").await;
    assert_eq!(path.json()["errors"]["id"], "\"seven\" is no integer");
    assert!(path.json()["errors"]["from"].is_string(), "{path:?}");
    let broken = site.ask("POST", "/api/desk/notes", &["Content-Type: application/json"], b"{").await;
    assert!(broken.status == 400 && broken.json()["error"].is_string(), "{broken:?}");
    let page = site.ask("GET", "/api/desk/notes/%3Cb%3E", &["Accept: text/html"], b"").await;
    assert!(page.body.contains("&lt;b&gt;") && !page.body.contains("<b>"), "{page:?}");
    assert_eq!(db.get::<i64>("select count(*) from desk.note").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_not_taken_or_too_long_has_its_own_status() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    assert_eq!(site.get("/api/desk/nowhere").await.status, 404);
    let other = site.ask("DELETE", "/api/desk/notes/1", &[], b"").await;
    assert_eq!((other.status, other.header("allow")), (405, vec!["GET, HEAD"]));
    assert_eq!(site.ask("POST", "/status", &[], b"").await.status, 405, "as before");
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    assert_eq!(site.ask("POST", "/api/desk/notes", &form, b"text=milk").await.status, 415);
    assert_eq!(
        site.ask("POST", "/api/desk/raise?state=RP400", &form, b"x=1").await.status,
        415,
        "it takes no body"
    );
    let long = json!({ "text": "x".repeat(3000) });
    let refused = site.post("/api/desk/notes", &long).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    // Without a length it is counted as it comes.
    let mut stream = tokio::net::TcpStream::connect(&site.address).await.unwrap();
    let head = "POST /api/desk/notes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let _ = stream.write_all(format!("{head}bb8\r\n{}\r\n0\r\n\r\n", "x".repeat(3000)).as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_files_are_input_like_any_other() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let sent = site.ask("POST", "/desk/add", &form, b"text=a+b%26c&stars=&amount_1=2&amount_7=0.10").await;
    assert_eq!(sent.status, 303, "{sent:?}");
    assert_eq!(
        db.get::<Value>("select to_jsonb(n) - 'id' from desk.note n").await,
        json!({ "text": "a b&c", "stars": null, "actor": "operator", "more": { "amount_1": "2", "amount_7": "0.10" } })
    );
    let body = "--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nthree\r\n\
        --b\r\nContent-Disposition: form-data; name=\"documents\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
        --b\r\nContent-Disposition: form-data; name=\"documents\"; filename=\"b.bin\"\r\n\r\n\0\x01\r\n\
        --b\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"\"\r\n\r\n\r\n--b--\r\n";
    let multipart = ["Content-Type: multipart/form-data; boundary=b"];
    let sent = site.ask("POST", "/api/desk/upload", &multipart, body.as_bytes()).await;
    assert_eq!(
        sent.json(),
        json!({ "input": { "title": "three", "picture": null, "documents": [
                    { "filename": "a.txt", "content_type": "text/plain", "size": 5, "index": 1 },
                    { "filename": "b.bin", "content_type": "application/octet-stream", "size": 2, "index": 2 }] },
                "bytes": ["68656c6c6f", "0001"] }),
        "{sent:?}"
    );
    let long = body.replace("hello", &"x".repeat(200));
    let refused = site.ask("POST", "/api/desk/upload", &multipart, long.as_bytes()).await;
    assert!(refused.status == 400 && refused.json()["errors"]["documents"].is_string(), "{refused:?}");
    assert_eq!(site.ask("POST", "/api/desk/upload", &multipart, b"nonsense").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_pages_csv_redirects_and_cookies_too() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    db.run("insert into desk.note (text) values ('<b>bold</b>'), ('one, two')").await;
    let page = site.get("/desk/").await;
    assert_eq!((page.status, page.header("content-type")), (200, vec!["text/html; charset=utf-8"]));
    assert!(
        page.body.contains("&lt;b&gt;bold") && !page.body.contains("<b>"),
        "values are escaped: {page:?}"
    );
    assert_eq!(page.header("x-content-type-options"), ["nosniff"]);
    let csv = site.get("/api/desk/export").await;
    assert_eq!(csv.body, "id,text\r\n1,<b>bold</b>\r\n2,\"one, two\"\r\n");
    assert_eq!(csv.header("content-disposition"), ["attachment; filename=\"notes.csv\""]);
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let added = site.ask("POST", "/desk/add", &form, b"text=x").await;
    assert_eq!((added.status, added.header("location")), (303, vec!["/desk/"]));
    assert_eq!(added.header("set-cookie"), ["flash=added; Path=/; SameSite=Lax; HttpOnly"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_raises_becomes_a_status_and_gives_nothing_away() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "").await;
    for (state, status, says) in [
        ("RP400", 400, "no such thing"),
        ("RP404", 404, "no such thing"),
        ("RP409", 409, "no such thing"),
        ("RP422", 422, "no such thing"),
        ("22023", 400, "no such thing"),
        ("42501", 403, "this is not allowed"),
        ("40001", 503, "others were in the way"),
        ("P0001", 500, "something went wrong"),
        ("RP500", 500, "something went wrong"),
    ] {
        let raised = site.ask("POST", &format!("/api/desk/raise?state={state}"), &[], b"").await;
        assert_eq!(raised.status, status, "{state}: {raised:?}");
        assert!(raised.json()["error"].as_str().unwrap().starts_with(says), "{state}: {raised:?}");
    }
    let raised = site
        .ask("POST", "/api/desk/raise?state=RP400&detail=%7B%22mode%22%3A%22Invalid%20mode%22%7D", &[], b"")
        .await;
    assert_eq!((raised.status, raised.json()), (400, json!({ "mode": "Invalid mode" })));
    assert_eq!(site.post("/api/desk/notes", &json!({ "text": "a\u{0}b" })).await.status, 400);
    let stars = site.post("/api/desk/notes", &json!({ "text": "six", "stars": 5 })).await;
    assert_eq!((stars.status, stars.json()), (400, json!({ "error": "note_has_four_stars is not kept" })));
    site.post("/api/desk/notes", &json!({ "text": "twice" })).await;
    let twice = site.post("/api/desk/notes", &json!({ "text": "twice" })).await;
    assert_eq!(twice.status, 409, "{twice:?}");
    let later = site.post("/api/desk/notes", &json!({ "text": "refused at commit" })).await;
    assert_eq!((later.status, later.json()["error"].as_str()), (409, Some("refused in the end")));
    assert_eq!(db.get::<i64>("select count(*) from desk.note").await, 1, "all or nothing");
    site.daemon.says("no such thing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_transaction_with_a_time_limit_and_leaves_nothing_in_the_session() {
    let db = TestDb::new().await;
    let site = Site::with_desk(&db, "timeout = \"2s\"\nmax_connections = 1").await;
    let wrote = site.get("/api/desk/write").await;
    assert_eq!(wrote.status, 500, "a GET changes nothing: {wrote:?}");
    assert_eq!(db.get::<i64>("select count(*) from desk.note").await, 0);
    let slow = site.get("/api/desk/slow").await;
    assert_eq!((slow.status, slow.json()), (504, json!({ "error": "it took too long" })));
    assert_eq!(site.get("/api/desk/dirty").await.json(), json!([null, 0]));
    assert_eq!(site.get("/api/desk/dirty").await.json(), json!([null, 0]), "what it set and locked is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_serves_what_is_installed_upgraded_and_removed() {
    let db = TestDb::new().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/desk/", 404).await;
    desk().install(&db).ok();
    site.until("GET", "/desk/", 200).await;
    let newer = desk().edit("plugin.toml", "version = \"1.0.0\"", "version = \"1.1.0\"").edit(
        "plugin.toml",
        "path = \"/desk/\"",
        "path = \"/counter/\"",
    );
    newer.run(&db, "upgrade", &[]).ok();
    site.until("GET", "/counter/", 200).await;
    site.until("GET", "/desk/", 404).await;
    crate::cli::rowbeat(&db, &["plugin", "remove", "desk"]).ok();
    site.until("GET", "/counter/", 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_endpoints_do_not_hold_up_the_daemon_and_are_counted() {
    let db = TestDb::new().await.with_effects().await;
    let site = Site::with_desk(&db, "max_connections = 2\ntimeout = \"30s\"").await;
    db.run("select pg_advisory_lock(77)").await;
    let waiting: Vec<_> = (0..100).map(|_| site.ask("POST", "/api/desk/wait", &[], b"")).collect();
    let waiting = futures_util::future::join_all(waiting);
    let meanwhile = async {
        db.until("(select count(*) from pg_stat_activity where datname = current_database() and query like '%serve_endpoint%' and wait_event = 'advisory') = 2").await;
        assert_eq!(site.get("/ready").await.status, 200);
        db.run("select rowbeat.enqueue('add_effect', '{\"x\": 1}')").await;
        db.until("exists (select from public.effect)").await;
        db.run("select pg_advisory_unlock(77)").await;
    };
    let (answers, ()) = futures_util::future::join(waiting, meanwhile).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert!(count(200) >= 64 && count(200) + count(503) == 100, "{} {}", count(200), count(503));
    if let Some(refused) = answers.iter().find(|answer| answer.status == 503) {
        assert_eq!(refused.header("retry-after"), ["1"]);
    }
    let metrics = site.get("/metrics").await.body;
    let line = format!(
        "rowbeat_endpoint_requests_total{{plugin=\"desk\",method=\"POST\",path=\"/api/desk/wait\",status=\"200\"}} {}",
        count(200)
    );
    assert!(metrics.contains(&line), "{line}\n{metrics}");
    assert!(metrics.contains("# TYPE rowbeat_endpoint_requests_total counter"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_extends_and_includes_and_takes_lists_of_forms() {
    let db = TestDb::new().await;
    let manifest = "\n[[endpoint]]\nmethod = \"POST\"\npath = \"/desk/page\"\nauth = \"none\"\nfunction = \"desk.page\"\n[endpoint.input]\n\"item[]\" = { in = \"form\", list = true }\n";
    let function = "create function desk.page(request jsonb) returns jsonb language sql as $$
        select jsonb_build_object('kind', 'html', 'template', request #>> '{input,item[],0}', 'data', request -> 'input') $$;";
    desk()
        .append("plugin.toml", manifest)
        .append("functions/desk.sql", function)
        .put("templates/base.html", "<main>{% block content %}{% endblock %}</main>{%- include 'foot.html' -%}")
        .put("templates/foot.html", "<i>foot</i>")
        .put("templates/rows.html", "{% extends \"base.html\" %}{% block content %}{% for key in ['item[]'] %}{{ key }}{% endfor %}{% endblock %}")
        .put("templates/lost.html", "{% include \"nowhere.html\" %}")
        .install(&db)
        .ok();
    let site = Site::new(&db, "").await;
    site.until("GET", "/desk/page", 405).await;
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let page = site.ask("POST", "/desk/page", &form, b"item[]=rows.html&item[]=b").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<main>item[]</main><i>foot</i>"));
    for wrong in ["lost.html", "none.html"] {
        let page = site.ask("POST", "/desk/page", &form, format!("item[]={wrong}").as_bytes()).await;
        assert_eq!(page.status, 500, "{page:?}");
    }
    site.daemon.says("nowhere.html").await;
    site.daemon.says("there is no templates/none.html").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_json_already_is_sent_digit_by_digit() {
    let db = TestDb::new().await;
    Folder::bare(
        "format = 1\nname = \"raw\"\nversion = \"1.0.0\"\n[[endpoint]]\nmethod = \"GET\"\npath = \"/api/raw\"\nauth = \"none\"\nfunction = \"raw.f\"\n
         [endpoint.input]\ntext = { in = \"query\" }\n",
    )
    .put("functions/f.sql", "create or replace function raw.f(request jsonb) returns jsonb language sql as $$ select request -> 'input' $$")
    .install(&db)
    .ok();
    let site = Site::new(&db, "").await;
    site.until("GET", "/api/raw?text=1", 200).await;
    let long = site.get("/api/raw?text=[123456789012345678901234567890,0.10]").await;
    assert_eq!((long.status, long.body.as_str()), (200, "[123456789012345678901234567890,0.10]\n"));
    assert_eq!(long.header("content-type"), ["application/json"]);
    assert_eq!(site.get("/api/raw?text=[1").await.status, 500);
    site.daemon.says("text is no JSON").await;
}
