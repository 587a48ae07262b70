//! Connections of type `smtp`.

use std::time::Duration;

use lettre::message::Mailbox;
use rustls::pki_types::CertificateDer;

use super::Connection;
use crate::config::secret::Secret;
use crate::config::values::Sections;

/// A mail server, and how to talk to it.
#[derive(Debug, Clone)]
pub struct SmtpConnection {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way to it is encrypted.
    pub tls: SmtpTls,
    /// User and password.
    pub credentials: Option<(String, Secret)>,
    /// Sender of mails that name none.
    pub from: Option<Mailbox>,
    /// What it is greeted with; the machine's name when absent.
    pub hello_name: String,
    /// Limit of one mail, from connecting to the server's last word.
    pub timeout: Duration,
    /// Trusted beside the platform's.
    pub roots: Vec<CertificateDer<'static>>,
}

/// How the way to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// By STARTTLS; a server that does not offer it is refused.
    StartTls,
    /// From the first byte.
    Implicit,
    /// Not at all.
    None,
}

impl Sections<'_> {
    pub(super) fn smtp_connection(&mut self, connection: &Connection) -> Option<SmtpConnection> {
        let key = |part: &str| connection.key(part);
        let host = self.required(&key("host"), &connection.place, "name the mail server");
        let words =
            [("starttls", SmtpTls::StartTls), ("implicit", SmtpTls::Implicit), ("none", SmtpTls::None)];
        let tls = self.choice(&key("tls"), &words);
        let default_port = match tls {
            SmtpTls::StartTls => 587,
            SmtpTls::Implicit => 465,
            SmtpTls::None => 25,
        };
        let credentials = self.credentials(connection);
        if tls == SmtpTls::None && credentials.is_some() {
            self.warn(format!("{}: the password is sent without encryption", key("tls")));
        }
        let own_name = self.environment.host_name().unwrap_or("localhost").to_owned();
        let connection = SmtpConnection {
            port: u16::try_from(self.count(&key("port"), default_port, 1..=65535)).unwrap_or(25),
            tls,
            credentials,
            from: self.sender(&key("from")),
            hello_name: self.text(&key("hello_name"), &own_name),
            timeout: self.duration(&key("timeout"), Duration::from_secs(120), Duration::from_millis(1)),
            roots: self.certificates(&key("ca_file")),
            // Last: the others are to be checked too.
            host: host?,
        };
        Some(connection)
    }

    /// User and password: both or neither.
    pub(super) fn credentials(&mut self, connection: &Connection) -> Option<(String, Secret)> {
        let (user_key, file_key) = (connection.key("username"), connection.key("password_file"));
        if self.place(&user_key).is_empty() && self.place(&file_key).is_empty() {
            return None;
        }
        let username = self.required(&user_key, &connection.place, "name the user");
        let password = self.needed_secret(connection, "password_file", "the password");
        Some((username?, password?))
    }

    fn sender(&mut self, key: &str) -> Option<Mailbox> {
        let text = self.optional(key)?;
        let sender = text.parse();
        if sender.is_err() {
            let place = self.place(key);
            let remedy = "write \"shop@example.com\" or \"The Shop <shop@example.com>\"";
            self.refuse(key, &place, format!("\"{text}\" is no mail address"), remedy);
        }
        sender.ok()
    }
}
