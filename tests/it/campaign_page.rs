//! Pages and actions of campaign, and its rights: by a real daemon over loopback HTTP.

use serde_json::json;

use crate::campaign::{C, add, campaign, spend, state, state_of, trail};
use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site};
use crate::harness::{Daemon, TestDb};
use crate::login::Login;

async fn site(db: &TestDb) -> Site {
    let site = Site::new(db, "").await;
    site.until("GET", "/campaign/brands/", 200).await;
    site
}

async fn send(site: &Site, path: &str, form: &str) -> Answer {
    site.ask("POST", path, &["Content-Type: application/x-www-form-urlencoded"], form.as_bytes()).await
}

/// Follows a redirect with the cookie that it set: the page that a browser shows next.
async fn follow(site: &Site, answer: &Answer) -> Answer {
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.header("set-cookie")[0].split(';').next().unwrap().to_owned();
    let next = site.ask("GET", answer.header("location")[0], &[&format!("Cookie: {cookie}")], b"").await;
    assert!(next.header("set-cookie")[0].contains("Max-Age=0"), "a message is shown once: {next:?}");
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_act_on_selected_campaigns_and_see_what_came_of_it() {
    let db = campaign().await;
    for (name, status) in [("D", "active"), ("draft", "draft"), ("E", "active")] {
        add(&db, name, status).await;
    }
    let site = site(&db).await;
    let ids: Vec<i64> = db.get("select array_agg(id order by id) from campaign.campaign").await;
    let all = format!("ids={}&ids={}&ids={}", ids[0], ids[1], ids[2]);
    let act = async |action: &str, ids: &str| -> String {
        let answer = send(&site, "/campaign/campaigns/", &format!("action={action}&{ids}")).await;
        let page = follow(&site, &answer).await;
        page.body
            .split("role=\"status\">")
            .nth(1)
            .unwrap_or_else(|| panic!("{page:?}"))
            .split('<')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(act("pause_campaigns", &all).await, "Successfully paused 2 campaigns.");
    assert_eq!(
        (state(&db).await.as_str(), state_of(&db, "draft").await.as_str(), state_of(&db, "E").await.as_str()),
        ("paused manual 0.00 0.00", "draft 0.00 0.00", "active 0.00 0.00")
    );
    assert_eq!(db.get::<String>("select distinct actor from campaign.status_change").await, "operator");
    assert_eq!(act("activate_campaigns", &all).await, "Successfully activated 3 campaigns.");
    assert_eq!(act("activate_campaigns", "").await, "Nothing is selected.");
    spend(&db, "150").await;
    assert_eq!(act("activate_campaigns", &all).await, "Successfully activated 0 campaigns.");
    // One that is paused for the budget becomes a person's pause, and counts no longer as active.
    assert_eq!(act("pause_campaigns", &format!("ids={}", ids[0])).await, "Successfully paused 0 campaigns.");
    assert_eq!(state(&db).await, "paused manual 150.00 150.00");
    assert_eq!(act("activate_campaigns", &all).await, "Successfully activated 0 campaigns.");
    assert_eq!(state(&db).await, "paused budget 150.00 150.00", "it may not run, and says why");
    assert_eq!(act("reset_daily_spend", &all).await, "Successfully reset daily spend for 3 campaigns.");
    assert_eq!(state(&db).await, "active 0.00 150.00");
    assert_eq!(act("reset_monthly_spend", &all).await, "Successfully reset monthly spend for 3 campaigns.");
    assert_eq!(
        db.get::<i64>("select count(*) from campaign.counter_clear where actor = 'operator'").await,
        6
    );
    assert!(trail(&db).await.iter().filter(|line| line.ends_with("by operator")).count() >= 4);
    assert_eq!(send(&site, "/campaign/campaigns/", "action=delete&ids=1").await.status, 400);
    let get = site.get(&format!("/campaign/campaigns/?action=pause_campaigns&ids={}", ids[0])).await;
    assert_eq!((get.status, state(&db).await.as_str()), (200, "active 0.00 0.00"), "a GET changes nothing");
    let foreign = site
        .ask(
            "POST",
            "/campaign/campaigns/",
            &["Content-Type: application/x-www-form-urlencoded", "Origin: http://evil.example"],
            all.as_bytes(),
        )
        .await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_filter_and_search_and_everything_is_escaped() {
    let db = campaign().await;
    db.run("insert into campaign.brand (name, description, is_active) values ('<i>Brand</i>', '50% off', false), ('empty', '', true);
        insert into campaign.campaign (brand_id, name, daily_budget, monthly_budget, start_date, end_date) select id, '<b>bold</b>', 10, 100, '2024-01-01', '2024-01-31' from campaign.brand where name like '<i>%';
        insert into campaign.spend (campaign_id, amount, description) select id, 8.01, '<u>u</u>' from campaign.campaign where name like '<b>%';
        insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select id, 2, '09:00', '17:00' from campaign.campaign where name like '<b>%'").await;
    spend(&db, "3").await;
    let site = site(&db).await;
    let id: i64 = db.get("select id from campaign.campaign where name like '<b>%'").await;
    let own = format!("/campaign/campaigns/{id}/");
    for (path, has, has_not) in [
        ("/campaign/brands/", &["&lt;i&gt;Brand", "$8.01", "$3.00", "$0.00"][..], &["<i>Brand"][..]),
        ("/campaign/brands/?q=50%25", &["Brand&lt;&#x2f;i&gt;"], &[">B</a>"]),
        ("/campaign/brands/?q=%25", &["Brand&lt;&#x2f;i&gt;"], &[">B</a>"]),
        ("/campaign/brands/?active=true&q=&from=&until=", &[">B</a>"], &["&lt;i&gt;Brand"]),
        ("/campaign/brands/?until=2020-01-01", &["Nothing here."], &[">B</a>"]),
        (
            "/campaign/campaigns/",
            &["&lt;b&gt;bold", "bar orange", "80.1 %", "width:80.1%", "action", "type=\"checkbox\""],
            &["<b>bold"],
        ),
        ("/campaign/campaigns/?status=draft&q=&brand=&from=&until=", &["&lt;b&gt;bold"], &[">C</a>"]),
        ("/campaign/campaigns/?q=i%3Ebrand", &["&lt;b&gt;bold"], &[">C</a>"]),
        ("/campaign/campaigns/?from=2024-02-01", &[">C</a>"], &["&lt;b&gt;bold"]),
        ("/campaign/campaigns/?until=2023-12-31", &[">C</a>"], &["&lt;b&gt;bold"]),
        (own.as_str(), &["&lt;b&gt;bold", "Tuesday", "$8.01", "&lt;u&gt;u", "draft"], &["<u>u"]),
        ("/campaign/windows/", &["Tuesday", "09:00:00", "&lt;b&gt;bold"], &["<b>bold"]),
        ("/campaign/spend/", &["$8.01", "$3.00", "&lt;u&gt;u"], &["<u>u", "<form", "type=\"checkbox\""]),
    ] {
        let page = site.get(path).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, vec!["text/html; charset=utf-8"]),
            "{path}: {page:?}"
        );
        for text in has {
            assert!(page.body.contains(text), "{path} lacks {text}: {}", page.body);
        }
        for text in has_not {
            assert!(!page.body.contains(text), "{path} has {text}: {}", page.body);
        }
        assert!(!page.body.contains("<script"), "no page needs JavaScript");
    }
    let body = site.get("/campaign/spend/").await.body;
    assert!(body.find("$3.00").unwrap() < body.find("$8.01").unwrap(), "newest first");
    assert_eq!(site.get("/campaign/campaigns/4711/").await.status, 404);
    assert_eq!(site.ask("POST", "/campaign/spend/", &[], b"").await.status, 405);
    let forged = site.ask("GET", "/campaign/brands/", &["Cookie: campaign_message=3c623e"], b"").await;
    assert!(forged.body.contains("&lt;b&gt;") && !forged.body.contains("<b>&"), "{forged:?}");
    assert_eq!(
        site.ask("GET", "/campaign/brands/", &["Cookie: campaign_message=xyz"], b"").await.status,
        200
    );
    db.run(&format!(
        "insert into campaign.spend (campaign_id, amount) select {C}, 0.01 from generate_series(1, 60)"
    ))
    .await;
    assert!(site.get("/campaign/spend/").await.body.contains("Next"));
    let second = site.get("/campaign/spend/?page=2").await.body;
    assert!(second.contains("Previous") && !second.contains("Next") && second.contains("$8.01"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_make_and_edit_brands_and_campaigns_with_windows() {
    let db = campaign().await;
    let site = site(&db).await;
    for path in [
        "/campaign/brands/new",
        "/campaign/brands/1/edit",
        "/campaign/campaigns/new",
        "/campaign/campaigns/1/edit",
    ] {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
    let made = follow(
        &site,
        &send(
            &site,
            "/campaign/brands/new",
            "name=N%26N&description=d&is_active=true&time_zone=Europe%2FBerlin",
        )
        .await,
    )
    .await;
    assert!(made.body.contains("Brand N&amp;N was saved."), "{made:?}");
    for (form, says) in
        [("name=B", "That is there already"), ("name=Z&time_zone=Mars", "Unknown time zone: Mars.")]
    {
        let refused = send(&site, "/campaign/brands/new", form).await;
        assert!(refused.status == 400 && refused.body.contains(says), "{refused:?}");
    }
    assert_eq!(send(&site, "/campaign/brands/new", "name=").await.status, 400);
    // A box that is not ticked is not sent.
    let brand: i64 = db.get("select id from campaign.brand where name = 'N&N'").await;
    send(&site, &format!("/campaign/brands/{brand}/edit"), "name=M&description=").await;
    assert_eq!(
        db.get::<String>(&format!(
            "select concat_ws(' ', name, is_active, time_zone) from campaign.brand where id = {brand}"
        ))
        .await,
        "M f"
    );
    assert_eq!(send(&site, "/campaign/brands/4711/edit", "name=M2").await.status, 404);

    let form = |more: &str| {
        format!(
            "brand_id=1&name=New&daily_budget=10.5&monthly_budget=100&start_date=2020-01-01&end_date=&time_zone=&{more}"
        )
    };
    let windows = "window_day_new1=1&window_start_new1=09:00&window_end_new1=17:00&window_active_new1=true&window_day_new2=5&window_start_new2=22:00&window_end_new2=02:00&window_day_new3=1&window_start_new3=&window_end_new3=";
    let made = follow(&site, &send(&site, "/campaign/campaigns/new", &form(windows)).await).await;
    assert!(made.body.contains("Campaign New was saved.") && made.body.contains("Friday"), "{made:?}");
    assert_eq!(state_of(&db, "New").await, "draft 0.00 0.00");
    let rows = "select array_agg(concat_ws(' ', w.day_of_week, w.start_time, w.end_time, w.is_active) order by w.id) from campaign.dayparting_window w join campaign.campaign c on c.id = w.campaign_id where c.name = 'New'";
    assert_eq!(db.get::<Vec<String>>(rows).await, ["1 09:00:00 17:00:00 t", "5 22:00:00 02:00:00 f"]);
    let id: i64 = db.get("select id from campaign.campaign where name = 'New'").await;
    let keys: Vec<i64> = db
        .get(&format!(
            "select array_agg(id order by id) from campaign.dayparting_window where campaign_id = {id}"
        ))
        .await;
    let edit = format!(
        "window_day_{0}=2&window_start_{0}=10:00&window_end_{0}=24:00&window_active_{0}=true&window_day_{1}=5&window_start_{1}=22:00&window_end_{1}=02:00&window_remove_{1}=true",
        keys[0], keys[1]
    );
    let path = format!("/campaign/campaigns/{id}/edit");
    assert_eq!(send(&site, &path, &form(&edit)).await.status, 303);
    assert_eq!(db.get::<Vec<String>>(rows).await, ["2 10:00:00 24:00:00 t"]);
    for (more, says) in [
        (
            "window_day_new1=1&window_start_new1=09:00&window_end_new1=09:00",
            "Start and end time must differ.",
        ),
        ("window_day_new1=1&window_start_new1=soon&window_end_new1=09:00", "soon"),
        ("window_day_new1=1&window_start_new1=&window_end_new1=09:00", "invalid input syntax for type time"),
    ] {
        let refused = send(&site, &path, &form(more)).await;
        assert!(
            refused.status == 400 && refused.body.contains(says) && refused.body.contains("value=\"New\""),
            "{more}: {refused:?}"
        );
    }
    for (wrong, says) in [
        ("monthly_budget=100", "monthly_budget=0"),
        ("end_date=", "end_date=2019-01-01"),
        ("name=New", "name=C"),
        ("brand_id=1", "brand_id=77"),
    ] {
        let refused = send(&site, &path, &form("").replace(wrong, says)).await;
        assert!(refused.status == 400 && refused.body.contains("role=\"alert\""), "{says}: {refused:?}");
    }
    assert_eq!(
        db.get::<Vec<String>>(rows).await,
        ["2 10:00:00 24:00:00 t"],
        "a refused form changes nothing"
    );
    assert_eq!(
        send(&site, "/campaign/campaigns/4711/edit", &form("").replace("New", "Other")).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn money_comes_in_over_http_and_is_answered_in_json() {
    let db = campaign().await;
    let site = site(&db).await;
    let id: i64 = db.get(&format!("select {C}")).await;
    for (body, answer) in [
        (
            json!({ "campaign_id": id, "amount": 100.01, "description": "d" }),
            json!({ "status": "success", "message": "Successfully added $100.01 spend to campaign C" }),
        ),
        (
            json!({ "campaign_id": id, "amount": 1 }),
            json!({ "status": "error", "message": format!("Error adding spend to campaign {id}: campaign is paused") }),
        ),
        (
            json!({ "campaign_id": id, "amount": "1.10", "late": true }),
            json!({ "status": "success", "message": "Successfully added $1.10 spend to campaign C" }),
        ),
        (
            json!({ "campaign_id": 9999, "amount": 1 }),
            json!({ "status": "error", "message": "Campaign with ID 9999 not found" }),
        ),
        (
            json!({ "campaign_id": id }),
            json!({ "status": "error", "message": format!("Error adding spend to campaign {id}: amount must be at least 0.01 with at most two decimals") }),
        ),
    ] {
        let said = site.post("/api/campaign/spend", &body).await;
        assert_eq!((said.status, said.json()), (200, answer), "{body}");
    }
    assert_eq!(
        site.post("/api/campaign/spend", &json!({ "campaign_id": "x", "amount": 1 })).await.status,
        400
    );
    let rows: Vec<String> = db
        .get("select array_agg(concat_ws(' ', amount, description, late) order by id) from campaign.spend")
        .await;
    assert_eq!(rows, ["100.01 d f", "1.10 Spend added via task t"]);
    // Once there is a token, it takes one; of an operator.
    rowbeat(&db, &["token", "create", "till", "--plugin", "campaign"]).ok();
    assert_eq!(site.get("/campaign/brands/").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_pause_without_a_reason_is_a_person_s_and_one_with_a_reason_is_kept() {
    let db = campaign().await;
    for (statement, expected) in [
        ("update campaign.campaign set status = 'paused'", "paused manual"),
        ("update campaign.campaign set status = 'active'", "active"),
        ("update campaign.campaign set status = 'paused', pause_reason = 'budget'", "paused budget"),
        ("update campaign.campaign set name = name", "paused budget"),
        (
            "update campaign.campaign set status = 'paused', pause_reason = 'budget', name = name",
            "paused budget",
        ),
        ("update campaign.campaign set status = 'paused'", "paused manual"),
        ("update campaign.campaign set status = 'paused', pause_reason = null", "paused manual"),
        ("update campaign.campaign set status = 'draft'", "draft"),
    ] {
        db.run(statement).await;
        assert_eq!(
            db.get::<String>("select concat_ws(' ', status, pause_reason) from campaign.campaign").await,
            expected,
            "{statement}"
        );
    }
    assert_eq!(trail(&db).await.len(), 5, "each change of status or reason is one row");
    for (wrong, constraint) in [
        ("daily_budget = 0", "daily_budget"),
        ("monthly_budget = 0.004", "monthly_budget"),
        ("end_date = start_date - 1", "ends_after"),
        ("status = 'gone'", "status"),
        ("daily_spend = -1", "daily_spend"),
    ] {
        let (state, message) = db.refusal(&format!("update campaign.campaign set {wrong}")).await;
        assert!(state == "23514" && message.contains(constraint), "{wrong}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn campaign_installs_passes_its_tests_lets_operators_work_and_goes_away() {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "campaign", "--test"]).ok();
    db.run("set role rowbeat_operator; insert into campaign.brand (name) values ('B')").await;
    add(&db, "C", "active").await;
    spend(&db, "150").await;
    assert_eq!(state(&db).await, "paused budget 150.00 150.00");
    for forbidden in [
        "update campaign.campaign set daily_spend = 0",
        "insert into campaign.spend (campaign_id, amount) values (1, 1)",
        "delete from campaign.spend",
        "select campaign.move_on('{1}', now())",
    ] {
        assert_eq!(db.refusal(forbidden).await.0, "42501", "{forbidden}");
    }
    assert_eq!(
        db.get::<String>(&format!("select campaign.clear_spend(array[{C}], 'daily', 'ann')")).await,
        "Successfully reset daily spend for 1 campaigns."
    );
    db.run("update campaign.campaign set daily_budget = 1; delete from campaign.campaign; reset role").await;
    rowbeat(&db, &["plugin", "remove", "campaign"]).ok();
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.schedule").await,
        0,
        "its zones' schedules go, too"
    );
    db.run(&format!(
        "insert into campaign.brand (name, time_zone) values ('Z', 'Asia/Tokyo');
         insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date, time_zone)
         select id, 'C', 'active', 100, 1000, '2020-01-01', 'Europe/Paris' from campaign.brand where name = 'Z';
         insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time) select {C}, d, '00:01', '23:59' from generate_series(1, 7) d;
         select set_config('rowbeat.clock_offset', (date_trunc('day', now() at time zone 'Europe/Paris') at time zone 'Europe/Paris' + interval '1 day' - now())::text, false);
         update campaign.dayparting_window set end_time = '23:58'; reset rowbeat.clock_offset"
    ))
    .await;
    rowbeat(&db, &["plugin", "install", "campaign"]).ok();
    db.run("select campaign.check_campaign_budgets()").await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.schedule where name like '%@%'").await,
        6,
        "those of zones that were written meanwhile, too"
    );
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.schedule where name like '%@UTC'").await,
        2,
        "and come back"
    );
    rowbeat(&db, &["plugin", "remove", "campaign", "--purge"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn campaign_works_also_where_no_roles_can_be_made() {
    let db = TestDb::empty().await;
    let login = Login::new(&db, "nocreaterole").await;
    let said = login.install("campaign");
    assert!(said.contains("not isolated"), "{said}");
    let _daemon = Daemon::start(login.command(), "", &[]).ready().await;
    db.run(&format!(
        "set role {}; insert into campaign.brand (name, time_zone) values ('B', 'Asia/Tokyo')",
        login.role
    ))
    .await;
    add(&db, "C", "active").await;
    db.run(&format!("select rowbeat.enqueue('campaign.add_campaign_spend', jsonb_build_object('campaign_id', {C}, 'amount', 150)); reset role")).await;
    db.until("exists (select from campaign.campaign where pause_reason = 'budget')").await;
}
