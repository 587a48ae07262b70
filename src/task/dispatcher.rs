//! The dispatcher claims due tasks, as many as this node has free slots, and starts their attempts.
//!
//! Short tasks would leave the slots idle while the next claim is under way, so it also claims ahead: about as many as the
//! slots work off in a few milliseconds, at the pace of the latest attempts. Those wait here for a slot, in order; they
//! are given back, uncounted, when the node stops or no slot got free within a second: slow tasks after many short ones.
//!
//! It is the node's only claimer. Invariant: whatever the database says this node has claimed is in the list of running
//! attempts; when the answer to a claim may have been lost, the list is compared with the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::attempt::Runner;
use super::running::Running;
use super::{Node, Outcome};
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::DbError;
use crate::service::{Crew, Loop, Pass};

/// Pauses after a failed claim before comparing: at once when the connection broke, and when a statement that the server
/// still ran must have ended.
const COMPARE_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(40)];

/// Claimed ahead is what the slots work off in this time, and no more than so many.
const AHEAD: Duration = Duration::from_millis(20);
const MOST_AHEAD: u64 = 490;
/// A task that was claimed ahead and got no slot in this time is given back.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long attempts take, as a moving average in microseconds; 0: not known yet.
#[derive(Default)]
pub struct Pace {
    micros: AtomicU64,
}

impl Pace {
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.micros.load(Ordering::Relaxed);
        // Two attempts at once may lose one of the notes: it is only an average.
        self.micros.store(if old == 0 { took } else { old - old / 8 + took / 8 }.max(1), Ordering::Relaxed);
    }

    /// How many tasks to claim ahead for so many slots.
    fn ahead(&self, slots: usize) -> usize {
        let ahead = u64::try_from(AHEAD.as_micros()).unwrap_or(0).saturating_mul(slots as u64);
        let micros = self.micros.load(Ordering::Relaxed);
        usize::try_from(ahead.checked_div(micros).unwrap_or(0).min(MOST_AHEAD)).unwrap_or(0)
    }
}

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
    /// How many attempts may run at the same time.
    pub concurrency: usize,
    /// Free slots.
    pub slots: Arc<Semaphore>,
    /// How fast they work.
    pub pace: Arc<Pace>,
    /// The node stops: what has no slot yet is given back.
    pub drain: CancellationToken,
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
        let ahead = self.pace.ahead(self.concurrency);
        let room = self.room(ahead);
        if room <= ahead / 2 || !self.node.holds_lease() {
            self.hungry.store(true, Ordering::SeqCst);
            // Attempts may have ended between the look and the mark.
            let longest = if self.room(ahead) > room { Duration::ZERO } else { self.poll };
            return Ok(Pass::Idle(longest));
        }
        self.compare().await?;
        let except = self.except.names();
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let claimed = self.runner.store.claim(self.node.id(), limit, &self.queues, &except).await;
        let claimed = claimed.inspect_err(|_| {
            let now = Instant::now();
            self.compare_at = COMPARE_AFTER.iter().map(|after| now + *after).collect();
        })?;
        self.hungry.store(claimed.len() >= room, Ordering::SeqCst);
        if claimed.is_empty() {
            let due = self.runner.store.next_due(&self.queues, &except).await?;
            let poll = self.poll.mul_f32(0.9 + fastrand::f32() / 5.0);
            return Ok(Pass::Idle(due.map_or(poll, |due| poll.min(Duration::from_millis(due)))));
        }
        for task in claimed {
            self.start(task);
        }
        Ok(Pass::Worked)
    }
}

impl Dispatcher {
    /// How many more tasks this node may have in hand.
    fn room(&self, ahead: usize) -> usize {
        (self.concurrency + ahead).saturating_sub(self.crew.len())
    }

    fn start(&self, task: super::ClaimedTask) {
        let ticket = self.running.enter(task.id);
        let (runner, bell, hungry) = (self.runner.clone(), self.bell.clone(), Arc::clone(&self.hungry));
        let (slots, pace, drain) = (Arc::clone(&self.slots), Arc::clone(&self.pace), self.drain.clone());
        self.crew.spawn(async move {
            let slot = tokio::select! {
                biased;
                () = drain.cancelled() => None,
                slot = slots.acquire() => slot.ok(),
                // The slots are slower than they were: others may be free.
                () = tokio::time::sleep(PATIENCE) => {
                    pace.note(PATIENCE);
                    None
                }
            };
            if slot.is_some() {
                let begun = Instant::now();
                runner.run(task, ticket).await;
                pace.note(begun.elapsed());
            } else {
                runner.store.record(&task, Outcome::Interrupted).await;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_tasks_are_claimed_ahead() {
        let pace = Pace::default();
        assert_eq!(pace.ahead(10), 0, "nothing is known yet");
        pace.note(Duration::from_millis(500));
        assert_eq!(pace.ahead(10), 0);
        (0..100).for_each(|_| pace.note(Duration::from_millis(20)));
        assert!((5..=10).contains(&pace.ahead(10)), "{}", pace.ahead(10));
        (0..200).for_each(|_| pace.note(Duration::from_micros(30)));
        assert_eq!(pace.ahead(10), 490);
    }
}
