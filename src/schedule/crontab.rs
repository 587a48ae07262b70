//! The crontab form of a spec: five fields, six with leading seconds, or an `@` alias, read into wall-clock times.
//!
//! Holds the rules about the line as a whole: the star rule about days, what makes a line a wildcard, and that days
//! which never come are refused. It does not know time zones; `clock` resolves wall times.

use chrono::NaiveDateTime;

use super::calendar::{Calendar, TimesOfDay};
use super::days::{MonthDays, WeekDays};
use super::field::{self, Field, Values};
use super::interval;
use super::refusal::{Problem, SpecError};

/// What separates fields and words; a line break does not.
pub(crate) const BLANKS: [char; 2] = [' ', '\t'];

/// A crontab line that has been read.
#[derive(Debug, Clone)]
pub struct Crontab {
    wildcard: bool,
    /// One calendar if a day has to match both day fields, two if either is enough.
    calendars: Vec<Calendar>,
}

impl Crontab {
    /// Reads `m h dom mon dow`, `s m h dom mon dow` or an alias. Refuses what the language does not have, and days
    /// that never come.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let spec = spec.trim_matches(BLANKS);
        let line = if spec.starts_with('@') { expand_alias(spec)? } else { spec };
        let texts: Vec<&str> = line.split(BLANKS).filter(|text| !text.is_empty()).collect();
        let [second, minute, hour, month_days, month, week_days] = match texts[..] {
            [] => return Err(SpecError::Empty),
            [minute, hour, month_days, month, week_days] => ["0", minute, hour, month_days, month, week_days],
            [second, minute, hour, month_days, month, week_days] => {
                [second, minute, hour, month_days, month, week_days]
            }
            _ => return Err(wrong_field_count(spec, &texts)),
        };
        let times = TimesOfDay {
            seconds: plain(Field::Second, second)?,
            minutes: plain(Field::Minute, minute)?,
            hours: plain(Field::Hour, hour)?,
        };
        let wildcard = minute.starts_with('*') || hour.starts_with('*');
        Ok(Crontab { wildcard, calendars: DayFields { month_days, month, week_days }.calendars(times)? })
    }

    /// Whether the minute or the hour field begins with `*`: such a schedule follows elapsed time when clocks change.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The first matching wall time that is not before `from`. None after the year 9999.
    #[must_use]
    pub fn at_or_after(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        self.calendars.iter().filter_map(|calendar| calendar.at_or_after(from)).min()
    }
}

/// The texts of the three fields that choose days.
struct DayFields<'a> {
    month_days: &'a str,
    month: &'a str,
    week_days: &'a str,
}

impl DayFields<'_> {
    /// The star rule: a day has to match both day fields if one of them begins with `*`, otherwise either.
    fn calendars(&self, times: TimesOfDay) -> Result<Vec<Calendar>, SpecError> {
        let month_days = MonthDays::parse(self.month_days)?;
        let months = plain(Field::Month, self.month)?;
        let week_days = WeekDays::parse(self.week_days)?;
        let both = self.month_days.starts_with('*') || self.week_days.starts_with('*');

        let by_month_day = Calendar::new(times, months, Some(month_days.clone()), None)
            .filter(Calendar::ever_matches)
            .ok_or_else(|| self.not_in_month(both))?;
        let by_week_day = Calendar::new(times, months, both.then_some(month_days), Some(week_days))
            .filter(Calendar::ever_matches)
            .ok_or_else(|| self.not_on_day_of_week())?;
        Ok(if both { vec![by_week_day] } else { vec![by_month_day, by_week_day] })
    }

    fn not_in_month(&self, both: bool) -> SpecError {
        let problem = Problem::NotInMonth { month: self.month.to_owned() };
        let hint = if both {
            "write days that the month has; `L` is its last day"
        } else {
            "write days that the month has, or `*` if the day of week alone decides"
        };
        SpecError::field(Field::DayOfMonth, self.month_days, problem, Some(hint.to_owned()))
    }

    fn not_on_day_of_week(&self) -> SpecError {
        let problem =
            Problem::NotOnDayOfWeek { day_of_week: self.week_days.to_owned(), month: self.month.to_owned() };
        let hint =
            "a day has to match both fields if one of them begins with `*`; list the days to match either";
        SpecError::field(Field::DayOfMonth, self.month_days, problem, Some(hint.to_owned()))
    }
}

fn plain(field: Field, text: &str) -> Result<Values, SpecError> {
    field::parse(field, text, |_| Ok(false))
}

fn expand_alias(spec: &str) -> Result<&'static str, SpecError> {
    let lower = spec.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(SpecError::Alias { text: spec.to_owned(), hint: instead_of_alias(&lower) }),
    })
}

fn instead_of_alias(lower: &str) -> String {
    let mut words = lower.split(BLANKS).filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some("@every"), duration) => format!("write `{}`", interval::from_go_duration(duration)),
        (Some("@reboot"), _) => "a start of the daemon is no time; write when it should run".to_owned(),
        (Some("@minutely" | "@every_minute"), _) => "write `* * * * *`".to_owned(),
        (Some("@weekdays"), _) => "write `0 0 * * mon-fri`".to_owned(),
        _ => {
            "the aliases are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly".to_owned()
        }
    }
}

fn wrong_field_count(spec: &str, texts: &[&str]) -> SpecError {
    let hint = match texts {
        [one] if expand_alias(&format!("@{one}")).is_ok() => &format!("write `@{one}`"),
        [one] if one.len() >= 5 => "separate the fields by blanks: `0 9 * * mon-fri`",
        [_, _, _, _, _, _, _] => "there is no year field; for one date write `at 2027-01-31 09:00`",
        _ => "write minute, hour, day of month, month, day of week: `0 9 * * mon-fri`",
    };
    SpecError::FieldCount { text: spec.to_owned(), found: texts.len(), hint: hint.to_owned() }
}
