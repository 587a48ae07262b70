//! The bundled plugin hotspot: a shop with its own gateway, router and SMS provider, for the tests of the others.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::cli::rowbeat;
use crate::endpoint::{Answer, Site, ask};
use crate::harness::{PATIENCE, TestDb};

/// The stand-in of examples/fake_gateway as a process; it ends with its standard input.
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
    pub(crate) fn connections(&self, secret: &str) -> String {
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
