//! Before the sale: bundles, phone numbers and one-time codes.

use serde_json::{Value, json};

use crate::cli::rowbeat;
use crate::hotspot::{Shop, TEN, hotspot, paid};

#[tokio::test(flavor = "multi_thread")]
async fn c1_c2_prices_become_bundles_by_exact_decimals() {
    let db = hotspot().await;
    let codes = async |prices: &str, base: &str| -> Vec<String> {
        db.get(&format!(
            "select coalesce(array_agg(code), '{{}}') from hotspot.data_allocation('{{{prices}}}', {base})"
        ))
        .await
    };
    assert_eq!(
        codes("3, 5, 10, 15, 20, 30, 50", "600").await,
        [
            "3_GHS__600.0MB",
            "5_GHS__1.0GB",
            "10_GHS__2.0GB",
            "15_GHS__3.0GB",
            "20_GHS__4.0GB",
            "30_GHS__6.0GB",
            "50_GHS__10.0GB"
        ]
    );
    assert_eq!(
        codes("3, 5, 9, 10, 15, 30, 300", "340.29").await,
        [
            "3_GHS__340.29MB",
            "5_GHS__567.15MB",
            "9_GHS__1.02GB",
            "10_GHS__1.13GB",
            "15_GHS__1.7GB",
            "30_GHS__3.4GB",
            "300_GHS__34.03GB"
        ]
    );
    assert_eq!(codes("3, 5, 10", "2000").await, ["3_GHS__2.0GB", "5_GHS__3.33GB", "10_GHS__6.67GB"]);
    assert_eq!(
        codes("2, 500, 10.5, 2.99, 20.01, 499.99", "3").await,
        ["20.01_GHS__20.01MB", "499.99_GHS__499.99MB"]
    );
    let said =
        rowbeat(&db, &["app", "hotspot", "bundles", "--base", "600", "--prices", "3", "2", "500"]).ok();
    assert_eq!(
        said,
        "3_GHS__600.0MB\nPrice 2 is outside the allowed ranges.\nPrice 500 is outside the allowed ranges.\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_c3b_a_code_is_price_and_data_and_reads_well() {
    let db = hotspot().await;
    db.run("insert into hotspot.bundle (code) values ('0.1_GHS__100MB')").await;
    let parts: Value = db.get("select jsonb_object_agg(code, jsonb_build_array(trim_scale(price)::text, data_label, hotspot.data_text(data_label))) from hotspot.bundle").await;
    assert_eq!(parts["0.1_GHS__100MB"], json!(["0.1", "100MB", "100MB"]));
    assert_eq!(parts[TEN], json!(["10", "15GB_(3_days)", "15GB  valid for 3 days"]));
    assert_eq!(parts["30_GHS__(Unlimited_24hrs)"], json!(["30", "(Unlimited_24hrs)", "Unlimited 24hrs"]));
    let id = paid(&db, "0241234567", TEN).await;
    db.run("update hotspot.sale set hotspot_username = '1abcd2', hotspot_password = '3efgh4', mtn_transaction_id = '77'").await;
    assert_eq!(
        db.get::<String>(&format!("select hotspot.sms_text('{id}')")).await,
        "You have successfully purchased 15GB  valid for 3 days at GHc10.\nHotspot Username : 1abcd2\nHotspot Password : 3efgh4\nTransaction ID : 77"
    );
    assert_eq!(db.refusal("insert into hotspot.bundle (code) values ('ten_GHS__x')").await.0, "23514");
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_phone_number_is_ten_digits_of_the_network() {
    let shop = Shop::open().await;
    for (phone, says) in [
        ("0501234567", "0501234567 is not a valid MTN phone number"),
        ("024123456", "024123456 is not 10 digits"),
        ("024abcdefg", "024abcdefg is not 10 digits"),
        ("02412345678", "02412345678 is not 10 digits"),
        ("٠٢٤١٢٣٤٥٦٧", "is not 10 digits"),
        ("0241234567 ", "0241234567  is not 10 digits"),
        ("", "is not 10 digits"),
    ] {
        let answer = shop
            .post(
                "/transactions/",
                "",
                &[("Full_Name", "Ama"), ("Phone_Number", phone), ("Data_Bundle", TEN)],
            )
            .await;
        assert!(answer.body.contains(says), "{phone}: {answer:?}");
        assert_eq!(answer.header("cache-control"), ["no-store"]);
    }
    for (bundle, name, says) in [
        ("7_GHS__x", "Ama", "Select a valid choice."),
        (TEN, " ", "Full name is required."),
        ("0.1_GHS__100MB", "Ama", "Select a valid choice."),
    ] {
        let answer = shop
            .post(
                "/transactions/",
                "",
                &[("Full_Name", name), ("Phone_Number", "0241234567"), ("Data_Bundle", bundle)],
            )
            .await;
        assert!(answer.body.contains(says), "{answer:?}");
    }
    assert_eq!(shop.db.get::<i64>("select count(*) from hotspot.checkout").await, 0);
    for prefix in ["024", "025", "053", "054", "055", "059"] {
        shop.visit(&format!("{prefix}1234567"), TEN).await;
    }
    assert_eq!(shop.db.get::<String>("select hotspot.payer('0241234567')").await, "233241234567");

    // The test bundle is there while the setting names it.
    shop.db
        .run("update rowbeat.plugin_setting set value = '\"0.1_GHS__100MB\"' where name = 'test_bundle'")
        .await;
    assert!(shop.get("/transactions/", "").await.body.contains("0.1_GHS__100MB"));
    shop.visit("0247654321", "0.1_GHS__100MB_(24hrs)").await;
    assert_eq!(
        shop.db
            .get::<String>("select bundle_code::text from hotspot.checkout where phone_number = '0247654321'")
            .await,
        "0.1_GHS__100MB"
    );
    shop.db.run("update rowbeat.plugin_setting set value = null where name = 'test_bundle'").await;
    assert!(!shop.get("/transactions/", "").await.body.contains("0.1_GHS__100MB"));
    let answer = shop
        .post(
            "/transactions/",
            "",
            &[("Full_Name", "Ama"), ("Phone_Number", "0241234567"), ("Data_Bundle", "0.1_GHS__100MB")],
        )
        .await;
    assert!(answer.body.contains("Select a valid choice."));
}

#[tokio::test(flavor = "multi_thread")]
async fn c4b_a_one_time_code_is_text_good_once_for_a_while_and_five_tries() {
    let db = hotspot().await;
    let visit = async |code: &str| -> String {
        let token: String =
            db.get(&format!("select hotspot.start_checkout('Ama', '0241234567', '{TEN}')::text")).await;
        assert!(db.get::<bool>(&format!("select text ~ '^Here''s your onetime otp : [0-9]{{6}}$' from hotspot.sms where checkout_token = '{token}'")).await);
        db.run(&format!("update hotspot.checkout set otp_hash = hotspot.hash_otp(otp_salt, '{code}') where token = '{token}'")).await;
        token
    };
    let answer = async |token: &str, code: &str| -> Option<String> {
        db.get(&format!("select hotspot.verify_otp('{token}', '{code}')::text")).await
    };
    let token = visit("012345").await;
    assert_eq!((answer(&token, "12345").await, answer(&token, "abc").await), (None, None));
    let sale = answer(&token, "012345").await;
    assert!(sale.is_some());
    assert_eq!((answer(&token, "012345").await, answer(&token, "54321").await), (sale, None));
    assert_eq!(db.get::<i64>("select count(*) from hotspot.sale").await, 1);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where definition = 'hotspot.request_payment'").await,
        1
    );
    assert!(db.get::<bool>("select status = 'requested' and amount = 10 and hotspot_username ~ '^[0-9][a-z]{4}[0-9]$' and hotspot_password ~ '^[0-9][a-z]{4}[0-9]$' from hotspot.sale").await);

    let token = visit("000000").await;
    for _ in 0..5 {
        assert_eq!(answer(&token, "1").await, None);
    }
    assert_eq!(answer(&token, "000000").await, None, "it is closed after five tries");
    let token = visit("000000").await;
    db.run(&format!(
        "update hotspot.checkout set otp_expires_at = now() - interval '1 second' where token = '{token}'"
    ))
    .await;
    assert_eq!(answer(&token, "000000").await, None, "its time is over");
    let token = visit("111111").await;
    let (one, two) = (db.session().await, db.session().await);
    let sql = format!("select hotspot.verify_otp('{token}', '111111')::text");
    let (first, second) = tokio::join!(one.query_one(&sql, &[]), two.query_one(&sql, &[]));
    assert_eq!(
        first.unwrap().get::<_, Option<String>>(0),
        second.unwrap().get(0),
        "two at once are one sale"
    );
    db.run("set rowbeat.clock_offset = '25 hours'; select hotspot.close_checkouts('{}')").await;
    assert!(db.get::<bool>("select (select count(*) from hotspot.checkout) = 0 and not exists (select from hotspot.sms where text is not null)").await);
}
