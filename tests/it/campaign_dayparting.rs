//! Windows of campaigns: by the clock on the wall, over midnight, at their boundaries, in zones and when clocks are changed.

use serde_json::{Value, json};

use crate::campaign::{C, at, call, campaign, spend, state, tomorrow, trail};
use crate::harness::TestDb;

async fn window(db: &TestDb, day: u8, start: &str, end: &str) {
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) values ({C}, {day}, '{start}', '{end}')")).await;
}

/// Decides C at exactly this time.
async fn decide(db: &TestDb, time: &str) -> String {
    db.get(&format!("select campaign.decide({C}, '{time}', 'dayparting')")).await
}

async fn is_open(db: &TestDb, time: &str) -> bool {
    db.get(&format!("select campaign.is_within_dayparting({C}, '{time}')")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_both_ends_of_a_window_are_included_to_the_microsecond() {
    let db = campaign().await;
    window(&db, 1, "09:00", "17:00").await;
    for (time, status) in [
        ("2024-01-15 08:59:59Z", "paused"),
        ("2024-01-15 08:59:59.999999Z", "paused"),
        ("2024-01-15 09:00:00Z", "active"),
        ("2024-01-15 17:00:00Z", "active"),
        ("2024-01-15 17:00:00.000001Z", "paused"),
        ("2024-01-15 17:00:01Z", "paused"),
        ("2024-01-16 12:00Z", "paused"),
        ("2024-01-22 10:00Z", "active"),
    ] {
        assert_eq!(decide(&db, time).await, status, "{time}");
    }
    // The same by enforcement, at the time that it is.
    for (time, counts) in [
        ("2024-01-29 08:59:58Z", [0, 1]),
        ("2024-01-29 09:00:00Z", [1, 0]),
        ("2024-01-29 16:59:50Z", [0, 0]),
        ("2024-01-29 17:00:01Z", [0, 1]),
        ("2024-01-30 12:00Z", [0, 0]),
    ] {
        at(&db, time).await;
        assert_eq!(
            call(&db, "enforce_dayparting()").await,
            json!({ "enabled_count": counts[0], "disabled_count": counts[1] }),
            "{time}"
        );
    }
    assert_eq!(trail(&db).await.last().unwrap(), "active > paused dayparting by dayparting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() {
    let db = campaign().await;
    window(&db, 5, "23:56", "00:04").await;
    for (time, open) in [
        ("2024-01-19 00:02Z", false),
        ("2024-01-19 23:55:59Z", false),
        ("2024-01-19 23:56:00Z", true),
        ("2024-01-20 00:00:00Z", true),
        ("2024-01-20 00:04:00Z", true),
        ("2024-01-20 00:04:01Z", false),
        ("2024-01-20 23:57Z", false),
    ] {
        assert_eq!(is_open(&db, time).await, open, "{time}");
        assert_eq!(decide(&db, time).await, if open { "active" } else { "paused" }, "{time}");
    }
    db.run("update campaign.dayparting_window set day_of_week = 7").await;
    for (time, open) in [
        ("2024-01-21 00:02Z", false),
        ("2024-01-21 23:59Z", true),
        ("2024-01-22 00:03:59Z", true),
        ("2024-01-22 00:04:00.5Z", false),
        ("2024-01-22 23:59Z", false),
    ] {
        assert_eq!(is_open(&db, time).await, open, "from Sunday into Monday: {time}");
    }
    db.run("update campaign.dayparting_window set end_time = '00:00'").await;
    assert!(is_open(&db, "2024-01-22 00:00Z").await && !is_open(&db, "2024-01-22 00:00:00.000001Z").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_only_active_windows_count_and_whoever_has_none_is_never_touched() {
    let db = campaign().await;
    for day in 1..=5 {
        window(&db, day, "00:00", "24:00").await;
    }
    assert_eq!(
        (decide(&db, "2024-01-19 12:00Z").await, decide(&db, "2024-01-20 12:00Z").await),
        ("active".into(), "paused".into())
    );
    at(&db, "2024-01-20 12:00Z").await;
    db.run("update campaign.dayparting_window set is_active = false").await;
    assert!(is_open(&db, "2024-01-20 12:00Z").await);
    // Over budget and active: the check's business, not that of enforcement.
    db.run("update campaign.campaign set status = 'active', daily_spend = 500").await;
    assert_eq!(call(&db, "enforce_dayparting()").await, json!({ "enabled_count": 0, "disabled_count": 0 }));
    assert_eq!(state(&db).await, "active 500.00 0.00");
    assert_eq!(call(&db, "check_campaign_budgets()").await, json!({ "checked_count": 1, "paused_count": 1 }));
    assert_eq!(state(&db).await, "paused budget 500.00 0.00");
    assert_eq!(db.refusal("select campaign.is_within_dayparting(9999, now())").await.0, "RP404");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_campaign_stays_paused_with_the_reason_that_now_applies() {
    let db = campaign().await;
    tomorrow(&db, "12:00").await;
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '09:00', '17:00' from generate_series(1, 7) d")).await;
    spend(&db, "150").await;
    assert_eq!(call(&db, "enforce_dayparting()").await, json!({ "enabled_count": 0, "disabled_count": 0 }));
    assert!(state(&db).await.starts_with("paused budget 150.00"));
    tomorrow(&db, "00:00:01").await;
    assert_eq!(call(&db, "reset_daily_spends()").await, json!({ "reset_count": 1, "reactivated_count": 0 }));
    assert!(state(&db).await.starts_with("paused dayparting 0.00"));
    db.run("set rowbeat.clock_offset to default").await;
    tomorrow(&db, "00:00").await;
    tomorrow(&db, "09:00:01").await;
    assert_eq!(call(&db, "enforce_dayparting()").await, json!({ "enabled_count": 1, "disabled_count": 0 }));
    assert!(state(&db).await.starts_with("active 0.00"));
    assert_eq!(
        trail(&db).await[1..],
        ["paused budget > paused dayparting by reset", "paused dayparting > active by dayparting"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_an_end_of_23_59_or_24_00_is_the_end_of_the_day() {
    let db = campaign().await;
    for (start, end) in
        [("00:00", "23:59"), ("00:00", "23:59:10"), ("00:00", "24:00"), ("23:59:20", "23:59:10")]
    {
        db.run("delete from campaign.dayparting_window").await;
        window(&db, 1, start, end).await;
        for (time, open) in [
            ("2024-01-15 23:59:30Z", true),
            ("2024-01-15 23:59:59.999999Z", true),
            ("2024-01-16 00:00Z", false),
            ("2024-01-15 12:00Z", start == "00:00"),
            ("2024-01-16 23:59:30Z", false),
        ] {
            assert_eq!(is_open(&db, time).await, open, "{start} to {end}: {time}");
        }
    }
    let same = format!(
        "insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) values ({C}, 2, '09:00', '09:00')"
    );
    assert_eq!(db.refusal(&same).await, ("RP400".into(), "Start and end time must differ.".into()));
    assert_eq!(
        db.refusal("update campaign.dayparting_window set end_time = start_time").await.1,
        "Start and end time must differ."
    );
    for wrong in [
        "update campaign.dayparting_window set day_of_week = 8",
        "update campaign.dayparting_window set day_of_week = 0",
    ] {
        assert_eq!(db.refusal(wrong).await.0, "23514");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boundaries_are_instants_also_when_clocks_are_changed() {
    let db = campaign().await;
    db.run("update campaign.campaign set time_zone = 'Europe/Berlin'").await;
    let boundaries = async |from: &str, minutes: i32| -> Vec<String> {
        db.get(&format!("select coalesce(array_agg(to_char(b at time zone 'UTC', 'HH24:MI:SS.US') order by b), '{{}}') from campaign.boundaries(null, '{from}', '{from}'::timestamptz + interval '{minutes} minutes') b")).await
    };
    window(&db, 7, "02:30", "03:30").await;
    assert_eq!(boundaries("2026-10-18 00:00Z", 120).await, ["00:30:00.000000", "01:30:00.000001"]);
    assert_eq!(boundaries("2026-10-18 00:30Z", 59).await, Vec::<String>::new(), "only what comes later");
    // The hour comes twice: it opens, closes as the clock goes back, and opens again.
    assert_eq!(
        boundaries("2026-10-25 00:00Z", 180).await,
        ["00:30:00.000000", "01:00:00.000000", "01:30:00.000000", "02:30:00.000001"]
    );
    // The hour is left out: the clock goes from 2 to 3, into the window.
    assert_eq!(boundaries("2026-03-29 00:00Z", 120).await, ["01:00:00.000000", "01:30:00.000001"]);
    db.run("update campaign.dayparting_window set start_time = '22:00', end_time = '01:00'").await;
    assert_eq!(
        boundaries("2026-10-18 19:00Z", 300).await,
        ["20:00:00.000000", "23:00:00.000001"],
        "from Sunday into Monday"
    );
    db.run("update campaign.dayparting_window set end_time = '23:59'").await;
    assert_eq!(boundaries("2026-10-18 19:00Z", 300).await, ["20:00:00.000000", "22:00:00.000000"]);
    db.run("update campaign.dayparting_window set is_active = false").await;
    assert_eq!(boundaries("2026-10-18 19:00Z", 300).await, Vec::<String>::new());
}

/// All sessions to come, and this one, live at this time of tomorrow.
async fn everybody_at(db: &TestDb, time: &str) {
    db.run(&format!(
        "do $$ declare v_offset interval := (date_trunc('day', now() at time zone 'UTC') + interval '1 day {time}') at time zone 'UTC' - clock_timestamp(); begin
             execute format('alter database {} set rowbeat.clock_offset = %L', v_offset);
             perform set_config('rowbeat.clock_offset', v_offset::text, false); end $$",
        db.name
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_between_two_regular_runs_is_enforced_by_a_daemon_in_time() {
    let db = campaign().await;
    // The regular run is over, and nothing else runs here.
    db.run("update rowbeat.schedule set enabled = false").await;
    everybody_at(&db, "12:00:00").await;
    db.run(&format!(
        "insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '12:01', '12:04' from generate_series(1, 7) d; delete from rowbeat.task"
    ))
    .await;
    assert_eq!(call(&db, "enforce_dayparting()").await["enabled_count"], 0);
    call(&db, "enforce_dayparting()").await;
    let keys: Vec<String> = db.get("select array_agg(right(unique_key, 16) order by run_at) from rowbeat.task where definition = 'campaign.enforce_dayparting'").await;
    assert_eq!(keys, ["12:01:00.000000Z", "12:04:00.000001Z"], "each instant once");
    // A moment before each of them a daemon comes.
    for (time, status) in [("12:00:59", "active"), ("12:03:59", "paused")] {
        everybody_at(&db, time).await;
        let daemon = db.daemon().ready().await;
        db.until(&format!("exists (select from campaign.status_change s join rowbeat.tasks t on t.id = s.task_id and t.state = 'completed'
            where s.cause = 'dayparting' and s.to_status = '{status}' and s.at >= t.run_at)")).await;
        daemon.kill9();
    }
    assert_eq!(
        trail(&db).await[1..],
        ["paused dayparting > active by dayparting", "active > paused dayparting by dayparting"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_written_between_two_regular_runs_has_its_boundaries_too() {
    let db = campaign().await;
    db.run("select set_config('rowbeat.clock_offset', (date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC' + interval '12 hours' - clock_timestamp())::text, false)").await;
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '12:02', '13:00' from generate_series(1, 7) d")).await;
    let tasks: Value = db.get("select jsonb_agg(right(unique_key, 16)) from rowbeat.task where definition = 'campaign.enforce_dayparting'").await;
    assert_eq!(tasks, json!(["12:02:00.000000Z"]));
    assert!(state(&db).await.starts_with("paused dayparting"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_a_campaign_decides_by_the_time_at_which_it_has_it() {
    let db = campaign().await;
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '12:00:00', '12:00:30' from generate_series(1, 7) d")).await;
    db.run("update campaign.campaign set status = 'paused', pause_reason = 'dayparting'").await;
    let waiting = db.session().await;
    // It is open for four more seconds.
    let clock: String = db.get("select ((date_trunc('day', clock_timestamp() at time zone 'UTC') + interval '12:00:26') at time zone 'UTC' - clock_timestamp())::text").await;
    db.run(&format!("set rowbeat.clock_offset = '{clock}'")).await;
    waiting.batch_execute(&format!("set rowbeat.clock_offset = '{clock}'")).await.unwrap();
    db.run("begin; select from campaign.campaign for update").await;
    let closed = "(rowbeat.now_() at time zone 'UTC')::time > '12:00:31'";
    let holder = async {
        db.until(&format!("{closed} or exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')")).await;
        db.until(closed).await;
        db.run("commit").await;
    };
    let (said, ()) = tokio::join!(waiting.batch_execute("select campaign.enforce_dayparting()"), holder);
    assert!(said.is_ok(), "{said:?}");
    assert!(state(&db).await.starts_with("paused dayparting"), "it closed while somebody waited");
}
