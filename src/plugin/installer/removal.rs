//! Removing a plugin: its rows go, its schema and data stay unless they are to go, too.

use std::time::{Duration, Instant};

use serde_json::json;

use super::session::{self, Session};
use super::{PluginError, Report};
use crate::db::connect::Connector;
use crate::db::sqlstate;

/// How long running tasks may take to obey a cancellation.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removal {
    /// Its schema, data and role go, too.
    pub purge: bool,
    /// Its live tasks are cancelled first; otherwise they are in the way.
    pub cancel_tasks: bool,
    /// Roll back in the end.
    pub dry_run: bool,
}

/// Removes a plugin.
///
/// # Errors
/// What is in the way; then nothing was changed, but tasks may have been cancelled.
pub async fn remove(
    connector: &Connector,
    name: &str,
    removal: Removal,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Report, PluginError> {
    session::within(connector, async |session| {
        let begun = Instant::now();
        loop {
            let cancels = removal.cancel_tasks && !removal.dry_run;
            let again = cancels && begun.elapsed() < PATIENCE;
            if cancels {
                cancel_tasks(session, name, say).await?;
            }
            // A schedule or a watch may have made a task meanwhile.
            if let Some(report) = try_to_remove(session, name, removal, again, say).await? {
                return Ok(report);
            }
        }
    })
    .await
}

/// One transaction; `None`, and nothing was done, when live tasks are in the way and may be cancelled once more.
async fn try_to_remove(
    session: &Session,
    name: &str,
    removal: Removal,
    again: bool,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Option<Report>, PluginError> {
    session.begin().await?;
    let Some(row) = session.rows("plugin.installed", &[&name]).await?.into_iter().next() else {
        return Err(PluginError::refused(format!("there is no plugin {name}"), "see rowbeat plugin list"));
    };
    if row.get("removed") && !removal.purge {
        return Err(PluginError::refused(
            format!("plugin {name} was removed already, its data was kept"),
            "rowbeat plugin remove --purge drops it",
        ));
    }
    let dependants = session.rows("plugin.dependants", &[&name]).await?;
    if !dependants.is_empty() {
        let names: Vec<String> = dependants.iter().map(|row| row.get("name")).collect();
        return Err(PluginError::refused(
            format!("plugin {name} is required by {}", names.join(", ")),
            "remove those first",
        ));
    }
    let version: String = row.get("version");
    let mut report = Report {
        plugin: name.to_owned(),
        version: version.clone(),
        from: Some(version),
        done: if removal.purge { "purged" } else { "removed" },
        isolated: row.get("isolated"),
        dry_run: removal.dry_run,
        changes: Vec::new(),
    };
    if removal.cancel_tasks && removal.dry_run {
        session.rows("plugin.cancel_tasks", &[&name]).await?;
    }
    say("removing definitions, schedules, watches, endpoints and commands");
    let dropped = session.rows("plugin.drop_parts", &[&name, &json!({})]).await;
    let code = |error: &tokio_postgres::Error| error.code().map(|code| code.code().to_owned());
    if again && dropped.as_ref().is_err_and(|error| code(error).as_deref() == Some("RB005")) {
        session.rollback().await?;
        return Ok(None);
    }
    let dropped = dropped.map_err(|error| match code(&error).as_deref() {
        Some("RB005") => PluginError::refused(
            sqlstate::describe(&error),
            "wait for them, or let --cancel-tasks cancel them",
        ),
        Some("23503") => PluginError::refused(
            format!("something of yours uses a definition of plugin {name}: {}", sqlstate::describe(&error)),
            "remove that schedule, watch or channel first",
        ),
        _ => error.into(),
    })?;
    for row in dropped {
        report.note("removed", row.get("kind"), row.get("name"));
    }
    session.rows("plugin.clear", &[&name]).await?;
    session.rows("plugin.forget", &[&name]).await?;
    if removal.purge {
        say("dropping schema and role");
        session.rows("plugin.purge", &[&name]).await?;
        report.note("removed", "schema", name);
    }
    session.end(removal.dry_run).await?;
    Ok(Some(report))
}

/// Tells the plugin's live tasks to stop, until there are none or patience ends. Each look is a transaction of its own: a running
/// task ends only after the request is committed.
async fn cancel_tasks(session: &Session, name: &str, say: &(dyn Fn(&str) + Sync)) -> Result<(), PluginError> {
    let begun = Instant::now();
    loop {
        let alive: i64 = session.row("plugin.cancel_tasks", &[&name]).await?.get("alive");
        if alive == 0 || begun.elapsed() > PATIENCE {
            return Ok(());
        }
        say(&format!("{alive} tasks are told to stop"));
        tokio::time::sleep(PAUSE).await;
    }
}
