//! Statement's notifications: what may be posted, and that what is posted will be sent.

use serde_json::{Value, json};

use crate::endpoint::Site;
use crate::harness::TestDb;
use crate::statement::statement;

const SEND: &str = "/api/notifications/send/";

/// A daemon that takes notifications.
async fn site(db: &TestDb) -> Site {
    let site = Site::new(db, "").await;
    site.until("GET", SEND, 405).await;
    site
}

async fn count(db: &TestDb) -> (i64, i64, i64) {
    (
        db.get("select count(*) from statement.notification").await,
        db.get("select count(*) from statement.notification_log").await,
        db.get("select count(*) from rowbeat.task where definition like 'statement.send%'").await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_posted_notification_is_queued_and_sent_on_every_channel() {
    let db = statement().await;
    let site = site(&db).await;
    db.run("select rowbeat.pause(p_definition => 'statement.send_notification')").await;
    let sample = json!({ "user_id": "12345", "title": "Transaction Alert", "body": "Your transaction was successful.", "channels": ["sms", "email"] });
    let answer = site.post(SEND, &sample).await;
    let id: i64 = db.get("select id from statement.notification").await;
    assert_eq!((answer.status, answer.json()), (201, json!({ "id": id, "status": "queued" })));
    let logs = "select jsonb_agg(jsonb_build_array(medium, status, attempts, error_message) order by medium) from statement.notification_log";
    assert_eq!(db.get::<Value>(logs).await, json!([["email", "pending", 0, ""], ["sms", "pending", 0, ""]]));
    let posted: Value = db
        .get("select jsonb_build_array(user_id, title, body, channels, status) from statement.notification")
        .await;
    assert_eq!(
        posted,
        json!([
            "12345",
            "Transaction Alert",
            "Your transaction was successful.",
            ["sms", "email"],
            "pending"
        ])
    );
    db.run("select rowbeat.resume(p_definition => 'statement.send_notification')").await;
    db.until("(select status = 'sent' from statement.notification)").await;
    assert_eq!(db.get::<Value>(logs).await, json!([["email", "success", 1, ""], ["sms", "success", 1, ""]]));
    assert!(
        db.get::<bool>("select bool_and(last_attempt_at is not null) from statement.notification_log").await
    );
    let messages: Value = db.get("select jsonb_agg(jsonb_build_array(medium, user_id, title, body) order by medium) from statement.simulated_message").await;
    assert_eq!(messages[1], json!(["sms", "12345", "Transaction Alert", "Your transaction was successful."]));
    assert_eq!(messages.as_array().unwrap().len(), 2);
    site.daemon.says("simulated sms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_a_channel_named_twice_is_one_log_and_a_number_is_a_user() {
    let db = statement().await;
    let site = site(&db).await;
    let post = async |user: Value| {
        site.post(
            SEND,
            &json!({ "user_id": user, "title": "t", "body": "b", "channels": ["sms", "email", "sms"] }),
        )
        .await
        .status
    };
    assert_eq!(
        (post(json!(42)).await, post(Value::Null).await, post(json!("x".repeat(128))).await),
        (201, 201, 201)
    );
    let users: Value =
        db.get("select jsonb_agg(left(user_id, 3) order by id) from statement.notification").await;
    assert_eq!(users, json!(["42", null, "xxx"]));
    assert_eq!(db.get::<i64>("select count(*) from statement.notification_log").await, 6);
    assert_eq!(
        db.get::<Value>("select channels from statement.notification limit 1").await,
        json!(["sms", "email"]),
        "in their order"
    );
    let answer = site.post(SEND, &json!({ "title": "t", "body": "b", "channels": ["telegram"] })).await;
    assert_eq!(answer.status, 201, "nobody has to be named");
    db.until("(select bool_and(status = 'sent') from statement.notification)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_posted_document_is_said_field_by_field_and_nothing_is_kept() {
    let db = statement().await;
    let site = site(&db).await;
    let required = json!(["This field is required."]);
    let fine = |more: Value| {
        let mut document = json!({ "title": "t", "body": "b", "channels": ["sms"] });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let not_a_list =
        |kind: &str| json!({ "channels": [format!("Expected a list of items but got type \"{kind}\".")] });
    for (document, faults) in [
        (json!({}), json!({ "title": required, "body": required, "channels": required })),
        (json!({ "title": "t", "channels": ["sms"] }), json!({ "body": required })),
        (
            fine(json!({ "title": " \n", "body": "" })),
            json!({ "title": ["This field may not be blank."], "body": ["This field may not be blank."] }),
        ),
        (
            fine(json!({ "title": "x".repeat(256) })),
            json!({ "title": ["Ensure this field has no more than 255 characters."] }),
        ),
        (
            fine(json!({ "title": ["t"], "body": null })),
            json!({ "title": ["Not a valid string."], "body": ["This field may not be null."] }),
        ),
        (fine(json!({ "channels": "sms" })), not_a_list("str")),
        (fine(json!({ "channels": { "sms": true } })), not_a_list("dict")),
        (fine(json!({ "channels": 7 })), not_a_list("int")),
        (fine(json!({ "channels": [] })), json!({ "channels": ["This list may not be empty."] })),
        (
            fine(json!({ "channels": ["invalid-medium"] })),
            json!({ "channels": { "0": ["\"invalid-medium\" is not a valid choice."] } }),
        ),
        (
            fine(json!({ "channels": ["sms", "fax", 5], "user_id": true })),
            json!({ "channels": { "1": ["\"fax\" is not a valid choice."], "2": ["\"5\" is not a valid choice."] }, "user_id": ["Not a valid string."] }),
        ),
        (fine(json!({ "user_id": "x".repeat(129) })), json!({ "user_id": ["Not a valid string."] })),
        (
            fine(json!({ "user_id": ["1"], "title": "" })),
            json!({ "user_id": ["Not a valid string."], "title": ["This field may not be blank."] }),
        ),
    ] {
        let answer = site.post(SEND, &document).await;
        assert_eq!((answer.status, answer.json()), (400, faults), "{document}");
    }
    assert_eq!(site.post(SEND, &json!(["t"])).await.status, 400);
    assert_eq!(site.ask("POST", SEND, &[], b"").await.status, 400, "no document is an empty one");
    assert_eq!(site.post(SEND, &fine(json!({ "title": "x".repeat(255) }))).await.status, 201);
    assert_eq!(db.get::<i64>("select count(*) from statement.notification").await, 1);
    db.run("insert into statement.sender (medium) values ('fax')").await;
    assert_eq!(
        site.post(SEND, &fine(json!({ "channels": ["fax"] }))).await.status,
        201,
        "a row more is a medium more"
    );
}

#[tokio::test]
async fn sql_posts_by_the_same_rules() {
    let db = statement().await;
    let (code, message) =
        db.refusal("select statement.create_notification('1', '', null, '[\"fax\"]')").await;
    assert_eq!(code, "RP400");
    for fault in ["title: This field may not be blank.", "body: This field is required.", "fax"] {
        assert!(message.contains(fault), "{message}");
    }
    assert_eq!(db.refusal("select statement.create_notification('1', 't', 'b', null)").await.0, "RP400");
    let id: i64 = db.get("select statement.create_notification('1', 't', 'b', '[\"sms\", \"sms\"]')").await;
    assert_eq!(count(&db).await, (1, 1, 1));
    assert_eq!(db.get::<Value>("select payload from rowbeat.task").await, json!({ "notification_id": id }));
    db.run("begin; select statement.create_notification('1', 't', 'b', '[\"sms\"]'); rollback").await;
    assert_eq!(count(&db).await, (1, 1, 1), "there is no moment in which one exists without the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn s23_without_a_task_there_is_no_notification() {
    let db = statement().await;
    let site = site(&db).await;
    db.run("update rowbeat.task_definition set name = 'statement.elsewhere' where name = 'statement.send_notification'").await;
    assert_eq!(
        db.refusal("select statement.create_notification('1', 't', 'b', '[\"sms\"]')").await.0,
        "RB001"
    );
    let sample = json!({ "title": "t", "body": "b", "channels": ["sms"] });
    assert_eq!(site.post(SEND, &sample).await.status, 500);
    assert_eq!(count(&db).await, (0, 0, 0));
    db.run("update rowbeat.task_definition set name = 'statement.send_notification' where name = 'statement.elsewhere'").await;
    assert_eq!(site.post(SEND, &sample).await.status, 201);
    db.until("(select status = 'sent' from statement.notification)").await;
}
