//! What the tests stand on: one private server for the whole run, a database per test cloned from a template, and real
//! daemon processes. The server ends with this process: it watches its standard input.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowbeat::config::{Config, DatabaseConfig, Environment};
use rowbeat::db::connect::Connector;
use rowbeat::db::query::{Db, SESSION_SETUP};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSqlOwned, ToSql};

/// Longer than anything here should ever take.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_rowbeat");

const TEMPLATE: &str = "rowbeat_template";

/// The server of this run.
pub struct Server {
    /// Keeps the server's standard input open.
    _child: Child,
    pub socket: PathBuf,
    pub port: u16,
}

/// The server of this run, with the template in it.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut command = Command::new(BINARY);
        if let Ok(bindir) = std::env::var("ROWBEAT_TEST_BINDIR") {
            command.args(["postgres", "--bindir", &bindir]);
        } else {
            command.arg("postgres");
        }
        let mut child = command
            .args([
                "--temporary",
                "--fast",
                "-c",
                "max_connections=300",
                "-c",
                "max_prepared_transactions=10",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let up: Value = serde_json::from_str(&line).expect("the private server tells where it is");
        let server = Server {
            _child: child,
            socket: up["socket"].as_str().unwrap().into(),
            port: u16::try_from(up["port"].as_u64().unwrap()).unwrap(),
        };
        server.admin(&format!("create database {TEMPLATE}"));
        let migrated = server.rowbeat(TEMPLATE).arg("migrate").output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        server
    })
}

impl Server {
    pub fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&port={}&user=postgres", self.socket.display(), self.port)
    }

    /// A rowbeat command against a database of this server.
    pub fn rowbeat(&self, database: &str) -> Command {
        let mut command = Command::new(BINARY);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name == "DATABASE_URL")
        {
            command.env_remove(name);
        }
        command
            .env("DATABASE_URL", self.url(database))
            .env("XDG_STATE_HOME", self.socket.join("state").join(database))
            .stdin(Stdio::null());
        command
    }

    /// A psql command against a database of this server.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .env("PGHOST", &self.socket)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .stdin(Stdio::null());
        command
    }

    fn admin(&self, sql: &str) {
        let output = self.psql("postgres").args(["-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A database of its own for one test, with the schema in it.
pub struct TestDb {
    pub name: String,
    pub connector: Connector,
    client: Client,
}

impl TestDb {
    /// A fresh copy of the template.
    pub async fn new() -> Self {
        Self::copy_of(Some(TEMPLATE)).await
    }

    /// A fresh database without the schema.
    pub async fn empty() -> Self {
        Self::copy_of(None).await
    }

    /// What `pg_dump` and `psql` make of this one.
    pub async fn dumped(&self) -> Self {
        let copy = Self::empty().await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let dump = server().psql(&self.name);
        let mut command = Command::new("pg_dump");
        command.arg("--file").arg(file.path());
        command.envs(dump.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let dumped = command.output().unwrap();
        assert!(dumped.status.success(), "{dumped:?}");
        let restored = server().psql(&copy.name).arg("-f").arg(file.path()).output().unwrap();
        assert!(restored.status.success(), "{restored:?}");
        copy
    }

    async fn copy_of(template: Option<&str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let server = server();
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let from = template.map(|template| format!(" template {template}")).unwrap_or_default();
        server.admin(&format!("create database {name}{from}"));
        let connector = Connector::new(&database(&server.url(&name))).unwrap();
        let client = connect(&connector).await;
        Self { name, connector, client }
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}: {}", rowbeat::db::sqlstate::describe(&error));
        }
    }

    /// The SQLSTATE and message with which a statement is refused.
    pub async fn refusal(&self, sql: &str) -> (String, String) {
        let error = self.client.batch_execute(sql).await.expect_err(sql);
        let db = error.as_db_error().expect("the server's own error");
        (db.code().code().to_owned(), db.message().to_owned())
    }

    /// The first column of the only row.
    pub async fn get<T: FromSqlOwned>(&self, sql: &str) -> T {
        self.get_with(sql, &[]).await
    }

    /// The first column of the only row, with parameters.
    pub async fn get_with<T: FromSqlOwned>(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
        match self.client.query_one(sql, parameters).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{sql}: {}", rowbeat::db::sqlstate::describe(&error)),
        }
    }

    /// Waits until a condition holds.
    pub async fn until(&self, condition: &str) {
        let sql = format!("select ({condition})");
        let begun = Instant::now();
        while !self.get::<Option<bool>>(&sql).await.unwrap_or(false) {
            if begun.elapsed() > PATIENCE {
                let tasks: Value = self.get("select jsonb_agg(to_jsonb(t)) from (select * from rowbeat.tasks order by id limit 20) t").await;
                panic!("never came true: {condition}\n{tasks:#}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Another session in this database.
    pub async fn session(&self) -> Client {
        connect(&self.connector).await
    }

    /// A session that counts what it hears on the daemon's own channel.
    pub async fn session_that_listens(&self) -> Ear {
        let (client, mut connection) = self.connector.connect("test").await.unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let tokio_postgres::AsyncMessage::Notification(_) = message {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        client.batch_execute("listen rowbeat").await.unwrap();
        // The definitions that a test makes are announced: only what comes later counts.
        count.store(0, Ordering::SeqCst);
        Ear { client, count }
    }

    /// The daemon's way to this database.
    pub fn db(&self) -> Db {
        Db::new(self.connector.pool(4, deadpool_postgres::RecyclingMethod::Fast, SESSION_SETUP))
    }

    /// A table of effects and a sql definition `add_effect` that inserts payload's `x` into it.
    pub async fn with_effects(self) -> Self {
        self.run(
            "create table public.effect (id bigint generated always as identity, x bigint);
             create function public.add_effect(payload jsonb) returns jsonb language sql as
                 $$ insert into public.effect (x) values ((payload ->> 'x')::bigint) returning jsonb_build_object('x', x) $$;
             insert into rowbeat.task_definition (name, executor, function) values ('add_effect', 'sql', 'public.add_effect');",
        )
        .await;
        self
    }

    /// A daemon on this database.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with("", &[])
    }

    /// A daemon with more configuration and environment.
    pub fn daemon_with(&self, toml: &str, variables: &[(&str, &str)]) -> Daemon {
        Daemon::start(server().rowbeat(&self.name), toml, variables)
    }
}

/// A listening session.
pub struct Ear {
    client: Client,
    count: Arc<AtomicU32>,
}

impl Ear {
    /// How much it has heard of what was committed before this call: notifications come before a later answer.
    pub async fn heard(&self) -> u32 {
        self.client.batch_execute("select 1").await.unwrap();
        self.count.load(Ordering::SeqCst)
    }
}

/// A database configuration from a DSN.
pub fn database(url: &str) -> DatabaseConfig {
    let environment = Environment::from_variables([("DATABASE_URL", url), ("USER", "postgres")]);
    Config::from_text("", std::path::Path::new("test.toml"), &environment).unwrap().database.unwrap()
}

async fn connect(connector: &Connector) -> Client {
    let (client, connection) = connector.connect("test").await.unwrap();
    tokio::spawn(connection);
    client
}

/// A running daemon process, killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
    _config: tempfile::TempDir,
}

impl Daemon {
    pub fn start(mut command: Command, toml: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rowbeat.toml");
        let http = if toml.contains("[http]") { "" } else { "[http]\nlisten = \"off\"\n" };
        let log = if toml.contains("[log]") {
            ""
        } else {
            "[log]\nformat = \"text\"\nlevel = \"info,rowbeat=debug\"\n"
        };
        std::fs::write(&file, format!("{toml}\n{http}{log}")).unwrap();
        let mut child = command
            .arg("start")
            .arg("--config")
            .arg(&file)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, log, reader, _config: folder }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log says something.
    pub async fn says(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "the daemon never said {text:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it works.
    pub async fn ready(self) -> Self {
        self.says("started").await;
        self.says("registered").await;
        self
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Kills it as a crash would.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    /// Asks it to stop and waits for the end.
    pub async fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::SIGTERM);
        let status = self.ended().await;
        (status, self.log())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last may still be on its way; a database of its own may outlive it and keep the pipe open.
                while !self.reader.is_finished() && begun.elapsed() < Duration::from_secs(2) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log());
        }
    }
}
