//! The scheduler plans schedules and fires them.
//!
//! The stored next fire decides, never a match of "now" against the pattern: a late pass loses nothing. Each fire is one
//! transaction (`rowbeat.fire`) that checks the stored time, so any number of daemons fire it once. The next time is
//! computed from the nominal one. Fires that passed while no daemon ran become one, the latest.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::recurrence::Recurrence;
use crate::db::doorbell::{Bell, Topic};
use crate::db::query::{Db, DbError};
use crate::service::{Loop, Pass};

/// Missed fires are counted up to here; beyond, the schedule is planned from now.
const MOST_MISSED: i32 = 100_000;

/// Plans and fires.
pub struct Scheduler {
    /// The database.
    pub db: Db,
    /// Rung for the tasks it makes.
    pub bell: Bell,
    /// The longest pause between two looks.
    pub poll: Duration,
}

impl Loop for Scheduler {
    const NAME: &'static str = "scheduler";
    const TOPIC: Topic = Topic::Schedule;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        for row in self.db.rows("schedule.unplanned", &[]).await? {
            self.plan(&row).await?;
        }
        let mut fired = 0;
        let mut pause = self.poll.mul_f32(0.9 + fastrand::f32() / 5.0);
        for row in self.db.rows("schedule.due", &[]).await? {
            let in_ms: i64 = row.get("in_ms");
            if row.get::<_, DateTime<Utc>>("next_fire_at") > row.get::<_, DateTime<Utc>>("now") {
                pause = pause.min(Duration::from_millis(u64::try_from(in_ms).unwrap_or(0) + 1));
                break;
            }
            fired += usize::from(self.fire(&row).await?);
        }
        if fired > 0 {
            self.bell.wake(Topic::Task);
            return Ok(Pass::Worked(fired));
        }
        Ok(Pass::Idle(pause))
    }
}

impl Scheduler {
    async fn plan(&self, row: &Row) -> Result<(), DbError> {
        let (name, spec, zone): (String, String, String) =
            (row.get("name"), row.get("spec"), row.get("time_zone"));
        let (next, error) = match Recurrence::parse(&spec, &zone, row.get("anchor")) {
            Ok(recurrence) => {
                let (from, start): (DateTime<Utc>, Option<DateTime<Utc>>) =
                    (row.get("plan_from"), row.get("start_at"));
                let next = match start.filter(|start| *start >= from) {
                    Some(start) => recurrence.next_from(start),
                    None => recurrence.next_after(from),
                };
                (before_end(next, row.get("end_at")), None)
            }
            Err(error) => {
                tracing::warn!(schedule.name = name, %error, "schedule cannot be planned");
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                (None, Some(format!("{error}{hint}")))
            }
        };
        self.db.rows("schedule.plan", &[&name, &spec, &zone, &next, &error]).await?;
        Ok(())
    }

    /// Fires a due schedule; false when another daemon did, or it was edited meanwhile.
    async fn fire(&self, row: &Row) -> Result<bool, DbError> {
        let (name, spec, zone): (String, String, String) =
            (row.get("name"), row.get("spec"), row.get("time_zone"));
        let (due, now): (DateTime<Utc>, DateTime<Utc>) = (row.get("next_fire_at"), row.get("now"));
        let next = match Recurrence::parse(&spec, &zone, row.get("anchor")) {
            Ok(recurrence) => catch_up(&recurrence, due, now, row.get("end_at")),
            // Refused when it was planned; another version of the daemon may have known better.
            Err(error) => {
                tracing::warn!(schedule.name = name, %error, "schedule cannot be read; it fires once more");
                Fire { nominal: due, next: None, missed: 0 }
            }
        };
        let fired =
            self.db.row("schedule.fire", &[&name, &due, &next.nominal, &next.next, &next.missed]).await?;
        let task: Option<i64> = fired.and_then(|row| row.get(0));
        if let Some(task) = task {
            tracing::info!(schedule.name = name, nominal_at = %next.nominal, missed = next.missed, task.id = task, "fired");
        }
        Ok(task.is_some())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Fire {
    nominal: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
    missed: i32,
}

/// The latest nominal time that has come, the one after it, and how many passed before.
fn catch_up(
    recurrence: &Recurrence,
    due: DateTime<Utc>,
    now: DateTime<Utc>,
    end: Option<DateTime<Utc>>,
) -> Fire {
    let mut fire = Fire { nominal: due, next: before_end(recurrence.next_after(due), end), missed: 0 };
    while let Some(next) = fire.next.filter(|next| *next <= now) {
        fire.nominal = next;
        fire.missed += 1;
        let from = if fire.missed < MOST_MISSED { next } else { now };
        fire.next = before_end(recurrence.next_after(from), end);
    }
    fire
}

fn before_end(next: Option<DateTime<Utc>>, end: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    next.filter(|next| end.is_none_or(|end| *next < end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn missed_fires_become_one_and_the_grid_stays() {
        let anchor = at("2026-11-21T00:00:00Z");
        let every = Recurrence::parse("every 15 minutes", "UTC", anchor).expect("a spec");
        let fire = catch_up(&every, at("2026-11-21T01:00:00Z"), at("2026-11-21T02:07:00Z"), None);
        assert_eq!(
            fire,
            Fire { nominal: at("2026-11-21T02:00:00Z"), next: Some(at("2026-11-21T02:15:00Z")), missed: 4 }
        );
    }

    #[test]
    fn a_fire_on_time_misses_nothing_and_the_end_is_excluded() {
        let every = Recurrence::parse("every 15 minutes", "UTC", at("2026-11-21T00:00:00Z")).expect("a spec");
        let due = at("2026-11-21T01:00:00Z");
        let fire = catch_up(&every, due, at("2026-11-21T01:00:00.004Z"), Some(at("2026-11-21T01:15:00Z")));
        assert_eq!(fire, Fire { nominal: due, next: None, missed: 0 });
    }
}
