//! `rowbeat wait-for-db`: returns when the database has answered a query.

use std::io::Write;
use std::time::Duration;

use super::database::Context;
use super::failure::Failure;
use super::output;
use crate::config::parse_duration;
use crate::db::wait::wait_for_db;

/// Wait until the database answers a query; asks after 1, 2, 4 … 60 seconds, for ever or until --timeout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat wait-for-db --timeout 5m && start-my-shop")]
pub(super) struct Arguments {
    /// Give up after this time, such as 30s or 5m; exit code 69.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration such as 30s, 5m or 1h".into())
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let connector = context.connector()?;
    let json = context.json();
    if !json {
        output::line("Waiting for database...")?;
    }
    wait_for_db(&connector, arguments.timeout, |attempt, delay, error| {
        let told = if json {
            output::line(
                serde_json::json!({ "attempt": attempt, "wait_s": delay.as_secs_f64(), "error": error.to_string() })
                    .to_string(),
            )
        } else {
            // The lines are what scripts have always looked for; why stands beside them.
            let _ = writeln!(std::io::stderr(), "rowbeat: attempt {attempt}: {error}");
            output::line(format!("Database unavailable, waiting {} second(s)...", delay.as_secs_f64().round()))
        };
        // Waiting goes on without a reader.
        drop(told);
    })
    .await?;
    // A line like those before it.
    output::line(if json { r#"{"available":true}"# } else { "Database available!" })
}
