//! `rowbeat backup …`: enable, disable, status, verify, export.

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::images::{Images, Section};
use super::output;
use super::task::tell;
use crate::backup::refuse_another_past;
use crate::db::query::{self, Db};

const PIECE: i32 = 5000;

/// Keep every committed change of tables, and look at what is kept.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Keep every committed change of a table from now on, and what is in it.
    #[command(after_help = "Examples:\n  rowbeat backup enable public.orders\n  \
                      rowbeat backup enable public.orders --again")]
    Enable(Enable),
    /// Keep no more changes; the images stay.
    #[command(after_help = "Example:\n  rowbeat backup disable public.orders")]
    Disable { name: String },
    /// Whether the backups are complete and up to date, and their further targets.
    #[command(after_help = "Example:\n  rowbeat backup status")]
    Status,
    /// Compare tables with their newest images, or a further target with them.
    #[command(after_help = "Examples:\n  rowbeat backup verify\n  rowbeat backup verify --target archive")]
    Verify(Verify),
    /// Print the backup as one JSON document: table, key, field; deleted rows in a section of their own.
    #[command(after_help = "Examples:\n  rowbeat backup export > backup.json\n  \
                      rowbeat backup export public.orders --until 2027-01-31T00:00:00Z")]
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub(super) struct Enable {
    /// The table, schema-qualified.
    table: String,
    /// Name of the backup (the table's when left out).
    #[arg(long)]
    name: Option<String>,
    /// Compare every row with the backup anew: after something was missed, or when the columns changed.
    #[arg(long)]
    again: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The backups (all when left out).
    names: Vec<String>,
    /// Compare this target of the configuration with the images in the database.
    #[arg(long, value_name = "TARGET", conflicts_with = "names")]
    target: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// The backups (all when left out).
    names: Vec<String>,
    /// As of this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// From this target of the configuration instead of the database.
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Enable(arguments) => enable(context, arguments).await,
        Arguments::Disable { name } => {
            let row = context.db().await?.row("backup.disable", &[&name]).await?;
            if !row.is_some_and(|row| row.get(0)) {
                return Err(
                    Failure::new(format!("there is no backup {name}")).remedy("see rowbeat backup status")
                );
            }
            let text = format!("changes of {name} are not kept any more; its images stay");
            tell(context, &json!({ "disabled": name }), &text)
        }
        Arguments::Status => status(context).await,
        Arguments::Verify(Verify { names, target: None }) => verify(context, names).await,
        Arguments::Verify(Verify { target: Some(target), .. }) => verify_target(context, &target).await,
        Arguments::Export(arguments) => export(context, arguments).await,
    }
}

/// The daemon would take the baseline, too; who looks at the progress bar need not wait for one.
async fn enable(context: &Context, arguments: Enable) -> Result<(), Failure> {
    let db = context.db().await?;
    let row = db.row("backup.enable", &[&arguments.table, &arguments.name, &arguments.again]).await?;
    let Some(row) = row else { return Err(Failure::new("nothing was enabled")) };
    let (name, rows): (String, i64) = (row.get("name"), row.get("rows"));
    let (bar, mut looked_at) = (bar(rows, "rows"), 0);
    loop {
        let row = db.row("backup.baseline", &[&name, &PIECE]).await?;
        let Some(read) = row.and_then(|row| row.get::<_, Option<i32>>("read")) else { break };
        looked_at += i64::from(read);
        bar.inc(u64::try_from(read).unwrap_or(0));
    }
    bar.finish_and_clear();
    tell(
        context,
        &json!({ "backup": name, "rows": looked_at }),
        &format!("backup {name}: {looked_at} rows looked at; a daemon keeps every change from now on"),
    )
}

async fn status(context: &Context) -> Result<(), Failure> {
    let db = context.db().await?;
    let list = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<Value>>();
    let backups = list(db.rows("backup.list", &[]).await?);
    let targets = list(db.rows("backup.list_targets", &[]).await?);
    if context.json() {
        return output::json(&json!({ "backups": backups, "targets": targets }));
    }
    let keys = ["name", "table", "baselined_at", "status"];
    output::line(output::table(
        keys,
        backups.iter().map(|backup| keys.map(|key| output::field(backup, key))),
    ))?;
    if targets.is_empty() {
        return Ok(());
    }
    let keys = ["name", "kind", "behind", "written_at", "status"];
    let table = output::table(keys, targets.iter().map(|target| keys.map(|key| output::field(target, key))));
    output::line(format!("\n{}", table.replacen("NAME  ", "TARGET", 1)))
}

async fn verify(context: &Context, names: Vec<String>) -> Result<(), Failure> {
    let db = context.db().await?;
    let names = backups(&db, names).await?;
    let bar = bar(i64::try_from(names.len()).unwrap_or(0), "tables");
    let mut verified: Vec<Value> = Vec::new();
    for name in &names {
        // Tables take as long as they take.
        let mut session = db.session().await?;
        let transaction = session.transaction().await?;
        transaction.batch_execute("set local statement_timeout = 0").await?;
        let row = transaction.query_one(query::text("backup.verify"), &[name]).await?;
        transaction.rollback().await?;
        verified.push(row.get(0));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let sound = |of: &Value| ["different", "lost", "unknown", "inexact"].iter().all(|key| of[key] == 0);
    if context.json() {
        output::json(&verified)?;
    } else {
        let keys = ["backup", "rows", "images", "equal", "different", "lost", "unknown", "inexact"];
        output::line(output::table(
            keys,
            verified.iter().map(|row| keys.map(|key| output::cell(&row[key]))),
        ))?;
        for table in &verified {
            for row in table["keys"].as_array().into_iter().flatten() {
                output::line(format!(
                    "{} {}: {}",
                    output::cell(&table["backup"]),
                    row["key"],
                    output::cell(&row["is"])
                ))?;
            }
        }
    }
    if verified.iter().all(sound) {
        return Ok(());
    }
    Err(Failure::new("tables and backup differ").remedy(
        "lost: rowbeat restore brings it back; different and unknown were missed: rowbeat backup enable TABLE --again",
    ))
}

/// The target's images up to where it is are those of the database.
async fn verify_target(context: &Context, name: &str) -> Result<(), Failure> {
    let db = context.db().await?;
    let images = Images::of_target(context, name).await?;
    let (position, known, there) = images.digest().await?;
    refuse_another_past(&db, position, known.as_ref())
        .await
        .map_err(|trouble| Failure::new(format!("target {name}: {trouble}")))?;
    let here = super::images::digest(&db, position).await?;
    let differing: Vec<&String> =
        here.keys().filter(|backup| !super::images::agree(here.get(*backup), there.get(*backup))).collect();
    if !differing.is_empty() {
        let mut keys = Vec::new();
        if let Images::Database { db: other, .. } = &images {
            for backup in &differing {
                for (key, problem) in super::images::differing_keys(&db, other, backup, position).await? {
                    if !context.json() {
                        output::line(format!("{backup} {key}: {problem}"))?;
                    }
                    keys.push(json!({ "backup": backup, "key": serde_json::from_str::<Value>(&key).unwrap_or_default(), "is": problem }));
                }
            }
        }
        if context.json() {
            output::json(&json!({ "target": name, "position": position, "equal": false, "keys": keys }))?;
        }
        let names = differing.into_iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!(
            "target {name} has not the images of {names} that the database has"
        ))
        .remedy("make it anew: an empty folder or database under another name in the configuration"));
    }
    let images: i64 = there.values().map(|(images, _)| images).sum();
    tell(
        context,
        &json!({ "target": name, "position": position, "images": images, "equal": true }),
        &format!("{name} has all {images} images up to transaction {position}, as they are in the database"),
    )
}

async fn export(context: &Context, arguments: Export) -> Result<(), Failure> {
    let mut images = match &arguments.from {
        Some(target) => Images::of_target(context, target).await?,
        None => Images::of_source(context.db().await?),
    };
    let names = images.names(&arguments.names, arguments.until).await?;
    output::text("{\"tables\":{")?;
    for (section, between) in [(Section::There, "\n},\"deleted\":{"), (Section::Deleted, "\n}}\n")] {
        for (n, name) in names.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            output::text(&format!("{comma}\n{}:{{", json!(name)))?;
            let mut first = true;
            images
                .each(name, arguments.until, section, async |key, row| {
                    let comma = if std::mem::take(&mut first) { "" } else { "," };
                    output::text(&format!("{comma}\n{}:{row}", json!(key)))
                })
                .await?;
            output::text("}")?;
        }
        output::text(between)?;
    }
    Ok(())
}

/// The backups that there are, of these names; what is in schema public can be named without it, as for `enable`.
pub(super) async fn backups(db: &Db, names: Vec<String>) -> Result<Vec<String>, Failure> {
    let rows = db.rows("backup.list", &[]).await?;
    let known: Vec<String> = rows.iter().map(|row| output::cell(&row.get::<_, Value>(0)["name"])).collect();
    if names.is_empty() {
        return Ok(known);
    }
    let find = |name: String| {
        let found = [&name, &format!("public.{name}")].into_iter().find(|name| known.contains(name)).cloned();
        found.ok_or_else(|| {
            Failure::new(format!("there is no backup {name}"))
                .exit(Exit::Failed)
                .remedy("see rowbeat backup status")
        })
    };
    names.into_iter().map(find).collect()
}

/// On a terminal's standard error, and nowhere else.
pub(super) fn bar(total: i64, of: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {of}, {{eta}} left"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::try_from(total).unwrap_or(0)).with_style(style)
}
