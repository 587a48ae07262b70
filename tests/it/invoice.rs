//! The bundled plugin invoice: that it installs, how it counts money, and which change it gives.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::harness::TestDb;
use crate::login::Login;

/// A database with invoice and some products: Milk (1) 20.00 at 5 %, Bread (2) 80.00 at 2.50 %.
pub(crate) async fn invoice() -> TestDb {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "invoice"]).ok();
    db.run(
        "insert into invoice.product (name, code, price, tax_percent, stock) values ('Milk', 'P001', 20.00, 5, 10), ('Bread', 'P002', 80.00, 2.50, 100)",
    )
    .await;
    db
}

/// A new invoice of Ann's: lines as (product, quantity), notes as (value, count).
pub(crate) fn sale(lines: &[(i64, i64)], notes: &[(i64, i64)]) -> String {
    let lines: Vec<Value> = lines
        .iter()
        .map(|(product, quantity)| json!({ "product_id": product, "quantity": quantity }))
        .collect();
    let notes: serde_json::Map<String, Value> =
        notes.iter().map(|(value, count)| (value.to_string(), json!(count))).collect();
    format!(
        "select invoice.create_invoice('Ann', 'ann@example.com', '{}', '{}')",
        json!(lines),
        Value::Object(notes)
    )
}

/// The amounts of an invoice: gross, tax, net, rounded, paid, balance.
async fn amounts(db: &TestDb, id: i64) -> String {
    db.get_with(
        "select concat_ws(' ', gross_amount, tax_amount, net_amount, rounded_payable, paid_amount, balance_amount) from invoice.invoice where id = $1",
        &[&id],
    )
    .await
}

async fn change(db: &TestDb, id: i64) -> Value {
    db.get_with("select change_denoms from invoice.invoice where id = $1", &[&id]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn invoice_installs_once_passes_its_tests_and_goes_away() {
    let db = TestDb::new().await;
    let said = rowbeat(&db, &["plugin", "install", "invoice", "--test"]).ok();
    assert!(said.contains("plugin invoice 1.0.0 installed"), "{said}");
    let again = rowbeat(&db, &["plugin", "install", "invoice"]).ok();
    assert!(again.contains("is installed already: nothing to do"), "{again}");
    let list: Value = rowbeat(&db, &["plugin", "list", "--json"]).json();
    assert_eq!(list[0]["isolated"], json!(true));
    rowbeat(&db, &["plugin", "remove", "invoice"]).ok();
    rowbeat(&db, &["plugin", "install", "invoice"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from invoice.denomination").await, 9, "data was kept");
    rowbeat(&db, &["plugin", "remove", "invoice", "--purge", "--cancel-tasks"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.plugin").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invoice_works_also_where_no_roles_can_be_made() {
    let db = TestDb::empty().await;
    let login = Login::new(&db, "nocreaterole").await;
    let said = login.install("invoice");
    assert!(said.contains("not isolated"), "{said}");
    db.run(&format!("set role {}", login.role)).await;
    let product = db
        .get("insert into invoice.product (name, code, price, stock) values ('a', 'a', 1, 1) returning id")
        .await;
    db.get::<i64>(&sale(&[(product, 1)], &[(1, 1)])).await;
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'invoice.send_email'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_tax_and_change_of_five_loaves() {
    let db = invoice().await;
    let id = db.get(&sale(&[(2, 5)], &[(500, 1)])).await;
    assert_eq!(amounts(&db, id).await, "400.00 10.00 410.00 410.00 500.00 90.00");
    assert_eq!(change(&db, id).await, json!({ "50": 1, "20": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_notes_of_several_values_are_added_up() {
    let db = invoice().await;
    let id = db.get(&sale(&[(2, 5)], &[(200, 1), (100, 1), (50, 2), (20, 2)])).await;
    assert_eq!(amounts(&db, id).await, "400.00 10.00 410.00 410.00 440.00 30.00");
    assert_eq!(change(&db, id).await, json!({ "20": 1, "10": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_an_added_denomination_is_taken_and_given() {
    let db = invoice().await;
    db.run("insert into invoice.denomination (value) values (2000)").await;
    let id = db.get(&sale(&[(2, 5)], &[(2000, 1)])).await;
    assert_eq!(change(&db, id).await, json!({ "500": 3, "50": 1, "20": 2 }));
    let id = db.get(&sale(&[(2, 5)], &[(500, 2)])).await;
    assert_eq!(amounts(&db, id).await, "400.00 10.00 410.00 410.00 1000.00 590.00");
    assert_eq!(change(&db, id).await, json!({ "500": 1, "50": 1, "20": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_sale_takes_stock_keeps_the_notes_and_makes_the_customer() {
    let db = invoice().await;
    let id = db.get(&sale(&[(1, 2)], &[(500, 1)])).await;
    assert_eq!(amounts(&db, id).await, "40.00 2.00 42.00 42.00 500.00 458.00");
    assert_eq!(change(&db, id).await, json!({ "200": 2, "50": 1, "5": 1, "2": 1, "1": 1 }));
    assert_eq!(db.get::<i32>("select stock from invoice.product where id = 1").await, 8);
    let received: Value = db.get("select received_denoms from invoice.invoice").await;
    assert_eq!(
        received,
        json!({ "500": 1, "200": 0, "100": 0, "50": 0, "20": 0, "10": 0, "5": 0, "2": 0, "1": 0 })
    );
    let customer: String =
        db.get("select concat_ws(' ', name, email, is_enabled) from invoice.customer").await;
    assert_eq!(customer, "Ann ann@example.com t");
    let item: String = db.get("select concat_ws(' ', product_id, unit_price, tax_percent, quantity, line_subtotal, line_tax, line_total) from invoice.invoice_item").await;
    assert_eq!(item, "1 20.00 5.00 2 40.00 2.00 42.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_change_of_a_thousand() {
    let db = invoice().await;
    db.run("insert into invoice.denomination (value) values (1000), (30)").await;
    let id = db.get(&sale(&[(1, 2)], &[(1000, 1)])).await;
    assert_eq!(amounts(&db, id).await, "40.00 2.00 42.00 42.00 1000.00 958.00");
    assert_eq!(change(&db, id).await, json!({ "500": 1, "200": 2, "50": 1, "5": 1, "2": 1, "1": 1 }));
}

/// A database in which this product is number 3.
async fn with_product(name: &str, price: &str, tax: &str) -> TestDb {
    let db = invoice().await;
    db.run(&format!("insert into invoice.product (name, code, price, tax_percent, stock) values ('{name}', 'P003', {price}, {tax}, 5)")).await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_the_payable_is_truncated() {
    let db = with_product("Odd", "99.99", "18").await;
    let id = db.get(&sale(&[(3, 1)], &[(200, 1)])).await;
    assert_eq!(amounts(&db, id).await, "99.99 18.00 117.99 117.00 200.00 83.00");
    assert_eq!(change(&db, id).await, json!({ "50": 1, "20": 1, "10": 1, "2": 1, "1": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_less_than_a_unit_is_nothing_to_pay() {
    let db = with_product("Mint", "0.94", "5").await;
    let id = db.get(&sale(&[(3, 1)], &[])).await;
    assert_eq!(amounts(&db, id).await, "0.94 0.05 0.99 0.00 0.00 0.00");
    assert_eq!(change(&db, id).await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_what_is_truncated_need_not_be_paid() {
    let db = with_product("Flat", "100", "0.99").await;
    let id = db.get(&sale(&[(3, 1)], &[(100, 1)])).await;
    assert_eq!(amounts(&db, id).await, "100.00 0.99 100.99 100.00 100.00 0.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_taxes_are_rounded_half_to_even_line_by_line() {
    let db = invoice().await;
    let taxes: String = db
        .get("select string_agg(invoice.round_half_even(a * p / 100, 2)::text, ' ' order by n) from (values (1, 2.50, 5), (2, 1.50, 5), (3, 0.50, 1)) v (n, a, p)")
        .await;
    assert_eq!(taxes, "0.12 0.08 0.00");
    for (amount, places, rounded) in [
        ("-0.125", 2, "-0.12"),
        ("-0.135", 2, "-0.14"),
        ("2.5", 0, "2"),
        ("3.5", 0, "4"),
        ("1250", -2, "1200"),
        ("1.005", 2, "1.00"),
        ("0.12500000000000000000000000000000000001", 2, "0.13"),
        ("99999999999999999999999999.125", 2, "99999999999999999999999999.12"),
        ("7", 2, "7.00"),
    ] {
        let shown: String =
            db.get(&format!("select invoice.round_half_even({amount}, {places})::text")).await;
        assert_eq!(shown, rounded, "{amount} to {places}");
    }
    // Sums are sums of rounded lines: 2.50 and 0.50 with their taxes of 0.125 and 0.025.
    db.run("insert into invoice.product (name, code, price, tax_percent, stock) values ('A', 'A', 2.50, 5, 9), ('B', 'B', 0.50, 5, 9)").await;
    let id = db.get(&sale(&[(3, 1), (4, 1)], &[(5, 1)])).await;
    assert_eq!(amounts(&db, id).await, "3.00 0.14 3.14 3.00 5.00 2.00");
    // Rows of one product are one line, so they are rounded once: 5.00 at 5 %.
    let id = db.get(&sale(&[(3, 1), (3, 1)], &[(10, 1)])).await;
    assert_eq!(amounts(&db, id).await, "5.00 0.25 5.25 5.00 10.00 5.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_goes_from_high_to_low_over_enabled_values_and_shows_what_is_left() {
    let db = invoice().await;
    db.run("update invoice.denomination set is_enabled = value in (50, 20)").await;
    for (call, change) in [
        ("90", json!({ "50": 1, "20": 2 })),
        ("95.50", json!({ "50": 1, "20": 2, "remaining": 5.5 })),
        ("60, '{50,20}'", json!({ "50": 1, "remaining": 10 })),
        ("8, '{4,6,6}'", json!({ "6": 1, "remaining": 2 })),
        ("7, '{}'", json!({ "remaining": 7 })),
        ("0", json!({})),
    ] {
        let made: Value = db.get(&format!("select invoice.make_change({call})")).await;
        assert_eq!(made, change, "{call}");
    }
    let id = db.get(&sale(&[(1, 2)], &[(50, 1)])).await;
    assert_eq!(change(&db, id).await, json!({ "remaining": 8 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_seeding_again_leaves_what_is_there() {
    let db = invoice().await;
    db.run("update invoice.denomination set is_enabled = false where value = 500; delete from invoice.denomination where value < 5").await;
    let said = rowbeat(&db, &["app", "invoice", "seed-denominations"]).ok();
    assert_eq!(said.trim(), "Denominations added: 2");
    assert_eq!(rowbeat(&db, &["seed-denominations"]).ok().trim(), "Denominations added: 0");
    let all: String = db.get("select string_agg(value || case when is_enabled then '' else '!' end, ' ' order by value desc) from invoice.denomination").await;
    assert_eq!(all, "500! 200 100 50 20 10 5 2 1");
}
