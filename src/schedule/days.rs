//! Which dates a day-of-month or a day-of-week field matches, with `L`, `nW`, `n#k` and `nL`.
//!
//! Each field answers for itself; whether both or either must match is the star rule, decided in `crontab`.

use chrono::{Datelike, NaiveDate, Weekday};

use super::field::{self, Field, Values};
use super::refusal::{Problem, SpecError};

/// The day-of-month field.
#[derive(Debug, Clone, Default)]
pub(crate) struct MonthDays {
    days: Values,
    /// `L`
    last: bool,
    /// The n of every `nW`.
    nearest_weekday: Values,
}

impl MonthDays {
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let mut parsed = MonthDays::default();
        parsed.days = field::parse(Field::DayOfMonth, text, |item| {
            if item.eq_ignore_ascii_case("L") {
                parsed.last = true;
                return Ok(true);
            }
            match item.strip_suffix(['W', 'w']) {
                Some(day) if !day.is_empty() && day.bytes().all(|byte| byte.is_ascii_digit()) => {
                    parsed.nearest_weekday.insert(field::value(Field::DayOfMonth, day, item)?);
                    Ok(true)
                }
                _ => Ok(false),
            }
        })?;
        Ok(parsed)
    }

    pub(crate) fn matches(&self, date: NaiveDate) -> bool {
        let length = days_in_month(date);
        self.days.contains(date.day())
            || (self.last && date.day() == length)
            || self
                .nearest_weekday
                .iter()
                .any(|day| day <= length && nearest_weekday(date, day, length) == date.day())
    }

    /// Days of the month among which all matches lie.
    pub(crate) fn candidates(&self) -> Values {
        let mut candidates = self.days;
        if self.last {
            (28..=31).for_each(|day| candidates.insert(day));
        }
        for day in self.nearest_weekday.iter() {
            (day.saturating_sub(2).max(1)..=(day + 2).min(31)).for_each(|near| candidates.insert(near));
        }
        candidates
    }
}

/// The day-of-week field; Sunday is 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeekDays {
    days: Values,
    /// `n#k`, as n * 5 + k - 1.
    occurrences: Values,
    /// The n of every `nL`.
    last: Values,
}

impl WeekDays {
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let mut parsed = WeekDays::default();
        parsed.days = field::parse(Field::DayOfWeek, text, |item| {
            if let Some((day, occurrence)) = item.split_once('#') {
                let day = field::value(Field::DayOfWeek, day, item)? % 7;
                parsed.occurrences.insert(day * 5 + parse_occurrence(occurrence, item)? - 1);
                return Ok(true);
            }
            match item.strip_suffix(['L', 'l']) {
                Some(day) if !day.is_empty() && day.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    parsed.last.insert(field::value(Field::DayOfWeek, day, item)? % 7);
                    Ok(true)
                }
                _ => Ok(false),
            }
        })?;
        Ok(parsed)
    }

    pub(crate) fn matches(&self, date: NaiveDate) -> bool {
        let day = date.weekday().num_days_from_sunday();
        self.days.contains(day)
            || self.occurrences.contains(day * 5 + (date.day() - 1) / 7)
            || (self.last.contains(day) && date.day() + 7 > days_in_month(date))
    }

    /// Days of the week among which all matches lie.
    pub(crate) fn candidates(&self) -> Values {
        let mut candidates = self.days;
        self.occurrences.iter().for_each(|occurrence| candidates.insert(occurrence / 5));
        self.last.iter().for_each(|day| candidates.insert(day));
        candidates
    }
}

/// The k of `n#k`.
fn parse_occurrence(text: &str, item: &str) -> Result<u32, SpecError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(field::not_understood(Field::DayOfWeek, item));
    }
    match text.parse() {
        Ok(occurrence @ 1..=5) => Ok(occurrence),
        _ => {
            let day = item.split('#').next().unwrap_or_default();
            let hint = format!("the first is `{day}#1`, the last of every month is `{day}L`");
            Err(SpecError::field(Field::DayOfWeek, item, Problem::OccurrenceOutOfRange, Some(hint)))
        }
    }
}

/// The day of the month, Monday to Friday, nearest to `day` and in the same month.
fn nearest_weekday(date: NaiveDate, day: u32, length: u32) -> u32 {
    match date.with_day(day).map(|date| date.weekday()) {
        Some(Weekday::Sat) if day == 1 => 3,
        Some(Weekday::Sat) => day - 1,
        Some(Weekday::Sun) if day == length => day - 2,
        Some(Weekday::Sun) => day + 1,
        _ => day,
    }
}

fn days_in_month(date: NaiveDate) -> u32 {
    match date.month() {
        2 if date.leap_year() => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
