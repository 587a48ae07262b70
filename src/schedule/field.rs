//! One field of a crontab line: which values it may hold, and its text read into a set of values.
//!
//! Knows nothing of dates: `L`, `nW`, `n#k` and `nL` are handed to the caller before an item is read as a plain
//! range.

use std::fmt;

use super::advice;
use super::refusal::{Problem, SpecError};

/// A field of a crontab line, in the order in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0-59; only in a line of six fields, where it leads.
    Second,
    /// 0-59.
    Minute,
    /// 0-23.
    Hour,
    /// 1-31, `L`, `nW`.
    DayOfMonth,
    /// 1-12 or `jan`-`dec`.
    Month,
    /// 0-7 or `sun`-`sat`, 0 and 7 are Sunday; `n#k`, `nL`.
    DayOfWeek,
}

impl Field {
    /// The smallest and the largest number the field takes.
    pub(crate) fn bounds(self) -> (u32, u32) {
        match self {
            Field::Second | Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 7),
        }
    }

    /// The names that may stand for numbers; the first one stands for the smallest number.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Field::Month => {
                &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
            }
            Field::DayOfWeek => &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
            _ => &[],
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Second => "second",
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day of month",
            Field::Month => "month",
            Field::DayOfWeek => "day of week",
        })
    }
}

/// A set of small numbers, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Values(u64);

impl Values {
    pub(crate) fn contains(self, value: u32) -> bool {
        value < 64 && self.0 & (1 << value) != 0
    }

    pub(crate) fn insert(&mut self, value: u32) {
        self.0 |= 1 << value;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |value| self.contains(*value))
    }
}

/// Reads a field's text. `special` sees every list item first and answers whether it took it.
pub(crate) fn parse(
    field: Field,
    text: &str,
    mut special: impl FnMut(&str) -> Result<bool, SpecError>,
) -> Result<Values, SpecError> {
    let mut values = Values::default();
    for item in text.split(',') {
        if item.is_empty() {
            return Err(SpecError::field(field, text, Problem::EmptyItem, advice::without_empty_items(text)));
        }
        if !special(item)? {
            add_range(field, item, &mut values)?;
        }
    }
    Ok(values)
}

/// A number or a name, in the field's bounds. `item` is what an error shows.
pub(crate) fn value(field: Field, text: &str, item: &str) -> Result<u32, SpecError> {
    let (first, last) = field.bounds();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(number) if (first..=last).contains(&number) => Ok(number),
            _ => Err(SpecError::field(
                field,
                text,
                Problem::OutOfRange { first, last },
                advice::out_of_range(field, text),
            )),
        };
    }
    match (first..).zip(field.names()).find(|(_, name)| name.eq_ignore_ascii_case(text)) {
        Some((number, _)) => Ok(number),
        None => Err(not_understood(field, item)),
    }
}

/// The refusal of an item that is no value, range or step at all.
pub(crate) fn not_understood(field: Field, item: &str) -> SpecError {
    SpecError::field(field, item, Problem::NotUnderstood, advice::instead_of(field, item))
}

/// Adds `*`, `a`, `a-b`, or one of them with `/step`.
fn add_range(field: Field, item: &str, values: &mut Values) -> Result<(), SpecError> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (first, last) = field.bounds();
    let (from, to) = if range == "*" {
        (first, last)
    } else if let Some((from, to)) = range.split_once('-') {
        range_ends(field, from, to, item)?
    } else {
        let from = value(field, range, item)?;
        (from, if step.is_some() { last } else { from })
    };
    let step = step.map_or(Ok(1), |step| parse_step(field, step, item))?;
    if from > to {
        return Err(SpecError::field(
            field,
            item,
            Problem::Backward,
            advice::unrolled(field, range, from, to, step),
        ));
    }
    if step > to - from && item.contains('/') {
        return Err(SpecError::field(
            field,
            item,
            Problem::StepTooWide { from, to },
            advice::wide_step(field, range, from, step),
        ));
    }
    for number in (from..=to).step_by(step as usize) {
        values.insert(if field == Field::DayOfWeek { number % 7 } else { number });
    }
    Ok(())
}

/// Both ends of a range; Sunday by name closes a range as 7.
fn range_ends(field: Field, from: &str, to: &str, item: &str) -> Result<(u32, u32), SpecError> {
    let start = value(field, from, item)?;
    let end = value(field, to, item)?;
    let closing_sunday = field == Field::DayOfWeek && start > 0 && to.eq_ignore_ascii_case("sun");
    Ok((start, if closing_sunday { 7 } else { end }))
}

fn parse_step(field: Field, step: &str, item: &str) -> Result<u32, SpecError> {
    if step.is_empty() || !step.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_understood(field, item));
    }
    match step.parse() {
        Ok(0) => {
            Err(SpecError::field(field, item, Problem::ZeroStep, Some("a step is at least 1".to_owned())))
        }
        // A number too long for u32 is wider than every range, and is reported as such.
        step => Ok(step.unwrap_or(u32::MAX)),
    }
}
