//! Freight's commands as a person or a script runs them: what they ask and print, and that passwords leave nothing but a hash.

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use serde_json::{Value, json};

use crate::cli::{Ran, finish, rowbeat};
use crate::freight::freight;
use crate::harness::{PATIENCE, TestDb, server};

fn typed(db: &TestDb, arguments: &[&str], input: &str) -> Ran {
    finish(server().rowbeat(&db.name), arguments, input)
}

async fn verifies(db: &TestDb, user: &str, password: &str) -> bool {
    let hash: String =
        db.get_with("select password_hash from freight.app_user where username = $1", &[&user]).await;
    assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
    argon2::Argon2::default().verify_password(password.as_bytes(), &PasswordHash::new(&hash).unwrap()).is_ok()
}

/// Everything that a refused command could have left.
async fn rows(db: &TestDb) -> Value {
    db.get("select jsonb_build_array((select count(*) from freight.organization), (select count(*) from freight.app_user),
        (select count(*) from freight.job_title), (select count(*) from freight.user_profile), (select count(*) from freight.billing_control))").await
}

#[tokio::test(flavor = "multi_thread")]
async fn m16_setupcelerybeat_prints_what_scripts_look_for() {
    let db = freight().await;
    let run = || rowbeat(&db, &["app", "freight", "setupcelerybeat"]).ok();
    assert_eq!(run(), "Celery beat configurations created successfully.\n");
    assert_eq!(db.get::<i64>("select count(*) from freight.interval_schedule").await, 1087);
    let periods: Value = db.get("select jsonb_object_agg(period, n) from (select period, array[min(every), max(every), count(*)] as n from freight.interval_schedule group by period) p").await;
    assert_eq!(
        periods,
        json!({ "microseconds": [1, 999, 999], "minutes": [1, 59, 59], "hours": [1, 23, 23], "days": [1, 6, 6] })
    );
    assert_eq!(run(), "Celery beat configurations already exist.\n");
    db.run("delete from rowbeat.schedule where name = 'send_expired_rates_notification'").await;
    assert_eq!(rowbeat(&db, &["setup_celery_beat"]).code, Some(2), "no name but its own");
    assert_eq!(rowbeat(&db, &["setupcelerybeat"]).ok(), "Celery beat configurations created successfully.\n");
    let schedule: Value = db.get("select jsonb_build_array(spec, definition, enabled, overlap, catch_up) from rowbeat.schedule where name = 'send_expired_rates_notification'").await;
    assert_eq!(
        schedule,
        json!(["every 1 day", "dispatch.tasks.send_expired_rates_notification", true, "skip", "last"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m18_wait_for_db_asks_ever_more_slowly_until_a_query_is_answered() {
    let db = TestDb::empty().await;
    let late = format!("late_{}", db.name);
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = server().rowbeat(&late);
    let mut waiting = command
        .arg("wait_for_db")
        .stdout(out.reopen().unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(out.path()).unwrap();
    let begun = std::time::Instant::now();
    while !said().contains("waiting 4 second(s)...\n") {
        assert!(begun.elapsed() < PATIENCE, "{}", said());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    db.run(&format!("create database {late}")).await;
    let ended = tokio::task::spawn_blocking(move || waiting.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(
        said().lines().collect::<Vec<_>>(),
        [
            "Waiting for database...",
            "Database unavailable, waiting 1 second(s)...",
            "Database unavailable, waiting 2 second(s)...",
            "Database unavailable, waiting 4 second(s)...",
            "Database available!"
        ]
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[database\n").unwrap();
    let unreadable = rowbeat(&db, &["wait_for_db", "--config", file.path().to_str().unwrap()]);
    assert_eq!((unreadable.code, unreadable.out.as_str()), (Some(78), ""), "{unreadable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn m19_createsystemuser_makes_one_user_whose_password_is_a_hash() {
    let db = freight().await;
    let before = rows(&db).await;
    let create = |more: &[&str]| {
        rowbeat(&db, &[&["app", "freight", "createsystemuser", "--password", "p-Ünsafe"], more].concat())
    };
    create(&["--email", "nobody@"]).refused(1, &["Invalid email address\n"]);
    create(&["--username", "a-b"]).refused(1, &["Invalid username\n"]);
    create(&["--username", ""]).refused(1, &["Invalid username\n"]);
    assert_eq!(rows(&db).await, before, "a refused command leaves no trace");
    assert_eq!(create(&[]).ok(), "System user account created!\n");
    assert!(verifies(&db, "sys", "p-Ünsafe").await && !verifies(&db, "sys", "p").await);
    let made: Value = db.get("select jsonb_build_array(u.username, u.email, u.is_active, u.is_staff, u.is_superuser, o.name, o.scac_code, t.name, t.job_function)
        from freight.app_user u join freight.organization o on o.id = u.organization_id join freight.job_title t on t.id = u.job_title_id").await;
    assert_eq!(
        made,
        json!(["sys", "system@monta.io", true, true, true, "Sys", "SYS", "System", "SYS_ADMIN"])
    );
    let profile: Value = db.get("select to_jsonb(array[first_name, last_name, address_line_1, city, state, zip_code, phone_number]::text[]) from freight.user_profile").await;
    assert_eq!(profile, json!(["System", "User", "1234 Main St.", "Anytown", "NY", "12345", "123-456-7890"]));
    let after = rows(&db).await;
    create(&[]).refused(1, &["User sys already exists\n"]);
    create(&["--username", "SYS", "--organization", "new"]).refused(1, &["User SYS already exists\n"]);
    assert_eq!(rows(&db).await, after);
    create(&["--username", "other", "--email", "o@b.example", "--organization", "SYS"]).ok();
    assert_eq!(rows(&db).await, json!([3, 2, 1, 2, 3]), "the organization is found regardless of case");
    create(&["--username", "third", "--email", "t@b.example", "--organization", "brand new"]).ok();
    let new: Value = db.get("select jsonb_build_array(name, scac_code) from freight.organization where lower(name) = 'brand new'").await;
    assert_eq!(new, json!(["Brand New", "BRAN"]));
    let asked =
        typed(&db, &["createsystemuser", "--username", "asked", "--email", "a@b.example"], "typed-pw\n").ok();
    assert_eq!(asked, "System user account created!\n");
    assert!(verifies(&db, "asked", "typed-pw").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn m20_createtestusers_asks_for_what_is_missing_and_prints_one_random_password() {
    let db = freight().await;
    db.run("insert into freight.app_user (organization_id, username, email, password_hash) select id, 'testuser-1', 'x@b.example', '$argon2id$v=19$x' from freight.organization where name = 'A'").await;
    let before = rows(&db).await;
    for count in ["abc", "-1", "1.5", "2x"] {
        rowbeat(&db, &["app", "freight", "createtestusers", "--organization", "a", "--count", count])
            .refused(1, &[&format!("{count} is not a valid number.\n")]);
        typed(&db, &["app", "freight", "createtestusers"], &format!("a\n{count}\n"))
            .refused_last(&format!("{count} is not a valid number."));
    }
    rowbeat(&db, &["createtestusers", "--organization", "X", "--count", "3"])
        .refused(1, &["Organization X does not exist.\n"]);
    assert_eq!(rows(&db).await, before, "nothing changed");
    let said = typed(&db, &["app", "freight", "createtestusers"], "a\n3\n");
    for prompt in [
        "What is the name of organization you'd like to add the test users to? ",
        "How many test users would you like to create? ",
    ] {
        assert!(said.err.contains(prompt), "{said:?}");
    }
    let said = said.ok();
    let (first, password) = said.split_once('\n').unwrap();
    assert_eq!(first, "Successfully created 2 test users.");
    let password = password.strip_prefix("password: ").unwrap().trim_end().to_owned();
    assert!(password.len() >= 20, "{said}");
    let names: Vec<String> = db.get("select array_agg(username || ' ' || email order by username) from freight.app_user where email like '%monta.io'").await;
    assert_eq!(names, ["testuser-0 testuser-0@monta.io", "testuser-2 testuser-2@monta.io"]);
    assert!(verifies(&db, "testuser-0", &password).await && verifies(&db, "testuser-2", &password).await);
    let profile: Value = db.get("select to_jsonb(array[p.first_name, p.last_name, p.address_line_1, p.city, p.state, p.zip_code, p.phone_number, t.name, t.job_function]::text[])
        from freight.user_profile p join freight.app_user u on u.id = p.user_id join freight.job_title t on t.id = u.job_title_id where u.username = 'testuser-2'").await;
    assert_eq!(
        profile,
        json!([
            "Test",
            "User-2",
            "123 Test Street",
            "Test City",
            "CA",
            "12345",
            "123-456-7890",
            "Test User",
            "TEST"
        ])
    );
    let again = rowbeat(&db, &["createtestusers", "--organization", "A", "--count", "4", "--json"]).json();
    assert_eq!(again["lines"], json!(["Successfully created 1 test users."]));
    let second = again["generated"]["password"].as_str().unwrap();
    assert_ne!(second, password, "never the same");
    assert!(verifies(&db, "testuser-3", second).await && verifies(&db, "testuser-0", &password).await);
    let given =
        rowbeat(&db, &["createtestusers", "--organization", "A", "--count", "5", "--password", "mine"]).ok();
    assert_eq!(given, "Successfully created 1 test users.\n", "one that is given is not printed");
    assert!(verifies(&db, "testuser-4", "mine").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn entitle_grants_and_revokes_what_an_organization_bought() {
    let db = freight().await;
    let entitled = "select coalesce(jsonb_agg(feature order by feature), '[]') from freight.entitlement e join freight.organization o on o.id = e.organization_id
        where o.name = 'A' and freight.is_entitled(o.id, e.feature, now())";
    for feature in ["billing", "auto_billing"] {
        assert_eq!(rowbeat(&db, &["entitle", "a", feature]).ok(), format!("A is entitled to {feature}.\n"));
    }
    assert_eq!(db.get::<Value>(entitled).await, json!(["auto_billing", "billing"]));
    assert!(db.get::<bool>("select freight.somebody_is_entitled()").await);
    rowbeat(&db, &["app", "freight", "entitle", "A", "billing", "--revoke"]).ok();
    assert_eq!(db.get::<Value>(entitled).await, json!(["auto_billing"]));
    assert!(!db.get::<bool>("select freight.somebody_is_entitled()").await);
    rowbeat(
        &db,
        &["entitle", "A", "billing", "--from", "2020-01-01T00:00:00Z", "--until", "2020-02-01T00:00:00Z"],
    )
    .ok();
    assert_eq!(db.get::<Value>(entitled).await, json!(["auto_billing"]), "its time is over");
    rowbeat(&db, &["entitle", "nobody", "billing"]).refused(1, &["Organization nobody does not exist."]);
    rowbeat(&db, &["entitle", "A", "everything"]).refused(2, &["feature"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_there_is_no_topic_to_choose() {
    let db = TestDb::empty().await;
    let ran = rowbeat(&db, &["kafka", "topics"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(rowbeat(&db, &["kafka", "topics", "--json"]).json(), json!([]));
}
