//! One attempt: plan, perform, settle.
//!
//! A sql task is one transaction. Every other task asks its plan function (if it has one) for the next effect, performs
//! it, keeps the response, and asks again; without a plan the definition's effect is the only one. However it ends, the
//! ending is recorded once, fenced, and retried until the database has answered: an attempt is over when that is done.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use serde_json::{Value, json};

use super::completer::Completer;
use super::pace::PATIENCE;
use super::running::{StopReason, Ticket};
use super::store::{Completion, Planned, Store};
use super::{ClaimedTask, ExecutorKind, Outcome};
use crate::db::query::DbError;
use crate::db::sqlstate;
use crate::executor::sql::{SqlExecutor, Transaction};
use crate::executor::{Effect, Executors, Failure};
use crate::service::panic_message;

/// A task may have this many effects.
const MOST_STEPS: i16 = 16;
/// A task that could not begin because no session could be had waits this long.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// What an attempt needs.
pub struct Runner {
    /// Where endings are recorded.
    pub store: Store,
    /// Where plain completions are batched.
    pub completer: Completer,
    /// Sql tasks.
    pub sql: SqlExecutor,
    /// All other tasks.
    pub executors: Executors,
}

/// How an attempt ended, and whether that is on record already.
enum Ended {
    Recorded,
    With(Outcome),
}

impl Runner {
    /// Runs a claimed task with effects to the end of this attempt and records it.
    pub async fn run(&self, task: ClaimedTask, ticket: Ticket) {
        let task = Arc::new(task);
        let work = async {
            // Told to stop while it waited for a slot: it does not begin.
            if ticket.token().is_cancelled() {
                return Ended::With(stopped(ticket.reason()));
            }
            self.run_effects(&task, &ticket).await
        };
        let ended = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            let message = format!("panicked: {}", panic_message(panic.as_ref()));
            Ended::With(Outcome::Failed(json!({ "message": message }), None))
        });
        match ended {
            Ended::Recorded => {}
            Ended::With(Outcome::Done(result)) if !task.settled && !task.planned => {
                self.completer.complete(Completion { task, result, ticket }).await;
            }
            Ended::With(outcome) => self.store.record(&task, outcome).await,
        }
    }

    /// Runs claimed sql tasks of one definition in one transaction; those that cannot share it, each in its own.
    pub async fn run_batch(&self, members: Vec<(ClaimedTask, Ticket)>) {
        let tasks: Vec<&ClaimedTask> = members.iter().map(|(task, _)| task).collect();
        let any_stopped = select_all(members.iter().map(|(_, ticket)| Box::pin(ticket.stopped())));
        let left_out = self.sql.run_batch(&tasks, any_stopped.map(drop)).await;
        for (task, ticket) in members {
            if left_out.as_ref().is_none_or(|ids| ids.contains(&task.id)) {
                self.run_row(vec![(task, ticket)], || {}).await;
            }
        }
    }

    /// Runs claimed sql tasks of one definition one after the other in one session, each in a transaction of its own, and records them; `each`
    /// is called when one has ended.
    pub async fn run_row(&self, mut members: Vec<(ClaimedTask, Ticket)>, mut each: impl FnMut()) {
        // Told to stop while they waited for a slot: these do not begin.
        for (task, ticket) in members.extract_if(.., |(_, ticket)| ticket.token().is_cancelled()) {
            self.store.record(&task, stopped(ticket.reason())).await;
            each();
        }
        let tokens: Vec<_> = members.iter().map(|(_, ticket)| ticket.token().clone()).collect();
        let tasks: Vec<_> = members.iter().map(|(task, _)| task).zip(&tokens).collect();
        let mut row = self.sql.run(&tasks).await;
        let mut broken = false;
        let mut members = VecDeque::from(members);
        while let Some((task, ticket)) = members.pop_front() {
            let transaction = {
                let mut next = pin!(row.next());
                tokio::select! {
                    transaction = &mut next => transaction,
                    // Slower than expected: the others are given back. When their turn comes, their claim is gone.
                    () = tokio::time::sleep(PATIENCE) => {
                        for (task, _ticket) in members.drain(..) {
                            self.store.record(&task, Outcome::Interrupted).await;
                            each();
                        }
                        next.await
                    }
                }
            };
            each();
            let outcome = match transaction {
                // Its session had broken before it could begin.
                Transaction::Unknown(_) if broken => Outcome::Interrupted,
                transaction => {
                    broken = matches!(transaction, Transaction::Unknown(_));
                    match ended(transaction, &task, &ticket) {
                        Ended::Recorded => continue,
                        Ended::With(outcome) => outcome,
                    }
                }
            };
            self.store.record(&task, outcome).await;
        }
    }

    async fn run_effects(&self, task: &Arc<ClaimedTask>, ticket: &Ticket) -> Ended {
        let limit = Duration::from_millis(task.timeout_ms);
        tokio::select! {
            outcome = tokio::time::timeout(limit, self.perform_all(task)) => match outcome {
                Ok(Ok(result)) => Ended::With(Outcome::Done(result)),
                Ok(Err(ended)) => ended,
                Err(_) => Ended::With(timed_out(task)),
            },
            reason = ticket.stopped() => Ended::With(stopped(reason)),
        }
    }

    async fn perform_all(&self, task: &Arc<ClaimedTask>) -> Result<Value, Ended> {
        if !task.planned {
            let effect = Effect {
                task: Arc::clone(task),
                step: 1,
                executor: task.executor,
                spec: task.effect.clone(),
            };
            return self.perform(effect).await;
        }
        loop {
            let (next, steps) = match self.store.plan(task).await.map_err(from_database)? {
                Planned::Effect { effect, steps } => (effect, steps),
                Planned::Nothing => {
                    let last = self.store.last_response(task.id).await.map_err(from_database)?;
                    return Ok(last.unwrap_or(Value::Null));
                }
                Planned::Ended => return Err(Ended::Recorded),
            };
            let step = i16::try_from(steps).unwrap_or(i16::MAX).saturating_add(1);
            if step > MOST_STEPS {
                let error = json!({ "message": format!("the plan has more than {MOST_STEPS} effects") });
                return Err(Ended::With(Outcome::Rejected(error)));
            }
            let (executor, spec) = overlay(task, next)
                .map_err(|problem| Ended::With(Outcome::Rejected(json!({ "message": problem }))))?;
            let effect = Effect { task: Arc::clone(task), step, executor, spec };
            let response = self.perform(effect.clone()).await?;
            self.store.record_step(&effect, &response).await.map_err(from_database)?;
        }
    }

    async fn perform(&self, effect: Effect) -> Result<Value, Ended> {
        match self.executors.perform(effect).await {
            Ok(response) => Ok(response),
            Err(Failure::Retry { error, after }) => Err(Ended::With(Outcome::Failed(error, after))),
            Err(Failure::Reject(error)) => Err(Ended::With(Outcome::Rejected(error))),
            Err(Failure::Snooze(after)) => Err(Ended::With(Outcome::Snoozed(after))),
        }
    }
}

fn ended(transaction: Transaction, task: &ClaimedTask, ticket: &Ticket) -> Ended {
    match transaction {
        Transaction::Committed | Transaction::Stale => Ended::Recorded,
        Transaction::Raised(error) => Ended::With(Outcome::Failed(error, None)),
        Transaction::TimedOut => Ended::With(timed_out(task)),
        Transaction::Cancelled => Ended::With(stopped(ticket.reason())),
        Transaction::NotBegun if ticket.token().is_cancelled() => Ended::With(stopped(ticket.reason())),
        Transaction::NotBegun => Ended::With(Outcome::Snoozed(BEGIN_AGAIN)),
        // Had it committed, the task is gone and this record is refused as stale.
        Transaction::Unknown(error) => Ended::With(Outcome::Lost(error)),
    }
}

fn timed_out(task: &ClaimedTask) -> Outcome {
    Outcome::TimedOut(json!({ "message": format!("took longer than {} ms", task.timeout_ms) }))
}

fn stopped(reason: StopReason) -> Outcome {
    match reason {
        StopReason::Cancelled => Outcome::Cancelled,
        StopReason::Interrupted => Outcome::Interrupted,
        StopReason::LeaseLost => Outcome::Lost(json!({ "message": "the node could not renew its lease" })),
    }
}

fn from_database(error: DbError) -> Ended {
    if error.sqlstate() == Some(sqlstate::STALE_ATTEMPT.code) {
        return Ended::Recorded;
    }
    match error {
        DbError::Postgres(ref pg) if !error.is_outage() => {
            Ended::With(Outcome::Failed(sqlstate::document(pg), None))
        }
        other => Ended::With(Outcome::Lost(json!({ "message": other.to_string() }))),
    }
}

/// The definition's effect with the plan's laid over it, key by key, and who performs it. One for another executor stands alone.
fn overlay(task: &ClaimedTask, over: Value) -> Result<(ExecutorKind, Value), String> {
    match (&task.effect, over) {
        (base, Value::Object(mut over)) => {
            let executor = match over.remove("executor") {
                None => task.executor,
                Some(Value::String(name)) => {
                    ExecutorKind::from_name(&name).ok_or(format!("plan: there is no executor {name}"))?
                }
                Some(other) => return Err(format!("plan: {other} is no executor's name")),
            };
            let mut merged = match base {
                Value::Object(base) if executor == task.executor => base.clone(),
                _ => serde_json::Map::new(),
            };
            merged.extend(over);
            Ok((executor, Value::Object(merged)))
        }
        (_, over) => Ok((task.executor, over)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_laid_over_the_definitions_effect() {
        let task = ClaimedTask {
            executor: ExecutorKind::Exec,
            effect: json!({ "program": "mail", "args": ["-v"] }),
            ..ClaimedTask::example()
        };
        let merged = overlay(&task, json!({ "args": [], "input": 1 }));
        assert_eq!(merged, Ok((ExecutorKind::Exec, json!({ "program": "mail", "args": [], "input": 1 }))));
        let other = overlay(&task, json!({ "executor": "smtp", "to": "x" }));
        assert_eq!(
            other,
            Ok((ExecutorKind::Smtp, json!({ "to": "x" }))),
            "and one for another executor is not"
        );
        assert!(overlay(&task, json!({ "executor": "magic" })).is_err());
    }
}
