//! This node's registration, its heartbeat, and what happens when it cannot renew its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::dispatcher::Except;
use super::host::HostLock;
use super::pace::Pace;
use super::running::{Running, StopReason};
use super::{GIVE_UP, LEASE, Node};
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

const HEARTBEAT: Duration = Duration::from_secs(3);
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(3);

/// Registers this node and keeps its lease.
pub struct Heartbeat {
    /// The database.
    pub db: Db,
    /// This node.
    pub node: Node,
    /// Its configured name.
    pub name: String,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// Proof that earlier incarnations are dead, if it could be had.
    pub host: Option<HostLock>,
    /// The definitions it cannot perform.
    pub except: Except,
    /// How many attempts have ended.
    pub pace: Arc<Pace>,
    /// Raised when tasks wait that must run alone.
    pub isolated: Arc<AtomicBool>,
    /// Woken when the node may claim again, and for the rescuer.
    pub bell: Bell,
    /// When the last beat was, and how many attempts had ended then.
    pub last: Option<(Instant, u64)>,
}

impl Heartbeat {
    async fn register(&self) -> Result<i64, DbError> {
        let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let process = i32::try_from(std::process::id()).unwrap_or(0);
        let version = env!("CARGO_PKG_VERSION");
        let key = self.host.as_ref().map(HostLock::key);
        let row = self
            .db
            .row("node.register", &[&self.name, &version, &process, &lease, &key, &self.queues])
            .await?;
        let id = row.map_or(0, |row| row.get("id"));
        tracing::info!(node.id = id, node.name = self.name, "registered");
        if let Some(key) = key {
            let row = self.db.row("node.take_over", &[&id, &key]).await?;
            let rescued: i64 = row.map_or(0, |row| row.get("rescued"));
            if rescued > 0 {
                tracing::warn!(rescued, "took over the tasks of this node's last process, which died");
            }
        }
        Ok(id)
    }

    /// Tasks ended per second since the last beat.
    fn rate(&mut self, now: Instant) -> f32 {
        let ended = self.pace.ended();
        let (then, before) = self.last.replace((now, ended)).unwrap_or((now, ended));
        #[expect(clippy::cast_precision_loss, reason = "for an estimate")]
        let ended = ended.saturating_sub(before) as f32;
        ended / (now - then).as_secs_f32().max(1.0)
    }
}

impl Loop for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const TOPIC: Topic = Topic::Time;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let sent = Instant::now();
        let id = self.node.id();
        let (lacks, rate) = (self.except.names(), self.rate(sent));
        let parameters: [&(dyn ToSql + Sync); 3] = [&id, &lacks, &rate];
        let beat = self.db.row("node.heartbeat", &parameters);
        let alive = tokio::time::timeout(HEARTBEAT_DEADLINE, beat).await.unwrap_or(Err(DbError::Silent))?;
        let had_lease = self.node.holds_lease();
        if let Some(news) = alive {
            self.node.renew(id, Some(sent));
            if news.get("lost") {
                self.bell.wake(Topic::Lost);
            }
            if news.get("isolated") {
                self.isolated.store(true, Ordering::SeqCst);
                self.bell.wake(Topic::Task);
            }
        } else {
            if id != 0 {
                tracing::warn!(node.id = id, "the others gave this node up; it starts again as a new one");
            }
            // Until it is registered anew it has no lease, whatever goes wrong.
            self.node.renew(0, None);
            let id = self.register().await?;
            self.node.renew(id, Some(sent));
            self.bell.wake(Topic::Channel);
        }
        if !had_lease {
            self.bell.wake_all();
        }
        Ok(Pass::Idle(HEARTBEAT))
    }
}

/// A loop that works only while this node has its lease: not before it is registered, nor in an unconfirmed copy.
pub struct Leased<L> {
    /// This node.
    pub node: Node,
    /// The loop.
    pub work: L,
}

impl<L: Loop> Loop for Leased<L> {
    const NAME: &'static str = L::NAME;
    const TOPIC: Topic = L::TOPIC;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        // Whoever gets the lease rings for everybody.
        if self.node.holds_lease() { self.work.run_once().await } else { Ok(Pass::Idle(GIVE_UP)) }
    }
}

/// Stops this node's attempts as soon as its lease can no longer be trusted.
pub async fn watch_lease(node: Node, running: Running, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
            () = stop.cancelled() => return,
        }
        if node.id() != 0 && !node.holds_lease() {
            running.stop_all(StopReason::LeaseLost);
        }
    }
}

/// Tells running attempts that somebody cancelled their task.
pub struct Canceller {
    /// Where the wish is read.
    pub store: super::store::Store,
    /// This node.
    pub node: Node,
    /// Its attempts.
    pub running: Running,
    /// The longest pause between two looks.
    pub poll: Duration,
}

impl Loop for Canceller {
    const NAME: &'static str = "canceller";
    const TOPIC: Topic = Topic::Cancel;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let ids = self.running.ids();
        if !ids.is_empty() {
            for id in self.store.cancel_requested(&ids, self.node.id()).await? {
                self.running.stop(id, StopReason::Cancelled);
            }
        }
        Ok(Pass::Idle(self.poll))
    }
}
