//! Which database a command works with: the configured one, else the private one that is running.

use std::ffi::OsString;
use std::path::PathBuf;

use deadpool_postgres::RecyclingMethod;

use super::Global;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{Config, Environment};
use crate::daemon::PRIVATE_DATABASE;
use crate::db::connect::Connector;
use crate::db::embedded::{self, Options, PrivatePostgres};
use crate::db::query::{Db, SESSION_SETUP};

/// What every command knows.
pub(super) struct Context {
    global: Global,
}

/// The private Postgres, if the command had to start it.
pub(super) type Started = Option<PrivatePostgres>;

impl Context {
    pub(super) fn new(global: Global) -> Self {
        Self { global }
    }

    /// The same with options that stand among the arguments of a command that clap did not read; those arguments without them.
    pub(super) fn with_globals_of(self, arguments: Vec<OsString>) -> (Self, Vec<OsString>) {
        let (later, rest) = Global::take(arguments);
        let global = Global {
            config: later.config.or(self.global.config),
            data_dir: later.data_dir.or(self.global.data_dir),
            json: later.json || self.global.json,
        };
        (Self { global }, rest)
    }

    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.global.data_dir.clone()
    }

    /// The configuration, with `--data-dir` laid over it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.global.config.as_deref(), &Environment::of_process())?;
        if let Some(data_dir) = self.data_dir() {
            if let Some(database) = &config.database {
                return Err(Failure::new(format!(
                    "--data-dir is for the private Postgres, but {} is configured",
                    database.describe()
                ))
                .exit(Exit::Usage)
                .remedy("leave --data-dir out, or unset DATABASE_URL, PG* variables and [database]"));
            }
            config.override_data_dir(data_dir);
        }
        Ok(config)
    }

    /// The configured database, else the running private one.
    pub(super) fn connector(&self) -> Result<Connector, Failure> {
        let config = self.config()?;
        if let Some(database) = &config.database {
            return Ok(Connector::new(database)?);
        }
        match embedded::running(config.private_postgres.data_dir.as_deref())? {
            Some(running) => Ok(running.connector(PRIVATE_DATABASE)?),
            None => {
                let folder = match config.private_postgres.data_dir {
                    Some(folder) => folder,
                    None => embedded::default_data_dir()?,
                };
                Err(Failure::new(format!(
                    "no database is configured, and no private Postgres runs in {}",
                    folder.display()
                ))
                .exit(Exit::Unavailable)
                .remedy(
                    "start one with `rowbeat start` (perhaps with --data-dir), or name yours by DATABASE_URL or --config",
                ))
            }
        }
    }

    /// The same, and a private Postgres that does not run is started: `stop` has to be called in the end.
    pub(super) async fn connector_or_start(&self) -> Result<(Connector, Started), Failure> {
        let config = self.config()?;
        if config.database.is_some()
            || embedded::running(config.private_postgres.data_dir.as_deref())?.is_some()
        {
            return Ok((self.connector()?, None));
        }
        let private = PrivatePostgres::start(Options::from(&config.private_postgres)).await?;
        private.create_database(PRIVATE_DATABASE).await?;
        Ok((private.connector(PRIVATE_DATABASE)?, Some(private)))
    }

    /// Named statements on the database of `connector`.
    pub(super) async fn db(&self) -> Result<Db, Failure> {
        let connector = self.connector()?;
        // The pool's errors say less about what is wrong with a connection.
        drop(connector.connect("command").await?);
        Ok(Db::new(connector.pool(2, RecyclingMethod::Fast, SESSION_SETUP)))
    }
}
