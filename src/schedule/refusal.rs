//! What a spec is refused with: one line that names the field and the offending text, and a hint that says what
//! to write instead.

use std::fmt;

use thiserror::Error;

use super::field::Field;

/// Why a spec, or its time zone, is refused. `Display` is one line; [`SpecError::hint`] says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The spec holds nothing but blanks.
    #[error("spec: empty")]
    Empty,
    /// A crontab line with fewer than five or more than six fields.
    #[error("fields: {} has {found}, a crontab line has 5, or 6 with leading seconds", Quoted(text))]
    FieldCount {
        /// The whole spec.
        text: String,
        /// How many fields it has.
        found: usize,
        /// What to write instead.
        hint: String,
    },
    /// An `@` word that is none of the aliases.
    #[error("alias: {} is unknown", Quoted(text))]
    Alias {
        /// The offending word.
        text: String,
        /// What to write instead.
        hint: String,
    },
    /// A field of a crontab line.
    #[error("{field}: {} {problem}", Quoted(text))]
    Field {
        /// The field at fault.
        field: Field,
        /// The offending part of it.
        text: String,
        /// What is wrong with it.
        problem: Problem,
        /// What to write instead.
        hint: Option<String>,
    },
    /// An `every` spec.
    #[error("interval: {} {problem}", Quoted(text))]
    Interval {
        /// The offending part.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What to write instead.
        hint: String,
    },
    /// An `at` spec.
    #[error("moment: {} {problem}", Quoted(text))]
    Moment {
        /// The offending part.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What to write instead.
        hint: String,
    },
    /// A time zone that the zone data compiled into the daemon does not know.
    #[error("time zone: {} is unknown", Quoted(text))]
    TimeZone {
        /// The name that was given.
        text: String,
        /// What to write instead.
        hint: String,
    },
}

/// What is wrong with the text of a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A number that the field does not have.
    #[error("is out of range {first}-{last}")]
    OutOfRange {
        /// The smallest number of the field.
        first: u32,
        /// The largest number of the field.
        last: u32,
    },
    /// The k of `n#k` is not 1 to 5.
    #[error("counts beyond 1-5")]
    OccurrenceOutOfRange,
    /// `/0`.
    #[error("has a step of 0")]
    ZeroStep,
    /// A step that never reaches a second value of its range.
    #[error("has a step wider than its range {from}-{to}")]
    StepTooWide {
        /// The start of the range.
        from: u32,
        /// The end of the range.
        to: u32,
    },
    /// Two commas in a row, or a comma at an end.
    #[error("has an empty list item")]
    EmptyItem,
    /// The start of a range lies behind its end.
    #[error("is a backward range")]
    Backward,
    /// A range, step or value that is not part of the language.
    #[error("is not understood")]
    NotUnderstood,
    /// The days do not exist in any of the months, in any year.
    #[error("never occurs in month {}", Quoted(month))]
    NotInMonth {
        /// The text of the month field.
        month: String,
    },
    /// The days of the month never fall on the days of the week that have to match as well.
    #[error("never falls on day of week {} in month {}", Quoted(day_of_week), Quoted(month))]
    NotOnDayOfWeek {
        /// The text of the day-of-week field.
        day_of_week: String,
        /// The text of the month field.
        month: String,
    },
}

impl SpecError {
    /// What to write instead, where there is something better to say than the rule itself.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SpecError::Empty => {
                Some("for example `0 9 * * mon-fri`, `@daily` or `every 15 minutes`".to_owned())
            }
            SpecError::Field { hint, .. } => hint.clone(),
            SpecError::FieldCount { hint, .. }
            | SpecError::Alias { hint, .. }
            | SpecError::Interval { hint, .. }
            | SpecError::Moment { hint, .. }
            | SpecError::TimeZone { hint, .. } => Some(hint.clone()),
        }
    }

    pub(crate) fn field(field: Field, text: &str, problem: Problem, hint: Option<String>) -> Self {
        SpecError::Field { field, text: text.to_owned(), problem, hint }
    }
}

/// A user's text in backticks, on one line and of bounded length, whatever it holds.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        let shown: String = self.0.chars().take(LONGEST).flat_map(char::escape_debug).collect();
        let more = if self.0.chars().nth(LONGEST).is_some() { "…" } else { "" };
        write!(f, "`{shown}{more}`")
    }
}
