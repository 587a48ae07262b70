//! Statement's calendar: Jalali dates beside ICU's, weeks, and days of the zone.

use chrono::{Datelike, NaiveDate};
use icu_calendar::{Date, cal::Persian};

use crate::harness::TestDb;
use crate::statement::statement;

#[tokio::test]
async fn s22_every_day_is_the_one_that_icu_says_there_and_back_and_the_next() {
    let db = statement().await;
    let told: Vec<String> = db
        .get(
            "select array_agg(format('%s %s/%s/%s %s', g::date, j.year, j.month, j.day, statement.from_jalali(j.year, j.month, j.day)) order by g)
             from generate_series(timestamp '1925-03-22', '2099-12-31', '1 day') g cross join lateral statement.to_jalali(g::date) j",
        )
        .await;
    let first = NaiveDate::from_ymd_opt(1925, 3, 22).unwrap();
    assert_eq!(told.len(), 63_838);
    for (day, told) in first.iter_days().zip(&told) {
        let month = u8::try_from(day.month()).unwrap();
        let persian = Date::try_new_iso(day.year(), month, u8::try_from(day.day()).unwrap())
            .unwrap()
            .to_calendar(Persian);
        let (year, month, number) =
            (persian.era_year().year, persian.month().ordinal, persian.day_of_month().0);
        assert_eq!(*told, format!("{day} {year}/{month}/{number} {day}"));
    }
    let many: bool = db
        .get(
            "select bool_and((j.year, j.month, j.day) = (t.year, t.month, t.day) and j.new_year = statement.from_jalali(j.year, 1, 1))
             from statement.jalali(array(select g::date from generate_series(timestamp '1925-03-22', '2099-12-31', '1 day') g)) j
             cross join lateral statement.to_jalali(j.gregorian) t",
        )
        .await;
    assert!(many, "many at once are as one by one");
}

#[tokio::test]
async fn s22_dates_of_the_table_and_leap_years() {
    let db = statement().await;
    for (day, jalali) in [
        ("2024-06-24", "1403/04/04"),
        ("2024-03-19", "1402/12/29"),
        ("2024-06-25", "1403/04/05"),
        ("2024-03-20", "1403/01/01"),
        ("2024-02-29", "1402/12/10"),
        ("2024-09-21", "1403/06/31"),
        ("2024-09-22", "1403/07/01"),
        ("2024-12-31", "1403/10/11"),
        ("2021-03-20", "1399/12/30"),
        ("2021-03-21", "1400/01/01"),
        ("2029-03-20", "1408/01/01"),
        ("2030-03-20", "1408/12/30"),
        ("2000-01-01", "1378/10/11"),
        ("1979-02-11", "1357/11/22"),
    ] {
        assert_eq!(
            db.get::<String>(&format!("select statement.bucket_key('daily', '{day}')")).await,
            jalali,
            "{day}"
        );
    }
    let leap: Vec<i32> = db
        .get("select array_agg(y order by y) from generate_series(1390, 1437) y where statement.from_jalali(y + 1, 1, 1) - statement.from_jalali(y, 1, 1) = 366")
        .await;
    assert_eq!(leap, [1391, 1395, 1399, 1403, 1408, 1412, 1416, 1420, 1424, 1428, 1432, 1436]);
}

async fn bucket(db: &TestDb, granularity: &str, at: &str) -> String {
    db.get(&format!(
        "select statement.bucket_key('{granularity}', statement.bucket_start('{granularity}', '{at}'))"
    ))
    .await
}

#[tokio::test]
async fn an_instant_belongs_to_the_day_of_the_zone_with_the_offset_that_the_zone_had_then() {
    let db = statement().await;
    for (at, day) in [
        ("2024-03-19T20:30Z", "1403/01/01"),
        ("2021-06-24T19:29Z", "1400/04/03"),
        ("2021-06-24T19:30Z", "1400/04/04"),
        ("2022-09-21T20:30Z", "1401/06/31"),
        ("2023-06-24T19:45Z", "1402/04/03"),
    ] {
        assert_eq!(bucket(&db, "daily", at).await, day, "{at}");
    }
    db.run("select statement.configure('jalali', 'UTC')").await;
    assert_eq!(bucket(&db, "daily", "2024-03-19T20:30Z").await, "1402/12/29");
    assert!(db.get::<bool>("select statement.bucket_start('daily', null) is null and statement.bucket_key('daily', null) is null").await);
}

#[tokio::test]
async fn weeks_begin_on_saturdays_and_are_split_at_the_new_year() {
    let db = statement().await;
    for (year, month, day, week, start) in [
        (1403, 1, 1, 1, "2024-03-20"),
        (1403, 1, 3, 1, "2024-03-20"),
        (1403, 1, 4, 2, "2024-03-23"),
        (1403, 12, 25, 53, "2025-03-15"),
        (1403, 12, 30, 53, "2025-03-15"),
        (1404, 1, 1, 1, "2025-03-21"),
        (1404, 12, 29, 53, "2026-03-14"),
        (1405, 1, 1, 1, "2026-03-21"),
    ] {
        let told: String = db
            .get(&format!(
                "select b.start || ' ' || statement.bucket_key('weekly', b.start)
                 from (select statement.bucket_start('weekly', statement.from_jalali({year}, {month}, {day}) + time '12:00') as start) b"
            ))
            .await;
        assert_eq!(told, format!("{start} هفته {week} سال {year}"), "{year}/{month}/{day}");
    }
}

#[tokio::test]
async fn buckets_of_every_day_follow_each_other_without_gaps() {
    let db = statement().await;
    for calendar in ["jalali", "iso"] {
        db.run(&format!("select statement.configure('{calendar}', 'UTC')")).await;
        // A bucket begins on one of its days, and every day belongs to the bucket that began last.
        let right: bool = db
            .get(&format!(
                "select bool_and(b.bucket_start <= b.day and b.bucket_start = l.latest)
                 from statement.buckets('{calendar}', array(select g::date from generate_series(timestamp '1999-12-27', '2031-12-31', '1 day') g)) b
                 join lateral (select max(o.bucket_start) as latest from (values (b.bucket_start)) o (bucket_start)) l on true"
            ))
            .await;
        assert!(right);
        let starts: i64 = db
            .get(&format!(
                "select count(*) from (
                    select b.granularity, b.bucket_start, lag(b.bucket_start) over (partition by b.granularity order by b.day) as before, b.day
                    from statement.buckets('{calendar}', array(select g::date from generate_series(timestamp '2000-01-01', '2031-12-31', '1 day') g)) b
                 ) b where b.before is distinct from b.bucket_start and b.bucket_start <> b.day and b.before is not null"
            ))
            .await;
        assert_eq!(starts, 0, "a new bucket begins on its first day");
    }
}
