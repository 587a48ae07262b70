//! What freight's commands and endpoints answer, by their functions.

use serde_json::{Value, json};

use crate::freight::{A, freight};
use crate::harness::TestDb;

async fn call(db: &TestDb, function: &str, arguments: Value) -> String {
    db.get_with(&format!("select string_agg(l, ' ') from freight.{function}($1) l"), &[&arguments]).await
}

async fn refused(db: &TestDb, function: &str, arguments: Value) -> String {
    db.refusal(&format!("select freight.{function}('{}')", arguments.to_string().replace('\'', "''"))).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn m16_setupcelerybeat_fills_in_what_is_missing_also_twice_at_once() {
    let db = freight().await;
    db.run("insert into freight.interval_schedule values (15, 'minutes'), (500, 'days'); delete from rowbeat.schedule where name = 'auto_mass_order_billing'").await;
    let (one, two) = (db.session().await, db.session().await);
    let run = "select freight.setupcelerybeat('{}')";
    let (first, second) = tokio::join!(one.batch_execute(run), two.batch_execute(run));
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(
        db.get::<i64>(
            "select count(*) from freight.interval_schedule where (every, period) <> (500, 'days')"
        )
        .await,
        1087
    );
    assert!(db.get::<bool>("select count(*) = 2 from freight.interval_schedule where (every, period) in ((1, 'days'), (15, 'minutes'))").await);
    assert_eq!(call(&db, "setupcelerybeat", json!({})).await, "Celery beat configurations already exist.");
    db.run("delete from freight.interval_schedule where every = 7").await;
    assert_eq!(
        call(&db, "setupcelerybeat", json!({})).await,
        "Celery beat configurations created successfully."
    );
    let schedule: Value = db.get("select jsonb_build_array(spec, requires, start_at is not null) from rowbeat.schedule where name = 'auto_mass_order_billing'").await;
    assert_eq!(schedule, json!(["every 15 minutes", ["freight.billing", "freight.auto_billing"], true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn m19_createsystemuser_makes_one_user_and_one_organization() {
    let db = freight().await;
    let hash = json!({ "password": "$argon2id$h" });
    let with = |key: &str, value: &str| json!({ "password": "$argon2id$h", key: value });
    assert_eq!(refused(&db, "createsystemuser", with("email", "nobody")).await, "Invalid email address");
    assert_eq!(refused(&db, "createsystemuser", with("username", "a b")).await, "Invalid username");
    assert_eq!(
        db.get::<i64>("select count(*) from freight.organization").await,
        2,
        "a refused command leaves nothing"
    );
    assert_eq!(call(&db, "createsystemuser", hash.clone()).await, "System user account created!");
    assert_eq!(refused(&db, "createsystemuser", hash).await, "User sys already exists");
    let made: Value = db.get("select jsonb_build_array(u.username, u.is_superuser, o.name, o.scac_code, t.name, t.job_function, p.first_name, p.last_name, p.zip_code)
        from freight.app_user u join freight.organization o on o.id = u.organization_id join freight.job_title t on t.id = u.job_title_id join freight.user_profile p on p.user_id = u.id").await;
    assert_eq!(made, json!(["sys", true, "Sys", "SYS", "System", "SYS_ADMIN", "System", "User", "12345"]));
    let other = json!({ "password": "$argon2id$h", "username": "Other", "email": "o@b.example", "organization": "SYS" });
    call(&db, "createsystemuser", other).await;
    assert_eq!(db.get::<i64>("select count(*) from freight.organization").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn m20_createtestusers_skips_what_is_there_and_refuses_what_is_no_number() {
    let db = freight().await;
    db.run(&format!("insert into freight.app_user (organization_id, username, email, password_hash) values ({A}, 'TestUser-1', 'x@b.example', '$argon2id$h')")).await;
    let arguments = |organization: &str, count: &str| json!({ "organization": organization, "count": count, "password": "$argon2id$h" });
    for count in ["abc", "-1", ""] {
        assert_eq!(
            refused(&db, "createtestusers", arguments("A", count)).await,
            format!("{count} is not a valid number.")
        );
    }
    assert_eq!(refused(&db, "createtestusers", arguments("X", "1")).await, "Organization X does not exist.");
    assert_eq!(db.get::<i64>("select count(*) from freight.job_title").await, 0);
    assert_eq!(call(&db, "createtestusers", arguments("a", "3")).await, "Successfully created 2 test users.");
    let names: Vec<String> = db.get("select array_agg(username || ' ' || email order by username) from freight.app_user where email like '%monta.io'").await;
    assert_eq!(names, ["testuser-0 testuser-0@monta.io", "testuser-2 testuser-2@monta.io"]);
    assert_eq!(db.get::<String>("select first_name || last_name || state || phone_number from freight.user_profile order by last_name limit 1").await, "TestUser-0CA123-456-7890");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_answer_in_the_words_that_scripts_expect() {
    let db = freight().await;
    db.run(&format!("insert into freight.app_user (organization_id, username, email, password_hash) values ({A}, 'clerk', 'x@b.example', '$argon2id$h');
        insert into freight.customer (organization_id, name) values ({A}, 'C');
        insert into freight.shipment (organization_id, pro_number, customer_id) select organization_id, 'P1', id from freight.customer;
        insert into freight.billing_queue (organization_id, shipment_id) select organization_id, id from freight.shipment")).await;
    let ask = async |function: &str, input: Value| -> Value {
        db.get_with(
            &format!("select freight.{function}($1)"),
            &[&json!({ "input": input, "actor": "clerk" })],
        )
        .await
    };
    let invoice: String = db.get("select id::text from freight.billing_queue").await;
    for (function, input, status, body) in [
        (
            "post_bill_invoice",
            json!({}),
            400,
            json!({ "message": "Invoice ID is required. Please Try Again." }),
        ),
        (
            "post_mass_bill_orders",
            json!({ "body": "x" }),
            400,
            json!({ "message": "Mass billing does not accept any data. Please Try Again." }),
        ),
        (
            "post_transfer_to_billing",
            json!({}),
            400,
            json!({ "message": "Order Pro(s) is required. Please Try Again." }),
        ),
        ("post_untransfer_invoice", json!({}), 400, json!({ "error": "No invoice numbers provided." })),
        (
            "post_untransfer_invoice",
            json!({ "invoice_numbers": "INV-X" }),
            404,
            json!({ "error": "Invoice numbers not found." }),
        ),
        (
            "post_untransfer_invoice",
            json!({ "invoice_numbers": ["INV-P1"] }),
            200,
            json!({ "success": "Orders untransferred successfully." }),
        ),
    ] {
        let answer = ask(function, input).await;
        assert_eq!((&answer["status"], &answer["body"]), (&json!(status), &body), "{function}");
    }
    db.run("insert into freight.billing_queue (id, organization_id, shipment_id) select gen_random_uuid(), organization_id, id from freight.shipment").await;
    assert_eq!(ask("post_bill_invoice", json!({ "invoice_id": invoice })).await["status"], 404);
    let invoice: String = db.get("select id::text from freight.billing_queue").await;
    let first = ask("post_bill_invoice", json!({ "invoice_id": invoice })).await;
    assert_eq!((&first["status"], &first["body"]["message"]), (&json!(200), &json!("Billing task started.")));
    assert_eq!(
        first,
        ask("post_bill_invoice", json!({ "invoice_id": invoice })).await,
        "one task for the same arguments"
    );
    assert_eq!(
        ask("post_mass_bill_orders", json!({})).await["body"]["message"],
        "Mass Billing task started."
    );
    assert_eq!(
        ask("post_transfer_to_billing", json!({ "order_pros": ["P1"] })).await["body"]["message"],
        "Transfer to billing task started."
    );
    let _daemon = db.daemon().ready().await;
    db.until("(select count(*) = 3 from rowbeat.tasks where definition in ('bill_invoice_task', 'mass_order_billing_task', 'transfer_to_billing_task') and state = 'completed')").await;
}
