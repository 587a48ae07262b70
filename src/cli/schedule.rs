//! `rowbeat schedule …`: list, add, remove, explain, preview.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::database::Context;
use super::failure::Failure;
use super::output;
use super::task::tell;
use crate::schedule::recurrence::{PlannedFire, Recurrence};

/// How many fires to come are shown.
const NEXT: usize = 5;

/// Look at, add, remove, explain and preview schedules.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// List schedules by their next fire.
    #[command(after_help = "Example:\n  rowbeat schedule list")]
    List,
    /// Add a schedule, or change the one of that name, and show its next fires.
    #[command(
        after_help = "Example:\n  rowbeat schedule add nightly '0 3 * * *' send_report --zone Europe/Paris --overlap skip --jitter '5 min'"
    )]
    Add(Box<Add>),
    /// Remove a schedule.
    #[command(after_help = "Example:\n  rowbeat schedule remove nightly")]
    Remove { name: String },
    /// Tell when a schedule fires next, what stands in its way, and what became of its latest fires.
    #[command(after_help = "Example:\n  rowbeat schedule explain nightly")]
    Explain { name: String },
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
    /// Written, but it does not fire yet.
    #[arg(long)]
    disabled: bool,
    /// It disables itself after one fire.
    #[arg(long)]
    one_shot: bool,
    /// Features without which a fire is skipped, by commas.
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    requires: Vec<String>,
    /// What becomes of fires that pass while no daemon runs.
    #[arg(long, value_name = "CHOICE", default_value = "last", value_parser = ["skip", "last", "all"])]
    catch_up: String,
    /// How far back they are caught up, such as '2 hours'.
    #[arg(long, value_name = "INTERVAL")]
    catch_up_window: Option<String>,
    /// What a fire does while the task of an earlier one lives.
    #[arg(long, value_name = "CHOICE", default_value = "allow", value_parser = ["allow", "skip", "queue", "replace"])]
    overlap: String,
    /// Its tasks are due up to so much after the nominal time, such as '5 minutes'.
    #[arg(long, value_name = "INTERVAL", default_value = "0")]
    jitter: String,
    /// A calendar of days on which it does not fire.
    #[arg(long, value_name = "NAME")]
    calendar: Option<String>,
    /// Queue of its tasks, instead of the definition's.
    #[arg(long)]
    queue: Option<String>,
    /// Priority of its tasks, instead of the definition's; smaller is sooner.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
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
        Arguments::Add(arguments) => add(context, *arguments).await,
        Arguments::Remove { name } => {
            let row = context.db().await?.row("schedule.remove", &[&name]).await?;
            if !row.is_some_and(|row| row.get(0)) {
                return Err(unknown(&name));
            }
            tell(context, &json!({ "removed": name }), &format!("removed {name}; its ledger of fires stays"))
        }
        Arguments::Explain { name } => explain(context, &name).await,
        Arguments::Preview(arguments) => preview(context, &arguments),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no schedule {name}")).remedy("see rowbeat schedule list")
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
        "last_decision",
        "blocked",
    ];
    let rows = schedules.iter().map(|schedule| keys.map(|key| output::field(schedule, key)));
    output::line(output::table(keys.map(title), rows))
}

fn title(key: &'static str) -> &'static str {
    match key {
        "time_zone" => "zone",
        "next_fire_at" => "next fire",
        "next_fire_local" => "local",
        "last_fire_at" => "last fire",
        "last_decision" => "decision",
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
            &!arguments.disabled,
            &arguments.one_shot,
            &arguments.requires,
            &arguments.catch_up,
            &arguments.catch_up_window,
            &arguments.overlap,
            &arguments.jitter,
            &arguments.calendar,
            &arguments.queue,
            &arguments.priority.map(i32::from),
        ],
    )
    .await?;
    // A start is a fire itself if the spec says so; the end is none.
    let from =
        arguments.start.filter(|start| *start > now).map_or(now, |start| start - TimeDelta::nanoseconds(1));
    let count = if arguments.one_shot { 1 } else { NEXT };
    let fires = before(recurrence.preview(from, count), arguments.end);
    if context.json() {
        return output::json(&json!({ "name": arguments.name, "next": fires }));
    }
    output::line(format!("schedule {}; next fires:", arguments.name))?;
    output::line(table(&fires))
}

/// Those that come before a schedule's end.
fn before(mut fires: Vec<PlannedFire>, end: Option<DateTime<Utc>>) -> Vec<PlannedFire> {
    let ended = |fire: &PlannedFire| {
        end.is_some_and(|end| fire.utc.parse::<DateTime<Utc>>().is_ok_and(|at| at >= end))
    };
    fires.retain(|fire| !ended(fire));
    fires
}

async fn explain(context: &Context, name: &str) -> Result<(), Failure> {
    let row = context.db().await?.row("schedule.explain", &[&name]).await?.ok_or_else(|| unknown(name))?;
    let (schedule, reasons, fires): (Value, Value, Value) =
        (row.get("schedule"), row.get("reasons"), row.get("fires"));
    // From the stored time on, which is what will be; a spec that cannot be read is among the reasons.
    let stored: Option<DateTime<Utc>> = row.get("next_fire_at");
    let next = match (Recurrence::parse(row.get("spec"), row.get("time_zone"), row.get("anchor")), stored) {
        (Ok(recurrence), Some(stored)) => {
            before(recurrence.preview(stored - TimeDelta::nanoseconds(1), NEXT), row.get("end_at"))
        }
        _ => Vec::new(),
    };
    if context.json() {
        return output::json(
            &json!({ "schedule": schedule, "reasons": reasons, "next": next, "fires": fires }),
        );
    }
    output::line(format!(
        "schedule {name}: {} in {}, {}\n",
        output::cell(&schedule["spec"]),
        output::cell(&schedule["time_zone"]),
        output::cell(&schedule["status"])
    ))?;
    let rows = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let keys = ["reason", "detail", "expected_at"];
    output::line(output::table(
        keys,
        rows(&reasons).iter().map(|row| keys.map(|key| output::field(row, key))),
    ))?;
    if !next.is_empty() {
        output::line(format!("\nnext fires\n{}", table(&next)))?;
    }
    if fires.as_array().is_some_and(Vec::is_empty) {
        return output::line("\nno fires in the ledger");
    }
    let keys = ["nominal_at", "decision", "task_id", "fired_at", "reason"];
    let fires = output::table(keys, rows(&fires).iter().map(|row| keys.map(|key| output::field(row, key))));
    output::line(format!("\nlatest fires\n{fires}"))
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
