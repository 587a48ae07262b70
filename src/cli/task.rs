//! `rowbeat task …`: enqueue, list, show, explain, cancel, retry, run now.

use std::io::Read;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use crate::db::query::Db;

/// Enqueue, look at, cancel and retry tasks.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Enqueue a task.
    #[command(after_help = "Example:\n  rowbeat task enqueue add_effect '{\"x\": 1}' --wait")]
    Enqueue(Enqueue),
    /// List tasks, the latest first.
    #[command(after_help = "Example:\n  rowbeat task list --state failed --json")]
    List(List),
    /// Show one task with its attempts and steps.
    #[command(after_help = "Example:\n  rowbeat task show 42")]
    Show { id: i64 },
    /// Cancel a task: a waiting one at once, a running one is told to stop.
    #[command(after_help = "Example:\n  rowbeat task cancel 42")]
    Cancel { id: i64 },
    /// Run a waiting, failed or cancelled task now, with all its attempts before it.
    #[command(after_help = "Example:\n  rowbeat task retry 42")]
    Retry {
        /// The task.
        #[arg(required_unless_present = "failed")]
        id: Option<i64>,
        /// All failed tasks instead, the oldest first, at most a thousand at a time.
        #[arg(long, conflicts_with = "id")]
        failed: bool,
        /// Only those of this definition.
        #[arg(long, value_name = "NAME", requires = "failed")]
        definition: Option<String>,
    },
    /// Make a waiting task due now; limits, pauses and its turn still hold it back.
    #[command(after_help = "Example:\n  rowbeat task run-now 42")]
    RunNow { id: i64 },
    /// Tell why a task is not running.
    #[command(after_help = "Example:\n  rowbeat task explain 42")]
    Explain { id: i64 },
}

#[derive(Debug, clap::Args)]
pub(super) struct Enqueue {
    /// Name of the task definition.
    definition: String,
    /// The payload as JSON; - reads it from standard input.
    #[arg(default_value = "{}")]
    payload: String,
    /// Not before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    run_at: Option<DateTime<Utc>>,
    /// Queue, instead of the definition's.
    #[arg(long)]
    queue: Option<String>,
    /// Priority, instead of the definition's; smaller is sooner.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// How many attempts may fail, instead of the definition's number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    max_attempts: Option<i16>,
    /// Enqueue nothing while a live task of the definition holds this key.
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// Tasks with this key run one at a time, in order.
    #[arg(long, value_name = "KEY")]
    serial_key: Option<String>,
    /// Wait until it has ended and show it; exit code 1 unless it completed.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only these: scheduled, available, running, retryable, completed, failed or cancelled.
    #[arg(long, value_parser = ["scheduled", "available", "running", "retryable", "completed", "failed", "cancelled"])]
    state: Option<String>,
    /// Only those of this definition.
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Enqueue(arguments) => enqueue(context, arguments).await,
        Arguments::List(arguments) => list(context, &context.db().await?, arguments).await,
        Arguments::Show { id } => show(context, &context.db().await?, id).await.map(drop),
        Arguments::Cancel { id } => {
            let row = context.db().await?.row("task.cancel", &[&id]).await?;
            let state: String = row.map_or_else(String::new, |row| row.get(0));
            tell(context, &json!({ "id": id, "state": state }), &format!("task {id}: {state}"))
        }
        Arguments::Retry { id: Some(id), .. } => {
            context.db().await?.row("task.retry", &[&id]).await?;
            tell(context, &json!({ "id": id }), &format!("task {id} is due now"))
        }
        Arguments::Retry { id: None, definition, .. } => {
            let row = context.db().await?.row("task.retry_failed", &[&definition]).await?;
            let count: i64 = row.map_or(0, |row| row.get(0));
            tell(context, &json!({ "retried": count }), &format!("{count} failed tasks are due now"))
        }
        Arguments::RunNow { id } => {
            context.db().await?.row("task.run_now", &[&id]).await?;
            tell(context, &json!({ "id": id }), &format!("task {id} is due now"))
        }
        Arguments::Explain { id } => explain(context, &context.db().await?, id).await,
    }
}

async fn explain(context: &Context, db: &Db, id: i64) -> Result<(), Failure> {
    let rows = db.rows("task.explain", &[&id]).await?;
    let reasons: Vec<Value> = rows.iter().map(|row| row.get("reason")).collect();
    if context.json() {
        return output::json(&reasons);
    }
    let keys = ["reason", "detail", "expected_at"];
    output::line(output::table(keys, reasons.iter().map(|reason| keys.map(|key| output::field(reason, key)))))
}

async fn enqueue(context: &Context, arguments: Enqueue) -> Result<(), Failure> {
    let mut text = arguments.payload;
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text)?;
    }
    let payload: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("the payload is no JSON: {error}"))
            .exit(Exit::Usage)
            .remedy("write it as '{\"x\": 1}', or - to read it from standard input")
    })?;
    let db = &context.db().await?;
    let (priority, max_attempts) = (arguments.priority.map(i32::from), arguments.max_attempts.map(i32::from));
    let row = db
        .row(
            "task.enqueue",
            &[
                &arguments.definition,
                &payload,
                &arguments.run_at,
                &arguments.queue,
                &priority,
                &max_attempts,
                &arguments.unique_key,
                &arguments.serial_key,
            ],
        )
        .await?;
    let id: i64 = row.map_or(0, |row| row.get(0));
    if !arguments.wait {
        return tell(context, &json!({ "id": id }), &format!("task {id}"));
    }
    loop {
        let task = read(db, id).await?;
        if !task["finished_at"].is_null() {
            let state = show(context, db, id).await?;
            return if state == "completed" {
                Ok(())
            } else {
                Err(Failure::new(format!("task {id} is {state}")))
            };
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn list(context: &Context, db: &Db, arguments: List) -> Result<(), Failure> {
    let limit = i64::from(arguments.limit);
    let rows = db.rows("task.list", &[&arguments.state, &arguments.definition, &limit]).await?;
    let tasks: Vec<Value> = rows.iter().map(|row| row.get("task")).collect();
    if context.json() {
        return output::json(&tasks);
    }
    let cells = tasks.iter().map(|task| {
        let attempt = format!("{}/{}", task["failures"], task["max_attempts"]);
        ["id", "definition", "state", "queue"]
            .map(|key| output::field(task, key))
            .into_iter()
            .chain([
                attempt,
                cause(&task["cause"]),
                output::field(task, "run_at"),
                output::cell(&task["error"]["message"]),
            ])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_default()
    });
    output::line(output::table::<8>(
        ["id", "definition", "state", "queue", "failures", "cause", "run at", "error"],
        cells,
    ))
}

async fn read(db: &Db, id: i64) -> Result<Value, Failure> {
    match db.row("task.show", &[&id]).await? {
        Some(row) => Ok(row.get("task")),
        None => Err(Failure::new(format!("task {id} does not exist"))
            .remedy("it may have been forgotten: see keep and keep_days of its definition")),
    }
}

async fn show(context: &Context, db: &Db, id: i64) -> Result<String, Failure> {
    let task = read(db, id).await?;
    let state = output::cell(&task["state"]);
    if context.json() {
        output::json(&task)?;
        return Ok(state);
    }
    let fields = task
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| !value.is_null() && !matches!(key.as_str(), "attempts" | "steps"));
    output::line(output::table(
        ["field", "value"],
        fields.map(|(key, value)| [key.clone(), output::cell(value)]),
    ))?;
    let attempts = task["attempts"].as_array().filter(|attempts| !attempts.is_empty());
    if let Some(attempts) = attempts {
        let rows = attempts.iter().map(|attempt| {
            [
                output::field(attempt, "attempt"),
                output::field(attempt, "outcome"),
                output::field(attempt, "ended_at"),
                output::cell(&attempt["error"]["message"]),
            ]
        });
        output::line(format!("\n{}", output::table(["attempt", "outcome", "ended at", "error"], rows)))?;
    }
    let steps = task["steps"].as_array().filter(|steps| !steps.is_empty());
    if let Some(steps) = steps {
        let keys = ["step", "effect", "response"];
        let rows = steps.iter().map(|step| keys.map(|key| output::field(step, key)));
        output::line(format!("\n{}", output::table(keys, rows)))?;
    }
    Ok(state)
}

/// What made a task, in a word or two.
pub(super) fn cause(cause: &Value) -> String {
    match (cause["kind"].as_str(), cause["name"].as_str()) {
        (Some(kind), Some(name)) => format!("{kind} {name}"),
        _ => "insert".to_owned(),
    }
}

/// One answer, for people or for machines.
pub(super) fn tell(context: &Context, document: &Value, text: &str) -> Result<(), Failure> {
    if context.json() { output::json(document) } else { output::line(text) }
}
