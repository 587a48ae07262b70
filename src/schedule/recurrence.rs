//! When a schedule fires: a spec of any form together with its time zone and its anchor.
//!
//! The one place where next fires are computed. Stateless: the answer depends on the question alone, so the following
//! fire is found from the nominal time of the last one, whenever that one really ran.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::Serialize;

use super::clock::{self, Fire, Passage};
use super::crontab::{BLANKS, Crontab};
use super::interval::Interval;
use super::moment;
use super::refusal::SpecError;

/// The release of the IANA zone data compiled into the daemon, such as `2025b`.
pub const ZONE_DATA_VERSION: &str = chrono_tz::IANA_TZDB_VERSION;

/// A spec that has been read, in its time zone.
#[derive(Debug, Clone)]
pub struct Recurrence {
    zone: Tz,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Crontab(Crontab),
    Every(Interval),
    At(Fire),
}

/// A fire to come, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedFire {
    /// The instant, such as `2026-10-25T00:00:00Z`.
    pub utc: String,
    /// What the clock of the schedule's zone shows, such as `2026-10-25 02:00:00 CEST`.
    pub local: String,
    /// What a clock change has to do with this fire.
    pub note: Option<String>,
}

impl Recurrence {
    /// Reads `m h dom mon dow`, `s m h dom mon dow`, an alias such as `@daily`, `every 15 minutes` or
    /// `at 2027-01-31 09:00[:ss][Z|+hh:mm]`. The anchor is fire 0 of an interval and does not matter otherwise.
    pub fn parse(spec: &str, time_zone: &str, anchor: DateTime<Utc>) -> Result<Self, SpecError> {
        let zone = parse_zone(time_zone)?;
        let spec = spec.trim_matches(BLANKS);
        let (word, rest) = spec.split_once(BLANKS).unwrap_or((spec, ""));
        let form = if word.eq_ignore_ascii_case("every") {
            Form::Every(Interval::parse(rest, anchor)?)
        } else if word.eq_ignore_ascii_case("at") {
            Form::At(moment::parse(rest, zone)?)
        } else {
            Form::Crontab(Crontab::parse(spec)?)
        };
        Ok(Recurrence { zone, form })
    }

    /// The first fire strictly after `after`; none once an `at` is over. A crontab line ends with the year 9999.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.next_fire(after).map(|fire| fire.at)
    }

    /// The first fire that is not before `from`.
    #[must_use]
    pub fn next_from(&self, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.next_after(from.checked_sub_signed(TimeDelta::nanoseconds(1)).unwrap_or(from))
    }

    /// The next `count` fires after `after`, fewer if there are no more.
    #[must_use]
    pub fn preview(&self, after: DateTime<Utc>, count: usize) -> Vec<PlannedFire> {
        std::iter::successors(self.next_fire(after), |fire| self.next_fire(fire.at))
            .take(count)
            .map(|fire| PlannedFire {
                utc: fire.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                local: fire.at.with_timezone(&self.zone).format("%Y-%m-%d %H:%M:%S %Z").to_string(),
                note: self.note(fire),
            })
            .collect()
    }

    fn next_fire(&self, after: DateTime<Utc>) -> Option<Fire> {
        match &self.form {
            Form::Every(interval) => {
                interval.next_after(after).map(|at| Fire { at, passage: Passage::Plain })
            }
            Form::At(fire) => (fire.at > after).then_some(*fire),
            Form::Crontab(crontab) if crontab.is_wildcard() => {
                clock::next_wildcard(crontab, self.zone, after)
            }
            Form::Crontab(crontab) => clock::next_fixed(crontab, self.zone, after),
        }
    }

    fn note(&self, fire: Fire) -> Option<String> {
        let clock = clock::wall_time(self.zone, fire.at).map(time_of_day)?;
        match fire.passage {
            Passage::Plain => None,
            Passage::Substitute { nominal } => Some(format!(
                "{} {} does not exist, the clocks go forward; fires once, at the first instant after the gap",
                nominal.date(),
                time_of_day(nominal)
            )),
            Passage::FirstPassOnly => {
                Some(format!("{clock} comes twice, the clocks go back; fires in the first pass only"))
            }
            Passage::FirstPass => Some(format!("{clock} comes twice, the clocks go back; first pass")),
            Passage::SecondPass => Some(format!("{clock} comes twice, the clocks go back; second pass")),
        }
    }
}

/// A zone by its IANA name, never a fixed offset.
fn parse_zone(name: &str) -> Result<Tz, SpecError> {
    name.parse().map_err(|_| {
        let wanted = name.to_ascii_lowercase();
        let nearest = TZ_VARIANTS
            .iter()
            .map(|zone| (strsim::jaro_winkler(&wanted, &zone.name().to_ascii_lowercase()), zone.name()))
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        let hint = match nearest {
            Some((similarity, zone)) if similarity >= 0.85 => format!("did you mean `{zone}`?"),
            _ => "write an IANA name such as `Europe/Paris`, or `UTC`".to_owned(),
        };
        SpecError::TimeZone { text: name.to_owned(), hint }
    })
}

/// With seconds only where there are any.
fn time_of_day(wall: NaiveDateTime) -> String {
    wall.format(if wall.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}
