//! The private Postgres: start, crash, recovery, and two at once. Real servers, each in a folder of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowbeat::db::connect::Connector;
use rowbeat::db::embedded::{EmbeddedError, Options, PrivatePostgres, running};

/// A folder that the server's account may pass through; gone at the end.
pub(crate) fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

pub(crate) fn options(folder: &Path) -> Options {
    Options { data_dir: Some(folder.join("pg")), durable: false, ..Options::default() }
}

/// Runs one statement and gives its first value as text.
pub(crate) async fn ask(connector: &Connector, sql: &str) -> String {
    let (client, connection) = connector.connect("test").await.unwrap();
    let work = async {
        client.simple_query(sql).await.unwrap().iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    };
    tokio::select! {
        answer = work => answer.unwrap_or_default(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

async fn gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while kill(Pid::from_raw(pid), None).is_ok() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("data/postmaster.pid")
}

#[tokio::test]
async fn it_starts_answers_keeps_its_data_and_stops() {
    let folder = scratch();
    let options = options(folder.path());
    let server = PrivatePostgres::start(options.clone()).await.unwrap();
    let pid = server.server().pid;
    server.create_database("sh\"op").await.unwrap();
    server.create_database("sh\"op").await.unwrap();
    let shop = server.connector("sh\"op").unwrap();
    ask(&shop, "create table note as select 'kept' as note").await;
    assert_eq!(ask(&shop, "show listen_addresses").await, "");
    assert_eq!(
        ask(&shop, "select datcollate from pg_database where datname = current_database()").await,
        "C"
    );
    assert_eq!(ask(&shop, "show server_encoding").await, "UTF8");

    let found = running(Some(server.data_dir())).unwrap().unwrap();
    assert_eq!(&found, server.server());
    assert!(server.psql_command("x").starts_with("psql -h /"));
    server.stop().await.unwrap();
    gone(pid).await;
    assert_eq!(running(Some(&folder.path().join("pg"))).unwrap(), None);

    let server = PrivatePostgres::start(options).await.unwrap();
    assert_eq!(ask(&server.connector("sh\"op").unwrap(), "select note from note").await, "kept");
}

#[tokio::test]
async fn dropping_it_stops_the_server() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let pid = server.server().pid;
    drop(server);
    gone(pid).await;
    assert!(!pid_file(&folder.path().join("pg")).exists());
}

#[tokio::test]
async fn a_second_daemon_is_told_who_has_the_folder() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let error = PrivatePostgres::start(options(folder.path())).await.unwrap_err();
    let me = std::process::id();
    assert!(matches!(error, EmbeddedError::Locked { pid: Some(pid), .. } if pid == me), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
}

#[tokio::test]
async fn a_killed_server_is_started_again_by_its_supervisor() {
    let folder = scratch();
    let mut server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    ask(&server.connector("postgres").unwrap(), "create table t as select 1").await;
    assert!(!server.run_once().await.unwrap());
    // A session that is busy outlives its server for a moment and still holds the shared memory.
    let connector = server.connector("postgres").unwrap();
    let (client, mut connection) = connector.connect("busy").await.unwrap();
    let busy = async {
        tokio::select! {
            _ = client.simple_query("select pg_sleep(30)") => {}
            _ = std::future::poll_fn(|context| connection.poll_message(context)) => {}
        }
    };
    let crash = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(Pid::from_raw(server.server().pid), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.run_once().await.unwrap() {
            assert!(Instant::now() < deadline, "nobody noticed that the server is gone");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(busy, crash);
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select count(*) from t").await, "1");
}

/// What a daemon that was killed with -9 leaves: a server without a parent, and no lock.
async fn orphan(folder: &Path) -> i32 {
    let server = PrivatePostgres::start(options(folder)).await.unwrap();
    let settings = server.server().clone();
    let bindir =
        ask(&server.connector("postgres").unwrap(), "select setting from pg_config where name = 'BINDIR'")
            .await;
    server.stop().await.unwrap();
    let script = format!(
        "{bindir}/pg_ctl -D {0}/data -l {0}/orphan.log -w -o \"-c listen_addresses='' -k {1}\" start >/dev/null 2>&1",
        folder.join("pg").display(),
        settings.socket_folder.display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        let account = ["postgres", "nobody"]
            .iter()
            .find_map(|name| nix::unistd::User::from_name(name).unwrap())
            .unwrap();
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    assert!(command.status().unwrap().success());
    running(Some(&folder.join("pg"))).unwrap().unwrap().pid
}

#[tokio::test]
async fn the_server_of_a_killed_daemon_is_stopped_and_replaced() {
    let folder = scratch();
    let left = orphan(folder.path()).await;
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    assert_ne!(server.server().pid, left);
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
    assert_eq!(running(Some(server.data_dir())).unwrap().unwrap().pid, server.server().pid);
}

#[tokio::test]
async fn a_pid_file_of_a_dead_process_is_no_obstacle() {
    let folder = scratch();
    let left = orphan(folder.path()).await;
    kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
}

#[tokio::test]
async fn a_pid_that_belongs_to_another_process_by_now_is_not_signalled() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    server.stop().await.unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let data = folder.path().join("pg/data");
    let text = format!("{}\n{}\n1700000000\n5432\n/nowhere\n\n 1 1\nready\n", other.id(), data.display());
    std::fs::write(pid_file(&folder.path().join("pg")), text).unwrap();
    let socket_lock = folder.path().join("pg/run/.s.PGSQL.5432.lock");
    std::fs::write(socket_lock, format!("{}\n{}\n1\n5432\n/nowhere\n", other.id(), data.display())).unwrap();

    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
    assert!(other.try_wait().unwrap().is_none(), "the other process was ended");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_made_anew() {
    let folder = scratch();
    let unfinished = folder.path().join("pg/data.new/base");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(folder.path().join("pg/lock"), "1\n").unwrap();
    std::fs::write(folder.path().join("pg/data.new/PG_VERSION"), "15\n").unwrap();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
    assert!(!folder.path().join("pg/data.new").exists());
}

#[tokio::test]
async fn a_long_path_puts_the_socket_into_a_short_folder() {
    let folder = scratch();
    let deep = folder.path().join("a-rather-long-name-of-a-folder".repeat(4));
    let server = PrivatePostgres::start(options(&deep)).await.unwrap();
    let socket_folder = server.server().socket_folder.clone();
    assert!(
        !socket_folder.starts_with(folder.path()) && socket_folder.as_os_str().len() < 90,
        "{socket_folder:?}"
    );
    assert_eq!(std::fs::metadata(&socket_folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(ask(&server.connector("postgres").unwrap(), "select 1").await, "1");
    server.stop().await.unwrap();
    assert!(!socket_folder.exists());
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_refused_by_number() {
    let folder = scratch();
    PrivatePostgres::start(options(folder.path())).await.unwrap().stop().await.unwrap();
    std::fs::write(folder.path().join("pg/data/PG_VERSION"), "9\n").unwrap();
    let error = PrivatePostgres::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::WrongMajor { data: 9, .. }), "{error}");
}

#[tokio::test]
async fn a_bad_setting_shows_what_the_server_says() {
    let folder = scratch();
    let mut options = options(folder.path());
    options.settings.push(("shared_buffers".into(), "plenty".into()));
    let error = PrivatePostgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("shared_buffers") && error.contains("plenty"), "{error}");
}

#[tokio::test]
async fn a_folder_that_the_servers_account_may_not_enter_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let error = PrivatePostgres::start(options(folder.path())).await.unwrap_err().to_string();
    assert!(error.contains(folder.path().to_str().unwrap()) && error.contains("chmod o+x"), "{error}");
}
