//! What becomes of the nominal times that have come since a schedule was last looked at.
//!
//! Usually there is one, and it fires. After down time there may be many: those that nobody was there for are **missed**, and the
//! schedule's own choice (`skip`, `last`, `all`) decides. Pure: no clock, no database.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::recurrence::Recurrence;

/// Of missed fires no more than so many are written to the ledger one by one, the latest; and no more fire in one transaction.
const MOST_RECORDED: usize = 1_000;
/// Missed fires are counted up to here; then those of long ago are passed over.
const MOST_COUNTED: usize = 10_000;
/// `all` without a window.
const CATCH_UP_ALL: TimeDelta = TimeDelta::days(1);

/// The schedule's choice for missed fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// None of them fires.
    Skip,
    /// The latest fires, unless it is older than this.
    Last(Option<TimeDelta>),
    /// All fire that are not older than this.
    All(TimeDelta),
}

/// What becomes of a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    Fired,
    CaughtUp,
    Skipped,
}

/// A line for the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Decided {
    pub(crate) at: DateTime<Utc>,
    pub(crate) decision: Decision,
    pub(crate) reason: Option<String>,
}

/// What becomes of a schedule that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) fires: Vec<Decided>,
    /// The nominal time after them; it may have come, too, when there are many.
    pub(crate) next: Option<DateTime<Utc>>,
}

impl CatchUp {
    /// As the row has it.
    pub(crate) fn read(choice: &str, window: Option<TimeDelta>) -> Self {
        match choice {
            "skip" => Self::Skip,
            "all" => Self::All(window.unwrap_or(CATCH_UP_ALL)),
            _ => Self::Last(window),
        }
    }

    /// For the ledger, of a missed fire that does not fire.
    fn why_not(self) -> &'static str {
        match self {
            Self::Skip => "missed: no daemon ran at that time, and catch_up is skip",
            Self::Last(_) => "missed: no daemon ran at that time, and catch_up is last",
            Self::All(_) => "missed: no daemon ran at that time, and it was older than catch_up_window",
        }
    }
}

/// Decides about `due` and all nominal times after it up to `now`. Those that are older than `tolerance` are missed ones.
pub(crate) fn decide(
    recurrence: &Recurrence,
    due: DateTime<Utc>,
    now: DateTime<Utc>,
    end: Option<DateTime<Utc>>,
    catch_up: CatchUp,
    tolerance: TimeDelta,
) -> Plan {
    let on_time = earlier(now, tolerance);
    let fires_from = match catch_up {
        CatchUp::All(window) => on_time.min(earlier(now, window)),
        CatchUp::Skip | CatchUp::Last(_) => on_time,
    };
    let (mut passed, mut recorded) = (0, VecDeque::new());
    let mut next = Some(due);
    while let Some(at) = next.filter(|at| *at < fires_from) {
        if recorded.len() == MOST_RECORDED {
            recorded.pop_front();
        }
        recorded.push_back(at);
        passed += 1;
        let from = if passed == MOST_COUNTED { at.max(earlier(fires_from, TimeDelta::hours(1))) } else { at };
        next = before_end(recurrence.next_after(from), end);
    }
    let mut firing = Vec::new();
    while let Some(at) = next.filter(|at| *at <= now && firing.len() < MOST_RECORDED) {
        firing.push(at);
        next = before_end(recurrence.next_after(at), end);
    }
    let latest_is_young = |window: Option<TimeDelta>| {
        recorded.back().is_some_and(|at| window.is_none_or(|window| *at >= earlier(now, window)))
    };
    let mut late = firing.partition_point(|at| *at < on_time);
    if let CatchUp::Last(window) = catch_up
        && firing.is_empty()
        && latest_is_young(window)
    {
        firing.extend(recorded.pop_back());
        (late, passed) = (1, passed - 1);
    }
    let mut fires: Vec<Decided> = recorded
        .into_iter()
        .map(|at| Decided { at, decision: Decision::Skipped, reason: Some(catch_up.why_not().to_owned()) })
        .collect();
    fires.extend(firing.into_iter().enumerate().map(|(n, at)| {
        let missed = if n == 0 { passed } else { 0 };
        let decision = if n < late { Decision::CaughtUp } else { Decision::Fired };
        Decided { at, decision, reason: told(missed, decision) }
    }));
    Plan { fires, next }
}

/// A last fire, of a spec that cannot be read any more.
pub(crate) fn only(due: DateTime<Utc>) -> Plan {
    Plan { fires: vec![Decided { at: due, decision: Decision::Fired, reason: None }], next: None }
}

/// The time that a schedule with an end fires at next.
pub(crate) fn before_end(next: Option<DateTime<Utc>>, end: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    next.filter(|next| end.is_none_or(|end| *next < end))
}

fn earlier(now: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    now.checked_sub_signed(by).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

fn told(missed: usize, decision: Decision) -> Option<String> {
    let least = if missed >= MOST_COUNTED { "at least " } else { "" };
    match (missed, decision) {
        (0, Decision::CaughtUp) => Some("late: no daemon ran at that time".to_owned()),
        (0, _) => None,
        (1, _) => Some("1 earlier fire passed while no daemon ran".to_owned()),
        _ => Some(format!("{least}{missed} earlier fires passed while no daemon ran")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_SECOND: TimeDelta = TimeDelta::seconds(1);

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn quarter_hours() -> Recurrence {
        Recurrence::parse("every 15 minutes", "UTC", at("2026-11-21T00:00:00Z")).expect("a spec")
    }

    /// Minutes after one o'clock of what was decided, `+` fired, `~` caught up, `-` skipped; and of the next fire.
    fn decided(
        catch_up: CatchUp,
        now: &str,
        end: Option<&str>,
        tolerance: TimeDelta,
    ) -> (String, Option<i64>) {
        let one = at("2026-11-21T01:00:00Z");
        let plan = decide(&quarter_hours(), one, at(now), end.map(at), catch_up, tolerance);
        let fires: Vec<String> = plan
            .fires
            .iter()
            .map(|fire| {
                let sign = match fire.decision {
                    Decision::Fired => "+",
                    Decision::CaughtUp => "~",
                    Decision::Skipped => "-",
                };
                format!("{sign}{}", (fire.at - one).num_minutes())
            })
            .collect();
        (fires.join(" "), plan.next.map(|next| (next - one).num_minutes()))
    }

    #[test]
    fn a_fire_on_time_misses_nothing_whatever_the_choice() {
        for catch_up in [CatchUp::Skip, CatchUp::Last(None), CatchUp::All(A_SECOND)] {
            let now = "2026-11-21T01:00:00.004Z";
            assert_eq!(decided(catch_up, now, None, A_SECOND), ("+0".to_owned(), Some(15)));
            let end = Some("2026-11-21T01:15:00Z");
            assert_eq!(decided(catch_up, now, end, A_SECOND), ("+0".to_owned(), None), "the end is excluded");
        }
    }

    #[test]
    fn missed_fires_become_none_one_or_all_as_the_schedule_chose_and_the_grid_stays() {
        let now = "2026-11-21T02:07:00Z";
        let choices = [
            (CatchUp::Skip, "-0 -15 -30 -45 -60"),
            (CatchUp::Last(None), "-0 -15 -30 -45 ~60"),
            (CatchUp::Last(Some(TimeDelta::minutes(5))), "-0 -15 -30 -45 -60"),
            (CatchUp::All(CATCH_UP_ALL), "~0 ~15 ~30 ~45 ~60"),
            (CatchUp::All(TimeDelta::minutes(40)), "-0 -15 ~30 ~45 ~60"),
        ];
        for (catch_up, expected) in choices {
            assert_eq!(
                decided(catch_up, now, None, A_SECOND),
                (expected.to_owned(), Some(75)),
                "{catch_up:?}"
            );
        }
    }

    #[test]
    fn what_a_daemon_that_was_there_is_late_with_is_not_missed() {
        let late = "2026-11-21T01:30:40Z";
        for catch_up in [CatchUp::Skip, CatchUp::Last(None), CatchUp::All(A_SECOND)] {
            let all = decided(catch_up, late, None, TimeDelta::minutes(31));
            assert_eq!(all, ("+0 +15 +30".to_owned(), Some(45)));
        }
        let latest = decided(CatchUp::Last(None), "2026-11-21T01:30:00.5Z", None, A_SECOND);
        assert_eq!(
            latest,
            ("-0 -15 +30".to_owned(), Some(45)),
            "one that is on time stands for the missed ones"
        );
    }

    #[test]
    fn the_reason_counts_what_passed() {
        let reason = |due: &str, now: &str| {
            let plan = decide(&quarter_hours(), at(due), at(now), None, CatchUp::Last(None), A_SECOND);
            plan.fires.last().and_then(|fire| fire.reason.clone()).unwrap_or_default()
        };
        let due = "2026-11-21T01:00:00Z";
        assert_eq!(reason(due, "2026-11-21T02:07:00Z"), "4 earlier fires passed while no daemon ran");
        assert_eq!(reason(due, "2026-11-21T01:20:00Z"), "1 earlier fire passed while no daemon ran");
        assert_eq!(reason(due, "2026-11-21T01:10:00Z"), "late: no daemon ran at that time");
        assert_eq!(
            reason(due, "2036-11-21T01:07:00Z"),
            "at least 10003 earlier fires passed while no daemon ran"
        );
    }

    #[test]
    fn a_long_absence_costs_a_bounded_number_of_ledger_rows_and_all_are_caught_up_in_pieces() {
        let every_second =
            Recurrence::parse("* * * * * *", "UTC", at("2026-11-21T00:00:00Z")).expect("a spec");
        let (due, now) = (at("2025-11-21T00:00:00Z"), at("2026-11-21T00:00:00Z"));
        let last = decide(&every_second, due, now, None, CatchUp::Last(None), A_SECOND);
        assert_eq!((last.fires.len(), last.next), (MOST_RECORDED + 2, Some(now + A_SECOND)));
        assert_eq!(last.fires.iter().filter(|fire| fire.decision != Decision::Skipped).count(), 2);
        let all = decide(&every_second, due, now, None, CatchUp::All(TimeDelta::hours(2)), A_SECOND);
        assert_eq!(all.next, Some(now - TimeDelta::hours(2) + TimeDelta::seconds(1_000)));
        assert_eq!(
            all.fires.iter().filter(|fire| fire.decision == Decision::CaughtUp).count(),
            MOST_RECORDED
        );
    }
}
