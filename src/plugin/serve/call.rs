//! The call of an endpoint's function: one transaction and the cleaning of the session, in one round trip, so that the server never waits
//! for this node with a transaction open.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::future::{OptionFuture, join5};
use serde_json::Value;
use tokio_postgres::Row;

use crate::db::query::{self, DbError};

/// How much later than the server this side gives up.
const GRACE: Duration = Duration::from_secs(5);

/// What is called.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// GET, POST, …
    pub(super) method: &'a str,
    /// The endpoint's path with `{}` for every parameter.
    pub(super) shape: &'a str,
    /// The request document.
    pub(super) request: Value,
    /// Files, in the order of their index.
    pub(super) files: Vec<Vec<u8>>,
    /// Digest of the token that was shown.
    pub(super) token: Option<Vec<u8>>,
    /// Whether the request came straight over the loopback.
    pub(super) open: bool,
}

/// Calls, in sessions of its own.
#[derive(Clone)]
pub(super) struct Caller {
    pool: Pool,
    limit: Duration,
}

impl Caller {
    /// Calls in the sessions of this pool, each within a time limit.
    pub(super) fn new(pool: Pool, limit: Duration) -> Self {
        Self { pool, limit }
    }

    /// Calls an endpoint: the row of `rowbeat.serve_endpoint`, once it is committed.
    ///
    /// # Errors
    /// What the function or the commit raised; then nothing was changed.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Row, DbError> {
        tokio::time::timeout(self.limit + GRACE, self.transact(call)).await.unwrap_or(Err(DbError::Silent))
    }

    async fn transact(&self, call: &Call<'_>) -> Result<Row, DbError> {
        let session = self.pool.get().await?;
        let serve = session.prepare_cached(query::text("endpoint.serve")).await?;
        let used = match &call.token {
            Some(_) => Some(session.prepare_cached(query::text("endpoint.used")).await?),
            None => None,
        };
        let mode = if call.method == "GET" { "read only" } else { "read write" };
        let begin =
            format!("begin transaction {mode}; set local statement_timeout = {}", self.limit.as_millis());
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&call.method, &call.shape, &call.request, &call.files, &call.token, &call.open];
        let shown: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&call.token];
        // Each is sent when it is polled first, so in this order. What is noted of the token may fail: the answer stands.
        let (begun, rows, committed, cleaned, _) = join5(
            session.batch_execute(&begin),
            session.query(&serve, &parameters),
            session.batch_execute("commit"),
            session.batch_execute(query::CLEAN_SESSION.as_str()),
            OptionFuture::from(used.as_ref().map(|used| session.query(used, &shown))),
        )
        .await;
        if cleaned.is_err() {
            drop(Object::take(session));
        }
        begun?;
        let row = rows?.into_iter().next();
        committed?;
        row.ok_or(DbError::Silent)
    }
}
