//! The private Postgres: a server of rowbeat's own from the installed server programs, for those who have none configured.
//!
//! It is reachable through a unix socket only, in a folder that nobody else can enter, and trusts who gets there. When the
//! daemon runs as root the server runs as `postgres`, else as `nobody`. It lives in one folder:
//!
//! ```text
//! <data_dir>/lock      held by the daemon that owns the server
//! <data_dir>/data      the database cluster; made as data.new and renamed when initdb is done
//! <data_dir>/run       the socket, unless the path is too long for one: then in a short folder below /tmp
//! <data_dir>/log       what the server says
//! ```
//!
//! Invariant: no process is ever signalled that has not been seen to be a Postgres of this very data directory.

mod account;
mod binaries;
mod cluster;
mod error;
mod postmaster;
mod running;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::error::EmbeddedError;
pub use self::running::{Running, running};

use self::account::Account;
use self::postmaster::Postmaster;
use super::connect::Connector;
use crate::config::{DatabaseConfig, PrivatePostgresConfig};

/// The superuser of every private server.
pub const SUPERUSER: &str = "postgres";

/// How to run the private Postgres.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of `initdb` and `postgres`; `None` looks in the usual places.
    pub bindir: Option<PathBuf>,
    /// Folder the server lives in; `None` is [`default_data_dir`].
    pub data_dir: Option<PathBuf>,
    /// `false` gives up safety against a crash of the machine for speed: for tests and demonstrations.
    pub durable: bool,
    /// More settings of the server, as `-c name=value`.
    pub settings: Vec<(String, String)>,
    /// Port: the socket's name, and a real port only if `listen_addresses` is among the settings.
    pub port: u16,
    /// How long the server may take until it answers, crash recovery included.
    pub start_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bindir: None,
            data_dir: None,
            durable: true,
            settings: Vec::new(),
            port: 5432,
            start_timeout: Duration::from_secs(120),
        }
    }
}

impl From<&PrivatePostgresConfig> for Options {
    fn from(config: &PrivatePostgresConfig) -> Self {
        Self { bindir: config.bindir.clone(), data_dir: config.data_dir.clone(), ..Self::default() }
    }
}

/// Where the private Postgres lives when nothing else is said: `/var/lib/rowbeat/postgres` for root, whose home no other account
/// may enter, else `rowbeat/postgres` below the user's data directory.
pub fn default_data_dir() -> Result<PathBuf, EmbeddedError> {
    use etcetera::BaseStrategy;
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/rowbeat/postgres"));
    }
    let folders = etcetera::choose_base_strategy().map_err(|_| EmbeddedError::NoHome)?;
    Ok(folders.data_dir().join("rowbeat/postgres"))
}

/// A private Postgres that this process started; dropping it stops the server.
#[derive(Debug)]
pub struct PrivatePostgres {
    postmaster: Postmaster,
    server: Running,
    data_dir: PathBuf,
    options: Options,
}

impl PrivatePostgres {
    /// Starts the server, making its data directory first when there is none, and waits until it answers a query.
    pub async fn start(options: Options) -> Result<Self, EmbeddedError> {
        let data_dir = match &options.data_dir {
            Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
            None => default_data_dir()?,
        };
        let account = Account::for_server()?;
        let home = cluster::Home::open(&data_dir, &account)?;
        let binaries = binaries::choose(options.bindir.as_deref(), home.major()?)?;
        home.init(&binaries, &account, options.durable).await?;
        let socket_folder = home.socket_folder(&account, options.port)?;
        let (postmaster, server) =
            Postmaster::start(home, &binaries, &account, socket_folder, &options).await?;
        Ok(Self { postmaster, server, data_dir, options })
    }

    /// Stops the server: connected clients are cut off, the data is safe. Fast first, then by force.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.postmaster.stop().await
    }

    /// One look of a supervisor: is the server still there? A server that ended by itself is started again.
    ///
    /// `Ok(true)` when it had to be started.
    pub async fn run_once(&mut self) -> Result<bool, EmbeddedError> {
        if self.postmaster.is_alive()? {
            return Ok(false);
        }
        self.server = self.postmaster.restart(&self.options).await?;
        Ok(true)
    }

    /// Where it is reached.
    pub fn server(&self) -> &Running {
        &self.server
    }

    /// The folder it lives in.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// How to reach a database in it.
    pub fn database(&self, dbname: &str) -> DatabaseConfig {
        self.server.database(dbname)
    }

    /// A connector to a database in it.
    pub fn connector(&self, dbname: &str) -> Result<Connector, EmbeddedError> {
        self.server.connector(dbname)
    }

    /// Makes a database unless it is there.
    pub async fn create_database(&self, dbname: &str) -> Result<(), EmbeddedError> {
        self.server.create_database(dbname).await
    }

    /// The command line that opens a database in psql.
    pub fn psql_command(&self, dbname: &str) -> String {
        self.server.psql_command(dbname)
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }
}
