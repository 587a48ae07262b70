//! The rescuer ends the attempts of nodes whose lease ran out, by the database's clock; their tasks are retried.

use std::time::Duration;

use crate::db::doorbell::Topic;
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// Looks for lost nodes.
pub struct Rescuer {
    /// The database.
    pub db: Db,
}

impl Loop for Rescuer {
    const NAME: &'static str = "rescuer";
    const TOPIC: Topic = Topic::Lost;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let rescued: i64 = self.db.row("task.rescue_lost", &[]).await?.map_or(0, |row| row.get(0));
        if rescued > 0 {
            tracing::warn!(rescued, "took over the tasks of lost nodes");
        }
        // The heartbeat wakes it when there is somebody to rescue; slots and turns left behind are rare.
        self.db.row("task.release_orphans", &[]).await?;
        Ok(Pass::Idle(Duration::from_secs(60).mul_f32(0.8 + fastrand::f32() * 0.4)))
    }
}
