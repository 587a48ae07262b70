//! `rowbeat watch …`: list, add, remove, prune.

use serde_json::{Value, json};

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use super::task::tell;
use crate::db::query::Db;

/// Look at, add and remove watches: changes of a table become tasks.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// List watches.
    #[command(after_help = "Example:\n  rowbeat watch list")]
    List,
    /// Watch a table, or install the classic notifying trigger on it.
    #[command(
        after_help = "Examples:\n  rowbeat watch add public.orders --definition ship --operations insert,update\n  \
                      rowbeat watch add public.orders --definition mail --condition \"new.status = 'paid'\" --plan\n  \
                      rowbeat watch add public.table_change_alert --notify"
    )]
    Add(Box<Add>),
    /// Remove a watch, and its triggers where you may drop them.
    #[command(after_help = "Example:\n  rowbeat watch remove ship_on_public.orders")]
    Remove { name: String },
    /// Drop capture triggers that no watch needs any more (takes the owner of the table).
    #[command(after_help = "Example:\n  rowbeat watch prune --plan")]
    Prune {
        /// Only show the statements.
        #[arg(long)]
        plan: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The table, schema-qualified.
    table: String,
    /// The task definition that each change is enqueued for.
    #[arg(long, value_name = "NAME", required_unless_present = "notify")]
    definition: Option<String>,
    /// Operations: insert, update, delete, truncate.
    #[arg(long, value_delimiter = ',', value_parser = ["insert", "update", "delete", "truncate"], ignore_case = true,
        default_values = ["insert", "update", "delete"])]
    operations: Vec<String>,
    /// Name of the watch (<definition>_on_<table> when left out).
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    what: What,
    /// Install the classic trigger <table>_trigger, which notifies table_change_alert_updated, instead of a watch.
    #[arg(long, conflicts_with_all = ["definition", "name"])]
    notify: bool,
    /// Only show the statements and the locks they take.
    #[arg(long)]
    plan: bool,
}

/// What concerns the watch and how it becomes tasks.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct What {
    /// An update concerns it only when one of these columns changed.
    #[arg(long, value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// A boolean SQL expression over old, new and change.
    #[arg(long, value_name = "SQL")]
    condition: Option<String>,
    /// Columns to leave out.
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    /// One task for each row, statement or transaction.
    #[arg(long, default_value = "row", value_parser = ["row", "statement", "transaction"])]
    grain: String,
    /// An SQL expression for the payload.
    #[arg(long, value_name = "SQL")]
    payload: Option<String>,
    /// An SQL expression for the unique key.
    #[arg(long, value_name = "SQL")]
    unique_key: Option<String>,
    /// Changes of a key within this time become one task, such as 5s.
    #[arg(long, value_name = "DURATION", value_parser = super::wait_for_db::duration)]
    debounce: Option<std::time::Duration>,
    /// An SQL expression for the serial key.
    #[arg(long, value_name = "SQL")]
    serial_key: Option<String>,
    /// Not for changes before this local time.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Not for changes from this local time on.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// IANA time zone of --from and --until.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// Also changes with one of these origins; * for any.
    #[arg(long, value_delimiter = ',')]
    origins: Vec<String>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let db = context.db().await?;
    match arguments {
        Arguments::List => list(context, &db).await,
        Arguments::Add(arguments) => add(context, &db, *arguments).await,
        Arguments::Remove { name } => {
            let row = db.row("change.remove_watch", &[&name]).await?;
            if !row.is_some_and(|row| row.get(0)) {
                return Err(
                    Failure::new(format!("there is no watch {name}")).remedy("see rowbeat watch list")
                );
            }
            let text =
                format!("removed {name}; triggers that are left are inert, rowbeat watch prune drops them");
            tell(context, &json!({ "removed": name }), &text)
        }
        Arguments::Prune { plan } => prune(context, &db, plan).await,
    }
}

async fn list(context: &Context, db: &Db) -> Result<(), Failure> {
    let rows = db.rows("change.list_watches", &[]).await?;
    let watches: Vec<Value> = rows.iter().map(|row| row.get("watch")).collect();
    if context.json() {
        return output::json(&watches);
    }
    let keys = ["name", "table", "operations", "definition", "status"];
    output::line(output::table(keys, watches.iter().map(|watch| keys.map(|key| output::cell(&watch[key])))))
}

async fn add(context: &Context, db: &Db, arguments: Add) -> Result<(), Failure> {
    let Some(definition) = arguments.definition.filter(|_| !arguments.notify) else {
        let row = db.row("change.notify_trigger", &[&arguments.table]).await?;
        let statement: String = row.map_or_else(String::new, |row| row.get("statement"));
        return execute(
            context,
            db,
            vec![statement],
            "ShareRowExclusive (writers wait, readers do not)",
            arguments.plan,
        )
        .await;
    };
    if arguments.plan {
        let rows = db.rows("change.plan_watch", &[&arguments.table, &arguments.operations]).await?;
        let statements = rows.iter().map(|row| row.get("statement")).collect();
        return execute(context, db, statements, "ShareRowExclusive (writers wait, readers do not)", true)
            .await;
    }
    let what = &arguments.what;
    let debounce_ms = what.debounce.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let row = db
        .row(
            "change.add_watch",
            &[
                &arguments.table,
                &definition,
                &arguments.operations,
                &arguments.name,
                &what.columns,
                &what.condition,
                &what.exclude,
                &what.grain,
                &what.payload,
                &what.unique_key,
                &debounce_ms,
                &what.serial_key,
                &what.from,
                &what.until,
                &what.zone,
                &what.origins,
            ],
        )
        .await?;
    let name: String = row.map_or_else(String::new, |row| row.get(0));
    tell(
        context,
        &json!({ "watch": name }),
        &format!("watch {name}: changes of {} become {definition} tasks", arguments.table),
    )
}

async fn prune(context: &Context, db: &Db, plan: bool) -> Result<(), Failure> {
    let rows = db.rows("change.inert_triggers", &[]).await?;
    let statements: Vec<String> = rows.iter().map(|row| row.get("statement")).collect();
    execute(context, db, statements, "AccessExclusive (readers wait too), for a moment", plan).await
}

/// Shows or runs DDL, each statement with a short lock timeout.
async fn execute(
    context: &Context,
    db: &Db,
    statements: Vec<String>,
    locks: &str,
    plan: bool,
) -> Result<(), Failure> {
    if !plan {
        let session = db.session().await?;
        for statement in &statements {
            session.batch_execute("set lock_timeout = '2s'").await?;
            session.batch_execute(statement).await.map_err(|error| {
                let busy = error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE);
                let failure = Failure::from(error);
                if busy {
                    failure.exit(Exit::Failed).remedy("the table is busy; try again in a quiet moment")
                } else {
                    failure
                }
            })?;
        }
    }
    if context.json() {
        return output::json(&json!({ "statements": statements, "locks": locks, "done": !plan }));
    }
    if statements.is_empty() {
        return output::line("nothing to do");
    }
    for statement in &statements {
        output::line(format!("{statement};"))?;
    }
    output::line(format!("-- {}; lock: {locks}", if plan { "not done (--plan)" } else { "done" }))
}
