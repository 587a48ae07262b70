//! Connections of type `kafka`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Connection;
use crate::config::secret::Secret;
use crate::config::values::Sections;

/// A Kafka cluster. `Debug` shows the names of its properties only, for a value may be a secret.
#[derive(Clone)]
pub struct KafkaConnection {
    /// Brokers to ask first.
    pub bootstrap_servers: String,
    /// User and password of SASL.
    pub credentials: Option<(String, Secret)>,
    /// Further properties of librdkafka.
    pub properties: BTreeMap<String, String>,
    /// How long a message may wait to be acknowledged.
    pub timeout: Duration,
}

impl std::fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConnection")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("credentials", &self.credentials)
            .field("properties", &self.properties.keys())
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// What rowbeat sets itself, with the key to use instead.
const OWN_PROPERTIES: [(&str, &str); 7] = [
    ("bootstrap.servers", "use bootstrap_servers"),
    ("sasl.username", "use username"),
    ("sasl.password", "use password_file"),
    ("message.timeout.ms", "use timeout"),
    ("delivery.timeout.ms", "use timeout"),
    ("enable.idempotence", "it is always on"),
    ("acks", "it is always all"),
];

impl Sections<'_> {
    pub(super) fn kafka_connection(&mut self, connection: &Connection) -> Option<KafkaConnection> {
        let key = |part: &str| connection.key(part);
        if !cfg!(feature = "kafka") {
            let remedy = "build it with --features kafka, or leave this connection to another node";
            let problem = "this rowbeat was built without Kafka";
            self.refuse(&key("type"), &connection.place, problem, remedy);
        }
        let servers = self.required(
            &key("bootstrap_servers"),
            &connection.place,
            "name at least one broker, such as \"kafka1.example.com:9092\"",
        );
        let properties = self.map(&key("properties"));
        for (name, remedy) in OWN_PROPERTIES {
            if properties.contains_key(name) {
                let place = self.place(&key("properties"));
                let problem = format!("{name} is not set here");
                self.refuse(&key("properties"), &place, problem, remedy);
            }
        }
        let connection = KafkaConnection {
            credentials: self.credentials(connection),
            properties,
            timeout: self.duration(&key("timeout"), Duration::from_secs(30), Duration::from_millis(1)),
            // Last: the others are to be checked too.
            bootstrap_servers: servers?,
        };
        Some(connection)
    }
}
