//! The tables of the file besides `[database]`: their values, defaults and limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::EffectiveRow;
use super::document::{Document, Entry, Value};
use super::duration::{SHAPE, format_duration, parse_duration};
use super::environment::Environment;
use super::errors::{ConfigError, did_you_mean};

/// Where the private Postgres lives and whose programs it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivatePostgresConfig {
    /// Folder of `initdb` and `postgres`; `None` looks in the usual places.
    pub bindir: Option<PathBuf>,
    /// Folder it lives in; `None` is below the user's data directory.
    pub data_dir: Option<PathBuf>,
}

/// This daemon among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// The queues it works on; `*` is every queue.
    pub queues: Vec<String>,
    /// Most tasks that run here at the same time.
    pub concurrency: usize,
    /// How long running tasks may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// How often to look for work although no notification came.
    pub poll_interval: Duration,
}

/// The status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens; `None` is off.
    pub listen: Option<SocketAddr>,
}

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
    /// Text on a terminal, JSON elsewhere.
    Auto,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Form of the lines.
    pub format: LogFormat,
    /// A level, or a filter by module.
    pub level: String,
}

/// A program that `exec` tasks may run. `Debug` shows the names of its variables only, for a value may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Folder it starts in.
    pub working_dir: Option<PathBuf>,
}

impl std::fmt::Debug for ProgramConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgramConfig")
            .field("path", &self.path)
            .field("args", &self.args)
            .field("env", &self.env.keys())
            .field("working_dir", &self.working_dir)
            .finish()
    }
}

/// Takes values out of the document, with defaults; notes errors and what is in force.
pub(crate) struct Sections<'a> {
    document: &'a Document,
    environment: &'a Environment,
    errors: &'a mut Vec<ConfigError>,
    rows: &'a mut Vec<EffectiveRow>,
}

const DEFAULT: &str = "default";

impl<'a> Sections<'a> {
    pub(crate) fn new(
        document: &'a Document,
        environment: &'a Environment,
        errors: &'a mut Vec<ConfigError>,
        rows: &'a mut Vec<EffectiveRow>,
    ) -> Self {
        Self { document, environment, errors, rows }
    }

    /// Notes a value that is in force.
    pub(crate) fn show(&mut self, key: &str, value: &(impl std::fmt::Display + ?Sized), source: &str) {
        self.rows.push(EffectiveRow { key: key.into(), value: value.to_string(), source: source.into() });
    }

    fn refuse(&mut self, key: &str, place: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(ConfigError::new(key, problem, remedy).at(place));
    }

    pub(crate) fn private_postgres(&mut self) -> PrivatePostgresConfig {
        let state = self.environment.get("STATE_DIRECTORY").and_then(|folders| folders.split(':').next());
        let mut data_dir = self.path("private_postgres.data_dir");
        if let (None, Some(folder)) = (&data_dir, state) {
            let below = PathBuf::from(folder).join("postgres");
            self.show("private_postgres.data_dir", &below.display(), "STATE_DIRECTORY");
            data_dir = Some(below);
        }
        PrivatePostgresConfig { bindir: self.path("private_postgres.bindir"), data_dir }
    }

    pub(crate) fn node(&mut self) -> NodeConfig {
        let host = self.environment.host_name().unwrap_or("localhost").to_owned();
        NodeConfig {
            name: self.text("node.name", &host),
            queues: self.queues(),
            concurrency: self.count("node.concurrency", 10, 1..=10_000),
            drain_timeout: self.duration("node.drain_timeout", Duration::from_secs(30), Duration::ZERO),
            poll_interval: self.duration(
                "node.poll_interval",
                Duration::from_secs(5),
                Duration::from_millis(10),
            ),
        }
    }

    fn queues(&mut self) -> Vec<String> {
        let key = "node.queues";
        let Some(Entry { value: Value::Texts(queues), place }) = self.document.get(key) else {
            self.show(key, "*", DEFAULT);
            return vec!["*".into()];
        };
        if queues.is_empty() || queues.iter().any(String::is_empty) {
            self.refuse(key, place, "a queue has no name", "name at least one queue, or write [\"*\"]");
        }
        self.show(key, &queues.join(", "), place);
        queues.clone()
    }

    pub(crate) fn http(&mut self) -> HttpConfig {
        let key = "http.listen";
        let text = self.text(key, "127.0.0.1:7474");
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let listen = numeric.as_deref().unwrap_or(&text).parse().ok();
        if listen.is_none() && text != "off" {
            let place = self.place(key);
            let remedy = "write an address with a port, such as \"127.0.0.1:7474\", or \"off\"";
            self.refuse(key, &place, format!("\"{text}\" is no address"), remedy);
        }
        HttpConfig { listen }
    }

    pub(crate) fn log(&mut self) -> LogConfig {
        let key = "log.format";
        let format = match self.text(key, "auto").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            "auto" => LogFormat::Auto,
            other => {
                let place = self.place(key);
                let remedy = did_you_mean(other, ["text", "json", "auto"]).unwrap_or_default();
                let remedy = format!("use text, json or auto {remedy}").trim().to_owned();
                self.refuse(key, &place, format!("\"{other}\" is not known"), remedy);
                LogFormat::Auto
            }
        };
        let level = self.text("log.level", "info");
        if level.parse::<tracing_subscriber::filter::EnvFilter>().is_err() {
            let place = self.place("log.level");
            let remedy = "use error, warn, info, debug, trace, or a filter such as \"info,rowbeat=debug\"";
            self.refuse("log.level", &place, format!("\"{level}\" is no filter"), remedy);
        }
        LogConfig { format, level }
    }

    pub(crate) fn programs(&mut self) -> BTreeMap<String, ProgramConfig> {
        let mut programs = BTreeMap::new();
        for (name, place) in self.document.programs() {
            let key = |part: &str| format!("programs.{name}.{part}");
            let Some(path) = self.path(&key("path")) else {
                self.refuse(&key("path"), place, "the program has no path", "add path = \"/absolute/path\"");
                continue;
            };
            if !path.is_absolute() {
                let place = self.place(&key("path"));
                self.refuse(
                    &key("path"),
                    &place,
                    "the path is relative",
                    "write it from / on: PATH is not searched",
                );
            }
            let args = match self.document.get(&key("args")) {
                Some(Entry { value: Value::Texts(args), place }) => {
                    self.show(&key("args"), &args.join(" "), place);
                    args.clone()
                }
                _ => Vec::new(),
            };
            let env = match self.document.get(&key("env")) {
                Some(Entry { value: Value::Map(env), place }) => {
                    // Only the names: the values may be secrets.
                    self.show(&key("env"), &env.keys().cloned().collect::<Vec<_>>().join(", "), place);
                    env.clone()
                }
                _ => BTreeMap::new(),
            };
            let working_dir = self.path(&key("working_dir"));
            programs.insert(name.clone(), ProgramConfig { path, args, env, working_dir });
        }
        programs
    }

    /// A whole number within limits.
    pub(crate) fn count(&mut self, key: &str, default: usize, limits: RangeInclusive<usize>) -> usize {
        let Some(Entry { value: Value::Integer(number), place }) = self.document.get(key) else {
            self.show(key, &default, DEFAULT);
            return default;
        };
        match usize::try_from(*number).ok().filter(|number| limits.contains(number)) {
            Some(number) => {
                self.show(key, &number, place);
                number
            }
            None => {
                let remedy = format!("give a number from {} to {}", limits.start(), limits.end());
                self.refuse(key, place, format!("{number} is out of range"), remedy);
                default
            }
        }
    }

    fn duration(&mut self, key: &str, default: Duration, least: Duration) -> Duration {
        let Some((text, place)) = self.document.text(key) else {
            self.show(key, &format_duration(default), DEFAULT);
            return default;
        };
        match parse_duration(text) {
            Some(duration) if duration >= least => {
                self.show(key, &format_duration(duration), place);
                duration
            }
            Some(_) => {
                let remedy = format!("give at least {}", format_duration(least));
                self.refuse(key, place, format!("\"{text}\" is too short"), remedy);
                default
            }
            None => {
                self.refuse(key, place, format!("\"{text}\" is no duration"), SHAPE);
                default
            }
        }
    }

    fn text(&mut self, key: &str, default: &str) -> String {
        let (value, place) = self.document.text(key).unwrap_or((default, DEFAULT));
        if value.trim().is_empty() {
            self.refuse(key, place, "it is empty", "give a value or remove the key");
        }
        self.show(key, value, place);
        value.to_owned()
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let (path, place) = self.document.text(key)?;
        if path.is_empty() {
            self.refuse(key, place, "the path is empty", "give a path or remove the key");
        }
        self.show(key, path, place);
        Some(PathBuf::from(path))
    }

    fn place(&self, key: &str) -> String {
        self.document.get(key).map_or_else(String::new, |entry| entry.place.clone())
    }
}
