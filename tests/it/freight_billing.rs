//! Billing by freight: numbers, transfer, one invoice, all of them, and by itself.

use serde_json::{Value, json};

use crate::freight::{A, B, freight, post};
use crate::harness::TestDb;

/// Freight with a clerk and a customer in each organization, and the system user.
async fn office() -> TestDb {
    let db = freight().await;
    db.run(
        "insert into freight.app_user (organization_id, username, email, password_hash)
         select id, lower(name) || 'clerk', lower(name) || '@clerk.example', '$argon2id$x' from freight.organization;
         insert into freight.organization (name, scac_code) values ('sys', 'sys');
         insert into freight.app_user (organization_id, username, email, password_hash)
         select id, 'sys', 'system@monta.io', '$argon2id$x' from freight.organization where name = 'Sys';
         insert into freight.customer (organization_id, name) select id, 'Customer ' || name from freight.organization;
         insert into freight.customer_rule_profile (organization_id, customer_id) select organization_id, id from freight.customer;
         insert into freight.customer_contact (organization_id, customer_id, email, is_payable, position)
         select organization_id, id, e.email, e.email like 'pay%', e.position from freight.customer, (values ('boss@c.example', 1), ('pay2@c.example', 3), ('pay1@c.example', 2)) e (email, position)",
    )
    .await;
    db
}

const CLERK: &str = "(select id from freight.app_user where username = 'aclerk')";

fn shipment(organization: &str, pro: &str) -> String {
    format!(
        "insert into freight.shipment (organization_id, pro_number, status, ready_to_bill, customer_id, primary_worker, total_amount)
         select o.id, '{pro}', 'C', true, c.id, 'worker', 12.50 from freight.organization o join freight.customer c on c.organization_id = o.id where o.id = {organization};"
    )
}

fn queued(pro: &str, more: &str) -> String {
    let (columns, values) = more
        .split_once('=')
        .map_or((String::new(), String::new()), |(c, v)| (format!(", {c}"), format!(", {v}")));
    format!(
        "insert into freight.billing_queue (organization_id, shipment_id{columns}) select organization_id, id{values} from freight.shipment where pro_number = '{pro}';"
    )
}

/// Both features bought by an organization.
fn entitled(organization: &str) -> String {
    format!("select freight.grant_entitlement({organization}, 'billing'), freight.grant_entitlement({organization}, 'auto_billing');
        update freight.billing_control set auto_bill = true where organization_id = {organization};")
}

#[tokio::test(flavor = "multi_thread")]
async fn m24_invoice_numbers_come_from_a_locked_count() {
    let db = office().await;
    db.run(&shipment(A, "ORD000001")).await;
    for kind in ["INVOICE", "CREDIT", "INVOICE", "CREDIT", "INVOICE", "CREDIT"] {
        db.run(&queued("ORD000001", &format!("bill_type='{kind}'"))).await;
    }
    let numbers = "select array_agg(invoice_number::text order by created_at) from freight.billing_queue";
    assert_eq!(
        db.get::<Vec<String>>(numbers).await,
        [
            "INV-ORD000001",
            "INV-ORD000001",
            "INV-ORD000001A",
            "INV-ORD000001A",
            "INV-ORD000001B",
            "INV-ORD000001B"
        ]
    );
    let refused = db.refusal(&queued("ORD000001", "invoice_number='RANDOMINVOICE'")).await;
    assert_eq!(refused, ("RP400".into(), "Invoice number must start with invoice prefix from Organization's invoice_control. Please try again.".into()));
    assert_eq!(db.refusal(&queued("ORD000001", "invoice_number='INV-ORD000001A'")).await.0, "RP409");
    db.run("update freight.billing_queue set ready_to_bill = true, invoice_number = 'INV-OTHER'").await;
    assert_eq!(
        db.get::<i64>("select count(*) from freight.billing_queue where invoice_number = 'INV-OTHER'").await,
        0
    );
    let suffixes: Vec<String> = db
        .get(
            "select array_agg(freight.suffix(n)) from unnest(array[0, 1, 2, 26, 27, 28, 52, 53, 702, 703]) n",
        )
        .await;
    assert_eq!(suffixes, ["", "A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
    // A pro number that ends in a letter meets another one's suffix.
    db.run(&format!("{}{}{}", shipment(A, "ORD000001C"), queued("ORD000001C", ""), queued("ORD000001", "")))
        .await;
    let last: Vec<String> = db.get("select array_agg(invoice_number::text order by created_at) from (select * from freight.billing_queue order by created_at desc limit 2) q").await;
    assert_eq!(last, ["INV-ORD000001C", "INV-ORD000001D"]);
    // In parallel, on one shipment.
    let (one, two) = (db.session().await, db.session().await);
    let many = queued("ORD000001", "").repeat(15);
    let (first, second) = tokio::join!(one.batch_execute(&many), two.batch_execute(&many));
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert!(db.get::<bool>("select count(*) = count(distinct invoice_number) and count(*) = 35 from freight.billing_queue where bill_type <> 'CREDIT'").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn shipments_are_transferred_once_each_and_back_again() {
    let db = office().await;
    let transfer = format!("select freight.transfer_to_billing({CLERK})");
    let none = db.refusal(&transfer).await;
    assert_eq!(
        none,
        (
            "RP409".into(),
            "No orders found to be eligible for transfer. Orders must be marked READY_AND_COMPLETED".into()
        )
    );
    db.run(&format!("{}{}{}{}", shipment(A, "P1"), shipment(A, "P2"), shipment(A, "P3"), shipment(B, "P1")))
        .await;
    db.run("update freight.shipment set ready_to_bill = false where pro_number = 'P3'").await;
    // One cannot: its row would not fit.
    db.run("alter table freight.billing_queue add constraint unlucky check (invoice_number <> 'INV-P2')")
        .await;
    assert_eq!(db.get::<String>(&transfer).await, "Successfully transferred 1 orders to billing queue.");
    assert_eq!(db.get::<String>(&transfer).await, "Successfully transferred 0 orders to billing queue.");
    let exceptions: Value = db.get("select jsonb_agg(jsonb_build_array(exception_type, left(exception_message, 47), occurrences)) from freight.billing_exception").await;
    assert_eq!(exceptions, json!([["OTHER", "Order P2 failed to transfer to billing queue: n", 2]]));
    db.run("alter table freight.billing_queue drop constraint unlucky").await;
    assert_eq!(
        db.get::<String>(&format!("select freight.transfer_to_billing({CLERK}, '{{P2,P3}}')")).await,
        "Successfully transferred 1 orders to billing queue."
    );
    assert_eq!(db.get::<i64>("select count(*) from freight.billing_transfer_log").await, 2);
    assert_eq!(db.get::<i32>(&format!("select freight.untransfer({A}, '{{INV-P1,INV-P9}}')")).await, 1);
    assert_eq!(
        db.get::<Vec<String>>(
            "select array_agg(pro_number::text) from freight.shipment where transferred_to_billing"
        )
        .await,
        ["P2"]
    );
    assert_eq!(
        db.get::<i32>(&format!("select freight.untransfer({B}, '{{INV-P2}}')")).await,
        0,
        "it is another organization's"
    );
    db.run(&transfer).await;
    assert_eq!(
        db.get::<i64>(
            "select count(*) from freight.billing_queue where invoice_number in ('INV-P1', 'INV-P2')"
        )
        .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m26_auto_billing_bills_what_is_complete_and_counts_what_is_not() {
    let db = office().await;
    db.run(&format!("{}{}{}", shipment(A, "P1"), shipment(A, "P2"), entitled(A))).await;
    db.run(&format!(
        "insert into freight.document_class (organization_id, name) select {A}, n from unnest(array['POD', 'BOL']) n;
         insert into freight.customer (organization_id, name) values ({A}, 'Strict');
         insert into freight.customer_rule_profile (organization_id, customer_id) select organization_id, id from freight.customer where name = 'Strict';
         insert into freight.customer_rule_document select p.id, d.id from freight.customer_rule_profile p join freight.customer c on c.id = p.customer_id, freight.document_class d where c.name = 'Strict';
         update freight.shipment set customer_id = (select id from freight.customer where name = 'Strict') where pro_number = 'P1';
         select freight.transfer_to_billing({CLERK})"
    ))
    .await;
    let run = "select freight.auto_mass_billing_for_all_orgs()";
    assert_eq!(db.get::<String>(run).await, "Automated Mass Billing Task for A was successful.");
    assert_eq!(db.get::<String>(run).await, "Automated Mass Billing Task for A was successful.");
    let exceptions: Value = db.get("select jsonb_agg(jsonb_build_array(exception_type, exception_message, occurrences) order by exception_message) from freight.billing_exception").await;
    assert_eq!(
        exceptions,
        json!([
            ["PAPERWORK", "Billing requirement not met", 2],
            ["PAPERWORK", "Missing customer required documents: [BOL, POD]", 2]
        ])
    );
    assert_eq!(
        db.get::<Vec<String>>("select array_agg(invoice_number::text) from freight.billing_queue").await,
        ["INV-P1"]
    );
    let billed: Value = db.get("select jsonb_build_array(h.invoice_number, h.worker, s.status, s.billed, s.bill_date = h.billed_at) from freight.billing_history h join freight.shipment s on s.id = h.shipment_id").await;
    assert_eq!(billed, json!(["INV-P2", "worker", "B", true, true]));
    db.run("insert into freight.shipment_document select s.id, d.id from freight.shipment s, freight.document_class d where s.pro_number = 'P1'").await;
    db.run(run).await;
    assert_eq!(
        db.get::<i64>("select count(*) from freight.billing_exception where resolved_at is null").await,
        0
    );
    assert_eq!(db.get::<i64>("select count(*) from freight.billing_queue").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_billing_is_for_the_enabled_and_entitled_and_keeps_their_criterion() {
    let db = office().await;
    let run = "select freight.auto_mass_billing_for_all_orgs()";
    assert_eq!(db.get::<String>(run).await, "No organizations have auto billing enabled.");
    for (organization, prefix) in [(A, "A"), (B, "B")] {
        for number in 1..=3 {
            db.run(&format!(
                "{}{}",
                shipment(organization, &format!("{prefix}{number}")),
                queued(&format!("{prefix}{number}"), "")
            ))
            .await;
        }
        db.run(&entitled(organization)).await;
    }
    db.run("update freight.billing_queue set ready_to_bill = true where invoice_number = 'INV-A1'; update freight.billing_queue set is_cancelled = true where invoice_number = 'INV-B3'").await;
    db.run(&format!(
        "update freight.shipment set status = 'P' where pro_number = 'B2';
        update freight.billing_control set auto_bill_criterion = 'ORDER_DELIVERY' where organization_id = {B};
        select freight.revoke_entitlement({A}, 'billing')"
    ))
    .await;
    let history = "select coalesce(array_agg(invoice_number::text order by invoice_number), '{}') from freight.billing_history";
    assert_eq!(db.get::<String>(run).await, "Automated Mass Billing Task for B was successful.");
    assert_eq!(db.get::<Vec<String>>(history).await, ["INV-B1"]);
    db.run(&format!("select freight.grant_entitlement({A}, 'billing', now() + interval '1 day')")).await;
    assert_eq!(db.get::<String>(run).await, "Automated Mass Billing Task for B was successful.", "not yet");
    db.run(&format!("select freight.grant_entitlement({A}, 'billing')")).await;
    assert_eq!(
        db.get::<String>(run).await,
        "Automated Mass Billing Task for A was successful.\nAutomated Mass Billing Task for B was successful."
    );
    assert_eq!(db.get::<Vec<String>>(history).await, ["INV-A1", "INV-B1"]);
    db.run("update freight.billing_control set auto_bill_criterion = 'TRANSFERRED_TO_BILL'").await;
    db.run(run).await;
    assert_eq!(
        db.get::<Vec<String>>(history).await,
        ["INV-A1", "INV-A2", "INV-A3", "INV-B1", "INV-B2"],
        "cancelled ones never"
    );
    let refused = db.refusal("update freight.billing_control set auto_bill_criterion = null").await;
    assert_eq!(
        refused.1,
        "Auto Billing criteria is required when `Auto Bill Orders` is on. Please try again."
    );
    db.run("update freight.app_user set username = 'system' where username = 'sys'").await;
    assert_eq!(db.refusal(run).await.1, "System user sys does not exist.");
}

#[tokio::test(flavor = "multi_thread")]
async fn m27_a_mail_server_that_is_away_neither_undoes_nor_blocks_billing() {
    let db = office().await;
    db.run(&format!("{}{}", shipment(A, "P1"), queued("P1", "ready_to_bill=true"))).await;
    let (gone, _) = post().await;
    let away =
        format!("[connections.mail]\ntype = \"smtp\"\nhost = \"localhost\"\nport = {}\ntls = \"none\"\n", {
            // Nobody answers there.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        });
    drop(gone);
    let daemon = db.daemon_with(&away, &[]).ready().await;
    db.run(&format!(
        "select rowbeat.enqueue('mass_order_billing_task', jsonb_build_object('user_id', {CLERK}))"
    ))
    .await;
    db.until(
        "exists (select from rowbeat.tasks where definition = 'freight.send_mail' and state = 'retryable')",
    )
    .await;
    assert!(db.get::<bool>("select billed from freight.shipment").await);
    assert_eq!(db.get::<i64>("select count(*) from freight.email_log where error is not null").await, 1);
    daemon.stop().await;
    let (postbox, config) = post().await;
    let _daemon = db.daemon_with(&config, &[]).ready().await;
    db.run("select rowbeat.run_now(id) from rowbeat.task where definition = 'freight.send_mail'").await;
    db.until(
        "exists (select from rowbeat.tasks where definition = 'freight.send_mail' and state = 'completed')",
    )
    .await;
    let mails = postbox.mails();
    assert_eq!(mails.len(), 1);
    let text = &mails[0].text;
    assert_eq!(mails[0].to, ["pay1@c.example"]);
    assert_eq!(mails[0].from, "a@clerk.example");
    assert!(
        text.contains("Subject: New invoice from A\r\n")
            && text.contains("Please see attached invoice for invoice: P1"),
        "{text}"
    );
    assert!(text.contains("filename=\"INV-P1.txt\"") && text.contains("12.5000 USD"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_overlap_or_are_repeated_after_a_crash_bill_every_invoice_once() {
    let db = office().await;
    for number in 0..60 {
        db.run(&format!(
            "{}{}",
            shipment(A, &format!("P{number}")),
            queued(&format!("P{number}"), "ready_to_bill=true")
        ))
        .await;
    }
    db.run(&entitled(A)).await;
    let daemon = db.daemon().ready().await;
    db.run(&format!("select rowbeat.enqueue('mass_order_billing_task', jsonb_build_object('user_id', {CLERK}, 'n', g)) from generate_series(1, 3) g;
        select rowbeat.enqueue('auto_mass_billing_for_all_orgs')")).await;
    db.until("exists (select from rowbeat.tasks where definition like '%billing%' and state in ('running', 'completed'))").await;
    daemon.kill9();
    let _daemon = db.daemon().ready().await;
    db.until("not exists (select from rowbeat.task where state = 'running')").await;
    db.run("select rowbeat.run_now(id) from rowbeat.task where state = 'waiting' and run_at > clock_timestamp() + interval '2 seconds' and definition in ('mass_order_billing_task', 'auto_mass_billing_for_all_orgs')").await;
    db.until("not exists (select from rowbeat.task where definition in ('mass_order_billing_task', 'auto_mass_billing_for_all_orgs'))").await;
    assert_eq!(db.get::<i64>("select count(*) from freight.billing_history").await, 60);
    assert_eq!(db.get::<i64>("select count(distinct payload #>> '{data,invoice_number}') from rowbeat.tasks where definition = 'freight.send_mail'").await, 60);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.tasks where definition = 'freight.send_mail'").await,
        60
    );
    db.run(&format!("select freight.mass_bill({CLERK}, 77)")).await;
    assert_eq!(
        db.get::<String>("select message from freight.user_notification order by created_at desc limit 1")
            .await,
        "No Orders in the billing queue for task: 77"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m17_the_schedules_are_due_at_once_and_auto_billing_fires_nothing_before_somebody_is_entitled() {
    let db = office().await;
    let specs: Value = db.get("select jsonb_object_agg(name, jsonb_build_array(spec, enabled, overlap, catch_up, to_jsonb(requires))) from rowbeat.schedule").await;
    assert_eq!(specs["send_expired_rates_notification"], json!(["every 1 day", true, "skip", "last", []]));
    assert_eq!(
        specs["auto_mass_order_billing"],
        json!(["every 15 minutes", true, "skip", "skip", ["freight.billing", "freight.auto_billing"]])
    );
    let _daemon = db.daemon().ready().await;
    db.until("exists (select from rowbeat.fire where schedule = 'send_expired_rates_notification' and decision in ('fired', 'caught_up'))").await;
    db.until("exists (select from rowbeat.fire where schedule = 'auto_mass_order_billing')").await;
    // The first fire may have been missed, when the daemon came late; the next one is not.
    db.run("update rowbeat.schedule set start_at = clock_timestamp() where name = 'auto_mass_order_billing'")
        .await;
    db.until("(select nominal_at from rowbeat.fire where schedule = 'auto_mass_order_billing' order by nominal_at desc limit 1)
        = (select start_at from rowbeat.schedule where name = 'auto_mass_order_billing')").await;
    let fire: Value =
        db.get("select to_jsonb(f) from rowbeat.fire f where schedule = 'auto_mass_order_billing' order by nominal_at desc limit 1").await;
    assert_eq!((&fire["decision"], &fire["task_id"]), (&json!("skipped"), &json!(null)), "{fire}");
    let reason = "feature freight.auto_billing is refused by freight.somebody_is_entitled; feature freight.billing is refused by freight.somebody_is_entitled";
    assert_eq!(fire["reason"], reason);
    assert_eq!(
        db.get::<i64>(
            "select count(*) from rowbeat.tasks where definition = 'auto_mass_billing_for_all_orgs'"
        )
        .await,
        0
    );
    db.run(&entitled(A)).await;
    db.until("(select bool_and(condition_holds) from rowbeat.feature)").await;
    db.run("update rowbeat.schedule set start_at = clock_timestamp() where name = 'auto_mass_order_billing'")
        .await;
    db.until("exists (select from rowbeat.tasks where definition = 'auto_mass_billing_for_all_orgs' and state = 'completed' and result = '\"Automated Mass Billing Task for A was successful.\"')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clerks_and_the_machine_at_once_move_and_bill_everything_once() {
    let db = office().await;
    for number in 0..30 {
        db.run(&shipment(A, &format!("P{number}"))).await;
    }
    db.run(&entitled(A)).await;
    let (one, two, three) = (db.session().await, db.session().await, db.session().await);
    let transfer = format!("select freight.transfer_to_billing({CLERK})");
    let (first, second) = tokio::join!(one.query_one(&transfer, &[]), two.query_one(&transfer, &[]));
    // Who comes too late finds nothing: that is an answer, too.
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    assert_eq!(db.get::<i64>("select count(*) from freight.billing_transfer_log").await, 30);
    assert_eq!(db.get::<i64>("select count(*) from freight.billing_exception").await, 0);
    let (clerk, machine) =
        (format!("select freight.mass_bill({CLERK})"), "select freight.auto_mass_billing_for_all_orgs()");
    let (a, b, c) =
        tokio::join!(one.batch_execute(&clerk), two.batch_execute(machine), three.batch_execute(machine));
    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    let done: Value = db.get("select jsonb_build_array(count(*), count(distinct shipment_id), (select count(*) from freight.billing_queue), (select count(*) from rowbeat.task where definition = 'freight.send_mail')) from freight.billing_history").await;
    assert_eq!(done, json!([30, 30, 0, 30]));
}
