//! The pruner forgets what is past its time: ended tasks, attempts, read changes, old nodes and fires. What goes when is
//! decided in `rowbeat.prune`.

use std::time::Duration;

use crate::db::doorbell::Topic;
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

const PERIOD: Duration = Duration::from_secs(20 * 60);

/// Empties ring slots.
pub struct Pruner {
    /// The database.
    pub db: Db,
}

impl Loop for Pruner {
    const NAME: &'static str = "pruner";
    const TOPIC: Topic = Topic::Time;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let emptied: i32 = self.db.row("task.prune", &[]).await?.map_or(0, |row| row.get(0));
        if emptied > 0 {
            tracing::info!(slots = emptied, "emptied slots of ended tasks and read changes");
        }
        Ok(Pass::Idle(PERIOD.mul_f32(0.8 + fastrand::f32() * 0.4)))
    }
}
