//! Executors: one kind of effect each.
//!
//! An executor gets an [`Effect`] and returns a response or a [`Failure`]. It never sees the store, keeps nothing between
//! effects but open connections and fetched tokens, and may be dropped at any moment: by a timeout, a cancellation or a lost
//! lease. The one exception is `sql`, whose effect and record are one transaction.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::task::{ClaimedTask, ExecutorKind};

pub mod exec;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod native;
pub mod smtp;
pub mod sql;
pub(crate) mod template;

/// One thing to do outside the database.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The task it belongs to.
    pub task: Arc<ClaimedTask>,
    /// Which step of the task, from 1.
    pub step: i16,
    /// Who performs it: the definition's executor, unless the plan names another one.
    pub executor: ExecutorKind,
    /// What to do: the definition's effect with the plan's laid over it.
    pub spec: Value,
}

impl Effect {
    /// The same for every attempt at this step: receivers drop what they have seen before.
    pub fn idempotency_key(&self) -> String {
        format!("rowbeat-{}-{}", self.task.id, self.step)
    }

    /// What is kept of it with the task: nothing of a secret request but where it went.
    pub(crate) fn kept(&self) -> Value {
        match self.spec["secret"].as_array() {
            Some(secret) if secret.iter().any(|side| side == "request") => {
                json!({ "connection": self.spec["connection"], "secret": secret })
            }
            _ => self.spec.clone(),
        }
    }
}

#[cfg(test)]
impl Effect {
    /// The third step of task 7 at its second attempt.
    fn for_test(spec: Value, payload: Value) -> Self {
        let task = ClaimedTask { id: 7, attempt: 2, payload, ..ClaimedTask::example() };
        Self { executor: task.executor, task: Arc::new(task), step: 3, spec }
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

    /// A connection that an effect names and this node lacks: another node may have it, or this one get it.
    fn no_connection(kind: &str, name: &str) -> Self {
        Self::retry(format!(
            "this node has no {kind} connection {name}; add [connections.{name}] to its configuration"
        ))
    }
}

/// A connection whose settings do not work.
#[derive(Debug, thiserror::Error)]
#[error("connections.{name}: {problem}")]
pub struct Unusable {
    name: String,
    problem: String,
}

impl Unusable {
    fn new(name: &str, problem: impl std::fmt::Display) -> Self {
        Self { name: name.to_owned(), problem: problem.to_string() }
    }
}

/// The executors of this node.
#[derive(Clone)]
pub struct Executors {
    /// Rust handlers.
    pub native: native::Handlers,
    /// Allow-listed programs.
    pub exec: exec::Programs,
    /// Servers that requests go to.
    pub http: http::Connections,
    /// Mail servers.
    pub smtp: smtp::Connections,
    /// Kafka clusters.
    #[cfg(feature = "kafka")]
    pub kafka: kafka::Connections,
}

impl Executors {
    /// Performs an effect of a task whose executor has outside effects.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        match effect.executor {
            ExecutorKind::Native => self.native.perform(effect).await,
            ExecutorKind::Exec => self.exec.perform(effect).await,
            ExecutorKind::Http => self.http.perform(effect).await,
            ExecutorKind::Smtp => self.smtp.perform(effect).await,
            #[cfg(feature = "kafka")]
            ExecutorKind::Kafka => self.kafka.perform(effect).await,
            #[cfg(not(feature = "kafka"))]
            ExecutorKind::Kafka => Err(Failure::retry("this rowbeat was built without Kafka")),
            ExecutorKind::External => Err(Failure::retry("external tasks are performed by foreign workers")),
            ExecutorKind::Sql => Err(Failure::reject("a sql task has no effect outside the database")),
        }
    }

    /// Whether this node has what a definition's tasks need: a handler, or the program or connection that it names. One that
    /// leaves the name to its plan is taken on trust.
    pub fn can_perform(&self, definition: &str, executor: ExecutorKind, named: Option<&str>) -> bool {
        match executor {
            ExecutorKind::Sql => true,
            ExecutorKind::Native => self.native.has(definition),
            ExecutorKind::Exec => named.is_none_or(|program| self.exec.has(program)),
            ExecutorKind::Http => named.is_none_or(|connection| self.http.has(connection)),
            ExecutorKind::Smtp => named.is_none_or(|connection| self.smtp.has(connection)),
            #[cfg(feature = "kafka")]
            ExecutorKind::Kafka => named.is_none_or(|connection| self.kafka.has(connection)),
            #[cfg(not(feature = "kafka"))]
            ExecutorKind::Kafka => false,
            ExecutorKind::External => false,
        }
    }
}
