//! `rowbeat schedule …`: list, add, remove, preview.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::database::Context;
use super::failure::Failure;
use super::output;
use super::task::tell;
use crate::schedule::recurrence::{PlannedFire, Recurrence};

/// Look at, add, remove and preview schedules.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// List schedules by their next fire.
    #[command(after_help = "Example:\n  rowbeat schedule list")]
    List,
    /// Add a schedule, or change the one of that name, and show its next fires.
    #[command(
        after_help = "Example:\n  rowbeat schedule add nightly '0 3 * * *' send_report --zone Europe/Paris"
    )]
    Add(Add),
    /// Remove a schedule.
    #[command(after_help = "Example:\n  rowbeat schedule remove nightly")]
    Remove { name: String },
    /// Show the next fires of a spec; needs no database.
    #[command(
        after_help = "Example:\n  rowbeat schedule preview '*/15 9-17 * * 1-5' --zone Europe/Paris --count 10"
    )]
    Preview(Preview),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Its name.
    name: String,
    /// When: 'm h dom mon dow', '@daily', 'every 15 minutes' or 'at 2027-01-31 09:00'.
    spec: String,
    /// The task definition to enqueue.
    definition: String,
    /// Payload of its tasks, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = parse_json)]
    payload: Value,
    /// IANA time zone of the spec.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// No fire before this time (RFC 3339); of an interval the first one.
    #[arg(long, value_name = "TIME")]
    start: Option<DateTime<Utc>>,
    /// No fire from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    end: Option<DateTime<Utc>>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Preview {
    /// When: 'm h dom mon dow', '@daily', 'every 15 minutes' or 'at 2027-01-31 09:00'.
    spec: String,
    /// IANA time zone of the spec.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// Fires after this time (RFC 3339; now when left out).
    #[arg(long, value_name = "TIME")]
    after: Option<DateTime<Utc>>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
}

/// Without it clap would take the text for a JSON string.
fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::List => list(context).await,
        Arguments::Add(arguments) => add(context, arguments).await,
        Arguments::Remove { name } => {
            let row = context.db().await?.row("schedule.remove", &[&name]).await?;
            if !row.is_some_and(|row| row.get(0)) {
                return Err(
                    Failure::new(format!("there is no schedule {name}")).remedy("see rowbeat schedule list")
                );
            }
            tell(context, &json!({ "removed": name }), &format!("removed {name}; its ledger of fires stays"))
        }
        Arguments::Preview(arguments) => preview(context, &arguments),
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let rows = context.db().await?.rows("schedule.list", &[]).await?;
    let schedules: Vec<Value> = rows.iter().map(|row| row.get("schedule")).collect();
    if context.json() {
        return output::json(&schedules);
    }
    let keys = [
        "name",
        "definition",
        "spec",
        "time_zone",
        "status",
        "next_fire_at",
        "next_fire_local",
        "last_fire_at",
    ];
    let rows = schedules.iter().map(|schedule| keys.map(|key| output::field(schedule, key)));
    output::line(output::table(keys.map(|key| key).map(title), rows))
}

fn title(key: &'static str) -> &'static str {
    match key {
        "time_zone" => "zone",
        "next_fire_at" => "next fire",
        "next_fire_local" => "local",
        "last_fire_at" => "last fire",
        other => other,
    }
}

async fn add(context: &Context, arguments: Add) -> Result<(), Failure> {
    let db = context.db().await?;
    let now: DateTime<Utc> =
        db.row("schedule.now", &[]).await?.map_or_else(DateTime::default, |row| row.get("now"));
    // Refused here already, with the hint.
    let recurrence = Recurrence::parse(&arguments.spec, &arguments.zone, arguments.start.unwrap_or(now))?;
    db.rows(
        "schedule.add",
        &[
            &arguments.name,
            &arguments.spec,
            &arguments.definition,
            &arguments.payload,
            &arguments.zone,
            &arguments.start,
            &arguments.end,
        ],
    )
    .await?;
    let fires = recurrence.preview(arguments.start.unwrap_or(now).max(now), 5);
    if context.json() {
        return output::json(&json!({ "name": arguments.name, "next": fires }));
    }
    output::line(format!("schedule {}; next fires:", arguments.name))?;
    output::line(table(&fires))
}

fn preview(context: &Context, arguments: &Preview) -> Result<(), Failure> {
    let after = arguments.after.unwrap_or_else(now);
    let fires =
        Recurrence::parse(&arguments.spec, &arguments.zone, after)?.preview(after, arguments.count.into());
    if context.json() {
        return output::json(&fires);
    }
    if fires.is_empty() {
        return output::line("no more fires");
    }
    output::line(table(&fires))
}

fn table(fires: &[PlannedFire]) -> String {
    let rows = fires
        .iter()
        .map(|fire| [fire.utc.clone(), fire.local.clone(), fire.note.clone().unwrap_or_default()]);
    output::table(["utc", "local", "note"], rows)
}

#[expect(clippy::disallowed_methods, reason = "a preview has no database, so no other clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
