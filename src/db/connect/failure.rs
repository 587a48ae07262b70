//! Why there is no session: every server that was tried with its reason, and what a person can do about it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::Connector;
use crate::config::{Target, TargetSessionAttrs};

/// What a session turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFound {
    /// The server is a standby.
    pub in_recovery: bool,
    /// The session takes no writes.
    pub read_only: bool,
}

impl SessionFound {
    pub(super) fn fits(self, wanted: TargetSessionAttrs) -> bool {
        match wanted {
            TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
            TargetSessionAttrs::ReadWrite => !self.read_only && !self.in_recovery,
            TargetSessionAttrs::ReadOnly => self.read_only || self.in_recovery,
            TargetSessionAttrs::Primary => !self.in_recovery,
            TargetSessionAttrs::Standby => self.in_recovery,
        }
    }
}

impl fmt::Display for SessionFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.in_recovery, self.read_only) {
            (true, _) => "a standby",
            (false, true) => "a primary with read-only sessions",
            (false, false) => "a primary that takes writes",
        })
    }
}

/// Why one server did not do.
#[derive(Debug, thiserror::Error)]
pub enum FailureCause {
    /// The driver's error.
    #[error("{}", chain(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// It took too long.
    #[error("no session within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// It is another kind of server than the one that is wanted.
    #[error("it is {found}, but target_session_attrs is {wanted}")]
    Session {
        /// The kind that is wanted.
        wanted: TargetSessionAttrs,
        /// The kind that answered.
        found: SessionFound,
    },
}

/// One server that did not do.
#[derive(Debug)]
pub struct HostFailure {
    /// The server, as `host:port`.
    pub host: String,
    /// Why it did not do.
    pub cause: FailureCause,
}

/// No server gave a session.
#[derive(Debug)]
pub struct ConnectError {
    database: String,
    user: String,
    /// Every server that was tried, in order; never empty.
    pub failures: Vec<HostFailure>,
}

impl ConnectError {
    /// The error of a caller whose own limit was over first.
    pub(in crate::db) fn timed_out(connector: &Connector, limit: Duration) -> Self {
        let late =
            |target: &Target| HostFailure { host: target.to_string(), cause: FailureCause::Timeout(limit) };
        Self::new(connector, connector.config().targets.iter().map(late).collect())
    }

    pub(super) fn new(connector: &Connector, failures: Vec<HostFailure>) -> Self {
        let config = connector.config();
        Self { database: config.dbname.clone(), user: config.user.clone(), failures }
    }

    /// The server's SQLSTATE, when a server answered with one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        self.driver_error()?.code()
    }

    /// The driver's error that says most: a server's answer before a failure to reach one.
    pub fn driver_error(&self) -> Option<&tokio_postgres::Error> {
        let mut errors = self.failures.iter().filter_map(|failure| match &failure.cause {
            FailureCause::Postgres(error) => Some(error),
            FailureCause::Timeout(_) | FailureCause::Session { .. } => None,
        });
        errors.clone().find(|error| error.code().is_some()).or_else(|| errors.next())
    }

    /// Will waiting not help, because a setting or the server's account is wrong?
    pub fn is_permanent(&self) -> bool {
        let lasting = |code: &SqlState| {
            [
                SqlState::INVALID_PASSWORD,
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                SqlState::INVALID_CATALOG_NAME,
                SqlState::INSUFFICIENT_PRIVILEGE,
            ]
            .contains(code)
        };
        self.sqlstate().is_some_and(lasting)
            || self.driver_error().is_some_and(|error| tls_cause(error).is_some())
    }

    /// What a person can do about it, when the cause is a known one.
    pub fn remedy(&self) -> Option<String> {
        use rustls::{CertificateError as C, Error as E};
        let code = self.sqlstate();
        let is = |state: SqlState| code == Some(&state);
        if is(SqlState::INVALID_PASSWORD) {
            return Some("check database.password_file, PGPASSWORD or ~/.pgpass".into());
        }
        if is(SqlState::INVALID_AUTHORIZATION_SPECIFICATION) {
            return Some(format!("check role {} and the server's pg_hba.conf", self.user));
        }
        if is(SqlState::INVALID_CATALOG_NAME) {
            return Some(format!("create it (createdb {}) or correct database.name", self.database));
        }
        match tls_cause(self.driver_error()?)? {
            E::InvalidCertificate(C::UnknownIssuer) => {
                Some("set database.sslrootcert to the authority that signed the server's certificate".into())
            }
            E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => Some(
                "use the host name that the certificate is made out for (its subjectAltName), or sslmode verify-ca".into(),
            ),
            E::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
                Some("renew the server's certificate".into())
            }
            E::AlertReceived(_) => Some("the server refused the handshake: check database.sslcert and sslkey".into()),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to database {} as {}", self.database, self.user)?;
        for (at, HostFailure { host, cause }) in self.failures.iter().enumerate() {
            write!(f, "{} {host}: {cause}", if at == 0 { ":" } else { ";" })?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConnectError {}

/// The TLS error inside of a driver's error.
pub(super) fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io::Error's source() is its content's source: look at the content itself too.
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(found) = inner.downcast_ref::<rustls::Error>()
        {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

/// An error with all its causes, each said once.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
