//! What the status pages show: the process's own health, and one document from the database.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::requests::Requests;
use crate::db::doorbell::Bell;
use crate::db::migrate;
use crate::db::query::{Db, DbError};
use crate::schedule::recurrence::ZONE_DATA_VERSION;
use crate::service::Health;
use crate::task::Node;
use crate::task::running::Running;

const DEADLINE: Duration = Duration::from_secs(3);

/// Whether the daemon does its work, and what is in the way.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// All of it holds.
    pub ready: bool,
    /// What does not hold, in words.
    pub problems: Vec<String>,
}

/// Where the status comes from.
pub struct Snapshots {
    /// The database; `None` until the daemon has reached it.
    pub db: std::sync::OnceLock<Db>,
    /// The loops.
    pub health: Health,
    /// This node.
    pub node: Node,
    /// Its attempts.
    pub running: Running,
    /// Its ears.
    pub bell: Bell,
    /// What endpoints were asked.
    pub requests: Requests,
    /// Since when the process runs.
    pub started: Instant,
    /// A loop that is overdue by more than this is not healthy.
    pub limit: Duration,
}

impl Snapshots {
    /// Looks whether the daemon does its work.
    pub async fn readiness(&self) -> Readiness {
        let mut problems = self.loop_problems();
        match self.look("node.readiness").await {
            Ok(row) => {
                let known = migrate::newest_version();
                let (version, writable): (i32, bool) = (row.get("version"), row.get("writable"));
                if version != known {
                    problems.push(format!(
                        "the schema is at version {version}, this daemon was made for {known}"
                    ));
                }
                if !writable {
                    problems.push("the database takes no writes".to_owned());
                }
            }
            Err(problem) => problems.push(problem),
        }
        Readiness { ready: problems.is_empty(), problems }
    }

    /// The whole status, and the HTTP status that goes with it.
    pub async fn status(&self) -> (StatusCode, Value) {
        let loops: serde_json::Map<String, Value> = self
            .health
            .all()
            .into_iter()
            .map(|(name, health)| {
                let age = health.passed.elapsed().as_millis() as u64;
                (name.to_owned(), json!({ "last_pass_ms": age, "error": health.error }))
            })
            .collect();
        let mut snapshot = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": self.started.elapsed().as_millis() as u64,
            "node": self.node.id(),
            "running_here": self.running.ids().len(),
            "listening": self.bell.is_listening(),
            "loops": loops,
        });
        match self.look("node.status").await {
            Ok(row) => {
                if let (Value::Object(ours), Value::Object(theirs)) =
                    (&mut snapshot, row.get::<_, Value>("status"))
                {
                    ours.extend(theirs);
                }
                snapshot["zone_data"]["daemon"] = json!(ZONE_DATA_VERSION);
                (StatusCode::OK, snapshot)
            }
            Err(problem) => {
                snapshot["problem"] = json!(problem);
                (StatusCode::SERVICE_UNAVAILABLE, snapshot)
            }
        }
    }

    fn loop_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, health) in self.health.all() {
            if let Some(error) = health.error {
                problems.push(format!("{name}: {error}"));
            } else if health.due.elapsed() > self.limit {
                problems
                    .push(format!("{name}: no complete pass for {} s", health.passed.elapsed().as_secs()));
            }
        }
        problems
    }

    async fn look(&self, name: &str) -> Result<tokio_postgres::Row, String> {
        let db = self.db.get().ok_or("waiting for the database")?;
        let row = tokio::time::timeout(DEADLINE, db.row(name, &[])).await.unwrap_or(Err(DbError::Silent));
        row.map_err(|error| error.to_string())?.ok_or_else(|| "no answer from the database".to_owned())
    }
}
