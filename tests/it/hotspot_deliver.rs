//! Delivering: by the router, by the pool, by both; and refunds, which exclude it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, TestDb};
use crate::hotspot::{Shop, TEN, hotspot, paid};

const THREE: &str = "3_GHS__2GB_(24hrs)";

async fn set_delivery(db: &TestDb, how: &str) {
    db.run(&format!("update rowbeat.plugin_setting set value = '\"{how}\"' where name = 'delivery'")).await;
}

/// So many vouchers for a bundle, or for any.
async fn fill(db: &TestDb, prefix: &str, count: usize, bundle: &str) {
    db.run(&format!("insert into hotspot.voucher (username, password, bundle_code) select '{prefix}' || g, 'pw{prefix}' || g, {bundle} from generate_series(1, {count}) g")).await;
}

fn refund(id: &str, reason: &str, overridden: bool) -> String {
    format!("select hotspot.refund('{id}', '{reason}', 'clerk', {overridden})")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_chosen_by_its_whole_price() {
    let db = hotspot().await;
    let profile = async |amount: &str, profiles: &str| -> String {
        db.get(&format!("select hotspot.match_profile({amount}, '{{{profiles}}}')")).await
    };
    assert_eq!(profile("3", "30GHS Unlimited,3GHS 2GB,300 x").await, "3GHS 2GB");
    assert_eq!(profile("30.00", "3GHS 2GB,30GHS Unlimited").await, "30GHS Unlimited");
    assert_eq!(profile("0.1", "0.10 test,0 x,1 y").await, "0.10 test");
    assert_eq!(profile("3", "3.0GHS,GHS 3,31x").await, "3.0GHS");
    for (amount, profiles, says) in [
        ("3", "30GHS,13GHS,GHS3", "No router profile for 3"),
        ("3.00", "", "No router profile for 3"),
        ("3", "3GHS a,3.00GHS b", "Several router profiles for 3"),
        ("0.10", "0.1 a,0.10 b", "Several router profiles for 0.1"),
    ] {
        let refusal = db.refusal(&format!("select hotspot.match_profile({amount}, '{{{profiles}}}')")).await;
        assert_eq!(refusal, ("RP409".into(), says.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_router_that_is_down_leaves_a_paid_sale_that_is_delivered_later_or_refunded() {
    let shop = Shop::open().await;
    shop.gateway.set(json!({ "router": { "down": true } })).await;
    let cookie = shop.buy("0241111111", TEN).await;
    shop.buy("0242222222", TEN).await;
    shop.db
        .until("(select count(*) = 2 from hotspot.sale where status = 'paid' and last_error like '%503%')")
        .await;
    let flags: Value = shop
        .db
        .get("select jsonb_agg(jsonb_build_array(payment_status, voucher_code_received)) from hotspot.sale")
        .await;
    assert_eq!(flags, json!([[true, false], [true, false]]));
    let page = shop.get("/hotspot/refunds/", "").await.body;
    assert!(page.contains("0241111111") && page.contains("0242222222") && page.contains("503"), "{page}");
    assert_eq!(
        shop.get("/transactions/status/", &cookie).await.json(),
        json!({ "status": "paid", "details": "Payment is Successful" })
    );
    // All attempts are used up; the schedule's task goes on.
    shop.db.until("(select count(*) = 2 from rowbeat.tasks where definition = 'hotspot.deliver_voucher' and state = 'failed')").await;
    let attempts: Value = shop
        .db
        .get("select jsonb_agg(failures) from rowbeat.tasks where definition = 'hotspot.deliver_voucher'")
        .await;
    assert_eq!(attempts, json!([6, 6]));
    let second: String =
        shop.db.get("select id::text from hotspot.sale where phone_number = '0242222222'").await;
    let answer = shop.post("/hotspot/refunds/", "", &[("sale", &second), ("reason", "he waited long")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, vec!["/hotspot/refunds/"]));
    assert!(!shop.get("/hotspot/refunds/", "").await.body.contains("0242222222"));
    shop.gateway.set(json!({ "router": { "down": false } })).await;
    shop.db.run("select rowbeat.enqueue('hotspot.retry_deliveries')").await;
    shop.until("0241111111", "delivered").await;
    assert!(!shop.get("/hotspot/refunds/", "").await.body.contains("0241111111"));
    shop.db.until("not exists (select from rowbeat.task where definition not like '%dashboard')").await;
    let users = shop.gateway.state().await;
    assert_eq!(users["router"]["users"].as_array().unwrap().len(), 1, "the refunded sale gets nothing");
    assert_eq!(shop.db.refusal(&format!("select hotspot.claim_voucher('{second}')")).await.0, "RP409");
    assert_eq!(
        shop.db.get::<String>("select status from hotspot.sale where phone_number = '0242222222'").await,
        "refunded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c15_a_refund_is_of_money_taken_once_and_after_delivery_only_by_override() {
    let shop = Shop::open().await;
    shop.buy("0241234567", TEN).await;
    shop.until("0241234567", "delivered").await;
    let unpaid = paid(&shop.db, "0240000000", TEN).await;
    let delivered: String = shop.db.get("select id::text from hotspot.sale where status = 'delivered'").await;
    let refused = |code: &str, says: &str| (code.to_owned(), says.to_owned());
    let nobody = "00000000-0000-0000-0000-000000000000";
    assert_eq!(shop.db.refusal(&refund(nobody, " ", false)).await, refused("RP400", "Reason is required."));
    assert_eq!(shop.db.refusal(&refund(nobody, "x", false)).await.0, "RP404");
    assert_eq!(
        shop.db.refusal(&refund(&unpaid, "x", true)).await,
        refused("RP409", "Only a paid transaction can be refunded.")
    );
    let confirm = refused("RP409", "Voucher was delivered. Confirm the override to refund.");
    assert_eq!(shop.db.refusal(&refund(&delivered, "x", false)).await, confirm);
    let answer = shop.post("/hotspot/refunds/", "", &[("sale", &delivered), ("reason", "x")]).await;
    assert_eq!((answer.status, answer.json()), (409, json!({ "error": confirm.1 })));

    // Many ask at once: one refund.
    let mut asked = Vec::new();
    for _ in 0..8 {
        let (session, sql) = (shop.db.session().await, refund(&delivered, "he is angry", true));
        asked.push(tokio::spawn(async move {
            session
                .batch_execute(&sql)
                .await
                .err()
                .map(|error| error.as_db_error().unwrap().message().to_owned())
        }));
    }
    let mut answers = Vec::new();
    for one in asked {
        answers.push(one.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "{answers:?}");
    assert!(answers.iter().flatten().all(|says| says == "Transaction is already refunded."), "{answers:?}");
    let kept: Value = shop.db.get(&format!("select jsonb_build_array(status, refunded_amount, refund_reason, refunded_by, refund_override, refunded_at is not null) from hotspot.sale where id = '{delivered}'")).await;
    assert_eq!(kept, json!(["refunded", 10.0, "he is angry", "clerk", true, true]));
    assert_eq!(
        shop.db.get::<i64>("select count(*) from hotspot.log_entry where action_flag = 'refund'").await,
        1
    );
    shop.gateway.until(|state| state["router"]["users"] == json!([])).await;
    shop.db.until("(select router_user is null from hotspot.delivery)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_and_a_delivery_at_work_exclude_each_other() {
    let shop = Shop::open().await;
    shop.gateway.set(json!({ "router": { "delay_ms": 800 } })).await;
    shop.buy("0241234567", TEN).await;
    shop.db.until("exists (select from hotspot.delivery where attempt is not null)").await;
    let id: String = shop.db.get("select id::text from hotspot.sale").await;
    let running = shop.db.refusal(&refund(&id, "x", false)).await;
    assert_eq!(
        running,
        ("RP409".to_owned(), "A delivery attempt is running. Try again in a moment.".to_owned())
    );
    // A mark that a dead daemon left behind is in nobody's way.
    let shop = shop.crash_and_come_back().await;
    shop.gateway.set(json!({ "router": { "down": true, "delay_ms": 0 } })).await;
    shop.db.until("(select last_error is not null from hotspot.sale) and not exists (select from rowbeat.task where definition = 'hotspot.deliver_voucher' and state = 'running')").await;
    let (begun, session) = (Instant::now(), shop.db.session().await);
    while session.batch_execute(&refund(&id, "x", false)).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is never refunded");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    shop.gateway.set(json!({ "router": { "down": false } })).await;
    shop.db.until("not exists (select from rowbeat.task where definition like 'hotspot.%' and definition not like '%dashboard')").await;
    assert_eq!(shop.db.get::<String>("select status from hotspot.sale").await, "refunded");
    assert_eq!(shop.gateway.state().await["router"]["users"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_cancels_the_delivery_that_waits_and_no_other() {
    let db = hotspot().await;
    let (one, two) = (paid(&db, "0241111111", TEN).await, paid(&db, "0242222222", TEN).await);
    for id in [&one, &two] {
        db.run(&format!("select hotspot.record_payment('{id}', 'SUCCESSFUL', '{id}', null)")).await;
    }
    // In its isolation, as the page calls it: by its own role it may cancel its own tasks.
    db.run(&format!("set role rowbeat_{}_hotspot", db.name)).await;
    db.run(&refund(&one, "he waited long", false)).await;
    db.run("reset role").await;
    let states: Value = db
        .get("select jsonb_object_agg(payload ->> 'sale', state) from rowbeat.tasks where definition = 'hotspot.deliver_voucher'")
        .await;
    assert_eq!((&states[&one], &states[&two]), (&json!("cancelled"), &json!("available")));
    // One that waits for its next attempt, too.
    db.run("update rowbeat.task set run_at = now() + interval '1 hour', failures = 1 where definition = 'hotspot.deliver_voucher'")
        .await;
    db.run(&refund(&two, "he waited longer", false)).await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'hotspot.deliver_voucher'").await,
        0
    );
    assert_eq!(db.get::<i64>("select count(*) from hotspot.sale where status = 'refunded'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_s_own_profile_wins_and_a_wrong_profile_heals() {
    let shop = Shop::open().await;
    shop.gateway.set(json!({ "router": { "profiles": ["3GHS a", "3GHS b", "30GHS c"] } })).await;
    shop.buy("0241234567", THREE).await;
    shop.db.until("(select last_error = 'Several router profiles for 3' from hotspot.sale)").await;
    shop.db.run("update hotspot.bundle set router_profile = 'special' where code like '3\\_%'").await;
    shop.db.until("(select last_error = 'The router has no profile special' from hotspot.sale) or (select state = 'failed' from rowbeat.tasks where definition = 'hotspot.deliver_voucher')").await;
    shop.gateway.set(json!({ "router": { "profiles": ["3GHS a", "special"] } })).await;
    shop.db.run("select rowbeat.enqueue('hotspot.retry_deliveries')").await;
    shop.until("0241234567", "delivered").await;
    assert_eq!(shop.gateway.state().await["router"]["user_profiles"][0]["profile"], "special");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_there_already_is_fine_and_assigned_once() {
    let shop = Shop::open().await;
    shop.gateway.set(json!({ "router": { "down": true } })).await;
    shop.buy("0241234567", TEN).await;
    shop.db.until("(select last_error is not null from hotspot.sale where status = 'paid')").await;
    let (user, password): (String, String) = (
        shop.db.get("select hotspot_username::text from hotspot.sale").await,
        shop.db.get("select hotspot_password::text from hotspot.sale").await,
    );
    shop.gateway.set(json!({ "router": { "down": false, "users": [{ ".id": "*A", "name": user, "password": password, "shared-users": "1", "disabled": "false" }],
        "user_profiles": [{ ".id": "*B", "user": user, "profile": "10GHS 15GB", "state": "running-active" }] } })).await;
    shop.db.run("select rowbeat.enqueue('hotspot.retry_deliveries')").await;
    shop.until("0241234567", "delivered").await;
    let state = shop.gateway.state().await;
    assert_eq!(
        (
            state["router"]["users"].as_array().unwrap().len(),
            state["router"]["user_profiles"].as_array().unwrap().len()
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_buyers_get_distinct_vouchers_and_the_rest_wait() {
    let db = hotspot().await;
    fill(&db, "u", 12, "null").await;
    fill(&db, "t", 4, &format!("'{THREE}'")).await;
    fill(&db, "z", 9, "'30_GHS__(Unlimited_24hrs)'").await;
    let mut sales = Vec::new();
    for number in 0..20 {
        sales.push(paid(&db, &format!("02412345{number:02}"), if number < 8 { THREE } else { TEN }).await);
    }
    db.run("update hotspot.sale set status = 'paid', paid_at = now()").await;
    let mut claims = Vec::new();
    for id in &sales {
        let (session, sql) = (db.session().await, format!("select hotspot.claim_voucher('{id}')::text"));
        claims.push(tokio::spawn(async move {
            session.query_one(&sql, &[]).await.unwrap().get::<_, Option<String>>(0)
        }));
    }
    let mut got = Vec::new();
    for claim in claims {
        got.push(claim.await.unwrap());
    }
    let owned: std::collections::BTreeSet<&String> = got.iter().flatten().collect();
    assert_eq!(owned.len(), got.iter().flatten().count(), "one owner each");
    for (id, first) in sales.iter().zip(&got) {
        let again: Option<String> = db.get(&format!("select hotspot.claim_voucher('{id}')::text")).await;
        assert!(first.is_none() || again == *first, "the same sale gets the same voucher");
    }
    let claimed: Value = db.get("select jsonb_object_agg(coalesce(left(bundle_code, 2), 'any'), n) from (select bundle_code, count(*) filter (where claimed) as n from hotspot.voucher group by 1) v").await;
    assert_eq!(claimed, json!({ "any": 12, "3_": 4, "30": 0 }), "nobody gets another bundle's");
    assert!(db.get::<bool>("select bool_and(s.bundle_code = v.bundle_code or v.bundle_code is null) from hotspot.voucher v join hotspot.sale s on s.id = v.sale_id").await);
    assert_eq!(db.get::<i64>("select count(*) from hotspot.refundable").await, 20);
    let fresh = paid(&db, "0249999999", TEN).await;
    let unpaid = db.refusal(&format!("select hotspot.claim_voucher('{fresh}')")).await;
    assert_eq!(unpaid, ("RP409".into(), "Only a paid transaction can claim a voucher.".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_found_the_pool_empty_is_served_when_vouchers_arrive() {
    let shop = Shop::open().await;
    set_delivery(&shop.db, "pool").await;
    shop.buy("0241234567", TEN).await;
    shop.db.until("(select last_error = 'No voucher is left in the pool.' from hotspot.sale)").await;
    assert!(shop.get("/hotspot/refunds/", "").await.body.contains("No voucher is left"));
    fill(&shop.db, "gift", 2, "null").await;
    shop.until("0241234567", "delivered").await;
    let kept: Value = shop.db.get("select jsonb_build_array(voucher_code, hotspot_username, last_error, (select count(*) from hotspot.voucher where claimed)) from hotspot.sale").await;
    assert_eq!(kept, json!(["gift1 - pwgift1", "gift1", null, 1]));
    shop.db.until("(select sent_at is not null from hotspot.sms where kind = 'voucher')").await;
    assert!(
        shop.gateway.texts("0241234567").await[1]
            .contains("Hotspot Username : gift1\nHotspot Password : pwgift1\n")
    );
    assert_eq!(
        shop.gateway.state().await["router"]["requests"],
        json!([]),
        "the router has nothing to do with it"
    );
    // A refund leaves the voucher claimed.
    let id: String = shop.db.get("select id::text from hotspot.sale").await;
    shop.db.run(&refund(&id, "x", true)).await;
    assert_eq!(
        shop.db
            .get::<i64>("select count(*) from hotspot.voucher where claimed and sale_id is not null")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_router_the_pool_helps_and_the_router_keeps_no_user() {
    let shop = Shop::open().await;
    set_delivery(&shop.db, "router_then_pool").await;
    fill(&shop.db, "pool", 1, "null").await;
    shop.buy("0241111111", TEN).await;
    shop.until("0241111111", "delivered").await;
    assert!(
        shop.db.get::<bool>("select voucher_code ~ '^[0-9][a-z]{4}[0-9] - ' from hotspot.sale").await,
        "the router comes first"
    );
    // The router takes the user and then fails.
    shop.gateway.set(json!({ "router": { "loses_users": true } })).await;
    shop.buy("0242222222", TEN).await;
    shop.until("0242222222", "delivered").await;
    assert_eq!(
        shop.db
            .get::<String>("select voucher_code::text from hotspot.sale where phone_number = '0242222222'")
            .await,
        "pool1 - pwpool1"
    );
    shop.db.until("not exists (select from rowbeat.task where definition not like '%dashboard')").await;
    assert_eq!(
        shop.db.get::<i64>("select count(*) from hotspot.delivery where router_user is not null").await,
        1,
        "the delivered one's"
    );
    assert_eq!(shop.gateway.texts("0242222222").await.len(), 2);
}
