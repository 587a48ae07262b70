//! The commands without a configured database: the daemon with its private Postgres, and the demonstration.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cli::{Process, bare, finish};
use crate::embedded::scratch;
use crate::harness::PATIENCE;

/// The process id of the server that lives in a folder.
fn server_pid(data_dir: &Path) -> Option<i32> {
    let file = std::fs::read_to_string(data_dir.join("data/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok()
}

fn is_there(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

/// The processes that work in a folder; servers work in their data directory.
fn processes_in(folder: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|process| process.path())
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The daemon on a private Postgres in `folder`, which may be there already.
async fn start(folder: &Path) -> Process {
    let data_dir = folder.join("pg");
    let mut daemon =
        Process::start(bare(), &["start", "--data-dir", data_dir.to_str().unwrap(), "--http", "off"]);
    daemon.says("started").await;
    daemon.says("registered").await;
    daemon
}

fn private(folder: &Path, arguments: &[&str]) -> crate::cli::Ran {
    let data_dir = folder.join("pg");
    finish(bare(), &[arguments, &["--data-dir", data_dir.to_str().unwrap()]].concat(), "")
}

#[tokio::test]
async fn without_a_database_start_runs_a_private_one_that_commands_find_and_sigterm_ends() {
    let folder = scratch();
    private(folder.path(), &["status"]).refused(69, &["no private Postgres runs in", "rowbeat start"]);
    assert!(private(folder.path(), &["check"]).ok().contains("start will start it"));
    let mut daemon = start(folder.path()).await;
    let pid = server_pid(&folder.path().join("pg")).unwrap();
    assert!(is_there(pid));
    let status = private(folder.path(), &["status", "--json"]).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
    assert!(private(folder.path(), &["check"]).ok().contains("--data-dir"));
    private(folder.path(), &["start", "--http", "off"]).refused(1, &["another rowbeat", "stop that one"]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    assert!(!is_there(pid));
    assert_eq!(processes_in(folder.path()), Vec::<PathBuf>::new());
    private(folder.path(), &["status"]).refused(69, &["no private Postgres runs in"]);
}

#[tokio::test]
async fn after_a_kill_the_daemon_starts_again_on_the_same_data() {
    let folder = scratch();
    let mut daemon = start(folder.path()).await;
    let first = server_pid(&folder.path().join("pg")).unwrap();
    let spec = ["schedule", "add", "s", "@daily", "nobody"];
    private(folder.path(), &spec).refused(1, &["task definition \"nobody\" does not exist"]);
    let before = private(folder.path(), &["status", "--json"]).json()["nodes"][0]["id"].clone();
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.ended().await.code(), None);
    let mut daemon = start(folder.path()).await;
    assert_ne!(server_pid(&folder.path().join("pg")), Some(first), "the killed daemon's server was replaced");
    let nodes = private(folder.path(), &["status", "--json"]).json()["nodes"].clone();
    let ids: Vec<&Value> = nodes.as_array().unwrap().iter().map(|node| &node["id"]).collect();
    assert!(ids.iter().any(|id| **id != before), "{nodes:#}");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    assert_eq!(processes_in(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_data_dir_beside_a_configured_database_is_wrong_usage() {
    let mut command = bare();
    command.env("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing");
    finish(command, &["status", "--data-dir", "somewhere"], "")
        .refused(2, &["--data-dir is for the private Postgres", "leave --data-dir out"]);
}

/// A demonstration whose temporary files go to `folder`.
fn demo(folder: &Path) -> Command {
    let mut command = bare();
    command.env("TMPDIR", folder);
    command
}

async fn nothing_left(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "no file");
    // What an interrupted initdb had started ends when it finds its pipe broken.
    until("no process", || processes_in(folder).is_empty()).await;
}

/// The server of the demonstration, once it is there.
async fn demo_server(folder: &Path) -> i32 {
    let pid = || {
        let mut entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.find_map(|entry| server_pid(&entry.path().join("pg")))
    };
    until("a server in the temporary folder", || pid().is_some()).await;
    pid().unwrap()
}

#[tokio::test]
async fn demo_shows_completed_tasks_and_a_purchase_whatever_the_environment_and_leaves_nothing() {
    let folder = scratch();
    let mut command = demo(folder.path());
    command
        .env("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", "1")
        .env("PGSERVICE", "nowhere")
        .env("PGSSLMODE", "verify-full");
    let ran = finish(command, &["demo", "--once", "--json"], "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let document = ran.json();
    let tasks = document["tasks"].as_array().unwrap();
    let causes: Vec<_> = tasks.iter().map(|task| task["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["insert", "schedule", "watch"]);
    for task in tasks {
        assert_eq!(task["state"], "completed", "{task:#}");
        assert!(task["id"].is_i64() && task["result"].is_object(), "{task:#}");
        assert_eq!(task["completed"], task["total"], "{task:#}");
    }
    assert_eq!(document["effects"]["shipped"], tasks[0]["completed"]);
    assert_eq!(document["effects"]["mails"], tasks[2]["completed"]);
    let purchase = &document["purchase"];
    assert_eq!((&purchase["status"], &purchase["amount"]), (&json!("delivered"), &json!(3)), "{purchase:#}");
    assert_eq!(
        [&purchase["payments"], &purchase["users"], &purchase["texts"]],
        [&json!(1), &json!(1), &json!(2)]
    );
    assert_eq!(document.get("to_play"), None);
    nothing_left(folder.path()).await;
}

#[tokio::test]
async fn demo_stays_to_play_with_until_ctrl_c_and_leaves_nothing() {
    let folder = scratch();
    let mut demo = Process::start(demo(folder.path()), &["demo"]);
    demo.says("to play with (Ctrl-C ends it and leaves nothing behind):\n  psql -h ").await;
    demo.says("/status\n").await;
    let text = demo.said();
    for says in [
        "CAUSE",
        "insert",
        "schedule",
        "watch",
        "orders shipped",
        "2GB_(24hrs) for GHc 3 delivered",
        "\n  http://127.0.0.1:",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let pid = demo_server(folder.path()).await;
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.ended().await.code(), Some(0), "{}", demo.said());
    assert!(!is_there(pid));
    nothing_left(folder.path()).await;
}

#[tokio::test]
async fn an_interrupted_demo_once_is_an_error_and_leaves_nothing() {
    // Ctrl-C and a closed terminal, and as early as a signal can come.
    for (signal, is_up) in [(Signal::SIGINT, true), (Signal::SIGHUP, true), (Signal::SIGINT, false)] {
        let folder = scratch();
        let mut demo = Process::start(demo(folder.path()), &["demo", "--once", "--json"]);
        if is_up {
            demo_server(folder.path()).await;
        } else {
            until("the temporary folder", || std::fs::read_dir(folder.path()).unwrap().count() > 0).await;
            // The folder is made before the signals are watched; its first content comes after.
            until("something in it", || {
                let mut entries = std::fs::read_dir(folder.path()).unwrap().flatten();
                entries.any(|entry| entry.path().join("pg").exists())
            })
            .await;
        }
        demo.signal(signal);
        assert_eq!(demo.ended().await.code(), Some(1), "{}", demo.said());
        assert_eq!(demo.said(), "rowbeat: interrupted before everything was shown\n");
        nothing_left(folder.path()).await;
    }
}

#[tokio::test]
async fn demo_prints_one_document_for_machines_also_when_it_stays() {
    let folder = scratch();
    let mut demo = Process::start(demo(folder.path()), &["demo", "--json"]);
    demo.says("\n}\n").await;
    let document: Value = serde_json::from_str(&demo.said()).unwrap();
    assert_eq!(document["tasks"].as_array().unwrap().len(), 3);
    let psql = document["to_play"]["psql"].as_str().unwrap();
    assert!(psql.starts_with("psql -h ") && psql.ends_with(" -U postgres -d rowbeat"), "{psql}");
    assert_ne!(document["to_play"]["status"], json!(""));
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.ended().await.code(), Some(0), "{}", demo.said());
    nothing_left(folder.path()).await;
}
