//! The keeper reads the change log for the backup: a consumer beside the router, one transaction a piece, exactly once. It also
//! takes the baselines of tables whose backup has begun. Any number of keepers take turns by the consumer's row lock.

use std::time::Duration;

use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// How many changes are kept in one transaction.
const PIECE: i32 = 2000;
/// How many rows of a baseline.
const BASELINE: i32 = 5000;

/// Keeps changes.
pub struct Keeper {
    db: Db,
    bell: Bell,
    poll: Duration,
    /// How many changes at once: fewer when a piece took too long.
    piece: i32,
}

impl Keeper {
    /// Rings `bell` for the images it makes; `poll` is the longest pause between two looks.
    pub fn new(db: Db, bell: Bell, poll: Duration) -> Self {
        Self { db, bell, poll, piece: PIECE }
    }
}

impl Loop for Keeper {
    const NAME: &'static str = "backup";
    const TOPIC: Topic = Topic::Backup;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let kept = self.db.row("backup.keep", &[&self.piece]).await;
        self.piece = if kept.is_ok() { (self.piece * 2).min(PIECE) } else { (self.piece / 8).max(1) };
        let Some(row) = kept? else { return Ok(Pass::Idle(self.poll)) };
        let (mut read, baseline): (i32, Option<String>) = (row.get("read"), row.get("baseline"));
        if let Some(backup) = baseline {
            let row = self.db.row("backup.baseline", &[&backup, &BASELINE]).await?;
            let rows = row.and_then(|row| row.get::<_, Option<i32>>("read"));
            if rows.is_some_and(|rows| rows < BASELINE) {
                tracing::info!(backup, "every row is in the backup");
            }
            read += 1;
        }
        if read == 0 {
            return Ok(Pass::Idle(self.poll.mul_f32(0.9 + fastrand::f32() / 5.0)));
        }
        self.bell.wake(Topic::Image);
        // The router is kept awake by the same changes.
        Ok(Pass::Worked(0))
    }
}
