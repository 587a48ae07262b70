//! The dispatcher claims due tasks, as many as this node has free slots, and starts their attempts.
//!
//! It is the node's only claimer. Invariant: whatever the database says this node has claimed is in the list of running
//! attempts; when the answer to a claim may have been lost, the list is compared with the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Node;
use super::attempt::Runner;
use super::running::Running;
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::DbError;
use crate::service::{Crew, Loop, Pass};

/// Pauses after a failed claim before comparing: at once when the connection broke, and when a statement that the server
/// still ran must have ended.
const COMPARE_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(40)];

/// What the dispatcher is given.
pub struct Dispatcher {
    /// This node.
    pub node: Node,
    /// Runs attempts.
    pub runner: Runner,
    /// Where they run.
    pub crew: Crew,
    /// Which are running.
    pub running: Running,
    /// Rung when a slot gets free.
    pub bell: Bell,
    /// Free slots.
    pub slots: Arc<Semaphore>,
    /// Queues to serve; `*` for all.
    pub queues: Vec<String>,
    /// The longest pause between two looks.
    pub poll: Duration,
    /// Definitions this node cannot perform.
    pub except: Except,
    /// Whether more tasks may be waiting than the last claim brought.
    pub hungry: Arc<AtomicBool>,
    /// When to compare the running attempts with the database.
    pub compare_at: Vec<Instant>,
}

/// The definitions this node cannot perform, kept up to date by its own loop.
#[derive(Clone, Default)]
pub struct Except {
    names: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Except {
    /// The names.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn replace(&self, names: Vec<String>) -> bool {
        let mut held = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let changed = *held != names;
        *held = names;
        changed
    }
}

impl Loop for Dispatcher {
    const NAME: &'static str = "dispatcher";
    const TOPIC: Topic = Topic::Task;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let free = self.slots.available_permits();
        if free == 0 || !self.node.holds_lease() {
            self.hungry.store(true, Ordering::SeqCst);
            // A slot may have got free between the look and the mark.
            let longest =
                if self.slots.available_permits() > 0 && free == 0 { Duration::ZERO } else { self.poll };
            return Ok(Pass::Idle(longest));
        }
        self.compare().await?;
        let except = self.except.names();
        let limit = i64::try_from(free).unwrap_or(i64::MAX);
        let claimed = self.runner.store.claim(self.node.id(), limit, &self.queues, &except).await;
        let claimed = claimed.inspect_err(|_| {
            let now = Instant::now();
            self.compare_at = COMPARE_AFTER.iter().map(|after| now + *after).collect();
        })?;
        self.hungry.store(claimed.len() >= free, Ordering::SeqCst);
        if claimed.is_empty() {
            let due = self.runner.store.next_due(&self.queues, &except).await?;
            let poll = self.poll.mul_f32(0.9 + fastrand::f32() / 5.0);
            return Ok(Pass::Idle(due.map_or(poll, |due| poll.min(Duration::from_millis(due)))));
        }
        for task in claimed {
            self.start(task).await;
        }
        Ok(Pass::Worked)
    }
}

impl Dispatcher {
    async fn start(&self, task: super::ClaimedTask) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
        let ticket = self.running.enter(task.id);
        let (runner, bell, hungry) = (self.runner.clone(), self.bell.clone(), Arc::clone(&self.hungry));
        self.crew.spawn(async move {
            runner.run(task, ticket).await;
            drop(slot);
            if hungry.load(Ordering::SeqCst) {
                bell.wake(Topic::Task);
            }
        });
    }

    async fn compare(&mut self) -> Result<(), DbError> {
        if self.compare_at.first().is_some_and(|at| *at <= Instant::now()) {
            let released = self.runner.store.release_unknown(self.node.id(), &self.running.ids()).await?;
            self.compare_at.remove(0);
            if released > 0 {
                tracing::warn!(released, "tasks were claimed but the answer got lost; they wait again");
            }
        }
        Ok(())
    }
}

/// Keeps the list of definitions that this node cannot perform.
pub struct DefinitionReader {
    /// Where definitions are read.
    pub runner: Runner,
    /// The list.
    pub except: Except,
    /// Woken when the list changed.
    pub bell: Bell,
    /// The longest pause between two looks.
    pub poll: Duration,
}

impl Loop for DefinitionReader {
    const NAME: &'static str = "definitions";
    const TOPIC: Topic = Topic::Definition;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let mut names = Vec::new();
        for (name, executor, program) in self.runner.store.foreign_definitions().await? {
            if !self.runner.executors.can_perform(&name, &executor, program.as_deref()) {
                names.push(name);
            }
        }
        names.sort();
        if self.except.replace(names.clone()) {
            if !names.is_empty() {
                tracing::info!(
                    definitions = names.join(", "),
                    "this node lacks the handler or program of these; it leaves them to others"
                );
            }
            self.bell.wake(Topic::Task);
        }
        Ok(Pass::Idle(self.poll * 6))
    }
}
