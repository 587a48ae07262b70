//! The only place that spawns: every loop is a `run_once` plus the wrapper here, every attempt a member of the crew.
//!
//! A loop that fails is tried again with growing pauses, one that panics as well; its latest complete pass is on record,
//! and readiness and the watchdog look at that. Invariant: nothing runs that is not waited for at shutdown.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::doorbell::{Bell, Topic};
use crate::db::query::DbError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What one pass of a loop tells its wrapper.
#[derive(Debug, Clone, Copy)]
pub enum Pass {
    /// It found so much work: pass again at once.
    Worked(usize),
    /// Nothing (more) to do: wait for the bell, at most this long.
    Idle(Duration),
}

/// A supervised loop.
pub trait Loop: Send + 'static {
    /// Its name in logs and in the status.
    const NAME: &'static str;
    /// What wakes it.
    const TOPIC: Topic;
    /// One pass: what tests call.
    ///
    /// # Errors
    /// The pass is tried again after a pause.
    fn run_once(&mut self) -> impl Future<Output = Result<Pass, DbError>> + Send;
}

/// When each loop last completed a pass, when it is due again, and what it failed with since.
#[derive(Clone, Default)]
pub struct Health {
    loops: Arc<Mutex<BTreeMap<&'static str, LoopHealth>>>,
}

/// One loop's health.
#[derive(Clone, Debug)]
pub struct LoopHealth {
    /// Its latest complete pass (or its start).
    pub passed: Instant,
    /// When it will pass again, at the latest.
    pub due: Instant,
    /// What it fails with at the moment.
    pub error: Option<String>,
}

impl Health {
    /// Records a complete pass; the next one follows within `next`.
    pub fn passed(&self, name: &'static str, next: Duration) {
        let now = Instant::now();
        self.lock().insert(name, LoopHealth { passed: now, due: now + next, error: None });
    }

    /// Records a failed pass, tried again within `next`; true for the first one in a row.
    pub fn failed(&self, name: &'static str, error: &str, next: Duration) -> bool {
        let now = Instant::now();
        let mut loops = self.lock();
        let health = loops.entry(name).or_insert(LoopHealth { passed: now, due: now, error: None });
        health.due = now + next;
        health.error.replace(error.to_owned()).is_none()
    }

    /// Every loop by name.
    pub fn all(&self) -> BTreeMap<&'static str, LoopHealth> {
        self.lock().clone()
    }

    /// The loops that hang: overdue by more than this.
    pub fn hanging(&self, limit: Duration) -> Vec<&'static str> {
        self.lock().iter().filter(|(_, health)| health.due.elapsed() > limit).map(|(name, _)| *name).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, LoopHealth>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon's loops.
pub struct Services {
    set: JoinSet<()>,
    stop: CancellationToken,
    health: Health,
}

impl Services {
    /// No loops yet; those to come end when `stop` is cancelled.
    pub fn new(stop: CancellationToken, health: Health) -> Self {
        Self { set: JoinSet::new(), stop, health }
    }

    /// Runs a service that looks after itself and ends by itself soon after `stop`.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(future);
    }

    /// Runs a loop until `stop`.
    pub fn spawn_loop<L: Loop>(&mut self, looped: L, bell: Bell) {
        self.health.passed(L::NAME, Duration::ZERO);
        self.set.spawn(run_loop(looped, bell, self.stop.clone(), self.health.clone()));
    }

    /// Waits until everything has ended; what has not after `limit` is given up.
    pub async fn join(mut self, limit: Duration) {
        let ended = async {
            while let Some(ended) = self.set.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a service ended by a panic");
                }
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(services = self.set.len(), "some services did not end in time and are given up");
        }
    }
}

async fn run_loop<L: Loop>(mut looped: L, bell: Bell, stop: CancellationToken, health: Health) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let pass = AssertUnwindSafe(looped.run_once()).catch_unwind().await;
        let error = match pass {
            Ok(Ok(pass)) => {
                pause = FIRST_PAUSE;
                match pass {
                    Pass::Worked(found) => {
                        health.passed(L::NAME, Duration::ZERO);
                        bell.stir(found);
                    }
                    Pass::Idle(longest) => {
                        health.passed(L::NAME, longest);
                        tokio::select! {
                            () = bell.wait(L::TOPIC, longest) => {}
                            () = stop.cancelled() => {}
                        }
                    }
                }
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("panicked: {}", panic_message(panic.as_ref())),
        };
        if health.failed(L::NAME, &error, pause) {
            tracing::warn!(service = L::NAME, error, "pass failed; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f32(0.75 + fastrand::f32() / 2.0)) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The attempts in flight.
#[derive(Clone, Default)]
pub struct Crew {
    tracker: TaskTracker,
}

impl Crew {
    /// Runs an attempt.
    pub fn spawn(&self, attempt: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(attempt);
    }

    /// Waits until all have ended.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none is in flight.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

/// What a panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
