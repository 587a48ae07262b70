//! `rowbeat status`: nodes, queues, schedules, watches, backups, channels, plugins and the latest failures.

use serde_json::Value;

use super::database::Context;
use super::failure::Failure;
use super::output;
use crate::schedule::recurrence::ZONE_DATA_VERSION;

/// Show what the daemons are doing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat status --json")]
pub(super) struct Arguments {}

pub(super) async fn run(context: &Context, _: Arguments) -> Result<(), Failure> {
    let row = context.db().await?.row("node.status", &[]).await?;
    let status: Value = row.map_or(Value::Null, |row| row.get("status"));
    if context.json() {
        return output::json(&status);
    }
    output::line(format!(
        "database {} at {}",
        output::cell(&status["database"]),
        output::field(&status, "now")
    ))?;
    output::line(format!(
        "zone data: schedules planned by {}, server {}, this program {ZONE_DATA_VERSION}",
        status["zone_data"]["schedules"].as_str().unwrap_or("nobody yet"),
        output::cell(&status["zone_data"]["server"]),
    ))?;
    section(&status, "nodes", ["id", "name", "version", "state", "running", "heartbeat_at"])?;
    section(&status, "queues", ["queue", "available", "running", "waiting", "next_run_at"])?;
    section(
        &status,
        "schedules",
        ["name", "spec", "time_zone", "status", "blocked", "next_fire_at", "last_fire_at", "last_decision"],
    )?;
    section(&status, "watches", ["name", "table", "operations", "definition", "enabled"])?;
    section(&status, "backups", ["name", "table", "status"])?;
    section(&status, "channels", ["name", "definition", "enabled"])?;
    section(&status, "plugins", ["name", "version", "isolated"])?;
    section(&status, "failures", ["id", "definition", "message", "finished_at"])
}

fn section<const N: usize>(status: &Value, name: &str, keys: [&'static str; N]) -> Result<(), Failure> {
    let rows = status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return output::line(format!("\n{name}: none"));
    }
    output::line(format!("\n{name}"))?;
    output::line(output::table(keys, rows.iter().map(|row| keys.map(|key| output::field(row, key)))))
}
