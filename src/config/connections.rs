//! `[connections.<name>]`: where the effects of tasks lead, with what they need to get in.
//!
//! Effects name a connection and never a host or a secret; those stand here and in files that only the daemon reads. The
//! files are read once, at the start.

mod http;
mod kafka;
mod smtp;

use std::collections::BTreeMap;

pub use self::http::{ClientAuth, HttpAuth, HttpConnection, HttpSignature, OAuth2};
pub use self::kafka::KafkaConnection;
pub use self::smtp::{SmtpConnection, SmtpTls};

use super::document::Connection;
use super::keys::{HTTP_CONNECTION, KAFKA_CONNECTION, SMTP_CONNECTION};
use super::values::Sections;

/// The connections by type and name.
#[derive(Debug, Clone, Default)]
pub struct ConnectionsConfig {
    /// Of type `http`.
    pub http: BTreeMap<String, HttpConnection>,
    /// Of type `smtp`.
    pub smtp: BTreeMap<String, SmtpConnection>,
    /// Of type `kafka`.
    pub kafka: BTreeMap<String, KafkaConnection>,
}

impl Sections<'_> {
    pub(crate) fn connections(&mut self) -> ConnectionsConfig {
        let mut connections = ConnectionsConfig::default();
        for connection in self.document.connections() {
            let name = connection.name.clone();
            self.text(&connection.key("type"), "");
            match connection.section {
                HTTP_CONNECTION => {
                    connections.http.extend(self.http_connection(connection).map(|http| (name, http)));
                }
                SMTP_CONNECTION => {
                    connections.smtp.extend(self.smtp_connection(connection).map(|smtp| (name, smtp)));
                }
                KAFKA_CONNECTION => {
                    connections.kafka.extend(self.kafka_connection(connection).map(|kafka| (name, kafka)));
                }
                _ => {}
            }
        }
        connections
    }
}

impl Connection {
    /// The dotted name of one of its keys.
    fn key(&self, part: &str) -> String {
        format!("connections.{}.{part}", self.name)
    }
}
