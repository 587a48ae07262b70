//! The commands as a person or a script sees them: what they print, what they refuse, their exit codes.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::embedded::scratch;
use crate::harness::{BINARY, PATIENCE, TestDb, server};

/// What a command that has ended left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The JSON on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It succeeded, and this is its standard output.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed with this exit code and said all of these, the first line in the program's name.
    pub(crate) fn refused(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.starts_with("rowbeat: "), "{self:?}");
        for text in says {
            assert!(self.err.contains(text), "{text:?} is missing: {self:?}");
        }
    }
}

impl Ran {
    /// It failed, and this is the last thing it said, whatever it had asked before.
    pub(crate) fn refused_last(&self, says: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.ends_with(&format!("rowbeat: {says}\n")), "{says:?} is not the last: {self:?}");
    }
}

/// Runs a command to its end, with this on its standard input.
pub(crate) fn finish(mut command: Command, arguments: &[&str], input: &str) -> Ran {
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read it is not asked to.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command against a test's database.
pub(crate) fn rowbeat(db: &TestDb, arguments: &[&str]) -> Ran {
    finish(server().rowbeat(&db.name), arguments, "")
}

/// The program without any configured database.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name == "DATABASE_URL") {
        command.env_remove(name);
    }
    command
}

/// A running command: asked to stop when dropped, and killed if it does not.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: [JoinHandle<()>; 2],
}

impl Process {
    pub(crate) fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = [keep(out, Arc::clone(&said)), keep(err, Arc::clone(&said))];
        Self { child, said, readers }
    }

    /// Standard output and standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) async fn says(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.said().contains(text) {
            if self.child.try_wait().unwrap().is_some() {
                self.ended().await;
                assert!(self.said().contains(text), "ended before {text:?}:\n{}", self.said());
            }
            assert!(begun.elapsed() < PATIENCE, "never said {text:?}:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last may still be on its way; a server of its own may outlive it and keep the pipes open.
                let begun = Instant::now();
                while !self.readers.iter().all(JoinHandle::is_finished)
                    && begun.elapsed() < Duration::from_secs(2)
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "does not end:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            let begun = Instant::now();
            while let Ok(None) = self.child.try_wait() {
                if begun.elapsed() > Duration::from_secs(10) {
                    let _ = self.child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- what the command said\n{}", self.said());
        }
    }
}

fn keep(mut from: impl Read + Send + 'static, said: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            said.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    })
}

#[test]
fn wrong_usage_is_two_and_says_what_was_meant() {
    for (arguments, says) in [
        (&["statsu"][..], "'status'"),
        (&["task", "list", "--stat", "failed"], "'--state'"),
        (&["task", "list", "--state", "lost"], "possible values: scheduled"),
        (&["task", "show", "nine"], "invalid digit"),
        (&["task", "enqueue"], "<DEFINITION>"),
        (&["watch", "add", "public.orders"], "--definition <NAME>"),
        (&["watch", "add", "public.orders", "--notify", "--definition", "x"], "cannot be used with"),
        (&["wait-for-db", "--timeout", "soon"], "write a duration such as 30s"),
        (&["start", "--http", "nowhere"], "write an address with a port"),
        (&["start", "--queue", "a,,b"], "a queue has no name"),
        (&["schedule", "preview", "@daily", "--count", "0"], "1..=10000"),
    ] {
        finish(bare(), arguments, "").refused(2, &[says]);
    }
    let nothing = finish(bare(), &[], "");
    assert!(nothing.code == Some(2) && nothing.err.contains("Usage: rowbeat"), "{nothing:?}");
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "start",
        "demo",
        "migrate",
        "check",
        "wait-for-db",
        "task enqueue",
        "task list",
        "task show",
        "task cancel",
        "task retry",
        "schedule list",
        "schedule add",
        "schedule remove",
        "schedule explain",
        "schedule preview",
        "watch list",
        "watch add",
        "watch remove",
        "watch prune",
        "kafka topics",
        "listen",
        "status",
    ] {
        let mut arguments: Vec<_> = command.split(' ').collect();
        arguments.push("--help");
        let help = finish(bare(), &arguments, "").ok();
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains(&format!("\n  rowbeat {command}")), "{command}: {help}");
    }
    assert!(finish(bare(), &["--version"], "").ok().starts_with("rowbeat "));
}

#[test]
fn a_reader_who_has_seen_enough_ends_a_command_quietly() {
    let mut command = bare();
    command.args(["schedule", "preview", "* * * * *", "--count", "10000"]).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds is still to come.
    let mut begun = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut begun).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn underscores_in_command_and_option_names_are_dashes() {
    let db = TestDb::new().await;
    assert_eq!(rowbeat(&db, &["wait_for_db"]).ok(), "Waiting for database...\nDatabase available!\n");
    assert_eq!(rowbeat(&db, &["wait-for-db", "--json"]).json()["available"], true);
    let help = finish(bare(), &["task", "enqueue", "--run_at", "2027-01-31T09:00:00Z", "--help"], "");
    assert!(help.ok().contains("--run-at"));
}

#[test]
fn waiting_for_a_database_that_does_not_come_is_69_after_the_timeout() {
    let mut command = bare();
    command.env("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing");
    let ran = finish(command, &["wait-for-db", "--timeout", "1s"], "");
    ran.refused(69, &["127.0.0.1:1"]);
    assert_eq!(ran.out, "Waiting for database...\nDatabase unavailable, waiting 1 second(s)...\n");
}

#[test]
fn an_unreachable_database_is_69_and_the_remedy_is_told() {
    for arguments in
        [&["status"][..], &["task", "list"], &["schedule", "list"], &["watch", "list"], &["migrate"]]
    {
        let mut command = bare();
        command.env("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing");
        finish(command, arguments, "").refused(69, &["127.0.0.1:1"]);
    }
}

#[tokio::test]
async fn check_shows_every_value_with_its_source_and_no_secret() {
    let db = TestDb::new().await;
    let folder = scratch();
    let (config, password) = (folder.path().join("rowbeat.toml"), folder.path().join("password"));
    std::fs::write(&password, "hunter2-in-a-file\n").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = format!("[database]\npassword_file = \"{}\"\n[node]\nconcurrency = 7\n", password.display());
    std::fs::write(&config, file).unwrap();
    let config = config.to_str().unwrap();
    let command = || {
        let mut command = server().rowbeat(&db.name);
        command.env("DATABASE_URL", format!("{}&password=hunter2-in-the-url", server().url(&db.name)));
        command.env("PGPASSWORD", "hunter2-in-a-variable").env("PGAPPNAME", "shop");
        command
    };
    for (arguments, sources) in [
        (&["check", "--config", config][..], &["rowbeat.toml line 4", "PGAPPNAME", "default"][..]),
        (&["check", "--config", config, "--json"], &["rowbeat.toml line 4", "PGAPPNAME", "default"]),
        (&["check"], &["DATABASE_URL", "PGAPPNAME", "default"]),
        (&["check", "--json"], &["DATABASE_URL", "PGAPPNAME", "default"]),
    ] {
        let ran = finish(command(), arguments, "");
        assert!(!ran.out.contains("hunter2") && !ran.err.contains("hunter2"), "{ran:?}");
        let text = ran.ok();
        assert!(text.contains("***"), "{text}");
        for source in sources {
            assert!(text.contains(source), "{source}: {text}");
        }
    }
    let document = finish(command(), &["check", "--config", config, "--json"], "").json();
    let rows = document["configuration"].as_array().unwrap();
    let concurrency = rows.iter().find(|row| row["key"] == "node.concurrency").unwrap();
    assert_eq!(concurrency["value"], "7");
    assert!(document["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{document:#}");
}

#[tokio::test]
async fn check_is_69_without_a_connection_and_78_with_an_older_schema() {
    let mut command = bare();
    command.env("DATABASE_URL", "postgresql://nobody:hunter2@127.0.0.1:1/nothing");
    let ran = finish(command, &["check"], "");
    ran.refused(69, &["cannot be reached"]);
    assert!(ran.out.contains("NOT OK") && !format!("{ran:?}").contains("hunter2"), "{ran:?}");

    let db = TestDb::new().await;
    db.run("update rowbeat.source_file set checksum = 'old' where name = 'sql/functions/10_task.sql'").await;
    rowbeat(&db, &["check"]).refused(78, &["schema: 1 steps behind", "rowbeat migrate"]);

    let empty = TestDb::empty().await;
    assert!(rowbeat(&empty, &["check"]).ok().contains("start will install it"));
    rowbeat(&empty, &["task", "list"]).refused(78, &["rowbeat migrate"]);
}

#[test]
fn all_errors_of_the_configuration_come_at_once_with_what_was_meant() {
    let folder = scratch();
    let file = folder.path().join("rowbeat.toml");
    std::fs::write(&file, "[node]\nconcurency = 3\n[http]\nlisten = \"nowhere\"\n[databse]\nhost = \"x\"\n")
        .unwrap();
    for command in ["check", "start", "status", "migrate"] {
        let ran = finish(bare(), &[command, "--config", file.to_str().unwrap()], "");
        ran.refused(
            78,
            &[
                "3 errors",
                "did you mean \"concurrency\"?",
                "did you mean \"database\"?",
                "rowbeat.toml line 4",
            ],
        );
        assert!(ran.out.is_empty(), "{ran:?}");
    }
    finish(bare(), &["check", "--config", "missing.toml"], "").refused(78, &["missing.toml cannot be read"]);
}

#[tokio::test]
async fn status_is_a_table_for_people_and_a_document_for_machines() {
    let db = TestDb::new().await.with_effects().await;
    let text = rowbeat(&db, &["status"]).ok();
    assert!(text.contains("\nnodes: none\n") && text.ends_with("\nfailures: none\n"), "{text}");
    let _daemon = db.daemon().ready().await;
    db.run(
        "select rowbeat.schedule('nightly', '0 3 * * *', 'add_effect', p_time_zone => 'Europe/Paris');
         insert into rowbeat.task (definition, payload, max_attempts) values ('add_effect', '{\"x\": \"y\"}', 1);
         insert into rowbeat.task (definition, run_at) values ('add_effect', '2100-01-31 10:00+00');",
    )
    .await;
    db.until("exists (select from rowbeat.tasks where state = 'failed')").await;
    db.until("(select next_fire_at from rowbeat.schedule) is not null").await;
    let text = rowbeat(&db, &["status"]).ok();
    for says in [
        "STATE",
        "alive",
        "NEXT RUN AT",
        "2100-01-31T10:00:00Z",
        "nightly",
        "Europe/Paris",
        "invalid input syntax",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let status = rowbeat(&db, &["status", "--json"]).json();
    assert_eq!(status["nodes"][0]["state"], "alive");
    assert_eq!(status["schedules"][0]["name"], "nightly");
    assert_eq!(status["failures"][0]["definition"], "add_effect");
}

#[tokio::test]
async fn psql_listener_prints_what_it_hears_and_does_the_work() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create function public.hear(payload jsonb) returns jsonb language sql as 'select payload';
         insert into rowbeat.task_definition (name, executor, function) values ('hear', 'sql', 'public.hear');
         insert into rowbeat.channel (name, definition) values ('c', 'hear');",
    )
    .await;
    let mut listener = Process::start(server().rowbeat(&db.name), &["psql_listener", "--http", "off"]);
    listener.says("Starting PostgreSQL listener...\n").await;
    listener.says("Listening to channel: c\n").await;
    let pid: i32 = db.get("select pg_backend_pid()").await;
    db.run("notify c, 'hello, world'").await;
    listener.says(&format!("Got NOTIFY: {pid}, c, hello, world\n")).await;
    db.until("exists (select from rowbeat.tasks where definition = 'hear' and state = 'completed')").await;
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.ended().await.code(), Some(0), "{}", listener.said());
}
