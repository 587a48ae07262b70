//! Invoices of the plugin invoice: what is refused, in which order, what follows from a sale, and many at once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::TestDb;
use crate::invoice::{invoice, sale};

/// What is said to a sale.
async fn refused(db: &TestDb, name: &str, email: &str, lines: &Value, notes: &Value) -> String {
    let quoted = |value: &Value| value.to_string().replace('\'', "''");
    let sql = format!(
        "select invoice.create_invoice('{name}', '{email}', '{}', '{}')",
        quoted(lines),
        quoted(notes)
    );
    let (code, message) = db.refusal(&sql).await;
    assert!(code.starts_with("RP4"), "{code}: {message}");
    message
}

/// Everything that a sale changes, as one text.
async fn everything(db: &TestDb) -> String {
    db.get("select concat((select string_agg(p::text, ' ' order by id) from invoice.product p), (select count(*) from invoice.invoice), (select count(*) from invoice.invoice_item),
        (select string_agg(c::text, ' ' order by id) from invoice.customer c), (select count(*) from invoice.customer_name_change),
        (select count(*) from rowbeat.task where definition = 'invoice.send_email'))").await
}

const ANN: &str = "Ann";
const MAIL: &str = "ann@example.com";

/// What is tried: name, address, lines, notes; and what is said to it.
type Case = (&'static str, &'static str, Value, Value, &'static str);

fn line(product: impl Into<Value>, quantity: impl Into<Value>) -> Value {
    json!([{ "product_id": product.into(), "quantity": quantity.into() }])
}

/// Every case is refused so, and nothing is stored. Milk (1) has a stock of 8 and costs 42 for two; 3 is disabled, 4 is dear.
async fn all_refused(cases: Vec<Case>) {
    let db = invoice().await;
    db.run(
        "insert into invoice.product (name, code, price, tax_percent, stock, is_enabled) values ('Gone', 'P003', 1, 0, 5, false), ('Gold', 'P004', 99999999.99, 0, 2000000000, true);
         update invoice.product set stock = 8 where id = 1;
         insert into invoice.customer (name, email, is_enabled) values ('Eve', 'eve@example.com', false);
         update invoice.denomination set is_enabled = false where value = 200",
    )
    .await;
    let before = everything(&db).await;
    for (name, email, lines, notes, message) in cases {
        assert_eq!(
            refused(&db, name, email, &lines, &notes).await,
            message,
            "{name} {email} {lines} {notes}"
        );
    }
    assert_eq!(everything(&db).await, before, "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_too_little_cash_and_too_little_stock() {
    let split = json!([{ "product_id": 1, "quantity": 5 }, { "product_id": "1", "quantity": " 4 " }]);
    all_refused(vec![
        (
            ANN,
            MAIL,
            line(1, 2),
            json!({ "20": 2 }),
            "Cash paid by customer is less than rounded payable amount.",
        ),
        (ANN, MAIL, line(1, 999), json!({ "500": 9 }), "Insufficient stock for Milk. Available stock is 8."),
        (ANN, MAIL, split, json!({ "500": 9 }), "Insufficient stock for Milk. Available stock is 8."),
        (
            ANN,
            MAIL,
            line(4, 2_000_000),
            json!({}),
            "Cash paid by customer is less than rounded payable amount.",
        ),
        (ANN, MAIL, line(1, 2), json!({ "500": "9999999999" }), "Amount is too large."),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i12b_input_that_makes_no_sense() {
    let blank = json!({ "product_id": " ", "quantity": null });
    all_refused(vec![
        (" ", MAIL, line(1, 2), json!({}), "Customer name is required."),
        (ANN, "  ", line(1, 2), json!({}), "Customer email is required."),
        (ANN, MAIL, json!([]), json!({}), "Add at least one product line."),
        (ANN, MAIL, Value::Null, Value::Null, "Add at least one product line."),
        (ANN, MAIL, json!([blank, {}]), json!({}), "Add at least one product line."),
        (ANN, MAIL, line(1, " "), json!({}), "Each bill row needs product and quantity."),
        (ANN, MAIL, line(1, "1.5"), json!({}), "Invalid product or quantity value."),
        (ANN, MAIL, line(1, 1.5), json!({}), "Invalid product or quantity value."),
        (ANN, MAIL, line("x", 1), json!({}), "Invalid product or quantity value."),
        (ANN, MAIL, line(1, "99999999999"), json!({}), "Invalid product or quantity value."),
        (ANN, MAIL, line("99999999999999999999", 1), json!({}), "Invalid product or quantity value."),
        (ANN, MAIL, line(1, "0"), json!({}), "Quantity must be greater than zero."),
        (ANN, MAIL, line(999, 1), json!({}), "One or more selected products do not exist."),
        (ANN, MAIL, line(1, 2), json!({ "500": -1 }), "Denomination count cannot be negative."),
        (ANN, MAIL, line(1, 2), json!({ "500": 1.5 }), "Invalid denomination count for 500."),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i24_bad_addresses_and_what_is_disabled() {
    let mut cases: Vec<Case> = ["notanemail", "a@b", "a b@c.de", "a@b.de, c@d.ef", "a@b..de", "@b.de"]
        .into_iter()
        .map(|address| (ANN, address, line(1, 2), json!({ "500": 1 }), "Enter a valid email address."))
        .collect();
    cases.extend([
        (ANN, " EVE@example.com", line(1, 2), json!({ "500": 1 }), "Customer eve@example.com is disabled."),
        (ANN, MAIL, line(3, 1), json!({ "500": 1 }), "Gone is disabled."),
        (ANN, MAIL, line(1, 2), json!({ "500": 1, "200": 1 }), "Denomination 200 is not accepted."),
        (ANN, MAIL, line(1, 2), json!({ "500": 1, "30": "1" }), "Denomination 30 is not accepted."),
        (
            ANN,
            MAIL,
            line(1, 2),
            json!({ "20": 2, "30": 0, "200": "" }),
            "Cash paid by customer is less than rounded payable amount.",
        ),
    ]);
    all_refused(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_things_that_are_wrong_the_first_of_the_list_is_said() {
    let bad_notes = json!({ "50": "x", "20": -1, "30": 1 });
    all_refused(vec![
        (" ", "", json!([]), bad_notes.clone(), "Customer name is required."),
        (ANN, "", json!([]), bad_notes.clone(), "Customer email is required."),
        (ANN, "eve@example.com", json!([]), bad_notes.clone(), "Customer eve@example.com is disabled."),
        (
            ANN,
            MAIL,
            json!([{ "product_id": "x", "quantity": "y" }, { "quantity": 1 }]),
            bad_notes.clone(),
            "Each bill row needs product and quantity.",
        ),
        (ANN, MAIL, line("x", 0), bad_notes.clone(), "Invalid product or quantity value."),
        (ANN, MAIL, line(999, -1), bad_notes.clone(), "Quantity must be greater than zero."),
        (
            ANN,
            MAIL,
            json!([{ "product_id": 3, "quantity": 1 }, { "product_id": 999, "quantity": 1 }]),
            bad_notes.clone(),
            "One or more selected products do not exist.",
        ),
        (
            ANN,
            MAIL,
            json!([{ "product_id": 1, "quantity": 999 }, { "product_id": 3, "quantity": 1 }]),
            bad_notes.clone(),
            "Gone is disabled.",
        ),
        (ANN, MAIL, line(1, 999), bad_notes.clone(), "Insufficient stock for Milk. Available stock is 8."),
        (ANN, MAIL, line(1, 2), bad_notes, "Invalid denomination count for 50."),
        (ANN, MAIL, line(1, 2), json!({ "20": -1, "30": 1 }), "Denomination count cannot be negative."),
        (ANN, MAIL, line(1, 2), json!({ "30": 1 }), "Denomination 30 is not accepted."),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_there_is_one_customer_for_an_address_and_renames_leave_a_trace() {
    let db = invoice().await;
    let buy = |name: &str, email: &str| {
        format!(
            "select invoice.create_invoice('{name}', '{email}', '[{{\"product_id\": 1, \"quantity\": 1}}]', '{{\"50\": 1}}')"
        )
    };
    db.run(&buy("First", " New@Example.com ")).await;
    db.run(&buy(" Renamed ", "new@example.com")).await;
    db.run(&buy("Renamed", "NEW@example.com")).await;
    let customers: String =
        db.get("select string_agg(concat_ws(' ', name, email, is_enabled), ',') from invoice.customer").await;
    assert_eq!(customers, "Renamed new@example.com t");
    let names: String = db
        .get(
            "select string_agg(customer_name || ' ' || customer_email, ',' order by id) from invoice.invoice",
        )
        .await;
    assert_eq!(names, "First new@example.com,Renamed new@example.com,Renamed new@example.com");
    let trace: String = db.get("select string_agg(concat_ws(' ', customer_id, old_name, new_name, invoice_id), ',') from invoice.customer_name_change").await;
    assert_eq!(trace, "1 First Renamed 2");
    db.run("delete from invoice.customer").await;
    assert_eq!(
        db.get::<i64>("select count(*) from invoice.customer_name_change").await,
        1,
        "the trace stays"
    );
    let (code, message) =
        db.refusal("insert into invoice.customer (name, email) values ('x', 'nobody')").await;
    assert_eq!((code.as_str(), message.as_str()), ("RP400", "Enter a valid email address."));
}

#[tokio::test(flavor = "multi_thread")]
async fn i19_a_sale_that_is_rolled_back_has_not_been() {
    let db = invoice().await;
    let before = everything(&db).await;
    db.run(&format!("begin; {}; rollback", sale(&[(1, 2)], &[(500, 1)]))).await;
    assert_eq!(everything(&db).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn i26_what_was_sold_stays_as_it_was() {
    let db = invoice().await;
    let id: i64 = db.get(&sale(&[(2, 1), (1, 2)], &[(500, 1)])).await;
    let look = format!(
        "select (select to_jsonb(i) from invoice.invoice i)::text || (select jsonb_agg(to_jsonb(l)) from invoice.invoice_item l)::text || invoice.email_body({id})"
    );
    let before: String = db.get(&look).await;
    db.run("update invoice.product set name = 'New', code = code || 'x', price = 1, tax_percent = 50, is_enabled = false; update invoice.customer set name = 'New'; delete from invoice.denomination").await;
    assert_eq!(db.get::<String>(&look).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_a_used_product_stays_and_goods_come_back_only_when_asked_for() {
    let db = invoice().await;
    let first: i64 = db.get(&sale(&[(1, 2), (2, 1)], &[(500, 1)])).await;
    let second: i64 = db.get(&sale(&[(1, 3)], &[(500, 1)])).await;
    let (code, message) = db.refusal("select invoice.delete_product(1)").await;
    assert_eq!((code.as_str(), message.as_str()), ("RP409", "Cannot delete Milk: it is used by invoices."));
    db.run(&format!("select invoice.delete_invoice({second})")).await;
    assert_eq!(
        db.get::<i32>("select stock from invoice.product where id = 1").await,
        5,
        "stock is not given back"
    );
    db.run(&format!("select invoice.delete_invoice({first}, true)")).await;
    let stock: Vec<i32> = db.get("select array_agg(stock order by id) from invoice.product").await;
    assert_eq!(stock, [7, 100], "unless asked for");
    assert_eq!(db.get::<i64>("select count(*) from invoice.invoice_item").await, 0);
    assert_eq!(db.refusal(&format!("select invoice.delete_invoice({first}, true)")).await.0, "RP404");
    db.run("select invoice.delete_product(1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_find_the_old_names_and_cannot_write() {
    let db = invoice().await;
    db.run(&sale(&[(1, 2)], &[(500, 1)])).await;
    db.run("update invoice.product set is_enabled = false where id = 2; set role rowbeat_operator").await;
    let row: String = db.get("select concat_ws(' ', invoiceid, custname, roundedpayable, emailsent, emailfailcount, emaillasterror) from invoice.transaction_master").await;
    assert_eq!(row, "1 Ann 42.00 f 0 ");
    let status: Vec<i32> =
        db.get("select array_agg(dispstatus order by productid) from invoice.product_master").await;
    assert_eq!(status, [0, 1]);
    db.run("select d.prcsdate, c.prcsdate, l.linetotal from invoice.denomination_master d, invoice.customer_master c, invoice.transaction_details l; reset role").await;
    let (code, _) = db.refusal("update invoice.product_master set productname = 'x'").await;
    assert_eq!(code, "55000", "a view with WITH takes no writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_buyers_of_the_last_ten_make_ten_invoices_a_hundred_times() {
    let db = invoice().await;
    let sessions = join_all((0..20).map(|_| db.session())).await;
    for round in 0..100 {
        db.run("update invoice.product set stock = 10; update invoice.product set stock = 1000 where id = 2; delete from invoice.invoice").await;
        // The second product comes first for every other buyer; some are the same customer under changing names.
        let buys = sessions.iter().enumerate().map(|(n, session)| {
            let lines = if n % 2 == 0 {
                json!([{ "product_id": 1, "quantity": 1 }, { "product_id": 2, "quantity": 1 }])
            } else {
                json!([{ "product_id": 2, "quantity": 1 }, { "product_id": 1, "quantity": 1 }])
            };
            let sql = format!(
                "select invoice.create_invoice('Buyer {n} {round}', 'buyer{}@example.com', '{lines}', '{{\"500\": 1}}')",
                n % 7
            );
            async move { session.batch_execute(&sql).await }
        });
        let outcomes = join_all(buys).await;
        let refusals: Vec<String> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().err())
            .map(|error| error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned()))
            .collect();
        assert_eq!(refusals, vec!["Insufficient stock for Milk. Available stock is 0."; 10], "round {round}");
        let (stock, invoices): (i32, i64) = (
            db.get("select stock from invoice.product where id = 1").await,
            db.get("select count(*) from invoice.invoice").await,
        );
        assert_eq!((stock, invoices), (0, 10), "round {round}");
    }
    assert_eq!(db.get::<i32>("select stock from invoice.product where id = 2").await, 990);
}
