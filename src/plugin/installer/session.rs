//! The installer's session: named statements, one transaction, and where in a text the server found an error.

use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::PluginError;
use crate::db::connect::Connector;
use crate::db::query;

/// Nobody queues for long behind the locks that DDL waits for; the plugin's own work may take its time.
const SETUP: &str = "set statement_timeout = 0; set lock_timeout = '10s'; set idle_in_transaction_session_timeout = '10min'; \
     set search_path = ''; set client_min_messages = 'warning'";

pub(super) struct Session {
    client: Client,
}

/// Works with a session of its own; whatever is not committed when the work ends is rolled back with it.
pub(super) async fn within<T>(
    connector: &Connector,
    work: impl AsyncFnOnce(&Session) -> Result<T, PluginError>,
) -> Result<T, PluginError> {
    let (client, connection) = connector.for_listen().connect("plugin").await?;
    let session = Session { client };
    let work = async {
        session.batch(SETUP).await?;
        work(&session).await
    };
    tokio::select! {
        done = work => done,
        ended = connection => Err(ended.err().map_or(PluginError::Closed, PluginError::Postgres)),
    }
}

impl Session {
    /// Begins the transaction, when no migration and no other plugin is being applied.
    pub(super) async fn begin(&self) -> Result<(), PluginError> {
        self.batch("begin").await?;
        match self.rows("plugin.begin", &[]).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(PluginError::refused(
                "a migration or another plugin is being applied",
                "try again when it has ended",
            )),
            done => Ok(done.map(drop)?),
        }
    }

    /// Commits, or rolls back what was only to be seen.
    pub(super) async fn end(&self, dry_run: bool) -> Result<(), PluginError> {
        Ok(self.batch(if dry_run { "rollback" } else { "commit" }).await?)
    }

    pub(super) async fn rollback(&self) -> Result<(), PluginError> {
        self.end(true).await
    }

    /// Runs a text of statements.
    pub(super) async fn batch(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(text).await
    }

    /// All rows of a named statement.
    pub(super) async fn rows(
        &self,
        name: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query(query::text(name), parameters).await
    }

    /// The row of a named statement that has one.
    pub(super) async fn row(
        &self,
        name: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, tokio_postgres::Error> {
        self.client.query_one(query::text(name), parameters).await
    }

    /// All rows of a named statement; when it fails, the transaction goes on as if it had not been tried.
    pub(super) async fn try_rows(
        &self,
        name: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Result<Vec<Row>, tokio_postgres::Error>, tokio_postgres::Error> {
        self.batch("savepoint part").await?;
        let rows = self.rows(name, parameters).await;
        self.batch(if rows.is_ok() { "release savepoint part" } else { "rollback to savepoint part" })
            .await?;
        Ok(rows)
    }
}

/// The line of a text in which the server found an error.
pub(super) fn line(error: &tokio_postgres::Error, text: &str) -> Option<usize> {
    let Some(ErrorPosition::Original(position)) = error.as_db_error()?.position() else { return None };
    let before = text.chars().take(*position as usize - 1);
    Some(1 + before.filter(|c| *c == '\n').count())
}
