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

#[tokio::test(flavor = "multi_thread")]
async fn i12_and_i24_what_is_wrong_is_said_in_order_and_nothing_is_stored() {
    let db = invoice().await;
    db.run(
        "insert into invoice.product (name, code, price, tax_percent, stock, is_enabled) values ('Gone', 'P003', 1, 0, 5, false), ('Gold', 'P004', 99999999.99, 0, 2000000000, true);
         update invoice.product set stock = 8 where id = 1;
         insert into invoice.customer (name, email, is_enabled) values ('Eve', 'eve@example.com', false);
         update invoice.denomination set is_enabled = false where value = 200",
    )
    .await;
    let before = everything(&db).await;
    let line = |product: Value, quantity: Value| json!([{ "product_id": product, "quantity": quantity }]);
    let good = line(json!(1), json!(2));
    let none = json!({});
    let blank = json!({ "product_id": " ", "quantity": null });
    let (ann, mail) = ("Ann", "ann@example.com");
    let cases: Vec<(&str, &str, Value, Value, &str)> = vec![
        (" ", "", json!([]), json!({ "1": "x" }), "Customer name is required."),
        (ann, "  ", json!([]), none.clone(), "Customer email is required."),
        (ann, "notanemail", json!([]), none.clone(), "Enter a valid email address."),
        (ann, "a@b", json!([]), none.clone(), "Enter a valid email address."),
        (ann, "a b@c.de", json!([]), none.clone(), "Enter a valid email address."),
        (ann, "a@b.de, c@d.ef", json!([]), none.clone(), "Enter a valid email address."),
        (ann, " EVE@example.com", json!([]), none.clone(), "Customer eve@example.com is disabled."),
        (ann, mail, json!([]), none.clone(), "Add at least one product line."),
        (ann, mail, Value::Null, Value::Null, "Add at least one product line."),
        (ann, mail, json!([blank, {}]), none.clone(), "Add at least one product line."),
        (ann, mail, line(json!(1), json!(" ")), none.clone(), "Each bill row needs product and quantity."),
        (
            ann,
            mail,
            json!([{ "product_id": "x", "quantity": "y" }, { "quantity": 1 }]),
            none.clone(),
            "Each bill row needs product and quantity.",
        ),
        (ann, mail, line(json!("x"), json!(0)), none.clone(), "Invalid product or quantity value."),
        (ann, mail, line(json!(1), json!("1.5")), none.clone(), "Invalid product or quantity value."),
        (ann, mail, line(json!(1), json!(1.5)), none.clone(), "Invalid product or quantity value."),
        (ann, mail, line(json!(1), json!("99999999999")), none.clone(), "Invalid product or quantity value."),
        (
            ann,
            mail,
            line(json!("99999999999999999999"), json!(1)),
            none.clone(),
            "Invalid product or quantity value.",
        ),
        (ann, mail, line(json!(1), json!("0")), none.clone(), "Quantity must be greater than zero."),
        (ann, mail, line(json!(999), json!(-1)), none.clone(), "Quantity must be greater than zero."),
        (
            ann,
            mail,
            json!([good[0], { "product_id": 999, "quantity": 1 }]),
            json!({ "1": "x" }),
            "One or more selected products do not exist.",
        ),
        (
            ann,
            mail,
            json!([{ "product_id": 1, "quantity": 999 }, { "product_id": 3, "quantity": 1 }]),
            none.clone(),
            "Gone is disabled.",
        ),
        (
            ann,
            mail,
            line(json!(1), json!(999)),
            json!({ "1": "x" }),
            "Insufficient stock for Milk. Available stock is 8.",
        ),
        (
            ann,
            mail,
            json!([{ "product_id": 1, "quantity": 5 }, { "product_id": "1", "quantity": " 4 " }]),
            none.clone(),
            "Insufficient stock for Milk. Available stock is 8.",
        ),
        (
            ann,
            mail,
            good.clone(),
            json!({ "50": "x", "20": -1, "30": 1 }),
            "Invalid denomination count for 50.",
        ),
        (ann, mail, good.clone(), json!({ "50": 1.5 }), "Invalid denomination count for 50."),
        (ann, mail, good.clone(), json!({ "20": -1, "30": 1 }), "Denomination count cannot be negative."),
        (ann, mail, good.clone(), json!({ "500": 1, "30": "1" }), "Denomination 30 is not accepted."),
        (ann, mail, good.clone(), json!({ "200": 1 }), "Denomination 200 is not accepted."),
        (
            ann,
            mail,
            good.clone(),
            json!({ "20": 2, "30": 0, "200": "" }),
            "Cash paid by customer is less than rounded payable amount.",
        ),
        (
            ann,
            mail,
            line(json!(4), json!(2_000_000)),
            none.clone(),
            "Cash paid by customer is less than rounded payable amount.",
        ),
        (ann, mail, good.clone(), json!({ "500": "9999999999" }), "Amount is too large."),
    ];
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
