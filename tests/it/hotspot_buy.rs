//! Buying: from the form to the SMS, through crashes, refusals and everything that is reported twice.

use serde_json::{Value, json};

use crate::harness::{TestDb, server};
use crate::hotspot::{Shop, TEN, hotspot, paid};

/// What a pg_dump of the database says, line by line, with the table that each line is of.
fn dump(db: &TestDb) -> Vec<(String, String)> {
    let mut command = std::process::Command::new("pg_dump");
    let environment = server().psql(&db.name);
    command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut table = String::new();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| {
        if let Some(rest) = line.strip_prefix("COPY ") {
            table = rest.split(' ').next().unwrap().to_owned();
        }
        (table.clone(), line.to_owned())
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_purchase_is_one_sale_one_voucher_and_one_sms() {
    let shop = Shop::open().await;
    let cookie = shop.visit("0241234567", TEN).await;
    let set = shop
        .post(
            "/transactions/",
            "",
            &[("Full_Name", "Ama"), ("Phone_Number", "0249999999"), ("Data_Bundle", TEN)],
        )
        .await;
    assert!(
        set.header("set-cookie")[0].contains("HttpOnly")
            && set.header("set-cookie")[0].contains("SameSite=Lax")
    );
    assert_eq!(shop.get("/transactions/otp/", "").await.header("location"), ["/transactions/"]);
    assert_eq!(shop.get("/transactions/otp/", &cookie).await.status, 200);
    assert_eq!(shop.get("/transactions/status/", &cookie).await.status, 404, "nothing is bought yet");
    let otp = shop.otp("0241234567", 0).await;
    for wrong in [&otp[1..], "abc", ""] {
        let answer = shop.post("/transactions/otp/", &cookie, &[("otp", wrong)]).await;
        assert!(answer.body.contains("Enter the correct voucher code"), "{answer:?}");
    }
    for _ in 0..2 {
        let answer = shop.post("/transactions/otp/", &cookie, &[("otp", &otp)]).await;
        assert_eq!(answer.header("location"), ["/transactions/success/"]);
    }
    assert_eq!(
        shop.get("/transactions/otp/", &cookie).await.header("location"),
        ["/transactions/"],
        "the code was used"
    );
    shop.until("0241234567", "delivered").await;
    shop.db.until("(select sent_at is not null from hotspot.sms where kind = 'voucher')").await;
    let sale: Value = shop.db.get("select jsonb_build_array(count(*), bool_and(payment_status and voucher_code_received), max(length(voucher_code)), max(voucher_code), max(reference::text), max(mtn_transaction_id)) from hotspot.sale").await;
    assert_eq!((&sale[0], &sale[1], &sale[2]), (&json!(1), &json!(true), &json!(15)));
    let (code, reference) = (sale[3].as_str().unwrap(), sale[4].as_str().unwrap());
    let (user, password) = code.split_once(" - ").unwrap();
    let texts = shop.gateway.texts("0241234567").await;
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert_eq!(
        texts[1],
        format!(
            "You have successfully purchased 15GB  valid for 3 days at GHc10.\nHotspot Username : {user}\nHotspot Password : {password}\nTransaction ID : {}",
            sale[5].as_str().unwrap()
        )
    );

    let state = shop.gateway.state().await;
    let request = &state["momo"]["payments"][reference]["request"];
    assert_eq!(
        (&request["amount"], &request["currency"], &request["payer"]),
        (&json!("10"), &json!("GHS"), &json!({ "partyIdType": "MSISDN", "partyId": "233241234567" }))
    );
    assert_eq!((&request["payerMessage"], &request["payeeNote"]), (&json!("Payment"), &json!("pay me")));
    assert_eq!(state["router"]["users"][0]["name"], user);
    assert_eq!(state["router"]["users"][0]["password"], password);
    let assigned = &state["router"]["user_profiles"][0];
    assert_eq!((&assigned["profile"], &assigned["state"]), (&json!("10GHS 15GB"), &json!("running-active")));

    let status = shop.get("/transactions/status/", &cookie).await;
    assert_eq!(status.header("cache-control"), ["no-store"]);
    assert_eq!(
        status.json(),
        json!({ "status": "delivered", "details": "Payment is Successful", "username": user, "password": password })
    );
    let page = shop.get("/transactions/success/", &cookie).await;
    assert!(
        page.body.contains(user)
            && page.body.contains(password)
            && page.header("cache-control") == ["no-store"]
    );
    assert_eq!(shop.get("/transactions/status/", "").await.status, 404);
    assert_eq!(shop.get("/transactions/status/", "hotspot_checkout=x").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_credentials_are_in_their_rows_and_in_no_task_history_or_log() {
    let shop = Shop::open().await;
    // A provider that refuses and echoes, and a router that fails half-way, try to spill them.
    shop.gateway.set(json!({ "sms": { "down": true } })).await;
    let cookie = shop.visit("0241234567", TEN).await;
    shop.db.until("(select attempts > 0 from hotspot.sms where kind = 'otp')").await;
    let otp: String = shop.db.get("select right(text, 6) from hotspot.sms").await;
    shop.gateway.set(json!({ "router": { "loses_users": true } })).await;
    assert_eq!(shop.post("/transactions/otp/", &cookie, &[("otp", &otp)]).await.status, 303);
    shop.db.until("(select last_error = 'The router does not show the user.' from hotspot.sale)").await;
    let of_sale = "select jsonb_build_array(hotspot_username, hotspot_password) from hotspot.sale";
    let credentials: Value = shop.db.get(of_sale).await;
    let secrets = [otp.as_str(), credentials[0].as_str().unwrap(), credentials[1].as_str().unwrap()];
    let own = ["hotspot.sale", "hotspot.sms", "hotspot.delivery", "rowbeat.change", "rowbeat.backup_image"];
    let spilt = |allowed: &[&str]| -> Vec<(String, String)> {
        let lines =
            dump(&shop.db).into_iter().filter(|(table, _)| !allowed.iter().any(|own| table.starts_with(own)));
        lines.filter(|(_, line)| secrets.iter().any(|secret| line.contains(secret))).collect()
    };
    assert_eq!(spilt(&own), [], "also while tasks are at work");
    shop.gateway.set(json!({ "sms": { "down": false }, "router": { "loses_users": false } })).await;
    shop.db.until("not exists (select from rowbeat.task where definition = 'hotspot.deliver_voucher')").await;
    shop.db.run("select rowbeat.enqueue('hotspot.retry_deliveries')").await;
    shop.until("0241234567", "delivered").await;
    shop.db.until("(select sent_at is not null from hotspot.sms where kind = 'voucher')").await;
    shop.db
        .until("not exists (select from rowbeat.task where definition <> 'hotspot.refresh_dashboard')")
        .await;
    assert_eq!(spilt(&own), []);
    let code: Vec<_> = dump(&shop.db).into_iter().filter(|(_, line)| line.contains(&otp)).collect();
    assert!(code.is_empty(), "the one-time code is forgotten: {code:?}");
    let log = shop.site.daemon.log();
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_a_payment_that_takes_its_time_and_is_reported_twice_counts_once() {
    let shop = Shop::open().await;
    shop.buy("0241234594", TEN).await;
    let reference: String = shop.db.get("select reference::text from hotspot.sale").await;
    for poll in 1..=3 {
        shop.gateway.until(|state| state["momo"]["payments"][&reference]["polls"] == json!(poll)).await;
        shop.db
            .until("(select run_at > now() from rowbeat.task where definition = 'hotspot.poll_payment')")
            .await;
        let asked = shop.db.get::<f64>("select extract(epoch from run_at - now())::float8 from rowbeat.task where definition = 'hotspot.poll_payment'").await;
        assert!(asked <= 5.0, "{asked}");
        assert_eq!(shop.db.get::<String>("select status from hotspot.sale").await, "pending");
        // The gateway calls back, which makes the next poll come at once.
        let body = json!({ "externalId": shop.db.get::<String>("select external_id::text from hotspot.sale").await, "status": "SUCCESSFUL" });
        let answer = shop
            .site
            .ask(
                if poll == 1 { "PUT" } else { "POST" },
                "/transactions/callback/",
                &["Content-Type: application/json"],
                body.to_string().as_bytes(),
            )
            .await;
        assert_eq!((answer.status, answer.body.trim()), (200, "{}"));
    }
    shop.until("0241234594", "delivered").await;
    let again = format!(
        "select hotspot.record_payment(id, 'SUCCESSFUL', '{}', null) from hotspot.sale",
        &reference[..8]
    );
    assert_eq!(shop.db.get::<String>(&again).await, "delivered");
    shop.db.until("(select sent_at is not null from hotspot.sms where kind = 'voucher')").await;
    shop.db
        .until("not exists (select from rowbeat.task where definition <> 'hotspot.refresh_dashboard')")
        .await;
    let state = shop.gateway.state().await;
    assert_eq!(state["router"]["users"].as_array().unwrap().len(), 1);
    assert_eq!(shop.gateway.texts("0241234594").await.len(), 2, "the code and one voucher");
    assert_eq!(shop.db.get::<i64>("select count(*) from hotspot.sale").await, 1);
    for body in ["{}", "[1]", "{\"externalId\": 7}", "{\"referenceId\": \"x\"}"] {
        let answer = shop
            .site
            .ask("POST", "/transactions/callback/", &["Content-Type: application/json"], body.as_bytes())
            .await;
        assert_eq!(answer.status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_two_customers_see_each_his_own() {
    let shop = Shop::open().await;
    let (one, two) = (shop.buy("0241111192", TEN).await, shop.buy("0242222222", "3_GHS__2GB_(24hrs)").await);
    shop.until("0241111192", "failed").await;
    shop.until("0242222222", "delivered").await;
    let failed = shop.get("/transactions/status/", &one).await.json();
    assert_eq!(
        failed,
        json!({ "status": "failed", "details": "Payment is Unsuccessful. \nPlease Try Again" })
    );
    let delivered = shop.get("/transactions/status/", &two).await.json();
    assert_eq!(delivered["details"], "Payment is Successful");
    let user: String =
        shop.db.get("select hotspot_username::text from hotspot.sale where status = 'delivered'").await;
    assert_eq!(delivered["username"], user.as_str());
    assert!(!shop.get("/transactions/success/", &one).await.body.contains(&user));
    assert_eq!(
        shop.db.get::<String>("select last_error from hotspot.sale where status = 'failed'").await,
        "The payer's limit is reached."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_without_an_account_fails_and_a_gateway_that_is_down_loses_nothing() {
    let shop = Shop::open().await;
    shop.buy("0241234591", TEN).await;
    shop.until("0241234591", "failed").await;
    assert_eq!(
        shop.db.get::<String>("select last_error from hotspot.sale").await,
        "233241234591 is neither registered nor active"
    );
    shop.gateway.set(json!({ "momo": { "down": true } })).await;
    let cookie = shop.buy("0243333333", TEN).await;
    let processing = json!({ "status": "requested", "details": "Processing Payment. \n Please Wait" });
    assert_eq!(shop.get("/transactions/status/", &cookie).await.json(), processing);
    shop.db
        .until("(select last_error is not null from hotspot.sale where phone_number = '0243333333')")
        .await;
    // All four attempts fail; the sale stays, and what is found out later counts.
    shop.db.until("exists (select from rowbeat.tasks where definition = 'hotspot.request_payment' and state = 'failed')").await;
    assert_eq!(shop.get("/transactions/status/", &cookie).await.json(), processing);
    shop.gateway.set(json!({ "momo": { "down": false } })).await;
    shop.db.run("select rowbeat.retry_failed('hotspot.request_payment')").await;
    shop.until("0243333333", "delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_accepted_before_the_crash_is_not_made_twice() {
    let shop = Shop::open().await;
    // The gateway takes the request and answers after the daemon has died.
    shop.gateway.set(json!({ "momo": { "delay_ms": 1500 } })).await;
    shop.buy("0241234567", TEN).await;
    let paid = |state: &Value| !state["momo"]["payments"].as_object().unwrap().is_empty();
    shop.gateway.until(paid).await;
    let shop = shop.crash_and_come_back().await;
    shop.gateway.set(json!({ "momo": { "delay_ms": 0 } })).await;
    shop.until("0241234567", "delivered").await;
    let state = shop.gateway.state().await;
    assert_eq!(state["momo"]["payments"].as_object().unwrap().len(), 1);
    let posts = state["momo"]["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| *line == "POST /momo/collection/v1_0/requesttopay")
        .count();
    assert_eq!((posts, state["router"]["users"].as_array().unwrap().len()), (2, 1), "409 is as good as 202");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_reports_counts_once_and_no_payment_pays_two_sales() {
    let db = hotspot().await;
    let (one, two) = (paid(&db, "0241234567", TEN).await, paid(&db, "0247654321", TEN).await);
    let report = async |sale: &str, status: &str, id: &str, reason: &str| -> String {
        db.get(&format!("select hotspot.record_payment('{sale}', {status}, {id}, {reason})")).await
    };
    assert_eq!(report(&one, "'PENDING'", "null", "null").await, "pending");
    assert_eq!(report(&one, "'successful'", "'F1'", "null").await, "paid");
    assert_eq!(report(&one, "'SUCCESS'", "'F2'", "null").await, "paid");
    assert_eq!(report(&one, "'FAILED'", "null", "'late'").await, "paid");
    let first: Value = db.get(&format!("select jsonb_build_array(mtn_transaction_id, last_error, payment_status) from hotspot.sale where id = '{one}'")).await;
    assert_eq!(first, json!(["F1", null, true]));
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'hotspot.deliver_voucher'").await,
        1
    );

    for _ in 0..2 {
        assert_eq!(report(&two, "'SUCCESSFUL'", "'F1'", "null").await, "requested");
    }
    let refused: Value = db.get(&format!("select jsonb_build_array(last_error, payment_status, (select count(*) from hotspot.log_entry where object_id = '{two}')) from hotspot.sale where id = '{two}'")).await;
    assert_eq!(refused, json!(["Financial transaction F1 belongs to another sale.", false, 1]));
    assert_eq!(report(&two, "'REJECTED'", "null", "null").await, "failed");
    assert_eq!(report(&two, "null", "null", "null").await, "failed");
    assert_eq!(report(&two, "'SUCCESSFUL'", "'F3'", "null").await, "paid", "money that came late is money");
    let nobody =
        db.refusal("select hotspot.record_payment(gen_random_uuid(), 'SUCCESSFUL', 'x', null)").await;
    assert_eq!(nobody.0, "RP404");
    db.run("update hotspot.sale set created_at = '2000-01-01'").await;
    assert!(
        db.get::<bool>("select bool_and(created_at > '2020-01-01') from hotspot.sale").await,
        "the date of a sale never moves"
    );
    assert_eq!(db.refusal("insert into hotspot.sale (full_name, phone_number, bundle_code) values ('x', '12', '3_GHS__2GB_(24hrs)')").await.0, "23514");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_payment_is_asked_for_every_five_seconds_then_minutes_and_for_a_day() {
    let db = hotspot().await;
    let sale = paid(&db, "0241234567", TEN).await;
    let settle = async |age: &str, response: Value| -> Value {
        db.run("update hotspot.sale set status = 'pending', last_error = null where status = 'failed'").await;
        let sql = format!("set rowbeat.clock_offset = '{age}'");
        db.run(&sql).await;
        let task = json!({ "payload": { "sale": sale } });
        let answer = db.get_with("select coalesce(hotspot.settle_poll($1, '{\"outcome\": \"done\"}', array[$2::jsonb]), 'null')", &[&task, &response]).await;
        db.run("reset rowbeat.clock_offset").await;
        answer
    };
    let pending = json!({ "status": 200, "body": { "status": "PENDING" } });
    assert_eq!(settle("9 minutes", pending.clone()).await, json!({ "snooze": 5 }));
    assert_eq!(settle("11 minutes", pending.clone()).await, json!({ "snooze": 300 }));
    assert_eq!(
        settle("23 hours", json!({ "status": 200, "body": "a page of a proxy" })).await,
        json!({ "snooze": 300 })
    );
    assert_eq!(settle("25 hours", pending).await, json!({ "status": "failed" }));
    assert_eq!(db.get::<String>("select last_error from hotspot.sale").await, "timeout");
    let missing = json!({ "status": 404, "body": {} });
    assert_eq!(settle("11 minutes", missing.clone()).await, json!({ "snooze": 300 }), "it took the request");
    assert_eq!(settle("25 hours", missing.clone()).await, json!({ "status": "failed" }));
    db.run("update hotspot.sale set status = 'requested'").await;
    assert_eq!(
        settle("1 minute", missing.clone()).await,
        json!({ "snooze": 5 }),
        "the request may be on its way"
    );
    assert_eq!(settle("11 minutes", missing).await, json!({ "status": "failed" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciliation_polls_open_payments_that_nothing_polls() {
    let shop = Shop::open().await;
    shop.buy("0241234593", TEN).await;
    shop.until("0241234593", "pending").await;
    shop.db
        .run("select rowbeat.cancel(id) from rowbeat.task where definition = 'hotspot.poll_payment'")
        .await;
    shop.db.until("not exists (select from rowbeat.task where definition = 'hotspot.poll_payment')").await;
    let reference: String = shop.db.get("select reference::text from hotspot.sale").await;
    shop.gateway.set(json!({ "momo": { "payments": { reference: { "status": "SUCCESSFUL" } } } })).await;
    shop.db.run("select rowbeat.enqueue('hotspot.reconcile_payments'), rowbeat.enqueue('hotspot.reconcile_payments')").await;
    shop.until("0241234593", "delivered").await;
    let schedules: Value = shop.db.get("select jsonb_object_agg(name, jsonb_build_array(spec, overlap, catch_up)) from rowbeat.schedule where name like 'hotspot.%'").await;
    assert_eq!(
        schedules,
        json!({ "hotspot.reconcile_payments": ["every 5 minutes", "skip", "last"], "hotspot.retry_deliveries": ["every 5 minutes", "skip", "last"],
            "hotspot.check_sms_balance": ["@hourly", "skip", "last"], "hotspot.close_checkouts": ["@daily", "skip", "last"] })
    );
    assert!(
        shop.db
            .get::<bool>(
                "select bool_and(queue = 'hotspot') from rowbeat.task_definition where name like 'hotspot.%'"
            )
            .await
    );
}
