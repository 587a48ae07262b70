//! The bundled plugin campaign: its acceptance cases, each under its id, by SQL and real daemons.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::TestDb;

/// A database with the plugin, a brand B, and campaign C of it.
pub(crate) async fn campaign() -> TestDb {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "campaign"]).ok();
    db.run("insert into campaign.brand (name) values ('B')").await;
    add(&db, "C", "active").await;
    db
}

/// One more campaign of B: daily budget 100, monthly budget 1000, begun, without windows.
pub(crate) async fn add(db: &TestDb, name: &str, status: &str) {
    db.run(&format!(
        "insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date)
         select id, '{name}', '{status}', 100, 1000, '2020-01-01' from campaign.brand where name = 'B'"
    ))
    .await;
}

/// The id of campaign C, as SQL.
pub(crate) const C: &str = "(select id from campaign.campaign where name = 'C')";

/// The session lives at this time from now on.
pub(crate) async fn at(db: &TestDb, time: &str) {
    db.run(&format!(
        "select set_config('rowbeat.clock_offset', ('{time}'::timestamptz - clock_timestamp())::text, false)"
    ))
    .await;
}

/// The session lives at that time of the day after today, in UTC.
pub(crate) async fn tomorrow(db: &TestDb, time: &str) {
    let day: String =
        db.get("select to_char((rowbeat.now_() at time zone 'UTC')::date + 1, 'YYYY-MM-DD')").await;
    at(db, &format!("{day} {time}Z")).await;
}

/// Status and counters of C, such as `paused budget 100.01 100.01`.
pub(crate) async fn state(db: &TestDb) -> String {
    state_of(db, "C").await
}

pub(crate) async fn state_of(db: &TestDb, name: &str) -> String {
    db.get(&format!("select concat_ws(' ', status, pause_reason, daily_spend, monthly_spend) from campaign.campaign where name = '{name}'")).await
}

pub(crate) async fn spend(db: &TestDb, amount: &str) -> Value {
    db.get(&format!("select campaign.add_campaign_spend({C}, {amount})")).await
}

pub(crate) async fn call(db: &TestDb, function: &str) -> Value {
    db.get(&format!("select campaign.{function}")).await
}

/// The trail of C, such as `active > paused budget by spend`.
pub(crate) async fn trail(db: &TestDb) -> Vec<String> {
    db.get(&format!(
        "select coalesce(array_agg(concat_ws(' ', from_status, from_reason, '>', to_status, to_reason, 'by', cause) order by id), '{{}}')
         from campaign.status_change where campaign_id = {C}"
    ))
    .await
}

/// The invariant of the counters, over all campaigns.
pub(crate) async fn books_agree(db: &TestDb) {
    let wrong: Vec<String> = db.get(
        "select coalesce(array_agg(c.name::text), '{}') from campaign.campaign c
         where c.daily_spend <> (select coalesce(sum(s.amount), 0) from campaign.spend s where s.campaign_id = c.id and s.spend_day = c.daily_period)
                 - (select coalesce(sum(r.amount_cleared), 0) from campaign.counter_clear r where r.campaign_id = c.id and r.counter = 'daily' and r.period = c.daily_period)
             or c.monthly_spend <> (select coalesce(sum(s.amount), 0) from campaign.spend s where s.campaign_id = c.id and s.spend_month = c.monthly_period)
                 - (select coalesce(sum(r.amount_cleared), 0) from campaign.counter_clear r where r.campaign_id = c.id and r.counter = 'monthly' and r.period = c.monthly_period)",
    ).await;
    assert!(wrong.is_empty(), "the counters of {wrong:?} do not agree with the log");
}

fn success(amount: &str) -> Value {
    json!({ "status": "success", "message": format!("Successfully added ${amount} spend to campaign C") })
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a2_a_campaign_stops_with_the_spend_that_crosses_a_budget_and_runs_again_the_next_day() {
    let db = campaign().await;
    at(&db, "2024-03-10 12:00Z").await;
    // Its periods are of the day on which it was made.
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    assert_eq!(spend(&db, "60.00").await, success("60.00"));
    assert_eq!(state(&db).await, "active 60.00 60.00");
    assert_eq!(spend(&db, "40").await, success("40.00"));
    assert_eq!(state(&db).await, "active 100.00 100.00", "equal is within");
    assert_eq!(spend(&db, "0.01").await, success("0.01"));
    assert_eq!(state(&db).await, "paused budget 100.01 100.01");
    assert_eq!(db.get::<i64>("select count(*) from campaign.spend").await, 3);
    assert_eq!(trail(&db).await, ["active > paused budget by spend"]);
    assert_eq!(call(&db, "reset_daily_spends()").await, json!({ "reset_count": 0, "reactivated_count": 0 }));
    let changed = "select updated_at from campaign.campaign where name = 'C'";
    let before: std::time::SystemTime = db.get(changed).await;
    tomorrow(&db, "00:00:00").await;
    assert_eq!(call(&db, "reset_daily_spends()").await, json!({ "reset_count": 1, "reactivated_count": 1 }));
    assert_eq!(state(&db).await, "active 0.00 100.01");
    assert!(db.get::<std::time::SystemTime>(changed).await > before, "a reset is a change");
    assert_eq!(call(&db, "reset_daily_spends()").await, json!({ "reset_count": 0, "reactivated_count": 0 }));
    assert_eq!(trail(&db).await[1..], ["paused budget > active by reset"]);
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_whoever_is_over_both_budgets_needs_both_resets() {
    let db = campaign().await;
    at(&db, "2024-01-30 12:00Z").await;
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    spend(&db, "1000.01").await;
    assert_eq!(state(&db).await, "paused budget 1000.01 1000.01");
    at(&db, "2024-01-31 00:00:01Z").await;
    assert_eq!(call(&db, "reset_daily_spends()").await, json!({ "reset_count": 1, "reactivated_count": 0 }));
    assert_eq!(
        call(&db, "reset_monthly_spends()").await,
        json!({ "reset_count": 0, "reactivated_count": 0 })
    );
    assert_eq!(state(&db).await, "paused budget 0.00 1000.01");
    at(&db, "2024-02-01 00:00:01Z").await;
    // In either order: neither touches the other's counter.
    assert_eq!(
        call(&db, "reset_monthly_spends('UTC')").await,
        json!({ "reset_count": 1, "reactivated_count": 1 })
    );
    assert_eq!(state(&db).await, "active 0.00 0.00");
    assert_eq!(
        db.get::<String>("select daily_period || ' ' || monthly_period from campaign.campaign").await,
        "2024-01-31 2024-02-01"
    );
    assert_eq!(
        call(&db, "reset_daily_spends('UTC')").await,
        json!({ "reset_count": 1, "reactivated_count": 0 })
    );
    assert_eq!(trail(&db).await, ["active > paused budget by spend", "paused budget > active by reset"]);
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_what_a_person_stopped_stays_stopped() {
    let db = campaign().await;
    let said: String = db.get(&format!("select campaign.pause_campaigns(array[{C}, -1], 'ann')")).await;
    assert_eq!(said, "Successfully paused 1 campaigns.");
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '00:00', '24:00' from generate_series(1, 7) d")).await;
    tomorrow(&db, "00:00:01").await;
    db.run("set rowbeat.clock_offset = '40 days'").await;
    for task in [
        "reset_daily_spends()",
        "reset_monthly_spends()",
        "check_campaign_budgets()",
        "enforce_dayparting()",
        "activate_eligible_campaigns()",
    ] {
        call(&db, task).await;
        assert_eq!(state(&db).await, "paused manual 0.00 0.00", "{task}");
    }
    db.run("update campaign.campaign set daily_budget = 200; update campaign.brand set is_active = false; update campaign.brand set is_active = true").await;
    assert_eq!(state(&db).await, "paused manual 0.00 0.00");
    assert_eq!(trail(&db).await, ["active > paused manual by operator"]);
    assert_eq!(db.get::<String>("select actor from campaign.status_change").await, "ann");
    // Only the end of the campaign comes before the person.
    db.run("update campaign.campaign set end_date = '2021-01-01'").await;
    assert_eq!(state(&db).await, "completed 0.00 0.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_drafts_whose_time_has_come_are_activated_and_the_others_stay_drafts() {
    let db = campaign().await;
    db.run("delete from campaign.campaign").await;
    at(&db, "2024-01-15 12:00Z").await;
    for (name, start, end) in [
        ("D1", "2024-01-15", "null"),
        ("D2", "2024-01-16", "null"),
        ("D3", "2024-01-01", "'2024-01-15'"),
        ("D4", "2024-01-01", "'2024-01-14'"),
        ("D5", "2024-01-15", "null"),
    ] {
        add(&db, name, "draft").await;
        db.run(&format!(
            "update campaign.campaign set start_date = '{start}', end_date = {end} where name = '{name}'"
        ))
        .await;
    }
    // Monday is the day, and this one's window is on Tuesday.
    db.run("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select id, 2, '00:00', '24:00' from campaign.campaign where name = 'D5'").await;
    call(&db, "check_campaign_budgets()").await;
    call(&db, "enforce_dayparting()").await;
    let drafts: i64 = db.get("select count(*) from campaign.campaign where status = 'draft'").await;
    assert_eq!(drafts, 5, "only activation begins anything");
    assert_eq!(call(&db, "activate_eligible_campaigns()").await, json!({ "activated_count": 2 }));
    let states: Vec<String> = db.get("select array_agg(status order by name) from campaign.campaign").await;
    assert_eq!(states, ["active", "draft", "active", "draft", "draft"]);
    at(&db, "2024-01-16 00:00:01Z").await;
    assert_eq!(call(&db, "activate_eligible_campaigns()").await, json!({ "activated_count": 2 }));
    let states: Vec<String> = db.get("select array_agg(status order by name) from campaign.campaign").await;
    assert_eq!(states, ["active", "active", "active", "draft", "active"]);
    assert_eq!(
        db.get::<i64>("select count(*) from campaign.status_change where cause = 'activation'").await,
        4
    );
    // The inactive brand and the budget hold drafts back, too.
    add(&db, "D6", "draft").await;
    db.run("update campaign.brand set is_active = false").await;
    assert_eq!(call(&db, "activate_eligible_campaigns()").await, json!({ "activated_count": 0 }));
    db.run("update campaign.brand set is_active = true; insert into campaign.spend (campaign_id, amount) select id, 101 from campaign.campaign where name = 'D6'").await;
    assert_eq!(call(&db, "activate_eligible_campaigns()").await, json!({ "activated_count": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_an_ended_campaign_is_completed() {
    let db = campaign().await;
    at(&db, "2024-01-15 23:59Z").await;
    db.run("update campaign.campaign set end_date = '2024-01-15'").await;
    assert_eq!(call(&db, "check_campaign_budgets()").await, json!({ "checked_count": 1, "paused_count": 0 }));
    assert_eq!(state(&db).await, "active 0.00 0.00", "the last day counts");
    at(&db, "2024-01-16 00:00Z").await;
    assert_eq!(call(&db, "check_campaign_budgets()").await, json!({ "checked_count": 1, "paused_count": 0 }));
    assert_eq!(state(&db).await, "completed 0.00 0.00");
    assert_eq!(trail(&db).await, ["active > completed by check"]);
    // A later end does not revive it by itself, but lets a person do so.
    let activate = format!("select campaign.activate_campaigns(array[{C}], 'ann')");
    assert_eq!(db.get::<String>(&activate).await, "Successfully activated 0 campaigns.");
    db.run("update campaign.campaign set end_date = '2024-02-15'").await;
    assert_eq!(state(&db).await, "completed 0.00 0.00");
    assert_eq!(db.get::<String>(&activate).await, "Successfully activated 1 campaigns.");
    assert_eq!(state(&db).await, "active 0.00 0.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a19_a_report_sums_over_a_brand_or_all() {
    let db = campaign().await;
    db.run("insert into campaign.brand (name) values ('other');
        insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date)
        select b.id, b.name || g, (array['active', 'draft', 'active'])[g], 10, 100, '2020-01-01' from campaign.brand b, generate_series(1, 3) g;
        insert into campaign.spend (campaign_id, amount) select id, 10.05 from campaign.campaign where name in ('B1', 'other1', 'other3', 'C')").await;
    let report = |total: i64, active: i64, paused: i64, spend: &str| {
        format!(
            "{{\"total_campaigns\": {total}, \"active_campaigns\": {active}, \"paused_campaigns\": {paused}, \"total_daily_spend\": {spend}, \"total_monthly_spend\": {spend}}}"
        )
    };
    for (brand, expected) in [
        ("", report(7, 2, 3, "40.20")),
        ("(select id from campaign.brand where name = 'other')", report(3, 0, 2, "20.10")),
        ("0", report(0, 0, 0, "0.00")),
        ("4711", report(0, 0, 0, "0.00")),
    ] {
        // As text: the decimals count.
        let said: String =
            db.get(&format!("select (campaign.generate_spend_report({brand}) - 'generated_at')::text")).await;
        let sorted: String = db.get_with("select $1::text::jsonb::text", &[&expected]).await;
        assert_eq!(said, sorted);
    }
    assert!(call(&db, "generate_spend_report()").await["generated_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a20_a_bar_s_colour_is_that_of_the_number_shown() {
    let db = campaign().await;
    for (spend, budget, percent, colour, width) in [
        ("80.04", "100", "80.0", "green", "80.0"),
        ("80.05", "100", "80.1", "orange", "80.1"),
        ("100.04", "100", "100.0", "orange", "100.0"),
        ("100.05", "100", "100.1", "red", "100"),
        ("0", "0.01", "0.0", "green", "0.0"),
        ("3", "1", "300.0", "red", "100"),
    ] {
        let bar: String = db
            .get(&format!(
                "select concat_ws(' ', percent, colour, width) from campaign.budget_bar({spend}, {budget})"
            ))
            .await;
        assert_eq!(bar, format!("{percent} {colour} {width}"), "{spend}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_changed_budget_date_zone_or_window_counts_at_once() {
    let db = campaign().await;
    at(&db, "2024-01-15 12:00Z").await;
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    spend(&db, "100.01").await;
    for (edit, expected) in [
        ("update campaign.campaign set daily_budget = 101", "active 100.01 100.01"),
        ("update campaign.campaign set daily_budget = 99.99", "paused budget 100.01 100.01"),
        (
            "update campaign.campaign set daily_budget = 500, monthly_budget = 100",
            "paused budget 100.01 100.01",
        ),
        ("update campaign.campaign set monthly_budget = 100.01", "active 100.01 100.01"),
        ("update campaign.campaign set start_date = '2024-01-16'", "paused dates 100.01 100.01"),
        // There it is the 16th already, and nothing was spent on that day; the month is the same.
        ("update campaign.campaign set time_zone = 'Pacific/Kiritimati'", "active 0.00 100.01"),
        ("update campaign.campaign set time_zone = null", "paused dates 100.01 100.01"),
        ("update campaign.campaign set start_date = '2024-01-15'", "active 100.01 100.01"),
        (
            "insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select id, 1, '08:00', '11:00' from campaign.campaign",
            "paused dayparting 100.01 100.01",
        ),
        ("update campaign.dayparting_window set end_time = '13:00'", "active 100.01 100.01"),
        ("update campaign.dayparting_window set day_of_week = 7", "paused dayparting 100.01 100.01"),
        ("update campaign.dayparting_window set is_active = false", "active 100.01 100.01"),
        ("update campaign.dayparting_window set is_active = true", "paused dayparting 100.01 100.01"),
        ("delete from campaign.dayparting_window", "active 100.01 100.01"),
        (
            "update campaign.campaign set end_date = '2024-01-14', start_date = '2024-01-01'",
            "completed 100.01 100.01",
        ),
    ] {
        db.run(edit).await;
        assert_eq!(state(&db).await, expected, "{edit}");
        books_agree(&db).await;
    }
    assert_eq!(db.get::<i64>("select count(*) from campaign.status_change where cause <> 'edit'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a25_a_brand_that_is_switched_off_stops_its_campaigns_and_only_its() {
    let db = campaign().await;
    for (name, status) in [("over", "active"), ("hand", "active"), ("draft", "draft")] {
        add(&db, name, status).await;
    }
    db.run("insert into campaign.brand (name) values ('other');
        insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date) select id, 'else', 'active', 1, 1, '2020-01-01' from campaign.brand where name = 'other';
        update campaign.campaign set status = 'paused' where name = 'hand';
        insert into campaign.spend (campaign_id, amount) select id, 200 from campaign.campaign where name = 'over'").await;
    let states = "select array_agg(name || ' ' || concat_ws(' ', status, pause_reason) order by id) from campaign.campaign";
    let before = ["C active", "over paused budget", "hand paused manual", "draft draft", "else active"];
    assert_eq!(db.get::<Vec<String>>(states).await, before);
    db.run("update campaign.brand set is_active = false where name = 'B'").await;
    assert_eq!(
        db.get::<Vec<String>>(states).await,
        ["C paused brand", "over paused brand", "hand paused manual", "draft draft", "else active"]
    );
    add(&db, "new", "active").await;
    assert_eq!(state_of(&db, "new").await, "paused brand 0.00 0.00", "a new one does not run either");
    db.run("delete from campaign.campaign where name = 'new'; update campaign.brand set is_active = true where name = 'B'").await;
    assert_eq!(db.get::<Vec<String>>(states).await, before);
}
