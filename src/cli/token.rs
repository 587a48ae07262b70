//! `rowbeat token …`: create, list, revoke: who may call the endpoints of plugins and the daemon's own.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use super::task::tell;
use super::wait_for_db::duration;
use crate::plugin::serve::digest;

/// Make and revoke tokens for requests over HTTP.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Make a token and print its secret, once: it is kept nowhere.
    #[command(
        after_help = "Examples:\n  rowbeat token create alice --operator\n  rowbeat token create till-3 --plugin loyalty --expires 90d\n  rowbeat token create scale --endpoint 'GET /api/loyalty/{customer}'"
    )]
    Create {
        /// Who it is: the actor of its requests.
        name: String,
        /// It opens everything.
        #[arg(long, conflicts_with_all = ["plugin", "endpoint"], required_unless_present_any = ["plugin", "endpoint"])]
        operator: bool,
        /// It opens this plugin's endpoints with auth = "token"; may be repeated.
        #[arg(long, value_name = "NAME")]
        plugin: Vec<String>,
        /// It opens this endpoint with auth = "token", written as METHOD /path; may be repeated.
        #[arg(long, value_name = "ENDPOINT")]
        endpoint: Vec<String>,
        /// It opens nothing after this time, such as 90d; without it it does not expire.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List tokens: what they open, when they expire, when they were used last.
    #[command(after_help = "Example:\n  rowbeat token list")]
    List,
    /// Revoke a token: it opens nothing from now on.
    #[command(after_help = "Example:\n  rowbeat token revoke alice")]
    Revoke {
        /// The token.
        name: String,
    },
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let db = context.db().await?;
    match arguments {
        Arguments::Create { name, operator, plugin, endpoint, expires } => {
            let unknown = db.rows("token.unknown_scopes", &[&plugin, &endpoint]).await?;
            if let Some(unknown) = unknown.first() {
                let unknown: String = unknown.get("name");
                return Err(Failure::new(format!(
                    "there is no plugin or endpoint with auth = \"token\" {unknown}"
                ))
                .remedy("endpoints are written as declared: 'GET /api/loyalty/{customer}'"));
            }
            let secret = format!("rbt_{}", secret::<32>()?);
            let seconds = expires.map(|expires| expires.as_secs_f64());
            let made = db
                .row("token.create", &[&digest(&secret), &name, &operator, &plugin, &endpoint, &seconds])
                .await
                .map_err(|error| match error.sqlstate() {
                    Some("23505") => Failure::new(format!("there is a token {name} already"))
                        .remedy(format!("rowbeat token revoke {name}")),
                    Some("23514") => {
                        Failure::new(format!("{name:?} is no name: up to 80 characters without spaces"))
                            .exit(Exit::Usage)
                    }
                    _ => error.into(),
                })?;
            let expires_at: Option<chrono::DateTime<chrono::Utc>> =
                made.and_then(|row| row.get("expires_at"));
            tell(context, &json!({ "name": name, "token": secret, "expires_at": expires_at }), &secret)
        }
        Arguments::List => {
            let rows = db.rows("token.list", &[]).await?;
            let tokens: Vec<Value> = rows.iter().map(|row| row.get("token")).collect();
            if context.json() {
                return output::json(&tokens);
            }
            if tokens.is_empty() {
                return output::line("no tokens: over the loopback everybody is the operator");
            }
            let keys = ["name", "opens", "state", "created_at", "expires_at", "last_used_at"];
            output::line(output::table(
                keys,
                tokens.iter().map(|one| keys.map(|key| output::field(one, key))),
            ))
        }
        Arguments::Revoke { name } => match db.row("token.revoke", &[&name]).await? {
            Some(_) => {
                tell(context, &json!({ "revoked": name }), &format!("token {name} opens nothing any more"))
            }
            None => Err(Failure::new(format!("there is no token {name}")).remedy("see rowbeat token list")),
        },
    }
}

/// So many random bytes, as letters, digits, - and _.
pub(super) fn secret<const BYTES: usize>() -> Result<String, Failure> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new("the system gives no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
