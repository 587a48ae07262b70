//! Secrets of plugins (passwords, their hashes, one-time codes) stand in the columns that are their homes, and nowhere else: not in payloads,
//! results, history, the change log, events, files, settings, nor in what is mailed, notified or logged. A plugin's test does what makes
//! secrets travel, and asks `kept_nowhere_but` with its homes.

use serde_json::Value;

use crate::cli::rowbeat;
use crate::freight::{A, freight, post};
use crate::freight_alert::{Heard, alert, settled};
use crate::harness::TestDb;

/// Looks through every column of every table. A home is `schema.table.column`; `elsewhere` are texts that left the database.
pub(crate) async fn kept_nowhere_but(db: &TestDb, homes: &[&str], secrets: &[&str], elsewhere: &[&str]) {
    let tables: Vec<String> = db
        .get(
            "select array_agg(c.oid::regclass::text order by c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind in ('r', 'm') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'",
        )
        .await;
    assert!(tables.len() > 100, "the partitions are looked at, too");
    for table in tables {
        let columns: Vec<String> = db
            .get_with(
                &format!(
                    "select coalesce(array_agg(distinct '{table}.' || f.key), '{{}}') from {table} t
                     cross join lateral jsonb_each_text(to_jsonb(t)) f cross join unnest($1::text[]) s
                     where position(s in f.value) > 0 or position(encode(convert_to(s, 'UTF8'), 'hex') in f.value) > 0"
                ),
                &[&secrets],
            )
            .await;
        let lost: Vec<&String> = columns.iter().filter(|column| !homes.contains(&column.as_str())).collect();
        assert!(lost.is_empty(), "a secret stands in {lost:?}");
    }
    for secret in secrets {
        assert!(elsewhere.iter().all(|text| !text.contains(secret)), "{secret} left the database");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_stands_anywhere_is_found() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.home (code text, copy text); insert into public.home values ('c0de-1', null)",
    )
    .await;
    let look = || kept_nowhere_but(&db, &["home.code"], &["c0de-1"], &[]);
    look().await;
    for leak in [
        "update public.home set copy = 'is c0de-1'",
        "select rowbeat.enqueue('add_effect', '{\"deep\": [\"c0de-1\"]}')",
        "insert into rowbeat.setting (name, value) values ('x', '\"c0de-1\"')",
    ] {
        db.run(&format!("begin; {leak}")).await;
        // What is looked for in this transaction is found in it.
        let found = std::panic::AssertUnwindSafe(look());
        assert!(futures_util::FutureExt::catch_unwind(found).await.is_err(), "{leak}");
        db.run("rollback").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freight_keeps_no_secret_but_in_its_home() {
    let db = freight().await.with_effects().await;
    let (postbox, config) = post().await;
    let daemon = db.daemon_with(&config, &[]).ready().await;
    let ear = Heard::on(&db, &["new_or_updated_app_user", "deleted_app_user"]).await;
    let mails = [
        ("email_recipients", "'ann@a.example'"),
        ("task_definition", "'add_effect'"),
        ("sink_topic", "'users'"),
    ];
    db.run(&alert(
        "(select id from freight.organization where name = 'A')",
        "both",
        "app_user",
        "BOTH",
        &mails,
    ))
    .await;
    db.run(&alert(A, "gone", "app_user", "DELETE", &mails)).await;
    db.run("update rowbeat.plugin_setting set value = 'true' where name = 'notify_rows'").await;
    let given = "s3cret-of-the-system";
    rowbeat(&db, &["createsystemuser", "--password", given, "--organization", "a"]).ok();
    rowbeat(&db, &["createsystemuser", "--password", given, "--organization", "a"])
        .refused(1, &["already exists"]);
    let made = rowbeat(&db, &["createtestusers", "--organization", "a", "--count", "2", "--json"]).json();
    let generated = made["generated"]["password"].as_str().unwrap().to_owned();
    let hashes: Vec<String> = db.get("select array_agg(password_hash::text) from freight.app_user").await;
    db.run("update freight.app_user set is_staff = not is_staff; delete from freight.app_user where username = 'testuser-1'").await;
    settled(&db).await;
    assert_eq!(
        db.get::<i64>("select count(*) from freight.alert_event").await,
        7,
        "three made, three changed, one gone"
    );
    db.until("(select count(*) = 7 from rowbeat.tasks where definition = 'freight.send_table_change_alert' and state = 'completed')").await;
    db.until("(select count(*) = 7 from rowbeat.tasks where definition = 'add_effect' and finished_at is not null)").await;
    let mut elsewhere: Vec<String> = postbox.mails().into_iter().map(|mail| mail.text).collect();
    let heard = ear.all().await;
    assert_eq!((elsewhere.len(), heard.len()), (7, 7));
    assert!(
        heard.iter().all(|said| serde_json::from_str::<Value>(said).unwrap()["username"].is_string()),
        "with rows"
    );
    elsewhere.extend(heard);
    elsewhere.push(daemon.log());
    let secrets: Vec<&str> =
        [given, &generated, "argon2id"].into_iter().chain(hashes.iter().map(String::as_str)).collect();
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    let homes = ["freight.app_user.password_hash"];
    let texts = ["rowbeat.plugin_file.content", "rowbeat.plugin.manifest"];
    kept_nowhere_but(&db, &homes, &secrets[..2], &elsewhere).await;
    kept_nowhere_but(&db, &[&homes[..], &texts[..]].concat(), &secrets[2..], &elsewhere).await;
}
