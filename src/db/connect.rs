//! Connecting to the configured database: several hosts in order, libpq's `sslmode` and `target_session_attrs`, and one
//! limit around name lookup, TCP, TLS, authentication and the look at the session.
//!
//! A connection is handed out undriven, so that its owner can read notifications. Nothing is watched afterwards: that a
//! server was demoted is noticed by those who ask.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::config as pg;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

mod failure;

pub use self::failure::{ConnectError, FailureCause, HostFailure, SessionFound};
pub use super::tls::TlsError;

use self::failure::tls_cause;
use super::tls;
use crate::config::{
    ChannelBinding, DatabaseConfig, LoadBalanceHosts, SslMode, SslNegotiation, Target, TargetSessionAttrs,
};

/// The stream inside of a connection that is encrypted.
pub type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A session: the client, and the connection that somebody has to drive.
pub type Session = (Client, Connection<Socket, TlsStream>);

/// Opens sessions to one configured database. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<DatabaseConfig>,
    tls: MakeRustlsConnect,
    listen: Option<Arc<Connector>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.describe())
    }
}

impl Connector {
    /// Reads the certificates that the configuration names. Connects to nothing yet.
    pub fn new(config: &DatabaseConfig) -> Result<Self, TlsError> {
        let tls = MakeRustlsConnect::new(tls::client_config(&config.tls)?);
        let listen = config.listen.as_deref().map(Self::new).transpose()?.map(Arc::new);
        Ok(Self { config: Arc::new(config.clone()), tls, listen })
    }

    /// Opens a session named `<application_name> <suffix>`. The first server that fits wins.
    pub async fn connect(&self, application_name_suffix: &str) -> Result<Session, ConnectError> {
        self.connect_with(application_name_suffix, "").await
    }

    /// The same, and runs `setup` (statements without parameters) before anything else.
    pub(super) async fn connect_with(&self, suffix: &str, setup: &str) -> Result<Session, ConnectError> {
        let wanted = self.config.target_session_attrs;
        let rounds: &[_] = match wanted {
            TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
            _ => &[wanted],
        };
        let mut failures = Vec::new();
        for round in rounds {
            failures.clear();
            for target in self.targets() {
                let attempt = Box::pin(self.try_target(target, *round, suffix, setup));
                match within(self.config.connect_timeout, attempt).await {
                    Ok(session) => return Ok(session),
                    Err(cause) => failures.push(HostFailure { host: target.to_string(), cause }),
                }
            }
        }
        Err(ConnectError::new(self, failures))
    }

    /// The connector for LISTEN: a direct one when the database is reached through a pooler (`database.listen_url`).
    pub fn for_listen(&self) -> Self {
        self.listen.as_deref().unwrap_or(self).clone()
    }

    /// What [`tokio_postgres::CancelToken::cancel_query`] needs.
    pub fn cancel_tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Asks the server to cancel what a session is running. It may have ended by itself meanwhile.
    pub async fn cancel(&self, token: tokio_postgres::CancelToken) {
        if let Err(error) = token.cancel_query(self.cancel_tls()).await {
            tracing::debug!(%error, "a statement could not be cancelled");
        }
    }

    /// Where this leads to, in one line and without secrets.
    pub fn describe(&self) -> String {
        self.config.describe()
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &DatabaseConfig {
        &self.config
    }

    fn targets(&self) -> Vec<&Target> {
        let mut targets: Vec<_> = self.config.targets.iter().collect();
        if self.config.load_balance_hosts == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut targets);
        }
        targets
    }

    async fn try_target(
        &self,
        target: &Target,
        wanted: TargetSessionAttrs,
        suffix: &str,
        setup: &str,
    ) -> Result<Session, FailureCause> {
        let mut config = self.driver_config(target, suffix);
        let mode = if target.is_unix() { SslMode::Disable } else { self.config.tls.mode };
        let (first, second) = match mode {
            SslMode::Disable => (pg::SslMode::Disable, None),
            SslMode::Allow => (pg::SslMode::Disable, Some(pg::SslMode::Require)),
            SslMode::Prefer => (pg::SslMode::Prefer, Some(pg::SslMode::Disable)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (pg::SslMode::Require, None),
        };
        config.ssl_mode(first);
        let (client, mut connection) = match (config.connect(self.tls.clone()).await, second) {
            (Ok(session), _) => session,
            (Err(error), Some(second)) if is_about_encryption(&error) => {
                config.ssl_mode(second);
                // The first error says more when the second way fails too.
                config.connect(self.tls.clone()).await.map_err(|_| error)?
            }
            (Err(error), _) => return Err(error.into()),
        };
        if wanted != TargetSessionAttrs::Any {
            let found = drive(&mut connection, look_at_session(&client)).await?;
            if !found.fits(wanted) {
                return Err(FailureCause::Session { wanted, found });
            }
        }
        if !setup.is_empty() {
            drive(&mut connection, client.batch_execute(setup)).await?;
        }
        Ok((client, connection))
    }

    /// The driver's own configuration, for one server: with several it could not tell which one failed, and why.
    pub(super) fn driver_config(&self, target: &Target, suffix: &str) -> tokio_postgres::Config {
        let ours = &*self.config;
        let mut config = tokio_postgres::Config::new();
        config.host(&target.host).port(target.port).user(&ours.user).dbname(&ours.dbname);
        let name = format!("{} {suffix}", ours.application_name);
        config.application_name(name.trim_end());
        if let Some(address) = target.hostaddr {
            config.hostaddr(address);
        }
        if let Some(password) = &target.password {
            config.password(password.reveal());
        }
        if let Some(options) = &ours.options {
            config.options(options);
        }
        config.ssl_negotiation(match ours.tls.negotiation {
            SslNegotiation::Postgres => pg::SslNegotiation::Postgres,
            SslNegotiation::Direct => pg::SslNegotiation::Direct,
        });
        config.channel_binding(match ours.tls.channel_binding {
            ChannelBinding::Disable => pg::ChannelBinding::Disable,
            ChannelBinding::Prefer => pg::ChannelBinding::Prefer,
            ChannelBinding::Require => pg::ChannelBinding::Require,
        });
        let keepalive = &ours.keepalive;
        config.keepalives(keepalive.enabled);
        // The system's two hours are far too long to notice a server that is gone.
        config.keepalives_idle(keepalive.idle.unwrap_or(Duration::from_secs(30)));
        config.keepalives_interval(keepalive.interval.unwrap_or(Duration::from_secs(10)));
        config.keepalives_retries(keepalive.retries.unwrap_or(3));
        if let Some(timeout) = keepalive.user_timeout {
            config.tcp_user_timeout(timeout);
        }
        if let Some(timeout) = ours.connect_timeout {
            // For cancel requests, which open a connection of their own.
            config.connect_timeout(timeout);
        }
        config
    }
}

/// Could the same server take a session with less, or with more encryption? A wrong password is not about that.
fn is_about_encryption(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => tls_cause(error).is_some(),
    }
}

async fn within<T>(
    limit: Option<Duration>,
    attempt: impl Future<Output = Result<T, FailureCause>>,
) -> Result<T, FailureCause> {
    match limit {
        Some(limit) => {
            tokio::time::timeout(limit, attempt).await.unwrap_or(Err(FailureCause::Timeout(limit)))
        }
        None => attempt.await,
    }
}

/// Runs a statement on a connection that nobody drives yet.
async fn drive<T>(
    connection: &mut Connection<Socket, TlsStream>,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut work = std::pin::pin!(work);
    let mut ended = false;
    poll_fn(|context| {
        if !ended && let Poll::Ready(end) = connection.poll_unpin(context) {
            ended = true;
            end?;
        }
        work.as_mut().poll(context)
    })
    .await
}

async fn look_at_session(client: &Client) -> Result<SessionFound, tokio_postgres::Error> {
    let query = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";
    let mut found = SessionFound { in_recovery: false, read_only: false };
    for message in client.simple_query(query).await? {
        if let SimpleQueryMessage::Row(row) = message {
            found.in_recovery = row.try_get(0)? == Some("t");
            found.read_only = row.try_get(1)? == Some("on");
        }
    }
    Ok(found)
}
