//! The scheduler plans schedules and fires them.
//!
//! The stored next fire decides, never a match of "now" against the pattern: a late pass loses nothing. What is due is decided in
//! batches, each one transaction (`rowbeat.fire`) that checks the stored times, so any number of daemons fire each nominal time once.
//! The next time is computed from the nominal one. What passed while nobody looked is the schedule's own choice: see `backlog`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::backlog::{self, CatchUp};
use super::recurrence::{Recurrence, ZONE_DATA_VERSION};
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// How many schedules are fired in one transaction.
const BATCH: i64 = 500;
/// How many are planned at a time: the limit of the statement.
const MOST_PLANNED: usize = 1_000;
/// A daemon that has just come, or was away, takes what is older than this for missed.
const NEWCOMER: TimeDelta = TimeDelta::seconds(1);
/// One that looks all the time is only late, by as much as it can be late: two polls and this.
const LATE: TimeDelta = TimeDelta::seconds(10);
/// How often rows are looked for that another daemon planned by older zone data.
const OUTDATED: TimeDelta = TimeDelta::hours(1);
/// When something due could not be fired: another daemon has it, or it is being edited.
const AGAIN: Duration = Duration::from_millis(500);

/// Plans and fires.
pub struct Scheduler {
    db: Db,
    bell: Bell,
    poll: Duration,
    /// The database's time at the latest complete pass.
    looked_at: Option<DateTime<Utc>>,
    /// And when all rows were last held against this daemon's zone data.
    compared_at: Option<DateTime<Utc>>,
}

impl Scheduler {
    /// Rings `bell` for the tasks it makes; `poll` is the longest pause between two looks.
    pub fn new(db: Db, bell: Bell, poll: Duration) -> Self {
        Self { db, bell, poll, looked_at: None, compared_at: None }
    }
}

impl Loop for Scheduler {
    const NAME: &'static str = "scheduler";
    const TOPIC: Topic = Topic::Schedule;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        // A pass that fails is none: then nobody looked.
        let looked_at = self.looked_at.take();
        if self.compared_at.is_none() {
            self.db.rows("schedule.replan_outdated", &[&ZONE_DATA_VERSION]).await?;
        }
        while self.plan().await? == MOST_PLANNED {}
        let rows = self.db.rows("schedule.due", &[&BATCH]).await?;
        let Some(now) = rows.first().map(|row| row.get::<_, DateTime<Utc>>("now")) else {
            return Ok(Pass::Idle(self.poll));
        };
        self.compared_at = self.compared_at.or(Some(now)).filter(|compared| now - compared < OUTDATED);
        let late = TimeDelta::from_std(self.poll * 2).unwrap_or(LATE) + LATE;
        let tolerance = match looked_at {
            Some(looked_at) if now - looked_at <= late => late,
            _ => NEWCOMER,
        };
        let due = rows.iter().take_while(|row| is_due(row, now));
        let plans: Vec<Value> = due.map(|row| what_becomes_of(row, now, tolerance)).collect();
        let waiting = rows.get(plans.len()).and_then(|row| row.get::<_, Option<i64>>("in_ms"));
        let due = plans.len();
        let (fired, refused) = self.fire(plans).await?;
        self.looked_at = Some(now);
        if fired > 0 {
            self.bell.wake(Topic::Task);
            return Ok(Pass::Worked(fired));
        }
        let mut pause = self.poll.mul_f32(0.9 + fastrand::f32() / 5.0);
        if let Some(in_ms) = waiting {
            pause = pause.min(Duration::from_millis(u64::try_from(in_ms).unwrap_or(0) + 1));
        }
        Ok(Pass::Idle(if due > refused { pause.min(AGAIN) } else { pause }))
    }
}

impl Scheduler {
    /// Computes the next fires of what was written, and of what was planned by older zone data; of how many.
    async fn plan(&self) -> Result<usize, DbError> {
        let rows = self.db.rows("schedule.unplanned", &[]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let column = |name| rows.iter().map(|row| row.get(name)).collect::<Vec<String>>();
        let (names, versions) = (column("name"), column("version"));
        let (next, errors): (Vec<_>, Vec<_>) = rows.iter().map(next_fire).unzip();
        self.db.rows("schedule.plan", &[&names, &versions, &next, &errors, &ZONE_DATA_VERSION]).await?;
        Ok(rows.len())
    }

    /// Fires what is due; how many schedules moved on, and how many the database refused: those do not hold up the others.
    async fn fire(&self, plans: Vec<Value>) -> Result<(usize, usize), DbError> {
        if plans.is_empty() {
            return Ok((0, 0));
        }
        match self.fire_together(&Value::from(plans.clone())).await {
            Err(error) if error.sqlstate().is_some() && !error.is_outage() => {}
            fired => return fired.map(|fired| (fired, 0)),
        }
        let (mut fired, mut refused) = (0, 0);
        for plan in plans {
            let name = plan["schedule"].as_str().unwrap_or_default().to_owned();
            match self.fire_together(&json!([plan])).await {
                Ok(moved) => fired += moved,
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    refused += 1;
                    tracing::warn!(schedule.name = name, %error, "schedule cannot be fired; it is tried again");
                    self.db.rows("schedule.failed", &[&name, &error.to_string()]).await?;
                }
            }
        }
        Ok((fired, refused))
    }

    async fn fire_together(&self, plans: &Value) -> Result<usize, DbError> {
        let rows = self.db.rows("schedule.fire", &[plans, &ZONE_DATA_VERSION]).await?;
        for row in &rows {
            let (name, decided): (String, i32) = (row.get("schedule"), row.get("decided"));
            match row.get::<_, Option<i64>>("task_id") {
                Some(task) => {
                    tracing::info!(schedule.name = name, schedule.decided = decided, task.id = task, "fired");
                }
                None => tracing::debug!(
                    schedule.name = name,
                    schedule.decided = decided,
                    "no task; see the ledger"
                ),
            }
        }
        Ok(rows.len())
    }
}

fn is_due(row: &Row, now: DateTime<Utc>) -> bool {
    row.get::<_, Option<DateTime<Utc>>>("next_fire_at").is_some_and(|next| next <= now)
}

/// The next fire of a row to be planned, or why there is none to be known.
fn next_fire(row: &Row) -> (Option<DateTime<Utc>>, Option<String>) {
    let (name, spec, zone): (&str, &str, &str) = (row.get("name"), row.get("spec"), row.get("time_zone"));
    match Recurrence::parse(spec, zone, row.get("anchor")) {
        Ok(recurrence) => {
            let (from, start): (DateTime<Utc>, Option<DateTime<Utc>>) =
                (row.get("plan_from"), row.get("start_at"));
            let next = match start.filter(|start| *start >= from) {
                Some(start) => recurrence.next_from(start),
                None => recurrence.next_after(from),
            };
            (backlog::before_end(next, row.get("end_at")), None)
        }
        Err(error) => {
            tracing::warn!(schedule.name = name, %error, "schedule cannot be planned");
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            (None, Some(format!("{error}{hint}")))
        }
    }
}

/// What becomes of a due row, as `rowbeat.fire` takes it.
fn what_becomes_of(row: &Row, now: DateTime<Utc>, tolerance: TimeDelta) -> Value {
    let (name, spec, zone): (&str, &str, &str) = (row.get("name"), row.get("spec"), row.get("time_zone"));
    let due: DateTime<Utc> = row.get("next_fire_at");
    let window = row.get::<_, Option<i64>>("window_ms").and_then(TimeDelta::try_milliseconds);
    let plan = match Recurrence::parse(spec, zone, row.get("anchor")) {
        Ok(recurrence) => {
            let catch_up = CatchUp::read(row.get("catch_up"), window);
            backlog::decide(&recurrence, due, now, row.get("end_at"), catch_up, tolerance)
        }
        // Refused when it was planned; another version of the daemon may have known better.
        Err(error) => {
            tracing::warn!(schedule.name = name, %error, "schedule cannot be read; it fires once more");
            backlog::only(due)
        }
    };
    json!({ "schedule": name, "due_at": due, "next_at": plan.next, "fires": plan.fires })
}
