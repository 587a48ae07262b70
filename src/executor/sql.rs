//! `sql`: a database function, run and recorded in one transaction, so exactly once.
//!
//! The server enforces the time limit (`statement_timeout`) and is told to cancel when the attempt is: dropping the future
//! alone would leave the statement running. Sessions are cleaned after every transaction.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::poll;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::db::connect::Connector;
use crate::db::query::{self, DbError};
use crate::db::sqlstate;
use crate::task::{ClaimedTask, SqlStatements};

const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// The longest time limit that the server takes.
const LONGEST_MS: u64 = 2_147_483_647;

type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;
type Transacting = Pin<Box<dyn Future<Output = (Result<Vec<tokio_postgres::Row>, DbError>, bool)> + Send>>;
type Cancelled<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What a transaction does.
struct Work<'a> {
    parameters: Parameters,
    cancelled: Cancelled<'a>,
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
    seats: Arc<Seats>,
}

/// The sessions, each with the time limit that is set in it. They never go back to the pool, which would forget the limit.
struct Seats {
    free: Semaphore,
    idle: Mutex<Vec<(Object, u64)>>,
}

/// The statements of plain sql definitions, as the database makes them; kept up to date by the reader of definitions.
#[derive(Clone, Default)]
pub struct Statements {
    by_definition: Arc<RwLock<SqlStatements>>,
}

impl Statements {
    /// Takes the place of what was known.
    pub fn replace(&self, statements: SqlStatements) {
        *self.by_definition.write().unwrap_or_else(PoisonError::into_inner) = statements;
    }

    fn of(&self, task: &ClaimedTask) -> Option<Arc<str>> {
        let statements = self.by_definition.read().unwrap_or_else(PoisonError::into_inner);
        let (revision, statement) = statements.get(&task.definition)?;
        (*revision == task.revision).then(|| Arc::clone(statement))
    }
}

impl SqlExecutor {
    /// Uses all sessions of this pool.
    pub fn new(pool: Pool, connector: Connector) -> Self {
        let free = Semaphore::new(pool.status().max_size);
        let seats = Arc::new(Seats { free, idle: Mutex::default() });
        Self { pool, connector, statements: Statements::default(), seats }
    }

    /// The statements that it knows.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Runs and records tasks of one definition one after the other, each in a transaction of its own, all of them on their way at once.
    pub async fn run<'a>(&'a self, tasks: &[(&ClaimedTask, &'a CancellationToken)]) -> Row<'a> {
        let Some((first, _)) = tasks.first() else { return Row::none(self) };
        let planned = self.statements.of(first);
        let statement = planned.as_deref().unwrap_or(query::text("task.perform_sql"));
        let works = tasks.iter().map(|(task, cancel)| Work {
            parameters: vec![Box::new(task.id), Box::new(task.attempt), Box::new(task.node)],
            cancelled: Box::pin(cancel.cancelled()),
        });
        self.begin(statement, first.timeout_ms, works.collect()).await
    }

    /// Whether tasks can go in one row: the same statement runs them, within the same time.
    pub fn alike(&self, one: &ClaimedTask, other: &ClaimedTask) -> bool {
        one.definition == other.definition
            && one.timeout_ms == other.timeout_ms
            && self.statements.of(one).is_some()
            && self.statements.of(other).is_some()
    }

    /// Runs and records tasks of one definition in one transaction, within the time limit of one; those it left out. `None`: they
    /// are to be run one by one, for it was rolled back or nobody knows (whoever was recorded is then refused as stale).
    pub async fn run_batch(
        &self,
        tasks: &[&ClaimedTask],
        cancelled: impl Future<Output = ()> + Send,
    ) -> Option<Vec<i64>> {
        let first = tasks.first()?;
        let ids: Vec<i64> = tasks.iter().map(|task| task.id).collect();
        let attempts: Vec<i32> = tasks.iter().map(|task| task.attempt).collect();
        let parameters: Parameters = vec![Box::new(ids), Box::new(attempts), Box::new(first.node)];
        let work = Work { parameters, cancelled: Box::pin(cancelled) };
        let statement = query::text("task.perform_sql_batch");
        let left_out = self.begin(statement, first.timeout_ms, vec![work]).await.answer().await?;
        left_out
            .inspect_err(
                |error| tracing::debug!(%error, tasks = tasks.len(), "shared transaction rolled back"),
            )
            .map(|rows| rows.first().map(|row| row.get("left_out")).unwrap_or_default())
            .ok()
    }

    async fn begin<'a>(&'a self, statement: &str, limit_ms: u64, mut works: Vec<Work<'a>>) -> Row<'a> {
        let mut row = Row::none(self);
        let Some(first) = works.first_mut() else { return row };
        let seat = tokio::select! {
            biased;
            () = &mut first.cancelled => None,
            seat = self.session() => seat,
        };
        let Some((permit, session, set_ms)) = seat else { return row };
        let session = Arc::new(session);
        row.seat = Some((permit, Arc::clone(&session), limit_ms));
        let statement = match session.prepare_cached(statement).await {
            Ok(statement) => statement,
            Err(error) => {
                row.reusable = false;
                row.refused = Some(error.into());
                return row;
            }
        };
        let limit = format!("set statement_timeout = {}", limit_ms.clamp(1, LONGEST_MS));
        let clean: Arc<str> = format!("{}; {limit}", query::CLEAN).into();
        let mut limited = pin!(session.batch_execute(&limit));
        if set_ms != limit_ms {
            // Without an answer none of the others has one either.
            let _ = poll!(&mut limited);
        }
        for work in works {
            let transaction =
                transaction(Arc::clone(&session), statement.clone(), work.parameters, Arc::clone(&clean));
            // Polled once, it is on its way; the driver keeps the order.
            let mut transaction = maybe_done(Box::pin(transaction) as Transacting);
            let _ = poll!(&mut transaction);
            row.pending.push_back((transaction, work.cancelled));
        }
        row
    }

    /// A session and the time limit that is set in it; waits as long as the others are busy.
    async fn session(&self) -> Option<(SemaphorePermit<'_>, Object, u64)> {
        let permit = self.seats.free.acquire().await.ok()?;
        while let Some((session, limit_ms)) = self.seats.idle().pop() {
            if !session.is_closed() {
                return Some((permit, session, limit_ms));
            }
            drop(Object::take(session));
        }
        match self.pool.get().await {
            Ok(session) => Some((permit, session, 0)),
            Err(error) => {
                tracing::debug!(error = %DbError::from(error), "no session for a sql task");
                None
            }
        }
    }
}

impl Seats {
    fn idle(&self) -> MutexGuard<'_, Vec<(Object, u64)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One statement, which is one transaction, and cleaning up, in one round trip: the server never waits for this node with a transaction
/// open, so a node that is stopped or cut off holds nothing. Also tells whether the session can be used again.
async fn transaction(
    session: Arc<Object>,
    statement: Statement,
    parameters: Parameters,
    clean: Arc<str>,
) -> (Result<Vec<tokio_postgres::Row>, DbError>, bool) {
    let parameters: Vec<_> = parameters.iter().map(|parameter| &**parameter as _).collect();
    let (performed, cleaned) =
        futures_util::future::join(session.query(&statement, &parameters), session.batch_execute(&clean))
            .await;
    (performed.map_err(DbError::from), cleaned.is_ok())
}

/// Transactions on their way in one session, in order.
pub struct Row<'a> {
    executor: &'a SqlExecutor,
    seat: Option<(SemaphorePermit<'a>, Arc<Object>, u64)>,
    pending: VecDeque<(MaybeDone<Transacting>, Cancelled<'a>)>,
    refused: Option<DbError>,
    reusable: bool,
    /// One failed: the statements give session locks back themselves, in their last column, which is cheaper, but that one did not.
    locked: bool,
    cancelled: bool,
}

impl<'a> Row<'a> {
    fn none(executor: &'a SqlExecutor) -> Self {
        Self {
            executor,
            seat: None,
            pending: VecDeque::new(),
            refused: None,
            reusable: true,
            locked: false,
            cancelled: false,
        }
    }

    /// How the next of them ended.
    pub async fn next(&mut self) -> Transaction {
        match self.answer().await {
            None => Transaction::NotBegun,
            Some(Ok(_)) => Transaction::Committed,
            Some(Err(error)) => classify(&error, self.cancelled),
        }
    }

    /// The answer to the next of them; `None`: it has not begun.
    async fn answer(&mut self) -> Option<Result<Vec<tokio_postgres::Row>, DbError>> {
        let Some((mut transaction, cancelled)) = self.pending.pop_front() else {
            return self.refused.take().map(Err);
        };
        let (_, session, _) = self.seat.as_ref()?;
        tokio::select! {
            biased;
            () = &mut transaction => {}
            () = cancelled => {
                // The driver does not wait until the server has read a request, which may hit whatever comes next here.
                self.cancelled = true;
                self.reusable = false;
                let canceller = session.cancel_token();
                loop {
                    // A request that comes between two statements has no effect: ask until it has ended.
                    self.executor.connector.cancel(canceller.clone()).await;
                    if tokio::time::timeout(CANCEL_AGAIN, &mut transaction).await.is_ok() {
                        break;
                    }
                }
            }
        }
        let (performed, cleaned) = Pin::new(&mut transaction).take_output()?;
        self.reusable &= cleaned;
        self.locked |= performed.is_err();
        if self.locked && self.reusable && self.pending.is_empty() {
            self.reusable = session.batch_execute(query::UNLOCK).await.is_ok();
        }
        Some(performed)
    }
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        let all_ended = self.pending.is_empty();
        self.pending.clear();
        let Some((permit, session, limit_ms)) = self.seat.take() else { return };
        if let Ok(session) = Arc::try_unwrap(session) {
            if self.reusable && all_ended {
                self.executor.seats.idle().push((session, limit_ms));
            } else {
                drop(Object::take(session));
            }
        }
        drop(permit);
    }
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
