//! The configuration: one TOML file, `DATABASE_URL` and libpq's variables, read once at the start.
//!
//! Promises: what is not known is refused with a proposal; all errors are reported together; no secret is ever shown. It is
//! the only part of the program that reads the environment. It connects to nothing.
//!
//! No other module takes the whole [`Config`]; each gets its own part.

mod address;
mod backup;
mod connections;
mod database;
mod document;
mod dsn;
mod duration;
mod environment;
mod errors;
pub mod keys;
mod parameters;
mod passfile;
mod resolve;
mod secret;
mod sections;
mod sources;
mod values;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::address::is_public;
pub use self::backup::BackupTarget;
pub use self::connections::{
    ClientAuth, ConnectionsConfig, HttpAuth, HttpConnection, HttpSignature, KafkaConnection, OAuth2,
    SmtpConnection, SmtpTls,
};
pub use self::database::{
    ChannelBinding, DatabaseConfig, Keepalive, LoadBalanceHosts, RootCertificates, SslMode, SslNegotiation,
    Target, TargetSessionAttrs, TlsConfig,
};
pub use self::duration::{format_duration, parse_duration};
pub use self::environment::Environment;
pub use self::errors::{ConfigError, ConfigErrors};
pub use self::secret::Secret;
pub use self::sections::{
    HttpConfig, LogConfig, LogFormat, NodeConfig, PrivatePostgresConfig, ProgramConfig,
};

use self::document::Document;
use self::resolve::Notes;

/// Where the configuration is looked for when no path is given; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/rowbeat/rowbeat.toml";

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database; `None` means the private Postgres.
    pub database: Option<DatabaseConfig>,
    /// Most connections in the pool.
    pub max_connections: usize,
    /// The private Postgres.
    pub private_postgres: PrivatePostgresConfig,
    /// This daemon among the others.
    pub node: NodeConfig,
    /// The status page.
    pub http: HttpConfig,
    /// The log.
    pub log: LogConfig,
    /// The programs that `exec` tasks may run, by their name.
    pub programs: std::collections::BTreeMap<String, ProgramConfig>,
    /// Further targets of the backup, by name.
    pub backup: std::collections::BTreeMap<String, BackupTarget>,
    /// Where the effects of tasks lead, by name.
    pub connections: ConnectionsConfig,
    /// What is not wrong but deserves a line in the log.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    rows: Vec<EffectiveRow>,
}

/// A value that is in force, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveRow {
    /// The key, such as `database.host`.
    pub key: String,
    /// The value, `***` for a secret.
    pub value: String,
    /// The place, such as `/etc/rowbeat/rowbeat.toml line 3`, `PGHOST` or `default`.
    pub source: String,
}

impl Config {
    /// Reads the file at `path` (or at [`DEFAULT_PATH`], if it is there) and the environment.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigErrors> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::from_text(&text, file, environment),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                let mut config = Self::from_text("", file, environment)?;
                config.file = None;
                Ok(config)
            }
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", file.display());
                let remedy = "name an existing file that the daemon's account can read";
                Err(ConfigErrors(vec![ConfigError::new("--config", problem, remedy)]))
            }
        }
    }

    /// The same from a text in memory; `file` is its name in messages.
    pub fn from_text(text: &str, file: &Path, environment: &Environment) -> Result<Self, ConfigErrors> {
        let (mut errors, mut warnings, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let document = Document::read(text, &file.display().to_string(), &mut errors);
        let mut notes = Notes { errors: &mut errors, warnings: &mut warnings };
        let found = sources::database(&document, environment, &mut notes);
        let backup = backup::targets(&document, environment, &mut notes, &mut rows);
        let mut sections =
            values::Sections::new(&document, environment, &mut errors, &mut rows, &mut warnings);
        if found.is_none() {
            sections.show("database.name", "a private Postgres", "default");
        }
        let config = Self {
            max_connections: sections.count("database.max_connections", 10, 1..=10_000),
            private_postgres: sections.private_postgres(),
            node: sections.node(),
            http: sections.http(),
            log: sections.log(),
            programs: sections.programs(),
            backup,
            connections: sections.connections(),
            database: None,
            warnings,
            file: Some(file.to_owned()),
            rows: Vec::new(),
        };
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let mut all =
            found.as_ref().map_or_else(Vec::new, |(config, parameters)| database_rows(config, parameters));
        if let Some((url, source)) = document.text("database.listen_url").filter(|_| found.is_some()) {
            let shown = found.as_ref().and_then(|(config, _)| config.listen.as_ref());
            let value = shown.map_or_else(|| url.to_owned(), |direct| direct.describe());
            all.push(EffectiveRow { key: "database.listen_url".into(), value, source: source.to_owned() });
        }
        all.append(&mut rows);
        Ok(Self { database: found.map(|(config, _)| config), rows: all, ..config })
    }

    /// Every value in force with its source, for `rowbeat check`; secrets as `***`.
    pub fn effective(&self) -> Vec<EffectiveRow> {
        self.rows.clone()
    }

    /// Puts the private Postgres somewhere else, as `--data-dir` asks.
    pub fn override_data_dir(&mut self, data_dir: PathBuf) {
        let key = "private_postgres.data_dir";
        self.rows.retain(|row| row.key != key);
        let value = data_dir.display().to_string();
        self.rows.push(EffectiveRow { key: key.into(), value, source: "--data-dir".into() });
        self.private_postgres.data_dir = Some(data_dir);
    }
}

fn database_rows(config: &DatabaseConfig, parameters: &parameters::Parameters) -> Vec<EffectiveRow> {
    let row = |key: String, value: &str, source: &str| EffectiveRow {
        key,
        value: value.into(),
        source: source.into(),
    };
    let mut rows: Vec<_> = parameters
        .iter()
        .map(|(keyword, setting)| {
            let value = if keyword == "password" { "***" } else { &setting.value };
            row(sources::key_of(keyword), value, &setting.origin.source)
        })
        .collect();
    let join = |part: fn(&Target) -> String| config.targets.iter().map(part).collect::<Vec<_>>().join(",");
    let timeout = config.connect_timeout.map_or_else(|| "none".into(), format_duration);
    let defaults = [
        ("host", join(|target| target.host.clone())),
        ("port", join(|target| target.port.to_string())),
        ("dbname", config.dbname.clone()),
        ("user", config.user.clone()),
        ("sslmode", config.tls.mode.to_string()),
        ("target_session_attrs", config.target_session_attrs.to_string()),
        ("connect_timeout", timeout),
        ("application_name", config.application_name.clone()),
    ];
    for (keyword, value) in defaults {
        if parameters.get(keyword).is_none() {
            rows.push(row(sources::key_of(keyword), &value, "default"));
        }
    }
    if parameters.get("password").is_none() && config.targets.iter().any(|target| target.password.is_some()) {
        rows.push(row("database.password".into(), "***", "password file"));
    }
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

#[cfg(test)]
mod tests {
    use super::document::Document;
    use super::keys::{HTTP_CONNECTION, KAFKA_CONNECTION, KEYS, SMTP_CONNECTION};

    const EXAMPLE: &str = include_str!("../systemd/rowbeat.toml.example");

    /// The example with every key in force: a comment is `# text`, a key `#key = value`.
    fn uncommented() -> String {
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => key,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_has_every_key_and_no_other() {
        let mut errors = Vec::new();
        let document = Document::read(&uncommented(), "rowbeat.toml.example", &mut errors);
        assert!(errors.is_empty(), "{errors:#?}");
        for key in KEYS {
            let section = match key.section {
                HTTP_CONNECTION => "connections.payments",
                SMTP_CONNECTION => "connections.mail",
                KAFKA_CONNECTION => "connections.events",
                "programs.*" => "programs.report",
                "backup.*" if key.name == "folder" => "backup.archive",
                "backup.*" => "backup.second",
                other => other,
            };
            let dotted = format!("{section}.{}", key.name);
            assert!(document.get(&dotted).is_some(), "{dotted} is not in the example");
        }
    }

    #[test]
    fn every_key_of_the_example_is_explained() {
        let lines: Vec<_> = EXAMPLE.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with('#') && !line.starts_with("# ") {
                assert!(lines[at - 1].starts_with('#'), "{line} has no comment above it");
            }
        }
    }
}
