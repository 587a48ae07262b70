//! The mirror copies images from the database to further targets, each at its own pace, in the order of transactions. One that
//! is away or refuses keeps up nobody else; what is wrong with it stands in `rowbeat.backup_targets`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use super::Trouble;
use super::folder::Folder;
use super::second::Second;
use crate::db::doorbell::Topic;
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// Another daemon's keeper does not ring here.
const POLL: Duration = Duration::from_secs(1);
/// How often an unchanged target is reported.
const REPORT: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where images go.
pub enum Destination {
    /// Another database.
    Second(Box<Second>),
    /// Files.
    Folder(Folder),
}

/// One target.
pub struct Target {
    name: String,
    to: Destination,
    position: Option<i64>,
    error: Option<String>,
    reported: Option<Instant>,
    not_before: Option<Instant>,
    pause: Duration,
}

impl Target {
    /// A target that nothing is known of yet.
    pub fn new(name: String, to: Destination) -> Self {
        let pause = Duration::from_millis(200);
        Self { name, to, position: None, error: None, reported: None, not_before: None, pause }
    }

    /// Copies what is new; whether there may be more.
    async fn follow(&mut self, db: &Db, node: &str, newest: i64, identity: &Value) -> Result<bool, DbError> {
        if self.not_before.is_some_and(|at| at > Instant::now()) {
            return Ok(false);
        }
        let before = (self.position, self.error.clone());
        if self.position != Some(newest) {
            let copied = match &mut self.to {
                Destination::Second(second) => second.copy(db, identity).await,
                Destination::Folder(folder) => folder.copy(db).await,
            };
            match copied {
                Ok(position) => {
                    (self.position, self.error, self.not_before) = (Some(position), None, None);
                    self.pause = Duration::from_millis(200);
                }
                Err(Trouble::Source(error)) => return Err(error),
                Err(Trouble::Target(error)) => {
                    if self.error.as_ref() != Some(&error) {
                        tracing::warn!(target = self.name, error, "a target of the backup cannot be written");
                    }
                    (self.position, self.error) = (None, Some(error));
                    self.not_before = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        let changed = before != (self.position, self.error.clone());
        if changed || self.reported.is_none_or(|at| at.elapsed() > REPORT) {
            let kind = match self.to {
                Destination::Second(_) => "database",
                Destination::Folder(_) => "file",
            };
            db.row("backup.report_target", &[&self.name, &kind, &self.position, &self.error, &node]).await?;
            self.reported = Some(Instant::now());
        }
        Ok(self.position.is_some_and(|position| position < newest))
    }
}

/// Follows the images.
pub struct Mirror {
    /// The source.
    pub db: Db,
    /// This node's name, for the reports.
    pub node: String,
    /// Where to.
    pub targets: Vec<Target>,
}

impl Loop for Mirror {
    const NAME: &'static str = "mirror";
    const TOPIC: Topic = Topic::Image;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let Some(row) = self.db.row("backup.newest", &[]).await? else { return Ok(Pass::Idle(POLL)) };
        let (newest, identity): (i64, Value) = (row.get("number"), row.get("source"));
        let (db, node) = (&self.db, self.node.as_str());
        let followed =
            join_all(self.targets.iter_mut().map(|target| target.follow(db, node, newest, &identity))).await;
        let more = followed.into_iter().collect::<Result<Vec<_>, _>>()?.contains(&true);
        Ok(if more { Pass::Worked(0) } else { Pass::Idle(POLL) })
    }
}
