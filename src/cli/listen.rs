//! `rowbeat listen`: the daemon in the foreground, telling what it hears on channels: those that become tasks, while it is the one
//! that makes them, and those that plugins announce.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::database::Context;
use super::failure::Failure;
use super::output;
use super::start;
use crate::daemon::Daemon;
use crate::db::listener::Ear;
use crate::telemetry;

pub(super) async fn run(context: &Context, arguments: start::Arguments) -> Result<(), Failure> {
    let mut config = context.config()?;
    arguments.lay_over(&mut config)?;
    telemetry::start(&config.log);
    output::line("Starting PostgreSQL listener...")?;
    let daemon = Daemon::new(config);
    let ears = daemon.ears();
    let mut running = Box::pin(start::until_signalled(daemon));
    tokio::select! {
        ended = &mut running => ended,
        told = tell(context, ears) => {
            // Nobody reads any more: the work goes on.
            told?;
            running.await
        }
    }
}

async fn tell(context: &Context, mut ears: Receiver<Ear>) -> Result<(), Failure> {
    loop {
        let (document, text) = match ears.recv().await {
            Ok(Ear::Listening(channel)) => {
                (serde_json::json!({ "listening": channel }), format!("Listening to channel: {channel}"))
            }
            Ok(Ear::Unlistened(channel)) => (
                serde_json::json!({ "unlistened": channel }),
                format!("No longer listening to channel: {channel}"),
            ),
            Ok(Ear::Nothing(said)) => (serde_json::json!({ "nothing": said }), said),
            Ok(Ear::Heard(heard)) if heard.channel == "rowbeat" => continue,
            Ok(Ear::Heard(heard)) => (
                serde_json::json!({ "pid": heard.pid, "channel": heard.channel, "payload": heard.payload }),
                format!("Got NOTIFY: {}, {}, {}", heard.pid, heard.channel, heard.payload),
            ),
            Err(RecvError::Lagged(missed)) => (
                serde_json::json!({ "unprinted": missed }),
                format!("({missed} notifications were too fast to print)"),
            ),
            Err(RecvError::Closed) => return Ok(()),
        };
        if context.json() { output::line(document.to_string())? } else { output::line(text)? }
    }
}
