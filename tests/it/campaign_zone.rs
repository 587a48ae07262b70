//! Zones of campaigns: whose day it is, the schedules that come and go, resets that fire at local midnight and after a downtime.

use serde_json::json;

use crate::campaign::{C, add, at, call, campaign, spend, state, state_of};
use crate::cli::rowbeat;
use crate::harness::TestDb;

/// The reset schedules, such as `daily@UTC`.
async fn resets(db: &TestDb) -> Vec<String> {
    db.get("select coalesce(array_agg(regexp_replace(name, 'campaign.reset_(.*)_spends', '\\1') order by name), '{}') from rowbeat.schedule where name like 'campaign.reset%'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_a_zone_come_and_go_with_who_uses_it_in_the_same_transaction() {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "campaign"]).ok();
    assert!(resets(&db).await.is_empty());
    let two = |zones: &[&str]| -> Vec<String> {
        ["daily", "monthly"]
            .iter()
            .flat_map(|counter| zones.iter().map(move |zone| format!("{counter}@{zone}")))
            .collect()
    };
    let steps: [(&str, &[&str]); 9] = [
        ("begin; insert into campaign.brand (name, time_zone) values ('K', 'Asia/Kolkata'); rollback", &[]),
        ("insert into campaign.brand (name, time_zone) values ('K', 'Asia/Kolkata')", &["Asia/Kolkata"]),
        (
            "insert into campaign.campaign (brand_id, name, daily_budget, monthly_budget, start_date, time_zone) select id, 'x', 1, 1, '2020-01-01', 'Europe/Berlin' from campaign.brand",
            &["Asia/Kolkata", "Europe/Berlin"],
        ),
        ("update campaign.brand set time_zone = null", &["Europe/Berlin", "UTC"]),
        (
            "insert into campaign.brand (name, time_zone) values ('B', 'Europe/Berlin')",
            &["Europe/Berlin", "UTC"],
        ),
        (
            "update campaign.campaign set time_zone = 'America/New_York'",
            &["America/New_York", "Europe/Berlin", "UTC"],
        ),
        ("delete from campaign.brand where name = 'B'", &["America/New_York", "UTC"]),
        ("delete from campaign.campaign", &["UTC"]),
        ("delete from campaign.brand", &[]),
    ];
    for (statement, zones) in steps {
        db.run(statement).await;
        assert_eq!(resets(&db).await, two(zones), "{statement}");
    }
    db.run("insert into campaign.brand (name, time_zone) values ('K', 'Asia/Kolkata')").await;
    let row: serde_json::Value = db.get("select jsonb_agg(jsonb_build_array(definition, spec, time_zone, payload, overlap, catch_up) order by name) from rowbeat.schedule where name like '%@%'").await;
    assert_eq!(
        row,
        json!([
            ["campaign.reset_daily_spends", "0 0 * * *", "Asia/Kolkata", { "zone": "Asia/Kolkata" }, "skip", "last"],
            ["campaign.reset_monthly_spends", "0 0 1 * *", "Asia/Kolkata", { "zone": "Asia/Kolkata" }, "skip", "last"],
        ])
    );
    let regular: Vec<String> = db.get("select array_agg(concat_ws(' ', name, definition, spec, overlap, catch_up) order by name) from rowbeat.schedule where name not like '%@%'").await;
    assert_eq!(
        regular,
        [
            "campaign.activate_eligible_campaigns campaign.activate_eligible_campaigns every 10 minutes skip last",
            "campaign.check_campaign_budgets campaign.check_campaign_budgets every 5 minutes skip last",
            "campaign.enforce_dayparting campaign.enforce_dayparting every 5 minutes skip last",
        ]
    );
    for zone in ["Nowhere/Land", "europe/berlin", "EST5", "posix/UTC"] {
        let (state, message) =
            db.refusal(&format!("insert into campaign.brand (name, time_zone) values ('n', '{zone}')")).await;
        assert_eq!((state.as_str(), message), ("RP400", format!("Unknown time zone: {zone}.")));
        let (state, _) = db.refusal(&format!("insert into campaign.campaign (brand_id, name, daily_budget, monthly_budget, start_date, time_zone) select id, 'x', 1, 1, '2020-01-01', '{zone}' from campaign.brand")).await;
        assert_eq!(state, "RP400");
    }
    assert_eq!(db.refusal("select campaign.reset_daily_spends('Nowhere/Land')").await.0, "RP400");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_user_of_a_zone_and_a_new_one_do_not_miss_each_other() {
    let db = campaign().await;
    let (one, two) = (db.session().await, db.session().await);
    for _ in 0..20 {
        db.run("insert into campaign.brand (name, time_zone) values ('old', 'Asia/Tokyo')").await;
        let (goes, comes) = tokio::join!(
            one.batch_execute("delete from campaign.brand where name = 'old'"),
            two.batch_execute("insert into campaign.brand (name, time_zone) values ('new', 'Asia/Tokyo')")
        );
        assert!(goes.is_ok() && comes.is_ok(), "{goes:?} {comes:?}");
        assert_eq!(resets(&db).await, ["daily@Asia/Tokyo", "daily@UTC", "monthly@Asia/Tokyo", "monthly@UTC"]);
        db.run("delete from campaign.brand where name = 'new'").await;
        assert_eq!(resets(&db).await, ["daily@UTC", "monthly@UTC"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_is_the_zone_of_whoever_names_none_and_the_check_follows_it() {
    let db = campaign().await;
    at(&db, "2024-01-15 12:00Z").await;
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    rowbeat(&db, &["plugin", "set", "campaign", "zone", "Pacific/Kiritimati"]).ok();
    call(&db, "check_campaign_budgets()").await;
    assert_eq!(resets(&db).await, ["daily@Pacific/Kiritimati", "monthly@Pacific/Kiritimati"]);
    // There it is the 16th already: the spend begins that day, and westwards the 15th goes on.
    spend(&db, "5").await;
    assert_eq!(
        db.get::<String>("select concat_ws(' ', daily_period, daily_spend) from campaign.campaign").await,
        "2024-01-16 5.00"
    );
    rowbeat(&db, &["plugin", "set", "campaign", "zone", "Pacific/Honolulu"]).ok();
    spend(&db, "7").await;
    assert_eq!(
        db.get::<String>(
            "select concat_ws(' ', daily_period, daily_spend, monthly_spend) from campaign.campaign"
        )
        .await,
        "2024-01-15 7.00 12.00"
    );
    at(&db, "2024-01-16 10:00Z").await;
    call(&db, "reset_daily_spends('Pacific/Honolulu')").await;
    crate::campaign::books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_of_its_zone_s_campaigns_and_the_brand_s_zone_counts() {
    let db = campaign().await;
    at(&db, "2024-01-15 12:00Z").await;
    db.run("delete from campaign.campaign; insert into campaign.brand (name, time_zone) values ('J', 'Asia/Tokyo')").await;
    add(&db, "C", "completed").await;
    db.run("insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date) select id, 'T', 'active', 10, 100, '2020-01-01' from campaign.brand where name = 'J';
        insert into campaign.spend (campaign_id, amount) select id, 50 from campaign.campaign").await;
    assert_eq!(state_of(&db, "T").await, "paused budget 50.00 50.00");
    at(&db, "2024-01-15 15:00Z").await;
    let none = json!({ "reset_count": 0, "reactivated_count": 0 });
    assert_eq!(call(&db, "reset_daily_spends('UTC')").await, none);
    assert_eq!(call(&db, "reset_daily_spends('Europe/Berlin')").await, none);
    assert_eq!(
        call(&db, "reset_daily_spends('Asia/Tokyo')").await,
        json!({ "reset_count": 1, "reactivated_count": 1 })
    );
    assert_eq!(state_of(&db, "T").await, "active 0.00 50.00");
    at(&db, "2024-01-16 00:00Z").await;
    assert_eq!(
        call(&db, "reset_daily_spends(null)").await,
        json!({ "reset_count": 1, "reactivated_count": 0 })
    );
    assert_eq!(state(&db).await, "completed 0.00 50.00", "of every status");
    // A brand that moves takes its campaigns with it.
    db.run("update campaign.brand set time_zone = 'Pacific/Honolulu' where name = 'J'").await;
    assert_eq!(
        db.get::<String>("select daily_period::text from campaign.campaign where name = 'T'").await,
        "2024-01-15"
    );
    crate::campaign::books_agree(&db).await;
}

/// All sessions to come, and this one, live at that time of the coming day by so many days later.
async fn move_clock(db: &TestDb, days: i32, time: &str) {
    db.run(&format!(
        "do $$ declare v_offset interval := (date_trunc('day', now() at time zone 'UTC') + interval '{days} days {time}') at time zone 'UTC' - clock_timestamp(); begin
             execute format('alter database {} set rowbeat.clock_offset = %L', v_offset);
             perform set_config('rowbeat.clock_offset', v_offset::text, false); end $$",
        db.name
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a27_a_reset_that_comes_after_the_first_spend_of_the_day_changes_nothing_more() {
    let db = campaign().await;
    db.run("update campaign.campaign set monthly_budget = 100000").await;
    spend(&db, "150").await;
    move_clock(&db, 1, "12:00").await;
    let daemon = db.daemon().ready().await;
    db.until("(select bool_and(next_fire_at > rowbeat.now_()) from rowbeat.schedule)").await;
    db.until("not exists (select from rowbeat.task where cause ->> 'kind' = 'schedule')").await;
    drop(daemon);
    db.until("not exists (select from pg_stat_activity where datname = current_database() and application_name like 'rowbeat%' and pid <> pg_backend_pid())").await;
    // Three midnights pass without a daemon.
    move_clock(&db, 4, "08:00").await;
    assert_eq!(spend(&db, "10.00").await["status"], "success");
    let daily = "select concat_ws(' ', status, daily_spend) from campaign.campaign";
    assert_eq!(db.get::<String>(daily).await, "active 10.00");
    move_clock(&db, 4, "09:00").await;
    let _daemon = db.daemon().ready().await;
    db.until("(select count(*) = 4 from rowbeat.fire where schedule = 'campaign.reset_daily_spends@UTC')")
        .await;
    db.until("not exists (select from rowbeat.task where cause ->> 'kind' = 'schedule')").await;
    assert_eq!(db.get::<String>(daily).await, "active 10.00");
    let fires: Vec<String> = db.get("select array_agg(decision order by nominal_at) from rowbeat.fire where schedule = 'campaign.reset_daily_spends@UTC'").await;
    assert_eq!(fires, ["caught_up", "skipped", "skipped", "caught_up"], "one, however many were missed");
    crate::campaign::books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_fire_at_the_first_instant_of_the_local_day_and_month() {
    let db = campaign().await;
    // A zone with a change of the clock at midnight, one with half an hour, one far east.
    db.run("insert into campaign.brand (name, time_zone) values ('a', 'America/Santiago'), ('b', 'Asia/Kolkata'), ('c', 'Pacific/Auckland')").await;
    let _daemon = db.daemon().ready().await;
    db.until("(select bool_and(next_fire_at is not null) from rowbeat.schedule)").await;
    let wrong: Vec<String> = db.get(
        "select coalesce(array_agg(s.name || ' ' || s.next_fire_at), '{}') from rowbeat.schedule s where s.name like '%@%' and not (
            (s.next_fire_at at time zone s.time_zone)::date > ((s.next_fire_at - interval '1 second') at time zone s.time_zone)::date
            and (s.name not like '%monthly%' or extract(day from s.next_fire_at at time zone s.time_zone) = 1) and s.next_fire_at > now())").await;
    assert!(wrong.is_empty(), "{wrong:?}");
    let zones: i64 = db
        .get(&format!(
            "select count(distinct time_zone) from rowbeat.schedule where name like '%@%' and {C} is not null"
        ))
        .await;
    assert_eq!(zones, 4);
}
