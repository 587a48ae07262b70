//! Installing, upgrading and removing plugins: one transaction each, on a session of its own.
//!
//! The plugin's SQL runs as the plugin's role and must leave transaction and role as they were. A dry run is the same work and a
//! rollback. What can be wrong independently of each other is collected; the first problem of a SQL file ends the work, for
//! everything after it would follow from it. Migrations of rowbeat and plugins exclude each other.

mod parts;
mod removal;
mod session;

use refinery::Migration;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;

pub use self::removal::{Removal, remove};

use self::session::Session;
use super::Plugin;
use super::manifest::Version;
use super::problem::{Problem, Problems};
use crate::db::connect::{ConnectError, Connector};
use crate::db::sqlstate;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("{}", sqlstate::describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The plugin does not fit.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// It is not the time for it.
    #[error("{message}")]
    Refused {
        /// What is in the way.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// The connection ended.
    #[error("the connection ended; nothing was changed")]
    Closed,
}

impl PluginError {
    fn refused(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), remedy: remedy.into() }
    }
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The plugin.
    pub plugin: String,
    /// Its version now.
    pub version: String,
    /// Its version before, if it was there.
    pub from: Option<String>,
    /// installed, upgraded, unchanged, removed or purged.
    pub done: &'static str,
    /// Whether it runs as a role of its own.
    pub isolated: bool,
    /// Whether everything was rolled back again.
    pub dry_run: bool,
    /// Change by change.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// added, changed, removed, applied, passed.
    pub change: String,
    /// migration, function, task, schedule, …
    pub kind: String,
    /// What.
    pub name: String,
}

impl Report {
    fn note(&mut self, change: &str, kind: &str, name: &str) {
        self.changes.push(Change { change: change.into(), kind: kind.into(), name: name.into() });
    }
}

/// How to install.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// An installed one may be changed.
    pub upgrade: bool,
    /// Roll back in the end.
    pub dry_run: bool,
    /// Run the plugin's tests before the end.
    pub test: bool,
}

/// Installs or upgrades a plugin; `say` hears of every step.
///
/// # Errors
/// What is in the way; then nothing was changed.
pub async fn install(
    connector: &Connector,
    plugin: &Plugin,
    options: Options,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Report, PluginError> {
    session::within(connector, async |session| {
        let mut work = Work { session, plugin, say, problems: Vec::new(), report: Report::default() };
        session.begin().await?;
        let Some(before) = work.compare(options).await? else {
            session.rollback().await?;
            return Ok(work.report);
        };
        work.everything(&before, options).await?;
        if !work.problems.is_empty() {
            session.rollback().await?;
            return Err(Problems(work.problems).into());
        }
        session.end(options.dry_run).await?;
        Ok(work.report)
    })
    .await
}

/// What of the plugin is in the database.
#[derive(Default)]
struct Before {
    manifest: Value,
    /// Applied migrations: version, name, checksum.
    applied: Vec<(i32, String, String)>,
}

struct Work<'a> {
    session: &'a Session,
    plugin: &'a Plugin,
    say: &'a (dyn Fn(&str) + Sync),
    problems: Vec<Problem>,
    report: Report,
}

impl<'a> Work<'a> {
    fn name(&self) -> &str {
        &self.plugin.manifest.name
    }

    /// What is there already; none when there is nothing to do.
    async fn compare(&mut self, options: Options) -> Result<Option<Before>, PluginError> {
        let (name, version) = (self.name().to_owned(), self.plugin.manifest.version);
        self.report = Report {
            plugin: name.clone(),
            version: version.to_string(),
            done: "installed",
            dry_run: options.dry_run,
            ..Report::default()
        };
        let Some(row) = self.session.rows("plugin.installed", &[&name]).await?.into_iter().next() else {
            if options.upgrade {
                let remedy = format!("rowbeat plugin install {name}");
                return Err(PluginError::refused(format!("plugin {name} is not installed"), remedy));
            }
            return Ok(Some(Before::default()));
        };
        let (found, digest, removed): (String, String, bool) =
            (row.get("version"), row.get("digest"), row.get("removed"));
        self.report.from = Some(found.clone());
        self.report.isolated = row.get("isolated");
        let same = !removed && digest == self.plugin.bundle.digest();
        if same && row.get("intact") {
            self.report.done = "unchanged";
            return Ok(None);
        }
        if Version::parse(&found).is_some_and(|found| found > version) {
            return Err(PluginError::refused(
                format!("plugin {name} is there in version {found}, which is newer than {version}"),
                "there is no way back: install the newer version, or remove it with --purge first",
            ));
        }
        if !removed && !same && !options.upgrade {
            let what = if found == version.to_string() { "with other files" } else { "" };
            return Err(PluginError::refused(
                format!("plugin {name} is installed already, in version {found} {what}").trim_end(),
                "rowbeat plugin upgrade",
            ));
        }
        self.report.done = if removed { "installed" } else { "upgraded" };
        let rows = self.session.rows("plugin.migrations", &[&name]).await?;
        let applied =
            rows.iter().map(|row| (row.get("version"), row.get("name"), row.get("checksum"))).collect();
        Ok(Some(Before { manifest: row.get("manifest"), applied }))
    }

    async fn everything(&mut self, before: &Before, options: Options) -> Result<(), PluginError> {
        self.requirements().await?;
        let pending = self.pending(before);
        if !self.problems.is_empty() {
            return Ok(());
        }
        let name = self.name().to_owned();
        let home: Row = self.session.row("plugin.make_home", &[&name]).await?;
        let role: Option<String> = home.get("role");
        self.report.isolated = role.is_some();
        self.record(role.as_deref()).await?;
        self.allow_reading(before).await?;
        for (file, migration) in pending {
            self.run(role.as_deref(), file, migration.sql().unwrap_or_default()).await?;
            let version = migration.version();
            let checksum = migration.checksum().to_string();
            self.session
                .rows("plugin.put_migration", &[&name, &version, &migration.name(), &checksum])
                .await?;
            self.report.note("applied", "migration", file);
        }
        for (file, text) in self.plugin.bundle.texts("functions/") {
            self.run(role.as_deref(), file, text).await?;
            self.report.note("applied", "functions", file);
        }
        if let Err(error) = self.session.rows("plugin.seal", &[&name, &role]).await {
            return Err(self.give_up(Problem::of_file("functions", sqlstate::describe(&error))));
        }
        self.parts().await?;
        if self.problems.is_empty() {
            self.session.rows("plugin.begin_baselines", &[&name]).await?;
        }
        if options.test && self.problems.is_empty() {
            self.tests(role.as_deref()).await?;
        }
        Ok(())
    }

    /// Everything found so far, and the one that makes it senseless to go on.
    fn give_up(&mut self, problem: Problem) -> PluginError {
        self.problems.push(problem);
        Problems(std::mem::take(&mut self.problems)).into()
    }

    /// Other plugins, features, and the right to install.
    async fn requirements(&mut self) -> Result<(), PluginError> {
        let row = self.session.row("plugin.may_install", &[]).await?;
        if !row.get::<_, bool>("may") {
            let owner: String = row.get("owner");
            return Err(PluginError::refused(
                format!("schema rowbeat belongs to {owner}, and this role is no member of it"),
                format!("install plugins as {owner} or as a superuser"),
            ));
        }
        let manifest = &self.plugin.manifest;
        let names: Vec<&str> = manifest.plugins.keys().map(String::as_str).collect();
        let versions: Vec<String> = manifest.plugins.values().map(Version::to_string).collect();
        for row in self.session.rows("plugin.missing_plugins", &[&names, &versions]).await? {
            let (name, needed, found): (String, String, Option<String>) =
                (row.get("name"), row.get("version"), row.get("found"));
            let found = found
                .map_or_else(|| "it is not installed".to_owned(), |found| format!("installed is {found}"));
            let message = format!("needs plugin {name} {needed} or newer; {found}");
            self.problems.push(Problem::of_key(1, format!("[requires] plugins {name}"), message));
        }
        let own: Vec<&str> =
            manifest.rows.iter().filter(|row| row.kind == "feature").map(|row| row.name.as_str()).collect();
        let features: Vec<&str> =
            manifest.features.iter().map(String::as_str).filter(|name| !own.contains(name)).collect();
        for row in self.session.rows("plugin.missing_features", &[&features]).await? {
            let name: String = row.get("name");
            self.problems.push(Problem::of_key(
                1,
                "[requires] features",
                format!("feature {name} does not exist: insert it into rowbeat.feature"),
            ));
        }
        Ok(())
    }

    /// The migrations to apply; edited or missing ones are problems.
    fn pending(&mut self, before: &Before) -> Vec<(&'a str, &'a Migration)> {
        let plugin = self.plugin;
        for (version, name, checksum) in &before.applied {
            let file = plugin.migrations.iter().find(|(_, migration)| migration.version() == *version);
            let message = match file {
                None => "was applied and is missing now: migrations stay",
                Some((_, migration))
                    if migration.checksum().to_string() != *checksum || migration.name() != name =>
                {
                    "was applied and has been edited since: put it back and write another one"
                }
                Some(_) => continue,
            };
            self.problems.push(Problem::of_file(format!("migrations/V{version}__{name}.sql"), message));
        }
        let newest = before.applied.iter().map(|(version, ..)| *version).max().unwrap_or(0);
        let pending = plugin.migrations.iter().filter(|(_, migration)| migration.version() > newest);
        pending.map(|(file, migration)| (file.as_str(), migration)).collect()
    }

    /// Runs a file of the plugin as its role, and looks whether transaction and role are what they were.
    async fn run(&mut self, role: Option<&str>, file: &str, text: &str) -> Result<(), PluginError> {
        (self.say)(file);
        let name = self.name().to_owned();
        let entered = self.session.row("plugin.enter", &[&role.unwrap_or("none"), &name]).await?;
        let (transaction, as_role): (String, String) = (entered.get("transaction"), entered.get("role"));
        if let Err(error) = self.session.batch(text).await {
            if sqlstate::is_outage(&error) {
                return Err(error.into());
            }
            let line = session::line(&error, text);
            return Err(self.give_up(Problem { line, ..Problem::of_file(file, sqlstate::describe(&error)) }));
        }
        let left = self.session.row("plugin.leave", &[]).await?;
        if left.get::<_, String>("transaction") != transaction || left.get::<_, String>("role") != as_role {
            let message =
                "ended the installer's transaction or changed its role: look at what it left behind";
            return Err(self.give_up(Problem::of_file(file, message)));
        }
        Ok(())
    }

    /// The plugin's tests, each undone again.
    async fn tests(&mut self, role: Option<&str>) -> Result<(), PluginError> {
        for (file, text) in self.plugin.bundle.texts("tests/") {
            self.session.batch("savepoint test").await?;
            self.run(role, file, text).await?;
            self.session.batch("rollback to savepoint test").await?;
            self.report.note("passed", "test", file);
        }
        Ok(())
    }
}
