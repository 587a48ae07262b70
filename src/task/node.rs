//! This node's registration, its heartbeat, and what happens when it cannot renew its lease.

use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::running::{Running, StopReason};
use super::{LEASE, Node};
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

const HEARTBEAT: Duration = Duration::from_secs(3);
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(4);

/// Registers this node and keeps its lease.
pub struct Heartbeat {
    /// The database.
    pub db: Db,
    /// This node.
    pub node: Node,
    /// Its configured name.
    pub name: String,
    /// Woken when the node may claim again.
    pub bell: Bell,
}

impl Heartbeat {
    async fn register(&self) -> Result<i64, DbError> {
        let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let process = i32::try_from(std::process::id()).unwrap_or(0);
        let row =
            self.db.row("node.register", &[&self.name, &env!("CARGO_PKG_VERSION"), &process, &lease]).await?;
        Ok(row.map_or(0, |row| row.get("id")))
    }
}

impl Loop for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const TOPIC: Topic = Topic::Time;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let sent = Instant::now();
        let id = self.node.id();
        let parameters: [&(dyn ToSql + Sync); 1] = [&id];
        let beat = self.db.row("node.heartbeat", &parameters);
        let alive =
            tokio::time::timeout(HEARTBEAT_DEADLINE, beat).await.unwrap_or(Err(DbError::Silent))?.is_some();
        let had_lease = self.node.holds_lease();
        if alive {
            self.node.renew(id, Some(sent));
        } else {
            if id != 0 {
                tracing::warn!(node.id = id, "the others gave this node up; it starts again as a new one");
            }
            let id = self.register().await?;
            self.node.renew(id, Some(sent));
            tracing::info!(node.id = id, node.name = self.name, "registered");
        }
        if !had_lease {
            self.bell.wake_all();
        }
        Ok(Pass::Idle(HEARTBEAT))
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
