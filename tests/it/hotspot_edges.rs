//! What partners and people do now and then: answers that get lost, empty ids, odd lists, documents that are none.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::TestDb;
use crate::hotspot::{TEN, hotspot, paid};

/// What settling an attempt at a request makes of the sale: its status. `answers`: how far the attempt came.
async fn settle(db: &TestDb, sale: &str, attempt: i32, outcome: &str, answers: &[Value]) -> String {
    let task = json!({ "payload": { "sale": sale }, "attempt": attempt, "failures": 0 });
    let outcome = json!({ "outcome": outcome, "error": { "message": "400 Bad Request" } });
    db.get_with("select hotspot.settle_request($1, $2, $3) ->> 'status'", &[&task, &outcome, &answers]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_got_lost_is_not_given_up_when_the_next_one_is_refused() {
    let db = hotspot().await;
    let active = [json!({ "status": 200, "body": { "result": true } })];
    let inactive = [json!({ "status": 404, "body": null })];
    for (phone, attempts, status) in [
        ("0241000001", vec![("rejected", &active[..])], "failed"),
        ("0241000002", vec![("failed", &active), ("rejected", &active)], "requested"),
        ("0241000003", vec![("failed", &active), ("done", &inactive)], "requested"),
        ("0241000004", vec![("failed", &[]), ("rejected", &active)], "failed"),
        (
            "0241000005",
            vec![("failed", &[]), ("failed", &active), ("failed", &[]), ("rejected", &active)],
            "requested",
        ),
        ("0241000006", vec![("lost", &[]), ("rejected", &active)], "requested"),
    ] {
        let sale = paid(&db, phone, TEN).await;
        let mut now = String::new();
        for (attempt, (outcome, answers)) in (1..).zip(attempts) {
            now = settle(&db, &sale, attempt, outcome, answers).await;
        }
        assert_eq!(now, status, "{phone}");
    }
    // Interrupted attempts are not settled: the second is the first that is heard of.
    let sale = paid(&db, "0241000007", TEN).await;
    assert_eq!(settle(&db, &sale, 2, "rejected", &active).await, "requested");
    let odd = json!({ "status": 200, "body": "<html>" });
    let (code, refused) = db.refusal(&format!("select hotspot.is_account('{odd}')")).await;
    assert!(code == "RP409" && refused.contains("did not say"), "{code} {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_without_an_id_of_the_gateway_do_not_get_into_each_others_way() {
    let db = hotspot().await;
    for phone in ["0241000001", "0241000002"] {
        let sale = paid(&db, phone, TEN).await;
        let status: String =
            db.get(&format!("select hotspot.record_payment('{sale}', 'SUCCESSFUL', ' ', null)")).await;
        assert_eq!(status, "paid");
    }
    let sale: String = db.get("select id::text from hotspot.sale limit 1").await;
    let (code, refused) = db.refusal(&format!("select hotspot.refund('{sale}', E'\\n\\t', 'ama')")).await;
    assert_eq!((code.as_str(), refused.as_str()), ("RP400", "Reason is required."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_refuses_is_tried_again_too() {
    let db = hotspot().await;
    let sale = paid(&db, "0241000001", TEN).await;
    db.run(&format!("select hotspot.record_payment('{sale}', 'SUCCESSFUL', '1', null)")).await;
    let task = json!({ "payload": { "sale": sale }, "id": 1, "attempt": 1, "failures": 0 });
    let effect: Value = db.get_with("select hotspot.plan_delivery($1, '{}')", &[&task]).await;
    assert!(effect["retry"].as_array().unwrap().contains(&json!(401)), "{effect}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_from_a_spreadsheet_may_end_in_empty_rows_and_in_old_line_ends() {
    let db = hotspot().await;
    let load = async |list: &str| -> String {
        db.get_with("select hotspot.load_vouchers($1, null, 'list.csv', 'ama')", &[&list]).await
    };
    assert_eq!(load("Login,Password,Uptime Limit\na,1,1d\n,,\n \n").await, "1 vouchers loaded, 0 skipped.");
    assert_eq!(load("Login;Password\rb;2\rc;3\r;\r").await, "2 vouchers loaded, 0 skipped.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_from_what_is_no_document_says_so() {
    let db = hotspot().await;
    for document in [
        json!([]),
        json!({ "tables": [] }),
        json!({ "tables": { "sale": [1] } }),
        json!({ "tables": { "sale": { "x": 1 } } }),
        json!({ "tables": { "sale": { "x": { "full_name": "Ama" } } } }),
        json!({ "tables": {}, "deleted": { "bundle": { "x": { "id": 1 } } } }),
    ] {
        let (code, refused) =
            db.refusal(&format!("select hotspot.recover(p_document => '{document}')")).await;
        assert!(code == "RP400" && refused.contains("no document"), "{document}: {code} {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_when_it_is_installed_is_in_the_backup_from_the_start() {
    let db = hotspot().await;
    let bundles: i64 = db.get("select count(*) from hotspot.bundle").await;
    let kept: i64 = db.get("select count(*) from hotspot.backup_latest where table_name = 'bundle'").await;
    assert!(kept == bundles && kept > 0, "{kept} of {bundles}");
    db.run("truncate hotspot.staff, hotspot.bundle, hotspot.sale, hotspot.voucher cascade; select hotspot.recover()").await;
    assert_eq!(db.get::<i64>("select count(*) from hotspot.bundle").await, bundles);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_turns_over_with_the_day_and_the_zone() {
    let db = hotspot().await;
    let last = "(select payload #>> '{days,-1,day}' from hotspot.dashboard)";
    let today: String = db.get("select to_char(now() at time zone 'Africa/Accra', 'YYYY-MM-DD')").await;
    assert_eq!(db.get::<String>(&format!("select {last}")).await, today);
    db.run("set rowbeat.clock_offset = '2 days'; select hotspot.reconcile_payments('{}'); reset rowbeat.clock_offset").await;
    let later: String =
        db.get("select to_char(now() at time zone 'Africa/Accra' + interval '2 days', 'YYYY-MM-DD')").await;
    assert_eq!(db.get::<String>(&format!("select {last}")).await, later);
    // A zone that the server does not know is as good as none.
    rowbeat(&db, &["plugin", "set", "hotspot", "zone", "Nowhere/At"]).ok();
    assert_eq!(db.get::<String>("select hotspot.zone()").await, "Africa/Accra");
}
