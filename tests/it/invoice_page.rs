//! The pages of invoice as a browser without scripts sees them, by a real daemon over loopback HTTP.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site};
use crate::harness::TestDb;
use crate::invoice::{invoice, sale};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const MESSAGE: &str = "class=\"message\"";
const REFUSAL: &str = "class=\"refusal\"";

async fn site(db: &TestDb) -> Site {
    let site = Site::new(db, "root_page = \"/invoice/\"").await;
    site.until("GET", "/invoice/", 200).await;
    site
}

async fn post(site: &Site, path: &str, body: &str) -> Answer {
    site.ask("POST", path, &[FORM], body.as_bytes()).await
}

/// It leads to `path`, where `message` is shown, once.
async fn leads(site: &Site, answer: &Answer, path: &str, message: &str) {
    assert_eq!((answer.status, answer.header("location")), (302, vec![path]), "{answer:?}");
    let cookie = answer.header("set-cookie")[0].split(';').next().unwrap().to_owned();
    let page = site.ask("GET", path, &[&format!("Cookie: {cookie}")], b"").await;
    assert_eq!((page.status, shown(&page, MESSAGE)), (200, message.to_owned()), "{page:?}");
    assert!(page.header("set-cookie")[0].contains("Max-Age=0"), "it is told once: {page:?}");
}

/// The text of the page's one message.
fn shown(page: &Answer, class: &str) -> String {
    assert_eq!(
        page.body.matches(MESSAGE).count() + page.body.matches(REFUSAL).count(),
        1,
        "one message: {page:?}"
    );
    let after = page.body.split_once(class).unwrap_or_else(|| panic!("{page:?}")).1;
    after.split_once('>').unwrap().1.split('<').next().unwrap().to_owned()
}

fn refusal(page: &Answer) -> String {
    assert_eq!(page.status, 200, "{page:?}");
    shown(page, REFUSAL)
}

/// The invoices of a list, in order.
fn listed(page: &Answer) -> Vec<i64> {
    assert_eq!(page.status, 200, "{page:?}");
    let ids = page
        .body
        .split("<a href=\"/invoice/")
        .skip(1)
        .filter_map(|rest| rest.split('/').next()?.parse().ok());
    ids.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_is_made_shown_and_deleted_by_forms() {
    let db = invoice().await;
    db.run(
        "insert into invoice.product (name, code, price, stock, is_enabled) values ('Off', 'X', 1, 1, false)",
    )
    .await;
    let site = site(&db).await;
    assert_eq!(site.get("/").await.header("location"), ["/invoice/"]);
    let form = site.get("/invoice/add/").await.body;
    assert!(
        form.find("Bread (P002)").unwrap() < form.find("Milk (P001)").unwrap() && !form.contains("Off"),
        "{form}"
    );
    assert!(form.find("denom_1\"").unwrap() < form.find("denom_9\"").unwrap(), "high to low");
    let wrong = post(&site, "/invoice/add/", "customer_name=%3Cb%3EAnn&customer_email=ann@example.com&product_id[]=1&quantity[]=99&product_id[]=&quantity[]=&denom_1=7&denom_2=").await;
    assert_eq!(refusal(&wrong), "Insufficient stock for Milk. Available stock is 10.");
    for kept in [
        "value=\"&lt;b&gt;Ann\"",
        "value=\"ann@example.com\"",
        "<option value=\"1\" selected>",
        "value=\"99\"",
        "name=\"denom_1\" inputmode=\"numeric\" value=\"7\"",
    ] {
        assert!(wrong.body.contains(kept), "{kept}: {}", wrong.body);
    }
    let more = post(&site, "/invoice/add/", "customer_name=Ann&product_id[]=1&quantity[]=2&more=1").await;
    assert_eq!(more.body.matches("name=\"quantity[]\"").count(), 6);
    assert!(!more.body.contains(REFUSAL) && more.body.contains("value=\"Ann\""));
    let made = post(&site, "/invoice/add/", "customer_name=Ann&customer_email=Ann@Example.com&product_id[]=1&quantity[]=2&product_id[]=&quantity[]=&denom_1=1&denom_2=").await;
    leads(
        &site,
        &made,
        "/invoice/1/",
        "Invoice generated successfully. Email queue triggered in background.",
    )
    .await;
    let page = site.get("/invoice/1/").await.body;
    for text in [
        "ann@example.com",
        "Milk (P001)",
        "<dd>458.00</dd>",
        "500 &times; 1",
        "200 &times; 2, 50 &times; 1, 5 &times; 1, 2 &times; 1, 1 &times; 1",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains(MESSAGE) && !page.contains("Remaining"));
    let back = site.get("/invoice/1/delete/").await;
    assert_eq!((back.status, back.header("location")), (302, vec!["/invoice/"]));
    let deleted = post(&site, "/invoice/1/delete/", "restock=on").await;
    leads(&site, &deleted, "/invoice/", "Invoice deleted successfully.").await;
    assert_eq!(db.get::<i32>("select stock from invoice.product where id = 1").await, 10);
    for path in ["/invoice/1/", "/invoice/999999999999999999999/", "/invoice/x/", "/products/77/edit/"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
    assert_eq!(post(&site, "/invoice/1/delete/", "").await.status, 404);
    assert_eq!(post(&site, "/customers/9/delete/", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_mail_is_sent_again_from_the_page_only_with_the_tick() {
    let db = invoice().await;
    db.run(&sale(&[(1, 1)], &[(100, 1)])).await;
    db.run("update invoice.denomination set is_enabled = value > 20").await;
    db.run(&sale(&[(1, 1)], &[(100, 1)])).await;
    db.run("update invoice.invoice set email_sent = true, email_fail_count = 3; select rowbeat.cancel(id) from rowbeat.task").await;
    let site = site(&db).await;
    let page = site.get("/invoice/2/").await.body;
    assert!(page.contains("Remaining: 29 cannot be paid out"), "{page}");
    let refused = post(&site, "/invoice/1/resend/", "").await;
    assert_eq!(refusal(&refused), "Email was already sent.");
    assert!(refused.body.contains("<h1>Invoice #1</h1>"));
    let sent = post(&site, "/invoice/1/resend/", "confirmed=on").await;
    leads(&site, &sent, "/invoice/1/", "Email queue triggered in background.").await;
    assert_eq!(post(&site, "/invoice/7/resend/", "confirmed=on").await.status, 404);
    // The mail has no connection here, and the page says so.
    db.until("select email_fail_count = 4 and not email_sent from invoice.invoice where id = 1").await;
    let page = site.get("/invoice/1/").await.body;
    assert!(page.contains("no smtp connection mail") && page.contains("<dd>4</dd>"), "{page}");
}

/// Fifty invoices of the last five days, newest first from 1, Bob's and Ann's in turn; and one of a March night.
async fn history() -> (TestDb, Site) {
    let db = invoice().await;
    db.run(
        "insert into invoice.invoice (customer_name, customer_email, created_at)
         select case when n % 2 = 0 then 'Bob 100%' else 'Ann_' end, case when n % 2 = 0 then 'bob@example.com' else 'ann@example.com' end,
             ((now() at time zone 'Asia/Kolkata')::date - n / 10 + time '12:00') at time zone 'Asia/Kolkata' - n * interval '1 s' from generate_series(0, 49) n;
         insert into invoice.invoice (customer_name, customer_email, created_at) values ('Late', 'late@example.com', '2026-03-04T20:00Z')",
    )
    .await;
    let site = site(&db).await;
    (db, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn i20_purchases_are_found_by_name_address_and_dates() {
    let (db, site) = history().await;
    let day = "select ((created_at at time zone 'Asia/Kolkata')::date)::text from invoice.invoice where id =";
    let (today, yesterday): (String, String) =
        (db.get(&format!("{day} 1")).await, db.get(&format!("{day} 11")).await);
    let query = format!(
        "/invoice/?customer_name=bOB&customer_email=bob@&from_date={yesterday}&to_date={today}&per_page=7"
    );
    let found = listed(&site.get(&query).await);
    assert_eq!(found, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19], "both days, newest first, ten a page");
    assert_eq!(listed(&site.get("/invoice/?customer_name=_").await).len(), 10, "an underscore is one");
    assert_eq!(listed(&site.get("/invoice/?customer_name=100%25&per_page=50").await).len(), 25);
    for (query, first, count) in [
        ("page=2", 11, 10),
        ("page=99999999999999999999", 51, 1),
        ("page=x&per_page=20", 1, 20),
        ("page=-3", 1, 10),
        ("page=3&per_page=20", 41, 11),
        ("per_page=50&page=2", 51, 1),
        ("per_page=11", 1, 10),
    ] {
        let ids = listed(&site.get(&format!("/invoice/?{query}&customer_name=")).await);
        assert_eq!((ids.len(), ids[0]), (count, first), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i20b_the_day_is_the_shops() {
    let (db, site) = history().await;
    let on = |day: &'static str| format!("/invoice/?from_date={day}&to_date={day}");
    assert_eq!(listed(&site.get(&on("2026-03-05")).await), [51]);
    assert_eq!(listed(&site.get(&on("2026-03-04")).await), [0; 0]);
    rowbeat(&db, &["plugin", "set", "invoice", "zone", "Nowhere/Land"]).ok();
    assert_eq!(listed(&site.get(&on("2026-03-04")).await), [51], "a zone that nobody knows is UTC");
}

#[tokio::test(flavor = "multi_thread")]
async fn i20c_what_is_no_date_is_said_and_left_out() {
    let (_db, site) = history().await;
    for wrong in ["from_date=abc", "to_date=2026-02-30", "from_date=2026-3-5", "to_date=2026-03-05T00"] {
        let page = site.get(&format!("/invoice/?{wrong}&per_page=100")).await;
        assert_eq!(refusal(&page), "Enter a valid date.", "{wrong}");
        assert_eq!(listed(&page).len(), 51, "{wrong}: without that filter");
    }
    let page = site.get("/invoice/?from_date=abc&to_date=2026-03-05").await;
    assert_eq!(listed(&page), [51], "the other one counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_are_added_changed_found_and_deleted() {
    let db = invoice().await;
    db.run(&sale(&[(1, 1)], &[(50, 1)])).await;
    let site = site(&db).await;
    let product = "name=Salt&code=P003&price=1.5&tax_percent=0&stock=7&is_enabled=true";
    let made = post(&site, "/products/add/", product).await;
    leads(&site, &made, "/products/", "Product created successfully.").await;
    let twice = post(&site, "/products/add/", product).await;
    assert_eq!(refusal(&twice), "Product Code already exists.");
    assert!(twice.body.contains("value=\"Salt\"") && twice.body.contains("value=\"1.5\""), "{}", twice.body);
    let edit = site.get("/products/3/edit/").await.body;
    for label in ["Product Name", "Product Code", "Unit Price", "Tax Percentage", "Available Stock", "Status"]
    {
        assert!(edit.contains(label), "{label}");
    }
    assert!(edit.contains("value=\"1.50\""), "{edit}");
    let changed =
        post(&site, "/products/3/edit/", &product.replace("true", "false").replace("Salt", "Pepper")).await;
    leads(&site, &changed, "/products/", "Product updated successfully.").await;
    assert_eq!(
        db.get::<String>("select concat_ws(' ', name, is_enabled) from invoice.product where id = 3").await,
        "Pepper f"
    );
    for (from, to, message) in [
        ("name=Salt", "name=+", "Product Name is required."),
        ("price=1.5", "price=x", "Unit Price must be a number."),
        ("price=1.5", "price=-1", "Unit Price cannot be negative."),
        ("price=1.5", "price=1.005", "Unit Price can have 2 decimal places."),
        ("price=1.5", "price=100000000", "Unit Price is too large."),
        ("tax_percent=0", "tax_percent=1000", "Tax Percentage is too large."),
        ("stock=7", "stock=1.5", "Available Stock must be a whole number."),
        ("stock=7", "stock=", "Available Stock is required."),
        ("code=P003", "code=P001", "Product Code already exists."),
    ] {
        let refused = post(&site, "/products/3/edit/", &product.replace(from, to)).await;
        assert_eq!(refusal(&refused), message);
    }
    let used = post(&site, "/products/1/delete/", "").await;
    assert_eq!(refusal(&used), "Cannot delete Milk: it is used by invoices.");
    let gone = post(&site, "/products/3/delete/", "").await;
    leads(&site, &gone, "/products/", "Product deleted successfully.").await;

    let note = post(&site, "/denominations/add/", "value=2000").await;
    leads(&site, &note, "/denominations/", "Denomination created successfully.").await;
    assert_eq!(
        refusal(&post(&site, "/denominations/add/", "value=500").await),
        "Denomination Value already exists."
    );
    assert_eq!(
        refusal(&post(&site, "/denominations/add/", "value=0").await),
        "Denomination Value must be greater than zero."
    );
    let customer = post(&site, "/customers/add/", "name=Bob&email=Bob@Example.com").await;
    leads(&site, &customer, "/customers/", "Customer created successfully.").await;
    assert_eq!(
        refusal(&post(&site, "/customers/add/", "name=B&email=BOB@example.com").await),
        "Customer Email already exists."
    );
    assert_eq!(
        refusal(&post(&site, "/customers/add/", "name=B&email=notanemail").await),
        "Enter a valid email address."
    );
    let renamed = post(&site, "/customers/2/edit/", "name=Rob&email=bob@example.com&is_enabled=false").await;
    leads(&site, &renamed, "/customers/", "Customer updated successfully.").await;
    assert_eq!(
        db.get::<String>(
            "select concat_ws(' ', old_name, new_name, invoice_id) from invoice.customer_name_change"
        )
        .await,
        "Bob Rob"
    );

    for (query, count) in [
        ("/products/?search=MIL", 1),
        ("/products/?search=p00", 2),
        ("/products/?search=%25", 0),
        ("/denominations/?search=500", 1),
        ("/denominations/?search=50x", 0),
        ("/denominations/?search=5", 1),
        ("/denominations/?per_page=100&page=9", 10),
        ("/customers/?search=ROB", 1),
        ("/customers/?search=bob@", 1),
        ("/customers/?search=zz", 0),
    ] {
        let page = site.get(query).await;
        assert_eq!(
            (page.status, page.body.matches("/edit/\">Edit").count()),
            (200, count),
            "{query}: {page:?}"
        );
    }
    let list = site.get("/denominations/").await.body;
    assert!(list.find("<td>2000</td>").unwrap() < list.find("<td>500</td>").unwrap());
    for path in ["/customers/1/delete/", "/denominations/1/delete/"] {
        assert_eq!(site.get(path).await.status, 302, "a GET deletes nothing");
        assert_eq!(post(&site, path, "").await.status, 302);
    }
    assert_eq!(db.get::<Value>("select jsonb_build_array((select count(*) from invoice.customer), (select count(*) from invoice.denomination))").await, json!([1, 9]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_link_or_a_cookie_says_gets_into_a_page_unescaped_or_breaks_it() {
    let db = invoice().await;
    let site = site(&db).await;
    let page = site.get("/invoice/?customer_name=%22%3E%3Cscript%3E&message=hello&invoice_message=x").await;
    assert!(
        !page.body.contains("\"><script>") && !page.body.contains("hello") && !page.body.contains(MESSAGE)
    );
    // Base64 of <script>; then what is none, and what is no text.
    let page = site.ask("GET", "/products/", &["Cookie: invoice_message=PHNjcmlwdD4"], b"").await;
    assert_eq!(shown(&page, MESSAGE), "&lt;script&gt;");
    for cookie in ["%%%", "A", "_w", ""] {
        let page = site.ask("GET", "/products/", &[&format!("Cookie: invoice_message={cookie}")], b"").await;
        assert_eq!((page.status, page.body.contains(MESSAGE)), (200, false), "{cookie}");
    }
    // Odd forms are answered in words.
    for body in ["", "quantity[]=1", "product_id[]=1", "denom_=1&denom_x=2", "customer_name=%00"] {
        let answer = post(&site, "/invoice/add/", body).await;
        assert!([200, 400].contains(&answer.status), "{body}: {answer:?}");
    }
    let gone = post(
        &site,
        "/invoice/add/",
        "customer_name=A&customer_email=a@b.example&product_id[]=1&quantity[]=1&denom_77=1",
    )
    .await;
    assert_eq!(refusal(&gone), "Denomination #77 is not accepted.");
    let elsewhere = site
        .ask("POST", "/customers/add/", &[FORM, "Origin: https://evil.example"], b"name=x&email=x@y.example")
        .await;
    assert_eq!(elsewhere.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_make_and_read_invoices_in_json() {
    let db = invoice().await;
    let site = site(&db).await;
    let mut order = json!({ "customer_name": "Ann", "customer_email": "ann@example.com", "lines": [{ "product_id": 1, "quantity": 2 }], "received": { "500": 1 } });
    let made = site.post("/api/invoices/", &order).await;
    assert_eq!((made.status, made.json()), (201, json!({ "id": 1 })));
    let shown = site.get("/api/invoices/1/").await.json();
    assert_eq!((&shown["net_amount"], &shown["change_denoms"]["200"]), (&json!("42.00"), &json!(2)));
    order["received"] = json!({ "1": 1 });
    let refused = site.post("/api/invoices/", &order).await;
    assert_eq!(
        (refused.status, refused.json()),
        (400, json!({ "error": "Cash paid by customer is less than rounded payable amount." }))
    );
    assert_eq!(site.get("/api/invoices/2/").await.status, 404);
}
