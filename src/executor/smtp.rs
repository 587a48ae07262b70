//! `smtp`: mails by connections of the node's configuration.
//!
//! The effect is `{"connection", "from", "to", "cc", "bcc", "reply_to", "subject", "text", "html", "template", "data",
//! "attachments", "message_id"}`, the response `{"message_id", "code", "text"}`: the server has taken the mail for all of its
//! recipients, or for none. A 4yz reply, a refused login and a broken connection are worth another attempt, another 5yz is
//! not. SMTP has no idempotency: a connection that breaks after the last byte may mean a mail that was sent. The Message-ID
//! is the same at every attempt, so that a double can be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use self::message::Mail;
use self::server::Server;
use super::{Effect, Failure, Unusable};
use crate::config::SmtpConnection;

mod message;
mod server;

/// The mail servers of this node.
#[derive(Clone, Default)]
pub struct Connections {
    connections: Arc<BTreeMap<String, Server>>,
}

impl Connections {
    /// Connections by name; none is opened before the first mail.
    ///
    /// # Errors
    /// When TLS does not take the settings of one.
    pub fn new(configs: &BTreeMap<String, SmtpConnection>) -> Result<Self, Unusable> {
        let made = configs.iter().map(|(name, config)| {
            let server = Server::new(config).map_err(|error| Unusable::new(name, error))?;
            Ok((name.clone(), server))
        });
        Ok(Self { connections: Arc::new(made.collect::<Result<_, Unusable>>()?) })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.connections.contains_key(name)
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        let mail = Mail::read(&effect)?;
        let Some(server) = self.connections.get(&mail.connection) else {
            return Err(Failure::no_connection("smtp", &mail.connection));
        };
        let sender = server.config.from.as_ref();
        let (message, message_id) = mail.message(&effect, sender).map_err(Failure::reject)?;
        let answer = server.send(&message).await?;
        let text = answer.message().collect::<Vec<_>>().join(" ");
        Ok(json!({ "message_id": message_id, "code": u16::from(answer.code()), "text": text }))
    }
}
