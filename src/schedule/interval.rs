//! `every 15 minutes`: a grid in elapsed time.
//!
//! Fire k is `anchor + k * N` in UTC. No time zone and no clock change enters: `every 1 day` is 24 hours. Nothing
//! moves the grid but a new anchor.

use chrono::{DateTime, Utc};

use super::crontab::BLANKS;
use super::refusal::SpecError;

const UNITS: [(&str, i64); 5] =
    [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400), ("week", 604_800)];

/// A century; whoever writes more has mistyped the number.
const LONGEST_SECONDS: i64 = 36_525 * 86_400;

/// A grid of instants, in microseconds as the database keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    anchor_us: i64,
    every_us: i64,
}

impl Interval {
    /// Reads what follows the word `every`.
    pub(crate) fn parse(text: &str, anchor: DateTime<Utc>) -> Result<Self, SpecError> {
        let refuse = |text: &str, problem, hint: &str| {
            let hint = hint.to_owned();
            Err(SpecError::Interval { text: text.to_owned(), problem, hint })
        };
        let words: Vec<&str> = text.split(BLANKS).filter(|word| !word.is_empty()).collect();
        let (number, unit) = match words[..] {
            [number, unit] => (number, unit),
            [] => return refuse("every", "has neither a number nor a unit", "write `every 15 minutes`"),
            [one] => return refuse(one, "is not a number and a unit", &in_full(one)),
            _ => {
                return refuse(
                    text,
                    "has too many words",
                    "write one number and one unit: `every 90 minutes`",
                );
            }
        };
        let Some(seconds) = unit_seconds(unit) else {
            return refuse(unit, "is not a unit", &instead_of_unit(number, unit));
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            let hint = "write a whole number, in a smaller unit if need be: `every 90 minutes`";
            return refuse(number, "is not a whole number", hint);
        }
        let every = match number.parse::<i64>().ok().and_then(|number| number.checked_mul(seconds)) {
            Some(0) => return refuse(number, "is no interval", "the shortest one is `every 1 second`"),
            Some(every) if every <= LONGEST_SECONDS => every,
            _ => {
                return refuse(
                    number,
                    "is too long",
                    "an interval is a century at most; for one time write `at 2027-01-31 09:00`",
                );
            }
        };
        Ok(Interval { anchor_us: anchor.timestamp_micros(), every_us: every * 1_000_000 })
    }

    /// The first fire after `after`; fire 0 is the anchor itself.
    pub(crate) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let elapsed = after.timestamp_micros().checked_sub(self.anchor_us)?;
        let fires_so_far = (elapsed.div_euclid(self.every_us) + 1).max(0);
        let at = self.anchor_us.checked_add(fires_so_far.checked_mul(self.every_us)?)?;
        DateTime::from_timestamp_micros(at)
    }
}

/// Our spelling of a duration as Go writes it, such as `1h30m`.
pub(crate) fn from_go_duration(duration: Option<&str>) -> String {
    let fallback = || "every 15 minutes".to_owned();
    let Some(mut rest) = duration else { return fallback() };
    let mut seconds = 0_i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.bytes().next() {
            Some(b'h') => 3_600,
            Some(b'm') => 60,
            Some(b's') => 1,
            _ => return fallback(),
        };
        let part = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
        match part.and_then(|part| seconds.checked_add(part)) {
            Some(sum) => seconds = sum,
            None => return fallback(),
        }
        rest = &tail[1..];
    }
    match seconds {
        0 => fallback(),
        _ if seconds % 3_600 == 0 => counted(seconds / 3_600, "hour"),
        _ if seconds % 60 == 0 => counted(seconds / 60, "minute"),
        _ => counted(seconds, "second"),
    }
}

fn counted(number: i64, unit: &str) -> String {
    format!("every {number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn unit_seconds(word: &str) -> Option<i64> {
    let word = word.to_ascii_lowercase();
    let singular = word.strip_suffix('s').unwrap_or(&word);
    UNITS.iter().find(|(unit, _)| *unit == singular).map(|(_, seconds)| *seconds)
}

/// For a single word: `day`, or `15m` without a blank.
fn in_full(word: &str) -> String {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at(digits);
    let number = if number.is_empty() { "1" } else { number };
    if unit_seconds(unit).is_some() {
        format!("write `every {number} {unit}`")
    } else {
        instead_of_unit(number, unit)
    }
}

fn instead_of_unit(number: &str, unit: &str) -> String {
    let unit = unit.to_ascii_lowercase();
    let full = match unit.as_str() {
        "month" | "months" => return "months differ in length; write `@monthly` or `0 0 1 * *`".to_owned(),
        "year" | "years" => return "years differ in length; write `@yearly` or `0 0 1 1 *`".to_owned(),
        "s" | "sec" | "secs" => "seconds",
        "m" | "min" | "mins" => "minutes",
        "h" | "hr" | "hrs" => "hours",
        "d" => "days",
        "w" => "weeks",
        _ => return "the units are seconds, minutes, hours, days and weeks: `every 15 minutes`".to_owned(),
    };
    format!("write `every {number} {full}`")
}
