//! `rowbeat kafka topics`: what there is to choose from. Whoever chooses a topic wants a list, not a diagnosis: a broker that is away, or none at
//! all, is an empty list.

use std::io::Write;

use super::database::Context;
use super::failure::Failure;
use super::output;
use crate::config::KafkaConnection;

/// Look at Kafka's brokers.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// List the topics of the brokers, those of the brokers' own left out; nothing when none answers within five seconds.
    #[command(after_help = "Example:\n  rowbeat kafka topics --json")]
    Topics {
        /// The connection of the configuration.
        #[arg(long, value_name = "NAME", default_value = "kafka")]
        connection: String,
    },
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let Arguments::Topics { connection } = arguments;
    let topics = match context.config()?.connections.kafka.remove(&connection) {
        Some(config) => {
            let asked = tokio::task::spawn_blocking(move || topics(&config));
            asked.await.map_err(|error| error.to_string()).and_then(|topics| topics)
        }
        None => Err(format!("there is no connection {connection} of type kafka")),
    };
    let mut topics = topics.unwrap_or_else(|problem| {
        // It is no failure, but whoever wonders finds it here.
        let _ = writeln!(std::io::stderr(), "rowbeat: {problem}");
        Vec::new()
    });
    topics.sort();
    if context.json() {
        return output::json(&topics);
    }
    topics.iter().try_for_each(output::line)
}

#[cfg(feature = "kafka")]
fn topics(config: &KafkaConnection) -> Result<Vec<String>, String> {
    crate::executor::kafka::topics(config)
}

/// Never called: without Kafka there are no such connections.
#[cfg(not(feature = "kafka"))]
fn topics(_: &KafkaConnection) -> Result<Vec<String>, String> {
    Err("this rowbeat was built without Kafka".to_owned())
}
