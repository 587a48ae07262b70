//! `sql`: a database function, run and recorded in one transaction, so exactly once.
//!
//! The server enforces the time limit (`statement_timeout`) and is told to cancel when the attempt is: dropping the future
//! alone would leave the statement running. Sessions are cleaned before they go back to the pool.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::db::connect::Connector;
use crate::db::query::{self, DbError};
use crate::db::sqlstate;
use crate::task::ClaimedTask;

const CANCEL_AGAIN: Duration = Duration::from_millis(200);

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// What a transaction does.
struct Work<'a> {
    statement: &'a str,
    parameters: &'a [Parameter<'a>],
    limit_ms: u64,
}

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
    statements: Statements,
}

/// The statements of plain sql definitions, as the database makes them; kept up to date by the reader of definitions.
#[derive(Clone, Default)]
pub struct Statements {
    by_definition: Arc<RwLock<HashMap<String, Arc<str>>>>,
}

impl Statements {
    /// Takes the place of what was known.
    pub fn replace(&self, statements: HashMap<String, Arc<str>>) {
        *self.by_definition.write().unwrap_or_else(PoisonError::into_inner) = statements;
    }

    fn of(&self, definition: &str) -> Option<Arc<str>> {
        self.by_definition.read().unwrap_or_else(PoisonError::into_inner).get(definition).cloned()
    }
}

impl SqlExecutor {
    /// Takes its sessions from a pool that cleans them when they come back.
    pub fn new(pool: Pool, connector: Connector) -> Self {
        Self { pool, connector, statements: Statements::default() }
    }

    /// The statements that it knows.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Runs and records one task.
    pub async fn run(&self, task: &ClaimedTask, cancel: &CancellationToken) -> Transaction {
        let parameters: [Parameter; 3] = [&task.id, &task.attempt, &task.node];
        let run = async |statement: &str| {
            let work = Work { statement, parameters: &parameters, limit_ms: task.timeout_ms };
            self.transact(work, cancel.cancelled()).await
        };
        let plain = match self.statements.of(&task.definition) {
            Some(statement) => run(&statement).await,
            None => Some(Ok(Vec::new())),
        };
        let ended = match plain {
            // The task needs more than the plain statement does.
            Some(Ok(rows)) if rows.first().is_none_or(|row| row.get::<_, i64>("n") == 0) => {
                run(query::text("task.perform_sql")).await
            }
            ended => ended,
        };
        match ended {
            None => Transaction::NotBegun,
            Some(Ok(_)) => Transaction::Committed,
            Some(Err(error)) => classify(&error, cancel.is_cancelled()),
        }
    }

    /// Runs and records tasks of one definition in one transaction, within the time limit of one; those it left out. `None`: they
    /// are to be run one by one, for it was rolled back or nobody knows (whoever was recorded is then refused as stale).
    pub async fn run_batch(
        &self,
        tasks: &[&ClaimedTask],
        cancelled: impl Future<Output = ()>,
    ) -> Option<Vec<i64>> {
        let first = tasks.first()?;
        let ids: Vec<i64> = tasks.iter().map(|task| task.id).collect();
        let attempts: Vec<i32> = tasks.iter().map(|task| task.attempt).collect();
        let parameters: [Parameter; 3] = [&ids, &attempts, &first.node];
        let statement = query::text("task.perform_sql_batch");
        let work = Work { statement, parameters: &parameters, limit_ms: first.timeout_ms };
        let left_out = self.transact(work, cancelled).await?;
        left_out
            .inspect_err(|error| tracing::debug!(%error, tasks = ids.len(), "shared transaction rolled back"))
            .map(|rows| rows.iter().map(|row| row.get("id")).collect())
            .ok()
    }

    /// `None`: no session could be had.
    async fn transact(
        &self,
        work: Work<'_>,
        cancelled: impl Future<Output = ()>,
    ) -> Option<Result<Vec<Row>, DbError>> {
        tokio::pin!(cancelled);
        let session = tokio::select! {
            session = self.session() => session?,
            () = &mut cancelled => return None,
        };
        let canceller = session.cancel_token();
        let (ended, reusable) = {
            let work = transaction(&session, work);
            tokio::pin!(work);
            tokio::select! {
                ended = &mut work => ended,
                () = cancelled => loop {
                    // A request that comes between two statements has no effect: ask until it has ended.
                    self.connector.cancel(canceller.clone()).await;
                    if let Ok((ended, _)) = tokio::time::timeout(CANCEL_AGAIN, &mut work).await {
                        // The driver does not wait until the server has read a request: it must not hit another task.
                        break (ended, false);
                    }
                },
            }
        };
        if !reusable {
            drop(Object::take(session));
        }
        Some(ended)
    }

    /// A session; waits as long as the others are busy.
    async fn session(&self) -> Option<Object> {
        loop {
            match self.pool.get().await {
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

/// One statement, which is one transaction, between setting the limit and cleaning up, in one round trip: the server never waits for
/// this node with a transaction open, so a node that is stopped or cut off holds nothing. Also tells whether the session can be
/// used again.
async fn transaction(session: &Object, work: Work<'_>) -> (Result<Vec<Row>, DbError>, bool) {
    let statement = match session.prepare_cached(work.statement).await {
        Ok(statement) => statement,
        Err(error) => return (Err(error.into()), false),
    };
    let limit = format!("set statement_timeout = {}", work.limit_ms.max(1));
    let (limited, performed, cleaned) = futures_util::future::join3(
        session.batch_execute(&limit),
        session.query(&statement, work.parameters),
        session.batch_execute(query::CLEAN),
    )
    .await;
    (limited.and(performed).map_err(DbError::from), cleaned.is_ok())
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
