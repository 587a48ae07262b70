//! Executors: one kind of effect each.
//!
//! An executor gets an [`Effect`] and returns a response or a [`Failure`]. It never sees the store, keeps no state between
//! effects, and may be dropped at any moment: by a timeout, a cancellation or a lost lease. The one exception is `sql`,
//! whose effect and record are one transaction.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::task::{ClaimedTask, ExecutorKind};

pub mod exec;
pub mod native;
pub mod sql;

/// One thing to do outside the database.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The task it belongs to.
    pub task: Arc<ClaimedTask>,
    /// Which step of the task, from 1.
    pub step: i16,
    /// What to do: the definition's effect with the plan's laid over it.
    pub spec: Value,
}

impl Effect {
    /// The same for every attempt at this step: receivers drop what they have seen before.
    pub fn idempotency_key(&self) -> String {
        format!("rowbeat-{}-{}", self.task.id, self.step)
    }
}

/// Why an effect gave no response.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Worth another attempt, after the definition's pause or the given one.
    Retry {
        /// What happened, as kept with the task.
        error: Value,
        /// The pause that the other side asked for.
        after: Option<Duration>,
    },
    /// Not worth another attempt.
    Reject(Value),
    /// The effect asks to be tried later; does not count as a failure.
    Snooze(Duration),
}

impl Failure {
    /// A failure worth another attempt.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry { error: json!({ "message": message.into() }), after: None }
    }

    /// A failure for good.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::Reject(json!({ "message": message.into() }))
    }
}

/// The executors of this node.
#[derive(Clone)]
pub struct Executors {
    /// Rust handlers.
    pub native: native::Handlers,
    /// Allow-listed programs.
    pub exec: exec::Programs,
}

impl Executors {
    /// Performs an effect of a task whose executor has outside effects.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        match effect.task.executor {
            ExecutorKind::Native => self.native.perform(effect).await,
            ExecutorKind::Exec => self.exec.perform(effect).await,
            ExecutorKind::Sql => Err(Failure::reject("a sql task has no effect outside the database")),
        }
    }

    /// Whether this node has what a definition's tasks need.
    pub fn can_perform(&self, definition: &str, executor: &str, program: Option<&str>) -> bool {
        match executor {
            "native" => self.native.has(definition),
            "exec" => program.is_none_or(|program| self.exec.has(program)),
            known => known == "sql",
        }
    }
}
