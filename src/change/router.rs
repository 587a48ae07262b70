//! The router turns the change log into tasks, each committed change once per matching watch. The reading is
//! `rowbeat.route_changes`, one transaction a piece; any number of routers take turns by the reader's row lock.

use std::time::{Duration, Instant};

use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// How many changes are routed in one transaction.
pub const PIECE: i32 = 1000;
/// A piece that takes longer than this is followed by a smaller one.
const SLOW: Duration = Duration::from_secs(3);
/// So long after a change others are expected.
const CHANGING: Duration = Duration::from_secs(5);

/// Reads the change log.
pub struct Router {
    db: Db,
    bell: Bell,
    poll: Duration,
    /// How many changes it routes at once: fewer when they are large or their watches slow, for a piece must fit into a
    /// statement's time.
    piece: i32,
    /// When it found changes last.
    found_at: Option<Instant>,
}

impl Router {
    /// Rings `bell` for the tasks it makes; `poll` is the longest pause between two looks.
    pub fn new(db: Db, bell: Bell, poll: Duration) -> Self {
        Self { db, bell, poll, piece: PIECE, found_at: None }
    }
}

impl Loop for Router {
    const NAME: &'static str = "router";
    const TOPIC: Topic = Topic::Change;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let begun = Instant::now();
        let routed = self.db.row("change.route", &[&self.piece]).await;
        self.piece = match &routed {
            Ok(_) if begun.elapsed() < SLOW => (self.piece * 2).min(PIECE),
            Err(error) if error.is_outage() && begun.elapsed() < SLOW => self.piece,
            _ => (self.piece / 8).max(1),
        };
        let read: i32 = routed?.map_or(0, |row| row.get(0));
        if read > 0 {
            self.found_at = Some(Instant::now());
        }
        self.bell.set_changing(self.found_at.is_some_and(|at| at.elapsed() < CHANGING));
        if read == 0 {
            return Ok(Pass::Idle(self.poll.mul_f32(0.9 + fastrand::f32() / 5.0)));
        }
        tracing::debug!(changes = read, "routed");
        self.bell.wake(Topic::Task);
        Ok(Pass::Worked(usize::try_from(read).unwrap_or(0)))
    }
}
