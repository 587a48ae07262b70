//! `rowbeat migrate`: brings the schema to this binary's version, or shows what that would do.

use super::database::Context;
use super::failure::Failure;
use super::output;
use crate::db::connect::Connector;
use crate::db::migrate::{self, Plan};

/// Install the schema, or bring it to the version of this rowbeat.
///
/// Never goes back: a schema that a newer rowbeat made is refused. Two at once are safe. A private Postgres that does not
/// run is started for the time of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat migrate --plan && rowbeat migrate")]
pub(super) struct Arguments {
    /// Only show the pending steps and the locks they take.
    #[arg(long)]
    plan: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let (connector, started) = context.connector_or_start().await?;
    let done = work(context, &arguments, &connector).await;
    if let Some(private) = started {
        private.stop().await?;
    }
    done
}

async fn work(context: &Context, arguments: &Arguments, connector: &Connector) -> Result<(), Failure> {
    let plan =
        if arguments.plan { migrate::plan(connector).await? } else { migrate::migrate(connector).await? };
    if context.json() {
        return output::json(&plan);
    }
    if plan.steps.is_empty() {
        return output::line(format!("nothing to do: the schema is at version {}", plan.current));
    }
    output::line(steps(&plan))?;
    let from = if plan.installed { format!("from version {}", plan.current) } else { "installed".into() };
    output::line(match (arguments.plan, plan.installed) {
        (true, true) => format!("\nto go from version {} to {}: rowbeat migrate", plan.current, plan.target),
        (true, false) => format!("\nto install version {}: rowbeat migrate", plan.target),
        (false, _) => format!("\ndone: the schema is at version {} ({from})", plan.target),
    })
}

fn steps(plan: &Plan) -> String {
    let rows = plan.steps.iter().map(|step| [step.kind.to_owned(), step.file.clone(), step.locks.clone()]);
    output::table(["kind", "file", "locks"], rows)
}
