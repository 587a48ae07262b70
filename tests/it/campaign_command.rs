//! Commands of campaign: their exact lines, now and as tasks; and seed data.

use serde_json::{Value, json};

use crate::campaign::{C, add, campaign, state_of};
use crate::cli::rowbeat;
use crate::harness::TestDb;

fn app(db: &TestDb, arguments: &[&str]) -> String {
    rowbeat(db, &[&["app", "campaign"], arguments].concat()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a21_seed_data_stands_and_is_found_again() {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "campaign"]).ok();
    let said = app(&db, &["seed_data"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "Starting to seed database with test data...",
            "Created brand: TechCorp",
            "Created campaign: Brand Awareness - TechCorp (Status: active)",
            "Created campaign: Lead Generation - TechCorp (Status: paused)",
            "Created campaign: Product Launch - TechCorp (Status: draft)",
        ]
    );
    let end = [
        "Successfully seeded database with:",
        "- 5 brands",
        "- 15 campaigns",
        "- Dayparting schedules for all campaigns",
        "- Spend logs for all campaigns",
    ];
    assert_eq!((lines.len(), &lines[21..]), (26, &end[..]));
    let counts = "select jsonb_build_array((select count(*) from campaign.brand), (select count(*) from campaign.dayparting_window), (select count(*) from campaign.spend),
        (select jsonb_object_agg(concat_ws(' ', s.status, s.pause_reason), n) from (select status, pause_reason, count(*) as n from campaign.campaign group by 1, 2) s))";
    let first: Value = db.get(counts).await;
    assert_eq!(
        (&first[0], &first[1], &first[3]),
        (&json!(5), &json!(105), &json!({ "active": 5, "paused budget": 5, "draft": 5 }))
    );
    let spends: bool = db.get("select bool_and(n between 1 and 5) and count(*) = 15 from (select count(s.*) as n from campaign.campaign c left join campaign.spend s on s.campaign_id = c.id group by c.id) x").await;
    assert!(spends);
    assert!(db.get::<bool>("select bool_and(recorded_at between now() - interval '30 days 1 minute' and now()) and max(recorded_at) - min(recorded_at) > interval '1 hour' from campaign.spend").await);
    assert!(db.get::<bool>("select bool_and(cause = 'seed') from campaign.status_change").await);
    assert!(db.get::<bool>("select bool_and(start_date = (now() at time zone 'UTC')::date + 7) from campaign.campaign where status = 'draft'").await);
    let again = app(&db, &["seed_data"]);
    assert_eq!(
        again.lines().collect::<Vec<_>>(),
        [&["Starting to seed database with test data..."], &end[..]].concat()
    );
    // It stands whatever is asked of it.
    for function in ["check_campaign_budgets", "enforce_dayparting", "activate_eligible_campaigns"] {
        db.run(&format!("select campaign.{function}()")).await;
    }
    assert_eq!(db.get::<Value>(counts).await, first);
    crate::campaign::books_agree(&db).await;
    let more = app(&db, &["seed-data", "--brands", "12", "--campaigns-per-brand", "9"]);
    assert!(more.contains("Created campaign: Retargeting - EduSmart (Status: paused)\n") && more.ends_with("- 10 brands\n- 50 campaigns\n- Dayparting schedules for all campaigns\n- Spend logs for all campaigns\n"), "{more}");
    assert_eq!(db.get::<i64>("select count(*) from campaign.campaign").await, 50);
}

/// Campaigns that each command finds something to do with.
async fn prepared() -> TestDb {
    let db = campaign().await;
    add(&db, "day", "active").await;
    add(&db, "hours", "active").await;
    db.run(
        "update campaign.campaign set status = 'active', daily_spend = 100.01 where name = 'C';
         insert into campaign.spend (campaign_id, amount, recorded_at) select id, 100.01, now() - interval '40 days' from campaign.campaign where name = 'day';
         update campaign.campaign set daily_period = daily_period - 40, monthly_period = (date_trunc('month', monthly_period - 1))::date, daily_spend = 100.01, monthly_spend = 1000.01,
             status = 'paused', pause_reason = 'budget' where name = 'day';
         insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time)
         select c.id, d, '00:00', '24:00' from campaign.campaign c, generate_series(1, 7) d where c.name = 'hours';
         update campaign.campaign set status = 'paused', pause_reason = 'dayparting' where name = 'hours'",
    )
    .await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn a22_commands_say_what_changed_and_do_the_same_as_tasks() {
    let commands = [
        (
            "check_budgets",
            "Paused campaign C due to budget limits\nBudget check completed: 1 campaigns checked, 1 paused\n",
            "Budget check task queued with ID: ",
            json!({ "checked_count": 1, "paused_count": 1 }),
        ),
        (
            "enforce_dayparting",
            "Enabled campaign hours due to dayparting schedule\nDayparting enforcement completed: 1 enabled, 0 disabled\n",
            "Dayparting enforcement task queued with ID: ",
            json!({ "enabled_count": 1, "disabled_count": 0 }),
        ),
        (
            "reset_monthly_spends",
            "Successfully reset monthly spend for 1 campaigns. Reactivated 0 campaigns.\n",
            "Monthly spend reset task queued with ID: ",
            json!({ "reset_count": 1, "reactivated_count": 0 }),
        ),
        (
            "reset_daily_spends",
            "Reactivated campaign: day\nSuccessfully reset daily spend for 1 campaigns. Reactivated 1 campaigns.\n",
            "Daily spend reset task queued with ID: ",
            json!({ "reset_count": 1, "reactivated_count": 1 }),
        ),
    ];
    let db = prepared().await;
    for (command, lines, ..) in &commands {
        assert_eq!(app(&db, &[command]), *lines);
    }
    assert_eq!(app(&db, &["check-budgets"]), "Budget check completed: 2 campaigns checked, 0 paused\n");
    assert_eq!(
        (state_of(&db, "C").await, state_of(&db, "hours").await),
        ("paused budget 100.01 0.00".into(), "active 0.00 0.00".into())
    );
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '00:00', '00:00:01' from generate_series(1, 7) d;
        update campaign.campaign set status = 'active', daily_spend = 0 where name = 'C'")).await;
    let hour: i32 = db.get("select extract(hour from now() at time zone 'UTC')::int").await;
    if hour > 0 {
        assert_eq!(
            app(&db, &["enforce_dayparting"]),
            "Disabled campaign C due to dayparting schedule\nDayparting enforcement completed: 0 enabled, 1 disabled\n"
        );
    }
    // In another database the same, one after another, as tasks.
    let db = prepared().await;
    let _daemon = db.daemon().ready().await;
    for (command, _, queued, counts) in &commands {
        let said = app(&db, &[command, "--async"]);
        let id: i64 = said.strip_prefix(queued).unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap();
        db.until(&format!("exists (select from rowbeat.tasks where id = {id} and state = 'completed')"))
            .await;
        assert_eq!(
            db.get::<Value>(&format!("select result from rowbeat.tasks where id = {id}")).await,
            *counts
        );
    }
    let tasks: i64 = db
        .get("select count(*) from campaign.status_change s join rowbeat.tasks t on t.id = s.task_id")
        .await;
    assert_eq!(tasks, 3, "the trail names the task");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_by_task_is_booked_once_and_answered_in_its_result() {
    let db = campaign().await;
    let _daemon = db.daemon().ready().await;
    db.run(&format!("select rowbeat.enqueue('campaign.add_campaign_spend', jsonb_build_object('campaign_id', {C}, 'amount', 12.34, 'description', 'by task'))")).await;
    for payload in [
        "{\"campaign_id\": 4711, \"amount\": 1}",
        "{\"campaign_id\": \"x\", \"amount\": 1}",
        "{\"campaign_id\": 1, \"amount\": \"much\"}",
        "{}",
    ] {
        db.run(&format!("select rowbeat.enqueue('campaign.add_campaign_spend', '{payload}')")).await;
    }
    db.until("(select count(*) = 5 from rowbeat.tasks where definition = 'campaign.add_campaign_spend' and state = 'completed')").await;
    let said: Vec<String> = db.get("select array_agg(result ->> 'message' order by id) from rowbeat.tasks where definition = 'campaign.add_campaign_spend'").await;
    assert_eq!(
        said,
        [
            "Successfully added $12.34 spend to campaign C",
            "Campaign with ID 4711 not found",
            "Campaign with ID x not found",
            "Error adding spend to campaign 1: amount must be at least 0.01 with at most two decimals",
            "Campaign with ID null not found",
        ]
    );
    assert_eq!(
        db.get::<String>("select string_agg(amount || ' ' || description, ', ') from campaign.spend").await,
        "12.34 by task"
    );
    db.run("select rowbeat.enqueue('campaign.generate_spend_report', '{\"brand_id\": 0}')").await;
    db.until("exists (select from rowbeat.tasks where definition = 'campaign.generate_spend_report' and result ->> 'total_daily_spend' = '0.00')").await;
}
