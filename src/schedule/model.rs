//! A slow and obvious model of what a crontab line means, to compare the real thing with.
//!
//! A random line is built together with its meaning, so that neither the parser nor the calendar has a say in what
//! is expected; the zone's clock is read minute by minute instead of being calculated with.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

/// A field's text and what it means.
#[derive(Debug, Clone)]
pub(super) struct ModelField<M> {
    pub(super) text: String,
    items: Vec<M>,
}

#[derive(Debug, Clone)]
pub(super) enum Days {
    Numbers(BTreeSet<u32>),
    /// `L`
    LastDay,
    /// `nW`
    NearestWeekday(u32),
    /// `n#k`
    Occurrence(u32, u32),
    /// `nL`
    LastSuch(u32),
}

#[derive(Debug, Clone)]
pub(super) struct ModelLine {
    pub(super) minute: ModelField<BTreeSet<u32>>,
    pub(super) hour: ModelField<BTreeSet<u32>>,
    pub(super) month_day: ModelField<Days>,
    pub(super) month: ModelField<BTreeSet<u32>>,
    pub(super) week_day: ModelField<Days>,
}

impl ModelField<BTreeSet<u32>> {
    fn has(&self, number: u32) -> bool {
        self.items.iter().any(|set| set.contains(&number))
    }
}

impl<M> ModelField<M> {
    fn begins_with_star(&self) -> bool {
        self.text.as_bytes()[0] == b'*'
    }
}

impl Days {
    fn has(&self, date: NaiveDate, number: u32) -> bool {
        let month: Vec<NaiveDate> =
            (1..=31).filter_map(|day| NaiveDate::from_ymd_opt(date.year(), date.month(), day)).collect();
        let such: Vec<NaiveDate> =
            month.iter().copied().filter(|other| other.weekday() == date.weekday()).collect();
        let week_day = date.weekday().num_days_from_sunday();
        match self {
            Days::Numbers(set) => set.contains(&number),
            Days::LastDay => month.last() == Some(&date),
            Days::NearestWeekday(day) => {
                *day <= month.len() as u32
                    && month
                        .iter()
                        .filter(|other| other.weekday().number_from_monday() <= 5)
                        .min_by_key(|other| other.day().abs_diff(*day))
                        == Some(&date)
            }
            Days::Occurrence(day, k) => *day == week_day && such.get(*k as usize - 1) == Some(&date),
            Days::LastSuch(day) => *day == week_day && such.last() == Some(&date),
        }
    }
}

impl ModelLine {
    pub(super) fn spec(&self) -> String {
        let Self { minute, hour, month_day, month, week_day } = self;
        [&minute.text, &hour.text, &month_day.text, &month.text, &week_day.text].map(String::as_str).join(" ")
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.minute.begins_with_star() || self.hour.begins_with_star()
    }

    pub(super) fn has_date(&self, date: NaiveDate) -> bool {
        let by_month_day = self.has_month_day(date);
        let by_week_day =
            self.week_day.items.iter().any(|item| item.has(date, date.weekday().num_days_from_sunday()));
        let both = self.month_day.begins_with_star() || self.week_day.begins_with_star();
        self.month.has(date.month())
            && if both { by_month_day && by_week_day } else { by_month_day || by_week_day }
    }

    /// Whether some date has a month and a day of the month that both match, and a date matches at all.
    pub(super) fn ever_comes(&self) -> bool {
        let start = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
        let dates: Vec<NaiveDate> = start.iter_days().take(28 * 366).collect();
        dates.iter().any(|date| self.month.has(date.month()) && self.has_month_day(*date))
            && dates.iter().any(|date| self.has_date(*date))
    }

    fn has_month_day(&self, date: NaiveDate) -> bool {
        self.month_day.items.iter().any(|item| item.has(date, date.day()))
    }

    fn has(&self, wall: NaiveDateTime) -> bool {
        wall.second() == 0
            && self.minute.has(wall.minute())
            && self.hour.has(wall.hour())
            && self.has_date(wall.date())
    }

    /// All fires after `from` and not after `to`, both on full minutes, found by looking at the clock every minute.
    pub(super) fn fires(&self, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let minute = TimeDelta::minutes(1);
        let clock = |at: DateTime<Utc>| zone.from_utc_datetime(&at.naive_utc()).naive_local();
        let mut at = from - TimeDelta::hours(30);
        let mut furthest = clock(at);
        let mut fires = Vec::new();
        while at < to {
            at += minute;
            let wall = clock(at);
            let fires_now = if self.is_wildcard() {
                self.has(wall)
            } else {
                // Whatever the clock shows for the first time now, or has jumped over.
                let mut new = furthest + minute;
                let mut any = false;
                while new <= wall {
                    any |= self.has(new);
                    new += minute;
                }
                any
            };
            furthest = furthest.max(wall);
            if fires_now && at > from {
                fires.push(at);
            }
        }
        fires
    }
}

/// Any number of minutes and hours, days rarely restricted: lines that fire often.
pub(super) fn frequent_line() -> impl Strategy<Value = ModelLine> {
    let star = || Just(ModelField { text: "*".to_owned(), items: vec![(1..=12).collect()] });
    let star_day =
        || Just(ModelField { text: "*".to_owned(), items: vec![Days::Numbers((0..=31).collect())] });
    let month_day = prop_oneof![3 => star_day(), 1 => month_day()];
    let week_day = prop_oneof![3 => star_day(), 1 => week_day()];
    (plain(0, 59, &[]), plain(0, 23, &[]), month_day, star(), week_day).prop_map(
        |(minute, hour, month_day, month, week_day)| ModelLine { minute, hour, month_day, month, week_day },
    )
}

/// Lines with all kinds of days, at midnight.
pub(super) fn midnight_line() -> impl Strategy<Value = ModelLine> {
    let zero = || ModelField { text: "0".to_owned(), items: vec![BTreeSet::from([0])] };
    (month_day(), plain(1, 12, &MONTHS), week_day()).prop_map(move |(month_day, month, week_day)| ModelLine {
        minute: zero(),
        hour: zero(),
        month_day,
        month,
        week_day,
    })
}

const MONTHS: [&str; 12] =
    ["jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEK_DAYS: [&str; 8] = ["sun", "Mon", "TUE", "wed", "thu", "fri", "sat", "7"];

fn month_day() -> impl Strategy<Value = ModelField<Days>> {
    let numbers = plain(1, 31, &[]).prop_map(|field| as_days(field, |number| number));
    let special = prop_oneof![
        Just(("L".to_owned(), Days::LastDay)),
        (1..=31_u32).prop_map(|day| (format!("{day}W"), Days::NearestWeekday(day))),
    ];
    with_special(numbers, special)
}

fn week_day() -> impl Strategy<Value = ModelField<Days>> {
    let numbers = plain(0, 7, &WEEK_DAYS).prop_map(|field| as_days(field, |number| number % 7));
    let special = prop_oneof![
        (0..=7_u32, 1..=5_u32).prop_map(|(day, k)| (format!("{day}#{k}"), Days::Occurrence(day % 7, k))),
        (0..=6_u32).prop_map(|day| (format!("{}L", WEEK_DAYS[day as usize]), Days::LastSuch(day))),
    ];
    with_special(numbers, special)
}

fn as_days(field: ModelField<BTreeSet<u32>>, number: fn(u32) -> u32) -> ModelField<Days> {
    let items =
        field.items.into_iter().map(|set| Days::Numbers(set.into_iter().map(number).collect())).collect();
    ModelField { text: field.text, items }
}

/// The numbers, a special item, or a list of both.
fn with_special(
    numbers: impl Strategy<Value = ModelField<Days>>,
    special: impl Strategy<Value = (String, Days)>,
) -> impl Strategy<Value = ModelField<Days>> {
    (numbers, special, 0..4_u8).prop_map(|(mut field, (text, days), choice)| match choice {
        0 | 1 => field,
        2 => ModelField { text, items: vec![days] },
        _ => {
            field.text = format!("{},{text}", field.text);
            field.items.push(days);
            field
        }
    })
}

/// A list of one to three stars, numbers, ranges and steps.
fn plain(
    first: u32,
    last: u32,
    names: &'static [&'static str],
) -> impl Strategy<Value = ModelField<BTreeSet<u32>>> {
    let spelled = move |number: u32| match names.get((number - first) as usize) {
        Some(name) => (*name).to_owned(),
        None => number.to_string(),
    };
    let item =
        (0..6_u8, first..=last, first..=last, 1..=last - first).prop_map(move |(kind, one, other, step)| {
            let (low, high) = (one.min(other), one.max(other));
            let stepped =
                |low: u32, high: u32| (low..=high).step_by(step as usize).collect::<BTreeSet<u32>>();
            match kind {
                0 => ("*".to_owned(), (first..=last).collect()),
                1 => (format!("*/{step}"), stepped(first, last)),
                2 => (format!("{}-{}", spelled(low), spelled(high)), (low..=high).collect()),
                3 if step <= high - low => {
                    (format!("{}-{}/{step}", spelled(low), spelled(high)), stepped(low, high))
                }
                4 if step <= last - one => (format!("{}/{step}", spelled(one)), stepped(one, last)),
                _ => (spelled(one), BTreeSet::from([one])),
            }
        });
    prop::collection::vec(item, 1..=3).prop_map(|items| {
        let (texts, items): (Vec<String>, Vec<_>) = items.into_iter().unzip();
        ModelField { text: texts.join(","), items }
    })
}
