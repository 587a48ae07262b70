//! Properties over random specs, zones and instants, against the slow model.
//!
//! The seed is fixed: a run is the same everywhere.

use chrono::{DateTime, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

use super::model::{frequent_line, midnight_line};
use super::recurrence::Recurrence;

/// Zones with changes of an hour, half an hour, two hours and a day, at midnight, at noon and twice a year.
const ZONES: [&str; 18] = [
    "UTC",
    "Europe/Paris",
    "Europe/London",
    "Europe/Dublin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
    "Antarctica/Troll",
];

pub(super) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

pub(super) fn zone() -> impl Strategy<Value = Tz> {
    prop::sample::select(&ZONES[..]).prop_map(|name| name.parse().unwrap())
}

/// A full minute from 1975 to 2060.
pub(super) fn minute() -> impl Strategy<Value = DateTime<Utc>> {
    (2_629_440_i64..47_335_680).prop_map(|minutes| DateTime::from_timestamp(minutes * 60, 0).unwrap())
}

/// The next instant, up to a year ahead and to the hour, at which the zone's offset has changed.
pub(super) fn next_change(zone: Tz, from: DateTime<Utc>) -> DateTime<Utc> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    (1..8_784)
        .map(|hours| from + TimeDelta::hours(hours))
        .find(|at| offset(*at) != offset(from))
        .unwrap_or(from)
}

pub(super) fn walk(schedule: &Recurrence, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
    std::iter::successors(schedule.next_after(after), |fire| schedule.next_after(*fire))
}

pub(super) fn parse(spec: &str, zone: Tz) -> Recurrence {
    Recurrence::parse(spec, zone.name(), DateTime::UNIX_EPOCH)
        .unwrap_or_else(|error| panic!("{spec}: {error}"))
}

proptest! {
    #![proptest_config(config(250))]

    /// Every fire matches or stands in for a gap, none is missing, none doubles, wildcard or fixed.
    #[test]
    fn around_a_clock_change_the_fires_are_those_of_the_model(
        line in frequent_line(), zone in zone(), from in minute(), shift in -1_500_i64..60,
    ) {
        prop_assume!(line.ever_comes());
        let schedule = parse(&line.spec(), zone);
        let from = next_change(zone, from) + TimeDelta::minutes(shift);
        let to = from + TimeDelta::hours(28);
        let expected = line.fires(zone, from, to);
        let walked: Vec<_> = walk(&schedule, from).take_while(|fire| *fire <= to).collect();
        prop_assert_eq!(&walked, &expected);

        // Asking at any time in between gives the same answers as walking along.
        for seconds in (0..28 * 3_600).step_by(379) {
            let at = from + TimeDelta::seconds(seconds) + TimeDelta::milliseconds(seconds % 3);
            let next = schedule.next_after(at);
            prop_assert!(next.is_none_or(|next| next > at));
            match expected.iter().find(|fire| **fire > at) {
                Some(fire) => prop_assert_eq!(next, Some(*fire)),
                None => prop_assert!(next.is_none_or(|next| next > to)),
            }
        }
    }

    /// Star rule, steps, names, L, W and # over three years of days, and refusal exactly of what never comes.
    #[test]
    fn the_days_are_those_of_the_model(line in midnight_line(), year in 1_900..9_990_i32) {
        let parsed = Recurrence::parse(&line.spec(), "UTC", DateTime::UNIX_EPOCH);
        prop_assert_eq!(parsed.is_ok(), line.ever_comes(), "{}", line.spec());
        if let Ok(schedule) = parsed {
            let start = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
            let expected: Vec<_> = start.iter_days().take(1_096).filter(|date| line.has_date(*date)).collect();
            let from = start.and_hms_opt(0, 0, 0).unwrap().and_utc();
            let until = from + TimeDelta::days(1_096);
            let walked: Vec<_> = walk(&schedule, from - TimeDelta::seconds(1))
                .take_while(|fire| *fire < until)
                .map(|fire| fire.date_naive())
                .collect();
            prop_assert_eq!(walked, expected);
        }
    }

    #[test]
    fn fires_increase_and_asking_anywhere_equals_walking(
        line in frequent_line(), zone in zone(), from in minute(), part in 0..1_000_u32,
    ) {
        prop_assume!(line.ever_comes());
        let schedule = parse(&line.spec(), zone);
        let mut before = from;
        for fire in walk(&schedule, from).take(60) {
            prop_assert!(fire > before);
            prop_assert_eq!(schedule.next_after(before + (fire - before) * part as i32 / 1_000), Some(fire));
            prop_assert_eq!(schedule.next_from(fire), Some(fire));
            before = fire;
        }
    }

    #[test]
    fn a_preview_is_the_steps_one_by_one(line in frequent_line(), zone in zone(), from in minute(), count in 0..40_usize) {
        prop_assume!(line.ever_comes());
        let schedule = parse(&line.spec(), zone);
        let shown: Vec<DateTime<Utc>> =
            schedule.preview(from, count).iter().map(|fire| fire.utc.parse().unwrap()).collect();
        prop_assert_eq!(shown, walk(&schedule, from).take(count).collect::<Vec<_>>());
    }

    #[test]
    fn without_clock_changes_the_result_is_utc_shifted(line in frequent_line(), from in minute()) {
        prop_assume!(line.ever_comes());
        let in_utc = parse(&line.spec(), Tz::UTC);
        for (name, minutes) in [("Etc/GMT-5", 300), ("Asia/Kolkata", 330), ("America/Phoenix", -420)] {
            let offset = TimeDelta::minutes(minutes);
            let here = parse(&line.spec(), name.parse().unwrap()).next_after(from);
            prop_assert_eq!(here, in_utc.next_after(from + offset).map(|fire| fire - offset));
        }
    }

    #[test]
    fn an_interval_keeps_its_grid(number in 1..5_000_i64, anchor in minute(), after in minute(), micros in 0..7_i64) {
        let anchor = anchor + TimeDelta::microseconds(micros);
        let schedule = Recurrence::parse(&format!("every {number} minutes"), "UTC", anchor).unwrap();
        let next = schedule.next_after(after).unwrap();
        prop_assert_eq!((next - anchor).num_microseconds().unwrap() % (number * 60_000_000), 0);
        prop_assert!(next > after && next >= anchor);
        prop_assert!(next == anchor || next - TimeDelta::minutes(number) <= after);
    }

    #[test]
    fn no_text_makes_it_panic(
        spec in prop_oneof![
            any::<String>(),
            "[-*/,0-9LW#?H@a-z \t]{0,24}",
            "[*0-9]{1,2}([-/,][0-9]{1,2})? [*0-9]{1,2} [0-9LW*,]{1,4} [a-z0-9*]{1,3} [0-9L#a-z*]{1,4}",
            "(every|at) [0-9TZ:+ a-z-]{0,24}",
        ],
        from in minute(),
    ) {
        match Recurrence::parse(&spec, "Europe/Paris", from) {
            Ok(schedule) => prop_assert!(schedule.next_after(from).is_none_or(|next| next > from)),
            Err(refusal) => prop_assert!(!refusal.to_string().contains('\n')),
        }
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn an_hourly_wildcard_has_as_many_fires_in_a_year_as_the_year_has_hours(zone in zone(), from in minute()) {
        let until = from + TimeDelta::days(365);
        let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
        let whole_hours = (0..=365).all(|day| (offset(from + TimeDelta::days(day)) - offset(from)) % 3_600 == 0);
        prop_assume!(whole_hours);
        let schedule = parse("@hourly", zone);
        prop_assert_eq!(walk(&schedule, from).take_while(|fire| *fire <= until).count(), 365 * 24);
    }

    /// Exactly one fire per nominal wall time of a year, those of one gap merged.
    #[test]
    fn a_fixed_schedule_fires_once_per_nominal_time(
        zone in zone(), year in 1_975..2_060_i32,
        hours in prop::collection::btree_set(0..24_u32, 1..4), minutes in prop::collection::btree_set(0..60_u32, 1..4),
    ) {
        let listed = |numbers: &std::collections::BTreeSet<u32>| {
            numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        };
        let schedule = parse(&format!("{} {} * * *", listed(&minutes), listed(&hours)), zone);
        let first_instant = |nominal: chrono::NaiveDateTime| {
            (0..3_000)
                .find_map(|late| zone.from_local_datetime(&(nominal + TimeDelta::minutes(late))).earliest())
                .unwrap()
                .to_utc()
        };
        let start = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
        let mut expected: Vec<_> = start
            .iter_days()
            .take(365)
            .flat_map(|date| hours.iter().map(move |hour| (date, *hour)))
            .flat_map(|(date, hour)| minutes.iter().map(move |minute| date.and_hms_opt(hour, *minute, 0).unwrap()))
            .map(first_instant)
            .collect();
        expected.dedup();
        let from = first_instant(start.and_hms_opt(0, 0, 0).unwrap()) - TimeDelta::seconds(1);
        prop_assert_eq!(walk(&schedule, from).take(expected.len()).collect::<Vec<_>>(), expected);
    }
}
