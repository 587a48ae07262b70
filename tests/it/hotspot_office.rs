//! The office: dashboard, sales, export, vouchers, logs, mails and the SMS balance.

use std::io::Cursor;
use std::time::Instant;

use calamine::{Data, Reader, Xlsx};
use serde_json::{Value, json};

use crate::cli::{finish, rowbeat};
use crate::endpoint::Site;
use crate::harness::{Daemon, PATIENCE, TestDb, server};
use crate::hotspot::{Gateway, Shop, TEN, hotspot, paid};
use crate::login::Login;
use crate::postbox::{Identity, Postbox, Security};

#[tokio::test(flavor = "multi_thread")]
async fn c16_an_export_has_the_filtered_sales_and_is_on_record() {
    let db = hotspot().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/hotspot/", 200).await;
    db.run("insert into hotspot.staff (username, email) values ('efua', 'efua@shop.example')").await;
    for phone in ["0242331234", "2334567890", "0241111111"] {
        paid(&db, phone, TEN).await;
    }
    db.run(
        "update hotspot.sale set status = 'delivered', paid_at = now(), delivered_at = now(), voucher_code = 'a - b', mtn_transaction_id = '9', full_name = 'Doe, Jane',
             created_by = (select id from hotspot.staff) where phone_number = '0242331234'",
    )
    .await;
    let export = async |form: &str| {
        site.ask(
            "POST",
            "/hotspot/sales/export",
            &["Content-Type: application/x-www-form-urlencoded"],
            form.as_bytes(),
        )
        .await
    };
    let all = export("").await;
    assert_eq!(all.header("content-disposition"), ["attachment; filename=\"Kaneshi Transactions.csv\""]);
    let lines: Vec<&str> = all.body.lines().collect();
    assert_eq!(
        lines[0],
        "Full_Name,Phone_Number,Data_Bundle,Amount(¢),Voucher_Code,mtnTransactionId,Payment_Status,Voucher_Code_Recieved,Date_Created,created_by"
    );
    let date: String = db.get("select to_char(created_at at time zone 'Africa/Accra', 'YYYY-MM-DD HH24:MI:SS') from hotspot.sale where phone_number = '0242331234'").await;
    assert_eq!(lines[1], format!("\"Doe, Jane\",0242331234,15GB_(3_days),10,a - b,9,true,true,{date},efua"));
    assert!(
        lines[2].starts_with("Kofi,04567890,15GB_(3_days),10,,,false,false,")
            && lines[2].ends_with(",04567890"),
        "{}",
        lines[2]
    );
    assert_eq!(lines.len(), 4);
    for (form, count) in [
        ("payment_status=false", 2),
        ("search=DOE%2C", 1),
        ("created_by=efua", 1),
        ("created_by=nobody", 0),
        ("voucher_code_received=true", 1),
        ("date=2001-01-01", 0),
        ("search=%25", 0),
        ("payment_status=", 3),
    ] {
        assert_eq!(export(form).await.body.lines().count() - 1, count, "{form}");
    }
    let logged: Value = db.get("select jsonb_build_array(count(*), min(actor), min(object_type)) from hotspot.log_entry where action_flag = 'export'").await;
    assert_eq!(logged, json!([9, "operator", "sale"]));
    let found = site.get("/api/hotspot/sales?search=024&payment_status=true").await.json();
    assert_eq!(
        (&found["sales"][0]["full_name"], found["sales"].as_array().unwrap().len()),
        (&json!("Doe, Jane"), 1)
    );
    assert!(found["sales"][0].get("checkout_token").is_none(), "a customer's key is nobody else's");
    assert_eq!(site.get("/api/hotspot/sales?date=soon").await.status, 400);
    db.run("insert into hotspot.sale (full_name, phone_number, bundle_code) select 'Row ' || g, '0240000000', '3_GHS__2GB_(24hrs)' from generate_series(1, 120) g").await;
    let page = site.get("/api/hotspot/sales?search=row%20&page=2").await.json();
    assert_eq!((page["sales"].as_array().unwrap().len(), &page["more"]), (20, &json!(false)));
    let html = site.get("/hotspot/sales/?search=row%20&date=").await.body;
    assert!(html.contains("Row 1<") && html.contains("Later") && !html.contains("Earlier"), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c16_an_export_for_excel_keeps_names_numbers_and_zeros_as_they_are() {
    let db = hotspot().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/hotspot/", 200).await;
    paid(&db, "0242331234", TEN).await;
    db.run("update hotspot.sale set full_name = '=HYPERLINK(\"x\")', amount = 10.5").await;
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let answer = site.ask("POST", "/hotspot/sales/export", &form, b"format=xlsx&search=HYPER").await;
    assert_eq!(answer.header("content-disposition"), ["attachment; filename=\"Kaneshi Transactions.xlsx\""]);
    assert!(answer.header("content-type")[0].ends_with("spreadsheetml.sheet"), "{}", answer.head);
    let mut book: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(answer.bytes)).unwrap();
    let sheet = book.worksheet_range_at(0).unwrap().unwrap();
    let rows: Vec<_> = sheet.rows().map(|row| &row[..6]).collect();
    let text = |text: &str| Data::String(text.to_owned());
    assert_eq!(rows[0][3], text("Amount(¢)"));
    assert_eq!(rows[1][..3], [text("=HYPERLINK(\"x\")"), text("0242331234"), text("15GB_(3_days)")]);
    assert_eq!((rows.len(), &rows[1][3], &rows[1][4]), (2, &Data::Float(10.5), &Data::Empty));
    assert!(book.worksheet_formula("Sheet1").unwrap().is_empty(), "a customer's name is no formula");
    let logged: Value = db.get("select to_jsonb(l) - array['id', 'action_time'] from hotspot.log_entry l where action_flag = 'export'").await;
    assert_eq!(
        (&logged["object_repr"], &logged["change_message"]),
        (&json!("Kaneshi Transactions.xlsx"), &json!("1 transactions {\"search\": \"HYPER\"}"))
    );
    assert_eq!(site.ask("POST", "/hotspot/sales/export", &form, b"format=ods").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn c17_the_dashboard_is_one_row_that_follows_the_sales() {
    let db = hotspot().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/hotspot/", 200).await;
    paid(&db, "0241234567", TEN).await;
    db.until("(select payload -> 'sales' = '1' from hotspot.dashboard)").await;
    // A lock on the sales is in nobody's way who looks at the dashboard.
    let session = db.session().await;
    session.batch_execute("begin; lock table hotspot.sale in access exclusive mode; insert into hotspot.sale (full_name, phone_number, bundle_code, status, paid_at) values ('Esi', '0249999999', '3_GHS__2GB_(24hrs)', 'paid', now())").await.unwrap();
    let (asked, customers) = (Instant::now(), (0..20).map(|_| site.get("/api/hotspot/dashboard")));
    for answer in futures_util::future::join_all(customers).await {
        assert_eq!((answer.status, &answer.json()["sales"]), (200, &json!(1)));
    }
    assert!(site.get("/hotspot/").await.body.contains("pending refunds"));
    assert!(asked.elapsed() < PATIENCE);
    session.batch_execute("commit").await.unwrap();
    db.until("(select payload -> 'sales' = '2' from hotspot.dashboard)").await;
    let shown = site.get("/api/hotspot/dashboard").await.json();
    let picked = |key: &str| shown[key].clone();
    assert_eq!(
        [picked("paid"), picked("pending_refunds"), picked("unclaimed_vouchers")],
        [json!(1), json!(1), json!(0)]
    );
    assert_eq!(shown["revenue"].as_f64(), Some(3.0));
    assert_eq!(shown["days"].as_array().unwrap().len(), 30);
    assert_eq!(shown["days"][29]["sales"], 2);
    // A burst is few refreshes; what was refunded is no revenue.
    db.run("insert into hotspot.voucher (username, password) values ('a', 'b')").await;
    db.run("do $$ begin for i in 1 .. 50 loop insert into hotspot.sale (full_name, phone_number, bundle_code) values ('x', '0240000000', '3_GHS__2GB_(24hrs)'); end loop; end $$").await;
    db.run("select hotspot.refund(id, 'x', 'y') from hotspot.sale where paid_at is not null").await;
    db.until("(select payload @> '{\"sales\": 52, \"unclaimed_vouchers\": 1, \"pending_refunds\": 0}' and (payload -> 'revenue')::numeric = 0 from hotspot.dashboard)").await;
    assert!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'hotspot.refresh_dashboard' and state = 'waiting'").await
            <= 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn vouchers_are_loaded_once_each_by_command_and_by_upload() {
    let db = hotspot().await;
    let load = |content: &str, more: &[&str]| {
        let mut arguments = vec!["app", "hotspot", "load_vouchers", "-"];
        arguments.extend(more);
        finish(server().rowbeat(&db.name), &arguments, content)
    };
    assert_eq!(load("\u{feff}Login,Password,Uptime Limit\r\na1,p1,1d\r\na2,p2,\r\na1,p9,2d\r\n\r\n\"b\"\"1\",\"p,3\",\"1d, 2h\"\r\n", &[]).ok(), "3 vouchers loaded, 1 skipped.\n");
    assert_eq!(
        load("Password;Uptime Limit;Login\np4;1d;a4\np1;1d;a5\n", &["--bundle", TEN]).ok(),
        "1 vouchers loaded, 1 skipped.\n"
    );
    let pool: Value = db.get("select jsonb_agg(jsonb_build_array(username, password, uptime_limit, bundle_code) order by username) from hotspot.voucher").await;
    assert_eq!(
        pool,
        json!([
            ["a1", "p1", "1d", null],
            ["a2", "p2", null, null],
            ["a4", "p4", "1d", TEN],
            ["b\"1", "p,3", "1d, 2h", null]
        ])
    );
    load("Name,Secret\na,b\n", &[]).refused(1, &["The columns Login, Password and Uptime Limit are needed."]);
    load("Login,Password\na9,\n", &[]).refused(1, &["Line 2: Login and Password have 1 to 15 characters"]);
    load("Login,Password\na9,b9\n", &["--bundle", "none"]).refused(1, &["Bundle none does not exist."]);
    let many: String = (0..20_000).map(|n| format!("user{n},pass{n},1d\n")).collect();
    assert_eq!(
        load(&format!("Login,Password,Uptime Limit\n{many}"), &[]).ok(),
        "20000 vouchers loaded, 0 skipped.\n"
    );

    let site = Site::new(&db, "").await;
    site.until("GET", "/hotspot/vouchers/", 200).await;
    let body = "--x\r\nContent-Disposition: form-data; name=\"bundle\"\r\n\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"any name.txt\"\r\n\r\nLogin,Password,Uptime Limit\na1,p1,1d\nnew1,new1,1d\n\r\n--x--\r\n";
    let page = site
        .ask(
            "POST",
            "/hotspot/vouchers/",
            &["Content-Type: multipart/form-data; boundary=x"],
            body.as_bytes(),
        )
        .await;
    assert!(page.status == 200 && page.body.contains("1 vouchers loaded, 1 skipped."), "{page:?}");
    let mut bytes = body.as_bytes().to_vec();
    *bytes.iter_mut().rfind(|byte| **byte == b'd').unwrap() = 0xff;
    let bad = site
        .ask("POST", "/hotspot/vouchers/", &["Content-Type: multipart/form-data; boundary=x"], &bytes)
        .await;
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_eq!(db.get::<i64>("select count(*) from hotspot.log_entry where action_flag = 'import'").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staff_did_is_logged_and_the_log_is_only_added_to() {
    let db = hotspot().await;
    let site = Site::new(&db, "").await;
    site.until("GET", "/hotspot/logs/", 200).await;
    db.run("set rowbeat.actor = 'efua'; insert into hotspot.bundle (code) values ('7_GHS__9GB'); update hotspot.bundle set router_profile = 'p' where code like '7%'; delete from hotspot.bundle where code like '7%'").await;
    db.run("insert into hotspot.staff (username) values ('kojo'); reset rowbeat.actor").await;
    let entries: Value = db.get("select jsonb_agg(jsonb_build_array(actor, action_flag, object_type, object_repr, change_message) order by action_time, ctid) from hotspot.log_entry").await;
    assert_eq!(
        entries,
        json!([
            ["efua", "addition", "bundle", "7_GHS__9GB", ""],
            ["efua", "change", "bundle", "7_GHS__9GB", "Changed: router_profile"],
            ["efua", "deletion", "bundle", "7_GHS__9GB", ""],
            ["efua", "addition", "staff", "kojo", ""]
        ])
    );
    for change in [
        "update hotspot.log_entry set actor = 'x'",
        "delete from hotspot.log_entry",
        "truncate hotspot.log_entry",
    ] {
        assert_eq!(db.refusal(change).await, ("RP409".into(), "Log entries are never changed.".into()));
    }
    let page = site.get("/hotspot/logs/?action=deletion&actor=efua&object_type=bundle").await.body;
    assert_eq!(page.matches("<tr><td>efua").count(), 1, "{page}");
    let id: String = db.get("select id::text from hotspot.log_entry where action_flag = 'change'").await;
    assert!(site.get(&format!("/hotspot/logs/{id}")).await.body.contains("Changed: router_profile"));
    assert_eq!(site.get("/hotspot/logs/00000000-0000-0000-0000-000000000000").await.status, 404);
    rowbeat(&db, &["token", "create", "till", "--plugin", "hotspot"]).ok();
    for path in [
        "/hotspot/",
        "/hotspot/sales/",
        "/hotspot/refunds/",
        "/hotspot/logs/",
        "/hotspot/backup/",
        "/hotspot/vouchers/",
        "/api/hotspot/sales",
        "/api/hotspot/dashboard",
    ] {
        assert_eq!(site.get(path).await.status, 401, "{path} is for staff");
    }
    assert_eq!(site.get("/transactions/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_sms_balance_is_told_to_active_staff_once_a_day() {
    let shop = Shop::open().await;
    shop.db.run("insert into hotspot.staff (username, phone_number, is_active) values ('a', '0201111111', true), ('b', '0202222222', true), ('c', '0203333333', false), ('d', null, true)").await;
    let check = async || {
        let id: i64 = shop.db.get("select rowbeat.enqueue('hotspot.check_sms_balance')").await;
        shop.db.until(&format!("(select state = 'completed' from rowbeat.tasks where id = {id})")).await;
    };
    shop.gateway.set(json!({ "sms": { "balance": 101 } })).await;
    check().await;
    assert_eq!(shop.db.get::<i64>("select count(*) from hotspot.sms").await, 0);
    shop.gateway.set(json!({ "sms": { "balance": 100 } })).await;
    check().await;
    check().await;
    shop.db.until("(select count(*) = 2 and bool_and(sent_at is not null) from hotspot.sms)").await;
    for phone in ["0201111111", "0202222222"] {
        assert_eq!(
            shop.gateway.texts(phone).await,
            ["Balance running low .Please top-up .Remaining Balance : 100"]
        );
    }
    shop.db.run("update hotspot.sms set day = day - 1").await;
    check().await;
    shop.gateway.until(|state| state["sms"]["messages"].as_array().unwrap().len() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_get_one_mail_of_each_sale_that_waits_for_a_quarter_of_an_hour() {
    let postbox = Postbox::start(Security::None, &Identity::for_host("localhost"), None).await;
    let shop = Shop::open_with(&postbox.connection("mail", "tls = \"none\"")).await;
    shop.db.run("insert into hotspot.staff (username, email, is_active) values ('a', 'a@shop.example', true), ('b', 'b@shop.example', true), ('c', 'c@shop.example', false)").await;
    shop.gateway.set(json!({ "router": { "down": true } })).await;
    for (phone, age) in [("0241234567", 16), ("0247654321", 14)] {
        let id = paid(&shop.db, phone, TEN).await;
        shop.db.run(&format!("update hotspot.sale set status = 'paid', paid_at = now() - interval '{age} minutes' where id = '{id}'")).await;
    }
    for _ in 0..2 {
        let id: i64 = shop.db.get("select rowbeat.enqueue('hotspot.retry_deliveries')").await;
        shop.db.until(&format!("not exists (select from rowbeat.task where id = {id})")).await;
    }
    shop.db.until("(select count(*) = 1 from rowbeat.tasks where definition = 'hotspot.mail_staff' and state = 'completed')").await;
    let mails = postbox.mails();
    assert_eq!(mails.len(), 1);
    let text = format!("{:?}", mails[0]);
    assert!(
        text.contains("DDS CHILLZONE Paid and not delivered: Kofi") && text.contains("0241234567"),
        "{text}"
    );
    assert!(
        text.contains("a@shop.example")
            && text.contains("b@shop.example")
            && !text.contains("c@shop.example"),
        "{text}"
    );
    let credentials: Vec<String> = shop.db.get("select array[hotspot_username::text, hotspot_password::text] from hotspot.sale where phone_number = '0241234567'").await;
    assert!(credentials.iter().all(|secret| !text.contains(secret)));
}

#[tokio::test(flavor = "multi_thread")]
async fn hotspot_works_also_where_no_roles_can_be_made() {
    let db = TestDb::empty().await;
    let login = Login::new(&db, "nocreaterole").await;
    let said = login.install("hotspot");
    assert!(said.contains("not isolated"), "{said}");
    let (gateway, secret) = (Gateway::start(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(secret.path(), "sesame").unwrap();
    let toml = gateway.connections(secret.path().to_str().unwrap());
    let _daemon = Daemon::start(login.command(), &toml, &[]).ready().await;
    db.run(&format!("set role {}", login.role)).await;
    let id = paid(&db, "0241234567", TEN).await;
    db.run(&format!("select hotspot.record_payment('{id}', 'SUCCESSFUL', 'F1', null)")).await;
    db.until("(select status = 'delivered' from hotspot.sale)").await;
    db.until("(select count(*) = 1 from hotspot.sms where sent_at is not null)").await;
    assert_eq!(gateway.texts("0241234567").await.len(), 1);
}
