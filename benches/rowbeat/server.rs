//! The server and the daemons that the measures run on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rowbeat::config::{Config, Environment};
use rowbeat::daemon::Daemon;
use rowbeat::db::connect::Connector;
use rowbeat::db::embedded::{Options, PrivatePostgres};
use rowbeat::db::migrate;
use rowbeat::executor::native::Handlers;
use rowbeat::shutdown::Shutdown;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};

/// The payload of every task, the same that other queues are measured with; `g` counts.
pub const PAYLOAD: &str = "jsonb_build_object('i', g, 't', 0, 's', '0123456789abcdef0123456789abcdef')";

/// A private Postgres with safe defaults and room for what is measured.
pub struct Server {
    postgres: PrivatePostgres,
    folder: tempfile::TempDir,
}

/// A daemon in this process.
pub struct Running {
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = [("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("max_connections", "200")];
        let options = Options {
            data_dir: Some(folder.path().join("pg")),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..Options::default()
        };
        Self { postgres: PrivatePostgres::start(options).await.unwrap(), folder }
    }

    /// A session outside of what is measured.
    pub async fn admin(&self) -> Client {
        session(&self.postgres.connector("postgres").unwrap()).await
    }

    /// A session in a database.
    pub async fn session_of(&self, name: &str) -> Client {
        session(&self.postgres.connector(name).unwrap()).await
    }

    pub async fn version(&self) -> String {
        self.admin().await.query_one("select version()", &[]).await.unwrap().get(0)
    }

    /// A fresh database with the schema in it.
    pub async fn database(&self, name: &str) -> Connector {
        let admin = self.admin().await;
        admin.batch_execute(&format!("drop database if exists {name} with (force)")).await.unwrap();
        self.postgres.create_database(name).await.unwrap();
        let connector = self.postgres.connector(name).unwrap();
        migrate::migrate(&connector).await.unwrap();
        connector
    }

    /// Folder and port of its socket.
    pub fn socket(&self) -> (&Path, u16) {
        let at = self.postgres.server();
        (&at.socket_folder, at.port)
    }

    pub fn url(&self, name: &str) -> String {
        let (folder, port) = self.socket();
        format!("postgresql:///{name}?host={}&port={port}&user=postgres", folder.display())
    }

    /// A file of this run with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A daemon on a database, with these handlers and node settings.
    pub async fn daemon(&self, name: &str, handlers: Handlers, node: &str) -> Running {
        self.daemon_with(name, handlers, &format!("[http]\nlisten = \"off\"\n[node]\n{node}\n")).await
    }

    /// A daemon on a database, with this configuration.
    pub async fn daemon_with(&self, name: &str, handlers: Handlers, text: &str) -> Running {
        let url = self.url(name);
        let environment = Environment::from_variables([("DATABASE_URL", url.as_str()), ("USER", "postgres")]);
        let config = Config::from_text(text, Path::new("bench"), &environment).unwrap();
        let shutdown = Shutdown::new();
        let (sender, up) = tokio::sync::oneshot::channel();
        let daemon = Daemon::new(config).with_handlers(handlers).when_up(sender);
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { daemon.run(stop).await.unwrap() });
        up.await.unwrap();
        Running { shutdown, task }
    }

    pub async fn stop(self) {
        self.postgres.stop().await.unwrap();
    }
}

impl Running {
    /// It takes no more tasks.
    pub fn no_more(&self) {
        self.shutdown.drain.cancel();
    }

    pub async fn stop(self) {
        self.no_more();
        self.task.await.unwrap();
    }
}

/// A session of its own.
pub async fn session(connector: &Connector) -> Client {
    let (client, connection) = connector.connect("bench").await.unwrap();
    tokio::spawn(connection);
    client
}

/// A session that counts the wake-ups for tasks it hears, as long as it is kept.
pub async fn listener(connector: &Connector) -> (Client, Arc<AtomicU64>) {
    let (client, mut connection) = connector.connect("bench listener").await.unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(note) if note.payload() == "task") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    client.batch_execute("listen rowbeat").await.unwrap();
    (client, heard)
}

/// A definition of native no-op tasks.
pub async fn define_noop(client: &Client, keep: &str) {
    let insert = "insert into rowbeat.task_definition (name, executor, keep) values ('noop', 'native', $1)";
    client.execute(insert, &[&keep]).await.unwrap();
}

/// So many tasks, in one statement.
pub async fn fill(client: &Client, definition: &str, tasks: u64) {
    client
        .batch_execute(&format!(
            "insert into rowbeat.task (definition, payload) select '{definition}', {PAYLOAD} from generate_series(1, {tasks}) g"
        ))
        .await
        .unwrap();
}

/// What was written is in order and on disk, so that none of it is left to the measure.
pub async fn settle(client: &Client) {
    client.batch_execute("vacuum analyze").await.unwrap();
    client.batch_execute("checkpoint").await.unwrap();
}

/// Whether this schema has a column of this name in its definitions.
pub async fn has_definition_column(client: &Client, column: &str) -> bool {
    let found = "select from pg_catalog.pg_attribute a
        where a.attrelid = 'rowbeat.task_definition'::regclass and a.attname = $1 and not a.attisdropped";
    client.query_opt(found, &[&column]).await.unwrap().is_some()
}

/// A table of the same columns, indexes and storage as the task table, with defaults instead of its triggers.
pub async fn like_table(client: &Client, name: &str) {
    let options: String = client
        .query_one(
            "select array_to_string(c.reloptions, ', ') from pg_catalog.pg_class c where c.oid = 'rowbeat.task'::regclass",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "create table public.{name} (like rowbeat.task including all) with ({options});
             alter table public.{name} alter queue set default 'default', alter priority set default 100,
                alter run_at set default now(), alter max_attempts set default 5, alter created_at set default now()"
        ))
        .await
        .unwrap();
}
