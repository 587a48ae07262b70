//! Every key of the configuration file: its name, what kind of value it takes, its default and what it means.
//!
//! The reader refuses what is not listed here; a test holds the shipped example against this list.

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// A whole number.
    Integer,
    /// A whole number, or a text with one or several separated by commas.
    Integers,
    /// A text such as `30s`, or a whole number of seconds.
    Duration,
    /// A table of texts.
    Map,
    /// true or false.
    Flag,
}

/// One key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The table it belongs to; `programs.*` for each program, one of the `CONNECTION` sections for each connection.
    pub section: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// What kind of value it takes.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub help: &'static str,
}

const fn key(section: &'static str, name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { section, name, kind, help }
}

/// The keys of a further target of the backup.
pub const BACKUP: &str = "backup.*";
/// The keys of a connection of type `http`.
pub const HTTP_CONNECTION: &str = "connections.* of type http";
/// The keys of a connection of type `smtp`.
pub const SMTP_CONNECTION: &str = "connections.* of type smtp";
/// The keys of a connection of type `kafka`.
pub const KAFKA_CONNECTION: &str = "connections.* of type kafka";

/// All keys, in the order of the example.
pub const KEYS: &[Key] = &[
    key("database", "url", Kind::Text, "connection string, as a postgres:// URL or key=value pairs"),
    key(
        "database",
        "host",
        Kind::Text,
        "host name or socket directory; several separated by commas are tried in order",
    ),
    key(
        "database",
        "hostaddr",
        Kind::Text,
        "numeric addresses that spare the name lookup; one for each host",
    ),
    key("database", "port", Kind::Integers, "port, one for all hosts or one for each"),
    key("database", "name", Kind::Text, "name of the database"),
    key("database", "user", Kind::Text, "role to connect as"),
    key("database", "password_file", Kind::Text, "file that holds the password"),
    key("database", "password_credential", Kind::Text, "systemd credential that holds the password"),
    key("database", "sslmode", Kind::Text, "disable, allow, prefer, require, verify-ca or verify-full"),
    key("database", "sslrootcert", Kind::Text, "file of trusted root certificates, or system"),
    key("database", "sslcert", Kind::Text, "client certificate"),
    key("database", "sslkey", Kind::Text, "key of the client certificate"),
    key(
        "database",
        "target_session_attrs",
        Kind::Text,
        "which server of several will do: any, read-write, read-only, primary, standby or prefer-standby",
    ),
    key(
        "database",
        "connect_timeout",
        Kind::Duration,
        "limit for each host, from name lookup to first query",
    ),
    key(
        "database",
        "listen_url",
        Kind::Text,
        "direct connection string for LISTEN when url leads to a pooler",
    ),
    key("database", "max_connections", Kind::Integer, "most connections in the pool"),
    key("database", "application_name", Kind::Text, "name that pg_stat_activity shows"),
    key("private_postgres", "bindir", Kind::Text, "folder of the server programs initdb and postgres"),
    key("private_postgres", "data_dir", Kind::Text, "folder that the private Postgres lives in"),
    key("node", "name", Kind::Text, "name of this daemon among the others"),
    key("node", "queues", Kind::Texts, "queues that this daemon works on; * is every queue"),
    key("node", "concurrency", Kind::Integer, "most tasks that run here at the same time"),
    key("node", "drain_timeout", Kind::Duration, "how long running tasks may go on after SIGTERM"),
    key("node", "poll_interval", Kind::Duration, "how often to look for work although no notification came"),
    key(
        "node",
        "state_dir",
        Kind::Text,
        "folder of the file by which a restarted daemon knows that its last process is dead",
    ),
    key("http", "listen", Kind::Text, "address of the status page and of plugins' endpoints, or off"),
    key("http", "hosts", Kind::Texts, "names by which it may be asked, beside those of the loopback"),
    key("http", "max_connections", Kind::Integer, "most sessions for plugins' endpoints"),
    key("http", "timeout", Kind::Duration, "time limit of an endpoint's function"),
    key("http", "root_page", Kind::Text, "path that / leads to instead of the status"),
    key("http", "plugin_dir", Kind::Text, "folder of plugins that may be installed over HTTP"),
    key("log", "format", Kind::Text, "text, json or auto"),
    key("log", "level", Kind::Text, "least severe level, or a filter such as info,rowbeat=debug"),
    key("programs.*", "path", Kind::Text, "absolute path of the program"),
    key("programs.*", "args", Kind::Texts, "arguments"),
    key("programs.*", "env", Kind::Map, "environment variables"),
    key("programs.*", "working_dir", Kind::Text, "folder the program starts in"),
    key(BACKUP, "url", Kind::Text, "connection string of a database that takes the images"),
    key(BACKUP, "password_file", Kind::Text, "file that holds the password"),
    key(BACKUP, "folder", Kind::Text, "folder of append-only files that take the images"),
    key(HTTP_CONNECTION, "type", Kind::Text, "http"),
    key(HTTP_CONNECTION, "base_url", Kind::Text, "where it leads; the paths of effects are appended"),
    key(HTTP_CONNECTION, "auth", Kind::Text, "none, basic, bearer or oauth2"),
    key(HTTP_CONNECTION, "username", Kind::Text, "basic: the user"),
    key(HTTP_CONNECTION, "password_file", Kind::Text, "basic: file that holds the password"),
    key(HTTP_CONNECTION, "token_file", Kind::Text, "bearer: file that holds the token"),
    key(
        HTTP_CONNECTION,
        "token_url",
        Kind::Text,
        "oauth2: where client credentials are exchanged for a token",
    ),
    key(HTTP_CONNECTION, "client_id", Kind::Text, "oauth2: the client"),
    key(HTTP_CONNECTION, "client_secret_file", Kind::Text, "oauth2: file that holds the client secret"),
    key(
        HTTP_CONNECTION,
        "client_auth",
        Kind::Text,
        "oauth2: how the client identifies itself, basic or body",
    ),
    key(HTTP_CONNECTION, "scope", Kind::Text, "oauth2: what is asked for"),
    key(HTTP_CONNECTION, "token_params", Kind::Map, "oauth2: more parameters of the token request"),
    key(HTTP_CONNECTION, "token_headers", Kind::Map, "oauth2: more headers of the token request"),
    key(
        HTTP_CONNECTION,
        "token_header_files",
        Kind::Map,
        "oauth2: the same, with files that hold the values",
    ),
    key(HTTP_CONNECTION, "headers", Kind::Map, "headers of every request"),
    key(HTTP_CONNECTION, "header_files", Kind::Map, "the same, with files that hold the values"),
    key(HTTP_CONNECTION, "timeout", Kind::Duration, "limit of one request, from connecting to the last byte"),
    key(HTTP_CONNECTION, "redirects", Kind::Integer, "most redirects that are followed"),
    key(
        HTTP_CONNECTION,
        "allow_private_addresses",
        Kind::Flag,
        "whether the host may have an address that is not public",
    ),
    key(HTTP_CONNECTION, "max_response_bytes", Kind::Integer, "a longer response is an error"),
    key(
        HTTP_CONNECTION,
        "ca_file",
        Kind::Text,
        "PEM file of root certificates trusted beside those of the platform",
    ),
    key(
        HTTP_CONNECTION,
        "signature_secret_file",
        Kind::Text,
        "file that holds the secret with which requests are signed",
    ),
    key(HTTP_CONNECTION, "signature_header", Kind::Text, "header that carries the signature"),
    key(SMTP_CONNECTION, "type", Kind::Text, "smtp"),
    key(SMTP_CONNECTION, "host", Kind::Text, "the mail server"),
    key(SMTP_CONNECTION, "port", Kind::Integer, "its port"),
    key(SMTP_CONNECTION, "tls", Kind::Text, "starttls, implicit or none"),
    key(SMTP_CONNECTION, "username", Kind::Text, "user to log in as"),
    key(SMTP_CONNECTION, "password_file", Kind::Text, "file that holds the password"),
    key(SMTP_CONNECTION, "from", Kind::Text, "sender of mails that name none"),
    key(SMTP_CONNECTION, "hello_name", Kind::Text, "name that the server is greeted with"),
    key(
        SMTP_CONNECTION,
        "timeout",
        Kind::Duration,
        "limit of one mail, from connecting to the server's last word",
    ),
    key(
        SMTP_CONNECTION,
        "ca_file",
        Kind::Text,
        "PEM file of root certificates trusted beside those of the platform",
    ),
    key(KAFKA_CONNECTION, "type", Kind::Text, "kafka"),
    key(
        KAFKA_CONNECTION,
        "bootstrap_servers",
        Kind::Text,
        "brokers to ask first, host:port separated by commas",
    ),
    key(KAFKA_CONNECTION, "username", Kind::Text, "user of SASL"),
    key(KAFKA_CONNECTION, "password_file", Kind::Text, "file that holds the password"),
    key(KAFKA_CONNECTION, "properties", Kind::Map, "further properties of librdkafka"),
    key(KAFKA_CONNECTION, "timeout", Kind::Duration, "how long a message may wait to be acknowledged"),
];

/// The tables of the file.
pub(crate) const SECTIONS: &[&str] =
    &["database", "private_postgres", "node", "http", "log", "programs", "backup", "connections"];

/// The key of a table by its name.
pub(crate) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The names of the keys of one table.
pub(crate) fn names(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.section == section).map(|key| key.name)
}
