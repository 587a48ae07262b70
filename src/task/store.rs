//! The task table as the daemon writes it: claim, end, complete. Every write but the claim is fenced by
//! (task, attempt, node); a stale one is refused by the database and reported as such.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::cursor::Places;
use super::running::Ticket;
use super::{ClaimedTask, Definition, ExecutorKind, Outcome};
use crate::db::query::{Db, DbError};
use crate::db::sqlstate;
use crate::executor::Effect;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What became of a write about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is on record.
    Yes,
    /// The claim was gone; nothing was written.
    Stale,
}

/// What a plan function says.
#[derive(Debug)]
pub enum Planned {
    /// To do next, after so many steps.
    Effect {
        /// What to lay over the definition's effect.
        effect: Value,
        /// Performed before.
        steps: i32,
    },
    /// Everything is done.
    Nothing,
    /// It put the task off or cancelled it, and that is on record.
    Ended,
}

/// A done attempt on its way to be recorded.
pub struct Completion {
    /// The task and its claim.
    pub task: Arc<ClaimedTask>,
    /// What it returned.
    pub result: Value,
    /// Its entry among the running ones: it stays in flight until it is on record.
    pub ticket: Ticket,
}

/// What a dispatcher wants.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// For this node.
    pub node: i64,
    /// At most so many tasks.
    pub limit: i32,
    /// So many of them start at once.
    pub begin: i32,
    /// Of these queues; `*`: all.
    pub queues: &'a [String],
    /// Not of these definitions.
    pub except: &'a [String],
    /// After these places, or so long before now if that is earlier; `None`: from the head of every lane.
    pub places: Option<(&'a Places, Duration)>,
}

/// The task table.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

impl Store {
    /// Tasks in this database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Claims due tasks, those that start at once and sooner ones first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, claim: Claim<'_>) -> Result<Vec<ClaimedTask>, DbError> {
        let Claim { node, limit, begin, queues, except, places } = claim;
        let at = places.map(|(at, _)| at);
        let rows = self
            .db
            .rows(
                "task.claim",
                &[
                    &node,
                    &limit,
                    &begin,
                    &queues,
                    &except,
                    &at.map(|at| &at.queues),
                    &at.map(|at| &at.priorities),
                    &at.map(|at| &at.definitions),
                    &at.map(|at| &at.run_at),
                    &at.map(|at| &at.ids),
                    &places.map_or(0, |(_, trail)| milliseconds(trail)),
                ],
            )
            .await?;
        let mut tasks: Vec<ClaimedTask> = rows.iter().filter_map(|row| claimed(row, node)).collect();
        tasks.sort_unstable_by_key(|task| (!task.begun, task.priority, task.run_at, task.id));
        Ok(tasks)
    }

    /// Claims a task that two nodes in a row died with, for a node that has nothing else in hand.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_isolated(
        &self,
        node: i64,
        queues: &[String],
        except: &[String],
    ) -> Result<Option<ClaimedTask>, DbError> {
        let row = self.db.row("task.claim_isolated", &[&node, &queues, &except]).await?;
        Ok(row.and_then(|row| claimed(&row, node)))
    }

    /// In how many milliseconds the next waiting task is due; `None`: none waits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_due(&self, queues: &[String], except: &[String]) -> Result<Option<u64>, DbError> {
        let row = self.db.row("task.next_due", &[&queues, &except]).await?;
        let due: Option<i64> = row.and_then(|row| row.get("in_ms"));
        Ok(due.map(|due| u64::try_from(due).unwrap_or(0)))
    }

    /// Records how an attempt ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_attempt(&self, task: &ClaimedTask, outcome: &Outcome) -> Result<Recorded, DbError> {
        let (result, error, after): (Option<&Value>, Option<&Value>, Option<i64>) = match outcome {
            Outcome::Done(result) => (Some(result), None, None),
            Outcome::Failed(error, after) => (None, Some(error), after.map(milliseconds)),
            Outcome::Rejected(error) | Outcome::TimedOut(error) | Outcome::Lost(error) => {
                (None, Some(error), None)
            }
            Outcome::Snoozed(after) => (None, None, Some(milliseconds(*after))),
            Outcome::Cancelled | Outcome::Interrupted => (None, None, None),
        };
        let ended = self
            .db
            .guarded_row(
                "task.end_attempt",
                &[&task.id, &task.attempt, &task.node, &outcome.word(), &result, &error, &after],
            )
            .await;
        stale_is_an_answer(ended)
    }

    /// Records an ending, however long the database is away; the fence drops it if others took the task over meanwhile.
    /// One that the database refuses for its content (a result that is no valid jsonb, say) becomes a failure that says so.
    pub async fn record(&self, task: &ClaimedTask, mut outcome: Outcome) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.end_attempt(task, &outcome).await {
                Ok(recorded) => {
                    let (id, attempt, outcome) = (task.id, task.attempt, outcome.word());
                    if recorded == Recorded::Stale {
                        tracing::warn!(
                            task.id = id,
                            attempt.no = attempt,
                            outcome,
                            "the claim was gone: the task was cancelled, ended or taken over"
                        );
                    } else {
                        tracing::debug!(task.id = id, attempt.no = attempt, outcome, "attempt ended");
                    }
                    return;
                }
                Err(error) if error.is_outage() || error.sqlstate() == Some(sqlstate::LOCK_NOT_AVAILABLE) => {
                }
                Err(error) => {
                    tracing::error!(task.id = task.id, %error, outcome = outcome.word(), "its ending is refused");
                    let message = format!("its ending ({}) could not be recorded: {error}", outcome.word());
                    outcome =
                        Outcome::Failed(json!({ "message": message, "sqlstate": error.sqlstate() }), None);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks the conditions of all features.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn check_features(&self) -> Result<(), DbError> {
        self.db.guarded_row("task.check_features", &[]).await.map(drop)
    }

    /// Which of these attempts still hold their claim.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn still_held(&self, done: &[Completion]) -> Result<Vec<i64>, DbError> {
        let ids: Vec<i64> = done.iter().map(|c| c.task.id).collect();
        let attempts: Vec<i32> = done.iter().map(|c| c.task.attempt).collect();
        let nodes: Vec<i64> = done.iter().map(|c| c.task.node).collect();
        let rows = self.db.rows("task.still_held", &[&ids, &attempts, &nodes]).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Records done attempts, many at once; the ids of those that are on record now. The others have lost their claim, or
    /// somebody holds them locked at this moment.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn complete(&self, done: &[Completion]) -> Result<Vec<i64>, DbError> {
        let ids: Vec<i64> = done.iter().map(|c| c.task.id).collect();
        let attempts: Vec<i32> = done.iter().map(|c| c.task.attempt).collect();
        let nodes: Vec<i64> = done.iter().map(|c| c.task.node).collect();
        let results: Vec<&Value> = done.iter().map(|c| &c.result).collect();
        let rows = self.db.rows("task.complete", &[&ids, &attempts, &nodes, &results]).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Asks the plan function for the next effect.
    ///
    /// # Errors
    /// Whatever the function raises.
    pub async fn plan(&self, task: &ClaimedTask) -> Result<Planned, DbError> {
        let row = self.db.guarded_row("task.plan", &[&task.id, &task.attempt, &task.node]).await?;
        let Some(row) = row else { return Ok(Planned::Nothing) };
        if row.get("ended") {
            return Ok(Planned::Ended);
        }
        let effect: Option<Value> = row.get("effect");
        Ok(match effect.filter(|effect| !effect.is_null()) {
            Some(effect) => Planned::Effect { effect, steps: row.get("steps") },
            None => Planned::Nothing,
        })
    }

    /// Keeps the response of a performed step.
    ///
    /// # Errors
    /// `RB003` when the claim is gone.
    pub async fn record_step(&self, effect: &Effect, response: &Value) -> Result<(), DbError> {
        let task = &effect.task;
        let kept = effect.kept();
        self.db
            .rows("task.record_step", &[&task.id, &task.attempt, &task.node, &effect.step, &kept, response])
            .await?;
        Ok(())
    }

    /// Releases tasks that are claimed by `node` in the database but that it knows nothing of: the answer to their claim
    /// got lost. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_unknown(&self, node: i64, known: &[i64]) -> Result<usize, DbError> {
        Ok(self.db.rows("task.release_unknown", &[&node, &known]).await?.len())
    }

    /// The latest stored response of a task.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_response(&self, id: i64) -> Result<Option<Value>, DbError> {
        Ok(self.db.row("task.last_response", &[&id]).await?.map(|row| row.get("response")))
    }

    /// Which of these running tasks are to be cancelled.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel_requested(&self, ids: &[i64], node: i64) -> Result<Vec<i64>, DbError> {
        let rows = self.db.rows("task.cancel_requested", &[&ids, &node]).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// All definitions, as far as a node needs to know them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn definitions(&self) -> Result<Vec<Definition>, DbError> {
        let rows = self.db.rows("task.definitions", &[]).await?;
        let definition = |row: &Row| Definition {
            name: row.get("name"),
            executor: row.get("executor"),
            named: row.get("named"),
            revision: row.get("revision"),
            statement: row.get::<_, Option<&str>>("statement").map(Arc::from),
        };
        Ok(rows.iter().map(definition).collect())
    }
}

fn stale_is_an_answer<T>(written: Result<T, DbError>) -> Result<Recorded, DbError> {
    match written {
        Ok(_) => Ok(Recorded::Yes),
        Err(error) if error.sqlstate() == Some(sqlstate::STALE_ATTEMPT.code) => Ok(Recorded::Stale),
        Err(error) => Err(error),
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn claimed(row: &Row, node: i64) -> Option<ClaimedTask> {
    Some(ClaimedTask {
        id: row.get("id"),
        attempt: row.get("attempt"),
        node,
        definition: row.get("definition"),
        payload: row.get("payload"),
        queue: row.get("queue"),
        priority: row.get("priority"),
        run_at: row.get("run_at"),
        cause: row.get("cause"),
        begun: row.get("begun"),
        // The claim leaves out what this node cannot perform; a constraint closes the set.
        executor: ExecutorKind::from_name(row.get("executor"))?,
        effect: row.get::<_, Option<Value>>("effect").unwrap_or_else(|| json!({})),
        planned: row.get("planned"),
        settled: row.get("settled"),
        sql_batch: usize::try_from(row.get::<_, i16>("sql_batch")).unwrap_or(1),
        timeout_ms: u64::try_from(row.get::<_, i64>("timeout_ms")).unwrap_or(1),
        revision: row.get("revision"),
    })
}
