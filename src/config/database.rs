//! How to reach a Postgres: the checked form of the connection parameters.
//!
//! Holds no layers and no origins any more; [`super::resolve`] makes it from those. Reading certificates and connecting is
//! the business of `db::connect`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address, or the folder of a unix socket when it begins with `/`.
    pub host: String,
    /// Numeric address that spares the name lookup.
    pub hostaddr: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Password for this server, when one is known.
    pub password: Option<Secret>,
}

impl Target {
    /// Is this the folder of a unix socket?
    pub fn is_unix(&self) -> bool {
        self.hostaddr.is_none() && self.host.starts_with('/')
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Declares a closed set of words as an enum with `parse`, `as_str` and the list of its words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$one])* $variant),+ }

        impl $name {
            /// All words, in order.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The variant that a word means.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }

            /// The word of this variant.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How much of TLS is wanted, as libpq names it.
    SslMode {
        /// Never.
        Disable = "disable",
        /// Only when the server refuses plain connections.
        Allow = "allow",
        /// When the server can; not verified.
        Prefer = "prefer",
        /// Always; verified like `verify-ca` when there is a root certificate.
        Require = "require",
        /// Always, and the certificate must come from a trusted root.
        VerifyCa = "verify-ca",
        /// Always, trusted, and made out for the host's name.
        VerifyFull = "verify-full",
    }
}

words! {
    /// Which of several servers will do.
    TargetSessionAttrs {
        /// The first that answers.
        Any = "any",
        /// One that takes writes.
        ReadWrite = "read-write",
        /// One whose sessions are read-only.
        ReadOnly = "read-only",
        /// One that is not in recovery.
        Primary = "primary",
        /// One that is in recovery.
        Standby = "standby",
        /// A standby, else any.
        PreferStandby = "prefer-standby",
    }
}

words! {
    /// In which order several hosts are tried.
    LoadBalanceHosts {
        /// As written.
        Disable = "disable",
        /// Shuffled for each connection.
        Random = "random",
    }
}

words! {
    /// How TLS begins.
    SslNegotiation {
        /// Postgres asks first.
        Postgres = "postgres",
        /// At once; needs server 17.
        Direct = "direct",
    }
}

words! {
    /// Is the password exchange bound to the TLS channel?
    ChannelBinding {
        /// No.
        Disable = "disable",
        /// When the server can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
    }
}

/// Where trusted root certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCertificates {
    /// Nowhere: nothing is verified.
    None,
    /// The platform's store.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// TLS settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// How much of TLS is wanted.
    pub mode: SslMode,
    /// Trusted roots.
    pub roots: RootCertificates,
    /// Client certificate and its key, PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
    /// How TLS begins.
    pub negotiation: SslNegotiation,
    /// Binding of the password exchange.
    pub channel_binding: ChannelBinding,
    /// Refuse TLS 1.2?
    pub only_tls13: bool,
}

/// TCP keepalive; `None` is the system's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Send probes at all?
    pub enabled: bool,
    /// Idle time before the first.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
    /// How many may go unanswered.
    pub retries: Option<u32>,
    /// How long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// How to reach the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The servers, in the order they are tried; never empty.
    pub targets: Vec<Target>,
    /// Role to connect as.
    pub user: String,
    /// Name of the database.
    pub dbname: String,
    /// TLS.
    pub tls: TlsConfig,
    /// Which of several servers will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// In which order they are tried.
    pub load_balance_hosts: LoadBalanceHosts,
    /// Limit for each server, from name lookup to the first query; `None` waits for ever.
    pub connect_timeout: Option<Duration>,
    /// First part of each session's name in `pg_stat_activity`.
    pub application_name: String,
    /// Command-line options for the session (libpq's `options`).
    pub options: Option<String>,
    /// TCP keepalive.
    pub keepalive: Keepalive,
    /// Where LISTEN connects when that is not here (`database.listen_url`).
    pub listen: Option<Box<DatabaseConfig>>,
}

impl DatabaseConfig {
    /// A server behind a unix socket that trusts its users, such as the private one.
    pub fn unix_socket(folder: &str, port: u16, user: &str, dbname: &str) -> Self {
        Self {
            targets: vec![Target { host: folder.to_owned(), hostaddr: None, port, password: None }],
            user: user.to_owned(),
            dbname: dbname.to_owned(),
            tls: TlsConfig {
                mode: SslMode::Disable,
                roots: RootCertificates::None,
                client: None,
                negotiation: SslNegotiation::Postgres,
                channel_binding: ChannelBinding::Prefer,
                only_tls13: false,
            },
            target_session_attrs: TargetSessionAttrs::Any,
            load_balance_hosts: LoadBalanceHosts::Disable,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            application_name: DEFAULT_APPLICATION_NAME.to_owned(),
            options: None,
            keepalive: Keepalive {
                enabled: true,
                idle: None,
                interval: None,
                retries: None,
                user_timeout: None,
            },
            listen: None,
        }
    }

    /// What this leads to, in one line and without secrets.
    pub fn describe(&self) -> String {
        let targets = self.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut text = format!("database {} on {targets} as {}", self.dbname, self.user);
        if self.targets.iter().any(|target| !target.is_unix()) {
            text.push_str(&format!(", sslmode {}", self.tls.mode));
        }
        if self.target_session_attrs != TargetSessionAttrs::Any {
            text.push_str(&format!(", {}", self.target_session_attrs));
        }
        text
    }
}

/// Limit for each server when nothing else is said.
pub(crate) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// First part of the sessions' names when nothing else is said.
pub(crate) const DEFAULT_APPLICATION_NAME: &str = "rowbeat";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written_back() {
        for word in SslMode::WORDS {
            assert_eq!(SslMode::parse(word).map(SslMode::as_str), Some(*word));
        }
        assert_eq!(TargetSessionAttrs::parse("master"), None);
    }

    #[test]
    fn a_description_shows_no_password() {
        let mut config = DatabaseConfig::unix_socket("/run/x", 5432, "u", "shop");
        config.targets[0].password = Some(Secret::new("hunter2"));
        assert_eq!(config.describe(), "database shop on /run/x:5432 as u");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
