//! Named statements and the pool that runs them.
//!
//! Rust never concatenates SQL: every statement the daemon sends is a named one in `sql/queries/<noun>.sql`, embedded in
//! the binary and asked for as `"<noun>.<name>"`. Every statement has a deadline, here and on the server, so that no loop
//! can hang on a silent socket.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use include_dir::{Dir, include_dir};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::sqlstate;

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/sql/queries");
static QUERIES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(read_queries);

/// What a pooled session of the daemon's own loops is set to. The client's deadline is a little later.
pub const SESSION_SETUP: &str = "set statement_timeout = '25s'; set lock_timeout = '10s'; \
     set idle_in_transaction_session_timeout = '60s'; set application_name = 'rowbeat'";
/// Takes back what a function may have left behind in a session, but for session locks.
pub const CLEAN: &str =
    "close all; set session authorization default; reset all; unlisten *; discard temp; discard sequences";
/// Gives its session locks back.
pub const UNLOCK: &str = "select pg_advisory_unlock_all()";
/// All of it, and back to what a pooled session is set to.
pub(crate) static CLEAN_SESSION: LazyLock<String> =
    LazyLock::new(|| format!("{CLEAN}; {UNLOCK}; {SESSION_SETUP}"));
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a statement gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The server answered with an error, or the connection broke.
    #[error("{}", sqlstate::describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No connection could be had.
    #[error("no connection to the database: {}", .0.message)]
    Unavailable(Unavailable),
    /// Neither answer nor error within the deadline.
    #[error("no answer from the database within {} seconds", DEADLINE.as_secs())]
    Silent,
}

/// Why the pool had no connection, as text: the pool's own error does not show its causes.
#[derive(Debug)]
pub struct Unavailable {
    message: String,
}

impl DbError {
    /// The SQLSTATE, if the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }

    /// Whether the database is away, not yet there, or read-only: worth waiting for, not worth giving up.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Postgres(error) => sqlstate::is_outage(error),
            Self::Unavailable(_) | Self::Silent => true,
        }
    }
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Postgres(error),
            other => Self::Unavailable(Unavailable { message: error_chain(&other) }),
        }
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The daemon's way to the database: a pool and the named statements.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
}

impl Db {
    /// Runs the named statements on this pool.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// A session of the pool, for transactions.
    ///
    /// # Errors
    /// `Unavailable` when none could be had in time.
    pub async fn session(&self) -> Result<Object, DbError> {
        Ok(self.pool.get().await?)
    }

    /// All rows of a named statement.
    ///
    /// # Errors
    /// Whatever the server answers, or that it does not answer.
    pub async fn rows(&self, name: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DbError> {
        let run = async {
            let session = self.pool.get().await?;
            let statement = session.prepare_cached(text(name)).await?;
            Ok(session.query(&statement, parameters).await?)
        };
        tokio::time::timeout(DEADLINE, run).await.unwrap_or(Err(DbError::Silent))
    }

    /// The first row of a named statement, if there is one.
    ///
    /// # Errors
    /// As `rows`.
    pub async fn row(&self, name: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, DbError> {
        Ok(self.rows(name, parameters).await?.into_iter().next())
    }

    /// The same, for statements that call functions of users and plugins: settings, locks and tables that those leave in the
    /// session are cleared, in the same round trip.
    ///
    /// # Errors
    /// As `rows`.
    pub async fn guarded_row(
        &self,
        name: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, DbError> {
        let run = async {
            let session = self.pool.get().await?;
            let statement = session.prepare_cached(text(name)).await?;
            let (rows, cleared) = futures_util::future::join(
                session.query(&statement, parameters),
                session.batch_execute(CLEAN_SESSION.as_str()),
            )
            .await;
            if cleared.is_err() {
                drop(Object::take(session));
            }
            Ok(rows?.into_iter().next())
        };
        tokio::time::timeout(DEADLINE, run).await.unwrap_or(Err(DbError::Silent))
    }
}

/// The text of a named statement.
///
/// # Panics
/// If there is none of that name: a test looks every name up.
pub fn text(name: &str) -> &'static str {
    QUERIES.get(name).copied().unwrap_or_else(|| panic!("no statement is named {name}"))
}

/// All named statements: `("<noun>.<name>", text)`.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    QUERIES.iter().map(|(name, text)| (name.as_str(), *text))
}

fn read_queries() -> HashMap<String, &'static str> {
    let mut queries = HashMap::new();
    for file in FILES.files() {
        let noun = file.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        for part in file.contents_utf8().unwrap_or_default().split("-- name: ").skip(1) {
            let (name, body) = part.split_once('\n').unwrap_or((part, ""));
            let name = format!("{noun}.{}", name.trim());
            assert!(queries.insert(name.clone(), body.trim()).is_none(), "two statements are named {name}");
        }
    }
    queries
}
