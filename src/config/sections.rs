//! The tables of the file besides `[database]`: their values, defaults and limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Entry, Value};
use super::errors::did_you_mean;
use super::values::{DEFAULT, Sections};

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
    /// Folder of the file that tells it that its earlier process is dead; `None`: there is no home for it.
    pub state_dir: Option<PathBuf>,
}

/// The status page and the endpoints of plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens; `None` is off.
    pub listen: Option<SocketAddr>,
    /// Names it is known by, beside those of the loopback and its own address.
    pub hosts: Vec<String>,
    /// Sessions for the endpoints of plugins.
    pub max_connections: usize,
    /// Time limit of an endpoint's function.
    pub timeout: Duration,
    /// Where / leads; `None`: to the status.
    pub root_page: Option<String>,
    /// Folder of plugins that may be installed over HTTP; `None`: they may not.
    pub plugin_dir: Option<PathBuf>,
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

impl Sections<'_> {
    /// The folder that systemd gave the service for its state.
    fn state_directory(&self) -> Option<PathBuf> {
        self.environment.get("STATE_DIRECTORY")?.split(':').next().map(PathBuf::from)
    }

    pub(crate) fn private_postgres(&mut self) -> PrivatePostgresConfig {
        let mut data_dir = self.path("private_postgres.data_dir");
        if let (None, Some(folder)) = (&data_dir, self.state_directory()) {
            let below = folder.join("postgres");
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
                Duration::from_secs(30),
                Duration::from_millis(10),
            ),
            state_dir: self.state_dir(),
        }
    }

    fn state_dir(&mut self) -> Option<PathBuf> {
        if let Some(folder) = self.path("node.state_dir") {
            return Some(folder);
        }
        let (folder, source) = match (self.state_directory(), self.environment.get("XDG_STATE_HOME")) {
            (Some(folder), _) => (folder, "STATE_DIRECTORY"),
            (None, Some(home)) => (PathBuf::from(home).join("rowbeat"), "XDG_STATE_HOME"),
            (None, None) => (self.environment.home()?.join(".local/state/rowbeat"), DEFAULT),
        };
        self.show("node.state_dir", &folder.display(), source);
        Some(folder)
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
        let hosts = self.hosts();
        let root_page = self.optional("http.root_page");
        if root_page.as_ref().is_some_and(|page| !page.starts_with('/') || page.starts_with("//")) {
            let place = self.place("http.root_page");
            self.refuse("http.root_page", &place, "this is no path", "write a path, such as \"/shop/\"");
        }
        HttpConfig {
            listen,
            hosts,
            max_connections: self.count("http.max_connections", 4, 1..=1_000),
            timeout: self.duration("http.timeout", Duration::from_secs(20), Duration::from_millis(10)),
            root_page,
            plugin_dir: self.path("http.plugin_dir"),
        }
    }

    fn hosts(&mut self) -> Vec<String> {
        let key = "http.hosts";
        let Some(Entry { value: Value::Texts(hosts), place }) = self.document.get(key) else {
            return Vec::new();
        };
        if hosts.iter().any(|host| host.is_empty() || host.contains(['/', ':', '*'])) {
            self.refuse(key, place, "this is no name of a host", "write names without scheme and port");
        }
        self.show(key, &hosts.join(", "), place);
        hosts.clone()
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
            let env = self.map(&key("env"));
            let working_dir = self.path(&key("working_dir"));
            programs.insert(name.clone(), ProgramConfig { path, args, env, working_dir });
        }
        programs
    }
}
