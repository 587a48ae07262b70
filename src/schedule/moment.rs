//! `at 2027-01-31 09:00`: once.
//!
//! With `Z` or an offset it is an instant, otherwise a wall time of the schedule's zone, which a clock change treats
//! like that of a fixed schedule: the first instant after a gap, the first pass of a repeated hour.

use chrono::{FixedOffset, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;

use super::clock::{self, Fire, Passage, Shown};
use super::crontab::BLANKS;
use super::refusal::SpecError;

/// Reads what follows the word `at`.
pub(crate) fn parse(text: &str, zone: Tz) -> Result<Fire, SpecError> {
    let text = text.trim_matches(BLANKS);
    let (date, clock) = text.split_once([' ', '\t', 'T', 't']).unwrap_or((text, ""));
    let clock = clock.trim_matches(BLANKS);
    let (time, offset) = clock.split_at(clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len()));
    let wall = wall_time(text, date, time.trim_matches(BLANKS))?;
    if offset.is_empty() {
        return resolve(zone, wall).ok_or_else(|| refusal(date, "is out of range", "write a nearer year"));
    }
    let offset = parse_offset(offset)?;
    match wall.checked_sub_offset(offset) {
        Some(at) => Ok(Fire { at: at.and_utc(), passage: Passage::Plain }),
        None => Err(refusal(date, "is out of range", "write a nearer year")),
    }
}

fn resolve(zone: Tz, wall: NaiveDateTime) -> Option<Fire> {
    Some(match clock::shown(zone, wall)? {
        Shown::Once(at) => Fire { at, passage: Passage::Plain },
        Shown::Twice { first, .. } => Fire { at: first, passage: Passage::FirstPassOnly },
        Shown::Never { resumes } => Fire { at: resumes, passage: Passage::Substitute { nominal: wall } },
    })
}

fn wall_time(text: &str, date: &str, time: &str) -> Result<NaiveDateTime, SpecError> {
    let Some([year, month, day]) = numbers(date, "dddd-dd-dd") else {
        return Err(refusal(text, "does not begin with a date", "write `at 2027-01-31 09:00`"));
    };
    let Some(day) = NaiveDate::from_ymd_opt(year as i32, month, day) else {
        return Err(refusal(date, "is not in the calendar", "write year, month and day: `2027-01-31`"));
    };
    if time.is_empty() {
        return Err(refusal(text, "has no time of day", &format!("write `at {date} 00:00` for midnight")));
    }
    let parts = numbers(time, "dd:dd").map(|[hour, minute]| [hour, minute, 0]);
    let Some([hour, minute, second]) = parts.or_else(|| numbers(time, "dd:dd:dd")) else {
        let hint = "write two digits each, 09:00 or 09:00:30; a time zone's name has a column of its own";
        return Err(refusal(time, "is not a time of day", hint));
    };
    day.and_hms_opt(hour, minute, second)
        .ok_or_else(|| refusal(time, "is not a time of day", "the last one is 23:59:59; midnight is 00:00"))
}

fn parse_offset(text: &str) -> Result<FixedOffset, SpecError> {
    if text.eq_ignore_ascii_case("z") {
        return FixedOffset::east_opt(0).ok_or_else(|| wrong_offset(text));
    }
    let (sign, digits) = match text.split_at(1) {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return Err(wrong_offset(text)),
    };
    let parts = numbers(digits, "dd:dd").or_else(|| numbers(digits, "dd").map(|[hours]| [hours, 0]));
    match parts {
        Some([hours @ 0..=15, minutes @ 0..=59]) => {
            FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60) as i32)
        }
        _ => None,
    }
    .ok_or_else(|| wrong_offset(text))
}

fn wrong_offset(text: &str) -> SpecError {
    refusal(
        text,
        "is not an offset",
        "write `Z` or hours and minutes such as `+01:00`; a time zone's name has a column of its own",
    )
}

fn refusal(text: &str, problem: &'static str, hint: &str) -> SpecError {
    SpecError::Moment { text: text.to_owned(), problem, hint: hint.to_owned() }
}

/// The numbers in `text`, which has to look like `shape`: `d` is a digit, anything else is itself.
fn numbers<const N: usize>(text: &str, shape: &str) -> Option<[u32; N]> {
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if !fits {
        return None;
    }
    let parts: Option<Vec<u32>> = text.split(['-', ':']).map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}
