//! The demo's purchase: the bundled plugin `hotspot` sells a bundle, with stand-ins for its payment gateway, router and SMS provider.

#[path = "../../../examples/fake_gateway/gateway.rs"]
mod gateway;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_postgres::Client;

use super::PATIENCE;
use crate::cli::failure::Failure;
use crate::db::connect::Connector;
use crate::plugin::installer::{self, Options};
use crate::plugin::problem::Problems;
use crate::plugin::{Plugin, bundled};

const CHECKOUT: &str = include_str!("../../../sql/demo/checkout.sql");
const CONFIRM: &str = include_str!("../../../sql/demo/confirm.sql");
const SALE: &str = include_str!("../../../sql/demo/sale.sql");

/// Whom hotspot talks to.
pub(super) struct Partners {
    pub(super) address: SocketAddr,
    state: gateway::State,
}

impl Partners {
    /// They, and what serves them.
    pub(super) async fn open() -> io::Result<(Self, impl Future<Output = ()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let partners = Self { address: listener.local_addr()?, state: gateway::first_state() };
        let serving = gateway::run(listener, partners.state.clone());
        Ok((partners, serving))
    }

    /// The daemon's connections to them; the gateway's password goes to a file of the folder.
    pub(super) fn connections(&self, folder: &Path) -> io::Result<String> {
        let secret = folder.join("momo-key");
        std::fs::write(&secret, "sesame")?;
        let address = self.address;
        let base = |name: &str| {
            format!(
                "[connections.{name}]\ntype = \"http\"\nbase_url = \"http://{address}/{name}\"\nallow_private_addresses = true\n"
            )
        };
        Ok(format!(
            "{}{}{}auth = \"oauth2\"\ntoken_url = \"http://{address}/momo/collection/token/\"\nclient_id = \"demo\"\nclient_secret_file = {}\n",
            base("router"),
            base("sms"),
            base("momo"),
            json!(secret)
        ))
    }

    /// What they know at a place, such as `/router/users`.
    fn know(&self, pointer: &str) -> Value {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.pointer(pointer).cloned().unwrap_or_default()
    }

    /// The texts that were sent, oldest first.
    fn texts(&self) -> Vec<String> {
        let messages = self.know("/sms/messages");
        let texts = messages.as_array().into_iter().flatten();
        texts.filter_map(|message| Some(message["text"].as_str()?.to_owned())).collect()
    }
}

/// Installs hotspot and buys a bundle as a customer does: name and number, the code that was sent, then the daemon pays, delivers and
/// tells. What was bought, as the shop and its partners have it.
pub(super) async fn buy(
    client: &Client,
    connector: &Connector,
    partners: &Partners,
) -> Result<Value, Failure> {
    let bundle = bundled::find("hotspot").ok_or_else(|| Failure::new("hotspot is not bundled"))?;
    let plugin = bundle.map_err(Problems).and_then(Plugin::read)?;
    installer::install(connector, &plugin, Options::default(), &|_| {}).await?;
    let token: String = client.query_one(CHECKOUT, &[]).await?.get("token");
    let code = until("the one-time code", async || {
        let code = partners.texts().first().and_then(|text| text.rsplit(' ').next().map(String::from));
        Ok(code.ok_or_else(|| "nothing was sent".to_owned()))
    })
    .await?;
    let sale: String = client.query_one(CONFIRM, &[&token, &code]).await?.get("sale");
    until("the purchase", async || {
        let sale: Value = client.query_one(SALE, &[&sale]).await?.get("sale");
        let texts = partners.texts().len();
        Ok(if sale["status"] == "delivered" && texts == 2 {
            Ok(json!({ "bundle": sale["bundle"], "amount": sale["amount"], "status": sale["status"], "user": sale["user"],
                "payments": partners.know("/momo/payments").as_object().map_or(0, |them| them.len()),
                "users": partners.know("/router/users").as_array().map_or(0, Vec::len), "texts": texts }))
        } else {
            Err(format!("{texts} texts, {sale}"))
        })
    })
    .await
}

/// Asks until there is what is waited for, or says how far it came.
async fn until<T>(
    what: &str,
    ask: impl AsyncFn() -> Result<Result<T, String>, Failure>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        match ask().await? {
            Ok(found) => return Ok(found),
            Err(so_far) if begun.elapsed() > PATIENCE => {
                return Err(Failure::new(format!("{what} did not come about: {so_far}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
