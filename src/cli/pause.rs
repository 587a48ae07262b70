//! `rowbeat pause`, `rowbeat resume`: start no more tasks of a definition or a queue, and again.

use serde_json::json;

use super::database::Context;
use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// A task definition.
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// A queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
}

pub(super) async fn pause(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    context.db().await?.row("task.pause", &[&arguments.definition, &arguments.queue]).await?;
    tell(context, &arguments, true)
}

pub(super) async fn resume(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    context.db().await?.row("task.resume", &[&arguments.definition, &arguments.queue]).await?;
    tell(context, &arguments, false)
}

fn tell(context: &Context, arguments: &Arguments, paused: bool) -> Result<(), Failure> {
    let (kind, name) = match (&arguments.definition, &arguments.queue) {
        (Some(name), _) => ("definition", name),
        (None, Some(name)) => ("queue", name),
        (None, None) => return Ok(()),
    };
    if context.json() {
        return output::json(&json!({ kind: name, "paused": paused }));
    }
    output::line(format!("{kind} {name} is {}", if paused { "paused" } else { "not paused any more" }))
}
