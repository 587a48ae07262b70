//! Wall-clock times that match, in order: a calendar without a time zone.
//!
//! The `cron` crate enumerates, and only that. It is asked over UTC as if UTC were the wall clock, with weekdays by
//! name, with either day field alone where either may match, and it never sees a user's text. It knows neither
//! `L`, `W` nor `#`, so it enumerates all days that come into question and our own predicate chooses. It knows no
//! year after 2100 either: a year is looked up in a stand-in of the same length that starts on the same weekday.
//!
//! Invariant: `at_or_after` is monotone, and a calendar that `ever_matches` always finds a next time before the
//! year 9999 is over.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::days::{MonthDays, WeekDays};
use super::field::Values;

/// Nothing is planned beyond it.
pub(crate) const LAST_YEAR: i32 = 9999;

/// After so many years the Gregorian calendar repeats, weekdays included.
const CYCLE_YEARS: i32 = 400;

/// 28 years without a skipped leap year: every kind of year is among them.
const STAND_INS: std::ops::Range<i32> = 2000..2028;

/// The times of day of a calendar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimesOfDay {
    pub(crate) seconds: Values,
    pub(crate) minutes: Values,
    pub(crate) hours: Values,
}

/// Times of day on days that match all the day fields given.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    candidates: cron::Schedule,
    months: Values,
    month_days: Option<MonthDays>,
    week_days: Option<WeekDays>,
}

impl Calendar {
    /// None if a set is empty, which the parser never lets happen.
    pub(crate) fn new(
        times: TimesOfDay,
        months: Values,
        month_days: Option<MonthDays>,
        week_days: Option<WeekDays>,
    ) -> Option<Self> {
        let expression = format!(
            "{} {} {} {} {} {}",
            numbers(times.seconds),
            numbers(times.minutes),
            numbers(times.hours),
            month_days.as_ref().map_or("*".to_owned(), |days| numbers(days.candidates())),
            numbers(months),
            week_days.as_ref().map_or("*".to_owned(), |days| weekday_names(days.candidates())),
        );
        let candidates = expression.parse().ok()?;
        Some(Calendar { candidates, months, month_days, week_days })
    }

    /// Whether there is any day at all that matches.
    pub(crate) fn ever_matches(&self) -> bool {
        NaiveDate::from_ymd_opt(STAND_INS.start, 1, 1)
            .into_iter()
            .flat_map(|first| first.iter_days())
            .take_while(|date| date.year() < STAND_INS.end)
            .any(|date| self.matches_date(date))
    }

    /// The first matching time that is not before `from`.
    pub(crate) fn at_or_after(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let last_year = LAST_YEAR.min(from.year().saturating_add(CYCLE_YEARS));
        let mut from = from;
        while from.year() <= last_year {
            let year = from.year();
            let stand_in = stand_in(year)?;
            let just_before = from.with_year(stand_in)?.checked_sub_signed(TimeDelta::seconds(1))?;
            let found: Option<DateTime<Utc>> = self.candidates.after(&just_before.and_utc()).next();
            from = match found.filter(|found| found.year() == stand_in) {
                Some(found) => {
                    let found = found.naive_utc().with_year(year)?;
                    if self.matches_date(found.date()) {
                        return Some(found);
                    }
                    found.date().checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN)
                }
                None => NaiveDate::from_ymd_opt(year + 1, 1, 1)?.and_time(NaiveTime::MIN),
            };
        }
        None
    }

    pub(crate) fn matches_date(&self, date: NaiveDate) -> bool {
        self.months.contains(date.month())
            && self.month_days.as_ref().is_none_or(|days| days.matches(date))
            && self.week_days.as_ref().is_none_or(|days| days.matches(date))
    }
}

/// The year among [`STAND_INS`] that is as long as `year` and starts on the same weekday.
fn stand_in(year: i32) -> Option<i32> {
    let kind = |year| NaiveDate::from_yo_opt(year, 1).map(|first| (first.weekday(), first.leap_year()));
    let wanted = kind(year)?;
    STAND_INS.clone().find(|candidate| kind(*candidate) == Some(wanted))
}

fn numbers(values: Values) -> String {
    let numbers: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    numbers.join(",")
}

/// By name, because the crate counts Sunday as 1.
fn weekday_names(values: Values) -> String {
    const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let names: Vec<&str> = NAMES
        .into_iter()
        .enumerate()
        .filter(|(day, _)| values.contains(*day as u32))
        .map(|(_, name)| name)
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we rely on in exactly this release of the crate, so that an upgrade that changes it is noticed.
    #[test]
    fn the_crate_enumerates_wall_times_as_we_rely_on() {
        let found = |expression: &str, after: &str| {
            let schedule: cron::Schedule = expression.parse().unwrap();
            let after = NaiveDateTime::parse_from_str(after, "%Y-%m-%d %H:%M:%S").unwrap().and_utc();
            schedule.after(&after).take(2).map(|t| t.naive_utc().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            found("0 0 9 * * MON,TUE", "2026-11-20 00:00:00"),
            ["2026-11-23 09:00:00", "2026-11-24 09:00:00"]
        );
        assert_eq!(
            found("0 0 0 13 * FRI", "2026-01-01 00:00:00"),
            ["2026-02-13 00:00:00", "2026-03-13 00:00:00"],
            "both day fields have to match"
        );
        assert_eq!(
            found("0 0 0 29 2 *", "2024-02-29 00:00:00"),
            ["2028-02-29 00:00:00", "2032-02-29 00:00:00"],
            "the start is excluded"
        );
        assert_eq!(
            found("30,59 59 23 31 12 *", "2026-12-31 23:59:30"),
            ["2026-12-31 23:59:59", "2027-12-31 23:59:30"]
        );
        assert!(found("0 0 0 1 1 *", "2100-01-01 00:00:00").is_empty(), "no year after 2100");
    }

    #[test]
    fn every_kind_of_year_has_a_stand_in() {
        for year in 1..=LAST_YEAR {
            let stand_in = stand_in(year).unwrap();
            let first = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
            let march = |year| NaiveDate::from_ymd_opt(year, 3, 1).unwrap();
            assert_eq!(first(year).weekday(), first(stand_in).weekday());
            assert_eq!(march(year).weekday(), march(stand_in).weekday());
        }
    }
}
