//! One mail server: sessions with it, each for one mail at a time, kept for the next one while they are idle.
//!
//! Invariant: only a session whose mail the server has answered is kept. lettre's own pool also keeps one whose mail was
//! dropped half-way (by a timeout or a cancellation); whoever gets that reads the answers to somebody else's commands.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, response::Response};
use serde_json::json;

use crate::config::{SmtpConnection, SmtpTls};
use crate::executor::Failure;

/// An idle session is kept this long: less than the five minutes after which servers may close it.
const IDLE: Duration = Duration::from_secs(60);
/// Most idle sessions.
const MOST_IDLE: usize = 10;
/// Replies about who may log in: for the operator to mend, not the mail's fault.
const LOGIN: [u16; 4] = [530, 534, 535, 538];

/// A mail server.
pub(super) struct Server {
    pub(super) config: SmtpConnection,
    tls: Option<TlsParameters>,
    idle: Mutex<Vec<(Instant, AsyncSmtpConnection)>>,
}

impl Server {
    pub(super) fn new(config: &SmtpConnection) -> Result<Self, Error> {
        let tls = match config.tls {
            SmtpTls::StartTls | SmtpTls::Implicit => Some(tls(config)?),
            SmtpTls::None => None,
        };
        Ok(Self { config: config.clone(), tls, idle: Mutex::default() })
    }

    /// The server's last word about a mail that it has taken.
    pub(super) async fn send(&self, message: &Message) -> Result<Response, Failure> {
        let limit = self.config.timeout;
        match tokio::time::timeout(limit, self.deliver(message)).await {
            Ok(answered) => answered.map_err(|error| self.refused(&error)),
            Err(_) => {
                let problem = format!("smtp {}: not sent within {} ms", self.config.host, limit.as_millis());
                Err(Failure::retry(problem))
            }
        }
    }

    async fn deliver(&self, message: &Message) -> Result<Response, Error> {
        let mut session = self.session().await?;
        let answer = session.send(message.envelope(), &message.formatted()).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE);
        if idle.len() < MOST_IDLE {
            idle.push((Instant::now(), session));
        }
        Ok(answer)
    }

    async fn session(&self) -> Result<AsyncSmtpConnection, Error> {
        while let Some((since, mut session)) = self.take_idle() {
            if since.elapsed() < IDLE && session.test_connected().await {
                return Ok(session);
            }
        }
        let config = &self.config;
        let hello = ClientId::Domain(config.hello_name.clone());
        let from_the_start = self.tls.clone().filter(|_| config.tls == SmtpTls::Implicit);
        let address = (config.host.as_str(), config.port);
        let mut session =
            AsyncSmtpConnection::connect_tokio1(address, Some(config.timeout), &hello, from_the_start, None)
                .await?;
        if let Some(tls) = self.tls.clone().filter(|_| config.tls == SmtpTls::StartTls) {
            session.starttls(tls, &hello).await?;
        }
        if let Some((username, password)) = &config.credentials {
            let credentials = Credentials::new(username.clone(), password.reveal().to_owned());
            session.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(session)
    }

    fn take_idle(&self) -> Option<(Instant, AsyncSmtpConnection)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn refused(&self, error: &Error) -> Failure {
        let host = &self.config.host;
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let Some(code) = error.status().map(u16::from) else {
            return Failure::retry(format!("smtp {host}: {error}"));
        };
        let document =
            json!({ "message": format!("smtp {host}: {code} {cause}"), "code": code, "text": cause });
        if error.is_permanent() && !LOGIN.contains(&code) {
            return Failure::Reject(document);
        }
        Failure::Retry { error: document, after: None }
    }
}

fn tls(config: &SmtpConnection) -> Result<TlsParameters, Error> {
    let mut builder = TlsParameters::builder(config.host.clone());
    for root in &config.roots {
        builder = builder.add_root_certificate(Certificate::from_der(root.to_vec())?);
    }
    builder.build_rustls()
}
