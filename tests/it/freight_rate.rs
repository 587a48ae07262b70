//! Rates of freight that run out, and mails: by a real daemon and a real mail server.

use serde_json::{Value, json};

use crate::freight::{A, B, freight, post};
use crate::harness::TestDb;

/// Rates around 2023-05-31, which is today in the zone of everybody.
async fn rates(db: &TestDb, organization: &str) {
    for (number, day) in [("R00001", "2023-05-30"), ("R00002", "2023-05-31"), ("R00003", "2023-06-01")] {
        db.run(&format!(
            "insert into freight.rate (organization_id, rate_number, effective_date, expiration_date) values ({organization}, '{number}', '2023-01-01', '{day}')"
        ))
        .await;
    }
}

/// Runs the notification as of 2023-05-31, as its task's function does.
async fn notify(db: &TestDb) -> i64 {
    db.run("select set_config('rowbeat.clock_offset', ('2023-05-31 12:00Z'::timestamptz - clock_timestamp())::text, false)").await;
    let sent = db.get("select (freight.send_expired_rates_notification() ->> 'mails')::bigint").await;
    db.run("reset rowbeat.clock_offset; update rowbeat.task set run_at = now()").await;
    sent
}

fn setting(organization: &str, recipients: &str) -> String {
    format!(
        "insert into freight.notification_setting (organization_id, email_recipients) values ({organization}, '{recipients}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn m21_m22_each_expired_rate_is_mailed_once_and_only_to_its_own_organization() {
    let db = freight().await;
    // Its first fire, at once, would be as of the real today.
    db.run("update rowbeat.schedule set enabled = false").await;
    let (postbox, config) = post().await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    rates(&db, A).await;
    db.run(&format!("{}; {}", setting(A, " ann@a.example ,,bob@a.example"), setting(B, "b@b.example"))).await;
    assert_eq!((notify(&db).await, notify(&db).await), (2, 0));
    db.until("(select count(*) = 2 from rowbeat.tasks where definition = 'freight.send_mail' and state = 'completed')").await;
    let mails = postbox.mails();
    assert_eq!(mails.len(), 2);
    for (number, mail) in ["R00001", "R00002"].iter().zip(&mails) {
        assert_eq!(mail.to, ["ann@a.example", "bob@a.example"]);
        assert!(mails.iter().any(|mail| {
            mail.text.contains(&format!("Subject: Notification: Rate {number} has expired\r\n"))
                && mail.text.contains(&format!("The rate with ID {number} has expired."))
        }));
    }
    assert_eq!(db.get::<i64>("select count(*) from freight.email_log where error is null and to_email = 'ann@a.example, bob@a.example'").await, 2);
    // A new date that passes is told again, the same one never.
    db.run("update freight.rate set expiration_date = '2023-05-29' where rate_number = 'R00001'").await;
    assert_eq!((notify(&db).await, notify(&db).await), (1, 0));
    // Its task does the same; by now the last one has run out, too.
    db.run("select rowbeat.enqueue('dispatch.tasks.send_expired_rates_notification')").await;
    db.until("exists (select from rowbeat.tasks where definition like 'dispatch.%' and state = 'completed' and result = '{\"mails\": 1}')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_tell_each_rate_once() {
    let db = freight().await;
    db.run(&format!(
        "insert into freight.rate (organization_id, effective_date, expiration_date) select {A}, '2020-01-01', '2020-02-01' from generate_series(1, 50)"
    ))
    .await;
    db.run(&setting(A, "ann@a.example")).await;
    let (one, two) = (db.session().await, db.session().await);
    let run = "select freight.send_expired_rates_notification()";
    let (first, second) = tokio::join!(one.batch_execute(run), two.batch_execute(run));
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'freight.send_mail'").await,
        50
    );
    assert_eq!(
        db.get::<i64>("select count(*) from freight.rate_expiration_notice where task_id is not null").await,
        50
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m23_custom_texts_are_filled_in_or_refused() {
    let db = freight().await;
    rates(&db, A).await;
    db.run(&setting(A, "ann@a.example")).await;
    db.run("update freight.notification_setting set custom_subject = 'Rate {rate.rate_number} due', custom_content = '{{{rate.expiration_date}}} {rate.comments}.'").await;
    assert_eq!(notify(&db).await, 2);
    let seen: Value = db.get("select jsonb_agg(jsonb_build_array(payload -> 'subject', payload -> 'text') order by id) from rowbeat.task where definition = 'freight.send_mail'").await;
    assert_eq!(seen, json!([["Rate R00001 due", "{2023-05-30} ."], ["Rate R00002 due", "{2023-05-31} ."]]));
    for text in ["{rate", "rate}", "{rate.nothing}", "{}", "{other.id}", "{{{rate.id}}"] {
        let refused =
            db.refusal(&format!("update freight.notification_setting set custom_subject = '{text}'")).await;
        assert_eq!(refused, ("RP400".into(), format!("{text} is not a valid format string")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_numbers_count_up_for_ever_and_in_parallel() {
    let db = freight().await;
    let add = |organization: &str| {
        format!(
            "insert into freight.rate (organization_id, effective_date, expiration_date) values ({organization}, '2020-01-01', '2099-01-01');"
        )
    };
    db.run(&add(A).repeat(3)).await;
    db.run("delete from freight.rate where rate_number = 'R00003'").await;
    db.run(&format!("{}{}", add(A), add(B))).await;
    let numbers = "select array_agg(rate_number || o.name order by rate_number || o.name) from freight.rate r join freight.organization o on o.id = r.organization_id";
    assert_eq!(db.get::<Vec<String>>(numbers).await, ["R00001A", "R00001B", "R00002A", "R00004A"]);
    db.run(&format!("insert into freight.rate (organization_id, rate_number, effective_date, expiration_date) values ({A}, 'R99998', '2020-01-01', '2099-01-01'); {}{}", add(A), add(A))).await;
    assert_eq!(
        db.get::<String>("select max(rate_number) from freight.rate where length(rate_number) = 7").await,
        "R100000"
    );
    let (one, two) = (db.session().await, db.session().await);
    let many = add(A).repeat(20);
    let (first, second) = tokio::join!(one.batch_execute(&many), two.batch_execute(&many));
    assert!(first.is_ok() && second.is_ok());
    let refused = db.refusal("update freight.rate set expiration_date = '2019-01-01'").await;
    assert_eq!(refused.1, "Expiration Date must be after Effective Date. Please correct and try again.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_s_mail_has_a_line_for_each_column_in_order_and_password_hashes_are_nowhere() {
    let db = freight().await;
    let (postbox, config) = post().await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run(&format!(
        "insert into freight.table_change_alert (organization_id, name, table_name, database_action, email_recipients, task_definition)
         values ({A}, 'people', 'app_user', 'BOTH', 'ann@a.example, bob@a.example', 'freight.sweep_alerts');
         update rowbeat.plugin_setting set value = 'true' where name = 'notify_rows';
         insert into freight.app_user (organization_id, username, email, password_hash) values ({A}, 'Carl', 'carl@a.example', '$argon2id$v=19$secret');
         update freight.app_user set password_hash = '$argon2id$v=20$secret', is_staff = true"
    ))
    .await;
    db.until("(select count(*) = 2 from rowbeat.tasks where definition = 'freight.send_table_change_alert' and state = 'completed')").await;
    let mails = postbox.mails();
    assert_eq!(mails.len(), 2);
    let text = mails
        .iter()
        .find(|mail| mail.text.contains("Field: is_staff, Value: false"))
        .unwrap()
        .text
        .replace("\r\n", "\n");
    assert!(
        text.contains("Subject: Table Change Alert: app_user\n")
            && text.contains("From: table_change@trenova.app"),
        "{text}"
    );
    let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} is missing: {text}"));
    assert!(at("Field: username, Value: carl\n") < at("Field: email, Value: carl@a.example\n"));
    assert!(at("Field: email") < at("Field: is_active, Value: true\n"));
    assert_eq!(mails[0].to, ["ann@a.example", "bob@a.example"]);
    // Everything that anybody could read later: live and ended tasks, the log, events, mails.
    db.until("not exists (select from rowbeat.task where definition <> 'freight.produce_event' and state = 'running')").await;
    for table in [
        "rowbeat.task",
        "rowbeat.finished_task",
        "rowbeat.attempt",
        "rowbeat.change",
        "rowbeat.step",
        "freight.alert_event",
        "freight.email_log",
    ] {
        let leaks: i64 =
            db.get(&format!("select count(*) from {table} t where t::text like '%argon2id%'")).await;
        assert_eq!(leaks, 0, "{table}");
    }
    assert!(mails.iter().all(|mail| !mail.text.contains("argon2id")));
    assert!(db.get::<i64>("select count(*) from rowbeat.change").await >= 2);
}
