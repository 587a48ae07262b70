//! Statement's sending: each channel by itself, by the simulator, requests or mails, and an end for every notification.

use serde_json::{Value, json};

use crate::harness::TestDb;
use crate::postbox::{Identity, Postbox, Security};
use crate::statement::statement;
use crate::web::{Web, answer};

async fn post(db: &TestDb, channels: Value) -> i64 {
    db.get_with("select statement.create_notification('7', 'Alert', 'You paid.', $1)", &[&channels]).await
}

/// Medium, status, attempts and error of each log.
async fn logs(db: &TestDb) -> Value {
    db.get("select jsonb_agg(jsonb_build_array(medium, status, attempts, error_message) order by id) from statement.notification_log").await
}

async fn until_status(db: &TestDb, status: &str) {
    db.until(&format!("(select bool_and(status = '{status}') from statement.notification)")).await;
}

/// Lets the retries of a definition come at once, so many times, when they are ten seconds away.
async fn hurry(db: &TestDb, definition: &str, times: i32) {
    for failures in 1..=times {
        let waits = format!("definition = '{definition}' and state = 'retryable' and failures = {failures}");
        db.until(&format!("exists (select from rowbeat.tasks where {waits})")).await;
        let apart: bool = db
            .get(&format!("select bool_and(a.retry_at - a.ended_at = interval '10 seconds') from rowbeat.attempt a where a.definition = '{definition}'"))
            .await;
        assert!(apart, "tries are ten seconds apart");
        assert_eq!(db.get::<String>("select status from statement.notification").await, "processing");
        db.run(&format!("select rowbeat.run_now(id) from rowbeat.tasks where {waits}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_channel_that_fails_is_tried_four_times_and_keeps_no_other_from_succeeding() {
    let db = statement().await;
    db.run("update statement.sender set simulate_failures = -1 where medium = 'sms'").await;
    let _daemon = db.daemon().ready().await;
    post(&db, json!(["sms", "email"])).await;
    db.until("(select bool_and(attempts = 1) from statement.notification_log)").await;
    assert_eq!(
        logs(&db).await,
        json!([["sms", "failed", 1, "simulated failure"], ["email", "success", 1, ""]])
    );
    hurry(&db, "statement.send_log", 3).await;
    until_status(&db, "failed").await;
    assert_eq!(
        logs(&db).await,
        json!([["sms", "failed", 4, "simulated failure"], ["email", "success", 1, ""]])
    );
    assert_eq!(db.get::<i64>("select count(*) from statement.simulated_message").await, 1);
    // A new round is for what failed.
    db.run("update statement.sender set simulate_failures = 1 where medium = 'sms'").await;
    assert_eq!(db.get::<i32>("select statement.resend(max(id)) from statement.notification").await, 1);
    hurry(&db, "statement.send_log", 1).await;
    until_status(&db, "sent").await;
    assert_eq!(logs(&db).await, json!([["sms", "success", 6, ""], ["email", "success", 1, ""]]));
    assert_eq!(db.get::<i32>("select simulate_failures from statement.sender where medium = 'sms'").await, 0);
    assert_eq!(db.get::<i64>("select count(*) from statement.simulated_message").await, 2);
    assert_eq!(db.get::<i32>("select statement.resend(max(id)) from statement.notification").await, 0);
    assert_eq!(db.refusal("select statement.resend(-1)").await.0, "RP404");
}

#[tokio::test(flavor = "multi_thread")]
async fn s18_no_logs_and_an_unknown_medium_are_ends_too() {
    let db = statement().await;
    let _daemon = db.daemon().ready().await;
    db.run(
        "insert into statement.notification (id, title, body) values (101, 't', 'b'), (102, 't', 'b');
         insert into statement.notification_log (notification_id, medium) values (102, 'fax');
         select rowbeat.enqueue('statement.send_notification', jsonb_build_object('notification_id', n)) from unnest('{101,102,103}'::bigint[]) n",
    )
    .await;
    db.until("(select count(*) = 3 from rowbeat.tasks where definition = 'statement.send_notification' and state = 'completed')").await;
    until_status(&db, "failed").await;
    assert_eq!(logs(&db).await, json!([["fax", "failed", 1, "Unsupported medium: fax"]]));
    assert!(db.get::<bool>("select last_attempt_at is not null from statement.notification_log").await);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.tasks where definition = 'statement.send_log'").await,
        0,
        "it is not retried"
    );
    // An inactive medium is none, also for those that are tried again already.
    db.run("update statement.sender set simulate_failures = -1 where medium = 'sms'").await;
    let id = post(&db, json!(["sms"])).await;
    db.until(
        "exists (select from rowbeat.tasks where definition = 'statement.send_log' and state = 'retryable')",
    )
    .await;
    db.run("update statement.sender set is_active = false where medium = 'sms'; select rowbeat.run_now(id) from rowbeat.tasks where definition = 'statement.send_log'").await;
    db.until(&format!("(select status = 'failed' from statement.notification where id = {id})")).await;
    assert_eq!(logs(&db).await[1], json!(["sms", "failed", 2, "Unsupported medium: sms"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_twice_also_at_the_same_moment_sends_once() {
    let db = statement().await;
    let id = post(&db, json!(["sms", "email", "telegram"])).await;
    let again = format!(
        "select rowbeat.enqueue('statement.send_notification', '{{\"notification_id\": {id}}}') from generate_series(1, 20)"
    );
    db.run(&again).await;
    db.run("select rowbeat.enqueue('statement.send_log', jsonb_build_object('log_id', l.id)) from statement.notification_log l, generate_series(1, 5)").await;
    let (_one, _other) =
        (db.daemon().ready().await, db.daemon_with("[node]\nname = \"other\"", &[]).ready().await);
    db.until("not exists (select from rowbeat.task where definition like 'statement.send%')").await;
    assert_eq!(db.get::<i64>("select count(*) from statement.simulated_message").await, 3);
    assert_eq!(db.get::<i64>("select sum(attempts)::bigint from statement.notification_log").await, 3);
    until_status(&db, "sent").await;
    db.run(&again).await;
    db.until("not exists (select from rowbeat.task where definition like 'statement.send%')").await;
    assert_eq!(db.get::<i64>("select count(*) from statement.simulated_message").await, 3);
    until_status(&db, "sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_n_simulated_sends_fail_and_no_more() {
    let db = statement().await;
    db.run("update statement.sender set simulate_failures = 3 where medium = 'sms'").await;
    let _daemon = db.daemon().ready().await;
    for _ in 0..8 {
        post(&db, json!(["sms"])).await;
    }
    db.until("(select bool_and(attempts > 0) from statement.notification_log)").await;
    assert_eq!(
        db.get::<i64>("select count(*) from statement.notification_log where status = 'failed'").await,
        3
    );
    assert_eq!(db.get::<i32>("select simulate_failures from statement.sender where medium = 'sms'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_provider_gets_the_template_and_the_logs_id_and_is_asked_again_when_it_refuses() {
    let db = statement().await;
    let web = Web::start(|seen, count| match (seen.line.as_str(), count) {
        ("POST /sms", 1) => answer(500, &[], "not now"),
        ("POST /sms", 2) => answer(422, &[], "not this"),
        _ => answer(200, &[], "{}"),
    })
    .await;
    let gateway = web
        .connection("gateway", "")
        .replace(&format!("http://{}", web.address), &format!("http://{}/sms", web.address));
    db.run(
        "update statement.sender set kind = 'http', connection = 'gateway', template = '{\"to\": {{ address | tojson }}, \"text\": {{ (title ~ \": \" ~ body) | tojson }}}'
         where medium = 'sms';
         update statement.sender set kind = 'http', connection = 'plain' where medium = 'telegram';
         insert into statement.recipient (user_id, medium, address) values ('7', 'sms', '+98 \"1\"'), ('7', 'telegram', '@seven')",
    )
    .await;
    let _daemon = db.daemon_with(&format!("{gateway}\n{}", web.connection("plain", "")), &[]).ready().await;
    post(&db, json!(["sms", "telegram", "email"])).await;
    hurry(&db, "statement.send_log_http", 2).await;
    until_status(&db, "sent").await;
    let logs = logs(&db).await;
    assert_eq!(
        logs,
        json!([["sms", "success", 3, ""], ["telegram", "success", 1, ""], ["email", "success", 1, ""]])
    );
    let id: i64 = db.get("select id from statement.notification_log where medium = 'sms'").await;
    let seen = web.seen();
    let sms: Vec<_> = seen.iter().filter(|seen| seen.line == "POST /sms").collect();
    assert_eq!(sms.len(), 3);
    for request in sms {
        assert_eq!(request.header("idempotency-key"), id.to_string(), "the same at every try");
        assert_eq!(
            serde_json::from_slice::<Value>(&request.body).unwrap(),
            json!({ "to": "+98 \"1\"", "text": "Alert: You paid." })
        );
    }
    let other = seen.iter().find(|seen| seen.line == "POST /").unwrap();
    let body: Value = serde_json::from_slice(&other.body).unwrap();
    assert_eq!(
        (&body["address"], &body["title"], &body["body"]),
        (&json!("@seven"), &json!("Alert"), &json!("You paid."))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_has_the_title_as_its_subject_and_without_an_address_nothing_is_sent() {
    let db = statement().await;
    let postbox = Postbox::start(Security::None, &Identity::for_host("localhost"), None).await;
    db.run(
        "update statement.sender set kind = 'smtp', connection = 'mail' where medium = 'email';
         update statement.sender set kind = 'http', connection = 'nowhere' where medium = 'sms';
         insert into statement.recipient (user_id, medium, address) values ('7', 'email', 'seven@b.example')",
    )
    .await;
    let _daemon = db.daemon_with(&postbox.connection("mail", "tls = \"none\""), &[]).ready().await;
    post(&db, json!(["email", "sms"])).await;
    until_status(&db, "failed").await;
    assert_eq!(
        logs(&db).await,
        json!([["email", "success", 1, ""], ["sms", "failed", 1, "No sms address for user 7"]])
    );
    let id: i64 = db.get("select id from statement.notification_log where medium = 'email'").await;
    let mail = &postbox.mails()[0];
    assert_eq!(mail.to, ["seven@b.example"]);
    assert!(mail.text.contains("Subject: Alert\r\n") && mail.text.contains("You paid."), "{}", mail.text);
    assert!(mail.text.contains(&format!("<statement-log-{id}-")), "{}", mail.text);
    db.run("update statement.sender set template = 'Dear {{ user_id }}, {{ body }}' where medium = 'email'; delete from statement.notification").await;
    db.get::<i64>("select statement.create_notification('7', E'Two\\nlines', 'see you', '[\"email\"]')")
        .await;
    until_status(&db, "sent").await;
    let mail = &postbox.mails()[1];
    assert!(
        mail.text.contains("Subject: Two lines\r\n") && mail.text.contains("Dear 7, see you"),
        "{}",
        mail.text
    );
    // Nobody of that name: refused for good, and tried again all the same.
    db.run(
        "update statement.recipient set address = 'unknown@b.example'; delete from statement.notification",
    )
    .await;
    post(&db, json!(["email"])).await;
    db.until("exists (select from statement.notification_log where status = 'failed' and attempts = 1)")
        .await;
    let pause = "select extract(epoch from retry_at - ended_at)::float8 from rowbeat.attempt where definition = 'statement.send_log_smtp'";
    db.until("exists (select from rowbeat.attempt where definition = 'statement.send_log_smtp')").await;
    assert!((db.get::<f64>(pause).await - 10.0).abs() < 0.001);
    db.run(
        "update rowbeat.task set failures = 3, run_at = now() where definition = 'statement.send_log_smtp'",
    )
    .await;
    until_status(&db, "failed").await;
    assert!(logs(&db).await[0][3].as_str().unwrap().contains("550"), "{}", logs(&db).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_the_senders_row_is_the_whole_act_of_plugging_in_another_provider() {
    let db = statement().await;
    let web = Web::start(|_, _| answer(503, &[], "")).await;
    db.run(
        "update statement.sender set simulate_failures = -1 where medium = 'sms';
         insert into statement.recipient (user_id, medium, address) values ('7', 'sms', '1')",
    )
    .await;
    let _daemon = db.daemon_with(&web.connection("gateway", ""), &[]).ready().await;
    post(&db, json!(["sms"])).await;
    hurry(&db, "statement.send_log", 1).await;
    db.until("exists (select from rowbeat.tasks where definition = 'statement.send_log' and failures = 2 and state = 'retryable')").await;
    // With two tries left another provider takes over, and gives the last of them back.
    db.run("update statement.sender set kind = 'http', connection = 'gateway' where medium = 'sms'; select rowbeat.run_now(id) from rowbeat.tasks where definition = 'statement.send_log'").await;
    db.until("exists (select from rowbeat.tasks where definition = 'statement.send_log_http' and failures = 1 and state = 'retryable')").await;
    assert_eq!(logs(&db).await[0][2], 3);
    db.run("update statement.sender set kind = 'simulate', simulate_failures = -1 where medium = 'sms'; select rowbeat.run_now(id) from rowbeat.tasks where definition = 'statement.send_log_http'").await;
    until_status(&db, "failed").await;
    assert_eq!(logs(&db).await, json!([["sms", "failed", 4, "simulated failure"]]), "four tries in all");
    assert_eq!(web.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_not_sent_again_when_its_node_dies() {
    let db = statement().await;
    db.run(
        "update statement.sender set kind = 'http', connection = 'gateway' where medium = 'sms';
         insert into statement.recipient (user_id, medium, address) values ('7', 'sms', '1')",
    )
    .await;
    let web = Web::start(|_, _| answer(200, &[], "")).await;
    let config = web.connection("gateway", "");
    let daemon = db.daemon_with(&config, &[]).ready().await;
    // The ending of the attempt waits for the notification, whose lock is held; the answer is on record by then.
    let id = post(&db, json!(["sms"])).await;
    db.until("exists (select from rowbeat.task where definition = 'statement.send_log_http')").await;
    let holder = db.session().await;
    holder
        .batch_execute(&format!("begin; select from statement.notification where id = {id} for update"))
        .await
        .unwrap();
    let recorded = "exists (select from rowbeat.step) or exists (select from statement.notification_log where status = 'success')";
    db.until(recorded).await;
    daemon.kill9();
    holder.batch_execute("commit").await.unwrap();
    let _again = db.daemon_with(&config, &[]).ready().await;
    until_status(&db, "sent").await;
    assert_eq!(web.seen().len(), 1);
    assert_eq!(logs(&db).await[0][1], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_whose_tasks_were_cancelled_does_not_stay_processing() {
    let db = statement().await;
    db.run("update statement.sender set simulate_failures = -1 where medium = 'sms'").await;
    let _daemon = db.daemon().ready().await;
    post(&db, json!(["sms", "email"])).await;
    db.until("(select bool_and(attempts = 1) from statement.notification_log)").await;
    db.run("select rowbeat.cancel(id) from rowbeat.task where definition = 'statement.send_log'").await;
    assert_eq!(
        db.get::<Value>("select statement.sweep('{}')").await,
        json!({ "ended": 0 }),
        "it may be on its way"
    );
    db.run("update statement.notification set updated_at = updated_at - interval '6 minutes'").await;
    db.run("select statement.sweep('{}')").await;
    until_status(&db, "failed").await;
    assert_eq!(logs(&db).await[0], json!(["sms", "failed", 1, "simulated failure"]));
}
