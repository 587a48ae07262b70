//! What to write instead of a refused piece of a crontab line.
//!
//! Only words: nothing here decides whether a spec is accepted. Most of what people write comes from another
//! cron, so the other dialects' spellings are recognised and answered with ours.

use super::field::Field;

/// The list without its empty items.
pub(crate) fn without_empty_items(text: &str) -> Option<String> {
    let items: Vec<&str> = text.split(',').filter(|item| !item.is_empty()).collect();
    Some(if items.is_empty() {
        "`*` stands for every value".to_owned()
    } else {
        format!("write `{}`", items.join(","))
    })
}

/// For a number beyond the field's bounds.
pub(crate) fn out_of_range(field: Field, text: &str) -> Option<String> {
    let hint = match (field, text) {
        _ if text.len() == 4 && !text.starts_with('0') => {
            "there is no year field; for one date write `at 2027-01-31 09:00`"
        }
        (Field::Second | Field::Minute, "60") | (Field::Hour, "24") => "write `0`",
        (Field::Second | Field::Minute | Field::Hour, _) => return None,
        (Field::DayOfMonth, "0") => "the first day is `1`, the last day is `L`",
        (Field::DayOfMonth, _) => "the last day of every month is `L`",
        (Field::Month, _) => "months are `1`-`12` or `jan`-`dec`",
        (Field::DayOfWeek, _) => "Monday is `1`, Sunday is `0` or `7`, or write `sun`-`sat`",
    };
    Some(hint.to_owned())
}

/// For a step that never reaches a second value of its range.
pub(crate) fn wide_step(field: Field, range: &str, from: u32, step: u32) -> Option<String> {
    let unit = match field {
        Field::Second => "seconds",
        Field::Minute => "minutes",
        Field::Hour => "hours",
        Field::DayOfMonth | Field::DayOfWeek => "days",
        Field::Month => return Some(format!("a step starts afresh every year; write `{from}`")),
    };
    Some(if range.contains('-') {
        format!("write `{from}` if only the start is meant")
    } else {
        format!("a step starts afresh with every larger unit; write `every {step} {unit}`, or `{from}`")
    })
}

/// For a backward range: the list that was probably meant.
pub(crate) fn unrolled(field: Field, range: &str, from: u32, to: u32, step: u32) -> Option<String> {
    const LONGEST: usize = 8;
    let (first, last) = field.bounds();
    let mut turn = last;
    if field == Field::DayOfWeek {
        if from == 7 {
            return Some(format!("write `0-{to}`"));
        }
        if to == 0 {
            return Some(format!("write `{from}-7`"));
        }
        turn = 6;
    }
    let numbers: Vec<u32> = (from..=turn).chain(first..=to).step_by(step as usize).collect();
    if numbers.len() > LONGEST {
        let restart = numbers.iter().copied().find(|number| *number < from)?;
        let suffix = if step == 1 { String::new() } else { format!("/{step}") };
        return Some(format!("write `{from}-{turn}{suffix},{restart}-{to}{suffix}`"));
    }
    let named = range.bytes().any(|byte| byte.is_ascii_alphabetic());
    let spelled: Vec<String> = numbers
        .into_iter()
        .map(|number| match field.names().get((number - first) as usize) {
            Some(name) if named => (*name).to_owned(),
            _ => number.to_string(),
        })
        .collect();
    Some(format!("write `{}`", spelled.join(",")))
}

/// For an item that is no value, range or step: what other dialects mean by it, said in ours.
pub(crate) fn instead_of(field: Field, item: &str) -> Option<String> {
    let upper = item.to_ascii_uppercase();
    if upper.starts_with("TZ=") || upper.starts_with("CRON_TZ=") {
        return Some("leave it away; the time zone is a column of its own".to_owned());
    }
    if upper == "?" {
        return Some("write `*`".to_owned());
    }
    if let Some(rest) = upper.strip_prefix('H') {
        if let Some(step) = rest.strip_prefix('/') {
            return Some(format!("nothing is chosen by hash; write `*/{step}`"));
        }
        if rest.is_empty() || rest.starts_with('(') {
            return Some("nothing is chosen by hash; write a number".to_owned());
        }
    }
    if let Some(hint) = full_name(field, item) {
        return Some(hint);
    }
    match field {
        Field::DayOfMonth => instead_of_day(&upper),
        Field::DayOfWeek => instead_of_weekday(&upper),
        _ => None,
    }
    .or_else(|| misplaced(field, &upper))
}

/// `monday`, `sept` and the like.
fn full_name(field: Field, item: &str) -> Option<String> {
    let mut shortened = false;
    let ends: Vec<&str> = item
        .split('-')
        .map(|end| match end.get(..3) {
            Some(short) if end.len() > 3 && end.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                shortened = true;
                short
            }
            _ => end,
        })
        .collect();
    let known = ends.iter().all(|end| {
        end.bytes().all(|byte| byte.is_ascii_digit())
            || field.names().iter().any(|name| name.eq_ignore_ascii_case(end))
    });
    (shortened && known).then(|| format!("write `{}`", ends.join("-").to_ascii_lowercase()))
}

fn instead_of_day(upper: &str) -> Option<String> {
    let hint = match upper {
        "LW" | "WL" => {
            "the last working day has no spelling here; `L` is the last day, and `5L` as day of week is the \
             last Friday"
        }
        "$" => "write `L` for the last day",
        "W" => "write a day before it: `15W` is the weekday nearest to the 15th",
        _ if upper.starts_with("L-") => {
            "days are not counted from the end; write `L` for the last day, or a number"
        }
        _ if upper.ends_with('W') => "`W` follows a single day: `1W,15W`",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn instead_of_weekday(upper: &str) -> Option<String> {
    if let Some(day) = upper.strip_suffix("#L").or_else(|| upper.strip_prefix('L'))
        && !day.is_empty()
        && day.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Some(format!("write `{day}L` for the last such day of the month"));
    }
    if upper == "L" {
        return Some("write a weekday before it: `5L` is the last Friday of the month".to_owned());
    }
    if upper.contains('#') {
        return Some(
            "`n#k` takes one weekday and a number: `1#2` is the second Monday of the month".to_owned(),
        );
    }
    upper.ends_with('L').then(|| "`L` follows a single weekday: `5L,6L`".to_owned())
}

/// Items that would be fine in another field.
fn misplaced(field: Field, upper: &str) -> Option<String> {
    let belongs = |other: Field| Some(format!("it belongs to the {other} field"));
    let starts_with_name =
        |other: Field| other.names().iter().any(|name| upper.starts_with(&name.to_ascii_uppercase()));
    let digit_first = upper.starts_with(|first: char| first.is_ascii_digit());
    for other in [Field::Month, Field::DayOfWeek] {
        if field != other && starts_with_name(other) {
            return belongs(other);
        }
    }
    if field != Field::DayOfMonth && (upper == "L" || (digit_first && upper.ends_with('W'))) {
        return belongs(Field::DayOfMonth);
    }
    if field != Field::DayOfWeek && digit_first && (upper.contains('#') || upper.ends_with('L')) {
        return belongs(Field::DayOfWeek);
    }
    None
}
