//! The smtp executor, by a real daemon against real mail servers on the loopback.

use serde_json::{Value, json};

use crate::harness::TestDb;
use crate::postbox::{Identity, Postbox, Security};

async fn define(db: &TestDb, name: &str, effect: Value) {
    let sql = "insert into rowbeat.task_definition (name, executor, effect, max_attempts, backoff) values ($1, 'smtp', $2, 3, '10 ms') returning name";
    db.get_with::<String>(sql, &[&name, &effect]).await;
}

#[tokio::test]
async fn a_mail_is_made_by_templates_and_sent_encrypted_and_logged_in() {
    let db = TestDb::new().await;
    let identity = Identity::for_host("localhost");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name).display().to_string()
    };
    let account = Some(("shop", "hunter2"));
    let starttls = Postbox::start(Security::StartTls, &identity, account).await;
    let implicit = Postbox::start(Security::Implicit, &identity, account).await;
    let keys = format!(
        "username = \"shop\"\npassword_file = \"{}\"\nca_file = \"{}\"\nhello_name = \"me.example\"\n",
        file("password", "hunter2\n"),
        file("ca.pem", &identity.pem)
    );
    let config = starttls.connection("starttls", &keys)
        + &implicit.connection("implicit", &format!("tls = \"implicit\"\n{keys}"));
    for connection in ["starttls", "implicit"] {
        let template =
            json!({ "subject": "Invoice {{ id }}", "text": "Dear {{ name }}", "html": "<p>Dear {{ name }}" });
        let file = json!({ "name": "i.txt", "content_type": "text/plain", "base64": "aGVsbG8=" });
        let effect = json!({ "connection": connection, "to": "Ann <ann@b.example>", "cc": ["c@b.example"], "bcc": "secret@b.example", "template": template, "attachments": [file] });
        define(&db, connection, effect).await;
    }
    let daemon = db.daemon_with(&config, &[]).ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('starttls', '{\"id\": 1, \"name\": \"Ann & Bob\"}'), ('implicit', '{\"id\": 2, \"name\": \"Ann & Bob\"}')").await;
    db.until("select count(*) = 2 from rowbeat.tasks where state = 'completed'").await;
    for (name, postbox, id) in [("starttls", &starttls, 1), ("implicit", &implicit, 2)] {
        let mails = postbox.mails();
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        assert!(
            mail.encrypted && mail.user.as_deref() == Some("shop") && mail.hello == "me.example",
            "{mail:?}"
        );
        assert_eq!(
            (mail.from.as_str(), mail.to.join(" ")),
            ("shop@a.example", "ann@b.example c@b.example secret@b.example".into())
        );
        let text = &mail.text;
        assert!(
            text.contains(&format!("Subject: Invoice {id}\r\n"))
                && text.contains("From: \"The Shop\" <shop@a.example>\r\n"),
            "{text}"
        );
        assert!(
            text.contains("Dear Ann & Bob")
                && text.contains("<p>Dear Ann &amp; Bob")
                && !text.contains("secret@"),
            "{text}"
        );
        let result: Value = db
            .get_with(
                "select result || jsonb_build_object('id', id) from rowbeat.tasks where definition = $1",
                &[&name],
            )
            .await;
        let message_id = format!("<rowbeat-{}-1@a.example>", result["id"]);
        assert!(text.contains(&format!("Message-ID: {message_id}\r\n")), "{text}");
        assert_eq!(
            (&result["message_id"], &result["code"], &result["text"]),
            (&json!(message_id), &json!(250), &json!("2.0.0 queued as 42"))
        );
    }
    assert!(
        !daemon.log().contains("hunter2") && !daemon.log().contains("ann@b.example"),
        "neither secrets nor people are logged"
    );
}

#[tokio::test]
async fn a_4yz_is_retried_a_5yz_is_not_and_the_message_id_stays() {
    let db = TestDb::new().await;
    let postbox = Postbox::start(Security::None, &Identity::for_host("localhost"), None).await;
    for name in ["busy", "unknown", "fine"] {
        define(&db, name, json!({ "connection": "mail", "to": ["ok@b.example", format!("{name}@b.example")], "subject": "s", "text": ".\r\ndot" })).await;
    }
    define(
        &db,
        "wrong",
        json!({ "connection": "mail", "to": "ok@b.example", "subject": "a\nb", "text": "t" }),
    )
    .await;
    define(&db, "template", json!({ "connection": "mail", "to": "ok@b.example", "subject": "s", "template": { "text": "{{ missing }}" } })).await;
    let _daemon = db.daemon_with(&postbox.connection("mail", "tls = \"none\""), &[]).ready().await;
    db.run("insert into rowbeat.task (definition) select name from rowbeat.task_definition").await;
    db.until("select count(*) = 5 from rowbeat.tasks where finished_at is not null").await;
    let ended: Value = db.get("select jsonb_object_agg(definition, jsonb_build_array(outcome, failures, error -> 'code', error ->> 'message')) from rowbeat.tasks").await;
    assert_eq!(ended["busy"], json!(["done", 1, null, null]), "{ended}");
    assert_eq!(
        ended["unknown"],
        json!(["rejected", 1, 550, "smtp localhost: 550 5.1.1 nobody of that name"])
    );
    assert_eq!(ended["fine"][0], "done");
    assert_eq!(
        ended["wrong"],
        json!(["rejected", 1, null, "subject has a line break or another control character in it"])
    );
    assert!(
        ended["template"][3].as_str().unwrap().starts_with("template text, line 1: undefined value"),
        "{ended}"
    );
    let mails = postbox.mails();
    assert_eq!(mails.len(), 2, "all recipients or none");
    let id: i64 = db.get("select id from rowbeat.tasks where definition = 'busy'").await;
    let busy = mails.iter().find(|mail| mail.to.contains(&"busy@b.example".into())).unwrap();
    assert!(
        busy.text.contains(&format!("<rowbeat-{id}-1@a.example>")),
        "the second attempt has the first one's id"
    );
    assert!(busy.text.contains("\r\n\r\n.\r\ndot\r\n"), "{:?}", busy.text);
    let kept: Value = db.get("select error from rowbeat.attempt where error ->> 'code' = '451'").await;
    assert_eq!(kept["text"], "4.3.0 come back");
}

#[tokio::test]
async fn a_server_without_starttls_a_stranger_and_a_refused_login_are_retried() {
    let db = TestDb::new().await;
    let identity = Identity::for_host("localhost");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong").unwrap();
    let plain = Postbox::start(Security::None, &identity, None).await;
    let stranger = Postbox::start(Security::StartTls, &identity, None).await;
    let locked = Postbox::start(Security::None, &identity, Some(("shop", "hunter2"))).await;
    let login = format!("tls = \"none\"\nusername = \"shop\"\npassword_file = \"{}\"", password.display());
    let config = plain.connection("plain", "")
        + &stranger.connection("stranger", "")
        + &locked.connection("locked", &login);
    for name in ["plain", "stranger", "locked"] {
        define(&db, name, json!({ "connection": name, "to": "ok@b.example", "subject": "s", "text": "t" }))
            .await;
    }
    let daemon = db.daemon_with(&config, &[]).ready().await;
    db.run("insert into rowbeat.task (definition) select name from rowbeat.task_definition").await;
    db.until("select count(*) = 3 from rowbeat.tasks where outcome = 'failed' and failures = 3").await;
    let errors: Value = db.get("select jsonb_object_agg(definition, error) from rowbeat.tasks").await;
    assert!(errors["plain"]["message"].as_str().unwrap().contains("STARTTLS"), "{errors}");
    assert!(errors["stranger"]["message"].as_str().unwrap().contains("certificate"), "{errors}");
    assert_eq!(errors["locked"]["code"], 535, "{errors}");
    assert!(plain.mails().is_empty() && stranger.mails().is_empty() && locked.mails().is_empty());
    daemon.says("password is sent without encryption").await;
}

#[tokio::test]
async fn sessions_are_reused_but_never_one_that_was_left_half_way() {
    let db = TestDb::new().await;
    let postbox = Postbox::start(Security::None, &Identity::for_host("localhost"), None).await;
    for name in ["ok", "slow"] {
        let effect =
            json!({ "connection": "mail", "to": format!("{name}@b.example"), "subject": "s", "text": "t" });
        define(&db, name, effect).await;
    }
    db.run("update rowbeat.task_definition set timeout = '300 ms', max_attempts = 1 where name = 'slow'")
        .await;
    let config = postbox.connection("mail", "tls = \"none\"") + "[node]\nconcurrency = 1\n";
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    for (number, name) in ["ok", "ok", "slow", "ok", "ok"].iter().enumerate() {
        db.run(&format!("insert into rowbeat.task (definition) values ('{name}')")).await;
        db.until(&format!("select count(*) = {number} + 1 from rowbeat.tasks where finished_at is not null"))
            .await;
    }
    let ended: Vec<String> = db.get("select array_agg(outcome order by id) from rowbeat.tasks").await;
    assert_eq!(ended, ["done", "done", "timed_out", "done", "done"]);
    let sessions: Vec<usize> = postbox.mails().iter().map(|mail| mail.session).collect();
    assert_eq!(sessions, [1, 1, 2, 2]);
}
