//! One client of the storm: a session that does at random what applications and people do, and notes what it was told.
//!
//! It decides by its own generator, so the same seed asks for the same things; the answers depend on everybody else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio_postgres::{Client as Session, Error};

use super::draft::{self, Draft};
use super::history::{Ending, Enqueued, Micros, Pause, Run, Scope};
use super::record;
use super::world;

/// So many of the latest tasks are what clients cancel, run now and retry.
const LATEST: usize = 400;

/// A claim is dated at its begin: one that saw the resume may be older than it by as long as a claim takes.
const LONGEST_CLAIM: Micros = 250_000;

/// What all clients share.
pub struct Shared {
    pub begun: Instant,
    /// Clients stop, and daemons are left in peace.
    pub stop: AtomicBool,
    /// Nothing that kills a daemon is left.
    pub over: AtomicBool,
    /// Whether there are tasks that kill their daemon, and daemons are stopped for longer than their lease.
    pub harsh: bool,
    /// Waiting tasks by definition, as seen lately.
    pub backlog: Mutex<HashMap<String, i64>>,
    latest: Mutex<VecDeque<i64>>,
    ended: Mutex<Vec<i64>>,
    /// One pauses a scope at a time, so that a pause lasts until its own resume.
    pausing: BTreeMap<Scope, tokio::sync::Mutex<()>>,
}

impl Shared {
    pub fn new(harsh: bool) -> Arc<Self> {
        let definitions = world::DEFINITIONS.map(|name| Scope::Definition(name.into()));
        let queues = world::QUEUES.map(|name| Scope::Queue(name.into()));
        Arc::new(Self {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            over: AtomicBool::new(false),
            harsh,
            backlog: Mutex::default(),
            latest: Mutex::default(),
            ended: Mutex::default(),
            pausing: definitions.into_iter().chain(queues).map(|scope| (scope, Default::default())).collect(),
        })
    }

    fn now(&self) -> Micros {
        Micros::try_from(self.begun.elapsed().as_micros()).unwrap()
    }
}

/// What a client noted.
#[derive(Default)]
pub struct Log {
    pub operations: usize,
    pub enqueued: Vec<Enqueued>,
    pub told: Vec<(i64, Ending)>,
    pub retried: Vec<i64>,
    pub pauses: Vec<Pause>,
    /// Records that a retry took away.
    pub runs: Vec<Run>,
    /// What was refused, by SQLSTATE and message without numbers.
    pub refused: BTreeMap<String, usize>,
}

/// A client.
pub struct Client {
    pub number: usize,
    pub rng: Rng,
    pub session: Session,
    pub shared: Arc<Shared>,
    pub log: Log,
}

impl Client {
    /// Works until it is told to stop.
    pub async fn run(mut self) -> Log {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.log.operations += 1;
            if let Err(error) = self.operation().await {
                let refusal = error.as_db_error().expect("clients are not cut off");
                let words = refusal.message().split(' ').filter(|word| word.parse::<i64>().is_err());
                let message: String = words.flat_map(|word| [" ", word]).collect();
                *self.log.refused.entry(format!("{}{message}", refusal.code().code())).or_default() += 1;
                self.session.batch_execute("rollback").await.unwrap();
            }
            let pause = Duration::from_micros(self.rng.u64(2_000..60_000));
            tokio::time::sleep(pause).await;
        }
        self.log
    }

    async fn operation(&mut self) -> Result<(), Error> {
        match self.rng.u32(0..1000) {
            0..640 => self.enqueue(1, false).await,
            640..700 => self.enqueue_in_transaction().await,
            700..720 => self.enqueue_many().await,
            720..870 => self.cancel().await,
            870..930 => self.run_now().await,
            930..995 => self.retry().await,
            _ => self.pause().await,
        }
    }

    fn draft(&mut self) -> Option<Draft> {
        let draft = draft::random(&mut self.rng, self.number, self.shared.harsh);
        let backlog = self.shared.backlog.lock().unwrap().get(draft.definition).copied().unwrap_or(0);
        (backlog < world::enough(draft.definition)).then_some(draft)
    }

    /// Enqueues some tasks, one by one; waits after each when it is in a transaction.
    async fn enqueue(&mut self, count: usize, in_transaction: bool) -> Result<(), Error> {
        let called = self.shared.now();
        let mut made = Vec::new();
        for _ in 0..count {
            let Some(draft) = self.draft() else { continue };
            let plain = draft.unique_key.is_none() && self.rng.bool();
            made.push((draft.insert(&self.session, plain).await?, draft.serial_key));
            if in_transaction {
                tokio::time::sleep(Duration::from_millis(self.rng.u64(1..80))).await;
            }
        }
        if in_transaction {
            // What is rolled back must leave no trace.
            let keep = self.rng.u32(0..4) > 0;
            self.session.batch_execute(if keep { "commit" } else { "rollback" }).await?;
            if !keep {
                return Ok(());
            }
        }
        self.note(made, called);
        Ok(())
    }

    async fn enqueue_in_transaction(&mut self) -> Result<(), Error> {
        self.session.batch_execute("begin").await?;
        let count = self.rng.usize(1..5);
        self.enqueue(count, true).await
    }

    async fn enqueue_many(&mut self) -> Result<(), Error> {
        let count = self.rng.usize(2..12);
        let drafts: Vec<Draft> = (0..count).filter_map(|_| self.draft()).collect();
        let tasks = serde_json::Value::Array(drafts.iter().map(Draft::document).collect());
        let called = self.shared.now();
        let rows = self.session.query("select rowbeat.enqueue_many($1)", &[&tasks]).await?;
        let made = rows.iter().zip(drafts).map(|(row, draft)| (row.get(0), draft.serial_key)).collect();
        self.note(made, called);
        Ok(())
    }

    fn note(&mut self, made: Vec<(i64, Option<String>)>, called: Micros) {
        let committed = self.shared.now();
        let mut latest = self.shared.latest.lock().unwrap();
        for (task, serial_key) in made {
            self.log.enqueued.push(Enqueued { task, serial_key, called, committed });
            latest.push_back(task);
        }
        let surplus = latest.len().saturating_sub(LATEST);
        latest.drain(..surplus);
    }

    fn any_task(&mut self) -> Option<i64> {
        let latest = self.shared.latest.lock().unwrap();
        (!latest.is_empty()).then(|| latest[self.rng.usize(..latest.len())])
    }

    /// Cancels a task, now and then in a transaction that takes its time or is rolled back.
    async fn cancel(&mut self) -> Result<(), Error> {
        let Some(task) = self.any_task() else { return Ok(()) };
        let slow = self.rng.u32(0..8) == 0;
        if slow {
            self.session.batch_execute("begin").await?;
        }
        let row = self.session.query_one("select rowbeat.cancel($1)", &[&task]).await?;
        if slow {
            tokio::time::sleep(Duration::from_millis(self.rng.u64(20..200))).await;
            if self.rng.u32(0..3) == 0 {
                return self.session.batch_execute("rollback").await;
            }
            self.session.batch_execute("commit").await?;
        }
        match row.get(0) {
            "cancelled" => self.log.told.push((task, Ending::Cancelled)),
            "completed" => self.log.told.push((task, Ending::Completed(0))),
            "failed" => self.log.told.push((task, Ending::Failed)),
            _ => return Ok(()),
        }
        self.shared.ended.lock().unwrap().push(task);
        Ok(())
    }

    async fn run_now(&mut self) -> Result<(), Error> {
        let Some(task) = self.any_task() else { return Ok(()) };
        self.session.query_one("select rowbeat.run_now($1)", &[&task]).await.map(drop)
    }

    /// Brings a task back, whose record of its last attempt goes: what it said is noted.
    async fn retry(&mut self) -> Result<(), Error> {
        let task = {
            let ended = self.shared.ended.lock().unwrap();
            if ended.is_empty() {
                return Ok(());
            }
            ended[self.rng.usize(..ended.len())]
        };
        self.session.batch_execute("begin isolation level repeatable read").await?;
        let runs = record::runs_of_finished(&self.session, Some(task)).await?;
        // Noted before it is known: whoever looks at the end must not be surprised.
        self.log.retried.push(task);
        self.session.query_one("select rowbeat.retry($1)", &[&task]).await?;
        self.session.batch_execute("commit").await?;
        self.log.runs.extend(runs);
        Ok(())
    }

    /// Pauses a definition or a queue for a moment.
    async fn pause(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let scope = shared.pausing.keys().nth(self.rng.usize(..shared.pausing.len())).unwrap();
        let Ok(_mine) = shared.pausing[scope].try_lock() else { return Ok(()) };
        let (definition, queue) = match scope {
            Scope::Definition(name) => (Some(name), None),
            Scope::Queue(name) => (None, Some(name)),
        };
        self.session.execute("select rowbeat.pause($1, $2)", &[&definition, &queue]).await?;
        let from = record::now(&self.session).await?;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(10..600))).await;
        let to = record::now(&self.session).await?;
        self.session.execute("select rowbeat.resume($1, $2)", &[&definition, &queue]).await?;
        self.log.pauses.push(Pause { scope: scope.clone(), from, to: to - LONGEST_CLAIM });
        Ok(())
    }
}
