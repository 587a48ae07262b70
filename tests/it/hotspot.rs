//! The bundled plugin hotspot: a shop with its own gateway, router and SMS provider, and what the words of its rules come to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site, ask};
use crate::harness::{PATIENCE, TestDb};

/// The stand-in of examples/fake_gateway.rs as a process; it ends with its standard input.
pub(crate) struct Gateway {
    _child: Child,
    pub(crate) address: String,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(program())
            .args(["127.0.0.1:0", "--until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let up: Value = serde_json::from_str(&line).unwrap();
        Self { _child: child, address: up["listening"].as_str().unwrap().to_owned() }
    }

    pub(crate) async fn state(&self) -> Value {
        ask(&self.address, "GET", "/state", &[], b"").await.json()
    }

    /// Lays this over its state.
    pub(crate) async fn set(&self, over: Value) {
        assert_eq!(ask(&self.address, "POST", "/state", &[], over.to_string().as_bytes()).await.status, 200);
    }

    /// Waits until something holds of its state.
    pub(crate) async fn until(&self, what: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let state = self.state().await;
            if what(&state) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "the gateway never came to that: {state:#}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The texts that a number has got.
    pub(crate) async fn texts(&self, phone: &str) -> Vec<String> {
        texts_of(&self.state().await, phone)
    }

    /// The connections of a daemon that lead here.
    fn connections(&self, secret: &str) -> String {
        let base = |name: &str| {
            format!(
                "[connections.{name}]\ntype = \"http\"\nbase_url = \"http://{}/{name}\"\nallow_private_addresses = true\n",
                self.address
            )
        };
        format!(
            "{}auth = \"oauth2\"\ntoken_url = \"http://{}/momo/collection/token/\"\nclient_id = \"us\"\nclient_secret_file = \"{secret}\"\n{}{}",
            base("momo"),
            self.address,
            base("router"),
            base("sms")
        )
    }
}

fn texts_of(state: &Value, phone: &str) -> Vec<String> {
    let messages = state["sms"]["messages"].as_array().unwrap();
    messages.iter().filter(|m| m["to"] == phone).map(|m| m["text"].as_str().unwrap().to_owned()).collect()
}

/// The stand-in, built once: `cargo test --test it` builds no examples.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--example", "fake_gateway", "--message-format=json"]);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        if cfg!(feature = "kafka") {
            command.args(["--features", "kafka"]);
        }
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let said = String::from_utf8(built.stdout).unwrap();
        let artifacts = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = artifacts.filter(|it| it["target"]["name"] == "fake_gateway");
        ours.filter_map(|it| it["executable"].as_str().map(String::from))
            .next_back()
            .expect("the example was built")
    })
}

/// A database with hotspot, its partners, and a daemon that serves it.
pub(crate) struct Shop {
    pub(crate) db: TestDb,
    pub(crate) gateway: Gateway,
    pub(crate) site: Site,
    _secret: tempfile::NamedTempFile,
}

/// A database with hotspot, in which retries come soon.
pub(crate) async fn hotspot() -> TestDb {
    let db = TestDb::new().await;
    rowbeat(&db, &["plugin", "install", "hotspot"]).ok();
    db.run(
        "update rowbeat.task_definition set backoff = '200 milliseconds', backoff_list = null, backoff_max = '300 milliseconds', timeout = '30 seconds'
         where name like 'hotspot.%'",
    )
    .await;
    db
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::open_with("").await
    }

    /// With more configuration for the daemon.
    pub(crate) async fn open_with(more: &str) -> Self {
        let (db, gateway) = (hotspot().await, Gateway::start());
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "sesame").unwrap();
        let config = gateway.connections(secret.path().to_str().unwrap());
        let site = Site::new(&db, &format!("{config}{more}")).await;
        site.until("GET", "/transactions/", 200).await;
        Self { db, gateway, site, _secret: secret }
    }

    /// Another daemon in the place of the one that dies now.
    pub(crate) async fn crash_and_come_back(self) -> Self {
        let Self { db, gateway, site, _secret: secret } = self;
        site.daemon.kill9();
        let config = gateway.connections(secret.path().to_str().unwrap());
        let site = Site::new(&db, &config).await;
        site.until("GET", "/transactions/", 200).await;
        Self { db, gateway, site, _secret: secret }
    }

    /// A form, as a browser sends it.
    pub(crate) async fn post(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
        let body = Serializer::new(String::new()).extend_pairs(fields).finish();
        let cookie = format!("Cookie: {cookie}");
        let headers = ["Content-Type: application/x-www-form-urlencoded", cookie.as_str()];
        self.site.ask("POST", path, &headers, body.as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.site.ask("GET", path, &[&format!("Cookie: {cookie}")], b"").await
    }

    /// The form, filled in; the cookie of the visit.
    pub(crate) async fn visit(&self, phone: &str, bundle: &str) -> String {
        let answer = self
            .post(
                "/transactions/",
                "",
                &[("Full_Name", "Ama Mensah"), ("Phone_Number", phone), ("Data_Bundle", bundle)],
            )
            .await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, vec!["/transactions/otp/"]),
            "{answer:?}"
        );
        answer.header("set-cookie")[0].split(';').next().unwrap().to_owned()
    }

    /// The newest one-time code that a phone has got.
    pub(crate) async fn otp(&self, phone: &str, nth: usize) -> String {
        let codes = |state: &Value| -> Vec<String> {
            let texts = texts_of(state, phone).into_iter();
            texts
                .filter_map(|text| Some(text.strip_prefix("Here's your onetime otp : ")?.to_owned()))
                .collect()
        };
        codes(&self.gateway.until(|state| codes(state).len() > nth).await)[nth].clone()
    }

    /// A purchase up to the request for payment; the cookie.
    pub(crate) async fn buy(&self, phone: &str, bundle: &str) -> String {
        let cookie = self.visit(phone, bundle).await;
        let otp = self.otp(phone, 0).await;
        let answer = self.post("/transactions/otp/", &cookie, &[("otp", &otp)]).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, vec!["/transactions/success/"]),
            "{answer:?}"
        );
        cookie
    }

    /// Waits until the sale of a phone has a status.
    pub(crate) async fn until(&self, phone: &str, status: &str) {
        self.db
            .until(&format!("(select status = '{status}' from hotspot.sale where phone_number = '{phone}')"))
            .await;
    }
}

pub(crate) const TEN: &str = "10_GHS__15GB_(3_days)";

/// A sale that has been paid, by SQL alone; its id.
pub(crate) async fn paid(db: &TestDb, phone: &str, bundle: &str) -> String {
    db.get_with(
        "with sold as (insert into hotspot.sale (full_name, phone_number, bundle_code) values ('Kofi', $1, $2) returning id)
         select id::text from sold",
        &[&phone, &bundle],
    )
    .await
}

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
