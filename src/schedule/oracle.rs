//! Another crate's opinion: `croner`, where its language and its rules are ours.
//!
//! They are not where a day field begins with `*` and goes on, where it refuses what we read (`5/20`), and when clocks change for a
//! fixed schedule of several times, which it takes for a wildcard.

use chrono::{DateTime, TimeDelta};
use chrono_tz::Tz;
use croner::parser::CronParser;
use proptest::prelude::*;

use super::model::{ModelLine, frequent_line, midnight_line};
use super::properties::{config, minute, next_change, parse, walk, zone};

/// Croner's reading, unless it differs by design.
fn croner(line: &ModelLine) -> Option<croner::Cron> {
    let plain = |text: &str| text == "*" || !text.starts_with('*') && !text.contains(",*");
    let same = plain(&line.month_day.text) && plain(&line.week_day.text);
    let parser = CronParser::builder().build();
    parser.parse(&line.spec()).ok().filter(|_| same && line.ever_comes())
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn days_are_those_of_croner(line in midnight_line(), from in minute()) {
        let Some(other) = croner(&line) else { return Ok(()) };
        let schedule = parse(&line.spec(), Tz::UTC);
        let theirs: Vec<_> = other.iter_after(from).take(10).collect();
        prop_assert_eq!(walk(&schedule, from).take(theirs.len()).collect::<Vec<_>>(), theirs, "{}", line.spec());
    }

    #[test]
    fn a_wildcard_around_a_clock_change_is_croners(
        line in frequent_line(), zone in zone(), from in minute(), shift in -1_500_i64..60,
    ) {
        let Some(other) = croner(&line).filter(|_| line.is_wildcard()) else { return Ok(()) };
        let from = next_change(zone, from) + TimeDelta::minutes(shift);
        let schedule = parse(&line.spec(), zone);
        let theirs: Vec<DateTime<_>> = other.iter_after(from.with_timezone(&zone)).take(20).map(|at| at.to_utc()).collect();
        prop_assert_eq!(walk(&schedule, from).take(theirs.len()).collect::<Vec<_>>(), theirs, "{} in {}", line.spec(), zone);
    }

    #[test]
    fn a_daily_fire_around_a_clock_change_is_croners(
        hour in 0..24_u32, minute_of in 0..60_u32, zone in zone(), from in minute(),
    ) {
        let spec = format!("{minute_of} {hour} * * *");
        let from = next_change(zone, from) - TimeDelta::hours(30);
        let other: croner::Cron = spec.parse().unwrap();
        let theirs: Vec<DateTime<_>> = other.iter_after(from.with_timezone(&zone)).take(4).map(|at| at.to_utc()).collect();
        prop_assert_eq!(walk(&parse(&spec, zone), from).take(4).collect::<Vec<_>>(), theirs, "{} in {}", spec, zone);
    }
}
