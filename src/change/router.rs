//! The router turns the change log into tasks, each committed change once per matching watch. The reading is
//! `rowbeat.route_changes`, one transaction a piece; any number of routers take turns by the reader's row lock.

use std::time::Duration;

use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

const PIECE: i32 = 1000;

/// Reads the change log.
pub struct Router {
    /// The database.
    pub db: Db,
    /// Rung for the tasks it makes.
    pub bell: Bell,
    /// The longest pause between two looks.
    pub poll: Duration,
}

impl Loop for Router {
    const NAME: &'static str = "router";
    const TOPIC: Topic = Topic::Change;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let read: i32 = self.db.row("change.route", &[&PIECE]).await?.map_or(0, |row| row.get(0));
        if read == 0 {
            return Ok(Pass::Idle(self.poll.mul_f32(0.9 + fastrand::f32() / 5.0)));
        }
        tracing::debug!(changes = read, "routed");
        self.bell.wake(Topic::Task);
        Ok(Pass::Worked(usize::try_from(read).unwrap_or(0)))
    }
}
