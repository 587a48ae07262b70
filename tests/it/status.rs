//! The status endpoints, as a health check and a person see them.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Daemon, TestDb};

async fn http(address: &str, method: &str, path: &str, header: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn with_http(db: &TestDb) -> (Daemon, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    (db.daemon_with(&format!("[http]\nlisten = \"{address}\""), &[]), address)
}

#[tokio::test]
async fn the_endpoints_tell_the_truth() {
    let db = TestDb::new().await.with_effects().await;
    let (daemon, address) = with_http(&db);
    let daemon = daemon.ready().await;
    db.run("select rowbeat.schedule('nightly', '0 3 * * *', 'add_effect'); insert into rowbeat.task (definition, run_at) values ('add_effect', now() + interval '1 day')").await;
    assert_eq!(http(&address, "GET", "/live", "").await, (200, "alive\n".to_owned()));
    let begun = std::time::Instant::now();
    loop {
        let (code, body) = http(&address, "GET", "/ready", "").await;
        if code == 200 {
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["ready"], true);
            break;
        }
        assert!(begun.elapsed() < crate::harness::PATIENCE, "{body}\n{}", daemon.log());
    }
    assert_eq!(http(&address, "GET", "/health", "").await.0, 200);
    let (code, body) = http(&address, "GET", "/status", "").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["database"]), (200, &Value::from(db.name.clone())));
    assert_eq!(status["queues"][0]["waiting"], 1);
    assert_eq!(status["schedules"][0]["name"], "nightly");
    assert_eq!(status["nodes"][0]["state"], "alive");
    for known in ["daemon", "server"] {
        assert!(status["zone_data"][known].as_str().is_some_and(|data| data.contains("202")), "{body}");
    }
    assert!(status["loops"]["dispatcher"]["last_pass_ms"].is_u64());
    let (code, page) = http(&address, "GET", "/status", "Accept: text/html\r\n").await;
    assert!(code == 200 && page.contains("<h2>Schedules</h2>") && page.contains("nightly"), "{page}");
    let (code, metrics) = http(&address, "GET", "/metrics", "").await;
    assert!(code == 200 && metrics.contains("rowbeat_queue_waiting{queue=\"default\"} 1"), "{metrics}");
    assert_eq!(http(&address, "GET", "/nowhere", "").await.0, 404);
    assert_eq!(http(&address, "POST", "/status", "").await.0, 405);
}

#[tokio::test]
async fn readiness_names_a_read_only_database_and_a_schema_that_moved_on() {
    let db = TestDb::new().await;
    let (daemon, address) = with_http(&db);
    let _daemon = daemon.ready().await;
    db.run("insert into rowbeat.schema_history (version, name, applied_on, checksum) values (999, 'future', '', '0')").await;
    let (code, body) = http(&address, "GET", "/ready", "").await;
    assert!(code == 503 && body.contains("version 999"), "{body}");
    db.run("delete from rowbeat.schema_history where version = 999").await;
    db.run(&format!(
        "alter database {0} set default_transaction_read_only = on;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = '{0}' and pid <> pg_backend_pid()",
        db.name
    ))
    .await;
    let begun = std::time::Instant::now();
    loop {
        let (code, body) = http(&address, "GET", "/ready", "").await;
        if code == 503 && body.contains("takes no writes") {
            break;
        }
        assert!(begun.elapsed() < crate::harness::PATIENCE, "{code} {body}");
    }
    assert_eq!(http(&address, "GET", "/live", "").await.0, 200, "alive all the same");
    db.run(&format!(
        "set default_transaction_read_only = off; alter database {0} reset default_transaction_read_only;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = '{0}' and pid <> pg_backend_pid()",
        db.name
    ))
    .await;
    while http(&address, "GET", "/ready", "").await.0 != 200 {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "never ready again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
