//! What the no-op handlers note: how many were started and when, or how long each task waited.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rowbeat::executor::native::Handlers;
use serde_json::{Value, json};
use tokio_postgres::{Client, Statement};

/// Longer than any drain should take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Counts starts, and stamps the first and the last that is waited for.
#[derive(Clone)]
pub struct Tally {
    inner: Arc<Inner>,
}

struct Inner {
    goal: u64,
    begun: Instant,
    count: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Tally {
    /// Waits for so many starts.
    pub fn new(goal: u64) -> Self {
        let (count, first, last) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { goal, begun: Instant::now(), count, first, last }) }
    }

    /// The handler of `noop`.
    pub fn handlers(&self) -> Handlers {
        let tally = self.clone();
        Handlers::new().with("noop", move |_| {
            tally.note();
            async { Ok(Value::Null) }
        })
    }

    fn note(&self) {
        let now = u64::try_from(self.inner.begun.elapsed().as_micros()).unwrap();
        self.inner.first.fetch_min(now, Ordering::SeqCst);
        if self.inner.count.fetch_add(1, Ordering::SeqCst) < self.inner.goal {
            self.inner.last.fetch_max(now, Ordering::SeqCst);
        }
    }

    pub fn count(&self) -> u64 {
        self.inner.count.load(Ordering::SeqCst)
    }

    /// Until the goal is reached.
    pub async fn reached(&self) {
        while self.count() < self.inner.goal {
            let waited = self.inner.begun.elapsed();
            assert!(waited < PATIENCE, "only {} tasks in {waited:?}", self.count());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The one that reached it may not have stamped yet.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    /// Starts per second, from the first to the one that reached the goal.
    pub fn rate(&self) -> f64 {
        let (first, last) = (self.inner.first.load(Ordering::SeqCst), self.inner.last.load(Ordering::SeqCst));
        (self.inner.goal - 1) as f64 / ((last - first) as f64 / 1e6)
    }

    /// Tasks per second, from the first start to now.
    pub fn rate_until_now(&self) -> f64 {
        let now = self.inner.begun.elapsed().as_secs_f64();
        self.inner.goal as f64 / (now - self.inner.first.load(Ordering::SeqCst) as f64 / 1e6)
    }
}

/// Stamps how long tasks waited: from just before the statement that enqueued them to the start of their handler.
#[derive(Clone)]
pub struct Waits {
    begun: Instant,
    waits: Arc<Mutex<Vec<f64>>>,
}

impl Waits {
    pub fn new() -> Self {
        Self { begun: Instant::now(), waits: Arc::default() }
    }

    /// The handler of `noop`.
    pub fn handlers(&self) -> Handlers {
        let waits = self.clone();
        Handlers::new().with("noop", move |effect| {
            let sent = effect.task.payload["t"].as_f64().unwrap();
            let waited = waits.now() - sent;
            waits.waits.lock().unwrap().push(waited);
            async { Ok(Value::Null) }
        })
    }

    /// Enqueues one task; how long that took, in milliseconds.
    pub async fn enqueue(&self, client: &Client, insert: &Statement) -> f64 {
        let sent = self.now();
        let payload = json!({ "i": 0, "t": sent, "s": "0123456789abcdef0123456789abcdef" });
        client.execute(insert, &[&payload]).await.unwrap();
        self.now() - sent
    }

    /// Milliseconds since the beginning.
    fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }

    pub fn count(&self) -> usize {
        self.waits.lock().unwrap().len()
    }

    /// Until so many tasks were started; their waits in milliseconds, in the order of their starts.
    pub async fn all(&self, tasks: usize) -> Vec<f64> {
        let since = Instant::now();
        while self.count() < tasks {
            assert!(since.elapsed() < PATIENCE, "only {} of {tasks} tasks were started", self.count());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.waits.lock().unwrap().clone()
    }
}

/// What `Waits::enqueue` runs.
pub async fn prepare_insert(client: &Client) -> Statement {
    client.prepare("insert into rowbeat.task (definition, payload) values ('noop', $1)").await.unwrap()
}
