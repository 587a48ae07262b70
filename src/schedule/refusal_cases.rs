//! What is refused, and the words it is refused with: the field, the offending text, what to write instead.

use chrono::{DateTime, Utc};

use super::recurrence::Recurrence;
use super::refusal::SpecError;

/// Spec, message, hint; an empty hint stands for none.
type Case = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const REFUSED: &[Case] = &[
    // Case 36 and the rest of the values out of range.
    ("0 24 * * *", "hour: `24` is out of range 0-23", "write `0`"),
    ("60 * * * *", "minute: `60` is out of range 0-59", "write `0`"),
    ("0 0 0 * *", "day of month: `0` is out of range 1-31", "the first day is `1`, the last day is `L`"),
    ("0 0 32 * *", "day of month: `32` is out of range 1-31", "the last day of every month is `L`"),
    ("0 0 * 13 *", "month: `13` is out of range 1-12", "months are `1`-`12` or `jan`-`dec`"),
    ("0 0 * 0 *", "month: `0` is out of range 1-12", "months are `1`-`12` or `jan`-`dec`"),
    ("0 0 * * 8", "day of week: `8` is out of range 0-7", "Monday is `1`, Sunday is `0` or `7`, or write `sun`-`sat`"),
    ("61 0 0 * * *", "second: `61` is out of range 0-59", ""),
    ("0 20-24 * * *", "hour: `24` is out of range 0-23", "write `0`"),
    ("99999999999999999999 * * * *", "minute: `99999999999999999999` is out of range 0-59", ""),
    ("0 0 0W * *", "day of month: `0` is out of range 1-31", "the first day is `1`, the last day is `L`"),
    ("0 0 * * 8#1", "day of week: `8` is out of range 0-7", "Monday is `1`, Sunday is `0` or `7`, or write `sun`-`sat`"),
    ("0 0 * * 5#0", "day of week: `5#0` counts beyond 1-5", "the first is `5#1`, the last of every month is `5L`"),
    ("0 0 * * fri#6", "day of week: `fri#6` counts beyond 1-5", "the first is `fri#1`, the last of every month is `friL`"),
    // Steps. Case 33.
    ("*/0 * * * *", "minute: `*/0` has a step of 0", "a step is at least 1"),
    ("*/90 * * * *", "minute: `*/90` has a step wider than its range 0-59",
        "a step starts afresh with every larger unit; write `every 90 minutes`, or `0`"),
    ("0 */24 * * *", "hour: `*/24` has a step wider than its range 0-23",
        "a step starts afresh with every larger unit; write `every 24 hours`, or `0`"),
    ("50/10 * * * *", "minute: `50/10` has a step wider than its range 50-59",
        "a step starts afresh with every larger unit; write `every 10 minutes`, or `50`"),
    ("0 9-17/9 * * *", "hour: `9-17/9` has a step wider than its range 9-17", "write `9` if only the start is meant"),
    ("0 0 * */12 *", "month: `*/12` has a step wider than its range 1-12", "a step starts afresh every year; write `1`"),
    ("*/x * * * *", "minute: `*/x` is not understood", ""),
    ("*/ * * * *", "minute: `*/` is not understood", ""),
    ("*/5/5 * * * *", "minute: `*/5/5` is not understood", ""),
    ("*/-5 * * * *", "minute: `*/-5` is not understood", ""),
    // Lists and ranges. Case 28.
    ("1,,2 * * * *", "minute: `1,,2` has an empty list item", "write `1,2`"),
    ("0 ,9 * * *", "hour: `,9` has an empty list item", "write `9`"),
    ("0 0 , * *", "day of month: `,` has an empty list item", "`*` stands for every value"),
    ("0 0 * * fri-mon", "day of week: `fri-mon` is a backward range", "write `fri,sat,sun,mon`"),
    ("0 0 * * 6-2", "day of week: `6-2` is a backward range", "write `6,0,1,2`"),
    ("0 0 * * 5-0", "day of week: `5-0` is a backward range", "write `5-7`"),
    ("0 0 * * 7-3", "day of week: `7-3` is a backward range", "write `0-3`"),
    ("0 22-2 * * *", "hour: `22-2` is a backward range", "write `22,23,0,1,2`"),
    ("0 22-3/2 * * *", "hour: `22-3/2` is a backward range", "write `22,0,2`"),
    ("50-10 * * * *", "minute: `50-10` is a backward range", "write `50-59,0-10`"),
    ("0 0 25-5 * *", "day of month: `25-5` is a backward range", "write `25-31,1-5`"),
    ("0 0 * NOV-feb *", "month: `NOV-feb` is a backward range", "write `nov,dec,jan,feb`"),
    ("5- * * * *", "minute: `5-` is not understood", ""),
    ("-5 * * * *", "minute: `-5` is not understood", ""),
    ("+5 * * * *", "minute: `+5` is not understood", ""),
    ("** * * * *", "minute: `**` is not understood", ""),
    ("1.5 * * * *", "minute: `1.5` is not understood", ""),
    ("٣ * * * *", "minute: `٣` is not understood", ""),
    // Days that never come. Case 17.
    ("0 0 30 2 *", "day of month: `30` never occurs in month `2`", "write days that the month has; `L` is its last day"),
    ("0 0 31 4,6,9,11 *", "day of month: `31` never occurs in month `4,6,9,11`",
        "write days that the month has; `L` is its last day"),
    ("0 0 30W feb *", "day of month: `30W` never occurs in month `feb`", "write days that the month has; `L` is its last day"),
    ("0 0 30 2 1", "day of month: `30` never occurs in month `2`",
        "write days that the month has, or `*` if the day of week alone decides"),
    ("0 0 15W * */7", "day of month: `15W` never falls on day of week `*/7` in month `*`",
        "a day has to match both fields if one of them begins with `*`; list the days to match either"),
    // Other dialects.
    ("0 0 ? * 1", "day of month: `?` is not understood", "write `*`"),
    ("0 0 * * ?", "day of week: `?` is not understood", "write `*`"),
    ("0 0 LW * *", "day of month: `LW` is not understood",
        "the last working day has no spelling here; `L` is the last day, and `5L` as day of week is the last Friday"),
    ("0 0 L-3 * *", "day of month: `L-3` is not understood",
        "days are not counted from the end; write `L` for the last day, or a number"),
    ("0 0 $ * *", "day of month: `$` is not understood", "write `L` for the last day"),
    ("0 0 1-5W * *", "day of month: `1-5W` is not understood", "`W` follows a single day: `1W,15W`"),
    ("0 0 W * *", "day of month: `W` is not understood", "write a day before it: `15W` is the weekday nearest to the 15th"),
    ("0 0 * * 5#L", "day of week: `5#L` is not understood", "write `5L` for the last such day of the month"),
    ("0 0 * * L5", "day of week: `L5` is not understood", "write `5L` for the last such day of the month"),
    ("0 0 * * L", "day of week: `L` is not understood", "write a weekday before it: `5L` is the last Friday of the month"),
    ("0 0 * * 1-5#2", "day of week: `1-5#2` is not understood",
        "`n#k` takes one weekday and a number: `1#2` is the second Monday of the month"),
    ("0 0 * * 1-5L", "day of week: `1-5L` is not understood", "`L` follows a single weekday: `5L,6L`"),
    ("0 0 5L * *", "day of month: `5L` is not understood", "it belongs to the day of week field"),
    ("0 0 * * 15W", "day of week: `15W` is not understood", "it belongs to the day of month field"),
    ("0 L * * *", "hour: `L` is not understood", "it belongs to the day of month field"),
    ("0 0 5#3 * *", "day of month: `5#3` is not understood", "it belongs to the day of week field"),
    ("0 0 mon * *", "day of month: `mon` is not understood", "it belongs to the day of week field"),
    ("0 0 * * jan", "day of week: `jan` is not understood", "it belongs to the month field"),
    ("0 0 * * Monday", "day of week: `Monday` is not understood", "write `mon`"),
    ("0 0 * * monday-friday", "day of week: `monday-friday` is not understood", "write `mon-fri`"),
    ("0 0 * September *", "month: `September` is not understood", "write `sep`"),
    ("H * * * *", "minute: `H` is not understood", "nothing is chosen by hash; write a number"),
    ("H/15 * * * *", "minute: `H/15` is not understood", "nothing is chosen by hash; write `*/15`"),
    ("0 H(0-7) * * *", "hour: `H(0-7)` is not understood", "nothing is chosen by hash; write a number"),
    ("CRON_TZ=Europe/Paris 0 9 * * *", "second: `CRON_TZ=Europe/Paris` is not understood",
        "leave it away; the time zone is a column of its own"),
    ("@reboot", "alias: `@reboot` is unknown", "a start of the daemon is no time; write when it should run"),
    ("@every 1h30m", "alias: `@every 1h30m` is unknown", "write `every 90 minutes`"),
    ("@every 1h", "alias: `@every 1h` is unknown", "write `every 1 hour`"),
    ("@every 1.5h", "alias: `@every 1.5h` is unknown", "write `every 15 minutes`"),
    ("@fortnightly", "alias: `@fortnightly` is unknown",
        "the aliases are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"),
    // The number of fields; a year field.
    ("0 0 0 1 1 * 2027", "fields: `0 0 0 1 1 * 2027` has 7, a crontab line has 5, or 6 with leading seconds",
        "there is no year field; for one date write `at 2027-01-31 09:00`"),
    ("0 0 1 1 * 2027", "day of week: `2027` is out of range 0-7",
        "there is no year field; for one date write `at 2027-01-31 09:00`"),
    ("******", "fields: `******` has 1, a crontab line has 5, or 6 with leading seconds",
        "separate the fields by blanks: `0 9 * * mon-fri`"),
    ("hourly", "fields: `hourly` has 1, a crontab line has 5, or 6 with leading seconds", "write `@hourly`"),
    ("0 9 * *", "fields: `0 9 * *` has 4, a crontab line has 5, or 6 with leading seconds",
        "write minute, hour, day of month, month, day of week: `0 9 * * mon-fri`"),
    ("  \t ", "spec: empty", "for example `0 9 * * mon-fri`, `@daily` or `every 15 minutes`"),
    ("0 9 * * 1\n", "day of week: `1\\n` is not understood", ""),
    // Intervals.
    ("every 0 minutes", "interval: `0` is no interval", "the shortest one is `every 1 second`"),
    ("every", "interval: `every` has neither a number nor a unit", "write `every 15 minutes`"),
    ("every day", "interval: `day` is not a number and a unit", "write `every 1 day`"),
    ("every 15m", "interval: `15m` is not a number and a unit", "write `every 15 minutes`"),
    ("every 15 min", "interval: `min` is not a unit", "write `every 15 minutes`"),
    ("every 2 months", "interval: `months` is not a unit", "months differ in length; write `@monthly` or `0 0 1 * *`"),
    ("every 1 year", "interval: `year` is not a unit", "years differ in length; write `@yearly` or `0 0 1 1 *`"),
    ("every 3 moons", "interval: `moons` is not a unit",
        "the units are seconds, minutes, hours, days and weeks: `every 15 minutes`"),
    ("every 1.5 hours", "interval: `1.5` is not a whole number",
        "write a whole number, in a smaller unit if need be: `every 90 minutes`"),
    ("every -5 minutes", "interval: `-5` is not a whole number",
        "write a whole number, in a smaller unit if need be: `every 90 minutes`"),
    ("every 1 hour 30 minutes", "interval: `1 hour 30 minutes` has too many words",
        "write one number and one unit: `every 90 minutes`"),
    ("every 9223372036854775807 weeks", "interval: `9223372036854775807` is too long",
        "an interval is a century at most; for one time write `at 2027-01-31 09:00`"),
    ("every 99999999999999999999 days", "interval: `99999999999999999999` is too long",
        "an interval is a century at most; for one time write `at 2027-01-31 09:00`"),
    // Moments.
    ("at tomorrow", "moment: `tomorrow` does not begin with a date", "write `at 2027-01-31 09:00`"),
    ("at 2027-1-31 09:00", "moment: `2027-1-31 09:00` does not begin with a date", "write `at 2027-01-31 09:00`"),
    ("at 2027-02-29 09:00", "moment: `2027-02-29` is not in the calendar", "write year, month and day: `2027-01-31`"),
    ("at 2027-01-31", "moment: `2027-01-31` has no time of day", "write `at 2027-01-31 00:00` for midnight"),
    ("at 2027-01-31 24:00", "moment: `24:00` is not a time of day", "the last one is 23:59:59; midnight is 00:00"),
    ("at 2027-01-31 23:59:60", "moment: `23:59:60` is not a time of day", "the last one is 23:59:59; midnight is 00:00"),
    ("at 2027-01-31 9:00", "moment: `9:00` is not a time of day",
        "write two digits each, 09:00 or 09:00:30; a time zone's name has a column of its own"),
    ("at 2027-01-31 09:00 Europe/Paris", "moment: `09:00 Europe/Paris` is not a time of day",
        "write two digits each, 09:00 or 09:00:30; a time zone's name has a column of its own"),
    ("at 2027-01-31 09:00+25:00", "moment: `+25:00` is not an offset",
        "write `Z` or hours and minutes such as `+01:00`; a time zone's name has a column of its own"),
    ("at 2027-01-31 09:00Z05:00", "moment: `Z05:00` is not an offset",
        "write `Z` or hours and minutes such as `+01:00`; a time zone's name has a column of its own"),
    ("at 2027-01-31 09:00Zulu", "moment: `Zulu` is not an offset",
        "write `Z` or hours and minutes such as `+01:00`; a time zone's name has a column of its own"),
];

fn refusal(spec: &str, zone: &str) -> SpecError {
    Recurrence::parse(spec, zone, DateTime::<Utc>::UNIX_EPOCH).map(|_| ()).expect_err(spec)
}

#[test]
fn a_refusal_names_the_field_and_the_text_and_says_what_to_write_instead() {
    for (spec, message, hint) in REFUSED {
        let refusal = refusal(spec, "Europe/Paris");
        assert_eq!(
            (refusal.to_string().as_str(), refusal.hint().unwrap_or_default().as_str()),
            (*message, *hint)
        );
    }
}

#[test]
fn an_unknown_zone_is_refused_for_every_form() {
    for spec in ["0 9 * * *", "every 15 minutes", "at 2027-01-31 09:00Z"] {
        let refusal = refusal(spec, "Europe/Pariss");
        assert_eq!(refusal.to_string(), "time zone: `Europe/Pariss` is unknown");
        assert_eq!(refusal.hint().as_deref(), Some("did you mean `Europe/Paris`?"));
    }
    assert_eq!(refusal("@daily", "europe/paris").hint().as_deref(), Some("did you mean `Europe/Paris`?"));
    for offset in ["+02:00", "", "local time of the office"] {
        let hint = refusal("@daily", offset).hint();
        assert_eq!(hint.as_deref(), Some("write an IANA name such as `Europe/Paris`, or `UTC`"), "{offset}");
    }
}

#[test]
fn a_refusal_is_one_line_of_bounded_length() {
    for spec in ["x".repeat(5_000), "\r\n\u{7f}\u{202e}".to_owned(), "0\n9\n*\n*\n*".to_owned()] {
        let refusal = refusal(&spec, "UTC").to_string();
        assert!(refusal.len() < 400 && !refusal.contains(['\n', '\r', '\u{202e}']), "{refusal}");
    }
}
