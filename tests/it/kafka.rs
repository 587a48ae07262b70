//! The kafka executor against librdkafka's mock cluster, which is a real broker over TCP.

use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};

use crate::harness::TestDb;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 2, 1).unwrap();
    cluster
}

fn connection(cluster: &MockCluster<'_, DefaultProducerContext>, more: &str) -> String {
    format!(
        "[connections.events]\ntype = \"kafka\"\nbootstrap_servers = \"{}\"\n{more}\n",
        cluster.bootstrap_servers()
    )
}

async fn define(db: &TestDb, name: &str, effect: Value) {
    let sql = "insert into rowbeat.task_definition (name, executor, effect, max_attempts, backoff) values ($1, 'kafka', $2, 3, '10 ms') returning name";
    db.get_with::<String>(sql, &[&name, &effect]).await;
}

#[tokio::test]
async fn a_message_is_delivered_before_its_task_is_done() {
    let db = TestDb::new().await;
    let cluster = cluster();
    define(&db, "whole", json!({ "connection": "events", "topic": "orders", "partition": 1 })).await;
    define(&db, "own", json!({ "connection": "events", "topic": "orders", "partition": 0, "key": "k", "payload": "text", "headers": { "a": "b" } })).await;
    define(
        &db,
        "grave",
        json!({ "connection": "events", "topic": "orders", "partition": 1, "key": "k", "payload": null }),
    )
    .await;
    let _daemon =
        db.daemon_with(&connection(&cluster, "properties = { \"linger.ms\" = \"1\" }"), &[]).ready().await;
    for name in ["whole", "own", "grave"] {
        db.run(&format!("insert into rowbeat.task (definition, payload) values ('{name}', '{{\"x\": 1}}')"))
            .await;
        db.until(&format!("select state = 'completed' from rowbeat.tasks where definition = '{name}'")).await;
    }
    let results: Value = db.get("select jsonb_object_agg(definition, result) from rowbeat.tasks").await;
    assert_eq!(results["own"], json!({ "topic": "orders", "partition": 0, "offset": 0 }));
    assert_eq!(results["grave"]["offset"], 1);

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message =
            tokio::time::timeout(crate::harness::PATIENCE, consumer.recv()).await.unwrap().unwrap().detach();
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let headers = message.headers().unwrap();
        let names: Vec<&str> = headers.iter().map(|header| header.key).collect();
        seen.push((text(message.key()).unwrap(), text(message.payload()), names.join(" ")));
    }
    seen.sort();
    let id: i64 = db.get("select id from rowbeat.tasks where definition = 'whole'").await;
    let key = "rowbeat-idempotency-key";
    let mut expected = [
        ("k".to_owned(), None, key.to_owned()),
        ("k".to_owned(), Some("text".to_owned()), format!("a {key}")),
        (format!("rowbeat-{id}-1"), Some("{\"x\":1}".to_owned()), key.to_owned()),
    ];
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_retried_and_what_never_can_be_is_not() {
    let db = TestDb::new().await;
    let cluster = cluster();
    for (name, length) in [("good", 10), ("bad", 2000), ("down", 10)] {
        let payload = "x".repeat(length);
        define(&db, name, json!({ "connection": "events", "topic": "orders", "payload": payload })).await;
    }
    db.run("insert into rowbeat.task_definition (name, executor, effect, timeout) values ('hasty', 'kafka', '{\"connection\": \"events\", \"topic\": \"orders\"}', '1 s')").await;
    let _daemon = db
        .daemon_with(
            &connection(&cluster, "timeout = \"2s\"\nproperties = { \"message.max.bytes\" = \"1000\" }"),
            &[],
        )
        .ready()
        .await;
    // The message waits for the broker to recover: librdkafka tries again by itself, and delivers once.
    cluster
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2]);
    db.run("insert into rowbeat.task (definition) values ('good'), ('bad'), ('hasty')").await;
    db.until("select count(*) = 3 from rowbeat.tasks where finished_at is not null").await;
    let ended: Value = db.get("select jsonb_object_agg(definition, jsonb_build_array(outcome, failures, error ->> 'message')) from rowbeat.tasks").await;
    assert_eq!(ended["good"][0], "done", "{ended}");
    assert_eq!(ended["bad"][0], "rejected", "{ended}");
    assert!(
        ended["hasty"][2].as_str().unwrap().contains("not longer than that of connection events"),
        "{ended}"
    );

    cluster.broker_down(1).unwrap();
    db.run("insert into rowbeat.task (definition) values ('down')").await;
    db.until("select failures > 0 from rowbeat.tasks where definition = 'down'").await;
    cluster.broker_up(1).unwrap();
    db.until("select state = 'completed' from rowbeat.tasks where definition = 'down'").await;
}

#[tokio::test]
async fn a_login_is_taken_and_what_librdkafka_does_not_know_ends_the_start() {
    let db = TestDb::new().await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let cluster = cluster();
    let login = format!("username = \"me\"\npassword_file = \"{}\"", password.display());
    let _daemon = db.daemon_with(&connection(&cluster, &login), &[]).ready().await;
    let wrong = "properties = { \"ssl.key.password\" = \"hunter3\" }";
    let mut daemon = db.daemon_with(&connection(&cluster, wrong), &[]);
    assert_eq!(daemon.ended().await.code(), Some(78));
    daemon.says("connections.events: ssl.key.password").await;
    assert!(!daemon.log().contains("hunter"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_and_brokers_that_are_away_have_none() {
    let cluster = cluster();
    cluster.create_topic("__internal", 1, 1).unwrap();
    cluster.create_topic("invoices", 1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("rowbeat.toml");
    let away = "[connections.away]\ntype = \"kafka\"\nbootstrap_servers = \"127.0.0.1:1\"\n";
    std::fs::write(&config, format!("{}{away}", connection(&cluster, ""))).unwrap();
    let topics = async |name: &str| {
        let line = ["kafka", "topics", "--json", "--connection", name, "--config", config.to_str().unwrap()];
        let line = line.map(str::to_owned);
        let ran = tokio::task::spawn_blocking(move || {
            crate::cli::finish(crate::cli::bare(), &line.each_ref().map(String::as_str), "")
        });
        ran.await.unwrap().json()
    };
    assert_eq!(topics("events").await, json!(["invoices", "orders"]));
    assert_eq!(topics("away").await, json!([]));
    assert_eq!(topics("nobody").await, json!([]));
}
