//! `sql`: a database function, run and recorded in one transaction, so exactly once.
//!
//! The server enforces the time limit (`statement_timeout`) and is told to cancel when the attempt is: dropping the future
//! alone would leave the statement running. Sessions come from a pool that resets them before the next use.

use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::db::connect::Connector;
use crate::db::query::{self, DbError};
use crate::db::sqlstate;
use crate::task::ClaimedTask;

const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// How a sql task's transaction ended.
#[derive(Debug)]
pub enum Transaction {
    /// Committed: the effect is there and the task recorded.
    Committed,
    /// Rolled back because the function raised.
    Raised(Value),
    /// Rolled back because it took too long.
    TimedOut,
    /// Rolled back because the attempt was cancelled.
    Cancelled,
    /// The claim was gone: somebody else ended the task.
    Stale,
    /// The connection broke; whether it committed is for the record to tell.
    Unknown(Value),
    /// No session could be had: it has not begun.
    NotBegun,
}

/// Runs sql tasks.
#[derive(Clone)]
pub struct SqlExecutor {
    pool: Pool,
    connector: Connector,
}

impl SqlExecutor {
    /// Takes its sessions from a pool that cleans them when they come back.
    pub fn new(pool: Pool, connector: Connector) -> Self {
        Self { pool, connector }
    }

    /// Runs and records one task.
    pub async fn run(&self, task: &ClaimedTask, cancel: &CancellationToken) -> Transaction {
        let Some(session) = self.session(cancel).await else { return Transaction::NotBegun };
        let canceller = session.cancel_token();
        let work = transaction(session, task);
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = cancel.cancelled() => loop {
                // A request that comes between two statements has no effect: ask until it has ended.
                self.connector.cancel(canceller.clone()).await;
                if let Ok(ended) = tokio::time::timeout(CANCEL_AGAIN, &mut work).await {
                    break ended;
                }
            },
        };
        match ended {
            Ok(()) => Transaction::Committed,
            Err(error) => classify(&error, cancel.is_cancelled()),
        }
    }

    /// A session; waits as long as the others are busy.
    async fn session(&self, cancel: &CancellationToken) -> Option<Object> {
        loop {
            let got = tokio::select! {
                got = self.pool.get() => got,
                () = cancel.cancelled() => return None,
            };
            match got {
                Ok(session) => return Some(session),
                Err(PoolError::Timeout(TimeoutType::Wait)) => {}
                Err(error) => {
                    tracing::debug!(error = %DbError::from(error), "no session for a sql task");
                    return None;
                }
            }
        }
    }
}

/// Begin, limit and run in one round trip, then commit.
async fn transaction(mut session: Object, task: &ClaimedTask) -> Result<(), DbError> {
    let statement = session.prepare_cached(query::text("task.perform_sql")).await?;
    let limit = Duration::from_millis(task.timeout_ms).as_millis().max(1);
    let transaction = session.transaction().await?;
    let limited = format!("set local statement_timeout = {limit}");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&task.id, &task.attempt, &task.node];
    let (limited, performed) = futures_util::future::join(
        transaction.batch_execute(&limited),
        transaction.query(&statement, &parameters),
    )
    .await;
    limited?;
    performed?;
    transaction.commit().await?;
    Ok(())
}

fn classify(error: &DbError, cancelled: bool) -> Transaction {
    if error.sqlstate() == Some(sqlstate::STALE_ATTEMPT.code) {
        return Transaction::Stale;
    }
    match error {
        DbError::Postgres(pg) if pg.as_db_error().is_some() && !error.is_outage() => match error.sqlstate() {
            Some("57014") if cancelled => Transaction::Cancelled,
            Some("57014") => Transaction::TimedOut,
            _ => Transaction::Raised(sqlstate::document(pg)),
        },
        other => Transaction::Unknown(json!({ "message": other.to_string() })),
    }
}
