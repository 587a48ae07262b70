//! `rowbeat demo`: the whole path on a private Postgres of its own: a small shop whose rows, changes and schedule become tasks, and a
//! purchase in the bundled plugin `hotspot`.
//!
//! It shows what happened, and checks it against the database: whatever it shows that did not happen ends it with an
//! error. Nothing is left behind.

mod hotspot;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::Client;

use self::hotspot::Partners;
use super::database::Context;
use super::failure::Failure;
use super::{output, postgres};
use crate::config::{Config, Environment};
use crate::daemon::{Daemon, Up};
use crate::db::embedded::Options;
use crate::shutdown::Shutdown;
use crate::telemetry;

const SHOP: &str = include_str!("../../sql/demo/shop.sql");
const ORDER: &str = include_str!("../../sql/demo/order.sql");
const CAUSES: &str = include_str!("../../sql/demo/causes.sql");
const EFFECTS: &str = include_str!("../../sql/demo/effects.sql");

const TRAFFIC: Duration = Duration::from_secs(4);
const BETWEEN_ORDERS: Duration = Duration::from_millis(150);
/// Longer than the slowest machine needs to finish what was begun.
const PATIENCE: Duration = Duration::from_secs(30);
const KINDS: [&str; 3] = ["insert", "schedule", "watch"];

/// Try rowbeat out: a private Postgres, a small shop, traffic for a few seconds, and what became of it.
///
/// An inserted row, a changed table and a schedule each become completed tasks, and the plugin hotspot sells a bundle to a
/// customer, with stand-ins for its payment gateway, router and SMS provider. Afterwards it stays up to play with until
/// Ctrl-C, which leaves nothing behind. Ends with an error when anything it shows did not happen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rowbeat demo --once --json")]
pub(super) struct Arguments {
    /// Exit after showing.
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let folder = postgres::temporary_folder()?;
    let ended = run_in(context, &arguments, &folder).await;
    std::fs::remove_dir_all(&folder)?;
    ended
}

async fn run_in(context: &Context, arguments: &Arguments, folder: &Path) -> Result<(), Failure> {
    let (partners, serving) = Partners::open().await?;
    let text = "[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n[node]\nname = \"demo\"\n";
    let text = format!("{text}{}", partners.connections(folder)?);
    let config = Config::from_text(&text, Path::new("demo"), &Environment::from_variables([]))?;
    telemetry::start(&config.log);
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "making a private Postgres ...\r");
    }
    let options = Options { data_dir: Some(folder.join("pg")), durable: false, ..Options::default() };
    let shutdown = Shutdown::new();
    let signals = shutdown.on_signals()?;
    // A terminal that is closed must leave nothing behind either.
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, up) = tokio::sync::oneshot::channel();
    let daemon = Daemon::new(config).with_private_postgres(options).when_up(sender).run(shutdown.clone());
    let play = async {
        let up = up.await.map_err(|_| Failure::new("the daemon did not come up"))?;
        let psql = up.psql.clone().unwrap_or_default();
        let page = |path: &str| up.http.map(|http| format!("http://{http}{path}")).unwrap_or_default();
        let (status, buy) = (page("/status"), page("/transactions/"));
        let sent = format!("http://{}/state", partners.address);
        let to_play =
            (!arguments.once).then(|| json!({ "psql": psql, "status": status, "buy": buy, "sent": sent }));
        play(context, &up, &partners, to_play).await?;
        if arguments.once {
            return Ok(());
        }
        if !context.json() {
            output::line("\nto play with (Ctrl-C ends it and leaves nothing behind):")?;
            output::line(format!(
                "  {psql}\n  {status}\n  {buy}  sells bundles; the code that was \"sent\" is in {sent}"
            ))?;
        }
        std::future::pending().await
    };
    let mut daemon = Box::pin(async {
        tokio::select! {
            ended = daemon => ended,
            () = serving => Ok(()),
        }
    });
    let mut signals = Box::pin(signals);
    let (mut shown, mut twice) = (false, false);
    let ended = tokio::select! {
        biased;
        // First: a daemon that was told to stop has not ended early.
        () = &mut signals => {
            twice = true;
            Ok(())
        }
        () = shutdown.drain.cancelled() => Ok(()),
        _ = hangup.recv() => Ok(()),
        // Before the play, which knows less about what is wrong.
        ended = &mut daemon => return Err(ended.err().map_or_else(|| Failure::new("the daemon ended early"), Into::into)),
        ended = play => {
            shown = true;
            ended
        }
    };
    shutdown.drain.cancel();
    tokio::select! {
        stopped = &mut daemon => stopped?,
        () = &mut signals, if !twice => daemon.await?,
    }
    if arguments.once && !shown {
        return Err(Failure::new("interrupted before everything was shown"));
    }
    ended
}

/// Makes the shop, keeps it busy, shows what happens, and checks that it did.
async fn play(
    context: &Context,
    up: &Up,
    partners: &Partners,
    to_play: Option<Value>,
) -> Result<(), Failure> {
    let (client, connection) = up.connector.connect("demo").await?;
    let work = async {
        client.batch_execute(SHOP).await?;
        let live = std::io::stdout().is_terminal() && !context.json();
        let begun = Instant::now();
        let traffic = async {
            let mut drawn = 0;
            while begun.elapsed() < TRAFFIC {
                client.execute(ORDER, &[]).await?;
                if live {
                    drawn = draw(&table(&read(&client).await?), drawn)?;
                }
                tokio::time::sleep(BETWEEN_ORDERS).await;
            }
            Ok(drawn)
        };
        let (drawn, purchase) = tokio::try_join!(traffic, hotspot::buy(&client, &up.connector, partners))?;
        let causes = loop {
            let causes = read(&client).await?;
            if is_complete(&causes) || begun.elapsed() > PATIENCE {
                break causes;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let effects = client.query_one(EFFECTS, &[]).await?;
        let effects: [i64; 3] = [effects.get("mails"), effects.get("shipped"), effects.get("fires")];
        if context.json() {
            let tasks: Vec<Value> = causes.iter().map(Cause::document).collect();
            let [mails, shipped, fires] = effects;
            let effects = json!({ "mails": mails, "shipped": shipped, "fires": fires });
            let mut document = json!({ "tasks": tasks, "effects": effects, "purchase": purchase });
            if let Some(to_play) = to_play {
                document["to_play"] = to_play;
            }
            output::json(&document)?;
        } else {
            draw(&table(&causes), drawn)?;
            let [mails, shipped, fires] = effects;
            output::line(format!(
                "\nin the shop's own tables: {shipped} orders shipped, {mails} mails written; {fires} fires in the ledger\n\
                 in the plugin hotspot: {} for GHc {} {}, {} payment at the gateway, user {} on the router, {} texts sent",
                purchase["bundle"].as_str().unwrap_or_default(),
                purchase["amount"],
                purchase["status"].as_str().unwrap_or_default(),
                purchase["payments"],
                purchase["user"].as_str().unwrap_or_default(),
                purchase["texts"],
            ))?;
        }
        verify(&causes, effects)
    };
    tokio::select! {
        done = work => done,
        ended = connection => Err(ended.err().map_or_else(|| Failure::new("the database went away"), Into::into)),
    }
}

/// The latest completed task of one cause, and how many there were.
struct Cause {
    kind: String,
    id: i64,
    name: String,
    definition: String,
    state: String,
    result: Value,
    started_after_ms: Option<f64>,
    completed: i64,
    total: i64,
}

impl Cause {
    fn document(&self) -> Value {
        json!({ "id": self.id, "cause": self.kind, "name": self.name, "definition": self.definition, "state": self.state,
            "result": self.result, "started_after_ms": self.started_after_ms, "completed": self.completed, "total": self.total })
    }
}

async fn read(client: &Client) -> Result<Vec<Cause>, Failure> {
    let rows = client.query(CAUSES, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Cause {
            kind: row.get("kind"),
            id: row.get("id"),
            name: row.get("name"),
            definition: row.get("definition"),
            state: row.get("state"),
            result: row.get::<_, Option<Value>>("result").or_else(|| row.get("error")).unwrap_or_default(),
            started_after_ms: row.get("started_after_ms"),
            completed: row.get("completed"),
            total: row.get("total"),
        })
        .collect())
}

fn is_complete(causes: &[Cause]) -> bool {
    KINDS.iter().all(|kind| causes.iter().any(|cause| cause.kind == *kind && cause.completed > 0))
        && causes.iter().all(|cause| cause.completed == cause.total)
}

fn verify(causes: &[Cause], [mails, shipped, fires]: [i64; 3]) -> Result<(), Failure> {
    let completed =
        |kind: &str| causes.iter().find(|cause| cause.kind == kind).map_or(0, |cause| cause.completed);
    for (kind, effects, what) in [
        ("insert", shipped, "orders shipped"),
        ("watch", mails, "mails written"),
        ("schedule", fires, "fires recorded"),
    ] {
        if completed(kind) == 0 {
            return Err(Failure::new(format!("no {kind} became a completed task")));
        }
        // Exactly once: as many effects as completed tasks (a fire's task may be on its way).
        if effects < completed(kind) || (kind != "schedule" && effects != completed(kind)) {
            return Err(Failure::new(format!(
                "{} {kind} tasks completed, but {effects} {what}",
                completed(kind)
            )));
        }
    }
    Ok(())
}

fn table(causes: &[Cause]) -> String {
    let rows = causes.iter().map(|cause| {
        let started = cause.started_after_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
        [
            cause.kind.clone(),
            cause.name.clone(),
            cause.definition.clone(),
            cause.id.to_string(),
            cause.state.clone(),
            started,
            format!("{}/{}", cause.completed, cause.total),
            cause.result.to_string(),
        ]
    });
    output::table(["cause", "name", "definition", "latest", "state", "started after", "done", "result"], rows)
}

/// Draws the table over the previous one of `drawn` lines; how many lines it has.
fn draw(table: &str, drawn: usize) -> Result<usize, Failure> {
    let mut text = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
    text.push_str(table);
    output::line(text)?;
    Ok(table.lines().count())
}
