//! Wall times and instants: what a schedule does when the clocks of its zone change.
//!
//! The rule is the one that Debian's cron documents. A **wildcard** schedule follows elapsed time: times that do not
//! exist are passed over, the repeated hour fires in both passes. A **fixed** schedule fires once per nominal wall
//! time: in the first pass of a repeated hour, and once at the first instant after a gap, however many of its times
//! fell into it.
//!
//! Relies on one fact about the zone data: the changes of a zone are days apart (six at the least, in 2025b) and shift
//! the clock by a day at most, so that no wall time is touched by two changes.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{GapInfo, Tz};

use super::crontab::Crontab;

/// A fire, and how it came out of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fire {
    pub(crate) at: DateTime<Utc>,
    pub(crate) passage: Passage,
}

/// What a clock change had to do with a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing.
    Plain,
    /// Stands in for `nominal`, which the clocks skip.
    Substitute { nominal: NaiveDateTime },
    /// The wall time comes twice, and this schedule takes the first one only.
    FirstPassOnly,
    /// The first of two passes, both of which fire.
    FirstPass,
    /// The second of two passes, both of which fire.
    SecondPass,
}

/// The instants at which a zone's clock shows a wall time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    Once(DateTime<Utc>),
    Twice {
        first: DateTime<Utc>,
        second: DateTime<Utc>,
        /// The instant at which the clock is set back, from `until` to `from`.
        change: DateTime<Utc>,
        from: NaiveDateTime,
        until: NaiveDateTime,
    },
    /// In a gap; `resumes` is the first instant after it.
    Never {
        resumes: DateTime<Utc>,
    },
}

/// When the clock of the zone shows `wall`. None only beyond the range of chrono's dates.
pub(crate) fn shown(zone: Tz, wall: NaiveDateTime) -> Option<Shown> {
    Some(match zone.from_local_datetime(&wall) {
        MappedLocalTime::Single(at) => Shown::Once(at.to_utc()),
        MappedLocalTime::Ambiguous(first, second) => {
            let change = change_between(zone, first.to_utc(), second.to_utc())?;
            Shown::Twice {
                first: first.to_utc(),
                second: second.to_utc(),
                change,
                from: change.naive_utc().checked_add_offset(second.offset().fix())?,
                until: change.naive_utc().checked_add_offset(first.offset().fix())?,
            }
        }
        MappedLocalTime::None => {
            let (begin, offset_before) = GapInfo::new(&wall, &zone)?.begin?;
            Shown::Never { resumes: begin.checked_sub_offset(offset_before.fix())?.and_utc() }
        }
    })
}

/// What the clock of the zone shows, in whole seconds.
pub(crate) fn wall_time(zone: Tz, at: DateTime<Utc>) -> Option<NaiveDateTime> {
    let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    at.naive_utc().checked_add_offset(offset)?.with_nanosecond(0)
}

/// The first fire after `after` of a schedule that fires once per nominal wall time.
pub(crate) fn next_fixed(crontab: &Crontab, zone: Tz, after: DateTime<Utc>) -> Option<Fire> {
    let now = wall_time(zone, after)?;
    let from = match shown(zone, now)? {
        // The second pass: all of the repeated times have had their fire.
        Shown::Twice { second, until, .. } if second <= after => until,
        _ => a_second_later(now)?,
    };
    let nominal = crontab.at_or_after(from)?;
    Some(match shown(zone, nominal)? {
        Shown::Once(at) => Fire { at, passage: Passage::Plain },
        Shown::Twice { first, .. } => Fire { at: first, passage: Passage::FirstPassOnly },
        Shown::Never { resumes } => Fire { at: resumes, passage: Passage::Substitute { nominal } },
    })
}

/// The first fire after `after` of a schedule that follows elapsed time.
pub(crate) fn next_wildcard(crontab: &Crontab, zone: Tz, after: DateTime<Utc>) -> Option<Fire> {
    let now = wall_time(zone, after)?;
    let ahead = first_shown(crontab, zone, a_second_later(now)?, after);
    let again = match shown(zone, now)? {
        // The first pass: times that lie behind come once more when the clock has been set back.
        Shown::Twice { second, change, from, .. } if after < second => {
            first_shown(crontab, zone, from, just_before(change)?)
        }
        _ => None,
    };
    [ahead, again].into_iter().flatten().min_by_key(|fire| fire.at)
}

/// The first time from `from` on that the clock really shows, at the earliest instant of it after `after`.
fn first_shown(crontab: &Crontab, zone: Tz, from: NaiveDateTime, after: DateTime<Utc>) -> Option<Fire> {
    let mut from = from;
    loop {
        let nominal = crontab.at_or_after(from)?;
        match shown(zone, nominal)? {
            Shown::Once(at) => return Some(Fire { at, passage: Passage::Plain }),
            Shown::Twice { first, .. } if first > after => {
                return Some(Fire { at: first, passage: Passage::FirstPass });
            }
            Shown::Twice { second, .. } => return Some(Fire { at: second, passage: Passage::SecondPass }),
            // Ends: every turn leaves a gap of the zone behind, and the zone data has finitely many.
            Shown::Never { resumes } => from = wall_time(zone, resumes)?,
        }
    }
}

/// The instant of the change by which a wall time shown at `first` is shown again at `second`.
fn change_between(zone: Tz, first: DateTime<Utc>, second: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset_at = |seconds| {
        let at = DateTime::from_timestamp(seconds, 0)?;
        Some(zone.offset_from_utc_datetime(&at.naive_utc()).fix())
    };
    let (mut before, mut since) = (first.timestamp(), second.timestamp());
    let offset_before = offset_at(before)?;
    while since - before > 1 {
        let middle = before + (since - before) / 2;
        if offset_at(middle)? == offset_before {
            before = middle;
        } else {
            since = middle;
        }
    }
    DateTime::from_timestamp(since, 0)
}

fn a_second_later(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.checked_add_signed(TimeDelta::seconds(1))
}

fn just_before(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    at.checked_sub_signed(TimeDelta::nanoseconds(1))
}
