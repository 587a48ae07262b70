//! `rowbeat check`: the effective configuration, and whether the database fits.

use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use crate::db::connect::Connector;
use crate::db::migrate;
use crate::db::query;

/// Show the effective configuration and test the database: connection, rights, LISTEN, schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat check --config /etc/rowbeat/rowbeat.toml")]
pub(super) struct Arguments {}

/// One thing that was looked at.
struct Finding {
    name: &'static str,
    ok: bool,
    detail: String,
}

pub(super) async fn run(context: &Context, _: Arguments) -> Result<(), Failure> {
    let config = context.config()?;
    let rows = config.effective();
    if !context.json() {
        let cells = rows.iter().map(|row| [row.key.clone(), row.value.clone(), row.source.clone()]);
        output::line(output::table(["key", "value", "source"], cells))?;
        for warning in &config.warnings {
            output::line(format!("warning: {warning}"))?;
        }
        output::line("")?;
    }
    let findings = match context.connector() {
        Ok(connector) => look(&connector).await,
        Err(_) if config.database.is_none() => {
            vec![Finding {
                name: "database",
                ok: true,
                detail: "private Postgres, not running now: start will start it".into(),
            }]
        }
        Err(failure) => return Err(failure),
    };
    if context.json() {
        let found: Vec<Value> =
            findings.iter().map(|f| json!({ "check": f.name, "ok": f.ok, "detail": f.detail })).collect();
        output::json(&json!({ "configuration": rows, "warnings": config.warnings, "checks": found }))?;
    } else {
        let cells = findings
            .iter()
            .map(|f| [f.name.to_owned(), if f.ok { "ok" } else { "NOT OK" }.to_owned(), f.detail.clone()]);
        output::line(output::table(["check", "result", "detail"], cells))?;
    }
    match findings.iter().find(|finding| !finding.ok) {
        None => Ok(()),
        Some(finding) if finding.name == "connection" => {
            Err(Failure::new(format!("the database cannot be reached: {}", finding.detail))
                .exit(Exit::Unavailable))
        }
        Some(finding) => {
            Err(Failure::new(format!("{}: {}", finding.name, finding.detail)).exit(Exit::Configuration))
        }
    }
}

async fn look(connector: &Connector) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |name, result: Result<String, String>| {
        let ok = result.is_ok();
        findings.push(Finding { name, ok, detail: result.unwrap_or_else(|problem| problem) });
        ok
    };
    let (client, connection) = match connector.connect("check").await {
        Ok(session) => session,
        Err(error) => {
            note("connection", Err(error.to_string()));
            return findings;
        }
    };
    let work = async {
        note("connection", Ok(connector.describe()));
        match client.query_one(query::text("node.check"), &[]).await {
            Ok(row) => {
                let version: i32 = row.get("version_num");
                let text: String = row.get("version");
                note(
                    "server",
                    if version >= 150_000 {
                        Ok(text)
                    } else {
                        Err(format!("{text}: rowbeat needs 15 or later"))
                    },
                );
                let tls: Option<String> = row.get("tls");
                note("encryption", Ok(tls.unwrap_or_else(|| "none".into())));
                let writable: bool = row.get("writable");
                note(
                    "writes",
                    if writable { Ok("accepted".into()) } else { Err("the session is read-only".into()) },
                );
                let rights: bool = row.get("may_install");
                let user: String = row.get("user_name");
                let what = format!("role {user} may create and change schema rowbeat");
                note("rights", if rights { Ok(what) } else { Err(what.replace("may", "may not")) });
            }
            Err(error) => {
                note("server", Err(crate::db::sqlstate::describe(&error)));
            }
        }
    };
    tokio::select! {
        () = work => {}
        ended = connection => {
            note("connection", Err(ended.err().map_or("closed by the server".into(), |error| error.to_string())));
            return findings;
        }
    }
    note("listen", listens(connector).await);
    note("schema", schema(connector).await);
    findings
}

/// Whether LISTEN outlives its transaction: behind a transaction pooler it does not.
async fn listens(connector: &Connector) -> Result<String, String> {
    let (client, connection) =
        connector.for_listen().connect("check").await.map_err(|error| error.to_string())?;
    let work = async {
        client.batch_execute("listen rowbeat").await?;
        client.query("select pg_listening_channels()", &[]).await
    };
    tokio::select! {
        rows = work => match rows {
            Ok(rows) if !rows.is_empty() => Ok("notifications arrive".into()),
            Ok(_) => Err("LISTEN does not last (a pooler?): set database.listen_url to a direct connection".into()),
            Err(error) => Err(crate::db::sqlstate::describe(&error)),
        },
        _ = connection => Err("the connection ended".into()),
    }
}

async fn schema(connector: &Connector) -> Result<String, String> {
    let plan = migrate::plan(connector).await.map_err(|error| error.to_string())?;
    match (plan.installed, plan.steps.len()) {
        (false, _) => Ok("not installed; start will install it".into()),
        (true, 0) => Ok(format!("version {}", plan.current)),
        (true, pending) => Err(format!("{pending} steps behind this rowbeat: run rowbeat migrate")),
    }
}
