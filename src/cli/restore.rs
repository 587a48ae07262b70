//! `rowbeat restore`: rows of tables are as they were again.

use std::io::Write;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::Transaction;

use super::backup::{backups, bar};
use super::database::Context;
use super::failure::Failure;
use super::images::{Images, Section};
use super::output;
use crate::db::query;

/// How many rows of another place are restored by one statement.
const PIECE: usize = 5000;

/// Bring back rows of tables from their backup.
///
/// Missing rows are inserted as they were; what is there and differs is left alone and reported, unless --force. Parents come before
/// children. It is one transaction, starts no task, and can be repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  rowbeat restore --dry-run\n  rowbeat restore public.orders --until 2027-01-31T09:59:00Z\n  \
                  rowbeat restore public.orders --from archive --deleted"
)]
pub(super) struct Arguments {
    /// The backups (all when left out).
    names: Vec<String>,
    /// As of this time (RFC 3339); transactions count as a whole.
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// Also rows that had been deleted by then.
    #[arg(long)]
    deleted: bool,
    /// Overwrite rows that differ.
    #[arg(long)]
    force: bool,
    /// Only tell what would happen.
    #[arg(long)]
    dry_run: bool,
    /// From this target of the configuration instead of the images in the database.
    #[arg(long, value_name = "TARGET", conflicts_with = "document")]
    from: Option<String>,
    /// From a document that `rowbeat backup export` wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "until")]
    document: Option<std::path::PathBuf>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let db = context.db().await?;
    let mut session = db.session().await?;
    let transaction = session.transaction().await?;
    transaction
        .batch_execute("set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0")
        .await?;
    if arguments.dry_run {
        // The one thing that a rollback would not undo.
        transaction.batch_execute("set local \"rowbeat.keep_sequences\" = on").await?;
    }
    let restored = match (&arguments.from, &arguments.document) {
        (Some(target), _) => {
            let images = Images::of_target(context, target).await?;
            from_images(&transaction, images, &arguments).await?
        }
        (None, Some(path)) => {
            let document = std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            let names = Some(&arguments.names).filter(|names| !names.is_empty());
            restore(&transaction, &arguments, names, None, Some(&document), arguments.deleted).await?
        }
        (None, None) => {
            let names = backups(&db, arguments.names.clone()).await?;
            let restored = from_database(&transaction, &arguments, &names).await?;
            let there = |name: &&String| restored.iter().any(|table| table["backup"] == name.as_str());
            for name in names.iter().filter(|name| !there(name)) {
                let _ = writeln!(
                    std::io::stderr(),
                    "rowbeat: the table of backup {name} is gone: nothing of it is restored"
                );
            }
            restored
        }
    };
    if arguments.dry_run {
        transaction.rollback().await?;
    } else {
        transaction.commit().await?;
    }
    report(context, &restored, arguments.dry_run)
}

/// Table by table, so that there is progress to see; those that refer to each other in a circle go together.
async fn from_database(
    transaction: &Transaction<'_>,
    arguments: &Arguments,
    names: &[String],
) -> Result<Vec<Value>, Failure> {
    let named = Some(names).filter(|_| !arguments.names.is_empty());
    let rows = transaction.query(query::text("backup.restore_order"), &[&named]).await?;
    let steps: Vec<Vec<String>> = if rows.iter().any(|row| row.get("circle")) {
        vec![rows.iter().map(|row| row.get("backup")).collect()]
    } else {
        rows.iter().map(|row| vec![row.get("backup")]).collect()
    };
    let bar = bar(i64::try_from(steps.len()).unwrap_or(0), "tables");
    let mut restored = Vec::new();
    for step in &steps {
        restored.extend(
            restore(transaction, arguments, Some(step), arguments.until, None, arguments.deleted).await?,
        );
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(restored)
}

/// What another place has, piece by piece, each a document.
async fn from_images(
    transaction: &Transaction<'_>,
    mut images: Images,
    arguments: &Arguments,
) -> Result<Vec<Value>, Failure> {
    let names = images.names(&arguments.names, arguments.until).await?;
    let empty: serde_json::Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
    let empty = json!({ "tables": empty }).to_string();
    let rows = transaction.query(query::text("backup.document_order"), &[&empty]).await?;
    let bar = bar(i64::try_from(rows.len()).unwrap_or(0), "tables");
    let mut restored: Vec<Value> = Vec::new();
    for row in rows {
        let name: String = row.get("backup");
        let mut sum = json!({ "backup": name, "inserted": 0, "updated": 0, "skipped": 0, "conflicts": 0, "conflict_keys": [], "unmapped": [] });
        let sections = [Section::There, Section::Deleted];
        for section in sections.into_iter().filter(|section| arguments.deleted || *section == Section::There)
        {
            let mut piece = Vec::new();
            images
                .each(&name, arguments.until, section, async |_, row| {
                    piece.push(row.to_owned());
                    if piece.len() == PIECE {
                        restore_piece(transaction, arguments, &name, section, &mut piece, &mut sum).await?;
                    }
                    Ok(())
                })
                .await?;
            restore_piece(transaction, arguments, &name, section, &mut piece, &mut sum).await?;
        }
        restored.push(sum);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(restored)
}

async fn restore_piece(
    transaction: &Transaction<'_>,
    arguments: &Arguments,
    name: &str,
    section: Section,
    rows: &mut Vec<String>,
    sum: &mut Value,
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = rows.drain(..).enumerate().map(|(n, row)| format!("\"{n}\":{row}")).collect();
    let kind = if section == Section::There { "tables" } else { "deleted" };
    let document = format!("{{{}:{{{}:{{{}}}}}}}", json!(kind), json!(name), rows.join(","));
    for done in restore(transaction, arguments, None, None, Some(&document), true).await? {
        for key in ["inserted", "updated", "skipped", "conflicts"] {
            sum[key] = json!(sum[key].as_i64().unwrap_or(0) + done[key].as_i64().unwrap_or(0));
        }
        for key in ["conflict_keys", "unmapped"] {
            let (Some(all), Some(more)) = (sum[key].as_array_mut(), done[key].as_array()) else { continue };
            for one in more {
                if all.len() < 100 && !all.contains(one) {
                    all.push(one.clone());
                }
            }
        }
    }
    Ok(())
}

/// A dry run does it as well, and is rolled back in the end: so children find their parents.
async fn restore(
    transaction: &Transaction<'_>,
    arguments: &Arguments,
    names: Option<&Vec<String>>,
    until: Option<DateTime<Utc>>,
    document: Option<&str>,
    deleted: bool,
) -> Result<Vec<Value>, Failure> {
    let rows = transaction
        .query(query::text("backup.restore"), &[&names, &until, &deleted, &arguments.force, &document])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn report(context: &Context, restored: &[Value], dry_run: bool) -> Result<(), Failure> {
    if context.json() {
        return output::json(&json!({ "restored": restored, "dry_run": dry_run }));
    }
    let keys = ["backup", "inserted", "updated", "skipped", "conflicts"];
    output::line(output::table(keys, restored.iter().map(|row| keys.map(|key| output::cell(&row[key])))))?;
    for table in restored {
        let keys: Vec<String> =
            table["conflict_keys"].as_array().into_iter().flatten().map(Value::to_string).collect();
        if !keys.is_empty() {
            output::line(format!(
                "{} differs and is left alone (--force overwrites): {}",
                output::cell(&table["backup"]),
                keys.join(" ")
            ))?;
        }
        let unmapped = output::cell(&table["unmapped"]);
        if !unmapped.is_empty() {
            output::line(format!("{} has no columns for: {unmapped}", output::cell(&table["backup"])))?;
        }
    }
    if dry_run { output::line("nothing was done (--dry-run)") } else { Ok(()) }
}
