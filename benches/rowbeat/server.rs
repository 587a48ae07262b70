//! The server and the daemons that the measures run on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rowbeat::config::{Config, Environment};
use rowbeat::daemon::Daemon;
use rowbeat::db::connect::Connector;
use rowbeat::db::embedded::{Options, PrivatePostgres};
use rowbeat::db::migrate;
use rowbeat::executor::native::Handlers;
use rowbeat::shutdown::Shutdown;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// A private Postgres with safe defaults and room for what is measured.
pub struct Server {
    postgres: PrivatePostgres,
    _folder: tempfile::TempDir,
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
        Self { postgres: PrivatePostgres::start(options).await.unwrap(), _folder: folder }
    }

    /// A fresh database with the schema in it.
    pub async fn database(&self, name: &str) -> Connector {
        let admin = session(&self.postgres.connector("postgres").unwrap()).await;
        admin.batch_execute(&format!("drop database if exists {name} with (force)")).await.unwrap();
        self.postgres.create_database(name).await.unwrap();
        let connector = self.postgres.connector(name).unwrap();
        migrate::migrate(&connector).await.unwrap();
        connector
    }

    /// A daemon on a database, with these handlers and node settings.
    pub async fn daemon(&self, name: &str, handlers: Handlers, node: &str) -> Running {
        let at = self.postgres.server();
        let url = format!(
            "postgresql:///{name}?host={}&port={}&user=postgres",
            at.socket_folder.display(),
            at.port
        );
        let environment = Environment::from_variables([("DATABASE_URL", url.as_str()), ("USER", "postgres")]);
        let text = format!("[http]\nlisten = \"off\"\n[node]\n{node}\n");
        let config = Config::from_text(&text, Path::new("bench"), &environment).unwrap();
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
    pub async fn stop(self) {
        self.shutdown.drain.cancel();
        self.task.await.unwrap();
    }
}

/// A session of its own.
pub async fn session(connector: &Connector) -> Client {
    let (client, connection) = connector.connect("bench").await.unwrap();
    tokio::spawn(connection);
    client
}
