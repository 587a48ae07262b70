//! `rowbeat change …`: replay what is still in the log.

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::database::Context;
use super::failure::Failure;
use super::task::tell;
use crate::db::query::Db;

const PIECE: i32 = 500;
const RETRIED: i32 = 20;

/// Replay captured changes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Turn changes that are in the log into tasks of a watch once more, or those that failed at last.
    #[command(after_help = "Examples:\n  rowbeat change replay --watch mail_on_public.orders --failed\n  \
                      rowbeat change replay --watch index --from 2027-01-31T00:00:00Z --dry-run")]
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// The watch.
    #[arg(long, value_name = "NAME")]
    watch: String,
    /// Changes from this time on (RFC 3339).
    #[arg(long, value_name = "TIME", required_unless_present = "failed")]
    from: Option<DateTime<Utc>>,
    /// Changes before this time (RFC 3339; now when left out).
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Only those that the watch could not make tasks of, whenever they were.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    failed: bool,
    /// Only count what would happen.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let db = context.db().await?;
    let Arguments::Replay(replay) = arguments;
    match replay.from {
        Some(from) => again(context, &db, &replay, from).await,
        None => failed(context, &db, &replay).await,
    }
}

async fn again(context: &Context, db: &Db, replay: &Replay, from: DateTime<Utc>) -> Result<(), Failure> {
    // One end for all pieces: what is written meanwhile is not part of it.
    let now: DateTime<Utc> =
        db.row("schedule.now", &[]).await?.map_or_else(DateTime::default, |row| row.get("now"));
    let to = replay.to.unwrap_or(now).min(now);
    let Some(row) = db.row("change.count_replay", &[&replay.watch, &from, &to]).await? else {
        return Err(unknown(&replay.watch));
    };
    let total: i64 = row.get("changes");
    let bar = bar(total);
    let (mut read, mut made, mut failed, mut after) = (0, 0, 0, 0_i64);
    loop {
        let row = db
            .row("change.replay", &[&replay.watch, &from, &to, &after, &PIECE, &replay.dry_run])
            .await?
            .ok_or_else(|| unknown(&replay.watch))?;
        let piece: i32 = row.get("read");
        read += i64::from(piece);
        made += i64::from(row.get::<_, i32>("made"));
        failed += i64::from(row.get::<_, i32>("failed"));
        bar.inc(u64::try_from(piece).unwrap_or(0));
        let last: Option<i64> = row.get("last_seq");
        match last.filter(|_| piece == PIECE) {
            Some(last) => after = last,
            None => break,
        }
    }
    bar.finish_and_clear();
    let (would, done) = if replay.dry_run {
        ("would concern", "nothing was done")
    } else {
        ("concerned", "they are its tasks")
    };
    tell(
        context,
        &json!({ "watch": replay.watch, "read": read, "made": made, "failed": failed, "dry_run": replay.dry_run }),
        &format!("{read} changes read, {made} {would} the watch, {failed} failed: {done}"),
    )
}

async fn failed(context: &Context, db: &Db, replay: &Replay) -> Result<(), Failure> {
    let Some(row) = db.row("change.failures", &[&replay.watch]).await? else {
        return Err(unknown(&replay.watch));
    };
    let (total, last): (i64, Option<i64>) = (row.get("changes"), row.get("last_id"));
    let mut tried = 0;
    if !replay.dry_run && last.is_some() {
        let bar = bar(total);
        loop {
            let piece: i32 = db
                .row("change.retry_failures", &[&replay.watch, &RETRIED, &last])
                .await?
                .map_or(0, |row| row.get("tried"));
            if piece == 0 {
                break;
            }
            tried += i64::from(piece);
            bar.inc(u64::try_from(piece).unwrap_or(0));
        }
        bar.finish_and_clear();
    }
    let left: i64 = db.row("change.failures", &[&replay.watch]).await?.map_or(0, |row| row.get("changes"));
    tell(
        context,
        &json!({ "watch": replay.watch, "tried": tried, "failed": left, "dry_run": replay.dry_run }),
        &format!("{tried} changes tried again, {left} failed"),
    )
}

fn unknown(watch: &str) -> Failure {
    Failure::new(format!("there is no watch {watch}")).remedy("see rowbeat watch list")
}

/// On a terminal's standard error, and nowhere else.
fn bar(total: i64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} changes, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::try_from(total).unwrap_or(0)).with_style(style)
}
