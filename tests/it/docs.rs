//! The examples of the documents are true: each document's SQL runs top to bottom on a fresh database, a daemon does what it
//! asks for, and no task of it goes wrong.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::TestDb;

/// The fenced blocks of a language, in order.
fn fences(document: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            if line.trim_start_matches('`').trim() == language {
                found.push(block.join("\n"));
            }
        }
    }
    found
}

/// Runs a document's SQL, under a daemon with the document's configuration; the database, when all is done.
async fn played(document: &str) -> Option<TestDb> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let sql = fences(&text, "sql");
    if sql.is_empty() {
        return None;
    }
    let db = TestDb::new().await;
    // What the doorbell is off for is found by the poll.
    let toml = format!("[node]\npoll_interval = \"2s\"\n{}", fences(&text, "toml").join("\n"));
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    for block in &sql {
        // Each block in a session of its own; a reader does not hurry.
        let session = db.session().await;
        if let Err(error) = session.batch_execute(block).await {
            panic!("{document}: {}\n{block}", rowbeat::db::sqlstate::describe(&error));
        }
        settle(&db).await;
        let channels: Vec<String> =
            db.get("select coalesce(array_agg(name), '{}') from rowbeat.channel where enabled").await;
        for channel in channels {
            daemon.says(&format!("listening to channel channel=\"{channel}\"")).await;
        }
    }
    let wrong: Option<Value> =
        db.get("select jsonb_agg(to_jsonb(t)) from rowbeat.tasks t where t.error is not null").await;
    assert_eq!(wrong, None, "{document}: these tasks of its examples went wrong");
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
    Some(db)
}

/// Waits until every captured change is routed and every due task has ended or failed once.
async fn settle(db: &TestDb) {
    db.until(
        "not exists (select from rowbeat.change c, rowbeat.change_consumer r
             where r.name = 'router' and not pg_visible_in_snapshot(c.xid, r.position))
         and not exists (select from rowbeat.tasks t where t.state in ('available', 'running') and t.error is null)",
    )
    .await;
}

#[tokio::test]
async fn the_sql_api_page_runs_top_to_bottom() {
    let db = played("docs/sql-api.md").await.expect("the page has SQL");
    assert_eq!(db.get::<String>("select text from public.mail_log").await, "order 1 is paid, by alice");
    let answers: Value = db.get("select result from rowbeat.tasks where definition = 'echo_twice'").await;
    assert_eq!(answers["answers"], 2);
    let resized: Value = db
        .get("select jsonb_agg(jsonb_build_array(payload -> 'image', state, attempt) order by payload -> 'image') from rowbeat.tasks where definition = 'resize'")
        .await;
    assert_eq!(
        resized,
        json!([
            [7, "completed", 1],
            [8, "completed", 1],
            [9, "completed", 2],
            [10, "scheduled", 1],
            [11, "completed", 2]
        ])
    );
    let who: Value = db.get("select result from rowbeat.tasks where definition = 'who_am_i'").await;
    assert!(who.as_str().unwrap().ends_with("attempt 1"), "{who}");
    db.until("exists (select from rowbeat.tasks where cause ->> 'kind' = 'channel' and state = 'completed')")
        .await;
    let zone: String = db.get("select status from rowbeat.upcoming where name = 'nightly'").await;
    assert_eq!(zone, "planned");
}

#[tokio::test]
async fn the_readme_runs_top_to_bottom() {
    // Before there is SQL in it there is nothing to hold it to.
    let _ = played("README.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_tutorial_works_word_for_word() {
    let text = include_str!("../../docs/plugins.md");
    let db = TestDb::new().await;
    let daemon = db.daemon().ready().await;
    let dir = tempfile::tempdir().unwrap();
    let path = format!(
        "{}:{}",
        Path::new(crate::harness::BINARY).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let (mut files, mut commands) = (0, 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let block = block.join("\n");
        match info.split_once(' ') {
            Some((_, file)) => {
                let file = dir.path().join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, block).unwrap();
                files += 1;
            }
            None if info == "sql" => {
                db.run(&block).await;
                settle(&db).await;
            }
            None if info == "sh" => {
                let mut shell = std::process::Command::new("sh");
                shell.args(["-e", "-c", &block]).current_dir(dir.path()).env("PATH", &path);
                let environment = crate::harness::server().rowbeat(&db.name);
                shell.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
                let output = shell.output().unwrap();
                assert!(output.status.success(), "{block}\n{output:?}");
                commands += block.lines().count();
            }
            None => panic!("what is a block of {info:?}?"),
        }
    }
    assert_eq!((files, commands), (4, 10));
    let points: i64 = db.get("select points from loyalty.points").await;
    assert_eq!(points, 240, "twelve euros, twenty points each");
    let done: i64 = db
        .get("select count(*) from rowbeat.tasks where definition = 'loyalty.award' and state = 'completed'")
        .await;
    assert_eq!(done, 2, "the purchase's and the one by hand");
    assert!(dir.path().join("loyalty-1.0.0.zip").exists());
    let (status, log) = daemon.stop().await;
    assert!(status.success(), "{log}");
}
