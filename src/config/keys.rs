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
}

/// One key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The table it belongs to; `programs.*` for each program.
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
    key("http", "listen", Kind::Text, "address of the status page, or off"),
    key("log", "format", Kind::Text, "text, json or auto"),
    key("log", "level", Kind::Text, "least severe level, or a filter such as info,rowbeat=debug"),
    key("programs.*", "path", Kind::Text, "absolute path of the program"),
    key("programs.*", "args", Kind::Texts, "arguments"),
    key("programs.*", "env", Kind::Map, "environment variables"),
    key("programs.*", "working_dir", Kind::Text, "folder the program starts in"),
];

/// The tables of the file.
pub(crate) const SECTIONS: &[&str] = &["database", "private_postgres", "node", "http", "log", "programs"];

/// The key of a table by its name.
pub(crate) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The names of the keys of one table.
pub(crate) fn names(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.section == section).map(|key| key.name)
}
