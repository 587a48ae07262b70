//! Freight's endpoints over HTTP, as an operator with a token asks them, up to what the tasks have done.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site};
use crate::freight::{A, B, freight};
use crate::harness::TestDb;

/// Freight with a clerk in A, who has a token, and a daemon that serves.
async fn office() -> (TestDb, Site, String) {
    let db = freight().await;
    db.run(&format!(
        "insert into freight.app_user (organization_id, username, email, password_hash) values ({A}, 'Clerk', 'clerk@a.example', '$argon2id$x');
         insert into freight.customer (organization_id, name) values ({A}, 'C'), ({B}, 'C');
         insert into freight.customer_rule_profile (organization_id, customer_id) select organization_id, id from freight.customer;
         insert into freight.shipment (organization_id, pro_number, customer_id, status, ready_to_bill)
         select c.organization_id, p, c.id, 'C', true from freight.customer c, unnest(array['P1', 'P2', 'P3', 'P4']) p"
    ))
    .await;
    let token = rowbeat(&db, &["token", "create", "Clerk", "--operator"]).ok();
    let site = Site::new(&db, "").await;
    site.until("POST", "/api/bill_invoice/", 401).await;
    (db, site, format!("Authorization: Bearer {}", token.trim()))
}

async fn post(site: &Site, token: &str, path: &str, body: Option<Value>) -> Answer {
    let text = body.map(|body| body.to_string()).unwrap_or_default();
    site.ask("POST", path, &[token, "Content-Type: application/json"], text.as_bytes()).await
}

async fn ended(db: &TestDb, answer: &Answer, message: &str) {
    assert_eq!((answer.status, &answer.json()["message"]), (200, &json!(message)), "{answer:?}");
    let id = &answer.json()["task_id"];
    db.until(&format!("(select state = 'completed' from rowbeat.tasks where id = {id})")).await;
}

async fn numbers(db: &TestDb, table: &str) -> Value {
    db.get(&format!(
        "select coalesce(jsonb_agg(o.name || ' ' || t.invoice_number order by o.name, t.invoice_number), '[]') from freight.{table} t join freight.organization o on o.id = t.organization_id"
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn shipments_are_transferred_untransferred_and_billed_over_http() {
    let (db, site, token) = office().await;
    let answer =
        post(&site, &token, "/api/transfer_to_billing/", Some(json!({ "order_pros": ["P1", "P2", "P3"] })))
            .await;
    ended(&db, &answer, "Transfer to billing task started.").await;
    assert_eq!(
        numbers(&db, "billing_queue").await,
        json!(["A INV-P1", "A INV-P2", "A INV-P3"]),
        "not P4, nor B's"
    );
    for invoices in [json!("INV-P3"), json!(["INV-P2"])] {
        let answer =
            post(&site, &token, "/api/untransfer_invoice/", Some(json!({ "invoice_numbers": invoices })))
                .await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({ "success": "Orders untransferred successfully." }))
        );
    }
    assert_eq!(numbers(&db, "billing_queue").await, json!(["A INV-P1"]));
    let state: Value = db.get("select jsonb_agg(jsonb_build_array(pro_number, transferred_to_billing, billing_transfer_date is null) order by pro_number) from freight.shipment s join freight.organization o on o.id = s.organization_id where o.name = 'A'").await;
    assert_eq!(
        state,
        json!([["P1", true, false], ["P2", false, true], ["P3", false, true], ["P4", false, true]])
    );
    let invoice: String = db.get("select id::text from freight.billing_queue").await;
    let answer = post(&site, &token, "/api/bill_invoice", Some(json!({ "invoice_id": invoice }))).await;
    ended(&db, &answer, "Billing task started.").await;
    assert_eq!(numbers(&db, "billing_history").await, json!(["A INV-P1"]));
    let by: String = db
        .get("select u.username from freight.billing_history h join freight.app_user u on u.id = h.billed_by")
        .await;
    assert_eq!(by, "clerk", "who asked is who billed");
    let answer = post(&site, &token, "/api/transfer_to_billing/", Some(json!({ "order_pros": "P4" }))).await;
    ended(&db, &answer, "Transfer to billing task started.").await;
    let answer = post(&site, &token, "/api/mass_bill_orders/", None).await;
    ended(&db, &answer, "Mass Billing task started.").await;
    assert_eq!(numbers(&db, "billing_history").await, json!(["A INV-P1", "A INV-P4"]));
    let answer = post(&site, &token, "/api/mass_bill_orders/", None).await;
    ended(&db, &answer, "Mass Billing task started.").await;
    let id = &answer.json()["task_id"];
    assert_eq!(
        db.get::<String>("select message from freight.user_notification").await,
        format!("No Orders in the billing queue for task: {id}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_of_somebody_else_is_refused_in_the_promised_words() {
    let (db, site, token) = office().await;
    db.run("insert into freight.billing_queue (organization_id, shipment_id) select organization_id, id from freight.shipment where pro_number = 'P1'").await;
    let theirs: String =
        db.get(&format!("select id::text from freight.billing_queue where organization_id = {B}")).await;
    let nobody = json!({ "message": format!("Invoice {theirs} is not in the billing queue.") });
    let required = |what: &str| json!({ "message": format!("{what} is required. Please Try Again.") });
    let no_data = json!({ "message": "Mass billing does not accept any data. Please Try Again." });
    let no_numbers = json!({ "error": "No invoice numbers provided." });
    let not_found = json!({ "error": "Invoice numbers not found." });
    for (path, body, status, said) in [
        ("bill_invoice", None, 400, required("Invoice ID")),
        ("bill_invoice", Some(json!({})), 400, required("Invoice ID")),
        ("bill_invoice", Some(json!({ "invoice_id": " " })), 400, required("Invoice ID")),
        ("bill_invoice", Some(json!({ "invoice_id": theirs })), 404, nobody),
        ("transfer_to_billing", Some(json!({ "order_pros": [] })), 400, required("Order Pro(s)")),
        ("transfer_to_billing", None, 400, required("Order Pro(s)")),
        ("mass_bill_orders", Some(json!({})), 400, no_data.clone()),
        ("mass_bill_orders", Some(json!([1])), 400, no_data.clone()),
        ("untransfer_invoice", None, 400, no_numbers.clone()),
        ("untransfer_invoice", Some(json!({ "invoice_numbers": "" })), 400, no_numbers),
        ("untransfer_invoice", Some(json!({ "invoice_numbers": ["INV-X"] })), 404, not_found),
    ] {
        let answer = post(&site, &token, &format!("/api/{path}/"), body.clone()).await;
        assert_eq!((answer.status, answer.json()), (status, said), "{path} {body:?}");
    }
    for (kind, body) in
        [("application/x-www-form-urlencoded", "a=b"), ("text/plain", "all"), ("application/json", "null")]
    {
        let headers = [token.as_str(), &format!("Content-Type: {kind}")];
        let answer = site.ask("POST", "/api/mass_bill_orders/", &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.json()), (400, no_data.clone()), "{kind} {body}");
    }
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks where definition like '%bill%'").await, 0);
    let paths = ["bill_invoice", "mass_bill_orders", "transfer_to_billing", "untransfer_invoice"];
    for path in paths.map(|path| format!("/api/{path}/")) {
        assert_eq!(site.ask("POST", &path, &[], b"").await.status, 401, "{path}");
        let get = site.ask("GET", &path, &[&token], b"").await;
        assert_eq!((get.status, get.header("allow")), (405, vec!["POST"]), "no GET changes state: {path}");
    }
    // An operator who is no user, and one who is no longer active.
    let stranger = rowbeat(&db, &["token", "create", "stranger", "--operator"]).ok();
    let stranger = format!("Authorization: Bearer {}", stranger.trim());
    assert_eq!(post(&site, &stranger, "/api/mass_bill_orders/", None).await.status, 404);
    db.run("update freight.app_user set is_active = false").await;
    let answer = post(&site, &token, "/api/mass_bill_orders/", None).await;
    assert_eq!((answer.status, answer.json()), (404, json!({ "message": "User Clerk does not exist." })));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_freight_s_triggers_and_health() {
    let (db, site, token) = office().await;
    db.run(&crate::freight_alert::alert(A, "one", "rate", "INSERT", &[])).await;
    let triggers = site.ask("GET", "/api/active_triggers/", &[&token], b"").await.json();
    let control: Vec<&Value> = triggers
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["trigger_name"] == "table_change_alert_trigger")
        .collect();
    let events: Vec<&Value> = control.iter().map(|one| &one["event_manipulation"]).collect();
    assert_eq!(events, ["DELETE", "INSERT", "UPDATE"], "{triggers}");
    assert!(control.iter().all(|one| one["event_object_table"] == "table_change_alert"
        && one["action_orientation"] == "ROW"
        && one["action_timing"] == "AFTER"
        && one["action_statement"] == "EXECUTE FUNCTION rowbeat.notify_table_change()"));
    let health = site.ask("GET", "/api/system_health/", &[&token], b"").await;
    assert_eq!(health.status, 200);
    for part in ["database", "tasks", "listener", "disk_usage", "kafka"] {
        let status = health.json()[part]["status"].clone();
        assert!(["working", "slow", "offline"].contains(&status.as_str().unwrap()), "{part}: {status}");
    }
}
