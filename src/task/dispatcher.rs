//! The dispatcher claims due tasks, as many as this node has free slots, and starts their attempts.
//!
//! Short tasks would leave the slots idle while the next claim is under way, so it also claims ahead: about as many as the
//! slots work off in a few milliseconds, at the pace of the latest attempts. Those wait here for a slot, in order; they
//! are given back, uncounted, when the node stops or no slot got free within a second: slow tasks after many short ones.
//!
//! It is the node's only claimer. Invariant: whatever the database says this node has claimed is in the list of running
//! attempts; when the answer to a claim may have been lost, the list is compared with the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::attempt::Runner;
use super::cursor::{Cursor, Look};
use super::pace::{PATIENCE, Pace};
use super::running::{Running, Ticket};
use super::store::Claim;
use super::{ClaimedTask, Definition, ExecutorKind, Node, Outcome, SqlStatements};
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::DbError;
use crate::service::{Crew, Loop, Pass};

/// Pauses after a failed claim before comparing: at once when the connection broke, and when a statement that the server
/// still ran must have ended.
const COMPARE_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(40)];

/// A transaction that enqueues is expected to commit within this time; what comes later waits for a look from the head.
const TRAIL: Duration = Duration::from_secs(2);
/// For so long at a stretch nothing is claimed while tasks wait that must run alone.
const EMPTY_HANDS: Duration = Duration::from_secs(30);

/// What the dispatcher is given.
pub struct Dispatcher {
    /// This node.
    pub node: Node,
    /// Runs attempts.
    pub runner: Arc<Runner>,
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
    /// Where to look for work.
    pub cursor: Cursor,
    /// Tasks that must run alone.
    pub alone: Alone,
}

/// Whether tasks wait that must run alone on a node, because two nodes in a row died with them.
#[derive(Clone, Default)]
pub struct Alone {
    waiting: Arc<AtomicBool>,
    since: Option<Instant>,
}

impl Alone {
    /// The flag that the heartbeat raises.
    pub fn waiting(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waiting)
    }

    /// Whether to claim nothing else until this node's hands are empty. It takes turns with the other tasks: what runs for long
    /// must not keep the node from its work.
    fn now(&mut self) -> bool {
        if !self.waiting.load(Ordering::SeqCst) {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > EMPTY_HANDS * 10 {
            self.since = None;
        }
        since.elapsed() < EMPTY_HANDS
    }
}

/// The definitions this node cannot perform, kept up to date by its own loop.
#[derive(Clone, Default)]
pub struct Except {
    names: Arc<std::sync::Mutex<Option<Vec<String>>>>,
}

impl Except {
    /// The names; none before they are known.
    pub fn names(&self) -> Vec<String> {
        self.lock().clone().unwrap_or_default()
    }

    fn known(&self) -> bool {
        self.lock().is_some()
    }

    fn replace(&self, names: Vec<String>) -> bool {
        let names = Some(names);
        let mut held = self.lock();
        let changed = *held != names;
        *held = names;
        changed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<String>>> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Loop for Dispatcher {
    const NAME: &'static str = "dispatcher";
    const TOPIC: Topic = Topic::Task;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let ahead = self.pace.ahead(self.concurrency);
        let room = self.room(ahead);
        if room <= ahead / 2 {
            self.bell.set_full(true);
        }
        if room <= ahead / 2 || !self.node.holds_lease() || !self.except.known() {
            self.hungry.store(true, Ordering::SeqCst);
            // Attempts may have ended between the look and the mark.
            let longest = if self.room(ahead) > room { Duration::ZERO } else { self.poll };
            return Ok(Pass::Idle(longest));
        }
        self.compare().await?;
        if self.alone.now() {
            return self.claim_alone().await;
        }
        let (look, claimed) = self.claim(room).await?;
        self.hungry.store(claimed.len() >= room, Ordering::SeqCst);
        if claimed.is_empty() {
            // Not before: a claim takes its time, and what it finds will fill the places again.
            self.bell.set_full(false);
            let poll = self.poll.mul_f32(0.9 + fastrand::f32() / 5.0);
            if let Some(wider) = self.cursor.wider(look) {
                return Ok(Pass::Idle(poll.min(wider.saturating_duration_since(Instant::now()))));
            }
            let due = self.runner.store.next_due(&self.queues, &self.except.names()).await?;
            return Ok(Pass::Idle(due.map_or(poll, |due| poll.min(Duration::from_millis(due)))));
        }
        let found = claimed.len();
        for group in self.grouped(claimed) {
            self.start(group);
        }
        Ok(Pass::Worked(found))
    }
}

impl Dispatcher {
    async fn claim(&mut self, room: usize) -> Result<(Look, Vec<ClaimedTask>), DbError> {
        let asked = Instant::now();
        let look = self.cursor.look(asked);
        let places = self.cursor.places();
        let claim = Claim {
            node: self.node.id(),
            limit: i32::try_from(room).unwrap_or(i32::MAX),
            begin: i32::try_from(self.slots.available_permits()).unwrap_or(i32::MAX),
            queues: &self.queues,
            except: &self.except.names(),
            places: match look {
                Look::Head => None,
                Look::Trail => Some((&places, TRAIL)),
                Look::Last => Some((&places, Duration::ZERO)),
            },
        };
        let claimed = self.runner.store.claim(claim).await;
        let claimed = claimed.inspect_err(|_| self.compare_later())?;
        let now = Instant::now();
        self.cursor.note(look, &claimed, claimed.len() >= room, now - asked, now);
        Ok((look, claimed))
    }

    /// Runs the tasks that must run alone, one after the other, as soon as nothing else is in hand.
    async fn claim_alone(&mut self) -> Result<Pass, DbError> {
        if !self.crew.is_empty() {
            self.hungry.store(true, Ordering::SeqCst);
            return Ok(Pass::Idle(if self.crew.is_empty() {
                Duration::ZERO
            } else {
                self.poll.min(EMPTY_HANDS)
            }));
        }
        let claimed =
            self.runner.store.claim_isolated(self.node.id(), &self.queues, &self.except.names()).await;
        match claimed.inspect_err(|_| self.compare_later())? {
            Some(task) => {
                tracing::warn!(task.id = task.id, "two nodes died with this task: it runs alone");
                self.start(vec![task]);
            }
            None => self.alone.waiting.store(false, Ordering::SeqCst),
        }
        Ok(Pass::Worked(1))
    }

    /// The answer to a claim may have got lost.
    fn compare_later(&mut self) {
        let now = Instant::now();
        self.compare_at = COMPARE_AFTER.iter().map(|after| now + *after).collect();
    }

    /// How many more tasks this node may have in hand.
    fn room(&self, ahead: usize) -> usize {
        (self.concurrency + ahead).saturating_sub(self.pace.in_hand())
    }

    /// Sql tasks of a definition that go to a session together: those that share a transaction, and short ones one after the other, as long
    /// as there is enough for all slots. All others alone.
    fn grouped(&self, claimed: Vec<ClaimedTask>) -> Vec<Vec<ClaimedTask>> {
        let share = claimed.len() / self.concurrency;
        let mut groups: Vec<Vec<ClaimedTask>> = Vec::with_capacity(claimed.len());
        let mut open: HashMap<String, usize> = HashMap::new();
        for task in claimed {
            if task.executor != ExecutorKind::Sql {
                groups.push(vec![task]);
                continue;
            }
            let shares = task.sql_batch > 1 && !task.settled;
            let most = if shares { task.sql_batch } else { share.min(self.pace.row(&task.definition)) };
            match open.get(&task.definition).map(|group| &mut groups[*group]) {
                Some(group) if group.len() < most && (shares || self.runner.sql.alike(&group[0], &task)) => {
                    group.push(task);
                }
                _ => {
                    open.insert(task.definition.clone(), groups.len());
                    groups.push(vec![task]);
                }
            }
        }
        groups
    }

    /// Starts an attempt, or several that share a transaction, as soon as there is a slot.
    fn start(&self, group: Vec<ClaimedTask>) {
        let mut members: Vec<(ClaimedTask, Ticket)> = Vec::with_capacity(group.len());
        for task in group {
            match self.running.enter(task.id, task.attempt) {
                Some(ticket) => members.push((task, ticket)),
                None => {
                    tracing::warn!(task.id = task.id, "claimed anew after a crash of the server; it goes on")
                }
            }
        }
        if members.is_empty() {
            return;
        }
        let (runner, bell, hungry) = (Arc::clone(&self.runner), self.bell.clone(), Arc::clone(&self.hungry));
        let (slots, pace, drain) = (Arc::clone(&self.slots), Arc::clone(&self.pace), self.drain.clone());
        let in_hand = self.pace.take(members.len());
        self.crew.spawn(async move {
            let slot = tokio::select! {
                biased;
                () = drain.cancelled() => None,
                slot = slots.acquire() => slot.ok(),
                // The slots are slower than they were: others may be free.
                () = tokio::time::sleep(PATIENCE) => {
                    pace.note(PATIENCE, 1);
                    None
                }
            };
            if slot.is_some() {
                let (begun, count, first) = (Instant::now(), members.len(), &members[0].0);
                if first.executor == ExecutorKind::Sql && (first.sql_batch == 1 || count == 1) {
                    let (definition, mut last) = (first.definition.clone(), begun);
                    let each = || {
                        pace.note_sql(&definition, last.elapsed());
                        last = Instant::now();
                        in_hand.less();
                    };
                    runner.run_row(members, each).await;
                } else if count > 1 {
                    runner.run_batch(members).await;
                } else if let Some((task, ticket)) = members.pop() {
                    runner.run(task, ticket).await;
                }
                pace.note(begun.elapsed(), count);
            } else {
                for (task, _ticket) in members {
                    runner.store.record(&task, Outcome::Interrupted).await;
                }
            }
            drop((slot, in_hand));
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
    pub runner: Arc<Runner>,
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
        self.runner.store.check_features().await?;
        let (mut names, mut statements) = (Vec::new(), SqlStatements::new());
        for Definition { name, executor, named, revision, statement } in
            self.runner.store.definitions().await?
        {
            // A node never claims what it does not know.
            let known = ExecutorKind::from_name(&executor);
            let can = |kind| self.runner.executors.can_perform(&name, kind, named.as_deref());
            if !known.is_some_and(can) {
                names.push(name);
            } else if let Some(statement) = statement {
                statements.insert(name, (revision, statement));
            }
        }
        self.runner.sql.statements().replace(statements);
        names.sort();
        if self.except.replace(names.clone()) {
            if !names.is_empty() {
                tracing::info!(
                    definitions = names.join(", "),
                    "this node lacks the handler, program or connection of these; it leaves them to others"
                );
            }
            self.bell.wake(Topic::Task);
        }
        Ok(Pass::Idle(self.poll))
    }
}
