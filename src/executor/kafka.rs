//! `kafka`: messages by connections of the node's configuration; in builds with the feature `kafka`.
//!
//! The effect is `{"connection", "topic", "key", "payload", "headers", "partition"}`, the response `{"topic", "partition",
//! "offset"}`: all in-sync replicas have the message. The key is the idempotency key unless the effect has another; a
//! payload that is text is sent as it is, anything else as JSON, null as a tombstone, and the task's payload when the
//! effect has none.
//!
//! Invariant: an attempt ends after its message has been delivered or given up, since a message lives shorter than any
//! attempt that may send it. So nothing is lost when the process ends: what was not delivered belongs to an interrupted
//! attempt, which runs again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Effect, Failure, Unusable};
use crate::config::KafkaConnection;

/// How long brokers are waited for by somebody who wants a list of topics.
const SEARCH: Duration = Duration::from_secs(5);

/// The clusters of this node.
#[derive(Clone, Default)]
pub struct Connections {
    connections: Arc<BTreeMap<String, (FutureProducer, Duration)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    connection: String,
    topic: String,
    key: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    partition: Option<i32>,
    // Read apart: null is not the same as absent.
    #[serde(rename = "payload")]
    _payload: Option<Value>,
}

impl Connections {
    /// Connections by name; brokers are looked for in the background.
    ///
    /// # Errors
    /// When librdkafka does not take the properties of one.
    pub fn new(configs: &BTreeMap<String, KafkaConnection>) -> Result<Self, Unusable> {
        let made = configs.iter().map(|(name, config)| {
            let producer = producer(config).map_err(|error| match error {
                // The whole error shows the value, which may be a secret.
                KafkaError::ClientConfig(_, problem, key, _) => {
                    Unusable::new(name, format!("{key}: {problem}"))
                }
                other => Unusable::new(name, other),
            })?;
            Ok((name.clone(), (producer, config.timeout)))
        });
        Ok(Self { connections: Arc::new(made.collect::<Result<_, Unusable>>()?) })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.connections.contains_key(name)
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        let spec = Spec::deserialize(&effect.spec)
            .map_err(|error| Failure::reject(format!("effect of kafka: {error}")))?;
        let Some((producer, timeout)) = self.connections.get(&spec.connection) else {
            return Err(Failure::no_connection("kafka", &spec.connection));
        };
        if Duration::from_millis(effect.task.timeout_ms) <= *timeout {
            return Err(Failure::reject(format!(
                "the definition's timeout ({} ms) is not longer than that of connection {} ({} ms)",
                effect.task.timeout_ms,
                spec.connection,
                timeout.as_millis()
            )));
        }
        let key = spec.key.clone().unwrap_or_else(|| effect.idempotency_key());
        let payload = match effect.spec.get("payload").unwrap_or(&effect.task.payload) {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let headers = spec.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let headers =
            headers.insert(Header { key: "rowbeat-idempotency-key", value: Some(&effect.idempotency_key()) });
        let record = FutureRecord {
            topic: &spec.topic,
            partition: spec.partition,
            payload: payload.as_ref(),
            key: Some(&key),
            timestamp: None,
            headers: Some(headers),
        };
        match producer.send(record, *timeout).await {
            Ok(delivery) => Ok(json!({
                "topic": spec.topic,
                "partition": delivery.partition,
                "offset": delivery.offset,
            })),
            Err((error, _)) => Err(refused(&spec.topic, &error)),
        }
    }
}

/// The topics of a cluster, without those of its own. Blocks, for [`SEARCH`] at most.
///
/// # Errors
/// Why nobody answered.
pub fn topics(config: &KafkaConnection) -> Result<Vec<String>, String> {
    let told = |error: KafkaError| match error {
        KafkaError::ClientConfig(_, problem, key, _) => format!("{key}: {problem}"),
        other => other.to_string(),
    };
    let producer = producer(config).map_err(told)?;
    let metadata = producer.client().fetch_metadata(None, SEARCH).map_err(told)?;
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    Ok(names.filter(|name| !name.starts_with("__")).collect())
}

fn producer(config: &KafkaConnection) -> Result<FutureProducer, KafkaError> {
    let mut client = ClientConfig::new();
    if let Some((username, password)) = &config.credentials {
        client
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", username)
            .set("sasl.password", password.reveal());
    }
    client.set("client.id", "rowbeat");
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", config.timeout.as_millis().to_string())
        .create()
}

/// What no later attempt can mend is given up; a topic that is not there may come.
fn refused(topic: &str, error: &KafkaError) -> Failure {
    let document = json!({
        "message": format!("kafka topic {topic}: {error}"),
        "code": error.rdkafka_error_code().map(|code| format!("{code:?}")),
    });
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidArgument,
        ) => Failure::Reject(document),
        _ => Failure::Retry { error: document, after: None },
    }
}
