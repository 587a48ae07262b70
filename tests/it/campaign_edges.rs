//! Edges of campaign: locks that others hold, zones that are none, the order of the trail, and forms that are filled in oddly.

use serde_json::{Value, json};

use crate::campaign::{C, add, at, books_agree, call, campaign, spend, state, state_of, trail};
use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_that_meets_a_deadlock_is_tried_again_and_one_given_up_says_why() {
    let db = campaign().await;
    for (state, fails, status, tries) in [
        ("40P01", 3, "success", 4),
        ("40001", 1, "success", 2),
        ("55P03", 2, "success", 3),
        ("40P01", 9, "error", 4),
        ("22012", 9, "error", 1),
    ] {
        db.run(&format!(
            "create sequence public.try;
             create function public.meet() returns trigger language plpgsql as $$ begin
                 if nextval('public.try') <= {fails} then raise 'met' using errcode = '{state}'; end if; return new; end $$;
             create trigger meet before insert on campaign.spend for each row execute function public.meet();
             grant usage on sequence public.try to public"
        ))
        .await;
        let said = spend(&db, "1").await;
        assert_eq!(said["status"], status, "{state}: {said}");
        assert!(status == "success" || said["message"].as_str().unwrap().ends_with(": met"), "{said}");
        assert_eq!(db.get::<i64>("select last_value from public.try").await, tries, "{state}");
        db.run("drop trigger meet on campaign.spend; drop function public.meet(); drop sequence public.try")
            .await;
    }
    assert_eq!(state(&db).await, "active 3.00 3.00");
    books_agree(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_several_brands_locks_their_campaigns_in_one_order() {
    let db = campaign().await;
    // The first brand has the later campaign.
    db.run("insert into campaign.brand (name) values ('second');
        insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date) select id, 'early', 'active', 1, 1, '2020-01-01' from campaign.brand where name = 'second'").await;
    add(&db, "late", "active").await;
    let (holder, editor) = (db.session().await, db.session().await);
    holder
        .batch_execute("begin; select from campaign.campaign where name = 'early' for update")
        .await
        .unwrap();
    db.run("delete from campaign.campaign where name = 'C'").await;
    let edit = async {
        editor.batch_execute("update campaign.brand set is_active = false").await.unwrap();
    };
    let look = async {
        db.until("exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'update campaign.brand%')").await;
        db.run("select from campaign.campaign where name = 'late' for update nowait").await;
        holder.batch_execute("commit").await.unwrap();
    };
    tokio::join!(edit, look);
    assert_eq!(
        (state_of(&db, "early").await, state_of(&db, "late").await),
        ("paused brand 0.00 0.00".into(), "paused brand 0.00 0.00".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_names_no_zone_stops_nobody_and_one_that_moves_the_day_on_is_followed() {
    let db = campaign().await;
    at(&db, "2024-01-31 12:00Z").await;
    db.run("delete from campaign.campaign").await;
    add(&db, "C", "active").await;
    spend(&db, "150").await;
    for zone in ["Mars/Base", "europe/berlin", "EST5"] {
        rowbeat(&db, &["plugin", "set", "campaign", "zone", zone]).ok();
        assert_eq!(db.get::<String>("select campaign.default_zone()").await, "UTC", "{zone}");
        db.run("insert into campaign.brand (name) values ('n'); delete from campaign.brand where name = 'n'")
            .await;
        assert_eq!(
            call(&db, "check_campaign_budgets()").await,
            json!({ "checked_count": 0, "paused_count": 0 })
        );
        assert_eq!(
            spend(&db, "1").await["message"].as_str().unwrap().split(": ").last(),
            Some("campaign is paused")
        );
    }
    // There it is the 1st of February already.
    db.run("insert into campaign.brand (name, time_zone) values ('east', 'Pacific/Kiritimati')").await;
    rowbeat(&db, &["plugin", "set", "campaign", "zone", "Pacific/Kiritimati"]).ok();
    let said: Vec<String> = db.get("select array(select campaign.check_budgets('{}'))").await;
    assert_eq!(said, ["Reactivated campaign: C", "Budget check completed: 0 campaigns checked, 0 paused"]);
    assert_eq!(state(&db).await, "active 0.00 0.00");
    books_agree(&db).await;
    // What a check does not move on is left to the resets.
    at(&db, "2024-02-02 12:00Z").await;
    call(&db, "check_campaign_budgets()").await;
    assert_eq!(db.get::<String>("select daily_period::text from campaign.campaign").await, "2024-02-01");
    for zone in ["Bogus/X", "EST5"] {
        let set = format!("update campaign.campaign set time_zone = '{zone}'");
        assert_eq!(db.refusal(&set).await, ("RP400".to_owned(), format!("Unknown time zone: {zone}.")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_in_order_commands_name_every_change_and_no_budget_is_a_bar_too() {
    let db = campaign().await;
    spend(&db, "50").await;
    db.run("update campaign.campaign set status = 'active', pause_reason = null, daily_budget = 10").await;
    db.run("update campaign.campaign set status = 'paused', pause_reason = 'dates', daily_budget = 100")
        .await;
    assert_eq!(
        trail(&db).await,
        [
            "active > paused budget by edit",
            "paused budget > paused dates by edit",
            "paused dates > active by edit"
        ]
    );
    // A reset pauses what has no open window any more, and says so.
    db.run(&format!(
        "insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time)
        select {C}, extract(isodow from rowbeat.now_() at time zone 'UTC')::int, '00:00', '24:00'"
    ))
    .await;
    assert_eq!(state(&db).await, "active 50.00 50.00");
    crate::campaign::tomorrow(&db, "12:00").await;
    assert_eq!(
        db.get::<Vec<String>>("select array(select campaign.reset_lines('daily'))").await,
        [
            "Paused campaign C due to dayparting",
            "Successfully reset daily spend for 1 campaigns. Reactivated 0 campaigns."
        ]
    );
    db.run("truncate campaign.dayparting_window").await;
    assert!(state(&db).await.starts_with("active "), "without windows it may run");
    for arguments in ["10, 0", "0, 0", "null, 100", "10, null", "0, 100"] {
        let bar =
            format!("select concat_ws(' ', percent, colour, width) from campaign.budget_bar({arguments})");
        assert_eq!(db.get::<String>(&bar).await, "0.0 green 0.0", "{arguments}");
    }
    db.run(&format!("select campaign.run_add_campaign_spend(jsonb_build_object('campaign_id', {C}, 'amount', 1, 'description', null))")).await;
    assert!(db.get::<bool>("select description is null from campaign.spend order by id desc limit 1").await);
}

async fn send(site: &Site, path: &str, form: &str) -> Answer {
    site.ask("POST", path, &["Content-Type: application/x-www-form-urlencoded"], form.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_refuse_what_cannot_be_kept_and_decide_once() {
    let db = campaign().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/campaign/brands/", 200).await;
    let id: i64 = db.get(&format!("select {C}")).await;
    let path = format!("/campaign/campaigns/{id}/edit");
    let form = |more: &str| {
        format!(
            "brand_id=1&name=C&daily_budget=100&monthly_budget=1000&start_date=2020-01-01&end_date=&time_zone=&{more}"
        )
    };
    for (field, wrong, says) in [
        ("daily_budget=100", "daily_budget=100000000", "The daily budget must be from"),
        ("daily_budget=100", "daily_budget=1.005", "The daily budget must be from"),
        ("monthly_budget=1000", "monthly_budget=1e20", "The monthly budget must be from"),
        ("name=C", "name=+", "A name is needed."),
    ] {
        let refused = send(&site, &path, &form("").replace(field, wrong)).await;
        assert!(refused.status == 400 && refused.body.contains(says), "{wrong}: {refused:?}");
    }
    assert_eq!(send(&site, "/campaign/brands/new", "name=+%09").await.status, 400);
    assert_eq!(send(&site, "/campaign/brands/new", "name=+Trim+").await.status, 303);
    assert!(db.get::<bool>("select exists (select from campaign.brand where name = 'Trim')").await);

    // A window of all of today and one of tomorrow: they are replaced, and exchange their days, and it never stops.
    let today: i32 = db.get("select extract(isodow from now() at time zone 'UTC')::int").await;
    let days = [today, today % 7 + 1];
    db.run(&format!("insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {id}, d, '00:00', '24:00' from unnest('{{{},{}}}'::int[]) with ordinality u (d, n) order by n", days[0], days[1])).await;
    let rows = format!(
        "select array_agg(day_of_week order by id) from campaign.dayparting_window where campaign_id = {id}"
    );
    let keys: Vec<i64> = db.get("select array_agg(id order by id) from campaign.dayparting_window").await;
    let line = |key: &str, day: i32, times: &str| {
        format!("window_day_{key}={day}&window_start_{key}={times}&window_end_{key}={times}&window_active_{key}=true&")
            .replacen("=24:00&window_end", "=00:00&window_end", 1)
    };
    let (first, second) = (keys[0].to_string(), keys[1].to_string());
    let exchanged = line(&first, days[1], "24:00") + &line(&second, days[0], "24:00");
    assert_eq!(send(&site, &path, &form(&exchanged)).await.status, 303);
    assert_eq!(db.get::<Vec<i32>>(&rows).await, [days[1], days[0]], "they keep their ids");
    let replaced = line(&second, days[0], "24:00")
        + &format!("window_remove_{second}=true&")
        + &line("new1", days[0], "24:00");
    assert_eq!(send(&site, &path, &form(&replaced)).await.status, 303);
    assert_eq!(db.get::<Vec<i32>>(&rows).await, [days[1], days[0]]);
    assert!(db.get::<bool>(&format!("select max(id) > {second} from campaign.dayparting_window")).await);
    let blank = send(&site, &path, &form(&line(&first, days[0], ""))).await;
    assert!(blank.status == 400 && blank.body.contains("A window needs its times"), "{blank:?}");
    // A budget that is raised while the open window goes: one change, to the reason that applies.
    spend(&db, "60").await;
    let open: i64 = db.get("select max(id) from campaign.dayparting_window").await;
    let both = format!("{}window_remove_{open}=true", line(&open.to_string(), days[0], "24:00"));
    let low = form("").replace("daily_budget=100", "daily_budget=50");
    assert_eq!(send(&site, &path, &low).await.status, 303);
    assert_eq!(send(&site, &path, &form(&both)).await.status, 303);
    assert_eq!(
        trail(&db).await,
        ["active > paused budget by edit", "paused budget > paused dayparting by edit"]
    );

    // Older changes have pages.
    db.run(&format!("update campaign.dayparting_window set is_active = false;
        do $$ begin for n in 1 .. 30 loop update campaign.campaign set status = 'paused' where id = {id}; update campaign.campaign set status = 'active' where id = {id}; end loop; end $$")).await;
    let own = format!("/campaign/campaigns/{id}/");
    let (newest, older) = (site.get(&own).await.body, site.get(&format!("{own}?page=2")).await.body);
    assert!(
        newest.contains("Next") && !newest.contains("Previous") && !newest.contains("paused (budget)"),
        "{newest}"
    );
    assert!(
        older.contains("Previous") && !older.contains("Next") && older.contains("paused (budget)"),
        "{older}"
    );

    // A till has a token of the plugin, which opens no page.
    let token = rowbeat(&db, &["token", "create", "till", "--plugin", "campaign"]).ok();
    let header = format!("Authorization: Bearer {}", token.trim());
    let body = json!({ "campaign_id": id, "amount": 1, "late": true }).to_string();
    let json = "Content-Type: application/json";
    let paid = site.ask("POST", "/api/campaign/spend", &[&header, json], body.as_bytes()).await;
    assert_eq!((paid.status, &paid.json()["status"]), (200, &Value::from("success")), "{paid:?}");
    assert_eq!(site.ask("GET", &own, &[&header], b"").await.status, 403);
    assert_eq!(site.ask("POST", "/api/campaign/spend", &[json], body.as_bytes()).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_stands_exactly_with_a_pause() {
    let db = campaign().await;
    for sql in [
        "insert into campaign.campaign (brand_id, name, status, pause_reason, daily_budget, monthly_budget, start_date) select brand_id, 'x', 'active', 'budget', 1, 1, current_date from campaign.campaign",
        "update campaign.campaign set pause_reason = 'dates' where status = 'active'",
    ] {
        let (code, message) = db.refusal(sql).await;
        assert!(code == "23514" && message.contains("campaign_pause_has_a_reason"), "{code} {message}");
    }
    db.run("update campaign.campaign set status = 'paused', pause_reason = 'dates'").await;
    db.run("update campaign.campaign set status = 'draft'").await;
    assert!(
        db.get::<bool>("select pause_reason is null from campaign.campaign").await,
        "it goes with the pause"
    );
}
