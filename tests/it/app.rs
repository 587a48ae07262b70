//! Commands of plugins: found, explained, asked for, run now or later.

use serde_json::{Value, json};

use crate::cli::{Process, finish, rowbeat};
use crate::endpoint::desk;
use crate::harness::{TestDb, server};
use crate::plugin::Folder;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_plugin_reads_typed_arguments_and_prints_its_lines() {
    let db = TestDb::new().await;
    assert_eq!(rowbeat(&db, &["app"]).ok(), "no commands: no installed plugin has any\n");
    desk().install(&db).ok();
    let list = rowbeat(&db, &["app"]).ok();
    assert!(list.contains("add-note") && list.contains("jot") && list.contains("createdeskuser"), "{list}");
    for spelling in ["add-note", "add_note", "jot"] {
        let text = format!("by {spelling}");
        let said = rowbeat(
            &db,
            &["app", "desk", spelling, &text, "--due_on", "2026-02-01", "--tag", "a", "b", "--loud"],
        )
        .ok();
        let (first, arguments) = said.split_once('\n').unwrap();
        assert_eq!(first, format!("Added: {text}"));
        assert_eq!(
            serde_json::from_str::<Value>(arguments).unwrap(),
            json!({ "text": text, "stars": 3, "due_on": "2026-02-01", "loud": true, "tag": ["a", "b"] })
        );
    }
    let help = rowbeat(&db, &["app", "desk", "add-note", "--help"]).ok();
    for text in [
        "Adds a note.",
        "What it says. [text]",
        "How good it is. [integer, max 5, min 1, default 3]",
        "--due-on",
        "--async",
    ] {
        assert!(help.contains(text), "{text} is missing:\n{help}");
    }
    let group = rowbeat(&db, &["app", "desk", "--help"]).ok();
    assert!(group.contains("tidy-up"), "{group}");
    rowbeat(&db, &["app", "desk", "add-note", "x", "--stars", "9"])
        .refused(2, &["stars: 9 does not keep max = 5"]);
    rowbeat(&db, &["app", "desk", "add-note", "x", "--due-on", "soon"]).refused(2, &["due_on"]);
    rowbeat(&db, &["app", "desk", "ad-note", "x"]).refused(2, &["add-note"]);
    rowbeat(&db, &["app", "dsk", "add-note"]).refused(2, &["desk"]);
    rowbeat(&db, &["app", "desk", "add-note", "nothing"]).refused(1, &["Nothing is no note"]);
    assert_eq!(db.get::<i64>("select count(*) from desk.note").await, 3);
    let said = rowbeat(&db, &["app", "desk", "add-note", "json", "--json"]).json();
    assert_eq!(said["lines"][0], "Added: json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_a_task_is_enqueued_and_tells_its_id() {
    let db = TestDb::new().await;
    desk().install(&db).ok();
    let said = rowbeat(&db, &["app", "desk", "add-note", "later", "--async"]).ok();
    let id: i64 = said.trim().strip_prefix("Tidying as task ").unwrap().parse().unwrap();
    assert_eq!(
        db.get_with::<Value>(
            "select payload from rowbeat.task where id = $1 and definition = 'desk.tidy'",
            &[&id]
        )
        .await["text"],
        "later"
    );
    let said = rowbeat(&db, &["app", "desk", "tidy-up", "--json"]).json();
    assert_eq!(said["task"], id + 1, "without a function it is always a task");
    assert_eq!(db.get::<i64>("select count(*) from desk.note").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_asked_for_and_passwords_reach_sql_as_hashes_only() {
    let db = TestDb::new().await;
    desk().install(&db).ok();
    let said = finish(server().rowbeat(&db.name), &["app", "desk", "jot"], "typed\n");
    assert!(said.err.contains("What does it say? "), "{said:?}");
    assert!(said.ok().starts_with("Added: typed\n"));
    let silent = finish(server().rowbeat(&db.name), &["app", "desk", "jot"], "");
    assert!(silent.code == Some(2) && silent.err.ends_with("\nrowbeat: text: is required\n"), "{silent:?}");
    for (arguments, input) in [(&["--password", "s3cret-pw"][..], ""), (&[], "s3cret-pw\n")] {
        let line = [&["app", "desk", "createdeskuser"], arguments].concat();
        let said = finish(server().rowbeat(&db.name), &line, input).ok();
        assert!(said.contains("$argon2id$v=19$") && !said.contains("s3cret-pw"), "{said}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Login,Password\n").unwrap();
    let line =
        ["app", "desk", "createdeskuser", "--password", "p", "--vouchers", file.path().to_str().unwrap()];
    let said = rowbeat(&db, &line).json();
    assert_eq!(
        (&said["vouchers"]["content"], &said["vouchers"]["size"]),
        (&json!("Login,Password\n"), &json!(15))
    );
    let line = ["app", "desk", "createdeskuser", "--password", "p", "--vouchers", "/nowhere"];
    rowbeat(&db, &line).refused(1, &["vouchers: /nowhere"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_one_plugin_works_by_its_own_name_and_an_ambiguous_one_does_not() {
    let db = TestDb::new().await;
    rowbeat(&db, &["createdeskuser", "--password", "p"]).refused(2, &["unrecognized subcommand"]);
    desk().install(&db).ok();
    assert!(rowbeat(&db, &["createdeskuser", "--password", "p"]).ok().contains("argon2id"));
    assert!(rowbeat(&db, &["--json", "add_note", "x"]).json()["lines"].is_array());
    rowbeat(&db, &["strat"]).refused(2, &["unrecognized subcommand", "start"]);
    rowbeat(&db, &["plugin", "jot"]).refused(2, &["unrecognized subcommand"]);
    Folder::tally().edit("plugin.toml", "\"now\"", "\"jot\"").install(&db).ok();
    rowbeat(&db, &["jot", "x"])
        .refused(2, &["several plugins", "rowbeat app desk add-note", "rowbeat app tally count-now"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn install_plugin_refuses_what_is_installed() {
    let db = TestDb::new().await;
    let folder = desk();
    let path = folder.path();
    rowbeat(&db, &["install_plugin", path.to_str().unwrap()]).ok();
    rowbeat(&db, &["install_plugin", path.to_str().unwrap()]).refused(1, &["desk is already installed."]);
    let newer = desk().edit("plugin.toml", "version = \"1.0.0\"", "version = \"1.1.0\"");
    rowbeat(&db, &["install_plugin", newer.path().to_str().unwrap()])
        .refused(1, &["desk is already installed."]);
    folder.install(&db).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_raises_as_a_notice_is_seen_at_once_and_progress_on_terminals_only() {
    let db = TestDb::new().await;
    Folder::bare("format = 1\nname = \"slow\"\nversion = \"1.0.0\"\n[[command]]\nname = \"work\"\nfunction = \"slow.work\"\n")
        .put(
            "functions/work.sql",
            "create or replace function slow.work(arguments jsonb) returns setof text language plpgsql as $$
             begin
                 raise notice 'looking around';
                 raise notice 'counting' using detail = '1/3';
                 perform pg_advisory_xact_lock(77);
                 return next 'done';
             end $$",
        )
        .install(&db)
        .ok();
    db.run("select pg_advisory_lock(77)").await;
    let mut process = Process::start(server().rowbeat(&db.name), &["app", "slow", "work"]);
    process.says("looking around\n").await;
    assert!(!process.said().contains("done"));
    db.run("select pg_advisory_unlock(77)").await;
    assert!(process.ended().await.success());
    assert!(!process.said().contains("counting"), "{}", process.said());
    let said = rowbeat(&db, &["app", "slow", "work"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("done\n", "looking around\n"));
}
