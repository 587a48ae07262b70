//! The daemon's own paths below /api, for operators: triggers of the database, health in five words, plugins of a folder, and the
//! description of all endpoints, which every valid token may read.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::guard::shown_token;
use super::reply::{Refusal, Reply, respond, respond_json};
use super::{Request, Server, openapi, other_methods};
use crate::db::query::Db;
use crate::plugin::Plugin;
use crate::plugin::bundle::Bundle;
use crate::plugin::installer::{self, Options, PluginError};

/// What takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);
/// What takes longer is offline.
const OFFLINE: Duration = Duration::from_secs(3);

/// What the paths show beside the database.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Folder of the plugins that may be installed over HTTP; none: they may not.
    pub plugin_dir: Option<PathBuf>,
    /// A folder on the disk that matters.
    pub disk: Option<PathBuf>,
    /// Kafka's brokers.
    pub brokers: Vec<String>,
}

/// One of the paths; a slash at the end makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    OpenApi,
    ActiveTriggers,
    SystemHealth,
    PluginList,
    PluginDownload,
    PluginInstall,
}

impl Path {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/api/")?.trim_end_matches('/') {
            "openapi.json" => Self::OpenApi,
            "active_triggers" => Self::ActiveTriggers,
            "system_health" => Self::SystemHealth,
            "plugin_list" => Self::PluginList,
            "plugin_download" => Self::PluginDownload,
            "plugin_install" => Self::PluginInstall,
            _ => return None,
        })
    }
}

impl Server {
    /// Answers a request to one of the paths.
    pub(super) async fn answer_own(&self, request: &Request<'_>, path: Path) -> Result<Reply, Refusal> {
        let fits = match path {
            Path::PluginInstall => request.method == Method::POST,
            _ => matches!(*request.method, Method::GET | Method::HEAD),
        };
        if !fits {
            return Err(other_methods(if path == Path::PluginInstall { "POST" } else { "GET, HEAD" }));
        }
        self.look_at(request)?;
        let admitted = self.admit(request, if path == Path::OpenApi { "any" } else { "operator" }).await;
        if path == Path::SystemHealth {
            // Without a database nobody can be told from anybody, and five words give nothing away.
            if let Err(refusal) = admitted
                && !refusal.status.is_server_error()
            {
                return Err(refusal);
            }
            return Ok(respond_json(StatusCode::OK, &self.system_health().await));
        }
        admitted?;
        match path {
            Path::OpenApi => {
                let all = self.catalogue.all().ok_or_else(|| Refusal::busy("waiting for the database"))?;
                Ok(respond_json(StatusCode::OK, &openapi::describe(&all)))
            }
            Path::ActiveTriggers => {
                let row = self.db()?.row("endpoint.active_triggers", &[]).await;
                let triggers: Value = row
                    .map_err(|error| Refusal::of_error(&error))?
                    .map_or(Value::Null, |row| row.get("triggers"));
                Ok(respond_json(StatusCode::OK, &triggers))
            }
            Path::PluginList => {
                let list = self.zips().into_iter().map(|(name, _)| {
                    let query = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
                    json!({ "name": name, "download_url": format!("/api/plugin_download/?plugin_name={query}") })
                });
                Ok(respond_json(StatusCode::OK, &list.collect()))
            }
            Path::PluginDownload => {
                let zip = tokio::fs::read(self.zip(request)?).await.map_err(|_| not_found())?;
                Ok(respond(StatusCode::OK, "application/zip", zip))
            }
            Path::PluginInstall => self.install(request).await,
            Path::SystemHealth => unreachable!("it was answered above"),
        }
    }

    /// The daemon's own sessions: whether all is well must not depend on how busy the endpoints are.
    pub(super) fn db(&self) -> Result<&Db, Refusal> {
        self.snapshots.db.get().ok_or_else(|| Refusal::busy("waiting for the database"))
    }

    pub(super) async fn admit(&self, request: &Request<'_>, auth: &str) -> Result<(), Refusal> {
        let (token, open) = (shown_token(request.headers), self.guard.came_straight(request.headers));
        if token.is_none() && !open {
            return Err(Refusal::of_status(401, false));
        }
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&auth, &token, &open];
        let row = tokio::time::timeout(OFFLINE, self.db()?.row("endpoint.authorise", &parameters))
            .await
            .map_err(|_| Refusal::busy("the database does not answer"))?
            .map_err(|error| Refusal::of_error(&error))?;
        match row.and_then(|row| row.get::<_, Option<i32>>("refusal")) {
            Some(status) => Err(Refusal::of_status(status, token.is_some())),
            None => Ok(()),
        }
    }

    /// The zips of the folder by name, without their ending.
    fn zips(&self) -> Vec<(String, PathBuf)> {
        let folder = self.surroundings.plugin_dir.as_deref().and_then(|folder| folder.read_dir().ok());
        let mut zips: Vec<(String, PathBuf)> = folder
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "zip") && path.is_file())
            .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
            .collect();
        zips.sort();
        zips
    }

    /// The zip that the query names: only what is listed, so no name leads elsewhere.
    fn zip(&self, request: &Request<'_>) -> Result<PathBuf, Refusal> {
        let wanted = url::form_urlencoded::parse(request.query.as_bytes())
            .find(|(key, value)| key == "plugin_name" && !value.is_empty())
            .ok_or_else(|| detail(StatusCode::BAD_REQUEST, "Missing 'plugin_name' query parameter."))?
            .1;
        let wanted = wanted.strip_suffix(".zip").unwrap_or(&wanted);
        self.zips().into_iter().find(|(name, _)| name == wanted).map(|(_, path)| path).ok_or_else(not_found)
    }

    async fn install(&self, request: &Request<'_>) -> Result<Reply, Refusal> {
        if self.surroundings.plugin_dir.is_none() {
            return Err(detail(
                StatusCode::FORBIDDEN,
                "Plugins are not installed here: http.plugin_dir is not set.",
            ));
        }
        let zip = self.zip(request)?;
        let wrong = |problem: String| detail(StatusCode::BAD_REQUEST, &problem);
        let bundle = Bundle::open(&zip).map_err(|problems| {
            wrong(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let plugin = Plugin::read(bundle).map_err(|problems| wrong(problems.to_string()))?;
        installer::install(&self.connector, &plugin, Options::default(), &|_| {}).await.map_err(|error| {
            match &error {
                PluginError::Problems(problems) => wrong(problems.to_string()),
                PluginError::Refused { message, .. } => detail(StatusCode::CONFLICT, message),
                PluginError::Connect(_) | PluginError::Postgres(_) | PluginError::Closed => {
                    tracing::error!(%error, plugin = plugin.manifest.name, "a plugin was not installed");
                    Refusal::internal()
                }
            }
        })?;
        tracing::info!(plugin = plugin.manifest.name, "installed over HTTP");
        Ok(respond_json(StatusCode::OK, &json!({ "detail": "Plugin installed successfully" })))
    }

    async fn system_health(&self) -> Value {
        let begun = Instant::now();
        let late = match self.db() {
            Ok(db) => tokio::time::timeout(OFFLINE, db.row("endpoint.tasks_are_late", &[])).await.ok(),
            Err(_) => None,
        };
        let late = late.and_then(Result::ok).flatten().map(|row| row.get::<_, bool>("late"));
        let database = if late.is_some() { by_time(begun.elapsed()) } else { "offline" };
        let dispatcher = self.snapshots.health.all().remove("dispatcher");
        let tasks = match (late, dispatcher) {
            (Some(late), Some(health)) if health.error.is_none() => {
                if late {
                    "slow"
                } else {
                    "working"
                }
            }
            _ => "offline",
        };
        let listener = if self.snapshots.bell.is_listening() { "working" } else { "offline" };
        let word = |status| json!({ "status": status });
        json!({ "database": word(database), "tasks": word(tasks), "listener": word(listener),
            "disk_usage": word(self.disk()), "kafka": word(self.kafka().await) })
    }

    /// By what is left of the disk: below a fifth slow, below a twentieth offline.
    fn disk(&self) -> &'static str {
        let folder = self.surroundings.disk.as_deref().unwrap_or(std::path::Path::new("/"));
        let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
        let Ok(disk) = nix::sys::statvfs::statvfs(existing) else { return "offline" };
        let left = disk.blocks_available() as f64 / (disk.blocks() as f64).max(1.0);
        match left {
            left if left > 0.2 => "working",
            left if left > 0.05 => "slow",
            _ => "offline",
        }
    }

    /// Whether one of the brokers takes a connection; without brokers there is no Kafka.
    async fn kafka(&self) -> &'static str {
        let begun = Instant::now();
        for broker in &self.surroundings.brokers {
            let connected =
                tokio::time::timeout(OFFLINE, tokio::net::TcpStream::connect(broker.as_str())).await;
            if matches!(connected, Ok(Ok(_))) {
                return by_time(begun.elapsed());
            }
        }
        "offline"
    }
}

fn by_time(took: Duration) -> &'static str {
    if took < SLOW { "working" } else { "slow" }
}

fn detail(status: StatusCode, text: &str) -> Refusal {
    Refusal { body: Some(json!({ "detail": text })), ..Refusal::new(status, "") }
}

fn not_found() -> Refusal {
    detail(StatusCode::NOT_FOUND, "Plugin not found")
}
