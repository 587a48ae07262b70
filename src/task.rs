//! Tasks: what a claim hands to this node, and how attempts end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;

pub mod attempt;
pub mod completer;
pub mod cursor;
pub mod dispatcher;
pub mod host;
pub mod node;
pub mod pace;
pub mod pruner;
pub mod rescuer;
pub mod running;
pub mod store;

/// Without a heartbeat for this long, the others take the tasks of a node over.
pub const LEASE: Duration = Duration::from_secs(11);
/// A node that could not renew for this long stops its own work: well before the others may start it again.
const GIVE_UP: Duration = Duration::from_secs(8);

/// Which kind of effect a definition's tasks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorKind {
    /// A database function, exactly once.
    Sql,
    /// An allow-listed program.
    Exec,
    /// A Rust handler.
    Native,
    /// A request by a connection.
    Http,
    /// A mail by a connection.
    Smtp,
    /// A message by a connection.
    Kafka,
    /// Whatever foreign workers do; no daemon claims it.
    External,
}

impl ExecutorKind {
    /// The executor by its name in `task_definition`; `None` for one that this version does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sql" => Some(Self::Sql),
            "exec" => Some(Self::Exec),
            "native" => Some(Self::Native),
            "http" => Some(Self::Http),
            "smtp" => Some(Self::Smtp),
            "kafka" => Some(Self::Kafka),
            "external" => Some(Self::External),
            _ => None,
        }
    }
}

/// For sql definitions, by name: which revision this statement runs, and the statement.
pub type SqlStatements = HashMap<String, (i64, Arc<str>)>;

/// What a node needs to know of a definition.
#[derive(Debug)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its executor, also one that this node does not know.
    pub executor: String,
    /// The program or connection that its effect names.
    pub named: Option<String>,
    /// Which revision this is.
    pub revision: i64,
    /// Of a plain sql definition: what runs a task of this revision.
    pub statement: Option<Arc<str>>,
}

/// A task that this node has claimed: it and its attempt number fence every later write.
#[derive(Debug, Clone)]
pub struct ClaimedTask {
    /// The task.
    pub id: i64,
    /// Number of this attempt.
    pub attempt: i32,
    /// The node (incarnation) that claimed it.
    pub node: i64,
    /// Name of its definition.
    pub definition: String,
    /// What it is about.
    pub payload: Value,
    /// The queue it waited in.
    pub queue: String,
    /// Its priority: smaller is sooner.
    pub priority: i16,
    /// When it was due.
    pub run_at: DateTime<Utc>,
    /// What made it, if not a plain insert.
    pub cause: Option<Value>,
    /// Whether the claim found a free place for it, so that it starts at once.
    pub begun: bool,
    /// Which executor performs it.
    pub executor: ExecutorKind,
    /// The definition's effect.
    pub effect: Value,
    /// Whether a plan function decides on its effects.
    pub planned: bool,
    /// Whether a settle function runs when the attempt ends.
    pub settled: bool,
    /// Up to so many tasks of its definition may share a transaction (sql).
    pub sql_batch: usize,
    /// Limit of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Which version of the definition the claim saw.
    pub revision: i64,
}

#[cfg(test)]
impl ClaimedTask {
    pub(crate) fn example() -> Self {
        Self {
            id: 1,
            attempt: 1,
            node: 1,
            definition: "d".into(),
            payload: Value::Null,
            queue: "default".into(),
            priority: 100,
            run_at: DateTime::UNIX_EPOCH,
            cause: None,
            begun: true,
            executor: ExecutorKind::Native,
            effect: Value::Null,
            planned: false,
            settled: false,
            sql_batch: 1,
            timeout_ms: 1000,
            revision: 0,
        }
    }
}

/// How an attempt ended: the one word for endings. What it means for the task is decided in `rowbeat.end_attempt`.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It did what it should, with this result.
    Done(Value),
    /// It failed; another attempt may succeed, after the policy's pause or the given one.
    Failed(Value, Option<Duration>),
    /// It failed for good.
    Rejected(Value),
    /// It took too long.
    TimedOut(Value),
    /// Somebody cancelled it.
    Cancelled,
    /// It asks to be tried again after this time; not counted.
    Snoozed(Duration),
    /// The node stopped before it ended; not counted.
    Interrupted,
    /// Nobody knows how it ended.
    Lost(Value),
}

impl Outcome {
    /// The word in the database.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed(..) => "failed",
            Self::Rejected(_) => "rejected",
            Self::TimedOut(_) => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Snoozed(_) => "snoozed",
            Self::Interrupted => "interrupted",
            Self::Lost(_) => "lost",
        }
    }
}

/// Who this node is and whether the others still count on it.
///
/// The lease is kept on this machine's monotonic clock, from before the heartbeat was sent: it ends here before it ends
/// for the others.
#[derive(Clone, Default)]
pub struct Node {
    id: Arc<AtomicI64>,
    renewed: Arc<Mutex<Option<Instant>>>,
}

impl Node {
    /// The incarnation.
    pub fn id(&self) -> i64 {
        self.id.load(Ordering::SeqCst)
    }

    /// The incarnation as it changes, for those who must not know more of a node; 0: not registered.
    pub fn incarnation(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.id)
    }

    /// Whether it may start new work and keep what it has.
    pub fn holds_lease(&self) -> bool {
        self.renewed().is_some_and(|renewed| renewed.elapsed() < GIVE_UP)
    }

    fn renewed(&self) -> Option<Instant> {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, id: i64, at: Option<Instant>) {
        self.id.store(id, Ordering::SeqCst);
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
