//! `rowbeat start`: the daemon in the foreground, until a signal.

use std::net::SocketAddr;

use super::database::Context;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Run the daemon: it dispatches tasks, follows watched tables, fires schedules and serves its status.
///
/// Without a configured database it runs a private Postgres of its own. The first SIGTERM or Ctrl-C drains, a second one
/// does not wait for what still runs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  rowbeat start --concurrency 20 --queue mail,default --http 127.0.0.1:7474"
)]
pub(super) struct Arguments {
    /// Most tasks that run here at the same time (instead of node.concurrency).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: Option<u16>,
    /// Work only on these queues (instead of node.queues); several by commas or by repeating it.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    queue: Vec<String>,
    /// Serve the status here (instead of http.listen); "off" serves none.
    #[arg(long, value_name = "ADDR", value_parser = parse_http)]
    http: Option<Http>,
}

/// Where the status is served, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Http(Option<SocketAddr>);

fn parse_http(text: &str) -> Result<Http, String> {
    if text == "off" {
        return Ok(Http(None));
    }
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    match numeric.as_deref().unwrap_or(text).parse() {
        Ok(address) => Ok(Http(Some(address))),
        Err(_) => Err("write an address with a port, such as 127.0.0.1:7474, or off".into()),
    }
}

impl Arguments {
    /// Lays the options over the configuration.
    pub(super) fn lay_over(self, config: &mut Config) -> Result<(), Failure> {
        if let Some(concurrency) = self.concurrency {
            config.node.concurrency = concurrency.into();
        }
        if self.queue.iter().any(String::is_empty) {
            return Err(Failure::new("--queue: a queue has no name").exit(Exit::Usage));
        }
        if !self.queue.is_empty() {
            config.node.queues = self.queue;
        }
        if let Some(Http(listen)) = self.http {
            config.http.listen = listen;
        }
        Ok(())
    }
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let mut config = context.config()?;
    arguments.lay_over(&mut config)?;
    telemetry::start(&config.log);
    until_signalled(Daemon::new(config)).await
}

/// Runs a daemon until it gives up or the process is signalled.
pub(super) async fn until_signalled(daemon: Daemon) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.on_signals()?;
    let mut running = Box::pin(daemon.run(shutdown));
    tokio::select! {
        ended = &mut running => Ok(ended?),
        () = signals => Ok(running.await?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_can_be_put_somewhere_or_switched_off() {
        assert_eq!(parse_http("off"), Ok(Http(None)));
        assert_eq!(parse_http("localhost:80"), Ok(Http(Some(([127, 0, 0, 1], 80).into()))));
        assert_eq!(parse_http("[::1]:0").map(|http| http.0.is_some()), Ok(true));
        assert!(parse_http("7474").is_err() && parse_http("").is_err());
    }
}
