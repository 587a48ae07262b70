//! Money of campaigns: booked once, in the right day, whatever happens at the same time.

use serde_json::{Value, json};

use crate::campaign::{C, add, at, books_agree, call, campaign, spend, state, tomorrow, trail};
use crate::harness::TestDb;

async fn refused(db: &TestDb, arguments: &str) -> String {
    let said: Value = db.get(&format!("select campaign.add_campaign_spend({arguments})")).await;
    assert_eq!(said["status"], "error", "{arguments}");
    said["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_what_is_no_spend_is_answered_and_leaves_no_row() {
    let db = campaign().await;
    let id: i64 = db.get(&format!("select {C}")).await;
    assert_eq!(refused(&db, "9999, 5").await, "Campaign with ID 9999 not found");
    assert_eq!(refused(&db, "null, 5").await, "Campaign with ID null not found");
    for amount in ["0", "-5", "1.005", "0.001", "null", "'NaN'", "0.009"] {
        assert_eq!(
            refused(&db, &format!("{id}, {amount}")).await,
            format!(
                "Error adding spend to campaign {id}: amount must be at least 0.01 with at most two decimals"
            )
        );
    }
    for amount in ["'Infinity'", "100000000"] {
        let said = refused(&db, &format!("{id}, {amount}")).await;
        assert_eq!(said, format!("Error adding spend to campaign {id}: amount must be at most 99999999.99"));
    }
    assert_eq!(
        refused(&db, &format!("{id}, 5, 'x', rowbeat.now_() + interval '1 minute'")).await,
        format!("Error adding spend to campaign {id}: time lies in the future")
    );
    // Whatever goes wrong inside is an answer, too.
    db.run("create function public.refuse() returns trigger language plpgsql as $$ begin raise 'no money today'; end $$;
        create trigger refuse before insert on campaign.spend for each row execute function public.refuse()").await;
    let said = refused(&db, &format!("{id}, 5")).await;
    assert_eq!(said, format!("Error adding spend to campaign {id}: no money today"));
    assert_eq!(db.get::<i64>("select count(*) from campaign.spend").await, 0);
    assert_eq!(state(&db).await, "active 0.00 0.00");
    db.run("drop trigger refuse on campaign.spend").await;
    assert_eq!(spend(&db, "1.500").await["message"], "Successfully added $1.50 spend to campaign C");
    let row: String = db.get("select concat_ws(' ', amount, description, late) from campaign.spend").await;
    assert_eq!(row, "1.50 Spend added via task f");
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_parallel_spends_are_all_counted_and_one_more_stops_it() {
    let db = campaign().await;
    let sessions = futures_util::future::join_all((0..10).map(|_| db.session())).await;
    let many = sessions.iter().map(async |session| {
        for _ in 0..10 {
            session.batch_execute(&format!("select campaign.add_campaign_spend({C}, 1.00)")).await.unwrap();
        }
    });
    futures_util::future::join_all(many).await;
    assert_eq!(state(&db).await, "active 100.00 100.00");
    assert_eq!(db.get::<i64>("select count(*) from campaign.spend").await, 100);
    spend(&db, "1.00").await;
    assert_eq!(state(&db).await, "paused budget 101.00 101.00");
    assert_eq!(trail(&db).await, ["active > paused budget by spend"]);
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a24_money_for_a_stopped_campaign_is_refused_unless_it_is_late_and_late_money_activates_nothing() {
    let db = campaign().await;
    let id: i64 = db.get(&format!("select {C}")).await;
    spend(&db, "100.01").await;
    assert_eq!(
        refused(&db, &format!("{id}, 5")).await,
        format!("Error adding spend to campaign {id}: campaign is paused")
    );
    assert_eq!(state(&db).await, "paused budget 100.01 100.01");
    let late = format!("select campaign.add_campaign_spend({id}, 5, p_late => true)");
    assert_eq!(db.get::<Value>(&late).await["status"], "success");
    assert_eq!(state(&db).await, "paused budget 105.01 105.01");
    assert!(db.get::<bool>("select late from campaign.spend order by id desc limit 1").await);
    for status in ["draft", "completed"] {
        db.run(&format!("update campaign.campaign set status = '{status}'")).await;
        assert_eq!(
            refused(&db, &format!("{id}, 5")).await,
            format!("Error adding spend to campaign {id}: campaign is {status}")
        );
        assert_eq!(db.get::<Value>(&late).await["status"], "success");
        assert_eq!(db.get::<String>("select status from campaign.campaign").await, status);
    }
    // It could run, but nobody has decided yet; late money does not, money does.
    db.run("update campaign.campaign set daily_budget = 1000; update campaign.campaign set status = 'paused', pause_reason = 'dayparting'").await;
    assert_eq!(db.get::<Value>(&late).await["status"], "success");
    assert_eq!(state(&db).await, "paused dayparting 120.01 120.01");
    assert_eq!(spend(&db, "1").await["status"], "success");
    assert_eq!(state(&db).await, "active 121.01 121.01");
    // A pause for another reason becomes one of the budget when late money crosses it.
    db.run("update campaign.campaign set status = 'paused', pause_reason = 'dayparting'").await;
    db.run(&format!("select campaign.add_campaign_spend({id}, 900, p_late => true)")).await;
    assert_eq!(state(&db).await, "paused budget 1021.01 1021.01");
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_belongs_to_the_day_of_its_own_time_and_moves_its_campaign_on() {
    let db = campaign().await;
    at(&db, "2024-02-29 23:00Z").await;
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    db.run("update campaign.campaign set time_zone = 'Europe/Berlin'").await;
    // There it is the 1st of March.
    assert_eq!(
        db.get::<String>("select daily_period || ' ' || monthly_period from campaign.campaign").await,
        "2024-03-01 2024-03-01"
    );
    let back = |amount: &str, time: &str| {
        format!("select campaign.add_campaign_spend({C}, {amount}, 'back', '{time}')")
    };
    db.run(&back("7", "2024-02-29 22:59:59Z")).await;
    assert_eq!(state(&db).await, "active 0.00 0.00", "its day and month are closed");
    db.run(&back("8", "2024-02-29 23:00:00Z")).await;
    assert_eq!(state(&db).await, "active 8.00 8.00");
    let days: Vec<String> =
        db.get("select array_agg(spend_day || ' ' || spend_month order by id) from campaign.spend").await;
    assert_eq!(days, ["2024-02-29 2024-02-01", "2024-03-01 2024-03-01"]);
    // The next day: the first spend begins it, the reset finds nothing to do, yesterday's late money is yesterday's.
    at(&db, "2024-03-01 23:00:05Z").await;
    spend(&db, "3").await;
    assert_eq!(state(&db).await, "active 3.00 11.00");
    assert_eq!(
        call(&db, "reset_daily_spends('Europe/Berlin')").await,
        json!({ "reset_count": 0, "reactivated_count": 0 })
    );
    db.run(&back("2", "2024-03-01 12:00Z")).await;
    assert_eq!(state(&db).await, "active 3.00 13.00", "the month is the same");
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_spend_of_a_day_finds_a_campaign_that_yesterday_s_budget_stopped_running() {
    let db = campaign().await;
    spend(&db, "150").await;
    assert_eq!(state(&db).await, "paused budget 150.00 150.00");
    tomorrow(&db, "00:00:00").await;
    let monthly: bool = db.get("select extract(day from rowbeat.now_()) = 1").await;
    assert_eq!(spend(&db, "5").await["status"], "success");
    assert_eq!(state(&db).await, if monthly { "active 5.00 5.00" } else { "active 5.00 155.00" });
    assert_eq!(trail(&db).await[1..], ["paused budget > active by reset"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_only_added_to_and_go_only_with_their_campaign() {
    let db = campaign().await;
    spend(&db, "150").await;
    db.run(&format!("select campaign.clear_spend(array[{C}], 'daily', 'ann')")).await;
    for table in ["spend", "counter_clear", "status_change"] {
        for statement in [
            format!("delete from campaign.{table}"),
            format!("update campaign.{table} set id = id"),
            format!("truncate campaign.{table}"),
        ] {
            let (state, message) = db.refusal(&statement).await;
            assert_eq!(
                (state.as_str(), message),
                ("RP409", format!("Rows of campaign.{table} are neither changed nor deleted.")),
                "{statement}"
            );
        }
    }
    db.run("delete from campaign.brand").await;
    for table in ["campaign", "spend", "counter_clear", "status_change"] {
        assert_eq!(db.get::<i64>(&format!("select count(*) from campaign.{table}")).await, 0);
    }
    db.run("truncate campaign.brand cascade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_counter_is_in_the_log_and_lets_the_campaign_run() {
    let db = campaign().await;
    spend(&db, "150").await;
    let clear = |counter: &str| format!("select campaign.clear_spend(array[{C}, -7], '{counter}', 'ann')");
    assert_eq!(db.get::<String>(&clear("daily")).await, "Successfully reset daily spend for 1 campaigns.");
    assert_eq!(state(&db).await, "active 0.00 150.00");
    assert_eq!(trail(&db).await[1..], ["paused budget > active by operator"]);
    assert_eq!(db.get::<String>("select concat_ws(' ', counter, amount_cleared, actor, period = (rowbeat.now_() at time zone 'UTC')::date) from campaign.counter_clear").await, "daily 150.00 ann t");
    spend(&db, "20").await;
    assert_eq!(
        db.get::<String>(&clear("monthly")).await,
        "Successfully reset monthly spend for 1 campaigns."
    );
    assert_eq!(state(&db).await, "active 20.00 0.00");
    books_agree(&db).await;
    // A day that has begun unseen is begun first.
    tomorrow(&db, "01:00").await;
    db.run(&clear("daily")).await;
    assert_eq!(db.get::<String>("select concat_ws(' ', amount_cleared, period = (rowbeat.now_() at time zone 'UTC')::date) from campaign.counter_clear order by id desc limit 1").await, "0.00 t");
    books_agree(&db).await;
    assert_eq!(db.refusal(&clear("weekly")).await.0, "RP400");
}

#[tokio::test(flavor = "multi_thread")]
async fn spends_clears_and_resets_of_two_daemons_lose_nothing_around_midnight() {
    let db = campaign().await;
    db.run("update campaign.campaign set daily_budget = 10000, monthly_budget = 100000").await;
    // Midnight comes while all of them are at work: a second of them before, the rest after.
    db.run(&format!(
        "do $$ declare v_offset interval := date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC' + interval '1 day' - interval '2 seconds' - clock_timestamp(); begin
             execute format('alter database {} set rowbeat.clock_offset = %L', v_offset);
             perform set_config('rowbeat.clock_offset', v_offset::text, false); end $$",
        db.name
    ))
    .await;
    let _daemons = (db.daemon().ready().await, db.daemon().ready().await);
    let sessions = futures_util::future::join_all((0..8).map(|_| db.session())).await;
    let spends = sessions[..6].iter().map(async |session| {
        for n in 0..40 {
            session.batch_execute(&format!("select campaign.add_campaign_spend({C}, 1.00)")).await.unwrap();
            if n % 4 == 0 {
                session.batch_execute(&format!("select rowbeat.enqueue('campaign.add_campaign_spend', jsonb_build_object('campaign_id', {C}, 'amount', 0.5))")).await.unwrap();
            }
        }
    });
    let resets = async {
        for _ in 0..40 {
            sessions[6]
                .batch_execute("select campaign.reset_daily_spends(); select campaign.reset_monthly_spends()")
                .await
                .unwrap();
        }
    };
    let clears = async {
        for _ in 0..20 {
            sessions[7].batch_execute(&format!("select campaign.clear_spend(array[{C}], 'daily', 'ann'); select campaign.check_campaign_budgets()")).await.unwrap();
        }
    };
    let watch = async {
        for _ in 0..50 {
            books_agree(&db).await;
        }
    };
    tokio::join!(futures_util::future::join_all(spends), resets, clears, watch);
    db.until("rowbeat.now_() > (select max(daily_period) from campaign.campaign) and extract(hour from rowbeat.now_() at time zone 'UTC') = 0").await;
    db.until("not exists (select from rowbeat.task where definition = 'campaign.add_campaign_spend')").await;
    db.until("exists (select from rowbeat.tasks where cause ->> 'name' = 'campaign.reset_daily_spends@UTC' and state = 'completed')").await;
    books_agree(&db).await;
    let log: String = db.get("select count(*) || ' ' || sum(amount) from campaign.spend").await;
    assert_eq!(log, "300 270.00", "nothing lost, nothing twice");
    assert!(
        db.get::<bool>(
            "select daily_period = (rowbeat.now_() at time zone 'UTC')::date from campaign.campaign"
        )
        .await
    );
}
