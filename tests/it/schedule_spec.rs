//! Specs as the database refuses them: the same ones as the daemon's parser, which alone computes times.

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rowbeat::schedule::recurrence::Recurrence;

use crate::harness::TestDb;

/// An item of a field: right, wrong, or of another dialect.
fn item() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..32_u32).prop_map(|n| n.to_string()),
        1 => (0..100_u32).prop_map(|n| format!("{n:03}")),
        4 => Just("*".to_owned()),
        3 => (0..14_u32, 0..32_u32).prop_map(|(from, to)| format!("{from}-{to}")),
        3 => (0..70_u32).prop_map(|step| format!("*/{step}")),
        2 => (0..40_u32, 0..32_u32, 0..9_u32).prop_map(|(from, to, step)| format!("{from}-{to}/{step}")),
        2 => (0..62_u32, 0..32_u32).prop_map(|(from, step)| format!("{from}/{step}")),
        3 => "(mon|Tue|WED|sun|jan|Feb|DEC|sept|Monday)(-(fri|SUN|Jan|oct|7|0))?(/[0-3])?",
        3 => "(L|l|LW|W|15W|31w|30W|0W|2W|L-3|5#L|5#3|sun#[0-6]|7#1|1-5#2|5L|MONl|L5|0L|H|H/5|[?]|[$])",
        1 => "[-*/,0-9LWl#?a-z]{0,5}",
    ]
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just("*".to_owned()),
        5 => item(),
        2 => prop::collection::vec(item(), 2..4).prop_map(|items| items.join(",")),
    ]
}

/// Fields that are mostly right, so that the days decide.
fn days() -> impl Strategy<Value = String> {
    (
        "(\\*|\\*/[1-9]|\\*,5|[1-9]|29|30|31|30,31|31W|29W|L|2-30/28)",
        "(\\*|2|feb|4,6|4,6,9,11|[1-9]|2,4)",
        "(\\*|\\*/[1-7]|[0-7]|mon|[0-6]#5|[0-6]#1|[0-6]L|\\*,1)",
    )
        .prop_map(|(day, month, week_day)| format!("0 0 {day} {month} {week_day}"))
}

fn spec() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::collection::vec(field(), 5).prop_map(|fields| fields.join(" ")),
        2 => prop::collection::vec(field(), 4..8).prop_map(|fields| fields.join("\t ")),
        4 => days(),
        1 => "[ \t]?@?(yearly|annually|Monthly|weekly|DAILY|midnight|hourly|reboot|every 5m|minutely)[ \t]?",
        3 => "(every|EVERY|every )[ \t](0|00|1|15|007|1.5|-5|3155760000|3155760001|52178|52179|99999999999999999999)[ \t]?(second|seconds|Minutes|hour|days|weeks|week|month|m|dayss|)( 3)?",
        4 => "(at|At|at )[ \t](0000|2027|2028|2100|9999|27)-(01|02|13|00|2)-(28|29|30|31|00|1)[ \tTt]{0,2}((09|23|24|9):(00|59|60)(:(00|59|60))?)? ?(Z|z|[+-](05|15|16)(:(30|60))?|Z05:00|Zulu| CET)?",
        2 => "(every|at|@)?[ -~\t\n]{0,12}",
        1 => any::<String>(),
    ]
}

/// A good spec with a letter changed, added or removed.
fn mutated() -> impl Strategy<Value = String> {
    let good = prop::sample::select(vec![
        "*/15 9-17 * * 1-5",
        "30 0 12 1W,15W,L */2 mon-fri",
        "0 0 * jan-mar,DEC 5#3,sunL",
        "every 15 minutes",
        "at 2027-01-31T09:00:30+01:00",
        "@midnight",
    ]);
    (good, any::<prop::sample::Index>(), "[ -~]", 0..3_u8).prop_map(|(good, at, letter, how)| {
        let at = at.index(good.len());
        let rest = if how == 1 { at } else { at + 1 };
        format!("{}{}{}", &good[..at], if how == 2 { "" } else { &letter }, &good[rest..])
    })
}

#[tokio::test]
async fn the_database_and_the_parser_accept_and_refuse_the_same_specs() {
    let db = TestDb::new().await;
    let config = Config { failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"every fifteen minutes at noon, L");
    let mut runner = TestRunner::new_with_rng(config, rng);
    let specs = prop_oneof![3 => spec(), 1 => mutated()];
    let spec = |_| specs.new_tree(&mut runner).unwrap().current();
    // A text of the database has no zero bytes.
    let specs: Vec<String> = (0..6_000).map(spec).filter(|spec| !spec.contains('\0')).collect();
    db.run(
        "create function public.refusal(spec text) returns text[] language plpgsql as $$
         declare v_hint text; begin
             perform rowbeat.check_spec(spec); return array[null, null, null];
         exception when others then
             get stacked diagnostics v_hint = pg_exception_hint; return array[sqlstate, sqlerrm, v_hint];
         end $$",
    )
    .await;
    let (mut accepted, mut differing) = (0, Vec::new());
    for batch in specs.chunks(500) {
        let answers: Vec<Option<String>> = db
            .get_with("select array_agg(a order by s.n, b.n) from unnest($1::text[]) with ordinality s (spec, n), unnest(public.refusal(s.spec)) with ordinality b (a, n)", &[&batch])
            .await;
        for (spec, answer) in batch.iter().zip(answers.chunks(3)) {
            let parsed = Recurrence::parse(spec, "UTC", DateTime::<Utc>::UNIX_EPOCH);
            accepted += usize::from(parsed.is_ok());
            let same = match (&parsed, answer) {
                (Ok(_), [None, None, None]) => true,
                (Err(refusal), [Some(state), Some(message), Some(_)]) => {
                    let place = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
                    state == "22023" && place(message) == place(&refusal.to_string())
                }
                _ => false,
            };
            if !same {
                differing.push(format!("{spec:?}: {:?} but {answer:?}", parsed.map(|_| "accepted")));
            }
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing[..differing.len().min(20)].join("\n")
    );
    assert!((1_000..5_000).contains(&accepted), "only {accepted} of {} were accepted", specs.len());
}

#[tokio::test]
async fn a_refusal_names_the_field_and_the_text_and_hints_at_what_to_write() {
    let db = TestDb::new().await.with_effects().await;
    let session = db.session().await;
    for (spec, zone, message, hint) in [
        ("0 24 * * *", "UTC", "hour: `24` is out of range 0-23", "0-23"),
        ("60 * * * *", "UTC", "minute: `60` is out of range 0-59", "0-59"),
        ("0 0 0 * *", "UTC", "day of month: `0` is out of range 1-31", "`L` is the last"),
        ("0 0 * 13 *", "UTC", "month: `13` is out of range 1-12", "`jan`"),
        ("0 0 * * 8", "UTC", "day of week: `8` is out of range 0-7", "`sun`"),
        ("0 0 * * 5#6", "UTC", "day of week: `5#6` counts beyond 1-5", "`5L`"),
        ("*/0 * * * *", "UTC", "minute: `*/0` has a step of 0", "at least 1"),
        ("*/90 * * * *", "UTC", "minute: `*/90` has a step wider than its range 0-59", "`every 90 minutes`"),
        ("1,,2 * * * *", "UTC", "minute: `1,,2` has an empty list item", "surplus commas"),
        ("0 0 * * fri-mon", "UTC", "day of week: `fri-mon` is a backward range", "write `fri,sat,sun,mon`"),
        ("0 22-2 * * *", "UTC", "hour: `22-2` is a backward range", "write `22-23,0-2`"),
        ("0 0 * NOV-feb *", "UTC", "month: `NOV-feb` is a backward range", "write `nov,dec,jan,feb`"),
        ("0 0 * * 7-3", "UTC", "day of week: `7-3` is a backward range", "write `0-3`"),
        ("0 0 30 2 *", "UTC", "day of month: `30` never occurs in month `2`", "days that the month has"),
        (
            "0 0 31 4,6,9,11 *",
            "UTC",
            "day of month: `31` never occurs in month `4,6,9,11`",
            "days that the month has",
        ),
        ("0 0 30 */12 1", "UTC", "month: `*/12` has a step wider than its range 1-12", "write `1`"),
        ("0 0 29 2 *,*", "Mars/Base", "time zone: `Mars/Base` is unknown", "IANA name"),
        ("@daily", "europe/paris", "time zone: `europe/paris` is unknown", "did you mean `Europe/Paris`?"),
        ("@daily", "+02:00", "time zone: `+02:00` is unknown", "IANA name"),
        ("@daily", "posix/Europe/Paris", "time zone: `posix/Europe/Paris` is unknown", "IANA name"),
        ("0 0 ? * 1", "UTC", "day of month: `?` is not understood", "write `*`"),
        ("0 0 LW * *", "UTC", "day of month: `LW` is not understood", "`L` is the last day"),
        ("0 0 L-3 * *", "UTC", "day of month: `L-3` is not understood", "not counted from the end"),
        ("0 0 * * 5#L", "UTC", "day of week: `5#L` is not understood", "`5L`"),
        ("0 0 * * L5", "UTC", "day of week: `L5` is not understood", "write `5L`"),
        ("H * * * *", "UTC", "minute: `H` is not understood", "by hash"),
        ("@reboot", "UTC", "alias: `@reboot` is unknown", "when it should run"),
        ("@every 5m", "UTC", "alias: `@every 5m` is unknown", "every 15 minutes"),
        ("0 0 1 1 * 2027", "UTC", "day of week: `2027` is out of range 0-7", "no year field"),
        (
            "0 0 0 1 1 * 2027",
            "UTC",
            "fields: `0 0 0 1 1 * 2027` has 7, a crontab line has 5, or 6 with leading seconds",
            "no year field",
        ),
        ("every 0 minutes", "UTC", "interval: `0` is no interval", "every 1 second"),
        ("at 2027-02-29 09:00", "UTC", "moment: `2027-02-29` is not in the calendar", "`2027-01-31`"),
        ("", "UTC", "spec: empty", "@daily"),
    ] {
        let insert = "insert into rowbeat.schedule (name, definition, spec, time_zone) values ('s', 'add_effect', $1, $2)";
        let error = session.execute(insert, &[&spec, &zone]).await.expect_err(spec);
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("22023", message), "{spec}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{spec}: {:?}", error.hint());
    }
    db.run("select rowbeat.schedule('s', '@daily', 'add_effect', p_time_zone => 'Europe/Paris')").await;
    for set in ["spec = '61 * * * *'", "time_zone = 'Mars/Base'"] {
        assert_eq!(db.refusal(&format!("update rowbeat.schedule set {set}")).await.0, "22023");
    }
}
