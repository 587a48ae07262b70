//! `rowbeat plugin …`: new, check, install, upgrade, remove, list, set, export, pack.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use deadpool_postgres::RecyclingMethod;
use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use super::plugin_source::{Source, read};
use super::task::tell;
use crate::db::query::{Db, SESSION_SETUP};
use crate::plugin::bundle::{self, Bundle};
use crate::plugin::installer::{self, Options, PluginError, Removal, Report};
use crate::plugin::problem::Problems;
use crate::plugin::scaffold::scaffold;
use crate::plugin::{Plugin, bundled};

/// Make, install and remove plugins.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Write a small plugin into a new folder, to begin with.
    #[command(after_help = "Example:\n  rowbeat plugin new tally && rowbeat plugin install tally/")]
    New {
        /// Its name, which is also its folder and its schema.
        name: String,
    },
    /// Look at a plugin without a database; all problems are listed at once.
    #[command(after_help = "Example:\n  rowbeat plugin check tally/")]
    Check {
        /// A folder, a zip, or the name of a bundled plugin.
        plugin: String,
    },
    /// Install a plugin, all of it or nothing.
    #[command(
        after_help = "Examples:\n  rowbeat plugin install tally/ --test\n  rowbeat plugin install tally-0.1.0.zip --dry-run\n  rowbeat plugin install https://plugins.example.com/tally-0.1.0.zip --sha256 9f86d08188…"
    )]
    Install(Install),
    /// Bring an installed plugin to the version of these files.
    #[command(after_help = "Example:\n  rowbeat plugin upgrade tally-0.2.0.zip --dry-run")]
    Upgrade(Install),
    /// Remove a plugin; its schema and data stay unless --purge.
    #[command(after_help = "Example:\n  rowbeat plugin remove tally --cancel-tasks")]
    Remove {
        /// The plugin.
        name: String,
        /// Drop its schema with all data, and its role.
        #[arg(long)]
        purge: bool,
        /// Cancel its live tasks, which are in the way otherwise.
        #[arg(long)]
        cancel_tasks: bool,
        /// Do everything, show it, and roll it back.
        #[arg(long)]
        dry_run: bool,
    },
    /// List installed and bundled plugins.
    #[command(after_help = "Example:\n  rowbeat plugin list")]
    List,
    /// Show a plugin's settings, or set one.
    #[command(
        after_help = "Examples:\n  rowbeat plugin set tally\n  rowbeat plugin set tally step 5\n  rowbeat plugin set tally step --default"
    )]
    Set {
        /// The plugin.
        name: String,
        /// The setting; all are shown without it.
        setting: Option<String>,
        /// Its value: JSON, or a text as it is.
        value: Option<String>,
        /// Let the manifest's default count again.
        #[arg(long, conflicts_with = "value")]
        default: bool,
    },
    /// Write the files of an installed or bundled plugin into a new folder.
    #[command(after_help = "Example:\n  rowbeat plugin export tally --to /tmp/tally")]
    Export {
        /// The plugin.
        name: String,
        /// The folder to make (its name when left out).
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Check a folder and pack it into a zip, the same bytes every time.
    #[command(after_help = "Example:\n  rowbeat plugin pack tally/")]
    Pack {
        /// The folder.
        folder: String,
        /// The zip (<name>-<version>.zip when left out).
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Install {
    #[command(flatten)]
    source: Source,
    /// Do everything, show it, and roll it back.
    #[arg(long)]
    dry_run: bool,
    /// Run its tests, each undone again; a failing one leaves nothing installed.
    #[arg(long)]
    test: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::New { name } => new(context, &name),
        Arguments::Check { plugin } => check(context, &plugin),
        Arguments::Install(arguments) => install(context, &arguments, false).await,
        Arguments::Upgrade(arguments) => install(context, &arguments, true).await,
        Arguments::Remove { name, purge, cancel_tasks, dry_run } => {
            let removal = Removal { purge, cancel_tasks, dry_run };
            let report = installer::remove(&context.connector()?, &name, removal, &progress(context)).await?;
            show(context, &report)
        }
        Arguments::List => list(context, &context.db().await?).await,
        Arguments::Set { name, setting, value, default } => {
            let db = context.db().await?;
            match setting {
                Some(setting) if value.is_some() || default => {
                    set(context, &db, &name, &setting, value).await
                }
                _ => settings(context, &db, &name, setting.as_deref()).await,
            }
        }
        Arguments::Export { name, to } => export(context, &name, to).await,
        Arguments::Pack { folder, to } => pack(context, &folder, to),
    }
}

fn new(context: &Context, name: &str) -> Result<(), Failure> {
    let bundle = scaffold(name);
    Plugin::read(bundle.clone())?;
    bundle.write(Path::new(name)).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    let files: Vec<&String> = bundle.files.keys().collect();
    tell(
        context,
        &json!({ "plugin": name, "files": files }),
        &format!("plugin {name} is in {name}/: rowbeat plugin install {name}/ --test"),
    )
}

fn check(context: &Context, plugin: &str) -> Result<(), Failure> {
    let plugin = read(plugin)?;
    let (manifest, digest) = (&plugin.manifest, plugin.bundle.digest());
    tell(
        context,
        &json!({ "plugin": manifest.name, "version": manifest.version, "digest": digest, "manifest": manifest }),
        &format!(
            "plugin {} {} is well formed ({} files, digest {digest})",
            manifest.name,
            manifest.version,
            plugin.bundle.files.len()
        ),
    )
}

async fn install(context: &Context, arguments: &Install, upgrade: bool) -> Result<(), Failure> {
    let plugin = arguments.source.read().await?;
    install_read(context, &plugin, arguments, upgrade).await
}

async fn install_read(
    context: &Context,
    plugin: &Plugin,
    arguments: &Install,
    upgrade: bool,
) -> Result<(), Failure> {
    let options = Options { upgrade, dry_run: arguments.dry_run, test: arguments.test };
    let report = installer::install(&context.connector()?, plugin, options, &progress(context)).await?;
    show(context, &report)
}

/// The spelling `install_plugin`, for scripts that count on a failure when there is nothing to install.
pub(super) async fn install_new(context: &Context, arguments: &Install) -> Result<(), Failure> {
    let plugin = arguments.source.read().await?;
    let name = &plugin.manifest.name;
    let row = context.db().await?.row("plugin.installed", &[name]).await?;
    if row.is_some_and(|row| !row.get::<_, bool>("removed")) {
        return Err(Failure::new(format!("{name} is already installed.")));
    }
    install_read(context, &plugin, arguments, false).await
}

/// Steps are shown to people who watch, on standard error.
fn progress(context: &Context) -> impl Fn(&str) + Sync {
    let quiet = context.json() || !std::io::stderr().is_terminal();
    move |step: &str| {
        if !quiet {
            let _ = writeln!(std::io::stderr(), "  {step}");
        }
    }
}

fn show(context: &Context, report: &Report) -> Result<(), Failure> {
    if context.json() {
        return output::json(report);
    }
    let (plugin, version) = (&report.plugin, &report.version);
    if !report.changes.is_empty() {
        let rows = report
            .changes
            .iter()
            .map(|change| [change.change.clone(), change.kind.clone(), change.name.clone()]);
        output::line(output::table(["change", "kind", "name"], rows))?;
    }
    let would = if report.dry_run { "would be " } else { "" };
    output::line(match (report.done, &report.from) {
        ("unchanged", _) => format!("plugin {plugin} {version} is installed already: nothing to do"),
        ("upgraded", Some(from)) => format!("plugin {plugin} {would}upgraded from {from} to {version}"),
        (done, _) => format!("plugin {plugin} {version} {would}{done}"),
    })?;
    if report.done == "removed" {
        output::line(format!(
            "its schema and data are kept: rowbeat plugin remove {plugin} --purge drops them"
        ))?;
    } else if !report.isolated && report.done != "purged" {
        output::line("not isolated: it runs as the daemon's own role, for this role may not create roles")?;
    }
    Ok(())
}

async fn list(context: &Context, db: &Db) -> Result<(), Failure> {
    let rows = db.rows("plugin.list", &[]).await?;
    let mut plugins: Vec<Value> = rows.iter().map(|row| row.get("plugin")).collect();
    for name in bundled::names() {
        if !plugins.iter().any(|plugin| plugin["name"] == name.as_str()) {
            plugins.push(json!({ "name": name, "state": "bundled", "origin": "bundled" }));
        }
    }
    if context.json() {
        return output::json(&plugins);
    }
    if plugins.is_empty() {
        return output::line("no plugins");
    }
    let keys = ["name", "version", "state", "isolated", "parts", "origin", "changed_at"];
    output::line(output::table(keys, plugins.iter().map(|plugin| keys.map(|key| output::field(plugin, key)))))
}

async fn settings(context: &Context, db: &Db, plugin: &str, only: Option<&str>) -> Result<(), Failure> {
    let rows = db.rows("plugin.settings", &[&plugin]).await?;
    let settings: Vec<Value> = rows.iter().map(|row| row.get("setting")).collect();
    let shown: Vec<&Value> =
        settings.iter().filter(|one| only.is_none_or(|only| one["name"] == only)).collect();
    if let Some(only) = only.filter(|_| shown.is_empty()) {
        return Err(no_setting(plugin, only));
    }
    if context.json() {
        return output::json(&shown);
    }
    let keys = ["name", "value", "type", "changed", "description"];
    output::line(output::table(keys, shown.iter().map(|one| keys.map(|key| output::cell(&one[key])))))
}

async fn set(
    context: &Context,
    db: &Db,
    plugin: &str,
    setting: &str,
    value: Option<String>,
) -> Result<(), Failure> {
    // What is no JSON is meant as a text.
    let value = value.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    if db.row("plugin.set", &[&plugin, &setting, &value]).await?.is_none() {
        return Err(no_setting(plugin, setting));
    }
    let shown = value.as_ref().map_or_else(|| "the default".to_owned(), output::cell);
    tell(
        context,
        &json!({ "plugin": plugin, "setting": setting, "value": value }),
        &format!("{plugin}: {setting} is {shown}"),
    )
}

fn no_setting(plugin: &str, setting: &str) -> Failure {
    Failure::new(format!("plugin {plugin} has no setting {setting}"))
        .remedy(format!("see rowbeat plugin set {plugin}"))
}

async fn export(context: &Context, name: &str, to: Option<PathBuf>) -> Result<(), Failure> {
    let bundle = match bundled::find(name) {
        Some(bundle) => bundle.map_err(Problems)?,
        None => {
            let connector = context.connector()?;
            let db = Db::new(connector.pool(1, RecyclingMethod::Fast, SESSION_SETUP));
            let rows = db.rows("plugin.files", &[&name]).await?;
            Bundle::of_files(
                format!("installed {name}"),
                rows.iter().map(|row| (row.get("path"), row.get("content"))).collect(),
            )
        }
    };
    if bundle.files.is_empty() {
        return Err(Failure::new(format!("there is no installed or bundled plugin {name}"))
            .remedy("see rowbeat plugin list"));
    }
    let to = to.unwrap_or_else(|| PathBuf::from(name));
    bundle.write(&to).map_err(|error| Failure::new(format!("{}: {error}", to.display())))?;
    tell(
        context,
        &json!({ "plugin": name, "folder": to, "digest": bundle.digest() }),
        &format!("plugin {name} is in {}", to.display()),
    )
}

fn pack(context: &Context, folder: &str, to: Option<PathBuf>) -> Result<(), Failure> {
    let plugin = read(folder)?;
    let (name, version) = (&plugin.manifest.name, plugin.manifest.version);
    let to = to.unwrap_or_else(|| PathBuf::from(format!("{name}-{version}.zip")));
    let written = bundle::pack(&plugin.bundle).and_then(|zip| std::fs::write(&to, zip));
    written.map_err(|error| Failure::new(format!("{}: {error}", to.display())))?;
    let digest = plugin.bundle.digest();
    tell(
        context,
        &json!({ "plugin": name, "file": to, "digest": digest }),
        &format!("plugin {name} {version} is in {}", to.display()),
    )
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(problems.to_string())
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Connect(error) => error.into(),
            PluginError::Postgres(error) => error.into(),
            PluginError::Problems(problems) => problems.into(),
            PluginError::Refused { message, remedy } => Self::new(message).remedy(remedy),
            PluginError::Closed => Self::new(error.to_string()).exit(Exit::Unavailable),
        }
    }
}
